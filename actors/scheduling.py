"""How soon a process that has something to do gets a core: it asks for short turns, and comes the earlier for it.

Owns: one attribute of the calling thread in Linux's fair scheduler, its slice. A request passes broker and partition in some
100 us of work, and on a busy machine it waits longer for a core than that at each step. Among equals the scheduler takes
whom it promised the earliest end, and that is who asks for the shorter turn. Nobody gets more of a core by it, or less.
Needs no privilege. Where the scheduler has no such attribute (Linux before 6.12, others), nothing happens.
Source: sched_setattr(2), sched_runtime of SCHED_OTHER; Documentation/scheduler/sched-eevdf.rst.
"""

from __future__ import annotations

import ctypes
import platform
import struct

SHORT_NS = 100_000  # the least that the kernel takes
CALLS = {"x86_64": (314, 315), "aarch64": (274, 275)}  # sched_setattr, sched_getattr
SCHED_OTHER = 0
# Of struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period.
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
RUNTIME = 5


def ask_for_short_turns() -> bool:
    """Of the calling thread; False where that cannot be said."""
    fields = _attributes()
    if fields is None or fields[1] != SCHED_OTHER:
        return False
    fields[RUNTIME] = SHORT_NS
    call, _ = CALLS[platform.machine()]
    return not _syscall(call, 0, _ATTRIBUTES.pack(*fields), 0)


def turn_ns(thread_id: int = 0) -> int:
    """What this thread asks for, or the calling one; 0 where nobody knows."""
    fields = _attributes(thread_id)
    return 0 if fields is None else fields[RUNTIME]


def _attributes(thread_id: int = 0) -> list[int] | None:
    call = CALLS.get(platform.machine())
    found = ctypes.create_string_buffer(_ATTRIBUTES.size)
    if call is None or _syscall(call[1], thread_id, found, _ATTRIBUTES.size, 0):
        return None
    return list(_ATTRIBUTES.unpack(found.raw))


def _syscall(*arguments: object) -> int:
    """0, or -1 where the kernel refuses or there is no such call."""
    try:
        call = ctypes.CDLL(None).syscall
    except (OSError, AttributeError):
        return -1
    return int(call(*arguments))
