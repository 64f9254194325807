"""Idempotent producers that number their records and remember where each was acknowledged; and the check of that."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from typing import Any, Protocol

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition

import zafka

PARTITIONS = 4
DELIVERY_S = 120.0
READ_S = 60.0
RECORDS_A_TURN = 8
TURN_S = 0.005


class Load(Protocol):
    """`acknowledged[partition][sequence]` is an offset; `failures` must stay empty."""

    topic: str
    acknowledged: list[dict[int, int]]
    failures: list[str]

    def finish(self) -> None: ...


class _Load(threading.Thread, ABC):
    """Sends numbered records to all partitions in turn until `finish`, about 1,500 a second."""

    def __init__(self, topic: str, failed: threading.Event) -> None:
        super().__init__(daemon=True)
        self.topic = topic
        self.acknowledged: list[dict[int, int]] = [{} for _ in range(PARTITIONS)]
        self.sent = [0] * PARTITIONS
        self.failures: list[str] = []
        self._failed = failed
        self._stop_sending = threading.Event()

    def run(self) -> None:
        while not self._stop_sending.wait(TURN_S):
            for number in range(RECORDS_A_TURN):
                partition = number % PARTITIONS
                sequence = self.sent[partition]
                self.send(partition, sequence)
                self.sent[partition] += 1
        self.flush()

    def finish(self) -> None:
        """Stop sending and wait until everything is acknowledged or failed."""
        self._stop_sending.set()
        self.join(DELIVERY_S + 10)
        assert not self.is_alive(), "the load does not end"

    def note(self, partition: int, sequence: int, offset: int, error: object) -> None:
        if error is None:
            self.acknowledged[partition][sequence] = offset
        else:
            self.failures.append(f"partition {partition}, record {sequence}: {error}")
            self._failed.set()

    @abstractmethod
    def send(self, partition: int, sequence: int) -> None: ...

    @abstractmethod
    def flush(self) -> None: ...


class ConfluentLoad(_Load):
    """By confluent-kafka, idempotent."""

    def __init__(self, bootstrap: str, topic: str, failed: threading.Event) -> None:
        super().__init__(topic, failed)
        self._producer = Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 2,
            "message.timeout.ms": int(DELIVERY_S * 1000), "queue.buffering.max.messages": 5000,
            "reconnect.backoff.max.ms": 200, "log_level": 0,
        })

    def send(self, partition: int, sequence: int) -> None:
        def on_delivery(error: KafkaError | None, message: Message) -> None:
            self.note(partition, sequence, message.offset(), error)

        while True:
            try:
                self._producer.produce(self.topic, b"%d" % sequence, partition=partition, on_delivery=on_delivery)
                break
            except BufferError:
                self._producer.poll(0.05)
        self._producer.poll(0)

    def abandon(self) -> None:
        """Stop sending and wait for nothing."""
        self._stop_sending.set()
        self._producer.purge()
        self.join(DELIVERY_S)

    def flush(self) -> None:
        left = self._producer.flush(DELIVERY_S)
        if left:
            self.failures.append(f"{left} records are neither acknowledged nor failed")


class ZafkaLoad(_Load):
    """By our client."""

    def __init__(self, bootstrap: str, topic: str, failed: threading.Event) -> None:
        super().__init__(topic, failed)
        self._producer = zafka.Producer(bootstrap, linger_ms=2, delivery_timeout=DELIVERY_S)

    def send(self, partition: int, sequence: int) -> None:
        def on_done(delivery: zafka.Delivery) -> None:
            error = delivery.exception()
            self.note(partition, sequence, -1 if error else delivery.result().offset, error)

        self._producer.send(self.topic, b"%d" % sequence, partition=partition).add_done_callback(on_done)

    def flush(self) -> None:
        self._producer.flush(DELIVERY_S)
        self._producer.close()


def read_all(bootstrap: str, topic: str) -> list[list[tuple[int, bytes]]]:
    """(offset, value) of every record of every partition, as they come."""
    found: list[list[tuple[int, bytes]]] = [[] for _ in range(PARTITIONS)]
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False,
                         "auto.offset.reset": "error"})
    ends = [consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=READ_S)[1] for p in range(PARTITIONS)]
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(PARTITIONS)])
    deadline_s = time.monotonic() + READ_S
    while any(len(records) < end for records, end in zip(found, ends, strict=True)):
        assert time.monotonic() < deadline_s, f"read {[len(records) for records in found]} of {ends}"
        for message in consumer.consume(5000, timeout=0.5):
            assert message.error() is None, message.error()
            found[message.partition()].append((message.offset(), message.value()))
    consumer.close()
    return found


def problems_of(load: Any, found: list[list[tuple[int, bytes]]]) -> list[str]:
    """What does not hold of: each record is there once, in order of sending, at its acknowledged offset."""
    problems = list(load.failures[:5])
    for partition, records in enumerate(found):
        acknowledged, sent = load.acknowledged[partition], load.sent[partition]
        where = f"{load.topic}-{partition}"
        if len(acknowledged) != sent:
            problems.append(f"{where}: {sent} sent, {len(acknowledged)} acknowledged")
        if [offset for offset, _ in records] != list(range(len(records))):
            problems.append(f"{where}: offsets have a gap, a repetition or a step back")
        values = [int(value) for _, value in records]
        if values != list(range(sent)):
            odd = next((n for n, value in enumerate(values) if value != n), len(values))
            problems.append(
                f"{where}: {len(values)} records for {sent} sent; from offset {odd} on they are {values[odd:odd + 5]}")
        misplaced = [
            (value, offset, acknowledged.get(value)) for (offset, _), value in zip(records, values, strict=True)
            if acknowledged.get(value, offset) != offset]
        if misplaced:
            problems.append(f"{where}: (record, offset, acknowledged offset): {misplaced[:5]}")
    return problems
