"""What a file system holds, and which of it a power cut may take: the model behind the mount, no FUSE in it.

Owns: inodes with their bytes, directories with their names, and of both every change since it was last synced.
A cut (`forget`) rolls all changes back to what was synced and applies a subset again that the seed chooses:
    - of a file: any page-sized parts of writes, any truncations; and its size may come through without its bytes,
      so that a tail reads as zeros. fsync of the file makes them durable; it says nothing of the file's name.
    - of directories: any creates, renames, unlinks. A rename is one step: old or new, never neither.
      fsync of the directory makes them durable. No order between files and names, or among them, is kept: less
      than ext4 with its journal promises, and no more than POSIX does.
May fail with OSError as a file system does, and with EIO for everything once `cut` was called.
Invariant: rolling back all changes, newest first, gives what the last syncs left.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import stat
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from random import Random

ROOT_INO = 1
PAGES_BYTES = (512, 4096)
KEEP = (0.0, 0.5, 0.9, 1.0)  # how much survives: none, any part, nearly all, all; drawn for each file and directory


class Fate(Enum):
    """Of a change, should the power be cut now."""

    OPEN = "the seed says"
    KEPT = "synced"
    LOST = "the sync that should have kept it failed, and the page cache does not try again"


@dataclass(slots=True)
class Change:
    """One write (`data` at `position`) or truncation (`data` is None, to `position` bytes), and what undoes it."""

    number: int
    position: int
    data: bytes | None
    before: bytes  # the bytes that it replaced or cut off
    size_before: int
    fate: Fate = Fate.OPEN

    def apply(self, content: bytearray) -> None:
        if self.data is None:
            del content[self.position:]
            content.extend(bytes(self.position - len(content)))
        else:
            _put(content, self.position, self.data)

    def undo(self, content: bytearray) -> None:
        if self.data is None:
            content.extend(self.before)
        else:
            content[self.position : self.position + len(self.before)] = self.before
        del content[self.size_before:]


@dataclass(slots=True)
class Step:
    """One change of names, all or nothing: (directory, name, inode after, inode before); None: no such name."""

    number: int
    names: tuple[tuple[int, str, int | None, int | None], ...]
    unsynced: set[int]  # directories that have not been synced since
    fate: Fate = Fate.OPEN


@dataclass(slots=True)
class Inode:
    ino: int
    mode: int
    content: bytearray = field(default_factory=bytearray)
    names: dict[str, int] = field(default_factory=dict)
    changes: deque[Change] = field(default_factory=deque)
    mtime_ns: int = 0

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


@dataclass(frozen=True)
class Handle:
    ino: int
    path: str  # as it was opened


def _put(content: bytearray, position: int, data: bytes | memoryview) -> None:
    if position > len(content):
        content.extend(bytes(position - len(content)))
    content[position : position + len(data)] = data


def error(number: int, path: object = None) -> OSError:
    return OSError(number, os.strerror(number), path)


class ForgetfulDisk:
    """See the module. All methods may be called from several threads.

    sync_s: how long a sync takes, so that there is something to lose while it lasts.
    """

    def __init__(self, sync_s: float = 0.0) -> None:
        self.sync_s = sync_s
        self.lock = threading.RLock()
        self.inodes: dict[int, Inode] = {ROOT_INO: Inode(ROOT_INO, stat.S_IFDIR | 0o755)}
        self.steps: deque[Step] = deque()
        self.handles: dict[int, Handle] = {}
        self.counts: Counter[str] = Counter()
        self.full: str | None = None  # pattern of paths whose files may not grow
        self.failing_syncs: list[str] = []  # patterns of paths; each fails one sync
        self._is_cut = threading.Event()
        self._next_ino = ROOT_INO + 1
        self._next_handle = 1
        self._number = 0

    # -- faults --------------------------------------------------------------------------------

    def cut(self) -> None:
        """From now on everything fails with EIO, and nothing changes."""
        with self.lock:
            self._is_cut.set()

    def forget(self, random: Random) -> dict[str, int]:
        """After `cut`: become what the disk may hold, by the dice; returns how much there was to lose, and was lost."""
        with self.lock:
            told = Counter[str]()
            page_bytes = random.choice(PAGES_BYTES)
            for ino in sorted(self.inodes):
                self._forget_content(self.inodes[ino], random, page_bytes, told)
            self._forget_names(random, told)
            self._drop_unreachable()
            self.handles.clear()
            self.full, self.failing_syncs = None, []
            self._is_cut.clear()
            return dict(told)

    def sync_all(self) -> None:
        """Make everything durable, as `sync` does."""
        with self.lock:
            for inode in self.inodes.values():
                self._settle_content(inode, self._number, Fate.KEPT)
            for step in self.steps:
                step.unsynced.clear()
            self._settle_names()

    def _forget_content(self, inode: Inode, random: Random, page_bytes: int, told: Counter[str]) -> None:
        for change in reversed(inode.changes):
            change.undo(inode.content)
        keep = random.choice(KEEP)
        for change in inode.changes:
            if change.fate is Fate.OPEN:
                told["changes"] += 1
            if change.fate is Fate.KEPT:
                change.apply(inode.content)
            elif change.fate is Fate.LOST:
                told["changes lost"] += 1
            elif change.data is None:
                if random.random() < keep:
                    change.apply(inode.content)
                else:
                    told["changes lost"] += 1
            else:
                told["changes lost"] += self._apply_parts(inode.content, change, random, page_bytes, keep)
        inode.changes.clear()

    @staticmethod
    def _apply_parts(content: bytearray, change: Change, random: Random, page_bytes: int, keep: float) -> bool:
        """Apply some pages of a write, perhaps its size; True if any of it was lost."""
        assert change.data is not None
        data, lost, at = memoryview(change.data), False, 0
        while at < len(data):
            length = min(page_bytes - (change.position + at) % page_bytes, len(data) - at)
            if random.random() < keep:
                _put(content, change.position + at, data[at : at + length])
            else:
                lost = True
            at += length
        end = change.position + len(data)
        if lost and random.random() < keep / 2 and len(content) < end:
            content.extend(bytes(end - len(content)))
        return lost

    def _forget_names(self, random: Random, told: Counter[str]) -> None:
        for step in reversed(self.steps):
            self._set_names((directory, name, before) for directory, name, _, before in step.names)
        keep = {ino: random.choice(KEEP) for ino in sorted({step.names[0][0] for step in self.steps})}
        for step in self.steps:
            told["names"] += step.fate is Fate.OPEN
            survives = random.random() < keep[step.names[0][0]]
            if step.fate is Fate.KEPT or (step.fate is Fate.OPEN and survives and self._is_possible(step)):
                self._set_names((directory, name, after) for directory, name, after, _ in step.names)
            else:
                told["names lost"] += 1
        self.steps.clear()

    def _is_possible(self, step: Step) -> bool:
        """Without some steps before it, a step must not take away what it did not take away when it was done."""
        found = ((self.inodes[directory].names.get(name), before) for directory, name, _, before in step.names)
        return all(now is None or now == before for now, before in found)

    def _drop_unreachable(self) -> None:
        reached, unseen = set(), [ROOT_INO]
        while unseen:
            ino = unseen.pop()
            reached.add(ino)
            unseen += [child for child in self.inodes[ino].names.values() if child not in reached]
        self.inodes = {ino: inode for ino, inode in self.inodes.items() if ino in reached}

    # -- names ---------------------------------------------------------------------------------

    def lookup(self, path: str) -> Inode:
        with self.lock:
            self._check_power()
            inode = self.inodes[ROOT_INO]
            for name in path.split("/"):
                if name:
                    if name not in inode.names:
                        raise error(errno.ENOENT, path)
                    inode = self.inodes[inode.names[name]]
            return inode

    def create(self, path: str, mode: int) -> Inode:
        with self.lock:
            directory, name = self._parent(path)
            if name in directory.names:
                raise error(errno.EEXIST, path)
            inode = Inode(self._next_ino, mode, mtime_ns=time.time_ns())
            self._next_ino += 1
            self.inodes[inode.ino] = inode
            self._step((directory, name, inode.ino))
            return inode

    def rename(self, source: str, target: str) -> None:
        with self.lock:
            moved = self.lookup(source)
            from_directory, from_name = self._parent(source)
            to_directory, to_name = self._parent(target)
            replaced = self.inodes.get(to_directory.names.get(to_name, 0))
            if replaced is moved:
                return
            if replaced is not None and replaced.is_directory != moved.is_directory:
                raise error(errno.EISDIR if replaced.is_directory else errno.ENOTDIR, target)
            if replaced is not None and replaced.names:
                raise error(errno.ENOTEMPTY, target)
            self._step((from_directory, from_name, None), (to_directory, to_name, moved.ino))

    def remove(self, path: str) -> None:
        """unlink and rmdir."""
        with self.lock:
            if self.lookup(path).names:
                raise error(errno.ENOTEMPTY, path)
            directory, name = self._parent(path)
            self._step((directory, name, None))

    def open(self, inode: Inode, path: str) -> int:
        with self.lock:
            self._check_power()
            self._next_handle += 1
            self.handles[self._next_handle] = Handle(inode.ino, path)
            return self._next_handle

    def release(self, handle: int) -> None:
        with self.lock:
            self.handles.pop(handle, None)

    def _parent(self, path: str) -> tuple[Inode, str]:
        head, _, name = path.rpartition("/")
        parent = self.lookup(head)
        if not parent.is_directory:
            raise error(errno.ENOTDIR, path)
        return parent, name

    def _step(self, *names: tuple[Inode, str, int | None]) -> None:
        self._number += 1
        before = tuple((directory.ino, name, after, directory.names.get(name)) for directory, name, after in names)
        self.steps.append(Step(self._number, before, {directory.ino for directory, _, _ in names}))
        self._set_names((directory.ino, name, after) for directory, name, after in names)
        self.counts["names"] += 1

    def _set_names(self, names: Iterable[tuple[int, str, int | None]]) -> None:
        for directory, name, ino in names:
            if ino is None:
                self.inodes[directory].names.pop(name, None)
            else:
                self.inodes[directory].names[name] = ino

    # -- content -------------------------------------------------------------------------------

    def inode_of(self, handle: int) -> Inode:
        with self.lock:
            self._check_power()
            if handle not in self.handles:
                raise error(errno.EBADF)
            return self.inodes[self.handles[handle].ino]

    def read(self, inode: Inode, size: int, position: int) -> bytes:
        with self.lock:
            self._check_power()
            self.counts["reads"] += 1
            return bytes(memoryview(inode.content)[position : position + size])

    def write(self, inode: Inode, data: bytes, position: int, path: str) -> None:
        with self.lock:
            self._check_power()
            growth = position + len(data) - len(inode.content)
            if growth > 0 and self.full is not None and fnmatch.fnmatch(path, self.full):
                raise error(errno.ENOSPC, path)
            before = bytes(inode.content[position : position + len(data)])
            self._change(inode, Change(self._next_number(), position, data, before, len(inode.content)))
            self.counts["writes"] += 1

    def truncate(self, inode: Inode, size: int) -> None:
        with self.lock:
            self._check_power()
            before = bytes(inode.content[size:])
            self._change(inode, Change(self._next_number(), size, None, before, len(inode.content)))
            self.counts["truncates"] += 1

    def sync(self, handle: int) -> None:
        """fsync and fdatasync of a file, fsync of a directory: what was done before the call is durable after it."""
        with self.lock:
            inode, path, upto = self.inode_of(handle), self.handles[handle].path, self._number
        self._is_cut.wait(self.sync_s)
        with self.lock:
            self._check_power()
            self.counts["syncs"] += 1
            failing = next((pattern for pattern in self.failing_syncs if fnmatch.fnmatch(path, pattern)), None)
            fate = Fate.KEPT if failing is None else Fate.LOST
            self._settle_content(inode, upto, fate)
            if inode.is_directory and fate is Fate.KEPT:
                for step in self.steps:
                    if step.number <= upto:
                        step.unsynced.discard(inode.ino)
                self._settle_names()
            if failing is not None:
                self.failing_syncs.remove(failing)
                raise error(errno.EIO, path)

    def _change(self, inode: Inode, change: Change) -> None:
        change.apply(inode.content)
        inode.changes.append(change)
        inode.mtime_ns = time.time_ns()

    def _settle_content(self, inode: Inode, upto: int, fate: Fate) -> None:
        for change in inode.changes:
            if change.number <= upto and change.fate is Fate.OPEN:
                change.fate = fate
        # What is behind a lost change must stay, so that the lost one can be rolled back.
        while inode.changes and inode.changes[0].fate is Fate.KEPT:
            inode.changes.popleft()

    def _settle_names(self) -> None:
        for step in self.steps:
            if not step.unsynced:
                step.fate = Fate.KEPT
        while self.steps and self.steps[0].fate is Fate.KEPT:
            self._forget_inodes(self.steps.popleft())

    def _forget_inodes(self, step: Step) -> None:
        """Let go of the bytes of what this step has removed for good, unless somebody has it open."""
        for _, _, after, before in step.names:
            if before is None or after == before or self._is_named(before):
                continue
            if all(handle.ino != before for handle in self.handles.values()):
                self.inodes.pop(before, None)

    def _is_named(self, ino: int) -> bool:
        pending = any(ino in (where, after, before) for step in self.steps for where, _, after, before in step.names)
        return pending or any(ino in inode.names.values() for inode in self.inodes.values())

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _check_power(self) -> None:
        if self._is_cut.is_set():
            raise error(errno.EIO)
