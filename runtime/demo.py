"""The demo: text goes through a cluster whose processes are killed all the while, and comes out exactly once, in order.

Owns: one run of it: start a cluster, send lines, kill, read with a Kafka client and with the ZeroMQ client, compare.
What is proven and how is `runtime/demo_proof.py`'s; the command is `runtime/cli/demo.py`.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from zafka.client.batches import Delivery
from zafka.client.consumer import Consumer
from zafka.client.producer import Producer
from zafka.runtime.demo_proof import Ledger, Line, Witness
from zafka.runtime.demo_text import Text, read_lines
from zafka.testing import Broker

TOPIC = "lines"
PARTITIONS = 4
KILLS = 12
LINE_HEADER = "line"
UNACKNOWLEDGED_MAX = 20_000
RECOVERY_LIMIT_S = 20.0
POLL_S = 0.002
READ_LIMIT_S = 60.0
READ_RECORDS = 5000

VICTIMS = ("partition lines-0", "broker 1", "coordinator", "partition lines-1", "partition lines-2", "partition lines-3")

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how far that is, and how far it goes."""


class DemoFailed(Exception):
    """The run could not be finished; nothing is proven."""


class Kill(NamedTuple):
    """recovery_ms: from the signal until the supervisor said that the next incarnation works."""

    name: str
    pid: int
    recovery_ms: float


@dataclass
class Outcome:
    """What a run found. problems: by reader; all empty means proven."""

    lines: int = 0
    keys: int = 0
    send_s: float = 0.0
    kills: list[Kill] = field(default_factory=list)
    restarts: int = 0
    readers: dict[str, float] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=dict)

    @property
    def proven(self) -> bool:
        return bool(self.readers) and self.lines > 0 and not any(self.problems.values())


def run_demo(texts: list[Text], progress: Progress) -> Outcome:
    """Raises DemoFailed, BrokerFailed, ZafkaError."""
    outcome = Outcome(keys=len(texts))
    ledger = Ledger()
    with Broker({TOPIC: PARTITIONS}) as broker:
        started_s = time.monotonic()
        send_lines(broker, texts, ledger, outcome, progress)
        outcome.send_s = time.monotonic() - started_s
        outcome.lines = ledger.lines
        outcome.restarts = sum(int(actor["restarts"]) for actor in broker.actors())
        for name, read in readers(broker):
            witness = Witness(ledger)
            started_s = time.monotonic()
            for lines in read:
                for line in lines:
                    witness.see(line)
                progress(f"reading with {name}", witness.records, ledger.lines)
            outcome.readers[name] = time.monotonic() - started_s
            outcome.problems[name] = witness.problems()
    return outcome


# -- sending and killing -------------------------------------------------------------------------


