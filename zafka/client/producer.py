"""`zafka.Producer`: records in, futures out; batches, retries and order are taken care of.

Owns: arguments and their checking, and what the user's thread does with a record before a batch has it.
Durability is what `acks` says; with the default "all", a record whose future has a result is on disk.
"""

from __future__ import annotations

import logging
import math
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice, repeat
from types import TracebackType
from typing import Any, Self

from zafka.client.accumulator import Accumulator, TopicRoute
from zafka.client.batches import Deliveries, Delivery, ProducerBatch
from zafka.client.core import (
    Core,
    check_choice,
    check_count,
    check_seconds,
    close_at_exit,
    forget,
    make_settings,
)
from zafka.client.errors import ClientClosed, ConfigError, DeliveryFailed, RecordTooLarge, RequestTimedOut, ZafkaError
from zafka.client.partition_queue import IN_FLIGHT_MAX
from zafka.client.sender import Sender, SendOptions
from zafka.storage.records import BatchBuilder, NewRecord

logger = logging.getLogger("zafka.client")

HeadersArgument = Mapping[str, bytes | None] | Sequence[tuple[str, bytes | None]] | None
Serializer = Callable[[Any], bytes | None]

# By their number in a batch.
CODEC_NAMES = ("none", "gzip", "snappy", "lz4", "zstd")

# Values of a `send_many` are checked and encoded this many at a time.
CHUNK_RECORDS = 1000
# A record's own numbers, beside key, value and headers: never more than this.
RECORD_OVERHEAD_BYTES = 40
TIMESTAMP_BOUND = 2**62
CLOSE_AFTER_ERROR_S = 1.0
CLOSE_AT_EXIT_S = 2.0


