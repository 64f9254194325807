"""Members that are held (SIGSTOP) at each step of a rebalance, for longer than their session: others go on, and they come back.

    python -m tests.faults.groups.held [--kinds aiokafka,Java] [--hold 5]        (make held)

Owns: `Held`, one group for each step: a member that reaches the broker by a proxy, which sees the step, and another one, whose
coming begins the rebalance. Says how long each took to have its share; a member that never has it says where it is.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from benchmarks.targets import free_port
from tests.faults.frames import Frame, FrameProxy
from tests.faults.groups.kinds import AIOKAFKA, JAVA, KAFKA_PYTHON, LIBRDKAFKA, Doors, Kind
from tests.faults.groups.team import SESSION_S, Team
from zafka.testing import Broker
from zafka.transport.kafka.api_keys import ApiKey

KINDS = (KAFKA_PYTHON["range"], AIOKAFKA["range"], LIBRDKAFKA["range"], JAVA["range"])
COMPANION = LIBRDKAFKA["range"]
TOPIC, PARTITIONS = "orders", 4
HOLD_S = SESSION_S + 2.0
PATIENCE_S = 100.0
POLL_S = 0.02
CLIENT_ID = {"confluent": "client.id", "java": "client.id", "kafka-python": "client_id", "aiokafka": "client_id"}


class Step(NamedTuple):
    """Where it is held: when this request was asked, or before or after its answer reached the member."""

    name: str
    api: ApiKey
    is_answer: bool
    is_through: bool


STEPS = (
    Step("JoinGroup asked", ApiKey.JOIN_GROUP, is_answer=False, is_through=True),
    Step("JoinGroup answered", ApiKey.JOIN_GROUP, is_answer=True, is_through=False),
    Step("JoinGroup's answer there", ApiKey.JOIN_GROUP, is_answer=True, is_through=True),
    Step("SyncGroup asked", ApiKey.SYNC_GROUP, is_answer=False, is_through=True),
    Step("SyncGroup answered", ApiKey.SYNC_GROUP, is_answer=True, is_through=False),
)


class Held:
    """A group whose first member is held at `step`, once another one has come."""

    def __init__(self, kind: Kind, step: Step, doors: Doors, proxied: Doors) -> None:
        self.step = step
        self.client_id = f"{kind.client} at {STEPS.index(step)}"
        self.team = Team(self.client_id.replace(" ", "-"), COMPANION, doors, TOPIC, PARTITIONS, seed=0)
        self.is_held = False
        self._is_due = False
        self._proxied = proxied
        self._kind = kind._replace(settings={**kind.settings, CLIENT_ID[kind.client]: self.client_id})

    def begin(self) -> None:
        self.team.join(self._kind, may_crash=True, doors=self._proxied)

    def rebalance(self) -> None:
        self._is_due = True
        self.team.join(may_crash=False)

    def on_frame(self, frame: Frame) -> None:
        step = self.step
        if self._is_due and (frame.api, frame.is_answer, frame.is_through) == (step.api, step.is_answer, step.is_through):
            self._is_due = False
            self.team.members[0].process.send_signal(signal.SIGSTOP)
            self.is_held = True

    def let_go(self) -> None:
        self.team.members[0].process.send_signal(signal.SIGCONT)


class Run:
    """All steps with one kind of client, at the same time. failures: of members that never had their share again."""

    def __init__(self, broker: Broker, proxy: FrameProxy, groups: dict[str, Held], kind: Kind) -> None:
        doors, proxied = Doors(broker.bootstrap_servers, ""), Doors(f"127.0.0.1:{proxy.port}", "")
        self.groups = [Held(kind, step, doors, proxied) for step in STEPS]
        groups.update({each.client_id: each for each in self.groups})
        self.failures: list[str] = []

    def hold(self, hold_s: float) -> None:
        """Each is held for so long after the last of them was; then all have their share."""
        for each in self.groups:
            each.begin()
        self.wait(lambda each: each.team.is_shared())
        for each in self.groups:
            each.rebalance()
        self.wait(lambda each: each.is_held)
        threading.Event().wait(hold_s)
        for each in self.groups:
            each.let_go()
        begun_s = time.monotonic()
        for each in self.groups:
            self.wait(lambda each: each.team.is_shared(), [each])
            print(f"    {time.monotonic() - begun_s:5.1f} s  {each.step.name}", flush=True)

    def wait(self, is_so: Callable[[Held], bool], groups: Sequence[Held] = ()) -> None:
        end_s = time.monotonic() + PATIENCE_S
        waiting = list(groups or self.groups)
        while waiting := [each for each in waiting if not is_so(each)]:
            if time.monotonic() > end_s:
                self.failures += [f"{each.step.name}: {each.team.explained()}" for each in waiting]
                return
            threading.Event().wait(POLL_S)

    def close(self) -> None:
        for each in self.groups:
            each.team.kill()


@contextmanager
def running(kind: Kind) -> Iterator[Run]:
    """A broker with two listeners: what comes by the second is seen on its way."""
    groups: dict[str, Held] = {}

    def on_frame(frame: Frame) -> None:
        if frame.client_id in groups:
            groups[frame.client_id].on_frame(frame)

    direct, behind, zmq = free_port(), free_port(), free_port()
    with FrameProxy(behind, on_frame) as proxy:
        addresses: dict[str, tuple[int, int]] = {"kafka": (direct, direct), "seen": (behind, proxy.port)}
        listeners: list[dict[str, Any]] = [
            {"name": name, "protocol": "kafka", "bind": f"127.0.0.1:{port}", "advertise": f"127.0.0.1:{told}"}
            for name, (port, told) in addresses.items()]
        listeners.append({"name": "zmq", "protocol": "zmq", "bind": f"127.0.0.1:{zmq}"})
        topology = {"brokers": [{"id": 1, "listeners": listeners}]}
        with Broker({TOPIC: PARTITIONS}, defaults={"group.min.session.timeout.ms": 1000}, topology=topology) as broker:
            run = Run(broker, proxy, groups, kind)
            try:
                yield run
            finally:
                run.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", default="", help="parts of names of kinds, with commas between; all if not given")
    parser.add_argument("--hold", type=float, default=HOLD_S, help="seconds")
    options = parser.parse_args()
    failures = []
    for kind in KINDS:
        if any(part in kind.name for part in options.kinds.split(",")):
            print(f"{kind.name}, held for {options.hold:g} s; it had its share again after", flush=True)
            with running(kind) as run:
                run.hold(options.hold)
                failures += run.failures
    print(*failures, sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
