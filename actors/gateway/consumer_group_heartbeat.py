"""ConsumerGroupHeartbeat: a member of a KIP-848 group says what it reads and has, and is told what it is to have.

Versions 0-1. Version 1 adds regular expressions (KIP-848), and members make their ids themselves (KIP-1082). One that leaves waits
for a coordinator that reads its log, for up to 4 s, where Kafka says COORDINATOR_LOAD_IN_PROGRESS at once: clients say it once.
Source: KafkaApis.handleConsumerGroupHeartbeat, GroupMetadataManager.consumerGroupHeartbeat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.group_relay import PassedOn
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.CONSUMER_GROUP_HEARTBEAT
VERSIONS = range(2)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: ConsumerGroupHeartbeatRequest) -> None:
    PassedOn(gateway, exchange, KEY, request, refuse, is_last_word=request.member_epoch < 0)


def refuse(request: ConsumerGroupHeartbeatRequest, version: int, error: int) -> ConsumerGroupHeartbeatResponse:
    return ConsumerGroupHeartbeatResponse(error_code=error)
