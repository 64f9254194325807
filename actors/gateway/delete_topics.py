"""DeleteTopics: the coordinator commits it; the answer waits until nothing of the topic is served or on its name here.

Versions 1-6; from 6 on topics may be named by id.
Source: ControllerApis.deleteTopics.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.messages import DeleteTopics, TopicResult, TopicsDeleted
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.delete_topics import (
    DeletableTopicResult,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DeleteTopicState,
)
from zafka.transport.kafka.types import ZERO_UUID

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.DELETE_TOPICS
VERSIONS = range(1, 7)
ADVERTISED = VERSIONS

STATES_SINCE = 6  # names and ids in one list, instead of names
NO_TOPIC = "This server does not host this topic-partition."
NO_TOPIC_BY_ID = "This server does not host this topic ID."

TWO_WAYS = "The provided topic name maps to an ID that was already supplied."

State = tuple[str | None, bytes]  # as a client names a topic
Wanted = tuple[str, bytes]  # a name, or "" and an id


class Deleting:
    """A request until the topics are gone, or its time is up."""

    def __init__(self, gateway: Gateway, exchange: Exchange, wanted: list[Wanted]) -> None:
        self.gateway = gateway
        self.exchange = exchange
        self.wanted = wanted
        self.results: list[DeletableTopicResult] = []
        self.deleted: list[TopicResult] = []  # committed, but not gone yet
        self.done = False
        self.bucket = 0

    def on_answer(self, answer: TopicsDeleted) -> None:
        if self.done:
            return
        self.wanted = []
        for result in answer.results:
            if result.error:
                self.results.append(refused(result.name, result.topic_id, result.error, result.message))
            else:
                self.deleted.append(result)
        self.gateway.watchers[self] = None
        self.on_changed()

    def on_lost(self) -> None:
        self._give_up("the coordinator restarted")

    def on_deadline(self) -> None:
        self._give_up("not done in time")

    def on_changed(self) -> None:
        """The cluster looks different: are the topics gone?"""
        gateway = self.gateway
        for result in list(self.deleted):
            if result.topic_id not in gateway.cluster.topics_by_id and not gateway.holds_topic(result.topic_id):
                self.deleted.remove(result)
                self.results.append(DeletableTopicResult(result.name, result.topic_id))
        if not self.deleted:
            self._answer()

    def _give_up(self, reason: str) -> None:
        if not self.done:
            missing = [*self.wanted, *((result.name, result.topic_id) for result in self.deleted)]
            self.results += [refused(name, topic_id, ErrorCode.REQUEST_TIMED_OUT, reason) for name, topic_id in missing]
            self._answer()

    def _answer(self) -> None:
        self.done = True
        self.gateway.watchers.pop(self, None)
        self.gateway.deadlines.cancel(self)
        self.exchange.answer(DeleteTopicsResponse(responses=self.results))


def refused(name: str, topic_id: bytes, error: int, message: str) -> DeletableTopicResult:
    """name: "" for a topic that was named by its id, and is not told by name."""
    by_id = not name and topic_id != ZERO_UUID
    return DeletableTopicResult(None if by_id else name, topic_id, error, message or None)


def handle(gateway: Gateway, exchange: Exchange, request: DeleteTopicsRequest) -> None:
    states = request.topics if exchange.version >= STATES_SINCE else [
        DeleteTopicState(name) for name in request.topic_names]
    deleting = Deleting(gateway, exchange, [])
    ids = {topic_id for name, topic_id in map(key, states) if name is None}
    for state, count in Counter(map(key, states)).items():
        error, message, topic_id = check(gateway, state, count, ids)
        if error:
            deleting.results.append(DeletableTopicResult(state[0], topic_id, error, message))
        else:
            deleting.wanted.append((state[0] or "", state[1]))
    twice = {result.topic_id for result in deleting.results if result.error_message == TWO_WAYS}
    deleting.wanted = [(name, topic_id) for name, topic_id in deleting.wanted if topic_id not in twice]
    if not deleting.wanted:
        exchange.answer(DeleteTopicsResponse(responses=deleting.results))
        return
    wanted = deleting.wanted
    gateway.deadlines.set(deleting, gateway.now.monotonic_s, request.timeout_ms / 1000)
    gateway.coordinator.ask(lambda request_id: DeleteTopics(request_id, wanted), deleting)


def key(state: DeleteTopicState) -> State:
    return state.name, state.topic_id


def check(gateway: Gateway, state: State, count: int, ids: set[bytes]) -> tuple[int, str, bytes]:
    """Kafka's error for a topic that is named wrongly, 0 if it may be asked for; and its id, as the answer tells it.

    count: how often it is named so. ids: of all topics that the request names by their ids.
    """
    name, topic_id = state
    by_id = topic_id != ZERO_UUID
    if name is None and not by_id:
        return ErrorCode.INVALID_REQUEST, "Neither topic name nor id were specified.", topic_id
    if name is not None and by_id:
        return ErrorCode.INVALID_REQUEST, "You may not specify both topic name and topic id.", topic_id
    if count > 1:
        return ErrorCode.INVALID_REQUEST, f"Duplicate topic {'id' if by_id else 'name'}.", topic_id
    if by_id:
        known = topic_id in gateway.cluster.topics_by_id
        return (0 if known else ErrorCode.UNKNOWN_TOPIC_ID), NO_TOPIC_BY_ID, topic_id
    topic = gateway.cluster.topics_by_name.get(name or "")
    if topic is not None and topic.topic_id in ids:
        return ErrorCode.INVALID_REQUEST, TWO_WAYS, topic.topic_id
    return (0 if name else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION), NO_TOPIC, topic_id
