"""The list of cases, and what each may use.

The cases themselves: cases_writing.py, cases_reading.py, cases_groups.py, cases_admin.py, cases_faults.py.

Owns: the registry. A case is a function of a bench and a driver that asserts; its name is a row of docs/clients.md.
Who writes is checked by the reference reading, and who reads by the reference having written, so that no client is
judged by itself; that all understand each other is a case of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from tests.clients.matrix.driver import (
    BEGINNING,
    DEFAULTS,
    Ability,
    Driver,
    Received,
    Settings,
    Start,
)
from tests.clients.matrix.drivers.confluent import Confluent
from tests.clients.matrix.recorder import Recorder
from tests.clients.samples import Sample, samples
from zafka.storage.batch import HEADER_BYTES, LENGTH_END, BatchHeader, read_header
from zafka.testing import Broker

PATIENCE_S = 60.0
POLL_S = 0.02
SESSION_MS = 2000  # of members that crash: what a busy machine leaves to their heartbeats


class Bench:
    """A broker, and the client that judges the others. broker: None if it is another one, which nobody kills here."""

    def __init__(self, kafka: str, zmq: str, broker: Broker | None, recorder: Recorder | None = None) -> None:
        self.recorder = recorder
        self.passed: list[tuple[str, str]] = []
        self.reference = Confluent(kafka, zmq)
        self.zmq = zmq
        self.broker = broker
        self.numbers = itertools.count()
        self.run = os.urandom(3).hex()
        self.kept: dict[str, tuple[str, list[Sample]]] = {}
        self.used: list[str] = []
        self.strict: Broker | None = None
        self.made: dict[str, str] = {}
        self.drivers: list[Driver] = []

    def fresh_name(self) -> str:
        name = f"m{next(self.numbers)}-{self.run}"
        self.used.append(name)
        return name

    def tidy(self) -> None:
        """Delete what the case before has used, so that there are never many processes; what others read stays."""
        lasting = {*self.made.values(), *(topic for topic, _ in self.kept.values())}
        gone, self.used = [name for name in self.used if name not in lasting], []
        self.reference.delete_if_there(gone)

    def topic(self, partitions: int = 1, **config: str) -> str:
        """A new topic. config: Kafka's names, with _ for the dots."""
        name = self.fresh_name()
        self.reference.make_topic(name, partitions, {key.replace("_", "."): value for key, value in config.items()})
        if self.broker is None:  # Kafka answers a creation before everybody knows of it
            self.wait_until_created(name)
        return name

    def write(self, topic: str, records: Sequence[Sample], settings: Settings = DEFAULTS) -> list[int]:
        """Have the reference write to partition 0."""
        return write(self.reference, topic, records, settings) or []

    def read(self, topic: str, count: int, settings: Settings = DEFAULTS, *, partitions: Sequence[int] = (0,)) -> list[Received]:
        return read(self.reference, topic, count, BEGINNING, settings, partitions=partitions)

    def shared(self, name: str, make: Callable[[Bench], str]) -> str:
        """A topic for all clients, which only read it, made the first time somebody asks."""
        if name not in self.made:
            self.made[name] = make(self)
        return self.made[name]

    def batches(self, topic: str) -> list[BatchHeader]:
        """Headers of all batches of partition 0 as they stand on disk; none of another broker, where we see no disk."""
        if self.broker is None:
            return []
        logs = sorted(self.broker.data_dir.glob(f"broker-1/{topic}-0/*.log"))
        data, headers, position = b"".join(log.read_bytes() for log in logs), [], 0
        while position + HEADER_BYTES <= len(data):
            headers.append(read_header(data, position))
            position += LENGTH_END + headers[-1].batch_length
        return headers

    @contextlib.contextmanager
    def where_nothing_is_created(self, driver: Driver) -> Iterator[Driver]:
        """The same client at another broker, which creates no topics by itself."""
        if self.broker is None:
            pytest.skip("a setting of the broker, which is not ours")
        if self.strict is None:
            self.strict = Broker(allow_faults=False, defaults={"auto.create.topics.enable": "false"}).start()
        elsewhere = type(driver)(self.strict.bootstrap_servers, self.strict.zmq_bootstrap_servers)
        try:
            yield elsewhere
        finally:
            elsewhere.close()

    @property
    def session_ms(self) -> int:
        """The shortest session of a member of a classic group that is worth waiting for."""
        return 6000 if self.broker is None else SESSION_MS

    def shorten_sessions(self, group: str) -> None:
        """Of a KIP-848 group, where it is the broker that says how long they are."""
        if self.broker is None:
            pytest.skip("a setting of the broker, which is not ours")
        self.reference.alter_config("group", group, {"consumer.session.timeout.ms": str(SESSION_MS)})

    def close(self) -> None:
        if self.strict is not None:
            self.strict.stop()

    def wait_until_created(self, topic: str) -> None:
        self.wait(lambda: topic in self.reference.topics(), f"{topic} was never created")

    def wait(self, is_so: Callable[[], bool], otherwise: str) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < deadline_s, otherwise
            threading.Event().wait(POLL_S)

    def wait_until_there(self, topic: str, count: int) -> None:
        """Until the log of partition 0 has so many records."""
        self.wait(lambda: self.reference.bounds(topic)[1] >= count, f"{topic} never had {count} records")

    def kill(self, target: str) -> None:
        """SIGKILL for one actor's process, or for everything, which is then started again."""
        assert self.broker is not None
        if target == "everything":
            self.broker.kill_all()
            self.broker.start()
        else:
            os.kill(self.broker.actor(target)["pid"], signal.SIGKILL)

    def samples_of(self, driver: Driver) -> tuple[str, list[Sample]]:
        """A topic with the samples that this client can express, written by it the first time somebody asks."""
        if driver.name not in self.kept:
            topic, wanted = self.topic(), expressible(driver)
            write(driver, topic, wanted)
            self.kept[driver.name] = topic, wanted
        return self.kept[driver.name]


