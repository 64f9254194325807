"""JoinGroup: become or stay a member of a classic group. The group's coordinator answers, once all members have come.

Versions 0-9. Version 1 adds the rebalance timeout, 4 has new members come twice (KIP-394), 5 static members (KIP-345), 8 reasons
(KIP-800), 9 a leader that is not to assign (KIP-814).
Source: KafkaApis.handleJoinGroupRequest, GroupMetadataManager.classicGroupJoin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.group_relay import PassedOn
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages.join_group import JoinGroupRequest, JoinGroupResponse

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.JOIN_GROUP
VERSIONS = range(10)
ADVERTISED = VERSIONS

NULL_PROTOCOL_SINCE = 7


def handle(gateway: Gateway, exchange: Exchange, request: JoinGroupRequest) -> None:
    PassedOn(gateway, exchange, KEY, request, refuse)


def refuse(request: JoinGroupRequest, version: int, error: int) -> JoinGroupResponse:
    name = None if version >= NULL_PROTOCOL_SINCE else ""
    return JoinGroupResponse(error_code=error, protocol_name=name, member_id=request.member_id)
