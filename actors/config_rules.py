"""How a change of configuration turns out. Pure; the coordinator asks, nobody else.

Owns: what becomes of a topic's configuration, in Kafka's words; `dynamic_config.py` judges brokers' and groups'.
May fail with: `Refused`.
Source: KIP-339; ConfigurationControlManager.incrementalAlterConfigResource, .validateAlterConfig.
"""

from __future__ import annotations

from collections.abc import Mapping

from zafka.actors.cluster_state import AnyEvent, ClusterState, TopicConfigChanged
from zafka.actors.dynamic_config import (
    BROKER,
    DELETE,
    NAMES,
    SET,
    changed_list,
    check_kind,
    decide_broker,
    decide_group,
)
from zafka.actors.messages import ConfigChange, ConfigOperation
from zafka.actors.refused import Refused
from zafka.storage.config import LIST, TOPIC_CONFIG, check_topic_config
from zafka.storage.errors import InvalidConfig
from zafka.transport.kafka.errors import ErrorCode

TOPIC = 2  # resource type


def decide_change(change: ConfigChange, state: ClusterState, declared: Mapping[str, str]) -> AnyEvent | None:
    """The event of a change that may be, None if it changes nothing. declared: defaults of the topology. Raises Refused."""
    if change.kind == TOPIC:
        topic = state.topics_by_name.get(change.name)
        if topic is None:
            raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{change.name}' does not exist.")
        config = decide_config(change, topic.config)
        return TopicConfigChanged(topic.topic_id, config) if config != topic.config else None
    altered = state.altered_of(change.kind, change.name)
    decide = decide_broker if change.kind == BROKER else decide_group
    event = decide(change.name, change.operations, {} if change.replace else altered, declared)
    return event if event.config != altered else None



def decide_config(change: ConfigChange, current: Mapping[str, str]) -> dict[str, str]:
    """All overrides of a topic after a change. current: those before it. Raises Refused."""
    config = {} if change.replace else dict(current)
    for operation in change.operations:
        value = _value_after(operation, config.get(operation.key))
        if value is None:
            config.pop(operation.key, None)
        else:
            config[operation.key] = value
    try:
        check_topic_config(config)
    except InvalidConfig as invalid:
        raise Refused(ErrorCode.INVALID_CONFIG, str(invalid)) from None
    return config


def _value_after(operation: ConfigOperation, current: str | None) -> str | None:
    """What a key says after an operation, None if nothing."""
    kind, key, value = operation.kind, operation.key, operation.value
    check_kind(kind)
    if kind == DELETE:
        return None
    assert value is not None
    if kind == SET:
        return value
    known = TOPIC_CONFIG.get(key)
    if known is None or known.type != LIST:
        raise Refused(ErrorCode.INVALID_CONFIG, f"Can't {NAMES[kind]} to key {key} because its type is not LIST.")
    return changed_list(operation, known.default if current is None else current)
