"""Records inside a batch, held against Java's bytes and against aiokafka's and kafka-python's own record code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka.record.default_records import (
    DefaultRecordBatch as AiokafkaBatch,
    DefaultRecordBatchBuilder as AiokafkaBuilder,
)
from hypothesis import given, settings, strategies as st
from kafka.record.default_records import (
    DefaultRecordBatch as KafkaPythonBatch,
    DefaultRecordBatchBuilder as KafkaPythonBuilder,
)

import zafka.storage.records
from zafka.storage import codecs, record_runs
from zafka.storage.batch import HEADER_BYTES, build_header, check_batch, read_header, with_log_append_time
from zafka.storage.codecs import CODEC_NAMES
from zafka.storage.errors import BatchTooLarge, CorruptBatch, UnsupportedCodec
from zafka.storage.records import (
    MAX_SEARCHED_RECORDS,
    BatchBuilder,
    NewRecord,
    Record,
    decode_batch,
    encode_batch,
    encode_varint,
    find_timestamp,
)

LEAST_RECORD = b"\x0c\x00\x00\x00\x01\x01\x00"  # no key, no value, no headers

CODECS = range(len(CODEC_NAMES))
NOW = 1_700_000_000_000

# Written by Java's MemoryRecordsBuilder (Apache Kafka 4.3.1): producer 7, epoch 3, sequence 11.
JAVA_RECORDS: list[NewRecord] = [
    (NOW, None, None, ()),
    (NOW + 5, b"key", b"", ()),
    (NOW - 1, b"", b"value", [("hä", b"x"), ("n", None), ("", b"")]),
]
JAVA_HEADER = "0000018bcfe568000000018bcfe56805000000000000000700030000000b00000003"
JAVA_BATCHES = {
    "none": "000000000000000000000059ffffffff024b1f2a7e000000000002" + JAVA_HEADER
    + "0c00000001010012000a02066b657900002c000104000a76616c7565060668c3a40278026e010000",
    "gzip": "00000000000000000000006dffffffff0281ed8f84000100000002" + JAVA_HEADER
    + "1f8b08000000000000ffe36160606064641062e06262cb4ead6460d061606461e02a4bcc294d6563cb38bc84a982298f918101003abaf16d"
    "28000000",
    "snappy": "00000000000000000000006fffffffff02b3d63a53000200000002" + JAVA_HEADER
    + "82534e415050590000000001000000010000002a289c0c00000001010012000a02066b657900002c000104000a76616c7565060668c3a4"
    "0278026e010000",
    "lz4": "000000000000000000000068ffffffff02c04eb959000300000002" + JAVA_HEADER
    + "04224d18604082280000800c00000001010012000a02066b657900002c000104000a76616c7565060668c3a40278026e01000000000000",
    "zstd": "000000000000000000000065ffffffff0257392369000400000002" + JAVA_HEADER
    + "28b52ffd00584001000c00000001010012000a02066b657900002c000104000a76616c7565060668c3a40278026e010000010000",
}  # fmt: skip

texts = st.text(max_size=20)
optional_bytes = st.none() | st.binary(max_size=300)
records = st.lists(
    st.tuples(
        st.integers(0, 2**45),
        optional_bytes,
        optional_bytes,
        st.lists(st.tuples(texts, st.none() | st.binary(max_size=30)), max_size=4),
    ),
    min_size=1,
    max_size=30,
)


def decoded(data: bytes, **options: Any) -> list[NewRecord]:
    """The records without their offsets, which must be 0, 1, 2, ..."""
    got = decode_batch(data, check_batch(memoryview(data), max_bytes=len(data)), **options)
    assert [record.offset for record in got] == list(range(len(got)))
    return [(record.timestamp, record.key, record.value, record.headers) for record in got]


def plain(taken: list[NewRecord]) -> list[NewRecord]:
    return [(timestamp, key, value, list(headers)) for timestamp, key, value, headers in taken]


class TestJava:
    @pytest.mark.parametrize("name", CODEC_NAMES)
    def test_its_batches_are_read(self, name: str) -> None:
        data = bytes.fromhex(JAVA_BATCHES[name])
        assert plain(decoded(data)) == plain(JAVA_RECORDS)

    @pytest.mark.parametrize("name", ["none", "snappy"])
    def test_ours_are_the_same_bytes(self, name: str) -> None:
        ours = encode_batch(
            JAVA_RECORDS, codec=CODEC_NAMES.index(name), producer_id=7, producer_epoch=3, base_sequence=11
        )
        assert ours.hex() == JAVA_BATCHES[name]


class TestOtherClients:
    @settings(max_examples=60, deadline=None)
    @given(taken=records, codec=st.sampled_from(CODECS))
    def test_aiokafka_reads_ours(self, taken: list[NewRecord], codec: int) -> None:
        batch = AiokafkaBatch(encode_batch(taken, codec=codec, producer_id=3, producer_epoch=1, base_sequence=8))
        assert batch.validate_crc()
        assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (3, 1, 8)
        assert batch.max_timestamp == max(timestamp for timestamp, *_ in taken)
        read = [(record.timestamp, record.key, record.value, list(record.headers)) for record in batch]
        assert read == plain(taken)

    @settings(max_examples=60, deadline=None)
    @given(taken=records, codec=st.sampled_from(CODECS))
    def test_ours_reads_aiokafkas(self, taken: list[NewRecord], codec: int) -> None:
        builder = AiokafkaBuilder(
            magic=2, compression_type=codec, is_transactional=0, producer_id=3, producer_epoch=1, base_sequence=8,
            batch_size=2**24,
        )  # fmt: skip
        for offset, (timestamp, key, value, headers) in enumerate(taken):
            assert builder.append(offset, timestamp=timestamp, key=key, value=value, headers=list(headers))
        assert plain(decoded(bytes(builder.build()))) == plain(taken)

    @settings(max_examples=40, deadline=None)
    @given(taken=records, codec=st.sampled_from([codecs.NONE, codecs.GZIP]))
    def test_kafka_python_and_ours_read_each_other(self, taken: list[NewRecord], codec: int) -> None:
        batch = KafkaPythonBatch(encode_batch(taken, codec=codec))
        assert batch.validate_crc()
        read = [(record.timestamp, record.key, record.value, list(record.headers)) for record in batch]
        assert read == plain(taken)
        builder = KafkaPythonBuilder(2, codec, 0, -1, -1, -1, 2**24)
        for offset, (timestamp, key, value, headers) in enumerate(taken):
            builder.append(offset, timestamp, key, value, list(headers))
        assert plain(decoded(bytes(builder.build()))) == plain(taken)


class TestRoundTrip:
    @settings(max_examples=100, deadline=None)
    @given(taken=records, codec=st.sampled_from(CODECS))
    def test_what_goes_in_comes_out(self, taken: list[NewRecord], codec: int) -> None:
        assert plain(decoded(encode_batch(taken, codec=codec))) == plain(taken)

    @pytest.mark.parametrize("codec", CODECS)
    @pytest.mark.parametrize("size", [0, 1, 63, 64, 8191, 8192, 32 * 1024, 200_000])
    def test_every_length_of_length(self, codec: int, size: int) -> None:
        taken: list[NewRecord] = [(NOW, b"k" * size, b"v" * size, [("h" * size, b"x" * size)])] * 2
        assert plain(decoded(encode_batch(taken, codec=codec))) == taken

    @pytest.mark.parametrize("count", [63, 64, 65, 8192, 8193, 20_000])
    def test_every_length_of_offset(self, count: int) -> None:
        taken: list[NewRecord] = [(NOW, None, b"%d" % number, ()) for number in range(count)]
        assert decoded(encode_batch(taken)) == taken

    @pytest.mark.parametrize("timestamp", [-1, 0, 1, NOW, NOW + 2**40, NOW - 2**40])
    def test_timestamps_before_and_after_the_first(self, timestamp: int) -> None:
        taken: list[NewRecord] = [(NOW, None, b"", ()), (timestamp, None, b"", ()), (NOW, None, b"", ())]
        data = encode_batch(taken)
        assert decoded(data) == taken
        assert read_header(data).max_timestamp == max(NOW, timestamp)

    def test_records_with_and_without_headers_may_follow_each_other(self) -> None:
        headers = [("a", b"1")]
        taken: list[NewRecord] = [
            (NOW, None, b"", ()), (NOW, None, b"", headers), (NOW, None, b"", headers), (NOW, None, None, ()),
        ]  # fmt: skip
        assert plain(decoded(encode_batch(taken))) == plain(taken)

    def test_header_of_the_batch(self) -> None:
        data = encode_batch(
            [(NOW, None, b"", ())], producer_id=5, producer_epoch=6, base_sequence=7, transactional=True
        )
        header = read_header(data)
        assert (header.producer_id, header.producer_epoch, header.base_sequence) == (5, 6, 7)
        assert (header.base_offset, header.leader_epoch, header.attributes) == (0, -1, 0x10)


class TestBuilder:
    def test_appended_one_by_one_is_the_same(self) -> None:
        taken: list[NewRecord] = [
            (NOW + number % 3, b"k" if number % 2 else None, b"v" * number, [("h", None)] if number % 5 == 0 else ())
            for number in range(200)
        ]  # fmt: skip
        builder = BatchBuilder()
        sizes = [builder.append(*record) for record in taken]
        data = encode_batch(taken)
        assert builder.build() == data
        assert sizes == sorted(set(sizes))
        assert builder.record_count == 200

    def test_size_is_a_close_estimate(self) -> None:
        builder = BatchBuilder()
        for number in range(1000):
            size = builder.append(NOW, None, b"v" * number)
        assert 0 <= size - len(builder.build()) <= 2 * 1000

    def test_takes_until_one_does_not_fit(self) -> None:
        source = iter([(NOW + number, None, b"v" * 100, ()) for number in range(50)])
        batches = []
        left = None
        while True:
            builder = BatchBuilder()
            if left is not None:
                builder.append(*left)
            left = builder.extend(source, 1000)
            batches.append(builder.build())
            assert builder.size_bytes <= 1000
            if left is None:
                break
        assert [record[0] for data in batches for record in decoded(data)] == [NOW + number for number in range(50)]
        assert [read_header(data).record_count for data in batches] == [8] * 6 + [2]
        assert all(read_header(data).max_timestamp == decoded(data)[-1][0] for data in batches)

    def test_the_first_record_always_fits(self) -> None:
        builder = BatchBuilder()
        assert builder.extend([(NOW, None, b"v" * 100, ())], 10) is None
        assert decoded(builder.build()) == [(NOW, None, b"v" * 100, ())]

    def test_records_before_a_failure_are_whole(self) -> None:
        def failing() -> Iterator[NewRecord]:
            yield NOW, None, b"1", ()
            yield NOW + 1, None, b"2", [("h", None)]
            raise ZeroDivisionError

        builder = BatchBuilder()
        with pytest.raises(ZeroDivisionError):
            builder.extend(failing())
        builder.append(NOW + 2, b"3", None)
        assert [record[0] for record in decoded(builder.build())] == [NOW, NOW + 1, NOW + 2]

    def test_may_be_built_again(self) -> None:
        builder = BatchBuilder()
        builder.append(NOW, None, b"1")
        assert builder.build() == builder.build()
        builder.append(NOW, None, b"2")
        assert decoded(builder.build()) == [(NOW, None, b"1", ()), (NOW, None, b"2", ())]


class TestDecode:
    def test_offsets_count_from_the_base(self) -> None:
        data = encode_batch([(NOW, None, b"", ())] * 3)
        header = read_header(data)._replace(base_offset=500)
        assert [record.offset for record in decode_batch(data, header)] == [500, 501, 502]

    @pytest.mark.parametrize("from_offset", [0, 500, 501, 569, 570, 599, 600])
    def test_leaves_out_what_was_read_before(self, from_offset: int) -> None:
        data = encode_batch([(NOW + number, None, b"%d" % number, [("h", b"")]) for number in range(100)])
        header = read_header(data)._replace(base_offset=500)
        everything = decode_batch(data, header)
        wanted = [record for record in everything if record.offset >= from_offset]
        assert decode_batch(data, header, from_offset=from_offset) == wanted

    def test_only_its_own_bytes(self) -> None:
        data = encode_batch([(NOW, None, b"1", ())])
        assert decode_batch(data + b"rest", read_header(data)) == [Record(0, NOW, None, b"1", ())]

    def test_compacted_batch_has_gaps(self) -> None:
        data = batch_of(record(3) + record(9), count=2, last=20)
        assert [record.offset for record in decode_batch(data, read_header(data))] == [3, 9]

    def test_name_that_is_no_text_is_replaced(self) -> None:
        data = batch_of(record(0, headers=b"\x02\x02\xff\x01"), count=1)
        assert decode_batch(data, read_header(data))[0].headers == [("�", None)]

    @pytest.mark.parametrize(
        ("body", "count"),
        [
            (b"", 1),
            (LEAST_RECORD, 2),
            (LEAST_RECORD * 2, 2),  # the same offset twice
            (LEAST_RECORD + b"\x00", 1),  # bytes after the last
            (b"\x0e\x00\x00\x00\x01\x01\x00", 1),  # says more than there is
            (b"\x0a\x00\x00\x00\x01\x01\x00", 1),  # says less than there is
            (b"\x0d\x00\x00\x00\x01\x01\x00", 1),  # negative length
            (b"\x0c\x00\x00\x01\x01\x01\x00", 1),  # negative offset
            (b"\x0c\x00\x00\x02\x01\x01\x00", 1),  # offset beyond the batch's
            (b"\x0e\x00\x00\x00\x03k\x01\x00", 1),  # negative length of a key
            (b"\x0e\x00\x00\x00\x01\x03v\x00", 1),  # negative length of a value
            (b"\x0c\x00\x00\x00\x01\x64\x00", 1),  # value beyond the end
            (b"\x0c\x00\x00\x00\x01\x01\x01", 1),  # negative number of headers
            (b"\x0c\x00\x00\x00\x01\x01\x64", 1),  # headers beyond the end
            (b"\x12\x00\x00\x00\x01\x01\x02\x03h\x01", 1),  # negative length of a header's name
            (b"\x12\x00\x00\x00\x01\x01\x02\x00\x03x", 1),  # negative length of a header's value
            (b"\x12\x00\x00\x00\x01\x01\x03\x02h\x01", 1),  # negative number of headers that are there
            (b"\x10\x00\x00\x00\x01\x01\x02\x00\x64", 1),  # header's value beyond the end
            (b"\x0c\x00\x00\x00\x01\x01", 1),
            (b"\xff" * 30, 1),
            (b"\x80" * 30, 1),
            (b"\x1e\x00" + b"\xff" * 9 + b"\x01\x00\x01\x01\x00", 1),  # a timestamp that no int64 holds
        ],
    )
    def test_odd_bytes_are_corrupt(self, body: bytes, count: int) -> None:
        data = batch_of(body, count=count)
        with pytest.raises(CorruptBatch):
            decode_batch(data, read_header(data))

    @pytest.mark.parametrize("count", [-1, 2**31 - 1])
    def test_impossible_counts_are_corrupt(self, count: int) -> None:
        data = encode_batch([(NOW, None, b"", ())])
        with pytest.raises(CorruptBatch):
            decode_batch(data, read_header(data)._replace(record_count=count))

    @pytest.mark.parametrize("timestamp", [2**62, -(2**62), 2**63 - 1, -(2**63)])
    def test_base_timestamp_leaves_room_for_deltas(self, timestamp: int) -> None:
        data = encode_batch([(NOW, None, b"", ())])
        with pytest.raises(CorruptBatch):
            decode_batch(data, read_header(data)._replace(base_timestamp=timestamp))

    def test_bytes_that_are_not_there_are_corrupt(self) -> None:
        data = encode_batch([(NOW, None, b"", ())])
        with pytest.raises(CorruptBatch):
            decode_batch(data[:-1], read_header(data))


class TestFindTimestamp:
    TIMES = (5, 3, 9, 7, 9, 12)

    def find(self, timestamp: int, **options: Any) -> tuple[int, int] | None:
        data = encode_batch([(time, b"k", b"v", [("h", b"")]) for time in self.TIMES], codec=codecs.ZSTD)
        return find_timestamp(data, read_header(data)._replace(base_offset=100), timestamp, **options)

    @pytest.mark.parametrize(
        ("timestamp", "found"),
        [(0, (5, 100)), (5, (5, 100)), (6, (9, 102)), (9, (9, 102)), (10, (12, 105)), (12, (12, 105)), (13, None)],
    )
    def test_first_record_not_before_it(self, timestamp: int, found: tuple[int, int] | None) -> None:
        assert self.find(timestamp) == found

    def test_not_before_an_offset_either(self) -> None:
        assert self.find(9, from_offset=103) == (9, 104)
        assert self.find(13, from_offset=103) is None

    def test_log_append_time_is_that_of_the_batch(self) -> None:
        data = with_log_append_time(encode_batch([(5, None, b"", ())] * 3), 1000)
        assert find_timestamp(data, read_header(data), 6) == (1000, 0)

    def test_damage_is_corrupt(self) -> None:
        data = batch_of(b"\xff" * 30, count=4)
        with pytest.raises(CorruptBatch):
            find_timestamp(data, read_header(data), 0)

    def test_offset_beyond_the_batch_is_not_believed(self) -> None:
        data = batch_of(record(9), count=1)
        assert find_timestamp(data, read_header(data), 0) is None


class TestCodecs:
    @pytest.mark.parametrize("codec", CODECS)
    @pytest.mark.parametrize("size", [0, 1, 1000, 64 * 1024, 64 * 1024 + 1, 3_000_000])
    def test_what_goes_in_comes_out(self, codec: int, size: int) -> None:
        data = bytes(size)
        assert codecs.decompress(codec, codecs.compress(codec, data), max_bytes=size) == data

    @pytest.mark.parametrize("codec", CODECS)
    @pytest.mark.parametrize("size", [1000, 100_000, 20_000_000])
    def test_bound_is_kept(self, codec: int, size: int) -> None:
        compressed = codecs.compress(codec, bytes(size))
        with pytest.raises(BatchTooLarge):
            codecs.decompress(codec, compressed, max_bytes=size - 1)

    @pytest.mark.parametrize("codec", CODECS[1:])
    @pytest.mark.parametrize("damage", ["", "cut", "first", "middle"])
    def test_damage_is_corrupt(self, codec: int, damage: str) -> None:
        compressed = bytearray(codecs.compress(codec, b"some text, some more text" * 100))
        if damage == "cut":
            del compressed[-8:]
        elif damage == "first":
            compressed[0] ^= 0x55
        elif damage == "middle":
            compressed[20:30] = b"\xff" * 10
        else:
            compressed.clear()
        with pytest.raises((CorruptBatch, BatchTooLarge)):
            codecs.decompress(codec, compressed, max_bytes=1_000_000)

    def test_raw_snappy_as_librdkafka_writes_it(self) -> None:
        import cramjam

        raw = bytes(cramjam.snappy.compress_raw(b"some text" * 100))
        assert codecs.decompress(codecs.SNAPPY, raw, max_bytes=900) == b"some text" * 100

    def test_snappy_that_lies_about_its_size_allocates_nothing(self) -> None:
        with pytest.raises(BatchTooLarge):
            codecs.decompress(codecs.SNAPPY, b"\xff\xff\xff\xff\x0f" + b"\x00" * 10, max_bytes=1_000_000)

    def test_blocks_of_lz4_do_not_depend_on_each_other(self) -> None:
        """Java refuses them otherwise. Bit 5 of the frame's fifth byte."""
        assert codecs.compress(codecs.LZ4, b"x" * 200_000)[4] & 0x20

    @pytest.mark.parametrize("codec", [5, 6, 7])
    def test_codec_that_kafka_does_not_have(self, codec: int) -> None:
        with pytest.raises(UnsupportedCodec):
            codecs.decompress(codec, b"", max_bytes=1)
        with pytest.raises(UnsupportedCodec):
            codecs.compress(codec, b"")


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "00"), (-1, "01"), (1, "02"), (63, "7e"), (-64, "7f"), (64, "8001"), (8191, "fe7f"), (8192, "808001"),
     (2**31 - 1, "feffffff0f"), (-(2**63), "ffffffffffffffffff01")],
)  # fmt: skip
def test_numbers_are_zigzag_varints(value: int, encoded: str) -> None:
    assert encode_varint(value).hex() == encoded


