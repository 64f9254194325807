"""`storage/repair.py`: what is lost is given up, exactly that, and nobody can interrupt it into something worse."""

from __future__ import annotations

import contextlib
import errno

import pytest
from hypothesis import given, settings, strategies as st

from tests.unit.damaged_log import (
    CHECKPOINT,
    CONFIG,
    DIRECTORY,
    Held,
    content,
    grown,
    holes_of,
    look,
    mend,
    new_disk,
    place_of,
    records_of,
    snapshot,
)
from tests.unit.log_tools import NOW_MS, append, close, flush, log_path, make_batch, small_config
from tests.unit.memory_disk import MemoryDisk, PowerCut
from zafka.storage.batch import read_header
from zafka.storage.errors import CorruptLog
from zafka.storage.fault import leave_marker, read_marker, read_recovered, recovery_id
from zafka.storage.index import OFFSET_ENTRY
from zafka.storage.log import Log
from zafka.storage.recovery import recover
from zafka.storage.verify import verify

Range = tuple[int, int]


def damage(disk: MemoryDisk, held: Held, data: st.DataObject) -> None:
    """One to three wounds below the checkpoint, perhaps one above, and perhaps no checkpoint to tell them by."""
    paths = [log_path(DIRECTORY, base) for base in held.bases if base <= held.active]
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(paths))
        if not disk.exists(path):
            continue
        how = data.draw(st.sampled_from(("flip", "zeros", "cut", "missing", "longer")))
        content = bytearray(disk.read(path))
        at = data.draw(st.integers(0, len(content)))
        if how == "missing":
            disk.unlink(path)
            disk.fsync_dir(DIRECTORY)
            continue
        if how == "flip" and at < len(content):
            content[at] ^= 0x40
        elif how == "zeros":
            end = data.draw(st.integers(at, len(content)))
            content[at:end] = bytes(end - at)
        elif how == "longer" and path != paths[-1]:
            content += b"?" * 70
        elif how == "cut":
            del content[at:]
        disk.write(path, bytes(content))


def wound(disk: MemoryDisk, held: Held, offset: int, at: int = 70) -> None:
    path, position, _ = place_of(held, disk, offset)
    disk.flip_bit(path, position + at)


def opened(disk: MemoryDisk) -> Log:
    log, report = recover(disk, DIRECTORY, CONFIG, NOW_MS)
    assert not report.changed and not report.rebuilt and not report.cut, report
    return log


def check(disk: MemoryDisk, held: Held, lost: list[Range], *, end: int, start: int = 0) -> None:
    """Everything that was not lost is there, at its offset; the lost offsets are a hole; and it stays so."""
    assert look(disk).is_sound
    before = snapshot(disk)
    log = opened(disk)
    assert (log.start_offset, log.end_offset) == (start, end)
    kept = [batch for batch in held.batches if start <= batch[0] < end and not any(a <= batch[0] < b for a, b in lost)]
    assert records_of(disk, log) == kept
    assert [offset for a, b in holes_of(disk, log) for offset in range(a, b) if offset >= start] == [
        offset for a, b in lost for offset in range(a, b) if offset >= start]
    for offset in range(start, end, 2):
        log.locate(offset, 300, end)
    log.close()
    assert snapshot(disk) == before
    assert not disk.open_files


def test_deleted_records_stay_deleted_and_their_segment_stays() -> None:
    disk = new_disk()
    held = grown(disk, above=0)
    log = opened(disk)
    start = held.bases[1] + 4
    log.delete_records(start)
    flush(disk, log)
    log.close()
    wound(disk, held, start + 6)
    lost = look(disk).lost
    assert look(disk).segments[0].base_offset == held.bases[1] < start
    mend(disk)
    check(disk, held, lost, end=held.end, start=start)


