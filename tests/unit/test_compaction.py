"""What compaction keeps, and where it may not go.

Kafka's documentation of log compaction, "What guarantees does log compaction provide?": any consumer that reads from the
start sees at least the last state of each key, in the order of writing; order and offsets never change; tombstones stay
for `delete.retention.ms`. KIP-58 (lags), KIP-354 (max lag), KIP-534 (delete horizon).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from tests.unit.compacted_log import (
    batch_of,
    compact,
    compacted_config,
    dirty_part,
    fill_with_keys,
    last_values,
    new_log,
    plan_pass,
    records_in,
)
from tests.unit.damaged_log import DIRECTORY, new_disk, snapshot
from tests.unit.log_tools import NOW_MS, append, flush, read_batches
from tests.unit.memory_disk import MemoryDisk
from zafka.storage.batch import read_header, with_records
from zafka.storage.cleaning import CHUNK_BYTES, Written, abandon, clean
from zafka.storage.compaction import ENTRY_BYTES, find_dirty, group_segments, is_hole
from zafka.storage.errors import CorruptLog
from zafka.storage.records import encode_batch
from zafka.storage.recovery import recover
from zafka.storage.segment import SegmentRow
from zafka.storage.swap import Replacement
from zafka.storage.verify import verify


def small_log(*pairs: tuple[bytes | None, bytes | None], **config: Any) -> Any:
    """A log with a record for each pair, all but the last in sealed segments of a batch each."""
    disk = new_disk()
    log = new_log(disk, compacted_config(segment_bytes=70, **config))
    for index, pair in enumerate(pairs):
        append(log, batch_of([pair], timestamp_ms=NOW_MS + index))
    flush(disk, log, log.checkpoint())
    log.high_watermark = log.end_offset
    return disk, log


def offsets_in(disk: MemoryDisk, log: Any) -> list[int]:
    return [record.offset for record in records_in(disk, log)]


# -- which part -----------------------------------------------------------------------------------


def rows(*sizes: int, timestamp_ms: int = 100) -> list[SegmentRow]:
    return [SegmentRow(10 * i, 10 * i + 10, size, 0, 0, timestamp_ms + i, 10 * i) for i, size in enumerate(sizes)]


def find(
    segments: list[SegmentRow], *, cleaned: int = 0, limit: int = 1000, now_ms: int = 1000, start: int = 0, first_ms: int = 90,
    **config: Any,
) -> Any:
    return find_dirty(
        segments, compacted_config(**config), start_offset=start, cleaned_offset=cleaned, limit_offset=limit, now_ms=now_ms,
        first_timestamp=lambda base_offset: first_ms + base_offset // 10)


def test_the_dirty_ratio_decides() -> None:
    half = find(rows(100, 100), cleaned=10)
    assert half.ratio == 0.5 and not half.is_due(compacted_config())
    assert half.is_due(compacted_config(min_cleanable_dirty_ratio=0.49))
    assert find(rows(100, 101), cleaned=10).is_due(compacted_config())
    assert not find(rows(100, 100), cleaned=20).is_due(compacted_config(min_cleanable_dirty_ratio=0.0))
    assert not find([]).is_due(compacted_config())


def test_no_segment_that_reaches_beyond_the_last_stable_offset() -> None:
    assert [row.base_offset for row in find(rows(1, 1, 1), limit=29).sources] == [0, 10]
    assert [row.base_offset for row in find(rows(1, 1, 1), limit=30).sources] == [0, 10, 20]


def test_min_compaction_lag_keeps_what_is_young() -> None:
    """Only of what is dirty: the clean part is cleaned along, whatever its age."""
    assert len(find(rows(1, 1, 1), now_ms=151, min_compaction_lag_ms=50).sources) == 2
    assert len(find(rows(1, 1, 1), now_ms=151, min_compaction_lag_ms=50, cleaned=30).sources) == 3
    assert len(find(rows(1, 1, 1, timestamp_ms=2**60), now_ms=0, min_compaction_lag_ms=0).sources) == 3


def test_max_compaction_lag_makes_it_due_whatever_the_ratio() -> None:
    config = {"min_cleanable_dirty_ratio": 1.0, "max_compaction_lag_ms": 50}
    assert not find(rows(1, 1), now_ms=140, **config).is_due(compacted_config(**config))
    assert find(rows(1, 1), now_ms=141, **config).is_due(compacted_config(**config)), "its first batch is of 90"
    assert not find(rows(1, 1), now_ms=141, cleaned=10, **config).is_due(compacted_config(**config)), "the old one is clean"
    for none in (-1, 0):
        assert not find(rows(1), first_ms=none, **config).is_due(compacted_config(**config)), "nobody knows how old it is"


def test_the_age_of_a_segment_is_that_of_its_first_batch() -> None:
    disk, log = small_log((b"a", b"1"), (b"b", b"1"), (b"z", b""))
    log.update_config(compacted_config(max_compaction_lag_ms=10, min_cleanable_dirty_ratio=1.0))
    assert not dirty_part(log, NOW_MS + 10).is_due(log.config) and dirty_part(log, NOW_MS + 11).is_due(log.config)
    compact(disk, log)
    assert not dirty_part(log, NOW_MS + 11).is_due(log.config)


def test_a_log_start_behind_the_cleaned_offset_counts() -> None:
    assert find(rows(1, 1, 1), cleaned=5, start=17).first_dirty == 17


@settings(deadline=None)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=20))
def test_groups_are_neighbours_in_order_and_not_too_large(sizes: list[int]) -> None:
    segments = rows(*sizes)
    groups = group_segments(segments, 100)
    assert [row for group in groups for row in group] == segments
    assert all(sum(row.size_bytes for row in group) <= 100 for group in groups)
    for group, following in itertools.pairwise(groups):
        assert sum(row.size_bytes for row in group) + following[0].size_bytes > 100


def test_a_group_spans_no_more_offsets_than_an_index_can_say() -> None:
    far = [SegmentRow(0, 10, 1, 0, 0, -1, -1), SegmentRow(10, 2**31 + 10, 1, 0, 0, -1, -1)]
    assert len(group_segments(far, 100)) == 2


# -- what stays -----------------------------------------------------------------------------------


def test_the_last_value_of_each_key_stays_where_it_was() -> None:
    disk, log = small_log((b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"c", b"1"), (b"b", b"2"), (b"z", b""))
    compact(disk, log)
    assert [(r.offset, r.key, r.value) for r in records_in(disk, log)] == [
        (2, b"a", b"2"), (3, b"c", b"1"), (4, b"b", b"2"), (5, b"z", b"")]
    assert log.end_offset == 6 and log.swap.cleaned_offset == 5


def test_the_active_segment_is_neither_cleaned_nor_does_it_count() -> None:
    disk, log = small_log((b"a", b"1"), (b"b", b"1"), (b"a", b"2"))
    compact(disk, log)
    assert offsets_in(disk, log) == [0, 1, 2], "offset 2 is in the active segment"


def test_nothing_at_or_above_the_high_watermark_makes_anything_go() -> None:
    disk, log = small_log((b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"z", b""))
    compact(disk, log, limit_offset=2)
    assert offsets_in(disk, log) == [0, 1, 2, 3]
    compact(disk, log)
    assert offsets_in(disk, log) == [1, 2, 3]


def test_a_tombstone_stays_for_delete_retention_after_the_pass_that_saw_it_first() -> None:
    disk, log = small_log((b"a", b"1"), (b"a", None), (b"z", b""), delete_retention_ms=1000)
    compact(disk, log, now_ms=NOW_MS + 5000)
    (tombstone, _) = records_in(disk, log)
    assert (tombstone.offset, tombstone.key, tombstone.value, tombstone.timestamp) == (1, b"a", None, NOW_MS + 1)
    compact(disk, log, now_ms=NOW_MS + 5999)
    assert offsets_in(disk, log) == [1, 2]
    compact(disk, log, now_ms=NOW_MS + 6000)
    assert offsets_in(disk, log) == [2]


def test_a_tombstone_that_is_not_in_the_cleaned_part_yet_gets_no_horizon() -> None:
    disk, log = small_log((b"a", b"1"), (b"b", b"1"), (b"b", b"2"), (b"a", None), (b"z", b""))
    compact(disk, log, limit_offset=3)
    compact(disk, log, now_ms=NOW_MS + 10_000)
    assert [(record.offset, record.value) for record in records_in(disk, log)] == [(2, b"2"), (3, None), (4, b"")]


def test_records_without_a_key_go() -> None:
    """They may be there from when the topic was not compacted. Kafka counts them as invalid and drops them."""
    disk, log = small_log((None, b"1"), (b"a", b"1"), (b"z", b""))
    compact(disk, log)
    assert offsets_in(disk, log) == [1, 2]


def test_long_keys_are_told_apart() -> None:
    long = [b"k" * 40 + b"%d" % i for i in range(3)]
    disk, log = small_log(*[(key, b"1") for key in long], (long[1], b"2"), (b"k" * 16, b"x"), (b"z", b""))
    compact(disk, log)
    assert offsets_in(disk, log) == [0, 2, 3, 4, 5]


def test_where_whole_batches_go_an_empty_one_says_so() -> None:
    disk, log = small_log(*[(b"a", b"%d" % i) for i in range(6)], (b"z", b""), segment_ms=10**9)
    compact(disk, log)
    headers = [header for header, _ in read_batches(disk, log)]
    assert [(h.base_offset, h.next_offset, h.record_count) for h in headers[:2]] == [(0, 1, 0), (1, 2, 0)], "one a segment"
    log.update_config(compacted_config(segment_bytes=1000))
    compact(disk, log)
    hole, kept, _ = headers = [header for header, _ in read_batches(disk, log)]
    assert (hole.base_offset, hole.next_offset) == (0, 5) and is_hole(hole) and kept.base_offset == 5
    assert not verify(disk, DIRECTORY).segments[0].given_up


def test_holes_keep_the_leader_epochs_apart() -> None:
    disk = new_disk()
    log = new_log(disk, compacted_config(segment_bytes=1000))
    for epoch in (0, 0, 3, 3, 5):
        append(log, batch_of([(b"a", b"x" * 170)]), leader_epoch=epoch)
    append(log, *[batch_of([(b"a", b"y" * 600)])] * 2, leader_epoch=5)
    flush(disk, log, log.checkpoint())
    log.high_watermark = log.end_offset
    compact(disk, log)
    found = [(h.leader_epoch, h.base_offset, h.next_offset) for h, _ in read_batches(disk, log)]
    assert found[:3] == [(0, 0, 2), (3, 2, 4), (5, 4, 5)]
    assert verify(disk, DIRECTORY).is_sound


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**20), keys=st.integers(1, 20), buffer=st.integers(1, 12))
def test_any_log_any_memory(seed: int, keys: int, buffer: int) -> None:
    """However little memory there is for keys, passes end, get on, and lose nothing."""
    disk = new_disk()
    log = new_log(disk, compacted_config())
    fill_with_keys(disk, log, seed, keys=keys)
    before, raw = last_values(records_in(disk, log)), records_in(disk, log)
    producers = log.producers.snapshot()
    for number in range(1000):
        cleaned = log.swap.cleaned_offset
        compact(disk, log, NOW_MS + 2000 * number, buffer_bytes=buffer * ENTRY_BYTES)
        assert last_values(records_in(disk, log)) == before
        if log.swap.cleaned_offset == cleaned:
            break
    assert not dirty_part(log).ratio
    left = records_in(disk, log)
    assert [record for record in raw if record in left] == left, "order, offsets, timestamps and values stay"
    sealed = [record.key for record in left if record.offset < log.segments[-1].base_offset]
    assert len(sealed) == len(set(sealed)), "one record a key is left in the cleaned part"
    assert log.producers.snapshot() == producers
    check_whole(disk, log)


def check_whole(disk: MemoryDisk, log: Any) -> None:
    """The files are right in every way, as they are and after a power cut."""
    verdict = verify(disk, DIRECTORY)
    assert verdict.is_sound and not verdict.torn and not verdict.strangers
    assert not any(segment.notes or segment.given_up for segment in verdict.segments)
    names = {name for name in snapshot(disk) if name.endswith((".cleaned", ".swap"))}
    assert not names
    held = records_in(disk, log)
    for record in held:
        assert log.locate(record.offset, 1, log.end_offset).length
        found = log.offset_for_timestamp(record.timestamp)
        assert found == next((r.timestamp, r.offset, found.leader_epoch) for r in held if r.timestamp >= record.timestamp)
    *sealed, active = log.segments
    assert all(segment.sealed for segment in sealed) and not active.sealed
    assert all((segment.time_index.last() or (-1, 0))[0] == segment.max_timestamp for segment in sealed)
    disk.power_cut()
    again, report = recover(disk, DIRECTORY, log.config, NOW_MS)
    assert records_in(disk, again) == held and not report.changed


# -- sequences and headers ------------------------------------------------------------------------


@pytest.mark.parametrize("producer_id", [0, 7])
def test_the_last_batch_of_a_producer_stays_as_an_empty_one(producer_id: int) -> None:
    """Also a start without a checkpoint then finds out what the producer has sent."""
    disk = new_disk()
    log = new_log(disk, compacted_config(segment_bytes=1000))
    for sequence in (0, 2):
        pairs = [(b"a", b"x" * 300), (b"b", b"x" * 100)]
        append(log, batch_of(pairs, producer_id=producer_id, producer_epoch=3, base_sequence=sequence))
    append(log, *[batch_of([(key, b"y" * 300)]) for key in (b"a", b"b", b"c", b"d")])
    flush(disk, log, log.checkpoint())
    log.high_watermark = log.end_offset
    compact(disk, log)
    first, second, *_ = [header for header, _ in read_batches(disk, log)]
    assert is_hole(first) and (second.base_offset, second.last_offset) == (2, 3)
    assert (second.record_count, second.producer_id, second.producer_epoch, second.base_sequence) == (0, producer_id, 3, 2)
    disk.unlink(DIRECTORY / "recovery-checkpoint")
    disk.crash()
    again, _ = recover(disk, DIRECTORY, log.config, NOW_MS)
    producer = again.producers.get(producer_id)
    assert producer is not None and (producer.epoch, producer.last_sequence) == (3, 3)
    # It goes as well, once the producer has sent more.
    following = batch_of([(b"e", b"")], producer_id=producer_id, producer_epoch=3, base_sequence=4)
    append(again, following)
    append(again, *[batch_of([(b"f", b"y" * 800)])] * 2)
    flush(disk, again, again.checkpoint())
    again.high_watermark = again.end_offset
    compact(disk, again)
    assert all(header.producer_id < 0 or header.base_sequence == 4 for header, _ in read_batches(disk, again))


def test_headers_stay() -> None:
    disk = new_disk()
    log = new_log(disk, compacted_config(segment_bytes=400))
    headers = (("name", b"value"), ("none", None))
    data = memoryview(encode_batch([(NOW_MS, b"a", b"1", headers), (NOW_MS, b"b", None, headers), (NOW_MS, b"a", b"2", headers)]))
    append(log, (read_header(data), data))
    append(log, *[batch_of([(b"z", b"z" * 300)])] * 2)
    flush(disk, log, log.checkpoint())
    log.high_watermark = log.end_offset
    compact(disk, log)
    assert [tuple(record.headers) for record in records_in(disk, log)[:2]] == [headers, headers]


# -- damage, and what changes meanwhile -----------------------------------------------------------


@pytest.mark.parametrize("position", [7, 66])
def test_damage_ends_the_pass_and_nothing_changes(position: int) -> None:
    """Also to a batch's offset, which no CRC covers."""
    disk, log = small_log(*[(b"a", b"%d" % i) for i in range(6)])
    disk.flip_bit(log.segments[2].path, position)
    before = {name: data for name, data in snapshot(disk).items() if not name.endswith(".cleaned")}
    wanted = plan_pass(log)
    with pytest.raises(CorruptLog, match="no whole batch with offset 2"):
        list(clean(disk, wanted))
    abandon(disk, wanted)
    assert snapshot(disk) == before


