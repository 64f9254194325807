"""What recovery does with what a crash left: DESIGN section 3, "Recovery is its own module".

Above the checkpoint a batch that fails is a torn tail, cut and kept. Below it the same is corruption and never cut.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from tests.unit.log_tools import (
    NOW_MS,
    append,
    close,
    fill,
    flush,
    log_path,
    make_batch,
    read_batches,
    read_records,
    small_config,
)
from tests.unit.memory_disk import MemoryDisk
from zafka.storage.errors import CorruptLog
from zafka.storage.log import Log
from zafka.storage.recovery import RecoveryReport, recover

DIRECTORY = Path("/data/orders-0")
CHECKPOINT = DIRECTORY / "recovery-checkpoint"
ONE_SEGMENT = 1 << 20


def open_log(disk: MemoryDisk, **config: Any) -> tuple[Log, RecoveryReport]:
    return recover(disk, DIRECTORY, small_config(**config), NOW_MS)


def values(disk: MemoryDisk, log: Log) -> list[bytes | None]:
    return [record.value for record in read_records(disk, log)]


def snapshot(disk: MemoryDisk) -> dict[str, bytes]:
    return {name: disk.read(DIRECTORY / name) for name in disk.list_directory(DIRECTORY)}


def grown(disk: MemoryDisk, *, flushed: int = 10, more: int = 5, **config: Any) -> int:
    """A log with `flushed` checkpointed batches and `more` behind them, killed. Returns the checkpoint's position."""
    log, _ = open_log(disk, **config)
    fill(log, flushed)
    flush(disk, log, log.checkpoint())
    position = log.segments[-1].size_bytes
    fill(log, more, first=flushed)
    disk.crash()
    return position


# -- nothing wrong -----------------------------------------------------------------------------


def test_an_empty_log_is_made_and_is_on_disk() -> None:
    for seed in range(20):
        disk = MemoryDisk(seed)
        disk.make_directory(Path("/elsewhere"))  # so that the folder above is as new as the log's own
        log, report = open_log(disk)
        assert (log.start_offset, log.end_offset, log.flushed_offset, report.checkpoint) == (0, 0, 0, "new")
        disk.power_cut()
        log, report = open_log(disk)
        assert (report.checkpoint, report.changed) == ("ok", False)


