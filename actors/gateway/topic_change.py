"""A change of topics by a client: the coordinator commits it, the answer waits until this broker's cluster shows it.

Owns: `TopicChange`, what CreateTopics, CreatePartitions and AlterConfigs share. A change that was committed but does not show in
time is answered REQUEST_TIMED_OUT, as in Kafka: it is there, or soon will be.
Invariant: each topic that was asked for gets one result.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from zafka.actors.cluster_state import NO_LEADER
from zafka.actors.gateway.connection import Exchange
from zafka.actors.messages import Message, PartitionsCreated, TopicResult, TopicsCreated
from zafka.transport.kafka.errors import ErrorCode

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

Wanted = TypeVar("Wanted")


class TopicChange(ABC, Generic[Wanted]):
    """asked: topics without a result yet. committed: those of them that the coordinator has changed."""

    def __init__(self, gateway: Gateway, exchange: Exchange, *, validate_only: bool) -> None:
        self.gateway = gateway
        self.exchange = exchange
        self.validate_only = validate_only
        self.asked: dict[str, Wanted] = {}
        self.committed: dict[str, TopicResult] = {}
        self.offset = 0  # of `__cluster`: who has applied everything below knows what was committed
        self.done = False
        self.bucket = 0

    @abstractmethod
    def shows(self, result: TopicResult) -> bool:
        """Whether the cluster, as this broker knows it, has the change and serves it."""

    @abstractmethod
    def refuse(self, name: str, error: int, message: str | None) -> None:
        """Keep the result of a topic that was not changed, or not in time."""

    @abstractmethod
    def accept(self, wanted: Wanted, result: TopicResult) -> None:
        """Keep the result of a topic that was changed, or could be."""

    @abstractmethod
    def respond(self) -> None:
        """Answer with all results."""

    def start(self, question: Callable[[int], Message], timeout_ms: int) -> None:
        """Have the coordinator decide on what is in `asked`."""
        if not self.asked:
            self._end()
            return
        self.gateway.deadlines.set(self, self.gateway.now.monotonic_s, timeout_ms / 1000)
        self.gateway.coordinator.ask(question, self)

    def on_answer(self, answer: TopicsCreated | PartitionsCreated) -> None:
        if self.done:
            return
        self.offset = answer.offset
        for result in answer.results:
            if result.error:
                del self.asked[result.name]
                self.refuse(result.name, result.error, result.message or None)
            elif self.validate_only:
                self.accept(self.asked.pop(result.name), result)
            else:
                self.committed[result.name] = result
        self.gateway.watchers[self] = None
        self.on_changed()

    def on_lost(self) -> None:
        # The coordinator died with the question in hand: the change was committed, or not.
        self._give_up("the coordinator restarted")

    def on_deadline(self) -> None:
        self._give_up("not done in time")

    def on_changed(self) -> None:
        """The cluster looks different: which of the changes show by now?"""
        for name, result in list(self.committed.items()):
            if self.shows(result):
                del self.committed[name]
                self.accept(self.asked.pop(name), result)
        if not self.asked:
            self._end()

    def _give_up(self, reason: str) -> None:
        if not self.done:
            for name in self.asked:
                self.refuse(name, ErrorCode.REQUEST_TIMED_OUT, reason)
            self._end()

    def _end(self) -> None:
        self.done = True
        self.gateway.watchers.pop(self, None)
        self.gateway.deadlines.cancel(self)
        self.respond()


def serves(gateway: Gateway, topic_id: bytes, count: int) -> bool:
    """True once the topic has `count` partitions, all have a leader, and those that are here take requests."""
    topic = gateway.cluster.topics_by_id.get(topic_id)
    if topic is None or len(topic.partitions) < count:
        return False
    for index, partition in enumerate(topic.partitions):
        if partition.leader == NO_LEADER:
            return False
        route = gateway.routes.find(topic.name, index)
        if gateway.broker_id == partition.leader and (route is None or route.refusal):
            return False
    return True
