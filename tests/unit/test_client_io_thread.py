"""The loop of a client's thread, run in the test's own, and how other threads wait for what it does."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from zafka.client.io_thread import IoThread
from zafka.client.waiting import Pause, Signal, run, until, wait_event


def io_thread(turn: Callable[[float], float] = lambda now_s: now_s + 60.0) -> tuple[IoThread, list[Any]]:
    """With what it told of its end."""
    told: list[Any] = []
    return IoThread("test", turn, told.append, lambda: told.append("ended")), told


def test_a_source_that_another_one_closed_is_not_served_though_it_was_ready() -> None:
    served = []
    io, _ = io_thread(lambda now_s: io.begin_stop() or 0.0)  # type: ignore[func-returns-value]
    pairs = [socket.socketpair() for _ in range(2)]

    def close_the_other(number: int, events: int) -> None:
        served.append(number)
        io.unwatch(pairs[1 - number][0].fileno())

    for number, (ours, theirs) in enumerate(pairs):
        io.watch(ours.fileno(), partial(close_the_other, number))
        theirs.send(b"x")
    io.wake()
    io._run()
    assert len(served) == 1
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


def test_it_wakes_to_stop_and_for_each_call_also_one_that_a_call_makes() -> None:
    io, told = io_thread()
    io.start()
    io.call(lambda: io.call(lambda: told.append("called")))
    io.call(io.begin_stop)
    assert io.stop(10.0)
    assert told == ["called", "ended"]


def test_what_is_raised_in_it_is_told() -> None:
    def turn(now_s: float) -> float:
        raise error

    error = AssertionError("a bug")
    io, told = io_thread(turn)
    io.wake()
    io._run()
    assert told == [error, "ended"] and io.failure is error


def test_it_waits_a_moment_too_long_rather_than_to_look_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    io, _ = io_thread()
    monkeypatch.setattr(io._poller, "poll", lambda wait_ms: wait_ms)
    waited: list[Any] = [io._poll(wait_ms) for wait_ms in (0.0, 0.2, 1.0, 1.5)]
    assert waited == [0, 1, 1, 2]
    io._wake_in.close()
    io._wake_out.close()


def test_a_change_that_comes_while_one_looks_is_not_waited_for() -> None:
    signal = Signal()

    def look() -> None:
        with signal:
            signal.notify_all()

    pause = until(signal, look, time.monotonic() + 10.0).send(None)
    assert isinstance(pause, Pause) and pause.seen != signal.count


def test_what_is_interrupted_is_ended_before_its_caller_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    def interrupt(signal: Signal, seen: int, timeout_s: float) -> None:
        raise KeyboardInterrupt

    async def steps() -> None:
        try:
            await Pause(Signal(), 0, 10.0)
        finally:
            ended.append(True)

    monkeypatch.setattr(Signal, "wait", interrupt)
    try:
        run(steps())
    except KeyboardInterrupt:
        assert ended


def test_an_event_is_waited_for_no_longer_than_asked() -> None:
    event = threading.Event()
    assert not wait_event(event, 0.01)
    event.set()
    assert wait_event(event, None)
