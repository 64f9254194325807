"""Records inside a batch: written by clients and by coordinators, read by consumers; never by a broker's data path.

Owns: the encoding of records, and its speed. May fail with: subclasses of `BadBatch` only, whatever the bytes are.
Source: KIP-98, KIP-82; Kafka DefaultRecord, DefaultRecordBatch, MemoryRecordsBuilder.

One record; every number but `attributes` is a zigzag varint:
    length of the rest | attributes int8 | timestamp - base_timestamp | offset - base_offset
    | key length or -1 | key | value length or -1 | value | headers | (key length | key | value length or -1 | value)*
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from zafka.storage.batch import (
    HEADER_BYTES,
    LOG_APPEND_TIME,
    NO_PRODUCER_ID,
    TRANSACTIONAL_FLAG,
    BatchHeader,
    build_header,
)
from zafka.storage.codecs import NONE, compress, decompress
from zafka.storage.disk import Buffer
from zafka.storage.errors import BatchTooLarge, CorruptBatch

Headers = Sequence[tuple[str, bytes | None]]
NO_HEADERS: Headers = ()
Made = TypeVar("Made")
NewRecord = tuple[int, bytes | None, bytes | None, Headers]  # timestamp_ms, key, value, headers

MAX_BATCH_BYTES = 2**31 - 1
MAX_DECODED_BYTES = 128 * 1024 * 1024
MAX_SEARCHED_BYTES = 16 * 1024 * 1024
MAX_SEARCHED_RECORDS = 250_000  # about a tenth of a second of work
_LEAST_RECORD_BYTES = 7  # seven numbers of one byte: no key, no value, no headers
_TIMESTAMP_BOUND = 2**62  # a base and a delta below it add up to an int64
_LENGTH_BYTES = 3  # what the length in front of a record is taken to need, when a batch's size is estimated


class Record(NamedTuple):
    """One record of a batch. headers: () if there are none; a key may come more than once."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


# -- encoding ------------------------------------------------------------------------------------


def encode_varint(value: int) -> bytes:
    """Zigzag, then seven bits a byte, lowest first."""
    raw = value << 1 if value >= 0 else ~(value << 1)
    out = bytearray()
    while raw > 0x7F:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    out.append(raw)
    return bytes(out)


class _Encoded(dict[int, bytes]):
    """A varint after fixed bytes, remembered where it is likely to come again."""

    def __init__(self, before: bytes = b"") -> None:
        super().__init__()
        self.before = before

    def __missing__(self, value: int) -> bytes:
        encoded = self.before + encode_varint(value)
        if -1 <= value < 16384:
            self[value] = encoded
        return encoded


# Neighbours that are constant for most records go as one piece: half the time is spent per piece.
_NUMBER = _Encoded()
_NO_KEY_THEN = _Encoded(encode_varint(-1))
_NO_HEADERS_THEN = _Encoded(encode_varint(0))
_NULL = encode_varint(-1)
_NO_HEADERS = encode_varint(0)


def _encode_headers(headers: Headers) -> bytes:
    parts = [_NUMBER[len(headers)]]
    for name, value in headers:
        key = name.encode()
        parts += _NUMBER[len(key)], key
        parts += (_NULL,) if value is None else (_NUMBER[len(value)], value)
    return b"".join(parts)


class BatchBuilder:
    """Records of one batch to be, encoded as they come. `size_bytes` estimates the batch before compression."""

    __slots__ = ("_base_timestamp", "_lengths", "_max_timestamp", "_parts", "record_count", "size_bytes")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        # Where the next record's length is looked up; it also ends the record before, if that has no headers.
        self._lengths = _NUMBER
        self._base_timestamp = 0
        self._max_timestamp = 0
        self.record_count = 0
        self.size_bytes = HEADER_BYTES

    def __repr__(self) -> str:
        return f"<BatchBuilder records={self.record_count} bytes={self.size_bytes}>"

    def append(self, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: Headers = ()) -> int:
        """Take one record, however large it is, and return the new `size_bytes`."""
        self.extend(((timestamp_ms, key, value, headers),))
        return self.size_bytes

    def extend(self, records: Iterable[NewRecord], max_bytes: int = MAX_BATCH_BYTES) -> NewRecord | None:
        """Take records until one would make the batch larger than `max_bytes`; the first one always fits.

        records: keys and values are bytes or None; the caller has made sure.
        Returns the record that was drawn from `records` and does not fit, or None when all were taken.
        If `records` raises, the records before are taken.
        """
        number, no_key_then, no_headers_then = _NUMBER, _NO_KEY_THEN, _NO_HEADERS_THEN
        parts, lengths, count, size = self._parts, self._lengths, self.record_count, self.size_bytes
        base_timestamp, max_timestamp = self._base_timestamp, self._max_timestamp
        last_timestamp, time, fixed, left = None, b"", 0, None
        try:
            for record in records:
                timestamp, key, value, headers = record
                if timestamp != last_timestamp:
                    if count == 0:
                        base_timestamp = max_timestamp = timestamp
                    time = b"\0" + number[timestamp - base_timestamp]  # the attributes before it are never in use
                    fixed = len(time) + 1  # the number of headers
                    last_timestamp = timestamp
                offset = number[count]
                if value is None:
                    value_bytes, value = -1, b""
                else:
                    value_bytes = len(value)
                front = no_key_then[value_bytes] if key is None else number[len(key)] + key + number[value_bytes]
                length = fixed + len(offset) + len(front) + len(value)
                if headers:
                    encoded_headers = _encode_headers(headers)
                    length += len(encoded_headers) - 1
                if size + length > max_bytes and count > 0:
                    left = record
                    break
                if headers:
                    parts += lengths[length], time, offset, front, value, encoded_headers
                    lengths = number
                else:
                    parts += lengths[length], time, offset, front, value
                    lengths = no_headers_then
                if timestamp > max_timestamp:  # noqa: PLR1730 - max() is dear for each record
                    max_timestamp = timestamp
                size += length + _LENGTH_BYTES
                count += 1
        finally:  # `records` may be the caller's generator, and fail: what came before is in, and whole
            self._lengths, self.record_count, self.size_bytes = lengths, count, size
            self._base_timestamp, self._max_timestamp = base_timestamp, max_timestamp
        return left

    def build(
        self,
        *,
        codec: int = NONE,
        level: int | None = None,
        producer_id: int = NO_PRODUCER_ID,
        producer_epoch: int = -1,
        base_sequence: int = -1,
        transactional: bool = False,
    ) -> bytes:
        """The batch, at base offset 0. The builder is left as it is."""
        assert self.record_count > 0
        end = b"" if self._lengths is _NUMBER else _NO_HEADERS
        records = compress(codec, b"".join(self._parts) + end, level)
        header = build_header(
            records,
            attributes=codec | (TRANSACTIONAL_FLAG if transactional else 0),
            base_timestamp=self._base_timestamp,
            max_timestamp=self._max_timestamp,
            record_count=self.record_count,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=base_sequence,
        )
        return header + records


