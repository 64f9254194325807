"""ListOffsets: the offset of a time, or of the log's two ends. Each partition answers for itself.

Versions 1-11. Negative timestamps have names: -1 latest, -2 earliest, from 7 on -3 the record with the largest
timestamp (KIP-734), from 8 on -4 the earliest on this disk (KIP-405), from 9 on -5 the latest in tiered storage
(KIP-1005), from 11 on -6 the earliest that is still to go there (KIP-1023). Without tiered storage -4 is -2, and the
last two have no offset. From 10 on the client says how long it waits.
Source: KafkaApis.handleListOffsetRequest, ReplicaManager.fetchOffset; KIP-207 (OFFSET_NOT_AVAILABLE) is the
partition's to say.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.produce import route_error
from zafka.actors.gateway.questions import TIMEOUT_S, Questions
from zafka.actors.messages import ListOffset, OffsetListed
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.LIST_OFFSETS
VERSIONS = range(1, 12)
ADVERTISED = VERSIONS

SINCE = {-1: 1, -2: 1, -3: 7, -4: 8, -5: 9, -6: 11}  # which timestamps have names, from which version on
OFFSET_NOT_AVAILABLE_SINCE = 5


def handle(gateway: Gateway, exchange: Exchange, request: ListOffsetsRequest) -> None:
    response = ListOffsetsResponse(topics=[])
    questions = Questions(gateway, exchange, response)
    twice = named_twice(request)
    told: set[tuple[str, int]] = set()
    for topic in request.topics:
        parts: list[ListOffsetsPartitionResponse] = []
        for wanted in topic.partitions:
            key = topic.name, wanted.partition_index
            if key in told:
                continue
            part = ListOffsetsPartitionResponse(wanted.partition_index)
            parts.append(part)
            if key in twice:
                told.add(key)
                part.error_code = ErrorCode.INVALID_REQUEST
            else:
                ask(questions, part, topic.name, wanted, request.isolation_level)
        if parts:
            response.topics.append(ListOffsetsTopicResponse(topic.name, parts))
    questions.start(request.timeout_ms / 1000 if request.timeout_ms > 0 else TIMEOUT_S)


def named_twice(request: ListOffsetsRequest) -> set[tuple[str, int]]:
    seen: set[tuple[str, int]] = set()
    twice: set[tuple[str, int]] = set()
    for topic in request.topics:
        for wanted in topic.partitions:
            key = topic.name, wanted.partition_index
            (twice if key in seen else seen).add(key)
    return twice


def ask(
    questions: Questions, part: ListOffsetsPartitionResponse, topic: str, wanted: ListOffsetsPartition,
    isolation_level: int,
) -> None:
    """Send the question to its partition, or say why not."""
    gateway, timestamp_ms = questions.gateway, wanted.timestamp
    if timestamp_ms < 0 and questions.exchange.version < SINCE.get(timestamp_ms, VERSIONS.stop):
        part.error_code = ErrorCode.UNSUPPORTED_VERSION
        return
    route = gateway.routes.find(topic, wanted.partition_index)
    part.error_code = route_error(gateway, route, topic, wanted.partition_index)
    if not part.error_code:
        assert route is not None
        epoch = wanted.current_leader_epoch
        questions.ask(
            route, lambda request_id: ListOffset(request_id, timestamp_ms, epoch, isolation_level), partial(take, part),
            partial(refuse, part, questions.exchange.version))


def take(part: ListOffsetsPartitionResponse, answer: OffsetListed) -> None:
    part.timestamp = answer.timestamp_ms
    part.offset = answer.offset
    part.leader_epoch = answer.leader_epoch


def refuse(part: ListOffsetsPartitionResponse, version: int, error: int) -> None:
    if error == ErrorCode.OFFSET_NOT_AVAILABLE and version < OFFSET_NOT_AVAILABLE_SINCE:
        error = ErrorCode.LEADER_NOT_AVAILABLE  # says the same to clients of that age, who do not know the other
    part.error_code = error
