"""A member of a group, sans-IO: answers, time and what the reader did come in; requests and tasks for the reader go out.

Owns: `Membership`: coordinator, member id, generation; whether to join, to sync, to heartbeat or to leave.
Whoever sends is `group_session.py`, in the I/O thread; whoever reads, `membership.py`, in the user's. The reader is asked
before partitions change hands: it finishes what it has (`Prepare`), and says so (`prepared`). Pure but for its own state.
Invariants: at most one request is under way; nobody joins anew before its reader gave up what the group takes away; after
`Lost` nothing is committed in the name of the life before (`Identity.life`).
Source: KIP-394 (member ids), KIP-345 (static members), KIP-429 (cooperative), KIP-62 (heartbeats beside the reader), KIP-814.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from zafka.client.assignors import ASSIGNORS
from zafka.client.errors import BrokerRefused, NotSupportedYet, ZafkaError, is_retriable
from zafka.client.group_protocol import (
    CONSUMER,
    NO_GENERATION,
    BadGroupBytes,
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from zafka.client.records import TopicPartition
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import (
    FindCoordinatorRequest,
    HeartbeatRequest,
    JoinGroupRequest,
    JoinGroupResponse,
    LeaveGroupRequest,
    SyncGroupRequest,
    SyncGroupResponse,
)
from zafka.transport.kafka.messages.join_group import JoinGroupRequestProtocol
from zafka.transport.kafka.messages.leave_group import MemberIdentity
from zafka.transport.kafka.messages.sync_group import SyncGroupRequestAssignment

RETRY_S = 0.1
JOIN_MARGIN_S = 5.0  # beyond the time that the group waits for its members
TOPICS_PATIENCE_S = 5.0  # how long a leader waits to hear of topics that others read
NEVER = float("inf")
OTHERS = "the group shares its partitions anew: a member joined, left, timed out or reads other topics"

COORDINATOR_ERRORS = frozenset((
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.NOT_COORDINATOR))


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """strategies: names of assignors, the preferred one first. Seconds."""

    group_id: str
    instance_id: str | None = None
    strategies: tuple[str, ...] = ("range",)
    session_timeout: float = 45.0
    heartbeat_interval: float = 3.0
    max_poll_interval: float = 300.0
    request_timeout: float = 30.0

    @property
    def cooperative(self) -> bool:
        """A member keeps what it has only if whatever the group agrees on lets it."""
        return all(ASSIGNORS[name].cooperative for name in self.strategies)


class Identity(NamedTuple):
    """In whose name offsets are committed. life: another one after each loss of membership."""

    member_id: str
    generation: int
    life: int


class Request(NamedTuple):
    api_key: ApiKey
    message: Any
    timeout_s: float


class Prepare(NamedTuple):
    """Finish what you have and give up what must be given up, then call `prepared` with this round."""

    round: int
    why: str


class Adopt(NamedTuple):
    """Read exactly these from now on."""

    partitions: frozenset[TopicPartition]
    generation: int
    life: int
    why: str


class Lost(NamedTuple):
    """All you have belongs to somebody else already; then call `prepared` with this round."""

    round: int
    why: str


class Failed(NamedTuple):
    """There is no going on in this group."""

    error: ZafkaError


Task = Prepare | Adopt | Lost | Failed


class Phase(Enum):
    WAITING = "waiting for the reader"
    JOINING = "joining"
    ASSIGNING = "waiting to hear of topics"
    SYNCING = "syncing"
    STABLE = "stable"
    LEAVING = "leaving"
    OVER = "over"


class Membership:
    """See the module. topics: what the reader wants."""

    def __init__(self, options: GroupOptions, topics: tuple[str, ...], now_s: float) -> None:
        self.options = options
        self.topics = topics
        self.phase = Phase.JOINING
        self.coordinator = -1
        self.identity = Identity("", NO_GENERATION, 0)
        self.tasks: deque[Task] = deque()
        self.wanted_topics: set[str] = set(topics)  # whose partition counts `on_topics` shall tell
        self.joins = 0  # generations that this member took part in
        self._owned: frozenset[TopicPartition] = frozenset()  # what the reader may have
        self._owned_since = NO_GENERATION
        self._why = "this consumer joined"
        self._round = 0
        self._in_flight: Request | None = None
        self._retry_at_s = 0.0
        self._heartbeat_at_s = NEVER
        self._polled_s = now_s
        self._protocol: str | None = None
        self._members: dict[str, Subscription] = {}  # of the generation, if this member leads it
        self._assignments: list[SyncGroupRequestAssignment] = []
        self._assign_by_s = NEVER
        self._assigned_with: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._leave_member_id = ""  # who still is to be signed off after its time was up

    def __repr__(self) -> str:
        return f"<Membership {self.options.group_id} {self.phase.value} {self.identity}>"

    # -- the reader ------------------------------------------------------------------------------

    def prepared(self, round_: int, owned: frozenset[TopicPartition]) -> None:
        """The reader has done a Prepare or a Lost, and still has `owned`."""
        if self.phase is Phase.WAITING and round_ == self._round:
            self._owned = owned
            self.phase = Phase.JOINING

    def rejoin(self, owned: frozenset[TopicPartition], why: str) -> None:
        """The reader gave up partitions that now may go to others: share anew."""
        if self.phase is Phase.STABLE:
            self._owned, self._why = owned, why
            self.phase = Phase.JOINING

    def polled(self, now_s: float) -> None:
        """The reader is alive."""
        self._polled_s = now_s

    def leave(self) -> None:
        """Sign off, if the coordinator knows us; static members only stay away, and have their session to come back."""
        self._in_flight = None
        is_known = self.identity.member_id and self.options.instance_id is None
        self.phase = Phase.LEAVING if is_known and self.phase is not Phase.OVER else Phase.OVER

    # -- time ------------------------------------------------------------------------------------

    def on_topics(self, counts: Mapping[str, int], now_s: float) -> None:
        """Partition counts of the wanted topics that exist, as of now."""
        self._counts = {topic: count for topic, count in counts.items() if topic in self.wanted_topics}
        if self.phase is Phase.ASSIGNING:
            self._assign_if_known(now_s)
        elif self.phase is Phase.STABLE and self._members and self._counts != self._assigned_with:
            known = {*self._counts, *self._assigned_with}
            changed = sorted(topic for topic in known if self._counts.get(topic) != self._assigned_with.get(topic))
            text = ", ".join(f"{topic} has {self._counts.get(topic, 0)} partitions now" for topic in changed)
            self._prepare(f"topics changed: {text}")

    def next_request(self, now_s: float) -> Request | None:
        """What to send now, if anything. `on_answer` must follow."""
        if self.phase is Phase.OVER:
            return None
        self._look_at_reader(now_s)
        if self.phase is Phase.ASSIGNING:
            self._assign_if_known(now_s)
        if self._in_flight is not None or now_s < self._retry_at_s:
            return None
        request = self._due(now_s)
        if request is not None and self.coordinator < 0:
            message = FindCoordinatorRequest(key=self.options.group_id, coordinator_keys=[self.options.group_id])
            request = Request(ApiKey.FIND_COORDINATOR, message, self.options.request_timeout)
        self._in_flight = request
        return request

    def awaits(self, request: Request) -> bool:
        """False once an answer to it is of no use any more."""
        return self._in_flight is request

    def wake_at(self) -> float:
        """When to ask for the next request at the latest."""
        if self.phase is Phase.OVER:
            return NEVER
        wake_s = self._polled_s + self.options.max_poll_interval if self.identity.generation >= 0 else NEVER
        if self._in_flight is not None:
            return wake_s
        if self.phase in (Phase.JOINING, Phase.SYNCING, Phase.LEAVING) or self._leave_member_id:
            return min(wake_s, self._retry_at_s)
        return min(wake_s, self._assign_by_s, max(self._heartbeat_at_s, self._retry_at_s))

    def _look_at_reader(self, now_s: float) -> None:
        limit_s = self.options.max_poll_interval
        if self.identity.generation >= 0 and now_s >= self._polled_s + limit_s and self.phase is not Phase.LEAVING:
            if self.options.instance_id is None:
                self._leave_member_id = self.identity.member_id
            self._in_flight = None  # a Join that waits for others is of no use any more
            self._lose(f"nothing was read for max_poll_interval={limit_s:g} s", member_id="", must_wait=True)
            self._polled_s = now_s

    def _due(self, now_s: float) -> Request | None:
        if self._leave_member_id:
            return self._leave_request(self._leave_member_id)
        if self.phase is Phase.JOINING:
            return self._join_request()
        if self.phase is Phase.SYNCING:
            return self._sync_request()
        if self.phase is Phase.LEAVING:
            return self._leave_request(self.identity.member_id)
        if self.identity.generation >= 0 and now_s >= self._heartbeat_at_s:
            message = HeartbeatRequest(
                self.options.group_id, self.identity.generation, self.identity.member_id, self.options.instance_id)
            return Request(ApiKey.HEARTBEAT, message, min(self.options.request_timeout, self.options.session_timeout))
        return None

    # -- requests --------------------------------------------------------------------------------

    def _join_request(self) -> Request:
        options = self.options
        subscription = Subscription(self.topics, self._owned, self._owned_since)
        protocols = [
            JoinGroupRequestProtocol(
                name, encode_subscription(subscription, sticky_user_data=ASSIGNORS[name].sticky_user_data))
            for name in options.strategies]
        message = JoinGroupRequest(
            group_id=options.group_id,
            session_timeout_ms=int(options.session_timeout * 1000),
            rebalance_timeout_ms=int(options.max_poll_interval * 1000),
            member_id=self.identity.member_id,
            group_instance_id=options.instance_id,
            protocol_type=CONSUMER,
            protocols=protocols,
            reason=self._why,
        )
        return Request(ApiKey.JOIN_GROUP, message, options.max_poll_interval + JOIN_MARGIN_S)

    def _sync_request(self) -> Request:
        message = SyncGroupRequest(
            group_id=self.options.group_id,
            generation_id=self.identity.generation,
            member_id=self.identity.member_id,
            group_instance_id=self.options.instance_id,
            protocol_type=CONSUMER,
            protocol_name=self._protocol,
            assignments=self._assignments,
        )
        return Request(ApiKey.SYNC_GROUP, message, self.options.max_poll_interval + JOIN_MARGIN_S)

    def _leave_request(self, member_id: str) -> Request:
        member = MemberIdentity(member_id, None, "the consumer is closed" if self.phase is Phase.LEAVING else "too slow")
        message = LeaveGroupRequest(self.options.group_id, [member], member_id)
        return Request(ApiKey.LEAVE_GROUP, message, self.options.request_timeout)

    # -- answers ---------------------------------------------------------------------------------

    def on_answer(self, request: Request, answer: Any, error: ZafkaError | None, now_s: float) -> None:
        """What became of a request: its answer, or the error that there was instead."""
        if request is not self._in_flight:
            return  # given up since
        self._in_flight = None
        api_key = request.api_key
        if api_key is ApiKey.LEAVE_GROUP:
            self._on_left()
        elif answer is None:
            self.coordinator = -1
            self._retry_at_s = now_s + RETRY_S
            if isinstance(error, NotSupportedYet):
                self._fail(error)
        elif api_key is ApiKey.FIND_COORDINATOR:
            self._on_found(answer, now_s)
        elif answer.error_code in COORDINATOR_ERRORS:
            self._retry_at_s = now_s + RETRY_S
            if answer.error_code != ErrorCode.COORDINATOR_LOAD_IN_PROGRESS:
                self.coordinator = -1
            if api_key is ApiKey.SYNC_GROUP:
                self.phase = Phase.JOINING
        elif api_key is ApiKey.JOIN_GROUP:
            self._on_joined(answer, now_s)
        elif api_key is ApiKey.SYNC_GROUP:
            self._on_synced(answer, now_s)
        else:
            self._on_heartbeat(answer.error_code, now_s)

    def _on_left(self) -> None:
        self._leave_member_id = ""  # whatever the answer was: the session's end does the rest
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

    def _on_joined(self, answer: JoinGroupResponse, now_s: float) -> None:
        code = answer.error_code
        if code == ErrorCode.MEMBER_ID_REQUIRED:
            self.identity = self.identity._replace(member_id=answer.member_id)
        elif code:
            self._on_refused("JoinGroup", code, now_s)
        else:
            self.identity = self.identity._replace(member_id=answer.member_id, generation=answer.generation_id)
            self._protocol = answer.protocol_name
            self._heartbeat_at_s = now_s + self.options.heartbeat_interval
            self._assignments = []
            self.phase = Phase.SYNCING
            leads = answer.leader == answer.member_id
            before, self._members = self._members, {}
            if leads:
                self._lead(answer, before, now_s)

    def _lead(self, answer: JoinGroupResponse, before: dict[str, Subscription], now_s: float) -> None:
        sticky = self._protocol in ASSIGNORS and ASSIGNORS[self._protocol].sticky_user_data
        try:
            self._members = {
                each.member_id: decode_subscription(each.metadata, each.group_instance_id, sticky_user_data=sticky)
                for each in answer.members}
        except BadGroupBytes as error:
            self._fail(error)
            return
        if before and self.identity.member_id in before:
            self._why = _what_changed(before, self._members) or self._why
        self.wanted_topics = {*self.topics, *(topic for member in self._members.values() for topic in member.topics)}
        if not answer.skip_assignment:
            self.phase = Phase.ASSIGNING
            self._assign_by_s = now_s + TOPICS_PATIENCE_S
            self._assign_if_known(now_s)
        else:
            self._assigned_with = {topic: self._counts[topic] for topic in self.wanted_topics if topic in self._counts}

    def _assign_if_known(self, now_s: float) -> None:
        if not self._counts.keys() >= self.wanted_topics and now_s < self._assign_by_s:
            return
        self._assign_by_s = NEVER
        self._assigned_with = dict(self._counts)
        assignor = ASSIGNORS[self._protocol or ""]
        assigned = assignor.assign(self._members, self._counts)
        self._assignments = [
            SyncGroupRequestAssignment(member, encode_assignment(where)) for member, where in assigned.items()]
        self.phase = Phase.SYNCING

    def _on_synced(self, answer: SyncGroupResponse, now_s: float) -> None:
        if answer.error_code:
            self._on_refused("SyncGroup", answer.error_code, now_s)
            return
        try:
            assigned = decode_assignment(answer.assignment)
        except BadGroupBytes as error:
            self._fail(error)
            return
        self.phase = Phase.STABLE
        self.joins += 1
        self._owned, self._owned_since = assigned, self.identity.generation
        self._heartbeat_at_s = now_s + self.options.heartbeat_interval
        self.tasks.append(Adopt(assigned, self.identity.generation, self.identity.life, self._why))

    def _on_heartbeat(self, code: int, now_s: float) -> None:
        self._heartbeat_at_s = now_s + self.options.heartbeat_interval
        if code == ErrorCode.REBALANCE_IN_PROGRESS:
            if self.phase is Phase.STABLE:
                self._prepare(OTHERS)
        elif code:
            self._on_refused("Heartbeat", code, now_s)

    def _on_refused(self, what: str, code: int, now_s: float) -> None:
        if code == ErrorCode.REBALANCE_IN_PROGRESS:
            self.phase = Phase.JOINING
            self._retry_at_s = now_s + RETRY_S / 10
        elif code == ErrorCode.UNKNOWN_MEMBER_ID:
            self._lose("the coordinator does not know this member: its session timed out, or it was removed", member_id="")
        elif code == ErrorCode.ILLEGAL_GENERATION:
            self._lose("the group went on without this member", member_id=self.identity.member_id)
        elif is_retriable(code):
            self._retry_at_s = now_s + RETRY_S
        elif code == ErrorCode.FENCED_INSTANCE_ID:
            text = f"another consumer took group_instance_id={self.options.instance_id!r}"
            self._fail(BrokerRefused(f"{what} in group {self.options.group_id!r}", code, text))
        else:
            self._fail(BrokerRefused(f"{what} in group {self.options.group_id!r}", code))

    # -- changes of hands ------------------------------------------------------------------------

    def _prepare(self, why: str) -> None:
        self._why = why
        self._round += 1
        self.phase = Phase.WAITING
        self.tasks.append(Prepare(self._round, why))

    def _lose(self, why: str, *, member_id: str, must_wait: bool = False) -> None:
        """What the reader has is another's. It joins anew at once if there is nothing to give up."""
        self._why = why
        if self.phase is Phase.LEAVING:
            return
        self.identity = Identity(member_id, NO_GENERATION, self.identity.life + 1)
        self._heartbeat_at_s = self._assign_by_s = NEVER
        self._members = {}
        if self._owned or must_wait or self.phase is Phase.WAITING:
            self._round += 1
            self.phase = Phase.WAITING
            self.tasks.append(Lost(self._round, why))
        else:
            self.phase = Phase.JOINING
        self._owned, self._owned_since = frozenset(), NO_GENERATION

    def _fail(self, error: ZafkaError) -> None:
        self.phase = Phase.OVER
        self.identity = Identity("", NO_GENERATION, self.identity.life + 1)
        self.tasks.append(Failed(error))


def _what_changed(before: Mapping[str, Subscription], after: Mapping[str, Subscription]) -> str:
    """Who came, who went and who reads other topics, as far as a leader of both generations sees it."""
    parts = []
    if came := sorted(after.keys() - before.keys()):
        parts.append(f"joined: {', '.join(came)}")
    if gone := sorted(before.keys() - after.keys()):
        parts.append(f"left or timed out: {', '.join(gone)}")
    other = sorted(member for member in after.keys() & before.keys() if after[member].topics != before[member].topics)
    if other:
        parts.append(f"read other topics: {', '.join(other)}")
    return "; ".join(parts)
