"""The messages that actors send each other, as msgspec structs in one tagged union.

Owns: names and fields, nothing else; those between brokers and the coordinator are in `coordinator_messages.py`.
Every struct is `array_like`: on the wire it is a msgpack array `[tag, field, ...]`, so fields are only ever added at the
end, with a default.
Record bytes never stand in a struct: they travel in the frame beside it (`Mail.records`).
Names of actors, as in `zafka status`: "supervisor", "coordinator", "broker 1", "partition orders-0".
"""

# ruff: noqa: PLC0414 -- what others define is told from here, too

from __future__ import annotations

from msgspec import Struct, field

from zafka.actors.cleaner_messages import CleanerMessage
from zafka.actors.coordinator_messages import (
    AllocateProducerIds as AllocateProducerIds,
    AlterClients as AlterClients,
    AlterConfigs as AlterConfigs,
    BrokerRegistered as BrokerRegistered,
    ClaimLeadership as ClaimLeadership,
    ClientChange as ClientChange,
    ClientsAltered as ClientsAltered,
    ClusterRecords as ClusterRecords,
    ClusterSnapshot as ClusterSnapshot,
    ConfigChange as ConfigChange,
    ConfigOperation as ConfigOperation,
    ConfigsAltered as ConfigsAltered,
    CreatePartitions as CreatePartitions,
    CreateTopics as CreateTopics,
    DeleteTopics as DeleteTopics,
    DiskFault as DiskFault,
    Endpoint as Endpoint,
    MorePartitions as MorePartitions,
    NewTopic as NewTopic,
    PartitionsCreated as PartitionsCreated,
    ProducerIdsAllocated as ProducerIdsAllocated,
    QuotaChange as QuotaChange,
    ReadCluster as ReadCluster,
    RegisterBroker as RegisterBroker,
    ReportFault as ReportFault,
    ReportRecovered as ReportRecovered,
    ScramChange as ScramChange,
    TopicResult as TopicResult,
    TopicsCreated as TopicsCreated,
    TopicsDeleted as TopicsDeleted,
)
from zafka.actors.message import Message as Message
from zafka.storage.location import NEVER_HOT

# -- any actor <-> supervisor --------------------------------------------------------------------


class Started(Message, frozen=True, tag=1):
    """The process runs and its inbox is bound; recovery may still take long."""

    pid: int


class Ready(Message, frozen=True, tag=2):
    """Recovery is done and the actor does its work."""


class Heartbeat(Message, frozen=True, tag=3):
    """Sent every heartbeat interval, and between steps of a long recovery (`state` "recovering")."""

    state: str
    mailbox: int = 0


class Shutdown(Message, frozen=True, tag=4):
    """Supervisor to actor: finish (flush, answer), then exit 0."""


class ActorUp(Message, frozen=True, tag=5):
    """Supervisor to actor: this incarnation of an actor listens at `endpoint` ("" if it has no inbox)."""

    name: str
    incarnation: int
    endpoint: str


class ActorDown(Message, frozen=True, tag=6):
    """Supervisor to actor: this incarnation is confirmed dead. All it held is free, all it owed is lost."""

    name: str
    incarnation: int


class StartPartition(Message, frozen=True, tag=7):
    """Broker to its supervisor: run this replica (OTP `start_child`); a second request for it changes nothing."""

    topic: str
    partition: int
    topic_id: bytes
    config: dict[str, str]


class StopPartition(Message, frozen=True, tag=8):
    """Broker to its supervisor: stop and forget this replica (`terminate_child`, `delete_child`)."""

    topic: str
    partition: int


class PartitionStopped(Message, frozen=True, tag=9):
    """Supervisor to broker: the replica's process is confirmed dead and will not be restarted."""

    topic: str
    partition: int


class WhichChildren(Message, frozen=True, tag=10):
    """Broker to supervisor after a (re)start: answer with `ActorUp` for each running replica, then `ChildrenTold`."""


class ChildrenTold(Message, frozen=True, tag=11):
    """All running replicas were told; every later change comes as `ActorUp` or `ActorDown`.

    wanted: (topic, partition) of every replica under supervision, running or not. stopping: of those that are on their
    way out, as was asked before; `PartitionStopped` follows."""

    wanted: list[tuple[str, int]]
    stopping: list[tuple[str, int]] = []  # noqa: RUF012 -- a struct's, which copies it


