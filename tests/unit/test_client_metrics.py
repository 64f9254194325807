"""What clients count: their own numbers against what a broker saw, and percentiles against a sorted list."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, strategies as st

from tests.unit.client_fake_broker import FakeBroker
from zafka.client.consumer import Consumer
from zafka.client.errors import BrokerRefused
from zafka.client.metrics import Histogram, Latency
from zafka.client.producer import Producer
from zafka.client.records import TopicPartition
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(params=["kafka", "zmq"])
def broker(request: pytest.FixtureRequest) -> Iterator[FakeBroker]:
    with FakeBroker({"t": 3, "one": 1}, request.param) as broker:
        yield broker


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=300))
def test_percentiles_are_at_most_an_eighth_too_high(taken_us: list[int]) -> None:
    histogram = Histogram()
    for us in taken_us:
        histogram.add(us / 1e6 + 1e-9)
    latency = histogram.latency()
    ordered = sorted(taken_us)
    for share, told in ((500, latency.p50), (990, latency.p99), (999, latency.p999)):
        exact = ordered[min(len(ordered) * share // 1000, len(ordered) - 1)] / 1000
        assert exact <= told + 1e-9 and told <= exact * 1.125 + 0.001
    assert latency.max == ordered[-1] / 1000
    assert latency.p50 <= latency.p99 <= latency.p999 <= latency.max


def test_nothing_was_measured() -> None:
    assert Histogram().latency() == Latency(0.0, 0.0, 0.0, 0.0)


def test_what_takes_longer_than_an_hour_counts_too() -> None:
    histogram = Histogram()
    histogram.add(1e6)
    assert histogram.latency().max == 1e9


def test_a_producer_counts_what_the_broker_saw(broker: FakeBroker) -> None:
    refusals = iter([ErrorCode.NOT_LEADER_OR_FOLLOWER, None, ErrorCode.INVALID_RECORD])
    broker.fault = lambda api, when: next(refusals, None) if api is ApiKey.PRODUCE and when == "before" else None
    with Producer(broker.address, linger_ms=0) as producer:
        assert producer.metrics().records == 0
        producer.send("one", b"retried").result(5)
        with pytest.raises(BrokerRefused):
            producer.send("one", b"refused").result(5)
        producer.send_many("t", [b"x"] * 1000, keys=[b"%d" % random.randrange(100) for _ in range(1000)])
        producer.flush()
        metrics = producer.metrics()
        assert metrics.records == 1001 == sum(p.end_offset for topic in broker.topics.values() for p in topic)
        assert metrics.batches == sum(len(p.batches) for topic in broker.topics.values() for p in topic)
        assert metrics.records_failed == 1
        assert metrics.retries == 1 and metrics.errors == 2
        assert metrics.requests == broker.count(ApiKey.PRODUCE)
        assert metrics.buffered_bytes == metrics.batches_waiting == 0
        assert metrics.bytes > 1001
        assert 0 < metrics.latency.p50 <= metrics.latency.max < 30_000
        hung = threading.Event()

        def hang(api: ApiKey, when: str) -> str | None:
            if api is ApiKey.PRODUCE:
                hung.set()
                return "hang"
            return None

        broker.fault = hang
        future = producer.send("one", bytes(5000))
        waiting = producer.metrics()
        assert waiting.batches_waiting == 1 and waiting.buffered_bytes > 5000
        assert hung.wait(10)
        broker.fault = lambda api, when: None
        broker.restart()
        future.result(10)
        assert producer.metrics().connections_lost >= 1
        assert producer.metrics().buffered_bytes == 0


def test_a_consumer_counts_and_tells_its_lag(broker: FakeBroker) -> None:
    with Producer(broker.address, batch_size=2000) as producer:
        producer.send_many("one", [bytes(100)] * 100)
    log = broker.topics["one"][0]
    one = TopicPartition("one", 0)
    with Consumer("one", "t", bootstrap_servers=broker.address, auto_offset_reset="earliest") as consumer:
        assert set(consumer.metrics().lag) == consumer.assignment()
        assert len(consumer.poll(5, max_records=1)) == 1
        metrics = consumer.metrics()
        assert metrics.lag[one] == 99
        assert metrics.records < 100
        assert len(consumer.poll(5, max_records=99)) == 99
        metrics = consumer.metrics()
        assert metrics.lag[one] == 0 and metrics.records == 100
        assert metrics.batches == len(log.batches) and metrics.bytes == sum(map(len, log.batches))
        assert metrics.requests > 0 and metrics.errors == 0
        assert metrics.buffered_bytes == 0
        assert metrics.fetch_latency.max > 0