def test_a_killed_process_loses_nothing() -> None:
    disk = MemoryDisk()
    log, _ = open_log(disk)
    for i in range(40):
        batch = make_batch([b"%d" % i], producer_id=9, producer_epoch=0, base_sequence=i)
        append(log, batch, leader_epoch=i // 15)
    expected = read_batches(disk, log)
    disk.crash()
    log, report = open_log(disk)
    assert read_batches(disk, log) == expected
    assert (report.scanned_batches, report.cut_bytes, log.flushed_offset) == (40, 0, 40)
    assert log.leader_epochs.entries == [(0, 0), (1, 15), (2, 30)]
    *sealed, active = log.segments
    assert sealed and all(segment.sealed for segment in sealed) and not active.sealed
    producer = log.producers.get(9)
    assert producer is not None
    assert (producer.last_sequence, len(producer.batches)) == (39, 5)


def test_what_recovery_hands_out_is_on_disk() -> None:
    disk = MemoryDisk()
    grown(disk, more=20)
    log, _ = open_log(disk)
    end_offset, expected = log.end_offset, values(disk, log)
    assert log.flushed_offset == end_offset == 60
    disk.power_cut()
    log, report = open_log(disk)
    assert values(disk, log) == expected
    assert report.scanned_batches == 0


def test_opening_a_clean_log_reads_next_to_nothing() -> None:
    disk = MemoryDisk()
    log, _ = open_log(disk, segment_bytes=200_000)
    batch = make_batch([b"x" * 1000] * 20, timestamp_ms=NOW_MS)
    for _ in range(400):
        append(log, batch)
        flush(disk, log)
    size = log.size_bytes
    close(disk, log)
    disk.bytes_read = 0
    log, report = open_log(disk, segment_bytes=200_000)
    assert (len(log.segments), report.scanned_bytes, report.changed) == (45, 0, False)
    assert disk.bytes_read < 4000 < size / 1000


def test_progress_is_told_in_a_long_scan() -> None:
    disk = MemoryDisk()
    log, _ = open_log(disk, segment_bytes=1 << 30)
    append(log, *[make_batch([b"x" * 1_000_000])] * 12)
    disk.crash()
    calls: list[int] = []
    recover(disk, DIRECTORY, small_config(), NOW_MS, lambda: calls.append(1))
    assert len(calls) >= 3


def test_batches_larger_than_a_chunk_are_recovered() -> None:
    disk = MemoryDisk()
    log, _ = open_log(disk, segment_bytes=1 << 30)
    append(log, make_batch([b"a"]), make_batch([b"x" * 9_000_000]), make_batch([b"y" * 5_000_000]), make_batch([b"z"]))
    disk.crash()
    log, report = open_log(disk)
    assert (log.end_offset, report.scanned_batches) == (4, 4)


# -- above the checkpoint: a torn tail is cut --------------------------------------------------


def tear_crc(data: bytearray, at: int) -> None:
    data[at + 80] ^= 1


def tear_zeros(data: bytearray, at: int) -> None:
    data[at:] = bytes(len(data) - at)


def tear_short(data: bytearray, at: int) -> None:
    del data[at + 70 :]


def tear_header(data: bytearray, at: int) -> None:
    del data[at + 20 :]


def tear_length(data: bytearray, at: int) -> None:
    struct.pack_into(">i", data, at + 8, 2**31 - 1)


def tear_negative_length(data: bytearray, at: int) -> None:
    struct.pack_into(">i", data, at + 8, -50)


def tear_offset(data: bytearray, at: int) -> None:
    struct.pack_into(">q", data, at, 999)


def tear_epoch(data: bytearray, at: int) -> None:
    struct.pack_into(">i", data, at + 12, -1)


def tear_magic(data: bytearray, at: int) -> None:
    data[at + 16] = 1


TEARS = [
    tear_crc, tear_zeros, tear_short, tear_header, tear_length, tear_negative_length, tear_offset, tear_epoch,
    tear_magic,
]  # fmt: skip


@pytest.mark.parametrize("tear", TEARS)
@pytest.mark.parametrize("batch", [0, 2, 4])
def test_a_torn_tail_is_cut_and_kept(tear: Callable[[bytearray, int], None], batch: int) -> None:
    disk = MemoryDisk()
    position = grown(disk, segment_bytes=ONE_SEGMENT)
    data = bytearray(disk.read(log_path(DIRECTORY)))
    size = (len(data) - position) // 5
    at = position + batch * size
    tear(data, at)
    disk.write(log_path(DIRECTORY), bytes(data))
    cut = log_path(DIRECTORY).with_suffix(".cut")
    disk.write(cut, bytes(9999))  # of an earlier one
    log, report = open_log(disk, segment_bytes=ONE_SEGMENT)
    assert log.end_offset == 20 + 2 * batch
    assert disk.read(log_path(DIRECTORY)) == bytes(data[:at])
    assert disk.read(cut) == bytes(data[at:])
    assert (report.cut, report.cut_bytes, report.scanned_batches) == ([cut], len(data) - at, batch)
    fill(log, 3, first=100)
    flush(disk, log)
    disk.power_cut()
    log, report = open_log(disk)
    assert (log.end_offset, report.cut) == (26 + 2 * batch, [])
    assert values(disk, log)[-2] == b"102"


def test_segments_behind_a_torn_tail_are_set_aside_whole() -> None:
    disk = MemoryDisk()
    log, _ = open_log(disk)
    fill(log, 8)
    flush(disk, log, log.checkpoint())
    fill(log, 40, first=8)
    flush_less = [s.base_offset for s in log.segments]
    torn, later = flush_less[1], flush_less[2:]
    disk.crash()
    contents = {base: disk.read(log_path(DIRECTORY, base)) for base in later}
    disk.flip_bit(log_path(DIRECTORY, torn), 300)
    log, report = open_log(disk)
    assert [s.base_offset for s in log.segments] == [0, torn]
    for base in later:
        assert disk.read(log_path(DIRECTORY, base).with_suffix(".cut")) == contents[base]
        assert not disk.exists(log_path(DIRECTORY, base).with_suffix(".index"))
    assert len(report.cut) == len(later) + 1
    end_offset = log.end_offset
    fill(log, 60, first=8)
    assert len(read_records(disk, log)) == end_offset + 120
    disk.crash()
    log, _ = open_log(disk)
    assert len(read_records(disk, log)) == end_offset + 120


def test_a_segment_that_does_not_follow_is_set_aside() -> None:
    """The tail of the segment before is lost with its length: it ends with a whole batch, too early."""
    disk = MemoryDisk()
    log, _ = open_log(disk)
    fill(log, 30)
    bases = [s.base_offset for s in log.segments]
    disk.crash()
    data = disk.read(log_path(DIRECTORY))
    batch_size = 12 + struct.unpack_from(">i", data, 8)[0]
    disk.write(log_path(DIRECTORY), data[: batch_size * 3])
    log, _ = open_log(disk)
    assert log.end_offset == 6
    assert [s.base_offset for s in log.segments] == [0]
    assert disk.exists(log_path(DIRECTORY, bases[1]).with_suffix(".cut"))


def test_a_torn_tail_on_a_full_disk_is_cut_all_the_same() -> None:
    disk = MemoryDisk()
    grown(disk)
    path = log_path(DIRECTORY, open_bases(disk)[-1])
    disk.flip_bit(path, len(disk.read(path)) - 5)
    disk.room_bytes = 10
    log, report = open_log(disk)
    assert not disk.read(path.with_suffix(".cut")), "half of it takes no room either"
    assert log.end_offset == 28
    assert any("were cut and not kept" in warning for warning in report.warnings)
    assert read_records(disk, log)


def open_bases(disk: MemoryDisk) -> list[int]:
    return [int(name[:20]) for name in disk.list_directory(DIRECTORY) if name.endswith(".log")]


@settings(max_examples=200, deadline=None)
@given(data=st.data(), batches=st.lists(st.integers(1, 400), max_size=12), more=st.lists(st.integers(1, 400), max_size=8))
def test_any_damage_above_the_checkpoint_costs_only_what_is_behind_it(
    data: st.DataObject, batches: list[int], more: list[int]
) -> None:
    disk = MemoryDisk()
    log, _ = open_log(disk)
    for size in batches:
        append(log, make_batch([b"f" * size]))
    flush(disk, log, log.checkpoint())
    active, position = log.segments[-1].base_offset, log.segments[-1].size_bytes
    for size in more:
        append(log, make_batch([b"m" * size]))
    expected = read_batches(disk, log)
    disk.crash()
    base = data.draw(st.sampled_from([base for base in open_bases(disk) if base >= active]))
    content = bytearray(disk.read(log_path(DIRECTORY, base)))
    start = position if base == active else 0
    how = data.draw(st.sampled_from(("cut", "flip", "garbage")))
    at = data.draw(st.integers(start, len(content)))
    if how == "cut":
        del content[at:]
    elif how == "flip" and at < len(content):
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        content[at:] = data.draw(st.binary(max_size=200))
    disk.write(log_path(DIRECTORY, base), bytes(content))
    log, _ = open_log(disk)
    found = read_batches(disk, log)
    assert len(found) >= len(batches)
    # The leader epoch is outside of the CRC: a flip there is not seen, and changes no record.
    assert [(h.base_offset, b[16:]) for h, b in found] == [(h.base_offset, b[16:]) for h, b in expected[: len(found)]]


# -- below the checkpoint: never cut -----------------------------------------------------------


def test_an_active_segment_shorter_than_the_checkpoint_is_corrupt() -> None:
    disk = MemoryDisk()
    position = grown(disk, segment_bytes=ONE_SEGMENT)
    disk.write(log_path(DIRECTORY), disk.read(log_path(DIRECTORY))[: position - 1])
    before = snapshot(disk)
    with pytest.raises(CorruptLog, match="where the checkpoint says") as raised:
        open_log(disk)
    assert (raised.value.path, raised.value.position, raised.value.offset) == (log_path(DIRECTORY), position - 1, 0)
    assert snapshot(disk) == before
    assert not disk.open_files


@pytest.mark.parametrize("how", ["missing", "shorter", "longer"])
def test_a_sealed_segment_that_is_not_what_it_was_is_corrupt(how: str) -> None:
    disk = MemoryDisk()
    log, _ = open_log(disk)
    fill(log, 40)
    close(disk, log)
    path = log.segments[1].path
    if how == "missing":
        disk.unlink(path)
    else:
        disk.write(path, disk.read(path)[:-1] if how == "shorter" else disk.read(path) + b"\0")
    before = snapshot(disk)
    with pytest.raises(CorruptLog, match=path.name) as raised:
        open_log(disk)
    assert raised.value.offset == log.segments[1].base_offset
    assert snapshot(disk) == before


def test_rot_below_the_checkpoint_is_not_cut_and_found_when_an_index_is_rebuilt() -> None:
    disk = MemoryDisk()
    log, _ = open_log(disk, segment_bytes=ONE_SEGMENT)
    fill(log, 40)
    close(disk, log)
    disk.flip_bit(log_path(DIRECTORY), 1000)
    log, report = open_log(disk)
    assert (log.end_offset, report.cut) == (80, [])  # readers check the CRC of cold bytes
    log.close()
    disk.unlink(log_path(DIRECTORY).with_suffix(".index"))
    before = disk.read(log_path(DIRECTORY))
    with pytest.raises(CorruptLog, match="CRC-32C") as raised:
        open_log(disk)
    size = len(before) // 40
    assert (raised.value.position, raised.value.offset) == (1000 // size * size, 1000 // size * 2)
    assert disk.read(log_path(DIRECTORY)) == before


# -- without a checkpoint ----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["missing", "damaged", "empty"])
def test_without_a_checkpoint_everything_is_scanned(how: str) -> None:
    disk = MemoryDisk()
    log, _ = open_log(disk)
    for i in range(40):
        append(log, make_batch([b"%d" % i], producer_id=3, producer_epoch=0, base_sequence=i), leader_epoch=i // 10)
    expected, rows = read_batches(disk, log), [s.row() for s in log.segments]
    close(disk, log)
    if how == "missing":
        disk.unlink(CHECKPOINT)
    elif how == "empty":
        disk.write(CHECKPOINT, b"")
    else:
        disk.flip_bit(CHECKPOINT, 50)
    log, report = open_log(disk)
    assert report.checkpoint.startswith("missing" if how == "missing" else "corrupt: ")
    assert report.scanned_batches == 40
    assert read_batches(disk, log) == expected
    assert [s.row() for s in log.segments] == rows
    assert log.leader_epochs.entries == [(0, 0), (1, 10), (2, 20), (3, 30)]
    producer = log.producers.get(3)
    assert producer is not None
    assert producer.last_sequence == 39
    close(disk, log)
    assert open_log(disk)[1].checkpoint == "ok"


def test_without_a_checkpoint_a_tail_with_nothing_valid_behind_is_torn() -> None:
    disk = MemoryDisk()
    position = grown(disk, more=1, segment_bytes=ONE_SEGMENT)
    disk.unlink(CHECKPOINT)
    disk.flip_bit(log_path(DIRECTORY), position + 90)
    log, report = open_log(disk)
    assert log.end_offset == 20
    assert report.cut == [log_path(DIRECTORY).with_suffix(".cut")]


@pytest.mark.parametrize("tear", [tear_crc, tear_length, tear_negative_length, tear_offset, tear_epoch, tear_magic])
def test_without_a_checkpoint_damage_with_valid_batches_behind_it_is_corrupt(
    tear: Callable[[bytearray, int], None]
) -> None:
    disk = MemoryDisk()
    position = grown(disk, segment_bytes=ONE_SEGMENT)
    disk.unlink(CHECKPOINT)
    data = bytearray(disk.read(log_path(DIRECTORY)))
    tear(data, position)
    disk.write(log_path(DIRECTORY), bytes(data))
    before = snapshot(disk)
    with pytest.raises(CorruptLog, match="valid batches stand behind it") as raised:
        open_log(disk)
    assert (raised.value.position, raised.value.offset) == (position, 20)
    assert snapshot(disk)[log_path(DIRECTORY).name] == before[log_path(DIRECTORY).name]
    assert not any(name.endswith(".cut") for name in snapshot(disk))


def test_without_a_checkpoint_damage_before_a_later_segment_is_corrupt() -> None:
    disk = MemoryDisk()
    log, _ = open_log(disk)
    fill(log, 40)
    close(disk, log)
    disk.unlink(CHECKPOINT)
    disk.unlink(log.segments[1].path)
    with pytest.raises(CorruptLog, match="the next segment begins at offset"):
        open_log(disk)
    assert not disk.open_files


# -- anything -------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(data=st.data(), name=st.sampled_from((".log", ".index", ".timeindex", "checkpoint")), checkpoint=st.booleans())
def test_whatever_the_files_hold_it_is_a_log_or_corrupt(data: st.DataObject, name: str, checkpoint: bool) -> None:
    disk = MemoryDisk()
    log, _ = open_log(disk, segment_bytes=900)
    fill(log, 12, size=60)
    close(disk, log)
    paths = [path for path in map(DIRECTORY.joinpath, disk.list_directory(DIRECTORY)) if path.name.endswith(name)]
    path = data.draw(st.sampled_from(paths))
    content = bytearray(disk.read(path))
    start = data.draw(st.integers(0, len(content)))
    garbage = data.draw(st.one_of(st.binary(max_size=100), st.just(bytes(40)), st.just(b"\xff" * 40)))
    content[start : start + data.draw(st.integers(0, 100))] = garbage
    disk.write(path, bytes(content))
    if not checkpoint and disk.exists(CHECKPOINT):
        disk.unlink(CHECKPOINT)
    try:
        log, _ = open_log(disk, segment_bytes=900)
        for offset in range(log.start_offset, log.end_offset):
            log.locate(offset, 300, log.end_offset)
        for timestamp_ms in range(NOW_MS, NOW_MS + 14):
            log.offset_for_timestamp(timestamp_ms)
    except CorruptLog:
        pass


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("segment_bytes", [700, ONE_SEGMENT])
def test_what_a_failed_flush_left_unsaid_is_written_again(seed: int, segment_bytes: int) -> None:
    """The process is killed between the error and its marker: the page cache calls clean what is not on disk."""
    disk = MemoryDisk(seed)
    grown(disk, segment_bytes=segment_bytes)
    for base_offset in sorted(int(name[:20]) for name in disk.list_directory(DIRECTORY) if name.endswith(".log")):
        disk.fail_flush(disk.open(log_path(DIRECTORY, base_offset)))
    disk.crash()
    log, _ = open_log(disk, segment_bytes=segment_bytes)
    served = values(disk, log)
    disk.power_cut()
    again, report = open_log(disk, segment_bytes=segment_bytes)
    assert report.checkpoint == "ok" and not report.cut
    assert values(disk, again) == served
