"""The one background thread of a client object: it owns every socket and waits for them with a ZeroMQ poller.

Owns: the loop, and how other threads get into it (`call`). What is done in it is the `Turn` it was given.
A turn: sockets that are ready are served, calls of other threads are run, then `turn(now)` looks at the whole state,
does what is due and returns when it wants to look again at the latest. So there are no timers to keep.
If anything raises in here it is our bug: the loop ends, `on_crash` tells every waiting thread, nobody hangs.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import zmq

logger = logging.getLogger("zafka.client")

IDLE_S = 60.0
READ = zmq.POLLIN
WRITE = zmq.POLLOUT

Source = Any  # a file descriptor or a zmq.Socket
OnReady = Callable[[int], None]
Turn = Callable[[float], float]


class IoThread:
    """Run `turn` and the callbacks of watched sockets in a thread of its own, until `stop`."""

    def __init__(self, name: str, turn: Turn, on_crash: Callable[[BaseException], None], on_end: Callable[[], None]):
        self.failure: BaseException | None = None
        self._turn = turn
        self._on_crash = on_crash
        self._on_end = on_end  # close what is open; in the thread, also after a crash
        self._poller = zmq.Poller()
        self._on_ready: dict[Source, OnReady] = {}
        self._calls: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._awake = False  # a wake-up byte is on its way
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self.watch(self._wake_in.fileno(), self._on_wake)
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self.thread.start()

    def begin_stop(self) -> None:
        """Have the loop end soon."""
        self._stopping = True
        self.wake()

    def stop(self, timeout: float = 5.0) -> bool:
        """End the loop and wait for it; True if it ended within `timeout` seconds. Safe to call twice."""
        self.begin_stop()
        if threading.current_thread() is not self.thread:
            self.thread.join(timeout)
        return not self.thread.is_alive()

    # -- from any thread -------------------------------------------------------------------------

    def call(self, function: Callable[[], None]) -> None:
        """Run `function` in the thread, in the order of calls. After the end it is not run."""
        self._calls.append(function)
        self.wake()

    def wake(self) -> None:
        """Have a turn soon."""
        if not self._awake:
            self._awake = True
            try:  # noqa: SIM105  a Ctrl-C may come with a call, and none may stand between flag and byte
                self._wake_out.send(b"\0")
            except OSError:
                pass

    # -- in the thread ---------------------------------------------------------------------------

    def watch(self, source: Source, on_ready: OnReady, events: int = READ) -> None:
        """Call `on_ready(events)` whenever `source` is ready; a second call changes events and callback."""
        self._on_ready[source] = on_ready
        self._poller.register(source, events)

    def unwatch(self, source: Source) -> None:
        if self._on_ready.pop(source, None) is not None:
            self._poller.unregister(source)

    def _on_wake(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_in.recv(4096)
        self._awake = False  # before the calls are run: a later call sends a new byte

    def _poll(self, wait_ms: float) -> list[tuple[Source, int]]:
        # Round up: waking a moment too early would spin.
        return self._poller.poll(int(wait_ms + 0.999))

    def _run(self) -> None:
        try:
            wait_until_s = 0.0
            while not self._stopping:
                wait_ms = max(0.0, min(IDLE_S, wait_until_s - time.monotonic())) * 1000
                ready = [(source, events, self._on_ready.get(source)) for source, events in self._poll(wait_ms)]
                for source, events, on_ready in ready:
                    # One that an earlier one of these closed is gone, though its number may be in use again.
                    if on_ready is not None and self._on_ready.get(source) is on_ready:
                        on_ready(events)
                while self._calls:
                    self._calls.popleft()()
                wait_until_s = self._turn(time.monotonic())
        except BaseException as error:  # the last barrier: whoever waits must hear of it
            self.failure = error
            logger.exception("the I/O thread %s died", self.thread.name)
            self._on_crash(error)
        finally:
            self._on_end()
            self._wake_in.close()
            self._wake_out.close()
