"""Produce: batches go to their partitions as they came, and are answered when those have them on disk.

Versions 3-11. 0-2 are advertised, because older librdkafka sends no compressed batches where they are missing
(KAFKA-18659), and refused by closing the connection, as Kafka 4 does.
Source: KafkaApis.handleProduceRequest; ProduceRequest.validateRecords; KIP-467 (record errors).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.routes import Route
from zafka.actors.messages import ProduceAnswer
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.produce import (
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceResponse,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.PRODUCE
VERSIONS = range(3, 12)
ADVERTISED = range(12)

ATTRIBUTES = 22  # position of their low byte in a record batch
CODEC_MASK = 0x07
ZSTD = 4
ZSTD_SINCE = 7  # KIP-110


class Batch:
    """One batch of a request at its partition."""

    __slots__ = ("done", "pending", "records", "response", "size", "topic")

    def __init__(self, pending: Pending, topic: str, response: PartitionProduceResponse, records: memoryview) -> None:
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
        response.log_start_offset = answer.log_start_offset
        response.error_message = answer.message or None
        if answer.error and ErrorCode(answer.error).is_retriable:
            self._turned_away()
        self.done = True
        self.pending.on_batch_done()

    def on_lost(self, *, handed_over: bool) -> None:
        # What was handed over is perhaps written; NOT_LEADER_OR_FOLLOWER would say that it is not.
        self.fail(ErrorCode.REQUEST_TIMED_OUT if handed_over else ErrorCode.NOT_LEADER_OR_FOLLOWER)

    def fail(self, error: ErrorCode) -> None:
        if not self.done:
            self.response.error_code = error
            self._turned_away()
            self.done = True
            self.pending.on_batch_done()

    def _turned_away(self) -> None:
        gateway = self.pending.gateway
        gateway.sequence_gaps.turned_away(self.topic, self.response.index, self.records, gateway.now.monotonic_s)


class Pending:
    """A request until all its batches are answered, or its time is up."""

    __slots__ = ("acks", "batches", "bucket", "exchange", "gateway", "missing", "response")

    def __init__(self, gateway: Gateway, exchange: Exchange, acks: int) -> None:
        self.gateway = gateway
        self.exchange = exchange
        self.acks = acks
        self.response = ProduceResponse([])
        self.batches: list[Batch] = []  # those at a partition
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
            self.exchange.answer(self.response)
            return
        for topic in self.response.responses:
            for partition in topic.partition_responses:
                if partition.error_code:
                    # The client learns of it in the only way there is.
                    error = ErrorCode(partition.error_code).name
                    self.exchange.refuse(f"{error} for {topic.name}-{partition.index} with acks=0")
                    return
        self.exchange.answer_nothing()


def handle(gateway: Gateway, exchange: Exchange, request: ProduceRequest) -> None:
    pending = Pending(gateway, exchange, request.acks)
    refusal = refusal_of(request)
    for topic in request.topic_data:
        name = topic.name
        responses: list[PartitionProduceResponse] = []
        pending.response.responses.append(TopicProduceResponse(name=name, partition_responses=responses))
        for data in topic.partition_data:
            response = PartitionProduceResponse(data.index, base_offset=-1)
            responses.append(response)
            route = gateway.routes.find(name, data.index)
            records = data.records
            error = refusal or route_error(gateway, route, name, data.index) or records_error(records, exchange.version)
            if error:
                response.error_code = error
                gateway.sequence_gaps.turned_away(name, data.index, records, gateway.now.monotonic_s)
                continue
            assert route is not None and records is not None
            if gateway.sequence_gaps.overtakes(name, data.index, records, gateway.now.monotonic_s):
                response.error_code = ErrorCode.NOT_LEADER_OR_FOLLOWER
                continue
            batch = Batch(pending, name, response, records)
            pending.batches.append(batch)
            pending.missing += 1
            route.produce(batch, request.acks, records)
    if pending.missing > 1:
        gateway.deadlines.set(pending, gateway.now.monotonic_s, request.timeout_ms / 1000)
    pending.on_batch_done()


def refusal_of(request: ProduceRequest) -> int:
    """The error that answers all of a request, 0 if there is none."""
    if request.transactional_id is not None:
        return ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    return 0 if -1 <= request.acks <= 1 else ErrorCode.INVALID_REQUIRED_ACKS


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
