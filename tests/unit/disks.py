"""Disks that fail as told."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from zafka.storage.disk import Buffer, File, PosixDisk


class ClosingDisk(PosixDisk):
    """A disk that can close what those who were killed on it had open, as the kernel does."""

    made: ClassVar[list[ClosingDisk]] = []

    def __init__(self) -> None:
        self.open_files: dict[int, File] = {}
        self.is_killed = False
        self.made.append(self)

    def open(self, path: Path, *, create: bool = False) -> File:
        file = super().open(path, create=create)
        self.open_files[file.fd] = file
        return file

    def close(self, file: File) -> None:
        if self.is_killed:  # a generator that is collected later may try
            return
        del self.open_files[file.fd]
        super().close(file)

    @classmethod
    def close_all(cls) -> None:
        """Of all that were made so far."""
        while cls.made:
            disk = cls.made.pop()
            for file in list(disk.open_files.values()):
                disk.close(file)
            disk.is_killed = True


class RefusingDisk(ClosingDisk):
    """A disk whose flushes fail, or that takes no new file, while it is told so."""

    refuses_flush = False
    refuses_create = False

    def open(self, path: Path, *, create: bool = False) -> File:
        if create and self.refuses_create and not path.exists():
            raise OSError(errno.EIO, "Input/output error")
        return super().open(path, create=create)

    def fdatasync(self, file: File) -> None:
        if self.refuses_flush:
            raise OSError(errno.EIO, "Input/output error")
        super().fdatasync(file)


class FullableDisk(ClosingDisk):
    """A disk that can be full."""

    full = False

    def pwritev(self, file: File, buffers: Sequence[Buffer], position: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().pwritev(file, buffers, position)
