"""Groups that move between the protocols while they run: a classic group becomes a KIP-848 group, and back.

Owns: `Migration`; `records_of` and `classic_of`, what a group is in the other's words. Both are pure.
A classic group becomes a consumer group with the first KIP-848 member that joins; its members live on in it, with what
they have. A consumer group becomes a classic group again when its last KIP-848 member is gone and others are left.
`group.consumer.migration.policy` says which of the two are allowed; if neither is, no classic member joins KIP-848 members. Offsets belong to the group's id: they do not move.
Invariant: a conversion is in one batch of the log, so that a group is of one kind at any time, also after a crash.
Source: Kafka GroupMetadataManager (validateOnlineUpgrade, convertToConsumerGroup, validateOnlineDowngrade*,
convertToClassicGroup), ConsumerGroup.fromClassicGroup, ClassicGroup.fromConsumerGroup, ConsumerGroupMigrationPolicy.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import structlog

from zafka.actors.actor import Now
from zafka.actors.groups import consumer_records as records
from zafka.actors.groups.calls import Call, Outbox, Settings, Topic, Topics
from zafka.actors.groups.classic import ClassicGroups
from zafka.actors.groups.classic_answers import refuse_join
from zafka.actors.groups.classic_group import CONSUMER, ClassicGroup, Member as ClassicMember, State
from zafka.actors.groups.consumer import ConsumerGroups, Conversion
from zafka.actors.groups.consumer_group import Group, Refused, metadata_hash
from zafka.actors.groups.consumer_member import JOIN_EPOCH, Member, Owned, Position, position_value, target_value
from zafka.actors.groups.consumer_state import ConsumerState
from zafka.actors.groups.embedded import MalformedEmbedded, read_assignment, read_subscription, write_assignment
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
)

POLICY = "group.consumer.migration.policy"
POLICIES = {"disabled": (False, False), "upgrade": (True, False), "downgrade": (False, True), "bidirectional": (True, True)}
"""Whether a group may become a consumer group, and whether a classic one. The last is Kafka's default."""
OWN_ASSIGNORS = ("range", "roundrobin", "sticky", "cooperative-sticky")
"""Nothing is lost with their user data. librdkafka's leaders send a member's own back to it, and Kafka then refuses."""

logger = structlog.get_logger(__name__)


class Migration:
    """topics: of the cluster."""

    def __init__(self, classic: ClassicGroups, consumer: ConsumerGroups, topics: Topics, settings: Settings) -> None:
        self._classic = classic
        self._consumer = consumer
        self._topics = topics
        self._may_upgrade, self._may_downgrade = POLICIES[settings.get(POLICY, "bidirectional").lower()]
        self._classic_size_max = int(settings.get("group.max.size", str(2**31 - 1)))
        self._consumer_size_max = int(settings.get("group.consumer.max.size", str(2**31 - 1)))

    def __repr__(self) -> str:
        return f"<Migration upgrade={self._may_upgrade} downgrade={self._may_downgrade}>"

    def handle(self, call: Call, request: Any, now: Now, outbox: Outbox) -> bool:
        """Whether this was a member's request to a group of the other kind, and is answered."""
        api = call.api_key
        if api in self._classic.apis and request.group_id in self._consumer:
            if api == ApiKey.JOIN_GROUP and self._consumer.delete(request.group_id, outbox) == 0:
                return False  # nobody is in it: it begins anew, as a classic group
            if api == ApiKey.JOIN_GROUP and not self._may_upgrade and not self._may_downgrade:
                refuse_join(call, ErrorCode.INCONSISTENT_GROUP_PROTOCOL, "", outbox)
                return True
            self._consumer.handle_classic(call, request, now, outbox)
            return True
        if api == ApiKey.CONSUMER_GROUP_HEARTBEAT and request.group_id in self._classic:
            if request.member_epoch == JOIN_EPOCH and self._classic.delete(request.group_id, outbox) == 0:
                return False
            self._upgrade(call, request, now, outbox)
            return True
        return False

    def _upgrade(self, call: Call, request: ConsumerGroupHeartbeatRequest, now: Now, outbox: Outbox) -> None:
        """A KIP-848 member joins a classic group that has members: it is answered by the consumer group, or refused."""
        try:
            if request.member_epoch != JOIN_EPOCH:
                raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, f"Group {request.group_id} is not a consumer group.")
            conversion = self._conversion(self._classic[request.group_id], now)
        except Refused as refused:
            outbox.answer(call, ConsumerGroupHeartbeatResponse(
                error_code=refused.error, error_message=refused.message))
            return
        self._consumer.convert(call, request, conversion, now, outbox)

    def _conversion(self, group: ClassicGroup, now: Now) -> Conversion:
        """Raises Refused, with Kafka's words."""
        refusal = ""
        if not self._may_upgrade:
            refusal = "online upgrade is disabled."
        elif group.protocol_type != CONSUMER:
            refusal = "the group does not use the consumer embedded protocol."
        elif len(group.members) > self._consumer_size_max:
            refusal = "the group size exceeds the consumer group maximum size."
        else:
            try:
                found = records_of(group, self._topics.by_name, now.wall_ms)
            except MalformedEmbedded:
                refusal = "the embedded consumer protocol is malformed."
            except CustomAssignor:
                refusal = (
                    "an unsupported custom assignor is in use. Please refer to the documentation or switch to a default "
                    "assignor before re-attempting the upgrade.")
        if refusal:
            logger.info("group stays classic", group=group.group_id, reason=refusal)
            raise Refused(
                ErrorCode.GROUP_ID_NOT_FOUND,
                f"Cannot upgrade classic group {group.group_id} to consumer group because {refusal}")
        look = ConsumerState()
        for key, value in found:
            look.replay(key, value)
        return Conversion(look.groups[group.group_id], found, partial(self._classic.give_up, group.group_id))

    def downgrade(self, now: Now, outbox: Outbox) -> None:
        """Have every group be classic again that no KIP-848 member is in any more."""
        if not self._may_downgrade:
            return
        for group in self._consumer.only_classic():
            if len(group.members) <= self._classic_size_max:
                found = classic_of(group, self._topics.by_name, now.wall_ms)
                logger.info("group becomes classic", group=group.group_id, generation=found.generation)
                self._consumer.give_up(group, outbox)
                self._classic.take_over(found, now, outbox)


