"""All KIP-848 groups of one partition of `__consumer_offsets`, as the log has them.

Owns: `ConsumerState`; that a record that is appended changes the state in the same way when it is replayed.
Invariants: there are exactly the groups of which a record was written after their last tombstone. `members`,
`waiting` and `only_classic` say what is in `groups`.
Source: Kafka GroupMetadataManager.replay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zafka.actors.groups import consumer_records as records
from zafka.actors.groups.calls import Outbox
from zafka.actors.groups.consumer_group import Group
from zafka.actors.groups.consumer_member import STATIC_LEAVE_EPOCH, MemberState, position_of, target_of


class ConsumerState:
    """members: how many all groups have. waiting: group and id of those that wait for partitions of others.

    only_classic: the groups whose members all speak the classic protocol."""

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {}
        self.members = 0
        self.waiting: set[tuple[str, str]] = set()
        self.only_classic: set[str] = set()
        self._put: dict[type, Callable[[Group, Any, Any], None]] = {
            records.ConsumerGroupMetadataKey: self._put_group,
            records.ConsumerGroupPartitionMetadataKey: lambda group, key, value: None,
            records.ConsumerGroupMemberMetadataKey: self._put_member,
            records.ConsumerGroupTargetAssignmentMetadataKey: self._put_assignment,
            records.ConsumerGroupTargetAssignmentMemberKey: self._put_target,
            records.ConsumerGroupCurrentMemberAssignmentKey: self._put_position,
            records.ConsumerGroupRegularExpressionKey: self._put_regex,
        }

    def write(self, key: Any, value: Any, outbox: Outbox) -> None:
        """value: None for a tombstone."""
        outbox.append(*records.encode_record(key, value))
        self.replay(key, value)

    def replay(self, key: Any, value: Any) -> None:
        group = self.groups.get(key.group_id)
        if group is None:
            if value is None:
                return
            group = self.groups[key.group_id] = Group(key.group_id)
        before = len(group.members)
        self._put[type(key)](group, key, value)
        self.members += len(group.members) - before
        if group.is_classic:
            self.only_classic.add(group.group_id)
        else:
            self.only_classic.discard(group.group_id)

    def _put_group(self, group: Group, key: Any, value: records.ConsumerGroupMetadataValue | None) -> None:
        if value is None:
            assert not group.members
            del self.groups[group.group_id]
        else:
            group.epoch, group.metadata_hash = value.epoch, value.metadata_hash

    def _put_assignment(
        self, group: Group, key: Any, value: records.ConsumerGroupTargetAssignmentMetadataValue | None
    ) -> None:
        value = value or records.ConsumerGroupTargetAssignmentMetadataValue()
        group.assignment_epoch, group.assigned_ms = value.assignment_epoch, value.assignment_timestamp

    def _put_member(
        self, group: Group, key: records.MemberKey, value: records.ConsumerGroupMemberMetadataValue | None
    ) -> None:
        group.put_metadata(key.member_id, value)
        if value is None:
            self.waiting.discard((group.group_id, key.member_id))

    def _put_target(
        self, group: Group, key: records.MemberKey, value: records.ConsumerGroupTargetAssignmentMemberValue | None
    ) -> None:
        group.put_target(key.member_id, None if value is None else target_of(value))

    def _put_position(
        self, group: Group, key: records.MemberKey, value: records.ConsumerGroupCurrentMemberAssignmentValue | None
    ) -> None:
        position = None if value is None else position_of(value)
        group.put_position(key.member_id, position)
        waits = position is not None and position.state is MemberState.UNRELEASED_PARTITIONS
        if waits and position is not None and position.epoch != STATIC_LEAVE_EPOCH:
            self.waiting.add((group.group_id, key.member_id))
        else:
            self.waiting.discard((group.group_id, key.member_id))

    def _put_regex(
        self, group: Group, key: records.ConsumerGroupRegularExpressionKey,
        value: records.ConsumerGroupRegularExpressionValue | None,
    ) -> None:
        group.put_regex(key.regular_expression, None if value is None else value.topics)
