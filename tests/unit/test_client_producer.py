"""The producer against a broker of one thread, through both doors, with everything that may go wrong in between."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.unit.client_fake_broker import VERSIONS, FakeBroker
from zafka.client.batches import RecordMetadata
from zafka.client.errors import (
    BrokerRefused,
    BufferFull,
    ClientClosed,
    ConfigError,
    DeliveryFailed,
    DeliveryTimeout,
    NoBroker,
    NotSupportedYet,
    RecordTooLarge,
    RequestTimedOut,
    UnknownTopic,
)
from zafka.client.producer import Producer
from zafka.storage.batch import read_header
from zafka.storage.records import Record, decode_batch
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(params=["kafka", "zmq"])
def broker(request: pytest.FixtureRequest) -> Iterator[FakeBroker]:
    with FakeBroker({"t": 3, "one": 1}, request.param) as broker:
        yield broker


def read(broker: FakeBroker, topic: str, partition: int) -> list[Record]:
    return [
        record._replace(offset=read_header(data).base_offset + record.offset)
        if not read_header(data).base_offset
        else record
        for data in broker.topics[topic][partition].batches
        for record in decode_batch(data, read_header(data))
    ]


def test_a_record_and_its_future(broker: FakeBroker) -> None:
    with Producer(broker.address) as producer:
        future = producer.send("one", b"value", key=b"key", headers={"h": b"1", "null": None}, timestamp_ms=1234)
        assert future.result(5) == RecordMetadata("one", 0, 0, 1234)
        assert future.done() and future.exception() is None
    (record,) = read(broker, "one", 0)
    assert record == (0, 1234, b"key", b"value", [("h", b"1"), ("null", None)])


def test_many_values_and_their_spans(broker: FakeBroker) -> None:
    values = [b"%d" % number for number in range(5000)]
    with Producer(broker.address, batch_size=4096) as producer:
        spans = producer.send_many("t", values).result(5)
    assert sum(span.record_count for span in spans) == 5000
    assert {span.partition for span in spans} == {0, 1, 2}
    got = [
        record.value
        for span in spans
        for record in read(broker, "t", span.partition)[span.base_offset : span.base_offset + span.record_count]
    ]
    assert got == values


def test_keys_keep_their_partition_and_order(broker: FakeBroker) -> None:
    keys = [b"k%d" % (number % 7) for number in range(700)]
    with Producer(broker.address) as producer:
        assert len(producer.send_many("t", [b"%d" % number for number in range(700)], keys=keys)) == 700
        producer.send("t", b"700", key=b"k0")
        with pytest.raises(ConfigError, match="fewer"):
            producer.send_many("t", [b"1", b"2"], keys=[b"k"])
    for key in set(keys):
        homes = [part for part in range(3) if any(record.key == key for record in read(broker, "t", part))]
        assert len(homes) == 1
        numbers = [int(record.value or b"") for record in read(broker, "t", homes[0]) if record.key == key]
        assert numbers == sorted(numbers)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_codecs(codec: str) -> None:
    with FakeBroker({"one": 1}) as broker:
        with Producer(broker.address, compression_type=codec) as producer:
            producer.send_many("one", [b"x" * 100] * 100)
        assert len(broker.topics["one"][0].batches[0]) < 1000
        assert len(read(broker, "one", 0)) == 100


def test_retries_keep_order_and_duplicate_nothing(broker: FakeBroker) -> None:
    """Lost answers, dropped connections, an error that passes, a restart: the log has each record once, in order."""
    troubles = iter(["lose", None, "drop", ErrorCode.NOT_LEADER_OR_FOLLOWER, None, "lose", "lose", None] * 3)

    def fault(api: ApiKey, when: str) -> str | int | None:
        if api is not ApiKey.PRODUCE or when == "after":
            return "lose" if api is ApiKey.PRODUCE and lost.pop() else None
        trouble = next(troubles, None)
        lost[:] = [trouble == "lose"]
        return None if trouble == "lose" else trouble

    lost = [False]
    broker.fault = fault
    with Producer(broker.address, linger_ms=0, batch_size=200) as producer:
        futures = [producer.send("one", b"%d" % number) for number in range(200)]
        futures[20].result(10)
        broker.restart()
        assert [future.result(10).offset for future in futures] == list(range(200))
    assert [record.value for record in read(broker, "one", 0)] == [b"%d" % number for number in range(200)]


def test_what_is_sent_during_an_outage_leaves_in_large_batches(broker: FakeBroker) -> None:
    """Else the backlog is thousands of batches of a record or two, and a request for each."""
    is_out = threading.Event()
    broker.fault = lambda api, when: ErrorCode.NOT_LEADER_OR_FOLLOWER if api is ApiKey.PRODUCE and is_out.is_set() else None
    with Producer(broker.address, linger_ms=0) as producer:
        producer.send("one", b"0").result(10)
        is_out.set()
        futures = []
        for number in range(1, 400):
            futures.append(producer.send("one", b"%d" % number))
            threading.Event().wait(0.001)  # longer than linger: each alone would be a batch of its own
        is_out.clear()
        assert [future.result(10).offset for future in futures] == list(range(1, 400))
    assert len(broker.topics["one"][0].batches) < 20
    assert [record.value for record in read(broker, "one", 0)] == [b"%d" % number for number in range(400)]


def test_a_broker_that_hangs_is_left_after_request_timeout(broker: FakeBroker) -> None:
    hangs = iter([True])
    broker.fault = lambda api, when: "hang" if api is ApiKey.PRODUCE and next(hangs, False) else None
    with Producer(broker.address, request_timeout=0.3) as producer:
        assert producer.send("one", b"x").result(5).offset == 0


def test_delivery_timeout_names_the_obstacle(broker: FakeBroker) -> None:
    with Producer(broker.address, delivery_timeout=0.5) as producer:
        producer.send("one", b"1").result(5)
        broker.stop()
        future = producer.send("one", b"2")
        with pytest.raises(DeliveryTimeout, match=r"one-0 .* within 0.5 s .*127.0.0.1"):
            future.result(5)
        producer.close()


def test_a_new_epoch_after_a_refused_batch(broker: FakeBroker) -> None:
    """A hole in the sequence: what comes behind goes on, in order."""
    refuse = iter([None, ErrorCode.INVALID_RECORD])
    broker.fault = lambda api, when: next(refuse, None) if api is ApiKey.PRODUCE and when == "before" else None
    with Producer(broker.address, linger_ms=0) as producer:
        assert producer.send("one", b"0").result(5).offset == 0
        with pytest.raises(BrokerRefused, match="one-0 refused a batch of 1 records: INVALID_RECORD"):
            producer.send("one", b"1").result(5)
        assert producer.send("one", b"2").result(5).offset == 1
    assert [read_header(data).producer_epoch for data in broker.topics["one"][0].batches] == [0, 1]


def test_failures_nobody_looked_at_are_raised_by_flush_and_close(broker: FakeBroker) -> None:
    broker.fault = lambda api, when: ErrorCode.MESSAGE_TOO_LARGE if api is ApiKey.PRODUCE and when == "before" else None
    producer = Producer(broker.address)
    producer.send_many("one", [b"x"] * 10)
    with pytest.raises(DeliveryFailed, match=r"10 records failed.*smaller batch_size"):
        producer.flush()
    producer.flush()
    producer.send("one", b"x")
    with pytest.raises(DeliveryFailed, match="1 records failed"):
        producer.close()
    producer.close()
    with Producer(broker.address) as producer:
        assert isinstance(producer.send("one", b"x").exception(5), BrokerRefused)


def test_callbacks(broker: FakeBroker, caplog: pytest.LogCaptureFixture) -> None:
    called = threading.Event()
    with Producer(broker.address) as producer:
        future = producer.send("one", b"x")
        future.add_done_callback(lambda done: 1 / 0)
        future.add_done_callback(lambda done: called.set() if done.result().offset == 0 else None)
        assert called.wait(5)
        late = threading.Event()
        future.add_done_callback(lambda done: late.set())
        assert late.is_set()
    assert "a delivery callback raised" in caplog.text


def test_acks(broker: FakeBroker) -> None:
    with Producer(broker.address, acks=0) as producer:
        assert producer.send("one", b"0").result(5).offset == -1
    with Producer(broker.address, acks=1) as producer:
        assert producer.send("one", b"1").result(5).offset == 1
    acks = [request.acks for api, request in broker.requests if api is ApiKey.PRODUCE]
    assert acks == [0, 1]
    assert all(read_header(data).producer_id == -1 for data in broker.topics["one"][0].batches)


def test_buffer_memory_blocks_then_raises(broker: FakeBroker) -> None:
    broker.fault = lambda api, when: "hang" if api is ApiKey.PRODUCE else None
    producer = Producer(broker.address, buffer_memory=10_000, max_block=0.3, delivery_timeout=60)
    with pytest.raises(BufferFull, match="buffer_memory is 10000"):
        for _ in range(100):
            producer.send("one", bytes(1000))
    with pytest.raises(BufferFull):
        producer.send_many("one", [bytes(1000)] * 100)
    assert producer._accumulator.buffered_bytes < 10_000 + producer._accumulator.batch_size
    with pytest.raises(DeliveryFailed, match="10 records failed"):
        producer.close(timeout=0.1)
    assert producer._accumulator.buffered_bytes == 0


def test_back_pressure_lets_everything_through(broker: FakeBroker) -> None:
    with Producer(broker.address, buffer_memory=20_000, batch_size=5_000) as producer:
        producer.send_many("t", [bytes(100)] * 5000)
        for _ in range(500):
            producer.send("t", bytes(100))
    assert sum(part.end_offset for part in broker.topics["t"]) == 5500
    assert producer._accumulator.buffered_bytes == 0


def test_close_gives_up_what_is_not_acknowledged(broker: FakeBroker) -> None:
    broker.fault = lambda api, when: "hang" if api is ApiKey.PRODUCE else None
    producer = Producer(broker.address)
    future = producer.send("one", b"x")
    with pytest.raises(DeliveryFailed):
        producer.close(timeout=0.2)
    assert isinstance(future.exception(1), ClientClosed)
    with pytest.raises(ClientClosed):
        producer.send("one", b"x")
    with pytest.raises(ClientClosed):
        producer.flush()


def test_an_error_inside_with_is_not_hidden(broker: FakeBroker) -> None:
    broker.fault = lambda api, when: "hang" if api is ApiKey.PRODUCE else None
    with pytest.raises(KeyboardInterrupt), Producer(broker.address) as producer:
        producer.send("one", b"x")
        raise KeyboardInterrupt


def test_flush_and_result_have_timeouts(broker: FakeBroker) -> None:
    broker.fault = lambda api, when: "hang" if api is ApiKey.PRODUCE else None
    producer = Producer(broker.address)
    future = producer.send("one", b"x")
    with pytest.raises(RequestTimedOut):
        future.result(0.05)
    with pytest.raises(RequestTimedOut, match="1 batches"):
        producer.flush(timeout=0.05)
    with pytest.raises(DeliveryFailed):
        producer.close(timeout=0.05)


def test_what_send_refuses(broker: FakeBroker) -> None:
    with Producer(broker.address, max_request_size=10_000) as producer:
        with pytest.raises(UnknownTopic, match="zafka topic create nowhere"):
            producer.send("nowhere", b"x")
        with pytest.raises(TypeError, match=r"must be bytes or None, not str: encode it"):
            producer.send("one", "x")
        with pytest.raises(TypeError, match="value_serializer"):
            producer.send_many("one", [{"a": 1}])
        with pytest.raises(TypeError, match="several values"):
            producer.send_many("one", b"abc")
        with pytest.raises(TypeError, match="headers"):
            producer.send("one", b"x", headers=[("a",)])  # type: ignore[list-item]
        with pytest.raises(RecordTooLarge, match="max_request_size=10000"):
            producer.send("one", bytes(10_000))
        with pytest.raises(RecordTooLarge):
            producer.send_many("one", [b"x", bytes(10_000)])
        with pytest.raises(ConfigError, match="partitions 0 to 0, not 1"):
            producer.send("one", b"x", partition=1)
        assert producer.send("one", bytearray(b"ok")).result(5).offset == 0


def test_serializers(broker: FakeBroker) -> None:
    with Producer(broker.address, key_serializer=str.encode, value_serializer=lambda value: b"%d" % value) as producer:
        producer.send("one", 1, key="k")
        producer.send_many("one", [2, 3], keys=["a", "b"])
    assert [(record.key, record.value) for record in read(broker, "one", 0)] == [
        (b"k", b"1"),
        (b"a", b"2"),
        (b"b", b"3"),
    ]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "tcp://127.0.0.1:1", "ipc:///nowhere/door", "nosuchhost.invalid:1"])
def test_nobody_at_the_address(address: str) -> None:
    with pytest.raises(NoBroker, match=r"no broker answers at .*zafka up") as raised:
        Producer(address, bootstrap_timeout=0.2)
    assert address in str(raised.value)


def test_the_first_contact_may_take_as_long_as_it_is_given() -> None:
    """A broker that comes back may take longer than a connection."""
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(NoBroker):
        Producer(f"127.0.0.1:{silent.getsockname()[1]}", connect_timeout=0.05, bootstrap_timeout=2.2)


def test_the_other_door_is_recognised() -> None:
    with FakeBroker({}, "zmq") as broker, pytest.raises(NoBroker, match=f"write tcp://127.0.0.1:{broker.port}"):
        Producer(f"127.0.0.1:{broker.port}", bootstrap_timeout=0.2)
    with FakeBroker({}, "kafka") as broker, pytest.raises(NoBroker, match="write host:port without tcp://"):
        Producer(f"tcp://127.0.0.1:{broker.port}", bootstrap_timeout=0.2)


def test_configuration_mistakes() -> None:
    for arguments, what in (
        ({"acks": 2}, "acks must be one of"),
        ({"acks": 1, "enable_idempotence": True}, "enable_idempotence needs"),
        ({"compression_type": "zip"}, "compression_type must be one of"),
        ({"max_in_flight": 6}, "at most 5"),
        ({"linger_ms": -1}, "linger_ms"),
        ({"batch_size": 0}, "batch_size"),
        ({"delivery_timeout": "1"}, "delivery_timeout"),
        ({"bootstrap_servers": "x:y"}, "port"),
    ):
        with pytest.raises(ConfigError, match=what):
            Producer(**arguments)


def test_an_old_broker_and_one_without_idempotence() -> None:
    old = {**VERSIONS, ApiKey.API_VERSIONS: (0, 0), ApiKey.PRODUCE: (0, 3), ApiKey.METADATA: (0, 4)}
    del old[ApiKey.INIT_PRODUCER_ID]
    with FakeBroker({"one": 1}, versions=old) as broker:
        with Producer(broker.address) as producer, pytest.raises(NotSupportedYet, match="INIT_PRODUCER_ID"):
            producer.send("one", b"x").result(5)
        with Producer(broker.address, enable_idempotence=False) as producer:
            assert producer.send("one", b"x").result(5).offset == 0


def test_threads_share_a_producer(broker: FakeBroker) -> None:
    with Producer(broker.address, linger_ms=1) as producer:

        def work(number: int) -> None:
            for index in range(200):
                producer.send("one", b"%d %d" % (number, index))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    values = [(record.value or b"").split() for record in read(broker, "one", 0)]
    assert len(values) == 800
    for number in range(4):
        assert [int(index) for who, index in values if int(who) == number] == list(range(200))


def test_a_crash_of_the_io_thread_is_told_to_everybody(broker: FakeBroker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    producer = Producer(broker.address)
    future = producer.send("one", b"x", partition=0)
    producer._core.io.call(lambda: next(iter(())))
    assert future.exception(5) is None or isinstance(future.exception(5), ClientClosed)
    with pytest.raises(ClientClosed, match="died"):
        for _ in range(1000):
            producer.send("one", b"x").result(5)
    producer._accumulator.take_unseen_failures()
    producer.close()
