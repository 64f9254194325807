"""Records inside a batch: written by clients and by coordinators, read by consumers; never by a broker's data path.

Owns: the decoding of records, and its speed; what encodes them is in batch_builder.py, and to be had from here too.
May fail with: subclasses of `BadBatch` only, whatever the bytes are.
Source: KIP-98, KIP-82; Kafka DefaultRecord, DefaultRecordBatch, MemoryRecordsBuilder.

One record; every number but `attributes` is a zigzag varint:
    length of the rest | attributes int8 | timestamp - base_timestamp | offset - base_offset
    | key length or -1 | key | value length or -1 | value | headers | (key length | key | value length or -1 | value)*
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import NamedTuple, TypeVar

from zafka.storage.batch import HEADER_BYTES, LOG_APPEND_TIME, BatchHeader
from zafka.storage.batch_builder import NO_HEADERS, BatchBuilder, Headers, NewRecord, encode_batch
from zafka.storage.codecs import decompress
from zafka.storage.disk import Buffer
from zafka.storage.errors import BatchTooLarge, CorruptBatch
from zafka.storage.record_runs import RUN_LEAST_RECORDS, find_run, read_raw
from zafka.storage.varints import encode_varint

__all__ = [
    "BatchBuilder", "NewRecord", "Record", "decode_batch", "decode_batch_as", "encode_batch", "encode_varint",
    "find_timestamp",
]  # fmt: skip

Made = TypeVar("Made")

MAX_DECODED_BYTES = 128 * 1024 * 1024
MAX_SEARCHED_BYTES = 16 * 1024 * 1024
MAX_SEARCHED_RECORDS = 100_000  # a tenth of a second of work, or a few on a slow machine
_LOOK_AGAIN_RECORDS = 64  # where there was no run
_LEAST_RECORD_BYTES = 7  # seven numbers of one byte: no key, no value, no headers
_TIMESTAMP_BOUND = 2**62  # a base and a delta below it add up to an int64


class Record(NamedTuple):
    """One record of a batch. headers: () if there are none; a key may come more than once."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


# -- decoding ------------------------------------------------------------------------------------


def decode_batch(
    data: Buffer,
    header: BatchHeader,
    *,
    from_offset: int = 0,
    max_bytes: int = MAX_DECODED_BYTES,
) -> list[Record]:
    """The records of one batch, those before `from_offset` left out.

    data: begins with the batch that `header` was read from; what follows the batch is not looked at.
    max_bytes: bound of what the records may take when decompressed.
    The CRC is not checked here. Raises CorruptBatch, BatchTooLarge, UnsupportedCodec.
    """
    return decode_batch_as(Record, data, header, from_offset=from_offset, max_bytes=max_bytes)


def decode_batch_as(
    make: Callable[[int, int, bytes | None, bytes | None, Headers], Made],
    data: Buffer,
    header: BatchHeader,
    *,
    from_offset: int = 0,
    max_bytes: int = MAX_DECODED_BYTES,
) -> list[Made]:
    """What `make(offset, timestamp, key, value, headers)` returns for each record of one batch.

    For readers with a record type of their own: making one object for each record, not two, is a fifth of the time.
    Otherwise like `decode_batch`.
    """
    body = read_body(data, header, max_bytes)
    if header.timestamp_type == LOG_APPEND_TIME:
        make = partial(_make_at, make, header.max_timestamp)
    try:
        return _decode_records(make, body, header, from_offset - header.base_offset)
    except IndexError:
        raise CorruptBatch(f"a record goes beyond the end of its batch at offset {header.base_offset}") from None


def _make_at(
    make: Callable[[int, int, bytes | None, bytes | None, Headers], Made],
    log_append_time: int,
    offset: int,
    timestamp: int,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
) -> Made:
    """With LogAppendTime the time of every record is the batch's, whatever its own delta says."""
    return make(offset, log_append_time, key, value, headers)


def find_timestamp(
    data: Buffer,
    header: BatchHeader,
    timestamp_ms: int,
    *,
    from_offset: int = 0,
    max_bytes: int = MAX_SEARCHED_BYTES,
) -> tuple[int, int] | None:
    """(timestamp, offset) of the first record that is not before either, or None. Makes no records.

    data, and what it raises: as for `decode_batch`. A client may have written anything behind a good header, so
    a broker that looks for an offset must be ready for a batch that does not decode.
    """
    body = read_body(data, header, max(max_bytes, header.size_bytes))
    position = 0
    try:
        for _ in range(min(header.record_count, MAX_SEARCHED_RECORDS)):
            length, position = read_raw(body, position)
            end = position + (length >> 1)
            time, position = read_raw(body, position + 1)
            delta, position = read_raw(body, position)
            timestamp = header.base_timestamp + (time >> 1 ^ -(time & 1))
            if header.timestamp_type == LOG_APPEND_TIME:
                timestamp = header.max_timestamp
            offset = header.base_offset + (delta >> 1)
            if offset > header.last_offset:
                break
            if timestamp >= timestamp_ms and offset >= from_offset:
                return timestamp, offset
            position = end
    except IndexError:
        raise CorruptBatch(f"a record goes beyond the end of its batch at offset {header.base_offset}") from None
    if header.record_count > MAX_SEARCHED_RECORDS:
        raise BatchTooLarge(f"no such record among the first {MAX_SEARCHED_RECORDS} of {header.record_count}")
    return None


