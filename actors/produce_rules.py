"""What a partition takes from producers. No effects; the partition asks, nobody else.

Owns: the rules beyond what `storage/batch.py` checks in the bytes themselves; `RefusedForRoom`.
May fail with: `Refused` and `BadBatch`, both with the Kafka error code and the message for the client.
Source: UnifiedLog.analyzeAndValidateRecords, LogValidator; KIP-98.
"""

from __future__ import annotations

from typing import NamedTuple

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


class Gap(NamedTuple):
    """Sequences of a producer's epoch, from that of the first batch that was refused to that of the last."""

    epoch: int
    first: int
    last: int


class RefusedForRoom:
    """By producer, the batches that found the disk full, or came behind such a one, and have not come again.

    What was sent behind them comes before them now, and is refused as they were, whatever the log would say. A producer
    that the log does not know may begin anywhere, since it may have known it once. And to be told
    OUT_OF_ORDER_SEQUENCE_NUMBER behind a batch that failed has librdkafka begin a new epoch, in all its partitions: what
    may be written in any of them it sends again under new numbers, and nobody can tell that it is there twice. So the gap
    lasts until its last batch has come, not its first: what follows may be under way before it is known that both failed.
    """

    def __init__(self) -> None:
        self._gaps: dict[int, Gap] = {}

    def __bool__(self) -> bool:
        """True while any batch may be refused."""
        return bool(self._gaps)

    def note(self, header: BatchHeader) -> None:
        """This batch was refused."""
        epoch, sequence = header.producer_epoch, header.base_sequence
        gap = self._gaps.get(header.producer_id)
        if gap is None or epoch > gap.epoch:
            if header.producer_id >= 0 and len(self._gaps) < REFUSED_MAX:
                self._gaps[header.producer_id] = Gap(epoch, sequence, sequence)
        elif epoch == gap.epoch and _is_from(gap.last, sequence):
            self._gaps[header.producer_id] = Gap(epoch, gap.first, sequence)

    def check(self, header: BatchHeader, error: int, producers: ProducerStates) -> None:
        """Raises Refused for a batch that overtook one that was refused. error: what the log says of it, or NONE."""
        producer_id, sequence = header.producer_id, header.base_sequence
        gap = self._gaps.get(producer_id)
        if gap is None:
            return
        known = producers.get(producer_id)
        has_come = known is not None and known.epoch == gap.epoch and _is_from(gap.last, known.last_sequence)
        if header.producer_epoch > gap.epoch or has_come:
            del self._gaps[producer_id]
        elif error == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER or (known is None and sequence != gap.first):
            self.note(header)
            raise Refused(
                ErrorCode.KAFKA_STORAGE_ERROR,
                f"sequence {sequence} of producer {producer_id} comes before {gap.first}, which found the disk full")
        elif not error and _is_from(gap.last, sequence):
            del self._gaps[producer_id]


def _is_from(start: int, sequence: int) -> bool:
    """Whether a sequence is this one or one behind it; they begin at 0 again after 2^31 - 1."""
    return (sequence - start) & 0x7FFFFFFF < 1 << 30
