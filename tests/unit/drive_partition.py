"""A partition actor with the mail that its broker and its supervisor send, on a real disk."""

from __future__ import annotations

from pathlib import Path

from tests.unit.disks import FullableDisk
from tests.unit.drive import Drive, bodies, exit_of, only
from zafka.actors.actor import Effect, Exit, Mail, Now, Peer
from zafka.actors.messages import (
    ActorUp,
    BecomeLeader,
    EpochEnd,
    FindEpochEnd,
    ListOffset,
    Locate,
    Located,
    OffsetListed,
    Produce,
    ProduceAnswer,
    Produced,
    ProduceItem,
    Shutdown,
)
from zafka.actors.partition import PartitionActor, build
from zafka.actors.start import PartitionStart
from zafka.storage.disk import PosixDisk
from zafka.storage.records import encode_batch

BROKER = Peer("broker 1", 3)
SUPERVISOR = Peer("supervisor", 1)
TOPIC_ID = bytes(range(16))
NOW_MS = 1_700_000_000_000


class Partition(Drive):
    """A partition actor with its broker."""

    def __init__(self, directory: Path, config: dict[str, str], *, disk: PosixDisk | None = None) -> None:
        self.directory = directory / "orders-0"
        self.config = config
        self.disk = disk or FullableDisk()
        start = PartitionStart(1, "orders", 0, TOPIC_ID, str(self.directory), config)
        super().__init__(build(start, self.disk, Now(100.0, NOW_MS), lambda: None), wall_ms=NOW_MS)
        self.next_id = 0

    @property
    def partition(self) -> PartitionActor:
        assert isinstance(self.actor, PartitionActor)
        return self.actor

    def lead(self, epoch: int = 0) -> list[Effect]:
        """Take the actor to where it serves."""
        self.start()
        self.link(BROKER)
        return self.send(BROKER, BecomeLeader(epoch, self.config))

    def link(self, broker: Peer) -> list[Effect]:
        return self.send(SUPERVISOR, ActorUp(broker.name, broker.incarnation, "ipc://somewhere"))

    def mail(self, *batches: bytes, acks: int = -1, sender: Peer = BROKER) -> Mail:
        """Produce with request ids that count on."""
        first, self.next_id = self.next_id, self.next_id + len(batches)
        items = [ProduceItem(first + i, acks, len(data)) for i, data in enumerate(batches)]
        return Mail(sender, Produce(items), memoryview(b"".join(batches)))

    def produce(self, *batches: bytes, acks: int = -1) -> list[Effect]:
        return self.turn(self.mail(*batches, acks=acks))

    def locate(self, offset: int, *, epoch: int = -1, max_bytes: int = 1 << 20, last_fetched_epoch: int = -1) -> Located:
        return only(self.send(BROKER, Locate(9, offset, max_bytes, epoch, 0, last_fetched_epoch)), Located)

    def epoch_end(self, leader_epoch: int, *, current: int = -1) -> EpochEnd:
        return only(self.send(BROKER, FindEpochEnd(9, leader_epoch, current)), EpochEnd)

    def list_offset(self, timestamp_ms: int, *, epoch: int = -1, isolation: int = 0) -> OffsetListed:
        return only(self.send(BROKER, ListOffset(9, timestamp_ms, epoch, isolation)), OffsetListed)

    def stop(self) -> None:
        assert exit_of(self.send(SUPERVISOR, Shutdown())) == Exit(0, "shutdown")


def batch(
    *values: bytes, producer_id: int = -1, epoch: int = -1, sequence: int = -1, timestamp: int = NOW_MS
) -> bytes:
    return encode_batch(
        [(timestamp, None, value, ()) for value in values or (b"v",)],
        producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence)


def numbered(sequence: int, count: int = 1, *, epoch: int = 0, producer_id: int = 7) -> bytes:
    """A batch of an idempotent producer."""
    return batch(*[b"v"] * count, producer_id=producer_id, epoch=epoch, sequence=sequence)


def answers(effects: list[Effect]) -> list[ProduceAnswer]:
    return [answer for produced in bodies(effects, Produced) for answer in produced.answers]


def offsets(effects: list[Effect]) -> list[int]:
    """Base offsets of what was acknowledged; no error among them."""
    assert not [answer for answer in answers(effects) if answer.error]
    return [answer.base_offset for answer in answers(effects)]


def errors(effects: list[Effect]) -> list[int]:
    return [answer.error for answer in answers(effects)]
