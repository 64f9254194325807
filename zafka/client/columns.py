"""What one `send_many` was given, as columns: values, and keys, times, headers for each of them if there are such.

Owns: drawing them in chunks, so that no more of a generator is held than that, and checking them. Pure, but for the
user's generators and serializers. Raises ConfigError for columns of other lengths, TypeError for what is not bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any

from zafka.client.errors import ConfigError
from zafka.client.interceptors import ProducerRecord
from zafka.client.producer_arguments import (
    HeadersArgument,
    Serializer,
    all_bytes,
    as_headers,
    check_timestamp,
    longest,
)
from zafka.storage.batch_builder import Headers, NewRecord

CHUNK_RECORDS = 1000


@dataclass(slots=True)
class Chunk:
    """Some records. keys, times_ms, headers: None if the records have none of their own."""

    values: list[Any]
    keys: list[Any] | None
    times_ms: list[Any] | None
    headers: list[Any] | None

    def value_lengths(self) -> list[int] | None:
        """None if a value is null."""
        try:
            return list(map(len, self.values))
        except TypeError:
            return None

    def largest_bytes(self, value_lengths: list[int] | None) -> int:
        """No record's key and value have more."""
        value_bytes = longest(self.values) if value_lengths is None else max(value_lengths)
        return value_bytes + (longest(self.keys) if self.keys else 0)

    @property
    def is_values_only(self) -> bool:
        return self.keys is None and self.times_ms is None and self.headers is None

    def given(
        self, topic: str, headers: HeadersArgument, partition: int | None, timestamp_ms: int | None
    ) -> Iterator[ProducerRecord]:
        """One by one, as `send` would have been given them."""
        columns = (self.values, self.keys, self.headers, self.times_ms)
        defaults = (None, None, headers, timestamp_ms)
        each = (repeat(default) if column is None else column for column, default in zip(columns, defaults, strict=True))
        for value, key, own_headers, time_ms in zip(*each, strict=False):
            yield ProducerRecord(topic, value, key, own_headers, partition, time_ms)

    def records(self, time_ms: int, headers: Headers) -> Iterator[NewRecord]:
        """As batches take them. time_ms, headers: of those that have none of their own."""
        return zip(
            repeat(time_ms) if self.times_ms is None else self.times_ms,
            repeat(None) if self.keys is None else self.keys,
            self.values,
            repeat(headers) if self.headers is None else self.headers,
            strict=False,
        )


def draw_chunks(
    values: Iterable[Any],
    *,
    keys: Iterable[Any] | None,
    timestamps_ms: Iterable[int] | None,
    headers_each: Iterable[HeadersArgument] | None,
) -> Iterator[Chunk]:
    """The columns as they were given, chunk by chunk."""
    if isinstance(values, str | bytes):
        raise TypeError("values must be several values, such as a list of bytes, not one")
    source = iter(values)
    others: list[tuple[str, Iterator[Any] | None]] = [
        (name, None if column is None else iter(column))
        for name, column in (("keys", keys), ("timestamps_ms", timestamps_ms), ("headers_each", headers_each))
    ]
    while chunk := list(islice(source, CHUNK_RECORDS)):
        drawn = [None if column is None else list(islice(column, len(chunk))) for _, column in others]
        for (name, _), part in zip(others, drawn, strict=True):
            if part is not None and len(part) != len(chunk):
                raise ConfigError(f"{name} has fewer elements than values")
        yield Chunk(chunk, *drawn)


def checked(chunk: Chunk, value_serializer: Serializer | None, key_serializer: Serializer | None) -> Chunk:
    """The same as batches take it."""
    for time_ms in chunk.times_ms or ():
        check_timestamp(time_ms)
    return Chunk(
        all_bytes("value", chunk.values, value_serializer),
        None if chunk.keys is None else all_bytes("key", chunk.keys, key_serializer),
        chunk.times_ms,
        None if chunk.headers is None else list(map(as_headers, chunk.headers)),
    )

