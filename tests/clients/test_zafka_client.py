"""Our own client against a running broker, through both doors; ZAFKA_TEST_BOOTSTRAP runs it against Apache Kafka."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Iterator
from itertools import islice

import confluent_kafka
import pytest

from tests.clients.samples import FIRST_TIMESTAMP_MS, STEP_MS
from zafka import Admin, Consumer, Producer, Record, TopicPartition
from zafka.client.admin import NewTopic
from zafka.client.errors import BrokerRefused, UnknownTopic
from zafka.testing import Broker

pytestmark = pytest.mark.timeout(120)

_numbers = itertools.count()


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker | None]:
    if os.environ.get("ZAFKA_TEST_BOOTSTRAP"):
        yield None
        return
    with Broker() as broker:
        yield broker


@pytest.fixture(params=["kafka", "zmq"])
def door(request: pytest.FixtureRequest, broker: Broker | None) -> str:
    """The address to use: of the Kafka listener, then of the ZeroMQ door."""
    if broker is None:
        if request.param == "zmq":
            pytest.skip("Apache Kafka has no ZeroMQ door")
        return os.environ["ZAFKA_TEST_BOOTSTRAP"]
    return broker.bootstrap_servers if request.param == "kafka" else broker.zmq_bootstrap_servers


@pytest.fixture
def kafka_address(broker: Broker | None) -> str:
    return os.environ["ZAFKA_TEST_BOOTSTRAP"] if broker is None else broker.bootstrap_servers


def make_topic(door: str, partitions: int = 1) -> str:
    name = f"ours-{next(_numbers)}-{uuid.uuid4().hex[:6]}"
    with Admin(door) as admin:
        admin.create_topic(name, partitions, 1)
    return name


def read(door: str, topic: str, count: int) -> list[Record]:
    with Consumer(topic, bootstrap_servers=door, auto_offset_reset="earliest") as consumer:
        return list(islice(consumer.records(timeout=10), count))


def test_confluent_reads_what_we_write(door: str, kafka_address: str) -> None:
    topic = make_topic(door, 3)
    with Producer(door, compression_type="lz4") as producer:
        spans = producer.send_many(topic, [b"%d" % number for number in range(1000)]).result(30)
    consumer = confluent_kafka.Consumer({"bootstrap.servers": kafka_address, "group.id": "none"})
    consumer.assign([confluent_kafka.TopicPartition(topic, number, 0) for number in range(3)])
    found: dict[tuple[int | None, int | None], bytes | None] = {}
    while len(found) < 1000:
        message = consumer.poll(30)
        assert message is not None and message.error() is None
        found[message.partition(), message.offset()] = message.value()
    where = [(span.partition, span.base_offset + index) for span in spans for index in range(span.record_count)]
    assert [found[one] for one in where] == [b"%d" % number for number in range(1000)]


def test_we_read_what_confluent_writes_and_keys_agree(door: str, kafka_address: str) -> None:
    topic = make_topic(door, 7)
    keys = [b"key-%d" % number for number in range(200)]
    theirs = confluent_kafka.Producer({"bootstrap.servers": kafka_address, "partitioner": "murmur2_random"})
    for key in keys:
        theirs.produce(topic, key=key, value=b"theirs", headers=[("from", b"librdkafka")])
    assert theirs.flush(30) == 0
    with Producer(door) as ours:
        ours.send_many(topic, [b"ours"] * len(keys), keys=keys)
    homes: dict[bytes | None, set[int]] = {}
    records = read(door, topic, 2 * len(keys))
    for record in records:
        homes.setdefault(record.key, set()).add(record.partition)
    assert len(homes) == len(keys) and all(len(partitions) == 1 for partitions in homes.values())
    assert {record.header("from") for record in records} == {b"librdkafka", None}


def test_offsets_times_and_seeking(door: str) -> None:
    topic = make_topic(door, 2)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    with Producer(door, batch_size=1000) as producer:
        for number in range(100):
            producer.send(topic, b"%d" % number, partition=0, timestamp_ms=FIRST_TIMESTAMP_MS + number * STEP_MS)
    with Consumer(bootstrap_servers=door, auto_offset_reset="latest") as consumer:
        assert consumer.beginning_offsets([first, second]) == {first: 0, second: 0}
        assert consumer.end_offsets([first, second]) == {first: 100, second: 0}
        times = consumer.offsets_for_times({first: FIRST_TIMESTAMP_MS + 41 * STEP_MS - 1, second: 0})
        assert times[first] == (41, FIRST_TIMESTAMP_MS + 41 * STEP_MS) and times[second] is None
        assert consumer.offsets_for_times({first: FIRST_TIMESTAMP_MS * 2}) == {first: None}
        consumer.assign([first])
        assert consumer.position(first) == 100
        consumer.seek(first, 41)
        assert [record.offset for record in islice(consumer, 3)] == [41, 42, 43]
        consumer.seek_to_beginning()
        assert next(iter(consumer)).offset == 0
        assert consumer.position(first) == 1


def test_topics_are_made_listed_described_and_deleted(door: str) -> None:
    name = f"admin-{uuid.uuid4().hex[:6]}"
    with Admin(door) as admin:
        assert admin.create_topics([NewTopic(name, 2, 1)], validate_only=True) == []
        assert name not in admin.list_topics()
        made = admin.create_topic(name, 2, 1, {"retention.ms": 123_456})
        assert [partition.leader >= 0 for partition in made.partitions] == [True, True]
        assert name in admin.list_topics()
        assert admin.describe_topics([name])[0] == made
        entries = {entry.name: entry for entry in admin.describe_configs(topic=name)}
        assert (entries["retention.ms"].value, entries["retention.ms"].is_default) == ("123456", False)
        with pytest.raises(BrokerRefused) as refused:
            admin.create_topic(name, 2, 1)
        assert refused.value.name == "TOPIC_ALREADY_EXISTS"
        with pytest.raises(BrokerRefused) as refused:
            admin.create_topic(f"{name}-2", 1, 99)
        assert refused.value.name == "INVALID_REPLICATION_FACTOR"
        with pytest.raises(BrokerRefused) as refused:
            admin.create_topic(f"{name}-3", 1, 1, {"retention.msec": 1})
        assert refused.value.name == "INVALID_CONFIG"
        admin.delete_topics(name)
        for gone in (lambda: admin.delete_topics(name), lambda: admin.describe_configs(topic=name)):
            with pytest.raises(UnknownTopic, match=name):
                gone()
        cluster = admin.describe_cluster()
        assert cluster.cluster_id and cluster.brokers


def test_topics_are_made_and_deleted_while_the_coordinator_is_killed(broker: Broker | None, door: str) -> None:
    if broker is None:
        pytest.skip("actors are killed in a broker of ours only")
    with Admin(door) as admin:
        for _ in range(3):
            name = f"killed-{uuid.uuid4().hex[:6]}"
            broker.kill("coordinator")
            assert len(admin.create_topic(name, 1, 1).partitions) == 1
            broker.kill("broker 1")
            admin.delete_topics(name)
            assert name not in admin.list_topics()


def test_nothing_is_lost_or_doubled_while_actors_are_killed(broker: Broker | None, door: str) -> None:
    """Every kind of actor, and everything at once, under a load: each record is there once, where its future says."""
    if broker is None:
        pytest.skip("actors are killed in a broker of ours only")
    topic = make_topic(door, 2)
    victims = [f"partition {topic}-0", "broker 1", "coordinator", f"partition {topic}-1", "broker 1"]
    sent: dict[tuple[int, int], bytes] = {}
    with Producer(door, linger_ms=1, delivery_timeout=60) as producer:
        number = 0
        for victim in [*victims, "all"]:
            futures = []
            for step in range(100):
                for _ in range(10):
                    futures.append((number, producer.send(topic, b"%d" % number, key=b"%d" % (number % 13))))
                    number += 1
                if step == 50:
                    if victim == "all":
                        broker.kill_all()
                        broker.start()
                    else:
                        broker.kill(victim)
            for sent_number, future in futures:
                where = future.result(60)
                assert (where.partition, where.offset) not in sent
                sent[where.partition, where.offset] = b"%d" % sent_number
    assert len(sent) == number
    assert {(record.partition, record.offset): record.value for record in read(door, topic, number)} == sent
    with Consumer(bootstrap_servers=door) as consumer:
        assert sum(consumer.end_offsets([(topic, 0), (topic, 1)]).values()) == number


def test_a_consumer_reads_on_while_its_actors_are_killed(broker: Broker | None, door: str) -> None:
    if broker is None:
        pytest.skip("actors are killed in a broker of ours only")
    topic = make_topic(door)
    with Producer(door) as producer:
        producer.send_many(topic, [b"%06d" % number for number in range(20_000)])
    arguments = {"auto_offset_reset": "earliest", "max_partition_fetch_bytes": 50_000}
    with Consumer(topic, bootstrap_servers=door, **arguments) as consumer:  # type: ignore[arg-type]
        seen = []
        for victim in (f"partition {topic}-0", "broker 1", "coordinator"):
            seen += [record.value for record in islice(consumer, 5_000)]
            broker.kill(victim)
        seen += [record.value for record in islice(consumer, 5_000)]
    assert seen == [b"%06d" % number for number in range(20_000)]


@pytest.mark.parametrize(("ours", "theirs"), [("crc32", "consistent_random"), ("consistent", "consistent"), ("murmur2", "murmur2")])
def test_keys_go_where_librdkafka_sends_them(door: str, kafka_address: str, ours: str, theirs: str) -> None:
    topic = make_topic(door, 7)
    keys = [b"key-%d" % number for number in range(100)] + [b"\x80\xff" * 9, "schlüssel".encode()]
    other = confluent_kafka.Producer({"bootstrap.servers": kafka_address, "partitioner": theirs})
    for key in keys:
        other.produce(topic, b"theirs", key=key)
    assert other.flush(30) == 0
    with Producer(door, partitioner=ours) as producer:
        for key in keys:
            producer.send(topic, b"ours", key=key)
    with Consumer(topic, bootstrap_servers=door, auto_offset_reset="earliest") as consumer:
        places = {(record.key, record.partition, record.value) for record in islice(consumer, 2 * len(keys))}
    assert {place[:2] for place in places if place[2] == b"ours"} == {place[:2] for place in places if place[2] == b"theirs"}
    assert len({place[1] for place in places}) > 3
