"""A batch that is perhaps written must be sent again under the same numbers: nothing that we say may have a client do else.

librdkafka gives all its partitions a new epoch when one of them tells it OUT_OF_ORDER_SEQUENCE_NUMBER behind a batch
that failed (rd_kafka_handle_idempotent_Produce_error), and sends again what is in doubt anywhere, with new numbers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from zafka.testing import Broker

WAIT_S = 60.0
BACKOFF_MS = 3000  # the batch in doubt is not sent again before all else has happened
LATE_S = 0.5


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker({"doubt": 1, "full": 1}) as broker:
        yield broker


def wait_for_hit(broker: Broker, rule: int) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not next(each["hits"] for each in broker.faults() if each["id"] == rule):
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.02)


def values(broker: Broker, topic: str, count: int) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": "none"})
    try:
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=WAIT_S)
        consumer.assign([TopicPartition(topic, 0, 0)])
        found: list[bytes] = []
        while len(found) < max(end, count):
            [message] = consumer.consume(1, timeout=WAIT_S)
            assert message.error() is None
            found.append(message.value() or b"")
        return found
    finally:
        consumer.close()


def test_what_is_in_doubt_in_one_partition_is_not_doubled_by_a_full_disk_in_another(broker: Broker) -> None:
    producer = Producer({
        "bootstrap.servers": broker.bootstrap_servers, "enable.idempotence": True, "linger.ms": 0,
        "retry.backoff.ms": BACKOFF_MS, "retry.backoff.max.ms": BACKOFF_MS})
    for topic in ("doubt", "full"):
        producer.produce(topic, b"0", partition=0)
    assert producer.flush(WAIT_S) == 0
    broker.delay("partition full-0", "broker 1", LATE_S)
    written = broker.crash_at("partition doubt-0", "before-ack", times=1)
    producer.produce("doubt", b"in doubt", partition=0)
    wait_for_hit(broker, written)
    refused = broker.disk_error("partition full-0", "ENOSPC", times=1)
    producer.produce("full", b"refused", partition=0)
    wait_for_hit(broker, refused)
    producer.produce("full", b"behind it", partition=0)  # sent before the client knows of the one before
    assert producer.flush(WAIT_S) == 0
    assert values(broker, "doubt", 2) == [b"0", b"in doubt"]
    assert values(broker, "full", 3) == [b"0", b"refused", b"behind it"]
