"""What Linux says of a tree of processes: CPU time, memory; and of a directory: bytes on disk.

May fail: a process may end between two looks; then it is left out, and its CPU time stands in its parent's account.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
BLOCK_BYTES = 512
# In /proc/PID/stat, counted after the name's closing bracket: utime, stime, and those of children that were reaped.
CPU_FIELDS = slice(11, 15)


def cpu_ticks(stat: str) -> int:
    """User and system time in the text of a /proc/PID/stat, with that of its children that ended."""
    after_name = stat.rpartition(")")[2]  # a name may hold blanks and brackets
    return sum(map(int, after_name.split()[CPU_FIELDS]))


def tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def tree_cpu_s(pid: int) -> float:
    """CPU seconds of a process and all that descend from it, whether they live or have ended."""
    total = 0
    for process in tree(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += cpu_ticks(Path(f"/proc/{process.pid}/stat").read_text())
    return total / TICKS_PER_S


def tree_pss_bytes(pid: int) -> int:
    """Proportional set size of the whole tree: a page that several share is counted once."""
    total = 0
    for process in tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total


def disk_bytes(directory: Path) -> int:
    """What the files of a directory take on disk; holes (preallocated indexes) count nothing."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(os.path.join(folder, name)).st_blocks * BLOCK_BYTES
    return total
