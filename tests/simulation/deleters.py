"""A client that deletes records of a topic from its start, and never sees them again.

Owns: `Deleter`. What was answered holds for everybody who asks later, whatever dies or loses its power afterwards:
`Simulation.deleted_before` is where each partition begins at least, and every reader looks whether that is so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.simulation.clients import BACKOFF_S
from tests.simulation.consumers import EARLIEST, LATEST, Reader
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
)

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

TIMEOUT_MS = 2000
VERSION = 1


class Deleter(Reader):
    """Looks where partition 0 begins and ends, deletes up to somewhere in between, and waits a while."""

    def __init__(self, simulation: Simulation, name: str, topic: str, pause_s: float) -> None:
        super().__init__(simulation, name, topic, [0])
        self.pause_s = pause_s
        self._first = 0

    def finish(self) -> None:
        self.done = True

    def poll(self) -> None:
        if self.stopped or self.done or self._busy:
            return
        broker_id = self.leader_of(self.topic, 0)
        if broker_id is not None:
            self._busy[broker_id] = None
            self.list_offsets(broker_id, 0, EARLIEST, self._on_first)

    def _on_first(self, broker_id: int, partition: int, offset: int) -> None:
        self._first = offset
        self.list_offsets(broker_id, 0, LATEST, self._on_end)

    def _on_end(self, broker_id: int, partition: int, end: int) -> None:
        wanted = self.random.randint(min(self._first, end), end)
        topics = [DeleteRecordsTopic(self.topic, [DeleteRecordsPartition(0, wanted)])]

        def on_answer(answer: Any) -> None:
            told = answer.topics[0].partitions[0]
            if told.error_code:
                self._note_error(0, told.error_code)
                self._lost(broker_id)
                return
            if told.low_watermark < wanted:
                self.violate("log-start", f"{self.topic}-0 begins at {told.low_watermark}, {wanted} was asked for")
            self.engine.counts["deletions"] += 1
            self.simulation.deleted_before[self.topic, 0] = max(told.low_watermark, self.deleted_before(0))
            self._again(broker_id, self.pause_s * self.random.random())

        self.ask(broker_id, ApiKey.DELETE_RECORDS, VERSION, DeleteRecordsRequest(topics, TIMEOUT_MS), on_answer,
                 lambda: self._lost(broker_id))

    def _note_error(self, partition: int, error: int) -> None:
        super()._note_error(partition, error)
        self.engine.counts[f"deletions refused: {ErrorCode(error).name}"] += 1

    def _lost(self, broker_id: int) -> None:
        self.leaders.clear()
        self._again(broker_id, BACKOFF_S * (1 + self.random.random()))
