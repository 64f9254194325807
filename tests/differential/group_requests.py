"""Requests of groups that many cases make: of those who commit, of classic members, of KIP-848 members."""

from __future__ import annotations

from typing import Any

from tests.differential.cases import Call, saved, topic_id
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.messages import offset_delete

SESSION_MS = 30_000
SUBSCRIPTION = b"\0\0" b"\0\0\0\1" b"\0\4read" b"\xff\xff\xff\xff"
MEMBER = "4fA2bCdEQ6K7hJ8kL9mN0p"
M = saved("member")
A, B, C = CHOSEN = ("memberAAAAAAAAAAAAAAAA", "memberBBBBBBBBBBBBBBBB", "memberCCCCCCCCCCCCCCCC")
"""Ids that members choose themselves, as in KIP-848."""


# -- offsets -------------------------------------------------------------------------------------


def commit(group: str, *parts: tuple[str, int, int], metadata: str | None = "m", **fields: Any) -> Any:
    """parts: (topic, partition, offset)."""
    return kafka.OffsetCommitRequest(group, topics=[
        kafka.OffsetCommitRequestTopic(topic_id(name), name, [
            kafka.OffsetCommitRequestPartition(number, offset, 3, metadata)]) for name, number, offset in parts], **fields)


def fetch_offsets(group: str, *parts: tuple[str, int], everything: bool = False) -> Any:
    """In the form of every version."""
    several = [kafka.OffsetFetchRequestTopics(topic_id(name), name, [number]) for name, number in parts]
    one = [kafka.OffsetFetchRequestTopic(name, [number]) for name, number in parts]
    asked = kafka.OffsetFetchRequestGroup(group, None, -1, None if everything else several)
    return kafka.OffsetFetchRequest([asked], group, None if everything else one)


def delete_offsets(group: str, *parts: tuple[str, int]) -> Any:
    return kafka.OffsetDeleteRequest(group, [
        offset_delete.OffsetDeleteRequestTopic(name, [offset_delete.OffsetDeleteRequestPartition(number)])
        for name, number in parts])


# -- members -------------------------------------------------------------------------------------


def join(
    group: str, member_id: Any = "", *, protocol: str = "range", kind: str = "consumer", metadata: bytes = SUBSCRIPTION, **fields: Any
) -> Any:
    options = {"session_timeout_ms": SESSION_MS, "rebalance_timeout_ms": SESSION_MS, **fields}
    return kafka.JoinGroupRequest(
        group, member_id=member_id, protocol_type=kind, protocols=[kafka.JoinGroupRequestProtocol(protocol, metadata)],
        **options)


def sync(group: str, member_id: Any, generation: int = 1, **fields: Any) -> Any:
    options = {"protocol_type": "consumer", "protocol_name": "range", **fields}
    return kafka.SyncGroupRequest(
        group, generation, member_id, assignments=[kafka.SyncGroupRequestAssignment(member_id, b"mine")], **options)


def member(group: str) -> Call:
    """One that joins at once, as before KIP-394."""
    return Call(join(group), version=3, save=("member", "member_id"))


def leave(group: str, member_id: Any, *others: Any) -> Any:
    return kafka.LeaveGroupRequest(
        group, [kafka.MemberIdentity(each, None, "why") for each in (member_id, *others)], member_id)


def beat(group: str, member_id: str, epoch: int, **fields: Any) -> Any:
    """What a member of a KIP-848 group says; everything in a first heartbeat."""
    options = {"rebalance_timeout_ms": 5000, "subscribed_topic_names": ["read"], "topic_partitions": [], **fields}
    return kafka.ConsumerGroupHeartbeatRequest(group, member_id, epoch, **options)
