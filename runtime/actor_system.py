"""A supervisor of user-written actors, in a thread of the user's own program.

Owns: one life of `zafka.actor.System`: the run directory, the fork server, the tree of actors
(`runtime/user_tree.py`), driven by one loop in one thread. The program's other threads put calls into a queue and
wait; they touch nothing of ZeroMQ.
An actor travels as bytes in a memory file, over the private socket of the fork server; messages travel over `ipc` in a
directory of mode 0700. If the program dies, the fork server and all actors die with it (PDEATHSIG); if the fork server
dies, all actors start again from a new one.
May fail with CannotStart: no place for sockets, or the fork server cannot import what it needs.
Invariants: the loop never blocks on an actor or on user code; every call returns, whatever dies.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import zmq

from zafka.actors.start import SUPERVISOR
from zafka.actors.user_messages import STOPPED, UserMessage
from zafka.runtime.control import memory_bytes
from zafka.runtime.errors import CannotStart, RuntimeFault
from zafka.runtime.fork_client import ForkServerClient, ForkServerGone
from zafka.runtime.limits import raise_descriptor_limit
from zafka.runtime.run_dir import RunDirectory
from zafka.runtime.server_holder import ServerHolder
from zafka.runtime.settings import SupervisionSettings
from zafka.runtime.supervisor import tick_interval_s
from zafka.runtime.switchboard import Resolve
from zafka.runtime.user_tree import SHELL, Spawn, UserTree, log
from zafka.transport.mailbox import Mailbox

PRELOAD = (SHELL, "zafka.actor", "cloudpickle")
INCARNATION = 1  # of the supervisor; an actor's is higher
MAIL_PER_ROUND = 1000
RETRY_S = 0.005
NEVER_HUNG_S = 1e6  # a program that somebody stopped (Ctrl-Z) is not ours to continue
CLOSED = "the actor system is closed"


class Waiter:
    """One call of another thread: `set` by the loop, once; waited for by the caller."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.value: Any = None

    def set(self, value: Any = None) -> None:
        self.value = value
        self._event.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        return self._event.wait(timeout_s)


