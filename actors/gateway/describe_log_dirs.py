"""DescribeLogDirs: the sizes of the logs that lie here, and the room on their volume. A broker has one directory.

Versions 1-5. Version 4 adds the volume's size (KIP-827), 5 whether the directory takes no new partitions (KIP-1066):
it always does. Replicas that do not run, or are offline, are left out, as in Kafka.
Source: ReplicaManager.describeLogDirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.connection import Exchange
from zafka.actors.gateway.questions import TIMEOUT_S, Questions
from zafka.actors.gateway.routes import Route
from zafka.actors.messages import DescribeLog, LogDescribed
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages.describe_log_dirs import (
    DescribeLogDirsPartition,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    DescribeLogDirsResult,
    DescribeLogDirsTopic,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.DESCRIBE_LOG_DIRS
VERSIONS = range(1, 6)
ADVERTISED = VERSIONS


def handle(gateway: Gateway, exchange: Exchange, request: DescribeLogDirsRequest) -> None:
    total, usable = gateway.space()
    directory = DescribeLogDirsResult(
        log_dir=str(gateway.routes.data_dir), topics=[], total_bytes=total, usable_bytes=usable)
    questions = Questions(gateway, exchange, DescribeLogDirsResponse(results=[directory]))
    for name, routes in wanted(gateway, request).items():
        topic = DescribeLogDirsTopic(name, [])
        for route in routes:
            ask(questions, route, directory, topic)
    questions.start(TIMEOUT_S)


def wanted(gateway: Gateway, request: DescribeLogDirsRequest) -> dict[str, list[Route]]:
    """The replicas here that were asked for and run, each once."""
    by_topic = gateway.routes.by_topic
    if request.topics is None:
        found = {name: list(routes.values()) for name, routes in by_topic.items()}
    else:
        asked: dict[str, set[int]] = {}
        for topic in request.topics:
            asked.setdefault(topic.topic, set()).update(topic.partitions)
        found = {
            name: [by_topic[name][index] for index in sorted(indexes & by_topic[name].keys())]
            for name, indexes in asked.items() if name in by_topic}
    return {name: [route for route in routes if not route.refusal] for name, routes in found.items()}


def ask(questions: Questions, route: Route, directory: DescribeLogDirsResult, topic: DescribeLogDirsTopic) -> None:
    """Have a partition measure itself; one that cannot is left out."""

    def on_described(answer: LogDescribed) -> None:
        if not topic.partitions:
            directory.topics.append(topic)
        topic.partitions.append(DescribeLogDirsPartition(route.partition, answer.size_bytes, answer.offset_lag))

    questions.ask(route, DescribeLog, on_described, lambda error: None)
