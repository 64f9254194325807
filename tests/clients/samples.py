"""Records that every client writes, and has to find again."""

from __future__ import annotations

from typing import NamedTuple

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
FIRST_TIMESTAMP_MS = 1_700_000_000_000
STEP_MS = 1000


class Sample(NamedTuple):
    """timestamp_ms: None leaves it to the client, and is equal to any."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]] = []  # noqa: RUF012  (never changed)
    timestamp_ms: int | None = None


def samples() -> list[Sample]:
    """Keys and values that are absent, empty, not text, long; headers that repeat; one second apart."""
    odd = bytes(range(256))
    bodies: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]] = [
        (b"plain", b"value", []),
        (None, b"no key", []),
        (b"", b"empty key", []),
        (b"empty value", b"", []),
        (b"tombstone", None, []),
        (odd, odd, [("odd", odd)]),
        ("schlüssel".encode(), "größe € 漢字".encode(), [("ключ", "значение".encode())]),
        (b"headers", b"x", [("a", b"1"), ("b", b""), ("a", b"2")]),
        (b"null header", b"x", [("there", b"1"), ("null", None)]),
        (b"long", b"0123456789" * 20_000, []),
        (b"last", b"end", []),
    ]
    return [
        Sample(key, value, headers, FIRST_TIMESTAMP_MS + number * STEP_MS)
        for number, (key, value, headers) in enumerate(bodies)
    ]


def numbered(first: int, count: int, *, padding: int = 0, keys: int = 10) -> list[Sample]:
    """Records that say their place: value "17xxxx", key "17 modulo keys"; text, without headers."""
    return [
        Sample(b"%d" % (number % keys), b"%d" % number + b"x" * padding) for number in range(first, first + count)
    ]


def number_of(value: bytes | None) -> int:
    """The place that a numbered record says."""
    assert value is not None
    return int(value.rstrip(b"x"))
