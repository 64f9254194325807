"""Groups and their committed offsets, as an admin sees and alters them, in steps.

Owns: the part of `Admin` and `AsyncAdmin` that asks coordinators, but for the waiting.
Raises BrokerRefused, RequestTimedOut, ConfigError.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple

from zafka.client.channel import CLIENT_SOFTWARE
from zafka.client.cluster import Target
from zafka.client.errors import (
    BrokerRefused,
    ConnectionLost,
    NotSupportedYet,
    RequestTimedOut,
    error_name,
    is_retriable,
)
from zafka.client.group_protocol import CONSUMER, BadGroupBytes, decode_assignment, decode_subscription
from zafka.client.group_requests import (
    Coordinators,
    check_offsets,
    commit_errors,
    commit_request,
    delete_offsets_request,
    fetch_committed,
    read_commit,
    read_deleted_offsets,
)
from zafka.client.life import ClientBase
from zafka.client.records import OffsetAndMetadata, Offsets, Partitions, TopicPartition
from zafka.client.version import VERSION
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import (
    ApiVersionsRequest,
    ApiVersionsResponse,
    ConsumerGroupDescribeRequest,
    DeleteGroupsRequest,
    DescribeGroupsRequest,
    ListGroupsRequest,
    ListGroupsResponse,
    consumer_group_describe,
)
from zafka.transport.kafka.messages.describe_groups import DescribedGroup, DescribedGroupMember

RETRY_S = 0.05
DEAD = "Dead"
WHY: dict[int, str] = {
    ErrorCode.GROUP_ID_NOT_FOUND: "there is no such group",
    ErrorCode.NON_EMPTY_GROUP: "it has members; close them first",
    ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC: "a member reads this topic; close it first",
}


class GroupListing(NamedTuple):
    """state: "Stable", "Empty", "PreparingRebalance", ...; kind: "classic" or "consumer", "" from old brokers.

    Apache Kafka lists other kinds, too ("share", "streams"), which `describe_groups` does not know."""

    group_id: str
    state: str
    protocol_type: str
    kind: str

    @property
    def is_known(self) -> bool:
        """Whether `describe_groups` can tell of it."""
        return self.kind.lower() in ("", "classic", "consumer")


class GroupMemberInfo(NamedTuple):
    """assignment: what its leader gave it; empty while the group shares anew. rack: None where it told none."""

    member_id: str
    instance_id: str | None
    client_id: str
    host: str
    assignment: frozenset[TopicPartition]
    rack: str | None = None


class GroupInfo(NamedTuple):
    """protocol: how partitions are shared, such as "range"; "" for a classic group that is not stable."""

    group_id: str
    state: str
    protocol: str
    members: tuple[GroupMemberInfo, ...]


class GroupAdmin(ClientBase):
    """See the module."""

    _timeout: float

    @cached_property
    def _coordinators(self) -> Coordinators:
        return Coordinators(self._core)

    async def _coordinator_of(self, group_id: str) -> int:
        return await self._coordinators.find(group_id, time.monotonic() + self._timeout)

    async def _api_versions(self) -> dict[str, tuple[int, int]]:
        answer: ApiVersionsResponse = await self._core.ask(
            Target.ANY, ApiKey.API_VERSIONS, ApiVersionsRequest(CLIENT_SOFTWARE, VERSION), self._timeout)
        known = {int(key): key.name.title().replace("_", "") for key in ApiKey}
        return {
            known.get(each.api_key, str(each.api_key)): (each.min_version, each.max_version)
            for each in sorted(answer.api_keys, key=lambda each: each.api_key)}

    async def _list_groups(self) -> list[GroupListing]:
        """Every broker lists the groups that it coordinates."""
        deadline_s = time.monotonic() + self._timeout
        found: dict[str, GroupListing] = {}
        left = set(self._core.cluster.brokers)
        problem = "no answer"
        while left:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise RequestTimedOut(f"brokers {sorted(left)} did not list their groups in time: {problem}")
            for broker in sorted(left):
                try:
                    answer: ListGroupsResponse = await self._core.ask(
                        broker, ApiKey.LIST_GROUPS, ListGroupsRequest(), max(RETRY_S, deadline_s - time.monotonic()))
                except ConnectionLost as error:
                    problem = str(error)
                    continue
                if not answer.error_code:
                    left.discard(broker)
                    found |= {
                        each.group_id: GroupListing(each.group_id, each.group_state, each.protocol_type, each.group_type)
                        for each in answer.groups}
                elif is_retriable(answer.error_code):
                    problem = error_name(answer.error_code)
                else:
                    raise BrokerRefused("groups were not listed", answer.error_code)
            if left:
                await self._core.sleep(RETRY_S)
        return [found[group_id] for group_id in sorted(found)]

    async def _describe_groups(self, group_ids: str | Iterable[str]) -> list[GroupInfo]:
        described = []
        for group_id in _names(group_ids):
            answer = await self._coordinators.ask(
                group_id, ApiKey.DESCRIBE_GROUPS, DescribeGroupsRequest([group_id]),
                lambda answer: [each.error_code for each in answer.groups], time.monotonic() + self._timeout)
            group: DescribedGroup = answer.groups[0]
            code = group.error_code or (ErrorCode.GROUP_ID_NOT_FOUND if group.group_state == DEAD else 0)
            info = await self._describe_consumer_group(group_id) if code == ErrorCode.GROUP_ID_NOT_FOUND else None
            if info is None and code:
                raise BrokerRefused(f"group {group_id!r} was not described", code, WHY.get(code, group.error_message))
            if info is None:
                members = tuple(sorted(_member(group, member) for member in group.members))
                info = GroupInfo(group_id, group.group_state, group.protocol_data, members)
            described.append(info)
        return described

    async def _describe_consumer_group(self, group_id: str) -> GroupInfo | None:
        """A group of KIP-848's protocol, which has a request of its own; None if there is no such group, or request."""
        try:
            answer = await self._coordinators.ask(
                group_id, ApiKey.CONSUMER_GROUP_DESCRIBE, ConsumerGroupDescribeRequest([group_id]),
                lambda answer: [each.error_code for each in answer.groups], time.monotonic() + self._timeout)
        except NotSupportedYet:
            return None
        group: consumer_group_describe.DescribedGroup = answer.groups[0]
        if group.error_code:
            return None
        members = tuple(sorted(
            GroupMemberInfo(
                each.member_id, each.instance_id, each.client_id, each.client_host,
                frozenset(
                    TopicPartition(part.topic_name, index)
                    for part in each.assignment.topic_partitions for index in part.partitions),
                each.rack_id)
            for each in group.members))
        return GroupInfo(group_id, group.group_state, group.assignor_name, members)

    async def _delete_groups(self, group_ids: str | Iterable[str]) -> None:
        for group_id in _names(group_ids):
            answer = await self._coordinators.ask(
                group_id, ApiKey.DELETE_GROUPS, DeleteGroupsRequest([group_id]),
                lambda answer: [each.error_code for each in answer.results], time.monotonic() + self._timeout)
            code = answer.results[0].error_code
            if code:
                raise BrokerRefused(f"group {group_id!r} was not deleted", code, WHY.get(code))

    async def _list_group_offsets(self, group_id: str) -> dict[TopicPartition, OffsetAndMetadata]:
        found = await fetch_committed(self._coordinators, group_id, None, time.monotonic() + self._timeout)
        return dict(sorted(found.items()))

    async def _alter_group_offsets(self, group_id: str, offsets: Offsets) -> None:
        wanted = check_offsets(offsets)
        if not wanted:
            return
        answer = await self._coordinators.ask(
            group_id, ApiKey.OFFSET_COMMIT, commit_request(group_id, wanted), commit_errors,
            time.monotonic() + self._timeout)
        for where, code in read_commit(answer).items():
            if code == ErrorCode.UNKNOWN_MEMBER_ID:
                text = "it has members, who commit their own; close them first"
                raise BrokerRefused(f"offsets of group {group_id!r} were not altered", code, text)
            if code:
                raise BrokerRefused(f"the offset of {where.topic}-{where.partition} was not altered", code)

    async def _delete_group_offsets(self, group_id: str, partitions: Partitions) -> None:
        wanted = sorted({TopicPartition(*where) for where in partitions})
        if not wanted:
            return
        answer = await self._coordinators.ask(
            group_id, ApiKey.OFFSET_DELETE, delete_offsets_request(group_id, wanted), lambda answer: [answer.error_code],
            time.monotonic() + self._timeout)
        if answer.error_code:
            code = answer.error_code
            raise BrokerRefused(f"offsets of group {group_id!r} were not deleted", code, WHY.get(code))
        for where, code in read_deleted_offsets(answer).items():
            if code:
                raise BrokerRefused(f"the offset of {where.topic}-{where.partition} was not deleted", code, WHY.get(code))


def _names(group_ids: str | Iterable[str]) -> list[str]:
    return [group_ids] if isinstance(group_ids, str) else list(group_ids)


def _member(group: DescribedGroup, member: DescribedGroupMember) -> GroupMemberInfo:
    assignment: frozenset[TopicPartition] = frozenset()
    rack = None
    if group.protocol_type == CONSUMER:
        with suppress(BadGroupBytes):  # another kind of program uses that word; the rest is true
            assignment = decode_assignment(member.member_assignment)
            rack = decode_subscription(member.member_metadata).rack if member.member_metadata else None
    return GroupMemberInfo(
        member.member_id, member.group_instance_id, member.client_id, member.client_host, assignment, rack)
