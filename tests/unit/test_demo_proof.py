"""The demo's witness finds whatever is lost, doubled, moved, changed or out of order."""

from __future__ import annotations

import pytest

from zafka.runtime.demo_proof import Ledger, Line, Witness

LINES = [(key, number) for number in (1, 2, 3) for key in (b"a", b"b")]


def value(key: bytes, number: int) -> bytes:
    return key + b" line %d" % number


def ledger_of(lines: list[tuple[bytes, int]]) -> Ledger:
    """Partition 0 gets all lines, at offsets 0, 1, 2, ..."""
    ledger = Ledger()
    for offset, (key, number) in enumerate(lines):
        ledger.send(key, value(key, number))
        ledger.acknowledge(key, partition=0, offset=offset)
    return ledger


def records_of(lines: list[tuple[bytes, int]]) -> list[Line]:
    return [Line(0, offset, key, number, value(key, number)) for offset, (key, number) in enumerate(lines)]


def problems(records: list[Line]) -> list[str]:
    witness = Witness(ledger_of(LINES))
    for record in records:
        witness.see(record)
    return witness.problems()


def test_what_came_through_as_it_was_sent_is_proven() -> None:
    assert problems(records_of(LINES)) == []


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (lambda good: good[:-1], "5 records were read and 6 lines were sent"),
        (lambda good: good[1:], "offset 1 where 0 must come"),
        (lambda good: [*good, good[-1]], "offset 5 where 6 must come"),
        (lambda good: [*good, good[-1]._replace(offset=6)], "line 3 where line 4 must come"),
        (lambda good: [good[0]._replace(value=b"x"), *good[1:]], "hash differs"),
        (lambda good: [good[2]._replace(offset=0), good[1], good[0]._replace(offset=2), *good[3:]],
         "line 2 where line 1 must come"),
        (lambda good: [line._replace(partition=1) for line in good], "not where it was acknowledged"),
        (lambda good: [good[0]._replace(key=b"c"), *good[1:]], "was never sent"),
        (lambda good: [], "0 records were read and 6 lines were sent"),
    ],
)
def test_every_fault_is_found(fault, told: str) -> None:  # type: ignore[no-untyped-def]
    assert any(told in problem for problem in problems(fault(records_of(LINES))))


def test_two_lines_with_equal_content_swapped_are_found_by_position() -> None:
    ledger = ledger_of([(b"a", 1), (b"a", 2)])
    witness = Witness(ledger)
    for offset, number in enumerate((2, 1)):
        witness.see(Line(0, offset, b"a", number, b"same"))
    assert any("line 2 where line 1" in problem for problem in witness.problems())
