"""The process that serves a `ForgetfulDisk` as a file system: `python -m tests.powercut.serve MOUNTPOINT SYNC_S`.

Owns: the mount, through libfuse. Every write is seen at once (no write-back cache); files may be mapped.
Told what to do by JSON lines on standard input, answers each by one on standard output (`Server.do_...`). It ends,
and takes the mount with it, when its standard input closes.
Invariant: what comes from a mount that was cut fails with EIO for ever, also after a new one was made.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterable
from random import Random
from typing import Any, NoReturn

import mfusepy

from tests.powercut.forgetful import ForgetfulDisk, Inode, error

HIDDEN = ".fuse_hidden"  # what libfuse calls a file that is removed while it is open
FREE_BLOCKS = 2**24
BLOCK_BYTES = 4096


class Operations(mfusepy.Operations):  # type: ignore[misc]
    """One mount's way to the disk; on paths, as libfuse has it."""

    use_ns = True
    # Files are known by their handles: no path has to be made for reads, writes and syncs.
    flag_nopath = flag_nullpath_ok = True

    def __init__(self, disk: ForgetfulDisk) -> None:
        self._disk = disk
        self._is_dead = False
        self._hidden: dict[str, Inode] = {}
        self.is_up = threading.Event()

    def kill(self) -> None:
        self._is_dead = True

    @property
    def disk(self) -> ForgetfulDisk:
        if self._is_dead:
            raise error(errno.EIO)
        return self._disk

    def init(self, path: str) -> None:
        self.is_up.set()

    def getattr(self, path: str | None, fh: int | None = None) -> dict[str, Any]:
        inode = self._find(path, fh)
        return {
            "st_ino": inode.ino, "st_mode": inode.mode, "st_nlink": 1, "st_size": len(inode.content),
            "st_blocks": -(-len(inode.content) // 512), "st_blksize": BLOCK_BYTES,
            "st_mtime": inode.mtime_ns, "st_ctime": inode.mtime_ns, "st_atime": inode.mtime_ns,
            "st_uid": os.getuid(), "st_gid": os.getgid(),
        }

    def statfs(self, path: str) -> dict[str, int]:
        free = 0 if self.disk.full else FREE_BLOCKS
        return {"f_bsize": BLOCK_BYTES, "f_frsize": BLOCK_BYTES, "f_blocks": FREE_BLOCKS, "f_bfree": free,
                "f_bavail": free, "f_files": FREE_BLOCKS, "f_ffree": FREE_BLOCKS, "f_namemax": 255}

    def readdir(self, path: str | None, fh: int) -> Iterable[tuple[str, dict[str, int], int]]:
        disk = self.disk
        with disk.lock:
            inodes = {name: disk.inodes[ino] for name, ino in self._find(path, fh).names.items()}
        yield from ((name, {"st_mode": stat.S_IFDIR}, 0) for name in (".", ".."))
        yield from ((name, {"st_mode": inode.mode, "st_ino": inode.ino}, 0) for name, inode in inodes.items())

    def mkdir(self, path: str, mode: int) -> None:
        self.disk.create(path, stat.S_IFDIR | mode)

    def create(self, path: str, mode: int, flags: int) -> int:
        return self.disk.open(self.disk.create(path, stat.S_IFREG | stat.S_IMODE(mode)), path)

    def rename(self, old: str, new: str) -> None:
        if HIDDEN in new:
            self._hidden[new] = self._find(old)
            self.disk.remove(old)
        else:
            self.disk.rename(old, new)

    def unlink(self, path: str) -> None:
        if self._hidden.pop(path, None) is None:
            self.disk.remove(path)

    def rmdir(self, path: str) -> None:
        self.disk.remove(path)

    def open(self, path: str, flags: int) -> int:
        handle = self.disk.open(self._find(path), path)
        if flags & os.O_TRUNC:
            self.disk.truncate(self.disk.inode_of(handle), 0)
        return handle

    def opendir(self, path: str) -> int:
        return self.disk.open(self._find(path), path)

    def release(self, path: str | None, fh: int) -> None:
        self._disk.release(fh)

    def releasedir(self, path: str | None, fh: int) -> None:
        self._disk.release(fh)

    def read(self, path: str | None, size: int, offset: int, fh: int) -> bytes:
        return self.disk.read(self.disk.inode_of(fh), size, offset)

    def write(self, path: str | None, data: bytes, offset: int, fh: int) -> int:
        disk = self.disk
        disk.write(disk.inode_of(fh), data, offset, disk.handles[fh].path)
        return len(data)

    def truncate(self, path: str | None, length: int, fh: int | None = None) -> None:
        self.disk.truncate(self._find(path, fh), length)

    def fsync(self, path: str | None, datasync: int, fh: int) -> None:
        self.disk.sync(fh)

    def fsyncdir(self, path: str | None, datasync: int, fh: int) -> None:
        self.disk.sync(fh)

    def chmod(self, path: str | None, mode: int) -> None:
        inode = self._find(path)
        inode.mode = stat.S_IFMT(inode.mode) | stat.S_IMODE(mode)

    def chown(self, path: str | None, uid: int, gid: int) -> None:
        self._find(path)

    def utimens(self, path: str | None, times: tuple[int, int] | None = None) -> None:
        inode = self._find(path)
        if times is not None:
            inode.mtime_ns = times[1]

    def _find(self, path: str | None, fh: int | None = None) -> Inode:
        if path is None:
            assert fh is not None
            return self.disk.inode_of(fh)
        return self._hidden.get(path) or self.disk.lookup(path)


class Fuse(mfusepy.FUSE):  # type: ignore[misc]
    """As it is, but truncating by a handle, and no renames that it would do otherwise than asked."""

    def truncate_fuse_3(self, path: bytes | None, length: int, fip: Any) -> Any:
        return self.operations.truncate(path.decode() if path else None, length, fip.contents.fh if fip else None)

    def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> Any:
        if flags:
            raise error(errno.EINVAL)
        return super().rename_fuse_3(old, new, flags)


class Server:
    """Makes one mount after the other in the main thread; a second thread takes the commands."""

    def __init__(self, mountpoint: str, disk: ForgetfulDisk) -> None:
        self.mountpoint = mountpoint
        self.disk = disk
        self._asked = threading.Event()
        self._operations = Operations(disk)

    def run(self) -> NoReturn:
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            self._asked.wait()
            self._asked.clear()
            Fuse(self._operations, self.mountpoint, foreground=True, fsname="forgetful", use_ino=True,
                 default_permissions=True)

    def _listen(self) -> None:
        for line in sys.stdin:
            command = json.loads(line)
            answer = getattr(self, "do_" + command.pop("do"))(**command)
            print(json.dumps(answer), flush=True)
        self.do_cut()
        subprocess.run(["fusermount3", "-uzq", self.mountpoint], check=False)
        os._exit(0)  # the main thread may be held in libfuse by somebody who has a file open

    def do_mount(self) -> None:
        self._operations = Operations(self.disk)
        self._asked.set()
        self._operations.is_up.wait()

    def do_cut(self) -> None:
        self._operations.kill()
        self.disk.cut()

    def do_forget(self, seed: int) -> dict[str, int]:
        return self.disk.forget(Random(seed))

    def do_sync(self) -> None:
        self.disk.sync_all()

    def do_fill(self, pattern: str | None) -> None:
        self.disk.full = pattern

    def do_fail_sync(self, pattern: str) -> None:
        self.disk.failing_syncs.append(pattern)

    def do_counts(self) -> dict[str, int]:
        return dict(self.disk.counts)


if __name__ == "__main__":
    Server(sys.argv[1], ForgetfulDisk(sync_s=float(sys.argv[2]))).run()
