"""What a member of a group tells, a line of JSON each: the words of Kafka's VerifiableConsumer, and a few of ours.

Owns: the words, and how a line is read. `partitions_lost`, `offsets_wanted`, `generation` and the cause in `offsets_committed` are
ours; `killed` nobody tells, who kills notes it.
Source: org.apache.kafka.tools.VerifiableConsumer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

ASSIGNED, REVOKED, LOST = "partitions_assigned", "partitions_revoked", "partitions_lost"
CONSUMED, WANTED, COMMITTED = "records_consumed", "offsets_wanted", "offsets_committed"
CLOSED, KILLED = "shutdown_complete", "killed"
ENDS = (REVOKED, LOST, CLOSED, KILLED)
NO_GENERATION = -1


class Event(NamedTuple):
    """at_ms: since the epoch, by the member's clock; all are on one machine. partitions: whose change of hands it is.

    consumed: partition, first and last offset of consecutive records. offsets: of each partition, which one a commit asks for
    (told before it is asked), or asked for. is_refused: it was not acknowledged, and may have been made all the same.
    generation: of the group, or a KIP-848 member's epoch, where it is told.
    """

    at_ms: float
    member: str
    name: str
    partitions: tuple[int, ...] = ()
    consumed: tuple[tuple[int, int, int], ...] = ()
    offsets: tuple[tuple[int, int], ...] = ()
    is_refused: bool = False
    generation: int = NO_GENERATION


def parse(member: str, line: str) -> Event:
    """Raises ValueError for what is no such line."""
    told: dict[str, Any] = json.loads(line)
    name = told["name"]
    partitions = told.get("partitions", [])
    return Event(
        float(told["timestamp"]), member, name,
        tuple(each["partition"] for each in partitions),
        tuple((each["partition"], each["minOffset"], each["maxOffset"]) for each in partitions) if name == CONSUMED else (),
        tuple((each["partition"], each["offset"]) for each in told.get("offsets", ())),
        not told.get("success", True), told.get("generation", NO_GENERATION))


def in_order(events: Iterable[Event]) -> list[Event]:
    """As they happened. A partition may be let go of and taken in the same millisecond: then in this order."""
    return sorted(events, key=lambda event: (event.at_ms, event.name not in ENDS))


def with_losses(happened: Sequence[Event]) -> list[Event]:
    """The same, in its order, with each loss where it was noticed first.

    A member that is put out while it lets go of partitions, and so could not commit, says that it was made to give them up, and
    only then that it lost them, with all the others: it had lost them already. Java's KIP-848 members tell it so.
    """
    to_come: dict[str, frozenset[int]] = {}  # of each member, what it will tell that it lost and was not given in between
    seen = []
    for event in reversed(happened):
        ahead = to_come.get(event.member, frozenset())
        if event.name == LOST:
            to_come[event.member] = ahead.union(event.partitions)
        elif event.name == ASSIGNED:
            to_come[event.member] = ahead.difference(event.partitions)
        elif event.name == REVOKED and ahead.intersection(event.partitions):
            kept = tuple(each for each in event.partitions if each not in ahead)
            gone = tuple(each for each in event.partitions if each in ahead)
            seen.append(event._replace(partitions=kept))
            event = event._replace(name=LOST, partitions=gone)
        seen.append(event)
    return seen[::-1]
