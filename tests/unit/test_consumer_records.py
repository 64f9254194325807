"""Records of KIP-848 groups: they read as they were written, and what only Kafka writes is read, too."""

from __future__ import annotations

from typing import Any

import pytest

from zafka.actors.groups import consumer_records as records
from zafka.actors.groups.consumer_member import MemberState, position_of
from zafka.actors.groups.record_codec import decode_record

TOPIC = b"t" * 16
CLASSIC = records.ClassicMemberMetadata(45_000, [records.ClassicProtocol("range", b"\0\1")])

EVERY: list[tuple[Any, Any]] = [
    (records.ConsumerGroupMetadataKey("g"), records.ConsumerGroupMetadataValue(3, -5)),
    (records.ConsumerGroupMetadataKey("g"), records.ConsumerGroupMetadataValue(3)),
    (records.ConsumerGroupMemberMetadataKey("g", "m"), records.ConsumerGroupMemberMetadataValue()),
    (records.ConsumerGroupMemberMetadataKey("g", "m"), records.ConsumerGroupMemberMetadataValue(
        "i", "r", "c", "/127.0.0.1", ["a", "b"], "x.*", 5, "uniform", CLASSIC)),
    (records.ConsumerGroupTargetAssignmentMetadataKey("g"), records.ConsumerGroupTargetAssignmentMetadataValue(5, 17)),
    (records.ConsumerGroupTargetAssignmentMemberKey("g", "m"), records.ConsumerGroupTargetAssignmentMemberValue(
        [records.TopicPartition(TOPIC, [1, 2])])),
    (records.ConsumerGroupCurrentMemberAssignmentKey("g", "m"), records.ConsumerGroupCurrentMemberAssignmentValue(
        2, 1, 1, [records.TopicPartitions(TOPIC, [1], [2])], [records.TopicPartitions(TOPIC, [0, 3], [1, 2])])),
    (records.ConsumerGroupRegularExpressionKey("g", "x.*"), records.ConsumerGroupRegularExpressionValue(["x"], 1, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), EVERY)
def test_a_record_reads_as_it_was_written(key: Any, value: Any) -> None:
    assert decode_record(records.KINDS, *records.encode_record(key, value)) == (key, value)
    assert decode_record(records.KINDS, *records.encode_record(key, None)) == (key, None)


def test_a_tagged_struct_that_may_be_null_has_a_byte_that_says_so() -> None:
    """As Kafka's generated code writes it: number and tag of the field, size, 1, the struct."""
    _, value = records.encode_record(
        records.ConsumerGroupMemberMetadataKey("g", "m"),
        records.ConsumerGroupMemberMetadataValue(classic_member_metadata=CLASSIC))
    struct = b"\0\0\xaf\xc8" + b"\2\6range\3\0\1\0" + b"\0"
    assert value is not None and value.endswith(b"\1\0" + bytes([1 + len(struct)]) + b"\1" + struct)


def test_partition_metadata_of_a_kafka_before_4_1_is_passed_over() -> None:
    key = records.ConsumerGroupPartitionMetadataKey("g")
    encoded, _ = records.encode_record(key, None)
    theirs = b"\0\0" + b"\2" + TOPIC + b"\2t\0\0\0\1\1\0\0"
    assert decode_record(records.KINDS, encoded, theirs) == (key, records.ConsumerGroupPartitionMetadataValue())


def test_what_other_kafkas_say_of_positions() -> None:
    """Before 4.3 partitions had no epochs of their own; a state of a Kafka to come is not known."""
    value = records.ConsumerGroupCurrentMemberAssignmentValue(4, 3, 9, [records.TopicPartitions(TOPIC, [1, 2])])
    position = position_of(value)
    assert (position.state, position.assigned) == (MemberState.UNKNOWN, {TOPIC: {1: 4, 2: 4}})
