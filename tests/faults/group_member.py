"""A member of a group in a process of its own, so that it can be stopped and killed: `python -m tests.faults.group_member JSON`.

It reads, commits, and writes what it does and is told as lines of JSON, each an `Event`; SIGTERM has it leave in order.
Invariant: a line about an attempt is written before it is made, one about an answer after it came.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import sys
import threading
import time
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

import zafka
from tests.group_history import ASSIGNED, COMMITS, COMMITTED, READ
from zafka.client.membership import Rebalance

POLL_S = 0.1
GENERATION = struct.Struct("=i")
GENERATION_POSITION = 7  # in what librdkafka writes of a member, behind "CGMDv2:"


class Member:
    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.name: str = settings["name"]
        self.must_end = threading.Event()

    def say(self, kind: str, topic: str, partition: int, offset: int = -1, end: int = -1, generation: int = -1) -> None:
        line = [time.monotonic(), self.name, kind, f"{topic}-{partition}", offset, end, generation]
        os.write(1, json.dumps(line).encode() + b"\n")

    def say_read(self, offsets: dict[tuple[str, int], list[int]]) -> None:
        """Ranges without a gap, of what one poll brought."""
        for where, read in offsets.items():
            first = 0
            for index in range(1, len(read) + 1):
                if index == len(read) or read[index] != read[index - 1] + 1:
                    self.say(READ, *where, read[first], read[index - 1] + 1)
                    first = index


class ConfluentMember(Member):
    """By confluent-kafka, in either protocol."""

    def work(self) -> None:
        classic = {"session.timeout.ms": self.settings["session_ms"], "heartbeat.interval.ms": 300,
                   "partition.assignment.strategy": self.settings["strategy"]}
        self.consumer = Consumer({
            "bootstrap.servers": self.settings["bootstrap"], "group.id": self.settings["group"],
            "group.protocol": self.settings["protocol"], "auto.offset.reset": "earliest", "enable.auto.commit": False,
            "reconnect.backoff.max.ms": 200, "socket.timeout.ms": 5000, "log_level": 0,
            **(classic if self.settings["protocol"] == "classic" else {})})
        self.consumer.subscribe([self.settings["topic"]], on_assign=self._on_assign, on_revoke=self._on_revoke)
        while not self.must_end.is_set():
            offsets: dict[tuple[str, int], list[int]] = {}
            for message in self.consumer.consume(500, timeout=POLL_S):
                if message.error() is None:
                    offsets.setdefault((message.topic() or "", message.partition() or 0), []).append(message.offset() or 0)
            self.say_read(offsets)
            if offsets:
                self._commit([TopicPartition(*where, read[-1] + 1) for where, read in offsets.items()])
        self.consumer.close()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        metadata: Any = consumer.consumer_group_metadata()
        (generation,) = GENERATION.unpack_from(metadata, GENERATION_POSITION)
        for each in partitions:
            self.say(ASSIGNED, each.topic, each.partition, generation=generation)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """What was read is committed after each poll; here once more, as programs do."""
        places = [each for each in consumer.position(partitions) if each.offset >= 0]
        if places:
            self._commit(places)

    def _commit(self, places: list[TopicPartition]) -> None:
        for each in places:
            self.say(COMMITS, each.topic, each.partition, each.offset)
        with contextlib.suppress(KafkaException):  # others may have them by now, or nobody is there
            for each in self.consumer.commit(offsets=places, asynchronous=False) or ():
                if each.error is None:
                    self.say(COMMITTED, each.topic, each.partition, each.offset)


class ZafkaMember(Member):
    """By our client, in either protocol."""

    def work(self) -> None:
        classic = {"session_timeout": self.settings["session_ms"] / 1000, "heartbeat_interval": 0.3,
                   "partition_assignment_strategy": self.settings["strategy"]}
        with zafka.Consumer(
            self.settings["topic"], bootstrap_servers=self.settings["bootstrap"], group_id=self.settings["group"],
            auto_offset_reset="earliest", enable_auto_commit=False, on_rebalance=self._on_rebalance,
            bootstrap_timeout=60.0, request_timeout=5.0, group_protocol=self.settings["protocol"],
            **(classic if self.settings["protocol"] == "classic" else {}),
        ) as consumer:
            self.consumer = consumer
            while not self.must_end.is_set():
                offsets: dict[tuple[str, int], list[int]] = {}
                for record in consumer.poll(POLL_S, max_records=500):
                    offsets.setdefault((record.topic, record.partition), []).append(record.offset)
                self.say_read(offsets)
                if offsets:
                    self._commit({zafka.TopicPartition(*where): read[-1] + 1 for where, read in offsets.items()})

    def _on_rebalance(self, event: Rebalance) -> None:
        for where in event.assigned:
            self.say(ASSIGNED, where.topic, where.partition, generation=event.generation)

    def _commit(self, places: dict[zafka.TopicPartition, int]) -> None:
        for where, offset in places.items():
            self.say(COMMITS, where.topic, where.partition, offset)
        try:
            self.consumer.commit(places)
        except zafka.ZafkaError:  # as above
            return
        for where, offset in places.items():
            self.say(COMMITTED, where.topic, where.partition, offset)


def main() -> int:
    settings = json.loads(sys.argv[1])
    member = (ConfluentMember if settings["client"] == "librdkafka" else ZafkaMember)(settings)
    signal.signal(signal.SIGTERM, lambda *_: member.must_end.set())
    member.work()
    return 0


if __name__ == "__main__":
    sys.exit(main())
