"""Idempotent producers: what follows, what is a retry, what is refused, and what survives a restart.

The cases are those of Kafka's ProducerStateManagerTest, without transactions.
"""

from __future__ import annotations

import struct

import pytest
from crc32c import crc32c

from zafka.storage.batch import BatchHeader, read_header
from zafka.storage.errors import (
    INVALID_PRODUCER_EPOCH,
    INVALID_TXN_STATE,
    OUT_OF_ORDER_SEQUENCE_NUMBER,
    CorruptSnapshot,
)
from zafka.storage.producer_state import (
    BATCHES_KEPT,
    MAX_SEQUENCE,
    Append,
    Duplicate,
    ProducerStates,
    Rejected,
    Verdict,
)
from zafka.storage.records import encode_batch

DAY_MS = 86_400_000


def batch(sequence: int, count: int = 1, *, producer: int = 1, epoch: int = 0, timestamp: int = 1000,
          transactional: bool = False) -> BatchHeader:  # fmt: skip
    records = [(timestamp, None, b"", ())] * count
    return read_header(encode_batch(
        records, producer_id=producer, producer_epoch=epoch, base_sequence=sequence, transactional=transactional))


class Partition:
    """Appends what is accepted, one offset after the other."""

    def __init__(self) -> None:
        self.states = ProducerStates()
        self.end_offset = 0

    def send(self, header: BatchHeader) -> Verdict:
        verdict = self.states.check(header)
        if isinstance(verdict, Append):
            self.states.update(header, self.end_offset)
            self.end_offset += header.record_count
        return verdict

    def restart(self) -> None:
        snapshot = self.states.snapshot()
        self.states = ProducerStates()
        self.states.load(snapshot)
        assert self.states.snapshot() == snapshot


@pytest.fixture
def partition() -> Partition:
    return Partition()


def error_of(verdict: Verdict) -> int:
    assert isinstance(verdict, Rejected)
    assert verdict.message
    return verdict.error


def test_sequences_follow_each_other(partition: Partition) -> None:
    for sequence, count in ((0, 1), (1, 5), (6, 10), (16, 1)):
        assert partition.send(batch(sequence, count)) == Append()


def test_verdicts_tell_apart_by_their_error(partition: Partition) -> None:
    assert partition.send(batch(0)).error == 0
    assert partition.send(batch(0)).error == 0
    assert partition.send(batch(5)).error == OUT_OF_ORDER_SEQUENCE_NUMBER


def test_producers_without_id_are_not_remembered(partition: Partition) -> None:
    header = read_header(encode_batch([(0, None, b"", ())]))
    assert partition.send(header) == partition.send(header) == Append()
    assert len(partition.states) == 0


def test_gap_is_refused(partition: Partition) -> None:
    partition.send(batch(0, 3))
    assert error_of(partition.send(batch(4))) == OUT_OF_ORDER_SEQUENCE_NUMBER
    assert partition.send(batch(3)) == Append()


def test_retry_is_answered_with_the_first_offset(partition: Partition) -> None:
    partition.send(batch(0, 3, producer=9))
    partition.send(batch(0, 3, timestamp=5000))
    partition.send(batch(3, 2))
    assert partition.send(batch(0, 3)) == Duplicate(base_offset=3, last_offset=5, timestamp=5000)
    assert partition.end_offset == 8
    duplicate = partition.send(batch(3, 2))
    assert isinstance(duplicate, Duplicate)
    assert duplicate.end_offset == 8


def test_only_the_last_five_batches_are_known_as_retries(partition: Partition) -> None:
    for sequence in range(BATCHES_KEPT + 1):
        partition.send(batch(sequence))
    assert error_of(partition.send(batch(0))) == OUT_OF_ORDER_SEQUENCE_NUMBER
    for sequence in range(1, BATCHES_KEPT + 1):
        assert isinstance(partition.send(batch(sequence)), Duplicate)


@pytest.mark.parametrize(("sequence", "count"), [(0, 2), (0, 4), (1, 2), (2, 1)])
def test_part_of_a_batch_is_no_retry(partition: Partition, sequence: int, count: int) -> None:
    partition.send(batch(0, 3))
    partition.send(batch(3, 3))
    assert error_of(partition.send(batch(sequence, count))) == OUT_OF_ORDER_SEQUENCE_NUMBER


def test_unknown_producer_may_begin_anywhere(partition: Partition) -> None:
    """KIP-360: its state may have gone with its records."""
    assert partition.send(batch(16, epoch=3)) == Append()
    assert partition.send(batch(17, epoch=3)) == Append()
    assert error_of(partition.send(batch(15, epoch=3))) == OUT_OF_ORDER_SEQUENCE_NUMBER


