"""The mailboxes of user-written actors, pure: who wrote, who died, who is done go in; what to hand over comes out.

Owns: every message from the moment it is taken until it has been handled, and every ask until it is answered.
A message is handed to one incarnation of its actor, once: it is handled, or lost with that incarnation. Those behind
it wait for the successor. `runtime/user_tree.py` performs what is decided here.
Invariants: mailboxes are bounded; each actor has at most one message in hand; messages from one sender to one actor
keep their order; each post is resolved exactly once, whatever dies.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from zafka.actors.user_messages import ANSWERED, DEADLOCK, FAILED, FULL, STOPPED, TAKEN

MAILBOX_BYTES_MAX = 64 * 1024 * 1024

OWNER = ("", 0)

Address = tuple[str, int]
"""Name and incarnation of an actor, or OWNER."""


class Letter(NamedTuple):
    """post: the sender's number for it. ask: resolved when it was handled; a tell is resolved when it is taken."""

    number: int
    sender: Address
    post: int
    ask: bool
    message: bytes


class Hand(NamedTuple):
    """Hand this letter to the incarnation of `to` that is up."""

    to: str
    letter: Letter


class Resolve(NamedTuple):
    """Tell the sender of a post what became of it: see `actors/user_messages.py`."""

    to: Address
    post: int
    outcome: int
    content: bytes


Output = Hand | Resolve
Outputs = list[Output]


@dataclass(slots=True)
class _Box:
    """letters_max: of those that wait. up: an incarnation takes letters. in_hand: it has this one."""

    letters_max: int
    letters: deque[Letter] = field(default_factory=deque)
    bytes: int = 0
    up: bool = False
    in_hand: Letter | None = None


class Switchboard:
    """gone: why there is no actor any more, once the whole system has ended."""

    def __init__(self) -> None:
        self.gone = ""
        self._boxes: dict[str, _Box] = {}
        self._numbers = itertools.count(1)
        self._asks: dict[str, tuple[str, int]] = {}  # actor -> the actor it waits for, its own number for the ask

    def __repr__(self) -> str:
        waiting = " ".join(f"{name}={len(box.letters)}" for name, box in self._boxes.items())
        return f"<Switchboard {self.gone or waiting}>"

    def waiting(self, name: str) -> int:
        """Letters that wait for this actor, without the one in hand."""
        return len(self._boxes[name].letters)

    # -- actors come and go --------------------------------------------------------------------

    def add(self, name: str, *, letters_max: int) -> None:
        """From now on there is a mailbox of this name; its letters wait until the actor is up."""
        assert name not in self._boxes
        self._boxes[name] = _Box(letters_max)

    def on_up(self, name: str) -> Outputs:
        """An incarnation of it is ready for letters."""
        box = self._boxes[name]
        assert box.in_hand is None
        box.up = True
        return self._next(name, box)

    def on_stopping(self, name: str) -> None:
        """What it has in hand is its last one."""
        self._boxes[name].up = False

    def on_down(self, name: str, reason: str) -> Outputs:
        """Its incarnation is dead, and with it the letter it had in hand. reason: told to who asked."""
        box = self._boxes[name]
        self._asks.pop(name, None)
        box.up = False
        lost, box.in_hand = box.in_hand, None
        return [] if lost is None else self._resolve(lost, FAILED, reason.encode())

    def remove(self, name: str, reason: str) -> Outputs:
        """It is dead and does not come back; its letters are lost. Nothing happens to one that is not there."""
        box = self._boxes.pop(name, None)
        if box is None:
            return []
        self._asks.pop(name, None)
        lost = [*([box.in_hand] if box.in_hand else []), *box.letters]
        return [output for letter in lost for output in self._resolve(letter, STOPPED, reason.encode())]

    def end(self, reason: str) -> Outputs:
        """There are no actors any more, and none will come."""
        self.gone = reason
        return [output for name in list(self._boxes) for output in self.remove(name, reason)]

    # -- letters -------------------------------------------------------------------------------

    def on_post(self, sender: Address, post: int, to: str, message: bytes, *, ask: bool) -> Outputs:
        """Somebody writes."""
        letter = Letter(next(self._numbers), sender, post, ask, message)
        box = self._boxes.get(to)
        if box is None:
            reason = self.gone or "there is no actor of this name, or no more"
            return [Resolve(sender, post, STOPPED, reason.encode())]
        if len(box.letters) >= box.letters_max or box.bytes + len(message) > MAILBOX_BYTES_MAX:
            text = f"{len(box.letters)} messages of {box.bytes} bytes wait; room is for {box.letters_max}"
            return [Resolve(sender, post, FULL, text.encode())]
        if ask and sender != OWNER:
            circle = self._circle(sender[0], to)
            if circle:
                return [Resolve(sender, post, DEADLOCK, circle.encode())]
            self._asks[sender[0]] = to, post
        box.letters.append(letter)
        box.bytes += len(message)
        taken: Outputs = [] if ask else [Resolve(sender, post, TAKEN, b"")]
        return taken + self._next(to, box)

    def on_gave_up(self, name: str, post: int) -> None:
        """It does not wait for this answer any more."""
        if self._asks.get(name, ("", 0))[1] == post:
            del self._asks[name]

    def on_handled(self, name: str, number: int, answer: bytes, *, last: bool) -> Outputs:
        """It is done with the letter in hand. last: it stops and takes no more."""
        box = self._boxes[name]
        letter, box.in_hand = box.in_hand, None
        assert letter is not None and letter.number == number, (letter, number)
        if last:
            box.up = False
        return self._resolve(letter, ANSWERED, answer) + self._next(name, box)

    def _resolve(self, letter: Letter, outcome: int, content: bytes) -> Outputs:
        """What the sender of a letter is told at its end: nothing if it only told."""
        if not letter.ask:
            return []
        self.on_gave_up(letter.sender[0], letter.post)
        return [Resolve(letter.sender, letter.post, outcome, content)]

    def _next(self, name: str, box: _Box) -> Outputs:
        if not box.up or box.in_hand is not None or not box.letters:
            return []
        box.in_hand = box.letters.popleft()
        box.bytes -= len(box.in_hand.message)
        return [Hand(name, box.in_hand)]

    def _circle(self, asker: str, asked: str) -> str:
        """Who waits for whom, if `asked` could not answer before `asker` has its own answer; else ""."""
        chain = [asker, asked]
        while chain[-1] != asker:
            following = self._asks.get(chain[-1])
            if following is None:
                return ""
            chain.append(following[0])
        return " waits for ".join(chain)

