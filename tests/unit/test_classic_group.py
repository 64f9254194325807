"""Classic groups as Kafka has them (GroupMetadataManagerTest, GroupCoordinatorTest): who may join, when, and what it is told."""

from __future__ import annotations

import pytest

from tests.unit.drive_classic import DELAY_S, GROUP_ID, REBALANCE_S, SESSION_S, Classic
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.leave_group import LeaveGroupRequest

TWO = (("range", b"by range"), ("sticky", b"to stick"))

# -- JoinGroup: who may -------------------------------------------------------------------------------


def test_an_empty_group_id_and_sessions_out_of_range_are_refused() -> None:
    classic = Classic(group_min_session_timeout_ms=6000, group_max_session_timeout_ms=30_000)
    assert classic.error(classic.join(group="")) == ErrorCode.INVALID_GROUP_ID
    for session_s in (5.999, 30.001):
        assert classic.error(classic.join(session_s=session_s)) == ErrorCode.INVALID_SESSION_TIMEOUT
    for session_s in (6, 30):
        assert classic.error(classic.join(session_s=session_s)) == ErrorCode.MEMBER_ID_REQUIRED


def test_a_member_of_a_group_that_is_not_here_is_unknown() -> None:
    classic = Classic()
    answer = classic.answer(classic.join("c-7"))
    assert (answer.error_code, answer.member_id, answer.generation_id) == (ErrorCode.UNKNOWN_MEMBER_ID, "c-7", -1)
    assert GROUP_ID not in classic.groups
    assert classic.error(classic.sync("c-7", 1)) == ErrorCode.UNKNOWN_MEMBER_ID
    assert classic.heartbeat("c-7", 1) == ErrorCode.UNKNOWN_MEMBER_ID
    assert classic.leave(("c-7", None)) == [ErrorCode.UNKNOWN_MEMBER_ID]


@pytest.mark.parametrize(("protocol_type", "protocols"), [("", TWO), ("consumer", ())])
def test_the_first_member_says_what_the_group_is_about(protocol_type: str, protocols: tuple[tuple[str, bytes], ...]) -> None:
    classic = Classic()
    call = classic.join(protocol_type=protocol_type, protocols=protocols)
    assert classic.error(call) == ErrorCode.INCONSISTENT_GROUP_PROTOCOL


@pytest.mark.parametrize(("protocol_type", "protocols"), [("connect", TWO), ("consumer", (("other", b""),)), ("consumer", ())])
def test_members_have_a_protocol_in_common(protocol_type: str, protocols: tuple[tuple[str, bytes], ...]) -> None:
    classic = Classic()
    leader, _ = classic.form(2, protocols=TWO)
    for member_id in ("", leader):
        answer = classic.answer(classic.join(member_id, protocol_type=protocol_type, protocols=protocols))
        assert (answer.error_code, answer.member_id) == (ErrorCode.INCONSISTENT_GROUP_PROTOCOL, member_id)
    assert classic.state == "Stable"


@pytest.mark.parametrize("version", range(10))
def test_a_new_dynamic_member_comes_twice_since_version_4(version: int) -> None:
    classic = Classic()
    call = classic.join(version=version)
    if version >= 4:
        answer = classic.answer(call)
        assert (answer.error_code, answer.member_id) == (ErrorCode.MEMBER_ID_REQUIRED, "c-1")
        assert classic.members == []
        call = classic.join("c-1", version=version)
    assert classic.answer(call) is None
    assert classic.members == ["c-1"]
    classic.pass_time(DELAY_S)
    answer = classic.answer(call)
    assert (answer.error_code, answer.generation_id, answer.member_id, answer.leader) == (0, 1, "c-1", "c-1")
    assert answer.protocol_type == ("consumer" if version >= 7 else None)
    assert answer.protocol_name == "range"


def test_a_static_member_is_named_by_its_instance_and_comes_once() -> None:
    classic = Classic()
    classic.join(instance="i")
    assert classic.members == ["i-1"]


def test_who_got_an_id_is_to_come_back_within_its_session() -> None:
    classic = Classic()
    member_id = classic.answer(classic.join(session_s=20)).member_id
    classic.pass_time(19.9)
    assert classic.answer(classic.join(member_id)) is None
    late = classic.answer(classic.join(session_s=20)).member_id
    classic.pass_time(20.1)
    assert classic.error(classic.join(late)) == ErrorCode.UNKNOWN_MEMBER_ID


