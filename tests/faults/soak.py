"""A real zafka, clients at work, and every fault there is, at random: is anything lost, doubled or moved, or stuck?

Owns: `Soak`, one run; `ACTIONS`, what may happen to it. All of it from outside: signals, a file system that forgets,
a TCP proxy, and faults on request (`zafka chaos`) for mail between actors and for crashes between two steps of their
work. A failed flush is left out, because it needs an operator by design.
By hand: `python -m tests.faults.soak --minutes 10` (`make soak MINUTES=10`). The seed repeats the choices, not the timing.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks.targets import free_port
from tests.faults.groups.load import GROUP_DEFAULTS, TOPIC as GROUP_TOPIC, Members, both_protocols
from tests.faults.keys import KEY_DEFAULTS, TOPICS as KEY_TOPICS, Keys
from tests.faults.loads import (
    Client,
    ConfluentLoad,
    ConfluentReader,
    Load,
    Reader,
    Shared,
    ThroughBrokerLoad,
    ZafkaLoad,
    ZafkaReader,
    end_offsets,
    places,
    read_everything,
)
from tests.faults.proxy import TcpProxy
from tests.faults.topics import Topics
from tests.powercut.mount import ForgetfulMount, missing as fuse_missing
from tests.powercut.systems import NotBack, Zafka, kept_if_failed
from zafka.runtime.errors import RuntimeFault
from zafka.runtime.faults.asking import inject
from zafka.runtime.faults.kinds import AnyFault, Crash, MailFault
from zafka.runtime.faults.points import POINTS

PAUSE_S = (0.05, 0.8)
WHILE_S = (0.1, 1.5)  # how long what can be called off lasts
SOON_S = (0.0, 0.15)  # between a kill and the next, so that it falls into the recovery
ROLLED = {"segment.ms": 1000, "retention.ms": 60_000, "file.delete.delay.ms": 1000}
TOPICS: list[dict[str, Any]] = [
    {"name": "plain", "partitions": 4},
    {"name": "ours", "partitions": 2},
    {"name": "rolled", "partitions": 2, "config": ROLLED},
    GROUP_TOPIC,
]
DEFAULTS = {"log.retention.check.interval.ms": 1000, "file.delete.delay.ms": 1000, **GROUP_DEFAULTS, **KEY_DEFAULTS}
EDGES = (
    ("broker 1", "partition *"), ("partition *", "broker 1"), ("broker 1", "coordinator"), ("coordinator", "broker 1"),
    ("supervisor", "*"), ("*", "supervisor"), ("cleaner 1", "partition *"), ("partition *", "cleaner 1"),
)
NETWORK_S = 5.0  # after this long without an answer a client gives a connection up


class Soak:
    """Call `run`; `done` counts what was done. mount: None if there can be no power cuts here."""

    def __init__(self, system: Zafka, proxies: list[TcpProxy], mount: ForgetfulMount | None, seed: int) -> None:
        self.system = system
        self.proxies = proxies
        self.mount = mount
        self.random = random.Random(seed)
        self.shared = Shared()
        self.done: Counter[str] = Counter()
        self.total = 0
        self.ended_s = (0.0, 0.0)  # from the last fault until all was acknowledged, and from then until all was read
        where = [place for topic in TOPICS for place in places(topic["name"], topic["partitions"])]
        self.where = where
        self.loads: list[Load] = [
            ConfluentLoad(system.bootstrap, [place for place in where if place.topic != "ours"], self.shared,
                          network_s=NETWORK_S),
            ZafkaLoad(system.native, [place for place in where if place.topic != "plain"], self.shared,
                      network_s=NETWORK_S),
            ThroughBrokerLoad(system.native, [place for place in where if place.topic != "plain"], self.shared,
                              network_s=NETWORK_S),
        ]
        self.readers: list[Reader] = [
            ConfluentReader(system.bootstrap, where, self.shared, network_s=NETWORK_S),
            ZafkaReader(system.native, where, self.shared, network_s=NETWORK_S),
        ]
        self.topics = Topics(system.native, self.shared, seed, network_s=NETWORK_S)
        self.groups: list[Members] = both_protocols(system.bootstrap, system.native, self.shared, seed)
        self.keys = [
            Keys(system.bootstrap, system.native, topic["name"], self.shared, seed, network_s=NETWORK_S) for topic in KEY_TOPICS]
        self._to_undo: list[tuple[float, Callable[[], None]]] = []

    def run(self, seconds: float) -> None:
        """Until the time is over or a client was told what it should not be; then all must come right by itself."""
        try:
            self._run(seconds)
        finally:
            for group in self.groups:
                group.abandon()

    def _run(self, seconds: float) -> None:
        threads: list[Client] = [*self.loads, *self.readers, self.topics, *self.groups, *self.keys]
        for thread in threads:
            thread.start()
        names = [name for name, action in ACTIONS.items() if self.mount is not None or not action.needs_mount]
        weights = [ACTIONS[name].weight for name in names]
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s and not self.shared.failed.wait(self.random.uniform(*PAUSE_S)):
            self._undo(time.monotonic())
            [name] = self.random.choices(names, weights)
            ACTIONS[name].do(self)
            self.done[name] += 1
            self._bring_back()
        self._undo(float("inf"))
        self._bring_back()
        healed_s = time.monotonic()
        for client in (*self.loads, self.topics, *self.keys):
            client.finish()
        written_s = time.monotonic()
        ends = end_offsets(self.system.bootstrap, self.where)
        for reader in (*self.readers, *self.groups):
            reader.finish_at(ends)
        self.ended_s = (written_s - healed_s, time.monotonic() - written_s)
        self.total = read_everything(self.system.bootstrap, self.where, self.shared)
        for checked in (self.topics, *self.keys):
            checked.check()

    def told(self) -> str:
        faults = "".join(f"\n    {count:4} {name}" for name, count in sorted(self.done.items()))
        others = "".join(f"\n{each.told()}" for each in (*self.groups, *self.keys))
        waits = ", ".join(f"{name} {wait_s:.1f} s" for name, wait_s in self.shared.longest_wait_s.items())
        return f"""\
