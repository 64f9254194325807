"""The configuration of a broker and of groups, and where topics' values come from, in Kafka's names.

Owns: `describe_broker`, `describe_topic`, `describe_group`, and the order in which what is said of a setting counts. Pure.
Only what this broker obeys is told. What `dynamic_config.py` does not name is read-only: the topology file says it.
Source: ServerTopicConfigSynonyms, KafkaConfig, ConfigHelper.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from zafka.actors.broker_settings import BROKER_NAMES, BROKER_SETTINGS, TOPIC_ONLY, BrokerSetting
from zafka.actors.cluster_state import ClusterState
from zafka.actors.dynamic_config import ALL_BROKERS, BROKER, DYNAMIC_SETTINGS, GROUP_CONFIG
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
BROKER_ALTERED, ALL_ALTERED, GROUP_SOURCE = 2, 3, 8  # sources beside those of `storage/config.py`

# Their default stands in another key of Kafka's (log.retention.hours), so the one above has none.
WITHOUT_DEFAULT = frozenset(("flush.ms", "retention.ms", "segment.jitter.ms", "segment.ms"))


class Layers(NamedTuple):
    """What is said of one broker's settings. own, of_all: what was altered of it and of all brokers, by their names.

    declared: by the topology, topic configuration by the topics' names."""

    own: Mapping[str, str]
    of_all: Mapping[str, str]
    declared: Mapping[str, str]


def layers_of(broker_id: int, state: ClusterState, declared: Mapping[str, str]) -> Layers:
    return Layers(state.altered_of(BROKER, str(broker_id)), state.altered_of(BROKER, ALL_BROKERS), declared)


def _said(name: str, key: str, layers: Layers) -> list[Synonym]:
    """What is said of a setting, first of all what holds. key: the topology's name of it."""
    return [
        (name, said[known], source)
        for said, known, source in (
            (layers.own, name, BROKER_ALTERED), (layers.of_all, name, ALL_ALTERED), (layers.declared, key, BROKER_SOURCE))
        if known in said]


def _as_said(entry: ConfigEntry, said: list[Synonym]) -> ConfigEntry:
    if not said:
        return entry
    _, value, source = said[0]
    return entry._replace(value=value, source=source, is_default=source == DEFAULT_SOURCE, synonyms=tuple(said))


def describe_topic(overrides: Mapping[str, str], layers: Layers) -> list[ConfigEntry]:
    """Every topic configuration key, as it holds for a topic with these overrides."""
    entries = []
    for entry in describe_config(overrides, layers.declared):
        own = [(entry.name, entry.value, TOPIC_SOURCE)] if entry.source == TOPIC_SOURCE else []
        entries.append(_as_said(entry, [*own, *_broker_synonyms(entry.name, layers)]))
    return entries


def _broker_synonyms(key: str, layers: Layers) -> list[Synonym]:
    """What holds for a topic that says nothing: what was altered, the topology's default, and Kafka's."""
    if key in TOPIC_ONLY:
        return []
    name = BROKER_NAMES.get(key, key)
    synonyms = _said(name, key, layers)
    if key not in WITHOUT_DEFAULT:
        synonyms.append((name, TOPIC_CONFIG[key].default, DEFAULT_SOURCE))
    return synonyms


def describe_group(altered: Mapping[str, str], layers: Layers) -> list[ConfigEntry]:
    """Every key of a KIP-848 group. altered: of this group."""
    entries = []
    for key, known in GROUP_CONFIG.items():
        own = [(key, altered[key], GROUP_SOURCE)] if key in altered else []
        default = BROKER_SETTINGS[known.setting].default
        entry = ConfigEntry(key, default, True, DEFAULT_SOURCE, INT, known.documentation)
        entries.append(_as_said(entry, [*own, *_setting_synonyms(known.setting, layers)]))
    return entries


def describe_all(entries: Iterable[ConfigEntry], layers: Layers) -> list[ConfigEntry]:
    """What was altered of all brokers. entries: of one of them."""
    return [
        _as_said(entry, [(entry.name, layers.of_all[entry.name], ALL_ALTERED)])
        for entry in entries if entry.name in layers.of_all]


def describe_broker(
    broker_id: int, *, rack: str, log_dir: str, endpoints: Sequence[Endpoint], layers: Layers
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
    entries += [_describe_setting(name, setting, layers) for name, setting in BROKER_SETTINGS.items()]
    for entry in describe_config({}, layers.declared):
        if entry.name not in TOPIC_ONLY:
            renamed = entry._replace(name=BROKER_NAMES.get(entry.name, entry.name))
            entries.append(_as_said(renamed, _broker_synonyms(entry.name, layers)))
    return sorted(entries)


def _given(name: str, value: str, kind: int, documentation: str) -> ConfigEntry:
    """A value that the topology's entry for this broker says."""
    return ConfigEntry(
        name, value, False, BROKER_SOURCE, kind, documentation, True, ((name, value, BROKER_SOURCE),))


def _describe_setting(name: str, setting: BrokerSetting, layers: Layers) -> ConfigEntry:
    whole = LONG if setting.is_long else INT
    kind = STRING if setting.words else DOUBLE if setting.is_double else BOOLEAN if setting.high < 0 else whole
    entry = ConfigEntry(
        name, setting.default, True, DEFAULT_SOURCE, kind, setting.meaning, read_only=name not in DYNAMIC_SETTINGS)
    return _as_said(entry, _setting_synonyms(name, layers))


def _setting_synonyms(name: str, layers: Layers) -> list[Synonym]:
    """A topology that says the default is not told from one that is silent."""
    default = BROKER_SETTINGS[name].default
    said = [each for each in _said(name, name, layers) if each[1:] != (default, BROKER_SOURCE)]
    return [*said, (name, default, DEFAULT_SOURCE)]