def test_in_version_0_the_session_is_the_time_for_a_rebalance() -> None:
    classic = Classic()
    call = classic.join(version=0)
    classic.pass_time(DELAY_S)
    classic.sync(classic.answer(call).member_id, 1, version=0)
    last = classic.written()[-1]
    assert last is not None
    assert [(each.session_timeout, each.rebalance_timeout) for each in last.members] == [(10_000, 10_000)]


@pytest.mark.parametrize(("version", "name"), [(3, ""), (6, ""), (7, None), (9, None)])
def test_before_version_7_no_protocol_is_an_empty_one(version: int, name: str | None) -> None:
    classic = Classic()
    assert classic.answer(classic.join("nobody", version=version)).protocol_name == name


def test_members_are_known_from_join_to_leave_and_instances_name_one_member() -> None:
    classic = Classic()
    leader, other = classic.form_static("i", "j")
    assert classic.error(classic.join("nobody")) == ErrorCode.UNKNOWN_MEMBER_ID
    assert classic.error(classic.join(leader, instance="k")) == ErrorCode.UNKNOWN_MEMBER_ID
    assert classic.error(classic.join(leader, instance="j")) == ErrorCode.FENCED_INSTANCE_ID
    assert classic.error(classic.join(other)) == 0  # its instance may be left out
    assert classic.state == "Stable"


def test_a_member_of_an_empty_group_begins_anew() -> None:
    classic = Classic()
    (member_id,) = classic.form(1)
    assert classic.leave((member_id, None)) == [0]
    assert classic.state == "Empty"
    assert classic.error(classic.join(member_id)) == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_full_group_takes_nobody_more() -> None:
    classic = Classic(group_max_size=2)
    leader, follower = classic.form(2)
    refused = classic.answer(classic.join())
    assert (refused.error_code, refused.member_id) == (ErrorCode.GROUP_MAX_SIZE_REACHED, "")
    assert classic.error(classic.join(follower)) == 0
    # All of a group rejoin, and one more: those who come first are in.
    classic.join(leader)
    third, joined = classic.join_new()
    assert classic.error(classic.join(follower)) == ErrorCode.GROUP_MAX_SIZE_REACHED
    assert sum("session" in name for name in classic.timers) == 2
    classic.pass_time(REBALANCE_S)
    assert classic.error(joined) == 0
    assert classic.members == [leader, third]


def test_a_group_that_is_too_large_now_leaves_its_last_out_after_a_restart() -> None:
    classic = Classic()
    first, second, third = classic.form(3)
    classic.settings["group.max.size"] = "2"
    classic.restart()
    assert classic.state == "PreparingRebalance"
    joins = [classic.join(first), classic.join(second)]
    assert classic.error(classic.join(third)) == ErrorCode.GROUP_MAX_SIZE_REACHED
    classic.pass_time(REBALANCE_S)
    assert [classic.answer(call).generation_id for call in joins] == [2, 2]
    assert classic.members == [first, second]


def test_a_group_of_the_size_that_is_allowed_goes_on_after_a_restart() -> None:
    classic = Classic()
    first, second = classic.form(2)
    classic.settings["group.max.size"] = "2"
    classic.restart()
    assert [classic.heartbeat(member_id, 1) for member_id in (first, second)] == [0, 0]


# -- JoinGroup: when it is answered ------------------------------------------------------------------


def test_the_first_rebalance_waits_for_others_who_begin_too_but_not_for_ever() -> None:
    classic = Classic()
    _, first = classic.join_new(rebalance_s=8)
    classic.pass_time(2.9)
    _, second = classic.join_new(rebalance_s=8)
    classic.pass_time(3)
    assert classic.answer(first) is None  # another 3 s, because somebody came
    _, third = classic.join_new(rebalance_s=8)
    classic.pass_time(2)
    assert classic.answer(first) is None  # the 2 s that are left of 8
    classic.pass_time(0.2)
    assert [classic.answer(call).generation_id for call in (first, second, third)] == [1, 1, 1]


def test_without_a_delay_the_first_rebalance_ends_at_once() -> None:
    classic = Classic(group_initial_rebalance_delay_ms=0)
    _, joined = classic.join_new()
    classic.pass_time(0)
    assert classic.answer(joined).generation_id == 1


