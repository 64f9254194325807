"""The coordinator: decides what holds in the cluster, by appending events to `__cluster` as its leader.

Owns: `CoordinatorActor`, a state machine on a replica of one log (`actors/replica.py`). What came in one turn is
decided together and appended as one batch; an answer leaves once everything that it rests on is committed.
`state` runs ahead of the commit, so that a decision sees the one before it; nobody is shown it: brokers read the
log, up to the high watermark (Kafka's QuorumController does it so), or a snapshot of it (`cluster_log.py`).
May fail with: a failed flush of `__cluster`, which ends the tree (`COORDINATOR_DISK_FAULT`), and a topology that
the log contradicts (`TOPOLOGY_REFUSED`). A full disk is answered, or tried again a second later.
Source: Kafka QuorumController, ReplicationControlManager, ProducerIdControlManager.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import structlog

from zafka.actors import client_rules, cluster_state, messages
from zafka.actors.actor import (
    Actor,
    Effects,
    Exit,
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
from zafka.actors.cluster_log import ClusterLog
from zafka.actors.cluster_refusals import NO_ID, refusal_of
from zafka.actors.cluster_state import AnyEvent
from zafka.actors.config_rules import decide_change
from zafka.actors.dynamic_config import outdated
from zafka.actors.messages import MorePartitions, NewTopic, TopicResult
from zafka.actors.offline import give_up
from zafka.actors.refused import Refused
from zafka.actors.replica import Replica, open_replica
from zafka.actors.start import COORDINATOR_DISK_FAULT, SUPERVISOR, TOPOLOGY_REFUSED, CoordinatorStart
from zafka.actors.topic_rules import (
    TOO_MANY,
    Place,
    are_too_many,
    decide_more_partitions,
    decide_topic,
    place_partitions,
)
from zafka.storage.batch import read_header
from zafka.storage.config import INTERNAL_KEYS, check_topic_config, parse_config
from zafka.storage.disk import Disk
from zafka.storage.errors import BadBatch, CorruptLog, DiskFull, FailedFlush, ForeignTopic, InvalidConfig
from zafka.storage.fault import Recovered, read_marker, read_recovered
from zafka.storage.records import encode_batch
from zafka.storage.scan import no_progress
from zafka.transport.kafka.errors import ErrorCode

PRODUCER_IDS_BLOCK = 1000
RETRY_TIMER = "retry"
RETRY_S = 1.0
CONFIG = {"fsync": "always", "retention.ms": "-1", "retention.bytes": "-1"}
# What is replayed at most, and kept: two snapshots' distance, in whole segments. Tests ask for less, as of other logs.
SNAPSHOT_RECORDS_KEY, SNAPSHOT_RECORDS = "internal.cluster.snapshot.records", "10000"
SEGMENT_BYTES = {"internal.segment.bytes": str(4 << 20)}


logger = structlog.get_logger(__name__)


def random_id() -> bytes:
    return uuid.uuid4().bytes


class TopologyRefused(Exception):
    """The topology asks for what cannot be had from the cluster as it is. The message is for the operator."""


class CoordinatorActor:
    """start: with the brokers and topics of the topology. replica: of `__cluster-0`.

    new_id: 16 random bytes for each call. recovered: the last `zafka log recover` of this log.
    """

    def __init__(
        self, start: CoordinatorStart, replica: Replica[Effects], disk: Disk,
        new_id: Callable[[], bytes] = random_id, *, progress: Callable[[], None] = no_progress,
        recovered: Recovered | None = None,
    ) -> None:
        self.replica = replica
        self.cluster_log = ClusterLog(disk, replica, progress)
        self.state = self.cluster_log.read_state()
        self._places = [Place(broker_id, rack) for broker_id, rack in start.brokers]
        self._cluster_id = start.cluster_id
        self._defaults = start.defaults
        self._topics: Sequence[NewTopic] = start.topics
        self._topology_done = False
        self._recovered = recovered
        self._new_id = new_id
        self._events: list[AnyEvent] = []  # decided in this turn
        self._requests: list[Mail] = []  # of this turn
        self._postponed: list[Mail] = []  # while the disk is full
        self._disk_full = False  # and said so in the log
        self._retry_at_s: float | None = None
        self._registered: dict[Peer, int] = {}  # broker id of each broker process that told its addresses
        self._stopping = False
        self._decide: dict[type, Callable[[Mail], Effects]] = {
            messages.RegisterBroker: self._register_broker,
            messages.ClaimLeadership: self._claim_leadership,
            messages.CreateTopics: self._create_topics,
            messages.DeleteTopics: self._delete_topics,
            messages.CreatePartitions: self._create_partitions,
            messages.AlterConfigs: self._alter_configs,
            messages.AlterClients: self._alter_clients,
            messages.AllocateProducerIds: self._allocate_producer_ids,
            messages.ReportFault: self._report_fault,
            messages.ReportRecovered: self._report_recovered,
        }

    def __repr__(self) -> str:
        return f"<Coordinator {self.replica!r} {self.state!r}>"

    # -- turns ---------------------------------------------------------------------------------

    def on_start(self, now: Now) -> Effects:
        # Alone on its log, it needs nobody's leave to begin an epoch.
        self.replica.become_leader(self.replica.log.leader_epochs.latest + 1)
        return [Send(SUPERVISOR, messages.Ready())]

    def on_mail(self, mail: Mail, now: Now) -> Effects:
        match mail.body:
            case body if type(body) in self._decide:
                self._requests.append(mail)
            case messages.ReadCluster(offset=offset):
                self.cluster_log.on_read(mail.sender, offset)
            case Flushed(token=token):
                if not self.cluster_log.snapshots.on_flushed(token):
                    self.replica.on_flushed(token)
            case FlushFailed(reason=reason):
                fault = f"a flush of {cluster_state.TOPIC} failed: {reason}"
                self.replica.give_up(fault)
                return [Exit(COORDINATOR_DISK_FAULT, fault)]
            case TimerFired(name=name) if name == RETRY_TIMER:
                self._retry_at_s = None
                self._requests, self._postponed = self._postponed + self._requests, []
            case messages.Shutdown():
                self.replica.resign()
                self._stopping = True
            case PeerGone(peer=peer):
                self.cluster_log.on_gone(peer)
        return []

    def on_turn_end(self, now: Now) -> Effects:
        if self.replica.leads:
            try:
                self._decide_turn(now)
            except TopologyRefused as refused:
                return [Exit(TOPOLOGY_REFUSED, str(refused))]
        effects = [effect for answers in self.replica.commit() for effect in answers]
        effects += self.cluster_log.answer_readers()
        if not self.replica.closed:
            effects += self.cluster_log.on_turn_end(self.state, now, stopping=self._stopping)
        if self._stopping and not self.cluster_log.snapshots.is_busy:
            self.replica.close()
        effects += self.replica.flush_effects(now)
        if self._retry_at_s is not None:
            effects.append(SetTimer(RETRY_TIMER, self._retry_at_s))
        if self.replica.closed:
            effects.append(Exit(0, "shutdown"))
        return effects

    def _decide_turn(self, now: Now) -> None:
        """Decide all requests of the turn, append what follows as one batch, and let the answers wait for it."""
        requests, self._requests = self._requests, []
        self._ensure_recovered()
        if not self._topology_done:
            self._ensure_topology()
        answers = [answer for mail in requests for answer in self._decide[type(mail.body)](mail)]
        try:
            self._append(now)
            self._disk_full = False
        except DiskFull as full:
            answers = self._take_back(requests, str(full), now)
        if answers:
            self.replica.wait(answers)

    def _event(self, event: AnyEvent) -> None:
        self._events.append(event)
        self.state.apply(event)

    def _append(self, now: Now) -> None:
        if self._events:
            events, self._events = self._events, []
            batch = memoryview(encode_batch(
                (now.wall_ms, None, cluster_state.encode_event(event), ()) for event in events))
            self.replica.append([(read_header(batch), batch)], now.wall_ms)

    def _take_back(self, requests: Iterable[Mail], reason: str, now: Now) -> Effects:
        """Nothing of this turn was written: go back to what the log says, and say so where there is a word for it."""
        if not self._disk_full:
            logger.error("disk full: the cluster cannot be changed until there is room", reason=reason)
        self._disk_full = True
        if self._retry_at_s is None:
            self._retry_at_s = now.monotonic_s + RETRY_S
        self.state = self.cluster_log.read_state()
        self._topology_done = False
        answers: Effects = []
        for mail in requests:
            refusal = refusal_of(mail.body, reason)
            if refusal is None:
                self._postponed.append(mail)
            else:
                answers.append(Send(mail.sender, refusal))
        return answers

    @property
    def _decided_offset(self) -> int:
        """Who has applied `__cluster` up to here knows everything decided so far."""
        return self.replica.log.end_offset + len(self._events)

    # -- brokers -------------------------------------------------------------------------------

    def _register_broker(self, mail: Mail) -> Effects:
        body: messages.RegisterBroker = mail.body
        known = self.state.brokers.get(body.broker_id)
        if known is not None and known.incarnation > body.incarnation:
            return []
        self._registered = {peer: i for peer, i in self._registered.items() if i != body.broker_id}
        self._registered[mail.sender] = body.broker_id
        told = cluster_state.BrokerState(body.broker_id, body.incarnation, body.rack, body.endpoints)
        if told != known:
            self._event(cluster_state.BrokerRegistered(body.broker_id, body.incarnation, body.rack, body.endpoints))
        return [Send(mail.sender, messages.BrokerRegistered(self.state.cluster_id))]

    def _claim_leadership(self, mail: Mail) -> Effects:
        """Give each recovered replica a new epoch to lead in. Claims that are repeated or late change nothing."""
        broker_id = self._registered.get(mail.sender)
        if broker_id is None:
            return []
        body: messages.ClaimLeadership = mail.body
        for topic_id, number, incarnation in body.claims:
            partition = self.state.partition(topic_id, number)
            if partition is None or broker_id not in partition.replicas or broker_id in partition.faults:
                continue
            if incarnation < partition.incarnation:
                continue
            if incarnation == partition.incarnation and partition.leader == broker_id:
                continue
            self._event(cluster_state.LeaderChanged(
                topic_id, number, leader=broker_id, leader_epoch=partition.leader_epoch + 1,
                partition_epoch=partition.partition_epoch + 1, isr=[broker_id], incarnation=incarnation))
        return []

    def _report_fault(self, mail: Mail) -> Effects:
        body: messages.ReportFault = mail.body
        partition = self.state.partition(body.topic_id, body.partition)
        if partition is not None and body.broker_id in partition.replicas and body.broker_id not in partition.faults:
            self._event(cluster_state.ReplicaFaulted(
                body.topic_id, body.partition, body.broker_id, body.flushed_position, body.reason))
        return []

    def _report_recovered(self, mail: Mail) -> Effects:
        body: messages.ReportRecovered = mail.body
        partition = self.state.partition(body.topic_id, body.partition)
        if partition is not None and body.recovery_id not in partition.recoveries:
            self._event(cluster_state.ReplicaRecovered(
                body.topic_id, body.partition, body.broker_id, body.recovery_id))
        return []

    def _ensure_recovered(self) -> None:
        """Commit once that this log was recovered by hand, before anything is decided on what is left of it."""
        recovered = self._recovered
        if recovered is not None and recovered.finished and recovered.id not in self.state.recoveries:
            lost = recovered.lost_offsets
            self._event(cluster_state.ClusterLogRecovered(recovered.id, lost, lost * PRODUCER_IDS_BLOCK))

    def _allocate_producer_ids(self, mail: Mail) -> Effects:
        body: messages.AllocateProducerIds = mail.body
        first = self.state.next_producer_id
        self._event(cluster_state.ProducerIdsAllocated(first, PRODUCER_IDS_BLOCK))
        return [Send(mail.sender, messages.ProducerIdsAllocated(body.request_id, first, PRODUCER_IDS_BLOCK))]

    def _alter_clients(self, mail: Mail) -> Effects:
        body: messages.AlterClients = mail.body
        events, outcomes = client_rules.decide(body.changes, self.state)
        if not body.validate_only:
            for event in events:
                self._event(event)
        return [Send(mail.sender, messages.ClientsAltered(body.request_id, outcomes, self._decided_offset))]

    # -- topics --------------------------------------------------------------------------------

    def _create_topics(self, mail: Mail) -> Effects:
        body: messages.CreateTopics = mail.body
        topics = {topic.name: topic for topic in body.topics}
        twice = _twice(topic.name for topic in body.topics)
        too_many = are_too_many(topics.values(), self._defaults)
        results = []
        for name, topic in topics.items():
            try:
                if name in twice:
                    raise Refused(ErrorCode.INVALID_REQUEST, "Duplicate topic name.")
                if too_many:
                    raise Refused(ErrorCode.POLICY_VIOLATION, TOO_MANY)
                results.append(self._create_topic(topic, validate_only=body.validate_only))
            except Refused as refused:
                results.append(TopicResult(name, refused.error, refused.message, NO_ID))
        return [Send(mail.sender, messages.TopicsCreated(body.request_id, results, self._decided_offset))]

    def _create_topic(
        self, topic: NewTopic, *, validate_only: bool = False, declared: bool = False
    ) -> TopicResult:
        partitions = decide_topic(
            topic, taken=self.state.topics_by_name, places=self._registered_places(), defaults=self._defaults,
            placed=self._placed())
        topic_id = self._new_id()
        if not validate_only:
            self._event(cluster_state.TopicCreated(topic_id, topic.name, partitions, topic.config, declared))
        return TopicResult(topic.name, ErrorCode.NONE, "", topic_id, len(partitions), len(partitions[0]))

    def _registered_places(self) -> list[Place]:
        return [place for place in self._places if place.broker_id in self.state.brokers]

    def _placed(self) -> int:
        """Partitions that the cluster has: the next one goes to the broker after the last one's."""
        return sum(len(topic.partitions) for topic in self.state.topics_by_name.values())

    def _create_partitions(self, mail: Mail) -> Effects:
        body: messages.CreatePartitions = mail.body
        results = []
        for more in body.topics:
            try:
                results.append(self._add_partitions(more, validate_only=body.validate_only))
            except Refused as refused:
                results.append(TopicResult(more.name, refused.error, refused.message, NO_ID))
        return [Send(mail.sender, messages.PartitionsCreated(body.request_id, results, self._decided_offset))]

    def _add_partitions(self, more: MorePartitions, *, validate_only: bool) -> TopicResult:
        topic = self.state.topics_by_name.get(more.name)
        if topic is None:
            raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "")
        replicas = [partition.replicas for partition in topic.partitions]
        added = decide_more_partitions(more, replicas, places=self._registered_places(), placed=self._placed())
        if not validate_only:
            self._event(cluster_state.PartitionsAdded(topic.topic_id, added))
        return TopicResult(more.name, ErrorCode.NONE, "", topic.topic_id, more.count, len(replicas[0]))

    def _alter_configs(self, mail: Mail) -> Effects:
        body: messages.AlterConfigs = mail.body
        outcomes: list[tuple[int, str]] = []
        for change in body.changes:
            try:
                event = decide_change(change, self.state, self._defaults)
            except Refused as refused:
                outcomes.append((refused.error, refused.message))
                continue
            outcomes.append((ErrorCode.NONE, ""))
            if event is not None and not body.validate_only:
                self._event(event)
        return [Send(mail.sender, messages.ConfigsAltered(body.request_id, outcomes, self._decided_offset))]

    def _delete_topics(self, mail: Mail) -> Effects:
        body: messages.DeleteTopics = mail.body
        twice = _twice(body.topics)
        results = [self._delete_topic(name, topic_id, named_twice=(name, topic_id) in twice)
                   for name, topic_id in dict.fromkeys(body.topics)]
        return [Send(mail.sender, messages.TopicsDeleted(body.request_id, results, self._decided_offset))]

    def _delete_topic(self, name: str, topic_id: bytes, *, named_twice: bool) -> TopicResult:
        if named_twice:
            what = "name" if name else "id"
            return TopicResult(name, ErrorCode.INVALID_REQUEST, f"Duplicate topic {what}.", topic_id)
        if name:
            known = self.state.topics_by_name.get(name)
            error, message = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic-partition."
        else:
            known = self.state.topics_by_id.get(topic_id)
            error, message = ErrorCode.UNKNOWN_TOPIC_ID, "This server does not host this topic ID."
        if known is None:
            return TopicResult(name, error, message, topic_id)
        self._event(cluster_state.TopicDeleted(known.topic_id))
        return TopicResult(known.name, ErrorCode.NONE, "", known.topic_id)

    # -- the topology's topics -----------------------------------------------------------------

    def _ensure_topology(self) -> None:
        """Make the cluster as the file says: its brokers, and once all of these are known, its topics."""
        state = self.state
        if not state.cluster_id:
            self._event(cluster_state.ClusterCreated(self._cluster_id or _id_text(self._new_id())))
        elif self._cluster_id not in ("", state.cluster_id):
            raise TopologyRefused(
                f"the coordinator's log is of cluster {state.cluster_id}, the data directory of {self._cluster_id}")
        for broker_id in sorted(state.brokers.keys() - {place.broker_id for place in self._places}):
            self._event(cluster_state.BrokerRemoved(broker_id))
        for change in outdated(self._defaults, state):
            self._event(change)
        places = self._registered_places()
        if len(places) < len(self._places):
            return
        self._topology_done = True
        for topic in self._topics:
            try:
                self._ensure_topic(topic, places)
            except (Refused, InvalidConfig) as refused:
                raise TopologyRefused(f"topology, topic {topic.name!r}: {refused}") from None

    def _ensure_topic(self, topic: NewTopic, places: Sequence[Place]) -> None:
        known = self.state.topics_by_name.get(topic.name)
        if known is None:
            self._create_topic(topic, declared=True)
            return
        count = len(known.partitions)
        if 0 < topic.partitions < count:
            raise TopologyRefused(
                f"topology, topic {topic.name!r}: it has {count} partitions, the file says {topic.partitions}; "
                f"partitions cannot be taken away: say {count} or more, or delete the topic first")
        if topic.partitions > count:
            factor = len(known.partitions[0].replicas)
            added = place_partitions(topic.partitions - count, factor, places=places, placed=self._placed())
            self._event(cluster_state.PartitionsAdded(known.topic_id, added))
        if topic.config != known.declared:  # what was altered since holds until the file says something new
            check_topic_config(topic.config)
            self._event(cluster_state.TopicConfigChanged(known.topic_id, topic.config, declared=True))


