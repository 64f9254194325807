"""The check of histories finds what each of its kinds is for, and nothing in a history that is right."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.history import History, value_of

P = "t-0"

Log = list[tuple[int, bytes]]


def value(sequence: int, producer: str = "a") -> bytes:
    return value_of(producer, P, sequence)


def history(*, acknowledged: int = 3, pending: int = 0, once: bool = True, ordered: bool = True) -> History:
    """Producer "a" was told that its records 0, 1, ... are at offsets 0, 1, ...; `pending` more have no answer."""
    made = History()
    made.begin_producer("a", once=once, ordered=ordered)
    for sequence in range(acknowledged + pending):
        made.sent("a", P, sequence)
        if sequence < acknowledged:
            made.acknowledged("a", P, sequence, sequence)
    return made


def kinds(made: History) -> list[str]:
    return sorted(made.counts())


RIGHT: Log = [(0, value(0)), (1, value(1)), (2, value(2))]


def test_a_history_that_is_right() -> None:
    made = history(pending=2)
    made.watermarks("reader", P, low=0, high=2)
    made.watermarks("reader", P, low=0, high=3)
    for offset, data in RIGHT:
        made.polled("reader", P, offset, data)
    made.full_read(P, [*RIGHT, (3, value(3))])
    assert made.problems() == []
    assert made.unresolved(P) == [("a", 3), ("a", 4)]
    assert made.acknowledged_count == 3


@pytest.mark.parametrize(
    ("log", "told"),
    [
        (RIGHT[:2], ["lost-write"]),
        ([RIGHT[0], RIGHT[2]], ["lost-write"]),
        ([(0, value(0)), (1, value(2)), (2, value(1))], ["misplaced", "nonmonotonic-send"]),
        ([*RIGHT, (3, value(1))], ["duplicate"]),
        ([*RIGHT, (3, value(9))], ["phantom"]),
        ([*RIGHT, (3, value(0, "b"))], ["phantom"]),
        ([*RIGHT, (3, b"what")], ["phantom"]),
        ([*RIGHT, (3, value_of("a", "t-1", 3))], ["phantom"]),
        ([*RIGHT, (2, value(2))], ["duplicate", "nonmonotonic-poll"]),
    ],
)
def test_a_log_that_is_wrong(log: Log, told: list[str]) -> None:
    made = history()
    made.full_read(P, log)
    assert kinds(made) == told


def test_who_may_send_again_may_be_there_twice_in_any_order() -> None:
    made = history(once=False, ordered=False)
    made.full_read(P, [*RIGHT, (3, value(1)), (4, value(0))])
    assert made.problems() == []


def test_what_failed_for_certain_is_not_there() -> None:
    made = history(pending=2)
    made.failed("a", P, 3, definite=True)
    made.failed("a", P, 4, definite=False)
    made.full_read(P, [*RIGHT, (3, value(4))])
    assert made.problems() == []
    made.full_read(P, [*RIGHT, (3, value(4)), (4, value(3))])
    assert "G1a" in kinds(made)


def test_what_retention_dropped_is_not_lost() -> None:
    made = history()
    made.full_read(P, RIGHT[2:], low=2)
    assert made.problems() == []
    made.full_read(P, RIGHT[2:], low=1)
    assert kinds(made) == ["lost-write"]


@pytest.mark.parametrize(
    ("do", "told"),
    [
        (lambda made: made.polled("r", P, 1, value(1)), ["nonmonotonic-poll"]),
        (lambda made: made.polled("r", P, 2, value(7)), ["phantom"]),
        (lambda made: made.polled("s", P, 1, value(0)), ["inconsistent-offsets"]),
        (lambda made: made.watermarks("s", P, low=0, high=1), ["watermark"]),
        (lambda made: made.watermarks("s", P, low=4, high=3), ["watermark"]),
        (lambda made: made.acknowledged("a", P, 1, 2), ["misplaced"]),
    ],
)
def test_what_a_client_must_not_see(do: Callable[[History], None], told: list[str]) -> None:
    made = history()
    made.watermarks("r", P, low=0, high=2)
    made.polled("r", P, 0, value(0))
    made.polled("r", P, 1, value(1))
    do(made)
    assert kinds(made) == told


def test_a_reader_that_was_not_given_a_record() -> None:
    made = history()
    made.polled("r", P, 0, value(0))
    made.polled("r", P, 2, value(2))
    made.full_read(P, RIGHT)
    assert kinds(made) == ["poll-skip"]


def test_offsets_without_a_record_are_no_gap() -> None:
    made = history(acknowledged=1)
    made.sent("a", P, 1)
    made.acknowledged("a", P, 1, 2)
    log = [(0, value(0)), (2, value(1))]
    for offset, data in log:
        made.polled("r", P, offset, data)
    made.full_read(P, log)
    assert made.problems() == []


def test_all_are_counted_and_the_first_are_told() -> None:
    made = history(acknowledged=20)
    made.full_read(P, [])
    assert made.counts() == {"lost-write": 20}
    assert len(made.problems()) == 6
    assert made.problems()[-1].what == "... and 15 more"
