"""Produce: batches go to their partitions as they came, and are answered when those have them on disk.

Versions 3-13. 0-2 are advertised, because older librdkafka sends no compressed batches where they are missing
(KAFKA-18659), and refused by closing the connection, as Kafka 4 does. From 10 on, who asks the wrong broker is told the
right one (KIP-951); 12 lets transactional producers leave out AddPartitionsToTxn (KIP-890), which concerns nobody as
long as they are refused; 13 names topics by id (KIP-516).
Source: KafkaApis.handleProduceRequest; ProduceRequest.validateRecords; KIP-467 (record errors).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.leaders import TopicKey, leader_of, name_of, nodes
from zafka.actors.gateway.routes import Route
from zafka.actors.messages import ProduceAnswer
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.produce import (
    BatchIndexAndErrorMessage,
    LeaderIdAndEpoch,
    NodeEndpoint,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceResponse,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.PRODUCE
VERSIONS = range(3, 14)
ADVERTISED = range(14)

CURRENT_LEADER_SINCE = 10
TOPIC_IDS_SINCE = 13

# After these Kafka says no log start offset: the batch did not get as far as the log (ReplicaManager.appendToLocalLog).
START_UNTOLD = frozenset((
    ErrorCode.CORRUPT_MESSAGE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.RECORD_LIST_TOO_LARGE, ErrorCode.INVALID_RECORD,
    ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT, ErrorCode.KAFKA_STORAGE_ERROR))
# A timeout of 0 has other replicas have no time; the leader's own write may take its time all the same.
OWN_WRITE_S = 30.0

ATTRIBUTES = 22  # position of their low byte in a record batch
CODEC_MASK = 0x07
ZSTD = 4
ZSTD_SINCE = 7  # KIP-110


class Batch:
    """One batch of a request at its partition."""

    __slots__ = ("done", "pending", "records", "response", "size", "topic")

    def __init__(self, pending: Pending, topic: TopicKey, response: PartitionProduceResponse, records: memoryview) -> None:
        self.pending = pending
        self.topic = topic
        self.response = response
        self.records = records
        self.size = len(records)
        self.done = False

    def on_answer(self, answer: ProduceAnswer) -> None:
        if self.done:
            return
        response = self.response
        response.error_code = answer.error
        response.base_offset = answer.base_offset
        response.log_append_time_ms = answer.log_append_time_ms
        if answer.error not in START_UNTOLD or answer.record_errors:
            response.log_start_offset = answer.log_start_offset
        response.error_message = answer.message or None
        response.record_errors = [BatchIndexAndErrorMessage(*each) for each in answer.record_errors]
        if answer.error:
            self._note(answer.error)
        self.done = True
        self.pending.on_batch_done()

    def on_lost(self, *, handed_over: bool) -> None:
        # What was handed over is perhaps written; NOT_LEADER_OR_FOLLOWER would say that it is not.
        self.fail(ErrorCode.REQUEST_TIMED_OUT if handed_over else ErrorCode.NOT_LEADER_OR_FOLLOWER)

    def fail(self, error: ErrorCode) -> None:
        if not self.done:
            self.response.error_code = error
            self._note(error)
            self.done = True
            self.pending.on_batch_done()

    def _note(self, error: int) -> None:
        if error == ErrorCode.NOT_LEADER_OR_FOLLOWER:
            self.pending.misled.append((self.topic, self.response))
        if ErrorCode(error).is_retriable:
            gateway = self.pending.gateway
            gateway.sequence_gaps.turned_away(self.topic, self.response.index, self.records, gateway.now.monotonic_s)


class Pending:
    """A request until all its batches are answered, or its time is up.

    misled: topic and answer of what has to go to another broker, or to this one a little later."""

    __slots__ = ("acks", "batches", "bucket", "exchange", "gateway", "misled", "missing", "response")

    def __init__(self, gateway: Gateway, exchange: Exchange, acks: int) -> None:
        self.gateway = gateway
        self.exchange = exchange
        self.acks = acks
        self.response = ProduceResponse([])
        self.batches: list[Batch] = []  # those at a partition
        self.misled: list[tuple[TopicKey, PartitionProduceResponse]] = []
        self.missing = 1  # batches without an answer, and one for `handle` itself
        self.bucket = 0

    def on_batch_done(self) -> None:
        self.missing -= 1
        if not self.missing:
            self.gateway.deadlines.cancel(self)
            self._finish()

    def on_deadline(self) -> None:
        for batch in self.batches:
            batch.fail(ErrorCode.REQUEST_TIMED_OUT)

    def _finish(self) -> None:
        self.batches = []  # they know us: without a cycle there is nothing to collect
        if self.acks:
            if self.misled and self.exchange.version >= CURRENT_LEADER_SINCE:
                self._tell_leaders()
            self.exchange.answer(self.response)
            return
        for topic in self.response.responses:
            for partition in topic.partition_responses:
                if partition.error_code:
                    # The client learns of it in the only way there is.
                    error = ErrorCode(partition.error_code).name
                    self.exchange.refuse(f"{error} for {topic.name or topic.topic_id.hex()}-{partition.index} with acks=0")
                    return
        self.exchange.answer_nothing()

    def _tell_leaders(self) -> None:
        leaders = set()
        for topic, response in self.misled:
            leader = leader_of(self.gateway, topic, response.index)
            response.current_leader = LeaderIdAndEpoch(*leader)
            leaders.add(leader.leader_id)
        self.response.node_endpoints = [
            NodeEndpoint(*node) for node in nodes(self.gateway, self.exchange.connection, leaders)]


def handle(gateway: Gateway, exchange: Exchange, request: ProduceRequest) -> None:
    pending = Pending(gateway, exchange, request.acks)
    refusal = refusal_of(request)
    by_id = exchange.version >= TOPIC_IDS_SINCE
    for topic in request.topic_data:
        if not topic.partition_data:
            continue
        responses: list[PartitionProduceResponse] = []
        pending.response.responses.append(TopicProduceResponse(topic.topic_id, topic.name, responses))
        key = topic.topic_id if by_id else topic.name
        name = name_of(gateway, key)
        for data in topic.partition_data:
            response = PartitionProduceResponse(data.index, base_offset=-1)
            responses.append(response)
            route = None if name is None else gateway.routes.find(name, data.index)
            error = (
                refusal or topic_error(gateway, route, key, name, data.index)
                or records_error(data.records, exchange.version))
            begin(pending, key, response, route, data.records, error)
    if pending.missing > 1:
        timeout_s = request.timeout_ms / 1000 if request.timeout_ms > 0 else OWN_WRITE_S
        gateway.deadlines.set(pending, gateway.now.monotonic_s, timeout_s)
    pending.on_batch_done()


def begin(
    pending: Pending, topic: TopicKey, response: PartitionProduceResponse, route: Route | None,
    records: memoryview | None, error: int,
) -> None:
    """Send one batch to its partition, unless there is an error."""
    gateway = pending.gateway
    now_s = gateway.now.monotonic_s
    if error:
        gateway.sequence_gaps.turned_away(topic, response.index, records, now_s)
    else:
        assert route is not None and records is not None
        if not gateway.sequence_gaps.overtakes(topic, response.index, records, now_s):
            batch = Batch(pending, topic, response, records)
            pending.batches.append(batch)
            pending.missing += 1
            route.produce(batch, pending.acks, records, gateway.slice)
            return
        error = ErrorCode.NOT_LEADER_OR_FOLLOWER
    response.error_code = error
    if error == ErrorCode.NOT_LEADER_OR_FOLLOWER:
        pending.misled.append((topic, response))


def refusal_of(request: ProduceRequest) -> int:
    """The error that answers all of a request, 0 if there is none."""
    if request.transactional_id is not None:
        return ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    return 0 if -1 <= request.acks <= 1 else ErrorCode.INVALID_REQUIRED_ACKS


def topic_error(
    gateway: Gateway, route: Route | None, topic: TopicKey, name: str | None, partition: int, *,
    foreign: int = ErrorCode.UNKNOWN_TOPIC_ID,
) -> int:
    """As `route_error`, where the topic may be named by its id. foreign: the replica is of a topic of that name before."""
    if name is None:
        return ErrorCode.UNKNOWN_TOPIC_ID
    if route is not None and isinstance(topic, bytes) and route.topic_id != topic:
        return foreign
    return route_error(gateway, route, name, partition)


def route_error(gateway: Gateway, route: Route | None, topic: str, partition: int) -> int:
    """Why this partition cannot be asked right now, 0 if it can. Fetch and ListOffsets say the same."""
    if route is not None:
        return route.refusal
    known = gateway.cluster.topics_by_name.get(topic)
    if known is None or not 0 <= partition < len(known.partitions):
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    return ErrorCode.NOT_LEADER_OR_FOLLOWER


def records_error(records: memoryview | None, version: int) -> int:
    """What only the broker can tell, because it depends on the request; the partition checks the batch itself."""
    if not records:
        return ErrorCode.INVALID_RECORD
    if version < ZSTD_SINCE and len(records) > ATTRIBUTES and records[ATTRIBUTES] & CODEC_MASK == ZSTD:
        return ErrorCode.UNSUPPORTED_COMPRESSION_TYPE
    return 0
