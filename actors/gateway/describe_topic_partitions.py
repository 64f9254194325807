"""DescribeTopicPartitions: topics in the order of their names, a page at a time.

Version 0. A page ends after `response_partition_limit` partitions, or the broker's max.request.partition.size.limit;
its cursor names the partition that the next page begins with.
Every in-sync replica is known here, so nobody is eligible beyond those (KIP-966): both lists are empty.
Source: DescribeTopicPartitionsRequestHandler, KRaftMetadataCache.describeTopicResponse; KIP-966.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from zafka.actors.cluster_state import NO_LEADER, ClusterState, PartitionState, TopicState
from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.metadata import INTERNAL_TOPICS
from zafka.actors.gateway.operations import ON_TOPIC
from zafka.actors.refused import Refused
from zafka.actors.topic_rules import check_legal_name
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.describe_topic_partitions import (
    Cursor,
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.DESCRIBE_TOPIC_PARTITIONS
VERSIONS = range(1)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: DescribeTopicPartitionsRequest) -> None:
    cursor, cluster = request.cursor, gateway.cluster
    begin = cursor.topic_name if cursor else ""
    names = {topic.name for topic in request.topics} or cluster.topics_by_name.keys()
    wrong = cursor is not None and (cursor.partition_index < 0 or (bool(request.topics) and begin not in names))
    if wrong:
        refused = [DescribeTopicPartitionsResponseTopic(ErrorCode.INVALID_REQUEST, name.name) for name in request.topics]
        exchange.answer(DescribeTopicPartitionsResponse(topics=refused))
        return
    limit = max(1, min(request.response_partition_limit, gateway.settings.described_partitions_max))
    topics = sorted(name for name in names if name >= begin)
    exchange.answer(page(cluster, topics, cursor, limit))


def page(cluster: ClusterState, names: Iterable[str], cursor: Cursor | None, limit: int) -> DescribeTopicPartitionsResponse:
    """At most `limit` partitions of these topics, from the cursor on. Pure."""
    response = DescribeTopicPartitionsResponse(topics=[])
    for name in names:
        if not limit:
            response.next_cursor = Cursor(name, 0)
            break
        topic = cluster.topics_by_name.get(name)
        if topic is None:
            response.topics.append(DescribeTopicPartitionsResponseTopic(
                why_missing(name)[0], name, is_internal=name in INTERNAL_TOPICS, topic_authorized_operations=ON_TOPIC))
            continue
        first = cursor.partition_index if cursor and cursor.topic_name == name else 0
        described = describe(name, topic, first, limit)
        response.topics.append(described)
        limit -= len(described.partitions)
        if first + len(described.partitions) < len(topic.partitions):
            response.next_cursor = Cursor(name, first + len(described.partitions))
            break
    return response


def why_missing(name: str) -> tuple[int, str]:
    """Kafka's error and words for a topic that does not exist."""
    try:
        check_legal_name(name)
    except Refused as refused:
        return refused.error, refused.message
    return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic-partition."


def describe(name: str, topic: TopicState, first: int, limit: int) -> DescribeTopicPartitionsResponseTopic:
    shown = enumerate(topic.partitions[first : first + limit], first)
    partitions = [describe_partition(index, partition) for index, partition in shown]
    return DescribeTopicPartitionsResponseTopic(
        0, name, topic.topic_id, name in INTERNAL_TOPICS, partitions, ON_TOPIC)


def describe_partition(index: int, partition: PartitionState) -> DescribeTopicPartitionsResponsePartition:
    error = ErrorCode.LEADER_NOT_AVAILABLE if partition.leader == NO_LEADER else 0
    return DescribeTopicPartitionsResponsePartition(
        error, index, partition.leader, partition.leader_epoch, partition.replicas, partition.isr,
        eligible_leader_replicas=[], last_known_elr=[], offline_replicas=list(partition.faults))
