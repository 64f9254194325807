"""DescribeGroups: state and members of classic groups. Each group's coordinator answers for it.

Versions 0-6. Version 3 adds authorized operations, 4 static members, 6 an error for groups that are not there, which
are "Dead" before (KIP-1043).
Source: KafkaApis.handleDescribeGroupsRequest, GroupMetadataManager.describeGroups.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.group_relay import describe_each, find_route
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
    describe_each(
        gateway, exchange, KEY, request.groups, partial(find_route, gateway), lambda group_id: DescribeGroupsRequest([group_id]),
        lambda error, group_id: DescribedGroup(error, group_id=group_id), lambda groups: DescribeGroupsResponse(groups=groups),
        ON_GROUP if request.include_authorized_operations else NOT_ASKED)
