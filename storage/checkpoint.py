"""The recovery checkpoint of a partition: what is known to be on disk, so that a restart scans little.

Owns: the bytes of the file `recovery-checkpoint`, and how it is replaced: written to a temporary file, flushed,
renamed, and the directory flushed. So there is always one whole checkpoint, an older or a newer one.
A checkpoint of another partition, or of the topic's namesake before it was deleted, is not believed.
Invariant: everything that a checkpoint tells (batches, index entries) was flushed before it got its name.
May fail with OSError from the disk, and CorruptCheckpoint when read.

     0  magic             4 bytes  "zfkc"
     4  version           int16    3
     6  crc               uint32   CRC-32C of everything behind it
    10  topic_id          16 bytes zeros where no partition.metadata says one
    26  partition         int32    with topic_id: whose checkpoint this is; version 1 lacks the two
    30  flushed_offset    int64    batches below were on disk; they end the last segment below
    38  log_start_offset  int64
    46  high_watermark    int64
    54  cleaned_offset    int64    below it compaction has been; 0 where it never was; version 2 lacks it and the next
    62  swapped           int64    base offset of a segment whose content may still stand in `.swap` files, or -1
    70  segments          int32    how many follow, 48 bytes each, oldest first; the last one is the active segment:
                                   base_offset int64, end_offset int64, size int64, bytes of .index int32,
                                   bytes of .timeindex int32, max_timestamp int64, its offset int64
        leader_epochs     int32    how many follow, 12 bytes each: epoch int32, start_offset int64
        producers         int32    bytes that follow: a producer snapshot in Kafka's format
All numbers are big-endian.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import NamedTuple

from crc32c import crc32c

from zafka.storage.directory import TOPIC_ID_BYTES, format_topic_id, read_topic_id
from zafka.storage.disk import Disk, File
from zafka.storage.errors import CorruptCheckpoint, CorruptSnapshot
from zafka.storage.index import OFFSET_ENTRY, TIME_ENTRY
from zafka.storage.producer_state import ProducerStates
from zafka.storage.segment import SegmentRow

CHECKPOINT_NAME = "recovery-checkpoint"
TEMPORARY_SUFFIX = ".tmp"

_MAGIC = b"zfkc"
_VERSION = 3
_VERSION_WITHOUT_CLEANING = 2
_VERSION_WITHOUT_OWNER = 1
_START = struct.Struct(">4shI")
_OFFSETS = struct.Struct(">qqq")
_CLEANING = struct.Struct(">qq")
_COUNT = struct.Struct(">i")
_SEGMENT = struct.Struct(">qqqiiqq")
_EPOCH = struct.Struct(">iq")
_PARTITION = struct.Struct(">i")
_OWNER_BYTES = TOPIC_ID_BYTES + _PARTITION.size
_NUMBERED = re.compile(r".+-(\d{1,9})")


class Checkpoint(NamedTuple):
    """segments: every segment, up to what was flushed; never empty.
    leader_epochs: (epoch, start offset), oldest first. producers: as `ProducerStates.snapshot` gave them.
    owner: as `owner_of` gives it, or b"" in a checkpoint of version 1. cleaned_offset, swapped: see above; `swap.py`."""

    flushed_offset: int
    log_start_offset: int
    high_watermark: int
    segments: tuple[SegmentRow, ...]
    leader_epochs: tuple[tuple[int, int], ...]
    producers: bytes
    owner: bytes = bytes(_OWNER_BYTES)
    cleaned_offset: int = 0
    swapped: int = -1


def owner_of(disk: Disk, directory: Path) -> bytes:
    """Topic id and partition, as a checkpoint says whose it is. Raises ForeignTopic, OSError."""
    topic_id = read_topic_id(disk, directory) or bytes(TOPIC_ID_BYTES)
    numbered = _NUMBERED.fullmatch(directory.name)
    return topic_id + _PARTITION.pack(int(numbered[1]) if numbered else -1)


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    body = b"".join(
        (
            checkpoint.owner,
            _OFFSETS.pack(checkpoint.flushed_offset, checkpoint.log_start_offset, checkpoint.high_watermark),
            _CLEANING.pack(checkpoint.cleaned_offset, checkpoint.swapped),
            _COUNT.pack(len(checkpoint.segments)),
            *(_SEGMENT.pack(*row) for row in checkpoint.segments),
            _COUNT.pack(len(checkpoint.leader_epochs)),
            *(_EPOCH.pack(*entry) for entry in checkpoint.leader_epochs),
            _COUNT.pack(len(checkpoint.producers)),
            checkpoint.producers,
        )
    )
    return _START.pack(_MAGIC, _VERSION, crc32c(body)) + body


def decode_checkpoint(data: bytes) -> Checkpoint:
    """Raises CorruptCheckpoint if the bytes are not exactly one whole checkpoint."""
    try:
        magic, version, crc = _START.unpack_from(data)
        if magic != _MAGIC or version not in (_VERSION, _VERSION_WITHOUT_CLEANING, _VERSION_WITHOUT_OWNER):
            raise CorruptCheckpoint(f"it begins with {data[:6]!r}")
        if crc32c(memoryview(data)[_START.size :]) != crc:
            raise CorruptCheckpoint("the CRC-32C does not fit")
        position = _START.size
        owner = data[position : position + _OWNER_BYTES] if version > _VERSION_WITHOUT_OWNER else b""
        position += len(owner)
        flushed_offset, log_start_offset, high_watermark = _OFFSETS.unpack_from(data, position)
        position += _OFFSETS.size
        cleaned_offset, swapped = 0, -1
        if version > _VERSION_WITHOUT_CLEANING:
            cleaned_offset, swapped = _CLEANING.unpack_from(data, position)
            position += _CLEANING.size
        rows, position = _read_rows(data, position, _SEGMENT)
        epochs, position = _read_rows(data, position, _EPOCH)
        (length,) = _COUNT.unpack_from(data, position)
        producers = data[position + _COUNT.size :]
    except struct.error as error:
        raise CorruptCheckpoint(f"it ends early: {error}") from error
    if length != len(producers) or not rows:
        raise CorruptCheckpoint("its parts do not fit together")
    checkpoint = Checkpoint(
        flushed_offset, log_start_offset, high_watermark, tuple(SegmentRow(*row) for row in rows),
        tuple((epoch, start_offset) for epoch, start_offset in epochs), producers, owner,
        cleaned_offset, swapped,
    )
    _check(checkpoint)
    return checkpoint


def _check(checkpoint: Checkpoint) -> None:
    """What a log could not be opened with, a right CRC or not. Raises CorruptCheckpoint."""
    end = checkpoint.segments[0].base_offset
    for row in checkpoint.segments:
        if (
            row.base_offset < max(end, 0) or row.end_offset < row.base_offset
            or min(row.size_bytes, row.offset_index_bytes, row.time_index_bytes) < 0
            or row.offset_index_bytes % OFFSET_ENTRY.size or row.time_index_bytes % TIME_ENTRY.size
        ):
            raise CorruptCheckpoint(f"{row} cannot be")
        end = row.end_offset
    if any(epoch < 0 or start_offset < 0 for epoch, start_offset in checkpoint.leader_epochs):
        raise CorruptCheckpoint(f"leader epochs {checkpoint.leader_epochs} cannot be")
    if not 0 <= checkpoint.cleaned_offset <= end or checkpoint.swapped < -1:
        raise CorruptCheckpoint(f"a log up to {end} that is clean to {checkpoint.cleaned_offset} cannot be")
    if not 0 <= checkpoint.log_start_offset <= end:
        raise CorruptCheckpoint(f"a log from offset {checkpoint.log_start_offset} to {end} cannot be")


def _read_rows(data: bytes, position: int, row: struct.Struct) -> tuple[list[tuple[int, ...]], int]:
    (count,) = _COUNT.unpack_from(data, position)
    position += _COUNT.size
    end = position + count * row.size
    if not position <= end <= len(data):
        raise CorruptCheckpoint(f"{count} rows at position {position} are more than the file holds")
    return list(row.iter_unpack(data[position:end])), end


def read_checkpoint(disk: Disk, directory: Path) -> Checkpoint | None:
    """The checkpoint of a partition, or None if it has none. Raises CorruptCheckpoint."""
    path = directory / CHECKPOINT_NAME
    if not disk.exists(path):
        return None
    file = disk.open(path)
    try:
        return decode_checkpoint(disk.pread(file, disk.size(file), 0))
    finally:
        disk.close(file)


def find_checkpoint(disk: Disk, directory: Path, owner: bytes) -> tuple[Checkpoint | None, str]:
    """The checkpoint if it can be believed, and "ok", "missing", or why it cannot."""
    try:
        checkpoint = read_checkpoint(disk, directory)
        if checkpoint is None:
            return None, "missing"
        ProducerStates().load(checkpoint.producers)
    except (CorruptCheckpoint, CorruptSnapshot) as error:
        return None, f"corrupt: {error}"
    if checkpoint.owner not in (owner, b""):
        topic_id, (partition,) = checkpoint.owner[:TOPIC_ID_BYTES], _PARTITION.unpack(checkpoint.owner[TOPIC_ID_BYTES:])
        return None, f"foreign: it is of topic id {format_topic_id(topic_id)}, partition {partition}"
    return checkpoint, "ok"


def write_temporary(disk: Disk, directory: Path, checkpoint: Checkpoint) -> File:
    """Write the temporary file and return it: once it is flushed, `publish` gives it its name.

    Raises OSError if the disk is full; the file is then closed, and overwritten by the next attempt.
    """
    file = disk.open(directory / (CHECKPOINT_NAME + TEMPORARY_SUFFIX), create=True)
    try:
        disk.truncate(file, 0)
        disk.pwritev(file, (encode_checkpoint(checkpoint),), 0)
    except OSError:
        disk.close(file)
        raise
    return file


def publish(disk: Disk, directory: Path, file: File) -> None:
    """Put the flushed temporary file in the place of the checkpoint. Durable after a flush of the directory."""
    disk.close(file)
    disk.rename(file.path, directory / CHECKPOINT_NAME)
