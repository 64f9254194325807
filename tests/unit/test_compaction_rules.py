"""What is taken of keys and what stays of a batch: the rules of compaction, without a log.

Source: Kafka Cleaner.buildOffsetMapForSegment, MemoryRecords.filterTo; KIP-534 (delete horizon).
"""

from __future__ import annotations

import hashlib

import pytest

from tests.unit.compacted_log import batch_of
from tests.unit.log_tools import NOW_MS
from zafka.storage.batch import (
    DELETE_HORIZON_FLAG,
    BatchHeader,
    crc_fits,
    empty_batch,
    read_header,
    with_log_append_time,
    with_records,
)
from zafka.storage.compaction import ENTRY_BYTES, OffsetMap, Rules, kept_of
from zafka.storage.errors import BadBatch
from zafka.storage.records import Record, decode_batch, encode_varint

LONG = b"k" * 40


def at(offset: int, *pairs: tuple[bytes | None, bytes | None], **more: int) -> tuple[memoryview, BatchHeader]:
    """A batch whose first record has this offset."""
    header, data = batch_of(pairs, **more)
    return data, header._replace(base_offset=offset)


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first_dirty", [0, 10])
def test_memory_is_for_so_many_keys_and_a_batch_is_taken_whole_or_not_at_all(first_dirty: int) -> None:
    offsets = OffsetMap(first_dirty, 2 * ENTRY_BYTES)
    assert offsets.take(*at(first_dirty, (b"a", b"")))
    assert not offsets.take(*at(first_dirty + 1, (b"b", b""), (b"c", b"")))
    assert offsets.highest(b"b") == -1 and offsets.end_offset == first_dirty + 1
    assert offsets.take(*at(first_dirty + 1, (b"b", b""), (b"a", b""))), "it is full"
    assert not offsets.take(*at(first_dirty + 3, (b"c", b"")))
    assert offsets.take(*at(first_dirty + 3, (b"a", b""))), "what is known takes no room"
    assert [offsets.highest(key) - first_dirty for key in (b"a", b"b")] == [3, 1]


@pytest.mark.parametrize("buffer_bytes", [0, ENTRY_BYTES])
def test_the_first_batch_is_taken_however_little_memory_there_is(buffer_bytes: int) -> None:
    offsets = OffsetMap(0, buffer_bytes)
    assert offsets.take(*at(0, (b"a", b""), (b"b", b""))) and offsets.end_offset == 2
    assert not offsets.take(*at(2, (b"c", b"")))


def test_keys_are_gathered_from_the_first_dirty_offset_on_and_nothing_below_is_decoded() -> None:
    offsets = OffsetMap(10, 1 << 20)
    _, header = at(8, (b"a", b""), (b"b", b""))
    assert offsets.take(memoryview(b"?" * 80), header) and offsets.end_offset == 10
    assert offsets.take(*at(9, (b"a", b""), (b"b", b"")))
    assert (offsets.highest(b"a"), offsets.highest(b"b"), offsets.end_offset) == (-1, 10, 11)


def test_no_short_key_is_taken_for_a_long_one() -> None:
    """Its digest is no secret: a key of just these bytes is another key."""
    offsets = OffsetMap(0, 1 << 20)
    offsets.take(*at(0, (LONG, b"")))
    assert offsets.highest(LONG) == 0
    assert offsets.highest(hashlib.blake2b(LONG, digest_size=16).digest()) == -1


def body_of(*records: tuple[int, int, int], rest: bytes = b"") -> bytes:
    """Of each record its offset delta, and how long it says that its key, which is "key", and it itself are beyond what they are."""
    body = b""
    for delta, key, whole in records:
        record = bytes(2) + encode_varint(delta) + encode_varint(3 + key) + b"key" + b"\1\0"
        body += encode_varint(len(record) + whole) + record
    return body + rest


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (body_of((1, 0, 0), (1, 0, 0)), "record 1 follows record 1"),
        (body_of((1, 0, 0), (0, 0, 0)), "record 0 follows record 1"),
        (body_of((0, 0, 0), (10, 0, 0)), "record 10 follows record 0"),
        (body_of((0, -5, 0), (1, 0, 0)), "record 0 follows record -1"),
        (body_of((0, 4, 0), (1, 0, 0)), "record 0 follows record -1"),
        (body_of((0, 0, 0), (1, 0, 3)), "record 1 follows record 0"),
        (body_of((0, 0, 0), (1, 0, 0), rest=b"?"), "do not end where the batch does"),
        (body_of((0, 0, 99), (1, 0, 0)), "record 0 follows record -1"),
    ],
)
def test_nothing_is_taken_of_a_batch_whose_records_cannot_be(body: bytes, what: str) -> None:
    """A key that is told of an offset behind its batch would take another record away; it is the client that says it."""
    header, _ = batch_of([(b"", b"")] * 2)
    data = with_records(header, body, record_count=2, attributes=0, base_timestamp=0, max_timestamp=0)
    offsets = OffsetMap(0, 1 << 20)
    with pytest.raises(BadBatch, match=what):
        offsets.take(memoryview(data), read_header(data))
    assert (offsets.highest(b"key"), offsets.end_offset) == (-1, 0)


