"""A change of quotas or credentials: the coordinator commits it, the answer waits until this broker knows it.

Owns: `ClientsChange`, what AlterClientQuotas and AlterUserScramCredentials share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from zafka.actors.messages import AlterClients, ClientChange, ClientsAltered
from zafka.transport.kafka.errors import ErrorCode

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

TIMEOUT_S = 30.0  # the requests say none

Outcomes = Sequence[tuple[int, str]]  # error code and message of each change


class ClientsChange:
    """respond: is told the outcome of each change, once."""

    def __init__(
        self, gateway: Gateway, changes: Sequence[ClientChange], respond: Callable[[Outcomes], None], *, validate_only: bool
    ) -> None:
        self.gateway = gateway
        self.changes = list(changes)
        self.respond = respond
        self.validate_only = validate_only
        self.answer: ClientsAltered | None = None
        self.done = False
        self.bucket = 0

    def start(self) -> None:
        if not self.changes:
            self._end([])
            return
        self.gateway.deadlines.set(self, self.gateway.now.monotonic_s, TIMEOUT_S)
        self.gateway.coordinator.ask(
            lambda request_id: AlterClients(request_id, self.changes, self.validate_only), self)

    def on_answer(self, answer: ClientsAltered) -> None:
        self.answer = answer
        self.gateway.watchers[self] = None
        self.on_changed()

    def on_changed(self) -> None:
        if self.answer is not None and self.gateway.applied >= self.answer.offset:
            self._end(self.answer.outcomes)

    def on_lost(self) -> None:
        self._end([(ErrorCode.REQUEST_TIMED_OUT, "the coordinator restarted")] * len(self.changes))

    def on_deadline(self) -> None:
        self._end([(ErrorCode.REQUEST_TIMED_OUT, "not done in time")] * len(self.changes))

    def _end(self, outcomes: Outcomes) -> None:
        if not self.done:
            self.done = True
            self.gateway.watchers.pop(self, None)
            self.gateway.deadlines.cancel(self)
            self.respond(outcomes)