def read_body(data: Buffer, header: BatchHeader, max_bytes: int = MAX_DECODED_BYTES) -> bytes:
    """All records, decompressed; there may be as many of them as the header says."""
    size = header.size_bytes
    if len(data) < size:
        raise CorruptBatch(f"the batch says {size} bytes, {len(data)} are there")
    body = decompress(header.codec, memoryview(data)[HEADER_BYTES:size], max_bytes=max_bytes)
    if abs(header.base_timestamp) >= _TIMESTAMP_BOUND:
        raise CorruptBatch(f"a batch at timestamp {header.base_timestamp}")
    if not 0 <= header.record_count <= len(body) // _LEAST_RECORD_BYTES:
        raise CorruptBatch(f"{header.record_count} records cannot be in {len(body)} bytes")
    return body


def _decode_records(
    make: Callable[[int, int, bytes | None, bytes | None, Headers], Made], body: bytes, header: BatchHeader, from_delta: int
) -> list[Made]:
    """All records: runs of one layout column by column, the others one by one."""
    records: list[Made] = []
    index, position, previous = 0, 0, -1
    while index < header.record_count:
        count = min(_LOOK_AGAIN_RECORDS, header.record_count - index)
        run = find_run(body, position, header.record_count - index) if count >= RUN_LEAST_RECORDS else None
        if run is not None and run.first_delta > previous and run.first_delta >= from_delta:
            count = run.length
            offsets = range(header.base_offset + run.first_delta, header.base_offset + run.first_delta + count)
            timestamps = map(header.base_timestamp.__add__, run.times)
            records += map(make, offsets, timestamps, run.keys, run.values, repeat(NO_HEADERS))
            position, previous = run.end, run.first_delta + count - 1
        else:
            position, previous = _decode_some(make, body, header, from_delta, records, position, previous, count)
        index += count
    if position != len(body) or previous > header.last_offset_delta:
        raise CorruptBatch(f"the records of the batch at offset {header.base_offset} do not end where the batch does")
    return records


def _decode_some(
    make: Callable[[int, int, bytes | None, bytes | None, Headers], Made],
    body: bytes, header: BatchHeader, from_delta: int, records: list[Made], position: int, previous: int, count: int,
) -> tuple[int, int]:
    """Decode `count` records from `position` on into `records`; returns the position and the offset delta reached.

    Numbers of one or two bytes, which is most of them, are read in place; longer ones by `read_raw`.
    A raw number is what zigzag made of it: even ones are 0, 1, 2, ... and odd ones -1, -2, -3, ...
    A slice that goes beyond the end comes out shorter, and the read that follows it raises IndexError.
    """
    base_offset, base_timestamp = header.base_offset, header.base_timestamp
    append = records.append
    last_time, timestamp = 0, base_timestamp
    for _ in range(count):
        if (length := body[position]) < 128:
            position += 1
        elif (high := body[position + 1]) < 128:
            length += (high << 7) - 128
            position += 2
        else:
            length, position = read_raw(body, position)
        end = position + (length >> 1)
        time, position = body[position + 1], position + 2  # the byte between is attributes, none of which is in use
        if time > 127:
            time, position = read_raw(body, position - 1)
        if time != last_time:
            last_time, timestamp = time, base_timestamp + (time >> 1 ^ -(time & 1))
        if (delta := body[position]) < 128:
            position += 1
        elif (high := body[position + 1]) < 128:
            delta += (high << 7) - 128
            position += 2
        else:
            delta, position = read_raw(body, position)
        odd, delta = length | delta, delta >> 1
        if delta <= previous or odd & 1:
            raise CorruptBatch(f"record {delta} follows record {previous} in the batch at offset {base_offset}")
        previous = delta
        if delta < from_delta:
            position = end
            continue
        if (raw := body[position]) == 1:
            key, position = None, position + 1
        else:
            start = position + 1
            if raw > 127:
                raw, start = read_raw(body, position)
            odd, position = odd | raw, start + (raw >> 1)
            key = body[start:position]
        if (raw := body[position]) == 1:
            value, position = None, position + 1
        else:
            start = position + 1
            if raw > 127:
                if (high := body[start]) > 127:
                    raw, start = read_raw(body, position)
                else:
                    raw, start = raw + (high << 7) - 128, start + 1
            odd, position = odd | raw, start + (raw >> 1)
            value = body[start:position]
        if body[position] == 0:
            headers, position = NO_HEADERS, position + 1
        else:
            headers, position = _read_headers(body, position)
        if position != end or odd & 1:
            raise CorruptBatch(f"record {delta} of the batch at offset {base_offset} does not fill its length")
        append(make(base_offset + delta, timestamp, key, value, headers))
    return position, previous


def _read_headers(body: bytes, position: int) -> tuple[Headers, int]:
    count, position = read_raw(body, position)
    odd = count
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count >> 1):
        if (length := body[position]) < 128:
            position += 1
        else:
            length, position = read_raw(body, position)
        odd |= length
        start, position = position, position + (length >> 1)
        name = str(body[start:position], "utf-8", "replace")  # as Java does
        if (length := body[position]) == 1:
            position += 1
            headers.append((name, None))
            continue
        if length < 128:
            position += 1
        else:
            length, position = read_raw(body, position)
        odd |= length
        start, position = position, position + (length >> 1)
        headers.append((name, body[start:position]))
    if odd & 1:
        raise CorruptBatch(f"a negative length among the headers before position {position} of the records")
    return headers, position
