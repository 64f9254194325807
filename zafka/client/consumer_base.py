"""What `Consumer` and `AsyncConsumer` share: all but the waiting.

Owns: arguments and their checking, the reader's position, decoding. Fetching goes on ahead in `fetcher.py`.
What has to wait is a coroutine of steps (waiting.py). Not safe to use from several threads or tasks at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain, islice
from operator import length_hint
from typing import Any

from msgspec import structs

from zafka.client.cluster import NEVER
from zafka.client.core import (
    Core,
    check_choice,
    check_count,
    check_seconds,
    list_topics,
    make_settings,
)
from zafka.client.errors import (
    ClientClosed,
    ConfigError,
    CorruptRecords,
    NotSupportedYet,
    RequestTimedOut,
    UnknownTopic,
    ZafkaError,
)
from zafka.client.fetcher import NOT_KNOWN, Chunk, Fetcher, FetchOptions, Reading
from zafka.client.group_arguments import check_name, group_options
from zafka.client.group_requests import check_offsets
from zafka.client.interceptors import ON_CONSUME, make_interceptors
from zafka.client.life import ClientBase
from zafka.client.membership import GroupMember, OnRebalance, Reader
from zafka.client.metrics import ConsumerMetrics
from zafka.client.offset_lookup import list_offsets
from zafka.client.offsets import EARLIEST, LATEST
from zafka.client.records import (
    OffsetAndMetadata,
    OffsetAndTimestamp,
    Offsets,
    Partitions,
    Record,
    TopicPartition,
    record_maker,
)
from zafka.client.waiting import until
from zafka.storage.batch import BatchHeader, walk
from zafka.storage.errors import BadBatch
from zafka.storage.records import decode_batch_as

RESETS = {"earliest": EARLIEST, "latest": LATEST, "none": None}
LEAVE_AT_EXIT_S = 1.0  # for a member's last word where nobody closed it


class ConsumerBase(ClientBase):
    """Read topics.

    Through a ZeroMQ door (`tcp://host:port`, `ipc://path`) or by Kafka's protocol (`host:port`), Apache Kafka included.

    topics: names; all their partitions are read, also ones that are added later. Without topics, use `assign`.
    bootstrap_servers: one address or several; without it ZAFKA_BOOTSTRAP_ZMQ, ZAFKA_BOOTSTRAP or 127.0.0.1:9092.
    auto_offset_reset: where to begin, and what to do with an offset that is not there: "latest" (default), "earliest",
        or "none" (begin needs `seek`; a missing offset raises OffsetOutOfRange).
    group_id: share the topics' partitions with the other consumers of this group, of whatever kind, and begin where the
        group has committed; with `assign` only the committed offsets are the group's.
    enable_auto_commit, auto_commit_interval: commit what was handed out by the call before, every so many seconds, before
        partitions change hands and at `close`. Without it, `commit`.
    group_protocol: "consumer", in which the broker shares (KIP-848): members keep what need not move, and with zafka a small
        group starts in 0.3 s; or "classic", in which a member does. By default "consumer", where the broker and the group take it and
        none of session_timeout, heartbeat_interval, partition_assignment_strategy and group_instance_id is given. One group
        may have members of both; it moves between them while it runs.
    group_remote_assignor: how the broker shares in "consumer": "uniform" or "range"; by default as it likes.
    max_poll_interval: seconds without reading until a consumer gives its partitions up itself.
    group_instance_id: a name that outlives the process (static membership): who comes back under it before its session is
        over gets its partitions back, and nobody else's move. In "consumer" it has to `close`, or its program to end, for
        that: after a crash its successor waits until the session is over.
    session_timeout: in "classic", seconds (45) without a heartbeat after which others get this consumer's partitions;
        heartbeat_interval: between two (3), which go on while a slow program works. In "consumer" the broker says both.
    partition_assignment_strategy: in "classic", "range" (default), "roundrobin", "sticky", "cooperative-sticky", or several,
        the preferred one first; all members need one in common.
    on_rebalance: a function that is called, while reading, with each `Rebalance`: what is assigned, revoked (can still be
        committed) or lost (cannot), and why.
    isolation_level="read_committed": transactions are not supported yet.
    fetch_max_bytes, max_partition_fetch_bytes: bounds of one answer; memory is about twice the second per partition.
    fetch_min_bytes, fetch_max_wait: a broker answers when so many bytes are there, or after so many seconds.
    api_timeout: seconds for methods that ask brokers, such as `end_offsets`. check_crcs: verify what comes.
    key_deserializer, value_deserializer: functions over the bytes of each key and value. Where one raises, so does the reading,
        after the records before that one and until `seek` goes past it: `position` says which one it is.
    interceptors: objects with `on_consume(records) -> records`, called with each list of records of one partition before
        they are handed out; what they leave out is not. What they raise is only logged.
    client_rack: where this consumer stands, in the words of the brokers' racks. Its group is told; and of a partition with
        replicas elsewhere it reads a near one, where the leader names one (Apache Kafka with `replica.selector.class`).
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
        enable_auto_commit: bool = True,
        auto_commit_interval: float = 5.0,
        group_protocol: str | None = None,
        group_remote_assignor: str | None = None,
        session_timeout: float | None = None,
        heartbeat_interval: float | None = None,
        max_poll_interval: float = 300.0,
        group_instance_id: str | None = None,
        partition_assignment_strategy: str | Iterable[str] | None = None,
        on_rebalance: OnRebalance | None = None,
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
        client_rack: str | None = None,
        api_timeout: float = 30.0,
        request_timeout: float = 30.0,
        bootstrap_timeout: float = 3.0,
        connect_timeout: float = 10.0,
        metadata_max_age: float = 300.0,
    ) -> None:
        check_choice("auto_offset_reset", auto_offset_reset, RESETS)
        if isolation_level != "read_uncommitted":
            raise NotSupportedYet(f"isolation_level={isolation_level!r}: transactions are not supported yet")
        if client_rack is not None:
            check_name("client_rack", client_rack, "eu-1a")
        self._reset = RESETS[auto_offset_reset]
        self._check_crcs = check_crcs
        self._api_timeout = check_seconds("api_timeout", api_timeout)
        self._key_deserializer = key_deserializer
        self._value_deserializer = value_deserializer
        self._interceptors = make_interceptors(interceptors, ON_CONSUME)
        self._core = Core("consumer", make_settings(
            bootstrap_servers, client_id=client_id, bootstrap_timeout=bootstrap_timeout, connect_timeout=connect_timeout,
            request_timeout=request_timeout, metadata_max_age=metadata_max_age))
        options = FetchOptions(
            reset_to=self._reset, min_bytes=check_count("fetch_min_bytes", fetch_min_bytes, 0),
            max_bytes=check_count("fetch_max_bytes", fetch_max_bytes),
            partition_bytes=check_count("max_partition_fetch_bytes", max_partition_fetch_bytes),
            max_wait=check_seconds("fetch_max_wait", fetch_max_wait), request_timeout=request_timeout,
            rack=client_rack or "")
        self._fetcher = Fetcher(self._core.cluster, options, self._core.io.wake)
        self._member: GroupMember | None = None
        if group_id is not None:
            group = group_options(
                group_id, protocol=group_protocol, remote_assignor=group_remote_assignor, instance_id=group_instance_id,
                strategies=partition_assignment_strategy, session_timeout=session_timeout,
                heartbeat_interval=heartbeat_interval, max_poll_interval=max_poll_interval, request_timeout=request_timeout,
                rack=client_rack)
            interval_s = check_seconds("auto_commit_interval", auto_commit_interval) if enable_auto_commit else NEVER
            self._member = GroupMember(
                self._core, self._fetcher, group, auto_commit_interval=interval_s, on_rebalance=on_rebalance,
                api_timeout=self._api_timeout)
        self._topics = topics
        self._records_read = self._bytes_read = self._batches_read = 0
        self._forget_current()
        self._begin()

    async def _start(self) -> None:
        await self._core.start(self._fetcher if self._member is None else self._member.session)
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

    async def _subscribe(self, topics: tuple[str, ...], pattern: str | None = None) -> None:
        if bool(topics) == (pattern is not None):
            raise ConfigError("subscribe needs at least one topic, or a pattern")
        if pattern is not None:
            await self._in_group().subscribe(self._reader(), (), pattern)
            return
        await self._core.wait_for_topics(topics, self._api_timeout)
        if self._member is not None:
            await self._member.subscribe(self._reader(), topics)
            return
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
        if self._member is not None:
            await self._member.assign(self._reader(), wanted)
            return
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

    # -- a group ---------------------------------------------------------------------------------

    def positions(self) -> dict[TopicPartition, int]:
        """For each assigned partition, the offset of the next record that is handed out, where that is known."""
        with self._fetcher.ready:
            readings = list(self._fetcher.readings.items())
        found = {where: self._current_position(reading) for where, reading in readings}
        return {where: position for where, position in found.items() if position != NOT_KNOWN}

    def _reader(self) -> Reader:
        return Reader(self.positions, self._forget)

    def _forget(self, partitions: Collection[TopicPartition]) -> None:
        """Hand out nothing more of what was fetched of these."""
        if self._chunk is not None and self._chunk.reading.where in partitions:
            self._forget_current()

    def lag(self) -> dict[TopicPartition, int]:
        """For each assigned partition, the records between what was handed out and its end, as of the last answer; -1 before."""
        return self.metrics().lag

    def _in_group(self) -> GroupMember:
        if self._member is None:
            raise ConfigError("this consumer has no group: make it with group_id=...")
        return self._member

    async def _commit(
        self, offsets: Offsets | None, wait: bool, timeout: float | None
    ) -> None:
        member = self._in_group()
        chosen = member.uncommitted(self.positions()) if offsets is None else check_offsets(offsets)
        if wait:
            await member.commit(chosen, timeout)
        else:
            await member.commit_soon(chosen)

    async def _committed(
        self, partitions: Partitions | None, timeout: float | None
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        chosen = sorted(self.assignment()) if partitions is None else [TopicPartition(*where) for where in partitions]
        return await self._in_group().committed(chosen, timeout)

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
        found = await list_offsets(self._core, wanted, self._limit_s(timeout))
        return {where: at.offset for where, at in found.items()}

    async def _offsets_for_times(
        self, timestamps_ms: Mapping[TopicPartition | tuple[str, int], int], timeout: float | None
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        wanted = {await self._existing(where): check_count("timestamp", at, 0) for where, at in timestamps_ms.items()}
        found = await list_offsets(self._core, wanted, self._limit_s(timeout))
        return {where: None if at.offset < 0 else at for where, at in found.items()}

    def _limit_s(self, timeout: float | None) -> float:
        return self._api_timeout if timeout is None else check_seconds("timeout", timeout)

    # -- reading ---------------------------------------------------------------------------------

    async def _poll(self, timeout: float, max_records: int) -> list[Record]:
        check_count("max_records", max_records)
        await self._attend()
        records = list(islice(self._rest, max_records))
        while len(records) < max_records:
            try:
                if not await self._advance(0.0 if records else timeout, bool(records)):
                    break
            except Exception:
                if not records:
                    raise
                break  # they are handed out first; whatever is wrong is raised again by the next poll
            records += islice(self._rest, max_records - len(records))
        return records

    async def _attend(self) -> None:
        """Look after the group, if it wants us."""
        if self._fetcher.interrupted and self._member is not None:
            await self._member.serve(self._reader())

    async def _advance(self, timeout: float | None, holds_some: bool = False) -> bool:
        """Decode the next batch that has records for us into `_rest`. False if none comes in time.

        holds_some: records are about to be handed out: partitions cannot change hands now, and what went wrong with others
        is told later."""
        deadline_s = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            if self._chunk is not None:
                if self._after != NOT_KNOWN:
                    self._chunk.reading.next_read = self._after
                if self._decode_next(self._chunk):
                    return True
                self._forget_current()
            self._core.check_alive()
            if self._fetcher.interrupted and self._member is not None:
                if holds_some:
                    return False
                await self._attend()
            chunk = await self._fetcher.next_chunk(deadline_s, holds_some)
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
                if header.is_control or header.next_offset <= chunk.offset:
                    self._after = max(header.next_offset, chunk.offset)
                    continue
                make = record_maker(topic, partition, header.timestamp_type)
                self._records = decode_batch_as(make, chunk.records[position:], header, from_offset=chunk.offset)
                self._after = header.next_offset
                if self._key_deserializer is not None or self._value_deserializer is not None:
                    self._deserialize(chunk, position, header)
                self._records_read += len(self._records)
                if self._interceptors is not None:
                    self._records = self._interceptors.on_consume(self._records)
                self._rest = iter(self._records)
                if self._records:
                    self._bytes_read += header.size_bytes
                    self._batches_read += 1
                if self._records or self._chunk is not chunk:  # what could not be deserialized is next
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

    def _deserialize(self, chunk: Chunk, position: int, header: BatchHeader) -> None:
        """Those of a batch before one for which it raises are handed out; then that one is the next, until the user moves."""
        records, self._records = self._records, []
        try:
            for record in records:
                self._records.append(self._deserialized(record))
        except Exception:
            self._after = records[len(self._records)].offset
            self._chunk = chunk._replace(offset=self._after)
            self._batches = chain([(position, header)], self._batches)
            if not self._records:
                raise

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

    async def _close(self) -> None:
        try:
            if self._member is not None and not self._closed and self._core.ended is None:
                await self._member.leave(self._reader())
        finally:
            await super()._close()

    def close_at_exit(self) -> None:
        if self._member is None:
            super().close_at_exit()
        else:
            self._closed = True
            self._retire()

    def end_after_fork(self, error: ZafkaError) -> None:
        super().end_after_fork(error)
        self._fetcher.ended = error

    def _retire(self) -> None:
        """Leave the group, as a courtesy. Nothing is committed: nobody knows whether what was handed out is worked on."""
        if self._member is None:
            super()._retire()
        else:
            self._core.retire(self._member.begin_leaving(), LEAVE_AT_EXIT_S)