def test_the_leader_alone_is_told_the_members_with_the_metadata_of_their_protocol() -> None:
    classic = Classic()
    _, one = classic.join_new(protocols=TWO)
    _, two = classic.join_new(protocols=(("sticky", b"second"),))
    classic.pass_time(9)
    leads, follows = classic.answer(one), classic.answer(two)
    assert {(each.member_id, each.metadata) for each in leads.members} == {
        (leads.member_id, b"to stick"), (follows.member_id, b"second")}
    assert follows.members == []
    assert leads.leader == follows.leader == leads.member_id
    assert leads.protocol_name == follows.protocol_name == "sticky"


def test_the_protocol_is_the_one_that_most_like_best_of_those_that_all_know() -> None:
    classic = Classic()
    names = {"a": b"", "b": b"", "c": b""}

    def liking(*order: str) -> tuple[tuple[str, bytes], ...]:
        return tuple((name, names[name]) for name in order)

    joins = [classic.join_new(protocols=liking(*order))[1] for order in ("cab", "cba", "abc", "ab", "ba", "ab")]
    classic.pass_time(20)
    assert {classic.answer(call).protocol_name for call in joins} == {"a"}  # c is not known to all


def test_who_does_not_join_in_the_longest_rebalance_timeout_is_out() -> None:
    classic = Classic()
    _, slow = classic.join_new(rebalance_s=30, session_s=60)
    _, quick = classic.join_new(rebalance_s=5, session_s=60)
    leader, follower = classic.settle([slow, quick])
    rejoin = classic.join(follower, protocols=(("range", b"other topics"),), rebalance_s=5)
    classic.pass_time(29.9)
    assert classic.answer(rejoin) is None
    classic.pass_time(0.2)
    answer = classic.answer(rejoin)
    assert (answer.generation_id, answer.leader) == (2, follower)
    assert classic.heartbeat(leader, 2) == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_member_that_joins_again_says_anew_how_long_it_may_take() -> None:
    classic = Classic()
    leader, _ = classic.form(2, rebalance_s=30, session_s=100)
    rejoin = classic.join(leader, rebalance_s=50, session_s=100)
    classic.pass_time(49.9)
    assert classic.answer(rejoin) is None
    classic.pass_time(0.2)
    assert classic.answer(rejoin).generation_id == 2
    assert classic.members == [leader]


def test_a_rebalance_waits_for_who_was_given_an_id() -> None:
    classic = Classic()
    (leader,) = classic.form(1)
    pending = classic.answer(classic.join()).member_id
    rejoin = classic.join(leader)
    assert classic.answer(rejoin) is None
    assert classic.leave((pending, None)) == [0]
    assert classic.answer(rejoin).generation_id == 2
    classic.join(session_s=7)
    again = classic.join(leader, protocols=(("range", b"other"),))
    assert classic.answer(again) is None
    classic.pass_time(7)
    assert classic.answer(again).generation_id == 3  # it did not come


def test_a_new_member_that_waits_for_too_long_asks_again() -> None:
    """Its client may be gone, and nothing would tell."""
    classic = Classic()
    (leader,) = classic.form(1, rebalance_s=600, session_s=1200)
    member_id, joined = classic.join_new()
    classic.pass_time(299)
    assert classic.answer(joined) is None
    classic.pass_time(1)
    assert classic.error(joined) == ErrorCode.UNKNOWN_MEMBER_ID
    assert classic.members == [leader]
    assert classic.error(classic.join(member_id)) == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_member_that_waits_outlives_its_session() -> None:
    classic = Classic()
    slow, member = classic.form(2, session_s=60)
    joined = classic.join(member, session_s=6, protocols=(("range", b"changed"),))
    for _ in range(5):
        classic.pass_time(9)
        assert classic.heartbeat(slow, 1) == ErrorCode.REBALANCE_IN_PROGRESS
    assert classic.answer(joined) is None
    classic.join(slow)
    assert classic.answer(joined).generation_id == 2
    classic.pass_time(5.9)
    assert classic.heartbeat(member, 2) == 0
    classic.pass_time(6.1)
    assert classic.heartbeat(member, 2) == ErrorCode.UNKNOWN_MEMBER_ID


