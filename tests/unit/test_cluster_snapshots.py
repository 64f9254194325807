"""The coordinator's snapshots: a start knows from them and the rest of `__cluster` what all of it led to. Source: KIP-630."""

from __future__ import annotations

import errno
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.unit.drive import exit_of
from tests.unit.drive_cluster_snapshots import BROKER, DATA, DIRECTORY, NEWCOMER, World, new_coordinator
from tests.unit.log_tools import perform
from tests.unit.memory_disk import PowerCut
from zafka.actors import cluster_snapshot, cluster_state as cs, messages
from zafka.actors.actor import Flush, Now, Peer, PeerGone, Send
from zafka.actors.cluster_log import replay
from zafka.actors.cluster_snapshot import sections_of, state_from
from zafka.actors.coordinator import build
from zafka.actors.start import COORDINATOR_DISK_FAULT, CoordinatorStart
from zafka.storage.errors import CorruptSnapshot
from zafka.storage.segment import LOG_SUFFIX
from zafka.storage.snapshot import find_replacing, read_point, read_sections

SEEDS = range(12)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_a_start_knows_what_all_of_the_log_led_to(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills and power cuts at any call of the disk, clean stops, a newest snapshot that rots, sections of three topics."""
    monkeypatch.setattr(cluster_snapshot, "ENTRIES_PER_SECTION", 6)
    print(f"seed {seed}")
    world = World(
        seed, snapshot_records=(1, 3, 10, 25)[seed % 4], segment_bytes=(700, 2000, 1 << 20)[seed % 3],
        checkpoint_batches=(3, 1000)[seed % 2])
    for life in range(9):
        world.disk.calls_left = world.random.randrange(30, 900) if life % 3 else None
        try:
            world.start()
            for _ in range(world.random.randrange(10, 60)):
                world.step()
            world.stop()
        except PowerCut:
            pass
        world.die()
    world.start()
    world.read_from_the_start()
    assert world.from_snapshot and world.told_snapshot and world.compared
    assert world.actor.replica.log.start_offset > 0


def test_the_cases_are_there() -> None:
    """What the seeds above are to see is seen by one of them: a start from the older of two snapshots."""
    fallbacks = 0
    for seed in range(30, 36):
        world = World(seed, snapshot_records=3, segment_bytes=700)
        for _ in range(4):
            world.start()
            for _ in range(12):
                world.claim()
                world.wait()
            world.create()
            world.die()
        fallbacks += world.fallbacks
    assert fallbacks


def grown(count: int = 60, **sizes: int) -> World:
    """So many events, most of them of leaders."""
    world = World(0, **{"snapshot_records": 10, "segment_bytes": 700, **sizes})
    world.start()
    world.create()
    grow(world, count)
    return world


def grow(world: World, count: int) -> None:
    while world.offset < count:
        world.claim()
        world.take(world.drive.pass_time(0.1))
        world.settle()


def refusal(world: World) -> str:
    start = CoordinatorStart(
        data_dir=str(DATA), cluster="demo", brokers=[(1, "")], defaults={}, topics=[], cluster_id="")
    end = exit_of(build(start, world.disk, Now(100.0, 0), lambda: None).on_start(Now(100.0, 0)))
    assert end is not None and end.code == COORDINATOR_DISK_FAULT
    return end.reason


def test_two_are_kept_and_the_log_begins_at_the_older_one() -> None:
    world = grown(80)
    log, snapshots = world.actor.replica.log, world.actor.cluster_log.snapshots
    names = find_replacing(world.disk, DIRECTORY)
    points = [read_point(world.disk, DIRECTORY, name) for name in names]
    assert [point and point.offset for point in points] == snapshots.kept[::-1] and len(names) == 2
    assert log.start_offset == snapshots.kept[0] >= 80 - 3 * 12
    files = [name for name in world.disk.list_directory(DIRECTORY) if name.endswith(LOG_SUFFIX)]
    assert len(files) == len(log.segments) and log.segments[0].end_offset > log.start_offset >= log.segments[0].base_offset

    world.disk.crash()
    world.start()
    snapshots = world.actor.cluster_log.snapshots
    found = snapshots.offset
    while snapshots.offset == found and world.offset < found + 50:
        grow(world, world.offset + 1)
    kept = snapshots.kept
    assert kept[0] == found < kept[1] and len(find_replacing(world.disk, DIRECTORY)) == 2, "the one that was found counts"


def answer(world: World, offset: int) -> object:
    """What a broker is told that reads from there on."""
    (told,) = (each.body for each in world.drive.send(NEWCOMER, messages.ReadCluster(offset))
               if isinstance(each, Send) and each.to == NEWCOMER)
    return told


def test_who_begins_or_fell_behind_the_start_is_given_the_newest_and_the_others_the_log() -> None:
    world = grown(15)
    (offset,) = world.actor.cluster_log.snapshots.kept
    assert world.actor.replica.log.start_offset == 0, "one alone replaces nothing yet"
    begun = answer(world, 0)
    assert isinstance(begun, messages.ClusterSnapshot) and begun.next_offset == offset
    assert isinstance(answer(world, 1), messages.ClusterRecords)

    world = grown(80)
    start, snapshots = world.actor.replica.log.start_offset, world.actor.cluster_log.snapshots
    behind = answer(world, start - 1)
    assert isinstance(behind, messages.ClusterSnapshot) and behind.next_offset == snapshots.offset > start
    assert isinstance(answer(world, start), messages.ClusterRecords)


def test_the_file_of_one_that_is_given_up_stays_open_until_its_flush_is_over() -> None:
    world = grown(60)
    snapshots = world.actor.cluster_log.snapshots
    snapshots.abandon()
    closed: list[Path] = []
    close = world.disk.close
    world.disk.close = lambda file: (closed.append(file.path), close(file))[1]  # type: ignore[method-assign]
    snapshots.begin(iter([(b"one", 1), (b"two", 1)]))
    (flush, _) = snapshots.on_turn_end(Now(1000.0, 0))
    assert isinstance(flush, Flush)
    snapshots.abandon()
    assert flush.files[0].path not in closed
    assert snapshots.on_flushed(flush.token)
    assert flush.files[0].path in closed


def test_the_late_end_of_a_broker_is_not_that_of_its_successor() -> None:
    world = grown(15)
    successor = Peer(NEWCOMER.name, NEWCOMER.incarnation + 1)
    world.drive.send(successor, messages.ReadCluster(world.offset))
    world.drive.send(BROKER, PeerGone(NEWCOMER))
    told = world.drive.send(BROKER, messages.AllocateProducerIds(1, 1))
    while world.drive.flushes:
        perform(world.disk, world.drive.flushes[0])
        told += world.drive.flush()
    assert [each.body for each in told if isinstance(each, Send) and each.to == successor]


def test_a_replay_may_begin_in_the_middle_of_a_batch() -> None:
    """If the log was recovered by hand; and it says that it goes on."""
    world = grown(15)
    world.send(messages.CreateTopics(1, [messages.NewTopic(name, 2, 1, {}) for name in "abc"]))
    replica, told = world.actor.replica, []
    for offset in range(replica.log.start_offset, replica.log.end_offset):
        applied = Mock()
        replay(applied, replica, lambda: told.append(1), from_offset=offset)
        assert applied.apply.call_count == replica.log.end_offset - offset
    assert told


def test_a_state_that_is_read_anew_ends_the_snapshot_of_the_one_before() -> None:
    world = grown(30)
    snapshots = world.actor.cluster_log.snapshots
    assert snapshots.is_busy
    world.actor.cluster_log.read_state()
    assert not snapshots.is_busy


def test_of_one_that_rots_nothing_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor of the sections before the one that is damaged."""
    monkeypatch.setattr(cluster_snapshot, "ENTRIES_PER_SECTION", 3)
    world = grown(80)
    newest, older = find_replacing(world.disk, DIRECTORY)
    assert len(list(read_sections(world.disk, DIRECTORY, newest))) > 1
    world.disk.flip_bit(DIRECTORY / newest, len(world.disk.read(DIRECTORY / newest)) - 1)

    def take(state: list[bytes], section: bytes) -> int:
        state.append(section)
        return 1

    taken = world.actor.cluster_log.snapshots.load(list, take, lambda: None)
    assert taken == list(read_sections(world.disk, DIRECTORY, older))


def test_a_disk_that_fails_is_not_taken_for_a_full_one(monkeypatch: pytest.MonkeyPatch) -> None:
    world = grown(30)
    snapshots = world.actor.cluster_log.snapshots
    snapshots.abandon()
    snapshots.begin(iter([(b"one", 1)]))
    monkeypatch.setattr(world.disk, "pwritev", Mock(side_effect=OSError(errno.EIO, "it fails")))
    with pytest.raises(OSError, match="it fails"):
        snapshots.on_turn_end(Now(1000.0, 0))


def test_a_segment_goes_when_the_log_begins_right_behind_it() -> None:
    world = grown(80)
    log = world.actor.replica.log
    log.delete_records(log.segments[1].base_offset)
    for _ in range(3):
        world.claim()
    assert log.segments[0].base_offset == log.start_offset


def test_a_start_replays_only_what_came_after(monkeypatch: pytest.MonkeyPatch) -> None:
    world = grown(105, snapshot_records=50)
    offset = world.actor.cluster_log.snapshots.offset
    world.disk.crash()
    applied = 0
    apply = cs.ClusterState.apply

    def count(state: cs.ClusterState, event: cs.AnyEvent) -> None:
        nonlocal applied
        applied += 1
        apply(state, event)

    monkeypatch.setattr(cs.ClusterState, "apply", count)
    actor = new_coordinator(world.disk, Now(100.0, 0))
    assert offset >= 50 and applied == actor.replica.log.end_offset - offset


def test_a_clean_stop_leaves_one_if_the_next_start_is_the_faster_for_it() -> None:
    world = grown(60, snapshot_records=1000)
    assert not find_replacing(world.disk, DIRECTORY)
    world.stop()
    world.disk.crash()
    (name,) = find_replacing(world.disk, DIRECTORY)
    point = read_point(world.disk, DIRECTORY, name)
    assert point is not None and point.offset == world.offset


def test_one_that_rotted_costs_time_and_two_of_them_the_cluster() -> None:
    world = grown(80)
    known, newest = world.known, find_replacing(world.disk, DIRECTORY)[0]
    world.disk.crash()
    world.disk.flip_bit(DIRECTORY / newest, 100)
    world.start()
    assert world.fallbacks == 0 and world.actor.cluster_log.snapshots.offset < int(newest[:20])
    assert {id: topic.partitions[0].leader_epoch for id, topic in world.known.topics_by_id.items()} == {
        id: topic.partitions[0].leader_epoch for id, topic in known.topics_by_id.items()}
    world.disk.crash()
    for name in find_replacing(world.disk, DIRECTORY):
        world.disk.flip_bit(DIRECTORY / name, 101)
    assert "no snapshot tells what was before" in refusal(world)


def test_one_that_rots_after_it_was_read_is_told_to_nobody() -> None:
    """The coordinator fails, and its successor goes by the one before."""
    world = grown(80)
    world.disk.flip_bit(DIRECTORY / find_replacing(world.disk, DIRECTORY)[0], 100)
    with pytest.raises(CorruptSnapshot):
        world.read_from_the_start()
    world.disk.crash()
    world.start()
    world.read_from_the_start()


def test_a_full_disk_puts_it_off() -> None:
    world = grown(60)
    before = find_replacing(world.disk, DIRECTORY)
    world.actor.cluster_log.snapshots.abandon()
    world.disk.room_bytes = 0
    world.claim()
    world.take(world.drive.pass_time(3.0))
    world.settle()
    assert find_replacing(world.disk, DIRECTORY) == before
    world.disk.room_bytes = None
    world.take(world.drive.pass_time(3.0))
    world.settle()
    end = world.offset
    while find_replacing(world.disk, DIRECTORY) == before:
        world.claim()
        world.take(world.drive.pass_time(0.1))
        world.settle()
        assert world.offset < end + 30


def test_no_turn_does_more_than_one_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_snapshot, "ENTRIES_PER_SECTION", 3)
    world = grown(9, snapshot_records=20)
    for name in ("a", "b", "c", "d", "e"):
        world.send(messages.CreateTopics(1, [messages.NewTopic(name, 2, 1, {})]))
    world.claim()
    turns = 0
    world.claim()
    while world.actor.cluster_log.snapshots.is_busy:
        turns += 1
        world.allocate()  # answered meanwhile
        world.take(world.drive.pass_time(0.021))
        world.settle()
    assert turns > 6 and find_replacing(world.disk, DIRECTORY)


