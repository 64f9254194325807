"""What a suite works with: systems on running servers, rounds that alternate, fresh topics, rows to note figures in.

Owns: the servers, which all run for the whole time and are loaded one at a time. A *system* is a server and the
configuration that its topics get; zafka with `fsync: os` and Kafka with `flush.messages=1` share the server of
their like.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from benchmarks import load, small, targets
from benchmarks.figures import MORE, Goal, Row

Turn = TypeVar("Turn")


@dataclass(frozen=True)
class System:
    server: str
    config: dict[str, str] = field(default_factory=dict)


SYSTEMS = {
    "zafka": System("zafka"),
    "zafka os": System("zafka", {"fsync": "os"}),
    "kafka": System("kafka"),
    "kafka flush": System("kafka", {"flush.messages": "1"}),
}


def order(systems: list[Turn], number: int) -> list[Turn]:
    """The systems as round `number` takes them: each is first as often as the others."""
    start = number % len(systems) if systems else 0
    return systems[start:] + systems[:start]


class Bench:
    """One suite's run. servers: which are measured. quick: small loads, to see that everything works.
    seconds: how long the suite `connections` is to load each server in each round, 0 for its own choice."""

    def __init__(
        self, servers: list[str], *, rounds: int, quick: bool, seconds: float = 0.0, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        self.servers = servers
        self.round_count = rounds
        self.quick = quick
        self.seconds = seconds
        self.rows: dict[str, Row] = {}
        self.tell = tell
        self._numbers = itertools.count()
        self._running: dict[str, targets.Target] = {}

    def scaled(self, count: int) -> int:
        """A load, or a fiftieth of it in a quick run."""
        return max(1, count // 50) if self.quick else count

    def systems(self, *names: str) -> list[str]:
        return [name for name in names if SYSTEMS[name].server in self.servers]

    def target(self, system: str) -> targets.Target:
        return self._running[SYSTEMS[system].server]

    def note(
        self, name: str, unit: str, system: str, value: float, *, better: str = MORE, goals: tuple[Goal, ...] = ()
    ) -> None:
        if name not in self.rows:
            self.rows[name] = Row(name, unit, better, goals=goals)
        self.rows[name].add(system, value)

    def turns(self, *names: str) -> Iterator[tuple[int, str]]:
        """(round, system), alternating; before each, what earlier ones left unwritten goes to the disk."""
        wanted = self.systems(*names)
        for number in range(self.round_count):
            for system in order(wanted, number):
                self.tell(f"round {number + 1} of {self.round_count}: {system}")
                os.sync()
                yield number, system

    @contextmanager
    def topic(self, system: str, partitions: int = load.PARTITIONS, settings: dict[str, str] | None = None) -> Iterator[str]:
        """A fresh topic of a system; deleted in the end."""
        config = {**SYSTEMS[system].config, **(settings or {})}
        with self.topic_at(self.target(system).bootstrap, partitions, config) as name:
            yield name

    @contextmanager
    def topic_at(
        self, bootstrap: str, partitions: int = load.PARTITIONS, config: dict[str, str] | None = None
    ) -> Iterator[str]:
        """A fresh topic at an address; deleted in the end."""
        name = f"bench-{next(self._numbers)}"
        load.create_topic(bootstrap, name, partitions, config)
        try:
            yield name
        finally:
            load.delete_topic(bootstrap, name)

    @contextmanager
    def started(self) -> Iterator[None]:
        """Both servers up and warm."""
        with ExitStack() as stack:
            for server in self.servers:
                self.tell(f"starting and warming {server}")
                self._running[server] = stack.enter_context(targets.running(server))
                self._warm(server)
            yield

    def _warm(self, server: str) -> None:
        """Load until the JVM has compiled what the suites use."""
        bootstrap = self._running[server].bootstrap
        with self.topic(server) as topic:
            count = self.scaled(300_000)
            for _ in range(3):
                load.produce(bootstrap, topic, count=count, size_bytes=100)
            load.produce(bootstrap, topic, count=self.scaled(100_000), size_bytes=1000)
            load.consume(bootstrap, topic, count=3 * count + self.scaled(100_000))
            small.run(bootstrap, topic, connections=16, in_flight=5, seconds=0.1 if self.quick else 5.0)
