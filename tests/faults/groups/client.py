"""What a member needs of a client, whichever it is, and what it tells while it polls.

Owns: the words. clients.py: librdkafka and ours; looping_clients.py: those that live in an event loop.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

POLL_S = 0.1
RECORDS_MAX = 200
EXPLAIN = signal.SIGUSR1  # a member of Python's that is sent it writes where it is, and then this line
EXPLAINED = "-- that is all"
START_S = 120.0  # for the first contact: somebody may just be killed, and the machine slow

Records = list[tuple[int, int]]  # partition and offset, in the order in which they came


class Task(NamedTuple):
    """What a member is told to be. settings: of the client, in its words."""

    kind: str
    bootstrap: str
    topic: str
    group: str
    settings: dict[str, Any]


class CommitRefused(Exception):
    """is_final: what it would commit is no longer this member's."""

    def __init__(self, why: str, *, is_final: bool) -> None:
        self.is_final = is_final
        super().__init__(why)


class ClientEnded(Exception):
    """It takes what it was told for the end, and can do nothing any more: somebody is to start the program again."""


class Listener(Protocol):
    """What a consumer tells while it polls or closes: before it gives anything up, all that it took."""

    def took(self, records: Records) -> None: ...

    def on_assigned(self, partitions: Iterable[int], generation: int) -> None: ...

    def on_revoked(self, partitions: Iterable[int]) -> None: ...

    def on_lost(self, partitions: Iterable[int]) -> None: ...


class Client(Protocol):
    def poll(self) -> Records:
        """Raises ClientEnded."""

    def commit(self, offsets: dict[int, int]) -> None:
        """Raises CommitRefused."""

    def close(self) -> None: ...

    def state(self) -> str:
        """What it waits for, as far as its library lets that be seen."""
