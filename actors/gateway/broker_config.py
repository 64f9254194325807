"""The configuration of a broker, and where topics' values come from, in Kafka's names.

Owns: Kafka's broker-wide names of topic configuration; `describe_broker`, `describe_topic`. Pure.
Only what this broker obeys is told. Nothing of it can be altered while it runs: the topology file says it.
Source: ServerTopicConfigSynonyms, KafkaConfig, ConfigHelper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zafka.actors.broker_settings import BROKER_SETTINGS, BrokerSetting
from zafka.actors.messages import Endpoint
from zafka.storage.config import (
    BOOLEAN,
    BROKER_SOURCE,
    DEFAULT_SOURCE,
    DOUBLE,
    INT,
    LIST,
    LONG,
    STRING,
    TOPIC_CONFIG,
    TOPIC_SOURCE,
    ConfigEntry,
    describe_config,
)

Synonym = tuple[str, str, int]  # name, value, source

# Topic key: the broker's key. Not here: what has the same name, and what brokers do not configure.
BROKER_NAMES = {
    "cleanup.policy": "log.cleanup.policy",
    "delete.retention.ms": "log.cleaner.delete.retention.ms",
    "file.delete.delay.ms": "log.segment.delete.delay.ms",
    "flush.messages": "log.flush.interval.messages",
    "flush.ms": "log.flush.interval.ms",
    "index.interval.bytes": "log.index.interval.bytes",
    "local.retention.bytes": "log.local.retention.bytes",
    "local.retention.ms": "log.local.retention.ms",
    "max.compaction.lag.ms": "log.cleaner.max.compaction.lag.ms",
    "max.message.bytes": "message.max.bytes",
    "message.timestamp.after.max.ms": "log.message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms": "log.message.timestamp.before.max.ms",
    "message.timestamp.type": "log.message.timestamp.type",
    "min.cleanable.dirty.ratio": "log.cleaner.min.cleanable.ratio",
    "min.compaction.lag.ms": "log.cleaner.min.compaction.lag.ms",
    "preallocate": "log.preallocate",
    "retention.bytes": "log.retention.bytes",
    "retention.ms": "log.retention.ms",
    "segment.bytes": "log.segment.bytes",
    "segment.index.bytes": "log.index.size.max.bytes",
    "segment.jitter.ms": "log.roll.jitter.ms",
    "segment.ms": "log.roll.ms",
}
TOPIC_ONLY = frozenset((
    "follower.replication.throttled.replicas", "leader.replication.throttled.replicas", "remote.log.copy.disable",
    "remote.log.delete.on.disable", "remote.storage.enable"))
# Their default stands in another key of Kafka's (log.retention.hours), so the one above has none.
WITHOUT_DEFAULT = frozenset(("flush.ms", "retention.ms", "segment.jitter.ms", "segment.ms"))


def describe_topic(overrides: Mapping[str, str], defaults: Mapping[str, str]) -> list[ConfigEntry]:
    """Every topic configuration key, as it holds for a topic with these overrides."""
    entries = []
    for entry in describe_config(overrides, defaults):
        own = [(entry.name, entry.value, TOPIC_SOURCE)] if entry.source == TOPIC_SOURCE else []
        entries.append(entry._replace(synonyms=(*own, *_broker_synonyms(entry.name, defaults))))
    return entries


def _broker_synonyms(key: str, defaults: Mapping[str, str]) -> list[Synonym]:
    """What holds for a topic that says nothing: the topology's default, and Kafka's."""
    if key in TOPIC_ONLY:
        return []
    name = BROKER_NAMES.get(key, key)
    synonyms = [(name, defaults[key], BROKER_SOURCE)] if key in defaults else []
    if key not in WITHOUT_DEFAULT:
        synonyms.append((name, TOPIC_CONFIG[key].default, DEFAULT_SOURCE))
    return synonyms


def describe_broker(
    broker_id: int, *, rack: str, log_dir: str, endpoints: Sequence[Endpoint], defaults: Mapping[str, str]
) -> list[ConfigEntry]:
    """Everything that a broker is configured with, in the order of the names."""
    addresses = ",".join(f"{each.name}://{each.host}:{each.port}" for each in endpoints)
    entries = [
        _given("broker.id", str(broker_id), INT, "The broker's number in the topology."),
        _given("node.id", str(broker_id), INT, "The broker's number in the topology."),
        _given("log.dirs", log_dir, LIST, "Where the broker's partitions lie."),
        _given("advertised.listeners", addresses, LIST, "The listeners as clients are told, each by its name."),
    ]
    if rack:
        entries.append(_given("broker.rack", rack, STRING, "Where the broker stands."))
    entries += [_describe_setting(name, setting, defaults) for name, setting in BROKER_SETTINGS.items()]
    for entry in describe_config({}, defaults):
        if entry.name not in TOPIC_ONLY:
            name, synonyms = BROKER_NAMES.get(entry.name, entry.name), _broker_synonyms(entry.name, defaults)
            entries.append(entry._replace(name=name, read_only=True, synonyms=tuple(synonyms)))
    return sorted(entries)


def _given(name: str, value: str, kind: int, documentation: str) -> ConfigEntry:
    """A value that the topology's entry for this broker says."""
    return ConfigEntry(
        name, value, False, BROKER_SOURCE, kind, documentation, True, ((name, value, BROKER_SOURCE),))


def _describe_setting(name: str, setting: BrokerSetting, defaults: Mapping[str, str]) -> ConfigEntry:
    value = defaults.get(name, setting.default)
    synonyms: tuple[Synonym, ...] = ((name, setting.default, DEFAULT_SOURCE),)
    if value != setting.default:
        synonyms = ((name, value, BROKER_SOURCE), *synonyms)
    whole = LONG if setting.is_long else INT
    kind = STRING if setting.words else DOUBLE if setting.is_double else BOOLEAN if setting.high < 0 else whole
    source = synonyms[0][2]
    return ConfigEntry(name, value, source == DEFAULT_SOURCE, source, kind, setting.meaning, True, synonyms)
