"""aiokafka, on an event loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource
from aiokafka.errors import BrokerResponseError, KafkaError, for_code

from tests.clients.matrix.driver import (
    AS_USUAL,
    BEGINNING,
    DEFAULTS,
    HEARTBEAT_MS,
    REFRESH_MS,
    TIMEOUT_S,
    Ability,
    Cluster,
    ConfigKind,
    Group,
    Joining,
    Reader,
    Received,
    Refused,
    Settings,
    Start,
    Writer,
)
from tests.clients.matrix.drivers.apart import PythonClient
from tests.clients.matrix.drivers.loop import Loop
from tests.clients.samples import Sample


def refused(error: Exception) -> Refused:
    code = error.errno if isinstance(error, BrokerResponseError) else None
    return Refused(code, f"{type(error).__name__}: {error}")


class AioKafkaWriter(Writer):
    def __init__(self, loop: Loop, producer: AIOKafkaProducer, topic: str, partition: int | None) -> None:
        self.loop = loop
        self.producer = producer
        self.topic = topic
        self.partition = partition
        self.futures: list[Any] = []

    def send(self, records: Sequence[Sample]) -> None:
        async def send() -> None:
            for record in records:
                self.futures.append(await self.producer.send(
                    self.topic, record.value, record.key, partition=self.partition, timestamp_ms=record.timestamp_ms,
                    headers=record.headers))

        try:
            self.loop.run(send())
        except (KafkaError, AssertionError, ValueError) as error:
            raise refused(error) from error

    def flush(self) -> list[int]:
        async def flush() -> list[int]:
            told = [await asyncio.wait_for(future, TIMEOUT_S) for future in self.futures]
            return [-1 if one is None else one.offset for one in told]

        try:
            return self.loop.run(flush())
        except KafkaError as error:
            raise refused(error) from error
        finally:
            self.futures = []

    def close(self) -> None:
        self.loop.run(self.producer.stop())

    def abandon(self) -> None:
        async def abandon() -> None:
            stopping = asyncio.ensure_future(self.producer.stop())
            await asyncio.sleep(0)
            stopping.cancel()
            for future in self.futures:
                future.cancel()

        self.loop.run(abandon())


class AioKafkaReader(Reader):
    def __init__(self, loop: Loop, consumer: AIOKafkaConsumer) -> None:
        self.loop = loop
        self.consumer = consumer

    def read(self, count: int) -> list[Received]:
        async def read() -> list[Received]:
            found: list[Received] = []
            while len(found) < count:
                more = await self.consumer.getmany(timeout_ms=int(TIMEOUT_S * 1000), max_records=count - len(found))
                if not more:
                    break
                found += [received(record) for records in more.values() for record in records]
            return found

        try:
            return self.loop.run(read())
        except KafkaError as error:
            raise refused(error) from error

    def seek(self, topic: str, partition: int, offset: int) -> None:
        self.consumer.seek(TopicPartition(topic, partition), offset)

    def commit(self) -> None:
        self.loop.run(self.consumer.commit())

    def close(self) -> None:
        self.loop.run(self.consumer.stop())


def received(record: Any) -> Received:
    sample = Sample(record.key, record.value, list(record.headers), record.timestamp)
    return Received(record.partition, record.offset, sample, record.timestamp_type)


class AioKafka(PythonClient):
    name = "aiokafka"
    cannot: ClassVar[Mapping[Ability, str]] = {
        Ability.KIP_848: "does not know it",
        Ability.COOPERATIVE: "has none",
        Ability.SET_OFFSETS: "has no call for it",
        Ability.DELETE_OFFSETS: "has no call for it",
        Ability.DELETE_GROUPS: "has no call for it",
        Ability.LATER: "has it created by asking for it",
    }

    def __init__(self, kafka: str, zmq: str) -> None:
        super().__init__(kafka, zmq)
        self.loop = Loop()

    def close(self) -> None:
        self.loop.close()

    def expresses(self, sample: Sample) -> bool:
        """It takes no record without key and value."""
        return (sample.key, sample.value) != (None, None)

    def version(self) -> str:
        return str(aiokafka.__version__)

    def writer(self, topic: str, settings: Settings = DEFAULTS, *, partition: int | None = 0) -> Writer:
        own: dict[str, Any] = {
            "linger_ms": settings.linger_ms, "max_request_size": settings.record_bytes_max,
            "enable_idempotence": settings.idempotent, "request_timeout_ms": settings.give_up_ms}
        if settings.codec not in (None, "none"):
            own["compression_type"] = settings.codec
        if settings.acks is not None:
            own["acks"] = settings.acks if settings.acks == "all" else int(settings.acks)
        own = {key: value for key, value in own.items() if value is not None}

        async def start() -> AIOKafkaProducer:
            producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, client_id=self.client_id, **own)
            await producer.start()
            return producer

        return AioKafkaWriter(self.loop, self.loop.run(start()), topic, partition)

    async def consumer(self, settings: Settings = DEFAULTS) -> AIOKafkaConsumer:
        own: dict[str, Any] = {
            "auto_offset_reset": settings.reset,
            "isolation_level": "read_committed" if settings.committed else "read_uncommitted"}
        if settings.record_bytes_max is not None:
            own |= {"max_partition_fetch_bytes": settings.record_bytes_max, "fetch_max_bytes": settings.record_bytes_max}
        if settings.wait_ms is not None:
            own |= {"fetch_max_wait_ms": settings.wait_ms, "request_timeout_ms": settings.wait_ms + 10_000}
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap, client_id=self.client_id, enable_auto_commit=False, **own)
        await consumer.start()
        return consumer

    def member(self, topic: str, group: str, joining: Joining = AS_USUAL) -> Reader:
        own = {} if joining.session_ms is None else {"session_timeout_ms": joining.session_ms}
        if joining.follows:
            own["metadata_max_age_ms"] = REFRESH_MS

        async def begin() -> AIOKafkaConsumer:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self.bootstrap, client_id=self.client_id, group_id=group,
                group_instance_id=joining.instance, auto_offset_reset=joining.reset, heartbeat_interval_ms=HEARTBEAT_MS,
                enable_auto_commit=not joining.by_hand, **own)
            consumer.subscribe(**{"pattern": topic} if joining.is_pattern else {"topics": [topic]})
            await consumer.start()
            return consumer

        return AioKafkaReader(self.loop, self.loop.run(begin()))

    def reader(
        self, topic: str, start: Start = BEGINNING, settings: Settings = DEFAULTS, *, partitions: Sequence[int] = (0,)
    ) -> Reader:
        places = [TopicPartition(topic, partition) for partition in partitions]

        async def begin() -> AIOKafkaConsumer:
            consumer = await self.consumer(settings)
            try:
                consumer.assign(places)
                if start.kind == "beginning":
                    await asyncio.wait_for(consumer.seek_to_beginning(*places), TIMEOUT_S)
                elif start.kind == "end":
                    await asyncio.wait_for(consumer.seek_to_end(*places), TIMEOUT_S)
                    for place in places:
                        await consumer.position(place)
                elif start.kind == "offset":
                    consumer.seek(places[0], start.at)
                else:
                    consumer.seek(places[0], (await consumer.offsets_for_times({places[0]: start.at}))[places[0]].offset)
            except BaseException:
                await consumer.stop()
                raise
            return consumer

        try:
            return AioKafkaReader(self.loop, self.loop.run(begin()))
        except KafkaError as error:
            raise refused(error) from error

    def bounds(self, topic: str) -> tuple[int, int]:
        place = TopicPartition(topic, 0)

        async def ask() -> tuple[int, int]:
            consumer = await self.consumer()
            try:
                first, end = await consumer.beginning_offsets([place]), await consumer.end_offsets([place])
                return first[place], end[place]
            finally:
                await consumer.stop()

        return self.loop.run(ask())

    def offset_at(self, topic: str, timestamp_ms: int) -> int | None:
        place = TopicPartition(topic, 0)

        async def ask() -> int | None:
            consumer = await self.consumer()
            try:
                told = (await consumer.offsets_for_times({place: timestamp_ms}))[place]
                return None if told is None else int(told.offset)
            finally:
                await consumer.stop()

        return self.loop.run(ask())

    def ask(self, call: Callable[[AIOKafkaAdminClient], Awaitable[Any]]) -> Any:
        """One call of an admin. Raises Refused."""

        async def ask() -> Any:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap, client_id=self.client_id)
            await admin.start()
            try:
                return await call(admin)
            finally:
                await admin.close()

        try:
            return self.loop.run(ask())
        except KafkaError as error:
            raise refused(error) from error

    def partitions(self, topic: str) -> int:
        (told,) = self.ask(lambda admin: admin.describe_topics([topic]))
        check(told["error_code"], topic)
        return len(told["partitions"])

    def create_topic(self, topic: str, partitions: int) -> None:
        told = self.ask(lambda admin: admin.create_topics([NewTopic(topic, partitions, 1)]))
        for _, code, *_ in told.topic_errors:
            check(code, topic)

    def delete_topic(self, topic: str) -> None:
        for _, code, *_ in self.ask(lambda admin: admin.delete_topics([topic])).topic_error_codes:
            check(code, topic)

    def topics(self) -> set[str]:
        return set(self.ask(lambda admin: admin.list_topics()))

    def add_partitions(self, topic: str, total: int) -> None:
        self.ask(lambda admin: admin.create_partitions({topic: NewPartitions(total)}))

    def delete_records(self, topic: str, before: int) -> None:
        self.ask(lambda admin: admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before)}))

    def cluster(self) -> Cluster:
        told = self.ask(lambda admin: admin.describe_cluster())
        return Cluster(told["cluster_id"], {broker["node_id"] for broker in told["brokers"]}, told["controller_id"])

    def config(self, kind: ConfigKind, name: str) -> Mapping[str, str | None]:
        (told,) = self.ask(lambda admin: admin.describe_configs([ConfigResource(kind, name)]))
        ((code, text, _, _, entries, *_),) = told.resources
        check(code, text)
        return {key: value for key, value, *_ in entries}

    def alter_config(self, kind: ConfigKind, name: str, values: Mapping[str, str | None]) -> None:
        """The old request, which replaces all that there is: what is not named goes back to the default."""
        wanted = {key: value for key, value in values.items() if value is not None}
        for told in self.ask(lambda admin: admin.alter_configs([ConfigResource(kind, name, wanted)])):
            for code, text, *_ in told.resources:
                check(code, text)

    def groups(self) -> set[str]:
        return {name for name, *_ in self.ask(lambda admin: admin.list_consumer_groups())}

    def group(self, group: str) -> Group:
        (told,) = self.ask(lambda admin: admin.describe_consumer_groups([group]))
        ((code, name, state, _, _, members, *_),) = told.groups
        check(code, name)
        return Group(state.lower(), len(members))

    def group_offsets(self, topic: str, group: str) -> dict[int, int]:
        told = self.ask(lambda admin: admin.list_consumer_group_offsets(group))
        return {place.partition: found.offset for place, found in told.items() if place.topic == topic}


def check(code: int, what: str) -> None:
    if code != 0:
        raise Refused(code, f"{for_code(code).__name__}: {what}")
