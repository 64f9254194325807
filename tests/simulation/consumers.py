"""Consumers: each reads its partitions from the beginning, in order, and never sees the log go back.

Owns: `Consumer`, which polls for ever; `FullReader`, which reads one partition up to its end, once, for the history.
A consumer starts again under a new name where the broker resets it: retention went past it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.simulation.clients import BACKOFF_S, Client
from zafka.storage.batch import walk
from zafka.storage.errors import BadBatch
from zafka.storage.records import decode_batch
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from zafka.transport.kafka.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

LIST_VERSION = 7
EARLIEST, LATEST = -2, -1


@dataclass(slots=True)
class Place:
    """Where a reader is in one partition. resets: how often the broker told it to begin elsewhere."""

    position: int = -1
    high: int = 0
    low: int = 0
    resets: int = 0
    offline: bool = False
    records: list[tuple[int, bytes]] = field(default_factory=list)


class Reader(Client):
    """The loop of a consumer of one topic's partitions. may_shrink: retention takes records away."""

    version = 12

    def __init__(self, simulation: Simulation, name: str, topic: str, partitions: list[int]) -> None:
        super().__init__(simulation, name)
        self.topic = topic
        self.places = {index: Place() for index in partitions}
        self._busy: dict[int, None] = {}  # brokers with a request of ours

    def start(self) -> None:
        self.poll()

    def on_leaders(self) -> None:
        self.poll()

    def poll(self) -> None:
        """One request to each broker that leads something of ours and is not busy with one."""
        if self.stopped or self.done:
            return
        by_broker: dict[int, list[int]] = {}
        for partition in self.places:
            broker_id = self.leader_of(self.topic, partition)
            if broker_id is not None:
                by_broker.setdefault(broker_id, []).append(partition)
        for broker_id, partitions in by_broker.items():
            if broker_id in self._busy:
                continue
            self._busy[broker_id] = None
            unknown = [index for index in partitions if self.places[index].position < 0]
            known = [index for index in partitions if index not in unknown]
            # One that is offline must not keep us from the others.
            first = self.random.choice(unknown) if unknown else -1
            if unknown and not (known and self.places[first].offline and self.random.random() < 0.7):
                self.list_offsets(broker_id, first, EARLIEST, self._on_earliest)
            else:
                self._fetch(broker_id, known)

    def _again(self, broker_id: int, seconds: float = 0.0) -> None:
        self._busy.pop(broker_id, None)
        self.after(seconds, self.poll)

    def _lost(self, broker_id: int) -> None:
        self.leaders.clear()
        self._again(broker_id, BACKOFF_S)

    # -- offsets ---------------------------------------------------------------------------------

    def list_offsets(
        self, broker_id: int, partition: int, timestamp: int, on_offset: Callable[[int, int, int], None]
    ) -> None:
        request = ListOffsetsRequest(-1, 0, [ListOffsetsTopic(
            self.topic, [ListOffsetsPartition(partition, -1, timestamp)])])
        deleted = self.deleted_before(partition)

        def on_answer(answer: Any) -> None:
            told = answer.topics[0].partitions[0]
            if told.error_code:
                self._note_error(partition, told.error_code)
                self.leaders.clear()
                self._again(broker_id, BACKOFF_S)
            else:
                self.places[partition].offline = False
                if timestamp == EARLIEST and told.offset < deleted:
                    self.violate("log-start", f"{self.topic}-{partition} begins at {told.offset} after {deleted}")
                on_offset(broker_id, partition, told.offset)

        self.ask(broker_id, ApiKey.LIST_OFFSETS, LIST_VERSION, request, on_answer, lambda: self._lost(broker_id))

    def deleted_before(self, partition: int) -> int:
        """Nothing below this offset may be shown to who asks from now on."""
        return self.simulation.deleted_before.get((self.topic, partition), 0)

    def _on_earliest(self, broker_id: int, partition: int, offset: int) -> None:
        place = self.places[partition]
        if offset < place.low:
            self.violate("watermark", f"{self.topic}-{partition} begins at {offset}, after {place.low} was told")
        place.low = place.position = offset
        self._again(broker_id)

    # -- records ---------------------------------------------------------------------------------

    def _fetch(self, broker_id: int, partitions: list[int]) -> None:
        asked = {index: self.places[index].position for index in partitions}
        deleted = {index: self.deleted_before(index) for index in partitions}
        wanted = [
            FetchPartition(index, fetch_offset=position, partition_max_bytes=self.random.choice((300, 2000, 20000)))
            for index, position in asked.items()]
        request = FetchRequest(
            None, max_wait_ms=200 + self.random.randrange(300), min_bytes=1, max_bytes=50_000,
            topics=[FetchTopic(topic=self.topic, partitions=wanted)])

        def on_answer(answer: Any) -> None:
            failed = False
            for topic in answer.responses:
                for told in topic.partitions:
                    if not told.error_code and told.log_start_offset < deleted[told.partition_index]:
                        self.violate("log-start", f"{self.topic}-{told.partition_index} begins at "
                                     f"{told.log_start_offset} after {deleted[told.partition_index]}")
                    failed |= not self._take(told.partition_index, asked[told.partition_index], told)
            self._again(broker_id, BACKOFF_S if failed else 0.001)

        self.ask(broker_id, ApiKey.FETCH, self.version, request, on_answer, lambda: self._lost(broker_id))

    def _take(self, partition: int, position: int, told: Any) -> bool:
        """What one partition answered; False if it is better to wait a little."""
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
        expected = position
        try:
            for at, header in walk(told.records or b"", check_crc=True):
                for record in decode_batch(told.records[at:], header, from_offset=position):
                    if record.offset != expected:
                        self.violate("located", f"{self.topic}-{partition}: asked for {position}, then {record.offset} "
                                     f"came where {expected} should")
                    expected = record.offset + 1
                    if record.offset >= told.high_watermark:
                        self.violate("watermark", f"got {record.offset} above {told.high_watermark}")
                    self.on_record(partition, place, record.offset, record.value or b"")
                    place.position = record.offset + 1
        except BadBatch as bad:
            self.violate("corrupt", f"{self.topic}-{partition} from {position}: {bad}")
        return True

    def on_record(self, partition: int, place: Place, offset: int, value: bytes) -> None:
        self.engine.counts["records read"] += 1
        self.history.polled(f"{self.name}.{place.resets}", f"{self.topic}-{partition}", offset, value)

    def _check_watermarks(self, partition: int, place: Place, told: Any) -> None:
        low, high, stable = told.log_start_offset, told.high_watermark, told.last_stable_offset
        if low < place.low or high < place.high or not low <= high or stable > high:
            self.violate("watermark", f"{self.topic}-{partition}: start {low}, high {high}, stable {stable} "
                         f"after {place.low}, {place.high}")
        place.low, place.high = low, high

    def _reset(self, partition: int, place: Place) -> None:
        if not self.simulation.may_shrink(self.topic):
            self.violate("watermark", f"{self.topic}-{partition}: offset {place.position} is out of range")
        self.engine.counts["readers that retention passed"] += 1
        place.position = -1
        place.resets += 1

    def _note_error(self, partition: int, error: int) -> None:
        code = ErrorCode(error)
        self.places[partition].offline = code is ErrorCode.KAFKA_STORAGE_ERROR
        if not code.is_retriable:
            self.violate("refused", f"{code.name} for {self.topic}-{partition}")


