"""The cleaner of one broker: does the passes of compaction that its partitions ask for, one at a time.

Owns: `CleanerActor`, a process of its own, so that no append waits for it. It reads segments and writes `.cleaned` files
(`storage/cleaning.py`), and says so; the log is its partition's, who puts them in place. It holds nothing that must
survive. Small steps with pauses between them keep to the rate that is wished.
Invariants: what a partition is told of is on disk. A pass ends with the incarnation that asked for it.
May fail: a damaged source, a full disk or a directory that was moved away end the pass, not the cleaner. It is no reason
to stop a broker, so its supervisor does not start it again; a partition that needs it asks (`StartCleaner`).
Source: Kafka LogCleaner.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from typing import NamedTuple

import structlog

from zafka.actors import shell
from zafka.actors.actor import (
    Actor,
    Effects,
    Exit,
    Flush,
    Flushed,
    FlushFailed,
    Mail,
    Now,
    Peer,
    PeerGone,
    Send,
    SetTimer,
    TimerFired,
)
from zafka.actors.cleaner_messages import Clean, Cleaned, CleaningFailed, Swapped
from zafka.actors.messages import ActorDown, ActorUp, Ready, Shutdown
from zafka.actors.start import SUPERVISOR, ActorStart, CleanerStart
from zafka.storage.cleaning import Worked, Written, abandon, clean
from zafka.storage.disk import Disk
from zafka.storage.errors import StorageError

STEP_TIMER = "step"
NICENESS = 10

logger = structlog.get_logger(__name__)


class Job(NamedTuple):
    """The pass that is under way."""

    peer: Peer
    asked: Clean
    steps: Generator[Worked | Written]


class CleanerActor:
    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._waiting: dict[Peer, Clean] = {}
        self._job: Job | None = None
        self._written: Written | None = None  # being flushed, or put in its place
        self._token = 0
        self._handlers: dict[type, Callable[[Mail, Now], Effects]] = {
            Clean: self._on_clean,
            Swapped: self._on_swapped,
            TimerFired: lambda mail, now: self._step(now),
            Flushed: self._on_flushed,
            FlushFailed: self._on_flush_failed,
            ActorUp: lambda mail, now: [],
            ActorDown: lambda mail, now: self._forget(Peer(mail.body.name, mail.body.incarnation)),
            PeerGone: lambda mail, now: self._forget(mail.body.peer),
            Shutdown: lambda mail, now: [Exit(0, "shutdown")],
        }

    def __repr__(self) -> str:
        return f"<Cleaner {self._job.peer.name if self._job else 'idle'} waiting={len(self._waiting)}>"

    def on_start(self, now: Now) -> Effects:
        return [Send(SUPERVISOR, Ready())]

    def on_mail(self, mail: Mail, now: Now) -> Effects:
        return self._handlers[type(mail.body)](mail, now)

    def on_turn_end(self, now: Now) -> Effects:
        """Begin the most urgent pass, if none is under way."""
        if self._job is not None or not self._waiting:
            return []
        peer = max(self._waiting, key=lambda peer: self._waiting[peer].urgency)
        asked = self._waiting.pop(peer)
        self._job = Job(peer, asked, clean(self._disk, asked.wanted))
        logger.debug("cleaning begins", directory=asked.wanted.directory, first_dirty=asked.wanted.first_dirty)
        return [SetTimer(STEP_TIMER, now.monotonic_s)]

    # -- the pass ------------------------------------------------------------------------------

    def _on_clean(self, mail: Mail, now: Now) -> Effects:
        self._forget(mail.sender)  # who asks again has given up the pass before
        self._waiting[mail.sender] = mail.body
        return []

    def _step(self, now: Now) -> Effects:
        job = self._job
        if job is None or self._written is not None:
            return []
        try:
            step = next(job.steps)
        except (StorageError, OSError) as error:
            return self._fail(job, str(error), is_gone=isinstance(error, FileNotFoundError))
        if isinstance(step, Worked):
            return [SetTimer(STEP_TIMER, now.monotonic_s + step.size_bytes / job.asked.bytes_per_second)]
        self._written = step
        if not step.files:
            return self._tell(job, step)
        self._token += 1
        return [Flush(self._token, step.files)]

    def _on_flushed(self, mail: Mail, now: Now) -> Effects:
        if self._job is None or self._written is None or mail.body.token != self._token:
            return []
        return self._tell(self._job, self._written)

    def _on_flush_failed(self, mail: Mail, now: Now) -> Effects:
        """Nobody has seen these files, and nobody will; the next pass writes others."""
        if self._job is None or mail.body.token != self._token:
            return []
        return self._fail(self._job, f"flush failed: {mail.body.reason}")

    def _tell(self, job: Job, written: Written) -> Effects:
        return [Send(job.peer, Cleaned(job.asked.number, written.replacement, written.is_last))]

    def _on_swapped(self, mail: Mail, now: Now) -> Effects:
        job, written = self._job, self._written
        if job is None or written is None or (mail.sender, mail.body.number) != (job.peer, job.asked.number):
            return []
        self._written = None
        if written.is_last or not mail.body.done:
            self._end(job)
            return []
        return [SetTimer(STEP_TIMER, now.monotonic_s)]

    def _fail(self, job: Job, reason: str, *, is_gone: bool = False) -> Effects:
        """is_gone: what was to be read: retention was faster, or the topic was deleted, and nobody has to know."""
        tell = logger.debug if is_gone else logger.warning
        tell("cleaning failed", directory=job.asked.wanted.directory, reason=reason)
        self._end(job)
        try:
            abandon(self._disk, job.asked.wanted)
        except OSError as error:
            logger.warning("cleaned files stay", directory=job.asked.wanted.directory, reason=str(error))
        return [Send(job.peer, CleaningFailed(job.asked.number, reason))]

    def _end(self, job: Job) -> None:
        job.steps.close()
        self._job = self._written = None

    def _forget(self, peer: Peer) -> Effects:
        """Nobody waits for this pass any more. What it wrote goes with the next one, or with the partition's start."""
        self._waiting.pop(peer, None)
        if self._job is not None and self._job.peer == peer:
            self._end(self._job)
        return []


def build(start: CleanerStart, disk: Disk, now: Now, progress: Callable[[], None]) -> Actor:
    return CleanerActor(disk)


def main(start: ActorStart) -> int:
    """The process shell of one who gives way to all others."""
    os.nice(NICENESS)
    return shell.main(start)
