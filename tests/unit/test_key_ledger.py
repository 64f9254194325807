"""What readers of a compacted partition may not see is found by what was written."""

from __future__ import annotations

from tests.key_ledger import Ledger, Value


def ledger(*writes: tuple[bytes, Value, int]) -> Ledger:
    made = Ledger(retention_s=10.0)
    for number, (key, value, offset) in enumerate(writes):
        made.begin(key, value, float(number)).offset = offset
    return made


def complaints(made: Ledger, last: dict[bytes, tuple[int, Value]], now_s: float = 5.0, low: int = 0) -> list[str]:
    return made.complaints(made.last_acknowledged(), last, now_s, low=low)


def test_the_last_acknowledged_or_something_later_must_be_there_where_it_was_acknowledged() -> None:
    made = ledger((b"k", b"1", 3), (b"k", b"2", 7), (b"k", b"3", -1))
    assert complaints(made, {b"k": (7, b"2")}) == complaints(made, {b"k": (8, b"3")}) == []
    assert "was acknowledged before" in complaints(made, {b"k": (3, b"1")})[0]
    assert "nobody wrote" in complaints(made, {b"k": (8, b"2")})[0]
    assert "is gone" in complaints(made, {})[0]
    assert complaints(made, {}, low=8) == []  # a topic that deletes as well


def test_a_tombstone_may_go_in_its_time() -> None:
    made = ledger((b"k", b"1", 3), (b"k", None, 7))
    assert complaints(made, {b"k": (7, None)}) == []
    assert "the tombstone" in complaints(made, {}, now_s=5.0)[0]
    assert complaints(made, {}, now_s=12.0) == []
    assert "was acknowledged before" in complaints(made, {b"k": (3, b"1")}, now_s=12.0)[0]


def test_what_is_written_behind_the_end_of_a_reading_may_have_cleaned_what_it_had_not_come_to() -> None:
    made = ledger((b"k", b"1", 3), (b"k", None, 7))
    floor, seen = made.last_acknowledged(), {b"k": (3, b"1")}
    assert made.complaints(floor, seen, 5.0, end=8)
    made.begin(b"k", b"3", 4.0).offset = 9
    assert made.complaints(floor, seen, 5.0, end=10)  # it came to it
    assert made.complaints(floor, seen, 5.0, end=9) == []