class Consumer(Reader):
    """Polls for as long as it is let. caught_up: it has all that the history says was acknowledged, by offsets."""

    def __init__(self, simulation: Simulation, name: str, topic: str, partitions: list[int]) -> None:
        super().__init__(simulation, name, topic, partitions)
        self.finishing = False

    def finish(self) -> None:
        self.finishing = True
        self._check_done()

    def _check_done(self) -> None:
        """Once nothing is produced any more: at the high watermark everywhere."""
        if self.finishing and self.simulation.producers_done():
            self.done = all(place.position >= place.high > -1 or place.offline for place in self.places.values())
        if self.finishing and not self.done:
            self.after(0.2, self._check_done)


class Sampler(Reader):
    """Reads from any offset that is there, now here, now there, and by time: what indexes are for."""

    def poll(self) -> None:
        if self.stopped or self.done:
            return
        for place in self.places.values():
            if place.position >= 0 and place.high > place.low:
                place.position = self.random.randrange(place.low, place.high)
                place.resets += 1  # a seek: the history takes it for another reader
        super().poll()

    def finish(self) -> None:
        self.done = True

    def _again(self, broker_id: int, seconds: float = 0.0) -> None:
        super()._again(broker_id, seconds + 0.1 * self.random.random())


class FullReader(Reader):
    """Reads one partition from its start to its end, as it is when it begins."""

    def __init__(self, simulation: Simulation, name: str, topic: str, partition: int) -> None:
        super().__init__(simulation, name, topic, [partition])
        self.partition = partition
        self.place = self.places[partition]
        self.low = self.end = -1

    def _on_earliest(self, broker_id: int, partition: int, offset: int) -> None:
        super()._on_earliest(broker_id, partition, offset)
        self.low = offset
        self.place.records.clear()
        self.end = -1

    def poll(self) -> None:
        if self.place.offline and self.simulation.is_faulted(self.topic, self.partition):
            self.done = True
        elif self.place.position >= 0 and self.end < 0 and not self._busy:
            broker_id = self.leader_of(self.topic, self.partition)
            if broker_id is not None:
                self._busy[broker_id] = None
                self.list_offsets(broker_id, self.partition, LATEST, self._on_latest)
        elif self.place.position >= 0 and self.place.position >= self.end >= 0:
            self.done = True
        else:
            super().poll()

    def _on_latest(self, broker_id: int, partition: int, offset: int) -> None:
        self.end = offset
        self._again(broker_id)

    def on_record(self, partition: int, place: Place, offset: int, value: bytes) -> None:
        place.records.append((offset, value))

    def report(self) -> None:
        """To the history. Nothing if the partition is offline."""
        if not self.place.offline:
            self.history.full_read(f"{self.topic}-{self.partition}", self.place.records, low=self.low)
