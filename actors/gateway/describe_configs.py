"""DescribeConfigs: what a topic or this broker is configured with, and where each value comes from.

Versions 1-4. Synonyms (where a value would come from otherwise) are given since version 1, types and documentation
since 3. A broker tells what it obeys; of "" all brokers' altered settings are told. Loggers and client metrics are
answered, and have nothing that could be set.
Source: ConfigHelper.describeConfigs; KIP-226.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from zafka.actors.gateway.broker_config import (
    Layers,
    describe_all,
    describe_broker,
    describe_group,
    describe_topic,
    layers_of,
)
from zafka.actors.gateway.connection import Exchange
from zafka.actors.refused import Refused
from zafka.actors.topic_rules import check_legal_name
from zafka.storage.config import LIST, ConfigEntry
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

TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP = 2, 4, 8, 16, 32  # resource types
KINDS = (TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP)
UNKNOWN_TYPE = (
    "This most likely occurs because of a request being malformed by the client library or the message was sent to an "
    "incompatible broker. See the broker logs for more details.")


def handle(gateway: Gateway, exchange: Exchange, request: DescribeConfigsRequest) -> None:
    # Each once, or a small request could have a huge answer.
    once = {(resource.resource_type, resource.resource_name): resource for resource in request.resources}.values()
    if all(resource.resource_type in KINDS for resource in once):
        results = [describe(gateway, resource, request) for resource in once]
    else:  # one of them is enough to have Kafka refuse all
        results = [
            DescribeConfigsResult(ErrorCode.INVALID_REQUEST, UNKNOWN_TYPE, each.resource_type, each.resource_name)
            for each in once]
    exchange.answer(DescribeConfigsResponse(results=results))


def describe(
    gateway: Gateway, resource: DescribeConfigsResource, request: DescribeConfigsRequest
) -> DescribeConfigsResult:
    result = DescribeConfigsResult(0, "", resource.resource_type, resource.resource_name)
    try:
        entries = entries_of(gateway, resource.resource_type, resource.resource_name)
    except Refused as refused:
        result.error_code, result.error_message = refused.error, refused.message
        return result
    keys = None if resource.configuration_keys is None else frozenset(resource.configuration_keys)
    # Kafka takes an empty list for all of them, as older clients mean it.
    result.configs = [describe_entry(entry, request) for entry in entries if not keys or entry.name in keys]
    return result


def entries_of(gateway: Gateway, kind: int, name: str) -> list[ConfigEntry]:
    """The configuration of one resource. Raises Refused."""
    if kind == TOPIC:
        topic = gateway.cluster.topics_by_name.get(name)
        if topic is None:
            check_legal_name(name)
            raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "")
        return topic_configs(gateway, topic.config)
    if kind == BROKER:
        if name:
            check_broker(gateway, name, "expected {} or empty string, but received {}")
        me, layers = gateway.cluster.brokers.get(gateway.broker_id), _layers(gateway)
        entries = describe_broker(
            gateway.broker_id, rack=me.rack if me else "", log_dir=str(gateway.routes.data_dir),
            endpoints=gateway.endpoints, layers=layers)
        return entries if name else describe_all(entries, layers)
    if kind == BROKER_LOGGER:
        check_broker(gateway, name, "expected {} but received {}")
        return []
    assert kind in (CLIENT_METRICS, GROUP)
    if not name:
        what = "Client metrics subscription" if kind == CLIENT_METRICS else "Group"
        raise Refused(ErrorCode.INVALID_REQUEST, f"{what} name must not be empty")
    return describe_group(gateway.cluster.altered_of(GROUP, name), _layers(gateway)) if kind == GROUP else []


def _layers(gateway: Gateway) -> Layers:
    return layers_of(gateway.broker_id, gateway.cluster, gateway.defaults)


def check_broker(gateway: Gateway, name: str, expected: str, *, what: str = "Broker") -> None:
    """Raises Refused for a name that is not this broker's id. expected, what: Kafka's words, which differ by API."""
    if not (name.isascii() and name.lstrip("-").isdigit()):
        raise Refused(ErrorCode.INVALID_REQUEST, f"{what} id must be an integer, but it is: {name}")
    if name != str(gateway.broker_id):
        raise Refused(
            ErrorCode.INVALID_REQUEST, "Unexpected broker id, " + expected.format(gateway.broker_id, name))


def topic_configs(gateway: Gateway, overrides: Mapping[str, str]) -> list[ConfigEntry]:
    """Every topic configuration key, as it holds for a topic with these overrides."""
    return describe_topic(overrides, _layers(gateway))


def describe_entry(entry: ConfigEntry, request: DescribeConfigsRequest) -> DescribeConfigsResourceResult:
    synonyms = [DescribeConfigsSynonym(*each) for each in entry.synonyms] if request.include_synonyms else []
    value = entry.value
    if entry.type == LIST and value:  # as it is obeyed, not as it was written
        value = ",".join(dict.fromkeys(part.strip() for part in value.split(",")))
    return DescribeConfigsResourceResult(
        entry.name, value, entry.read_only, entry.source, False, synonyms, entry.type,
        entry.documentation if request.include_documentation else None)
