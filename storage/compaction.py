"""What compaction cleans and what it keeps: decisions only, no effects.

Owns: which part of a log is worth cleaning (`find_dirty`), which segments become one (`group_segments`), how much is
remembered of keys (`OffsetMap`), and what stays of a batch (`Rules`, `kept_of`).
Invariants: of every key the record with the highest offset stays, unless it is a tombstone past its delete horizon; a
record goes only for one at a higher offset of the same pass or an earlier one. Order and offsets stay: where whole
batches go, an empty one stands for their offsets, so that a log has no hole that does not say so.
May fail with BadBatch, from `kept_of` and `OffsetMap.take`.
Source: Kafka LogCleanerManager.cleanableOffsets, Cleaner.cleanInto, MemoryRecords.filterTo; KIP-534 (delete horizon).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

from zafka.storage.batch import CODEC_MASK, DELETE_HORIZON_FLAG, LOG_APPEND_TIME, BatchHeader, with_records
from zafka.storage.codecs import compress
from zafka.storage.config import INT64_MAX, LogConfig
from zafka.storage.record_slices import RecordSlice, read_body, record_slices, with_timestamp
from zafka.storage.segment import MAX_INT32, SegmentRow

# What one key takes in memory, at most: a slot of the dict at its emptiest, a digest and a number. Measured.
ENTRY_BYTES = 192
_DIGEST_BYTES = 16


class Dirty(NamedTuple):
    """What of a log may be cleaned now.

    sources: whole sealed segments from the log's beginning on. first_dirty: offset from which on keys are gathered.
    ratio: bytes behind first_dirty to all of these bytes. overdue: something has waited for `max.compaction.lag.ms`.
    """

    sources: tuple[SegmentRow, ...]
    first_dirty: int
    ratio: float
    overdue: bool

    def is_due(self, config: LogConfig) -> bool:
        """Whether it is worth it."""
        return bool(self.sources) and self.ratio > 0 and (self.overdue or self.ratio > config.min_cleanable_dirty_ratio)


def find_dirty(
    segments: Sequence[SegmentRow], config: LogConfig, *, start_offset: int, cleaned_offset: int, limit_offset: int,
    now_ms: int, first_timestamp: Callable[[int], int],
) -> Dirty:
    """What may be cleaned of these sealed and flushed segments.

    limit_offset: the last stable offset; no segment that reaches beyond it is touched. first_timestamp: of the segment
        with this base offset; asked only if there is a `max.compaction.lag.ms`.
    """
    first_dirty = max(start_offset, cleaned_offset)
    fresh_ms = now_ms - config.min_compaction_lag_ms if config.min_compaction_lag_ms > 0 else INT64_MAX
    sources = tuple(takewhile(
        lambda row: row.end_offset <= limit_offset and (row.end_offset <= first_dirty or row.max_timestamp <= fresh_ms),
        segments))
    dirty = [row for row in sources if row.end_offset > first_dirty]
    dirty_bytes, all_bytes = (sum(row.size_bytes for row in rows) for rows in (dirty, sources))
    overdue = False
    if config.max_compaction_lag_ms < now_ms:
        overdue = any(0 < first_timestamp(row.base_offset) < now_ms - config.max_compaction_lag_ms for row in dirty)
    return Dirty(sources, first_dirty, dirty_bytes / all_bytes if all_bytes else 0.0, overdue)


def group_segments(sources: Sequence[SegmentRow], segment_bytes: int) -> list[list[SegmentRow]]:
    """Neighbours that become one segment, so that segments do not become ever smaller and more."""
    groups: list[list[SegmentRow]] = []
    for row in sources:
        group = groups[-1] if groups else []
        fits = sum(each.size_bytes for each in group) + row.size_bytes <= min(segment_bytes, MAX_INT32)
        if group and fits and row.end_offset - group[0].base_offset <= MAX_INT32:
            group.append(row)
        else:
            groups.append([row])
    return groups


class OffsetMap:
    """The highest offset of each key, as far as memory allows.

    end_offset: everything from the first dirty offset up to here was taken.
    A key is told by itself if it is short, else by a digest nobody can find two keys for.
    """

    def __init__(self, first_dirty: int, buffer_bytes: int) -> None:
        self.end_offset = self._first_dirty = first_dirty
        self._keys_max = max(buffer_bytes // ENTRY_BYTES, 1)
        self._offsets: dict[bytes, int] = {}

    def __repr__(self) -> str:
        return f"<OffsetMap {len(self._offsets)} keys to {self.end_offset}>"

    def take(self, data: memoryview, header: BatchHeader) -> bool:
        """Take the keys of the next batch, all of it or nothing. False if there is no more room.

        The first batch is taken in any case, so that every pass gets somewhere. Raises BadBatch, with nothing taken.
        """
        offsets = self._offsets
        if header.record_count and not header.is_control and header.next_offset > self._first_dirty:
            full = self.end_offset > self._first_dirty and len(offsets) + header.record_count > self._keys_max
            found: dict[bytes, int] = {}
            base_offset, first = header.base_offset, self._first_dirty
            for record in record_slices(read_body(data, header), header):
                if record.key is not None and base_offset + record.offset_delta >= first:
                    found[_told(record.key)] = base_offset + record.offset_delta
            if full and len(offsets) + len(found.keys() - offsets.keys()) > self._keys_max:
                return False
            offsets.update(found)
        self.end_offset = max(self.end_offset, header.next_offset)
        return True

    def highest(self, key: bytes) -> int:
        """The highest offset that was taken of this key, -1 if none was."""
        return self._offsets.get(_told(key), -1)


def _told(key: bytes) -> bytes:
    return key if len(key) < _DIGEST_BYTES else hashlib.blake2b(key, digest_size=_DIGEST_BYTES).digest()


class Rules(NamedTuple):
    """By what a pass keeps records.

    last_offsets: of the newest batch of each producer. now_ms: when the pass began.
    """

    offsets: OffsetMap
    last_offsets: Mapping[int, int]
    now_ms: int
    delete_retention_ms: int

    def keeps(self, record: RecordSlice, header: BatchHeader) -> bool:
        """Whether a record stays. One without a key could never be superseded, and does not."""
        if record.key is None or header.base_offset + record.offset_delta < self.offsets.highest(record.key):
            return False
        horizon_ms = header.delete_horizon_ms
        return record.has_value or horizon_ms is None or self.now_ms < horizon_ms

    def holds_sequence(self, header: BatchHeader) -> bool:
        """Whether this batch is the last that says what its producer's sequence is."""
        return header.producer_id >= 0 and self.last_offsets.get(header.producer_id) == header.last_offset