def test_who_asks_late_for_its_share_has_a_session_from_then_on() -> None:
    classic = Classic()
    leader, late = classic.form(2, synced=False)
    classic.sync(leader, 1, {late: b"its share"})
    classic.pass_time(SESSION_S - 0.1)
    assert classic.heartbeat(leader, 1) == 0
    assert classic.answer(classic.sync(late, 1)).assignment == b"its share"
    classic.pass_time(SESSION_S - 0.1)
    assert classic.heartbeat(late, 1) == classic.heartbeat(leader, 1) == 0


def test_sessions_that_begin_anew_are_those_of_who_heartbeats() -> None:
    """The coordinator's broker was gone: a member's time begins anew, and who waits for its first generation keeps its own."""
    classic = Classic(group_initial_rebalance_delay_ms=0)
    (leader,) = classic.form(1)
    _, waits = classic.join_new()
    classic.pass_time(SESSION_S - 1)
    classic.renew_sessions()
    classic.pass_time(SESSION_S - 1)
    assert classic.heartbeat(leader, 1) == ErrorCode.REBALANCE_IN_PROGRESS
    classic.pass_time(SESSION_S - 1)
    assert classic.answer(waits) is None
    classic.pass_time(2)
    assert classic.answer(waits).generation_id == 2


def test_a_request_that_is_asked_again_replaces_the_one_that_waits() -> None:
    classic = Classic()
    leader, follower = classic.form(2)
    first, again = classic.join(leader), classic.join(leader)
    assert classic.error(first) == ErrorCode.REBALANCE_IN_PROGRESS
    classic.join(follower)
    assert classic.error(again) == 0
    generation = classic.answer(again).generation_id
    first, again = classic.sync(follower, generation), classic.sync(follower, generation)
    assert classic.error(first) == ErrorCode.REBALANCE_IN_PROGRESS
    classic.sync(leader, generation, {follower: b"it"})
    assert classic.answer(again).assignment == b"it"


def test_generations_begin_again_after_the_last_number() -> None:
    classic = Classic()
    (leader,) = classic.form(1)
    classic.groups._groups[GROUP_ID].generation = 2**31 - 1
    assert classic.answer(classic.join(leader)).generation_id == 0


# -- JoinGroup of members ------------------------------------------------------------------------------


def test_a_follower_with_nothing_new_is_told_the_generation_there_is() -> None:
    classic = Classic()
    leader, follower = classic.form(2)
    answer = classic.answer(classic.join(follower))
    assert (answer.generation_id, answer.leader, answer.members, answer.protocol_name) == (1, leader, [], "range")
    assert classic.answer(classic.sync(follower, 1)).assignment == f"for {follower}".encode()
    assert classic.state == "Stable"


@pytest.mark.parametrize("who", ["leader", "follower with other metadata"])
def test_a_leader_and_who_changed_begin_a_rebalance(who: str) -> None:
    classic = Classic()
    leader, follower = classic.form(2)
    call = classic.join(leader) if who == "leader" else classic.join(follower, protocols=(("range", b"other"),))
    assert (classic.answer(call), classic.state) == (None, "PreparingRebalance")
    assert classic.heartbeat(leader, 1) == ErrorCode.REBALANCE_IN_PROGRESS


def test_who_did_not_hear_of_its_generation_is_told_again() -> None:
    classic = Classic()
    leader, follower = classic.form(2, synced=False)
    again = classic.answer(classic.join(leader))
    assert (again.generation_id, {each.member_id for each in again.members}) == (1, {leader, follower})
    assert classic.answer(classic.join(follower)).members == []
    assert classic.state == "CompletingRebalance"


def test_who_changed_while_others_sync_has_them_join_again() -> None:
    classic = Classic()
    leader, follower = classic.form(2, synced=False)
    waits = classic.sync(follower, 1)
    classic.join(leader, protocols=(("range", b"other"),))
    answer = classic.answer(waits)
    assert (answer.error_code, answer.protocol_name, answer.assignment) == (ErrorCode.REBALANCE_IN_PROGRESS, None, b"")
    assert classic.error(classic.sync(follower, 1)) == ErrorCode.REBALANCE_IN_PROGRESS


# -- SyncGroup -----------------------------------------------------------------------------------------


