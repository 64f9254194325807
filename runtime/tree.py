"""The tree of zafka's own actors: which of them there are, under which supervisors, and who is told of whom.

Owns: the coordinator, the brokers, their partitions and cleaners; the nested supervisors (`root` -> coordinator and one
supervisor per broker -> the broker, its partitions, and a cleaner if one of them asks for it). Their processes are `runtime/processes.py`'s.
Driven by `runtime/root.py` with what the fork server reports, what actors send, and the time.
Invariant: an incarnation is announced (`ActorUp`) after its inbox is bound, and its end (`ActorDown`) after its
process is confirmed dead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from zafka.actors import messages
from zafka.actors.cleaner_messages import StartCleaner
from zafka.actors.gateway.group_relay import GROUP_TOPIC
from zafka.actors.start import (
    COORDINATOR_DISK_FAULT,
    PEER_GONE,
    TOPOLOGY_REFUSED,
    Arguments,
    BrokerStart,
    CleanerStart,
    CoordinatorStart,
    PartitionStart,
)
from zafka.runtime.data_dir import DataDirectory
from zafka.runtime.fork_client import ForkServerClient
from zafka.runtime.listeners import Listeners
from zafka.runtime.processes import Key, Program, Running, SupervisedProcesses
from zafka.runtime.run_dir import RunDirectory
from zafka.runtime.settings import TreeSettings
from zafka.runtime.supervisor import Child, ChildSpec, Ended, State, Supervisor
from zafka.transport.direct import direct_path
from zafka.transport.mailbox import Mailbox, Received
from zafka.transport.stream import stream_endpoint

COORDINATOR = "coordinator"
SHUTDOWN_S = {"coordinator": 1.0, "broker": 1.6, "partition": 1.0, "cleaner": 1.0}
WEATHER = frozenset({PEER_GONE})

Log = Callable[..., None]
"""log(level, event, **fields)"""

PROGRAMS = {
    "coordinator": Program("zafka.actors.shell:main", "zafka.actors.coordinator:build"),
    "broker": Program("zafka.actors.broker_shell:main", ""),
    "partition": Program("zafka.actors.shell:main", "zafka.actors.partition:build"),
    "cleaner": Program("zafka.actors.cleaner:main", "zafka.actors.cleaner:build"),
    "group coordinator": Program("zafka.actors.shell:main", "zafka.actors.groups.coordinator:build"),
}


class Plan(NamedTuple):
    """How an actor is started, each time anew. broker_id: of the broker it belongs to, -1 if none.

    program: of `PROGRAMS`, "" for the one of its kind: a group coordinator is a partition to everybody else."""

    kind: str
    broker_id: int
    arguments: Arguments
    fds: tuple[int, ...] = ()
    program: str = ""


@dataclass(slots=True)
class TreeRunning(Running):
    """started: its inbox is bound, and it was announced. mailbox: messages that wait for it, by its last heartbeat."""

    inbox: str = ""
    started: bool = False
    mailbox: int = 0


@dataclass(slots=True)
class Actor:
    """An actor over all its incarnations. supervisor: whose child it is. needs_cleaner: a partition that has asked for it."""

    name: str
    plan: Plan
    supervisor: Supervisor
    needs_cleaner: bool = False

    @property
    def key(self) -> Key:
        return self.supervisor.name, self.name

    @property
    def child(self) -> Child:
        return self.supervisor.children[self.name]


class Tree(SupervisedProcesses[TreeRunning]):
    """settings, data_dir, run_dir, listeners (by broker id), mailbox: the root's, which keeps them.

    server: where processes come from.
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
        super().__init__(
            settings.supervision, mailbox=mailbox, endpoint=run_dir.endpoint("root"), server=server, random=random,
            clock=clock)
        self.settings = settings
        self.actors: dict[Key, Actor] = {}
        self._data_dir = data_dir
        self._run_dir = run_dir
        self._listeners = listeners
        self._log = log
        self._programs = programs
        self._below: dict[str, Supervisor] = {}  # the brokers' supervisors that run
        self.supervisor = self._make_supervisor("root", self._top_specs(), "one_for_one")

    def __repr__(self) -> str:
        return f"<Tree {self.supervisor!r}>"

    # -- the whole -----------------------------------------------------------------------------

    def start(self) -> None:
        self._perform(self.supervisor, self.supervisor.start(self._clock()))

    @property
    def ready(self) -> bool:
        """Coordinator and all brokers do their work."""
        states = [actor.child.state for actor in self.actors.values() if actor.plan.kind in ("coordinator", "broker")]
        return len(states) == 1 + len(self.settings.brokers) and all(state is State.READY for state in states)

    def supervisors(self) -> Iterator[Supervisor]:
        yield self.supervisor
        yield from self._below.values()

    # -- specs ---------------------------------------------------------------------------------

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

    def _start(self, supervisor: Supervisor, spec: ChildSpec) -> None:
        if spec.kind == "supervisor":
            self._start_supervisor(spec)
            return
        plan: Plan = spec.start
        actor = self.actors.setdefault((supervisor.name, spec.id), Actor(spec.id, plan, supervisor))
        actor.plan, actor.supervisor = plan, supervisor
        incarnation = self._data_dir.next_incarnation()
        inbox = self._inbox_of(plan.kind, incarnation)
        running = TreeRunning(actor.name, incarnation, supervisor, self._clock(), inbox=inbox)
        self._spawn(running, self._programs[plan.program or plan.kind], plan.arguments, inbox=inbox, fds=plan.fds)

    def _inbox_of(self, kind: str, incarnation: int) -> str:
        """Where others dial it: a broker by streams, because that is where every request of every client passes."""
        if kind == "partition":
            return ""
        endpoint = self._run_dir.endpoint(f"a{incarnation}")
        return stream_endpoint(endpoint) if kind == "broker" else endpoint

    def _start_supervisor(self, spec: ChildSpec) -> None:
        broker_id: int = spec.start
        supervisor = self._make_supervisor(spec.id, self._broker_specs(broker_id), self.settings.supervision.strategy)
        self._below[spec.id] = supervisor
        self._perform(supervisor, supervisor.start(self._clock()))

    def _stop(self, supervisor: Supervisor, name: str) -> None:
        below = self._below.get(name)
        if below is not None:
            self._perform(below, below.shutdown(self._clock()))
        else:
            self._send(self.actors[supervisor.name, name], messages.Shutdown())

    def _kill(self, running: TreeRunning, reason: str) -> None:
        running.reason = reason
        self._log("warning", "actor killed", name=running.name, pid=running.pid, reason=reason)
        self.server.kill(running.incarnation)

    def _remove(self, supervisor: Supervisor, name: str) -> None:
        """A partition that its broker did not want any more is gone; so is a child that was not to be restarted."""
        if name not in supervisor.children:
            self.actors.pop((supervisor.name, name), None)
        kind, _, rest = name.partition(" ")
        if kind == "partition":
            topic, _, partition = rest.rpartition("-")
            broker = self._broker(int(supervisor.name.rpartition(" ")[2]))
            assert broker is not None
            self._send(broker, messages.PartitionStopped(topic, int(partition)))

    def _end(self, supervisor: Supervisor, ended: Ended) -> None:
        """A supervisor has no children any more: the topmost decides what then, or the tree is at its end."""
        for actor in [actor for actor in self.actors.values() if actor.supervisor is supervisor]:
            del self.actors[actor.key]
        if ended.failed:
            self._log("error", "supervisor gave up", supervisor=supervisor.name, reason=ended.reason)
        if supervisor is self.supervisor:
            self.ended = ended
            return
        del self._below[supervisor.name]
        decisions = self.supervisor.on_exit(supervisor.name, ended.code, ended.reason, self._clock())
        self._perform(self.supervisor, decisions)

    def _on_down(self, running: TreeRunning, code: int, reason: str) -> None:
        actor = self.actors[running.key]
        if running.inbox:
            self._run_dir.remove_socket(running.inbox)
        if actor.plan.kind == "partition":
            self._run_dir.remove_socket(direct_path(self._run_dir.endpoint("root"), running.incarnation))
        if running.started:
            for other in self._concerned(actor):
                self._send(other, messages.ActorDown(actor.name, running.incarnation))
        expected = actor.child.state is State.STOPPING
        self._log("debug" if expected else "warning", "actor ended", name=actor.name, pid=running.pid,
                  of_incarnation=running.incarnation, code=code, reason=reason)

    # -- what actors send ----------------------------------------------------------------------

    def _on_body(self, running: TreeRunning, received: Received) -> None:
        now_s = self._clock()
        supervisor, name = running.supervisor, running.name
        actor = self.actors[running.key]
        match received.body:
            case messages.Heartbeat(mailbox=mailbox):
                running.mailbox = mailbox
                supervisor.on_heartbeat(name, now_s)
            case messages.Started():
                self._announce(actor, running)
            case messages.Ready():
                supervisor.on_ready(name, now_s)
                took_ms = round((now_s - running.asked_s) * 1000)
                # The first start of an actor is what everybody expects; a restart ends a story that was told.
                level = "info" if actor.child.restarts else "debug"
                self._log(level, "actor ready", name=name, pid=running.pid, of_incarnation=running.incarnation,
                          took_ms=took_ms)
            case messages.Exiting(reason=reason):
                running.reason = running.reason or reason
            case messages.StartPartition() as wanted:
                self._start_partition(actor, wanted)
            case messages.StopPartition(topic=topic, partition=partition):
                self._perform(supervisor, supervisor.terminate_child(f"partition {topic}-{partition}", now_s))
            case messages.WhichChildren():
                self._tell_children(actor)
            case StartCleaner():
                self._start_cleaner(actor)

    def _start_partition(self, broker: Actor, wanted: messages.StartPartition) -> None:
        broker_id = broker.plan.broker_id
        directory = self._broker_dir(broker_id) / f"{wanted.topic}-{wanted.partition}"
        start = PartitionStart(
            broker_id=broker_id, topic=wanted.topic, partition=wanted.partition, topic_id=wanted.topic_id,
            directory=str(directory), config=wanted.config)
        program = "group coordinator" if wanted.topic == GROUP_TOPIC else ""
        spec = ChildSpec(
            f"partition {wanted.topic}-{wanted.partition}", Plan("partition", broker_id, start, program=program),
            shutdown_s=SHUTDOWN_S["partition"], weather_codes=WEATHER, dynamic=True)
        self._perform(broker.supervisor, broker.supervisor.start_child(spec, self._clock()))

    def _start_cleaner(self, partition: Actor) -> None:
        """A cleaner that fails is no reason to stop a broker: it is started again when a partition asks again."""
        broker_id = partition.plan.broker_id
        partition.needs_cleaner = True
        spec = ChildSpec(
            f"cleaner {broker_id}", Plan("cleaner", broker_id, CleanerStart(broker_id)), restart="temporary",
            shutdown_s=SHUTDOWN_S["cleaner"], dynamic=True)
        self._perform(partition.supervisor, partition.supervisor.start_child(spec, self._clock()))
        cleaner = self._cleaner(broker_id)
        if cleaner is not None:
            self._introduce(cleaner, partition)

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
            self._introduce(actor, broker)
        self._send(broker, messages.ChildrenTold(wanted, stopping))

    # -- who is told of whom -------------------------------------------------------------------

    def _announce(self, actor: Actor, running: TreeRunning) -> None:
        """Its inbox is bound: tell those who dial it, and tell it whom to dial."""
        running.started = True
        for other in self._concerned(actor):
            self._introduce(actor, other)
        if actor.plan.kind in ("coordinator", "cleaner"):
            return
        coordinator = self.actors.get((self.supervisor.name, COORDINATOR))
        needed = coordinator if actor.plan.kind == "broker" else self._broker(actor.plan.broker_id)
        if needed is not None:
            self._introduce(needed, actor)

    def _introduce(self, actor: Actor, to: Actor) -> None:
        """Say that an actor is up, if it is."""
        running = self.running.get(actor.key)
        if running is not None and running.started:
            self._send(to, messages.ActorUp(actor.name, running.incarnation, running.inbox))

    def _concerned(self, actor: Actor) -> list[Actor]:
        """Those who are told of an actor's starts and ends: its broker, its partitions, its cleaner, all brokers."""
        match actor.plan.kind:
            case "coordinator":
                return [other for other in self.actors.values() if other.plan.kind == "broker"]
            case "broker":
                return self._partitions_of(actor)
            case "cleaner":
                return [other for other in self._partitions_of(actor) if other.needs_cleaner]
        broker_id = actor.plan.broker_id
        concerned = [self._broker(broker_id), self._cleaner(broker_id) if actor.needs_cleaner else None]
        return [other for other in concerned if other is not None]

    def _broker(self, broker_id: int) -> Actor | None:
        return self.actors.get((f"supervisor of broker {broker_id}", f"broker {broker_id}"))

    def _cleaner(self, broker_id: int) -> Actor | None:
        return self.actors.get((f"supervisor of broker {broker_id}", f"cleaner {broker_id}"))

    def _partitions_of(self, other_of_broker: Actor) -> list[Actor]:
        broker_id = other_of_broker.plan.broker_id
        return [
            other for other in self.actors.values()
            if other.plan.kind == "partition" and other.plan.broker_id == broker_id
        ]

    def _send(self, actor: Actor, body: messages.Message) -> None:
        """To the incarnation that runs; one that has not started is told what it needs when it has."""
        running = self.running.get(actor.key)
        if running is not None and running.started:
            self.mailbox.send((actor.name, running.incarnation), body)
