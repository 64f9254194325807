"""What a heartbeat of a KIP-848 member says: whether it says it well, and what it says of the member.

Owns: the checks that Kafka makes before it looks at a group, with its texts.
Source: Kafka GroupCoordinatorService.throwIfConsumerGroupHeartbeatRequestIsInvalid, ConsumerGroupMember.Builder.
"""

from __future__ import annotations

from collections.abc import Mapping

from zafka.actors.groups.assignors import ASSIGNORS
from zafka.actors.groups.calls import Call
from zafka.actors.groups.consumer_group import Refused
from zafka.actors.groups.consumer_member import JOIN_EPOCH, LEAVE_EPOCH, STATIC_LEAVE_EPOCH
from zafka.actors.groups.consumer_records import ConsumerGroupMemberMetadataValue
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest

OWN_MEMBER_ID_SINCE = 1  # clients make their member ids themselves


def check_heartbeat(request: ConsumerGroupHeartbeatRequest, version: int) -> None:
    """Raises Refused."""
    epoch = request.member_epoch
    if (version >= OWN_MEMBER_ID_SINCE or epoch > JOIN_EPOCH or epoch == LEAVE_EPOCH) and not request.member_id.strip():
        raise _invalid("MemberId can't be empty.")
    if not request.group_id.strip():
        raise _invalid("GroupId can't be empty.")
    if request.instance_id is not None and not request.instance_id.strip():
        raise _invalid("InstanceId can't be empty.")
    if request.rack_id is not None and not request.rack_id.strip():
        raise _invalid("RackId can't be empty.")
    if epoch == JOIN_EPOCH:
        _check_join(request)
    elif epoch == STATIC_LEAVE_EPOCH and request.instance_id is None:
        raise _invalid("InstanceId can't be null.")
    elif epoch < STATIC_LEAVE_EPOCH:
        raise _invalid("MemberEpoch is invalid.")
    wished = request.server_assignor
    if wished is not None and wished not in ASSIGNORS:
        raise Refused(
            ErrorCode.UNSUPPORTED_ASSIGNOR,
            f"ServerAssignor {wished} is not supported. Supported assignors: {', '.join(ASSIGNORS)}.")


def _check_join(request: ConsumerGroupHeartbeatRequest) -> None:
    if request.rebalance_timeout_ms == -1:
        raise _invalid("RebalanceTimeoutMs must be provided in first request.")
    if request.topic_partitions is None or request.topic_partitions:
        raise _invalid("TopicPartitions must be empty when (re-)joining.")
    if request.subscribed_topic_names is None and request.subscribed_topic_regex is None:
        raise _invalid("Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.")


def _invalid(message: str) -> Refused:
    return Refused(ErrorCode.INVALID_REQUEST, message)


def owned_of(request: ConsumerGroupHeartbeatRequest) -> Mapping[bytes, set[int]] | None:
    """The partitions that the member says it has; None if it does not say."""
    if request.topic_partitions is None:
        return None
    owned: dict[bytes, set[int]] = {}
    for topic in request.topic_partitions:
        owned.setdefault(topic.topic_id, set()).update(topic.partitions)
    return owned


def described_by(
    known: ConsumerGroupMemberMetadataValue, request: ConsumerGroupHeartbeatRequest, call: Call
) -> ConsumerGroupMemberMetadataValue:
    """What is known of the member with what it says now; it is silent on what has not changed."""
    names = request.subscribed_topic_names
    return ConsumerGroupMemberMetadataValue(
        instance_id=_or(request.instance_id, known.instance_id),
        rack_id=_or(request.rack_id, known.rack_id),
        client_id=call.client_id,
        client_host=call.client_host,
        subscribed_topic_names=known.subscribed_topic_names if names is None else sorted(set(names)),
        subscribed_topic_regex=_or(request.subscribed_topic_regex, known.subscribed_topic_regex),
        rebalance_timeout_ms=(
            known.rebalance_timeout_ms if request.rebalance_timeout_ms == -1 else request.rebalance_timeout_ms),
        server_assignor=_or(request.server_assignor, known.server_assignor),
    )


def _or(said: str | None, known: str | None) -> str | None:
    return known if said is None else said
