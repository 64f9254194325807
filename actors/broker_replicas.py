"""The replicas of one broker: which ones the cluster wants here, which ones run, who may lead, what lies about.

Owns: `Replicas`. It compares the cluster state with the children that the supervisor runs for this broker and asks
for the difference; takes a recovered replica through its claim to leadership; keeps the gateway's routes in step.
Invariants: requests go only to an incarnation that said `Serving` in an epoch that is committed. A directory is
moved aside only when its process is confirmed dead and the cluster's log says that its topic was deleted: what that
log never had (somebody lost it, or mixed up directories) is left alone, loudly.
May fail with OSError from a rename.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from zafka.actors.actor import Effects, Peer, Send
from zafka.actors.cluster_state import NO_LEADER, ClusterState, PartitionState, TopicState, id_text
from zafka.actors.gateway.effects import RemoveDirectory
from zafka.actors.gateway.routes import Route, Routes
from zafka.actors.messages import (
    Advanced,
    BecomeLeader,
    ClaimLeadership,
    ConfigChanged,
    DiskFault,
    ReplicaUp,
    ReportFault,
    ReportRecovered,
    StartPartition,
    StopPartition,
)
from zafka.actors.start import SUPERVISOR
from zafka.storage.directory import read_topic_id
from zafka.storage.disk import Disk
from zafka.storage.errors import ForeignTopic
from zafka.transport.kafka.errors import ErrorCode

logger = structlog.get_logger(__name__)

Key = tuple[str, int]  # topic, partition

DELETE_SUFFIX = "-delete"
FILE_NAME_MAX = 255
_DIRECTORY = re.compile(r"(.+)-(\d+)")


@dataclass(slots=True)
class Replica:
    """One replica under supervision.

    topic_id: None until the process says which topic it holds (the supervisor knows names only).
    peer: the incarnation that is recovered and linked. led_epoch: that it was last told to lead in.
    serving: it confirmed that epoch. stopping: we asked for its end. stopped: it ended for good, unasked.
    fault, recovered: as its `ReplicaUp` said; with a fault it must not lead.
    """

    topic: str
    partition: int
    topic_id: bytes | None = None
    peer: Peer | None = None
    led_epoch: int = -1
    serving: bool = False
    stopping: bool = False
    stopped: bool = False
    fault: str = ""
    recovered: str = ""

    @property
    def key(self) -> Key:
        return self.topic, self.partition


class Replicas:
    def __init__(
        self, *, broker_id: int, data_dir: Path, disk: Disk, cluster: ClusterState, routes: Routes,
        defaults: dict[str, str],
    ) -> None:
        self.broker_id = broker_id
        self.data_dir = data_dir
        self.disk = disk
        self.cluster = cluster
        self.routes = routes
        self.by_key: dict[Key, Replica] = {}
        self.serving: dict[Peer, Route] = {}
        self.told = False  # the supervisor said what runs
        self.defaults = defaults
        self.dirty = False  # the cluster wants something else than before
        self.changed = False  # something serves, or is gone, that did or was not
        self._by_peer: dict[Peer, Replica] = {}
        self._claims: dict[Key, Peer | None] = {}  # replicas that may lead, and the coordinator that was told so
        self._faults: dict[tuple[bytes, int], tuple[DiskFault, Peer | None]] = {}  # by topic id, which may not be known yet
        self._recoveries: dict[Key, Peer | None] = {}  # replicas recovered by hand, as `_claims`
        self._effects: Effects = []

    def __repr__(self) -> str:
        return f"<Replicas {len(self.by_key)} serving={len(self.serving)} claims={len(self._claims)}>"

    # -- wanted against running ----------------------------------------------------------------

    def on_told(self, wanted: list[Key], stopping: Sequence[Key] = ()) -> None:
        """What the supervisor runs for us, after it or we started; and what it was stopping for our predecessor."""
        for topic, partition in wanted:
            self.by_key.setdefault((topic, partition), Replica(topic, partition))
        for topic, partition in stopping:
            self.by_key[topic, partition] = Replica(topic, partition, stopping=True)
        self.told = self.dirty = True

    def wanted(self) -> dict[Key, TopicState]:
        """What the cluster wants here."""
        return {
            (topic.name, index): topic
            for topic in self.cluster.topics_by_id.values()
            for index, partition in enumerate(topic.partitions)
            if self.broker_id in partition.replicas
        }

    def reconcile(self) -> None:
        """Ask the supervisor for the difference between what is wanted and what runs."""
        assert self.told
        self.dirty = False
        wanted = self.wanted()
        for key, replica in list(self.by_key.items()):
            topic = wanted.get(key)
            foreign = topic is not None and replica.topic_id not in (None, topic.topic_id)
            if (topic is None or foreign) and not replica.stopping:
                self._stop(replica)
        for key, owner in wanted.items():
            known = self.by_key.get(key)
            if known is None:
                self._start(key, owner)
            elif not known.stopping:
                self._route(key, owner)
                self._decide(known)

    def _start(self, key: Key, topic: TopicState) -> None:
        name, partition = key
        self._retire_foreign(key, topic.topic_id)
        self.by_key[key] = Replica(name, partition, topic.topic_id)
        self._route(key, topic)
        self._effects.append(
            Send(SUPERVISOR, StartPartition(name, partition, topic.topic_id, self.config_of(topic))))

    def _route(self, key: Key, topic: TopicState) -> Route:
        route = self.routes.find(*key)
        if route is None:
            route = self.routes.add(key[0], topic.topic_id, key[1])
            self._mark_fault(route, topic.partitions[key[1]])
        return route

    def _stop(self, replica: Replica) -> None:
        replica.stopping = True
        self._lose(replica)
        self.routes.remove(replica.topic, replica.partition)
        if replica.stopped:
            self.on_stopped(replica.topic, replica.partition)
        else:
            self._effects.append(Send(SUPERVISOR, StopPartition(replica.topic, replica.partition)))

    def on_stopped(self, topic: str, partition: int) -> None:
        """The replica's process is dead and stays so."""
        replica = self.by_key.get((topic, partition))
        if replica is None:
            return
        self._lose(replica)
        if not replica.stopping:
            # The supervisor gave it up. We do not start it again, that would be one more crash loop.
            replica.stopped = True
            route = self.routes.find(topic, partition)
            if route is not None:
                route.lose(ErrorCode.KAFKA_STORAGE_ERROR)
            return
        del self.by_key[replica.key]
        wanted = self.wanted().get(replica.key)
        self._retire_foreign(replica.key, wanted.topic_id if wanted else None)
        self.dirty = self.changed = True

    def all_serve(self) -> bool:
        """True if everything that is wanted here serves, or is known to be offline."""
        routes = [self.routes.find(*key) for key in self.wanted()]
        return not self.dirty and all(
            route is not None and route.refusal in (0, ErrorCode.KAFKA_STORAGE_ERROR) for route in routes)

    def holds_topic(self, topic_id: bytes) -> bool:
        return any(replica.topic_id == topic_id for replica in self.by_key.values())

    def config_of(self, topic: TopicState) -> dict[str, str]:
        """The effective configuration: the broker's defaults and the topic's own on top."""
        return {**self.defaults, **topic.config}

    def on_config_changed(self, topic_id: bytes) -> None:
        for replica in self.by_key.values():
            if replica.topic_id == topic_id:
                self._tell_config(replica)

    def on_defaults_changed(self, defaults: dict[str, str]) -> None:
        """defaults: what holds on this broker from now on for topics that say nothing themselves."""
        if defaults != self.defaults:
            self.defaults = defaults
            for replica in self.by_key.values():
                self._tell_config(replica)

    def _tell_config(self, replica: Replica) -> None:
        topic = self.cluster.topics_by_id.get(replica.topic_id or b"")
        if topic is not None and replica.peer is not None:
            self._effects.append(Send(replica.peer, ConfigChanged(self.config_of(topic))))

    # -- from recovered to serving -------------------------------------------------------------

    def on_up(self, peer: Peer, up: ReplicaUp) -> None:
        """A replica is recovered and linked."""
        key = (up.topic, up.partition)
        replica = self.by_key.setdefault(key, Replica(up.topic, up.partition))
        if replica.peer is not None and replica.peer.incarnation > peer.incarnation:
            return
        self._lose(replica)
        replica.topic_id = up.topic_id
        replica.peer = peer
        replica.stopped = False
        replica.fault, replica.recovered = up.fault, up.recovered
        self._by_peer[peer] = replica
        if up.fault:
            logger.error("replica is offline", topic=up.topic, partition=up.partition, reason=up.fault)
        self.dirty = True

    def on_leader_changed(self, topic_id: bytes, partition: int) -> None:
        """A change of leader is committed. Ours is told so, unless the claim it came from is outdated."""
        topic = self.cluster.topics_by_id.get(topic_id)
        replica = self.by_key.get((topic.name, partition)) if topic else None
        if replica is not None:
            self._decide(replica)

    def _decide(self, replica: Replica) -> None:
        """Have a recovered replica lead: in the epoch that is committed for it, or in a new one by a claim."""
        topic = self.cluster.topics_by_id.get(replica.topic_id or b"")
        if topic is None or replica.peer is None or replica.stopping or topic.name != replica.topic:
            return
        partition, route = topic.partitions[replica.partition], self._route(replica.key, topic)
        if replica.recovered and replica.recovered not in partition.recoveries:
            # It leads once this is committed, so that no later fault is taken for the one that is over.
            self._recoveries.setdefault(replica.key, None)
            return
        self._recoveries.pop(replica.key, None)
        if self._mark_fault(route, partition):
            self._claims.pop(replica.key, None)
            self._faults.pop((topic.topic_id, replica.partition), None)
        elif replica.fault or (topic.topic_id, replica.partition) in self._faults:
            # Not committed yet, or not to be. This incarnation may know nothing of it, if the disk took no marker.
            self._claims.pop(replica.key, None)
            if route.refusal != ErrorCode.KAFKA_STORAGE_ERROR:
                route.lose(ErrorCode.KAFKA_STORAGE_ERROR)
        elif partition.leader == self.broker_id and partition.incarnation == replica.peer.incarnation:
            self._claims.pop(replica.key, None)
            if replica.led_epoch != partition.leader_epoch:
                replica.led_epoch = partition.leader_epoch
                replica.serving = False
                order = BecomeLeader(partition.leader_epoch, self.config_of(topic))
                self._effects.append(Send(replica.peer, order))
        elif partition.leader in (NO_LEADER, self.broker_id):
            self._claims.setdefault(replica.key, None)

    def _mark_fault(self, route: Route, partition: PartitionState) -> bool:
        """Requests for an offline replica are told so."""
        faulted = self.broker_id in partition.faults
        if faulted and route.refusal != ErrorCode.KAFKA_STORAGE_ERROR:
            route.lose(ErrorCode.KAFKA_STORAGE_ERROR)
        return faulted

    def on_serving(self, peer: Peer, leader_epoch: int) -> None:
        replica = self._by_peer.get(peer)
        if replica is not None and replica.led_epoch == leader_epoch:
            replica.serving = True

    def on_advanced(self, peer: Peer, advanced: Advanced) -> None:
        route = self.serving.get(peer)
        if route is not None:
            route.serve(peer, advanced)
            return
        replica = self._by_peer.get(peer)
        if replica is None or not replica.serving or advanced.leader_epoch != replica.led_epoch:
            return
        route = self.routes.find(*replica.key)
        if route is not None:
            self.serving[peer] = route
            route.serve(peer, advanced)
            self.changed = True

    def on_gone(self, peer: Peer) -> None:
        """This incarnation is dead."""
        replica = self._by_peer.get(peer)
        if replica is not None:
            self._lose(replica)

    def on_unreachable(self, peer: Peer) -> bool:
        """Mail to this incarnation was lost, but it is not known to be dead. True if it is to lead anew, after a while.

        What it owed is in doubt; being told to lead again makes it say what it shows."""
        replica = self._by_peer.get(peer)
        if replica is None:
            return False
        replica.led_epoch, replica.serving = -1, False
        route = self.serving.pop(peer, None)
        if route is not None:
            route.lose()
        return True

    def on_coordinator_unreachable(self) -> None:
        """Mail to the coordinator was lost: whatever it was told is to be told again."""
        self._claims = dict.fromkeys(self._claims)
        self._recoveries = dict.fromkeys(self._recoveries)
        self._faults = {key: (fault, None) for key, (fault, _) in self._faults.items()}

    def on_fault(self, fault: DiskFault) -> None:
        """A replica's disk failed a flush: the coordinator has to commit that it is offline."""
        self._faults[fault.topic_id, fault.partition] = (fault, None)
        topic = self.cluster.topics_by_id.get(fault.topic_id)
        if topic is not None:
            route = self.routes.find(topic.name, fault.partition)
            if route is not None:
                route.lose(ErrorCode.KAFKA_STORAGE_ERROR)

    def _lose(self, replica: Replica) -> None:
        """Forget the incarnation that was there; what it owed is answered."""
        peer, replica.peer = replica.peer, None
        replica.led_epoch, replica.serving = -1, False
        self._claims.pop(replica.key, None)
        self._recoveries.pop(replica.key, None)
        if peer is None:
            return
        self._by_peer.pop(peer, None)
        self.serving.pop(peer, None)
        route = self.routes.find(*replica.key)
        if route is not None and route.refusal != ErrorCode.KAFKA_STORAGE_ERROR:
            route.lose()

    # -- directories ---------------------------------------------------------------------------

    def sweep(self) -> None:
        """Move aside what no topic of the cluster wants, and remove what was moved aside before."""
        wanted = self.wanted()
        for name in self.disk.list_directory(self.data_dir):
            match = _DIRECTORY.fullmatch(name)
            if name.endswith(DELETE_SUFFIX):
                self._effects.append(RemoveDirectory(self.data_dir / name))
            elif match:
                key = (match[1], int(match[2]))
                if key not in self.by_key:
                    topic = wanted.get(key)
                    self._retire_foreign(key, topic.topic_id if topic else None)

    def _retire_foreign(self, key: Key, topic_id: bytes | None) -> None:
        """Move a directory aside if it is of another topic than the one with this id."""
        directory = self.data_dir / f"{key[0]}-{key[1]}"
        try:
            found = read_topic_id(self.disk, directory)
        except ForeignTopic as error:
            logger.warning("directory left alone", reason=str(error))
            return
        if found is None or found == topic_id:
            return
        if not self.cluster.ever_had(found):
            logger.error("directory left alone: the cluster's log never had its topic", directory=str(directory),
                         topic_id=id_text(found))
            return
        suffix = f"-{key[1]}.{found.hex()}{DELETE_SUFFIX}"
        target = self.data_dir / (key[0][: FILE_NAME_MAX - len(suffix)] + suffix)
        self.disk.rename(directory, target)
        self._effects.append(RemoveDirectory(target))
        logger.info("directory of a deleted topic moved aside", directory=target.name)

    # -- the turn ------------------------------------------------------------------------------

    def on_turn_end(self, coordinator: Peer | None) -> Effects:
        """What this turn asks of supervisor, partitions and coordinator (None while it is away)."""
        effects, self._effects = self._effects, []
        if coordinator is not None:
            effects += self._propose(coordinator)
        return effects

    def _propose(self, coordinator: Peer) -> Effects:
        """What this incarnation of the coordinator has not been told; the events are the answer."""
        effects: Effects = []
        for key, told in self._recoveries.items():
            replica = self.by_key[key]
            if told != coordinator and replica.topic_id is not None:
                self._recoveries[key] = coordinator
                effects.append(Send(coordinator, ReportRecovered(
                    replica.topic_id, replica.partition, self.broker_id, replica.recovered)))
        claims: list[tuple[bytes, int, int]] = []
        for key, told in self._claims.items():
            replica = self.by_key[key]
            if told != coordinator and replica.peer is not None and replica.topic_id is not None:
                self._claims[key] = coordinator
                claims.append((replica.topic_id, replica.partition, replica.peer.incarnation))
        if claims:
            effects.append(Send(coordinator, ClaimLeadership(claims)))
        for fault, teller in list(self._faults.values()):
            if teller != coordinator:
                self._faults[fault.topic_id, fault.partition] = (fault, coordinator)
                effects.append(Send(coordinator, ReportFault(
                    fault.topic_id, fault.partition, self.broker_id, fault.flushed_position, fault.reason)))
        return effects
