"""Classic groups: static members, signs of life, goodbyes, commits, descriptions, restarts.

Facts of Kafka's GroupMetadataManagerTest and ClassicGroupTest.
"""

from __future__ import annotations

import pytest

from tests.unit.drive_classic import INITIAL_MS, REBALANCE_MS, SESSION_MS, Classic
from zafka.transport.kafka.errors import ErrorCode

UNKNOWN = ErrorCode.UNKNOWN_MEMBER_ID
FENCED = ErrorCode.FENCED_INSTANCE_ID
REBALANCE = ErrorCode.REBALANCE_IN_PROGRESS
AB = ("a", "b")


# -- static members -------------------------------------------------------------------------------


def test_a_static_member_joins_at_once_and_is_called_by_its_instance() -> None:
    classic = Classic()
    joined = classic.join(instance="a")
    assert joined.answer is None
    classic.pass_ms(INITIAL_MS)
    assert (joined.error, joined.answer.member_id, joined.answer.members[0].group_instance_id) == (0, "a-id1", "a")


@pytest.mark.parametrize("version", [5, 8, 9])
def test_a_follower_that_comes_anew_has_its_place_and_nobody_else_need_know(version: int) -> None:
    classic = Classic()
    leader, follower = classic.stable(instances=AB)
    instance = follower[0]
    back = classic.join(instance=instance, version=version)
    assert (back.error, back.answer.generation_id, back.answer.leader) == (0, 1, leader)
    assert (back.answer.skip_assignment, back.answer.members, classic.state()) == (False, [], "Stable")
    new = back.answer.member_id
    assert [each.member_id for each in classic.stored.members if each.group_instance_id == instance] == [new]
    assert classic.sync(new, 1, instance=instance).answer.assignment == b"for " + follower.encode()
    assert classic.heartbeat(follower, 1, instance=instance) == FENCED
    assert classic.heartbeat(follower, 1) == UNKNOWN
    assert classic.commit(follower, 1, instance=instance) == FENCED
    assert classic.sync(follower, 1, instance=instance).error == FENCED
    assert classic.join(follower, instance=instance).error == FENCED
    assert classic.leave((follower, instance)) == [FENCED]
    assert classic.commit(new, 1, instance=instance) == 0


def test_a_leader_that_comes_anew_skips_the_assignment() -> None:
    classic = Classic()
    leader, follower = classic.stable(instances=AB)
    back = classic.join(instance=leader[0]).answer
    assert (back.leader, back.skip_assignment) == (back.member_id, True)
    assert {each.member_id for each in back.members} == {back.member_id, follower}
    assert classic.state() == "Stable"


def test_a_leader_that_cannot_skip_the_assignment_does_not_take_itself_for_the_leader() -> None:
    classic = Classic()
    leader, _ = classic.stable(instances=AB)
    back = classic.join(instance=leader[0], version=8).answer
    assert (back.leader, back.members) == (leader, [])
    assert back.member_id != leader
    assert classic.stored.leader == back.member_id  # it is, though


def test_a_static_member_that_changes_what_all_agree_on_begins_a_rebalance() -> None:
    classic = Classic()
    both = (("range", b"r"), ("sticky", b"s"))
    leader, follower = classic.stable(instances=AB, protocols=both)
    back = classic.join(instance=follower[0], protocols=(("sticky", b"s"),))
    assert (back.answer, classic.state()) == (None, "PreparingRebalance")
    assert classic.join(leader, instance=leader[0], protocols=both).answer.protocol_name == "sticky"


def test_a_static_member_that_comes_anew_while_a_generation_completes_begins_a_rebalance() -> None:
    classic = Classic()
    joins = [classic.join(instance=each) for each in AB]
    classic.pass_ms(2 * INITIAL_MS)
    follower = next(each.answer.member_id for each in joins if each.answer.member_id != each.answer.leader)
    waiting = classic.sync(follower, 1, instance=follower[0])
    back = classic.join(instance=follower[0])
    assert (waiting.error, back.answer, classic.state()) == (FENCED, None, "PreparingRebalance")


def test_who_waits_by_the_old_id_of_a_static_member_is_fenced() -> None:
    classic = Classic()
    first = classic.join(instance="a")
    second = classic.join(instance="a")
    assert (first.error, second.answer) == (FENCED, None)
    classic.pass_ms(INITIAL_MS)
    assert (second.error, classic.members()) == (0, {second.answer.member_id})


def test_a_static_member_that_came_anew_and_waits_longer_than_its_session_is_not_gone() -> None:
    classic = Classic()
    (leader,) = classic.stable(1)
    classic.join(instance="a")
    back = classic.join(instance="a")
    for _ in range(4):
        classic.pass_ms(SESSION_MS - 1)
        assert classic.heartbeat(leader, 1) == REBALANCE
    assert back.answer is None
    again = classic.join(leader)
    assert (back.error, again.error) == (0, 0)


def test_a_static_member_stays_in_a_rebalance_that_it_misses() -> None:
    classic = Classic()
    leader, follower = classic.stable(instances=AB, session_ms=100_000)
    back = classic.join(leader, instance=leader[0], session_ms=100_000)
    classic.pass_ms(REBALANCE_MS)
    assert {each.member_id for each in back.answer.members} == {leader, follower}
    classic.pass_ms(100_000)
    assert classic.members() <= {leader, follower}


def test_an_id_that_was_given_to_a_dynamic_member_cannot_become_a_static_one() -> None:
    classic = Classic()
    old = classic.stable(instances=AB)
    member = classic.join().answer.member_id
    assert classic.join(member, instance="a").error == FENCED
    assert classic.join(member, instance="c").error == UNKNOWN
    assert classic.members() == set(old)


