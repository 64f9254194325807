"""CreatePartitions: more partitions for a topic. The coordinator decides; the answer waits until all of them serve.

Versions 0-3, which say the same. Kafka answers once the change is committed; here a client that was answered finds
every new partition with a leader. More than 10,000 at once are POLICY_VIOLATION, where Kafka fails inside.
Source: ControllerApis.createPartitions, ReplicationControlManager.createPartitions.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.topic_change import TopicChange, serves
from zafka.actors.messages import CreatePartitions, MorePartitions, TopicResult
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
    CreatePartitionsTopicResult,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.CREATE_PARTITIONS
VERSIONS = range(4)
ADVERTISED = VERSIONS


class Adding(TopicChange[MorePartitions]):
    """A request until the partitions serve, or its time is up."""

    def __init__(self, gateway: Gateway, exchange: Exchange, *, validate_only: bool) -> None:
        super().__init__(gateway, exchange, validate_only=validate_only)
        self.results: list[CreatePartitionsTopicResult] = []

    def shows(self, result: TopicResult) -> bool:
        return serves(self.gateway, result.topic_id, result.partitions)

    def refuse(self, name: str, error: int, message: str | None) -> None:
        self.results.append(CreatePartitionsTopicResult(name, error, message))

    def accept(self, wanted: MorePartitions, result: TopicResult) -> None:
        self.results.append(CreatePartitionsTopicResult(result.name))

    def respond(self) -> None:
        self.exchange.answer(CreatePartitionsResponse(results=self.results))


def handle(gateway: Gateway, exchange: Exchange, request: CreatePartitionsRequest) -> None:
    adding = Adding(gateway, exchange, validate_only=request.validate_only)
    for name, count in Counter(topic.name for topic in request.topics).items():
        if count > 1:
            adding.refuse(name, ErrorCode.INVALID_REQUEST, "Duplicate topic name.")
    refused = {result.name for result in adding.results}
    adding.asked = {topic.name: more_partitions(topic) for topic in request.topics if topic.name not in refused}
    topics = list(adding.asked.values())
    adding.start(lambda request_id: CreatePartitions(request_id, topics, request.validate_only), request.timeout_ms)


def more_partitions(topic: CreatePartitionsTopic) -> MorePartitions:
    """The request's topic in the coordinator's words, which checks it."""
    assigned = topic.assignments
    return MorePartitions(topic.name, topic.count, None if assigned is None else [each.broker_ids for each in assigned])
