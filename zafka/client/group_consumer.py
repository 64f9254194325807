"""A member of a KIP-848 group: by heartbeats it says what it has, and is told what it is to have.

Owns: `ConsumerMembership`: the heartbeats, how far the reader is with what was assigned, and what errors make of it. The
reader adopts what was assigned (`Adopt`: it commits and gives up what is not in it), and only then is the coordinator told,
which gives to others what is not named any more. Nobody waits for anybody else. Pure but for its own state.
Invariants: what is acknowledged is what the reader has, and it is about to begin nothing else: what is not named may be
another's at once; what was assigned in another life is not acknowledged.
Unlike Kafka's client, a static member waits for its name for as long as a crashed predecessor may hold it.
Source: KIP-848; Kafka AbstractMembershipManager, AbstractHeartbeatRequestManager, ConsumerHeartbeatRequestManager.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping

from zafka.client.errors import BrokerRefused, NotSupportedYet, ZafkaError, is_retriable
from zafka.client.group import (
    CONSUMER,
    RETRY_S,
    Adopt,
    GoClassic,
    GroupOptions,
    KnownTopic,
    Membership,
    Phase,
    Request,
)
from zafka.client.records import TopicPartition
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    TopicPartitions,
)

logger = logging.getLogger("zafka.client")

JOIN_EPOCH, LEAVE_EPOCH, STATIC_LEAVE_EPOCH = 0, -1, -2
NAME_PATIENCE_S = 70.0  # beyond the longest session that brokers allow by default
NAME_RETRY_S = 1.0
GIVEN = "the group shares its partitions anew: a member left, timed out or gave up what is free now"
TAKEN = "the group shares its partitions anew: a member joined, came back or reads other topics"
LOST = {
    ErrorCode.UNKNOWN_MEMBER_ID: "the coordinator does not know this member: its session timed out, or it was removed",
    ErrorCode.GROUP_ID_NOT_FOUND: "the coordinator does not know this group: the sessions of all its members timed out",
    ErrorCode.FENCED_MEMBER_EPOCH: "the group went on without this member",
}

Partitions = frozenset[TopicPartition]


class ConsumerMembership(Membership):
    """See the module. member_id: one that nobody else has. pattern: an expression for names of topics, instead of `topics`."""

    protocol = CONSUMER

    def __init__(
        self, options: GroupOptions, topics: tuple[str, ...], now_s: float, member_id: str, pattern: str | None = None
    ) -> None:
        super().__init__(options, topics, now_s, member_id)
        self.pattern = pattern
        self._names: dict[bytes, str] = {}  # of all topics that were ever seen
        self._ids: dict[str, bytes] = {}  # of the topics of what the reader was asked to have
        self._topics: dict[str, KnownTopic] = {}
        self._assigned: dict[bytes, frozenset[int]] | None = None  # as the coordinator told it last
        self._asked: Partitions | None = None  # what the reader is to have, or has
        self._undone: list[Adopt] = []  # which the reader has not done yet
        self._asked_with: dict[str, int] = {}  # partition counts at that time
        self._saying: Partitions | None = None  # with the request under way
        self._acknowledged: Partitions | None = None  # what the coordinator knows that the reader has
        self._must_say_all = True  # it may not know what was said before
        self._is_known = False  # the coordinator may have heard of us
        self._name_by_s: float | None = None

    # -- the reader ------------------------------------------------------------------------------

    def adopted(self, task: Adopt, gave_up: bool) -> None:
        if task in self._undone:  # else it was lost, of which the reader is told next
            self._undone.remove(task)
            self._owned = task.partitions

    def leave(self) -> None:
        """The request that is under way is answered at once: what comes next is said behind it."""
        under_way = self._in_flight
        super().leave()
        if self.phase is Phase.LEAVING:
            self._in_flight = under_way

    # -- time ------------------------------------------------------------------------------------

    def on_topics(self, topics: Mapping[str, KnownTopic], now_s: float) -> None:
        self._topics = {name: topic for name, topic in topics.items() if name in self.wanted_topics}
        self.on_names({topic.topic_id: name for name, topic in self._topics.items()})

    def on_names(self, names: Mapping[bytes, str]) -> None:
        self._names |= names
        self.wanted_topics |= set(names.values())
        self._reconcile()

    def _due_at(self) -> float:
        return 0.0 if self.phase is Phase.JOINING or self._has_news() else self._heartbeat_at_s

    def _has_news(self) -> bool:
        return self.phase is Phase.STABLE and not self._undone and self._acknowledged != self._owned

    def _due(self, now_s: float) -> Request | None:
        if self.phase is Phase.JOINING:
            self._is_known = True
            return self._say_all(JOIN_EPOCH)
        if self.phase is not Phase.STABLE or not (self._has_news() or now_s >= self._heartbeat_at_s):
            return None
        if self._must_say_all:
            return self._say_all(self.identity.generation)
        self._saying = self._owned if self._has_news() else None
        message = self._message(self.identity.generation)
        message.topic_partitions = None if self._saying is None else self._as_ids(self._saying)
        return self._request(message)

    # -- requests --------------------------------------------------------------------------------

    def _say_all(self, epoch: int) -> Request:
        self._saying = self._owned.union(*(task.partitions for task in self._undone))
        message = self._message(epoch)
        message.rebalance_timeout_ms = int(self.options.max_poll_interval * 1000)
        message.subscribed_topic_names = sorted(self.topics) if self.pattern is None else None
        message.subscribed_topic_regex = self.pattern
        message.server_assignor = self.options.remote_assignor
        message.rack_id = self.options.rack
        message.topic_partitions = self._as_ids(self._saying)
        return self._request(message)

    def _leave_request(self, why: str) -> Request | None:
        """Static members come back: nobody gets what they have until their session is over."""
        if not self._is_known:
            return None
        message = self._message(LEAVE_EPOCH if self.options.instance_id is None else STATIC_LEAVE_EPOCH)
        message.topic_partitions = None
        return Request(ApiKey.CONSUMER_GROUP_HEARTBEAT, message, self.options.request_timeout, is_leave=True)

    def _message(self, epoch: int) -> ConsumerGroupHeartbeatRequest:
        options = self.options
        return ConsumerGroupHeartbeatRequest(options.group_id, self.identity.member_id, epoch, options.instance_id)

    def _request(self, message: ConsumerGroupHeartbeatRequest) -> Request:
        timeout_s = min(self.options.request_timeout, self.options.session_timeout)
        return Request(ApiKey.CONSUMER_GROUP_HEARTBEAT, message, timeout_s)

    def _as_ids(self, partitions: Partitions) -> list[TopicPartitions]:
        numbers = defaultdict(list)
        for topic, partition in sorted(partitions):
            numbers[self._ids[topic]].append(partition)
        return [TopicPartitions(topic_id, owned) for topic_id, owned in numbers.items()]

    # -- answers ---------------------------------------------------------------------------------

    def _take(self, request: Request, answer: ConsumerGroupHeartbeatResponse, now_s: float) -> None:
        code = answer.error_code
        if code:
            self._must_say_all = True
            self._on_refused(answer, now_s)
            return
        if self.phase is Phase.LEAVING:
            return
        self._must_say_all = False
        self._name_by_s = None
        if self._saying is not None:
            self._acknowledged = self._saying
        if answer.member_epoch != self.identity.generation:
            self.joins += 1
        member_id = answer.member_id or self.identity.member_id
        self.identity = self.identity._replace(member_id=member_id, generation=answer.member_epoch)
        self.phase = Phase.STABLE
        interval_s = answer.heartbeat_interval_ms / 1000
        self._heartbeat_at_s = now_s + (interval_s if interval_s > 0 else self.options.heartbeat_interval)
        if answer.assignment is not None:
            self._assigned = {
                topic.topic_id: frozenset(topic.partitions) for topic in answer.assignment.topic_partitions}
            self._reconcile()

    def _on_unserved(self, request: Request, *, was_answered: bool) -> None:
        self._must_say_all = True

    def _on_refused(self, answer: ConsumerGroupHeartbeatResponse, now_s: float) -> None:
        code, joins = answer.error_code, self.phase is Phase.JOINING
        what = f"group {self.options.group_id!r}, as a member of KIP-848's protocol"
        refused = BrokerRefused(what, code, answer.error_message or None)
        if code in LOST and not joins:
            self._lose(LOST[ErrorCode(code)], must_wait=bool(self._asked))
        elif code == ErrorCode.UNSUPPORTED_VERSION or (code == ErrorCode.GROUP_ID_NOT_FOUND and joins):
            self._is_known = False
            self._refuse_protocol(refused)
        elif code == ErrorCode.UNRELEASED_INSTANCE_ID:
            self._wait_for_name(refused, now_s)
        elif is_retriable(code) or code in LOST:
            self._retry_at_s = now_s + RETRY_S
        else:
            self._is_known = False
            self._fail(refused)

    def _wait_for_name(self, refused: BrokerRefused, now_s: float) -> None:
        """Somebody has our name: one who crashed loses it in a while, one who lives keeps it."""
        self._is_known = False
        if self._name_by_s is None:
            self._name_by_s = now_s + NAME_PATIENCE_S
            logger.warning(
                "group %s: another consumer has group_instance_id=%r, and did not leave; if it crashed, the name is free "
                "when its session is over", self.options.group_id, self.options.instance_id)
        if now_s >= self._name_by_s:
            self._fail(refused)
        self._retry_at_s = now_s + NAME_RETRY_S

    def _refuse_protocol(self, error: ZafkaError) -> None:
        """A broker older than the protocol, or a group of the classic one that is not to be moved."""
        may_go = self.options.protocol is None and self.pattern is None
        if may_go and self.phase is Phase.JOINING:
            self._end(GoClassic(error))
        elif isinstance(error, NotSupportedYet):
            self._fail(NotSupportedYet(f"{error}: group_protocol='classic' does without"))
        else:
            self._fail(error)

    # -- changes of hands ------------------------------------------------------------------------

    def _reconcile(self) -> None:
        """Ask the reader to have what is assigned, as far as its topics are known by name."""
        if self._assigned is None or self.phase is not Phase.STABLE:
            return
        names = {topic_id: self._names[topic_id] for topic_id in self._assigned if topic_id in self._names}
        self.unknown_topics = frozenset(self._assigned.keys() - names.keys())
        wanted = frozenset(
            TopicPartition(name, partition) for topic_id, name in names.items() for partition in self._assigned[topic_id])
        # A topic that was deleted and created again is another one: what is read of the old one is given up first.
        others = {name for topic_id, name in names.items() if self._ids.get(name, topic_id) != topic_id}
        kept = frozenset(where for where in wanted if where.topic not in others)
        self._ids |= {name: topic_id for topic_id, name in names.items()}
        if others and self._asked is not None and self._asked - kept:
            self._ask_to_have(kept)
        self._ask_to_have(wanted)

    def _ask_to_have(self, wanted: Partitions) -> None:
        if wanted == self._asked:
            return
        why = self._why or self._what_changed(wanted)
        if wanted:
            self._why = ""
        self._asked = wanted
        self._asked_with = {name: topic.partitions for name, topic in self._topics.items()}
        task = Adopt(wanted, self.identity.generation, self.identity.life, why)
        self._undone.append(task)
        self.tasks.append(task)

    def _what_changed(self, wanted: Partitions) -> str:
        """As far as a member can know it: the coordinator does not say."""
        assert self._asked is not None
        counts = {name: topic.partitions for name, topic in self._topics.items()}
        for topic, partition in wanted:
            counts[topic] = max(counts.get(topic, 0), partition + 1)  # it may be news to us
        changed = sorted(topic for topic, count in self._asked_with.items() if counts.get(topic, 0) != count)
        if changed:
            return "topics changed: " + ", ".join(f"{topic} has {counts.get(topic, 0)} partitions now" for topic in changed)
        return TAKEN if self._asked - wanted else GIVEN

    def _forget(self) -> None:
        self._assigned = self._asked = self._saying = self._acknowledged = None
        self._undone.clear()
        self._must_say_all = True
        self._is_known = False
        self.unknown_topics = frozenset()
