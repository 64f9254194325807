"""Classic groups: how dynamic members join, agree, are assigned to, are missed and leave; what the log holds of it.

Facts of Kafka's GroupMetadataManagerTest and ClassicGroupTest.
"""

from __future__ import annotations

import pytest

from tests.unit.drive_classic import INITIAL_MS, REBALANCE_MS, SESSION_MS, WALL_MS, Classic
from zafka.transport.kafka.errors import ErrorCode

REJECTED = ErrorCode.INCONSISTENT_GROUP_PROTOCOL
UNKNOWN = ErrorCode.UNKNOWN_MEMBER_ID
REBALANCE = ErrorCode.REBALANCE_IN_PROGRESS


# -- JoinGroup: who is let in ---------------------------------------------------------------------


@pytest.mark.parametrize(("fields", "error"), [
    ({"group": ""}, ErrorCode.INVALID_GROUP_ID),
    ({"session_ms": 5_999}, ErrorCode.INVALID_SESSION_TIMEOUT),
    ({"session_ms": 1_800_001}, ErrorCode.INVALID_SESSION_TIMEOUT),
    ({"member": "nobody"}, UNKNOWN),
    ({"kind": ""}, REJECTED),
    ({"protocols": ()}, REJECTED),
])
def test_a_join_that_is_refused_leaves_no_group(fields: dict[str, object], error: int) -> None:
    classic = Classic()
    refused = classic.join(**fields)  # type: ignore[arg-type]
    assert (refused.error, refused.answer.generation_id) == (error, -1)
    assert (classic.state(), classic.timers, classic.records) == ("Dead", {}, [])


@pytest.mark.parametrize("session_ms", [6_000, 1_800_000])
def test_the_bounds_of_sessions_are_within(session_ms: int) -> None:
    assert Classic().join(session_ms=session_ms).error == ErrorCode.MEMBER_ID_REQUIRED


def test_a_new_member_is_given_an_id_of_its_clients_and_comes_back_with_it() -> None:
    classic = Classic()
    first = classic.join(client="reader")
    assert (first.error, first.answer.member_id) == (ErrorCode.MEMBER_ID_REQUIRED, "reader-id1")
    second = classic.join("reader-id1")
    assert second.answer is None
    classic.pass_ms(INITIAL_MS)
    answer = second.answer
    assert (answer.error_code, answer.generation_id, answer.leader, answer.member_id) == (0, 1, "reader-id1", "reader-id1")
    assert (answer.protocol_type, answer.protocol_name, answer.skip_assignment) == ("consumer", "range", False)
    assert [(each.member_id, each.metadata) for each in answer.members] == [("reader-id1", b"r")]


@pytest.mark.parametrize("version", range(4))
def test_before_version_4_a_new_member_joins_at_once(version: int) -> None:
    classic = Classic()
    joined = classic.join(version=version)
    assert joined.answer is None
    classic.pass_ms(INITIAL_MS)
    assert (joined.error, joined.answer.generation_id) == (0, 1)


def test_in_version_0_the_session_is_the_time_for_a_rebalance() -> None:
    classic = Classic()
    member = classic.join(version=0)
    classic.pass_ms(INITIAL_MS)
    assert member.error == 0
    leader = member.answer.member_id
    classic.sync(leader, 1, {}, version=0)
    assert classic.stored.members[0].rebalance_timeout == SESSION_MS


def test_a_member_id_that_was_given_and_not_used_is_forgotten_with_its_group() -> None:
    classic = Classic()
    member = classic.join().answer.member_id
    assert classic.state() == "Empty"
    classic.pass_ms(SESSION_MS - 1)
    assert classic.state() == "Empty"
    classic.pass_ms(1)
    assert (classic.state(), classic.timers) == ("Dead", {})
    assert classic.join(member).error == UNKNOWN


def test_who_is_given_an_id_is_waited_for_until_it_expires() -> None:
    classic = Classic()
    leader, follower = classic.stable()
    late = classic.join().answer.member_id
    joins = [classic.join(leader), classic.join(follower)]
    assert [each.answer for each in joins] == [None, None]
    classic.pass_ms(SESSION_MS)
    assert [each.error for each in joins] == [0, 0]
    assert classic.join(late).error == UNKNOWN


def test_a_full_group_takes_nobody_else_and_its_own_members_still() -> None:
    classic = Classic(group_max_size=2)
    leader, follower = classic.stable()
    refused = classic.join()
    assert (refused.error, refused.answer.member_id) == (ErrorCode.GROUP_MAX_SIZE_REACHED, "")
    joins = [classic.join(leader), classic.join(follower)]
    assert [each.error for each in joins] == [0, 0]


