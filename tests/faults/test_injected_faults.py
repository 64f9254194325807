"""Faults injected into a real cluster, as its clients see them: each kind does what it says, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

import zafka
from zafka.runtime.errors import RuntimeFault
from zafka.testing import Broker

ROOT = Path(__file__).resolve().parent.parent.parent
WAIT_S = 30.0
FAST = {"supervision": {"intensity": 10_000, "heartbeat": "100ms", "hung_after": "2s"}}


class Sender:
    """Sends numbered records to one partition; `acknowledged` holds (offset, value) of each that was."""

    def __init__(self, broker: Broker, topic: str, *, direct: bool = True) -> None:
        self.broker = broker
        self.topic = topic
        self.acknowledged: list[tuple[int, bytes]] = []
        self._sent = 0
        self._producer = zafka.Producer(broker.zmq_bootstrap_servers, delivery_timeout=WAIT_S, direct=direct)

    def send(self, size: int = 0) -> int:
        """One record, acknowledged; returns its offset."""
        value = b"%d " % self._sent + b"x" * size
        self._sent += 1
        offset = self._producer.send(self.topic, value, partition=0).result(WAIT_S).offset
        self.acknowledged.append((offset, value))
        return offset

    def send_until(self, done: Callable[[], bool], size: int = 0) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not done():
            assert time.monotonic() < deadline_s
            self.send(size)

    def close(self) -> None:
        self._producer.close()

    def check(self) -> None:
        """Every acknowledged record is there once, at its offset, and nothing else is."""
        self.close()
        assert read(self.broker, self.topic) == self.acknowledged


def read(broker: Broker, topic: str) -> list[tuple[int, bytes]]:
    """All that is there; once more where retention took the first of it meanwhile."""
    with zafka.Consumer(bootstrap_servers=broker.zmq_bootstrap_servers, auto_offset_reset="earliest") as consumer:
        where = zafka.TopicPartition(topic, 0)
        consumer.assign([where])
        deadline_s = time.monotonic() + WAIT_S
        while True:
            start, end = consumer.beginning_offsets([where])[where], consumer.end_offsets([where])[where]
            consumer.seek(where, start)
            found: list[tuple[int, bytes]] = []
            while consumer.position(where) < end:
                assert time.monotonic() < deadline_s, f"read {len(found)} of {end - start}"
                found += [(record.offset, bytes(record.value or b"")) for record in consumer.poll(0.1)]
            if consumer.beginning_offsets([where])[where] == start:
                return found


def until(condition: Callable[[], Any], what: str = "it") -> Any:
    deadline_s = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline_s, f"{what} did not happen"
        threading.Event().wait(0.02)
    return found


def hits(broker: Broker, rule: int) -> int:
    return next(int(each["hits"]) for each in broker.faults() if each["id"] == rule)


@pytest.fixture(scope="module")
def running() -> Iterator[Broker]:
    settings = {"log.retention.check.interval.ms": 200}
    with Broker({"orders": 2, "other": 1}, topology=FAST, defaults=settings) as broker:
        yield broker


@pytest.fixture
def broker(running: Broker) -> Iterator[Broker]:
    yield running
    running.clear_faults()


_topics = iter(range(1000))


@pytest.fixture
def sender(broker: Broker) -> Iterator[Sender]:
    """Of a topic of its own."""
    topic = f"t{next(_topics)}"
    with zafka.Admin(broker.zmq_bootstrap_servers) as admin:
        admin.create_topic(topic, 1, 1, {"segment.bytes": str(2**20), "file.delete.delay.ms": "100"})
    made = Sender(broker, topic)
    yield made
    made.close()


@pytest.fixture
def far_sender(sender: Sender) -> Iterator[Sender]:
    """The same, as from another machine: what it sends goes through the broker."""
    made = Sender(sender.broker, sender.topic, direct=False)
    yield made
    made.close()


# -- processes -----------------------------------------------------------------------------------


def test_a_paused_partition_answers_when_it_goes_on(broker: Broker) -> None:
    with zafka.Producer(broker.zmq_bootstrap_servers) as producer:
        producer.send("orders", b"1", partition=0).result(WAIT_S)
        with broker.pause("partition orders-0"):
            process = psutil.Process(broker.actor("partition orders-0")["pid"])
            until(lambda: process.status() == psutil.STATUS_STOPPED)
            waiting = producer.send("orders", b"2", partition=0)
            producer.send("orders", b"3", partition=1).result(WAIT_S)  # the others go on
            assert not waiting.done()
        waiting.result(WAIT_S)
        assert broker.actor("partition orders-0")["pid"] == process.pid


def test_a_pause_ends_by_itself_or_is_taken_for_a_hang(broker: Broker) -> None:
    pid = broker.actor("partition orders-0")["pid"]
    broker.pause("partition orders-0", for_s=0.2)
    until(lambda: psutil.Process(pid).status() != psutil.STATUS_STOPPED)
    assert broker.actor("partition orders-0")["pid"] == pid
    broker.pause("partition orders-0")
    until(lambda: broker.actor("partition orders-0")["pid"] not in (0, pid), "the restart of what hangs")
    assert "hung" in broker.actor("partition orders-0")["last_exit"]


def test_a_pattern_means_several(broker: Broker) -> None:
    before = {actor["name"]: actor["restarts"] for actor in broker.actors()}
    assert broker.kill("partition orders-*") > 0
    until(lambda: all(broker.actor(f"partition orders-{n}")["restarts"] == before[f"partition orders-{n}"] + 1
                      for n in range(2)))
    assert broker.actor("partition other-0")["restarts"] == before["partition other-0"]


def test_the_supervisor_can_be_paused_too(broker: Broker) -> None:
    with broker.pause("supervisor"):
        until(lambda: psutil.Process(broker.pid).status() == psutil.STATUS_STOPPED)
    assert broker.actor("supervisor")["pid"] == broker.pid


# -- mail ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["drop", "duplicate", "reorder"])
@pytest.mark.parametrize("edge", [("broker 1", "partition {}-0"), ("partition {}-0", "broker 1")])
def test_bad_mail_between_broker_and_partition_costs_time_and_nothing_else(
    broker: Broker, far_sender: Sender, what: str, edge: tuple[str, str]
) -> None:
    sender = far_sender
    rule = getattr(broker, what)(*(name.format(sender.topic) for name in edge), probability=0.3, times=3, seed=1)
    sender.send_until(lambda: hits(broker, rule) == 3)
    broker.clear_faults()
    sender.send()
    sender.check()


def test_mail_that_is_late(broker: Broker, far_sender: Sender) -> None:
    sender = far_sender
    sender.send()
    broker.delay("broker 1", f"partition {sender.topic}-0", 0.2, jitter_s=0.1)
    started_s = time.monotonic()
    sender.send()
    assert time.monotonic() - started_s >= 0.2
    broker.clear_faults()
    sender.check()


def test_an_actor_whose_heartbeats_are_lost_is_restarted(broker: Broker, sender: Sender) -> None:
    name = f"partition {sender.topic}-0"
    sender.send()
    pid = broker.actor(name)["pid"]
    broker.drop(name, "supervisor")
    until(lambda: broker.actor(name)["pid"] not in (0, pid), "the restart of the silent one")
    broker.clear_faults()
    sender.send()
    sender.check()


# -- disk ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", ["ENOSPC", "SHORT", "EIO-WRITE"])
def test_writes_that_fail_are_tried_again(broker: Broker, sender: Sender, error: str) -> None:
    sender.send()
    rule = broker.disk_error(f"partition {sender.topic}-0", error, path_glob="*.log", times=2)
    sender.send_until(lambda: hits(broker, rule) == 2)
    sender.send()
    sender.check()


def test_a_slow_flush_makes_the_acknowledgement_late(broker: Broker, sender: Sender) -> None:
    sender.send()
    broker.disk_error(f"partition {sender.topic}-0", "SLOW", path_glob="*.log", delay_s=0.2, times=1)
    started_s = time.monotonic()
    sender.send()
    assert time.monotonic() - started_s >= 0.2
    sender.check()


def test_a_failed_flush_takes_the_replica_offline_and_says_so(broker: Broker, sender: Sender) -> None:
    sender.send()
    broker.disk_error(f"partition {sender.topic}-0", "FSYNC", path_glob="*.log", times=1)
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "message.timeout.ms": 3000, "log_level": 0})
    failed: list[Any] = []
    producer.produce(sender.topic, b"lost", partition=0, on_delivery=lambda error, message: failed.append(error))
    producer.flush(WAIT_S)
    assert failed[0] is not None
    until(lambda: "flush failed" in broker.log)


def test_damaged_bytes_are_not_served(broker: Broker, sender: Sender) -> None:
    """A partition that was restarted has cold bytes: their CRCs are checked before a client sees them."""
    sender.send(1000)
    broker.kill(f"partition {sender.topic}-0")
    sender.send()
    rule = broker.disk_error("broker 1", "FLIP", path_glob=f"{sender.topic}-0/*.log", times=1, seed=5)
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": "none", "log_level": 0,
                         "enable.auto.commit": False, "check.crcs": False})
    consumer.assign([TopicPartition(sender.topic, 0, 0)])
    found: list[tuple[int, bytes]] = []
    while len(found) < 2:
        message = consumer.poll(WAIT_S)
        assert message is not None
        if message.error() is None:
            found.append((message.offset(), message.value()))
    consumer.close()
    assert hits(broker, rule) == 1
    assert found == sender.acknowledged
    sender.check()


@pytest.mark.parametrize("cold", [False, True])
def test_a_place_that_cannot_be_read_costs_its_readers_only(broker: Broker, sender: Sender, cold: bool) -> None:
    sender.send(1000)
    if cold:
        broker.kill(f"partition {sender.topic}-0")
        sender.send()
    before = broker.actor("broker 1")["pid"]
    rule = broker.disk_error("broker 1", "EIO-READ", path_glob=f"{sender.topic}-0/*.log", times=2)
    sender.check()
    assert hits(broker, rule) == 2
    assert broker.actor("broker 1")["pid"] == before


# -- points --------------------------------------------------------------------------------------

COMMON = ["before-append", "during-append", "after-append", "before-flush", "after-flush", "before-ack", "after-ack"]
AT_ROLL = ["during-roll", "before-index", "before-directory-flush", "during-checkpoint", "before-checkpoint-rename",
           "after-checkpoint-rename"]
AT_DELETION = ["before-delete", "after-delete", "before-unlink"]
AT_RESTART = ["during-recovery", "after-recovery"]


def test_a_crash_at_each_point_of_an_append_loses_nothing(broker: Broker, sender: Sender) -> None:
    sender.send()
    for point in COMMON:
        rule = broker.crash_at(f"partition {sender.topic}-0", point, nth=2)
        sender.send_until(lambda rule=rule: hits(broker, rule) == 1)  # type: ignore[misc]
    sender.check()


def test_a_crash_at_each_point_of_a_roll_loses_nothing(broker: Broker, sender: Sender) -> None:
    sender.send()
    for point in AT_ROLL:
        rule = broker.crash_at(f"partition {sender.topic}-0", point)
        sender.send_until(lambda rule=rule: hits(broker, rule) == 1, size=300_000)  # type: ignore[misc]
    sender.check()


def test_a_crash_at_each_point_of_a_deletion_deletes_no_more_than_retention_says(broker: Broker) -> None:
    topic = f"t{next(_topics)}"
    with zafka.Admin(broker.zmq_bootstrap_servers) as admin:
        config = {"segment.bytes": str(2**20), "file.delete.delay.ms": "50", "retention.bytes": str(2**20)}
        admin.create_topic(topic, 1, 1, config)
    sender = Sender(broker, topic)
    for point in AT_DELETION:
        rule = broker.crash_at(f"partition {topic}-0", point)
        sender.send_until(lambda rule=rule: hits(broker, rule) == 1, size=300_000)  # type: ignore[misc]
    sender.send()
    sender.close()
    left = read(broker, topic)
    assert left == sender.acknowledged[-len(left):]
    assert sum(len(value) for _, value in left) >= 2**20 - 300_000


def test_a_second_crash_during_recovery_loses_nothing(broker: Broker, sender: Sender) -> None:
    sender.send()
    rules = [broker.crash_at(f"partition {sender.topic}-0", point, times=2) for point in AT_RESTART]
    broker.crash_at(f"partition {sender.topic}-0", "during-append")  # leaves a tail to cut
    rules += [broker.crash_at(f"partition {sender.topic}-0", point) for point in ("before-cut", "after-cut")]
    sender.send()
    assert [hits(broker, rule) for rule in rules] == [2, 2, 1, 1]
    sender.check()


def test_a_crash_while_a_topic_is_deleted(broker: Broker, sender: Sender) -> None:
    sender.send()
    rules = [broker.crash_at("broker 1", point) for point in ("before-topic-delete", "after-topic-delete")]
    with zafka.Admin(broker.zmq_bootstrap_servers) as admin:
        admin.delete_topics([sender.topic])
        until(lambda: sender.topic not in admin.list_topics())
    until(lambda: [hits(broker, rule) for rule in rules] == [1, 1], "both crashes")
    folder = broker.data_dir / "broker-1"
    until(lambda: not [path for path in folder.iterdir() if path.name.startswith(sender.topic)], "the removal")


@pytest.mark.parametrize("point", ["before-ack", "after-ack", "after-flush"])
def test_a_crash_of_the_coordinator_while_a_topic_is_created(broker: Broker, point: str) -> None:
    rule = broker.crash_at("coordinator", point)
    topic = f"t{next(_topics)}"
    with zafka.Admin(broker.zmq_bootstrap_servers) as admin:
        with contextlib.suppress(zafka.ZafkaError):  # then it is there, or not
            admin.create_topic(topic, 1, 1, {})
        until(lambda: hits(broker, rule) == 1)
        until(lambda: topic in admin.list_topics() or admin.create_topic(topic, 1, 1, {}))
    sender = Sender(broker, topic)
    sender.send()
    sender.check()


# -- Kafka errors --------------------------------------------------------------------------------


def test_an_error_is_answered_so_many_times_and_librdkafka_tries_again(broker: Broker) -> None:
    rule = broker.inject_error("PRODUCE", "orders", "NOT_LEADER_OR_FOLLOWER", times=3)
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "enable.idempotence": True, "log_level": 0,
                         "retry.backoff.ms": 10})
    told: list[Any] = []
    producer.produce("orders", b"x", partition=0, on_delivery=lambda error, message: told.append(error))
    assert producer.flush(WAIT_S) == 0
    assert told == [None]
    assert hits(broker, rule) == 3


def test_an_error_that_is_final_reaches_the_application(broker: Broker) -> None:
    broker.inject_error("PRODUCE", "orders", "TOPIC_AUTHORIZATION_FAILED", times=1)
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    told: list[Any] = []
    producer.produce("orders", b"x", partition=0, on_delivery=lambda error, message: told.append(error.name()))
    producer.produce("other", b"y", partition=0, on_delivery=lambda error, message: told.append(error))
    assert producer.flush(WAIT_S) == 0
    assert sorted(map(str, told)) == ["None", "TOPIC_AUTHORIZATION_FAILED"]


def test_a_closed_connection_and_a_late_answer(broker: Broker) -> None:
    closed = broker.inject_error("PRODUCE", "orders", close=True, times=1)
    late = broker.inject_error("PRODUCE", "orders", delay_s=0.2, times=1)
    with zafka.Producer(broker.bootstrap_servers) as producer:
        started_s = time.monotonic()
        producer.send("orders", b"x", partition=0).result(WAIT_S)
        assert time.monotonic() - started_s >= 0.2
    assert (hits(broker, closed), hits(broker, late)) == (1, 1)


def test_metadata_with_an_error_is_seen_by_confluent_kafka(broker: Broker) -> None:
    broker.inject_error("LIST_OFFSETS", "orders", "TOPIC_AUTHORIZATION_FAILED")
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": "none", "log_level": 0})
    with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
        consumer.get_watermark_offsets(TopicPartition("orders", 0), timeout=WAIT_S)
    broker.clear_faults()
    low, high = consumer.get_watermark_offsets(TopicPartition("orders", 0), timeout=WAIT_S)
    assert 0 <= low <= high
    consumer.close()


# -- the whole -----------------------------------------------------------------------------------


def test_a_plan_replays(broker: Broker, sender: Sender) -> None:
    plan = {
        "duration": "1200ms",
        "steps": [
            {"do": "kill", "every": "300ms", "vary": "100ms", "target": f"partition {sender.topic}-*"},
            {"do": "drop", "at": "0s", "from": "broker 1", "to": f"partition {sender.topic}-*", "probability": 0.05},
            {"do": "pause", "at": "500ms", "target": "coordinator", "for": "100ms"},
            {"do": "kill", "at": "100ms", "target": "partition absent-*"},
        ],
    }
    done = threading.Event()
    thread = threading.Thread(target=lambda: sender.send_until(done.is_set))
    thread.start()
    told = broker.run_plan(plan, seed=11)
    again = broker.run_plan(plan, seed=11)
    done.set()
    thread.join(WAIT_S)
    assert not thread.is_alive()

    def choices(lines: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        return [(line["at_s"], line["do"], line.get("target"), line.get("seed")) for line in lines]

    assert choices(told) == choices(again)
    assert [line["target"] for line in told if "refused" in line and "absent" in line["refused"]] == ["partition absent-*"]
    assert told[-1]["do"] == "clear"
    assert broker.faults() == []
    sender.check()


def test_what_is_not_there_is_told_with_what_is(broker: Broker) -> None:
    for ask, told in (
        (lambda: broker.pause("partition order-0"), "did you mean 'partition orders-0'.*coordinator"),
        (lambda: broker.drop("broker 7", "coordinator"), "there is no actor 'broker 7'.*broker 1"),
        (lambda: broker.disk_error("coordinator", "ENOPSC"), "did you mean 'ENOSPC'"),
        (lambda: broker.crash_at("coordinator", "after-apend"), "did you mean 'after-append'"),
        (lambda: broker.inject_error("PRODUCE", "orders", "NOT_LEADER"), "did you mean 'NOT_LEADER_OR_FOLLOWER'"),
        (lambda: broker.inject_error("PRODUCE", "orders"), "say one of"),
        (lambda: broker.clear_faults(999), "no rule 999 is in force"),
    ):
        with pytest.raises(RuntimeFault, match=told):
            ask()


def test_without_permission_everything_is_refused() -> None:
    with Broker(["orders"], allow_faults=False) as broker:
        for ask in (
            lambda: broker.kill("partition orders-0"), lambda: broker.pause("coordinator"),
            lambda: broker.drop("broker 1", "coordinator"), broker.faults, broker.clear_faults,
        ):
            with pytest.raises(RuntimeFault, match=r"--allow-faults.*'faults: true'"):
                ask()
        run = json.loads((broker.data_dir / "run.json").read_text())
        assert not (Path(run["run_dir"]) / "faults").exists()


def test_the_example_runs() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "inject_faults.py")], check=False, capture_output=True, text=True,
        timeout=2 * WAIT_S, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "6 records, each one once and in order"
