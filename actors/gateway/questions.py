"""A request that is a question to each of its partitions: answered once all of them have answered, or cannot.

Owns: `Questions`, the request, and `Question`, one partition's part of it. What is asked and what becomes of an
answer is the API's matter; here it is seen to that each part ends once, by an answer, an error or the deadline.
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

TIMEOUT_S = 30.0


class Question:
    """One partition's part. part: its place in the answer, which has an `error_code`."""

    __slots__ = ("done", "part", "questions", "size")

    def __init__(self, questions: Questions, part: Any) -> None:
        self.questions = questions
        self.part = part
        self.size = 0  # as `Owed`
        self.done = False

    def on_answer(self, answer: Any) -> None:
        if not self.done:
            self.part.error_code = answer.error
            self.questions.take(self.part, answer)
            self._end()

    def on_lost(self, *, handed_over: bool) -> None:
        self.fail(ErrorCode.NOT_LEADER_OR_FOLLOWER)

    def fail(self, error: int) -> None:
        if not self.done:
            self.part.error_code = error
            self._end()

    def _end(self) -> None:
        self.done = True
        self.questions.on_question_done()


class Questions:
    """take: (part, answer of the partition) -> None, fills in what was answered; the error is filled in already."""

    __slots__ = ("asked", "bucket", "exchange", "gateway", "missing", "response", "take")

    def __init__(
        self, gateway: Gateway, exchange: Exchange, response: Any, take: Callable[[Any, Any], None]
    ) -> None:
        self.gateway = gateway
        self.exchange = exchange
        self.response = response
        self.take = take
        self.asked: list[Question] = []
        self.missing = 1  # questions without an answer, and one for the handler itself
        self.bucket = 0

    def ask(self, route: Route, part: Any, question: Callable[[int], Message]) -> None:
        """Ask one partition. question: request id -> what to send."""
        waiting = Question(self, part)
        request_id = self.gateway.routes.new_id()
        if route.ask(question(request_id), request_id, waiting):
            self.asked.append(waiting)
            self.missing += 1
        else:
            part.error_code = ErrorCode.NOT_LEADER_OR_FOLLOWER

    def all_asked(self, timeout_s: float = TIMEOUT_S) -> None:
        """The handler is done: answer as soon as the partitions have."""
        if self.missing > 1:
            self.gateway.deadlines.set(self, self.gateway.now.monotonic_s, timeout_s)
        self.on_question_done()

    def on_question_done(self) -> None:
        self.missing -= 1
        if not self.missing:
            self.gateway.deadlines.cancel(self)
            self.asked = []
            self.exchange.answer(self.response)

    def on_deadline(self) -> None:
        for question in self.asked:
            question.fail(ErrorCode.REQUEST_TIMED_OUT)
