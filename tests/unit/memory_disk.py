"""A `Disk` in memory that forgets what was not flushed: a power cut without a machine.

Owns: files as inodes and directories as names, each in two versions: as programs see them and as they are on disk.
`power_cut` applies an arbitrary subset, drawn from the seed, of what happened since the last flush of each: writes
(page by page, so that parts of a write are lost and tails read as zeros), truncations, creates, renames, unlinks.
Faults on demand: `room_bytes` makes the disk full, `calls_left` cuts the power in the middle of what runs.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from random import Random

from zafka.storage.disk import Buffer, File

PAGE_BYTES = 512


class PowerCut(BaseException):
    """The machine is gone. Not an Exception: nobody catches it but the test, which then calls `power_cut`."""


class Inode:
    """A file's bytes. pending: ("write", position, bytes) or ("truncate", size, b"") since the last flush."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.data = bytearray()
        self.durable = bytearray()
        self.pending: list[tuple[str, int, bytes]] = []

    def apply(self, target: bytearray, kind: str, position: int, data: bytes) -> None:
        if kind == "truncate":
            del target[position:]
            target.extend(bytes(position - len(target)))
        else:
            target.extend(bytes(max(position + len(data) - len(target), 0)))
            target[position : position + len(data)] = data


class Directory:
    """Names. pending: (name, inode or None for gone), in order; a rename is one step of two such changes."""

    def __init__(self) -> None:
        self.names: dict[str, Inode] = {}
        self.durable: dict[str, Inode] = {}
        self.pending: list[list[tuple[str, Inode | None]]] = []

    def change(self, *changes: tuple[str, Inode | None]) -> None:
        self.pending.append(list(changes))
        _apply_names(self.names, changes)


def _apply_names(names: dict[str, Inode], changes: Sequence[tuple[str, Inode | None]]) -> None:
    for name, inode in changes:
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode


