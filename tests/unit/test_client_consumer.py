"""The consumer against a broker of one thread, through both doors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from tests.unit.client_fake_broker import FakeBroker, FakePartition
from zafka.client.consumer import Consumer
from zafka.client.errors import (
    BrokerRefused,
    ClientClosed,
    ConfigError,
    CorruptRecords,
    NotSupportedYet,
    OffsetOutOfRange,
    RequestTimedOut,
    UnknownTopic,
)
from zafka.client.fetcher import Fetcher, FetchOptions, next_offset_of
from zafka.client.records import Record, TopicPartition
from zafka.client.waiting import run, until
from zafka.storage.records import encode_batch
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import MetadataRequest
from zafka.transport.kafka.messages.fetch import FetchableTopicResponse, FetchResponse, PartitionData

pytestmark = pytest.mark.timeout(30)

ONE = TopicPartition("one", 0)


def fill(partition: FakePartition, count: int, per_batch: int = 10) -> None:
    for start in range(0, count, per_batch):
        records = [(1000 + number, None, b"%d" % number, ()) for number in range(start, start + per_batch)]
        partition.append(memoryview(encode_batch(records)))


@pytest.fixture(params=["kafka", "zmq"])
def broker(request: pytest.FixtureRequest) -> Iterator[FakeBroker]:
    with FakeBroker({"t": 3, "one": 1, "empty": 2}, request.param) as broker:
        for partition in (*broker.topics["t"], *broker.topics["one"]):
            fill(partition, 100)
        yield broker


def offsets(records: list[Record]) -> list[int]:
    return [record.offset for record in records]


def test_all_partitions_of_a_topic_in_order(broker: FakeBroker) -> None:
    with Consumer("t", bootstrap_servers=broker.address, auto_offset_reset="earliest") as consumer:
        assert consumer.assignment() == {TopicPartition("t", number) for number in range(3)}
        records = list(islice(consumer, 300))
        for number in range(3):
            part = [record for record in records if record.partition == number]
            assert offsets(part) == list(range(100))
            assert [record.value for record in part] == [b"%d" % index for index in range(100)]
            assert consumer.position(("t", number)) == 100
        assert records[0].timestamp == 1000 and records[0].timestamp_type == 0 and records[0].key is None


def test_batches_end_after_their_timeout(broker: FakeBroker) -> None:
    with Consumer("one", bootstrap_servers=broker.address, auto_offset_reset="earliest") as consumer:
        batches = list(consumer.batches(max_records=30, timeout=0.2))
        assert [record for batch in batches for record in offsets(batch)] == list(range(100))
        assert all(0 < len(batch) <= 30 for batch in batches)
        assert consumer.poll(timeout=0.05) == []


def test_latest_begins_after_what_is_there(broker: FakeBroker) -> None:
    with Consumer("one", bootstrap_servers=broker.address) as consumer:
        assert consumer.position(ONE) == 100
        fill(broker.topics["one"][0], 10)
        assert offsets(consumer.poll(timeout=5)) == list(range(100, 110))


def test_assign_seek_and_position(broker: FakeBroker) -> None:
    with Consumer(bootstrap_servers=broker.address, auto_offset_reset="earliest") as consumer:
        consumer.assign([ONE, ("t", 1)])
        consumer.seek(ONE, 95)
        consumer.seek(("t", 1), 98)
        got = sorted((record.topic, record.offset) for record in islice(consumer, 7))
        assert got == [("one", offset) for offset in range(95, 100)] + [("t", 98), ("t", 99)]
        consumer.seek_to_beginning(ONE)
        assert consumer.position(ONE) == 0
        assert consumer.poll(timeout=5, max_records=3)[0].offset == 0
        assert consumer.position(ONE) == 3
        consumer.seek_to_end()
        assert consumer.position(ONE) == 100
        assert consumer.poll(timeout=0.1) == []


def test_an_answer_for_what_was_assigned_before_is_not_handed_out() -> None:
    """A fetch waits at the end of a partition; the same partition is assigned anew, and only then the answer comes."""
    nobody: Any = None  # the cluster is not asked
    fetcher = Fetcher(nobody, FetchOptions(None, 1, 1000, 1000, 0.5, 30.0), lambda: None)
    fetcher.assign({ONE: None})
    flight = fetcher._take_off(1, list(fetcher.readings.values()))
    fetcher.assign({ONE: None})
    records = memoryview(encode_batch([(1000, None, b"new", ())]))
    part = PartitionData(0, high_watermark=101, last_stable_offset=101, log_start_offset=0, records=records)
    fetcher._on_fetched(1, flight, FetchResponse(responses=[FetchableTopicResponse(topic="one", partitions=[part])]), None)
    assert not fetcher.chunks


def test_seek_while_iterating(broker: FakeBroker) -> None:
    with Consumer("one", bootstrap_servers=broker.address, auto_offset_reset="earliest") as consumer:
        seen = []
        for record in consumer:
            seen.append(record.offset)
            assert consumer.position(ONE) == record.offset + 1
            if record.offset == 3:
                consumer.seek(ONE, 97)
            if record.offset == 99:
                break
        assert seen == [0, 1, 2, 3, 97, 98, 99]


def test_a_new_iteration_goes_on_where_the_last_one_ended(broker: FakeBroker) -> None:
    with Consumer("one", bootstrap_servers=broker.address, auto_offset_reset="earliest") as consumer:
        assert offsets(list(islice(consumer, 7))) == list(range(7))
        assert offsets(consumer.poll(5, max_records=2)) == [7, 8]
        assert offsets(list(islice(consumer.records(), 3))) == [9, 10, 11]


def test_pause_and_resume(broker: FakeBroker) -> None:
    with Consumer("one", bootstrap_servers=broker.address, auto_offset_reset="earliest") as consumer:
        assert offsets(consumer.poll(5, max_records=3)) == [0, 1, 2]
        consumer.pause(ONE)
        assert consumer.paused() == {ONE}
        assert consumer.poll(0.2) == []
        assert consumer.position(ONE) == 3
        consumer.resume(ONE)
        assert offsets(consumer.poll(5, max_records=2)) == [3, 4]


def test_offsets(broker: FakeBroker) -> None:
    with Consumer(bootstrap_servers=broker.address) as consumer:
        assert consumer.beginning_offsets([ONE, ("empty", 1)]) == {ONE: 0, ("empty", 1): 0}
        assert consumer.end_offsets([ONE, ("empty", 1)]) == {ONE: 100, ("empty", 1): 0}
        assert consumer.partitions_for_topic("t") == {0, 1, 2}
        assert consumer.topics() == {"t", "one", "empty"}


def test_offsets_for_times(broker: FakeBroker) -> None:
    with Consumer(bootstrap_servers=broker.address) as consumer:
        assert consumer.offsets_for_times({ONE: 0, ("t", 1): 1050, ("t", 2): 1100, ("empty", 0): 0}) == {
            ONE: (0, 1000), ("t", 1): (50, 1050), ("t", 2): None, ("empty", 0): None}


def test_offsets_are_asked_for_again_where_that_may_help_and_only_where_they_are_missing(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, refused = [("empty", 0), ("empty", 1)], ErrorCode.NOT_LEADER_OR_FOLLOWER
    with Consumer(bootstrap_servers=broker.address) as consumer:
        assert consumer.end_offsets(where) == {("empty", 0): 0, ("empty", 1): 0}
        answered, asked = broker._list_offsets, broker.count(ApiKey.METADATA)

        def until_somebody_looks_who_leads(request: Any, fault: Any) -> Any:
            answer = answered(request, fault)
            last = answer.topics[0].partitions[-1]
            last.error_code = refused if broker.count(ApiKey.METADATA) == asked else ErrorCode.NONE
            return answer

        monkeypatch.setattr(broker, "_list_offsets", until_somebody_looks_who_leads)
        assert consumer.end_offsets(where, timeout=10.0) == {("empty", 0): 0, ("empty", 1): 0}
        asked_of = [
            [part.partition_index for part in request.topics[0].partitions]
            for api, request in broker.requests if api is ApiKey.LIST_OFFSETS]
        assert asked_of[:2] == [[0, 1]] * 2 and asked_of[2:] == [[1]] * len(asked_of[2:])
        asked, refused = broker.count(ApiKey.METADATA), ErrorCode.TOPIC_AUTHORIZATION_FAILED
        with pytest.raises(BrokerRefused, match="no offsets of empty-1: TOPIC_AUTHORIZATION_FAILED"):
            consumer.end_offsets(where)


def test_who_waits_for_a_position_hears_of_the_end_and_of_errors_and_not_for_ever(broker: FakeBroker) -> None:
    broker.fault = lambda api, when: ErrorCode.TOPIC_AUTHORIZATION_FAILED if api is ApiKey.LIST_OFFSETS else None
    with (
        Consumer("one", bootstrap_servers=broker.address) as consumer,
        pytest.raises(BrokerRefused, match="one-0 cannot be read: TOPIC_AUTHORIZATION_FAILED"),
    ):
        consumer.position(ONE)
    broker.fault = lambda api, when: "hang" if api is ApiKey.LIST_OFFSETS else None
    consumer = Consumer("one", bootstrap_servers=broker.address)
    with pytest.raises(RequestTimedOut, match="the position in one-0 is not known"):
        consumer.position(ONE, timeout=0.05)
    waiting = consumer._position(ONE, None)
    waiting.send(None)
    consumer.close()
    with pytest.raises(ClientClosed):
        waiting.send(None)


def test_offsets_wait_for_a_broker_that_cannot_say_yet(broker: FakeBroker) -> None:
    answers = iter([ErrorCode.OFFSET_NOT_AVAILABLE, ErrorCode.NOT_LEADER_OR_FOLLOWER])
    broker.fault = lambda api, when: next(answers, None) if (api, when) == (ApiKey.LIST_OFFSETS, "before") else None
    with Consumer(bootstrap_servers=broker.address) as consumer:
        assert consumer.end_offsets([ONE]) == {ONE: 100}
        broker.fault = lambda api, when: "hang" if api is ApiKey.LIST_OFFSETS else None
        with pytest.raises(RequestTimedOut):
            consumer.end_offsets([ONE], timeout=0.2)


def test_reading_goes_on_after_a_restart_and_errors_that_pass(broker: FakeBroker) -> None:
    troubles = iter([ErrorCode.NOT_LEADER_OR_FOLLOWER, None, "drop", None, ErrorCode.REQUEST_TIMED_OUT])
    broker.fault = lambda api, when: next(troubles, None) if (api, when) == (ApiKey.FETCH, "before") else None
    arguments = {"max_partition_fetch_bytes": 500, "auto_offset_reset": "earliest"}
    with Consumer("one", bootstrap_servers=broker.address, **arguments) as consumer:  # type: ignore[arg-type]
        first = offsets(list(islice(consumer, 40)))
        broker.restart()
        assert first + offsets(list(islice(consumer, 60))) == list(range(100))


def test_an_offset_that_is_not_there(broker: FakeBroker) -> None:
    with Consumer("one", bootstrap_servers=broker.address, auto_offset_reset="earliest") as consumer:
        consumer.seek(ONE, 1000)
        assert consumer.poll(5)[0].offset == 0
    with Consumer("one", bootstrap_servers=broker.address, auto_offset_reset="none") as consumer:
        consumer.seek(ONE, 1000)
        with pytest.raises(OffsetOutOfRange, match="one-0 has no offset 1000"):
            consumer.poll(5)
        consumer.seek(ONE, 99)
        assert offsets(consumer.poll(5)) == [99]


def test_corrupt_bytes_are_never_handed_out(broker: FakeBroker) -> None:
    log = broker.topics["one"][0]
    log.batches[5] = log.batches[5][:-3] + b"xyz"
    with Consumer("one", bootstrap_servers=broker.address, auto_offset_reset="earliest") as consumer:
        with pytest.raises(CorruptRecords, match="one-0 at offset 50"):
            list(islice(consumer, 100))
        assert consumer.position(ONE) == 50
        with pytest.raises(CorruptRecords):
            consumer.poll(5)
        consumer.seek(ONE, 60)
        assert offsets(list(islice(consumer, 40))) == list(range(60, 100))


@pytest.mark.parametrize("check_crcs", [True, False])
def test_what_comes_before_corrupt_bytes_is_handed_out_and_nothing_behind_them(broker: FakeBroker, check_crcs: bool) -> None:
    log = broker.topics["one"][0]
    log.batches[5] = log.batches[5][:61] + b"\xff" * (len(log.batches[5]) - 61)
    with Consumer(
        "one", bootstrap_servers=broker.address, auto_offset_reset="earliest", check_crcs=check_crcs) as consumer:
        assert offsets(consumer.poll(5)) == list(range(50))
        for _ in range(2):
            with pytest.raises(CorruptRecords, match="one-0 at offset 50"):
                consumer.poll(5)
        assert consumer.position(ONE) == 50


def test_an_error_is_raised_after_the_records_that_are_there_and_is_not_forgotten(broker: FakeBroker) -> None:
    with Consumer("t", bootstrap_servers=broker.address, auto_offset_reset="earliest") as consumer:
        assert consumer.poll(5, max_records=1)
        fetcher = consumer._fetcher
        with fetcher.ready:
            fetcher._fail(fetcher.readings[TopicPartition("t", 2)], BrokerRefused("t-2", ErrorCode.UNKNOWN_SERVER_ERROR))
        assert len(consumer.poll(5)) == 99
        with pytest.raises(BrokerRefused, match="t-2"):
            consumer.poll(5)


def test_an_error_for_good_is_raised(broker: FakeBroker) -> None:
    denied = ErrorCode.TOPIC_AUTHORIZATION_FAILED
    broker.fault = lambda api, when: denied if (api, when) == (ApiKey.FETCH, "before") else None
    consumer = Consumer("one", bootstrap_servers=broker.address)
    with consumer, pytest.raises(BrokerRefused, match="TOPIC_AUTHORIZATION_FAILED"):
        consumer.poll(5)


def test_what_it_refuses(broker: FakeBroker) -> None:
    where = broker.address
    for arguments, what in (
        ({"group_id": ""}, "group_id must be a name"), ({"heartbeat_interval": 45}, "must be below session_timeout=45"),
        ({"partition_assignment_strategy": "smallest"}, "partition_assignment_strategy must be one of 'range'"),
        ({"group_instance_id": ""}, "group_instance_id must be a name"),
    ):
        with pytest.raises(ConfigError, match=what):
            Consumer("one", bootstrap_servers=where, **{"group_id": "billing", **arguments})
    with Consumer(bootstrap_servers=where) as alone, pytest.raises(ConfigError, match="has no group"):
        alone.commit()
    with pytest.raises(NotSupportedYet, match="isolation_level"):
        Consumer("one", bootstrap_servers=where, isolation_level="read_committed")
    with pytest.raises(ConfigError, match="auto_offset_reset must be one of"):
        Consumer("one", bootstrap_servers=where, auto_offset_reset="smallest")
    with pytest.raises(UnknownTopic, match="'nowhere' does not exist"):
        Consumer("nowhere", bootstrap_servers=where)
    with Consumer("one", bootstrap_servers=where) as consumer:
        with pytest.raises(UnknownTopic, match="partitions 0 to 0, not 7"):
            consumer.assign([("one", 7)])
        with pytest.raises(ConfigError, match="not assigned"):
            consumer.seek(("t", 0), 0)
        with pytest.raises(ConfigError, match="pair such as"):
            consumer.assign(["one"])  # type: ignore[list-item]
    with pytest.raises(ClientClosed):
        consumer.poll(1)


def test_a_slow_reader_bounds_what_is_fetched_ahead(broker: FakeBroker) -> None:
    log = broker.topics["one"][0]
    fill(log, 5000, per_batch=100)
    arguments = {"max_partition_fetch_bytes": 4000, "auto_offset_reset": "earliest"}
    with Consumer("one", bootstrap_servers=broker.address, **arguments) as consumer:  # type: ignore[arg-type]
        assert offsets(consumer.poll(5, max_records=1)) == [0]
        fetcher = consumer._fetcher
        reading = fetcher.readings[ONE]
        assert run(until(fetcher.ready, lambda: reading.buffered_bytes >= 4000 or None, time.monotonic() + 5))
        asked = broker.count(ApiKey.FETCH)
        run(consumer._core.ask(1, ApiKey.METADATA, MetadataRequest(), 5.0))  # a turn later
        assert broker.count(ApiKey.FETCH) == asked and reading.buffered_bytes <= 8000
        assert offsets(list(islice(consumer, 5099))) == list(range(1, 5100))


def test_closing_from_another_thread_ends_a_wait(broker: FakeBroker) -> None:
    consumer = Consumer("empty", bootstrap_servers=broker.address)
    timer = threading.Timer(0.2, consumer.close)
    timer.start()
    with pytest.raises(ClientClosed):
        next(iter(consumer))
    timer.join()


def test_deserializers(broker: FakeBroker) -> None:
    with Consumer(
        "one", bootstrap_servers=broker.address, auto_offset_reset="earliest", value_deserializer=int
    ) as consumer:
        values: list[object] = [record.value for record in consumer.poll(5, max_records=3)]
        assert values == [0, 1, 2]


def test_a_record_that_cannot_be_deserialized_is_the_next_one_until_the_reader_moves(broker: FakeBroker) -> None:
    def number(value: bytes) -> int:
        if value in (b"50", b"55"):
            raise ValueError(value)
        return int(value)

    class Picky:
        def on_consume(self, records: list[Record]) -> list[Record]:
            return [record for record in records if not 51 <= record.offset < 55]

    with Consumer(
        "one", bootstrap_servers=broker.address, auto_offset_reset="earliest", value_deserializer=number,
        interceptors=[Picky()],
    ) as consumer:
        seen: list[int] = []
        while consumer.position(ONE) < 100:
            try:
                seen += offsets(consumer.poll(5, max_records=7))
            except ValueError as error:
                assert error.args == (b"%d" % consumer.position(ONE),)
                with pytest.raises(ValueError):
                    next(iter(consumer))
                consumer.seek(ONE, consumer.position(ONE) + 1)
        assert seen == [offset for offset in range(100) if not 50 <= offset <= 55]


def test_next_offset_of_whole_batches() -> None:
    partition = FakePartition()
    fill(partition, 30)
    data = b"".join(partition.batches)
    assert next_offset_of(memoryview(data)) == 30
    assert next_offset_of(memoryview(data[:-1])) == 20
    assert next_offset_of(memoryview(data[:100])) == -1
    assert next_offset_of(memoryview(b"")) == -1


def test_record_header() -> None:
    record = Record("t", 0, 0, 0, 0, None, b"", [("a", b"1"), ("b", None), ("a", b"2")])
    assert (record.header("a"), record.header("b"), record.header("c")) == (b"2", None, None)
