"""Members of many groups come, go and crash under load, while partitions, brokers and coordinators are killed.

    python -m tests.faults.groups.campaign --minutes 5 [--seed N] [--kinds Java,KIP-848]        (make groups)

Owns: `Campaign`, one broker, one topic that is written to all the while, and one group for each kind of member; the
processes that are their members. What they told is judged by `GroupHistory` when all is read. The seed repeats the
choices, not the timing.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from confluent_kafka import ConsumerGroupType
from confluent_kafka.admin import AdminClient

from tests.faults.groups.kinds import KINDS, Doors, Kind, Mix, needs_java
from tests.faults.groups.observer import Observer
from tests.faults.groups.team import SESSION_S, Team
from tests.faults.loads import ConfluentLoad, Shared, end_offsets, places, read_everything
from zafka.runtime.errors import RuntimeFault
from zafka.testing import Broker

TOPIC, PARTITIONS = "orders", 6
PATIENCE_S, RESTS_AFTER_S = 240.0, 20.0
POLL_S = 0.02
KILL_EVERY_S = (0.2, 1.0)
TARGETS = (
    f"partition {TOPIC}-*", "partition __consumer_offsets-*", "partition __consumer_offsets-*", "broker 1", "coordinator")
DEFAULTS = {"group.initial.rebalance.delay.ms": 100, "group.min.session.timeout.ms": 1000}


class Killer(threading.Thread):
    """Kills a process now and then. done: whom, how often. rests: not now."""

    def __init__(self, broker: Broker, seed: int) -> None:
        super().__init__(daemon=True)
        self.done: Counter[str] = Counter()
        self.must_end = threading.Event()
        self.rests = False
        self._broker = broker
        self._random = random.Random(seed)

    def run(self) -> None:
        while not self.must_end.wait(self._random.uniform(*KILL_EVERY_S)):
            if self.rests:
                continue
            target = self._random.choice(TARGETS)
            if target.endswith("*"):
                target = target[:-1] + str(self._random.randrange(4))
            with contextlib.suppress(RuntimeFault, OSError):  # dead already, or nobody there to ask
                self._broker.kill(target)
                self.done[target] += 1

    def finish(self) -> None:
        self.must_end.set()
        self.join()


class Watcher(threading.Thread):
    """Asks what the groups have committed, all the while."""

    def __init__(self, broker: Broker, teams: Sequence[Team]) -> None:
        super().__init__(daemon=True)
        self.observers = [Observer(broker.bootstrap_servers, team, patience_s=PATIENCE_S) for team in teams]
        self.must_end = threading.Event()

    def run(self) -> None:
        while not self.must_end.wait(POLL_S):
            self.ask()

    def ask(self) -> None:
        for observer in self.observers:
            observer.ask()

    def finish(self) -> None:
        self.must_end.set()
        self.join()

    def close(self) -> None:
        for observer in self.observers:
            observer.close()


class Campaign:
    """Everything of one run. problems: what may not be, at its end."""

    def __init__(self, broker: Broker, kinds: Sequence[Kind | Mix], seed: int, session_s: float) -> None:
        self.broker = broker
        self.random = random.Random(seed)
        self.shared = Shared()
        self.where = places(TOPIC, PARTITIONS)
        self.load = ConfluentLoad(broker.bootstrap_servers, self.where, self.shared, records_a_turn=2)
        doors = Doors(broker.bootstrap_servers, broker.zmq_bootstrap_servers)
        self.teams = [
            Team(f"g{number}-{kind.client}", kind, doors, TOPIC, PARTITIONS, self.random.randrange(2**32), session_s=session_s)
            for number, kind in enumerate(kinds)]
        # When its only broker is gone, librdkafka (2.16) begins anew, and then waits in vain for the coordinator that it knew.
        self.admin = AdminClient({
            "bootstrap.servers": broker.bootstrap_servers, "log_level": 2, "metadata.recovery.strategy": "none"})
        self.killer = Killer(broker, self.random.randrange(2**32))
        self.watcher = Watcher(broker, self.teams)
        self.problems: list[object] = []

    # -- the steps, of all groups at once --------------------------------------------------------

    def join(self, count: int = 1, *, may_crash: bool = False) -> None:
        for team in self.teams:
            for _ in range(count):
                team.join(may_crash=may_crash)
        self.wait_until_shared()

    def leave(self) -> None:
        """One of each group, in order."""
        for team in self.teams:
            team.leave(self.random.choice(team.steady()))
        self.wait_until_shared()

    def crash(self) -> None:
        for team in self.teams:
            team.crash()
        self.wait_until_shared()

    def replace(self, kinds: Sequence[Kind]) -> None:
        """One of each of these kinds comes, one after the other, and for each the one ends who is there for longest, if any is."""
        for team in self.teams:
            before = list(team.members)
            for at, kind in enumerate(kinds):
                if before:
                    team.leave(before[at])
                team.join(kind, may_crash=False)
                self.wait_until_shared()

    def wait_until_of(self, kind: ConsumerGroupType) -> None:
        """Anybody is told that all groups are of this type."""
        def is_so() -> bool:
            listed = self.admin.list_consumer_groups(request_timeout=PATIENCE_S).result().valid
            return {team.group for team in self.teams} <= {each.group_id for each in listed if each.type is kind}

        self.wait(is_so, kind.name)

    def wait_until_shared(self) -> None:
        self.wait(lambda: all(team.is_shared() for team in self.teams), "shared", Team.is_shared)

    def wander(self, seconds: float) -> None:
        """Each group by itself: between one and three members, who come, leave and crash."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            for team in self.teams:
                if len(team.members) < 3 and (len(team.members) == 1 or self.random.random() < 0.5):
                    team.join(may_crash=True)
                elif self.random.random() < 0.5:
                    team.leave(self.random.choice(team.members))
                else:
                    team.crash(self.random.choice(team.members))
            self.shared.failed.wait(self.random.uniform(0.0, 3.0))
            if self.random.random() < 0.3:
                self.wait_until_shared()

    def wait(self, is_so: Callable[[], bool], what: str, is_ready: Callable[[Team], bool] = lambda team: False) -> None:
        """is_ready: of teams that need not explain themselves if it never is so.

        Whose leave found no coordinator is a member until its session ends, and that begins anew with each coordinator: in
        time nobody is killed any more."""
        begun_s = time.monotonic()
        while not is_so():
            waited_s = time.monotonic() - begun_s
            self.killer.rests = waited_s > RESTS_AFTER_S
            assert waited_s < PATIENCE_S, "\n".join(
                (f"not {what}", *(team.explained() for team in self.teams if not is_ready(team))))
            for team in self.teams:
                team.check()
            threading.Event().wait(POLL_S)
        self.killer.rests = False

    # -- a run -----------------------------------------------------------------------------------

    def start(self) -> None:
        for thread in (self.load, self.killer, self.watcher):
            thread.start()

    def finish(self) -> None:
        """Nothing is killed or written any more; all is read and committed, and then judged."""
        self.killer.finish()
        self.load.finish()
        ends = {place.partition: end for place, end in end_offsets(self.broker.bootstrap_servers, self.where).items()}
        self.wait(lambda: all(team.has_read(ends) for team in self.teams), "read to the end")
        self.watcher.finish()
        for team in self.teams:
            team.close()
        self.watcher.ask()
        read_everything(self.broker.bootstrap_servers, self.where, self.shared)
        self.problems = [*self.shared.problems(), *(problem for team in self.teams for problem in team.judge(ends))]

    def keep(self) -> Path:
        """Leave behind, for who looks for the reason, what all members told, a file for each group; and the broker's log and data."""
        directory = Path(tempfile.mkdtemp(prefix="zafka-groups-"))
        (directory / "log").write_text(self.broker.log)
        with contextlib.suppress(shutil.Error):  # told at the end of what files went meanwhile
            shutil.copytree(self.broker.data_dir, directory / "data")
        for team in self.teams:
            (directory / team.group).write_text("\n".join(map(str, team.happened())))
        return directory

    def close(self) -> None:
        """Also where it failed: no process is left."""
        for thread in (self.killer, self.watcher):
            if thread.is_alive():
                thread.finish()
        self.watcher.close()
        self.load.abandon()
        for team in self.teams:
            team.kill()

    def told(self) -> str:
        killed = "".join(f"\n    {count:4} {target}" for target, count in sorted(self.killer.done.items()))
        groups = "".join(f"\n    {team.told()}" for team in self.teams)
        return (f"killed: {self.killer.done.total()}{killed}\nwritten: {self.load.acknowledged}; "
                f"commits asked for {sum(each.asked for each in self.watcher.observers)} times\ngroups:{groups}")


