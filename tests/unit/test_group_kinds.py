"""A coordinator with classic and KIP-848 groups: one id is of one kind at a time, and offsets go by the member's epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.drive_groups import NOTHING, ORDERS, Coordinator
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
    def commit(offset: int, epoch: int, **said: Any) -> int:
        return coordinator.commit("g", offset, generation_id_or_member_epoch=epoch, **{"member_id": "m"} | said)

    heartbeat(coordinator, 0)
    assert (commit(1, 2, member_id="x"), commit(1, 3)) == (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.STALE_MEMBER_EPOCH)
    assert commit(1, 2, version=8) == ErrorCode.UNSUPPORTED_VERSION, "though its epoch is right"
    assert coordinator.fetch("g") == NOTHING
    assert commit(1, 2) == 0
    assert heartbeat(coordinator, 2, names=["orders", "more"]).member_epoch == 3
    assert commit(2, 2) == 0, "it has had this partition since epoch 2"
    assert commit(3, 2, partition=7) == ErrorCode.STALE_MEMBER_EPOCH
    assert coordinator.fetch("g") == 2