def test_damage_in_the_middle_leaves_a_hole_and_what_is_behind_it() -> None:
    disk = new_disk()
    held = grown(disk)
    wound(disk, held, 4)
    path, position, size = place_of(held, disk, 4)
    damaged = disk.read(path)[position : position + size]
    with pytest.raises(CorruptLog):
        disk.unlink(CHECKPOINT)
        recover(disk, DIRECTORY, CONFIG, NOW_MS)
    mend(disk)
    check(disk, held, [(4, 6)], end=held.end)
    assert disk.read(DIRECTORY / f"{0:020d}.{position}.cut") == damaged
    recovered = read_recovered(disk, DIRECTORY)
    assert recovered is not None and recovered.finished
    assert (recovered.id, recovered.lost, recovered.lost_offsets) == ("4f2a", [(4, 6)], 2)
    assert recovery_id(disk, DIRECTORY) == "4f2a" and read_marker(disk, DIRECTORY) == ""


def test_a_lost_end_keeps_its_offsets_so_that_none_is_given_out_twice() -> None:
    disk = new_disk()
    held = grown(disk, above=0)
    last = held.batches[-1][0]
    path, position, _ = place_of(held, disk, last)
    disk.write(path, disk.read(path)[:position])
    mend(disk)
    check(disk, held, [(last, held.end)], end=held.end)
    log = opened(disk)
    assert append(log, make_batch([b"new"]), leader_epoch=9) == [held.end]


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_missing_segment_becomes_a_hole_that_grows_old(which: int) -> None:
    disk = new_disk()
    held = grown(disk, above=0)
    base = held.bases[which]
    end = [*held.bases, held.end][held.bases.index(base) + 1]
    disk.unlink(log_path(DIRECTORY, base))
    mend(disk)
    check(disk, held, [(base, end)], end=held.end)
    header = read_header(disk.read(log_path(DIRECTORY, base)))
    assert header.record_count == 0 and NOW_MS <= header.max_timestamp < NOW_MS + 100
    log = opened(disk)
    log.update_config(small_config(segment_bytes=1000, retention_ms=1000))
    log.apply_retention(NOW_MS + 10_000, log.end_offset)
    flush(disk, log)
    log.apply_retention(NOW_MS + 10_000, log.end_offset)
    assert log.start_offset == held.bases[-1] or log.start_offset == held.end


def test_a_torn_tail_is_cut_as_ever_and_what_is_below_it_mended() -> None:
    disk = new_disk()
    held = grown(disk, above=12)
    torn = held.flushed + 4
    wound(disk, held, 4)
    wound(disk, held, torn)
    mend(disk)
    check(disk, held, [(4, 6)], end=torn)
    recovered = read_recovered(disk, DIRECTORY)
    assert recovered is not None and recovered.torn_bytes > 0


def test_later_segments_are_set_aside_when_the_active_one_is_missing() -> None:
    disk = new_disk()
    held = grown(disk, above=12)
    disk.unlink(log_path(DIRECTORY, held.active))
    mend(disk)
    check(disk, held, [(held.active, held.flushed)], end=held.flushed)
    assert disk.exists(log_path(DIRECTORY, held.bases[-1]).with_suffix(".cut"))


def test_where_the_first_flush_of_all_failed_there_is_nothing_to_recover() -> None:
    disk = new_disk()
    disk.unlink(DIRECTORY / "partition.metadata")
    leave_marker(disk, DIRECTORY, "flush of partition.metadata.tmp failed")
    mend(disk)
    assert read_marker(disk, DIRECTORY) == "" and recovery_id(disk, DIRECTORY)
    assert not [name for name in disk.list_directory(DIRECTORY) if name.endswith(".log")]  # they would be nobody's


def test_a_marker_alone_costs_nothing() -> None:
    disk = new_disk()
    held = grown(disk)
    leave_marker(disk, DIRECTORY, "a longer reason that another incarnation had before")
    leave_marker(disk, DIRECTORY, "flush failed: EIO")
    mend(disk)
    check(disk, held, [], end=held.end)
    recovered = read_recovered(disk, DIRECTORY)
    assert recovered is not None and (recovered.reason, recovered.lost) == ("flush failed: EIO", [])


