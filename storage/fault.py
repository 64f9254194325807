"""Two words in a partition's directory: that its disk is not to be believed, and what an operator gave up since.

Owns: the marker `disk-fault`, which keeps a replica offline, and `recovered.json`, which `zafka log recover` leaves.
After a failed flush the page cache holds bytes that are not on disk, and a later flush may succeed all the same; so a
process that starts over them must not take them for the log. That marker is not flushed: it lies in the same page
cache and vanishes with it in a power cut, and then what the disk has is the truth again.
May fail with OSError, and FailedFlush where something is made durable.
Source: "Can Applications Recover from fsync Failures?" (USENIX ATC 2020).
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from zafka.storage.disk import Disk, sync

MARKER_NAME = "disk-fault"
RECOVERED_NAME = "recovered.json"


class Recovered(Struct, frozen=True):
    """One `zafka log recover`, for the coordinator, which lets the replica back in once for each id, and for people.

    at_ms: when it began. reason: why it was needed. lost: first offset and the one behind the last, of each stretch
    that was given up. torn_bytes: cut from the end above the checkpoint, as at every start.
    finished: False while it is at work; who finds it so goes on with the same id. written: damaged segments are written
    anew, and what is left is to give them their names.
    base_offset: of the segment that start_offset lies in, which may begin before it; -1: at start_offset.
    """

    id: str
    at_ms: int
    reason: str
    lost: list[tuple[int, int]]
    torn_bytes: int
    start_offset: int
    end_offset: int
    finished: bool = False
    written: bool = False
    base_offset: int = -1

    @property
    def lost_offsets(self) -> int:
        return sum(end - first for first, end in self.lost)


def leave_marker(disk: Disk, directory: Path, reason: str, *, durable: bool = False) -> None:
    """Keep whoever opens this log next from serving it."""
    file = disk.open(directory / MARKER_NAME, create=True)
    try:
        disk.truncate(file, 0)
        disk.pwritev(file, [reason.encode()], 0)
        if durable:
            sync(disk, file, directories=(directory,))
    finally:
        disk.close(file)


def read_marker(disk: Disk, directory: Path) -> str:
    """Why the replica was given up, or "". Its name alone is enough: a full disk may have had no room for more."""
    return _read(disk, directory / MARKER_NAME).decode(errors="replace") or (
        "disk fault" if disk.exists(directory / MARKER_NAME) else "")


def remove_marker(disk: Disk, directory: Path) -> None:
    """Let the log be opened again; durable on return."""
    if disk.exists(directory / MARKER_NAME):
        disk.unlink(directory / MARKER_NAME)
    sync(disk, directories=(directory,))


def write_recovered(disk: Disk, directory: Path, recovered: Recovered) -> None:
    """Replace `recovered.json`; durable on return."""
    file = disk.open(directory / f"{RECOVERED_NAME}.tmp", create=True)
    try:
        disk.truncate(file, 0)
        disk.pwritev(file, [msgspec.json.encode(recovered)], 0)
        sync(disk, file)
    finally:
        disk.close(file)
    disk.rename(file.path, directory / RECOVERED_NAME)
    sync(disk, directories=(directory,))


def read_recovered(disk: Disk, directory: Path) -> Recovered | None:
    """The last recovery by hand, finished or not; None if there was none, or its file is damaged: then it is as if
    there had been none, and a replica that is offline stays so."""
    try:
        return msgspec.json.decode(_read(disk, directory / RECOVERED_NAME), type=Recovered)
    except msgspec.DecodeError:
        return None


def recovery_id(disk: Disk, directory: Path) -> str:
    """Of the last recovery by hand that came to its end, or ""."""
    recovered = read_recovered(disk, directory)
    return recovered.id if recovered is not None and recovered.finished else ""


def _read(disk: Disk, path: Path) -> bytes:
    if not disk.exists(path):
        return b""
    file = disk.open(path)
    try:
        return disk.pread(file, disk.size(file), 0)
    finally:
        disk.close(file)
