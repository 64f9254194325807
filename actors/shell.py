"""The process shell of an actor: mailbox, timers, disk and clock on one side, a sans-IO actor on the other.

Owns: `ActorRuntime`, what every kind of shell has in common (turns, effects, flushes, timers, heartbeats, links
to peers); `open_runtime`, the life of one in a process; `main`, the blocking shell of coordinator and partitions.
The broker's shell has an event loop of its own and drives the same runtime (`actors/broker_shell.py`).
Invariants: an actor is called by one thread; a flush is performed after everything that the turn sends, and what
`Flushed` sets free leaves in the same turn; nothing here waits but the poll of the loop and the flush itself.
May fail with whatever the actor raises: the process ends, the supervisor starts a new incarnation.
"""

from __future__ import annotations

import heapq
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import structlog
import zmq

from zafka.actors.actor import (
    Actor,
    CancelTimer,
    Effect,
    Effects,
    Exit,
    Flush,
    Flushed,
    FlushFailed,
    Mail,
    Now,
    Peer,
    PeerGone,
    Send,
    SetTimer,
    TimerFired,
)
from zafka.actors.allocator import PARTITION_KEEPS_BYTES, keep_freed
from zafka.actors.direct_door import DirectDoor
from zafka.actors.messages import ActorDown, ActorUp, AnyMessage, Exiting, Heartbeat, Ready, Started
from zafka.actors.scheduling import ask_for_short_turns
from zafka.actors.start import PEER_GONE, SUPERVISOR, UNCAUGHT, ActorStart, Build, PartitionStart
from zafka.storage.disk import Disk, PosixDisk
from zafka.transport.direct import direct_path
from zafka.transport.link import Broken
from zafka.transport.mailbox import Mailbox, Port, has_mail
from zafka.transport.stream import Stream

MESSAGES_PER_TURN = 1000
BYTES_PER_TURN = 16 * 1024 * 1024
RETRY_S = 0.005
RETRY_S_MAX = 0.1  # while nothing moves
LINGER_S = 0.5
STALE_TIMERS_MAX = 64

logger = structlog.get_logger(__name__)

RECOVERING = "recovering"
RUNNING = "running"


