"""When a generation of a classic group ends and the next begins: who is waited for, how long, and who is gone.

Owns: `Rebalances`, the timers of all classic groups in a partition, and the one way from a generation to the next; what
members ask for is the matter of `classic.py`.
Invariants: whoever waits for an answer to JoinGroup or SyncGroup has a timer behind it; a generation is complete when all
its members have joined, or their time was up; a group without members is written as such.
Source: Kafka GroupMetadataManager (prepareRebalance, completeClassicGroupJoin, expireClassicGroupMemberHeartbeat).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog

from zafka.actors.actor import Now
from zafka.actors.groups.calls import Outbox
from zafka.actors.groups.classic_answers import (
    answer_join,
    answer_sync,
    join_timer,
    refuse_join,
    refuse_sync,
    session_timer,
    sync_timer,
)
from zafka.actors.groups.classic_group import UNKNOWN, ClassicGroup, Member, State
from zafka.actors.groups.records import GroupMetadataKey, encode_group
from zafka.transport.kafka.errors import ErrorCode

logger = structlog.get_logger(__name__)

Due = Callable[[Now, Outbox], None]


class Rebalances:
    """initial_delay_ms: how long the first member of an empty group waits for others (group.initial.rebalance.delay.ms)."""

    def __init__(self, initial_delay_ms: int) -> None:
        self._initial_delay_ms = initial_delay_ms
        self._due: dict[str, Due] = {}  # by the name of each timer that is set

    def __repr__(self) -> str:
        return f"<Rebalances timers={len(self._due)}>"

    # -- timers --------------------------------------------------------------------------------

    def _set(self, name: str, delay_ms: float, due: Due, now: Now, outbox: Outbox) -> None:
        self._due[name] = due
        outbox.set_timer(name, now.monotonic_s + delay_ms / 1000)

    def cancel(self, name: str, outbox: Outbox) -> None:
        if self._due.pop(name, None) is not None:
            outbox.cancel_timer(name)

    def on_timer(self, name: str, now: Now, outbox: Outbox) -> None:
        due = self._due.pop(name, None)
        if due is not None:
            due(now, outbox)

    def expect(self, group: ClassicGroup, member: Member, now: Now, outbox: Outbox, *, within_ms: float = 0.0) -> None:
        """A sign of life within the session's time, or this one."""
        self.expect_again(group, member.member_id, within_ms or member.session_timeout_ms, now, outbox)

    def expect_again(self, group: ClassicGroup, member_id: str, within_ms: float, now: Now, outbox: Outbox) -> None:
        """Who was given an id, and is to come back with it."""
        self._set(
            session_timer(group, member_id), within_ms, partial(self._expire_member, group, member_id), now, outbox)

    # -- rebalances ----------------------------------------------------------------------------

    def rebalance(self, group: ClassicGroup, reason: str, now: Now, outbox: Outbox) -> None:
        if group.state is not State.PREPARING:
            self.prepare(group, reason, now, outbox)
        else:
            self.complete_if_all_joined(group, now, outbox)

    def prepare(self, group: ClassicGroup, reason: str, now: Now, outbox: Outbox) -> None:
        """Have all members join again. The first of a new group waits for others who begin at the same time."""
        if group.state is State.COMPLETING:
            for member in group.members.values():
                member.assignment = b""
                self.end_sync(group, member, ErrorCode.REBALANCE_IN_PROGRESS, now, outbox)
        self.cancel(sync_timer(group), outbox)
        first = group.state is State.EMPTY
        logger.info("rebalance begins", group=group.group_id, generation=group.generation, reason=reason)
        group.go_to(State.PREPARING, now.wall_ms)
        if first:
            group.new_member_added = False
            delay_ms = self._initial_delay_ms
            left_ms = max(group.rebalance_timeout_ms - delay_ms, 0)
            self._set(
                join_timer(group), delay_ms, partial(self._end_initial_delay, group, delay_ms, left_ms), now, outbox)
        elif group.all_joined:
            self._complete(group, now, outbox)
        else:
            self._wait_for_joins(group, now, outbox)

    def _wait_for_joins(self, group: ClassicGroup, now: Now, outbox: Outbox) -> None:
        self._set(join_timer(group), group.rebalance_timeout_ms, partial(self._complete, group), now, outbox)

    def _end_initial_delay(self, group: ClassicGroup, delay_ms: int, left_ms: int, now: Now, outbox: Outbox) -> None:
        if group.new_member_added and left_ms:
            group.new_member_added = False
            next_ms = min(self._initial_delay_ms, left_ms)
            due = partial(self._end_initial_delay, group, next_ms, max(left_ms - delay_ms, 0))
            self._set(join_timer(group), next_ms, due, now, outbox)
        else:
            self._complete(group, now, outbox)

    def complete_if_all_joined(self, group: ClassicGroup, now: Now, outbox: Outbox) -> None:
        if group.state is State.PREPARING and group.all_joined and group.previous_state is not State.EMPTY:
            self._complete(group, now, outbox)

    def _complete(self, group: ClassicGroup, now: Now, outbox: Outbox) -> None:
        """All have joined, or had their time: those who did are the next generation, and static members stay."""
        self.cancel(join_timer(group), outbox)
        for member in [each for each in group.members.values() if each.join is None and each.instance_id is None]:
            group.remove(member.member_id)
            self.cancel(session_timer(group, member.member_id), outbox)
        if group.members and not group.elect_leader():
            # Static members only, and none of them came: their sessions say how long they are waited for.
            self._wait_for_joins(group, now, outbox)
            return
        group.next_generation(now.wall_ms)
        logger.info("generation begins", group=group.group_id, generation=group.generation, members=len(group.members))
        if not group.members:
            self.write(group, outbox)
            return
        for member in group.members.values():
            call, member.join = member.join, None
            if call is not None:
                answer_join(call, group, member.member_id, outbox, tell_members=group.leader == member.member_id)
            self.expect(group, member, now, outbox)
            member.is_new = False
            group.pending_sync.add(member.member_id)
        self._set(
            sync_timer(group), group.rebalance_timeout_ms, partial(self._expire_syncs, group), now, outbox)

    def _expire_syncs(self, group: ClassicGroup, now: Now, outbox: Outbox) -> None:
        """Who did not ask for its assignment in time is gone. The next rebalance cancels this timer."""
        late = sorted(group.pending_sync)
        if not late:
            return
        for member_id in late:
            group.remove(member_id)
            self.cancel(session_timer(group, member_id), outbox)
        self.prepare(group, f"{late} did not sync in time", now, outbox)

    def _expire_member(self, group: ClassicGroup, member_id: str, now: Now, outbox: Outbox) -> None:
        member = group.members.get(member_id)
        if member_id in group.pending:
            group.remove(member_id)
            if group.state is State.PREPARING and group.all_joined:
                self._complete(group, now, outbox)
        elif member is not None and member.must_heartbeat:
            self.remove(group, member, outbox)
            reason = f"{member_id} was not heard of within its session"
            if group.state in (State.STABLE, State.COMPLETING):
                self.prepare(group, reason, now, outbox)
            elif group.state is State.PREPARING and group.all_joined:
                self._complete(group, now, outbox)

    def remove(self, group: ClassicGroup, member: Member, outbox: Outbox) -> None:
        if member.join is not None:
            refuse_join(member.join, ErrorCode.UNKNOWN_MEMBER_ID, UNKNOWN, outbox)
        if member.sync is not None:
            refuse_sync(member.sync, ErrorCode.UNKNOWN_MEMBER_ID, outbox)
        member.join = member.sync = None
        self.cancel(session_timer(group, member.member_id), outbox)
        group.remove(member.member_id)

    def has_synced(self, group: ClassicGroup, member: Member, outbox: Outbox) -> None:
        group.pending_sync.discard(member.member_id)
        if not group.pending_sync:
            self.cancel(sync_timer(group), outbox)

    def end_sync(self, group: ClassicGroup, member: Member, error: int, now: Now, outbox: Outbox) -> None:
        call, member.sync = member.sync, None
        if call is None:
            return
        if error:
            refuse_sync(call, error, outbox)
        else:
            answer_sync(call, group, member, outbox)
        self.expect(group, member, now, outbox)

    # -- the log -------------------------------------------------------------------------------

    def write(self, group: ClassicGroup, outbox: Outbox) -> None:
        outbox.append(*encode_group(GroupMetadataKey(group.group_id), group.value()))
