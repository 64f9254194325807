"""Cutting what a crash left behind the valid batches of a log, and keeping it for the operator.

Owns: the order of the steps, so that each may be killed and done again: from the end of the log towards the front,
and a copy is on disk before its original goes. What may be cut is for the caller to know.
May fail with OSError and FailedFlush. A full disk keeps no copy: what is cut was never acknowledged.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zafka.storage.disk import Disk, File, sync
from zafka.storage.scan import CHUNK_BYTES, no_progress
from zafka.storage.segment import LOG_SUFFIX, segment_path

CUT_SUFFIX = ".cut"
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


@dataclass
class Cut:
    """files: that hold what was cut. size_bytes: of all that was cut, kept or not."""

    files: list[Path] = field(default_factory=list)
    size_bytes: int = 0
    warnings: list[str] = field(default_factory=list)


def cut_torn_tail(
    disk: Disk, directory: Path, file: File, position: int, later: Sequence[int],
    progress: Callable[[], None] = no_progress,
) -> Cut:
    """Cut `file`, a segment of the log in `directory`, at `position`, and set all `later` segments aside.

    later: base offsets, in order. Durable is the copy when this returns, not yet the cut.
    """
    cut = Cut()
    for base_offset in reversed(later):
        _set_aside(disk, segment_path(directory, base_offset, LOG_SUFFIX), cut)
    size = disk.size(file)
    if size > position:
        path = file.path.with_suffix(CUT_SUFFIX)
        try:
            copy_bytes(disk, file, path, position, size, progress)
            cut.files.append(path)
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            cut.warnings.append(f"the disk is full: {size - position} bytes were cut and not kept")
        sync(disk, directories=(directory,))
        disk.truncate(file, position)
        cut.size_bytes += size - position
    return cut


def copy_bytes(
    disk: Disk, source: File, path: Path, start: int, end: int, progress: Callable[[], None] = no_progress
) -> None:
    """Copy the bytes start..end-1 of a file into the file at `path`, and flush it. Its name is not durable yet."""
    kept = disk.open(path, create=True)
    try:
        disk.truncate(kept, 0)
        for position in range(start, end, CHUNK_BYTES):
            data = disk.pread(source, min(CHUNK_BYTES, end - position), position)
            disk.pwritev(kept, (data,), position - start)
            progress()
        sync(disk, kept)
    except OSError:
        disk.truncate(kept, 0)
        raise
    finally:
        disk.close(kept)


def _set_aside(disk: Disk, path: Path, cut: Cut) -> None:
    file = disk.open(path)
    size = disk.size(file)
    disk.close(file)
    if size:
        disk.rename(path, path.with_suffix(CUT_SUFFIX))
        cut.files.append(path.with_suffix(CUT_SUFFIX))
        cut.size_bytes += size
    else:
        disk.unlink(path)
