"""A segment's sparse indexes, in Kafka's own bytes: the offset index and the time index.

Owns: the entries of one index, of which some stand in its file and the newest only in memory (`store` writes
them). A stored index is searched with small reads and never loaded.
Invariant: both fields of the entries grow from one entry to the next (a time index may repeat no timestamp).
An index is a hint that can be rebuilt from its segment: whoever uses an entry checks it there.
May fail with OSError from the disk, and IndexMismatch if the file is shorter than what was stored.
Source: Kafka OffsetIndex, TimeIndex.

    .index, 8 bytes an entry                           .timeindex, 12 bytes an entry
    0  int32  last offset of a batch - base offset     0  int64  largest timestamp in the segment so far
    4  int32  position of that batch                   8  int32  last offset of the batch that has it - base offset
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from pathlib import Path

from zafka.storage.disk import Buffer, Disk, File
from zafka.storage.errors import IndexMismatch

OFFSET_ENTRY = struct.Struct(">ii")
TIME_ENTRY = struct.Struct(">qi")

# Entries that one read brings while a stored index is searched.
_ENTRIES_PER_READ = 256


class Index:
    """The entries of one index file.

    path: of the file; it is opened when first needed and stays open until `release`.
    stored_bytes: how much of the file counts; what may stand behind is overwritten.
    """

    __slots__ = ("_disk", "_entry", "_file", "_path", "_stored_bytes", "_tail")

    def __init__(self, disk: Disk, path: Path, entry: struct.Struct, *, stored_bytes: int = 0) -> None:
        assert stored_bytes % entry.size == 0
        self._disk = disk
        self._path = path
        self._entry = entry
        self._file: File | None = None
        self._stored_bytes = stored_bytes
        self._tail = bytearray()

    def __repr__(self) -> str:
        return f"<Index {self._path.name} stored={self._stored_bytes} tail={len(self._tail)}>"

    @property
    def size_bytes(self) -> int:
        return self._stored_bytes + len(self._tail)

    def append(self, first: int, second: int) -> None:
        self._tail += self._entry.pack(first, second)

    def last(self) -> tuple[int, int] | None:
        """The newest entry."""
        size = self._entry.size
        if self._tail:
            return self._entry.unpack_from(self._tail, len(self._tail) - size)
        if self._stored_bytes:
            return self._entry.unpack(self._read(self._stored_bytes - size, size))
        return None

    def floor(self, wanted: int, *, field: int = 0) -> tuple[int, int] | None:
        """The last entry whose field (0 or 1) is at most `wanted`, or None if there is none."""
        return self._floor_in(self._tail, wanted, field) or self._floor_stored(wanted, field)

    def store(self) -> File:
        """Write the entries that stand in memory only behind the others, and return the file to flush."""
        file = self.open()
        if self._tail:
            self._disk.pwritev(file, (self._tail,), self._stored_bytes)
            self._stored_bytes += len(self._tail)
            self._tail = bytearray()
        return file

    def reset(self) -> None:
        """Forget all entries, in the file too: the index is about to be rebuilt."""
        self._disk.truncate(self.open(), 0)
        self._stored_bytes = 0
        self._tail = bytearray()

    def cut_file(self) -> None:
        """Make the file end where the stored entries end."""
        self._disk.truncate(self.open(), self._stored_bytes)

    def open(self) -> File:
        if self._file is None:
            self._file = self._disk.open(self._path, create=True)
        return self._file

    def release(self) -> None:
        """Close the file; it is opened again when needed."""
        if self._file is not None:
            self._disk.close(self._file)
            self._file = None

    def _floor_stored(self, wanted: int, field: int) -> tuple[int, int] | None:
        size = self._entry.size
        # Entries before `low` are at most `wanted`, those from `high` on are beyond it.
        low, high = 0, self._stored_bytes // size
        while high - low > _ENTRIES_PER_READ:
            middle = (low + high) // 2
            if self._entry.unpack(self._read(middle * size, size))[field] <= wanted:
                low = middle
            else:
                high = middle
        return self._floor_in(self._read(low * size, (high - low) * size), wanted, field)

    def _floor_in(self, entries: Buffer, wanted: int, field: int) -> tuple[int, int] | None:
        size, unpack = self._entry.size, self._entry.unpack_from
        at = bisect_right(range(len(entries) // size), wanted, key=lambda i: unpack(entries, i * size)[field])
        return unpack(entries, (at - 1) * size) if at else None

    def _read(self, position: int, length: int) -> bytes:
        if not length:
            return b""
        data = self._disk.pread(self.open(), length, position)
        if len(data) < length:
            raise IndexMismatch(f"{self._path} ends before {position + length} bytes")
        return data
