"""A coordinator's snapshot on disk: written in steps that may be interrupted anywhere, believed only if it is this log's.

Source: storage/snapshot.py, whose rules these are.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.unit.damaged_log import DIRECTORY, mend, new_disk
from tests.unit.log_tools import NOW_MS, append, fill, flush, log_path, make_batch, perform, small_config
from tests.unit.memory_disk import MemoryDisk, PowerCut
from zafka.storage.disk import Flush
from zafka.storage.errors import CorruptSnapshot
from zafka.storage.log import Log
from zafka.storage.recovery import recover
from zafka.storage.snapshot import SNAPSHOT_NAME, Point, SnapshotWriter, point_of, read_point, read_sections

PATH = DIRECTORY / SNAPSHOT_NAME
OLD = [b"the old one", b"", b"x" * 2000]
NEW = [b"another", b"y" * 700, b"z" * 700, b"end"]


def new_log(disk: MemoryDisk) -> Log:
    return recover(disk, DIRECTORY, small_config(), NOW_MS)[0]


def write(disk: MemoryDisk, log: Log, sections: list[bytes]) -> None:
    """As its owner does it: nothing goes on before what it rests on is on disk. Each section tells of one more batch."""

    def with_work() -> Iterator[bytes]:
        for section in sections:
            append(log, make_batch([section]), leader_epoch=log.leader_epochs.latest)
            yield section

    writer = SnapshotWriter(disk, DIRECTORY, with_work(), partial(point_of, log, log.end_offset))
    while step := writer.step():
        if step.log_offset > log.flushed_offset:
            flush(disk, log)
        perform(disk, Flush(0, step.files, step.directories))


def read(disk: MemoryDisk, log: Log) -> tuple[Point, list[bytes]] | None:
    """What a start makes of it; None if there is none that it believes."""
    point = read_point(disk, DIRECTORY)
    if point is None or point.unfit(log):
        return None
    return point, list(read_sections(disk, DIRECTORY))


def grown(disk: MemoryDisk) -> Log:
    log = new_log(disk)
    fill(log, 4)
    flush(disk, log)
    return log


def test_what_was_written_is_read() -> None:
    disk = new_disk()
    log = grown(disk)
    assert read(disk, log) is None
    write(disk, log, OLD)
    found = read(disk, log)
    assert found is not None and found[1] == OLD
    assert found[0] == Point(log.owner, 0, 8, 11, 0)
    write(disk, log, [])
    found = read(disk, log)
    assert found is not None and found == (Point(log.owner, 0, 11, 11, 0), [])


@pytest.mark.parametrize("power", [False, True], ids=["kill", "power cut"])
def test_interrupted_between_any_two_calls_of_the_disk(power: bool) -> None:
    """The old snapshot is there, or the new one; never half of one, nor one that tells of what the log lost."""
    olds = news = 0
    for seed in range(6):
        calls = 0
        while True:
            disk = new_disk(seed * 1000 + calls)
            log = grown(disk)
            write(disk, log, OLD)
            disk.calls_left = calls
            try:
                write(disk, log, NEW)
                done = True
            except PowerCut:
                done = False
            disk.calls_left = None
            disk.power_cut() if power else disk.crash()
            log = new_log(disk)
            found = read(disk, log)
            assert found is not None and found[1] in (OLD, NEW) and (found[1] == NEW or not done)
            assert found[0].end_offset <= log.end_offset
            assert SNAPSHOT_NAME + ".tmp" not in disk.list_directory(DIRECTORY)
            olds, news, calls = olds + (found[1] == OLD), news + (found[1] == NEW), calls + 1
            if done:
                break
    assert olds > 10 and news > 6


def test_no_byte_of_it_can_change_unnoticed() -> None:
    disk = new_disk()
    log = grown(disk)
    write(disk, log, OLD[:2])
    data = disk.read(PATH)
    for position in range(len(data)):
        disk.flip_bit(PATH, position)
        with pytest.raises(CorruptSnapshot):
            found = read(disk, log)
            assert found is not None, f"byte {position}"
        disk.flip_bit(PATH, position)
    for size in range(len(data)):
        disk.write(PATH, data[:size])
        with pytest.raises(CorruptSnapshot):
            read(disk, log)
    disk.write(PATH, data + b"\0")
    with pytest.raises(CorruptSnapshot):
        read(disk, log)
    disk.write(PATH, data)
    assert read(disk, log)


def test_a_section_of_another_snapshot_does_not_fit() -> None:
    disk = new_disk()
    log = grown(disk)
    write(disk, log, [b"one", b"two"])
    first = disk.read(PATH)
    write(disk, log, [b"1st", b"two"])
    second = disk.read(PATH)
    at = len(second) - len(b"two") - 8
    disk.write(PATH, second[:at] + first[at:])
    with pytest.raises(CorruptSnapshot, match="does not fit the section"):
        read(disk, log)
    begin = len(first) - len(b"one") - len(b"two") - 2 * 8
    disk.write(PATH, second[:begin] + first[begin:])
    with pytest.raises(CorruptSnapshot, match="does not fit all sections"):
        read(disk, log)


def test_what_an_earlier_one_left_behind_is_no_part_of_it() -> None:
    disk = new_disk()
    log = grown(disk)
    given_up = SnapshotWriter(disk, DIRECTORY, iter([b"x" * 2000]), partial(point_of, log, log.end_offset))
    given_up.step()
    given_up.close()
    write(disk, log, [b"short"])
    found = read(disk, log)
    assert found is not None and found[1] == [b"short"]


# -- which snapshot is this log's ----------------------------------------------------------------


def test_one_beyond_the_end_of_the_log_is_not_believed() -> None:
    """Somebody put an older log back. Also if that has grown as far again, by another leader."""
    disk = new_disk()
    log = grown(disk)
    write(disk, log, OLD)
    snapshot = disk.read(PATH)
    other = new_disk(1)
    other.write(PATH, snapshot)
    log = grown(other)
    assert log.end_offset == 8 and read(other, log) is None
    append(log, *(make_batch([b"anew"]) for _ in range(9)), leader_epoch=1)
    point = read_point(other, DIRECTORY)
    assert point is not None and log.end_offset > point.end_offset
    assert "leader epoch" in point.unfit(log) and "leader epoch" in point.unfit(log, replaces=True)


def test_one_of_another_topic_or_partition_is_not_believed() -> None:
    disk = new_disk()
    log = grown(disk)
    write(disk, log, OLD)
    point = read_point(disk, DIRECTORY)
    assert point is not None and not point.unfit(log)
    assert "foreign" in point._replace(owner=b"x" * 20).unfit(log)


def test_one_below_which_records_were_deleted_is_not_believed() -> None:
    """All of the log would not lead there any more."""
    disk = new_disk()
    log = grown(disk)
    write(disk, log, OLD)
    log.delete_records(3)
    flush(disk, log)
    assert log.start_offset == 3 and read(disk, log) is None
    point = read_point(disk, DIRECTORY)
    assert point is not None
    for start, unfit in ((8, ""), (9, "it stands at offset 8, and the log begins at 9")):
        log.delete_records(start)
        flush(disk, log)
        assert point.unfit(log, replaces=True) == unfit, "what came after it must be there"


def test_one_above_which_compaction_has_been_is_not_believed() -> None:
    """A tombstone may have gone there, and the snapshot would bring back what it deletes."""
    disk = new_disk()
    log = grown(disk)
    write(disk, log, OLD)
    point = read_point(disk, DIRECTORY)
    log.swap.cleaned_offset = 8
    assert point is not None and not point.unfit(log)
    log.swap.cleaned_offset = 9
    assert "compaction" in point.unfit(log)


def test_it_goes_when_damage_is_given_up() -> None:
    """What it tells of the offsets that are lost is not what the log says."""
    disk = new_disk()
    log = grown(disk)
    write(disk, log, OLD)
    flush(disk, log, log.checkpoint())
    log.close()
    disk.flip_bit(log_path(DIRECTORY), 80)
    mend(disk, config=small_config())
    assert not disk.exists(PATH)
    assert read(disk, new_log(disk)) is None
