"""The cluster's truth: what may happen (events) and what holds once it has happened (`ClusterState`).

Owns: the events, their JSON on `__cluster` (one event per record value), and `ClusterState.apply`.
The coordinator and every broker run this same class over the same log, so equal offsets mean equal states.
Pure: no clock, no disk, no messages. An event is a decided fact: `apply` never refuses one, and what speaks of
a topic that is gone by then is passed over.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
from msgspec import Struct

from zafka.actors.messages import Endpoint
from zafka.storage.batch import walk
from zafka.storage.records import decode_batch

Key = TypeVar("Key")
Value = TypeVar("Value")

NO_LEADER = -1
NO_EPOCH = -1
TOPIC = "__cluster"
TOPIC_ID = (1).to_bytes(16, "big")  # Kafka reserves the same one for its own metadata topic


class Event(Struct, frozen=True, tag=True, tag_field="event"):
    """Root of all events. Fields are only ever added, with a default: old logs stay readable."""


class ClusterCreated(Event, frozen=True):
    cluster_id: str


class BrokerRegistered(Event, frozen=True):
    """A broker process (re)started and can be reached at these addresses."""

    broker_id: int
    incarnation: int
    rack: str
    endpoints: list[Endpoint]


class BrokerRemoved(Event, frozen=True):
    """The broker is no longer in the topology. What it led has no leader."""

    broker_id: int


class TopicCreated(Event, frozen=True):
    """partitions: the broker ids that hold each partition. config: overrides only, Kafka's keys.

    declared: by the topology file."""

    topic_id: bytes
    name: str
    partitions: list[list[int]]
    config: dict[str, str] = {}
    declared: bool = False


class TopicDeleted(Event, frozen=True):
    topic_id: bytes


class PartitionsAdded(Event, frozen=True):
    """Replicas of each further partition, numbered on from the last one."""

    topic_id: bytes
    partitions: list[list[int]]


class TopicConfigChanged(Event, frozen=True):
    """config: all overrides of the topic from now on. declared: by the topology file, which says something new."""

    topic_id: bytes
    config: dict[str, str]
    declared: bool = False


class ResourceConfigChanged(Event, frozen=True):
    """config: all that was altered of a broker (name "": of all) or a group from now on, by Kafka's keys; none if empty.

    kind: the resource type, by Kafka's number. declared: what the topology file said of these keys, where it said something."""

    kind: int
    name: str
    config: dict[str, str]
    declared: dict[str, str] = {}


class LeaderChanged(Event, frozen=True):
    """leader_epoch: one more than the last of this partition. incarnation: of the partition actor that leads."""

    topic_id: bytes
    partition: int
    leader: int
    leader_epoch: int
    partition_epoch: int
    isr: list[int]
    incarnation: int


class ProducerIdsAllocated(Event, frozen=True):
    """first, first + 1, ..., first + count - 1 are given away."""

    first: int
    count: int


class ReplicaFaulted(Event, frozen=True):
    """This replica's disk failed a flush after `flushed_position`, or lost what it had: it is offline."""

    topic_id: bytes
    partition: int
    broker_id: int
    flushed_position: int
    reason: str


class ReplicaRecovered(Event, frozen=True):
    """An operator looked at this replica and recovered its log (`zafka log recover`): its fault is over.

    recovery_id: each is told once; who comes with one that is known already has nothing new to say."""

    topic_id: bytes
    partition: int
    broker_id: int
    recovery_id: str


class ClusterLogRecovered(Event, frozen=True):
    """An operator recovered `__cluster` itself, and gave up `lost` of its offsets.

    What stood there is unknown, so everything that must only grow goes on behind whatever it can have been: each lost
    event may have begun an epoch of any partition, or given away a block of producer ids."""

    recovery_id: str
    lost: int
    producer_ids_skipped: int


Entity = tuple[tuple[str, str | None], ...]
"""Whose quotas these are: (type, name) in the order of types; the name None stands for all that have none of their own."""


class QuotaChanged(Event, frozen=True):
    """quotas: all of this entity from now on, by Kafka's keys; none if empty."""

    entity: Entity
    quotas: dict[str, float]


