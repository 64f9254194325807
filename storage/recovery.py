"""Opening a partition's log: what a crash or a power cut left behind becomes a log again, or is refused.

Owns: the rule of what may be cut. The recovery checkpoint says what was on disk once:
- Below it nothing is read, only file sizes are compared. What is missing or damaged there was known to be good:
  CorruptLog, and nothing is ever cut.
- Above it every batch is checked. The first one that fails is a torn tail: it and everything behind it, later
  segments included, was never flushed or not acknowledged, and is cut; the bytes are kept in `<segment>.cut`.
- Without a (whole) checkpoint of this very partition everything is checked and nothing is known. A checkpoint is on disk before the first
  append, so that this alone is damage. If then a batch fails and no valid batch stands anywhere behind it, it is
  taken for a torn tail; with a valid one behind it, it cannot be told from a batch that was acknowledged: CorruptLog.
Invariant: a log is handed out only after everything in it was flushed, with its names, and a checkpoint says so.
Each step can be killed and done again: what is cut goes from the end towards the front.
May fail with OSError from the disk, CorruptLog, and FailedFlush, after which nothing that was read is to be believed.
Source: Kafka LogLoader.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from zafka.storage.checkpoint import (
    TEMPORARY_SUFFIX,
    Checkpoint,
    find_checkpoint,
    owner_of,
    publish,
    write_temporary,
)
from zafka.storage.config import LogConfig
from zafka.storage.disk import Disk, sync
from zafka.storage.errors import CorruptLog, StorageError
from zafka.storage.leader_epochs import LeaderEpochs
from zafka.storage.log import DELETED_SUFFIX, Log
from zafka.storage.producer_state import ProducerStates
from zafka.storage.scan import CHUNK_BYTES, Scan, find_batch_behind, no_progress
from zafka.storage.segment import LOG_SUFFIX, Segment, SegmentRow, empty_row, segment_path, segment_paths
from zafka.storage.swap import settle
from zafka.storage.torn_tail import FULL_DISK, cut_torn_tail

_SEGMENT_FILE = re.compile(r"(\d{20})(\.log|\.index|\.timeindex)(\.deleted)?")


@dataclass
class RecoveryReport:
    """What recovery found and did, for the log and for `zafka status`.

    checkpoint: "ok", "new" for an empty directory, "missing", or why it was not used (corrupt, foreign).
    cut: files that hold what was cut off, cut_bytes in all.
    rebuilt: segments whose indexes were made afresh.
    warnings: what was odd but harmless.
    """

    checkpoint: str = "ok"
    scanned_batches: int = 0
    scanned_bytes: int = 0
    cut_bytes: int = 0
    cut: list[Path] = field(default_factory=list)
    rebuilt: list[Path] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    changed: bool = False  # the checkpoint on disk no longer says all


def recover(
    disk: Disk, directory: Path, config: LogConfig, now_ms: int, progress: Callable[[], None] | None = None,
    *, least_start: int = 0,
) -> tuple[Log, RecoveryReport]:
    """Open the log in `directory`; an empty one is made where there is none.

    progress: called between steps of a long recovery. least_start: where the log begins at least, for one without a
        checkpoint to say so.
    Everything in the log that is returned is on disk.
    Raises CorruptLog, with nothing cut, FailedFlush, ForeignTopic and OSError.
    """
    return _Recovery(disk, directory, config, now_ms, progress or no_progress, least_start).run()


class _Recovery:
    """The files of one directory on their way to a `Log`."""

    def __init__(
        self, disk: Disk, directory: Path, config: LogConfig, now_ms: int, progress: Callable[[], None], least_start: int
    ) -> None:
        self.disk = disk
        self.directory = directory
        self.config = config
        self.now_ms = now_ms
        self.progress = progress
        self.least_start = least_start
        self.report = RecoveryReport()
        self.owner = b""
        self.checkpoint: Checkpoint | None = None
        self.segments: list[Segment] = []
        self.scanned: list[tuple[Segment, int]] = []  # from which position on, to its end
        self.leader_epochs = LeaderEpochs()
        self.producers = ProducerStates()
        self.start_offset = 0
        self.bases: list[int] = []  # of the .log files, in order
        self.indexes: set[str] = set()  # names of the index files
        self.deleted: list[Path] = []  # what retention has dropped and not yet unlinked

    def run(self) -> tuple[Log, RecoveryReport]:
        try:
            self.list_files()
            self.load_checkpoint()
            self.settle_swap()
            self.drop_deleted()
            if self.bases or self.checkpoint is not None:
                self.open_checkpointed()
                self.scan_rest()
                if self.checkpoint is None:
                    self.start_offset = max(self.start_offset, min(self.least_start, self.segments[-1].end_offset))
            else:
                self.create_first()
            self.flush()
            if self.report.changed:
                self.write_checkpoint()
        except (StorageError, OSError):
            for segment in self.segments:
                segment.release()
            raise
        log = Log(
            self.disk, self.directory, self.config, segments=self.segments, start_offset=self.start_offset,
            leader_epochs=self.leader_epochs, producers=self.producers, checkpoint=self.checkpoint, owner=self.owner,
        )
        log.unlink_deleted(self.deleted)
        return log, self.report

    # -- what is there -------------------------------------------------------------------------

    def list_files(self) -> None:
        self.disk.make_directory(self.directory)
        for name in self.disk.list_directory(self.directory):
            path = self.directory / name
            match = _SEGMENT_FILE.fullmatch(name)
            if name.endswith(TEMPORARY_SUFFIX):
                self.disk.unlink(path)  # a checkpoint that was never finished
            elif match is None:
                continue
            elif match[3]:
                self.deleted.append(path)
            elif match[2] == LOG_SUFFIX:
                self.bases.append(int(match[1]))
            else:
                self.indexes.add(name)
        self.bases.sort()

    def load_checkpoint(self) -> None:
        self.owner = owner_of(self.disk, self.directory)
        self.checkpoint, self.report.checkpoint = find_checkpoint(self.disk, self.directory, self.owner)
        if self.checkpoint is None:
            self.report.changed = True
            if self.report.checkpoint == "missing" and not self.bases:
                self.report.checkpoint = "new"
            self.start_offset = self.bases[0] if self.bases else 0
            return
        self.producers.load(self.checkpoint.producers)
        self.start_offset = self.checkpoint.log_start_offset
        self.leader_epochs = LeaderEpochs(self.checkpoint.leader_epochs)

    def settle_swap(self) -> None:
        """Go on with what compaction had begun, or undo it (`storage/swap.py`)."""
        if settle(self.disk, self.directory, self.checkpoint):
            self.report.changed = True  # the next checkpoint names no swap
            self.bases, self.indexes, self.deleted = [], set(), []
            self.list_files()

    def drop_deleted(self) -> None:
        """Go on with what retention had begun: a renamed segment proves that it and all before it were dropped."""
        dropped = [int(path.name[:20]) for path in self.deleted if path.name.endswith(LOG_SUFFIX + DELETED_SUFFIX)]
        if dropped:
            behind = [base for base in self.bases if base > max(dropped)]
            if not behind:
                path = segment_path(self.directory, max(dropped), LOG_SUFFIX + DELETED_SUFFIX)
                raise CorruptLog(path, position=0, offset=max(dropped), reason="no segment is left behind it")
            if behind[0] > self.start_offset:
                self.start_offset = behind[0]
                self.report.changed = True
        # A rename that a power cut took back leaves a segment below the start. The one that was active at the checkpoint
        # stays until a newer one says that it may go, as in `Log.apply_retention`.
        active = self.checkpoint.segments[-1].base_offset if self.checkpoint else 0
        while len(self.bases) > 1 and self.bases[1] <= self.start_offset and self.bases[0] < active:
            for path in segment_paths(self.directory, self.bases.pop(0)):
                if path.suffix == LOG_SUFFIX or path.name in self.indexes:
                    self.indexes.discard(path.name)
                    self.deleted.append(path.with_name(path.name + DELETED_SUFFIX))
                    self.disk.rename(path, self.deleted[-1])
        # A power cut can take the rename of a segment back and leave those of its indexes.
        for path in [path for path in self.deleted if int(path.name[:20]) >= self.start_offset]:
            self.deleted.remove(path)
            self.disk.unlink(path)
        self.report.changed |= bool(self.deleted)

    # -- below the checkpoint: sizes only ------------------------------------------------------

    def open_checkpointed(self) -> None:
        """Open the segments that the checkpoint tells of. The last of them may have grown since."""
        if self.checkpoint is None:
            return
        *rows, last = self.checkpoint.segments
        # Retention never drops the last one before a newer checkpoint is on disk.
        rows = [row for row in rows if row.end_offset > self.start_offset]
        for row in (*rows, last):
            segment = self.open_segment(row)
            self.segments.append(segment)
            segment.sealed = sealed = row is not last
            size = self.disk.size(segment.file) if row.base_offset in self.bases else -1
            if size < row.size_bytes or (sealed and size > row.size_bytes):
                found = "the file is missing" if size < 0 else f"the file has {size} bytes"
                raise CorruptLog(
                    segment.path, position=max(min(size, row.size_bytes), 0), offset=row.base_offset,
                    reason=f"{found} where the checkpoint says {row.size_bytes}",
                )
            self.check_indexes(segment)
            if sealed:
                segment.release()
        self.warn_of_strangers()

    def check_indexes(self, segment: Segment) -> None:
        """Rebuild the indexes of a segment if their files are not as long as the checkpoint says.

        Of sealed segments only sizes are looked at; an entry that lies is found when it is used. The active one's
        files may be longer: the checkpoint was told before they were written.
        """
        indexes = (segment.offset_index, segment.time_index)
        if all(path.name in self.indexes for path in segment.index_paths):
            surplus = [self.disk.size(index.open()) - index.size_bytes for index in indexes]
            if surplus == [0, 0]:
                return
            if not segment.sealed and min(surplus) >= 0:
                for index in indexes:
                    index.cut_file()
                if segment.indexes_end_within():
                    return
        segment.rebuild_indexes(self.progress)
        self.report.rebuilt.append(segment.path)
        self.report.changed = True
        self.store_indexes(segment)

    def warn_of_strangers(self) -> None:
        known = {segment.base_offset for segment in self.segments}
        for base in self.bases:
            if base not in known and base < self.segments[-1].base_offset:
                path = segment_path(self.directory, base, LOG_SUFFIX)
                self.report.warnings.append(f"{path} is not part of this log and is not used")

    # -- above the checkpoint: every batch -----------------------------------------------------

    def scan_rest(self) -> None:
        """Check everything behind the checkpoint and take it into the log, up to a torn tail, which is cut."""
        if not self.segments:
            self.segments.append(self.open_segment(empty_row(self.bases[0])))
        later = [base for base in self.bases if base > self.segments[-1].base_offset]
        reason = self.scan_segment(self.segments[-1])
        while not reason and later:
            expected = self.segments[-1].end_offset
            if later[0] != expected:
                reason = f"the next segment begins at offset {later[0]}, {expected} should come"
                break
            self.segments[-1].seal()
            self.store_indexes(self.segments[-1])
            self.segments.append(self.open_segment(empty_row(later.pop(0))))
            reason = self.scan_segment(self.segments[-1])
        if reason:
            self.refuse_if_corrupt(reason, later)
            self.cut(later)

    def scan_segment(self, segment: Segment) -> str:
        """Take the valid batches behind those that are known into the segment; returns what is wrong, or ""."""
        begin, end = segment.size_bytes, self.disk.size(segment.file)
        epochs, producers, batches = self.leader_epochs, self.producers, 0
        latest = epochs.latest
        scan = Scan(
            self.disk, segment.file, position=begin, end=end, expected_offset=segment.end_offset,
            leader_epoch=latest, progress=self.progress,
        )
        for _, header in scan:
            segment.note(header, header.base_offset)
            if header.producer_id >= 0:
                producers.update(header, header.base_offset)
            if header.leader_epoch > latest:
                latest = header.leader_epoch
                epochs.assign(latest, header.base_offset)
            batches += 1
        assert segment.size_bytes == scan.position
        if scan.position > begin:
            self.scanned.append((segment, begin))
        self.report.scanned_batches += batches
        self.report.scanned_bytes += scan.position - begin
        self.report.changed |= batches > 0
        return scan.reason

    def refuse_if_corrupt(self, reason: str, later: list[int]) -> None:
        """Without a checkpoint, damage with valid batches behind it may be damage to what was acknowledged."""
        if self.checkpoint is not None:
            return
        segment = self.segments[-1]
        position, expected = segment.size_bytes, segment.end_offset
        places = [(segment.file, position)]
        places += [(self.disk.open(segment_path(self.directory, base, LOG_SUFFIX)), -1) for base in later]
        try:
            for file, start in places:
                found = find_batch_behind(
                    self.disk, file, position=start, end=self.disk.size(file), expected_offset=expected,
                    progress=self.progress,
                )
                if found >= 0:
                    reason = f"{reason}; valid batches stand behind it ({file.path.name}, position {found}), and no " \
                        "checkpoint says whether it was on disk before"
                    raise CorruptLog(segment.path, position=position, offset=expected, reason=reason)
        finally:
            for file, _ in places[1:]:
                self.disk.close(file)

    # -- cutting a torn tail -------------------------------------------------------------------

    def cut(self, later: list[int]) -> None:
        """Cut what stands behind the valid batches, and keep it."""
        segment = self.segments[-1]
        cut = cut_torn_tail(self.disk, self.directory, segment.file, segment.size_bytes, later, self.progress)
        self.bases = [base for base in self.bases if base not in later]
        self.report.cut += cut.files
        self.report.cut_bytes += cut.size_bytes
        self.report.warnings += cut.warnings
        self.report.changed = True

    # -- the end -------------------------------------------------------------------------------

    def create_first(self) -> None:
        self.segments.append(
            Segment.create(
                self.disk, self.directory, 0, now_ms=self.now_ms, index_interval=self.config.index_interval_bytes
            )
        )

    def flush(self) -> None:
        """Everything that was taken into the log is put on disk, with all names."""
        if self.checkpoint is None:
            # The directory may be new, and the one above it. Until there is a checkpoint nobody knows that both are
            # on disk: a kill may have come between their making and this.
            sync(self.disk, directories=(self.directory.parent, self.directory.parent.parent))
        kept = {path.name for segment in self.segments for path in segment.index_paths}
        for name in sorted(self.indexes - kept):
            self.disk.unlink(self.directory / name)
        self.write_again()
        scanned_from = self.checkpoint.segments[-1].base_offset if self.checkpoint else 0
        for segment in self.segments:
            if segment.base_offset >= scanned_from:
                sync(self.disk, segment.file)
            if segment.sealed:
                segment.release()
        sync(self.disk, directories=(self.directory,))

    def write_again(self) -> None:
        """Write what was scanned to where it stands, so that the flush that follows is one of it.

        A flush may have failed and its process been killed before it could leave the marker: then the page cache
        takes these bytes for clean, and a flush alone would do nothing about them. It is little, below a checkpoint's
        distance, and after a clean stop nothing.
        """
        try:
            for segment, begin in self.scanned:
                for position in range(begin, segment.size_bytes, CHUNK_BYTES):
                    length = min(CHUNK_BYTES, segment.size_bytes - position)
                    self.disk.pwritev(segment.file, (self.disk.pread(segment.file, length, position),), position)
                    self.progress()
        except OSError as error:
            self.put_off(error, "what was recovered")

    def store_indexes(self, segment: Segment) -> None:
        """Write and flush what the indexes have in memory only; left for later on a full disk."""
        try:
            for index in (segment.offset_index, segment.time_index):
                file = index.store()
                index.cut_file()
                sync(self.disk, file)
            segment.indexes_changed = False
        except OSError as error:
            self.put_off(error, f"the indexes of {segment.path}")

    def write_checkpoint(self) -> None:
        for segment in self.segments:
            if segment.indexes_changed or segment is self.segments[-1]:
                self.store_indexes(segment)
        if any(segment.indexes_changed for segment in self.segments):
            return
        high_watermark = self.checkpoint.high_watermark if self.checkpoint else self.start_offset
        end_offset = self.segments[-1].end_offset
        checkpoint = Checkpoint(
            end_offset, self.start_offset, min(max(high_watermark, self.start_offset), end_offset),
            tuple(segment.row() for segment in self.segments), tuple(self.leader_epochs.entries),
            self.producers.snapshot(), self.owner,
            min(self.checkpoint.cleaned_offset, end_offset) if self.checkpoint else 0,
        )
        try:
            temporary = write_temporary(self.disk, self.directory, checkpoint)
        except OSError as error:
            self.put_off(error, "the checkpoint")
            return
        sync(self.disk, temporary)
        publish(self.disk, self.directory, temporary)
        sync(self.disk, directories=(self.directory,))
        self.checkpoint = checkpoint

    def put_off(self, error: OSError, what: str) -> None:
        if error.errno not in FULL_DISK:
            raise error
        self.report.warnings.append(f"the disk is full: {what} cannot be written yet")

    def open_segment(self, row: SegmentRow) -> Segment:
        return Segment(
            self.disk, self.directory, row, created_ms=self.now_ms, index_interval=self.config.index_interval_bytes
        )

