"""Waits of a user's thread that Ctrl-C always ends.

A signal that comes in the instant between Python's last look for one and the system call that waits is seen only when
that call returns. So no wait is one long one.
"""

from __future__ import annotations

import threading
import time

STEP_S = 0.5


def wait_event(event: threading.Event, timeout_s: float | None) -> bool:
    """`event.wait`, in steps."""
    deadline_s = float("inf") if timeout_s is None else time.monotonic() + timeout_s
    while not event.wait(max(0.0, min(STEP_S, deadline_s - time.monotonic()))):
        if time.monotonic() >= deadline_s:
            return False
    return True


def wait_step(condition: threading.Condition, timeout_s: float) -> None:
    """One step of `condition.wait`, for callers that look again in a loop."""
    condition.wait(min(STEP_S, timeout_s))
