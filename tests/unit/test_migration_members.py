"""Members of the classic protocol in a consumer group: sessions, steps that have a time, static members, commits, admins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.drive_migration import GROUP, MORE, ORDERS, Classic, Mixed, subscription
from tests.unit.test_migration import ALL, let_go, owned, two_and_one
from zafka.actors.groups.embedded import MalformedEmbedded, read_assignment, read_subscription, write_assignment
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode


@pytest.fixture
def mixed(tmp_path: Path) -> Mixed:
    coordinator = Mixed(tmp_path)
    coordinator.lead(0, ORDERS, MORE)
    return coordinator


def keep_alive(mixed: Mixed, seconds: int, *members: Classic) -> None:
    """They beat once a second, and do no more, whatever they are told."""
    for _ in range(seconds):
        mixed.pass_time(1.0)
        for member in members:
            member.beat()


def test_who_does_not_join_in_time_loses_its_partitions(mixed: Mixed) -> None:
    first, second, epoch = two_and_one(mixed)
    let_go(second)
    keep_alive(mixed, 4, first)
    assert first.beat() == ErrorCode.REBALANCE_IN_PROGRESS
    keep_alive(mixed, 2, first)
    assert first.beat() == ErrorCode.UNKNOWN_MEMBER_ID
    let_go(second)
    answer = mixed.beat("new", epoch)
    assert owned(answer) | second.has == ALL
    assert first.commit(1, 0) == ErrorCode.UNKNOWN_MEMBER_ID


def test_who_joins_and_does_not_sync_in_time_is_out(mixed: Mixed) -> None:
    first, second, _ = two_and_one(mixed)
    let_go(second)
    first.ask_to_join()
    assert first.take_join() == 0
    keep_alive(mixed, 4, first, second)
    assert len(mixed.describe().members) == 3
    keep_alive(mixed, 2, first, second)
    assert len(mixed.describe().members) == 2


def test_who_joins_with_nothing_to_give_up_is_to_sync_in_time_too(mixed: Mixed) -> None:
    mixed.beat("new", 0)
    late = mixed.classic()
    late.ask_to_join()
    assert late.take_join() == 0
    keep_alive(mixed, 6, late)
    assert [each.member_id for each in mixed.describe().members] == ["new"]


def test_who_syncs_and_is_told_to_join_is_to_do_so_in_time(mixed: Mixed) -> None:
    first, second, _ = two_and_one(mixed, session_ms=60_000)
    first.sync()
    assert first.take_sync() == ErrorCode.REBALANCE_IN_PROGRESS
    mixed.pass_time(5.1)
    assert {each.member_id for each in mixed.describe().members} == {second.member_id, "new"}


def test_who_waits_for_partitions_is_told_when_they_are_free(mixed: Mixed) -> None:
    epoch = mixed.beat("new", 0).member_epoch
    late = mixed.classic()
    assert late.join() == 0
    assert (late.beat(), late.has) == (0, set()), "the other one has them"
    kept = owned(mixed.beat("new", epoch, owned=ALL))
    assert mixed.beat("new", epoch, owned=kept).error_code == 0
    assert late.beat() == ErrorCode.REBALANCE_IN_PROGRESS
    assert late.join() == 0
    assert late.has | kept == ALL and not late.has & kept


def test_a_sync_is_a_sign_of_life(mixed: Mixed) -> None:
    mixed.beat("new", 0)
    late = mixed.classic(session_ms=3_000)
    late.ask_to_join()
    assert late.take_join() == 0
    mixed.pass_time(2.0)
    late.sync()
    assert late.take_sync() == 0
    mixed.pass_time(2.0)
    assert late.beat() == 0


def test_a_topic_without_partitions_is_nothing_that_a_member_has(mixed: Mixed) -> None:
    mixed.beat("new", 0)
    empty = subscription("orders")[:-4] + write_assignment(0, {"orders": []})[2:-4]
    answer = mixed.ask(ApiKey.JOIN_GROUP, 3, kafka.JoinGroupRequest(
        GROUP, 10_000, 5_000, "from another life", None, "consumer", [kafka.JoinGroupRequestProtocol("range", empty)]))
    assert answer.error_code == 0


def test_who_was_put_out_and_says_what_it_has_is_told_so(mixed: Mixed) -> None:
    first, second, _ = two_and_one(mixed)
    let_go(second)
    first.ask_to_join()
    assert first.take_join() == 0
    keep_alive(mixed, 6, first, second)
    assert first.has
    assert first.join() == ErrorCode.UNKNOWN_MEMBER_ID  # others may have it by now
    first.has = set()
    assert first.join() == 0


def test_sessions_are_as_long_as_the_classic_member_said(mixed: Mixed) -> None:
    first, second = mixed.classic(session_ms=3_000), mixed.classic(session_ms=60_000)
    mixed.settle(first, second)
    mixed.beat("new", 0)
    mixed.pass_time(2.9)
    assert len(mixed.describe().members) == 3
    mixed.pass_time(0.2)
    assert {each.member_id for each in mixed.describe().members} == {second.member_id, "new"}


def test_the_last_kip_848_member_vanishes(mixed: Mixed) -> None:
    first, behind = (mixed.classic(session_ms=60_000, rebalance_ms=60_000) for _ in range(2))
    mixed.settle(first, behind)
    mixed.beat("new", 0)
    let_go(first)
    mixed.pass_time(46)
    assert mixed.kind == ("classic", "PreparingRebalance")
    assert first.beat() == ErrorCode.REBALANCE_IN_PROGRESS
    assert behind.beat() == ErrorCode.ILLEGAL_GENERATION, "it has not heard of the epoch that became the generation"


def test_commits_go_by_the_protocol_of_the_member_and_offsets_stay(mixed: Mixed) -> None:
    first, _, epoch = two_and_one(mixed)
    assert first.commit(5, 0) == 0
    let_go(first)
    assert first.generation == epoch
    assert first.commit(4, 0, generation=epoch - 1) == 0, "it has had this partition since"
    assert first.commit(4, 0, generation=epoch + 1) == ErrorCode.ILLEGAL_GENERATION
    assert first.commit(6, 0) == 0
    assert mixed.commit(GROUP, 7, member_id="new", generation_id_or_member_epoch=epoch + 1) == ErrorCode.STALE_MEMBER_EPOCH
    assert mixed.commit(GROUP, 7, member_id="new", generation_id_or_member_epoch=epoch) == 0
    mixed.beat("new", -1)
    assert mixed.kind[0] == "classic"
    assert mixed.fetch(GROUP) == 7


def test_a_static_member_changes_its_protocol_and_keeps_its_partitions(mixed: Mixed) -> None:
    first, second = mixed.classic(instance="a"), mixed.classic(instance="b")
    mixed.settle(first, second)
    before = set(first.has)
    answer = mixed.beat("a as new", 0, instance_id="a")
    assert owned(answer) == before
    assert first.beat() == ErrorCode.FENCED_INSTANCE_ID
    refused = mixed.beat("another", 0, instance_id="a")
    assert refused.error_code == ErrorCode.UNRELEASED_INSTANCE_ID
    back = mixed.classic(instance="a", eager=False)
    back.ask_to_join()
    assert back.take_join() == 0
    assert mixed.kind == ("classic", "Stable"), "nobody speaks KIP-848, and nothing changed hands"
    back.sync()
    assert (back.take_sync(), back.has) == (0, before)
    assert (second.beat(), back.beat()) == (0, 0)
    assert mixed.beat("a as new", answer.member_epoch, instance_id="a").error_code == ErrorCode.GROUP_ID_NOT_FOUND


def test_a_static_member_that_comes_back_with_another_id_fences_the_one_before(mixed: Mixed) -> None:
    first = mixed.classic(instance="a")
    mixed.settle(first)
    mixed.beat("new", 0)
    again = mixed.classic(instance="a")
    assert again.join() == 0
    assert first.join() == ErrorCode.FENCED_INSTANCE_ID
    assert mixed.classic("nobody", instance="x").join() == ErrorCode.UNKNOWN_MEMBER_ID


def test_requests_of_strangers_are_refused(mixed: Mixed) -> None:
    first, _, epoch = two_and_one(mixed)
    stranger = mixed.classic("stranger")
    assert stranger.beat() == ErrorCode.UNKNOWN_MEMBER_ID
    assert stranger.leave() == ErrorCode.UNKNOWN_MEMBER_ID
    posing = mixed.classic("new")
    posing.generation = epoch
    assert posing.beat() == ErrorCode.UNKNOWN_MEMBER_ID
    first.generation += 7
    assert first.beat() == ErrorCode.ILLEGAL_GENERATION
    other = mixed.classic("other")
    other.protocols = ("strange",)
    assert other.join() == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert mixed.classic("short", session_ms=10).join() == ErrorCode.INVALID_SESSION_TIMEOUT
    asked = mixed.ask(ApiKey.JOIN_GROUP, 5, kafka.JoinGroupRequest(
        GROUP, 10_000, 10_000, "", None, "consumer",
        [kafka.JoinGroupRequestProtocol("cooperative-sticky", subscription("orders"))]))
    assert (asked.error_code, bool(asked.member_id)) == (ErrorCode.MEMBER_ID_REQUIRED, True)


def test_an_admin_removes_static_members_of_either_protocol(mixed: Mixed) -> None:
    first = mixed.classic(instance="a")
    mixed.settle(first)
    mixed.beat("new", 0, instance_id="b")
    answer = mixed.ask(ApiKey.LEAVE_GROUP, 5, kafka.LeaveGroupRequest(
        GROUP, members=[kafka.MemberIdentity("", "a"), kafka.MemberIdentity("", "b"), kafka.MemberIdentity("", "c")]))
    assert [each.error_code for each in answer.members] == [0, 0, ErrorCode.UNKNOWN_MEMBER_ID]
    assert mixed.describe().members == []


def test_a_mixed_group_is_described_as_a_consumer_group(mixed: Mixed) -> None:
    first, second, _ = two_and_one(mixed)
    found = mixed.describe()
    kinds = {each.member_id: each.member_type for each in found.members}
    assert kinds == {first.member_id: 0, second.member_id: 0, "new": 1}
    assert {each.subscribed_topic_names[0] for each in found.members} == {"orders"}
    assert mixed.describe_classic().error_code == ErrorCode.GROUP_ID_NOT_FOUND


def test_a_dynamic_member_goes_on_by_heartbeats_under_its_id(mixed: Mixed) -> None:
    """No client does that; who does is not held to the times of the classic protocol."""
    first, _, _ = two_and_one(mixed)
    assert first.beat() == ErrorCode.REBALANCE_IN_PROGRESS
    answer = mixed.beat(first.member_id, 0)
    mixed.pass_time(6)
    assert mixed.beat(first.member_id, answer.member_epoch).error_code == 0


def test_who_goes_on_by_heartbeats_is_not_waited_for_to_sync(mixed: Mixed) -> None:
    mixed.beat("new", 0)
    late = mixed.classic()
    late.ask_to_join()
    assert late.take_join() == 0
    answer = mixed.beat(late.member_id, 0)
    mixed.pass_time(6)
    assert mixed.beat(late.member_id, answer.member_epoch).error_code == 0


def test_what_members_say_is_read_in_every_version() -> None:
    for version in range(4):
        found = read_subscription(subscription("a", "b", owned={2, 1}, version=version, user_data=b"x", rack="r"))
        assert (found.version, found.topics) == (version, ["a", "b"])
        assert found.owned == ({"a": {1, 2}} if version else {})
        assert found.rack_id == ("r" if version == 3 else None)
    assert read_subscription(subscription("a", version=0)[:1] + b"\1" + subscription("a", version=0)[2:]).owned == {}
    assert read_assignment(write_assignment(9, {"a": {3, 1}, "b": set()})) == ({"a": {1, 3}, "b": set()}, b"")
    assert read_assignment(b"") == ({}, b"")


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff\xff\0\0\0\0", b"\0\1\x7f\xff\xff\xff", b"\0\1\0\0\0\1\0\5abc"])
def test_what_is_no_subscription_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedEmbedded):
        read_subscription(data)
