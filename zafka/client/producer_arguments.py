"""What may be given to a producer: its own arguments, and those of each record.

Owns: the checks, and their words. Pure. Raises ConfigError for impossible arguments, TypeError for values of the wrong kind.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zafka.client.core import check_choice, check_count
from zafka.client.errors import ConfigError
from zafka.client.partition_queue import IN_FLIGHT_MAX
from zafka.storage.batch_builder import BatchBuilder

HeadersArgument = Mapping[str, bytes | None] | Sequence[tuple[str, bytes | None]] | None
Serializer = Callable[[Any], bytes | None]

# By their number in a batch.
CODEC_NAMES = ("none", "gzip", "snappy", "lz4", "zstd")
TIMESTAMP_BOUND = 2**62


def longest(values: list[Any]) -> int:
    """Bytes of the longest of these, which are bytes or None."""
    return max(map(len, filter(None, values)), default=0)


def as_bytes(what: str, value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    hint = (
        "encode it, for example with .encode()" if isinstance(value, str) else f"give the producer a {what}_serializer"
    )
    raise TypeError(f"a {what} must be bytes or None, not {type(value).__name__}: {hint}")


def all_bytes(what: str, values: list[Any], serializer: Serializer | None) -> list[Any]:
    if serializer is not None:
        values = [serializer(value) for value in values]
    if not _BYTES_OR_NONE.issuperset(map(type, values)):
        values = [None if value is None else as_bytes(what, value) for value in values]
    return values


_BYTES_OR_NONE = frozenset((bytes, type(None)))


def check_acks(acks: str | int, enable_idempotence: bool | None, max_in_flight: int) -> tuple[int, bool]:
    """Kafka's number for acks, and whether to be idempotent. Raises ConfigError for what does not go together."""
    check_choice("acks", acks, ("all", -1, 1, 0))
    check_count("max_in_flight", max_in_flight)
    acks_code = -1 if acks == "all" else int(acks)
    idempotent = acks_code == -1 if enable_idempotence is None else enable_idempotence
    if idempotent and acks_code != -1:
        raise ConfigError(f'enable_idempotence needs acks="all", not {acks!r}')
    if idempotent and max_in_flight > IN_FLIGHT_MAX:
        raise ConfigError(f"max_in_flight must be at most {IN_FLIGHT_MAX} with enable_idempotence, not {max_in_flight}")
    return acks_code, idempotent


def check_timestamp(timestamp_ms: Any) -> None:
    if isinstance(timestamp_ms, bool) or not isinstance(timestamp_ms, int) or not 0 <= timestamp_ms < TIMESTAMP_BOUND:
        raise ConfigError(f"timestamp_ms must be milliseconds since 1970, such as 1700000000000, not {timestamp_ms!r}")


def check_level(codec: int, level: Any) -> None:
    """Raises ConfigError for a level that the codec does not have."""
    if level is None:
        return
    builder = BatchBuilder()
    builder.append(0, None, b"x")
    try:
        builder.build(codec=codec, level=level)
    except (ValueError, TypeError, OverflowError, zlib.error) as error:
        raise ConfigError(f"compression_level={level!r} is not a level of {CODEC_NAMES[codec]}: {error}") from error


def as_headers(headers: HeadersArgument) -> tuple[tuple[str, bytes | None], ...]:
    """Pairs of name and bytes, checked. Raises TypeError."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    checked = []
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise TypeError(f"headers must be a mapping or pairs of name and bytes, not {pair!r}")
        name, value = pair
        name.encode()  # raises here what would spoil a batch
        checked.append((name, None if value is None else as_bytes("header value", value)))
    return tuple(checked)


def check_linger(linger_ms: Any) -> float:
    """Seconds."""
    if isinstance(linger_ms, bool) or not isinstance(linger_ms, int | float) or not 0 <= linger_ms < math.inf:
        raise ConfigError(f"linger_ms must be a number of milliseconds, 0 or more, not {linger_ms!r}")
    return linger_ms / 1000


def check_codec(name: str | None, level: Any) -> int:
    """The codec's number."""
    codec = name or "none"
    check_choice("compression_type", codec, CODEC_NAMES)
    check_level(CODEC_NAMES.index(codec), level)
    return CODEC_NAMES.index(codec)
