"""`zafka.AsyncProducer`, `AsyncConsumer`, `AsyncAdmin`: the same clients, for asyncio.

Owns: the async faces of `producer_base`, `consumer_base` and `admin_base`, and the futures that tasks await. Sockets stay
in the client's own thread; what comes of them reaches the loop through one `LoopBridge` (loop_bridge.py).
A client belongs to the loop it was started in. Cancelling a call ends it where it waits: a record that a cancelled `send`
had not queued yet is not sent, one that it had is; a cancelled `poll` loses no records.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Coroutine, Generator, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from zafka.client.admin_base import BY_BROKER_DEFAULT, AdminBase, ConfigEntry, ConfigOwner, NewTopic, TopicInfo
from zafka.client.admin_groups import GroupInfo, GroupListing
from zafka.client.batches import Deliveries, Delivery, RecordMetadata, Span
from zafka.client.consumer_base import ConsumerBase
from zafka.client.core import list_topics
from zafka.client.errors import ClientClosed
from zafka.client.group_requests import offsets_of
from zafka.client.interceptors import Interceptors, ProducerRecord
from zafka.client.life import ClientBase
from zafka.client.loop_bridge import LoopBridge
from zafka.client.offsets import EARLIEST, LATEST
from zafka.client.producer_arguments import HeadersArgument
from zafka.client.producer_base import ProducerBase
from zafka.client.records import OffsetAndMetadata, OffsetAndTimestamp, Offsets, Partitions, Record, TopicPartition
from zafka.client.waiting import Signal, Steps

Found = TypeVar("Found")


class AsyncClient(ClientBase):
    """What the async clients share: the loop that they belong to, and `async with`."""

    _bridge: LoopBridge | None = None
    _interceptors: Interceptors | None = None

    def _signals(self) -> tuple[Signal, ...]:
        """Whose changes this client's steps wait for."""
        return (self._core.changed,)

    async def start(self) -> None:
        """Find the cluster, and a consumer's topics; `async with` does it. Raises NoBroker, UnknownTopic."""
        if self._bridge is None:
            self._bridge = LoopBridge(asyncio.get_running_loop(), *self._signals())
            if self._interceptors is not None:
                self._interceptors.post = self._bridge.post
            await self._bridge.run(self._start())

    def _run(self, steps: Steps[Found]) -> Coroutine[Any, Any, Found]:
        try:
            return self._started().run(steps)
        except ClientClosed:
            steps.close()
            raise

    def _started(self) -> LoopBridge:
        if self._bridge is None:
            raise ClientClosed("this client was not started: use `async with`, or await its start()")
        return self._bridge

    async def close(self) -> None:
        """End the I/O thread. Closing again does nothing."""
        if self._bridge is not None:
            await self._bridge.run(self._close())

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncDelivery:
    """The future of one record of an AsyncProducer. `await` it for its RecordMetadata, or for the error it failed with.

    Awaiting sends the record's batch on without lingering, once the tasks that are ready had their turn.
    """

    __slots__ = ("_bridge", "_delivery")

    def __init__(self, bridge: LoopBridge, delivery: Delivery) -> None:
        self._bridge = bridge
        self._delivery = delivery

    def __repr__(self) -> str:
        return f"<Async{self._delivery!r}".replace("<Async<", "<Async")

    def done(self) -> bool:
        """True once the record is acknowledged or failed."""
        return self._delivery.done()

    def __await__(self) -> Generator[Any, None, RecordMetadata]:
        delivery = self._delivery
        if not delivery.done():
            yield from self._bridge.settled(delivery.batch).__await__()
        return delivery.result(0)


class AsyncDeliveries:
    """What one `send_many` of an AsyncProducer became. `await` it for the spans, as of `Deliveries.result`."""

    __slots__ = ("_bridge", "_deliveries")

    def __init__(self, bridge: LoopBridge, deliveries: Deliveries) -> None:
        self._bridge = bridge
        self._deliveries = deliveries

    def __len__(self) -> int:
        return len(self._deliveries)

    def done(self) -> bool:
        """True once all records are acknowledged or failed."""
        return self._deliveries.done()

    def __await__(self) -> Generator[Any, None, list[Span]]:
        for batch, _, _ in self._deliveries.pieces:
            yield from self._bridge.settled(batch).__await__()
        return self._deliveries.result(0)


