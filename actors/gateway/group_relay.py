"""Requests of groups on their way: to the coordinator of a group id, which is the leader of its partition of
`__consumer_offsets`, and back.

Owns: which partition a group belongs to; `Relay`, requests to coordinators for one answer to a client; `LastWord`, a request that
waits for a coordinator which reads its log. The broker knows no groups: what comes back is passed on, or joined with what other
coordinators say.
Invariants: each request to a coordinator is ended once, by its answer or by the loss of that incarnation. There is no
deadline: a JoinGroup may wait for as long as its members have to come. Last words reach a coordinator in the order in which they came.
May fail with: a Kafka error for the whole request, of which the API's file makes its answer.
Source: Kafka GroupCoordinatorService (partitionFor, handleOperationException); String.hashCode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from zafka.actors.gateway.connection import Exchange, Operation
from zafka.actors.gateway.operations import NOT_ASKED
from zafka.actors.gateway.routes import Route
from zafka.actors.messages import GroupCall, NewTopic
from zafka.transport.kafka.codec import request_writer, response_reader
from zafka.transport.kafka.errors import ErrorCode

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

GROUP_TOPIC = "__consumer_offsets"
PARTITIONS = "offsets.topic.num.partitions"
PARTITIONS_DEFAULT = "4"
CONFIG = {"cleanup.policy": "compact", "segment.bytes": "104857600", "compression.type": "producer"}

WAIT_S = 4.0  # for a coordinator; less than the 5 s after which kafka-go takes the connection for dead

OnBody = Callable[[bytes], None]
OnError = Callable[[int], None]


class Answered(NamedTuple):
    """A coordinator's answer, taken from its mail. error: 0, or why there is no body."""

    request_id: int
    error: int
    body: bytes


def group_topic(gateway: Gateway) -> NewTopic:
    """`__consumer_offsets`, to be created when a client first asks for a coordinator."""
    return NewTopic(GROUP_TOPIC, int(gateway.defaults.get(PARTITIONS, PARTITIONS_DEFAULT)), -1, CONFIG)


def partition_of(group_id: str, partitions: int) -> int:
    """The partition that a group's records are in."""
    number = 0
    encoded = group_id.encode("utf-16-be")
    for high, low in zip(encoded[::2], encoded[1::2], strict=True):
        number = (31 * number + (high << 8 | low)) & 0xFFFFFFFF
    signed = number - (1 << 32) if number >= 1 << 31 else number
    return 0 if signed == -(1 << 31) else abs(signed) % partitions


def find_route(gateway: Gateway, group_id: str) -> Route | int:
    """The way to a group's coordinator, or Kafka's error where there is none here."""
    return check_route(gateway.routes.find(GROUP_TOPIC, _coordinator_of(gateway, group_id)))


def _coordinator_of(gateway: Gateway, group_id: str) -> int:
    """Which partition that is; -1 before the topic is there."""
    topic = gateway.cluster.topics_by_name.get(GROUP_TOPIC)
    return -1 if topic is None else partition_of(group_id, len(topic.partitions))


def check_route(route: Route | None) -> Route | int:
    if route is None:
        return ErrorCode.NOT_COORDINATOR
    if route.refusal == ErrorCode.KAFKA_STORAGE_ERROR:
        return ErrorCode.COORDINATOR_NOT_AVAILABLE
    # It is to come, and reads its log first: clients ask again without looking for another one.
    return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS if route.refusal else route


class _Question:
    """A request at a coordinator."""

    __slots__ = ("done", "last_word", "on_body", "on_error", "relay", "size")

    def __init__(self, relay: Relay, on_body: OnBody, on_error: OnError, last_word: LastWord | None) -> None:
        self.relay = relay
        self.last_word = last_word
        self.on_body = on_body
        self.on_error = on_error
        self.size = 0
        self.done = False

    def on_answer(self, answer: Answered) -> None:
        if answer.error:
            self._fail(answer.error)
        else:
            self.on_body(answer.body)
            self.relay.on_done()

    def on_lost(self, *, handed_over: bool) -> None:
        # It is soon back, here. Whether this was carried out or not, the client may ask again.
        if self.last_word is not None and self.last_word.waits_again(handed_over=handed_over):
            self.relay.on_done()
        else:
            self._fail(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)

    def _fail(self, error: int) -> None:
        self.on_error(error)
        self.relay.on_done()


class Relay:
    """What coordinators are asked for one exchange. finish: answers it, once they have all answered."""

    def __init__(self, gateway: Gateway, exchange: Exchange, api_key: int, finish: Callable[[], None]) -> None:
        self.gateway = gateway
        self.exchange = exchange
        self.api_key = api_key
        self._finish = finish
        self._missing = 1  # `start` is still to come

    def ask(
        self, route: Route | int, version: int, request: Any, on_body: OnBody, on_error: OnError, last_word: LastWord | None = None
    ) -> None:
        """Send this request to a coordinator; a number is the error that there is none."""
        if isinstance(route, int):
            on_error(route)
            return
        connection = self.exchange.connection
        body = b"".join(request_writer(self.api_key, version)(request))
        call = GroupCall(
            self.gateway.routes.new_id(), self.api_key, version, self.exchange.client_id or "",
            f"/{connection.peer.rpartition(':')[0] or connection.peer}", len(body))
        if route.call(call, body, _Question(self, on_body, on_error, last_word)):
            self._missing += 1
        else:
            on_error(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)  # it has too much to do; clients try again

    def hold(self) -> None:
        """One more that `on_done` is to be called for."""
        self._missing += 1

    def start(self) -> None:
        """All is asked."""
        self.on_done()

    def on_done(self) -> None:
        self._missing -= 1
        if not self._missing:
            self._finish()


