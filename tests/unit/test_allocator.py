"""Freed memory stays: what a process used once for records it gets again without a page fault."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from zafka.actors.allocator import BROKER_KEEPS_BYTES, keep_freed
if sys.argv[1] == "keep":
    assert keep_freed(BROKER_KEEPS_BYTES)
def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        buffers = [bytearray(1 << 20) for _ in range(8)]
        del buffers
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(3)
print(faults(50))
"""


def page_faults(mode: str) -> int:
    return int(subprocess.check_output([sys.executable, "-c", PROGRAM, mode], text=True, timeout=60))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_buffers_of_records_are_made_of_memory_that_is_there() -> None:
    assert page_faults("plain") > 50 * 100  # else there is nothing to win, and the setting can go
    assert page_faults("keep") < 500
