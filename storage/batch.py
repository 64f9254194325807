"""The header of a record batch, Kafka's message format v2: all of a batch that a broker ever looks at.

Owns: the 61 bytes, what a client may put into them, and the CRC over the rest. Never decodes a record.
May fail with: subclasses of `BadBatch` only, whatever the bytes are.
Source: KIP-98; Kafka DefaultRecordBatch, LogValidator.validateBatch, UnifiedLog.analyzeAndValidateRecords.

     0  base_offset        int64    outside of the CRC: the leader fills it in
     8  batch_length       int32    bytes after this field
    12  leader_epoch       int32    outside of the CRC: the leader fills it in
    16  magic              int8     2
    17  crc                uint32   CRC-32C of everything from `attributes` on
    21  attributes         int16    bits 0-2 codec, 3 LogAppendTime, 4 transactional, 5 control, 6 delete horizon
    23  last_offset_delta  int32
    27  base_timestamp     int64    of the first record (or the delete horizon)
    35  max_timestamp      int64
    43  producer_id        int64    -1: not idempotent
    51  producer_epoch     int16
    53  base_sequence      int32
    57  record_count       int32
    61  records
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from crc32c import crc32c

from zafka.storage.disk import Buffer
from zafka.storage.errors import (
    BadBatch,
    BatchTooLarge,
    CorruptBatch,
    InvalidBatch,
    InvalidTimestamp,
    UnsupportedCodec,
    UnsupportedMagic,
)

HEADER = struct.Struct(">qiibIhiqqqhii")
HEADER_BYTES = HEADER.size
assert HEADER_BYTES == 61

PREFIX = struct.Struct(">qii")
_UNCOVERED = struct.Struct(">qiibI")
_COVERED = struct.Struct(">hiqqqhii")  # by the CRC
_TIMESTAMP = struct.Struct(">q")
_PRODUCER = struct.Struct(">qhi")
_CRC = struct.Struct(">I")
LENGTH_END = 12  # base_offset and batch_length: what `batch_length` does not count
CRC_POSITION = 17
CRC_START = 21  # the CRC covers everything from here on
MAX_TIMESTAMP_POSITION = 35
PRODUCER_POSITION = 43

CODEC_MASK = 0x07
LOG_APPEND_TIME_FLAG = 0x08
TRANSACTIONAL_FLAG = 0x10
CONTROL_FLAG = 0x20
DELETE_HORIZON_FLAG = 0x40

CREATE_TIME = 0
LOG_APPEND_TIME = 1
LAST_CODEC = 4  # none, gzip, snappy, lz4, zstd
NO_TIMESTAMP = -1
NO_PRODUCER_ID = -1

_LEAST_BATCH_LENGTH = HEADER_BYTES - LENGTH_END
_new_tuple = tuple.__new__


class BatchHeader(NamedTuple):
    """The fields as they stand in the bytes. Offsets count records, `batch_length` and sizes count bytes."""

    base_offset: int
    batch_length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def size_bytes(self) -> int:
        """Of the whole batch, header included."""
        return LENGTH_END + self.batch_length

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.last_offset_delta + 1

    @property
    def codec(self) -> int:
        return self.attributes & CODEC_MASK

    @property
    def is_transactional(self) -> bool:
        return self.attributes & TRANSACTIONAL_FLAG != 0

    @property
    def is_control(self) -> bool:
        return self.attributes & CONTROL_FLAG != 0

    @property
    def delete_horizon_ms(self) -> int | None:
        """From when on compaction may take the batch's tombstones; None while that is not decided. KIP-534."""
        return self.base_timestamp if self.attributes & DELETE_HORIZON_FLAG else None

    @property
    def timestamp_type(self) -> int:
        """CREATE_TIME or LOG_APPEND_TIME."""
        return self.attributes >> 3 & 1


def read_header(buf: Buffer, position: int = 0) -> BatchHeader:
    """The header of the batch that starts at `position`; whether its records are all there is not looked at.

    Raises CorruptBatch if there are fewer than 61 bytes, or a length that no batch has; UnsupportedMagic.
    """
    try:
        header = _new_tuple(BatchHeader, HEADER.unpack_from(buf, position))
    except struct.error:
        raise _too_short(buf, position) from None
    if header.magic != 2:
        raise UnsupportedMagic(f"message format v{header.magic} at position {position}; only v2 is supported")
    if header.batch_length < _LEAST_BATCH_LENGTH:
        raise CorruptBatch(f"batch length {header.batch_length} at position {position} is less than a batch header")
    return header


