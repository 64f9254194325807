"""The machine's disk as one process has it: every call may be its last, and takes time.

Owns: `ProcessDisk`, which stands between an actor and the disk that all share (`tests/unit/memory_disk.py`), and what
the process has open. A call is a step at which the process may be killed or the power cut, before it or, where it
writes, in the middle of it. After that nothing that the dead code still tries, on its way out, reaches the disk.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Protocol

from tests.unit.memory_disk import MemoryDisk
from zafka.storage.disk import Buffer, File

FIRST_SEGMENT = "0" * 20

SEEN = (  # by the end of a name that a file or directory gets
    ("recovery-checkpoint", "checkpoints"), (".log.deleted", "segments dropped"), (".cut", "segments cut off"),
    (".log.swap", "segments cleaned"), ("coordinator-snapshot", "snapshots"),
    ("-delete", "directories moved aside"),
)

class Killed(BaseException):
    """SIGKILL. Not an Exception: nobody but the simulated process catches it."""


class Steps(Protocol):
    """The process, as its disk sees it."""

    alive: bool

    def step(self, what: str, where: object = "") -> None: ...

    def count(self, what: str) -> None: ...

    def middle(self, what: str) -> float: ...

    def wait(self, seconds: float) -> None: ...

    def flush_fails(self, path: Path) -> bool: ...


class ProcessDisk:
    """flush_s: how long a flush may take."""

    def __init__(self, disk: MemoryDisk, process: Steps, random: Random, flush_s: float) -> None:
        self.disk = disk
        self.process = process
        self.random = random
        self.flush_s = flush_s
        self.open_files: dict[int, File] = {}

    def release(self) -> None:
        """The process is gone: its files are closed and its locks are free."""
        for file in self.open_files.values():
            if file.fd in self.disk.open_files:
                self.disk.close(file)
        self.open_files.clear()

    # -- names -----------------------------------------------------------------------------------

    def make_directory(self, path: Path) -> None:
        if not self.disk.exists(path):
            self.process.step("mkdir", path)
            self.disk.make_directory(path)

    def list_directory(self, path: Path) -> list[str]:
        return self.disk.list_directory(path)

    def exists(self, path: Path) -> bool:
        return self.disk.exists(path)

    def rename(self, source: Path, target: Path) -> None:
        self.process.step("rename", target)
        self.disk.rename(source, target)
        for suffix, what in SEEN:
            if target.name.endswith(suffix):
                self.process.count(what)

    def unlink(self, path: Path) -> None:
        self.process.step("unlink", path)
        self.disk.unlink(path)

    def remove_tree(self, path: Path) -> None:
        self.process.step("unlink", path)
        self.disk.remove_tree(path)

    def space(self, path: Path) -> tuple[int, int]:
        return self.disk.space(path)

    # -- files -----------------------------------------------------------------------------------

    def open(self, path: Path, *, create: bool = False) -> File:
        if create:
            self.process.step("create", path)
            if path.suffix == ".cut":
                self.process.count("torn tails kept")
            elif path.suffix == ".log" and path.stem != FIRST_SEGMENT:
                self.process.count("segments rolled")
        file = self.disk.open(path, create=create)
        self.open_files[file.fd] = file
        return file

    def lock(self, path: Path) -> File:
        self.process.step("create", path)
        file = self.disk.lock(path)
        self.open_files[file.fd] = file
        return file

    def close(self, file: File) -> None:
        if self.open_files.pop(file.fd, None) is not None:
            self.disk.close(file)

    def size(self, file: File) -> int:
        return self.disk.size(file)

    def pread(self, file: File, length: int, position: int) -> bytes:
        return self.disk.pread(file, length, position)

    def pread_cached(self, file: File, length: int, position: int) -> bytes:
        return self.disk.pread_cached(file, length, position)

    def pwritev(self, file: File, buffers: Sequence[Buffer], position: int) -> None:
        process = self.process
        part = process.middle("write")
        if part < 1.0:
            data = b"".join(buffers)
            self.disk.pwritev(file, (data[: int(len(data) * part)],), position)
        process.step("write", file.path)
        self.disk.pwritev(file, buffers, position)

    def truncate(self, file: File, size: int) -> None:
        self.process.step("truncate", file.path)
        self.disk.truncate(file, size)

    # -- flushes ---------------------------------------------------------------------------------

    def fdatasync(self, file: File) -> None:
        process = self.process
        process.step("flush", file.path)
        process.wait(self.flush_s * self.random.random() ** 2 + 0.0001)
        process.step("flush", "ends")  # all that was sent before it is there by now
        if process.flush_fails(file.path):
            self.disk.fail_flush(file)
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(file.path))
        self.disk.fdatasync(file)

    def fsync_dir(self, path: Path) -> None:
        self.process.step("flush directory", path)
        self.process.wait(self.flush_s * self.random.random() ** 2 + 0.0001)
        self.process.step("flush directory", "ends")
        self.disk.fsync_dir(path)