def encode_batch(
    records: Iterable[NewRecord],
    *,
    codec: int = NONE,
    level: int | None = None,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    transactional: bool = False,
) -> bytes:
    """One batch of at least one record, at base offset 0. Raises BatchTooLarge beyond 2 GiB."""
    builder = BatchBuilder()
    if builder.extend(records) is not None:
        raise BatchTooLarge(f"the records need more than {MAX_BATCH_BYTES} bytes")
    return builder.build(
        codec=codec,
        level=level,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        transactional=transactional,
    )


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
    body = _read_body(data, header, max_bytes)
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
    body = _read_body(data, header, max(max_bytes, header.size_bytes))
    position = 0
    try:
        for _ in range(min(header.record_count, MAX_SEARCHED_RECORDS)):
            length, position = _read_raw(body, position)
            end = position + (length >> 1)
            time, position = _read_raw(body, position + 1)
            delta, position = _read_raw(body, position)
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


def _read_body(data: Buffer, header: BatchHeader, max_bytes: int) -> bytes:
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
    """Numbers of one or two bytes, which is most of them, are read in place; longer ones by `_read_raw`.

    A raw number is what zigzag made of it: even ones are 0, 1, 2, ... and odd ones -1, -2, -3, ...
    A slice that goes beyond the end comes out shorter, and the read that follows it raises IndexError.
    """
    base_offset, base_timestamp = header.base_offset, header.base_timestamp
    records: list[Made] = []
    append, position, previous = records.append, 0, -1
    last_time, timestamp = 0, base_timestamp
    for _ in range(header.record_count):
        if (length := body[position]) < 128:
            position += 1
        elif (high := body[position + 1]) < 128:
            length += (high << 7) - 128
            position += 2
        else:
            length, position = _read_raw(body, position)
        end = position + (length >> 1)
        time, position = body[position + 1], position + 2  # the byte between is attributes, none of which is in use
        if time > 127:
            time, position = _read_raw(body, position - 1)
        if time != last_time:
            last_time, timestamp = time, base_timestamp + (time >> 1 ^ -(time & 1))
        if (delta := body[position]) < 128:
            position += 1
        elif (high := body[position + 1]) < 128:
            delta += (high << 7) - 128
            position += 2
        else:
            delta, position = _read_raw(body, position)
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
                raw, start = _read_raw(body, position)
            odd, position = odd | raw, start + (raw >> 1)
            key = body[start:position]
        if (raw := body[position]) == 1:
            value, position = None, position + 1
        else:
            start = position + 1
            if raw > 127:
                if (high := body[start]) > 127:
                    raw, start = _read_raw(body, position)
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
    if position != len(body) or previous > header.last_offset_delta:
        raise CorruptBatch(f"the records of the batch at offset {base_offset} do not end where the batch does")
    return records


def _read_raw(body: bytes, position: int) -> tuple[int, int]:
    """A varint before zigzag is undone, and the position after it. At most nine bytes: what is larger says nothing."""
    raw = shift = 0
    while (byte := body[position]) > 127:
        raw |= (byte & 127) << shift
        shift += 7
        position += 1
        if shift > 56:
            raise CorruptBatch(f"a number of more than 9 bytes before position {position} of the records")
    return raw | byte << shift, position + 1


def _read_headers(body: bytes, position: int) -> tuple[Headers, int]:
    count, position = _read_raw(body, position)
    odd = count
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count >> 1):
        if (length := body[position]) < 128:
            position += 1
        else:
            length, position = _read_raw(body, position)
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
            length, position = _read_raw(body, position)
        odd |= length
        start, position = position, position + (length >> 1)
        headers.append((name, body[start:position]))
    if odd & 1:
        raise CorruptBatch(f"a negative length among the headers before position {position} of the records")
    return headers, position
