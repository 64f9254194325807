"""What the log remembers of idempotent producers, so that a retry is answered and not written again.

Owns: the last five batches of each producer id, its epoch and where its open transaction began.
May fail with: CorruptSnapshot, from `load`. Invariant: it is a function of the log's batches in their order, but for
the producers that were forgotten; a forgotten producer may go on with any sequence, as in Kafka.
Source: KIP-98, KIP-360; Kafka ProducerStateManager, ProducerStateEntry, ProducerAppendInfo.

Snapshot, Kafka's `.snapshot` version 1:
    0  version  int16   1
    2  crc      uint32  CRC-32C of everything after it
    6  count    int32
    then for each entry:
    0  producer_id  int64     22  offset_delta              int32   last sequence - first sequence
    8  epoch        int16     26  timestamp                 int64
   10  last_sequence int32    34  coordinator_epoch         int32
   14  last_offset  int64     38  current_txn_first_offset  int64   -1: none
Kafka writes one entry for a producer, with its last batch only, so that after a restart a retry of the batch
before is refused. We write one for each batch, oldest first; Kafka's reader keeps the last one of an id.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from crc32c import crc32c

from zafka.storage.batch import NO_PRODUCER_ID, BatchHeader
from zafka.storage.disk import Buffer
from zafka.storage.errors import (
    INVALID_PRODUCER_EPOCH,
    INVALID_TXN_STATE,
    NONE,
    OUT_OF_ORDER_SEQUENCE_NUMBER,
    CorruptSnapshot,
)

BATCHES_KEPT = 5  # the most that a client may have in flight
EXPIRATION_MS = 86_400_000  # Kafka's default of producer.id.expiration.ms
PRODUCERS_MAX = 20_000

NO_SEQUENCE = -1
NO_OFFSET = -1
MAX_SEQUENCE = 2**31 - 1

_SNAPSHOT_VERSION = 1
_SNAPSHOT_HEADER = struct.Struct(">hI")
_COUNT = struct.Struct(">i")
_ENTRY = struct.Struct(">qhiqiqiq")


class Append(NamedTuple):
    """Verdict: the batch is the next one of its producer."""

    error: int = NONE
    message: str = ""


class Duplicate(NamedTuple):
    """Verdict: the log has this batch already, here. timestamp: the batch's largest, or its LogAppendTime."""

    base_offset: int
    last_offset: int
    timestamp: int
    error: int = NONE
    message: str = ""

    @property
    def end_offset(self) -> int:
        return self.last_offset + 1


class Rejected(NamedTuple):
    """Verdict: the batch may not be appended. error: Kafka's code."""

    error: int
    message: str


Verdict = Append | Duplicate | Rejected
_APPEND = Append()


class AppendedBatch(NamedTuple):
    last_sequence: int
    last_offset: int
    offset_delta: int
    timestamp: int

    @property
    def first_sequence(self) -> int:
        return self.last_sequence - self.offset_delta & MAX_SEQUENCE


@dataclass(slots=True)
class Producer:
    """One producer id. batches: of this epoch, oldest first.

    seen_ms: when `expire` last saw that it had appended; -1: it has appended since. A batch's timestamp would not
    do: producers may write old records.
    """

    epoch: int
    batches: list[AppendedBatch] = field(default_factory=list)
    seen_ms: int = -1
    coordinator_epoch: int = -1
    transaction_first_offset: int = NO_OFFSET

    @property
    def last_sequence(self) -> int:
        return self.batches[-1].last_sequence if self.batches else NO_SEQUENCE

    def find(self, first_sequence: int, last_sequence: int) -> AppendedBatch | None:
        for batch in self.batches:
            if batch.last_sequence == last_sequence and batch.first_sequence == first_sequence:
                return batch
        return None


