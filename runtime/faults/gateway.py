"""Requests that are answered with an error, late, or not at all: rules between the gateway and its handlers.

Owns: `FaultyApis`, which wraps the handler of each API; the exchanges that stand in for the client's towards a
handler, to hold its answer back or to complete it. What a rule refuses is not done; what else is in the same request
is. Nothing behind a late answer is held up but what the order of answers holds up anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import msgspec

from zafka.actors.gateway import api_versions
from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.effects import Buffer
from zafka.actors.gateway.fetch import TOPIC_IDS_SINCE
from zafka.actors.gateway.fetch_session import FINAL_EPOCH, INITIAL_EPOCH, wanted_in
from zafka.actors.gateway.leaders import TopicKey
from zafka.actors.gateway.registry import Handler, Served
from zafka.runtime.faults.api_errors import FORMS, SESSION_ERRORS, SESSIONS_SINCE
from zafka.runtime.faults.board import Watch
from zafka.runtime.faults.forms import NameOf, Topics, add_refused, split
from zafka.runtime.faults.kinds import ApiFault
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import response_header
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.describe_topic_partitions import TopicRequest
from zafka.transport.kafka.messages.fetch import FetchRequest, FetchResponse, FetchTopic
from zafka.transport.kafka.messages.metadata import MetadataRequestTopic

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

REASON = "injected by zafka chaos"
Find = Callable[[int, int], Served | None]


class FaultyApis:
    """served: the registry's, as `Gateway.served`. watch: where the rules are found."""

    def __init__(self, served: Find, watch: Watch) -> None:
        self._served = served
        self._watch = watch
        self._wrapped: dict[tuple[int, int], Served] = {}

    def served(self, api_key: int, version: int) -> Served | None:
        """How to serve a request: with a look at the rules before."""
        wrapped = self._wrapped.get((api_key, version))
        if wrapped is None:
            plain = self._served(api_key, version)
            if plain is None:
                return None
            wrapped = self._wrapped[api_key, version] = plain._replace(handle=self._wrap(api_key, plain.handle))
        return wrapped

    def _wrap(self, api_key: int, handle: Handler) -> Handler:
        def guarded(gateway: Gateway, exchange: Exchange, request: Any) -> None:
            rule = self._hit(gateway, api_key, exchange, request)
            if rule is None:
                handle(gateway, exchange, request)
            elif rule.close:
                exchange.refuse(REASON)
            elif rule.error is None:
                handle(gateway, LateExchange(exchange, gateway, rule.delay_ms / 1000), request)
            else:
                refuse(gateway, exchange, request, api_key, rule, handle)

        return guarded

    def _hit(self, gateway: Gateway, api_key: int, exchange: Exchange, request: Any) -> ApiFault | None:
        for posted in self._watch.own(ApiFault):
            rule = posted.rule
            assert isinstance(rule, ApiFault)
            concerned = rule.api == ApiKey(api_key).name and (
                rule.topic is None or concerns(gateway, api_key, exchange, request, rule.topic))
            if concerned and self._watch.hits(posted):
                return rule
        return None


def concerns(gateway: Gateway, api_key: int, exchange: Exchange, request: Any, topic: str) -> bool:
    """Whether a request names a topic that fits this glob."""
    topics = FORMS[api_key].topics
    if topics is None:
        return False
    request = named(gateway, api_key, exchange.version, request)
    return bool(split(topics, request, lambda name: fnmatchcase(name, topic), name_of(gateway)).refused)


def refuse(
    gateway: Gateway, exchange: Exchange, request: Any, api_key: int, rule: ApiFault, handle: Handler
) -> None:
    """Answer with the rule's error where it applies, and do the rest."""
    error = ErrorCode[rule.error or "NONE"]
    form, version = FORMS[api_key], exchange.version
    if form.topics is None:
        assert form.whole is not None
        _refuse_whole(exchange, api_key, form.whole(request, version, error), error)
        return
    if api_key == ApiKey.FETCH and error in SESSION_ERRORS and version >= SESSIONS_SINCE:
        exchange.answer(FetchResponse(error_code=error))
        return
    topic = rule.topic
    matches = None if topic is None else lambda name: fnmatchcase(name, topic)
    request = named(gateway, api_key, version, request)
    refused, rest = split(form.topics, request, matches, name_of(gateway))
    if api_key == ApiKey.PRODUCE:
        _turn_away(gateway, refused, error)
        if not request.acks:
            exchange.refuse(f"{error.name} with acks=0: {REASON}")
            return
    if api_key == ApiKey.METADATA:
        rest = msgspec.structs.replace(request, topics=[]) if rest is None else rest
    if rest is None:
        exchange.answer(add_refused(form.topics, form.topics.empty(), refused, error))
        return
    if api_key == ApiKey.FETCH:
        rest = msgspec.structs.replace(rest, max_wait_ms=0)  # an error is not kept waiting
    handle(gateway, CompletedExchange(exchange, form.topics, refused, error), rest)


def _refuse_whole(exchange: Exchange, api_key: int, response: Any, error: ErrorCode) -> None:
    if api_key == ApiKey.API_VERSIONS and error is ErrorCode.UNSUPPORTED_VERSION:
        # Clients read this one, and no other, in the layout of version 0 (KIP-511).
        correlation_id = int.from_bytes(exchange.head[:4], "big")
        exchange.answer_frame([response_header(api_key, 0, correlation_id), *api_versions.unsupported()])
    else:
        exchange.answer(response)