def test_a_sync_of_another_member_generation_or_protocol_is_refused() -> None:
    classic = Classic()
    (leader,) = classic.form_static("i")
    assert classic.error(classic.sync(leader, 1, group="")) == ErrorCode.INVALID_GROUP_ID
    assert classic.error(classic.sync("nobody", 1)) == ErrorCode.UNKNOWN_MEMBER_ID
    assert classic.error(classic.sync("nobody", 1, instance="i")) == ErrorCode.FENCED_INSTANCE_ID
    assert classic.error(classic.sync(leader, 1, instance="j")) == ErrorCode.UNKNOWN_MEMBER_ID
    assert classic.error(classic.sync(leader, 2)) == ErrorCode.ILLEGAL_GENERATION
    assert classic.error(classic.sync(leader, 1, protocol_type="connect")) == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert classic.error(classic.sync(leader, 1, protocol="sticky")) == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert classic.error(classic.sync(leader, 1, protocol_type=None, protocol=None)) == 0


def test_followers_wait_for_the_leader_and_who_is_forgotten_gets_nothing() -> None:
    classic = Classic()
    leader, one, other = classic.form(3, synced=False)
    waits = classic.sync(one, 1)
    assert (classic.answer(waits), classic.state) == (None, "CompletingRebalance")
    written = len(classic.log)
    leads = classic.sync(leader, 1, {leader: b"a", one: b"b", "nobody": b"c"})
    assert (classic.answer(leads).assignment, classic.answer(waits).assignment) == (b"a", b"b")
    assert (classic.answer(waits).protocol_type, classic.answer(waits).protocol_name) == ("consumer", "range")
    assert (classic.state, len(classic.log)) == ("Stable", written + 1)
    assert classic.answer(classic.sync(other, 1)).assignment == b""


def test_what_a_follower_assigns_is_passed_over() -> None:
    classic = Classic()
    leader, follower = classic.form(2, synced=False)
    waits = classic.sync(follower, 1, {follower: b"all of it"})
    assert (classic.answer(waits), classic.state) == (None, "CompletingRebalance")
    classic.sync(leader, 1, {follower: b"some"})
    assert classic.answer(waits).assignment == b"some"


def test_who_does_not_sync_in_time_is_out() -> None:
    classic = Classic()
    leader, slow = classic.form(2, synced=False, session_s=100)
    classic.sync(leader, 1, {slow: b"x"})
    classic.pass_time(REBALANCE_S - 0.1)
    assert classic.state == "Stable"
    assert classic.heartbeat(slow, 1) == 0
    classic.pass_time(0.1)
    assert (classic.state, classic.members) == ("PreparingRebalance", [leader])
    assert classic.answer(classic.join(leader)).generation_id == 2


def test_the_time_to_sync_ends_with_the_next_rebalance() -> None:
    classic = Classic()
    leader, follower = classic.form(2, synced=False, session_s=200)
    classic.pass_time(REBALANCE_S - 10)
    rejoin = classic.join(leader, protocols=(("range", b"other"),), session_s=200)
    classic.pass_time(20)
    joins = [rejoin, classic.join(follower, session_s=200)]
    assert [classic.answer(call).generation_id for call in joins] == [2, 2]


def test_without_a_leader_that_syncs_the_others_join_again() -> None:
    classic = Classic()
    leader, follower = classic.form(2, synced=False, session_s=100)
    waits = classic.sync(follower, 1)
    classic.pass_time(REBALANCE_S)
    assert classic.error(waits) == ErrorCode.REBALANCE_IN_PROGRESS
    assert classic.members == [follower]
    assert classic.error(classic.sync(leader, 1)) == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_follower_that_waits_outlives_its_session_which_begins_anew_then() -> None:
    classic = Classic()
    leader, follower = classic.form(2, synced=False, session_s=20)
    waits = classic.sync(follower, 1)
    for _ in range(2):
        classic.pass_time(19)
        assert classic.heartbeat(leader, 1) == 0
    assert classic.answer(waits) is None
    classic.sync(leader, 1, {follower: b"x"})
    assert classic.answer(waits).assignment == b"x"
    classic.pass_time(19.9)
    assert classic.heartbeat(follower, 1) == 0


# -- Heartbeat, LeaveGroup -----------------------------------------------------------------------------