faults: {self.done.total()}{faults}
records acknowledged: {", ".join(f"{load.kind} {load.acknowledged}" for load in self.loads)}; {self.total} there at the end
read meanwhile: {", ".join(f"{reader.kind} {reader.count}" for reader in self.readers)}
longest time without an acknowledgement from a partition: {waits}
after the last fault: {self.ended_s[0]:.1f} s until all was acknowledged, {self.ended_s[1]:.1f} s until all was read
topics created: {self.topics.created}{others}
problems: {dict(self.shared.history.counts()) or "none"}"""

    # -- what can happen -------------------------------------------------------------------------

    def kill_one(self) -> None:
        self._signal(self.random.choice(self.system.processes()), signal.SIGKILL)

    def kill_two(self) -> None:
        self.kill_one()
        self._wait(SOON_S)
        if self.system.is_running():
            self.kill_one()

    def kill_all_again(self) -> None:
        """And once more while it starts."""
        self.system.kill_all()
        self.system.launch()
        self._wait((0.0, 0.6))
        self.system.kill_all()

    def stop_one(self) -> None:
        process = self.random.choice(self.system.processes())
        self._signal(process, signal.SIGSTOP)
        self._later(lambda: self._signal(process, signal.SIGCONT))

    def kill_the_supervisor(self) -> None:
        self._signal(self.system.processes()[0], signal.SIGKILL)

    def restart(self) -> None:
        self._undo(float("inf"))  # nobody stopped holds it up
        self.system.stop()

    def cut_power(self) -> None:
        """Which also ends a full disk."""
        assert self.mount is not None
        self.mount.cut()
        self.system.kill_all()
        self.mount.come_back(self.random.randrange(2**32))

    def cut_power_again(self) -> None:
        self.cut_power()
        self.system.launch()
        self._wait((0.0, 0.6))
        self.cut_power()

    def fill_disk(self) -> None:
        assert self.mount is not None
        mount = self.mount
        mount.fill("/*")
        self._later(lambda: mount.fill(None))

    def reset_connections(self) -> None:
        self.random.choice(self.proxies).reset()

    def freeze_connections(self) -> None:
        proxy = self.random.choice(self.proxies)
        proxy.freeze()
        self._later(proxy.thaw)

    def half_open_connections(self) -> None:
        self.random.choice(self.proxies).half_open()

    def lose_mail(self) -> None:
        """Some of what goes one way between actors is lost, or comes twice, or behind what was sent after it."""
        sender, receiver = self.random.choice(EDGES)
        self._inject(MailFault(
            what=self.random.choice(("drop", "duplicate", "reorder")), sender=sender, receiver=receiver,
            probability=self.random.choice((0.02, 0.3, 1.0)), for_s=self.random.uniform(*WHILE_S),
            seed=self.random.randrange(2**31)))

    def delay_mail(self) -> None:
        sender, receiver = self.random.choice(EDGES)
        self._inject(MailFault(
            what="delay", sender=sender, receiver=receiver, delay_ms=self.random.uniform(1, 300), jitter_ms=50,
            for_s=self.random.uniform(*WHILE_S), seed=self.random.randrange(2**31)))

    def crash_at_a_point(self) -> None:
        target = self.random.choice(("partition *", "partition *", "coordinator", "broker 1"))
        self._inject(Crash(
            target=target, point=self.random.choice(list(POINTS)), skip=self.random.randrange(20), times=1,
            for_s=WHILE_S[1]))

    # -- how -------------------------------------------------------------------------------------

    def _inject(self, fault: AnyFault) -> None:
        """If there is somebody to ask, and to hit: it may all be down, stopped, or not up yet."""
        with contextlib.suppress(RuntimeFault, OSError):
            inject(self.system.data, fault)

    def _signal(self, process: psutil.Process, number: int) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
        if number == signal.SIGKILL and self.system.process is not None and process.pid == self.system.process.pid:
            self.system.kill_all()  # the others go with it; that they are gone is waited for

    def _wait(self, bounds_s: tuple[float, float]) -> None:
        self.shared.failed.wait(self.random.uniform(*bounds_s))

    def _later(self, undo: Callable[[], None]) -> None:
        self._to_undo.append((time.monotonic() + self.random.uniform(*WHILE_S), undo))

    def _undo(self, now_s: float) -> None:
        for due_s, undo in self._to_undo:
            if due_s <= now_s:
                undo()
        self._to_undo = [(due_s, undo) for due_s, undo in self._to_undo if due_s > now_s]

    def _bring_back(self) -> None:
        """Whoever is gone as a whole is started again, on the same data and ports: that is no manual step."""
        if not self.system.is_running():
            # A full disk cannot be started on; zafka says so.
            self._undo(float("inf"))
            self.system.launch()
            self.system.wait_ready()


class Action(NamedTuple):
    """weight: how often, among the others."""

    weight: int
    do: Callable[[Soak], None]
    needs_mount: bool = False


ACTIONS = {
    "kill one": Action(30, Soak.kill_one),
    "kill two, one after the other": Action(8, Soak.kill_two),
    "kill the supervisor": Action(5, Soak.kill_the_supervisor),
    "kill everything": Action(4, lambda soak: soak.system.kill_all()),
    "kill everything, and again while it starts": Action(3, Soak.kill_all_again),
    "stop one for a while": Action(15, Soak.stop_one),
    "restart in order": Action(4, Soak.restart),
    "power cut": Action(6, Soak.cut_power, needs_mount=True),
    "power cut, and again while it starts": Action(3, Soak.cut_power_again, needs_mount=True),
    "full disk for a while": Action(5, Soak.fill_disk, needs_mount=True),
    "reset connections": Action(7, Soak.reset_connections),
    "freeze connections for a while": Action(6, Soak.freeze_connections),
    "half-open connections": Action(4, Soak.half_open_connections),
    "mail lost, doubled or overtaken for a while": Action(10, Soak.lose_mail),
    "mail late for a while": Action(5, Soak.delay_mail),
    "crash at a point": Action(10, Soak.crash_at_a_point),
}


@contextlib.contextmanager
def soaked(work: Path, seed: int) -> Iterator[Soak]:
    """A zafka that is up, with proxies before its doors, on a disk that forgets where there can be one.

    What a run that fails leaves behind is kept, and where is said on stderr.
    """
    with contextlib.ExitStack() as stack:
        mount = stack.enter_context(ForgetfulMount()) if not fuse_missing() else None
        doors = {"kafka": free_port(), "zmq": free_port()}
        proxies = [stack.enter_context(TcpProxy(port)) for port in doors.values()]
        listeners = [
            {"name": name, "protocol": name, "bind": f"127.0.0.1:{port}", "advertise": f"127.0.0.1:{proxy.port}"}
            for (name, port), proxy in zip(doors.items(), proxies, strict=True)]
        system = Zafka(work, (mount.path if mount else work) / "data", topics=[*TOPICS, *KEY_TOPICS], defaults=DEFAULTS,
                       listeners={"listeners": listeners}, faults=True)
        system.launch()
        made: list[Soak] = []
        with kept_if_failed(system, lambda: bool(made[0].shared.problems()), f"soak-{seed}"):
            system.wait_ready()
            made.append(Soak(system, proxies, mount, seed))
            yield made[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seed = options.seed or random.randrange(1, 2**31)
    without = f"; no power cuts and full disks: {fuse_missing()}" if fuse_missing() else ""
    print(f"SEED={seed} minutes={options.minutes:g}{without}", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        try:
            with soaked(Path(directory), seed) as soak:
                soak.run(options.minutes * 60)
        except NotBack as error:
            print(f"FAILED: somebody has to help. {error}")
            return 1
        print(soak.told())
        problems = soak.shared.problems()
        print(*problems[:40], sep="\n")
        print("FAILED" if problems else "nothing lost, doubled or moved; nobody had to help")
        return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
