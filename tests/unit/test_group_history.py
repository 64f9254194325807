"""The judge of groups tells of everything that its table names, and of nothing else."""

from __future__ import annotations

import json

import pytest

from tests.faults.groups import events
from tests.faults.groups.events import Event, in_order, parse
from tests.faults.groups.history import GroupHistory


def assigned(member: str, *partitions: int, generation: int = -1) -> Event:
    return Event(0, member, events.ASSIGNED, partitions, generation=generation)


def revoked(member: str, *partitions: int) -> Event:
    return Event(0, member, events.REVOKED, partitions)


def lost(member: str, *partitions: int) -> Event:
    return Event(0, member, events.LOST, partitions)


def killed(member: str) -> Event:
    return Event(0, member, events.KILLED)


def read(member: str, first: int, last: int) -> Event:
    return Event(0, member, events.CONSUMED, consumed=((0, first, last),))


def committed(member: str, offset: int) -> Event:
    return Event(0, member, events.COMMITTED, committed=((0, offset),))


def told(*happened: Event, end: int = 10) -> list[str]:
    """The kinds of problems, of one partition with so many records."""
    history = GroupHistory(1)
    for event in happened:
        history.take(event)
    history.ends(0, end)
    return [problem.partition(":")[0] for problem in history.problems()]


BEGIN = (assigned("a", 0), read("a", 0, 4))


@pytest.mark.parametrize("happened", [
    (*BEGIN, read("a", 5, 9)),
    (*BEGIN, committed("a", 5), revoked("a", 0), assigned("b", 0), read("b", 5, 9)),
    (*BEGIN, committed("a", 2), killed("a"), assigned("b", 0), read("b", 2, 9)),
    (*BEGIN, committed("a", 2), assigned("b", 0), read("b", 2, 9), read("a", 5, 6), lost("a", 0)),
    (*BEGIN, killed("a"), assigned("b", 0), revoked("b", 0), assigned("a2", 0), read("a2", 0, 9)),
])
def test_what_may_be_is_no_problem(happened: tuple[Event, ...]) -> None:
    assert told(*happened) == []


@pytest.mark.parametrize(("kind", "happened"), [
    ("skipped", (*BEGIN,)),
    ("skipped", (*BEGIN, read("a", 6, 9))),
    ("skipped", (*BEGIN, committed("a", 5), revoked("a", 0), assigned("b", 0), read("b", 6, 9))),
    ("twice", (*BEGIN, read("a", 4, 9))),
    ("twice", (*BEGIN, committed("a", 3), revoked("a", 0), assigned("b", 0), read("b", 3, 9))),
    ("again", (*BEGIN, committed("a", 5), killed("a"), assigned("b", 0), read("b", 4, 9))),
    ("two owners", (*BEGIN, committed("a", 5), assigned("b", 0), read("b", 5, 9))),
    ("two owners", (*BEGIN, committed("a", 5), assigned("b", 0), read("b", 5, 9), revoked("a", 0))),
    ("two owners in a generation", (
        assigned("a", 0, generation=3), read("a", 0, 9), committed("a", 10), revoked("a", 0), assigned("b", 0, generation=3))),
    ("generation went back", (assigned("a", 0, generation=3), revoked("a", 0), assigned("a", 0, generation=2), read("a", 0, 9))),
    ("not its own", (*BEGIN, committed("a", 5), revoked("a", 0), read("a", 5, 9))),
])
def test_what_may_not_be_is_told(kind: str, happened: tuple[Event, ...]) -> None:
    assert told(*happened) == [kind]


def test_commits_are_held_against_what_was_acknowledged_and_delivered() -> None:
    history = GroupHistory(1)
    for event in (*BEGIN, committed("a", 5)):
        history.take(event)
    for offset in (5, 4, 6, 5):
        history.observed(0, offset)
    history.ends(0, 5)
    assert [problem.partition(":")[0] for problem in history.problems()] == [
        "commit went back", "commit went back", "commit ahead"]


def test_lines_are_read_as_java_writes_them_and_put_in_order() -> None:
    where = {"topic": "t", "partition": 3}
    lines = [
        {"timestamp": 7, "name": "partitions_assigned", "partitions": [where]},
        {"timestamp": 7, "name": "partitions_revoked", "partitions": [where]},
        {"timestamp": 5, "name": "records_consumed", "count": 2, "partitions": [{**where, "minOffset": 4, "maxOffset": 5}]},
        {"timestamp": 6, "name": "offsets_committed", "offsets": [{**where, "offset": 6}], "success": True},
        {"timestamp": 8, "name": "offsets_committed", "offsets": [{**where, "offset": 9}], "success": False, "error": "e"},
    ]
    ordered = in_order(parse("m", json.dumps(line)) for line in lines)
    assert [event.name for event in ordered] == [
        events.CONSUMED, events.COMMITTED, events.REVOKED, events.ASSIGNED, events.COMMITTED]
    assert [(event.consumed, event.committed) for event in ordered if event.name in (events.CONSUMED, events.COMMITTED)] == [
        (((3, 4, 5),), ()), ((), ((3, 6),)), ((), ())]
