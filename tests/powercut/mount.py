"""`ForgetfulMount`: a directory that forgets what was not synced, for tests. The other end of `serve`.

Owns: the serving process and the mount point, a temporary directory. All of it is gone after `close`.
A power cut is three steps, and their order is what makes it one: `cut`, then kill whoever works on it (nothing that
they still do lands), then `come_back`.
May fail with MountFailed, whose message ends with what the serving process wrote last.
"""

from __future__ import annotations

import ctypes.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent.parent
SYNC_S = 0.004  # as a disk takes; the longer, the more is under way when the power goes
UNMOUNT_S = 15.0


class MountFailed(Exception):
    """The file system is not there, or somebody still works on it."""


def missing() -> str:
    """"" if there can be such a mount here, else why not."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no permission to use /dev/fuse, or it is not there"
    if shutil.which("fusermount3") is None or ctypes.util.find_library("fuse3") is None:
        return "no fuse3 on this machine (scripts/install-peers installs it)"
    return ""


class ForgetfulMount:
    """Use it as a context manager; `path` is the directory.

    sync_s: how long every sync takes (s).
    """

    def __init__(self, sync_s: float = SYNC_S) -> None:
        self._work = Path(tempfile.mkdtemp(prefix="forgetful-"))
        self.path = self._work / "disk"
        self.path.mkdir()
        self._log = (self._work / "log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.powercut.serve", str(self.path), str(sync_s)], cwd=ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, start_new_session=True)

    def __enter__(self) -> Self:
        try:
            self._ask("mount")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- faults --------------------------------------------------------------------------------

    def cut(self) -> None:
        """From now on everything fails with EIO, and nothing lands."""
        self._ask("cut")

    def come_back(self, seed: int) -> dict[str, int]:
        """After `cut`, and after everybody who worked here was killed: forget by the seed, and mount again.

        Returns how many changes and names were not synced, and how many of them were lost (wholly or in part).
        """
        self._unmount()
        told: dict[str, int] = self._ask("forget", seed=seed)
        self._ask("mount")
        return told

    def sync(self) -> None:
        """Make everything durable."""
        self._ask("sync")

    def fill(self, pattern: str | None) -> None:
        """Files whose path (from here, "/a/b") matches cannot grow: ENOSPC. None: there is room again."""
        self._ask("fill", pattern=pattern)

    def fail_sync(self, pattern: str) -> None:
        """The next sync of a matching path fails with EIO, and what it should have kept is lost at a cut."""
        self._ask("fail_sync", pattern=pattern)

    def counts(self) -> dict[str, int]:
        """Operations since the beginning, by kind."""
        counts: dict[str, int] = self._ask("counts")
        return counts

    # -- life ----------------------------------------------------------------------------------

    def close(self) -> None:
        """End the process; whoever still works here gets errors."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(UNMOUNT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(UNMOUNT_S)
            subprocess.run(["fusermount3", "-uzq", str(self.path)], check=False)
        self._process.stdout.close()
        self._log.close()
        shutil.rmtree(self._work, ignore_errors=True)

    def _unmount(self) -> None:
        """A process that was killed lets go of its files a moment later."""
        deadline_s = time.monotonic() + UNMOUNT_S
        command = ["fusermount3", "-u", str(self.path)]
        while (done := subprocess.run(command, check=False, capture_output=True, text=True)).returncode != 0:
            if time.monotonic() > deadline_s:
                raise MountFailed(f"cannot unmount: {done.stderr.strip()}")
            threading.Event().wait(0.005)

    def _ask(self, command: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": command, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except OSError:
            answer = b""
        if not answer:
            raise MountFailed(f"{command}: {(self._work / 'log').read_text(errors='replace')[-4000:].strip()}")
        return json.loads(answer)
