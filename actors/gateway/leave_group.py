"""LeaveGroup: members leave a group, or are removed from it by an admin.

Versions 0-5. From 3 on several members at once, by member id or instance id (KIP-345), from 5 on with reasons (KIP-800). While the
coordinator reads its log it waits for up to 4 s, where Kafka says COORDINATOR_LOAD_IN_PROGRESS at once: clients say it once.
Source: KafkaApis.handleLeaveGroupRequest, GroupMetadataManager.classicGroupLeave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.group_relay import PassedOn
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages.leave_group import LeaveGroupRequest, LeaveGroupResponse

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.LEAVE_GROUP
VERSIONS = range(6)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: LeaveGroupRequest) -> None:
    PassedOn(gateway, exchange, KEY, request, refuse, is_last_word=True)


def refuse(request: LeaveGroupRequest, version: int, error: int) -> LeaveGroupResponse:
    return LeaveGroupResponse(error_code=error)
