"""The order of one partition's batches: which may be sent now, and what an answer means for it and those behind it.

Owns: numbering (producer id, epoch, sequence), the limit in flight, retries in order. Pure: no clock, no I/O.
Invariants, idempotent:
- Batches are numbered in the order of sending, and none is sent for the first time while one that lies
  `IN_FLIGHT_MAX` before it is unresolved: a broker remembers that many, and takes an older one for a gap.
- A batch keeps its numbers until the broker acknowledged it or proved that it is not in the log. So what may have
  been written is only ever repeated under the same numbers.
- A hole in the sequence (a batch that failed for good or was given up) is mended by a new epoch, which begins at 0,
  and only when every numbered batch of the partition is resolved. Epochs of partitions are independent: brokers keep
  producer state per partition.
Not idempotent: one batch in flight per partition, so that a retry never overtakes (acks=0: no answers, no limit).
Source: Kafka TransactionManager.canRetry and RecordAccumulator.drainBatchesForOneNode; KIP-360. Java renumbers by
epoch too; it does so for all partitions of the producer at once.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from zafka.client.batches import NOT_NUMBERED, SEQUENCE_MASK, ProducerBatch
from zafka.client.errors import BrokerRefused, DeliveryTimeout, error_name, is_retriable
from zafka.transport.kafka.errors import ErrorCode

IN_FLIGHT_MAX = 5
LAST_EPOCH = 0x7FFF
NO_PRODUCER_ID = -1

BACKOFF_FIRST_S = 0.02
BACKOFF_MAX_S = 1.0

# The batch is not in the log under these numbers, or never will be: its numbers are free again.
_SEQUENCE_ERRORS = frozenset(
    (
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
        ErrorCode.UNKNOWN_PRODUCER_ID,
        ErrorCode.INVALID_PRODUCER_EPOCH,
        ErrorCode.PRODUCER_FENCED,
        ErrorCode.INVALID_PRODUCER_ID_MAPPING,
    )
)


class Verdict(Enum):
    """What became of a batch by an answer."""

    DONE = "done"  # acknowledged
    FAILED = "failed"  # for good
    RETRY = "retry"  # queued again, in its place


class PartitionQueue:
    """The closed batches of one partition that are not resolved."""

    def __init__(self, topic: str, partition: int, *, idempotent: bool, in_flight_max: int) -> None:
        self.topic = topic
        self.partition = partition
        self.idempotent = idempotent
        self.in_flight_max = min(in_flight_max, IN_FLIGHT_MAX) if idempotent else in_flight_max
        self.waiting: deque[ProducerBatch] = deque()  # by `order`
        self.flying: list[ProducerBatch] = []  # by `order`
        self.next_order = 0
        self.producer_id = NO_PRODUCER_ID
        self.producer_epoch = -1
        self.used_up_id = NO_PRODUCER_ID  # one whose epochs are all used up in this partition
        self.next_sequence = 0  # of the next batch that gets its first number
        self.has_hole = False  # the sequence is broken: resolve what is numbered, then a new epoch
        self.retry_at_s = 0.0
        self.failures = 0  # rounds in a row
        self.last_error = ""
        self.complained = False  # the user was told of this row of failures

    def __repr__(self) -> str:
        numbers = (
            f" id={self.producer_id} epoch={self.producer_epoch} next={self.next_sequence}" if self.idempotent else ""
        )
        hole = " hole" if self.has_hole else ""
        return (
            f"<PartitionQueue {self.topic}-{self.partition} waiting={len(self.waiting)} "
            f"flying={len(self.flying)}{numbers}{hole}>"
        )

    @property
    def is_empty(self) -> bool:
        return not self.waiting and not self.flying

    @property
    def has_room(self) -> bool:
        """True if one more batch would not wait for others."""
        return not self.waiting and len(self.flying) < self.in_flight_max

    @property
    def deadline_s(self) -> float:
        """When the next batch expires."""
        waiting_s = self.waiting[0].deadline_s if self.waiting else float("inf")
        return min([waiting_s, *(batch.deadline_s for batch in self.flying if not batch.done)])

    @property
    def needs_producer_id(self) -> bool:
        return self.idempotent and self.producer_id == NO_PRODUCER_ID

    def begin(self, producer_id: int, producer_epoch: int) -> None:
        """Start a new sequence. Only when no numbered batch is unresolved."""
        assert not self.flying
        self.producer_id, self.producer_epoch = producer_id, producer_epoch
        self.next_sequence = 0
        self.has_hole = False

    def add(self, batch: ProducerBatch) -> None:
        """Queue a closed batch behind all others."""
        batch.order = self.next_order
        self.next_order += 1
        self.waiting.append(batch)

    # -- sending ---------------------------------------------------------------------------------

    def peek(self, now_s: float) -> ProducerBatch | None:
        """The batch that may be sent now, or None. Begins a new epoch where one is due."""
        if not self.waiting or now_s < self.retry_at_s or len(self.flying) >= self.in_flight_max:
            return None
        if not self.idempotent:
            return self.waiting[0]
        if self.has_hole:
            # First resolve what may be in the log, under its old numbers.
            for batch in self.waiting:
                if batch.sequence != NOT_NUMBERED:
                    return batch
            if self.flying:
                return None
            self._new_epoch()
        return None if self.producer_id == NO_PRODUCER_ID or self._would_outrun(self.waiting[0]) else self.waiting[0]

    def _would_outrun(self, batch: ProducerBatch) -> bool:
        """True if a new batch would push an unresolved one out of the broker's memory."""
        if batch.sequence != NOT_NUMBERED or not self.flying:
            return False
        return batch.order - min(other.order for other in self.flying) >= IN_FLIGHT_MAX

    def take(self, batch: ProducerBatch) -> None:
        """Number the batch that `peek` returned, if it is not yet, and count it as in flight."""
        if batch is self.waiting[0]:
            self.waiting.popleft()
        else:
            self.waiting.remove(batch)
        if self.idempotent and batch.sequence == NOT_NUMBERED:
            batch.number(self.producer_id, self.producer_epoch, self.next_sequence)
            self.next_sequence = (self.next_sequence + batch.count) & SEQUENCE_MASK
        batch.attempts += 1
        self.flying.append(batch)

    def _new_epoch(self) -> None:
        if self.producer_epoch < LAST_EPOCH and self.producer_id != NO_PRODUCER_ID:
            self.begin(self.producer_id, self.producer_epoch + 1)
        else:
            self.used_up_id = self.producer_id
            self.begin(NO_PRODUCER_ID, -1)

    # -- what became of it -----------------------------------------------------------------------

    def on_acknowledged(self, batch: ProducerBatch) -> None:
        self.flying.remove(batch)
        self.failures = 0
        self.complained = False
        self.retry_at_s = 0.0
        self.last_error = ""

    def on_error(self, batch: ProducerBatch, code: int, detail: str | None, now_s: float) -> Verdict:
        """The broker answered with an error. FAILED: the batch is failed with a clear message."""
        if code == ErrorCode.DUPLICATE_SEQUENCE_NUMBER:
            self.on_acknowledged(batch)
            return Verdict.DONE
        is_about_sequence = self.idempotent and code in _SEQUENCE_ERRORS
        if not is_about_sequence and not is_retriable(code):
            self.on_refused(batch)
            batch.fail(_refusal(batch, code, detail))
            return Verdict.FAILED
        self.flying.remove(batch)
        follows_another = is_about_sequence and self._on_sequence_error(batch, code)
        if not (follows_another and self.last_error):
            self.last_error = f"{error_name(code)}: {detail}" if detail else error_name(code)
        return self._retry(batch, now_s)

    def on_refused(self, batch: ProducerBatch) -> None:
        """The batch failed for good and is not in the log."""
        self.flying.remove(batch)
        self.has_hole = self.has_hole or self.idempotent

    def on_lost(self, batch: ProducerBatch, why: str, now_s: float) -> Verdict:
        """The connection ended without an answer: perhaps written, so it is repeated under its numbers."""
        self.flying.remove(batch)
        self.last_error = why
        return self._retry(batch, now_s)

    def _on_sequence_error(self, batch: ProducerBatch, code: int) -> bool:
        """Take the numbers away if the broker's word is a proof, or leave them if a predecessor is still due (True)."""
        # Numbered batches that wait are unresolved too, and the first in the queue.
        is_oldest = all(other.order > batch.order for other in (*self.flying, *self.waiting))
        if code == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER and not is_oldest and not self.has_hole:
            return True  # an earlier batch has to be repeated first; then this one fits
        self.has_hole = True
        batch.number(NO_PRODUCER_ID, -1, NOT_NUMBERED)
        return False

    def _retry(self, batch: ProducerBatch, now_s: float) -> Verdict:
        if batch.done:
            # Given up while it was in flight: the user knows it as failed already.
            self.has_hole = self.has_hole or self.idempotent
            return Verdict.FAILED
        behind = 0
        while behind < len(self.waiting) and self.waiting[behind].order < batch.order:
            behind += 1
        self.waiting.insert(behind, batch)
        if now_s >= self.retry_at_s:
            # Several batches that come back together are one failure.
            self.failures += 1
            self.retry_at_s = now_s + min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(self.failures - 1, 10))
        return Verdict.RETRY

    def expire(self, now_s: float) -> None:
        """Fail what was not acknowledged by its deadline.

        Batches in flight fail too, but keep their place until their answer or the end of their connection.
        """
        while self.waiting and self.waiting[0].deadline_s <= now_s:
            batch = self.waiting.popleft()
            if batch.sequence != NOT_NUMBERED:
                self.has_hole = self.has_hole or self.idempotent
            batch.fail(_expired(batch, self.last_error))
        for batch in self.flying:
            if batch.deadline_s <= now_s and not batch.done:
                batch.fail(_expired(batch, self.last_error))


def _expired(batch: ProducerBatch, why: str) -> DeliveryTimeout:
    waited = batch.deadline_s - batch.created_s
    sent = f"sent {batch.attempts} times, perhaps written" if batch.attempts else "never sent"
    return DeliveryTimeout(
        f"{batch.count} records for {batch.topic}-{batch.partition} were not acknowledged within {waited:g} s "
        f"(delivery_timeout); {sent}{f'; last error: {why}' if why else ''}"
    )


def _refusal(batch: ProducerBatch, code: int, detail: str | None) -> BrokerRefused:
    where = f"{batch.topic}-{batch.partition} refused a batch of {batch.count} records"
    if code == ErrorCode.MESSAGE_TOO_LARGE:
        size = len(batch.data) if batch.data is not None else batch.size_bytes
        hint = f"{size} bytes are more than the topic's max.message.bytes; use a smaller batch_size or raise it"
        return BrokerRefused(where, code, f"{detail}; {hint}" if detail else hint)
    if code == ErrorCode.UNSUPPORTED_COMPRESSION_TYPE:
        return BrokerRefused(where, code, detail or "the broker does not take this codec; use another compression_type")
    return BrokerRefused(where, code, detail)
