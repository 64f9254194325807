"""`zafka bench`, the parts without a broker: percentiles, rates, values."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from zafka.client.admin import Admin
from zafka.client.errors import RequestTimedOut
from zafka.runtime import bench
from zafka.runtime.bench import Load, outcome, paced, percentile, percentiles, value_of
from zafka.runtime.cli import main


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(number) for number in range(1, 1001)]
    assert percentile(values, 0.5) == 500
    assert percentile(values, 0.99) == 990
    assert percentile(values, 0.999) == 999
    assert percentile(values, 1.0) == 1000
    assert percentile([7.0], 0.5) == percentile([7.0], 0.999) == 7
    assert percentile([1.0, 2.0], 0.5) == 1
    assert percentile([1.0, 2.0, 3.0], 0.5) == 2


def test_percentiles_are_milliseconds_of_unordered_seconds() -> None:
    assert percentiles([0.003, 0.001, 0.002]) == {"p50": 2, "p99": 3, "p99.9": 3, "max": 3}
    assert percentiles([]) == {}


def test_what_is_due_comes_at_its_time_and_what_is_late_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    waits_s: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now_s
        waits_s.append(seconds)
        now_s += seconds

    monkeypatch.setattr(time, "perf_counter", lambda: now_s)
    monkeypatch.setattr(time, "sleep", sleep)
    seen_s = []
    for number in paced(6, 10.0):
        seen_s.append(round(now_s - 100, 3))
        if number == 1:
            now_s += 0.25  # the broker held us up: 2 and 3 are late, 4 is not
    assert seen_s == [0.0, 0.1, 0.35, 0.35, 0.4, 0.5]
    assert len(waits_s) == 3


@pytest.mark.parametrize("size_bytes", [0, 1, 7, 100, 100_000])
def test_values_have_their_size(size_bytes: int) -> None:
    assert len(value_of(size_bytes)) == size_bytes


def test_rates_count_what_was_sent() -> None:
    load = Load(records=5000, size_bytes=200, partitions=4)
    found = outcome("produce", "localhost:9092", load, 2.0)
    assert (found.records_per_s, found.mb_per_s) == (2500, 0.5)
    assert outcome("latency", "localhost:9092", load, 2.0, records=6000).records_per_s == 3000


def test_a_second_interrupt_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first has come; the second comes while the topic is being deleted at a broker that is gone."""
    asked: list[str] = []

    class Deleting(Admin):
        def __init__(self, address: str, **timeouts: float) -> None:
            asked.append(address)
            threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
            super().__init__(address, **timeouts)

    monkeypatch.setattr(bench, "LEAVE_S", 3600.0)
    monkeypatch.setattr(bench, "Admin", Deleting)
    assert bench.leave_topic("127.0.0.1:1", "left") == "interrupted again"
    assert asked == ["127.0.0.1:1"]


def test_what_fails_is_told_with_the_topic_that_is_left(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(address: str, load: bench.Load, progress: bench.Progress) -> bench.Outcome:
        error = RequestTimedOut("nobody there")
        error.add_note("topic t may be left: nobody there either")
        raise error

    monkeypatch.setattr(bench, "produce", fails)
    assert main(["bench", "produce"]) == 1
    assert capsys.readouterr().err == "zafka: nobody there; topic t may be left: nobody there either\n"
