"""A whole cluster of one broker in this thread: the real actors, with mail, clock, flushes and supervision by hand.

No sockets and no processes; the disk is real (a temporary directory). Mail is delivered turn by turn, in order, so a
scenario runs the same way each time. `kill` is SIGKILL: the actor is gone with all it had not flushed or sent, and a
new incarnation recovers from the same directory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from tests.unit.disks import ClosingDisk
from zafka.actors import coordinator, messages, partition
from zafka.actors.actor import Effect, Exit, Flush, Flushed, Mail, Now, Peer, Send, SetTimer, TimerFired
from zafka.actors.broker import BrokerActor
from zafka.actors.broker_files import OpenFiles, read_checked
from zafka.actors.gateway.effects import (
    SHELL,
    CloseConnection,
    ConnectionClosed,
    ConnectionOpened,
    FilesRead,
    FramesReceived,
    OpenDoors,
    ReadFiles,
    RemoveDirectory,
    Respond,
)
from zafka.actors.start import SUPERVISOR, BrokerStart, CoordinatorStart, ListenerStart, PartitionStart
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import read_response_header, request_header, request_writer, response_reader

ROOT = Peer(SUPERVISOR, 1)
BROKER = "broker 1"
COORDINATOR = "coordinator"
LISTENER = ListenerStart("kafka", "kafka", "127.0.0.1:9092", "127.0.0.1", 9092, -1)
TURNS_MAX = 10_000


class Process:
    """One incarnation of an actor, its mail and its timers."""

    def __init__(self, peer: Peer, actor: Any) -> None:
        self.peer = peer
        self.actor = actor
        self.mail: deque[Mail] = deque()
        self.timers: dict[str, float] = {}
        self.paused = False


class World:
    def __init__(
        self, data_dir: Path, *, topics: list[messages.NewTopic] | None = None,
        defaults: dict[str, str] | None = None, first_incarnation: int = 1,
    ) -> None:
        """first_incarnation: they go on rising over restarts of the whole tree."""
        self.data_dir = data_dir
        self.topics = topics or []
        self.defaults = {"num.partitions": "1", "default.replication.factor": "1", **(defaults or {})}
        self.disk = ClosingDisk()
        self.now = Now(1000.0, 1_700_000_000_000)
        self.processes: dict[str, Process] = {}
        self.children: dict[tuple[str, int], PartitionStart] = {}
        self.doors_open = False
        self.clients: dict[int, Client] = {}
        self.removed: list[Path] = []
        self._incarnations = count(first_incarnation)
        self._connection_ids = count(1)
        self._files = OpenFiles(self.disk)
        self._builders: dict[str, Callable[[int], Any]] = {
            COORDINATOR: self._build_coordinator, BROKER: self._build_broker}
        self._alive: set[str] = set()

    # -- life ------------------------------------------------------------------------------------

    def up(self) -> World:
        for name in (COORDINATOR, BROKER):
            self.start(name)
        self.run()
        return self

    def start(self, name: str) -> None:
        """Start an actor, as its supervisor does; whoever has to know is told."""
        incarnation = next(self._incarnations)
        actor = self._builders[name](incarnation)
        process = self.processes[name] = Process(Peer(name, incarnation), actor)
        self._perform(process, actor.on_start(self.now) + actor.on_turn_end(self.now))
        up = messages.ActorUp(name, incarnation, "")
        for other in self._concerned(name):
            self._post(other, ROOT, up)
        for known in self._needed(name):
            if known in self.processes:
                self._post(name, ROOT, messages.ActorUp(*self.processes[known].peer, ""))

    def kill(self, name: str, *, restart: bool = True) -> None:
        """SIGKILL. What was in its mailbox is lost, and what it had not handed to the disk."""
        process = self.processes.pop(name)
        replica = getattr(process.actor, "replica", None)
        if replica is not None:
            _release_lock(replica)
        if name == BROKER:
            self.doors_open = False
            for client in list(self.clients.values()):
                client.lose()
        for other in self._concerned(name):
            self._post(other, ROOT, messages.ActorDown(*process.peer))
        if restart:
            self.start(name)

    def _concerned(self, name: str) -> list[str]:
        if name == COORDINATOR:
            names = [BROKER]
        elif name == BROKER:
            names = [other for other in self.processes if other.startswith("partition ")]
        else:
            names = [BROKER]
        return [other for other in names if other in self.processes]

    def _needed(self, name: str) -> list[str]:
        return {COORDINATOR: [], BROKER: [COORDINATOR]}.get(name, [BROKER])

    def _build_coordinator(self, incarnation: int) -> Any:
        start = CoordinatorStart(str(self.data_dir), "test", [(1, "")], self.defaults, self.topics)
        return coordinator.build(start, self.disk, self.now, lambda: None)

    def _build_broker(self, incarnation: int) -> Any:
        directory = self.data_dir / "broker-1"
        directory.mkdir(parents=True, exist_ok=True)
        names = [topic.name for topic in self.topics]
        start = BrokerStart(1, "", str(directory), [LISTENER], self.defaults, names)
        return BrokerActor(start, incarnation=incarnation, disk=self.disk, now=self.now)

    # -- turns -----------------------------------------------------------------------------------

    def run(self) -> None:
        """Turns until nobody has mail. A paused actor keeps its own."""
        for _ in range(TURNS_MAX):
            ready = [each for each in self.processes.values() if each.mail and not each.paused]
            if not ready:
                return
            for process in ready:
                if self.processes.get(process.peer.name) is process:  # and not killed by the one before
                    self._turn(process)
        raise AssertionError("the actors do not come to rest")

    def _turn(self, process: Process) -> None:
        mails, process.mail = list(process.mail), deque()
        effects: list[Effect] = []
        for mail in mails:
            effects += process.actor.on_mail(mail, self.now)
        self._perform(process, effects + process.actor.on_turn_end(self.now))

    def pass_time(self, seconds: float) -> None:
        """Let time go by; timers fire in order."""
        until_s = self.now.monotonic_s + seconds
        while True:
            due = [(at_s, process.peer.name, name) for process in self.processes.values()
                   for name, at_s in process.timers.items() if at_s <= until_s and not process.paused]
            if not due:
                break
            at_s, owner, name = min(due)
            self._move_clock(max(at_s, self.now.monotonic_s))
            del self.processes[owner].timers[name]
            self._post(owner, SHELL, TimerFired(name))
            self.run()
        self._move_clock(until_s)

    def _move_clock(self, to_s: float) -> None:
        passed_ms = round((to_s - self.now.monotonic_s) * 1000)
        self.now = Now(to_s, self.now.wall_ms + passed_ms)

    def _post(self, to: str, sender: Peer, body: Any, records: bytes = b"") -> None:
        self.processes[to].mail.append(Mail(sender, body, memoryview(records)))

    # -- effects ---------------------------------------------------------------------------------

    def _perform(self, process: Process, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(to=to) if to == SUPERVISOR:
                    self._supervise(process, effect.body)
                case Send(to=to):
                    self._send(process, to, effect)
                case Flush(token=token):
                    process.mail.append(Mail(SHELL, Flushed(token)))
                case SetTimer(name=name, at_s=at_s):
                    process.timers[name] = at_s
                case Exit():
                    self._on_exit(process, effect)
                case ReadFiles(token=token, slices=slices):
                    parts = [read_checked(self.disk, each) if each.cold else self._files.read(each) for each in slices]
                    process.mail.append(Mail(SHELL, FilesRead(token, parts)))
                case Respond(connection_id=connection_id, frames=frames):
                    if connection_id in self.clients:
                        self.clients[connection_id].take([b"".join(frame) for frame in frames])
                case CloseConnection(connection_id=connection_id, reason=reason):
                    self.clients[connection_id].lose(reason)
                case OpenDoors():
                    self.doors_open = True
                case RemoveDirectory(path=path):
                    self.removed.append(path)

    def _send(self, process: Process, to: Peer | str, send: Send) -> None:
        name = to if isinstance(to, str) else to.name
        target = self.processes.get(name)
        if target is None or (isinstance(to, Peer) and target.peer != to):
            return  # to an incarnation that is gone: lost, as with ZeroMQ
        self._post(name, process.peer, send.body, b"".join(send.records))

    def _supervise(self, process: Process, body: Any) -> None:
        """What the root does when it is asked."""
        match body:
            case messages.StartPartition(topic=topic, partition=index):
                directory = self.data_dir / "broker-1" / f"{topic}-{index}"
                start = PartitionStart(1, topic, index, body.topic_id, str(directory), body.config)
                self.children[topic, index] = start
                name = f"partition {topic}-{index}"
                self._builders[name] = lambda _: partition.build(start, self.disk, self.now, lambda: None)
                self.start(name)
            case messages.StopPartition(topic=topic, partition=index):
                name = f"partition {topic}-{index}"
                del self.children[topic, index]
                self.kill(name, restart=False)
                self._post(BROKER, ROOT, messages.PartitionStopped(topic, index))
            case messages.WhichChildren():
                self._post(process.peer.name, ROOT, messages.ChildrenTold(list(self.children)))

    def _on_exit(self, process: Process, effect: Exit) -> None:
        if self.processes.get(process.peer.name) is process:
            raise AssertionError(f"{process.peer.name} ended: {effect}")

    # -- clients ---------------------------------------------------------------------------------

    def client(self) -> Client:
        assert self.doors_open
        client = Client(self, next(self._connection_ids))
        self.clients[client.id] = client
        self._post(BROKER, SHELL, ConnectionOpened(client.id, "kafka", "test"))
        return client


class Client:
    """A connection to the broker. `closed` says why, once it is."""

    def __init__(self, world: World, connection_id: int) -> None:
        self.world = world
        self.id = connection_id
        self.closed: str | None = None
        self.answers: list[Any] = []
        self._asked: deque[tuple[int, int, int]] = deque()
        self._correlation_ids = count(1)

    def send(self, api: ApiKey, version: int, request: Any) -> None:
        """A request; `World.run` has it answered."""
        assert self.closed is None, self.closed
        correlation_id = next(self._correlation_ids)
        self._asked.append((api, version, correlation_id))
        frame = b"".join([request_header(api, version, correlation_id, "test"), *request_writer(api, version)(request)])
        self.world._post(BROKER, SHELL, FramesReceived([(self.id, memoryview(frame), None)]))

    def ask(self, api: ApiKey, version: int, request: Any) -> Any:
        """A request and its answer, which must come without time going by."""
        self.send(api, version, request)
        self.world.run()
        assert len(self.answers) == 1 and not self._asked, (self.answers, self.closed)
        return self.answers.pop()

    def take(self, frames: list[bytes]) -> None:
        for frame in frames:
            api, version, correlation_id = self._asked.popleft()
            got, position = read_response_header(memoryview(frame), api, version)
            assert got == correlation_id, "an answer came out of order"
            self.answers.append(response_reader(api, version)(memoryview(frame), position))

    def lose(self, reason: str = "the broker is gone") -> None:
        self.closed = reason
        del self.world.clients[self.id]
        if BROKER in self.world.processes:
            self.world._post(BROKER, SHELL, ConnectionClosed(self.id))


def _release_lock(replica: Any) -> None:
    """A killed process lets go of its lock; this one goes on."""
    replica._directory.close()
