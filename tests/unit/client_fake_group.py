"""A broker that coordinates the group of one member of ours, of either protocol; the test says what that member is to have.

It believes whoever asks: what members may not do is for the real coordinator's tests. `faults` are those of a request's kind, one
after the other: an error code, "drop" or "hang", or None; `refused` are partitions and the code that offsets of them get.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.unit.client_fake_broker import VERSIONS, FakeBroker
from zafka.client.channel import OUR_VERSIONS
from zafka.client.group_protocol import encode_assignment
from zafka.client.records import OffsetAndMetadata, TopicPartition
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import (
    Coordinator,
    FindCoordinatorResponse,
    HeartbeatResponse,
    JoinGroupResponse,
    JoinGroupResponseMember,
    LeaveGroupResponse,
    OffsetCommitResponse,
    OffsetFetchResponse,
    SyncGroupResponse,
)
from zafka.transport.kafka.messages.consumer_group_heartbeat import (
    Assignment,
    ConsumerGroupHeartbeatResponse,
    TopicPartitions,
)
from zafka.transport.kafka.messages.offset_commit import OffsetCommitResponsePartition, OffsetCommitResponseTopic
from zafka.transport.kafka.messages.offset_fetch import (
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopics,
)

GROUP_APIS = (
    ApiKey.FIND_COORDINATOR, ApiKey.CONSUMER_GROUP_HEARTBEAT, ApiKey.JOIN_GROUP, ApiKey.SYNC_GROUP, ApiKey.HEARTBEAT,
    ApiKey.LEAVE_GROUP, ApiKey.OFFSET_COMMIT, ApiKey.OFFSET_FETCH)


class FakeGroup(FakeBroker):
    """See the module. assigned: a change of it makes the group share anew. generation: KIP-848's epoch as well."""

    def __init__(self, topics: dict[str, int], door: str = "kafka") -> None:
        super().__init__(topics, door, versions=VERSIONS | {api: OUR_VERSIONS[api] for api in GROUP_APIS})
        self.faults: dict[ApiKey, Iterator[str | int | None]] = {}
        self.fault = lambda api, when: next(self.faults.get(api, iter(())), None) if when == "before" else None
        self.refused: dict[TopicPartition, int] = {}
        self.assigned = frozenset(TopicPartition(name, index) for name in topics for index in range(topics[name]))
        self.committed: dict[TopicPartition, OffsetAndMetadata] = {}
        self.generation = 0
        self._told: frozenset[TopicPartition] | None = None

    def sent(self, api: ApiKey) -> list[Any]:
        """The requests of this kind that came."""
        return [request for key, request in list(self.requests) if key is api]

    def commits(self) -> list[dict[TopicPartition, int]]:
        return [
            {TopicPartition(topic.name, part.partition_index): part.committed_offset
             for topic in request.topics for part in topic.partitions}
            for request in self.sent(ApiKey.OFFSET_COMMIT)]

    def _metadata(self, request: Any, fault: Any) -> Any:
        ids = {_id_of(name): name for name in self.topics}
        for topic in request.topics or ():
            topic.name = topic.name or ids[topic.topic_id]
        answer = super()._metadata(request, fault)
        for topic in answer.topics:
            topic.topic_id = _id_of(topic.name)
        return answer

    def _find_coordinator(self, request: Any, fault: Any) -> Any:
        return FindCoordinatorResponse(
            coordinators=[Coordinator("g", 1, "127.0.0.1", self.port, error_code=fault or ErrorCode.NONE)])

    # -- KIP-848 ---------------------------------------------------------------------------------

    def _consumer_group_heartbeat(self, request: Any, fault: Any) -> Any:
        if fault or request.member_epoch < 0:
            return ConsumerGroupHeartbeatResponse(error_code=fault or ErrorCode.NONE, member_epoch=request.member_epoch)
        assignment = None
        if request.rebalance_timeout_ms >= 0 or self.assigned != self._told:  # a member that says all is told all
            self.generation += 1
            self._told = self.assigned
            assignment = Assignment([
                TopicPartitions(_id_of(name), [part for topic, part in sorted(self._told) if topic == name])
                for name in sorted({topic for topic, _ in self._told})])
        return ConsumerGroupHeartbeatResponse(
            member_id=request.member_id, member_epoch=self.generation, heartbeat_interval_ms=5, assignment=assignment)

    # -- the classic protocol: the member leads, and is given what the test says nevertheless --------

    def _join_group(self, request: Any, fault: Any) -> Any:
        self.generation += 1
        mine = request.protocols[0]
        return JoinGroupResponse(
            error_code=fault or ErrorCode.NONE, generation_id=self.generation, protocol_type=request.protocol_type,
            protocol_name=mine.name, leader="m", member_id="m", members=[JoinGroupResponseMember("m", None, mine.metadata)])

    def _sync_group(self, request: Any, fault: Any) -> Any:
        self._told = self.assigned
        return SyncGroupResponse(error_code=fault or ErrorCode.NONE, assignment=encode_assignment(self._told))

    def _heartbeat(self, request: Any, fault: Any) -> Any:
        shares_anew = ErrorCode.REBALANCE_IN_PROGRESS if self.assigned != self._told else ErrorCode.NONE
        return HeartbeatResponse(error_code=fault or shares_anew)

    def _leave_group(self, request: Any, fault: Any) -> Any:
        return LeaveGroupResponse()

    # -- offsets ---------------------------------------------------------------------------------

    def _offset_commit(self, request: Any, fault: Any) -> Any:
        topics = []
        for topic in request.topics:
            answered = OffsetCommitResponseTopic(name=topic.name, partitions=[])
            for part in topic.partitions:
                where = TopicPartition(topic.name, part.partition_index)
                code = fault or self.refused.get(where, ErrorCode.NONE)
                if not code:
                    self.committed[where] = OffsetAndMetadata(part.committed_offset, part.committed_metadata)
                answered.partitions.append(OffsetCommitResponsePartition(part.partition_index, code))
            topics.append(answered)
        return OffsetCommitResponse(topics=topics)

    def _offset_fetch(self, request: Any, fault: Any) -> Any:
        (group,) = request.groups
        if not fault and group.member_epoch not in (-1, self.generation):
            fault = ErrorCode.STALE_MEMBER_EPOCH
        if fault:
            return OffsetFetchResponse(groups=[OffsetFetchResponseGroup(group.group_id, error_code=fault)])
        topics = []
        for topic in group.topics:
            answered = OffsetFetchResponseTopics(name=topic.name, partitions=[])
            for number in topic.partition_indexes:
                where = TopicPartition(topic.name, number)
                offset, metadata = self.committed.get(where, OffsetAndMetadata(-1))
                answered.partitions.append(OffsetFetchResponsePartitions(
                    number, offset, metadata=metadata, error_code=self.refused.get(where, ErrorCode.NONE)))
            topics.append(answered)
        return OffsetFetchResponse(groups=[OffsetFetchResponseGroup(group.group_id, topics)])


def _id_of(topic: str) -> bytes:
    return topic.encode().ljust(16, b"-")