class Producer:
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
    buffer_memory: bytes that may wait; beyond them `send` blocks up to `max_block` seconds, then raises BufferFull.
    max_request_size: bytes of the largest record, and of a request with several batches.
    key_serializer, value_serializer: functions that make bytes of what is sent.
    Safe to use from several threads. Raises NoBroker, ConfigError.
    """

    def __init__(
        self,
        bootstrap_servers: str | Iterable[str] | None = None,
        *,
        acks: str | int = "all",
        linger_ms: float = 5,
        batch_size: int = 128 * 1024,
        compression_type: str | None = "none",
        compression_level: int | None = None,
        enable_idempotence: bool | None = None,
        max_in_flight: int = 5,
        delivery_timeout: float = 120.0,
        request_timeout: float = 30.0,
        buffer_memory: int = 32 * 1024 * 1024,
        max_block: float = 60.0,
        max_request_size: int = 1024 * 1024,
        key_serializer: Serializer | None = None,
        value_serializer: Serializer | None = None,
        client_id: str = "zafka-producer",
        bootstrap_timeout: float = 3.0,
        connect_timeout: float = 10.0,
        metadata_max_age: float = 300.0,
    ) -> None:
        acks_code, idempotent = _check_acks(acks, enable_idempotence, max_in_flight)
        codec = compression_type or "none"
        check_choice("compression_type", codec, CODEC_NAMES)
        _check_level(CODEC_NAMES.index(codec), compression_level)
        if isinstance(linger_ms, bool) or not isinstance(linger_ms, int | float) or not 0 <= linger_ms < math.inf:
            raise ConfigError(f"linger_ms must be a number of milliseconds, 0 or more, not {linger_ms!r}")
        self.delivery_timeout = check_seconds("delivery_timeout", delivery_timeout)
        self.max_block = check_seconds("max_block", max_block)
        self.max_request_size = check_count("max_request_size", max_request_size)
        self._key_serializer = key_serializer
        self._value_serializer = value_serializer
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
            linger_s=linger_ms / 1000,
            delivery_timeout_s=self.delivery_timeout,
            buffer_memory=check_count("buffer_memory", buffer_memory),
            codec=CODEC_NAMES.index(codec),
            level=compression_level,
            wake=self._core.io.wake,
        )
        options = SendOptions(
            acks=acks_code,
            idempotent=idempotent,
            max_in_flight=max_in_flight,
            max_request_size=max_request_size,
            request_timeout=request_timeout,
            delivery_timeout=self.delivery_timeout,
        )
        self._sender = Sender(self._core.cluster, options, self._accumulator.drain)
        self._seen_metadata = -1
        self._closed = False
        self._core.start(self)
        close_at_exit(self)

    def __repr__(self) -> str:
        where = ",".join(map(str, self._core.settings.bootstrap))
        state = "closed" if self._closed else f"{self._accumulator.buffered_bytes} bytes waiting"
        return f"<Producer {where} {state}>"

    # -- sending ---------------------------------------------------------------------------------

    def send(
        self,
        topic: str,
        value: Any = None,
        *,
        key: Any = None,
        headers: HeadersArgument = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Delivery:
        """Queue one record and return its future; `future.result()` is a RecordMetadata once it is acknowledged.

        value, key: bytes or None, or what the serializers take. headers: a mapping or pairs of name and bytes.
        partition: by default the key decides (murmur2, as in Java), and without a key batches go round.
        timestamp_ms: milliseconds since 1970; by default now.
        Blocks only while `buffer_memory` is full or the topic is new to this producer, at most `max_block` seconds.
        Raises UnknownTopic, RecordTooLarge, BufferFull, ClientClosed, TypeError.
        """
        route = self._accumulator.route(topic) or self._find_route(topic)
        if self._value_serializer is not None:
            value = self._value_serializer(value)
        if self._key_serializer is not None:
            key = self._key_serializer(key)
        if value is not None and type(value) is not bytes:
            value = _as_bytes("value", value)
        if key is not None and type(key) is not bytes:
            key = _as_bytes("key", key)
        pairs = () if headers is None else _as_headers(headers)
        if timestamp_ms is None:
            timestamp_ms = time.time_ns() // 1_000_000
        else:
            _check_timestamp(timestamp_ms)
        size = (0 if value is None else len(value)) + (0 if key is None else len(key))
        if size > self.max_request_size - RECORD_OVERHEAD_BYTES or pairs:
            self._check_size(topic, size, pairs)
        if partition is None:
            partition = -1 if key is None else route.partition_for(key)
        elif not 0 <= partition < route.partition_count:
            self._refuse_partition(route, partition)
        record = (timestamp_ms, key, value, pairs)
        batch, index = self._accumulator.append(route, partition, record, self.max_block)
        return Delivery(batch, index, timestamp_ms)

    def send_many(
        self,
        topic: str,
        values: Iterable[Any],
        *,
        keys: Iterable[Any] | None = None,
        headers: HeadersArgument = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Deliveries:
        """Queue many records: the fast path, with one future for all of them.

        values: as for `send`. keys: as many as values; then records of one key keep their order.
        headers, partition, timestamp_ms: the same for all records; the time by default is now.
        Returns Deliveries; `.result()` is a list of spans (topic, partition, base_offset, record_count), in the order
            of the values if there are no keys. Failures that nobody asks for are raised by `flush` and `close`.
        Blocks and raises like `send`; then the values before are queued.
        """
        if isinstance(values, str | bytes):
            raise TypeError("values must be several values, such as a list of bytes, not one")
        route = self._accumulator.route(topic) or self._find_route(topic)
        pairs = () if headers is None else _as_headers(headers)
        if timestamp_ms is not None:
            _check_timestamp(timestamp_ms)
        if partition is not None and not 0 <= partition < route.partition_count:
            self._refuse_partition(route, partition)
        source = iter(values)
        key_source = None if keys is None else iter(keys)
        pieces: list[tuple[ProducerBatch, int, int]] = []
        while chunk := list(islice(source, CHUNK_RECORDS)):
            chunk_keys = None if key_source is None else list(islice(key_source, len(chunk)))
            if chunk_keys is not None and len(chunk_keys) != len(chunk):
                raise ConfigError("keys has fewer elements than values")
            self._send_chunk(route, chunk, chunk_keys, pairs, partition, timestamp_ms, pieces)
        return Deliveries(_joined(pieces))

    def _send_chunk(
        self,
        route: TopicRoute,
        values: list[Any],
        keys: list[Any] | None,
        headers: Sequence[tuple[str, bytes | None]],
        partition: int | None,
        timestamp_ms: int | None,
        pieces: list[tuple[ProducerBatch, int, int]],
    ) -> None:
        values = _all_bytes("value", values, self._value_serializer)
        self._check_size(route.name, max(map(_length, values)), headers)
        time_ms = time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
        append_many, max_block = self._accumulator.append_many, self.max_block
        if keys is None:
            records = zip(repeat(time_ms), repeat(None), values, repeat(headers))
            pieces += append_many(route, -1 if partition is None else partition, records, max_block)
            return
        keys = _all_bytes("key", keys, self._key_serializer)
        self._check_size(route.name, max(map(_length, values)) + max(map(_length, keys)), headers)
        by_partition: dict[int, list[NewRecord]] = {}
        for key, value in zip(keys, values, strict=True):
            where = partition if partition is not None else -1 if key is None else route.partition_for(key)
            by_partition.setdefault(where, []).append((time_ms, key, value, headers))
        for where, part in by_partition.items():
            pieces += append_many(route, where, part, max_block)

    def partitions_for(self, topic: str) -> int:
        """The number of partitions of a topic. Raises UnknownTopic."""
        return (self._accumulator.route(topic) or self._find_route(topic)).partition_count

    def _find_route(self, topic: str) -> TopicRoute:
        """Wait for a topic's metadata, which `turn` makes a route of."""
        self._core.wait_for_topics([topic], self.max_block)
        return self._core.wait_for(lambda: self._accumulator.route(topic), self.max_block, f"the partitions of {topic}")

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

    # -- the end ---------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> None:
        """Send what waits and return when all records sent before are acknowledged or failed.

        timeout: seconds; by default as long as `delivery_timeout` lets records try.
        Raises DeliveryFailed if records failed whose futures nobody looked at; RequestTimedOut after `timeout`.
        """
        if self._closed:
            raise ClientClosed("this producer is closed")
        limit_s = self.delivery_timeout + 5 if timeout is None else timeout
        unfinished = self._accumulator.flush(limit_s)
        self._raise_failures()
        if unfinished:
            raise RequestTimedOut(f"{unfinished} batches were not acknowledged within {limit_s:g} s so far")

    def close(self, timeout: float | None = None) -> None:
        """Flush, then end the I/O thread. Closing again does nothing.

        timeout: seconds to wait for acknowledgements; what is not acknowledged by then fails.
        Raises DeliveryFailed like `flush`.
        """
        if self._closed:
            return
        self._closed = True
        forget(self)
        try:
            if self._core.ended is None:
                self._accumulator.flush(self.delivery_timeout + 5 if timeout is None else timeout)
        finally:
            self._core.stop()
        self._raise_failures()

    def _raise_failures(self) -> None:
        failed = self._accumulator.take_unseen_failures()
        if failed:
            count = sum(batch.count for batch in failed)
            raise DeliveryFailed(f"{count} records failed; the first: {failed[0].error}") from failed[0].error

    def close_at_exit(self) -> None:
        """The program ends without `close`: give what waits a moment, and say what is lost."""
        waiting = self._accumulator.flush(CLOSE_AT_EXIT_S) if self._core.ended is None else 0
        if waiting:
            logger.warning("%r: %d batches were not acknowledged when the program ended; call close()", self, waiting)
        self._core.stop()

    def end_after_fork(self, error: ZafkaError) -> None:
        self._core.ended = self._accumulator.ended = error
        self._accumulator.forget_routes()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        # Something else is wrong already (or Ctrl-C): do not hide it, and do not wait for long.
        try:
            self.close(timeout=CLOSE_AFTER_ERROR_S)
        except ZafkaError as lost:
            logger.warning("while closing the producer: %s", lost)

    # -- in the I/O thread -----------------------------------------------------------------------

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


