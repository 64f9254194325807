"""Questions to the coordinator: kept while it is away, asked once, answered or lost.

Owns: `CoordinatorLink`. Invariant: a question that was sent to an incarnation that died is lost, not repeated: it
may have been carried out. One that was not sent yet waits for the next incarnation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from zafka.actors.actor import Effects, Peer, Send
from zafka.actors.messages import Message

ASKED_MAX = 1000  # questions under way; more wait here


class Asking(Protocol):
    done: bool  # nobody waits any more: not asked if it was not yet

    def on_answer(self, answer: Any) -> None: ...

    def on_lost(self) -> None: ...


class CoordinatorLink:
    def __init__(self) -> None:
        self.peer: Peer | None = None  # set once this broker is registered with it
        self._waiting: deque[tuple[Callable[[int], Message], Asking]] = deque()
        self._asked: dict[int, Asking] = {}
        self._last_id = 0

    def ask(self, question: Callable[[int], Message], asking: Asking) -> None:
        """Send `question(request_id)` at the end of the turn, or when there is a coordinator."""
        self._waiting.append((question, asking))

    def on_answer(self, answer: Any) -> None:
        asking = self._asked.pop(answer.request_id, None)
        if asking is not None:
            asking.on_answer(answer)

    def on_registered(self, peer: Peer) -> None:
        self.peer = peer

    def on_gone(self) -> None:
        self.peer = None
        asked, self._asked = self._asked, {}
        for asking in asked.values():
            asking.on_lost()

    def on_turn_end(self) -> Effects:
        effects: Effects = []
        while self._waiting and self.peer is not None and len(self._asked) < ASKED_MAX:
            question, asking = self._waiting.popleft()
            if not asking.done:
                self._last_id += 1
                self._asked[self._last_id] = asking
                effects.append(Send(self.peer, question(self._last_id)))
        return effects
