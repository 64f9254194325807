"""A process of the simulated machine: the production runtime and actor, between simulated sockets, clock and disk.

Owns: `Process`, which runs an actor as `actors/shell.py` does: `ActorRuntime` and `Mailbox` are the production ones, so
that turns, flushes, heartbeats and links are, too. What it adds is what a machine does to a process: it takes time,
is stopped for a while, and is killed at any step, between any two effects and calls of the disk.
`BrokerProcess` is the same with clients' connections, as `actors/broker_shell.py` has it.

A further kind of actor is an entry in `PROGRAMS`; its supervisor's tree (`runtime/tree.py`) starts it by that name.
"""

from __future__ import annotations

import contextlib
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

from tests.simulation.arena import SimulatedArena
from tests.simulation.disk import Killed, ProcessDisk
from tests.simulation.network import Context
from tests.unit.memory_disk import PowerCut
from zafka.actors import coordinator
from zafka.actors.actor import Actor, Effect, Exit, Mail, Now
from zafka.actors.broker import BrokerActor
from zafka.actors.broker_files import OpenFiles, read_checked, remove_directory
from zafka.actors.gateway.effects import (
    SHELL,
    CloseConnection,
    CloseDoors,
    ConnectionClosed,
    ConnectionOpened,
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
from zafka.actors.groups import coordinator as group_coordinator
from zafka.actors.messages import ActorDown, ActorUp, AnyMessage, Exiting, Heartbeat, Produced, Started
from zafka.actors.shell import ActorRuntime, resolve
from zafka.actors.start import SUPERVISOR, UNCAUGHT, ActorStart, BrokerStart
from zafka.runtime.processes import Program
from zafka.transport.arena import Offer
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.mailbox import Mailbox
from zafka.transport.stream import SCHEME as STREAMS

if TYPE_CHECKING:
    from tests.simulation.connections import Connection
    from tests.simulation.machine import Machine

PROGRAMS = {
    "coordinator": Program("tests.simulation.processes:CoordinatorProcess", ""),
    "broker": Program("tests.simulation.processes:BrokerProcess", ""),
    "partition": Program("tests.simulation.direct:PartitionProcess", "zafka.actors.partition:build"),
    "cleaner": Program("tests.simulation.processes:Process", "zafka.actors.cleaner:build"),
    "group coordinator": Program("tests.simulation.processes:GroupCoordinatorProcess", ""),
}

NEVER = float("inf")
# Clients of the simulator send good batches only: who finds one bad has read something else.
BAD_BATCH = (ErrorCode.CORRUPT_MESSAGE, ErrorCode.INVALID_RECORD, ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT)


@dataclass(slots=True)
class Arm:
    """Where a process ends: at the step that comes after `count` others of this kind ("" means any).

    part: how much of a write is done then, 0 to 1. power: the whole machine loses its power there.
    cut_after_s: it loses its power so much later, when a successor has taken over what was left unflushed.
    """

    step: str
    count: int
    part: float = 1.0
    power: bool = False
    cut_after_s: float = -1.0


class Runtime(ActorRuntime):
    """The production runtime, whose mail is looked at: nobody who was declared dead may be heard."""

    process: Process

    def receive(self, sockets: Any = None) -> list[Mail]:
        mails = super().receive(sockets)
        for mail in mails:
            self.process.watch(mail)
        return mails


def without_streams(endpoint: str) -> str:
    """Simulated sockets promise what streams do: they go with their process, and who hung up is told of or awaited."""
    return endpoint.replace(STREAMS, "ipc://")


class SimulatedMailbox(Mailbox):
    """Dials streams as ZeroMQ sockets, the only ones that the simulated network has."""

    def connect(self, name: str, incarnation: int, endpoint: str) -> None:
        super().connect(name, incarnation, without_streams(endpoint))


class Process:
    """One incarnation of an actor. What it does runs in greenlets: a flush suspends it, as it would a process."""

    def __init__(self, machine: Machine, start: ActorStart) -> None:
        self.machine = machine
        self.start = start
        self.name = start.name
        self.incarnation = start.incarnation
        self.alive = True
        self.actor: Any = None
        self._engine = machine.engine
        self._tasks: dict[greenlet, None] = {}  # what runs in it
        self._loop_works = False
        self._stopped_until_s = 0.0
        self._wake_at_s = NEVER
        self._newest: dict[str, int] = {}  # the oldest incarnation of each peer that may still be heard
        self.disk = ProcessDisk(machine.disk, self, machine.disk_random, machine.flush_s)
        self.context = Context(machine.network, self)
        context: Any = self.context
        self.mailbox = SimulatedMailbox(
            context, start.name, start.incarnation, AnyMessage, endpoint=without_streams(start.inbox))
        self.mailbox.map_arena = self._map_arena
        self.runtime = Runtime(
            start, self.mailbox, self.disk, clock=self.clock, perform_other=self.perform_other)
        self.runtime.process = self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}#{self.incarnation} {self.actor!r}>"

    def _map_arena(self, offer: Offer) -> memoryview:
        owner = self.machine.processes.get(offer.pid)
        if not isinstance(owner, BrokerProcess) or owner.arena is None:
            raise FileNotFoundError("it is dead, and its arena with it")
        return owner.arena.map()

    # -- time ------------------------------------------------------------------------------------

    def clock(self) -> Now:
        now_s = self._engine.now_s
        return Now(now_s, self._engine.wall_ms(now_s))

    def wait(self, seconds: float) -> None:
        """Something takes its time: meanwhile the rest of the machine goes on."""
        self._engine.after(seconds, self._resume, getcurrent())
        self._engine.hub.switch()
        if not self.alive:
            raise Killed

    def _resume(self, task: greenlet) -> None:
        if task not in self._tasks:
            return
        if self._stopped_until_s > self._engine.now_s:
            self._engine.at(self._stopped_until_s, self._resume, task)
        else:
            task.switch()

    def stop(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        self._stopped_until_s = max(self._stopped_until_s, self._engine.now_s + seconds)

    def wake(self, at_s: float) -> None:
        at_s = max(at_s, self._stopped_until_s)
        if at_s < self._wake_at_s and self.alive:
            self._wake_at_s = at_s
            self._engine.at(at_s, self._on_wake, at_s)

    # -- steps -----------------------------------------------------------------------------------

    def step(self, what: str, where: object = "") -> None:
        """Something that the world sees is about to be done: the last chance for it not to be."""
        if not self.alive:
            raise Killed
        if self._engine.tell is not None and what not in ("send", "respond"):
            self._engine.detail(self.name, "disk:", what, where)
        arms = self.machine.arms.get(self.name)
        if not arms:
            return
        arm = arms[0]
        if arm.step in ("", what):
            arm.count -= 1
            if arm.count < 0:
                arms.pop(0)
                self._end(what, arm)

    def count(self, what: str) -> None:
        self._engine.counts[what] += 1

    def middle(self, what: str) -> float:
        """How much of this write comes before its end, if it is the last."""
        arms = self.machine.arms.get(self.name)
        last = arms and arms[0].step in ("", what) and arms[0].count == 0
        return arms[0].part if arms and last else 1.0

    def _end(self, what: str, arm: Arm) -> None:
        self._engine.counts["power cut at a step" if arm.power else "kill at a step"] += 1
        self._engine.trace(self.name, "ends before", what)
        if arm.power:
            raise PowerCut
        if arm.cut_after_s >= 0:
            self._engine.after(arm.cut_after_s, self.machine.power_cut)
        raise Killed

    def flush_fails(self, path: Path) -> bool:
        """Whether this flush is one that the plan of faults lets fail."""
        to_fail = self.machine.flushes_to_fail
        if not to_fail[self.name]:
            return False
        to_fail[self.name] -= 1
        self.machine.on_flush_failed(path)
        return True

    # -- life ------------------------------------------------------------------------------------

    def begin(self) -> None:
        """What `open_runtime` and `main` do."""
        self._loop_works = True
        self.run(self._begin, self._rest)

    def _begin(self) -> None:
        self.mailbox.connect(SUPERVISOR, self.start.supervisor_incarnation, self.start.supervisor_endpoint)
        self.mailbox.send(SUPERVISOR, Started(self.incarnation))
        self.runtime.progress()
        self.actor = self.build()
        self.machine.checks.on_built(self)
        self.runtime.adopt(self.actor)

    def build(self) -> Actor:
        actor: Actor = resolve(self.start.build)(
            self.start.arguments, self.disk, self.clock(), self.runtime.progress)
        return actor

    def _on_wake(self, at_s: float) -> None:
        if not self.alive or at_s != self._wake_at_s:
            return
        self._wake_at_s = NEVER
        if self._loop_works:
            return  # `_rest` looks again
        if self._stopped_until_s > self._engine.now_s:
            self.wake(self._stopped_until_s)
        else:
            self._loop_works = True
            self.run(self.turn, self._rest)

    def turn(self) -> None:
        runtime = self.runtime
        runtime.tick()
        mails = runtime.due() + runtime.receive()
        if mails:
            runtime.turn(mails)

    def _rest(self) -> None:
        """The loop has done what there was: see when there is something to do next."""
        self._loop_works = False
        self.machine.checks.on_turn(self)
        if self.runtime.exit is not None:
            self._exit(self.runtime.exit)
        elif self.has_mail():
            self.wake(self._engine.now_s)
        else:
            self.wake(self.runtime.wakeup_s())

    def has_mail(self) -> bool:
        return any(socket.inbox for socket in self.context.sockets)

    def run(self, work: Callable[[], None], then: Callable[[], None] | None = None) -> None:
        """Do this in a thread of the process, which may wait; `then` follows if it was not the end of the process."""
        assert getcurrent() is self._engine.hub
        task = greenlet(self._run)
        self._tasks[task] = None
        task.switch(work, then)

    def _run(self, work: Callable[[], None], then: Callable[[], None] | None) -> None:
        try:
            work()
            if then is not None:
                then()
        except Killed:
            self.die(-signal.SIGKILL)
        except PowerCut:
            self.machine.power_cut()
        except Exception as error:  # noqa: BLE001 -- as the interpreter does, at the end of a process
            self.machine.checks.on_crash(self, error, traceback.format_exc())
            self._exit(Exit(UNCAUGHT, f"{type(error).__name__}: {error}"))
        finally:
            self._tasks.pop(getcurrent(), None)

    def _exit(self, exit: Exit) -> None:
        with contextlib.suppress(Killed, PowerCut):
            self.mailbox.send(SUPERVISOR, Exiting(exit.code, exit.reason))
        self.die(exit.code)

    def die(self, code: int) -> None:
        """The process is gone, wherever it was. code: as a parent is told."""
        if not self.alive:
            return
        self.alive = False
        if self.actor is None:
            self._engine.counts["deaths in recovery"] += 1
        self._engine.trace(self.name, "is dead", f"#{self.incarnation}", code)
        self.context.end(killed=code < 0)
        self.disk.release()
        for task in list(self._tasks):
            if task is not getcurrent():
                task.parent = getcurrent()  # which it comes back to
                task.throw(Killed)
        self.machine.on_death(self, code)

    def watch(self, mail: Mail) -> None:
        """Note who is declared dead, and that none of those is heard."""
        name, incarnation = mail.sender
        body = mail.body
        if self._engine.tell is not None and not isinstance(body, Heartbeat):
            self._engine.detail(self.name, f"<- {name}#{incarnation}", body)
        if incarnation < self._newest.get(name, 0):
            self._engine.violate("stale-incarnation", f"{self!r} took {body!r} from {name}#{incarnation}")
        if isinstance(body, ActorUp):
            self._newest[body.name] = max(body.incarnation, self._newest.get(body.name, 0))
        elif isinstance(body, ActorDown):
            self._newest[body.name] = max(body.incarnation + 1, self._newest.get(body.name, 0))
        elif isinstance(body, Produced):
            for answer in body.answers:
                if answer.error in BAD_BATCH:
                    self._engine.violate("corrupt", f"{name}#{incarnation} found what a client sent bad: {answer.message}")

    def perform_other(self, effect: Effect) -> None:
        raise TypeError(f"{self.name} wants {effect!r}")


class CoordinatorProcess(Process):
    def build(self) -> Actor:
        arguments: Any = self.start.arguments
        return coordinator.build(arguments, self.disk, self.clock(), self.runtime.progress, self.machine.new_id)


class GroupCoordinatorProcess(Process):
    def build(self) -> Actor:
        arguments: Any = self.start.arguments
        make = partial(group_coordinator.make_machine, new_id=lambda: self.machine.new_id().hex())
        return group_coordinator.build(arguments, self.disk, self.clock(), self.runtime.progress, make)


class BrokerProcess(Process):
    """A broker and its clients."""

    def __init__(self, machine: Machine, start: ActorStart) -> None:
        super().__init__(machine, start)
        assert isinstance(start.arguments, BrokerStart)
        self.arguments = start.arguments
        self.files = OpenFiles(self.disk)
        size = int(self.arguments.defaults.get("shared.memory.bytes", 0))
        self.arena = self.mailbox.arena = SimulatedArena(self, size) if size else None
        self.connections: dict[int, Connection] = {}
        self.doors_open = False
        self._asked_ways: list[Callable[[int, int], None]] = []  # numbered by their place
        self._mail: list[Mail] = []
        self._random = self._engine.stream(f"reads of {start.name}#{start.incarnation}")

    def build(self) -> Actor:
        return BrokerActor(self.arguments, incarnation=self.incarnation, disk=self.disk, now=self.clock())

    def has_mail(self) -> bool:
        return bool(self._mail) or super().has_mail()

    def turn(self) -> None:
        runtime = self.runtime
        runtime.tick()
        mail, self._mail = self._mail, []
        mail += runtime.due() + runtime.receive()
        while mail:
            runtime.turn(mail)
            mail, self._mail = self._mail, []

    def die(self, code: int) -> None:
        if self.alive:
            super().die(code)
            for connection in list(self.connections.values()):
                connection.lose(killed=code < 0)
            self.connections.clear()

    # -- clients ---------------------------------------------------------------------------------

    def accept(self, connection: Connection) -> None:
        self.connections[connection.id] = connection
        self.post(ConnectionOpened(connection.id, self.arguments.listeners[0].name, connection.client))

    def on_frame(self, connection: Connection, frame: bytes) -> None:
        slice_ = self.arena.take(len(frame)) if self.arena is not None else None
        if slice_ is None:
            self.post(FramesReceived([(connection.id, memoryview(frame), None)]))
        else:
            slice_.view[:] = frame
            self.post(FramesReceived([(connection.id, slice_.view, slice_)]))

    def on_where(self, topic: str, partition: int, on_told: Callable[[int, int], None]) -> None:
        """A client asks for the way past us; on_told(incarnation, leader epoch) may follow."""
        self._asked_ways.append(on_told)
        self.post(WayAsked(len(self._asked_ways) - 1, topic, partition))

    def on_closed(self, connection: Connection) -> None:
        if self.connections.pop(connection.id, None) is not None:
            self.post(ConnectionClosed(connection.id))

    def post(self, body: Any) -> None:
        self._mail.append(Mail(SHELL, body))
        self.wake(self._engine.now_s)

    # -- effects ---------------------------------------------------------------------------------

    def perform_other(self, effect: Effect) -> None:
        match effect:
            case Respond(connection_id=number, frames=frames):
                self.step("respond")
                if number in self.connections:
                    self.connections[number].respond([b"".join(frame) for frame in frames])
            case TellWay(asked=asked, incarnation=incarnation, leader_epoch=leader_epoch):
                self.step("respond")
                delay_s = self.machine.network.delay_s()
                self._engine.after(delay_s, self._asked_ways[asked.connection_id], incarnation, leader_epoch)
            case ReadFiles(token=token, slices=slices):
                if any(wanted.cold for wanted in slices):
                    self._engine.after(0.002 * self._random.random(), self._read_cold, token, slices)
                else:
                    self._mail.append(Mail(SHELL, FilesRead(token, [self.files.read(each) for each in slices])))
            case CloseConnection(connection_id=number, reason=reason):
                self.step("close")
                self._engine.counts["connections closed by the broker"] += 1
                self._engine.trace(self.name, "closes", f"connection {number}: {reason}")
                connection = self.connections.pop(number, None)
                if connection is not None:
                    connection.lose(killed=False)
                    self.post(ConnectionClosed(number))
            case PauseReading(connection_id=number):
                if number in self.connections:
                    self.connections[number].pause(True)
            case ResumeReading(connection_id=number):
                if number in self.connections:
                    self.connections[number].pause(False)
            case OpenDoors():
                self.doors_open = True
                self._engine.after(0.0, self.machine.take_backlog, self)
            case CloseDoors():
                self.doors_open = False
                for connection in self.connections.values():
                    connection.pause(True)
            case RemoveDirectory(path=path):
                self._engine.after(0.005 * self._random.random(), self._remove, path)
            case _:
                super().perform_other(effect)

    def _read_cold(self, token: int, slices: list[Any]) -> None:
        if self.alive:
            self.post(FilesRead(token, [read_checked(self.disk, each) for each in slices]))

    def _remove(self, path: Path) -> None:
        if self.alive:
            self.run(lambda: remove_directory(self.disk, path))
