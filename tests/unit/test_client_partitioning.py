"""Keys go where Java's producer sends them, and records without a key go round by batches."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

from tests.unit.client_fake_broker import FakeBroker
from zafka.client.errors import ConfigError
from zafka.client.partitioning import (
    PARTITIONERS,
    STICKY,
    StickyChoice,
    crc32_partition,
    make_partitioner,
    murmur2,
    partition_of_key,
)
from zafka.client.producer import Producer
from zafka.storage.batch import read_header
from zafka.storage.records import decode_batch

kafka_python = pytest.importorskip("kafka.partitioner.default")


@pytest.mark.parametrize(
    ("key", "signed"),
    [  # Kafka UtilsTest.testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_javas(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed & 0xFFFFFFFF
    assert partition_of_key(key, 7) == (signed & 0x7FFFFFFF) % 7


@given(st.binary(max_size=40), st.integers(1, 100))
def test_murmur2_is_kafka_pythons(key: bytes, count: int) -> None:
    assert murmur2(key) == kafka_python.murmur2(key) & 0xFFFFFFFF
    assert 0 <= partition_of_key(key, count) < count


def test_sticky_choice_goes_round_by_full_batches() -> None:
    sticky = StickyChoice(1000, random.Random(1))
    seen = []
    for _ in range(6):
        seen.append(sticky.choose((0, 1, 2)))
        sticky.on_batch_closed(900, full=True)
    assert sorted(seen[:3]) == [0, 1, 2]
    assert seen[3:] == seen[:3]


def test_sticky_choice_stays_while_batches_are_thin() -> None:
    sticky = StickyChoice(1000, random.Random(1))
    first = sticky.choose((0, 1, 2))
    for _ in range(9):
        sticky.on_batch_closed(100, full=False)
        assert sticky.choose((0, 1, 2)) == first
    sticky.on_batch_closed(100, full=False)
    assert sticky.choose((0, 1, 2)) == (first + 1) % 3


@pytest.mark.parametrize(
    ("key", "crc"),  # CRC-32 of ISO-HDLC: its check value, then what zlib and librdkafka's rd_crc32 give
    [(b"123456789", 0xCBF43926), (b"", 0), (b"a", 0xE8B7BE43), (b"abc", 0x352441C2)],
)
def test_crc32_is_librdkafkas(key: bytes, crc: int) -> None:
    assert crc32_partition(key, 1_000_003) == crc % 1_000_003


@pytest.mark.parametrize(
    ("name", "null", "empty"),
    [
        ("murmur2", STICKY, partition_of_key(b"", 7)),  # Java hashes an empty key
        ("crc32", STICKY, STICKY),  # librdkafka: "empty and NULL keys are randomly partitioned"
        ("consistent", 0, 0),  # librdkafka: "empty and NULL keys are mapped to single partition"
        ("sticky", STICKY, STICKY),
    ],
)
def test_null_and_empty_keys(name: str, null: int, empty: int) -> None:
    partitioner = make_partitioner(name)
    assert partitioner.place(None, 7) == null
    assert partitioner.place(b"", 7) == empty
    assert (partitioner.place(b"key", 7) == STICKY) == (name == "sticky")


def test_what_is_no_partitioner() -> None:
    for wrong in ("murmur3", None, 3):
        with pytest.raises(ConfigError, match="partitioner must be one of 'murmur2', 'crc32'"):
            make_partitioner(wrong)  # type: ignore[arg-type]


def homes(broker: FakeBroker, topic: str) -> dict[bytes | None, set[int]]:
    found: dict[bytes | None, set[int]] = {}
    for number, log in enumerate(broker.topics[topic]):
        for data in log.batches:
            for record in decode_batch(data, read_header(data)):
                found.setdefault(record.key, set()).add(number)
    return found


@pytest.mark.parametrize("name", sorted(PARTITIONERS))
def test_a_producer_asks_its_partitioner(name: str) -> None:
    keys: list[bytes | None] = [b"key-%d" % number for number in range(50)]
    with FakeBroker({"t": 5}) as broker:
        with Producer(broker.address, partitioner=name) as producer:
            for key in (*keys, None):
                producer.send("t", b"value", key=key)
            producer.send_many("t", [b"value"] * 50, keys=keys)
            producer.send_many("t", [b"value"] * 50)
        found = homes(broker, "t")
        for key in keys:
            assert key is not None
            where = PARTITIONERS[name].place(key, 5)
            assert where == STICKY or found[key] == {where}
        if name == "consistent":
            assert found[None] == {0}


def test_a_users_partitioner_places_every_record() -> None:
    asked: list[tuple[bytes | None, list[int], list[int]]] = []

    def last_byte(key: bytes | None, partitions: Sequence[int], led: Sequence[int]) -> int:
        asked.append((key, list(partitions), list(led)))
        return key[-1] % len(partitions) if key else len(partitions) - 1

    with FakeBroker({"t": 4}) as broker:
        with Producer(broker.address, partitioner=last_byte) as producer:
            producer.send("t", b"value", key=b"\x06")
            producer.send("t", b"value")
            producer.send("t", b"value", partition=1, key=b"explicit")
            producer.send_many("t", [b"value"] * 2)
            producer.send_many("t", [b"value"] * 2, keys=[b"\x00", b"\x05"])
        assert homes(broker, "t") == {b"\x06": {2}, None: {3}, b"explicit": {1}, b"\x00": {0}, b"\x05": {1}}
        assert asked[0] == (b"\x06", [0, 1, 2, 3], [0, 1, 2, 3]) and len(asked) == 6
        with (
            Producer(broker.address, partitioner=lambda *_: 4) as producer,
            pytest.raises(ConfigError, match="the partitioner said 4 for key b'k'; there are partitions 0 to 3"),
        ):
            producer.send("t", b"value", key=b"k")
