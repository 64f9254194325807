"""A member of a KIP-848 group, and its way from what it has to what it is to have.

Owns: `Member`; `Position`, how far it is; `reconcile`, the next step on the way. All pure.
Invariant: a partition is given to a member only after the one that had it has said that it does not any more, or was
fenced; so it has one owner at any time.
Source: KIP-848 (member states); Kafka CurrentAssignmentBuilder, ConsumerGroupMember.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct

from zafka.actors.groups.assignors import Assignment
from zafka.actors.groups.consumer_records import (
    ClassicMemberMetadata,
    ConsumerGroupCurrentMemberAssignmentValue,
    ConsumerGroupMemberMetadataValue,
    ConsumerGroupTargetAssignmentMemberValue,
    TopicPartition,
    TopicPartitions,
)

JOIN_EPOCH = 0
LEAVE_EPOCH = -1
STATIC_LEAVE_EPOCH = -2

Owned = Mapping[bytes, Mapping[int, int]]
"""By topic id and partition: the member epoch at which it was assigned."""
NOTHING: Owned = MappingProxyType({})


class MemberState(IntEnum):
    STABLE = 0
    UNREVOKED_PARTITIONS = 1
    """It has partitions that it is to give up, and has not said that it did."""
    UNRELEASED_PARTITIONS = 2
    """It waits for partitions that others have not given up."""
    UNKNOWN = 127
    """Written by a Kafka to come."""


class Position(NamedTuple):
    """epoch: the group's whose target the member has reached, or STATIC_LEAVE_EPOCH. revoking: still with the member."""

    epoch: int = JOIN_EPOCH
    previous_epoch: int = JOIN_EPOCH
    state: MemberState = MemberState.STABLE
    assigned: Owned = NOTHING
    revoking: Owned = NOTHING

    def has_reached(self, epoch: int) -> bool:
        return self.state is MemberState.STABLE and self.epoch == epoch


class Member(Struct):
    """metadata, position: as the log has them. The deadlines are monotonic times, None while none runs: until when it must
    be heard of, and until when it must have given up what it is to (classic: have joined, or synced)."""

    member_id: str
    metadata: ConsumerGroupMemberMetadataValue = ConsumerGroupMemberMetadataValue()
    position: Position = Position()
    session_until_s: float | None = None
    step_until_s: float | None = None

    @property
    def classic(self) -> ClassicMemberMetadata | None:
        """What it said when it joined, if it speaks the classic protocol."""
        return self.metadata.classic_member_metadata


class Goal(NamedTuple):
    """Where a member is to go.

    epoch, target: the newest target assignment. subscribed: ids of the topics that it reads.
    changed: it reads others since this heartbeat.
    """

    epoch: int
    target: Assignment
    subscribed: Collection[bytes]
    changed: bool


def reconcile(
    position: Position, goal: Goal, owned: Mapping[bytes, Collection[int]] | None, is_owned: Callable[[bytes, int], bool]
) -> Position:
    """The member's next position, or the same if it can not go on yet.

    owned: the partitions that the member says it has; None: it does not say. is_owned: whether a member of the group
    has this partition, this one included.
    """
    if position.state is MemberState.STABLE and position.epoch == goal.epoch:
        return _drop_unsubscribed(position, goal, owned) if goal.changed else position
    if position.state is MemberState.UNREVOKED_PARTITIONS and _still_has(owned, position.revoking):
        return _drop_unsubscribed(position, goal, owned) if goal.changed else position
    epoch = goal.epoch if position.state is MemberState.UNKNOWN else position.epoch
    return _next(position, epoch, goal, owned, is_owned)


def _still_has(owned: Mapping[bytes, Collection[int]] | None, partitions: Owned) -> bool:
    if owned is None:
        return True
    return any(partition in owned.get(topic, ()) for topic in partitions for partition in partitions[topic])


