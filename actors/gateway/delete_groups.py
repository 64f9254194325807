"""DeleteGroups: have groups without members forgotten, with their offsets. Each group's coordinator decides.

Versions 0-2, which say the same.
Source: KafkaApis.handleDeleteGroupsRequest, GroupCoordinatorShard.deleteGroups; KIP-229.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.group_relay import Relay, decoded, find_route
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages.delete_groups import (
    DeletableGroupResult,
    DeleteGroupsRequest,
    DeleteGroupsResponse,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.DELETE_GROUPS
VERSIONS = range(3)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: DeleteGroupsRequest) -> None:
    results = {group_id: DeletableGroupResult(group_id) for group_id in request.groups_names}  # each once

    def finish() -> None:
        exchange.answer(DeleteGroupsResponse(results=list(results.values())))

    def take(answer: DeleteGroupsResponse) -> None:
        for result in answer.results:
            results[result.group_id] = result

    relay = Relay(gateway, exchange, KEY, finish)
    for group_id, result in list(results.items()):
        def refuse(error: int, result: DeletableGroupResult = result) -> None:
            result.error_code = error

        relay.ask(
            find_route(gateway, group_id), exchange.version, DeleteGroupsRequest([group_id]),
            decoded(KEY, exchange.version, take), refuse)
    relay.start()
