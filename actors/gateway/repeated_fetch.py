"""Long polls like the last one of their connection, at the end of a partition: one object each, in place of a dozen.

A consumer that has read everything asks for one offset behind the other, and waits. `begin` takes such a request without
reading it in general (`transport/kafka/fetch_shape.py`), and who waited for the same bytes is answered with the same
encoded answer: a batch that hundreds wait for costs little for each. Whatever does not go as usual (a new leader, a log
that rolled, bytes that cannot be read, crowded connections) goes on as `fetch.py` has it.
Invariant: the answer has the same bytes that the general way would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import REQUEST_OVERHEAD, Connection, Exchange
from zafka.actors.gateway.effects import Buffer, FileSlice, FilesRead, ReadFault
from zafka.actors.gateway.fetch import LongPoll
from zafka.actors.gateway.fetch_part import NO_BYTES, READ_COMMITTED, Part, whole_batches
from zafka.actors.gateway.fetch_session import Sessionless, Wanted
from zafka.actors.gateway.leaders import name_of
from zafka.actors.gateway.routes import Point, Route, only_grew
from zafka.storage.location import is_hot
from zafka.transport.kafka.codec import RequestHeader
from zafka.transport.kafka.fetch_shape import CORRELATION, FetchShape, learn, only_one
from zafka.transport.kafka.messages.fetch import AbortedTransaction, FetchRequest, PartitionData

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

_base_offset = Struct(">q").unpack_from


class RepeatedFetch(Exchange):
    """A request at the end of a partition, until it is answered.

    seen: what the partition showed when it began; its bytes will lie behind that. looked: at the last look.
    waits: it is registered with the partition. wanted_bytes: of the read that is under way.
    """

    __slots__ = (
        "bucket", "done", "expired", "gateway", "looked", "max_bytes", "min_bytes", "offset", "route", "seen", "shape", "until_s",
        "waits", "wanted_bytes")

    def __init__(
        self, gateway: Gateway, connection: Connection, shape: FetchShape, head: bytes, route: Route, offset: int, held: int
    ) -> None:
        # Exchange.__init__, without its call: one is made for every request.
        self.connection = connection
        self.version = shape.version
        self.client_id = None  # of groups' interest only
        self.head = head
        self.writer = shape.write
        self.held = held
        self.frame = None
        self.close_reason = ""
        self.operation = self
        self.gateway = gateway
        self.shape = shape
        self.route = route
        self.offset = offset
        self.seen = self.looked = route.advanced
        most = max(1, min(shape.max_bytes, gateway.settings.fetch_bytes_max))
        self.min_bytes = min(shape.min_bytes, most)
        self.max_bytes = max(1, min(shape.asked.partition_max_bytes, most))
        self.until_s = gateway.now.monotonic_s + shape.max_wait_s
        self.wanted_bytes = 0
        self.waits = True
        self.expired = False
        self.done = False
        self.bucket = 0

    # -- what happens to it --------------------------------------------------------------------

    def on_advanced(self) -> None:
        self.gateway.waking.add(self.route, self)

    def on_woken(self) -> None:
        if self.waits:
            self._look()

    def on_deadline(self) -> None:
        self.expired = True
        if self.waits:
            self.gateway.waking.add(self.route, self)

    def on_hurry(self) -> None:
        self.expired = True
        if self.waits:
            self._look()

    def on_abandoned(self) -> None:
        self._end()
        self.operation = None  # without a cycle there is nothing to collect

    # -- looking and reading -------------------------------------------------------------------

    def _look(self) -> None:
        """Has the partition grown by enough?"""
        route, seen, advanced = self.route, self.seen, self.route.advanced
        if route.refusal or not only_grew(seen, advanced):
            self._go_on_in_general()
            return
        length = advanced.end_position - seen.end_position
        if length < self.min_bytes and not self.expired:
            route.wait(self, self.min_bytes - length)
            return
        self._stop_waiting()
        self.looked = advanced
        if length:
            self._read(length)
        else:
            self._answer(self._body(NO_BYTES))

    def _read(self, length: int) -> None:
        gateway, seen = self.gateway, self.seen
        everybody = gateway.connections
        if everybody.held - self.held > everybody.total_limit // 2:
            self._go_on_in_general()
            return
        self.expired = True  # from here on, what is found is enough
        self.wanted_bytes = min(length, self.max_bytes)
        start = seen.end_position
        hot = is_hot(start, hot_position=start, end_position=self.looked.end_position)
        path = f"{self.route.directory}/{seen.segment_base_offset:020d}.log"
        self.hold(self.wanted_bytes)
        gateway.read_files([FileSlice(path, seen.inode, start, self.wanted_bytes, cold=not hot)], self)

    def on_files_read(self, read: FilesRead) -> None:
        if self.done:
            return
        data = read.parts[0]
        body = None if isinstance(data, ReadFault) else self._body(data)
        if body is None:
            self._go_on_in_general()
        else:
            self._answer(body)

    def _body(self, data: Buffer) -> Sequence[Buffer] | None:
        """The answer with these bytes, encoded; None if they are not what they should be. The same for all who wait for the same:
        who shares a read has asked for the same offset."""
        gateway = self.gateway
        key = id(data), id(self.looked), self.shape.answers_as
        found = gateway.same_answers.get(key)
        if found is None:
            body = self._encode(data)
            if body is None:
                return None
            found = gateway.same_answers[key] = body, data, self.looked  # with what the key goes by
        return found[0]

    def _encode(self, data: Buffer) -> Sequence[Buffer] | None:
        records, seen, shape = NO_BYTES, self.seen, self.shape
        if self.wanted_bytes:
            whole = whole_batches(data)
            if not whole.size or _base_offset(data)[0] != self.offset:
                return None
            start = seen.end_position
            self.route.remember(whole.next_offset, Point(seen.segment_base_offset, seen.inode, start + whole.size, hot_position=start))
            records = memoryview(data)[: whole.size]
        looked, answer = self.looked, self._nothing()
        answer.high_watermark = looked.high_watermark
        answer.last_stable_offset = looked.last_stable_offset
        answer.log_start_offset = looked.log_start_offset
        answer.records = records
        return shape.write(Sessionless([self._wanted()]).finish([answer], self.gateway.now.monotonic_s))

    def _nothing(self) -> PartitionData:
        aborted: list[AbortedTransaction] | None = [] if self.shape.isolation_level == READ_COMMITTED else None
        return PartitionData(self.shape.asked.partition, aborted_transactions=aborted, records=NO_BYTES)

    def _wanted(self) -> Wanted:
        return Wanted(self.shape.topic, self.route.topic, self.shape.asked)

    # -- the end -------------------------------------------------------------------------------

    def _answer(self, body: Sequence[Buffer] | None) -> None:
        assert body is not None
        self._end()
        if not self.connection.closed:
            self.answer_frame([self.head, *body])

    def _stop_waiting(self) -> None:
        self.waits = False
        self.route.readers.pop(self, None)

    def _end(self) -> None:
        self.done = True
        self._stop_waiting()
        self.gateway.deadlines.cancel(self)

    def _go_on_in_general(self) -> None:
        """As `fetch.handle` would have it by now: a long poll that knows where the bytes behind what it saw begin."""
        self._end()
        self.hold(-self.wanted_bytes)  # it is read anew
        gateway, route, seen = self.gateway, self.route, self.seen
        request = self.shape.request(self.offset)
        poll = LongPoll(gateway, self, request, Sessionless([self._wanted()]))
        part = Part(poll, route, self._nothing(), request.topics[0].partitions[0])
        part.point = Point(seen.segment_base_offset, seen.inode, seen.end_position, hot_position=seen.end_position)
        poll.answers.append(part.response)
        poll.parts.append(part)
        poll.expired = self.expired
        self.operation = poll
        poll.start(max(0.0, self.until_s - gateway.now.monotonic_s))


def begin(gateway: Gateway, connection: Connection, shape: FetchShape, frame: memoryview) -> bool:
    """Start a request of this shape; False if it has another, or there is more to do than to wait."""
    offset = shape.offset_in(frame)
    if offset is None:
        return False
    topic = shape.topic
    name = name_of(gateway, topic)
    route = None if name is None else gateway.routes.find(name, shape.asked.partition)
    if route is None or route.refusal or (type(topic) is bytes and route.topic_id != topic):
        return False
    advanced = route.advanced
    if not offset == advanced.high_watermark == advanced.last_stable_offset or shape.leader_epoch not in (-1, advanced.leader_epoch):
        return False
    head = bytes(frame[CORRELATION : CORRELATION + 4]) + shape.tags
    poll = RepeatedFetch(gateway, connection, shape, head, route, offset, len(frame) + REQUEST_OVERHEAD)
    connection.begin(poll)
    poll.run_alone()
    gateway.deadlines.set(poll, gateway.now.monotonic_s, shape.max_wait_s)
    route.wait(poll, poll.min_bytes)
    return True


def remember(connection: Connection, frame: memoryview, header: RequestHeader, request: FetchRequest) -> None:
    """Learn the shape of what a connection asks twice in a row."""
    wanted = only_one(request)
    if wanted is None:
        return
    shape = connection.fetch_shape
    if shape is not None and shape.offset_in(frame) is not None:
        return  # it was not at the end of the partition
    fetched = request.topics[0].topic or request.topics[0].topic_id, wanted.partition
    if connection.fetched == fetched:
        connection.fetch_shape = learn(frame, header, request)
    connection.fetched = fetched
