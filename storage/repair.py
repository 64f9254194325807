"""Making a damaged log whole again, once an operator has said that what is lost may be given up.

Owns: the order of the steps, so that each may be killed and the whole be done again (docs/decisions/0010-log-recover.md):
1. `recovered.json` says what is about to be given up, and then the marker keeps everybody else out;
2. the torn tail is cut, as every start does it, and all damaged bytes are copied to `<segment>.<position>.cut`;
3. damaged segments are written anew: whole batches as they are, and for the offsets that are lost one empty batch, so
   that offsets stay, none is given out twice, and readers step over the hole as they do after compaction;
4. `recovered.json` says that they are written; the checkpoint goes, the new segments get their names, and recovery reads
   all of it and writes a new checkpoint. From the first half of this step on nobody looks at the old segments again
   (`go_on`): without their checkpoint they would seem worse than they are;
5. `recovered.json` says that it is done, and the marker goes.
Invariant: a batch that is whole, and was known or stands before any damage, is kept; what was lost is written down.
May fail with OSError, FailedFlush, CorruptLog; the marker stays then.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from zafka.storage.batch import NO_TIMESTAMP, empty_batch
from zafka.storage.checkpoint import CHECKPOINT_NAME, TEMPORARY_SUFFIX, find_checkpoint, owner_of
from zafka.storage.config import LogConfig
from zafka.storage.disk import Disk, File, sync
from zafka.storage.fault import Recovered, leave_marker, read_recovered, remove_marker, write_recovered
from zafka.storage.log import DELETED_SUFFIX
from zafka.storage.recovery import recover
from zafka.storage.scan import CHUNK_BYTES, no_progress
from zafka.storage.segment import LOG_SUFFIX, MAX_INT32, segment_path, segment_paths
from zafka.storage.snapshot import SNAPSHOT_NAME
from zafka.storage.swap import settle
from zafka.storage.torn_tail import CUT_SUFFIX, copy_bytes, cut_torn_tail
from zafka.storage.verify import Damage, SegmentVerdict, Stretch, Verdict, merged

UNFINISHED = "`zafka log recover` was begun and did not come to its end: run it again"


def plan(disk: Disk, verdict: Verdict, *, new_id: str, now_ms: int) -> Recovered:
    """What `repair` would give up. A recovery that did not come to its end goes on under its own id."""
    before = read_recovered(disk, verdict.directory)
    torn_bytes = verdict.torn.size_bytes if verdict.torn else 0
    reasons = [damage.reason for segment in verdict.segments for damage in segment.damages]
    reason = next(iter([*filter(None, [verdict.marker]), *reasons]), "")
    base_offset = verdict.segments[0].base_offset if verdict.segments else -1
    planned = Recovered(
        new_id, now_ms, reason, verdict.lost, torn_bytes, verdict.start_offset, verdict.end_offset,
        base_offset=base_offset)
    if before is None or (before.finished and verdict.marker != UNFINISHED):
        return planned  # with that marker it had come to its end, all but the marker's
    return msgspec.structs.replace(
        planned, id=before.id, at_ms=before.at_ms, reason=before.reason, finished=False, lost=merged([*before.lost, *verdict.lost]),
        torn_bytes=before.torn_bytes + torn_bytes)


def repair(
    disk: Disk, verdict: Verdict, planned: Recovered, config: LogConfig, *, now_ms: int,
    progress: Callable[[], None] = no_progress,
) -> Recovered:
    """Do what was planned. The directory must be locked, and `verdict` be of what is there now.

    Returns what `recovered.json` says now. Everything is on disk then.
    """
    directory = verdict.directory
    write_recovered(disk, directory, planned)
    leave_marker(disk, directory, UNFINISHED, durable=True)
    _cut(disk, verdict, progress)
    if verdict.is_damaged:
        damaged = [segment for segment in verdict.segments if segment.damages]
        for segment in damaged:
            _write_anew(disk, directory, segment, now_ms, progress)
        sync(disk, directories=(directory,))
        write_recovered(disk, directory, msgspec.structs.replace(planned, written=True))
        _put_in_place(disk, directory, [segment.base_offset for segment in damaged])
    if verdict.is_damaged or verdict.checkpoint == "missing":  # or this was begun, and came as far as that
        _set_strangers_aside(disk, verdict)
    done = msgspec.structs.replace(planned, finished=True, written=False)
    if verdict.segments or verdict.topic_id is not None:  # else the first flush of all failed, and the next start makes it
        # The checkpoint may be gone, and with it where records had been deleted to.
        log, report = recover(disk, directory, config, now_ms, progress, least_start=planned.start_offset)
        log.close()
        assert not report.cut, "everything torn was cut before"
        done = msgspec.structs.replace(done, start_offset=log.start_offset, end_offset=log.end_offset)
    write_recovered(disk, directory, done)
    remove_marker(disk, directory)
    return done


def go_on(disk: Disk, directory: Path) -> None:
    """To be called before `verify`: end the step in which a recovery by hand that was killed gave segments their names,
    and a swap of compaction.

    Nothing happens if there is none. The directory must be locked."""
    settle(disk, directory, find_checkpoint(disk, directory, owner_of(disk, directory))[0])
    begun = read_recovered(disk, directory)
    if begun is not None and begun.written and not begun.finished:
        names = [name for name in disk.list_directory(directory) if name.endswith(LOG_SUFFIX + TEMPORARY_SUFFIX)]
        _put_in_place(disk, directory, [int(name[:20]) for name in names])


def _cut(disk: Disk, verdict: Verdict, progress: Callable[[], None]) -> None:
    torn = verdict.torn
    if torn is None:
        return
    file = disk.open(segment_path(verdict.directory, torn.base_offset, LOG_SUFFIX), create=True)  # it may be missing
    try:
        cut_torn_tail(disk, verdict.directory, file, torn.position, torn.later, progress)
        sync(disk, file, directories=(verdict.directory,))
    finally:
        disk.close(file)


def _write_anew(
    disk: Disk, directory: Path, segment: SegmentVerdict, now_ms: int, progress: Callable[[], None]
) -> None:
    """The segment as it shall be, under a temporary name; and its damaged bytes, for whoever wants to look at them."""
    path = segment_path(directory, segment.base_offset, LOG_SUFFIX)
    target = disk.open(path.with_name(path.name + TEMPORARY_SUFFIX), create=True)
    source = disk.open(path) if disk.exists(path) else None
    try:
        disk.truncate(target, 0)
        end = 0
        parts: list[Stretch | Damage] = [*segment.stretches, *segment.damages]
        for part in sorted(parts, key=lambda part: (part.first_offset, part.position)):
            if isinstance(part, Stretch):
                assert source is not None
                end = _copy(disk, source, target, part, end, progress)
                continue
            if part.end_position > part.position:
                assert source is not None
                kept = path.with_name(f"{segment.base_offset:020d}.{part.position}{CUT_SUFFIX}")
                copy_bytes(disk, source, kept, part.position, part.end_position, progress)
            hole = _hole(segment, part.first_offset, part.end_offset, part.leader_epoch, now_ms)
            disk.pwritev(target, (hole,), end)
            end += len(hole)
        sync(disk, target)
    finally:
        disk.close(target)
        if source is not None:
            disk.close(source)


def _copy(
    disk: Disk, source: File, target: File, stretch: Stretch, end: int, progress: Callable[[], None]
) -> int:
    for position in range(stretch.position, stretch.end_position, CHUNK_BYTES):
        data = disk.pread(source, min(CHUNK_BYTES, stretch.end_position - position), position)
        disk.pwritev(target, (data,), end)
        end += len(data)
        progress()
    return end


def _hole(segment: SegmentVerdict, first_offset: int, end_offset: int, leader_epoch: int, now_ms: int) -> bytes:
    """Empty batches for offsets that are lost.

    They have no timestamp, but for a segment that has nothing else, which retention could not tell the age of.
    """
    timestamp = NO_TIMESTAMP
    if not segment.stretches:
        timestamp = segment.max_timestamp if segment.max_timestamp >= 0 else now_ms
    hole = b""
    while first_offset < end_offset:
        count = min(end_offset - first_offset, MAX_INT32)
        hole += empty_batch(first_offset, count, leader_epoch=leader_epoch, timestamp=timestamp)
        first_offset += count
    return hole


def _put_in_place(disk: Disk, directory: Path, base_offsets: list[int]) -> None:
    """From here on the old checkpoint would be wrong, and a snapshot of what is given up, so they go first."""
    for name in (CHECKPOINT_NAME, SNAPSHOT_NAME):
        if disk.exists(directory / name):
            disk.unlink(directory / name)
    sync(disk, directories=(directory,))
    for base_offset in base_offsets:
        path, *indexes = segment_paths(directory, base_offset)
        for index in filter(disk.exists, indexes):
            disk.unlink(index)
        disk.rename(path.with_name(path.name + TEMPORARY_SUFFIX), path)
    sync(disk, directories=(directory,))


def _set_strangers_aside(disk: Disk, verdict: Verdict) -> None:
    directory = verdict.directory
    for base_offset in verdict.strangers:
        path = segment_path(directory, base_offset, LOG_SUFFIX)
        # In front of the start it is one that retention had dropped.
        dropped = base_offset < verdict.start_offset
        disk.rename(path, path.with_name(path.name + DELETED_SUFFIX) if dropped else path.with_suffix(CUT_SUFFIX))
    sync(disk, directories=(directory,))
