"""Runs of records that are laid out alike, decoded column by column, without a step of Python for each record.

Owns: finding such a run, and the proof that it is one; and `read_raw`, the one way to read a varint of any length.
Records of one size with the same lengths inside are common: values of a fixed format, counters, numbers. What is not
proved to be exactly such a run, byte for byte, is left to records.py; nothing here is an error but a number too long.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache
from itertools import repeat
from typing import NamedTuple

from zafka.storage.errors import CorruptBatch
from zafka.storage.varints import TABLED_MAX, consecutive

RUN_LEAST_RECORDS = 8
_RUN_MOST_RECORDS = 512  # more at a time cost caches and Python's collector of garbage more than they save


class Run(NamedTuple):
    """Consecutive records without headers. times: to be added to the batch's base timestamp. end: position after it."""

    length: int
    first_delta: int
    times: Iterable[int]
    keys: Iterable[bytes | None]
    values: Iterable[bytes]
    end: int


def find_run(body: bytes, position: int, count: int) -> Run | None:
    """The run that begins at `position`, of at most `count` records; None if there is none worth it. Raises IndexError."""
    length, time_at = read_raw(body, position)
    size = time_at + (length >> 1) - position
    time_at += 1  # the attributes
    _, delta_at = read_raw(body, time_at)
    raw_delta, key_at = read_raw(body, delta_at)
    delta = raw_delta >> 1
    raw_key, start = read_raw(body, key_at)
    key_bytes = 0 if raw_key == 1 else raw_key >> 1
    value_at = start + key_bytes
    raw_value, value_start = read_raw(body, value_at)
    value_bytes = raw_value >> 1
    is_plain = not (length | raw_delta | raw_value | (0 if raw_key == 1 else raw_key)) & 1
    if not is_plain or value_start + value_bytes + 1 != position + size or size <= 0 or body[position + size - 1]:
        return None
    head = body[position:time_at]
    count = min(count, _RUN_MOST_RECORDS, (len(body) - position) // size, _first_wider(delta) - delta)
    # A glance at the last one, and at the last of half as many, and so on, before anything is unpacked.
    while count >= RUN_LEAST_RECORDS and not body.startswith(head, position + (count - 1) * size):
        count //= 2
    if count < RUN_LEAST_RECORDS:
        return None
    widths = (
        time_at - position, delta_at - time_at, key_at - delta_at, start - key_at, key_bytes, value_start - value_at,
        value_bytes,
    )  # fmt: skip
    end = position + count * size
    columns = tuple(zip(*_layout(*widths).iter_unpack(memoryview(body)[position:end]), strict=True))
    heads, times, deltas, key_fronts, keys, value_fronts, values, ends = columns
    if not (
        heads.count(head) == key_fronts.count(body[key_at:start]) == value_fronts.count(body[value_at:value_start])
        == ends.count(b"\0") == count
        and deltas == consecutive(delta, count)
    ):  # fmt: skip
        return None
    numbers = _times(times)
    if numbers is None:
        return None
    return Run(count, delta, numbers, repeat(None) if raw_key == 1 else keys, values, end)


def _first_wider(delta: int) -> int:
    """The first offset delta that takes more bytes than this one; for those beyond `TABLED_MAX`, 0."""
    return 64 if delta < 64 else 1 << 13 if delta < 1 << 13 else TABLED_MAX if delta < TABLED_MAX else 0


def _times(times: tuple[bytes, ...]) -> Iterable[int] | None:
    """The numbers of a column of varints, or None if one of them is not as long as the column is wide."""
    numbers: dict[bytes, int] = {}
    for time in set(times):
        if time[-1] > 127 or any(byte < 128 for byte in time[:-1]):
            return None
        raw, _ = read_raw(time, 0)
        numbers[time] = raw >> 1 ^ -(raw & 1)
    return repeat(numbers[times[0]]) if len(numbers) == 1 else map(numbers.__getitem__, times)


@lru_cache(maxsize=256)
def _layout(*widths: int) -> struct.Struct:
    return struct.Struct("".join(f"{width}s" for width in widths) + "c")


def read_raw(body: bytes, position: int) -> tuple[int, int]:
    """A varint before zigzag is undone, and the position after it. At most nine bytes: what is larger says nothing."""
    raw = shift = 0
    while (byte := body[position]) > 127:
        raw |= (byte & 127) << shift
        shift += 7
        position += 1
        if shift > 56:
            raise CorruptBatch(f"a number of more than 9 bytes before position {position} of the records")
    return raw | byte << shift, position + 1


