"""A disk that fails on demand: `Disk`, between an actor and the real one.

Owns: what each error of `DISK_ERRORS` does to which call, and where the points to crash at lie on the disk.
Raises OSError as the real one would; what is not to fail is passed on as it is.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from zafka.runtime.faults.board import Posted, Watch
from zafka.runtime.faults.kinds import DiskError
from zafka.runtime.faults.points import Crashes, die
from zafka.storage.disk import Buffer, Disk, File

READ = {"EIO": errno.EIO, "EIO-READ": errno.EIO}
WRITE = {"EIO": errno.EIO, "EIO-WRITE": errno.EIO, "ENOSPC": errno.ENOSPC}
CREATE = {"EIO-WRITE": errno.EIO, "ENOSPC": errno.ENOSPC}
FLUSH = {"EIO": errno.EIO, "FSYNC": errno.EIO}


class FaultyDisk:
    """disk: the real one. sleep: for a slow one."""

    def __init__(self, disk: Disk, watch: Watch, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.crashes = Crashes(watch)
        self._disk = disk
        self._watch = watch
        self._sleep = sleep

    # -- what can fail -------------------------------------------------------------------------

    def open(self, path: Path, *, create: bool = False) -> File:
        new = create and not self._disk.exists(path)
        if new:
            self._fail(path, CREATE)
        file = self._disk.open(path, create=create)
        if new:
            self.crashes.at("create", "after", path)
        return file

    def pwritev(self, file: File, buffers: Sequence[Buffer], position: int) -> None:
        path = file.path
        self.crashes.at("write", "before", path)
        self._fail(path, WRITE)
        torn = self.crashes.due("write", "during", path)
        if torn or self._hit(path, ("SHORT",)):
            data = b"".join(buffers)
            self._disk.pwritev(file, (data[: len(data) // 2],), position)
            if torn:
                die()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        self._disk.pwritev(file, buffers, position)
        self.crashes.at("write", "after", path)

    def pread(self, file: File, length: int, position: int) -> bytes:
        return self._damage(file.path, self._disk.pread(file, length, position))

    def pread_cached(self, file: File, length: int, position: int) -> Buffer | None:
        data = self._disk.pread_cached(file, length, position)
        return None if data is None else self._damage(file.path, bytes(data))

    def truncate(self, file: File, size: int) -> None:
        self.crashes.at("truncate", "before", file.path)
        self._disk.truncate(file, size)
        self.crashes.at("truncate", "after", file.path)

    def rename(self, source: Path, target: Path) -> None:
        self.crashes.at("rename", "before", target)
        self._disk.rename(source, target)
        self.crashes.at("rename", "after", target)

    def unlink(self, path: Path) -> None:
        self.crashes.at("unlink", "before", path)
        self._disk.unlink(path)

    def fdatasync(self, file: File) -> None:
        self._flush(file.path)
        self._disk.fdatasync(file)

    def fsync_dir(self, path: Path) -> None:
        self.crashes.at("sync-dir", "before", path)
        self._flush(path)
        self._disk.fsync_dir(path)

    def list_directory(self, path: Path) -> list[str]:
        names = self._disk.list_directory(path)
        self.crashes.at("list", "after", path)
        return names

    # -- what cannot ---------------------------------------------------------------------------

    def make_directory(self, path: Path) -> None:
        self._disk.make_directory(path)

    def lock(self, path: Path) -> File:
        return self._disk.lock(path)

    def remove_tree(self, path: Path) -> None:
        self._disk.remove_tree(path)

    def space(self, path: Path) -> tuple[int, int]:
        return self._disk.space(path)

    def exists(self, path: Path) -> bool:
        return self._disk.exists(path)

    def close(self, file: File) -> None:
        self._disk.close(file)

    def size(self, file: File) -> int:
        return self._disk.size(file)

    # -- how -----------------------------------------------------------------------------------

    def _hit(self, path: Path, errors: Sequence[str]) -> Posted | None:
        """The first rule with one of these errors that hits this path."""
        for posted in self._watch.own(DiskError):
            rule = posted.rule
            assert isinstance(rule, DiskError)
            if rule.error in errors and path.match(rule.path_glob) and self._watch.hits(posted):
                return posted
        return None

    def _fail(self, path: Path, numbers: Mapping[str, int]) -> None:
        hit = self._hit(path, tuple(numbers))
        if hit is not None:
            assert isinstance(hit.rule, DiskError)
            number = numbers[hit.rule.error]
            raise OSError(number, os.strerror(number), str(path))

    def _flush(self, path: Path) -> None:
        slow = self._hit(path, ("SLOW",))
        if slow is not None:
            assert isinstance(slow.rule, DiskError)
            self._sleep(slow.rule.delay_ms / 1000)
        self._fail(path, FLUSH)

    def _damage(self, path: Path, data: bytes) -> bytes:
        """What reading these bytes gives."""
        self._fail(path, READ)
        flip = self._hit(path, ("FLIP",)) if data else None
        if flip is None:
            return data
        below = self._watch.random(flip).randrange
        flipped = bytearray(data)
        flipped[below(len(data))] ^= 1 << below(8)
        return bytes(flipped)
