"""A partition on disk: segments of record batches, one after the other, and what was flushed of them.

Owns: the order of batches, when a segment is sealed, what a flush makes durable, and the recovery checkpoint.
Never flushes itself: `begin_flush` says what is to be flushed, the process shell does it, `on_flushed` goes on.
Invariants: start_offset <= flushed_offset <= end_offset. What lies below flushed_offset survives a power cut;
a crash above it loses whole batches from the end, never part of one and none in between.
May fail with OSError from the disk (the actor lets it through and is restarted), DiskFull, OffsetOutOfRange, and
CorruptLog where bytes that were known to be good are not.
A log is opened by `recovery.recover`. Source: KIP-98; Kafka UnifiedLog, LogSegment, LogSegments.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from zafka.storage.batch import BatchHeader
from zafka.storage.checkpoint import Checkpoint, publish, write_temporary
from zafka.storage.config import LogConfig
from zafka.storage.disk import Disk, File, Flush
from zafka.storage.errors import DiskFull, OffsetOutOfRange
from zafka.storage.leader_epochs import LeaderEpochs
from zafka.storage.location import NEVER_HOT, CommitPoint, Location, TimestampOffset
from zafka.storage.producer_state import ProducerStates
from zafka.storage.roll import Run, expired_segments, should_roll
from zafka.storage.segment import Segment, SegmentRow
from zafka.storage.swap import Replacement, Swap, replace_segments
from zafka.storage.torn_tail import FULL_DISK

DELETED_SUFFIX = ".deleted"


class _Flushed(NamedTuple):
    """The newest point below which everything is on disk."""

    offset: int
    segment: Segment
    position: int


class Log:
    """One partition on disk. Single-threaded; every access to the disk goes through `disk`.

    start_offset: below it nothing is served; retention moves it to the beginning of a segment, `delete_records`
        anywhere. It never goes back.
    flushed_offset: everything below is on disk; never goes back.
    end_offset: of the next record.
    high_watermark: kept for the owner, who says what it is; written into checkpoints.
    leader_epochs, producers: as of end_offset. swap: what compaction has changed and is changing. owner: `owner_of`.
    """

    def __init__(
        self, disk: Disk, directory: Path, config: LogConfig, *, segments: list[Segment], start_offset: int,
        leader_epochs: LeaderEpochs, producers: ProducerStates, checkpoint: Checkpoint | None, owner: bytes,
    ) -> None:
        """For `recovery.recover`: all of `segments` is flushed, `checkpoint` is the one on disk, by this owner."""
        self.directory = directory
        self.config = config
        self.start_offset = start_offset
        self.high_watermark = start_offset
        self.leader_epochs = leader_epochs
        self.producers = producers
        self.checkpoint_error: OSError | None = None  # why the last checkpoint was given up, if it was
        self._disk = disk
        self.owner = owner
        self._segments = segments
        self._opened_position = self._active.size_bytes  # in the active segment: behind it stands what we wrote
        self._flushed = _Flushed(self._active.end_offset, self._active, self._active.size_bytes)
        self._token = 0
        # (token, what to do when it is flushed), in the order in which the flushes were begun.
        self._in_flight: deque[tuple[int, Callable[[], Flush | None]]] = deque()
        self._dirty: dict[int, File] = {}  # by inode: written to since the last begun flush
        self._names_changed = False
        # Checkpoints: what was appended since the last one, whether one is being written, what it has said.
        self._new_bytes = 0
        self._new_batches = 0
        self._checkpoint_wanted = False
        self._checkpoint_in_flight = False
        self._storing: list[Segment] = []  # whose index files are being flushed for a checkpoint
        self._checkpointed_start = self._checkpointed_base = -1  # log start and active segment of the one on disk
        self._wanted_start = start_offset  # >= start_offset: what the next checkpoint says
        # Dropped segments: below which offset they surely have their new names, and names that may not go yet.
        self._renamed_start = start_offset
        self._tombstones: list[Path] = []
        self._last_read: Segment | None = None
        self.swap = Swap(disk, directory, checkpoint)
        if checkpoint is not None:
            self.high_watermark = min(max(checkpoint.high_watermark, start_offset), self.end_offset)
            self._on_checkpoint_named(checkpoint)

    def __repr__(self) -> str:
        return (
            f"<Log {self.directory.name} {self.start_offset}..{self.end_offset} flushed={self.flushed_offset} "
            f"segments={len(self._segments)} bytes={self.size_bytes}>"
        )

    @property
    def _active(self) -> Segment:
        return self._segments[-1]

    @property
    def end_offset(self) -> int:
        return self._segments[-1].end_offset

    @property
    def flushed_offset(self) -> int:
        return self._flushed.offset

    @property
    def size_bytes(self) -> int:
        return sum(segment.size_bytes for segment in self._segments)

    @property
    def segments(self) -> tuple[Segment, ...]:
        return tuple(self._segments)

    @property
    def replaceable_rows(self) -> list[SegmentRow]:
        """The segments that compaction may touch: those that are sealed and flushed, as `apply_retention` has it."""
        return [segment.row() for segment in self._segments if segment.base_offset < self._checkpointed_base]

    @property
    def flush_due(self) -> bool:
        """True if a flush should be begun whatever `fsync` says, so that a restart scans little and deleted
        segments can go: a segment was sealed or dropped, or much was appended since the last checkpoint."""
        return self._names_changed or (not self._checkpoint_in_flight and self._checkpoint_due)

    @property
    def _checkpoint_due(self) -> bool:
        too_much = self._new_bytes >= self.config.checkpoint_bytes or self._new_batches >= self.config.checkpoint_batches
        return self._checkpoint_wanted or too_much

    def update_config(self, config: LogConfig) -> None:
        self.config = config
        self._active.index_interval = config.index_interval_bytes

    # -- writing -------------------------------------------------------------------------------

    def append(self, batches: Sequence[tuple[BatchHeader, memoryview]], *, leader_epoch: int, now_ms: int) -> list[int]:
        """Write batches at the end of the log, all or none; returns the base offset of each.

        batches: record batches that `check_batch` and `producers.check` have accepted; not changed: the first 16
            bytes (base offset, length, leader epoch) are written afresh, the rest as it came.
        leader_epoch: epoch of the leader that orders the batches; never goes back.
        Durable after a flush that was begun later, not before.
        Raises DiskFull with the log as it was, and OSError from the disk.
        Source: KIP-98; Kafka UnifiedLog.append.
        """
        assert leader_epoch >= self.leader_epochs.latest
        if not batches:
            return []
        start = self.end_offset
        runs = [Run(self._active)]
        try:
            end_offset = self._plan(runs, batches, leader_epoch, now_ms)
            for run in runs:
                if run.buffers:
                    self._disk.pwritev(run.segment.file, run.buffers, run.segment.size_bytes)
        except OSError as error:
            self._undo(runs)
            if error.errno in FULL_DISK:
                raise DiskFull(f"the disk is full: no room to append to {self._active.path}") from error
            raise
        if leader_epoch > self.leader_epochs.latest:
            self.leader_epochs.assign(leader_epoch, start)
        base_offsets: list[int] = []
        for run in runs:
            if run.segment is not self._active:
                self._seal_active(run.segment)
            self._dirty[run.segment.inode] = run.segment.file
            for header, base_offset in run.batches:
                run.segment.note(header, base_offset)
                if header.producer_id >= 0:
                    self.producers.update(header, base_offset)
                base_offsets.append(base_offset)
            self._new_bytes += sum(map(len, run.buffers))
        self._new_batches += len(base_offsets)
        assert self.end_offset == end_offset > start
        return base_offsets

    def _plan(
        self, runs: list[Run], batches: Sequence[tuple[BatchHeader, memoryview]], leader_epoch: int, now_ms: int
    ) -> int:
        """Share the batches out to the active segment and, where it must roll, new ones; returns the end offset."""
        offset, config, run = self.end_offset, self.config, runs[-1]
        for header, batch in batches:
            if should_roll(run, header, offset, now_ms, config):
                run = Run(self._create_segment(offset, now_ms))
                runs.append(run)
            run.add(header, batch, offset, leader_epoch)
            offset += header.last_offset_delta + 1
        return offset

    def _undo(self, runs: list[Run]) -> None:
        """Take a failed append back: nothing of it was counted yet."""
        for run in runs[1:]:
            run.segment.unlink()
        self._disk.truncate(self._active.file, self._active.size_bytes)

    # -- segments ------------------------------------------------------------------------------

    def _create_segment(self, base_offset: int, now_ms: int) -> Segment:
        interval = self.config.index_interval_bytes
        return Segment.create(self._disk, self.directory, base_offset, now_ms=now_ms, index_interval=interval)

    def _seal_active(self, successor: Segment) -> None:
        """Go on in `successor`. The next flush seals: it covers the old file, the new one and its name, so nothing
        in the new file counts as flushed before all of the old one does."""
        sealed = self._active
        assert sealed.end_offset == successor.base_offset
        sealed.seal()
        self._segments.append(successor)
        self._opened_position = 0
        self._dirty[successor.inode] = successor.file
        self._names_changed = self._checkpoint_wanted = True

    def _segment_of(self, offset: int) -> int:
        """Index of the segment that holds `offset`, or would."""
        return bisect_right(self._segments, offset, key=attrgetter("base_offset")) - 1

    def _reading(self, segment: Segment) -> Segment:
        """Of the sealed segments only the one that was read last keeps its files open."""
        last, self._last_read = self._last_read, segment
        if last is not None:
            self._release_unused(last)
        return segment

    def _release_unused(self, segment: Segment) -> None:
        """Close a segment's files unless they are written to, being flushed or being read."""
        is_flushed = segment.base_offset < self._flushed.segment.base_offset
        if is_flushed and segment not in self._storing and segment is not self._last_read:
            segment.release()

    # -- flushes and checkpoints ---------------------------------------------------------------

    def begin_flush(self) -> Flush:
        """What is to be flushed so that everything appended so far is on disk. Takes a checkpoint along if one is due.

        Flushes are to be confirmed with `on_flushed` in the order in which they were begun.
        """
        return self._begin_flush(with_checkpoint=self._checkpoint_due or self.checkpoint_error is not None)

    def checkpoint(self) -> Flush:
        """`begin_flush` with a checkpoint in any case, for a clean stop: it and all that follows, then `close`."""
        return self._begin_flush(with_checkpoint=True)

    def want_checkpoint(self) -> None:
        """Have one written with the next flush, which is due now; also if the last one was given up."""
        self._checkpoint_wanted, self.checkpoint_error = True, None

    def on_flushed(self, token: int) -> Flush | None:
        """Go on after a flush: flushed_offset advances. What is returned is to be flushed next (a checkpoint's parts).

        Raises OSError from the disk; a full disk only puts the checkpoint off (`checkpoint_error`).
        """
        begun, go_on = self._in_flight.popleft()
        assert begun == token
        return go_on()

    def _flush(self, files: Sequence[File], directories: tuple[Path, ...], then: Callable[[], Flush | None]) -> Flush:
        self._token += 1
        self._in_flight.append((self._token, then))
        return Flush(self._token, tuple(files), directories)

    def _begin_flush(self, *, with_checkpoint: bool) -> Flush:
        checkpoint = None
        if with_checkpoint and not self._checkpoint_in_flight:
            checkpoint = self._snapshot()
            self._checkpoint_in_flight = True
            self._checkpoint_wanted = False
            self._new_bytes = self._new_batches = 0
        directories = (self.directory,) if self._names_changed else ()
        renamed_start = self.start_offset if self._names_changed else self._renamed_start
        files, self._dirty = tuple(self._dirty.values()), {}
        self._names_changed = False
        end = _Flushed(self.end_offset, self._active, self._active.size_bytes)
        return self._flush(files, directories, partial(self._on_data_flushed, end, renamed_start, checkpoint))

    def _snapshot(self) -> Checkpoint:
        """The checkpoint that holds once everything appended so far is on disk."""
        segments, cleaned_offset, swapped = self.swap.plan([segment.row() for segment in self._segments])
        return Checkpoint(
            flushed_offset=self.end_offset,
            log_start_offset=self._wanted_start,
            high_watermark=self.high_watermark,
            segments=segments,
            leader_epochs=tuple(self.leader_epochs.entries),
            producers=self.producers.snapshot(), owner=self.owner, cleaned_offset=cleaned_offset, swapped=swapped,
        )

    def _on_data_flushed(self, end: _Flushed, renamed_start: int, checkpoint: Checkpoint | None) -> Flush | None:
        self._flushed = end
        self._renamed_start = renamed_start
        return self._write_checkpoint(checkpoint) if checkpoint else None

    def _write_checkpoint(self, checkpoint: Checkpoint) -> Flush | None:
        """Write the index entries that the checkpoint counts on, and the checkpoint under its temporary name."""
        storing = [segment for segment in self._segments if segment.indexes_changed]
        try:
            files = [file for segment in storing for file in segment.store_indexes()]
            files.append(temporary := write_temporary(self._disk, self.directory, checkpoint))
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            for segment in storing:
                segment.indexes_changed = True
            self._checkpoint_in_flight = self.swap.in_flight = False
            self.checkpoint_error = error  # the next flush tries again
            return None
        self._storing = storing
        return self._flush(files, (), partial(self._on_checkpoint_flushed, temporary, checkpoint))

    def _on_checkpoint_flushed(self, temporary: File, checkpoint: Checkpoint) -> Flush:
        publish(self._disk, self.directory, temporary)
        stored, self._storing = self._storing, []
        for segment in stored:
            self._release_unused(segment)
        return self._flush((), (self.directory,), partial(self._on_checkpoint_named, checkpoint))

    def _on_checkpoint_named(self, checkpoint: Checkpoint) -> None:
        self._checkpoint_in_flight = False
        self.checkpoint_error = None
        self._checkpointed_start = checkpoint.log_start_offset
        self._checkpointed_base = checkpoint.segments[-1].base_offset
        if (replaced := self.swap.on_named(checkpoint)) is not None:
            self._put_in_place(replaced)
        self._move_start(checkpoint.log_start_offset)
        tombstones, self._tombstones = self._tombstones, []
        self.unlink_deleted(tombstones)

    def close(self) -> None:
        """Close all files. Nothing is written: a clean stop is `checkpoint`, its flushes, then `close`."""
        for segment in self._segments:
            segment.release()

    # -- reading -------------------------------------------------------------------------------

    def locate(self, offset: int, max_bytes: int, limit_offset: int) -> Location:
        """Where the batches from the one with `offset` on lie: whole batches of one segment.

        max_bytes: a wish; at least one batch is told.
        limit_offset: where a batch ends; no batch behind it is told. length 0 means: nothing there yet.
        Raises OffsetOutOfRange, CorruptLog.
        """
        if not self.start_offset <= offset <= self.end_offset:
            raise OffsetOutOfRange(offset, start_offset=self.start_offset, end_offset=self.end_offset)
        if offset < limit_offset:
            for index in range(self._segment_of(offset), len(self._segments)):
                segment = self._reading(self._segments[index])
                found = segment.find(offset)
                if found is not None:
                    position, header = found
                    if header.base_offset >= limit_offset:
                        break
                    end = segment.boundary(position, max_bytes, self._limit_position(segment, limit_offset))
                    return Location(
                        segment.base_offset, segment.inode, position, end - position, self._hot_position(segment)
                    )
        active = self._active
        return Location(active.base_offset, active.inode, active.size_bytes, 0, self._opened_position)

    def commit_point(self, offset: int) -> CommitPoint:
        """Where `offset` begins, or will begin. Cheap for flushed_offset and end_offset."""
        if offset == self._flushed.offset:
            return CommitPoint(self._flushed.segment.base_offset, self._flushed.segment.inode, self._flushed.position)
        segment = self._segments[max(self._segment_of(offset), 0)]
        return CommitPoint(segment.base_offset, segment.inode, self._limit_position(segment, offset))

    def offset_for_timestamp(self, timestamp_ms: int) -> TimestampOffset | None:
        """The first record with this timestamp or a later one, or None if there is none.

        Source: Kafka UnifiedLog.fetchOffsetByTimestamp.
        """
        late = (segment for segment in self._segments if segment.max_timestamp >= timestamp_ms)
        found = (self._reading(segment).find_record(timestamp_ms, self.start_offset) for segment in late)
        return next(filter(None, found), None)

    def max_timestamp_offset(self) -> TimestampOffset | None:
        """The first record that has the largest timestamp. Source: KIP-734."""
        newest = max(self._segments, key=attrgetter("max_timestamp"))
        latest = newest.max_timestamp
        return self._reading(newest).find_record(latest, self.start_offset) if latest >= 0 else None

    def _limit_position(self, segment: Segment, limit_offset: int) -> int:
        """Position in `segment` behind which no batch lies below `limit_offset`."""
        if limit_offset >= segment.end_offset:
            return segment.size_bytes
        if limit_offset == self._flushed.offset and segment is self._flushed.segment:
            return self._flushed.position
        found = self._reading(segment).find(limit_offset)
        return found[0] if found else segment.size_bytes

    def _hot_position(self, segment: Segment) -> int:
        return self._opened_position if segment is self._active else NEVER_HOT

    # -- compaction ----------------------------------------------------------------------------

    def replace(self, replacement: Replacement) -> bool:
        """Put a cleaned segment, whose `.cleaned` files are on disk, in the place of those that it was made of.

        That is so once a checkpoint says so: begin a flush afterwards (`flush_due`) and see `swap.is_settled`.
        Returns False, with the files gone, if those are not all there any more, or the last swap is not at its end.
        """
        begun = self.swap.begin(replacement, self.replaceable_rows)
        self._names_changed |= begun
        self._checkpoint_wanted |= begun
        return begun

    def first_timestamp(self, base_offset: int) -> int:
        """Largest timestamp of the first batch of the segment that begins there, -1 if there is none."""
        return self._reading(self._segments[self._segment_of(base_offset)]).first_timestamp

    def _put_in_place(self, replaced: Replacement) -> None:
        if self._last_read in replace_segments(self._disk, self._segments, replaced, self.directory):
            self._last_read = None
        self._names_changed = self._checkpoint_wanted = True  # the next one names no swap

    # -- deletion ------------------------------------------------------------------------------

    def delete_records(self, offset: int) -> None:
        """Have the log begin at `offset`, which is at most the high watermark.

        `start_offset` moves once a checkpoint on disk says so: whoever has seen it never sees an older one. Begin a
        flush afterwards (`flush_due`); segments below go with the next `apply_retention`.
        Source: KIP-107; Kafka UnifiedLog.maybeIncrementLogStartOffset.
        """
        assert offset <= self.end_offset
        if offset > self._wanted_start or (offset > self.start_offset and self.checkpoint_error):
            self._wanted_start = max(self._wanted_start, offset)
            self.want_checkpoint()

    def _move_start(self, offset: int) -> None:
        if offset > self.start_offset:
            self.start_offset = offset
            self._wanted_start = max(self._wanted_start, offset)
            self.leader_epochs.truncate_start(offset)

    def apply_retention(self, now_ms: int, limit_offset: int) -> list[Path]:
        """Drop the oldest segments that are too old or too many: start_offset moves, their files are renamed.

        limit_offset: the high watermark; nothing at or above it is dropped, nor anything that is not on disk.
        Begin a flush afterwards (`flush_due`), and hand the returned paths to `unlink_deleted` after
            `file.delete.delay.ms`.
        """
        if self.swap.in_flight:
            return []  # what a checkpoint tells of stays until it is on disk
        # No room for the checkpoint that moves the start: then renamed segments prove as much of it as they can.
        start_offset = self._wanted_start if self.checkpoint_error else self.start_offset
        count = expired_segments(
            self._segments, self.config, now_ms=now_ms, start_offset=start_offset, limit_offset=limit_offset
        )
        if count == len(self._segments):
            # An active segment is dropped once its successor is on disk, which is the next time.
            try:
                self._seal_active(self._create_segment(self.end_offset, now_ms))
            except OSError as error:
                if error.errno not in FULL_DISK:
                    raise
        # Recovery goes on from the segment that was active at the last checkpoint; below it all is flushed.
        dropped = [segment for segment in self._segments[:count] if segment.base_offset < self._checkpointed_base]
        del self._segments[: len(dropped)]
        paths = []
        for segment in dropped:
            if segment not in self._storing:
                segment.release()
            paths += segment.rename(DELETED_SUFFIX)
        if dropped:
            self._move_start(self._segments[0].base_offset)
            self._names_changed = self._checkpoint_wanted = True
        return paths

    def unlink_deleted(self, paths: Sequence[Path]) -> None:
        """Unlink files that `apply_retention` has renamed.

        A name goes only after a checkpoint with a later start is on disk: until then it proves to recovery that
        the segment was dropped and not lost. Its room is given back at once, so that a full disk, where no
        checkpoint can be written, is not full for ever.
        """
        for path in paths:
            base_offset = int(path.name.partition(".")[0])
            if base_offset < self._checkpointed_start:
                if self._disk.exists(path):
                    self._disk.unlink(path)
                continue
            self._tombstones.append(path)
            self._checkpoint_wanted = True  # it also tries a start again that found the disk full
            if base_offset < self._renamed_start:
                file = self._disk.open(path)
                self._disk.truncate(file, 0)
                self._disk.close(file)
