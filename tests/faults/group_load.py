"""Groups whose members come, leave and die while everything else goes on; and an observer of what they commit.

Owns: `Members`, a client as those of `loads.py`, of one group. Its members are processes (`group_member.py`), which are told
apart by what they write; `tests/group_history.py` judges all of it at the end.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.faults.loads import READ_S, Client, Place, Shared, places
from tests.group_history import ASKS, TOLD, Event, judge

ROOT = Path(__file__).resolve().parent.parent.parent
MEMBERS = (2, 3)  # at least and at most
CHANGE_S = (1.0, 4.0)  # between two changes
STOPPED_S = (0.3, 6.0)  # some longer than the session, and fenced
SESSION_MS = 3000
END_S = 30.0
ASK_S = 0.3
TOPIC: dict[str, Any] = {"name": "shared", "partitions": 4}
STRATEGIES = ("range", "roundrobin", "cooperative-sticky")
GROUP_DEFAULTS = {
    "group.initial.rebalance.delay.ms": 100, "group.min.session.timeout.ms": 1000,
    "group.consumer.session.timeout.ms": SESSION_MS}


class _Process:
    """One member. events: what it has said, whole lines only."""

    def __init__(self, settings: dict[str, Any], number: int) -> None:
        self.name = f"{settings['group']}/{number} ({settings['client']})"
        self.events: list[Event] = []
        self.errors = b""
        command = [sys.executable, "-m", "tests.faults.group_member", json.dumps({**settings, "name": self.name})]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._read_errors)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith(b"\n"):
                self.events.append(Event(*json.loads(line)))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.errors = self.process.stderr.read()[-2000:]

    def end(self, number: int) -> bool:
        """By this signal; False if it does not end in time, and then it is killed."""
        self.process.send_signal(number)
        in_time = True
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            in_time = False
            self.process.kill()
            self.process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return in_time


class Members(Client):
    """A group that reads `where`, all of one topic, until `finish_at`.

    clients: the kinds of its members ("librdkafka", "zafka"), each with the address that it goes to.
    protocol: "classic" or "consumer" (KIP-848). done: how often members joined, left, were killed and stopped.
    """

    def __init__(
        self, group: str, clients: dict[str, str], where: list[Place], shared: Shared, seed: int, *, protocol: str = "classic",
        strategy: str = "range",
    ) -> None:
        super().__init__(shared, f"group {group}")
        self.group = group
        self.where = where
        self.clients = clients
        self.joined = self.left = self.killed = self.stopped = 0
        self._settings = {
            "group": group, "topic": where[0].topic, "protocol": protocol, "strategy": strategy, "session_ms": SESSION_MS}
        self._random = random.Random(seed)
        self._members: list[_Process] = []
        self._gone: list[_Process] = []
        self._observed: list[Event] = []
        self._committed: dict[Place, int] = {}
        self._ends: dict[Place, int] = {}

    def work(self) -> None:
        observer = Consumer({
            "bootstrap.servers": self.clients["librdkafka"], "group.id": self.group, "socket.timeout.ms": 5000,
            "enable.auto.commit": False, "reconnect.backoff.max.ms": 200, "log_level": 0})
        try:
            change_s = 0.0
            while not self.must_end.wait(ASK_S):
                if time.monotonic() > change_s and not self._ends:
                    change_s = time.monotonic() + self._random.uniform(*CHANGE_S)
                    self._change()
                self._ask(observer)
        finally:
            observer.close()
            for member in list(self._members):
                self._end(member, signal.SIGTERM)

    def _change(self) -> None:
        least, most = MEMBERS
        count = len(self._members)
        kind = self._random.choice(("leave", "kill", "stop", "join", "join"))
        if kind == "join" or count < least:
            if count < most:
                self._join()
            return
        member = self._random.choice(self._members)
        if kind == "stop":
            self.stopped += 1
            member.process.send_signal(signal.SIGSTOP)
            self.must_end.wait(self._random.uniform(*STOPPED_S))
            member.process.send_signal(signal.SIGCONT)
        else:
            self.left += kind == "leave"
            self.killed += kind == "kill"
            self._end(member, signal.SIGTERM if kind == "leave" else signal.SIGKILL)
            if count == least:
                self._join()

    def _join(self) -> None:
        client = self._random.choice(sorted(self.clients))
        self._members.append(_Process(
            {**self._settings, "client": client, "bootstrap": self.clients[client]}, self.joined))
        self.joined += 1

    def _end(self, member: _Process, number: int) -> None:
        self._members.remove(member)
        crashed = member.process.poll() is not None
        if not member.end(number) or crashed or member.process.returncode not in (0, -number):
            self.shared.fail(member.name, f"does not end, or ended by itself: {member.errors.decode(errors='replace')}")
        self._gone.append(member)

    def _ask(self, observer: Consumer) -> None:
        """What the group has committed, as anybody may ask."""
        name = f"{self.group}/observer"
        asked = [Event(time.monotonic(), name, ASKS, place.name) for place in self.where]
        with contextlib.suppress(KafkaException):  # nobody is there to be asked, for now
            told = observer.committed([TopicPartition(*place) for place in self.where], timeout=1.0)
            if all(each.error is None for each in told):
                self._observed += asked
                self._committed = {Place(each.topic, each.partition): max(each.offset, 0) for each in told}
                self._observed += [
                    Event(time.monotonic(), name, TOLD, place.name, offset) for place, offset in self._committed.items()]

    def finish_at(self, ends: dict[Place, int]) -> None:
        """Have it commit all up to these end offsets, which nobody moves any more; then end it, and judge."""
        self._ends = {place: ends[place] for place in self.where}
        deadline_s = time.monotonic() + READ_S
        while self._committed != self._ends and time.monotonic() < deadline_s and self.is_alive():
            threading.Event().wait(0.05)
        if self._committed != self._ends:
            self.shared.fail(self.name, f"has committed {self._committed}, with no fault left; the ends are {self._ends}")
        self.finish()
        events = [event for member in (*self._gone, *self._members) for event in member.events]
        problems = judge(
            self.group, [*events, *self._observed], {place.name: end for place, end in self._ends.items()})
        for problem in problems:
            self.shared.fail(f"{problem.kind}, {problem.partition}", problem.what)

    def abandon(self) -> None:
        """End all members, whatever they have come to; also if nobody asked for more."""
        self.must_end.set()
        if self.ident is not None:
            self.join()

    def told(self) -> str:
        read = sum(event.end - event.offset for member in self._gone for event in member.events if event.kind == "read")
        return (f"{self.group}: {self.joined} joined, {self.left} left, {self.killed} killed, {self.stopped} stopped, "
                f"{read} records read")


def both_protocols(bootstrap: str, native: str, shared: Shared, seed: int) -> list[Members]:
    """A group of the classic protocol and one of KIP-848, each reading `TOPIC` with members of both clients."""
    choices = random.Random(seed)
    where = places(TOPIC["name"], TOPIC["partitions"])
    return [
        Members("classic", {"librdkafka": bootstrap, "zafka": native}, where, shared, choices.randrange(2**32),
                strategy=choices.choice(STRATEGIES)),
        Members("kip-848", {"librdkafka": bootstrap, "zafka": native}, where, shared, choices.randrange(2**32), protocol="consumer")]
