"""zafka's own client, through each of the two doors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar, TypeVar

import zafka
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
from tests.clients.samples import Sample
from zafka.client.admin_base import ClusterInfo
from zafka.client.errors import BrokerRefused, UnknownTopic, ZafkaError

Result = TypeVar("Result")


def refused(error: ZafkaError) -> Refused:
    code = error.code if isinstance(error, BrokerRefused) else 3 if isinstance(error, UnknownTopic) else None
    return Refused(code, f"{type(error).__name__}: {error}")


class OurWriter(Writer):
    def __init__(self, producer: zafka.Producer, topic: str, partition: int | None) -> None:
        self.producer = producer
        self.topic = topic
        self.partition = partition
        self.futures: list[Any] = []

    def send(self, records: Sequence[Sample]) -> None:
        try:
            for record in records:
                self.futures.append(self.producer.send(
                    self.topic, record.value, key=record.key, headers=record.headers, partition=self.partition,
                    timestamp_ms=record.timestamp_ms))
        except ZafkaError as error:
            raise refused(error) from error

    def flush(self) -> list[int]:
        try:
            return [future.result(TIMEOUT_S).offset for future in self.futures]
        except ZafkaError as error:
            raise refused(error) from error
        finally:
            self.futures = []

    def close(self) -> None:
        self.producer.close()

    def abandon(self) -> None:
        self.futures = []
        with contextlib.suppress(ZafkaError):  # it says what it left undone
            self.producer.close(0)


class OurReader(Reader):
    def __init__(self, consumer: zafka.Consumer) -> None:
        self.consumer = consumer

    def read(self, count: int) -> list[Received]:
        try:
            return [
                Received(record.partition, record.offset,
                         Sample(record.key, record.value, list(record.headers), record.timestamp), record.timestamp_type)
                for record in islice(self.consumer.records(timeout=TIMEOUT_S), count)]
        except ZafkaError as error:
            raise refused(error) from error

    def seek(self, topic: str, partition: int, offset: int) -> None:
        self.consumer.seek((topic, partition), offset)

    def commit(self) -> None:
        self.consumer.commit()

    def close(self) -> None:
        self.consumer.close()


class Zafka(PythonClient):
    name = "zafka, Kafka's protocol"
    cannot: ClassVar[Mapping[Ability, str]] = {
        Ability.COMMITTED: "there are no transactions yet",
        Ability.LATER: "is told at once of a topic that is not there",
        Ability.PATTERN: "its patterns are the broker's, so in KIP-848 groups",
        Ability.CREATE_ON_READ: "creates nothing unasked",
        Ability.CREATE_ON_WRITE: "creates nothing unasked, and says how to",
    }

    def __init__(self, kafka: str, zmq: str) -> None:
        super().__init__(kafka, zmq)
        self.options: dict[str, Any] = {"bootstrap_servers": self.bootstrap, "client_id": self.client_id}

    def version(self) -> str:
        return zafka.__version__

    def producer_options(self, settings: Settings) -> dict[str, Any]:
        own: dict[str, Any] = {
            "compression_type": settings.codec, "enable_idempotence": settings.idempotent,
            "linger_ms": settings.linger_ms, "max_request_size": settings.record_bytes_max}
        if settings.acks is not None:
            own["acks"] = settings.acks if settings.acks == "all" else int(settings.acks)
        if settings.give_up_ms is not None:
            own["max_block"] = settings.give_up_ms / 1000
        return self.options | {name: value for name, value in own.items() if value is not None}

    def writer(self, topic: str, settings: Settings = DEFAULTS, *, partition: int | None = 0) -> Writer:
        return OurWriter(zafka.Producer(**self.producer_options(settings)), topic, partition)

    def consumer_options(self, settings: Settings) -> dict[str, Any]:
        own: dict[str, Any] = {"auto_offset_reset": settings.reset}
        if settings.record_bytes_max is not None:
            own |= {"max_partition_fetch_bytes": settings.record_bytes_max, "fetch_max_bytes": settings.record_bytes_max}
        if settings.wait_ms is not None:
            own |= {"fetch_max_wait": settings.wait_ms / 1000}
        return self.options | own

    def consumer(self, settings: Settings = DEFAULTS) -> zafka.Consumer:
        return zafka.Consumer(**self.consumer_options(settings))

    def member(self, topic: str, group: str, joining: Joining = AS_USUAL) -> Reader:
        consumer = zafka.Consumer(**self.member_options(group, joining))
        consumer.subscribe(pattern=topic) if joining.is_pattern else consumer.subscribe(topic)
        return OurReader(consumer)

    def member_options(self, group: str, joining: Joining) -> dict[str, Any]:
        own: dict[str, Any] = {
            "auto_offset_reset": joining.reset, "group_id": group, "group_instance_id": joining.instance,
            "enable_auto_commit": not joining.by_hand, "group_protocol": joining.protocol}
        if joining.follows:
            own["metadata_max_age"] = REFRESH_MS / 1000
        if joining.protocol == "classic":
            own["heartbeat_interval"] = HEARTBEAT_MS / 1000
            if joining.session_ms is not None:
                own["session_timeout"] = joining.session_ms / 1000
            if joining.cooperative:
                own["partition_assignment_strategy"] = "cooperative-sticky"
        return self.options | own

    def reader(
        self, topic: str, start: Start = BEGINNING, settings: Settings = DEFAULTS, *, partitions: Sequence[int] = (0,)
    ) -> Reader:
        consumer = self.consumer(settings)
        try:
            consumer.assign([(topic, partition) for partition in partitions])
            place = (topic, partitions[0])
            if start.kind == "beginning":
                consumer.seek_to_beginning()
            elif start.kind == "end":
                consumer.seek_to_end()
                consumer.position(place)
            elif start.kind == "offset":
                consumer.seek(place, start.at)
            else:
                (found,) = consumer.offsets_for_times({place: start.at}).values()
                assert found is not None
                consumer.seek(place, found[0])
        except ZafkaError as error:
            consumer.close()
            raise refused(error) from error
        return OurReader(consumer)

    def bounds(self, topic: str) -> tuple[int, int]:
        with self.consumer() as consumer:
            (first,) = consumer.beginning_offsets([(topic, 0)]).values()
            (end,) = consumer.end_offsets([(topic, 0)]).values()
            return first, end

    def offset_at(self, topic: str, timestamp_ms: int) -> int | None:
        with self.consumer() as consumer:
            (found,) = consumer.offsets_for_times({(topic, 0): timestamp_ms}).values()
            return None if found is None else found[0]

    def partitions(self, topic: str) -> int:
        with self.admin() as admin:
            return len(self.asked(lambda: admin.describe_topics([topic]))[0].partitions)

    def admin(self) -> zafka.Admin:
        return zafka.Admin(**self.options)

    @staticmethod
    def asked(ask: Callable[[], Result]) -> Result:
        try:
            return ask()
        except ZafkaError as error:
            raise refused(error) from error

    def create_topic(self, topic: str, partitions: int) -> None:
        with self.admin() as admin:
            self.asked(lambda: admin.create_topic(topic, partitions, 1))

    def delete_topic(self, topic: str) -> None:
        with self.admin() as admin:
            self.asked(lambda: admin.delete_topics(topic))

    def topics(self) -> set[str]:
        with self.admin() as admin:
            return set(admin.list_topics())

    def add_partitions(self, topic: str, total: int) -> None:
        with self.admin() as admin:
            self.asked(lambda: admin.create_partitions(topic, total))

    def delete_records(self, topic: str, before: int) -> None:
        with self.admin() as admin:
            self.asked(lambda: admin.delete_records({(topic, 0): before}))

    def cluster(self) -> Cluster:
        with self.admin() as admin:
            return cluster_of(admin.describe_cluster())

    def config(self, kind: ConfigKind, name: str) -> Mapping[str, str | None]:
        with self.admin() as admin:
            told = self.asked(lambda: admin.describe_configs(**owner(kind, name)))
        return {entry.name: entry.value for entry in told}

    def alter_config(self, kind: ConfigKind, name: str, values: Mapping[str, str | None]) -> None:
        with self.admin() as admin:
            self.asked(lambda: admin.alter_config(**owner(kind, name), config=values))

    def groups(self) -> set[str]:
        with self.admin() as admin:
            return {each.group_id for each in self.asked(admin.list_groups)}

    def group(self, group: str) -> Group:
        with self.admin() as admin:
            (told,) = self.asked(lambda: admin.describe_groups(group))
        return Group(told.state.lower(), len(told.members))

    def group_offsets(self, topic: str, group: str) -> dict[int, int]:
        with self.admin() as admin:
            told = self.asked(lambda: admin.list_group_offsets(group))
        return {place.partition: offset for place, offset in told.items() if place.topic == topic}

    def set_group_offsets(self, topic: str, group: str, offsets: Mapping[int, int]) -> None:
        with self.admin() as admin:
            self.asked(lambda: admin.alter_group_offsets(group, {(topic, number): at for number, at in offsets.items()}))

    def delete_group_offsets(self, topic: str, group: str, partition: int) -> None:
        with self.admin() as admin:
            self.asked(lambda: admin.delete_group_offsets(group, [(topic, partition)]))

    def delete_group(self, group: str) -> None:
        with self.admin() as admin:
            self.asked(lambda: admin.delete_groups(group))


def owner(kind: ConfigKind, name: str) -> dict[str, Any]:
    return {kind: int(name) if kind == "broker" else name}


def cluster_of(told: ClusterInfo) -> Cluster:
    return Cluster(told.cluster_id, {broker.broker_id for broker in told.brokers}, told.controller_id)


class ZafkaDoor(Zafka):
    name = "zafka, ZeroMQ"

    def __init__(self, kafka: str, zmq: str) -> None:
        super().__init__(kafka, zmq)
        self.bootstrap = zmq
        self.options = {"bootstrap_servers": zmq, "client_id": self.client_id}
