"""Records on their way: a batch from its first record to its acknowledgement, and the futures that wait for it.

Owns: `ProducerBatch`, its result, `Delivery` (one record of it) and `Deliveries` (what one `send_many` became).
A batch is filled under the producer's lock, then closed; from then on only the I/O thread changes it. Waiting and
asking are safe from every thread.
Invariant: a batch is completed or failed exactly once; later words about it are ignored.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from msgspec import Struct

from zafka.client.errors import RequestTimedOut, ZafkaError
from zafka.client.waiting import wait_event
from zafka.storage.batch import with_producer

logger = logging.getLogger("zafka.client")

NOT_NUMBERED = -1
SEQUENCE_MASK = 0x7FFFFFFF
NO_OFFSET = -1

# Guards `done` against a thread that is about to wait; held for an instant per batch, never while waiting.
_done_lock = threading.Lock()


class RecordMetadata(NamedTuple):
    """Where a record went. offset is -1 with acks=0, where nobody says. timestamp: ms, as consumers see it."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class Span(NamedTuple):
    """Consecutive values of a `send_many` that went to consecutive offsets of one partition."""

    topic: str
    partition: int
    base_offset: int
    record_count: int


class ProducerBatch:
    """Records of one partition that travel and succeed or fail together.

    order: position among all batches of the partition, in the order of sending.
    sequence: Kafka's base sequence, or NOT_NUMBERED before the first attempt and after a proof that it is not in the
        log.
    """

    __slots__ = (
        "_callbacks", "_encoded_numbers", "_event", "attempts", "base_offset", "builder", "closed", "codec", "count",
        "created_s", "data", "deadline_s", "done", "error", "error_seen", "hurry", "lane", "level", "linger_until_s",
        "log_append_time_ms", "on_done", "order", "partition", "producer_epoch", "producer_id", "sequence", "size_bytes", "slots",
        "topic",
    )  # fmt: skip

    def __init__(self, topic: str, partition: int, builder: Any, *, now_s: float, linger_s: float, deadline_s: float):
        self.topic = topic
        self.partition = partition
        self.builder = builder
        self.created_s = now_s
        self.linger_until_s = now_s + linger_s
        self.deadline_s = deadline_s
        self.order = 0
        self.count = 0
        self.size_bytes = 0  # estimated, uncompressed: what is counted against `buffer_memory`
        self.lane: Any = None  # lanes.Lane, the end of this batch that is being filled without a lock
        self.slots: list[Any] = []  # of its lanes
        self.closed = False
        self.codec = 0
        self.level: int | None = None
        self.data: bytearray | None = None
        self.hurry: Callable[[], None] | None = None  # have the I/O thread look at `linger_until_s`
        self.on_done: Callable[[ProducerBatch], None] | None = None  # the producer's, called once
        self.attempts = 0
        self.producer_id = -1
        self.producer_epoch = -1
        self.sequence = NOT_NUMBERED
        self._encoded_numbers = (-1, -1, -1)  # those in `data`
        self.done = False
        self.base_offset = NO_OFFSET
        self.log_append_time_ms = -1
        self.error: ZafkaError | None = None
        self.error_seen = False
        self._event: threading.Event | None = None
        self._callbacks: list[Callable[[], object]] | None = None

    def __repr__(self) -> str:
        state = "failed" if self.error else "acknowledged" if self.done else "closed" if self.closed else "open"
        where = f"{self.topic}-{self.partition} #{self.order}"
        return f"<ProducerBatch {where} {self.count} records seq={self.sequence} {state}>"

    # -- bytes -----------------------------------------------------------------------------------

    def number(self, producer_id: int, producer_epoch: int, sequence: int) -> None:
        """Give the batch its place in the producer's sequence; `encode` writes it."""
        self.producer_id, self.producer_epoch, self.sequence = producer_id, producer_epoch, sequence

    def encode(self) -> memoryview:
        """The bytes to send, with the current numbers. The records are encoded once, the header on each change."""
        sequence = self.sequence if self.producer_id >= 0 else -1
        numbers = (self.producer_id, self.producer_epoch, sequence)
        if self.data is None:
            self.data = self.builder.build(
                codec=self.codec, level=self.level,
                producer_id=self.producer_id, producer_epoch=self.producer_epoch, base_sequence=sequence,
            )
            self.builder, self.slots = None, []
        elif numbers != self._encoded_numbers:
            # A copy: the bytes of an earlier attempt may still lie in a queue of ZeroMQ.
            self.data = with_producer(
                self.data, producer_id=self.producer_id, producer_epoch=self.producer_epoch, base_sequence=sequence
            )
        self._encoded_numbers = numbers
        return memoryview(self.data)

    # -- result ----------------------------------------------------------------------------------

    def complete(self, base_offset: int, log_append_time_ms: int = -1) -> None:
        self._finish(base_offset, log_append_time_ms, None)

    def fail(self, error: ZafkaError) -> None:
        self._finish(NO_OFFSET, -1, error)

    def _finish(self, base_offset: int, log_append_time_ms: int, error: ZafkaError | None) -> None:
        with _done_lock:
            if self.done:
                return
            self.base_offset, self.log_append_time_ms, self.error = base_offset, log_append_time_ms, error
            self.done = True
            event, callbacks = self._event, self._callbacks
            self._callbacks = None
        self.builder, self.data, self.slots = None, None, []
        if event is not None:
            event.set()
        for callback in callbacks or ():
            _run_callback(callback)
        if self.on_done is not None:  # at last: when `flush` returns, callbacks were called
            self.on_done(self)

    def wait(self, timeout: float | None = None) -> bool:
        """True once the batch is acknowledged or failed; False if that took longer than `timeout` seconds."""
        if self.done:
            return True
        with _done_lock:
            if self.done:
                return True
            event = self._event
            if event is None:
                event = self._event = threading.Event()
        self.hurry_up()  # whoever waits for this batch will not add to it: lingering would only cost time
        return wait_event(event, timeout)

    def hurry_up(self) -> None:
        """Leave as soon as may be, if still open."""
        if not self.closed and self.hurry is not None:
            self.linger_until_s = 0.0
            self.hurry()

    def add_callback(self, callback: Callable[[], object]) -> None:
        with _done_lock:
            if not self.done:
                if self._callbacks is None:
                    self._callbacks = []
                self._callbacks.append(callback)
                return
        _run_callback(callback)


