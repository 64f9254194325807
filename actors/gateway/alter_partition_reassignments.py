"""AlterPartitionReassignments: partitions stay where they are; what asks for that is fine, moving is refused.

Versions 0-1. Version 1 can forbid to change the number of replicas (KIP-860).
Source: ReplicationControlManager.alterPartitionReassignments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.refused import Refused
from zafka.actors.topic_rules import check_reassignment
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    ReassignablePartition,
    ReassignablePartitionResponse,
    ReassignableTopicResponse,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.ALTER_PARTITION_REASSIGNMENTS
VERSIONS = range(2)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: AlterPartitionReassignmentsRequest) -> None:
    responses = [
        ReassignableTopicResponse(topic.name, [reassign(gateway, topic.name, each) for each in topic.partitions])
        for topic in request.topics]
    exchange.answer(AlterPartitionReassignmentsResponse(
        allow_replication_factor_change=request.allow_replication_factor_change, error_message=None if responses else "", responses=responses))


def reassign(gateway: Gateway, name: str, asked: ReassignablePartition) -> ReassignablePartitionResponse:
    try:
        _check(gateway, name, asked)
    except Refused as refused:
        return ReassignablePartitionResponse(asked.partition_index, refused.error, refused.message or None)
    return ReassignablePartitionResponse(asked.partition_index, 0, None)


def _check(gateway: Gateway, name: str, asked: ReassignablePartition) -> None:
    topic = gateway.cluster.topics_by_name.get(name)
    if topic is None:
        raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"Unable to find a topic named {name}.")
    if not 0 <= asked.partition_index < len(topic.partitions):
        raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"Unable to find partition {name}:{asked.partition_index}.")
    if asked.replicas is None:
        raise Refused(ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, "")
    check_reassignment(
        asked.replicas, topic.partitions[asked.partition_index].replicas, sorted(gateway.cluster.brokers))
