"""DeleteRecords: have partitions begin at a later offset. Each answers for itself, once its new start is on disk.

Versions 0-2, which say the same. Kafka answers before the new start is on disk.
Source: KafkaApis.handleDeleteRecordsRequest, ReplicaManager.deleteRecords; KIP-107.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.metadata import INTERNAL_TOPICS
from zafka.actors.gateway.produce import route_error
from zafka.actors.gateway.questions import Questions
from zafka.actors.messages import DeleteRecords, RecordsDeleted
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsPartitionResult,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopicResult,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.DELETE_RECORDS
VERSIONS = range(3)
ADVERTISED = VERSIONS

NO_OFFSET = -1


def handle(gateway: Gateway, exchange: Exchange, request: DeleteRecordsRequest) -> None:
    response = DeleteRecordsResponse(topics=[])
    questions = Questions(gateway, exchange, response)
    for topic in request.topics:
        once = {wanted.partition_index: wanted for wanted in topic.partitions}  # the last one counts, as in Kafka
        results = [ask(gateway, questions, topic.name, wanted) for wanted in once.values()]
        if results:
            response.topics.append(DeleteRecordsTopicResult(topic.name, results))
    questions.start(request.timeout_ms / 1000)


def ask(
    gateway: Gateway, questions: Questions, topic: str, wanted: DeleteRecordsPartition
) -> DeleteRecordsPartitionResult:
    """The result of one partition, which its answer completes."""
    result = DeleteRecordsPartitionResult(wanted.partition_index, NO_OFFSET)
    route = gateway.routes.find(topic, wanted.partition_index)
    error = route_error(gateway, route, topic, wanted.partition_index)
    if topic in INTERNAL_TOPICS:
        error = ErrorCode.INVALID_TOPIC_EXCEPTION
    if error:
        result.error_code = error
        return result

    def on_deleted(answer: RecordsDeleted) -> None:
        result.low_watermark = answer.log_start_offset

    def on_error(error: int) -> None:
        result.error_code = error

    assert route is not None
    questions.ask(route, lambda request_id: DeleteRecords(request_id, wanted.offset), on_deleted, on_error)
    return result
