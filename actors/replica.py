"""What leads one log, whatever the log is for: epoch, role, high watermark, flushes, and what waits for a commit.

Owns: when a log is flushed, and the high watermark. The owner (`PartitionActor`, `CoordinatorActor`) decides what
is appended and hands over what shall leave once that is committed; `commit` hands it back.
Three things happen to a replica, as to a state machine under consensus: `become_leader`, `resign`, and what
`commit` says is committed. Sans-IO: a flush is an effect, its end is told by `on_flushed`.
Invariant: high_watermark <= flushed offset with `fsync: always`, <= end_offset in any case; it never goes back.
May fail with DiskFull (state unchanged) or OSError from `append`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog

from zafka.actors.actor import Effects, Flush, Now, SetTimer
from zafka.actors.offline import give_up
from zafka.storage.batch import BatchHeader, walk
from zafka.storage.config import LogConfig
from zafka.storage.directory import PartitionDirectory, open_partition_directory
from zafka.storage.disk import Disk
from zafka.storage.errors import DirectoryLocked, StorageError
from zafka.storage.log import Log
from zafka.storage.recovery import RecoveryReport, recover
from zafka.storage.segment import LOG_SUFFIX, segment_path

logger = structlog.get_logger(__name__)

FLUSH_TIMER = "flush"

Waiting = TypeVar("Waiting")


LOCK_ATTEMPTS = 500
LOCK_RETRY_S = 0.01


class Role(Enum):
    FOLLOWER = "follower"  # recovered; takes no writes and serves no reads until it is given an epoch
    LEADER = "leader"


class _Closing(Enum):
    """Steps of a clean stop, in order."""

    NO = 0
    ASKED = 1  # what was appended is being flushed
    CHECKPOINT = 2  # the checkpoint is being written
    DONE = 3


class Replica(Generic[Waiting]):
    """A log and how far it is committed.

    directory: the log's, locked for this process. is_new: there was nothing in it; this incarnation made the log.

    leader_epoch: in which this incarnation leads, -1 before the first; never goes back.
    epoch_start_offset: where that epoch began. Until the high watermark is there, the newest offset of earlier
        epochs may not be known here (KIP-207).
    """

    def __init__(self, log: Log, directory: PartitionDirectory, disk: Disk, *, is_new: bool = False) -> None:
        self.log = log
        self._directory = directory
        self._disk = disk
        self.is_new = is_new
        self.role = Role.FOLLOWER
        self.leader_epoch = -1
        self.epoch_start_offset = -1
        self.high_watermark = log.high_watermark
        # (end offset that must be committed, what waits for it), offsets in order.
        self._waiting: deque[tuple[int, Waiting]] = deque()
        self._in_flight = -1  # token of the one flush that runs, or -1
        self._follow_up: Flush | None = None  # a checkpoint that the log wants on disk next
        self._begun_offset = log.end_offset  # everything below is flushed or in flight
        self._timer_set = False
        self._flush_now = False
        self._closing = _Closing.NO

    def __repr__(self) -> str:
        return f"{self.role.value} epoch={self.leader_epoch} end={self.log.end_offset} hw={self.high_watermark}"

    @property
    def leads(self) -> bool:
        return self.role is Role.LEADER

    @property
    def last_stable_offset(self) -> int:
        """Up to where no transaction is open. There are no transactions yet."""
        return self.high_watermark

    @property
    def knows_latest(self) -> bool:
        """Whether the high watermark has reached this epoch's start, so that it cannot seem to go back. KIP-207."""
        return self.high_watermark >= self.epoch_start_offset

    @property
    def closed(self) -> bool:
        return self._closing is _Closing.DONE

    # -- leadership ----------------------------------------------------------------------------

    def become_leader(self, leader_epoch: int) -> bool:
        """Lead in this committed epoch. False if it is not newer than every one that this log has seen, and not ours."""
        log = self.log
        if self._closing is not _Closing.NO:
            return False
        if leader_epoch != self.leader_epoch:
            if leader_epoch <= log.leader_epochs.latest:
                return False
            self.leader_epoch = leader_epoch
            self.epoch_start_offset = log.end_offset
            log.leader_epochs.assign(leader_epoch, log.end_offset)
        self.role = Role.LEADER
        return True

    def resign(self) -> None:
        """Take no more writes. What was appended may still become committed."""
        self.role = Role.FOLLOWER

    # -- appends and commits -------------------------------------------------------------------

    def append(self, batches: Sequence[tuple[BatchHeader, memoryview]], now_ms: int) -> list[int]:
        """Write batches behind the log with one append; returns the base offset of each. Not yet committed."""
        assert self.leads
        return self.log.append(batches, leader_epoch=self.leader_epoch, now_ms=now_ms)

    def wait(self, waiting: Waiting) -> None:
        """Keep this until everything appended so far is committed."""
        self._waiting.append((self.log.end_offset, waiting))

    def abandon(self) -> list[Waiting]:
        """Forget what waits, and return it, oldest first: somebody who was to be told is not there any more."""
        waiting = [each for _, each in self._waiting]
        self._waiting.clear()
        return waiting

    def commit(self) -> list[Waiting]:
        """Raise the high watermark as far as it may go and hand back what waited for that, oldest first."""
        log = self.log
        # With one replica the in-sync set is this log alone.
        committed = log.flushed_offset if log.config.fsync == "always" else log.end_offset
        if committed > self.high_watermark:
            self.high_watermark = committed
            log.high_watermark = committed
        ready = []
        while self._waiting and self._waiting[0][0] <= committed:
            ready.append(self._waiting.popleft()[1])
        return ready

    def read(self, offset: int, max_bytes: int, *, limit_offset: int | None = None) -> tuple[memoryview, int]:
        """Whole batches from the one with `offset` on, and the offset behind them: for a reader in this process.

        limit_offset: what lies behind it is not read; by default the high watermark. There must be something.
        Raises BadBatch or CorruptLog where bytes are damaged.
        """
        log, disk = self.log, self._disk
        location = log.locate(offset, max_bytes, self.high_watermark if limit_offset is None else limit_offset)
        file = disk.open(segment_path(log.directory, location.segment_base_offset, LOG_SUFFIX))
        try:
            records = memoryview(disk.pread(file, location.length, location.position))
        finally:
            disk.close(file)
        *_, (_, last) = walk(records, check_crc=True)
        return records, last.next_offset

    # -- flushes -------------------------------------------------------------------------------

    def update_config(self, config: LogConfig) -> None:
        if config.fsync != self.log.config.fsync:
            self._flush_now = True  # what was left unflushed under the old rule
        self.log.update_config(config)

    def flush_effects(self, now: Now) -> Effects:
        """The flush or timer that is due, for the end of a turn. At most one flush runs at a time: whatever is
        appended meanwhile shares the next one."""
        if self._in_flight >= 0:
            return []
        flush, self._follow_up = self._follow_up, None
        if flush is None:
            flush = self._next_flush()
        if flush is not None:
            self._in_flight = flush.token
            return [flush]
        if self._begun_offset < self.log.end_offset and not self._timer_set and self.log.config.fsync == "interval":
            self._timer_set = True
            return [SetTimer(FLUSH_TIMER, now.monotonic_s + self.log.config.flush_ms / 1000)]
        return []

    def on_flush_timer(self) -> None:
        self._timer_set = False
        self.want_flush()

    def want_flush(self) -> None:
        """Flush what is unflushed at the end of this turn, whatever `fsync` says."""
        self._flush_now = True

    def on_flushed(self, token: int) -> None:
        """`token` is on disk; `commit` says what that means. A checkpoint may be flushed next."""
        assert token == self._in_flight
        self._in_flight = -1
        self._follow_up = self.log.on_flushed(token)
        if self._closing is _Closing.CHECKPOINT and self._follow_up is None:
            self.release()
            self._closing = _Closing.DONE

    def close(self) -> None:
        """Resign, then flush, checkpoint and close the log; `closed` says when."""
        self.resign()
        if self._closing is _Closing.NO:
            self._closing = _Closing.ASKED

    def give_up(self, reason: str) -> None:
        """A flush failed: the page cache lies from now on, and nobody who starts over it shall believe it."""
        give_up(self._disk, self.log.directory, reason)

    def release(self) -> None:
        """Let go of files and lock as they are, as a killed process does."""
        self.log.close()
        self._directory.close()

    def _next_flush(self) -> Flush | None:
        log = self.log
        unflushed = self._begun_offset < log.end_offset
        closing = self._closing is _Closing.ASKED
        if log.flush_due or (unflushed and (closing or self._flush_now or log.config.fsync == "always")):
            self._flush_now = False
            self._begun_offset = log.end_offset
            return log.begin_flush()
        if closing:
            self._closing = _Closing.CHECKPOINT
            return log.checkpoint()
        return None


