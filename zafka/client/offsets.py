"""ListOffsets: the request, and what its answer says. Used with and without waiting.

Owns: nothing; pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from zafka.client.records import OffsetAndTimestamp, TopicPartition
from zafka.transport.kafka.messages import ListOffsetsRequest, ListOffsetsResponse
from zafka.transport.kafka.messages.list_offsets import ListOffsetsPartition, ListOffsetsTopic

LATEST = -1
EARLIEST = -2
NO_REPLICA = -1


def list_offsets_request(wanted: Mapping[TopicPartition, int]) -> ListOffsetsRequest:
    """wanted: a timestamp in ms, or LATEST or EARLIEST, for each partition; all led by one broker."""
    topics: dict[str, ListOffsetsTopic] = {}
    for (topic, partition), timestamp in wanted.items():
        entry = topics.setdefault(topic, ListOffsetsTopic(name=topic, partitions=[]))
        entry.partitions.append(ListOffsetsPartition(partition_index=partition, timestamp=timestamp))
    return ListOffsetsRequest(replica_id=NO_REPLICA, topics=list(topics.values()))


def read_offsets(
    answer: ListOffsetsResponse,
) -> tuple[dict[TopicPartition, OffsetAndTimestamp], dict[TopicPartition, int]]:
    """What was found (offset -1: no record is that late), and the error codes of the others."""
    found: dict[TopicPartition, OffsetAndTimestamp] = {}
    errors: dict[TopicPartition, int] = {}
    for topic in answer.topics:
        for part in topic.partitions:
            where = TopicPartition(topic.name, part.partition_index)
            if part.error_code:
                errors[where] = part.error_code
            else:
                found[where] = OffsetAndTimestamp(part.offset, part.timestamp)
    return found, errors
