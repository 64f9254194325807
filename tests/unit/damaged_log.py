"""What tests of `verify` and `repair` share: a log with everything in it, ways to damage it, and what it held."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

from tests.unit.log_tools import NOW_MS, append, flush, log_path, make_batch, read_batches, small_config
from tests.unit.memory_disk import MemoryDisk
from zafka.storage.config import LogConfig
from zafka.storage.log import Log
from zafka.storage.recovery import recover
from zafka.storage.repair import go_on, plan, repair
from zafka.storage.verify import Verdict, verify

DATA = Path("/data")
DIRECTORY = DATA / "orders-0"
CHECKPOINT = DIRECTORY / "recovery-checkpoint"
METADATA = b"version: 0\ntopic_id: AAECAwQFBgcICQoLDA0ODw"
CONFIG: LogConfig = small_config(segment_bytes=1000)


class Held(NamedTuple):
    """batches: (first offset, offset behind the last, bytes from the CRC on) of the whole log, in order.

    flushed: batches below this offset are below the checkpoint. bases: of all segments; active: of the last one that
    the checkpoint knows.
    """

    batches: list[tuple[int, int, bytes]]
    flushed: int
    bases: list[int]
    active: int

    @property
    def end(self) -> int:
        return self.batches[-1][1]


def new_disk(seed: int = 0) -> MemoryDisk:
    disk = MemoryDisk(seed)
    disk.make_directory(DATA)
    disk.make_directory(DIRECTORY)
    disk.write(DIRECTORY / "partition.metadata", METADATA)
    return disk


def grown(disk: MemoryDisk, *, below: int = 18, above: int = 5, config: LogConfig = CONFIG) -> Held:
    """A log of several segments, three leader epochs and a producer; killed with `above` batches behind the checkpoint."""
    log, _ = recover(disk, DIRECTORY, config, NOW_MS)
    for i in range(below):
        batch = make_batch([b"%d" % i, b"x" * 100], timestamp_ms=NOW_MS + i, producer_id=9, producer_epoch=0,
                           base_sequence=2 * i)
        append(log, batch, leader_epoch=i // 7)
    flush(disk, log, log.checkpoint())
    flushed, active = log.end_offset, log.segments[-1].base_offset
    fill_above(log, above)
    held = Held(content(disk, log), flushed, [segment.base_offset for segment in log.segments], active)
    disk.crash()
    return held


def fill_above(log: Log, count: int) -> None:
    for i in range(count):
        append(log, make_batch([b"above", b"y" * 90], timestamp_ms=NOW_MS + 100 + i), leader_epoch=3)


def content(disk: MemoryDisk, log: Log) -> list[tuple[int, int, bytes]]:
    return [(header.base_offset, header.next_offset, data[17:]) for header, data in read_batches(disk, log)]


def records_of(disk: MemoryDisk, log: Log) -> list[tuple[int, int, bytes]]:
    """The same without empty batches."""
    return [
        (header.base_offset, header.next_offset, data[17:]) for header, data in read_batches(disk, log)
        if header.record_count]


def holes_of(disk: MemoryDisk, log: Log) -> list[tuple[int, int]]:
    return [
        (header.base_offset, header.next_offset) for header, _ in read_batches(disk, log) if not header.record_count]


def place_of(held: Held, disk: MemoryDisk, offset: int) -> tuple[Path, int, int]:
    """(file, position, size) of the batch with this base offset."""
    base = max(base for base in held.bases if base <= offset)
    data, position = disk.read(log_path(DIRECTORY, base)), 0
    while True:
        (found, length) = struct.unpack_from(">qi", data, position)
        if found == offset:
            return log_path(DIRECTORY, base), position, 12 + length
        position += 12 + length


def look(disk: MemoryDisk) -> Verdict:
    """Verify, which must change nothing and leave nothing open."""
    before = snapshot(disk)
    verdict = verify(disk, DIRECTORY)
    assert snapshot(disk) == before
    assert not disk.open_files
    return verdict


def snapshot(disk: MemoryDisk) -> dict[str, bytes]:
    return {name: disk.read(DIRECTORY / name) for name in disk.list_directory(DIRECTORY)}


def mend(disk: MemoryDisk, *, new_id: str = "4f2a", config: LogConfig = CONFIG) -> None:
    go_on(disk, DIRECTORY)
    verdict = verify(disk, DIRECTORY)
    repair(disk, verdict, plan(disk, verdict, new_id=new_id, now_ms=NOW_MS), config, now_ms=NOW_MS)


