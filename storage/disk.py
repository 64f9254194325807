"""The few things that a log asks of a disk, so that a simulated one can forget what was not flushed.

Owns: `Disk`, the interface; `PosixDisk`, the real one; `Flush`, the request to make things durable.
Writes become durable only by a flush of the file (content) and of the directory (names). `fdatasync` and
`fsync_dir` are for recovery and start-up (`sync`); in operation a flush is an effect that the process shell performs.
May fail with OSError from any call; callers let it through unless a full disk can be answered. A failed flush is a
matter of its own: it is never tried again on the same file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from msgspec import Struct

from zafka.storage.errors import FailedFlush

Buffer = bytes | bytearray | memoryview

# Linux takes at most this many buffers in one pwritev.
IOV_MAX = 1024
# 0 where the C library that Python was built with does not know it.
READ_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)
NOT_NOW = (errno.EAGAIN, errno.EOPNOTSUPP)  # it is not there, or this file system cannot say


class File(NamedTuple):
    """An open file. `inode` tells a renamed or recreated file from the one that was meant."""

    path: Path
    fd: int
    inode: int


class Flush(Struct, frozen=True):
    """Make these files' content and these directories' names durable, then deliver `Flushed(token)`."""

    token: int
    files: tuple[File, ...]
    directories: tuple[Path, ...] = ()


class Disk(Protocol):
    """All paths are absolute. Positions and sizes are bytes."""

    def make_directory(self, path: Path) -> None: ...

    def list_directory(self, path: Path) -> list[str]: ...

    def exists(self, path: Path) -> bool: ...

    def open(self, path: Path, *, create: bool = False) -> File: ...

    def close(self, file: File) -> None: ...

    def lock(self, path: Path) -> File:
        """Open a file, made if need be, and lock it for this process until it is closed or the process ends.

        Raises BlockingIOError if another process has it."""
        ...

    def size(self, file: File) -> int: ...

    def pwritev(self, file: File, buffers: Sequence[Buffer], position: int) -> None:
        """Write all buffers; a short write is an OSError, with the file as long as it then is."""
        ...

    def pread(self, file: File, length: int, position: int) -> bytes:
        """Up to `length` bytes; fewer only at the end of the file."""
        ...

    def pread_cached(self, file: File, length: int, position: int) -> Buffer | None:
        """As `pread` if all of it is in the page cache, else None: never waits for the disk."""
        ...

    def truncate(self, file: File, size: int) -> None: ...

    def rename(self, source: Path, target: Path) -> None: ...

    def unlink(self, path: Path) -> None: ...

    def remove_tree(self, path: Path) -> None:
        """Unlink a directory with all that is in it, as far as it goes; not there is fine."""
        ...

    def space(self, path: Path) -> tuple[int, int]:
        """Bytes of the volume that a directory is on: in all, and those that may still be used."""
        ...

    def fdatasync(self, file: File) -> None: ...

    def fsync_dir(self, path: Path) -> None: ...


def sync(disk: Disk, *files: File, directories: Iterable[Path] = ()) -> None:
    """Flush at once, for recovery and start-up. Raises FailedFlush."""
    path = Path()
    try:
        for file in files:
            path = file.path
            disk.fdatasync(file)
        for path in directories:
            disk.fsync_dir(path)
    except OSError as error:
        raise FailedFlush(f"flush of {path} failed: {error.strerror or error}") from error


class PosixDisk:
    """`Disk` by system calls."""

    def make_directory(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def list_directory(self, path: Path) -> list[str]:
        return sorted(os.listdir(path))

    def exists(self, path: Path) -> bool:
        return path.exists()

    def open(self, path: Path, *, create: bool = False) -> File:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o644)
        return File(path, fd, os.fstat(fd).st_ino)

    def close(self, file: File) -> None:
        os.close(file.fd)

    def lock(self, path: Path) -> File:
        file = self.open(path, create=True)
        try:
            fcntl.flock(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            self.close(file)
            raise
        return file

    def size(self, file: File) -> int:
        return os.fstat(file.fd).st_size

    def pwritev(self, file: File, buffers: Sequence[Buffer], position: int) -> None:
        for start in range(0, len(buffers), IOV_MAX):
            part = buffers[start : start + IOV_MAX]
            length = sum(map(len, part))
            written = os.pwritev(file.fd, part, position)
            while written < length:
                # A write may stop early at a signal or a full disk: the next one says which.
                rest = memoryview(b"".join(part))[written:]
                written += os.pwrite(file.fd, rest, position + written)
            position += length

    def pread(self, file: File, length: int, position: int) -> bytes:
        data = os.pread(file.fd, length, position)
        while len(data) < length:
            more = os.pread(file.fd, length - len(data), position + len(data))
            if not more:
                break
            data += more
        return data

    def pread_cached(self, file: File, length: int, position: int) -> Buffer | None:
        if not READ_NOWAIT:
            return None
        data = bytearray(length)
        try:
            size = os.preadv(file.fd, (data,), position, READ_NOWAIT)
        except OSError as error:
            if error.errno in NOT_NOW:
                return None
            raise
        if size < length and position + size < self.size(file):
            return None
        del data[size:]  # and give the room back
        return data

    def truncate(self, file: File, size: int) -> None:
        os.ftruncate(file.fd, size)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def remove_tree(self, path: Path) -> None:
        shutil.rmtree(path, ignore_errors=True)

    def space(self, path: Path) -> tuple[int, int]:
        volume = os.statvfs(path)
        return volume.f_blocks * volume.f_frsize, volume.f_bavail * volume.f_frsize

    def fdatasync(self, file: File) -> None:
        os.fdatasync(file.fd)

    def fsync_dir(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