class ProducerStates:
    """The producers of one partition, the one that appended last at the end."""

    def __init__(self, *, producers_max: int = PRODUCERS_MAX) -> None:
        self._producers: dict[int, Producer] = {}
        self._producers_max = producers_max

    def __repr__(self) -> str:
        return f"<ProducerStates producers={len(self._producers)}>"

    def __len__(self) -> int:
        return len(self._producers)

    def get(self, producer_id: int) -> Producer | None:
        return self._producers.get(producer_id)

    def check(self, header: BatchHeader) -> Verdict:
        """Whether a batch that a client sent may be appended next. Changes nothing.

        A producer that is not known may begin with any sequence: its state may have expired with its records.
        Source: ProducerStateEntry.findDuplicateBatch, ProducerAppendInfo.checkProducerEpoch, checkSequence.
        """
        producer_id = header.producer_id
        producer = self._producers.get(producer_id)
        if producer is None or producer_id == NO_PRODUCER_ID:
            return _APPEND
        epoch, sequence = header.producer_epoch, header.base_sequence
        if epoch == producer.epoch:
            if sequence != producer.last_sequence + 1 & MAX_SEQUENCE:
                found = producer.find(sequence, last_sequence(header))
                if found is None:
                    return Rejected(
                        OUT_OF_ORDER_SEQUENCE_NUMBER,
                        f"sequence {sequence} of producer {producer_id} does not follow {producer.last_sequence}",
                    )
                return Duplicate(found.last_offset - found.offset_delta, found.last_offset, found.timestamp)
        elif epoch < producer.epoch:
            return Rejected(
                INVALID_PRODUCER_EPOCH, f"epoch {epoch} of producer {producer_id} is older than {producer.epoch}"
            )
        elif sequence != 0:
            return Rejected(
                OUT_OF_ORDER_SEQUENCE_NUMBER,
                f"sequence {sequence} of producer {producer_id} does not begin its new epoch {epoch}",
            )
        if producer.transaction_first_offset != NO_OFFSET and not header.is_transactional:
            return Rejected(INVALID_TXN_STATE, f"producer {producer_id} is in a transaction, the batch is not")
        return _APPEND

    def update(self, header: BatchHeader, base_offset: int) -> None:
        """A batch was appended at `base_offset`, or found there by recovery.

        Transaction markers are passed over: they come with transactions.
        """
        producer_id = header.producer_id
        if producer_id == NO_PRODUCER_ID or header.is_control:
            return
        # Taken out and put in again, so that the dict's order is that of the last append.
        producer = self._producers.pop(producer_id, None)
        if producer is None:
            self._make_room()
            producer = Producer(header.producer_epoch)
        elif producer.epoch != header.producer_epoch:
            producer.epoch = header.producer_epoch
            producer.batches.clear()
        elif len(producer.batches) == BATCHES_KEPT:
            del producer.batches[0]
        self._producers[producer_id] = producer
        delta = header.last_offset_delta
        producer.batches.append(AppendedBatch(last_sequence(header), base_offset + delta, delta, header.max_timestamp))
        producer.seen_ms = -1
        if header.is_transactional and producer.transaction_first_offset == NO_OFFSET:
            producer.transaction_first_offset = base_offset

    def _make_room(self) -> None:
        """Forget the producer that has not appended for the longest time, if there are too many. Kafka has no bound."""
        if len(self._producers) >= self._producers_max:
            for producer_id, producer in self._producers.items():
                if producer.transaction_first_offset == NO_OFFSET:
                    del self._producers[producer_id]
                    return

    def expire(self, now_ms: int, expiration_ms: int = EXPIRATION_MS) -> int:
        """Forget producers that have not appended for `expiration_ms`; call it every few minutes.

        Returns how many. One that has appended since the last call counts as seen now, and stays.
        """
        expired = []
        for producer_id, producer in self._producers.items():
            if not 0 <= producer.seen_ms <= now_ms:
                producer.seen_ms = now_ms
            elif now_ms - producer.seen_ms >= expiration_ms and producer.transaction_first_offset == NO_OFFSET:
                expired.append(producer_id)
        for producer_id in expired:
            del self._producers[producer_id]
        return len(expired)

    def describe(self) -> list[tuple[int, int, int, int, int, int]]:
        """(id, epoch, last sequence, timestamp of the last batch, coordinator epoch, first offset of the open
        transaction) of every producer, -1 where there is none."""
        return [
            (producer_id, producer.epoch, producer.last_sequence,
             producer.batches[-1].timestamp if producer.batches else -1, producer.coordinator_epoch,
             producer.transaction_first_offset)
            for producer_id, producer in self._producers.items()]

    def last_offsets(self) -> dict[int, int]:
        """Of each producer's newest batch, by producer id: the batches that hold what is remembered of sequences."""
        return {
            producer_id: producer.batches[-1].last_offset
            for producer_id, producer in self._producers.items() if producer.batches}

    def snapshot(self) -> bytes:
        """All of it, in Kafka's format."""
        entries = []
        for producer_id, producer in self._producers.items():
            for batch in producer.batches or (_NO_BATCH,):
                entries.append(
                    _ENTRY.pack(
                        producer_id,
                        producer.epoch,
                        *batch,
                        producer.coordinator_epoch,
                        producer.transaction_first_offset,
                    )
                )
        body = _COUNT.pack(len(entries)) + b"".join(entries)
        return _SNAPSHOT_HEADER.pack(_SNAPSHOT_VERSION, crc32c(body)) + body

    def load(self, snapshot: Buffer) -> None:
        """Become what `snapshot` gave, or Kafka wrote. Raises CorruptSnapshot, and has not changed then."""
        producers: dict[int, Producer] = {}
        for entry in _entries(memoryview(snapshot)):
            producer_id, epoch, sequence, offset, delta, timestamp, coordinator_epoch, first_offset = entry
            if producer_id < 0 or epoch < 0 or delta < 0 or sequence < NO_SEQUENCE:
                raise CorruptSnapshot(f"producer {producer_id}: epoch {epoch}, sequence {sequence}, delta {delta}")
            producer = producers.get(producer_id)
            if producer is None:
                producer = producers[producer_id] = Producer(epoch)
            elif producer.epoch != epoch or len(producer.batches) == BATCHES_KEPT:
                raise CorruptSnapshot(f"two epochs or too many batches of producer {producer_id}")
            if offset >= 0:
                producer.batches.append(AppendedBatch(sequence, offset, delta, timestamp))
            producer.seen_ms = timestamp
            producer.coordinator_epoch = coordinator_epoch
            producer.transaction_first_offset = max(first_offset, NO_OFFSET)
        self._producers = producers


# What Kafka writes for a producer that has no batch.
_NO_BATCH = AppendedBatch(NO_SEQUENCE, NO_OFFSET, 0, -1)


def last_sequence(header: BatchHeader) -> int:
    """Of the batch's last record; sequences begin at 0 again after 2^31 - 1."""
    return header.base_sequence + header.last_offset_delta & MAX_SEQUENCE


def _entries(snapshot: memoryview) -> list[tuple[int, ...]]:
    start = _SNAPSHOT_HEADER.size
    if len(snapshot) < start + _COUNT.size:
        raise CorruptSnapshot(f"a producer snapshot of {len(snapshot)} bytes")
    version, crc = _SNAPSHOT_HEADER.unpack_from(snapshot)
    if version != _SNAPSHOT_VERSION:
        raise CorruptSnapshot(f"a producer snapshot of version {version}")
    if crc32c(snapshot[start:]) != crc:
        raise CorruptSnapshot("the CRC-32C does not fit the producer snapshot")
    (count,) = _COUNT.unpack_from(snapshot, start)
    body = snapshot[start + _COUNT.size :]
    if count * _ENTRY.size != len(body):
        raise CorruptSnapshot(f"{count} producers in {len(body)} bytes")
    return list(_ENTRY.iter_unpack(body))
