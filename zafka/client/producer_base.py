"""What `Producer` and `AsyncProducer` share: all but the waiting.

Owns: arguments and their checking, what is done with a record before a batch has it, and the thread's side (`Dispatch`).
What has to wait is a coroutine of steps (waiting.py).
Durability is what `acks` says; with the default "all", a record whose future has a result is on disk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any

from zafka.client.accumulator import Accumulator, Piece, TopicRoute
from zafka.client.batches import Deliveries, Delivery
from zafka.client.columns import Chunk, checked, draw_chunks
from zafka.client.core import Core, check_count, check_seconds, make_settings
from zafka.client.direct import DirectWays
from zafka.client.errors import (
    ClientClosed,
    ConfigError,
    DeliveryFailed,
    RecordTooLarge,
    RequestTimedOut,
    ZafkaError,
)
from zafka.client.interceptors import ON_ACKNOWLEDGEMENT, ON_SEND, ProducerRecord, make_interceptors
from zafka.client.life import ClientBase
from zafka.client.metrics import ProducerMetrics
from zafka.client.partitioning import STICKY, PartitionFunction, make_partitioner
from zafka.client.producer_arguments import (
    HeadersArgument,
    Serializer,
    as_bytes,
    as_headers,
    check_acks,
    check_codec,
    check_linger,
    check_timestamp,
)
from zafka.client.sender import Sender, SendOptions
from zafka.client.waiting import run
from zafka.storage.batch_builder import Headers, NewRecord

logger = logging.getLogger("zafka.client")

# A record's own numbers, beside key, value and headers: never more than this.
RECORD_OVERHEAD_BYTES = 40
CLOSE_AFTER_ERROR_S = 1.0
CLOSE_AT_EXIT_S = 2.0


class Dispatch:
    """The producer's side in the I/O thread. Knows nothing of the object that the user holds, so that can be collected."""

    def __init__(self, core: Core, sender: Sender, accumulator: Accumulator) -> None:
        self._core = core
        self._sender = sender
        self._accumulator = accumulator
        self._seen_metadata = -1

    def turn(self, now_s: float) -> float:
        cluster = self._core.cluster
        if cluster.metadata_count != self._seen_metadata:
            self._seen_metadata = cluster.metadata_count
            for topic in cluster.topics.values():
                if topic.leaders:
                    self._accumulator.set_route(topic.name, len(topic.leaders), topic.led)
            self._core.notify()
        return self._sender.turn(now_s)

    def end(self, error: ZafkaError) -> None:
        self._sender.end(error)
        self._accumulator.end(error)