def read_clock() -> Now:
    return Now(time.monotonic(), time.time_ns() // 1_000_000)


def _refuse(effect: Effect) -> None:
    raise TypeError(f"this shell does not know the effect {effect!r}")


class ActorRuntime:
    """One actor between its mailbox, timers and disk, whatever loop drives it.

    A loop does, for ever until `exit` is set: wait until a port of `mailbox` is readable or `wakeup_s()` has
    come; `tick()`; `turn(due() + receive() + what else it has for the actor)`.
    perform_other: takes the effects that are not those of `actors/actor.py`.
    exit: why and with which code the process shall end, once the actor said so.
    """

    def __init__(
        self,
        start: ActorStart,
        mailbox: Mailbox,
        disk: Disk,
        *,
        clock: Callable[[], Now] = read_clock,
        perform_other: Callable[[Effect], None] = _refuse,
    ) -> None:
        self.start = start
        self.mailbox = mailbox
        self.disk = disk
        self.clock = clock
        self.perform_other = perform_other
        self.exit: Exit | None = None
        self.state = RECOVERING
        self._actor: Actor
        self._me = start.me
        self._supervisor = (SUPERVISOR, start.supervisor_incarnation)
        self._timers: dict[str, float] = {}
        self._timer_heap: list[tuple[float, str]] = []  # may name timers that were moved or cancelled since
        self._flushes: list[Flush] = []
        self._flush_results: list[Mail] = []
        self._gone: dict[Peer, None] = {}  # in order, without repetition
        self._heartbeat_at_s = 0.0
        self._retry_s = RETRY_S
        self._retry_at_s = 0.0
        self._most_mail = 0  # in one turn since the last heartbeat
        self._was_full = ""  # `mailbox.full` at the last heartbeat
        self._full = False  # the last receive ended at a limit

    def __repr__(self) -> str:
        return f"<ActorRuntime {self._me.name}#{self._me.incarnation} {self.state} timers={len(self._timers)}>"

    # -- life ----------------------------------------------------------------------------------

    def adopt(self, actor: Actor) -> None:
        """Drive this actor from now on; its `on_start` is the first turn."""
        self._actor = actor
        now = self.clock()
        self._perform(actor.on_start(now))
        self._perform(actor.on_turn_end(now))
        self._settle()

    def progress(self) -> None:
        """To be called now and then by work that takes long, before the first turn: tells that we are alive."""
        now_s = self.clock().monotonic_s
        if now_s >= self._heartbeat_at_s:
            self._heartbeat(now_s)

    def tick(self) -> None:
        """Heartbeat and retries, if they are due."""
        now_s = self.clock().monotonic_s
        if now_s >= self._heartbeat_at_s:
            self._heartbeat(now_s)
        queued = self.mailbox.queued
        if queued and now_s >= self._retry_at_s:
            self.mailbox.retry()
            stuck = self.mailbox.queued == queued
            self._retry_s = min(2 * self._retry_s, RETRY_S_MAX) if stuck else RETRY_S
            self._retry_at_s = now_s + self._retry_s

    def wakeup_s(self) -> float:
        """Monotonic time at which `tick` or a timer is due next; the past if there is something to do now."""
        if self._full or self._gone:
            return 0.0
        at_s = self._heartbeat_at_s
        while self._timer_heap:
            timer_s, name = self._timer_heap[0]
            if self._timers.get(name) == timer_s:
                at_s = min(at_s, timer_s)
                break
            heapq.heappop(self._timer_heap)
        if self.mailbox.queued:
            at_s = min(at_s, max(self._retry_at_s, self.clock().monotonic_s + RETRY_S))
        return at_s

    def _heartbeat(self, now_s: float) -> None:
        self._heartbeat_at_s = now_s + self.start.heartbeat_s
        self.mailbox.send(self._supervisor, Heartbeat(self.state, self._most_mail))
        self.mailbox.pulse()
        if self.mailbox.unmapped:
            logger.warning("shared memory is not used", reason=self.mailbox.unmapped)
            self.mailbox.unmapped = ""
        if self.mailbox.full and not self._was_full:
            logger.warning("no room for who dials: they wait", reason=self.mailbox.full,
                           help="raise the limit of open files (`ulimit -Hn`) or lower max.connections")
        self._was_full = self.mailbox.full
        self._most_mail = 0

    # -- turns ---------------------------------------------------------------------------------

    def receive(self, ports: Sequence[Port] | None = None) -> list[Mail]:
        """The mail that has come, up to the limits of one turn; links to peers follow what the supervisor says.

        ports: as `Mailbox.receive` has it."""
        mails: list[Mail] = []
        received = self.mailbox.receive(MESSAGES_PER_TURN, BYTES_PER_TURN, ports=ports)
        size = 0
        dead: dict[str, int] = {}  # declared so by mail of this very turn; what of them lies behind it is dropped, too
        for sender, body, records in received:
            if dead and sender[1] <= dead.get(sender[0], -1):
                continue
            kind = type(body)
            if kind is ActorUp:
                if body.endpoint:
                    self.mailbox.connect(body.name, body.incarnation, body.endpoint)
            elif kind is ActorDown:
                self.mailbox.forget(body.name, body.incarnation)
                dead[body.name] = body.incarnation
            elif kind is Broken:
                mails += self._on_broken(Peer(*sender))
                continue
            mails.append(Mail(Peer(*sender), body, records))
            size += len(records)
        self._full = len(mails) >= MESSAGES_PER_TURN or size >= BYTES_PER_TURN
        self._most_mail = max(self._most_mail, len(mails))
        return mails

    def _on_broken(self, peer: Peer) -> list[Mail]:
        """Mail between us and this peer was lost."""
        if peer.name != SUPERVISOR:
            return [Mail(self._me, PeerGone(peer))]
        # Only a new start makes both agree again on who runs.
        self.exit = self.exit or Exit(PEER_GONE, "mail from or to the supervisor was lost")
        return []

    def due(self) -> list[Mail]:
        """What the shell itself has for the actor: timers that are due, peers that could not be reached."""
        mails = [Mail(self._me, PeerGone(peer)) for peer in self._gone]
        self._gone.clear()
        if self._timer_heap:
            now_s = self.clock().monotonic_s
            while self._timer_heap and self._timer_heap[0][0] <= now_s:
                at_s, name = heapq.heappop(self._timer_heap)
                if self._timers.get(name) == at_s:
                    del self._timers[name]
                    mails.append(Mail(self._me, TimerFired(name)))
        return mails

    def turn(self, mails: Sequence[Mail]) -> None:
        """Give these to the actor, perform what it wants, and go on until no flush is left to be told of."""
        now = self.clock()
        on_mail = self._actor.on_mail
        for index, mail in enumerate(mails):
            effects = on_mail(mail, now)
            if effects:
                self._perform(effects)
                if self.exit is not None:
                    return
            if index:
                now_s = self.clock().monotonic_s
                if now_s >= max(self._heartbeat_at_s, now.monotonic_s + self.start.heartbeat_s):
                    self._heartbeat(now_s)  # much mail that takes long is not a hung actor
        self._perform(self._actor.on_turn_end(now))
        if self._flushes:
            self._settle()

    def _settle(self) -> None:
        """Perform flushes and hand over their results until the actor wants no more."""
        while self._flushes and self.exit is None:
            for flush in self._flushes:
                self._flush_results.append(Mail(self._me, self._flush(flush)))
            self._flushes.clear()
            results, self._flush_results = self._flush_results, []
            now = self.clock()
            for mail in results:
                self._perform(self._actor.on_mail(mail, now))
            self._perform(self._actor.on_turn_end(now))

    def _flush(self, flush: Flush) -> Flushed | FlushFailed:
        try:
            for file in flush.files:
                self.disk.fdatasync(file)
            for directory in flush.directories:
                self.disk.fsync_dir(directory)
        except OSError as error:
            return FlushFailed(flush.token, str(error))
        return Flushed(flush.token)

    # -- effects -------------------------------------------------------------------------------

    def _perform(self, effects: Effects) -> None:
        for effect in effects:
            kind = type(effect)
            if kind is Send:
                self._send(effect)
            elif kind is Flush:
                self._flushes.append(effect)
            elif kind is SetTimer:
                self._set_timer(effect)
            elif kind is CancelTimer:
                self._timers.pop(effect.name, None)
            elif kind is Exit:
                self.exit = self.exit or effect
            else:
                self._perform_other(effect)

    def _perform_other(self, effect: Effect) -> None:
        self.perform_other(effect)

    def _set_timer(self, effect: SetTimer) -> None:
        self._timers[effect.name] = effect.at_s
        heapq.heappush(self._timer_heap, (effect.at_s, effect.name))
        if len(self._timer_heap) > 2 * len(self._timers) + STALE_TIMERS_MAX:
            self._timer_heap = [(at_s, name) for name, at_s in self._timers.items()]
            heapq.heapify(self._timer_heap)

    def _send(self, effect: Send) -> None:
        to = effect.to
        if type(effect.body) is Ready:
            self.state = RUNNING
        if not self.mailbox.send(to, effect.body, effect.records):
            if isinstance(to, str):
                to = Peer(to, self.mailbox.incarnation_of(to) or 0)
            self._gone[to] = None


@contextmanager
def open_runtime(
    start: ActorStart,
    *,
    disk: Disk | None = None,
    perform_other: Callable[[Effect], None] = _refuse,
    make_mailbox: Callable[..., Mailbox] = Mailbox,
    make_runtime: Callable[..., ActorRuntime] = ActorRuntime,
    message_type: object = AnyMessage,
) -> Iterator[ActorRuntime]:
    """The runtime of a process that was just forked: says `Started`, and at the end why the process ends.

    disk, make_mailbox, make_runtime: other ones than the plain, such as those of `runtime/faults`.
    message_type: union of the structs that mail to this actor may be.
    """
    context: zmq.Context[Any] = zmq.Context()
    mailbox = make_mailbox(context, start.name, start.incarnation, message_type, endpoint=start.inbox)
    mailbox.connect(SUPERVISOR, start.supervisor_incarnation, start.supervisor_endpoint)
    mailbox.send(SUPERVISOR, Started(os.getpid()))
    runtime = make_runtime(start, mailbox, disk or PosixDisk(), perform_other=perform_other)
    try:
        yield runtime
    finally:
        error = sys.exception()
        if error is not None:
            runtime.exit = Exit(UNCAUGHT, f"{type(error).__name__}: {error}")
        if runtime.exit is not None:
            mailbox.send(SUPERVISOR, Exiting(runtime.exit.code, runtime.exit.reason))
        mailbox.close(LINGER_S)
        context.term()


def resolve(path: str) -> Any:
    """What a dotted path "package.module:name" names."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def main(start: ActorStart) -> int:
    """Run one actor in this process until it exits; returns the exit code."""
    keep_freed(PARTITION_KEEPS_BYTES)
    if isinstance(start.arguments, PartitionStart):  # not the cleaner, which nobody waits for
        ask_for_short_turns()
    with open_runtime(start) as runtime:
        serve(start, runtime)
    assert runtime.exit is not None
    return runtime.exit.code


def serve(start: ActorStart, runtime: ActorRuntime) -> None:
    """From the actor's making to its exit."""
    build: Build = resolve(start.build)
    runtime.progress()
    actor = build(start.arguments, runtime.disk, runtime.clock(), runtime.progress)
    door = _open_direct_door(start)
    if door is not None:
        runtime.perform_other = door.perform
    try:
        runtime.adopt(actor)
        run(runtime, door)
    finally:
        if door is not None:
            door.close()


def _open_direct_door(start: ActorStart) -> DirectDoor | None:
    """A partition's door for clients of this machine. Without it, they go through the broker."""
    if not isinstance(start.arguments, PartitionStart):
        return None
    path = direct_path(start.supervisor_endpoint, start.incarnation)
    try:
        return DirectDoor(path, start.incarnation)
    except OSError as error:
        logger.warning("no direct door", path=path, reason=str(error))
        return None


def run(runtime: ActorRuntime, door: DirectDoor | None = None) -> None:
    """The blocking loop: one turn for all that has come, until the actor wants to exit."""
    waiter = Waiter(runtime.mailbox, door)
    while runtime.exit is None:
        has_left = door is not None and door.has_left
        ready = waiter.wait(0.0 if has_left else max(0.0, runtime.wakeup_s() - time.monotonic()))
        runtime.tick()
        # Only those with mail: to find out that a socket has none is an exception and two system calls.
        mails = runtime.due() + runtime.receive(ready)
        if door is not None and (has_left or waiter.door_is_ready):
            mails += door.read()
        if mails:
            runtime.turn(mails)


class Waiter:
    """The ports of a mailbox, and a door, to be waited for.

    A ZeroMQ descriptor tells of a change since its socket was used last, and then once. So who was used is looked at
    before the wait, and who was not is left alone: a look costs three system calls.
    door_is_ready: at the end of the last wait.
    """

    def __init__(self, mailbox: Mailbox, door: DirectDoor | None) -> None:
        self.door_is_ready = False
        self._mailbox = mailbox
        self._door_fd = -1 if door is None else door.fileno()
        self._changes = -1  # of the mailbox's ports, as they are polled
        self._ports: dict[int, Port] = {}  # by descriptor
        self._streams: list[Stream] = []
        self._used: set[Port] = set()  # ZeroMQ sockets
        self._blocked: list[Stream] = []  # polled for writing, too
        self._poll = select.poll()

    def wait(self, wait_s: float) -> list[Port]:
        """The ports with mail, after at most so long."""
        if self._mailbox.changes != self._changes:
            self._follow()
        if self._mailbox.sent_on or self._blocked:
            self._after_sending()
        ready: list[Port] = [stream for stream in self._streams if stream.has_frame]
        ready += self._look(self._used)
        fired = self._poll.poll(0 if ready or not wait_s else int(wait_s * 1000) + 1)
        self.door_is_ready = False
        sockets: set[Port] = set()
        for fd, _ in fired:
            port = self._ports.get(fd)
            if port is None:
                self.door_is_ready = True
            elif isinstance(port, zmq.Socket):
                sockets.add(port)
            else:
                if isinstance(port, Stream) and port.blocked:
                    self._mailbox.drain(port)
                if port not in ready:
                    ready.append(port)
        ready += self._look(sockets.difference(ready))
        self._used = {port for port in ready if isinstance(port, zmq.Socket)}
        return ready

    @staticmethod
    def _look(sockets: set[Port]) -> list[Port]:
        return [socket for socket in sockets if has_mail(socket)]

    def _follow(self) -> None:
        self._changes = self._mailbox.changes
        self._ports = {int(port.fileno()): port for port in self._mailbox.ports()}
        self._streams = [port for port in self._ports.values() if isinstance(port, Stream)]
        self._used = {port for port in self._ports.values() if isinstance(port, zmq.Socket)}
        self._blocked = []
        self._poll = select.poll()
        for fd in self._ports:
            self._poll.register(fd, select.POLLIN)
        if self._door_fd >= 0:
            self._poll.register(self._door_fd, select.POLLIN)

    def _after_sending(self) -> None:
        """Look at the sockets that were sent on, and poll for writing the streams that did not take all."""
        self._used.update(port for port in self._mailbox.sent_on if isinstance(port, zmq.Socket))
        self._mailbox.sent_on.clear()
        blocked = [stream for stream in self._streams if stream.blocked]
        if blocked != self._blocked:
            for stream in self._streams:
                self._poll.modify(stream.fd, select.POLLIN | (select.POLLOUT if stream in blocked else 0))
            self._blocked = blocked
