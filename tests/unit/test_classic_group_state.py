"""Classic groups as Kafka has them: static members, offsets, what is shown, and what a coordinator that takes over knows."""

from __future__ import annotations

import pytest

from tests.unit.drive_classic import DELAY_S, GROUP_ID, REBALANCE_S, SESSION_S, Classic
from zafka.actors.groups.calls import Outbox
from zafka.transport.kafka.errors import ErrorCode

TWO = (("range", b"by range"), ("sticky", b"to stick"))

# -- static members ------------------------------------------------------------------------------------


def test_a_static_follower_that_comes_back_disturbs_nobody_and_fences_who_it_was() -> None:
    classic = Classic()
    leader, old = classic.form_static("i", "j")
    answer = classic.answer(classic.join(instance="j"))
    new = answer.member_id
    assert (answer.error_code, answer.generation_id, answer.leader, answer.skip_assignment) == (0, 1, leader, False)
    assert answer.members == []
    assert (classic.state, classic.heartbeat(leader, 1)) == ("Stable", 0)
    assert classic.answer(classic.sync(new, 1, instance="j")).assignment == f"for {old}".encode()
    assert classic.error(classic.join(old, instance="j")) == ErrorCode.FENCED_INSTANCE_ID
    assert classic.error(classic.sync(old, 1, instance="j")) == ErrorCode.FENCED_INSTANCE_ID
    assert classic.heartbeat(old, 1, instance="j") == ErrorCode.FENCED_INSTANCE_ID
    assert classic.commit(old, 1, instance="j") == ErrorCode.FENCED_INSTANCE_ID
    assert classic.leave((old, "j")) == [ErrorCode.FENCED_INSTANCE_ID]
    assert classic.heartbeat(old, 1) == ErrorCode.UNKNOWN_MEMBER_ID
    classic.restart()
    assert classic.heartbeat(new, 1, instance="j") == 0


def test_a_static_member_that_comes_back_before_it_synced_is_not_missed() -> None:
    classic = Classic()
    joins = [classic.join(instance=instance, session_s=100) for instance in ("i", "j")]
    leader, old = classic.settle(joins, synced=False)
    classic.sync(leader, 1, {old: b"x"})
    new = classic.answer(classic.join(instance="j", session_s=100)).member_id
    assert classic.answer(classic.sync(new, 1)).assignment == b"x"
    classic.pass_time(REBALANCE_S)
    assert classic.state == "Stable"


@pytest.mark.parametrize("version", [5, 8, 9])
def test_a_static_leader_that_comes_back_does_not_assign(version: int) -> None:
    classic = Classic()
    old, other = classic.form_static("i", "j")
    answer = classic.answer(classic.join(instance="i", version=version))
    new = answer.member_id
    assert (answer.error_code, answer.generation_id) == (0, 1)
    if version >= 9:  # KIP-814: it leads, and knows that there is nothing to do
        assert (answer.leader, answer.skip_assignment) == (new, True)
        assert {each.member_id for each in answer.members} == {new, other}
    else:
        assert (answer.leader, answer.members) == (old, [])
    assert classic.answer(classic.sync(new, 1)).assignment == f"for {old}".encode()
    assert classic.state == "Stable"
    classic.join(new)
    assert classic.state == "PreparingRebalance"  # it does lead


def test_a_static_member_that_changes_what_the_group_goes_by_begins_a_rebalance() -> None:
    classic = Classic()
    classic.join(instance="i", protocols=TWO)
    classic.join(instance="j", protocols=TWO)
    classic.pass_time(9)
    one, two = classic.members
    classic.sync(one, 1, {one: b"a", two: b"b"})
    classic.sync(two, 1)
    joined = classic.join(instance="j", protocols=TWO[::-1])
    assert classic.error(joined) == 0  # range has as many votes as before
    joined = classic.join(instance="i", protocols=TWO[1:])
    assert (classic.answer(joined), classic.state) == (None, "PreparingRebalance")


