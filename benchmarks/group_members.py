"""Many groups of a few real members each (confluent-kafka), which share one topic out among themselves and commit.

    python -m benchmarks.group_members HOST:PORT TOPIC --groups 25 --members 4 --protocol classic

Speaks lines with whoever started it: says SETTLED once each member has its share and every partition one member; then a number on stdin says how
many records the topic has got, and when each group has seen as many, it prints one line of JSON and ends.
Owns: the consumers, one thread for each. Invariant: the records of a partition are told in the order of their offsets, so
one that is missing, comes twice or comes to two members of a group is seen and counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from benchmarks.load import QUIET, SENT
from zafka.runtime.bench import percentile

SETTLED = "settled"
GIVE_UP_S = 60.0
LOOK_S = 0.02
PROTOCOLS = {
    "classic": {"group.protocol": "classic", "partition.assignment.strategy": "range", "heartbeat.interval.ms": 3000},
    "consumer": {"group.protocol": "consumer"},
}
COMMON: dict[str, Any] = {
    **QUIET, "auto.offset.reset": "earliest", "auto.commit.interval.ms": 1000, "fetch.wait.max.ms": 500}


class Group:
    """One group's members, and what they saw. Changed by the members' threads, under `lock`."""

    def __init__(self, members: int, partitions: int) -> None:
        self.lock = threading.Lock()
        self.members = members
        self.held: dict[int, set[int]] = {}  # partitions by consumer
        self.next: dict[int, int] = dict.fromkeys(range(partitions), 0)
        self.assignments = 0
        self.seen = 0
        self.taken_s: list[float] = []
        self.faults: Counter[str] = Counter()

    def is_settled(self) -> bool:
        """Every partition belongs to one member, and no member is without one."""
        with self.lock:
            owned = sorted(partition for held in self.held.values() for partition in held)
            return owned == list(self.next) and sum(map(bool, self.held.values())) == self.members

    def on_assigned(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        with self.lock:
            self.assignments += 1
            self.held.setdefault(id(consumer), set()).update(part.partition for part in parts)

    def on_revoked(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        with self.lock:
            self.held.setdefault(id(consumer), set()).difference_update(part.partition for part in parts)

    def on_message(self, message: Message, now_s: float) -> None:
        partition, offset = message.partition(), message.offset()
        with self.lock:
            if offset != self.next[partition]:
                self.faults["a record is missing" if offset > self.next[partition] else "a record came twice"] += 1
            self.next[partition] = max(offset + 1, self.next[partition])
            self.seen += 1
            self.taken_s.append(now_s - SENT.unpack_from(message.value())[0])

    def on_error(self, error: KafkaError) -> None:
        with self.lock:
            self.faults[error.str()] += 1


def consume(settings: dict[str, Any], topic: str, group: Group, ended: threading.Event) -> None:
    """One member, from its join to its leaving."""
    consumer = Consumer({**settings, "error_cb": group.on_error})
    consumer.subscribe([topic], on_assign=group.on_assigned, on_revoke=group.on_revoked)
    while not ended.is_set():
        message = consumer.poll(0.1)
        if message is not None:
            error = message.error()
            if error is None:
                group.on_message(message, time.perf_counter())
            else:
                group.on_error(error)
    try:
        consumer.close()
    except KafkaException as error:
        group.on_error(error.args[0])


def _wait(groups: list[Group], condition: Any) -> bool:
    deadline_s = time.perf_counter() + GIVE_UP_S
    while not all(map(condition, groups)):
        if time.perf_counter() > deadline_s:
            return False
        time.sleep(LOOK_S)
    return True


def live(address: str, topic: str, *, prefix: str, groups: int, members: int, protocol: str, partitions: int) -> dict[str, Any]:
    """All groups until they have seen everything; what they saw."""
    began_s = time.perf_counter()
    all_groups = [Group(members, partitions) for _ in range(groups)]
    ended = threading.Event()
    threads = []
    for number, group in enumerate(all_groups):
        settings = {**COMMON, **PROTOCOLS[protocol], "bootstrap.servers": address, "group.id": f"{prefix}-{number}"}
        threads += [
            threading.Thread(target=consume, args=(settings, topic, group, ended), daemon=True) for _ in range(members)]
    for thread in threads:
        thread.start()
    if not _wait(all_groups, Group.is_settled):
        raise RuntimeError(f"{sum(not group.is_settled() for group in all_groups)} of {groups} groups are not settled")
    settled_s, assignments = time.perf_counter() - began_s, sum(group.assignments for group in all_groups)
    print(SETTLED, flush=True)
    count = int(sys.stdin.readline())
    _wait(all_groups, lambda group: group.seen >= count)
    faults: Counter[str] = Counter()
    for group in all_groups:
        faults += group.faults
        if group.seen != count:
            faults["a group has not seen all records once"] += 1
    rebalances = sum(group.assignments for group in all_groups) - assignments
    taken_s = [each for group in all_groups for each in group.taken_s]
    ended.set()
    for thread in threads:
        thread.join(GIVE_UP_S)
    return {
        "settled_s": settled_s, "rebalances": rebalances, "deliveries": len(taken_s), "faults": dict(faults),
        "taken_s": taken_s}


class Crowd:
    """The groups of both protocols, in a process each, and the one who writes what they read."""

    def __init__(self, address: str, topic: str, *, groups: int, members: int, partitions: int, prefix: str) -> None:
        self._processes = []
        for protocol in PROTOCOLS:
            self._processes.append(subprocess.Popen(
                [sys.executable, "-m", "benchmarks.group_members", address, topic, "--groups", str(groups // len(PROTOCOLS)),
                 "--members", str(members), "--partitions", str(partitions), "--protocol", protocol, "--prefix", f"{prefix}-{protocol}"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))

    def settle(self) -> None:
        for process in self._processes:
            assert process.stdout is not None
            if process.stdout.readline().strip() != SETTLED:
                raise RuntimeError("the groups did not settle")

    def finish(self, count: int) -> dict[str, Any]:
        """count: of the records written. Percentiles are over all groups."""
        for process in self._processes:  # all of them at once
            assert process.stdin is not None
            process.stdin.write(f"{count}\n")
            process.stdin.flush()
        told = [json.loads(process.communicate(timeout=3 * GIVE_UP_S)[0]) for process in self._processes]
        taken_s = sorted(each for one in told for each in one["taken_s"])
        faults: Counter[str] = Counter()
        for one in told:
            faults.update(one["faults"])
        return {
            "settled_s": max(one["settled_s"] for one in told), "rebalances": sum(one["rebalances"] for one in told),
            "deliveries": len(taken_s), "faults": dict(faults),
            "p50_ms": percentile(taken_s, 0.5) * 1e3, "p99_ms": percentile(taken_s, 0.99) * 1e3}

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("topic")
    parser.add_argument("--groups", type=int, default=25)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--protocol", choices=PROTOCOLS, default="classic")
    parser.add_argument("--prefix", default="group")
    given = parser.parse_args()
    print(json.dumps(live(
        given.address, given.topic, prefix=given.prefix, groups=given.groups, members=given.members,
        protocol=given.protocol, partitions=given.partitions)))


if __name__ == "__main__":
    main()
