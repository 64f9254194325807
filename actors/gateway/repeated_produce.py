"""Produce requests like the last one of their connection: one object each, in place of a dozen.

A client that sends one small batch per request repeats everything but the records. `begin` takes such a request without
reading it in general (`transport/kafka/produce_shape.py`). What does not go as usual goes on as `produce.py` has it.
Invariant: the answer has the same bytes that the general way would give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import REQUEST_OVERHEAD, Connection, Exchange
from zafka.actors.gateway.leaders import name_of
from zafka.actors.gateway.produce import OWN_WRITE_S, Batch, Pending
from zafka.actors.messages import ProduceAnswer
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import response_writer
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.produce import PartitionProduceResponse, ProduceRequest
from zafka.transport.kafka.produce_shape import CORRELATION, ProduceShape, learn

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway


class RepeatedProduce(Exchange):
    """A request, its only batch at its partition, and its deadline: what else are Exchange, Batch and Pending."""

    __slots__ = ("bucket", "done", "gateway", "records", "shape", "size")

    def __init__(
        self, gateway: Gateway, connection: Connection, shape: ProduceShape, head: bytes, records: memoryview, held: int
    ) -> None:
        # Exchange.__init__, without its call: one is made for every request.
        self.connection = connection
        self.version = shape.version
        self.head = head
        self.writer = None
        self.held = held
        self.frame = None
        self.close_reason = ""
        self.operation = None
        self.gateway = gateway
        self.shape = shape
        self.records = records
        self.size = len(records)
        self.bucket = 0
        self.done = False

    def on_answer(self, answer: ProduceAnswer) -> None:
        if self.done:
            return
        if answer.error:
            self._in_general().on_answer(answer)
            return
        self.done = True
        self.gateway.deadlines.cancel(self)
        if not self.connection.closed:
            body = self.shape.answer(answer.base_offset, answer.log_append_time_ms, answer.log_start_offset)
            self.answer_frame((self.head + body,))

    def on_lost(self, *, handed_over: bool) -> None:
        if not self.done:
            self._in_general().on_lost(handed_over=handed_over)

    def on_deadline(self) -> None:
        if not self.done:
            self._in_general().fail(ErrorCode.REQUEST_TIMED_OUT)

    def _in_general(self) -> Batch:
        """The same as `produce.handle` has it; it ends with the batch."""
        self.done = True
        self.gateway.deadlines.cancel(self)
        shape = self.shape
        self.writer = response_writer(ApiKey.PRODUCE, shape.version)
        pending = Pending(self.gateway, self, shape.acks)
        partition = PartitionProduceResponse(shape.partition, base_offset=-1)
        pending.response = shape.response(partition)
        return Batch(pending, shape.topic, partition, self.records)


def begin(gateway: Gateway, connection: Connection, shape: ProduceShape, frame: memoryview) -> bool:
    """Start a request of this shape; False if it has another, or does not just go to its partition."""
    records = shape.records_in(frame)
    if records is None or gateway.sequence_gaps:
        return False
    topic = shape.topic
    name = name_of(gateway, topic)
    route = None if name is None else gateway.routes.find(name, shape.partition)
    if route is None or route.refusal or (type(topic) is bytes and route.topic_id != topic):
        return False
    head = bytes(frame[CORRELATION : CORRELATION + 4]) + shape.tags
    exchange = RepeatedProduce(gateway, connection, shape, head, records, len(frame) + REQUEST_OVERHEAD)
    connection.begin(exchange)
    gateway.deadlines.set(exchange, gateway.now.monotonic_s, shape.timeout_s or OWN_WRITE_S)
    route.produce(exchange, shape.acks, records, gateway.slice)
    return True


def remember(connection: Connection, frame: memoryview, version: int, request: ProduceRequest) -> None:
    """Learn the shape of what a connection asks twice in a row: who goes from partition to partition has none."""
    topics = request.topic_data
    if len(topics) != 1 or len(topics[0].partition_data) != 1:
        return
    asked = topics[0].name or topics[0].topic_id, topics[0].partition_data[0].index
    if connection.asked == asked:
        connection.shape = learn(frame, version, request)
    connection.asked = asked
