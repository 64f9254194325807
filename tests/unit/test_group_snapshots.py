"""A group coordinator and its snapshots: a start knows from them and the rest of its log what all of the log says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.disks import FullableDisk
from tests.unit.drive import exit_of
from tests.unit.drive_group_snapshots import World, all_of_the_log, log_state
from tests.unit.drive_groups import SUPERVISOR, Coordinator, commit
from tests.unit.memory_disk import PowerCut
from zafka.actors.actor import Flush
from zafka.actors.groups import group_snapshot
from zafka.actors.groups.coordinator import make_machine
from zafka.actors.groups.machine import GroupMachine
from zafka.actors.groups.records import OffsetCommitKey, OffsetCommitValue
from zafka.actors.messages import DeleteRecords, Shutdown
from zafka.actors.snapshots import GROWTH
from zafka.storage.snapshot import SNAPSHOT_NAME, read_point
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode

EVERY_10 = {"internal_snapshot_records": "10"}


class Counting:
    """Makes machines, and counts the records of the log that they are given."""

    def __init__(self) -> None:
        self.replayed = 0

    def __call__(self, settings: Any) -> GroupMachine:
        machine = make_machine(settings)
        replay = machine.replay

        def count(key: bytes, value: bytes | None) -> None:
            self.replayed += 1
            replay(key, value)

        machine.replay = count  # type: ignore[method-assign]
        return machine


def commit_many(coordinator: Coordinator, count: int, *, groups: int = 7) -> None:
    for number in range(count):
        assert coordinator.commit(f"g{number % groups}", number) == 0
        coordinator.pass_time(0.05)


def restarted(coordinator: Coordinator, directory: Path, epoch: int = 1, **more: Any) -> Coordinator:
    coordinator.coordinator.replica.release()
    return Coordinator(directory, disk=coordinator.disk, **{**EVERY_10, **more}).lead(epoch)


@pytest.mark.parametrize("seed", range(18))
def test_whatever_happens_a_start_knows_from_its_snapshot_what_its_log_says(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills and power cuts at any call of the disk, compaction that takes tombstones at once, sections of two offsets."""
    monkeypatch.setattr(group_snapshot, "OFFSETS_PER_SECTION", 2)
    monkeypatch.setattr(group_snapshot, "BYTES_PER_SECTION", 200)
    world = World(tmp_path, seed, snapshot_records=(1, 5, 60, 13, 60)[seed % 5], segment_bytes=(700, 1500, 1 << 20)[seed % 3])
    print(f"seed {seed}")
    for _ in range(8):
        world.disk.calls_left = world.random.randrange(30, 2500)
        try:
            world.start()
            while True:
                world.step()
        except PowerCut:
            world.die()
    world.start()
    assert world.snapshots
    assert world.cleaned_offset or seed % 3 == 2


def test_a_start_replays_only_what_came_after(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, **EVERY_10).lead()
    commit_many(coordinator, 43)
    coordinator.pass_time(1.0)
    counting = Counting()
    again = restarted(coordinator, tmp_path, make=counting)
    assert counting.replayed < 10
    assert {f"g{i}": again.fetch(f"g{i}") for i in range(7)} == {f"g{i}": max(range(i, 43, 7)) for i in range(7)}


def test_a_snapshot_tells_of_nothing_that_is_not_on_disk(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, fsync="os", **EVERY_10).lead()
    commit_many(coordinator, 15)
    coordinator.pass_time(1.0)
    assert 0 < coordinator.coordinator._snapshots.offset <= coordinator.coordinator.replica.log.flushed_offset


def test_a_large_state_is_written_less_often(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, **EVERY_10).lead()
    commit_many(coordinator, 200, groups=200)
    coordinator.pass_time(1.0)
    snapshots = coordinator.coordinator._snapshots
    assert snapshots.entries == snapshots.offset > 100
    again = restarted(coordinator, tmp_path)
    snapshots, log = again.coordinator._snapshots, again.coordinator.replica.log
    began_at, part = snapshots.offset, snapshots.entries // GROWTH
    assert part > 10
    commit_many(again, part - 1 - (log.end_offset - began_at))
    assert (snapshots.is_busy, snapshots.offset) == (False, began_at)
    commit_many(again, 1)
    assert snapshots.is_busy or snapshots.offset > began_at


def test_a_group_of_more_than_a_section_is_told_in_pieces_and_whole_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_snapshot, "OFFSETS_PER_SECTION", 3)
    machine, again = make_machine({}), make_machine({})
    for group, topics in (("small", 1), ("large", 8), ("next", 2)):
        for number in range(topics):
            for partition in range(1 + number % 2):
                machine.offsets.replay(OffsetCommitKey(group, f"t{number}", partition), OffsetCommitValue(number, -1, "", 0))
    sections = list(machine.sections())
    assert len(sections) > 4 and sum(again.restore(data) for data, _ in sections) == 16
    assert log_state(again) == log_state(machine)