# -- what stands in it ---------------------------------------------------------------------------


def full_state() -> cs.ClusterState:
    """Something of everything that an event can bring about."""
    topic, gone = b"t" * 16, b"g" * 16
    state = cs.ClusterState()
    for event in (
        cs.ClusterCreated("abc"), cs.BrokerRegistered(1, 4, "a", [messages.Endpoint("k", "kafka", "h", 9092)]),
        cs.TopicCreated(topic, "orders", [[1], [1]], {"retention.ms": "5"}, declared=True),
        cs.TopicCreated(gone, "gone", [[1]]), cs.TopicDeleted(gone), cs.PartitionsAdded(topic, [[1]]),
        cs.LeaderChanged(topic, 1, 1, 3, 2, [1], 77), cs.ReplicaFaulted(topic, 0, 1, 4096, "EIO"),
        cs.ReplicaRecovered(topic, 2, 1, "4f"), cs.ClusterLogRecovered("77", 2, 2000), cs.ProducerIdsAllocated(3000, 1000),
        cs.QuotaChanged((("client-id", None), ("user", "ann")), {"request_percentage": 2.5}),
        cs.ScramCredentialChanged("ann", 1, cs.ScramCredential(b"s", b"k", b"v", 4096)),
        cs.ResourceConfigChanged(4, "", {"log.retention.ms": "9"}, {"log.retention.ms": "8"}),
    ):
        state.apply(event)
    return state


