"""Waiting, written once for threads and for event loops.

Owns: `Signal` (something changed), `Pause` (what a wait awaits) and `run`, which waits in the calling thread. What takes
several waits is a coroutine that awaits nothing but pauses, mostly through `until`: `run` drives it for the blocking
clients, `loop_bridge.LoopBridge.run` for the async ones. So neither has logic of its own.
Ctrl-C ends every wait of a thread: a signal that comes in the instant between Python's last look for one and the
system call that waits is seen only when that call returns, so no wait is one long one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, TypeVar

STEP_S = 0.5

Found = TypeVar("Found")
Steps = Coroutine[Any, Any, Found]  # awaits pauses only


class Signal:
    """A lock around some state, and word of each change of it.

    count: of changes; who saw it before looking at the state misses none that comes after.
    """

    __slots__ = ("_condition", "count", "listeners")

    def __init__(self, lock: threading.Lock | None = None) -> None:
        self._condition = threading.Condition(lock)
        self.count = 0
        self.listeners: list[Callable[[], None]] = []  # called with the lock held, so they only tell somebody

    def __enter__(self) -> None:
        self._condition.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._condition.__exit__(kind, error, trace)

    def notify_all(self) -> None:
        """Tell of a change. With the lock held."""
        self.count += 1
        self._condition.notify_all()
        for listener in self.listeners:
            listener()

    def wait(self, seen: int, timeout_s: float) -> None:
        """Return once `count` is not `seen` any more, or after `timeout_s`; also after a step, to be called again."""
        with self._condition:
            if self.count == seen:
                self._condition.wait(min(STEP_S, timeout_s))


class Pause:
    """Awaited by steps: until `signal` tells of a change after the one numbered `seen`, or time has passed."""

    __slots__ = ("seen", "signal", "timeout_s")

    def __init__(self, signal: Signal, seen: int, timeout_s: float) -> None:
        self.signal = signal
        self.seen = seen
        self.timeout_s = timeout_s

    def __await__(self) -> Generator[Pause, None, None]:
        yield self


async def until(signal: Signal, check: Callable[[], Found | None], deadline_s: float) -> Found | None:
    """What `check()`, called at once and after each change, returned other than None; None at the deadline."""
    while True:
        seen = signal.count
        found = check()
        if found is not None:
            return found
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            return None
        await Pause(signal, seen, left_s)


def run(steps: Steps[Found]) -> Found:
    """Carry out steps in this thread and return their result."""
    try:
        while True:
            pause: Pause = steps.send(None)
            pause.signal.wait(pause.seen, pause.timeout_s)
    except StopIteration as end:
        result: Found = end.value
        return result
    finally:
        steps.close()


def wait_event(event: threading.Event, timeout_s: float | None) -> bool:
    """`event.wait`, in steps."""
    deadline_s = float("inf") if timeout_s is None else time.monotonic() + timeout_s
    while not event.wait(max(0.0, min(STEP_S, deadline_s - time.monotonic()))):
        if time.monotonic() >= deadline_s:
            return False
    return True
