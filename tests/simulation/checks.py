"""What must hold at every step, seen from above: things that no client could tell.

Owns: `Checks`, called after each turn of an actor and each start of one. What clients saw is checked by
`tests/history.py`. A violation names itself by the first word, which stays as it is: others look for it.

| check | what must hold |
|---|---|
| watermark | a leader's high watermark never goes back, and with `fsync: always` is at most what was flushed |
| log-start | who asks after records were deleted never sees where the partition began before (the readers look) |
| epoch | leader epochs of a partition rise, and one incarnation leads in each |
| offline | no replica says that its disk lied, unless a flush of it has failed |
| crash | no actor raises anything but an error of the disk that the plan of faults ordered |
| checkpoint | what a recovery checkpoint says to be on disk is there after a power cut |
| snapshot | a coordinator knows from its snapshot and the rest of its log what all of the log says |
| cluster | who has applied `__cluster` up to an offset, from snapshots or events, knows what everybody knew who had |
| compaction | a reader of a compacted topic sees what was written, where it was, and of each key nothing older than what was acknowledged before (`compacted.py`) |
| slice-leak | once all is healed and everybody is done, the brokers' arenas are all free (`simulation.py`) |
| corrupt | no partition finds a batch bad: those that clients send are good (`processes.py`) |
| stale-incarnation | no mail of an incarnation is taken after its receiver was told that it is dead |
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.unit.drive_group_snapshots import log_state
from zafka.actors.broker import BrokerActor
from zafka.actors.cluster_snapshot import sections_of
from zafka.actors.cluster_state import ClusterState
from zafka.actors.coordinator import CoordinatorActor, CoordinatorRefused
from zafka.actors.groups.coordinator import GroupCoordinatorActor, replay
from zafka.actors.offline import OfflinePartition
from zafka.actors.partition import PartitionActor
from zafka.storage.batch import walk
from zafka.storage.checkpoint import CHECKPOINT_NAME, decode_checkpoint
from zafka.storage.errors import BadBatch
from zafka.storage.log import DELETED_SUFFIX
from zafka.storage.segment import LOG_SUFFIX, segment_path, suffixed_paths
from zafka.storage.swap import SWAP_SUFFIX

if TYPE_CHECKING:
    from tests.simulation.machine import Machine
    from tests.simulation.processes import Process

DATA = Path("/data")
ORDERED = (errno.EIO, errno.ENOSPC)


class Checks:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.engine = machine.engine
        self._high_watermarks: dict[int, int] = {}  # by incarnation
        self._cluster: dict[int, bytes] = {}  # by offset of `__cluster`: the state
        self._applied: dict[int, int] = {}  # by incarnation of a broker: offset that was compared last
        self._leaders: dict[tuple[bytes, int], tuple[int, int]] = {}  # newest epoch, and the incarnation that led in it

    def on_built(self, process: Process) -> None:
        """An actor has recovered what it owns."""
        actor: Any = process.actor
        arguments: Any = process.start.arguments
        if isinstance(actor, OfflinePartition):
            self.engine.counts["partitions offline"] += 1
            if arguments.directory not in self.machine.faulted:
                self.engine.violate("offline", f"{actor!r}")
        elif isinstance(actor, CoordinatorRefused):
            self.on_coordinator_fault(actor._reason)
        elif isinstance(actor, CoordinatorActor):
            self.engine.counts["starts from a snapshot of the cluster"] += actor.cluster_log.snapshots.offset > 0
            self._check_cluster(repr(actor), actor.replica.log.end_offset, actor.state)
        elif isinstance(actor, PartitionActor):
            self.engine.counts["recoveries"] += 1
            if isinstance(actor, GroupCoordinatorActor):
                self._check_snapshot(actor)

    def _check_snapshot(self, actor: GroupCoordinatorActor) -> None:
        log, machine = actor.replica.log, actor._machine
        if actor._snapshots.offset > log.start_offset and machine is not None:
            self.engine.counts["starts from a snapshot"] += 1
            whole = replay(actor._make(), actor.replica, lambda: None, from_offset=log.start_offset)
            if log_state(machine) != log_state(whole):
                self.engine.violate("snapshot", f"{actor!r} with {actor._snapshots!r} has read another state than all of its log")

    def _check_cluster(self, who: str, offset: int, state: ClusterState) -> None:
        told = b"".join(section for section, _ in sections_of(state))
        if self._cluster.setdefault(offset, told) != told:
            self.engine.violate("cluster", f"{who} knows of __cluster at offset {offset} {state!r}, which is not what was known there")

    def on_turn(self, process: Process) -> None:
        actor = process.actor
        if isinstance(actor, BrokerActor) and self._applied.get(process.incarnation, 0) != actor.next_offset:
            self._applied[process.incarnation] = actor.next_offset
            self._check_cluster(repr(process), actor.next_offset, actor.cluster)
        if not isinstance(actor, PartitionActor):
            return
        replica = actor.replica
        high_watermark, log = replica.high_watermark, replica.log
        before = self._high_watermarks.get(process.incarnation, 0)
        if high_watermark == before:
            return
        self._high_watermarks[process.incarnation] = high_watermark
        if high_watermark < before:
            self.engine.violate("watermark", f"{actor!r}: {high_watermark} after {before}")
        if high_watermark > log.end_offset or (
            log.config.fsync == "always" and high_watermark > log.flushed_offset
        ):
            self.engine.violate("watermark", f"{actor!r} shows {high_watermark}, flushed is {log.flushed_offset}")
        if replica.leads:
            self._check_leader(process, actor, replica.leader_epoch)

    def _check_leader(self, process: Process, actor: PartitionActor, epoch: int) -> None:
        key = actor.topic_id, actor.partition
        newest = self._leaders.get(key, (-1, -1))
        if epoch < newest[0] or (epoch == newest[0] and newest[1] != process.incarnation):
            self.engine.violate("epoch", f"{process!r} leads in {epoch}; {newest} was known")
        self._leaders[key] = max(newest, (epoch, process.incarnation))

    def on_power_cut(self) -> None:
        """What checkpoints say to be on disk is there: every batch, whole and in order."""
        disk = self.machine.disk
        for broker in self.machine.settings.brokers:
            directory = DATA / f"broker-{broker.id}"
            for name in disk.list_directory(directory):
                path = directory / name
                if str(path) not in self.machine.faulted and disk.is_directory(path):
                    self._check_checkpoint(path)

    def _check_checkpoint(self, path: Path) -> None:
        disk = self.machine.disk
        if path.name.endswith("-delete") or not disk.exists(path / CHECKPOINT_NAME):
            return
        checkpoint = decode_checkpoint(disk.read(path / CHECKPOINT_NAME))
        for row in checkpoint.segments:
            if row.end_offset <= checkpoint.log_start_offset and row is not checkpoint.segments[-1]:
                continue
            file = segment_path(path, row.base_offset, LOG_SUFFIX)
            if disk.exists(file.with_name(file.name + DELETED_SUFFIX)):
                continue  # retention took it afterwards
            swap, *_ = suffixed_paths(path, row.base_offset, SWAP_SUFFIX)
            if row.base_offset == checkpoint.swapped and disk.exists(swap):
                file = swap  # the next start gives it its name
            data = disk.read(file)[: row.size_bytes] if disk.exists(file) else b""
            offset = row.base_offset
            try:
                for _, header in walk(data, check_crc=True):
                    offset = header.next_offset
            except BadBatch as bad:
                self.engine.violate("checkpoint", f"{file}: {bad}")
            if (len(data), offset) != (row.size_bytes, row.end_offset):
                self.engine.violate("checkpoint", f"{file} ends at offset {offset}, {len(data)} bytes, after {row}")

    def on_crash(self, process: Process, error: Exception, where: str) -> None:
        self.engine.counts["actors that raised"] += 1
        self.engine.trace(process.name, "raised", repr(error))
        if not (isinstance(error, OSError) and error.errno in ORDERED):
            self.engine.violate("crash", f"{process.name} raised {error!r}\n{where}")

    def on_coordinator_fault(self, reason: str) -> None:
        if not any(Path(path).parent.name == "coordinator" for path in self.machine.faulted):
            self.engine.violate("offline", f"the coordinator: {reason}")