@contextlib.contextmanager
def campaign(kinds: Sequence[Kind | Mix], seed: int, session_s: float = SESSION_S) -> Iterator[Campaign]:
    topology = {"supervision": {"intensity": 1_000_000}}
    defaults = {**DEFAULTS, "group.consumer.session.timeout.ms": int(session_s * 1000)}
    with Broker(topics={TOPIC: PARTITIONS}, topology=topology, defaults=defaults) as broker:
        run = Campaign(broker, kinds, seed, session_s)
        try:
            run.start()
            yield run
        except AssertionError:
            print(f"what the members told: {run.keep()}")
            raise
        finally:
            run.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--session", type=float, default=SESSION_S, help="seconds of a member that may crash: more for a slow machine")
    parser.add_argument("--kinds", default="", help="parts of names of kinds, with commas between; all but Java's if not given")
    options = parser.parse_args()
    seed = options.seed or random.randrange(1, 2**31)
    parts = options.kinds.split(",") if options.kinds else []
    kinds = [kind for kind in KINDS if any(part in kind.name for part in parts) or (not parts and not needs_java(kind))]
    print(f"SEED={seed} minutes={options.minutes:g}: {', '.join(kind.name for kind in kinds)}", flush=True)
    with campaign(kinds, seed, options.session) as run:
        run.join(2, may_crash=True)
        run.wander(options.minutes * 60)
        run.finish()
        print(run.told())
        print(*run.problems[:40], sep="\n")
        if run.problems:
            print(f"what the members told: {run.keep()}")
    print("FAILED" if run.problems else "nothing skipped, nothing again, one owner each")
    return 1 if run.problems else 0


if __name__ == "__main__":
    sys.exit(main())
