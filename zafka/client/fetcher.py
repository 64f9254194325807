"""The I/O side of a consumer: fetches ahead of the reader, one request per broker, within a bound.

Owns: where each assigned partition is read (`Reading`), and the fetched bytes that wait to be decoded (`Chunk`).
Fetching happens in the I/O thread, decoding in the user's; `ready` is the lock between them.
Invariants: the chunks of a partition are in order of offsets; a chunk whose `generation` is not its reading's is never
handed out (the user has seeked since); a partition is fetched only while less than `partition_bytes` of it wait, and
nothing is while `BUFFERED_BYTES_MAX` wait in all, so memory is bounded.
"""

from __future__ import annotations

import logging
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from zafka.client.channel import Channel
from zafka.client.cluster import NEVER, Cluster
from zafka.client.errors import (
    BrokerRefused,
    NotSupportedYet,
    OffsetOutOfRange,
    ZafkaError,
    error_name,
    is_retriable,
)
from zafka.client.metrics import Histogram
from zafka.client.offsets import EARLIEST, list_offsets_request, read_offsets
from zafka.client.records import TopicPartition
from zafka.client.waiting import Signal, until
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import FetchPartition, FetchRequest, FetchResponse, FetchTopic, ListOffsetsResponse
from zafka.transport.kafka.messages.fetch import PartitionData

logger = logging.getLogger("zafka.client")

BACKOFF_FIRST_S = 0.02
BACKOFF_MAX_S = 1.0
PURPOSE = "fetch"  # a connection of its own: an answer may take `max_wait`, and nothing else should wait behind it
NOT_KNOWN = -1
# Of all partitions together, beside what one answer brings.
BUFFERED_BYTES_MAX = 64 * 1024 * 1024
# An answer that is about data comes sooner; one that waits for news may take `max_wait`.
OUTDATED_PATIENCE_S = 0.02

_BATCH_START = struct.Struct(">qi")  # base_offset, batch_length
_LAST_OFFSET_DELTA = struct.Struct(">i")


class Reading:
    """How one assigned partition is read. Guarded by `Fetcher.ready`."""

    __slots__ = (
        "buffered_bytes", "error", "failures", "generation", "high_watermark", "next_fetch", "next_read", "paused",
        "replica", "replica_until_s", "reset_to", "retry_at_s", "unknown_since_s", "where",
    )  # fmt: skip

    def __init__(self, where: TopicPartition, reset_to: int | None) -> None:
        self.where = where
        self.generation = 0  # changes when the user moves the position
        self.reset_to = reset_to  # timestamp whose offset is where to begin; None once that is known
        self.next_fetch = NOT_KNOWN
        self.next_read = NOT_KNOWN  # offset that the user gets next
        self.high_watermark = NOT_KNOWN
        self.paused = False
        self.replica = NOT_KNOWN  # a broker nearer by that the leader named (KIP-392)
        self.replica_until_s = 0.0
        self.buffered_bytes = 0
        self.retry_at_s = 0.0
        self.failures = 0
        self.unknown_since_s = 0.0
        self.error: ZafkaError | None = None  # reading stopped; the user is to be told

    def __repr__(self) -> str:
        topic, partition = self.where
        return f"<Reading {topic}-{partition} next={self.next_read} fetch={self.next_fetch} hw={self.high_watermark}>"

    def move(self, offset: int, reset_to: int | None) -> None:
        """Go on at `offset`, or at what `reset_to` turns out to be."""
        self.generation += 1
        self.next_fetch = self.next_read = offset
        self.reset_to = reset_to
        self.buffered_bytes = 0
        self.retry_at_s = 0.0
        self.error = None


class Chunk(NamedTuple):
    """Fetched bytes: whole batches, the first of which contains `offset`, then perhaps a part of one."""

    reading: Reading
    generation: int
    offset: int
    records: memoryview