def test_a_marker_for_whose_words_there_was_no_room_counts_as_one() -> None:
    disk = new_disk()
    disk.room_bytes = 0
    with pytest.raises(OSError, match="No space"):
        leave_marker(disk, DIRECTORY, "flush failed: EIO")
    assert read_marker(disk, DIRECTORY) == "disk fault"


@pytest.mark.parametrize("how", ["missing", "corrupt"])
def test_without_a_checkpoint_both_sides_are_kept(how: str) -> None:
    disk = new_disk()
    held = grown(disk)
    disk.unlink(CHECKPOINT) if how == "missing" else disk.flip_bit(CHECKPOINT, 60)
    wound(disk, held, 4)
    wound(disk, held, held.flushed)
    mend(disk)
    check(disk, held, [(4, 6), (held.flushed, held.flushed + 2)], end=held.end)


def test_strangers_are_set_aside_and_a_rename_that_was_taken_back_is_done_again() -> None:
    disk = new_disk()
    held = grown(disk)
    log, _ = recover(disk, DIRECTORY, CONFIG, NOW_MS)
    log.update_config(small_config(segment_bytes=1000, retention_bytes=2500, retention_ms=-1))
    paths = log.apply_retention(NOW_MS, log.end_offset)
    start = log.start_offset
    close(disk, log)
    log.close()
    assert start > 0
    (first,) = [path for path in paths if path.name == f"{0:020d}.log.deleted"]
    if disk.exists(first):
        disk.unlink(first)
    disk.write(log_path(DIRECTORY, 0), b"came back")
    disk.write(log_path(DIRECTORY, start + 1), b"who knows")
    wound(disk, held, start)
    mend(disk)
    log = opened(disk)
    assert log.start_offset == start and holes_of(disk, log) == [(start, start + 2)]
    assert disk.read(log_path(DIRECTORY, start + 1).with_suffix(".cut")) == b"who knows"


def test_a_second_recovery_has_an_id_of_its_own_and_an_unfinished_one_keeps_its() -> None:
    disk = new_disk()
    held = grown(disk)
    wound(disk, held, 4)
    mend(disk, new_id="aaaa")
    held = held._replace(batches=content(disk, opened(disk)))
    disk.crash()
    wound(disk, held, 8)
    disk.calls_left = 12
    with pytest.raises(PowerCut):
        mend(disk, new_id="bbbb")
    disk.calls_left = None
    disk.crash()
    unfinished = read_recovered(disk, DIRECTORY)
    assert unfinished is not None and not unfinished.finished and recovery_id(disk, DIRECTORY) == ""
    assert "run it again" in read_marker(disk, DIRECTORY)
    mend(disk, new_id="cccc")
    recovered = read_recovered(disk, DIRECTORY)
    assert recovered is not None and (recovered.id, recovered.lost) == ("bbbb", [(8, 10)])


def test_a_full_disk_leaves_the_marker_and_it_can_be_done_again() -> None:
    disk = new_disk()
    held = grown(disk)
    wound(disk, held, 4)
    disk.room_bytes = 600
    with pytest.raises(OSError, match="No space") as raised:
        mend(disk)
    assert raised.value.errno == errno.ENOSPC and not disk.open_files
    assert read_marker(disk, DIRECTORY)
    disk.room_bytes = None
    mend(disk)
    check(disk, held, [(4, 6)], end=held.end)


def test_indexes_of_a_mended_segment_are_right() -> None:
    disk = new_disk()
    config = small_config(segment_bytes=4000, index_interval_bytes=100)
    held = grown(disk, config=config)
    wound(disk, held, 4)
    mend(disk, config=config)
    data, log_bytes = disk.read(log_path(DIRECTORY).with_suffix(".index")), disk.read(log_path(DIRECTORY))
    assert data
    for relative_offset, position in OFFSET_ENTRY.iter_unpack(data):
        assert read_header(log_bytes, position).last_offset == relative_offset


