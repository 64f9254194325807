"""Records into a batch: the encoding, and its speed. Written by clients and by coordinators.

Owns: `BatchBuilder`, which takes records as they come, and the varints of a record. The layout stands in records.py.
May fail with BatchTooLarge. What is not bytes or None where bytes belong is the caller's error.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate, repeat

from zafka.storage.batch import HEADER_BYTES, NO_PRODUCER_ID, TRANSACTIONAL_FLAG, build_header
from zafka.storage.codecs import NONE, compress
from zafka.storage.errors import BatchTooLarge

Headers = Sequence[tuple[str, bytes | None]]
NO_HEADERS: Headers = ()
NewRecord = tuple[int, bytes | None, bytes | None, Headers]  # timestamp_ms, key, value, headers

MAX_BATCH_BYTES = 2**31 - 1
PLAIN_OVERHEAD_BYTES = 16  # more than the numbers of a record without key and headers take, in any batch that is sent
_COLUMNS_FROM = 8  # fewer records are not worth it
_LENGTH_BYTES = 3  # what the length in front of a record is taken to need, when a batch's size is estimated
_OFFSET_BYTES_MAX = 3  # columns are kept for offsets of up to so many bytes, a million of them


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


class _RecordLengths(dict[int, bytes]):
    """By the length of a value: what stands between the record before and this one, which has `fixed` bytes beside it."""

    def __init__(self, fixed: int) -> None:
        super().__init__()
        self.fixed = fixed

    def __missing__(self, value_bytes: int) -> bytes:
        encoded = _NO_HEADERS_THEN[self.fixed + len(_NO_KEY_THEN[value_bytes]) + value_bytes]
        if value_bytes < 16384:
            self[value_bytes] = encoded
        return encoded


@cache
def _record_lengths(fixed: int) -> _RecordLengths:
    return _RecordLengths(fixed)


def _offset_width(offset: int) -> tuple[int, int, int]:
    """How many bytes this offset takes as a varint, and the first offsets that take as many and more."""
    width, start, stop = 1, 0, 64
    while offset >= stop:
        width, start, stop = width + 1, stop, stop << 7
    return width, start, stop


@cache
def _offset_columns(width: int) -> tuple[bytes, ...]:
    """All offsets whose varints take `width` bytes: their first bytes, their second bytes, and so on."""
    if width == 1:
        return (bytes(range(0, 128, 2)),)
    stop = 64 << 7 * (width - 1)
    start, columns = stop >> 7, []
    for place in range(width):
        more = 0x80 if place < width - 1 else 0
        # The lowest byte has the sign in it, and changes with each offset; the others are constant for longer and longer.
        cycle = bytes(range(more, more + 128, 2)) if place == 0 else b"".join(
            bytes([value | more]) * (64 << 7 * (place - 1)) for value in range(128))
        columns.append((cycle * -(-stop // len(cycle)))[start:stop])
    return tuple(columns)


def _encode_headers(headers: Headers) -> bytes:
    parts = [_NUMBER[len(headers)]]
    for name, value in headers:
        key = name.encode()
        parts += _NUMBER[len(key)], key
        parts += (_NULL,) if value is None else (_NUMBER[len(value)], value)
    return b"".join(parts)


class BatchBuilder:
    """Records of one batch to be, encoded as they come. `size_bytes` estimates the batch before compression."""

    __slots__ = (
        "_base_timestamp", "_lengths", "_max_timestamp", "_parts", "_plain", "_plain_from", "_plain_time", "record_count",
        "size_bytes",
    )  # fmt: skip

    def __init__(self) -> None:
        self._parts: list[bytes | bytearray] = []
        # Where the next record's length is looked up; it also ends the record before, if that has no headers.
        self._lengths = _NUMBER
        self._base_timestamp = 0
        self._max_timestamp = 0
        # Values without key and headers, all of one timestamp, that are encoded together.
        self._plain: list[bytes] = []
        self._plain_time = 0
        self._plain_from = 0  # the offset delta of the first
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
        if self._plain:
            self._encode_plain()
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

    def append_value(self, timestamp_ms: int, value: bytes, max_bytes: int) -> int:
        """Take a record of nothing but a value and return its index, or -1 if the batch would be larger than `max_bytes`.

        The first always fits. Three times as fast as `extend`: runs of such records of one time are encoded together,
        by `_encode_plain`.
        """
        size = self.size_bytes + len(value) + PLAIN_OVERHEAD_BYTES
        index = self.record_count
        if size > max_bytes and index:
            return -1
        if timestamp_ms != self._plain_time or not self._plain:
            self._encode_plain()
            self._plain_time, self._plain_from = timestamp_ms, index
        self._plain.append(value)
        self.size_bytes = size
        self.record_count = index + 1
        return index

    def extend_values(self, timestamp_ms: int, values: Sequence[bytes], start: int, max_bytes: int) -> int:
        """Take values from `start` on as `append_value` does, until one would make the batch larger than `max_bytes`.

        Returns how many were taken; the first of a batch always is.
        """
        taken = values[start:] if start else values
        value_bytes = sum(map(len, taken))
        room = max_bytes - self.size_bytes
        if value_bytes + PLAIN_OVERHEAD_BYTES * len(taken) > room:
            sizes = [length + PLAIN_OVERHEAD_BYTES for length in map(len, taken)]
            count = max(bisect_right(list(accumulate(sizes)), room), 0 if self.record_count else 1)
            taken = taken[:count]
            value_bytes = sum(map(len, taken))
        self.add_values(timestamp_ms, taken, value_bytes)
        return len(taken)

    def add_values(self, timestamp_ms: int, values: Sequence[bytes], value_bytes: int) -> None:
        """Take all these values, which are of `value_bytes` together."""
        if timestamp_ms != self._plain_time or not self._plain:
            self._encode_plain()
            self._plain_time, self._plain_from = timestamp_ms, self.record_count
        self._plain += values
        self.size_bytes += value_bytes + PLAIN_OVERHEAD_BYTES * len(values)
        self.record_count = self._plain_from + len(self._plain)

    def _encode_plain(self) -> None:
        """Encode `_plain`, column by column: without a step of Python for each value."""
        values, self._plain = self._plain, []
        if not values:
            return
        first, time, end = self._plain_from, self._plain_time, self._plain_from + len(values)
        if len(values) < _COLUMNS_FROM or _offset_width(end)[0] > _OFFSET_BYTES_MAX:
            count, size = self.record_count, self.size_bytes
            self.record_count = first
            try:
                self.extend(zip(repeat(time), repeat(None), values, repeat(NO_HEADERS)))
            finally:
                self.record_count, self.size_bytes = count, size
            return
        if first == 0:
            self._base_timestamp = self._max_timestamp = time
        self._max_timestamp = max(self._max_timestamp, time)
        attributes_and_time = b"\0" + _NUMBER[time - self._base_timestamp]
        lengths = list(map(len, values))
        encode = self._encode_same_length if lengths.count(lengths[0]) == len(lengths) else self._encode_any_length
        at = 0
        while first < end:
            # Offsets of one width at a time.
            count = min(end, _offset_width(first)[2]) - first
            encode(first, attributes_and_time, values[at : at + count], lengths[at : at + count])
            first, at = first + count, at + count

    def _encode_same_length(self, first: int, attributes_and_time: bytes, values: list[bytes], lengths: list[int]) -> None:
        """Between two values all is the same but the offset: join them with that, then write the offsets over it."""
        width, start, _ = _offset_width(first)
        front = _NO_KEY_THEN[lengths[0]]
        length = len(attributes_and_time) + width + len(front) + lengths[0] + 1
        # Without headers, and their number goes before the next record's length.
        before = _NO_HEADERS_THEN[length] + attributes_and_time
        between = bytearray(before + bytes(width) + front)
        records = between.join([b"", *values])
        for place, column in enumerate(_offset_columns(width), len(before)):
            records[place :: len(between) + lengths[0]] = column[first - start : first - start + len(values)]
        self._add_plain(records)

    def _encode_any_length(self, first: int, attributes_and_time: bytes, values: list[bytes], lengths: list[int]) -> None:
        width = _offset_width(first)[0]
        pieces: list[bytes] = [b"", attributes_and_time, b"", b"", b""] * len(values)
        pieces[0::5] = map(_record_lengths(len(attributes_and_time) + width + 1).__getitem__, lengths)
        pieces[2::5] = map(_NUMBER.__getitem__, range(first, first + len(values)))
        pieces[3::5] = map(_NO_KEY_THEN.__getitem__, lengths)
        pieces[4::5] = values
        self._add_plain(bytearray().join(pieces))

    def _add_plain(self, records: bytearray) -> None:
        """Add records without headers. They begin with the number of headers of a record before, and do not end with theirs."""
        if self._lengths is _NUMBER:  # the record before ends with its own, or there is none
            del records[0]
        self._parts.append(records)
        self._lengths = _NO_HEADERS_THEN

    def build(
        self,
        *,
        codec: int = NONE,
        level: int | None = None,
        producer_id: int = NO_PRODUCER_ID,
        producer_epoch: int = -1,
        base_sequence: int = -1,
        transactional: bool = False,
    ) -> bytearray:
        """The batch, at base offset 0. The builder is left as it is."""
        assert self.record_count > 0
        self._encode_plain()
        end = b"" if self._lengths is _NUMBER else _NO_HEADERS
        if codec == NONE:
            batch = bytearray().join((bytes(HEADER_BYTES), *self._parts, end))
        else:
            batch = bytearray(HEADER_BYTES) + compress(codec, b"".join((*self._parts, end)), level)
        records = memoryview(batch)[HEADER_BYTES:]
        batch[:HEADER_BYTES] = build_header(
            records,
            attributes=codec | (TRANSACTIONAL_FLAG if transactional else 0),
            base_timestamp=self._base_timestamp,
            max_timestamp=self._max_timestamp,
            record_count=self.record_count,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=base_sequence,
        )
        return batch


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
    return bytes(builder.build(
        codec=codec,
        level=level,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        transactional=transactional,
    ))
