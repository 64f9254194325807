"""Producers that hand batches straight to partitions, past the broker, as our own client does on one machine.

Owns: `PartitionProcess`, a partition with a door of its own, as `actors/direct_door.py` has it; `Way`, a client's connection
to one; `DirectProducer`, which follows the rules of `zafka/client/direct.py`: the way changes when nothing is in flight,
and after a failure the broker has to acknowledge something first. Who leads is asked of the broker's real gateway.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from tests.simulation.clients import BACKOFF_S
from tests.simulation.processes import BrokerProcess, Process
from tests.simulation.producers import Batch, IdempotentProducer, Lane
from zafka.actors.actor import Effect, Mail
from zafka.actors.direct import DIRECT, AnswerDirect, DirectProduce
from zafka.actors.messages import ProduceAnswer, ProduceItem
from zafka.storage.records import encode_batch
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.produce import PartitionProduceResponse, ProduceResponse, TopicProduceResponse

if TYPE_CHECKING:
    from tests.simulation.machine import Machine
    from zafka.actors.start import ActorStart


class PartitionProcess(Process):
    """A partition and the clients at its door."""

    def __init__(self, machine: Machine, start: ActorStart) -> None:
        super().__init__(machine, start)
        self.ways: dict[Way, None] = {}
        self._mail: list[Mail] = []
        self._asked: dict[int, tuple[Way, int]] = {}  # the client's own number, by request id
        self._last_id = 0

    def has_mail(self) -> bool:
        return bool(self._mail) or super().has_mail()

    def turn(self) -> None:
        self.runtime.tick()
        mail, self._mail = self._mail, []
        mail = self.runtime.due() + self.runtime.receive() + mail
        if mail:
            self.runtime.turn(mail)

    def die(self, code: int) -> None:
        if self.alive:
            super().die(code)
            for way in list(self.ways):
                self.end(way)

    def on_batch(self, way: Way, number: int, records: bytes) -> None:
        if way not in self.ways:
            return
        self._last_id -= 1
        self._asked[self._last_id] = way, number
        body = DirectProduce(ProduceItem(self._last_id, -1, len(records)), way.leader_epoch)
        self._mail.append(Mail(DIRECT, body, memoryview(records)))
        self.wake(self._engine.now_s)

    def perform_other(self, effect: Effect) -> None:
        assert isinstance(effect, AnswerDirect)
        self.step("respond")
        for answer in effect.answers:
            way, number = self._asked.pop(answer.request_id)
            if way in self.ways:
                way.carry(1, way.on_answer, number, answer)
                if ErrorCode(answer.error).is_retriable:
                    self.end(way)

    def end(self, way: Way) -> None:
        del self.ways[way]
        way.carry(1, way.lose)


class Way:
    """A connection of a client to one incarnation of a partition. Bytes arrive in order, each way, after a delay."""

    def __init__(self, producer: DirectProducer, partition: int, process: PartitionProcess, leader_epoch: int) -> None:
        self.producer = producer
        self.partition = partition
        self.process = process
        self.leader_epoch = leader_epoch
        self.open = True
        self.asked: deque[tuple[int, Any, Any]] = deque()  # number, on_answer, on_lost
        self._last_number = 0
        self._last_s = [0.0, 0.0]
        process.ways[self] = None

    def carry(self, way: int, call: Any, *arguments: Any) -> None:
        engine, network = self.producer.engine, self.process.machine.network
        self._last_s[way] = max(engine.now_s + network.delay_s(), self._last_s[way] + 1e-9)
        engine.at(self._last_s[way], call, *arguments)

    def send(self, records: bytes, on_answer: Any, on_lost: Any) -> None:
        self._last_number += 1
        self.asked.append((self._last_number, on_answer, on_lost))
        self.producer.engine.counts["batches sent past the broker"] += 1
        self.producer.engine.hash(records)
        self.carry(0, self.process.on_batch, self, self._last_number, records)
        self.producer.after(self.producer.request_s, self._give_up, self._last_number)

    def close(self) -> None:
        """The client lets go of it; what it sent may still arrive."""
        self.open = False
        self.carry(0, self.process.ways.pop, self, None)

    def on_answer(self, number: int, answer: ProduceAnswer) -> None:
        if not self.open:
            return
        index = next(index for index, each in enumerate(self.asked) if each[0] == number)
        _, on_answer, _ = self.asked[index]
        del self.asked[index]
        part = PartitionProduceResponse(
            self.partition, answer.error, base_offset=answer.base_offset, error_message=answer.message)
        on_answer(ProduceResponse([TopicProduceResponse(partition_responses=[part])]))

    def lose(self) -> None:
        """No answer comes any more: whoever waits is told, oldest first."""
        if not self.open:
            return
        self.open = False
        asked, self.asked = self.asked, deque()
        for _, _, on_lost in asked:
            on_lost()

    def _give_up(self, number: int) -> None:
        if any(each[0] == number for each in self.asked):
            self.carry(0, self.process.ways.pop, self, None)
            self.lose()


class DirectProducer(IdempotentProducer):
    """ways: by partition. direct: partitions that go the direct way now. failed: those that went wrong since the last
    acknowledgement."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.ways: dict[int, Way] = {}
        self.direct: set[int] = set()
        self.failed: set[int] = set()
        self._asking: set[int] = set()

    def may_send(self, lane: Lane) -> bool:
        if not super().may_send(lane):
            return False
        partition = lane.waiting[0].partition
        way = self.ways.get(partition)
        usable = way is not None and way.open and partition not in self.failed
        if usable != (partition in self.direct):
            if lane.in_flight:
                return False
            (self.direct.add if usable else self.direct.discard)(partition)
        if not usable and partition not in self._asking:
            self._ask_way(partition)
        return True

    def produce(
        self, broker_id: int, batch: Batch, acks: int, on_answer: Any, on_lost: Any, *, producer_id: int = -1,
        epoch: int = -1,
    ) -> None:
        if batch.partition not in self.direct:
            super().produce(broker_id, batch, acks, on_answer, on_lost, producer_id=producer_id, epoch=epoch)
            return
        batch.tries += 1
        records = encode_batch(
            [(batch.time_ms, None, value, ()) for value in batch.values], producer_id=producer_id,
            producer_epoch=epoch, base_sequence=batch.sequence)
        self.ways[batch.partition].send(records, on_answer, on_lost)

    def acknowledge(self, batch: Batch, base_offset: int) -> None:
        self.failed.discard(batch.partition)
        super().acknowledge(batch, base_offset)

    def back_off(self, lane: Lane, error: ErrorCode) -> None:
        self.failed.add(lane.waiting[0].partition)  # that is the one, or one before it
        super().back_off(lane, error)

    def stop(self) -> None:
        super().stop()
        for way in self.ways.values():
            way.close()

    # -- where? ----------------------------------------------------------------------------------

    def _ask_way(self, partition: int) -> None:
        broker_id = self.leaders.get((self.topic, partition))
        broker = None if broker_id is None else self.simulation.machine.named(f"broker {broker_id}")
        self._asking.add(partition)
        if isinstance(broker, BrokerProcess) and broker.doors_open:
            broker.on_where(self.topic, partition, lambda *told: self.after(0.0, self._on_told, partition, *told))
        self.after(BACKOFF_S * (1 + self.random.random()), self._asking.discard, partition)

    def _on_told(self, partition: int, incarnation: int, leader_epoch: int) -> None:
        process = self.simulation.machine.processes.get(incarnation)
        way = self.ways.get(partition)
        if isinstance(process, PartitionProcess) and process.actor is not None and (way is None or not way.open):
            self.ways[partition] = Way(self, partition, process, leader_epoch)
            self.pump()
