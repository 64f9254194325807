"""ListGroups: the groups whose coordinator is on this broker. Clients ask every broker.

Versions 0-5. Version 4 adds states (KIP-518), 5 types (KIP-848). A partition of groups that is not here yet has none.
Source: KafkaApis.handleListGroupsRequest, GroupCoordinatorService.listGroups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.group_relay import GROUP_TOPIC, Relay, check_route, decoded
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.list_groups import ListGroupsRequest, ListGroupsResponse

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.LIST_GROUPS
VERSIONS = range(6)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: ListGroupsRequest) -> None:
    response = ListGroupsResponse(groups=[])

    def take(answer: ListGroupsResponse) -> None:
        response.groups += answer.groups

    def refuse(error: int) -> None:
        if error != ErrorCode.NOT_COORDINATOR:
            response.error_code = error

    def finish() -> None:
        if response.error_code:
            response.groups = []
        exchange.answer(response)

    relay = Relay(gateway, exchange, KEY, finish)
    for route in gateway.routes.by_topic.get(GROUP_TOPIC, {}).values():
        relay.ask(check_route(route), exchange.version, request, decoded(KEY, exchange.version, take), refuse)
    relay.start()
