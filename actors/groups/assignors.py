"""Who reads which partitions: the assignors that a coordinator runs for KIP-848 groups.

Owns: `ASSIGNORS`, by Kafka's names. Each is a pure function of what the members read, what they are to own as yet, and how
many partitions there are.
Invariant: every partition of a topic that somebody reads gets exactly one owner, who reads the topic.
`uniform` gives everybody as much as possible of the same number of partitions, and moves as few as it can for that.
`range` gives neighbours of each topic to each member and the same of topics of the same size to the same member, whoever
had them. Neither looks at racks, as in Kafka 4.3.
Source: Kafka UniformAssignor (its homogeneous and heterogeneous builder), RangeAssignor.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

Assignment = Mapping[bytes, frozenset[int]]
"""Partitions by topic id; no topic without partitions."""

BALANCE_ROUNDS_MAX = 16  # each about halves what is out of balance, if members read different but overlapping topics


class Reader(NamedTuple):
    """A member. topics: ids of all that it reads. owns: what it is to own before."""

    topics: frozenset[bytes]
    owns: Assignment
    instance_id: str | None = None


Assignor = Callable[[Mapping[str, Reader], Mapping[bytes, int]], dict[str, Assignment]]


def assign_uniform(readers: Mapping[str, Reader], partitions: Mapping[bytes, int]) -> dict[str, Assignment]:
    """partitions: their number, of each topic that a member reads. Returns what each member is to own."""
    if len({reader.topics for reader in readers.values()}) <= 1:
        return _assign_alike(readers, partitions)
    return _Uniform(readers, partitions).assign()


def assign_range(readers: Mapping[str, Reader], partitions: Mapping[bytes, int]) -> dict[str, Assignment]:
    """Static members first, by instance id, then the others by member id, so that a restart changes nothing."""
    order = sorted(readers, key=lambda each: (readers[each].instance_id is None, readers[each].instance_id or each))
    subscribers = dict.fromkeys(partitions, 0)
    for reader in readers.values():
        for topic in reader.topics:
            subscribers[topic] += 1
    begins = dict.fromkeys(partitions, 0)
    extra = {topic: partitions[topic] % count for topic, count in subscribers.items() if count}
    assigned: dict[str, Assignment] = {}
    for member in order:
        owns = {}
        for topic in readers[member].topics:
            begin = begins[topic]
            begins[topic] = end = begin + partitions[topic] // subscribers[topic] + (extra[topic] > 0)
            extra[topic] -= 1
            if end > begin:
                owns[topic] = frozenset(range(begin, end))
        assigned[member] = owns
    return assigned


ASSIGNORS: dict[str, Assignor] = {"uniform": assign_uniform, "range": assign_range}
"""The first is Kafka's default."""


def _assign_alike(readers: Mapping[str, Reader], partitions: Mapping[bytes, int]) -> dict[str, Assignment]:
    """Everybody reads the same topics: all keep what they have, up to their share, and the rest fills them up."""
    if not readers:
        return {}
    topics = next(iter(readers.values())).topics
    least, extra = divmod(sum(partitions[topic] for topic in topics), len(readers))
    assigned: dict[str, dict[bytes, set[int]]] = {}
    room: list[tuple[str, int]] = []
    free: list[tuple[bytes, int]] = []  # had an owner who has too many
    kept: dict[bytes, set[int]] = {topic: set() for topic in topics}
    for number, (member, reader) in enumerate(readers.items()):
        quota = least + (number < extra)
        owns = assigned[member] = {}
        for topic, had in reader.owns.items():
            if topic in topics:
                ordered = sorted(partition for partition in had if partition < partitions[topic])
                owns[topic] = set(ordered[:quota])
                kept[topic].update(ordered)
                free += [(topic, partition) for partition in ordered[quota:]]
                quota -= len(owns[topic])
        if quota:
            room.append((member, quota))
    ownerless = [(topic, partition) for topic in sorted(topics) for partition in range(partitions[topic])
                 if partition not in kept[topic]]
    rest = iter(ownerless + free)
    for member, quota in room:
        for _, (topic, partition) in zip(range(quota), rest, strict=False):
            assigned[member].setdefault(topic, set()).add(partition)
    return _frozen(assigned)


