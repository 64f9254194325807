"""The records of a batch as stretches of its bytes: for compaction, which keeps some of them as they are.

Owns: finding each record's place, key, and whether it has a value; nothing else of it is decoded, and none is copied.
May fail with CorruptBatch. The layout of a record stands in records.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from zafka.storage.batch import BatchHeader
from zafka.storage.disk import Buffer
from zafka.storage.errors import CorruptBatch
from zafka.storage.record_runs import read_raw
from zafka.storage.records import read_body
from zafka.storage.varints import encode_varint

__all__ = ["RecordSlice", "read_body", "record_slices", "records_without_key", "with_timestamp"]


class RecordSlice(NamedTuple):
    """One record: bytes start..end-1 of the batch's decompressed body. offset_delta, timestamp_delta: to the batch's."""

    offset_delta: int
    timestamp_delta: int
    key: bytes | None
    has_value: bool
    start: int
    end: int


def record_slices(body: bytes, header: BatchHeader) -> Iterator[RecordSlice]:
    """Each record in turn. body: as `read_body` gives it. Raises CorruptBatch where records do not fit the batch."""
    position, previous = 0, -1
    try:
        for _ in range(header.record_count):
            start = position
            length, position = read_raw(body, position)
            end = position + (length >> 1)
            time, position = read_raw(body, position + 1)
            delta, position = read_raw(body, position)
            raw, position = read_raw(body, position)
            odd, delta = length | delta, delta >> 1
            key = None
            if raw != 1:
                odd |= raw
                key = body[position : position + (raw >> 1)]
                position += raw >> 1
            has_value = body[position] != 1
            if odd & 1 or end > len(body) or position >= end or not previous < delta <= header.last_offset_delta:
                raise CorruptBatch(f"record {delta} follows record {previous} at offset {header.base_offset}")
            yield RecordSlice(delta, time >> 1 ^ -(time & 1), key, has_value, start, end)
            position, previous = end, delta
    except IndexError:
        raise CorruptBatch(f"a record goes beyond the end of its batch at offset {header.base_offset}") from None
    if position != len(body):
        raise CorruptBatch(f"the records of the batch at offset {header.base_offset} do not end where the batch does")


def with_timestamp(body: bytes, record: RecordSlice, timestamp_delta: int) -> bytes:
    """The record's bytes with another timestamp delta, and the length that fits it."""
    _, position = read_raw(body, record.start)
    _, rest = read_raw(body, position + 1)
    changed = body[position : position + 1] + encode_varint(timestamp_delta) + body[rest : record.end]
    return encode_varint(len(changed)) + changed


def records_without_key(data: Buffer, header: BatchHeader) -> list[int]:
    """Index of each record that has no key. Raises BadBatch."""
    return [
        index for index, record in enumerate(record_slices(read_body(data, header), header)) if record.key is None]