def test_new_epoch_begins_at_zero(partition: Partition) -> None:
    partition.send(batch(0, 4))
    assert error_of(partition.send(batch(4, epoch=1))) == OUT_OF_ORDER_SEQUENCE_NUMBER
    assert partition.send(batch(0, epoch=1)) == Append()
    assert partition.send(batch(1, epoch=1)) == Append()


def test_old_epoch_is_fenced(partition: Partition) -> None:
    partition.send(batch(0))
    partition.send(batch(0, epoch=2))
    for header in (batch(0), batch(1), batch(0, epoch=1)):
        assert error_of(partition.send(header)) == INVALID_PRODUCER_EPOCH


def test_retries_of_an_old_epoch_are_forgotten(partition: Partition) -> None:
    partition.send(batch(0, 3))
    partition.send(batch(0, 1, epoch=1))
    assert error_of(partition.send(batch(0, 3, epoch=1))) == OUT_OF_ORDER_SEQUENCE_NUMBER


def test_sequence_wraps_after_the_largest(partition: Partition) -> None:
    assert partition.send(batch(MAX_SEQUENCE)) == Append()
    assert partition.send(batch(0)) == Append()
    assert partition.send(batch(1)) == Append()


def test_sequence_wraps_within_a_batch(partition: Partition) -> None:
    assert partition.send(batch(MAX_SEQUENCE - 9, 20)) == Append()
    assert isinstance(partition.send(batch(MAX_SEQUENCE - 9, 20)), Duplicate)
    assert error_of(partition.send(batch(11))) == OUT_OF_ORDER_SEQUENCE_NUMBER
    assert partition.send(batch(10)) == Append()


def test_check_changes_nothing(partition: Partition) -> None:
    partition.send(batch(0))
    before = partition.states.snapshot()
    for header in (batch(0), batch(1), batch(7), batch(0, epoch=1), batch(0, producer=2)):
        partition.states.check(header)
    assert partition.states.snapshot() == before


def test_transaction_is_not_mixed_with_other_batches(partition: Partition) -> None:
    partition.send(batch(0, transactional=True))
    assert error_of(partition.send(batch(1))) == INVALID_TXN_STATE
    assert partition.send(batch(1, transactional=True)) == Append()
    producer = partition.states.get(1)
    assert producer is not None
    assert producer.transaction_first_offset == 0


class TestRestart:
    def test_goes_on_where_it_was(self, partition: Partition) -> None:
        partition.send(batch(0, 3))
        partition.send(batch(7, 2, producer=2, epoch=4))
        partition.restart()
        assert partition.send(batch(3)) == Append()
        assert partition.send(batch(9, producer=2, epoch=4)) == Append()
        assert error_of(partition.send(batch(0, producer=2, epoch=3))) == INVALID_PRODUCER_EPOCH

    def test_all_batches_in_flight_can_still_be_retried(self, partition: Partition) -> None:
        """Kafka's snapshot has the last batch only; a client with five in flight would fail after a restart."""
        for sequence in range(BATCHES_KEPT + 2):
            partition.send(batch(sequence))
        partition.restart()
        for sequence in range(2, BATCHES_KEPT + 2):
            assert partition.send(batch(sequence)) == Duplicate(sequence, sequence, 1000)

    def test_open_transaction_stays_open(self, partition: Partition) -> None:
        partition.send(batch(0, producer=3))
        partition.send(batch(0, transactional=True))
        partition.restart()
        producer = partition.states.get(1)
        assert producer is not None
        assert producer.transaction_first_offset == 1

    def test_nothing_is_a_snapshot_too(self, partition: Partition) -> None:
        assert partition.states.snapshot().hex() == "000148674bc700000000"
        partition.restart()
        assert len(partition.states) == 0


