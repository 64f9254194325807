"""The way of `send` that takes no lock: whoever sends, whatever comes in between, a record is where its future says."""

from __future__ import annotations

import contextlib
import dis
import functools
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

import pytest

from tests.unit.client_fake_broker import FakeBroker
from zafka.client.batches import Delivery, ProducerBatch
from zafka.client.errors import BufferFull, DeliveryFailed, ZafkaError
from zafka.client.lanes import Lane
from zafka.client.producer import Producer
from zafka.storage.batch import read_header
from zafka.storage.batch_builder import PLAIN_OVERHEAD_BYTES, BatchBuilder
from zafka.storage.records import decode_batch
from zafka.transport.kafka.api_keys import ApiKey

pytestmark = pytest.mark.timeout(60)

PARTITIONS = 3


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with FakeBroker({"t": PARTITIONS, "one": 1}) as broker:
        yield broker


@pytest.fixture
def impatient_threads() -> Iterator[None]:
    """Threads take turns after every few steps."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def condition(check: Callable[[], object], what: str) -> None:
    give_up_s = time.monotonic() + 20
    while not check():
        assert time.monotonic() < give_up_s, f"{what} did not come true"
        threading.Event().wait(0.02)


def logs(broker: FakeBroker, topic: str) -> list[dict[int, tuple[bytes | None, bytes | None, int]]]:
    """Of each partition, by offset: key, value, timestamp."""
    return [
        {
            record.offset: (record.key, record.value, record.timestamp)
            for data in part.batches
            for record in decode_batch(data, read_header(data))
        }
        for part in broker.topics[topic]
    ]


def open_lane(slot_count: int = 10) -> Lane:
    batch = ProducerBatch("t", 0, BatchBuilder(), now_s=0.0, linger_s=0.0, deadline_s=1.0)
    batch.builder.append(1, None, b"before")
    return Lane(batch, slot_count=slot_count, value_bytes_max=100, timestamp_ms=1)


def test_a_lane_hands_out_its_slots_once_and_none_after_its_end() -> None:
    lane = open_lane(3)
    assert [next(lane.free), next(lane.free)] == [1, 2]
    lane.values[2] = b"second"
    lane.values[1] = b"1st"
    assert lane.end() == ([b"1st", b"second"], [3, 6])
    assert next(lane.free, None) is None
    full = open_lane(2)
    for place in full.free:
        full.values[place] = b"x"
    assert full.end() == ([b"x", b"x"], [1, 1])


def test_a_lane_takes_what_is_small_enough_and_in_time() -> None:
    lane = open_lane(2)
    assert lane.put(b"x") is None  # its millisecond is over
    lane.until_s = float("inf")
    assert lane.put(bytes(101)) is None
    first, second = lane.put(bytes(100)), lane.put(b"x")
    assert first is not None and second is not None
    assert (first.batch, first.index, first.timestamp, second.index) == (lane.batch, 1, 1, 2)
    assert lane.put(b"x") is None
    assert lane.end() == ([bytes(100), b"x"], [100, 1])


def test_the_end_of_a_lane_waits_for_a_thread_between_taking_a_slot_and_filling_it() -> None:
    lane = open_lane()
    first, second = next(lane.free), next(lane.free)
    lane.values[second] = b"second"
    ended = []
    ending = threading.Thread(target=lambda: ended.append(lane.end()))
    ending.start()
    condition(lambda: next(lane.free, None) is None, "the end")
    assert ending.is_alive()
    lane.values[first] = b"first"
    ending.join(10)
    assert ended == [([b"first", b"second"], [5, 6])]


def test_a_slot_that_nobody_will_fill_spoils_its_lane_only_then() -> None:
    lane = open_lane()
    next(lane.free)
    lane.spoiled = True
    assert lane.end() is None
    lane = open_lane()
    lane.values[next(lane.free)] = b"x"
    lane.spoiled = True  # Ctrl-C came after the slot was filled
    assert lane.end() == ([b"x"], [1])


@pytest.mark.usefixtures("impatient_threads")
def test_every_record_is_where_its_future_says(broker: FakeBroker) -> None:
    """Threads that send in every way at once, into small batches that are full, linger, or are flushed all the time."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    sent: list[list[tuple[bytes | None, bytes, int, int, Delivery]]] = [[] for _ in range(4)]

    def work(number: int, producer: Producer) -> None:
        rng = random.Random(seed + number)
        for count in range(1500):
            value = b"%d %d " % (number, count) + bytes(rng.choice((0, 10, 10, 10, 60, 300)))
            key = b"key" if rng.random() < 0.02 else None
            partition = 1 if key is None and rng.random() < 0.02 else None
            before_ms = time.time_ns() // 1_000_000
            future = producer.send("t", value, key=key, partition=partition)
            sent[number].append((key, value, before_ms, time.time_ns() // 1_000_000, future))
            if rng.random() < 0.005:
                producer.send_many("t", [b"many"] * rng.randrange(1, 50))
            if rng.random() < 0.005:
                producer.flush()

    with Producer(broker.address, linger_ms=1, batch_size=5_000, buffer_memory=40_000) as producer:
        threads = [threading.Thread(target=work, args=(number, producer)) for number in range(len(sent))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        producer.flush()
        assert producer.metrics().buffered_bytes == 0
    found = logs(broker, "t")
    for mine in sent:
        assert len(mine) == 1500
        last = [-1] * PARTITIONS
        for key, value, before_ms, after_ms, future in mine:
            where = future.result(0)
            assert found[where.partition][where.offset] == (key, value, where.timestamp)
            assert before_ms <= where.timestamp <= after_ms
            assert where.offset > last[where.partition]
            last[where.partition] = where.offset


@functools.cache
def handler(code: CodeType, position: int) -> object:
    """What an exception at this place of the code would lead to."""
    return next((entry for entry in dis.Bytecode(code).exception_entries if entry.start <= position < entry.end), None)


class Interrupt:
    """Raises KeyboardInterrupt in this thread as a signal's handler would, at the `countdown`th place of our code.

    Python looks for signals at the end of calls, before it goes back in a loop, and when a function begins. We come one
    step after the end of a call: where other handlers hold there already, we cannot do what a signal does.
    """

    def __init__(self, countdown: int) -> None:
        self.countdown = countdown
        self._last: dict[FrameType, int] = {}

    def __enter__(self) -> None:
        sys.settrace(self._on_call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _on_call(self, frame: FrameType, event: str, _: object) -> Any:
        if "/zafka/" not in frame.f_code.co_filename and "/storage/" not in frame.f_code.co_filename:
            return None
        self._pass()
        frame.f_trace_opcodes = True
        return self._on_opcode

    def _on_opcode(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "opcode":
            code, position, last = frame.f_code, frame.f_lasti, self._last.get(frame, 0)
            is_after_call = dis.opname[code.co_code[last]].startswith("CALL")
            if dis.opname[code.co_code[position]].startswith("JUMP_BACKWARD") or (
                is_after_call and handler(code, last) == handler(code, position)
            ):
                self._pass()
            self._last[frame] = position
        return self._on_opcode

    def _pass(self) -> None:
        self.countdown -= 1
        if self.countdown == 0:
            sys.settrace(None)
            raise KeyboardInterrupt


def test_an_interrupt_anywhere_never_moves_a_record(broker: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ctrl-C, at every place in `send` where one can come: what returned a future is where that says, or failed."""
    monkeypatch.setattr("zafka.client.producer.now", lambda: 0.0)  # so slow as this is, lanes would be over at once
    monkeypatch.setattr("zafka.client.lanes.FILLED_WITHIN_S", 1e9)  # nobody waits for a thread that was interrupted
    futures: list[tuple[bytes, Delivery]] = []
    interrupted = True
    places = 0
    with Producer(broker.address, linger_ms=10_000, batch_size=400) as producer:
        producer.partitions_for("one")
        while interrupted:
            places += 1
            interrupted = False
            try:
                with Interrupt(places):
                    for number in range(20):
                        value = b"%d-%d" % (places, number) + bytes(number)
                        futures.append((value, producer.send("one", value, key=b"k" if number == 3 else None)))
            except KeyboardInterrupt:
                interrupted = True
            with contextlib.suppress(DeliveryFailed):
                producer.flush(20)
            assert producer._accumulator.buffered_bytes == 0, f"interrupted at place {places}"
            assert not producer._accumulator._unfinished and not producer._accumulator._open
    (log,) = logs(broker, "one")
    failed = 0
    for value, future in futures:
        error = future.exception(0)
        if error is None:
            assert log[future.result(0).offset][1] == value
        else:
            failed += 1
            assert "was interrupted" in str(error)
    print(f"{places} places, {len(futures)} records, {failed} of them failed")
    assert places > 100 and failed < len(futures) / 4


def test_a_spoiled_lane_fails_its_batch_and_nothing_else(broker: FakeBroker) -> None:
    with Producer(broker.address, linger_ms=10_000) as producer:
        before = [producer.send("one", b"before") for _ in range(3)]
        producer._accumulator.lanes["one"].until_s = float("inf")
        before.append(producer.send("one", b"before"))
        lane = producer._accumulator.lanes["one"]
        next(lane.free)
        lane.spoiled = True
        after = producer.send("one", b"after", partition=0)
        assert after.result(10).offset == 0
        for future in before:
            assert "was interrupted" in str(future.exception(10))
        assert producer._accumulator.buffered_bytes == 0
    assert [value for _, value, _ in logs(broker, "one")[0].values()] == [b"after"]


def test_lanes_stay_within_buffer_memory(broker: FakeBroker) -> None:
    broker.fault = lambda api, when: "hang" if api is ApiKey.PRODUCE else None
    producer = Producer(broker.address, buffer_memory=10_000, max_block=0.1)
    count = 0
    with pytest.raises(BufferFull):
        for count in range(1000):  # noqa: B007
            producer.send("one", bytes(100))
            assert producer._accumulator.buffered_bytes <= 10_000 + 100 + PLAIN_OVERHEAD_BYTES
    assert 70 < count < 90
    with pytest.raises(ZafkaError):
        producer.close(timeout=0.1)
    assert producer._accumulator.buffered_bytes == 0


def test_a_batch_of_many_lengths_is_filled_by_few_lanes(broker: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lane costs a lock and more: they neither get shorter and shorter at its end, nor too narrow in the next one."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    opened: list[Lane] = []

    def open_lane(batch: ProducerBatch, **given: int) -> Lane:
        opened.append(Lane(batch, **given))
        return opened[-1]

    monkeypatch.setattr("zafka.client.producer.now", lambda: 0.0)  # no lane is over in time
    monkeypatch.setattr("zafka.client.accumulator.Lane", open_lane)
    with Producer(broker.address, linger_ms=10_000, batch_size=100_000) as producer:
        for _ in range(30_000):
            producer.send("one", bytes(rng.randint(50, 150)))
        producer.flush()
        batches = producer.metrics().batches
    print(f"{len(opened)} lanes, {batches} batches")
    assert 30 <= batches <= 40 and len(opened) < 7 * batches


def test_a_batch_leaves_when_it_has_lingered_and_nobody_asks(broker: FakeBroker) -> None:
    """Again and again: the I/O thread knows when to look, though not every batch wakes it."""
    with Producer(broker.address, linger_ms=20) as producer:
        for _ in range(5):
            started_s = time.monotonic()
            futures = [producer.send("t", b"x") for _ in range(10)]
            condition(lambda: all(future.done() for future in futures), "the acknowledgement")  # noqa: B023
            assert time.monotonic() - started_s >= 0.015
            condition(lambda: producer._accumulator._looks_at_s > time.monotonic() + 1, "sleep")
