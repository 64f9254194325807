"""How records leave a partition's log: by retention, or because an admin deletes them.

Owns: `Deletion`: which DeleteRecords wait for their checkpoint, and when the files of dropped segments are unlinked.
Invariant: a DeleteRecords is answered when its log start is on disk and shown to readers, so neither a kill nor a
power cut brings deleted records back. With the disk full it fails with KAFKA_STORAGE_ERROR, and whole segments go all
the same, so that it succeeds when it comes again.
May fail with OSError from the disk.
Source: KIP-107; ReplicaManager.deleteRecords, UnifiedLog.maybeIncrementLogStartOffset, deleteOldSegments.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from zafka.actors.actor import Effects, Now, SetTimer
from zafka.actors.messages import DeleteRecords, RecordsDeleted
from zafka.actors.replica import Replica
from zafka.transport.kafka.errors import ErrorCode

UNLINK_TIMER = "unlink"
HIGH_WATERMARK = -1


class Deletion:
    def __init__(self, replica: Replica[Any]) -> None:
        self.replica = replica
        self._files: deque[tuple[float, list[Path]]] = deque()  # when to unlink which
        self._waiting: list[tuple[int, int]] = []  # offset and request id of each DeleteRecords

    # -- by request ----------------------------------------------------------------------------

    def begin(self, request: DeleteRecords) -> int:
        """Have the log begin where it is wished; `answers` says when it does. Returns a Kafka error, or 0."""
        replica = self.replica
        policy = replica.log.config.cleanup_policy
        if "compact" in policy and "delete" not in policy:
            return ErrorCode.POLICY_VIOLATION
        high_watermark = replica.high_watermark
        offset = high_watermark if request.offset == HIGH_WATERMARK else request.offset
        if not 0 <= offset <= high_watermark:
            return ErrorCode.OFFSET_OUT_OF_RANGE
        replica.log.delete_records(offset)
        self._waiting.append((offset, request.request_id))
        return ErrorCode.NONE

    def answers(self, now: Now) -> tuple[list[RecordsDeleted], Effects]:
        """What is answered in this turn, and what follows from it."""
        if not self._waiting:
            return [], []
        log = self.replica.log
        start, failed = log.start_offset, log.checkpoint_error is not None
        ended = [
            RecordsDeleted(request_id, 0, start) if offset <= start else
            RecordsDeleted(request_id, ErrorCode.KAFKA_STORAGE_ERROR, -1)
            for offset, request_id in self._waiting if offset <= start or failed]
        self._waiting = [] if failed else [each for each in self._waiting if each[0] > start]
        return ended, self.drop_segments(now) if ended else []

    def forget(self) -> None:
        """Who asked is gone."""
        self._waiting.clear()

    # -- segments ------------------------------------------------------------------------------

    def drop_segments(self, now: Now) -> Effects:
        """Drop what is too old, too much, or below the log's start. Readers in the middle of it have a while to finish."""
        log = self.replica.log
        paths = log.apply_retention(now.wall_ms, self.replica.high_watermark)
        if not paths:
            return []
        self._files.append((now.monotonic_s + log.config.file_delete_delay_ms / 1000, paths))
        return [SetTimer(UNLINK_TIMER, self._files[0][0])]

    def unlink(self, now: Now) -> Effects:
        """`UNLINK_TIMER` fired: unlink what is due."""
        while self._files and self._files[0][0] <= now.monotonic_s:
            self.replica.log.unlink_deleted(self._files.popleft()[1])
        return [SetTimer(UNLINK_TIMER, self._files[0][0])] if self._files else []