Run = Callable[[Bench, Driver], None]


@dataclass(frozen=True)
class Case:
    """name: what works, as users would say it. needs_kills: it kills processes of the broker. takes_seconds: it waits
    for what only time brings, so that not all clients are asked to do it each time.
    """

    name: str
    run: Run
    needs: tuple[Ability, ...]
    needs_kills: bool = False
    takes_seconds: bool = False

    def why_not(self, driver: type[Driver]) -> str | None:
        """The reason why this client is not asked to do it; None if it is."""
        return next((driver.cannot[ability] for ability in self.needs if ability in driver.cannot), None)


@dataclass
class Registry:
    cases: list[Case] = field(default_factory=list)

    def __call__(
        self, name: str, *needs: Ability, needs_kills: bool = False, takes_seconds: bool = False
    ) -> Callable[[Run], Run]:
        def add(run: Run) -> Run:
            assert all(case.name != name for case in self.cases), name
            self.cases.append(Case(name, run, needs, needs_kills, takes_seconds))
            return run

        return add


def write(driver: Driver, topic: str, records: Sequence[Sample], settings: Settings = DEFAULTS) -> list[int] | None:
    """Write to partition 0 and close; offsets, None if the client tells none."""
    writer = driver.writer(topic, settings)
    try:
        writer.send(records)
        return writer.flush()
    finally:
        writer.close()


def read(
    driver: Driver, topic: str, count: int, start: Start = BEGINNING, settings: Settings = DEFAULTS, *,
    partitions: Sequence[int] = (0,),
) -> list[Received]:
    reader = driver.reader(topic, start, settings, partitions=partitions)
    try:
        found = reader.read(count)
    finally:
        reader.close()
    assert len(found) == count
    return found


def expressible(driver: Driver) -> list[Sample]:
    """The samples that this client can write; without timestamps if it takes none."""
    wanted = [sample for sample in samples() if driver.expresses(sample)]
    if Ability.TIMESTAMPS in driver.cannot:
        wanted = [sample._replace(timestamp_ms=None) for sample in wanted]
    return wanted


def assert_same(found: Sequence[Received], wanted: Sequence[Sample], *, first_offset: int = 0) -> None:
    """Each record is there, in order, byte for byte; a timestamp counts only where the writer gave one."""
    assert [one.offset for one in found] == list(range(first_offset, first_offset + len(wanted)))
    for one, sample in zip(found, wanted, strict=True):
        told = one.sample if sample.timestamp_ms is not None else one.sample._replace(timestamp_ms=None)
        assert told == sample
