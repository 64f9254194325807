"""DeleteRecords: the log begins further on, for good, and the broker passes questions and answers on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.unit.broker_bench import Bench, advanced
from tests.unit.disks import FullableDisk
from tests.unit.drive import bodies
from tests.unit.drive_partition import BROKER, Partition, batch
from tests.unit.log_tools import NO_LIMIT, NOW_MS, append, fill, flush, make_batch, read_records, small_config
from tests.unit.memory_disk import MemoryDisk
from zafka.actors.actor import Effect, Peer
from zafka.actors.messages import Advanced, DeleteRecords, RecordsDeleted
from zafka.storage.checkpoint import read_checkpoint
from zafka.storage.errors import OffsetOutOfRange
from zafka.storage.log import Log
from zafka.storage.recovery import recover
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
)

DIRECTORY = Path("/data/orders-0")
DELAY_S = 1.0
CONFIG = {"internal.segment.bytes": "400", "file.delete.delay.ms": "1000"}

# -- the log -------------------------------------------------------------------------------------


def open_log(disk: MemoryDisk, **config: Any) -> Log:
    return recover(disk, DIRECTORY, small_config(segment_bytes=600, **config), NOW_MS)[0]


def test_the_start_moves_once_a_checkpoint_on_disk_says_so() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    fill(log, 10)
    flush(disk, log)
    log.delete_records(7)
    assert log.start_offset == 0 and log.flush_due
    wanted = log.begin_flush()
    while wanted is not None:
        assert log.start_offset == 0
        for file in wanted.files:
            disk.fdatasync(file)
        for path in wanted.directories:
            disk.fsync_dir(path)
        wanted = log.on_flushed(wanted.token)
    assert log.start_offset == 7
    checkpoint = read_checkpoint(disk, DIRECTORY)
    assert checkpoint is not None and checkpoint.log_start_offset == 7
    with pytest.raises(OffsetOutOfRange):
        log.locate(6, 100, NO_LIMIT)
    assert log.locate(7, 100, NO_LIMIT).length  # in the middle of a batch, as in Kafka
    assert log.offset_for_timestamp(0).offset == 7  # type: ignore[union-attr]


def test_epochs_that_ended_below_the_start_are_forgotten() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    for epoch in range(4):
        append(log, make_batch([b"x", b"y"]), leader_epoch=epoch)
    flush(disk, log)
    log.delete_records(5)
    flush(disk, log)
    assert log.leader_epochs.entries == [(2, 5), (3, 6)]


@pytest.mark.parametrize("seed", range(20))
def test_neither_kill_nor_power_cut_brings_deleted_records_back(seed: int) -> None:
    disk = MemoryDisk(seed)
    log = open_log(disk)
    fill(log, 10)
    flush(disk, log)
    log.delete_records(8)
    flush(disk, log)
    log.apply_retention(NOW_MS, NO_LIMIT)
    disk.power_cut() if seed % 2 else disk.crash()
    log = open_log(disk)
    assert (log.start_offset, log.end_offset) == (8, 20)
    assert [record.offset for record in read_records(disk, log)] == list(range(8, 20))


def test_segments_below_the_start_go_and_the_last_one_when_it_is_all_below() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    fill(log, 10)
    flush(disk, log)
    count = len(log.segments)
    log.delete_records(log.end_offset)
    flush(disk, log)
    assert log.start_offset == log.end_offset == 20
    log.apply_retention(NOW_MS, NO_LIMIT)
    assert 1 < len(log.segments) < count
    flush(disk, log)
    log.apply_retention(NOW_MS, NO_LIMIT)
    assert len(log.segments) == 1 and log.size_bytes == 0
    log = open_log(disk)
    assert (log.start_offset, log.end_offset) == (20, 20)


def test_a_kill_between_the_new_start_and_the_checkpoint_of_the_next_segment() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    fill(log, 1)
    flush(disk, log)
    log.delete_records(2)
    flush(disk, log)
    log.apply_retention(NOW_MS, NO_LIMIT)  # begins the next segment; no checkpoint names it yet
    assert [segment.base_offset for segment in log.segments] == [0, 2]
    disk.crash()
    log = open_log(disk)
    assert (log.start_offset, log.end_offset) == (2, 2)


def test_going_back_changes_nothing() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    fill(log, 5)
    log.delete_records(6)
    flush(disk, log)
    log.delete_records(3)
    assert not log.flush_due
    flush(disk, log)
    assert log.start_offset == 6


def test_a_full_disk_puts_it_off_and_whole_segments_go_all_the_same() -> None:
    disk = MemoryDisk()
    log = open_log(disk, retention_ms=-1)
    fill(log, 10)
    flush(disk, log)
    disk.room_bytes = 0
    log.delete_records(15)
    flush(disk, log)
    assert log.checkpoint_error is not None and log.start_offset == 0
    paths = log.apply_retention(NOW_MS, NO_LIMIT)
    assert paths and 0 < log.start_offset <= 15
    flush(disk, log)
    log.unlink_deleted(paths)
    assert disk.room_bytes > 0 and log.flush_due
    flush(disk, log)
    assert log.start_offset == 15


# -- the partition -------------------------------------------------------------------------------


@pytest.fixture
def partition(tmp_path: Path) -> Partition:
    partition = Partition(tmp_path, CONFIG)
    partition.lead()
    for _ in range(10):
        partition.produce(batch(b"x" * 100, b"y"))
    return partition


def delete(partition: Partition, offset: int) -> list[Effect]:
    partition.next_id += 1
    return partition.send(BROKER, DeleteRecords(partition.next_id, offset))


def outcome(effects: list[Effect]) -> list[tuple[int, int]]:
    return [(answer.error, answer.log_start_offset) for answer in bodies(effects, RecordsDeleted)]


def test_readers_learn_the_new_start_before_the_admin_does(partition: Partition) -> None:
    partition.auto_flush = False
    effects = delete(partition, 7)
    flushes = 0
    while not bodies(effects, RecordsDeleted):
        assert not bodies(effects, Advanced)
        effects = partition.flush()
        flushes += 1
    assert flushes == 3  # data, checkpoint, its name
    kinds = [type(effect.body) for effect in effects if hasattr(effect, "body")]
    assert kinds == [Advanced, RecordsDeleted]
    assert bodies(effects, Advanced)[0].log_start_offset == 7
    assert outcome(effects) == [(0, 7)]
    assert partition.locate(6).error == ErrorCode.OFFSET_OUT_OF_RANGE
    assert partition.list_offset(-2).offset == 7


def test_minus_1_is_the_high_watermark_and_what_is_gone_already_is_answered_at_once(partition: Partition) -> None:
    assert outcome(delete(partition, 5)) == [(0, 5)]
    partition.auto_flush = False
    assert outcome(delete(partition, 3)) == [(0, 5)]
    assert not partition.flushes
    partition.auto_flush = True
    assert outcome(delete(partition, -1)) == [(0, 20)]
    assert outcome(delete(partition, 20)) == [(0, 20)]


@pytest.mark.parametrize("offset", [-2, 21, 2**62])
def test_offsets_that_are_not_there_are_out_of_range(partition: Partition, offset: int) -> None:
    assert outcome(delete(partition, offset)) == [(ErrorCode.OFFSET_OUT_OF_RANGE, -1)]


def test_records_of_a_compacted_topic_are_not_deleted_by_offset(partition: Partition) -> None:
    log = partition.partition.replica.log
    log.update_config(dataclasses.replace(log.config, cleanup_policy=("compact",)))
    assert outcome(delete(partition, 1)) == [(ErrorCode.POLICY_VIOLATION, -1)]
    log.update_config(dataclasses.replace(log.config, cleanup_policy=("compact", "delete")))
    assert outcome(delete(partition, 1)) == [(0, 1)]


def test_who_does_not_lead_says_so(tmp_path: Path) -> None:
    partition = Partition(tmp_path, CONFIG)
    partition.start()
    partition.link(BROKER)
    assert outcome(delete(partition, 0)) == [(ErrorCode.NOT_LEADER_OR_FOLLOWER, -1)]


def test_the_start_survives_a_kill_and_the_files_go(partition: Partition, tmp_path: Path) -> None:
    delete(partition, 15)
    partition.pass_time(2)
    partition.pass_time(2)
    names = [path.name for path in (tmp_path / "orders-0").iterdir() if ".log" in path.name]
    assert 0 < len(names) < 6 and not any("deleted" in name for name in names)
    partition.partition.replica.release()  # killed
    again = Partition(tmp_path, CONFIG)
    effects = again.lead(1)
    assert bodies(effects, Advanced)[0].log_start_offset == 15
    assert again.list_offset(-2).offset == 15


def test_dropped_files_go_when_their_time_has_come_each_in_its_turn(partition: Partition, tmp_path: Path) -> None:
    def dropped() -> int:
        return sum("deleted" in path.name and ".log" in path.name for path in (tmp_path / "orders-0").iterdir())

    delete(partition, 6)
    first = dropped()
    partition.pass_time(DELAY_S / 2)
    delete(partition, 12)
    both = dropped()
    assert 0 < first < both
    partition.pass_time(DELAY_S / 2)
    assert dropped() == both - first, "readers in the middle of the later ones have as long"
    partition.pass_time(DELAY_S / 2)
    assert dropped() == 0


def test_a_full_disk_is_said_and_a_later_try_succeeds(partition: Partition) -> None:
    disk = partition.disk
    assert isinstance(disk, FullableDisk)
    disk.full = True
    effects = delete(partition, 15)
    assert outcome(effects) == [(ErrorCode.KAFKA_STORAGE_ERROR, -1)]
    assert 0 < partition.list_offset(-2).offset <= 15
    disk.full = False
    assert outcome(delete(partition, 15)) == [(0, 15)]
    assert partition.list_offset(-2).offset == 15


def test_a_deletion_that_found_the_disk_full_is_done_when_it_made_room(partition: Partition) -> None:
    disk = partition.disk
    assert isinstance(disk, FullableDisk)
    disk.full = True
    assert outcome(delete(partition, 15)) == [(ErrorCode.KAFKA_STORAGE_ERROR, -1)]
    disk.full = False
    partition.pass_time(2)  # dropped files are unlinked, which has a checkpoint written
    assert partition.list_offset(-2).offset == 15


def test_a_broker_that_is_gone_is_not_answered(partition: Partition) -> None:
    partition.auto_flush = False
    delete(partition, 7)
    partition.link(Peer("broker 1", 4))
    effects: list[Effect] = []
    while partition.flushes:
        effects += partition.flush()
    assert not bodies(effects, RecordsDeleted)
    assert bodies(effects, Advanced)[-1].log_start_offset == 7


# -- the broker ----------------------------------------------------------------------------------


def request(*wanted: tuple[str, int, int], timeout_ms: int = 5_000) -> DeleteRecordsRequest:
    topics = [DeleteRecordsTopic(name, [DeleteRecordsPartition(index, offset)]) for name, index, offset in wanted]
    return DeleteRecordsRequest(topics, timeout_ms)


def results(answer: Any) -> list[tuple[str, int, int, int]]:
    return [(topic.name, each.partition_index, each.error_code, each.low_watermark)
            for topic in answer.topics for each in topic.partitions]


@pytest.mark.parametrize("version", range(3))
def test_each_partition_answers_for_itself(tmp_path: Path, version: int) -> None:
    bench = Bench(tmp_path).start("t", "u")
    bench.create("starting")
    client = bench.client()
    client.send(ApiKey.DELETE_RECORDS, version, request(
        ("t", 0, 5), ("none", 0, 1), ("u", 0, -1), ("starting", 0, 1), ("t", 7, 1), ("__consumer_offsets", 0, 1)))
    first, second = bench.sent(DeleteRecords)
    assert (first.offset, second.offset) == (5, -1)
    bench.tell(bench.partitions["u", 0], RecordsDeleted(second.request_id, 0, 9))
    bench.tell(bench.partitions["t", 0], RecordsDeleted(first.request_id, ErrorCode.OFFSET_OUT_OF_RANGE, -1))
    (answer,) = client.answers()
    assert results(answer) == [
        ("t", 0, ErrorCode.OFFSET_OUT_OF_RANGE, -1), ("none", 0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1),
        ("u", 0, 0, 9), ("starting", 0, ErrorCode.NOT_LEADER_OR_FOLLOWER, -1),
        ("t", 7, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1),
        ("__consumer_offsets", 0, ErrorCode.INVALID_TOPIC_EXCEPTION, -1)]
    assert not len(bench.gateway.deadlines)


def test_a_partition_that_dies_or_is_silent(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    client.send(ApiKey.DELETE_RECORDS, 2, request(("t", 0, 5)))
    bench.down("t")
    assert results(client.answers()[0]) == [("t", 0, ErrorCode.NOT_LEADER_OR_FOLLOWER, -1)]
    bench.serve("t", epoch=1)
    client.send(ApiKey.DELETE_RECORDS, 2, request(("t", 0, 5), timeout_ms=1_000))
    bench.pass_time(1.1)
    assert results(client.answers()[0]) == [("t", 0, ErrorCode.REQUEST_TIMED_OUT, -1)]


def test_a_reader_below_the_new_start_is_told_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start()
    bench.create("t")
    peer = bench.serve("t", hw=20, position=2000)
    bench.tell(peer, advanced(20, 2000, start=10))
    fetch = kafka.FetchRequest(None, max_wait_ms=500, topics=[
        kafka.FetchTopic(topic="t", partitions=[kafka.FetchPartition(0, fetch_offset=5, partition_max_bytes=1000)])])
    (part,) = bench.client().ask(ApiKey.FETCH, 12, fetch).responses[0].partitions
    assert part.error_code == ErrorCode.OFFSET_OUT_OF_RANGE
