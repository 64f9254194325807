"""What `Consumer` and `AsyncConsumer` share: all but the waiting.

Owns: arguments and their checking, the reader's position, decoding. Fetching goes on ahead in `fetcher.py`.
What has to wait is a coroutine of steps (waiting.py). Not safe to use from several threads or tasks at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import length_hint
from typing import Any

from msgspec import structs

from zafka.client.core import (
    Core,
    check_choice,
    check_count,
    check_seconds,
    list_topics,
    make_settings,
)
from zafka.client.errors import (
    BrokerRefused,
    ClientClosed,
    ConfigError,
    CorruptRecords,
    NotSupportedYet,
    RequestTimedOut,
    UnknownTopic,
    ZafkaError,
    error_name,
    is_retriable,
)
from zafka.client.fetcher import NOT_KNOWN, Chunk, Fetcher, FetchOptions, Reading
from zafka.client.interceptors import ON_CONSUME, make_interceptors
from zafka.client.life import ClientBase
from zafka.client.metrics import ConsumerMetrics
from zafka.client.offsets import EARLIEST, LATEST, list_offsets_request, read_offsets
from zafka.client.records import OffsetAndTimestamp, Record, TopicPartition
from zafka.client.waiting import until
from zafka.storage.batch import BatchHeader, walk
from zafka.storage.errors import BadBatch
from zafka.storage.records import decode_batch_as
from zafka.transport.kafka.api_keys import ApiKey

RESETS = {"earliest": EARLIEST, "latest": LATEST, "none": None}
RETRY_S = 0.05
FOREVER_STEP_S = 5.0  # an endless wait looks up this often

Partitions = Iterable[TopicPartition | tuple[str, int]]


class ConsumerBase(ClientBase):
    """Read topics.

    Through a ZeroMQ door (`tcp://host:port`, `ipc://path`) or by Kafka's protocol (`host:port`), Apache Kafka included.

    topics: names; all their partitions are read, also ones that are added later. Without topics, use `assign`.
    bootstrap_servers: one address or several; without it ZAFKA_BOOTSTRAP_ZMQ, ZAFKA_BOOTSTRAP or 127.0.0.1:9092.
    auto_offset_reset: where to begin, and what to do with an offset that is not there: "latest" (default), "earliest",
        or "none" (begin needs `seek`; a missing offset raises OffsetOutOfRange).
    group_id, isolation_level="read_committed": consumer groups and transactions are not supported yet.
    fetch_max_bytes, max_partition_fetch_bytes: bounds of one answer; memory is about twice the second per partition.
    fetch_min_bytes, fetch_max_wait: a broker answers when so many bytes are there, or after so many seconds.
    api_timeout: seconds for methods that ask brokers, such as `end_offsets`. check_crcs: verify what comes.
    key_deserializer, value_deserializer: functions over the bytes of each key and value.
    interceptors: objects with `on_consume(records) -> records`, called with each list of records of one partition before
        they are handed out; what they leave out is not. What they raise is only logged.
    client_id: how brokers' logs name this client. metadata_max_age: seconds until the cluster is asked about itself anew.
    request_timeout: seconds for one answer. bootstrap_timeout: seconds until NoBroker if nobody answers at first;
        connect_timeout: for one connection.
    Raises NoBroker, UnknownTopic, ConfigError, NotSupportedYet.
    """

    def __init__(
        self,
        *topics: str,
        bootstrap_servers: str | Iterable[str] | None = None,
        group_id: str | None = None,
        auto_offset_reset: str = "latest",
        isolation_level: str = "read_uncommitted",
        fetch_min_bytes: int = 1,
        fetch_max_bytes: int = 16 * 1024 * 1024,
        max_partition_fetch_bytes: int = 1024 * 1024,
        fetch_max_wait: float = 0.5,
        check_crcs: bool = True,
        key_deserializer: Any = None,
        value_deserializer: Any = None,
        interceptors: Iterable[Any] | None = None,
        client_id: str = "zafka-consumer",
        api_timeout: float = 30.0,
        request_timeout: float = 30.0,
        bootstrap_timeout: float = 3.0,
        connect_timeout: float = 10.0,
        metadata_max_age: float = 300.0,
    ) -> None:
        if group_id is not None:
            raise NotSupportedYet(
                f"group_id={group_id!r}: consumer groups are not supported yet; without a group_id "
                f"a consumer reads all partitions of its topics, and assign() reads chosen ones"
            )
        check_choice("auto_offset_reset", auto_offset_reset, RESETS)
        if isolation_level != "read_uncommitted":
            raise NotSupportedYet(f"isolation_level={isolation_level!r}: transactions are not supported yet")
        self._reset = RESETS[auto_offset_reset]
        self._check_crcs = check_crcs
        self._api_timeout = check_seconds("api_timeout", api_timeout)
        self._key_deserializer = key_deserializer
        self._value_deserializer = value_deserializer
        self._interceptors = make_interceptors(interceptors, ON_CONSUME)
        settings = make_settings(
            bootstrap_servers,
            client_id=client_id,
            bootstrap_timeout=bootstrap_timeout,
            connect_timeout=connect_timeout,
            request_timeout=request_timeout,
            metadata_max_age=metadata_max_age,
        )
        options = FetchOptions(
            reset_to=self._reset,
            min_bytes=check_count("fetch_min_bytes", fetch_min_bytes, 0),
            max_bytes=check_count("fetch_max_bytes", fetch_max_bytes),
            partition_bytes=check_count("max_partition_fetch_bytes", max_partition_fetch_bytes),
            max_wait=check_seconds("fetch_max_wait", fetch_max_wait),
            request_timeout=request_timeout,
        )
        self._core = Core("consumer", settings)
        self._fetcher = Fetcher(self._core.cluster, options, self._core.io.wake)
        self._topics = topics
        self._records_read = self._bytes_read = self._batches_read = 0
        self._forget_current()
        self._begin()

    async def _start(self) -> None:
        await self._core.start(self._fetcher)
        self._opened()
        if self._topics:
            try:
                await self._subscribe(self._topics)
            except BaseException:
                self._shut()
                raise

    def _forget_current(self) -> None:
        """The chunk that is being read, its decoded batch, and what of that was not handed out yet."""
        self._chunk: Chunk | None = None
        self._batches: Iterator[tuple[int, BatchHeader]] = iter(())
        self._records: list[Record] = []
        self._rest: Iterator[Record] = iter(())
        self._after = NOT_KNOWN  # offset after the decoded batch

    def __repr__(self) -> str:
        where = ",".join(map(str, self._core.settings.bootstrap))
        count = len(self._fetcher.readings)
        return f"<{type(self).__name__} {where} {'closed' if self._closed else f'{count} partitions'}>"

    # -- what to read ----------------------------------------------------------------------------

    async def _subscribe(self, topics: tuple[str, ...]) -> None:
        if not topics:
            raise ConfigError("subscribe needs at least one topic")
        await self._core.wait_for_topics(topics, self._api_timeout)
        known = self._core.cluster.topics
        wanted = {
            TopicPartition(name, partition): self._reset
            for name in topics
            for partition in range(len(known[name].leaders))
        }
        self._forget_current()
        self._fetcher.assign(wanted, topics)

    async def _assign(self, partitions: Partitions) -> None:
        wanted = {await self._existing(where): self._reset for where in partitions}
        self._forget_current()
        self._fetcher.assign(wanted)

    def assignment(self) -> set[TopicPartition]:
        """The partitions that are read."""
        return set(self._fetcher.readings)

    async def _all_topics(self) -> set[str]:
        return set(await list_topics(self._core, self._api_timeout))

    async def _partitions_for_topic(self, topic: str) -> set[int]:
        await self._core.wait_for_topics([topic], self._api_timeout)
        return set(range(len(self._core.cluster.topics[topic].leaders)))

    async def _existing(self, where: TopicPartition | tuple[str, int]) -> TopicPartition:
        """A partition that the brokers know."""
        if not isinstance(where, tuple) or len(where) != 2:
            raise ConfigError(f"a partition is a TopicPartition or a pair such as ('orders', 0), not {where!r}")
        topic, partition = where
        count = len(await self._partitions_for_topic(topic))
        if isinstance(partition, bool) or not isinstance(partition, int) or not 0 <= partition < count:
            raise UnknownTopic(f"{topic} has partitions 0 to {count - 1}, not {partition!r}")
        return TopicPartition(topic, partition)

    # -- where to read ---------------------------------------------------------------------------

    def seek(self, partition: TopicPartition | tuple[str, int], offset: int) -> None:
        """Go on reading an assigned partition at `offset`."""
        check_count("offset", offset, 0)
        self._move(partition, offset, None)

    def seek_to_beginning(self, *partitions: TopicPartition | tuple[str, int]) -> None:
        """Go on at the first offset of these partitions, or of all that are assigned."""
        for where in partitions or self.assignment():
            self._move(where, NOT_KNOWN, EARLIEST)

    def seek_to_end(self, *partitions: TopicPartition | tuple[str, int]) -> None:
        """Go on with what comes after now in these partitions, or in all that are assigned."""
        for where in partitions or self.assignment():
            self._move(where, NOT_KNOWN, LATEST)

    def _move(self, partition: TopicPartition | tuple[str, int], offset: int, reset_to: int | None) -> None:
        where = self._reading(partition).where
        if self._chunk is not None and self._chunk.reading.where == where:
            self._forget_current()
        self._fetcher.move(where, offset, reset_to)

    def _reading(self, partition: TopicPartition | tuple[str, int]) -> Reading:
        reading = self._fetcher.readings.get(TopicPartition(*partition))
        if reading is None:
            raise ConfigError(f"{partition[0]}-{partition[1]} is not assigned to this consumer")
        return reading

    def _current_position(self, reading: Reading) -> int:
        """The offset of the next record that is handed out, or NOT_KNOWN."""
        if self._chunk is not None and self._chunk.reading is reading:
            left = length_hint(self._rest)
            return self._records[-left].offset if left else self._after
        return reading.next_read

    async def _position(self, partition: TopicPartition | tuple[str, int], timeout: float | None) -> int:
        reading = self._reading(partition)
        limit_s = self._api_timeout if timeout is None else timeout

        def look() -> int | None:
            if (position := self._current_position(reading)) != NOT_KNOWN:
                return position
            if reading.error is not None:
                raise reading.error
            if self._fetcher.ended is not None:
                raise ClientClosed(str(self._fetcher.ended))
            return None

        position = await until(self._fetcher.ready, look, time.monotonic() + limit_s)
        if position is None:
            raise RequestTimedOut(f"the position in {partition[0]}-{partition[1]} is not known after {limit_s:g} s")
        return position

    def pause(self, *partitions: TopicPartition | tuple[str, int]) -> None:
        """Hand out nothing of these partitions until `resume`; their positions stay."""
        for partition in partitions:
            reading = self._reading(partition)
            next_read = reading.next_read
            if self._chunk is not None and self._chunk.reading is reading:
                next_read = self._current_position(reading)
                self._forget_current()
            self._fetcher.pause(reading.where, next_read)

    def resume(self, *partitions: TopicPartition | tuple[str, int]) -> None:
        """Go on with what was paused."""
        for partition in partitions:
            self._fetcher.resume(self._reading(partition).where)

    def paused(self) -> set[TopicPartition]:
        """The partitions that are paused."""
        return {where for where, reading in self._fetcher.readings.items() if reading.paused}

    async def _offsets_at(self, partitions: Partitions, at: int, timeout: float | None) -> dict[TopicPartition, int]:
        wanted = {await self._existing(where): at for where in partitions}
        found = await self._list_offsets(wanted, timeout)
        return {where: at.offset for where, at in found.items()}

    async def _offsets_for_times(
        self, timestamps_ms: Mapping[TopicPartition | tuple[str, int], int], timeout: float | None
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        wanted = {await self._existing(where): check_count("timestamp", at, 0) for where, at in timestamps_ms.items()}
        found = await self._list_offsets(wanted, timeout)
        return {where: None if at.offset < 0 else at for where, at in found.items()}

    async def _list_offsets(
        self, wanted: dict[TopicPartition, int], timeout: float | None
    ) -> dict[TopicPartition, OffsetAndTimestamp]:
        """Ask the leaders, again and again for those that cannot say yet."""
        limit_s = self._api_timeout if timeout is None else check_seconds("timeout", timeout)
        deadline_s = time.monotonic() + limit_s
        cluster = self._core.cluster
        results: dict[TopicPartition, OffsetAndTimestamp] = {}
        problem = "no leader"
        while len(results) < len(wanted):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise RequestTimedOut(
                    f"offsets of {len(wanted) - len(results)} partitions not known after {limit_s:g} s: {problem}"
                )
            by_leader: dict[int, dict[TopicPartition, int]] = {}
            for where, timestamp in wanted.items():
                if where not in results and (leader := cluster.leader(*where)) >= 0:
                    by_leader.setdefault(leader, {})[where] = timestamp
            answers = [
                self._core.begin_ask(leader, ApiKey.LIST_OFFSETS, list_offsets_request(part), left_s)
                for leader, part in by_leader.items()
            ]
            for answer in await self._core.await_all(answers, left_s):
                found, errors = read_offsets(answer)
                results |= found
                for where, code in errors.items():
                    problem = error_name(code)
                    if not is_retriable(code):
                        raise BrokerRefused(f"no offsets of {where.topic}-{where.partition}", code)
            if len(results) < len(wanted):
                self._core.io.call(cluster.refresh_soon)
                await self._core.sleep(RETRY_S)
        return {where: results[where] for where in wanted}

    # -- reading ---------------------------------------------------------------------------------

    async def _poll(self, timeout: float, max_records: int) -> list[Record]:
        check_count("max_records", max_records)
        records = list(islice(self._rest, max_records))
        while len(records) < max_records and await self._advance(0.0 if records else timeout):
            records += islice(self._rest, max_records - len(records))
        return records

    async def _advance(self, timeout: float | None) -> bool:
        """Decode the next batch that has records for us into `_rest`. False if none comes in time."""
        deadline_s = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            if self._chunk is not None:
                if self._after != NOT_KNOWN:
                    self._chunk.reading.next_read = self._after
                if self._decode_next(self._chunk):
                    return True
                self._forget_current()
            self._core.check_alive()
            chunk = await self._fetcher.next_chunk(min(time.monotonic() + FOREVER_STEP_S, deadline_s))
            if chunk is not None:
                self._chunk = chunk
                self._batches = walk(chunk.records, check_crc=self._check_crcs)
            elif time.monotonic() >= deadline_s:
                return False

    def _decode_next(self, chunk: Chunk) -> bool:
        """Decode one batch of the chunk; False at its end."""
        topic, partition = chunk.reading.where
        try:
            for position, header in self._batches:
                self._after = max(header.next_offset, chunk.offset)
                if header.is_control or header.next_offset <= chunk.offset:
                    continue
                make = _record_maker(topic, partition, header.timestamp_type)
                self._records = decode_batch_as(make, chunk.records[position:], header, from_offset=chunk.offset)
                if self._key_deserializer is not None or self._value_deserializer is not None:
                    self._records = [self._deserialized(record) for record in self._records]
                self._records_read += len(self._records)
                if self._interceptors is not None:
                    self._records = self._interceptors.on_consume(self._records)
                self._rest = iter(self._records)
                if self._records:
                    self._bytes_read += header.size_bytes
                    self._batches_read += 1
                    return True
        except BadBatch as error:
            raise self._corrupt(chunk, error) from error
        return False

    def _corrupt(self, chunk: Chunk, error: BadBatch) -> ZafkaError:
        topic, partition = chunk.reading.where
        at = max(self._after, chunk.offset)
        # Where we are stays: what comes next is the same error, not records with a hole before them.
        self._forget_current()
        self._fetcher.move(chunk.reading.where, at)
        return CorruptRecords(f"{topic}-{partition} at offset {at}: {error}")

    def _deserialized(self, record: Record) -> Record:
        key, value = record.key, record.value
        if self._key_deserializer is not None and key is not None:
            key = self._key_deserializer(key)
        if self._value_deserializer is not None and value is not None:
            value = self._value_deserializer(value)
        return structs.replace(record, key=key, value=value)

    def metrics(self) -> ConsumerMetrics:
        """What this consumer has done so far, and how far each partition is behind its end."""
        fetcher = self._fetcher
        lag = {}
        for where, reading in fetcher.readings.items():
            position = self._current_position(reading)
            is_known = position != NOT_KNOWN and reading.high_watermark != NOT_KNOWN
            lag[where] = max(0, reading.high_watermark - position) if is_known else NOT_KNOWN
        return ConsumerMetrics(
            records=self._records_read,
            bytes=self._bytes_read,
            batches=self._batches_read,
            requests=fetcher.requests_sent,
            errors=fetcher.errors,
            connections_lost=self._core.cluster.connections_lost,
            buffered_bytes=fetcher.buffered_bytes,
            fetch_latency=fetcher.latency.latency(),
            lag=lag,
        )

    # -- the end ---------------------------------------------------------------------------------

    def end_after_fork(self, error: ZafkaError) -> None:
        super().end_after_fork(error)
        self._fetcher.ended = error


MakeRecord = Callable[[int, int, bytes | None, bytes | None, Sequence[tuple[str, bytes | None]]], Record]


def _record_maker(topic: str, partition: int, timestamp_type: int) -> MakeRecord:
    """What makes a Record of what differs between the records of one batch."""

    def make(
        offset: int, timestamp: int, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
    ) -> Record:
        return Record(topic, partition, offset, timestamp, timestamp_type, key, value, headers)

    return make