def _run_callback(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception:  # the user's code; the I/O thread serves others too
        logger.exception("a delivery callback raised")


class Delivery(Struct, gc=False, eq=False):
    """The future of one record. `result()` waits for the acknowledgement.

    A light stand-in for `concurrent.futures.Future`: the same methods, one small object per record.
    """

    batch: ProducerBatch
    index: int  # in the batch
    timestamp: int

    def __repr__(self) -> str:
        batch = self.batch
        state = (
            "pending" if not batch.done else "failed" if batch.error else f"offset {batch.base_offset + self.index}"
        )
        return f"<Delivery {batch.topic}-{batch.partition} {state}>"

    def done(self) -> bool:
        return self.batch.done

    def result(self, timeout: float | None = None) -> RecordMetadata:
        """Wait until the record is acknowledged.

        timeout: seconds; None waits as long as `delivery_timeout` allows, which always ends.
        Returns where it was written. Durable as far as `acks` asked for.
        Raises the error that the record failed with; RequestTimedOut if `timeout` passed first (it may still succeed).
        """
        batch = self.batch
        if not batch.wait(timeout):
            raise RequestTimedOut(f"no acknowledgement from {batch.topic}-{batch.partition} within {timeout} s so far")
        if batch.error is not None:
            batch.error_seen = True
            raise batch.error
        timestamp = batch.log_append_time_ms if batch.log_append_time_ms >= 0 else self.timestamp
        offset = NO_OFFSET if batch.base_offset < 0 else batch.base_offset + self.index
        return RecordMetadata(batch.topic, batch.partition, offset, timestamp)

    def exception(self, timeout: float | None = None) -> ZafkaError | None:
        """Like `result`, but the error is returned; None if the record is acknowledged."""
        if not self.batch.wait(timeout):
            raise RequestTimedOut(f"no acknowledgement within {timeout} s so far")
        self.batch.error_seen = True
        return self.batch.error

    def add_done_callback(self, function: Callable[[Delivery], object]) -> None:
        """Call `function(self)` once done: at once, or later in the I/O thread, so it must not block."""
        self.batch.error_seen = True
        self.batch.add_callback(lambda: function(self))


class Deliveries:
    """What one `send_many` became: a few batches, not one future per record."""

    __slots__ = ("pieces",)

    def __init__(self, pieces: list[tuple[ProducerBatch, int, int]]) -> None:
        self.pieces = pieces  # (batch, index of the first record in it, count), in the order of the values

    def __len__(self) -> int:
        """The number of records."""
        return sum(count for _, _, count in self.pieces)

    def done(self) -> bool:
        return all(batch.done for batch, _, _ in self.pieces)

    def result(self, timeout: float | None = None) -> list[Span]:
        """Wait for all and return where the values went: spans in the order of the values.

        timeout: seconds for each batch. Raises the first error; then other records may have been written.
        """
        return list(self._spans(timeout))

    def _spans(self, timeout: float | None) -> Iterator[Span]:
        for batch, index, count in self.pieces:
            where = Delivery(batch, index, -1).result(timeout)
            yield Span(where.topic, where.partition, where.offset, count)
