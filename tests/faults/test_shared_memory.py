"""The broker's arena with real processes: kills, pauses, lost mail and exhaustion neither lose a record nor leak a slice,
and hold up nobody else. A slice that leaked would keep memory in the arena for ever, so its memory is what is watched.
"""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message, Producer

import zafka
from zafka.runtime.errors import RuntimeFault
from zafka.testing import Broker
from zafka.transport.shared_memory import NAME

END_S = 60.0
LARGE = 200_000
SEED = int(os.environ.get("SEED", "0")) or random.randrange(1, 2**31)
QUICKLY_HUNG = {"supervision": {"heartbeat": "100ms", "hung_after": "2s"}}


def until(condition: Callable[[], Any], what: str) -> None:
    end_s = time.monotonic() + END_S
    while not condition():
        assert time.monotonic() < end_s, what
        threading.Event().wait(0.02)


def pid_of(broker: Broker, name: str) -> int:
    return int(broker.actor(name)["pid"])


def arena_of(broker: Broker) -> Path | None:
    """The descriptor of the arena in the broker's process; its mapping keeps a second one."""
    for path in Path(f"/proc/{pid_of(broker, 'broker 1')}/fd").iterdir():
        if NAME in os.readlink(path):
            return path
    return None


def memory_of(broker: Broker) -> int:
    path = arena_of(broker)
    assert path is not None
    return os.stat(path).st_blocks * 512


def mapped(pid: int) -> dict[int, int]:
    """Of arenas that a process has mapped, by inode: bytes that it has looked at."""
    pattern = rf"^\S+ \S+ \S+ \S+ (\d+) +\S*{NAME}.*\n(?:.*\n)*?Rss: +(\d+) kB"
    text = Path(f"/proc/{pid}/smaps").read_text()
    return {int(inode): int(kilobytes) * 1024 for inode, kilobytes in re.findall(pattern, text, re.MULTILINE)}


def kill(broker: Broker, name: str) -> bool:
    """False if it is dead already: it may not be back from the kill before."""
    try:
        broker.kill(name)
    except RuntimeFault:
        return False
    return True


def is_new(broker: Broker, name: str, before: int) -> bool:
    return pid_of(broker, name) not in (0, before)


def maps_another(pid: int, before: int) -> bool:
    return bool(set(mapped(pid)) - {before})


class Sender:
    """An idempotent producer of large values; each is told by its first bytes."""

    def __init__(self, broker: Broker, **settings: Any) -> None:
        self.acknowledged: list[bytes] = []
        self.failed: list[str] = []
        self.sent = 0
        self._producer = Producer({
            "bootstrap.servers": broker.bootstrap_servers, "enable.idempotence": True, "linger.ms": 0,
            "message.timeout.ms": int(END_S * 1000), "reconnect.backoff.max.ms": 200, "socket.timeout.ms": 10_000,
            **settings})

    def send(self, topic: str, partition: int, count: int = 1) -> None:
        for _ in range(count):
            value = f"{partition}/{self.sent}/".encode().ljust(20, b".")
            self.sent += 1
            self._producer.produce(topic, value + os.urandom(LARGE), partition=partition, on_delivery=self._on_delivery)
            self._producer.poll(0)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        value = message.value()
        assert value is not None
        if error is None:
            self.acknowledged.append(value[:20])
        else:
            self.failed.append(str(error))

    def acknowledged_at_least(self, count: int) -> bool:
        self._producer.poll(0)
        return len(self.acknowledged) >= count

    def finish(self) -> None:
        assert self._producer.flush(END_S) == 0
        assert not self.failed
        assert len(self.acknowledged) == self.sent


def check_all_there(broker: Broker, topic: str, sender: Sender) -> None:
    """Every record once, and those of a partition in order."""
    read: list[bytes] = []
    with zafka.Consumer(topic, bootstrap_servers=broker.zmq_bootstrap_servers, auto_offset_reset="earliest") as consumer:
        end_s = time.monotonic() + END_S
        while len(read) < sender.sent and time.monotonic() < end_s:
            read += [record.value[:20] for record in consumer.records(timeout=1.0) if record.value is not None]
    assert sorted(read) == sorted(sender.acknowledged)
    for partition in {value.split(b"/")[0] for value in read}:
        numbers = [int(value.split(b"/")[1]) for value in read if value.startswith(partition + b"/")]
        assert numbers == sorted(numbers)


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """One with two partitions; the test's parameter is the size of the arena."""
    defaults = {"shared.memory.bytes": getattr(request, "param", 64 << 20)}
    with Broker({"t": 2}, defaults=defaults, topology=QUICKLY_HUNG) as made:
        yield made


