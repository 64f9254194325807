"""DescribeConfigs: what a topic or this broker is configured with, and where each value comes from.

Versions 1-4. Synonyms (where a value would come from otherwise) are given since version 1, types and documentation
since 3.
Source: ConfigHelper.describeConfigs; KIP-226.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.storage.config import ConfigEntry, describe_config
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.DESCRIBE_CONFIGS
VERSIONS = range(1, 5)
ADVERTISED = VERSIONS

TOPIC, BROKER = 2, 4  # resource types


def handle(gateway: Gateway, exchange: Exchange, request: DescribeConfigsRequest) -> None:
    # Each once, or a small request could have a huge answer.
    once = {(resource.resource_type, resource.resource_name): resource for resource in request.resources}.values()
    results = [describe(gateway, resource, request) for resource in once]
    exchange.answer(DescribeConfigsResponse(results=results))


def describe(
    gateway: Gateway, resource: DescribeConfigsResource, request: DescribeConfigsRequest
) -> DescribeConfigsResult:
    result = DescribeConfigsResult(0, None, resource.resource_type, resource.resource_name)
    if resource.resource_type == TOPIC:
        topic = gateway.cluster.topics_by_name.get(resource.resource_name)
        if topic is None:
            result.error_code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            return result
        entries = topic_configs(gateway, topic.config)
    elif resource.resource_type == BROKER and resource.resource_name in ("", str(gateway.broker_id)):
        entries = topic_configs(gateway, {})
    else:
        result.error_code = ErrorCode.INVALID_REQUEST
        result.error_message = f"cannot describe resource type {resource.resource_type}, {resource.resource_name!r}"
        return result
    keys = resource.configuration_keys
    result.configs = [describe_entry(entry, request) for entry in entries if keys is None or entry.name in keys]
    return result


def topic_configs(gateway: Gateway, overrides: Mapping[str, str]) -> list[ConfigEntry]:
    """Every topic configuration key, as it holds for a topic with these overrides."""
    return describe_config(overrides, gateway.defaults)


def describe_entry(entry: ConfigEntry, request: DescribeConfigsRequest) -> DescribeConfigsResourceResult:
    synonyms = [DescribeConfigsSynonym(entry.name, entry.value, entry.source)] if request.include_synonyms else []
    return DescribeConfigsResourceResult(
        entry.name, entry.value, False, entry.source, False, synonyms, entry.type,
        entry.documentation if request.include_documentation else None)