def test_a_static_member_that_comes_back_during_a_rebalance_takes_its_own_place() -> None:
    classic = Classic()
    _, follower = classic.form_static("i", "j")
    waits = classic.join(follower, instance="j", protocols=(("range", b"other"),))
    again = classic.join(instance="j")
    fenced = classic.answer(waits)
    assert (fenced.error_code, fenced.member_id) == (ErrorCode.FENCED_INSTANCE_ID, follower)
    assert classic.answer(again) is None
    classic.join(instance="i")
    assert classic.answer(again).generation_id == 2


def test_a_static_member_that_comes_back_while_others_sync_has_all_join_again() -> None:
    """The leader assigns to the id that it had."""
    classic = Classic()
    classic.join(instance="i")
    classic.join(instance="j")
    classic.pass_time(9)
    _, follower = classic.members
    syncs = classic.sync(follower, 1, instance="j")
    classic.join(instance="j")
    assert classic.error(syncs) == ErrorCode.FENCED_INSTANCE_ID
    assert classic.state == "PreparingRebalance"


def test_static_members_keep_their_place_in_a_rebalance_that_they_miss() -> None:
    classic = Classic()
    leader, follower = classic.form_static("i", "j", session_s=100)
    joined = classic.join(follower, instance="j", protocols=(("range", b"other"),), session_s=100)
    classic.pass_time(REBALANCE_S)
    answer = classic.answer(joined)
    assert (answer.generation_id, answer.leader) == (2, follower)  # the leader is another one
    assert {each.member_id for each in answer.members} == {leader, follower}


def test_a_rebalance_to_which_nobody_comes_waits_for_the_sessions_to_end() -> None:
    classic = Classic()
    *_, dynamic = classic.settle([classic.join(instance="i", session_s=100), classic.join_new()[1]])
    classic.pass_time(SESSION_S)
    assert (dynamic in classic.members, classic.state) == (False, "PreparingRebalance")
    classic.pass_time(REBALANCE_S + 1)
    assert (len(classic.members), classic.state) == (1, "PreparingRebalance")
    classic.pass_time(100)
    assert (classic.members, classic.state) == ([], "Empty")


# -- offsets -------------------------------------------------------------------------------------------


def test_members_of_the_generation_commit_and_nobody_else() -> None:
    classic = Classic()
    leader, follower = classic.form_static("i", "j")
    assert classic.commit(leader, 1) == classic.commit(leader, 1, instance="i") == 0
    assert classic.commit(leader, 0) == classic.commit(leader, 2) == ErrorCode.ILLEGAL_GENERATION
    assert classic.commit(leader, -1) == ErrorCode.ILLEGAL_GENERATION
    assert classic.commit("nobody", 1) == ErrorCode.UNKNOWN_MEMBER_ID
    assert classic.commit("", -1) == ErrorCode.UNKNOWN_MEMBER_ID
    assert classic.commit(leader, 1, instance="j") == ErrorCode.FENCED_INSTANCE_ID
    joins = [classic.join(leader)]
    assert classic.commit(follower, 1) == 0  # the last of its generation
    joins.append(classic.join(follower))
    assert classic.state == "CompletingRebalance"
    assert classic.commit(follower, 1) == ErrorCode.ILLEGAL_GENERATION
    assert classic.commit(follower, 2) == ErrorCode.REBALANCE_IN_PROGRESS
    classic.leave((leader, None), (follower, None))
    assert classic.commit("", -1) == 0  # an empty group's offsets are anybody's
    assert classic.commit(leader, 2) == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_commit_is_a_sign_of_life() -> None:
    classic = Classic()
    (member,) = classic.form(1)
    for _ in range(3):
        classic.pass_time(SESSION_S - 0.1)
        assert classic.commit(member, 1) == 0
    classic.pass_time(SESSION_S)
    assert classic.commit(member, 1) == ErrorCode.UNKNOWN_MEMBER_ID


def subscription(*topics: str) -> tuple[tuple[str, bytes], ...]:
    names = b"".join(len(topic).to_bytes(2, "big") + topic.encode() for topic in topics)
    return (("range", b"\0\1" + len(topics).to_bytes(4, "big") + names + b"\xff\xff\xff\xff\0\0\0\0"),)