def test_while_a_group_rebalances_the_first_who_join_are_those_who_have_room() -> None:
    classic = Classic(group_max_size=2)
    candidates = [classic.join().answer.member_id for _ in range(3)]
    joins = [classic.join(each) for each in candidates]
    assert (joins[2].error, joins[2].answer.member_id) == (ErrorCode.GROUP_MAX_SIZE_REACHED, "")
    classic.pass_ms(2 * INITIAL_MS)
    assert [each.error for each in joins[:2]] == [0, 0]


def test_a_group_that_became_too_large_over_a_restart_shrinks() -> None:
    classic = Classic()
    first, second, third = classic.stable(3)
    classic.restart(group_max_size=2)
    assert classic.state() == "PreparingRebalance"
    joins = [classic.join(each) for each in (first, second, third)]
    assert joins[2].error == ErrorCode.GROUP_MAX_SIZE_REACHED
    assert [each.answer for each in joins[:2]] == [None, None]
    classic.pass_ms(REBALANCE_MS)
    assert [each.error for each in joins[:2]] == [0, 0]
    assert classic.members() == {first, second}


# -- JoinGroup: the first rebalance waits ---------------------------------------------------------


def test_the_first_rebalance_waits_for_others_and_a_little_longer_when_they_come() -> None:
    classic = Classic()
    _, first = classic.join_new()
    classic.pass_ms(INITIAL_MS - 1)
    _, second = classic.join_new()
    classic.pass_ms(INITIAL_MS)
    assert (first.answer, second.answer) == (None, None)
    classic.pass_ms(1)
    assert {first.answer.generation_id, second.answer.generation_id} == {1}
    assert first.answer.leader == second.answer.leader


def test_the_first_rebalance_does_not_wait_longer_than_the_time_for_rebalances() -> None:
    classic = Classic()
    joins = [classic.join_new(rebalance_ms=2 * INITIAL_MS + 1_000)[1]]
    while joins[0].answer is None:
        classic.pass_ms(1_000)
        joins.append(classic.join_new()[1])
    assert classic.ms == 2 * INITIAL_MS + 1_000


def test_the_first_rebalance_ends_at_once_without_a_delay() -> None:
    classic = Classic(group_initial_rebalance_delay_ms=0)
    _, joined = classic.join_new()
    classic.pass_ms(0)
    assert joined.error == 0


def test_whoever_comes_while_the_first_rebalance_waits_may_have_the_group_to_itself() -> None:
    """The only member left again before the group had a generation."""
    classic = Classic()
    member, joined = classic.join_new()
    assert classic.leave((member, None)) == [0]
    assert (joined.error, joined.answer.member_id) == (UNKNOWN, "")
    assert classic.state() == "PreparingRebalance"
    _, other = classic.join_new(protocols=(("sticky", b"s"),))
    classic.pass_ms(2 * INITIAL_MS)
    assert (other.error, other.answer.protocol_name) == (0, "sticky")


def test_a_group_that_everybody_left_before_its_first_generation_is_empty() -> None:
    classic = Classic()
    member, _ = classic.join_new()
    classic.leave((member, None))
    classic.pass_ms(INITIAL_MS)
    assert (classic.state(), classic.stored.generation, classic.stored.members) == ("Empty", 1, [])


def test_a_new_member_is_not_waited_for_for_ever() -> None:
    classic = Classic()
    members = classic.stable(2, rebalance_ms=400_000)
    _, joined = classic.join_new(rebalance_ms=400_000)
    for _ in range(59):
        classic.pass_ms(5_000)
        assert {classic.heartbeat(member, 1) for member in members} == {REBALANCE}
    assert joined.answer is None
    classic.pass_ms(5_000)
    assert (joined.error, joined.answer.member_id) == (UNKNOWN, "")


# -- protocols ------------------------------------------------------------------------------------


def test_the_protocol_is_the_one_with_most_votes_of_those_that_all_know() -> None:
    classic = Classic()
    offers = [(("a", b"1"), ("b", b"2"), ("c", b"3")), (("b", b"4"), ("a", b"5")), (("c", b"6"), ("b", b"7"), ("a", b"8"))]
    joins = [classic.join_new(protocols=protocols)[1] for protocols in offers]
    classic.pass_ms(2 * INITIAL_MS)
    assert {each.answer.protocol_name for each in joins} == {"b"}  # for c is not known by all, and its friend likes b next
    leader = next(each.answer for each in joins if each.answer.leader == each.answer.member_id)
    assert sorted(member.metadata for member in leader.members) == [b"2", b"4", b"7"]