def _joined(pieces: list[tuple[ProducerBatch, int, int]]) -> list[tuple[ProducerBatch, int, int]]:
    """Pieces of neighbouring chunks that went into one batch, as one."""
    joined: list[tuple[ProducerBatch, int, int]] = []
    for batch, first, count in pieces:
        if joined and joined[-1][0] is batch and joined[-1][1] + joined[-1][2] == first:
            batch, first_before, count_before = joined.pop()
            joined.append((batch, first_before, count_before + count))
        else:
            joined.append((batch, first, count))
    return joined


def _length(value: bytes | None) -> int:
    return 0 if value is None else len(value)


def _as_bytes(what: str, value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    hint = (
        "encode it, for example with .encode()" if isinstance(value, str) else f"give the producer a {what}_serializer"
    )
    raise TypeError(f"a {what} must be bytes or None, not {type(value).__name__}: {hint}")


def _all_bytes(what: str, values: list[Any], serializer: Serializer | None) -> list[bytes | None]:
    if serializer is not None:
        values = [serializer(value) for value in values]
    if not _BYTES_OR_NONE.issuperset(map(type, values)):
        values = [None if value is None else _as_bytes(what, value) for value in values]
    return values


_BYTES_OR_NONE = frozenset((bytes, type(None)))


def _check_acks(acks: str | int, enable_idempotence: bool | None, max_in_flight: int) -> tuple[int, bool]:
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


def _check_timestamp(timestamp_ms: Any) -> None:
    if isinstance(timestamp_ms, bool) or not isinstance(timestamp_ms, int) or not 0 <= timestamp_ms < TIMESTAMP_BOUND:
        raise ConfigError(f"timestamp_ms must be milliseconds since 1970, such as 1700000000000, not {timestamp_ms!r}")


def _check_level(codec: int, level: Any) -> None:
    """Raises ConfigError for a level that the codec does not have."""
    if level is None:
        return
    builder = BatchBuilder()
    builder.append(0, None, b"x")
    try:
        builder.build(codec=codec, level=level)
    except (ValueError, TypeError, OverflowError, zlib.error) as error:
        raise ConfigError(f"compression_level={level!r} is not a level of {CODEC_NAMES[codec]}: {error}") from error


def _as_headers(headers: HeadersArgument) -> tuple[tuple[str, bytes | None], ...]:
    """Pairs of name and bytes, checked. Raises TypeError."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    checked = []
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise TypeError(f"headers must be a mapping or pairs of name and bytes, not {pair!r}")
        name, value = pair
        name.encode()  # raises here what would spoil a batch
        checked.append((name, None if value is None else _as_bytes("header value", value)))
    return tuple(checked)
