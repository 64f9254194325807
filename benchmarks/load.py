"""The load that all systems get, by the same client (confluent-kafka) with the same settings.

Each function is one measurement: it returns what it took, and raises RuntimeError where a record failed or is missing.
"""

from __future__ import annotations

import struct
import threading
import time
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from zafka.runtime.bench import percentile

PARTITIONS = 4
GIVE_UP_S = 120.0
READ_RECORDS = 10_000
SETTLING_S = 1.0  # the first second of a latency measurement warms both sides up
SENT = struct.Struct(">d")

# Librdkafka's word for warnings: what it says of its mock broker and of a producer that ends is no news here.
QUIET = {"log_level": 4}
PRODUCER = {
    **QUIET,
    "acks": "all", "linger.ms": 5, "batch.size": 1_000_000, "message.max.bytes": 1_040_000,
    "queue.buffering.max.messages": 1_000_000, "queue.buffering.max.kbytes": 1_000_000,
}
CONSUMER = {
    **QUIET,
    "group.id": "bench", "enable.auto.commit": False, "auto.offset.reset": "earliest", "fetch.max.bytes": 50_000_000,
    "max.partition.fetch.bytes": 1_048_576, "queued.min.messages": 1_000_000,
    # By default librdkafka stops asking for a second once 64 MB wait for its user: then that is what is measured.
    "queued.max.messages.kbytes": 1_000_000, "fetch.queue.backoff.ms": 5,
}


def create_topic(
    bootstrap: str, topic: str, partitions: int = PARTITIONS, config: dict[str, str] | None = None
) -> None:
    admin = AdminClient({**QUIET, "bootstrap.servers": bootstrap})  # kept: its futures fail once it is collected
    admin.create_topics([NewTopic(topic, partitions, 1, config=config or {})])[topic].result(30)


def delete_topic(bootstrap: str, topic: str) -> None:
    admin = AdminClient({**QUIET, "bootstrap.servers": bootstrap})
    admin.delete_topics([topic])[topic].result(30)


