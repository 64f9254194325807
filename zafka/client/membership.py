"""A group as a consumer sees it: what changes hands, and what is committed.

Owns: the reader's side of a membership (group.py decides, group_session.py sends): tasks are carried out here, in steps, in
the user's thread, before it reads on; positions are committed; `on_rebalance` is called. Not safe to use from several threads.
Invariants: what is committed was handed out before; a partition is given up after it was committed, and begun where it was
committed; one commit is under way at a time, and what another life of this consumer handed out is not committed.
Source: Kafka ConsumerCoordinator (onJoinPrepare, onJoinComplete).
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from zafka.client.cluster import NEVER
from zafka.client.core import Answer, Core
from zafka.client.errors import (
    BrokerRefused,
    CommitFailed,
    ConfigError,
    ZafkaError,
    error_name,
)
from zafka.client.fetcher import NOT_KNOWN, Fetcher
from zafka.client.group import (
    CLASSIC,
    CONSUMER,
    Adopt,
    Failed,
    GoClassic,
    GroupOptions,
    Identity,
    Lost,
    Membership,
    Prepare,
    Task,
)
from zafka.client.group_classic import ClassicMembership
from zafka.client.group_consumer import ConsumerMembership
from zafka.client.group_requests import (
    Coordinators,
    commit_errors,
    commit_request,
    fetch_committed,
    read_commit,
)
from zafka.client.group_session import GroupSession
from zafka.client.records import OffsetAndMetadata, TopicPartition
from zafka.client.waiting import until
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode

logger = logging.getLogger("zafka.client")

LEAVE_S = 3.0
RETRY_S = 0.05
NOBODY = Identity("", -1, 0)
FENCED = (
    ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.ILLEGAL_GENERATION, ErrorCode.FENCED_INSTANCE_ID,
    ErrorCode.REBALANCE_IN_PROGRESS, ErrorCode.STALE_MEMBER_EPOCH)
# The member may have gone on with its group since.
BEHIND = (ErrorCode.ILLEGAL_GENERATION, ErrorCode.REBALANCE_IN_PROGRESS, ErrorCode.STALE_MEMBER_EPOCH)

Offsets = Mapping[TopicPartition, OffsetAndMetadata]
Positions = Mapping[TopicPartition, int]


class Rebalance(NamedTuple):
    """Partitions change hands. Revoked ones are told of while they still can be committed; lost ones are others' already.

    why: in words, as far as this member can know it. generation: of the group, -1 without membership.
    """

    why: str
    generation: int
    assigned: frozenset[TopicPartition] = frozenset()
    revoked: frozenset[TopicPartition] = frozenset()
    lost: frozenset[TopicPartition] = frozenset()


OnRebalance = Callable[[Rebalance], None]


class Reader(NamedTuple):
    """What the consumer does for its group.

    positions: the offset after what was handed out of each assigned partition, where that is known.
    forget: hands out nothing more of these partitions.
    """

    positions: Callable[[], dict[TopicPartition, int]]
    forget: Callable[[Collection[TopicPartition]], None]


def make_membership(options: GroupOptions, topics: tuple[str, ...], pattern: str | None = None) -> Membership:
    now_s = time.monotonic()
    if options.protocol == CLASSIC:
        return ClassicMembership(options, topics, now_s)
    return ConsumerMembership(options, topics, now_s, member_id=secrets.token_urlsafe(16), pattern=pattern)


class GroupMember:
    """See the module. auto_commit_interval: seconds, NEVER without auto commit."""

    def __init__(
        self, core: Core, fetcher: Fetcher, options: GroupOptions, *, auto_commit_interval: float,
        on_rebalance: OnRebalance | None, api_timeout: float,
    ) -> None:
        self.options = options
        self.session = GroupSession(core.cluster, fetcher, auto_commit_interval)
        self._membership: Membership | None = None  # the session's, once that has heard of it
        self._core = core
        self._fetcher = fetcher
        self._coordinators = Coordinators(core)
        self._auto_commits = auto_commit_interval != NEVER
        self._on_rebalance = on_rebalance
        self._api_timeout = api_timeout
        self._life = -1  # of the membership, as of what was adopted last
        self._gave_up = False  # for others, whom the group has not given it yet
        self._committed: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()  # before the group shared anew
        self._pending: tuple[Answer, Offsets] | None = None  # a commit that nobody waits for

    # -- membership ------------------------------------------------------------------------------

    async def subscribe(self, reader: Reader, topics: tuple[str, ...], pattern: str | None = None) -> None:
        """Be a member that reads these topics, or those that match, instead of whatever was read before."""
        if pattern is not None and self.options.protocol == CLASSIC:
            raise ConfigError("a pattern is for group_protocol='consumer', where the broker looks which topics match")
        await self.leave(reader)
        self._fetcher.assign({})
        membership = self._membership = make_membership(self.options, topics, pattern)
        self._life = -1
        self._gave_up = False
        self._committed.clear()
        self._paused.clear()
        self._core.io.call(partial(self.session.join, membership))

    async def assign(self, reader: Reader, partitions: Mapping[TopicPartition, int | None]) -> None:
        """Read chosen partitions where the group has committed, without being its member."""
        await self.leave(reader)
        deadline_s = time.monotonic() + self._api_timeout
        found = await fetch_committed(self._coordinators, self.options.group_id, partitions, deadline_s)
        self._committed = {where: committed.offset for where, committed in found.items()}
        reader.forget(tuple(self._fetcher.readings))
        self._fetcher.assign({})
        self._fetcher.change((), {where: self._committed.get(where, NOT_KNOWN) for where in partitions})

    async def leave(self, reader: Reader) -> None:
        """Commit if that is done by itself, give up everything, and sign off."""
        session = self.session
        if self._membership is None:
            if self._auto_commits and self._fetcher.readings:
                await self._commit_quietly(reader.positions())
            return
        try:
            await self._give_up(reader, frozenset(self._fetcher.readings), "this consumer leaves")
        finally:
            self._core.io.call(session.leave)
        await until(self._fetcher.ready, lambda: session.is_over or self._core.ended or None, time.monotonic() + LEAVE_S)
        self._membership = None

    def begin_leaving(self) -> Callable[[], bool]:
        """Sign off without the reader. Returns what says whether that is done; it holds on to nothing of the reader's."""
        session = self.session
        self._core.io.call(session.leave)
        return lambda: session.is_over

    async def serve(self, reader: Reader) -> None:
        """Do what the group wants of the reader before it reads on. A task that fails or is cancelled is done again."""
        self._fetcher.interrupted = False  # before looking
        session = self.session
        session.reads = True
        self._look_at_pending()
        try:
            while tasks := self._tasks():
                task = tasks[0]
                if self._is_moot():
                    self._done()
                elif isinstance(task, Prepare):
                    await self._prepare(reader, task)
                elif isinstance(task, Adopt):
                    await self._adopt(reader, task)
                elif isinstance(task, Lost):
                    self._lose(reader, task)
                elif isinstance(task, GoClassic):
                    self._go_classic(task)
                elif isinstance(task, Failed):
                    self._fail(reader, task)
            if session.commit_due:
                session.commit_due = False
                self._commit_by_the_way(reader.positions())
        finally:
            if self._tasks():
                self._fetcher.interrupt()

    def _tasks(self) -> deque[Task]:
        return deque() if self._membership is None else self._membership.tasks

    def _is_moot(self) -> bool:
        """What the next task is about is gone: a later one says so."""
        return any(isinstance(later, Lost | Failed) for later in islice(self._tasks(), 1, None))

    async def _prepare(self, reader: Reader, task: Prepare) -> None:
        owned = frozenset(self._fetcher.readings)
        if not self.options.cooperative:
            await self._give_up(reader, owned, task.why)
            owned = frozenset()
        elif self._auto_commits:
            await self._commit_quietly(reader.positions())
        self._done()
        self._tell(lambda membership: membership.prepared(task.round, owned))

    async def _adopt(self, reader: Reader, task: Adopt) -> None:
        """Kept ones go on where they are, new ones where they were committed."""
        had = frozenset(self._fetcher.readings)
        gone, new = had - task.partitions, task.partitions - had
        self._life = task.life
        if gone:
            self._gave_up = True
            await self._give_up(reader, gone, task.why)
        offsets = await self._fetch_offsets(new)
        if offsets is None:
            return
        self._committed |= offsets
        self._fetcher.change((), {where: offsets.get(where, NOT_KNOWN) for where in new})
        for where in new & self._paused:
            self._fetcher.pause(where, NOT_KNOWN)
        self._paused = set()
        self._done()
        gave_up, self._gave_up = self._gave_up, False
        self._tell(lambda membership: membership.adopted(task, gave_up))
        self._call_back(Rebalance(task.why, task.generation, assigned=new))

    async def _fetch_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int] | None:
        """Where the group has committed these; None if it went on without us, and a task says so.

        A KIP-848 member says who it is: who was put out without knowing it yet must not begin to read."""
        membership = self._membership
        assert membership is not None
        deadline_s = time.monotonic() + self._api_timeout
        while not self._is_moot():
            identity = membership.identity if membership.protocol == CONSUMER else None
            try:
                found = await fetch_committed(
                    self._coordinators, self.options.group_id, partitions, deadline_s, identity)
                return {where: committed.offset for where, committed in found.items()}
            except BrokerRefused as refused:
                if refused.code not in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.STALE_MEMBER_EPOCH):
                    raise
            await self._core.sleep(RETRY_S)
        return None

    def _lose(self, reader: Reader, task: Lost) -> None:
        lost = frozenset(self._fetcher.readings)
        self._drop(reader, lost)
        self._done()
        self._life = -1
        self._tell(lambda membership: membership.prepared(task.round, frozenset()))
        if lost:
            self._call_back(Rebalance(task.why, -1, lost=lost))

    def _go_classic(self, task: GoClassic) -> None:
        logger.info("group %s: going on in the classic protocol: %s", self.options.group_id, task.error)
        assert self._membership is not None
        options = replace(self.options, protocol=CLASSIC)
        membership = self._membership = make_membership(options, self._membership.topics)
        self._core.io.call(partial(self.session.join, membership))

    def _fail(self, reader: Reader, task: Failed) -> None:
        lost = frozenset(self._fetcher.readings)
        self._drop(reader, lost)
        if lost:
            self._call_back(Rebalance(str(task.error), -1, lost=lost))
        raise task.error  # and again whenever it is read: there is nothing to wait for

    async def _give_up(self, reader: Reader, revoked: frozenset[TopicPartition], why: str) -> None:
        """Commit, say so, drop."""
        if self._auto_commits:
            positions = reader.positions()
            await self._commit_quietly({where: positions[where] for where in revoked if where in positions})
        try:
            if revoked:
                membership = self._membership
                generation = membership.identity.generation if membership is not None else -1
                self._call_back(Rebalance(why, generation, revoked=revoked))
        finally:
            self._drop(reader, revoked)

    def _drop(self, reader: Reader, partitions: frozenset[TopicPartition]) -> None:
        reader.forget(partitions)
        readings = self._fetcher.readings
        self._paused |= {where for where in partitions if readings[where].paused}
        for where in partitions:
            self._committed.pop(where, None)
        self._fetcher.change(partitions, {})

    def _done(self) -> None:
        assert self._membership is not None
        self._membership.tasks.popleft()

    def _tell(self, change: Callable[[Membership], None]) -> None:
        membership = self._membership
        if membership is not None:
            self._core.io.call(partial(change, membership))

    def _call_back(self, event: Rebalance) -> None:
        logger.info("group %s: %s", self.options.group_id, event)
        if self._on_rebalance is not None:
            self._on_rebalance(event)

    # -- offsets ---------------------------------------------------------------------------------

    def _identity(self) -> Identity:
        """In whose name this consumer commits now. Raises CommitFailed if its membership is over."""
        membership = self._membership
        if membership is None:
            return NOBODY
        identity = membership.identity
        if identity.generation < 0 or identity.life != self._life:
            raise CommitFailed(
                f"this consumer is no member of group {self.options.group_id!r} now: poll, so that it joins; "
                f"records that were not committed come again, perhaps to another member")
        return identity

    async def commit(self, offsets: Offsets, timeout: float | None = None) -> None:
        """Have these offsets committed. Raises CommitFailed, BrokerRefused, RequestTimedOut."""
        deadline_s = time.monotonic() + (self._api_timeout if timeout is None else timeout)
        await self._settle_pending(deadline_s)
        if not offsets:
            return
        group_id, instance_id = self.options.group_id, self.options.instance_id
        left = dict(offsets)
        while left:
            identity = self._identity()
            request = commit_request(group_id, left, identity, instance_id if identity is not NOBODY else None)
            answer = await self._coordinators.ask(group_id, ApiKey.OFFSET_COMMIT, request, commit_errors, deadline_s)
            left = self._take_commit(answer, left)
            if left:
                await self._core.sleep(RETRY_S)

    def _take_commit(self, answer: Any, offsets: Offsets) -> dict[TopicPartition, OffsetAndMetadata]:
        """Note what is committed; returns what may be tried again. Raises CommitFailed, BrokerRefused."""
        again: dict[TopicPartition, OffsetAndMetadata] = {}
        for where, code in read_commit(answer).items():
            if code == ErrorCode.NONE:
                self._committed[where] = offsets[where].offset
            elif code in FENCED:
                # A cooperative member keeps partitions while its generation changes; then it commits in the new one.
                if code not in BEHIND or self._membership is None:
                    raise CommitFailed(
                        f"group {self.options.group_id!r} went on without this consumer ({error_name(code)}): "
                        f"what was not committed comes again, perhaps to another member")
                again[where] = offsets[where]
            else:
                raise BrokerRefused(f"{where.topic}-{where.partition} was not committed", code)
        return again

    def uncommitted(self, positions: Positions) -> dict[TopicPartition, OffsetAndMetadata]:
        """Those that differ from what was committed last: what was committed with metadata keeps it."""
        return {
            where: OffsetAndMetadata(offset) for where, offset in positions.items() if self._committed.get(where) != offset}

    async def _commit_quietly(self, positions: Positions) -> None:
        """Before partitions change hands: nobody is there who could do anything about an error."""
        try:
            await self.commit(self.uncommitted(positions))
        except ZafkaError as error:
            logger.warning("group %s: positions were not committed, records come again: %s", self.options.group_id, error)

    def _commit_by_the_way(self, positions: Positions) -> None:
        """Begin to commit; if that cannot be done now, the next time will do."""
        offsets = self.uncommitted(positions)
        if self._pending is not None or not offsets:
            return
        membership = self._membership
        broker = self._coordinators.known(self.options.group_id) if membership is None else membership.coordinator
        if broker >= 0:
            with suppress(CommitFailed):
                self._begin_commit(broker, offsets)

    async def commit_soon(self, offsets: Offsets) -> None:
        """Begin to commit without waiting for the end."""
        deadline_s = time.monotonic() + self._api_timeout
        await self._settle_pending(deadline_s)
        if offsets:
            self._begin_commit(await self._coordinators.find(self.options.group_id, deadline_s), offsets)

    def _begin_commit(self, broker: int, offsets: Offsets) -> None:
        identity = self._identity()
        instance_id = self.options.instance_id if identity is not NOBODY else None
        request = commit_request(self.options.group_id, offsets, identity, instance_id)
        timeout_s = self._core.settings.request_timeout
        answer = self._core.begin_ask(broker, ApiKey.OFFSET_COMMIT, request, timeout_s, repeat=False)
        self._pending = answer, offsets

    def _look_at_pending(self) -> None:
        """Note what became of a commit that nobody waited for."""
        if self._pending is None or not self._pending[0].done:
            return
        (answer, offsets), self._pending = self._pending, None
        if answer.error is not None:
            self._coordinators.forget(self.options.group_id)
            logger.info("group %s: not committed, later ones will be: %s", self.options.group_id, answer.error)
            return
        for where, code in read_commit(answer.message).items():
            if code == ErrorCode.NONE:
                self._committed[where] = offsets[where].offset
            else:
                self._coordinators.forget(self.options.group_id)
                logger.info("group %s: %s not committed: %s", self.options.group_id, where, error_name(code))

    async def _settle_pending(self, deadline_s: float) -> None:
        """Wait for the commit that is under way: a later one must not be overtaken by it."""
        if self._pending is not None:
            answer = self._pending[0]
            await until(self._core.changed, lambda: answer.done or self._core.ended or None, deadline_s)
            self._look_at_pending()

    async def committed(
        self, partitions: Collection[TopicPartition], timeout: float | None
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """What the group has committed for these."""
        limit_s = self._api_timeout if timeout is None else timeout
        found = await fetch_committed(self._coordinators, self.options.group_id, partitions, time.monotonic() + limit_s)
        return {where: found.get(where) for where in partitions}
