"""Groups of the classic protocol: JoinGroup, SyncGroup, Heartbeat, LeaveGroup, and what admins want of them.

Owns: `ClassicGroups`, all of them in a partition, and what their members ask for; how one generation follows the other, and the
time that passes between, is the matter of `classic_rebalance.py`. A group is written to the log when it is first heard of,
when it is stable, when it is empty, and when a static member takes another's place; what only its members know begins
anew after a restart, as in Kafka.
Invariants: every JoinGroup and SyncGroup is answered once, at the latest when its time is up; a generation has one leader
and one assignment, which nobody is told before it is committed; who is of another generation is fenced.
Source: Kafka GroupMetadataManager (classicGroup*); KIP-345 (static members), KIP-394 (member ids), KIP-814 (skipped
assignment).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from zafka.actors.actor import Now
from zafka.actors.groups.calls import Call, Commit, Listed, Outbox, Settings
from zafka.actors.groups.classic_answers import (
    KNOWN_ID_SINCE,
    SEVERAL_MEMBERS_SINCE,
    SKIP_ASSIGNMENT_SINCE,
    SessionLimits,
    answer_join,
    answer_sync,
    check_sync,
    join_timer,
    protocols_of,
    reason_of,
    rebalance_timeout,
    refuse_join,
    refuse_sync,
    session_timer,
    sync_timer,
)
from zafka.actors.groups.classic_group import UNKNOWN, ClassicGroup, Member, State, group_of
from zafka.actors.groups.classic_rebalance import Rebalances
from zafka.actors.groups.records import GroupMetadataKey, GroupMetadataValue, encode_group
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.describe_groups import DescribedGroup
from zafka.transport.kafka.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from zafka.transport.kafka.messages.join_group import JoinGroupRequest
from zafka.transport.kafka.messages.leave_group import (
    LeaveGroupRequest,
    LeaveGroupResponse,
    MemberIdentity,
    MemberResponse,
)
from zafka.transport.kafka.messages.sync_group import SyncGroupRequest

NEW_MEMBER_S = 300.0  # how long one may wait that cannot send heartbeats yet


class ClassicGroups:
    """new_id: what follows the client's id in a member's id, another one each time."""

    kind: ClassVar[str] = "classic"
    apis: ClassVar[frozenset[int]] = frozenset(
        {ApiKey.JOIN_GROUP, ApiKey.SYNC_GROUP, ApiKey.HEARTBEAT, ApiKey.LEAVE_GROUP})

    def __init__(self, settings: Settings, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._session_limits = SessionLimits(settings)
        self._rebalances = Rebalances(int(settings.get("group.initial.rebalance.delay.ms", "3000")))
        self._size_max = int(settings.get("group.max.size", str(2**31 - 1)))
        self._groups: dict[str, ClassicGroup] = {}
        self._handlers: dict[int, Callable[[Call, Any, Now, Outbox], None]] = {
            ApiKey.JOIN_GROUP: self._join, ApiKey.SYNC_GROUP: self._sync, ApiKey.HEARTBEAT: self._heartbeat,
            ApiKey.LEAVE_GROUP: self._leave}

    def __repr__(self) -> str:
        return f"<ClassicGroups {len(self._groups)}>"

    def __contains__(self, group_id: object) -> bool:
        return group_id in self._groups

    def handle(self, call: Call, request: Any, now: Now, outbox: Outbox) -> None:
        self._handlers[call.api_key](call, request, now, outbox)

    def on_timer(self, name: str, now: Now, outbox: Outbox) -> None:
        self._rebalances.on_timer(name, now, outbox)

    def on_topics(self, changed: Iterable[str], now: Now, outbox: Outbox) -> None:
        """What topics mean is the members' matter."""

    # -- the log -------------------------------------------------------------------------------

    def replay(self, key: GroupMetadataKey, value: GroupMetadataValue | None) -> None:
        if value is None:
            self._groups.pop(key.group, None)
        else:
            self._groups[key.group] = group_of(key.group, value)

    def on_loaded(self, now: Now, outbox: Outbox) -> None:
        self.renew_sessions(now, outbox)
        for group in list(self._groups.values()):
            if len(group.members) > self._size_max:
                self._rebalances.prepare(group, "it is larger than group.max.size", now, outbox)
            elif group.members and group.leader is None:
                self._begin_led(group, now, outbox)

    def renew_sessions(self, now: Now, outbox: Outbox) -> None:
        """Who is new has longer, as it was: it may be waiting for its first generation."""
        for group in self._groups.values():
            for member in group.members.values():
                if not member.is_new:
                    self._rebalances.expect(group, member, now, outbox)

    # -- groups that become other ones ---------------------------------------------------------

    def __getitem__(self, group_id: str) -> ClassicGroup:
        return self._groups[group_id]

    def give_up(self, group_id: str, outbox: Outbox) -> None:
        """It belongs to others from now on. Who waits is to join there."""
        group = self._groups.pop(group_id)
        for member in group.members.values():
            if member.join is not None:
                refuse_join(member.join, ErrorCode.REBALANCE_IN_PROGRESS, member.member_id, outbox)
            if member.sync is not None:
                refuse_sync(member.sync, ErrorCode.REBALANCE_IN_PROGRESS, outbox)
        for member_id in (*group.members, *group.pending):
            self._rebalances.cancel(session_timer(group, member_id), outbox)
        for name in (join_timer(group), sync_timer(group)):
            self._rebalances.cancel(name, outbox)
        outbox.append(*encode_group(GroupMetadataKey(group_id), None))

    def take_over(self, group: ClassicGroup, now: Now, outbox: Outbox) -> None:
        """It was another kind's. Without a leader its members are to join, so that they have one who assigns; the log has
        it without one, so that a restart does not forget that."""
        self._groups[group.group_id] = group
        self._rebalances.write(group, outbox)
        for member in group.members.values():
            self._rebalances.expect(group, member, now, outbox)
        if group.leader is None:
            self._begin_led(group, now, outbox)

    def _begin_led(self, group: ClassicGroup, now: Now, outbox: Outbox) -> None:
        group.leader = next(iter(group.members))
        self._rebalances.prepare(group, "nobody leads it who could assign", now, outbox)

    # -- JoinGroup -----------------------------------------------------------------------------

    def _join(self, call: Call, request: JoinGroupRequest, now: Now, outbox: Outbox) -> None:
        error = self._check_join(request)
        group = self._groups.get(request.group_id)
        if not error and group is None:
            if request.member_id == UNKNOWN:
                group = self._create(request.group_id, now, outbox)
            else:
                error = ErrorCode.UNKNOWN_MEMBER_ID
        if error or group is None:
            refuse_join(call, error, request.member_id, outbox)
        elif not group.has_room(request.member_id, self._size_max):
            group.remove(request.member_id)
            self._rebalances.cancel(session_timer(group, request.member_id), outbox)
            refuse_join(call, ErrorCode.GROUP_MAX_SIZE_REACHED, UNKNOWN, outbox)
        elif not group.supports(request.protocol_type, [each.name for each in request.protocols]):
            refuse_join(call, ErrorCode.INCONSISTENT_GROUP_PROTOCOL, request.member_id, outbox)
        elif request.member_id == UNKNOWN:
            self._join_new(call, request, group, now, outbox)
        else:
            self._join_known(call, request, group, now, outbox)

    def _create(self, group_id: str, now: Now, outbox: Outbox) -> ClassicGroup:
        """A group is known from when it is first asked for, even if nobody becomes a member of it."""
        group = self._groups[group_id] = ClassicGroup(group_id)
        group.state_ms = now.wall_ms
        self._rebalances.write(group, outbox)
        return group

    def _check_join(self, request: JoinGroupRequest) -> int:
        if not request.group_id:
            return ErrorCode.INVALID_GROUP_ID
        return 0 if self._session_limits.allow(request.session_timeout_ms) else ErrorCode.INVALID_SESSION_TIMEOUT

    def _join_new(
        self, call: Call, request: JoinGroupRequest, group: ClassicGroup, now: Now, outbox: Outbox
    ) -> None:
        instance_id = request.group_instance_id
        member_id = f"{call.client_id if instance_id is None else instance_id}-{self._new_id()}"
        if instance_id is not None and instance_id in group.static:
            self._replace_static(call, request, group, member_id, now, outbox)
        elif instance_id is None and call.version >= KNOWN_ID_SINCE:
            group.pending.add(member_id)
            self._rebalances.expect_again(group, member_id, request.session_timeout_ms, now, outbox)
            refuse_join(call, ErrorCode.MEMBER_ID_REQUIRED, member_id, outbox)
        else:
            self._add(call, request, group, member_id, now, outbox)

    def _join_known(
        self, call: Call, request: JoinGroupRequest, group: ClassicGroup, now: Now, outbox: Outbox
    ) -> None:
        member_id = request.member_id
        if member_id in group.pending:
            if request.group_instance_id is None:
                self._add(call, request, group, member_id, now, outbox)
            else:  # ids of static members are given to nobody in advance
                refuse_join(call, ErrorCode.UNKNOWN_SERVER_ERROR, UNKNOWN, outbox)
            return
        error = group.check_member(member_id, request.group_instance_id)
        if not error and group.state is State.EMPTY:
            error = ErrorCode.UNKNOWN_MEMBER_ID
        if error:
            refuse_join(call, error, member_id, outbox)
            return
        member = group.members[member_id]
        changed = member.protocols != protocols_of(request)
        leads_stable = group.state is State.STABLE and group.leader == member_id
        if group.state is State.PREPARING or changed or leads_stable:
            # The leader may have a reason that its metadata do not tell, such as topics with more partitions.
            self._update(member, call, request, outbox)
            self._rebalances.rebalance(group, f"{member_id} joins again: {reason_of(request)}", now, outbox)
        else:
            # It did not hear of its generation, or has nothing new to say.
            is_leader = group.state is State.COMPLETING and group.leader == member_id
            answer_join(call, group, member_id, outbox, tell_members=is_leader)

    def _add(
        self, call: Call, request: JoinGroupRequest, group: ClassicGroup, member_id: str, now: Now, outbox: Outbox
    ) -> None:
        member = Member(
            member_id, request.group_instance_id, call.client_id, call.client_host, rebalance_timeout(call, request),
            request.session_timeout_ms, protocols_of(request), join=call, is_new=True)
        if group.state is State.PREPARING and group.previous_state is State.EMPTY:
            group.new_member_added = True
        group.add(member, request.protocol_type)
        # It cannot send heartbeats before it is answered; should it be gone meanwhile, it is not waited for for ever.
        self._rebalances.expect(group, member, now, outbox, within_ms=NEW_MEMBER_S * 1000)
        self._rebalances.rebalance(group, f"{member_id} joins: {reason_of(request)}", now, outbox)

    def _update(self, member: Member, call: Call, request: JoinGroupRequest, outbox: Outbox) -> None:
        if member.join is not None:
            refuse_join(member.join, ErrorCode.REBALANCE_IN_PROGRESS, member.member_id, outbox)  # it asks anew
        member.join = call
        member.protocols = protocols_of(request)
        member.rebalance_timeout_ms = rebalance_timeout(call, request)
        member.session_timeout_ms = request.session_timeout_ms

    def _replace_static(
        self, call: Call, request: JoinGroupRequest, group: ClassicGroup, new_id: str, now: Now, outbox: Outbox
    ) -> None:
        """A static member came back without its id: whoever goes by the old one is fenced. If nothing else changes, the
        others need not know."""
        assert request.group_instance_id is not None
        old_id = group.static[request.group_instance_id]
        leader = group.leader
        member = group.members[old_id]
        if member.join is not None:
            refuse_join(member.join, ErrorCode.FENCED_INSTANCE_ID, old_id, outbox)
        if member.sync is not None:
            refuse_sync(member.sync, ErrorCode.FENCED_INSTANCE_ID, outbox)
        member.join = member.sync = None
        self._rebalances.cancel(session_timer(group, old_id), outbox)
        group.rename_static(request.group_instance_id, new_id)
        self._update(member, call, request, outbox)
        self._rebalances.expect(group, member, now, outbox)
        reason = f"static member {request.group_instance_id} comes anew: {reason_of(request)}"
        if group.state is State.STABLE and group.protocol == group.select_protocol():
            self._rebalances.write(group, outbox)
            member.join = None
            skips = call.version >= SKIP_ASSIGNMENT_SINCE
            if skips:
                leads = group.leader == new_id
                answer_join(call, group, new_id, outbox, tell_members=leads, skip_assignment=leads)
            else:
                # One that was the leader must not take itself for it: it would assign, and nobody waits for that.
                answer_join(call, group, new_id, outbox, leader=leader)
        else:
            self._rebalances.rebalance(group, reason, now, outbox)

    # -- SyncGroup -----------------------------------------------------------------------------

    def _sync(self, call: Call, request: SyncGroupRequest, now: Now, outbox: Outbox) -> None:
        group = self._groups.get(request.group_id)
        error = ErrorCode.INVALID_GROUP_ID if not request.group_id else check_sync(group, request)
        if error or group is None:
            refuse_sync(call, error, outbox)
            return
        member = group.members[request.member_id]
        self._rebalances.has_synced(group, member, outbox)
        if group.state is State.STABLE:
            # A sign of life, as in Kafka before 4.0: or who comes late is given its share, and put out before its first heartbeat.
            self._rebalances.expect(group, member, now, outbox)
            answer_sync(call, group, member, outbox)
            return
        if member.sync is not None:
            refuse_sync(member.sync, ErrorCode.REBALANCE_IN_PROGRESS, outbox)  # it asks anew
        member.sync = call
        if group.leader == member.member_id:
            assigned = {each.member_id: each.assignment for each in request.assignments}
            for each in group.members.values():
                each.assignment = assigned.get(each.member_id, b"")
            group.go_to(State.STABLE, now.wall_ms)
            self._rebalances.write(group, outbox)
            for each in group.members.values():
                self._rebalances.end_sync(group, each, 0, now, outbox)

    # -- Heartbeat, LeaveGroup -----------------------------------------------------------------

    def _heartbeat(self, call: Call, request: HeartbeatRequest, now: Now, outbox: Outbox) -> None:
        outbox.answer(call, HeartbeatResponse(error_code=self._check_heartbeat(request, now, outbox)))

    def _check_heartbeat(self, request: HeartbeatRequest, now: Now, outbox: Outbox) -> int:
        group = self._groups.get(request.group_id)
        if not request.group_id:
            return ErrorCode.INVALID_GROUP_ID
        if group is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        error = group.check_member(request.member_id, request.group_instance_id)
        if error or request.generation_id != group.generation:
            return error or ErrorCode.ILLEGAL_GENERATION
        self._rebalances.expect(group, group.members[request.member_id], now, outbox)
        return ErrorCode.REBALANCE_IN_PROGRESS if group.state is State.PREPARING else 0

    def _leave(self, call: Call, request: LeaveGroupRequest, now: Now, outbox: Outbox) -> None:
        several = call.version >= SEVERAL_MEMBERS_SINCE
        leaving = request.members if several else [MemberIdentity(request.member_id, None, None)]
        group = self._groups.get(request.group_id)
        if not request.group_id:
            outbox.answer(call, LeaveGroupResponse(error_code=ErrorCode.INVALID_GROUP_ID))
            return
        ended = [
            MemberResponse(each.member_id, each.group_instance_id, self._leave_one(group, each, outbox)) for each in leaving]
        if several:
            outbox.answer(call, LeaveGroupResponse(members=ended))
        else:
            outbox.answer(call, LeaveGroupResponse(error_code=ended[0].error_code))
        left = [each.member_id or each.group_instance_id for each in ended if not each.error_code]
        if group is not None and left:
            if group.state in (State.STABLE, State.COMPLETING):
                self._rebalances.prepare(group, f"{left} left", now, outbox)
            self._rebalances.complete_if_all_joined(group, now, outbox)

    def _leave_one(self, group: ClassicGroup | None, leaving: MemberIdentity, outbox: Outbox) -> int:
        if group is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        member_id = leaving.member_id
        if member_id in group.pending:
            self._rebalances.cancel(session_timer(group, member_id), outbox)
            group.remove(member_id)
            return 0
        if member_id == UNKNOWN and leaving.group_instance_id is not None:
            member_id = group.static.get(leaving.group_instance_id, UNKNOWN)  # an admin's wish
        error = group.check_member(member_id, leaving.group_instance_id)
        if not error:
            self._rebalances.remove(group, group.members[member_id], outbox)
        return error

    # -- offsets -------------------------------------------------------------------------------

    def check_commit(self, commit: Commit, now: Now, outbox: Outbox) -> int:
        group = self._groups[commit.group_id]
        error = group.check_commit(commit)
        member = group.members.get(commit.member_id)
        if not error and member is not None:
            self._rebalances.expect(group, member, now, outbox)
        return error

    def check_stale_commit(self, commit: Commit, topic_id: bytes, partition: int) -> int:
        return ErrorCode.ILLEGAL_GENERATION

    def check_fetch(self, group_id: str, member_id: str | None, member_epoch: int) -> int:
        return 0

    def check_offset_delete(self, group_id: str) -> int:
        return self._groups[group_id].check_offset_delete()

    def is_subscribed(self, group_id: str, topic: str) -> bool:
        return self._groups[group_id].is_subscribed(topic)

    def expiry_base_ms(self, group_id: str, committed_ms: int) -> int | None:
        return self._groups[group_id].expiry_base_ms(committed_ms)

    # -- administration ------------------------------------------------------------------------

    def list(self) -> Iterable[Listed]:
        return [
            Listed(group.group_id, group.protocol_type or "", group.state.value, self.kind)
            for group in self._groups.values()]

    def describe(self, group_id: str, version: int) -> DescribedGroup:
        return self._groups[group_id].describe()

    def delete(self, group_id: str, outbox: Outbox) -> int:
        group = self._groups[group_id]
        if group.state is not State.EMPTY:
            return ErrorCode.NON_EMPTY_GROUP
        self.give_up(group_id, outbox)
        return 0
