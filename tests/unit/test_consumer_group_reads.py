"""KIP-848: what a group reads, how often its members come and are given something, and what admins are told and do."""

from __future__ import annotations

import pytest

from tests.unit.drive_consumer_groups import Bench, told, topic_id, topics_of
from zafka.actors.groups import consumer_records as records
from zafka.actors.groups.calls import Outbox
from zafka.actors.groups.consumer import heartbeat_interval_ms
from zafka.actors.groups.consumer_group import Group
from zafka.transport.kafka.errors import ErrorCode


@pytest.fixture
def bench() -> Bench:
    return Bench({"t": 6, "u": 3})


# -- expressions ---------------------------------------------------------------------------------


def test_an_expression_reads_what_matches_as_a_whole(bench: Bench) -> None:
    bench.set_topics({"logs-a": 1, "logs-b": 1, "old-logs-c": 1})
    answer = bench.join("a", None, subscribed_topic_regex="logs-.*")
    assert told(answer) == {"logs-a": [0], "logs-b": [0]}
    (member,) = bench.describe().members
    assert (member.subscribed_topic_names, member.subscribed_topic_regex) == ([], "logs-.*")
    assert bench.groups.is_subscribed("g", "logs-a") and not bench.groups.is_subscribed("g", "old-logs-c")


def test_topics_that_come_and_go_and_match(bench: Bench) -> None:
    bench.set_topics({"logs-a": 1})
    bench.join("a", None, subscribed_topic_regex="logs-.*")
    bench.set_topics({"logs-a": 1, "logs-b": 1, "other": 1})
    answer = bench.heartbeat("a", 2)
    assert (answer.member_epoch, told(answer)) == (3, {"logs-a": [0], "logs-b": [0]})
    bench.set_topics({"logs-b": 1, "other": 2})
    answer = bench.heartbeat("a", 3, owned={"logs-a": [0], "logs-b": [0]})
    assert told(answer) == {"logs-b": [0]}
    assert bench.heartbeat("a", 3, owned={"logs-b": [0]}).member_epoch == 4


def test_names_and_an_expression_go_together(bench: Bench) -> None:
    bench.join("a", ["t"], subscribed_topic_regex="u+")
    assert bench.groups.is_subscribed("g", "t") and bench.groups.is_subscribed("g", "u")
    answer = bench.heartbeat("a", 2, owned={"t": range(6), "u": range(3)}, subscribed_topic_regex="")
    assert told(answer) == {"t": [0, 1, 2, 3, 4, 5]}


def test_an_expression_that_nobody_reads_any_more_is_forgotten(bench: Bench) -> None:
    bench.join("a", None, subscribed_topic_regex="t")
    bench.join("b", None, subscribed_topic_regex="t")
    bench.heartbeat("b", 3, subscribed_topic_regex="u")
    assert set(bench.groups._groups["g"].regexes) == {"t", "u"}
    bench.leave("a")
    assert set(bench.groups._groups["g"].regexes) == {"u"}
    bench.restart()


def test_an_expression_that_its_reader_exchanged_is_forgotten_too(bench: Bench) -> None:
    bench.join("a", None, subscribed_topic_regex="t")
    assert bench.heartbeat("a", 2, owned={"t": range(6)}, subscribed_topic_regex="u").error_code == 0
    assert list(bench.groups._groups["g"].regexes) == ["u"]


@pytest.mark.parametrize(("pattern", "reason"), [
    ("(", "missing closing )"), ("t(?=u)", "invalid or unsupported Perl syntax"), ("(t)\\1", "invalid escape sequence"),
    ("((t{1000}){1000}){1000}", "expression too large")])  # fmt: skip
def test_an_expression_that_is_none_is_refused_and_changes_nothing(bench: Bench, pattern: str, reason: str) -> None:
    answer = bench.join("a", None, subscribed_topic_regex=pattern)
    assert answer.error_code == ErrorCode.INVALID_REGULAR_EXPRESSION
    assert answer.error_message == f"SubscribedTopicRegex `{pattern}` is not a valid regular expression: {reason}."
    bench.join("a")
    log = list(bench.log)
    assert bench.heartbeat("a", 2, subscribed_topic_regex=pattern).error_code == ErrorCode.INVALID_REGULAR_EXPRESSION
    assert bench.log == log


