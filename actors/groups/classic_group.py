"""One group of the classic protocol: its members, who leads them, what they agree on, in which state they are.

Owns: `ClassicGroup` and `Member`: data, and the questions that follow from it alone. What happens to a group, and when, is
decided by `classic.py` and `classic_rebalance.py`.
Invariants: the leader is a member, or there is none (yet, if the group was a consumer group); a static member's instance
id names one member; the protocol of a generation is one that all of its members know.
Source: Kafka ClassicGroup, ClassicGroupMember, ClassicGroupState; ConsumerProtocol (what a subscription looks like).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from zafka.actors.groups.calls import Call, Commit
from zafka.actors.groups.records import GroupMetadataValue, MemberMetadata
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.describe_groups import DescribedGroup, DescribedGroupMember
from zafka.transport.kafka.messages.join_group import JoinGroupResponseMember

CONSUMER = "consumer"
UNKNOWN = ""  # the id of who has none yet
GENERATION_MAX = 2**31 - 1


class State(Enum):
    """By Kafka's words. A group that is deleted ("Dead") is no group any more."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"  # members are to join
    COMPLETING = "CompletingRebalance"  # all have joined, and wait for what the leader assigns
    STABLE = "Stable"


@dataclass(slots=True)
class Member:
    """protocols: name and metadata of each, the one that it likes best first.

    join, sync: its request that waits for an answer. is_new: it has joined no generation yet."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    protocols: list[tuple[str, bytes]]
    assignment: bytes = b""
    join: Call | None = None
    sync: Call | None = None
    is_new: bool = False

    def metadata(self, protocol: str | None) -> bytes:
        return next((metadata for name, metadata in self.protocols if name == protocol), b"")

    def vote(self, candidates: set[str]) -> str:
        return next(name for name, _ in self.protocols if name in candidates)

    @property
    def must_heartbeat(self) -> bool:
        """Who waits for an answer cannot; a new member that waits for too long is taken for gone all the same."""
        return self.is_new or (self.join is None and self.sync is None)


class ClassicGroup:
    """pending: ids that were given to members who have not come back with them. pending_sync: who has to sync yet.

    state_ms: since when it is in its state, -1 if that is not known. subscribed: the topics of all members, None if that
        cannot be told. new_member_added: since the first rebalance began, which waits a little longer then."""

    def __init__(self, group_id: str) -> None:
        self.group_id = group_id
        self.state = State.EMPTY
        self.previous_state = State.EMPTY
        self.state_ms = -1
        self.generation = 0
        self.protocol_type: str | None = None
        self.protocol: str | None = None
        self.leader: str | None = None
        self.members: dict[str, Member] = {}
        self.static: dict[str, str] = {}  # instance id -> member id
        self.pending: set[str] = set()
        self.pending_sync: set[str] = set()
        self.subscribed: set[str] | None = None
        self.new_member_added = False

    def __repr__(self) -> str:
        return f"<ClassicGroup {self.group_id} {self.state.value} generation={self.generation} members={len(self.members)}>"

    # -- members -------------------------------------------------------------------------------

    def add(self, member: Member, protocol_type: str) -> None:
        if not self.members:
            self.protocol_type = protocol_type
        self.members[member.member_id] = member
        if member.instance_id is not None:
            self.static[member.instance_id] = member.member_id
        self.leader = self.leader or member.member_id
        self.pending.discard(member.member_id)

    def remove(self, member_id: str) -> None:
        member = self.members.pop(member_id, None)
        if member is not None and member.instance_id is not None and self.static.get(member.instance_id) == member_id:
            del self.static[member.instance_id]
        if self.leader == member_id:
            self.leader = next(iter(self.members), None)
        self.pending.discard(member_id)
        self.pending_sync.discard(member_id)

    def rename_static(self, instance_id: str, new_id: str) -> Member:
        """A static member came anew: it goes on under another id, with all that it had."""
        old_id = self.static[instance_id]
        member = self.members.pop(old_id)
        member.member_id = new_id
        member.is_new = False
        self.members[new_id] = member
        self.static[instance_id] = new_id
        if self.leader == old_id:
            self.leader = new_id
        self.pending_sync.discard(old_id)
        return member

    def check_member(self, member_id: str, instance_id: str | None) -> int:
        """Kafka's error for who is no member, or another one took its place; 0 for a member."""
        if instance_id is not None:
            known = self.static.get(instance_id)
            if known is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            if known != member_id:
                return ErrorCode.FENCED_INSTANCE_ID
        return 0 if member_id in self.members else ErrorCode.UNKNOWN_MEMBER_ID

    def has_room(self, member_id: str, size_max: int) -> bool:
        """Whether this one may join: one more, or a member."""
        member = self.members.get(member_id)
        match self.state:
            case State.EMPTY:
                return True
            case State.PREPARING:
                # Those count who have joined, so that the last of too many are left out.
                return (member is not None and member.join is not None) or self.joined < size_max
        return member is not None or len(self.members) < size_max

    @property
    def joined(self) -> int:
        return sum(member.join is not None for member in self.members.values())

    @property
    def all_joined(self) -> bool:
        return not self.pending and self.joined == len(self.members)

    @property
    def rebalance_timeout_ms(self) -> int:
        return max((member.rebalance_timeout_ms for member in self.members.values()), default=0)

    def elect_leader(self) -> bool:
        """Have a leader who joined; False if nobody did."""
        if self.leader is None:
            return False
        if self.members[self.leader].join is None:
            joined = next((each.member_id for each in self.members.values() if each.join is not None), None)
            if joined is None:
                return False
            self.leader = joined
        return True

    # -- protocols -----------------------------------------------------------------------------

    def supports(self, protocol_type: str, protocols: Iterable[str]) -> bool:
        """Whether a member with these protocols could agree with those who are here."""
        if self.state is State.EMPTY:
            return bool(protocol_type) and any(True for _ in protocols)
        known_by_all = self._candidates()
        return protocol_type == self.protocol_type and any(
            not self.members or name in known_by_all for name in protocols)

    def select_protocol(self) -> str:
        """The one with most votes; each member votes for the first of its own that all know."""
        candidates = self._candidates()
        votes = Counter(member.vote(candidates) for member in self.members.values())
        return max(votes, key=lambda name: votes[name])

    def _candidates(self) -> set[str]:
        known = Counter(name for member in self.members.values() for name in {name for name, _ in member.protocols})
        return {name for name, count in known.items() if count == len(self.members)}

    def subscribed_topics(self) -> set[str] | None:
        if self.protocol_type != CONSUMER:
            return None
        if self.members and self.protocol is None:
            return None
        try:
            return {
                topic for member in self.members.values() for topic in topics_of(member.metadata(self.protocol))}
        except (struct.error, UnicodeDecodeError, ValueError):
            return None  # a client of its own kind

    def is_subscribed(self, topic: str) -> bool:
        if self.subscribed is None:
            return self.protocol_type == CONSUMER  # who knows
        return topic in self.subscribed

    # -- generations ---------------------------------------------------------------------------

    def go_to(self, state: State, now_ms: int) -> None:
        self.previous_state, self.state = self.state, state
        self.state_ms = now_ms

    def next_generation(self, now_ms: int) -> None:
        """Of those who are members now."""
        self.generation = 0 if self.generation >= GENERATION_MAX else self.generation + 1
        self.protocol = self.select_protocol() if self.members else None
        self.subscribed = self.subscribed_topics()
        self.pending_sync.clear()
        self.go_to(State.COMPLETING if self.members else State.EMPTY, now_ms)

    def for_leader(self) -> list[JoinGroupResponseMember]:
        """What the leader assigns by."""
        return [
            JoinGroupResponseMember(member.member_id, member.instance_id, member.metadata(self.protocol))
            for member in self.members.values()]

    # -- offsets -------------------------------------------------------------------------------

    def check_commit(self, commit: Commit) -> int:
        """Kafka's error for who may not commit, or not now."""
        if commit.generation < 0 and self.state is State.EMPTY:
            return 0  # by hand
        if commit.generation < 0 and not commit.member_id and commit.instance_id is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        error = self.check_member(commit.member_id, commit.instance_id)
        if error:
            return error
        if commit.generation != self.generation:
            return ErrorCode.ILLEGAL_GENERATION
        return ErrorCode.REBALANCE_IN_PROGRESS if self.state is State.COMPLETING else 0

    def check_offset_delete(self) -> int:
        others = self.state is not State.EMPTY and self.protocol_type != CONSUMER
        return ErrorCode.NON_EMPTY_GROUP if others else 0

    def expiry_base_ms(self, committed_ms: int) -> int | None:
        """From when on the retention counts of an offset that was committed then; None while it does not."""
        if self.protocol_type is None:
            return committed_ms
        if self.state is State.EMPTY:
            return self.state_ms if self.state_ms >= 0 else committed_ms
        reads = self.protocol_type == CONSUMER and self.subscribed is not None
        return committed_ms if reads and self.state is State.STABLE else None

    # -- records, description ------------------------------------------------------------------

    def describe(self) -> DescribedGroup:
        stable = self.state is State.STABLE
        members = [
            DescribedGroupMember(
                each.member_id, each.instance_id, each.client_id, each.client_host,
                each.metadata(self.protocol) if stable else b"", each.assignment)
            for each in self.members.values()]
        return DescribedGroup(
            0, None, self.group_id, self.state.value, self.protocol_type or "", (self.protocol or "") if stable else "",
            members)

    def value(self) -> GroupMetadataValue:
        """As it is to be in the log."""
        members = [
            MemberMetadata(
                each.member_id, each.instance_id, each.client_id, each.client_host, each.rebalance_timeout_ms,
                each.session_timeout_ms, each.metadata(self.protocol), each.assignment)
            for each in self.members.values()]
        return GroupMetadataValue(
            self.protocol_type or "", self.generation, self.protocol, self.leader, self.state_ms, members)


