"""Records into a batch: the encoding, and its speed. Written by clients and by coordinators.

Owns: `BatchBuilder`, which takes records as they come. The layout stands in records.py; runs of records without headers
are encoded together, by record_columns.py.
May fail with BatchTooLarge. What is not bytes or None where bytes belong is the caller's error.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, repeat

from zafka.storage.batch import HEADER_BYTES, NO_PRODUCER_ID, TRANSACTIONAL_FLAG, build_header
from zafka.storage.codecs import NONE, compress
from zafka.storage.errors import BatchTooLarge
from zafka.storage.record_columns import NO_HEADERS_THEN, NO_KEY_THEN, OFFSETS_END, RUN_LEAST_RECORDS, encode_run
from zafka.storage.varints import NUMBER, encode_varint

Headers = Sequence[tuple[str, bytes | None]]
NO_HEADERS: Headers = ()
NewRecord = tuple[int, bytes | None, bytes | None, Headers]  # timestamp_ms, key, value, headers

MAX_BATCH_BYTES = 2**31 - 1
PLAIN_OVERHEAD_BYTES = 16  # more than the numbers of a record without key and headers take, in any batch that is sent
KEY_OVERHEAD_BYTES = 3  # what the length of a key takes on top of that
_LENGTH_BYTES = 3  # what the length in front of a record is taken to need, when a batch's size is estimated
_NULL = encode_varint(-1)
_NO_HEADERS = encode_varint(0)


def _encode_headers(headers: Headers) -> bytes:
    parts = [NUMBER[len(headers)]]
    for name, value in headers:
        key = name.encode()
        parts += NUMBER[len(key)], key
        parts += (_NULL,) if value is None else (NUMBER[len(value)], value)
    return b"".join(parts)


class BatchBuilder:
    """Records of one batch to be, encoded as they come. `size_bytes` estimates the batch before compression."""

    __slots__ = (
        "_base_timestamp", "_lengths", "_max_timestamp", "_parts", "_plain", "_plain_from", "_plain_keys", "_plain_lengths",
        "_plain_time", "record_count", "size_bytes",
    )  # fmt: skip

    def __init__(self) -> None:
        self._parts: list[bytes | bytearray] = []
        # Where the next record's length is looked up; it also ends the record before, if that has no headers.
        self._lengths = NUMBER
        self._base_timestamp = 0
        self._max_timestamp = 0
        # Values of records without headers, all of one timestamp, that are encoded together; their lengths and keys.
        self._plain: list[bytes] = []
        self._plain_lengths: list[int] = []
        self._plain_keys: list[bytes | None] = []  # empty if none of them has a key
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
        number, no_key_then, no_headers_then = NUMBER, NO_KEY_THEN, NO_HEADERS_THEN
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

    def append_value(self, timestamp_ms: int, value: bytes, max_bytes: int, key: bytes | None = None) -> int:
        """Take a record without headers and return its index, or -1 if the batch would be larger than `max_bytes`.

        The first always fits. Faster than `extend`: runs of such records of one time are encoded together.
        """
        size = self.size_bytes + len(value) + PLAIN_OVERHEAD_BYTES
        if key is not None:
            size += len(key) + KEY_OVERHEAD_BYTES
        index = self.record_count
        if size > max_bytes and index:
            return -1
        self._begin_run(timestamp_ms)
        if key is not None or self._plain_keys:
            self._add_keys((key,))
        self._plain.append(value)
        self._plain_lengths.append(len(value))
        self.size_bytes = size
        self.record_count = index + 1
        return index

    def extend_values(
        self, timestamp_ms: int, values: Sequence[bytes], lengths: Sequence[int], max_bytes: int
    ) -> int:
        """Take values as `append_value` does, until one would make the batch larger than `max_bytes`.

        Returns how many were taken; the first of a batch always is. lengths: of the values.
        """
        room = max_bytes - self.size_bytes
        if sum(lengths) + PLAIN_OVERHEAD_BYTES * len(values) > room:
            sizes = [length + PLAIN_OVERHEAD_BYTES for length in lengths]
            count = max(bisect_right(list(accumulate(sizes)), room), 0 if self.record_count else 1)
            values, lengths = values[:count], lengths[:count]
        self.add_values(timestamp_ms, values, lengths)
        return len(values)

    def add_values(
        self, timestamp_ms: int, values: Sequence[bytes], lengths: Sequence[int], keys: Sequence[bytes | None] | None = None
    ) -> None:
        """Take all these values. lengths: theirs. keys: as many, or None if no record has one."""
        self._begin_run(timestamp_ms)
        if keys is not None or self._plain_keys:
            self._add_keys((None,) * len(values) if keys is None else keys)
        self._plain += values
        self._plain_lengths += lengths
        self.size_bytes += sum(lengths) + PLAIN_OVERHEAD_BYTES * len(values)
        if keys is not None:
            self.size_bytes += sum(len(key) + KEY_OVERHEAD_BYTES for key in keys if key is not None)
        self.record_count = self._plain_from + len(self._plain)

    def _begin_run(self, timestamp_ms: int) -> None:
        if timestamp_ms != self._plain_time or not self._plain:
            self._encode_plain()
            self._plain_time, self._plain_from = timestamp_ms, self.record_count

    def _add_keys(self, keys: Sequence[bytes | None]) -> None:
        """Add keys of records that are about to be added to the run, which may not have had any so far."""
        if not self._plain_keys:
            self._plain_keys = [None] * len(self._plain)
        self._plain_keys += keys

    def _encode_plain(self) -> None:
        """Encode the run."""
        values, lengths, keys = self._plain, self._plain_lengths, self._plain_keys
        if not values:
            return
        self._plain, self._plain_lengths, self._plain_keys = [], [], []
        first, time = self._plain_from, self._plain_time
        if len(values) < RUN_LEAST_RECORDS or first + len(values) > OFFSETS_END or None in keys:
            count, size = self.record_count, self.size_bytes
            self.record_count = first
            try:
                self.extend(zip(repeat(time), keys or repeat(None), values, repeat(NO_HEADERS)))
            finally:
                self.record_count, self.size_bytes = count, size
            return
        if first == 0:
            self._base_timestamp = self._max_timestamp = time
        self._max_timestamp = max(self._max_timestamp, time)
        attributes_and_time = b"\0" + NUMBER[time - self._base_timestamp]
        for records in encode_run(first, attributes_and_time, keys or None, values, lengths):
            self._add_plain(records)

    def _add_plain(self, records: bytearray) -> None:
        """Add records without headers. They begin with the number of headers of a record before, and do not end with theirs."""
        if self._lengths is NUMBER:  # the record before ends with its own, or there is none
            del records[0]
        self._parts.append(records)
        self._lengths = NO_HEADERS_THEN

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
        end = b"" if self._lengths is NUMBER else _NO_HEADERS
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