def open_replica(
    path: Path, topic_id: bytes, config: LogConfig, disk: Disk, now: Now, progress: Callable[[], None]
) -> Replica[Any]:
    """Take a partition's directory for this process, and recover its log.

    Raises DirectoryLocked if another process does not let go of it within 5 s, ForeignTopic, CorruptLog, FailedFlush.
    """
    directory = _take_directory(path, topic_id, disk, progress)
    try:
        log, report = recover(disk, path, config, now.wall_ms, progress)
    except StorageError:
        directory.close()
        raise
    _tell(log, report)
    return Replica(log, directory, disk, is_new=report.checkpoint == "new")


def _tell(log: Log, report: RecoveryReport) -> None:
    """One line; a loud one if there was anything that a clean stop does not leave behind."""
    say = logger.warning if report.cut or report.rebuilt or report.warnings else logger.debug
    say(
        "log opened", start=log.start_offset, end=log.end_offset, checkpoint=report.checkpoint,
        scanned_bytes=report.scanned_bytes, cut=[str(path) for path in report.cut], cut_bytes=report.cut_bytes,
        rebuilt=[str(path) for path in report.rebuilt], warnings=report.warnings)


def _take_directory(path: Path, topic_id: bytes, disk: Disk, progress: Callable[[], None]) -> PartitionDirectory:
    """Open and lock the directory; a predecessor that was killed may still be on its way out."""
    for _ in range(LOCK_ATTEMPTS):
        try:
            return open_partition_directory(path, topic_id, disk)
        except DirectoryLocked:
            progress()
            time.sleep(LOCK_RETRY_S)
    return open_partition_directory(path, topic_id, disk)
