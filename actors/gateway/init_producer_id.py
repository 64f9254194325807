"""InitProducerId: an id for an idempotent producer, from a block that the coordinator committed to this broker.

Versions 0-5; 5 says the same as 4, to clients that know transactions of its kind (KIP-890). From 3 on a producer may hand in its id and epoch to get the next epoch (KIP-360): what it sent before
is fenced off at each partition by then. Transactions are not supported yet: an answer that clients take as final.
Source: TransactionCoordinator.handleInitProducerId, RPCProducerIdManager.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.messages import AllocateProducerIds, ProducerIdsAllocated
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.INIT_PRODUCER_ID
VERSIONS = range(6)
ADVERTISED = VERSIONS

WAIT_S = 10.0
EPOCH_MAX = 2**15 - 1  # 16 bits; the last one is kept for fencing, as in Kafka


class Waiting:
    """A producer that waits for the coordinator's next block."""

    __slots__ = ("bucket", "exchange")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.bucket = 0

    def on_deadline(self) -> None:
        refuse(self.exchange, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)


class ProducerIds:
    """The ids that this broker may still give away. A block that a dead broker held is never given again."""

    done = False  # as `Asking`

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.next_id = 0
        self.end_id = 0
        self.asking = False
        self.waiting: deque[Waiting] = deque()

    def give(self, exchange: Exchange) -> None:
        """Answer with the next id, now or when there is one."""
        if self.next_id < self.end_id:
            exchange.answer(InitProducerIdResponse(producer_id=self.next_id, producer_epoch=0))
            self.next_id += 1
            return
        waiting = Waiting(exchange)
        self.waiting.append(waiting)
        self.gateway.deadlines.set(waiting, self.gateway.now.monotonic_s, WAIT_S)
        self._ask()

    def _ask(self) -> None:
        if not self.asking:
            self.asking = True
            broker_id = self.gateway.broker_id
            self.gateway.coordinator.ask(lambda request_id: AllocateProducerIds(request_id, broker_id), self)

    def on_answer(self, answer: ProducerIdsAllocated) -> None:
        self.asking = False
        self.next_id, self.end_id = answer.first, answer.first + answer.count
        waiting, self.waiting = self.waiting, deque()
        for each in waiting:
            if each.bucket:  # not expired
                self.gateway.deadlines.cancel(each)
                self.give(each.exchange)

    def on_lost(self) -> None:
        # A block that was perhaps committed is lost, which costs nothing: there are 2^63 ids.
        self.asking = False
        if self.waiting:
            self._ask()


def handle(gateway: Gateway, exchange: Exchange, request: InitProducerIdRequest) -> None:
    known = 0 <= request.producer_id < gateway.cluster.next_producer_id
    halves = (request.producer_id < 0) != (request.producer_epoch < 0)
    if request.transactional_id == "" or halves:
        refuse(exchange, ErrorCode.INVALID_REQUEST)
    elif request.transactional_id is not None:
        refuse(exchange, ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    elif known and 0 <= request.producer_epoch < EPOCH_MAX - 1:
        exchange.answer(InitProducerIdResponse(
            producer_id=request.producer_id, producer_epoch=request.producer_epoch + 1))
    else:
        gateway.producer_ids.give(exchange)


def refuse(exchange: Exchange, error: ErrorCode) -> None:
    exchange.answer(InitProducerIdResponse(error_code=error, producer_id=-1, producer_epoch=-1))
