"""A replica that must not be believed: its disk failed a flush, or lost what was flushed before.

Owns: `OfflinePartition`, and the marker that an incarnation leaves for the next one when a flush failed.
After a failed flush the page cache holds bytes that are not on disk, and a later flush may succeed all the same;
so a process that starts over them must not take them for the log. The marker is not flushed: it lies in the same
page cache and vanishes with it in a power cut, and then what the disk has is the truth again.
Source: "Can Applications Recover from fsync Failures?" (USENIX ATC 2020).
"""

from __future__ import annotations

from pathlib import Path

import structlog

from zafka.actors.actor import Effects, Exit, Mail, Now, Peer, PeerGone, Send
from zafka.actors.messages import (
    ActorUp,
    DiskFault,
    ListOffset,
    Locate,
    Located,
    OffsetListed,
    Produce,
    ProduceAnswer,
    Produced,
    Ready,
    ReplicaUp,
    Shutdown,
)
from zafka.actors.start import PEER_GONE, SUPERVISOR, PartitionStart
from zafka.storage.disk import Disk
from zafka.transport.kafka.errors import ErrorCode

MARKER = "disk-fault"

logger = structlog.get_logger(__name__)


class OfflinePartition:
    """Tells its broker why it is offline, and answers everything with KAFKA_STORAGE_ERROR."""

    def __init__(self, start: PartitionStart, fault: str) -> None:
        self._start = start
        self.fault = fault

    def __repr__(self) -> str:
        return f"<Partition {self._start.topic}-{self._start.partition} offline: {self.fault}>"

    def on_start(self, now: Now) -> Effects:
        logger.error("the replica is offline", reason=self.fault)
        return [Send(SUPERVISOR, Ready())]

    def on_mail(self, mail: Mail, now: Now) -> Effects:
        error, start = ErrorCode.KAFKA_STORAGE_ERROR, self._start
        match mail.body:
            case ActorUp(name=name, incarnation=incarnation) if name == f"broker {start.broker_id}":
                broker = Peer(name, incarnation)
                up = ReplicaUp(start.topic, start.partition, start.topic_id, -1, self.fault)
                # Again: the broker of that time may have died before it could pass it on.
                fault = DiskFault(start.topic_id, start.partition, -1, self.fault)
                return [Send(broker, up), Send(broker, fault)]
            case PeerGone(peer=peer) if peer.name == f"broker {start.broker_id}":
                return [Exit(PEER_GONE, f"mail from or to {peer.name} was lost")]
            case Produce(items=items):
                answers = [ProduceAnswer(item.request_id, error, -1, -1, -1, self.fault) for item in items]
                return [Send(mail.sender, Produced(answers))]
            case Locate(request_id=request_id):
                return [Send(mail.sender, Located(request_id, error, -1, -1, 0, 0, -1, -1, -1))]
            case ListOffset(request_id=request_id):
                return [Send(mail.sender, OffsetListed(request_id, error, -1, -1, -1))]
            case Shutdown():
                return [Exit(0, "shutdown")]
        return []

    def on_turn_end(self, now: Now) -> Effects:
        return []


def leave_marker(disk: Disk, directory: Path, reason: str) -> None:
    """Keep the next incarnation from serving. The disk just failed, so this may fail too: that is logged."""
    try:
        file = disk.open(directory / MARKER, create=True)
        disk.pwritev(file, [reason.encode()], 0)
        disk.close(file)
    except OSError as error:
        logger.error("cannot leave a word of the disk fault", directory=str(directory), error=str(error))


def read_marker(disk: Disk, directory: Path) -> str:
    """Why the last incarnation gave this replica up, or ""."""
    path = directory / MARKER
    if not disk.exists(path):
        return ""
    file = disk.open(path)
    try:
        reason = disk.pread(file, disk.size(file), 0).decode(errors="replace")
    finally:
        disk.close(file)
    return f"{reason or 'disk fault'}; remove {path} once the disk is trusted again"
