"""What a member of a group is, sans-IO: answers, time and what the reader did come in; requests and tasks for the reader go out.

Owns: the words in which members, session and reader talk, and `Membership`: what is the same in both protocols. What a
member says is in `group_classic.py` (all members are gathered, one of them shares) and `group_consumer.py` (KIP-848: each
says what it has by heartbeats, the broker shares).
Whoever sends is `group_session.py`, in the I/O thread; whoever reads, `membership.py`, in the user's. The reader is asked
before partitions change hands: it does a task, and says so. Pure but for its own state.
Invariants: at most one request is under way; nobody joins anew before its reader gave up what the group takes away; after
`Lost` nothing is committed in the name of the life before (`Identity.life`).
Source: KIP-62 (heartbeats beside the reader), KIP-345 (static members), KIP-848.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, NamedTuple

from zafka.client.assignors import ASSIGNORS
from zafka.client.errors import BrokerRefused, NotSupportedYet, ZafkaError, is_retriable
from zafka.client.group_protocol import NO_GENERATION
from zafka.client.records import TopicPartition
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import FindCoordinatorRequest
from zafka.transport.kafka.types import ZERO_UUID

CLASSIC, CONSUMER = "classic", "consumer"  # as `group.protocol` has it
RETRY_S = 0.1
NEVER = float("inf")
JOINED = "this consumer joined"
TOO_SLOW, CLOSED = "too slow", "the consumer is closed"

COORDINATOR_ERRORS = frozenset((
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.NOT_COORDINATOR))


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """protocol: None for KIP-848's where the group's broker takes such a member, else the classic one. Seconds.

    strategies: names of assignors of the classic protocol, the preferred one first. remote_assignor: the broker's, None
    leaves it to the broker.
    """

    group_id: str
    instance_id: str | None = None
    strategies: tuple[str, ...] = ("range",)
    session_timeout: float = 45.0
    heartbeat_interval: float = 3.0
    max_poll_interval: float = 300.0
    request_timeout: float = 30.0
    protocol: str | None = CLASSIC
    remote_assignor: str | None = None
    rack: str | None = None

    @property
    def cooperative(self) -> bool:
        """A classic member keeps what it has only if whatever the group agrees on lets it."""
        return all(ASSIGNORS[name].cooperative for name in self.strategies)


class KnownTopic(NamedTuple):
    """A topic that exists, as far as sharing goes."""

    partitions: int
    topic_id: bytes = ZERO_UUID


class Identity(NamedTuple):
    """In whose name offsets are committed. generation: KIP-848's member epoch. life: another one after each loss of membership."""

    member_id: str
    generation: int
    life: int


class Request(NamedTuple):
    """is_leave: whatever its answer is, nothing more can be done."""

    api_key: ApiKey
    message: Any
    timeout_s: float
    is_leave: bool = False


class Prepare(NamedTuple):
    """Finish what you have and give up what must be given up, then call `prepared` with this round."""

    round: int
    why: str


class Adopt(NamedTuple):
    """Read exactly these from now on, then call `adopted` with this task."""

    partitions: frozenset[TopicPartition]
    generation: int
    life: int
    why: str


class Lost(NamedTuple):
    """All you have belongs to somebody else already; then call `prepared` with this round."""

    round: int
    why: str


class GoClassic(NamedTuple):
    """The broker does not take a member of KIP-848's protocol: be one of the classic protocol."""

    error: ZafkaError


class Failed(NamedTuple):
    """There is no going on in this group."""

    error: ZafkaError


Task = Prepare | Adopt | Lost | GoClassic | Failed


class Phase(Enum):
    WAITING = "waiting for the reader"
    JOINING = "joining"
    ASSIGNING = "waiting to hear of topics"
    SYNCING = "syncing"
    STABLE = "stable"
    LEAVING = "leaving"
    OVER = "over"


