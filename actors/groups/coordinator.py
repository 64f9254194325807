"""The group coordinator: leads one partition of `__consumer_offsets`, and decides for the groups that belong to it.

Owns: `GroupCoordinatorActor`, a partition that nobody else writes to, with the machine of its groups on top
(`machine.py`). What one turn decided is appended as one batch; an answer leaves once everything that it rests on is
committed, so that a crash takes back nothing that anybody was told. The machine runs ahead of the commit. A start reads
the newest snapshot (`actors/snapshots.py`) and of the log what came after it.
May fail as a partition does. With the disk full, what was decided and not written is forgotten: requests are answered
COORDINATOR_NOT_AVAILABLE until the log was read anew, a second later.
Invariant: the machine is in the state to which the log replays, at the end of every turn.
Source: Kafka CoordinatorRuntime, GroupCoordinatorService.
"""

from __future__ import annotations

import gc
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from zafka.actors.actor import Actor, CancelTimer, Effects, Mail, Now, Peer, Send, SetTimer
from zafka.actors.direct import AnswerDirect
from zafka.actors.groups import consumer_records
from zafka.actors.groups.calls import Call, Groups, Outbox, Settings, Topic, Topics
from zafka.actors.groups.classic import ClassicGroups
from zafka.actors.groups.consumer import ConsumerGroups
from zafka.actors.groups.machine import GroupMachine
from zafka.actors.groups.migration import Migration
from zafka.actors.groups.record_codec import Kind
from zafka.actors.groups.records import GROUP
from zafka.actors.messages import (
    GroupAnswer,
    GroupAnswers,
    GroupCall,
    GroupRequests,
    ProduceAnswer,
    Produced,
    ProduceItem,
    TopicsTold,
)
from zafka.actors.partition import PartitionActor, build_on
from zafka.actors.replica import Replica
from zafka.actors.snapshots import SNAPSHOT_TIMER, Snapshots
from zafka.actors.start import PartitionStart
from zafka.storage.batch import read_header, walk
from zafka.storage.disk import Disk
from zafka.storage.errors import BadBatch, CorruptBatch, CorruptLog, DiskFull
from zafka.storage.records import decode_batch, encode_batch
from zafka.transport.kafka.codec import request_reader, response_writer
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.types import MalformedMessage, UnsupportedVersion

RELOAD_TIMER = "reload"
RELOAD_S = 1.0
REPLAY_BYTES = 1024 * 1024

MakeMachine = Callable[[Settings], GroupMachine]


def random_id() -> str:
    return str(uuid.uuid4())


def make_machine(settings: Settings, new_id: Callable[[], str] = random_id) -> GroupMachine:
    """The groups of a partition of which nothing is known yet. new_id: another one each time."""
    topics = Topics()
    classic, consumer = ClassicGroups(settings, new_id), ConsumerGroups(topics, settings, new_id)
    kinds: dict[int, tuple[Kind, Groups]] = {number: (kind, consumer) for number, kind in consumer_records.KINDS.items()}
    migration = Migration(classic, consumer, topics, settings)
    return GroupMachine([classic, consumer], migration, {**kinds, GROUP.number: (GROUP, classic)}, topics, settings)


