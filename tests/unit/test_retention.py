"""What makes room in a log, and what happens when there is none: retention and a full disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.log_tools import (
    NO_LIMIT,
    NOW_MS,
    append,
    fill,
    flush,
    log_path,
    make_batch,
    perform,
    read_records,
    small_config,
)
from tests.unit.memory_disk import MemoryDisk
from zafka.storage.disk import Buffer, File
from zafka.storage.errors import DiskFull, OffsetOutOfRange
from zafka.storage.log import Log
from zafka.storage.recovery import recover

DIRECTORY = Path("/data/orders-0")


def open_log(disk: MemoryDisk, **config: Any) -> Log:
    return recover(disk, DIRECTORY, small_config(**config), NOW_MS)[0]


# -- retention ---------------------------------------------------------------------------------


def dropped(log: Log, now_ms: int, limit: int = NO_LIMIT) -> list[str]:
    return [path.name.lstrip("0") for path in log.apply_retention(now_ms, limit) if ".log" in path.name]


def test_retention_by_time_goes_by_the_largest_timestamp() -> None:
    disk = MemoryDisk()
    log = open_log(disk, segment_bytes=300, retention_ms=1000)
    for time in (0, 500, 200, 900):
        append(log, make_batch([b"x" * 150], timestamp_ms=NOW_MS + time))
    flush(disk, log)
    assert dropped(log, NOW_MS + 1000) == []
    assert dropped(log, NOW_MS + 1001) == [".log.deleted"]
    assert dropped(log, NOW_MS + 1300) == []  # the next one is younger than the one behind it
    assert dropped(log, NOW_MS + 1501) == ["1.log.deleted", "2.log.deleted"]
    assert log.start_offset == 3
    with pytest.raises(OffsetOutOfRange):
        log.locate(2, 100, NO_LIMIT)


def test_retention_by_size_keeps_at_least_that_much() -> None:
    disk = MemoryDisk()
    log = open_log(disk, segment_bytes=300, retention_bytes=700, retention_ms=-1)
    fill(log, 10, size=150)
    flush(disk, log)
    dropped(log, NOW_MS)
    assert 700 <= log.size_bytes < 700 + log.segments[0].size_bytes


def test_indexes_that_are_being_flushed_stay_open_when_their_segment_is_dropped() -> None:
    """They were made anew because they lied; a flush of a closed file would be one that failed."""
    disk = MemoryDisk()
    log = open_log(disk, segment_bytes=300, retention_bytes=700, retention_ms=10**9)
    fill(log, 4, size=150)
    flush(disk, log)
    log.segments[0].rebuild_indexes()
    wanted = log.checkpoint()
    perform(disk, wanted)
    indexes = log.on_flushed(wanted.token)
    assert indexes is not None and log.segments[0].index_paths[0] in {file.path for file in indexes.files}
    log.update_config(small_config(retention_bytes=400, retention_ms=-1))
    assert log.apply_retention(NOW_MS, NO_LIMIT)
    flush(disk, log, indexes)
    assert not {file.fd for file in indexes.files} & disk.open_files.keys(), "and are closed then"


def test_retention_stops_at_the_high_watermark_and_at_what_is_checkpointed() -> None:
    disk = MemoryDisk()
    log = open_log(disk, segment_bytes=300, retention_bytes=0, retention_ms=-1)
    fill(log, 5, size=150)
    assert dropped(log, NOW_MS) == []  # nothing is on disk
    flush(disk, log)
    assert dropped(log, NOW_MS, limit=4) == [".log.deleted", "2.log.deleted"]


def test_the_active_segment_goes_too_when_all_is_old() -> None:
    disk = MemoryDisk()
    log = open_log(disk, retention_ms=1000)
    fill(log, 3)
    flush(disk, log)
    assert dropped(log, NOW_MS + 5000) == []
    assert len(log.segments) == 2
    flush(disk, log)
    assert dropped(log, NOW_MS + 5000) == [".log.deleted"]
    assert (log.start_offset, log.end_offset, log.size_bytes) == (6, 6, 0)
    assert dropped(log, NOW_MS + 9000) == []  # an empty one stays
    assert append(log, make_batch([b"next"])) == [6]


def test_names_of_dropped_segments_go_after_the_checkpoint_that_says_so() -> None:
    disk = MemoryDisk()
    log = open_log(disk, segment_bytes=300, retention_bytes=300, retention_ms=-1)
    fill(log, 5, size=150)
    flush(disk, log)
    paths = log.apply_retention(NOW_MS, NO_LIMIT)
    assert paths
    assert log.flush_due
    assert all(disk.exists(path) for path in paths)
    log.unlink_deleted(paths)
    assert all(disk.exists(path) for path in paths)
    assert disk.read(paths[0])  # a power cut could still bring the old name back
    flush(disk, log)
    assert not any(disk.exists(path) for path in paths)


# -- a full disk -------------------------------------------------------------------------------


@pytest.mark.parametrize("segment_bytes", [700, 1000, 2000], ids=["both in new segments", "one in a new segment", "none"])
def test_a_full_disk_changes_nothing_and_writing_goes_on_when_there_is_room(segment_bytes: int) -> None:
    disk = MemoryDisk()
    log = open_log(disk, segment_bytes=segment_bytes)
    fill(log, 2)
    flush(disk, log)
    before = disk.read(log_path(DIRECTORY))
    batch = make_batch([b"x" * 300], producer_id=1, producer_epoch=0, base_sequence=0)
    for room_bytes in (0, 10, 300, 500):
        disk.room_bytes = room_bytes
        with pytest.raises(DiskFull, match=r"00000000000000000000\.log"):
            append(log, batch, batch, leader_epoch=5)
        assert disk.room_bytes == room_bytes
        assert disk.read(log_path(DIRECTORY)) == before
        assert (log.end_offset, len(log.segments), log.leader_epochs.latest, len(log.producers)) == (4, 1, 0, 0)
        assert len(read_records(disk, log)) == 4
    assert len([name for name in disk.list_directory(DIRECTORY) if name.endswith(".log")]) == 1
    disk.room_bytes = None
    assert append(log, batch, leader_epoch=5) == [4]
    assert len(read_records(disk, log)) == 5


def test_other_errors_of_the_disk_come_through() -> None:
    class Broken(MemoryDisk):
        broken = False

        def pwritev(self, file: File, buffers: Sequence[Buffer], position: int) -> None:
            if self.broken:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            super().pwritev(file, buffers, position)

    disk = Broken()
    log = open_log(disk)
    disk.broken = True
    with pytest.raises(OSError, match="Input/output"):
        fill(log, 1)


def test_a_checkpoint_that_has_no_room_is_put_off_and_retention_still_makes_room() -> None:
    disk = MemoryDisk()
    log = open_log(disk, segment_bytes=300, retention_bytes=300, retention_ms=-1)
    fill(log, 8, size=150)
    flush(disk, log)
    paths = log.apply_retention(NOW_MS, NO_LIMIT)
    disk.room_bytes = 0
    flush(disk, log)
    assert log.checkpoint_error is not None
    assert not log.flush_due  # or the owner would go round and round
    log.unlink_deleted(paths)
    assert all(disk.read(path) == b"" for path in paths)  # room, but the names still tell recovery
    assert disk.room_bytes > 1000
    assert log.flush_due
    flush(disk, log)
    assert log.checkpoint_error is None
    assert not any(disk.exists(path) for path in paths)
