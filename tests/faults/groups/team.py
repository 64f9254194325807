"""One group: its members' processes, what they told, and who has what just now.

Owns: the processes; `close` or `kill` ends them. A thread for each reads what it tells. A member that ends by itself, or does
not end when it should, is one of the problems.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from random import Random
from typing import IO

from tests.faults.groups import events
from tests.faults.groups.client import EXPLAIN, EXPLAINED
from tests.faults.groups.events import Event, in_order, parse, with_losses
from tests.faults.groups.history import GroupHistory
from tests.faults.groups.kinds import Doors, Kind, Mix

END_S = 180.0
EXPLAIN_S = 5.0
STDERR_MAX = 2000
SESSION_S, STEADY_SESSION_S = 3.0, 60.0  # of those who may crash, and of the others


class Member:
    """owned: by the events that have come; written by its thread alone."""

    def __init__(
        self, name: str, command: list[str], *, may_crash: bool, take: threading.Lock, events_: list[Event],
    ) -> None:
        self.name = name
        self.may_crash = may_crash
        self.owned: frozenset[int] = frozenset()
        self.stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `finish`)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"})
        self._is_java = command[0] == "java"
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
            self.note(event := event._replace(at_ms=self._last_ms))

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

    def explained(self) -> str:
        """Where it is, by its own words, if it is one of Python's."""
        if self._is_java:
            return f"{self.name}: Java"
        self.process.send_signal(EXPLAIN)
        end_s = time.monotonic() + EXPLAIN_S
        told = ""
        while EXPLAINED not in told and time.monotonic() < end_s and self.process.poll() is None:
            threading.Event().wait(0.02)
            told = os.pread(self.stderr.fileno(), 1 << 20, 0).decode(errors="replace")
        return f"{self.name}: {told[-STDERR_MAX:]}"

    def finish(self) -> str:
        """Wait until it has ended, as it was told to. Returns what is wrong with its end."""
        wrong = ""
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            wrong = f"{self.name} did not end"
            self.process.kill()
            self.process.wait()
        error = self._close()
        if not wrong and self.process.returncode:
            wrong = f"{self.name} ended with {self.process.returncode}"
        return f"{wrong}: {error}" if wrong else ""

    def kill(self) -> str:
        """As `finish`: it may have ended before, by itself."""
        ended_before = self.process.poll()
        self.process.kill()
        self.process.wait()
        error = self._close()
        return "" if ended_before is None else f"{self.name} ended with {ended_before}: {error}"

    def _close(self) -> str:
        """What it wrote last on stderr, which is closed, as are its pipes."""
        self.thread.join()
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.stderr.seek(0)
        error = self.stderr.read().decode(errors="replace")[-STDERR_MAX:]
        self.stderr.close()
        return error


class Team:
    """members: those who are there. events: of all who ever were. observations: when it was asked, and what was committed.

    kind: of members that join, unless another one is named. seed: of what they are, if the kind leaves that open.
    may_be_cut_off: as in `GroupHistory`. session_s: of members that may crash.
    """

    def __init__(
        self, group: str, kind: Kind | Mix, doors: Doors, topic: str, partitions: int, seed: int, *, may_be_cut_off: bool = False,
        session_s: float = SESSION_S,
    ) -> None:
        self.group = group
        self.kind = kind
        self.random = Random(seed)
        self.members: list[Member] = []
        self.history = GroupHistory(partitions, may_be_cut_off=may_be_cut_off, may_begin_anew=isinstance(kind, Mix))
        self.joins = self.crashes = self.stops = 0
        self.failures: list[str] = []
        self._session_s = session_s
        self._doors = doors
        self.topic = topic
        self.partitions = partitions
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._observations: list[tuple[float, dict[int, int]]] = []
        self._read = dict.fromkeys(range(partitions), 0)
        self._seen = 0

    # -- who comes and goes ----------------------------------------------------------------------

    def join(self, kind: Kind | None = None, *, may_crash: bool, doors: Doors | None = None) -> None:
        """kind: of those that the group may have, any one if it is not said. doors: if it takes others than the rest.

        may_crash: its session is short, so that others get soon what it had; a slow machine may end it, too."""
        kind = kind or self.kind.drawn(self.random)
        session_s = self._session_s if may_crash else STEADY_SESSION_S
        command = kind.command(doors or self._doors, self.topic, self.group, session_s)
        self.joins += 1
        self.members.append(Member(
            f"{self.group}.{self.joins}", command, may_crash=may_crash, take=self._lock, events_=self._events))

    def steady(self) -> list[Member]:
        return [member for member in self.members if not member.may_crash]

    def leave(self, member: Member) -> None:
        self.members.remove(member)
        member.leave()
        self._note_end(member.finish())

    def crash(self, member: Member | None = None) -> None:
        if member is None:
            [member] = [each for each in self.members if each.may_crash]
        self.members.remove(member)
        self._note_end(member.kill())
        self.crashes += 1
        member.note(Event(time.time_ns() / 1e6, member.name, events.KILLED))

    def stop(self, member: Member, until: threading.Event, for_s: float) -> None:
        """Hold it for so long, or until somebody wants all of this to end."""
        self.stops += 1
        member.process.send_signal(signal.SIGSTOP)
        until.wait(for_s)
        member.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        for member in self.members:
            member.leave()
        for member in self.members:
            self._note_end(member.finish())
        self.members.clear()

    def kill(self) -> None:
        for member in self.members:
            member.kill()
        self.members.clear()

    def check(self) -> None:
        """Raises AssertionError if a member ended by itself, or not when it should."""
        for member in [each for each in self.members if each.process.poll() is not None]:
            self.members.remove(member)
            self._note_end(member.finish() or f"{member.name} left by itself")
        if self.failures:
            raise AssertionError(f"{self.kind.name}: {self.failures}")

    def _note_end(self, wrong: str) -> None:
        if wrong:
            self.failures.append(wrong)

    def explained(self) -> str:
        """Where its members are, by their own words, for who waited in vain for them."""
        return "\n".join((self.told(), *(member.explained() for member in self.members)))

    # -- what they see ---------------------------------------------------------------------------

    def is_shared(self) -> bool:
        """All partitions are owned, each by one, and everybody has his share."""
        owned = [partition for member in self.members for partition in member.owned]
        sizes = [len(member.owned) for member in self.members]
        return sorted(owned) == list(range(self.partitions)) and max(sizes) - min(sizes) <= 1

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
        happened = with_losses(self.happened())
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
        stopped = f"{self.stops} stopped, " if self.stops else ""
        return (f"{self.kind.name}: {self.joins} joined, {self.crashes} crashed, {stopped}{self.history.delivered} delivered, "
                f"{self.history.again} of them again{lost}{owned}")
