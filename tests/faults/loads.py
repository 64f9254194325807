"""Clients that write and read all the while, and tell a history: both producers, both consumers.

Owns: `Shared`, one history for many threads; the threads that feed it. They know a broker by its addresses alone, so
that all of this can be pointed at another one. Whatever a client should never be told ends up in `Shared.failures`.
Invariant: what a load was told is in the history before it sends or reads on.
"""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

import zafka
from tests.history import History, Problem, value_of

PARTITIONS = 4
DELIVERY_S = 120.0
READ_S = 60.0
LOSSY_S = 10.0  # longer is not waited for what a broker that has lost records may never acknowledge
RECORDS_A_TURN = 8
TURN_S = 0.005
POLL_S = 0.2
NETWORK_S = 30.0
WATERMARKS_EVERY_S = 0.5
FAILURES_MAX = 3  # told of each who fails
REREADS = 5


class Place(NamedTuple):
    topic: str
    partition: int

    @property
    def name(self) -> str:
        """As the history calls it."""
        return f"{self.topic}-{self.partition}"


def places(topic: str, count: int = PARTITIONS) -> list[Place]:
    return [Place(topic, partition) for partition in range(count)]


class Shared:
    """A history for many threads. `failed` is set as soon as somebody was told what should never be told.

    longest_wait_s: by producer, the longest time that a partition acknowledged nothing, since its first.
    """

    def __init__(self) -> None:
        self.history = History()
        self.lock = threading.Lock()
        self.failed = threading.Event()
        self.failures: list[str] = []
        self.longest_wait_s: dict[str, float] = {}
        self.resets = 0  # readers that were told that their place is gone
        self._acknowledged_s: dict[tuple[str, Place], float] = {}
        self._failure_counts: Counter[str] = Counter()

    def fail(self, who: str, what: str) -> None:
        with self.lock:
            self._failure_counts[who] += 1
            if self._failure_counts[who] <= FAILURES_MAX:
                self.failures.append(f"{who}: {what}")
            self.failed.set()

    def on_acknowledged(self, producer: str, place: Place, sequence: int, offset: int) -> None:
        now_s = time.monotonic()
        with self.lock:
            waited_s = now_s - self._acknowledged_s.get((producer, place), now_s)
            self._acknowledged_s[producer, place] = now_s
            self.longest_wait_s[producer] = max(waited_s, self.longest_wait_s.get(producer, 0.0))
            self.history.acknowledged(producer, place.name, sequence, offset)

    def problems(self) -> list[Problem | str]:
        with self.lock:
            return [*self.failures, *self.history.problems()]


class Client(threading.Thread, ABC):
    """Works until `finish`. A client that crashes is a failure of the run: what it did not see proves nothing."""

    def __init__(self, shared: Shared, name: str) -> None:
        super().__init__(daemon=True, name=name)
        self.shared = shared
        self.must_end = threading.Event()

    def run(self) -> None:
        try:
            self.work()
        except BaseException as error:
            self.shared.fail(self.name, f"crashed: {error!r}")
            raise

    def finish(self) -> None:
        """Have it come to its end; a load waits until everything is acknowledged or failed."""
        self.must_end.set()
        self.join(DELIVERY_S + 10)
        if self.is_alive():
            self.shared.fail(self.name, "does not end")

    @abstractmethod
    def work(self) -> None: ...


# -- producers -----------------------------------------------------------------------------------


