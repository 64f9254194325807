"""Producers: idempotent ones, as librdkafka's, and plain ones.

Owns: `IdempotentProducer`: up to five batches in flight for each partition, sent again in order with the same
sequence numbers, on a new connection if need be; whoever tells it OUT_OF_ORDER_SEQUENCE_NUMBER, though it sends in order, is
wrong (librdkafka raises its epoch then, and doubles what is in doubt); a batch that is given up raises the producer's epoch (KIP-360), and
what may have been written before is not sent again. `PlainProducer`: acks 0, 1 or all, sent once or again.
Source: librdkafka INTRODUCTION.md "Idempotent producer", rdkafka_idempotence.c; KIP-98, KIP-360.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.history import value_of
from tests.simulation.clients import BACKOFF_S, Client
from zafka.storage.records import encode_batch
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.init_producer_id import InitProducerIdRequest
from zafka.transport.kafka.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

PRODUCE_VERSION = 9
IN_FLIGHT = 5


@dataclass(slots=True)
class Batch:
    """first: the number of its first record, in the history. order: among the numbered. tries: how often it was sent."""

    partition: int
    first: int
    values: list[bytes]
    time_ms: int
    made_s: float
    sequence: int = -1
    order: int = -1
    tries: int = 0


@dataclass(slots=True)
class Lane:
    """One partition. waiting: to be sent, in order. in_flight: sent, in order. not_before_s: backoff after an error."""

    number: int = 0
    sequence: int = 0
    order: int = 0
    waiting: list[Batch] = field(default_factory=list)
    in_flight: list[Batch] = field(default_factory=list)
    not_before_s: float = 0.0


class Producer(Client):
    """topic: with partitions 0 to partitions - 1. batches: how many it makes, one each `pause_s` on average."""

    once = True
    ordered = True

    def __init__(
        self, simulation: Simulation, name: str, topic: str, partitions: int, *, batches: int, pause_s: float
    ) -> None:
        super().__init__(simulation, name)
        self.request_s = simulation.scenario.request_s
        self.topic = topic
        self.lanes = {index: Lane() for index in range(partitions)}
        self.batches_left = batches
        self.pause_s = pause_s
        self.history.begin_producer(name, once=self.once, ordered=self.ordered)

    def start(self) -> None:
        self.after(self.random.random() * self.pause_s, self._make)

    def _make(self) -> None:
        """A batch, and the next one a while later."""
        if not self.batches_left:
            return
        self.batches_left -= 1
        partition = self.random.randrange(len(self.lanes))
        lane = self.lanes[partition]
        count = self.random.choice((1, 1, 2, 3))
        values = []
        for number in range(lane.number, lane.number + count):
            values.append(value_of(self.name, f"{self.topic}-{partition}", number, padding=self.random.randrange(120)))
            self.history.sent(self.name, f"{self.topic}-{partition}", number)
        now_s = self.engine.now_s
        lane.waiting.append(Batch(partition, lane.number, values, self.engine.wall_ms(now_s), now_s))
        lane.number += count
        self.after(self.pause_s * 2 * self.random.random(), self._make)
        self.pump()

    def on_leaders(self) -> None:
        self.pump()

    def pump(self) -> None:
        """Send what may be sent."""
        raise NotImplementedError

    def may_send(self, lane: Lane) -> bool:
        return len(lane.in_flight) < IN_FLIGHT and self.engine.now_s >= lane.not_before_s

    def back_off(self, lane: Lane, error: ErrorCode) -> None:
        """Wait a little before this lane sends anything, and look for its leader anew if that may be the trouble."""
        if error in (ErrorCode.NETWORK_EXCEPTION, ErrorCode.NOT_LEADER_OR_FOLLOWER):
            self.leaders.clear()
        seconds = BACKOFF_S * (0.5 + self.random.random())
        lane.not_before_s = self.engine.now_s + seconds
        self.after(seconds, self.pump)

    def check_done(self) -> None:
        self.done = not self.batches_left and not any(
            lane.waiting or lane.in_flight for lane in self.lanes.values())

    def produce(
        self, broker_id: int, batch: Batch, acks: int, on_answer: Any, on_lost: Any, *, producer_id: int = -1,
        epoch: int = -1,
    ) -> None:
        batch.tries += 1
        records = encode_batch(
            [(batch.time_ms, None, value, ()) for value in batch.values], producer_id=producer_id,
            producer_epoch=epoch, base_sequence=batch.sequence)
        data = [TopicProduceData(
            name=self.topic, partition_data=[PartitionProduceData(batch.partition, memoryview(records))])]
        self.ask(broker_id, ApiKey.PRODUCE, PRODUCE_VERSION, ProduceRequest(None, acks, int(750 * self.request_s), data),
                 on_answer, on_lost)

    def acknowledge(self, batch: Batch, base_offset: int) -> None:
        self.engine.counts["acknowledged batches"] += 1
        where = f"{self.topic}-{batch.partition}"
        for index in range(len(batch.values)):
            self.history.acknowledged(self.name, where, batch.first + index, base_offset + index)

    def fail(self, batch: Batch, *, definite: bool) -> None:
        for index in range(len(batch.values)):
            self.history.failed(self.name, f"{self.topic}-{batch.partition}", batch.first + index, definite=definite)


class IdempotentProducer(Producer):
    """gives_up_s: how long a batch may take, infinity if it may take for ever."""

    def __init__(self, simulation: Simulation, name: str, topic: str, partitions: int, *, batches: int,
                 pause_s: float, gives_up_s: float = float("inf")) -> None:
        super().__init__(simulation, name, topic, partitions, batches=batches, pause_s=pause_s)
        self.gives_up_s = gives_up_s
        self.producer_id = self.epoch = -1
        self._asking_id = False
        self._raising = False  # the epoch, once nothing is in flight

    def finish(self) -> None:
        self.gives_up_s = float("inf")

    def pump(self) -> None:
        if self.gives_up_s < float("inf"):
            self._give_up_old()
        if self._raising and not any(lane.in_flight for lane in self.lanes.values()):
            self._begin_epoch()
        if self.producer_id < 0:
            self._ask_id()
            return
        for partition, lane in self.lanes.items():
            while lane.waiting and not self._raising and self.may_send(lane) and not self._would_outrun(lane):
                broker_id = self.leader_of(self.topic, partition)
                if broker_id is None:
                    break
                self._send(broker_id, lane, lane.waiting.pop(0))
        self.check_done()

    @staticmethod
    def _would_outrun(lane: Lane) -> bool:
        """Whether a new batch would push an unresolved one out of the five that the broker remembers."""
        is_new = lane.waiting[0].sequence < 0 and bool(lane.in_flight)
        return is_new and lane.order - min(batch.order for batch in lane.in_flight) >= IN_FLIGHT

    def _send(self, broker_id: int, lane: Lane, batch: Batch) -> None:
        if batch.sequence < 0:
            batch.sequence, batch.order = lane.sequence, lane.order
            lane.sequence += len(batch.values)
            lane.order += 1
        lane.in_flight.append(batch)
        epoch = self.epoch
        self.produce(
            broker_id, batch, -1, lambda answer: self._on_answer(lane, batch, epoch, answer),
            lambda: self._again(lane, batch, ErrorCode.NETWORK_EXCEPTION), producer_id=self.producer_id,
            epoch=epoch)

    def _on_answer(self, lane: Lane, batch: Batch, epoch: int, answer: Any) -> None:
        told = answer.responses[0].partition_responses[0]
        error = ErrorCode(told.error_code)
        if error is ErrorCode.NONE:
            lane.in_flight.remove(batch)
            self.acknowledge(batch, told.base_offset)
            self.pump()
        elif error.is_retriable:
            self._again(lane, batch, error)
        else:
            self.violate("refused", f"{error.name} for sequence {batch.sequence} of producer {self.producer_id}, "
                         f"epoch {epoch}, the oldest one outstanding: {told.error_message}")
            lane.in_flight.remove(batch)
            self.pump()

    def _again(self, lane: Lane, batch: Batch, error: ErrorCode) -> None:
        if batch not in lane.in_flight:
            return
        self.engine.counts["batches sent again"] += 1
        lane.in_flight.remove(batch)
        index = sum(other.sequence >= 0 and other.sequence < batch.sequence for other in lane.waiting)
        lane.waiting.insert(index, batch)
        self.back_off(lane, error)

    # -- ids and epochs --------------------------------------------------------------------------

    def _ask_id(self) -> None:
        if self._asking_id:
            return
        self._asking_id = True
        request = InitProducerIdRequest(None, 60_000, -1, -1)
        self.ask(self.any_broker(), ApiKey.INIT_PRODUCER_ID, 4, request, self._on_id, self._no_id)

    def _on_id(self, answer: Any) -> None:
        if answer.error_code:
            self._no_id()
            return
        self._asking_id = False
        self.producer_id, self.epoch = answer.producer_id, answer.producer_epoch
        self.simulation.on_producer_id(self.name, self.producer_id, self.epoch)
        self.pump()

    def _no_id(self) -> None:
        self.after(BACKOFF_S, self._ask_id_again)

    def _ask_id_again(self) -> None:
        self._asking_id = False
        self._ask_id()

    def _give_up_old(self) -> None:
        oldest_s = self.engine.now_s - self.gives_up_s
        for lane in self.lanes.values():
            if any(batch.made_s < oldest_s for batch in (*lane.in_flight, *lane.waiting)):
                self._raising = True

    def _begin_epoch(self) -> None:
        """Nothing is in flight: what was sent and not answered stays in doubt, the rest is numbered afresh."""
        self.engine.counts["producer epochs raised"] += 1
        self._raising = False
        oldest_s = self.engine.now_s - self.gives_up_s
        for lane in self.lanes.values():
            kept = [batch for batch in lane.waiting if not batch.tries and batch.made_s >= oldest_s]
            for batch in lane.waiting:
                if batch not in kept:
                    self.fail(batch, definite=not batch.tries)
            lane.waiting = kept
            lane.sequence = 0
        if self.producer_id >= 0:
            self._asking_id = True
            request = InitProducerIdRequest(None, 60_000, self.producer_id, self.epoch)
            self.producer_id = -1
            self.ask(self.any_broker(), ApiKey.INIT_PRODUCER_ID, 4, request, self._on_id, self._no_id)


class PlainProducer(Producer):
    """acks: 0, 1 or -1. tries: how often a batch may be sent."""

    def __init__(self, simulation: Simulation, name: str, topic: str, partitions: int, *, batches: int,
                 pause_s: float, acks: int, tries: int) -> None:
        self.once = tries == 1
        self.ordered = False  # what went out on a connection that was lost may come behind what followed on the next
        super().__init__(simulation, name, topic, partitions, batches=batches, pause_s=pause_s)
        self.acks = acks
        self.tries = tries

    def pump(self) -> None:
        for partition, lane in self.lanes.items():
            while lane.waiting and self.may_send(lane):
                broker_id = self.leader_of(self.topic, partition)
                if broker_id is None:
                    break
                self._send(broker_id, lane, lane.waiting.pop(0))
        self.check_done()

    def _send(self, broker_id: int, lane: Lane, batch: Batch) -> None:
        if not self.acks:
            self.produce(broker_id, batch, 0, None, lambda: None)
            return
        lane.in_flight.append(batch)
        self.produce(
            broker_id, batch, self.acks, lambda answer: self._on_answer(lane, batch, answer),
            lambda: self._failed(lane, batch, ErrorCode.NETWORK_EXCEPTION))

    def _on_answer(self, lane: Lane, batch: Batch, answer: Any) -> None:
        told = answer.responses[0].partition_responses[0]
        error = ErrorCode(told.error_code)
        if error is not ErrorCode.NONE:
            self._failed(lane, batch, error)
            return
        lane.in_flight.remove(batch)
        self.acknowledge(batch, told.base_offset)
        self.pump()

    def _failed(self, lane: Lane, batch: Batch, error: ErrorCode) -> None:
        if batch not in lane.in_flight:
            return
        lane.in_flight.remove(batch)
        if batch.tries < self.tries:
            lane.waiting.append(batch)
        else:
            in_doubt = error in (ErrorCode.NETWORK_EXCEPTION, ErrorCode.REQUEST_TIMED_OUT)
            self.fail(batch, definite=not in_doubt and batch.tries == 1)
        self.back_off(lane, error)
