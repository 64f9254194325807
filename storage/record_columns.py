"""Runs of records without headers, encoded column by column: without a step of Python for each record.

Owns: how such a run becomes bytes; the layout of a record stands in records.py. Pure, but for tables of pieces that come
again and again. What comes out is, byte for byte, what `BatchBuilder.extend` writes.
Invariant: a run's bytes begin with the number of headers of the record before it, and end before that of its last one:
what is constant between two values goes as one piece, because half of the time is spent per piece.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from operator import add, itemgetter
from typing import Any, Generic, TypeVar

from zafka.storage.varints import NUMBER, EncodedAfter, consecutive

RUN_LEAST_RECORDS = 8  # fewer are not worth it
OFFSETS_END = 64 << 14  # of a run; those below take up to three bytes, and there are columns for them
_LENGTHS_TABLED_MAX = 8192
_TABLES_MAX = 32  # a batch has one for each millisecond and width of its offsets; bounds what hostile lengths can hold

NO_KEY_THEN = EncodedAfter(b"\x01")
NO_HEADERS_THEN = EncodedAfter(b"\x00")
_NO_HEADERS_BYTES = 1

Made = TypeVar("Made")


class _ByLength(Generic[Made]):
    """What `make` makes of a length, remembered, for a column of lengths at a time."""

    __slots__ = ("_known", "_make")

    def __init__(self, make: Callable[[int], Made]) -> None:
        self._make = make
        self._known: dict[int, Made] = {}

    def of(self, lengths: Sequence[int]) -> Sequence[Made]:
        if len(lengths) > 1:  # of one, it would not make a column
            try:
                return itemgetter(*lengths)(self._known)  # type: ignore[no-any-return]  # half of what `map` takes
            except KeyError:
                pass
        return [self._find(length) for length in lengths]

    def _find(self, length: int) -> Made:
        known = self._known.get(length)
        if known is None:
            known = self._make(length)
            if length < _LENGTHS_TABLED_MAX:
                self._known[length] = known
        return known


_NUMBERS = _ByLength(NUMBER.__getitem__)
_NO_KEY_AND_NUMBERS = _ByLength(NO_KEY_THEN.__getitem__)
_SIZES = _ByLength(lambda length: len(NUMBER[length]) + length)  # of a key or value with its length


@lru_cache(_TABLES_MAX)
def _fronts(attributes_and_time: bytes, offset_bytes: int) -> _ByLength[bytes]:
    """By the size of key and value with their lengths: what stands between the record before and the offset."""
    fixed = len(attributes_and_time) + offset_bytes + _NO_HEADERS_BYTES
    return _ByLength(lambda size: NO_HEADERS_THEN[fixed + size] + attributes_and_time)


@lru_cache(_TABLES_MAX)
def _fronts_without_key(attributes_and_time: bytes, offset_bytes: int) -> _ByLength[bytes]:
    """The same for records without a key, by the length of the value."""
    fixed = len(attributes_and_time) + offset_bytes + _NO_HEADERS_BYTES
    return _ByLength(
        lambda length: NO_HEADERS_THEN[fixed + len(NO_KEY_THEN[length]) + length] + attributes_and_time)


def encode_run(
    first: int, attributes_and_time: bytes, keys: Sequence[Any] | None, values: Sequence[bytes], lengths: Sequence[int]
) -> list[bytearray]:
    """The records of a run, in one or more pieces.

    first: the offset delta of the first record; the last one's is below `OFFSETS_END`.
    attributes_and_time: as encoded, the same for all. keys: bytes each, or None if no record has one. lengths: of the values.
    """
    assert len(lengths) == len(values) and first + len(values) <= OFFSETS_END
    is_one_length = keys is None and lengths.count(lengths[0]) == len(lengths)
    parts, at, end = [], 0, len(values)
    while at < end:
        # Offsets of one width at a time.
        width, _, stop = _offset_width(first + at)
        until = min(end, stop - first)
        if is_one_length:
            part = _encode_same_length(first + at, attributes_and_time, values[at:until], lengths[0])
        else:
            some = None if keys is None else keys[at:until]
            part = _encode_any_length(first + at, width, attributes_and_time, some, values[at:until], lengths[at:until])
        parts.append(part)
        at = until
    return parts


def _encode_same_length(first: int, attributes_and_time: bytes, values: Sequence[bytes], length: int) -> bytearray:
    """Between two values all is the same but the offset: join them with that, then write the offsets over it."""
    width, start, _ = _offset_width(first)
    front = NO_KEY_THEN[length]
    size = len(attributes_and_time) + width + len(front) + length + _NO_HEADERS_BYTES
    before = NO_HEADERS_THEN[size] + attributes_and_time
    between = bytearray(before + bytes(width) + front)
    records = between.join([b"", *values])
    for place, column in enumerate(_offset_columns(width), len(before)):
        records[place :: len(between) + length] = column[first - start : first - start + len(values)]
    return records


def _encode_any_length(
    first: int, width: int, attributes_and_time: bytes, keys: Sequence[Any] | None, values: Sequence[bytes],
    lengths: Sequence[int],
) -> bytearray:  # fmt: skip
    count = len(values)
    offsets = consecutive(first, count)
    if keys is None:
        pieces = [b""] * (4 * count)
        pieces[0::4] = _fronts_without_key(attributes_and_time, width).of(lengths)
        pieces[1::4] = offsets
        pieces[2::4] = _NO_KEY_AND_NUMBERS.of(lengths)
        pieces[3::4] = values
        return bytearray().join(pieces)
    key_lengths = list(map(len, keys))
    sizes = list(map(add, _SIZES.of(key_lengths), _SIZES.of(lengths)))
    pieces = [b""] * (6 * count)
    pieces[0::6] = _fronts(attributes_and_time, width).of(sizes)
    pieces[1::6] = offsets
    pieces[2::6] = _NUMBERS.of(key_lengths)
    pieces[3::6] = keys
    pieces[4::6] = _NUMBERS.of(lengths)
    pieces[5::6] = values
    return bytearray().join(pieces)


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
