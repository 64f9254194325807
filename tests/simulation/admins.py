"""An admin that creates and deletes one topic again and again, under the same name, and writes into each.

Owns: `Admin`. A request that was answered holds, whatever dies afterwards; one that was not is sent again until it is
answered. Each creation is a topic of its own for the history: nothing of an older one may show in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.history import value_of
from tests.simulation.clients import BACKOFF_S, METADATA_VERSION, Client
from zafka.storage.batch import walk
from zafka.storage.records import decode_batch, encode_batch
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.create_topics import CreatableTopic, CreateTopicsRequest
from zafka.transport.kafka.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from zafka.transport.kafka.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from zafka.transport.kafka.messages.metadata import MetadataRequest, MetadataRequestTopic
from zafka.transport.kafka.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

TIMEOUT_MS = 2000
MISSING = (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.UNKNOWN_TOPIC_ID)


class Admin(Client):
    """topic: its own; rounds: how often it is created."""

    def __init__(self, simulation: Simulation, name: str, topic: str, rounds: int, pause_s: float) -> None:
        super().__init__(simulation, name)
        self.topic = topic
        self.rounds = rounds
        self.pause_s = pause_s
        self.round = 0
        self.exists: bool | None = False  # None: in doubt
        self._doubts = 0  # requests without an answer, which may still be obeyed

    def start(self) -> None:
        self.after(self.pause_s, self._create)

    def _again(self, step: Callable[[], None]) -> None:
        self.after(BACKOFF_S * (1 + self.random.random()), step)

    def _doubt(self, step: Callable[[], None]) -> None:
        self._doubts += 1
        self._again(step)

    @property
    def in_doubt(self) -> bool:
        return self._doubts > 0

    # -- one round -------------------------------------------------------------------------------

    def _create(self) -> None:
        if self.round >= self.rounds:
            self.done = True
            return
        self.exists = None
        topic = CreatableTopic(self.topic, 1, 1)
        self.ask(self.any_broker(), ApiKey.CREATE_TOPICS, 5, CreateTopicsRequest([topic], TIMEOUT_MS),
                 self._on_created, lambda: self._doubt(self._create))

    def _on_created(self, answer: Any) -> None:
        error = ErrorCode(answer.topics[0].error_code)
        if error is ErrorCode.TOPIC_ALREADY_EXISTS and not self._doubts:
            self.violate("admin", f"{self.topic} exists, though its deletion was answered")
        if error not in (ErrorCode.NONE, ErrorCode.TOPIC_ALREADY_EXISTS):
            self._doubts += error is ErrorCode.REQUEST_TIMED_OUT
            self._check_retriable(error)
            self._again(self._create)
            return
        self.exists = True
        self.engine.counts["topics created"] += 1
        self.round += 1
        self.history.begin_producer(f"{self.name}.{self.round}", once=False)
        self._produce(0)

    @property
    def label(self) -> str:
        return f"{self.topic}#{self.round}-0"

    def _produce(self, number: int) -> None:
        if number == 3:
            self._read()
            return
        broker_id = self.leader_of(self.topic, 0)
        self.on_leaders = lambda: self._produce(number)  # type: ignore[method-assign]
        if broker_id is None:
            return
        writer = f"{self.name}.{self.round}"
        value = value_of(writer, self.label, number)
        self.history.sent(writer, self.label, number)
        records = encode_batch([(self.engine.wall_ms(self.engine.now_s), None, value, ())])
        data = [TopicProduceData(name=self.topic, partition_data=[PartitionProduceData(0, memoryview(records))])]

        def on_answer(answer: Any) -> None:
            told = answer.responses[0].partition_responses[0]
            if told.error_code:
                self._check_retriable(ErrorCode(told.error_code))
                lost()
            else:
                self.history.acknowledged(writer, self.label, number, told.base_offset)
                self._produce(number + 1)

        def lost() -> None:
            self.leaders.clear()
            self._again(lambda: self._produce(number))

        self.ask(broker_id, ApiKey.PRODUCE, 9, ProduceRequest(None, -1, TIMEOUT_MS, data), on_answer, lost)

    def _read(self) -> None:
        """All of it is there, and nothing of an older topic."""
        broker_id = self.leader_of(self.topic, 0)
        self.on_leaders = self._read  # type: ignore[method-assign]
        if broker_id is None:
            return
        wanted = [FetchPartition(0, fetch_offset=0, partition_max_bytes=100_000)]
        request = FetchRequest(None, max_wait_ms=0, topics=[FetchTopic(topic=self.topic, partitions=wanted)])

        def on_answer(answer: Any) -> None:
            told = answer.responses[0].partitions[0]
            if told.error_code:
                self._check_retriable(ErrorCode(told.error_code))
                lost()
                return
            records = [
                (record.offset, record.value or b"") for at, header in walk(told.records or b"", check_crc=True)
                for record in decode_batch(told.records[at:], header)]
            if (records[-1][0] + 1 if records else 0) < told.high_watermark:
                lost()  # an answer may hold less than there is
                return
            self.history.full_read(self.label, records)
            self.after(self.pause_s * self.random.random(), self._delete)

        def lost() -> None:
            self.leaders.clear()
            self._again(self._read)

        self.ask(broker_id, ApiKey.FETCH, 12, request, on_answer, lost)

    def _delete(self) -> None:
        if self.round == self.rounds:
            self._describe()  # the last one stays
            return
        self.exists = None
        request = DeleteTopicsRequest([DeleteTopicState(self.topic)], [self.topic], TIMEOUT_MS)
        self.ask(self.any_broker(), ApiKey.DELETE_TOPICS, 5, request,
                 self._on_deleted, lambda: self._doubt(self._delete))

    def _on_deleted(self, answer: Any) -> None:
        error = ErrorCode(answer.responses[0].error_code)
        if error in MISSING and not self._doubts:
            self.violate("admin", f"{self.topic} is missing, though its creation was answered")
        if error is not ErrorCode.NONE and error not in MISSING:
            self._doubts += error is ErrorCode.REQUEST_TIMED_OUT
            self._check_retriable(error)
            self._again(self._delete)
            return
        self.exists = False
        self.leaders.clear()
        self.engine.counts["topics deleted"] += 1
        self._describe()

    def _describe(self) -> None:
        request = MetadataRequest([MetadataRequestTopic(name=self.topic)], allow_auto_topic_creation=False)
        self.ask(self.any_broker(), ApiKey.METADATA, METADATA_VERSION, request, self._on_described,
                 lambda: self._again(self._describe))

    def _on_described(self, answer: Any) -> None:
        """A broker may lag behind; what was answered by another is not yet known to it."""
        found = not answer.topics[0].error_code
        if found != self.exists and len(self.simulation.broker_ids) == 1 and not self._doubts:
            self.violate("admin", f"{self.topic}: exists={found} where {self.exists} was answered")
        self.after(self.pause_s * self.random.random(), self._create)

    def _check_retriable(self, error: ErrorCode) -> None:
        if not error.is_retriable and error is not ErrorCode.INVALID_REPLICATION_FACTOR:
            self.violate("refused", error.name)


class Describer(Client):
    """Asks at the end whether an admin's topic is there, as was answered last."""

    def __init__(self, simulation: Simulation, name: str, admin: Admin) -> None:
        super().__init__(simulation, name)
        self.admin = admin

    def start(self) -> None:
        request = MetadataRequest([MetadataRequestTopic(name=self.admin.topic)], allow_auto_topic_creation=False)
        self.ask(self.any_broker(), ApiKey.METADATA, METADATA_VERSION, request, self._on_described,
                 self._again)

    def _again(self) -> None:
        self.after(BACKOFF_S, self.start)

    def _on_described(self, answer: Any) -> None:
        """A broker that has just begun serves what it has read so far; it is asked until it has read all."""
        found = not answer.topics[0].error_code
        admin = self.admin
        if admin.exists is None or admin.in_doubt or found == admin.exists:
            self.done = True
        else:
            self._again()
