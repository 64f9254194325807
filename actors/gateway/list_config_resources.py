"""ListConfigResources: what DescribeConfigs can be asked about.

Versions 0-1. Version 0 lists subscriptions to client metrics, of which there are none; 1 lists resources by their
types, all types for an empty list (KIP-1142). Of groups those are listed of which something was altered.
Source: KafkaApis.handleListConfigResources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.describe_configs import BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.list_config_resources import (
    ConfigResource,
    ListConfigResourcesRequest,
    ListConfigResourcesResponse,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.LIST_CONFIG_RESOURCES
VERSIONS = range(2)
ADVERTISED = VERSIONS

TYPES_SINCE = 1
TYPES = (BROKER_LOGGER, BROKER, TOPIC, GROUP, CLIENT_METRICS)


def handle(gateway: Gateway, exchange: Exchange, request: ListConfigResourcesRequest) -> None:
    types = set(request.resource_types or TYPES) if exchange.version >= TYPES_SINCE else {CLIENT_METRICS}
    if not types.issubset(TYPES):
        exchange.answer(ListConfigResourcesResponse(error_code=ErrorCode.UNSUPPORTED_VERSION))
        return
    brokers = [str(broker_id) for broker_id in gateway.cluster.brokers]
    groups = [name for kind, name in gateway.cluster.altered if kind == GROUP]
    names = {BROKER_LOGGER: brokers, BROKER: brokers, TOPIC: list(gateway.cluster.topics_by_name), GROUP: groups}
    exchange.answer(ListConfigResourcesResponse(config_resources=[
        ConfigResource(name, each) for each in TYPES if each in types for name in names.get(each, ())]))
