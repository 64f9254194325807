"""Groups whose members come, leave, die and are stopped while everything else goes on: clients of a soak, or of power cuts.

Owns: `Members`, a client as those of `tests/faults/loads.py`, of one group; `both_protocols`, the two groups of a run.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Any

from tests.faults.groups.kinds import LIBRDKAFKA_848, OURS_848, Doors, Kind, Mix, librdkafka, ours
from tests.faults.groups.observer import Observer
from tests.faults.groups.team import SESSION_S, Team
from tests.faults.loads import READ_S, Client, Shared

MEMBERS = (2, 3)  # at least and at most
CHANGE_S = (1.0, 4.0)  # between two changes
STOPPED_S = (0.3, 6.0)  # some longer than the session, and fenced
ASK_S = 0.3
ANSWER_S = 1.0
TOPIC: dict[str, Any] = {"name": "shared", "partitions": 4}
STRATEGIES = ("range", "roundrobin", "cooperative-sticky")
GROUP_DEFAULTS = {
    "group.initial.rebalance.delay.ms": 100, "group.min.session.timeout.ms": 1000,
    "group.consumer.session.timeout.ms": int(SESSION_S * 1000)}


class Members(Client):
    """A group that reads `TOPIC` until `finish_at`, with members of this kind. Who is between it and the broker may cut it off."""

    def __init__(self, group: str, kind: Kind | Mix, doors: Doors, shared: Shared, seed: int) -> None:
        super().__init__(shared, f"group {group}")
        self.left = 0
        self._random = random.Random(seed)
        self._team = Team(group, kind.with_bad_network(), doors, TOPIC["name"], TOPIC["partitions"],
                          self._random.randrange(2**32), may_be_cut_off=True)
        self._observer = Observer(doors.kafka, self._team, patience_s=ANSWER_S)
        self._committed: dict[int, int] = {}
        self._ends: dict[int, int] = {}

    def work(self) -> None:
        change_s = 0.0
        try:
            while not self.must_end.wait(ASK_S):
                if time.monotonic() > change_s and not self._ends:
                    change_s = time.monotonic() + self._random.uniform(*CHANGE_S)
                    self._change()
                self._team.check()
                committed = self._observer.ask()
                self._committed = self._committed if committed is None else committed
        finally:
            self._observer.close()
            if self._ends:
                self._team.close()
            else:
                self._team.kill()

    def _change(self) -> None:
        least, most = MEMBERS
        count = len(self._team.members)
        change = self._random.choice(("leave", "kill", "stop", "join", "join"))
        if change == "join" or count < least:
            if count < most:
                self._join()
            return
        member = self._random.choice(self._team.members)
        if change == "stop":
            self._team.stop(member, self.must_end, self._random.uniform(*STOPPED_S))
            return
        if change == "leave":
            self.left += 1
            self._team.leave(member)
        else:
            self._team.crash(member)
        if count == least:
            self._join()

    def _join(self) -> None:
        self._team.join(may_crash=True)

    def finish_at(self, ends: dict[Any, int]) -> None:
        """Have it commit all up to these end offsets, which nobody moves any more; then end it, and judge."""
        self._ends = {place.partition: end for place, end in ends.items() if place.topic == TOPIC["name"]}
        deadline_s = time.monotonic() + READ_S
        while self._committed != self._ends and time.monotonic() < deadline_s and self.is_alive():
            threading.Event().wait(0.05)
        if self._committed != self._ends:
            self.shared.fail(self.name, f"has committed {self._committed}, with no fault left; the ends are {self._ends}")
        self.finish()
        for problem in self._team.judge(self._ends):
            self.shared.fail(self.name, problem)

    def abandon(self) -> None:
        """End all members, whatever they have come to; also if nobody asked for more."""
        self.must_end.set()
        if self.ident is not None:
            self.join()

    def told(self) -> str:
        return f"{self._team.group}: {self.left} left; {self._team.told()}"


def both_protocols(kafka: str, zmq: str, shared: Shared, seed: int) -> list[Members]:
    """A group of the classic protocol and one of KIP-848, with members of both clients; both read `TOPIC`."""
    choices = random.Random(seed)
    doors = Doors(kafka, zmq)
    strategy = choices.choice(STRATEGIES)
    kinds = {
        "classic": Mix("classic", (librdkafka(strategy), ours(strategy, "zmq")), ()),
        "kip-848": Mix("kip-848", (), (choices.choice(LIBRDKAFKA_848), choices.choice(OURS_848)))}
    return [Members(group, each, doors, shared, choices.randrange(2**32)) for group, each in kinds.items()]