@dataclass(slots=True)
class FetchOptions:
    """Sizes in bytes, times in seconds. reset_to: EARLIEST, LATEST or None, when an offset is out of range."""

    reset_to: int | None
    min_bytes: int
    max_bytes: int
    partition_bytes: int
    max_wait: float
    request_timeout: float
    rack: str = ""


@dataclass(slots=True)
class Flight:
    """What one broker owes an answer for: readings with their generations."""

    sent: dict[TopicPartition, tuple[Reading, int]]
    sent_s: float
    outdated_at_s: float = NEVER  # since when something else than this is wanted
    dropped: bool = False

    def covers(self, reading: Reading) -> bool:
        return self.sent.get(reading.where) == (reading, reading.generation)


class Fetcher:
    """See the module."""

    def __init__(self, cluster: Cluster, options: FetchOptions, wake: Callable[[], None]) -> None:
        self._cluster = cluster
        self._options = options
        self._wake = wake
        self.ready = Signal()
        self.readings: dict[TopicPartition, Reading] = {}
        self.chunks: deque[Chunk] = deque()
        self.failed: deque[Reading] = deque()
        self.ended: ZafkaError | None = None
        self.interrupted = False  # the reader has something else to do first, and says False before it looks
        self._subscribed: set[str] = set()
        self._seen_metadata = -1
        self._flights: dict[int, Flight] = {}  # by broker
        self.requests_sent = self.errors = 0
        self.latency = Histogram()

    # -- in the user's thread --------------------------------------------------------------------

    def assign(self, partitions: Mapping[TopicPartition, int | None], subscribed: Iterable[str] = ()) -> None:
        """Read these partitions from now on, each from what its timestamp stands for. New partitions of
        `subscribed` topics are added, from their beginning, as they appear."""
        with self.ready:
            for reading in self.readings.values():
                reading.move(NOT_KNOWN, None)  # what is on its way is stale
            self.readings = {where: Reading(where, reset_to) for where, reset_to in partitions.items()}
            self.chunks.clear()
            self.failed.clear()
            self._subscribed = set(subscribed)
        self._wake()

    def change(self, dropped: Iterable[TopicPartition], added: Mapping[TopicPartition, int]) -> None:
        """Stop reading some partitions, begin to read others at an offset, or where a reader begins if it is NOT_KNOWN."""
        with self.ready:
            for where in dropped:
                self.readings.pop(where).move(NOT_KNOWN, None)  # what is on its way is stale
            for where, offset in added.items():
                reading = self.readings[where] = Reading(where, None)
                reading.move(offset, self._options.reset_to if offset == NOT_KNOWN else None)
            self._drop_stale()
            self.failed = deque(reading for reading in self.failed if self.readings.get(reading.where) is reading)
            self._subscribed = set()
        self._wake()

    def interrupt(self) -> None:
        """Have the reader look after something else before it reads on. From any thread."""
        with self.ready:
            self.interrupted = True
            self.ready.notify_all()

    def move(self, where: TopicPartition, offset: int, reset_to: int | None = None) -> None:
        with self.ready:
            self.readings[where].move(offset, reset_to)
            self._drop_stale()
        self._wake()

    def pause(self, where: TopicPartition, next_read: int) -> None:
        """Stop fetching; what was fetched ahead is forgotten and fetched again after `resume`."""
        with self.ready:
            reading = self.readings[where]
            reading.paused = True
            if next_read != NOT_KNOWN:
                reading.move(next_read, None)
            self._drop_stale()

    def resume(self, where: TopicPartition) -> None:
        with self.ready:
            self.readings[where].paused = False
        self._wake()

    def _drop_stale(self) -> None:
        self.chunks = deque(chunk for chunk in self.chunks if chunk.generation == chunk.reading.generation)

    async def next_chunk(self, deadline_s: float, holds_some: bool = False) -> Chunk | None:
        """The next fetched bytes, or None if none come in time, or if the reader is interrupted.

        Raises the error of a partition that failed, unless the reader holds records that it has to hand out first."""
        await until(self.ready, lambda: self.interrupted or self.chunks or self.failed or self.ended or None, deadline_s)
        chunk = None if self.interrupted else self._take_chunk(holds_some)
        if chunk is not None:
            self._wake()
        return chunk

    def _take_chunk(self, holds_some: bool) -> Chunk | None:
        if self.ended is not None and not self.failed:
            raise self.ended  # before the lock: after a fork somebody may hold it for ever
        with self.ready:
            if self.failed:
                if holds_some:
                    return None
                error = self.failed.popleft().error
                if error is not None:
                    raise error
            if self.ended is not None:
                raise self.ended
            if not self.chunks:
                return None
            chunk = self.chunks.popleft()
            chunk.reading.buffered_bytes -= len(chunk.records)
            return chunk

    @property
    def buffered_bytes(self) -> int:
        with self.ready:
            return sum(len(chunk.records) for chunk in self.chunks)

    # -- in the I/O thread -----------------------------------------------------------------------

    def turn(self, now_s: float) -> float:
        """Send what is to be fetched; returns when to be called again at the latest."""
        with self.ready:
            if self._cluster.metadata_count != self._seen_metadata:
                self._seen_metadata = self._cluster.metadata_count
                self._add_new_partitions()
            by_leader, wake_s = self._group_by_leader(now_s)
            sends = []
            for leader, readings in by_leader.items():
                flight = self._flights.get(leader)
                if flight is not None:
                    wake_s = min(wake_s, self._look_at_flight(leader, flight, readings, now_s))
                channel = self._cluster.channel(leader, PURPOSE)
                if channel is None or leader in self._flights:
                    continue
                if resets := [reading for reading in readings if reading.reset_to is not None]:
                    sends.append(partial(self._send_resets, leader, channel, resets))
                elif hungry := self._hungry(readings):
                    sends.append(partial(self._send_fetch, leader, channel, hungry))
            for send in sends:
                send()
        return wake_s

    def end(self, error: ZafkaError) -> None:
        with self.ready:
            self.ended = error
            self.ready.notify_all()

    def _add_new_partitions(self) -> None:
        for name in self._subscribed:
            topic = self._cluster.topics.get(name)
            for partition in range(len(topic.leaders) if topic is not None else 0):
                where = TopicPartition(name, partition)
                if where not in self.readings:
                    logger.info("new partition %s-%d", name, partition)
                    self.readings[where] = Reading(where, EARLIEST)

    def _group_by_leader(self, now_s: float) -> tuple[dict[int, list[Reading]], float]:
        by_leader: dict[int, list[Reading]] = {}
        wake_s = NEVER
        for reading in self.readings.values():
            if reading.error is not None or (reading.paused and reading.reset_to is None):
                continue
            if now_s < reading.retry_at_s:
                wake_s = min(wake_s, reading.retry_at_s)
                continue
            leader = self._source(reading, now_s)
            if leader >= 0:
                reading.unknown_since_s = 0.0
                by_leader.setdefault(leader, []).append(reading)
            else:
                wake_s = min(wake_s, self._wait_for_leader(reading, now_s))
        return by_leader, wake_s

    def _source(self, reading: Reading, now_s: float) -> int:
        """The broker to read from: the replica that the leader named, for a while, or the leader."""
        if reading.replica != NOT_KNOWN and reading.reset_to is None:
            if now_s < reading.replica_until_s and reading.replica in self._cluster.brokers:
                return reading.replica
            reading.replica = NOT_KNOWN
        return self._cluster.leader(*reading.where)

    def _wait_for_leader(self, reading: Reading, now_s: float) -> float:
        """Nobody leads the partition: ask again, and give up if its topic stays away."""
        self._cluster.refresh_soon()
        reading.unknown_since_s = reading.unknown_since_s or now_s
        if reading.where.topic in self._cluster.topic_errors:
            give_up_s = reading.unknown_since_s + self._options.request_timeout
            if now_s >= give_up_s:
                self._fail(reading, self._cluster.unknown_topic(reading.where.topic))
            return give_up_s
        return NEVER

    def _look_at_flight(self, leader: int, flight: Flight, readings: list[Reading], now_s: float) -> float:
        """Give up a request that waits for news while the user has moved elsewhere. Returns when to look again."""
        wanted = [reading for reading in readings if reading.reset_to is not None] or self._hungry(readings)
        if all(flight.covers(reading) for reading in wanted):
            return NEVER
        flight.outdated_at_s = min(flight.outdated_at_s, now_s)
        give_up_s = flight.outdated_at_s + OUTDATED_PATIENCE_S
        if now_s < give_up_s:
            return give_up_s
        flight.dropped = True
        self._cluster.drop_channel(leader, PURPOSE, "the reader moved on")
        return NEVER

    def _hungry(self, readings: list[Reading]) -> list[Reading]:
        """Partitions to fetch. While some wait to be read, only those that are known to have more: a request
        that waits for news would keep the others, once they are read, from being fetched."""
        limit = self._options.partition_bytes
        if sum(len(chunk.records) for chunk in self.chunks) >= BUFFERED_BYTES_MAX:
            return []
        hungry = [reading for reading in readings if reading.buffered_bytes < limit]
        if len(hungry) < len(readings):
            hungry = [reading for reading in hungry if reading.next_fetch < reading.high_watermark]
        return hungry

    def _send_fetch(self, leader: int, channel: Channel, readings: list[Reading]) -> None:
        options = self._options
        topics: dict[str, FetchTopic] = {}
        for reading in readings:
            name, partition = reading.where
            topic = topics.setdefault(name, FetchTopic(topic=name, partitions=[]))
            topic.partitions.append(
                FetchPartition(
                    partition=partition, fetch_offset=reading.next_fetch, partition_max_bytes=options.partition_bytes
                )
            )
        request = FetchRequest(
            max_wait_ms=int(options.max_wait * 1000),
            min_bytes=options.min_bytes,
            max_bytes=options.max_bytes,
            rack_id=options.rack,
            topics=list(topics.values()),
        )
        flight = self._take_off(leader, readings)
        self.requests_sent += 1
        timeout_s = options.request_timeout + options.max_wait
        channel.send(ApiKey.FETCH, request, partial(self._on_fetched, leader, flight), timeout_s)

    def _take_off(self, leader: int, readings: list[Reading]) -> Flight:
        flight = Flight({reading.where: (reading, reading.generation) for reading in readings}, time.monotonic())
        self._flights[leader] = flight
        return flight

    def _on_fetched(self, leader: int, flight: Flight, answer: FetchResponse | None, error: ZafkaError | None) -> None:
        del self._flights[leader]
        self._wake()
        if flight.dropped:
            return
        now_s = time.monotonic()
        self.latency.add(now_s - flight.sent_s)
        sent = flight.sent
        with self.ready:
            if answer is None or answer.error_code:
                self.errors += 1
                why = str(error) if answer is None else error_name(answer.error_code)
                for reading, _ in sent.values():
                    if isinstance(error, NotSupportedYet):
                        self._fail(reading, error)
                    else:
                        self._retry(reading, why, now_s)
                return
            for topic in answer.responses:
                for part in topic.partitions:
                    where = TopicPartition(topic.topic, part.partition_index)
                    asked = sent.get(where)
                    if asked is not None and asked[0].generation == asked[1]:
                        self._on_partition(asked[0], part, now_s)
            if self.chunks or self.failed:
                self.ready.notify_all()

    def _on_partition(self, reading: Reading, part: PartitionData, now_s: float) -> None:
        if part.error_code:
            self._on_error(reading, part.error_code, now_s)
            return
        if part.preferred_read_replica >= 0:
            reading.replica = part.preferred_read_replica
            reading.replica_until_s = now_s + self._cluster.settings.metadata_max_age
        reading.failures = 0
        reading.high_watermark = part.high_watermark
        records = part.records
        if records is None or not len(records):
            return
        next_offset = next_offset_of(records)
        if next_offset == NOT_KNOWN:
            why = f"{self._options.partition_bytes} bytes do not hold the batch at offset {reading.next_fetch}"
            self._fail(reading, BrokerRefused(f"{reading.where}", ErrorCode.MESSAGE_TOO_LARGE, why))
            return
        self.chunks.append(Chunk(reading, reading.generation, reading.next_fetch, records))
        reading.buffered_bytes += len(records)
        reading.next_fetch = max(reading.next_fetch, next_offset)
        # To the end of the next request, so that busy partitions do not starve the others.
        if self.readings.get(reading.where) is reading:
            del self.readings[reading.where]
            self.readings[reading.where] = reading

    def _on_error(self, reading: Reading, code: int, now_s: float) -> None:
        self.errors += 1
        topic, partition = reading.where
        if reading.replica != NOT_KNOWN:
            self._retry(reading, error_name(code), now_s)  # the leader knows better
        elif code == ErrorCode.OFFSET_OUT_OF_RANGE:
            if self._options.reset_to is not None:
                logger.warning("%s-%d has no offset %d: reset", topic, partition, reading.next_fetch)
                reading.move(NOT_KNOWN, self._options.reset_to)
                return
            text = f"{topic}-{partition} has no offset {reading.next_fetch}; seek, or set auto_offset_reset"
            self._fail(reading, OffsetOutOfRange(text))
        elif is_retriable(code):
            self._retry(reading, error_name(code), now_s)
        else:
            self._fail(reading, BrokerRefused(f"{topic}-{partition} cannot be read", code))

    def _retry(self, reading: Reading, why: str, now_s: float) -> None:
        logger.info("%s-%d: %s", *reading.where, why)
        reading.replica = NOT_KNOWN
        reading.failures += 1
        reading.retry_at_s = now_s + min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(reading.failures - 1, 10))
        self._cluster.refresh_soon()

    def _fail(self, reading: Reading, error: ZafkaError) -> None:
        reading.error = error
        self.failed.append(reading)
        self.ready.notify_all()

    # -- where to begin --------------------------------------------------------------------------

    def _send_resets(self, leader: int, channel: Channel, readings: list[Reading]) -> None:
        wanted = {reading.where: reading.reset_to for reading in readings if reading.reset_to is not None}
        on_answer = partial(self._on_resets, leader, self._take_off(leader, readings))
        channel.send(ApiKey.LIST_OFFSETS, list_offsets_request(wanted), on_answer, self._options.request_timeout)

    def _on_resets(
        self, leader: int, flight: Flight, answer: ListOffsetsResponse | None, error: ZafkaError | None
    ) -> None:
        del self._flights[leader]
        self._wake()
        if flight.dropped:
            return
        now_s = time.monotonic()
        found, errors = ({}, {}) if answer is None else read_offsets(answer)
        with self.ready:
            for where, (reading, generation) in flight.sent.items():
                if reading.generation != generation:
                    continue
                if where in found:
                    reading.next_fetch = reading.next_read = found[where].offset
                    reading.reset_to = None
                elif where in errors:
                    self._on_error(reading, errors[where], now_s)
                else:
                    self._retry(reading, str(error), now_s)
            self.ready.notify_all()


def next_offset_of(records: memoryview) -> int:
    """The offset after the last whole batch in fetched bytes, or NOT_KNOWN if there is no whole one."""
    position = 0
    last = NOT_KNOWN
    end = len(records)
    while end - position >= 61:
        length = _BATCH_START.unpack_from(records, position)[1]
        if length < 49 or position + 12 + length > end:
            break
        last = position
        position += 12 + length
    if last == NOT_KNOWN:
        return NOT_KNOWN
    base_offset, _ = _BATCH_START.unpack_from(records, last)
    return int(base_offset) + int(_LAST_OFFSET_DELTA.unpack_from(records, last + 23)[0]) + 1
