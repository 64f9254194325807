"""What a partition takes from producers. No effects; the partition asks, nobody else.

Owns: the rules beyond what `storage/batch.py` checks in the bytes themselves; `FirstRefused`.
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

FIRST_REFUSED_MAX = 10_000


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


class FirstRefused:
    """First batches of producers that the log does not know yet, refused for lack of room: by epoch and sequence.

    The log lets a producer that it does not know begin anywhere, since it may have known it once.
    """

    def __init__(self) -> None:
        self._places: dict[int, tuple[int, int]] = {}

    def note(self, header: BatchHeader, producers: ProducerStates) -> None:
        """This batch was refused."""
        known = header.producer_id < 0 or producers.get(header.producer_id) is not None
        if not known and len(self._places) < FIRST_REFUSED_MAX:
            self._places.setdefault(header.producer_id, (header.producer_epoch, header.base_sequence))

    def check(self, header: BatchHeader, producers: ProducerStates) -> None:
        """Raises Refused for a batch that overtook its producer's first one, which will come again."""
        producer_id, place = header.producer_id, (header.producer_epoch, header.base_sequence)
        first = self._places.get(producer_id)
        if first is None or place[0] != first[0] or place == first:
            self._places.pop(producer_id, None)
        elif producers.get(producer_id) is None:
            raise Refused(
                ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                f"sequence {place[1]} of producer {producer_id} comes before {first[1]}, which was refused")
