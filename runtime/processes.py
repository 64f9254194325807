"""Supervised actors in processes: what every tree of actors does, whoever its actors are.

Owns: which incarnation of which actor runs, in which process, and what is known of it. Has supervisors decide
(`runtime/supervisor.py`), hands each decision to its tree, and reports to them what became of it. What is started,
who hears of whom and what mail means is the tree's: `runtime/tree.py` for brokers, `runtime/user_tree.py` for actors
that users write.
Driven by the owner's loop with what the fork server reports, what actors send, and the time. Never blocks, but for
the moment in which the last word of an actor that has just ended is awaited.
Invariants: mail from an incarnation waits until its process is known, and is ignored once that is confirmed dead;
its supervisor hears of each end once.
"""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import msgspec

from zafka.actors.start import PEER_GONE, ActorStart, Arguments
from zafka.runtime.fork_client import Exited, ForkServerClient, Refused, Spawned
from zafka.runtime.last_word import await_last_word, exit_reason, waits_for_disk
from zafka.runtime.settings import SupervisionSettings
from zafka.runtime.supervisor import (
    Backoff,
    ChildSpec,
    Decisions,
    Ended,
    Kill,
    Removed,
    RestartLimit,
    Start,
    Stop,
    Supervisor,
)
from zafka.transport.link import Broken
from zafka.transport.mailbox import Mailbox, Received


class Program(NamedTuple):
    """What runs as an actor of a kind: dotted paths, as in ActorStart."""

    main: str
    build: str


Key = tuple[str, str]
"""A supervisor's name and its child's. The child's alone does not do: while a deleted topic's partition stops at one
broker, that of a new topic of the same name may start at another."""


@dataclass(slots=True)
class Running:
    """One incarnation of an actor. supervisor: whose child it is. pid 0: asked for, not there yet.

    reason: its last word, or why we killed it. mail_lost: between it and us; it is being killed for that."""

    name: str
    incarnation: int
    supervisor: Supervisor
    asked_s: float
    pid: int = 0
    reason: str = ""
    mail_lost: bool = False

    @property
    def key(self) -> Key:
        return self.supervisor.name, self.name


R = TypeVar("R", bound=Running)