# -- batches ---------------------------------------------------------------------------------------


def rules(
    offsets: OffsetMap | None = None, *, now_ms: int = NOW_MS, end_offset: int = 1000, last_offsets: dict[int, int] | None = None
) -> Rules:
    offsets = offsets or OffsetMap(0, 1 << 20)
    offsets.end_offset = end_offset
    return Rules(offsets, last_offsets or {}, now_ms, 1000)


def test_a_control_batch_stays_byte_for_byte() -> None:
    header, data = batch_of([(b"\0\0\0\1", b"\0" * 6)], producer_id=4, producer_epoch=0, base_sequence=0)
    control = memoryview(with_records(
        header, data[61:], record_count=1, attributes=0x30, base_timestamp=NOW_MS, max_timestamp=NOW_MS))
    marker = read_header(control)
    offsets = OffsetMap(0, 1 << 20)
    assert offsets.take(control, marker) and offsets.end_offset == 1
    assert offsets.highest(b"\0\0\0\1") == -1, "a marker's key is no key"
    assert kept_of(control, marker, rules(offsets)) is control


@pytest.mark.parametrize("codec", range(5))
def test_what_stays_of_a_batch_is_as_it_was(codec: int) -> None:
    pairs = [(b"a", b"1"), (b"b", None), (b"c", b"3" * 300), (b"", b"4")]
    header, data = batch_of(pairs, codec=codec, timestamp_ms=NOW_MS - 10**9, producer_id=5, producer_epoch=1, base_sequence=70)
    offsets = OffsetMap(0, 1 << 20)
    assert offsets.take(data, header)
    offsets.take(*at(500, (b"a", b"later")))
    kept = kept_of(data, header, rules(offsets))
    assert kept is not None
    after = read_header(kept)
    assert crc_fits(memoryview(kept), 0, after) and len(kept) == after.size_bytes and after.codec == codec
    assert after.delete_horizon_ms == NOW_MS + 1000
    assert (after.producer_id, after.producer_epoch, after.base_sequence) == (5, 1, 70)
    assert (after.last_offset_delta, after.record_count, after.max_timestamp) == (3, 3, header.max_timestamp)
    assert decode_batch(kept, after) == decode_batch(data, header)[1:]


def test_log_append_time_stays() -> None:
    _, data = batch_of([(b"a", b"1"), (b"b", b"2")])
    stamped = memoryview(with_log_append_time(data, NOW_MS + 77))
    offsets = OffsetMap(0, 1 << 20)
    assert offsets.take(stamped, read_header(stamped))
    offsets.take(*at(500, (b"a", b"later")))
    kept = kept_of(stamped, read_header(stamped), rules(offsets))
    assert kept is not None
    assert decode_batch(kept, read_header(kept)) == [Record(1, NOW_MS + 77, b"b", b"2", ())]


def test_what_memory_did_not_reach_stays_byte_for_byte() -> None:
    """Not looked at: records without a key and tombstones neither go nor begin to go."""
    header, data = batch_of([(None, b"1"), (b"a", None)])
    assert kept_of(data, header, rules(end_offset=0)) is data
    assert kept_of(data, header, rules(end_offset=1)) is not data


@pytest.mark.parametrize(("attributes", "stays"), [(0, True), (DELETE_HORIZON_FLAG, False)])
def test_what_was_given_up_is_said_for_ever_and_what_compaction_took_goes_into_the_next_hole(attributes: int, stays: bool) -> None:
    data = memoryview(empty_batch(5, 3, leader_epoch=0, attributes=attributes))
    assert kept_of(data, read_header(data), rules()) is (data if stays else None)


@pytest.mark.parametrize("codec", [0, 1])
def test_an_empty_batch_for_a_sequence_is_neither_compressed_nor_of_any_horizon(codec: int) -> None:
    """Readers would decompress nothing, and the next pass would take it for a hole."""
    header, data = batch_of([(b"a", b"1"), (b"b", None)], codec=codec, producer_id=0, producer_epoch=1, base_sequence=70)
    kept = kept_of(data, header, rules())
    assert kept is not None and read_header(kept).delete_horizon_ms is not None
    offsets = OffsetMap(0, 1 << 20)
    offsets.take(*at(500, (b"a", b"later"), (b"b", b"later")))
    last = rules(offsets, last_offsets={0: 1})
    empty = kept_of(memoryview(kept), read_header(kept), last)
    assert empty is not None
    after = read_header(empty)
    assert (after.record_count, after.codec, after.delete_horizon_ms, len(empty)) == (0, 0, None, 61)
    assert after.base_timestamp == after.max_timestamp == header.max_timestamp
    assert (after.last_offset, after.producer_id, after.producer_epoch, after.base_sequence) == (1, 0, 1, 70)
    assert kept_of(memoryview(empty), after, last) == empty
