"""DescribeCluster: the brokers, at the listener that the client came in by, and the cluster's id.

Versions 0-2. Version 1 has endpoint types (KIP-919): here are brokers only. Version 2 has fenced brokers (KIP-1073):
a broker that is not in the topology any more is forgotten, never fenced.
Source: KafkaApis.handleDescribeCluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.metadata import brokers
from zafka.actors.gateway.operations import NOT_ASKED, ON_CLUSTER
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.describe_cluster import (
    DescribeClusterBroker,
    DescribeClusterRequest,
    DescribeClusterResponse,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.DESCRIBE_CLUSTER
VERSIONS = range(3)
ADVERTISED = VERSIONS

BROKERS, CONTROLLERS = 1, 2  # endpoint types
MISMATCH = "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER"


def handle(gateway: Gateway, exchange: Exchange, request: DescribeClusterRequest) -> None:
    if request.endpoint_type == CONTROLLERS:
        exchange.answer(DescribeClusterResponse(error_code=ErrorCode.MISMATCHED_ENDPOINT_TYPE, error_message=MISMATCH))
        return
    if request.endpoint_type != BROKERS:
        message = f"Unsupported endpoint type {request.endpoint_type}"
        exchange.answer(DescribeClusterResponse(
            error_code=ErrorCode.UNSUPPORTED_ENDPOINT_TYPE, error_message=message))
        return
    cluster = gateway.cluster
    exchange.answer(DescribeClusterResponse(
        cluster_id=cluster.cluster_id, controller_id=min(cluster.brokers, default=gateway.broker_id),
        brokers=[
            DescribeClusterBroker(each.node_id, each.host, each.port, each.rack)
            for each in brokers(gateway, exchange.connection)],
        cluster_authorized_operations=ON_CLUSTER if request.include_cluster_authorized_operations else NOT_ASKED))
