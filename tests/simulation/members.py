"""Members of a classic group: they join, share a topic's partitions, commit what they come to, leave, vanish, come back.

Owns: `GroupMember`, and `Group`, what all members of one have seen together.
Violations name themselves: two-owners (of a partition in one generation; invariant 13), fenced-commit (a commit of an
older generation was taken, invariant 12), put-out (a member is told that it is none any more, though it was heard of within its
session: others are given what it has), offset-back and offset-phantom as in `committers.py`, refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from tests.simulation.clients import BACKOFF_S
from tests.simulation.committers import COMMIT_VERSION, FETCH_VERSION, GroupClient
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.heartbeat import HeartbeatRequest
from zafka.transport.kafka.messages.join_group import (
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    JoinGroupResponseMember,
)
from zafka.transport.kafka.messages.leave_group import LeaveGroupRequest, MemberIdentity
from zafka.transport.kafka.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from zafka.transport.kafka.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
)
from zafka.transport.kafka.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

JOIN_VERSION, SYNC_VERSION, HEARTBEAT_VERSION, LEAVE_VERSION = 5, 3, 3, 3
SESSION_MS, REBALANCE_MS = 1500, 1500
BEAT_S = 0.25
STALE = (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.ILLEGAL_GENERATION)
SETTINGS = {
    "group.min.session.timeout.ms": "500", "group.initial.rebalance.delay.ms": "100",
    "group.consumer.session.timeout.ms": str(SESSION_MS)}


class Group:
    """partitions: of the topic that it reads. newest: the newest generation that anybody was told to have its share in.

    owners: of each partition in each generation. held: the highest offset of each partition that surely holds."""

    def __init__(self, name: str, topic: str, partitions: int) -> None:
        self.name = name
        self.topic = topic
        self.partitions = partitions
        self.newest = -1
        self.owners: dict[tuple[int, int], str] = {}
        self.held = dict.fromkeys(range(partitions), -1)
        self.sent = dict.fromkeys(range(partitions), -1)


class GroupMember(GroupClient):
    commit_version = COMMIT_VERSION
    assignor = "range"
    instance: str | None = None  # of a static member

    def __init__(self, simulation: Simulation, name: str, group: Group) -> None:
        super().__init__(simulation, name, group.name, group.topic)
        self.shared = group
        self.member_id = ""
        self.generation = -1
        self.previous = -1  # the generation before, in which it may still have something to commit
        self.owned: list[int] = []
        self.finishing = False
        self._life = 0  # a vanished member's timers mean nothing to the one that comes back
        self._asked_s = 0.0
        self._well: tuple[str, float] = "", 0.0  # who was told last that all is well, and when it asked

    @property
    def owner(self) -> str:
        """Who has what it has, by the name that others may not have."""
        return self.member_id

    def start(self) -> None:
        self.after(self.random.random(), self._join)

    def finish(self) -> None:
        self.finishing = True

    def _step(self, step: Callable[[], None]) -> Callable[[], None]:
        """This step, unless the member has begun anew since."""
        life = self._life

        def guarded() -> None:
            if life == self._life:
                step()

        return guarded

    def _begin_anew(self, delay_s: float = 0.0) -> None:
        self._life += 1
        self.previous = max(self.previous, self.generation)
        self.generation, self.owned = -1, []
        self.after(delay_s + BACKOFF_S * self.random.random(), self._step(self._join))

    def ask_coordinator(self, *request: Any) -> None:
        self._asked_s = self.engine.now_s  # one request at a time
        super().ask_coordinator(*request)

    def _is_well(self) -> None:
        """The coordinator told it that it is a member. (That of the classic protocol's Heartbeat may be the broker's word, as with
        Kafka, while the coordinator is to come.)"""
        self._well = self.member_id, self._asked_s

    def _check_put_out(self) -> None:
        """It was told that it is no member. Its session has ended, then, or its time for a step, which is as long, since all was well."""
        member_id, well_s = self._well
        silent_s = self.engine.now_s - well_s
        if member_id and member_id == self.member_id and silent_s < SESSION_MS / 1000:
            self.violate("put-out", f"{member_id}, {silent_s:.3f} s after it asked and was told that all is well")

    def _on_error(self, error: int, step: Callable[[], None]) -> None:
        if error == ErrorCode.UNKNOWN_MEMBER_ID:
            self._check_put_out()
        if error in STALE:
            self.member_id = "" if error == ErrorCode.UNKNOWN_MEMBER_ID else self.member_id
            self._begin_anew()
        elif error == ErrorCode.REBALANCE_IN_PROGRESS:
            self._begin_anew()
        else:
            self.check_retriable(error)
            self.again(self._step(step))

    # -- a generation --------------------------------------------------------------------------

    def _join(self) -> None:
        request = JoinGroupRequest(
            self.group, SESSION_MS, REBALANCE_MS, self.member_id, self.instance, "consumer",
            [JoinGroupRequestProtocol(self.assignor, self._metadata())])
        self.ask_coordinator(ApiKey.JOIN_GROUP, JOIN_VERSION, request, self._guard(self._on_joined), self._step(self._join))

    def _metadata(self) -> bytes:
        """What the others are to know of it: nothing."""
        return b""

    def _share(self, partitions: Iterable[int]) -> bytes:
        """In words that only members need to understand."""
        return bytes(partitions)

    def _guard(self, on_answer: Callable[[Any], None]) -> Callable[[Any], None]:
        life = self._life

        def guarded(answer: Any) -> None:
            if life == self._life:
                on_answer(answer)

        return guarded

    def _on_joined(self, answer: Any) -> None:
        if answer.error_code == ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = answer.member_id
            self._join()
        elif answer.error_code:
            self._on_error(answer.error_code, self._join)
        else:
            self.member_id, self.generation = answer.member_id, answer.generation_id
            self._sync(self._assign(answer.members))

    def _assign(self, members: list[JoinGroupResponseMember]) -> list[SyncGroupRequestAssignment]:
        """members: all, if this one leads them."""
        return [
            SyncGroupRequestAssignment(member_id, self._share(range(index, self.shared.partitions, len(members))))
            for index, member_id in enumerate(sorted(each.member_id for each in members))]

    def _sync(self, assignments: list[SyncGroupRequestAssignment]) -> None:
        request = SyncGroupRequest(self.group, self.generation, self.member_id, self.instance, assignments=assignments)
        self.ask_coordinator(ApiKey.SYNC_GROUP, SYNC_VERSION, request, self._guard(self._on_synced),
                             self._step(lambda: self._sync(assignments)))

    def _on_synced(self, answer: Any) -> None:
        if answer.error_code:
            self._on_error(answer.error_code, self._join)
            return
        self._is_well()
        self._take_share(answer.assignment)
        self.after(BEAT_S * self.random.random(), self._step(self._beat))

    def _take_share(self, share: bytes) -> None:
        group = self.shared
        self.owned = list(share)
        group.newest = max(group.newest, self.generation)
        for partition in self.owned:
            owner = group.owners.setdefault((self.generation, partition), self.owner)
            if owner != self.owner:
                self.violate("two-owners", f"{partition} in generation {self.generation}: {owner} and {self.owner}")
        self.engine.counts["shares of a generation"] += 1

    def _beat(self) -> None:
        choice = self.random.random()
        if self.owned and choice < 0.5:
            self._look(self.random.choice(self.owned))
        elif not self.finishing and choice > 0.97:
            self._vanish()
        elif not self.finishing and choice > 0.94:
            self._leave()
        else:
            request = HeartbeatRequest(self.group, self.generation, self.member_id, self.instance)
            self.ask_coordinator(
                ApiKey.HEARTBEAT, HEARTBEAT_VERSION, request, self._guard(self._on_beaten), self._step(self._beat))

    def _on_beaten(self, answer: Any) -> None:
        if answer.error_code:
            self._on_error(answer.error_code, self._beat)
        else:
            self._go_on()

    def _go_on(self) -> None:
        self.done = self.finishing
        self.after(BEAT_S * (0.5 + self.random.random()), self._step(self._beat))

    # -- offsets -------------------------------------------------------------------------------

    def _look(self, partition: int) -> None:
        """Where the one before came to; then a little further."""
        wanted = [OffsetFetchRequestTopics(name=self.topic, partition_indexes=[partition])]
        request = OffsetFetchRequest([OffsetFetchRequestGroup(self.group, topics=wanted)])

        def on_found(answer: Any) -> None:
            (found,) = answer.groups
            if found.error_code:
                self._on_error(found.error_code, self._beat)
                return
            offset = found.topics[0].partitions[0].committed_offset
            group = self.shared
            if offset < group.held[partition]:
                self.violate("offset-back", f"{offset} is committed for {partition}, after {group.held[partition]} was")
            elif offset > group.sent[partition]:
                self.violate("offset-phantom", f"{offset} is committed for {partition}, and nobody sent it")
            self._commit(partition, offset + 1 + self.random.randrange(3))

        self.ask_coordinator(ApiKey.OFFSET_FETCH, FETCH_VERSION, request, self._guard(on_found), self._step(self._beat))

    def _commit(self, partition: int, offset: int) -> None:
        group = self.shared
        member_id, generation, fenced = self._author(partition)
        is_own = (member_id, generation) == (self.member_id, self.generation)
        group.sent[partition] = max(group.sent[partition], offset)
        parts = [OffsetCommitRequestPartition(partition, offset, -1, "")]
        request = OffsetCommitRequest(
            self.group, generation, member_id, self.instance, topics=[OffsetCommitRequestTopic(name=self.topic, partitions=parts)])

        def on_answer(answer: Any) -> None:
            error = answer.topics[0].partitions[0].error_code
            if not error:
                if fenced:
                    self.violate("fenced-commit", f"{member_id} commits for {partition} in generation {generation}, and was fenced before")
                group.held[partition] = max(group.held[partition], offset)
                self.engine.counts["offsets committed by members"] += 1
            if life != self._life:
                return
            if not error or not is_own or error == ErrorCode.STALE_MEMBER_EPOCH or error == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                self._go_on()
            else:
                self._on_error(error, self._beat)

        life = self._life
        self.ask_coordinator(ApiKey.OFFSET_COMMIT, self.commit_version, request, on_answer, self._step(self._beat))

    def _author(self, partition: int) -> tuple[str, int, bool]:
        """Id and generation of who commits, and whether that is over: now and then the generation before, as a thread would that
        has not heard of the new one."""
        generation = self.generation
        if 0 <= self.previous < generation and self.random.random() < 0.2:
            generation = self.previous
        return self.member_id, generation, self._is_fenced(partition, generation)

    def _is_fenced(self, partition: int, generation: int) -> bool:
        return generation < self.shared.newest

    # -- ends ----------------------------------------------------------------------------------

    def _leave(self) -> None:
        request = LeaveGroupRequest(self.group, [MemberIdentity(self.member_id, self.instance)])
        self.member_id = ""
        self.ask_coordinator(
            ApiKey.LEAVE_GROUP, LEAVE_VERSION, request, self._guard(lambda answer: self._begin_anew(self.random.random())),
            self._step(self._begin_anew))

    def _vanish(self) -> None:
        """For longer than a session, or not."""
        self._begin_anew(2 * SESSION_MS / 1000 * self.random.random())
