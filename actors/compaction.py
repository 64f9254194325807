"""Compaction as a partition sees it: when a pass is due, and what of it is put in place.

Owns: `Compaction`: the pass that the broker's cleaner does for this log (`actors/cleaner.py`), and its timer.
Invariants: one pass at a time; one group of it is offered to the log at a time, and the cleaner goes on when that is in
its place for good. Nothing at or above the last stable offset is touched, nor what is not sealed and on disk.
A pass that fails, on either side, is forgotten: the next one begins where the last that came to its end has left off.
May fail with OSError from the disk.
Source: Kafka LogCleanerManager.grabFilthiestCompactedLog, LogCleaner.cleanFilthiestLog.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zafka.actors.actor import Effects, Mail, Now, Peer, Send, SetTimer
from zafka.actors.cleaner_messages import Clean, Cleaned, StartCleaner, Swapped
from zafka.actors.replica import Replica
from zafka.actors.start import SUPERVISOR
from zafka.storage.cleaning import Pass
from zafka.storage.compaction import Dirty, find_dirty
from zafka.storage.config import INT64_MAX

COMPACTION_TIMER = "compaction"
# Kafka's names and defaults; the rate is without a limit there.
BACKOFF, BACKOFF_MS = "log.cleaner.backoff.ms", "15000"
BUFFER, BUFFER_BYTES = "log.cleaner.dedupe.buffer.size", "134217728"
RATE, RATE_BYTES = "log.cleaner.io.max.bytes.per.second", "1.7976931348623157E308"


FAILURES_MAX = 10  # counted: after these it is tried every four hours


class Compaction:
    """keep_from: nothing at or above this offset is touched, because the log's owner would miss it.
    waits_for: there is a pass that goes up to here, and waits until it may."""

    def __init__(self, replica: Replica[Any], broker_id: int) -> None:
        self.replica = replica
        self.keep_from = INT64_MAX
        self.waits_for = 0
        self._cleaner_name = f"cleaner {broker_id}"
        self._cleaner: Peer | None = None
        self._number = 0  # of the newest pass
        self._runs = False  # it is with the cleaner
        self._offered: Cleaned | None = None  # the group that the log is putting in place
        self._timer_set = False
        self._failures = 0  # in a row
        self._not_before_s = 0.0
        self._config: Mapping[str, str] = {}

    def configure(self, config: Mapping[str, str]) -> None:
        self._config = config

    # -- when ----------------------------------------------------------------------------------

    def wake(self, now: Now) -> Effects:
        """Have a cleaner if this topic is compacted, and begin a pass if one is due. To be called when either may be new."""
        if self._timer_set or not self.replica.log.config.is_compacted:
            return []
        return self.on_timer(now)

    def on_timer(self, now: Now) -> Effects:
        self._timer_set = self.replica.log.config.is_compacted
        if not self._timer_set:
            return []
        return [SetTimer(COMPACTION_TIMER, now.monotonic_s + self._backoff_s), *self._begin(now)]

    @property
    def _backoff_s(self) -> float:
        return int(self._config.get(BACKOFF, BACKOFF_MS)) / 1000

    def _begin(self, now: Now) -> Effects:
        if self._cleaner is None:
            return [Send(SUPERVISOR, StartCleaner())]
        log = self.replica.log
        if now.monotonic_s < self._not_before_s:
            return []
        if self._runs:
            if self._offered is not None and log.checkpoint_error is not None:
                log.want_checkpoint()  # the disk was full
            return []
        if not self.replica.leads or not log.swap.is_settled:
            return []
        stable_offset = self.replica.last_stable_offset
        dirty = self._find_dirty(min(stable_offset, self.keep_from), now)
        if not dirty.is_due(log.config):
            if self.keep_from < stable_offset and (more := self._find_dirty(stable_offset, now)).is_due(log.config):
                self.waits_for = more.sources[-1].end_offset
            return []
        self._number += 1
        self._runs = True
        return [Send(self._cleaner, self._ask(dirty, now))]

    def _find_dirty(self, limit_offset: int, now: Now) -> Dirty:
        log = self.replica.log
        return find_dirty(
            log.replaceable_rows, log.config, start_offset=log.start_offset, cleaned_offset=log.swap.cleaned_offset,
            limit_offset=limit_offset, now_ms=now.wall_ms, first_timestamp=log.first_timestamp)

    def _ask(self, dirty: Dirty, now: Now) -> Clean:
        log = self.replica.log
        wanted = Pass(
            directory=str(log.directory), sources=list(dirty.sources), first_dirty=dirty.first_dirty, now_ms=now.wall_ms,
            delete_retention_ms=log.config.delete_retention_ms, last_offsets=log.producers.last_offsets(),
            buffer_bytes=int(self._config.get(BUFFER, BUFFER_BYTES)), segment_bytes=log.config.segment_bytes,
            index_interval_bytes=log.config.index_interval_bytes)
        return Clean(self._number, dirty.ratio, float(self._config.get(RATE, RATE_BYTES)), wanted)

    # -- the pass ------------------------------------------------------------------------------

    def on_cleaned(self, mail: Mail) -> Effects:
        """A group is on disk: offer it to the log."""
        cleaned: Cleaned = mail.body
        if mail.sender != self._cleaner or cleaned.number != self._number or not self._runs:
            return []
        if self.replica.leads and self.replica.log.replace(cleaned.replacement):
            self._offered = cleaned
            return []
        return self._answer(done=False, is_last=True)

    def on_failed(self, mail: Mail, now: Now) -> Effects:
        """A damaged source stays damaged: wait longer each time."""
        if mail.sender == self._cleaner and mail.body.number == self._number:
            self._runs = False
            self._not_before_s = now.monotonic_s + self._backoff_s * (2**self._failures - 1)
            self._failures = min(self._failures + 1, FAILURES_MAX)
        return []

    def on_turn_end(self, now: Now) -> Effects:
        """Have the cleaner go on once the log is done with the group."""
        offered, swap = self._offered, self.replica.log.swap
        if offered is None or not swap.is_settled:
            return []
        self._offered = None
        effects = self._answer(done=swap.succeeded, is_last=offered.is_last)
        # What did not fit into the cleaner's memory is the next pass.
        return effects if self._runs else effects + self._begin(now)

    def _answer(self, *, done: bool, is_last: bool) -> Effects:
        self._runs = done and not is_last
        self._failures = 0
        return [] if self._cleaner is None else [Send(self._cleaner, Swapped(self._number, done))]

    # -- the cleaner ---------------------------------------------------------------------------

    def on_actor_up(self, mail: Mail, now: Now) -> Effects:
        if mail.body.name != self._cleaner_name:
            return []
        peer = Peer(mail.body.name, mail.body.incarnation)
        if peer == self._cleaner:
            return []
        self.on_gone(self._cleaner)
        self._cleaner = peer
        return self._begin(now)

    def on_gone(self, peer: Peer | None) -> bool:
        """Whether this was the cleaner; it is asked for again when the timer fires. What the log was given, it puts in place."""
        if peer != self._cleaner:
            return False
        self._cleaner = self._offered = None
        self._runs = False
        return True
