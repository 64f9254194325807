"""A segment and the log above it where bytes that count are no batches, or there is no room for what belongs to it."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.unit.damaged_log import CONFIG, DIRECTORY, grown, new_disk, place_of
from tests.unit.log_tools import NOW_MS, fill, flush, log_path, perform, small_config
from tests.unit.memory_disk import MemoryDisk
from zafka.storage.checkpoint import CHECKPOINT_NAME
from zafka.storage.disk import Buffer, File, Flush
from zafka.storage.errors import CorruptLog, OffsetOutOfRange
from zafka.storage.log import Log
from zafka.storage.recovery import recover
from zafka.storage.segment import Segment


class PickyDisk(MemoryDisk):
    """Refuses whatever is done to files whose names end so.

    refuses: (end of the name, errno): nothing is written or made.
    """

    refuses: tuple[str, int] = ("?", 0)

    def open(self, path: Path, *, create: bool = False) -> File:
        end, code = self.refuses
        if path.name.endswith(end) and create and not self.exists(path):
            raise OSError(code, "refused", str(path))
        return super().open(path, create=create)

    def pwritev(self, file: File, buffers: Sequence[Buffer], position: int) -> None:
        end, code = self.refuses
        if file.path.name.endswith(end):
            raise OSError(code, "refused", str(file.path))
        super().pwritev(file, buffers, position)


def new_picky() -> PickyDisk:
    disk = PickyDisk()
    disk.make_directory(DIRECTORY.parent)
    disk.make_directory(DIRECTORY)
    return disk


def new_log(disk: MemoryDisk, *, batches: int = 0) -> Log:
    log, _ = recover(disk, DIRECTORY, CONFIG, NOW_MS)
    fill(log, batches)
    return log


def test_a_new_segment_takes_no_file_that_is_there() -> None:
    disk = new_disk()
    disk.write(log_path(DIRECTORY, 7), b"who knows")
    with pytest.raises(CorruptLog, match="a file stands where none should be"):
        Segment.create(disk, DIRECTORY, 7, now_ms=NOW_MS, index_interval=100)
    assert not disk.open_files and disk.read(log_path(DIRECTORY, 7)) == b"who knows"


def test_old_index_files_of_a_new_segment_are_emptied() -> None:
    disk = new_disk()
    path = log_path(DIRECTORY, 7).with_suffix(".index")
    disk.write(path, b"of another life")
    segment = Segment.create(disk, DIRECTORY, 7, now_ms=NOW_MS, index_interval=100)
    assert disk.read(path) == b"" and repr(segment) == "<Segment 7..7 0 bytes>"


def test_a_segment_that_cannot_be_made_whole_is_not_made_at_all() -> None:
    disk = new_picky()
    disk.refuses = (".timeindex", errno.ENOSPC)
    with pytest.raises(OSError, match="refused"):
        Segment.create(disk, DIRECTORY, 7, now_ms=NOW_MS, index_interval=100)
    assert disk.list_directory(DIRECTORY) == [] and not disk.open_files


@pytest.mark.parametrize(("data", "told"), [(bytes(61), "v0"), (b"\0" * 7 + b"\1", "base offset 1")])
def test_headers_that_cannot_be_right_are_corruption(data: bytes, told: str) -> None:
    disk = new_disk()
    held = grown(disk, above=0)
    log = new_log(disk)
    path, position, _ = place_of(held, disk, 2)
    content = bytearray(disk.read(path))
    content[position : position + len(data)] = data
    disk.write(path, bytes(content))
    with pytest.raises(CorruptLog) as raised:
        list(log.segments[0].headers(0))
    assert told in str(raised.value) and raised.value.path == path


def test_a_search_by_time_does_not_believe_a_batch_that_rotted() -> None:
    disk = new_disk()
    held = grown(disk, above=0)
    log = new_log(disk)
    path, position, _ = place_of(held, disk, 4)
    disk.flip_bit(path, position + 80)
    assert log.offset_for_timestamp(NOW_MS + 1) is not None
    with pytest.raises(CorruptLog, match="the CRC-32C does not fit"):
        log.offset_for_timestamp(NOW_MS + 2)


def test_offsets_outside_of_the_log_are_refused_and_its_end_is_a_place() -> None:
    log = new_log(new_disk(), batches=4)
    for offset in (-1, 9):
        with pytest.raises(OffsetOutOfRange):
            log.locate(offset, 100, 8)
    assert log.locate(8, 100, 8).length == 0
    assert log.locate(6, 100, 4).length == 0  # behind the limit
    assert "0..8" in repr(log)


def test_a_full_disk_keeps_retention_from_dropping_the_active_segment_only() -> None:
    disk = new_picky()
    log = new_log(disk, batches=12)
    flush(disk, log)
    log.update_config(small_config(segment_bytes=1000, retention_ms=1))
    disk.refuses = (".log", errno.ENOSPC)
    before = len(log.segments)
    assert log.apply_retention(NOW_MS + 10_000, log.end_offset)
    assert len(log.segments) == 1 < before
    disk.refuses = (".log", errno.EIO)
    with pytest.raises(OSError, match="refused"):
        log.apply_retention(NOW_MS + 10_000, log.end_offset)


@pytest.mark.parametrize("what", [".index", ".tmp"])
def test_what_recovery_cannot_write_on_a_full_disk_is_put_off_and_any_other_error_is_one(what: str) -> None:
    disk = new_picky()
    log = new_log(disk, batches=12)
    end = log.end_offset
    disk.crash()
    disk.refuses = (what, errno.EIO)
    with pytest.raises(OSError, match="refused"):
        recover(disk, DIRECTORY, CONFIG, NOW_MS)
    assert not disk.open_files
    disk.refuses = (what, errno.ENOSPC)
    log, report = recover(disk, DIRECTORY, CONFIG, NOW_MS)
    assert log.end_offset == end and any("cannot be written yet" in warning for warning in report.warnings)
    disk.refuses = ("?", 0)
    flush(disk, log, log.checkpoint())
    disk.crash()
    log, report = recover(disk, DIRECTORY, CONFIG, NOW_MS)
    assert (log.end_offset, report.scanned_batches, report.warnings) == (end, 0, [])


def test_a_torn_tail_that_cannot_be_kept_for_any_other_reason_is_not_cut() -> None:
    disk = new_picky()
    log = new_log(disk, batches=3)
    path = log.segments[-1].path
    log.close()
    disk.write(path, disk.read(path) + b"torn")
    disk.refuses = (".cut", errno.EIO)
    with pytest.raises(OSError, match="refused"):
        recover(disk, DIRECTORY, CONFIG, NOW_MS)
    assert disk.read(path).endswith(b"torn")


def test_nothing_but_dropped_segments_is_a_log_that_lost_all_the_others() -> None:
    disk = new_disk()
    disk.write(DIRECTORY / "00000000000000000005.log.deleted", b"")
    with pytest.raises(CorruptLog, match="no segment is left behind it"):
        recover(disk, DIRECTORY, CONFIG, NOW_MS)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_checkpoint_without_room_is_tried_again_with_the_next_flush(code: int) -> None:
    disk = new_picky()
    log = new_log(disk)
    fill(log, 5)
    disk.refuses = (".tmp", code)
    if code == errno.EIO:
        with pytest.raises(OSError, match="refused"):
            flush(disk, log, log.checkpoint())
        return
    flush(disk, log, log.checkpoint())
    assert log.checkpoint_error is not None and log.flushed_offset == 10
    disk.refuses = ("?", 0)
    before, flushed = disk.read(DIRECTORY / CHECKPOINT_NAME), set()
    wanted: Flush | None = log.begin_flush()
    while wanted is not None:
        flushed |= {file.path.suffix for file in wanted.files}
        perform(disk, wanted)
        wanted = log.on_flushed(wanted.token)
    assert log.checkpoint_error is None and disk.read(DIRECTORY / CHECKPOINT_NAME) != before
    assert flushed == {".tmp", ".index", ".timeindex"}, "what it counts on, too"
