"""kafka-python: default settings (idempotent) and not, every codec, reading from every kind of start."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import UnknownTopicOrPartitionError

from tests.clients.conftest import MakeTopic
from tests.clients.samples import CODECS, FIRST_TIMESTAMP_MS, STEP_MS, Sample, samples

TIMEOUT_S = 30.0


def produce(bootstrap: str, topic: str, records: list[Sample], **settings: Any) -> list[int]:
    """Send to partition 0; returns the acknowledged offsets in order of sending."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, **settings)
    futures = [
        producer.send(topic, record.value, record.key, record.headers, 0, record.timestamp_ms) for record in records
    ]
    offsets = [future.get(TIMEOUT_S).offset for future in futures]
    producer.close(timeout=TIMEOUT_S)
    return offsets


@contextlib.contextmanager
def consumer(bootstrap: str, topic: str, **settings: Any) -> Iterator[tuple[KafkaConsumer, TopicPartition]]:
    """A consumer to which partition 0 is assigned; iteration ends with a failure when nothing comes for long."""
    reader = KafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, consumer_timeout_ms=TIMEOUT_S * 1000, **settings)
    partition = TopicPartition(topic, 0)
    reader.assign([partition])
    try:
        yield reader, partition
    finally:
        reader.close()


def read(reader: KafkaConsumer, count: int) -> list[Any]:
    found = list(itertools.islice(reader, count))
    assert len(found) == count
    return found


def as_sample(record: Any) -> Sample:
    return Sample(record.key, record.value, list(record.headers), record.timestamp)


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("codec", CODECS)
def test_records_come_back_as_they_were_sent(
    bootstrap: str, make_topic: MakeTopic, codec: str, idempotent: bool
) -> None:
    topic = make_topic()
    sent = samples()
    offsets = produce(
        bootstrap, topic, sent, compression_type=None if codec == "none" else codec, enable_idempotence=idempotent,
        linger_ms=20)
    assert offsets == list(range(len(sent)))
    with consumer(bootstrap, topic) as (reader, partition):
        reader.seek_to_beginning(partition)
        found = read(reader, len(sent))
    assert [record.offset for record in found] == offsets
    assert [as_sample(record) for record in found] == sent


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_every_kind_of_acknowledgement(bootstrap: str, make_topic: MakeTopic, acks: int | str) -> None:
    topic = make_topic()
    sent = samples()
    produce(bootstrap, topic, sent, acks=acks, enable_idempotence=False)
    with consumer(bootstrap, topic, auto_offset_reset="earliest") as (reader, _):
        assert [as_sample(record) for record in read(reader, len(sent))] == sent


def test_reading_from_an_offset_the_end_and_a_timestamp(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic()
    sent = samples()
    produce(bootstrap, topic, sent)
    with consumer(bootstrap, topic, auto_offset_reset="latest") as (reader, partition):
        reader.seek(partition, 7)
        assert [record.offset for record in read(reader, 3)] == [7, 8, 9]
        assert reader.beginning_offsets([partition]) == {partition: 0}
        assert reader.end_offsets([partition]) == {partition: len(sent)}

        told = reader.offsets_for_times({partition: FIRST_TIMESTAMP_MS + 3 * STEP_MS - 1})
        assert (told[partition].offset, told[partition].timestamp) == (3, sent[3].timestamp_ms)
        assert reader.offsets_for_times({partition: FIRST_TIMESTAMP_MS + len(sent) * STEP_MS})[partition] is None

        reader.seek_to_end(partition)
        assert reader.position(partition) == len(sent)
        produce(bootstrap, topic, sent[:1])
        assert [record.offset for record in read(reader, 1)] == [len(sent)]


def test_an_offset_out_of_range_goes_where_auto_offset_reset_says(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic()
    produce(bootstrap, topic, samples())
    with consumer(bootstrap, topic, auto_offset_reset="earliest") as (reader, partition):
        reader.seek(partition, 1000)
        assert read(reader, 1)[0].offset == 0


def test_many_records_over_partitions_by_key(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic(4)
    count = 5_000
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=5)
    for number in range(count):
        producer.send(topic, b"%d" % number, b"%d" % (number % 100))
    producer.flush(TIMEOUT_S)
    producer.close(timeout=TIMEOUT_S)
    reader = KafkaConsumer(
        topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=TIMEOUT_S * 1000)
    last: dict[bytes, int] = {}
    for record in read(reader, count):
        number = int(record.value)
        assert number == last.get(record.key, number % 100 - 100) + 100
        last[record.key] = number
    reader.close()
    assert len(last) == 100


def test_topics_are_listed_and_deleted(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic(3)
    reader = KafkaConsumer(bootstrap_servers=bootstrap)
    assert topic in reader.topics()
    assert reader.partitions_for_topic(topic) == {0, 1, 2}
    reader.close()
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.delete_topics([topic])
    with pytest.raises(UnknownTopicOrPartitionError):
        admin.delete_topics([topic])
    admin.close()
