"""CreateTopics: the coordinator decides; the answer waits until the partitions serve.

Versions 2-7. Version 5 adds what was decided (KIP-525), 7 the topic id. A topic that was created but does not serve
in time is answered REQUEST_TIMED_OUT, as in Kafka: it is there, or soon will be.
Source: ControllerApis.createTopics, ReplicationControlManager.createTopics.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from zafka.actors.cluster_state import NO_LEADER
from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.describe_configs import topic_configs
from zafka.actors.messages import CreateTopics, NewTopic, TopicResult, TopicsCreated
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


class Creating:
    """A request until its topics serve, or its time is up."""

    def __init__(self, gateway: Gateway, exchange: Exchange, *, validate_only: bool) -> None:
        self.gateway = gateway
        self.exchange = exchange
        self.validate_only = validate_only
        self.results: list[CreatableTopicResult] = []  # of topics that need no more waiting
        self.asked: dict[str, NewTopic] = {}
        self.created: dict[str, TopicResult] = {}  # of those, by the coordinator, but not serving yet
        self.done = False
        self.bucket = 0

    def refuse(self, name: str, error: int, message: str | None) -> None:
        self.results.append(CreatableTopicResult(name, error_code=error, error_message=message))

    def on_answer(self, answer: TopicsCreated) -> None:
        if self.done:
            return
        for result in answer.results:
            if result.error:
                del self.asked[result.name]
                self.refuse(result.name, result.error, result.message or None)
            elif self.validate_only:
                self._accept(result)
            else:
                self.created[result.name] = result
        self.gateway.watchers[self] = None
        self.on_changed()

    def on_lost(self) -> None:
        # The coordinator died with the question in hand: the topics are there, or not.
        self._give_up("the coordinator restarted")

    def on_deadline(self) -> None:
        self._give_up("not done in time")

    def on_changed(self) -> None:
        """The cluster looks different: which of the topics serve by now?"""
        for name, result in list(self.created.items()):
            if serves(self.gateway, result.topic_id):
                del self.created[name]
                self._accept(result)
        if not self.asked:
            self._answer()

    def _accept(self, result: TopicResult) -> None:
        config = self.asked.pop(result.name).config
        configs = [
            CreatableTopicConfigs(entry.name, entry.value, config_source=entry.source)
            for entry in topic_configs(self.gateway, config)]
        self.results.append(CreatableTopicResult(
            result.name, result.topic_id, 0, None, num_partitions=result.partitions,
            replication_factor=result.replication_factor, configs=configs))

    def _give_up(self, reason: str) -> None:
        if not self.done:
            for name in self.asked:
                self.refuse(name, ErrorCode.REQUEST_TIMED_OUT, reason)
            self._answer()

    def _answer(self) -> None:
        self.done = True
        self.gateway.watchers.pop(self, None)
        self.gateway.deadlines.cancel(self)
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
    if not creating.asked:
        exchange.answer(CreateTopicsResponse(topics=creating.results))
        return
    topics = list(creating.asked.values())
    gateway.deadlines.set(creating, gateway.now.monotonic_s, request.timeout_ms / 1000)
    gateway.coordinator.ask(lambda request_id: CreateTopics(request_id, topics, request.validate_only), creating)


def new_topic(topic: CreatableTopic) -> NewTopic:
    """The request's topic in the coordinator's words; it checks what depends on the cluster. Raises Refused."""
    config: dict[str, str] = {}
    for entry in topic.configs:
        if entry.value is None:
            raise Refused(ErrorCode.INVALID_CONFIG, f"Null value not supported for topic configs: {entry.name}")
        config[entry.name] = entry.value
    assignment = {each.partition_index: each.broker_ids for each in topic.assignments}
    if len(assignment) < len(topic.assignments) or sorted(assignment) != list(range(len(assignment))):
        raise Refused(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT, "partitions should be a consecutive 0-based integer sequence")
    replicas = [assignment[index] for index in range(len(assignment))]
    return NewTopic(topic.name, topic.num_partitions, topic.replication_factor, config, replicas)


def serves(gateway: Gateway, topic_id: bytes) -> bool:
    """True once every partition of a topic has a leader, and those that are here take requests."""
    topic = gateway.cluster.topics_by_id.get(topic_id)
    if topic is None:
        return False
    for index, partition in enumerate(topic.partitions):
        if partition.leader == NO_LEADER:
            return False
        route = gateway.routes.find(topic.name, index)
        if gateway.broker_id == partition.leader and (route is None or route.refusal):
            return False
    return True
