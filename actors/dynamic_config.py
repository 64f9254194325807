"""What of brokers and groups may be altered while they run, and what holds then. Pure.

Owns: `DYNAMIC`, Kafka's dynamic broker settings as far as they have counterparts here; `GROUP_CONFIG`, the keys of a KIP-848
group; `decide_broker` and `decide_group`, which judge a change in Kafka's words; `defaults_of`, what a broker hands its
partitions. What is altered of one broker goes before what is altered of all, and that before the topology file, until the
file says something new of it (`outdated`).
May fail with: `Refused`.
Source: DynamicBrokerConfig, ControllerConfigurationValidator, GroupConfig (KIP-226, KIP-848).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from zafka.actors.broker_settings import (
    BROKER_NAMES,
    BROKER_SETTINGS,
    TOPIC_NAMES,
    TOPIC_ONLY,
    check_broker_setting,
    kafka_setting_hint,
)
from zafka.actors.cluster_state import ClusterState, ResourceConfigChanged
from zafka.actors.messages import ConfigOperation
from zafka.actors.refused import Refused
from zafka.storage.config import LIST, TOPIC_CONFIG
from zafka.transport.kafka.errors import ErrorCode

BROKER, GROUP = 4, 32  # resource types
ALL_BROKERS = ""
ALL_GROUPS = ""  # no group is called so

SET, DELETE, APPEND, SUBTRACT = range(4)
NAMES = ("SET", "DELETE", "APPEND", "SUBTRACT")

TOPIC_KEYS = {BROKER_NAMES.get(key, key): key for key in TOPIC_CONFIG if key not in TOPIC_ONLY}
"""A broker's name of each topic key that it has a default of."""
DYNAMIC_SETTINGS = frozenset((
    "group.consumer.assignment.interval.ms", "log.cleaner.backoff.ms", "log.cleaner.dedupe.buffer.size",
    "log.cleaner.io.max.bytes.per.second", "producer.id.expiration.ms"))
DYNAMIC = DYNAMIC_SETTINGS | TOPIC_KEYS.keys()
READ_ONLY = (BROKER_SETTINGS.keys() | TOPIC_NAMES.keys() | {"broker.id", "node.id", "broker.rack", "log.dirs"}) - DYNAMIC


class GroupKey(NamedTuple):
    """A key of one group. setting: the broker's, which holds for groups that say nothing. low: the least it may be at all.

    bounds: settings that bound it. documentation: as DescribeConfigs tells it."""

    setting: str
    low: int
    bounds: tuple[str, str]
    documentation: str


SESSION, HEARTBEAT, ASSIGNMENT = (
    "consumer.session.timeout.ms", "consumer.heartbeat.interval.ms", "consumer.assignment.interval.ms")
GROUP_CONFIG = {
    key: GroupKey(
        f"group.{key}", low,
        (f"group.{key.replace('consumer.', 'consumer.min.')}", f"group.{key.replace('consumer.', 'consumer.max.')}"),
        BROKER_SETTINGS[f"group.{key}"].meaning)
    for key, low in ((SESSION, 1), (HEARTBEAT, 1), (ASSIGNMENT, 0))}


# -- what holds -------------------------------------------------------------------------------------------


def defaults_of(broker_id: int, declared: Mapping[str, str], state: ClusterState) -> dict[str, str]:
    """Settings and topic configuration of a broker as a topology would write them. declared: by the topology."""
    altered = state.altered_of(BROKER, ALL_BROKERS) | state.altered_of(BROKER, str(broker_id))
    return {**declared, **{TOPIC_KEYS.get(name, name): value for name, value in altered.items()}}


def group_configs(broker_id: int, state: ClusterState) -> dict[str, dict[str, str]]:
    """What was altered of groups, by their ids; "" has what a broker has for all of them."""
    defaults = defaults_of(broker_id, {}, state)
    told = {ALL_GROUPS: {key: defaults[known.setting] for key, known in GROUP_CONFIG.items() if known.setting in defaults}}
    return told | {name: altered.config for (kind, name), altered in state.altered.items() if kind == GROUP}


def outdated(declared: Mapping[str, str], state: ClusterState) -> list[ResourceConfigChanged]:
    """What has to be taken back because the topology file says something new of it since it was altered."""
    changes = []
    for (kind, name), altered in state.altered.items():
        says = _said(altered.config, declared)
        kept = {key: value for key, value in altered.config.items() if says.get(key) == altered.declared.get(key)}
        if kept != altered.config:  # a topology says nothing of groups
            changes.append(ResourceConfigChanged(kind, name, kept, _said(kept, declared)))
    return changes


def _said(names: Iterable[str], declared: Mapping[str, str]) -> dict[str, str]:
    """What the topology says of settings, where it says something."""
    keys = {name: TOPIC_KEYS.get(name, name) for name in names}
    return {name: declared[key] for name, key in keys.items() if key in declared}


# -- what may be altered -------------------------------------------------------------------------------------


