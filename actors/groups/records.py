"""The records of committed offsets and of classic groups, as they stand in `__consumer_offsets`: Kafka's own schemas.

Owns: their structs, and in which version they are written: those that Kafka 4.3 writes and reads. Older versions are
read, too.
Source: Kafka OffsetCommitKey/Value.json, GroupMetadataKey/Value.json, GroupCoordinatorRecordHelpers.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from zafka.actors.groups.record_codec import Kind, field
from zafka.transport.kafka.types import ZERO_UUID

OFFSET_VERSION = 4
OFFSET_VERSION_WITH_EXPIRY = 1
GROUP_VERSION = 3

Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]

class OffsetCommitKey(Struct, gc=False):
    group: str = ""
    topic: str = ""
    partition: int = 0


class OffsetCommitValue(Struct, gc=False, array_like=True):
    """expire_timestamp: -1, or what a client of Kafka before 2.1 wished. topic_id: zero if it is not known.

    The bounds are looked at where msgspec reads it, from a snapshot; what stands in the log is bounded by its layout.
    """

    offset: Int64 = 0
    leader_epoch: Int32 = -1
    metadata: str = ""
    commit_timestamp: Int64 = 0
    expire_timestamp: Int64 = -1
    topic_id: Annotated[bytes, Meta(min_length=len(ZERO_UUID), max_length=len(ZERO_UUID))] = ZERO_UUID


class GroupMetadataKey(Struct, gc=False):
    group: str = ""


class MemberMetadata(Struct, gc=False):
    """subscription: the member's metadata of the protocol that was chosen. Timeouts are milliseconds."""

    member_id: str = ""
    group_instance_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    rebalance_timeout: int = 0
    session_timeout: int = 0
    subscription: bytes = b""
    assignment: bytes = b""


class GroupMetadataValue(Struct):
    protocol_type: str = ""
    generation: int = 0
    protocol: str | None = None
    leader: str | None = None
    current_state_timestamp: int = -1
    members: list[MemberMetadata] = []


_OFFSET_KEY = (field("group", "string"), field("topic", "string"), field("partition", "int32"))
_OFFSET_VALUE = (
    field("offset", "int64"),
    field("leader_epoch", "int32", 3, default=-1),
    field("metadata", "string"),
    field("commit_timestamp", "int64"),
    field("expire_timestamp", "int64", 1, 1, default=-1),
    field("topic_id", "uuid", 4, tag=0),
)
_MEMBER = (
    field("member_id", "string"),
    field("group_instance_id", "string", 3, nullable_since=3, default=None),
    field("client_id", "string"),
    field("client_host", "string"),
    field("rebalance_timeout", "int32", 1),
    field("session_timeout", "int32"),
    field("subscription", "bytes"),
    field("assignment", "bytes"),
)
_GROUP_VALUE = (
    field("protocol_type", "string"),
    field("generation", "int32"),
    field("protocol", "string", nullable_since=0),
    field("leader", "string", nullable_since=0),
    field("current_state_timestamp", "int64", 2, default=-1),
    field("members", "struct", array=True, struct="MemberMetadata", fields=_MEMBER),
)

# The first Kafkas with groups numbered their keys 0; it says the same.
LEGACY_OFFSET = Kind(0, OffsetCommitKey, _OFFSET_KEY, OffsetCommitValue, _OFFSET_VALUE, versions=(0, 4), flexible=4)
OFFSET = Kind(1, OffsetCommitKey, _OFFSET_KEY, OffsetCommitValue, _OFFSET_VALUE, versions=(0, 4), flexible=4)
GROUP = Kind(
    2, GroupMetadataKey, (field("group", "string"),), GroupMetadataValue, _GROUP_VALUE, versions=(0, 4), flexible=4)

OFFSET_KINDS = {LEGACY_OFFSET.number: LEGACY_OFFSET, OFFSET.number: OFFSET}


def encode_offset(key: OffsetCommitKey, value: OffsetCommitValue | None) -> tuple[bytes, bytes | None]:
    if value is None:
        return OFFSET.encode_key(key), None
    version = OFFSET_VERSION if value.expire_timestamp < 0 else OFFSET_VERSION_WITH_EXPIRY
    return OFFSET.encode_key(key), OFFSET.encode_value(value, version)


def encode_group(key: GroupMetadataKey, value: GroupMetadataValue | None) -> tuple[bytes, bytes | None]:
    return GROUP.encode_key(key), None if value is None else GROUP.encode_value(value, GROUP_VERSION)
