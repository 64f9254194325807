"""The coordinator under crashes, power cuts and a full disk: what was answered stays true.

RELIABILITY, invariants 10 (leader epochs increase, one leader per epoch) and 16 (the state after a restart is the
state before it, for everything that was acknowledged). Producer ids are never given twice. Snapshots are written all the
time and replace the beginning of the log; the newest one may rot; whoever reads from the start is told the same.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.drive import Drive, bodies
from tests.unit.log_tools import perform
from tests.unit.memory_disk import MemoryDisk
from zafka.actors import messages
from zafka.actors.actor import Effect, Peer, Send
from zafka.actors.cluster_snapshot import state_from
from zafka.actors.cluster_state import AnyEvent, ClusterState, LeaderChanged, events_in
from zafka.actors.coordinator import CONFIG, CoordinatorActor
from zafka.actors.replica import Replica
from zafka.actors.start import CoordinatorStart
from zafka.storage.config import parse_config
from zafka.storage.directory import LOCK_NAME, PartitionDirectory
from zafka.storage.recovery import recover
from zafka.storage.snapshot import find_replacing
from zafka.transport.kafka.errors import ErrorCode

DIRECTORY = Path("/data/__cluster-0")
BROKER, NEWCOMER = Peer("broker 1", 1), Peer("broker 2", 1)
SUPERVISOR = Peer("supervisor", 1)
NAMES = st.sampled_from(("a", "b", "c"))


class CoordinatorUnderFaults(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**32), snapshot_records=st.sampled_from((1, 4, 9, 1000)))
    def begin(self, seed: int, snapshot_records: int) -> None:
        self.disk = MemoryDisk(seed)
        self.config = parse_config(CONFIG | {
            "internal.snapshot.records": str(snapshot_records), "internal.segment.bytes": "900"})
        self.rotten = ""
        self.disk.make_directory(DIRECTORY.parent)
        self.disk.make_directory(DIRECTORY)
        self.counter = itertools.count(1)
        self.incarnation = 0
        self.copy = ClusterState()  # a broker's, that never restarts
        self.read: list[AnyEvent] = []  # what it was made from
        self.epochs: dict[tuple[bytes, int], int] = {}
        self.given: set[int] = set()  # first producer id of each block
        self.exists: dict[str, bool | None] = {}  # as answered; None: asked and not answered
        self.asked: dict[int, str] = {}
        self.snapshots_read = 0
        self.restart()

    def restart(self) -> None:
        log, _ = recover(self.disk, DIRECTORY, self.config, 0)
        directory = PartitionDirectory(DIRECTORY, bytes(16), self.disk, self.disk.lock(DIRECTORY / LOCK_NAME))
        replica: Replica[list[Effect]] = Replica(log, directory, self.disk)
        start = CoordinatorStart(
            data_dir="/data", cluster="demo", brokers=[(1, "")], defaults={}, topics=[], cluster_id="")
        actor = CoordinatorActor(start, replica, self.disk, lambda: next(self.counter).to_bytes(16, "big"))
        self.drive = Drive(actor, auto_flush=False)
        self.asked.clear()
        self.note(self.drive.start())
        self.note(self.drive.send(
            BROKER, messages.RegisterBroker(1, 1, "", []), messages.ReadCluster(len(self.read))))

    # -- faults --------------------------------------------------------------------------------

    @rule(power=st.booleans(), rot=st.booleans(), at=st.integers(0, 60))
    def kill(self, power: bool, rot: bool, at: int) -> None:
        if power:
            self.disk.power_cut()
        else:
            self.disk.crash()
        names = find_replacing(self.disk, DIRECTORY)
        if rot and len(names) > 1 and self.rotten not in names:  # one of two may rot
            self.rotten = names[0]
            self.disk.flip_bit(DIRECTORY / self.rotten, at)
        self.restart()

    @rule()
    def stop(self) -> None:
        """Cleanly, if the disk lets it."""
        self.note(self.drive.send(SUPERVISOR, messages.Shutdown()))
        while self.drive.flushes:
            self.flush()
        self.disk.crash()
        self.restart()

    @rule(room=st.one_of(st.none(), st.integers(0, 300)))
    def change_room(self, room: int | None) -> None:
        self.disk.room_bytes = room

    @rule()
    def wait(self) -> None:
        self.note(self.drive.pass_time(1.5))

    @precondition(lambda self: self.drive.flushes)
    @rule()
    def flush(self) -> None:
        perform(self.disk, self.drive.flushes[0])
        self.note(self.drive.flush())

    # -- requests ------------------------------------------------------------------------------

    @rule(name=NAMES)
    def create(self, name: str) -> None:
        self.ask(name, lambda i: messages.CreateTopics(i, [messages.NewTopic(name, 2, 1, {})]))

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        self.ask(name, lambda i: messages.DeleteTopics(i, [(name, b"")]))

    def ask(self, name: str, request: object) -> None:
        request_id = next(self.counter)
        self.asked[request_id] = name
        self.exists[name] = None
        assert callable(request)
        self.note(self.drive.send(BROKER, request(request_id)))

    @rule()
    def allocate(self) -> None:
        self.note(self.drive.send(BROKER, messages.AllocateProducerIds(next(self.counter), 1)))

    @rule(partition=st.integers(0, 2))
    def claim(self, partition: int) -> None:
        self.incarnation += 1
        claims = [(topic_id, partition, self.incarnation) for topic_id in self.copy.topics_by_id]
        self.note(self.drive.send(BROKER, messages.ClaimLeadership(claims)))

    @rule()
    def read_from_the_start(self) -> None:
        """As a broker does that has just started."""
        state, offset, behind = ClusterState(), 0, True
        while behind:
            effects = self.drive.send(NEWCOMER, messages.ReadCluster(offset))
            behind = False
            for effect in effects:
                if isinstance(effect, Send) and effect.to == NEWCOMER:
                    data, body = memoryview(b"".join(effect.records)), effect.body
                    if isinstance(body, messages.ClusterSnapshot):
                        self.snapshots_read += 1
                        state = state_from(bytes(record) for record in effect.records)
                    else:
                        for at, event in events_in(data):
                            if at >= offset:
                                state.apply(event)
                    offset, behind = body.next_offset, body.next_offset < body.high_watermark
            self.note(effects)
        if offset == len(self.read):
            assert vars(state) == vars(self.copy)

    # -- what must hold ------------------------------------------------------------------------

    def note(self, effects: list[Effect]) -> None:
        for effect in effects:
            if not isinstance(effect, Send) or effect.to == NEWCOMER:
                continue
            body = effect.body
            if isinstance(body, messages.ClusterRecords):
                self.apply(memoryview(b"".join(effect.records)))
                assert len(self.read) == body.next_offset <= body.high_watermark
                self.note(self.drive.send(BROKER, messages.ReadCluster(body.next_offset)))
        for allocated in bodies(effects, messages.ProducerIdsAllocated):
            assert allocated.first not in self.given
            self.given.add(allocated.first)
        for effect in effects:  # answers in the order in which they leave
            body = effect.body if isinstance(effect, Send) else None
            if isinstance(body, messages.TopicsCreated):
                self.answered(body, {ErrorCode.NONE: True, ErrorCode.TOPIC_ALREADY_EXISTS: True})
            elif isinstance(body, messages.TopicsDeleted):
                self.answered(body, {ErrorCode.NONE: False, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: False})

    def answered(self, answer: messages.TopicsCreated | messages.TopicsDeleted, meaning: dict[ErrorCode, bool]) -> None:
        """Remember what is so now, unless another request for the name is under way."""
        name = self.asked.pop(answer.request_id)
        (result,) = answer.results
        if name not in self.asked.values():
            self.exists[name] = meaning.get(ErrorCode(result.error))

    def apply(self, records: memoryview) -> None:
        for offset, event in events_in(records):
            assert offset == len(self.read)
            self.read.append(event)
            self.copy.apply(event)
            if isinstance(event, LeaderChanged):
                key = event.topic_id, event.partition
                assert event.leader_epoch == self.epochs.get(key, -1) + 1
                self.epochs[key] = event.leader_epoch

    @invariant()
    def what_was_answered_and_read_is_so(self) -> None:
        actor = self.drive.actor
        assert isinstance(actor, CoordinatorActor)
        replica = actor.replica
        if len(self.read) == replica.log.end_offset:
            state = actor.state
            assert vars(state) == vars(self.copy)
        for name, exists in self.exists.items():
            assert exists is None or exists == (name in actor.state.topics_by_name)

    def teardown(self) -> None:
        """The faults are over: the next requests are answered."""
        if not hasattr(self, "drive"):
            return
        self.disk.room_bytes = None
        self.wait()
        before = len(self.given)
        self.allocate()
        while self.drive.flushes:
            self.flush()
        assert len(self.given) > before
        self.read_from_the_start()
        assert len(self.read) == self.drive.actor.replica.high_watermark  # type: ignore[attr-defined]


TestCoordinatorUnderFaults = CoordinatorUnderFaults.TestCase
TestCoordinatorUnderFaults.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
