"""The recovery checkpoint of a partition: what is known to be on disk, so that a restart scans little.

Owns: the bytes of the file `recovery-checkpoint`, and how it is replaced: written to a temporary file, flushed,
renamed, and the directory flushed. So there is always one whole checkpoint, an older or a newer one.
Invariant: everything that a checkpoint tells (batches, index entries) was flushed before it got its name.
May fail with OSError from the disk, and CorruptCheckpoint when read.

     0  magic             4 bytes  "zfkc"
     4  version           int16    1
     6  crc               uint32   CRC-32C of everything from `flushed_offset` on
    10  flushed_offset    int64    batches below were on disk; they end the last segment below
    18  log_start_offset  int64
    26  high_watermark    int64
    34  segments          int32    how many follow, 48 bytes each, oldest first; the last one is the active segment:
                                   base_offset int64, end_offset int64, size int64, bytes of .index int32,
                                   bytes of .timeindex int32, max_timestamp int64, its offset int64
        leader_epochs     int32    how many follow, 12 bytes each: epoch int32, start_offset int64
        producers         int32    bytes that follow: a producer snapshot in Kafka's format
All numbers are big-endian.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

from crc32c import crc32c

from zafka.storage.disk import Disk, File
from zafka.storage.errors import CorruptCheckpoint
from zafka.storage.segment import SegmentRow

CHECKPOINT_NAME = "recovery-checkpoint"
TEMPORARY_SUFFIX = ".tmp"

_MAGIC = b"zfkc"
_VERSION = 1
_START = struct.Struct(">4shI")
_OFFSETS = struct.Struct(">qqq")
_COUNT = struct.Struct(">i")
_SEGMENT = struct.Struct(">qqqiiqq")
_EPOCH = struct.Struct(">iq")


class Checkpoint(NamedTuple):
    """segments: every segment, up to what was flushed; never empty.
    leader_epochs: (epoch, start offset), oldest first. producers: as `ProducerStates.snapshot` gave them."""

    flushed_offset: int
    log_start_offset: int
    high_watermark: int
    segments: tuple[SegmentRow, ...]
    leader_epochs: tuple[tuple[int, int], ...]
    producers: bytes


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    body = b"".join(
        (
            _OFFSETS.pack(checkpoint.flushed_offset, checkpoint.log_start_offset, checkpoint.high_watermark),
            _COUNT.pack(len(checkpoint.segments)),
            *(_SEGMENT.pack(*row) for row in checkpoint.segments),
            _COUNT.pack(len(checkpoint.leader_epochs)),
            *(_EPOCH.pack(*entry) for entry in checkpoint.leader_epochs),
            _COUNT.pack(len(checkpoint.producers)),
            checkpoint.producers,
        )
    )
    return _START.pack(_MAGIC, _VERSION, crc32c(body)) + body


def decode_checkpoint(data: bytes) -> Checkpoint:
    """Raises CorruptCheckpoint if the bytes are not exactly one whole checkpoint."""
    try:
        magic, version, crc = _START.unpack_from(data)
        if magic != _MAGIC or version != _VERSION:
            raise CorruptCheckpoint(f"it begins with {data[:6]!r}")
        if crc32c(memoryview(data)[_START.size :]) != crc:
            raise CorruptCheckpoint("the CRC-32C does not fit")
        position = _START.size
        flushed_offset, log_start_offset, high_watermark = _OFFSETS.unpack_from(data, position)
        position += _OFFSETS.size
        rows, position = _read_rows(data, position, _SEGMENT)
        epochs, position = _read_rows(data, position, _EPOCH)
        (length,) = _COUNT.unpack_from(data, position)
        producers = data[position + _COUNT.size :]
    except struct.error as error:
        raise CorruptCheckpoint(f"it ends early: {error}") from error
    if length != len(producers) or not rows:
        raise CorruptCheckpoint("its parts do not fit together")
    return Checkpoint(
        flushed_offset, log_start_offset, high_watermark, tuple(SegmentRow(*row) for row in rows),
        tuple((epoch, start_offset) for epoch, start_offset in epochs), producers,
    )


def _read_rows(data: bytes, position: int, row: struct.Struct) -> tuple[list[tuple[int, ...]], int]:
    (count,) = _COUNT.unpack_from(data, position)
    position += _COUNT.size
    end = position + count * row.size
    if not position <= end <= len(data):
        raise CorruptCheckpoint(f"{count} rows at position {position} are more than the file holds")
    return list(row.iter_unpack(data[position:end])), end


def read_checkpoint(disk: Disk, directory: Path) -> Checkpoint | None:
    """The checkpoint of a partition, or None if it has none. Raises CorruptCheckpoint."""
    path = directory / CHECKPOINT_NAME
    if not disk.exists(path):
        return None
    file = disk.open(path)
    try:
        return decode_checkpoint(disk.pread(file, disk.size(file), 0))
    finally:
        disk.close(file)


def write_temporary(disk: Disk, directory: Path, checkpoint: Checkpoint) -> File:
    """Write the temporary file and return it: once it is flushed, `publish` gives it its name.

    Raises OSError if the disk is full; the file is then closed, and overwritten by the next attempt.
    """
    file = disk.open(directory / (CHECKPOINT_NAME + TEMPORARY_SUFFIX), create=True)
    try:
        disk.truncate(file, 0)
        disk.pwritev(file, (encode_checkpoint(checkpoint),), 0)
    except OSError:
        disk.close(file)
        raise
    return file


def publish(disk: Disk, directory: Path, file: File) -> None:
    """Put the flushed temporary file in the place of the checkpoint. Durable after a flush of the directory."""
    disk.close(file)
    disk.rename(file.path, directory / CHECKPOINT_NAME)
