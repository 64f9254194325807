"""Topic configuration: every key of Kafka 4.3, what it may say, what it says by default, and which are obeyed.

Owns: `TOPIC_CONFIG`, the keys as clients see them; `LogConfig`, the values as code uses them.
May fail with: InvalidConfig, whose message names key, reason and the nearest valid key. A value that is valid in Kafka
but would have no effect here is refused as not supported yet, never ignored.
Source: org.apache.kafka.common.config.TopicConfig; org.apache.kafka.storage.internals.log.LogConfig.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from zafka.storage.errors import InvalidConfig

__all__ = [
    "TOPIC_CONFIG",
    "ConfigEntry",
    "InvalidConfig",
    "LogConfig",
    "check_topic_config",
    "describe_config",
    "parse_config",
]

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1

# Types as DescribeConfigs tells them.
BOOLEAN = 1
STRING = 2
INT = 3
LONG = 5
DOUBLE = 6
LIST = 7

# Where a value comes from, as DescribeConfigs tells it.
TOPIC_SOURCE = 1
BROKER_SOURCE = 4
DEFAULT_SOURCE = 5

FSYNC_ALWAYS = "always"
FSYNC_INTERVAL = "interval"
FSYNC_OS = "os"


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What of a topic's configuration one partition obeys. Kafka's names with underscores; sizes are bytes.

    retention_ms, retention_bytes: -1 means no limit, as does a cleanup_policy without "delete".
    flush_ms: how long an append may wait for its flush if fsync is "interval".
    checkpoint_bytes, checkpoint_batches: how much may be appended before a recovery checkpoint is due, so that a
        restart scans about that much at most.
    producer_id_expiration_ms: a broker setting of Kafka's, handed down with the topic's keys.
    snapshot_records: how much may be appended to a coordinator's log before a snapshot of its state is due.
    """

    checkpoint_batches: int = 20_000
    checkpoint_bytes: int = 16 * 1024 * 1024
    cleanup_policy: tuple[str, ...] = ("delete",)
    compression_type: str = "producer"
    delete_retention_ms: int = 86_400_000
    file_delete_delay_ms: int = 60_000
    flush_ms: int = 1_000
    fsync: str = FSYNC_ALWAYS
    index_interval_bytes: int = 4096
    max_compaction_lag_ms: int = INT64_MAX
    max_message_bytes: int = 1_048_588
    message_timestamp_after_max_ms: int = 3_600_000
    message_timestamp_before_max_ms: int = INT64_MAX
    message_timestamp_type: str = "CreateTime"
    min_cleanable_dirty_ratio: float = 0.5
    min_compaction_lag_ms: int = 0
    min_insync_replicas: int = 1
    producer_id_expiration_ms: int = 86_400_000
    retention_bytes: int = -1
    retention_ms: int = 604_800_000
    segment_bytes: int = 1_073_741_824
    segment_ms: int = 604_800_000
    snapshot_records: int = 50_000

    @property
    def is_compacted(self) -> bool:
        return "compact" in self.cleanup_policy


class ConfigKey(NamedTuple):
    """One configuration key. parse: from text to a value; raises ValueError with what would be right."""

    type: int
    default: str
    parse: Callable[[str], Any]
    documentation: str


class ConfigEntry(NamedTuple):
    """One key as DescribeConfigs tells it. synonyms: (name, value, source) of where it comes from, first of all its
    value's, then what would hold without that."""

    name: str
    value: str
    is_default: bool
    source: int
    type: int
    documentation: str
    read_only: bool = False
    synonyms: tuple[tuple[str, str, int], ...] = ()


# -- values --------------------------------------------------------------------------------------


def _whole_number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", text):
            raise ValueError(f"must be a whole number, not {text!r}")
        number = int(text)
        if not low <= number <= high:
            limit = f"at least {low}" if high in (INT32_MAX, INT64_MAX) and number < low else f"{low} to {high}"
            raise ValueError(f"must be {limit}, not {number}")
        return number

    return parse


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"must be true or false, not {text!r}")
    return text.lower() == "true"


