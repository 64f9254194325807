"""The generator of many connections: its requests are Kafka's, its answers are read where they stand, its clock is even."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import pytest

from benchmarks.connection_frames import (
    FETCH_VERSION,
    PRODUCE_VERSION,
    SENT,
    FetchFrame,
    ProduceFrame,
    batches,
    correlation_of,
    error_of,
)
from benchmarks.connections import Load, Producer, Tally
from zafka.storage.batch import check_batch, read_header
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import (
    read_request_header,
    request_reader,
    response_header,
    response_writer,
    with_length,
)
from zafka.transport.kafka.messages.fetch import FetchableTopicResponse, FetchResponse, PartitionData
from zafka.transport.kafka.messages.produce import PartitionProduceResponse, ProduceResponse, TopicProduceResponse

TOPIC = "größe"


def produced(frame: ProduceFrame, sent_s: float, base_offset: int) -> bytes:
    """The batch of a request, as it lies in a log."""
    body = memoryview(frame.stamped(5, sent_s))[4:]
    request = request_reader(ApiKey.PRODUCE, PRODUCE_VERSION)(body, read_request_header(body).body_position)
    return base_offset.to_bytes(8, "big") + bytes(request.topic_data[0].partition_data[0].records)[8:]


def test_a_stamped_batch_is_whole_and_has_the_time_where_it_is_looked_for() -> None:
    frame = ProduceFrame(TOPIC, 3)
    first = frame.stamped(7, 1.5)
    body = memoryview(frame.stamped(8, 2.5))[4:]
    header = read_request_header(body)
    assert (header.api_key, header.version, header.correlation_id) == (ApiKey.PRODUCE, PRODUCE_VERSION, 8)
    (topic,) = request_reader(ApiKey.PRODUCE, PRODUCE_VERSION)(body, header.body_position).topic_data
    (partition,) = topic.partition_data
    assert (topic.name, partition.index) == (TOPIC, 3)
    records = memoryview(partition.records)
    check_batch(records, max_bytes=1 << 20)
    assert read_header(records).record_count == 1
    assert SENT.unpack_from(records, frame.sent_at) == (2.5,) and first != bytes(frame.stamped(8, 2.5))


def test_a_poll_asks_for_its_partition_from_its_offset() -> None:
    body = memoryview(FetchFrame(TOPIC, 2, max_wait_ms=500).stamped(9, 1234))[4:]
    header = read_request_header(body)
    assert (header.api_key, header.version, header.correlation_id) == (ApiKey.FETCH, FETCH_VERSION, 9)
    request = request_reader(ApiKey.FETCH, FETCH_VERSION)(body, header.body_position)
    assert (request.max_wait_ms, request.min_bytes, request.session_epoch) == (500, 1, -1)
    (topic,) = request.topics
    assert (topic.topic, topic.partitions[0].partition, topic.partitions[0].fetch_offset) == (TOPIC, 2, 1234)


def test_answers_are_read_where_their_fields_stand() -> None:
    produce, fetch = ProduceFrame(TOPIC, 1), FetchFrame(TOPIC, 1, max_wait_ms=500)
    answer = b"".join(with_length(
        response_header(ApiKey.PRODUCE, PRODUCE_VERSION, 9),
        response_writer(ApiKey.PRODUCE, PRODUCE_VERSION)(ProduceResponse(responses=[TopicProduceResponse(
            name=TOPIC, partition_responses=[PartitionProduceResponse(index=1, error_code=87)])]))))
    assert (correlation_of(answer), error_of(answer, produce.error_at)) == (9, 87)

    records = produced(produce, 1.25, 40) + produced(produce, 2.25, 41)
    for found, expected in ((records, (42, [1.25, 2.25])), (b"", (-1, []))):
        answer = b"".join(with_length(
            response_header(ApiKey.FETCH, FETCH_VERSION, 11),
            response_writer(ApiKey.FETCH, FETCH_VERSION)(FetchResponse(responses=[FetchableTopicResponse(
                topic=TOPIC, partitions=[PartitionData(1, 6, records=memoryview(found))])]))))
        assert (correlation_of(answer), error_of(answer, fetch.error_at)) == (11, 6)
        assert batches(answer, fetch.records_at, produce.sent_at) == expected


def test_news_are_spread_evenly_among_all_records() -> None:
    load = Load(producers=100, per_s=5.0, news_per_s=8.0)
    numbers = [number for number in range(5000) if load.is_news(number)]
    assert len(numbers) == 80
    assert {later - earlier for earlier, later in pairwise(numbers)} <= {62, 63}
    assert not any(Load(news_per_s=0.0).is_news(number) for number in range(1000))


class Unconnected(Producer):
    """A producer whose answers are put into its hands."""

    def __init__(self, tally: Tally, frame: ProduceFrame) -> None:
        self.tally = tally
        self._error_at = deque([frame.error_at])


@pytest.mark.parametrize("error", [0, 19])
def test_an_error_is_a_fault_and_no_acknowledgement(error: int) -> None:
    tally, frame = Tally(), ProduceFrame(TOPIC, 1)
    tally.measuring = True
    answer = bytearray(frame.error_at + 2)
    answer[frame.error_at :] = error.to_bytes(2, "big")
    Unconnected(tally, frame).on_answer(bytes(answer), 1.0, 1.5)
    assert tally.ack_s == ([] if error else [0.5])
    assert dict(tally.faults) == ({"produce: error 19": 1} if error else {})
