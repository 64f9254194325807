"""Whether the fork server is well: it answers, or it is helped, or replaced.

Owns: when to ask, and what silence means. Decides by the clock it is given; acts by signals to the server.
"""

from __future__ import annotations

import signal

from zafka.runtime.fork_client import ForkServerClient
from zafka.runtime.supervisor import tick_interval_s


class ServerWatch:
    """Whether the fork server answers. One that is stopped is continued, one that hangs is killed.

    asked_s: when the ping was sent that is not answered yet.
    """

    def __init__(self, hung_after_s: float, *, now_s: float) -> None:
        self.hung_after_s = hung_after_s
        self.asked_s: float | None = None
        self._next_s = 0.0
        self._continued = False
        self._ticked_s = now_s

    def on_pong(self) -> None:
        self.asked_s = None
        self._continued = False

    def tick(self, server: ForkServerClient, was_ready: bool, now_s: float) -> None:
        if now_s - self._ticked_s > 2 * tick_interval_s(self.hung_after_s) and self.asked_s is not None:
            self.asked_s = now_s  # we did not run ourselves
        self._ticked_s = now_s
        if not was_ready:
            return
        if self.asked_s is None:
            if now_s >= self._next_s:
                self._next_s = now_s + self.hung_after_s / 4
                self.asked_s = now_s
                server.ping()
        elif now_s - self.asked_s > self.hung_after_s:
            server.signal_server(signal.SIGKILL)
        elif now_s - self.asked_s > self.hung_after_s / 2 and not self._continued:
            self._continued = True
            server.signal_server(signal.SIGCONT)
