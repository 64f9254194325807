"""CreateTopics: the coordinator decides; the answer waits until the partitions serve.

Versions 2-7. Version 5 adds what was decided (KIP-525), 7 the topic id. A topic that was created but does not serve
in time is answered REQUEST_TIMED_OUT, as in Kafka: it is there, or soon will be.
Source: ControllerApis.createTopics, ReplicationControlManager.createTopics.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.describe_configs import topic_configs
from zafka.actors.gateway.topic_change import TopicChange, serves
from zafka.actors.messages import CreateTopics, NewTopic, TopicResult
from zafka.actors.refused import Refused
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfigs,
    CreatableTopicResult,
    CreateTopicsRequest,
    CreateTopicsResponse,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.CREATE_TOPICS
VERSIONS = range(2, 8)
ADVERTISED = VERSIONS


class Creating(TopicChange[NewTopic]):
    """A request until its topics serve, or its time is up."""

    def __init__(self, gateway: Gateway, exchange: Exchange, *, validate_only: bool) -> None:
        super().__init__(gateway, exchange, validate_only=validate_only)
        self.results: list[CreatableTopicResult] = []

    def shows(self, result: TopicResult) -> bool:
        return serves(self.gateway, result.topic_id, result.partitions)

    def refuse(self, name: str, error: int, message: str | None) -> None:
        self.results.append(CreatableTopicResult(name, error_code=error, error_message=message))

    def accept(self, wanted: NewTopic, result: TopicResult) -> None:
        configs = [
            CreatableTopicConfigs(entry.name, entry.value, config_source=entry.source)
            for entry in topic_configs(self.gateway, wanted.config)]
        self.results.append(CreatableTopicResult(
            result.name, result.topic_id, 0, None, num_partitions=result.partitions,
            replication_factor=result.replication_factor, configs=configs))

    def respond(self) -> None:
        self.exchange.answer(CreateTopicsResponse(topics=self.results))


def handle(gateway: Gateway, exchange: Exchange, request: CreateTopicsRequest) -> None:
    creating = Creating(gateway, exchange, validate_only=request.validate_only)
    times = Counter(topic.name for topic in request.topics)
    for name, count in times.items():
        if count > 1:
            creating.refuse(name, ErrorCode.INVALID_REQUEST, "Duplicate topic name.")
    for topic in request.topics:
        if times[topic.name] == 1:
            try:
                creating.asked[topic.name] = new_topic(topic)
            except Refused as refused:
                creating.refuse(topic.name, refused.error, refused.message)
    topics = list(creating.asked.values())
    creating.start(lambda request_id: CreateTopics(request_id, topics, request.validate_only), request.timeout_ms)


def new_topic(topic: CreatableTopic) -> NewTopic:
    """The request's topic in the coordinator's words; it checks what depends on the cluster. Raises Refused."""
    config: dict[str, str] = {}
    for entry in topic.configs:
        if entry.value is None:
            raise Refused(ErrorCode.INVALID_CONFIG, f"Null value not supported for topic configs: {entry.name}")
        config[entry.name] = entry.value
    assignment: dict[int, list[int]] = {}
    for each in topic.assignments:
        if each.partition_index in assignment:
            raise Refused(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"Found multiple manual partition assignments for partition {each.partition_index}")
        assignment[each.partition_index] = each.broker_ids
    if sorted(assignment) != list(range(len(assignment))):
        raise Refused(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT, "partitions should be a consecutive 0-based integer sequence")
    replicas = [assignment[index] for index in range(len(assignment))]
    return NewTopic(topic.name, topic.num_partitions, topic.replication_factor, config, replicas)