def _turn_away(gateway: Gateway, refused: Sequence[Any], error: ErrorCode) -> None:
    """As the Produce handler does: what the same producer sent behind a batch that is to come again waits for it."""
    if error.is_retriable:
        for topic in refused:
            for data in topic.partition_data:
                key = topic.name or topic.topic_id
                gateway.sequence_gaps.turned_away(key, data.index, data.records, gateway.now.monotonic_s)


def named(gateway: Gateway, api_key: int, version: int, request: Any) -> Any:
    """The request with its topics named one by one, where it asks for all, or for those of a session."""
    if api_key == ApiKey.FETCH:
        return without_session(gateway, version, request)
    names = gateway.cluster.topics_by_name
    if api_key == ApiKey.DESCRIBE_TOPIC_PARTITIONS and not request.topics:
        return msgspec.structs.replace(request, topics=[TopicRequest(name) for name in names])
    if api_key != ApiKey.METADATA or request.topics or (request.topics is not None and version > 0):
        return request
    return msgspec.structs.replace(request, topics=[MetadataRequestTopic(name=name) for name in names])


def without_session(gateway: Gateway, version: int, request: FetchRequest) -> FetchRequest:
    """The same fetch in full, so that its session ends: one with a hole in it is not what its fetcher believes it has.
    Unchanged if it has no such session, which the handler will tell it."""
    by_id = version >= TOPIC_IDS_SINCE
    wanted = wanted_in(request.topics, by_id=by_id)
    if request.session_epoch not in (INITIAL_EPOCH, FINAL_EPOCH):
        session = gateway.fetch_sessions.find(request, by_id=by_id)
        if session is None:
            return request
        wanted = {**session.partitions, **wanted}
        for topic in request.forgotten_topics_data:
            for partition in topic.partitions:
                wanted.pop((topic.topic_id if by_id else topic.topic, partition), None)
    topics: dict[TopicKey, FetchTopic] = {}
    for (key, _), each in wanted.items():
        if key not in topics:
            topics[key] = FetchTopic(topic=key) if isinstance(key, str) else FetchTopic(key)
            topics[key].partitions = []
        topics[key].partitions.append(each.asked)
    return msgspec.structs.replace(
        request, session_epoch=FINAL_EPOCH, topics=list(topics.values()), forgotten_topics_data=[])


def name_of(gateway: Gateway) -> NameOf:
    def find(topic_id: bytes) -> str:
        topic = gateway.cluster.topics_by_id.get(topic_id)
        return topic.name if topic is not None else ""

    return find


class StandIn(Exchange):
    """An exchange towards a handler; `_client` is the one that the client waits for."""

    __slots__ = ("_client",)

    def __init__(self, client: Exchange) -> None:
        super().__init__(client.connection, version=client.version, head=client.head, writer=client.writer)
        self._client = client
        client.operation = self

    def run_alone(self) -> None:
        self._client.run_alone()

    def on_abandoned(self) -> None:
        if self.operation is not None:
            self.operation.on_abandoned()

    def on_hurry(self) -> None:
        if self.operation is not None:
            self.operation.on_hurry()

    def answer_frame(self, frame: Sequence[Buffer]) -> None:
        assert self.frame is None
        self.frame = frame
        self.operation = None
        self._pass_on()

    def _pass_on(self) -> None:
        assert self.frame is not None
        if not self.connection.closed:
            self._client.close_reason = self.close_reason
            self._client.answer_frame(self.frame)


class LateExchange(StandIn):
    """Holds the answer back for a while."""

    __slots__ = ("_delay_s", "_gateway", "bucket")

    def __init__(self, client: Exchange, gateway: Gateway, delay_s: float) -> None:
        super().__init__(client)
        self._gateway = gateway
        self._delay_s = delay_s
        self.bucket = 0  # of the deadlines

    def on_abandoned(self) -> None:
        self._gateway.deadlines.cancel(self)
        super().on_abandoned()

    def on_hurry(self) -> None:
        self._delay_s = 0.0
        if self.bucket:
            self._gateway.deadlines.cancel(self)
            self._pass_on()
        else:
            super().on_hurry()

    def answer_frame(self, frame: Sequence[Buffer]) -> None:
        assert self.frame is None
        self.frame = frame
        self.operation = None
        if self._delay_s:
            self._gateway.deadlines.set(self, self._gateway.now.monotonic_s, self._delay_s)
        else:
            self._pass_on()

    def on_deadline(self) -> None:
        self._pass_on()


class CompletedExchange(StandIn):
    """Adds what was refused to the answer to the rest of the request."""

    __slots__ = ("_error", "_refused", "_topics")

    def __init__(self, client: Exchange, topics: Topics, refused: Sequence[Any], error: int) -> None:
        super().__init__(client)
        self._topics = topics
        self._refused = refused
        self._error = error
        if not self.version:
            self.version = 1  # in Metadata 0, no topics would mean all of them; the writer stays the client's

    def answer(self, response: Any) -> None:
        super().answer(add_refused(self._topics, response, self._refused, self._error))
