"""Putting a cleaned segment in the place of those that it was made of, so that a crash at any step leaves one or the other.

Owns: `Replacement`, `Swap`; the steps on disk; and what a start makes of a swap that did not come to its end. The checkpoint
decides (docs/decisions/0020-compaction.md):
1. the cleaner writes `<segment>.cleaned` files and flushes them;
2. the log renames them to `.swap`, and with the flush of that name
3. writes a checkpoint that tells of the new segment, and names it as swapped. Up to here the log is the old one, and a
   start removes `.cleaned` and `.swap`; from here on it is the new one, and a start goes on with
4. renaming `.swap` over the old segment, and unlinking the others that it stands for;
5. once that is flushed, a checkpoint that names no swap. There is no other swap before.
So what an old segment held goes only after what stays of it is on disk. Who reads an old file reads on in it, or finds
another one under its name and asks again.
May fail with OSError from the disk.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from zafka.storage.checkpoint import Checkpoint
from zafka.storage.disk import Disk
from zafka.storage.segment import LOG_SUFFIX, Segment, SegmentRow, segment_paths, suffixed_paths

CLEANED_SUFFIX = ".cleaned"
SWAP_SUFFIX = ".swap"

_UNFINISHED = re.compile(r"(\d{20})\.(?:log|index|timeindex)(\.cleaned|\.swap)")


class Replacement(NamedTuple):
    """What a pass of compaction made of neighbouring segments.

    row: of the new one; None if the only one stays as it is. bases: of the old ones, in order.
    cleaned_offset: below it the log is clean once this is in its place; -1: as before.
    """

    row: SegmentRow | None
    bases: tuple[int, ...]
    cleaned_offset: int

    def of(self, rows: Sequence[SegmentRow]) -> int:
        """Index of the first of the old segments in `rows`, or -1 if they are not all there any more."""
        bases = [row.base_offset for row in rows]
        first = bases.index(self.bases[0]) if self.bases[0] in bases else len(bases)
        return first if tuple(bases[first : first + len(self.bases)]) == self.bases else -1


class Swap:
    """The swap of one log, if there is one, from `begin` to the checkpoint that names none.

    cleaned_offset: as the checkpoint on disk has it. in_flight: a checkpoint that tells of it is being written.
    succeeded: whether the last one came to its end.
    """

    def __init__(self, disk: Disk, directory: Path, checkpoint: Checkpoint | None) -> None:
        self.cleaned_offset = checkpoint.cleaned_offset if checkpoint is not None else 0
        self.in_flight = False
        self.succeeded = False
        self._disk = disk
        self._directory = directory
        self._wanted: Replacement | None = None
        self._named = checkpoint is not None and checkpoint.swapped >= 0  # by the checkpoint on disk

    @property
    def is_wanted(self) -> bool:
        return self._wanted is not None

    @property
    def is_settled(self) -> bool:
        """Whether there is none."""
        return self._wanted is None and not self._named

    def begin(self, replacement: Replacement, rows: Sequence[SegmentRow]) -> bool:
        """Step 2. rows: the segments that may be replaced. False if it cannot be, and then its files are gone."""
        if self.is_wanted or self._named or replacement.of(rows) < 0:
            if replacement.row is not None:
                discard(self._disk, self._directory, replacement.bases[0])
            return False
        if replacement.row is not None:
            offer(self._disk, self._directory, replacement.bases[0])
        self._wanted, self.succeeded = replacement, False
        return True

    def plan(self, rows: Sequence[SegmentRow]) -> tuple[tuple[SegmentRow, ...], int, int]:
        """Step 3: segments, cleaned_offset and swapped of the next checkpoint. rows: of the segments as they are."""
        wanted, cleaned_offset = self._wanted, self.cleaned_offset
        first = wanted.of(rows) if wanted is not None else -1
        if wanted is not None and first < 0:  # retention was faster
            take_back(self._disk, self._directory, wanted.bases[0])
            self._wanted = None
        elif wanted is not None:
            self.in_flight = True
            cleaned_offset = max(cleaned_offset, wanted.cleaned_offset)
            if wanted.row is not None:
                return (*rows[:first], wanted.row, *rows[first + len(wanted.bases) :]), cleaned_offset, wanted.row.base_offset
        return tuple(rows), cleaned_offset, -1

    def on_named(self, checkpoint: Checkpoint) -> Replacement | None:
        """This checkpoint is on disk. Returns what step 4 is now to be done with."""
        self.cleaned_offset = checkpoint.cleaned_offset
        self._named = checkpoint.swapped >= 0
        done = None
        if self.in_flight:
            self.in_flight, done, self._wanted = False, self._wanted, None
            self.succeeded = True
        return done if done is not None and done.row is not None else None


def discard(disk: Disk, directory: Path, base_offset: int) -> None:
    """Take away what a pass had written and shall not be used."""
    for path in filter(disk.exists, suffixed_paths(directory, base_offset, CLEANED_SUFFIX)):
        disk.unlink(path)


def offer(disk: Disk, directory: Path, base_offset: int) -> None:
    """Step 2."""
    cleaned = suffixed_paths(directory, base_offset, CLEANED_SUFFIX)
    for source, target in zip(cleaned, suffixed_paths(directory, base_offset, SWAP_SUFFIX), strict=True):
        disk.rename(source, target)


def take_back(disk: Disk, directory: Path, base_offset: int) -> None:
    """Nothing comes of it."""
    for path in filter(disk.exists, suffixed_paths(directory, base_offset, SWAP_SUFFIX)):
        disk.unlink(path)


def put_in_place(disk: Disk, directory: Path, base_offset: int, others: Sequence[int]) -> None:
    """Step 4, as far as it is not done yet. others: base offsets of the further segments that it stands for."""
    swapped = suffixed_paths(directory, base_offset, SWAP_SUFFIX)
    for source, target in zip(swapped, segment_paths(directory, base_offset), strict=True):
        if disk.exists(source):
            disk.rename(source, target)
    for other in others:
        for path in filter(disk.exists, segment_paths(directory, other)):
            disk.unlink(path)


def replace_segments(disk: Disk, segments: list[Segment], replaced: Replacement, directory: Path) -> list[Segment]:
    """Step 4, in a log that is open; returns the segments that are gone."""
    row = replaced.row
    assert row is not None
    first = replaced.of([segment.row() for segment in segments])
    old = segments[first : first + len(replaced.bases)]
    for segment in old:
        segment.release()
    put_in_place(disk, directory, row.base_offset, replaced.bases[1:])
    new = Segment(disk, directory, row, created_ms=old[0].created_ms, index_interval=old[0].index_interval)
    new.sealed = True
    segments[first : first + len(old)] = [new]
    return old


def settle(disk: Disk, directory: Path, checkpoint: Checkpoint | None) -> bool:
    """End or undo what a crash has interrupted, as the checkpoint says. Returns whether there was anything."""
    names = disk.list_directory(directory)
    swapped = checkpoint.swapped if checkpoint is not None else -1
    for name in names:
        match = _UNFINISHED.fullmatch(name)
        if match is not None and (match[2] == CLEANED_SUFFIX or int(match[1]) != swapped):
            disk.unlink(directory / name)
    if checkpoint is None or swapped < 0:
        return False
    bases = [int(name[:20]) for name in names if name.endswith(LOG_SUFFIX) and name[:20].isdigit()]
    row = next((row for row in checkpoint.segments if row.base_offset == swapped), None)
    others = [base for base in bases if row is not None and row.base_offset < base < row.end_offset]
    put_in_place(disk, directory, swapped, others)
    return True
