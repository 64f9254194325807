"""A log that is open: appends, rolls, flushes, lookups, indexes that lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from crc32c import crc32c

from tests.unit.disks import ClosingDisk
from tests.unit.log_tools import (
    NO_LIMIT,
    NOW_MS,
    append,
    close,
    fill,
    flush,
    log_path,
    make_batch,
    perform,
    read_batches,
    read_bytes,
    read_records,
    small_config,
)
from tests.unit.memory_disk import MemoryDisk
from zafka.storage.batch import read_header, walk
from zafka.storage.config import LogConfig
from zafka.storage.disk import Buffer, File
from zafka.storage.errors import CorruptLog, OffsetOutOfRange
from zafka.storage.index import OFFSET_ENTRY
from zafka.storage.location import NEVER_HOT
from zafka.storage.log import Log
from zafka.storage.recovery import recover

DIRECTORY = Path("/data/orders-0")


class CountingDisk(MemoryDisk):
    """Keeps what was written with each call."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[tuple[str, list[int]]] = []

    def pwritev(self, file: File, buffers: Sequence[Buffer], position: int) -> None:
        super().pwritev(file, buffers, position)
        self.writes.append((file.path.name, [len(buffer) for buffer in buffers]))


def open_log(disk: MemoryDisk, **config: Any) -> Log:
    return recover(disk, DIRECTORY, small_config(**config), NOW_MS)[0]


# -- appends -----------------------------------------------------------------------------------


def test_offsets_follow_each_other_and_only_the_prefix_is_changed() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    batches = [make_batch([b"a", b"b"]), make_batch([b"c"]), make_batch([b"d"] * 5)]
    assert append(log, *batches, leader_epoch=3) == [0, 2, 3]
    assert append(log, make_batch([b"e"]), leader_epoch=4) == [8]
    found = read_batches(disk, log)
    assert [(h.base_offset, h.leader_epoch) for h, _ in found] == [(0, 3), (2, 3), (3, 3), (8, 4)]
    for (_, sent), (_, stored) in zip(batches, found, strict=False):
        assert bytes(sent[16:]) == stored[16:]
        assert sent[8:12] == stored[8:12]
    assert log.end_offset == 9
    assert log.leader_epochs.entries == [(3, 0), (4, 8)]


def test_a_turn_is_one_write_for_each_segment() -> None:
    disk = CountingDisk()
    log = open_log(disk, segment_bytes=1200)
    disk.writes.clear()
    batch = make_batch([b"x" * 300])
    append(log, batch, batch)
    size = len(batch[1])
    assert disk.writes == [("00000000000000000000.log", [16, size - 16] * 2)]
    disk.writes.clear()
    append(log, batch, batch, batch)
    assert disk.writes == [
        ("00000000000000000000.log", [16, size - 16]),
        ("00000000000000000003.log", [16, size - 16] * 2),
    ]
    assert append(log) == []


def test_producers_know_what_was_appended() -> None:
    log = open_log(MemoryDisk())
    batch = make_batch([b"a", b"b"], producer_id=7, producer_epoch=0, base_sequence=0)
    append(log, make_batch([b"x"]), batch)
    producer = log.producers.get(7)
    assert producer is not None
    assert producer.last_sequence == 1
    assert log.producers.check(batch[0])[:2] == (1, 2)  # a duplicate, at its offsets


# -- rolls -------------------------------------------------------------------------------------


def test_rolls_by_size_but_a_large_batch_has_a_home() -> None:
    log = open_log(MemoryDisk(), segment_bytes=500)
    append(log, make_batch([b"x" * 5000]))
    append(log, make_batch([b"y"]))
    assert [s.base_offset for s in log.segments] == [0, 1]


def test_rolls_by_the_age_of_records_not_by_the_clock() -> None:
    log = open_log(MemoryDisk(), segment_ms=1000, segment_bytes=1 << 20)
    old = NOW_MS - 10**9
    append(log, make_batch([b"a"], timestamp_ms=old))
    append(log, make_batch([b"b"], timestamp_ms=old + 1000))
    assert len(log.segments) == 1  # a copy of old records is no reason to roll
    append(log, make_batch([b"c"], timestamp_ms=old + 1001))
    assert [s.base_offset for s in log.segments] == [0, 2]


