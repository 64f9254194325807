"""What a partition takes from producers. No effects; the partition asks, nobody else.

Owns: the rules beyond what `storage/batch.py` checks in the bytes themselves; `RefusedForRoom`.
May fail with: `Refused` and `BadBatch`, both with the Kafka error code and the message for the client.
Source: UnifiedLog.analyzeAndValidateRecords, LogValidator; KIP-98.
"""

from __future__ import annotations

from zafka.actors.messages import ProduceItem
from zafka.actors.refused import Refused
from zafka.storage.batch import BatchHeader, check_batch, check_timestamps, read_header, with_log_append_time
from zafka.storage.config import LogConfig
from zafka.storage.producer_state import ProducerStates
from zafka.storage.record_slices import records_without_key
from zafka.transport.kafka.errors import ErrorCode

REFUSED_MAX = 10_000


def check_produced(
    item: ProduceItem, data: memoryview, config: LogConfig, now_ms: int
) -> tuple[BatchHeader, memoryview]:
    """A batch as it will be written, or Refused or BadBatch with what is wrong with it. Pure."""
    if not -1 <= item.acks <= 1:
        raise Refused(ErrorCode.INVALID_REQUIRED_ACKS, f"acks is -1, 0 or 1, not {item.acks}")
    header = check_batch(data, max_bytes=config.max_message_bytes)
    if header.is_transactional:
        raise Refused(ErrorCode.INVALID_TXN_STATE, "transactions are not supported yet")
    if item.size > config.segment_bytes:
        raise Refused(
            ErrorCode.RECORD_LIST_TOO_LARGE, f"the batch has {item.size} bytes, a segment at most {config.segment_bytes}")
    if config.message_timestamp_type == "LogAppendTime":
        data = memoryview(with_log_append_time(data, now_ms))
        return read_header(data), data
    check_timestamps(
        header, now_ms=now_ms, before_max_ms=config.message_timestamp_before_max_ms,
        after_max_ms=config.message_timestamp_after_max_ms)
    return header, data


class KeysMissing(Refused):
    """record_errors: index in the batch and message of each record that has no key."""

    def __init__(self, message: str, record_errors: list[tuple[int, str]]) -> None:
        super().__init__(ErrorCode.INVALID_RECORD, message)
        self.record_errors = record_errors


def check_keys(header: BatchHeader, data: memoryview, topic_partition: str) -> None:
    """The one check that looks into records: a compacted topic's all have keys. Raises KeysMissing and BadBatch.

    Source: LogValidator.validateKey, processRecordErrors.
    """
    told = f"Compacted topic cannot accept message without key in topic partition {topic_partition}"
    errors = [(index, told) for index in records_without_key(data, header)]
    if errors:
        shown = ", ".join(f"RecordError(batchIndex={index}, message='{told}')" for index, _ in errors[:3])
        raise KeysMissing(
            f"One or more records have been rejected due to {len(errors)} record errors in total, and only showing the "
            f"first three errors at most: [{shown}]", errors)


def follows(before: BatchHeader, batch: BatchHeader) -> bool:
    """Whether a producer's batch continues the one before; sequences begin at 0 again after 2^31 - 1."""
    following = (before.base_sequence + before.last_offset_delta + 1) & 0x7FFFFFFF
    return batch.base_sequence == following and batch.producer_epoch == before.producer_epoch


class RefusedForRoom:
    """By producer, the batch that found the disk full and has not come again: its epoch and sequence.

    What was sent behind that one comes before it now, and is refused as it was, whatever the log would say. A producer
    that the log does not know may begin anywhere, since it may have known it once. And to be told
    OUT_OF_ORDER_SEQUENCE_NUMBER behind a batch that failed has librdkafka begin a new epoch, in all its partitions: what
    may be written in any of them it sends again under new numbers, and nobody can tell that it is there twice.
    """

    def __init__(self) -> None:
        self._places: dict[int, tuple[int, int]] = {}

    def __bool__(self) -> bool:
        """True while any batch may be refused."""
        return bool(self._places)

    def note(self, header: BatchHeader) -> None:
        """This batch was refused. Of those of one producer the first counts."""
        if header.producer_id >= 0 and len(self._places) < REFUSED_MAX:
            self._places.setdefault(header.producer_id, (header.producer_epoch, header.base_sequence))

    def check(self, header: BatchHeader, error: int, producers: ProducerStates) -> None:
        """Raises Refused for a batch that overtook one that was refused. error: what the log says of it, or NONE."""
        producer_id, epoch, sequence = header.producer_id, header.producer_epoch, header.base_sequence
        first = self._places.get(producer_id)
        if first is None:
            return
        if epoch > first[0] or (epoch, sequence) == first:
            del self._places[producer_id]
        elif error == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER or producers.get(producer_id) is None:
            raise Refused(
                ErrorCode.KAFKA_STORAGE_ERROR,
                f"sequence {sequence} of producer {producer_id} comes before {first[1]}, which found the disk full")
