"""DescribeGroups: state and members of classic groups. Each group's coordinator answers for it.

Versions 0-6. Version 3 adds authorized operations, 4 static members, 6 an error for groups that are not there, which
are "Dead" before (KIP-1043).
Source: KafkaApis.handleDescribeGroupsRequest, GroupMetadataManager.describeGroups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.group_relay import Relay, decoded, find_route
from zafka.actors.gateway.operations import NOT_ASKED, ON_GROUP
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages.describe_groups import (
    DescribedGroup,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.DESCRIBE_GROUPS
VERSIONS = range(7)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: DescribeGroupsRequest) -> None:
    found: dict[int, DescribedGroup] = {}  # by the place in the request
    operations = ON_GROUP if request.include_authorized_operations else NOT_ASKED

    def finish() -> None:
        for group in found.values():
            group.authorized_operations = NOT_ASKED if group.error_code else operations
        exchange.answer(DescribeGroupsResponse(groups=[found[place] for place in sorted(found)]))

    relay = Relay(gateway, exchange, KEY, finish)
    for place, group_id in enumerate(request.groups):
        def take(answer: DescribeGroupsResponse, place: int = place) -> None:
            (found[place],) = answer.groups

        def refuse(error: int, place: int = place, group_id: str = group_id) -> None:
            found[place] = DescribedGroup(error, group_id=group_id)

        relay.ask(
            find_route(gateway, group_id), exchange.version, DescribeGroupsRequest([group_id]),
            decoded(KEY, exchange.version, take), refuse)
    relay.start()
