"""The operator's way out of a disk fault and of a damaged log, with the real processes and a real client."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from kafka import KafkaConsumer, TopicPartition as KafkaPythonPartition

import zafka
from tests import command_line
from zafka.testing import Broker, BrokerFailed

ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
COMMAND = [sys.executable, "-m", "zafka", "log"]
WAIT_S = 30.0
COUNT = 60


def zafka_log(*arguments: str, code: int = 0) -> str:
    done = command_line.zafka("log", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    end_s = time.monotonic() + WAIT_S
    while not (result := condition()):
        assert time.monotonic() < end_s, f"not within {WAIT_S} s: {what}"
        threading.Event().wait(0.02)
    return result


def produce(broker: Broker, first: int, count: int) -> list[int]:
    """Each record in a batch of its own; returns the offsets that were acknowledged."""
    offsets: list[int | None] = []
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "message.timeout.ms": 20_000})
    for i in range(first, first + count):
        producer.produce("orders", b"%d" % i, partition=0, on_delivery=lambda _, message: offsets.append(message.offset()))
        assert producer.flush(30) == 0
    return [offset for offset in offsets if offset is not None]


def is_offline(broker: Broker) -> bool:
    """Whether clients are told that the partition has no leader. (What it answers to whoever asks all the same is in
    tests/scenarios/test_disk_fault.py.)"""
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
    leader: int = producer.list_topics("orders", timeout=10).topics["orders"].partitions[0].leader
    return leader == -1


def consume(broker: Broker, *, until: int) -> list[tuple[int, bytes]]:
    """(offset, value) of everything in the partition, up to the position `until`."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": "none", "enable.auto.commit": False,
                         "enable.partition.eof": True})
    consumer.assign([TopicPartition("orders", 0, 0)])
    found: list[tuple[int, bytes]] = []
    end_s = time.monotonic() + WAIT_S
    try:
        while time.monotonic() < end_s:
            message = consumer.poll(0.2)
            if message is None:
                continue
            error, offset, value = message.error(), message.offset(), message.value()
            assert offset is not None
            if error is None:
                assert value is not None
                found.append((offset, value))
            elif error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            elif offset >= until:
                return found
    finally:
        consumer.close()
    raise AssertionError(f"only {found[-3:]}")


def consume_with_ours(bootstrap: str, count: int) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    with zafka.Consumer("orders", bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        for record in consumer.records(timeout=WAIT_S):
            found.append((record.offset, record.value or b""))
            if len(found) == count:
                return found
    raise AssertionError(f"only {found[-3:]}")


def consume_with_kafka_python(broker: Broker, count: int) -> list[tuple[int, bytes]]:
    consumer = KafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers, auto_offset_reset="earliest", consumer_timeout_ms=WAIT_S * 1000)
    consumer.assign([KafkaPythonPartition("orders", 0)])
    try:
        return [(message.offset, message.value) for message, _ in zip(consumer, range(count), strict=False)]
    finally:
        consumer.close()


def directory_of(broker: Broker) -> Path:
    return broker.data_dir / "broker-1" / "orders-0"


def wound(directory: Path, batches: list[int]) -> None:
    """Flip a bit in the body of each of these batches, counted from the first."""
    (path,) = directory.glob("*.log")
    data = bytearray(path.read_bytes())
    positions = [0]
    while positions[-1] < len(data):
        positions.append(positions[-1] + 12 + int.from_bytes(data[positions[-1] + 8 : positions[-1] + 12], "big"))
    for batch in batches:
        data[positions[batch] + 63] ^= 1
    path.write_bytes(bytes(data))