def test_offsets_of_topics_that_members_read_are_kept() -> None:
    classic = Classic()
    (member,) = classic.form(1, protocols=subscription("orders", "bills"))
    groups = classic.groups
    assert [groups.is_subscribed(GROUP_ID, topic) for topic in ("orders", "bills", "other")] == [True, True, False]
    assert groups.check_offset_delete(GROUP_ID) == 0
    assert groups.expiry_base_ms(GROUP_ID, 5) == 5
    classic.restart()
    assert classic.groups.is_subscribed(GROUP_ID, "orders")
    classic.pass_time(1)
    classic.leave((member, None))
    assert not classic.groups.is_subscribed(GROUP_ID, "orders")
    assert classic.groups.expiry_base_ms(GROUP_ID, 5) == classic.now.wall_ms  # since it is empty


def test_what_members_of_other_kinds_read_is_not_known() -> None:
    classic = Classic()
    classic.form(1, protocol_type="consumer", protocols=(("range", b"\0\1\0\0\0\7"),))
    assert classic.groups.is_subscribed(GROUP_ID, "orders")  # who knows
    assert classic.groups.expiry_base_ms(GROUP_ID, 5) is None
    other = Classic()
    other.settle([other.join_new(protocol_type="connect")[1]], synced=False)
    assert not other.groups.is_subscribed(GROUP_ID, "orders")
    assert other.groups.check_offset_delete(GROUP_ID) == ErrorCode.NON_EMPTY_GROUP


# -- description, deletion, restart --------------------------------------------------------------------


def test_a_stable_group_is_described_with_what_its_members_read() -> None:
    classic = Classic()
    classic.form(1)
    group = classic.describe()
    assert (group.error_code, group.group_state, group.protocol_type, group.protocol_data) == (
        0, "Stable", "consumer", "range")
    (member,) = group.members
    assert (member.member_id, member.client_id, member.client_host) == ("c-1", "c", "/127.0.0.1")
    assert (member.member_metadata, member.member_assignment) == (b"topics", b"for c-1")
    (listed,) = classic.groups.list()
    assert (listed.group_id, listed.protocol_type, listed.state, listed.kind) == (GROUP_ID, "consumer", "Stable", "classic")


def test_only_empty_groups_are_deleted_and_stay_so() -> None:
    classic = Classic()
    (member,) = classic.form(1)
    assert classic.delete() == ErrorCode.NON_EMPTY_GROUP
    classic.leave((member, None))
    assert classic.delete() == 0
    classic.restart()
    assert GROUP_ID not in classic.groups


def test_members_go_on_when_their_coordinator_comes_back() -> None:
    classic = Classic()
    leader, follower = classic.form(2)
    before = classic.describe()
    classic.pass_time(SESSION_S - 1)
    classic.restart()
    assert classic.describe() == before
    classic.pass_time(SESSION_S - 1)  # sessions begin afresh
    assert classic.heartbeat(leader, 1) == classic.heartbeat(follower, 1) == classic.commit(leader, 1) == 0
    assert classic.answer(classic.sync(follower, 1)).assignment == f"for {follower}".encode()
    assert classic.answer(classic.join(follower)).generation_id == 1
    classic.pass_time(SESSION_S)
    assert classic.state == "Empty"


def test_members_that_went_while_nobody_coordinated_them_are_missed() -> None:
    classic = Classic()
    classic.form(2)
    classic.restart()
    classic.pass_time(SESSION_S)
    assert (classic.members, classic.state) == ([], "Empty")


def test_a_rebalance_that_its_coordinator_did_not_see_the_end_of_is_forgotten() -> None:
    classic = Classic()
    leader, follower = classic.form(2)
    classic.join(leader)
    classic.join(follower)
    assert classic.state == "CompletingRebalance"
    classic.restart()
    assert (classic.state, classic.members) == ("Stable", [leader, follower])
    assert classic.error(classic.sync(leader, 2)) == ErrorCode.ILLEGAL_GENERATION
    assert classic.heartbeat(leader, 1) == 0


# -- seldom seen ---------------------------------------------------------------------------------------