def test_each_record_and_each_offset_is_in_one_section() -> None:
    records = [(b"%d" % number, bytes(100_000)) for number in range(4)]
    groups = ((f"g{number}", {"t": {0: OffsetCommitValue(number)}}, 6_000) for number in range(4))
    sections = list(group_snapshot.sections_of(groups, records))
    assert [record for section in sections for record in section.records] == records
    assert [group for section in sections for group in section.offsets] == ["g0", "g1", "g2", "g3"]
    assert len(sections) == 3


def test_it_is_written_beside_the_work_one_section_in_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is committed while it is written, in groups that it has told of and in others, is not lost nor taken twice."""
    monkeypatch.setattr(group_snapshot, "OFFSETS_PER_SECTION", 1)
    coordinator = Coordinator(tmp_path, internal_snapshot_records="20").lead()
    commit_many(coordinator, 19, groups=19)
    turns = 0
    coordinator.commit("g19", 19)
    while coordinator.coordinator._snapshots.is_busy:
        turns += 1
        assert coordinator.commit(f"g{turns % 23}", 100 + turns) == 0
        coordinator.pass_time(0.021)
    assert turns > 19
    point = read_point(coordinator.disk, coordinator.directory)
    assert point is not None and point.offset == 20 and point.end_offset >= 20 + 19
    state = log_state(coordinator.coordinator._machine)
    again = restarted(coordinator, tmp_path)
    assert log_state(again.coordinator._machine) == state


def test_no_turn_does_more_than_one_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_snapshot, "OFFSETS_PER_SECTION", 3)
    coordinator = Coordinator(tmp_path, auto_flush=False, **EVERY_10).lead()
    for number in range(30):
        coordinator.turn(coordinator.mail(ApiKey.OFFSET_COMMIT, 9, commit(f"g{number}", number)))
    seen = {-1: 0}
    for _ in range(200):
        assert len([flush for flush in coordinator.flushes if flush.token < 0]) <= 1
        if coordinator.flushes:
            seen[-1] += coordinator.flushes[0].token < 0
            perform_oldest(coordinator)
        elif not coordinator.coordinator._snapshots.is_busy:
            break
        coordinator.pass_time(0.03)
    assert seen[-1] >= 30 // 3 // 2


def perform_oldest(coordinator: Coordinator) -> None:
    flush: Flush = coordinator.flushes[0]
    for file in flush.files:
        coordinator.disk.fdatasync(file)
    for directory in flush.directories:
        coordinator.disk.fsync_dir(directory)
    coordinator.flush()


def test_a_clean_stop_leaves_one(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, internal_snapshot_records="1000").lead()
    commit_many(coordinator, 30)
    assert read_point(coordinator.disk, coordinator.directory) is None
    assert exit_of(coordinator.send(SUPERVISOR, Shutdown()))
    counting = Counting()
    again = Coordinator(tmp_path, make=counting).lead(1)
    assert counting.replayed == 0 and again.fetch("g0") == 28


def test_a_clean_stop_writes_what_was_decided_in_its_turn_before_the_snapshot_tells_of_it(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, internal_snapshot_records="50").lead()
    late = coordinator.mail(ApiKey.OFFSET_COMMIT, 9, commit("g", 1))
    stop = coordinator.mail(ApiKey.OFFSET_COMMIT, 9, commit("h", 2))._replace(sender=SUPERVISOR, body=Shutdown())
    behind = coordinator.mail(ApiKey.OFFSET_COMMIT, 9, commit("i", 3))
    assert exit_of(coordinator.turn(late, stop, behind))
    again = Coordinator(tmp_path).lead(1)
    assert again.coordinator._snapshots.offset == 1
    assert [again.fetch(group) for group in "ghi"] == [1, -1, -1]
    assert log_state(all_of_the_log(again)) == log_state(again.coordinator._machine)


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "another's"])
def test_a_damaged_one_means_that_all_of_the_log_is_read(tmp_path: Path, damage: str) -> None:
    coordinator = Coordinator(tmp_path, **EVERY_10).lead()
    commit_many(coordinator, 43)
    coordinator.pass_time(1.0)
    path = coordinator.directory / SNAPSHOT_NAME
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes({"cut": data[:-1], "empty": b"", "another's": data[:10] + bytes(30)}.get(damage, bytes(data)))
    snapshots = coordinator.coordinator._snapshots
    assert snapshots.offset and snapshots.load(list, lambda state, section: 1, lambda: None) == []
    assert (snapshots.offset, snapshots.entries) == (0, 0), "also for who finds it so later on"
    counting = Counting()
    again = restarted(coordinator, tmp_path, make=counting)
    assert counting.replayed == 43 and again.fetch("g0") == 42
    again.pass_time(1.0)
    assert again.commit("g0", 50) == 0
    again.pass_time(1.0)
    counting.replayed = 0
    assert restarted(again, tmp_path, 2, make=counting).fetch("g0") == 50
    assert counting.replayed < 10, "there is a new one"


def test_a_full_disk_puts_it_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_snapshot, "OFFSETS_PER_SECTION", 2)
    disk = FullableDisk()
    coordinator = Coordinator(tmp_path, disk=disk, **EVERY_10).lead()
    commit_many(coordinator, 10)
    assert coordinator.coordinator._snapshots.is_busy
    disk.full = True
    coordinator.pass_time(0.05)
    assert not coordinator.coordinator._snapshots.is_busy, "though the log was refused nothing yet"
    assert coordinator.ask(ApiKey.OFFSET_COMMIT, 9, commit("g", 2)) == ErrorCode.COORDINATOR_NOT_AVAILABLE
    coordinator.pass_time(3.0)
    assert not coordinator.coordinator._snapshots.is_busy
    disk.full = False
    coordinator.pass_time(1.1)
    assert read_point(disk, coordinator.directory) is None
    snapshots = coordinator.coordinator._snapshots
    assert not snapshots.is_due(wanted_offset=5), "compaction waits for one, and nothing has come since it failed"
    commit_many(coordinator, 2)
    assert snapshots.is_due(wanted_offset=5) and not snapshots.is_busy, "it is put off for as much again"
    commit_many(coordinator, 12)
    coordinator.pass_time(1.0)
    again = restarted(coordinator, tmp_path)
    assert again.coordinator._snapshots.offset >= 20
    assert (again.fetch("g"), again.fetch("g4")) == (-1, 11)


def test_a_snapshot_tells_nothing_that_a_full_disk_took_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine had it already when the disk refused it."""
    monkeypatch.setattr(group_snapshot, "OFFSETS_PER_SECTION", 2)
    disk = FullableDisk()
    coordinator = Coordinator(tmp_path, disk=disk, **EVERY_10).lead()
    commit_many(coordinator, 9, groups=9)
    disk.full = True
    assert coordinator.ask(ApiKey.OFFSET_COMMIT, 9, commit("g0", 77)) == ErrorCode.COORDINATOR_NOT_AVAILABLE
    disk.full = False
    coordinator.pass_time(1.1)
    assert coordinator.commit("g1", 20) == 0
    coordinator.pass_time(1.0)
    assert read_point(disk, coordinator.directory) is not None
    assert restarted(coordinator, tmp_path).fetch("g0") == 0


