"""The board: which rules are in force, for all processes of a tree to see at once.

Owns: the folder `faults` in the run directory, and the two ends of it: the root posts (`Board`), every process looks
before it does what a rule may be about (`Watch`). Looking costs one read of shared memory while nothing has changed.
Not mail, for two reasons: a rule holds for the very next operation of every process once `post` has returned, and it
reaches a process whose mail is being dropped, or that is still recovering.
Invariant: a hit is counted before it happens, in a file, so that a rule with `times` is used up by the processes that
it kills, too, and by all together. May fail with OSError of the run directory.

    rules        JSON: [{"id", "until_s", "rule"}, ...], replaced by renaming; until_s is CLOCK_MONOTONIC, null: no end
    generation   uint64, native: counts the changes of `rules`
    hits-<id>    one byte for each match; with O_APPEND, where a byte lands is its number
"""

from __future__ import annotations

import mmap
import os
import random
import threading
import time
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec
from msgspec import Struct

from zafka.runtime.faults.kinds import AnyRule, ApiFault, Crash, DiskError, MailFault

FOLDER = "faults"
COUNTED_MAX = 1 << 20


class Posted(Struct, frozen=True):
    """A rule in force. until_s: monotonic; None: no end."""

    id: int
    rule: AnyRule
    until_s: float | None = None

    def __hash__(self) -> int:
        return self.id


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Posted]).decode


def folder_beside(endpoint: str) -> Path:
    """The board's folder in the run directory that an `ipc` endpoint lies in."""
    return Path(endpoint.removeprefix("ipc://")).parent / FOLDER


class Board:
    """The root's end. The folder goes with the run directory."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self.posted: dict[int, Posted] = {}
        self._clock = clock
        self._last_id = 0
        folder.mkdir(mode=0o700)
        (folder / "generation").write_bytes(bytes(8))
        self._generation = _map_generation(folder, writable=True)
        self._publish()

    def __repr__(self) -> str:
        return f"<Board {len(self.posted)} rules>"

    def post(self, rule: AnyRule) -> Posted:
        """Put a rule in force; it is, in every process, when this returns."""
        self._last_id += 1
        until_s = None if rule.for_s is None else self._clock() + rule.for_s
        posted = Posted(self._last_id, rule, until_s)
        (self.folder / f"hits-{posted.id}").touch(mode=0o600)
        self.posted[posted.id] = posted
        self._publish()
        return posted

    def remove(self, ids: Iterable[int]) -> list[int]:
        """Lift these rules; returns those that there were."""
        removed = [each for each in ids if self.posted.pop(each, None) is not None]
        if removed:
            self._publish()
            for each in removed:
                (self.folder / f"hits-{each}").unlink()
        return removed

    def sweep(self) -> None:
        """Lift the rules whose time is over."""
        now_s = self._clock()
        self.remove([each.id for each in self.posted.values() if each.until_s is not None and each.until_s <= now_s])

    def hits(self, posted: Posted) -> int:
        """How often a rule has hit so far."""
        matched = (self.folder / f"hits-{posted.id}").stat().st_size - posted.rule.skip
        return max(0, matched if posted.rule.times is None else min(matched, posted.rule.times))

    def close(self) -> None:
        self._generation.release()

    def _publish(self) -> None:
        temporary = self.folder / "rules.tmp"
        temporary.write_bytes(_encode(list(self.posted.values())))
        temporary.rename(self.folder / "rules")
        self._generation[0] += 1


class Watch:
    """A process's end. name: the actor's, to know which rules are about it."""

    def __init__(self, folder: Path, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._folder = folder
        self._clock = clock
        self._generation = _map_generation(folder, writable=False)
        self._seen = 0
        self._posted: list[Posted] = []
        self._cache: dict[tuple[type, str], list[Posted]] = {}
        self._random: dict[int, random.Random] = {}
        self._hits: dict[int, int] = {}  # descriptor by rule
        self._spent: set[int] = set()
        self._lock = threading.Lock()  # a broker reads cold bytes in threads

    def __repr__(self) -> str:
        return f"<Watch {self.name} {len(self._posted)} rules>"

    def mail_to(self, receiver: str) -> list[Posted]:
        """The rules about mail from us to this actor."""
        return self._about(MailFault, receiver)

    def own(self, kind: type[DiskError | Crash | ApiFault]) -> list[Posted]:
        """The rules of this kind about us."""
        return self._about(kind, "")

    def _about(self, kind: type[AnyRule], receiver: str) -> list[Posted]:
        if self._generation[0] != self._seen:
            self._read()
        if not self._posted:
            return self._posted
        found = self._cache.get((kind, receiver))
        if found is None:
            found = [each for each in self._posted if type(each.rule) is kind and self._concerns(each.rule, receiver)]
            self._cache[kind, receiver] = found
        return found

    def _concerns(self, rule: AnyRule, receiver: str) -> bool:
        if isinstance(rule, MailFault):
            return fnmatchcase(self.name, rule.sender) and fnmatchcase(receiver, rule.receiver)
        return fnmatchcase(self.name, rule.target)

    def _read(self) -> None:
        with self._lock:
            # Before the rules: what is posted meanwhile is read twice rather than not at all.
            generation = self._generation[0]
            posted = _decode((self._folder / "rules").read_bytes())
            there = {each.id for each in posted}
            for gone in self._hits.keys() - there:
                os.close(self._hits.pop(gone))
            for gone in self._random.keys() - there:
                del self._random[gone]
            self._spent &= there
            self._cache = {}
            self._posted = posted
            self._seen = generation  # last: from now on another thread does not look

    def hits(self, posted: Posted) -> bool:
        """Whether this match of a rule is one that it hits; counted then, or skipped as one of the first."""
        rule = posted.rule
        if posted.until_s is not None and self._clock() >= posted.until_s:
            return False
        if posted.id in self._spent:
            return False
        if rule.probability < 1 and self.random(posted).random() >= rule.probability:
            return False
        with self._lock:
            number = self._count(posted)
        if rule.times is not None and number > rule.skip + rule.times:
            self._spent.add(posted.id)
            return False
        return number > rule.skip

    def random(self, posted: Posted) -> random.Random:
        """Of this rule, in this actor."""
        if posted.id not in self._random:
            self._random[posted.id] = random.Random(f"{posted.rule.seed}/{self.name}")
        return self._random[posted.id]

    def _count(self, posted: Posted) -> int:
        fd = self._hits.get(posted.id)
        if fd is None:
            try:
                fd = os.open(self._folder / f"hits-{posted.id}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            except FileNotFoundError:
                return 0  # it was lifted just now
            self._hits[posted.id] = fd
        if posted.rule.times is None and os.fstat(fd).st_size >= COUNTED_MAX:
            return COUNTED_MAX  # enough: nobody has to know it more exactly
        os.write(fd, b".")
        return os.lseek(fd, 0, os.SEEK_CUR)

    def close(self) -> None:
        self._generation.release()
        for fd in self._hits.values():
            os.close(fd)
        self._hits.clear()


def _map_generation(folder: Path, *, writable: bool) -> memoryview:
    fd = os.open(folder / "generation", (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    try:
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        return memoryview(mmap.mmap(fd, 8, mmap.MAP_SHARED, protection)).cast("Q")
    finally:
        os.close(fd)
