"""The tree of supervised actors: performs what supervisors decide, and tells actors of each other.

Owns: which incarnation of which actor runs, in which process, and what is known of it; the nested supervisors
(`root` -> coordinator and one supervisor per broker -> the broker and its partitions).
Driven by `runtime/root.py` with what the fork server reports, what actors send, and the time.
Invariants: an incarnation is announced (`ActorUp`) after its inbox is bound, and its end (`ActorDown`) after its
process is confirmed dead; mail from it is ignored from then on.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

from zafka.actors import messages
from zafka.actors.start import (
    COORDINATOR_DISK_FAULT,
    PEER_GONE,
    TOPOLOGY_REFUSED,
    ActorStart,
    Arguments,
    BrokerStart,
    CoordinatorStart,
    PartitionStart,
)
from zafka.runtime.data_dir import DataDirectory
from zafka.runtime.fork_client import Exited, ForkServerClient, Refused, Spawned
from zafka.runtime.last_word import await_last_word, exit_reason, waits_for_disk
from zafka.runtime.listeners import Listeners
from zafka.runtime.run_dir import RunDirectory
from zafka.runtime.settings import TreeSettings
from zafka.runtime.supervisor import (
    Backoff,
    Child,
    ChildSpec,
    Decisions,
    Ended,
    Kill,
    Removed,
    RestartLimit,
    Start,
    State,
    Stop,
    Supervisor,
)
from zafka.transport.link import Broken
from zafka.transport.mailbox import Mailbox, Received

COORDINATOR = "coordinator"
SHUTDOWN_S = {"coordinator": 1.0, "broker": 1.6, "partition": 1.0}
WEATHER = frozenset({PEER_GONE})

Log = Callable[..., None]
"""log(level, event, **fields)"""


class Program(NamedTuple):
    """What runs as an actor of a kind: dotted paths, as in ActorStart."""

    main: str
    build: str


PROGRAMS = {
    "coordinator": Program("zafka.actors.shell:main", "zafka.actors.coordinator:build"),
    "broker": Program("zafka.actors.broker_shell:main", ""),
    "partition": Program("zafka.actors.shell:main", "zafka.actors.partition:build"),
}


class Plan(NamedTuple):
    """How an actor is started, each time anew. broker_id: of the broker it belongs to, -1 if none."""

    kind: str
    broker_id: int
    arguments: Arguments
    fds: tuple[int, ...] = ()


@dataclass(slots=True)
class Running:
    """One incarnation. pid 0: asked for, not there yet. reason: its last word, or why we killed it.

    mail_lost: between it and us; it is being killed for that."""

    incarnation: int
    inbox: str
    asked_s: float
    pid: int = 0
    started: bool = False
    mailbox: int = 0
    reason: str = ""
    mail_lost: bool = False


@dataclass(slots=True)
class Actor:
    name: str
    plan: Plan
    node: Node
    running: Running | None = None

    @property
    def child(self) -> Child:
        return self.node.supervisor.children[self.name]


@dataclass(slots=True)
class Node:
    """A supervisor in the tree. parent: None for the root's own."""

    supervisor: Supervisor
    parent: Node | None = None
    nodes: dict[str, Node] = field(default_factory=dict)


