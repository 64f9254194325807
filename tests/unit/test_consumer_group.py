"""KIP-848: a member joins, is given partitions, gives them up, leaves, is fenced; what Kafka's GroupMetadataManager does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.drive_consumer_groups import Bench, told, topic_id
from zafka.actors.groups.calls import Commit, Outbox
from zafka.transport.kafka.errors import ErrorCode

STATIC_LEAVE = -2


@pytest.fixture
def bench() -> Bench:
    return Bench({"t": 6, "u": 3})


def settle(bench: Bench, has: dict[str, dict[str, list[int]]], epochs: dict[str, int], rounds: int = 8) -> None:
    """Members heartbeat and do what they are told until nothing changes; both arguments are kept up to date."""
    for _ in range(rounds):
        for member, owned in has.items():
            answer = bench.heartbeat(member, epochs[member], owned=owned)
            assert answer.error_code == 0, answer
            epochs[member] = answer.member_epoch
            if (assignment := told(answer)) is not None:
                has[member] = assignment


# -- joining -------------------------------------------------------------------------------------


def test_the_first_member_is_given_everything_at_once(bench: Bench) -> None:
    answer = bench.join("a")
    assert (answer.error_code, answer.member_id, answer.member_epoch) == (0, "a", 2)
    assert told(answer) == {"t": [0, 1, 2, 3, 4, 5]}
    described = bench.describe()
    assert (described.group_state, described.group_epoch, described.assignment_epoch) == ("Stable", 2, 2)


def test_an_answer_has_the_assignment_only_when_it_is_new(bench: Bench) -> None:
    bench.join("a")
    assert told(bench.heartbeat("a", 2)) is None
    full = bench.heartbeat("a", 2, owned={"t": range(6)}, rebalance_timeout_ms=9, subscribed_topic_names=["t"])
    assert told(full) == {"t": [0, 1, 2, 3, 4, 5]}
    in_part = bench.heartbeat("a", 2, owned={"t": range(6)}, subscribed_topic_names=["t"])
    assert told(in_part) is None, "a full one says its rebalance timeout, too"
    assert told(bench.join("x", None, group="x", subscribed_topic_regex="u")) == {"u": [0, 1, 2]}
    full = bench.heartbeat("x", 2, owned={"u": range(3)}, group="x", rebalance_timeout_ms=9, subscribed_topic_regex="u")
    assert told(full) == {"u": [0, 1, 2]}
    assert told(bench.join("a")) == {"t": [0, 1, 2, 3, 4, 5]}, "who joins again, having missed the answer, is told again"
    assert bench.describe().group_epoch == 2


def test_a_second_member_gets_what_the_first_has_given_up_and_not_before(bench: Bench) -> None:
    bench.join("a")
    answer = bench.join("b")
    assert (answer.member_epoch, told(answer)) == (3, {}), "a has all of it"
    assert bench.describe().group_state == "Reconciling"

    answer = bench.heartbeat("a", 2, owned={"t": range(6)})
    assert (answer.member_epoch, told(answer)) == (2, {"t": [0, 1, 2]}), "its epoch stays until it has revoked"
    assert told(bench.heartbeat("b", 3, owned={})) is None
    assert told(bench.heartbeat("a", 2, owned={"t": range(6)})) is None, "it still has them"
    assert told(bench.heartbeat("a", 2)) is None, "it does not say what it has"

    answer = bench.heartbeat("a", 2, owned={"t": [0, 1, 2]})
    assert (answer.member_epoch, told(answer)) == (3, None)
    answer = bench.heartbeat("b", 3, owned={})
    assert (answer.member_epoch, told(answer)) == (3, {"t": [3, 4, 5]})
    assert bench.describe().group_state == "Stable"


def test_members_choose_what_they_read(bench: Bench) -> None:
    assert told(bench.join("a", ["u"])) == {"u": [0, 1, 2]}
    assert told(bench.join("b", ["t", "no such topic"])) == {"t": [0, 1, 2, 3, 4, 5]}
    answer = bench.heartbeat("a", 2, subscribed_topic_names=["t", "u"])
    assert answer.member_epoch == 4
    assert told(answer) is None, "it keeps u and waits for its part of t"
    assert told(bench.heartbeat("b", 3, owned={"t": range(6)})) == {"t": [0, 1, 2, 3, 4]}


def test_what_a_member_reads_no_more_it_gives_up_first(bench: Bench) -> None:
    bench.join("a", ["t", "u"])
    answer = bench.heartbeat("a", 2, owned={"t": range(6), "u": range(3)}, subscribed_topic_names=["t"])
    assert (answer.member_epoch, told(answer)) == (2, {"t": [0, 1, 2, 3, 4, 5]})
    answer = bench.heartbeat("a", 2, owned={"t": range(6)})
    assert (answer.member_epoch, told(answer)) == (3, None)


def test_a_member_that_reads_nothing_is_a_member(bench: Bench) -> None:
    answer = bench.join("a", [])
    assert (answer.error_code, answer.member_epoch, told(answer)) == (0, 1, {})


def test_clients_before_member_ids_of_their_own_are_given_one(bench: Bench) -> None:
    answer = bench.join("", version=0)
    assert (answer.error_code, answer.member_id) == (0, "new-1")
    assert bench.heartbeat("new-1", 2, version=0).error_code == 0


def test_a_full_group_takes_nobody_else() -> None:
    bench = Bench({"t": 1}, max_size="2")
    bench.join("a")
    bench.join("b")
    refused = bench.join("c")
    assert refused.error_code == ErrorCode.GROUP_MAX_SIZE_REACHED
    assert refused.error_message == "The consumer group has reached its maximum capacity of 2 members."
    assert bench.join("a").error_code == 0
    assert [member.member_id for member in bench.describe().members] == ["a", "b"]


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"member": ""}, "MemberId can't be empty."),
    ({"member": "", "version": 0, "epoch": 1}, "MemberId can't be empty."),
    ({"group": ""}, "GroupId can't be empty."),
    ({"instance_id": ""}, "InstanceId can't be empty."),
    ({"rack_id": ""}, "RackId can't be empty."),
    ({"rebalance_timeout_ms": -1}, "RebalanceTimeoutMs must be provided in first request."),
    ({"owned": None}, "TopicPartitions must be empty when (re-)joining."),
    ({"owned": {"t": [1]}}, "TopicPartitions must be empty when (re-)joining."),
    ({"subscribed_topic_names": None},
     "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining."),
    ({"epoch": -2}, "InstanceId can't be null."),
    ({"epoch": -3}, "MemberEpoch is invalid."),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "message"), INVALID)
def test_a_request_that_makes_no_sense_is_told_so(bench: Bench, wrong: dict[str, Any], message: str) -> None:
    said = {"member": "a", "epoch": 0, "owned": {}, "rebalance_timeout_ms": 5, "subscribed_topic_names": ["t"]} | wrong
    answer = bench.heartbeat(**said)
    assert (answer.error_code, answer.error_message) == (ErrorCode.INVALID_REQUEST, message)
    assert bench.log == [] and list(bench.groups.list()) == [], "nothing has changed"


def test_an_assignor_that_is_not_there(bench: Bench) -> None:
    answer = bench.join("a", server_assignor="mine")
    assert answer.error_code == ErrorCode.UNSUPPORTED_ASSIGNOR
    assert answer.error_message == "ServerAssignor mine is not supported. Supported assignors: uniform, range."


def test_the_assignor_that_most_members_wish_for(bench: Bench) -> None:
    bench.join("a", ["t", "u"])
    assert bench.describe().assignor_name == "uniform"
    bench.join("b", ["t", "u"], server_assignor="range")
    assert bench.describe().assignor_name == "range"
    targets = {member.member_id: member.target_assignment for member in bench.describe().members}
    by_name = {topic.topic_name: topic.partitions for topic in targets["b"].topic_partitions}
    assert by_name == {"t": [3, 4, 5], "u": [2]}
    bench.heartbeat("a", 2, server_assignor="uniform")
    bench.join("c", server_assignor="uniform")
    assert bench.describe().assignor_name == "uniform"


# -- epochs --------------------------------------------------------------------------------------


def test_groups_and_members_that_are_not_there(bench: Bench) -> None:
    answer = bench.heartbeat("a", 2)
    assert (answer.error_code, answer.error_message) == (ErrorCode.GROUP_ID_NOT_FOUND, "Consumer group g not found.")
    bench.join("a")
    answer = bench.heartbeat("b", 2)
    assert answer.error_code == ErrorCode.UNKNOWN_MEMBER_ID
    assert answer.error_message == "Member b is not a member of group g."
    answer = bench.heartbeat("a", 2, instance_id="i")
    assert (answer.error_code, answer.error_message) == (ErrorCode.UNKNOWN_MEMBER_ID, "Instance id i is unknown.")
    assert bench.leave("b").error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_member_ahead_of_its_group_is_fenced(bench: Bench) -> None:
    bench.join("a")
    answer = bench.heartbeat("a", 3)
    assert answer.error_code == ErrorCode.FENCED_MEMBER_EPOCH
    assert "greater member epoch (3) than the one known by the group coordinator (2)" in (answer.error_message or "")


def test_a_member_is_forgiven_one_epoch_if_it_has_no_more_than_it_was_given(bench: Bench) -> None:
    """The answer with the new epoch may be lost; anything else is a zombie."""
    bench.join("a")
    bench.heartbeat("a", 2, subscribed_topic_names=["t", "u"])  # epoch 3; the answer is lost
    assert bench.heartbeat("a", 2).error_code == ErrorCode.FENCED_MEMBER_EPOCH, "it does not say what it has"
    too_much = bench.heartbeat("a", 2, owned={"t": [7]})
    assert too_much.error_code == ErrorCode.FENCED_MEMBER_EPOCH
    assert "smaller member epoch (2) than the one known by the group coordinator (3)" in (too_much.error_message or "")
    answer = bench.heartbeat("a", 2, owned={"t": range(6)}, rebalance_timeout_ms=5, subscribed_topic_names=["t", "u"])
    assert (answer.error_code, answer.member_epoch) == (0, 3)
    assert told(answer) == {"t": [0, 1, 2, 3, 4, 5], "u": [0, 1, 2]}
    bench.heartbeat("a", 3, subscribed_topic_names=["t"], owned={"t": range(6)})
    assert bench.heartbeat("a", 2, owned={}).error_code == ErrorCode.FENCED_MEMBER_EPOCH, "two epochs behind"


def test_commits_and_fetches_of_offsets_are_held_to_the_epoch(bench: Bench) -> None:
    def commit(member: str, epoch: int) -> int:
        return bench.groups.check_commit(Commit("g", member, None, epoch, 9), bench.now, Outbox())

    bench.join("a")
    bench.join("b")
    assert (commit("a", 2), commit("b", 3)) == (0, 0)
    assert commit("a", 0) == commit("a", 3) == ErrorCode.STALE_MEMBER_EPOCH
    assert commit("x", 2) == commit("", -1) == ErrorCode.UNKNOWN_MEMBER_ID
    fetch = bench.groups.check_fetch
    assert fetch("g", "a", 2) == fetch("g", None, -1) == 0
    assert fetch("g", "a", 6) == ErrorCode.STALE_MEMBER_EPOCH
    assert fetch("g", "x", 2) == ErrorCode.UNKNOWN_MEMBER_ID
    for member in "ab":
        bench.leave(member)
    assert commit("", -1) == 0, "nobody is there whom it could disturb"
    assert commit("a", 2) == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_commit_that_is_behind_is_taken_for_what_the_member_has_had_since(bench: Bench) -> None:
    """KIP-1251: the answer with the new epoch is on its way while the member commits."""
    def commit(epoch: int, topic: str, partition: int) -> int:
        return bench.groups.check_stale_commit(Commit("g", "a", None, epoch, 9), topic_id(topic), partition)

    bench.join("a")
    bench.heartbeat("a", 2, subscribed_topic_names=["t", "u"])  # epoch 3, with u
    assert commit(2, "t", 5) == 0
    assert commit(2, "u", 0) == commit(1, "t", 5) == commit(2, "t", 6) == ErrorCode.STALE_MEMBER_EPOCH
    assert commit(4, "t", 5) == ErrorCode.STALE_MEMBER_EPOCH, "a member cannot be ahead"
    bench.join("b", ["t"])
    bench.heartbeat("a", 3, owned={"t": range(6), "u": range(3)})
    revoking = bench.groups._groups["g"].members["a"].position.revoking[topic_id("t")]
    assert revoking and all(commit(2, "t", partition) == 0 for partition in revoking), "what it is to give up, too"


# -- leaving, sessions ---------------------------------------------------------------------------


def test_what_a_member_had_that_leaves_goes_to_the_others(bench: Bench) -> None:
    has = {"a": told(bench.join("a")) or {}, "b": told(bench.join("b")) or {}}
    epochs = {"a": 2, "b": 3}
    settle(bench, has, epochs)
    assert has == {"a": {"t": [0, 1, 2]}, "b": {"t": [3, 4, 5]}}
    answer = bench.leave("a")
    assert (answer.error_code, answer.member_id, answer.member_epoch) == (0, "a", -1)
    answer = bench.heartbeat("b", 3)
    assert (answer.member_epoch, told(answer)) == (4, {"t": [0, 1, 2, 3, 4, 5]})
    assert bench.leave("b").error_code == 0
    assert bench.describe().group_state == "Empty"
    assert bench.timers == {}, "nobody's session is left"


def test_a_member_that_is_not_heard_of_is_out(bench: Bench) -> None:
    bench.join("a")
    bench.join("b")
    bench.pass_time(44)
    bench.heartbeat("b", 3)
    bench.pass_time(2)
    assert [member.member_id for member in bench.describe().members] == ["b"]
    assert bench.heartbeat("a", 2).error_code == ErrorCode.UNKNOWN_MEMBER_ID
    assert told(bench.heartbeat("b", 3)) == {"t": [0, 1, 2, 3, 4, 5]}
    bench.pass_time(46)
    assert bench.describe().group_state == "Empty"


def test_a_refused_heartbeat_does_not_prolong_the_session(bench: Bench) -> None:
    bench.join("a")
    for _ in range(46):
        bench.heartbeat("a", 10)
        bench.pass_time(1)
    assert bench.describe().members == []


def test_who_does_not_give_up_in_time_is_out(bench: Bench) -> None:
    bench.join("a")
    bench.join("b")
    for _ in range(60):
        bench.heartbeat("a", 2, owned={"t": range(6)})
        bench.heartbeat("b", 3)
        bench.pass_time(1)
    assert [member.member_id for member in bench.describe().members] == ["b"]
    assert told(bench.heartbeat("b", 3, owned={})) == {"t": [0, 1, 2, 3, 4, 5]}


def test_who_gives_up_in_time_may_stay(bench: Bench) -> None:
    bench.join("a")
    bench.join("b")
    for owned in (range(6), range(3), range(3), range(3)):
        assert bench.heartbeat("a", bench.describe().members[0].member_epoch, owned={"t": owned}).error_code == 0
        assert bench.heartbeat("b", 3).error_code == 0
        bench.pass_time(40)
    assert len(bench.describe().members) == 2


def test_who_leaves_while_it_is_to_give_up_leaves_no_timer(bench: Bench) -> None:
    bench.join("a")
    bench.join("b")
    bench.heartbeat("a", 2, owned={"t": range(6)})
    assert any("step" in name for name in bench.timers)
    for member in "ab":
        bench.leave(member)
    assert bench.timers == {}


def test_sessions_and_time_to_give_up_begin_again_with_a_restart(bench: Bench) -> None:
    bench.join("a")
    bench.join("b")
    bench.heartbeat("a", 2, owned={"t": range(6)})
    bench.pass_time(40)
    bench.restart()
    bench.pass_time(40)
    assert bench.heartbeat("a", 2, owned={"t": range(6)}).error_code == 0
    assert bench.heartbeat("b", 3).error_code == 0
    bench.pass_time(21)
    assert [member.member_id for member in bench.describe().members] == ["b"]


def test_who_is_silent_after_a_restart_is_out(bench: Bench) -> None:
    bench.join("a")
    bench.restart()
    bench.pass_time(46)
    assert bench.describe().members == []


def test_nobody_is_served_before_the_topics_are_known(bench: Bench) -> None:
    bench.join("a")
    log = list(bench.log)
    bench.begin()
    assert bench.heartbeat("a", 2).error_code == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert bench.join("b").error_code == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    bench.restart()
    assert bench.heartbeat("a", 2).error_code == 0
    assert bench.log == log, "a restart changes nothing for anybody"


# -- static members ------------------------------------------------------------------------------


def test_a_static_member_is_back_and_has_what_it_had(bench: Bench) -> None:
    bench.join("a", instance_id="i")
    bench.join("b")
    has = {"a": {"t": [0, 1, 2, 3, 4, 5]}, "b": {}}
    bench.heartbeat("a", 2, owned=has["a"], instance_id="i")
    bench.heartbeat("a", 2, owned={"t": [0, 1, 2]}, instance_id="i")
    bench.heartbeat("b", 3)
    epoch = bench.describe().group_epoch

    answer = bench.leave("a", STATIC_LEAVE, instance_id="i")
    assert (answer.error_code, answer.member_epoch) == (0, STATIC_LEAVE)
    assert told(bench.heartbeat("b", 3)) is None, "nobody gets its partitions meanwhile"
    answer = bench.join("a2", instance_id="i")
    assert (answer.error_code, answer.member_id, told(answer)) == (0, "a2", {"t": [0, 1, 2]})
    assert bench.describe().group_epoch == epoch, "no rebalance"
    fenced = bench.heartbeat("a", 3, instance_id="i")
    assert fenced.error_code == ErrorCode.FENCED_INSTANCE_ID
    assert fenced.error_message == "Static member a with instance id i was fenced by member a2."
    assert bench.heartbeat("a2", answer.member_epoch, instance_id="i").error_code == 0


def test_a_static_member_that_is_away_has_nothing_to_give_up(bench: Bench) -> None:
    bench.join("a", instance_id="i")
    bench.join("b")
    assert told(bench.heartbeat("a", 2, owned={"t": range(6)}, instance_id="i")) == {"t": [0, 1, 2]}
    bench.leave("a", STATIC_LEAVE, instance_id="i")
    assert told(bench.heartbeat("b", 3, owned={})) == {"t": [3, 4, 5]}
    away = bench.groups._groups["g"].members["a"].position
    assert away.assigned == {topic_id("t"): {0: 0, 1: 0, 2: 0}}, "as Kafka writes it: its epochs say nothing any more"


def test_an_instance_id_that_is_in_use_is_not_given_away(bench: Bench) -> None:
    bench.join("a", instance_id="i")
    refused = bench.join("b", instance_id="i")
    assert refused.error_code == ErrorCode.UNRELEASED_INSTANCE_ID
    assert refused.error_message == (
        "Static member b with instance id i cannot join the group because the instance id is owned by a member.")
    bench.pass_time(46)
    assert bench.join("b", instance_id="i").error_code == 0


def test_a_static_member_that_stays_away_is_out(bench: Bench) -> None:
    bench.join("a", instance_id="i")
    bench.join("b")
    bench.leave("a", STATIC_LEAVE, instance_id="i")
    for _ in range(45):
        bench.heartbeat("b", 3)
        bench.pass_time(1)
    assert told(bench.heartbeat("b", 3)) == {"t": [0, 1, 2, 3, 4, 5]}


def test_a_static_member_may_leave_for_good(bench: Bench) -> None:
    bench.join("a", instance_id="i")
    assert bench.leave("x", instance_id="i").error_code == ErrorCode.FENCED_INSTANCE_ID
    assert bench.leave("a", instance_id="i").error_code == 0
    assert bench.describe().members == []
    assert bench.join("b", instance_id="i").error_code == 0
