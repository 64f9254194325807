"""Kafka's variable-length numbers, as records have them: encoded, and remembered where they come again and again.

Owns: tables of encoded numbers, which grow as far as they are used and stay below `TABLED_MAX`. Any thread may look
numbers up: a table is changed in one step, or replaced by a longer one.
"""

from __future__ import annotations

TABLED_MAX = 16384  # numbers from here on are encoded anew each time

_offsets: tuple[bytes, ...] = ()  # 0, 1, 2, ..., as far as they were needed


def encode_varint(value: int) -> bytes:
    """Zigzag, then seven bits a byte, lowest first."""
    raw = value << 1 if value >= 0 else ~(value << 1)
    out = bytearray()
    while raw > 0x7F:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    out.append(raw)
    return bytes(out)


class EncodedAfter(dict[int, bytes]):
    """Numbers after fixed bytes."""

    def __init__(self, before: bytes = b"") -> None:
        super().__init__()
        self.before = before

    def __missing__(self, value: int) -> bytes:
        encoded = self.before + encode_varint(value)
        if -1 <= value < TABLED_MAX:
            self[value] = encoded
        return encoded


NUMBER = EncodedAfter()


def consecutive(first: int, count: int) -> tuple[bytes, ...]:
    """The varints of `first` and the numbers after it. first: 0 or more."""
    global _offsets
    end = first + count
    if end > TABLED_MAX:
        return tuple(NUMBER[number] for number in range(first, end))
    if len(_offsets) < end:
        _offsets = tuple(map(encode_varint, range(min(TABLED_MAX, 2 * end))))
    return _offsets[first:end]
