"""Recovery and what stands beside the batches: index files, leftovers of retention and of crashes, strangers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.log_tools import NOW_MS, close, fill, flush, log_path, read_batches, read_records, small_config
from tests.unit.memory_disk import MemoryDisk
from zafka.storage.disk import PosixDisk
from zafka.storage.errors import CorruptLog
from zafka.storage.log import Log
from zafka.storage.recovery import RecoveryReport, recover

DIRECTORY = Path("/data/orders-0")


def open_log(disk: MemoryDisk, **config: Any) -> tuple[Log, RecoveryReport]:
    return recover(disk, DIRECTORY, small_config(**config), NOW_MS)


def values(disk: MemoryDisk, log: Log) -> list[bytes | None]:
    return [record.value for record in read_records(disk, log)]


def open_bases(disk: MemoryDisk) -> list[int]:
    return [int(name[:20]) for name in disk.list_directory(DIRECTORY) if name.endswith(".log")]


# -- indexes and leftovers ---------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
@pytest.mark.parametrize("how", ["missing", "empty", "shorter", "longer"])
@pytest.mark.parametrize("segment", [1, -1])
def test_index_files_of_the_wrong_size_are_rebuilt(suffix: str, how: str, segment: int) -> None:
    disk = MemoryDisk()
    log, _ = open_log(disk)
    fill(log, 40)
    expected = read_batches(disk, log)
    close(disk, log)
    path = log.segments[segment].path.with_suffix(suffix)
    right = disk.read(path)
    assert right
    if how == "missing":
        disk.unlink(path)
    else:
        disk.write(path, {"empty": b"", "shorter": right[:-4], "longer": right + b"\1" * 24}[how])
    log, report = open_log(disk)
    assert disk.read(path) == right
    # What stands behind the active segment's entries is cut, without reading the segment.
    assert report.rebuilt == ([] if (segment, how) == (-1, "longer") else [path.with_suffix(".log")])
    assert read_batches(disk, log) == expected
    disk.power_cut()
    assert open_log(disk)[1].rebuilt == []


def test_leftovers_of_a_crash_go_and_what_was_cut_stays() -> None:
    disk = MemoryDisk()
    disk.make_directory(DIRECTORY)
    metadata = b"version: 0\ntopic_id: AAECAwQFBgcICQoLDA0ODw"
    disk.write(DIRECTORY / "partition.metadata", metadata)
    log, _ = open_log(disk)
    fill(log, 20)
    close(disk, log)
    disk.write(DIRECTORY / "recovery-checkpoint.tmp", b"half")
    disk.write(DIRECTORY / "00000000000000000777.index", b"an index without a log")
    disk.write(DIRECTORY / "00000000000000000777.cut", b"kept")
    open_log(disk)
    names = disk.list_directory(DIRECTORY)
    assert "recovery-checkpoint.tmp" not in names
    assert "00000000000000000777.index" not in names
    assert disk.read(DIRECTORY / "00000000000000000777.cut") == b"kept"
    assert disk.read(DIRECTORY / "partition.metadata") == metadata


def retained(disk: MemoryDisk) -> tuple[Log, list[Path]]:
    """A log whose oldest segments were just dropped; nothing is flushed since."""
    log, _ = open_log(disk, segment_bytes=700, retention_bytes=1000, retention_ms=-1)
    fill(log, 20)
    flush(disk, log)
    paths = log.apply_retention(NOW_MS, log.end_offset)
    assert len(paths) > 6
    return log, paths


def test_dropped_segments_stay_dropped_and_their_files_go() -> None:
    disk = MemoryDisk()
    log, paths = retained(disk)
    start_offset = log.start_offset
    disk.crash()
    log, _ = open_log(disk)
    assert (log.start_offset, log.end_offset) == (start_offset, 40)
    assert not any(disk.exists(path) for path in paths)
    disk.power_cut()
    log, _ = open_log(disk)
    assert log.start_offset == start_offset
    assert values(disk, log)[0] == b"%d" % (start_offset // 2)


def test_the_high_watermark_is_in_the_log_also_where_no_checkpoint_can_say_its_start() -> None:
    disk = MemoryDisk()
    retained(disk)
    disk.crash()
    disk.room_bytes = 0
    log, report = open_log(disk)
    assert report.warnings and 0 < log.start_offset <= log.high_watermark <= log.end_offset


@pytest.mark.parametrize("number", [0, 1])
def test_a_rename_that_a_power_cut_took_back_is_done_again(number: int) -> None:
    disk = MemoryDisk()
    log, paths = retained(disk)
    start_offset = log.start_offset
    name = sorted({path.name[:20] for path in paths})[number]
    disk.crash()
    for path in paths:
        if path.name.startswith(name):
            disk.rename(path, path.with_suffix(""))
    log, _ = open_log(disk)
    assert log.start_offset == start_offset
    assert open_bases(disk) == [s.base_offset for s in log.segments]


def test_a_lost_first_segment_is_not_taken_for_a_dropped_one() -> None:
    disk = MemoryDisk()
    log, _ = open_log(disk)
    fill(log, 40)
    close(disk, log)
    for path in log.segments[0].paths:
        disk.unlink(path)
    with pytest.raises(CorruptLog, match="the file is missing"):
        open_log(disk)


def test_a_file_that_is_not_part_of_the_log_is_left_alone() -> None:
    disk = MemoryDisk()
    log, _ = open_log(disk)
    fill(log, 40)
    close(disk, log)
    stranger = log_path(DIRECTORY, log.segments[1].base_offset + 1)
    disk.write(stranger, b"who knows")
    expected = len(log.segments)
    log, report = open_log(disk)
    assert len(log.segments) == expected
    assert [str(stranger) in warning for warning in report.warnings] == [True]
    assert disk.read(stranger) == b"who knows"


def test_the_high_watermark_is_remembered_but_not_beyond_the_end() -> None:
    disk = MemoryDisk()
    log, _ = open_log(disk)
    fill(log, 5)
    log.high_watermark = 8
    close(disk, log)
    log, _ = open_log(disk)
    assert log.high_watermark == 8


def test_recovery_on_a_real_disk(tmp_path: Path) -> None:
    disk, directory = PosixDisk(), tmp_path / "orders-0"
    log, _ = recover(disk, directory, small_config(), NOW_MS)
    fill(log, 40)
    log.close()
    path = log.segments[-1].path
    path.write_bytes(path.read_bytes() + bytes(500))
    log, report = recover(disk, directory, small_config(), NOW_MS)
    assert (log.end_offset, report.cut_bytes) == (80, 500)
    assert path.with_suffix(".cut").read_bytes() == bytes(500)
    log.close()


def test_index_names_whose_segment_came_back_go_at_once() -> None:
    """A power cut took the rename of the segment back and left those of its indexes."""
    disk = MemoryDisk()
    log, _ = open_log(disk)
    fill(log, 40)
    expected = read_batches(disk, log)
    close(disk, log)
    for suffix in (".index", ".timeindex"):
        path = log.segments[0].path.with_suffix(suffix)
        disk.rename(path, path.with_name(path.name + ".deleted"))
    log, report = open_log(disk)
    assert read_batches(disk, log) == expected and report.rebuilt == [log.segments[0].path]
    assert not any(name.endswith(".deleted") for name in disk.list_directory(DIRECTORY))
    assert not open_log(disk)[1].changed