def record(delta: int, headers: bytes = b"\x00") -> bytes:
    """A record without key and value."""
    rest = b"\x00\x00" + encode_varint(delta) + b"\x01\x01" + headers
    return encode_varint(len(rest)) + rest


def batch_of(body: bytes, *, count: int, last: int | None = None) -> bytes:
    header = build_header(body, attributes=0, base_timestamp=NOW, max_timestamp=NOW, record_count=count)
    assert len(header) == HEADER_BYTES
    if last is None:
        return header + body
    return header[:23] + last.to_bytes(4, "big") + header[27:] + body


def test_a_search_through_very_many_records_ends_early() -> None:
    """16 MiB of the smallest records, from 2 kB: a tenth of a second of work instead of one."""
    count = MAX_SEARCHED_RECORDS + 10
    smallest = b"\x0c\0\0\0\x01\x01\0"
    for first in (0, MAX_SEARCHED_RECORDS - 1, MAX_SEARCHED_RECORDS):
        late = b"\x0c\0\x14\0\x01\x01\0"  # ten milliseconds after the others
        body = smallest * first + late + smallest * (count - first - 1)
        records = codecs.compress(codecs.ZSTD, body)
        header = build_header(records, attributes=codecs.ZSTD, base_timestamp=0, max_timestamp=10, record_count=count)
        data = header + records
        if first < MAX_SEARCHED_RECORDS:
            assert find_timestamp(data, read_header(data), 10) == (10, 0)
        else:
            with pytest.raises(BatchTooLarge, match="among the first"):
                find_timestamp(data, read_header(data), 10)


