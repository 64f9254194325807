"""FindCoordinator: who leads a group or a transaction. Nobody yet.

Versions 0-6; 4 asks for several keys at once (KIP-699), 6 knows share groups (KIP-932), which are refused. Groups are answered COORDINATOR_NOT_AVAILABLE, which is true
and which clients try again. For transactions a retry would only hide that they are not supported yet:
TRANSACTIONAL_ID_AUTHORIZATION_FAILED is the one answer that all clients take as final, and its message says why.
Source: KafkaApis.handleFindCoordinatorRequest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.find_coordinator import (
    Coordinator,
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.FIND_COORDINATOR
VERSIONS = range(7)
ADVERTISED = VERSIONS

SEVERAL_KEYS_SINCE = 4
GROUP, TRANSACTION, SHARE = 0, 1, 2


def handle(gateway: Gateway, exchange: Exchange, request: FindCoordinatorRequest) -> None:
    error, message = refusal(request.key_type)
    if exchange.version >= SEVERAL_KEYS_SINCE:
        coordinators = [Coordinator(key, -1, "", -1, error, message) for key in request.coordinator_keys]
        exchange.answer(FindCoordinatorResponse(coordinators=coordinators))
        return
    exchange.answer(FindCoordinatorResponse(error_code=error, error_message=message, node_id=-1, host="", port=-1))


def refusal(key_type: int) -> tuple[int, str]:
    if key_type == GROUP:
        return ErrorCode.COORDINATOR_NOT_AVAILABLE, "consumer groups are not supported yet by this cluster"
    if key_type == SHARE:
        return ErrorCode.INVALID_REQUEST, "share groups are not supported yet by this cluster"
    if key_type == TRANSACTION:
        return ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "transactions are not supported yet by this cluster"
    return ErrorCode.INVALID_REQUEST, f"unknown key type {key_type}"
