"""The suite `native`: zafka's Python client beside confluent-kafka, on one zafka broker, on fresh topics.

Owns: the ways in which each client is used. confluent-kafka is set up as in the other suites, ours has its
defaults: both produce with acks=all and linger for 5 ms; ours is idempotent, confluent-kafka, as by its defaults, is
not. Both materialise every consumed value as `bytes`, and consuming is timed from the first record. Each has its
fastest ways: confluent-kafka `produce` with reports of errors only, and `produce_batch`; ours `send`, which returns a
future for each record, and `send_many`; by Kafka's protocol and through the ZeroMQ door.
May fail with AssertionError if records are missing.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import confluent_kafka

import zafka
from benchmarks import load, targets
from benchmarks.bench import Bench, order
from benchmarks.figures import LESS, Goal
from benchmarks.results import CONFLUENT, NATIVE_KAFKA, NATIVE_ZMQ

PARTITIONS = 4
GIVE_UP_S = 120.0
RECORDS = 1_000_000
WARM_SHARE = 10  # of the records, before the first round
AT_ONCE = 10_000
SIZES = {"100 B": (100, 100), "50 to 150 B": (50, 150)}
PRODUCE_GOALS = tuple(Goal(1.5, 2.5, subject=door, reference=CONFLUENT) for door in (NATIVE_ZMQ, NATIVE_KAFKA))
CONSUME_GOALS = tuple(Goal(1.0, 1.5, subject=door, reference=CONFLUENT) for door in (NATIVE_ZMQ, NATIVE_KAFKA))


@dataclass(frozen=True)
class Way:
    """One use of a client. run: takes a target, a topic and the values, and returns seconds."""

    client: str
    name: str
    run: Callable[[targets.Target, str, list[bytes]], float]


class Measured(NamedTuple):
    """cpu_us: of this process, all of its threads, for each record."""

    per_s: float
    cpu_us: float


# -- confluent-kafka -----------------------------------------------------------------------------


def confluent_producer(target: targets.Target, topic: str, failures: list[str]) -> confluent_kafka.Producer:
    producer = confluent_kafka.Producer({
        **load.PRODUCER, "bootstrap.servers": target.bootstrap, "queue.buffering.max.messages": 10_000_000,
        "delivery.report.only.error": True, "on_delivery": lambda error, _: failures.append(str(error)),
    })  # fmt: skip
    producer.list_topics(topic, timeout=10)
    return producer


def produce_confluent(target: targets.Target, topic: str, values: list[bytes]) -> float:
    failures: list[str] = []
    producer = confluent_producer(target, topic, failures)
    produce = producer.produce
    started_s = time.perf_counter()
    for number, value in enumerate(values):
        produce(topic, value)
        if number % 1000 == 0:
            producer.poll(0)
    return finish(producer, failures, started_s)


def produce_confluent_batch(target: targets.Target, topic: str, values: list[bytes]) -> float:
    failures: list[str] = []
    producer = confluent_producer(target, topic, failures)
    started_s = time.perf_counter()
    for first in range(0, len(values), AT_ONCE):
        producer.produce_batch(topic, [{"value": value} for value in values[first : first + AT_ONCE]])
        producer.poll(0)
    return finish(producer, failures, started_s)


def finish(producer: confluent_kafka.Producer, failures: list[str], started_s: float) -> float:
    left = producer.flush(GIVE_UP_S)
    elapsed_s = time.perf_counter() - started_s
    assert not left and not failures, f"{left} unacknowledged, {failures[:1]}"
    return elapsed_s


def consume_confluent(target: targets.Target, topic: str, values: list[bytes]) -> float:
    consumer = confluent_kafka.Consumer({**load.CONSUMER, "bootstrap.servers": target.bootstrap})
    consumer.assign([confluent_kafka.TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    try:
        return drain(lambda left: [message.value() for message in consumer.consume(left, timeout=GIVE_UP_S)], values)
    finally:
        consumer.close()


# -- ours ----------------------------------------------------------------------------------------


def produce_native(client: str, *, many: bool) -> Way:
    def produce(target: targets.Target, topic: str, values: list[bytes]) -> float:
        with zafka.Producer(address(target, client)) as producer:
            producer.partitions_for(topic)
            started_s = time.perf_counter()
            if many:
                producer.send_many(topic, values)
            else:
                send = producer.send
                for value in values:
                    send(topic, value)
            producer.flush()
            return time.perf_counter() - started_s

    return Way(client, "send_many" if many else "send", produce)


def consume_native(client: str, *, batches: bool) -> Way:
    def consume(target: targets.Target, topic: str, values: list[bytes]) -> float:
        with zafka.Consumer(topic, bootstrap_servers=address(target, client), auto_offset_reset="earliest") as consumer:
            if batches:
                lists = consumer.batches(max_records=AT_ONCE, timeout=GIVE_UP_S)
                return drain(lambda _: [record.value for record in next(lists, ())], values)
            return drain_one_by_one(consumer.records(timeout=GIVE_UP_S), values)

    return Way(client, "consume batches" if batches else "consume", consume)


def address(target: targets.Target, client: str) -> str:
    return target.zmq if client == NATIVE_ZMQ else target.bootstrap


def drain(take: Callable[[int], list[Any]], values: list[bytes]) -> float:
    """Take lists of values until all are there. take: is told how many there may be at most."""
    seen = total = 0
    started_s = 0.0
    while seen < len(values):
        got = take(min(AT_ONCE, len(values) - seen))
        started_s = started_s or time.perf_counter()
        assert got, f"nothing came any more after {seen} records"
        seen += len(got)
        total += sum(map(len, got))
    elapsed_s = time.perf_counter() - started_s
    assert total == sum(map(len, values))
    return elapsed_s


def drain_one_by_one(records: Iterable[zafka.Record], values: list[bytes]) -> float:
    total = 0
    started_s = 0.0
    for seen, record in enumerate(records, 1):
        value = record.value
        started_s = started_s or time.perf_counter()
        total += len(value or b"")
        if seen == len(values):
            break
    elapsed_s = time.perf_counter() - started_s
    assert total == sum(map(len, values))
    return elapsed_s


# -- the suite -----------------------------------------------------------------------------------

DOORS = (NATIVE_ZMQ, NATIVE_KAFKA)
PRODUCE = [
    Way(CONFLUENT, "produce", produce_confluent),
    *(produce_native(door, many=many) for door in DOORS for many in (False, True)),
]
if hasattr(confluent_kafka.Producer, "produce_batch"):
    PRODUCE.append(Way(CONFLUENT, "produce_batch", produce_confluent_batch))
CONSUME = [
    Way(CONFLUENT, "consume", consume_confluent),
    *(consume_native(door, batches=batches) for door in DOORS for batches in (True, False)),
]


def native(bench: Bench) -> None:
    """our Python client over both doors beside confluent-kafka, both from Python, every value as bytes"""
    with targets.running("zafka") as target:
        for size, (least, most) in SIZES.items():
            values = made_values(bench.scaled(RECORDS), least, most)
            measure(bench, target, values[: len(values) // WARM_SHARE + 1], 0)
            for number in range(bench.round_count):
                bench.tell(f"round {number + 1} of {bench.round_count}: {size}")
                note(bench, size, measure(bench, target, values, number))


def made_values(count: int, least: int, most: int) -> list[bytes]:
    rng = random.Random(1)
    source = rng.randbytes(most + 4096)
    return [source[at : at + rng.randint(least, most)] for at in (rng.randrange(4096) for _ in range(count))]


def measure(bench: Bench, target: targets.Target, values: list[bytes], number: int) -> dict[Way, Measured]:
    """One round: every way once, each of those that produce on a topic of its own."""
    found: dict[Way, Measured] = {}
    with ExitStack() as stack:
        for way in order(PRODUCE, number):
            stack.close()  # the last one's topic is what is consumed
            topic = stack.enter_context(bench.topic_at(target.bootstrap))
            found[way] = timed(way, target, topic, values)
        for way in order(CONSUME, number):
            found[way] = timed(way, target, topic, values)
    return found


def timed(way: Way, target: targets.Target, topic: str, values: list[bytes]) -> Measured:
    os.sync()
    cpu_s = time.process_time()
    took_s = way.run(target, topic, values)
    return Measured(len(values) / took_s, (time.process_time() - cpu_s) / len(values) * 1e6)


def note(bench: Bench, size: str, found: dict[Way, Measured]) -> None:
    """A row for each of our ways, beside confluent-kafka's fastest of that round."""
    for ways, goals in ((PRODUCE, PRODUCE_GOALS), (CONSUME, CONSUME_GOALS)):
        theirs = max(found[way] for way in ways if way.client == CONFLUENT)
        for name in dict.fromkeys(way.name for way in ways if way.client != CONFLUENT):
            ours = {way.client: found[way] for way in ways if way.name == name}
            for client, one in {CONFLUENT: theirs, **ours}.items():
                bench.note(f"{name}, {size}", "records/s", client, one.per_s, goals=goals)
                bench.note(f"{name}, {size}: client CPU", "us per record", client, one.cpu_us, better=LESS)
