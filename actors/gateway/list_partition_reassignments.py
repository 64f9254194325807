"""ListPartitionReassignments: none, partitions stay where they are.

Version 0.
Source: ReplicationControlManager.listPartitionReassignments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.LIST_PARTITION_REASSIGNMENTS
VERSIONS = range(1)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: ListPartitionReassignmentsRequest) -> None:
    exchange.answer(ListPartitionReassignmentsResponse(error_message=None))
