"""When a coordinator writes a snapshot of its state, and how, beside its work.

Owns: `Snapshots`, the snapshot of one log's owner that is on disk, and the one that is being written, in steps of
milliseconds: one section in a turn, flushed with it, with a pause before the next one (`storage/snapshot.py`).
Invariants: a snapshot tells of nothing but what was appended; the log's owner calls `on_turn_end` when its state and its
log agree, and `abandon` when they do not any more. Compaction keeps its hands off what replay needs behind the snapshot
that is on disk. May fail with OSError from the disk; a full disk only puts the snapshot off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import structlog

from zafka.actors.actor import Effects, Flush, Now, SetTimer
from zafka.actors.replica import Replica
from zafka.storage.disk import Disk
from zafka.storage.errors import CorruptSnapshot
from zafka.storage.snapshot import SnapshotWriter, point_of, read_point, read_sections
from zafka.storage.torn_tail import FULL_DISK

SNAPSHOT_TIMER = "snapshot"
PAUSE_S = 0.02  # between sections
# A large state is written less often: when the log has grown by this part of it.
GROWTH = 8
# On a clean stop this part of what makes a snapshot due is enough: less than that is replayed at once.
STOP = 50
_TOKEN = -1  # of all flushes for snapshots; those of logs are above zero

logger = structlog.get_logger(__name__)


class Snapshots:
    """offset: where a start would begin to replay; as of the snapshot on disk, or of the log's start.

    entries: how much is in that snapshot, in records of the log.
    """

    def __init__(self, disk: Disk, replica: Replica[Any]) -> None:
        self.offset = replica.log.start_offset
        self.entries = 0
        self._disk = disk
        self._replica = replica
        self._tried_offset = -1  # end of the log when the last one was given up
        self._writer: SnapshotWriter | None = None
        self._next_offset = -1  # of the one that is being written
        self._next_entries = 0
        self._flushing = False
        self._log_offset = 0  # up to here the log must be on disk before the next step
        self._next_step_s = 0.0

    def __repr__(self) -> str:
        return f"<Snapshots {self.offset} {'writing' if self.is_busy else 'idle'}>"

    @property
    def is_busy(self) -> bool:
        return self._writer is not None or self._flushing

    def is_due(self, *, wanted_offset: int = 0, stopping: bool = False) -> bool:
        """Whether one should be begun. wanted_offset: somebody waits for one that stands there or further on."""
        log = self._replica.log
        if self.is_busy or log.end_offset <= self._tried_offset:
            return False
        grown = log.end_offset - max(self.offset, self._tried_offset)
        enough = max(log.config.snapshot_records, self.entries // GROWTH)
        return wanted_offset > self.offset or grown * (STOP if stopping else 1) >= enough

    # -- reading -------------------------------------------------------------------------------

    def load(self, restore: Callable[[bytes], int], progress: Callable[[], None]) -> bool:
        """Have `restore` take every section of the snapshot on disk, and know where replay goes on: `offset`.

        restore: returns how many records of the log are in a section; raises CorruptSnapshot for what it cannot read.
        False if there is none that can be believed: whatever `restore` was given is to be forgotten.
        """
        log = self._replica.log
        self.offset, self.entries = log.start_offset, 0
        try:
            point = read_point(self._disk, log.directory)
            if point is None:
                return False
            unfit = point.unfit(log)
            if unfit:
                raise CorruptSnapshot(unfit)
            for section in read_sections(self._disk, log.directory):
                self.entries += restore(section)
                progress()
        except CorruptSnapshot as corrupt:
            logger.warning("a snapshot is not used: all of the log is read", directory=str(log.directory), reason=str(corrupt))
            self.entries = 0
            return False
        self.offset = point.offset
        return True

    # -- writing -------------------------------------------------------------------------------

    def begin(self, sections: Iterator[tuple[bytes, int]]) -> None:
        """Write one from now on. sections: with how many records of the log are in each."""
        assert not self.is_busy
        log = self._replica.log
        self._next_offset, self._next_entries = log.end_offset, 0
        self._next_step_s = 0.0
        self._writer = SnapshotWriter(
            self._disk, log.directory, self._counted(sections), partial(point_of, log, self._next_offset))

    def _counted(self, sections: Iterator[tuple[bytes, int]]) -> Iterator[bytes]:
        for section, entries in sections:
            self._next_entries += entries
            yield section

    def on_turn_end(self, now: Now, *, hurry: bool = False) -> Effects:
        """The next step, if its time has come. hurry: there is nobody whom it could delay."""
        if self._writer is None or self._flushing:
            return []
        if self._log_offset > self._replica.log.flushed_offset:
            self._replica.want_flush()
            return []
        if now.monotonic_s < self._next_step_s and not hurry:
            return []
        try:
            step = self._writer.step()
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            logger.warning("the disk is full: no snapshot is written", reason=str(error))
            self.abandon()
            return []
        if step is None:
            self._end()
            return []
        self._flushing = True
        self._log_offset = step.log_offset
        self._next_step_s = now.monotonic_s + PAUSE_S
        return [Flush(_TOKEN, step.files, step.directories), SetTimer(SNAPSHOT_TIMER, self._next_step_s)]

    def on_flushed(self, token: int) -> bool:
        """Whether this flush was one of a snapshot."""
        if token != _TOKEN:
            return False
        self._flushing = False
        return True

    def abandon(self) -> None:
        """Give up what is being written, until the log has grown as much again."""
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None
            self._tried_offset = self._replica.log.end_offset
            self._log_offset = 0

    def _end(self) -> None:
        self._writer = None
        self.offset, self.entries = self._next_offset, self._next_entries