class AsyncProducer(AsyncClient, ProducerBase):
    __doc__ = (ProducerBase.__doc__ or "").replace(
        "Safe to use from several threads.", "Used in one event loop, by as many tasks as you like."
    )

    def _signals(self) -> tuple[Signal, ...]:
        return self._core.changed, self._accumulator.settled

    async def send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: HeadersArgument = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> AsyncDelivery:
        """Queue one record and return its future; `await` that for the RecordMetadata.

        Arguments and errors as of `Producer.send`. Waits only while `buffer_memory` is full or the topic is new to this
        producer, at most `max_block` seconds.
        """
        bridge = self._started()
        delivery = None
        if type(value) is bytes and key is None and headers is None and partition is None and timestamp_ms is None:
            lane, route = self._lanes.get(topic), self._routes.get(topic)
            if lane is not None:
                delivery = lane.put(value)
            if delivery is None and route is not None and len(value) <= self._plain_bytes_max:
                delivery = self._accumulator.append_value(route, value)
        if delivery is None:
            delivery = await bridge.run(self._send(ProducerRecord(topic, value, key, headers, partition, timestamp_ms)))
        return AsyncDelivery(bridge, delivery)

    async def send_many(
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
    ) -> AsyncDeliveries:
        """Queue many records: the fast path, with one future for all of them. As `Producer.send_many`."""
        sending = self._send_many(
            topic, values, keys=keys, headers=headers, headers_each=headers_each, partition=partition,
            timestamp_ms=timestamp_ms, timestamps_ms=timestamps_ms,
        )
        return AsyncDeliveries(self._started(), await self._run(sending))

    async def partitions_for(self, topic: str) -> int:
        """The number of partitions of a topic. Raises UnknownTopic."""
        route = self._routes.get(topic)
        if route is None:
            route = await self._run(self._find_route(topic))
        return route.partition_count

    async def flush(self, timeout: float | None = None) -> None:
        """Send what waits and return when all records sent before are acknowledged or failed. As `Producer.flush`."""
        await self._run(self._flush(timeout))

    async def close(self, timeout: float | None = None) -> None:
        """Flush, then end the I/O thread. As `Producer.close`. If cancelled, what is not acknowledged fails."""
        if self._bridge is not None:
            await self._bridge.run(self._close(timeout))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._run(self._close_after(error))