class CoordinatorRefused:
    """Stands where no coordinator can be, and says why."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def on_start(self, now: Now) -> Effects:
        return [Exit(COORDINATOR_DISK_FAULT, self._reason)]

    def on_mail(self, mail: Mail, now: Now) -> Effects:
        return []

    def on_turn_end(self, now: Now) -> Effects:
        return []


def build(
    start: CoordinatorStart, disk: Disk, now: Now, progress: Callable[[], None],
    new_id: Callable[[], bytes] = random_id,
) -> Actor:
    """Recover `__cluster-0` and replay it. There is no cluster without this log, so damage to it stops the tree.
    It has a marker of its own, for a root that dies before it can leave the one that refuses the next `up`.

    Raises DirectoryLocked if the predecessor does not let go.
    """
    directory = Path(start.data_dir) / "coordinator" / f"{cluster_state.TOPIC}-0"
    fault = read_marker(disk, directory)
    if fault:
        return CoordinatorRefused(fault)
    config = SEGMENT_BYTES | {key: value for key, value in start.defaults.items() if key in INTERNAL_KEYS} | CONFIG
    config["internal.snapshot.records"] = start.defaults.get(SNAPSHOT_RECORDS_KEY, SNAPSHOT_RECORDS)
    try:
        replica = open_replica(directory, cluster_state.TOPIC_ID, parse_config(config), disk, now, progress)
        return CoordinatorActor(
            start, replica, disk, new_id, progress=progress, recovered=read_recovered(disk, directory))
    except (BadBatch, CorruptLog, ForeignTopic) as damage:
        return CoordinatorRefused(str(damage))
    except FailedFlush as failed:
        give_up(disk, directory, str(failed))
        return CoordinatorRefused(str(failed))


def _id_text(random: bytes) -> str:
    """A cluster id in Kafka's form, which no command line takes for an option."""
    text = cluster_state.id_text(random)
    return "A" + text[1:] if text.startswith("-") else text


def _twice(names: Iterable[object]) -> set[object]:
    return {name for name, count in Counter(names).items() if count > 1}