class Load(Client):
    """Sends numbered records to all places in turn until `finish`, about 1,500 a second.

    network_s: how long a client waits for an answer before it takes a connection for dead.
    is_lossy: the broker may lose records, and with them what an idempotent producer counts on: a send that fails is
        only noted, and a client that refuses to go on is replaced (under a new name in the history).
    """

    kind: str

    def __init__(
        self, bootstrap: str, where: Sequence[Place], shared: Shared, *, is_lossy: bool = False,
        records_a_turn: int = RECORDS_A_TURN, padding: int = 0, network_s: float = NETWORK_S,
    ) -> None:
        super().__init__(shared, f"load by {self.kind}")
        self.bootstrap = bootstrap
        self.where = where
        self.is_lossy = is_lossy
        self.padding = padding
        self.network_s = network_s
        self.records_a_turn = records_a_turn
        self.lives = 0
        self.acknowledged = 0
        self.refused = 0
        self._must_begin = False
        self.begin()

    def begin(self) -> None:
        """A client, afresh."""
        self.lives += 1
        self.producer_name = f"{self.kind}.{self.lives}"
        self.sequences = dict.fromkeys(self.where, 0)
        self._must_begin = False
        with self.shared.lock:
            self.shared.history.begin_producer(self.producer_name)
        self.make_client()

    def work(self) -> None:
        turn = 0
        while not self.must_end.wait(TURN_S):
            if self._must_begin:
                self.close_client(0.0)
                self.begin()
            for _ in range(self.records_a_turn):
                place = self.where[turn % len(self.where)]
                sequence = self.sequences[place]
                self.sequences[place] += 1
                turn += 1
                with self.shared.lock:
                    self.shared.history.sent(self.producer_name, place.name, sequence)
                self.send(place, sequence, value_of(self.producer_name, place.name, sequence, padding=self.padding))
        self.close_client(LOSSY_S if self.is_lossy else DELIVERY_S)

    def note(self, producer: str, place: Place, sequence: int, offset: int, error: object) -> None:
        if error is None:
            self.acknowledged += 1
            self.shared.on_acknowledged(producer, place, sequence, offset)
            return
        self.refused += 1
        with self.shared.lock:
            self.shared.history.failed(producer, place.name, sequence, definite=False)
        if self.is_lossy:
            self._must_begin = self._must_begin or producer == self.producer_name
        else:
            self.shared.fail(f"{producer}, {place.name}", f"record {sequence}: {error}")

    @abstractmethod
    def make_client(self) -> None: ...

    @abstractmethod
    def send(self, place: Place, sequence: int, value: bytes) -> None: ...

    @abstractmethod
    def close_client(self, timeout_s: float) -> None: ...


class ConfluentLoad(Load):
    """By confluent-kafka, idempotent.

    It raises what is fatal to it (sequences that the broker has lost) in the middle of its callbacks, where a lock that
    was just taken would stay taken: so callbacks only put reports aside, which are noted after the call.
    """

    kind = "librdkafka"

    def make_client(self) -> None:
        self._reports: deque[tuple[str, Place, int, int, KafkaError | None]] = deque()
        self._producer = Producer({
            "bootstrap.servers": self.bootstrap, "enable.idempotence": True, "linger.ms": 2,
            "message.timeout.ms": int(DELIVERY_S * 1000), "queue.buffering.max.messages": 5000,
            "reconnect.backoff.max.ms": 200, "socket.timeout.ms": int(self.network_s * 1000), "log_level": 0,
        })

    def send(self, place: Place, sequence: int, value: bytes) -> None:
        producer, reports = self.producer_name, self._reports

        def on_delivery(error: KafkaError | None, message: Message) -> None:
            reports.append((producer, place, sequence, message.offset() or 0, error))

        while True:
            try:
                self._producer.produce(place.topic, value, partition=place.partition, on_delivery=on_delivery)
                break
            except BufferError as error:
                self._serve(lambda: self._producer.poll(0.05))
                if self._must_begin:  # it will never have room again
                    self.note(producer, place, sequence, -1, error)
                    break
            except KafkaException as error:  # a fatal error that came before
                self.note(producer, place, sequence, -1, error)
                break
        self._serve(lambda: self._producer.poll(0))

    def abandon(self) -> None:
        """Stop sending and wait for nothing."""
        self.must_end.set()
        self._producer.purge()
        self.join(DELIVERY_S)

    def close_client(self, timeout_s: float) -> None:
        left = self._serve(lambda: self._producer.flush(timeout_s))
        if left and not self.is_lossy:
            self.shared.fail(self.producer_name, f"{left} records are neither acknowledged nor failed")
        self._producer.purge()  # nothing may be acknowledged any more when all is read
        self._serve(lambda: self._producer.flush(POLL_S))

    def _serve(self, call: Callable[[], int]) -> int:
        """Let the client call back, and note what it reported."""
        try:
            return call()
        except (KafkaException, SystemError) as error:  # the latter when it was raised while another was on its way
            self._must_begin = True
            if not self.is_lossy:
                self.shared.fail(self.producer_name, str(error))
            return 0
        finally:
            while self._reports:
                self.note(*self._reports.popleft())