class AsyncConsumer(AsyncClient, ConsumerBase):
    __doc__ = ConsumerBase.__doc__

    def _signals(self) -> tuple[Signal, ...]:
        return self._core.changed, self._fetcher.ready

    async def subscribe(self, *topics: str, pattern: str | None = None) -> None:
        """Read all partitions of these topics, instead of what was read before. Raises UnknownTopic.

        pattern: instead of topics, a regular expression (RE2's) that whole names match, also of topics that come later; the
            broker looks, so only in groups of KIP-848's protocol. One that is none makes `poll` raise BrokerRefused.
        """
        await self._run(self._subscribe(topics, pattern))

    async def assign(self, partitions: Partitions) -> None:
        """Read exactly these partitions, instead of what was read before. Raises UnknownTopic."""
        await self._run(self._assign(partitions))

    async def topics(self) -> set[str]:
        """All topics that the brokers have, internal ones left out."""
        return await self._run(self._all_topics())

    async def partitions_for_topic(self, topic: str) -> set[int]:
        """The partitions that a topic has. Raises UnknownTopic."""
        return await self._run(self._partitions_for_topic(topic))

    async def position(self, partition: TopicPartition | tuple[str, int], timeout: float | None = None) -> int:
        """The offset of the next record that this consumer hands out from an assigned partition.

        Waits until it is known where to begin, at most `timeout` (by default `api_timeout`) seconds.
        """
        return await self._run(self._position(partition, timeout))

    async def beginning_offsets(self, partitions: Partitions, timeout: float | None = None) -> dict[TopicPartition, int]:
        """The first offset that each partition has. They need not be assigned."""
        return await self._run(self._offsets_at(partitions, EARLIEST, timeout))

    async def end_offsets(self, partitions: Partitions, timeout: float | None = None) -> dict[TopicPartition, int]:
        """The offset that the next record of each partition will get. They need not be assigned."""
        return await self._run(self._offsets_at(partitions, LATEST, timeout))

    async def offsets_for_times(
        self, timestamps_ms: Mapping[TopicPartition | tuple[str, int], int], timeout: float | None = None
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record at or after a time, for each partition; None if there is none that late."""
        return await self._run(self._offsets_for_times(timestamps_ms, timeout))

    async def commit(
        self,
        offsets: Offsets | None = None,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Commit offsets for the group: those after what was handed out, or explicit ones. As `Consumer.commit`."""
        await self._run(self._commit(offsets, wait, timeout))

    @overload
    async def committed(
        self, partitions: Partitions | None = None, timeout: float | None = None, *, metadata: Literal[False] = False
    ) -> dict[TopicPartition, int | None]: ...

    @overload
    async def committed(
        self, partitions: Partitions | None = None, timeout: float | None = None, *, metadata: Literal[True]
    ) -> dict[TopicPartition, OffsetAndMetadata | None]: ...

    async def committed(
        self, partitions: Partitions | None = None, timeout: float | None = None, *, metadata: bool = False
    ) -> dict[TopicPartition, int | None] | dict[TopicPartition, OffsetAndMetadata | None]:
        """The offsets that the group has committed, of these partitions or of those assigned; None where there is none.

        metadata: with the text that was committed beside each, as OffsetAndMetadata.
        """
        found = await self._run(self._committed(partitions, timeout))
        return found if metadata else offsets_of(found)

    # -- reading ---------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Record]:
        """Records as they come, without end."""
        return self.records()

    async def records(self, timeout: float | None = None) -> AsyncIterator[Record]:
        """Records as they come; ends when nothing came for `timeout` seconds, never by default."""
        fetcher = self._fetcher
        while True:
            rest = self._rest
            for record in rest:
                yield record
                if fetcher.interrupted:  # and the record before this is worked on
                    await self._run(self._attend())
                if self._rest is not rest:
                    break  # the user moved: what was decoded is not next any more
            else:
                if not await self._run(self._advance(timeout)):
                    return

    async def poll(self, timeout: float = 0.0, max_records: int = 500) -> list[Record]:
        """Records that are there; waits at most `timeout` seconds for the first, then returns []."""
        return await self._run(self._poll(timeout, max_records))

    async def batches(self, max_records: int = 500, timeout: float | None = None) -> AsyncIterator[list[Record]]:
        """Lists of at most `max_records` records; ends when nothing came for `timeout` seconds, never by default."""
        while records := await self.poll(math.inf if timeout is None else timeout, max_records):
            yield records



class AsyncAdmin(AsyncClient, AdminBase):
    __doc__ = AdminBase.__doc__

    async def create_topic(
        self,
        name: str,
        partitions: int = BY_BROKER_DEFAULT,
        replication_factor: int = BY_BROKER_DEFAULT,
        config: Mapping[str, Any] | None = None,
    ) -> TopicInfo:
        """Create one topic and return it once its partitions have leaders.

        partitions, replication_factor: -1 leaves them to the brokers. config: topic configuration by Kafka's names.
        Raises BrokerRefused.
        """
        return await self._run(self._create_topic(name, partitions, replication_factor, config))

    async def create_topics(self, topics: Iterable[NewTopic], *, validate_only: bool = False) -> list[TopicInfo]:
        """Create topics; returns them once their partitions have leaders (with `validate_only`: []).

        Raises BrokerRefused for the first that was refused; then the others may have been created.
        """
        return await self._run(self._create_topics(topics, validate_only))

    async def delete_topics(self, names: str | Iterable[str]) -> None:
        """Delete topics and all their records. Raises UnknownTopic, BrokerRefused."""
        await self._run(self._delete_topics(names))

    async def list_topics(self, *, internal: bool = False) -> list[str]:
        """Names of all topics, in order; internal ones only if asked for."""
        return await self._run(list_topics(self._core, self._timeout, internal=internal))

    async def describe_topics(self, names: str | Iterable[str]) -> list[TopicInfo]:
        """Partitions and leaders of topics, in the order of the names. Raises UnknownTopic, BrokerRefused."""
        return await self._run(self._describe_topics(names))

    async def coordinator_of(self, group_id: str) -> int:
        """The id of the broker that a client is sent to for a group. Raises RequestTimedOut, BrokerRefused."""
        return await self._run(self._coordinator_of(group_id))

    async def api_versions(self) -> dict[str, tuple[int, int]]:
        """First and last version of each API that brokers tell clients, by Kafka's names."""
        return await self._run(self._api_versions())

    async def describe_configs(
        self, *, topic: str | None = None, broker: int | str | None = None, group: str | None = None,
        documentation: bool = False,
    ) -> list[ConfigEntry]:
        """The whole configuration of one topic, broker or group; of broker "" what was altered of all brokers.

        Raises UnknownTopic, BrokerRefused.
        """
        return await self._run(self._describe_configs(ConfigOwner(topic, broker, group), documentation))

    async def alter_config(
        self, topic: str | None = None, config: Mapping[str, Any] | None = None, *, broker: int | str | None = None,
        group: str | None = None, validate_only: bool = False,
    ) -> None:
        """Change single keys of the configuration of a topic, a broker ("": of all) or a group; the others stay.

        In force when this returns. config: by Kafka's names; None takes a key's own value away, so that the default holds.
        validate_only: change nothing, only say whether it could be done. Raises UnknownTopic, BrokerRefused.
        """
        await self._run(self._alter_config(ConfigOwner(topic, broker, group), config, validate_only))

    async def create_partitions(
        self, topic: str, partitions: int, *, assignment: Iterable[Iterable[int]] | None = None,
        validate_only: bool = False,
    ) -> TopicInfo:
        """Give a topic more partitions: `partitions` in all. Returns it once they have leaders.

        assignment: broker ids of each new partition's replicas; without it the brokers choose.
        validate_only: change nothing, only say whether it could be done.
        Records stay where they are, so a key may go to another partition from now on.
        Raises UnknownTopic, BrokerRefused.
        """
        return await self._run(self._create_partitions(topic, partitions, assignment, validate_only))

    async def delete_records(self, offsets: Mapping[tuple[str, int], int]) -> dict[TopicPartition, int]:
        """Delete all records before these offsets, for good; -1 stands for all that there is.

        offsets: by (topic, partition). Returns the first offset that is left of each; on disk when this returns.
        Raises UnknownTopic, BrokerRefused, RequestTimedOut.
        """
        return await self._run(self._delete_records(offsets))

    # -- groups ----------------------------------------------------------------------------------

    async def list_groups(self) -> list[GroupListing]:
        """All groups of the cluster, by name."""
        return await self._run(self._list_groups())

    async def describe_groups(self, group_ids: str | Iterable[str]) -> list[GroupInfo]:
        """State, members and what each was given, in the order of the names. Raises BrokerRefused (GROUP_ID_NOT_FOUND)."""
        return await self._run(self._describe_groups(group_ids))

    async def delete_groups(self, group_ids: str | Iterable[str]) -> None:
        """Delete groups that have no members, with their committed offsets. Raises BrokerRefused."""
        await self._run(self._delete_groups(group_ids))

    @overload
    async def list_group_offsets(self, group_id: str, *, metadata: Literal[False] = False) -> dict[TopicPartition, int]: ...

    @overload
    async def list_group_offsets(
        self, group_id: str, *, metadata: Literal[True]
    ) -> dict[TopicPartition, OffsetAndMetadata]: ...

    async def list_group_offsets(
        self, group_id: str, *, metadata: bool = False
    ) -> dict[TopicPartition, int] | dict[TopicPartition, OffsetAndMetadata]:
        """What a group has committed; nothing for a group that nobody knows.

        metadata: with the text that was committed beside each offset, as OffsetAndMetadata.
        """
        found = await self._run(self._list_group_offsets(group_id))
        return found if metadata else {where: committed.offset for where, committed in found.items()}

    async def alter_group_offsets(self, group_id: str, offsets: Offsets) -> None:
        """Commit offsets for a group that has no members now; its next ones begin there. Raises BrokerRefused."""
        await self._run(self._alter_group_offsets(group_id, offsets))

    async def delete_group_offsets(self, group_id: str, partitions: Partitions) -> None:
        """Delete what a group has committed of these partitions, none of whose topics its members read. Raises BrokerRefused."""
        await self._run(self._delete_group_offsets(group_id, partitions))
