"""Virtual time, and the order in which things happen in it.

Owns: the queue of events, the seeded random streams, the trace and its hash, what was counted, what does not hold.
Nothing here or above it reads a real clock, the system's random numbers, or the order of a set: a run depends on its
seed, its scenario and the code alone.
"""

from __future__ import annotations

import heapq
import zlib
from collections import Counter
from collections.abc import Callable
from random import Random
from struct import Struct
from typing import Any, NamedTuple

from greenlet import getcurrent

BEGIN_S = 1000.0
WALL_MS = 1_700_000_000_000
TRACED = Struct("<dI").pack
EVENTS_MAX = 300_000


class Violation(NamedTuple):
    """check: the invariant, in one word; what: who did what."""

    check: str
    what: str


class Engine:
    """seed: every random stream is made from it and a name, so that one does not disturb another.

    tell: takes the lines of a readable trace, None if nobody wants them.
    """

    def __init__(self, seed: int, tell: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.now_s = BEGIN_S
        self.hub = getcurrent()  # what runs the events
        self.wall_ahead_ms = 0  # how far the wall clock has jumped
        self.trace_hash = 0
        self.counts: Counter[str] = Counter()
        self.violations: list[Violation] = []
        self.tell = tell
        self._queue: list[tuple[float, float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0
        self._ties = self.stream("ties").random

    def stream(self, name: str) -> Random:
        return Random(f"{self.seed}/{name}")

    # -- time ------------------------------------------------------------------------------------

    def at(self, at_s: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call at this time, or as soon as it is past; what is due at the same time comes in an order of the seed's."""
        self._number += 1
        heapq.heappush(self._queue, (max(at_s, self.now_s), self._ties(), self._number, call, arguments))

    def after(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now_s + seconds, call, *arguments)

    def run(self, until_s: float, done: Callable[[], bool] | None = None) -> bool:
        """Let things happen until then, or until `done` says so; False if it never did.

        What does not hold ends the run: the rest would only be what follows from it."""
        queue = self._queue
        while queue and queue[0][0] <= until_s:
            self.now_s, _, _, call, arguments = heapq.heappop(queue)
            call(*arguments)
            if self._number > EVENTS_MAX:
                self.violate("rest", f"{EVENTS_MAX} events and no end")
            if self.violations:
                return False
            if done is not None and done():
                return True
        self.now_s = max(self.now_s, until_s)
        return done is None

    def wall_ms(self, now_s: float) -> int:
        return WALL_MS + int((now_s - BEGIN_S) * 1000) + self.wall_ahead_ms

    # -- what is told of it ----------------------------------------------------------------------

    def trace(self, who: str, what: str, *more: Any) -> None:
        """A line for people; its place in time and its words go into the hash."""
        self.hash(what.encode())
        if self.tell is not None:
            self.detail(who, what, *more)

    def detail(self, who: str, what: str, *more: Any) -> None:
        """Of a readable trace only; to be called only if somebody reads it."""
        assert self.tell is not None
        words = " ".join(str(each)[:200] for each in more)
        self.tell(f"{self.now_s - BEGIN_S:10.6f}  {who:<22} {what} {words}".rstrip())

    def hash(self, data: bytes | memoryview) -> None:
        """Bytes that were sent or written, and when."""
        self.trace_hash = zlib.crc32(TRACED(self.now_s, zlib.crc32(data)), self.trace_hash)

    def violate(self, check: str, what: str) -> None:
        self.violations.append(Violation(check, what))
        self.trace("CHECK", f"{check}: {what}")
