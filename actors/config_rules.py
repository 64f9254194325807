"""How a change of a topic's configuration turns out. Pure; the coordinator asks, nobody else.

Owns: the operations of IncrementalAlterConfigs, and Kafka's words for what is refused.
May fail with: `Refused`.
Source: KIP-339; ConfigurationControlManager.incrementalAlterConfigResource, .validateAlterConfig.
"""

from __future__ import annotations

from collections.abc import Mapping

from zafka.actors.messages import ConfigChange, ConfigOperation
from zafka.actors.refused import Refused
from zafka.storage.config import LIST, TOPIC_CONFIG, check_topic_config
from zafka.storage.errors import InvalidConfig
from zafka.transport.kafka.errors import ErrorCode

SET, DELETE, APPEND, SUBTRACT = range(4)
NAMES = ("SET", "DELETE", "APPEND", "SUBTRACT")


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
    if kind not in range(len(NAMES)):
        raise Refused(ErrorCode.INVALID_REQUEST, f"Unknown operation type {kind}.")
    if kind == DELETE:
        return None
    assert value is not None
    if kind == SET:
        return value
    known = TOPIC_CONFIG.get(key)
    if known is None or known.type != LIST:
        raise Refused(ErrorCode.INVALID_CONFIG, f"Can't {NAMES[kind]} to key {key} because its type is not LIST.")
    parts = [part for part in (known.default if current is None else current).split(",") if part]
    for part in value.split(","):
        if kind == APPEND and part not in parts:
            parts.append(part)
        elif kind == SUBTRACT and part in parts:
            parts.remove(part)
    return ",".join(parts)