def decide_broker(
    name: str, operations: Iterable[ConfigOperation], current: Mapping[str, str], declared: Mapping[str, str]
) -> ResourceConfigChanged:
    """What is altered of a broker, or of all, after a change. current: before it. Raises Refused."""
    operations = list(operations)
    fixed = sorted(each.key for each in operations if each.kind != DELETE and each.key in READ_ONLY)
    config = dict(current)
    for operation in operations:
        value = _broker_value(operation, config.get(operation.key), declared)
        if value is None:
            config.pop(operation.key, None)
        else:
            config[operation.key] = value
    if fixed:
        raise Refused(ErrorCode.INVALID_REQUEST, f"Cannot update these configs dynamically: [{', '.join(fixed)}]")
    for key, value in config.items():
        _check_broker_value(key, value)
    return ResourceConfigChanged(BROKER, name, config, _said(config, declared))


def _broker_value(operation: ConfigOperation, current: str | None, declared: Mapping[str, str]) -> str | None:
    """What a key says after an operation, None if nothing."""
    key, value = operation.key, operation.value
    if operation.kind == DELETE:
        return None
    assert value is not None
    if operation.kind == SET:
        return value
    topic_key = TOPIC_KEYS.get(key, "")
    if key not in DYNAMIC and key not in READ_ONLY:
        raise Refused(ErrorCode.INVALID_CONFIG, f"Unknown config name: {key}")
    if topic_key not in TOPIC_CONFIG or TOPIC_CONFIG[topic_key].type != LIST:
        what = check_kind(operation.kind).lower()
        raise Refused(ErrorCode.INVALID_CONFIG, f"Config value {what} is not allowed for config key: {key}")
    begun = declared.get(topic_key, TOPIC_CONFIG[topic_key].default) if current is None else current
    return changed_list(operation, begun)


def _check_broker_value(key: str, text: str) -> None:
    if key in TOPIC_KEYS:
        try:
            TOPIC_CONFIG[TOPIC_KEYS[key]].parse(text.strip())
            reason = ""
        except ValueError as error:
            reason = str(error)
    elif key in DYNAMIC_SETTINGS:
        reason = check_broker_setting(key, text)
    else:
        near = difflib.get_close_matches(key, DYNAMIC, n=1, cutoff=0.5)
        hint = f", {kafka_setting_hint(key)}" if kafka_setting_hint(key) else f"; did you mean {near[0]!r}?" if near else ""
        raise Refused(ErrorCode.INVALID_CONFIG, f"{key}: there is no such broker configuration{hint}")
    if reason:
        raise Refused(ErrorCode.INVALID_REQUEST, f"Invalid value {text} for configuration {key}: {reason}")


def decide_group(
    name: str, operations: Iterable[ConfigOperation], current: Mapping[str, str], declared: Mapping[str, str]
) -> ResourceConfigChanged:
    """What is altered of a group after a change. current: before it. Raises Refused."""
    config = dict(current)
    for operation in operations:
        kind = check_kind(operation.kind)
        if kind in ("APPEND", "SUBTRACT"):
            raise Refused(
                ErrorCode.INVALID_CONFIG, f"Can't {kind} to key {operation.key} because its type is not LIST.")
        if kind == "DELETE":
            config.pop(operation.key, None)
        else:
            assert operation.value is not None
            config[operation.key] = operation.value
    numbers = {key: _check_group_value(key, text, declared) for key, text in config.items()}
    session, heartbeat = (numbers.get(key, _setting(GROUP_CONFIG[key].setting, declared)) for key in (SESSION, HEARTBEAT))
    if session <= heartbeat:
        raise Refused(ErrorCode.INVALID_CONFIG, f"{SESSION} must be greater than {HEARTBEAT}")
    return ResourceConfigChanged(GROUP, name, config)


def _check_group_value(key: str, text: str, declared: Mapping[str, str]) -> int:
    known = GROUP_CONFIG.get(key)
    if known is None:
        raise Refused(ErrorCode.INVALID_CONFIG, f"Unknown group config name: {key}")
    invalid = f"Invalid value {text} for configuration {key}: "
    try:
        number = int(text)
    except ValueError:
        raise Refused(ErrorCode.INVALID_CONFIG, invalid + "Not a number of type INT") from None
    if number < known.low:
        raise Refused(ErrorCode.INVALID_CONFIG, invalid + f"Value must be at least {known.low}")
    least, most = known.bounds
    if number < _setting(least, declared):
        raise Refused(ErrorCode.INVALID_CONFIG, f"{key} must be greater than or equal to {least}")
    if number > _setting(most, declared):
        raise Refused(ErrorCode.INVALID_CONFIG, f"{key} must be less than or equal to {most}")
    return number


def _setting(name: str, declared: Mapping[str, str]) -> int:
    return int(declared.get(name, BROKER_SETTINGS[name].default))


# -- operations -----------------------------------------------------------------------------------------------


def check_kind(kind: int) -> str:
    """The name of an operation of IncrementalAlterConfigs. Raises Refused if there is none."""
    if kind not in range(len(NAMES)):
        raise Refused(ErrorCode.INVALID_REQUEST, f"Unknown operation type {kind}.")
    return NAMES[kind]


def changed_list(operation: ConfigOperation, current: str) -> str:
    """A list after APPEND or SUBTRACT."""
    assert operation.value is not None
    parts = [part for part in current.split(",") if part]
    for part in operation.value.split(","):
        if operation.kind == APPEND and part not in parts:
            parts.append(part)
        elif operation.kind == SUBTRACT and part in parts:
            parts.remove(part)
    return ",".join(parts)
