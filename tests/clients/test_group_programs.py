"""What programs do in groups beside reading: commit for each record, seek, pause, be slow, be fenced, be administered.

Runs against Apache Kafka too (ZAFKA_TEST_BOOTSTRAP), and is to say the same there.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import kafka
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import ConsumerStoppedError
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined]
from kafka.admin import KafkaAdminClient
from kafka.errors import CommitFailedError
from kafka.structs import OffsetAndMetadata

from tests.clients.conftest import MakeTopic

TIMEOUT_S = 60.0
BOTH = pytest.mark.parametrize("protocol", ["classic", "consumer"])
NUMBERS = itertools.count()


@pytest.fixture
def group() -> str:
    return f"program-{next(NUMBERS)}-{time.time_ns()}"


@pytest.fixture(scope="module")
def admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap})


def wait(is_so: Callable[[], Any]) -> None:
    end_s = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < end_s
        threading.Event().wait(0.02)


def fill(bootstrap: str, topic: str, count: int, *partitions: int) -> None:
    """Records that say their offset, in each partition."""
    producer = Producer({"bootstrap.servers": bootstrap})
    for partition in partitions or (0,):
        for number in range(count):
            producer.produce(topic, str(number).encode(), partition=partition)
    assert producer.flush(TIMEOUT_S) == 0


def member(bootstrap: str, group: str, protocol: str = "classic", **config: Any) -> Consumer:
    classic = {} if protocol == "consumer" else {"heartbeat.interval.ms": 200, "session.timeout.ms": 6000}
    return Consumer({
        "bootstrap.servers": bootstrap, "group.id": group, "group.protocol": protocol, "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "fetch.wait.max.ms": 50, "log_level": 2, **classic,
        **{key.replace("_", "."): value for key, value in config.items()}})


def read(consumer: Consumer, count: int) -> list[tuple[int | None, int | None]]:
    """Partition and offset of the next records."""
    found: list[tuple[int | None, int | None]] = []
    end_s = time.monotonic() + TIMEOUT_S
    while len(found) < count:
        assert time.monotonic() < end_s, found
        message = consumer.poll(0.1)
        if message is not None:
            assert message.error() is None, message.error()
            found.append((message.partition(), message.offset()))
    return found


def poll_until(is_so: Callable[[], Any], *consumers: Consumer) -> None:
    def polled() -> Any:
        for consumer in consumers:
            consumer.poll(0.01)
        return is_so()

    wait(polled)


def committed(admin: AdminClient, group: str, topic: str) -> dict[int, int]:
    told = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(TIMEOUT_S)
    return {each.partition: each.offset for each in told.topic_partitions if each.topic == topic and each.offset >= 0}


def code_of(error: pytest.ExceptionInfo[KafkaException]) -> int:
    return int(error.value.args[0].code())


@BOTH
def test_who_takes_partitions_by_itself_may_not_commit_for_a_group_with_members(
    bootstrap: str, make_topic: MakeTopic, group: str, admin: AdminClient, protocol: str
) -> None:
    topic = make_topic()
    fill(bootstrap, topic, 3)
    with closing(member(bootstrap, group, protocol)) as one, closing(member(bootstrap, group)) as alone:
        alone.assign([TopicPartition(topic, 0, 0)])
        assert read(alone, 3) == [(0, 0), (0, 1), (0, 2)]
        alone.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)  # nobody is in it yet
        one.subscribe([topic])
        assert read(one, 2) == [(0, 1), (0, 2)]
        with pytest.raises(KafkaException) as refused:
            alone.commit(offsets=[TopicPartition(topic, 0, 2)], asynchronous=False)
        assert code_of(refused) == KafkaError.UNKNOWN_MEMBER_ID
        assert committed(admin, group, topic) == {0: 1}


@BOTH
def test_what_an_administrator_may_do_to_a_group_with_members(
    bootstrap: str, make_topic: MakeTopic, group: str, admin: AdminClient, protocol: str
) -> None:
    topic, other = make_topic(), make_topic()
    fill(bootstrap, topic, 3)
    places = [TopicPartition(topic, 0, 1), TopicPartition(other, 0, 0)]
    admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, places)])[group].result(TIMEOUT_S)
    with closing(member(bootstrap, group, protocol)) as one:
        one.subscribe([topic])
        assert read(one, 2) == [(0, 1), (0, 2)]
        altered = admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, places[:1])])[group]
        with pytest.raises(KafkaException) as refused:
            (told,) = altered.result(TIMEOUT_S).topic_partitions
            raise KafkaException(told.error)
        assert code_of(refused) == KafkaError.UNKNOWN_MEMBER_ID
        with pytest.raises(KafkaException) as refused:
            admin.delete_consumer_groups([group])[group].result(TIMEOUT_S)
        assert code_of(refused) == KafkaError.NON_EMPTY_GROUP
        with closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as theirs:
            told = theirs.delete_group_offsets(group, [kafka.TopicPartition(name, 0) for name in (topic, other)])
        assert {where.topic: error.__name__ for where, error in told.items()} == {
            topic: "GroupSubscribedToTopicError", other: "NoError"}
        assert committed(admin, group, topic) == {0: 1} and committed(admin, group, other) == {}


@BOTH
def test_offsets_go_with_their_topic(
    bootstrap: str, make_topic: MakeTopic, group: str, admin: AdminClient, protocol: str
) -> None:
    """Of a group without members, and of one that reads another topic at the time."""
    topic, other = make_topic(), make_topic()
    fill(bootstrap, topic, 3)
    fill(bootstrap, other, 1)
    with closing(member(bootstrap, group, protocol)) as one:
        one.subscribe([topic, other])
        assert len(read(one, 4)) == 4
        one.commit(asynchronous=False)
        assert committed(admin, group, topic) == {0: 3}
        one.subscribe([other])
        poll_until(lambda: [each.topic for each in one.assignment()] == [other], one)
        admin.delete_topics([topic])[topic].result(TIMEOUT_S)
        wait(lambda: committed(admin, group, topic) == {})
        assert committed(admin, group, other) == {0: 1}


def test_a_commit_for_each_record_and_who_comes_next_goes_on_behind_it(
    bootstrap: str, make_topic: MakeTopic, group: str
) -> None:
    topic = make_topic()
    fill(bootstrap, topic, 40)
    first = kafka.KafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False, auto_offset_reset="earliest")
    for record in itertools.islice(first, 20):
        first.commit({kafka.TopicPartition(topic, 0): OffsetAndMetadata(record.offset + 1, "", -1)})
    first.close(autocommit=False)
    with closing(member(bootstrap, group)) as second:
        second.subscribe([topic])
        for number in range(20, 30):
            assert read(second, 1) == [(0, number)]
            second.commit(asynchronous=False)
    third = kafka.KafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest")
    assert [record.offset for record in itertools.islice(third, 10)] == list(range(30, 40))
    third.close()


@BOTH
def test_seeking_where_partitions_are_given_and_pausing_while_others_come_and_go(
    bootstrap: str, make_topic: MakeTopic, group: str, protocol: str
) -> None:
    topic = make_topic(3)
    fill(bootstrap, topic, 5, 0, 1, 2)
    config = {} if protocol == "consumer" else {"partition_assignment_strategy": "cooperative-sticky"}

    def begin_at_two(consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign([TopicPartition(topic, each.partition, 2) for each in partitions])

    with closing(member(bootstrap, group, protocol, **config)) as one:
        one.subscribe([topic], on_assign=begin_at_two)
        assert sorted(read(one, 9)) == [(partition, offset) for partition in range(3) for offset in (2, 3, 4)]
        other = member(bootstrap, group, protocol, **config)
        other.subscribe([topic])
        poll_until(lambda: len(one.assignment()) + len(other.assignment()) == 3 and other.assignment(), one, other)
        kept = one.assignment()[0].partition
        one.pause([TopicPartition(topic, kept)])
        fill(bootstrap, topic, 1, kept)
        moved = 3 - len(one.assignment())
        other.close()
        assert kept not in {partition for partition, _ in read(one, 3 * moved)}
        one.resume([TopicPartition(topic, kept)])
        assert read(one, 1) == [(kept, 5)]


def test_who_is_too_slow_is_out_and_comes_back(bootstrap: str, make_topic: MakeTopic, group: str) -> None:
    topic = make_topic()
    fill(bootstrap, topic, 2)
    with closing(kafka.KafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False, auto_offset_reset="earliest",
        max_poll_interval_ms=1000, max_poll_records=1, heartbeat_interval_ms=200,
    )) as slow, closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        assert next(slow).offset == 0
        wait(lambda: not admin.describe_groups([group])[group]["members"])
        with pytest.raises(CommitFailedError):
            slow.commit()
        assert next(slow).offset == 0  # nothing was committed: it begins again
        slow.commit()
        assert next(slow).offset == 1


def test_a_consumer_that_is_stopped_while_it_waits_has_left(bootstrap: str, make_topic: MakeTopic, group: str) -> None:
    topic = make_topic()

    async def stop_it() -> None:
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group)
        await consumer.start()
        waiting = asyncio.ensure_future(consumer.getone())
        while not consumer.assignment():
            await asyncio.sleep(0.01)
        await consumer.stop()
        with pytest.raises(ConsumerStoppedError):
            await waiting

    asyncio.run(stop_it())
    with closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        assert not admin.describe_groups([group])[group]["members"]


def fatal_error(consumer: Consumer) -> int:
    """The code of the error that ends a consumer."""
    end_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end_s:
        try:
            message = consumer.poll(0.1)
        except KafkaException as error:
            return int(error.args[0].code())
        if message is not None and (error := message.error()) is not None:
            return int(error.code())
    raise AssertionError("it goes on")


@BOTH
def test_of_two_members_with_one_instance_id_one_goes_on(
    bootstrap: str, make_topic: MakeTopic, group: str, protocol: str
) -> None:
    """Classic: the newer one. KIP-848: the older one, until it leaves."""
    topic = make_topic()
    fill(bootstrap, topic, 2)
    with closing(member(bootstrap, group, protocol, group_instance_id="one")) as older:
        older.subscribe([topic])
        assert len(read(older, 2)) == 2
        with closing(member(bootstrap, group, protocol, group_instance_id="one")) as newer:
            newer.subscribe([topic])
            if protocol == "classic":
                assert len(read(newer, 2)) == 2
                assert fatal_error(older) in (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID)
            else:
                assert fatal_error(newer) in (KafkaError._FATAL, KafkaError.UNRELEASED_INSTANCE_ID)
                fill(bootstrap, topic, 1)
                assert read(older, 1) == [(0, 2)]


def topic_of(consumer: Consumer) -> list[str]:
    return [each.topic for each in consumer.assignment()]


def test_a_static_member_comes_back_with_another_subscription(bootstrap: str, make_topic: MakeTopic, group: str) -> None:
    """In a KIP-848 group. A classic group looks at the names of protocols alone when it comes back, as Kafka's does: it keeps
    what it had until the next rebalance."""
    topics = make_topic(), make_topic()
    with closing(member(bootstrap, group, "consumer")) as other:
        other.subscribe(list(topics))
        poll_until(lambda: len(other.assignment()) == 2, other)
        for topic in topics:
            with closing(member(bootstrap, group, "consumer", group_instance_id="one")) as one:
                one.subscribe([topic])
                poll_until(lambda one=one, topic=topic: topic_of(one) == [topic], one, other)  # type: ignore[misc]
                poll_until(lambda topic=topic: topic_of(other) == [each for each in topics if each != topic], one, other)  # type: ignore[misc]