def test_a_damaged_log_comes_back_without_what_was_damaged(tmp_path: Path) -> None:
    with Broker({"orders": 1}, data_dir=tmp_path / "data") as broker:
        assert produce(broker, 0, COUNT) == list(range(COUNT))
        assert "is in use by process" in zafka_log(
            "recover", "orders-0", "--data-dir", str(broker.data_dir), "--accept-loss", code=1)
        assert "orders-0: in use" in zafka_log("verify", "--data-dir", str(broker.data_dir), code=1)
        broker.stop()
        directory = directory_of(broker)
        wound(directory, [7, 8, 30, COUNT - 1])
        for index in directory.glob("*.index"):
            index.unlink()  # so that it is found at the start, and not by a reader
        broker.start()
        wait_for(lambda: is_offline(broker), "the partition is offline")
        assert "the way out: stop zafka" in broker.log
        broker.stop()
        (found,) = json.loads(zafka_log("verify", str(directory), "--format", "json", code=1))
        assert found["lost"] == [
            {"first_offset": first, "last_offset": last} for first, last in ((7, 8), (30, 30), (COUNT - 1, COUNT - 1))]
        assert "nothing was changed" in zafka_log("recover", str(directory), code=1)
        told = zafka_log("recover", "orders-0", "--data-dir", str(broker.data_dir), "--accept-loss")
        assert "to be given up: offsets 7 to 8, offset 30, offset 59; kept: everything else in offsets 0 to 59" in told
        broker.start()
        assert produce(broker, COUNT, 1) == [COUNT]  # an offset is never given out twice
        kept = [(i, b"%d" % i) for i in range(COUNT + 1) if i not in (7, 8, 30, COUNT - 1)]
        assert consume(broker, until=COUNT + 1) == kept
        # Other clients step over the holes, too; ours by both doors.
        for bootstrap in (broker.bootstrap_servers, broker.zmq_bootstrap_servers):
            assert consume_with_ours(bootstrap, len(kept)) == kept
        assert consume_with_kafka_python(broker, len(kept)) == kept
        broker.kill_all()
        broker.start()
        assert consume(broker, until=COUNT + 1)[-1] == (COUNT, b"%d" % COUNT)


def test_a_disk_fault_outlives_restarts_and_its_marker_until_the_operator_says_so(tmp_path: Path) -> None:
    with Broker({"orders": 1}, data_dir=tmp_path / "data") as broker:
        produce(broker, 0, 3)
        (directory_of(broker) / "disk-fault").write_text("flush failed: Input/output error")
        broker.kill("partition orders-0")
        wait_for(lambda: is_offline(broker), "the partition is offline")
        broker.stop()
        assert "offline: flush failed" in zafka_log("verify", str(directory_of(broker)), code=1)
        (directory_of(broker) / "disk-fault").unlink()  # as a power cut does it, or somebody in a hurry
        broker.start()
        wait_for(lambda: is_offline(broker), "the fault is remembered")
        broker.stop()
        told = zafka_log("recover", "orders-0", "--data-dir", str(broker.data_dir), "--accept-loss")
        assert "to be given up: nothing" in told
        broker.start()
        assert produce(broker, 3, 1) == [3]
        assert [value for _, value in consume(broker, until=4)] == [b"0", b"1", b"2", b"3"]
        broker.restart()
        assert produce(broker, 4, 1) == [4]


def test_the_clusters_own_log_comes_back(tmp_path: Path) -> None:
    with Broker({"orders": 1}, data_dir=tmp_path / "data") as broker:
        produce(broker, 0, 3)
        broker.stop()
        directory = broker.data_dir / "coordinator" / "__cluster-0"
        size = sum(1 for _ in directory.glob("*.log"))
        assert size == 1
        (path,) = directory.glob("*.log")
        data = path.read_bytes()
        path.write_bytes(data[:-1])  # the last event is lost
        with pytest.raises(BrokerFailed, match="zafka log recover __cluster-0"):
            broker.start()
        assert (broker.data_dir / "DISK_FAULT").exists()
        told = zafka_log("recover", "__cluster-0", "--data-dir", str(broker.data_dir), "--accept-loss")
        assert "What the cluster decided in the lost offsets is forgotten" in told
        broker.start()
        assert produce(broker, 3, 1) == [3]
        assert len(consume(broker, until=4)) == 4


@pytest.mark.timeout(180)
def test_recovery_by_hand_may_be_killed_and_run_again(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"SEED={seed}")
    random_ = random.Random(seed)
    with Broker({"orders": 1}, data_dir=tmp_path / "data") as broker:
        produce(broker, 0, COUNT)
        broker.stop()
        directory = directory_of(broker)
        wound(directory, [7, 30])
        killed = 0
        for attempt in range(6):
            process = subprocess.Popen(
                [*COMMAND, "recover", str(directory), "--accept-loss"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=ENVIRONMENT)
            # From before it begins to when it is done: the marker says that it has begun.
            if attempt and random_.random() < 0.8:  # the first is killed in any case: Python itself takes longer
                wait_for(lambda p=process: (directory / "disk-fault").exists() or p.poll() is not None, "it begins")  # type: ignore[misc]
            threading.Event().wait(random_.random() * 0.01)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed += process.returncode == -signal.SIGKILL
        zafka_log("recover", str(directory), "--accept-loss")
        recovered = json.loads((directory / "recovered.json").read_bytes())
        assert recovered["finished"]
        assert killed
        broker.start()
        kept = [i for i in range(COUNT) if i not in (7, 30)]
        assert consume(broker, until=COUNT) == [(i, b"%d" % i) for i in kept]