@pytest.mark.parametrize("what, why", [
    ("cut", "no whole batch with offset 2"), ("short", "the segment ends at offset 3, not 4")])
def test_a_segment_that_is_not_what_the_log_says_of_it_ends_the_pass(what: str, why: str) -> None:
    """Its last batch is not all there, or missing though nothing is torn."""
    disk, log = small_log(*[(b"a", b"%d" % i) for i in range(6)])
    wanted = plan_pass(log)
    source = wanted.sources[2]
    if what == "cut":
        disk.write(log.segments[2].path, disk.read(log.segments[2].path)[:-1])
    else:
        wanted.sources[2] = source._replace(end_offset=source.end_offset + 1)
    with pytest.raises(CorruptLog, match=why):
        list(clean(disk, wanted))


def test_batches_that_are_larger_than_what_is_read_at_once() -> None:
    """Alone, and where one begins behind small ones."""
    disk = new_disk()
    log = new_log(disk, compacted_config(segment_bytes=4 * CHUNK_BYTES))
    values = [bytes([65 + i]) * size for i, size in enumerate(
        (2 * CHUNK_BYTES, 10, CHUNK_BYTES, 10, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 10, 10))]
    pairs = [(b"%d" % (i % 3), value) for i, value in enumerate(values)]
    for pair in pairs:
        append(log, batch_of([pair]))
    append(log, *[batch_of([(b"z", b"z" * CHUNK_BYTES)])] * 4)  # what is before is sealed
    flush(disk, log, log.checkpoint())
    log.high_watermark = log.end_offset
    compact(disk, log)
    assert log.swap.cleaned_offset >= len(pairs)
    kept = [(record.offset, record.key, record.value) for record in records_in(disk, log) if record.key != b"z"]
    assert kept == [(offset, *pairs[offset]) for offset in (5, 6, 7)]