def _too_short(buf: Buffer, position: int) -> BadBatch:
    """An old message format is named even where the bytes end before a v2 header would."""
    length = len(buf) - position
    if length > 16 and buf[position + 16] in (0, 1):
        return UnsupportedMagic(f"message format v{buf[position + 16]} at position {position}; only v2 is supported")
    return CorruptBatch(f"{length} bytes at position {position}; a batch header has {HEADER_BYTES}")


def check_batch(data: memoryview, *, max_bytes: int) -> BatchHeader:
    """Accept exactly one whole batch as a client may produce it, or say what is wrong with it.

    data: the bytes of one batch, not decoded and not changed here.
    max_bytes: the topic's `max.message.bytes`.
    Raises subclasses of `BadBatch`; their `kafka_error` is the answer to the client.
    """
    if len(data) < HEADER_BYTES:
        short = _too_short(data, 0)
        raise short if isinstance(short, UnsupportedMagic) else InvalidBatch(str(short))
    header = read_header(data)
    size = LENGTH_END + header.batch_length
    if size != len(data):
        # Not CorruptBatch, which clients would send again: what is missing was not lost on the way.
        if size > len(data):
            raise InvalidBatch(f"the batch says {size} bytes, {len(data)} came")
        raise InvalidBatch(f"exactly one batch per partition may be produced; {len(data) - size} bytes follow it")
    if size > max_bytes:
        raise BatchTooLarge(f"the batch has {size} bytes, the topic allows {max_bytes} (max.message.bytes)")
    if crc32c(data[CRC_START:]) != header.crc:
        raise CorruptBatch(f"the CRC-32C does not fit the batch of {size} bytes")
    if (
        header.base_offset != 0
        or header.record_count != header.last_offset_delta + 1
        or header.record_count <= 0
        or header.attributes & 0x28
        or header.attributes & CODEC_MASK > LAST_CODEC
        or (header.producer_id >= 0 and (header.base_sequence < 0 or header.producer_epoch < 0))
        or (header.producer_id < 0 and header.attributes & TRANSACTIONAL_FLAG)
    ):
        raise _refusal(header)
    return header


def _refusal(header: BatchHeader) -> BadBatch:
    """What in the header of a whole batch a client may not say."""
    if header.base_offset != 0:
        return InvalidBatch(f"the base offset of a produced batch is 0, not {header.base_offset}")
    if header.record_count <= 0 or header.record_count != header.last_offset_delta + 1:
        count, delta = header.record_count, header.last_offset_delta
        return InvalidBatch(f"{count} records do not fit a last offset delta of {delta}")
    if header.is_control:
        return InvalidBatch("clients may not write control records")
    if header.attributes & LOG_APPEND_TIME_FLAG:
        return InvalidTimestamp("clients may not set the timestamp type to LogAppendTime")
    if header.codec > LAST_CODEC:
        return UnsupportedCodec(f"there is no compression codec {header.codec}")
    if header.producer_id < 0:
        return InvalidBatch("a transactional batch needs a producer id")
    return InvalidBatch(
        f"sequence {header.base_sequence} and epoch {header.producer_epoch} of producer {header.producer_id} "
        "may not be negative"
    )


def check_timestamps(header: BatchHeader, *, now_ms: int, before_max_ms: int, after_max_ms: int) -> None:
    """Refuse a batch whose first or largest timestamp is too far from now, as topics with CreateTime do.

    Looks at the header only: at the first record and at the largest timestamp that the producer told.
    Raises InvalidTimestamp. Source: KIP-937; LogValidator.recordHasInvalidTimestamp.
    """
    latest = header.max_timestamp
    if latest - now_ms > after_max_ms:
        raise InvalidTimestamp(
            f"timestamp {latest} is later than {now_ms} + message.timestamp.after.max.ms={after_max_ms}"
        )
    first = header.base_timestamp
    if first != NO_TIMESTAMP and now_ms - first > before_max_ms:
        raise InvalidTimestamp(
            f"timestamp {first} is earlier than {now_ms} - message.timestamp.before.max.ms={before_max_ms}"
        )


def batch_prefix(*, base_offset: int, batch_length: int, leader_epoch: int) -> bytes:
    """The first 16 bytes of a batch: what a leader writes afresh. The CRC does not cover them."""
    return PREFIX.pack(base_offset, batch_length, leader_epoch)


