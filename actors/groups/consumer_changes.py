"""What happens to a consumer group, whichever protocol a member speaks: epochs, targets, members that come and go, time.

Owns: `Changes`. Each of them writes the records of it in the same call, and nothing else changes a group (`ConsumerState`).
Who may do what is decided before, by those who take the requests: `consumer.py`, and for members of the classic protocol
`consumer_classic.py`.
Source: Kafka GroupMetadataManager (consumerGroupHeartbeat, consumerGroupFenceMember, replaceMember), KIP-848.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from zafka.actors.actor import Now
from zafka.actors.groups import consumer_records as records
from zafka.actors.groups.assignors import ASSIGNORS, Reader
from zafka.actors.groups.calls import Outbox, Settings, Topics
from zafka.actors.groups.consumer_group import Group, metadata_hash
from zafka.actors.groups.consumer_member import (
    JOIN_EPOCH,
    Goal,
    Member,
    MemberState,
    position_value,
    reconcile,
    target_value,
)
from zafka.actors.groups.consumer_state import ConsumerState

KIND = "consumer"


class Changes:
    """topics: of the cluster."""

    def __init__(self, topics: Topics, state: ConsumerState, settings: Settings) -> None:
        self._topics = topics
        self._state = state
        self._session_ms = int(settings.get("group.consumer.session.timeout.ms", "45000"))
        self._assignment_interval_ms = int(settings.get("group.consumer.assignment.interval.ms", "0"))

    # -- members -------------------------------------------------------------------------------

    def replace(self, group: Group, old: Member, member_id: str, outbox: Outbox) -> None:
        """A static member is back under another id: it takes over everything of its predecessor."""
        target = group.targets.get(old.member_id, {})
        position = old.position._replace(epoch=JOIN_EPOCH, previous_epoch=JOIN_EPOCH)
        self._remove(group, old.member_id, outbox)
        key = group.group_id, member_id
        self._state.write(records.ConsumerGroupMemberMetadataKey(*key), old.metadata, outbox)
        self._state.write(records.ConsumerGroupTargetAssignmentMemberKey(*key), target_value(target), outbox)
        self._state.write(records.ConsumerGroupCurrentMemberAssignmentKey(*key), position_value(position), outbox)

    def take_metadata(
        self, group: Group, member_id: str, metadata: records.ConsumerGroupMemberMetadataValue,
        matching: frozenset[str] | None, now: Now, outbox: Outbox,
    ) -> bool:
        """Write what the member says of itself, if that is new. Returns whether it reads something else now.

        matching: the topics of its expression, if that is new to the group.
        """
        member = group.members.get(member_id)
        old = member.metadata if member is not None else records.ConsumerGroupMemberMetadataValue()
        if member is not None and member.classic is not None and metadata.classic_member_metadata is None:
            self.end_step(group, member, outbox)  # it goes by heartbeats now
        if member is None or metadata != old:
            self._state.write(records.ConsumerGroupMemberMetadataKey(group.group_id, member_id), metadata, outbox)
        pattern, old_pattern = metadata.subscribed_topic_regex or "", old.subscribed_topic_regex or ""
        if pattern != old_pattern:
            self._drop_unread(group, [old_pattern], outbox)
        if matching is not None:
            self.write_regex(group.group_id, pattern, matching, now, outbox)
        return pattern != old_pattern or metadata.subscribed_topic_names != old.subscribed_topic_names

    def fence(self, group: Group, members: Collection[Member], outbox: Outbox) -> None:
        """They are members no more, and what they had is free."""
        for member in members:
            self._remove(group, member.member_id, outbox)
        self._drop_unread(group, {member.metadata.subscribed_topic_regex or "" for member in members}, outbox)
        self.raise_epoch(group, outbox)

    def _remove(self, group: Group, member_id: str, outbox: Outbox) -> None:
        member = group.members[member_id]
        for name in ("session", "step"):
            outbox.cancel_timer(_timer(name, group, member))
        for key in (
            records.ConsumerGroupCurrentMemberAssignmentKey, records.ConsumerGroupTargetAssignmentMemberKey,
            records.ConsumerGroupMemberMetadataKey,
        ):
            self._state.write(key(group.group_id, member_id), None, outbox)

    def delete(self, group: Group, outbox: Outbox) -> None:
        """The group, and who is in it."""
        for member_id in list(group.members):
            self._remove(group, member_id, outbox)
        for pattern in list(group.regexes):
            self._state.write(records.ConsumerGroupRegularExpressionKey(group.group_id, pattern), None, outbox)
        for key in (
            records.ConsumerGroupTargetAssignmentMetadataKey, records.ConsumerGroupPartitionMetadataKey,
            records.ConsumerGroupMetadataKey,
        ):
            self._state.write(key(group.group_id), None, outbox)

    # -- expressions ---------------------------------------------------------------------------

    def write_regex(self, group_id: str, pattern: str, topics: Collection[str], now: Now, outbox: Outbox) -> None:
        value = records.ConsumerGroupRegularExpressionValue(sorted(topics), 0, now.wall_ms)
        self._state.write(records.ConsumerGroupRegularExpressionKey(group_id, pattern), value, outbox)

    def _drop_unread(self, group: Group, patterns: Iterable[str], outbox: Outbox) -> None:
        for pattern in patterns:
            if pattern in group.regexes and not group.reads_regex(pattern):
                self._state.write(records.ConsumerGroupRegularExpressionKey(group.group_id, pattern), None, outbox)

    # -- epochs, targets -----------------------------------------------------------------------

    def renew(self, group: Group, now: Now, outbox: Outbox, *, must: bool) -> None:
        """Raise the group's epoch if it must be, and make a target for the newest one, if it is time."""
        if must:
            self.raise_epoch(group, outbox)
        interval_ms = self._topics.altered(
            group.group_id, "consumer.assignment.interval.ms", self._assignment_interval_ms)
        due = group.assigned_ms == 0 or interval_ms == 0 or now.wall_ms >= group.assigned_ms + interval_ms
        if group.epoch > group.assignment_epoch and due:
            self._assign(group, now, outbox)

    def raise_epoch(self, group: Group, outbox: Outbox) -> None:
        value = records.ConsumerGroupMetadataValue(
            group.epoch + 1, metadata_hash(group.subscribed, self._topics.by_name))
        self._state.write(records.ConsumerGroupMetadataKey(group.group_id), value, outbox)

    def _assign(self, group: Group, now: Now, outbox: Outbox) -> None:
        by_name = self._topics.by_name
        partitions = {by_name[name].topic_id: by_name[name].partitions for name in group.subscribed if name in by_name}
        readers = {
            member_id: Reader(self._ids(group, member), group.targets.get(member_id, {}), member.metadata.instance_id)
            for member_id, member in group.members.items()}
        for member_id, target in ASSIGNORS[group.assignor()](readers, partitions).items():
            if target != group.targets.get(member_id):
                key = records.ConsumerGroupTargetAssignmentMemberKey(group.group_id, member_id)
                self._state.write(key, target_value(target), outbox)
        value = records.ConsumerGroupTargetAssignmentMetadataValue(group.epoch, now.wall_ms)
        self._state.write(records.ConsumerGroupTargetAssignmentMetadataKey(group.group_id), value, outbox)

    def reconcile(
        self, group: Group, member: Member, owned: Mapping[bytes, Collection[int]] | None, now: Now, outbox: Outbox, *,
        changed: bool,
    ) -> None:
        """The member's next step to its target. owned, changed: as in `consumer_member.reconcile`."""
        if not changed and member.position.has_reached(group.assignment_epoch):
            return
        goal = Goal(
            group.assignment_epoch, group.targets.get(member.member_id, {}), self._ids(group, member), changed)
        position = reconcile(member.position, goal, owned, group.is_owned)
        if position == member.position:
            return
        key = records.ConsumerGroupCurrentMemberAssignmentKey(group.group_id, member.member_id)
        self._state.write(key, position_value(position), outbox)
        if member.classic is not None:
            return  # its time runs from when it is told to join, and from when it has joined
        if position.state is MemberState.UNREVOKED_PARTITIONS:
            self.limit_step(group, member, now, outbox)
        else:
            self.end_step(group, member, outbox)

    def _ids(self, group: Group, member: Member) -> frozenset[bytes]:
        by_name = self._topics.by_name
        return frozenset(by_name[name].topic_id for name in group.topics_of(member) if name in by_name)

    # -- time ----------------------------------------------------------------------------------

    def prolong_session(self, group: Group, member: Member, now: Now, outbox: Outbox) -> None:
        """The timer of a session that was prolonged is set anew when it fires."""
        classic = member.classic
        altered_ms = self._topics.altered(group.group_id, "consumer.session.timeout.ms", self._session_ms)
        until_s = now.monotonic_s + (altered_ms if classic is None else classic.session_timeout_ms) / 1000
        if member.session_until_s is None or until_s < member.session_until_s:
            outbox.set_timer(_timer("session", group, member), until_s)
        member.session_until_s = until_s

    def limit_step(self, group: Group, member: Member, now: Now, outbox: Outbox) -> None:
        """Within its rebalance timeout the member is to take its next step."""
        member.step_until_s = now.monotonic_s + max(member.metadata.rebalance_timeout_ms, 0) / 1000
        outbox.set_timer(_timer("step", group, member), member.step_until_s)

    def end_step(self, group: Group, member: Member, outbox: Outbox) -> None:
        member.step_until_s = None
        outbox.cancel_timer(_timer("step", group, member))

    def on_timer(self, name: str, now: Now, outbox: Outbox) -> None:
        """A member was not heard of, or has not done in time what it was to."""
        _, word, length, ids = name.split(" ", 3)
        group = self._state.groups.get(ids[:int(length)])
        member = group.members.get(ids[int(length):]) if group is not None else None
        if group is None or member is None:
            return
        until_s = member.session_until_s if word == "session" else member.step_until_s
        if until_s is not None and now.monotonic_s < until_s:
            outbox.set_timer(name, until_s)
        elif until_s is not None:
            self.fence(group, [member], outbox)

    def renew_sessions(self, group: Group, now: Now, outbox: Outbox) -> None:
        for member in group.members.values():
            self.prolong_session(group, member, now, outbox)
            if member.classic is None and member.position.state is MemberState.UNREVOKED_PARTITIONS:
                self.limit_step(group, member, now, outbox)


def _timer(word: str, group: Group, member: Member) -> str:
    """The length of the group id tells it from the member's: both may have any characters."""
    return f"{KIND} {word} {len(group.group_id)} {group.group_id}{member.member_id}"
