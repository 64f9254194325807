"""Interceptors, and what one `send_many` may say of each record."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import structs

import zafka
from tests.unit.client_fake_broker import FakeBroker
from zafka.client.errors import BrokerRefused, ConfigError, RecordTooLarge, UnknownTopic
from zafka.client.producer import Producer
from zafka.storage.batch import read_header
from zafka.storage.records import Record, decode_batch
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with FakeBroker({"t": 3, "one": 1, "other": 1}) as broker:
        yield broker


def read(broker: FakeBroker, topic: str) -> list[Record]:
    return [
        record
        for part in broker.topics[topic]
        for data in part.batches
        for record in decode_batch(data, read_header(data))
    ]


class Stamp:
    """Adds a header to what is sent, and notes what became of it."""

    def __init__(self) -> None:
        self.seen: list[zafka.ProducerRecord] = []
        self.told: list[tuple[zafka.RecordMetadata, Exception | None]] = []
        self.threads: set[int] = set()

    def on_send(self, record: zafka.ProducerRecord) -> zafka.ProducerRecord:
        self.seen.append(record)
        return record._replace(headers=[*(record.headers or ()), ("stamp", b"%d" % len(self.seen))])

    def on_acknowledgement(self, metadata: zafka.RecordMetadata, error: Exception | None) -> None:
        self.threads.add(threading.get_ident())
        self.told.append((metadata, error))


class Broken:
    def on_send(self, record: Any) -> Any:
        raise ValueError("on_send is broken")

    def on_acknowledgement(self, metadata: Any, error: Any) -> None:
        raise ValueError("on_acknowledgement is broken")

    def on_consume(self, records: Any) -> Any:
        raise ValueError("on_consume is broken")


class Silent:
    def on_send(self, record: Any) -> Any:
        return None

    def on_consume(self, records: Any) -> Any:
        return None


def test_interceptors_see_and_change_what_is_sent_and_hear_of_each_record(
    broker: FakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    stamp = Stamp()
    with Producer(broker.address, value_serializer=str.encode, interceptors=[Broken(), stamp, Silent()]) as producer:
        future = producer.send("one", "1", key=b"k", headers=[("own", b"x")], timestamp_ms=17)
        spans = producer.send_many("one", ["2", "3"], keys=[b"a", None]).result(10)
        producer.flush()
        assert [(where.offset, error) for where, error in stamp.told] == [(0, None), (1, None), (2, None)]
        assert stamp.told[0][0] == future.result(0) == ("one", 0, 0, 17)
        assert [(span.base_offset, span.record_count) for span in spans] == [(1, 2)]
    assert stamp.seen == [
        zafka.ProducerRecord("one", "1", b"k", [("own", b"x")], None, 17),
        zafka.ProducerRecord("one", "2", b"a"),
        zafka.ProducerRecord("one", "3"),
    ]
    assert [(record.key, record.value, list(record.headers)) for record in read(broker, "one")] == [
        (b"k", b"1", [("own", b"x"), ("stamp", b"1")]),
        (b"a", b"2", [("stamp", b"2")]),
        (None, b"3", [("stamp", b"3")]),
    ]
    for said in ("on_send is broken", "on_acknowledgement is broken", "returned None, not a ProducerRecord"):
        assert said in caplog.text


def test_interceptors_hear_of_failures_and_of_what_send_refuses(broker: FakeBroker) -> None:
    stamp = Stamp()
    broker.fault = lambda api, when: ErrorCode.INVALID_RECORD if api is ApiKey.PRODUCE and when == "before" else None
    with Producer(broker.address, max_request_size=10_000, interceptors=[stamp]) as producer:
        with pytest.raises(BrokerRefused):
            producer.send("one", b"refused by the broker").result(10)
        with pytest.raises(RecordTooLarge):
            producer.send("one", bytes(20_000), partition=0, timestamp_ms=5)
        with pytest.raises(UnknownTopic):
            producer.send("nowhere", b"x")
        with pytest.raises(TypeError):
            producer.send("one", 7)
        producer.flush()
    (first, *refused) = stamp.told
    assert (first[0].topic, first[0].partition, first[0].offset) == ("one", 0, -1)
    assert isinstance(first[1], BrokerRefused)
    assert [(where, type(error)) for where, error in refused] == [
        (("one", 0, -1, 5), RecordTooLarge), (("nowhere", -1, -1, -1), UnknownTopic), (("one", -1, -1, -1), TypeError),
    ]  # fmt: skip


def test_failures_that_only_interceptors_heard_of_are_still_raised(broker: FakeBroker) -> None:
    broker.fault = lambda api, when: ErrorCode.INVALID_RECORD if api is ApiKey.PRODUCE and when == "before" else None
    producer = Producer(broker.address, interceptors=[Stamp()])
    producer.send("one", b"x")
    with pytest.raises(zafka.ZafkaError, match="1 records failed"):
        producer.close()


def test_an_interceptor_may_send_a_record_elsewhere(broker: FakeBroker) -> None:
    class Elsewhere:
        def on_send(self, record: zafka.ProducerRecord) -> zafka.ProducerRecord:
            return record._replace(topic="other") if record.value == b"moved" else record

    with Producer(broker.address, interceptors=[Elsewhere()]) as producer:
        deliveries = producer.send_many("one", [b"stays", b"moved", b"stays"])
        assert [(span.topic, span.record_count) for span in deliveries.result(10)] == [("one", 1), ("other", 1), ("one", 1)]
    assert [record.value for record in read(broker, "other")] == [b"moved"]


def test_async_interceptors_are_told_in_the_loop(broker: FakeBroker) -> None:
    stamp = Stamp()

    async def main() -> None:
        async with zafka.AsyncProducer(broker.address, interceptors=[stamp]) as producer:
            await (await producer.send("one", b"1"))
            await (await producer.send_many("one", [b"2", b"3"]))

    asyncio.run(main())
    assert [where.offset for where, _ in stamp.told] == [0, 1, 2]
    assert stamp.threads == {threading.get_ident()}


def test_consumed_records_may_be_changed_and_left_out(broker: FakeBroker, caplog: pytest.LogCaptureFixture) -> None:
    class Odd:
        def on_consume(self, records: list[zafka.Record]) -> list[zafka.Record]:
            return [structs.replace(record, key=b"odd") for record in records if int(record.value or b"") % 2]

    with Producer(broker.address, batch_size=100) as producer:
        producer.send_many("one", [b"%d" % number for number in range(100)])
    with zafka.Consumer(
        "one", bootstrap_servers=broker.address, auto_offset_reset="earliest", interceptors=[Broken(), Odd(), Silent()]
    ) as consumer:
        got = [next(iter(consumer)) for _ in range(10)]
        assert [(record.offset, record.key) for record in got] == [(number, b"odd") for number in range(1, 20, 2)]
        assert consumer.position(("one", 0)) in (20, 21)
        while len(got) < 50:
            got += consumer.poll(5)
        assert [record.offset for record in got] == list(range(1, 100, 2))
        assert consumer.metrics().records == 100
    assert "on_consume is broken" in caplog.text and "returned None, not a list" in caplog.text


def test_what_is_no_interceptor_is_refused(broker: FakeBroker) -> None:
    with pytest.raises(ConfigError, match="on_send or on_acknowledgement; 'x' has none"):
        Producer(broker.address, interceptors=["x"])
    with pytest.raises(ConfigError, match="on_consume"):
        zafka.Consumer("one", bootstrap_servers=broker.address, interceptors=[Stamp()])


# -- a time and headers for each record of one send_many -----------------------------------------


@pytest.mark.parametrize("keys", [None, [b"k%d" % (number % 5) for number in range(2500)]], ids=["", "keys"])
def test_times_and_headers_of_each_record(broker: FakeBroker, keys: list[bytes] | None) -> None:
    count = 2500  # several chunks
    times = [1_700_000_000_000 + number * (-1) ** number for number in range(count)]
    headers = [None if number % 3 else {"n": b"%d" % number, "empty": None} for number in range(count)]
    with Producer(broker.address) as producer:
        deliveries = producer.send_many(
            "t", (b"%d" % number for number in range(count)), keys=keys, timestamps_ms=iter(times), headers_each=iter(headers)
        )
        assert len(deliveries) == count
        deliveries.result(10)
    found = sorted(read(broker, "t"), key=lambda record: int(record.value or b""))
    assert [record.timestamp for record in found] == times
    assert [dict(record.headers) or None for record in found] == headers
    assert [record.key for record in found] == (keys or [None] * count)


def test_times_and_headers_of_each_record_async(broker: FakeBroker) -> None:
    async def main() -> None:
        async with zafka.AsyncProducer(broker.address) as producer:
            await (await producer.send_many("one", [b"1", b"2"], timestamps_ms=[5, 4], headers_each=[[("a", b"x")], ()]))

    asyncio.run(main())
    assert [(record.timestamp, list(record.headers)) for record in read(broker, "one")] == [(5, [("a", b"x")]), (4, [])]


def test_what_is_refused_of_each_record(broker: FakeBroker) -> None:
    with Producer(broker.address, max_request_size=10_000) as producer:
        for arguments, kind, what in (
            ({"timestamps_ms": [1]}, ConfigError, "timestamps_ms has fewer elements"),
            ({"headers_each": [None]}, ConfigError, "headers_each has fewer elements"),
            ({"timestamps_ms": [1, -1]}, ConfigError, "milliseconds since 1970"),
            ({"headers_each": [None, [("a",)]]}, TypeError, "headers must be"),
            ({"headers_each": [None, {"a": bytes(10_000)}]}, RecordTooLarge, "max_request_size"),
            ({"headers_each": [None, None], "headers": {"a": b"b"}}, ConfigError, "not both"),
            ({"timestamps_ms": [1, 2], "timestamp_ms": 1}, ConfigError, "not both"),
        ):
            with pytest.raises(kind, match=what):
                producer.send_many("one", [b"1", b"2"], **arguments)
    assert not read(broker, "one")
