"""A partition whose disk fails a flush, lost what it had, or is somebody else's: offline, and says why."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from tests.unit.disks import ClosingDisk, RefusingDisk
from tests.unit.drive import bodies, exit_of, only
from tests.unit.drive_partition import BROKER, NOW_MS, SUPERVISOR, TOPIC_ID, Partition, batch, errors
from zafka.actors.actor import Exit, PeerGone, Send
from zafka.actors.messages import (
    ActorUp,
    BecomeLeader,
    DeleteRecords,
    DescribeLog,
    DescribeProducers,
    DiskFault,
    FindEpochEnd,
    Ready,
    ReplicaUp,
    Serving,
)
from zafka.actors.offline import OfflinePartition
from zafka.storage.fault import Recovered, write_recovered
from zafka.transport.kafka.errors import ErrorCode


@pytest.fixture
def leader(tmp_path: Path) -> Partition:
    partition = Partition(tmp_path, {})
    partition.lead()
    partition.auto_flush = False
    return partition


def test_a_failed_flush_ends_the_actor_and_nothing_waits_for_better_times(leader: Partition) -> None:
    leader.produce(batch())
    leader.flush()
    position = leader.partition.replica.log.size_bytes
    leader.produce(batch())
    fault, end = leader.fail_flush("Input/output error")
    assert fault == Send(BROKER, DiskFault(TOPIC_ID, 0, position, "flush failed: Input/output error"))
    assert isinstance(end, Exit) and end.code != 0 and "Input/output error" in end.reason


def test_after_a_failed_flush_the_next_incarnation_serves_nothing_and_says_why(leader: Partition) -> None:
    leader.produce(batch())
    leader.fail_flush("Input/output error")
    offline = Partition(leader.directory.parent, {})
    assert isinstance(offline.actor, OfflinePartition)
    assert offline.start() == [Send("supervisor", Ready())]
    effects = offline.link(BROKER)
    assert "Input/output error" in only(effects, ReplicaUp).fault
    assert only(effects, DiskFault).topic_id == TOPIC_ID
    assert offline.send(BROKER, BecomeLeader(1, {})) == []
    assert errors(offline.produce(batch())) == [ErrorCode.KAFKA_STORAGE_ERROR]
    assert offline.locate(0).error == ErrorCode.KAFKA_STORAGE_ERROR
    assert offline.list_offset(-1).error == ErrorCode.KAFKA_STORAGE_ERROR
    for question in (FindEpochEnd(7, 0, -1), DeleteRecords(7, -1), DescribeProducers(7), DescribeLog(7)):
        [answer] = offline.send(BROKER, question)
        assert isinstance(answer, Send) and answer.body.error == ErrorCode.KAFKA_STORAGE_ERROR
    assert "offline: flush failed" in repr(offline.actor)
    offline.stop()


def test_a_flush_that_fails_in_recovery_is_not_tried_again_either(tmp_path: Path) -> None:
    """The page cache shows what was never written, and the next fdatasync may well succeed."""
    disk = RefusingDisk()
    partition = Partition(tmp_path, {}, disk=disk)
    partition.lead()
    partition.produce(batch())
    partition.partition.replica.release()  # killed
    disk.refuses_flush = True
    offline = Partition(tmp_path, {}, disk=disk)
    assert isinstance(offline.actor, OfflinePartition)
    disk.refuses_flush = False
    offline = Partition(tmp_path, {}, disk=disk)
    offline.start()
    effects = offline.link(BROKER)
    assert "Input/output error" in only(effects, DiskFault).reason
    assert "zafka log recover orders-0" in only(effects, ReplicaUp).fault


def test_a_disk_that_takes_no_marker_is_reported_all_the_same(tmp_path: Path) -> None:
    disk = RefusingDisk()
    partition = Partition(tmp_path, {}, disk=disk)
    partition.auto_flush = False
    partition.lead()
    partition.produce(batch())
    disk.refuses_create = True
    fault, end = partition.fail_flush("Input/output error")
    assert isinstance(fault, Send) and isinstance(fault.body, DiskFault)
    assert isinstance(end, Exit) and end.code != 0


def test_another_topics_directory_is_left_alone_and_nothing_of_it_is_remembered(tmp_path: Path) -> None:
    partition = Partition(tmp_path, {})
    partition.lead()
    partition.stop()
    metadata = partition.directory / "partition.metadata"
    ours = metadata.read_text()
    metadata.write_text("version: 0\ntopic_id: " + "A" * 22)
    offline = Partition(tmp_path, {})
    offline.start()
    effects = offline.link(BROKER)
    assert "belongs to topic id AAAAAAAAAAAAAAAAAAAAAA" in only(effects, ReplicaUp).fault
    assert not bodies(effects, DiskFault)
    metadata.write_text(ours)
    assert Partition(tmp_path, {}).partition


def test_an_offline_replica_links_anew_when_mail_from_its_broker_was_lost(leader: Partition) -> None:
    leader.produce(batch())
    leader.fail_flush("Input/output error")
    offline = Partition(leader.directory.parent, {})
    offline.start()
    assert offline.send(SUPERVISOR, ActorUp("broker 2", 1, "")) == []
    assert exit_of(offline.send(BROKER, PeerGone(BROKER))) is not None


def test_damage_that_a_reader_meets_is_named_and_the_rest_is_served(leader: Partition) -> None:
    for i, value in enumerate((b"a", b"b", b"c")):
        leader.produce(batch(value, timestamp=NOW_MS + i))
        leader.flush()
    (log,) = leader.directory.glob("*.log")
    data = bytearray(log.read_bytes())
    data[len(data) // 3 + 16] = 0  # the second batch's magic byte
    log.write_bytes(bytes(data))
    assert leader.locate(0, max_bytes=1).error == 0
    assert leader.locate(2).error == ErrorCode.CORRUPT_MESSAGE
    assert leader.list_offset(NOW_MS + 2).error == ErrorCode.CORRUPT_MESSAGE


def test_a_recovery_by_hand_is_told_to_the_broker(tmp_path: Path) -> None:
    partition = Partition(tmp_path, {})
    partition.lead()
    partition.stop()
    disk = ClosingDisk()
    done = Recovered("4f2a", 0, "EIO", [(3, 5)], 0, 0, 9)
    for finished in (False, True):
        write_recovered(disk, partition.directory, msgspec.structs.replace(done, finished=finished))
        again = Partition(tmp_path, {})
        again.start()
        assert only(again.link(BROKER), ReplicaUp).recovered == ("4f2a" if finished else "")
        again.stop()


def test_a_log_that_lost_flushed_bytes_is_offline(tmp_path: Path) -> None:
    partition = Partition(tmp_path, {})
    partition.lead()
    partition.produce(batch(bytes(1000)))
    partition.stop()
    (log,) = partition.directory.glob("*.log")
    log.write_bytes(log.read_bytes()[:500])
    offline = Partition(tmp_path, {})
    assert isinstance(offline.actor, OfflinePartition) and log.name in offline.actor.fault


def test_a_directory_that_is_gone_is_not_taken_for_a_new_one(leader: Partition) -> None:
    leader.produce(batch())
    leader.flush()
    leader.auto_flush = True
    leader.stop()
    shutil.rmtree(leader.directory)
    successor = Partition(leader.directory.parent, {})
    fault, end = successor.lead(epoch=1)[-2:]
    assert isinstance(fault, Send) and isinstance(fault.body, DiskFault) and "what it held is gone" in fault.body.reason
    assert isinstance(end, Exit) and end.code != 0
    successor.partition.replica.release()
    assert isinstance(Partition(leader.directory.parent, {}).actor, OfflinePartition)


def test_a_directory_that_was_made_and_never_led_is_no_loss(tmp_path: Path) -> None:
    Partition(tmp_path, {}).partition.replica.release()
    assert bodies(Partition(tmp_path, {}).lead(epoch=3), Serving)
