"""A member of a group in the I/O thread: it sends what a `group.Membership` decides, beside the fetching.

Owns: the membership, when the reader is asked for, and whether it still comes. The reader (membership.py) gets at it by
`io.call`, and reads nothing but the membership's `tasks` and `identity`, which change in one step.
Invariant: while there is a task for the reader, or offsets are due, `fetcher.interrupted` is set after it was.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from zafka.client.cluster import NEVER, Ask, Cluster, Target
from zafka.client.errors import ConnectionLost, ZafkaError
from zafka.client.fetcher import Fetcher
from zafka.client.group import KnownTopic, Membership, Phase, Request
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import MetadataRequest, MetadataRequestTopic, MetadataResponse

PURPOSE = "group"  # a connection of its own: a Join waits for all members
NAMES_S = 0.5  # how long names of topics may take until they are asked for again
CONNECT_S = 2.0  # how long a coordinator may be out of reach until another one is looked for


class GroupSession:
    """See the module. A worker of the core, around the fetcher's. commit_interval: seconds, NEVER without auto commit."""

    def __init__(self, cluster: Cluster, fetcher: Fetcher, commit_interval: float) -> None:
        self._cluster = cluster
        self._fetcher = fetcher
        self._commit_interval = commit_interval
        self.membership: Membership | None = None
        self.commit_due = False
        self.reads = False  # the reader came by since we asked
        self._seen_metadata = -1
        self._request: tuple[Request, int] | None = None  # what is under way, and to whom
        self._unsent: Request | None = None  # its coordinator is out of reach
        self._unsent_by_s = NEVER
        self._commit_at_s = time.monotonic() + commit_interval
        self._ask_at_s = NEVER
        self._topics: dict[str, KnownTopic] = {}
        self._names_at_s = 0.0  # when names may be asked for again

    # -- by io.call ------------------------------------------------------------------------------

    def join(self, membership: Membership) -> None:
        now_s = time.monotonic()
        self.membership = membership
        self._ask_at_s = now_s
        self._seen_metadata = -1

    def leave(self) -> None:
        if self.membership is not None:
            self.membership.leave()

    @property
    def is_over(self) -> bool:
        return self.membership is None or self.membership.phase is Phase.OVER

    # -- in the I/O thread -----------------------------------------------------------------------

    def turn(self, now_s: float) -> float:
        wake_s = self._fetcher.turn(now_s)
        if now_s >= self._commit_at_s:
            self._commit_at_s = now_s + self._commit_interval
            self.commit_due = True
            self._fetcher.interrupt()
        wake_s = min(wake_s, self._commit_at_s)
        membership = self.membership
        if membership is None:
            return wake_s
        tasks_before = len(membership.tasks)
        if self.reads:
            self.reads = False
            membership.polled(now_s)
        self._tell_topics(membership, now_s)
        self._drop_what_is_given_up(membership)
        while (request := self._unsent or membership.next_request(now_s)) is not None and self._send(request, now_s):
            pass
        if len(membership.tasks) > tasks_before or self._is_reader_due(membership, now_s):
            self._fetcher.interrupt()
        if membership.phase is Phase.OVER:
            return wake_s
        if membership.unknown_topics:
            wake_s = min(wake_s, self._ask_names(membership, now_s))
        return min(wake_s, membership.wake_at(), self._unsent_by_s, self._ask_at_s)

    def end(self, error: ZafkaError) -> None:
        self._fetcher.end(error)

    def _tell_topics(self, membership: Membership, now_s: float) -> None:
        cluster = self._cluster
        if not all(map(cluster.wants, membership.wanted_topics)):
            cluster.want(membership.wanted_topics)
        if cluster.metadata_count != self._seen_metadata:
            self._seen_metadata = cluster.metadata_count
            for topic in membership.wanted_topics:
                if (known := cluster.topics.get(topic)) is not None:
                    self._topics[topic] = KnownTopic(len(known.leaders), known.topic_id)
                elif cluster.topic_errors.get(topic) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                    self._topics.pop(topic, None)
            membership.on_topics(self._topics, now_s)

    def _ask_names(self, membership: Membership, now_s: float) -> float:
        """The broker says by ids what is to be read. Returns when to ask again, if it is not known then."""
        if now_s >= self._names_at_s:
            self._names_at_s = now_s + NAMES_S
            wanted = [MetadataRequestTopic(topic_id, name=None) for topic_id in sorted(membership.unknown_topics)]
            request = MetadataRequest(topics=wanted, allow_auto_topic_creation=False)
            self._cluster.ask(Ask(
                Target.ANY, ApiKey.METADATA, request, partial(self._on_names, membership), self._names_at_s, repeat=False))
        return self._names_at_s

    def _on_names(self, membership: Membership, answer: MetadataResponse | None, error: ZafkaError | None) -> None:
        if answer is not None:
            tasks_before = len(membership.tasks)
            membership.on_names({topic.topic_id: topic.name for topic in answer.topics if topic.name})
            if len(membership.tasks) > tasks_before:
                self._fetcher.interrupt()

    def _is_reader_due(self, membership: Membership, now_s: float) -> bool:
        """Ask it now and then whether it still is there: `reads` is the answer."""
        if now_s < self._ask_at_s:
            return False
        options = membership.options
        self._ask_at_s = now_s + min(options.heartbeat_interval, options.max_poll_interval / 4)
        return True

    def _drop_what_is_given_up(self, membership: Membership) -> None:
        if self._request is not None and not membership.awaits(self._request[0]):
            (_, broker), self._request = self._request, None
            if broker >= 0:  # else what comes next would wait behind it
                self._cluster.drop_channel(broker, PURPOSE, "the group's answer is not wanted any more")
        if self._unsent is not None and not membership.awaits(self._unsent):
            self._unsent, self._unsent_by_s = None, NEVER

    def _send(self, request: Request, now_s: float) -> bool:
        """True if it went out or was given up, so that there may be another."""
        membership = self.membership
        assert membership is not None
        broker = membership.coordinator
        if request.api_key is ApiKey.FIND_COORDINATOR:
            broker = -1
            channel = self._cluster.any_channel()
        else:
            channel = self._cluster.channel(broker, PURPOSE)
        if channel is None:
            if self._unsent is None:
                self._unsent, self._unsent_by_s = request, now_s + CONNECT_S
            if now_s < self._unsent_by_s:
                return False
            self._unsent, self._unsent_by_s = None, NEVER
            self._cluster.refresh_soon()
            membership.on_answer(request, None, ConnectionLost("the coordinator is out of reach"), now_s)
            return True
        self._unsent, self._unsent_by_s = None, NEVER
        self._request = request, broker
        channel.send(request.api_key, request.message, partial(self._on_answer, membership, request), request.timeout_s)
        return True

    def _on_answer(self, membership: Membership, request: Request, answer: Any, error: ZafkaError | None) -> None:
        if self._request is not None and self._request[0] is request:
            self._request = None
        tasks_before = len(membership.tasks)
        membership.on_answer(request, answer, error, time.monotonic())
        if len(membership.tasks) > tasks_before or membership.phase is Phase.OVER:
            self._fetcher.interrupt()
