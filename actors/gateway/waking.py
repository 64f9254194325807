"""Whose turn it is of the long polls that have news: some at a time, each partition's in its turn, fewer on a busy machine.

Owns: `Waking`, the polls with news, and when the next of them are looked at. A batch that hundreds wait for must not stop
everything until all of them have it, nor may it keep those waiting who read something else. After each portion comes a
pause, in which whatever else came is served: partitions, and the clients that take these answers, need the cores too.
Pace: a pause whose end is noticed late says that whoever is ready waits for a core; then the next portion is half of this one,
and grows again by steps, as a congestion window does (Chiu and Jain 1989; RFC 5681).
Invariant: who has news is looked at, once however much came, and polls of one partition in the order in which they had news.
"""

from __future__ import annotations

from typing import Protocol

PORTION_MAX, PORTION_MIN, PORTION_STEP = 20, 4, 2
PAUSE_S = 0.001
LATE_S = 0.0014  # timers of the event loop are up to 1 ms late by themselves


class Woken(Protocol):
    """A long poll with news: looked at once, however much came."""

    def on_woken(self) -> None: ...


class Waking:
    """due_s: when the next portion is to be looked at, if that is not at once; None while nobody waits for that.

    portion: how many are looked at in one turn of the event loop.
    """

    def __init__(self) -> None:
        self.portion = PORTION_MAX
        self.due_s: float | None = None
        self._lanes: dict[object, dict[Woken, None]] = {}  # in the order of their turns

    def __repr__(self) -> str:
        return f"<Waking waiting={len(self)} portion={self.portion} due={self.due_s}>"

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def add(self, lane: object, poll: Woken) -> None:
        """This poll has news. lane: the partition that it reads, or the first of them."""
        waiting = self._lanes.get(lane)
        if waiting is None:
            self._lanes[lane] = {poll: None}
        else:
            waiting[poll] = None

    def next(self, now_s: float) -> list[Woken]:
        """Those to be looked at now; none during a pause."""
        if not self._lanes:
            return []
        if self.due_s is not None:
            if now_s < self.due_s:
                return []
            if now_s - self.due_s > LATE_S:
                self.portion = max(PORTION_MIN, self.portion // 2)
            else:
                self.portion = min(PORTION_MAX, self.portion + PORTION_STEP)
        polls = self._take()
        self.due_s = now_s + PAUSE_S if self._lanes else None
        return polls

    def _take(self) -> list[Woken]:
        lanes = self._lanes
        polls: list[Woken] = []
        while lanes and len(polls) < self.portion:
            lane = next(iter(lanes))
            waiting = lanes.pop(lane)
            poll = next(iter(waiting))
            del waiting[poll]
            polls.append(poll)
            if waiting:
                lanes[lane] = waiting
        return polls
