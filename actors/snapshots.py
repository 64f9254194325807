"""When a coordinator writes a snapshot of its state, and how, beside its work.

Owns: `Snapshots`, the snapshot of one log's owner that is on disk, and the one that is being written, in steps of
milliseconds: one section in a turn, flushed with it, with a pause before the next one (`storage/snapshot.py`). And
`ReplacingSnapshots`, behind which the log may begin: with each new one it gives up what lies below the one before, so that
one that has rotted costs nothing but time.
Invariants: a snapshot tells of nothing but what was appended; the log's owner calls `on_turn_end` when its state and its
log agree, and `abandon` when they do not any more. Compaction keeps its hands off what replay needs behind the snapshot
that is on disk; a log never begins behind the older of the two snapshots that replace its beginning.
May fail with OSError from the disk, where a full one only puts the snapshot off, and with CorruptLog if a log begins above 0
and nothing tells what was before. Source of the second kind: KIP-630.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import structlog

from zafka.actors.actor import Effects, Flush, Now, SetTimer
from zafka.actors.replica import Replica
from zafka.storage.disk import Disk
from zafka.storage.errors import CorruptLog, CorruptSnapshot
from zafka.storage.log import Log
from zafka.storage.snapshot import (
    SNAPSHOT_NAME,
    Point,
    SnapshotWriter,
    find_replacing,
    point_of,
    read_point,
    read_sections,
    replacing_name,
)
from zafka.storage.torn_tail import FULL_DISK

SNAPSHOT_TIMER = "snapshot"
PAUSE_S = 0.02  # between sections
# A large state is written less often: when the log has grown by this part of it.
GROWTH = 8
# On a clean stop this part of what makes a snapshot due is enough: less than that is replayed at once.
STOP = 50
_TOKEN = -1  # of all flushes for snapshots; those of logs are above zero

logger = structlog.get_logger(__name__)

State = TypeVar("State")


class Snapshots:
    """Of which the log is the truth.

    offset: where a start would begin to replay; as of the snapshot on disk, or of the log's start.

    entries: how much is in that snapshot, in records of the log.
    """

    replaces = False

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
        self._given_up: SnapshotWriter | None = None  # whose file is still being flushed
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

    def load(
        self, make: Callable[[], State], restore: Callable[[State, bytes], int], progress: Callable[[], None]
    ) -> State:
        """The state as the snapshot on disk tells it, or an empty one; `offset` says where replay goes on.

        make: an empty state. restore: takes in a section and returns how many records of the log are in it; raises
        CorruptSnapshot for what it cannot read.
        """
        log = self._replica.log
        for name in self._names():
            state, entries = make(), 0
            try:
                point = self._fitting_point(log, name)
                for section in read_sections(self._disk, log.directory, name):
                    entries += restore(state, section)
                    progress()
            except CorruptSnapshot as corrupt:
                logger.warning("a snapshot is not used", path=str(log.directory / name), reason=str(corrupt))
                continue
            self.entries = entries
            self._on_loaded(point.offset)
            return state
        self.entries = 0
        self._on_nothing(log)
        return make()

    def _names(self) -> list[str]:
        """Of all snapshots that may be there, the one to be preferred first."""
        found = self._disk.exists(self._replica.log.directory / SNAPSHOT_NAME)
        return [SNAPSHOT_NAME] if found else []

    def _fitting_point(self, log: Log, name: str) -> Point:
        point = read_point(self._disk, log.directory, name)
        unfit = "it is gone" if point is None else point.unfit(log, replaces=self.replaces)
        if point is None or unfit:
            raise CorruptSnapshot(unfit)
        return point

    def _on_loaded(self, offset: int) -> None:
        self.offset = offset

    def _on_nothing(self, log: Log) -> None:
        self.offset = log.start_offset

    # -- writing -------------------------------------------------------------------------------

    def begin(self, sections: Iterator[tuple[bytes, int]]) -> None:
        """Write one from now on. sections: with how many records of the log are in each."""
        assert not self.is_busy
        self._next_offset, self._next_entries = self._replica.log.end_offset, 0
        self._next_step_s = 0.0
        self._writer = self._new_writer(self._replica.log, self._counted(sections))

    def _new_writer(self, log: Log, sections: Iterator[bytes]) -> SnapshotWriter:
        """What a section tells may be of any time up to the last one's."""
        return SnapshotWriter(self._disk, log.directory, sections, partial(point_of, log, self._next_offset))

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
        if self._given_up is not None:
            self._given_up.close()
            self._given_up = None
        return True

    def abandon(self) -> None:
        """Give up what is being written, until the log has grown as much again."""
        if self._writer is not None:
            if self._flushing:
                self._given_up = self._writer
            else:
                self._writer.close()
            self._writer = None
            self._tried_offset = self._replica.log.end_offset

    def _end(self) -> None:
        self._writer = None
        self.offset, self.entries = self._next_offset, self._next_entries


class ReplacingSnapshots(Snapshots):
    """Of which the newer one is the truth below `offset`. The sections of each are of the moment in which it is begun.

    kept: offsets of the snapshots that are on disk and were found good, the newest last.
    """

    replaces = True

    def __init__(self, disk: Disk, replica: Replica[Any]) -> None:
        super().__init__(disk, replica)
        self.kept: list[int] = []

    def sections(self) -> list[bytes]:
        """Of the newest snapshot. Raises CorruptSnapshot if it has rotted since it was written or loaded."""
        return list(read_sections(self._disk, self._replica.log.directory, replacing_name(self.offset)))

    def trim(self, now: Now) -> None:
        """Drop the segments that lie below the log's start by now. Nobody else has them open."""
        log = self._replica.log
        if log.segments[0].end_offset <= log.start_offset:
            log.unlink_deleted(log.apply_retention(now.wall_ms, self._replica.high_watermark))

    def _names(self) -> list[str]:
        return find_replacing(self._disk, self._replica.log.directory)

    def _on_loaded(self, offset: int) -> None:
        super()._on_loaded(offset)
        self.kept = [offset]

    def _on_nothing(self, log: Log) -> None:
        super()._on_nothing(log)
        self.kept = []
        if log.start_offset > 0:
            raise CorruptLog(
                log.segments[0].path, position=0, offset=log.start_offset,
                reason="the log begins there, and no snapshot tells what was before")

    def _new_writer(self, log: Log, sections: Iterator[bytes]) -> SnapshotWriter:
        point, name = point_of(log, log.end_offset), replacing_name(log.end_offset)
        return SnapshotWriter(self._disk, log.directory, sections, lambda: point, name=name)

    def _end(self) -> None:
        """The new one and its name are on disk: only now may what it replaces go."""
        super()._end()
        log = self._replica.log
        self.kept = [*self.kept[-1:], self.offset]
        names = {replacing_name(offset) for offset in self.kept}
        for name in self._names():
            if name not in names:
                self._disk.unlink(log.directory / name)
        if len(self.kept) > 1:
            log.delete_records(self.kept[0])
