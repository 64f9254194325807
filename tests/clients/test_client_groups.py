"""Our client in groups, alone and with others: members come, go and crash, coordinators die, every record is read once.

Each record's value is its number in its partition; who is given a partition goes on where the one before committed.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Self

import confluent_kafka
import kafka
import pytest

import zafka
from zafka.client.errors import CommitFailed, ZafkaError
from zafka.client.membership import Rebalance

TIMEOUT_S = 60.0
PARTITIONS, RECORDS = 6, 50
TOPIC = "orders"
ALL = set(itertools.product(range(PARTITIONS), range(RECORDS)))
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def broker() -> Iterator[zafka.Broker]:
    """Of this module's own, because it kills processes."""
    with zafka.Broker(
        topics={TOPIC: PARTITIONS}, topology={"supervision": {"intensity": 1_000_000}},
        defaults={"group.initial.rebalance.delay.ms": 100, "group.min.session.timeout.ms": 1000},
    ) as broker:
        with zafka.Producer(broker.bootstrap_servers) as producer:
            for partition, number in sorted(ALL):
                producer.send(TOPIC, str(number).encode(), partition=partition)
        yield broker


@pytest.fixture(params=["kafka", "zmq"])
def door(broker: zafka.Broker, request: pytest.FixtureRequest) -> str:
    return broker.bootstrap_servers if request.param == "kafka" else broker.zmq_bootstrap_servers


@pytest.fixture
def group() -> str:
    return f"ours-{next(NUMBERS)}"


def settings(bootstrap: str, group: str, **config: Any) -> dict[str, Any]:
    return {
        "bootstrap_servers": bootstrap, "group_id": group, "auto_offset_reset": "earliest", "session_timeout": 6.0,
        "heartbeat_interval": 0.2, "fetch_max_wait": 0.05, **config}


class Members:
    """Consumers of one group, polled in turn; each commits what it read. read: (partition, number), as it came.
    uncommitted: those whose commit was refused; they may come again."""

    def __init__(self, bootstrap: str, group: str, **config: Any) -> None:
        self.settings = settings(bootstrap, group, enable_auto_commit=False, **config)
        self.consumers: list[zafka.Consumer] = []
        self.events: dict[zafka.Consumer, list[Rebalance]] = {}
        self.read: list[tuple[int, int]] = []
        self.uncommitted: set[tuple[int, int]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for consumer in list(self.consumers):
            self.leave(consumer)

    def join(self, **config: Any) -> zafka.Consumer:
        events: list[Rebalance] = []
        consumer = zafka.Consumer(TOPIC, on_rebalance=events.append, **{**self.settings, **config})
        self.events[consumer] = events
        self.consumers.append(consumer)
        return consumer

    def poll(self) -> None:
        for consumer in self.consumers:
            records = consumer.poll(0.02, max_records=7)
            numbers = [(record.partition, int(record.value or b"")) for record in records]
            self.read += numbers
            try:
                consumer.commit()
            except ZafkaError:
                self.uncommitted.update(numbers)

    def poll_until(self, condition: Callable[[], bool]) -> None:
        end_s = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < end_s, ([each.assignment() for each in self.consumers], len(self.read))
            self.poll()

    def shares(self) -> list[int]:
        return sorted(len(consumer.assignment()) for consumer in self.consumers)

    def is_shared(self) -> bool:
        """All partitions are owned, each by one, and everybody has his share."""
        owned = [where.partition for consumer in self.consumers for where in consumer.assignment()]
        return sorted(owned) == list(range(PARTITIONS)) and self.shares()[-1] - self.shares()[0] <= 1

    def leave(self, consumer: zafka.Consumer) -> None:
        self.consumers.remove(consumer)
        consumer.close()

    def check_read(self) -> None:
        """Everything, in order, and nothing twice but what could not be committed."""
        assert set(self.read) == ALL
        assert {each for each, count in Counter(self.read).items() if count > 1} <= self.uncommitted
        for partition in range(PARTITIONS):
            numbers = [number for each, number in self.read if each == partition]
            assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(numbers))


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "sticky", "cooperative-sticky"])
def test_two_become_three_become_one_and_every_record_is_read_once(door: str, group: str, strategy: str) -> None:
    with Members(door, group, partition_assignment_strategy=strategy) as members:
        first = members.join()
        members.join()
        members.poll_until(members.is_shared)
        assert members.shares() == [3, 3]
        third = members.join()
        members.poll_until(members.is_shared)
        assert members.shares() == [2, 2, 2]
        members.leave(third)
        members.leave(first)
        members.poll_until(members.is_shared)
        members.poll_until(lambda: set(members.read) == ALL)
        members.check_read()


def test_cooperative_members_go_on_with_what_they_keep(broker: zafka.Broker, group: str) -> None:
    with Members(broker.bootstrap_servers, group, partition_assignment_strategy="cooperative-sticky") as members:
        first = members.join()
        members.poll_until(lambda: len(first.assignment()) == PARTITIONS)
        members.join()
        members.poll_until(members.is_shared)
        kept = first.assignment()
        paused = min(kept)
        first.pause(paused)
        members.join()
        members.poll_until(members.is_shared)
        revoked: set[zafka.TopicPartition] = set().union(*(event.revoked for event in members.events[first]))
        assert len(revoked) == 4  # of six: each once, and never what it kept
        assert not revoked & first.assignment()
        assert first.paused() == {paused} & first.assignment()


def test_members_are_told_why(broker: zafka.Broker, group: str) -> None:
    with Members(broker.bootstrap_servers, group) as members:
        first = members.join()
        members.poll_until(members.is_shared)
        second = members.join()
        members.poll_until(members.is_shared)
        members.leave(second)
        members.poll_until(members.is_shared)
        events = members.events[first]
        assigned = [event for event in events if event.assigned]
        assert assigned[0].why == "this consumer joined"
        assert assigned[1].why.startswith("joined: zafka-consumer-")
        assert assigned[-1].why.startswith("left or timed out: zafka-consumer-")
        assert not any(event.lost for event in events)
