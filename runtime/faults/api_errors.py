"""How each API's answer carries an error, so that any Kafka client reads it as one.

Owns: `FORMS`, one entry for each API that the broker serves (tests/unit/test_fault_gateway.py holds that): where a
request names topics, where its answer has a place for each, and what stands there beside the error. A request can so
be split into what is refused and what is done.
Source: Apache Kafka, the `getErrorResponse` of each Request class.
"""

from __future__ import annotations

from typing import Any

from zafka.actors.gateway.describe_configs import TOPIC
from zafka.actors.gateway.fetch_part import NO_BYTES
from zafka.actors.gateway.find_coordinator import SEVERAL_KEYS_SINCE
from zafka.runtime.faults import cluster_errors
from zafka.runtime.faults.forms import MESSAGE, Form, NameOf, Topics
from zafka.runtime.faults.group_errors import GROUP_FORMS
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import alter_configs, describe_producers, incremental_alter_configs
from zafka.transport.kafka.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from zafka.transport.kafka.messages.create_partitions import (
    CreatePartitionsResponse,
    CreatePartitionsTopic,
    CreatePartitionsTopicResult,
)
from zafka.transport.kafka.messages.create_topics import CreatableTopic, CreatableTopicResult, CreateTopicsResponse
from zafka.transport.kafka.messages.delete_records import (
    DeleteRecordsPartitionResult,
    DeleteRecordsResponse,
    DeleteRecordsTopic,
    DeleteRecordsTopicResult,
)
from zafka.transport.kafka.messages.delete_topics import DeletableTopicResult, DeleteTopicsResponse, DeleteTopicState
from zafka.transport.kafka.messages.describe_cluster import DescribeClusterResponse
from zafka.transport.kafka.messages.describe_configs import (
    DescribeConfigsResource,
    DescribeConfigsResponse,
    DescribeConfigsResult,
)
from zafka.transport.kafka.messages.describe_log_dirs import (
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    DescribeLogDirsResult,
)
from zafka.transport.kafka.messages.describe_topic_partitions import (
    DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponseTopic,
    TopicRequest,
)
from zafka.transport.kafka.messages.describe_transactions import (
    DescribeTransactionsRequest,
    DescribeTransactionsResponse,
    TransactionState,
)
from zafka.transport.kafka.messages.fetch import FetchableTopicResponse, FetchResponse, FetchTopic, PartitionData
from zafka.transport.kafka.messages.find_coordinator import (
    Coordinator,
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)
from zafka.transport.kafka.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from zafka.transport.kafka.messages.list_config_resources import ListConfigResourcesResponse
from zafka.transport.kafka.messages.list_offsets import (
    ListOffsetsPartitionResponse,
    ListOffsetsResponse,
    ListOffsetsTopic,
    ListOffsetsTopicResponse,
)
from zafka.transport.kafka.messages.list_transactions import ListTransactionsResponse
from zafka.transport.kafka.messages.metadata import MetadataRequestTopic, MetadataResponseTopic
from zafka.transport.kafka.messages.offset_for_leader_epoch import (
    EpochEndOffset,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderTopic,
    OffsetForLeaderTopicResult,
)
from zafka.transport.kafka.messages.produce import (
    PartitionProduceResponse,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)

LOG_DIRS_ERROR_SINCE = 3  # before, an answer has an error for each directory only

# -- each API ------------------------------------------------------------------------------------


def _produce(topic: TopicProduceData, error: int) -> TopicProduceResponse:
    responses = [
        PartitionProduceResponse(data.index, error, base_offset=-1, error_message=MESSAGE)
        for data in topic.partition_data]
    return TopicProduceResponse(topic.topic_id, topic.name, responses)


def _fetch(topic: FetchTopic, error: int) -> FetchableTopicResponse:
    partitions = [
        PartitionData(
            wanted.partition, error, high_watermark=-1, last_stable_offset=-1, log_start_offset=-1,
            aborted_transactions=None, records=NO_BYTES)
        for wanted in topic.partitions]
    return FetchableTopicResponse(topic.topic_id, topic.topic, partitions)


