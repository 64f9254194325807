"""The broker: a front door for clients, and the link between the coordinator's decisions and its own replicas.

Owns: `BrokerActor`: a copy of the cluster state, read from the coordinator's log by offset; the replicas of this
broker (`broker_replicas.py`); the gateway (`gateway/`). It holds nothing that must survive.
Life: asks the supervisor what runs and registers with the coordinator; once it has read up to its own registration it
has what is missing started and what is not wanted stopped; opens its doors when its replicas serve, or after
`DOORS_WAIT_S`; from then on serves whatever can be served, coordinator or not.
Source: DESIGN section 2; Kafka BrokerLifecycleManager, BrokerMetadataPublisher.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

from zafka.actors import cluster_state, messages
from zafka.actors.actor import Effects, Exit, Mail, Now, Peer, PeerGone, Send, SetTimer, TimerFired
from zafka.actors.broker_groups import GroupCoordinators
from zafka.actors.broker_replicas import Replicas
from zafka.actors.cluster_snapshot import state_from
from zafka.actors.dynamic_config import defaults_of
from zafka.actors.gateway.effects import (
    AnswersBlocked,
    CloseDoors,
    ConnectionClosed,
    ConnectionOpened,
    FilesRead,
    FramesReceived,
    OpenDoors,
    WayAsked,
)
from zafka.actors.gateway.gateway import TIMER, Gateway
from zafka.actors.gateway.group_relay import Answered
from zafka.actors.gateway.settings import settings_from
from zafka.actors.messages import Endpoint
from zafka.actors.start import SUPERVISOR, BrokerStart
from zafka.storage.disk import Disk

COORDINATOR = "coordinator"
DOORS_TIMER, REACH_TIMER, SHUTDOWN_TIMER = "doors", "reach", "shutdown"

# A replica that takes longer to recover must not keep clients from the others.
DOORS_WAIT_S = 1.0
SHUTDOWN_WAIT_S = 1.0
REACH_AGAIN_S = 0.25

TOPIC_EVENTS = (cluster_state.TopicCreated, cluster_state.TopicDeleted, cluster_state.PartitionsAdded)

Handler = Callable[[Mail], None]


class BrokerActor:
    """One start of one broker."""

    def __init__(self, start: BrokerStart, *, incarnation: int, disk: Disk, now: Now) -> None:
        self.start = start
        self.incarnation = incarnation
        self.now = now
        self.cluster = cluster_state.ClusterState()
        data_dir = Path(start.data_dir)
        endpoints = [Endpoint(each.name, each.protocol, each.host, each.port) for each in start.listeners]
        self.gateway = Gateway(
            broker_id=start.broker_id, data_dir=data_dir, endpoints=endpoints, settings=settings_from(start.defaults),
            defaults=start.defaults, cluster=self.cluster, now=now)
        self.replicas = Replicas(
            broker_id=start.broker_id, data_dir=data_dir, disk=disk, cluster=self.cluster,
            routes=self.gateway.routes, defaults=start.defaults)
        self.groups = GroupCoordinators(start.broker_id, self.cluster, self.gateway.routes)
        self.gateway.holds_topic = self.replicas.holds_topic
        self.gateway.space = lambda: disk.space(data_dir)
        self.coordinator: Peer | None = None  # its newest incarnation, registered with or not
        self.greeting_due = False  # mail between us was lost
        self.next_offset = 0  # of `__cluster`: everything below is applied
        self.caught_up = False  # once true it stays so
        self.swept = False
        self.doors_open = False
        self.doors_wait_over = False
        self.ready = False
        self.stopping = False
        self._effects: Effects = []
        self._handlers = self._make_handlers()

    def __repr__(self) -> str:
        return f"<Broker {self.start.broker_id} next={self.next_offset} {self.replicas} {self.gateway}>"

    def _make_handlers(self) -> dict[type, Handler]:
        gateway = self.gateway
        return {
            FramesReceived: lambda mail: gateway.on_frames(mail.body.frames),
            messages.Produced: self._on_produced,
            messages.Advanced: lambda mail: self.replicas.on_advanced(mail.sender, mail.body),
            messages.Located: self._on_partition_answer,
            messages.OffsetListed: self._on_partition_answer,
            messages.RecordsDeleted: self._on_partition_answer,
            messages.ProducersDescribed: self._on_partition_answer,
            messages.LogDescribed: self._on_partition_answer,
            messages.EpochEnd: self._on_partition_answer,
            messages.GroupAnswers: self._on_group_answers,
            FilesRead: lambda mail: gateway.on_files_read(mail.body),
            ConnectionOpened: lambda mail: gateway.on_opened(mail.body),
            ConnectionClosed: lambda mail: gateway.on_closed(mail.body.connection_id),
            AnswersBlocked: lambda mail: gateway.on_blocked(mail.body),
            WayAsked: lambda mail: gateway.on_way_asked(mail.body),
            TimerFired: self._on_timer,
            messages.ReplicaUp: lambda mail: self.replicas.on_up(mail.sender, mail.body),
            messages.Serving: lambda mail: self.replicas.on_serving(mail.sender, mail.body.leader_epoch),
            messages.DiskFault: lambda mail: self.replicas.on_fault(mail.body),
            messages.ActorUp: self._on_actor_up,
            messages.ActorDown: lambda mail: self._on_gone(Peer(mail.body.name, mail.body.incarnation)),
            PeerGone: self._on_peer_gone,
            messages.ChildrenTold: lambda mail: self.replicas.on_told(mail.body.wanted, mail.body.stopping),
            messages.PartitionStopped: lambda mail: self.replicas.on_stopped(mail.body.topic, mail.body.partition),
            messages.BrokerRegistered: self._on_registered,
            messages.ClusterRecords: self._on_cluster_records,
            messages.ClusterSnapshot: self._on_cluster_snapshot,
            messages.TopicsCreated: self._on_coordinator_answer,
            messages.TopicsDeleted: self._on_coordinator_answer,
            messages.PartitionsCreated: self._on_coordinator_answer,
            messages.ConfigsAltered: self._on_coordinator_answer,
            messages.ClientsAltered: self._on_coordinator_answer,
            messages.ProducerIdsAllocated: self._on_coordinator_answer,
            messages.Shutdown: self._on_shutdown,
        }

    # -- the actor -----------------------------------------------------------------------------

    def on_start(self, now: Now) -> Effects:
        return [Send(SUPERVISOR, messages.WhichChildren())]

    def on_mail(self, mail: Mail, now: Now) -> Effects:
        self.now = self.gateway.now = now
        self._handlers[type(mail.body)](mail)
        return []

    def on_turn_end(self, now: Now) -> Effects:
        """Everything leaves here: answers, mail to partitions, and what the cluster's changes ask for."""
        self.now = self.gateway.now = now
        replicas, gateway = self.replicas, self.gateway
        if replicas.dirty and self.caught_up and replicas.told:
            if not self.swept:
                self.swept = True
                replicas.sweep()
            replicas.reconcile()
        if replicas.changed:
            replicas.changed = False
            gateway.changed = self.groups.dirty = True
        effects, self._effects = self._effects, []
        effects += replicas.on_turn_end(gateway.coordinator.peer)
        if not self.ready:
            self._open(effects)
        effects += self.groups.on_turn_end()
        effects += gateway.on_turn_end()
        if self.stopping and gateway.is_idle():
            effects.append(Exit(0, "shut down"))
        return effects

    # -- partitions ----------------------------------------------------------------------------

    def _on_produced(self, mail: Mail) -> None:
        if mail.body.advanced is not None:
            self.replicas.on_advanced(mail.sender, mail.body.advanced)
        route = self.replicas.serving.get(mail.sender)
        if route is not None:
            for answer in mail.body.answers:
                route.on_answer(answer)
            route.refill()

    def _on_partition_answer(self, mail: Mail) -> None:
        route = self.replicas.serving.get(mail.sender)
        if route is not None:
            route.on_answer(mail.body)

    def _on_group_answers(self, mail: Mail) -> None:
        if mail.body.advanced is not None:
            self.replicas.on_advanced(mail.sender, mail.body.advanced)
        route = self.replicas.serving.get(mail.sender)
        if route is None:
            return
        position = 0
        for answer in mail.body.answers:
            end = position + answer.size
            route.on_answer(Answered(answer.request_id, answer.error, bytes(mail.records[position:end])))
            position = end

    # -- coordinator ---------------------------------------------------------------------------

    def _on_actor_up(self, mail: Mail) -> None:
        """A new coordinator: register, and read on where the last one stopped."""
        peer = Peer(mail.body.name, mail.body.incarnation)
        if peer.name != COORDINATOR or (self.coordinator and self.coordinator.incarnation >= peer.incarnation):
            return
        if self.coordinator is not None:
            self.gateway.coordinator.on_gone()
        self.coordinator = peer
        self._greet(peer)

    def _greet(self, coordinator: Peer) -> None:
        register = messages.RegisterBroker(
            self.start.broker_id, self.incarnation, self.start.rack, self.gateway.endpoints)
        self._effects += [Send(coordinator, register), Send(coordinator, messages.ReadCluster(self.next_offset))]

    def _on_gone(self, peer: Peer) -> None:
        if peer == self.coordinator:
            self.coordinator = None
            self.gateway.coordinator.on_gone()
        else:
            self.replicas.on_gone(peer)
            self.gateway.routes.on_dead(peer)

    def _on_peer_gone(self, mail: Mail) -> None:
        """Mail was lost: what it asked for is in doubt, and is said again after a while."""
        peer: Peer = mail.body.peer
        if peer == self.coordinator:
            self.gateway.coordinator.on_gone()
            self.replicas.on_coordinator_unreachable()
            self.greeting_due = True
        elif not self.replicas.on_unreachable(peer):
            return
        self._effects.append(SetTimer(REACH_TIMER, self.now.monotonic_s + REACH_AGAIN_S))

    def _on_registered(self, mail: Mail) -> None:
        if mail.sender == self.coordinator:
            self.gateway.coordinator.on_registered(mail.sender)

    def _on_coordinator_answer(self, mail: Mail) -> None:
        if mail.sender == self.coordinator:
            self.gateway.coordinator.on_answer(mail.body)

    def _on_cluster_records(self, mail: Mail) -> None:
        """Committed events: apply them, act on them, ask for the next."""
        if mail.sender != self.coordinator:
            return
        for offset, event in cluster_state.events_in(mail.records):
            if offset >= self.next_offset:
                self.next_offset = offset + 1
                self.cluster.apply(event)
                self._act_on(event)
        self._read_on(mail.sender, mail.body.next_offset, mail.body.high_watermark)

    def _on_cluster_snapshot(self, mail: Mail) -> None:
        """Where we read is not in the log any more, or we know nothing yet: what the events before `next_offset` led to."""
        if mail.sender != self.coordinator:
            return
        body: messages.ClusterSnapshot = mail.body
        if body.next_offset > self.next_offset:
            ends = list(accumulate(body.sizes))
            sections = [bytes(mail.records[end - size:end]) for size, end in zip(body.sizes, ends, strict=True)]
            self.cluster.become(state_from(sections))
            self._take_config()  # group coordinators are told of topics with it
            for topic_id in self.cluster.topics_by_id:
                self.replicas.on_config_changed(topic_id)
            self.replicas.dirty = True
        self._read_on(mail.sender, body.next_offset, body.high_watermark)

    def _read_on(self, coordinator: Peer, next_offset: int, high_watermark: int) -> None:
        self.next_offset = self.gateway.applied = max(self.next_offset, next_offset)
        self.gateway.changed = True
        self._effects.append(Send(coordinator, messages.ReadCluster(self.next_offset)))
        if not self.caught_up and self.next_offset >= high_watermark and self._is_registered():
            self.caught_up = self.replicas.dirty = True
            self._effects.append(SetTimer(DOORS_TIMER, self.now.monotonic_s + DOORS_WAIT_S))

    def _is_registered(self) -> bool:
        me = self.cluster.brokers.get(self.start.broker_id)
        return me is not None and me.incarnation == self.incarnation

    def _act_on(self, event: Any) -> None:
        if isinstance(event, TOPIC_EVENTS):
            self.groups.on_topics_changed()
        if isinstance(event, cluster_state.LeaderChanged) and self.caught_up:
            self.replicas.on_leader_changed(event.topic_id, event.partition)
        elif isinstance(event, cluster_state.TopicConfigChanged):
            self.replicas.on_config_changed(event.topic_id)
        elif isinstance(event, cluster_state.ResourceConfigChanged):
            self._take_config()
        else:
            self.replicas.dirty = True

    def _take_config(self) -> None:
        """Something was altered of a broker or a group: have everybody here obey what holds now."""
        defaults = defaults_of(self.start.broker_id, self.start.defaults, self.cluster)
        self.replicas.on_defaults_changed(defaults)
        self.groups.on_configs_changed()

    # -- doors ---------------------------------------------------------------------------------

    def _open(self, effects: Effects) -> None:
        """Let clients in as soon as it is of use to them; say that we are ready when all we were asked for serves."""
        if not self.caught_up or not self.replicas.told:
            return
        served = self.replicas.all_serve()
        if not self.doors_open and (served or self.doors_wait_over):
            self.doors_open = True
            effects.append(OpenDoors())
        if served and all(name in self.cluster.topics_by_name for name in self.start.topics):
            self.ready = True
            effects.append(Send(SUPERVISOR, messages.Ready()))

    def _on_timer(self, mail: Mail) -> None:
        match mail.body.name:
            case name if name == TIMER:
                self.gateway.on_timer()
            case name if name == DOORS_TIMER:
                self.doors_wait_over = True
            case name if name == REACH_TIMER:
                self.replicas.dirty = True
                if self.greeting_due and self.coordinator is not None:
                    self._greet(self.coordinator)
                self.greeting_due = False
            case name if name == SHUTDOWN_TIMER:
                self._effects.append(Exit(0, "shut down; some answers were still missing"))

    def _on_shutdown(self, mail: Mail) -> None:
        """Take nothing new; what is under way may finish, for a moment."""
        if not self.stopping:
            self.stopping = True
            self.gateway.stop()
            self._effects += [CloseDoors(), SetTimer(SHUTDOWN_TIMER, self.now.monotonic_s + SHUTDOWN_WAIT_S)]