def test_rolls_by_the_clock_where_records_have_no_time() -> None:
    log = open_log(MemoryDisk(), segment_ms=1000, segment_bytes=1 << 20)
    append(log, make_batch([b"a"], timestamp_ms=-1))
    append(log, make_batch([b"b"], timestamp_ms=-1), now_ms=NOW_MS + 1000)
    assert len(log.segments) == 1
    append(log, make_batch([b"c"], timestamp_ms=-1), now_ms=NOW_MS + 1001)
    assert len(log.segments) == 2


def test_a_recovered_segment_keeps_its_age() -> None:
    disk = MemoryDisk()
    log = open_log(disk, segment_ms=1000)
    append(log, make_batch([b"a"], timestamp_ms=NOW_MS))
    append(log, make_batch([b"b"], timestamp_ms=NOW_MS + 900))
    close(disk, log)
    log = open_log(disk, segment_ms=1000)
    append(log, make_batch([b"c"], timestamp_ms=NOW_MS + 1001))
    assert [s.base_offset for s in log.segments] == [0, 2]


# -- flushes and checkpoints -------------------------------------------------------------------


def test_nothing_counts_as_flushed_before_its_flush() -> None:
    log = open_log(MemoryDisk())
    fill(log, 1)
    first = log.begin_flush()
    fill(log, 1)
    second = log.begin_flush()
    assert (log.flushed_offset, log.end_offset) == (0, 4)
    assert [file.path.name for file in first.files] == ["00000000000000000000.log"]
    assert first.directories == ()
    assert log.on_flushed(first.token) is None
    assert log.flushed_offset == 2
    assert log.on_flushed(second.token) is None
    assert log.flushed_offset == 4
    assert log.begin_flush().files == ()  # nothing was written since


def test_the_flush_that_seals_covers_both_files_and_the_names() -> None:
    log = open_log(MemoryDisk(), segment_bytes=500)
    fill(log, 1, size=300)
    assert not log.flush_due
    fill(log, 1, size=300)
    assert log.flush_due
    sealing = log.begin_flush()
    assert {file.path.name for file in sealing.files} == {"00000000000000000000.log", "00000000000000000002.log"}
    assert sealing.directories == (DIRECTORY,)


def test_checkpoint_goes_index_files_then_name_then_directory() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    fill(log, 10)
    first = log.checkpoint()
    perform(disk, first)
    before = disk.read(DIRECTORY / "recovery-checkpoint")
    second = log.on_flushed(first.token)
    assert second is not None
    assert log.flushed_offset == 20
    assert [file.path.name.lstrip("0") for file in second.files] == [".index", ".timeindex", "recovery-checkpoint.tmp"]
    perform(disk, second)
    assert disk.read(DIRECTORY / "recovery-checkpoint") == before
    third = log.on_flushed(second.token)
    assert third is not None
    assert (third.files, third.directories) == ((), (DIRECTORY,))
    assert disk.read(DIRECTORY / "recovery-checkpoint") != before
    perform(disk, third)
    assert log.on_flushed(third.token) is None