class LastWord:
    """A request that a client may not say again, such as the last commit of a member that closes, or that it leaves: where Kafka
    says COORDINATOR_LOAD_IN_PROGRESS at once, it waits for the coordinator, for WAIT_S at most.

    repeats: it may be carried out twice, and is asked again when a coordinator dies with it in hand. A commit is not: another
    one may come between, and be taken back."""

    def __init__(
        self, relay: Relay, group_id: str, version: int, request: Any, on_body: OnBody, on_error: OnError, *, repeats: bool
    ) -> None:
        gateway = relay.gateway
        self.relay = relay
        self.bucket = 0  # of its deadline
        self._number = _coordinator_of(gateway, group_id)
        self._ask = partial(relay.ask, version=version, request=request, on_body=on_body, on_error=on_error, last_word=self)
        self._on_error = on_error
        self._repeats = repeats
        self._until_s = gateway.now.monotonic_s + WAIT_S
        self._before: Operation | None = None
        route = self._route()
        if route == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS or self._number in gateway.last_words:
            self._wait()
        else:
            self._ask(route)

    def waits_again(self, *, handed_over: bool) -> bool:
        """Its coordinator died. False if that is to be told."""
        gateway = self.relay.gateway
        if gateway.stopping or (handed_over and not self._repeats) or gateway.now.monotonic_s >= self._until_s:
            return False
        self._wait()
        return True

    def on_changed(self) -> None:
        if self._route() != ErrorCode.COORDINATOR_LOAD_IN_PROGRESS:
            self.on_deadline()

    def on_deadline(self) -> None:
        self._end_wait()
        self._ask(self._route())
        self.relay.on_done()

    def on_hurry(self) -> None:
        self._end_wait()
        self._on_error(ErrorCode.COORDINATOR_NOT_AVAILABLE)
        self.relay.on_done()

    def on_abandoned(self) -> None:
        self._end_wait()

    def _route(self) -> Route | int:
        return check_route(self.relay.gateway.routes.find(GROUP_TOPIC, self._number))

    def _wait(self) -> None:
        gateway, exchange = self.relay.gateway, self.relay.exchange
        self.relay.hold()
        gateway.watchers[self] = None
        gateway.last_words[self._number] += 1
        gateway.deadlines.set(self, gateway.now.monotonic_s, self._until_s - gateway.now.monotonic_s)
        self._before, exchange.operation = exchange.operation, self

    def _end_wait(self) -> None:
        gateway = self.relay.gateway
        del gateway.watchers[self]
        gateway.last_words[self._number] -= 1
        if not gateway.last_words[self._number]:
            del gateway.last_words[self._number]
        gateway.deadlines.cancel(self)
        self.relay.exchange.operation = self._before


class PassedOn:
    """A request about one group, answered by its coordinator byte for byte.

    refuse: (request, version, error) -> the answer that there is none. is_last_word: the client goes, and may not say it again."""

    def __init__(
        self, gateway: Gateway, exchange: Exchange, api_key: int, request: Any, refuse: Callable[[Any, int, int], Any], *,
        is_last_word: bool = False,
    ) -> None:
        self._exchange = exchange
        self._request = request
        self._refuse = refuse
        self._answered = False
        exchange.operation = self
        relay = Relay(gateway, exchange, api_key, _nothing_more)
        if is_last_word:
            LastWord(relay, request.group_id, exchange.version, request, self._on_body, self._on_error, repeats=True)
        else:
            relay.ask(find_route(gateway, request.group_id), exchange.version, request, self._on_body, self._on_error)
        relay.start()

    def _on_body(self, body: bytes) -> None:
        if not self._answered:
            self._answered = True
            self._exchange.answer_body(body)

    def _on_error(self, error: int) -> None:
        if not self._answered:
            self._answered = True
            self._exchange.answer(self._refuse(self._request, self._exchange.version, error))

    def on_hurry(self) -> None:
        # It may wait for members who can come no more.
        self._on_error(ErrorCode.COORDINATOR_NOT_AVAILABLE)

    def on_abandoned(self) -> None:
        self._answered = True


def describe_each(
    gateway: Gateway, exchange: Exchange, api_key: int, group_ids: Sequence[str], way: Callable[[str], Route | int],
    request: Callable[[str], Any], refused: Callable[[int, str], Any], respond: Callable[[list[Any]], Any], operations: int,
) -> None:
    """Have each group described by its coordinator, one at a time, and answer in the order of the request.

    way: to a group's coordinator. request: about one group. refused: (error, group id) -> what stands in its place.
    operations: that clients may do with a group that is there.
    """
    found: dict[int, Any] = {}  # by the place in the request

    def finish() -> None:
        for group in found.values():
            group.authorized_operations = NOT_ASKED if group.error_code else operations
        exchange.answer(respond([found[place] for place in sorted(found)]))

    relay = Relay(gateway, exchange, api_key, finish)
    for place, group_id in enumerate(group_ids):
        def take(answer: Any, place: int = place) -> None:
            (found[place],) = answer.groups

        def refuse(error: int, place: int = place, group_id: str = group_id) -> None:
            found[place] = refused(error, group_id)

        relay.ask(way(group_id), exchange.version, request(group_id), decoded(api_key, exchange.version, take), refuse)
    relay.start()


def decoded(api_key: int, version: int, then: Callable[[Any], None]) -> OnBody:
    """Takes an answer's body for one who wants its struct."""
    return lambda body: then(response_reader(api_key, version)(memoryview(body), 0))


def _nothing_more() -> None:
    pass