class Tree:
    """settings, data_dir, run_dir, listeners (by broker id), mailbox: the root's, which keeps them.

    server: where processes come from. ended: what became of the tree, once it has no process any more.
    """

    def __init__(
        self,
        settings: TreeSettings,
        *,
        data_dir: DataDirectory,
        run_dir: RunDirectory,
        listeners: Mapping[int, Listeners],
        mailbox: Mailbox,
        server: ForkServerClient,
        log: Log,
        random: Callable[[], float],
        programs: Mapping[str, Program] = PROGRAMS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.mailbox = mailbox
        self.server = server
        self.actors: dict[str, Actor] = {}
        self.ended: Ended | None = None
        self._data_dir = data_dir
        self._run_dir = run_dir
        self._listeners = listeners
        self._log = log
        self._random = random
        self._programs = programs
        self._clock = clock
        self._incarnations: dict[int, Actor] = {}  # of every process that is, or was asked for
        self._early: list[Received] = []  # mail that overtook the report that its sender's process exists
        self._root = Node(self._make_supervisor("root", self._top_specs(), "one_for_one"))

    def __repr__(self) -> str:
        return f"<Tree {self._root.supervisor!r}>"

    # -- the whole -----------------------------------------------------------------------------

    def start(self) -> None:
        self._perform(self._root, self._root.supervisor.start(self._clock()))

    def shutdown(self) -> None:
        """Stop everything in order; `ended` tells when it is done."""
        self._perform(self._root, self._root.supervisor.shutdown(self._clock()))

    def tick(self) -> None:
        """Whatever is due in any supervisor."""
        now_s = self._clock()
        for node in list(self.nodes()):
            for name in node.supervisor.silent(now_s):
                if self._waits_for_disk(self.actors[name]):
                    node.supervisor.on_disk_wait(name, now_s)
            self._perform(node, node.supervisor.tick(now_s))

    def wakeup_s(self) -> float:
        return min(node.supervisor.wakeup_s() for node in self.nodes())

    @property
    def ready(self) -> bool:
        """Coordinator and all brokers do their work."""
        kinds = [actor.child.state for actor in self.actors.values() if actor.plan.kind != "partition"]
        return len(kinds) == 1 + len(self.settings.brokers) and all(state is State.READY for state in kinds)

    def nodes(self) -> Iterator[Node]:
        """All supervisors that run, the root's first."""
        yield self._root
        yield from self._root.nodes.values()

    # -- specs ---------------------------------------------------------------------------------

    def _make_supervisor(self, name: str, specs: list[ChildSpec], strategy: str) -> Supervisor:
        supervision = self.settings.supervision
        return Supervisor(
            name, specs, strategy=strategy, limit=RestartLimit(supervision.intensity, supervision.period_s),
            backoff=Backoff(supervision.backoff_initial_s, supervision.backoff_max_s),
            hung_after_s=supervision.hung_after_s, random=self._random)

    def _top_specs(self) -> list[ChildSpec]:
        """The root's children: the coordinator, and a supervisor for each broker."""
        settings = self.settings
        topics = [
            messages.NewTopic(topic.name, topic.partitions, topic.replication_factor, topic.config)
            for topic in settings.topics
        ]
        start = CoordinatorStart(
            data_dir=str(self._data_dir.path), cluster=settings.cluster, defaults=settings.defaults, topics=topics,
            brokers=[(broker.id, broker.rack) for broker in settings.brokers], cluster_id=self._data_dir.cluster_id)
        fatal = frozenset({COORDINATOR_DISK_FAULT, TOPOLOGY_REFUSED})
        coordinator = ChildSpec(
            COORDINATOR, Plan("coordinator", -1, start), shutdown_s=SHUTDOWN_S["coordinator"], fatal_codes=fatal,
            weather_codes=WEATHER)
        return [
            coordinator,
            *(ChildSpec(f"supervisor of broker {broker.id}", broker.id, kind="supervisor")
              for broker in settings.brokers),
        ]

    def _broker_specs(self, broker_id: int) -> list[ChildSpec]:
        """The static children of a broker's supervisor: the broker. Partitions come as it asks for them."""
        listeners = self._listeners[broker_id]
        start = BrokerStart(
            broker_id=broker_id, rack=listeners.broker.rack, data_dir=str(self._broker_dir(broker_id)),
            listeners=listeners.starts(), defaults=self.settings.defaults,
            topics=[topic.name for topic in self.settings.topics])
        plan = Plan("broker", broker_id, start, listeners.fds())
        return [ChildSpec(f"broker {broker_id}", plan, shutdown_s=SHUTDOWN_S["broker"], weather_codes=WEATHER)]

    def _broker_dir(self, broker_id: int) -> Path:
        return self._data_dir.path / f"broker-{broker_id}"

    # -- performing decisions ------------------------------------------------------------------

    def _perform(self, node: Node, decisions: Decisions) -> None:
        for decision in decisions:
            match decision:
                case Start(spec=spec) if spec.kind == "supervisor":
                    self._start_supervisor(node, spec)
                case Start(spec=spec):
                    self._start_actor(node, spec)
                case Stop(id=name) if name in node.nodes:
                    below = node.nodes[name]
                    self._perform(below, below.supervisor.shutdown(self._clock()))
                case Stop(id=name):
                    self._send(self.actors[name], messages.Shutdown())
                case Kill(id=name, reason=reason):
                    self._kill(self.actors[name], reason)
                case Removed(id=name):
                    self._remove(node, name)
                case Ended():
                    self._end(node, decision)

    def _start_supervisor(self, parent: Node, spec: ChildSpec) -> None:
        broker_id: int = spec.start
        supervisor = self._make_supervisor(spec.id, self._broker_specs(broker_id), self.settings.supervision.strategy)
        node = parent.nodes[spec.id] = Node(supervisor, parent)
        self._perform(node, supervisor.start(self._clock()))

    def _start_actor(self, node: Node, spec: ChildSpec) -> None:
        plan: Plan = spec.start
        incarnation = self._data_dir.next_incarnation()
        actor = self.actors.setdefault(spec.id, Actor(spec.id, plan, node))
        actor.plan, actor.node = plan, node
        inbox = "" if plan.kind == "partition" else self._run_dir.endpoint(f"a{incarnation}")
        actor.running = Running(incarnation, inbox, self._clock())
        self._incarnations[incarnation] = actor
        program = self._programs[plan.kind]
        start = ActorStart(
            name=actor.name, incarnation=incarnation, main=program.main, build=program.build,
            arguments=plan.arguments, supervisor_incarnation=self.mailbox.incarnation,
            supervisor_endpoint=self._run_dir.endpoint("root"), inbox=inbox,
            heartbeat_s=self.settings.supervision.heartbeat_s)
        modules = tuple(path.partition(":")[0] for path in program if path)
        self.server.spawn(incarnation, actor.name, msgspec.msgpack.encode(start), plan.fds, modules)

    def _kill(self, actor: Actor, reason: str) -> None:
        running = actor.running
        if running is not None:
            running.reason = reason
            self._log("warning", "actor killed", name=actor.name, pid=running.pid, reason=reason)
            self.server.kill(running.incarnation)

    def _remove(self, node: Node, name: str) -> None:
        """A partition that its broker did not want any more is gone; so is a child that was not to be restarted."""
        actor = self.actors.get(name)
        if actor is not None and name not in node.supervisor.children:
            del self.actors[name]
        kind, _, rest = name.partition(" ")
        if kind == "partition":
            topic, _, partition = rest.rpartition("-")
            broker_id = actor.plan.broker_id if actor is not None else self._broker_of(node)
            self._send(self.actors[f"broker {broker_id}"], messages.PartitionStopped(topic, int(partition)))

    def _broker_of(self, node: Node) -> int:
        return int(node.supervisor.name.rpartition(" ")[2])

    def _end(self, node: Node, ended: Ended) -> None:
        """A supervisor has no children any more: its own one decides what then, or the tree is at its end."""
        for actor in [actor for actor in self.actors.values() if actor.node is node]:
            del self.actors[actor.name]
        if ended.failed:
            self._log("error", "supervisor gave up", supervisor=node.supervisor.name, reason=ended.reason)
        if node.parent is None:
            self.ended = ended
            return
        del node.parent.nodes[node.supervisor.name]
        decisions = node.parent.supervisor.on_exit(
            node.supervisor.name, ended.code, ended.reason, self._clock())
        self._perform(node.parent, decisions)

    # -- what the fork server reports ----------------------------------------------------------

    def on_spawned(self, report: Spawned) -> None:
        actor = self._incarnations[report.incarnation]
        assert actor.running is not None
        actor.running.pid = report.pid
        self._perform(actor.node, actor.node.supervisor.on_spawned(actor.name, self._clock()))
        early, self._early = self._early, []
        for received in early:
            self.on_mail(received)

    def on_refused(self, report: Refused) -> None:
        """No process: too many, or no memory. A crash like any other, so that backoff leaves the machine time."""
        reason = f"no process could be made: {os.strerror(report.errno)}"
        self._bury(self._incarnations[report.incarnation], os.EX_OSERR, reason)

    def on_exited(self, report: Exited) -> None:
        actor = self._incarnations[report.incarnation]
        if report.code > 0:
            self._await_last_word(actor)
        self._bury(actor, report.code, exit_reason(report.code))

    def on_server_gone(self, server: ForkServerClient) -> None:
        """Every process is confirmed dead, with the fork server; from now on they come from this one."""
        self.server = server
        for actor in list(self._incarnations.values()):
            self._bury(actor, -signal.SIGKILL, "died with the fork server")

    def _await_last_word(self, actor: Actor) -> None:
        running = actor.running
        assert running is not None
        await_last_word(self.mailbox, lambda: running.reason != "", self.on_mail)

    def _waits_for_disk(self, actor: Actor) -> bool:
        return actor.running is not None and waits_for_disk(actor.running.pid)

    def _bury(self, actor: Actor, code: int, reason: str) -> None:
        """This incarnation is confirmed dead: tell whom it concerns, and see what the supervisor decides."""
        running = actor.running
        assert running is not None
        reason = running.reason or reason
        code = PEER_GONE if running.mail_lost else code
        actor.running = None
        del self._incarnations[running.incarnation]
        self.mailbox.forget(actor.name, running.incarnation)
        if running.inbox:
            self._run_dir.remove_socket(running.inbox)
        if running.started:
            for other in self._concerned(actor):
                self._send(other, messages.ActorDown(actor.name, running.incarnation))
        supervisor = actor.node.supervisor
        expected = actor.child.state is State.STOPPING
        self._log("debug" if expected else "warning", "actor ended", name=actor.name, pid=running.pid,
                  of_incarnation=running.incarnation, code=code, reason=reason)
        self._perform(actor.node, supervisor.on_exit(actor.name, code, reason, self._clock()))

    # -- what actors send ----------------------------------------------------------------------

    def on_mail(self, received: Received) -> None:
        name, incarnation = received.sender
        actor = self._incarnations.get(incarnation)
        if actor is None or actor.running is None or actor.name != name:
            return
        if actor.running.pid == 0:
            self._early.append(received)
            return
        now_s = self._clock()
        supervisor = actor.node.supervisor
        match received.body:
            case messages.Heartbeat(mailbox=mailbox):
                actor.running.mailbox = mailbox
                supervisor.on_heartbeat(name, now_s)
            case messages.Started():
                self._announce(actor)
            case messages.Ready():
                supervisor.on_ready(name, now_s)
                took_ms = round((now_s - actor.running.asked_s) * 1000)
                # The first start of an actor is what everybody expects; a restart ends a story that was told.
                level = "info" if actor.child.restarts else "debug"
                self._log(level, "actor ready", name=name, pid=actor.running.pid, of_incarnation=incarnation,
                          took_ms=took_ms)
            case messages.Exiting(reason=reason):
                actor.running.reason = actor.running.reason or reason
            case messages.StartPartition() as wanted:
                self._start_partition(actor, wanted)
            case messages.StopPartition(topic=topic, partition=partition):
                decisions = supervisor.terminate_child(f"partition {topic}-{partition}", now_s)
                self._perform(actor.node, decisions)
            case messages.WhichChildren():
                self._tell_children(actor)
            case Broken() if not actor.running.mail_lost:
                # Only a new start makes both agree again on who runs.
                actor.running.mail_lost = True
                self._kill(actor, "mail from or to it was lost")

    def _start_partition(self, broker: Actor, wanted: messages.StartPartition) -> None:
        broker_id = broker.plan.broker_id
        directory = self._broker_dir(broker_id) / f"{wanted.topic}-{wanted.partition}"
        start = PartitionStart(
            broker_id=broker_id, topic=wanted.topic, partition=wanted.partition, topic_id=wanted.topic_id,
            directory=str(directory), config=wanted.config)
        spec = ChildSpec(
            f"partition {wanted.topic}-{wanted.partition}", Plan("partition", broker_id, start),
            shutdown_s=SHUTDOWN_S["partition"], weather_codes=WEATHER, dynamic=True)
        self._perform(broker.node, broker.node.supervisor.start_child(spec, self._clock()))

    def _tell_children(self, broker: Actor) -> None:
        wanted: list[tuple[str, int]] = []
        stopping: list[tuple[str, int]] = []
        for actor in self._partitions_of(broker):
            start = actor.plan.arguments
            assert isinstance(start, PartitionStart)
            if actor.child.terminated:
                stopping.append((start.topic, start.partition))
                continue
            wanted.append((start.topic, start.partition))
            if actor.running is not None and actor.running.started:
                self._send(broker, messages.ActorUp(actor.name, actor.running.incarnation, actor.running.inbox))
        self._send(broker, messages.ChildrenTold(wanted, stopping))

    # -- who is told of whom -------------------------------------------------------------------

    def _announce(self, actor: Actor) -> None:
        """Its inbox is bound: tell those who dial it, and tell it whom to dial."""
        assert actor.running is not None
        actor.running.started = True
        for other in self._concerned(actor):
            self._send(other, messages.ActorUp(actor.name, actor.running.incarnation, actor.running.inbox))
        if actor.plan.kind == "coordinator":
            return
        needed = self.actors.get(COORDINATOR if actor.plan.kind == "broker" else f"broker {actor.plan.broker_id}")
        if needed is not None and needed.running is not None and needed.running.started:
            self._send(actor, messages.ActorUp(needed.name, needed.running.incarnation, needed.running.inbox))

    def _concerned(self, actor: Actor) -> list[Actor]:
        """Those who are told of an actor's starts and ends: its broker, its partitions, all brokers."""
        match actor.plan.kind:
            case "coordinator":
                return [other for other in self.actors.values() if other.plan.kind == "broker"]
            case "broker":
                return self._partitions_of(actor)
        broker = self.actors.get(f"broker {actor.plan.broker_id}")
        return [broker] if broker is not None else []

    def _partitions_of(self, broker: Actor) -> list[Actor]:
        broker_id = broker.plan.broker_id
        return [
            other for other in self.actors.values()
            if other.plan.kind == "partition" and other.plan.broker_id == broker_id
        ]

    def _send(self, actor: Actor, body: messages.Message) -> None:
        """To the incarnation that runs; one that has not started is told what it needs when it has."""
        running = actor.running
        if running is not None and running.started:
            self.mailbox.send((actor.name, running.incarnation), body)
