"""Batches straight to the partitions, while partitions and broker are killed and stopped: nothing is lost, doubled or moved.

RELIABILITY, invariants 1 to 6. That a batch goes the direct way is seen at the partition's own socket.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

import psutil
import pytest

import zafka
from zafka.testing import Broker

WAIT_S = 60.0
IN_FLIGHT = 30
FAST = {"supervision": {"intensity": 10_000, "heartbeat": "100ms", "hung_after": "2s"}}
PATIENT = {"supervision": {"intensity": 10_000, "hung_after": "300s"}}
PARTITION = "partition orders-0"

pytestmark = pytest.mark.timeout(240)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, f"{what} did not happen"
        threading.Event().wait(0.02)


class Stream:
    """Numbered records to one partition, many on their way at a time."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.producer = zafka.Producer(broker.zmq_bootstrap_servers, linger_ms=0, delivery_timeout=WAIT_S)
        self.count = 0
        self._waiting: deque[zafka.Delivery] = deque()

    def send(self) -> zafka.Delivery:
        delivery = self.producer.send("orders", b"%d" % self.count, partition=0)
        self.count += 1
        self._waiting.append(delivery)
        while len(self._waiting) > IN_FLIGHT:
            self._waiting.popleft().result(WAIT_S)
        return delivery

    def send_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline_s, f"{what} did not happen"
            for _ in range(20):
                self.send()

    def goes_directly(self) -> bool:
        """Whether the partition that runs now has a client at its door: there are the listening socket and another one."""
        try:
            process = psutil.Process(self.broker.actor(PARTITION)["pid"])
            paths = [str(each.laddr) for each in process.net_connections("unix")]
        except (psutil.NoSuchProcess, KeyError):
            return False
        return sum(os.path.basename(path).startswith("d") and "zafka-run-" in path for path in paths) > 1

    def settle(self) -> None:
        """All is acknowledged, and goes straight to the partition."""
        self.send_until(self.goes_directly, "the direct way")
        for _ in range(5):
            self.send()
        self.producer.flush(WAIT_S)

    def check(self) -> None:
        """What was sent is there once, in order."""
        self.producer.close()
        where = zafka.TopicPartition("orders", 0)
        with zafka.Consumer(bootstrap_servers=self.broker.zmq_bootstrap_servers, auto_offset_reset="earliest") as consumer:
            consumer.assign([where])
            found: list[int] = []
            deadline_s = time.monotonic() + WAIT_S
            while len(found) < self.count:
                assert time.monotonic() < deadline_s, f"read {len(found)} of {self.count}"
                found += [int(record.value or b"") for record in consumer.poll(0.2)]
            found += [int(record.value or b"") for record in consumer.poll(0.2)]
        assert found == list(range(self.count))


@pytest.fixture
def stream() -> Iterator[Stream]:
    with Broker({"orders": 1}, topology=FAST) as broker:
        yield Stream(broker)


def test_nothing_is_lost_doubled_or_moved_by_kills(stream: Stream) -> None:
    for target in (PARTITION, "broker 1", PARTITION, PARTITION, "broker 1", "coordinator"):
        stream.settle()
        killed = stream.broker.actor(target)["pid"]
        for _ in range(IN_FLIGHT):
            stream.send()
        stream.broker.kill(target)
        stream.send_until(
            lambda target=target, killed=killed: stream.broker.actor(target)["pid"] not in (killed, 0, None),  # type: ignore[misc]
            f"a successor of {target}")
    stream.settle()
    stream.check()


@pytest.mark.parametrize("target", [PARTITION, "broker 1"])
def test_who_is_stopped_until_it_is_taken_for_hung(stream: Stream, target: str) -> None:
    stream.settle()
    stopped = stream.broker.actor(target)["pid"]
    with stream.broker.pause(target):
        stream.send_until(lambda: not psutil.pid_exists(stopped), "the end of who is hung")
    stream.settle()
    stream.check()


def test_who_is_stopped_for_a_moment_goes_on(stream: Stream) -> None:
    stream.settle()
    for _ in range(3):
        with stream.broker.pause(PARTITION):
            for _ in range(IN_FLIGHT // 2):
                stream.send()
            threading.Event().wait(0.02)
    stream.settle()
    stream.check()


def test_writing_goes_on_while_the_broker_is_stopped() -> None:
    """What makes the way direct: nobody but the partition is needed to acknowledge."""
    with Broker({"orders": 1}, topology=PATIENT) as broker:
        stream = Stream(broker)
        stream.settle()
        with broker.pause("broker 1"):
            for _ in range(3 * IN_FLIGHT):
                stream.send()
            stream.producer.flush(WAIT_S)
        stream.check()


def test_dead_partitions_leave_no_sockets(stream: Stream) -> None:
    stream.settle()
    process = psutil.Process(stream.broker.actor(PARTITION)["pid"])
    path = next(str(each.laddr) for each in process.net_connections("unix") if "zafka-run-" in str(each.laddr))
    stream.broker.kill(PARTITION)
    stream.settle()
    until(lambda: not os.path.exists(path), "the removal of a dead socket")
    folder = os.path.dirname(path)
    assert sum(name.startswith("d") for name in os.listdir(folder)) == 1
    stream.check()
