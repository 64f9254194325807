"""The asynchronous twins of zafka's own client, through the ZeroMQ door."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import zafka
from tests.clients.matrix.driver import (
    AS_USUAL,
    BEGINNING,
    DEFAULTS,
    TIMEOUT_S,
    Cluster,
    ConfigKind,
    Group,
    Joining,
    Reader,
    Received,
    Settings,
    Start,
    Writer,
)
from tests.clients.matrix.drivers.loop import Loop
from tests.clients.matrix.drivers.ours import ZafkaDoor, cluster_of, owner, refused
from tests.clients.samples import Sample
from zafka.client.errors import ZafkaError

Result = TypeVar("Result")


def asked(loop: Loop, steps: Coroutine[Any, Any, Result]) -> Result:
    """Run it in the loop. Raises Refused."""
    try:
        return loop.run(steps)
    except ZafkaError as error:
        raise refused(error) from error


class AsyncWriter(Writer):
    def __init__(self, loop: Loop, producer: zafka.AsyncProducer, topic: str, partition: int | None) -> None:
        self.loop = loop
        self.producer = producer
        self.topic = topic
        self.partition = partition
        self.deliveries: list[zafka.AsyncDelivery] = []

    def send(self, records: Sequence[Sample]) -> None:
        async def send() -> None:
            for record in records:
                self.deliveries.append(await self.producer.send(
                    self.topic, record.value, key=record.key, headers=record.headers, partition=self.partition,
                    timestamp_ms=record.timestamp_ms))

        asked(self.loop, send())

    def flush(self) -> list[int]:
        async def flush() -> list[int]:
            return [(await delivery).offset for delivery in self.deliveries]

        try:
            return asked(self.loop, flush())
        finally:
            self.deliveries = []

    def close(self) -> None:
        self.loop.run(self.producer.close())

    def abandon(self) -> None:
        self.deliveries = []
        with contextlib.suppress(ZafkaError):  # it says what it left undone
            self.loop.run(self.producer.close(0))


class AsyncReader(Reader):
    def __init__(self, loop: Loop, consumer: zafka.AsyncConsumer) -> None:
        self.loop = loop
        self.consumer = consumer

    def read(self, count: int) -> list[Received]:
        async def read() -> list[Received]:
            found: list[zafka.Record] = []
            while len(found) < count:
                more = await self.consumer.poll(TIMEOUT_S, count - len(found))
                if not more:
                    break
                found += more
            return [
                Received(record.partition, record.offset,
                         Sample(record.key, record.value, list(record.headers), record.timestamp), record.timestamp_type)
                for record in found]

        return asked(self.loop, read())

    def seek(self, topic: str, partition: int, offset: int) -> None:
        self.consumer.seek((topic, partition), offset)

    def commit(self) -> None:
        asked(self.loop, self.consumer.commit())

    def close(self) -> None:
        self.loop.run(self.consumer.close())


class AsyncZafka(ZafkaDoor):
    name = "zafka, asyncio"

    def __init__(self, kafka: str, zmq: str) -> None:
        super().__init__(kafka, zmq)
        self.loop = Loop()

    def close(self) -> None:
        self.loop.close()

    def writer(self, topic: str, settings: Settings = DEFAULTS, *, partition: int | None = 0) -> Writer:
        producer = zafka.AsyncProducer(**self.producer_options(settings))
        asked(self.loop, producer.start())
        return AsyncWriter(self.loop, producer, topic, partition)

    def member(self, topic: str, group: str, joining: Joining = AS_USUAL) -> Reader:
        consumer = zafka.AsyncConsumer(**self.member_options(group, joining))
        asked(self.loop, consumer.start())
        asked(self.loop, consumer.subscribe(pattern=topic) if joining.is_pattern else consumer.subscribe(topic))
        return AsyncReader(self.loop, consumer)

    def reader(
        self, topic: str, start: Start = BEGINNING, settings: Settings = DEFAULTS, *, partitions: Sequence[int] = (0,)
    ) -> Reader:
        consumer, place = zafka.AsyncConsumer(**self.consumer_options(settings)), (topic, partitions[0])

        async def begin() -> None:
            await consumer.start()
            await consumer.assign([(topic, partition) for partition in partitions])
            if start.kind == "beginning":
                consumer.seek_to_beginning()
            elif start.kind == "end":
                consumer.seek_to_end()
                await consumer.position(place)
            elif start.kind == "offset":
                consumer.seek(place, start.at)
            else:
                (found,) = (await consumer.offsets_for_times({place: start.at})).values()
                assert found is not None
                consumer.seek(place, found[0])

        asked(self.loop, begin())
        return AsyncReader(self.loop, consumer)

    def bounds(self, topic: str) -> tuple[int, int]:
        async def ask() -> tuple[int, int]:
            async with zafka.AsyncConsumer(**self.consumer_options(DEFAULTS)) as consumer:
                (first,) = (await consumer.beginning_offsets([(topic, 0)])).values()
                (end,) = (await consumer.end_offsets([(topic, 0)])).values()
                return first, end

        return asked(self.loop, ask())

    def offset_at(self, topic: str, timestamp_ms: int) -> int | None:
        async def ask() -> int | None:
            async with zafka.AsyncConsumer(**self.consumer_options(DEFAULTS)) as consumer:
                (found,) = (await consumer.offsets_for_times({(topic, 0): timestamp_ms})).values()
                return None if found is None else found[0]

        return asked(self.loop, ask())

    def administer(self, call: Callable[[zafka.AsyncAdmin], Coroutine[Any, Any, Result]]) -> Result:
        """One call of an admin. Raises Refused."""

        async def ask() -> Result:
            async with zafka.AsyncAdmin(**self.options) as admin:
                return await call(admin)

        return asked(self.loop, ask())

    def partitions(self, topic: str) -> int:
        return len(self.administer(lambda admin: admin.describe_topics([topic]))[0].partitions)

    def create_topic(self, topic: str, partitions: int) -> None:
        self.administer(lambda admin: admin.create_topic(topic, partitions, 1))

    def delete_topic(self, topic: str) -> None:
        self.administer(lambda admin: admin.delete_topics(topic))

    def topics(self) -> set[str]:
        return set(self.administer(lambda admin: admin.list_topics()))

    def add_partitions(self, topic: str, total: int) -> None:
        self.administer(lambda admin: admin.create_partitions(topic, total))

    def delete_records(self, topic: str, before: int) -> None:
        self.administer(lambda admin: admin.delete_records({(topic, 0): before}))

    def cluster(self) -> Cluster:
        async def ask() -> Cluster:
            async with zafka.AsyncAdmin(**self.options) as admin:
                return cluster_of(admin.describe_cluster())

        return asked(self.loop, ask())

    def config(self, kind: ConfigKind, name: str) -> Mapping[str, str | None]:
        told = self.administer(lambda admin: admin.describe_configs(**owner(kind, name)))
        return {entry.name: entry.value for entry in told}

    def alter_config(self, kind: ConfigKind, name: str, values: Mapping[str, str | None]) -> None:
        self.administer(lambda admin: admin.alter_config(**owner(kind, name), config=values))

    def groups(self) -> set[str]:
        return {each.group_id for each in self.administer(lambda admin: admin.list_groups())}

    def group(self, group: str) -> Group:
        (told,) = self.administer(lambda admin: admin.describe_groups(group))
        return Group(told.state.lower(), len(told.members))

    def group_offsets(self, topic: str, group: str) -> dict[int, int]:
        told = self.administer(lambda admin: admin.list_group_offsets(group))
        return {place.partition: offset for place, offset in told.items() if place.topic == topic}

    def set_group_offsets(self, topic: str, group: str, offsets: Mapping[int, int]) -> None:
        wanted = {(topic, number): at for number, at in offsets.items()}
        self.administer(lambda admin: admin.alter_group_offsets(group, wanted))

    def delete_group_offsets(self, topic: str, group: str, partition: int) -> None:
        self.administer(lambda admin: admin.delete_group_offsets(group, [(topic, partition)]))

    def delete_group(self, group: str) -> None:
        self.administer(lambda admin: admin.delete_groups(group))
