"""The asynchronous twins of zafka's own client, through the ZeroMQ door."""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import zafka
from tests.clients.matrix.driver import (
    BEGINNING,
    DEFAULTS,
    TIMEOUT_S,
    Protocol,
    Reader,
    Received,
    Settings,
    Start,
    Writer,
)
from tests.clients.matrix.drivers.loop import Loop
from tests.clients.matrix.drivers.ours import ZafkaDoor, refused
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

    def member(self, topic: str, group: str, *, protocol: Protocol = "classic", instance: str | None = None) -> Reader:
        consumer = zafka.AsyncConsumer(topic, **self.member_options(group, instance, protocol))
        asked(self.loop, consumer.start())
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

    def partitions(self, topic: str) -> int:
        async def ask() -> int:
            async with zafka.AsyncAdmin(**self.options) as admin:
                return len((await admin.describe_topics([topic]))[0].partitions)

        return asked(self.loop, ask())

    def create_topic(self, topic: str, partitions: int) -> None:
        async def ask() -> None:
            async with zafka.AsyncAdmin(**self.options) as admin:
                await admin.create_topic(topic, partitions, 1)

        asked(self.loop, ask())

    def delete_topic(self, topic: str) -> None:
        async def ask() -> None:
            async with zafka.AsyncAdmin(**self.options) as admin:
                await admin.delete_topics(topic)

        asked(self.loop, ask())

    def topics(self) -> set[str]:
        async def ask() -> set[str]:
            async with zafka.AsyncAdmin(**self.options) as admin:
                return set(await admin.list_topics())

        return asked(self.loop, ask())