class ZafkaLoad(Load):
    """By our client, straight to the partitions where it can."""

    kind = "zafka"
    direct = True

    def make_client(self) -> None:
        self._producer = zafka.Producer(
            self.bootstrap, linger_ms=2, delivery_timeout=DELIVERY_S, max_block=DELIVERY_S, bootstrap_timeout=READ_S,
            request_timeout=self.network_s, direct=self.direct)

    def send(self, place: Place, sequence: int, value: bytes) -> None:
        producer = self.producer_name

        def on_done(delivery: zafka.Delivery) -> None:
            error = delivery.exception()
            self.note(producer, place, sequence, -1 if error else delivery.result().offset, error)

        self._producer.send(place.topic, value, partition=place.partition).add_done_callback(on_done)

    def close_client(self, timeout_s: float) -> None:
        try:
            self._producer.close(timeout_s)
        except zafka.ZafkaError as error:
            if not self.is_lossy:
                self.shared.fail(self.producer_name, str(error))


class ThroughBrokerLoad(ZafkaLoad):
    """By our client as from another machine."""

    kind = "zafka-through-broker"
    direct = False


# -- consumers -----------------------------------------------------------------------------------


class Reader(Client):
    """Reads all places from the beginning, all the while, until `finish`.

    next_offsets: by place, the offset after the last record read.
    """

    kind: str

    def __init__(
        self, bootstrap: str, where: Sequence[Place], shared: Shared, *, network_s: float = NETWORK_S
    ) -> None:
        super().__init__(shared, f"reader by {self.kind}")
        self.bootstrap = bootstrap
        self.network_s = network_s
        self.where = where
        self.count = 0
        self.next_offsets: dict[Place, int] = {}
        self._ends: dict[Place, int] = {}
        self._at_ends = threading.Event()

    def note(self, records: list[tuple[Place, int, bytes]]) -> None:
        """What a poll brought, also if that is nothing."""
        self.count += len(records)
        with self.shared.lock:
            for place, offset, value in records:
                self.shared.history.polled(self.name, place.name, offset, value)
        self.next_offsets.update({place: offset + 1 for place, offset, _ in records})
        ends = self._ends
        if ends and all(self.next_offsets.get(place, 0) >= end for place, end in ends.items()):
            self._at_ends.set()

    def finish_at(self, ends: dict[Place, int]) -> None:
        """Have it come to these end offsets, which nobody moves any more, and end. RELIABILITY, invariant 17."""
        self._ends = ends
        if not self._at_ends.wait(READ_S):
            left = {place.name: f"{self.next_offsets.get(place, 0)} of {end}" for place, end in ends.items()
                    if self.next_offsets.get(place, 0) < end}
            self.shared.fail(self.name, f"stopped reading, with no fault left: {left}")
        self.finish()


