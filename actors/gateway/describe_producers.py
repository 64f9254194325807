"""DescribeProducers: the idempotent producers that a partition remembers.

Version 0. There are no transactions yet, so none is ever open.
Source: ReplicaManager.activeProducerState; KIP-664.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.describe_topic_partitions import why_missing
from zafka.actors.gateway.produce import route_error
from zafka.actors.gateway.questions import TIMEOUT_S, Questions
from zafka.actors.messages import DescribeProducers, ProducersDescribed
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages.describe_producers import (
    DescribeProducersRequest,
    DescribeProducersResponse,
    PartitionResponse,
    ProducerState,
    TopicResponse,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.DESCRIBE_PRODUCERS
VERSIONS = range(1)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: DescribeProducersRequest) -> None:
    exchange.run_alone()
    response = DescribeProducersResponse(topics=[])
    questions = Questions(gateway, exchange, response)
    # Each partition once, or a small request could have a huge answer.
    wanted: dict[str, dict[int, None]] = {}
    for topic in request.topics:
        wanted.setdefault(topic.name, {}).update(dict.fromkeys(topic.partition_indexes))
    for name, indexes in wanted.items():
        response.topics.append(TopicResponse(name, [ask(gateway, questions, name, index) for index in indexes]))
    questions.start(TIMEOUT_S)


def ask(gateway: Gateway, questions: Questions, topic: str, partition: int) -> PartitionResponse:
    """The answer for one partition, which its own completes."""
    response = PartitionResponse(partition, active_producers=[])
    route = gateway.routes.find(topic, partition)
    response.error_code = route_error(gateway, route, topic, partition)
    if topic not in gateway.cluster.topics_by_name:
        response.error_code, response.error_message = why_missing(topic)
    if response.error_code:
        return response

    def on_described(answer: ProducersDescribed) -> None:
        response.active_producers = [ProducerState(*producer) for producer in answer.producers]

    def on_error(error: int) -> None:
        response.error_code = error

    assert route is not None
    questions.ask(route, DescribeProducers, on_described, on_error)
    return response
