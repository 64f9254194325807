"""DescribeAcls: answered as Kafka does without an authorizer: there is nothing that could be described.

Versions 1-3, which say the same.
Source: KafkaApis.handleDescribeAcls, AclApis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.describe_acls import DescribeAclsRequest, DescribeAclsResponse

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.DESCRIBE_ACLS
VERSIONS = range(1, 4)
ADVERTISED = VERSIONS

NO_AUTHORIZER = "No Authorizer is configured."


def handle(gateway: Gateway, exchange: Exchange, request: DescribeAclsRequest) -> None:
    exchange.answer(DescribeAclsResponse(error_code=ErrorCode.SECURITY_DISABLED, error_message="No Authorizer is configured on the broker"))
