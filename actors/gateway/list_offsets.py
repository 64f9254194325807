"""ListOffsets: the offset of a time, or of the log's two ends. Each partition answers for itself.

Versions 1-7. Version 7 has the timestamp -3, the record with the largest timestamp (KIP-734). Later ones speak of
tiered storage.
Source: KafkaApis.handleListOffsetRequest; KIP-207 (OFFSET_NOT_AVAILABLE) is the partition's to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.produce import route_error
from zafka.actors.messages import ListOffset, OffsetListed
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.LIST_OFFSETS
VERSIONS = range(1, 8)
ADVERTISED = VERSIONS

MAX_TIMESTAMP = -3
MAX_TIMESTAMP_SINCE = 7
TIMEOUT_S = 30.0


class Listing:
    """One partition's part of a request."""

    __slots__ = ("done", "pending", "response", "size")

    def __init__(self, pending: Pending, response: ListOffsetsPartitionResponse) -> None:
        self.pending = pending
        self.response = response
        self.size = 0
        self.done = False

    def on_answer(self, answer: OffsetListed) -> None:
        if not self.done:
            self.response.timestamp = answer.timestamp_ms
            self.response.offset = answer.offset
            self.response.leader_epoch = answer.leader_epoch
            self.end(answer.error)

    def on_lost(self, *, handed_over: bool) -> None:
        self.end(ErrorCode.NOT_LEADER_OR_FOLLOWER)

    def end(self, error: int) -> None:
        if not self.done:
            self.done = True
            self.response.error_code = error
            self.pending.on_listing_done()


class Pending:
    def __init__(self, gateway: Gateway, exchange: Exchange) -> None:
        self.gateway = gateway
        self.exchange = exchange
        self.response = ListOffsetsResponse(topics=[])
        self.listings: list[Listing] = []
        self.missing = 1
        self.bucket = 0

    def on_listing_done(self) -> None:
        self.missing -= 1
        if not self.missing:
            self.gateway.deadlines.cancel(self)
            self.listings = []
            self.exchange.answer(self.response)

    def on_deadline(self) -> None:
        for listing in self.listings:
            listing.end(ErrorCode.REQUEST_TIMED_OUT)


def handle(gateway: Gateway, exchange: Exchange, request: ListOffsetsRequest) -> None:
    pending = Pending(gateway, exchange)
    for topic in request.topics:
        responses: list[ListOffsetsPartitionResponse] = []
        pending.response.topics.append(ListOffsetsTopicResponse(topic.name, responses))
        for wanted in topic.partitions:
            response = ListOffsetsPartitionResponse(wanted.partition_index)
            responses.append(response)
            response.error_code = ask(gateway, pending, response, topic.name, wanted, request.isolation_level)
    if pending.missing > 1:
        gateway.deadlines.set(pending, gateway.now.monotonic_s, TIMEOUT_S)
    pending.on_listing_done()


def ask(
    gateway: Gateway, pending: Pending, response: ListOffsetsPartitionResponse, topic: str,
    wanted: ListOffsetsPartition, isolation_level: int,
) -> int:
    """Send the question to its partition; the error if it cannot be asked."""
    route = gateway.routes.find(topic, wanted.partition_index)
    error = route_error(gateway, route, topic, wanted.partition_index)
    if error:
        return error
    least = MAX_TIMESTAMP if pending.exchange.version >= MAX_TIMESTAMP_SINCE else MAX_TIMESTAMP + 1
    if wanted.timestamp < least:
        return ErrorCode.UNSUPPORTED_VERSION
    assert route is not None
    listing = Listing(pending, response)
    request_id = gateway.routes.new_id()
    question = ListOffset(request_id, wanted.timestamp, wanted.current_leader_epoch, isolation_level)
    if not route.ask(question, request_id, listing):
        return ErrorCode.NOT_LEADER_OR_FOLLOWER
    pending.listings.append(listing)
    pending.missing += 1
    return 0
