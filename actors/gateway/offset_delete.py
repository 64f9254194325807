"""OffsetDelete: have a group forget how far it has come, where none of its members reads.

Version 0. Partitions that the cluster does not have are refused here, as in Kafka.
Source: KafkaApis.handleOffsetDeleteRequest, OffsetMetadataManager.deleteOffsets; KIP-496.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.group_relay import Relay, decoded, find_route
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.OFFSET_DELETE
VERSIONS = range(1)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: OffsetDeleteRequest) -> None:
    response = OffsetDeleteResponse(topics=[])
    known = []
    for topic in request.topics:
        there, missing = split(gateway, topic)
        if missing:
            response.topics.append(OffsetDeleteResponseTopic(topic.name, [
                OffsetDeleteResponsePartition(part.partition_index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
                for part in missing]))
        if there:
            known.append(OffsetDeleteRequestTopic(topic.name, there))

    def take(answer: OffsetDeleteResponse) -> None:
        response.error_code = answer.error_code
        response.topics = [] if answer.error_code else response.topics + answer.topics

    def refuse(error: int) -> None:
        response.error_code, response.topics = error, []

    def finish() -> None:
        exchange.answer(response)

    relay = Relay(gateway, exchange, KEY, finish)
    if known or not request.topics:
        route = find_route(gateway, request.group_id)
        relay.ask(route, exchange.version, OffsetDeleteRequest(request.group_id, known), decoded(KEY, 0, take), refuse)
    relay.start()


def split(
    gateway: Gateway, topic: OffsetDeleteRequestTopic
) -> tuple[list[OffsetDeleteRequestPartition], list[OffsetDeleteRequestPartition]]:
    """The partitions that the cluster has, and the others."""
    known = gateway.cluster.topics_by_name.get(topic.name)
    count = 0 if known is None else len(known.partitions)
    there = [part for part in topic.partitions if 0 <= part.partition_index < count]
    return there, [part for part in topic.partitions if not 0 <= part.partition_index < count]
