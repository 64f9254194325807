"""What the members of a group saw, and what does not hold of it; as `tests/history.py` does for producers and readers.

Owns: `judge`, pure: all events of a run, by the clock that the members share, and what is wrong with them.
A member says what it does before it does it (it commits), and what it was told after that (it is committed): so whatever
happened, happened in between. A member that is killed says no more.

| kind | does not hold |
|---|---|
| two-owners | a partition has one owner in a generation of its group |
| skipped | who is given a partition begins at most where somebody wanted to commit, and reads every offset from there on |
| read-again | and at least where a commit was acknowledged before |
| commit-back | what is told to be committed is nothing older than what was acknowledged, or told, before it was asked |
| unread | at the end somebody has read every record |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.history import Problem

ASSIGNED, READ, COMMITS, COMMITTED, ASKS, TOLD = "assigned", "read", "commits", "committed", "asks", "told"
TOLD_MAX = 5


class Event(NamedTuple):
    """offset, end: READ: of the first record and after the last; COMMITS, COMMITTED, TOLD: offset. generation: of ASSIGNED."""

    at_s: float
    member: str
    kind: str
    place: str = ""
    offset: int = -1
    end: int = -1
    generation: int = -1


@dataclass
class _Place:
    """One partition, as its group knows it. wanted: the highest offset that somebody tried to commit. begun: by member, what
    was wanted and acknowledged when it was given the partition. next: by member, the offset to be read next."""

    wanted: int = 0
    acknowledged: int = 0
    told: int = 0
    begun: dict[str, int] = field(default_factory=dict)
    next: dict[str, int] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    owners: dict[int, str] = field(default_factory=dict)
    read: list[tuple[int, int]] = field(default_factory=list)


class _Judge:
    def __init__(self, group: str) -> None:
        self.group = group
        self.places: dict[str, _Place] = {}
        self.problems: list[Problem] = []

    def tell(self, kind: str, event: Event, what: str) -> None:
        self.problems.append(Problem(kind, f"{self.group}: {event.place}", f"{event.member}: {what}"))

    def take(self, event: Event) -> None:
        place = self.places.setdefault(event.place, _Place())
        member = event.member
        if event.kind == ASSIGNED:
            owner = place.owners.setdefault(event.generation, member)
            if owner != member and event.generation >= 0:
                self.tell("two-owners", event, f"given in generation {event.generation}, in which {owner} has it")
            place.begun[member] = place.acknowledged
            place.next.pop(member, None)
        elif event.kind == READ:
            self._on_read(place, event)
        elif event.kind == COMMITS:
            place.wanted = max(place.wanted, event.offset)
        elif event.kind == COMMITTED:
            place.acknowledged = max(place.acknowledged, event.offset)
        elif event.kind == ASKS:
            place.asked[member] = max(place.acknowledged, place.told)
        elif event.kind == TOLD:
            if event.offset < place.asked[member]:
                self.tell("commit-back", event, f"told {event.offset}, {place.asked[member]} was committed before")
            place.told = max(place.told, event.offset)

    def _on_read(self, place: _Place, event: Event) -> None:
        place.read.append((event.offset, event.end))
        expected = place.next.get(event.member)
        place.next[event.member] = event.end
        if expected is not None:
            if event.offset != expected:
                self.tell("skipped" if event.offset > expected else "read-again", event, f"read {event.offset} after {expected - 1}")
            return
        begun = place.begun.get(event.member, 0)
        if event.offset < begun:
            self.tell("read-again", event, f"begins at {event.offset}, {begun} was committed before")
        if event.offset > place.wanted:
            self.tell("skipped", event, f"begins at {event.offset}, nobody has committed more than {place.wanted}")

    def finish(self, ends: Mapping[str, int]) -> None:
        for name, end in ends.items():
            reached = 0
            for first, behind in sorted(self.places.get(name, _Place()).read):
                if first > reached:
                    break
                reached = max(reached, behind)
            if reached < end:
                self.problems.append(Problem("unread", f"{self.group}: {name}", f"nobody has read {reached} to {end - 1}"))


def judge(group: str, events: Iterable[Event], ends: Mapping[str, int]) -> list[Problem]:
    """What does not hold. ends: of each partition, where its log ended when everything had been read."""
    judged = _Judge(group)
    for event in sorted(events, key=lambda event: event.at_s):
        judged.take(event)
    judged.finish(ends)
    return judged.problems
