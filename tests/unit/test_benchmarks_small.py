"""The raw generator: its request is Kafka's, it counts answers, and it fails on an error it is told."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

from benchmarks.small import CORRELATION_AT, VERSION, NullServer, error_position, generate, produce_frame, whole_frames
from zafka.storage.batch import read_header
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import (
    read_request_header,
    request_reader,
    response_header,
    response_writer,
    with_length,
)
from zafka.transport.kafka.messages.produce import PartitionProduceResponse, ProduceResponse, TopicProduceResponse

TOPIC = "größe"


def test_the_request_is_one_record_of_100_bytes_for_its_partition() -> None:
    frame = produce_frame(TOPIC, 3)
    struct.pack_into(">i", frame, CORRELATION_AT, 77)
    body = memoryview(bytes(frame))[4:]
    header = read_request_header(body)
    assert (header.api_key, header.version, header.correlation_id) == (ApiKey.PRODUCE, VERSION, 77)
    request = request_reader(ApiKey.PRODUCE, VERSION)(body, header.body_position)
    assert request.acks == -1
    (topic,) = request.topic_data
    (partition,) = topic.partition_data
    assert (topic.name, partition.index) == (TOPIC, 3)
    assert read_header(memoryview(partition.records)).record_count == 1


def test_the_error_code_stands_where_it_is_looked_for() -> None:
    response = ProduceResponse(responses=[TopicProduceResponse(
        name=TOPIC, partition_responses=[PartitionProduceResponse(index=1, error_code=87, base_offset=5)])])
    answer = b"".join(with_length(response_header(ApiKey.PRODUCE, VERSION, 9),
                                  response_writer(ApiKey.PRODUCE, VERSION)(response)))
    assert struct.unpack_from(">h", answer, error_position(TOPIC)) == (87,)


@pytest.mark.parametrize("cut", range(12))
def test_frames_are_cut_wherever_the_stream_is(cut: int) -> None:
    stream = b"\0\0\0\2ab\0\0\0\0\0\0\0\3abc"
    starts, end = whole_frames(stream[: len(stream) - cut])
    whole = [start for start, finish in ((0, 6), (6, 10), (10, 17)) if finish <= len(stream) - cut]
    assert starts == whole
    assert end == (0, 6, 10, 17)[len(whole)]


class Refusing(NullServer):
    """Answers with an error code."""

    def __init__(self, topic: str) -> None:
        super().__init__(topic)
        struct.pack_into(">h", self._answer, error_position(topic), 6)


async def against(server_class: type[NullServer], *, connections: int, in_flight: int) -> Any:
    loop = asyncio.get_running_loop()
    made: list[NullServer] = []

    def make() -> NullServer:
        made.append(server_class(TOPIC))
        return made[-1]

    server = await loop.create_server(make, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        found = await generate(
            address, TOPIC, connections=connections, in_flight=in_flight, seconds=0.1, partitions=2, settling_s=0.05)
    finally:
        server.close()
    assert len(made) == connections
    return found


def test_the_generator_counts_what_a_server_answers() -> None:
    found = asyncio.run(against(NullServer, connections=3, in_flight=5))
    assert found["per_s"] > 0
    assert 0 < found["p50_ms"] <= found["p99_ms"]


def test_an_error_in_an_answer_fails_the_measurement() -> None:
    with pytest.raises(RuntimeError, match=r"error codes \{6: \d+\}"):
        asyncio.run(against(Refusing, connections=1, in_flight=2))