class SupervisedProcesses(ABC, Generic[R]):
    """What both trees are. mailbox, endpoint, server: the owner's; endpoint is where actors write to it.

    supervisor: the topmost one; made by the tree, as it knows the children.
    ended: what became of the tree, once it has no process any more and never will.
    """

    supervisor: Supervisor
    explains_exit_0 = False  # an actor says why it ended also where nothing was wrong, and that is worth waiting for

    def __init__(
        self,
        supervision: SupervisionSettings,
        *,
        mailbox: Mailbox,
        endpoint: str,
        server: ForkServerClient,
        random: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.mailbox = mailbox
        self.server = server
        self.running: dict[Key, R] = {}
        self.ended: Ended | None = None
        self._supervision = supervision
        self._endpoint = endpoint
        self._random = random
        self._clock = clock
        self._incarnations: dict[int, R] = {}  # of every process that is, or was asked for
        self._early: list[Received] = []  # mail that overtook the report that its sender's process exists

    # -- what each tree says -------------------------------------------------------------------

    def supervisors(self) -> Iterator[Supervisor]:
        """All that run, the topmost first."""
        yield self.supervisor

    @abstractmethod
    def _start(self, supervisor: Supervisor, spec: ChildSpec) -> None:
        """`Start` was decided: `_spawn` it."""

    @abstractmethod
    def _stop(self, supervisor: Supervisor, name: str) -> None:
        """`Stop` was decided: ask it to finish."""

    @abstractmethod
    def _kill(self, running: R, reason: str) -> None:
        """`Kill` was decided, or mail was lost: have the server kill it, and remember why."""

    @abstractmethod
    def _remove(self, supervisor: Supervisor, name: str) -> None:
        """`Removed` was decided: it does not come back."""

    def _end(self, supervisor: Supervisor, ended: Ended) -> None:
        """This supervisor has no children any more."""
        self.ended = ended

    @abstractmethod
    def _on_body(self, running: R, received: Received) -> None:
        """A living actor has written."""

    @abstractmethod
    def _on_down(self, running: R, code: int, reason: str) -> None:
        """This incarnation is confirmed dead: tell whom it concerns."""

    # -- the whole -----------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Stop everything in order; `ended` tells when it is done."""
        self._perform(self.supervisor, self.supervisor.shutdown(self._clock()))

    def tick(self) -> None:
        """Whatever is due in any supervisor."""
        now_s = self._clock()
        for supervisor in list(self.supervisors()):
            for name in supervisor.silent(now_s):
                if self._waits_for_disk(self.running[supervisor.name, name]):
                    supervisor.on_disk_wait(name, now_s)
            self._perform(supervisor, supervisor.tick(now_s))

    def wakeup_s(self) -> float:
        return min(supervisor.wakeup_s() for supervisor in self.supervisors())

    def named(self, name: str) -> R | None:
        """The newest incarnation that runs under this name."""
        found = [running for running in self.running.values() if running.name == name]
        return max(found, key=lambda running: running.incarnation, default=None)

    def send_signal(self, name: str, number: int) -> int:
        """Send a signal to an actor's process; returns its id, 0 if there is none at the moment."""
        running = self.named(name)
        if running is None or running.pid == 0:
            return 0
        self.server.kill(running.incarnation, signal.Signals(number))
        return running.pid

    # -- what the fork server reports ----------------------------------------------------------

    def on_report(self, report: Spawned | Exited | Refused) -> None:
        match report:
            case Spawned():
                self.on_spawned(report)
            case Exited():
                self.on_exited(report)
            case Refused():
                self.on_refused(report)

    def on_spawned(self, report: Spawned) -> None:
        running = self._incarnations[report.incarnation]
        running.pid = report.pid
        self._perform(running.supervisor, running.supervisor.on_spawned(running.name, self._clock()))
        early, self._early = self._early, []
        for received in early:
            self.on_mail(received)

    def on_refused(self, report: Refused) -> None:
        """No process: too many, or no memory. A crash like any other, so that backoff leaves the machine time."""
        reason = f"no process could be made: {os.strerror(report.errno)}"
        self._bury(self._incarnations[report.incarnation], os.EX_OSERR, reason)

    def on_exited(self, report: Exited) -> None:
        running = self._incarnations[report.incarnation]
        if report.code > 0 or (report.code == 0 and self.explains_exit_0):
            self._await_last_word(running)
        self._bury(running, report.code, exit_reason(report.code))

    def on_server_gone(self, server: ForkServerClient) -> None:
        """Every process is confirmed dead, with the fork server; from now on they come from this one."""
        self.server = server
        for running in list(self._incarnations.values()):
            self._bury(running, -signal.SIGKILL, "died with the fork server")

    # -- what actors send ----------------------------------------------------------------------

    def on_mail(self, received: Received) -> None:
        name, incarnation = received.sender
        running = self._incarnations.get(incarnation)
        if running is None or running.name != name:
            return
        if running.pid == 0:
            self._early.append(received)
            return
        if type(received.body) is not Broken:
            self._on_body(running, received)
        elif not running.mail_lost:
            # Only a new start makes both ends agree again.
            running.mail_lost = True
            self._kill(running, "mail from or to it was lost")

    # -- how -----------------------------------------------------------------------------------

    def _make_supervisor(self, name: str, specs: Sequence[ChildSpec], strategy: str) -> Supervisor:
        supervision = self._supervision
        return Supervisor(
            name, specs, strategy=strategy, limit=RestartLimit(supervision.intensity, supervision.period_s),
            backoff=Backoff(supervision.backoff_initial_s, supervision.backoff_max_s),
            hung_after_s=supervision.hung_after_s, random=self._random)

    def _perform(self, supervisor: Supervisor, decisions: Decisions) -> None:
        for decision in decisions:
            match decision:
                case Start(spec=spec):
                    self._start(supervisor, spec)
                case Stop(id=name):
                    self._stop(supervisor, name)
                case Kill(id=name, reason=reason):
                    self._kill(self.running[supervisor.name, name], reason)
                case Removed(id=name):
                    self._remove(supervisor, name)
                case Ended():
                    self._end(supervisor, decision)

    def _spawn(
        self, running: R, program: Program, arguments: Arguments, *, inbox: str = "", fds: tuple[int, ...] = ()
    ) -> None:
        """Ask for the process of a new incarnation."""
        self.running[running.key] = self._incarnations[running.incarnation] = running
        start = ActorStart(
            name=running.name, incarnation=running.incarnation, main=program.main, build=program.build,
            arguments=arguments, supervisor_incarnation=self.mailbox.incarnation,
            supervisor_endpoint=self._endpoint, inbox=inbox, heartbeat_s=self._supervision.heartbeat_s)
        modules = tuple(path.partition(":")[0] for path in program if path)
        self.server.spawn(running.incarnation, running.name, msgspec.msgpack.encode(start), fds, modules)

    def _await_last_word(self, running: R) -> None:
        await_last_word(self.mailbox, lambda: running.reason != "", self.on_mail)

    def _waits_for_disk(self, running: R) -> bool:
        return waits_for_disk(running.pid)

    def _bury(self, running: R, code: int, reason: str) -> None:
        """This incarnation is confirmed dead: whom it concerns hears of it, and its supervisor decides what then."""
        name, supervisor = running.name, running.supervisor
        reason = running.reason or reason
        code = PEER_GONE if running.mail_lost else code  # the weather, however it was killed
        del self._incarnations[running.incarnation], self.running[running.key]
        self.mailbox.forget(name, running.incarnation)
        self._on_down(running, code, reason)
        self._perform(supervisor, supervisor.on_exit(name, code, reason, self._clock()))
