"""What tests of the log share: batches to append, flushes performed at once, a log read back."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zafka.storage.batch import BatchHeader, read_header, walk
from zafka.storage.config import LogConfig
from zafka.storage.disk import Disk, Flush
from zafka.storage.log import Log
from zafka.storage.records import Record, decode_batch, encode_batch

NOW_MS = 1_700_000_000_000
NO_LIMIT = 2**62

Batch = tuple[BatchHeader, memoryview]


def small_config(**overrides: Any) -> LogConfig:
    """Segments and index intervals so small that a few batches fill them."""
    values: dict[str, Any] = {"segment_bytes": 2000, "index_interval_bytes": 200, **overrides}
    return dataclasses.replace(LogConfig(), **values)


def make_batch(
    values: Sequence[bytes], *, timestamp_ms: int = NOW_MS, codec: int = 0, step_ms: int = 0, producer_id: int = -1,
    producer_epoch: int = -1, base_sequence: int = -1,
) -> Batch:
    """A batch as a client produces it: one record a value, `step_ms` apart."""
    data = memoryview(
        encode_batch(
            [(timestamp_ms + i * step_ms, b"key", value, ()) for i, value in enumerate(values)], codec=codec,
            producer_id=producer_id, producer_epoch=producer_epoch, base_sequence=base_sequence,
        )
    )
    return read_header(data), data


def append(log: Log, *batches: Batch, leader_epoch: int = 0, now_ms: int = NOW_MS) -> list[int]:
    return log.append(batches, leader_epoch=leader_epoch, now_ms=now_ms)


def fill(log: Log, count: int, *, first: int = 0, size: int = 100) -> None:
    """Append batches of two records, a millisecond apart: the batch's number, and `size` bytes."""
    for i in range(first, first + count):
        append(log, make_batch([b"%d" % i, b"x" * size], timestamp_ms=NOW_MS + i))


def flush(disk: Any, log: Log, wanted: Flush | None = None) -> None:
    """Perform a flush, and all that it leads to, as the process shell does."""
    wanted = wanted or log.begin_flush()
    while wanted is not None:
        perform(disk, wanted)
        wanted = log.on_flushed(wanted.token)


def perform(disk: Disk, wanted: Flush) -> None:
    for file in wanted.files:
        disk.fdatasync(file)
    for path in wanted.directories:
        disk.fsync_dir(path)


def close(disk: Disk, log: Log) -> None:
    """Stop cleanly."""
    flush(disk, log, log.checkpoint())
    log.close()


def read_bytes(disk: Disk, log: Log, offset: int, *, max_bytes: int = 1 << 20, limit: int = NO_LIMIT) -> bytes:
    """What a reader that fetches at `offset` gets."""
    location = log.locate(offset, max_bytes, min(limit, log.end_offset))
    segment = next(s for s in log.segments if s.base_offset == location.segment_base_offset)
    file = disk.open(segment.path)
    try:
        assert file.inode == location.inode
        return disk.pread(file, location.length, location.position)
    finally:
        disk.close(file)


def read_batches(disk: Disk, log: Log, *, max_bytes: int = 1 << 20) -> list[tuple[BatchHeader, bytes]]:
    """The whole log as a reader sees it that goes on where it ended."""
    batches = []
    offset = log.start_offset
    while data := read_bytes(disk, log, offset, max_bytes=max_bytes):
        for position, header in walk(data, check_crc=True):
            batches.append((header, data[position : position + header.size_bytes]))
            # Where records were deleted a log may begin within a batch.
            assert header.base_offset == offset or header.base_offset < offset == log.start_offset
            offset = header.next_offset
    assert offset == log.end_offset
    return batches


def read_records(disk: Disk, log: Log) -> list[Record]:
    return [
        record for header, data in read_batches(disk, log) for record in decode_batch(memoryview(data), header)
    ]


def log_path(directory: Path, base_offset: int = 0) -> Path:
    return directory / f"{base_offset:020d}.log"
