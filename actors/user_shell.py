"""The process of a user-written actor: what the user wrote on one side, its supervisor's mail on the other.

Owns: `UserActor`, the state machine that handles one message after the other; `UserPort`, by which user code tells,
asks and sets timers; and the blocking loop. An ask waits inside `on_message`: heartbeats go on meanwhile, and what
comes apart from the answer is taken up afterwards.
The only bytes unpickled here come through descriptors and sockets of the local supervisor: the actor itself from its
memory file, messages from the run directory (mode 0700).
May fail with whatever user code raises: the traceback goes to the supervisor, the process ends.
Invariant: one thread, one message at a time; `Handled` follows each one that did not kill us.
"""

from __future__ import annotations

import itertools
import pickle
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

import zmq

from zafka.actors.actor import CancelTimer, Effect, Effects, Exit, Mail, Now, Send, SetTimer, TimerFired
from zafka.actors.messages import Ready, Shutdown
from zafka.actors.shell import ActorRuntime, open_runtime
from zafka.actors.start import SUPERVISOR, ActorStart, CustomStart
from zafka.actors.user_messages import Deliver, GaveUp, Handled, Post, Resolved, Uncaught, UserMessage
from zafka.transport.mailbox import Port

TRACEBACK_CHARS_MAX = 20_000
POLL_S = 0.05


class Hosted(Protocol):
    """A user's actor as `zafka/actor.py` wraps it. Raises whatever user code raises."""

    def on_start(self) -> None: ...

    def on_message(self, message: memoryview, *, sender: str) -> bytes:
        """Returns the pickled answer."""

    def on_timer(self, name: str) -> None: ...

    def on_stop(self) -> None: ...


class UserPort:
    """What user code may do. Of the actor's own thread only: other threads get a RuntimeError."""

    def __init__(self, start: ActorStart, runtime: ActorRuntime) -> None:
        self.name = start.name
        self.incarnation = start.incarnation
        self.stopping: str | None = None  # why, once user code wants to stop
        self.deferred: deque[Mail] = deque()  # came while an ask waited
        self.effects: list[Effect] = []  # of the call that is going on
        self._runtime = runtime
        self._thread = threading.get_ident()
        self._numbers = itertools.count(1)
        self._timers: set[str] = set()

    def take_effects(self) -> Effects:
        effects, self.effects = self.effects, []
        return effects

    def check_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise RuntimeError(f"actor {self.name}: this works in the actor's own thread only, not in others it started")

    def set_timer(self, name: str, after_s: float) -> None:
        self.check_thread()
        self._timers.add(name)
        self.effects.append(SetTimer(name, self._runtime.clock().monotonic_s + after_s))

    def cancel_timer(self, name: str) -> None:
        self.check_thread()
        self._timers.discard(name)
        self.effects.append(CancelTimer(name))

    def fires(self, name: str) -> bool:
        """Whether a timer that is due was not cancelled by the one before it."""
        wanted = name in self._timers
        self._timers.discard(name)
        return wanted

    def state_of(self, name: str) -> str:
        return "how it is, its supervisor knows"

    def stop(self, reason: str) -> None:
        self.check_thread()
        self.stopping = reason

    def progress(self) -> None:
        self.check_thread()
        self._runtime.progress()

    def post(self, to: str, message: bytes, *, ask: bool, timeout_s: float) -> tuple[int, bytes] | None:
        """Send a message by the supervisor and wait for what becomes of it; None: not known after `timeout_s`."""
        self.check_thread()
        runtime = self._runtime
        number = next(self._numbers)
        runtime.mailbox.send(SUPERVISOR, Post(number, to, ask), (message,))
        deadline_s = time.monotonic() + timeout_s
        while True:
            resolved = None
            for mail in runtime.receive():
                body = mail.body
                if type(body) is not Resolved:
                    self.deferred.append(mail)
                elif body.number == number:  # else it belongs to an ask that has timed out
                    resolved = body.outcome, bytes(mail.records)
            if resolved is not None:
                return resolved
            if runtime.exit is not None:  # the link to the supervisor is broken: this process ends
                return None
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                runtime.mailbox.send(SUPERVISOR, GaveUp(number))
                return None
            runtime.tick()
            _poll(runtime, min(left_s, POLL_S))


class UserActor:
    """Hands messages and timers to user code, one at a time."""

    def __init__(self, hosted: Hosted, port: UserPort) -> None:
        self._hosted = hosted
        self._port = port

    def on_start(self, now: Now) -> Effects:
        self._hosted.on_start()
        return [*self._port.take_effects(), Send(SUPERVISOR, Ready()), *self._exit()]

    def on_mail(self, mail: Mail, now: Now) -> Effects:
        match mail.body:
            case Deliver(number=number, sender=sender, ask=ask):
                answer = self._hosted.on_message(mail.records, sender=sender)
                exit_ = self._exit()
                handled = Send(SUPERVISOR, Handled(number, bool(exit_)), (answer,) if ask else ())
                return [*self._port.take_effects(), handled, *exit_]
            case TimerFired(name=name) if self._port.fires(name):
                self._hosted.on_timer(name)
                return [*self._port.take_effects(), *self._exit()]
            case Shutdown():
                self._port.stopping = self._port.stopping or "shutdown"
                return self._exit()
        return []

    def on_turn_end(self, now: Now) -> Effects:
        return []

    def _exit(self) -> Effects:
        """If it is to stop: its last call, and the end of the process."""
        if self._port.stopping is None:
            return []
        self._hosted.on_stop()
        return [Exit(0, self._port.stopping)]


def main(start: ActorStart) -> int:
    """Run one user-written actor in this process until it stops; returns the exit code."""
    assert isinstance(start.arguments, CustomStart)
    _write_for_people()
    with open_runtime(start, message_type=UserMessage) as runtime:
        try:
            port = UserPort(start, runtime)
            make: Callable[[UserPort], Hosted] = pickle.loads(start.arguments.arguments["actor"])
            runtime.progress()
            runtime.adopt(UserActor(make(port), port))
            _run(runtime, port)
        finally:
            error = sys.exception()
            if error is not None:
                error.with_traceback(_users_part(error.__traceback__))
                text = "".join(traceback.format_exception(error))
                runtime.mailbox.send(SUPERVISOR, Uncaught(text[-TRACEBACK_CHARS_MAX:]))
    assert runtime.exit is not None
    return runtime.exit.code


def _run(runtime: ActorRuntime, port: UserPort) -> None:
    while runtime.exit is None:
        if not port.deferred:
            _poll(runtime, runtime.wakeup_s() - time.monotonic())
        runtime.tick()
        mails = [*port.deferred, *runtime.due(), *runtime.receive()]
        port.deferred.clear()
        for mail in mails:
            runtime.turn((mail,))
            if runtime.exit is not None:
                return


def _poll(runtime: ActorRuntime, wait_s: float) -> None:
    """Wait until mail comes, or this long."""
    poll_list: list[tuple[Port, int]] = [(port, int(zmq.POLLIN)) for port in runtime.mailbox.ports()]
    zmq.zmq_poll(poll_list, int(wait_s * 1000) + 1 if wait_s > 0 else 0)


def _users_part(trace: TracebackType | None) -> TracebackType | None:
    """Of a traceback what is below us: what the user wrote, and called."""
    below = trace
    while below is not None and str(below.tb_frame.f_globals.get("__name__", "")).startswith("zafka."):
        below = below.tb_next
    return below or trace


def _write_for_people() -> None:
    """What user code prints is seen at once, and not lost with a killed process; what it raises looks as usual."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(line_buffering=True)
    sys.excepthook = sys.__excepthook__
