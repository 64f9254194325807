"""DeleteRecords: the request, and what its answer says. Used with and without waiting.

Owns: nothing; pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from zafka.client.records import TopicPartition
from zafka.transport.kafka.messages import DeleteRecordsRequest, DeleteRecordsResponse
from zafka.transport.kafka.messages.delete_records import DeleteRecordsPartition, DeleteRecordsTopic


def delete_records_request(wanted: Mapping[TopicPartition, int], timeout_ms: int) -> DeleteRecordsRequest:
    """wanted: the offset before which records go, for each partition; all led by one broker."""
    topics: dict[str, DeleteRecordsTopic] = {}
    for (topic, partition), offset in wanted.items():
        entry = topics.setdefault(topic, DeleteRecordsTopic(name=topic, partitions=[]))
        entry.partitions.append(DeleteRecordsPartition(partition_index=partition, offset=offset))
    return DeleteRecordsRequest(topics=list(topics.values()), timeout_ms=timeout_ms)


def read_deleted(answer: DeleteRecordsResponse) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    """The first offset that is left, and the error codes of the others."""
    found: dict[TopicPartition, int] = {}
    errors: dict[TopicPartition, int] = {}
    for topic in answer.topics:
        for part in topic.partitions:
            where = TopicPartition(topic.name, part.partition_index)
            if part.error_code:
                errors[where] = part.error_code
            else:
                found[where] = part.low_watermark
    return found, errors
