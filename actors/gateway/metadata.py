"""Metadata: brokers, topics, leaders. A topic that is not there is created on the way, if that is wished.

Versions 0-13. Version 0 asks for all topics by an empty list, later ones by null; topics can be asked for by id from
12 on: if one is, names are passed over. A topic that is being created is answered with LEADER_NOT_AVAILABLE; clients
ask again. 13 has an error for all of it, REBOOTSTRAP_REQUIRED (KIP-1102), which nothing here gives. Nobody is refused
anything, so whoever asks which operations are authorized is told all of them. Addresses are those of the listener that
the client came in by, as Kafka does.
Source: KafkaApis.handleTopicMetadataRequest, DefaultAutoTopicCreationManager.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from zafka.actors.cluster_state import NO_LEADER, PartitionState, TopicState
from zafka.actors.gateway.connection import Connection, Exchange
from zafka.actors.gateway.group_relay import GROUP_TOPIC, group_topic
from zafka.actors.messages import CreateTopics, Endpoint, NewTopic, TopicsCreated
from zafka.actors.refused import Refused
from zafka.actors.topic_rules import check_name
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from zafka.transport.kafka.types import ZERO_UUID

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.METADATA
VERSIONS = range(14)
ADVERTISED = VERSIONS

TOPIC_IDS_SINCE = 12  # 10 and 11 have the field, and Kafka refuses it
# Bits are Kafka's AclOperation codes: what a topic, and what a cluster, supports.
TOPIC_OPERATIONS = sum(1 << operation for operation in (3, 4, 5, 6, 7, 8, 10, 11))
CLUSTER_OPERATIONS = sum(1 << operation for operation in (5, 7, 8, 9, 10, 11, 12))
NOT_ASKED = -(2**31)
CREATIONS_MAX = 100  # under way at once; more have to ask again
INTERNAL_TOPICS = (GROUP_TOPIC, "__transaction_state", "__share_group_state")


class Creation:
    """A topic that a client wanted to know and that did not exist."""

    done = False

    def __init__(self, creations: dict[str, Creation], name: str) -> None:
        self.creations = creations
        self.name = name

    def on_answer(self, answer: TopicsCreated) -> None:
        # Whatever came of it: if the topic is still missing, the next client to ask tries again.
        del self.creations[self.name]

    def on_lost(self) -> None:
        del self.creations[self.name]


def handle(gateway: Gateway, exchange: Exchange, request: MetadataRequest) -> None:
    wanted = request.topics
    cluster = gateway.cluster
    if wanted is None or (exchange.version == 0 and not wanted):
        topics = [describe(name, topic) for name, topic in cluster.topics_by_name.items()]
    elif exchange.version < TOPIC_IDS_SINCE and any(topic.name is None or topic.topic_id != ZERO_UUID for topic in wanted):
        exchange.answer(refusal_of_ids(wanted))
        return
    else:
        # Each once, or a small request could have a huge answer.
        ids = {topic.topic_id: None for topic in wanted if topic.topic_id != ZERO_UUID}
        if ids:
            topics = [find_by_id(gateway, topic_id) for topic_id in ids]
        else:
            names = dict.fromkeys(topic.name or "" for topic in wanted)
            topics = [find(gateway, name, request.allow_auto_topic_creation) for name in names]
    if request.include_topic_authorized_operations:
        for topic in topics:
            topic.topic_authorized_operations = (
                NOT_ASKED if topic.error_code == ErrorCode.UNKNOWN_TOPIC_ID else TOPIC_OPERATIONS)
    exchange.answer(MetadataResponse(
        brokers=list(brokers(gateway, exchange.connection)), cluster_id=cluster.cluster_id,
        controller_id=min(cluster.brokers, default=gateway.broker_id), topics=topics,
        cluster_authorized_operations=(
            CLUSTER_OPERATIONS if request.include_cluster_authorized_operations else NOT_ASKED)))


def refusal_of_ids(wanted: list[MetadataRequestTopic]) -> MetadataResponse:
    """The answer to ids, or topics without a name, in versions that have a field for them and must not use it."""
    error = ErrorCode.INVALID_REQUEST
    return MetadataResponse(topics=[MetadataResponseTopic(error, each.name or "", each.topic_id) for each in wanted])


def brokers(gateway: Gateway, connection: Connection) -> Iterator[MetadataResponseBroker]:
    """Every broker at the listener of the name by which this client came in, or one of the same protocol."""
    mine = next((endpoint for endpoint in gateway.endpoints if endpoint.name == connection.listener), None)
    for broker in gateway.cluster.brokers.values():
        endpoints = gateway.endpoints if broker.broker_id == gateway.broker_id else broker.endpoints
        endpoint = match_endpoint(endpoints, mine)
        if endpoint is not None:
            yield MetadataResponseBroker(broker.broker_id, endpoint.host, endpoint.port, broker.rack or None)


def match_endpoint(endpoints: list[Endpoint], mine: Endpoint | None) -> Endpoint | None:
    if mine is None:
        return None
    fitting = [endpoint for endpoint in endpoints if endpoint.protocol == mine.protocol]
    return next((endpoint for endpoint in fitting if endpoint.name == mine.name), fitting[0] if fitting else None)


def find_by_id(gateway: Gateway, topic_id: bytes) -> MetadataResponseTopic:
    known = gateway.cluster.topics_by_id.get(topic_id)
    if known is None:
        return MetadataResponseTopic(ErrorCode.UNKNOWN_TOPIC_ID, None, topic_id)
    return describe(known.name, known)


def find(gateway: Gateway, name: str, may_create: bool) -> MetadataResponseTopic:
    topic = gateway.cluster.topics_by_name.get(name)
    if topic is not None:
        return describe(name, topic)
    return MetadataResponseTopic(create(gateway, name, may_create), name, is_internal=name in INTERNAL_TOPICS)


def create(gateway: Gateway, name: str, may_create: bool) -> int:
    """Have a missing topic created if that is wished and possible; the error that says how things are."""
    try:
        check_name(name, ())
    except Refused as refused:
        illegal = refused.error == ErrorCode.INVALID_TOPIC_EXCEPTION
        return refused.error if illegal else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if not (may_create and gateway.settings.auto_create_topics):
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    begin_creation(gateway, group_topic(gateway) if name == GROUP_TOPIC else NewTopic(name, -1, -1, {}))
    return ErrorCode.LEADER_NOT_AVAILABLE


def begin_creation(gateway: Gateway, topic: NewTopic) -> None:
    """Have a topic created, unless that is under way."""
    creations = gateway.creations
    if topic.name not in creations and len(creations) < CREATIONS_MAX:
        creations[topic.name] = Creation(creations, topic.name)
        gateway.coordinator.ask(lambda request_id: CreateTopics(request_id, [topic]), creations[topic.name])


def describe(name: str, topic: TopicState) -> MetadataResponseTopic:
    partitions = [describe_partition(index, partition) for index, partition in enumerate(topic.partitions)]
    return MetadataResponseTopic(0, name, topic.topic_id, name in INTERNAL_TOPICS, partitions)


def describe_partition(index: int, partition: PartitionState) -> MetadataResponsePartition:
    error = ErrorCode.LEADER_NOT_AVAILABLE if partition.leader == NO_LEADER else 0
    return MetadataResponsePartition(
        error, index, partition.leader, partition.leader_epoch, partition.replicas, partition.isr,
        list(partition.faults))
