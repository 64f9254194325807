"""The process shell of a broker: uvloop around the same `ActorRuntime` that all actors have.

Owns: the event loop, the Kafka listeners and the ZeroMQ doors on descriptors that the supervisor holds, the reading of
segment files; the arena that large requests are received into. All that one round of the loop brought, from clients and
from actors, is one turn of the actor.
Invariants: the actor runs in the loop's thread only; nothing blocks the loop but reads of bytes that are hot.
May fail with whatever the actor raises: the process ends, clients find the next incarnation in the backlog.
"""

from __future__ import annotations

import asyncio
import itertools
import resource
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import structlog
import zmq

from zafka.actors.actor import Effect, Mail
from zafka.actors.allocator import BROKER_KEEPS_BYTES, keep_freed
from zafka.actors.broker import BrokerActor
from zafka.actors.broker_door import WATCH_S, Door
from zafka.actors.broker_files import OpenFiles, read_checked, remove_directory
from zafka.actors.gateway.effects import (
    SHELL,
    AnswersBlocked,
    CloseConnection,
    CloseDoors,
    ConnectionClosed,
    ConnectionOpened,
    FileSlice,
    FilesRead,
    FramesReceived,
    OpenDoors,
    PauseReading,
    ReadFiles,
    RemoveDirectory,
    Respond,
    ResumeReading,
    TellWay,
    WayAsked,
)
from zafka.actors.scheduling import ask_for_short_turns
from zafka.actors.shell import ActorRuntime, open_runtime
from zafka.actors.start import ActorStart, BrokerStart, ListenerStart
from zafka.storage.disk import Disk
from zafka.transport.arena import Slice
from zafka.transport.direct import Told, Where, direct_path
from zafka.transport.kafka.listener import Limits, Listener
from zafka.transport.mailbox import Port, has_mail
from zafka.transport.shared_memory import SharedArena
from zafka.transport.stream import Stream

READ_THREADS = 4
SWEEP_S = 10.0
TRIM_S = 2.0  # what was not needed for so long is given back
DOOR_RETRY_S = 0.005
# Beside connections: segment files (256 hot ones), partitions, ZeroMQ's own, and those of its doors.
DESCRIPTORS_KEPT = 512
# How long what was answered last may take to reach the clients when the process ends.
DRAIN_S = 0.25

logger = structlog.get_logger(__name__)


