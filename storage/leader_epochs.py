"""Which leader wrote what: the first offset of each leader epoch of one partition.

Owns: the list; where it is kept (in the recovery checkpoint, and in every batch's header) is the log's matter.
Invariant: epochs and start offsets both strictly increase.
Source: KIP-101, KIP-279; Kafka LeaderEpochFileCache.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

UNDEFINED_EPOCH = -1
UNDEFINED_OFFSET = -1


class EpochStart(NamedTuple):
    epoch: int
    start_offset: int


class LeaderEpochs:
    """All epochs that have records in the log, and the newest one even if it has none yet."""

    def __init__(self, entries: Iterable[tuple[int, int]] = ()) -> None:
        self.entries: list[EpochStart] = []
        for epoch, start_offset in entries:
            self.assign(epoch, start_offset)

    def __repr__(self) -> str:
        return f"<LeaderEpochs {' '.join(f'{epoch}@{offset}' for epoch, offset in self.entries)}>"

    @property
    def latest(self) -> int:
        """The newest epoch, or -1 if there is none."""
        return self.entries[-1].epoch if self.entries else UNDEFINED_EPOCH

    def assign(self, epoch: int, start_offset: int) -> None:
        """Epoch `epoch` begins at `start_offset`; the same epoch again, further on, changes nothing.

        Epochs that wrote nothing, or whose records another leader has overwritten, are forgotten.
        """
        assert epoch >= 0 and start_offset >= 0
        entries = self.entries
        if entries and entries[-1].epoch == epoch and entries[-1].start_offset <= start_offset:
            return
        while entries and (entries[-1].epoch >= epoch or entries[-1].start_offset >= start_offset):
            entries.pop()
        entries.append(EpochStart(epoch, start_offset))

    def epoch_for(self, offset: int) -> int:
        """The epoch in which the record at `offset` was written, or -1 if that is before all we know."""
        index = bisect_right(self.entries, offset, key=_start_offset)
        return self.entries[index - 1].epoch if index else UNDEFINED_EPOCH

    def end_offset_for(self, epoch: int, log_end_offset: int) -> EpochStart:
        """The largest epoch up to `epoch`, with the offset where it ended: where the next one began, or the log's end.

        Returns (-1, -1) for an epoch that is newer than all we know. An epoch older than all we know
        ended, as far as anybody can tell, where the first one began. Source: LeaderEpochFileCache.endOffsetFor.
        """
        if epoch == UNDEFINED_EPOCH or epoch > self.latest:
            return EpochStart(UNDEFINED_EPOCH, UNDEFINED_OFFSET)
        if epoch == self.latest:
            return EpochStart(epoch, log_end_offset)
        index = bisect_right(self.entries, epoch, key=_epoch)
        found = self.entries[index - 1].epoch if index else epoch
        return EpochStart(found, self.entries[index].start_offset)

    def truncate_start(self, start_offset: int) -> None:
        """The log begins at `start_offset` now: forget the epochs that ended before it."""
        index = bisect_right(self.entries, start_offset, key=_start_offset)
        if index:
            self.entries[:index] = [EpochStart(self.entries[index - 1].epoch, start_offset)]


def _start_offset(entry: EpochStart) -> int:
    return entry.start_offset


def _epoch(entry: EpochStart) -> int:
    return entry.epoch
