"""One group of a campaign: its members' processes, what they told, and who has what just now.

Owns: the processes; `close` or `kill` ends them. A thread for each reads what it tells.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import tempfile
import threading
import time
from random import Random
from typing import IO

from tests.faults.groups import events
from tests.faults.groups.events import Event, in_order, parse
from tests.faults.groups.history import GroupHistory
from tests.faults.groups.kinds import Kind, Mix
from zafka.testing import Broker

END_S = 90.0
SESSION_S, STEADY_SESSION_S = 3.0, 30.0  # of those who may crash, and of the others
_NUMBERS = itertools.count()


class Member:
    """owned: by the events that have come; written by its thread alone."""

    def __init__(self, name: str, command: list[str], *, may_crash: bool, take: threading.Lock, events_: list[Event]) -> None:
        self.name = name
        self.may_crash = may_crash
        self.owned: frozenset[int] = frozenset()
        self.stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `finish`)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"})
        self._take = take
        self._events = events_
        self._last_ms = 0.0
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if not line.endswith("\n"):  # killed while it wrote
                break
            event = parse(self.name, line)
            # A millisecond may see several things happen, but each member tells them in order.
            self._last_ms = max(event.at_ms, self._last_ms + 0.001)
            self.note(event._replace(at_ms=self._last_ms))

    def note(self, event: Event) -> None:
        if event.name == events.ASSIGNED:
            self.owned |= frozenset(event.partitions)
        elif event.name in (events.REVOKED, events.LOST):
            self.owned -= frozenset(event.partitions)
        with self._take:
            self._events.append(event)

    def leave(self) -> None:
        """In order."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def finish(self, *, wait_s: float = END_S) -> int:
        code = self.process.wait(wait_s)
        self.thread.join()
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.stderr.seek(0)
        self.error = self.stderr.read().decode(errors="replace")[-2000:]
        self.stderr.close()
        return code


class Team:
    """members: those who are there. events: of all who ever were. observations: when it was asked, and what was committed."""

    def __init__(self, kind: Kind | Mix, broker: Broker, topic: str, partitions: int, seed: int) -> None:
        self.kind = kind
        self.random = Random(seed)
        self.group = f"g{next(_NUMBERS)}-{kind.client}"
        self.members: list[Member] = []
        self.history = GroupHistory(partitions)
        self.crashes = self.joins = 0
        self.failures: list[str] = []
        self._broker = broker
        self._topic = topic
        self._partitions = partitions
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._observations: list[tuple[float, dict[int, int]]] = []
        self._read = dict.fromkeys(range(partitions), 0)
        self._seen = 0

    # -- who comes and goes ----------------------------------------------------------------------

    def join(self, kind: Kind | None = None, *, may_crash: bool) -> None:
        """kind: of those that the group may have, any one if it is not said.

        may_crash: its session is short, so that others get soon what it had; a slow machine may end it, too."""
        kind = kind or self.kind.drawn(self.random)
        command = kind.command(self._broker, self._topic, self.group, SESSION_S if may_crash else STEADY_SESSION_S)
        self.joins += 1
        self.members.append(Member(
            f"{self.group}.{self.joins}", command, may_crash=may_crash, take=self._lock, events_=self._events))

    def steady(self) -> list[Member]:
        return [member for member in self.members if not member.may_crash]

    def leave(self, member: Member) -> None:
        self.members.remove(member)
        member.leave()
        self._ended(member, member.finish())

    def crash(self, member: Member | None = None) -> None:
        if member is None:
            [member] = [each for each in self.members if each.may_crash]
        self.members.remove(member)
        member.process.kill()
        member.finish()
        self.crashes += 1
        member.note(Event(time.time_ns() / 1e6, member.name, events.KILLED))

    def close(self) -> None:
        for member in self.members:
            member.leave()
        for member in self.members:
            self._ended(member, member.finish())
        self.members.clear()

    def kill(self) -> None:
        for member in self.members:
            member.process.kill()
            member.finish()
        self.members.clear()

    def check(self) -> None:
        """Raises AssertionError if a member ended by itself."""
        for member in self.members:
            if member.process.poll() is not None:
                self.members.remove(member)
                self._ended(member, member.finish())
                raise AssertionError(f"{self.kind.name}: {self.failures}")

    def _ended(self, member: Member, code: int) -> None:
        if code:
            self.failures.append(f"{member.name} ended with {code}: {member.error}")

    # -- what they see ---------------------------------------------------------------------------

    def is_shared(self) -> bool:
        """All partitions are owned, each by one, and everybody has his share."""
        owned = [partition for member in self.members for partition in member.owned]
        sizes = [len(member.owned) for member in self.members]
        return sorted(owned) == list(range(self._partitions)) and max(sizes) - min(sizes) <= 1

    def has_read(self, ends: dict[int, int]) -> bool:
        with self._lock:
            news, self._seen = self._events[self._seen:], len(self._events)
        for event in news:
            for partition, _, last in event.consumed:
                self._read[partition] = max(self._read[partition], last + 1)
        return self._read == ends

    def observed(self, asked_ms: float, committed: dict[int, int]) -> None:
        self._observations.append((asked_ms, committed))

    def happened(self) -> list[Event]:
        return in_order(self._events)

    def judge(self, ends: dict[int, int]) -> list[str]:
        """All that happened, in order; each answer about commits against what was known when it was asked for."""
        happened = self.happened()
        at = 0
        for asked_ms, committed in self._observations:
            while at < len(happened) and happened[at].at_ms < asked_ms:
                self.history.take(happened[at])
                at += 1
            for partition, offset in committed.items():
                self.history.observed(partition, offset)
        for event in happened[at:]:
            self.history.take(event)
        for partition, end in ends.items():
            self.history.ends(partition, end)
        if not self._observations:
            self.failures.append("nobody saw what it committed")
        return [f"{self.kind.name}: {what}" for what in (*self.history.problems(), *self.failures)]

    def told(self) -> str:
        lost = f", lost {dict(self.history.lost)}" if self.history.lost else ""
        owned = f", has {[sorted(member.owned) for member in self.members]}" if self.members else ""
        return (f"{self.kind.name}: {self.joins} joined, {self.crashes} crashed, {self.history.delivered} delivered, "
                f"{self.history.again} of them again{lost}{owned}")