class GroupCoordinatorActor(PartitionActor):
    """make: an empty machine. progress: told while the log is read, which may take long."""

    def __init__(
        self, start: PartitionStart, replica: Replica[list[Any]], disk: Disk, *, make: MakeMachine,
        progress: Callable[[], None], recovered: str = "",
    ) -> None:
        super().__init__(start, replica, recovered=recovered)
        self._make = partial(make, start.config)
        self._progress = progress
        self._snapshots = Snapshots(disk, replica)
        self._machine: GroupMachine | None = self._read()
        self._begun = False  # clients' sessions run
        self._deaf = True  # no broker has clients for us: the last one is gone, and the next has not said that we lead
        self._stopping = False
        self._topics: dict[str, Topic] | None = None  # of the cluster, once we were told
        self._configs: dict[str, dict[str, str]] = {}  # of groups, told with them
        self._open: dict[int, Call] = {}  # by request id, calls that are not answered
        self._outbox = Outbox()
        self._due: list[str] = []  # timers of the machine that have fired in this turn
        self._handlers |= {GroupRequests: self._on_requests, TopicsTold: self._on_topics}

    def __repr__(self) -> str:
        return f"<GroupCoordinator {self.partition} {self.replica!r} {self._machine!r} open={len(self._open)}>"

    # -- turns ---------------------------------------------------------------------------------

    def on_turn_end(self, now: Now) -> Effects:
        if self._due:
            self._fire_due(now)
        effects = self._append_decided(now)
        snapshot = self._go_on_with_snapshot(now)
        if self._stopping and not self._snapshots.is_busy:
            self.replica.close()
        return effects + super().on_turn_end(now) + snapshot

    def _go_on_with_snapshot(self, now: Now) -> Effects:
        """The machine and the log agree now."""
        snapshots, compaction = self._snapshots, self._compaction
        if self._begun and self._machine is not None and snapshots.is_due(wanted_offset=compaction.waits_for):
            snapshots.begin(self._machine.sections())
        effects = snapshots.on_turn_end(now, hurry=self._stopping)
        compaction.keep_from = snapshots.offset
        return effects

    def _append_decided(self, now: Now) -> Effects:
        """Append what this turn decided, and let its answers wait for that and for all that came before."""
        outbox, self._outbox = self._outbox, Outbox()
        if not self.replica.leads:
            self._refuse_open(ErrorCode.NOT_COORDINATOR)
            return []
        if outbox.records:
            batch = memoryview(encode_batch((now.wall_ms, key, value, ()) for key, value in outbox.records))
            try:
                self.replica.append([(read_header(batch), batch)], now.wall_ms)
            except DiskFull as full:
                return self._take_back(str(full), now)
            self._disk_full = False
            assert self._machine is not None
            for key, value in outbox.records:
                self._machine.on_written(key, value)
        answers = [
            _encode_answer(call, response) for call, response in outbox.answers
            if self._open.get(call.request_id) is call]
        for answer, _ in answers:
            del self._open[answer.request_id]
        if answers:
            self.replica.wait(answers)
        return [
            CancelTimer(name) if at_s is None else SetTimer(name, at_s) for name, at_s in outbox.timers.items()]

    def _answered(self, broker: Peer) -> Send:
        answers = GroupAnswers([answer for answer, _ in self._answers], self._advanced())
        return Send(broker, answers, [body for _, body in self._answers if body])

    def _take_back(self, reason: str, now: Now) -> Effects:
        """Nothing of this turn was written: forget all of it, and go by the log again after a while."""
        self._snapshots.abandon()
        self._on_disk_full(reason)
        self._machine = None
        self._refuse_open(ErrorCode.COORDINATOR_NOT_AVAILABLE)
        return [SetTimer(RELOAD_TIMER, now.monotonic_s + RELOAD_S)]

    def _refuse_open(self, error: int) -> None:
        self._answers += [_refusal(request_id, error) for request_id in self._open]
        self._open.clear()

    def _begin(self, now: Now) -> None:
        """Clients come from now on."""
        assert self._machine is not None
        self._begun = True
        self._machine.configure(self._configs)
        if self._topics is not None:
            self._machine.on_topics(self._topics, now, self._outbox)
        self._machine.on_loaded(now, self._outbox)

    def _read(self) -> GroupMachine:
        """The machine as the log has it. Raises BadBatch or CorruptLog if what has to be read of it is damaged."""
        with without_collections():
            machine = self._snapshots.load(self._make, GroupMachine.restore, self._progress)
            return replay(machine, self.replica, self._progress, from_offset=self._snapshots.offset)

    # -- requests ------------------------------------------------------------------------------

    def _on_requests(self, mail: Mail, now: Now) -> Effects:
        if mail.sender != self._broker:
            return []
        position = 0
        for asked in mail.body.calls:
            end = position + asked.size
            self._take_call(mail.sender, asked, mail.records[position:end], now)
            position = end
        return []

    def _take_call(self, broker: Peer, asked: GroupCall, body: memoryview, now: Now) -> None:
        if self._machine is None or not self._begun:
            error = ErrorCode.NOT_COORDINATOR if self._stopping else ErrorCode.COORDINATOR_NOT_AVAILABLE
            self._answers.append(_refusal(asked.request_id, error))
            return
        call = Call(broker, asked.request_id, asked.api_key, asked.version, asked.client_id, asked.client_host)
        self._open[asked.request_id] = call
        request = request_reader(asked.api_key, asked.version)(body, 0)
        self._machine.handle(call, request, now, self._outbox)

    def _on_topics(self, mail: Mail, now: Now) -> Effects:
        self._topics = {name: Topic(topic_id, partitions) for name, topic_id, partitions in mail.body.topics}
        self._configs = mail.body.configs
        if self._machine is not None and self._begun:
            self._machine.configure(self._configs)
            self._machine.on_topics(self._topics, now, self._outbox)
        return []

    def _on_produce(self, mail: Mail, now: Now) -> Effects:
        return [Send(mail.sender, Produced([self._no_append(item) for item in mail.body.items]))]

    def _on_direct_produce(self, mail: Mail, now: Now) -> Effects:
        return [AnswerDirect([self._no_append(mail.body.item)])]

    def _no_append(self, item: ProduceItem) -> ProduceAnswer:
        message = f"Cannot append to internal topic {self.topic}"
        return ProduceAnswer(item.request_id, ErrorCode.INVALID_TOPIC_EXCEPTION, -1, -1, -1, message)

    # -- leadership, timers --------------------------------------------------------------------

    def _on_become_leader(self, mail: Mail, now: Now) -> Effects:
        effects = super()._on_become_leader(mail, now)
        if self.replica.leads and not self._begun:
            self._begin(now)
        elif self._deaf and self._begun and self._machine is not None:
            self._machine.renew_sessions(now, self._outbox)  # as in Kafka, where the coordinator goes with its broker
        self._deaf = False
        return effects

    def _on_timer(self, mail: Mail, now: Now) -> Effects:
        name: str = mail.body.name
        if name == RELOAD_TIMER:
            self._machine = self._read()
            self._begin(now)
            return []
        if name == SNAPSHOT_TIMER:
            return []  # the end of the turn sees to it
        if " " not in name:  # the names of a machine's timers have several words, a partition's one
            return super()._on_timer(mail, now)
        self._due.append(name)
        return []

    def _fire_due(self, now: Now) -> None:
        """Behind all mail of the turn: a disk that was slow kept this process from hearing members, and they are not gone.

        Nor are they while no broker hears them."""
        if self._deaf:
            return
        due, self._due = self._due, []
        if self._machine is None or not self._begun:
            return
        for name in due:
            if name not in self._outbox.timers:  # neither moved nor cancelled since
                self._machine.on_timer(name, now, self._outbox)

    def _on_flushed(self, mail: Mail, now: Now) -> Effects:
        return [] if self._snapshots.on_flushed(mail.body.token) else super()._on_flushed(mail, now)

    def _on_shutdown(self, mail: Mail, now: Now) -> Effects:
        """What was decided in this turn is written, and nothing more; then a snapshot, if the next start is the faster for it."""
        effects = self._append_decided(now)
        self.replica.resign()
        self._begun, self._stopping = False, True
        if self._machine is not None and self._snapshots.is_due(stopping=True):
            self._snapshots.begin(self._machine.sections())
        return effects

    def _forget_broker(self) -> None:
        super()._forget_broker()
        self._deaf = True
        self._open.clear()

    def _keep_direct(self, abandoned: list[Any]) -> None:
        self._answers.clear()  # nobody comes straight here