class Exiting(Message, frozen=True, tag=12):
    """Actor to supervisor, its last word: why its process ends now."""

    code: int
    reason: str


# -- partition <-> broker ------------------------------------------------------------------------


class ReplicaUp(Message, frozen=True, tag=20):
    """Partition to broker, first thing on a new link: recovered, and waiting for an epoch or leading already.

    leader_epoch: the epoch in which this incarnation leads, or -1 if it has not been made leader yet.
    fault: "" or why the replica is offline (the disk failed a flush).
    recovered: "" or the id of the last time that an operator recovered this log by hand."""

    topic: str
    partition: int
    topic_id: bytes
    leader_epoch: int
    fault: str = ""
    recovered: str = ""


class BecomeLeader(Message, frozen=True, tag=21):
    """Broker to partition: lead in this committed epoch. Answered with `Serving`; repeated ones too."""

    leader_epoch: int
    config: dict[str, str]


class Serving(Message, frozen=True, tag=22):
    """Partition to broker: requests are served from now on. Followed by `Advanced`."""

    leader_epoch: int


class ConfigChanged(Message, frozen=True, tag=23):
    """Broker to partition: the whole effective topic configuration, Kafka's keys."""

    config: dict[str, str]


class ProduceItem(Struct, array_like=True, frozen=True, gc=False):
    request_id: int
    acks: int
    size: int


class Produce(Message, frozen=True, tag=24):
    """Broker to partition: append one batch for each item. `records` is the batches one behind the other,
    `size` bytes each."""

    items: list[ProduceItem]


class ProduceAnswer(Struct, array_like=True, frozen=True, gc=False):
    """base_offset and log_append_time_ms are -1 if there is an error or (the time) CreateTime is used.
    record_errors: index in the batch and message of each record that was the reason."""

    request_id: int
    error: int
    base_offset: int
    log_append_time_ms: int
    log_start_offset: int
    message: str = ""
    record_errors: list[tuple[int, str]] = []


class Advanced(Message, frozen=True, tag=26):
    """Partition to broker, once per commit: what readers may see.

    end_position: position in bytes of `high_watermark` in the segment `segment_base_offset`."""

    leader_epoch: int
    log_start_offset: int
    high_watermark: int
    last_stable_offset: int
    segment_base_offset: int
    inode: int
    end_position: int


class Produced(Message, frozen=True, tag=25):
    """Partition to broker: answers, and what their commit let readers see. In one message, because two would wake the
    broker twice; the broker takes `advanced` first, so that readers know of a batch before its producer does."""

    answers: list[ProduceAnswer]
    advanced: Advanced | None = None


class Locate(Message, frozen=True, tag=27):
    """Broker to partition: where do the batches from `offset` on lie? max_bytes is a wish, at least one batch is told.

    last_fetched_epoch: -1, or the leader epoch of the record before `offset` in the reader's copy (KIP-595)."""

    request_id: int
    offset: int
    max_bytes: int
    current_leader_epoch: int
    isolation_level: int
    last_fetched_epoch: int = -1


class Located(Message, frozen=True, tag=28):
    """position, length: bytes in segment `segment_base_offset` that hold whole batches from the one with `offset`
    on, at most up to the high watermark (LSO at read_committed). length 0: nothing there yet. hot_position:
    where the bytes of this segment begin that the partition's process wrote (`storage/location.py`). diverging_epoch,
    diverging_end_offset: -1, or where the reader's log and this one part, because `last_fetched_epoch` ended before
    `offset`; then there is nothing else to tell."""

    request_id: int
    error: int
    segment_base_offset: int
    inode: int
    position: int
    length: int
    high_watermark: int
    last_stable_offset: int
    log_start_offset: int
    hot_position: int = NEVER_HOT
    diverging_epoch: int = -1
    diverging_end_offset: int = -1


class ListOffset(Message, frozen=True, tag=29):
    """timestamp_ms: Kafka's, of which the negative ones have names (`actors/partition_reads.py`), else the first at or
    after."""

    request_id: int
    timestamp_ms: int
    current_leader_epoch: int
    isolation_level: int


