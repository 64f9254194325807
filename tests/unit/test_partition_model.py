"""A partition leader under crashes, power cuts and a full disk, as idempotent producers and a reader see it.

RELIABILITY, invariants 1 (nothing acknowledged is lost), 2 (one offset holds one value, for ever), 3 (one value at
one offset), 6 (a producer's sends keep their order), 9 (the high watermark never goes back), 10 (epochs increase),
17 (once the faults are over, everything is acknowledged). The faults lie between any two steps.
"""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.drive import Drive, bodies
from tests.unit.drive_partition import visible
from tests.unit.log_tools import perform, read_batches
from tests.unit.memory_disk import MemoryDisk
from zafka.actors.actor import Effect, Mail, Now, Peer
from zafka.actors.messages import ActorUp, BecomeLeader, Produce, ProduceAnswer, Produced, ProduceItem
from zafka.actors.partition import PartitionActor
from zafka.actors.replica import Replica
from zafka.actors.start import PartitionStart
from zafka.storage.batch import read_header
from zafka.storage.config import parse_config
from zafka.storage.directory import LOCK_NAME, PartitionDirectory
from zafka.storage.records import decode_batch, encode_batch
from zafka.storage.recovery import recover
from zafka.transport.kafka.errors import ErrorCode

DIRECTORY = Path("/data/orders-0")
TOPIC_ID = bytes(16)
CONFIG = {"fsync": "always", "segment.ms": "7"}
PRODUCERS = (7, 8)
IN_FLIGHT_MAX = 5
RETRIED = {ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode.NOT_LEADER_OR_FOLLOWER}


