"""Real clients in KIP-848 groups: two become three become one while coordinators are killed, and nothing is skipped."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    ConsumerGroupType,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

from zafka.testing import Broker

TIMEOUT_S = 60.0
PARTITIONS = 6
COORDINATORS = [f"partition __consumer_offsets-{number}" for number in range(4)]
NUMBERS = itertools.count()

Part = tuple[str, int]


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """Of this module's own, because it kills processes."""
    with Broker(
        topics={"orders": PARTITIONS, "logs-a": 1, "logs-b": 2}, topology={"supervision": {"intensity": 1_000_000}}
    ) as broker:
        yield broker


@pytest.fixture
def group() -> str:
    return f"group-{next(NUMBERS)}"


class Members:
    """Consumers of one group, polled in turns. offsets: what was read of each partition, in order of reading."""

    def __init__(self, broker: Broker, group: str, topics: list[str]) -> None:
        self._settings = {
            "bootstrap.servers": broker.bootstrap_servers, "group.id": group, "group.protocol": "consumer",
            "auto.offset.reset": "earliest", "enable.auto.commit": False}
        self._topics = topics
        self.consumers: list[Consumer] = []
        self.offsets: dict[Part, list[int]] = {}

    def join(self, **settings: str) -> Consumer:
        consumer = Consumer({**self._settings, **settings})
        consumer.subscribe(self._topics, on_revoke=self._on_revoke)
        self.consumers.append(consumer)
        return consumer

    def leave(self, consumer: Consumer) -> None:
        self.consumers.remove(consumer)
        consumer.close()

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        places = [each for each in consumer.position(partitions) if each.offset >= 0]
        deadline = time.monotonic() + TIMEOUT_S
        while places:
            try:
                consumer.commit(offsets=places, asynchronous=False)
                return
            except KafkaException as failed:  # a coordinator that was killed a moment ago reads its log
                if failed.args[0].code() != KafkaError.COORDINATOR_LOAD_IN_PROGRESS or time.monotonic() > deadline:
                    raise
                threading.Event().wait(0.02)

    def _take(self, message: Message) -> None:
        assert message.error() is None, message.error()
        self.offsets.setdefault((message.topic(), message.partition()), []).append(message.offset())

    def poll_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, self.owned()
            for consumer in self.consumers:
                if (message := consumer.poll(0.02)) is not None:
                    self._take(message)

    def owned(self) -> list[list[Part]]:
        return [sorted((each.topic, each.partition) for each in consumer.assignment()) for consumer in self.consumers]

    def share(self) -> list[int]:
        """How many partitions each has, once nobody has what another has."""
        owned = self.owned()
        assert len({part for each in owned for part in each}) == sum(map(len, owned)), owned
        return sorted(map(len, owned))


def produce(broker: Broker, topic: str, partitions: int, count: int) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
    for number in range(count):
        producer.produce(topic, str(number).encode(), partition=number % partitions)
    assert producer.flush(TIMEOUT_S) == 0


def test_two_become_three_become_one_while_coordinators_are_killed(broker: Broker, group: str) -> None:
    members = Members(broker, group, ["orders"])
    first, second = members.join(), members.join()
    members.poll_until(lambda: members.share() == [3, 3])
    produce(broker, "orders", PARTITIONS, 300)
    for name in COORDINATORS:
        broker.kill(name)
    members.poll_until(lambda: sum(map(len, members.offsets.values())) >= 300)
    assert members.share() == [3, 3], "nobody loses what it has because its coordinator dies"

    third = members.join()
    members.poll_until(lambda: members.share() == [2, 2, 2])
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    described = admin.describe_consumer_groups([group], request_timeout=TIMEOUT_S)[group].result()
    assert (described.state, described.type, described.partition_assignor) == (
        ConsumerGroupState.STABLE, ConsumerGroupType.CONSUMER, "uniform")
    told = sorted(sorted((each.topic, each.partition) for each in member.assignment.topic_partitions)
                  for member in described.members)
    assert told == sorted(members.owned())

    produce(broker, "orders", PARTITIONS, 300)
    members.poll_until(lambda: sum(map(len, members.offsets.values())) >= 600)
    for name in COORDINATORS:
        broker.kill(name)
    members.leave(third)
    members.leave(first)
    members.poll_until(lambda: members.share() == [PARTITIONS])
    produce(broker, "orders", PARTITIONS, 300)
    members.poll_until(lambda: sum(map(len, members.offsets.values())) >= 900)
    members.leave(second)
    assert members.offsets == {("orders", number): list(range(150)) for number in range(PARTITIONS)}, (
        "skipped, or read again although it was committed")


def test_an_expression_reads_topics_that_match_and_those_that_come(broker: Broker, group: str) -> None:
    members = Members(broker, group, ["^logs-.*"])
    members.join()
    members.poll_until(lambda: members.share() == [3])
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    new = f"logs-{group}"
    admin.create_topics([NewTopic(new, 2)], request_timeout=TIMEOUT_S)[new].result(TIMEOUT_S)
    members.poll_until(lambda: members.share() == [5])
    assert {topic for topic, _ in members.owned()[0]} == {"logs-a", "logs-b", new}
    for consumer in list(members.consumers):
        members.leave(consumer)


def test_a_static_member_that_restarts_disturbs_nobody(broker: Broker, group: str) -> None:
    members = Members(broker, group, ["orders"])
    static, other = members.join(**{"group.instance.id": "i"}), members.join()
    members.poll_until(lambda: members.share() == [3, 3])
    before, others = members.owned()
    members.leave(static)
    assert members.owned() == [others]
    members.join(**{"group.instance.id": "i"})
    members.poll_until(lambda: len(members.owned()[1]) == 3)
    assert members.owned() == [others, before]
    for consumer in (other, members.consumers[1]):
        members.leave(consumer)
