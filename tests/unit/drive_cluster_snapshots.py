"""A coordinator that writes snapshots all the time, on a disk that forgets and rots; and what it should know.

`World` does random things to it, and is told when it dies; every start must know what all events before it led to, and so
must every broker that begins to read, whether the log still has the first of them or not.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.unit.drive import Drive, exit_of
from tests.unit.log_tools import perform
from tests.unit.memory_disk import MemoryDisk
from zafka.actors import messages
from zafka.actors.actor import Effect, Now, Peer, Send
from zafka.actors.cluster_log import replay
from zafka.actors.cluster_snapshot import sections_of, state_from
from zafka.actors.cluster_state import ClusterState, events_in
from zafka.actors.coordinator import SNAPSHOT_RECORDS_KEY, CoordinatorActor, build
from zafka.actors.start import CoordinatorStart
from zafka.storage.snapshot import find_replacing

DATA = Path("/data")
DIRECTORY = DATA / "coordinator" / "__cluster-0"
SUPERVISOR, BROKER, NEWCOMER = Peer("supervisor", 1), Peer("broker 1", 1), Peer("broker 2", 1)


def new_coordinator(disk: MemoryDisk, now: Now, **sizes: int) -> CoordinatorActor:
    """sizes: `snapshot_records` and the like, of the internal configuration."""
    defaults = {f"internal.{name.replace('_', '.')}": str(value) for name, value in sizes.items() if name != "snapshot_records"}
    if "snapshot_records" in sizes:
        defaults[SNAPSHOT_RECORDS_KEY] = str(sizes["snapshot_records"])
    start = CoordinatorStart(
        data_dir=str(DATA), cluster="demo", brokers=[(1, "")], defaults=defaults, topics=[], cluster_id="")
    actor = build(start, disk, now, lambda: None)
    assert isinstance(actor, CoordinatorActor), exit_of(actor.on_start(now))
    return actor


class World:
    """known: what all committed events up to `offset` lead to, as a broker has read them that never restarts."""

    def __init__(self, seed: int, **sizes: int) -> None:
        self.random = Random(seed)
        self.disk = MemoryDisk(seed)
        self.disk.make_directory(DATA)
        self.sizes = sizes
        self.known = ClusterState()
        self.offset = 0
        self.incarnation = 0
        self.compared = 0  # starts, with what all events before led to
        self.from_snapshot = 0  # starts
        self.told_snapshot = 0  # brokers that were given one
        self.fallbacks = 0  # starts from the older of two
        self.rotten: set[str] = set()

    @property
    def actor(self) -> CoordinatorActor:
        assert isinstance(self.drive.actor, CoordinatorActor)
        return self.drive.actor

    def start(self) -> None:
        names = find_replacing(self.disk, DIRECTORY) if self.disk.exists(DIRECTORY) else []
        actor = new_coordinator(self.disk, Now(100.0, 1_700_000_000_000), **self.sizes)
        snapshots = actor.cluster_log.snapshots
        self.from_snapshot += snapshots.offset > 0
        self.fallbacks += bool(names) and names[0] in self.rotten and snapshots.offset > 0
        if self.offset >= actor.replica.log.start_offset:
            expected = state_from(section for section, _ in sections_of(self.known))
            replay(expected, actor.replica, lambda: None, from_offset=self.offset)
            assert vars(actor.state) == vars(expected), f"{actor!r} with {snapshots!r}"
            self.compared += 1
        self.drive = Drive(actor, auto_flush=False)
        self.take(self.drive.start())
        self.send(messages.RegisterBroker(1, self.incarnation, "", []), messages.ReadCluster(self.offset))

    def die(self) -> None:
        self.disk.calls_left = None
        if self.random.random() < 0.6:
            self.disk.power_cut()
        else:
            self.disk.crash()
        names = find_replacing(self.disk, DIRECTORY) if self.disk.exists(DIRECTORY) else []
        self.rotten &= set(names)
        if len(names) > 1 and not self.rotten and self.random.random() < 0.4:
            self.rotten.add(names[0])
            data = self.disk.read(DIRECTORY / names[0])
            self.disk.flip_bit(DIRECTORY / names[0], self.random.randrange(len(data)))

    # -- mail ----------------------------------------------------------------------------------

    def send(self, *bodies: messages.AnyMessage) -> None:
        self.take(self.drive.send(BROKER, *bodies))
        self.settle()

    def settle(self) -> None:
        while self.drive.flushes:
            perform(self.disk, self.drive.flushes[0])
            self.take(self.drive.flush())

    def take(self, effects: list[Effect]) -> None:
        """What the broker reads."""
        for effect in effects:
            if not isinstance(effect, Send) or effect.to != BROKER:
                continue
            match effect.body:
                case messages.ClusterRecords():
                    for at, event in events_in(memoryview(b"".join(effect.records))):
                        assert at <= self.offset, "a gap"
                        if at == self.offset:
                            self.known.apply(event)
                            self.offset += 1
                case messages.ClusterSnapshot(next_offset=next_offset):
                    assert next_offset > self.offset
                    self.known, self.offset = state_from(map(bytes, effect.records)), next_offset
                    self.told_snapshot += 1
                case _:
                    continue
            self.take(self.drive.send(BROKER, messages.ReadCluster(self.offset)))

    def read_from_the_start(self) -> None:
        """As a broker does that has just started."""
        state, offset, high_watermark = ClusterState(), 0, self.actor.replica.high_watermark
        while offset < high_watermark:
            effects = self.drive.send(NEWCOMER, messages.ReadCluster(offset))
            (answer,) = (effect for effect in effects if isinstance(effect, Send) and effect.to == NEWCOMER)
            self.take(effects)
            if isinstance(answer.body, messages.ClusterSnapshot):
                assert answer.body.sizes == [len(data) for data in answer.records]
                state = state_from(map(bytes, answer.records))
                self.told_snapshot += 1
            else:
                assert isinstance(answer.body, messages.ClusterRecords)
                for at, event in events_in(memoryview(b"".join(answer.records))):
                    if at >= offset:
                        state.apply(event)
            offset = answer.body.next_offset
        if offset == self.offset:
            assert vars(state) == vars(self.known)

    # -- what happens --------------------------------------------------------------------------

    def step(self) -> None:
        self.random.choices(
            (self.create, self.delete, self.claim, self.fault, self.allocate, self.alter, self.wait, self.read_from_the_start),
            weights=(10, 6, 25, 3, 5, 8, 15, 3))[0]()

    def create(self) -> None:
        self.send(messages.CreateTopics(1, [messages.NewTopic(f"t{self.random.randrange(5)}", 2, 1, {})]))

    def delete(self) -> None:
        self.send(messages.DeleteTopics(1, [(f"t{self.random.randrange(5)}", b"")]))

    def claim(self) -> None:
        self.incarnation += 1
        self.send(messages.ClaimLeadership([(id, 0, self.incarnation) for id in self.known.topics_by_id]))

    def fault(self) -> None:
        """And its end: neither may be applied twice."""
        for topic_id in list(self.known.topics_by_id)[:1]:
            self.send(messages.ReportFault(topic_id, 0, 1, 0, "EIO"))
            self.send(messages.ReportRecovered(topic_id, 0, 1, str(self.incarnation)))

    def allocate(self) -> None:
        self.send(messages.AllocateProducerIds(1, 1))

    def alter(self) -> None:
        entity = (("user", self.random.choice(("ann", None))),)
        change = messages.QuotaChange(entity, [("consumer_byte_rate", self.random.choice((None, 10.0, 20.0)))])
        self.send(messages.AlterClients(1, [change]))

    def wait(self) -> None:
        self.take(self.drive.pass_time(self.random.choice((0.02, 0.05, 1.0))))
        self.settle()

    def stop(self) -> None:
        self.take(self.drive.send(SUPERVISOR, messages.Shutdown()))
        self.settle()

