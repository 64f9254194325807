"""Questions to several partitions for one answer to a client.

Owns: `Questions`: what is still missing, and until when. Each question is ended once: by the partition's answer, by
the loss of that partition, or because the request's time is up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.routes import Route
from zafka.actors.messages import Message
from zafka.transport.kafka.errors import ErrorCode

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

TIMEOUT_S = 30.0  # where the request names none

OnAnswer = Callable[[Any], None]
OnError = Callable[[int], None]


class Question:
    """One partition's part. on_found: takes its answer; on_error: takes a Kafka error where there is none."""

    __slots__ = ("done", "on_error", "on_found", "questions", "size")

    def __init__(self, questions: Questions, on_found: OnAnswer, on_error: OnError) -> None:
        self.questions = questions
        self.on_found = on_found
        self.on_error = on_error
        self.size = 0
        self.done = False

    def on_answer(self, answer: Any) -> None:
        if not self.done and answer.error:
            self.fail(answer.error)
        elif not self.done:
            self.done = True
            self.on_found(answer)
            self.questions.on_done()

    def on_lost(self, *, handed_over: bool) -> None:
        self.fail(ErrorCode.NOT_LEADER_OR_FOLLOWER)

    def fail(self, error: int) -> None:
        if not self.done:
            self.done = True
            self.on_error(error)
            self.questions.on_done()


class Questions:
    """response: the answer, which the questions' ends fill in."""

    def __init__(self, gateway: Gateway, exchange: Exchange, response: Any) -> None:
        self.gateway = gateway
        self.exchange = exchange
        self.response = response
        self.bucket = 0
        self._asked: list[Question] = []
        self._missing = 1  # `start` is still to come

    def ask(
        self, route: Route, question: Callable[[int], Message], on_found: OnAnswer, on_error: OnError
    ) -> None:
        """Ask the partition, which serves; `question` takes the request's id."""
        asked = Question(self, on_found, on_error)
        request_id = self.gateway.routes.new_id()
        if route.ask(question(request_id), request_id, asked):
            self._asked.append(asked)
            self._missing += 1
        else:
            on_error(ErrorCode.NOT_LEADER_OR_FOLLOWER)  # it has too much to do; clients try again

    def start(self, timeout_s: float) -> None:
        """All is asked: answer when everything is there, or at the end of this time."""
        if self._missing > 1:
            self.gateway.deadlines.set(self, self.gateway.now.monotonic_s, timeout_s)
        self.on_done()

    def on_done(self) -> None:
        self._missing -= 1
        if not self._missing:
            self.gateway.deadlines.cancel(self)
            self._asked = []
            self.exchange.answer(self.response)

    def on_deadline(self) -> None:
        for question in self._asked:
            question.fail(ErrorCode.REQUEST_TIMED_OUT)
