"""Reads record batches from segment files for the broker's shell: hot bytes at once, cold ones checked, and in a thread
if they have to come from the disk.

Owns: `OpenFiles`, a few descriptors that are kept open; `read_checked`, for bytes that may have rotted.
Invariants: only the file that was meant is read, whatever lies under its name by now; cold bytes whose CRC does not
fit are never handed out. What cannot be opened or read must not end the broker, which has the other partitions to serve.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import structlog

from zafka.actors.gateway.effects import Buffer, FileSlice, ReadFault
from zafka.storage.batch import walk
from zafka.storage.disk import Disk, File
from zafka.storage.errors import BadBatch, CorruptBatch

OPEN_FILES_MAX = 256
# Of one request, so many cold bytes are read and checked in the loop, which takes it 70 us per MiB.
COLD_AT_ONCE_BYTES_MAX = 8 << 20

Found = TypeVar("Found")

logger = structlog.get_logger(__name__)


class OpenFiles:
    """Descriptors of the files that were read last. Used by one thread."""

    def __init__(self, disk: Disk, limit: int = OPEN_FILES_MAX) -> None:
        self.disk = disk
        self.limit = limit
        self._open: dict[str, File] = {}  # the one used longest ago first
        self._used: set[str] = set()  # since the last `sweep`

    def read_at_once(self, slices: Sequence[FileSlice]) -> list[Buffer | ReadFault] | None:
        """All of them, or None if that is for a thread: cold ones that are not in the page cache, or too many.

        A thread costs more than the read: two wake-ups and a turn, in which the client waits."""
        if sum(wanted.length for wanted in slices if wanted.cold) > COLD_AT_ONCE_BYTES_MAX:
            return None
        parts: list[Buffer | ReadFault] = []
        for wanted in slices:
            part = self.read_cached(wanted) if wanted.cold else self.read(wanted)
            if part is None:
                return None
            parts.append(part)
        return parts

    def read(self, wanted: FileSlice) -> Buffer | ReadFault:
        """The bytes, fewer at the end of the file."""
        file = self._find(wanted)
        return file if isinstance(file, ReadFault) else _read_or_fault(self.disk.pread, file, wanted)

    def read_cached(self, wanted: FileSlice) -> Buffer | ReadFault | None:
        """As `read_checked`; None if they are not all in the page cache."""
        file = self._find(wanted)
        if isinstance(file, ReadFault):
            return file
        found = _read_or_fault(self.disk.pread_cached, file, wanted)
        return found if found is None or isinstance(found, ReadFault) else _checked(found, wanted)

    def _find(self, wanted: FileSlice) -> File | ReadFault:
        """The file that is meant, open, as the one that was used last."""
        file = self._open.pop(wanted.path, None)
        if file is not None and file.inode != wanted.inode:
            self.disk.close(file)
            file = None
        if file is None:
            opened = self._open_slice(wanted)
            if isinstance(opened, ReadFault):
                return opened
            file = opened
            if len(self._open) >= self.limit:
                self.disk.close(self._open.pop(next(iter(self._open))))
        self._open[wanted.path] = file
        self._used.add(wanted.path)
        return file

    def _open_slice(self, wanted: FileSlice) -> File | ReadFault:
        """Where no more files may be open, those that we keep open for later go first."""
        try:
            return open_slice(self.disk, wanted)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._open:
                return _unreadable(wanted, error)
        self.close()
        return self._open_slice(wanted)

    def sweep(self) -> None:
        """Close what was not used since the last sweep, so that deleted segments give their room back."""
        for path in self._open.keys() - self._used:
            self.disk.close(self._open.pop(path))
        self._used.clear()

    def close(self) -> None:
        for file in self._open.values():
            self.disk.close(file)
        self._open.clear()


def open_slice(disk: Disk, wanted: FileSlice) -> File | ReadFault:
    """The file; `GONE` if it is not there or another one is. Raises OSError if it cannot be opened."""
    try:
        file = disk.open(Path(wanted.path))
    except FileNotFoundError:
        return ReadFault.GONE
    if file.inode == wanted.inode:
        return file
    disk.close(file)
    return ReadFault.GONE


def _read_or_fault(
    pread: Callable[[File, int, int], Found], file: File, wanted: FileSlice
) -> Found | ReadFault:
    try:
        return pread(file, wanted.length, wanted.position)
    except OSError as error:
        return _unreadable(wanted, error)


def _unreadable(wanted: FileSlice, error: OSError) -> ReadFault:
    logger.error("bytes that cannot be read", path=wanted.path, position=wanted.position, reason=str(error))
    return ReadFault.UNREADABLE


def remove_directory(disk: Disk, path: Path) -> None:
    """Remove what was moved aside, once its new name is on disk: else a power cut may bring the old name back with a
    part of what was in it. For threads."""
    disk.fsync_dir(path.parent)
    disk.remove_tree(path)


def read_checked(disk: Disk, wanted: FileSlice) -> memoryview | ReadFault:
    """The bytes with every whole batch's CRC checked. Ends before the first bad batch; `CORRUPT` if that is the first.

    For threads: shares nothing with `OpenFiles`.
    """
    try:
        file = open_slice(disk, wanted)
    except OSError as error:
        return _unreadable(wanted, error)
    if isinstance(file, ReadFault):
        return file
    try:
        found = _read_or_fault(disk.pread, file, wanted)
    finally:
        disk.close(file)
    return found if isinstance(found, ReadFault) else _checked(found, wanted)


def _checked(found: Buffer, wanted: FileSlice) -> memoryview | ReadFault:
    data = memoryview(found)
    end = next_offset = 0
    try:
        for position, header in walk(data, check_crc=True):
            if header.base_offset < next_offset:  # the CRC does not cover it
                raise CorruptBatch(f"base offset {header.base_offset} behind a batch that ends before {next_offset}")
            end, next_offset = position + header.size_bytes, header.next_offset
    except BadBatch as error:
        logger.error("corrupt batch not served", path=wanted.path, position=wanted.position + end, reason=str(error))
        return data[:end] if end else ReadFault.CORRUPT
    return data
