"""Classic groups: how dynamic members join, agree, are assigned to, are missed and leave; what the log holds of it.

Facts of Kafka's GroupMetadataManagerTest and ClassicGroupTest.
"""

from __future__ import annotations

import pytest

from tests.unit.drive_classic import INITIAL_MS, REBALANCE_MS, SESSION_MS, Classic
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
