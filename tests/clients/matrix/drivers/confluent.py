"""confluent-kafka, and so librdkafka. It is the reference too: what it writes others read, and it reads what they write."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import confluent_kafka
from confluent_kafka import (
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
)

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
from tests.clients.matrix.drivers.group_log import DEBUG, GroupLog
from tests.clients.samples import Sample

POLL_S = 0.2
# librdkafka's own codes are negative; two of them are its names for what a broker says with these.
PASSES = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN})
OWN_CODES = {KafkaError._UNKNOWN_TOPIC: 3, KafkaError._UNKNOWN_PARTITION: 3}


def refused(error: KafkaError) -> Refused:
    code = error.code()
    return Refused(OWN_CODES.get(code, code if code >= 0 else None), f"{error.name()}: {error.str()}")


class ConfluentWriter(Writer):
    def __init__(self, producer: confluent_kafka.Producer, topic: str, partition: int | None) -> None:
        self.producer = producer
        self.topic = topic
        self.where: dict[str, Any] = {} if partition is None else {"partition": partition}
        self.offsets: dict[int, int] = {}
        self.errors: list[KafkaError] = []
        self.sent = 0

    def send(self, records: Sequence[Sample]) -> None:
        for record in records:
            number = self.sent
            self.sent += 1

            def on_delivery(error: KafkaError | None, message: Message, number: int = number) -> None:
                if error is not None:
                    self.errors.append(error)
                self.offsets[number] = message.offset() or 0

            try:
                self.producer.produce(
                    self.topic, record.value, record.key, on_delivery=on_delivery, timestamp=record.timestamp_ms or 0,
                    headers=list(record.headers), **self.where)
            except KafkaException as error:  # refused at once, by the client's own limits
                raise refused(error.args[0]) from error

    def flush(self) -> list[int]:
        left = self.producer.flush(TIMEOUT_S)
        if self.errors:
            raise refused(self.errors[0])
        assert left == 0
        offsets = [self.offsets[number] for number in sorted(self.offsets)]
        self.offsets.clear()
        return offsets

    def close(self) -> None:
        self.producer.flush(0)

    def abandon(self) -> None:
        self.producer.purge()
        del self.producer


class ConfluentReader(Reader):
    """follows: its topic may be deleted, and come again."""

    def __init__(self, consumer: confluent_kafka.Consumer, *, follows: bool = False) -> None:
        self.consumer = consumer
        self.passes = PASSES | {KafkaError.UNKNOWN_TOPIC_OR_PART} if follows else PASSES

    def read(self, count: int) -> list[Received]:
        found: list[Received] = []
        deadline_s = time.monotonic() + TIMEOUT_S
        while len(found) < count and time.monotonic() < deadline_s:
            for message in self.consumer.consume(count - len(found), timeout=POLL_S):
                if error := message.error():
                    if error.retriable() or error.code() in self.passes:
                        continue
                    raise refused(error)
                found.append(received(message))
        return found

    def seek(self, topic: str, partition: int, offset: int) -> None:
        # A partition whose offset could not be read is not fetched any more, and librdkafka seeks only what it fetches.
        self.consumer.assign([TopicPartition(topic, partition, offset)])

    def commit(self) -> None:
        self.consumer.commit(asynchronous=False)

    def close(self) -> None:
        self.consumer.close()


class ConfluentMember(ConfluentReader):
    """It tells what its library logs, too (`group_log.py`)."""

    def __init__(self, consumer: confluent_kafka.Consumer, log: GroupLog, *, follows: bool) -> None:
        super().__init__(consumer, follows=follows)
        self.log = log

    def close(self) -> None:
        super().close()
        print(*self.log.lines, sep="\n")


def received(message: Message) -> Received:
    kind, timestamp_ms = message.timestamp()
    partition, offset = message.partition(), message.offset()
    assert partition is not None and offset is not None
    headers: Any = message.headers() or []
    sample = Sample(message.key(), message.value(), headers, timestamp_ms)
    return Received(partition, offset, sample, kind - 1)  # librdkafka's 0 is "not available"


class Confluent(PythonClient):
    name = "confluent-kafka"
    cannot: ClassVar[Mapping[Ability, str]] = {Ability.DELETE_OFFSETS: "has no call for it"}

    @cached_property
    def admin(self) -> AdminClient:
        """It must outlive its futures."""
        return AdminClient(self.settings())

    def version(self) -> str:
        return f"{confluent_kafka.__version__} (librdkafka {confluent_kafka.libversion()[0]})"

    def settings(self, **more: Any) -> dict[str, Any]:
        return {"bootstrap.servers": self.bootstrap, "client.id": self.client_id, **more}

    def writer(self, topic: str, settings: Settings = DEFAULTS, *, partition: int | None = 0) -> Writer:
        own = {
            "compression.type": settings.codec, "enable.idempotence": settings.idempotent, "acks": settings.acks,
            "linger.ms": settings.linger_ms, "message.max.bytes": settings.record_bytes_max,
            "topic.metadata.propagation.max.ms": settings.give_up_ms}
        producer = confluent_kafka.Producer(self.settings(**{k: v for k, v in own.items() if v is not None}))
        return ConfluentWriter(producer, topic, partition)

    def consumer(self, settings: Settings = DEFAULTS) -> confluent_kafka.Consumer:
        own: dict[str, Any] = {
            "group.id": "unused", "enable.auto.commit": False, "auto.offset.reset": settings.reset,
            "allow.auto.create.topics": settings.create_on_read,
            "isolation.level": "read_committed" if settings.committed else "read_uncommitted"}
        if settings.record_bytes_max is not None:
            own |= {"fetch.max.bytes": settings.record_bytes_max, "max.partition.fetch.bytes": settings.record_bytes_max,
                    "receive.message.max.bytes": 2 * settings.record_bytes_max}
        if settings.wait_ms is not None:
            own |= {"fetch.wait.max.ms": settings.wait_ms, "socket.timeout.ms": settings.wait_ms + 10_000}
        return confluent_kafka.Consumer(self.settings(**own))

    def reader(
        self, topic: str, start: Start = BEGINNING, settings: Settings = DEFAULTS, *, partitions: Sequence[int] = (0,)
    ) -> Reader:
        consumer = self.consumer(settings)
        places = [TopicPartition(topic, partition, self.offset_of(start)) for partition in partitions]
        if start.kind == "time":
            places = consumer.offsets_for_times(places, timeout=TIMEOUT_S)
        elif not settings.create_on_read:
            # The end is looked up now: the consumer would do it some time later. For the others it saves half a second,
            # after which librdkafka looks for a leader that it did not know when the partition was assigned.
            _, end = consumer.get_watermark_offsets(places[0], TIMEOUT_S)
            places[0].offset = end if start.kind == "end" else places[0].offset
        consumer.assign(places)
        return ConfluentReader(consumer)

    def member(self, topic: str, group: str, joining: Joining = AS_USUAL) -> ConfluentReader:
        own = {
            "group.id": group, "group.protocol": joining.protocol, "group.instance.id": joining.instance,
            "auto.offset.reset": "error" if joining.reset == "none" else joining.reset,  # its word for it
            "enable.auto.commit": not joining.by_hand,
            "topic.metadata.refresh.interval.ms": REFRESH_MS if joining.follows else None}
        if joining.protocol == "classic":
            own |= {"heartbeat.interval.ms": HEARTBEAT_MS, "session.timeout.ms": joining.session_ms,
                    "partition.assignment.strategy": "cooperative-sticky" if joining.cooperative else None}
        log = GroupLog()
        consumer = confluent_kafka.Consumer(
            self.settings(debug=DEBUG, **{k: v for k, v in own.items() if v is not None}), logger=log.logger)
        consumer.subscribe([topic])
        return ConfluentMember(consumer, log, follows=joining.follows)

    def shares(self, group: str) -> list[int]:
        """How many partitions each member of a group has; none while they are being shared."""
        told = self.admin.describe_consumer_groups([group], request_timeout=TIMEOUT_S)[group].result(TIMEOUT_S)
        if told.state != ConsumerGroupState.STABLE:
            return []
        return sorted(len(member.assignment.topic_partitions) for member in told.members)

    def committed(self, topic: str, group: str) -> dict[int, int]:
        """The offset that the group has committed for each partition for which it has."""
        asked = self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=TIMEOUT_S)
        told = asked[group].result(TIMEOUT_S).topic_partitions
        return {each.partition: each.offset for each in told if each.topic == topic and each.offset >= 0}

    @staticmethod
    def offset_of(start: Start) -> int:
        return start.at if start.kind in ("offset", "time") else confluent_kafka.OFFSET_BEGINNING

    def bounds(self, topic: str) -> tuple[int, int]:
        consumer = self.consumer()
        try:
            first, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=TIMEOUT_S)
            return first, end
        finally:
            consumer.close()

    def offset_at(self, topic: str, timestamp_ms: int) -> int | None:
        consumer = self.consumer()
        try:
            (told,) = consumer.offsets_for_times([TopicPartition(topic, 0, timestamp_ms)], timeout=TIMEOUT_S)
            return None if told.offset == confluent_kafka.OFFSET_END else told.offset
        finally:
            consumer.close()

    def partitions(self, topic: str) -> int:
        told = self.admin.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
        if told.error is not None:
            raise refused(told.error)
        return len(told.partitions)

    def create_topic(self, topic: str, partitions: int) -> None:
        self.make_topic(topic, partitions, {})

    def make_topic(self, topic: str, partitions: int, config: dict[str, str]) -> None:
        self.done(self.admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic])

    def delete_topic(self, topic: str) -> None:
        self.done(self.admin.delete_topics([topic])[topic])

    @staticmethod
    def done(future: Any) -> Any:
        """What came of it. Raises Refused."""
        try:
            return future.result(TIMEOUT_S)
        except KafkaException as error:
            raise refused(error.args[0]) from error

    def delete_if_there(self, topics: Sequence[str]) -> None:
        for told in self.admin.delete_topics(list(topics)).values() if topics else ():
            error = told.exception(TIMEOUT_S)
            if error is not None and error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise error

    def topics(self) -> set[str]:
        return set(self.admin.list_topics(timeout=TIMEOUT_S).topics)

    def add_partitions(self, topic: str, total: int) -> None:
        self.done(self.admin.create_partitions([NewPartitions(topic, total)])[topic])

    def delete_records(self, topic: str, before: int) -> None:
        (told,) = self.admin.delete_records([TopicPartition(topic, 0, before)]).values()
        self.done(told)

    def cluster(self) -> Cluster:
        told = self.done(self.admin.describe_cluster())
        return Cluster(told.cluster_id, {node.id for node in told.nodes}, told.controller.id)

    def config(self, kind: ConfigKind, name: str) -> Mapping[str, str | None]:
        (told,) = self.admin.describe_configs([ConfigResource(kind, name)]).values()
        return {key: entry.value for key, entry in self.done(told).items()}

    def alter_config(self, kind: ConfigKind, name: str, values: Mapping[str, str | None]) -> None:
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET)
            for key, value in values.items()]
        (told,) = self.admin.incremental_alter_configs([ConfigResource(kind, name, incremental_configs=entries)]).values()
        self.done(told)

    def groups(self) -> set[str]:
        return {each.group_id for each in self.done(self.admin.list_consumer_groups()).valid}

    def group(self, group: str) -> Group:
        told = self.done(self.admin.describe_consumer_groups([group])[group])
        return Group(told.state.name.lower(), len(told.members))

    def group_offsets(self, topic: str, group: str) -> dict[int, int]:
        return self.committed(topic, group)

    def set_group_offsets(self, topic: str, group: str, offsets: Mapping[int, int]) -> None:
        places = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
        told = self.done(self.admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, places)])[group])
        for place in told.topic_partitions:
            if place.error is not None:
                raise refused(place.error)

    def delete_group(self, group: str) -> None:
        self.done(self.admin.delete_consumer_groups([group])[group])
