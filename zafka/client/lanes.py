"""The short way into an open batch: slots for values that threads take without a lock.

Owns: `Lane`, some slots at the end of a batch for values of one millisecond and of no more than so many bytes. Whoever
takes a slot with `next(free)` is alone with it, because that is one step for all threads, and then puts a value in.
Invariants: who ends a lane takes the slots that are left, so that no one else gets any; until then nobody else adds to
the batch, so that a record's slot is its place in the batch. A slot that was taken is filled a moment later, or the
lane is spoiled.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

from zafka.client.batches import Delivery, ProducerBatch
from zafka.storage.batch_builder import PLAIN_OVERHEAD_BYTES

# `next` of a range is one step only where the interpreter has a lock.
HAS_LANES = getattr(sys, "_is_gil_enabled", lambda: True)()
SLOTS_LEAST = 2  # fewer are not worth it
SLOTS_FIRST = 16  # of a lane after one that was not used; who sends much soon has more
FILLED_WITHIN_S = 1.0  # between two steps of a thread; a debugger may stand there
LOOK_S = 0.0001


class Lane:
    """slot_count: how many there are. value_bytes_max: of the largest value that may take a slot.

    timestamp_ms: of all its records, which come before `until_s`.
    """

    __slots__ = (
        "batch", "first", "free", "reserved_bytes", "slot_count", "spoiled", "timestamp_ms", "until_s",
        "value_bytes_max", "values",
    )  # fmt: skip

    def __init__(self, batch: ProducerBatch, *, slot_count: int, value_bytes_max: int, timestamp_ms: int) -> None:
        self.batch = batch
        self.first: int = batch.builder.record_count
        self.slot_count = slot_count
        self.value_bytes_max = value_bytes_max
        self.reserved_bytes = slot_count * (value_bytes_max + PLAIN_OVERHEAD_BYTES)
        self.timestamp_ms = timestamp_ms
        self.until_s = (timestamp_ms + 1) / 1000
        end = self.first + slot_count
        self.values: list[Any] = batch.slots  # by their places in the batch
        self.values += [None] * (end - len(self.values))
        self.free: Iterator[int] = iter(range(self.first, end))
        self.spoiled = False  # a thread was interrupted between taking a slot and filling it, maybe

    def __repr__(self) -> str:
        return f"<Lane of {self.slot_count} slots from {self.first} on, {self.batch!r}>"

    def put(self, value: bytes) -> Delivery | None:
        """Add a record, or return None if the lane is full or over. `Producer.send` has these lines in it: a call is dear."""
        if len(value) > self.value_bytes_max or time.time() >= self.until_s:
            return None
        try:
            self.values[index := next(self.free)] = value
            return Delivery(self.batch, index, self.timestamp_ms)
        except StopIteration:
            return None
        except BaseException:  # Ctrl-C, maybe between the two steps
            self.spoiled = True
            raise

    def end(self) -> tuple[list[bytes], list[int]] | None:
        """Hand out no more slots. Returns the values that came and their lengths, or None if a slot was taken and stays empty."""
        end = self.first + self.slot_count - len(list(self.free))
        give_up_s = time.monotonic() + FILLED_WITHIN_S
        while True:
            values = self.values[self.first : end]
            try:
                return values, list(map(len, values))
            except TypeError:  # an empty one; a thread stands between the two steps
                if self.spoiled or time.monotonic() >= give_up_s:
                    return None
                time.sleep(LOOK_S)
