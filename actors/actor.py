"""What an actor is: a sans-IO state machine that takes mail and a time, and returns effects.

Owns: the vocabulary (`Mail`, `Now`, effects) that every actor, its process shell and the simulator share.
Invariant: an actor touches the world only through the `Disk` it was given and the effects it returns;
it never flushes, sleeps, reads a clock or opens a socket. The process shell is `actors/shell.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from zafka.storage.disk import Flush

NO_RECORDS = memoryview(b"")


class Peer(NamedTuple):
    """One start of one actor. Mail to or from an older incarnation is dropped by transport."""

    name: str
    incarnation: int


class Now(NamedTuple):
    """The time of one turn. `monotonic_s` orders timers, `wall_ms` is Kafka's timestamp clock."""

    monotonic_s: float
    wall_ms: int


class Mail(NamedTuple):
    """One message as an actor receives it.

    body: a struct of `actors/messages.py`, or one of the shell's own messages below.
    records: record bytes that travel beside the body, never decoded on the way.
    """

    sender: Peer
    body: Any
    records: memoryview = NO_RECORDS


# -- messages that the shell itself sends -------------------------------------------------------


class TimerFired(Struct, frozen=True):
    name: str


class Flushed(Struct, frozen=True):
    """Everything that `Flush(token)` named is on disk."""

    token: int


class FlushFailed(Struct, frozen=True):
    """The flush failed; the page cache lies from now on and the file is not trusted again."""

    token: int
    reason: str


class PeerGone(Struct, frozen=True):
    """Mail to this peer, or from it, was lost: its socket is gone, it takes none, or there is a gap (`transport/link.py`).

    Both ends are told. What was asked and not answered is in doubt; whatever must be known is to be said again."""

    peer: Peer


# -- effects -----------------------------------------------------------------------------------


class Send(Struct, frozen=True):
    """Send `body` to a peer: the one that mail came from, or the current incarnation of a name."""

    to: Peer | str
    body: Any
    records: Sequence[memoryview | bytes] = ()


class SetTimer(Struct, frozen=True):
    """Deliver `TimerFired(name)` at monotonic time `at_s`; setting a name again moves it."""

    name: str
    at_s: float


class CancelTimer(Struct, frozen=True):
    name: str


class Exit(Struct, frozen=True):
    """End this actor's process. `code` 0 is a normal stop; the reason is logged and shown in status."""

    code: int
    reason: str


Effect = Any  # Send | Flush | SetTimer | CancelTimer | Exit, and what `actors/gateway/effects.py` adds
Effects = list[Effect]


class Actor(Protocol):
    """A state machine. A turn is: `on_mail` for each message that has come, then one `on_turn_end`.

    Work that is cheaper together (one write, one flush, one answer for a whole turn) is gathered in
    `on_mail` and leaves in `on_turn_end`.
    """

    def on_start(self, now: Now) -> Effects: ...

    def on_mail(self, mail: Mail, now: Now) -> Effects: ...

    def on_turn_end(self, now: Now) -> Effects: ...


__all__ = [
    "NO_RECORDS", "Actor", "CancelTimer", "Effect", "Effects", "Exit", "Flush", "FlushFailed", "Flushed",
    "Mail", "Now", "Peer", "PeerGone", "Send", "SetTimer", "TimerFired",
]
