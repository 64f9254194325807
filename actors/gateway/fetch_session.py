"""Incremental fetch sessions (KIP-227): a fetcher names what has changed of its wishes, and is told what has changed.

Owns: `FetchSessions`, those of one broker; a session belongs to it and not to a connection. `Wanted`, one partition as
a fetcher wants it, in a session or not. Three kinds of fetch come out of `FetchSessions.begin`: `Sessionless`,
`FullFetch`, which tries to begin a session when it is answered, and `IncrementalFetch`, which goes on with one.
Pure: time comes in as an argument, ids from a generator that is passed in.
Invariants: no more sessions than `slots`, and no more than `PARTITIONS_MAX` partitions in all of them together, but for
what a single request adds. A fetcher that finds no room is answered session id 0 and goes on with full fetches.
Source: FetchManager, FetchContext, FetchSession, FetchSessionCacheShard. Followers have sessions of their own rank
there; there are none here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

from msgspec import Struct

from zafka.actors.gateway.leaders import TopicKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.fetch import (
    FetchableTopicResponse,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    PartitionData,
)

NO_SESSION = 0
INITIAL_EPOCH, FINAL_EPOCH = 0, -1  # of full fetches: begin a session, and do not
EPOCH_MAX = 2**31 - 1
SESSION_ID_MAX = 2**31 - 1

# Kafka's: how long a session is left alone, unused or young, when another one wants its place.
EVICTION_S = 120.0
PARTITIONS_MAX = 200_000
NAME_MAX = 249  # a topic whose name is longer cannot exist, and is not worth remembering

Key = tuple[TopicKey, int]
"""Topic and partition."""


class Wanted(Struct, gc=False):
    """One partition as a fetcher wants it, and what it was told of it last.

    topic: as its requests name it. name: the topic's, once it is known; an id keeps it even if the topic goes, so that
        one that is created anew under the name is told apart.
    high_watermark, log_start_offset: -1 if it was told none, or an error.
    """

    topic: TopicKey
    name: str | None
    asked: FetchPartition
    high_watermark: int = -1
    log_start_offset: int = -1

    def __repr__(self) -> str:
        return f"<Wanted {self.topic!r}-{self.asked.partition} offset={self.asked.fetch_offset}>"

    def is_news(self, answer: PartitionData) -> bool:
        """Whether the fetcher has to be told this; what it is told is remembered."""
        if (
            not answer.records and not answer.error_code and answer.diverging_epoch is None
            and answer.high_watermark == self.high_watermark and answer.log_start_offset == self.log_start_offset
        ):
            return False
        self.tell(answer)
        return True

    def tell(self, answer: PartitionData) -> None:
        # After an error it is told again how things are.
        self.high_watermark = -1 if answer.error_code else answer.high_watermark
        self.log_start_offset = answer.log_start_offset


def wanted_in(topics: Iterable[FetchTopic], *, by_id: bool) -> dict[Key, Wanted]:
    """The partitions of a request, each once: of several wishes for one, the last holds."""
    wanted: dict[Key, Wanted] = {}
    for topic in topics:
        key, name = keyed(topic, by_id=by_id)
        for asked in topic.partitions:
            wanted[key, asked.partition] = Wanted(key, name, asked)
    return wanted


def keyed(topic: FetchTopic, *, by_id: bool) -> tuple[TopicKey, str | None]:
    """What a request names this topic by, and its name if it says so."""
    return (topic.topic_id, None) if by_id else (topic.topic, topic.topic)


def grouped(wanted: Sequence[Wanted], answers: Iterable[PartitionData]) -> list[FetchableTopicResponse]:
    """The answers by topic, in their order; a topic whose partitions do not stand together comes more than once."""
    topics: list[FetchableTopicResponse] = []
    partitions: list[PartitionData] = []
    last: TopicKey | None = None
    for each, answer in zip(wanted, answers, strict=True):
        topic = each.topic
        if topic != last:
            last, partitions = topic, []
            topics.append(
                FetchableTopicResponse(topic=topic, partitions=partitions) if isinstance(topic, str)
                else FetchableTopicResponse(topic, partitions=partitions))
        partitions.append(answer)
    return topics


class Session:
    """partitions: what its fetcher wants, those first that were served the longest ago.

    epoch: of the request that is to come next. size: of `partitions`, as it was counted. used_s: when last.
    """

    __slots__ = ("by_id", "created_s", "epoch", "id", "partitions", "size", "used_s")

    def __init__(self, session_id: int, partitions: dict[Key, Wanted], *, by_id: bool, now_s: float) -> None:
        self.id = session_id
        self.partitions = partitions
        self.by_id = by_id
        self.created_s = self.used_s = now_s
        self.epoch = next_epoch(INITIAL_EPOCH)
        self.size = len(partitions)

    def __repr__(self) -> str:
        return f"<Session {self.id} epoch={self.epoch} partitions={len(self.partitions)}>"

    def update(self, request: FetchRequest) -> None:
        """What the fetcher wants from now on."""
        by_id, partitions = self.by_id, self.partitions
        for topic in request.topics:
            key, name = keyed(topic, by_id=by_id)
            for asked in topic.partitions:
                known = partitions.get((key, asked.partition))
                if known is None:
                    partitions[key, asked.partition] = Wanted(key, name, asked)
                else:
                    known.asked = asked
        for forgotten in request.forgotten_topics_data:
            for partition in forgotten.partitions:
                partitions.pop((forgotten.topic_id if by_id else forgotten.topic, partition), None)


def next_epoch(epoch: int) -> int:
    return 1 if epoch == EPOCH_MAX else epoch + 1


class Sessionless:
    """A fetch of these partitions and no more."""

    def __init__(self, wanted: Iterable[Wanted]) -> None:
        self.wanted = list(wanted)

    def finish(self, answers: Sequence[PartitionData], now_s: float) -> FetchResponse:
        """The answer. answers: one for each of `wanted`."""
        return FetchResponse(responses=grouped(self.wanted, answers))


class FullFetch(Sessionless):
    """A fetch of these partitions, and the beginning of a session if there is room when it is answered."""

    def __init__(self, sessions: FetchSessions, partitions: dict[Key, Wanted], *, by_id: bool) -> None:
        super().__init__(partitions.values())
        self._sessions = sessions
        self._partitions = partitions
        self._by_id = by_id

    def finish(self, answers: Sequence[PartitionData], now_s: float) -> FetchResponse:
        response = super().finish(answers, now_s)
        for wanted, answer in zip(self.wanted, answers, strict=True):
            wanted.tell(answer)
        response.session_id = self._sessions.create(self._partitions, by_id=self._by_id, now_s=now_s)
        return response


class IncrementalFetch:
    """A fetch of all that a session wants, which answers what has changed."""

    def __init__(self, session: Session) -> None:
        self.wanted = list(session.partitions.values())
        self._session = session
        self._epoch = session.epoch

    def finish(self, answers: Sequence[PartitionData], now_s: float) -> FetchResponse:
        session = self._session
        if session.epoch != self._epoch:
            # Its next request has come before this one was answered: the same one twice, or by two connections.
            return FetchResponse(error_code=ErrorCode.INVALID_FETCH_SESSION_EPOCH, session_id=session.id)
        told: list[Wanted] = []
        news: list[PartitionData] = []
        for wanted, answer in zip(self.wanted, answers, strict=True):
            if wanted.is_news(answer):
                told.append(wanted)
                news.append(answer)
                if answer.records:  # the others first, the next time
                    key = wanted.topic, wanted.asked.partition
                    session.partitions[key] = session.partitions.pop(key)
        return FetchResponse(session_id=session.id, responses=grouped(told, news))


AnyFetch = Sessionless | IncrementalFetch


class FetchSessions:
    """slots: how many sessions there may be. random: where their ids come from.

    An id must not be one that another broker, or this one before it was started again, has given: its fetcher would
    be served what somebody else wants.
    """

    def __init__(self, *, slots: int, random: Random) -> None:
        self.slots = slots
        self._random = random
        self._by_id: dict[int, Session] = {}  # the one that was used longest ago first
        self._partitions = 0  # of all of them

    def __len__(self) -> int:
        return len(self._by_id)

    def __repr__(self) -> str:
        return f"<FetchSessions {len(self._by_id)} of {self.slots} partitions={self._partitions}>"

    def begin(self, request: FetchRequest, *, by_id: bool, now_s: float) -> AnyFetch | ErrorCode:
        """What a request asks for, or the error that answers it."""
        if request.session_epoch not in (INITIAL_EPOCH, FINAL_EPOCH):
            return self._go_on(request, by_id=by_id, now_s=now_s)
        if request.session_id != NO_SESSION:
            self._remove(self._by_id.get(request.session_id))
        wanted = wanted_in(request.topics, by_id=by_id)
        if request.session_epoch == FINAL_EPOCH or not is_worth_remembering(request.topics):
            return Sessionless(wanted.values())
        return FullFetch(self, wanted, by_id=by_id)

    def _go_on(self, request: FetchRequest, *, by_id: bool, now_s: float) -> AnyFetch | ErrorCode:
        session = self._by_id.get(request.session_id)
        if session is None:
            return ErrorCode.FETCH_SESSION_ID_NOT_FOUND
        if session.epoch != request.session_epoch:
            return ErrorCode.INVALID_FETCH_SESSION_EPOCH
        if session.by_id != by_id:
            return ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR
        if not is_worth_remembering(request.topics):
            self._remove(session)
            return ErrorCode.FETCH_SESSION_ID_NOT_FOUND
        session.update(request)
        if not session.partitions:
            self._remove(session)
            return Sessionless(wanted_in(request.topics, by_id=by_id).values())
        self._touch(session, now_s)
        if self._partitions > PARTITIONS_MAX:
            self._remove(session)
            return ErrorCode.FETCH_SESSION_ID_NOT_FOUND
        session.epoch = next_epoch(session.epoch)
        return IncrementalFetch(session)

    def find(self, request: FetchRequest, *, by_id: bool) -> Session | None:
        """The session that this request would go on with. Changes nothing."""
        session = self._by_id.get(request.session_id)
        if session is None or session.epoch != request.session_epoch or session.by_id != by_id:
            return None
        return session

    def create(self, partitions: dict[Key, Wanted], *, by_id: bool, now_s: float) -> int:
        """Begin a session if there is room; returns its id, or NO_SESSION."""
        if not self._make_room(len(partitions), now_s):
            return NO_SESSION
        session_id = self._random.randint(1, SESSION_ID_MAX)
        while session_id in self._by_id:
            session_id = self._random.randint(1, SESSION_ID_MAX)
        session = self._by_id[session_id] = Session(session_id, partitions, by_id=by_id, now_s=now_s)
        self._partitions += session.size
        return session_id

    def _make_room(self, size: int, now_s: float) -> bool:
        """See to it that one more session fits, if that may be: stale ones go, then a smaller one that had its time."""
        while True:
            crowded = self._partitions + size > PARTITIONS_MAX
            if len(self._by_id) < self.slots and not crowded:
                return True
            oldest = next(iter(self._by_id.values()), None)
            if oldest is None:
                return False
            if now_s - oldest.used_s > EVICTION_S:
                self._remove(oldest)
                continue
            evictable = [each for each in self._by_id.values() if each.used_s - each.created_s > EVICTION_S]
            smallest = min(evictable, key=lambda each: (each.size, each.id), default=None)
            if crowded or smallest is None or size <= smallest.size:
                return False
            self._remove(smallest)

    def _touch(self, session: Session, now_s: float) -> None:
        self._by_id[session.id] = self._by_id.pop(session.id)
        session.used_s = now_s
        self._partitions += len(session.partitions) - session.size
        session.size = len(session.partitions)

    def _remove(self, session: Session | None) -> None:
        if session is not None:
            del self._by_id[session.id]
            self._partitions -= session.size


def is_worth_remembering(topics: Iterable[FetchTopic]) -> bool:
    """False if a topic's name is too long for any topic: what is remembered is to be bounded."""
    return all(len(topic.topic) <= NAME_MAX for topic in topics)