def test_a_checkpoint_is_due_after_enough_batches() -> None:
    disk = MemoryDisk()
    log = open_log(disk, segment_bytes=1 << 30)
    batch = make_batch([b"x"])
    for _ in range(LogConfig().checkpoint_batches // 1000):
        assert not log.flush_due
        append(log, *[batch] * 1000)
    assert log.flush_due
    flush(disk, log)
    assert not log.flush_due
    disk.crash()
    _, report = recover(disk, DIRECTORY, small_config(), NOW_MS)
    assert report.scanned_batches == 0


def test_files_of_sealed_segments_are_closed() -> None:
    disk = MemoryDisk()
    log = open_log(disk, segment_bytes=300)
    for i in range(30):
        fill(log, 1, first=i)
        flush(disk, log)
        read_bytes(disk, log, i)
    assert len(log.segments) == 30
    assert len(disk.open_files) <= 6
    for offset in range(log.end_offset):
        log.locate(offset, 1, NO_LIMIT)
    assert len(disk.open_files) <= 6
    log.close()
    assert not disk.open_files


# -- lookups -----------------------------------------------------------------------------------


@pytest.mark.parametrize("index_interval_bytes", [0, 250, 1 << 20])
@pytest.mark.parametrize("stored", [False, True])
def test_every_offset_is_found_with_whole_batches(index_interval_bytes: int, stored: bool) -> None:
    disk = MemoryDisk()
    log = open_log(disk, index_interval_bytes=index_interval_bytes)
    fill(log, 60)
    if stored:
        flush(disk, log, log.checkpoint())
    boundaries = [h.base_offset for h, _ in read_batches(disk, log)] + [log.end_offset]
    for offset in range(log.end_offset):
        for max_bytes in (1, 400, 1000, 1 << 20):
            data = read_bytes(disk, log, offset, max_bytes=max_bytes)
            headers = [header for _, header in walk(data, check_crc=True)]
            assert headers[0].base_offset <= offset <= headers[0].last_offset
            assert sum(h.size_bytes for h in headers) == len(data)
            assert len(headers) == 1 or len(data) <= max_bytes
            segment_end = next(s.end_offset for s in log.segments if offset < s.end_offset)
            next_offset = headers[-1].next_offset
            if next_offset < segment_end:  # one more would have been too much
                assert len(data) + headers[0].size_bytes > max_bytes
    for limit in boundaries:
        for offset in range(limit):
            headers = [h for _, h in walk(read_bytes(disk, log, offset, limit=limit), check_crc=True)]
            assert headers[-1].next_offset <= limit
        assert log.locate(limit, 1000, limit).length == 0


def test_offsets_outside_are_refused() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    fill(log, 5)
    assert log.locate(10, 100, 10).length == 0
    with pytest.raises(OffsetOutOfRange, match=r"offset 11 is outside of 0\.\.10"):
        log.locate(11, 100, 10)
    with pytest.raises(OffsetOutOfRange):
        log.locate(-1, 100, 10)
    assert log.locate(8, 100, 6).length == 0  # there, but not committed


def test_only_what_this_process_wrote_last_is_hot() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    fill(log, 3)
    assert log.locate(0, 100, NO_LIMIT).hot_position == 0
    close(disk, log)
    log = open_log(disk)
    fill(log, 1)
    written = log.locate(6, 100, NO_LIMIT)
    assert written.hot_position == written.position  # the offsets before are of another process
    assert log.locate(0, 100, NO_LIMIT).hot_position == written.position
    fill(log, 20)
    assert log.locate(6, 100, NO_LIMIT).hot_position == NEVER_HOT  # in a sealed segment now


def test_commit_points_are_where_readers_may_read_to() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    fill(log, 30)
    flush(disk, log)
    fill(log, 1)
    boundaries = {log.end_offset, log.flushed_offset, *(h.base_offset for h, _ in read_batches(disk, log))}
    for offset in sorted(boundaries):
        point = log.commit_point(offset)
        segment = next(s for s in log.segments if s.base_offset == point.segment_base_offset)
        assert point.inode == segment.inode
        data = disk.read(segment.path)[: point.position]
        ends = [h.next_offset for _, h in walk(data, check_crc=True)]
        assert (ends[-1] if ends else segment.base_offset) == offset


def test_timestamps_are_found_to_the_record() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    times = [5, 9, 7, 30, 2, 30, 31, 12, 40, 40, 8] * 6
    for i, time in enumerate(times):
        append(log, make_batch([b"a", b"b", b"c"], timestamp_ms=NOW_MS + time * 10, step_ms=1, codec=i % 5))
    records = read_records(disk, log)
    for wanted in range(NOW_MS - 5, NOW_MS + 420):
        first = next((r for r in records if r.timestamp >= wanted), None)
        found = log.offset_for_timestamp(wanted)
        assert (found and found[:2]) == (first and (first.timestamp, first.offset))
    largest = max(records, key=lambda r: r.timestamp)
    assert log.max_timestamp_offset() == (largest.timestamp, largest.offset, 0)


def test_headers_that_promise_a_timestamp_which_no_record_has_cost_one_batch_of_work() -> None:
    disk = MemoryDisk()
    log = open_log(disk, segment_bytes=1 << 24)
    _, data = make_batch([b"x" * 5000], timestamp_ms=NOW_MS)
    lying = bytearray(data)
    lying[35:43] = (NOW_MS + 1000).to_bytes(8, "big")  # max_timestamp
    lying[17:21] = crc32c(lying[21:]).to_bytes(4, "big")
    for _ in range(100):
        append(log, (read_header(lying), memoryview(lying)))
    before = disk.bytes_read
    assert log.offset_for_timestamp(NOW_MS + 500) == (NOW_MS + 1000, 0, 0)
    assert disk.bytes_read - before < 50 * len(lying)


def test_no_timestamp_in_an_empty_log() -> None:
    log = open_log(MemoryDisk())
    assert log.max_timestamp_offset() is None
    assert log.offset_for_timestamp(0) is None


def test_damage_is_not_looked_through() -> None:
    disk = MemoryDisk()
    log = open_log(disk, segment_bytes=1 << 20)
    fill(log, 10)
    disk.flip_bit(log_path(DIRECTORY), 70)
    with pytest.raises(CorruptLog) as raised:
        log.offset_for_timestamp(NOW_MS)
    assert (raised.value.path, raised.value.position, raised.value.offset) == (log_path(DIRECTORY), 0, 0)


# -- indexes that lie --------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
@pytest.mark.parametrize("how", ["zeros", "foreign", "negative"])
def test_an_index_that_lies_is_rebuilt_when_it_is_used(suffix: str, how: str) -> None:
    disk = MemoryDisk()
    log = open_log(disk, segment_bytes=4000)
    fill(log, 60)
    expected = read_records(disk, log)
    close(disk, log)
    path = log_path(DIRECTORY).with_suffix(suffix)
    assert disk.exists(path)
    right = disk.read(path)
    entry = 8 if suffix == ".index" else 12
    foreign = bytes(byte ^ 1 if i % entry == entry - 1 else byte for i, byte in enumerate(right))
    lie = {"zeros": bytes(len(right)), "foreign": foreign, "negative": b"\xff" * len(right)}[how]
    disk.write(path, lie)
    log, report = recover(disk, DIRECTORY, small_config(segment_bytes=4000), NOW_MS)
    assert not report.rebuilt  # only sizes were looked at
    assert read_records(disk, log) == expected
    for record in expected:
        first = next(r for r in expected if r.timestamp >= record.timestamp)
        assert log.offset_for_timestamp(record.timestamp) == (first.timestamp, first.offset, 0)
    flush(disk, log, log.checkpoint())
    assert disk.read(path) == right


# -- the real disk -----------------------------------------------------------------------------


def test_on_a_real_disk(tmp_path: Path) -> None:
    disk = ClosingDisk()
    directory = tmp_path / "orders-0"
    log, _ = recover(disk, directory, small_config(retention_bytes=6000, retention_ms=-1), NOW_MS)
    many = [make_batch([b"%d" % i]) for i in range(700)]  # more buffers than one pwritev takes
    assert log.append(many, leader_epoch=0, now_ms=NOW_MS) == list(range(700))
    flush(disk, log)
    paths = log.apply_retention(NOW_MS, log.end_offset)
    flush(disk, log)
    log.unlink_deleted(paths)
    values = [record.value for record in read_records(disk, log)]
    assert values == [b"%d" % i for i in range(log.start_offset, 700)]
    close(disk, log)
    log, report = recover(disk, directory, small_config(), NOW_MS)
    assert (report.checkpoint, report.changed) == ("ok", False)
    assert [record.value for record in read_records(disk, log)] == values
    log.close()
    index = log.segments[0].index_paths[0].read_bytes()
    assert index
    assert len(index) % OFFSET_ENTRY.size == 0
