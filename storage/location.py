"""Where things lie in a log, as it tells others: names and fields, nothing else."""

from __future__ import annotations

from typing import NamedTuple

# Of the active segment's end, so much is taken to be in the page cache as it was written.
HOT_BYTES = 64 * 1024 * 1024
NEVER_HOT = 2**63 - 1


class Location(NamedTuple):
    """Where whole batches lie: `length` bytes at `position` of the segment's file.

    inode: of that file, so that a reader who opens it by name sees whether it is the same.
    hot_position: from here on this process wrote the segment's bytes. See `is_hot`.
    """

    segment_base_offset: int
    inode: int
    position: int
    length: int
    hot_position: int


def is_hot(position: int, *, hot_position: int, end_position: int) -> bool:
    """Whether bytes of the active segment are served without a look at their CRCs: written by the process that leads, and
    so lately that they are in the page cache. Pure. Those of other segments never are."""
    return position >= max(hot_position, end_position - HOT_BYTES)


class CommitPoint(NamedTuple):
    """Where in which file an offset begins, or would begin."""

    segment_base_offset: int
    inode: int
    position: int


class TimestampOffset(NamedTuple):
    """A record found by its timestamp."""

    timestamp: int
    offset: int
    leader_epoch: int
