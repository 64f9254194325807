"""Every kind of damage times every kind of index and checkpoint, and every step of everything that may be interrupted.

DESIGN section 3, "Disk layout is Kafka's". What must hold each time: nothing that was flushed is lost, below the
checkpoint nothing is cut (CorruptLog instead), what is opened is a prefix of what was written, indexes are right, a
second recovery changes nothing, and what was cut is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings, strategies as st

from tests.unit.damaged_log import (
    CHECKPOINT,
    CONFIG,
    DIRECTORY,
    Held,
    content,
    fill_above,
    grown,
    new_disk,
    snapshot,
)
from tests.unit.log_tools import NOW_MS, append, flush, log_path, make_batch, small_config
from tests.unit.memory_disk import MemoryDisk, PowerCut
from zafka.storage.checkpoint import decode_checkpoint, encode_checkpoint
from zafka.storage.errors import CorruptLog
from zafka.storage.log import Log
from zafka.storage.recovery import RecoveryReport, recover
from zafka.storage.verify import verify

OTHER_TOPIC = b"\7" * 16


class Before(NamedTuple):
    """Files as they were when the log was half as long, and those of another partition."""

    stale: dict[str, bytes]
    foreign: dict[str, bytes]


def log_with_history(disk: MemoryDisk) -> tuple[Held, Before]:
    other = new_disk()
    grown(other, below=9, above=2)
    foreign = snapshot(other)
    grown(disk, below=9, above=0)
    stale = snapshot(disk)
    log, _ = recover(disk, DIRECTORY, CONFIG, NOW_MS)
    for i in range(9):
        append(log, make_batch([b"later %d" % i, b"z" * 80], timestamp_ms=NOW_MS + 50 + i), leader_epoch=2)
    flush(disk, log, log.checkpoint())
    flushed, active = log.end_offset, log.segments[-1].base_offset
    fill_above(log, 5)
    held = Held(content(disk, log), flushed, [segment.base_offset for segment in log.segments], active)
    disk.crash()
    return held, Before(stale, foreign)


def open_and_check(disk: MemoryDisk, held: Held, *, at_least: int) -> tuple[Log, RecoveryReport]:
    """Recover; raises CorruptLog with nothing changed that counts. What is opened has to be right in every way."""
    before = snapshot(disk)
    try:
        log, report = recover(disk, DIRECTORY, CONFIG, NOW_MS)
    except CorruptLog:
        after = snapshot(disk)
        assert not disk.open_files
        logs = {name: data for name, data in before.items() if name.endswith((".log", ".cut"))}
        assert logs == {name: data for name, data in after.items() if name.endswith((".log", ".cut"))}, "it was cut"
        raise
    found = content(disk, log)
    assert found == held.batches[: len(found)], "not a prefix"
    assert log.flushed_offset == log.end_offset >= at_least
    check_kept(disk, before, report)
    verdict = verify(disk, DIRECTORY)
    assert verdict.is_sound and verdict.torn is None
    # An index file of the right size that lies is found when it is used, and every answer is right all the same.
    for first, end, _ in found:
        for offset in range(first, end):
            assert log.locate(offset, 1, log.end_offset).length
    for number in range(0, 120, 7):
        expected = next((batch[0] for batch in found if timestamp_of(batch) >= NOW_MS + number), None)
        located = log.offset_for_timestamp(NOW_MS + number)
        assert (located.offset if located else None) == expected
    flush(disk, log, log.checkpoint())  # with what was rebuilt since
    disk.power_cut()  # everything that was handed out is on disk
    settled = snapshot(disk)
    again, second = recover(disk, DIRECTORY, CONFIG, NOW_MS)
    assert content(disk, again) == found and not second.cut and not second.changed
    assert snapshot(disk) == settled, "the second recovery changed something"
    return again, report


def timestamp_of(batch: tuple[int, int, bytes]) -> int:
    return int.from_bytes(batch[2][35 - 17 : 43 - 17], "big")


def check_kept(disk: MemoryDisk, before: dict[str, bytes], report: RecoveryReport) -> None:
    """Every byte that is gone from a .log is in a .cut."""
    for path in report.cut:
        name = path.with_suffix(".log").name
        now = disk.read(path.with_suffix(".log")) if disk.exists(path.with_suffix(".log")) else b""
        assert before[name] == now + disk.read(path)


# -- damage --------------------------------------------------------------------------------------


def damage_index(disk: MemoryDisk, data: st.DataObject, held: Held, before: Before) -> None:
    base = data.draw(st.sampled_from([base for base in held.bases if base <= held.active]), label="index of")
    suffix = data.draw(st.sampled_from((".index", ".timeindex")))
    how = data.draw(st.sampled_from(("missing", "stale", "foreign", "truncated", "garbage", "longer", "backwards")))
    path = log_path(DIRECTORY, base).with_suffix(suffix)
    if not disk.exists(path):
        return
    entry = {".index": 8, ".timeindex": 12}[suffix]
    now = disk.read(path)
    if how == "missing":
        disk.unlink(path)
        return
    old, other = (files.get(path.name, b"") for files in before)
    backwards = b"".join(now[i : i + entry] for i in range(len(now) - entry, -1, -entry))
    disk.write(path, {
        "stale": old, "foreign": other, "truncated": now[: data.draw(st.integers(0, len(now)))],
        "garbage": data.draw(st.binary(min_size=len(now), max_size=len(now))), "longer": now + b"\1" * entry,
        "backwards": backwards}[how])


def damage_checkpoint(disk: MemoryDisk, how: str, before: Before) -> None:
    if how == "missing":
        disk.unlink(CHECKPOINT)
    elif how == "corrupt":
        disk.flip_bit(CHECKPOINT, 70)
    elif how == "stale":
        disk.write(CHECKPOINT, before.stale[CHECKPOINT.name])
    elif how == "temporary":
        disk.write(DIRECTORY / (CHECKPOINT.name + ".tmp"), before.stale[CHECKPOINT.name][:-7])
    elif how == "foreign":
        foreign = decode_checkpoint(before.foreign[CHECKPOINT.name])
        disk.write(CHECKPOINT, encode_checkpoint(foreign._replace(owner=OTHER_TOPIC + bytes(4))))
    elif how == "of another partition":
        foreign = decode_checkpoint(before.foreign[CHECKPOINT.name])
        disk.write(CHECKPOINT, encode_checkpoint(foreign._replace(owner=foreign.owner[:16] + b"\0\0\0\1")))


CHECKPOINTS = ("ok", "missing", "corrupt", "stale", "temporary", "foreign", "of another partition")


@settings(max_examples=150, deadline=None)
@given(data=st.data(), checkpoint=st.sampled_from(CHECKPOINTS), tear=st.sampled_from(("none", "cut", "zeros", "page", "flip")))
def test_whatever_was_torn_above_the_checkpoint_and_whatever_lies_beside_it(
    data: st.DataObject, checkpoint: str, tear: str
) -> None:
    """With a checkpoint of its own, the log opens with all that was below. Without one, damage that has whole batches
    behind it is refused: it may have been acknowledged."""
    disk = new_disk(data.draw(st.integers(0, 2**16)))
    held, before = log_with_history(disk)
    start = decode_checkpoint(disk.read(CHECKPOINT)).segments[-1].size_bytes
    base = data.draw(st.sampled_from([base for base in held.bases if base >= held.active]))
    path = log_path(DIRECTORY, base)
    bytes_ = bytearray(disk.read(path))
    at = data.draw(st.integers(start if base == held.active else 0, len(bytes_)))
    if tear == "cut":
        del bytes_[at:]
    elif tear == "zeros":
        bytes_[at:] = bytes(len(bytes_) - at)
    elif tear == "page":
        bytes_[at : at + 64] = bytes(len(bytes_[at : at + 64]))
    elif tear == "flip" and at < len(bytes_):
        bytes_[at] ^= data.draw(st.sampled_from((1, 2, 16, 128)))
    disk.write(path, bytes(bytes_))
    damage_checkpoint(disk, checkpoint, before)
    for _ in range(data.draw(st.integers(0, 2))):
        damage_index(disk, data, held, before)
    known = checkpoint in ("ok", "stale", "temporary")
    try:
        log, report = open_and_check(disk, held, at_least=held.flushed if known else 0)
    except CorruptLog as refused:
        assert not known and "no checkpoint says" in str(refused)
        return
    if tear == "none":
        assert log.end_offset == held.end and not report.cut
    assert log.leader_epochs.epoch_for(0) == 0
    if checkpoint not in ("ok", "stale", "temporary"):
        assert report.checkpoint.split(":")[0] == {"missing": "missing", "corrupt": "corrupt"}.get(checkpoint, "foreign")


@settings(max_examples=80, deadline=None)
@given(data=st.data(), checkpoint=st.sampled_from(("ok", "temporary")), lose=st.sampled_from(("flip", "cut", "missing", "longer")))
def test_below_the_checkpoint_nothing_is_ever_cut(data: st.DataObject, checkpoint: str, lose: str) -> None:
    """A flip is seen by whoever reads it, or rebuilds an index; what changes a size is seen at once."""
    disk = new_disk()
    held, before = log_with_history(disk)
    end = decode_checkpoint(disk.read(CHECKPOINT)).segments[-1].size_bytes
    base = data.draw(st.sampled_from([base for base in held.bases if base <= held.active]))
    path = log_path(DIRECTORY, base)
    bytes_ = bytearray(disk.read(path))
    at = data.draw(st.integers(0, (end if base == held.active else len(bytes_)) - 1))
    if lose == "missing":
        disk.unlink(path)
    elif lose == "cut":
        del bytes_[at:]
    elif lose == "longer" and base < held.active:
        bytes_ += b"\0"
    elif lose == "flip":
        bytes_[at] ^= 8
    if lose != "missing":
        disk.write(path, bytes(bytes_))
    damage_checkpoint(disk, checkpoint, before)
    logs = {name: content for name, content in snapshot(disk).items() if name.endswith(".log")}
    if lose == "flip" or (lose == "longer" and base == held.active):
        log, report = recover(disk, DIRECTORY, CONFIG, NOW_MS)
        assert log.end_offset == held.end and not report.cut
    else:
        with pytest.raises(CorruptLog):
            open_and_check(disk, held, at_least=0)
    for name, content_ in logs.items():
        assert disk.read(DIRECTORY / name) == content_
    assert not any(name.endswith(".cut") for name in snapshot(disk))


def test_rot_between_a_stale_checkpoint_and_what_was_flushed_since_cannot_be_told_from_a_torn_tail() -> None:
    """Somebody brought an older checkpoint back. What it does not know was acknowledged looks as if it were not."""
    disk = new_disk()
    held, before = log_with_history(disk)
    first, _, body = held.batches[12]
    assert first >= decode_checkpoint(before.stale[CHECKPOINT.name]).flushed_offset and first < held.flushed
    base = max(base for base in held.bases if base <= first)
    path = log_path(DIRECTORY, base)
    disk.flip_bit(path, disk.read(path).index(body) + 60)
    damage_checkpoint(disk, "stale", before)
    log, report = recover(disk, DIRECTORY, CONFIG, NOW_MS)
    assert log.end_offset == first and report.cut  # kept, at least, and said
    kept = b"".join(disk.read(path) for path in sorted(report.cut))
    assert held.batches[13][2] in kept


def test_a_foreign_checkpoint_does_not_make_recovery_begin_in_the_middle_of_a_batch() -> None:
    disk = new_disk()
    held = grown(disk, below=4, above=0)
    mine = decode_checkpoint(disk.read(CHECKPOINT))
    (row,) = mine.segments
    shorter = row._replace(end_offset=4, size_bytes=row.size_bytes // 2 + 11, offset_index_bytes=0, time_index_bytes=0)
    lie = mine._replace(flushed_offset=4, segments=(shorter,))
    disk.write(CHECKPOINT, encode_checkpoint(lie._replace(owner=OTHER_TOPIC + bytes(4))))
    log, report = recover(disk, DIRECTORY, CONFIG, NOW_MS)
    assert log.end_offset == held.end and not report.cut and report.checkpoint.startswith("foreign: ")


# -- interruptions -------------------------------------------------------------------------------


def do_roll(disk: MemoryDisk, log: Log) -> None:
    append(log, *[make_batch([b"roll", b"r" * 300], timestamp_ms=NOW_MS + 200 + i) for i in range(5)], leader_epoch=3)
    flush(disk, log)


def do_retention(disk: MemoryDisk, log: Log) -> None:
    log.update_config(small_config(segment_bytes=1000, retention_bytes=1500, retention_ms=-1))
    paths = log.apply_retention(NOW_MS, log.end_offset)
    flush(disk, log)
    log.unlink_deleted(paths)
    flush(disk, log)


def do_checkpoint(disk: MemoryDisk, log: Log) -> None:
    flush(disk, log, log.checkpoint())


def do_close(disk: MemoryDisk, log: Log) -> None:
    flush(disk, log)
    flush(disk, log, log.checkpoint())
    log.close()


def do_nothing(disk: MemoryDisk, log: Log) -> None:
    log.close()


STEPS: list[Callable[[MemoryDisk, Log], None]] = [do_roll, do_retention, do_checkpoint, do_close, do_nothing]


@pytest.mark.parametrize("power", [False, True], ids=["kill", "power cut"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("seed", range(2))
def test_interrupted_between_any_two_calls_of_the_disk(step: Callable[[Any, Any], None], power: bool, seed: int) -> None:
    """The operation, at each of its calls; then the recovery behind it, at each of some of its own."""
    rolled = what_a_roll_appends()
    for calls in range(200):
        disk = new_disk(seed * 1000 + calls)
        held = grown(disk, below=12, above=4)
        log, _ = recover(disk, DIRECTORY, CONFIG, NOW_MS)
        flushed, start = log.flushed_offset, log.start_offset
        disk.calls_left = calls
        done = False
        try:
            step(disk, log)
            done = True
        except PowerCut:
            start_max = log.end_offset if step is do_retention else start
        disk.calls_left = None
        written = held.batches + rolled
        disk.power_cut() if power else disk.crash()
        for recovery_calls in (seed, 5 + seed, 11):
            disk.calls_left = recovery_calls
            try:
                recover(disk, DIRECTORY, CONFIG, NOW_MS)
            except PowerCut:
                disk.power_cut() if power else disk.crash()
        disk.calls_left = None
        log, report = recover(disk, DIRECTORY, CONFIG, NOW_MS)
        assert report.checkpoint == "ok"
        found = content(disk, log)
        if not done:
            assert start <= log.start_offset <= start_max
        begin = [batch[0] for batch in written].index(log.start_offset)
        assert found == written[begin : begin + len(found)]
        assert log.end_offset >= flushed and not report.warnings
        verdict = verify(disk, DIRECTORY)
        assert verdict.is_sound and not verdict.torn and not verdict.strangers
        assert not any(one.notes for one in verdict.segments)
        settled = snapshot(disk)
        log.close()
        _, second = recover(disk, DIRECTORY, CONFIG, NOW_MS)
        assert not second.changed and snapshot(disk) == settled
        if done:
            assert calls > 2 or step is do_nothing
            return
    raise AssertionError("it never came to its end")


def what_a_roll_appends() -> list[tuple[int, int, bytes]]:
    disk = new_disk()
    held = grown(disk, below=12, above=4)
    log, _ = recover(disk, DIRECTORY, CONFIG, NOW_MS)
    do_roll(disk, log)
    return content(disk, log)[len(held.batches) :]


@pytest.mark.parametrize("seed", range(6))
def test_the_power_goes_at_each_call_of_a_recovery_behind_a_kill(seed: int) -> None:
    """What a killed process has appended is all there for recovery, and not yet on disk, names of segments included."""
    for calls in range(100):
        disk = new_disk(seed * 1000 + calls)
        held = grown(disk, below=6, above=16)
        assert held.bases[-1] > held.active
        disk.calls_left = calls
        try:
            recover(disk, DIRECTORY, CONFIG, NOW_MS)
            done = True
        except PowerCut:
            done = False
        disk.calls_left = None
        disk.power_cut()
        log, report = recover(disk, DIRECTORY, CONFIG, NOW_MS)
        found = content(disk, log)
        assert found == held.batches[: len(found)] and log.end_offset >= held.flushed
        assert report.checkpoint == "ok", "there is always one whole checkpoint, an older or a newer one"
        if done:
            assert log.end_offset == held.end and calls > 5
            return
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("seed", range(6))
def test_what_is_cut_is_kept_wherever_the_power_goes(seed: int) -> None:
    torn = bytes(range(256)) * 8
    for calls in range(60):
        disk = new_disk(seed * 1000 + calls)
        held = grown(disk, below=6, above=0)
        path = log_path(DIRECTORY, held.bases[-1])
        disk.write(path, disk.read(path) + torn)
        disk.calls_left = calls
        try:
            recover(disk, DIRECTORY, CONFIG, NOW_MS)
            done = True
        except PowerCut:
            done = False
        disk.calls_left = None
        disk.power_cut()
        log, _ = recover(disk, DIRECTORY, CONFIG, NOW_MS)
        assert log.end_offset == held.end
        assert disk.read(path.with_suffix(".cut")) == torn
        if done:
            return
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("power", [False, True], ids=["kill", "power cut"])
def test_a_new_log_interrupted_between_any_two_calls_is_there_or_not(power: bool) -> None:
    for calls in range(60):
        disk = new_disk(calls)
        disk.calls_left = calls
        try:
            recover(disk, DIRECTORY, CONFIG, NOW_MS)
            done = True
        except PowerCut:
            done = False
        disk.calls_left = None
        disk.power_cut() if power else disk.crash()
        log, _ = recover(disk, DIRECTORY, CONFIG, NOW_MS)
        assert (log.start_offset, log.end_offset) == (0, 0)
        fill_above(log, 2)
        flush(disk, log)
        disk.power_cut()
        log, _ = recover(disk, DIRECTORY, CONFIG, NOW_MS)
        assert log.end_offset == 4
        if done:
            return
    raise AssertionError("it never came to its end")


class NamesRecorded(MemoryDisk):
    """A disk that says which directories were flushed since the last time it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed_names: list[str] = []

    def fsync_dir(self, path: Any) -> None:
        super().fsync_dir(path)
        self.flushed_names.append(str(path))


def test_until_there_is_a_checkpoint_every_start_flushes_the_names_of_the_directories_above() -> None:
    """A kill may have come between the making of a directory and the flush of its name."""
    disk = NamesRecorded()
    disk.make_directory(DIRECTORY.parent)
    disk.make_directory(DIRECTORY)
    for calls in range(8):
        disk.calls_left = calls
        try:
            recover(disk, DIRECTORY, CONFIG, NOW_MS)
        except PowerCut:
            disk.crash()
    disk.calls_left = None
    assert not disk.exists(CHECKPOINT)
    disk.flushed_names.clear()
    recover(disk, DIRECTORY, CONFIG, NOW_MS)
    assert {"/data", "/", str(DIRECTORY)} <= set(disk.flushed_names)
    disk.crash()
    disk.flushed_names.clear()
    recover(disk, DIRECTORY, CONFIG, NOW_MS)
    assert "/data" not in disk.flushed_names