class ScramCredential(Struct, frozen=True):
    """What a server needs to check a password, and from which no password follows (RFC 5802)."""

    salt: bytes
    stored_key: bytes
    server_key: bytes
    iterations: int


class ScramCredentialChanged(Event, frozen=True):
    """mechanism: Kafka's number. credential: None if it is gone."""

    user: str
    mechanism: int
    credential: ScramCredential | None


AnyEvent = (
    ClusterCreated | BrokerRegistered | BrokerRemoved | TopicCreated | TopicDeleted | PartitionsAdded
    | TopicConfigChanged | LeaderChanged | ProducerIdsAllocated | ReplicaFaulted | ReplicaRecovered
    | ClusterLogRecovered | QuotaChanged | ScramCredentialChanged | ResourceConfigChanged
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)


def encode_event(event: AnyEvent) -> bytes:
    return _encoder.encode(event)


def decode_event(value: bytes) -> AnyEvent:
    """Raises msgspec.DecodeError for what is no event, msgspec.ValidationError (one of them) for an event of a later
    version: it cannot be passed over safely."""
    try:
        return _decoder.decode(value)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(f"no event: {error}") from None


def events_in(records: memoryview) -> Iterator[tuple[int, AnyEvent]]:
    """(offset, event) for each record of whole batches, as `ClusterRecords` carries them.

    Raises BadBatch if a batch is damaged, msgspec.DecodeError if a value is not an event.
    """
    for position, header in walk(records, check_crc=True):
        for record in decode_batch(records[position:], header):
            yield record.offset, decode_event(record.value or b"")


