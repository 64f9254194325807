"""What groups must not do is found in what members say."""

from __future__ import annotations

import pytest

from tests.group_history import ASKS, ASSIGNED, COMMITS, COMMITTED, READ, TOLD, Event, judge


def story(*events: tuple[object, ...]) -> list[Event]:
    """Events in their order; each (member, kind, offset, end) or, of ASSIGNED, (member, kind, generation)."""
    told = []
    for number, (member, kind, *rest) in enumerate(events):
        numbers = [int(str(each)) for each in rest]
        if kind == ASSIGNED:
            told.append(Event(float(number), str(member), str(kind), "t-0", generation=numbers[0]))
        else:
            told.append(Event(float(number), str(member), str(kind), "t-0", *numbers))
    return told


ORDERLY = (
    ("a", ASSIGNED, 1), ("a", READ, 0, 5), ("a", COMMITS, 5), ("a", COMMITTED, 5), ("o", ASKS), ("o", TOLD, 5),
    ("a", READ, 5, 7), ("a", COMMITS, 7), ("b", ASSIGNED, 2), ("b", READ, 5, 9), ("o", ASKS), ("o", TOLD, 7))


def kinds(*events: tuple[object, ...], end: int = 9) -> list[str]:
    return [problem.kind for problem in judge("g", story(*events), {"t-0": end})]


def test_what_was_not_acknowledged_may_come_again() -> None:
    assert kinds(*ORDERLY) == []


@pytest.mark.parametrize(("instead", "found"), [
    ({8: ("b", ASSIGNED, 1)}, ["two-owners"]),
    ({9: ("b", READ, 4, 9)}, ["read-again"]),
    ({9: ("b", READ, 8, 9)}, ["skipped", "unread"]),
    ({6: ("a", READ, 6, 7)}, ["skipped"]),
    ({6: ("a", READ, 4, 7)}, ["read-again"]),
    ({11: ("o", TOLD, 4)}, ["commit-back"]),
    ({9: ("b", READ, 5, 8)}, ["unread"]),
])
def test_what_does_not_hold_is_found(instead: dict[int, tuple[object, ...]], found: list[str]) -> None:
    assert kinds(*[instead.get(number, event) for number, event in enumerate(ORDERLY)]) == found
