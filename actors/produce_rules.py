"""What a partition takes from producers. Pure; the partition asks, nobody else.

Owns: the rules beyond what `storage/batch.py` checks in the bytes themselves.
May fail with: `Refused` and `BadBatch`, both with the Kafka error code and the message for the client.
Source: UnifiedLog.analyzeAndValidateRecords, LogValidator; KIP-98.
"""

from __future__ import annotations

from zafka.actors.messages import ProduceItem
from zafka.actors.refused import Refused
from zafka.storage.batch import BatchHeader, check_batch, check_timestamps, read_header, with_log_append_time
from zafka.storage.config import LogConfig
from zafka.transport.kafka.errors import ErrorCode


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


def follows(before: BatchHeader, batch: BatchHeader) -> bool:
    """Whether a producer's batch continues the one before; sequences begin at 0 again after 2^31 - 1."""
    following = (before.base_sequence + before.last_offset_delta + 1) & 0x7FFFFFFF
    return batch.base_sequence == following and batch.producer_epoch == before.producer_epoch
