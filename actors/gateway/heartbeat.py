"""Heartbeat: a member of a classic group lives, and wants to know whether it is to join again.

Versions 0-4. Version 3 adds static members (KIP-345).
Source: KafkaApis.handleHeartbeatRequest, GroupMetadataManager.classicGroupHeartbeat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.group_relay import PassedOn
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.heartbeat import HeartbeatRequest, HeartbeatResponse

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.HEARTBEAT
VERSIONS = range(5)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: HeartbeatRequest) -> None:
    PassedOn(gateway, exchange, KEY, request, refuse)


def refuse(request: HeartbeatRequest, version: int, error: int) -> HeartbeatResponse:
    # While its coordinator reads the log nobody is late, and clients would take the error for a fault (as Kafka).
    return HeartbeatResponse(error_code=0 if error == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS else error)
