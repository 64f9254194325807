"""A group that moves between the classic protocol and KIP-848 while members are in it, through a coordinator and its log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.drive_migration import GROUP, MORE, ORDERS, Classic, Mixed, subscription
from zafka.actors.groups.embedded import read_assignment, write_assignment
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode

ALL = set(range(ORDERS[2]))


@pytest.fixture
def mixed(tmp_path: Path) -> Mixed:
    return begin(tmp_path)


def begin(directory: Path, **config: str) -> Mixed:
    coordinator = Mixed(directory, **config)
    coordinator.lead(0, ORDERS, MORE)
    return coordinator


def owned(answer: Any) -> set[int]:
    assert answer.error_code == 0
    return set() if not answer.assignment.topic_partitions else set(answer.assignment.topic_partitions[0].partitions)


def two_and_one(mixed: Mixed, **fields: Any) -> tuple[Classic, Classic, int]:
    """Two classic members, and one of KIP-848 that waits for their partitions; its epoch."""
    first, second = mixed.classic(**fields), mixed.classic(**fields)
    mixed.settle(first, second)
    answer = mixed.beat("new", 0)
    assert owned(answer) == set(), "the others have them all"
    return first, second, answer.member_epoch


def let_go(member: Classic) -> None:
    """It hears of the rebalance, joins, gives up what it is to, and joins again."""
    assert member.beat() == ErrorCode.REBALANCE_IN_PROGRESS
    assert member.join() == 0
    while member.beat() == ErrorCode.REBALANCE_IN_PROGRESS:
        assert member.join() == 0


@pytest.mark.parametrize("eager", [False, True])
def test_a_classic_group_takes_a_kip_848_member_in(mixed: Mixed, eager: bool) -> None:
    first, second, epoch = two_and_one(mixed, eager=eager)
    assert (epoch, mixed.kind) == (first.generation + 1, ("consumer", "Reconciling"))
    for member in (first, second):
        let_go(member)
        assert (member.generation, len(member.has)) == (epoch, 2)
    new = owned(mixed.beat("new", epoch))
    assert (len(new), first.has | second.has | new) == (2, ALL)
    assert mixed.beat("new", epoch, owned=new).error_code == 0
    assert mixed.kind == ("consumer", "Stable")


def test_a_partition_goes_to_the_new_member_only_when_the_classic_one_has_given_it_up(mixed: Mixed) -> None:
    first, second, epoch = two_and_one(mixed)
    before = first.has | second.has
    assert first.beat() == ErrorCode.REBALANCE_IN_PROGRESS
    held = set(first.has)
    assert first.join() == 0
    assert first.has < held, "it is told at once what it keeps"
    assert mixed.beat("new", epoch).assignment is None, "and has not said that it gave up the rest"
    assert first.beat() == ErrorCode.REBALANCE_IN_PROGRESS
    assert first.join() == 0
    new = owned(mixed.beat("new", epoch))
    assert new and not new & (first.has | second.has)
    assert before == ALL


def test_the_last_kip_848_member_leaves_and_the_group_is_classic_again(mixed: Mixed) -> None:
    first, second, epoch = two_and_one(mixed)
    for member in (first, second):
        let_go(member)
    mixed.beat("new", epoch)
    assert mixed.beat("new", -1).error_code == 0
    assert mixed.kind == ("classic", "PreparingRebalance")
    for member in (first, second):
        assert member.beat() == ErrorCode.REBALANCE_IN_PROGRESS
    mixed.settle(first, second)
    assert mixed.kind == ("classic", "Stable")
    assert (first.generation, first.has | second.has) == (epoch + 1, ALL)


@pytest.mark.parametrize("settled", [False, True])
def test_a_group_that_became_classic_is_shared_anew_after_a_crash(mixed: Mixed, settled: bool) -> None:
    first, second, epoch = two_and_one(mixed)
    for member in (first, second):
        let_go(member)
    mixed.beat("new", epoch)
    mixed.beat("new", -1)
    if settled:
        mixed.settle(first, second)
    again = mixed.again(1)
    first.coordinator = second.coordinator = again
    expected = 0 if settled else ErrorCode.REBALANCE_IN_PROGRESS
    assert [first.beat(), second.beat()] == [expected, expected], "nobody else would give out what the leaver had"
    again.settle(first, second)
    assert first.has | second.has == ALL


def test_a_mixed_group_goes_on_after_a_crash(mixed: Mixed) -> None:
    first, second, epoch = two_and_one(mixed)
    again = mixed.again(1)
    first.coordinator = second.coordinator = again
    assert again.kind == ("consumer", "Reconciling")
    for member in (first, second):
        let_go(member)
    assert len(owned(again.beat("new", epoch))) == 2


@pytest.mark.parametrize(("policy", "up", "down"), [
    ("disabled", False, False), ("upgrade", True, False), ("downgrade", False, True), ("Bidirectional", True, True)])
def test_the_policy_says_which_way(tmp_path: Path, policy: str, up: bool, down: bool) -> None:
    mixed = begin(tmp_path, group_consumer_migration_policy=policy)
    member = mixed.classic()
    mixed.settle(member)
    answer = mixed.beat("new", 0)
    if up:
        assert answer.error_code == 0
        late = mixed.classic("other")
        assert late.join() == 0, "a classic member may join a consumer group"
        assert late.leave() == 0
    else:
        assert (answer.error_code, answer.error_message) == (
            ErrorCode.GROUP_ID_NOT_FOUND,
            "Cannot upgrade classic group g to consumer group because online upgrade is disabled.")
        assert (member.beat(), mixed.kind) == (0, ("classic", "Stable"))
        assert member.leave() == 0
        mixed.beat("new", 0)
        refused = ErrorCode.INCONSISTENT_GROUP_PROTOCOL if policy == "disabled" else 0
        assert mixed.classic("other").join() == refused, "a classic member may join a consumer group, unless groups stay as they are"
    mixed.beat("new", -1)
    assert mixed.kind[0] == ("classic" if down else "consumer")


@pytest.mark.parametrize(("metadata", "assignment", "protocol_type", "why"), [
    (b"", b"", "consumer", "the embedded consumer protocol is malformed."),
    (subscription("orders"), b"", "connect", "the group does not use the consumer embedded protocol."),
    (subscription("orders"), write_assignment(1, {"orders": {1}})[:-4] + b"\0\0\0\1x", "consumer",
     ("an unsupported custom assignor is in use. Please refer to the documentation or switch to a default assignor before "
      "re-attempting the upgrade."))])
def test_what_cannot_be_said_in_the_other_protocol_stays_classic(
    mixed: Mixed, metadata: bytes, assignment: bytes, protocol_type: str, why: str
) -> None:
    asked = mixed.post(ApiKey.JOIN_GROUP, 3, kafka.JoinGroupRequest(
        GROUP, 10_000, 10_000, "", protocol_type=protocol_type, protocols=[kafka.JoinGroupRequestProtocol("p", metadata)]))
    mixed.pass_time(0.1)
    joined = mixed.replies.pop(asked)
    mixed.ask(ApiKey.SYNC_GROUP, 5, kafka.SyncGroupRequest(
        GROUP, joined.generation_id, joined.member_id,
        assignments=[kafka.SyncGroupRequestAssignment(joined.member_id, assignment)]))
    answer = mixed.beat("new", 0)
    assert (answer.error_code, answer.error_message) == (
        ErrorCode.GROUP_ID_NOT_FOUND, f"Cannot upgrade classic group g to consumer group because {why}")
    assert mixed.kind == ("classic", "Stable")


def test_two_who_were_given_the_same_by_their_leader_stay_classic(mixed: Mixed) -> None:
    members = mixed.classic(), mixed.classic()
    for member in members:
        member.ask_to_join()
    mixed.pass_time(0.1)
    assert [member.take_join() for member in members] == [0, 0]
    everything = {member.member_id: write_assignment(1, {"orders": ALL}) for member in members}
    for member in sorted(members, key=lambda member: member.leads):
        member.sync(everything)
    assert [member.take_sync() for member in members] == [0, 0]
    assert "an unsupported custom assignor is in use" in mixed.beat("new", 0).error_message
    assert mixed.kind == ("classic", "Stable")


def test_what_a_member_was_to_give_up_is_still_its_own_when_the_group_is_classic_again(mixed: Mixed) -> None:
    first, second, _ = two_and_one(mixed)
    held = {member.member_id: set(member.has) for member in (first, second)}
    assert first.beat() == ErrorCode.REBALANCE_IN_PROGRESS
    assert first.join() == 0
    assert first.has < held[first.member_id]
    mixed.beat("new", -1)
    assert mixed.kind[0] == "classic"
    again = mixed.again(1)
    (value,) = [group.value() for group in again.classic_groups() if group.group_id == GROUP]
    assert {each.member_id: read_assignment(each.assignment)[0]["orders"] for each in value.members} == held
    assert value.current_state_timestamp > 0


def test_user_data_of_the_well_known_assignors_are_not_missed(mixed: Mixed) -> None:
    member = mixed.classic()
    member.ask_to_join()
    mixed.pass_time(0.1)
    assert member.take_join() == 0
    member.sync({member.member_id: write_assignment(1, {"orders": ALL})[:-4] + b"\0\0\0\1x"})
    assert member.take_sync() == 0
    assert mixed.beat("new", 0).error_code == 0
    let_go(member)
    assert len(member.has) == 3


def test_a_group_that_is_too_large_does_not_move(tmp_path: Path) -> None:
    mixed = begin(tmp_path, group_consumer_max_size="1", group_max_size="2")
    mixed.settle(mixed.classic(), mixed.classic())
    assert mixed.beat("new", 0).error_message == (
        "Cannot upgrade classic group g to consumer group because the group size exceeds the consumer group maximum size.")
    full = begin(tmp_path / "full", group_consumer_max_size="1")
    full.settle(full.classic())
    refused = full.beat("new", 0)
    assert refused.error_code == ErrorCode.GROUP_MAX_SIZE_REACHED, "it could move, and has no room for one more"
    assert full.kind == ("classic", "Stable")
    small = begin(tmp_path / "small", group_consumer_max_size="3", group_max_size="1")
    member = small.classic()
    small.settle(member)
    small.beat("new", 0)
    assert small.classic("other").join() == 0
    assert small.classic("third").join() == ErrorCode.GROUP_MAX_SIZE_REACHED
    small.beat("new", -1)
    assert small.kind[0] == "consumer"


def test_a_refused_heartbeat_leaves_the_group_as_it_was(mixed: Mixed) -> None:
    member = mixed.classic()
    mixed.settle(member)
    end = mixed.coordinator.replica.log.end_offset
    refused = mixed.beat("new", 0, subscribed_topic_names=None, subscribed_topic_regex="(")
    assert refused.error_code == ErrorCode.INVALID_REGULAR_EXPRESSION
    assert mixed.beat("new", 3).error_message == "Group g is not a consumer group."
    assert (mixed.coordinator.replica.log.end_offset, mixed.kind, member.beat()) == (end, ("classic", "Stable"), 0)


def test_members_that_wait_while_their_group_is_converted_are_told_to_join_again(mixed: Mixed) -> None:
    first, second = mixed.classic(), mixed.classic()
    mixed.settle(first)
    second.ask_to_join()
    assert mixed.kind == ("classic", "PreparingRebalance")
    assert mixed.beat("new", 0).error_code == 0
    assert second.take_join() == ErrorCode.REBALANCE_IN_PROGRESS
    let_go(first)
    assert second.join() == 0
    assert mixed.describe().members[0].member_type == 0


@pytest.mark.parametrize("policy", ["disabled", "bidirectional"])
def test_nobody_is_in_a_group_that_begins_anew_in_the_other_protocol(tmp_path: Path, policy: str) -> None:
    """An empty group is moved by whoever comes, whatever the policy says of groups with members (Kafka: classicGroupJoin)."""
    mixed = begin(tmp_path, group_consumer_migration_policy=policy)
    answer = mixed.beat("new", 0)
    assert mixed.beat("new", -1).error_code == 0 and answer.error_code == 0
    member = mixed.classic()
    mixed.settle(member)
    assert (mixed.kind, member.generation) == (("classic", "Stable"), 1)
