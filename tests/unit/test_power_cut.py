"""What a log promises when the power is cut anywhere, by a disk that forgets any part of what was not flushed.

RELIABILITY, promises: what was flushed is there, offsets are in order without a gap, and at most what was not
flushed is lost, from the end. Nothing that a cut can leave behind is taken for corruption.
"""

from __future__ import annotations

import contextlib
from collections import deque
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.log_tools import NO_LIMIT, NOW_MS, make_batch, perform, read_batches, small_config
from tests.unit.memory_disk import MemoryDisk, PowerCut
from zafka.storage.batch import BatchHeader
from zafka.storage.disk import Flush
from zafka.storage.errors import DiskFull
from zafka.storage.log import Log
from zafka.storage.producer_state import Append, ProducerStates
from zafka.storage.recovery import recover

DIRECTORY = Path("/data/orders-0")
PRODUCER_IDS = (-1, 7, 8)

Written = tuple[BatchHeader, bytes]


class LogUnderPowerCuts(RuleBasedStateMachine):
    """A log and, beside it, all that was ever appended to it."""

    log: Log

    @initialize(seed=st.integers(0, 2**32), index_interval=st.sampled_from((1, 300, 4096)))
    def open_first(self, seed: int, index_interval: int) -> None:
        self.disk = MemoryDisk(seed)
        self.config = small_config(
            segment_bytes=1500, index_interval_bytes=index_interval, retention_bytes=4000, retention_ms=-1
        )
        self.now_ms = NOW_MS
        self.epoch = 0
        self.appended: list[Written] = []  # as they should be in the log
        self.tried: list[Written] = []  # since the last recovery; a failed append may come back with a power cut
        self.start_offset = 0  # the furthest that retention and deletions may have gone
        self.shown_start = 0  # the furthest deletion that was shown: it never comes back
        self.wanted_start = 0
        self.flushed_offset = 0  # the furthest that the log has said is on disk
        self.flushes: deque[Flush] = deque()
        self.deleted: list[Path] = []
        self.recover()

    # -- what programs do ----------------------------------------------------------------------

    @rule(sizes=st.lists(st.integers(1, 700), min_size=1, max_size=5), producer_id=st.sampled_from(PRODUCER_IDS))
    def append(self, sizes: list[int], producer_id: int) -> None:
        producers = ProducerStates()
        producers.load(self.log.producers.snapshot())
        batches = []
        for i, size in enumerate(sizes):
            producer = producers.get(producer_id)
            producer_fields = {} if producer_id < 0 else {
                "producer_id": producer_id, "producer_epoch": 0,
                "base_sequence": producer.last_sequence + 1 if producer else 0,
            }
            self.now_ms += 1
            batch = make_batch([bytes([i]) * size, b"x"], timestamp_ms=self.now_ms, **producer_fields)
            if producer_id >= 0:
                assert isinstance(producers.check(batch[0]), Append)
                producers.update(batch[0], 0)
            batches.append(batch)
        before, expected = len(self.appended), []
        for header, data in batches:
            expected.append(self.appended[-1][0].next_offset if self.appended else 0)
            header = header._replace(base_offset=expected[-1], leader_epoch=self.epoch)
            self.appended.append((header, bytes(data[16:])))
        self.tried += self.appended[before:]
        try:
            assert self.log.append(batches, leader_epoch=self.epoch, now_ms=self.now_ms) == expected
        except DiskFull:
            del self.appended[before:]

    @rule()
    def begin_flush(self) -> None:
        self.flushes.append(self.log.begin_flush())

    @precondition(lambda self: self.flushes)
    @rule()
    def confirm_flush(self) -> None:
        flush = self.flushes.popleft()
        perform(self.disk, flush)
        following = self.log.on_flushed(flush.token)
        if following is not None:
            self.flushes.append(following)
        self.flushed_offset = max(self.flushed_offset, self.log.flushed_offset)
        self.look_at_start()

    def look_at_start(self) -> None:
        if self.log.start_offset >= self.wanted_start and not self.log.checkpoint_error:
            self.shown_start = max(self.shown_start, self.wanted_start)

    @precondition(lambda self: len(self.flushes) < 3)
    @rule()
    def flush_all(self) -> None:
        self.begin_flush()
        while self.flushes:
            self.confirm_flush()

    @rule()
    def apply_retention(self) -> None:
        self.deleted += self.log.apply_retention(self.now_ms, self.log.flushed_offset)
        self.start_offset = max(self.start_offset, self.log.start_offset)

    @rule(batches=st.integers(0, 4))
    def delete_records(self, batches: int) -> None:
        """Of everything from the start on but the last few batches that are on disk."""
        index = self.index_of(self.log.flushed_offset) - batches
        if index >= self.index_of(self.log.start_offset):
            index = min(index, len(self.appended))
            offset = self.log.flushed_offset if batches == 0 else self.appended[index][0].base_offset
            before = self.log.start_offset
            self.log.delete_records(offset)
            assert self.log.start_offset == before  # until a checkpoint is on disk
            self.wanted_start = max(self.wanted_start, offset)
            self.start_offset = max(self.start_offset, offset)

    @rule()
    def unlink_deleted(self) -> None:
        self.log.unlink_deleted(self.deleted)
        self.deleted.clear()

    @rule()
    def new_leader(self) -> None:
        self.epoch += 1

    @rule(offset=st.integers(0, 300), max_bytes=st.integers(1, 3000))
    def read(self, offset: int, max_bytes: int) -> None:
        if self.log.start_offset <= offset < self.log.end_offset:
            location = self.log.locate(offset, max_bytes, NO_LIMIT)
            assert location.length

    @rule()
    def stop_cleanly(self) -> None:
        while self.flushes:
            self.confirm_flush()
        self.flushes.append(self.log.checkpoint())
        while self.flushes:
            self.confirm_flush()
        self.log.close()
        assert not self.disk.open_files
        self.recover()

    # -- what happens to them ------------------------------------------------------------------

    @rule(room_bytes=st.one_of(st.none(), st.integers(0, 2000)))
    def fill_disk(self, room_bytes: int | None) -> None:
        self.disk.room_bytes = room_bytes

    @rule()
    def kill(self) -> None:
        end_offset = self.log.end_offset
        self.disk.crash()
        self.recover()
        assert self.log.end_offset == end_offset

    @rule()
    def power_cut(self) -> None:
        self.disk.power_cut()
        self.recover()

    @rule(calls=st.integers(0, 12), what=st.sampled_from(("append", "flush_all", "apply_retention", "stop_cleanly")))
    def power_cut_while(self, calls: int, what: str) -> None:
        self.disk.calls_left = calls
        try:
            if what == "append":
                self.append([300, 300, 300, 300, 300], -1)
            else:
                getattr(self, what)()
        except PowerCut:
            if what == "apply_retention":
                self.start_offset = max(self.start_offset, self.flushed_offset)  # any part of it may have been done
        self.disk.power_cut()
        self.recover()

    @rule(calls=st.lists(st.integers(0, 25), min_size=1, max_size=3))
    def power_cuts_while_recovering(self, calls: list[int]) -> None:
        self.disk.power_cut()
        for count in calls:
            self.disk.calls_left = count
            with contextlib.suppress(PowerCut):
                recover(self.disk, DIRECTORY, self.config, self.now_ms)
            self.disk.power_cut()
        self.recover()

    # -- what must hold ------------------------------------------------------------------------

    def recover(self) -> None:
        self.flushes.clear()
        self.deleted.clear()
        self.log, report = recover(self.disk, DIRECTORY, self.config, self.now_ms)
        assert not report.warnings or self.disk.room_bytes is not None, report
        log = self.log
        assert log.flushed_offset == log.end_offset >= self.flushed_offset
        assert self.shown_start <= log.start_offset <= self.start_offset
        self.wanted_start = log.start_offset
        found = [(header, data[16:]) for header, data in read_batches(self.disk, log, max_bytes=700)]
        flushed = [(header, data) for header, data in found if header.base_offset < self.flushed_offset]
        assert flushed == self.appended[self.index_of(log.start_offset) : self.index_of(self.flushed_offset)]
        assert all(batch in self.tried for batch in found[len(flushed) :])
        self.appended[self.index_of(log.start_offset) :] = found
        self.flushed_offset = log.end_offset
        self.tried.clear()
        self.check_producers_and_epochs()
        self.check_timestamps()

    def index_of(self, offset: int) -> int:
        """Of the batch that begins at `offset`, which is a boundary."""
        for index, (header, _) in enumerate(self.appended):
            if header.base_offset == offset:
                return index
        assert offset == (self.appended[-1][0].next_offset if self.appended else 0)
        return len(self.appended)

    def check_producers_and_epochs(self) -> None:
        producers = ProducerStates()
        for header, _ in self.appended:
            producers.update(header, header.base_offset)
        assert self.log.producers.snapshot() == producers.snapshot()
        for header, _ in self.appended[self.index_of(self.log.start_offset) :]:
            assert self.log.leader_epochs.epoch_for(header.base_offset) == header.leader_epoch

    def check_timestamps(self) -> None:
        headers = [header for header, _ in self.appended[self.index_of(self.log.start_offset) :]]
        for wanted in {header.max_timestamp for header in headers}:
            first = next(header for header in headers if header.max_timestamp >= wanted)
            found = self.log.offset_for_timestamp(wanted)
            assert found == (first.max_timestamp, first.base_offset, first.leader_epoch)

    @invariant()
    def offsets_in_order(self) -> None:
        log = self.log
        assert log.start_offset <= log.flushed_offset <= log.end_offset
        assert log.end_offset == (self.appended[-1][0].next_offset if self.appended else 0)
        for before, behind in zip(log.segments, log.segments[1:], strict=False):
            assert before.end_offset == behind.base_offset
        assert len(self.disk.open_files) <= 3 * (len(log.segments) + 1) + len(self.flushes)


TestLogUnderPowerCuts: Any = LogUnderPowerCuts.TestCase
TestLogUnderPowerCuts.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