def test_a_batch_that_does_not_decode_stays() -> None:
    """A client may have written anything behind a good header, before the topic was compacted."""
    disk = new_disk()
    log = new_log(disk, compacted_config(segment_bytes=200))
    header, _ = batch_of([(b"a", b"1")])
    nonsense = memoryview(with_records(
        header, b"\1" * 30, record_count=1, attributes=0, base_timestamp=NOW_MS, max_timestamp=NOW_MS))
    append(log, batch_of([(b"a", b"1")]), (read_header(nonsense), nonsense), batch_of([(b"a", b"2")]))
    append(log, *[batch_of([(b"z", b"z" * 100)])] * 2)
    flush(disk, log, log.checkpoint())
    log.high_watermark = log.end_offset
    compact(disk, log)
    assert [(header.base_offset, header.record_count) for header, _ in read_batches(disk, log)][:3] == [(0, 0), (1, 1), (2, 1)]


def test_a_batch_that_does_not_decode_is_not_looked_at_for_ever() -> None:
    disk = new_disk()
    log = new_log(disk, compacted_config(segment_bytes=100))
    header, _ = batch_of([(b"a", b"1")])
    nonsense = memoryview(with_records(
        header, b"\1" * 30, record_count=1, attributes=0, base_timestamp=NOW_MS, max_timestamp=NOW_MS))
    append(log, (read_header(nonsense), nonsense), batch_of([(b"z", b"z")]))
    flush(disk, log, log.checkpoint())
    log.high_watermark = log.end_offset
    compact(disk, log)
    assert log.swap.cleaned_offset == 1 and not dirty_part(log).ratio