class TestSnapshot:
    # Written by Apache Kafka 4.3.1: producer 5 with sequences 6 to 8 at its end, producer 6 in a transaction.
    KAFKA = bytes.fromhex(
        "0001d0cef07100000002"
        "00000000000000050002000000080000000000000008000000020000018bcfe56802ffffffffffffffffffffffff"
        "00000000000000060000000000000000000000000009000000000000018bcfe56809ffffffff0000000000000009"
    )

    def test_kafkas_own_is_understood(self) -> None:
        states = ProducerStates()
        states.load(self.KAFKA)
        assert states.snapshot() == self.KAFKA
        assert states.check(batch(6, 3, producer=5, epoch=2)) == Duplicate(6, 8, 1_700_000_000_002)
        assert states.check(batch(9, 3, producer=5, epoch=2)) == Append()
        assert error_of(states.check(batch(1, producer=6))) == INVALID_TXN_STATE

    def test_failed_load_changes_nothing(self, partition: Partition) -> None:
        partition.send(batch(0))
        before = partition.states.snapshot()
        with pytest.raises(CorruptSnapshot):
            partition.states.load(self.KAFKA[:-1])
        assert partition.states.snapshot() == before

    @pytest.mark.parametrize(
        "entry",
        [
            (-1, 0, 0, 0, 0, 0, -1, -1),
            (1, -1, 0, 0, 0, 0, -1, -1),
            (1, 0, 0, 0, -1, 0, -1, -1),
            (1, 0, -2, 0, 0, 0, -1, -1),
        ],
    )
    def test_impossible_entries_are_refused(self, entry: tuple[int, ...]) -> None:
        with pytest.raises(CorruptSnapshot):
            ProducerStates().load(sealed(entry))

    def test_six_batches_of_one_producer_are_refused(self) -> None:
        entries = [(1, 0, sequence, sequence, 0, 0, -1, -1) for sequence in range(6)]
        ProducerStates().load(sealed(*entries[:5]))
        with pytest.raises(CorruptSnapshot):
            ProducerStates().load(sealed(*entries))

    def test_every_damaged_byte_is_found(self, partition: Partition) -> None:
        partition.send(batch(0, 3))
        snapshot = partition.states.snapshot()
        for position in range(len(snapshot)):
            damaged = bytearray(snapshot)
            damaged[position] ^= 0x10
            with pytest.raises(CorruptSnapshot):
                partition.states.load(damaged)

    @pytest.mark.parametrize("length", [0, 1, 9, 10, 30])
    def test_cut_short(self, partition: Partition, length: int) -> None:
        partition.send(batch(0, 3))
        with pytest.raises(CorruptSnapshot):
            partition.states.load(partition.states.snapshot()[:length])


class TestExpiry:
    def test_silent_producers_are_forgotten(self, partition: Partition) -> None:
        partition.send(batch(0, producer=1))
        partition.send(batch(0, producer=2))
        assert partition.states.expire(now_ms=1_000_000, expiration_ms=DAY_MS) == 0
        partition.send(batch(1, producer=2))
        assert partition.states.expire(now_ms=1_000_000 + DAY_MS, expiration_ms=DAY_MS) == 1
        assert partition.states.get(1) is None
        assert partition.send(batch(2, producer=2)) == Append()

    def test_old_timestamps_do_not_make_a_producer_old(self, partition: Partition) -> None:
        """Kafka goes by the records' timestamps: who writes old records is forgotten while writing."""
        partition.send(batch(0, timestamp=0))
        assert partition.states.expire(now_ms=10 * DAY_MS, expiration_ms=DAY_MS) == 0
        assert isinstance(partition.send(batch(0)), Duplicate)

    def test_timestamps_in_the_future_do_not_keep_a_producer_for_good(self, partition: Partition) -> None:
        partition.send(batch(0, timestamp=100 * DAY_MS))
        partition.restart()
        assert partition.states.expire(now_ms=DAY_MS, expiration_ms=DAY_MS) == 0
        assert partition.states.expire(now_ms=2 * DAY_MS, expiration_ms=DAY_MS) == 1

    def test_open_transaction_keeps_its_producer(self, partition: Partition) -> None:
        partition.send(batch(0, transactional=True))
        partition.states.expire(now_ms=DAY_MS, expiration_ms=DAY_MS)
        assert partition.states.expire(now_ms=9 * DAY_MS, expiration_ms=DAY_MS) == 0

    def test_the_longest_silent_makes_room(self) -> None:
        states = ProducerStates(producers_max=3)
        for producer in (1, 2, 3):
            states.update(batch(0, producer=producer), producer)
        states.update(batch(1, producer=1), 4)
        states.update(batch(0, producer=4), 5)
        assert [producer for producer in range(1, 5) if states.get(producer)] == [1, 3, 4]


def sealed(*entries: tuple[int, ...]) -> bytes:
    """A snapshot of these entries with a CRC that fits."""
    body = struct.pack(">i", len(entries)) + b"".join(struct.pack(">qhiqiqiq", *entry) for entry in entries)
    return struct.pack(">hI", 1, crc32c(body)) + body
