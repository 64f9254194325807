"""ApiVersions: what this broker speaks. The first request of every client.

Versions 0-4. A version that we do not know is answered in the layout of version 0 with UNSUPPORTED_VERSION and our
own range for this API, so that the client comes again with one that we know (KIP-511). The response header has no
tagged fields in any version.
Features (tags, since 3): `group.version` 1, the group protocol of KIP-848, and it cannot be turned off. Kafka's others
promise transactions, share groups and a replicated quorum, and clients take a missing one for level 0.
Source: ApiVersionsRequest, ApiVersionManager; KIP-511, KIP-584.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import response_writer
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.api_versions import (
    ApiVersion,
    ApiVersionsRequest,
    ApiVersionsResponse,
    FinalizedFeatureKey,
    SupportedFeatureKey,
)
from zafka.transport.kafka.types import Buffer

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.API_VERSIONS
VERSIONS = range(5)
ADVERTISED = VERSIONS

FEATURES = {"group.version": 1}  # the one level of each that is supported, and so in effect
FEATURES_EPOCH = 0  # they never change

CLIENT_NAMES_SINCE = 3
_CLIENT_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")


def handle(gateway: Gateway, exchange: Exchange, request: ApiVersionsRequest) -> None:
    names = (request.client_software_name, request.client_software_version)
    if exchange.version >= CLIENT_NAMES_SINCE and not all(map(_CLIENT_NAME.fullmatch, names)):
        exchange.answer(ApiVersionsResponse(error_code=ErrorCode.INVALID_REQUEST))
        return
    exchange.answer_frame([exchange.head, *encoded(exchange.version)])


@cache
def encoded(version: int) -> list[Buffer]:
    """The answer to all; it never changes while the broker runs."""
    from zafka.actors.gateway.registry import APIS

    apis = [ApiVersion(api.key, api.advertised.start, api.advertised.stop - 1) for api in APIS.values()]
    return response_writer(KEY, version)(ApiVersionsResponse(
        api_keys=sorted(apis, key=lambda api: api.api_key),
        supported_features=[SupportedFeatureKey(name, level, level) for name, level in FEATURES.items()],
        finalized_features_epoch=FEATURES_EPOCH,
        finalized_features=[FinalizedFeatureKey(name, level, level) for name, level in FEATURES.items()]))


@cache
def unsupported() -> list[Buffer]:
    """The answer to a version that we do not know."""
    own = ApiVersion(KEY, ADVERTISED.start, ADVERTISED.stop - 1)
    return response_writer(KEY, 0)(ApiVersionsResponse(ErrorCode.UNSUPPORTED_VERSION, [own]))