def test_what_is_clean_is_not_written_again() -> None:
    """Nor is a segment whose only batch is a hole, once the hole is there."""
    disk, log = small_log(*[(b"a", b"%d" % i) for i in range(4)])
    compact(disk, log)
    steps = [step.replacement for step in clean(disk, plan_pass(log)) if isinstance(step, Written)]
    assert len(steps) == 3 and all(each.row is None for each in steps)
    assert not [name for name in snapshot(disk) if name.endswith(".cleaned")]


def test_all_that_a_pass_has_written_is_taken_away_with_it() -> None:
    disk, log = small_log(*[(b"a", b"%d" % i) for i in range(4)])
    wanted, before = plan_pass(log), snapshot(disk)
    steps = clean(disk, wanted)
    first, second = itertools.islice((step for step in steps if isinstance(step, Written)), 2)
    steps.close()
    assert first.replacement.row and second.replacement.row and len(snapshot(disk)) == len(before) + 6
    abandon(disk, wanted)
    assert snapshot(disk) == before


def written(disk: MemoryDisk, log: Any) -> Written:
    for step in clean(disk, plan_pass(log)):
        if isinstance(step, Written) and step.replacement.row is not None:
            for file in step.files:
                disk.fdatasync(file)
            return step
    raise AssertionError("nothing was to be replaced")


