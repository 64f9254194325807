"""The run directory: where the sockets of one life of `up` lie.

Owns: a short directory of mode 0700 under $XDG_RUNTIME_DIR or the temporary directory, one for each life; the lock
on it (flock) tells whether that life goes on, so that leftovers of the dead are swept by whoever starts next, and
keeps cleaners of temporary directories away (systemd-tmpfiles respects it).
May fail with CannotStart if no place is short enough: `ipc` paths end at 107 bytes.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from pathlib import Path

from zafka.runtime.errors import CannotStart

PREFIX = "zafka-run-"
NAME = re.compile(rf"{PREFIX}\d+-[0-9a-f]{{8}}")
IPC_PATH_BYTES_MAX = 107
LONGEST_NAME = "a999999999999"


class RunDirectory:
    """A fresh run directory, ours until `close` or our death."""

    def __init__(self) -> None:
        base = _base()
        sweep(base)
        self.path = base / f"{PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
        # Under another name until it is locked, or somebody's sweep might take it for a dead one's.
        newborn = base / f".{self.path.name}"
        try:
            newborn.mkdir(mode=0o700)
            self._lock = os.open(newborn, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            newborn.rename(self.path)
        except OSError as error:
            raise CannotStart(f"cannot make a directory for sockets in {base}: {error.strerror}") from None

    def __repr__(self) -> str:
        return f"<RunDirectory {self.path}>"

    def endpoint(self, name: str) -> str:
        return f"ipc://{self.path}/{name}"

    def remove_socket(self, endpoint: str) -> None:
        """A dead process leaves its sockets behind."""
        Path(endpoint.partition("://")[2] or endpoint).unlink(missing_ok=True)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _base() -> Path:
    """The first place that exists, is ours to write in, and is short enough."""
    places = [os.environ.get("XDG_RUNTIME_DIR", ""), os.environ.get("TMPDIR", ""), "/tmp"]
    for place in filter(None, places):
        longest = len(os.fsencode(f"{place}/{PREFIX}{'9' * 10}-{'f' * 8}/{LONGEST_NAME}"))
        if longest <= IPC_PATH_BYTES_MAX and os.access(place, os.W_OK | os.X_OK):
            return Path(place)
    raise CannotStart(
        f"no place for sockets: none of {', '.join(filter(None, places))} is writable and short enough; "
        "set XDG_RUNTIME_DIR to a directory with a short name")


def sweep(base: Path) -> list[Path]:
    """Remove run directories of ours whose owner is dead; returns them."""
    swept = []
    for name in os.listdir(base):
        if NAME.fullmatch(name) and _is_left_over(base / name):
            shutil.rmtree(base / name, ignore_errors=True)
            swept.append(base / name)
    return swept


def _is_left_over(path: Path) -> bool:
    """Whether this is a directory of ours that nobody holds the lock of."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False  # swept by another, or somebody else's
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(lock).st_uid == os.getuid()
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