@settings(max_examples=120, deadline=None)
@given(data=st.data(), checkpoint=st.booleans())
def test_any_damage_costs_what_the_verdict_says_and_nothing_else(data: st.DataObject, checkpoint: bool) -> None:
    disk = new_disk()
    held = grown(disk, below=12, above=3)
    damage(disk, held, data)
    if not checkpoint:
        disk.unlink(CHECKPOINT)
    verdict = look(disk)
    mend(disk)
    check(disk, held, verdict.lost, start=verdict.start_offset, end=verdict.end_offset)
    if checkpoint:  # without one nobody knows of a first segment that is missing, or how far the last one went
        assert verdict.start_offset == 0 and verdict.end_offset >= held.flushed


@settings(max_examples=200, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 60), min_size=1, max_size=4),
       power=st.booleans(), above=st.integers(0, 6), start=st.sampled_from((0, 0, 4, 18)))
def test_interrupted_anywhere_and_done_again_it_comes_to_the_same(
    data: st.DataObject, seed: int, cuts: list[int], power: bool, above: int, start: int
) -> None:
    """kill -9 and power cuts between any two calls of the disk; in between, nobody may open the log by mistake."""
    disk = new_disk(seed)
    held = grown(disk, below=12, above=above)
    log, _ = recover(disk, DIRECTORY, CONFIG, NOW_MS)  # what stood above the checkpoint is on disk, too
    log.delete_records(start)
    flush(disk, log)
    log.close()
    held = held._replace(flushed=held.end)
    damage(disk, held, data)
    verdict = look(disk)
    assert verdict.start_offset == start
    finished, checkpoint = False, disk.read(CHECKPOINT)
    for calls in cuts:
        disk.calls_left = calls
        with contextlib.suppress(PowerCut):
            mend(disk)
            finished = True
        disk.calls_left = None
        disk.power_cut() if power else disk.crash()
        finished = finished or bool(recovery_id(disk, DIRECTORY) and not read_marker(disk, DIRECTORY))
        kept_out = finished or read_marker(disk, DIRECTORY)
        assert kept_out or snapshot(disk)[CHECKPOINT.name] == checkpoint, "begun, and nothing keeps others out"
    mend(disk)
    check(disk, held, verdict.lost, end=verdict.end_offset, start=start)
    recovered = read_recovered(disk, DIRECTORY)
    assert recovered is not None and recovered.finished
    assert finished or recovered.lost == verdict.lost, "it forgot what an unfinished one had given up"
    assert verify(disk, DIRECTORY).marker == ""


@pytest.mark.parametrize("seed", range(8))
def test_the_power_goes_at_each_call_and_whoever_finds_it_begun_finds_the_marker(seed: int) -> None:
    for calls in range(120):
        disk = new_disk(seed * 1000 + calls)
        held = grown(disk, below=12, above=0)
        wound(disk, held, 4)
        wound(disk, held, held.batches[-1][0])
        lost, checkpoint = [(4, 6), (held.end - 2, held.end)], disk.read(CHECKPOINT)
        disk.calls_left = calls
        try:
            mend(disk)
            done = complete = True
        except PowerCut:
            done = complete = False
        disk.calls_left = None
        disk.power_cut()
        done = done or bool(recovery_id(disk, DIRECTORY) and not read_marker(disk, DIRECTORY))
        kept_out = done or read_marker(disk, DIRECTORY)
        assert kept_out or disk.read(CHECKPOINT) == checkpoint, "begun, and nothing keeps others out"
        if not done and kept_out:
            assert read_recovered(disk, DIRECTORY) is not None, "begun, and nobody knows under which id"
        if not done:
            mend(disk, new_id="again")
        recovered = read_recovered(disk, DIRECTORY)
        assert recovered is not None and recovered.finished and recovered.lost == lost
        check(disk, held, lost, end=held.end)
        if complete:
            assert calls > 10
            return
    raise AssertionError("it never came to its end")