# -- topics --------------------------------------------------------------------------------------


def test_partitions_that_are_added_are_given_out(bench: Bench) -> None:
    bench.join("a")
    bench.set_topics({"t": 8, "u": 3})
    answer = bench.heartbeat("a", 2)
    assert (answer.member_epoch, told(answer)) == (3, {"t": [0, 1, 2, 3, 4, 5, 6, 7]})
    bench.set_topics({"t": 8, "u": 9})
    assert bench.heartbeat("a", 3).member_epoch == 3, "it does not read that one"


def test_a_topic_that_is_made_after_its_readers_came(bench: Bench) -> None:
    assert told(bench.join("a", ["later"])) == {}
    bench.set_topics({"later": 2})
    assert told(bench.heartbeat("a", 2)) == {"later": [0, 1]}


def test_topics_that_changed_while_no_coordinator_was_there(bench: Bench) -> None:
    bench.join("a")
    bench.cluster["t"] = bench.cluster["t"]._replace(partitions=7)
    bench.restart()
    assert told(bench.heartbeat("a", 2)) == {"t": [0, 1, 2, 3, 4, 5, 6]}


def test_a_topic_that_went_while_no_coordinator_was_there(bench: Bench) -> None:
    bench.join("a")
    del bench.cluster["t"]
    bench.restart()
    assert told(bench.heartbeat("a", 2)) == {}


def test_what_an_expression_found_is_looked_for_again_when_a_coordinator_begins(bench: Bench) -> None:
    bench.join("a", None, subscribed_topic_regex="t.*")
    bench.cluster = topics_of({"u": 3, "tt": 1})
    bench.restart()
    assert told(bench.heartbeat("a", 2, owned={})) == {"tt": [0]}


# -- how often members come ----------------------------------------------------------------------


def test_intervals_come_from_a_budget() -> None:
    assert [heartbeat_interval_ms(members) for members in (0, 1, 90, 91, 300, 1500, 10_000)] == [
        300, 300, 300, 304, 1000, 5000, 5000]


def test_who_waits_for_partitions_is_asked_to_come_soon(bench: Bench) -> None:
    for number in range(300):
        bench.join(f"m{number}", [], group="crowd")
    assert bench.join("a").heartbeat_interval_ms == 1004
    assert bench.join("b").heartbeat_interval_ms == 300, "a has what it is to have"
    assert bench.heartbeat("a", 2, owned={"t": [0, 1, 2]}).heartbeat_interval_ms == 1007
    assert bench.heartbeat("b", 3).heartbeat_interval_ms == 1007


def test_an_interval_that_is_set_is_kept() -> None:
    bench = Bench({"t": 1}, heartbeat_interval_ms="5000")
    assert bench.join("a").heartbeat_interval_ms == 5000
    bench.topics.configs = {"g": {"consumer.heartbeat.interval.ms": "700"}}
    assert bench.heartbeat("a", 2).heartbeat_interval_ms == 700
    assert bench.join("a", group="other").heartbeat_interval_ms == 5000


def test_who_waits_for_its_first_assignment_is_asked_to_come_soon() -> None:
    bench = Bench({"t": 6}, assignment_interval_ms="60000")
    for number in range(300):
        bench.join(f"m{number}", [], group="crowd")
    bench.join("a")
    assert bench.join("b").heartbeat_interval_ms == 300


def test_assignments_may_be_limited_to_one_in_a_while() -> None:
    bench = Bench({"t": 2}, assignment_interval_ms="1000")
    bench.join("a")
    answer = bench.join("b")
    assert (answer.member_epoch, told(answer)) == (2, {})
    assert bench.describe().group_state == "Assigning"
    bench.pass_time(1)
    assert bench.heartbeat("b", 2).member_epoch == 3
    assert told(bench.heartbeat("a", 2, owned={"t": [0, 1]})) == {"t": [0]}


