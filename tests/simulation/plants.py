"""Bugs that are planted to see that the simulator finds them; each replaces one thing of the production code.

Owns: `PLANTS`. A plant stays for the life of the process: plant it in one of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zafka.actors.actor import Flush, Flushed
from zafka.actors.replica import Replica
from zafka.actors.shell import ActorRuntime
from zafka.storage.producer_state import Append, ProducerStates
from zafka.storage.recovery import _Recovery
from zafka.transport.mailbox import Mailbox


def _acknowledge_before_the_flush() -> None:
    def commit(self: Any) -> list[Any]:
        waiting = [each for _, each in self._waiting]
        self._waiting.clear()
        honest(self)
        return waiting

    honest = Replica.commit
    Replica.commit = commit  # type: ignore[method-assign]


def _take_duplicates() -> None:
    ProducerStates.check = lambda self, header: Append()  # type: ignore[method-assign]


def _hear_the_dead() -> None:
    honest = Mailbox.forget

    def forget(self: Mailbox, name: str, incarnation: int) -> None:
        honest(self, name, incarnation)
        self._dead.pop(name, None)

    Mailbox.forget = forget  # type: ignore[method-assign]


def _do_not_flush_directories() -> None:
    def flush(self: ActorRuntime, flush: Flush) -> Flushed:
        for file in flush.files:
            self.disk.fdatasync(file)
        return Flushed(flush.token)

    ActorRuntime._flush = flush  # type: ignore[method-assign]


def _do_not_flush_what_was_recovered() -> None:
    _Recovery.flush = lambda self: None  # type: ignore[method-assign]


PLANTS: dict[str, Callable[[], None]] = {
    "acknowledge-before-the-flush": _acknowledge_before_the_flush,
    "take-duplicates": _take_duplicates,
    "hear-the-dead": _hear_the_dead,
    "do-not-flush-directories": _do_not_flush_directories,
    "do-not-flush-what-was-recovered": _do_not_flush_what_was_recovered,
}


def plant(name: str) -> None:
    PLANTS[name]()
