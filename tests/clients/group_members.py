"""Consumers of ours as members of one group, for tests: polled in turn, each commits what it read.

Each record's value is its number in its partition; who is given a partition goes on where the one before committed.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

import zafka
from zafka.client.errors import ZafkaError
from zafka.client.membership import Rebalance

TIMEOUT_S = 60.0
PARTITIONS, RECORDS = 6, 50
TOPIC = "orders"
ALL = set(itertools.product(range(PARTITIONS), range(RECORDS)))
CLASSIC: dict[str, Any] = {"group_protocol": "classic"}
CONSUMER: dict[str, Any] = {"group_protocol": "consumer"}


def settings(bootstrap: str, group: str, **config: Any) -> dict[str, Any]:
    """Of a consumer: classic if the configuration does not say otherwise."""
    known = {"bootstrap_servers": bootstrap, "group_id": group, "auto_offset_reset": "earliest", "fetch_max_wait": 0.05}
    classic = {} if config.get("group_protocol") == "consumer" else {"session_timeout": 6.0, "heartbeat_interval": 0.2}
    return {**known, **classic, **config}


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