def drop_the_oldest(log: Any) -> None:
    log.update_config(compacted_config(retention_bytes=200, retention_ms=-1))
    assert log.apply_retention(NOW_MS, log.end_offset)


def test_a_replacement_is_for_neighbours_that_are_all_there() -> None:
    replacement = Replacement(None, (10, 20), -1)
    assert replacement.of(rows(1, 1, 1)) == 1
    assert [replacement.of(there) for there in (rows(1, 1), rows(1, 1, 1)[2:], rows(1, 1, 1, 1)[1::2], [])] == [-1] * 4


def test_retention_is_faster() -> None:
    disk, log = small_log(*[(b"a", b"%d" % i) for i in range(8)])
    step = written(disk, log)
    drop_the_oldest(log)
    assert not log.replace(step.replacement)
    while log.flush_due:
        flush(disk, log)
    assert not any(name.endswith((".cleaned", ".swap")) for name in snapshot(disk))


def test_retention_between_the_offer_and_the_checkpoint() -> None:
    disk, log = small_log(*[(b"a", b"%d" % i) for i in range(8)])
    assert log.replace(written(disk, log).replacement)
    drop_the_oldest(log)
    flush(disk, log)
    assert not log.swap.is_wanted and not any(name.endswith((".cleaned", ".swap")) for name in snapshot(disk))


