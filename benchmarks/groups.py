"""How long a consumer group takes to settle: ten members over a hundred partitions start, one more joins, one leaves.

Owns: `Members`, consumers of confluent-kafka or ours, each polled by a thread of its own; `settling_s`. Settled is when the members'
own assignments have every partition once, and nobody has more than one beyond another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaError

import zafka

MEMBERS, PARTITIONS = 10, 100
GIVE_UP_S = 60.0
LOOK_S = 0.005

# What members are configured with, by the name of the row.
PROTOCOLS: dict[str, dict[str, str]] = {
    "KIP-848": {"group.protocol": "consumer"},
    "range": {"group.protocol": "classic", "partition.assignment.strategy": "range"},
    "cooperative-sticky": {"group.protocol": "classic", "partition.assignment.strategy": "cooperative-sticky"},
    "our client": {"client": "zafka"},
}

Member = Consumer | zafka.Consumer


class Members:
    """The members of one group; those that are in it now in `consumers`."""

    def __init__(self, bootstrap: str, topic: str, group: str, settings: dict[str, str]) -> None:
        self.topic = topic
        self.consumers: list[Member] = []
        self._settings = {
            "bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "latest", "error_cb": _ignore, **settings}
        self._is_ours = settings.get("client") == "zafka"
        self._threads: dict[Member, tuple[threading.Thread, threading.Event]] = {}
        # By member: what it was told. To ask librdkafka for an assignment while others poll can wait for ever.
        self._held: dict[Member, set[int]] = {}

    def join(self) -> None:
        held: set[int] = set()
        consumer = self._start_ours(held) if self._is_ours else self._start(held)
        self._held[consumer] = held
        ended = threading.Event()
        thread = threading.Thread(target=_poll, args=(consumer, ended), daemon=True)
        self.consumers.append(consumer)
        self._threads[consumer] = thread, ended
        thread.start()

    def _start(self, held: set[int]) -> Consumer:
        consumer = Consumer(self._settings)
        consumer.subscribe(
            [self.topic], on_assign=lambda _, parts: held.update(part.partition for part in parts),
            on_revoke=lambda _, parts: held.difference_update(part.partition for part in parts))
        return consumer

    def _start_ours(self, held: set[int]) -> zafka.Consumer:
        def on_rebalance(event: zafka.Rebalance) -> None:
            held.difference_update(each.partition for each in event.revoked | event.lost)
            held.update(each.partition for each in event.assigned)

        return zafka.Consumer(
            self.topic, bootstrap_servers=self._settings["bootstrap.servers"], group_id=self._settings["group.id"],
            on_rebalance=on_rebalance)

    def leave(self) -> None:
        """The one that came last goes, and says so."""
        consumer = self.consumers.pop()
        thread, ended = self._threads.pop(consumer)
        ended.set()
        thread.join(GIVE_UP_S)
        consumer.close()

    def is_settled(self) -> bool:
        held = [set(self._held[consumer]) for consumer in self.consumers]
        sizes = sorted(map(len, held))
        owned = sorted(partition for each in held for partition in each)
        return owned == list(range(PARTITIONS)) and sizes[-1] - sizes[0] <= 1

    def settle(self, began_s: float) -> float:
        """Seconds from `began_s` until the group is settled. Raises RuntimeError if that takes too long."""
        while not self.is_settled():
            if time.perf_counter() - began_s > GIVE_UP_S:
                raise RuntimeError(f"the group of {len(self.consumers)} members is not settled after {GIVE_UP_S:g} s")
            time.sleep(LOOK_S)
        return time.perf_counter() - began_s


def _poll(consumer: Member, ended: threading.Event) -> None:
    while not ended.is_set():
        consumer.poll(0.05)


def _ignore(_: KafkaError) -> None:
    """What lasts shows in the time."""


@contextmanager
def _members(bootstrap: str, topic: str, group: str, settings: dict[str, str]) -> Iterator[Members]:
    members = Members(bootstrap, topic, group, settings)
    try:
        yield members
    finally:
        while members.consumers:
            members.leave()


def settling_s(bootstrap: str, topic: str, group: str, settings: dict[str, str]) -> dict[str, float]:
    """Seconds for the start of a group, for one more member, and for one less."""
    with _members(bootstrap, topic, group, settings) as members:
        began_s = time.perf_counter()
        for _ in range(MEMBERS):
            members.join()
        started_s = members.settle(began_s)
        began_s = time.perf_counter()
        members.join()
        joined_s = members.settle(began_s)
        began_s = time.perf_counter()
        members.leave()
        left_s = members.settle(began_s)
    return {"start": started_s, "join": joined_s, "leave": left_s}
