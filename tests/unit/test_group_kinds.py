"""A coordinator with classic and KIP-848 groups: one id is of one kind at a time, and offsets go by the member's epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.disks import FullableDisk
from tests.unit.drive_groups import BROKER, NOTHING, ORDERS, Coordinator, commit
from zafka.actors.messages import TopicsTold
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator(tmp_path, group_initial_rebalance_delay_ms="0").lead(0, ORDERS)


def heartbeat(coordinator: Coordinator, epoch: int, *, names: list[str] | None = None) -> Any:
    joins = {"rebalance_timeout_ms": 5000, "subscribed_topic_names": ["orders"]} if epoch == 0 else {}
    said = joins | ({} if names is None else {"subscribed_topic_names": names})
    return coordinator.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, kafka.ConsumerGroupHeartbeatRequest(
        "g", "m", epoch, topic_partitions=[] if epoch == 0 else None, **said))


def join_classic(coordinator: Coordinator) -> Any:
    """The answer may come when others had time to join, too."""
    request = kafka.JoinGroupRequest(
        "g", 10_000, 10_000, "", protocol_type="consumer", protocols=[kafka.JoinGroupRequestProtocol("range", b"")])
    effects = coordinator.turn(coordinator.mail(ApiKey.JOIN_GROUP, 3, request))
    (answer,) = coordinator.answers(effects + coordinator.pass_time(0.1))
    return answer


def kinds(coordinator: Coordinator) -> list[tuple[str, str]]:
    listed = coordinator.ask(ApiKey.LIST_GROUPS, 5, kafka.ListGroupsRequest([], [])).groups
    return [(each.group_type, each.group_state) for each in listed]


def test_a_group_without_members_becomes_one_of_the_other_kind(coordinator: Coordinator) -> None:
    assert heartbeat(coordinator, 0).member_epoch == 2
    assert kinds(coordinator) == [("consumer", "Stable")]
    heartbeat(coordinator, -1)
    member_id = join_classic(coordinator).member_id
    assert kinds(coordinator) == [("classic", "CompletingRebalance")]
    coordinator.ask(ApiKey.LEAVE_GROUP, 4, kafka.LeaveGroupRequest("g", members=[kafka.MemberIdentity(member_id)]))
    refused = heartbeat(coordinator, 2)
    assert (refused.error_code, refused.error_message) == (
        ErrorCode.GROUP_ID_NOT_FOUND, "Group g is not a consumer group."), "it was never a member here"
    assert heartbeat(coordinator, 0).member_epoch == 2
    assert kinds(coordinator) == [("consumer", "Stable")]


def test_a_group_keeps_its_offsets_when_it_changes_its_kind(coordinator: Coordinator, tmp_path: Path) -> None:
    heartbeat(coordinator, 0)
    assert coordinator.commit("g", 42, generation_id_or_member_epoch=2, member_id="m") == 0
    heartbeat(coordinator, -1)
    join_classic(coordinator)
    assert coordinator.fetch("g") == 42
    coordinator.coordinator.replica.release()
    again = Coordinator(tmp_path, disk=coordinator.disk).lead(1, ORDERS)
    assert [kind for kind, _ in kinds(again)] == ["classic"]
    assert again.fetch("g") == 42


def test_commits_go_by_epochs_and_by_what_the_member_has_had_since(coordinator: Coordinator) -> None:
    def commits(offset: int, epoch: int, **said: Any) -> int:
        return coordinator.commit("g", offset, generation_id_or_member_epoch=epoch, **{"member_id": "m"} | said)

    heartbeat(coordinator, 0)
    assert (commits(1, 2, member_id="x"), commits(1, 3)) == (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.STALE_MEMBER_EPOCH)
    assert commits(1, 2, version=8) == ErrorCode.UNSUPPORTED_VERSION, "though its epoch is right"
    assert coordinator.fetch("g") == NOTHING
    assert commits(1, 2) == 0
    assert heartbeat(coordinator, 2, names=["orders", "more"]).member_epoch == 3
    assert commits(2, 2) == 0, "it has had this partition since epoch 2"
    assert commits(3, 2, partition=7) == ErrorCode.STALE_MEMBER_EPOCH
    assert coordinator.fetch("g") == 2


def test_one_partition_that_is_not_the_members_has_a_stale_commit_refused_whole(coordinator: Coordinator) -> None:
    """As in Kafka, whichever of them comes first."""
    heartbeat(coordinator, 0)
    heartbeat(coordinator, 2, names=["orders", "more"])
    for first, second in ((0, 7), (7, 0)):
        request = commit("g", 5, partition=first, member_id="m", generation_id_or_member_epoch=2)
        request.topics[0].partitions += commit("g", 5, partition=second).topics[0].partitions
        answer = coordinator.ask(ApiKey.OFFSET_COMMIT, 9, request)
        assert [part.error_code for part in answer.topics[0].partitions] == [ErrorCode.STALE_MEMBER_EPOCH] * 2
    assert coordinator.fetch("g") == NOTHING


def test_a_member_hears_of_a_topic_that_went(coordinator: Coordinator) -> None:
    answer = heartbeat(coordinator, 0)
    assert answer.assignment.topic_partitions
    coordinator.send(BROKER, TopicsTold([]))
    assert heartbeat(coordinator, 2).assignment.topic_partitions == []


def test_what_was_told_of_topics_and_groups_holds_also_when_the_log_was_read_anew(coordinator: Coordinator) -> None:
    assert isinstance(coordinator.disk, FullableDisk)
    coordinator.send(BROKER, TopicsTold([ORDERS], {"g": {"consumer.heartbeat.interval.ms": "700"}}))
    assert heartbeat(coordinator, 0).heartbeat_interval_ms == 700
    coordinator.disk.full = True
    assert coordinator.ask(ApiKey.OFFSET_COMMIT, 9, commit("h", 2)) == ErrorCode.COORDINATOR_NOT_AVAILABLE
    coordinator.disk.full = False
    coordinator.pass_time(1.1)
    answer = heartbeat(coordinator, 2)
    assert (answer.error_code, answer.heartbeat_interval_ms) == (0, 700)
