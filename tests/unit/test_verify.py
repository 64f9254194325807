"""`storage/verify.py`: exactly the offsets that cannot be read, by files damaged in every way there is a name for."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings, strategies as st

from tests.unit.damaged_log import CHECKPOINT, CONFIG, DIRECTORY, grown, look, new_disk, place_of
from tests.unit.log_tools import NOW_MS, append, flush, log_path, make_batch
from tests.unit.memory_disk import MemoryDisk
from zafka.storage.batch import empty_batch
from zafka.storage.checkpoint import read_checkpoint
from zafka.storage.fault import Recovered, leave_marker, read_marker, write_recovered
from zafka.storage.recovery import recover
from zafka.storage.verify import merged, verify


def test_a_log_as_a_kill_leaves_it_is_sound() -> None:
    disk = new_disk()
    held = grown(disk)
    verdict = look(disk)
    assert verdict.is_sound and not verdict.lost and verdict.torn is None
    assert (verdict.start_offset, verdict.flushed_offset, verdict.end_offset) == (0, held.flushed, held.end)
    assert [segment.base_offset for segment in verdict.segments] == held.bases
    assert not any(segment.notes for segment in verdict.segments if segment.base_offset < held.active)
    assert verdict.topic_id == bytes(range(16))


def test_an_empty_directory_is_sound() -> None:
    disk = new_disk()
    verdict = look(disk)
    assert (verdict.checkpoint, verdict.is_sound, verdict.end_offset) == ("new", True, 0)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_below_the_checkpoint_costs_its_batch_and_no_other(data: st.DataObject) -> None:
    disk = new_disk()
    held = grown(disk)
    first, end, _ = data.draw(st.sampled_from([batch for batch in held.batches if batch[1] <= held.flushed]))
    path, position, size = place_of(held, disk, first)
    at = data.draw(st.integers(0, size - 1))
    disk.flip_bit(path, position + at)
    verdict = look(disk)
    assert verdict.lost == [(first, end)]
    assert not verdict.is_sound and verdict.end_offset == held.end


@pytest.mark.parametrize("count", [1, 2, 3])
def test_zeros_over_several_batches_below_the_checkpoint(count: int) -> None:
    disk = new_disk()
    held = grown(disk, config=CONFIG)
    path, position, size = place_of(held, disk, 2)
    data = bytearray(disk.read(path))
    data[position + 5 : position + count * size - 3] = bytes(count * size - 8)
    disk.write(path, bytes(data))
    assert look(disk).lost == [(2, 2 + 2 * count)]


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_missing_segment_costs_all_that_the_checkpoint_knows_of_it(which: int) -> None:
    disk = new_disk()
    held = grown(disk, above=0)
    base = held.bases[which]
    end = [*held.bases, held.end][held.bases.index(base) + 1]
    disk.unlink(log_path(DIRECTORY, base))
    verdict = look(disk)
    assert verdict.lost == [(base, end)] and verdict.end_offset == held.end
    assert "the file is missing" in next(segment for segment in verdict.segments if segment.damages).damages[0].reason


@pytest.mark.parametrize("kept", [0, 30, 300])
def test_a_shorter_segment_costs_its_end(kept: int) -> None:
    disk = new_disk()
    held = grown(disk)
    path = log_path(DIRECTORY, held.bases[1])
    disk.write(path, disk.read(path)[:kept])
    _, _, size = place_of(held, disk, 0)
    first = held.bases[1] + kept // size * 2
    assert look(disk).lost == [(first, held.bases[2])]


def test_bytes_behind_a_sealed_segment_cost_no_offsets_and_are_damage_all_the_same() -> None:
    disk = new_disk()
    held = grown(disk)
    path = log_path(DIRECTORY, held.bases[1])
    disk.write(path, disk.read(path) + b"??")
    verdict = look(disk)
    assert verdict.is_damaged and not verdict.lost


def test_damage_above_the_checkpoint_is_a_torn_tail_and_no_damage() -> None:
    disk = new_disk()
    held = grown(disk, above=8)
    offset = held.flushed + 2
    path, position, _ = place_of(held, disk, offset)
    disk.flip_bit(path, position + 70)
    verdict = look(disk)
    assert verdict.is_sound and verdict.torn is not None
    assert (verdict.torn.first_offset, verdict.end_offset) == (offset, offset)
    log, report = recover(disk, DIRECTORY, CONFIG, NOW_MS)
    assert (log.end_offset, report.cut_bytes) == (offset, verdict.torn.size_bytes)


def test_later_segments_that_do_not_follow_are_torn() -> None:
    disk = new_disk()
    held = grown(disk, above=12)
    assert held.bases[-1] > held.active
    base = held.bases[-2]
    path = log_path(DIRECTORY, base)
    size = len(disk.read(path)) // 3
    disk.write(path, disk.read(path)[: max(size, place_of(held, disk, base)[2])])
    verdict = look(disk)
    assert verdict.torn is not None and held.bases[-1] in verdict.torn.later
    log, report = recover(disk, DIRECTORY, CONFIG, NOW_MS)
    assert (log.end_offset, report.cut_bytes) == (verdict.torn.first_offset, verdict.torn.size_bytes)


@pytest.mark.parametrize("how", ["missing", "corrupt", "foreign"])
def test_without_a_checkpoint_damage_is_what_has_whole_batches_behind_it(how: str) -> None:
    disk = new_disk()
    held = grown(disk)
    if how == "missing":
        disk.unlink(CHECKPOINT)
    elif how == "corrupt":
        disk.flip_bit(CHECKPOINT, 60)
    else:
        disk.write(DIRECTORY / "partition.metadata", b"version: 0\ntopic_id: " + b"A" * 22)
    verdict = look(disk)
    assert verdict.checkpoint.startswith(how) and not verdict.is_sound
    assert not verdict.lost and verdict.end_offset == held.end and verdict.flushed_offset == -1
    path, position, _ = place_of(held, disk, 4)
    disk.flip_bit(path, position + 70)
    assert look(disk).lost == [(4, 6)]
    last = held.batches[-1][0]
    path, position, size = place_of(held, disk, last)
    disk.flip_bit(path, position + 70)
    verdict = look(disk)
    assert verdict.lost == [(4, 6)] and verdict.torn is not None
    assert (verdict.torn.first_offset, verdict.torn.size_bytes, verdict.end_offset) == (last, size, last)


def test_batches_that_a_record_holds_are_not_taken_for_the_logs_own() -> None:
    """A mirror of another topic: its records are batches themselves, with offsets that might follow."""
    disk = new_disk()
    log, _ = recover(disk, DIRECTORY, CONFIG, NOW_MS)
    inner = bytes(make_batch([b"inner"])[1])
    for _ in range(5):
        append(log, make_batch([struct.pack(">q", 3) + inner[8:], b"z"]))
    flush(disk, log, log.checkpoint())
    log.close()
    data = bytearray(disk.read(log_path(DIRECTORY)))
    size = 12 + struct.unpack_from(">i", data, 8)[0]
    data[:20] = bytes(20)  # the header of the first batch, whose record says that it is a batch of offset 3
    disk.write(log_path(DIRECTORY), bytes(data))
    verdict = look(disk)
    assert verdict.lost == [(0, 2)]
    assert verdict.segments[0].damages[0].end_position == size


def test_a_wrong_leader_epoch_is_told_by_the_checkpoint_and_not_handed_on() -> None:
    disk = new_disk()
    held = grown(disk)
    path, position, _ = place_of(held, disk, 4)
    data = bytearray(disk.read(path))
    struct.pack_into(">i", data, position + 12, 2)  # ever higher would make all that follows look old
    disk.write(path, bytes(data))
    verdict = look(disk)
    assert verdict.lost == [(4, 6)]
    assert "leader epoch 2 where the checkpoint says 0" in verdict.segments[0].damages[0].reason


def test_an_offset_that_goes_beyond_the_segment_is_damage() -> None:
    disk = new_disk()
    held = grown(disk)
    path = log_path(DIRECTORY, held.bases[1])
    data = disk.read(path)
    disk.write(path, empty_batch(held.bases[1], 10_000, leader_epoch=0) + data[61:])
    verdict = look(disk)
    assert "where" in verdict.segments[1].damages[0].reason and "ends the segment" in verdict.segments[1].damages[0].reason
    assert verdict.lost[0][0] == held.bases[1]


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
@pytest.mark.parametrize("how", ["missing", "shorter", "longer", "foreign", "garbage"])
def test_indexes_that_lie_are_noted_and_cost_nothing(suffix: str, how: str) -> None:
    disk = new_disk()
    held = grown(disk)
    path = log_path(DIRECTORY, held.bases[1]).with_suffix(suffix)
    data = disk.read(path)
    if how == "missing":
        disk.unlink(path)
    else:
        other = disk.read(log_path(DIRECTORY, held.bases[0]).with_suffix(suffix))
        lies = {"shorter": data[:-1], "longer": data + b"\0" * 12, "garbage": b"\1" * len(data), "foreign": other[::-1]}
        disk.write(path, lies[how])
    verdict = look(disk)
    assert verdict.is_sound and not verdict.lost
    assert any(path.name in note for note in verdict.segments[1].notes)


def test_a_marker_and_strangers_are_told() -> None:
    disk = new_disk()
    grown(disk)
    leave_marker(disk, DIRECTORY, "flush failed")
    disk.write(log_path(DIRECTORY, 1), b"who knows")
    verdict = look(disk)
    assert (verdict.marker, verdict.strangers, verdict.is_sound) == ("flush failed", [1], False)


def test_a_marker_without_words_is_one() -> None:
    disk = new_disk()
    disk.close(disk.open(DIRECTORY / "disk-fault", create=True))
    assert read_marker(disk, DIRECTORY) == "disk fault"


def test_dropped_segments_are_not_missed_with_or_without_a_checkpoint() -> None:
    for keep in (True, False):
        disk = new_disk()
        held = grown(disk)
        for suffix in (".log", ".index", ".timeindex"):
            path = log_path(DIRECTORY, 0).with_suffix(suffix)
            disk.rename(path, path.with_name(path.name + ".deleted"))
        if not keep:
            disk.unlink(CHECKPOINT)
        verdict = look(disk)
        assert verdict.start_offset == held.bases[1] and not verdict.lost


def test_what_was_given_up_before_is_told() -> None:
    disk = new_disk()
    held = grown(disk)
    path, position, size = place_of(held, disk, 4)
    data = disk.read(path)
    disk.unlink(CHECKPOINT)
    disk.write(path, data[:position] + empty_batch(4, 2, leader_epoch=0) + data[position + size :])
    verdict = look(disk)
    assert not verdict.lost and verdict.segments[0].given_up == [(4, 6)]


def test_an_unfinished_recovery_says_how_far_the_log_went() -> None:
    disk = new_disk()
    held = grown(disk, above=0)
    end = held.end
    checkpoint = read_checkpoint(disk, DIRECTORY)
    assert checkpoint is not None
    disk.unlink(CHECKPOINT)
    path, position, _ = place_of(held, disk, held.batches[-1][0])
    disk.write(path, disk.read(path)[:position])
    write_recovered(disk, DIRECTORY, Recovered("4f2a", 0, "", [], 0, 0, end))
    assert look(disk).lost == [(end - 2, end)]
    for base in held.bases:
        disk.unlink(log_path(DIRECTORY, base))
    assert look(disk).lost == [(0, end)]


@pytest.mark.parametrize(
    ("ranges", "result"),
    [([], []), ([(1, 1)], []), ([(5, 7), (1, 2), (2, 4), (6, 9)], [(1, 4), (5, 9)]), ([(0, 9), (2, 3)], [(0, 9)])],
)
def test_ranges_are_merged(ranges: list[tuple[int, int]], result: list[tuple[int, int]]) -> None:
    assert merged(ranges) == result


@settings(max_examples=150, deadline=None)
@given(data=st.data(), name=st.sampled_from((".log", ".index", ".timeindex", "checkpoint")), checkpoint=st.booleans())
def test_whatever_the_files_hold_there_is_a_verdict_that_accounts_for_every_offset(
    data: st.DataObject, name: str, checkpoint: bool
) -> None:
    disk: MemoryDisk = new_disk()
    held = grown(disk, below=10, above=3)
    paths = [path for path in map(DIRECTORY.joinpath, disk.list_directory(DIRECTORY)) if path.name.endswith(name)]
    path = data.draw(st.sampled_from(paths))
    content = bytearray(disk.read(path))
    start = data.draw(st.integers(0, len(content)))
    garbage = data.draw(st.one_of(st.binary(max_size=100), st.just(bytes(40)), st.just(b"\xff" * 40)))
    content[start : start + data.draw(st.integers(0, 100))] = garbage
    disk.write(path, bytes(content))
    if not checkpoint and disk.exists(CHECKPOINT):
        disk.unlink(CHECKPOINT)
    verdict = verify(disk, DIRECTORY)
    readable = [(each.first_offset, each.end_offset) for one in verdict.segments for each in one.stretches]
    assert merged([*readable, *verdict.lost]) == merged([(verdict.start_offset, verdict.end_offset)])
    assert not any(a < d and c < b for a, b in readable for c, d in verdict.lost)
    if verdict.checkpoint == "ok":
        assert verdict.end_offset >= held.flushed
