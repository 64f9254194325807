"""What partitions and their broker's cleaner say to each other; part of `messages.AnyMessage`.

Owns: names and fields, nothing else.
"""

from __future__ import annotations

from zafka.actors.message import Message
from zafka.storage.cleaning import Pass
from zafka.storage.swap import Replacement


class StartCleaner(Message, frozen=True, tag=80):
    """Partition to supervisor: have its broker's cleaner run, and say of each start of it from now on (`ActorUp`)."""


class Clean(Message, frozen=True, tag=81):
    """Partition to cleaner: do this pass. number: of the pass, higher than all before. urgency: whose turn it is first.

    bytes_per_second: to be read and written at most."""

    number: int
    urgency: float
    bytes_per_second: float
    wanted: Pass


class Cleaned(Message, frozen=True, tag=82):
    """Cleaner to partition: this is on disk; put it in its place. Answered with `Swapped`. is_last: of the pass."""

    number: int
    replacement: Replacement
    is_last: bool


class Swapped(Message, frozen=True, tag=83):
    """Partition to cleaner: it is in its place, for good; or, not `done`, it cannot be, and the pass is over."""

    number: int
    done: bool


class CleaningFailed(Message, frozen=True, tag=84):
    """Cleaner to partition: nothing comes of the rest of this pass."""

    number: int
    reason: str


CleanerMessage = StartCleaner | Clean | Cleaned | Swapped | CleaningFailed
