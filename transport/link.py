"""How the two ends of a link notice that mail between them was lost, came twice or came late.

Owns: `Numbers`, sans-IO, one for each end of each link (one incarnation of an actor to one of another), and the
three messages that `transport/mailbox.py` sends for it. Every message has a number, 1, 2, 3, ...; what does not come
in that order is one of two things: late or repeated, and dropped; or behind a gap, and then both ends are told that
the link is broken and start afresh on it, each in its own way. So actors can rely on a link as on TCP: mail arrives
once and in order, or they hear that it did not.
A loss at the end, with nothing behind it, is found by a pulse: the last number, repeated until it is confirmed.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class Broken(Struct, array_like=True, frozen=True, tag=1001):
    """Mail to the one who sends this was lost. Numbered itself, so that its own loss shows."""


class Pulse(Struct, array_like=True, frozen=True, tag=1002):
    """Not numbered. number: of the last message that was sent."""

    number: int


class Seen(Struct, array_like=True, frozen=True, tag=1003):
    """Not numbered: the answer to a pulse."""

    number: int


class Arrival(Enum):
    FRESH = 1
    LATE = 2  # or repeated: to be dropped
    GAP = 3  # fresh, but mail before it was lost


UNNUMBERED = 0


class Numbers:
    """sent, received: the last numbers out and in. seen: up to where the other end has confirmed ours."""

    __slots__ = ("_sent_before", "received", "seen", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.seen = 0
        self._sent_before = 0

    def __repr__(self) -> str:
        return f"<Numbers sent={self.sent} seen={self.seen} received={self.received}>"

    def next(self) -> int:
        """The number of the next message out; used up, whether it can be sent or not."""
        self.sent += 1
        return self.sent

    def take(self, number: int) -> Arrival:
        """A numbered message came in."""
        expected = self.received + 1
        if number < expected:
            return Arrival.LATE
        self.received = number
        return Arrival.FRESH if number == expected else Arrival.GAP

    def pulse(self) -> Pulse | None:
        """To be called every heartbeat: what to send if nothing was for that long, and the last was not confirmed."""
        idle, self._sent_before = self.sent == self._sent_before, self.sent
        return Pulse(self.sent) if idle and self.sent > self.seen else None

    def on_pulse(self, number: int) -> bool:
        """True if mail up to this number was lost."""
        if number <= self.received:
            return False
        self.received = number
        return True

    def on_seen(self, number: int) -> None:
        self.seen = max(self.seen, number)
