"""Short turns, asked of the scheduler."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from zafka.actors import scheduling
from zafka.actors.scheduling import SHORT_NS, ask_for_short_turns, turn_ns


def _asked() -> tuple[int, bool, int, int]:
    before = turn_ns()
    return before, ask_for_short_turns(), turn_ns(), os.getpriority(os.PRIO_PROCESS, 0)


def test_a_thread_asks_for_short_turns_and_changes_nothing_else() -> None:
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    with ThreadPoolExecutor(1) as own_thread:
        before, taken, after, nice_after = own_thread.submit(_asked).result()
    assert nice_after == nice
    if not before:
        pytest.skip("the scheduler of this machine tells of no turns")
    assert taken and after == SHORT_NS
    assert turn_ns() == before


def test_where_there_is_no_such_attribute_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "CALLS", {})
    with ThreadPoolExecutor(1) as own_thread:
        assert not own_thread.submit(ask_for_short_turns).result()