@contextmanager
def without_collections() -> Iterator[None]:
    """No looking for garbage while nothing but what stays is made: of a million offsets it is half of the time."""
    were_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if were_on:
            gc.enable()


def replay(
    machine: GroupMachine, replica: Replica[Any], progress: Callable[[], None], *, from_offset: int
) -> GroupMachine:
    """The machine after what the log holds from there on. Raises BadBatch or CorruptLog if that is damaged."""
    log = replica.log
    offset = from_offset
    while offset < log.end_offset:
        records, offset = replica.read(offset, REPLAY_BYTES, limit_offset=log.end_offset)
        for position, header in walk(records, check_crc=False):  # it was checked on the way
            for record in () if header.is_control else decode_batch(records[position:], header):
                try:
                    machine.replay(record.key or b"", record.value)
                except (MalformedMessage, UnsupportedVersion) as error:
                    raise CorruptBatch(f"the record at offset {record.offset} is no coordinator's: {error}") from None
        progress()
    return machine


def _encode_answer(call: Call, response: Any) -> tuple[GroupAnswer, bytes]:
    body = b"".join(response_writer(call.api_key, call.version)(response))
    return GroupAnswer(call.request_id, 0, len(body)), body


def _refusal(request_id: int, error: int) -> tuple[GroupAnswer, bytes]:
    return GroupAnswer(request_id, error, 0), b""


def build(
    start: PartitionStart, disk: Disk, now: Now, progress: Callable[[], None], make: MakeMachine = make_machine
) -> Actor:
    """Recover the log and replay it. Raises DirectoryLocked if the predecessor does not let go."""

    def on_log(start: PartitionStart, replica: Replica[list[Any]], *, recovered: str) -> Actor:
        try:
            return GroupCoordinatorActor(start, replica, disk, make=make, progress=progress, recovered=recovered)
        except (BadBatch, CorruptLog):
            replica.release()
            raise

    return build_on(on_log, start, disk, now, progress)