class ConfluentReader(Reader):
    """By confluent-kafka; now and then it asks where partitions begin and end."""

    kind = "librdkafka"

    def work(self) -> None:
        consumer = _confluent_consumer(self.bootstrap, reset="earliest", network_s=self.network_s)
        consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in self.where])
        ask_s, turn = time.monotonic(), 0
        while not self.must_end.is_set():
            found = []
            for message in consumer.consume(1000, timeout=POLL_S):
                if message.error() is None:
                    found.append(_record(message))
                elif _is_reset(message):
                    self.shared.resets += 1
            self.note(found)
            if time.monotonic() > ask_s:
                self._ask_watermarks(consumer, self.where[turn % len(self.where)])
                ask_s, turn = time.monotonic() + WATERMARKS_EVERY_S, turn + 1
        consumer.close()

    def _ask_watermarks(self, consumer: Consumer, place: Place) -> None:
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(*place), timeout=POLL_S)
        except KafkaException:
            return  # nobody there to be asked, for now
        with self.shared.lock:
            self.shared.history.watermarks(self.name, place.name, low=low, high=high)


class ZafkaReader(Reader):
    """By our client."""

    kind = "zafka"

    def work(self) -> None:
        with zafka.Consumer(
            bootstrap_servers=self.bootstrap, auto_offset_reset="earliest", bootstrap_timeout=READ_S,
            request_timeout=self.network_s,
        ) as consumer:
            consumer.assign(self.where)
            while not self.must_end.is_set():
                self.note([
                    (Place(record.topic, record.partition), record.offset, record.value or b"")
                    for record in consumer.poll(POLL_S, max_records=1000)])


def _confluent_consumer(bootstrap: str, *, reset: str, network_s: float = NETWORK_S) -> Consumer:
    return Consumer({
        "bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False, "auto.offset.reset": reset,
        "reconnect.backoff.max.ms": 200, "socket.timeout.ms": int(network_s * 1000), "log_level": 0})


def _record(message: Message) -> tuple[Place, int, bytes]:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None, message.error()
    return Place(topic, partition), offset, message.value() or b""


def _is_reset(message: Message) -> bool:
    """What came is not a record: the place that was asked for is gone."""
    error = message.error()
    return error is not None and error.code() == KafkaError._AUTO_OFFSET_RESET


# -- the end -------------------------------------------------------------------------------------


class _Moved(Exception):
    """Retention went on while a partition was read: what was to come next is gone."""


def end_offsets(bootstrap: str, where: Sequence[Place]) -> dict[Place, int]:
    """Where each place ends now."""
    consumer = _confluent_consumer(bootstrap, reset="error")
    try:
        return {place: consumer.get_watermark_offsets(TopicPartition(*place), timeout=READ_S)[1] for place in where}
    finally:
        consumer.close()


def read_everything(bootstrap: str, where: Sequence[Place], shared: Shared) -> int:
    """Hand every record of every partition to the history; returns how many there are. Readers should have ended."""
    consumer = _confluent_consumer(bootstrap, reset="error")
    try:
        return sum(_read_partition(consumer, place, shared) for place in where)
    finally:
        consumer.close()


def _read_partition(consumer: Consumer, place: Place, shared: Shared) -> int:
    for _ in range(REREADS):
        low, high = consumer.get_watermark_offsets(TopicPartition(*place), timeout=READ_S)
        shared.history.watermarks("full read", place.name, low=low, high=high)
        with contextlib.suppress(_Moved):
            shared.history.full_read(place.name, _records(consumer, place, low, high), low=low)
            return int(high - low)
    raise AssertionError(f"{place.name}: retention was faster than {REREADS} reads")


def _records(consumer: Consumer, place: Place, low: int, high: int) -> Iterator[tuple[int, bytes]]:
    consumer.assign([TopicPartition(*place, low)])
    deadline_s, next_offset = time.monotonic() + READ_S, low
    while next_offset < high:
        assert time.monotonic() < deadline_s, f"{place.name}: read to {next_offset} of {high}"
        for message in consumer.consume(min(5000, high - next_offset), timeout=0.5):
            if _is_reset(message):
                raise _Moved
            assert message.error() is None, message.error()
            _, offset, value = _record(message)
            deadline_s, next_offset = time.monotonic() + READ_S, offset + 1
            yield offset, value