class ActorSystem:
    """Call `start`, then `spawn`, `post`, ...; `close` at the end. Methods may be called by any thread.

    stop_s: how long all actors together may take to stop, at `close`.
    failure: why supervision gave up; "" while it has not.
    """

    def __init__(self, name: str, settings: SupervisionSettings, *, stop_s: float) -> None:
        self.name = name
        self.failure = ""
        self._settings = settings
        self._stop_s = stop_s
        self._pid = os.getpid()
        self._posts = itertools.count(1)
        self._waiters: dict[int, Waiter] = {}  # of the owner's posts
        self._removed: dict[str, list[Waiter]] = {}  # who waits for the end of an actor
        self._calls: deque[tuple[Callable[[Waiter], None], Waiter, Any]] = deque()  # what, for whom, else what
        self._lock = threading.Lock()  # of _calls, _over and the descriptors
        self._over = False  # the loop takes no more calls
        self._stop_by_s = float("inf")
        self._pulse_at_s = 0.0  # when the mailbox's next heartbeat is due
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._started = Waiter()
        self._thread = threading.Thread(target=self._main, name=f"zafka {name}", daemon=True)

    def __repr__(self) -> str:
        return f"<ActorSystem {self.name} {'over' if self._over else self._tree}>"

    # -- for the program's threads -------------------------------------------------------------

    def start(self) -> None:
        """Returns once actors can be spawned. Raises CannotStart."""
        self._thread.start()
        self._started.wait()
        if self._started.value is not None:
            self._thread.join()
            raise self._started.value

    def spawn(self, spawn: Spawn) -> bool | None:
        """Run an actor; False if one of this name is there, None if the system is over."""
        done: bool | None = self._call(lambda waiter: waiter.set(self._tree.spawn(spawn)), None)
        return done

    def stop(self, name: str) -> None:
        """Stop an actor for good; returns once it is confirmed dead."""

        def stop(waiter: Waiter) -> None:
            self._removed.setdefault(name, []).append(waiter)
            self._tree.stop(name)

        self._call(stop, None)

    def post(self, to: str, message: bytes, *, ask: bool, timeout_s: float) -> tuple[int, bytes] | None:
        """Send a message and wait for what becomes of it; None: not known after `timeout_s`."""
        number = next(self._posts)

        def post(waiter: Waiter) -> None:
            self._waiters[number] = waiter
            self._tree.post(number, to, message, ask=ask)

        over = STOPPED, (self.failure or CLOSED).encode()
        result: tuple[int, bytes] | None = self._call(post, over, timeout_s)
        if result is None:
            self._call(lambda waiter: waiter.set(self._waiters.pop(number, None)), None)
        return result

    def kill(self, name: str, number: int) -> int:
        """Send a signal to an actor's process; returns its id, 0 if there is none at the moment."""
        return int(self._call(lambda waiter: waiter.set(self._tree.send_signal(name, number)), 0))

    def state_of(self, name: str) -> str:
        """How an actor is, for people."""
        return str(self._call(lambda waiter: waiter.set(self._tree.state_of(name)), "the actor system is closed"))

    def status(self) -> list[dict[str, Any]]:
        """As the actors of `zafka status --format json`."""
        actors: list[dict[str, Any]] = self._call(lambda waiter: waiter.set(self._tree.status()), [])
        return [{**actor, "memory_bytes": memory_bytes(actor["pid"]) if actor["pid"] else 0} for actor in actors]

    def close(self) -> None:
        """Stop all actors, last started first; nobody lives when this returns."""

        def shutdown(waiter: Waiter) -> None:
            waiter.set()
            self._stop_by_s = min(self._stop_by_s, time.monotonic() + self._stop_s)
            self._tree.shutdown()

        self._call(shutdown, None)
        self._thread.join()

    def _call(self, function: Callable[[Waiter], None], over: Any, timeout_s: float | None = None) -> Any:
        """Have the loop call this; returns what the waiter was given, None after `timeout_s`, `over` if it is over."""
        if os.getpid() != self._pid:
            raise RuntimeError("this process was forked from the one that the actor system belongs to; use it there")
        waiter = Waiter()
        with self._lock:
            if self._over:
                return over
            self._calls.append((function, waiter, over))
            with contextlib.suppress(BlockingIOError):  # full: it wakes up anyway
                os.write(self._wake_write, b"x")
        return waiter.value if waiter.wait(timeout_s) else None

    # -- the loop, in its thread ---------------------------------------------------------------

    def _main(self) -> None:
        with contextlib.ExitStack() as closing:
            try:
                self._open(closing)
            except (CannotStart, OSError) as error:
                self._started.set(error if isinstance(error, CannotStart) else CannotStart(str(error)))
                return
            self._started.set()
            try:
                self._run()
            except RuntimeFault as error:
                self.failure = str(error)
            if self.failure:
                log.error("%s: supervision gave up: %s", self.name, self.failure)

    def _open(self, closing: contextlib.ExitStack) -> None:
        """What is opened first is closed last."""
        closing.callback(self._close_pipe)
        raise_descriptor_limit()
        run_dir = RunDirectory()
        closing.callback(run_dir.close)
        context: zmq.Context[Any] = zmq.Context()
        closing.callback(context.term)
        endpoint = run_dir.endpoint("root")
        self._mailbox = Mailbox(context, SUPERVISOR, INCARNATION, UserMessage, endpoint=endpoint)
        closing.callback(self._mailbox.close)
        # By this thread: the fork server dies with the thread that launched it.
        self._holder = ServerHolder(self._launch, self._settings, self._complain)
        closing.callback(self._holder.close)
        self._tree = UserTree(
            self.name, self._settings, mailbox=self._mailbox, endpoint=endpoint, server=self._holder.server,
            resolve=self._resolve, on_removed=self._on_removed)
        closing.callback(self._finish)

    @staticmethod
    def _launch() -> ForkServerClient:
        return ForkServerClient(PRELOAD, hung_after_s=NEVER_HUNG_S)

    def _complain(self, text: str) -> None:
        log.error("%s: %s", self.name, text)

    def _run(self) -> None:
        tree = self._tree
        while tree.ended is None:
            self._wait()
            self._round()
            if time.monotonic() > self._stop_by_s:
                log.warning("%s: actors did not stop within %g s, killed those left", self.name, self._stop_s)
                return
        if tree.ended.failed:
            self.failure = tree.ended.reason

    def _wait(self) -> None:
        """Until something happens or is due."""
        now_s = time.monotonic()
        ticks_s = min(self._settings.heartbeat_s, tick_interval_s(self._settings.hung_after_s))
        wait_s = min(ticks_s, self._tree.wakeup_s() - now_s, self._stop_by_s - now_s)
        if self._mailbox.queued:
            wait_s = min(wait_s, RETRY_S)
        server = self._holder.server
        poll_list: list[tuple[Any, int]] = [
            *((socket, int(zmq.POLLIN)) for socket in self._mailbox.ports()),
            (server.socket.fileno(), select.POLLIN | (select.POLLOUT if server.wants_to_write else 0)),
            (self._wake_read, int(zmq.POLLIN)),
        ]
        ready = dict(zmq.zmq_poll(poll_list, max(0, int(wait_s * 1000) + 1)))
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)

    def _round(self) -> None:
        """Take in everything that has come: deaths first, so that no mail of the dead is believed."""
        self._take_reports()
        for received in self._mailbox.receive(MAIL_PER_ROUND):
            self._tree.on_mail(received)
        self._mailbox.retry()
        self._pulse()
        while self._calls:
            function, waiter, _ = self._calls.popleft()
            function(waiter)
        self._tree.tick()
        self._holder.tick(time.monotonic())

    def _pulse(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._pulse_at_s:
            self._pulse_at_s = now_s + self._settings.heartbeat_s
            self._mailbox.pulse()

    def _take_reports(self) -> None:
        try:
            reports = self._holder.receive()
        except ForkServerGone:
            self._replace_server()
            return
        for report in reports:
            self._tree.on_report(report)

    def _replace_server(self) -> None:
        """The fork server is dead and with it every actor: all start again, from a new one."""
        code = self._holder.bury()
        log.error("%s: the process that forks actors died (code %s), all actors with it", self.name, code)
        self._tree.on_server_gone(self._holder.replace())

    # -- what the tree tells -------------------------------------------------------------------

    def _resolve(self, resolve: Resolve) -> None:
        waiter = self._waiters.pop(resolve.post, None)
        if waiter is not None:  # else the ask has timed out
            waiter.set((resolve.outcome, resolve.content))

    def _on_removed(self, name: str) -> None:
        for waiter in self._removed.pop(name, ()):
            waiter.set()

    # -- the end -------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Nobody lives after this. Whoever waits hears that it is over, and so does whoever comes late."""
        self._holder.close()
        with self._lock:
            self._over = True
        for _, waiter, over in self._calls:
            waiter.set(over)
        self._tree.close(self.failure or CLOSED)
        for name in list(self._removed):
            self._on_removed(name)

    def _close_pipe(self) -> None:
        with self._lock:
            self._over = True
            os.close(self._wake_read)
            os.close(self._wake_write)