def no_run(body: bytes, position: int, count: int) -> None:
    """Instead of `find_run`."""


@given(
    st.integers(0, 1),  # 1: some records have another length
    st.sampled_from([None, b"", b"key", b"k" * 70]),
    st.sampled_from([0, 1, 63, 64, 200]),
    st.integers(1, 300),
    st.integers(0, 70),  # milliseconds from record to record
    st.data(),
)
def test_runs_decode_as_record_by_record(
    odd: int, key: bytes | None, value_bytes: int, count: int, step_ms: int, data: st.DataObject
) -> None:
    """Whole, from an offset within, and with any byte changed: the same records, or the same refusal."""
    records = [
        (1_000 + number * step_ms // 8, key, bytes(value_bytes + odd * (number % 50 == 49)), ()) for number in range(count)
    ]
    batch = bytearray(encode_batch(records))
    header = read_header(batch)
    for at in (None, data.draw(st.integers(61, len(batch) - 1))):
        if at is not None:
            batch[at] ^= 1 << data.draw(st.integers(0, 7))
        for from_offset in (0, count // 2):
            outcomes = []
            for find_run in (record_runs.find_run, no_run):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(zafka.storage.records, "find_run", find_run)
                    try:
                        outcomes.append(decode_batch(batch, header, from_offset=from_offset))
                    except CorruptBatch:
                        outcomes.append(None)
            assert outcomes[0] == outcomes[1]
            assert at is not None or len(outcomes[0] or []) == count - from_offset
