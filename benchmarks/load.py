"""The load that both systems get, by the same client (confluent-kafka) with the same settings."""

from __future__ import annotations

import time
from statistics import quantiles
from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

PARTITIONS = 4
GIVE_UP_S = 60.0


def create_topic(bootstrap: str, topic: str, partitions: int = PARTITIONS) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})  # kept: its futures fail once it is collected
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)


def produce(bootstrap: str, topic: str, *, count: int, size_bytes: int) -> float:
    """Send `count` records of `size_bytes` with acks=all, wait for every ack; returns seconds."""
    failures: list[str] = []

    def on_delivery(error: KafkaError | None, _message: Any) -> None:
        if error is not None:
            failures.append(str(error))

    producer = Producer({
        "bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 5, "batch.size": 1_000_000,
        "queue.buffering.max.messages": 1_000_000, "queue.buffering.max.kbytes": 1_000_000,
    })
    producer.list_topics(topic, timeout=10)
    value = bytes(range(256)) * (size_bytes // 256 + 1)
    value = value[:size_bytes]
    started_s = time.perf_counter()
    for number in range(count):
        while True:
            try:
                producer.produce(topic, value, partition=number % PARTITIONS, on_delivery=on_delivery)
                break
            except BufferError:
                producer.poll(0.01)
        if number % 1000 == 0:
            producer.poll(0)
    left = producer.flush(GIVE_UP_S)
    elapsed_s = time.perf_counter() - started_s
    if left or failures:
        raise RuntimeError(f"{left} records unacknowledged, {len(failures)} failed: {failures[:1]}")
    return elapsed_s


def consume(bootstrap: str, topic: str, *, count: int) -> float:
    """Read `count` records from the beginning of all partitions; returns seconds from the first record to the last."""
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "bench", "enable.auto.commit": False,
        "auto.offset.reset": "earliest", "fetch.max.bytes": 50_000_000, "max.partition.fetch.bytes": 1_048_576,
        "queued.min.messages": 1_000_000,
    })
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    seen = 0
    started_s = 0.0
    deadline_s = time.perf_counter() + GIVE_UP_S
    while seen < count:
        messages = consumer.consume(10_000, timeout=1.0)
        if messages and not started_s:
            started_s = time.perf_counter()
        seen += sum(1 for message in messages if message.error() is None)
        if time.perf_counter() > deadline_s:
            raise RuntimeError(f"only {seen} of {count} records within {GIVE_UP_S} s")
    elapsed_s = time.perf_counter() - started_s
    consumer.close()
    return elapsed_s


def ack_latency_ms(bootstrap: str, topic: str, *, rate_per_s: int, seconds: float) -> dict[str, float]:
    """One record at a time at a fixed rate, linger 0; returns p50, p99 and the largest, in milliseconds."""
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 0})
    producer.list_topics(topic, timeout=10)
    taken_ms: list[float] = []
    value = b"x" * 100
    interval_s = 1 / rate_per_s
    start_s = time.perf_counter()
    for number in range(int(rate_per_s * seconds)):
        due_s = start_s + number * interval_s
        while (wait_s := due_s - time.perf_counter()) > 0:
            producer.poll(wait_s)
        sent_s = time.perf_counter()

        def on_delivery(error: KafkaError | None, _message: Any, sent_s: float = sent_s) -> None:
            if error is None:
                taken_ms.append((time.perf_counter() - sent_s) * 1e3)

        producer.produce(topic, value, partition=number % PARTITIONS, on_delivery=on_delivery)
    producer.flush(GIVE_UP_S)
    taken_ms = taken_ms[rate_per_s:]  # the first second warms both sides up
    cuts = quantiles(taken_ms, n=1000)
    return {"p50": cuts[499], "p99": cuts[989], "max": max(taken_ms)}


def first_acknowledged_produce(bootstrap: str, topic: str) -> None:
    """Return once one record was acknowledged, however often the connection has to be tried."""
    acknowledged: list[bool] = []

    def on_delivery(error: KafkaError | None, _message: Any) -> None:
        acknowledged.append(error is None)

    producer = Producer({
        "bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 0, "reconnect.backoff.ms": 10,
        "reconnect.backoff.max.ms": 20, "retry.backoff.ms": 5, "topic.metadata.refresh.fast.interval.ms": 10,
        "log_level": 0,
    })
    producer.produce(topic, b"first", on_delivery=on_delivery)
    if producer.flush(GIVE_UP_S) or acknowledged != [True]:
        raise RuntimeError("the first record was not acknowledged")
