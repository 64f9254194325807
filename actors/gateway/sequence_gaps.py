"""Batches of idempotent producers that were turned away, so that no later one takes their place.

Owns: `SequenceGaps`. A partition takes any first sequence number from a producer that it does not know (KIP-360), so
the first batch of a producer could be overtaken: it is refused while the partition restarts, the second, sent before
the client heard of it, finds the partition serving, and the retry of the first is out of order for ever.
Invariant: until a batch that was turned away comes again, none of its producer with a later sequence passes.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from zafka.storage.batch import HEADER_BYTES

PRODUCER = Struct(">qhi")  # producer id, epoch, base sequence
PRODUCER_POSITION = 43

# Only what was in flight when the client was answered can overtake; it is here long before.
GAP_S = 10.0
GAPS_MAX = 10_000
HALF = 1 << 30  # sequences begin at 0 again after 2^31 - 1

Key = tuple[str | bytes, int, int]
"""Topic, partition, producer id."""


class Gap(NamedTuple):
    epoch: int
    sequence: int
    until_s: float


class SequenceGaps:
    """The earliest batch of each producer and partition that was turned away and did not come again."""

    def __init__(self) -> None:
        self._gaps: dict[Key, Gap] = {}

    def __bool__(self) -> bool:
        """True while any batch may be held back."""
        return bool(self._gaps)

    def turned_away(self, topic: str | bytes, partition: int, records: memoryview | None, now_s: float) -> None:
        """This batch was answered with an error that lets its client send it again."""
        if records is None or len(records) < HEADER_BYTES:
            return
        producer_id, epoch, sequence = PRODUCER.unpack_from(records, PRODUCER_POSITION)
        if producer_id < 0:
            return
        key = topic, partition, producer_id
        gap = self._gaps.get(key)
        if gap is not None and now_s < gap.until_s and gap.epoch == epoch and is_later(sequence, gap.sequence):
            return
        if len(self._gaps) >= GAPS_MAX:
            del self._gaps[next(iter(self._gaps))]
        self._gaps[key] = Gap(epoch, sequence, now_s + GAP_S)

    def overtakes(self, topic: str | bytes, partition: int, records: memoryview, now_s: float) -> bool:
        """Whether this batch may not pass. The one that was turned away closes its gap."""
        if not self._gaps or len(records) < HEADER_BYTES:
            return False
        producer_id, epoch, sequence = PRODUCER.unpack_from(records, PRODUCER_POSITION)
        gap = self._gaps.get((topic, partition, producer_id))
        if gap is None:
            return False
        if now_s < gap.until_s and gap.epoch == epoch and sequence != gap.sequence:
            return is_later(sequence, gap.sequence)
        del self._gaps[topic, partition, producer_id]
        return False


def is_later(sequence: int, other: int) -> bool:
    return sequence != other and (sequence - other) & 0x7FFFFFFF < HALF
