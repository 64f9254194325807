"""Disks that fail as told."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from zafka.storage.disk import Buffer, File, PosixDisk


class FullableDisk(PosixDisk):
    """A disk that can be full."""

    full = False

    def pwritev(self, file: File, buffers: Sequence[Buffer], position: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().pwritev(file, buffers, position)