class PartitionUnderFaults(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.disk = MemoryDisk(seed)
        self.disk.make_directory(DIRECTORY.parent)
        self.disk.make_directory(DIRECTORY)
        self.now = Now(0.0, 1_700_000_000_000)
        self.epoch = -1
        self.request_id = 0
        self.sequences = dict.fromkeys(PRODUCERS, 0)
        self.unacknowledged: dict[int, dict[int, bytes]] = {producer: {} for producer in PRODUCERS}
        self.asked: dict[int, tuple[int, int]] = {}  # request id -> producer, sequence
        self.acknowledged: dict[bytes, int] = {}  # value -> offset
        self.high_watermark = 0  # the furthest that was told
        self.seen: list[bytes] = []  # what a reader has got
        self.restart()

    # -- the process and the machine -----------------------------------------------------------

    def restart(self) -> None:
        """A new incarnation recovers and is made leader in the next epoch."""
        self.epoch += 1
        self.broker = Peer("broker 1", self.epoch)
        log, _ = recover(self.disk, DIRECTORY, parse_config(CONFIG), self.now.wall_ms)
        assert log.leader_epochs.latest < self.epoch
        directory = PartitionDirectory(DIRECTORY, TOPIC_ID, self.disk, self.disk.lock(DIRECTORY / LOCK_NAME))
        replica: Replica[list[ProduceAnswer]] = Replica(log, directory, self.disk)
        start = PartitionStart(1, "orders", 0, TOPIC_ID, str(DIRECTORY), CONFIG)
        self.replica = replica
        self.drive = Drive(PartitionActor(start, replica), auto_flush=False, wall_ms=self.now.wall_ms)
        self.cut_off = {producer for producer in PRODUCERS if self.unacknowledged[producer]}
        self.asked.clear()
        self.drive.start()
        self.drive.send(self.broker, ActorUp(*self.broker, "ipc://x"))
        self.note(self.drive.send(self.broker, BecomeLeader(self.epoch, CONFIG)))

    @rule()
    def kill(self) -> None:
        self.disk.crash()
        self.restart()

    @rule()
    def cut_power(self) -> None:
        self.disk.power_cut()
        self.restart()

    @rule(room=st.integers(0, 400))
    def fill_disk(self, room: int) -> None:
        self.disk.room_bytes = room

    @rule()
    def make_room(self) -> None:
        self.disk.room_bytes = None

    @precondition(lambda self: self.drive.flushes)
    @rule()
    def flush(self) -> None:
        perform(self.disk, self.drive.flushes[0])
        self.note(self.drive.flush())

    @precondition(lambda self: self.drive.flushes)
    @rule()
    def flush_without_a_word(self) -> None:
        """The disk has it and nobody was told yet."""
        perform(self.disk, self.drive.flushes[0])

    # -- clients -------------------------------------------------------------------------------

    @rule(producer=st.sampled_from(PRODUCERS), count=st.integers(1, 3), size=st.integers(0, 300))
    def send(self, producer: int, count: int, size: int) -> None:
        """Batches behind those in flight. A client that was cut off sends what it has no answer for before them."""
        waiting = self.unacknowledged[producer]
        fresh = dict(waiting) if producer in self.cut_off else {}
        self.cut_off.discard(producer)
        for _ in range(min(count, IN_FLIGHT_MAX - len(waiting))):
            sequence = self.sequences[producer]
            self.sequences[producer] += 1
            fresh[sequence] = waiting[sequence] = b"%d:%d:" % (producer, sequence) + bytes(size)
        self.produce(producer, fresh)

    @rule(producer=st.sampled_from(PRODUCERS))
    def retry(self, producer: int) -> None:
        """Send all again that has no answer, in order, whether it was written or not."""
        self.cut_off.discard(producer)
        self.produce(producer, self.unacknowledged[producer])

    def produce(self, producer: int, batches: dict[int, bytes]) -> None:
        self.now = Now(self.now.monotonic_s + 0.001, self.now.wall_ms + 1)
        self.drive.now = self.now
        items, records = [], []
        for sequence, value in batches.items():
            data = encode_batch(
                [(self.now.wall_ms, None, value, ())], producer_id=producer, producer_epoch=0, base_sequence=sequence)
            self.request_id += 1
            self.asked[self.request_id] = producer, sequence
            items.append(ProduceItem(self.request_id, -1, len(data)))
            records.append(data)
        if items:
            self.note(self.drive.turn(Mail(self.broker, Produce(items), memoryview(b"".join(records)))))

    def note(self, effects: list[Effect]) -> None:
        """What leaves the actor: visible offsets, and answers to each request at most once."""
        for advanced in visible(effects):
            assert advanced.leader_epoch == self.epoch
            assert advanced.high_watermark >= self.high_watermark
            self.high_watermark = advanced.high_watermark
        for produced in bodies(effects, Produced):
            for answer in produced.answers:
                producer, sequence = self.asked.pop(answer.request_id)
                if answer.error:
                    assert answer.error in RETRIED
                    continue
                value = self.unacknowledged[producer].pop(sequence, None)
                if value is not None:
                    self.acknowledged[value] = answer.base_offset
                    assert answer.base_offset < self.high_watermark

    # -- what must hold ------------------------------------------------------------------------

    @invariant()
    def a_reader_sees_each_value_once_where_it_was_acknowledged(self) -> None:
        values = []
        for header, data in read_batches(self.disk, self.replica.log):
            if header.next_offset <= self.high_watermark:
                values += [record.value or b"" for record in decode_batch(data, read_header(data))]
        assert len(values) == self.high_watermark
        assert values[: len(self.seen)] == self.seen
        self.seen = values
        assert len(set(values)) == len(values)
        assert all(values[offset] == value for value, offset in self.acknowledged.items())
        for producer in PRODUCERS:
            sequences = [int(value.split(b":")[1]) for value in values if value.startswith(b"%d:" % producer)]
            assert sequences == list(range(len(sequences)))

    def teardown(self) -> None:
        """The faults are over: a few rounds of retries, and everything is acknowledged."""
        if not hasattr(self, "drive"):
            return
        self.disk.room_bytes = None
        for producer in PRODUCERS:
            self.retry(producer)
        while self.drive.flushes:
            self.flush()
        assert not any(self.unacknowledged.values())
        self.a_reader_sees_each_value_once_where_it_was_acknowledged()


TestPartitionUnderFaults = PartitionUnderFaults.TestCase
TestPartitionUnderFaults.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
