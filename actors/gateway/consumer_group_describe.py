"""ConsumerGroupDescribe: state, members and assignments of KIP-848 groups. Each group's coordinator answers for it.

Versions 0-1. Version 1 adds which protocol a member speaks (KIP-1099).
Source: KafkaApis.handleConsumerGroupDescribe, GroupMetadataManager.consumerGroupDescribe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.group_relay import Relay, decoded, find_route
from zafka.actors.gateway.operations import NOT_ASKED, ON_GROUP
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
    found: dict[int, DescribedGroup] = {}  # by the place in the request
    operations = ON_GROUP if request.include_authorized_operations else NOT_ASKED

    def finish() -> None:
        for group in found.values():
            group.authorized_operations = NOT_ASKED if group.error_code else operations
        exchange.answer(ConsumerGroupDescribeResponse(groups=[found[place] for place in sorted(found)]))

    relay = Relay(gateway, exchange, KEY, finish)
    for place, group_id in enumerate(request.group_ids):
        def take(answer: ConsumerGroupDescribeResponse, place: int = place) -> None:
            (found[place],) = answer.groups

        def refuse(error: int, place: int = place, group_id: str = group_id) -> None:
            found[place] = DescribedGroup(error, group_id=group_id)

        # Without an id there is no group, and so no coordinator to ask.
        route = find_route(gateway, group_id) if group_id else int(ErrorCode.INVALID_GROUP_ID)
        relay.ask(
            route, exchange.version, ConsumerGroupDescribeRequest([group_id]), decoded(KEY, exchange.version, take),
            refuse)
    relay.start()
