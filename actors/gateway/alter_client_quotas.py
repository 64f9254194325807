"""AlterClientQuotas: limits of users, client ids and addresses. Stored and described, not enforced yet.

Versions 0-1, which say the same (KIP-546, KIP-612).
Source: KafkaApis, ControllerApis.handleAlterClientQuotas, ClientQuotaControlManager.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.client_change import ClientsChange, Outcomes
from zafka.actors.gateway.connection import Exchange
from zafka.actors.messages import QuotaChange
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages.alter_client_quotas import (
    AlterClientQuotasRequest,
    AlterClientQuotasResponse,
    EntityData,
    EntryData,
    EntryDataResponse,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.ALTER_CLIENT_QUOTAS
VERSIONS = range(2)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: AlterClientQuotasRequest) -> None:
    def respond(outcomes: Outcomes) -> None:
        exchange.answer(AlterClientQuotasResponse(entries=[
            EntryDataResponse(error, message or None, [EntityData(*each) for each in change.entity])
            for change, (error, message) in zip(changes, outcomes, strict=True)]))

    changes = [_change(entry) for entry in request.entries]
    ClientsChange(gateway, changes, respond, validate_only=request.validate_only).start()


def _change(entry: EntryData) -> QuotaChange:
    entity = tuple(sorted(((each.entity_type, each.entity_name) for each in entry.entity), key=lambda each: each[0]))
    return QuotaChange(entity, [(op.key, None if op.remove else op.value) for op in entry.ops])
