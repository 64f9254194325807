"""ConsumerGroupDescribe: state, members and assignments of KIP-848 groups. Each group's coordinator answers for it.

Versions 0-1. Version 1 adds which protocol a member speaks (KIP-1099).
Source: KafkaApis.handleConsumerGroupDescribe, GroupMetadataManager.consumerGroupDescribe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.group_relay import describe_each, find_route
from zafka.actors.gateway.operations import NOT_ASKED, ON_GROUP
from zafka.actors.gateway.routes import Route
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.consumer_group_describe import (
    ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse,
    DescribedGroup,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.CONSUMER_GROUP_DESCRIBE
VERSIONS = range(2)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: ConsumerGroupDescribeRequest) -> None:
    def way(group_id: str) -> Route | int:
        # Without an id there is no group, and so no coordinator to ask.
        return find_route(gateway, group_id) if group_id else int(ErrorCode.INVALID_GROUP_ID)

    describe_each(
        gateway, exchange, KEY, request.group_ids, way, lambda group_id: ConsumerGroupDescribeRequest([group_id]),
        lambda error, group_id: DescribedGroup(error, group_id=group_id),
        lambda groups: ConsumerGroupDescribeResponse(groups=groups),
        ON_GROUP if request.include_authorized_operations else NOT_ASKED)