def id_text(topic_id: bytes) -> str:
    """A 16-byte id as Kafka prints it: URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(topic_id).rstrip(b"=").decode()


@dataclass(slots=True)
class BrokerState:
    broker_id: int
    incarnation: int
    rack: str
    endpoints: list[Endpoint]


@dataclass(slots=True)
class PartitionState:
    replicas: list[int]
    leader: int = NO_LEADER
    leader_epoch: int = NO_EPOCH  # strictly increases; at most one leader in each
    partition_epoch: int = 0  # increases with every change of leader, isr or faults
    isr: list[int] = field(default_factory=list)
    incarnation: int = -1  # of the partition actor that leads in `leader_epoch`
    faults: dict[int, str] = field(default_factory=dict)  # broker id -> why its replica is offline
    recoveries: list[str] = field(default_factory=list)  # by hand: ids of all of them


@dataclass(slots=True)
class TopicState:
    """config: overrides that hold. declared: those that the topology file said last, None if it never named the topic."""

    topic_id: bytes
    name: str
    config: dict[str, str]
    partitions: list[PartitionState]
    declared: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class AlteredConfig:
    """Of a broker or group; as `ResourceConfigChanged`."""

    config: dict[str, str]
    declared: dict[str, str]


class ClusterState:
    """What holds after a prefix of `__cluster`. Changed by `apply` and `become` alone."""

    def __init__(self) -> None:
        self.cluster_id = ""
        self.brokers: dict[int, BrokerState] = {}
        self.topics_by_name: dict[str, TopicState] = {}
        self.topics_by_id: dict[bytes, TopicState] = {}
        self.deleted: set[bytes] = set()  # ids of all topics that there were
        self.next_producer_id = 0
        self.recoveries: list[str] = []  # of `__cluster` itself, by hand
        self.quotas: dict[Entity, dict[str, float]] = {}
        self.credentials: dict[tuple[str, int], ScramCredential] = {}  # by user and mechanism
        self.altered: dict[tuple[int, str], AlteredConfig] = {}  # by kind and name; none is empty

    def __repr__(self) -> str:
        return f"<ClusterState {self.cluster_id} brokers={len(self.brokers)} topics={len(self.topics_by_name)}>"

    def ever_had(self, topic_id: bytes) -> bool:
        return topic_id in self.topics_by_id or topic_id in self.deleted

    def partition(self, topic_id: bytes, partition: int) -> PartitionState | None:
        topic = self.topics_by_id.get(topic_id)
        if topic is None or not 0 <= partition < len(topic.partitions):
            return None
        return topic.partitions[partition]

    def altered_of(self, kind: int, name: str) -> dict[str, str]:
        """What was altered of a broker (name "": of all) or a group."""
        known = self.altered.get((kind, name))
        return known.config if known else {}

    def become(self, other: ClusterState) -> None:
        """Hold what `other` holds, which is given up: a snapshot of the log further on."""
        vars(self).update(vars(other))

    def apply(self, event: AnyEvent) -> None:
        match event:
            case ClusterCreated():
                self.cluster_id = event.cluster_id
            case BrokerRegistered():
                self.brokers[event.broker_id] = BrokerState(
                    event.broker_id, event.incarnation, event.rack, event.endpoints)
            case BrokerRemoved():
                self._remove_broker(event.broker_id)
            case ProducerIdsAllocated():
                self.next_producer_id = event.first + event.count
            case LeaderChanged():
                self._change_leader(event)
            case ReplicaFaulted():
                self._fault_replica(event)
            case ReplicaRecovered():
                self._recover_replica(event)
            case ClusterLogRecovered():
                self._recover_log(event)
            case QuotaChanged():
                _put(self.quotas, event.entity, event.quotas)
            case ScramCredentialChanged():
                _put(self.credentials, (event.user, event.mechanism), event.credential)
            case ResourceConfigChanged():
                _put(
                    self.altered, (event.kind, event.name),
                    AlteredConfig(event.config, event.declared) if event.config else None)
            case _:
                self._apply_to_topic(event)

    def _apply_to_topic(
        self, event: TopicCreated | TopicDeleted | PartitionsAdded | TopicConfigChanged
    ) -> None:
        if isinstance(event, TopicCreated):
            topic = TopicState(
                event.topic_id, event.name, event.config, [PartitionState(ids) for ids in event.partitions],
                declared=event.config if event.declared else None)
            self.topics_by_name[event.name] = self.topics_by_id[event.topic_id] = topic
            return
        known = self.topics_by_id.get(event.topic_id)
        if known is None:
            return
        match event:
            case TopicDeleted():
                del self.topics_by_id[event.topic_id]
                self.deleted.add(event.topic_id)
                del self.topics_by_name[known.name]
            case PartitionsAdded():
                known.partitions.extend(PartitionState(ids) for ids in event.partitions)
            case TopicConfigChanged():
                known.config = event.config
                known.declared = event.config if event.declared else known.declared

    def _change_leader(self, event: LeaderChanged) -> None:
        partition = self.partition(event.topic_id, event.partition)
        if partition is None:
            return
        partition.leader = event.leader
        partition.leader_epoch = event.leader_epoch
        partition.partition_epoch = event.partition_epoch
        partition.isr = event.isr
        partition.incarnation = event.incarnation

    def _fault_replica(self, event: ReplicaFaulted) -> None:
        partition = self.partition(event.topic_id, event.partition)
        if partition is None:
            return
        partition.faults[event.broker_id] = event.reason
        partition.partition_epoch += 1
        if partition.leader == event.broker_id:
            # Its isr stays: only a member of it may lead next, or acknowledged records would be lost.
            partition.leader = NO_LEADER

    def _recover_replica(self, event: ReplicaRecovered) -> None:
        partition = self.partition(event.topic_id, event.partition)
        if partition is not None:
            partition.faults.pop(event.broker_id, None)
            partition.recoveries.append(event.recovery_id)
            partition.partition_epoch += 1

    def _recover_log(self, event: ClusterLogRecovered) -> None:
        self.recoveries.append(event.recovery_id)
        self.next_producer_id += event.producer_ids_skipped
        for topic in self.topics_by_id.values():
            for partition in topic.partitions:
                partition.leader = NO_LEADER
                partition.leader_epoch += event.lost
                partition.partition_epoch += event.lost + 1

    def _remove_broker(self, broker_id: int) -> None:
        self.brokers.pop(broker_id, None)
        for topic in self.topics_by_id.values():
            for partition in topic.partitions:
                if partition.leader == broker_id:
                    partition.leader = NO_LEADER
                    partition.partition_epoch += 1


def _put(known: dict[Key, Value], key: Key, value: Value | None) -> None:
    """None and what is empty are not kept."""
    if value:
        known[key] = value
    else:
        known.pop(key, None)
