"""How the APIs of groups carry an error for the whole request, so that any Kafka client reads it as one.

Owns: `GROUP_FORMS`, the part of `api_errors.FORMS` that is about groups: (request, version, error) -> the whole answer.
Source: Apache Kafka, the `getErrorResponse` of each Request class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zafka.actors.gateway import heartbeat, join_group, leave_group, sync_group
from zafka.actors.gateway.offset_fetch import ONE_ERROR_SINCE, SEVERAL_GROUPS_SINCE
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages import consumer_group_describe
from zafka.transport.kafka.messages.consumer_group_describe import (
    ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse,
)
from zafka.transport.kafka.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatResponse
from zafka.transport.kafka.messages.delete_groups import (
    DeletableGroupResult,
    DeleteGroupsRequest,
    DeleteGroupsResponse,
)
from zafka.transport.kafka.messages.describe_groups import (
    DescribedGroup,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)
from zafka.transport.kafka.messages.list_groups import ListGroupsResponse
from zafka.transport.kafka.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from zafka.transport.kafka.messages.offset_delete import OffsetDeleteResponse
from zafka.transport.kafka.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponseTopic,
)


def _offset_commit(request: OffsetCommitRequest, version: int, error: int) -> OffsetCommitResponse:
    return OffsetCommitResponse(topics=[
        OffsetCommitResponseTopic(topic.topic_id, topic.name, [
            OffsetCommitResponsePartition(part.partition_index, error) for part in topic.partitions])
        for topic in request.topics])


def _offset_fetch(request: OffsetFetchRequest, version: int, error: int) -> OffsetFetchResponse:
    if version >= SEVERAL_GROUPS_SINCE:
        return OffsetFetchResponse(groups=[OffsetFetchResponseGroup(group.group_id, [], error) for group in request.groups])
    if version >= ONE_ERROR_SINCE:
        return OffsetFetchResponse(error_code=error)
    return OffsetFetchResponse(topics=[
        OffsetFetchResponseTopic(topic.name, [
            OffsetFetchResponsePartition(number, -1, -1, "", error) for number in topic.partition_indexes])
        for topic in request.topics or ()])


def _describe_groups(request: DescribeGroupsRequest, version: int, error: int) -> DescribeGroupsResponse:
    return DescribeGroupsResponse(groups=[DescribedGroup(error, group_id=group_id) for group_id in request.groups])


def _delete_groups(request: DeleteGroupsRequest, version: int, error: int) -> DeleteGroupsResponse:
    return DeleteGroupsResponse(results=[DeletableGroupResult(group_id, error) for group_id in request.groups_names])


def _consumer_group_describe(
    request: ConsumerGroupDescribeRequest, version: int, error: int
) -> ConsumerGroupDescribeResponse:
    return ConsumerGroupDescribeResponse(groups=[
        consumer_group_describe.DescribedGroup(error, group_id=group_id) for group_id in request.group_ids])


GROUP_FORMS: dict[int, Callable[[Any, int, int], Any]] = {
    ApiKey.OFFSET_COMMIT: _offset_commit,
    ApiKey.OFFSET_FETCH: _offset_fetch,
    ApiKey.OFFSET_DELETE: lambda request, version, error: OffsetDeleteResponse(error),
    ApiKey.LIST_GROUPS: lambda request, version, error: ListGroupsResponse(error_code=error),
    ApiKey.DESCRIBE_GROUPS: _describe_groups,
    ApiKey.DELETE_GROUPS: _delete_groups,
    ApiKey.JOIN_GROUP: join_group.refuse,
    ApiKey.SYNC_GROUP: sync_group.refuse,
    ApiKey.HEARTBEAT: heartbeat.refuse,
    ApiKey.LEAVE_GROUP: leave_group.refuse,
    ApiKey.CONSUMER_GROUP_HEARTBEAT: lambda request, version, error: ConsumerGroupHeartbeatResponse(error_code=error),
    ApiKey.CONSUMER_GROUP_DESCRIBE: _consumer_group_describe,
}
