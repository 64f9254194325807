"""Cut the power of a whole system under load, again and again, and check what clients saw: the run itself.

Owns: `PowerCuts`, one system on a disk that forgets, with both producers and both consumers at work all the while.
Each cut is: the disk fails everything, then every process is killed, then the disk forgets, then the system starts
on what is left. May fail with NotBack if it does not. The seed chooses when, and what is forgotten (not what runs then).
By hand: `python -m tests.powercut.power_cuts --cuts 200 --seed 7` (`make powercut`); --target kafka for Apache Kafka.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import zafka
from benchmarks.targets import kafka_missing
from tests.faults.groups.load import GROUP_DEFAULTS, TOPIC as GROUP_TOPIC, Members, both_protocols
from tests.faults.keys import KEY_DEFAULTS, TOPICS as KEY_TOPICS, Keys
from tests.faults.loads import (
    Client,
    ConfluentLoad,
    ConfluentReader,
    Load,
    Reader,
    Shared,
    ZafkaLoad,
    ZafkaReader,
    end_offsets,
    places,
    read_everything,
)
from tests.faults.topics import Topics
from tests.powercut.mount import ForgetfulMount, missing
from tests.powercut.systems import Kafka, NotBack, System, Zafka, kept_if_failed

Kinds = dict[str, tuple[float, float, float]]

UNDER_LOAD = "under load"
# kind: how long after the system was ready (s) at least and at most, and how many in a hundred.
CUTS: Kinds = {UNDER_LOAD: (0.1, 2.0, 75), "just after the start": (0.0, 0.1, 18), "after an orderly end": (0.1, 0.5, 7)}
WHILE_IT_STARTS = (0.0, 0.6, 25)  # the same, after it was launched: it is not ready yet, and recovers

KAFKA_PACE = 5.0

# Segments that end all the time, and go: rolls, checkpoints and deletions for the power to be cut in.
ROLLED = {"segment.ms": 300, "retention.ms": 20_000, "file.delete.delay.ms": 1000}
TOPICS: list[dict[str, Any]] = [
    {"name": "plain", "partitions": 4},
    {"name": "ours", "partitions": 2},
    {"name": "rolled", "partitions": 2, "config": ROLLED},
    GROUP_TOPIC, *KEY_TOPICS,
]
DEFAULTS = {"log.retention.check.interval.ms": 500, "file.delete.delay.ms": 1000, **GROUP_DEFAULTS, **KEY_DEFAULTS}


class PowerCuts:
    """Call `run`, then `finish`; `done` counts the cuts by kind, `forgotten` what the disk forgot in them.

    pace: multiplies all times between cuts, for a system that takes longer to get going. kinds: see `CUTS`.
    """

    def __init__(
        self, system: System, mount: ForgetfulMount, seed: int, *, topics: list[dict[str, Any]], pace: float = 1.0,
        kinds: Kinds | None = None,
    ) -> None:
        self.pace = pace
        self.kinds = kinds or CUTS
        self.system = system
        self.mount = mount
        self.random = random.Random(seed)
        self.shared = Shared()
        self.done: Counter[str] = Counter()
        self.forgotten: Counter[str] = Counter()
        self.total = 0
        self.where = [
            place for topic in topics if topic not in KEY_TOPICS for place in places(topic["name"], topic["partitions"])]
        self.has_groups, self.has_keys = GROUP_TOPIC in topics, all(topic in topics for topic in KEY_TOPICS)
        self.groups: list[Members] = []
        self.keys: list[Keys] = []
        self.loads: list[Load] = []
        self.readers: list[Reader] = []
        self.topics: Topics | None = None

    def begin(self) -> None:
        """The clients. The system is up, with its topics."""
        native = [place for place in self.where if place.topic != "plain"]
        plain = [place for place in self.where if place.topic != "ours"]
        self.loads = [
            ConfluentLoad(self.system.bootstrap, plain, self.shared, is_lossy=self.system.is_lossy),
            ZafkaLoad(self.system.native, native, self.shared, is_lossy=self.system.is_lossy),
        ]
        self.readers = [
            ConfluentReader(self.system.bootstrap, self.where, self.shared),
            ZafkaReader(self.system.native, self.where, self.shared),
        ]
        if not self.system.is_lossy:
            self.topics = Topics(self.system.native, self.shared, self.random.randrange(2**32))
        if self.has_groups:
            self.groups = both_protocols(
                self.system.bootstrap, self.system.native, self.shared, self.random.randrange(2**32))
        if self.has_keys:
            self.keys = [
                Keys(self.system.bootstrap, self.system.native, topic["name"], self.shared, self.random.randrange(2**32))
                for topic in KEY_TOPICS]
        for thread in self._threads():
            thread.start()

    def run(self, cuts: int) -> None:
        """So many cuts, fewer if a client was told what it should not be told."""
        while self.done.total() < cuts:
            kind = self.random.choices(list(self.kinds), [share for _, _, share in self.kinds.values()])[0]
            earliest_s, latest_s, _ = self.kinds[kind]
            if self.shared.failed.wait(self.random.uniform(earliest_s, latest_s) * self.pace):
                return
            if kind == "after an orderly end":
                self.system.stop()
            self.cut(kind)
            while self.done.total() < cuts and self.random.random() * 100 < WHILE_IT_STARTS[2]:
                self.shared.failed.wait(self.random.uniform(*WHILE_IT_STARTS[:2]) * self.pace)
                self.cut("while it starts")
            self.system.wait_ready()

    def cut(self, kind: str) -> None:
        """The order matters: after the first step nothing lands, whatever the processes still do."""
        self.mount.cut()
        self.system.kill_all()
        self.forgotten.update(self.mount.come_back(self.random.randrange(2**32)))
        self.done[kind] += 1
        self.system.launch()

    def finish(self) -> None:
        """Let everything be acknowledged, then read it all."""
        for thread in self._threads():
            if thread not in self.groups:
                thread.finish()
        if self.groups:
            ends = end_offsets(self.system.bootstrap, self.where)
            for group in self.groups:
                group.finish_at(ends)
        self.total = read_everything(self.system.bootstrap, self.where, self.shared)
        for checked in (*([self.topics] if self.topics else []), *self.keys):
            checked.check()

    def told(self) -> str:
        """What was done, in a few lines."""
        others = "".join(f"{each.told()}\n" for each in (*self.groups, *self.keys))
        lost, names_lost = self.forgotten["changes lost"], self.forgotten["names lost"]
        return f"""\
