"""Compaction interrupted between any two calls of the disk, by a kill or a power cut, and so the recovery behind it.

What must hold each time: the log opens by its checkpoint, without a warning and with everything that was flushed; of every
key the last value is what it was; a deleted key stays deleted; nothing half-made is left; and the next pass comes to its end.
Source: storage/swap.py, whose steps these are; Kafka LogLoader, LocalLog.replaceSegments.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.compacted_log import compact, compacted_config, fill_with_keys, last_values, new_log, records_in
from tests.unit.damaged_log import DIRECTORY, new_disk, snapshot
from tests.unit.log_tools import NOW_MS, flush
from tests.unit.memory_disk import MemoryDisk, PowerCut
from zafka.storage.log import Log
from zafka.storage.recovery import recover
from zafka.storage.repair import go_on
from zafka.storage.verify import verify

LATER_MS = NOW_MS + 10_000  # every tombstone that a pass at NOW_MS has seen may go


def compact_twice(disk: MemoryDisk, log: Log) -> None:
    """The second pass drops tombstones, and makes one segment of several."""
    compact(disk, log)
    log.update_config(compacted_config(segment_bytes=3000))
    compact(disk, log, LATER_MS)


def compact_with_little_memory(disk: MemoryDisk, log: Log) -> None:
    compact(disk, log, buffer_bytes=1)
    compact(disk, log, LATER_MS, buffer_bytes=1)


def compact_and_delete(disk: MemoryDisk, log: Log) -> None:
    log.delete_records(log.segments[2].base_offset + 1)
    compact(disk, log)
    paths = log.apply_retention(NOW_MS, log.high_watermark)
    compact(disk, log, LATER_MS)
    log.unlink_deleted(paths)
    while log.flush_due:
        flush(disk, log)


STEPS = [compact_twice, compact_with_little_memory, compact_and_delete]


def grown(disk: MemoryDisk, seed: int) -> Log:
    log = new_log(disk, compacted_config())
    fill_with_keys(disk, log, seed, batches=32)
    return log


def check_log(disk: MemoryDisk, log: Log, expected: Any) -> None:
    """expected: keys and last values."""
    assert last_values(records_in(disk, log)) == expected
    assert not [name for name in snapshot(disk) if name.endswith((".cleaned", ".swap"))]
    verdict = verify(disk, DIRECTORY)
    assert verdict.is_sound and not verdict.torn and not verdict.strangers
    assert not any(segment.notes or segment.given_up for segment in verdict.segments)


@pytest.mark.parametrize("power", [False, True], ids=["kill", "power cut"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("seed", range(2))
def test_interrupted_between_any_two_calls_of_the_disk(step: Any, power: bool, seed: int) -> None:
    for calls in range(seed, 2000, 2 if seed else 3):
        disk = new_disk(seed * 10_000 + calls)
        log = grown(disk, seed)
        end, expected, producers = log.end_offset, last_values(records_in(disk, log)), log.producers.snapshot()
        disk.calls_left = calls
        done = interrupted(step, disk, log)
        after_it(disk, power)
        see_as_the_next_start_does(disk)
        for recovery_calls in (seed, 4 + seed, 9):
            disk.calls_left = recovery_calls
            if not interrupted(recover, disk, DIRECTORY, compacted_config(), NOW_MS):
                after_it(disk, power)
        disk.calls_left = None
        log, report = recover(disk, DIRECTORY, compacted_config(), NOW_MS)
        assert report.checkpoint == "ok" and not report.warnings and not report.cut
        assert log.end_offset == end and log.producers.snapshot() == producers
        if step is compact_and_delete:
            check_log(disk, log, last_values(records_in(disk, log)))
        else:
            check_log(disk, log, expected)
        expected = last_values(records_in(disk, log))
        log.high_watermark = log.end_offset
        compact_until_tombstones_go(disk, log, expected)
        if done:
            assert calls > 20
            return
    raise AssertionError("it never came to its end")


def compact_until_tombstones_go(disk: MemoryDisk, log: Log, expected: Any) -> None:
    """A tombstone that goes before what it deletes would show by that."""
    for later in range(3):
        compact(disk, log, LATER_MS + 5000 * later)
        check_log(disk, log, expected)
    sealed = [record for record in records_in(disk, log) if record.offset < log.segments[-1].base_offset]
    assert len({record.key for record in sealed}) == len(sealed) and all(record.value is not None for record in sealed)


def interrupted(what: Any, *arguments: Any, **more: Any) -> bool:
    """Do it; whether it came to its end."""
    try:
        what(*arguments, **more)
    except PowerCut:
        return False
    return True


def after_it(disk: MemoryDisk, power: bool) -> None:
    disk.calls_left = None
    disk.power_cut() if power else disk.crash()


def see_as_the_next_start_does(disk: MemoryDisk) -> None:
    """`zafka log verify` in the middle of a swap finds nothing wrong, and changes nothing."""
    before = snapshot(disk)
    verdict = verify(disk, DIRECTORY)
    assert snapshot(disk) == before
    assert not verdict.is_damaged and verdict.checkpoint == "ok", verdict
    assert all(base < verdict.start_offset for base in verdict.strangers), "but for what retention is about to drop"


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**16), calls=st.integers(0, 150), power=st.booleans(), by_hand=st.booleans())
def test_pass_after_pass_is_interrupted(seed: int, calls: int, power: bool, by_hand: bool) -> None:
    """Five starts in a row, none of which lives long. Whatever comes of each pass, no deleted key comes back."""
    disk = new_disk(seed)
    log = grown(disk, seed)
    expected = last_values(records_in(disk, log))
    for number in range(5):
        disk.calls_left = calls + 13 * number
        interrupted(compact, disk, log, NOW_MS + 2000 * number, buffer_bytes=700)
        after_it(disk, power)
        if by_hand:
            go_on(disk, DIRECTORY)
        log, report = recover(disk, DIRECTORY, compacted_config(), NOW_MS)
        assert report.checkpoint == "ok" and not report.cut
        log.high_watermark = log.end_offset
        check_log(disk, log, expected)
    compact_until_tombstones_go(disk, log, expected)


def test_a_failed_flush_of_the_cleaner_leaves_the_log_as_it_was() -> None:
    """Only files that are on disk are handed to the log's owner; what else lies about is taken away at the next start."""
    disk = new_disk()
    log = grown(disk, 1)
    before = {name: data for name, data in snapshot(disk).items() if ".log" in name}
    disk.write(DIRECTORY / f"{0:020d}.log.cleaned", b"half of it")
    disk.write(DIRECTORY / f"{0:020d}.log.swap", b"another half")
    log.close()
    disk.crash()
    recover(disk, DIRECTORY, compacted_config(), NOW_MS)
    assert {name: data for name, data in snapshot(disk).items() if ".log" in name} == before
