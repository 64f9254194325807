"""A `Disk` in memory that forgets what was not flushed: a power cut without a machine.

Owns: files and directories, each in two versions: as programs see them and as they are on disk.
`power_cut` applies an arbitrary subset, drawn from the seed, of what happened since the last flush of each: writes
(page by page, so that parts of a write are lost and tails read as zeros), truncations, creates, renames, unlinks.
A directory that was made and whose parent was not flushed may vanish with all that is in it.
Faults on demand: `room_bytes` makes the disk full, `fail_flush` is a flush after which the page cache lies,
`calls_left` cuts the power in the middle of what runs.
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

    __slots__ = ("data", "durable", "number", "pending")

    def __init__(self, number: int) -> None:
        self.number = number
        self.data = bytearray()
        self.durable = bytearray()
        self.pending: list[tuple[str, int, bytes]] = []

    def change(self, kind: str, position: int, data: bytes) -> None:
        self.pending.append((kind, position, data))
        _apply(self.data, kind, position, data)

    def flush(self) -> None:
        for kind, position, data in self.pending:
            _apply(self.durable, kind, position, data)
        self.pending.clear()

    def lose(self, random: Random) -> None:
        """Any part of what was not flushed reaches the disk."""
        # Most of the time all or nothing or a prefix survives; sometimes any pages do.
        keep = random.choice((0.0, 0.5, 0.9, 1.0))
        for kind, position, data in self.pending:
            if kind == "truncate":
                if random.random() < keep:
                    _apply(self.durable, kind, position, data)
                continue
            at = 0
            while at < len(data):
                length = min(PAGE_BYTES - (position + at) % PAGE_BYTES, len(data) - at)
                if random.random() < keep:
                    _apply(self.durable, "write", position + at, data[at : at + length])
                at += length
            if random.random() < keep / 2 and len(self.durable) < position + len(data):
                self.durable.extend(bytes(position + len(data) - len(self.durable)))  # the size came through
        self.pending.clear()


class Directory:
    """Names. pending: (name, what it names, or None for gone), in order; a rename is one step of two such changes."""

    __slots__ = ("durable", "names", "number", "pending")

    def __init__(self, number: int) -> None:
        self.number = number
        self.names: dict[str, Node] = {}
        self.durable: dict[str, Node] = {}
        self.pending: list[tuple[tuple[str, Node | None], ...]] = []

    def change(self, *changes: tuple[str, Node | None]) -> None:
        self.pending.append(changes)
        _apply_names(self.names, changes)

    def flush(self) -> None:
        for changes in self.pending:
            _apply_names(self.durable, changes)
        self.pending.clear()

    def lose(self, random: Random) -> None:
        keep = random.random()
        for changes in self.pending:
            if random.random() < keep:
                _apply_names(self.durable, changes)
        self.pending.clear()


Node = Inode | Directory


def _apply(target: bytearray, kind: str, position: int, data: bytes) -> None:
    if kind == "truncate":
        del target[position:]
        target.extend(bytes(position - len(target)))
    else:
        if position > len(target):
            target.extend(bytes(position - len(target)))
        target[position : position + len(data)] = data


def _apply_names(names: dict[str, Node], changes: Sequence[tuple[str, Node | None]]) -> None:
    for name, node in changes:
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class MemoryDisk:
    """See the module. After `power_cut` or `crash` all open files are gone."""

    def __init__(self, seed: int = 0) -> None:
        self.random = Random(seed)
        self.open_files: dict[int, Inode] = {}
        self.room_bytes: int | None = None  # how much more may be written; None: no limit
        self.calls_left: int | None = None  # before the power is cut; None: never. Only calls that change something count
        self.bytes_read = 0
        self._root = Directory(0)
        self._directories: dict[str, Directory] = {"/": self._root}
        self._dirty: dict[int, Node] = {}  # by number: with something to lose
        self._locks: dict[int, int] = {}  # descriptor that holds the lock, by inode
        self._next_fd = 3
        self._next_number = 1

    # -- what happens to it --------------------------------------------------------------------

    def crash(self) -> None:
        """The process dies; the machine goes on."""
        self.open_files.clear()
        self._locks.clear()

    def power_cut(self) -> None:
        """Anything not flushed may be lost, each part of it for itself."""
        self.crash()
        self.calls_left = None
        for _, node in sorted(self._dirty.items()):
            node.lose(self.random)
        self._dirty.clear()
        self._directories = {}
        self._reload("/", self._root)

    def _reload(self, path: str, directory: Directory) -> None:
        """Programs see what is on disk."""
        self._directories[path] = directory
        directory.names = dict(directory.durable)
        for name, node in directory.names.items():
            if isinstance(node, Directory):
                self._reload(path.rstrip("/") + "/" + name, node)
            elif node.data != node.durable:
                node.data = bytearray(node.durable)

    def fail_flush(self, file: File) -> None:
        """What an EIO of fsync does: any part of the file's data is not written and counts as clean all the same.

        It is seen until the power is cut, and no later flush writes it."""
        inode = self.open_files[file.fd]
        inode.lose(self.random)

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

    def is_directory(self, path: Path) -> bool:
        return str(path) in self._directories

    def remove_tree(self, path: Path) -> None:
        """What `shutil.rmtree` does; not there is fine."""
        directory = self._directories.get(str(path))
        if directory is None:
            return
        for name, node in list(directory.names.items()):
            if isinstance(node, Directory):
                self.remove_tree(path / name)
            else:
                self.unlink(path / name)
        del self._directories[str(path)]
        self._change_names(self._directory(path.parent), (path.name, None))

    # -- Disk ----------------------------------------------------------------------------------

    def space(self, path: Path) -> tuple[int, int]:
        total = 1 << 40
        return total, total if self.room_bytes is None else self.room_bytes

    def make_directory(self, path: Path) -> None:
        if str(path) in self._directories:
            return
        # The first directory ever made, and what lies above it, was there before.
        mounted = not self._root.names
        if str(path.parent) not in self._directories:
            self.make_directory(path.parent)
        directory = self._directories[str(path)] = Directory(self._new_number())
        self._change_names(self._directory(path.parent), (path.name, directory))
        if mounted:
            self._flush_all()

    def list_directory(self, path: Path) -> list[str]:
        return sorted(self._directory(path).names)

    def exists(self, path: Path) -> bool:
        parent = self._directories.get(str(path.parent))
        return parent is not None and path.name in parent.names

    def open(self, path: Path, *, create: bool = False) -> File:
        directory = self._directory(path.parent)
        inode = directory.names.get(path.name)
        if inode is None:
            if not create:
                raise _no_such(path)
            self._count_call()
            inode = Inode(self._new_number())
            self._change_names(directory, (path.name, inode))
        if isinstance(inode, Directory):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        self._next_fd += 1
        self.open_files[self._next_fd] = inode
        return File(path, self._next_fd, inode.number)

    def close(self, file: File) -> None:
        del self.open_files[file.fd]
        if self._locks.get(file.inode) == file.fd:
            del self._locks[file.inode]

    def lock(self, path: Path) -> File:
        file = self.open(path, create=True)
        if file.inode in self._locks:
            self.close(file)
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))
        self._locks[file.inode] = file.fd
        return file

    def size(self, file: File) -> int:
        return len(self.open_files[file.fd].data)

    def pwritev(self, file: File, buffers: Sequence[Buffer], position: int) -> None:
        self._count_call()
        inode, data = self.open_files[file.fd], b"".join(buffers)
        growth = max(position + len(data) - len(inode.data), 0)
        full = self.room_bytes is not None and growth > self.room_bytes
        if self.room_bytes is not None:
            if full:
                data = data[: max(len(data) - growth + self.room_bytes, 0)]
            self.room_bytes -= min(growth, self.room_bytes)
        self._dirty[inode.number] = inode
        inode.change("write", position, data)
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file.path))

    def pread(self, file: File, length: int, position: int) -> bytes:
        assert length >= 0 and position >= 0
        data = bytes(self.open_files[file.fd].data[position : position + length])
        self.bytes_read += len(data)
        return data

    def pread_cached(self, file: File, length: int, position: int) -> bytes:
        return self.pread(file, length, position)  # nothing here has to be waited for

    def truncate(self, file: File, size: int) -> None:
        self._count_call()
        inode = self.open_files[file.fd]
        if self.room_bytes is not None:
            self.room_bytes += max(len(inode.data) - size, 0)
        self._dirty[inode.number] = inode
        inode.change("truncate", size, b"")

    def rename(self, source: Path, target: Path) -> None:
        self._count_call()
        assert source.parent == target.parent
        directory = self._directory(source.parent)
        node = directory.names.get(source.name)
        if node is None:
            raise _no_such(source)
        self._change_names(directory, (source.name, None), (target.name, node))
        if isinstance(node, Directory):
            before, behind = str(source), str(target)
            moved = [path for path in self._directories if path == before or path.startswith(before + "/")]
            for path in moved:
                self._directories[behind + path[len(before) :]] = self._directories.pop(path)

    def unlink(self, path: Path) -> None:
        self._count_call()
        directory = self._directory(path.parent)
        inode = directory.names.get(path.name)
        if not isinstance(inode, Inode):
            raise _no_such(path)
        if self.room_bytes is not None:
            self.room_bytes += len(inode.data)
        self._change_names(directory, (path.name, None))

    def fdatasync(self, file: File) -> None:
        self._count_call()
        inode = self.open_files[file.fd]
        inode.flush()
        self._dirty.pop(inode.number, None)

    def fsync_dir(self, path: Path) -> None:
        self._count_call()
        directory = self._directory(path)
        directory.flush()
        self._dirty.pop(directory.number, None)

    # -- how -----------------------------------------------------------------------------------

    def _count_call(self) -> None:
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                raise PowerCut

    def _change_names(self, directory: Directory, *changes: tuple[str, Node | None]) -> None:
        self._dirty[directory.number] = directory
        directory.change(*changes)

    def _flush_all(self) -> None:
        for node in self._dirty.values():
            node.flush()
        self._dirty.clear()

    def _new_number(self) -> int:
        self._next_number += 1
        return self._next_number

    def _directory(self, path: Path) -> Directory:
        directory = self._directories.get(str(path))
        if directory is None:
            raise _no_such(path)
        return directory

    def _inode(self, path: Path) -> Inode:
        inode = self._directory(path.parent).names[path.name]
        assert isinstance(inode, Inode)
        return inode


def _no_such(path: Path) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