def _next(
    position: Position, epoch: int, goal: Goal, owned: Mapping[bytes, Collection[int]] | None,
    is_owned: Callable[[bytes, int], bool],
) -> Position:
    """Revoke first. When nothing is to be revoked, take the epoch of the goal and what is free of its target."""
    kept: dict[bytes, dict[int, int]] = {}
    revoking: dict[bytes, dict[int, int]] = {}
    pending: dict[bytes, list[int]] = {}
    waits = False
    for topic in sorted({*goal.target, *position.assigned}):
        target = goal.target.get(topic, frozenset()) if topic in goal.subscribed else frozenset()
        has, mine = position.assigned.get(topic, {}), position.revoking.get(topic, {})
        if keep := {partition: at for partition, at in has.items() if partition in target}:
            kept[topic] = keep
        if give_up := {partition: at for partition, at in has.items() if partition not in target}:
            revoking[topic] = give_up
        wanted = sorted(target - has.keys())
        # What this member gave up a moment ago and is to have again is nobody else's.
        if free := [partition for partition in wanted if partition in mine or not is_owned(topic, partition)]:
            pending[topic] = free
        waits = waits or len(free) < len(wanted)
    if revoking and _still_has(owned, revoking):
        return Position(epoch, position.epoch, MemberState.UNREVOKED_PARTITIONS, kept, revoking)
    for topic, free in pending.items():
        kept[topic] = kept.get(topic, {}) | dict.fromkeys(free, goal.epoch)
    state = MemberState.UNRELEASED_PARTITIONS if waits else MemberState.STABLE
    return Position(goal.epoch, position.epoch, state, kept)


def _drop_unsubscribed(position: Position, goal: Goal, owned: Mapping[bytes, Collection[int]] | None) -> Position:
    """Take from the member what it does not read any more, at once: the target may be long in coming."""
    dropped = {topic: has for topic, has in position.assigned.items() if topic not in goal.subscribed}
    if not dropped:
        return position
    kept = {topic: has for topic, has in position.assigned.items() if topic in goal.subscribed}
    revoking = {
        topic: {**position.revoking.get(topic, {}), **dropped.get(topic, {})}
        for topic in sorted({*position.revoking, *dropped})}
    if _still_has(owned, revoking):
        return Position(position.epoch, position.epoch, MemberState.UNREVOKED_PARTITIONS, kept, revoking)
    return position._replace(previous_epoch=position.epoch, assigned=kept)


# -- as records ----------------------------------------------------------------------------------


def position_value(position: Position) -> ConsumerGroupCurrentMemberAssignmentValue:
    return ConsumerGroupCurrentMemberAssignmentValue(
        position.epoch, position.previous_epoch, position.state, _owned_value(position.assigned),
        _owned_value(position.revoking))


def position_of(value: ConsumerGroupCurrentMemberAssignmentValue) -> Position:
    known = value.state in (0, 1, 2)
    return Position(
        value.member_epoch, value.previous_member_epoch, MemberState(value.state) if known else MemberState.UNKNOWN,
        _owned_of(value.assigned_partitions, value.member_epoch),
        _owned_of(value.partitions_pending_revocation, value.member_epoch))


def _owned_value(owned: Owned) -> list[TopicPartitions]:
    return [TopicPartitions(topic, sorted(has), [has[each] for each in sorted(has)]) for topic, has in owned.items()]


def _owned_of(topics: list[TopicPartitions], epoch: int) -> Owned:
    """Before Kafka 4.3 there were no epochs of partitions; the member's then stands for them."""
    return {
        each.topic_id: dict(zip(each.partitions, each.assignment_epochs, strict=False)) if each.assignment_epochs
        else dict.fromkeys(each.partitions, epoch)
        for each in topics}


def target_value(target: Assignment) -> ConsumerGroupTargetAssignmentMemberValue:
    return ConsumerGroupTargetAssignmentMemberValue(
        [TopicPartition(topic, sorted(target[topic])) for topic in sorted(target)])


def target_of(value: ConsumerGroupTargetAssignmentMemberValue) -> Assignment:
    return {each.topic_id: frozenset(each.partitions) for each in value.topic_partitions}
