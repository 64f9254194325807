"""Clients of a compacted topic: one writes few keys again and again, others read it from its start and look at the last values.

Owns: `KeyWriter`, an idempotent producer; `KeyReader`, which reads the partition from its start to its end, over and over.
What they wrote and saw is judged by `tests/key_ledger.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.key_ledger import Ledger, Value, Write
from tests.simulation.consumers import FullReader, Place
from tests.simulation.producers import PRODUCE_VERSION, Batch, IdempotentProducer
from tests.simulation.scenario import COMPACTED_TOPIC as TOPIC
from zafka.storage.batch import walk
from zafka.storage.errors import BadBatch
from zafka.storage.records import decode_batch, encode_batch
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

KEYS = 5


class KeyWriter(IdempotentProducer):
    """Its batches are of a few keys, a third of them tombstones."""

    def __init__(self, simulation: Simulation, name: str, ledger: Ledger, *, batches: int, pause_s: float) -> None:
        super().__init__(simulation, name, TOPIC, 1, batches=batches, pause_s=pause_s)
        self.ledger = ledger
        self._of_batch: dict[int, list[Write]] = {}  # by the number of its first record

    def _make(self) -> None:
        if not self.batches_left:
            return
        self.batches_left -= 1
        lane = self.lanes[0]
        writes = []
        for number in range(lane.number, lane.number + self.random.choice((1, 1, 2, 4))):
            value = None if self.random.random() < 0.3 else b"%s %d " % (self.name.encode(), number) * self.random.randint(1, 9)
            writes.append(self.ledger.begin(b"key-%d" % self.random.randrange(KEYS), value, self.engine.now_s))
        self._of_batch[lane.number] = writes
        now_s = self.engine.now_s
        lane.waiting.append(Batch(0, lane.number, [b""] * len(writes), self.engine.wall_ms(now_s), now_s))
        lane.number += len(writes)
        self.after(self.pause_s * 2 * self.random.random(), self._make)
        self.pump()

    def produce(
        self, broker_id: int, batch: Batch, acks: int, on_answer: Any, on_lost: Any, *, producer_id: int = -1, epoch: int = -1
    ) -> None:
        batch.tries += 1
        records = encode_batch(
            [(batch.time_ms, write.key, write.value, ()) for write in self._of_batch[batch.first]], producer_id=producer_id,
            producer_epoch=epoch, base_sequence=batch.sequence)
        data = [TopicProduceData(name=TOPIC, partition_data=[PartitionProduceData(0, memoryview(records))])]
        self.ask(broker_id, ApiKey.PRODUCE, PRODUCE_VERSION, ProduceRequest(None, acks, int(750 * self.request_s), data),
                 on_answer, on_lost)

    def acknowledge(self, batch: Batch, base_offset: int) -> None:
        self.engine.counts["acknowledged batches of keys"] += 1
        for index, write in enumerate(self._of_batch[batch.first]):
            write.offset = base_offset + index


class KeyReader(FullReader):
    """once: reads it one time only, after everything else."""

    def __init__(self, simulation: Simulation, name: str, ledger: Ledger, *, once: bool = False) -> None:
        super().__init__(simulation, name, TOPIC, 0)
        self.ledger = ledger
        self.once = once
        self._floor = ledger.last_acknowledged()
        self._last: dict[bytes, tuple[int, Value]] = {}

    def finish(self) -> None:
        self.done = True

    def poll(self) -> None:
        was_done = self.done
        super().poll()
        if not self.done or was_done or self.stopped:
            return
        self.report()
        if not self.once:
            self.done = False
            self.place.position = self.end = -1
            self.after(0.2 * self.random.random(), self.poll)

    def _on_earliest(self, broker_id: int, partition: int, offset: int) -> None:
        self._floor, self._last = self.ledger.last_acknowledged(), {}
        super()._on_earliest(broker_id, partition, offset)

    def _take(self, partition: int, position: int, told: Any) -> bool:
        place = self.places[partition]
        if told.error_code == ErrorCode.OFFSET_OUT_OF_RANGE:
            self._reset(partition, place)
            return False
        if told.error_code:
            self._note_error(partition, told.error_code)
            self.leaders.clear()
            return False
        place.offline = False
        self._check_watermarks(partition, place, told)
        try:
            for at, header in walk(told.records or b"", check_crc=True):
                for record in decode_batch(told.records[at:], header, from_offset=position):
                    assert record.key is not None
                    for complaint in self.ledger.complaints_of(record.key, record.offset, record.value):
                        self.violate("compaction", complaint)
                    self._last[record.key] = record.offset, record.value
                place.position = max(place.position, header.next_offset)
        except BadBatch as bad:
            self.violate("corrupt", f"{TOPIC}-{partition} from {position}: {bad}")
        return True

    def _reset(self, partition: int, place: Place) -> None:
        """It deletes as well, and was faster: from the start again."""
        super()._reset(partition, place)
        self.end = -1

    def report(self) -> None:
        if self.place.offline:
            return
        self.engine.counts["readings of a compacted log"] += 1
        for complaint in self.ledger.complaints(
            self._floor, self._last, self.engine.now_s, low=self.place.low, end=self.place.position
        ):
            self.violate("compaction", complaint)

