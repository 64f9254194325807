"""Real clients commit and fetch offsets of partitions that they assigned to themselves, while coordinators die."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import kafka
import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from kafka.structs import OffsetAndMetadata

from zafka.testing import Broker

TIMEOUT_S = 60.0
KILLS = 12
COORDINATORS = [f"partition __consumer_offsets-{number}" for number in range(4)]


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """Of this module's own, because it kills processes."""
    with Broker(topics={"orders": 3}, topology={"supervision": {"intensity": 1_000_000}}) as broker:
        yield broker


NUMBERS = itertools.count()


@pytest.fixture
def group() -> str:
    return f"group-{next(NUMBERS)}"


def consumer(broker: Broker, group: str) -> Consumer:
    return Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": group, "enable.auto.commit": False})


def committed(consumer: Consumer, *partitions: int) -> list[tuple[int, str | None]]:
    wanted = [TopicPartition("orders", number) for number in partitions]
    return [(each.offset, each.metadata) for each in consumer.committed(wanted, timeout=TIMEOUT_S)]


def test_confluent_commits_and_another_consumer_of_the_group_goes_on_there(broker: Broker, group: str) -> None:
    first = consumer(broker, group)
    assert [offset for offset, _ in committed(first, 0, 1)] == [-1001, -1001]
    first.commit(offsets=[TopicPartition("orders", 0, 42, "how far"), TopicPartition("orders", 1, 7)], asynchronous=False)
    first.close()
    second = consumer(broker, group)
    assert committed(second, 0) == [(42, "how far")]
    assert [offset for offset, _ in committed(second, 1, 2)] == [7, -1001]
    second.close()


def test_kafka_python_and_confluent_see_each_others_offsets(broker: Broker, group: str) -> None:
    theirs = kafka.KafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers, group_id=group, enable_auto_commit=False)
    where = kafka.TopicPartition("orders", 0)
    theirs.assign([where])
    theirs.commit({where: OffsetAndMetadata(5, "from Python", -1)})
    assert theirs.committed(where) == 5
    other = consumer(broker, group)
    assert committed(other, 0) == [(5, "from Python")]
    other.commit(offsets=[TopicPartition("orders", 0, 6)], asynchronous=False)
    assert theirs.committed(where) == 6
    theirs.close()
    other.close()


def test_everything_is_killed_and_every_offset_is_back(broker: Broker, group: str) -> None:
    groups = [f"{group}-{number}" for number in range(8)]  # of several coordinators
    for number, each in enumerate(groups):
        writer = consumer(broker, each)
        writer.commit(offsets=[TopicPartition("orders", 2, number)], asynchronous=False)
        writer.close()
    broker.kill_all()
    broker.start()
    for number, each in enumerate(groups):
        reader = consumer(broker, each)
        assert [offset for offset, _ in committed(reader, 2)] == [number]
        reader.close()


def test_offsets_never_go_back_while_coordinators_are_killed(broker: Broker, group: str) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    client = consumer(broker, group)
    client.commit(offsets=[TopicPartition("orders", 0, 0)], asynchronous=False)
    acknowledged = unsure = 0
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        killer = pool.submit(kill_coordinators, broker, random.Random(seed), done)
        offset = 0
        while not killer.done():
            offset += 1
            try:
                client.commit(offsets=[TopicPartition("orders", 0, offset)], asynchronous=False)
                acknowledged = offset
            except KafkaException:
                unsure = offset  # it may have been taken
            ((found, _),) = committed(client, 0)
            assert found == acknowledged or (found == unsure and unsure > acknowledged)
        killer.result()
    client.close()
    assert acknowledged > KILLS


def kill_coordinators(broker: Broker, choice: random.Random, done: threading.Event) -> None:
    """One after another, each once the one before is back."""
    for _ in range(KILLS):
        target = choice.choice(COORDINATORS)
        pid = broker.kill(target)
        for _ in range(1000):
            actor = broker.actor(target)
            if actor["state"] == "running" and actor["pid"] != pid:
                break
            done.wait(0.02)