def group_of(group_id: str, value: GroupMetadataValue) -> ClassicGroup:
    """A group as the log has it. Its members know one protocol, until they join again."""
    group = ClassicGroup(group_id)
    group.state = group.previous_state = State.STABLE if value.members else State.EMPTY
    group.state_ms = value.current_state_timestamp
    group.generation = value.generation
    group.protocol_type = value.protocol_type or None
    group.protocol = value.protocol
    for each in value.members:
        timeout_ms = each.session_timeout if each.rebalance_timeout == -1 else each.rebalance_timeout
        group.add(
            Member(each.member_id, each.group_instance_id, each.client_id, each.client_host, timeout_ms,
                   each.session_timeout, [(value.protocol or "", each.subscription)], each.assignment),
            value.protocol_type)
    if value.leader is None or value.leader in group.members:
        group.leader = value.leader
    group.subscribed = group.subscribed_topics()
    return group


def topics_of(subscription: bytes) -> list[str]:
    """The topics of a consumer's subscription: version int16, topics, and more that does not matter here.

    Raises struct.error, ValueError or UnicodeDecodeError for what is none."""
    version, count = struct.unpack_from(">hi", subscription)
    if version < 0 or not 0 <= count <= len(subscription):
        raise ValueError(f"a subscription of version {version} to {count} topics")
    position, topics = 6, []
    for _ in range(count):
        (length,) = struct.unpack_from(">h", subscription, position)
        position += 2
        name = subscription[position:position + length]
        if length < 0 or len(name) < length:
            raise ValueError("a subscription ends within a topic")
        topics.append(name.decode())
        position += length
    return topics
