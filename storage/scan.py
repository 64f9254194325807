"""Reading a segment's bytes batch by batch, with every CRC checked: for recovery and for rebuilding an index.

Owns: what a whole, right batch on disk is: in place (its base offset is the one that must come next, its leader epoch
does not go back: the CRC covers neither), v2, with sizes that fit, and the CRC that it says. It may have fewer records
than offsets, where compaction took some; one that has none stands where compaction took all, or where an operator gave
offsets up (`storage/repair.py`). So offsets have no holes between batches, only within them.
Reads in large chunks; a batch larger than a chunk is never held in memory.
May fail with OSError from the disk only; damage ends the scan and is told in `reason`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from crc32c import crc32c

from zafka.storage.batch import CRC_START, HEADER, HEADER_BYTES, LENGTH_END, BatchHeader
from zafka.storage.disk import Disk, File

CHUNK_BYTES = 4 * 1024 * 1024
MAGIC_POSITION = 16


def no_progress() -> None:
    """For callers that nobody watches."""


class Scan:
    """The valid batches of a file from `position` on: iterate once, then read `position` and `reason`.

    position: of the first byte that is not part of a valid batch; `end` if all is well.
    expected_offset: the base offset that the batch at `position` must have.
    leader_epoch: the least that it may have.
    reason: what is wrong there, or "".
    progress: called between chunks.
    """

    def __init__(
        self, disk: Disk, file: File, *, position: int, end: int, expected_offset: int,
        leader_epoch: int = -1, progress: Callable[[], None] = no_progress,
    ) -> None:
        self._disk = disk
        self._file = file
        self._end = end
        self._progress = progress
        self.position = position
        self.expected_offset = expected_offset
        self.leader_epoch = leader_epoch
        self.reason = ""

    def __iter__(self) -> Iterator[tuple[int, BatchHeader]]:
        """(position, header) of each valid batch."""
        while not self.reason and self.position < self._end:
            yield from self._batches_in_chunk()
            self._progress()

    def _batches_in_chunk(self) -> Iterator[tuple[int, BatchHeader]]:
        start = self.position
        chunk = memoryview(self._disk.pread(self._file, min(CHUNK_BYTES, self._end - start), start))
        length = len(chunk)
        at, expected = 0, self.expected_offset
        while length - at >= HEADER_BYTES:
            header = BatchHeader._make(HEADER.unpack_from(chunk, at))
            size = LENGTH_END + header.batch_length
            self.reason = _complaint(header, expected, self.leader_epoch, room=self._end - start - at)
            if self.reason:
                return
            if at + size <= length:
                crc = crc32c(chunk[at + CRC_START : at + size])
            elif at:
                return  # the next chunk begins with this batch
            else:
                crc = crc_of(self._disk, self._file, start + CRC_START, start + size)
            if crc != header.crc:
                self.reason = f"the CRC-32C does not fit a batch of {size} bytes"
                return
            yield start + at, header
            at += size
            expected += header.last_offset_delta + 1
            self.position, self.expected_offset, self.leader_epoch = start + at, expected, header.leader_epoch
        if not at:
            self.reason = f"{length} bytes are less than the header of a batch"


def _complaint(header: BatchHeader, expected_offset: int, leader_epoch: int, *, room: int) -> str:
    """What keeps this from being the header of the batch that must come next, or ""."""
    size = LENGTH_END + header.batch_length
    if (
        header.base_offset == expected_offset
        and header.leader_epoch >= leader_epoch
        and header.magic == 2
        and HEADER_BYTES <= size <= room
        and header.last_offset_delta >= 0
        and (0 < header.record_count <= header.last_offset_delta + 1 or (not header.record_count and size == HEADER_BYTES))
    ):
        return ""
    if not any(header):
        return "only zeros where a batch should be"
    if header.magic != 2:
        return f"message format v{header.magic} where a batch should be"
    if header.base_offset != expected_offset:
        return f"a batch with base offset {header.base_offset} where {expected_offset} should be"
    if header.leader_epoch < leader_epoch:
        return f"a batch of leader epoch {header.leader_epoch} behind one of {leader_epoch}"
    if not HEADER_BYTES <= size <= room:
        return f"a batch that says {size} bytes where {room} are left"
    return f"{header.record_count} records do not fit a last offset delta of {header.last_offset_delta}"


def crc_of(disk: Disk, file: File, position: int, end: int) -> int:
    """CRC-32C of a stretch of a file, read in chunks."""
    crc = 0
    while position < end:
        data = disk.pread(file, min(CHUNK_BYTES, end - position), position)
        if not data:
            return -1  # the file ends early
        crc = crc32c(data, crc)
        position += len(data)
    return crc


def find_batch_behind(
    disk: Disk, file: File, *, position: int, end: int, expected_offset: int, progress: Callable[[], None] = no_progress
) -> int:
    """Position of a valid batch somewhere behind damage at `position`, or -1 if there is none.

    The damaged bytes do not say where the next batch begins, so every place is tried whose bytes look like
    a later batch's: the base offset's upper half, the magic byte, sizes that fit, and then the CRC.
    """
    upper_half = re.escape((expected_offset >> 32).to_bytes(4, "big"))
    looks_like_batch = re.compile(b"(?=" + upper_half + rb"[\s\S]{12}\x02)")
    position += 1
    while end - position >= HEADER_BYTES:
        chunk = disk.pread(file, min(CHUNK_BYTES, end - position), position)
        for match in looks_like_batch.finditer(chunk, 0, max(len(chunk) - HEADER_BYTES + MAGIC_POSITION + 1, 0)):
            header = BatchHeader._make(HEADER.unpack_from(chunk, match.start()))
            start, size = position + match.start(), LENGTH_END + header.batch_length
            if (
                header.base_offset > expected_offset
                and not _complaint(header, header.base_offset, -1, room=end - start)
                and crc_of(disk, file, start + CRC_START, start + size) == header.crc
            ):
                return start
        position += max(len(chunk) - HEADER_BYTES + 1, 1)
        progress()
    return -1
