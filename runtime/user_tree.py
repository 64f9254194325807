"""The supervised processes of user-written actors, and their mail: performs what supervisor and switchboard decide.

Owns: which incarnation of which actor runs, in which process. Driven by `runtime/actor_system.py` with what the fork
server reports, what actors send, what the owner program wants, and the time. Nothing is unpickled here.
Invariants: mail of an incarnation is ignored once its process is confirmed dead; what the owner asked is resolved once.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from zafka.actors import messages
from zafka.actors.start import PEER_GONE, ActorStart, CustomStart
from zafka.actors.user_messages import Deliver, GaveUp, Handled, Post, Resolved, Uncaught
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
    Restart,
    RestartLimit,
    Start,
    Stop,
    Supervisor,
)
from zafka.runtime.switchboard import OWNER, Hand, Outputs, Resolve, Switchboard
from zafka.transport.link import Broken
from zafka.transport.mailbox import Mailbox, Received

SHELL = "zafka.actors.user_shell"

log = logging.getLogger("zafka.actor")


@dataclass(frozen=True, slots=True)
class Spawn:
    """What to run under a name. actor: the pickle of a function that makes a `user_shell.Hosted` from its port.

    stop_s: how long it may take to stop. letters_max: messages that may wait for it.
    """

    name: str
    actor: bytes
    restart: Restart = "permanent"
    stop_s: float = 1.0
    letters_max: int = 1000


@dataclass(slots=True)
class _Running:
    """One incarnation. pid 0: asked for, not there yet. reason: its last word, or why we killed it."""

    name: str
    incarnation: int
    asked_s: float
    pid: int = 0
    reason: str = ""
    traceback: str = ""


class UserTree:
    """mailbox, endpoint, server: the system's. resolve: takes what became of the owner's posts.

    on_removed: told of each actor that was stopped for good. ended: once there is no actor and never will be.
    """

    def __init__(
        self,
        name: str,
        settings: SupervisionSettings,
        *,
        mailbox: Mailbox,
        endpoint: str,
        server: ForkServerClient,
        resolve: Callable[[Resolve], None],
        on_removed: Callable[[str], None],
    ) -> None:
        self.server = server
        self.ended: Ended | None = None
        self.supervisor = Supervisor(
            name, [], strategy=settings.strategy, limit=RestartLimit(settings.intensity, settings.period_s),
            backoff=Backoff(settings.backoff_initial_s, settings.backoff_max_s),
            hung_after_s=settings.hung_after_s, random=random.random)
        self._settings = settings
        self._mailbox = mailbox
        self._endpoint = endpoint
        self._resolve = resolve
        self._on_removed = on_removed
        self._switchboard = Switchboard()
        self._running: dict[str, _Running] = {}
        self._incarnations: dict[int, _Running] = {}
        self._next_incarnation = itertools.count(mailbox.incarnation + 1)
        self._early: list[Received] = []  # mail that overtook the report that its sender's process exists

    def __repr__(self) -> str:
        return f"<UserTree {self.supervisor!r} {self._switchboard!r}>"

    # -- what the owner wants ------------------------------------------------------------------

    def spawn(self, spawn: Spawn) -> bool | None:
        """Run an actor, whose mailbox is there from now on; False if one of this name is there, None at the end."""
        if self.supervisor.ending:
            return None
        if spawn.name in self.supervisor.children:
            return False
        self._switchboard.add(spawn.name, letters_max=spawn.letters_max)
        spec = ChildSpec(
            spawn.name, spawn, restart=spawn.restart, shutdown_s=spawn.stop_s, weather_codes=frozenset({PEER_GONE}))
        self._perform(self.supervisor.start_child(spec, time.monotonic()))
        return True

    def stop(self, name: str) -> None:
        """Stop an actor for good; `on_removed` tells when it is dead."""
        self._perform(self.supervisor.terminate_child(name, time.monotonic()))

    def post(self, number: int, to: str, message: bytes, *, ask: bool) -> None:
        """The owner writes; `resolve` is told what became of this number."""
        self._route(self._switchboard.on_post(OWNER, number, to, message, ask=ask))

    def kill(self, name: str, number: int) -> int:
        """Send a signal to an actor's process; returns its id, 0 if there is none at the moment."""
        running = self._running.get(name)
        if running is None or running.pid == 0:
            return 0
        self.server.kill(running.incarnation, signal.Signals(number))
        return running.pid

    def state_of(self, name: str) -> str:
        """How an actor is, for people."""
        child = self.supervisor.children.get(name)
        if child is None:
            return "there is no such actor"
        last = f"; its last end: {child.last_exit}" if child.last_exit else ""
        return f"the actor is {child.shown_state}, {self._switchboard.waiting(name)} messages wait{last}"

    def shutdown(self) -> None:
        self._perform(self.supervisor.shutdown(time.monotonic()))

    def close(self, reason: str) -> None:
        """All processes are dead: nothing that is asked stays without an answer."""
        self._route(self._switchboard.end(reason))

    def status(self) -> list[dict[str, Any]]:
        """As the actors of `zafka status --format json`, without their memory."""
        now_s = time.monotonic()
        actors = []
        for name, child in self.supervisor.children.items():
            running = self._running.get(name)
            actors.append({
                "name": name, "kind": "user", "broker": None, "pid": running.pid if running else 0,
                "incarnation": running.incarnation if running else 0, "restarts": child.restarts,
                "state": child.shown_state, "mailbox": self._switchboard.waiting(name),
                "uptime_s": round(now_s - running.asked_s, 3) if running else 0.0, "last_exit": child.last_exit})
        return actors

    # -- what happens --------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        for name in self.supervisor.silent(now_s):
            if waits_for_disk(self._running[name].pid):
                self.supervisor.on_disk_wait(name, now_s)
        self._perform(self.supervisor.tick(now_s))

    def wakeup_s(self) -> float:
        return self.supervisor.wakeup_s()

    def on_spawned(self, report: Spawned) -> None:
        running = self._incarnations[report.incarnation]
        running.pid = report.pid
        self._perform(self.supervisor.on_spawned(running.name, time.monotonic()))
        early, self._early = self._early, []
        for received in early:
            self.on_mail(received)

    def on_refused(self, report: Refused) -> None:
        reason = f"no process could be made: {os.strerror(report.errno)}"
        self._bury(self._incarnations[report.incarnation], os.EX_OSERR, reason)

    def on_exited(self, report: Exited) -> None:
        running = self._incarnations[report.incarnation]
        if report.code >= 0:
            await_last_word(self._mailbox, lambda: running.reason != "", self.on_mail)
        self._bury(running, report.code, exit_reason(report.code))

    def on_server_gone(self, server: ForkServerClient) -> None:
        """Every process is confirmed dead, with the fork server; from now on they come from this one."""
        self.server = server
        for running in list(self._incarnations.values()):
            self._bury(running, -signal.SIGKILL, "died with the fork server")

    def on_mail(self, received: Received) -> None:
        running = self._incarnations.get(received.sender[1])
        if running is None or running.name != received.sender[0]:
            return
        if running.pid == 0:
            self._early.append(received)
            return
        name, now_s = running.name, time.monotonic()
        self.supervisor.on_heartbeat(name, now_s)  # whatever it says, it lives
        match received.body:
            case messages.Ready():
                self.supervisor.on_ready(name, now_s)
                self._route(self._switchboard.on_up(name))
            case Handled(number=number, last=last):
                self._route(self._switchboard.on_handled(name, number, bytes(received.records), last=last))
            case Post(number=number, to=to, ask=ask):
                self._route(self._switchboard.on_post(received.sender, number, to, bytes(received.records), ask=ask))
            case GaveUp(number=number):
                self._switchboard.on_gave_up(name, number)
            case Uncaught(traceback=traceback):
                running.traceback = traceback
            case messages.Exiting(reason=reason):
                running.reason = running.reason or reason
            case Broken() if not running.reason:  # only a new start makes both ends agree again
                self._kill(running, "mail from or to it was lost")

    # -- performing ----------------------------------------------------------------------------

    def _perform(self, decisions: Decisions) -> None:
        for decision in decisions:
            match decision:
                case Start(spec=spec):
                    self._start(spec.start)
                case Stop(id=name):
                    self._switchboard.on_stopping(name)
                    running = self._running[name]
                    self._mailbox.send((name, running.incarnation), messages.Shutdown())
                case Kill(id=name, reason=reason):
                    self._kill(self._running[name], reason)
                case Removed(id=name):
                    self._route(self._switchboard.remove(name, "the actor was stopped, or has ended for good"))
                    self._on_removed(name)
                case Ended():
                    self.ended = decision

    def _start(self, spawn: Spawn) -> None:
        incarnation = next(self._next_incarnation)
        running = _Running(spawn.name, incarnation, time.monotonic())
        self._running[spawn.name] = self._incarnations[incarnation] = running
        start = ActorStart(
            name=spawn.name, incarnation=incarnation, main=f"{SHELL}:main", build="",
            arguments=CustomStart({"actor": spawn.actor}), supervisor_incarnation=self._mailbox.incarnation,
            supervisor_endpoint=self._endpoint, heartbeat_s=self._settings.heartbeat_s)
        self.server.spawn(incarnation, spawn.name, msgspec.msgpack.encode(start), modules=(SHELL,))

    def _kill(self, running: _Running, reason: str) -> None:
        running.reason = running.reason or reason
        log.warning("actor %s (process %d) killed: %s", running.name, running.pid, reason)
        self.server.kill(running.incarnation)

    def _bury(self, running: _Running, code: int, reason: str) -> None:
        """This incarnation is confirmed dead: who asked it hears of that, and the supervisor decides what then."""
        name = running.name
        reason = (running.reason or reason).partition("\n")[0]  # the traceback has the other lines
        del self._incarnations[running.incarnation], self._running[name]
        self._mailbox.forget(name, running.incarnation)
        self._route(self._switchboard.on_down(name, f"{reason}\n{running.traceback}"))
        if code != 0 and not self.supervisor.ending:
            log.warning("actor %s (process %d) ended: %s", name, running.pid, reason)
        self._perform(self.supervisor.on_exit(name, code, reason, time.monotonic()))

    def _route(self, outputs: Outputs) -> None:
        for output in outputs:
            match output:
                case Hand(to=name, letter=letter):
                    body = Deliver(letter.number, letter.sender[0], letter.ask)
                    self._mailbox.send((name, self._running[name].incarnation), body, (letter.message,))
                case Resolve(to=to) if to == OWNER:
                    self._resolve(output)
                case Resolve(to=to, post=post, outcome=outcome, content=content):
                    self._mailbox.send(to, Resolved(post, outcome), (content,))
