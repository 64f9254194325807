"""The machine's limits, looked at before anything starts.

Raises CannotStart if the topology's actors do not fit: how many there are, what they need, what there is.
"""

from __future__ import annotations

import os
import resource

from zafka.runtime.errors import CannotStart

ACTOR_BYTES = 6 * 1024 * 1024  # a partition that idles; measured as proportional set size
FIXED_BYTES = 100 * 1024 * 1024
ACTOR_TASKS = 3  # its own thread, and two of ZeroMQ
FDS_MIN = 1024


def raise_descriptor_limit() -> None:
    """As many open files as the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < FDS_MIN:
        raise CannotStart(f"only {hard} open files are allowed and {FDS_MIN} are needed; raise `ulimit -Hn`")


def check_room(actors: int) -> None:
    """Whether this many actor processes may exist and find memory."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    needed = actors * ACTOR_TASKS
    if os.getuid() != 0 and soft != resource.RLIM_INFINITY and needed > soft:
        raise CannotStart(
            f"the topology has {actors} actors, which need {needed} processes and threads; this user may have {soft} "
            "(`ulimit -u`): take fewer partitions")
    available = _available_bytes()
    wanted = FIXED_BYTES + actors * ACTOR_BYTES
    if available is not None and wanted > available:
        raise CannotStart(
            f"the topology has {actors} actors, which need about {wanted >> 20} MiB of memory; {available >> 20} MiB "
            "are available: take fewer partitions")


def _available_bytes() -> int | None:
    """What may be had without swapping."""
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None
