"""The partitions of a data directory as files, for tools that look at them while no zafka has them open.

Owns: which directories are logs, who has them open, and that what is read comes from the disk and not from a page cache
that lies since a flush failed.
Raises LogRefused and CannotStart, with a message for the operator; OSError.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from zafka.actors.cluster_state import TOPIC
from zafka.runtime.data_dir import FAULT_NAME, LOCK_WAIT_S, flush_names, lock_directory
from zafka.runtime.errors import LogRefused
from zafka.runtime.yaml_file import did_you_mean
from zafka.storage.config import parse_config
from zafka.storage.directory import LOCK_NAME, lock_partition
from zafka.storage.disk import PosixDisk
from zafka.storage.fault import Recovered
from zafka.storage.repair import go_on, plan, repair
from zafka.storage.verify import Verdict, verify

_PARTITION = re.compile(r".+-\d+")
META_NAME = "meta.properties"


def find_logs(data_dir: Path) -> list[Path]:
    """Every partition's directory, the coordinator's first."""
    if not (data_dir / META_NAME).is_file():
        raise LogRefused(f"{data_dir} is no data directory of zafka, it has no {META_NAME}; say which with --data-dir")
    folders = [data_dir / "coordinator", *sorted(data_dir.glob("broker-*"))]
    return [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir(), key=_place)
            if path.is_dir() and _PARTITION.fullmatch(path.name)]


def find_log(data_dir: Path, target: str) -> Path:
    """The directory of TOPIC-PARTITION, or the one at this path."""
    if "/" in target:
        path = Path(target).expanduser().absolute()
        if not path.is_dir():
            raise LogRefused(f"{path} is no directory")
        return path
    if target == f"{TOPIC}-0" and (data_dir / FAULT_NAME).exists():
        # Its first flush of all may have failed, and the power then taken its name: there is still a fault to clear.
        (data_dir / "coordinator" / target).mkdir(parents=True, exist_ok=True)
    logs = find_logs(data_dir)
    found = [path for path in logs if path.name == target]
    if not found:
        names = [path.name for path in logs]
        raise LogRefused(f"there is no {target!r} in {data_dir}{did_you_mean(target, names)}; a partition is named like "
                         "orders-0")
    if len(found) > 1:
        raise LogRefused(f"there are several: {', '.join(map(str, found))}; say which by its path")
    return found[0]


def is_open(directory: Path) -> bool:
    """Whether a process has this log open."""
    try:
        fd = os.open(directory / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


@contextlib.contextmanager
def taken(directory: Path) -> Iterator[None]:
    """The log for this process alone: no `zafka up` runs on its data directory meanwhile. Raises CannotStart."""
    data_dir, disk = directory.parent.parent, PosixDisk()
    with contextlib.ExitStack() as closing:
        if (data_dir / META_NAME).is_file():
            closing.callback(os.close, lock_directory(data_dir, LOCK_WAIT_S))
        closing.callback(disk.close, lock_partition(disk, directory))
        yield


def look_at(directory: Path, *, going_on: bool = False) -> Verdict:
    """What its files say, as the disk has them. going_on: a recovery that was killed goes on; the log must be `taken`."""
    read_afresh(directory)
    if going_on:
        go_on(PosixDisk(), directory)
    return verify(PosixDisk(), directory)


def plan_recovery(verdict: Verdict) -> Recovered:
    return plan(PosixDisk(), verdict, new_id=uuid.uuid4().hex, now_ms=time.time_ns() // 1_000_000)


def recover_log(verdict: Verdict, planned: Recovered) -> Recovered:
    """Give up what was planned, and let the replica back in at the next start. The log must be `taken`."""
    done = repair(PosixDisk(), verdict, planned, parse_config({}), now_ms=time.time_ns() // 1_000_000)
    data_dir = verdict.directory.parent.parent
    if verdict.directory.name == f"{TOPIC}-0" and (data_dir / FAULT_NAME).exists():
        (data_dir / FAULT_NAME).unlink()
        flush_names(data_dir)
    return done


def read_afresh(directory: Path) -> None:
    """Let go of what the page cache has of these files: since a flush failed it may hold what the disk does not.

    What is still to be written is flushed first; where that fails, the disk is not ready to be looked at.
    """
    for path in directory.iterdir():
        if not path.is_file():
            continue
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise LogRefused(
                f"the disk refuses a flush of {path}: {error.strerror}; mend or replace it, then look again") from None
        finally:
            os.close(fd)


def _place(path: Path) -> tuple[str, int]:
    """Partition 10 comes after partition 9."""
    topic, _, number = path.name.rpartition("-")
    return topic, int(number) if number.isdecimal() else -1
