"""OffsetForLeaderEpoch: where a leader epoch ended, so that a consumer sees whether its log was cut behind its back.

Versions 2-4. A partition whose log does not know the epoch answers -1, -1. Followers ask in the same way; there are none.
Source: KafkaApis.handleOffsetForLeaderEpochRequest, Partition.lastOffsetForLeaderEpoch; KIP-101, KIP-320.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.produce import route_error
from zafka.actors.gateway.questions import TIMEOUT_S, Questions
from zafka.actors.messages import EpochEnd, FindEpochEnd
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages.offset_for_leader_epoch import (
    EpochEndOffset,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderTopicResult,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.OFFSET_FOR_LEADER_EPOCH
VERSIONS = range(2, 5)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: OffsetForLeaderEpochRequest) -> None:
    response = OffsetForLeaderEpochResponse(topics=[])
    questions = Questions(gateway, exchange, response)
    for topic in request.topics:
        parts: list[EpochEndOffset] = []
        response.topics.append(OffsetForLeaderTopicResult(topic.topic, parts))
        for wanted in topic.partitions:
            route = gateway.routes.find(topic.topic, wanted.partition)
            error = route_error(gateway, route, topic.topic, wanted.partition)
            part = EpochEndOffset(error, wanted.partition)
            parts.append(part)
            if not error:
                assert route is not None
                question = partial(
                    FindEpochEnd, leader_epoch=wanted.leader_epoch, current_leader_epoch=wanted.current_leader_epoch)
                questions.ask(route, question, partial(take, part), partial(refuse, part))
    questions.start(TIMEOUT_S)


def take(part: EpochEndOffset, answer: EpochEnd) -> None:
    part.leader_epoch = answer.leader_epoch
    part.end_offset = answer.end_offset


def refuse(part: EpochEndOffset, error: int) -> None:
    part.error_code = error
