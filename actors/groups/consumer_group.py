"""One KIP-848 group: its members, what they are to own, and what they do.

Owns: `Group`, which is the last value of each of its records (`consumer_records.py`), and nothing else but deadlines;
what follows from it: who owns a partition, what is read, the group's state; and the errors that a member is told.
Invariant: `put_*` are the only ways to change it, in the life of a group as in replay, so both lead to the same.
Source: KIP-848; Kafka ConsumerGroup, ModernGroup.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b

from zafka.actors.groups.assignors import ASSIGNORS, Assignment
from zafka.actors.groups.calls import Topic
from zafka.actors.groups.consumer_member import NOTHING, Member, MemberState, Owned, Position
from zafka.actors.groups.consumer_records import ConsumerGroupMemberMetadataValue
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import consumer_group_describe as described

CLASSIC, CONSUMER = 0, 1  # describe's words for what a member speaks


class Refused(Exception):
    """What a member asked for is not done: Kafka's error and its text."""

    def __init__(self, error: int, message: str | None = None) -> None:
        super().__init__(error, message)
        self.error = error
        self.message = message


class Group:
    """epoch: goes up with what members read, and how much there is to read; from 1, which no record says, as in Kafka.
    metadata_hash: of what there is to read, at that time.

    members: in the order in which they came. targets: what each is to own, as of `assignment_epoch`, `assigned_ms`.
    regexes: by pattern, the topics that match; those of members' subscriptions. classic_members: how many members speak
        the classic protocol.
    """

    def __init__(self, group_id: str) -> None:
        self.group_id = group_id
        self.epoch = 1
        self.metadata_hash = 0
        self.members: dict[str, Member] = {}
        self.targets: dict[str, Assignment] = {}
        self.assignment_epoch = 0
        self.assigned_ms = 0
        self.regexes: dict[str, frozenset[str]] = {}
        self.classic_members = 0
        self._by_instance: dict[str, str] = {}
        self._owners: dict[bytes, dict[int, str]] = {}
        self._subscribed: frozenset[str] | None = None  # None: to be found out

    def __repr__(self) -> str:
        return f"<Group {self.group_id} {self.state} epoch={self.epoch} members={len(self.members)}>"

    @property
    def state(self) -> str:
        if not self.members:
            return "Empty"
        if self.epoch > self.assignment_epoch:
            return "Assigning"
        stable = all(member.position.has_reached(self.assignment_epoch) for member in self.members.values())
        return "Stable" if stable else "Reconciling"

    # -- changes: the last value of each record, None for a tombstone --------------------------

    def put_metadata(self, member_id: str, metadata: ConsumerGroupMemberMetadataValue | None) -> None:
        self._subscribed = None
        member = self.members.get(member_id)
        instance_id = None if member is None else member.metadata.instance_id
        if instance_id is not None and self._by_instance.get(instance_id) == member_id:
            del self._by_instance[instance_id]
        self.classic_members -= member is not None and member.classic is not None
        self.classic_members += metadata is not None and metadata.classic_member_metadata is not None
        if metadata is None:
            self.put_position(member_id, None)
            self.members.pop(member_id, None)
            return
        self._member(member_id).metadata = metadata
        if metadata.instance_id is not None:
            self._by_instance[metadata.instance_id] = member_id

    def put_position(self, member_id: str, position: Position | None) -> None:
        if position is None and member_id not in self.members:
            return
        member = self._member(member_id)
        self._disown(member_id, member.position.assigned)
        self._disown(member_id, member.position.revoking)
        member.position = position or Position()
        for owned in (member.position.assigned, member.position.revoking):
            for topic, has in owned.items():
                self._owners.setdefault(topic, {}).update(dict.fromkeys(has, member_id))

    def put_target(self, member_id: str, target: Assignment | None) -> None:
        if target is None:
            self.targets.pop(member_id, None)
        else:
            self.targets[member_id] = target

    def put_regex(self, pattern: str, topics: Iterable[str] | None) -> None:
        self._subscribed = None
        if topics is None:
            self.regexes.pop(pattern, None)
        else:
            self.regexes[pattern] = frozenset(topics)

    def _member(self, member_id: str) -> Member:
        """In a log that was compacted a member's records come in any order."""
        member = self.members.get(member_id)
        if member is None:
            member = self.members[member_id] = Member(member_id)
        return member

    def _disown(self, member_id: str, owned: Owned) -> None:
        for topic, has in owned.items():
            owners = self._owners.get(topic, {})
            for partition in has:
                if owners.get(partition) == member_id:
                    del owners[partition]
            if not owners:
                self._owners.pop(topic, None)

    # -- what follows --------------------------------------------------------------------------

    def is_owned(self, topic: bytes, partition: int) -> bool:
        return partition in self._owners.get(topic, NOTHING)

    @property
    def is_classic(self) -> bool:
        """Whether there are members, and none of them speaks KIP-848."""
        return 0 < self.classic_members == len(self.members)

    def may_go_on(self, member: Member) -> bool:
        """Whether all that the member waits for is free."""
        target, has = self.targets.get(member.member_id, {}), member.position.assigned
        return not any(
            self.is_owned(topic, partition)
            for topic in target for partition in target[topic] if partition not in has.get(topic, NOTHING))

    def supports(self, protocols: Collection[str]) -> bool:
        """Whether all members of the classic protocol know one of these assignors."""
        known = Counter(
            name for member in self.members.values() if member.classic is not None
            for name in {each.name for each in member.classic.supported_protocols})
        return any(known[name] == self.classic_members for name in protocols)

    @property
    def subscribed(self) -> frozenset[str]:
        """The names of all topics that a member reads, whether there are such topics or not."""
        if self._subscribed is None:
            self._subscribed = frozenset().union(*map(self.topics_of, self.members.values()))
        return self._subscribed

    def topics_of(self, member: Member) -> Collection[str]:
        names, pattern = member.metadata.subscribed_topic_names, member.metadata.subscribed_topic_regex
        return {*names, *self.regexes.get(pattern, ())} if pattern else names

    def reads_regex(self, pattern: str) -> bool:
        return any(member.metadata.subscribed_topic_regex == pattern for member in self.members.values())

    def assignor(self) -> str:
        """The one that most members wish for; the first there is, if nobody does."""
        wishes = Counter(member.metadata.server_assignor for member in self.members.values())
        return max(ASSIGNORS, key=wishes.__getitem__)

    # -- members, as they may be spoken with ---------------------------------------------------

    def static_member(self, instance_id: str) -> Member | None:
        member_id = self._by_instance.get(instance_id)
        return None if member_id is None else self.members[member_id]

    def find(self, member_id: str, instance_id: str | None) -> Member:
        """Raises Refused if this is nobody's, or an instance id that another member has."""
        if instance_id is None:
            if member_id not in self.members:
                raise Refused(
                    ErrorCode.UNKNOWN_MEMBER_ID, f"Member {member_id} is not a member of group {self.group_id}.")
            return self.members[member_id]
        member = self.static_member(instance_id)
        if member is None:
            raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"Instance id {instance_id} is unknown.")
        if member.member_id != member_id:
            raise Refused(
                ErrorCode.FENCED_INSTANCE_ID,
                f"Static member {member_id} with instance id {instance_id} was fenced by member {member.member_id}.")
        return member

    def describe(self, names: Mapping[bytes, str]) -> described.DescribedGroup:
        """names: of topics, by id; one that is gone is left out."""
        members = [
            _described(member, self.targets.get(member.member_id, {}), names) for member in self.members.values()]
        return described.DescribedGroup(
            group_id=self.group_id, group_state=self.state, group_epoch=self.epoch,
            assignment_epoch=self.assignment_epoch, assignor_name=self.assignor(), members=members)


