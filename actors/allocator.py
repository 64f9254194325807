"""How much freed memory a process keeps: enough that buffers of records are not made of fresh pages each time.

Owns: one setting of glibc. By default freed memory goes back to the kernel above a few hundred kB, and comes again page by
page, zeroed, with every batch that is received or read: measured, more than half of the CPU of reading 1 kB records.
Costs at most `keep_bytes` of memory that was used before. Where the C library has no such setting, nothing happens.
Source: mallopt(3), M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
# Blocks from here on are mapped each by itself and given back at once. glibc takes nothing above 32 MiB.
MAPPED_BYTES = 32 << 20

BROKER_KEEPS_BYTES = 32 << 20
PARTITION_KEEPS_BYTES = 8 << 20  # there may be hundreds of them


def keep_freed(keep_bytes: int) -> bool:
    """Have this process keep up to so many freed bytes; False where that cannot be said."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl, macOS
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES) and mallopt(M_TRIM_THRESHOLD, keep_bytes))
