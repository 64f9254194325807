"""KIP-848 groups with a clock, timers and a log of their own: heartbeats in, answers out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zafka.actors.actor import Now, Peer
from zafka.actors.groups import consumer_records
from zafka.actors.groups.calls import Call, Outbox, Topic, Topics
from zafka.actors.groups.consumer import ConsumerGroups
from zafka.actors.groups.record_codec import decode_record
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages.consumer_group_describe import DescribedGroup
from zafka.transport.kafka.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    TopicPartitions,
)

NOW_MS = 1_700_000_000_000
BROKER = Peer("broker 1", 1)

Owned = Mapping[str, Iterable[int]]


def topic_id(name: str) -> bytes:
    return name.encode().ljust(16, b"-")


def topics_of(partitions: Mapping[str, int]) -> dict[str, Topic]:
    return {name: Topic(topic_id(name), count) for name, count in partitions.items()}


def on_wire(owned: Owned) -> list[TopicPartitions]:
    return [TopicPartitions(topic_id(name), sorted(has)) for name, has in owned.items() if has]


def told(answer: ConsumerGroupHeartbeatResponse) -> dict[str, list[int]] | None:
    """The assignment in an answer, by name; None if there is none."""
    if answer.assignment is None:
        return None
    return {topic.topic_id.decode().rstrip("-"): topic.partitions for topic in answer.assignment.topic_partitions}


class Bench:
    """settings: with underscores for dots. topics: names and partitions."""

    def __init__(self, topics: Mapping[str, int], **settings: str) -> None:
        self.settings = {f"group.consumer.{name.replace('_', '.')}": value for name, value in settings.items()}
        self.monotonic_s = 100.0
        self.log: list[tuple[bytes, bytes | None]] = []
        self.timers: dict[str, float] = {}
        self.cluster: dict[str, Topic] = {}
        self._new_ids = 0
        self.begin()
        self.set_topics(topics)

    @property
    def now(self) -> Now:
        return Now(self.monotonic_s, NOW_MS + round((self.monotonic_s - 100.0) * 1000))

    # -- lives -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """A coordinator that has read the log, as after a crash: what it knew besides is gone."""
        self.topics = Topics()
        self.groups = ConsumerGroups(self.topics, self.settings, self._new_id)
        for key, value in self.log:
            decoded = decode_record(consumer_records.KINDS, key, value)
            assert decoded is not None
            self.groups.replay(*decoded)

    def restart(self) -> None:
        state = self.state()
        self.begin()
        assert self.state() == state, "the log replays to another state"
        self.timers.clear()
        self._take(lambda outbox: self.groups.on_loaded(self.now, outbox))
        self._tell_topics(self.cluster)

    def _new_id(self) -> str:
        self._new_ids += 1
        return f"new-{self._new_ids}"

    def set_topics(self, topics: Mapping[str, int]) -> None:
        """All topics of the cluster. One that is gone and comes again keeps its id here."""
        old, self.cluster = self.cluster, topics_of(topics)
        self._tell_topics(name for name in old | self.cluster if old.get(name) != self.cluster.get(name))

    def _tell_topics(self, changed: Iterable[str]) -> None:
        names = list(changed)
        self.topics.by_name = dict(self.cluster)
        self._take(lambda outbox: self.groups.on_topics(names, self.now, outbox))

    def state(self) -> Any:
        return state_of(self.groups)

    # -- turns -----------------------------------------------------------------------------------

    def _take(self, act: Any) -> Outbox:
        outbox = Outbox()
        act(outbox)
        self.log += outbox.records
        for name, at_s in outbox.timers.items():
            if at_s is None:
                self.timers.pop(name, None)
            else:
                self.timers[name] = at_s
        return outbox

    def ask(self, key: int, version: int, request: Any, *, client_id: str = "client") -> Any:
        call = Call(BROKER, 1, key, version, client_id, "/127.0.0.1")
        (answer,) = self._take(lambda outbox: self.groups.handle(call, request, self.now, outbox)).answers
        assert answer[0] is call
        return answer[1]

    def pass_time(self, seconds: float) -> None:
        """Timers fire in order on the way."""
        end = self.monotonic_s + seconds
        while due := [(at_s, name) for name, at_s in self.timers.items() if at_s <= end]:
            at_s, name = min(due)
            del self.timers[name]
            self.monotonic_s = max(self.monotonic_s, at_s)
            self._take(lambda outbox, name=name: self.groups.on_timer(name, self.now, outbox))
        self.monotonic_s = end

    def heartbeat(
        self, member: str, epoch: int, *, owned: Owned | None = None, group: str = "g", version: int = 1, **said: Any
    ) -> ConsumerGroupHeartbeatResponse:
        owned_parts = None if owned is None else on_wire(owned)
        answer: ConsumerGroupHeartbeatResponse = self.ask(
            ApiKey.CONSUMER_GROUP_HEARTBEAT, version, ConsumerGroupHeartbeatRequest(
                group_id=group, member_id=member, member_epoch=epoch, topic_partitions=owned_parts, **said))
        return answer

    def join(self, member: str, names: Iterable[str] | None = ("t",), **said: Any) -> ConsumerGroupHeartbeatResponse:
        names = None if names is None else list(names)
        return self.heartbeat(
            member, 0, owned={}, rebalance_timeout_ms=60_000, subscribed_topic_names=names, **said)

    def leave(self, member: str, epoch: int = -1, **said: Any) -> ConsumerGroupHeartbeatResponse:
        return self.heartbeat(member, epoch, **said)

    def describe(self, group: str = "g") -> DescribedGroup:
        return self.groups.describe(group, 1)


def state_of(groups: ConsumerGroups) -> Any:
    """All that the log has to say."""
    found = {}
    for group_id, group in groups._groups.items():
        members = {name: (member.metadata, _plain(member.position)) for name, member in group.members.items()}
        owners = {topic: has for topic, has in group._owners.items() if has}
        found[group_id] = (
            group.epoch, group.metadata_hash, members, group.targets, group.assignment_epoch, group.assigned_ms,
            group.regexes, dict(group._by_instance), owners, group.subscribed)
    state = groups._state
    return found, state.members, set(state.waiting)


def _plain(position: Any) -> Any:
    return position._replace(
        assigned={topic: dict(has) for topic, has in position.assigned.items()},
        revoking={topic: dict(has) for topic, has in position.revoking.items()})
