"""What a case is: requests that go to both brokers one after the other, each at every version that both serve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.differential.sides import Of, Side, saved, topic_id
from zafka.storage.records import encode_batch
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey

T = 1_700_000_000_000  # the time of the first record
FOREVER = 2**31 - 1


@dataclass(frozen=True)
class Call:
    """A request. version: None is the version that the case runs at. save: (name, field of the answer) to keep of it.

    is_answered: False where no answer is right. until: asked until this is its only error code, not compared.
    on: a connection by name. waits: its answer is for a `Late` on the same connection.
    is_known_later: Kafka's broker may not know of it yet when it has answered the change.
    """

    body: Any
    version: int | None = None
    save: tuple[str, str] | None = None
    is_answered: bool = True
    until: int | None = None
    on: str = ""
    waits: bool = False
    is_known_later: bool = False

    @property
    def key(self) -> ApiKey:
        """The module of a message is named after its API."""
        return ApiKey[type(self.body).__module__.rpartition(".")[2].upper()]


@dataclass(frozen=True)
class Late:
    """The answer to the request that waits on this connection."""

    on: str
    save: tuple[str, str] | None = None


@dataclass(frozen=True)
class Bytes:
    """A request that no client would send: a body as it is, under a key and version that need not exist."""

    title: str
    key: int
    body: bytes
    version: int


@dataclass(frozen=True)
class Case:
    """calls: the first one without a version of its own says which API the case is of. versions: not all of them."""

    title: str
    calls: tuple[Call | Late, ...]
    versions: range = range(100)

    @property
    def key(self) -> ApiKey:
        return next(call.key for call in self.calls if isinstance(call, Call) and call.version is None)


def case(title: str, *calls: Any, versions: range = range(100)) -> Case:
    """Structs alone are calls at the version of the case."""
    return Case(title, tuple(call if isinstance(call, Call | Late) else Call(call) for call in calls), versions)


# -- batches -------------------------------------------------------------------------------------------------


def records(count: int = 3, *, first_ms: int = T, step_ms: int = 1000) -> list[Any]:
    return [(first_ms + number * step_ms, b"k%d" % number, b"v%d" % number * 10, [("h", b"x")]) for number in range(count)]


def batch(count: int = 3, *, first_ms: int = T, step_ms: int = 1000, **options: Any) -> memoryview:
    return memoryview(encode_batch(records(count, first_ms=first_ms, step_ms=step_ms), **options))


def own_batch(producer: str, *, sequence: int, epoch: int = 0, count: int = 3, **options: Any) -> Of:
    """A batch of an idempotent producer whose id this side has given."""

    def make(side: Side) -> memoryview:
        return batch(count, producer_id=side.saved[producer], producer_epoch=epoch, base_sequence=sequence, **options)

    return Of(make)


def new_producer(name: str = "pid") -> Call:
    return Call(kafka.InitProducerIdRequest(None, 60_000), version=4, save=(name, "producer_id"))


# -- requests that many cases make --------------------------------------------------------------------------------


def produce(topic: str, data: Any, *, partition: int = 0, acks: int = -1, transactional_id: str | None = None) -> Any:
    return kafka.ProduceRequest(transactional_id, acks, 30_000, [kafka.TopicProduceData(
        topic_id(topic), topic, [kafka.PartitionProduceData(partition, data)])])


def fetch(topic: str, *partitions: Any, **options: Any) -> Any:
    return fetch_all(kafka.FetchTopic(topic_id(topic), topic, list(partitions)), **options)


def fetch_all(*topics: Any, max_wait_ms: int = 0, min_bytes: int = 0, **options: Any) -> Any:
    return kafka.FetchRequest(max_wait_ms=max_wait_ms, min_bytes=min_bytes, topics=list(topics), **options)


def part(partition: int, offset: int = 0, *, max_bytes: int = 1_000_000, **options: Any) -> Any:
    return kafka.FetchPartition(partition, fetch_offset=offset, partition_max_bytes=max_bytes, **options)


def list_offsets(topic: str, *timestamps: int, partition: int = 0, **options: Any) -> Any:
    """One partition, asked as often as there are timestamps."""
    return kafka.ListOffsetsRequest(-1, 0, [kafka.ListOffsetsTopic(topic, [
        kafka.ListOffsetsPartition(partition, timestamp=timestamp, **options)]) for timestamp in timestamps])


def create(*topics: Any, validate_only: bool = False) -> Any:
    return kafka.CreateTopicsRequest(list(topics), 30_000, validate_only)


def topic(name: str, partitions: int = 1, replicas: int = 1, **config: str | None) -> Any:
    return kafka.CreatableTopic(name, partitions, replicas, [], [
        kafka.CreatableTopicConfig(key.replace("_", "."), value) for key, value in config.items()])


def metadata(*names: str | None, **options: Any) -> Any:
    options.setdefault("allow_auto_topic_creation", False)
    return kafka.MetadataRequest([kafka.MetadataRequestTopic(name=name) for name in names], **options)


__all__ = [
    "FOREVER", "Bytes", "Call", "Case", "Late", "T", "batch", "case", "create", "fetch", "fetch_all", "list_offsets", "metadata",
    "new_producer", "own_batch", "part", "produce", "records", "saved", "topic", "topic_id",
]  # fmt: skip