@pytest.mark.parametrize("fields", [{"kind": "connect"}, {"protocols": (("sticky", b""),)}])
def test_who_cannot_agree_with_the_others_is_refused(fields: dict[str, object]) -> None:
    classic = Classic()
    _, follower = classic.stable()
    assert classic.join(**fields).error == REJECTED  # type: ignore[arg-type]
    refused = classic.join(follower, **fields)  # type: ignore[arg-type]
    assert (refused.error, refused.answer.member_id) == (REJECTED, follower)
    assert classic.state() == "Stable"


def test_an_empty_group_may_become_one_of_another_kind() -> None:
    classic = Classic()
    (member,) = classic.stable(1)
    classic.leave((member, None))
    _, joined = classic.join_new(kind="connect", protocols=(("compatible", b""),))
    classic.pass_ms(INITIAL_MS)
    assert (joined.answer.protocol_type, joined.answer.protocol_name) == ("connect", "compatible")


def test_before_version_7_no_protocol_is_an_empty_one() -> None:
    classic = Classic()
    assert classic.join("nobody", version=6).answer.protocol_name == ""
    assert classic.join("nobody", version=7).answer.protocol_name is None


# -- joining again --------------------------------------------------------------------------------


def test_a_follower_that_joins_again_unchanged_hears_of_its_generation() -> None:
    classic = Classic()
    leader, follower = classic.stable()
    again = classic.join(follower)
    assert (again.error, again.answer.generation_id, again.answer.leader) == (0, 1, leader)
    assert again.answer.members == []
    assert classic.state() == "Stable"
    assert classic.sync(follower, 1).answer.assignment == b"for " + follower.encode()


def test_a_follower_with_other_metadata_and_any_leader_begin_a_rebalance() -> None:
    classic = Classic()
    leader, follower = classic.stable()
    changed = classic.join(follower, protocols=(("range", b"other"),))
    assert (changed.answer, classic.state()) == (None, "PreparingRebalance")
    leads = classic.join(leader)
    assert (changed.answer.generation_id, leads.answer.generation_id) == (2, 2)
    assert {each.member_id: each.metadata for each in leads.answer.members} == {leader: b"r", follower: b"other"}
    for member in (leader, follower):
        classic.sync(member, 2, {})
    assert (classic.join(leader).answer, classic.state()) == (None, "PreparingRebalance")


def test_who_did_not_hear_of_a_generation_is_told_again_while_it_completes() -> None:
    classic = Classic()
    joins = dict(classic.join_new() for _ in range(2))
    classic.pass_ms(2 * INITIAL_MS)
    for member, first in joins.items():
        again = classic.join(member)
        assert again.answer == first.answer
    assert classic.state() == "CompletingRebalance"


def test_other_metadata_while_a_generation_completes_begin_a_rebalance() -> None:
    classic = Classic()
    joins = dict(classic.join_new() for _ in range(2))
    classic.pass_ms(2 * INITIAL_MS)
    leader = next(iter(joins.values())).answer.leader
    (follower,) = joins.keys() - {leader}
    waiting = classic.sync(follower, 1)
    changed = classic.join(leader, protocols=(("range", b"other"),))
    assert (waiting.error, changed.answer, classic.state()) == (REBALANCE, None, "PreparingRebalance")


def test_a_second_join_of_a_member_takes_the_place_of_its_first() -> None:
    classic = Classic()
    member, first = classic.join_new()
    second = classic.join(member)
    assert (first.error, second.answer) == (REBALANCE, None)
    classic.pass_ms(INITIAL_MS)
    assert second.error == 0