# -- Heartbeat, LeaveGroup ------------------------------------------------------------------------


def test_a_heartbeat_of_the_wrong_member_group_or_generation_is_refused() -> None:
    classic = Classic()
    member, _ = classic.stable()
    assert classic.heartbeat(member, 1) == 0
    assert classic.heartbeat(member, 0) == ErrorCode.ILLEGAL_GENERATION
    assert classic.heartbeat("nobody", 1) == UNKNOWN
    assert classic.heartbeat(member, 1, group="other") == UNKNOWN
    assert classic.heartbeat(member, 1, group="") == ErrorCode.INVALID_GROUP_ID


def test_who_is_not_heard_of_is_gone_and_the_last_one_leaves_an_empty_group() -> None:
    classic = Classic()
    leader, follower = classic.stable()
    classic.pass_ms(SESSION_MS - 1)
    assert classic.commit(leader, 1) == 0  # a sign of life, too
    classic.pass_ms(1)
    assert (classic.heartbeat(leader, 1), classic.heartbeat(follower, 1)) == (REBALANCE, UNKNOWN)
    classic.pass_ms(SESSION_MS)
    assert (classic.state(), classic.stored.generation, classic.stored.members) == ("Empty", 2, [])
    assert (classic.stored.protocol, classic.stored.leader, classic.timers) == (None, None, {})


def test_who_leaves_is_not_waited_for() -> None:
    classic = Classic()
    leader, follower = classic.stable()
    assert classic.leave((follower, None)) == [0]
    assert (classic.heartbeat(leader, 1), classic.heartbeat(follower, 1)) == (REBALANCE, UNKNOWN)
    assert classic.join(leader).answer.generation_id == 2


def test_several_leave_at_once_each_with_an_answer_of_its_own() -> None:
    classic = Classic()
    first, second = classic.stable(instances=AB)
    pending = classic.join().answer.member_id
    gone = [("", first[0]), (second, second[0]), (second, None), ("", "c"), ("", None), (pending, None), (first, "c")]
    assert classic.leave(*gone) == [0, 0, UNKNOWN, UNKNOWN, UNKNOWN, 0, UNKNOWN]
    assert (classic.state(), classic.stored.generation) == ("Empty", 2)
    assert classic.leave(("x", None), ("", "y"), group="other") == [UNKNOWN, UNKNOWN]


# -- commits, administration ----------------------------------------------------------------------


def test_who_may_commit() -> None:
    classic = Classic()
    leader, follower = classic.stable()
    assert classic.commit("", -1) == UNKNOWN
    assert classic.commit("nobody", 1) == UNKNOWN
    assert classic.commit(leader, 2) == classic.commit(leader, -1) == ErrorCode.ILLEGAL_GENERATION
    joins = [classic.join(leader)]
    assert classic.commit(follower, 1) == 0  # before it joins the next generation
    joins.append(classic.join(follower))
    assert classic.commit(follower, 1) == ErrorCode.ILLEGAL_GENERATION
    assert classic.commit(follower, 2) == REBALANCE
    classic.leave((leader, None), (follower, None))
    assert classic.commit("", -1) == 0
    assert [each.error for each in joins] == [0, 0]


def test_a_group_is_described_with_what_it_agreed_on_while_it_is_stable() -> None:
    classic = Classic()
    leader, _ = classic.stable()
    described = classic.groups.describe("g", 6)
    assert (described.group_state, described.protocol_type, described.protocol_data) == ("Stable", "consumer", "range")
    assert {(each.member_metadata, each.member_assignment, each.client_host) for each in described.members} == {
        (b"r", b"for " + each.encode(), "/127.0.0.1") for each in classic.members()}
    classic.join(leader)
    described = classic.groups.describe("g", 6)
    assert (described.group_state, described.protocol_data) == ("PreparingRebalance", "")
    assert {each.member_metadata for each in described.members} == {b""}
    assert {each.member_assignment for each in described.members} == {b"for " + each.encode() for each in classic.members()}


# -- restarts -------------------------------------------------------------------------------------


def test_members_go_on_after_a_restart_and_their_sessions_begin_anew() -> None:
    classic = Classic()
    leader, follower = classic.stable()
    classic.pass_ms(SESSION_MS - 1)
    classic.restart()
    classic.pass_ms(SESSION_MS - 1)
    assert (classic.state(), classic.heartbeat(leader, 1), classic.commit(follower, 1)) == ("Stable", 0, 0)
    assert classic.sync(follower, 1).answer.assignment == b"for " + follower.encode()
    classic.join(leader)
    assert classic.join(follower).answer.generation_id == 2


def test_a_generation_that_was_not_assigned_is_taken_back_by_a_restart() -> None:
    classic = Classic()
    leader, follower = classic.stable()
    joins = [classic.join(leader), classic.join(follower)]
    assert [each.answer.generation_id for each in joins] == [2, 2]
    classic.restart()
    assert classic.sync(leader, 2, {}).error == ErrorCode.ILLEGAL_GENERATION
    assert (classic.state(), classic.heartbeat(leader, 1)) == ("Stable", 0)


def test_static_members_and_an_empty_group_are_still_there_after_a_restart() -> None:
    classic = Classic()
    leader, follower = classic.stable(instances=AB)
    classic.restart()
    assert classic.join(instance=follower[0]).answer.leader == leader
    assert classic.heartbeat(follower, 1, instance=follower[0]) == FENCED
    classic.leave(("", "a"), ("", "b"))
    classic.restart()
    assert (classic.state(), classic.groups._groups["g"].generation) == ("Empty", 2)
