"""A member of a classic group: all members are gathered, the one who leads shares, and all are told.

Owns: `ClassicMembership`: whether to join, to sync, to heartbeat or to leave; what a leader makes of its members. The
reader finishes what it has (`Prepare`) before this member joins anew. Pure but for its own state.
Source: KIP-394 (member ids), KIP-345 (static members), KIP-429 (cooperative), KIP-814.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zafka.client.assignors import ASSIGNORS
from zafka.client.errors import BrokerRefused, is_retriable
from zafka.client.group import (
    CLASSIC,
    NEVER,
    RETRY_S,
    Adopt,
    GroupOptions,
    KnownTopic,
    Membership,
    Phase,
    Prepare,
    Request,
)
from zafka.client.group_protocol import (
    CONSUMER as PROTOCOL_TYPE,
    NO_GENERATION,
    BadGroupBytes,
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import (
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

JOIN_MARGIN_S = 5.0  # beyond the time that the group waits for its members
TOPICS_PATIENCE_S = 5.0  # how long a leader waits to hear of topics that others read
OTHERS = "the group shares its partitions anew: a member joined, left, timed out or reads other topics"
GAVE_UP = "partitions were given up for others"


class ClassicMembership(Membership):
    """See the module."""

    protocol = CLASSIC

    def __init__(self, options: GroupOptions, topics: tuple[str, ...], now_s: float) -> None:
        super().__init__(options, topics, now_s)
        self._owned_since = NO_GENERATION
        self._protocol: str | None = None  # the assignor that the group agreed on
        self._members: dict[str, Subscription] = {}  # of the generation, if this member leads it
        self._assignments: list[SyncGroupRequestAssignment] = []
        self._assign_by_s = NEVER
        self._assigned_with: dict[str, int] = {}
        self._counts: dict[str, int] = {}

    # -- the reader ------------------------------------------------------------------------------

    def adopted(self, task: Adopt, gave_up: bool) -> None:
        """What was given up is shared anew at once."""
        if gave_up and self.phase is Phase.STABLE:
            self._why = GAVE_UP
            self.phase = Phase.JOINING

    # -- time ------------------------------------------------------------------------------------

    def on_topics(self, topics: Mapping[str, KnownTopic], now_s: float) -> None:
        self._counts = {name: topic.partitions for name, topic in topics.items() if name in self.wanted_topics}
        if self.phase is Phase.ASSIGNING:
            self._assign_if_known(now_s)
        elif self.phase is Phase.STABLE and self._members and self._counts != self._assigned_with:
            known = {*self._counts, *self._assigned_with}
            changed = sorted(topic for topic in known if self._counts.get(topic) != self._assigned_with.get(topic))
            text = ", ".join(f"{topic} has {self._counts.get(topic, 0)} partitions now" for topic in changed)
            self._prepare(f"topics changed: {text}")

    def on_names(self, names: Mapping[bytes, str]) -> None:
        """It is told names only."""

    def _due_at(self) -> float:
        if self.phase in (Phase.JOINING, Phase.SYNCING):
            return 0.0
        return min(self._assign_by_s, self._heartbeat_at_s)

    def _due(self, now_s: float) -> Request | None:
        if self.phase is Phase.ASSIGNING:
            self._assign_if_known(now_s)
        if self.phase is Phase.JOINING:
            return self._join_request()
        if self.phase is Phase.SYNCING:
            return self._sync_request()
        if self.identity.generation >= 0 and now_s >= self._heartbeat_at_s:
            message = HeartbeatRequest(
                self.options.group_id, self.identity.generation, self.identity.member_id, self.options.instance_id)
            return Request(ApiKey.HEARTBEAT, message, min(self.options.request_timeout, self.options.session_timeout))
        return None

    # -- requests --------------------------------------------------------------------------------

    def _join_request(self) -> Request:
        options = self.options
        subscription = Subscription(self.topics, self._owned, self._owned_since, rack=options.rack)
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
            protocol_type=PROTOCOL_TYPE,
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
            protocol_type=PROTOCOL_TYPE,
            protocol_name=self._protocol,
            assignments=self._assignments,
        )
        return Request(ApiKey.SYNC_GROUP, message, self.options.max_poll_interval + JOIN_MARGIN_S)

    def _leave_request(self, why: str) -> Request | None:
        """Static members only stay away, and have their session to come back."""
        member_id = self.identity.member_id
        if not member_id or self.options.instance_id is not None:
            return None
        message = LeaveGroupRequest(self.options.group_id, [MemberIdentity(member_id, None, why)], member_id)
        return Request(ApiKey.LEAVE_GROUP, message, self.options.request_timeout, is_leave=True)

    # -- answers ---------------------------------------------------------------------------------

    def _take(self, request: Request, answer: Any, now_s: float) -> None:
        if request.api_key is ApiKey.JOIN_GROUP:
            self._on_joined(answer, now_s)
        elif request.api_key is ApiKey.SYNC_GROUP:
            self._on_synced(answer, now_s)
        else:
            self._on_heartbeat(answer.error_code, now_s)

    def _on_unserved(self, request: Request, *, was_answered: bool) -> None:
        if was_answered and request.api_key is ApiKey.SYNC_GROUP:
            self.phase = Phase.JOINING

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
            self._lose("the group went on without this member")
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

    def _forget(self) -> None:
        self._owned_since = NO_GENERATION
        self._assign_by_s = NEVER
        self._members = {}


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
