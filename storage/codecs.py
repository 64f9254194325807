"""The five compression codecs of record batches, with a bound on what comes out.

Owns: the framing that Java's clients read and write. May fail with: CorruptBatch, BatchTooLarge, UnsupportedCodec.
Invariant: memory is bounded by twice `max_bytes` and what a codec needs to work, whatever the bytes say.
Source: Kafka compress.{Gzip,Snappy,Lz4,Zstd}Compression, Lz4BlockInputStream; snappy-java SnappyOutputStream.

A broker only stores compressed bytes, so cramjam is imported when first used.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from typing import Any

from zafka.storage.disk import Buffer
from zafka.storage.errors import BatchTooLarge, CorruptBatch, UnsupportedCodec

NONE = 0
GZIP = 1
SNAPPY = 2
LZ4 = 3
ZSTD = 4
CODEC_NAMES = ("none", "gzip", "snappy", "lz4", "zstd")  # Kafka's names, by number

# snappy-java's own framing: a header of 16 bytes, then blocks of (int32 length, raw snappy).
_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER = _XERIAL_MAGIC + struct.pack(">ii", 1, 1)  # version, oldest version that can read it
_XERIAL_BLOCK_BYTES = 32 * 1024
_BLOCK_LENGTH = struct.Struct(">i")

_FIRST_OUTPUT_BYTES = 64 * 1024
_GZIP_WINDOW = 31  # the largest window, and a gzip header rather than zlib's


def compress(codec: int, data: bytes, level: int | None = None) -> bytes:
    """`data` compressed as Java's clients do. level: the codec's own scale, None for Kafka's default."""
    if codec == NONE:
        return data
    if codec == GZIP:
        return zlib.compress(data, -1 if level is None else level, _GZIP_WINDOW)
    import cramjam

    if codec == SNAPPY:
        return _compress_xerial(data)
    if codec == LZ4:
        # Java refuses frames whose blocks depend on each other.
        frame = cramjam.lz4.Compressor(level=1 if level is None else level, content_checksum=False, block_linked=False)
        frame.compress(data)
        return bytes(frame.finish())
    if codec == ZSTD:
        return bytes(cramjam.zstd.compress(data, level=3 if level is None else level))
    raise UnsupportedCodec(f"there is no compression codec {codec}")


def decompress(codec: int, data: Buffer, *, max_bytes: int) -> bytes:
    """What was compressed. Raises BatchTooLarge rather than return more than `max_bytes`."""
    if codec == NONE:
        if len(data) > max_bytes:
            raise BatchTooLarge(f"{len(data)} bytes of records, at most {max_bytes} are allowed")
        return bytes(data)
    if codec == GZIP:
        return _decompress_gzip(data, max_bytes)
    import cramjam

    if codec == SNAPPY:
        return _decompress_snappy(data, max_bytes)
    if codec == LZ4:
        return _decompress_frame(cramjam.lz4, data, max_bytes)
    if codec == ZSTD:
        return _decompress_frame(cramjam.zstd, data, max_bytes)
    raise UnsupportedCodec(f"there is no compression codec {codec}")


def _too_large(max_bytes: int) -> BatchTooLarge:
    return BatchTooLarge(f"the batch decompresses to more than {max_bytes} bytes")


def _decompress_gzip(data: Buffer, max_bytes: int) -> bytes:
    inflate = zlib.decompressobj(_GZIP_WINDOW)
    try:
        out = inflate.decompress(data, max_bytes + 1)  # a length of 0 would mean no bound
    except zlib.error as error:
        raise CorruptBatch(f"gzip: {error}") from None
    if len(out) > max_bytes:
        raise _too_large(max_bytes)
    if not inflate.eof or inflate.unused_data:
        raise CorruptBatch("gzip: the stream does not end where the batch does")
    return out


def _decompress_frame(codec: Any, data: Buffer, max_bytes: int) -> bytes:
    """Into a buffer of fixed size: a frame need not tell its size, and may lie about it."""
    import cramjam

    size = min(max_bytes, max(_FIRST_OUTPUT_BYTES, 8 * len(data)))
    if size < max_bytes:
        out = bytearray(size)
        try:
            length = codec.decompress_into(data, out)
        except cramjam.DecompressionError:
            pass  # too small, or damaged: the largest buffer tells
        else:
            return bytes(memoryview(out)[:length])
    # Untouched pages of an anonymous mapping cost nothing, so that the bound can be taken at once.
    with mmap.mmap(-1, max(max_bytes, 1)) as largest:
        try:
            length = codec.decompress_into(data, largest)
        except cramjam.DecompressionError as error:
            if "write whole buffer" in str(error):
                raise _too_large(max_bytes) from None
            raise CorruptBatch(str(error)) from None
        if length > max_bytes:
            raise _too_large(max_bytes)
        return largest[:length]


def _compress_xerial(data: bytes) -> bytes:
    import cramjam

    parts = [_XERIAL_HEADER]
    for start in range(0, len(data), _XERIAL_BLOCK_BYTES):
        block = bytes(cramjam.snappy.compress_raw(data[start : start + _XERIAL_BLOCK_BYTES]))
        parts += (_BLOCK_LENGTH.pack(len(block)), block)
    return b"".join(parts)


def _decompress_snappy(data: Buffer, max_bytes: int) -> bytes:
    """snappy-java's framing, or one raw block as librdkafka writes it."""
    view = memoryview(data)
    if view[: len(_XERIAL_MAGIC)] != _XERIAL_MAGIC:
        return _decompress_snappy_block(view, max_bytes)
    parts = []
    position = len(_XERIAL_HEADER)
    while position < len(view):
        if len(view) - position < _BLOCK_LENGTH.size:
            raise CorruptBatch("snappy: a block ends within its length")
        (length,) = _BLOCK_LENGTH.unpack_from(view, position)
        position += _BLOCK_LENGTH.size
        if not 0 < length <= len(view) - position:
            raise CorruptBatch(f"snappy: a block of {length} bytes where {len(view) - position} are left")
        part = _decompress_snappy_block(view[position : position + length], max_bytes)
        max_bytes -= len(part)
        parts.append(part)
        position += length
    return b"".join(parts)


def _decompress_snappy_block(block: memoryview, max_bytes: int) -> bytes:
    import cramjam

    try:
        # The block begins with its size, and the decoder trusts it when it allocates.
        if cramjam.snappy.decompress_raw_len(block) > max_bytes:
            raise _too_large(max_bytes)
        return bytes(cramjam.snappy.decompress_raw(block))
    except cramjam.DecompressionError as error:
        raise CorruptBatch(str(error)) from None
