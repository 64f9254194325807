"""Where things lie in a log, as it tells others: names and fields, nothing else."""

from __future__ import annotations

from typing import NamedTuple


class Location(NamedTuple):
    """Where whole batches lie: `length` bytes at `position` of the segment's file.

    inode: of that file, so that a reader who opens it by name sees whether it is the same.
    cold: the bytes may not be in the page cache, or another process wrote them: check their CRCs.
    """

    segment_base_offset: int
    inode: int
    position: int
    length: int
    cold: bool


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