def test_retention_while_the_checkpoint_is_written_waits() -> None:
    disk, log = small_log(*[(b"a", b"%d" % i) for i in range(8)])
    assert log.replace(written(disk, log).replacement)
    begun = log.begin_flush()
    log.update_config(compacted_config(retention_bytes=200, retention_ms=-1))
    assert not log.apply_retention(NOW_MS, log.end_offset)
    flush(disk, log, begun)
    assert not log.swap.is_wanted and log.apply_retention(NOW_MS, log.end_offset)


def test_no_swap_begins_before_the_last_one_is_at_its_end() -> None:
    disk, log = small_log(*[(b"a", b"%d" % i) for i in range(8)])
    assert log.replace(written(disk, log).replacement)
    flush(disk, log)
    assert not log.swap.is_wanted and log.flush_due, "a checkpoint still names the swap"
    again = written_as_it_is(disk, log)
    assert not log.replace(again.replacement)
    assert not any(name.endswith((".cleaned", ".swap")) for name in snapshot(disk))


def written_as_it_is(disk: MemoryDisk, log: Any) -> Written:
    log.update_config(compacted_config(segment_bytes=10_000))
    return written(disk, log)


def test_a_full_disk_puts_the_swap_off() -> None:
    disk, log = small_log(*[(b"a", b"%d" % i) for i in range(8)])
    assert log.replace(written(disk, log).replacement)
    disk.room_bytes = 0
    flush(disk, log)
    assert log.checkpoint_error is not None and log.swap.is_wanted and not log.swap.in_flight
    disk.room_bytes = None
    log.want_checkpoint()
    while log.flush_due:
        flush(disk, log)
    assert not log.swap.is_wanted
    check_whole(disk, log)


