"""`zafka.Producer`: records in, futures out; batches, retries and order are taken care of.

Owns: the blocking face of `producer_base.ProducerBase`, and the fast path of `send`.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import time as now
from types import TracebackType
from typing import Any, Self

from zafka.client.batches import Deliveries, Delivery
from zafka.client.interceptors import ProducerRecord
from zafka.client.producer_arguments import HeadersArgument
from zafka.client.producer_base import ProducerBase
from zafka.client.waiting import run


class Producer(ProducerBase):
    __doc__ = ProducerBase.__doc__

    def _begin(self) -> None:
        run(self._start())

    def send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: HeadersArgument = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Delivery:
        """Queue one record and return its future; `future.result()` is a RecordMetadata once it is acknowledged.

        value, key: bytes or None, or what the serializers take. headers: a mapping or pairs of name and bytes.
        partition: by default the `partitioner` decides. timestamp_ms: milliseconds since 1970; by default now.
        Blocks only while `buffer_memory` is full or the topic is new to this producer, at most `max_block` seconds.
        Raises UnknownTopic, RecordTooLarge, BufferFull, ClientClosed, TypeError.
        """
        if type(value) is bytes and key is None and headers is None and partition is None and timestamp_ms is None:
            lane = self._lanes.get(topic)  # what follows is `Lane.put`
            if lane is not None and len(value) <= lane.value_bytes_max and now() < lane.until_s:
                try:
                    lane.values[index := next(lane.free)] = value
                    return Delivery(lane.batch, index, lane.timestamp_ms)
                except StopIteration:
                    pass
                except BaseException:  # Ctrl-C, maybe between the two steps
                    lane.spoiled = True
                    raise
            if len(value) <= self._plain_bytes_max:
                route = self._routes.get(topic) or run(self._find_route(topic))
                while (delivery := self._accumulator.append_value(route, value)) is None:
                    run(self._accumulator.wait_for_room(self.max_block))
                return delivery
        if self._interceptors is not None:
            return run(self._send(ProducerRecord(topic, value, key, headers, partition, timestamp_ms)))
        route = self._routes.get(topic) or run(self._find_route(topic))
        partition, record = self._prepare(route, value, key, headers, partition, timestamp_ms)
        while (delivery := self._accumulator.append(route, partition, record)) is None:
            run(self._accumulator.wait_for_room(self.max_block))
        return delivery

    def send_many(
        self,
        topic: str,
        values: Iterable[Any],
        *,
        keys: Iterable[Any] | None = None,
        headers: HeadersArgument = None,
        headers_each: Iterable[HeadersArgument] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        timestamps_ms: Iterable[int] | None = None,
    ) -> Deliveries:
        """Queue many records: the fast path, with one future for all of them.

        values: as for `send`. keys: as many as values; then records of one key keep their order.
        headers, partition, timestamp_ms: the same for all records; the time by default is now.
        headers_each, timestamps_ms: instead, as many as values.
        Returns Deliveries; `.result()` is a list of spans (topic, partition, base_offset, record_count), in the order
            of the values if there are no keys. Failures that nobody asks for are raised by `flush` and `close`.
        Blocks and raises like `send`; then the values before are queued.
        """
        return run(self._send_many(
            topic, values, keys=keys, headers=headers, headers_each=headers_each, partition=partition,
            timestamp_ms=timestamp_ms, timestamps_ms=timestamps_ms,
        ))

    def partitions_for(self, topic: str) -> int:
        """The number of partitions of a topic. Raises UnknownTopic."""
        return (self._routes.get(topic) or run(self._find_route(topic))).partition_count

    def flush(self, timeout: float | None = None) -> None:
        """Send what waits and return when all records sent before are acknowledged or failed.

        timeout: seconds; by default as long as `delivery_timeout` lets records try.
        Raises DeliveryFailed if records failed whose futures nobody looked at; RequestTimedOut after `timeout`.
        """
        run(self._flush(timeout))

    def close(self, timeout: float | None = None) -> None:
        """Flush, then end the I/O thread. Closing again does nothing.

        timeout: seconds to wait for acknowledgements; what is not acknowledged by then fails.
        Raises DeliveryFailed like `flush`.
        """
        run(self._close(timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run(self._close_after(error))
