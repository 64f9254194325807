"""OffsetCommit: how far a group has come, kept by its coordinator. Answered when it is on disk.

Versions 2-10. Version 5 takes the client's wish for a retention away, 6 adds leader epochs (KIP-320), 7 static members
(KIP-345), 9 the members of KIP-848, 10 names topics by id. Partitions that the cluster does not have are refused here, as
in Kafka; the rest goes to the coordinator with topics by name, whatever the client's version. While that reads its log it
waits for up to 4 s, where Kafka says COORDINATOR_LOAD_IN_PROGRESS at once: it may be the last commit of a member that closes.
Source: KafkaApis.handleOffsetCommitRequest, OffsetMetadataManager.commitOffset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.group_relay import LastWord, Relay, decoded
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.OFFSET_COMMIT
VERSIONS = range(2, 11)
ADVERTISED = VERSIONS

TOPIC_IDS_SINCE = 10
BY_NAME = 9  # the newest version that names topics


def handle(gateway: Gateway, exchange: Exchange, request: OffsetCommitRequest) -> None:
    Committing(gateway, exchange, request)


class Committing:
    """One request on its way. What the cluster does not have is answered first, as in Kafka."""

    def __init__(self, gateway: Gateway, exchange: Exchange, request: OffsetCommitRequest) -> None:
        self._gateway = gateway
        self._exchange = exchange
        self._by_id = exchange.version >= TOPIC_IDS_SINCE
        self._answered: dict[tuple[bytes, str], OffsetCommitResponseTopic] = {}  # each topic once, as Kafka tells them
        self._whole: OffsetCommitResponse | None = None
        self._ids: dict[str, bytes] = {}  # of the topics that go to the coordinator
        request.topics = [known for topic in request.topics if (known := self._known(topic)) is not None]
        self._topics = request.topics
        relay = Relay(gateway, exchange, KEY, self._finish)
        if request.topics:
            version = min(exchange.version, BY_NAME)
            LastWord(
                relay, request.group_id, version, request, decoded(KEY, version, self._take), self._refuse_all, repeats=False)
        relay.start()

    def _known(self, topic: OffsetCommitRequestTopic) -> OffsetCommitRequestTopic | None:
        """The part of a topic that the cluster has, its name filled in; the rest is refused."""
        cluster = self._gateway.cluster
        known = cluster.topics_by_id.get(topic.topic_id) if self._by_id else cluster.topics_by_name.get(topic.name)
        if known is None:
            self._refuse(topic, ErrorCode.UNKNOWN_TOPIC_ID if self._by_id else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            return None
        topic.name = known.name
        self._ids[known.name] = topic.topic_id
        count = len(known.partitions)
        if all(0 <= part.partition_index < count for part in topic.partitions):
            return topic
        there = [part for part in topic.partitions if 0 <= part.partition_index < count]
        topic.partitions = [part for part in topic.partitions if not 0 <= part.partition_index < count]
        self._refuse(topic, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        return OffsetCommitRequestTopic(topic.topic_id, topic.name, there) if there else None

    def _refuse(self, topic: OffsetCommitRequestTopic, error: int) -> None:
        self._answer(topic.topic_id, topic.name, [
            OffsetCommitResponsePartition(part.partition_index, error) for part in topic.partitions])

    def _refuse_all(self, error: int) -> None:
        for topic in self._topics:
            self._refuse(topic, error)

    def _take(self, answer: OffsetCommitResponse) -> None:
        for topic in answer.topics:
            topic.topic_id = self._ids[topic.name]
        if not self._answered:
            self._whole = answer  # as it is, also where it names a topic twice
        for topic in answer.topics:
            self._answer(topic.topic_id, topic.name, topic.partitions)

    def _answer(self, topic_id: bytes, name: str, partitions: list[OffsetCommitResponsePartition]) -> None:
        told = self._answered.setdefault((topic_id, name), OffsetCommitResponseTopic(topic_id, name, []))
        told.partitions = told.partitions + partitions

    def _finish(self) -> None:
        self._exchange.answer(self._whole or OffsetCommitResponse(topics=list(self._answered.values())))
