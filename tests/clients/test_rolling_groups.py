"""Real clients rolled from `group.protocol=classic` to `consumer` one by one, and back, while records come in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Consumer, ConsumerGroupType, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

import zafka
from zafka.client.errors import BrokerRefused, error_name
from zafka.testing import Broker

TIMEOUT_S = 60.0
PARTITIONS = 6
MODERN = {"group.protocol": "consumer"}
CLASSIC = {"group.protocol": "classic", "heartbeat.interval.ms": "200"}


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with begin("bidirectional") as broker:
        yield broker


def begin(policy: str) -> Broker:
    defaults = {"group.initial.rebalance.delay.ms": 0, "group.consumer.migration.policy": policy}
    return Broker(topics={"range": PARTITIONS, "cooperative-sticky": PARTITIONS}, topology={"defaults": defaults})


class Rolling:
    """Members of a group, polled in turns while records are produced. read: the offsets of each partition that were read."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self.topic = topic
        self._bootstrap = {"bootstrap.servers": broker.bootstrap_servers}
        self._producer = Producer(self._bootstrap)
        self._watcher = Consumer({**self._bootstrap, "group.id": topic})  # never subscribes: it looks what is committed
        self.admin = AdminClient(self._bootstrap)
        self.consumers: list[Consumer] = []
        self.read: dict[int, set[int]] = {number: set() for number in range(PARTITIONS)}
        self.committed = dict.fromkeys(range(PARTITIONS), -1)
        self.produced = 0

    def join(self, settings: dict[str, str]) -> None:
        """It commits what it has read by itself, too, before it gives partitions up. With a callback for that, librdkafka (2.16)
        can wait for itself for ever when it is closed (`rd_kafka_rebalance_protocol` in the callback)."""
        consumer = Consumer({**self._bootstrap, "group.id": self.topic, "auto.offset.reset": "earliest", **settings})
        consumer.subscribe([self.topic])
        self.consumers.append(consumer)

    def _commit(self, consumer: Consumer) -> None:
        """What it has read. One that was fenced cannot, and another reads it again."""
        places = [each for each in consumer.position(consumer.assignment()) if each.offset >= 0]
        if places:
            try:
                consumer.commit(offsets=places, asynchronous=False)
            except KafkaException as failed:
                assert not failed.args[0].fatal(), failed

    def replace(self, settings: dict[str, str]) -> None:
        """The oldest member ends, and comes back with other settings."""
        self.consumers.pop(0).close()
        self.join(settings)
        self.settle()

    def settle(self) -> None:
        """Everything is owned once and evenly, and all that was produced until now is read."""
        share = PARTITIONS // len(self.consumers)
        self._poll_until(lambda: [len(consumer.assignment()) for consumer in self.consumers] == [share] * len(self.consumers))
        self._poll_until(lambda: sum(map(len, self.read.values())) == self.produced)
        for consumer in self.consumers:
            self._commit(consumer)
        self._look()

    def _look(self) -> None:
        for each in self._watcher.committed([TopicPartition(self.topic, number) for number in range(PARTITIONS)], TIMEOUT_S):
            assert each.offset >= self.committed[each.partition], "a committed offset went back"
            self.committed[each.partition] = each.offset

    def _poll_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, [len(consumer.assignment()) for consumer in self.consumers]
            if self.produced < 3_000:
                self._producer.produce(self.topic, b"x", partition=self.produced % PARTITIONS)
                self.produced += 1
            self._producer.poll(0)
            for consumer in self.consumers:
                if (message := consumer.poll(0.02)) is not None:
                    assert message.error() is None, message.error()
                    self.read[message.partition()].add(message.offset())

    def kind(self) -> ConsumerGroupType:
        (listed,) = [each for each in self.admin.list_consumer_groups().result().valid if each.group_id == self.topic]
        return listed.type

    def close(self) -> None:
        for consumer in [*self.consumers, self._watcher]:
            consumer.close()


