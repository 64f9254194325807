"""Fetch: whole batches from files, or a long poll that waits here until there are enough.

Versions 4-18. From 7 on there are sessions (KIP-227, `fetch_session.py`), from 12 on a reader may tell the epoch of its
last record and is told where its log and ours part (KIP-595), from 13 on topics have ids (KIP-516), from 16 on who asks
the wrong broker is told the right one (KIP-951). What 14, 17 and 18 add is for followers and tiered storage. A fetch by
a follower is refused in the way of Kafka when it does not know the replica; racks (11) choose among replicas, of which
there is one.
Source: KafkaApis.handleFetchRequest, DelayedFetch, ReplicaManager.readFromLog; KIP-74.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.effects import FilesRead
from zafka.actors.gateway.fetch_part import NO_BYTES, READ_COMMITTED, Part
from zafka.actors.gateway.fetch_session import AnyFetch, Wanted
from zafka.actors.gateway.leaders import leader_of, name_of, nodes
from zafka.actors.gateway.produce import topic_error
from zafka.actors.gateway.routes import Route
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.fetch import (
    AbortedTransaction,
    FetchRequest,
    FetchResponse,
    LeaderIdAndEpoch,
    NodeEndpoint,
    PartitionData,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.FETCH
VERSIONS = range(4, 19)
ADVERTISED = VERSIONS

TOPIC_IDS_SINCE = 13
CURRENT_LEADER_SINCE = 16

# How long a partition may still take to say where bytes lie when the client's wait is over.
GRACE_S = 1.0
# What an answer may have while all connections hold as much as they may. A larger batch comes when there is room.
CROWDED_BYTES = 64 * 1024
UNKNOWN_TOPIC = (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.UNKNOWN_TOPIC_ID)
MISLED = (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.FENCED_LEADER_EPOCH)


class LongPoll:
    """One request until it is answered: looks, waits for locations, waits for data, reads, answers.

    answers: one for each partition that is wanted. parts: the work of those that can be asked. misled: topic and answer
    of those that another leader has. missing: locations asked for and not told. waits: true while it is registered with its partitions.
    expired: what is there is enough. late: the partitions had their grace, too.
    """

    __slots__ = (
        "answers", "bucket", "done", "exchange", "expired", "fetch", "gateway", "isolation_level", "late", "max_bytes",
        "min_bytes", "misled", "missing", "parts", "reading", "waits")

    def __init__(self, gateway: Gateway, exchange: Exchange, request: FetchRequest, fetch: AnyFetch) -> None:
        self.gateway = gateway
        self.exchange = exchange
        self.fetch = fetch
        self.isolation_level = request.isolation_level
        self.max_bytes = max(1, min(request.max_bytes, gateway.settings.fetch_bytes_max))
        self.min_bytes = min(request.min_bytes, self.max_bytes)
        self.answers: list[PartitionData] = []
        self.parts: list[Part] = []
        self.misled: list[tuple[str, PartitionData]] = []
        self.missing = 0
        self.reading: list[Part] = []
        self.waits = False
        self.expired = request.max_wait_ms <= 0
        self.late = False
        self.done = False
        self.bucket = 0

    # -- steps ---------------------------------------------------------------------------------

    def note_error(self, error: int, topic: str, answer: PartitionData) -> None:
        if error in MISLED:
            self.misled.append((topic, answer))

    def start(self, max_wait_s: float) -> None:
        self.expired = self.expired or not self.parts
        self.gateway.deadlines.set(self, self.gateway.now.monotonic_s, GRACE_S if self.expired else max_wait_s)
        self.late = self.expired
        for part in self.parts:
            part.look()
        self._go_on()

    def on_found(self) -> None:
        """A partition told a location, or cannot."""
        self.missing -= 1
        self._go_on()

    def on_advanced(self) -> None:
        """A partition has news: looked at once, at the end of this turn or one of the next."""
        self.gateway.waking.add(self.parts[0].route, self)

    def on_woken(self) -> None:
        if not self.done and self.waits:
            self._look_again()

    def on_deadline(self) -> None:
        if self.done:
            return
        if self.late:
            # A partition that does not answer must not hold up the others: nothing there for now.
            for part in self.parts:
                part.done = part.locating
            self.missing = 0
            self._go_on()
            return
        self.expired = self.late = True
        self.gateway.deadlines.set(self, self.gateway.now.monotonic_s, GRACE_S)
        if self.waits:
            self.gateway.waking.add(self.parts[0].route, self)

    def on_abandoned(self) -> None:
        """The client is gone."""
        self._end()

    def on_hurry(self) -> None:
        self.expired = True
        if self.waits:
            self._look_again()

    def _look_again(self) -> None:
        for part in self.parts:
            part.look()
        self._go_on()

    def _go_on(self) -> None:
        if self.missing or self.reading or self.done:
            return
        ready = self._ready_bytes()
        if self.expired or ready >= self.min_bytes:
            self._read()
        else:
            self._wait(self.min_bytes - ready)

    def _ready_bytes(self) -> int:
        """What could be read now; an error is as good as enough."""
        ready = 0
        for part in self.parts:
            if part.response.error_code or part.response.diverging_epoch is not None:
                return self.min_bytes
            ready += part.length
        return ready

    def _wait(self, missing: int) -> None:
        """For so many bytes more of all partitions together: then one of them has grown by its share at least."""
        self.waits = True
        share = -(-missing // len(self.parts))
        for part in self.parts:
            part.route.wait(self, share)
            if part.seen is not part.route.advanced:  # there was news while another partition was asked
                self.gateway.waking.add(self.parts[0].route, self)

    # -- reading and answering -----------------------------------------------------------------

    def _read(self) -> None:
        """Read what is there, in the order of the request, until the answer is full."""
        self._stop_waiting()
        self.expired = True  # from here on, what is found is enough
        others = self.gateway.connections
        crowded = others.held - self.exchange.held > others.total_limit // 2
        left, empty = min(self.max_bytes, max(others.room, CROWDED_BYTES) if crowded else self.max_bytes), True
        slices = []
        for part in self.parts:
            if part.response.records:
                left, empty = left - len(part.response.records), False
            elif part.length and not part.done and left > 0:
                # The first one has its first batch whole, however large it is (KIP-74).
                slices.append(part.slice(left if crowded or not empty else max(left, part.length)))
                self.reading.append(part)
                left, empty = left - part.wanted, False
            else:
                part.length = 0
        if slices:
            self.exchange.hold(sum(part.wanted for part in self.reading))
            self.gateway.read_files(slices, self)
        else:
            self._answer()

    def on_files_read(self, read: FilesRead) -> None:
        reading, self.reading = self.reading, []
        if self.done:
            return
        for part, data in zip(reading, read.parts, strict=True):
            if not part.take(data):
                part.route.points.clear()
                self._end()
                self.exchange.refuse(f"short read of {part.route.topic}-{part.route.partition} at {part.offset}")
                return
        self._go_on()

    def _answer(self) -> None:
        self._end()
        response = self.fetch.finish(self.answers, self.gateway.now.monotonic_s)
        if self.misled and self.exchange.version >= CURRENT_LEADER_SINCE:
            self._tell_leaders(response)
        self.exchange.answer(response)

    def _tell_leaders(self, response: FetchResponse) -> None:
        leaders = set()
        for topic, answer in self.misled:
            leader = leader_of(self.gateway, topic, answer.partition_index)
            answer.current_leader = LeaderIdAndEpoch(*leader)
            leaders.add(leader.leader_id)
        response.node_endpoints = [
            NodeEndpoint(*node) for node in nodes(self.gateway, self.exchange.connection, leaders)]

    def _stop_waiting(self) -> None:
        if self.waits:
            self.waits = False
            for part in self.parts:
                part.route.readers.pop(self, None)

    def _end(self) -> None:
        self.done = True
        self._stop_waiting()
        self.gateway.deadlines.cancel(self)
        for part in self.parts:
            part.done = True
        self.parts.clear()


def handle(gateway: Gateway, exchange: Exchange, request: FetchRequest) -> None:
    by_id = exchange.version >= TOPIC_IDS_SINCE
    fetch = gateway.fetch_sessions.begin(request, by_id=by_id, now_s=gateway.now.monotonic_s)
    if isinstance(fetch, ErrorCode):
        exchange.answer(FetchResponse(error_code=fetch))
        return
    poll = LongPoll(gateway, exchange, request, fetch)
    exchange.operation = poll
    exchange.run_alone()
    is_follower = replica_id_of(request) >= 0
    for wanted in fetch.wanted:
        poll.answers.append(begin(poll, wanted, is_follower))
    poll.start(request.max_wait_ms / 1000)


def replica_id_of(request: FetchRequest) -> int:
    """Below 0 for a client; the field has moved in version 15."""
    return request.replica_id if request.replica_state is None else request.replica_state.replica_id


def begin(poll: LongPoll, wanted: Wanted, is_follower: bool) -> PartitionData:
    """The partition's place in the answer, and its part of the work if it can be asked."""
    gateway, asked = poll.gateway, wanted.asked
    name = wanted.name
    if name is None:
        name = wanted.name = name_of(gateway, wanted.topic)
    route = None if name is None else gateway.routes.find(name, asked.partition)
    if route is None or route.refusal or is_follower or route.topic_id != wanted.topic != name:
        return refused(poll, wanted, route, is_follower)
    aborted: list[AbortedTransaction] | None = [] if poll.isolation_level == READ_COMMITTED else None
    response = PartitionData(asked.partition, aborted_transactions=aborted, records=NO_BYTES)
    poll.parts.append(Part(poll, route, response, asked))
    return response


def refused(poll: LongPoll, wanted: Wanted, route: Route | None, is_follower: bool) -> PartitionData:
    """The answer for a partition that cannot be asked."""
    name, asked = wanted.name, wanted.asked
    error = topic_error(
        poll.gateway, route, wanted.topic, name, asked.partition, foreign=ErrorCode.INCONSISTENT_TOPIC_ID)
    if is_follower and not error:
        known = asked.current_leader_epoch >= 0
        error = ErrorCode.UNKNOWN_LEADER_EPOCH if known else ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert error
    response = PartitionData(asked.partition, error, high_watermark=-1, records=NO_BYTES)
    if error not in UNKNOWN_TOPIC:
        response.aborted_transactions = None
        poll.expired = True  # an error is not kept waiting, unless the topic is of no concern to this broker
        poll.note_error(error, name or "", response)
    return response