def _ratio(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise ValueError(f"must be a number from 0 to 1, not {text!r}")
    return number


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be {' or '.join(choices)}, not {text!r}")
        return text

    return parse


def _cleanup_policy(text: str) -> tuple[str, ...]:
    policies = tuple(word.strip() for word in text.split(",")) if text else ()
    for policy in policies:
        if policy not in ("delete", "compact"):
            raise ValueError(f"must be delete, compact, both or neither, not {text!r}")
    return tuple(dict.fromkeys(policies))  # as Kafka, which takes a policy that is said twice


def _only(parse: Callable[[str], Any], supported: str) -> Callable[[str], Any]:
    """A key of which only the default is supported yet: anything else that is valid is refused by name."""

    def parse_only(text: str) -> Any:
        value = parse(text)
        if value != parse(supported):
            raise ValueError(f"{text} is not supported yet; use {supported or 'an empty value'}")
        return value

    return parse_only


# -- keys ----------------------------------------------------------------------------------------


def _int(default: int, low: int, documentation: str, high: int = INT32_MAX) -> ConfigKey:
    return ConfigKey(INT, str(default), _whole_number(low, high), documentation)


def _long(default: int, low: int, documentation: str) -> ConfigKey:
    return ConfigKey(LONG, str(default), _whole_number(low, INT64_MAX), documentation)


def _string(default: str, choices: tuple[str, ...], documentation: str) -> ConfigKey:
    return ConfigKey(STRING, default, _one_of(*choices), documentation)


def _not_yet(key: ConfigKey) -> ConfigKey:
    return key._replace(parse=_only(key.parse, key.default))


def _off(documentation: str) -> ConfigKey:
    return _not_yet(ConfigKey(BOOLEAN, "false", _boolean, documentation))


_COMPRESSION_TYPES = ("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer")
_COMPACTION = "Only for compacted topics. "

TOPIC_CONFIG: dict[str, ConfigKey] = {
    "cleanup.policy": ConfigKey(
        LIST, "delete", _cleanup_policy, "delete: segments go by retention; compact: of each key the last value stays; both; empty: all stays for good."),
    "compression.gzip.level": ConfigKey(INT, "-1", _one_of("-1", *"123456789"), "Only if compression.type is gzip."),
    "compression.lz4.level": _int(9, 1, "Only if compression.type is lz4.", high=17),
    "compression.type": _not_yet(_string("producer", _COMPRESSION_TYPES, "producer: batches stay as they were sent.")),
    "compression.zstd.level": _int(3, -131072, "Only if compression.type is zstd.", high=22),
    "delete.retention.ms": _long(86_400_000, 0, _COMPACTION + "How long a deleted key's marker stays."),
    "file.delete.delay.ms": _long(60_000, 0, "How long a dropped segment's file stays for readers that are in it."),
    "flush.messages": _long(INT64_MAX, 1, "If it is set, every append is flushed before its acknowledgement."),
    "flush.ms": _long(1_000, 0, "With fsync=interval: how long an append may wait for its flush."),
    "follower.replication.throttled.replicas": _not_yet(ConfigKey(LIST, "", str, "Replicas to throttle.")),
    "fsync": _string(
        FSYNC_ALWAYS, (FSYNC_ALWAYS, FSYNC_INTERVAL, FSYNC_OS),
        "always: flushed before the acknowledgement; interval: every flush.ms; os: when the system likes to."),
    "index.interval.bytes": _int(4096, 0, "Bytes of log between two entries of its index."),
    "leader.replication.throttled.replicas": _not_yet(ConfigKey(LIST, "", str, "Replicas to throttle.")),
    "local.retention.bytes": _not_yet(_long(-2, -2, "Only with remote storage.")),
    "local.retention.ms": _not_yet(_long(-2, -2, "Only with remote storage.")),
    "max.compaction.lag.ms": _long(INT64_MAX, 1, _COMPACTION + "The latest time at which a record is compacted."),
    "max.message.bytes": _int(1_048_588, 0, "The largest record batch, as it was sent (compressed)."),
    "message.timestamp.after.max.ms": _long(3_600_000, 0, "How far ahead of the broker's clock a timestamp may be."),
    "message.timestamp.before.max.ms": _long(INT64_MAX, 0, "How far behind the broker's clock a timestamp may be."),
    "message.timestamp.type": _string(
        "CreateTime", ("CreateTime", "LogAppendTime"), "Whose clock timestamps are from: client's or broker's."),
    "min.cleanable.dirty.ratio": ConfigKey(DOUBLE, "0.5", _ratio, _COMPACTION + "How much to leave uncompacted."),
    "min.compaction.lag.ms": _long(0, 0, _COMPACTION + "The earliest time at which a record is compacted."),
    "min.insync.replicas": _int(1, 1, "Replicas that must have a record before acks=all is answered."),
    "preallocate": _off("Reserve a segment's space when it is created."),
    "remote.log.copy.disable": _off("Only with remote storage."),
    "remote.log.delete.on.disable": _off("Only with remote storage."),
    "remote.storage.enable": _off("Keep old segments in remote storage."),
    "retention.bytes": _long(
        -1, -INT64_MAX - 1, "How large a partition may grow before old segments go; negative: no limit."),
    "retention.ms": _long(604_800_000, -1, "How long records stay before their segment goes; -1: no limit."),
    "segment.bytes": _int(1_073_741_824, 1024 * 1024, "The largest segment file."),
    "segment.index.bytes": _not_yet(_int(10_485_760, 4, "The largest index file of a segment.")),
    "segment.jitter.ms": _not_yet(_long(0, 0, "Random part of segment.ms.")),
    "segment.ms": _long(604_800_000, 1, "How long a segment may be written to before the next one begins."),
    "unclean.leader.election.enable": ConfigKey(
        BOOLEAN, "false", _boolean, "Whether a replica that is not in sync may lead when no other is left."),
}  # fmt: skip

_BROKER_KEYS = {"producer.id.expiration.ms": _whole_number(1, INT32_MAX)}

# Not for topologies: tests make rolls and checkpoints happen with little data. `internal.segment.bytes` is Kafka's.
_INTERNAL = {
    "internal.checkpoint.batches": ("checkpoint_batches", _whole_number(1, INT32_MAX)),
    "internal.checkpoint.bytes": ("checkpoint_bytes", _whole_number(1, INT32_MAX)),
    "internal.segment.bytes": ("segment_bytes", _whole_number(1, INT32_MAX)),
    "internal.snapshot.records": ("snapshot_records", _whole_number(1, INT32_MAX)),
}
INTERNAL_KEYS = frozenset(_INTERNAL)

_NEVER = TOPIC_CONFIG["flush.messages"].default

_FIELDS = {field.name.replace("_", "."): field.name for field in fields(LogConfig)}


def check_topic_config(config: Mapping[str, str]) -> None:
    """Raises InvalidConfig for the first key that does not exist or whose value it cannot have."""
    for key, text in config.items():
        if key not in TOPIC_CONFIG:
            raise InvalidConfig(key, "there is no such topic configuration", nearest=_nearest(key))
        _parse(key, TOPIC_CONFIG[key].parse, text)
    if {"min.compaction.lag.ms", "max.compaction.lag.ms"} <= config.keys():
        least, most = config["min.compaction.lag.ms"], config["max.compaction.lag.ms"]
        if int(least) > int(most):
            raise InvalidConfig("min.compaction.lag.ms", f"{least} is more than max.compaction.lag.ms, which is {most}")


def parse_config(config: Mapping[str, str]) -> LogConfig:
    """The values that a partition obeys; Kafka's defaults where `config` is silent.

    config: checked before; keys that are not for a partition are passed over. Raises InvalidConfig.
    """
    values: dict[str, Any] = {}
    for key, text in config.items():
        parse = TOPIC_CONFIG[key].parse if key in TOPIC_CONFIG else _BROKER_KEYS.get(key)
        if key in _FIELDS and parse is not None:
            values[_FIELDS[key]] = _parse(key, parse, text)
    for key, (name, parse) in _INTERNAL.items():
        if key in config:
            values[name] = _parse(key, parse, config[key])
    if "delete" not in values.get("cleanup_policy", ("delete",)):
        values |= {"retention_ms": -1, "retention_bytes": -1}
    if "compact" in values.get("cleanup_policy", ()) and "max_compaction_lag_ms" in values:
        # The active segment is not compacted, so it has to end in time. Source: Kafka LogConfig.maxSegmentMs.
        values["segment_ms"] = min(values.get("segment_ms", LogConfig().segment_ms), values["max_compaction_lag_ms"])
    if config.get("flush.messages", _NEVER).strip() != _NEVER:
        values["fsync"] = FSYNC_ALWAYS
    return LogConfig(**values)


def describe_config(overrides: Mapping[str, str], defaults: Mapping[str, str]) -> list[ConfigEntry]:
    """Every key in the order of their names: a topic's own value, else the cluster's default, else Kafka's."""
    entries = []
    for name, key in TOPIC_CONFIG.items():
        if name in overrides:
            value, source = overrides[name], TOPIC_SOURCE
        elif name in defaults:
            value, source = defaults[name], BROKER_SOURCE
        else:
            value, source = key.default, DEFAULT_SOURCE
        entries.append(ConfigEntry(name, value, source == DEFAULT_SOURCE, source, key.type, key.documentation))
    return entries


def _parse(key: str, parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text.strip())
    except ValueError as error:
        raise InvalidConfig(key, str(error)) from None


def _nearest(key: str) -> str:
    import difflib

    near = difflib.get_close_matches(key, TOPIC_CONFIG, n=1, cutoff=0.5)
    return near[0] if near else ""
