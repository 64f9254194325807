"""`zafka.Consumer`: records out of partitions, in order, by iteration or in batches.

Owns: arguments and their checking, the reader's position, decoding. Fetching goes on ahead in `fetcher.py`.
Not safe to use from several threads at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import length_hint
from types import TracebackType
from typing import Any, Self

from msgspec import structs

from zafka.client.core import (
    Core,
    check_choice,
    check_count,
    check_seconds,
    close_at_exit,
    forget,
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
from zafka.client.offsets import EARLIEST, LATEST, list_offsets_request, read_offsets
from zafka.client.records import OffsetAndTimestamp, Record, TopicPartition
from zafka.client.waiting import wait_step
from zafka.storage.batch import BatchHeader, walk
from zafka.storage.errors import BadBatch
from zafka.storage.records import decode_batch_as
from zafka.transport.kafka.api_keys import ApiKey

RESETS = {"earliest": EARLIEST, "latest": LATEST, "none": None}
RETRY_S = 0.05
FOREVER_STEP_S = 5.0  # an endless wait looks up this often

Partitions = Iterable[TopicPartition | tuple[str, int]]


class Consumer:
    """Read topics.

    Through a ZeroMQ door (`tcp://host:port`, `ipc://path`) or by Kafka's protocol (`host:port`), Apache Kafka included.

    topics: names; all their partitions are read, also ones that are added later. Without topics, use `assign`.
    bootstrap_servers: one address or several; without it ZAFKA_BOOTSTRAP_ZMQ, ZAFKA_BOOTSTRAP or 127.0.0.1:9092.
    auto_offset_reset: where to begin, and what to do with an offset that is not there: "latest" (default), "earliest",
        or "none" (begin needs `seek`; a missing offset raises OffsetOutOfRange).
    group_id: consumer groups are not supported yet.
    fetch_max_bytes, max_partition_fetch_bytes: bounds of one answer; memory is about twice the second per partition.
    fetch_min_bytes, fetch_max_wait: a broker answers when so many bytes are there, or after so many seconds.
    api_timeout: seconds for methods that ask brokers, such as `end_offsets`. check_crcs: verify what comes.
    key_deserializer, value_deserializer: functions over the bytes of each key and value.
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
        self._closed = False
        self._forget_current()
        self._core.start(self._fetcher)
        close_at_exit(self)
        if topics:
            try:
                self.subscribe(*topics)
            except BaseException:
                self.close()
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
        return f"<Consumer {where} {'closed' if self._closed else f'{count} partitions'}>"

    # -- what to read ----------------------------------------------------------------------------

    def subscribe(self, *topics: str) -> None:
        """Read all partitions of these topics, instead of what was read before. Raises UnknownTopic."""
        if not topics:
            raise ConfigError("subscribe needs at least one topic")
        self._core.wait_for_topics(topics, self._api_timeout)
        known = self._core.cluster.topics
        wanted = {
            TopicPartition(name, partition): self._reset
            for name in topics
            for partition in range(len(known[name].leaders))
        }
        self._forget_current()
        self._fetcher.assign(wanted, topics)

    def assign(self, partitions: Partitions) -> None:
        """Read exactly these partitions, instead of what was read before. Raises UnknownTopic."""
        wanted = {self._existing(where): self._reset for where in partitions}
        self._forget_current()
        self._fetcher.assign(wanted)

    def assignment(self) -> set[TopicPartition]:
        return set(self._fetcher.readings)

    def topics(self) -> set[str]:
        """All topics that the brokers have, internal ones left out."""
        from zafka.client.admin import list_topics

        return set(list_topics(self._core, self._api_timeout))

    def partitions_for_topic(self, topic: str) -> set[int]:
        """Raises UnknownTopic."""
        self._core.wait_for_topics([topic], self._api_timeout)
        return set(range(len(self._core.cluster.topics[topic].leaders)))

    def _existing(self, where: TopicPartition | tuple[str, int]) -> TopicPartition:
        """A partition that the brokers know."""
        if not isinstance(where, tuple) or len(where) != 2:
            raise ConfigError(f"a partition is a TopicPartition or a pair such as ('orders', 0), not {where!r}")
        topic, partition = where
        count = len(self.partitions_for_topic(topic))
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

    def position(self, partition: TopicPartition | tuple[str, int], timeout: float | None = None) -> int:
        """The offset of the next record that this consumer hands out from an assigned partition.

        Waits until it is known where to begin, at most `timeout` (by default `api_timeout`) seconds.
        """
        reading = self._reading(partition)
        if self._chunk is not None and self._chunk.reading is reading:
            left = length_hint(self._rest)
            return self._records[-left].offset if left else self._after
        limit_s = self._api_timeout if timeout is None else timeout
        deadline_s = time.monotonic() + limit_s
        with self._fetcher.ready:
            while reading.next_read == NOT_KNOWN:
                if reading.error is not None:
                    raise reading.error
                if self._fetcher.ended is not None:
                    raise ClientClosed(str(self._fetcher.ended))
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise RequestTimedOut(
                        f"the position in {partition[0]}-{partition[1]} is not known after {limit_s:g} s"
                    )
                wait_step(self._fetcher.ready, left_s)
            return reading.next_read

    def pause(self, *partitions: TopicPartition | tuple[str, int]) -> None:
        """Hand out nothing of these partitions until `resume`; their positions stay."""
        for partition in partitions:
            reading = self._reading(partition)
            next_read = reading.next_read
            if self._chunk is not None and self._chunk.reading is reading:
                next_read = self.position(partition)
                self._forget_current()
            self._fetcher.pause(reading.where, next_read)

    def resume(self, *partitions: TopicPartition | tuple[str, int]) -> None:
        for partition in partitions:
            self._fetcher.resume(self._reading(partition).where)

    def paused(self) -> set[TopicPartition]:
        return {where for where, reading in self._fetcher.readings.items() if reading.paused}

    def beginning_offsets(self, partitions: Partitions, timeout: float | None = None) -> dict[TopicPartition, int]:
        """The first offset that each partition has. They need not be assigned."""
        found = self._list_offsets(dict.fromkeys(map(self._existing, partitions), EARLIEST), timeout)
        return {where: at.offset for where, at in found.items()}

    def end_offsets(self, partitions: Partitions, timeout: float | None = None) -> dict[TopicPartition, int]:
        """The offset that the next record of each partition will get. They need not be assigned."""
        found = self._list_offsets(dict.fromkeys(map(self._existing, partitions), LATEST), timeout)
        return {where: at.offset for where, at in found.items()}

    def offsets_for_times(
        self, timestamps_ms: Mapping[TopicPartition | tuple[str, int], int], timeout: float | None = None
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record at or after a time, for each partition; None if there is none that late."""
        wanted = {self._existing(where): check_count("timestamp", at, 0) for where, at in timestamps_ms.items()}
        found = self._list_offsets(wanted, timeout)
        return {where: None if at.offset < 0 else at for where, at in found.items()}

    def _list_offsets(
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
            futures = [
                self._core.begin_ask(leader, ApiKey.LIST_OFFSETS, list_offsets_request(part), left_s)
                for leader, part in by_leader.items()
            ]
            for answer in self._core.await_all(futures, left_s):
                found, errors = read_offsets(answer)
                results |= found
                for where, code in errors.items():
                    problem = error_name(code)
                    if not is_retriable(code):
                        raise BrokerRefused(f"no offsets of {where.topic}-{where.partition}", code)
            if len(results) < len(wanted):
                self._core.io.call(cluster.refresh_soon)
                time.sleep(RETRY_S)
        return {where: results[where] for where in wanted}

    # -- reading ---------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Record]:
        """Records as they come, without end."""
        return self.records()

    def records(self, timeout: float | None = None) -> Iterator[Record]:
        """Records as they come; ends when nothing came for `timeout` seconds, never by default."""
        while True:
            rest = self._rest
            for record in rest:
                yield record
                if self._rest is not rest:
                    break  # the user moved: what was decoded is not next any more
            else:
                if not self._advance(timeout):
                    return

    def poll(self, timeout: float = 0.0, max_records: int = 500) -> list[Record]:
        """Records that are there; waits at most `timeout` seconds for the first, then returns []."""
        check_count("max_records", max_records)
        records = list(islice(self._rest, max_records))
        while len(records) < max_records and self._advance(0.0 if records else timeout):
            records += islice(self._rest, max_records - len(records))
        return records

    def batches(self, max_records: int = 500, timeout: float | None = None) -> Iterator[list[Record]]:
        """Lists of at most `max_records` records; ends when nothing came for `timeout` seconds, never by default."""
        while records := self.poll(math.inf if timeout is None else timeout, max_records):
            yield records

    def _advance(self, timeout: float | None) -> bool:
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
            chunk = self._fetcher.next_chunk(max(0.0, min(FOREVER_STEP_S, deadline_s - time.monotonic())))
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
                self._rest = iter(self._records)
                if self._records:
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

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """End the I/O thread. Closing again does nothing."""
        self._closed = True
        forget(self)
        self._core.stop()

    def close_at_exit(self) -> None:
        self.close()

    def end_after_fork(self, error: ZafkaError) -> None:
        self._core.ended = self._fetcher.ended = error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


MakeRecord = Callable[[int, int, bytes | None, bytes | None, Sequence[tuple[str, bytes | None]]], Record]


def _record_maker(topic: str, partition: int, timestamp_type: int) -> MakeRecord:
    """What makes a Record of what differs between the records of one batch."""

    def make(
        offset: int, timestamp: int, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
    ) -> Record:
        return Record(topic, partition, offset, timestamp, timestamp_type, key, value, headers)

    return make