class _Uniform:
    """Members read different topics. Members are numbers here, in the order in which they came.

    owners: of each partition of each topic, a member or None. sizes: how many partitions each member has.
    """

    def __init__(self, readers: Mapping[str, Reader], partitions: Mapping[bytes, int]) -> None:
        self.members = list(readers)
        self.subscribers: dict[bytes, list[int]] = {}
        for number, reader in enumerate(readers.values()):
            for topic in reader.topics:
                self.subscribers.setdefault(topic, []).append(number)
        self.owners: dict[bytes, list[int | None]] = {topic: [None] * partitions[topic] for topic in self.subscribers}
        self.sizes = [0] * len(self.members)
        for number, reader in enumerate(readers.values()):
            for topic, had in reader.owns.items():
                for partition in had if topic in reader.topics else ():
                    if partition < partitions[topic]:
                        self._give(topic, partition, number)
        # Those with the most partitions a head first, then those with the fewest readers.
        self.topics = sorted(self.subscribers, key=lambda topic: (
            -partitions[topic] / len(self.subscribers[topic]), len(self.subscribers[topic]), topic))

    def assign(self) -> dict[str, Assignment]:
        for topic in self.topics:
            self._fill(topic)
        shared = [topic for topic in self.topics if len(self.subscribers[topic]) > 1]
        for _ in range(BALANCE_ROUNDS_MAX):
            if sum(self._balance(topic) for topic in shared) == 0:
                break
        assigned: dict[str, dict[bytes, set[int]]] = {member: {} for member in self.members}
        for topic, owners in self.owners.items():
            for partition, owner in enumerate(owners):
                assert owner is not None
                assigned[self.members[owner]].setdefault(topic, set()).add(partition)
        return _frozen(assigned)

    def _give(self, topic: bytes, partition: int, member: int) -> None:
        owner = self.owners[topic][partition]
        if owner is not None:
            self.sizes[owner] -= 1
        self.owners[topic][partition] = member
        self.sizes[member] += 1

    def _by_load(self, topic: bytes) -> list[int]:
        return sorted(self.subscribers[topic], key=lambda member: (self.sizes[member], member))

    def _fill(self, topic: bytes) -> None:
        """Partitions that nobody has go to who has the fewest, one by one."""
        ownerless = [partition for partition, owner in enumerate(self.owners[topic]) if owner is None]
        takers = [(self.sizes[member], rank, member) for rank, member in enumerate(self._by_load(topic))]
        for partition in ownerless:
            size, rank, member = takers[0]
            self._give(topic, partition, member)
            heapq.heapreplace(takers, (size + 1, rank, member))

    def _balance(self, topic: bytes) -> int:
        """Move partitions from who has the most to who has the fewest, while that evens them out. Returns how many."""
        order = self._by_load(topic)
        if self.sizes[order[-1]] - self.sizes[order[0]] <= 1:
            return 0
        held: dict[int, list[int]] = {}
        for partition, owner in enumerate(self.owners[topic]):
            assert owner is not None
            held.setdefault(owner, []).append(partition)
        takers = [(self.sizes[member], rank, member) for rank, member in enumerate(order)]
        givers = [(-self.sizes[member], -rank, member) for rank, member in enumerate(order) if member in held]
        heapq.heapify(givers)
        moved = 0
        # A member whose size has changed in one heap is never reached in the other: there all are within one by then.
        while givers and -givers[0][0] - takers[0][0] > 1:
            (more, giver_rank, giver), (fewer, taker_rank, taker) = givers[0], takers[0]
            self._give(topic, held[giver].pop(), taker)
            moved += 1
            heapq.heapreplace(takers, (fewer + 1, taker_rank, taker))
            if held[giver]:
                heapq.heapreplace(givers, (more + 1, giver_rank, giver))
            else:
                heapq.heappop(givers)
        return moved


def _frozen(assigned: Mapping[str, Mapping[bytes, Sequence[int] | set[int]]]) -> dict[str, Assignment]:
    return {
        member: {topic: frozenset(owns[topic]) for topic in sorted(owns) if owns[topic]}
        for member, owns in assigned.items()}
