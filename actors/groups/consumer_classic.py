"""Members that speak the classic protocol in a consumer group: JoinGroup, SyncGroup, Heartbeat, LeaveGroup.

Owns: `ClassicMembers`. To such a member the group looks like a classic one that somebody else leads: its generation is
its member epoch, a JoinGroup is answered at once with the step to its target, a SyncGroup with the partitions of it; a
heartbeat tells it to join again when there is a next step.
Invariants: a request that is refused has changed nothing, but that a target that was due is made. A member that does not join within its rebalance timeout after
it was told to, or does not sync after it has joined, is fenced, so that nobody waits for its partitions for ever.
Source: Kafka GroupMetadataManager (classicGroupJoinToConsumerGroup, classicGroupSyncToConsumerGroup,
classicGroupHeartbeatToConsumerGroup, classicGroupLeaveToConsumerGroup).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zafka.actors.actor import Now
from zafka.actors.groups.calls import Call, Outbox, Settings, Topics
from zafka.actors.groups.classic_answers import (
    KNOWN_ID_SINCE,
    SEVERAL_MEMBERS_SINCE,
    SessionLimits,
    rebalance_timeout,
    refuse_join,
    refuse_sync,
)
from zafka.actors.groups.consumer_changes import Changes
from zafka.actors.groups.consumer_group import Group, Refused
from zafka.actors.groups.consumer_member import Member, MemberState
from zafka.actors.groups.consumer_records import (
    ClassicMemberMetadata,
    ClassicProtocol,
    ConsumerGroupMemberMetadataValue,
)
from zafka.actors.groups.embedded import MalformedEmbedded, Subscription, read_subscription, write_assignment
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from zafka.transport.kafka.messages.join_group import JoinGroupRequest, JoinGroupResponse
from zafka.transport.kafka.messages.leave_group import (
    LeaveGroupRequest,
    LeaveGroupResponse,
    MemberIdentity,
    MemberResponse,
)
from zafka.transport.kafka.messages.sync_group import SyncGroupRequest, SyncGroupResponse

PROTOCOL_TYPE = "consumer"
UNKNOWN = ""
NO_LEADER = ""


class ClassicMembers:
    """topics: of the cluster. new_member_id: another one each time."""

    def __init__(self, topics: Topics, changes: Changes, settings: Settings, new_member_id: Callable[[], str]) -> None:
        self._topics = topics
        self._changes = changes
        self._new_member_id = new_member_id
        self._session_limits = SessionLimits(settings)
        self._size_max = int(settings.get("group.consumer.max.size", "2147483647"))
        self._handlers: dict[int, Callable[[Group, Call, Any, Now, Outbox], None]] = {
            ApiKey.JOIN_GROUP: self._join, ApiKey.SYNC_GROUP: self._sync, ApiKey.HEARTBEAT: self._heartbeat,
            ApiKey.LEAVE_GROUP: self._leave}

    def handle(self, group: Group, call: Call, request: Any, now: Now, outbox: Outbox) -> None:
        self._handlers[call.api_key](group, call, request, now, outbox)

    # -- JoinGroup -----------------------------------------------------------------------------

    def _join(self, group: Group, call: Call, request: JoinGroupRequest, now: Now, outbox: Outbox) -> None:
        if not self._session_limits.allow(request.session_timeout_ms):
            refuse_join(call, ErrorCode.INVALID_SESSION_TIMEOUT, request.member_id, outbox)
            return
        try:
            subscription = self._check_join(group, request)
            if request.member_id == UNKNOWN and request.group_instance_id is None and call.version >= KNOWN_ID_SINCE:
                refuse_join(call, ErrorCode.MEMBER_ID_REQUIRED, self._new_member_id(), outbox)
                return
            member_id, replaced = self._admit(group, request, subscription)
        except Refused as refused:
            refuse_join(call, refused.error, UNKNOWN, outbox)
            return
        changes = self._changes
        if replaced is not None:
            changes.replace(group, replaced, member_id, outbox)
        metadata = _metadata(call, request, subscription)
        changed = changes.take_metadata(group, member_id, metadata, None, now, outbox)
        changes.renew(group, now, outbox, must=changed)
        member = group.members[member_id]
        changes.reconcile(group, member, self._ids_of(subscription.owned), now, outbox, changed=changed)
        changes.prolong_session(group, member, now, outbox)
        changes.limit_step(group, member, now, outbox)  # until it syncs
        outbox.answer(call, JoinGroupResponse(
            generation_id=member.position.epoch, protocol_type=PROTOCOL_TYPE, protocol_name=request.protocols[0].name,
            leader=NO_LEADER, member_id=member_id))

    def _check_join(self, group: Group, request: JoinGroupRequest) -> Subscription:
        if len(group.members) >= self._size_max and request.member_id not in group.members:
            raise Refused(ErrorCode.GROUP_MAX_SIZE_REACHED)
        names = [each.name for each in request.protocols]
        if request.protocol_type != PROTOCOL_TYPE or not group.supports(names):
            raise Refused(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
        try:
            return read_subscription(request.protocols[0].metadata)  # all say the same
        except MalformedEmbedded:
            raise Refused(ErrorCode.INCONSISTENT_GROUP_PROTOCOL) from None

    def _admit(self, group: Group, request: JoinGroupRequest, subscription: Subscription) -> tuple[str, Member | None]:
        """Whose JoinGroup this is, and the static member whose place it takes, if it does. Raises Refused.

        An id of a dynamic member that is not known was given to it by a coordinator, here or before it was fenced. Who
        was fenced and says what it has (a cooperative member) is told so first: others may have that by now. Kafka takes
        it in, and lets it commit for them until it syncs.
        """
        instance_id = request.group_instance_id
        if instance_id is not None and request.member_id != UNKNOWN:
            return group.find(request.member_id, instance_id).member_id, None
        if request.member_id != UNKNOWN and request.member_id not in group.members and any(subscription.owned.values()):
            raise Refused(ErrorCode.UNKNOWN_MEMBER_ID)
        member_id = request.member_id or self._new_member_id()
        return member_id, None if instance_id is None else group.static_member(instance_id)

    def _ids_of(self, owned: Mapping[str, set[int]]) -> dict[bytes, set[int]]:
        by_name = self._topics.by_name
        return {by_name[name].topic_id: has for name, has in owned.items() if name in by_name}

    # -- SyncGroup, Heartbeat ------------------------------------------------------------------

    def _sync(self, group: Group, call: Call, request: SyncGroupRequest, now: Now, outbox: Outbox) -> None:
        try:
            member = _member(group, request.member_id, request.group_instance_id, request.generation_id)
            said = ((request.protocol_type, PROTOCOL_TYPE), (request.protocol_name, _protocols(member)[0].name))
            if any(name is not None and name != known for name, known in said):
                raise Refused(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
            if self._is_behind(group, member, now, outbox) and not _is_revoking(member):
                self._tell_to_join(group, member, now, outbox)
                raise Refused(ErrorCode.REBALANCE_IN_PROGRESS)
        except Refused as refused:
            refuse_sync(call, refused.error, outbox)
            return
        self._changes.end_step(group, member, outbox)
        self._changes.prolong_session(group, member, now, outbox)
        names = {topic.topic_id: name for name, topic in self._topics.by_name.items()}
        assigned = {names[topic]: has for topic, has in member.position.assigned.items() if topic in names}
        version = read_subscription(_protocols(member)[0].metadata).version
        outbox.answer(call, SyncGroupResponse(
            protocol_type=request.protocol_type, protocol_name=request.protocol_name,
            assignment=write_assignment(version, assigned)))

    def _heartbeat(self, group: Group, call: Call, request: HeartbeatRequest, now: Now, outbox: Outbox) -> None:
        error = 0
        try:
            member = _member(group, request.member_id, request.group_instance_id, request.generation_id)
        except Refused as refused:
            error = refused.error
        else:
            self._changes.prolong_session(group, member, now, outbox)
            waits_no_more = member.position.state is MemberState.UNRELEASED_PARTITIONS and group.may_go_on(member)
            if self._is_behind(group, member, now, outbox) or _is_revoking(member) or waits_no_more:
                self._tell_to_join(group, member, now, outbox)
                error = ErrorCode.REBALANCE_IN_PROGRESS
        outbox.answer(call, HeartbeatResponse(error_code=error))

    def _is_behind(self, group: Group, member: Member, now: Now, outbox: Outbox) -> bool:
        """Whether there is a newer target than the member's. One that is due is made first, so that who joins finds it."""
        self._changes.renew(group, now, outbox, must=False)
        return group.assignment_epoch > member.position.epoch

    def _tell_to_join(self, group: Group, member: Member, now: Now, outbox: Outbox) -> None:
        if member.step_until_s is None:
            self._changes.limit_step(group, member, now, outbox)

    # -- LeaveGroup ----------------------------------------------------------------------------

    def _leave(self, group: Group, call: Call, request: LeaveGroupRequest, now: Now, outbox: Outbox) -> None:
        several = call.version >= SEVERAL_MEMBERS_SINCE
        leaving = request.members if several else [MemberIdentity(request.member_id, None, None)]
        left: dict[str, Member] = {}
        ended = []
        for each in leaving:
            error = 0
            try:
                member = _leaver(group, each)
                left[member.member_id] = member
            except Refused as refused:
                error = refused.error
            ended.append(MemberResponse(each.member_id, each.group_instance_id, error))
        if left:
            self._changes.fence(group, left.values(), outbox)
        if several:
            outbox.answer(call, LeaveGroupResponse(members=ended))
        else:
            outbox.answer(call, LeaveGroupResponse(error_code=ended[0].error_code))