class ProducerBase(ClientBase):
    """Send records to topics.

    Through a ZeroMQ door (`tcp://host:port`, `ipc://path`) or by Kafka's protocol (`host:port`), Apache Kafka included.

    bootstrap_servers: one address or several (a list, or comma-separated); without it the environment's
        ZAFKA_BOOTSTRAP_ZMQ or ZAFKA_BOOTSTRAP, or 127.0.0.1:9092.
    acks: "all" (default), 1 (the leader), 0 (nobody: no offsets, no retries).
    linger_ms: how long a batch waits for more records. batch_size: bytes of a batch, before compression.
    compression_type: "none", "gzip", "snappy", "lz4" or "zstd"; compression_level: the codec's own scale.
    enable_idempotence: retries never duplicate or reorder (default with acks="all").
    max_in_flight: requests per broker that wait for an answer, at most 5 with idempotence.
    delivery_timeout: seconds after which a record that was not acknowledged fails; until then everything that may
        pass, such as a broker that restarts, is retried. request_timeout: seconds for one answer.
    buffer_memory: bytes that may wait; beyond them `send` waits for room. max_block: seconds that a `send` waits at
        most, for room (then it raises BufferFull) or for the metadata of a topic.
    max_request_size: bytes of the largest record, and of a request with several batches.
    partitioner: where records go that come without a partition. "murmur2" (default: as Java's), "crc32" (as librdkafka's
        default, `consistent_random`) and "consistent" (as librdkafka's of that name) hash the key; records that have none
        stay with one partition until a batch is full and then go on to the next, as all do with "sticky". Or a function
        of key, all partitions and those that have a leader, which returns one of them.
    key_serializer, value_serializer: functions that make bytes of what is sent.
    direct: hand batches straight to partitions that run on this machine as this user, past the broker, which saves a
        hop. Idempotent producers at a ZeroMQ door (tcp://, ipc://) do, and use the broker wherever that cannot be.
    interceptors: objects with `on_send(record) -> record`, called with a ProducerRecord before anything else is done with
        it, or `on_acknowledgement(metadata, error)`, called once for each record, in the I/O thread (or the event loop):
        error is None, or why it failed, or was refused by `send`. They must not block; what they raise is only logged.
    client_id: how brokers' logs name this client. metadata_max_age: seconds until the cluster is asked about itself anew.
    bootstrap_timeout: seconds until NoBroker if nobody answers at first; connect_timeout: for one connection.
    Safe to use from several threads. Raises NoBroker, ConfigError.
    """

    def __init__(
        self,
        bootstrap_servers: str | Iterable[str] | None = None,
        *,
        acks: str | int = "all",
        linger_ms: float = 5,
        batch_size: int = 512 * 1024,
        compression_type: str | None = "none",
        compression_level: int | None = None,
        partitioner: str | PartitionFunction = "murmur2",
        enable_idempotence: bool | None = None,
        max_in_flight: int = 5,
        delivery_timeout: float = 120.0,
        request_timeout: float = 30.0,
        buffer_memory: int = 32 * 1024 * 1024,
        max_block: float = 60.0,
        max_request_size: int = 1024 * 1024,
        key_serializer: Serializer | None = None,
        value_serializer: Serializer | None = None,
        interceptors: Iterable[Any] | None = None,
        client_id: str = "zafka-producer",
        bootstrap_timeout: float = 3.0,
        connect_timeout: float = 10.0,
        metadata_max_age: float = 300.0,
        direct: bool = True,
    ) -> None:
        acks_code, idempotent = check_acks(acks, enable_idempotence, max_in_flight)
        self.delivery_timeout = check_seconds("delivery_timeout", delivery_timeout)
        self.max_block = check_seconds("max_block", max_block)
        self.max_request_size = check_count("max_request_size", max_request_size)
        self._key_serializer = key_serializer
        self._value_serializer = value_serializer
        self._interceptors = make_interceptors(interceptors, ON_SEND, ON_ACKNOWLEDGEMENT)
        settings = make_settings(
            bootstrap_servers,
            client_id=client_id,
            bootstrap_timeout=bootstrap_timeout,
            connect_timeout=connect_timeout,
            request_timeout=request_timeout,
            metadata_max_age=metadata_max_age,
        )
        self._core = Core("producer", settings)
        self._accumulator = Accumulator(
            batch_size=min(check_count("batch_size", batch_size), max_request_size),
            linger_s=check_linger(linger_ms),
            delivery_timeout_s=self.delivery_timeout,
            buffer_memory=check_count("buffer_memory", buffer_memory),
            codec=check_codec(compression_type, compression_level),
            level=compression_level,
            partitioner=make_partitioner(partitioner),
            wake=self._core.io.wake,
        )
        self._routes = self._accumulator.routes
        self._lanes = self._accumulator.lanes
        # Values of up to so many bytes may take the fast path if they come alone.
        is_sticky = self._accumulator.partitioner.is_sticky_without_key
        is_plain = value_serializer is None and self._interceptors is None and is_sticky
        self._plain_bytes_max = self.max_request_size - RECORD_OVERHEAD_BYTES if is_plain else -1
        options = SendOptions(
            acks=acks_code,
            idempotent=idempotent,
            max_in_flight=max_in_flight,
            max_request_size=max_request_size,
            request_timeout=request_timeout,
            delivery_timeout=self.delivery_timeout,
        )
        # The partition itself keeps the order of numbered batches; others might overtake each other on two ways.
        is_direct = direct and idempotent and settings.bootstrap[0].is_zmq
        ways = DirectWays(self._core.io, self._core.cluster) if is_direct else None
        self._sender = Sender(self._core.cluster, options, self._accumulator.drain, ways)
        self._begin()

    async def _start(self) -> None:
        await self._core.start(Dispatch(self._core, self._sender, self._accumulator))
        self._opened()

    def __repr__(self) -> str:
        where = ",".join(map(str, self._core.settings.bootstrap))
        state = "closed" if self._closed else f"{self._accumulator.buffered_bytes} bytes waiting"
        return f"<{type(self).__name__} {where} {state}>"

    # -- sending ---------------------------------------------------------------------------------

    def _prepare(
        self,
        route: TopicRoute,
        value: Any,
        key: Any,
        headers: HeadersArgument,
        partition: int | None,
        timestamp_ms: int | None,
    ) -> tuple[int, NewRecord]:
        """Check one record and place it: its partition or STICKY, and the record as batches take it."""
        if self._value_serializer is not None:
            value = self._value_serializer(value)
        if self._key_serializer is not None:
            key = self._key_serializer(key)
        if value is not None and type(value) is not bytes:
            value = as_bytes("value", value)
        if key is not None and type(key) is not bytes:
            key = as_bytes("key", key)
        pairs = () if headers is None else as_headers(headers)
        if timestamp_ms is None:
            timestamp_ms = time.time_ns() // 1_000_000
        else:
            check_timestamp(timestamp_ms)
        size = (0 if value is None else len(value)) + (0 if key is None else len(key))
        if size > self.max_request_size - RECORD_OVERHEAD_BYTES or pairs:
            self._check_size(route.name, size, pairs)
        if partition is None:
            partition = route.partition_for(key)
        elif not 0 <= partition < route.partition_count:
            self._refuse_partition(route, partition)
        return partition, (timestamp_ms, key, value, pairs)

    async def _send(self, record: ProducerRecord) -> Delivery:
        """Queue one record, by way of the interceptors."""
        if self._interceptors is None:
            return await self._queue(record)
        record = self._interceptors.on_send(record)
        try:
            delivery = await self._queue(record)
        except Exception as error:
            self._interceptors.on_refused(record, error)
            raise
        self._interceptors.watch(delivery)
        return delivery

    async def _queue(self, record: ProducerRecord) -> Delivery:
        topic, *rest = record
        route = self._routes.get(topic) or await self._find_route(topic)
        partition, new = self._prepare(route, *rest)
        while (delivery := self._accumulator.append(route, partition, new)) is None:
            await self._accumulator.wait_for_room(self.max_block)
        return delivery

    async def _send_many(
        self,
        topic: str,
        values: Iterable[Any],
        *,
        keys: Iterable[Any] | None,
        headers: HeadersArgument,
        headers_each: Iterable[HeadersArgument] | None,
        partition: int | None,
        timestamp_ms: int | None,
        timestamps_ms: Iterable[int] | None,
    ) -> Deliveries:
        if headers is not None and headers_each is not None:
            raise ConfigError("headers are the same for all records, headers_each are for each: not both")
        if timestamp_ms is not None and timestamps_ms is not None:
            raise ConfigError("timestamp_ms is the same for all records, timestamps_ms are for each: not both")
        route = self._routes.get(topic) or await self._find_route(topic)
        pairs = () if headers is None else as_headers(headers)
        if timestamp_ms is not None:
            check_timestamp(timestamp_ms)
        if partition is not None and not 0 <= partition < route.partition_count:
            self._refuse_partition(route, partition)
        pieces: list[Piece] = []
        for chunk in draw_chunks(values, keys=keys, timestamps_ms=timestamps_ms, headers_each=headers_each):
            if self._interceptors is None:
                ready = checked(chunk, self._value_serializer, self._key_serializer)
                await self._send_chunk(route, ready, pairs, partition, timestamp_ms, pieces)
                continue
            for record in chunk.given(topic, headers, partition, timestamp_ms):
                delivery = await self._send(record)
                pieces.append((delivery.batch, delivery.index, 1))
        return Deliveries(_joined(pieces))

    async def _send_chunk(
        self,
        route: TopicRoute,
        chunk: Chunk,
        headers: Headers,
        partition: int | None,
        timestamp_ms: int | None,
        pieces: list[Piece],
    ) -> None:
        lengths = chunk.value_lengths()
        largest_bytes = chunk.largest_bytes(lengths)
        for each in (headers,) if chunk.headers is None else chunk.headers:
            self._check_size(route.name, largest_bytes, each)
        time_ms = time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
        accumulator, values = self._accumulator, chunk.values
        if partition is not None or (chunk.keys is None and accumulator.partitioner.is_sticky_without_key):
            where = STICKY if partition is None else partition
            if timestamp_ms is None and not headers and chunk.is_values_only and lengths is not None:
                while values:
                    taken = accumulator.append_values(route, where, time_ms, values, lengths, pieces)
                    values, lengths = values[taken:], lengths[taken:]
                    if values:
                        await accumulator.wait_for_room(self.max_block)
                return
            await self._append_all(route, where, chunk.records(time_ms, headers), pieces)
            return
        by_partition: dict[int, list[NewRecord]] = {}
        for record in chunk.records(time_ms, headers):
            by_partition.setdefault(route.partition_for(record[1]), []).append(record)
        for where, part in by_partition.items():
            await self._append_all(route, where, part, pieces)

    async def _append_all(
        self, route: TopicRoute, partition: int, records: Iterable[NewRecord], pieces: list[Piece]
    ) -> None:
        rest = self._accumulator.append_many(route, partition, records, pieces)
        while rest is not None:
            await self._accumulator.wait_for_room(self.max_block)
            rest = self._accumulator.append_many(route, partition, rest, pieces)

    async def _find_route(self, topic: str) -> TopicRoute:
        """Wait for a topic's metadata, which `Dispatch` makes a route of."""
        await self._core.wait_for_topics([topic], self.max_block)
        what = f"the partitions of {topic}"
        return await self._core.wait_for(lambda: self._routes.get(topic), self.max_block, what)

    def _check_size(self, topic: str, size: int, headers: Sequence[tuple[str, bytes | None]]) -> None:
        size += RECORD_OVERHEAD_BYTES
        for name, value in headers:
            size += len(name) + (0 if value is None else len(value)) + 8
        if size > self.max_request_size:
            raise RecordTooLarge(
                f"a record of {size} bytes for {topic} is larger than max_request_size={self.max_request_size}"
            )

    def _refuse_partition(self, route: TopicRoute, partition: Any) -> None:
        raise ConfigError(f"{route.name} has partitions 0 to {route.partition_count - 1}, not {partition!r}")

    # -- what became of it -----------------------------------------------------------------------

    def metrics(self) -> ProducerMetrics:
        """What this producer has done so far, and what waits now."""
        waiting, sender = self._accumulator, self._sender
        return ProducerMetrics(
            records=waiting.records_acked,
            bytes=waiting.bytes_acked,
            batches=waiting.batches_acked,
            records_failed=waiting.records_failed,
            requests=sender.requests_sent,
            retries=sender.retries,
            errors=sender.errors,
            connections_lost=self._core.cluster.connections_lost,
            buffered_bytes=waiting.buffered_bytes,
            batches_waiting=waiting.batches_waiting,
            latency=waiting.latency.latency(),
        )

    async def _flush(self, timeout: float | None) -> None:
        if self._closed:
            raise ClientClosed(f"this {self._core.name} is closed")
        limit_s = self.delivery_timeout + 5 if timeout is None else timeout
        unfinished = await self._accumulator.flush(limit_s)
        self._raise_failures()
        if unfinished:
            raise RequestTimedOut(f"{unfinished} batches were not acknowledged within {limit_s:g} s so far")

    async def _close(self, timeout: float | None = None) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if self._core.ended is None:
                await self._accumulator.flush(self.delivery_timeout + 5 if timeout is None else timeout)
        except BaseException:
            self._shut()
            raise
        await super()._close()
        self._raise_failures()

    async def _close_after(self, error: BaseException | None) -> None:
        """The end of `with`."""
        if error is None:
            await self._close(None)
            return
        # Something else is wrong already (or Ctrl-C): do not hide it, and do not wait for long.
        try:
            await self._close(CLOSE_AFTER_ERROR_S)
        except ZafkaError as lost:
            logger.warning("while closing the producer: %s", lost)

    def _raise_failures(self) -> None:
        failed = self._accumulator.take_unseen_failures()
        if failed:
            count = sum(batch.count for batch in failed)
            raise DeliveryFailed(f"{count} records failed; the first: {failed[0].error}") from failed[0].error

    def close_at_exit(self) -> None:
        """The program ends without `close`: give what waits a moment, and say what is lost."""
        waiting = run(self._accumulator.flush(CLOSE_AT_EXIT_S)) if self._core.ended is None else 0
        if waiting:
            logger.warning("%r: %d batches were not acknowledged when the program ended; call close()", self, waiting)
        self._shut()

    def end_after_fork(self, error: ZafkaError) -> None:
        super().end_after_fork(error)
        self._accumulator.ended = error
        self._accumulator.forget_routes()

    def _retire(self) -> None:
        """Let the I/O thread end by itself, once all is acknowledged or after a moment."""
        self._core.retire(self._accumulator.begin_flush(), CLOSE_AT_EXIT_S)


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Pieces of neighbouring chunks that went into one batch, as one."""
    joined: list[Piece] = []
    for batch, first, count in pieces:
        if joined and joined[-1][0] is batch and joined[-1][1] + joined[-1][2] == first:
            batch, first_before, count_before = joined.pop()
            joined.append((batch, first_before, count_before + count))
        else:
            joined.append((batch, first, count))
    return joined