def test_a_start_that_finds_the_disk_full_goes_on_with_the_swap_first() -> None:
    """Its checkpoint still names the swap; what another one would put in place does not fit that."""
    disk, log = small_log(*[(b"a", b"%d" % i) for i in range(8)])
    assert log.replace(written(disk, log).replacement)
    flush(disk, log)
    disk.crash()
    disk.room_bytes = 0
    log, _ = recover(disk, DIRECTORY, log.config, NOW_MS)
    log.high_watermark = log.end_offset
    assert not log.swap.is_settled
    disk.room_bytes = None
    assert not log.replace(written_as_it_is(disk, log).replacement)
    disk.power_cut()
    log, report = recover(disk, DIRECTORY, log.config, NOW_MS)
    assert log.swap.is_settled and not report.warnings
    check_whole(disk, log)


def test_a_start_that_finds_more_in_the_log_knows_what_is_clean() -> None:
    disk, log = small_log(*[(b"a", b"%d" % i) for i in range(4)])
    compact(disk, log)
    append(log, batch_of([(b"a", b"4")]))
    for changed in (True, False):
        disk.crash()
        again, report = recover(disk, DIRECTORY, log.config, NOW_MS)
        assert (again.swap.cleaned_offset, again.end_offset, report.changed) == (3, 5, changed)


def test_a_reader_in_the_old_file_reads_on_and_then_asks_again() -> None:
    disk, log = small_log(*[(b"a", b"%d" % i) for i in range(8)])
    old = log.locate(0, 1, log.end_offset)
    file = disk.open(log.segments[0].path)
    data = disk.pread(file, old.length, old.position)
    compact(disk, log)
    assert disk.pread(file, old.length, old.position) == data
    new = log.locate(0, 1, log.end_offset)
    assert new.inode != old.inode and disk.open(log.segments[0].path).inode == new.inode


def test_the_newest_timestamp_is_found_where_compaction_took_the_record_that_had_it() -> None:
    disk, log = small_log((b"a", b"1"), (b"b", b"1"), (b"b", b"2"), (b"z", b""))
    for wanted, found in ((NOW_MS, 0), (NOW_MS + 1, 2), (NOW_MS + 3, 3)):
        compact(disk, log)
        assert log.offset_for_timestamp(wanted).offset == found


def test_what_only_compaction_left_grows_old() -> None:
    """With both policies, a segment of nothing but holes goes when what was in it would have gone."""
    disk, log = small_log(*[(b"a", b"%d" % i) for i in range(4)])
    compact(disk, log)
    assert [segment.max_timestamp for segment in log.segments] == [NOW_MS + i for i in range(4)]
    log.update_config(compacted_config(segment_bytes=2 * log.segments[0].size_bytes))
    compact(disk, log)
    assert [segment.max_timestamp for segment in log.segments] == [NOW_MS + i for i in (1, 2, 3)], "the newest of a group"


TRIALS: list[Callable[[Any], object]] = [lambda log: log.checkpoint(), lambda log: log.begin_flush()]


@pytest.mark.parametrize("flush_of", TRIALS)
def test_appends_go_on_while_a_swap_is_on_its_way(flush_of: Callable[[Any], Any]) -> None:
    disk, log = small_log(*[(b"a", b"%d" % i) for i in range(5)])
    assert log.replace(written(disk, log).replacement)
    wanted = flush_of(log)
    append(log, batch_of([(b"q", b"1")]))
    flush(disk, log, wanted)
    while log.flush_due:
        flush(disk, log)
    flush(disk, log)
    assert records_in(disk, log)[-1].key == b"q" and not log.swap.is_wanted
    check_whole(disk, log)