def send_lines(broker: Broker, texts: list[Text], ledger: Ledger, outcome: Outcome, progress: Progress) -> None:
    """Send every line; after each 1/(KILLS + 1) of them kill a process and go on sending at once."""
    total = sum(text.lines for text in texts)
    kill_at = iter([total * (number + 1) // (KILLS + 1) for number in range(KILLS)])
    victims = itertools.cycle(VICTIMS)
    killer: Killer | None = None
    next_kill = next(kill_at)
    waiting: deque[tuple[bytes, Delivery]] = deque()
    with Producer(broker.zmq_bootstrap_servers, linger_ms=2) as producer:
        for key, number, line in all_lines(texts):
            ledger.send(key, line)
            waiting.append(
                (key, producer.send(TOPIC, line, key=key, headers={LINE_HEADER: b"%d" % number})))
            if len(waiting) > UNACKNOWLEDGED_MAX:
                acknowledge(ledger, *waiting.popleft())
            while ledger.lines > next_kill:
                killer = kill_next(broker, killer, next(victims), outcome)
                next_kill = next(kill_at, total)
            if ledger.lines % 1000 == 0:
                progress("sending and killing", ledger.lines, total)
        for _ in range(KILLS - len(outcome.kills) - (killer is not None)):  # a file that is too short or has shrunk
            killer = kill_next(broker, killer, next(victims), outcome)
        producer.flush()
        while waiting:
            acknowledge(ledger, *waiting.popleft())
    if killer is not None:
        outcome.kills.append(killer.wait())


def all_lines(texts: list[Text]) -> Iterator[tuple[bytes, int, bytes]]:
    for text in texts:
        key = text.key.encode()
        for number, line in enumerate(read_lines(text), start=1):
            yield key, number, line


def acknowledge(ledger: Ledger, key: bytes, delivery: Delivery) -> None:
    where = delivery.result()
    ledger.acknowledge(key, partition=where.partition, offset=where.offset)


class Killer(threading.Thread):
    """Kills one actor and waits, beside the sending, until its next incarnation works."""

    def __init__(self, broker: Broker, name: str) -> None:
        super().__init__(daemon=True)
        self.broker = broker
        self.victim = name
        self.incarnation = int(broker.actor(name)["incarnation"])
        self.started_s = time.monotonic()
        self.pid = broker.kill(name)
        self.recovered_s = 0.0
        self.start()

    def run(self) -> None:
        while time.monotonic() < self.started_s + RECOVERY_LIMIT_S:
            actor = self.broker.actor(self.victim)
            if int(actor["incarnation"]) > self.incarnation and actor["state"] == "running":
                self.recovered_s = time.monotonic()
                return
            time.sleep(POLL_S)

    def wait(self) -> Kill:
        self.join(RECOVERY_LIMIT_S + 1)
        if not self.recovered_s:
            raise DemoFailed(f"{self.victim} was not back {RECOVERY_LIMIT_S:g} s after process {self.pid} was killed")
        return Kill(self.victim, self.pid, (self.recovered_s - self.started_s) * 1000)


def kill_next(broker: Broker, previous: Killer | None, victim: str, outcome: Outcome) -> Killer:
    """Kill once the process that was killed before is back, so that each kill hits a working one."""
    if previous is not None:
        outcome.kills.append(previous.wait())
    return Killer(broker, victim)


# -- reading -------------------------------------------------------------------------------------


def readers(broker: Broker) -> Iterator[tuple[str, Iterator[list[Line]]]]:
    """Independent ways to read the topic from its beginning to what is its end now."""
    try:
        import confluent_kafka
    except ImportError:
        # Not a dependency of zafka; `make demo` installs it.
        yield "zafka's client over Kafka's protocol", read_with_zafka(broker.bootstrap_servers)
    else:
        version: Any = confluent_kafka.version()
        version = version if isinstance(version, str) else version[0]
        yield f"confluent-kafka {version}", read_with_confluent(broker.bootstrap_servers, confluent_kafka)
    yield "zafka's client over ZeroMQ", read_with_zafka(broker.zmq_bootstrap_servers)


def read_with_zafka(bootstrap: str) -> Iterator[list[Line]]:
    with Consumer(TOPIC, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        left = sum(consumer.end_offsets(consumer.assignment()).values())
        deadline_s = time.monotonic() + READ_LIMIT_S
        while left > 0 and time.monotonic() < deadline_s:
            records = consumer.poll(1.0, READ_RECORDS)
            left -= len(records)
            yield [
                Line(record.partition, record.offset, record.key or b"", int(record.header(LINE_HEADER) or 0),
                     record.value or b"")
                for record in records
            ]


def read_with_confluent(bootstrap: str, confluent_kafka: Any) -> Iterator[list[Line]]:
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": bootstrap, "group.id": "demo", "enable.auto.commit": False, "auto.offset.reset": "error"})
    partitions = [confluent_kafka.TopicPartition(TOPIC, number, 0) for number in range(PARTITIONS)]
    left = sum(consumer.get_watermark_offsets(partition, timeout=READ_LIMIT_S)[1] for partition in partitions)
    consumer.assign(partitions)
    deadline_s = time.monotonic() + READ_LIMIT_S
    while left > 0 and time.monotonic() < deadline_s:
        messages = consumer.consume(READ_RECORDS, timeout=1.0)
        left -= len(messages)
        for message in messages:
            if message.error() is not None:
                raise DemoFailed(f"confluent-kafka: {message.error()}")
        yield [
            Line(message.partition(), message.offset(), message.key() or b"", int(dict(message.headers())[LINE_HEADER]),
                 message.value() or b"")
            for message in messages
        ]
    consumer.close()