def test_who_does_not_join_in_time_is_gone_and_another_leads() -> None:
    classic = Classic()
    leader, follower = classic.stable()
    new, joined = classic.join_new()
    back = classic.join(follower)
    for _ in range(11):
        classic.pass_ms(SESSION_MS // 2)
        assert classic.heartbeat(leader, 1) == REBALANCE  # it lives, and does not join
    assert (joined.answer, back.answer) == (None, None)
    classic.pass_ms(SESSION_MS // 2)
    assert (joined.answer.generation_id, back.answer.generation_id) == (2, 2)
    assert joined.answer.leader == back.answer.leader != leader
    assert classic.members() == {follower, new}
    assert classic.heartbeat(leader, 2) == UNKNOWN


def test_after_the_last_generation_there_is_a_first_again() -> None:
    classic = Classic()
    (member,) = classic.stable(1)
    classic.groups._groups["g"].generation = 2**31 - 1
    assert classic.join(member).answer.generation_id == 0


# -- SyncGroup ------------------------------------------------------------------------------------


def two_joined(classic: Classic) -> tuple[str, str]:
    """Members of generation 1 that have to sync; the leader first."""
    joins = [classic.join_new()[1] for _ in range(2)]
    classic.pass_ms(2 * INITIAL_MS)
    leader = joins[0].answer.leader
    (follower,) = {each.answer.member_id for each in joins} - {leader}
    return leader, follower


def test_followers_wait_for_what_the_leader_assigns() -> None:
    classic = Classic()
    leader, follower = two_joined(classic)
    waiting = classic.sync(follower, 1)
    assert (waiting.answer, classic.records, classic.state()) == (None, [], "CompletingRebalance")
    synced = classic.sync(leader, 1, {leader: b"mine", follower: b"yours"})
    assert (synced.answer.assignment, waiting.answer.assignment) == (b"mine", b"yours")
    assert (synced.answer.protocol_type, synced.answer.protocol_name) == ("consumer", "range")
    assert (classic.state(), len(classic.records)) == ("Stable", 1)
    assert (classic.stored.generation, classic.stored.leader) == (1, leader)
    assert classic.stored.current_state_timestamp == WALL_MS + classic.ms
    assert classic.sync(follower, 1).answer.assignment == b"yours"  # again


def test_who_is_not_assigned_to_has_nothing_and_strangers_are_passed_over() -> None:
    classic = Classic()
    leader, follower = two_joined(classic)
    waiting = classic.sync(follower, 1)
    assert classic.sync(leader, 1, {leader: b"mine", "nobody": b"x"}).error == 0
    assert (waiting.error, waiting.answer.assignment) == (0, b"")


def test_what_a_follower_assigns_is_passed_over() -> None:
    classic = Classic()
    leader, follower = two_joined(classic)
    assert classic.sync(follower, 1, {follower: b"all"}).answer is None
    classic.sync(leader, 1, {follower: b"some"})
    assert classic.sync(follower, 1).answer.assignment == b"some"


@pytest.mark.parametrize(("fields", "error"), [
    ({"group": ""}, ErrorCode.INVALID_GROUP_ID),
    ({"group": "other"}, UNKNOWN),
    ({"member": "nobody"}, UNKNOWN),
    ({"instance": "i"}, UNKNOWN),
    ({"generation": 2}, ErrorCode.ILLEGAL_GENERATION),
    ({"kind": "connect"}, REJECTED),
    ({"protocol": "sticky"}, REJECTED),
])
def test_a_sync_that_is_refused_changes_nothing(fields: dict[str, object], error: int) -> None:
    classic = Classic()
    leader, _ = two_joined(classic)
    asked: dict[str, object] = {"member": leader, "generation": 1, "assignments": {}} | fields
    assert classic.sync(**asked).error == error  # type: ignore[arg-type]
    assert classic.state() == "CompletingRebalance"


def test_who_does_not_say_what_it_agreed_to_may_sync() -> None:
    classic = Classic()
    leader, follower = two_joined(classic)
    assert classic.sync(leader, 1, {}, kind=None, protocol=None).error == 0
    assert classic.sync(follower, 1, version=4).error == 0


def test_a_sync_in_a_rebalance_says_so() -> None:
    classic = Classic()
    leader, follower = classic.stable()
    classic.join(leader)
    assert classic.sync(follower, 1).error == REBALANCE


def test_who_does_not_sync_in_time_is_gone_and_the_others_rebalance() -> None:
    classic = Classic()
    leader, follower = two_joined(classic)
    waiting = classic.sync(follower, 1)
    for _ in range(11):
        classic.pass_ms(SESSION_MS // 2)
        assert classic.heartbeat(leader, 1) == 0
    assert waiting.answer is None
    classic.pass_ms(SESSION_MS // 2)
    assert (waiting.error, classic.state(), classic.members()) == (REBALANCE, "PreparingRebalance", {follower})
    again = classic.join(follower)
    assert (again.answer.generation_id, again.answer.leader) == (2, follower)


def test_a_follower_that_never_syncs_is_missed_in_a_stable_group_too() -> None:
    classic = Classic()
    leader, follower = two_joined(classic)
    classic.sync(leader, 1, {})
    for _ in range(11):
        classic.pass_ms(SESSION_MS // 2)
        assert (classic.heartbeat(leader, 1), classic.heartbeat(follower, 1)) == (0, 0)
    classic.pass_ms(SESSION_MS // 2)
    assert (classic.state(), classic.members()) == ("PreparingRebalance", {leader})


def test_a_waiting_follower_need_not_heartbeat_and_has_a_whole_session_when_it_is_answered() -> None:
    classic = Classic()
    leader, follower = two_joined(classic)
    waiting = classic.sync(follower, 1)
    for _ in range(4):
        classic.pass_ms(SESSION_MS - 1)
        assert classic.heartbeat(leader, 1) == 0
    classic.sync(leader, 1, {})
    assert waiting.error == 0
    classic.pass_ms(SESSION_MS - 1)
    assert classic.heartbeat(follower, 1) == 0
