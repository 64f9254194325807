"""When a log goes on in a new segment, and when old segments are due to go: pure decisions.

Owns: `Run`, what one append will write into one segment; `should_roll`; `expired_segments`.
Source: Kafka LogSegment.shouldRoll, UnifiedLog.deleteOldSegments.
"""

from __future__ import annotations

from collections.abc import Sequence

from zafka.storage.batch import LENGTH_END, BatchHeader, batch_prefix
from zafka.storage.config import LogConfig
from zafka.storage.disk import Buffer
from zafka.storage.segment import MAX_INT32, Segment

PREFIX_BYTES = 16


class Run:
    """What one append writes into one segment, before any of it counts.

    size_bytes, first_timestamp: of the segment as they will be.
    """

    __slots__ = ("batches", "buffers", "first_timestamp", "segment", "size_bytes")

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.size_bytes = segment.size_bytes
        self.first_timestamp = segment.first_timestamp
        self.buffers: list[Buffer] = []
        self.batches: list[tuple[BatchHeader, int]] = []

    def add(self, header: BatchHeader, batch: memoryview, base_offset: int, leader_epoch: int) -> None:
        # The CRC starts after the prefix, so a new prefix leaves it valid.
        length = header.batch_length
        self.buffers.append(batch_prefix(base_offset=base_offset, batch_length=length, leader_epoch=leader_epoch))
        self.buffers.append(batch[PREFIX_BYTES:])
        self.batches.append((header, base_offset))
        if not self.size_bytes:
            self.first_timestamp = header.max_timestamp
        self.size_bytes += LENGTH_END + length


def should_roll(run: Run, header: BatchHeader, base_offset: int, now_ms: int, config: LogConfig) -> bool:
    """True if the next batch belongs in a new segment.

    A segment's age is counted in the time of its records, so that a copy of old records does not roll at each batch.
    """
    if not run.size_bytes:
        return False  # a batch larger than segment_bytes still needs a home
    first = run.first_timestamp
    age_ms = header.max_timestamp - first if first >= 0 else now_ms - run.segment.created_ms
    return (
        run.size_bytes + LENGTH_END + header.batch_length > min(config.segment_bytes, MAX_INT32)
        or age_ms > config.segment_ms
        or base_offset + header.last_offset_delta - run.segment.base_offset > MAX_INT32
    )


def expired_segments(
    segments: Sequence[Segment], config: LogConfig, *, now_ms: int, start_offset: int, limit_offset: int
) -> int:
    """How many of the oldest segments retention drops. The last one, where appends go, counts if it is not empty.

    limit_offset: the high watermark; no segment that reaches beyond it is dropped.
    A segment without any timestamp does not grow old.
    """
    surplus_bytes = sum(segment.size_bytes for segment in segments) - config.retention_bytes
    for count, segment in enumerate(segments):
        too_old = segment.max_timestamp >= 0 and 0 <= config.retention_ms < now_ms - segment.max_timestamp
        too_many = config.retention_bytes >= 0 and surplus_bytes >= segment.size_bytes
        is_below_start = segment.end_offset <= start_offset
        if not (too_old or too_many or is_below_start) or segment.end_offset > limit_offset or not segment.size_bytes:
            return count
        surplus_bytes -= segment.size_bytes
    return len(segments)
