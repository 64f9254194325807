"""Records that every client sends and has to find again."""

from __future__ import annotations

from typing import NamedTuple

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
FIRST_TIMESTAMP_MS = 1_700_000_000_000
STEP_MS = 1000


class Sample(NamedTuple):
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    timestamp_ms: int


def samples() -> list[Sample]:
    """Keys and values that are absent, empty, not text, long; headers that repeat; one second apart."""
    odd = bytes(range(256))
    bodies: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]] = [
        (b"plain", b"value", []),
        (None, b"no key", []),
        (b"", b"empty key", []),
        (b"empty value", b"", []),
        (b"tombstone", None, []),
        (odd, odd, [("odd", odd)]),
        ("schlüssel".encode(), "größe € 漢字".encode(), [("ключ", "значение".encode())]),
        (b"headers", b"x", [("a", b"1"), ("b", b""), ("a", b"2")]),
        (b"long", b"0123456789" * 20_000, []),
        (b"last", b"end", []),
    ]
    return [
        Sample(key, value, headers, FIRST_TIMESTAMP_MS + number * STEP_MS)
        for number, (key, value, headers) in enumerate(bodies)
    ]
