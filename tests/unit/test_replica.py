"""What partitions and the coordinator share: epochs, the high watermark, flushes one after the other, the directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.disks import ClosingDisk
from tests.unit.log_tools import make_batch
from zafka.actors import replica as module
from zafka.actors.actor import Flush, Now, SetTimer
from zafka.actors.replica import FLUSH_TIMER, Replica, Role, open_replica
from zafka.storage.config import parse_config
from zafka.storage.directory import open_partition_directory
from zafka.storage.errors import BadBatch, CorruptLog, DirectoryLocked, ForeignTopic

NOW = Now(10.0, 1_700_000_000_000)
TOPIC_ID = bytes(range(16))


def opened(path: Path, topic_id: bytes = TOPIC_ID, **config: str) -> Replica[str]:
    settings = parse_config({key.replace("_", "."): value for key, value in config.items()})
    return open_replica(path / "orders-0", topic_id, settings, ClosingDisk(), NOW, lambda: None)


def append(replica: Replica[str], word: str, value: bytes = b"v") -> None:
    """Append a batch and let a word wait for it."""
    replica.append([make_batch([value])], NOW.wall_ms)
    replica.wait(word)


def flush_of(replica: Replica[str]) -> Flush:
    (flush,) = replica.flush_effects(NOW)
    assert isinstance(flush, Flush)
    return flush


@pytest.fixture
def leader(tmp_path: Path) -> Replica[str]:
    replica = opened(tmp_path)
    assert replica.become_leader(0)
    return replica


def test_what_waits_comes_back_in_order_once_it_is_flushed(leader: Replica[str]) -> None:
    append(leader, "a")
    append(leader, "b")
    first = flush_of(leader)
    append(leader, "c")
    assert leader.commit() == [] and leader.flush_effects(NOW) == []  # one at a time
    leader.on_flushed(first.token)
    assert leader.commit() == ["a", "b"] and leader.high_watermark == 2
    leader.on_flushed(flush_of(leader).token)
    assert leader.commit() == ["c"] and leader.commit() == []
    assert leader.flush_effects(NOW) == []


def test_what_waits_for_nothing_new_comes_back_at_once(leader: Replica[str]) -> None:
    leader.wait("now")
    assert leader.commit() == ["now"]


def test_what_was_given_up_does_not_come_back(leader: Replica[str]) -> None:
    append(leader, "a")
    flush = flush_of(leader)
    leader.abandon()
    leader.on_flushed(flush.token)
    assert leader.commit() == [] and leader.high_watermark == 1


def test_only_a_newer_epoch_makes_a_leader(tmp_path: Path) -> None:
    replica = opened(tmp_path)
    assert (replica.role, replica.leader_epoch) == (Role.FOLLOWER, -1)
    assert replica.become_leader(3) and replica.leads
    append(replica, "a")
    assert not replica.become_leader(2) and replica.leader_epoch == 3
    assert replica.become_leader(3) and replica.epoch_start_offset == 0
    assert replica.become_leader(5) and replica.epoch_start_offset == 1 and not replica.knows_latest
    assert replica.log.leader_epochs.entries == [(3, 0), (5, 1)]
    replica.release()
    replica = opened(tmp_path)
    assert not replica.become_leader(3)  # led by an incarnation before
    assert replica.become_leader(6)
    replica.commit()
    assert replica.knows_latest
    replica.release()


def test_who_resigned_commits_what_it_has_and_takes_no_more(leader: Replica[str]) -> None:
    append(leader, "a")
    leader.resign()
    with pytest.raises(AssertionError):
        leader.append([make_batch([b"x"])], NOW.wall_ms)
    leader.on_flushed(flush_of(leader).token)
    assert leader.commit() == ["a"]
    assert leader.become_leader(1)


def test_an_interval_is_a_timer_that_is_set_once(tmp_path: Path) -> None:
    replica = opened(tmp_path, fsync="interval", flush_ms="250")
    replica.become_leader(0)
    append(replica, "a")
    assert replica.commit() == ["a"]
    assert replica.flush_effects(NOW) == [SetTimer(FLUSH_TIMER, 10.25)]
    append(replica, "b")
    assert replica.flush_effects(NOW) == []
    replica.on_flush_timer()
    replica.on_flushed(flush_of(replica).token)
    assert replica.log.flushed_offset == 2 and replica.flush_effects(NOW) == []
    replica.release()


def test_committed_batches_are_read_whole(leader: Replica[str]) -> None:
    append(leader, "a", bytes(100))
    append(leader, "b", bytes(100))
    records, next_offset = leader.read(0, 1, limit_offset=2)
    assert next_offset == 1 and bytes(records[16:]) == bytes(make_batch([bytes(100)])[1][16:])
    assert leader.read(0, 10_000, limit_offset=2)[1] == 2
    assert leader.read(1, 10_000, limit_offset=2)[1] == 2


def test_damaged_batches_are_not_handed_out(leader: Replica[str]) -> None:
    append(leader, "a", bytes(100))
    path = leader.log.segments[0].path
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadBatch):
        leader.read(0, 10_000, limit_offset=1)


def test_a_directory_is_waited_for_and_heartbeats_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The predecessor may die slowly: its lock goes with it."""
    predecessor = open_partition_directory(tmp_path / "orders-0", TOPIC_ID)
    heartbeats = 0

    def progress() -> None:
        nonlocal heartbeats
        heartbeats += 1
        if heartbeats == 3:
            predecessor.close()

    monkeypatch.setattr(module, "LOCK_RETRY_S", 0)
    replica = open_replica(tmp_path / "orders-0", TOPIC_ID, parse_config({}), ClosingDisk(), NOW, progress)
    assert heartbeats >= 3
    replica.release()


def test_a_directory_that_stays_locked_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_RETRY_S", 0)
    other = opened(tmp_path)
    with pytest.raises(DirectoryLocked, match="orders-0"):
        opened(tmp_path)
    other.release()
    opened(tmp_path).release()


def test_the_log_of_another_topic_is_not_opened(tmp_path: Path) -> None:
    opened(tmp_path).release()
    with pytest.raises(ForeignTopic):
        opened(tmp_path, topic_id=bytes(16))
    opened(tmp_path).release()


def test_a_log_that_cannot_be_recovered_is_let_go(tmp_path: Path) -> None:
    replica = opened(tmp_path)
    replica.become_leader(0)
    append(replica, "a")
    replica.close()
    while not replica.closed:
        replica.on_flushed(flush_of(replica).token)
    path = replica.log.segments[0].path
    path.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(CorruptLog):
            opened(tmp_path)


def test_a_closed_replica_leads_no_more(leader: Replica[str]) -> None:
    leader.close()
    assert not leader.become_leader(7) and not leader.leads
    while not leader.closed:
        leader.on_flushed(flush_of(leader).token)
    assert leader.flush_effects(NOW) == []
    assert repr(leader) == "follower epoch=0 end=0 hw=0"
