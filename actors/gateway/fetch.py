"""Fetch: whole batches from files, or a long poll that waits here until there are enough.

Versions 4-12; 13 and later name topics by id and are served together with everything else they promise.
Sessions (KIP-227) are not kept: session id 0 is answered to all, so that clients send full fetches.
Source: KafkaApis.handleFetchRequest, DelayedFetch, ReplicaManager.readFromLog; KIP-74.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.effects import FilesRead
from zafka.actors.gateway.fetch_part import NO_BYTES, READ_COMMITTED, Part
from zafka.actors.gateway.produce import route_error
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.fetch import (
    AbortedTransaction,
    FetchableTopicResponse,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    PartitionData,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.FETCH
VERSIONS = range(4, 13)
ADVERTISED = VERSIONS

# How long a partition may still take to say where bytes lie when the client's wait is over.
GRACE_S = 1.0
# What an answer may have while all connections hold as much as they may. A larger batch comes when there is room.
CROWDED_BYTES = 64 * 1024
FULL_FETCH_EPOCHS = (0, -1)  # a new session, and none


class LongPoll:
    """One request until it is answered: looks, waits for locations, waits for data, reads, answers.

    missing: locations asked for and not told. waits: true while it is registered with its partitions.
    expired: what is there is enough. late: the partitions had their grace, too.
    """

    __slots__ = (
        "bucket", "done", "exchange", "expired", "gateway", "isolation_level", "late", "max_bytes", "min_bytes",
        "missing", "parts", "reading", "response", "waits")

    def __init__(self, gateway: Gateway, exchange: Exchange, request: FetchRequest) -> None:
        self.gateway = gateway
        self.exchange = exchange
        self.isolation_level = request.isolation_level
        self.max_bytes = max(1, min(request.max_bytes, gateway.settings.fetch_bytes_max))
        self.min_bytes = min(request.min_bytes, self.max_bytes)
        self.response = FetchResponse()
        self.parts: list[Part] = []
        self.missing = 0
        self.reading: list[Part] = []
        self.waits = False
        self.expired = request.max_wait_ms <= 0 or not any(topic.partitions for topic in request.topics)
        self.late = False
        self.done = False
        self.bucket = 0

    # -- steps ---------------------------------------------------------------------------------

    def start(self, max_wait_s: float) -> None:
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
        """A partition has news: looked at once at the end of the turn."""
        self.gateway.woken[self] = None

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
            self._look_again()

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
        if self.expired or self._is_enough():
            self._read()
        elif not self.waits:
            self.waits = True
            for part in self.parts:
                part.route.readers[self] = None

    def _is_enough(self) -> bool:
        ready = 0
        for part in self.parts:
            if part.response.error_code:
                return True
            ready += part.length
        return ready >= self.min_bytes

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
        self.exchange.answer(self.response)

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
    if request.session_epoch not in FULL_FETCH_EPOCHS:
        exchange.answer(FetchResponse(error_code=ErrorCode.FETCH_SESSION_ID_NOT_FOUND))
        return
    poll = LongPoll(gateway, exchange, request)
    exchange.operation = poll
    exchange.run_alone()
    for topic in request.topics:
        responses: list[PartitionData] = []
        poll.response.responses.append(FetchableTopicResponse(topic=topic.topic, partitions=responses))
        for wanted in topic.partitions:
            responses.append(begin(poll, topic.topic, wanted))
    poll.start(request.max_wait_ms / 1000)


def begin(poll: LongPoll, topic: str, wanted: FetchPartition) -> PartitionData:
    """The partition's place in the answer, and its part of the work if it can be asked."""
    gateway = poll.gateway
    aborted: list[AbortedTransaction] | None = [] if poll.isolation_level == READ_COMMITTED else None
    response = PartitionData(wanted.partition, aborted_transactions=aborted, records=NO_BYTES)
    route = gateway.routes.find(topic, wanted.partition)
    error = route_error(gateway, route, topic, wanted.partition)
    if error:
        poll.expired = True  # an error is not kept waiting
        response.error_code = error
        response.high_watermark = response.log_start_offset = -1
        return response
    assert route is not None
    max_bytes = max(1, min(wanted.partition_max_bytes, poll.max_bytes))
    poll.parts.append(Part(
        poll, route, response, offset=wanted.fetch_offset, leader_epoch=wanted.current_leader_epoch,
        max_bytes=max_bytes))
    return response