class CustomAssignor(Exception):
    """Its assignments say what a coordinator cannot say in its stead."""


def records_of(group: ClassicGroup, topics: Mapping[str, Topic], wall_ms: int) -> list[tuple[Any, Any]]:
    """A classic group that has members, as a consumer group: each has what it was assigned, and is to have it.

    Raises MalformedEmbedded or CustomAssignor.
    """
    group_id, epoch = group.group_id, group.generation
    taken: set[tuple[bytes, int]] = set()
    members: list[tuple[Any, Any]] = []
    targets: list[tuple[Any, Any]] = []
    positions: list[tuple[Any, Any]] = []
    subscribed: set[str] = set()
    for member in group.members.values():
        metadata = _metadata_of(member, group.protocol)
        subscribed.update(metadata.subscribed_topic_names)
        assigned = _assigned_to(member, topics, epoch, group.protocol)
        for topic, has in assigned.items():
            if taken & {(topic, partition) for partition in has}:
                raise CustomAssignor("a partition has two owners")
            taken.update((topic, partition) for partition in has)
        key = group_id, member.member_id
        target = {topic: frozenset(has) for topic, has in assigned.items()}
        members.append((records.ConsumerGroupMemberMetadataKey(*key), metadata))
        targets.append((records.ConsumerGroupTargetAssignmentMemberKey(*key), target_value(target)))
        positions.append((
            records.ConsumerGroupCurrentMemberAssignmentKey(*key),
            position_value(Position(epoch, epoch, assigned=assigned))))
    return [
        *members,
        (records.ConsumerGroupMetadataKey(group_id),
         records.ConsumerGroupMetadataValue(epoch, metadata_hash(subscribed, topics))),
        *targets,
        (records.ConsumerGroupTargetAssignmentMetadataKey(group_id),
         records.ConsumerGroupTargetAssignmentMetadataValue(epoch, wall_ms)),
        *positions]


def _metadata_of(member: ClassicMember, protocol: str | None) -> records.ConsumerGroupMemberMetadataValue:
    # One that has just come need not know the protocol of the generation before.
    subscription = read_subscription(member.metadata(protocol) or member.protocols[0][1])
    return records.ConsumerGroupMemberMetadataValue(
        instance_id=member.instance_id, rack_id=subscription.rack_id, client_id=member.client_id,
        client_host=member.client_host, subscribed_topic_names=sorted(set(subscription.topics)),
        rebalance_timeout_ms=member.rebalance_timeout_ms,
        classic_member_metadata=records.ClassicMemberMetadata(
            member.session_timeout_ms, [records.ClassicProtocol(*each) for each in member.protocols]))


def _assigned_to(member: ClassicMember, topics: Mapping[str, Topic], epoch: int, protocol: str | None) -> Owned:
    """Partitions of topics that are gone are nobody's."""
    partitions, user_data = read_assignment(member.assignment)
    if user_data and protocol not in OWN_ASSIGNORS:
        raise CustomAssignor("an assignment has user data")
    return {
        topics[name].topic_id: dict.fromkeys(has, epoch) for name, has in partitions.items() if name in topics and has}


def classic_of(group: Group, topics: Mapping[str, Topic], wall_ms: int) -> ClassicGroup:
    """A consumer group whose members all speak the classic protocol, as a classic group.

    Its generation is the epoch at which they have been told what they have. If all of them have all that they are to
    have, nothing is to be done; else it has no leader, for it needs one who assigns anew.
    """
    names = {topic.topic_id: name for name, topic in topics.items()}
    found = ClassicGroup(group.group_id)
    found.generation = group.assignment_epoch
    found.state = found.previous_state = State.STABLE
    found.state_ms = wall_ms
    for member in group.members.values():
        found.add(_classic_member(member, names), CONSUMER)
    found.protocol = found.select_protocol()
    found.subscribed = found.subscribed_topics()
    if group.state != "Stable":
        found.leader = None
    return found


def _classic_member(member: Member, names: Mapping[bytes, str]) -> ClassicMember:
    metadata, classic = member.metadata, member.classic
    assert classic is not None
    has: dict[str, set[int]] = {}
    for owned in (member.position.assigned, member.position.revoking):
        for topic in owned:
            if topic in names:
                has.setdefault(names[topic], set()).update(owned[topic])
    protocols = [(each.name, each.metadata) for each in classic.supported_protocols]
    return ClassicMember(
        member.member_id, metadata.instance_id, metadata.client_id, metadata.client_host, metadata.rebalance_timeout_ms,
        classic.session_timeout_ms, protocols, write_assignment(read_subscription(protocols[0][1]).version, has))
