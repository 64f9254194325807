"""Tests of a small service, on a real broker that starts once for all of them. pytest examples/test_orders.py"""

from __future__ import annotations

import json

import pytest

import zafka
from zafka.testing import Broker


def place_order(producer: zafka.Producer, topic: str, customer: str, total: float) -> int:
    """The service: what is acknowledged is on disk."""
    order = json.dumps({"customer": customer, "total": total})
    return producer.send(topic, order.encode(), key=customer.encode()).result(10).offset


def totals(bootstrap: str, topic: str) -> dict[str, float]:
    """What each customer has ordered so far."""
    found: dict[str, float] = {}
    with zafka.Consumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        for record in consumer.records(timeout=0.5):
            assert record.value is not None
            order = json.loads(record.value)
            found[order["customer"]] = found.get(order["customer"], 0.0) + order["total"]
    return found


@pytest.mark.zafka_topic(partitions=3)
def test_totals_are_counted_over_all_partitions(kafka_bootstrap: str, zafka_topic: str) -> None:
    with zafka.Producer(kafka_bootstrap) as producer:
        for customer, total in (("ann", 5.0), ("bob", 7.0), ("ann", 2.5)):
            place_order(producer, zafka_topic, customer, total)
    assert totals(kafka_bootstrap, zafka_topic) == {"ann": 7.5, "bob": 7.0}


def test_no_order_is_lost_when_the_broker_is_killed(zafka_broker: Broker, kafka_bootstrap: str, zafka_topic: str) -> None:
    with zafka.Producer(kafka_bootstrap) as producer:
        place_order(producer, zafka_topic, "ann", 1.0)
        zafka_broker.kill("broker 1")
        assert place_order(producer, zafka_topic, "ann", 2.0) == 1
    assert totals(kafka_bootstrap, zafka_topic) == {"ann": 3.0}
