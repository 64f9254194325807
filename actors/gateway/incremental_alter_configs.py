"""IncrementalAlterConfigs: set, delete, append to or subtract from single keys of a configuration.

Versions 0-1, which say the same. Otherwise as AlterConfigs (`alter_configs.py`).
Source: KIP-339; KafkaApis.handleIncrementalAlterConfigsRequest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.alter_configs import Result, alter
from zafka.actors.gateway.connection import Exchange
from zafka.actors.messages import ConfigChange, ConfigOperation
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages.incremental_alter_configs import (
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.INCREMENTAL_ALTER_CONFIGS
VERSIONS = range(2)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: IncrementalAlterConfigsRequest) -> None:
    def respond(results: list[Result]) -> None:
        exchange.answer(IncrementalAlterConfigsResponse(responses=[AlterConfigsResourceResponse(*result) for result in results]))

    alter(gateway, request.resources, _change, respond, validate_only=request.validate_only)


def _change(resource: AlterConfigsResource) -> ConfigChange:
    return ConfigChange(
        resource.resource_type, resource.resource_name,
        [ConfigOperation(each.config_operation, each.name, each.value) for each in resource.configs])
