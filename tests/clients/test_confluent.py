"""confluent-kafka (librdkafka): default settings and idempotent, every codec, reading from every kind of start."""

from __future__ import annotations

import time
from typing import Any

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_CREATE_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from tests.clients.conftest import MakeTopic
from tests.clients.samples import CODECS, FIRST_TIMESTAMP_MS, STEP_MS, Sample, samples

TIMEOUT_S = 30.0


def produce(bootstrap: str, topic: str, records: list[Sample], **settings: Any) -> list[int]:
    """Send to partition 0; returns the acknowledged offsets in order of sending."""
    offsets: dict[int, int] = {}
    errors: list[KafkaError] = []
    producer = Producer({"bootstrap.servers": bootstrap, **settings})
    for number, record in enumerate(records):

        def on_delivery(error: KafkaError | None, message: Message, number: int = number) -> None:
            if error is not None:
                errors.append(error)
            offsets[number] = message.offset()

        producer.produce(
            topic, record.value, record.key, partition=0, on_delivery=on_delivery, timestamp=record.timestamp_ms,
            headers=record.headers)
    assert producer.flush(TIMEOUT_S) == 0
    assert errors == []
    return [offsets[number] for number in range(len(records))]


def consumer(bootstrap: str, **settings: Any) -> Consumer:
    return Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False, **settings})


def read(reader: Consumer, count: int) -> list[Message]:
    found: list[Message] = []
    deadline_s = time.monotonic() + TIMEOUT_S
    while len(found) < count and time.monotonic() < deadline_s:
        for message in reader.consume(count - len(found), timeout=1.0):
            assert message.error() is None
            found.append(message)
    assert len(found) == count
    return found


def as_sample(message: Message) -> Sample:
    kind, timestamp_ms = message.timestamp()
    assert kind == TIMESTAMP_CREATE_TIME
    return Sample(message.key(), message.value(), message.headers() or [], timestamp_ms)


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("codec", CODECS)
def test_records_come_back_as_they_were_sent(
    bootstrap: str, make_topic: MakeTopic, codec: str, idempotent: bool
) -> None:
    topic = make_topic()
    sent = samples()
    offsets = produce(
        bootstrap, topic, sent, **{"compression.type": codec, "enable.idempotence": idempotent, "linger.ms": 20})
    assert offsets == list(range(len(sent)))
    reader = consumer(bootstrap)
    reader.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    messages = read(reader, len(sent))
    reader.close()
    assert [message.offset() for message in messages] == offsets
    assert [as_sample(message) for message in messages] == sent


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_every_kind_of_acknowledgement(bootstrap: str, make_topic: MakeTopic, acks: str) -> None:
    topic = make_topic()
    sent = samples()
    produce(bootstrap, topic, sent, acks=acks)
    reader = consumer(bootstrap)
    reader.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    assert [as_sample(message) for message in read(reader, len(sent))] == sent
    reader.close()


def test_reading_from_an_offset_and_a_timestamp(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic()
    sent = samples()
    produce(bootstrap, topic, sent)
    reader = consumer(bootstrap)
    reader.assign([TopicPartition(topic, 0, 7)])
    assert [message.offset() for message in read(reader, 3)] == [7, 8, 9]
    assert reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=TIMEOUT_S) == (0, len(sent))

    asked = TopicPartition(topic, 0, FIRST_TIMESTAMP_MS + 3 * STEP_MS - 1)
    (told,) = reader.offsets_for_times([asked], timeout=TIMEOUT_S)
    assert told.offset == 3
    (told,) = reader.offsets_for_times(
        [TopicPartition(topic, 0, FIRST_TIMESTAMP_MS + len(sent) * STEP_MS)], timeout=TIMEOUT_S)
    assert told.offset == OFFSET_END

    reader.close()


