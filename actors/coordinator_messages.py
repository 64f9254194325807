"""What brokers and the coordinator say to each other; part of `messages.AnyMessage`.

Owns: names and fields, nothing else.
"""

from __future__ import annotations

from msgspec import Struct

from zafka.actors.message import Message


class Endpoint(Struct, array_like=True, frozen=True, gc=False):
    """A listener as clients are told. protocol: "kafka" or "zmq"."""

    name: str
    protocol: str
    host: str
    port: int


class RegisterBroker(Message, frozen=True, tag=40):
    """Broker to coordinator at each start of either. Answered with `BrokerRegistered`, after the event is committed."""

    broker_id: int
    incarnation: int
    rack: str
    endpoints: list[Endpoint]


class BrokerRegistered(Message, frozen=True, tag=41):
    cluster_id: str


class ReadCluster(Message, frozen=True, tag=42):
    """Broker to coordinator: committed batches of `__cluster` from this offset on; answered when there are some.

    The answer is `ClusterRecords`, or `ClusterSnapshot` where those are not in the log any more or were too many."""

    offset: int


class ClusterRecords(Message, frozen=True, tag=43):
    """`records`: whole committed batches. next_offset: where to read on. high_watermark: of `__cluster`."""

    next_offset: int
    high_watermark: int


class ClusterSnapshot(Message, frozen=True, tag=63):
    """`records`: the sections of the newest snapshot, `sizes` bytes each. The rest as in `ClusterRecords`."""

    next_offset: int
    high_watermark: int
    sizes: list[int]


class ClaimLeadership(Message, frozen=True, tag=44):
    """Broker to coordinator: these replicas are recovered and may lead. The committed event is the answer.

    claims: (topic id, partition, incarnation of the partition actor)."""

    claims: list[tuple[bytes, int, int]]


class NewTopic(Struct, array_like=True, frozen=True, gc=False):
    """partitions, replication_factor: -1 means the cluster's default. assignment: replicas of each partition, or empty."""

    name: str
    partitions: int
    replication_factor: int
    config: dict[str, str]
    assignment: list[list[int]] = []


class CreateTopics(Message, frozen=True, tag=45):
    request_id: int
    topics: list[NewTopic]
    validate_only: bool = False


class TopicResult(Struct, array_like=True, frozen=True, gc=False):
    """error: a Kafka error code. partitions and replication_factor as decided, -1 on error."""

    name: str
    error: int
    message: str
    topic_id: bytes
    partitions: int = -1
    replication_factor: int = -1


class TopicsCreated(Message, frozen=True, tag=46):
    request_id: int
    results: list[TopicResult]
    offset: int  # of `__cluster`: a broker that has applied up to here knows the topics


class DeleteTopics(Message, frozen=True, tag=47):
    """By name, or by id where the name is ""."""

    request_id: int
    topics: list[tuple[str, bytes]]


class TopicsDeleted(Message, frozen=True, tag=48):
    request_id: int
    results: list[TopicResult]
    offset: int


class AllocateProducerIds(Message, frozen=True, tag=49):
    request_id: int
    broker_id: int


class ProducerIdsAllocated(Message, frozen=True, tag=50):
    """A committed block: first, first + 1, ..., first + count - 1."""

    request_id: int
    first: int
    count: int


class ReportFault(Message, frozen=True, tag=51):
    """Broker to coordinator: this replica's disk failed a flush at `flushed_position`; commit that it is offline."""

    topic_id: bytes
    partition: int
    broker_id: int
    flushed_position: int
    reason: str


class DiskFault(Message, frozen=True, tag=52):
    """Partition to broker, last word before it exits: the flush failed after `flushed_position`."""

    topic_id: bytes
    partition: int
    flushed_position: int
    reason: str


class ReportRecovered(Message, frozen=True, tag=53):
    """Broker to coordinator: an operator recovered the log of this replica; commit that it may lead again."""

    topic_id: bytes
    partition: int
    broker_id: int
    recovery_id: str


class MorePartitions(Struct, array_like=True, frozen=True, gc=False):
    """count: partitions that the topic is to have in all. assignment: replicas of each new one, None to have them placed."""

    name: str
    count: int
    assignment: list[list[int]] | None = None


class CreatePartitions(Message, frozen=True, tag=54):
    request_id: int
    topics: list[MorePartitions]
    validate_only: bool = False


class PartitionsCreated(Message, frozen=True, tag=55):
    """results: with the number of partitions that each topic has from now on."""

    request_id: int
    results: list[TopicResult]
    offset: int


class ConfigOperation(Struct, array_like=True, frozen=True, gc=False):
    """kind: as IncrementalAlterConfigs numbers them (`actors/config_rules.py`). value: None only for DELETE."""

    kind: int
    key: str
    value: str | None


class ConfigChange(Struct, array_like=True, frozen=True, gc=False):
    """Of a topic, a broker (name "": of all) or a group; kind: the resource type, by Kafka's number.

    replace: begin with no overrides at all, instead of those that there are."""

    kind: int
    name: str
    operations: list[ConfigOperation]
    replace: bool = False


class AlterConfigs(Message, frozen=True, tag=56):
    request_id: int
    changes: list[ConfigChange]
    validate_only: bool = False


class ConfigsAltered(Message, frozen=True, tag=57):
    """outcomes: error code and message of each change, in order."""

    request_id: int
    outcomes: list[tuple[int, str]]
    offset: int


class QuotaChange(Struct, array_like=True, frozen=True, tag="quota"):
    """entity: (type, name) in the order of types. operations: a quota's key and value, None to take it away."""

    entity: tuple[tuple[str, str | None], ...]
    operations: list[tuple[str, float | None]]


class ScramChange(Struct, array_like=True, frozen=True, tag="scram"):
    """mechanism: Kafka's number. The rest is empty where the credential is to be deleted."""

    user: str
    mechanism: int
    deleted: bool
    salt: bytes = b""
    salted_password: bytes = b""
    iterations: int = 0


ClientChange = QuotaChange | ScramChange


class AlterClients(Message, frozen=True, tag=58):
    request_id: int
    changes: list[ClientChange]
    validate_only: bool = False


class ClientsAltered(Message, frozen=True, tag=59):
    """outcomes: error code and message of each change, in order."""

    request_id: int
    outcomes: list[tuple[int, str]]
    offset: int
