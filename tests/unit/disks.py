"""Disks that fail as told."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

from zafka.storage.disk import Buffer, File, PosixDisk


class RefusingDisk(PosixDisk):
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


class FullableDisk(PosixDisk):
    """A disk that can be full."""

    full = False

    def pwritev(self, file: File, buffers: Sequence[Buffer], position: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().pwritev(file, buffers, position)