def test_reading_from_the_end_gives_what_comes_later_only(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic()
    sent = samples()
    produce(bootstrap, topic, sent)
    reader = consumer(bootstrap, **{"enable.partition.eof": True})
    reader.assign([TopicPartition(topic, 0, OFFSET_END)])
    (event,) = reader.consume(1, timeout=TIMEOUT_S)  # the end was looked up, and nothing stands there
    error = event.error()
    assert error is not None and error.code() == KafkaError._PARTITION_EOF
    assert event.offset() == len(sent)
    produce(bootstrap, topic, sent[:1])
    assert [message.offset() for message in read(reader, 1)] == [len(sent)]
    reader.close()


def test_an_offset_out_of_range_goes_where_auto_offset_reset_says(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic()
    produce(bootstrap, topic, samples())
    reader = consumer(bootstrap, **{"auto.offset.reset": "earliest"})
    reader.assign([TopicPartition(topic, 0, 1000)])
    assert read(reader, 1)[0].offset() == 0
    reader.close()


def test_many_records_over_partitions_by_key(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic(4)
    count = 20_000
    # Idempotent, because a retry may reorder otherwise, and the first send to a new topic is often retried.
    producer = Producer({
        "bootstrap.servers": bootstrap, "enable.idempotence": True, "queue.buffering.max.messages": count})
    for number in range(count):
        producer.produce(topic, b"%d" % number, key=b"%d" % (number % 100))
    assert producer.flush(TIMEOUT_S) == 0
    reader = consumer(bootstrap)
    reader.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(4)])
    last: dict[bytes, int] = {}
    partition_of: dict[bytes, int] = {}
    for message in read(reader, count):
        key, number = message.key(), int(message.value())
        assert partition_of.setdefault(key, message.partition()) == message.partition()
        assert number == last.get(key, number % 100 - 100) + 100
        last[key] = number
    reader.close()
    assert len(last) == 100


def test_end_of_partition_is_told(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic()
    produce(bootstrap, topic, samples()[:2])
    reader = consumer(bootstrap, **{"enable.partition.eof": True})
    reader.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    found: list[Message] = []
    while len(found) < 3:
        message = reader.poll(TIMEOUT_S)
        assert message is not None
        found.append(message)
    reader.close()
    assert [message.error() for message in found[:2]] == [None, None]
    assert found[2].error().code() == KafkaError._PARTITION_EOF


def test_first_use_of_a_topic_creates_it(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic() + "-auto"
    assert produce(bootstrap, topic, samples()[:1]) == [0]


def test_admin_creates_describes_and_deletes(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic(3, retention_ms="123456")
    admin = AdminClient({"bootstrap.servers": bootstrap})
    assert sorted(admin.list_topics(timeout=TIMEOUT_S).topics[topic].partitions) == [0, 1, 2]
    with pytest.raises(KafkaException) as raised:
        admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(TIMEOUT_S)
    assert raised.value.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
    (described,) = admin.describe_configs([ConfigResource("TOPIC", topic)]).values()
    entries = described.result(TIMEOUT_S)
    assert entries["retention.ms"].value == "123456"
    assert not entries["retention.ms"].is_default
    assert entries["segment.bytes"].is_default
    admin.delete_topics([topic])[topic].result(TIMEOUT_S)
    with pytest.raises(KafkaException) as raised:
        admin.delete_topics([topic])[topic].result(TIMEOUT_S)
    assert raised.value.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
    assert topic not in admin.list_topics(timeout=TIMEOUT_S).topics


def test_a_deleted_topic_comes_back_empty(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic()
    produce(bootstrap, topic, samples())
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.delete_topics([topic])[topic].result(TIMEOUT_S)
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(TIMEOUT_S)
    assert produce(bootstrap, topic, samples()[:2]) == [0, 1]


def test_a_record_that_is_too_large_is_refused(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic(max_message_bytes="1000")
    errors: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(topic, b"x" * 2000, on_delivery=lambda error, _message: errors.append(error))
    assert producer.flush(TIMEOUT_S) == 0
    assert errors[0] is not None
    assert errors[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