def is_hole(header: BatchHeader) -> bool:
    """Whether compaction left this empty batch for offsets whose records it took."""
    return not header.record_count and header.producer_id < 0 and header.delete_horizon_ms is not None


def kept_of(data: memoryview, header: BatchHeader, rules: Rules) -> memoryview | bytes | None:
    """The batch as it stays: `data` itself, a new one with fewer records, or None.

    data: exactly the batch. Raises BadBatch for one that does not decode.
    """
    if header.base_offset >= rules.offsets.end_offset or header.is_control:
        # Not looked at in this pass; or a transaction's marker. These stay, until there are transactions to say otherwise.
        return data
    if not header.record_count:
        was_given_up = header.producer_id < 0 and not is_hole(header)
        return data if was_given_up or rules.holds_sequence(header) else None
    body = read_body(data, header)
    kept = [record for record in record_slices(body, header) if rules.keeps(record, header)]
    if not kept:
        return _without_records(header) if rules.holds_sequence(header) else None
    begins_to_go = header.delete_horizon_ms is None and not all(record.has_value for record in kept)
    if len(kept) == header.record_count and not begins_to_go:
        return data
    return _with_kept(body, header, kept, rules.now_ms + rules.delete_retention_ms if begins_to_go else None)


def _with_kept(body: bytes, header: BatchHeader, kept: Sequence[RecordSlice], horizon_ms: int | None) -> bytes:
    """horizon_ms: from when on the tombstones may go, if that is decided now; it takes the place of the base timestamp."""
    base_timestamp, attributes = header.base_timestamp, header.attributes
    max_timestamp = header.max_timestamp
    if header.timestamp_type != LOG_APPEND_TIME:
        max_timestamp = base_timestamp + max(record.timestamp_delta for record in kept)
    if horizon_ms is None:
        records = b"".join([body[record.start : record.end] for record in kept])
    else:
        moved = base_timestamp - horizon_ms
        records = b"".join([with_timestamp(body, record, record.timestamp_delta + moved) for record in kept])
        base_timestamp, attributes = horizon_ms, attributes | DELETE_HORIZON_FLAG
    return with_records(
        header, compress(header.codec, records), record_count=len(kept), attributes=attributes,
        base_timestamp=base_timestamp, max_timestamp=max_timestamp)


def _without_records(header: BatchHeader) -> bytes:
    """Nothing but offsets and the producer's sequence."""
    attributes = header.attributes & ~(CODEC_MASK | DELETE_HORIZON_FLAG)
    return with_records(
        header, b"", record_count=0, attributes=attributes, base_timestamp=header.max_timestamp,
        max_timestamp=header.max_timestamp)
