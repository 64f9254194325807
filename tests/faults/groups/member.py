"""A member of a group as a process of its own: it reads, commits, and tells what happens to it, until its input ends.

    python -m tests.faults.groups.member '{"kind": "confluent", "bootstrap": …, "topic": …, "group": …, "settings": {…}}'

Owns: one consumer. It commits now and then, and all that it has read before it lets go of a partition; what is told is
written before anything else happens, and that it wants to commit before it tries, so that a crash hides nothing that
others could see. What it may be told while coordinators die is tried again; anything else ends it with an error, which
its parent sees. Asked by a signal, it writes to stderr where it is, so that who waits for it in vain can say why.
"""

from __future__ import annotations

import asyncio
import faulthandler
import itertools
import json
import operator
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from tests.faults.groups import events
from tests.faults.groups.client import EXPLAIN, EXPLAINED, Client, ClientEnded, CommitRefused, Listener, Records, Task
from tests.faults.groups.clients import confluent, ours
from tests.faults.groups.looping_clients import aiokafka, bridged, kafka_python

COMMIT_EVERY_S = 0.3
PATIENCE_S = 60.0
RETRY_S = 0.02


class Member:
    """owned: what it has. positions: offset after what was read of each partition of it. committed: what was acknowledged of them."""

    def __init__(self, task: Task) -> None:
        self.topic = task.topic
        self.owned: set[int] = set()
        self.positions: dict[int, int] = {}
        self.committed: dict[int, int] = {}
        self.client = CLIENTS[task.kind](self, task)
        signal.signal(EXPLAIN, self._explain)
        faulthandler.register(EXPLAIN, chain=True)  # also while a library keeps Python from running

    def _explain(self, *_: object) -> None:
        print(self.client.state(), EXPLAINED, sep="\n", file=sys.stderr, flush=True)

    def run(self, must_leave: threading.Event) -> None:
        next_s = 0.0
        while not must_leave.is_set():
            try:
                self.took(self.client.poll())
            except ClientEnded:
                self.on_lost(sorted(self.owned))
                os.execv(sys.executable, [sys.executable, "-m", "tests.faults.groups.member", *sys.argv[1:]])
            if time.monotonic() >= next_s:
                self.commit(self.positions, is_last=False)
                next_s = time.monotonic() + COMMIT_EVERY_S
        self.client.close()
        tell(events.CLOSED)

    def took(self, records: Records) -> None:
        runs = []
        first = operator.itemgetter(0)
        for partition, group in itertools.groupby(sorted(records, key=first), key=first):
            offsets = [offset for _, offset in group]
            # One line for each run without a gap, so that a gap is seen.
            starts = [0, *(at for at in range(1, len(offsets)) if offsets[at] != offsets[at - 1] + 1), len(offsets)]
            runs += [{**self._where(partition), "minOffset": offsets[begin], "maxOffset": offsets[end - 1]}
                     for begin, end in itertools.pairwise(starts)]
            self.positions[partition] = offsets[-1] + 1
        if runs:
            tell(events.CONSUMED, count=len(records), partitions=runs)

    def commit(self, partitions: Iterable[int], *, is_last: bool) -> bool:
        """is_last: they are given up when it returns, so it is tried until it is known what became of it; also what is committed
        is committed again, so that who was put out meanwhile is told. Returns whether they were this member's still, as far as
        it is told."""
        offsets = {
            partition: self.positions[partition] for partition in partitions if partition in self.positions
            and (is_last or self.positions[partition] != self.committed.get(partition))}
        deadline_s = time.monotonic() + PATIENCE_S
        while offsets:
            told = [{**self._where(partition), "offset": offset} for partition, offset in offsets.items()]
            tell(events.WANTED, offsets=told)
            try:
                self.client.commit(offsets)
            except CommitRefused as refused:
                if refused.is_final or not is_last or time.monotonic() > deadline_s:
                    tell(events.COMMITTED, offsets=told, success=False, error=str(refused))
                    return not refused.is_final
                threading.Event().wait(RETRY_S)
            else:
                tell(events.COMMITTED, offsets=told, success=True)
                self.committed |= offsets
                return True
        return True

    # -- told by the client ----------------------------------------------------------------------

    def on_assigned(self, partitions: Iterable[int], generation: int) -> None:
        self.owned.update(partitions)
        tell(events.ASSIGNED, partitions=list(map(self._where, partitions)), generation=generation)

    def on_revoked(self, partitions: Iterable[int]) -> None:
        """Also where it was put out while it closes: it hears of that by its last commit."""
        were_its_own = self.commit(partitions, is_last=True)
        self._forget(events.REVOKED if were_its_own else events.LOST, partitions)

    def on_lost(self, partitions: Iterable[int]) -> None:
        self._forget(events.LOST, partitions)

    def _forget(self, how: str, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self.owned.discard(partition)
            self.positions.pop(partition, None)
            self.committed.pop(partition, None)
        tell(how, partitions=list(map(self._where, partitions)))

    def _where(self, partition: int) -> dict[str, Any]:
        return {"topic": self.topic, "partition": partition}


def tell(name: str, **what: Any) -> None:
    print(json.dumps({"timestamp": time.time_ns() / 1e6, "name": name, **what}), flush=True)


CLIENTS: dict[str, Callable[[Listener, Task], Client]] = {
    "confluent": confluent, "ours": ours, "kafka-python": kafka_python, "aiokafka": aiokafka}


def main() -> int:
    task = Task(**json.loads(sys.argv[1]))
    must_leave = threading.Event()

    def listen() -> None:
        sys.stdin.buffer.read()
        must_leave.set()

    def live() -> None:
        Member(task).run(must_leave)

    threading.Thread(target=listen, daemon=True).start()
    if task.kind == "aiokafka":
        asyncio.run(bridged(live))
    else:
        live()
    return 0


if __name__ == "__main__":
    sys.exit(main())