class OffsetListed(Message, frozen=True, tag=30):
    request_id: int
    error: int
    timestamp_ms: int
    offset: int
    leader_epoch: int


class FindEpochEnd(Message, frozen=True, tag=31):
    """Broker to partition: where did this leader epoch end?"""

    request_id: int
    leader_epoch: int
    current_leader_epoch: int


class EpochEnd(Message, frozen=True, tag=32):
    """leader_epoch: the largest that the log knows up to the one that was asked for; -1, -1 if there is none."""

    request_id: int
    error: int
    leader_epoch: int
    end_offset: int


class DeleteRecords(Message, frozen=True, tag=34):
    """Broker to partition: begin the log at this offset; -1: at the high watermark. Answered once that is on disk."""

    request_id: int
    offset: int


class RecordsDeleted(Message, frozen=True, tag=35):
    """log_start_offset: as it is now; -1 on error."""

    request_id: int
    error: int
    log_start_offset: int


class DescribeProducers(Message, frozen=True, tag=36):
    request_id: int


class ProducersDescribed(Message, frozen=True, tag=37):
    """producers: (id, epoch, last sequence, timestamp in ms of the last batch, coordinator epoch, first offset of the
    open transaction) of each that the log remembers; -1 where there is none."""

    request_id: int
    error: int
    producers: list[tuple[int, int, int, int, int, int]]


class DescribeLog(Message, frozen=True, tag=38):
    request_id: int


class LogDescribed(Message, frozen=True, tag=39):
    """size_bytes: of all segments that are part of the log. offset_lag: from the high watermark to its end."""

    request_id: int
    error: int
    size_bytes: int
    offset_lag: int


# -- group coordinator <-> broker ----------------------------------------------------------------


class GroupCall(Struct, array_like=True, frozen=True, gc=False):
    """client_host: as Kafka shows it, "/127.0.0.1". size: of the request's body."""

    request_id: int
    api_key: int
    version: int
    client_id: str
    client_host: str
    size: int


class GroupRequests(Message, frozen=True, tag=60):
    """Broker to the leader of a partition of `__consumer_offsets`: requests of clients, as Kafka encodes them.
    `records` is their bodies one behind the other, `size` bytes each."""

    calls: list[GroupCall]


class GroupAnswer(Struct, array_like=True, frozen=True, gc=False):
    """error: 0, or why there is no answer: the broker makes one of this error. size: of the answer's body."""

    request_id: int
    error: int
    size: int


class GroupAnswers(Message, frozen=True, tag=61):
    """As `Produced`; `records` is the bodies, as Kafka encodes them in the version of each request."""

    answers: list[GroupAnswer]
    advanced: Advanced | None = None


class TopicsTold(Message, frozen=True, tag=62):
    """Broker to the same: all topics of the cluster, by name with id and number of partitions. Told after `Serving`, and
    again whenever they change, before any request that rests on the change. configs: what was altered of each group, by
    Kafka's keys of groups; of "": of all."""

    topics: list[tuple[str, bytes, int]]
    configs: dict[str, dict[str, str]] = field(default_factory=dict)


AnyMessage = (
    Started | Ready | Heartbeat | Shutdown | ActorUp | ActorDown | StartPartition | StopPartition | PartitionStopped
    | WhichChildren | ChildrenTold | Exiting | ReplicaUp | BecomeLeader | Serving | ConfigChanged | Produce
    | Produced | Advanced | Locate | Located | ListOffset | OffsetListed | FindEpochEnd | EpochEnd | RegisterBroker
    | BrokerRegistered | ReadCluster | ClusterRecords | ClusterSnapshot | ClaimLeadership | CreateTopics | TopicsCreated
    | DeleteTopics | TopicsDeleted | AllocateProducerIds | ProducerIdsAllocated | ReportFault | DiskFault
    | ReportRecovered | CreatePartitions | PartitionsCreated | DeleteRecords | RecordsDeleted | DescribeProducers
    | ProducersDescribed | DescribeLog | LogDescribed | AlterConfigs | ConfigsAltered | AlterClients
    | ClientsAltered | GroupRequests | GroupAnswers | TopicsTold | CleanerMessage
)  # fmt: skip
