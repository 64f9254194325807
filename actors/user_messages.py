"""What user-written actors and their supervisor say to each other, beside what any actor says (`messages.py`).

Owns: names and fields, and what can become of a post. A message of a user is bytes that nobody on the way reads:
they travel beside these structs, and only the actor they are for, or the asker, unpickles them.
These are no part of `messages.AnyMessage`, so that a process of `zafka up` cannot even decode them.
"""

from __future__ import annotations

from zafka.actors.messages import AnyMessage, Message

# What became of a post. The text beside all but TAKEN and ANSWERED says more.
TAKEN = 0  # a tell: it stands in the mailbox
ANSWERED = 1  # an ask: the bytes are the pickled answer
FAILED = 2  # the actor died over it; the text is its reason, a line feed, and the traceback if there was one
FULL = 3  # the mailbox has no room
STOPPED = 4  # there is no such actor (any more)
DEADLOCK = 5  # the actor that is asked waits for the asker


class Post(Message, frozen=True, tag=1100):
    """Actor to supervisor: put the bytes into the mailbox of `to`. Answered with one `Resolved` of this number.

    ask: answer when it has been handled, else as soon as it stands in the mailbox."""

    number: int
    to: str
    ask: bool


class Resolved(Message, frozen=True, tag=1101):
    """Supervisor to actor: what became of its post. The bytes are the answer, or text."""

    number: int
    outcome: int


class GaveUp(Message, frozen=True, tag=1105):
    """Actor to supervisor: it does not wait any more for what becomes of its post of this number."""

    number: int


class Deliver(Message, frozen=True, tag=1102):
    """Supervisor to actor: handle the bytes, then say `Handled`. There is no second one before.

    sender: name of an actor, "" for the owner program."""

    number: int
    sender: str
    ask: bool


class Handled(Message, frozen=True, tag=1103):
    """Actor to supervisor: done; the bytes are the answer if it was asked. last: it stops now and takes no more."""

    number: int
    last: bool


class Uncaught(Message, frozen=True, tag=1104):
    """Actor to supervisor, before its last word: the traceback it dies of."""

    traceback: str


UserMessage = AnyMessage | Post | Resolved | GaveUp | Deliver | Handled | Uncaught
