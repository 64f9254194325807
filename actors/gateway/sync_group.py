"""SyncGroup: a member of a classic group asks what it is to read; the leader tells what all are.

Versions 0-5. Version 3 adds static members (KIP-345), 5 the protocol that the member takes to be chosen (KIP-559).
Source: KafkaApis.handleSyncGroupRequest, GroupMetadataManager.classicGroupSync.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.group_relay import PassedOn
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.sync_group import SyncGroupRequest, SyncGroupResponse

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.SYNC_GROUP
VERSIONS = range(6)
ADVERTISED = VERSIONS

PROTOCOL_SINCE = 5


def handle(gateway: Gateway, exchange: Exchange, request: SyncGroupRequest) -> None:
    if exchange.version >= PROTOCOL_SINCE and None in (request.protocol_type, request.protocol_name):
        exchange.answer(SyncGroupResponse(error_code=ErrorCode.INCONSISTENT_GROUP_PROTOCOL))
        return
    PassedOn(gateway, exchange, KEY, request, refuse)


def refuse(request: SyncGroupRequest, version: int, error: int) -> SyncGroupResponse:
    if error == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS:
        error = ErrorCode.REBALANCE_IN_PROGRESS  # what was agreed on is lost: join again (as Kafka)
    return SyncGroupResponse(error_code=error)