def test_what_is_read_no_more_is_given_up_before_the_next_assignment() -> None:
    """It may be long in coming; and what was to be given up already still has its owner."""
    bench = Bench({"t": 6, "u": 3}, assignment_interval_ms="1000")
    bench.join("a")
    bench.pass_time(1)
    bench.join("b")
    assert told(bench.heartbeat("a", 2, owned={"t": range(6)})) == {"t": [0, 1, 2]}
    answer = bench.heartbeat("a", 2, owned={"t": range(6)}, subscribed_topic_names=["u"])
    assert (answer.member_epoch, told(answer)) == (2, {})
    assert told(bench.heartbeat("b", 3, owned={})) is None, "a has all of them still"
    assert bench.heartbeat("a", 2, owned={}).member_epoch == 3
    assert told(bench.heartbeat("b", 3, owned={})) == {"t": [3, 4, 5]}
    bench.pass_time(1)
    assert told(bench.heartbeat("b", 3, owned={"t": [3, 4, 5]})) == {"t": [0, 1, 2, 3, 4, 5]}
    assert told(bench.heartbeat("a", 3, owned={})) == {"u": [0, 1, 2]}


# -- administration ------------------------------------------------------------------------------


def test_what_is_told_of_a_group(bench: Bench) -> None:
    bench.join("a", instance_id="i", rack_id="r")
    bench.join("b", server_assignor="uniform")
    described = bench.describe()
    assert (described.error_code, described.group_epoch, described.assignment_epoch) == (0, 3, 3)
    first = described.members[0]
    assert (first.member_id, first.instance_id, first.rack_id, first.client_id, first.client_host) == (
        "a", "i", "r", "client", "/127.0.0.1")
    assert (first.member_epoch, first.subscribed_topic_names, first.member_type) == (2, ["t"], 1)
    (has,), (target,) = first.assignment.topic_partitions, first.target_assignment.topic_partitions
    assert (has.topic_id, has.topic_name, has.partitions) == (topic_id("t"), "t", [0, 1, 2, 3, 4, 5])
    assert target.partitions == [0, 1, 2]


def test_a_group_is_deleted_once_it_is_empty(bench: Bench) -> None:
    bench.join("a")
    outbox = Outbox()
    assert bench.groups.delete("g", outbox) == ErrorCode.NON_EMPTY_GROUP and outbox.records == []
    bench.leave("a")
    (listed,) = bench.groups.list()
    assert listed == ("g", "consumer", "Empty", "consumer")
    assert bench.groups.delete("g", outbox) == 0
    bench.log += outbox.records
    assert "g" not in bench.groups
    bench.restart()
    assert bench.join("a").member_epoch == 2, "a new group"


def test_a_group_of_which_a_kafka_wrote_more_is_gone_when_it_is_deleted(bench: Bench) -> None:
    for key, value in (
        (records.ConsumerGroupPartitionMetadataKey("g"), records.ConsumerGroupPartitionMetadataValue()),
        (records.ConsumerGroupRegularExpressionKey("g", "t.*"), records.ConsumerGroupRegularExpressionValue(["t"], 1, 1)),
    ):
        bench.log.append(records.encode_record(key, value))
    bench.begin()
    assert "g" in bench.groups
    bench._take(lambda outbox: bench.groups.delete("g", outbox))
    bench.log = [(key, value) for key, value in dict(bench.log).items() if value is not None]  # it was compacted
    bench.restart()
    assert "g" not in bench.groups


def test_an_assignor_that_a_classic_member_names_twice_is_one_that_it_knows() -> None:
    group = Group("g")
    twice = [records.ClassicProtocol("range", b"")] * 2
    group.put_metadata("a", records.ConsumerGroupMemberMetadataValue(
        classic_member_metadata=records.ClassicMemberMetadata(1000, twice)))
    assert group.supports(["range"]) and not group.supports(["sticky"])


def test_ids_with_anything_in_them(bench: Bench) -> None:
    for group, member in (("g 1", "a"), ("g", " 1a"), ("", "g")):
        bench.join(member, group=group or "x x", instance_id=None)
    bench.pass_time(46)
    assert {listed.state for listed in bench.groups.list()} == {"Empty"}