class BrokerShell:
    """One broker process between its loop, its clients and its actor."""

    def __init__(self, start: ActorStart, runtime: ActorRuntime) -> None:
        assert isinstance(start.arguments, BrokerStart)
        self.arguments = start.arguments
        self.incarnation = start.incarnation
        self.supervisor_endpoint = start.supervisor_endpoint
        self.runtime = runtime
        self.context: zmq.Context[Any] = zmq.Context()  # of the doors, so that clients do not slow actors' mail
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(self._on_error)
        self.finished: asyncio.Future[None] = self.loop.create_future()
        self.connection_ids = itertools.count(1)
        self.frame_bytes_max = int(self.arguments.defaults.get("socket.request.max.bytes", 100 << 20))
        self.connections_max = _connections_max(
            int(self.arguments.defaults.get("max.connections", 10_000)), len({each.protocol for each in self.arguments.listeners}))
        self.idle_s_max = int(self.arguments.defaults.get("connections.max.idle.ms", 600_000)) / 1000
        self.arena = runtime.mailbox.arena = _make_arena(int(self.arguments.defaults.get("shared.memory.bytes", 0)))
        self.listener = Listener(
            on_open=self._on_tcp_open, on_frame=self._on_frame, on_slice=self._on_slice, arena=self.arena, on_close=self._on_tcp_close,
            on_blocked=self._on_blocked, on_bad_peer=_log_bad_peer,
            limits=Limits(
                connections_max=self.connections_max, frame_bytes_max=self.frame_bytes_max, idle_s_max=self.idle_s_max),
            connection_ids=self.connection_ids)
        self.doors: list[Door] = []
        self.files = OpenFiles(runtime.disk)
        self.threads = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="cold-read")
        self._tasks: list[asyncio.Task[None]] = []
        self._mail: list[Mail] = []  # for the next turn
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self._changes = -1  # of the mailbox's ports, as they are watched
        self._doors_watched = 0
        self._watched: list[int] = []  # descriptors
        self._fired: set[Port] = set()  # these may have something for us
        self._connected: set[int] = set()  # over TCP
        self._performers: dict[type, Callable[[Any], None]] = {
            Respond: self._respond, ReadFiles: self._read_files, PauseReading: self._pause,
            ResumeReading: self._resume, CloseConnection: self._close_connection, OpenDoors: self._open_doors,
            CloseDoors: self._close_doors, RemoveDirectory: self._remove_directory, TellWay: self._tell_way}

    # -- the loop ------------------------------------------------------------------------------

    async def run(self) -> None:
        """From the actor's first turn to its exit."""
        self.runtime.adopt(self.make_actor())
        self._schedule()
        self._sweep()
        self._watch_doors()
        self._trim()
        try:
            await self.finished
            await self._drain()
        finally:
            self._end()

    def make_actor(self) -> BrokerActor:
        return BrokerActor(
            self.arguments, incarnation=self.incarnation, disk=self.runtime.disk, now=self.runtime.clock())

    def _schedule(self) -> None:
        """Have a turn soon: after everything that this round of the loop has for us."""
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if not self.finished.done():
            self._take_turn()

    def _on_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Something was raised in a callback of the loop. Nobody here handles it: it ends the process."""
        error = context.get("exception")
        if error is None:
            logger.warning("event loop", message=context.get("message"))
        elif not self.finished.done():
            self.finished.set_exception(error)

    def _take_turn(self) -> None:
        runtime = self.runtime
        runtime.tick()
        fired, self._fired = self._fired, set()
        for door in self.doors:
            if door.queued:
                door.retry()
            if door.socket in fired:
                door.read()
        mail, self._mail = self._mail, []
        mail += runtime.due()
        if fired:
            mail += runtime.receive(list(fired.difference([door.socket for door in self.doors])))
        while mail:
            runtime.turn(mail)
            # What is in memory was read at once, the answers need not wait for another round.
            mail, self._mail = self._mail, []
        if runtime.exit is not None:
            self.finished.set_result(None)
            return
        self._watch(fired)
        self._arm()

    def _watch(self, fired: set[Port]) -> None:
        """Follow the ports as they come and go, and ask those that were used whether more has come.

        Every use of a ZeroMQ socket may take its descriptor's signal away."""
        mailbox = self.runtime.mailbox
        if mailbox.changes != self._changes or len(self.doors) != self._doors_watched:
            # A closed socket's descriptor may be another one's by now: all go before any comes.
            self._unwatch()
            self._changes, self._doors_watched = mailbox.changes, len(self.doors)
            ports = [*mailbox.ports(), *(door.socket for door in self.doors)]
            self._watched = [int(each.fileno()) for each in ports]
            for fd, each in zip(self._watched, ports, strict=True):
                self.loop.add_reader(fd, self._on_readable, each)
            fired.update(each for each in ports if isinstance(each, zmq.Socket))
        used, mailbox.sent_on = mailbox.sent_on | fired, set()
        for door in self.doors:
            if door.sent or door.socket in used:
                used.discard(door.socket)
                door.sent = False
                if door.readable:
                    self._fired.add(door.socket)
        for each in used:
            if has_mail(each):
                self._fired.add(each)
            if isinstance(each, Stream) and each.blocked:
                self.loop.add_writer(each.fd, self._on_writable, each)
        if self._fired:
            self._schedule()

    def _unwatch(self) -> None:
        for fd in self._watched:
            self.loop.remove_reader(fd)
            self.loop.remove_writer(fd)
        self._watched = []

    def _on_readable(self, readable: Port) -> None:
        self._fired.add(readable)
        self._schedule()

    def _on_writable(self, stream: Stream) -> None:
        self.runtime.mailbox.drain(stream)
        if not stream.blocked and not stream.closed:
            self.loop.remove_writer(stream.fd)

    def _arm(self) -> None:
        """One timer of the loop for the next thing that is due."""
        now_s = time.monotonic()
        at_s = self.runtime.wakeup_s()
        if any(door.queued for door in self.doors):
            at_s = min(at_s, now_s + DOOR_RETRY_S)
        if at_s <= now_s:
            self._schedule()
        elif self._timer is None or at_s < self._timer_s:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_s = at_s
            self._timer = self.loop.call_later(at_s - now_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._schedule()

    def _sweep(self) -> None:
        self.files.sweep()
        for door in self.doors:
            door.sweep()
        self.loop.call_later(min(SWEEP_S, self.idle_s_max), self._sweep)

    def _watch_doors(self) -> None:
        for door in self.doors:
            door.watch(self.listener.descriptors)
        self.loop.call_later(WATCH_S, self._watch_doors)

    def _trim(self) -> None:
        if self.arena is not None:
            self.arena.trim()
            self.loop.call_later(TRIM_S, self._trim)

    # -- from clients --------------------------------------------------------------------------

    def _on_open(self, connection_id: int, listener: str, peer: str) -> None:
        self._mail.append(Mail(SHELL, ConnectionOpened(connection_id, listener, peer)))
        self._schedule()

    def _on_tcp_open(self, connection_id: int, listener: str, peer: str) -> None:
        self._connected.add(connection_id)
        self._on_open(connection_id, listener, peer)

    def _on_tcp_close(self, connection_id: int) -> None:
        self._connected.discard(connection_id)
        self._on_close(connection_id)

    def _on_frame(self, connection_id: int, frame: memoryview) -> None:
        self._take_frame(connection_id, frame, None)

    def _on_slice(self, connection_id: int, slice_: Slice) -> None:
        self._take_frame(connection_id, slice_.view, slice_)

    def _take_frame(self, connection_id: int, frame: memoryview, slice_: Slice | None) -> None:
        """Frames that come one behind the other are one mail."""
        mail = self._mail
        if not mail or type(mail[-1].body) is not FramesReceived:
            mail.append(Mail(SHELL, FramesReceived([])))
        mail[-1].body.frames.append((connection_id, frame, slice_))
        if not self._scheduled:
            self._schedule()

    def _on_blocked(self, connection_id: int, blocked: bool) -> None:
        self._mail.append(Mail(SHELL, AnswersBlocked(connection_id, blocked)))
        self._schedule()

    def _on_where(self, connection_id: int, where: Where) -> None:
        self._mail.append(Mail(SHELL, WayAsked(connection_id, where.topic, where.partition)))
        self._schedule()

    def _on_close(self, connection_id: int) -> None:
        self._mail.append(Mail(SHELL, ConnectionClosed(connection_id)))
        self._schedule()

    # -- effects -------------------------------------------------------------------------------

    def perform(self, effect: Effect) -> None:
        """What the actor wants beside mail and timers."""
        self._performers[type(effect)](effect)

    def _door_of(self, connection_id: int) -> Door | None:
        for door in self.doors:
            if door.owns(connection_id):
                return door
        return None

    def _respond(self, effect: Respond) -> None:
        door = self._door_of(effect.connection_id)
        if door is None:
            self.listener.write(effect.connection_id, effect.frames)
        else:
            door.write(effect.connection_id, effect.frames)

    def _pause(self, effect: PauseReading) -> None:
        door = self._door_of(effect.connection_id)
        if door is None:
            self.listener.pause_reading(effect.connection_id)
        else:
            door.pause(effect.connection_id)

    def _resume(self, effect: ResumeReading) -> None:
        door = self._door_of(effect.connection_id)
        if door is None:
            self.listener.resume_reading(effect.connection_id)
        else:
            door.resume(effect.connection_id)

    def _close_connection(self, effect: CloseConnection) -> None:
        door = self._door_of(effect.connection_id)
        if door is None:
            self.listener.close(effect.connection_id, effect.reason, at_once=effect.at_once)
        else:
            door.close(effect.connection_id, effect.reason)

    def _read_files(self, effect: ReadFiles) -> None:
        parts = self.files.read_at_once(effect.slices)
        if parts is None:
            future = self.threads.submit(_read_all, self.runtime.disk, effect.slices)
            future.add_done_callback(partial(self._on_read_in_thread, effect.token))
        else:
            self._mail.append(Mail(SHELL, FilesRead(effect.token, parts)))

    def _on_read_in_thread(self, token: int, future: Future[list[Any]]) -> None:
        self.loop.call_soon_threadsafe(self._on_cold_read, token, future)

    def _on_cold_read(self, token: int, future: Future[list[Any]]) -> None:
        self._mail.append(Mail(SHELL, FilesRead(token, future.result())))
        self._schedule()

    def _remove_directory(self, effect: RemoveDirectory) -> None:
        self.threads.submit(remove_directory, self.runtime.disk, effect.path)

    def _tell_way(self, effect: TellWay) -> None:
        asked, incarnation = effect.asked, effect.incarnation
        path = "" if incarnation < 0 else direct_path(self.supervisor_endpoint, incarnation)
        door = self._door_of(asked.connection_id)
        if door is not None:
            door.tell(asked.connection_id, Told(asked.topic, asked.partition, incarnation, effect.leader_epoch, path))

    # -- doors ---------------------------------------------------------------------------------

    def _open_doors(self, effect: OpenDoors) -> None:
        for each in self.arguments.listeners:
            if each.protocol == "kafka":
                task = self.loop.create_task(self.listener.listen(socket.socket(fileno=each.fd), each.name))
                self._tasks.append(task)
                task.add_done_callback(self._on_listening)
            else:
                self.doors.append(self._make_door(each))
        self._schedule()

    def _on_listening(self, task: asyncio.Task[None]) -> None:
        error = task.exception()
        if error is not None and not self.finished.done():
            self.finished.set_exception(error)

    def _make_door(self, each: ListenerStart) -> Door:
        return Door(
            self.context, name=each.name, bind=each.bind, fd=each.fd, incarnation=self.incarnation,
            frame_bytes_max=self.frame_bytes_max, sessions_max=self.connections_max, on_open=self._on_open,
            on_frame=self._on_frame, on_blocked=self._on_blocked, on_close=self._on_close, on_bad_peer=_log_bad_peer,
            on_where=self._on_where, clock=time.monotonic, connection_ids=self.connection_ids, idle_s_max=self.idle_s_max)

    def _close_doors(self, effect: CloseDoors) -> None:
        self.listener.close_doors()
        for door in self.doors:
            door.stop_reading()

    async def _drain(self) -> None:
        """Let the last answers reach the clients."""
        self.listener.close_all()
        end_s = time.monotonic() + DRAIN_S
        while self._connected and time.monotonic() < end_s:
            await asyncio.sleep(0.005)

    def _end(self) -> None:
        self._unwatch()
        self.listener.abort_all()
        for door in self.doors:
            door.shut(DRAIN_S)
        self.context.term()
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.files.close()
        if self.arena is not None:
            self.arena.close()


def _read_all(disk: Disk, slices: list[FileSlice]) -> list[Any]:
    return [read_checked(disk, wanted) for wanted in slices]


def connections_allowed(wanted: int, descriptors: int, protocols: int) -> int:
    """How many connections each protocol may have, so that files and actors have descriptors left. Pure."""
    return min(wanted, max(descriptors - DESCRIPTORS_KEPT, descriptors // 4) // max(1, protocols))


def _connections_max(wanted: int, protocols: int) -> int:
    """`max.connections`, or what this process may have open; a broker without descriptors could not even read its log."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY or (allowed := connections_allowed(wanted, descriptors, protocols)) == wanted:
        return wanted
    logger.warning(
        "fewer connections than max.connections", wanted=wanted, allowed=allowed, open_files=descriptors,
        help=f"raise the limit of open files (`ulimit -Hn`) to {wanted * protocols + DESCRIPTORS_KEPT} or lower max.connections")
    return allowed


def _make_arena(size: int) -> SharedArena | None:
    """None if none is wanted, or the machine gives none: then all record bytes go through sockets."""
    if not size:
        return None
    try:
        return SharedArena(size)
    except OSError as error:
        logger.warning("no shared memory", bytes=size, reason=str(error))
        return None


def _log_bad_peer(peer: str, reason: str) -> None:
    logger.warning("connection ended", peer=peer, reason=reason)


def main(start: ActorStart) -> int:
    """Run a broker in this process until it exits; returns the exit code."""
    keep_freed(BROKER_KEEPS_BYTES)
    ask_for_short_turns()
    with open_runtime(start) as runtime:
        serve(runtime, lambda: BrokerShell(start, runtime))
    assert runtime.exit is not None
    return runtime.exit.code


def serve(runtime: ActorRuntime, make_shell: Callable[[], BrokerShell]) -> None:
    """From the shell's making, within its loop, to the actor's exit."""
    import uvloop

    runtime.progress()

    async def run() -> None:
        shell = make_shell()
        runtime.perform_other = shell.perform
        await shell.run()

    uvloop.run(run())
