"""confluent-kafka: what only librdkafka tells. The rest of it is in the matrix (test_matrix.py)."""

from __future__ import annotations

import time

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, Message, Producer, TopicPartition

from tests.clients.conftest import MakeTopic

TIMEOUT_S = 30.0


def write(bootstrap: str, topic: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for _ in range(count):
        producer.produce(topic, b"x", partition=0)
    assert producer.flush(TIMEOUT_S) == 0


def read(bootstrap: str, topic: str, start: int, count: int) -> list[Message]:
    """The next events of partition 0, of which its end is one."""
    reader = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False, "enable.partition.eof": True})
    reader.assign([TopicPartition(topic, 0, start)])
    found = []
    for _ in range(count):
        message = reader.poll(TIMEOUT_S)
        assert message is not None
        found.append(message)
    reader.close()
    return found


def is_end(message: Message) -> bool:
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF


def test_end_of_partition_is_told(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic()
    write(bootstrap, topic, 2)
    found = read(bootstrap, topic, OFFSET_BEGINNING, 3)
    assert [is_end(message) for message in found] == [False, False, True]
    assert found[2].offset() == 2


def test_the_end_is_where_a_reader_of_what_comes_later_begins(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic()
    write(bootstrap, topic, 2)
    (end,) = read(bootstrap, topic, OFFSET_END, 1)
    assert is_end(end) and end.offset() == 2


def test_who_comes_with_sasl_is_told_that_nobody_asks_for_it(bootstrap: str) -> None:
    told: list[KafkaError] = []
    producer = Producer({
        "bootstrap.servers": bootstrap, "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN",
        "sasl.username": "alice", "sasl.password": "secret", "error_cb": told.append})
    deadline_s = time.monotonic() + TIMEOUT_S
    while not any("not valid in current SASL state" in each.str() for each in told):
        assert time.monotonic() < deadline_s, told
        producer.poll(0.02)
    assert KafkaError._AUTHENTICATION in {each.code() for each in told}
