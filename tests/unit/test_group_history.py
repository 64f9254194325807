"""The judge of groups tells of everything that its table names, and of nothing else."""

from __future__ import annotations

import json

import pytest

from tests.faults.groups import events
from tests.faults.groups.events import Event, in_order, parse, with_losses
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


def wanted(member: str, offset: int) -> Event:
    return Event(0, member, events.WANTED, offsets=((0, offset),))


def committed(member: str, offset: int) -> Event:
    return Event(0, member, events.COMMITTED, offsets=((0, offset),))


def refused(member: str, offset: int) -> Event:
    return Event(0, member, events.COMMITTED, offsets=((0, offset),), is_refused=True)


def told(*happened: Event, end: int = 10, may_be_cut_off: bool = False, may_begin_anew: bool = False) -> list[str]:
    """The kinds of problems, of one partition with so many records."""
    history = GroupHistory(1, may_be_cut_off=may_be_cut_off, may_begin_anew=may_begin_anew)
    for event in with_losses(happened):
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
    # What was lost comes again, in two parts: the second to another owner, who goes on from what the first has committed.
    (*BEGIN, lost("a", 0), assigned("a", 0), read("a", 0, 1), wanted("a", 2), committed("a", 2), revoked("a", 0),
     assigned("b", 0), read("b", 2, 9)),
    (*BEGIN, assigned("b", 0), read("b", 0, 1), lost("a", 0), wanted("b", 2), committed("b", 2), revoked("b", 0),
     assigned("c", 0), read("c", 2, 9)),
    # It was put out while it gave up what it had, and is told so when it has.
    (*BEGIN, wanted("a", 5), refused("a", 5), revoked("a", 0), lost("a", 0), assigned("a", 0), read("a", 0, 9)),
    (*BEGIN, wanted("a", 5), refused("a", 5), assigned("b", 0), revoked("a", 0), lost("a", 0), read("b", 0, 9)),
    # It was put out while it tried to commit for the last time.
    (*BEGIN, wanted("a", 5), assigned("b", 0), read("b", 0, 9), refused("a", 5), lost("a", 0)),
])
def test_what_may_be_is_no_problem(happened: tuple[Event, ...]) -> None:
    assert told(*happened) == []


@pytest.mark.parametrize(("kind", "happened"), [
    ("skipped", (*BEGIN,)),
    ("skipped", (*BEGIN, read("a", 6, 9))),
    ("skipped", (*BEGIN, committed("a", 5), revoked("a", 0), assigned("b", 0), read("b", 6, 9))),
    ("skipped", (*BEGIN, wanted("a", 3), killed("a"), assigned("b", 0), read("b", 4, 9))),
    ("twice", (*BEGIN, read("a", 4, 9))),
    ("twice", (*BEGIN, refused("a", 5), revoked("a", 0), assigned("b", 0), read("b", 0, 9))),
    ("twice", (*BEGIN, committed("a", 3), revoked("a", 0), assigned("b", 0), read("b", 3, 9))),
    ("twice", (*BEGIN, lost("a", 0), assigned("a", 0), read("a", 0, 1), revoked("a", 0), assigned("b", 0), read("b", 0, 9))),
    ("twice", (*BEGIN, assigned("b", 0), read("b", 0, 1), lost("a", 0), revoked("b", 0), assigned("c", 0), read("c", 0, 9))),
    ("twice", (*BEGIN, revoked("a", 0), assigned("a", 0), lost("a", 0), assigned("b", 0), read("b", 0, 1), revoked("b", 0),
               assigned("a", 0), read("a", 0, 9))),
    ("twice", (*BEGIN, revoked("a", 0), assigned("a", 0), read("a", 0, 1), lost("a", 0), assigned("b", 0), read("b", 0, 9))),
    ("again", (*BEGIN, committed("a", 5), killed("a"), assigned("b", 0), read("b", 4, 9))),
    ("two owners", (*BEGIN, committed("a", 5), assigned("b", 0), read("b", 5, 9))),
    ("two owners", (*BEGIN, committed("a", 5), assigned("b", 0), read("b", 5, 9), revoked("a", 0))),
    ("two owners", (*BEGIN, committed("a", 5), assigned("b", 0), assigned("a", 0), read("a", 5, 9), lost("b", 0))),
    ("two owners", (*BEGIN, wanted("a", 5), assigned("b", 0), read("b", 0, 9), refused("a", 5), revoked("a", 0))),
    ("two owners in a generation", (
        assigned("a", 0, generation=3), read("a", 0, 9), committed("a", 10), revoked("a", 0), assigned("b", 0, generation=3))),
    ("generation went back", (assigned("a", 0, generation=3), revoked("a", 0), assigned("a", 0, generation=2), read("a", 0, 9))),
    ("not its own", (*BEGIN, committed("a", 5), revoked("a", 0), read("a", 5, 9))),
])
def test_what_may_not_be_is_told(kind: str, happened: tuple[Event, ...]) -> None:
    assert told(*happened) == [kind]


