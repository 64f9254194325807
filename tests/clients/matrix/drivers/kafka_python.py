"""kafka-python."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import kafka
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import AlterConfigOp, ConfigResource, KafkaAdminClient, NewTopic
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import BrokerResponseError, KafkaError, NoError
from kafka.structs import OffsetAndMetadata

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


def refused(error: Exception) -> Refused:
    # Errors that it finds by itself share the broker's classes; those that are its own have a negative number or none.
    code = getattr(error, "errno", None) if isinstance(error, BrokerResponseError) else None
    return Refused(code, f"{type(error).__name__}: {error}")


class KafkaPythonWriter(Writer):
    def __init__(self, producer: KafkaProducer, topic: str, partition: int | None) -> None:
        self.producer = producer
        self.topic = topic
        self.partition = partition
        self.futures: list[Any] = []

    def send(self, records: Sequence[Sample]) -> None:
        try:
            for record in records:
                self.futures.append(self.producer.send(
                    self.topic, record.value, record.key, record.headers, self.partition, record.timestamp_ms))
        except (KafkaError, AssertionError, ValueError) as error:
            raise refused(error) from error

    def flush(self) -> list[int]:
        try:
            return [future.get(TIMEOUT_S).offset for future in self.futures]
        except KafkaError as error:
            raise refused(error) from error
        finally:
            self.futures = []

    def close(self) -> None:
        self.producer.close(timeout=TIMEOUT_S)


class KafkaPythonReader(Reader):
    def __init__(self, consumer: KafkaConsumer) -> None:
        self.consumer = consumer

    def read(self, count: int) -> list[Received]:
        try:
            return [received(record) for record in itertools.islice(self.consumer, count)]
        except KafkaError as error:
            raise refused(error) from error

    def seek(self, topic: str, partition: int, offset: int) -> None:
        self.consumer.seek(TopicPartition(topic, partition), offset)

    def commit(self) -> None:
        self.consumer.commit()

    def close(self) -> None:
        self.consumer.close()


def received(record: Any) -> Received:
    sample = Sample(record.key, record.value, list(record.headers), record.timestamp)
    return Received(record.partition, record.offset, sample, record.timestamp_type)


class KafkaPython(PythonClient):
    name = "kafka-python"
    cannot: ClassVar[Mapping[Ability, str]] = {
        Ability.ABANDON: "closing it without giving it time fails, and it goes on sending",
        Ability.KIP_848: "does not know it",
    }

    def expresses(self, sample: Sample) -> bool:
        """It takes no record without key and value, and no header without a value."""
        return (sample.key, sample.value) != (None, None) and all(value is not None for _, value in sample.headers)

    def version(self) -> str:
        return str(kafka.__version__)

    def writer(self, topic: str, settings: Settings = DEFAULTS, *, partition: int | None = 0) -> Writer:
        own: dict[str, Any] = {
            "linger_ms": settings.linger_ms, "max_request_size": settings.record_bytes_max,
            "max_block_ms": settings.give_up_ms}
        if settings.codec is not None:
            own["compression_type"] = settings.codec if settings.codec != "none" else None
        if settings.acks is not None:
            own |= {"acks": settings.acks if settings.acks == "all" else int(settings.acks), "enable_idempotence": False}
        if settings.idempotent is not None:
            own["enable_idempotence"] = settings.idempotent
        own = {key: value for key, value in own.items() if value is not None or key == "compression_type"}
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, client_id=self.client_id, **own)
        return KafkaPythonWriter(producer, topic, partition)

    def consumer(self, settings: Settings = DEFAULTS) -> KafkaConsumer:
        own: dict[str, Any] = {
            "auto_offset_reset": settings.reset, "allow_auto_create_topics": settings.create_on_read,
            "isolation_level": "read_committed" if settings.committed else "read_uncommitted"}
        if settings.record_bytes_max is not None:
            own |= {"max_partition_fetch_bytes": settings.record_bytes_max, "fetch_max_bytes": settings.record_bytes_max}
        if settings.wait_ms is not None:
            own |= {"fetch_max_wait_ms": settings.wait_ms, "request_timeout_ms": settings.wait_ms + 10_000}
        return KafkaConsumer(
            bootstrap_servers=self.bootstrap, client_id=self.client_id, enable_auto_commit=False,
            consumer_timeout_ms=TIMEOUT_S * 1000, **own)

    def member(self, topic: str, group: str, joining: Joining = AS_USUAL) -> Reader:
        own: dict[str, Any] = {"enable_auto_commit": not joining.by_hand}
        if joining.session_ms is not None:
            own["session_timeout_ms"] = joining.session_ms
        if joining.cooperative:
            own["partition_assignment_strategy"] = [CooperativeStickyAssignor]
        if joining.follows:
            own |= {"metadata_max_age_ms": REFRESH_MS, "allow_auto_create_topics": False}
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap, client_id=self.client_id, group_id=group,
            group_instance_id=joining.instance, auto_offset_reset=joining.reset, heartbeat_interval_ms=HEARTBEAT_MS,
            consumer_timeout_ms=TIMEOUT_S * 1000, **own)
        consumer.subscribe(**{"pattern": topic} if joining.is_pattern else {"topics": [topic]})
        return KafkaPythonReader(consumer)

    def reader(
        self, topic: str, start: Start = BEGINNING, settings: Settings = DEFAULTS, *, partitions: Sequence[int] = (0,)
    ) -> Reader:
        consumer = self.consumer(settings)
        places = [TopicPartition(topic, partition) for partition in partitions]
        try:
            consumer.assign(places)
            if start.kind == "beginning":
                consumer.seek_to_beginning(*places)
            elif start.kind == "end":
                consumer.seek_to_end(*places)
                for place in places:
                    consumer.position(place)
            elif start.kind == "offset":
                consumer.seek(places[0], start.at)
            else:
                consumer.seek(places[0], consumer.offsets_for_times({places[0]: start.at})[places[0]].offset)
        except KafkaError as error:
            consumer.close()
            raise refused(error) from error
        return KafkaPythonReader(consumer)

    def bounds(self, topic: str) -> tuple[int, int]:
        place = TopicPartition(topic, 0)
        consumer = self.consumer()
        try:
            return consumer.beginning_offsets([place])[place], consumer.end_offsets([place])[place]
        finally:
            consumer.close()

    def offset_at(self, topic: str, timestamp_ms: int) -> int | None:
        place = TopicPartition(topic, 0)
        consumer = self.consumer()
        try:
            told = consumer.offsets_for_times({place: timestamp_ms})[place]
            return None if told is None else int(told.offset)
        finally:
            consumer.close()

    def partitions(self, topic: str) -> int:
        consumer = self.consumer()
        try:
            return len(consumer.partitions_for_topic(topic) or ())
        finally:
            consumer.close()

    @contextlib.contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        """Raises Refused."""
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=self.bootstrap, client_id=self.client_id)) as admin:
            try:
                yield admin
            except KafkaError as error:
                raise refused(error) from error

    def create_topic(self, topic: str, partitions: int) -> None:
        with self.admin() as admin:
            admin.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=1)])

    def delete_topic(self, topic: str) -> None:
        with self.admin() as admin:
            admin.delete_topics([topic])

    def topics(self) -> set[str]:
        consumer = self.consumer()
        try:
            return set(consumer.topics())
        finally:
            consumer.close()

    def add_partitions(self, topic: str, total: int) -> None:
        with self.admin() as admin:
            admin.create_partitions({topic: total})

    def delete_records(self, topic: str, before: int) -> None:
        with self.admin() as admin:
            admin.delete_records({TopicPartition(topic, 0): before})

    def cluster(self) -> Cluster:
        with self.admin() as admin:
            told = admin.describe_cluster()
        return Cluster(told["cluster_id"], {broker["broker_id"] for broker in told["brokers"]}, told["controller_id"])

    def config(self, kind: ConfigKind, name: str) -> Mapping[str, str | None]:
        with self.admin() as admin:
            told = admin.describe_configs([ConfigResource(kind, name)], config_filter="all")
        return {key: entry["value"] for key, entry in told[kind][name].items()}

    def alter_config(self, kind: ConfigKind, name: str, values: Mapping[str, str | None]) -> None:
        wanted = {key: (AlterConfigOp.DELETE if value is None else AlterConfigOp.SET, value) for key, value in values.items()}
        with self.admin() as admin:
            told = admin.alter_configs([ConfigResource(kind, name, wanted)])[kind][name]
        if told != "OK":
            raise Refused(None, told)

    def groups(self) -> set[str]:
        with self.admin() as admin:
            return {each["group_id"] for each in admin.list_groups()}

    def group(self, group: str) -> Group:
        with self.admin() as admin:
            told = admin.describe_groups([group])[group]
        return Group(told["group_state"].lower(), len(told["members"]))

    def group_offsets(self, topic: str, group: str) -> dict[int, int]:
        with self.admin() as admin:
            told = admin.list_group_offsets(group)[group]
        return {place.partition: found.offset for place, found in told.items() if place.topic == topic}

    def set_group_offsets(self, topic: str, group: str, offsets: Mapping[int, int]) -> None:
        wanted = {TopicPartition(topic, number): OffsetAndMetadata(offset, "", -1) for number, offset in offsets.items()}
        with self.admin() as admin:
            check(admin.alter_group_offsets(group, wanted))

    def delete_group_offsets(self, topic: str, group: str, partition: int) -> None:
        with self.admin() as admin:
            check(admin.delete_group_offsets(group, [TopicPartition(topic, partition)]))

    def delete_group(self, group: str) -> None:
        with self.admin() as admin:
            told = admin.delete_groups([group])[group]
        if told != "OK":
            raise refused(getattr(kafka.errors, told)(group))


def check(told: Mapping[Any, Any]) -> None:
    """Of answers that are classes of errors, by what they are of."""
    for what, kind in told.items():
        if kind is not NoError:
            raise refused(kind(str(what)))
