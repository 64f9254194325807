"""A compacted topic at work: a writer of few keys, and readings from its start to its end, while everything else goes on.

Owns: `Keys`, a client as those of `loads.py`, of one topic of one partition. `tests/key_ledger.py` judges what was read.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import deque
from functools import partial
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

import zafka
from tests.faults.loads import DELIVERY_S, NETWORK_S, READ_S, Client, Shared
from tests.key_ledger import Ledger, Value, Write

KEYS = 12
TURN_S = 0.02
RECORDS_A_TURN = 4
READING_EVERY_S = 1.5
READING_S = 5.0  # longer than this a reading is given up: somebody it asked is not there
TOMBSTONES = 0.25

RETENTION_S = 2
_COMPACTED = {"segment.ms": 700, "min.cleanable.dirty.ratio": 0.01, "delete.retention.ms": RETENTION_S * 1000}
TOPICS: list[dict[str, Any]] = [
    {"name": "keys", "partitions": 1, "config": {"cleanup.policy": "compact", **_COMPACTED}},
    {"name": "recent-keys", "partitions": 1, "config": {
        "cleanup.policy": "compact,delete", "retention.ms": 8000, "file.delete.delay.ms": 1000, **_COMPACTED}},
]
KEY_DEFAULTS = {"log.cleaner.backoff.ms": 200}

Last = dict[bytes, tuple[int, Value]]
Report = tuple[Write, int, KafkaError | None]


class Keys(Client):
    """topic: one of `TOPICS`. readings: how many came to their end."""

    def __init__(
        self, bootstrap: str, native: str, topic: str, shared: Shared, seed: int, *, network_s: float = NETWORK_S
    ) -> None:
        super().__init__(shared, f"keys of {topic}")
        self.bootstrap, self.native, self.topic = bootstrap, native, topic
        self.network_s = network_s
        self.ledger = Ledger(RETENTION_S)
        self.acknowledged = self.readings = self.seen = 0
        self._random = random.Random(seed)
        self._number = 0
        self._reports: deque[Report] = deque()

    def work(self) -> None:
        producer = Producer({
            "bootstrap.servers": self.bootstrap, "enable.idempotence": True, "linger.ms": 2, "log_level": 0,
            "message.timeout.ms": int(DELIVERY_S * 1000), "reconnect.backoff.max.ms": 200,
            "socket.timeout.ms": int(self.network_s * 1000)})
        with zafka.Consumer(
            bootstrap_servers=self.native, auto_offset_reset="earliest", bootstrap_timeout=READ_S, request_timeout=self.network_s,
        ) as consumer:
            reading_s = time.monotonic() + READING_EVERY_S
            while not self.must_end.wait(TURN_S):
                for _ in range(RECORDS_A_TURN):
                    self._write(producer)
                self._serve(producer)
                if time.monotonic() > reading_s:
                    self._read(consumer)
                    reading_s = time.monotonic() + READING_EVERY_S
            if left := producer.flush(DELIVERY_S):
                self.shared.fail(self.name, f"{left} records are neither acknowledged nor failed")
            self._serve(producer)

    # -- writing ---------------------------------------------------------------------------------

    def _write(self, producer: Producer) -> None:
        self._number += 1
        key = b"key-%d" % self._random.randrange(KEYS)
        value = None if self._random.random() < TOMBSTONES else b"%d " % self._number + b"." * self._random.randrange(200)
        write = self.ledger.begin(key, value, time.monotonic())
        try:
            producer.produce(self.topic, key=key, value=value, partition=0, on_delivery=partial(self._on_delivery, write))
        except BufferError as error:
            self.shared.fail(self.name, str(error))

    def _on_delivery(self, write: Write, error: KafkaError | None, message: Message) -> None:
        self._reports.append((write, message.offset() or 0, error))

    def _serve(self, producer: Producer) -> None:
        producer.poll(0)
        while self._reports:
            write, offset, error = self._reports.popleft()
            if error is not None:
                self.shared.fail(self.name, f"{write}: {error}")
                continue
            write.offset = offset
            self.acknowledged += 1

    # -- reading ---------------------------------------------------------------------------------

    def _read(self, consumer: zafka.Consumer) -> None:
        """From the start to the end, as it is at the beginning, by our client."""
        where = zafka.TopicPartition(self.topic, 0)
        floor, last = self.ledger.last_acknowledged(), Last()
        give_up_s, previous = time.monotonic() + READING_S, -1
        with contextlib.suppress(zafka.ZafkaError):  # who is asked is not there, for now
            start = consumer.beginning_offsets([where], READING_S)[where]
            end = consumer.end_offsets([where], READING_S)[where]
            consumer.assign([where])
            consumer.seek(where, start)
            while consumer.position(where, READING_S) < end:
                if time.monotonic() > give_up_s:
                    return
                for record in consumer.poll(0.1):
                    previous = self._take(last, previous, record.key or b"", record.offset, record.value)
            low = consumer.beginning_offsets([where], READING_S)[where]
            self._judge(floor, last, low)

    def check(self) -> None:
        """When nothing is written any more: by librdkafka."""
        floor, last = self.ledger.last_acknowledged(), Last()
        settings: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap, "group.id": "none", "enable.partition.eof": True, "enable.auto.commit": False,
            "auto.offset.reset": "earliest"}
        consumer, previous = Consumer(settings), -1
        try:
            consumer.assign([TopicPartition(self.topic, 0, 0)])
            while (message := consumer.poll(READ_S)) is not None:
                error = message.error()
                if error is None:
                    previous = self._take(last, previous, message.key() or b"", message.offset() or 0, message.value())
                elif error.code() == KafkaError._PARTITION_EOF:
                    low, _ = consumer.get_watermark_offsets(TopicPartition(self.topic, 0), timeout=READ_S)
                    self._judge(floor, last, low)
                    return
            self.shared.fail(self.name, f"reading does not come to its end; it was at {previous}")
        finally:
            consumer.close()

    def _take(self, last: Last, previous: int, key: bytes, offset: int, value: Value) -> int:
        """One record, as it comes."""
        if offset <= previous:
            self.shared.fail(self.name, f"reading {self.readings + 1}: offset {offset} after {previous}")
        for complaint in self.ledger.complaints_of(key, offset, value):
            self.shared.fail(self.name, complaint)
        last[key] = offset, value
        self.seen += 1
        return offset

    def _judge(self, floor: dict[bytes, Write], last: Last, low: int) -> None:
        self.readings += 1
        for complaint in self.ledger.complaints(floor, last, time.monotonic(), low=low):
            self.shared.fail(self.name, complaint)

    def told(self) -> str:
        return (f"{self.topic}: {self.acknowledged} records of {KEYS} keys acknowledged, {self.readings} readings of "
                f"{self.seen / max(self.readings, 1):.0f} records")
