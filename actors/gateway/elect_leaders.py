"""ElectLeaders: who has one replica leads or does not, so there is never anything to elect.

Versions 0-2. Version 1 has unclean elections (KIP-460).
Source: ReplicationControlManager.electLeaders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.cluster_state import NO_LEADER
from zafka.actors.gateway.connection import Exchange
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    PartitionResult,
    ReplicaElectionResult,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.ELECT_LEADERS
VERSIONS = range(3)
ADVERTISED = VERSIONS

PREFERRED, UNCLEAN = 0, 1  # election types


def handle(gateway: Gateway, exchange: Exchange, request: ElectLeadersRequest) -> None:
    asked = request.topic_partitions
    if asked is not None:
        results = [
            ReplicaElectionResult(each.topic, [elect(gateway, each.topic, index, request) for index in each.partitions])
            for each in asked]
    else:  # all of them; partitions that need no election are not told then
        results = []
        for topic in gateway.cluster.topics_by_name.values():
            told = [elect(gateway, topic.name, index, request) for index in range(len(topic.partitions))]
            told = [each for each in told if each.error_code != ErrorCode.ELECTION_NOT_NEEDED]
            results.append(ReplicaElectionResult(topic.name, told))
    error = ErrorCode.NONE if request.election_type in (PREFERRED, UNCLEAN) else ErrorCode.INVALID_REQUEST
    exchange.answer(ElectLeadersResponse(error_code=error, replica_election_results=results))


def elect(gateway: Gateway, name: str, index: int, request: ElectLeadersRequest) -> PartitionResult:
    if request.election_type not in (PREFERRED, UNCLEAN):
        return PartitionResult(index, ErrorCode.INVALID_REQUEST, f"Unknown election type {request.election_type}")
    topic = gateway.cluster.topics_by_name.get(name)
    if topic is None:
        return PartitionResult(index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"No such topic as {name}")
    if not 0 <= index < len(topic.partitions):
        return PartitionResult(index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"No such partition as {name}-{index}")
    if topic.partitions[index].leader != NO_LEADER:
        return PartitionResult(index, ErrorCode.ELECTION_NOT_NEEDED, "Leader election not needed for topic partition.")
    if request.election_type == UNCLEAN:
        return PartitionResult(
            index, ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE, "Eligible topic partition leaders are not available.")
    return PartitionResult(index, ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE, "The preferred leader was not available.")
