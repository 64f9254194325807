"""Committed offsets of groups that nobody joins: limits, expiry, deletion, and what admins are told of such groups."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.unit.drive_groups import NOTHING, Coordinator, commit
from zafka.actors.groups import offsets, records
from zafka.actors.groups.offsets import java_length
from zafka.actors.groups.record_codec import decode_record
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import join_group, offset_delete, sync_group
from zafka.transport.kafka.types import UnsupportedVersion

MINUTE_S = 60.0


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator(tmp_path, offsets_retention_minutes="10", offsets_retention_check_interval_ms="60000").lead()


def delete_offset(group: str, topic: str = "orders", partition: int = 0) -> kafka.OffsetDeleteRequest:
    part = offset_delete.OffsetDeleteRequestPartition(partition)
    return kafka.OffsetDeleteRequest(group, [offset_delete.OffsetDeleteRequestTopic(topic, [part])])


def groups_of(coordinator: Coordinator, *states: str, kinds: tuple[str, ...] = ()) -> list[tuple[str, str, str, str]]:
    listed = coordinator.ask(ApiKey.LIST_GROUPS, 5, kafka.ListGroupsRequest(list(states), list(kinds))).groups
    return [(each.group_id, each.protocol_type, each.group_state, each.group_type) for each in listed]


# -- OffsetCommit --------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "error"), [
    (8, ErrorCode.ILLEGAL_GENERATION), (9, ErrorCode.GROUP_ID_NOT_FOUND)])
def test_a_member_of_a_group_that_is_not_there_cannot_commit(coordinator: Coordinator, version: int, error: int) -> None:
    assert coordinator.commit("g", 1, version=version, generation_id_or_member_epoch=3, member_id="m") == error
    assert coordinator.fetch("g") == NOTHING


def test_a_member_of_a_group_without_members_cannot_commit(coordinator: Coordinator) -> None:
    coordinator.commit("g", 1)
    error = coordinator.commit("g", 2, generation_id_or_member_epoch=3, member_id="m")
    assert (error, coordinator.fetch("g")) == (ErrorCode.UNKNOWN_MEMBER_ID, 1)


def test_metadata_has_a_limit_and_the_other_partitions_are_committed(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, offset_metadata_max_bytes="4").lead()
    request = commit("g", 1, metadata="abcde")
    request.topics[0].partitions += commit("g", 2, partition=1, metadata="abcd").topics[0].partitions
    request.topics[0].partitions += commit("g", 2, partition=2, metadata="\N{GRINNING FACE}" * 3).topics[0].partitions
    answer = coordinator.ask(ApiKey.OFFSET_COMMIT, 9, request)
    too_large = ErrorCode.OFFSET_METADATA_TOO_LARGE
    assert [part.error_code for part in answer.topics[0].partitions] == [too_large, 0, too_large]
    assert (coordinator.fetch("g"), coordinator.fetch("g", partition=1)) == (NOTHING, 2)


def test_what_was_committed_is_told_whole(coordinator: Coordinator) -> None:
    coordinator.commit("g", 41, metadata="first")
    coordinator.commit("g", 42, metadata="why", epoch=7)
    told = coordinator.fetch_all("g")["orders", 0]
    assert (told.committed_offset, told.committed_leader_epoch, told.metadata) == (42, 7, "why")


def test_null_metadata_is_none(coordinator: Coordinator) -> None:
    coordinator.commit("g", 1, metadata=None)
    assert coordinator.fetch_all("g")["orders", 0].metadata == ""


def test_lengths_are_counted_as_java_does() -> None:
    assert [java_length(text) for text in ("", "abc", "ä", "\N{GRINNING FACE}")] == [0, 3, 1, 2]


def test_a_group_may_have_no_name(coordinator: Coordinator) -> None:
    assert coordinator.commit("", 5) == 0
    assert coordinator.fetch("") == 5


# -- expiry --------------------------------------------------------------------------------------


def test_an_offset_is_kept_for_its_retention_from_its_last_commit_on(coordinator: Coordinator) -> None:
    coordinator.commit("g", 1)
    coordinator.commit("h", 1)
    coordinator.pass_time(9 * MINUTE_S)
    coordinator.commit("h", 2)
    coordinator.pass_time(2 * MINUTE_S)
    assert (coordinator.fetch("g"), coordinator.fetch("h")) == (NOTHING, 2)
    assert [group for group, *_ in groups_of(coordinator)] == ["h"]
    coordinator.coordinator.replica.release()
    assert Coordinator(coordinator.directory.parent).lead(1).fetch("g") == NOTHING


def test_of_very_many_that_expire_some_go_in_each_turn(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offsets, "EXPIRED_IN_A_TURN_MAX", 1)
    for group in "abc":
        coordinator.commit(group, 1)
    coordinator.pass_time(10 * MINUTE_S)
    assert len(groups_of(coordinator)) == 2
    coordinator.pass_time(0.25)
    assert groups_of(coordinator) == []


def test_offsets_of_what_a_group_reads_are_kept_while_it_does(coordinator: Coordinator) -> None:
    subscription = struct.pack(">hih6si", 0, 1, 6, b"orders", -1)
    protocols = [join_group.JoinGroupRequestProtocol("range", subscription)]
    join = kafka.JoinGroupRequest("g", 1_800_000, 60_000, protocol_type="consumer", protocols=protocols)
    coordinator.turn(coordinator.mail(ApiKey.JOIN_GROUP, 3, join))
    (joined,) = coordinator.answers(coordinator.pass_time(10))  # the first rebalance waits for others
    share = sync_group.SyncGroupRequestAssignment(joined.member_id, b"")
    sync = kafka.SyncGroupRequest("g", joined.generation_id, joined.member_id, assignments=[share])
    coordinator.ask(ApiKey.SYNC_GROUP, 3, sync)
    assert coordinator.commit("g", 5, generation_id_or_member_epoch=joined.generation_id, member_id=joined.member_id) == 0
    assert coordinator.commit(
        "g", 6, topic="unread", generation_id_or_member_epoch=joined.generation_id, member_id=joined.member_id) == 0
    coordinator.pass_time(12 * MINUTE_S)
    assert (coordinator.fetch("g"), coordinator.fetch("g", topic="unread")) == (5, NOTHING)
    coordinator.ask(ApiKey.LEAVE_GROUP, 1, kafka.LeaveGroupRequest("g", member_id=joined.member_id))
    coordinator.pass_time(12 * MINUTE_S)
    assert coordinator.fetch("g") == NOTHING


def test_old_clients_may_wish_for_another_retention(coordinator: Coordinator) -> None:
    coordinator.commit("g", 1, version=4, retention_time_ms=round(1000 * MINUTE_S))
    coordinator.commit("h", 1, version=4, retention_time_ms=round(1000 * 30 * MINUTE_S))
    coordinator.pass_time(2 * MINUTE_S)
    assert (coordinator.fetch("g"), coordinator.fetch("h")) == (NOTHING, 1)
    coordinator.pass_time(20 * MINUTE_S)
    assert coordinator.fetch("h") == 1
    coordinator.pass_time(10 * MINUTE_S)
    assert coordinator.fetch("h") == NOTHING


# -- OffsetDelete, DeleteGroups, ListGroups, DescribeGroups --------------------------------------


def test_one_offset_is_deleted_and_stays_so(coordinator: Coordinator) -> None:
    coordinator.commit("g", 1)
    coordinator.commit("g", 2, partition=1)
    answer = coordinator.ask(ApiKey.OFFSET_DELETE, 0, delete_offset("g"))
    assert (answer.error_code, answer.topics[0].partitions[0].error_code) == (0, 0)
    again = coordinator.ask(ApiKey.OFFSET_DELETE, 0, delete_offset("g"))
    assert (again.error_code, again.topics[0].partitions[0].error_code) == (0, 0)
    coordinator.coordinator.replica.release()
    assert list(Coordinator(coordinator.directory.parent).lead(1).fetch_all("g")) == [("orders", 1)]


def test_offsets_of_no_group_cannot_be_deleted(coordinator: Coordinator) -> None:
    assert coordinator.ask(ApiKey.OFFSET_DELETE, 0, delete_offset("g")).error_code == ErrorCode.GROUP_ID_NOT_FOUND


def test_a_deleted_group_is_gone_and_comes_back_by_a_commit(coordinator: Coordinator) -> None:
    coordinator.commit("g", 1)
    coordinator.commit("h", 1)
    results = coordinator.ask(ApiKey.DELETE_GROUPS, 2, kafka.DeleteGroupsRequest(["g", "none"])).results
    assert [(each.group_id, each.error_code) for each in results] == [("g", 0), ("none", ErrorCode.GROUP_ID_NOT_FOUND)]
    assert (coordinator.fetch("g"), coordinator.fetch("h")) == (NOTHING, 1)
    coordinator.coordinator.replica.release()
    again = Coordinator(coordinator.directory.parent).lead(1)
    assert [group for group, *_ in groups_of(again)] == ["h"]
    assert again.commit("g", 9) == 0


def test_groups_are_listed_by_state_and_kind(coordinator: Coordinator) -> None:
    coordinator.commit("g", 1)
    one = [("g", "", "Empty", "classic")]
    assert groups_of(coordinator) == groups_of(coordinator, "empty") == groups_of(coordinator, kinds=("Classic",)) == one
    assert groups_of(coordinator, "Stable") == groups_of(coordinator, kinds=("consumer",)) == []


@pytest.mark.parametrize("version", range(7))
def test_a_group_without_members_is_empty_and_an_unknown_one_dead(coordinator: Coordinator, version: int) -> None:
    coordinator.commit("g", 1)
    found, none = coordinator.ask(ApiKey.DESCRIBE_GROUPS, version, kafka.DescribeGroupsRequest(["g", "none"])).groups
    assert (found.group_id, found.group_state, found.error_code, found.members) == ("g", "Empty", 0, [])
    assert (none.group_id, none.group_state) == ("none", "Dead")
    if version == 6:
        assert (none.error_code, none.error_message) == (ErrorCode.GROUP_ID_NOT_FOUND, "Group none not found.")
    else:
        assert none.error_code == 0


# -- records -------------------------------------------------------------------------------------


def test_records_are_those_of_kafka() -> None:
    """Bytes worked out by hand from OffsetCommitKey.json and OffsetCommitValue.json."""
    key, value = records.encode_offset(
        records.OffsetCommitKey("g", "orders", 2), records.OffsetCommitValue(42, 7, "m", 1000, -1, b"o" * 16))
    assert key == b"\0\1" b"\0\1g" b"\0\6orders" b"\0\0\0\2"
    assert value == (
        b"\0\4" b"\0\0\0\0\0\0\0\x2a" b"\0\0\0\7" b"\2m" b"\0\0\0\0\0\0\3\xe8" b"\1" b"\0\x10" + b"o" * 16)
    _, with_expiry = records.encode_offset(
        records.OffsetCommitKey("g", "orders", 2), records.OffsetCommitValue(42, 7, "m", 1000, 2000))
    assert with_expiry == b"\0\1" b"\0\0\0\0\0\0\0\x2a" b"\0\1m" b"\0\0\0\0\0\0\3\xe8" b"\0\0\0\0\0\0\7\xd0"


def test_what_was_written_is_read_in_every_version() -> None:
    key, value = records.OffsetCommitKey("g", "orders", 2), records.OffsetCommitValue(42, -1, "m", 1000)
    for version in range(5):
        encoded = records.OFFSET.encode_value(value, version)
        assert decode_record(records.OFFSET_KINDS, records.OFFSET.encode_key(key), encoded) == (key, value)
    member = records.MemberMetadata("m", None, "c", "/127.0.0.1", 1, 2, b"s", b"a")
    group = records.GroupMetadataValue("consumer", 3, "range", "m", -1, [member])
    for version in range(1, 5):
        assert records.GROUP.decode_value(records.GROUP.encode_value(group, version)) == group
    with pytest.raises(UnsupportedVersion):
        records.GROUP.decode_value(b"\0\5")