class MemoryDisk:
    """See the module. One process uses it at a time; after `power_cut` or `crash` all open files are gone."""

    def __init__(self, seed: int = 0) -> None:
        self.random = Random(seed)
        self.directories: dict[Path, Directory] = {}
        self.open_files: dict[int, Inode] = {}
        self.room_bytes: int | None = None  # how much more may be written; None: no limit
        self.calls_left: int | None = None  # before the power is cut; None: never. Only calls that change something count
        self.bytes_read = 0
        self._next_fd = 3
        self._next_inode = 1

    # -- what happens to it --------------------------------------------------------------------

    def crash(self) -> None:
        """The process dies; the machine goes on."""
        self.open_files.clear()

    def power_cut(self) -> None:
        """Anything not flushed may be lost, each part of it for itself."""
        self.crash()
        self.calls_left = None
        for directory in self.directories.values():
            for inode in {id(inode): inode for inode in (*directory.names.values(), *directory.durable.values())}.values():
                self._lose_content(inode)
        for directory in self.directories.values():
            keep = self.random.random()
            for changes in directory.pending:
                if self.random.random() < keep:
                    _apply_names(directory.durable, changes)
            directory.names = dict(directory.durable)
            directory.pending.clear()

    def _lose_content(self, inode: Inode) -> None:
        # Most of the time all or nothing or a prefix survives; sometimes any pages do.
        keep = self.random.choice((0.0, 0.5, 0.9, 1.0))
        for kind, position, data in inode.pending:
            if kind == "truncate":
                if self.random.random() < keep:
                    inode.apply(inode.durable, kind, position, data)
                continue
            at = 0
            while at < len(data):
                length = min(PAGE_BYTES - (position + at) % PAGE_BYTES, len(data) - at)
                if self.random.random() < keep:
                    inode.apply(inode.durable, "write", position + at, data[at : at + length])
                at += length
            if self.random.random() < keep / 2 and len(inode.durable) < position + len(data):
                inode.durable.extend(bytes(position + len(data) - len(inode.durable)))  # the size came through
        inode.pending.clear()
        inode.data = bytearray(inode.durable)

    def flip_bit(self, path: Path, position: int) -> None:
        """Bit rot: on disk, and seen."""
        inode = self._inode(path)
        for data in (inode.data, inode.durable):
            if position < len(data):
                data[position] ^= 0x10

    def read(self, path: Path) -> bytes:
        return bytes(self._inode(path).data)

    def write(self, path: Path, data: bytes) -> None:
        """Put a file on the disk, flushed."""
        file = self.open(path, create=True)
        self.truncate(file, 0)
        self.pwritev(file, (data,), 0)
        self.fdatasync(file)
        self.fsync_dir(path.parent)
        self.close(file)

    # -- Disk ----------------------------------------------------------------------------------

    def make_directory(self, path: Path) -> None:
        self.directories.setdefault(path, Directory())

    def list_directory(self, path: Path) -> list[str]:
        return sorted(self.directories[path].names)

    def exists(self, path: Path) -> bool:
        return path in self.directories or path.name in self.directories.get(path.parent, Directory()).names

    def open(self, path: Path, *, create: bool = False) -> File:
        directory = self.directories[path.parent]
        if path.name not in directory.names:
            if not create:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            self._count_call()
            directory.change((path.name, Inode(self._next_inode)))
            self._next_inode += 1
        inode = directory.names[path.name]
        self._next_fd += 1
        self.open_files[self._next_fd] = inode
        return File(path, self._next_fd, inode.number)

    def close(self, file: File) -> None:
        del self.open_files[file.fd]

    def size(self, file: File) -> int:
        return len(self.open_files[file.fd].data)

    def pwritev(self, file: File, buffers: Sequence[Buffer], position: int) -> None:
        self._count_call()
        inode, data = self.open_files[file.fd], b"".join(buffers)
        growth = max(position + len(data) - len(inode.data), 0)
        if self.room_bytes is not None and growth > self.room_bytes:
            data = data[: max(len(data) - growth + self.room_bytes, 0)]
            self._change(inode, "write", position, data)
            self.room_bytes = 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file.path))
        if self.room_bytes is not None:
            self.room_bytes -= growth
        self._change(inode, "write", position, data)

    def pread(self, file: File, length: int, position: int) -> bytes:
        assert length >= 0 and position >= 0
        data = bytes(self.open_files[file.fd].data[position : position + length])
        self.bytes_read += len(data)
        return data

    def truncate(self, file: File, size: int) -> None:
        self._count_call()
        inode = self.open_files[file.fd]
        if self.room_bytes is not None:
            self.room_bytes += max(len(inode.data) - size, 0)
        self._change(inode, "truncate", size, b"")

    def rename(self, source: Path, target: Path) -> None:
        self._count_call()
        assert source.parent == target.parent
        directory = self.directories[source.parent]
        inode = directory.names.get(source.name)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))
        directory.change((source.name, None), (target.name, inode))

    def unlink(self, path: Path) -> None:
        self._count_call()
        directory = self.directories[path.parent]
        if path.name not in directory.names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        if self.room_bytes is not None:
            self.room_bytes += len(directory.names[path.name].data)
        directory.change((path.name, None))

    def fdatasync(self, file: File) -> None:
        self._count_call()
        inode = self.open_files[file.fd]
        inode.durable = bytearray(inode.data)
        inode.pending.clear()

    def fsync_dir(self, path: Path) -> None:
        self._count_call()
        directory = self.directories.get(path)
        if directory is not None:
            directory.durable = dict(directory.names)
            directory.pending.clear()

    def _count_call(self) -> None:
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                raise PowerCut

    def _change(self, inode: Inode, kind: str, position: int, data: bytes) -> None:
        inode.pending.append((kind, position, data))
        inode.apply(inode.data, kind, position, data)

    def _inode(self, path: Path) -> Inode:
        return self.directories[path.parent].names[path.name]
