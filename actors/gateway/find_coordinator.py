"""FindCoordinator: who leads a group: the leader of the group's partition of `__consumer_offsets`.

Versions 0-6; 4 asks for several keys at once (KIP-699), 6 knows share groups (KIP-932), which are refused. The first
that asks has the topic created; the answer waits until the coordinator serves, for a few seconds, where Kafka says
COORDINATOR_NOT_AVAILABLE at once and clients ask again. Addresses are those of the listener that the client came in by.
There are no transactions yet, and a retry would only hide that: TRANSACTIONAL_ID_AUTHORIZATION_FAILED is the one answer
that all clients take as final, and its message says why.
Source: KafkaApis.handleFindCoordinatorRequest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.cluster_state import NO_LEADER
from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.group_relay import GROUP_TOPIC, WAIT_S, group_topic, partition_of
from zafka.actors.gateway.metadata import begin_creation, brokers
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.find_coordinator import (
    Coordinator,
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.FIND_COORDINATOR
VERSIONS = range(7)
ADVERTISED = VERSIONS

SEVERAL_KEYS_SINCE = 4
GROUP, TRANSACTION, SHARE = 0, 1, 2
NOT_AVAILABLE = "The coordinator is not available."
NO_ERROR = "NONE"  # Kafka's word, where there is one coordinator
UNKNOWN_KIND = (
    "This most likely occurs because of a request being malformed by the client library or the message was sent to an "
    "incompatible broker. See the broker logs for more details.")


def handle(gateway: Gateway, exchange: Exchange, request: FindCoordinatorRequest) -> None:
    keys = request.coordinator_keys if exchange.version >= SEVERAL_KEYS_SINCE else [request.key]
    if request.key_type == GROUP:
        Finding(gateway, exchange, keys).start()
    else:
        error, message = refusal(request.key_type)
        answer(exchange, [Coordinator(key, -1, "", -1, error, message) for key in keys])


class Finding:
    """A request for groups, until their coordinators serve or its time is up."""

    def __init__(self, gateway: Gateway, exchange: Exchange, group_ids: list[str]) -> None:
        self.gateway = gateway
        self.exchange = exchange
        self.group_ids = group_ids
        self.bucket = 0

    def start(self) -> None:
        gateway = self.gateway
        if GROUP_TOPIC not in gateway.cluster.topics_by_name:
            begin_creation(gateway, group_topic(gateway))
        self.exchange.operation = self
        gateway.watchers[self] = None
        gateway.deadlines.set(self, gateway.now.monotonic_s, WAIT_S)
        self.on_changed()

    def on_changed(self) -> None:
        found = [self._find(group_id) for group_id in self.group_ids]
        if None not in found:
            self._end([each for each in found if each is not None])

    def on_deadline(self) -> None:
        self._end([self._find(group_id) or not_available(group_id) for group_id in self.group_ids])

    def on_hurry(self) -> None:
        self.on_deadline()

    def on_abandoned(self) -> None:
        self.gateway.watchers.pop(self, None)
        self.gateway.deadlines.cancel(self)

    def _end(self, found: list[Coordinator]) -> None:
        self.on_abandoned()
        answer(self.exchange, found)

    def _find(self, group_id: str) -> Coordinator | None:
        """None while it is on its way."""
        gateway = self.gateway
        topic = gateway.cluster.topics_by_name.get(GROUP_TOPIC)
        if topic is None:
            return None
        number = partition_of(group_id, len(topic.partitions))
        partition = topic.partitions[number]
        if partition.leader == NO_LEADER:
            return not_available(group_id) if partition.faults.keys() >= set(partition.replicas) else None
        if partition.leader == gateway.broker_id:
            route = gateway.routes.find(GROUP_TOPIC, number)
            if route is None or route.refusal:
                return not_available(group_id) if route and route.refusal == ErrorCode.KAFKA_STORAGE_ERROR else None
        for broker in brokers(gateway, self.exchange.connection):
            if broker.node_id == partition.leader:
                return Coordinator(group_id, broker.node_id, broker.host, broker.port, 0, "")
        return not_available(group_id)


def not_available(group_id: str) -> Coordinator:
    return Coordinator(group_id, -1, "", -1, ErrorCode.COORDINATOR_NOT_AVAILABLE, NOT_AVAILABLE)


def answer(exchange: Exchange, found: list[Coordinator]) -> None:
    if exchange.version >= SEVERAL_KEYS_SINCE:
        exchange.answer(FindCoordinatorResponse(coordinators=found))
        return
    (one,) = found
    message = one.error_message if one.error_code else NO_ERROR
    exchange.answer(FindCoordinatorResponse(
        error_code=one.error_code, error_message=message, node_id=one.node_id, host=one.host, port=one.port))


def refusal(key_type: int) -> tuple[int, str]:
    if key_type == SHARE:
        return ErrorCode.INVALID_REQUEST, "share groups are not supported yet by this cluster"
    if key_type == TRANSACTION:
        return ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "transactions are not supported yet by this cluster"
    return ErrorCode.INVALID_REQUEST, UNKNOWN_KIND