def test_it_tells_all_of_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_snapshot, "ENTRIES_PER_SECTION", 2)
    state = full_state()
    assert all(vars(state).values()), "something of everything"
    sections = sections_of(state)
    assert len(sections) == 3 and sum(count for _, count in sections) == 11
    again = state_from(section for section, _ in sections)
    assert vars(again) == vars(state)
    assert again.ever_had(b"g" * 16) and again.ever_had(b"t" * 16) and not again.ever_had(b"x" * 16)


def test_a_section_holds_so_many_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_snapshot, "ENTRIES_PER_SECTION", 6)
    state = cs.ClusterState()
    for number in range(7):
        state.apply(cs.TopicCreated(bytes([number]) * 16, f"t{number}", [[1]]))
    assert [entries for _, entries in sections_of(state)] == [1, 6, 6, 2]


def test_what_is_no_section_is_said_so() -> None:
    data = sections_of(full_state())[0][0]
    for damaged in (b"", b"\xc1", data[:-1], data + b"\0", data.replace(b"abc", b"\xff\xfe\xfd"), b"\x91" * 100_000, cluster_snapshot._encoder.encode({"deleted": b"short"}),
                    cluster_snapshot._encoder.encode({"more": 1})):
        with pytest.raises(CorruptSnapshot):
            cluster_snapshot.restore(cs.ClusterState(), damaged)