def test_heartbeats_tell_who_is_no_member_and_who_is_to_join() -> None:
    classic = Classic()
    assert classic.heartbeat("x", 1, group="") == ErrorCode.INVALID_GROUP_ID
    leader, follower = classic.form_static("i", "j")
    assert classic.heartbeat(leader, 1) == classic.heartbeat(leader, 1, instance="i") == 0
    assert classic.heartbeat("x", 1) == ErrorCode.UNKNOWN_MEMBER_ID
    assert classic.heartbeat(leader, 1, instance="x") == ErrorCode.UNKNOWN_MEMBER_ID
    assert classic.heartbeat(leader, 1, instance="j") == ErrorCode.FENCED_INSTANCE_ID
    assert classic.heartbeat(leader, 0) == ErrorCode.ILLEGAL_GENERATION
    classic.join(leader)
    assert classic.heartbeat(follower, 1) == ErrorCode.REBALANCE_IN_PROGRESS
    classic.join(follower)
    assert classic.state == "CompletingRebalance"
    assert classic.heartbeat(follower, 2) == 0


def test_who_is_not_heard_of_within_its_session_is_out_and_the_others_rebalance() -> None:
    classic = Classic()
    leader, follower = classic.form(2)
    for _ in range(3):
        classic.pass_time(SESSION_S - 1)
        assert classic.heartbeat(leader, 1) in (0, ErrorCode.REBALANCE_IN_PROGRESS)
    assert (classic.members, classic.state) == ([leader], "PreparingRebalance")
    assert classic.heartbeat(follower, 1) == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_session_begins_with_the_generation() -> None:
    classic = Classic()
    leader, silent = classic.form(2, synced=False)
    classic.sync(leader, 1, {})
    classic.pass_time(SESSION_S - 0.1)
    assert classic.heartbeat(leader, 1) == 0
    classic.pass_time(0.1)
    assert classic.members == [leader]
    assert classic.error(classic.sync(silent, 1)) == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_group_whose_last_member_is_gone_is_empty_and_written_so() -> None:
    classic = Classic()
    classic.form(1)
    classic.pass_time(SESSION_S)
    assert classic.state == "Empty"
    last = classic.written()[-1]
    assert last is not None
    assert (last.generation, last.protocol, last.leader, last.members) == (2, None, None, [])
    assert (last.protocol_type, last.current_state_timestamp) == ("consumer", classic.now.wall_ms)


def test_several_leave_at_once_by_either_id() -> None:
    classic = Classic()
    one, two, three = classic.form_static("i", "j", "k")
    pending = classic.answer(classic.join()).member_id
    errors = classic.leave(
        (one, None), ("", "j"), (pending, None), ("nobody", None), ("", "nobody"), ("", None), ("nobody", "k"), (three, "j"))
    assert errors == [0, 0, 0, *[ErrorCode.UNKNOWN_MEMBER_ID] * 3, ErrorCode.FENCED_INSTANCE_ID, ErrorCode.UNKNOWN_MEMBER_ID]
    assert (classic.members, classic.state) == ([three], "PreparingRebalance")
    assert classic.heartbeat(two, 1) == ErrorCode.UNKNOWN_MEMBER_ID


@pytest.mark.parametrize("version", range(3))
def test_before_version_3_one_leaves(version: int) -> None:
    classic = Classic()
    (member,) = classic.form(1)
    for member_id, error in ((member, 0), (member, ErrorCode.UNKNOWN_MEMBER_ID)):
        call = classic.ask(ApiKey.LEAVE_GROUP, version, LeaveGroupRequest(GROUP_ID, member_id=member_id))
        assert classic.error(call) == error
    assert classic.state == "Empty"


def test_who_leaves_while_it_waits_is_answered() -> None:
    classic = Classic()
    leader, follower = classic.form(2, synced=False)
    syncs = classic.sync(follower, 1)
    classic.leave((follower, None))
    assert classic.error(syncs) == ErrorCode.UNKNOWN_MEMBER_ID
    joins = classic.join(leader)
    _, other = classic.join_new()
    assert classic.answer(other) is None
    classic.leave((leader, None))
    assert classic.answer(joins).error_code == 0  # the rebalance had ended with it


def test_the_last_of_those_who_wait_for_it_leaves() -> None:
    classic = Classic()
    one, two, three = classic.form(3)
    joins = [classic.join(one), classic.join(two)]
    assert [classic.answer(call) for call in joins] == [None, None]
    classic.leave((three, None))
    assert [classic.answer(call).generation_id for call in joins] == [2, 2]
