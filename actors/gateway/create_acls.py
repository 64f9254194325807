"""CreateAcls: answered as Kafka does without an authorizer: each is refused.

Versions 1-3, which say the same.
Source: KafkaApis.handleCreateAcls, AclApis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.describe_acls import NO_AUTHORIZER
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.create_acls import AclCreationResult, CreateAclsRequest, CreateAclsResponse

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.CREATE_ACLS
VERSIONS = range(1, 4)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: CreateAclsRequest) -> None:
    exchange.answer(CreateAclsResponse(
        results=[AclCreationResult(ErrorCode.SECURITY_DISABLED, NO_AUTHORIZER) for _ in request.creations]))