def test_compaction_takes_no_tombstone_that_a_start_from_the_snapshot_would_miss(tmp_path: Path) -> None:
    """It waits for a new snapshot, and then goes on: it does not wait until one is due."""
    world = World(tmp_path, 0, snapshot_records=60, segment_bytes=500)
    world.start()
    coordinator = world.coordinator
    actor = coordinator.coordinator
    for number in range(70):
        coordinator.commit(f"g{number % 7}", number)
        world.carry(coordinator.pass_time(0.03))
    stands_at = actor._snapshots.offset
    assert 0 < stands_at <= 70
    world.delete("g0", 0)
    tombstone = actor.replica.log.end_offset - 1
    for number in range(35):
        coordinator.commit("g1", 1000 + number)
    for _ in range(6):
        world.carry(coordinator.pass_time(1.1))
    assert actor.replica.log.swap.cleaned_offset > tombstone, "it has gone on"
    assert actor._snapshots.offset > stands_at
    world.die()
    world.start()
    assert (world.coordinator.fetch("g0"), world.coordinator.fetch("g1")) == (-1, 1034)


def test_deleted_records_are_gone_with_a_snapshot_as_without(tmp_path: Path) -> None:
    """DeleteRecords on the topic itself: what all of the log leads to is what counts."""
    coordinator = Coordinator(tmp_path, **EVERY_10).lead()
    commit_many(coordinator, 30, groups=30)
    coordinator.pass_time(1.0)
    coordinator.send(SUPERVISOR, DeleteRecords(1, 12))
    again = restarted(coordinator, tmp_path)
    assert again.coordinator.replica.log.start_offset == 12
    assert (again.fetch("g11"), again.fetch("g12")) == (-1, 12)
