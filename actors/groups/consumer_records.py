"""The records of KIP-848 consumer groups, as they stand in `__consumer_offsets`: Kafka's own schemas.

Owns: their structs and layouts, those that Kafka 4.3 writes. The state of a group (`consumer_group.py`) is the last
value of each of its keys, so a record is all that ever changes it. Partition metadata (key 4) is read and written as a
tombstone only, as Kafka does since 4.1: a hash in the group's own record has taken its place.
Source: Kafka ConsumerGroup*Key/Value.json, GroupCoordinatorRecordHelpers; KIP-848, KIP-1101, KIP-1251, KIP-1263.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from zafka.actors.groups.record_codec import NEWEST, Kind, field
from zafka.transport.kafka.types import ZERO_UUID

VERSION = 0  # of all values


class GroupKey(Struct, gc=False, frozen=True):
    """One record of a group; the classes below say which. Keys differ by their class, so each kind has its own."""

    group_id: str = ""


class MemberKey(Struct, gc=False, frozen=True):
    group_id: str = ""
    member_id: str = ""


class ConsumerGroupMetadataKey(GroupKey, frozen=True):
    pass


class ConsumerGroupMetadataValue(Struct, gc=False, frozen=True):
    """epoch: of the group; a target assignment with a lower one is out of date. metadata_hash: `metadata_hash`."""

    epoch: int = 0
    metadata_hash: int = 0


class ConsumerGroupPartitionMetadataKey(GroupKey, frozen=True):
    pass


class ConsumerGroupPartitionMetadataValue(Struct, gc=False, frozen=True):
    """What Kafka before 4.1 wrote here is not read, not even its tagged fields."""


class ConsumerGroupMemberMetadataKey(MemberKey, frozen=True):
    pass


class ClassicProtocol(Struct, gc=False, frozen=True):
    name: str = ""
    metadata: bytes = b""


class ClassicMemberMetadata(Struct, frozen=True):
    """What a member that speaks the classic protocol in a consumer group said when it joined."""

    session_timeout_ms: int = 0
    supported_protocols: list[ClassicProtocol] = []


class ConsumerGroupMemberMetadataValue(Struct, frozen=True):
    """A member as it described itself."""

    instance_id: str | None = None
    rack_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    subscribed_topic_names: list[str] = []
    subscribed_topic_regex: str | None = None
    rebalance_timeout_ms: int = -1
    server_assignor: str | None = None
    classic_member_metadata: ClassicMemberMetadata | None = None


class ConsumerGroupTargetAssignmentMetadataKey(GroupKey, frozen=True):
    pass


class ConsumerGroupTargetAssignmentMetadataValue(Struct, gc=False, frozen=True):
    """assignment_epoch: the group epoch that the targets were computed for, at this time (ms)."""

    assignment_epoch: int = 0
    assignment_timestamp: int = 0


class ConsumerGroupTargetAssignmentMemberKey(MemberKey, frozen=True):
    pass


class TopicPartition(Struct, gc=False, frozen=True):
    topic_id: bytes = ZERO_UUID
    partitions: list[int] = []


class ConsumerGroupTargetAssignmentMemberValue(Struct, frozen=True):
    topic_partitions: list[TopicPartition] = []


class ConsumerGroupCurrentMemberAssignmentKey(MemberKey, frozen=True):
    pass


class TopicPartitions(Struct, gc=False, frozen=True):
    """assignment_epochs: for each partition the member epoch at which it was assigned; None from Kafka before 4.3."""

    topic_id: bytes = ZERO_UUID
    partitions: list[int] = []
    assignment_epochs: list[int] | None = None


class ConsumerGroupCurrentMemberAssignmentValue(Struct, frozen=True):
    """state: `consumer_member.MemberState`."""

    member_epoch: int = 0
    previous_member_epoch: int = 0
    state: int = 0
    assigned_partitions: list[TopicPartitions] = []
    partitions_pending_revocation: list[TopicPartitions] = []


class ConsumerGroupRegularExpressionKey(Struct, gc=False, frozen=True):
    group_id: str = ""
    regular_expression: str = ""


class ConsumerGroupRegularExpressionValue(Struct, gc=False, frozen=True):
    """topics: that match, sorted. version: of the cluster's metadata, which we do not number. timestamp: ms."""

    topics: list[str] = []
    version: int = 0
    timestamp: int = 0


