"""The tree of user-written actors, and their mail: performs what supervisor and switchboard decide.

Owns: what is known of each actor to its owner; the way of each message. The processes are `runtime/processes.py`'s.
Driven by `runtime/actor_system.py` with what the fork server reports, what actors send, what the owner program wants,
and the time. Nothing is unpickled here.
Invariant: what the owner asked is resolved once.
"""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zafka.actors import messages
from zafka.actors.start import PEER_GONE, CustomStart
from zafka.actors.user_messages import Deliver, GaveUp, Handled, Post, Resolved, Uncaught
from zafka.runtime.fork_client import ForkServerClient
from zafka.runtime.processes import Program, Running, SupervisedProcesses
from zafka.runtime.settings import SupervisionSettings
from zafka.runtime.supervisor import ChildSpec, Restart, Supervisor
from zafka.runtime.switchboard import OWNER, Hand, Outputs, Resolve, Switchboard
from zafka.transport.mailbox import Mailbox, Received

SHELL = "zafka.actors.user_shell"
PROGRAM = Program(f"{SHELL}:main", "")

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
class UserRunning(Running):
    """traceback: of what its code raised and did not catch."""

    traceback: str = ""


class UserTree(SupervisedProcesses[UserRunning]):
    """mailbox, endpoint, server: the system's. resolve: takes what became of the owner's posts.

    on_removed: told of each actor that was stopped for good.
    """

    explains_exit_0 = True  # it may have stopped itself

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
        super().__init__(settings, mailbox=mailbox, endpoint=endpoint, server=server, random=random.random)
        self.supervisor = self._make_supervisor(name, [], settings.strategy)
        self._resolve = resolve
        self._on_removed = on_removed
        self._switchboard = Switchboard()
        self._next_incarnation = itertools.count(mailbox.incarnation + 1)

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
        self._perform(self.supervisor, self.supervisor.start_child(spec, time.monotonic()))
        return True

    def stop(self, name: str) -> None:
        """Stop an actor for good; `on_removed` tells when it is dead."""
        self._perform(self.supervisor, self.supervisor.terminate_child(name, time.monotonic()))

    def post(self, number: int, to: str, message: bytes, *, ask: bool) -> None:
        """The owner writes; `resolve` is told what became of this number."""
        self._route(self._switchboard.on_post(OWNER, number, to, message, ask=ask))

    def state_of(self, name: str) -> str:
        """How an actor is, for people."""
        child = self.supervisor.children.get(name)
        if child is None:
            return "there is no such actor"
        last = f"; its last end: {child.last_exit}" if child.last_exit else ""
        return f"the actor is {child.shown_state}, {self._switchboard.waiting(name)} messages wait{last}"

    def close(self, reason: str) -> None:
        """All processes are dead: nothing that is asked stays without an answer."""
        self._route(self._switchboard.end(reason))

    def status(self) -> list[dict[str, Any]]:
        """As the actors of `zafka status --format json`, without their memory."""
        now_s = time.monotonic()
        actors = []
        for name, child in self.supervisor.children.items():
            running = self.running.get((self.supervisor.name, name))
            actors.append({
                "name": name, "kind": "user", "broker": None, "pid": running.pid if running else 0,
                "incarnation": running.incarnation if running else 0, "restarts": child.restarts,
                "state": child.shown_state, "mailbox": self._switchboard.waiting(name),
                "uptime_s": round(now_s - running.asked_s, 3) if running else 0.0, "last_exit": child.last_exit})
        return actors

    # -- what actors send ----------------------------------------------------------------------

    def _on_body(self, running: UserRunning, received: Received) -> None:
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
                running.reason = running.reason or reason.partition("\n")[0]  # the traceback has the other lines

    # -- performing ----------------------------------------------------------------------------

    def _start(self, supervisor: Supervisor, spec: ChildSpec) -> None:
        spawn: Spawn = spec.start
        running = UserRunning(spawn.name, next(self._next_incarnation), supervisor, time.monotonic())
        self._spawn(running, PROGRAM, CustomStart({"actor": spawn.actor}))

    def _stop(self, supervisor: Supervisor, name: str) -> None:
        self._switchboard.on_stopping(name)
        self.mailbox.send((name, self.running[supervisor.name, name].incarnation), messages.Shutdown())

    def _kill(self, running: UserRunning, reason: str) -> None:
        running.reason = running.reason or reason
        log.warning("actor %s (process %d) killed: %s", running.name, running.pid, reason)
        self.server.kill(running.incarnation)

    def _remove(self, supervisor: Supervisor, name: str) -> None:
        self._route(self._switchboard.remove(name, "the actor was stopped, or has ended for good"))
        self._on_removed(name)

    def _on_down(self, running: UserRunning, code: int, reason: str) -> None:
        """Who asked it hears of its death."""
        self._route(self._switchboard.on_down(running.name, f"{reason}\n{running.traceback}"))
        if code != 0 and not self.supervisor.ending:
            log.warning("actor %s (process %d) ended: %s", running.name, running.pid, reason)

    def _route(self, outputs: Outputs) -> None:
        for output in outputs:
            match output:
                case Hand(to=name, letter=letter):
                    running = self.running[self.supervisor.name, name]
                    body = Deliver(letter.number, letter.sender[0], letter.ask)
                    self.mailbox.send((name, running.incarnation), body, (letter.message,))
                case Resolve(to=to) if to == OWNER:
                    self._resolve(output)
                case Resolve(to=to, post=post, outcome=outcome, content=content):
                    self.mailbox.send(to, Resolved(post, outcome), (content,))
