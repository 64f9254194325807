"""AlterConfigs: all overrides of a topic are said anew. What both ways of altering a configuration share.

Versions 0-2, which say the same. Since 2019 clients use IncrementalAlterConfigs (`incremental_alter_configs.py`); this one
takes away what is not named. A topic's change is answered once it is committed and this broker obeys it. Brokers,
loggers, groups and client metrics have nothing that could be altered.
Source: KafkaApis.handleAlterConfigsRequest, ConfigAdminManager.preprocess, ControllerApis.handleLegacyAlterConfigs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from zafka.actors.config_rules import DELETE, SET
from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.describe_configs import BROKER, KINDS, TOPIC, check_broker
from zafka.actors.gateway.topic_change import TopicChange
from zafka.actors.messages import AlterTopicConfigs, ConfigChange, ConfigOperation, TopicResult
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

TIMEOUT_MS = 30_000  # the requests say none; Kafka's controller has request.timeout.ms
TWICE = "Each resource must appear at most once."
KEY_TWICE = "Error due to duplicate config keys"

Result = tuple[int, str | None, int, str]
"""Error, message, resource type and name: a result in the answers to both APIs."""


class Altering(TopicChange[ConfigChange]):
    """A request until this broker obeys what it changed. respond_with: makes the answer."""

    def __init__(self, gateway: Gateway, exchange: Exchange, respond_with: Callable[[list[Result]], Any], *, validate_only: bool) -> None:
        super().__init__(gateway, exchange, validate_only=validate_only)
        self.results: dict[tuple[int, str], Result] = {}
        self.times: Counter[tuple[int, str]] = Counter()  # how often each resource was named
        self._respond_with = respond_with

    def shows(self, result: TopicResult) -> bool:
        return self.gateway.applied >= self.offset

    def refuse(self, name: str, error: int, message: str | None) -> None:
        self.results[TOPIC, name] = (error, message, TOPIC, name)

    def accept(self, wanted: ConfigChange, result: TopicResult) -> None:
        self.results[TOPIC, result.name] = (0, None, TOPIC, result.name)

    def respond(self) -> None:
        self.exchange.answer(self._respond_with(
            [result for resource, result in self.results.items() for _ in range(self.times[resource])]))


def handle(gateway: Gateway, exchange: Exchange, request: AlterConfigsRequest) -> None:
    alter(Altering(gateway, exchange, _response, validate_only=request.validate_only), request.resources, _replacement)


def _response(results: list[Result]) -> AlterConfigsResponse:
    return AlterConfigsResponse(responses=[AlterConfigsResourceResponse(*result) for result in results])


def _replacement(resource: AlterConfigsResource) -> ConfigChange:
    return ConfigChange(
        resource.resource_name, [ConfigOperation(SET, config.name, config.value) for config in resource.configs], True)


def alter(altering: Altering, resources: Sequence[Any], change_of: Callable[[Any], ConfigChange]) -> None:
    """Check what needs no coordinator, and have that one decide on the rest."""
    times = altering.times = Counter((resource.resource_type, resource.resource_name) for resource in resources)
    for resource in resources:
        kind, name = resource.resource_type, resource.resource_name
        altering.results[kind, name] = (0, None, kind, name)  # in the order of the request
        try:
            if times[kind, name] > 1:
                raise Refused(ErrorCode.INVALID_REQUEST, TWICE)
            check_resource(altering.gateway, kind, name)
            change = change_of(resource)
            check_operations(change)
            if kind != TOPIC:
                check_nothing_is_set(change)
                continue
        except Refused as refused:
            altering.results[kind, name] = (refused.error, refused.message, kind, name)
        else:
            altering.asked[name] = change
    changes = list(altering.asked.values())
    altering.start(lambda request_id: AlterTopicConfigs(request_id, changes, altering.validate_only), TIMEOUT_MS)


def check_resource(gateway: Gateway, kind: int, name: str) -> None:
    """Raises Refused for what does not exist."""
    if kind == TOPIC:
        if not name:
            raise Refused(ErrorCode.INVALID_REQUEST, "Default topic resources are not allowed.")
        check_legal_name(name)
        return
    if kind not in KINDS:
        raise Refused(ErrorCode.INVALID_REQUEST, f"Unknown resource type {kind}")
    if kind == BROKER and name:
        check_broker(gateway, name, "expected {}, but received {}", what="Node")


def check_nothing_is_set(change: ConfigChange) -> None:
    """Raises Refused for what would have to be kept for a broker, logger, group or client. To take away what is not
    there is fine: Kafka's tools do so to tidy up."""
    keys = sorted(each.key for each in change.operations if each.kind != DELETE)
    if keys:
        raise Refused(ErrorCode.INVALID_REQUEST, f"Cannot update these configs dynamically: [{', '.join(keys)}]")


def check_operations(change: ConfigChange) -> None:
    """Raises Refused for what no topic could be told."""
    keys = Counter(operation.key for operation in change.operations)
    if any(count > 1 for count in keys.values()):
        raise Refused(ErrorCode.INVALID_REQUEST, KEY_TWICE)
    nulls = [each.key for each in change.operations if each.value is None and each.kind != DELETE]
    if nulls:
        raise Refused(ErrorCode.INVALID_REQUEST, f"Null value not supported for : {','.join(nulls)}")
