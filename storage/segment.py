"""One segment of a log: a file of record batches, its two indexes, and what is known about it in memory.

Owns: where in the file each batch begins, what the indexes say, and the largest timestamp.
Invariant: the first `size_bytes` of the file are whole batches with offsets base_offset..end_offset-1; bytes
behind them do not count. An index entry is checked against the batch that it names before it is believed, and
an index that lies is rebuilt.
May fail with OSError from the disk, and CorruptLog where bytes that count are no valid batches.
Source: Kafka LogSegment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from zafka.storage.batch import HEADER_BYTES, LENGTH_END, NO_TIMESTAMP, BatchHeader, crc_fits, read_header
from zafka.storage.disk import Disk, File
from zafka.storage.errors import BadBatch, CorruptLog, IndexMismatch
from zafka.storage.index import OFFSET_ENTRY, TIME_ENTRY, Index
from zafka.storage.location import TimestampOffset
from zafka.storage.records import find_timestamp
from zafka.storage.scan import Scan, no_progress

LOG_SUFFIX = ".log"
OFFSET_INDEX_SUFFIX = ".index"
TIME_INDEX_SUFFIX = ".timeindex"

# Positions and relative offsets in Kafka's indexes are int32.
MAX_INT32 = 2**31 - 1

# What one read brings when only headers are wanted: an index interval and a little more.
_HEADERS_READ_BYTES = 8192


def segment_path(directory: Path, base_offset: int, suffix: str) -> Path:
    return directory / f"{base_offset:020d}{suffix}"


def segment_paths(directory: Path, base_offset: int) -> tuple[Path, Path, Path]:
    """The log file and the two indexes."""
    log, offset_index, time_index = (
        segment_path(directory, base_offset, suffix) for suffix in (LOG_SUFFIX, OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX)
    )
    return log, offset_index, time_index


def suffixed_paths(directory: Path, base_offset: int, suffix: str) -> tuple[Path, Path, Path]:
    """The same, of a segment that is not, or no longer, part of the log."""
    log, offset_index, time_index = (
        path.with_name(path.name + suffix) for path in segment_paths(directory, base_offset))
    return log, offset_index, time_index


class SegmentRow(NamedTuple):
    """What a checkpoint says of a segment: enough to open it again without reading it.

    size_bytes, end_offset: of the batches that are on disk.
    max_timestamp, max_timestamp_offset: the largest timestamp, and the last offset of the first batch that has it.
    """

    base_offset: int
    end_offset: int
    size_bytes: int
    offset_index_bytes: int
    time_index_bytes: int
    max_timestamp: int
    max_timestamp_offset: int


def empty_row(base_offset: int) -> SegmentRow:
    return SegmentRow(base_offset, base_offset, 0, 0, 0, NO_TIMESTAMP, -1)


class Segment:
    """base_offset..end_offset-1, in `size_bytes` bytes.

    sealed: no batch comes any more.
    indexes_changed: since they were last stored.
    """

    def __init__(
        self, disk: Disk, directory: Path, row: SegmentRow, *, created_ms: int, index_interval: int, suffix: str = ""
    ) -> None:
        self.base_offset, self.end_offset, self.size_bytes = row.base_offset, row.end_offset, row.size_bytes
        self.max_timestamp, self.max_timestamp_offset = row.max_timestamp, row.max_timestamp_offset
        self.created_ms = created_ms
        self.sealed = False
        self.indexes_changed = False
        self.index_interval = index_interval
        self.paths = suffixed_paths(directory, row.base_offset, suffix)
        self.path, offset_path, time_path = self.paths
        self.offset_index = Index(disk, offset_path, OFFSET_ENTRY, stored_bytes=row.offset_index_bytes)
        self.time_index = Index(disk, time_path, TIME_ENTRY, stored_bytes=row.time_index_bytes)
        self._disk = disk
        self._file: File | None = None
        self._inode = -1
        self._bytes_since_entry = 0
        # Largest timestamp of the first batch, and that of the newest time index entry; None before they were read.
        self._first_timestamp: int | None = None
        self._indexed_timestamp: int | None = None

    def __repr__(self) -> str:
        return f"<Segment {self.base_offset}..{self.end_offset} {self.size_bytes} bytes>"

    @classmethod
    def create(
        cls, disk: Disk, directory: Path, base_offset: int, *, now_ms: int, index_interval: int, suffix: str = ""
    ) -> Segment:
        """An empty segment, with its three files. Their names are durable after a flush of the directory.

        suffix: of the files, for one that is no part of the log yet.
        """
        segment = cls(
            disk, directory, empty_row(base_offset), created_ms=now_ms, index_interval=index_interval, suffix=suffix)
        segment._file = file = disk.open(segment.path, create=True)
        segment._inode = file.inode
        segment._first_timestamp = segment._indexed_timestamp = NO_TIMESTAMP
        if disk.size(file):
            segment.release()
            raise CorruptLog(segment.path, position=0, offset=base_offset, reason="a file stands where none should be")
        try:
            for index in (segment.offset_index, segment.time_index):
                if disk.size(index.open()):
                    index.reset()
        except OSError:
            segment.unlink()
            raise
        return segment

    # -- files ---------------------------------------------------------------------------------

    @property
    def file(self) -> File:
        """The open log file; it stays open until `release`."""
        if self._file is None:
            self._file = self._disk.open(self.path)
            self._inode = self._file.inode
        return self._file

    @property
    def inode(self) -> int:
        return self._inode if self._inode >= 0 else self.file.inode

    @property
    def index_paths(self) -> tuple[Path, Path]:
        return self.paths[1:]

    def release(self) -> None:
        """Close the files; they are opened again when needed."""
        if self._file is not None:
            self._disk.close(self._file)
            self._file = None
        self.offset_index.release()
        self.time_index.release()

    def rename(self, suffix: str) -> list[Path]:
        """Give the files other names, of which this knows nothing; returns them. Release first."""
        renamed = []
        for path in filter(self._disk.exists, self.paths):
            renamed.append(path.with_name(path.name + suffix))
            self._disk.rename(path, renamed[-1])
        return renamed

    def unlink(self) -> None:
        """Take back `create`."""
        self.release()
        for path in self.paths:
            if self._disk.exists(path):
                self._disk.unlink(path)

    def row(self) -> SegmentRow:
        return SegmentRow(
            self.base_offset, self.end_offset, self.size_bytes, self.offset_index.size_bytes,
            self.time_index.size_bytes, self.max_timestamp, self.max_timestamp_offset,
        )

    @property
    def first_timestamp(self) -> int:
        """Largest timestamp of the first batch, from which on `segment.ms` counts; -1 if there is none."""
        if self._first_timestamp is None:
            first = next(self.headers(0), None)
            self._first_timestamp = first[1].max_timestamp if first else NO_TIMESTAMP
        return self._first_timestamp

    # -- growing -------------------------------------------------------------------------------

    def note(self, header: BatchHeader, base_offset: int) -> None:
        """Count a batch that now stands at position `size_bytes` with this base offset.

        Source: Kafka LogSegment.append; its rule for when an entry is due, so that DumpLogSegments agrees.
        """
        last_offset = base_offset + header.last_offset_delta
        timestamp = header.max_timestamp
        if not self.size_bytes:
            self._first_timestamp = timestamp
        if timestamp > self.max_timestamp:
            self.max_timestamp, self.max_timestamp_offset = timestamp, last_offset
        if self._bytes_since_entry > self.index_interval:
            self.offset_index.append(last_offset - self.base_offset, self.size_bytes)
            self._index_timestamp()
            self._bytes_since_entry = 0
            self.indexes_changed = True
        size = LENGTH_END + header.batch_length
        self._bytes_since_entry += size
        self.size_bytes += size
        self.end_offset = last_offset + 1

    def seal(self) -> None:
        """No batch comes any more: the last entry of the time index is the largest timestamp."""
        self.sealed = self.indexes_changed = True
        self._index_timestamp()

    def store_indexes(self) -> tuple[File, File]:
        """Write the index entries that stand in memory only; returns the files to flush."""
        self.indexes_changed = False
        return self.offset_index.store(), self.time_index.store()

    def _index_timestamp(self) -> None:
        if self._indexed_timestamp is None:
            newest = self.time_index.last()
            self._indexed_timestamp = newest[0] if newest else NO_TIMESTAMP
        if self.max_timestamp > self._indexed_timestamp:
            self.time_index.append(self.max_timestamp, self.max_timestamp_offset - self.base_offset)
            self._indexed_timestamp = self.max_timestamp

    # -- reading -------------------------------------------------------------------------------

    def find(self, offset: int) -> tuple[int, BatchHeader] | None:
        """(position, header) of the first batch that ends at or behind `offset`; None if all end before."""
        for position, header in self.headers(self._start(self._start_by_offset, offset)):
            if header.last_offset >= offset:
                return position, header
        return None

    def boundary(self, position: int, max_bytes: int, limit: int) -> int:
        """The largest position at most `position` + `max_bytes` where a batch ends, but at least one batch on.

        position: where a batch begins. limit: where a batch ends that must not be passed.
        """
        wanted = position + max_bytes
        if wanted >= limit:
            return limit
        end = limit
        for at, header in self.headers(max(position, self._start(self._start_by_position, wanted))):
            end = at + header.size_bytes
            if end > wanted:
                return end if at == position else at
        return min(end, limit)

    def find_timestamp(self, timestamp: int) -> Iterator[tuple[int, BatchHeader]]:
        """(position, header) of the batches, in order, that may hold a record with this timestamp or a later one."""
        for position, header in self.headers(self._start(self._start_by_timestamp, timestamp)):
            if header.max_timestamp >= timestamp:
                yield position, header

    def find_record(self, timestamp: int, start_offset: int) -> TimestampOffset | None:
        """The first record, not below `start_offset`, with this timestamp or a later one. Raises CorruptLog."""
        for position, header in self.find_timestamp(timestamp):
            if not header.record_count:
                continue  # compaction took what its header still tells of
            batch = self.read_batch(position, header)
            if not crc_fits(batch, 0, header):
                reason = "the CRC-32C does not fit"
                raise CorruptLog(self.path, position=position, offset=header.base_offset, reason=reason)
            try:
                found = find_timestamp(batch, header, timestamp, from_offset=start_offset)
            except BadBatch:  # a client wrote what does not decode; whoever reads from here on will see
                found = header.max_timestamp, max(header.base_offset, start_offset)
            if found is None and header.base_offset >= start_offset:
                # The header promised such a record and lied: to unpack one such batch after another would take for ever.
                found = header.max_timestamp, header.base_offset
            if found is not None:
                return TimestampOffset(*found, header.leader_epoch)
        return None

    def read_batch(self, position: int, header: BatchHeader) -> memoryview:
        """The bytes of one batch. Its CRC is for the reader to check."""
        return memoryview(self._disk.pread(self.file, header.size_bytes, position))

    def headers(self, position: int) -> Iterator[tuple[int, BatchHeader]]:
        """(position, header) of each batch from `position` on; no CRC is checked.

        Raises CorruptLog where there is no header.
        """
        chunk, start, offset = b"", position, self.base_offset
        while position < self.size_bytes:
            if position - start + HEADER_BYTES > len(chunk):
                start = position
                chunk = self._disk.pread(self.file, min(_HEADERS_READ_BYTES, self.size_bytes - start), start)
            try:
                header = read_header(chunk, position - start)
            except BadBatch as error:
                raise CorruptLog(self.path, position=position, offset=offset, reason=str(error)) from error
            next_position = position + header.size_bytes
            if header.base_offset < offset or next_position > self.size_bytes:
                reason = f"base offset {header.base_offset} and size {header.size_bytes} cannot be right"
                raise CorruptLog(self.path, position=position, offset=offset, reason=reason)
            yield position, header
            position, offset = next_position, header.next_offset

    # -- indexes that lie ----------------------------------------------------------------------

    def rebuild_indexes(self, progress: Callable[[], None] = no_progress) -> None:
        """Make both indexes afresh from the batches, checking all CRCs. Raises CorruptLog at a bad one."""
        row = self.row()
        self.offset_index.reset()
        self.time_index.reset()
        self.indexes_changed = True
        self.size_bytes, self.max_timestamp, self.max_timestamp_offset = 0, NO_TIMESTAMP, -1
        self._bytes_since_entry, self._indexed_timestamp = 0, NO_TIMESTAMP
        scan = Scan(
            self._disk, self.file, position=0, end=row.size_bytes, expected_offset=self.base_offset, progress=progress
        )
        for _, header in scan:
            self.note(header, header.base_offset)
        if self.sealed:
            self._index_timestamp()
        if scan.reason or scan.expected_offset != row.end_offset:
            # What is damaged stays as it is, and so does what was known about it.
            self.size_bytes, self.end_offset = row.size_bytes, row.end_offset
            self.max_timestamp, self.max_timestamp_offset = row.max_timestamp, row.max_timestamp_offset
            reason = scan.reason or f"the segment ends there, and should end at offset {row.end_offset}"
            raise CorruptLog(self.path, position=scan.position, offset=scan.expected_offset, reason=reason)

    def indexes_end_within(self) -> bool:
        """Whether the newest entries of both indexes name something that is in the segment."""
        newest, latest = self.offset_index.last(), self.time_index.last()
        return (newest is None or newest[1] < self.size_bytes) and (
            latest is None or latest[1] < self.end_offset - self.base_offset
        )

    def _start(self, lookup: Callable[[int], int], wanted: int) -> int:
        """What `lookup` finds in an index, rebuilt if it does not fit the batches."""
        try:
            return lookup(wanted)
        except IndexMismatch:
            self.rebuild_indexes()
            return lookup(wanted)

    def _start_by_offset(self, offset: int) -> int:
        return self._indexed_position(self.offset_index.floor(offset - self.base_offset))

    def _start_by_position(self, position: int) -> int:
        return self._indexed_position(self.offset_index.floor(position, field=1))

    def _indexed_position(self, entry: tuple[int, int] | None) -> int:
        """The position that an offset index entry names, or that of the first batch without one."""
        if entry is None:
            return 0
        relative_offset, position = entry
        if 0 <= position < self.size_bytes:
            with contextlib.suppress(BadBatch):
                header = read_header(self._disk.pread(self.file, HEADER_BYTES, position))
                if header.last_offset - self.base_offset == relative_offset:
                    return position
        raise IndexMismatch(f"{self.path}: no batch with relative offset {relative_offset} at position {position}")

    def _start_by_timestamp(self, timestamp: int) -> int:
        """Position of a batch before which all timestamps are less than `timestamp`."""
        entry = self.time_index.floor(timestamp)
        if entry is None:
            return 0
        indexed_timestamp, relative_offset = entry
        found = self.find(self.base_offset + relative_offset)
        if found is not None:
            position, header = found
            if (header.last_offset - self.base_offset, header.max_timestamp) == (relative_offset, indexed_timestamp):
                return position
        raise IndexMismatch(f"{self.path}: no batch ends at relative offset {relative_offset} with that timestamp")
