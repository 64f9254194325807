"""SaslHandshake: nobody has to say who he is on these listeners, and who comes to do so is told that he need not.

Versions 0-1, which say the same. Answered as by Kafka's listeners without SASL, with ILLEGAL_SASL_STATE and no mechanism:
clients that are configured for SASL take it as final and say so, where the end of the connection would have them come again for ever.
Source: KafkaApis.handleSaslHandshakeRequest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.sasl_handshake import SaslHandshakeRequest, SaslHandshakeResponse

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.SASL_HANDSHAKE
VERSIONS = range(2)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: SaslHandshakeRequest) -> None:
    exchange.answer(SaslHandshakeResponse(ErrorCode.ILLEGAL_SASL_STATE, []))
