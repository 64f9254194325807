"""Changes of quotas, credentials or configuration: the coordinator commits them, the answer waits until this broker knows it.

Owns: `Change`, and `ClientsChange`, what AlterClientQuotas and AlterUserScramCredentials share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from zafka.actors.messages import AlterClients, ClientChange, ClientsAltered, ConfigsAltered, Message
from zafka.transport.kafka.errors import ErrorCode

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

TIMEOUT_S = 30.0  # the requests say none

Outcomes = Sequence[tuple[int, str]]  # error code and message of each change


class Change:
    """question: what the coordinator is asked, by a request's id; `count` changes. respond: is told their outcomes, once."""

    def __init__(
        self, gateway: Gateway, question: Callable[[int], Message], count: int, respond: Callable[[Outcomes], None]
    ) -> None:
        self.gateway = gateway
        self.question = question
        self.count = count
        self.respond = respond
        self.answer: ClientsAltered | ConfigsAltered | None = None
        self.done = False
        self.bucket = 0

    def start(self) -> None:
        if not self.count:
            self._end([])
            return
        self.gateway.deadlines.set(self, self.gateway.now.monotonic_s, TIMEOUT_S)
        self.gateway.coordinator.ask(self.question, self)

    def on_answer(self, answer: ClientsAltered | ConfigsAltered) -> None:
        self.answer = answer
        self.gateway.watchers[self] = None
        self.on_changed()

    def on_changed(self) -> None:
        if self.answer is not None and self.gateway.applied >= self.answer.offset:
            self._end(self.answer.outcomes)

    def on_lost(self) -> None:
        self._end([(ErrorCode.REQUEST_TIMED_OUT, "the coordinator restarted")] * self.count)

    def on_deadline(self) -> None:
        self._end([(ErrorCode.REQUEST_TIMED_OUT, "not done in time")] * self.count)

    def _end(self, outcomes: Outcomes) -> None:
        if not self.done:
            self.done = True
            self.gateway.watchers.pop(self, None)
            self.gateway.deadlines.cancel(self)
            self.respond(outcomes)


class ClientsChange(Change):
    """Of quotas or credentials."""

    def __init__(
        self, gateway: Gateway, changes: Sequence[ClientChange], respond: Callable[[Outcomes], None], *, validate_only: bool
    ) -> None:
        wanted = list(changes)
        super().__init__(
            gateway, lambda request_id: AlterClients(request_id, wanted, validate_only), len(wanted), respond)
