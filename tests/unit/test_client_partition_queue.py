"""Order and exactly once in one partition, whatever the network and the broker do: a model run by hypothesis.

KIP-98, "Idempotent Producer Guarantees": each message is persisted exactly once, in the order of sending, as long as
the producer's session lasts. KIP-360 lets a producer go on after a hole by raising its epoch.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings, strategies as st

from tests.unit.client_fake_broker import FakePartition
from zafka.client.batches import NOT_NUMBERED, ProducerBatch
from zafka.client.errors import BrokerRefused, DeliveryTimeout
from zafka.client.partition_queue import IN_FLIGHT_MAX, LAST_EPOCH, PartitionQueue, Verdict
from zafka.storage.batch import read_header
from zafka.storage.records import BatchBuilder, decode_batch
from zafka.transport.kafka.errors import ErrorCode

TIMEOUT_S = 100.0
WRITTEN_BUT_LATE = ErrorCode.REQUEST_TIMED_OUT
NOT_WRITTEN = ErrorCode.NOT_LEADER_OR_FOLLOWER
REFUSED = ErrorCode.MESSAGE_TOO_LARGE


def make_batch(number: int, now_s: float = 0.0, records: int = 1) -> ProducerBatch:
    builder = BatchBuilder()
    for _ in range(records):
        builder.append(0, None, b"%d" % number)
    batch = ProducerBatch("t", 0, builder, now_s=now_s, linger_s=0.0, deadline_s=now_s + TIMEOUT_S)
    batch.count, batch.closed = records, True
    return batch


def make_queue(*, idempotent: bool = True, in_flight_max: int = 5) -> PartitionQueue:
    queue = PartitionQueue("t", 0, idempotent=idempotent, in_flight_max=in_flight_max)
    if idempotent:
        queue.begin(1000, 0)
    return queue


class World:
    """A queue, one connection with requests and answers under way, and the partition behind it."""

    def __init__(self, seed: int, *, idempotent: bool = True) -> None:
        self.random = random.Random(seed)
        self.now_s = 0.0
        self.queue = make_queue(idempotent=idempotent, in_flight_max=5 if idempotent else 1)
        self.partition = FakePartition()
        self.wire: list[tuple[ProducerBatch, bytes]] = []
        self.answers: list[tuple[ProducerBatch, int, int]] = []
        self.batches: list[ProducerBatch] = []
        self.refused: set[ProducerBatch] = set()  # a broker refuses such a batch whenever it comes

    def add(self) -> None:
        batch = make_batch(len(self.batches), self.now_s, self.random.randint(1, 3))
        self.batches.append(batch)
        self.queue.add(batch)
        if self.random.random() < 0.05:
            self.refused.add(batch)

    def send(self) -> None:
        batch = self.queue.peek(self.now_s)
        if batch is not None:
            self.queue.take(batch)
            self.wire.append((batch, bytes(batch.encode())))
            assert len(self.queue.flying) <= IN_FLIGHT_MAX

    def process(self, fault: int = 0) -> None:
        """The broker takes the oldest request; a fault is an error before or after it is written."""
        if self.wire:
            batch, data = self.wire.pop(0)
            if batch in self.refused or fault == NOT_WRITTEN:
                code, base = REFUSED if batch in self.refused else fault, -1
            else:
                code, base = self.partition.append(memoryview(data))
                code = code or fault
            self.answers.append((batch, code, base))

    def answer(self) -> None:
        if self.answers:
            batch, code, base = self.answers.pop(0)
            if code == 0:
                self.queue.on_acknowledged(batch)
                batch.complete(base)
            elif self.queue.on_error(batch, code, None, self.now_s) is Verdict.DONE:
                batch.complete(base)

    def disconnect(self) -> None:
        """What the broker had read of the connection is carried out; no answer arrives."""
        for _ in range(self.random.randint(0, len(self.wire))):
            self.process()
        for batch in sorted({*(b for b, _ in self.wire), *(b for b, _, _ in self.answers)}, key=lambda b: b.order):
            self.queue.on_lost(batch, "lost", self.now_s)
        self.wire.clear()
        self.answers.clear()

    def later(self, seconds: float) -> None:
        self.now_s += seconds
        self.queue.expire(self.now_s)

    def step(self, *, faults: bool) -> None:
        choice = self.random.random()
        if choice < 0.25:
            self.add()
        elif choice < 0.5:
            self.send()
        elif choice < 0.7:
            self.process()
        elif choice < 0.85 or not faults:
            self.answer()
        elif choice < 0.9:
            self.process(self.random.choice((WRITTEN_BUT_LATE, NOT_WRITTEN, NOT_WRITTEN)))
        elif choice < 0.96:
            self.disconnect()
        else:
            self.later(self.random.choice((0.01, 0.5, 5.0)))

    def heal(self) -> None:
        """No more faults: everything that has not expired has to arrive."""
        for _ in range(40 * len(self.batches) + 100):
            self.now_s += 0.1
            self.send()
            self.process()
            self.answer()
        assert self.queue.is_empty, self.queue

    def check(self) -> None:
        written = [int(decode_batch(data, read_header(data))[0].value or b"") for data in self.partition.batches]
        assert written == sorted(set(written)), f"twice or out of order: {written}"
        at = {
            number: read_header(data).base_offset for number, data in zip(written, self.partition.batches, strict=True)
        }
        for number, batch in enumerate(self.batches):
            assert batch.done
            if batch.error is None:
                assert at.get(number) == batch.base_offset
            elif isinstance(batch.error, BrokerRefused):
                assert number not in at
            else:
                assert isinstance(batch.error, DeliveryTimeout)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_idempotent_batches_arrive_once_and_in_order(seed: int) -> None:
    world = World(seed)
    for _ in range(200):
        world.step(faults=True)
    world.heal()
    world.check()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_batches_that_expire_leave_no_hole_for_those_behind_them(seed: int) -> None:
    world = World(seed)
    for _ in range(150):
        world.step(faults=True)
        if world.random.random() < 0.03:
            world.later(TIMEOUT_S * 0.6)
    world.heal()
    world.check()


def test_order_is_kept_without_idempotence() -> None:
    for seed in range(100):
        world = World(seed, idempotent=False)
        for _ in range(100):
            world.step(faults=False)
            if world.random.random() < 0.1:
                world.process(NOT_WRITTEN)
        world.heal()
        world.check()


def test_in_flight_batches_are_numbered_in_order_and_at_most_five() -> None:
    queue = make_queue()
    for number in range(7):
        queue.add(make_batch(number, records=2))
    sent = []
    while (batch := queue.peek(0.0)) is not None:
        queue.take(batch)
        sent.append(batch)
    assert [batch.sequence for batch in sent] == [0, 2, 4, 6, 8]


def test_sequence_wraps_to_zero() -> None:
    queue = make_queue()
    queue.next_sequence = 2**31 - 2
    for number in range(2):
        queue.add(make_batch(number, records=2))
    sent = []
    while (batch := queue.peek(0.0)) is not None:
        queue.take(batch)
        sent.append(batch.sequence)
    assert sent == [2**31 - 2, 0]


def test_a_gap_that_is_real_begins_a_new_epoch_after_everything_is_resolved() -> None:
    """The broker lost what it had acknowledged: its OUT_OF_ORDER for the oldest batch is a proof."""
    queue = make_queue()
    first, second = make_batch(0), make_batch(1)
    queue.next_sequence = 10
    for batch in (first, second):
        queue.add(batch)
        queue.take(batch)
    assert queue.on_error(first, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, None, 0.0) is Verdict.RETRY
    assert first.sequence == NOT_NUMBERED
    assert queue.peek(9.0) is None, "the second may still be in the log under its old number"
    assert queue.on_error(second, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, None, 9.0) is Verdict.RETRY
    assert queue.peek(99.0) is first
    queue.take(first)
    assert (first.producer_epoch, first.sequence) == (1, 0)


def test_out_of_order_behind_a_batch_that_is_due_keeps_its_number() -> None:
    queue = make_queue()
    first, second = make_batch(0), make_batch(1)
    for batch in (first, second):
        queue.add(batch)
        queue.take(batch)
    queue.on_error(first, NOT_WRITTEN, None, 0.0)
    queue.on_error(second, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, None, 0.0)
    assert [batch.sequence for batch in queue.waiting] == [0, 1]
    assert queue.producer_epoch == 0


def test_the_last_epoch_asks_for_a_new_producer_id() -> None:
    queue = make_queue()
    queue.begin(1000, LAST_EPOCH)
    batch = make_batch(0)
    queue.add(batch)
    queue.take(batch)
    queue.on_error(batch, ErrorCode.UNKNOWN_PRODUCER_ID, None, 0.0)
    assert queue.peek(9.0) is None
    assert queue.needs_producer_id and queue.used_up_id == 1000
    queue.begin(1001, 0)
    assert queue.peek(9.0) is batch


def test_batches_that_come_back_together_are_one_failure() -> None:
    queue = make_queue()
    batches = [make_batch(number) for number in range(5)]
    for batch in batches:
        queue.add(batch)
        queue.take(batch)
    for batch in reversed(batches):
        queue.on_lost(batch, "gone", 0.0)
    assert list(queue.waiting) == batches
    assert queue.failures == 1


def test_expiry_says_what_was_in_the_way() -> None:
    queue = make_queue()
    batch = make_batch(0)
    queue.add(batch)
    queue.take(batch)
    queue.on_lost(batch, "broker 127.0.0.1:1: connection refused", 0.0)
    queue.expire(TIMEOUT_S)
    assert queue.is_empty
    with pytest.raises(DeliveryTimeout, match=r"within 100 s.*sent 1 times, perhaps written.*connection refused"):
        raise batch.error or AssertionError
