"""What is answered where a change of the cluster could not be written, because the disk is full.

Owns: `refusal_of`. Pure. Every change that a client asks for has such an answer; what brokers ask for has none.
"""

from __future__ import annotations

from zafka.actors import messages
from zafka.actors.messages import TopicResult
from zafka.transport.kafka.errors import ErrorCode

NO_ID = bytes(16)
NOTHING_WRITTEN = -1  # in the place of the offset from which on it holds

Refusal = (
    messages.TopicsCreated | messages.TopicsDeleted | messages.PartitionsCreated | messages.ConfigsAltered
    | messages.ClientsAltered)


def refusal_of(request: object, reason: str) -> Refusal | None:
    """The answer to all that is asked for; None if it is to be tried again instead."""
    match request:
        case messages.CreateTopics():
            failed = [_failed(topic.name, NO_ID, reason) for topic in request.topics]
            return messages.TopicsCreated(request.request_id, failed, NOTHING_WRITTEN)
        case messages.DeleteTopics():
            failed = [_failed(name, topic_id, reason) for name, topic_id in request.topics]
            return messages.TopicsDeleted(request.request_id, failed, NOTHING_WRITTEN)
        case messages.CreatePartitions():
            failed = [_failed(more.name, NO_ID, reason) for more in request.topics]
            return messages.PartitionsCreated(request.request_id, failed, NOTHING_WRITTEN)
        case messages.AlterConfigs() | messages.AlterClients():
            outcomes = [(int(ErrorCode.KAFKA_STORAGE_ERROR), reason)] * len(request.changes)
            altered = messages.ConfigsAltered if isinstance(request, messages.AlterConfigs) else messages.ClientsAltered
            return altered(request.request_id, outcomes, NOTHING_WRITTEN)
    return None


def _failed(name: str, topic_id: bytes, reason: str) -> TopicResult:
    return TopicResult(name, ErrorCode.KAFKA_STORAGE_ERROR, reason, topic_id)