def test_another_member_may_come_when_the_first_is_gone_before_the_first_rebalance_ended() -> None:
    classic = Classic()
    first, _ = classic.join_new()
    classic.leave((first, None))
    assert (classic.members, classic.state) == ([], "PreparingRebalance")
    assert classic.error(classic.join(protocol_type="connect")) == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    _, joined = classic.join_new(protocols=(("sticky", b""),))
    classic.pass_time(2 * DELAY_S)
    assert classic.answer(joined).protocol_name == "sticky"


def test_a_group_that_everybody_left_before_its_first_generation_is_empty() -> None:
    classic = Classic()
    member, _ = classic.join_new()
    classic.leave((member, None))
    classic.pass_time(DELAY_S)
    last = classic.written()[-1]
    assert last is not None
    assert (classic.state, last.generation, last.members) == ("Empty", 1, [])


def test_an_empty_group_may_become_one_of_another_kind() -> None:
    classic = Classic()
    (member,) = classic.form(1)
    classic.leave((member, None))
    (member,) = classic.settle([classic.join_new(protocol_type="connect", protocols=(("own", b""),))[1]], synced=False)
    assert classic.error(classic.sync(member, 3, protocol_type="connect", protocol="own")) == 0
    assert (classic.describe().protocol_type, classic.describe().protocol_data) == ("connect", "own")


def test_a_static_member_that_comes_anew_while_it_waits_outlives_its_session() -> None:
    classic = Classic()
    classic.form(1, session_s=100)
    classic.join(instance="i")
    again = classic.join(instance="i")
    classic.pass_time(SESSION_S + 1)
    assert classic.answer(again) is None
    classic.pass_time(REBALANCE_S)
    assert classic.answer(again).generation_id == 2


def test_an_id_that_was_given_to_a_dynamic_member_is_no_static_members() -> None:
    classic = Classic()
    leader, static = classic.form_static("i", "j")
    pending = classic.answer(classic.join()).member_id
    assert classic.error(classic.join(pending, instance="j")) == ErrorCode.UNKNOWN_SERVER_ERROR
    assert classic.members == [leader, static]
    assert classic.heartbeat(static, 1, instance="j") == 0


def test_assignments_are_shown_until_the_next_ones_are_awaited() -> None:
    classic = Classic()
    (leader,) = classic.form(1)
    classic.join()  # has the rebalance wait
    classic.join(leader)
    group = classic.describe()
    assert (group.group_state, group.protocol_data) == ("PreparingRebalance", "")
    assert [(each.member_metadata, each.member_assignment) for each in group.members] == [(b"", b"for c-1")]


def test_no_assignment_is_shown_of_a_generation_that_did_not_get_one() -> None:
    classic = Classic()
    leader, follower = classic.form(2)
    rejoin = classic.join(leader)
    classic.settle([rejoin, classic.join(follower)], synced=False)
    classic.sync(follower, 2)
    classic.join(leader, protocols=(("range", b"other"),))
    assert [each.member_assignment for each in classic.describe().members] == [b"", b""]


@pytest.mark.parametrize("waits_for", ["joins", "syncs", "nothing"])
def test_a_group_that_is_given_up_leaves_no_timer(waits_for: str) -> None:
    """One that fired would write a group of this kind over the one that it has become."""
    classic = Classic()
    classic.form(1, synced=waits_for != "syncs")
    if waits_for == "joins":
        classic.join_new()
        classic.join()
        assert sorted(name.split()[1] for name in classic.timers) == ["join", "session", "session", "session"]
    outbox = Outbox()
    classic.groups.give_up(GROUP_ID, outbox)
    classic.keep(outbox)
    assert classic.timers == {}


def test_a_group_is_written_when_it_is_first_heard_of() -> None:
    classic = Classic()
    pending = classic.answer(classic.join()).member_id
    (first,) = classic.written()
    assert first is not None
    assert (first.protocol_type, first.generation, first.protocol, first.leader, first.members) == ("", 0, None, None, [])
    assert first.current_state_timestamp == classic.now.wall_ms
    classic.restart()
    assert (classic.state, classic.describe().protocol_type) == ("Empty", "")
    assert classic.error(classic.join(pending)) == ErrorCode.UNKNOWN_MEMBER_ID
    assert classic.delete() == 0
    classic.restart()
    assert GROUP_ID not in classic.groups
