"""Programs beside their loops: clients that are idle, that start before the broker, that fork, end, are cancelled; test suites
that create and delete the same topics again and again.

Runs against Apache Kafka too (ZAFKA_TEST_BOOTSTRAP), but for what needs a broker of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import aiokafka
import kafka
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from kafka.errors import KafkaTimeoutError

import zafka
from benchmarks.targets import free_port
from tests.clients.conftest import MakeTopic
from tests.clients.test_group_programs import fill, member, read, wait

TIMEOUT_S = 60.0
IDLE_MS = 1000  # the least
ROUNDS = 5


def values(bootstrap: str, topic: str) -> list[bytes]:
    """All that partition 0 holds."""
    with zafka.Consumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([(topic, 0)])
        count = consumer.end_offsets([(topic, 0)])[zafka.TopicPartition(topic, 0)]
        return [record.value or b"" for record in itertools.islice(consumer.records(timeout=TIMEOUT_S), count)]


@pytest.fixture(scope="module")
def own() -> Iterator[zafka.Broker]:
    """It closes idle connections soon, looks for old records often, and its processes are paused."""
    defaults = {"connections.max.idle.ms": IDLE_MS, "log.retention.check.interval.ms": 100}
    with zafka.Broker(["idle", "paused", "old"], defaults=defaults) as broker:
        yield broker


def ends(port: int) -> set[int]:
    """Our ends of the connections to a broker, by their ports."""
    return {each.laddr.port for each in psutil.Process().net_connections("tcp") if each.raddr and each.raddr.port == port
            and each.status == psutil.CONN_ESTABLISHED}


def test_clients_that_were_idle_for_longer_than_the_broker_waits_go_on(own: zafka.Broker) -> None:
    address, port = own.bootstrap_servers, int(own.bootstrap_servers.rpartition(":")[2])
    one = Producer({"bootstrap.servers": address, "log_level": 2})
    two = kafka.KafkaProducer(bootstrap_servers=address)
    three = zafka.Producer(address)

    def send() -> None:
        one.produce("idle", b"confluent")
        assert one.flush(TIMEOUT_S) == 0
        two.send("idle", b"kafka-python").get(TIMEOUT_S)
        three.send("idle", b"zafka").result(TIMEOUT_S)

    send()
    before = ends(port)
    wait(lambda: not before & ends(port))
    send()
    two.close()
    three.close()
    assert sorted(values(address, "idle")) == sorted([b"confluent", b"kafka-python", b"zafka"] * 2)


def test_clients_may_start_before_their_broker() -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    producer = Producer({"bootstrap.servers": address, "log_level": 0, "reconnect.backoff.max.ms": 200})
    failed = threading.Event()
    consumer = Consumer({
        "bootstrap.servers": address, "group.id": "early", "auto.offset.reset": "earliest", "log_level": 0,
        "reconnect.backoff.max.ms": 200, "topic.metadata.refresh.interval.ms": 200, "error_cb": lambda _: failed.set()})
    consumer.subscribe(["jobs"])
    producer.produce("jobs", b"early")
    assert producer.flush(0.1) == 1
    wait(lambda: consumer.poll(0.05) or failed.is_set())
    with zafka.Broker(["jobs"], kafka_port=port, allow_faults=False):
        assert producer.flush(TIMEOUT_S) == 0
        passed: list[bytes | None] = []

        def found() -> bool:
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                passed.append(message.value())
            return bool(passed)

        wait(found)
        assert passed == [b"early"]
        consumer.close()


def test_a_flush_says_what_is_left_and_nothing_is_lost_or_doubled(own: zafka.Broker) -> None:
    one = Producer({"bootstrap.servers": own.bootstrap_servers, "log_level": 0})
    two = kafka.KafkaProducer(bootstrap_servers=own.bootstrap_servers)
    one.produce("paused", b"first")
    two.send("paused", b"first")
    assert one.flush(TIMEOUT_S) == 0
    two.flush(TIMEOUT_S)
    with own.pause("partition paused-0"):
        one.produce("paused", b"one")
        sent = two.send("paused", b"two")
        assert one.flush(0.1) == 1
        with pytest.raises(KafkaTimeoutError):
            two.flush(0.1)
    assert one.flush(TIMEOUT_S) == 0
    sent.get(TIMEOUT_S)
    two.close()
    assert sorted(values(own.bootstrap_servers, "paused")) == [b"first", b"first", b"one", b"two"]


def test_tests_that_use_the_same_names_again_see_nothing_of_each_other(bootstrap: str, make_topic: MakeTopic) -> None:
    """The clients live as long as the suite; its topics as long as a test."""
    names = [f"suite-{os.urandom(3).hex()}-{number}" for number in range(3)]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 2})
    theirs = kafka.KafkaProducer(bootstrap_servers=bootstrap)
    for number in range(ROUNDS):
        for told in admin.create_topics([NewTopic(name, 1, 1) for name in names]).values():
            told.result(TIMEOUT_S)
        for name in names:
            producer.produce(name, b"%d" % number, on_delivery=no_error)
        assert producer.flush(TIMEOUT_S) == 0
        for name in names:
            assert theirs.send(name, b"%d" % number).get(TIMEOUT_S).offset == 1
        for name in names:
            assert values(bootstrap, name) == [b"%d" % number] * 2
        for told in admin.delete_topics(names).values():
            told.result(TIMEOUT_S)
    theirs.close()


def no_error(error: KafkaError | None, _: Any) -> None:
    assert error is None, error


def test_a_group_whose_offset_went_with_old_records_goes_on_at_the_first_that_is_left(own: zafka.Broker) -> None:
    with zafka.Admin(own.bootstrap_servers) as admin:
        address = own.bootstrap_servers
        fill(address, "old", 10)
        with closing(member(address, "billing")) as one:
            one.commit(offsets=[TopicPartition("old", 0, 3)], asynchronous=False)
            admin.alter_config("old", config={"retention.ms": 1})
            wait(lambda: one.get_watermark_offsets(TopicPartition("old", 0), TIMEOUT_S) == (10, 10))
            admin.alter_config("old", config={"retention.ms": None})
            fill(address, "old", 2)
            one.subscribe(["old"])
            assert read(one, 2) == [(0, 10), (0, 11)]
            one.commit(asynchronous=False)
            assert admin.list_group_offsets("billing") == {zafka.TopicPartition("old", 0): 12}


AT_THE_END = """
import atexit, sys, kafka, confluent_kafka
address, topic = sys.argv[1:]
one, two = confluent_kafka.Producer({"bootstrap.servers": address}), kafka.KafkaProducer(bootstrap_servers=address, linger_ms=5000)
atexit.register(one.flush)
atexit.register(two.close)
for number in range(100):
    one.produce(topic, b"confluent %d" % number)
    two.send(topic, b"kafka-python %d" % number)
