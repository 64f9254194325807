"""One pass of compaction over a log's sealed segments: reads them, and writes what stays into `.cleaned` files.

Owns: the reading and writing, in small steps that the caller may space out. It changes no file of the log itself: the
log's owner puts what was written in the place of what it was made of (`storage/swap.py`), group after group in order.
Invariants: no byte is copied whose CRC was not checked; a group is handed out with everything of it written, to be
flushed before it counts. Bounded memory: the keys of `buffer_bytes`, one chunk or one batch, and index entries.
May fail with OSError from the disk, and CorruptLog where a source is damaged; files that were begun are then for
`abandon` to take away, or for the next recovery.
Source: Kafka Cleaner.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from zafka.storage.batch import (
    DELETE_HORIZON_FLAG,
    HEADER_BYTES,
    NO_TIMESTAMP,
    BatchHeader,
    crc_fits,
    empty_batch,
    read_header,
)
from zafka.storage.compaction import OffsetMap, Rules, group_segments, is_hole, kept_of
from zafka.storage.disk import Buffer, Disk, File
from zafka.storage.errors import BadBatch, CorruptLog
from zafka.storage.segment import LOG_SUFFIX, Segment, SegmentRow, segment_path
from zafka.storage.swap import CLEANED_SUFFIX, Replacement, discard

CHUNK_BYTES = 256 * 1024


class Pass(Struct, array_like=True, frozen=True):
    """What is to be done. sources: neighbouring sealed segments, the first of the log first.

    first_dirty: keys are gathered from here on. last_offsets: of each producer's newest batch.
    buffer_bytes: memory for keys. segment_bytes: how large what several segments become may be.
    """

    directory: str
    sources: list[SegmentRow]
    first_dirty: int
    now_ms: int
    delete_retention_ms: int
    last_offsets: dict[int, int]
    buffer_bytes: int
    segment_bytes: int
    index_interval_bytes: int


class Worked(NamedTuple):
    """A step was done. size_bytes: read or written in it."""

    size_bytes: int


class Written(NamedTuple):
    """A group was written. files: to be flushed before `replacement` may be used."""

    replacement: Replacement
    files: tuple[File, ...]
    is_last: bool


def clean(disk: Disk, wanted: Pass) -> Generator[Worked | Written]:
    """Do a pass: a `Worked` after each step, a `Written` for each group; go on once that is in its place.

    The files of a `Written` are closed when this goes on or is closed.
    """
    offsets = OffsetMap(wanted.first_dirty, wanted.buffer_bytes)
    yield from _gather_keys(disk, wanted, offsets)
    rules = Rules(offsets, wanted.last_offsets, wanted.now_ms, wanted.delete_retention_ms)
    sources = [row for row in wanted.sources if row.base_offset < offsets.end_offset]
    groups = group_segments(sources, wanted.segment_bytes)
    for index, group in enumerate(groups):
        is_last = index == len(groups) - 1
        # Only when the last one is in its place has every older record of these keys gone.
        cleaned_offset = offsets.end_offset if is_last else -1
        yield from _write_group(disk, wanted, group, rules, cleaned_offset)


def abandon(disk: Disk, wanted: Pass) -> None:
    """Take away what a pass has written that shall not come to its end."""
    for row in wanted.sources:
        discard(disk, Path(wanted.directory), row.base_offset)


def _gather_keys(disk: Disk, wanted: Pass, offsets: OffsetMap) -> Iterator[Worked]:
    for row in wanted.sources:
        if row.end_offset <= wanted.first_dirty:
            continue
        size = 0
        for data, header in _batches(disk, Path(wanted.directory), row):
            try:
                if not offsets.take(data, header):
                    return
            except BadBatch:  # a client wrote what does not decode, before keys were asked for: it has none that we know
                offsets.end_offset = header.next_offset
            size += header.size_bytes
            if size >= CHUNK_BYTES:
                yield Worked(size)
                size = 0
        yield Worked(size)


def _write_group(
    disk: Disk, wanted: Pass, group: Sequence[SegmentRow], rules: Rules, cleaned_offset: int
) -> Iterator[Worked | Written]:
    """What stays of neighbouring segments, as one. Nothing is handed out of a single one of which everything stays."""
    directory, base_offset = Path(wanted.directory), group[0].base_offset
    discard(disk, directory, base_offset)
    target = _Target(disk, Segment.create(
        disk, directory, base_offset, now_ms=wanted.now_ms, index_interval=wanted.index_interval_bytes,
        suffix=CLEANED_SUFFIX))
    try:
        size = 0
        for row in group:
            for data, header in _batches(disk, directory, row):
                try:
                    kept = kept_of(data, header, rules)
                except BadBatch:
                    kept = data  # readers may make of it what they can
                target.add(kept, header, is_same=kept is data)
                size += header.size_bytes
                if size >= CHUNK_BYTES:
                    yield Worked(size + target.write())
                    size = 0
        files = target.end(max(row.max_timestamp for row in group))
        bases = tuple(row.base_offset for row in group)
        is_last = cleaned_offset >= 0
        if target.is_same and len(group) == 1:
            target.segment.unlink()
            yield Written(Replacement(None, bases, cleaned_offset), (), is_last)
            return
        row = target.segment.row()
        assert row.end_offset == group[-1].end_offset
        yield Worked(size)
        yield Written(Replacement(row, bases, cleaned_offset), files, is_last)
    finally:
        target.segment.release()


class _Target:
    """The segment that is being written. is_same: so far it is byte for byte what it is made of."""

    def __init__(self, disk: Disk, segment: Segment) -> None:
        self.segment = segment
        self.is_same = True
        self._disk = disk
        self._buffers: list[Buffer] = []
        self._position = 0  # of the first of them
        self._hole: tuple[int, int, int] | None = None  # offset it begins at, offset behind it, leader epoch

    def add(self, kept: Buffer | None, header: BatchHeader, *, is_same: bool) -> None:
        """Take what stays of the batch, which may be nothing."""
        self.is_same &= is_same or is_hole(header)
        if kept is not None:
            self._fill_hole(NO_TIMESTAMP)
            self._append(kept)
            return
        if self._hole is not None and self._hole[2] == header.leader_epoch:
            self.is_same = False
            self._hole = self._hole[0], header.next_offset, header.leader_epoch
        else:
            self._fill_hole(NO_TIMESTAMP)
            self._hole = header.base_offset, header.next_offset, header.leader_epoch

    def write(self) -> int:
        """Write what was taken; returns how many bytes."""
        position, buffers = self._position, self._buffers
        if buffers:
            self._disk.pwritev(self.segment.file, buffers, position)
            self._buffers = []
            self._position = self.segment.size_bytes
        return self._position - position

    def end(self, timestamp: int) -> tuple[File, ...]:
        """Nothing comes any more; returns the files to flush. timestamp: the largest of what it is made of."""
        # A segment without any timestamp would never grow too old.
        self._fill_hole(timestamp if self.segment.max_timestamp < 0 else NO_TIMESTAMP)
        self.write()
        self.segment.seal()
        return self.segment.file, *self.segment.store_indexes()

    def _fill_hole(self, timestamp: int) -> None:
        if self._hole is not None:
            base_offset, end_offset, leader_epoch = self._hole
            self._hole = None
            self._append(empty_batch(
                base_offset, end_offset - base_offset, leader_epoch=leader_epoch, timestamp=timestamp,
                attributes=DELETE_HORIZON_FLAG))

    def _append(self, batch: Buffer) -> None:
        header = read_header(batch)
        self._buffers.append(bytes(batch))  # what it was cut from goes with the next chunk
        self.segment.note(header, header.base_offset)


def _batches(disk: Disk, directory: Path, row: SegmentRow) -> Iterator[tuple[memoryview, BatchHeader]]:
    """Each batch of a segment, whole and with its CRC checked. Raises CorruptLog."""
    path = segment_path(directory, row.base_offset, LOG_SUFFIX)
    file = disk.open(path)
    position, offset = 0, row.base_offset
    try:
        while position < row.size_bytes:
            chunk = memoryview(disk.pread(file, min(CHUNK_BYTES, row.size_bytes - position), position))
            at = 0
            while len(chunk) - at >= HEADER_BYTES:
                header = read_header(chunk, at)
                size = header.size_bytes
                if at + size > len(chunk):
                    if at or position + size > row.size_bytes:
                        break
                    chunk = memoryview(disk.pread(file, size, position))
                if header.base_offset != offset or not crc_fits(chunk, at, header):
                    raise BadBatch(f"no whole batch with offset {offset} is there")
                yield chunk[at : at + size], header
                at, offset = at + size, header.next_offset
            if not at:
                raise BadBatch(f"no whole batch with offset {offset} is there")
            position += at
        if offset != row.end_offset:
            raise BadBatch(f"the segment ends at offset {offset}, not {row.end_offset}")
    except BadBatch as error:
        raise CorruptLog(path, position=position, offset=offset, reason=str(error)) from error
    finally:
        disk.close(file)
