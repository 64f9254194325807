"""DescribeUserScramCredentials: which mechanisms users have credentials for, and their iterations; never a key.

Version 0 (KIP-554).
Source: ScramImage.describe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.describe_user_scram_credentials import (
    CredentialInfo,
    DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse,
    DescribeUserScramCredentialsResult,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS
VERSIONS = range(1)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: DescribeUserScramCredentialsRequest) -> None:
    found: dict[str, list[CredentialInfo]] = {}
    for (user, mechanism), credential in sorted(gateway.cluster.credentials.items(), key=lambda item: item[0]):
        found.setdefault(user, []).append(CredentialInfo(mechanism, credential.iterations))
    asked = [each.name for each in request.users or ()] or list(found)  # none named: all
    results = [
        describe(name, found.get(name, []), twice=asked.count(name) > 1) for name in dict.fromkeys(asked)]
    exchange.answer(DescribeUserScramCredentialsResponse(results=results))


def describe(user: str, known: list[CredentialInfo], *, twice: bool) -> DescribeUserScramCredentialsResult:
    if twice:
        return DescribeUserScramCredentialsResult(
            user, ErrorCode.DUPLICATE_RESOURCE,
            f"Cannot describe SCRAM credentials for the same user twice in a single request: {user}")
    if not known:
        return DescribeUserScramCredentialsResult(
            user, ErrorCode.RESOURCE_NOT_FOUND,
            f"Attempt to describe a user credential that does not exist: {user}")
    return DescribeUserScramCredentialsResult(user, 0, "", known)
