"""A mailbox that loses, delays, doubles and swaps mail on demand: `Mailbox`, with rules between it and its ports.

Owns: the mail that is being held back. What is done here is done behind the numbering of messages
(`transport/link.py`), so the other end sees what a bad network would show it: a gap, a repetition, a step back.
Invariants: mail that is only late keeps its order; what is held for an incarnation of a peer never reaches another.
Bounded: beyond `HELD_MAX` messages to one peer, what comes is lost, as in a full queue of a router.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import zmq

from zafka.runtime.faults.board import Watch
from zafka.runtime.faults.kinds import DELAY, DROP, DUPLICATE, REORDER, MailFault
from zafka.transport.envelope import Buffer
from zafka.transport.link import UNNUMBERED
from zafka.transport.mailbox import Link, Mailbox

HELD_MAX = 10_000
OVERTAKEN_S = 1.0  # how long a message waits to be overtaken


class _Late(NamedTuple):
    due_s: float
    head: bytes
    records: Buffer | None


class _Held:
    """What waits on one link. late: in order. overtaken: leaves behind the next message that comes."""

    __slots__ = ("late", "overtaken")

    def __init__(self) -> None:
        self.late: deque[_Late] = deque()
        self.overtaken: _Late | None = None

    def __len__(self) -> int:
        return len(self.late) + (self.overtaken is not None)


class FaultyMailbox(Mailbox):
    """watch: where the rules are found. The other arguments are `Mailbox`'s."""

    def __init__(self, *arguments: Any, watch: Watch, clock: Callable[[], float] = time.monotonic, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._watch = watch
        self._clock = clock
        self._held: dict[Link, _Held] = {}
        self._unnumbered = False  # what is being sent is the links' own

    @property
    def queued(self) -> int:
        return super().queued + sum(map(len, self._held.values()))

    @property
    def release_s(self) -> float:
        """When `release` has something to do next; infinity if nothing is held."""
        due_s = [each.late[0].due_s for each in self._held.values() if each.late]
        due_s += [each.overtaken.due_s for each in self._held.values() if each.overtaken is not None]
        return min(due_s, default=float("inf"))

    def retry(self) -> None:
        super().retry()
        self.release()

    def release(self) -> None:
        """Send what was held back long enough."""
        now_s = self._clock()
        for link, held in list(self._held.items()):
            if self._links.get(link.name) is not link:
                del self._held[link]  # that incarnation is gone
                continue
            if held.overtaken is not None and held.overtaken.due_s <= now_s:
                held.late.append(held.overtaken)  # nothing came that could overtake it
                held.overtaken = None
            self._send_late(link, held, now_s)
            if not held:
                del self._held[link]

    def _send(self, link: Link, body: Any, records: Sequence[Buffer], number: int) -> bool:
        self._unnumbered = number == UNNUMBERED
        try:
            return super()._send(link, body, records, number)
        finally:
            self._unnumbered = False

    def _hand_over(self, link: Link, head: bytes, records: Buffer | None) -> None:
        rules = self._watch.mail_to(link.name)
        if self._unnumbered:  # "the next three messages" are three of the actors'
            rules = [each for each in rules if each.rule.times is None]
        held = self._held.get(link)
        if not rules and held is None:
            super()._hand_over(link, head, records)
            return
        hit = next((each for each in rules if self._watch.hits(each)), None)
        rule = hit.rule if hit is not None else None
        what = rule.what if isinstance(rule, MailFault) else ""
        if what == DROP or (held is not None and len(held.late) >= HELD_MAX):
            return
        if held is None:
            held = self._held[link] = _Held()
        now_s = self._clock()
        if what == REORDER and held.overtaken is None:
            held.overtaken = _Late(now_s + OVERTAKEN_S, head, records)
            return
        due_s = now_s
        if hit is not None and isinstance(rule, MailFault) and what == DELAY:
            due_s += (rule.delay_ms + rule.jitter_ms * self._watch.random(hit).random()) / 1000
        if held.late:
            due_s = max(due_s, held.late[-1].due_s)
        held.late += [_Late(due_s, head, records)] * (2 if what == DUPLICATE else 1)
        if held.overtaken is not None:
            held.late.append(held.overtaken._replace(due_s=due_s))
            held.overtaken = None
        self._send_late(link, held, now_s)
        if not held:
            del self._held[link]

    def _send_late(self, link: Link, held: _Held, now_s: float) -> None:
        """In order, what is due; what a port does not take stays for the next time."""
        self.sent_on.add(link.port)
        try:
            while held.late and held.late[0].due_s <= now_s:
                super()._hand_over(link, held.late[0].head, held.late[0].records)
                held.late.popleft()
        except zmq.Again:
            return
        except zmq.ZMQError as error:
            self._unreachable(error)
            held.late.clear()
            held.overtaken = None
