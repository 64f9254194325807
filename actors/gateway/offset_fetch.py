"""OffsetFetch: how far groups have come. Each group's coordinator answers for it.

Versions 1-10. From 2 on null asks for all topics and there is an error for the whole answer, from 8 on several groups
are asked for at once (KIP-709), from 9 on a member of KIP-848 says who it is, 10 names topics by id. Whatever the client's version,
coordinators are asked in one: topics by name, a group each. Without transactions no offset is unstable.
Source: KafkaApis.handleOffsetFetchRequest, OffsetMetadataManager.fetchOffsets.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.group_relay import Relay, decoded, find_route
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.OFFSET_FETCH
VERSIONS = range(1, 11)
ADVERTISED = VERSIONS

ONE_ERROR_SINCE = 2
SEVERAL_GROUPS_SINCE = 8
TOPIC_IDS_SINCE = 10
BY_NAME = 9  # the newest version that names topics

# Where there is an error for the whole answer, Kafka tells it alone, and aiokafka looks at the partitions alone: it would begin
# where nothing is committed. So these stand there, too, in words at which it looks for the coordinator again.
TOLD_TWICE: dict[int, int] = {
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS: ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.NOT_COORDINATOR: ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE: ErrorCode.NOT_COORDINATOR}


def handle(gateway: Gateway, exchange: Exchange, request: OffsetFetchRequest) -> None:
    if exchange.version < SEVERAL_GROUPS_SINCE:
        topics = None if request.topics is None else [
            OffsetFetchRequestTopics(name=topic.name, partition_indexes=topic.partition_indexes)
            for topic in request.topics]
        request.groups = [OffsetFetchRequestGroup(request.group_id, topics=topics)]
    Fetching(gateway, exchange, request)


class Fetching:
    """One request, whose groups are answered one by one. They come back in the order in which they were asked for."""

    def __init__(self, gateway: Gateway, exchange: Exchange, request: OffsetFetchRequest) -> None:
        self._gateway = gateway
        self._exchange = exchange
        self._groups = [OffsetFetchResponseGroup(group.group_id, []) for group in request.groups]
        self._unknown: list[list[OffsetFetchResponseTopics]] = [[] for _ in request.groups]  # the last that each is told
        relay = Relay(gateway, exchange, KEY, self._finish)
        for group, found, unknown in zip(request.groups, self._groups, self._unknown, strict=True):
            if exchange.version >= TOPIC_IDS_SINCE and group.topics is not None:
                group.topics = [topic for topic in group.topics if self._name(topic, unknown)]
            asked = OffsetFetchRequest([group], require_stable=request.require_stable)
            relay.ask(
                find_route(gateway, group.group_id), BY_NAME, asked,
                decoded(KEY, BY_NAME, partial(self._take, found)), partial(self._refuse, found, group))
        relay.start()

    def _name(self, topic: OffsetFetchRequestTopics, unknown: list[OffsetFetchResponseTopics]) -> bool:
        """Fill in the name of a topic; one with an unknown id is refused."""
        known = self._gateway.cluster.topics_by_id.get(topic.topic_id)
        if known is None:
            unknown.append(_no_offsets(topic, ErrorCode.UNKNOWN_TOPIC_ID))
            return False
        topic.name = known.name
        return True

    def _take(self, found: OffsetFetchResponseGroup, answer: OffsetFetchResponse) -> None:
        (group,) = answer.groups
        found.error_code = group.error_code
        for topic in group.topics:
            known = self._gateway.cluster.topics_by_name.get(topic.name)
            if known is not None:
                topic.topic_id = known.topic_id
            if known is not None or self._exchange.version < TOPIC_IDS_SINCE:
                found.topics.append(topic)

    def _refuse(self, found: OffsetFetchResponseGroup, group: OffsetFetchRequestGroup, error: int) -> None:
        found.error_code = error
        version = self._exchange.version
        told = error if version < ONE_ERROR_SINCE else TOLD_TWICE.get(error) if version < SEVERAL_GROUPS_SINCE else None
        if told is not None:
            found.topics = [_no_offsets(topic, told) for topic in group.topics or ()]

    def _finish(self) -> None:
        for group, unknown in zip(self._groups, self._unknown, strict=True):
            if not group.error_code:
                group.topics += unknown
        if self._exchange.version >= SEVERAL_GROUPS_SINCE:
            self._exchange.answer(OffsetFetchResponse(groups=self._groups))
            return
        (one,) = self._groups
        topics = [
            OffsetFetchResponseTopic(topic.name, [
                OffsetFetchResponsePartition(
                    part.partition_index, part.committed_offset, part.committed_leader_epoch, part.metadata,
                    part.error_code) for part in topic.partitions])
            for topic in one.topics]
        self._exchange.answer(OffsetFetchResponse(topics=topics, error_code=one.error_code))


def _no_offsets(topic: OffsetFetchRequestTopics, error: int) -> OffsetFetchResponseTopics:
    return OffsetFetchResponseTopics(topic.topic_id, topic.name, [
        OffsetFetchResponsePartitions(number, -1, -1, "", error) for number in topic.partition_indexes])
