"""KIP-848 consumer groups: members say by heartbeats what they read and have, and are told what they are to have.

Owns: `ConsumerGroups`, all such groups of one partition of `__consumer_offsets`: who may do what, and how often members
come. What then happens to a group is `consumer_changes.py`; members that still speak the classic protocol are served by
`consumer_classic.py`. One group is `consumer_group.py`, a member's way to its target `consumer_member.py`.
A heartbeat that is refused has changed nothing.
Members come as often as a budget allows, not every 5 s as with Kafka: a small group rebalances in well under a second.
Unlike Kafka's, expressions are resolved at once (`topic_regex.py`), not in a thread and every 10 minutes, and a target is
made whenever there is cause, not at most once a second (`group.consumer.assignment.interval.ms`, here 0).
Source: KIP-848, KIP-1101; Kafka GroupMetadataManager.consumerGroupHeartbeat, GroupCoordinatorService, GroupCoordinatorConfig.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from zafka.actors.actor import Now
from zafka.actors.groups import consumer_records as records
from zafka.actors.groups.calls import Call, Commit, Listed, Outbox, Settings, Topics
from zafka.actors.groups.consumer_changes import KIND, Changes
from zafka.actors.groups.consumer_classic import ClassicMembers
from zafka.actors.groups.consumer_group import Group, Refused, check_epoch, metadata_hash
from zafka.actors.groups.consumer_member import (
    JOIN_EPOCH,
    LEAVE_EPOCH,
    NOTHING,
    STATIC_LEAVE_EPOCH,
    Member,
    Owned,
    position_value,
)
from zafka.actors.groups.consumer_requests import check_heartbeat, described_by, owned_of
from zafka.actors.groups.consumer_state import ConsumerState
from zafka.actors.groups.topic_regex import InvalidRegex, TopicRegex
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.consumer_group_describe import DescribedGroup
from zafka.transport.kafka.messages.consumer_group_heartbeat import (
    Assignment,
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    TopicPartitions,
)

PROTOCOL_TYPE = "consumer"
EPOCHS_SINCE = 9  # of OffsetCommit: before, members have generations only
HEARTBEATS_PER_S = 300  # of all members together; as many again of those that wait for partitions
INTERVAL_MS_MIN, INTERVAL_MS_MAX = 300, 5_000

Answer = ConsumerGroupHeartbeatResponse


def heartbeat_interval_ms(members: int) -> int:
    """When each of so many is to come again for all of them to keep to the budget."""
    return min(max(math.ceil(members * 1000 / HEARTBEATS_PER_S), INTERVAL_MS_MIN), INTERVAL_MS_MAX)


class Conversion(NamedTuple):
    """A classic group on its way to become one of these.

    group: as it will be, for a look at it. records: of it, in order. release: have it be a classic group no more.
    """

    group: Group
    records: Sequence[tuple[Any, Any]]
    release: Callable[[Outbox], None]


class ConsumerGroups:
    """topics: of the cluster; nobody is served before `on_topics` has said that they are known.

    new_member_id: another one each time, for clients that do not make their own.
    """

    kind: ClassVar[str] = KIND
    apis: ClassVar[frozenset[int]] = frozenset((ApiKey.CONSUMER_GROUP_HEARTBEAT,))

    def __init__(
        self, topics: Topics, settings: Settings, new_member_id: Callable[[], str]
    ) -> None:
        self._topics = topics
        self._topics_known = False
        self._new_member_id = new_member_id
        self._state = ConsumerState()
        self._groups = self._state.groups
        self._interval_ms = int(settings.get("group.consumer.heartbeat.interval.ms", "0"))  # 0: by the budget
        self._size_max = int(settings.get("group.consumer.max.size", "2147483647"))
        self._changes = Changes(topics, self._state, settings)
        self._classic = ClassicMembers(topics, self._changes, settings, new_member_id)

    def __repr__(self) -> str:
        return f"<ConsumerGroups groups={len(self._groups)} members={self._state.members} waiting={len(self._state.waiting)}>"

    def __contains__(self, group_id: object) -> bool:
        return group_id in self._groups

    # -- requests ------------------------------------------------------------------------------

    def handle(self, call: Call, request: Any, now: Now, outbox: Outbox) -> None:
        self._answer(call, request, None, now, outbox)

    def handle_classic(self, call: Call, request: Any, now: Now, outbox: Outbox) -> None:
        """JoinGroup, SyncGroup, Heartbeat or LeaveGroup, for a group that is here."""
        self._classic.handle(self._groups[request.group_id], call, request, now, outbox)

    def convert(
        self, call: Call, request: ConsumerGroupHeartbeatRequest, conversion: Conversion, now: Now, outbox: Outbox
    ) -> None:
        """A first KIP-848 member joins a classic group, which becomes one of these unless the member is refused."""
        self._answer(call, request, conversion, now, outbox)

    def _answer(
        self, call: Call, request: ConsumerGroupHeartbeatRequest, conversion: Conversion | None, now: Now, outbox: Outbox
    ) -> None:
        try:
            answer = self._heartbeat(call, request, conversion, now, outbox)
        except Refused as refused:
            answer = Answer(error_code=refused.error, error_message=refused.message)
        outbox.answer(call, answer)

    def _heartbeat(
        self, call: Call, request: ConsumerGroupHeartbeatRequest, conversion: Conversion | None, now: Now, outbox: Outbox
    ) -> Answer:
        check_heartbeat(request, call.version)
        if not self._topics_known:
            raise Refused(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
        group = self._groups.get(request.group_id) if conversion is None else conversion.group
        if group is None:
            if request.member_epoch != JOIN_EPOCH:
                what = "Group" if request.member_epoch < JOIN_EPOCH else "Consumer group"  # Kafka's words
                raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, f"{what} {request.group_id} not found.")
            group = Group(request.group_id)  # not there yet: it may be refused
        if request.member_epoch in (LEAVE_EPOCH, STATIC_LEAVE_EPOCH):
            return self._leave(group, request, outbox)
        return self._stay(group, call, request, conversion, now, outbox)

    def _stay(
        self, group: Group, call: Call, request: ConsumerGroupHeartbeatRequest, conversion: Conversion | None, now: Now,
        outbox: Outbox,
    ) -> Answer:
        """A member joins, or shows that it lives; first all that may be refused, then all that is written."""
        owned = owned_of(request)
        member_id, replaced = self._admit(group, request, owned)
        before = replaced or group.members.get(member_id) or Member(member_id)
        metadata = described_by(before.metadata, request, call)
        matching = self._resolve(group, metadata.subscribed_topic_regex)

        if conversion is None:
            self._groups[group.group_id] = group
        else:
            group = self._take_over(conversion, now, outbox)
        if replaced is not None:
            self._changes.replace(group, group.members[replaced.member_id], member_id, outbox)
        changed = self._changes.take_metadata(group, member_id, metadata, matching, now, outbox)
        self._changes.renew(group, now, outbox, must=changed)
        member = group.members[member_id]
        position = member.position
        self._changes.reconcile(group, member, owned, now, outbox, changed=changed)
        self._changes.prolong_session(group, member, now, outbox)

        answer = Answer(
            member_id=member_id, member_epoch=member.position.epoch,
            heartbeat_interval_ms=self._next_interval_ms(group, member))
        everything = (
            request.rebalance_timeout_ms != -1 and owned is not None
            and (request.subscribed_topic_names is not None or request.subscribed_topic_regex is not None))
        if request.member_epoch == JOIN_EPOCH or everything or member.position.assigned != position.assigned:
            answer.assignment = _assignment(member.position.assigned)
        return answer

    def _admit(
        self, group: Group, request: ConsumerGroupHeartbeatRequest, owned: Mapping[bytes, Collection[int]] | None
    ) -> tuple[str, Member | None]:
        """Returns whose heartbeat this is, and the static member whose place it takes, if it does. Raises Refused.

        A static member of the classic protocol does not leave: its successor just comes."""
        member_id, instance_id = request.member_id, request.instance_id
        if len(group.members) >= self._size_max and member_id not in group.members:
            raise Refused(
                ErrorCode.GROUP_MAX_SIZE_REACHED,
                f"The consumer group has reached its maximum capacity of {self._size_max} members.")
        if request.member_epoch != JOIN_EPOCH:
            member = group.find(member_id, instance_id)
            check_epoch(member, request.member_epoch, owned)
            return member_id, None
        member_id = member_id or self._new_member_id()
        holder = None if instance_id is None else group.static_member(instance_id)
        if holder is None:
            return member_id, None
        if holder.position.epoch != STATIC_LEAVE_EPOCH and holder.classic is None:
            raise Refused(
                ErrorCode.UNRELEASED_INSTANCE_ID,
                f"Static member {member_id} with instance id {instance_id} cannot join the group because the instance "
                f"id is owned by {holder.member_id} member.")
        return member_id, holder

    def _resolve(self, group: Group, pattern: str | None) -> frozenset[str] | None:
        """The topics of an expression that is new to the group. Raises Refused if it is none."""
        if not pattern or pattern in group.regexes:
            return None
        try:
            return frozenset(TopicRegex(pattern).matching(self._topics.by_name))
        except InvalidRegex as invalid:
            raise Refused(
                ErrorCode.INVALID_REGULAR_EXPRESSION,
                f"SubscribedTopicRegex `{pattern}` is not a valid regular expression: {invalid}.") from None

    def _next_interval_ms(self, group: Group, member: Member) -> int:
        """Who waits for news is asked to come sooner, if there are not too many of these either."""
        interval_ms = self._topics.altered(group.group_id, "consumer.heartbeat.interval.ms", self._interval_ms)
        if interval_ms:
            return interval_ms
        waits = (group.group_id, member.member_id) in self._state.waiting or group.epoch > group.assignment_epoch
        return heartbeat_interval_ms(len(self._state.waiting) if waits else self._state.members)

    # -- leaving, sessions ---------------------------------------------------------------------

    def _leave(self, group: Group, request: ConsumerGroupHeartbeatRequest, outbox: Outbox) -> Answer:
        member = group.find(request.member_id, request.instance_id)
        if request.member_epoch == STATIC_LEAVE_EPOCH:
            # It keeps its partitions until it is back or its session is over.
            position = member.position._replace(
                epoch=STATIC_LEAVE_EPOCH, revoking=NOTHING,
                assigned={topic: dict.fromkeys(has, 0) for topic, has in member.position.assigned.items()})
            key = records.ConsumerGroupCurrentMemberAssignmentKey(group.group_id, member.member_id)
            self._state.write(key, position_value(position), outbox)
        else:
            self._changes.fence(group, [member], outbox)
        return Answer(member_id=request.member_id, member_epoch=request.member_epoch)

    def on_timer(self, name: str, now: Now, outbox: Outbox) -> None:
        self._changes.on_timer(name, now, outbox)

    # -- groups that become other ones ---------------------------------------------------------

    def _take_over(self, conversion: Conversion, now: Now, outbox: Outbox) -> Group:
        conversion.release(outbox)
        for key, value in conversion.records:
            self._state.write(key, value, outbox)
        group = self._groups[conversion.group.group_id]
        self._changes.renew_sessions(group, now, outbox)
        return group

    def only_classic(self) -> list[Group]:
        """The groups with members of which none speaks KIP-848."""
        return [self._groups[group_id] for group_id in sorted(self._state.only_classic)]

    def give_up(self, group: Group, outbox: Outbox) -> None:
        """It belongs to others from now on."""
        self._changes.delete(group, outbox)

    # -- topics --------------------------------------------------------------------------------

    def on_topics(self, changed: Iterable[str], now: Now, outbox: Outbox) -> None:
        """The first time all there are have changed, and others may be gone since the log was written."""
        names = set(changed)
        first, self._topics_known = not self._topics_known, True
        regexes: dict[str, set[str]] = {}
        for group in self._groups.values():
            if not group.members:
                continue
            matches_changed = self._match_again(group, names, regexes, now, outbox)
            concerned = first or matches_changed or not group.subscribed.isdisjoint(names)
            if concerned and metadata_hash(group.subscribed, self._topics.by_name) != group.metadata_hash:
                self._changes.raise_epoch(group, outbox)

    def _match_again(
        self, group: Group, names: set[str], regexes: dict[str, set[str]], now: Now, outbox: Outbox
    ) -> bool:
        """regexes: which of the names match, as far as was found out. Returns whether other topics match now."""
        changed = False
        for pattern, topics in list(group.regexes.items()):
            if pattern not in regexes:
                try:
                    regexes[pattern] = TopicRegex(pattern).matching(names & self._topics.by_name.keys())
                except InvalidRegex:  # too many new names for its steps: they do not match
                    regexes[pattern] = set()
            matching = (topics & self._topics.by_name.keys()) - names | regexes[pattern]
            if matching != topics:
                self._changes.write_regex(group.group_id, pattern, matching, now, outbox)
                changed = True
        return changed

    # -- the log -------------------------------------------------------------------------------

    def replay(self, key: Any, value: Any) -> None:
        self._state.replay(key, value)

    def on_loaded(self, now: Now, outbox: Outbox) -> None:
        self.renew_sessions(now, outbox)

    def renew_sessions(self, now: Now, outbox: Outbox) -> None:
        for group in self._groups.values():
            self._changes.renew_sessions(group, now, outbox)

    # -- for the offsets of a group that is here -------------------------------------------------

    def check_commit(self, commit: Commit, now: Now, outbox: Outbox) -> int:
        group = self._groups[commit.group_id]
        if commit.generation < 0 and not group.members:
            return 0
        member = group.members.get(commit.member_id)
        if member is not None and member.classic is None and commit.version < EPOCHS_SINCE:
            return ErrorCode.UNSUPPORTED_VERSION
        return _check_member(group, commit.member_id, commit.generation)

    def check_stale_commit(self, commit: Commit, topic_id: bytes, partition: int) -> int:
        group = self._groups[commit.group_id]
        position = group.members[commit.member_id].position
        for owned in (position.assigned, position.revoking):
            since = owned.get(topic_id, {}).get(partition)
            if since is not None and since <= commit.generation <= position.epoch:
                return 0
        return _check_member(group, commit.member_id, commit.generation)

    def check_fetch(self, group_id: str, member_id: str | None, member_epoch: int) -> int:
        if member_id is None and member_epoch < 0:
            return 0
        return _check_member(self._groups[group_id], member_id or "", member_epoch)

    def check_offset_delete(self, group_id: str) -> int:
        return 0

    def is_subscribed(self, group_id: str, topic: str) -> bool:
        return topic in self._groups[group_id].subscribed

    def expiry_base_ms(self, group_id: str, committed_ms: int) -> int | None:
        return committed_ms

    # -- administration --------------------------------------------------------------------------

    def list(self) -> Iterable[Listed]:
        return [Listed(group.group_id, PROTOCOL_TYPE, group.state, self.kind) for group in self._groups.values()]

    def describe(self, group_id: str, version: int) -> DescribedGroup:
        names = {topic.topic_id: name for name, topic in self._topics.by_name.items()}
        return self._groups[group_id].describe(names)

    def delete(self, group_id: str, outbox: Outbox) -> int:
        if self._groups[group_id].members:
            return ErrorCode.NON_EMPTY_GROUP
        self._changes.delete(self._groups[group_id], outbox)
        return 0


def _check_member(group: Group, member_id: str, epoch: int) -> int:
    member = group.members.get(member_id)
    if member is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    if epoch == member.position.epoch:
        return 0
    return ErrorCode.STALE_MEMBER_EPOCH if member.classic is None else ErrorCode.ILLEGAL_GENERATION


def _assignment(assigned: Owned) -> Assignment:
    return Assignment([TopicPartitions(topic, sorted(has)) for topic, has in assigned.items()])
