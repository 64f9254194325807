"""The 61 bytes before the records: read, checked as a broker checks what clients send, and rewritten."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from crc32c import crc32c

from zafka.storage import batch, errors
from zafka.storage.batch import BatchHeader, check_batch, read_header, walk
from zafka.storage.records import decode_batch, encode_batch

LIMIT = 1_000_000


def make(count: int = 3, **options: Any) -> bytes:
    return encode_batch([(1000 + i, b"key", b"value %d" % i, ()) for i in range(count)], **options)


def changed(data: bytes, **fields: int) -> memoryview:
    """The batch with other header fields, and a CRC that fits them."""
    header = read_header(data)._replace(**fields)
    crc_free = batch.HEADER.pack(*header)[batch.CRC_START :] + data[batch.HEADER_BYTES :]
    return memoryview(batch.HEADER.pack(*header._replace(crc=crc32c(crc_free))) + data[batch.HEADER_BYTES :])


def test_header_names_what_the_bytes_say() -> None:
    data = make(producer_id=7, producer_epoch=2, base_sequence=40, codec=3, transactional=True)
    header = read_header(changed(data, base_offset=100, leader_epoch=5))
    assert header.size_bytes == len(data)
    assert (header.base_offset, header.last_offset, header.next_offset) == (100, 102, 103)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 2, 40)
    assert (header.base_timestamp, header.max_timestamp, header.record_count) == (1000, 1002, 3)
    assert (header.codec, header.is_transactional, header.is_control) == (3, True, False)
    assert header.timestamp_type == batch.CREATE_TIME
    assert header.leader_epoch == 5


def test_header_is_read_at_a_position() -> None:
    data = make()
    assert read_header(b"12345" + data, 5) == read_header(data)


@pytest.mark.parametrize("length", [0, 1, 16, 17, 60])
def test_header_cut_short_is_corrupt(length: int) -> None:
    with pytest.raises(errors.CorruptBatch):
        read_header(make()[:length])


@pytest.mark.parametrize("batch_length", [48, 0, -1, -(2**31)])
def test_length_that_no_batch_has_is_corrupt(batch_length: int) -> None:
    with pytest.raises(errors.CorruptBatch):
        read_header(changed(make(), batch_length=batch_length))


def test_zeros_are_corrupt_or_old() -> None:
    with pytest.raises(errors.BadBatch):
        read_header(bytes(100))


@pytest.mark.parametrize("magic", [0, 1, 3, -1])
def test_other_message_formats_are_named(magic: int) -> None:
    with pytest.raises(errors.UnsupportedMagic) as caught:
        check_batch(changed(make(), magic=magic), max_bytes=LIMIT)
    assert caught.value.kafka_error == errors.UNSUPPORTED_FOR_MESSAGE_FORMAT


def test_short_message_of_the_old_format_is_named_too() -> None:
    """A message v1 with an empty value is shorter than the header of a batch v2."""
    message = struct.pack(">qiIbbqii", 0, 22, 0, 1, 0, 0, -1, -1)
    assert len(message) < batch.HEADER_BYTES
    with pytest.raises(errors.UnsupportedMagic):
        check_batch(memoryview(message), max_bytes=LIMIT)


@pytest.mark.parametrize("codec", range(5))
def test_batch_of_a_client_is_accepted(codec: int) -> None:
    data = memoryview(make(codec=codec, producer_id=1, producer_epoch=0, base_sequence=0))
    assert check_batch(data, max_bytes=LIMIT) == read_header(data)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"base_offset": 1}, errors.INVALID_RECORD),
        ({"record_count": 0}, errors.INVALID_RECORD),
        ({"record_count": 2}, errors.INVALID_RECORD),
        ({"record_count": -1, "last_offset_delta": -2}, errors.INVALID_RECORD),
        ({"record_count": 0, "last_offset_delta": -1}, errors.INVALID_RECORD),
        ({"attributes": batch.CONTROL_FLAG}, errors.INVALID_RECORD),
        ({"attributes": batch.LOG_APPEND_TIME_FLAG}, errors.INVALID_TIMESTAMP),
        ({"attributes": 5}, errors.UNSUPPORTED_COMPRESSION_TYPE),
        ({"attributes": 7}, errors.UNSUPPORTED_COMPRESSION_TYPE),
        ({"attributes": batch.TRANSACTIONAL_FLAG}, errors.INVALID_RECORD),
        ({"producer_id": 4, "producer_epoch": 0, "base_sequence": -1}, errors.INVALID_RECORD),
        ({"producer_id": 4, "producer_epoch": -1, "base_sequence": 0}, errors.INVALID_RECORD),
        ({"batch_length": 10_000}, errors.INVALID_RECORD),
    ],
)
def test_what_a_client_may_not_say_is_refused(fields: dict[str, int], error: int) -> None:
    with pytest.raises(errors.BadBatch) as caught:
        check_batch(changed(make(), **fields), max_bytes=LIMIT)
    assert caught.value.kafka_error == error
    assert str(caught.value)


def test_two_batches_in_one_are_refused() -> None:
    with pytest.raises(errors.InvalidBatch, match="exactly one batch"):
        check_batch(memoryview(make() * 2), max_bytes=LIMIT)


def test_size_limit_is_the_whole_batch() -> None:
    data = memoryview(make())
    check_batch(data, max_bytes=len(data))
    with pytest.raises(errors.BatchTooLarge) as caught:
        check_batch(data, max_bytes=len(data) - 1)
    assert caught.value.kafka_error == errors.MESSAGE_TOO_LARGE


def test_every_flipped_bit_that_the_crc_covers_is_found() -> None:
    data = make(1)
    for bit in range(8 * batch.CRC_POSITION, 8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(errors.CorruptBatch) as caught:
            check_batch(memoryview(flipped), max_bytes=LIMIT)
        assert caught.value.kafka_error == errors.CORRUPT_MESSAGE


def test_timestamps_far_from_now_are_refused() -> None:
    header = read_header(encode_batch([(1_000, None, b"", ()), (9_000, None, b"", ())]))

    def check(**limits: int) -> None:
        batch.check_timestamps(header, **({"now_ms": 5_000, "before_max_ms": 4_000, "after_max_ms": 4_000} | limits))

    check()
    with pytest.raises(errors.InvalidTimestamp, match="before"):
        check(before_max_ms=3_999)
    with pytest.raises(errors.InvalidTimestamp, match="after"):
        check(after_max_ms=3_999)


def test_no_timestamp_is_never_too_old() -> None:
    header = read_header(encode_batch([(batch.NO_TIMESTAMP, None, b"", ())]))
    batch.check_timestamps(header, now_ms=5_000, before_max_ms=0, after_max_ms=0)


def test_prefix_changes_offset_and_epoch_and_leaves_the_crc() -> None:
    data = make()
    prefix = batch.batch_prefix(base_offset=77, batch_length=len(data) - 12, leader_epoch=9)
    written = prefix + data[len(prefix) :]
    (position, header), = walk(written, check_crc=True)
    assert (position, header.base_offset, header.leader_epoch) == (0, 77, 9)


def test_log_append_time_holds_for_every_record() -> None:
    data = batch.with_log_append_time(memoryview(make(codec=4)), 123_456)
    (_, header), = walk(data, check_crc=True)
    assert header.timestamp_type == batch.LOG_APPEND_TIME
    assert [record.timestamp for record in decode_batch(data, header)] == [123_456] * 3


def test_producer_of_a_batch_can_be_changed() -> None:
    data = make(producer_id=1, producer_epoch=0, base_sequence=5)
    again = batch.with_producer(data, producer_id=1, producer_epoch=1, base_sequence=0)
    assert again == make(producer_id=1, producer_epoch=1, base_sequence=0)


class TestWalk:
    def test_gives_each_batch_and_where_it_lies(self) -> None:
        first, second = make(1), make(4)
        assert [(position, header.record_count) for position, header in walk(first + second, check_crc=True)] == [
            (0, 1),
            (len(first), 4),
        ]

    def test_begins_where_it_is_told(self) -> None:
        first, second = make(1), make(4)
        assert [position for position, _ in walk(first + second, len(first), check_crc=True)] == [len(first)]

    @pytest.mark.parametrize("missing", [1, 20, 60, 70])
    def test_ends_before_a_batch_that_is_cut(self, missing: int) -> None:
        data = make()
        assert [position for position, _ in walk((data + data)[:-missing], check_crc=True)] == [0]

    def test_nothing_is_no_batch(self) -> None:
        assert list(walk(b"", check_crc=True)) == []

    def test_damage_is_found_only_if_looked_for(self) -> None:
        data = bytearray(make() * 2)
        data[-1] ^= 1
        assert len(list(walk(data, check_crc=False))) == 2
        batches = walk(data, check_crc=True)
        next(batches)
        with pytest.raises(errors.CorruptBatch):
            next(batches)

    def test_compacted_batches_have_fewer_records_than_offsets(self) -> None:
        data = changed(make(), last_offset_delta=10)
        (_, header), = walk(data, check_crc=True)
        assert (header.record_count, header.next_offset) == (3, 11)


def test_properties_do_not_shadow_fields() -> None:
    assert len(BatchHeader._fields) == len(batch.HEADER.unpack(bytes(61)))
