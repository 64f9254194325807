"""Idempotent producers at the partition leader (KIP-98): each batch once, in order, whatever is sent again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.disks import FullableDisk
from tests.unit.drive_partition import Partition, batch, errors, numbered, offsets
from zafka.transport.kafka.errors import ErrorCode


@pytest.fixture
def leader(tmp_path: Path) -> Partition:
    """With `fsync: always`, and flushes that end when the test says so."""
    partition = Partition(tmp_path, {"fsync": "always"})
    partition.lead()
    partition.auto_flush = False
    return partition


def test_batches_of_one_producer_in_one_turn_see_each_other(leader: Partition) -> None:
    leader.turn(leader.mail(numbered(0, 2), numbered(2)), leader.mail(numbered(3, 4)))
    assert offsets(leader.flush()) == [0, 2, 3]
    effects = leader.produce(numbered(7), numbered(9), numbered(8))
    assert errors(effects) == [ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER]  # 9 only: 8 follows 7
    assert offsets(leader.flush()) == [7, 8]


def test_a_duplicate_is_answered_with_the_first_offset_and_written_once(leader: Partition) -> None:
    leader.produce(batch(b"x", b"y"), numbered(0, 3))
    leader.flush()
    assert offsets(leader.produce(numbered(0, 3))) == [2]
    assert not leader.flushes and leader.partition.replica.log.end_offset == 5


def test_a_duplicate_is_not_answered_before_its_original_is_flushed(leader: Partition) -> None:
    leader.produce(numbered(0))
    assert leader.produce(numbered(0)) == []
    assert offsets(leader.flush()) == [0, 0]


def test_a_duplicate_in_the_turn_of_its_original_waits_with_it(leader: Partition) -> None:
    assert leader.produce(numbered(0), numbered(1), numbered(0)) == []
    assert offsets(leader.flush()) == [0, 1, 0]
    assert leader.partition.replica.log.end_offset == 2


def test_an_older_epoch_of_a_producer_is_fenced(leader: Partition) -> None:
    leader.produce(numbered(0, epoch=1))
    assert errors(leader.produce(numbered(1, epoch=0))) == [ErrorCode.INVALID_PRODUCER_EPOCH]
    assert errors(leader.produce(numbered(0, epoch=2), numbered(1, epoch=1))) == [ErrorCode.INVALID_PRODUCER_EPOCH]


def test_sequences_begin_again_behind_the_largest(leader: Partition) -> None:
    leader.produce(numbered(2**31 - 2))
    leader.flush()
    leader.produce(numbered(2**31 - 1), numbered(0), numbered(1))
    assert offsets(leader.flush()) == [1, 2, 3]


def test_producers_do_not_disturb_each_other(leader: Partition) -> None:
    leader.produce(numbered(0), numbered(0, producer_id=8), numbered(1), numbered(1, producer_id=8))
    assert offsets(leader.flush()) == [0, 1, 2, 3]


def test_a_restart_still_knows_what_each_producer_sent(tmp_path: Path) -> None:
    partition = Partition(tmp_path, {})
    partition.lead()
    partition.produce(numbered(0), numbered(1))
    partition.stop()
    partition = Partition(tmp_path, {})
    partition.lead(epoch=1)
    assert offsets(partition.produce(numbered(1), numbered(2))) == [1, 2]
    # Killed this time: rebuilt from the log.
    partition.partition.replica.release()
    partition = Partition(tmp_path, {})
    partition.lead(epoch=2)
    assert offsets(partition.produce(numbered(2), numbered(3))) == [2, 3]


@pytest.mark.parametrize("known", [False, True])
def test_what_overtook_a_batch_that_found_the_disk_full_is_refused_as_that_was(leader: Partition, known: bool) -> None:
    """A producer that the log does not know may begin with any sequence (KIP-360). And OUT_OF_ORDER_SEQUENCE_NUMBER would
    have librdkafka send again, in a new epoch, what other partitions may have written."""
    disk = leader.disk
    assert isinstance(disk, FullableDisk)
    if known:
        leader.produce(numbered(0))
        leader.flush()
    first = int(known)
    disk.full = True
    assert errors(leader.produce(numbered(first), numbered(first + 1))) == [ErrorCode.KAFKA_STORAGE_ERROR] * 2
    assert errors(leader.produce(numbered(first + 2))) == [ErrorCode.KAFKA_STORAGE_ERROR]
    disk.full = False
    assert errors(leader.produce(numbered(first + 3))) == [ErrorCode.KAFKA_STORAGE_ERROR]
    leader.produce(*[numbered(first + index) for index in range(4)])
    assert offsets(leader.flush()) == list(range(first, first + 4))
    leader.produce(numbered(5, producer_id=8))  # one that was known before our time
    assert offsets(leader.flush()) == [first + 4]
    assert errors(leader.produce(numbered(first + 7))) == [ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER]  # nothing is due any more


@pytest.mark.parametrize("known", [False, True])
def test_what_was_refused_behind_the_first_is_still_due_when_that_has_come(leader: Partition, known: bool) -> None:
    """The third was under way before the producer heard that the second was refused, too."""
    disk = leader.disk
    assert isinstance(disk, FullableDisk)
    if known:
        leader.produce(numbered(0))
        leader.flush()
    first = int(known)
    disk.full = True
    assert errors(leader.produce(numbered(first))) == [ErrorCode.KAFKA_STORAGE_ERROR]
    disk.full = False
    assert errors(leader.produce(numbered(first + 1))) == [ErrorCode.KAFKA_STORAGE_ERROR]
    leader.produce(numbered(first))
    assert offsets(leader.flush()) == [first]
    assert errors(leader.produce(numbered(first + 2))) == [ErrorCode.KAFKA_STORAGE_ERROR]
    disk.full = True
    assert errors(leader.produce(numbered(first + 1))) == [ErrorCode.KAFKA_STORAGE_ERROR]
    disk.full = False
    leader.produce(numbered(first + 1))
    assert offsets(leader.flush()) == [first + 1]
    leader.produce(numbered(first + 2), numbered(first + 3))
    assert offsets(leader.flush()) == [first + 2, first + 3]
    assert errors(leader.produce(numbered(first + 7))) == [ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER]


def test_what_an_older_epoch_has_written_is_not_what_is_due(leader: Partition) -> None:
    disk = leader.disk
    assert isinstance(disk, FullableDisk)
    for sequence in range(5):
        leader.produce(numbered(sequence))
    leader.flush()
    disk.full = True
    assert errors(leader.produce(numbered(0, epoch=1), numbered(1, epoch=1))) == [ErrorCode.KAFKA_STORAGE_ERROR] * 2
    disk.full = False
    assert errors(leader.produce(numbered(1, epoch=1))) == [ErrorCode.KAFKA_STORAGE_ERROR]


def test_a_gap_may_lie_where_sequences_begin_again(leader: Partition) -> None:
    disk = leader.disk
    assert isinstance(disk, FullableDisk)
    leader.produce(numbered(2**31 - 2))
    leader.flush()
    disk.full = True
    assert errors(leader.produce(numbered(2**31 - 1), numbered(0))) == [ErrorCode.KAFKA_STORAGE_ERROR] * 2
    disk.full = False
    leader.produce(numbered(2**31 - 1))
    assert offsets(leader.flush()) == [1]
    assert errors(leader.produce(numbered(1))) == [ErrorCode.KAFKA_STORAGE_ERROR]
    leader.produce(numbered(0), numbered(1))
    assert offsets(leader.flush()) == [2, 3]
    assert errors(leader.produce(numbered(5))) == [ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER]


def test_a_new_epoch_forgets_what_found_the_disk_full(leader: Partition) -> None:
    disk = leader.disk
    assert isinstance(disk, FullableDisk)
    leader.produce(numbered(0))
    leader.flush()
    disk.full = True
    assert errors(leader.produce(numbered(1))) == [ErrorCode.KAFKA_STORAGE_ERROR]
    disk.full = False
    leader.produce(numbered(0, epoch=1))  # it gave up the one that was refused
    assert offsets(leader.flush()) == [1]
    assert errors(leader.produce(numbered(2, epoch=1))) == [ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER]
