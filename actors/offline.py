"""A replica that must not be believed: its disk failed a flush, lost what was flushed before, or is another topic's.

Owns: `OfflinePartition`, and what a process does that gives a replica up: it leaves the marker of `storage/fault.py`.
A fault is kept twice: in the marker, for the incarnations until the page cache is gone, and in `__cluster`, until an
operator recovers the log by hand. Either alone keeps the replica offline.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from zafka.actors.actor import Effects, Exit, Mail, Now, Peer, PeerGone, Send
from zafka.actors.direct import AnswerDirect, DirectProduce
from zafka.actors.messages import (
    ActorUp,
    DeleteRecords,
    DescribeLog,
    DescribeProducers,
    DiskFault,
    EpochEnd,
    FindEpochEnd,
    ListOffset,
    Locate,
    Located,
    LogDescribed,
    OffsetListed,
    Produce,
    ProduceAnswer,
    Produced,
    ProducersDescribed,
    Ready,
    RecordsDeleted,
    ReplicaUp,
    Shutdown,
)
from zafka.actors.start import PEER_GONE, SUPERVISOR, PartitionStart
from zafka.storage.disk import Disk
from zafka.storage.fault import leave_marker
from zafka.transport.kafka.errors import ErrorCode

logger = structlog.get_logger(__name__)


class OfflinePartition:
    """Tells its broker why it is offline, and answers everything with KAFKA_STORAGE_ERROR.

    committed: the cluster is to remember the fault, until the log is recovered by hand."""

    def __init__(self, start: PartitionStart, fault: str, *, committed: bool = True) -> None:
        self._start = start
        self._committed = committed
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
                effects: Effects = [Send(broker, up)]
                if self._committed:
                    # Again: the broker of that time may have died before it could pass it on.
                    effects.append(Send(broker, DiskFault(start.topic_id, start.partition, -1, self.fault)))
                return effects
            case PeerGone(peer=peer) if peer.name == f"broker {start.broker_id}":
                return [Exit(PEER_GONE, f"mail from or to {peer.name} was lost")]
            case Produce(items=items):
                answers = [ProduceAnswer(item.request_id, error, -1, -1, -1, self.fault) for item in items]
                return [Send(mail.sender, Produced(answers))]
            case DirectProduce(item=item):
                return [AnswerDirect([ProduceAnswer(item.request_id, error, -1, -1, -1, self.fault)])]
            case Locate(request_id=request_id):
                return [Send(mail.sender, Located(request_id, error, -1, -1, 0, 0, -1, -1, -1))]
            case ListOffset(request_id=request_id):
                return [Send(mail.sender, OffsetListed(request_id, error, -1, -1, -1))]
            case DeleteRecords(request_id=request_id):
                return [Send(mail.sender, RecordsDeleted(request_id, error, -1))]
            case DescribeProducers(request_id=request_id):
                return [Send(mail.sender, ProducersDescribed(request_id, error, []))]
            case DescribeLog(request_id=request_id):
                return [Send(mail.sender, LogDescribed(request_id, error, -1, -1))]
            case FindEpochEnd(request_id=request_id):
                return [Send(mail.sender, EpochEnd(request_id, error, -1, -1))]
            case Shutdown():
                return [Exit(0, "shutdown")]
        return []

    def on_turn_end(self, now: Now) -> Effects:
        return []


def give_up(disk: Disk, directory: Path, reason: str) -> None:
    """Keep the next incarnation from serving. The disk just failed, so this may fail too: that is logged, and what is
    left is the fault that the coordinator commits."""
    try:
        leave_marker(disk, directory, reason)
    except OSError as error:
        logger.error("cannot leave a word of the disk fault", directory=str(directory), error=str(error))


def with_way_out(directory: Path, fault: str) -> str:
    """The fault, and what an operator does about it. directory: `<data_dir>/<broker-N or coordinator>/<partition>`."""
    data_dir = directory.parent.parent
    return f"{fault}; the way out: stop zafka, `zafka log verify {directory}`, " \
        f"`zafka log recover {directory.name} --data-dir {data_dir}`"
