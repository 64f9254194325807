"""The partition leader: takes batches, writes them, and says when they are committed and where they lie.

Owns: `PartitionActor`, one replica of one partition with its log (`actors/replica.py`).
A turn takes all mail that has come; its batches are checked, written with one append, flushed with one flush and
answered with one message, so that small requests share what is dear. Records are never decoded here.
May fail with: a failed flush, after which nothing that this disk says is believed: `DiskFault` to the broker, a
marker that keeps the next incarnation from serving (`storage/fault.py`), exit. A full disk is answered.
Invariants: an answer to acks=1 or all leaves when the batch is committed, a duplicate's when its original is.
What readers ask is answered by `partition_reads.py`.
Source: ReplicaManager.appendRecords, UnifiedLog.append.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from zafka.actors.actor import (
    Actor,
    Effects,
    Exit,
    Flushed,
    FlushFailed,
    Mail,
    Now,
    Peer,
    PeerGone,
    Send,
    SetTimer,
    TimerFired,
)
from zafka.actors.cleaner_messages import Cleaned, CleaningFailed
from zafka.actors.compaction import COMPACTION_TIMER, Compaction
from zafka.actors.deletion import Deletion
from zafka.actors.direct import AnswerDirect, DirectProduce, is_direct
from zafka.actors.messages import (
    ActorDown,
    ActorUp,
    Advanced,
    BecomeLeader,
    ConfigChanged,
    DeleteRecords,
    DiskFault,
    Produce,
    ProduceAnswer,
    Produced,
    ProduceItem,
    Ready,
    RecordsDeleted,
    ReplicaUp,
    Serving,
    Shutdown,
)
from zafka.actors.offline import OfflinePartition, give_up, with_way_out
from zafka.actors.partition_reads import READS, fence
from zafka.actors.produce_rules import KeysMissing, RefusedForRoom, check_keys, check_produced, follows
from zafka.actors.refused import Refused
from zafka.actors.replica import FLUSH_TIMER, Replica, open_replica
from zafka.actors.start import PEER_GONE, SUPERVISOR, PartitionStart
from zafka.storage.batch import LOG_APPEND_TIME, BatchHeader
from zafka.storage.config import parse_config
from zafka.storage.disk import Disk
from zafka.storage.errors import BadBatch, CorruptLog, DiskFull, FailedFlush, ForeignTopic
from zafka.storage.fault import read_marker, recovery_id
from zafka.storage.producer_state import Duplicate
from zafka.transport.kafka.errors import ErrorCode

RETENTION_TIMER = "retention"
RETENTION_CHECK = "log.retention.check.interval.ms"
RETENTION_CHECK_MS = "300000"
DISK_FAULT_EXIT = 71

logger = structlog.get_logger(__name__)


class Accepted(NamedTuple):
    """A batch that will be written, and the question that it answers."""

    item: ProduceItem
    header: BatchHeader
    data: memoryview


class PartitionActor:
    """One replica of one partition.

    start: who we are, and the effective configuration.
    recovered: id of the last `zafka log recover` of this log, or "".
    """

    def __init__(
        self, start: PartitionStart, replica: Replica[list[Any]], *, recovered: str = ""
    ) -> None:
        self.topic, self.partition, self.topic_id = start.topic, start.partition, start.topic_id
        self.replica = replica
        self._recovered = recovered
        self._broker_name = f"broker {start.broker_id}"
        self._broker: Peer | None = None  # the incarnation that is owed answers
        self._retention_check_s = 0.0
        self._compaction = Compaction(replica, start.broker_id)
        self._configure(start.config)
        self._gathered: list[Mail] = []  # Produce and DirectProduce of this turn
        self._direct_owed = 0  # DirectProduce without an answer
        self._accepted: list[Accepted] = []  # checked, and not written yet
        self._newest: dict[int, BatchHeader] = {}  # by producer id, among `_accepted`
        self._written: list[ProduceAnswer] = []  # wait for what this turn wrote
        self._answers: list[Any] = []  # leave at the end of this turn
        self._told = (-1, -1, -1)  # epoch, log start and high watermark that the broker knows
        self._deletion = Deletion(replica)
        self._disk_full = False
        self._refused = RefusedForRoom()
        self._handlers: dict[type, Callable[[Mail, Now], Effects]] = {
            Produce: self._on_produce,
            DirectProduce: self._on_direct_produce,
            **dict.fromkeys(READS, self._on_read),
            DeleteRecords: self._on_delete_records,
            BecomeLeader: self._on_become_leader,
            ConfigChanged: self._on_config_changed,
            Cleaned: lambda mail, now: self._compaction.on_cleaned(mail),
            CleaningFailed: self._compaction.on_failed,
            Flushed: self._on_flushed,
            FlushFailed: self._on_flush_failed,
            TimerFired: self._on_timer,
            ActorUp: self._on_actor_up,
            ActorDown: self._on_actor_down,
            PeerGone: self._on_peer_gone,
            Shutdown: self._on_shutdown,
        }

    def __repr__(self) -> str:
        return f"<Partition {self.topic}-{self.partition} {self.replica!r}>"

    # -- turns ---------------------------------------------------------------------------------

    def on_start(self, now: Now) -> Effects:
        check_at_s = now.monotonic_s + self._retention_check_s
        return [Send(SUPERVISOR, Ready()), SetTimer(RETENTION_TIMER, check_at_s), *self._compaction.wake(now)]

    def on_mail(self, mail: Mail, now: Now) -> Effects:
        return self._handlers[type(mail.body)](mail, now)

    def on_turn_end(self, now: Now) -> Effects:
        if self._gathered:
            self._append_gathered(now)
        replica = self.replica
        for answers in replica.commit():
            self._answers += answers
        direct = self._take_direct_answers() if self._direct_owed else []
        effects: Effects = []
        if self._broker is not None and self._answers:
            effects.append(self._answered(self._broker))
            self._answers = []
        else:
            effects += self._news()
        if direct:
            effects.append(AnswerDirect(direct))
        if self._broker is not None:
            deleted, follow_up = self._deletion.answers(now)
            effects += [Send(self._broker, answer) for answer in deleted]
            effects += follow_up
        effects += self._compaction.on_turn_end(now)
        effects += replica.flush_effects(now)
        if replica.closed:
            effects.append(Exit(0, "shutdown"))
        return effects

    def _answered(self, broker: Peer) -> Send:
        """The answers of this turn."""
        return Send(broker, Produced(self._answers, self._advanced()))

    def _news(self) -> Effects:
        """What readers may see, if that is not what the broker was told. It comes before every answer that shows some
        of it: who has seen that asks the broker next, which must not know less."""
        advanced = self._advanced()
        return [] if advanced is None or self._broker is None else [Send(self._broker, advanced)]

    def _advanced(self) -> Advanced | None:
        """The same, to be sent: the broker counts as told."""
        replica = self.replica
        log = replica.log
        visible = replica.leader_epoch, log.start_offset, replica.high_watermark
        if self._broker is None or not replica.leads or visible == self._told:
            return None
        self._told = visible
        segment_base_offset, inode, position = log.commit_point(replica.high_watermark)
        return Advanced(*visible, replica.last_stable_offset, segment_base_offset, inode, position)

    # -- produce -------------------------------------------------------------------------------

    def _on_produce(self, mail: Mail, now: Now) -> Effects:
        if mail.sender == self._broker:
            self._gathered.append(mail)
        return []

    def _on_direct_produce(self, mail: Mail, now: Now) -> Effects:
        self._gathered.append(mail)
        self._direct_owed += 1
        return []

    def _take_direct_answers(self) -> list[ProduceAnswer]:
        """Of the answers that leave now, those that do not go to the broker."""
        direct = [answer for answer in self._answers if is_direct(answer)]
        if direct:
            self._direct_owed -= len(direct)
            self._answers = [answer for answer in self._answers if not is_direct(answer)]
        return direct

    def _append_gathered(self, now: Now) -> None:
        """Check every batch of the turn, write the good ones, and have an answer ready for each."""
        gathered, self._gathered = self._gathered, []
        for mail in gathered:
            if type(mail.body) is DirectProduce:
                self._take_direct(mail, now)
                continue
            position = 0
            for item in mail.body.items:
                end = position + item.size
                self._take(item, mail.records[position:end], now)
                position = end
            assert position == len(mail.records)
        self._write(now)
        if self._written:
            self.replica.wait(self._written)
            self._written = []

    def _take_direct(self, mail: Mail, now: Now) -> None:
        body: DirectProduce = mail.body
        error = fence(self.replica, body.leader_epoch)
        if error:
            self._refuse(body.item, error)
        else:
            self._take(body.item, mail.records, now)

    def _take(self, item: ProduceItem, data: memoryview, now: Now) -> None:
        """Accept one batch, or answer it."""
        replica = self.replica
        if not replica.leads:
            self._refuse(item, ErrorCode.NOT_LEADER_OR_FOLLOWER)
            return
        try:
            header, data = check_produced(item, data, replica.log.config, now.wall_ms)
            if replica.log.config.is_compacted:
                check_keys(header, data, f"{self.topic}-{self.partition}")
            if header.producer_id >= 0 and self._is_duplicate(item, header, now):
                return
        except KeysMissing as missing:
            self._refuse(item, missing.error, missing.message, missing.record_errors)
        except Refused as refused:
            self._refuse(item, refused.error, refused.message)
        except BadBatch as bad:
            self._refuse(item, bad.kafka_error, str(bad))
        else:
            self._accepted.append(Accepted(item, header, data))

    def _is_duplicate(self, item: ProduceItem, header: BatchHeader, now: Now) -> bool:
        """Whether the log has this batch of an idempotent producer already; if so it is answered as it was then.

        Raises Refused if it does not follow the producer's last one.
        """
        newest = self._newest.get(header.producer_id)
        if newest is None or not follows(newest, header):
            if newest is not None:
                self._write(now)  # so that the log's producer state knows all batches before this one
            verdict = self.replica.log.producers.check(header)
            if isinstance(verdict, Duplicate):
                self._answer_duplicate(item, verdict)
                return True
            if self._refused:
                self._refused.check(header, verdict.error, self.replica.log.producers)
            if verdict.error:
                raise Refused(ErrorCode(verdict.error), verdict.message)
        self._newest[header.producer_id] = header
        return False

    def _answer_duplicate(self, item: ProduceItem, original: Duplicate) -> None:
        replica = self.replica
        stamped = replica.log.config.message_timestamp_type == "LogAppendTime"
        answer = ProduceAnswer(
            item.request_id, 0, original.base_offset, original.timestamp if stamped else -1,
            replica.log.start_offset)
        committed = original.last_offset < replica.high_watermark
        (self._answers if committed or item.acks == 0 else self._written).append(answer)

    def _write(self, now: Now) -> None:
        """Append what was accepted, all of it or nothing."""
        accepted, self._accepted = self._accepted, []
        self._newest.clear()
        if not accepted:
            return
        replica = self.replica
        try:
            base_offsets = replica.append([(header, data) for _, header, data in accepted], now.wall_ms)
        except DiskFull as full:
            self._on_disk_full(str(full))
            for item, header, _ in accepted:
                self._refuse(item, ErrorCode.KAFKA_STORAGE_ERROR, str(full))
                self._refused.note(header)
            return
        self._disk_full = False
        start_offset = replica.log.start_offset
        for (item, header, _), base_offset in zip(accepted, base_offsets, strict=True):
            time_ms = header.max_timestamp if header.timestamp_type == LOG_APPEND_TIME else -1
            answer = ProduceAnswer(item.request_id, 0, base_offset, time_ms, start_offset)
            (self._written if item.acks else self._answers).append(answer)

    def _refuse(
        self, item: ProduceItem, error: int, message: str = "", record_errors: Sequence[tuple[int, str]] = ()
    ) -> None:
        self._answers.append(ProduceAnswer(
            item.request_id, error, -1, -1, self.replica.log.start_offset, message, list(record_errors)))

    def _on_disk_full(self, reason: str) -> None:
        if not self._disk_full:
            self._disk_full = True
            logger.error("disk full: writes are refused until there is room", reason=reason)

    # -- reads ---------------------------------------------------------------------------------

    def _on_read(self, mail: Mail, now: Now) -> Effects:
        return [*self._news(), Send(mail.sender, READS[type(mail.body)](self.replica, mail.body))]

    def _on_delete_records(self, mail: Mail, now: Now) -> Effects:
        error = fence(self.replica, -1) or self._deletion.begin(mail.body)
        return [Send(mail.sender, RecordsDeleted(mail.body.request_id, error, -1))] if error else []

    # -- leadership, configuration -------------------------------------------------------------

    def _on_actor_up(self, mail: Mail, now: Now) -> Effects:
        body: ActorUp = mail.body
        if body.name != self._broker_name:
            return self._compaction.on_actor_up(mail, now)
        broker = Peer(body.name, body.incarnation)
        if broker != self._broker:
            self._forget_broker()
            self._broker = broker
        replica = self.replica
        leader_epoch = replica.leader_epoch if replica.leads else -1
        up = ReplicaUp(self.topic, self.partition, self.topic_id, leader_epoch, recovered=self._recovered)
        return [Send(broker, up)]

    def _on_actor_down(self, mail: Mail, now: Now) -> Effects:
        if self._broker == (mail.body.name, mail.body.incarnation):
            self._forget_broker()
        self._compaction.on_gone(Peer(mail.body.name, mail.body.incarnation))
        return []

    def _on_peer_gone(self, mail: Mail, now: Now) -> Effects:
        if self._compaction.on_gone(mail.body.peer) or self._broker != mail.body.peer:
            return []
        # It lives, and does not take its mail: only a new start of this end of the link makes both agree again.
        return [Exit(PEER_GONE, f"mail from or to {self._broker_name} was lost")]

    def _forget_broker(self) -> None:
        """It is not there to be answered any more, and the next incarnation numbers its requests afresh."""
        self._broker = None
        self._deletion.forget()
        self._keep_direct(self.replica.abandon())

    def _keep_direct(self, abandoned: list[list[ProduceAnswer]]) -> None:
        """Forget what was gathered and decided for the broker. Who came straight here is still there to be answered."""
        self._gathered = [mail for mail in self._gathered if type(mail.body) is DirectProduce]
        self._answers = [answer for answer in self._answers if is_direct(answer)]
        for waiting in abandoned:
            direct = [answer for answer in waiting if is_direct(answer)]
            if direct:
                self.replica.wait(direct)

    def _on_become_leader(self, mail: Mail, now: Now) -> Effects:
        body: BecomeLeader = mail.body
        if self.replica.is_new and self.replica.leader_epoch < 0 < body.leader_epoch:
            # Its directory is on disk before it first leads, so somebody took it away, or the disk is another one.
            return self._give_up(f"what it held is gone: it led before epoch {body.leader_epoch}, and nothing was here", -1)
        if not self.replica.become_leader(body.leader_epoch):
            return []
        self._configure(body.config)
        self._told = (-1, -1, -1)  # `Advanced` follows at the end of the turn
        return [Send(mail.sender, Serving(body.leader_epoch)), *self._compaction.wake(now)]

    def _on_config_changed(self, mail: Mail, now: Now) -> Effects:
        self._configure(mail.body.config)
        return [SetTimer(RETENTION_TIMER, now.monotonic_s + self._retention_check_s), *self._compaction.wake(now)]

    def _configure(self, config: Mapping[str, str]) -> None:
        self._retention_check_s = int(config.get(RETENTION_CHECK, RETENTION_CHECK_MS)) / 1000
        self.replica.update_config(parse_config(config))
        self._compaction.configure(config)

    # -- disk ----------------------------------------------------------------------------------

    def _on_flushed(self, mail: Mail, now: Now) -> Effects:
        self.replica.on_flushed(mail.body.token)
        return []

    def _on_flush_failed(self, mail: Mail, now: Now) -> Effects:
        """The page cache lies from now on."""
        log = self.replica.log
        return self._give_up(f"flush failed: {mail.body.reason}", log.commit_point(log.flushed_offset)[2])

    def _give_up(self, reason: str, position: int) -> Effects:
        """This replica must not be believed any more: say so everywhere, and end."""
        self.replica.give_up(reason)
        effects: Effects = []
        if self._broker is not None:
            effects.append(Send(self._broker, DiskFault(self.topic_id, self.partition, position, reason)))
        effects.append(Exit(DISK_FAULT_EXIT, reason))
        return effects

    def _on_timer(self, mail: Mail, now: Now) -> Effects:
        name = mail.body.name
        if name == FLUSH_TIMER:
            self.replica.on_flush_timer()
            return []
        if name == COMPACTION_TIMER:
            return self._compaction.on_timer(now)
        return self._apply_retention(now) if name == RETENTION_TIMER else self._deletion.unlink(now)

    def _apply_retention(self, now: Now) -> Effects:
        log = self.replica.log
        effects: Effects = [SetTimer(RETENTION_TIMER, now.monotonic_s + self._retention_check_s)]
        if self.replica.leads:
            effects += self._deletion.drop_segments(now)
            log.producers.expire(now.wall_ms, log.config.producer_id_expiration_ms)
        return effects

    def _on_shutdown(self, mail: Mail, now: Now) -> Effects:
        """What came with this turn is refused; what was appended before is flushed and answered."""
        self.replica.close()
        return []


def build(start: PartitionStart, disk: Disk, now: Now, progress: Callable[[], None]) -> Actor:
    """Recover the log. Raises DirectoryLocked if the predecessor does not let go."""
    return build_on(PartitionActor, start, disk, now, progress)


def build_on(
    make: Callable[..., Actor], start: PartitionStart, disk: Disk, now: Now, progress: Callable[[], None]
) -> Actor:
    """`make(start, replica, recovered=...)` on the recovered log. A replica that must not be believed comes up too, and
    says why it is offline.

    make: may raise BadBatch or CorruptLog for what it finds in the log. Raises DirectoryLocked.
    """
    directory = Path(start.directory)
    fault = read_marker(disk, directory)
    if not fault:
        try:
            replica = open_replica(directory, start.topic_id, parse_config(start.config), disk, now, progress)
            return make(start, replica, recovered=recovery_id(disk, directory))
        except ForeignTopic as foreign:
            # Somebody else's log is whole: once it is out of the way, nothing has to be recovered.
            return OfflinePartition(start, str(foreign), committed=False)
        except (BadBatch, CorruptLog) as corrupt:
            fault = str(corrupt)
        except FailedFlush as failed:
            fault = str(failed)
            give_up(disk, directory, fault)
    return OfflinePartition(start, with_way_out(directory, fault))
