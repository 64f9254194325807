"""Looking at a partition's files without changing any: which offsets can be read, which cannot, and what nobody knows.

Owns: `Verdict`. It tells apart what recovery tells apart:
- Below the recovery checkpoint everything was on disk once. What cannot be read there is damage, and its offsets are
  known exactly, to the batch: from the one that must come next to where whole batches go on.
- Above it the first batch that fails begins a torn tail, which every start cuts. Whether anything in it had been
  acknowledged cannot be known from the files.
- Without a checkpoint a batch that fails is damage if whole batches stand behind it, else a torn tail.
Reads every byte of every segment. May fail with OSError from the disk, and ForeignTopic.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from zafka.storage.batch import HEADER, HEADER_BYTES, NO_TIMESTAMP, BatchHeader
from zafka.storage.checkpoint import Checkpoint, find_checkpoint, owner_of
from zafka.storage.compaction import is_hole
from zafka.storage.directory import read_topic_id
from zafka.storage.disk import Disk, File
from zafka.storage.errors import CorruptSnapshot
from zafka.storage.fault import read_marker, read_recovered
from zafka.storage.index_check import IndexCheck
from zafka.storage.leader_epochs import LeaderEpochs
from zafka.storage.scan import Scan, find_batch_behind, no_progress
from zafka.storage.segment import SegmentRow, segment_paths, suffixed_paths
from zafka.storage.snapshot import find_replacing, read_point, read_sections
from zafka.storage.swap import SWAP_SUFFIX

UNKNOWN = -1

_LOG_FILE = re.compile(r"(\d{20})\.log(\.deleted)?")


class Stretch(NamedTuple):
    """Whole batches, one behind the other: bytes position..end_position-1, offsets first_offset..end_offset-1."""

    position: int
    end_position: int
    first_offset: int
    end_offset: int


class Damage(NamedTuple):
    """Bytes that are no valid batches, and the offsets that were in them. No offsets: bytes that should not be there.

    leader_epoch: of the last of these offsets, as far as is known; -1 if it is not.
    """

    position: int
    end_position: int
    first_offset: int
    end_offset: int
    reason: str
    leader_epoch: int


class Torn(NamedTuple):
    """What every start cuts: everything from `position` of this segment on, and the segments behind it.

    size_bytes: of all of it. first_offset: what would have come there.
    """

    base_offset: int
    position: int
    size_bytes: int
    first_offset: int
    later: tuple[int, ...]
    reason: str


@dataclass
class SegmentVerdict:
    """end_offset: behind the last offset that it has or had. max_timestamp: as the checkpoint says, or -1.

    given_up: offsets of empty batches, which stand where an earlier recovery by hand gave something up.
    notes: what mends itself at the next start (indexes).
    """

    base_offset: int
    end_offset: int
    max_timestamp: int = NO_TIMESTAMP
    stretches: list[Stretch] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    given_up: list[tuple[int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class SnapshotVerdict(NamedTuple):
    """A snapshot that may stand for the beginning of the log. reason: why it is not to be believed, or ""."""

    name: str
    reason: str


@dataclass
class Verdict:
    """marker: why the replica was given up, or "". checkpoint: as in `RecoveryReport`.

    flushed_offset: below it everything was on disk once; UNKNOWN without a checkpoint.
    strangers: base offsets of files that are not part of the log.
    """

    directory: Path
    topic_id: bytes | None
    marker: str
    checkpoint: str
    flushed_offset: int
    start_offset: int = 0
    end_offset: int = 0
    segments: list[SegmentVerdict] = field(default_factory=list)
    torn: Torn | None = None
    strangers: list[int] = field(default_factory=list)
    snapshots: list[SnapshotVerdict] = field(default_factory=list)  # the newest first

    @property
    def lost(self) -> list[tuple[int, int]]:
        """The offsets that cannot be read, as (first, behind the last)."""
        return merged((each.first_offset, each.end_offset) for one in self.segments for each in one.damages)

    @property
    def is_damaged(self) -> bool:
        return any(segment.damages for segment in self.segments)

    @property
    def is_sound(self) -> bool:
        """Whether it would be served as it is, with nothing missing that is known to have been there."""
        return not self.is_damaged and not self.marker and self.checkpoint in ("ok", "new")


class _Known(NamedTuple):
    """What is known of a segment without reading it; UNKNOWN where it is not."""

    base_offset: int
    end_offset: int
    size_bytes: int
    offset_index_bytes: int = UNKNOWN
    time_index_bytes: int = UNKNOWN
    max_timestamp: int = NO_TIMESTAMP


def verify(disk: Disk, directory: Path, progress: Callable[[], None] = no_progress) -> Verdict:
    """Read all of a partition's log. progress: called between chunks."""
    return _Look(disk, directory, progress).run()


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges of offsets in order, those that touch made one, empty ones left out."""
    result: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if result and first <= result[-1][1]:
            result[-1] = result[-1][0], max(end, result[-1][1])
        elif first < end:
            result.append((first, end))
    return result


class _Look:
    def __init__(self, disk: Disk, directory: Path, progress: Callable[[], None]) -> None:
        self.disk = disk
        self.directory = directory
        self.progress = progress
        self.sizes: dict[int, int] = {}  # of the .log files, by base offset
        self.swapped = -1  # base offset of the segment that the next start gives its name (`storage/swap.py`)
        self.leader_epoch = -1  # of the last whole batch
        self.epochs = LeaderEpochs()

    def run(self) -> Verdict:
        deleted = self.list_files()
        checkpoint, said = find_checkpoint(self.disk, self.directory, owner_of(self.disk, self.directory))
        unfinished = read_recovered(self.disk, self.directory)
        if said == "missing" and not self.sizes:
            said = "new"
        self.verdict = verdict = Verdict(
            self.directory, read_topic_id(self.disk, self.directory), read_marker(self.disk, self.directory), said,
            checkpoint.flushed_offset if checkpoint else UNKNOWN)
        behind = [base for base in self.sizes if base > max(deleted, default=-1)]
        verdict.start_offset = min(behind, default=0) if deleted or not checkpoint else 0
        if checkpoint is not None:
            verdict.start_offset = max(verdict.start_offset, checkpoint.log_start_offset)
            self.see_swap(checkpoint)
            self.look_below(checkpoint)
            self.look_above(checkpoint.segments[-1])
        elif unfinished is not None and not unfinished.finished:
            # Its first step was to write down where the log begins and ends.
            verdict.start_offset = unfinished.start_offset
            base_offset = unfinished.start_offset if unfinished.base_offset < 0 else unfinished.base_offset
            self.look_at_all(base_offset, unfinished.end_offset)
        elif self.sizes:
            self.look_at_all(verdict.start_offset, UNKNOWN)
        if verdict.segments:
            verdict.end_offset = verdict.segments[-1].end_offset
        verdict.snapshots = [
            SnapshotVerdict(name, self.look_at_snapshot(name)) for name in find_replacing(self.disk, self.directory)]
        return verdict

    def look_at_snapshot(self, name: str) -> str:
        try:
            point = read_point(self.disk, self.directory, name)
            for _ in read_sections(self.disk, self.directory, name):
                self.progress()
        except CorruptSnapshot as corrupt:
            return str(corrupt)
        assert point is not None
        if point.owner != owner_of(self.disk, self.directory):
            return "foreign: it is another log's"
        if not self.verdict.start_offset <= point.offset <= point.end_offset <= self.verdict.end_offset:
            return f"it stands at offset {point.offset} of a log from {self.verdict.start_offset} to {self.verdict.end_offset}"
        return ""

    def list_files(self) -> list[int]:
        """Fill `sizes`; returns the base offsets of what retention has dropped and not yet unlinked."""
        deleted = []
        for name in self.disk.list_directory(self.directory):
            match = _LOG_FILE.fullmatch(name)
            if match is not None and match[2]:
                deleted.append(int(match[1]))
            elif match is not None:
                file = self.disk.open(self.directory / name)
                self.sizes[int(match[1])] = self.disk.size(file)
                self.disk.close(file)
        return deleted

    def see_swap(self, checkpoint: Checkpoint) -> None:
        """See the files as the next start makes them, if compaction was interrupted in the middle of a swap."""
        for row in checkpoint.segments:
            if row.base_offset != checkpoint.swapped:
                continue
            for base in [base for base in self.sizes if row.base_offset < base < row.end_offset]:
                del self.sizes[base]
            path, *_ = suffixed_paths(self.directory, row.base_offset, SWAP_SUFFIX)
            if self.disk.exists(path):
                self.swapped = row.base_offset
                file = self.disk.open(path)
                self.sizes[row.base_offset] = self.disk.size(file)
                self.disk.close(file)

    def paths(self, base_offset: int) -> tuple[Path, Path, Path]:
        swap = suffixed_paths(self.directory, base_offset, SWAP_SUFFIX)
        plain = segment_paths(self.directory, base_offset)
        if base_offset != self.swapped:
            return plain
        log, offset_index, time_index = (
            new if self.disk.exists(new) else old for new, old in zip(swap, plain, strict=True))
        return log, offset_index, time_index

    # -- which segments ------------------------------------------------------------------------

    def look_below(self, checkpoint: Checkpoint) -> None:
        """Everything that the checkpoint tells of."""
        self.epochs = LeaderEpochs(checkpoint.leader_epochs)
        *rows, last = checkpoint.segments
        rows = [row for row in rows if row.end_offset > self.verdict.start_offset]
        for row in (*rows, last):
            self.look_at(_known(row), sealed=row is not last)
        known = {row.base_offset for row in (*rows, last)}
        self.verdict.strangers = [base for base in self.sizes if base not in known and base < last.base_offset]

    def look_at_all(self, first_base: int, end_offset: int) -> None:
        """Without a checkpoint: each segment ends where the next one begins."""
        bases = sorted({first_base, *(base for base in self.sizes if base >= first_base)})
        for base, next_base in zip(bases, [*bases[1:], end_offset], strict=True):
            self.look_at(_Known(base, next_base, self.sizes.get(base, 0)), sealed=base != bases[-1])
        self.verdict.strangers = [base for base in self.sizes if base < first_base]
        last = self.verdict.segments[-1]
        if end_offset == UNKNOWN:
            self.take_for_torn(last)

    def take_for_torn(self, last: SegmentVerdict) -> None:
        """Damage with nothing whole behind it, where nobody knows how far the log went."""
        end = last.stretches[-1].end_position if last.stretches else 0
        trailing = [damage for damage in last.damages if damage.position >= end]
        last.end_offset = last.stretches[-1].end_offset if last.stretches else last.base_offset
        if trailing:
            del last.damages[-len(trailing) :]
            self.verdict.torn = Torn(
                last.base_offset, end, self.sizes[last.base_offset] - end, last.end_offset, (), trailing[0].reason)

    def look_above(self, row: SegmentRow) -> None:
        """What was written since the checkpoint, up to the first batch that fails."""
        last = self.verdict.segments[-1]
        later = sorted(base for base in self.sizes if base > row.base_offset)
        reason = self.extend(last, row.size_bytes, row.end_offset)
        while not reason and later:
            expected = last.end_offset
            if later[0] != expected:
                reason = f"the next segment begins at offset {later[0]}, {expected} should come"
                break
            last = SegmentVerdict(expected, expected)
            self.verdict.segments.append(last)
            reason = self.extend(last, 0, later.pop(0))
        if reason:
            position = last.stretches[-1].end_position if last.stretches else 0
            if last.base_offset == row.base_offset:
                position = max(position, row.size_bytes)
            size = max(self.sizes.get(last.base_offset, 0) - position, 0) + sum(self.sizes[base] for base in later)
            self.verdict.torn = Torn(last.base_offset, position, size, last.end_offset, tuple(later), reason)

    def extend(self, found: SegmentVerdict, position: int, expected: int) -> str:
        """Take the whole batches from `position` on; returns what is wrong behind them, or ""."""
        end = self.sizes.get(found.base_offset, 0)
        if end < position:
            return ""
        file = self.disk.open(self.paths(found.base_offset)[0])
        try:
            _, found.end_offset, reason = self.take(found, None, file, position, end, expected, UNKNOWN)
        finally:
            self.disk.close(file)
        return reason

    # -- one segment ---------------------------------------------------------------------------

    def look_at(self, known: _Known, *, sealed: bool) -> None:
        """A segment of which it is known how far it goes, or that must end where its file does."""
        found = SegmentVerdict(known.base_offset, max(known.end_offset, known.base_offset), known.max_timestamp)
        self.verdict.segments.append(found)
        size = self.sizes.get(known.base_offset, UNKNOWN)
        if size == UNKNOWN:
            self.damage(found, 0, 0, known.base_offset, known.end_offset, "the file is missing")
            return
        path, *indexes = self.paths(known.base_offset)
        check = IndexCheck(
            self.disk, *indexes, base_offset=known.base_offset, offset_bytes=known.offset_index_bytes,
            time_bytes=known.time_index_bytes, sealed=sealed)
        file = self.disk.open(path)
        try:
            self.read_through(found, check, file, known, min(size, known.size_bytes))
        finally:
            self.disk.close(file)
        if sealed and size > known.size_bytes:
            reason = f"the file has {size} bytes where the checkpoint says {known.size_bytes}"
            self.damage(found, known.size_bytes, size, known.end_offset, known.end_offset, reason)
        found.notes += check.complaints()

    def read_through(self, found: SegmentVerdict, check: IndexCheck, file: File, known: _Known, limit: int) -> None:
        """From whole batches to damage to whole batches, up to `limit`."""
        position, expected = 0, known.base_offset
        while position < limit:
            position, expected, reason = self.take(found, check, file, position, limit, expected, known.end_offset)
            if not reason:
                break
            next_position, next_offset = self.go_on(file, position, limit, expected, known.end_offset)
            if next_offset == UNKNOWN:
                self.damage(found, position, limit, expected, known.end_offset, reason)
                return
            self.damage(found, position, next_position, expected, next_offset, reason)
            position, expected = next_position, next_offset
        if known.end_offset == UNKNOWN:
            found.end_offset = expected
        elif expected < known.end_offset:
            reason = f"the file ends at position {limit}, at offset {known.end_offset} it should"
            self.damage(found, limit, limit, expected, known.end_offset, reason)

    def take(
        self, found: SegmentVerdict, check: IndexCheck | None, file: File, position: int, limit: int, expected: int,
        end_offset: int,
    ) -> tuple[int, int, str]:
        """Note the whole batches from `position` on; (position, offset) behind them, and what is wrong there."""
        scan = Scan(
            self.disk, file, position=position, end=limit, expected_offset=expected, leader_epoch=self.leader_epoch,
            progress=self.progress)
        at, next_offset, reason = position, expected, ""
        for batch_position, header in scan:
            reason = self.contradiction(header, end_offset)
            if reason:
                break
            at, next_offset = batch_position + header.size_bytes, header.next_offset
            self.leader_epoch = header.leader_epoch
            if not header.record_count and header.producer_id < 0 and not is_hole(header):
                found.given_up.append((header.base_offset, header.next_offset))
            if check is not None:
                check.on_batch(batch_position, header)
        if at > position:
            found.stretches.append(Stretch(position, at, expected, next_offset))
        return at, next_offset, reason or scan.reason

    def contradiction(self, header: BatchHeader, end_offset: int) -> str:
        """What the checkpoint says against a batch whose CRC fits: leader epoch and offset are not covered by it."""
        if end_offset != UNKNOWN and header.next_offset > end_offset:
            return f"a batch that goes on to offset {header.next_offset} where {end_offset} ends the segment"
        known_epoch = self.epochs.epoch_for(header.base_offset)
        if header.base_offset < self.verdict.flushed_offset and known_epoch not in (-1, header.leader_epoch):
            return f"a batch of leader epoch {header.leader_epoch} where the checkpoint says {known_epoch}"
        return ""

    # -- behind damage -------------------------------------------------------------------------

    def go_on(self, file: File, position: int, limit: int, expected: int, end_offset: int) -> tuple[int, int]:
        """(position, offset) where whole batches go on behind damage, or UNKNOWN both.

        The damaged batch's own header is believed if the next batch stands where it says. Else every place is tried;
        a batch counts only if another follows it or the segment ends with it, because a record may hold batches.
        """
        header = self.header(file, position, limit)
        if header is not None and header.base_offset == expected and header.last_offset_delta >= 0:
            after = position + header.size_bytes
            following = self.header(file, after, limit)
            if (after == limit and header.next_offset == end_offset) or (
                following is not None and following.base_offset == header.next_offset
            ):
                return after, header.next_offset
        while True:
            position = find_batch_behind(
                self.disk, file, position=position, end=limit, expected_offset=max(expected - 1, 0),
                progress=self.progress)
            header = self.header(file, position, limit) if position >= 0 else None
            if header is None:
                return UNKNOWN, UNKNOWN
            after, fits = position + header.size_bytes, end_offset == UNKNOWN or header.next_offset <= end_offset
            if fits and (after == limit or self.is_whole(file, after, limit, header.next_offset)):
                return position, header.base_offset

    def header(self, file: File, position: int, limit: int) -> BatchHeader | None:
        """What stands there, if it may be a batch's."""
        if position + HEADER_BYTES > limit:
            return None
        header = BatchHeader._make(HEADER.unpack(self.disk.pread(file, HEADER_BYTES, position)))
        return header if header.magic == 2 and HEADER_BYTES <= header.size_bytes <= limit - position else None

    def is_whole(self, file: File, position: int, limit: int, expected: int) -> bool:
        scan = Scan(self.disk, file, position=position, end=limit, expected_offset=expected)
        return next(iter(scan), None) is not None

    def damage(
        self, found: SegmentVerdict, position: int, end_position: int, first_offset: int, end_offset: int, reason: str
    ) -> None:
        epoch = max(self.epochs.epoch_for(end_offset - 1), self.leader_epoch)
        found.damages.append(Damage(position, end_position, first_offset, end_offset, reason, epoch))


def _known(row: SegmentRow) -> _Known:
    return _Known(
        row.base_offset, row.end_offset, row.size_bytes, row.offset_index_bytes, row.time_index_bytes,
        row.max_timestamp)