def value_of(size_bytes: int) -> bytes:
    return (bytes(range(256)) * (size_bytes // 256 + 1))[:size_bytes]


def produce(
    bootstrap: str, topic: str, *, count: int, size_bytes: int, partitions: int = PARTITIONS,
    settings: dict[str, Any] | None = None,
) -> float:
    """Send `count` records of `size_bytes` with acks=all, wait for every ack; returns seconds."""
    failures: list[str] = []

    def on_delivery(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(str(error))

    producer = Producer({**PRODUCER, "bootstrap.servers": bootstrap, **(settings or {})})
    producer.list_topics(topic, timeout=10)
    value = value_of(size_bytes)
    started_s = time.perf_counter()
    for number in range(count):
        while True:
            try:
                producer.produce(topic, value, partition=number % partitions, on_delivery=on_delivery)
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


def consume(bootstrap: str, topic: str, *, count: int, partitions: int = PARTITIONS) -> float:
    """Read `count` records from the beginning of all partitions; returns seconds from the first record to the last."""
    consumer = Consumer({**CONSUMER, "bootstrap.servers": bootstrap})
    return _read(consumer, [TopicPartition(topic, partition, 0) for partition in range(partitions)], count)


def _read(consumer: Consumer, starts: list[TopicPartition], count: int) -> float:
    """From the first record to the last of `count`; never waits for more than there are."""
    consumer.assign(starts)
    deadline_s = time.perf_counter() + GIVE_UP_S
    try:
        first = None
        while first is None and time.perf_counter() < deadline_s:
            first = consumer.poll(1.0)
        started_s = time.perf_counter()
        seen = 1
        while seen < count:
            messages = consumer.consume(min(READ_RECORDS, count - seen), timeout=1.0)
            seen += sum(1 for message in messages if message.error() is None)
            if time.perf_counter() > deadline_s:
                raise RuntimeError(f"only {seen} of {count} records within {GIVE_UP_S} s")
        return time.perf_counter() - started_s
    finally:
        consumer.close()


def consume_last(bootstrap: str, topic: str, *, count: int, partitions: int = PARTITIONS) -> float:
    """Read the last `count` records, which all partitions share equally; returns seconds."""
    share = count // partitions
    consumer = Consumer({**CONSUMER, "bootstrap.servers": bootstrap})
    starts = []
    for partition in range(partitions):
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
        starts.append(TopicPartition(topic, partition, end - share))
    return _read(consumer, starts, share * partitions)


def at_rate(rate_per_s: int, seconds: float, producer: Producer, send: Any) -> None:
    """Call `send(number)` at a fixed rate; between two calls deliveries are served. What is late is sent at once."""
    start_s = time.perf_counter()
    for number in range(int(rate_per_s * seconds)):
        due_s = start_s + number / rate_per_s
        while (wait_s := due_s - time.perf_counter()) > 0:
            producer.poll(wait_s)
        send(number)
    if producer.flush(GIVE_UP_S):
        raise RuntimeError("records unacknowledged at the end of a latency measurement")


def percentiles(taken_ms: list[float]) -> dict[str, float]:
    ordered = sorted(taken_ms)
    return {name: percentile(ordered, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))}


def ack_latency_ms(bootstrap: str, topic: str, *, rate_per_s: int, seconds: float) -> dict[str, float]:
    """100-byte records at a fixed rate, linger 0, each acknowledged by itself; from `produce` to its delivery report."""
    producer = Producer({**QUIET, "bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 0})
    producer.list_topics(topic, timeout=10)
    taken_ms: list[float] = []
    value = value_of(100)

    def send(number: int) -> None:
        sent_s = time.perf_counter()

        def on_delivery(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                raise RuntimeError(f"a record failed: {error}")
            taken_ms.append((time.perf_counter() - sent_s) * 1e3)

        producer.produce(topic, value, partition=number % PARTITIONS, on_delivery=on_delivery)

    at_rate(rate_per_s, SETTLING_S + seconds, producer, send)
    return percentiles(taken_ms[int(rate_per_s * SETTLING_S):])


def end_to_end_ms(bootstrap: str, topic: str, *, rate_per_s: int, seconds: float) -> dict[str, float]:
    """The same to a consumer at the tail: from `produce` to the record in the consumer's hands."""
    total = int(rate_per_s * (SETTLING_S + seconds))
    taken_ms: list[float] = []
    consumer = Consumer({**QUIET, "bootstrap.servers": bootstrap, "group.id": "bench", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])

    def read() -> None:
        deadline_s = time.perf_counter() + GIVE_UP_S
        while len(taken_ms) < total and time.perf_counter() < deadline_s:
            message = consumer.poll(1.0)
            if message is not None and message.error() is None:
                taken_ms.append((time.perf_counter() - SENT.unpack_from(message.value())[0]) * 1e3)

    reader = threading.Thread(target=read)
    reader.start()
    producer = Producer({**QUIET, "bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 0})
    producer.list_topics(topic, timeout=10)
    filler = value_of(100 - SENT.size)
    at_rate(rate_per_s, SETTLING_S + seconds, producer, lambda number: producer.produce(
        topic, SENT.pack(time.perf_counter()) + filler, partition=number % PARTITIONS))
    reader.join()
    consumer.close()
    if len(taken_ms) < total:
        raise RuntimeError(f"the consumer saw {len(taken_ms)} of {total} records")
    return percentiles(taken_ms[int(rate_per_s * SETTLING_S):])


def first_acknowledged_produce(bootstrap: str, topic: str) -> None:
    """Return once one record was acknowledged, however often the connection has to be tried."""
    acknowledged: list[bool] = []

    def on_delivery(error: KafkaError | None, _message: Message) -> None:
        acknowledged.append(error is None)

    producer = Producer({
        "bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 0, "reconnect.backoff.ms": 10,
        "reconnect.backoff.max.ms": 20, "retry.backoff.ms": 5, "topic.metadata.refresh.fast.interval.ms": 10,
        "log_level": 0,
    })
    producer.produce(topic, b"first", on_delivery=on_delivery)
    if producer.flush(GIVE_UP_S) or acknowledged != [True]:
        raise RuntimeError("the first record was not acknowledged")
