"""SaslAuthenticate: answered as by Kafka's listeners without SASL (`sasl_handshake.py`).

Versions 0-2. Version 1 tells how long the session lasts (KIP-368).
Source: KafkaApis.handleSaslAuthenticateRequest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.sasl_authenticate import SaslAuthenticateRequest, SaslAuthenticateResponse

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.SASL_AUTHENTICATE
VERSIONS = range(3)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: SaslAuthenticateRequest) -> None:
    exchange.answer(SaslAuthenticateResponse(
        ErrorCode.ILLEGAL_SASL_STATE, "SaslAuthenticate request received after successful authentication"))
