"""What may be altered of brokers and groups, what holds then, and who is told (KIP-226, KIP-848)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.broker_bench import BROKER_ID, Bench
from zafka.actors import messages
from zafka.actors.broker_settings import BROKER_SETTINGS
from zafka.actors.cluster_state import ClusterState, ResourceConfigChanged
from zafka.actors.config_rules import decide_change
from zafka.actors.dynamic_config import (
    APPEND,
    BROKER,
    DELETE,
    DYNAMIC,
    DYNAMIC_SETTINGS,
    GROUP,
    READ_ONLY,
    SET,
    SUBTRACT,
    TOPIC_KEYS,
    defaults_of,
    group_configs,
    outdated,
)
from zafka.actors.messages import ConfigChange, ConfigOperation
from zafka.actors.refused import Refused
from zafka.transport.kafka.errors import ErrorCode

DECLARED = {"retention.ms": "1000", "cleanup.policy": "delete", "num.partitions": "4"}
SESSION, HEARTBEAT = "consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"


def altered(state: ClusterState, kind: int, name: str, *operations: tuple[str, int, str | None], replace: bool = False) -> ClusterState:
    """The same state, after the change."""
    event = decide_change(
        ConfigChange(kind, name, [ConfigOperation(each, key, value) for key, each, value in operations], replace),
        state, DECLARED)
    if event is not None:
        state.apply(event)
    return state


def test_what_is_altered_of_a_broker_goes_before_all_brokers_and_that_before_the_topology() -> None:
    state = altered(ClusterState(), BROKER, "", ("log.retention.ms", SET, "2000"), ("log.cleaner.backoff.ms", SET, "7"))
    assert defaults_of(1, DECLARED, state) == {**DECLARED, "retention.ms": "2000", "log.cleaner.backoff.ms": "7"}
    altered(state, BROKER, "1", ("log.retention.ms", SET, "3000"))
    assert defaults_of(1, DECLARED, state)["retention.ms"] == "3000"
    assert defaults_of(2, DECLARED, state)["retention.ms"] == "2000"
    altered(state, BROKER, "1", ("log.retention.ms", DELETE, None))
    assert defaults_of(1, DECLARED, state)["retention.ms"] == "2000"
    altered(state, BROKER, "", ("log.segment.bytes", SET, "2000000"), replace=True)
    assert defaults_of(1, DECLARED, state) == {**DECLARED, "segment.bytes": "2000000"}
    altered(state, BROKER, "", replace=True)
    assert defaults_of(1, DECLARED, state) == DECLARED and not state.altered


def test_a_list_is_appended_to_from_what_the_topology_says() -> None:
    state = altered(ClusterState(), BROKER, "1", ("log.cleanup.policy", APPEND, "compact"))
    assert state.altered_of(BROKER, "1") == {"log.cleanup.policy": "delete,compact"}
    altered(state, BROKER, "1", ("log.cleanup.policy", SUBTRACT, "delete"))
    assert state.altered_of(BROKER, "1") == {"log.cleanup.policy": "compact"}
    appended = ConfigChange(BROKER, "1", [ConfigOperation(APPEND, "log.cleanup.policy", "delete")])
    event = decide_change(appended, ClusterState(), {"cleanup.policy": "compact"})
    assert isinstance(event, ResourceConfigChanged) and event.config == {"log.cleanup.policy": "compact,delete"}


def test_an_alteration_to_what_is_so_already_is_no_event() -> None:
    state = altered(ClusterState(), BROKER, "1", ("log.roll.ms", SET, " 5 "))
    for value in (" 5 ", "6"):
        again = ConfigChange(BROKER, "1", [ConfigOperation(SET, "log.roll.ms", value)])
        assert (decide_change(again, state, DECLARED) is None) == (value == " 5 ")


@pytest.mark.parametrize(
    ("key", "kind", "value", "error", "words"),
    [
        ("num.partitions", SET, "2", ErrorCode.INVALID_REQUEST, "Cannot update these configs dynamically: [num.partitions]"),
        ("log.retention.hours", SET, "2", ErrorCode.INVALID_REQUEST, "Cannot update these configs dynamically"),
        ("node.id", SET, "2", ErrorCode.INVALID_REQUEST, "Cannot update these configs dynamically: [node.id]"),
        ("log.retention.ms", SET, "x", ErrorCode.INVALID_REQUEST, "Invalid value x for configuration log.retention.ms: "),
        ("log.segment.bytes", SET, "1", ErrorCode.INVALID_REQUEST, "at least 1048576"),
        ("log.cleaner.backoff.ms", SET, "0", ErrorCode.INVALID_REQUEST, "Invalid value 0 for configuration log.cleaner.backoff.ms"),
        ("compression.type", SET, "zstd", ErrorCode.INVALID_REQUEST, "not supported yet"),
        ("retention.ms", SET, "1", ErrorCode.INVALID_CONFIG, "did you mean 'log.retention.ms'?"),
        ("log.cleaner.threads", SET, "2", ErrorCode.INVALID_CONFIG, "not supported yet"),
        ("log.retention.ms", APPEND, "1", ErrorCode.INVALID_CONFIG, "Config value append is not allowed for config key"),
        ("num.partitions", SUBTRACT, "1", ErrorCode.INVALID_CONFIG, "Config value subtract is not allowed"),
        ("no.such", APPEND, "1", ErrorCode.INVALID_CONFIG, "Unknown config name: no.such"),
        ("log.retention.ms", 7, "1", ErrorCode.INVALID_REQUEST, "Unknown operation type 7"),
    ],
)
def test_what_no_broker_alters_is_refused_whole(key: str, kind: int, value: str, error: int, words: str) -> None:
    state = ClusterState()
    with pytest.raises(Refused) as refused:
        altered(state, BROKER, "", ("log.roll.ms", SET, "5"), (key, kind, value))
    assert refused.value.error == error and words in refused.value.message
    assert not state.altered


def test_taking_away_what_is_not_there_or_never_could_be_is_fine() -> None:
    assert not altered(ClusterState(), BROKER, "1", ("num.partitions", DELETE, None), ("no.such", DELETE, None)).altered


def test_every_dynamic_setting_has_a_counterpart_here() -> None:
    assert BROKER_SETTINGS.keys() >= DYNAMIC_SETTINGS and not DYNAMIC & READ_ONLY
    assert BROKER_SETTINGS.keys() <= DYNAMIC | READ_ONLY and TOPIC_KEYS["message.max.bytes"] == "max.message.bytes"


def test_what_the_topology_says_anew_ends_what_was_altered_of_it_and_of_nothing_else() -> None:
    state = altered(ClusterState(), BROKER, "", ("log.retention.ms", SET, "5"), ("log.roll.ms", SET, "6"))
    altered(state, BROKER, "1", ("log.roll.ms", SET, "7"))
    altered(state, GROUP, "g", (SESSION, SET, "50000"))
    assert outdated(DECLARED, state) == outdated({**DECLARED, "num.partitions": "1"}, state) == []
    for said, kept in (({"retention.ms": "9"}, {"log.roll.ms": "6"}), ({}, {"log.roll.ms": "6"})):
        assert outdated(said, state) == [ResourceConfigChanged(BROKER, "", kept)]
    assert {(each.name, *each.config) for each in outdated({**DECLARED, "segment.ms": "8"}, state)} == {
        ("", "log.retention.ms"), ("1",)}
    for event in outdated({"segment.ms": "8"}, state):
        state.apply(event)
    assert list(state.altered) == [(GROUP, "g")]


def test_what_stays_after_an_edit_stays_at_the_next_start_too() -> None:
    said = {"retention.ms": "1", "segment.ms": "2"}
    change = ConfigChange(BROKER, "", [
        ConfigOperation(SET, "log.retention.ms", "5"), ConfigOperation(SET, "log.roll.ms", "6")])
    state = ClusterState()
    event = decide_change(change, state, said)
    assert event is not None
    state.apply(event)
    edited = said | {"retention.ms": "9"}
    (event,) = outdated(edited, state)
    state.apply(event)
    assert outdated(edited, state) == [] and state.altered_of(BROKER, "") == {"log.roll.ms": "6"}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (SESSION, "44999", "must be greater than or equal to group.consumer.min.session.timeout.ms"),
        (SESSION, "60001", "must be less than or equal to group.consumer.max.session.timeout.ms"),
        (HEARTBEAT, "299", "must be greater than or equal to group.consumer.min.heartbeat.interval.ms"),
        (HEARTBEAT, "0", "Value must be at least 1"), (SESSION, "x", "Not a number of type INT"),
        ("consumer.assignment.interval.ms", "-1", "Value must be at least 0"),
        ("retention.ms", "1", "Unknown group config name: retention.ms"),
    ],
)
def test_what_no_group_may_have_is_refused(key: str, value: str, words: str) -> None:
    with pytest.raises(Refused) as refused:
        altered(ClusterState(), GROUP, "g", (key, SET, value))
    assert refused.value.error == ErrorCode.INVALID_CONFIG and words in refused.value.message


def test_a_session_ends_after_its_heartbeat_is_due() -> None:
    change = ConfigChange(GROUP, "g", [ConfigOperation(SET, SESSION, "2000"), ConfigOperation(SET, HEARTBEAT, "2000")])
    declared = {"group.consumer.min.session.timeout.ms": "1000"}
    with pytest.raises(Refused, match=f"{SESSION} must be greater than {HEARTBEAT}"):
        decide_change(change, ClusterState(), declared)
    change = ConfigChange(GROUP, "g", [ConfigOperation(SET, HEARTBEAT, "2000")])
    with pytest.raises(Refused, match=f"{SESSION} must be greater than {HEARTBEAT}"):
        decide_change(change, ClusterState(), declared | {"group.consumer.session.timeout.ms": "2000"})
    with pytest.raises(Refused, match="APPEND"):
        altered(ClusterState(), GROUP, "g", (SESSION, APPEND, "1"))


def test_coordinators_are_told_of_groups_and_of_all(tmp_path: Path) -> None:
    state = altered(ClusterState(), GROUP, "g", (SESSION, SET, "50000"))
    altered(state, BROKER, "1", ("group.consumer.assignment.interval.ms", SET, "2000"))
    assert group_configs(1, state) == {"": {"consumer.assignment.interval.ms": "2000"}, "g": {SESSION: "50000"}}
    assert group_configs(2, state) == {"": {}, "g": {SESSION: "50000"}}

    bench = Bench(tmp_path).start("__consumer_offsets")
    bench.commit(ResourceConfigChanged(GROUP, "g", {SESSION: "50000"}))
    (told,) = bench.sent(messages.TopicsTold)
    assert told.configs == {"": {}, "g": {SESSION: "50000"}}
    bench.commit(ResourceConfigChanged(BROKER, "7", {"log.roll.ms": "5"}))
    assert bench.sent(messages.ConfigChanged) == []


def test_partitions_that_run_are_told_at_once_and_later_ones_when_they_start(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t", "u")
    bench.commit(ResourceConfigChanged(BROKER, "", {"log.retention.ms": "5"}))
    told = [each.config["retention.ms"] for each in bench.sent(messages.ConfigChanged)]
    assert told == ["5", "5"]
    bench.commit(ResourceConfigChanged(BROKER, str(BROKER_ID), {"log.retention.ms": "6"}))
    assert [each.config["retention.ms"] for each in bench.sent(messages.ConfigChanged)] == ["6", "6"]
    bench.create("v")
    assert [each.config["retention.ms"] for each in bench.sent(messages.StartPartition)] == ["6"]
    bench.commit(ResourceConfigChanged(BROKER, str(BROKER_ID), {}), ResourceConfigChanged(BROKER, "", {}))
    assert all("retention.ms" not in each.config for each in bench.sent(messages.ConfigChanged)[-2:])