def wait_for_no_leak(broker: Broker) -> None:
    until(lambda: memory_of(broker) == 0, f"{memory_of(broker)} bytes of the arena are still in use")


@pytest.mark.timeout(200)
def test_partitions_read_where_the_broker_has_received_and_the_memory_is_given_back(broker: Broker) -> None:
    sender = Sender(broker)
    sender.send("t", 0, 30)
    sender.finish()
    (inode,) = mapped(pid_of(broker, "partition t-0"))
    path = arena_of(broker)
    assert path is not None and os.stat(path).st_ino == inode
    pid = pid_of(broker, "partition t-0")

    def looked() -> bool:
        sender.send("t", 0)
        return mapped(pid)[inode] > 0

    until(looked, "the partition never reads there")
    sender.finish()
    wait_for_no_leak(broker)
    check_all_there(broker, "t", sender)


@pytest.mark.timeout(200)
def test_a_partition_that_is_killed_loses_nothing_and_leaks_nothing(broker: Broker) -> None:
    print(f"SEED={SEED}")
    choices = random.Random(SEED)
    sender = Sender(broker)
    for _ in range(5):
        sender.send("t", 0, 15)
        sender.send("t", 1, 5)
        target = len(sender.acknowledged) + choices.randrange(8)
        until(partial(sender.acknowledged_at_least, target), "nothing is acknowledged")
        until(partial(kill, broker, "partition t-0"), "it does not run again")
    sender.finish()
    wait_for_no_leak(broker)
    check_all_there(broker, "t", sender)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("broker", [1 << 20, 64 << 20], indirect=True, ids=["exhausted", "roomy"])
def test_a_partition_that_hangs_holds_up_nobody_and_its_slices_are_free_when_it_is_killed(broker: Broker) -> None:
    stopped, other = Sender(broker), Sender(broker)
    stopped.send("t", 0)
    stopped.finish()
    pid = pid_of(broker, "partition t-0")
    os.kill(pid, signal.SIGSTOP)
    stopped.send("t", 0, 20)
    until(lambda: memory_of(broker) >= LARGE, "the arena is not used")
    other.send("t", 1, 20)
    other.finish()  # with the arena full of what the other one does not take
    until(partial(is_new, broker, "partition t-0", pid), "it was not taken for hung")
    stopped.finish()
    wait_for_no_leak(broker)
    check_all_there(broker, "t", _both(stopped, other))


def _both(one: Sender, other: Sender) -> Any:
    """What two senders have sent, for the check."""
    one.acknowledged += other.acknowledged
    one.sent += other.sent
    return one


@pytest.mark.timeout(200)
def test_lost_mail_leaks_nothing(broker: Broker) -> None:
    sender = Sender(broker)
    sender.send("t", 0, 5)
    sender.finish()
    for one, another in (("broker 1", "partition t-0"), ("partition t-0", "broker 1")):
        before = pid_of(broker, "partition t-0")
        broker.drop(one, another, times=1)
        sender.send("t", 0, 10)
        until(partial(is_new, broker, "partition t-0", before), "nobody noticed")
    sender.finish()
    wait_for_no_leak(broker)
    check_all_there(broker, "t", sender)


@pytest.mark.timeout(200)
def test_the_arena_goes_with_its_broker_and_partitions_map_that_of_the_next(broker: Broker) -> None:
    sender = Sender(broker)
    sender.send("t", 0, 10)
    sender.send("t", 1, 1)
    sender.finish()
    (before,) = mapped(pid_of(broker, "partition t-0"))
    sender.send("t", 0, 10)
    broker.kill("broker 1")
    sender.finish()
    for name in ("partition t-0", "partition t-1"):
        pid = pid_of(broker, name)
        until(partial(maps_another, pid, before), "it has not mapped the next one")
        assert before not in mapped(pid)
    wait_for_no_leak(broker)
    check_all_there(broker, "t", sender)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("broker", [0], indirect=True, ids=["off"])
def test_without_an_arena_record_bytes_travel(broker: Broker) -> None:
    sender = Sender(broker)
    sender.send("t", 0, 10)
    sender.finish()
    assert arena_of(broker) is None and not mapped(pid_of(broker, "partition t-0"))
    check_all_there(broker, "t", sender)
