"""DescribeQuorum: the coordinator, which is the only voter of the cluster's own log.

Versions 0-2. Version 1 has timestamps (KIP-836), 2 has directory ids, listeners and messages (KIP-853). The log's name is
Kafka's, `__cluster_metadata`, because that is what clients ask for; its leader is told as the controller of Metadata is.
Source: KafkaRaftClient.handleDescribeQuorumRequest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.describe_quorum import (
    DescribeQuorumRequest,
    DescribeQuorumResponse,
    PartitionDataResponse,
    ReplicaState,
    TopicDataResponse,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.DESCRIBE_QUORUM
VERSIONS = range(3)
ADVERTISED = VERSIONS

TOPIC = "__cluster_metadata"
UNKNOWN = "This server does not host this topic-partition."


def handle(gateway: Gateway, exchange: Exchange, request: DescribeQuorumRequest) -> None:
    topics = request.topics
    if len(topics) == 1 and topics[0].topic_name == TOPIC and [each.partition_index for each in topics[0].partitions] == [0]:
        told = [TopicDataResponse(TOPIC, [describe(gateway)])]
    else:
        told = [
            TopicDataResponse(topic.topic_name, [
                PartitionDataResponse(each.partition_index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN)
                for each in topic.partitions])
            for topic in topics]
    exchange.answer(DescribeQuorumResponse(topics=told))


def describe(gateway: Gateway) -> PartitionDataResponse:
    """As far as this broker has read the log: that much is committed."""
    coordinator = gateway.coordinator.peer
    leader = min(gateway.cluster.brokers, default=gateway.broker_id)
    now_ms = gateway.now.wall_ms
    voter = ReplicaState(leader, log_end_offset=gateway.applied, last_fetch_timestamp=now_ms, last_caught_up_timestamp=now_ms)
    return PartitionDataResponse(
        0, 0, "", leader if coordinator else -1, coordinator.incarnation if coordinator else -1, gateway.applied, [voter])
