"""DescribeClientQuotas: the quotas that were stored, filtered by user, client id and address.

Versions 0-1, which say the same (KIP-546, KIP-612).
Source: ClientQuotasImage.describe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.client_rules import CLIENT_ID, IP, USER
from zafka.actors.cluster_state import Entity
from zafka.actors.gateway.connection import Exchange
from zafka.actors.refused import Refused
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.describe_client_quotas import (
    ComponentData,
    DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
    EntityData,
    EntryData,
    ValueData,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.DESCRIBE_CLIENT_QUOTAS
VERSIONS = range(2)
ADVERTISED = VERSIONS

EXACT, DEFAULT, SPECIFIED = range(3)  # match types
NAMES = {EXACT: "EXACT", DEFAULT: "DEFAULT", SPECIFIED: "SPECIFIED"}
MIXED = (
    "Invalid entity filter component combination. IP filter component should not be used with user or clientId filter "
    "component.")


def handle(gateway: Gateway, exchange: Exchange, request: DescribeClientQuotasRequest) -> None:
    try:
        check(request.components)
    except Refused as refused:
        exchange.answer(DescribeClientQuotasResponse(
            error_code=refused.error, error_message=refused.message, entries=None))
        return
    exchange.answer(DescribeClientQuotasResponse(entries=[
        EntryData(
            [EntityData(*each) for each in entity], [ValueData(key, value) for key, value in sorted(quotas.items())])
        for entity, quotas in gateway.cluster.quotas.items() if matches(entity, request)]))


def check(components: list[ComponentData]) -> None:
    """Raises Refused for a filter that says nothing sensible."""
    seen: set[str] = set()
    for each in components:
        if not each.entity_type:
            raise Refused(ErrorCode.INVALID_REQUEST, "Invalid empty entity type.")
        if each.entity_type in seen:
            raise Refused(
                ErrorCode.INVALID_REQUEST, f"Entity type {each.entity_type} cannot appear more than once in the filter.")
        if each.entity_type not in (USER, CLIENT_ID, IP):
            raise Refused(ErrorCode.UNSUPPORTED_VERSION, f"Unsupported entity type {each.entity_type}")
        if each.match_type not in NAMES:
            raise Refused(ErrorCode.INVALID_REQUEST, f"Unknown match type {each.match_type}")
        what = f"Request specified MATCH_TYPE_{NAMES[each.match_type]}, but "
        if each.match_type == EXACT and each.match is None:
            raise Refused(ErrorCode.INVALID_REQUEST, what + "set match string to null.")
        if each.match_type != EXACT and each.match is not None:
            raise Refused(ErrorCode.INVALID_REQUEST, what + "also specified a match string.")
        seen.add(each.entity_type)
    if IP in seen and len(seen) > 1:
        raise Refused(ErrorCode.INVALID_REQUEST, MIXED)


def matches(entity: Entity, request: DescribeClientQuotasRequest) -> bool:
    names = dict(entity)
    for each in request.components:
        if each.entity_type not in names:
            return False
        if each.match_type != SPECIFIED and names[each.entity_type] != each.match:
            return False
    return not request.strict or len(names) == len(request.components)
