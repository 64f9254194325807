"""The fork server of the moment: watched while it lives, replaced once it is dead.

Owns: the client of the server that runs, and the count of servers that crashed. Driven by the loops of
`runtime/root.py` and `runtime/actor_system.py`, which tell their trees what it reports.
May fail with ForkServerGone; then with CannotStart or TreeFailed, where a further server would not help.
Invariant: there is a new server only after the old one and all its children are confirmed dead, or were killed and
hang in the kernel.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from zafka.runtime.errors import CannotStart, TreeFailed
from zafka.runtime.fork_client import Exited, ForkServerClient, Pong, Refused, ServerReady, Spawned
from zafka.runtime.server_watch import ServerWatch
from zafka.runtime.settings import SupervisionSettings
from zafka.runtime.supervisor import RestartLimit, allow_restart

KILL_S = 1.0


class ServerHolder:
    """launch: makes a server. complain: told what the operator should know of an end."""

    def __init__(
        self, launch: Callable[[], ForkServerClient], supervision: SupervisionSettings, complain: Callable[[str], object]
    ) -> None:
        self.server = launch()
        self._launch = launch
        self._limit = RestartLimit(supervision.intensity, supervision.period_s)
        self._complain = complain
        self._was_ready = False
        self._crashes_s: deque[float] = deque()
        self._watch = ServerWatch(supervision.hung_after_s, now_s=time.monotonic())

    def receive(self) -> list[Spawned | Exited | Refused]:
        """What became of processes; raises ForkServerGone at the server's end, after the last report."""
        self.server.flush()
        reports: list[Spawned | Exited | Refused] = []
        for report in self.server.receive():
            match report:
                case ServerReady():
                    self._was_ready = True
                case Pong():
                    self._watch.on_pong()
                case _:
                    reports.append(report)
        return reports

    def tick(self, now_s: float) -> None:
        """Help a server that does not answer, or end it. One that was not replaced is nobody's to ask."""
        if not self.server.closed:
            self._watch.tick(self.server, self._was_ready, now_s)

    def bury(self) -> int | None:
        """It is gone: wait until its children are too, and return its exit code."""
        self.server.await_end(KILL_S)
        self.close()
        return self.server.exit_code

    def replace(self) -> ForkServerClient:
        """A new one in place of the buried one.

        Raises CannotStart if that could not import what it needs, TreeFailed if servers die again and again unready.
        """
        assert self.server.closed
        if not self._was_ready:
            code = self.server.exit_code
            if code is not None and code > 0:
                raise CannotStart("the process that forks actors ended before it was ready; its error stands above")
            if not allow_restart(self._crashes_s, time.monotonic(), self._limit):
                raise TreeFailed("the process that forks actors dies again and again before it is ready")
        self.server = self._launch()
        self._was_ready = False
        self._watch.on_pong()  # nothing that this one was asked is open
        return self.server

    def close(self) -> None:
        """Nobody lives after this; safe to call again."""
        if not self.server.closed and not self.server.confirm_all_dead(KILL_S):
            self._complain("some processes hang in the kernel; they are gone as soon as it lets them")
