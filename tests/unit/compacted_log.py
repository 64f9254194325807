"""What tests of compaction share: a log of keys, a pass over it as the cleaner and the log's owner do it, and its last values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random
from typing import Any

from tests.unit.damaged_log import DIRECTORY
from tests.unit.log_tools import NOW_MS, append, flush, read_batches, small_config
from tests.unit.memory_disk import MemoryDisk
from zafka.storage.batch import BatchHeader, read_header
from zafka.storage.cleaning import Pass, Written, clean
from zafka.storage.compaction import Dirty, find_dirty
from zafka.storage.config import LogConfig
from zafka.storage.log import Log
from zafka.storage.records import Record, decode_batch, encode_batch
from zafka.storage.recovery import recover

BUFFER_BYTES = 1 << 20

Pair = tuple[bytes | None, bytes | None]  # key, value


def compacted_config(**overrides: Any) -> LogConfig:
    return small_config(**{"segment_bytes": 1000, "cleanup_policy": ("compact",), "delete_retention_ms": 1000, **overrides})


def batch_of(pairs: Iterable[Pair], *, timestamp_ms: int = NOW_MS, **more: Any) -> tuple[BatchHeader, memoryview]:
    data = memoryview(encode_batch([(timestamp_ms + i, key, value, ()) for i, (key, value) in enumerate(pairs)], **more))
    return read_header(data), data


def new_log(disk: MemoryDisk, config: LogConfig) -> Log:
    log, _ = recover(disk, DIRECTORY, config, NOW_MS)
    return log


def fill_with_keys(disk: MemoryDisk, log: Log, seed: int, *, batches: int = 60, keys: int = 8, flushed: bool = True) -> None:
    """Batches of one to three records over a few keys, a third of them tombstones, some of one producer."""
    random, sequence = Random(seed), 0
    for i in range(batches):
        pairs = [
            (b"key-%d" % random.randrange(keys), None if random.random() < 0.3 else b"%d " % i * random.randint(1, 20))
            for _ in range(random.randint(1, 3))]
        more: dict[str, Any] = {"codec": random.choice((0, 0, 1))}
        if random.random() < 0.4:
            more |= {"producer_id": 7, "producer_epoch": 0, "base_sequence": sequence}
            sequence += len(pairs)
        append(log, batch_of(pairs, timestamp_ms=NOW_MS + 10 * i, **more), leader_epoch=i // 25)
    if flushed:
        flush(disk, log, log.checkpoint())
        log.high_watermark = log.end_offset


def dirty_part(log: Log, now_ms: int = NOW_MS, limit_offset: int = -1) -> Dirty:
    return find_dirty(
        log.replaceable_rows, log.config, start_offset=log.start_offset, cleaned_offset=log.swap.cleaned_offset,
        limit_offset=log.high_watermark if limit_offset < 0 else limit_offset, now_ms=now_ms,
        first_timestamp=log.first_timestamp)


def plan_pass(log: Log, now_ms: int = NOW_MS, *, buffer_bytes: int = BUFFER_BYTES, limit_offset: int = -1) -> Pass:
    dirty = dirty_part(log, now_ms, limit_offset)
    return Pass(
        str(log.directory), list(dirty.sources), dirty.first_dirty, now_ms, log.config.delete_retention_ms,
        log.producers.last_offsets(), buffer_bytes, log.config.segment_bytes, log.config.index_interval_bytes)


def compact(disk: MemoryDisk, log: Log, now_ms: int = NOW_MS, **more: Any) -> None:
    """A whole pass; each group is in its place, and nothing is left to flush, before the next one is written."""
    for step in clean(disk, plan_pass(log, now_ms, **more)):
        if isinstance(step, Written):
            for file in step.files:
                disk.fdatasync(file)
            assert log.replace(step.replacement)
            while log.flush_due:
                flush(disk, log)
            assert not log.swap.is_wanted


def records_in(disk: MemoryDisk, log: Log) -> list[Record]:
    return [record for header, data in read_batches(disk, log) for record in decode_batch(data, header)]


def last_values(records: Iterable[Record]) -> Mapping[bytes | None, bytes | None]:
    """Of each key, the deleted ones left out."""
    values = {record.key: record.value for record in records}
    return {key: value for key, value in values.items() if value is not None}