@pytest.mark.parametrize("happened", [
    # It learns only when it ends that somebody else was given what it has.
    (*BEGIN, committed("a", 5), assigned("b", 0), read("b", 5, 9), read("a", 5, 6), revoked("a", 0)),
    # It is told so late that it was given a partition that another has it since.
    (*BEGIN, committed("a", 5), revoked("a", 0), assigned("c", 0, generation=3), assigned("b", 0, generation=2), read("b", 5, 6),
     read("c", 5, 9), lost("b", 0)),
    # It gives up what it could not commit any more.
    (*BEGIN, wanted("a", 5), refused("a", 5), revoked("a", 0), assigned("b", 0), read("b", 0, 9)),
    # It is given anew what it has lost without knowing.
    (*BEGIN, committed("a", 5), assigned("b", 0), killed("b"), assigned("a", 0), read("a", 5, 9)),
])
def test_who_was_cut_off_may_not_know_what_it_lost(happened: tuple[Event, ...]) -> None:
    assert told(*happened, may_be_cut_off=True) == []
    assert told(*happened) != []


def test_generations_begin_anew_where_a_group_of_either_protocol_was_empty() -> None:
    first = assigned("a", 0, generation=2), read("a", 0, 4), committed("a", 5), revoked("a", 0), assigned("b", 0, generation=3)
    second = assigned("c", 0, generation=2), read("c", 5, 9), revoked("c", 0), assigned("c", 0, generation=3)
    assert told(*first, revoked("b", 0), *second, may_begin_anew=True) == []
    assert told(*first, *second, lost("b", 0), may_begin_anew=True) == ["two owners in a generation"] * 2
    assert told(*first, revoked("b", 0), *second) == ["two owners in a generation"] * 2


# Two commits of an owner, of which only the first is acknowledged; it is stopped, and another goes on from the second.
ORDERLY = (
    assigned("a", 0, generation=1), read("a", 0, 4), wanted("a", 5), committed("a", 5), read("a", 5, 6), wanted("a", 7),
    assigned("b", 0, generation=2), read("b", 5, 9), wanted("b", 10), committed("b", 10), killed("a"))


@pytest.mark.parametrize(("at", "instead", "found"), [
    (0, ORDERLY[0], []),
    (6, assigned("b", 0, generation=1), ["two owners in a generation"]),
    (7, read("b", 4, 9), ["again"]),
    (7, read("b", 8, 9), ["skipped"]),
    (7, read("b", 5, 8), ["skipped"]),
    (4, read("a", 6, 6), ["skipped"]),
    (4, read("a", 4, 6), ["twice"]),
])
def test_what_those_cut_off_may_not_do_is_told_as_well(at: int, instead: Event, found: list[str]) -> None:
    assert told(*ORDERLY[:at], instead, *ORDERLY[at + 1:], may_be_cut_off=True) == found


def test_commits_are_held_against_what_was_acknowledged_and_delivered() -> None:
    history = GroupHistory(1)
    for event in (*BEGIN, committed("a", 5)):
        history.take(event)
    for offset in (5, 4, 6, 5):
        history.observed(0, offset)
    history.ends(0, 5)
    assert [problem.partition(":")[0] for problem in history.problems()] == [
        "commit went back", "commit went back", "commit ahead"]


def test_what_is_told_of_commits_is_held_also_against_what_was_told_before() -> None:
    """Nobody heard the acknowledgement of the second commit, but who asked was told of it."""
    history = GroupHistory(1, may_be_cut_off=True)
    for event in (*BEGIN, wanted("a", 3), committed("a", 3), wanted("a", 5)):
        history.take(event)
    for offset in (5, 4):
        history.observed(0, offset)
    assert [problem.partition(":")[0] for problem in history.problems()] == ["commit went back"]


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
    assert [(event.consumed, event.offsets, event.is_refused)
            for event in ordered if event.name in (events.CONSUMED, events.COMMITTED)] == [
        (((3, 4, 5),), (), False), ((), ((3, 6),), False), ((), ((3, 9),), True)]
