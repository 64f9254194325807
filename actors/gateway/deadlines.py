"""Deadlines of requests: many are set, nearly all are cancelled, few are reached.

Owns: `Deadlines`, a calendar of buckets. Setting and cancelling cost one dict operation each, and a cancelled
deadline leaves nothing behind but its bucket, so memory is bounded by the horizon and not by the request rate.
Invariant: nothing is reached early; it is late by at most one bucket.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import Protocol

TICK_S = 0.005
COARSE_TICKS = 50  # buckets of a quarter of a second for what is far away
FAR_S = 2.0
HORIZON_S = 3600.0


class Expiring(Protocol):
    """Something that waits. `bucket` belongs to `Deadlines`; 0 while nothing is set."""

    bucket: int

    def on_deadline(self) -> None: ...


class Deadlines:
    def __init__(self) -> None:
        self._buckets: dict[int, dict[Expiring, None]] = {}
        self._order: list[int] = []  # heap of the keys of `_buckets`
        self._last = (-1.0, 0.0, 0)  # the last time, delay and its bucket: many are set in one turn

    def set(self, waiting: Expiring, now_s: float, delay_s: float) -> None:
        """Call `waiting.on_deadline()` in `delay_s` seconds, an hour at most."""
        assert waiting.bucket == 0
        last_s, last_delay_s, bucket = self._last
        if now_s == last_s and delay_s == last_delay_s:
            self._buckets[bucket][waiting] = None
            waiting.bucket = bucket
            return
        bucket = math.ceil((now_s + min(max(delay_s, 0.0), HORIZON_S)) / TICK_S)
        if delay_s >= FAR_S:
            bucket += -bucket % COARSE_TICKS
        members = self._buckets.get(bucket)
        if members is None:
            members = self._buckets[bucket] = {}
            heappush(self._order, bucket)
        members[waiting] = None
        waiting.bucket = bucket
        self._last = now_s, delay_s, bucket

    def cancel(self, waiting: Expiring) -> None:
        """Forget a deadline; nothing happens if none is set."""
        if waiting.bucket:
            self._buckets[waiting.bucket].pop(waiting, None)
            waiting.bucket = 0

    @property
    def next_s(self) -> float | None:
        """When `expire` wants to be called, in monotonic seconds."""
        return self._order[0] * TICK_S if self._order else None

    def expire(self, now_s: float) -> None:
        """Call `on_deadline` of everything whose time has come, in the order of time."""
        while self._order and self._order[0] * TICK_S <= now_s:
            bucket = self._order[0]
            self._last = (-1.0, 0.0, 0)
            members = self._buckets[bucket]
            # One that is reached may cancel others of its bucket.
            while members:
                waiting = next(iter(members))
                del members[waiting]
                waiting.bucket = 0
                waiting.on_deadline()
            heappop(self._order)
            del self._buckets[bucket]

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))
