"""AlterConfigs: all that was altered of a resource is said anew. What both ways of altering a configuration share.

Versions 0-2, which say the same. Since 2019 clients use IncrementalAlterConfigs (`incremental_alter_configs.py`); this one
takes away what is not named. A change of a topic, a broker (or of all: "") or a group is answered once it is committed and
this broker obeys it; of brokers only Kafka's dynamic settings can be altered. Loggers and client metrics have nothing that could.
Source: KafkaApis.handleAlterConfigsRequest, ConfigAdminManager.preprocess, ControllerApis.handleLegacyAlterConfigs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from zafka.actors.dynamic_config import DELETE, SET
from zafka.actors.gateway.client_change import Change, Outcomes
from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.describe_configs import BROKER, GROUP, KINDS, TOPIC, check_broker
from zafka.actors.messages import AlterConfigs, ConfigChange, ConfigOperation
from zafka.actors.refused import Refused
from zafka.actors.topic_rules import check_legal_name
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.alter_configs import (
    AlterConfigsRequest,
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    AlterConfigsResponse,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.ALTER_CONFIGS
VERSIONS = range(3)
ADVERTISED = VERSIONS

TWICE = "Each resource must appear at most once."
KEY_TWICE = "Error due to duplicate config keys"

Result = tuple[int, str | None, int, str]
"""Error, message, resource type and name: a result in the answers to both APIs."""


def handle(gateway: Gateway, exchange: Exchange, request: AlterConfigsRequest) -> None:
    def respond(results: list[Result]) -> None:
        exchange.answer(AlterConfigsResponse(responses=[AlterConfigsResourceResponse(*result) for result in results]))

    alter(gateway, request.resources, _replacement, respond, validate_only=request.validate_only)


def _replacement(resource: AlterConfigsResource) -> ConfigChange:
    return ConfigChange(
        resource.resource_type, resource.resource_name, [ConfigOperation(SET, config.name, config.value) for config in resource.configs], True)


def alter(
    gateway: Gateway, resources: Sequence[Any], change_of: Callable[[Any], ConfigChange],
    respond: Callable[[list[Result]], None], *, validate_only: bool,
) -> None:
    """Check what needs no coordinator, have that one decide on the rest, and respond when this broker obeys it."""
    times = Counter((resource.resource_type, resource.resource_name) for resource in resources)
    results: dict[tuple[int, str], Result] = {}
    asked: list[ConfigChange] = []
    for resource in resources:
        kind, name = resource.resource_type, resource.resource_name
        results[kind, name] = (0, None, kind, name)  # in the order of the request
        try:
            if times[kind, name] > 1:
                raise Refused(ErrorCode.INVALID_REQUEST, TWICE)
            check_resource(gateway, kind, name)
            change = change_of(resource)
            check_operations(change)
            if kind in (TOPIC, BROKER, GROUP):
                asked.append(change)
            else:
                check_nothing_is_set(change)
        except Refused as refused:
            results[kind, name] = (refused.error, refused.message, kind, name)

    def on_outcomes(outcomes: Outcomes) -> None:
        for change, (error, message) in zip(asked, outcomes, strict=True):
            results[change.kind, change.name] = (error, message or None if error else None, change.kind, change.name)
        respond([result for resource, result in results.items() for _ in range(times[resource])])

    Change(gateway, lambda request_id: AlterConfigs(request_id, asked, validate_only), len(asked), on_outcomes).start()


def check_resource(gateway: Gateway, kind: int, name: str) -> None:
    """Raises Refused for what does not exist."""
    if kind == TOPIC:
        if not name:
            raise Refused(ErrorCode.INVALID_REQUEST, "Default topic resources are not allowed.")
        check_legal_name(name)
        return
    if kind not in KINDS:
        raise Refused(ErrorCode.INVALID_REQUEST, f"Unknown resource type {kind}")
    if kind == GROUP and not name:
        raise Refused(ErrorCode.INVALID_REQUEST, "Default group resources are not allowed.")
    if kind == BROKER and name:
        check_broker(gateway, name, "expected {}, but received {}", what="Node")


def check_nothing_is_set(change: ConfigChange) -> None:
    """Raises Refused for what would have to be kept for a logger or a client. To take away what is not
    there is fine: Kafka's tools do so to tidy up."""
    keys = sorted(each.key for each in change.operations if each.kind != DELETE)
    if keys:
        raise Refused(ErrorCode.INVALID_REQUEST, f"Cannot update these configs dynamically: [{', '.join(keys)}]")


def check_operations(change: ConfigChange) -> None:
    """Raises Refused for what nothing could be told."""
    keys = Counter(operation.key for operation in change.operations)
    if any(count > 1 for count in keys.values()):
        raise Refused(ErrorCode.INVALID_REQUEST, KEY_TWICE)
    nulls = [each.key for each in change.operations if each.value is None and each.kind != DELETE]
    if nulls:
        raise Refused(ErrorCode.INVALID_REQUEST, f"Null value not supported for : {','.join(nulls)}")