"""

FORKED = """
import multiprocessing, sys, kafka, confluent_kafka, zafka
address, topic = sys.argv[1:]

def work(name):
    '''With clients of its own, as all that know of forks say; one of them is left to the end of the process.'''
    one = confluent_kafka.Producer({"bootstrap.servers": address})
    one.produce(topic, f"confluent {name}".encode())
    assert one.flush(60) == 0
    with zafka.Producer(address) as producer:
        producer.send(topic, f"zafka {name}".encode()).result(60)
    two = kafka.KafkaProducer(bootstrap_servers=address)
    two.send(topic, f"kafka-python {name}".encode()).get(60)
    two.close()

ours = zafka.Producer(address)
ours.send(topic, b"zafka before").result(60)
theirs = confluent_kafka.Producer({"bootstrap.servers": address})
theirs.produce(topic, b"confluent before")
assert theirs.flush(60) == 0
with multiprocessing.get_context("fork").Pool(3) as pool:
    pool.map(work, range(3), chunksize=1)
work("after")
ours.close()
"""


def run(program: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments], check=False, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr


def test_producers_that_are_closed_at_the_end_of_the_process_leave_nothing_behind(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic()
    run(AT_THE_END, bootstrap, topic)
    found = values(bootstrap, topic)
    for name in (b"confluent", b"kafka-python"):
        assert [value for value in found if value.startswith(name)] == [b"%s %d" % (name, number) for number in range(100)]


def test_forked_workers_write_with_clients_of_their_own(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic()
    run(FORKED, bootstrap, topic)
    wanted = [f"{name} {who}".encode() for name in ("confluent", "kafka-python", "zafka") for who in (0, 1, 2, "after")]
    assert sorted(values(bootstrap, topic)) == sorted([*wanted, b"confluent before", b"zafka before"])


def test_what_asyncio_cancels_is_neither_skipped_nor_doubled(bootstrap: str, make_topic: MakeTopic) -> None:
    topic, count = make_topic(), 60

    async def cancel() -> tuple[list[int], list[int]]:
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=f"group-{topic}", auto_offset_reset="earliest")
        await producer.start()
        await consumer.start()
        found: list[int] = []
        given_up: list[int] = []

        async def take() -> None:
            while len(found) < count:
                record = await consumer.getone()
                found.append(int(record.value or b""))

        for number in range(count):
            sending = asyncio.ensure_future(producer.send_and_wait(topic, b"%d" % number))
            taking = asyncio.ensure_future(take())
            await asyncio.sleep(0 if number % 3 else 0.002)
            if number % 2 and not sending.done():
                sending.cancel()
                given_up.append(number)
            taking.cancel()
            await asyncio.gather(sending, taking, return_exceptions=True)
        await producer.stop()
        end = (await consumer.end_offsets([where := aiokafka.TopicPartition(topic, 0)]))[where]
        async with asyncio.timeout(TIMEOUT_S):
            while len(found) < end:
                found.append(int((await consumer.getone()).value or b""))
        await consumer.stop()
        return found, given_up

    found, given_up = asyncio.run(cancel())
    assert found == sorted(set(found))
    assert {*range(count)} - {*found} <= {*given_up}