_GROUP_KEY = (field("group_id", "string"),)
_MEMBER_KEY = (field("group_id", "string"), field("member_id", "string"))
_CLASSIC = (
    field("session_timeout_ms", "int32"),
    field("supported_protocols", "struct", array=True, struct="ClassicProtocol", fields=(
        field("name", "string"), field("metadata", "bytes"))),
)
_MEMBER = (
    field("instance_id", "string", nullable_since=0),
    field("rack_id", "string", nullable_since=0),
    field("client_id", "string"),
    field("client_host", "string"),
    field("subscribed_topic_names", "string", array=True),
    field("subscribed_topic_regex", "string", nullable_since=0),
    field("rebalance_timeout_ms", "int32", default=-1),
    field("server_assignor", "string", nullable_since=0),
    field("classic_member_metadata", "struct", nullable_since=0, tag=0, default=None, struct="ClassicMemberMetadata",
          fields=_CLASSIC),
)
_TARGET = (
    field("topic_partitions", "struct", array=True, struct="TopicPartition", fields=(
        field("topic_id", "uuid"), field("partitions", "int32", array=True))),
)
_PARTITIONS = (
    field("topic_id", "uuid"),
    field("partitions", "int32", array=True),
    field("assignment_epochs", "int32", array=True, nullable_since=0, tag=0, default=None),
)
_CURRENT = (
    field("member_epoch", "int32"),
    field("previous_member_epoch", "int32"),
    field("state", "int8"),
    field("assigned_partitions", "struct", array=True, struct="TopicPartitions", fields=_PARTITIONS),
    field("partitions_pending_revocation", "struct", array=True, struct="TopicPartitions", fields=_PARTITIONS),
)

KINDS = {kind.number: kind for kind in (
    Kind(3, ConsumerGroupMetadataKey, _GROUP_KEY, ConsumerGroupMetadataValue, (
        field("epoch", "int32"), field("metadata_hash", "int64", tag=0))),
    Kind(4, ConsumerGroupPartitionMetadataKey, _GROUP_KEY, ConsumerGroupPartitionMetadataValue, (), flexible=NEWEST),
    Kind(5, ConsumerGroupMemberMetadataKey, _MEMBER_KEY, ConsumerGroupMemberMetadataValue, _MEMBER),
    Kind(6, ConsumerGroupTargetAssignmentMetadataKey, _GROUP_KEY, ConsumerGroupTargetAssignmentMetadataValue, (
        field("assignment_epoch", "int32"), field("assignment_timestamp", "int64", tag=0))),
    Kind(7, ConsumerGroupTargetAssignmentMemberKey, _MEMBER_KEY, ConsumerGroupTargetAssignmentMemberValue, _TARGET),
    Kind(8, ConsumerGroupCurrentMemberAssignmentKey, _MEMBER_KEY, ConsumerGroupCurrentMemberAssignmentValue, _CURRENT),
    Kind(16, ConsumerGroupRegularExpressionKey, (field("group_id", "string"), field("regular_expression", "string")),
         ConsumerGroupRegularExpressionValue, (
             field("topics", "string", array=True), field("version", "int64"), field("timestamp", "int64"))),
)}  # fmt: skip
_BY_KEY = {kind.key: kind for kind in KINDS.values()}


def encode_record(key: Any, value: Any | None) -> tuple[bytes, bytes | None]:
    """value: None for a tombstone."""
    kind = _BY_KEY[type(key)]
    return kind.encode_key(key), None if value is None else kind.encode_value(value, VERSION)
