"""Signals to the processes of a running tree, by the names that `zafka status` tells."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from zafka.runtime.control import read_status


def kill(data_dir: Path, name: str, number: int = signal.SIGKILL) -> int:
    """Send a signal to an actor's process; returns its process id."""
    (pid,) = (actor["pid"] for actor in read_status(data_dir)["actors"] if actor["name"] == name)
    os.kill(pid, number)
    return int(pid)