@pytest.mark.parametrize("assignor", ["range", "cooperative-sticky"])
def test_members_are_rolled_to_the_other_protocol_and_back(broker: Broker, assignor: str) -> None:
    classic = CLASSIC | {"partition.assignment.strategy": assignor}
    rolling = Rolling(broker, assignor)
    try:
        for _ in range(2):
            rolling.join(classic)
        rolling.settle()
        assert rolling.kind() is ConsumerGroupType.CLASSIC
        for settings, kind in ((MODERN, ConsumerGroupType.CONSUMER), (classic, ConsumerGroupType.CLASSIC)):
            rolling.replace(settings)
            assert rolling.kind() is ConsumerGroupType.CONSUMER, "mixed"
            rolling.replace(settings)
            assert rolling.kind() is kind
        assert rolling.read == {number: set(range(rolling.committed[number])) for number in range(PARTITIONS)}
    finally:
        rolling.close()


@pytest.mark.parametrize(("policy", "may_become_classic"), [("disabled", False), ("downgrade", True)])
def test_where_the_policy_forbids_it_nobody_of_the_newer_protocol_joins_classic_members(
    policy: str, may_become_classic: bool
) -> None:
    """Nor the other way round, unless the group may become a classic one then. Who is there goes on, and loses nothing."""
    classic = CLASSIC | {"partition.assignment.strategy": "range"}
    with begin(policy) as broker:
        for topic, first, other in (("range", classic, MODERN), ("cooperative-sticky", MODERN, classic)):
            rolling = Rolling(broker, topic)
            try:
                rolling.join(first)
                rolling.settle()
                if first is MODERN and may_become_classic:
                    rolling.join(other)
                    rolling.settle()
                    assert rolling.kind() is ConsumerGroupType.CONSUMER, "mixed"
                    rolling.consumers.pop(0).close()
                    rolling.settle()
                    assert rolling.kind() is ConsumerGroupType.CLASSIC
                else:
                    kind = rolling.kind()
                    expected = "GROUP_ID_NOT_FOUND" if other is MODERN else "INCONSISTENT_GROUP_PROTOCOL"
                    assert KafkaError(getattr(KafkaError, expected)).str() in refused(broker, topic, other)
                    assert refused_by_ours(broker, topic, other) == expected
                    rolling.settle()
                    assert rolling.kind() is kind
                assert rolling.read == {number: set(range(rolling.committed[number])) for number in range(PARTITIONS)}
            finally:
                rolling.close()


def refused(broker: Broker, topic: str, settings: dict[str, str]) -> str:
    """What librdkafka says that wants to join; if it is of the newer protocol, that is the end of it."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": topic, "log_level": 0, **settings})
    consumer.subscribe([topic])
    deadline = time.monotonic() + TIMEOUT_S
    try:
        while time.monotonic() < deadline:
            message = consumer.poll(0.1)
            error = None if message is None else message.error()
            if error is not None:
                return str(error)
    finally:
        consumer.close()
    raise AssertionError("it was told nothing")


def refused_by_ours(broker: Broker, topic: str, settings: dict[str, str]) -> str:
    modern = settings is MODERN
    with zafka.Consumer(
        topic, bootstrap_servers=broker.bootstrap_servers, group_id=topic, group_protocol="consumer" if modern else "classic",
    ) as consumer, pytest.raises(BrokerRefused) as told:
        consumer.poll(TIMEOUT_S)
    return error_name(told.value.code)


def test_where_the_policy_forbids_the_way_back_classic_members_go_on_in_a_consumer_group() -> None:
    """Once all are classic again they join, leave and share as in any group, and nothing comes twice."""
    classic = CLASSIC | {"partition.assignment.strategy": "range"}
    with begin("upgrade") as broker:
        rolling = Rolling(broker, "range")
        try:
            for settings in (classic, classic):
                rolling.join(settings)
            rolling.settle()
            for settings in (MODERN, classic, classic, classic):  # the last one ends a classic member for another one
                rolling.replace(settings)
                assert rolling.kind() is ConsumerGroupType.CONSUMER
            assert rolling.read == {number: set(range(rolling.committed[number])) for number in range(PARTITIONS)}
        finally:
            rolling.close()
