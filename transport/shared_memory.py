"""An arena that other processes on this machine can map.

Owns: `SharedArena`, in a memory file without a name: it is gone when its owner and all who mapped it are, however they
ended, and there is nothing to sweep. `map_offered`, the other side: found by process and descriptor under /proc, which the
same user may open, and mapped to read only. Sealed against a change of size, so that no reader meets SIGBUS.
May fail with OSError; both sides go on without.
Source: memfd_create(2), proc_pid_fd(5), madvise(2) MADV_REMOVE.
"""

from __future__ import annotations

import fcntl
import mmap
import os

from zafka.transport.arena import Arena, Offer

NAME = "zafka-arena"


class SharedArena(Arena):
    """The arena of this process, `size` bytes. Raises OSError."""

    def __init__(self, size: int) -> None:
        fd = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            status = os.fstat(fd)
            self._map = mmap.mmap(fd, size)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        super().__init__(self._map, Offer(os.getpid(), fd, status.st_dev, status.st_ino, size))

    @property
    def memory_bytes(self) -> int:
        """What it takes of the machine's memory now."""
        return os.fstat(self._fd).st_blocks * 512

    def discard(self, position: int, length: int) -> None:
        self._map.madvise(mmap.MADV_REMOVE, position, length)

    def close(self) -> None:
        """Nobody can map it any more; the memory itself goes with the last view of it."""
        os.close(self._fd)


def map_offered(offer: Offer) -> memoryview:
    """The arena of another process, to be read. Raises OSError."""
    fd = os.open(f"/proc/{offer.pid}/fd/{offer.fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino, status.st_size) != (offer.device, offer.inode, offer.size):
            raise FileNotFoundError(f"descriptor {offer.fd} of process {offer.pid} is not the arena that was offered")
        return memoryview(mmap.mmap(fd, offer.size, prot=mmap.PROT_READ))
    finally:
        os.close(fd)