def _list_offsets(topic: ListOffsetsTopic, error: int) -> ListOffsetsTopicResponse:
    partitions = [ListOffsetsPartitionResponse(wanted.partition_index, error) for wanted in topic.partitions]
    return ListOffsetsTopicResponse(topic.name, partitions)


def _offset_for_leader_epoch(topic: OffsetForLeaderTopic, error: int) -> OffsetForLeaderTopicResult:
    return OffsetForLeaderTopicResult(topic.topic, [EpochEndOffset(error, each.partition) for each in topic.partitions])


def _metadata(topic: MetadataRequestTopic, error: int) -> MetadataResponseTopic:
    return MetadataResponseTopic(error, topic.name, topic.topic_id)


def _create_topics(topic: CreatableTopic, error: int) -> CreatableTopicResult:
    return CreatableTopicResult(topic.name, error_code=error, error_message=MESSAGE)


def _delete_topics(topic: DeleteTopicState | str, error: int) -> DeletableTopicResult:
    if isinstance(topic, str):
        return DeletableTopicResult(topic, error_code=error, error_message=MESSAGE)
    return DeletableTopicResult(topic.name, topic.topic_id, error, MESSAGE)


def _name_of_deleted(topic: DeleteTopicState | str, name_of: NameOf) -> str:
    return topic if isinstance(topic, str) else topic.name or name_of(topic.topic_id)


def _describe_configs(resource: DescribeConfigsResource, error: int) -> DescribeConfigsResult:
    return DescribeConfigsResult(error, MESSAGE, resource.resource_type, resource.resource_name)


def _alter_configs(resource: alter_configs.AlterConfigsResource, error: int) -> Any:
    return alter_configs.AlterConfigsResourceResponse(error, MESSAGE, resource.resource_type, resource.resource_name)


def _topic_resource(entry: Any, name_of: NameOf) -> str | None:
    return str(entry.resource_name) if entry.resource_type == TOPIC else None


def _create_partitions(topic: CreatePartitionsTopic, error: int) -> CreatePartitionsTopicResult:
    return CreatePartitionsTopicResult(topic.name, error, MESSAGE)


def _delete_records(topic: DeleteRecordsTopic, error: int) -> DeleteRecordsTopicResult:
    return DeleteRecordsTopicResult(topic.name, [
        DeleteRecordsPartitionResult(wanted.partition_index, -1, error) for wanted in topic.partitions])


def _describe_producers(topic: describe_producers.TopicRequest, error: int) -> describe_producers.TopicResponse:
    return describe_producers.TopicResponse(topic.name, [
        describe_producers.PartitionResponse(index, error, MESSAGE) for index in topic.partition_indexes])


def _describe_topic_partitions(topic: TopicRequest, error: int) -> DescribeTopicPartitionsResponseTopic:
    return DescribeTopicPartitionsResponseTopic(error, topic.name)


def _describe_log_dirs(request: DescribeLogDirsRequest, version: int, error: int) -> DescribeLogDirsResponse:
    if version >= LOG_DIRS_ERROR_SINCE:
        return DescribeLogDirsResponse(error_code=error)
    return DescribeLogDirsResponse(results=[DescribeLogDirsResult(error)])


def _describe_transactions(
    request: DescribeTransactionsRequest, version: int, error: int
) -> DescribeTransactionsResponse:
    return DescribeTransactionsResponse(transaction_states=[
        TransactionState(error, name) for name in request.transactional_ids])


def _find_coordinator(request: FindCoordinatorRequest, version: int, error: int) -> FindCoordinatorResponse:
    if version >= SEVERAL_KEYS_SINCE:
        return FindCoordinatorResponse(coordinators=[
            Coordinator(key, -1, "", -1, error, MESSAGE) for key in request.coordinator_keys])
    return FindCoordinatorResponse(error_code=error, error_message=MESSAGE, node_id=-1, host="", port=-1)


def _api_versions(request: ApiVersionsRequest, version: int, error: int) -> ApiVersionsResponse:
    return ApiVersionsResponse(error)


def _init_producer_id(request: InitProducerIdRequest, version: int, error: int) -> InitProducerIdResponse:
    return InitProducerIdResponse(error_code=error, producer_id=-1, producer_epoch=-1)