def _member(group: Group, member_id: str, instance_id: str | None, generation: int) -> Member:
    """Raises Refused if this is nobody's, or another one's, or not its generation."""
    member = group.find(member_id, instance_id)
    if member.classic is None:
        raise Refused(ErrorCode.UNKNOWN_MEMBER_ID)
    if generation != member.position.epoch:
        raise Refused(ErrorCode.ILLEGAL_GENERATION)
    return member


def _leaver(group: Group, leaving: MemberIdentity) -> Member:
    """Raises Refused. An instance id alone is an admin's wish, who may remove KIP-848 members, too."""
    member = None
    if leaving.group_instance_id is not None and leaving.member_id == UNKNOWN:
        member = group.static_member(leaving.group_instance_id)
    return member or group.find(leaving.member_id, leaving.group_instance_id)


def _is_revoking(member: Member) -> bool:
    return member.position.state is MemberState.UNREVOKED_PARTITIONS


def _protocols(member: Member) -> list[ClassicProtocol]:
    assert member.classic is not None
    return member.classic.supported_protocols


def _metadata(call: Call, request: JoinGroupRequest, subscription: Subscription) -> ConsumerGroupMemberMetadataValue:
    return ConsumerGroupMemberMetadataValue(
        instance_id=request.group_instance_id, rack_id=subscription.rack_id, client_id=call.client_id,
        client_host=call.client_host, subscribed_topic_names=sorted(set(subscription.topics)),
        rebalance_timeout_ms=rebalance_timeout(call, request),
        classic_member_metadata=ClassicMemberMetadata(
            request.session_timeout_ms, [ClassicProtocol(each.name, each.metadata) for each in request.protocols]))
