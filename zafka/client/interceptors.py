"""Interceptors: objects of the user's that see every record, as Kafka's clients know them.

Owns: `ProducerRecord`, and `Interceptors`, which calls them. What they raise is logged and never breaks delivery: the
record goes on as it was. A client without interceptors has none of this in its way.
Source: Kafka ProducerInterceptor, ConsumerInterceptor (KIP-42).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from zafka.client.batches import NO_OFFSET, Delivery, RecordMetadata
from zafka.client.errors import ConfigError
from zafka.client.records import Record

logger = logging.getLogger("zafka.client")

ON_SEND, ON_ACKNOWLEDGEMENT, ON_CONSUME = "on_send", "on_acknowledgement", "on_consume"
NO_PARTITION = -1


class ProducerRecord(NamedTuple):
    """What was given to `send`, before serializers and partitioner. Interceptors return it, or one made by `_replace`."""

    topic: str
    value: Any = None
    key: Any = None
    headers: Any = None
    partition: int | None = None
    timestamp_ms: int | None = None


class Interceptors:
    """The interceptors of one client, in order. An object need not have every method.

    post: calls what it is given, at once or in the event loop that the client belongs to.
    """

    def __init__(self, objects: Iterable[Any], *kinds: str) -> None:
        """Raises ConfigError for an object that has none of the methods `kinds`."""
        self.post: Callable[[Callable[[], None]], object] = _call
        given = list(objects)
        for one in given:
            if not any(callable(getattr(one, kind, None)) for kind in kinds):
                raise ConfigError(f"an interceptor has a method {' or '.join(kinds)}; {one!r} has none")
        self._methods = {kind: [getattr(one, kind) for one in given if hasattr(one, kind)] for kind in kinds}

    def on_send(self, record: ProducerRecord) -> ProducerRecord:
        for method in self._methods[ON_SEND]:
            changed = _ask(method, record)
            if isinstance(changed, ProducerRecord):
                record = changed
            elif changed is not _RAISED:
                logger.error("%r returned %r, not a ProducerRecord; the record stays as it was", method, changed)
        return record

    def watch(self, delivery: Delivery) -> None:
        """Tell of this record's acknowledgement when it comes."""
        if self._methods[ON_ACKNOWLEDGEMENT]:
            delivery.batch.add_callback(partial(self.post, partial(self._on_done, delivery)))

    def _on_done(self, delivery: Delivery) -> None:
        batch = delivery.batch
        if batch.error is None:
            self.on_acknowledgement(delivery.result(0), None)
        else:
            where = RecordMetadata(batch.topic, batch.partition, NO_OFFSET, delivery.timestamp)
            self.on_acknowledgement(where, batch.error)

    def on_refused(self, record: ProducerRecord, error: Exception) -> None:
        """`send` raised this: the record was not queued."""
        partition = NO_PARTITION if record.partition is None else record.partition
        time_ms = -1 if record.timestamp_ms is None else record.timestamp_ms
        self.on_acknowledgement(RecordMetadata(record.topic, partition, NO_OFFSET, time_ms), error)

    def on_acknowledgement(self, metadata: RecordMetadata, error: Exception | None) -> None:
        for method in self._methods[ON_ACKNOWLEDGEMENT]:
            _ask(method, metadata, error)

    def on_consume(self, records: list[Record]) -> list[Record]:
        for method in self._methods[ON_CONSUME]:
            changed = _ask(method, records)
            if isinstance(changed, list):
                records = changed
            elif changed is not _RAISED:
                logger.error("%r returned %r, not a list of records; they stay as they were", method, changed)
        return records


_RAISED: Any = object()


def _call(function: Callable[[], None]) -> None:
    function()


def _ask(method: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return method(*arguments)
    except Exception:  # the user's code; records go on without it
        logger.exception("the interceptor %r raised", method)
        return _RAISED


def make_interceptors(objects: Iterable[Any] | None, *kinds: str) -> Interceptors | None:
    """None without interceptors. Raises ConfigError."""
    found = Interceptors(objects or (), *kinds)
    return found if any(found._methods.values()) else None
