"""Real clients in classic groups: members come, go and crash, coordinators are killed, and every record is read once.

Each record's value is its number in its partition; who owns a partition goes on where the one before committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import kafka
import pytest
from aiokafka import AIOKafkaConsumer
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from zafka.runtime.errors import Refused
from zafka.testing import Broker

TIMEOUT_S = 40.0
PARTITIONS, RECORDS = 6, 50
TOPIC = "orders"
ALL = set(itertools.product(range(PARTITIONS), range(RECORDS)))
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """Of this module's own, because it kills processes."""
    with Broker(
        topics={TOPIC: PARTITIONS}, topology={"supervision": {"intensity": 1_000_000}},
        defaults={"group.initial.rebalance.delay.ms": 100, "group.min.session.timeout.ms": 1000},
    ) as broker:
        producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
        for partition in range(PARTITIONS):
            for number in range(RECORDS):
                producer.produce(TOPIC, str(number).encode(), partition=partition)
        assert producer.flush(TIMEOUT_S) == 0
        yield broker


@pytest.fixture
def group() -> str:
    return f"group-{next(NUMBERS)}"


class Members:
    """confluent-kafka consumers of one group, polled in turn. read: (partition, number) of each record, as it came.
    uncommitted: those whose commit was refused, because the group was about to share anew; they may come again."""

    def __init__(self, broker: Broker, group: str, **config: Any) -> None:
        self.config = {
            "bootstrap.servers": broker.bootstrap_servers, "group.id": group, "auto.offset.reset": "earliest",
            "session.timeout.ms": 6000, "heartbeat.interval.ms": 200, "enable.auto.commit": False,
            "fetch.wait.max.ms": 50, "log_level": 2, **config}
        self.consumers: list[Consumer] = []
        self.owned: dict[Consumer, set[int]] = {}
        self.read: list[tuple[int, int]] = []
        self.uncommitted: set[tuple[int, int]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for consumer in list(self.consumers):
            self.leave(consumer)

    def join(self, **config: Any) -> Consumer:
        consumer = Consumer({**self.config, **config})
        incremental = "cooperative" in str(self.config.get("partition.assignment.strategy"))

        def on_assign(consumer: Consumer, partitions: list[Any]) -> None:
            (consumer.incremental_assign if incremental else consumer.assign)(partitions)
            self.owned[consumer] |= {each.partition for each in partitions}

        def on_revoke(consumer: Consumer, partitions: list[Any]) -> None:
            if incremental:
                consumer.incremental_unassign(partitions)
            else:
                consumer.unassign()
            self.owned[consumer] -= {each.partition for each in partitions}

        self.owned[consumer] = set()
        consumer.subscribe([TOPIC], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_revoke)
        self.consumers.append(consumer)
        return consumer

    def poll(self) -> None:
        for consumer in self.consumers:
            message = consumer.poll(0.01)
            if message is not None and message.error() is None:
                value = message.value()
                assert value is not None
                self.read.append((message.partition() or 0, int(value)))
                try:
                    consumer.commit(message, asynchronous=False)
                except KafkaException:
                    self.uncommitted.add(self.read[-1])

    def poll_until(self, condition: Callable[[], bool]) -> None:
        end_s = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < end_s, (self.owned.values(), len(self.read))
            self.poll()

    def is_shared(self) -> bool:
        """All partitions are owned, each by one, and everybody has his share."""
        owned = [partition for consumer in self.consumers for partition in self.owned[consumer]]
        sizes = [len(self.owned[consumer]) for consumer in self.consumers]
        return sorted(owned) == list(range(PARTITIONS)) and max(sizes) - min(sizes) <= 1

    def leave(self, consumer: Consumer) -> None:
        self.consumers.remove(consumer)
        consumer.close()
        del self.owned[consumer]

    def check_read(self) -> None:
        """Everything, in order, and nothing twice but what could not be committed."""
        assert set(self.read) == ALL
        assert {each for each, count in Counter(self.read).items() if count > 1} <= self.uncommitted
        for partition in range(PARTITIONS):
            numbers = [number for each, number in self.read if each == partition]
            assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(numbers))


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "cooperative-sticky"])
def test_two_become_three_become_one_and_every_record_is_read_once(broker: Broker, group: str, strategy: str) -> None:
    with Members(broker, group, **{"partition.assignment.strategy": strategy}) as members:
        members.join()
        members.join()
        members.poll_until(members.is_shared)
        third = members.join()
        members.poll_until(members.is_shared)
        members.leave(third)
        members.leave(members.consumers[0])
        members.poll_until(members.is_shared)
        members.poll_until(lambda: set(members.read) == ALL)
        members.check_read()