cuts: {self.done.total()} ({_listed(self.done)})
not synced when the power went: {self.forgotten["changes"]} writes, {self.forgotten["names"]} names;
    of them forgotten, in part or wholly: {lost} writes, {names_lost} names
records: {_listed({load.kind: load.acknowledged for load in self.loads})} acknowledged, {self.total} there at the end,
    {_listed({reader.kind: reader.count for reader in self.readers})} read meanwhile
longest wait for an acknowledgement: {max(self.shared.longest_wait_s.values(), default=0):.1f} s;
    sends that failed: {sum(load.refused for load in self.loads)}, new producers: {sum(load.lives - 1 for load in self.loads)}
topics created: {self.topics.created if self.topics else 0}
{others}\
problems: {_listed(self.shared.history.counts()) or "none"}"""

    def _threads(self) -> list[Client]:
        return [*self.loads, *self.readers, *([self.topics] if self.topics else []), *self.groups, *self.keys]


def _listed(counts: dict[str, int] | Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)


def cut_zafka(
    cuts: int, seed: int, work: Path, *, topics: list[dict[str, Any]] | None = None, is_lossy: bool = False,
    kinds: Kinds | None = None,
) -> PowerCuts:
    """The whole run against zafka, with its log in `work`."""
    with ForgetfulMount() as mount:
        topics = topics or TOPICS
        system = Zafka(work, mount.path / "data", topics=topics, defaults=DEFAULTS, is_lossy=is_lossy)
        return _run(PowerCuts(system, mount, seed, topics=topics, kinds=kinds), cuts, "" if is_lossy else f"powercut-{seed}")


def cut_kafka(cuts: int, seed: int, work: Path, settings: dict[str, str]) -> PowerCuts:
    """The same against Apache Kafka; what was set up before the load begins is synced, so that it is not in question."""
    with ForgetfulMount() as mount:
        system = Kafka(work, mount.path / "data", settings=settings)
        system.format()
        system.launch()
        system.wait_ready()
        topics: list[dict[str, Any]] = [{"name": "plain", "partitions": 4}, {"name": "ours", "partitions": 2}]
        with zafka.Admin(system.bootstrap, bootstrap_timeout=60) as admin:
            for topic in topics:
                admin.create_topic(topic["name"], topic["partitions"])
        mount.sync()
        return _run(PowerCuts(system, mount, seed, topics=topics, pace=KAFKA_PACE), cuts, is_up=True)


def _run(power: PowerCuts, cuts: int, name: str = "", *, is_up: bool = False) -> PowerCuts:
    """name: of what is kept if the run fails; nothing is kept of one that is to lose records."""
    with kept_if_failed(power.system, lambda: bool(power.shared.problems()), name):
        try:
            if not is_up:
                power.system.launch()
                power.system.wait_ready()
            power.begin()
            power.run(cuts)
            power.finish()
        finally:
            for group in power.groups:
                group.abandon()
    return power


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=("zafka", "kafka"), default="zafka")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a broker setting of Apache Kafka")
    options = parser.parse_args()
    if why := missing() or (kafka_missing() if options.target == "kafka" else ""):
        print(why, file=sys.stderr)
        return 2
    seed = options.seed or random.randrange(1, 2**31)
    print(f"SEED={seed} cuts={options.cuts} target={options.target} {' '.join(options.set)}", flush=True)
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="powercut-") as directory:
        work = Path(directory)
        try:
            if options.target == "kafka":
                power = cut_kafka(options.cuts, seed, work, dict(pair.split("=", 1) for pair in options.set))
            else:
                power = cut_zafka(options.cuts, seed, work)
        except NotBack as error:
            print(error)
            return 1
        print(power.told())
        problems = power.shared.problems()
        print(*problems[:40], sep="\n")
        print(f"{time.monotonic() - started_s:.0f} s; {'FAILED' if problems else 'nothing lost, doubled or moved'}")
        return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
