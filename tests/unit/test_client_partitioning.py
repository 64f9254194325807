"""Keys go where Java's producer sends them, and records without a key go round by batches."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zafka.client.partitioning import StickyChoice, murmur2, partition_of_key

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
