"""What a partition tells its readers: where batches lie, the offset of a time, where a leader epoch ended,
which producers it knows, how much there is.

Owns: nothing. Each function takes the replica and a question of the broker and makes the answer; none changes anything.
Damaged bytes are answered with CORRUPT_MESSAGE and named in the log; the other offsets are served as before.
Source: Partition.fetchRecords, Partition.fetchOffsetForTimestamp, UnifiedLog.fetchOffsetByTimestamp,
Partition.lastOffsetForLeaderEpoch; KIP-320 (fencing), KIP-595 (diverging epochs), KIP-207 (the latest offset).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from zafka.actors.messages import (
    DescribeLog,
    DescribeProducers,
    EpochEnd,
    FindEpochEnd,
    ListOffset,
    Locate,
    Located,
    LogDescribed,
    Message,
    OffsetListed,
    ProducersDescribed,
)
from zafka.actors.refused import Refused
from zafka.actors.replica import Replica
from zafka.storage.errors import BadBatch, CorruptLog, OffsetOutOfRange
from zafka.storage.leader_epochs import UNDEFINED_EPOCH, EpochStart
from zafka.storage.location import NEVER_HOT
from zafka.transport.kafka.errors import ErrorCode

LATEST, EARLIEST, MAX_TIMESTAMP, EARLIEST_LOCAL, LATEST_TIERED, EARLIEST_PENDING_UPLOAD = -1, -2, -3, -4, -5, -6
READ_COMMITTED = 1
NOWHERE = (-1, -1, -1)  # timestamp, offset, leader epoch

logger = structlog.get_logger(__name__)


def locate(replica: Replica[Any], asked: Locate) -> Located:
    """Where the batches from an offset on lie, or where the reader's log and this one part."""
    segment_base_offset = inode = position = length = 0
    hot_position, diverging = NEVER_HOT, EpochStart(-1, -1)
    error = fence(replica, asked.current_leader_epoch)
    if not error:
        try:
            if asked.last_fetched_epoch != UNDEFINED_EPOCH:
                diverging = divergence(replica, asked.offset, asked.last_fetched_epoch)
            if diverging.epoch < 0:
                segment_base_offset, inode, position, length, hot_position = replica.log.locate(
                    asked.offset, asked.max_bytes, limit_offset(replica, asked.isolation_level))
        except (OffsetOutOfRange, CorruptLog) as failed:
            error = read_error(failed)
    return Located(
        asked.request_id, error, segment_base_offset, inode, position, length, replica.high_watermark,
        replica.last_stable_offset, replica.log.start_offset, hot_position, diverging.epoch, diverging.start_offset)


def divergence(replica: Replica[Any], offset: int, last_fetched_epoch: int) -> EpochStart:
    """Where a reader's copy, that ends at `offset` with a record of this epoch, is no prefix of our log; (-1, -1) if it
    is one. Raises OffsetOutOfRange."""
    log = replica.log
    found = log.leader_epochs.end_offset_for(last_fetched_epoch, log.end_offset)
    if found.epoch == UNDEFINED_EPOCH or offset < log.start_offset:
        raise OffsetOutOfRange(offset, start_offset=log.start_offset, end_offset=log.end_offset)
    diverges = found.epoch < last_fetched_epoch or found.start_offset < offset
    return found if diverges else EpochStart(-1, -1)


def list_offset(replica: Replica[Any], asked: ListOffset) -> OffsetListed:
    """The offset of a time."""
    error = fence(replica, asked.current_leader_epoch)
    found = NOWHERE
    if not error:
        try:
            found = find_offset(replica, asked.timestamp_ms, asked.isolation_level)
        except Refused as refused:
            error = refused.error
        except (BadBatch, CorruptLog) as damaged:
            error = read_error(damaged)
    return OffsetListed(asked.request_id, error, *found)


def find_offset(replica: Replica[Any], timestamp_ms: int, isolation_level: int) -> tuple[int, int, int]:
    """(timestamp, offset, leader epoch), each -1 if there is none. Raises Refused."""
    log = replica.log
    limit = limit_offset(replica, isolation_level)
    if timestamp_ms in (EARLIEST, EARLIEST_LOCAL):
        return -1, log.start_offset, log.leader_epochs.epoch_for(log.start_offset)
    if timestamp_ms in (LATEST_TIERED, EARLIEST_PENDING_UPLOAD):
        return NOWHERE  # all of the log is here, and nothing is to leave
    if timestamp_ms < EARLIEST_PENDING_UPLOAD:
        raise Refused(ErrorCode.UNSUPPORTED_VERSION, f"there is no offset for timestamp {timestamp_ms}")
    found = None
    if timestamp_ms == MAX_TIMESTAMP:
        found = log.max_timestamp_offset()
    elif timestamp_ms >= 0:
        found = log.offset_for_timestamp(timestamp_ms)
    if found is not None and found[1] < limit:
        return found
    if not replica.knows_latest:
        raise Refused(ErrorCode.OFFSET_NOT_AVAILABLE, "the high watermark has not reached this epoch's start")
    return (-1, limit, replica.leader_epoch) if timestamp_ms == LATEST else NOWHERE


def find_epoch_end(replica: Replica[Any], asked: FindEpochEnd) -> EpochEnd:
    """Where a leader epoch ended; for the one that goes on, where the log ends."""
    error = fence(replica, asked.current_leader_epoch)
    if error:
        return EpochEnd(asked.request_id, error, -1, -1)
    found = replica.log.leader_epochs.end_offset_for(asked.leader_epoch, replica.log.end_offset)
    return EpochEnd(asked.request_id, 0, found.epoch, found.start_offset)


def describe_producers(replica: Replica[Any], asked: DescribeProducers) -> ProducersDescribed:
    """The producers that the log remembers."""
    return ProducersDescribed(asked.request_id, fence(replica, UNDEFINED_EPOCH), replica.log.producers.describe())


def describe_log(replica: Replica[Any], asked: DescribeLog) -> LogDescribed:
    """How much there is."""
    log = replica.log
    return LogDescribed(asked.request_id, 0, log.size_bytes, log.end_offset - replica.high_watermark)


def fence(replica: Replica[Any], current_leader_epoch: int) -> int:
    """The error for a client that knows another leader epoch (KIP-320), 0 if there is none."""
    if not replica.leads:
        return ErrorCode.NOT_LEADER_OR_FOLLOWER
    if current_leader_epoch in (UNDEFINED_EPOCH, replica.leader_epoch):
        return 0
    if current_leader_epoch < replica.leader_epoch:
        return ErrorCode.FENCED_LEADER_EPOCH
    return ErrorCode.UNKNOWN_LEADER_EPOCH


def limit_offset(replica: Replica[Any], isolation_level: int) -> int:
    return replica.last_stable_offset if isolation_level == READ_COMMITTED else replica.high_watermark


def read_error(error: OffsetOutOfRange | BadBatch | CorruptLog) -> int:
    if isinstance(error, OffsetOutOfRange):
        return ErrorCode.OFFSET_OUT_OF_RANGE
    logger.error("damaged bytes are not served", reason=str(error))
    return ErrorCode.CORRUPT_MESSAGE


READS: dict[type[Message], Callable[[Replica[Any], Any], Message]] = {
    Locate: locate,
    ListOffset: list_offset,
    FindEpochEnd: find_epoch_end,
    DescribeProducers: describe_producers,
    DescribeLog: describe_log,
}