def build_header(
    records: Buffer,
    *,
    attributes: int,
    base_timestamp: int,
    max_timestamp: int,
    record_count: int,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = -1,
    base_sequence: int = -1,
) -> bytes:
    """The 61 bytes before `records` (encoded, and compressed as `attributes` say), at base offset 0."""
    covered = _COVERED.pack(
        attributes, record_count - 1, base_timestamp, max_timestamp,
        producer_id, producer_epoch, base_sequence, record_count,
    )  # fmt: skip
    crc = crc32c(records, crc32c(covered))
    return _UNCOVERED.pack(0, _LEAST_BATCH_LENGTH + len(records), -1, 2, crc) + covered


def empty_batch(
    base_offset: int, count: int, *, leader_epoch: int, timestamp: int = NO_TIMESTAMP, attributes: int = 0
) -> bytes:
    """A batch without records that stands for `count` offsets, as it is left where a log has lost what was there.

    attributes: DELETE_HORIZON_FLAG where compaction has taken what was there.
    Source: DefaultRecordBatch.writeEmptyHeader, which compaction uses.
    """
    covered = _COVERED.pack(attributes, count - 1, timestamp, timestamp, NO_PRODUCER_ID, -1, -1, 0)
    return _UNCOVERED.pack(base_offset, _LEAST_BATCH_LENGTH, leader_epoch, 2, crc32c(covered)) + covered


def with_records(
    header: BatchHeader, records: Buffer, *, record_count: int, attributes: int, base_timestamp: int, max_timestamp: int
) -> bytes:
    """The batch of `header` with other records in it: its offsets, leader epoch and producer stay."""
    covered = _COVERED.pack(
        attributes, header.last_offset_delta, base_timestamp, max_timestamp,
        header.producer_id, header.producer_epoch, header.base_sequence, record_count,
    )  # fmt: skip
    crc = crc32c(records, crc32c(covered))
    length = _LEAST_BATCH_LENGTH + len(records)
    return _UNCOVERED.pack(header.base_offset, length, header.leader_epoch, 2, crc) + covered + records


def with_producer(data: Buffer, *, producer_id: int, producer_epoch: int, base_sequence: int) -> bytearray:
    """A copy of the batch as another producer id or epoch sends it, for a client whose epoch was raised."""
    batch = bytearray(data)
    _PRODUCER.pack_into(batch, PRODUCER_POSITION, producer_id, producer_epoch, base_sequence)
    _CRC.pack_into(batch, CRC_POSITION, crc32c(memoryview(batch)[CRC_START:]))
    return batch


def with_log_append_time(data: Buffer, timestamp_ms: int) -> bytearray:
    """A copy of the batch whose records all have the broker's time, with its CRC made to fit.

    The records keep their own timestamp deltas; readers take `max_timestamp` for each of them.
    Source: DefaultRecordBatch.setMaxTimestamp.
    """
    batch = bytearray(data)
    batch[CRC_START + 1] |= LOG_APPEND_TIME_FLAG
    _TIMESTAMP.pack_into(batch, MAX_TIMESTAMP_POSITION, timestamp_ms)
    _CRC.pack_into(batch, CRC_POSITION, crc32c(memoryview(batch)[CRC_START:]))
    return batch


def crc_fits(buf: memoryview, position: int, header: BatchHeader) -> bool:
    """True if the batch of `header`, all of which lies in `buf` from `position` on, has the CRC it says."""
    return bool(crc32c(buf[position + CRC_START : position + LENGTH_END + header.batch_length]) == header.crc)


def walk(buf: Buffer, position: int = 0, *, check_crc: bool) -> Iterator[tuple[int, BatchHeader]]:
    """(position, header) of each whole batch from `position` on, as they lie in a segment or an answer to Fetch.

    Ends before a batch that goes beyond the end of `buf`; the caller sees by the last position and size
    that bytes are left. Raises subclasses of `BadBatch` at the first bytes that cannot be a batch.
    """
    view = memoryview(buf)
    end = len(view)
    while end - position >= HEADER_BYTES:
        header = read_header(view, position)
        next_position = position + LENGTH_END + header.batch_length
        if next_position > end:
            return
        if check_crc and not crc_fits(view, position, header):
            raise CorruptBatch(f"the CRC-32C does not fit the batch at position {position}")
        yield position, header
        position = next_position
