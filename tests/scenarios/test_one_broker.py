"""One broker with its coordinator and partitions, all of them real, seen from a Kafka client.

RELIABILITY.md: "Every acknowledged record is served"; "A failed actor is back, from its log, without an operator.
Clients see retriable errors at worst"; invariants 2 (one offset holds one value), 3 (idempotent producer: one value
at one offset), 10 (leader epochs strictly increase), 16 (state after a restart equals the state before).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.world import BROKER, COORDINATOR, Client, World
from zafka.actors.messages import NewTopic
from zafka.storage.batch import read_header
from zafka.storage.records import decode_batch, encode_batch
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode

TOPIC = NewTopic("orders", 2, 1, {})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, topics=[TOPIC]).up()


def batch(*values: bytes, producer_id: int = -1, sequence: int = -1) -> bytes:
    epoch = 0 if producer_id >= 0 else -1
    return encode_batch(
        [(1_000, None, value, []) for value in values], producer_id=producer_id, producer_epoch=epoch,
        base_sequence=sequence)


def produce_request(records: bytes, *, topic: str = "orders", partition: int = 0) -> kafka.ProduceRequest:
    data = kafka.PartitionProduceData(partition, memoryview(records))
    return kafka.ProduceRequest(None, -1, 30_000, [kafka.TopicProduceData(name=topic, partition_data=[data])])


def produce(client: Client, records: bytes, **where: Any) -> tuple[int, int]:
    """(error, base offset)"""
    return result_of(client.ask(ApiKey.PRODUCE, 9, produce_request(records, **where)))


def result_of(answer: Any) -> tuple[int, int]:
    part = answer.responses[0].partition_responses[0]
    return part.error_code, part.base_offset


def fetch_request(offset: int, *, topic: str = "orders", partition: int = 0, wait_ms: int = 0) -> kafka.FetchRequest:
    wanted = kafka.FetchPartition(partition, -1, offset, partition_max_bytes=1 << 20)
    return kafka.FetchRequest(
        max_wait_ms=wait_ms, min_bytes=1, topics=[kafka.FetchTopic(topic=topic, partitions=[wanted])])


def values_of(answer: Any) -> list[tuple[int, bytes | None]]:
    """(offset, value) of what a Fetch brought; its error must be none."""
    part = answer.responses[0].partitions[0]
    assert part.error_code == 0, ErrorCode(part.error_code)
    found, position = [], 0
    while position < len(part.records):
        header = read_header(part.records, position)
        found += [
            (record.offset, record.value)
            for record in decode_batch(part.records[position : position + header.size_bytes], header)]
        position += header.size_bytes
    return found


def read_all(client: Client, **where: Any) -> list[tuple[int, bytes | None]]:
    found: list[tuple[int, bytes | None]] = []
    while True:
        more = values_of(client.ask(ApiKey.FETCH, 12, fetch_request(found[-1][0] + 1 if found else 0, **where)))
        if not more:
            return found
        found += more


def leader_epoch(client: Client, topic: str = "orders") -> int:
    answer = client.ask(ApiKey.METADATA, 9, kafka.MetadataRequest(topics=[kafka.MetadataRequestTopic(name=topic)]))
    return int(answer.topics[0].partitions[0].leader_epoch)


def test_records_come_back_as_they_were_sent(world: World) -> None:
    client = world.client()
    assert produce(client, batch(b"a", b"b")) == (0, 0)
    assert produce(client, batch(b"c")) == (0, 2)
    assert produce(client, batch(b"elsewhere"), partition=1) == (0, 0)
    assert read_all(client) == [(0, b"a"), (1, b"b"), (2, b"c")]
    assert read_all(client, partition=1) == [(0, b"elsewhere")]


def test_a_reader_at_the_tail_gets_what_comes(world: World) -> None:
    reader, writer = world.client(), world.client()
    reader.send(ApiKey.FETCH, 12, fetch_request(0, wait_ms=10_000))
    world.run()
    assert not reader.answers
    assert produce(writer, batch(b"news")) == (0, 0)
    assert values_of(reader.answers.pop()) == [(0, b"news")]


def test_a_killed_partition_is_back_with_all_it_had(world: World) -> None:
    client = world.client()
    produce(client, batch(b"a"))
    before = leader_epoch(client)
    world.kill("partition orders-0")
    assert world.doors_open and client.closed is None
    world.run()
    assert leader_epoch(client) == before + 1
    assert produce(client, batch(b"b")) == (0, 1)
    assert read_all(client) == [(0, b"a"), (1, b"b")]


def test_a_request_in_hand_of_a_killed_partition_is_in_doubt_and_a_retry_finds_the_one_copy(world: World) -> None:
    """Idempotent producers: the retry is answered with the first offset whether the first try was written or not."""
    client = world.client()
    first = batch(b"a", producer_id=0, sequence=0)
    second = batch(b"b", producer_id=0, sequence=1)
    assert produce(client, first) == (0, 0)
    partition = world.processes["partition orders-0"]
    client.send(ApiKey.PRODUCE, 9, produce_request(second))
    while not partition.mail:
        world._turn(world.processes[BROKER])
    world.kill("partition orders-0")
    world.run()
    error, _ = result_of(client.answers.pop())
    assert error == ErrorCode.REQUEST_TIMED_OUT and ErrorCode(error).is_retriable
    assert produce(client, second) == (0, 1)
    assert produce(client, second) == (0, 1)
    assert produce(client, first) == (0, 0)
    assert read_all(client) == [(0, b"a"), (1, b"b")]


def test_a_partition_that_dies_after_writing_answers_the_retry_with_the_offset_it_had(world: World) -> None:
    client = world.client()
    records = batch(b"a", producer_id=0, sequence=0)
    partition, broker = world.processes["partition orders-0"], world.processes[BROKER]
    client.send(ApiKey.PRODUCE, 9, produce_request(records))
    while not partition.mail:
        world._turn(broker)
    broker.paused = True
    while partition.mail:
        world._turn(partition)  # written and flushed; the answer lies in the broker's mailbox
    broker.mail.clear()
    broker.paused = False
    world.kill("partition orders-0")
    world.run()
    assert result_of(client.answers.pop())[0] == ErrorCode.REQUEST_TIMED_OUT
    assert produce(client, records) == (0, 0)
    assert read_all(client) == [(0, b"a")]


def test_a_killed_broker_finds_its_partitions_leading_and_needs_no_new_epoch(world: World) -> None:
    client = world.client()
    produce(client, batch(b"a"))
    before = leader_epoch(client)
    world.kill(BROKER)
    world.run()
    assert client.closed
    client = world.client()
    assert leader_epoch(client) == before
    assert produce(client, batch(b"b")) == (0, 1)
    assert read_all(client) == [(0, b"a"), (1, b"b")]


def test_without_a_coordinator_records_flow_and_topics_wait_for_it(world: World) -> None:
    client, admin = world.client(), world.client()
    world.kill(COORDINATOR, restart=False)
    assert produce(client, batch(b"a")) == (0, 0)
    admin.send(ApiKey.CREATE_TOPICS, 7, kafka.CreateTopicsRequest([kafka.CreatableTopic("new", 1, 1)], 30_000))
    world.run()
    assert not admin.answers
    world.start(COORDINATOR)
    world.run()
    (topic,) = admin.answers.pop().topics
    assert topic.error_code == 0
    assert produce(client, batch(b"b"), topic="new") == (0, 0)


def test_everything_is_killed_at_once_and_comes_back(world: World) -> None:
    client = world.client()
    assert produce(client, batch(b"a", producer_id=0, sequence=0)) == (0, 0)
    before = leader_epoch(client)
    for name in list(world.processes):
        world.kill(name, restart=False)
    again = World(world.data_dir, topics=[TOPIC], first_incarnation=100).up()
    client = again.client()
    assert leader_epoch(client) == before + 1
    assert produce(client, batch(b"a", producer_id=0, sequence=0)) == (0, 0)
    assert produce(client, batch(b"b", producer_id=0, sequence=1)) == (0, 1)
    assert read_all(client) == [(0, b"a"), (1, b"b")]


def test_a_topic_created_on_first_use_is_there_when_the_client_asks_again(world: World) -> None:
    client = world.client()
    request = kafka.MetadataRequest(topics=[kafka.MetadataRequestTopic(name="fresh")])
    assert client.ask(ApiKey.METADATA, 9, request).topics[0].error_code == ErrorCode.LEADER_NOT_AVAILABLE
    topic = client.ask(ApiKey.METADATA, 9, request).topics[0]
    assert (topic.error_code, topic.partitions[0].error_code, topic.partitions[0].leader_id) == (0, 0, 1)
    assert produce(client, batch(b"a"), topic="fresh") == (0, 0)


def test_a_topic_deleted_and_created_again_is_another_topic(world: World) -> None:
    client = world.client()
    create = kafka.CreateTopicsRequest([kafka.CreatableTopic("t", 1, 1)], 30_000)
    first_id = client.ask(ApiKey.CREATE_TOPICS, 7, create).topics[0].topic_id
    produce(client, batch(b"old"), topic="t")
    delete = kafka.DeleteTopicsRequest([kafka.DeleteTopicState("t")], timeout_ms=30_000)
    assert client.ask(ApiKey.DELETE_TOPICS, 6, delete).responses[0].error_code == 0
    assert produce(client, batch(b"x"), topic="t")[0] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert [path.name.split(".")[0] for path in world.removed] == ["t-0"]
    second_id = client.ask(ApiKey.CREATE_TOPICS, 7, create).topics[0].topic_id
    assert second_id != first_id
    assert produce(client, batch(b"new"), topic="t") == (0, 0)
    assert read_all(client, topic="t") == [(0, b"new")]


def test_a_topic_deleted_while_the_broker_was_down_leaves_nothing(world: World) -> None:
    client = world.client()
    client.ask(ApiKey.CREATE_TOPICS, 7, kafka.CreateTopicsRequest([kafka.CreatableTopic("t", 1, 1)], 30_000))
    client.send(
        ApiKey.DELETE_TOPICS, 6, kafka.DeleteTopicsRequest([kafka.DeleteTopicState("t")], timeout_ms=30_000))
    while not world.processes[COORDINATOR].mail:
        world._turn(world.processes[BROKER])
    world.kill(BROKER, restart=False)
    world.run()
    world.start(BROKER)
    world.run()
    assert ("t", 0) not in world.children
    assert not (world.data_dir / "broker-1" / "t-0").exists()


def test_a_long_poll_outlives_its_partition(world: World) -> None:
    reader, writer = world.client(), world.client()
    reader.send(ApiKey.FETCH, 12, fetch_request(0, wait_ms=10_000))
    world.run()
    world.kill("partition orders-0")
    world.run()
    assert not reader.answers
    assert produce(writer, batch(b"news")) == (0, 0)
    assert values_of(reader.answers.pop()) == [(0, b"news")]


def test_segments_are_read_through_their_ends(tmp_path: Path) -> None:
    topic = NewTopic("orders", 1, 1, {"segment.bytes": str(1024 * 1024)})
    world = World(tmp_path, topics=[topic]).up()
    client = world.client()
    for index in range(40):
        assert produce(client, batch(bytes([index]) * 100_000)) == (0, index)
    assert len(list((tmp_path / "broker-1" / "orders-0").glob("*.log"))) > 3
    assert [offset for offset, _ in read_all(client)] == list(range(40))
    world.kill("partition orders-0")
    world.run()
    assert [offset for offset, _ in read_all(client)] == list(range(40))


def test_producer_ids_are_never_given_twice(world: World) -> None:
    given = set()
    for round_ in range(6):
        client = world.client()
        for _ in range(3):
            answer = client.ask(ApiKey.INIT_PRODUCER_ID, 4, kafka.InitProducerIdRequest(None, 0))
            assert answer.error_code == 0
            given.add(answer.producer_id)
        world.kill(BROKER if round_ % 2 else COORDINATOR)
        world.run()
    assert len(given) == 18


def test_offsets_by_time_and_at_both_ends(world: World) -> None:
    client = world.client()
    for value in (b"a", b"b", b"c"):
        produce(client, batch(value))

    def offset_at(timestamp: int) -> int:
        wanted = kafka.ListOffsetsPartition(0, -1, timestamp)
        request = kafka.ListOffsetsRequest(-1, 0, [kafka.ListOffsetsTopic("orders", [wanted])])
        part = client.ask(ApiKey.LIST_OFFSETS, 7, request).topics[0].partitions[0]
        assert part.error_code == 0
        return int(part.offset)

    assert [offset_at(-2), offset_at(-1), offset_at(0), offset_at(5_000)] == [0, 3, 0, -1]
