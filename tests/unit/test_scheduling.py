"""Short turns, asked of the scheduler."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from zafka.actors import scheduling
from zafka.actors.scheduling import SHORT_NS, ask_for_short_turns, turn_ns
from zafka.testing import Broker


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


def test_brokers_and_partitions_ask_and_who_has_time_does_not() -> None:
    if not turn_ns():
        pytest.skip("the scheduler of this machine tells of no turns")
    with Broker(topics=["t"], allow_faults=False) as broker:
        asked = {actor["name"]: turn_ns(actor["pid"]) for actor in broker.actors()}
    assert asked["broker 1"] == asked["partition t-0"] == SHORT_NS
    assert asked["coordinator"] == asked["supervisor"] == turn_ns()


def test_where_there_is_no_such_attribute_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "CALLS", {})
    with ThreadPoolExecutor(1) as own_thread:
        assert not own_thread.submit(ask_for_short_turns).result()