def _by_name(entry: Any, name_of: NameOf) -> str:
    return str(entry.name)


FORMS: dict[int, Form] = {
    **cluster_errors.FORMS,
    ApiKey.PRODUCE: Form(Topics(
        ("topic_data",), "responses", lambda entry, name_of: entry.name or name_of(entry.topic_id), _produce,
        lambda: ProduceResponse([]))),
    ApiKey.FETCH: Form(Topics(
        ("topics",), "responses", lambda entry, name_of: entry.topic or name_of(entry.topic_id), _fetch, FetchResponse)),
    ApiKey.LIST_OFFSETS: Form(Topics(("topics",), "topics", _by_name, _list_offsets, ListOffsetsResponse)),
    # Its answer names the brokers too, which no error takes away: it is never made without the handler.
    ApiKey.METADATA: Form(Topics(
        ("topics",), "topics", lambda entry, name_of: entry.name or name_of(entry.topic_id), _metadata, lambda: None)),
    ApiKey.FIND_COORDINATOR: Form(whole=_find_coordinator),
    ApiKey.API_VERSIONS: Form(whole=_api_versions),
    ApiKey.CREATE_TOPICS: Form(Topics(("topics",), "topics", _by_name, _create_topics, CreateTopicsResponse)),
    ApiKey.DELETE_TOPICS: Form(Topics(
        ("topics", "topic_names"), "responses", _name_of_deleted, _delete_topics, DeleteTopicsResponse)),
    ApiKey.INIT_PRODUCER_ID: Form(whole=_init_producer_id),
    ApiKey.OFFSET_FOR_LEADER_EPOCH: Form(Topics(
        ("topics",), "topics", lambda entry, _: str(entry.topic), _offset_for_leader_epoch, OffsetForLeaderEpochResponse)),
    ApiKey.DESCRIBE_CONFIGS: Form(Topics(
        ("resources",), "results", _topic_resource, _describe_configs, DescribeConfigsResponse)),
    ApiKey.ALTER_CONFIGS: Form(Topics(
        ("resources",), "responses", _topic_resource, _alter_configs, alter_configs.AlterConfigsResponse)),
    ApiKey.INCREMENTAL_ALTER_CONFIGS: Form(Topics(
        ("resources",), "responses", _topic_resource, _alter_configs,
        incremental_alter_configs.IncrementalAlterConfigsResponse)),
    ApiKey.CREATE_PARTITIONS: Form(Topics(
        ("topics",), "results", _by_name, _create_partitions, CreatePartitionsResponse)),
    ApiKey.DELETE_RECORDS: Form(Topics(("topics",), "topics", _by_name, _delete_records, DeleteRecordsResponse)),
    ApiKey.DESCRIBE_TOPIC_PARTITIONS: Form(Topics(
        ("topics",), "topics", _by_name, _describe_topic_partitions, DescribeTopicPartitionsResponse)),
    ApiKey.DESCRIBE_PRODUCERS: Form(Topics(
        ("topics",), "topics", _by_name, _describe_producers, describe_producers.DescribeProducersResponse)),
    ApiKey.DESCRIBE_CLUSTER: Form(whole=lambda request, version, error: DescribeClusterResponse(
        error_code=error, error_message=MESSAGE)),
    ApiKey.DESCRIBE_LOG_DIRS: Form(whole=_describe_log_dirs),
    ApiKey.LIST_CONFIG_RESOURCES: Form(whole=lambda request, version, error: ListConfigResourcesResponse(
        error_code=error)),
    ApiKey.DESCRIBE_TRANSACTIONS: Form(whole=_describe_transactions),
    ApiKey.LIST_TRANSACTIONS: Form(whole=lambda request, version, error: ListTransactionsResponse(error_code=error)),
    **{key: Form(whole=whole) for key, whole in GROUP_FORMS.items()},
}

SESSION_ERRORS = frozenset({
    ErrorCode.FETCH_SESSION_ID_NOT_FOUND, ErrorCode.INVALID_FETCH_SESSION_EPOCH,
    ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR})
"""What Fetch says of the whole request, from version 7 on (KIP-227)."""
SESSIONS_SINCE = 7
