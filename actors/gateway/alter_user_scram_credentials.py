"""AlterUserScramCredentials: what users prove that they know their password with. Stored and described, not asked for yet.

Version 0 (KIP-554). A salted password is turned into keys at once; it is stored nowhere.
Source: ControllerApis.handleAlterUserScramCredentials, ScramControlManager.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.client_change import ClientsChange, Outcomes
from zafka.actors.gateway.connection import Exchange
from zafka.actors.messages import ScramChange
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages.alter_user_scram_credentials import (
    AlterUserScramCredentialsRequest,
    AlterUserScramCredentialsResponse,
    AlterUserScramCredentialsResult,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.ALTER_USER_SCRAM_CREDENTIALS
VERSIONS = range(1)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: AlterUserScramCredentialsRequest) -> None:
    changes = [ScramChange(each.name, each.mechanism, True) for each in request.deletions]
    changes += [
        ScramChange(each.name, each.mechanism, False, each.salt, each.salted_password, each.iterations)
        for each in request.upsertions]

    def respond(outcomes: Outcomes) -> None:
        # One result for each user, however often the request names it.
        told = {change.user: outcome for change, outcome in zip(changes, outcomes, strict=True)}
        exchange.answer(AlterUserScramCredentialsResponse(results=[
            AlterUserScramCredentialsResult(user, error, message or None) for user, (error, message) in told.items()]))

    ClientsChange(gateway, changes, respond, validate_only=False).start()