def test_members_go_on_when_their_coordinator_is_killed(broker: Broker, group: str) -> None:
    with Members(broker, group) as members:
        members.join()
        members.join()
        members.poll_until(members.is_shared)
        before = {consumer: set(owned) for consumer, owned in members.owned.items()}
        for _ in range(3):
            broker.kill("partition __consumer_offsets-*")
            read = len(members.read)
            members.poll_until(lambda read=read: len(members.read) >= read + 20)  # type: ignore[misc]
        assert members.owned == before  # without a rebalance
        members.poll_until(lambda: set(members.read) == ALL)
        members.check_read()


def test_joining_and_leaving_while_coordinators_and_brokers_are_killed(broker: Broker, group: str) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    choice = random.Random(seed)
    done = threading.Event()

    def kill() -> None:
        while not done.wait(choice.uniform(0.1, 0.6)):
            with contextlib.suppress(Refused):  # it is dead already
                broker.kill(choice.choice(["partition __consumer_offsets-*", "partition __consumer_offsets-*", "broker 1"]))

    with Members(broker, group) as members, ThreadPoolExecutor(1) as pool:
        killer = pool.submit(kill)
        try:
            for _ in range(3):
                members.join()
            for _ in range(200):
                members.poll()
            members.leave(members.consumers[choice.randrange(3)])
            for _ in range(50):
                members.poll()
        finally:
            done.set()
        killer.result()
        members.poll_until(members.is_shared)
        members.poll_until(lambda: set(members.read) == ALL)
        members.check_read()


def test_a_static_member_comes_back_without_a_rebalance(broker: Broker, group: str) -> None:
    with Members(broker, group) as members:
        first = members.join(**{"group.instance.id": "one"})
        second = members.join(**{"group.instance.id": "two"})
        members.poll_until(members.is_shared)
        owned, others, told = set(members.owned[first]), set(members.owned[second]), describe(broker, group)
        assert told == {"one": owned, "two": others}
        members.leave(first)
        again = members.join(**{"group.instance.id": "one"})
        members.poll_until(lambda: members.owned[again] == owned)
        assert members.owned[second] == others
        assert describe(broker, group) == told


def describe(broker: Broker, group: str) -> dict[str | None, set[int]]:
    """What each instance is assigned, as an admin sees it."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    told = admin.describe_consumer_groups([group])[group].result(TIMEOUT_S)
    return {
        member.group_instance_id: {each.partition for each in member.assignment.topic_partitions}
        for member in told.members}


def test_kafka_python_shares_a_group_with_confluent(broker: Broker, group: str) -> None:
    theirs = kafka.KafkaConsumer(
        TOPIC, bootstrap_servers=broker.bootstrap_servers, group_id=group, auto_offset_reset="earliest",
        enable_auto_commit=False, session_timeout_ms=6000, heartbeat_interval_ms=200)
    read: set[tuple[int, int]] = set()

    def share() -> bool:
        for records in theirs.poll(timeout_ms=10).values():
            read.update((record.partition, int(record.value)) for record in records)
        return read | set(members.read) == ALL and len(theirs.assignment()) == PARTITIONS // 2

    with Members(broker, group, **{"partition.assignment.strategy": "range"}) as members:
        members.join()
        members.poll_until(share)
        theirs.close(autocommit=False)
        members.poll_until(members.is_shared)


def test_aiokafka_shares_a_group(broker: Broker, group: str) -> None:
    async def share() -> set[tuple[int, int]]:
        members = [
            AIOKafkaConsumer(
                TOPIC, bootstrap_servers=broker.bootstrap_servers, group_id=group, auto_offset_reset="earliest")
            for _ in range(2)]
        await asyncio.gather(*(member.start() for member in members))
        read: set[tuple[int, int]] = set()
        async with asyncio.timeout(TIMEOUT_S):
            while read != ALL or [len(member.assignment()) for member in members] != [PARTITIONS // 2] * 2:
                for member in members:
                    for records in (await member.getmany(timeout_ms=20)).values():
                        read |= {(record.partition, int(record.value)) for record in records}
        await asyncio.gather(*(member.stop() for member in members))
        return read

    assert asyncio.run(share()) == ALL
