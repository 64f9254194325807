"""A group coordinator that writes snapshots all the time, with its cleaner, on a disk that forgets; and what it should know.

`World` does random things to it, and is told when it dies; every start must know what was answered, and the same from its
snapshot as from all of its log.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from tests.unit.drive import Drive
from tests.unit.drive_consumer_groups import state_of
from tests.unit.drive_groups import NOTHING, NOW_MS, ORDERS, SUPERVISOR, Coordinator, commit
from tests.unit.memory_disk import MemoryDisk
from zafka.actors.actor import Mail, Peer, Send
from zafka.actors.cleaner import build as build_cleaner
from zafka.actors.groups.coordinator import make_machine, replay
from zafka.actors.groups.machine import GroupMachine
from zafka.actors.messages import ActorUp
from zafka.actors.start import CleanerStart
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages import offset_delete
from zafka.transport.kafka.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest
from zafka.transport.kafka.messages.delete_groups import DeleteGroupsRequest
from zafka.transport.kafka.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from zafka.transport.kafka.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment

CLEANER, PARTITION = Peer("cleaner 1", 9), Peer("partition __consumer_offsets-0", 8)
COMPACTED = {
    "cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01", "log.cleaner.backoff.ms": "1000",
    "delete.retention.ms": "0", "internal.checkpoint.batches": "3"}


def log_state(machine: GroupMachine) -> Any:
    """All that the log has to say, group by group."""
    classic, consumer = machine._groups
    offsets = {
        (group, topic): dict(partitions) for group, committed, _ in machine.offsets.pieces(3)
        for topic, partitions in committed.items()}
    groups = {group_id: group.value() for group_id, group in classic._groups.items()}  # type: ignore[attr-defined]
    return offsets, groups, state_of(consumer), dict(machine._written)  # type: ignore[arg-type]


def all_of_the_log(coordinator: Coordinator) -> GroupMachine:
    replica = coordinator.coordinator.replica
    return replay(make_machine(coordinator.config), replica, lambda: None, from_offset=replica.log.start_offset)


class World:
    """committed: by group and partition, of those that were answered. sent: what may hold besides, if it was not."""

    def __init__(self, directory: Path, seed: int, *, snapshot_records: int, segment_bytes: int) -> None:
        self.directory = directory
        self.random = Random(seed)
        self.disk = MemoryDisk(seed)
        self.config = {
            **COMPACTED, "internal.snapshot.records": str(snapshot_records), "internal.segment.bytes": str(segment_bytes),
            "fsync": self.random.choice(("always", "always", "os"))}
        self.epoch = 0
        self.offset = 0
        self.committed: dict[tuple[str, int], int] = {}
        self.sent: dict[tuple[str, int], set[int]] = {}
        self.snapshots = 0  # starts from one
        self.cleaned_offset = 0  # of compaction, as a start has seen it
        self.joined: list[tuple[str, str, int]] = []
        self.cleaner: Drive | None = None

    def start(self) -> None:
        self.coordinator = Coordinator(self.directory, disk=self.disk, **self.config)
        actor = self.coordinator.coordinator
        assert actor._machine is not None
        # The snapshot was not begun yet, so the machine is what the start has read.
        assert log_state(actor._machine) == log_state(all_of_the_log(self.coordinator))
        self.cleaned_offset = max(self.cleaned_offset, actor.replica.log.swap.cleaned_offset)
        self.snapshots += actor._snapshots.offset > 0
        self.coordinator.lead(self.epoch)
        self.epoch += 1
        for (group, partition), offset in self.committed.items():
            found = self.coordinator.fetch(group, partition=partition)
            if self.config["fsync"] == "always":
                assert found in {offset, *self.sent.get((group, partition), ())}, f"{group} {partition}"
        self.committed = {
            key: found for key in self.sent if (found := self.coordinator.fetch(key[0], partition=key[1])) != NOTHING}
        self.sent = {key: set() for key in self.sent}
        self.joined.clear()
        self.cleaner = Drive(build_cleaner(CleanerStart(1), self.disk, self.coordinator.now, lambda: None), wall_ms=NOW_MS)
        self.cleaner.auto_flush = False
        self.carry(self.coordinator.send(SUPERVISOR, ActorUp(*CLEANER, "ipc://there")))

    def die(self) -> None:
        """Wherever it was: the process, or the machine."""
        self.disk.calls_left = None
        job = getattr(self.cleaner.actor, "_job", None) if self.cleaner is not None else None
        if job is not None:
            job.steps.close()  # before the disk has forgotten its files
        self.cleaner = None
        if self.random.random() < 0.6:
            self.disk.power_cut()
        else:
            self.disk.crash()

    def carry(self, effects: list[Any]) -> None:
        """Mail between coordinator and cleaner, until there is none left."""
        assert self.cleaner is not None
        mails = [effect for effect in effects if isinstance(effect, Send) and effect.to in (CLEANER, PARTITION)]
        while mails or self.cleaner.timers:
            if not mails:
                effects = self.cleaner.pass_time(0.01)
            else:
                mail = mails.pop(0)
                to = self.cleaner if mail.to == CLEANER else self.coordinator
                effects = to.turn(Mail(PARTITION if to is self.cleaner else CLEANER, mail.body))
            while self.cleaner.flushes:
                for file in self.cleaner.flushes[0].files:
                    self.disk.fdatasync(file)
                effects = effects + self.cleaner.flush()
            mails += [effect for effect in effects if isinstance(effect, Send) and effect.to in (CLEANER, PARTITION)]

    # -- what happens --------------------------------------------------------------------------

    def step(self) -> None:
        act = self.random.choices(
            (self.commit, self.delete_offset, self.delete_group, self.join_classic, self.beat, self.wait),
            weights=(50, 10, 3, 8, 12, 15))[0]
        act()

    def _key(self) -> tuple[str, int]:
        return f"g{self.random.randrange(4)}", self.random.randrange(3)

    def commit(self) -> None:
        """Several at once, so that a turn decides more than one thing."""
        mails, keys = [], [self._key() for _ in range(self.random.randint(1, 4))]
        for group, partition in keys:
            self.offset += 1
            self.sent.setdefault((group, partition), set()).add(self.offset)
            mails.append((group, partition, self.offset, self.coordinator.mail(
                ApiKey.OFFSET_COMMIT, 9, commit(group, self.offset, partition=partition))))
        answers = self.coordinator.answers(self.coordinator.turn(*(mail for *_, mail in mails)))
        for (group, partition, offset, _), answer in zip(mails, answers, strict=True):
            assert answer.topics[0].partitions[0].error_code == 0
            self.committed[group, partition] = offset

    def delete_offset(self) -> None:
        self.delete(*self._key())

    def delete(self, group: str, partition: int) -> None:
        self.sent.setdefault((group, partition), set()).add(NOTHING)
        topic = offset_delete.OffsetDeleteRequestTopic(
            ORDERS[0], [offset_delete.OffsetDeleteRequestPartition(partition)])
        self.coordinator.ask(ApiKey.OFFSET_DELETE, 0, offset_delete.OffsetDeleteRequest(group, [topic]))
        if self.committed.get((group, partition)):
            self.committed[group, partition] = NOTHING

    def delete_group(self) -> None:
        group, _ = self._key()
        for partition in range(3):
            self.sent.setdefault((group, partition), set()).add(NOTHING)
        self.coordinator.ask(ApiKey.DELETE_GROUPS, 2, DeleteGroupsRequest([group]))
        self.committed |= {key: NOTHING for key in self.committed if key[0] == group}

    def join_classic(self) -> None:
        """Of another name, so that commits of the others need no member. It leads alone, if time goes by meanwhile."""
        group = f"classic {self.random.randrange(3)}"
        joined = self.coordinator.mail(ApiKey.JOIN_GROUP, 3, JoinGroupRequest(
            group, 30_000, 30_000, "", None, "consumer", [JoinGroupRequestProtocol("range", b"")]))
        self.coordinator.turn(joined)
        answers = self.coordinator.answers(self.coordinator.pass_time(3.1))
        if answers and answers[0].error_code == 0:
            member_id, generation = answers[0].member_id, answers[0].generation_id
            self.coordinator.turn(self.coordinator.mail(ApiKey.SYNC_GROUP, 3, SyncGroupRequest(
                group, generation, member_id, assignments=[SyncGroupRequestAssignment(member_id, b"all of it")])))

    def beat(self) -> None:
        """A member of a KIP-848 group comes, or goes."""
        group = f"consumer {self.random.randrange(2)}"
        if self.joined and self.random.random() < 0.4:
            group, member_id, _ = self.joined.pop(self.random.randrange(len(self.joined)))
            request = ConsumerGroupHeartbeatRequest(group_id=group, member_id=member_id, member_epoch=-1)
        else:
            member_id = f"m{self.random.randrange(5)}"
            self.joined.append((group, member_id, 0))
            request = ConsumerGroupHeartbeatRequest(
                group_id=group, member_id=member_id, member_epoch=0, rebalance_timeout_ms=60_000,
                subscribed_topic_names=["orders"], topic_partitions=[])
        self.coordinator.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, request)

    def wait(self) -> None:
        self.carry(self.coordinator.pass_time(self.random.choice((0.02, 0.02, 0.1, 1.1))))