class Membership(ABC):
    """See the module. topics: what the reader wants."""

    protocol: ClassVar[str]

    def __init__(self, options: GroupOptions, topics: tuple[str, ...], now_s: float, member_id: str = "") -> None:
        self.options = options
        self.topics = topics
        self.phase = Phase.JOINING
        self.coordinator = -1
        self.identity = Identity(member_id, NO_GENERATION, 0)
        self.tasks: deque[Task] = deque()
        self.wanted_topics: set[str] = set(topics)  # of which `on_topics` shall tell
        self.unknown_topics: frozenset[bytes] = frozenset()  # ids of what it is to read, of which `on_names` shall tell
        self.joins = 0  # generations that this member took part in
        self._owned: frozenset[TopicPartition] = frozenset()  # what the reader may have
        self._why = JOINED
        self._round = 0
        self._in_flight: Request | None = None
        self._retry_at_s = 0.0
        self._heartbeat_at_s = NEVER
        self._polled_s = now_s
        self._sign_off: Request | None = None  # that this member goes, or went because its time was up

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.options.group_id} {self.phase.value} {self.identity}>"

    # -- what a protocol decides -----------------------------------------------------------------

    @abstractmethod
    def adopted(self, task: Adopt, gave_up: bool) -> None:
        """The reader has done an Adopt. gave_up: partitions that now may go to others."""

    @abstractmethod
    def on_topics(self, topics: Mapping[str, KnownTopic], now_s: float) -> None:
        """The wanted topics that exist, as of now."""

    @abstractmethod
    def on_names(self, names: Mapping[bytes, str]) -> None:
        """Of the unknown topics, as far as they exist."""

    @abstractmethod
    def _due(self, now_s: float) -> Request | None:
        """What is to be said to the coordinator now, but for signing off."""

    @abstractmethod
    def _due_at(self) -> float:
        """When there is something to be said; 0.0 for now."""

    @abstractmethod
    def _leave_request(self, why: str) -> Request | None:
        """How to sign off, if the coordinator may know us and should be told."""

    @abstractmethod
    def _take(self, request: Request, answer: Any, now_s: float) -> None:
        """An answer of the coordinator, an error of a member's at worst."""

    @abstractmethod
    def _on_unserved(self, request: Request, *, was_answered: bool) -> None:
        """Whoever was asked coordinates nothing, or it is not known what became of the request."""

    @abstractmethod
    def _forget(self) -> None:
        """Nothing of the membership that is lost counts any more."""

    def _refuse_protocol(self, error: ZafkaError) -> None:
        """The broker does not know what we speak."""
        self._fail(error)

    # -- the reader ------------------------------------------------------------------------------

    def prepared(self, round_: int, owned: frozenset[TopicPartition]) -> None:
        """The reader has done a Prepare or a Lost, and still has `owned`."""
        if self.phase is Phase.WAITING and round_ == self._round:
            self._owned = owned
            self.phase = Phase.JOINING

    def polled(self, now_s: float) -> None:
        """The reader is alive."""
        self._polled_s = now_s

    def leave(self) -> None:
        """Sign off, if the coordinator knows us."""
        self._in_flight = None
        if self.phase is not Phase.OVER:
            self._sign_off = self._leave_request(CLOSED) or self._sign_off
            self.phase = Phase.LEAVING if self._sign_off is not None else Phase.OVER

    # -- time ------------------------------------------------------------------------------------

    def next_request(self, now_s: float) -> Request | None:
        """What to send now, if anything. `on_answer` must follow."""
        if self.phase is Phase.OVER:
            return None
        self._look_at_reader(now_s)
        if self._in_flight is not None or now_s < self._retry_at_s:
            return None
        request = self._sign_off or self._due(now_s)
        if request is not None and self.coordinator < 0:
            message = FindCoordinatorRequest(key=self.options.group_id, coordinator_keys=[self.options.group_id])
            request = Request(ApiKey.FIND_COORDINATOR, message, self.options.request_timeout)
        self._in_flight = request
        return request

    def awaits(self, request: Request) -> bool:
        """False once an answer to it is of no use any more."""
        return self._in_flight is request

    def wake_at(self) -> float:
        """When to ask for the next request at the latest, unless it is over."""
        wake_s = self._polled_s + self.options.max_poll_interval if self.identity.generation >= 0 else NEVER
        if self._in_flight is not None:
            return wake_s
        due_s = 0.0 if self._sign_off is not None else self._due_at()
        return min(wake_s, max(due_s, self._retry_at_s))

    def _look_at_reader(self, now_s: float) -> None:
        limit_s = self.options.max_poll_interval
        if self.identity.generation >= 0 and now_s >= self._polled_s + limit_s and self.phase is not Phase.LEAVING:
            self._sign_off = self._leave_request(TOO_SLOW)
            self._in_flight = None  # a Join that waits for others is of no use any more
            self._lose(f"nothing was read for max_poll_interval={limit_s:g} s", must_wait=True)

    # -- answers ---------------------------------------------------------------------------------

    def on_answer(self, request: Request, answer: Any, error: ZafkaError | None, now_s: float) -> None:
        """What became of a request: its answer, or the error that there was instead."""
        if request is not self._in_flight:
            return  # given up since
        self._in_flight = None
        if request.is_leave:
            self._on_left()
        elif answer is None:
            self.coordinator = -1
            self._retry_at_s = now_s + RETRY_S
            self._on_unserved(request, was_answered=False)
            if isinstance(error, NotSupportedYet):
                self._refuse_protocol(error)
        elif request.api_key is ApiKey.FIND_COORDINATOR:
            self._on_found(answer, now_s)
        elif answer.error_code in COORDINATOR_ERRORS:
            self._retry_at_s = now_s + RETRY_S
            if answer.error_code != ErrorCode.COORDINATOR_LOAD_IN_PROGRESS:
                self.coordinator = -1
            self._on_unserved(request, was_answered=True)
        else:
            self._take(request, answer, now_s)

    def _on_left(self) -> None:
        self._sign_off = None  # whatever the answer was: the session's end does the rest
        if self.phase is Phase.LEAVING:
            self.phase = Phase.OVER

    def _on_found(self, answer: Any, now_s: float) -> None:
        found = answer.coordinators[0] if answer.coordinators else answer
        if not found.error_code:
            self.coordinator = found.node_id
        elif is_retriable(found.error_code):
            self._retry_at_s = now_s + RETRY_S
        else:
            self._fail(BrokerRefused(f"group {self.options.group_id!r}", found.error_code, found.error_message or None))

    # -- changes of hands ------------------------------------------------------------------------

    def _lose(self, why: str, *, member_id: str | None = None, must_wait: bool = False) -> None:
        """What the reader has is another's. It joins anew at once if there is nothing to give up.

        member_id: under which it comes back, None for the same."""
        self._why = why
        if self.phase is Phase.LEAVING:
            return
        known = self.identity
        self.identity = Identity(known.member_id if member_id is None else member_id, NO_GENERATION, known.life + 1)
        self._heartbeat_at_s = NEVER
        if self._owned or must_wait or self.phase is Phase.WAITING:
            self._round += 1
            self.phase = Phase.WAITING
            self.tasks.append(Lost(self._round, why))
        else:
            self.phase = Phase.JOINING
        self._owned = frozenset()
        self._forget()

    def _fail(self, error: ZafkaError) -> None:
        self._end(Failed(error))

    def _end(self, task: GoClassic | Failed) -> None:
        self.phase = Phase.OVER
        self.identity = Identity("", NO_GENERATION, self.identity.life + 1)
        self.tasks.append(task)