def check_epoch(member: Member, epoch: int, owned: Mapping[bytes, Collection[int]] | None) -> None:
    """Raises Refused if the member has fallen behind, or is ahead. One epoch behind is well if that answer was lost."""
    position = member.position
    abandon = "The member must abandon all its partitions and rejoin."
    if epoch > position.epoch:
        raise Refused(
            ErrorCode.FENCED_MEMBER_EPOCH,
            f"The consumer group member has a greater member epoch ({epoch}) than the one known by the group coordinator "
            f"({position.epoch}). {abandon}")
    lost = epoch == position.previous_epoch and owned is not None and all(
        partition in position.assigned.get(topic, NOTHING) for topic, has in owned.items() for partition in has)
    if epoch < position.epoch and not lost:
        raise Refused(
            ErrorCode.FENCED_MEMBER_EPOCH,
            f"The consumer group member has a smaller member epoch ({epoch}) than the one known by the group coordinator "
            f"({position.epoch}). {abandon}")
    if position.state is MemberState.UNKNOWN and (owned is None or owned):
        raise Refused(ErrorCode.FENCED_MEMBER_EPOCH, f"The consumer group member is in a unknown state. {abandon}")


def metadata_hash(names: Iterable[str], topics: Mapping[str, Topic]) -> int:
    """Of all that a target assignment depends on in the cluster; 0 if there are no such topics.

    Kafka has another hash (xxh3): a log that moves between the two costs each group one assignment that changes nothing.
    """
    present = sorted(name for name in names if name in topics)
    digest = blake2b(digest_size=8)
    for name in present:
        digest.update(f"{name} {topics[name].topic_id.hex()} {topics[name].partitions}\n".encode())
    return int.from_bytes(digest.digest(), "big", signed=True) if present else 0


def _described(member: Member, target: Assignment, names: Mapping[bytes, str]) -> described.Member:
    metadata, position = member.metadata, member.position
    has = {topic: {*position.assigned.get(topic, ()), *position.revoking.get(topic, ())}
           for topic in (*position.assigned, *position.revoking)}
    return described.Member(
        member.member_id, metadata.instance_id, metadata.rack_id, position.epoch, metadata.client_id,
        metadata.client_host, metadata.subscribed_topic_names, metadata.subscribed_topic_regex or "",
        _assignment(has, names), _assignment(target, names),
        CONSUMER if member.classic is None else CLASSIC)


def _assignment(partitions: Mapping[bytes, Collection[int]], names: Mapping[bytes, str]) -> described.Assignment:
    return described.Assignment([
        described.TopicPartitions(topic, names[topic], sorted(has)) for topic, has in partitions.items() if topic in names])
