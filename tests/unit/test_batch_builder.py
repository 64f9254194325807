"""Records of nothing but a value, which are encoded column by column: the batch is the one that record by record gives."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from zafka.storage.batch import read_header
from zafka.storage.records import BatchBuilder, decode_batch

KEYS = [None, b"", b"key", b"another key", bytes(63), bytes(64)]
LENGTHS = [0, 1, 50, 60, 61, 62, 63, 64, 100, 8180, 8191, 8192]  # where varints of lengths get longer, and in between


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["append", "value", "values", "pairs"]),
            st.integers(0, 70),  # milliseconds that passed
            st.lists(st.sampled_from(LENGTHS), min_size=1, max_size=4),
            st.lists(st.sampled_from(KEYS), min_size=1, max_size=4),
            st.integers(1, 100),  # how many
        ),
        min_size=1, max_size=8,
    )
)  # fmt: skip
def test_runs_of_any_lengths_are_encoded_as_all_records_are(
    steps: list[tuple[str, int, list[int], list[bytes | None], int]]
) -> None:
    """With keys, without, and with keys here and there: the batch is the one that record by record gives."""
    fast, slow, now_ms = BatchBuilder(), BatchBuilder(), 1_700_000_000_000
    for how, passed_ms, lengths, some_keys, count in steps:
        now_ms += passed_ms
        values = [bytes([65 + number % 26]) * lengths[number % len(lengths)] for number in range(count)]
        keys = [some_keys[number % len(some_keys)] for number in range(count)]
        if how == "append":
            for key, value in zip(keys, values, strict=True):
                fast.append(now_ms, key, value)
        elif how == "value":
            first = fast.record_count
            indexes = [fast.append_value(now_ms, value, 1 << 30, key) for key, value in zip(keys, values, strict=True)]
            assert indexes == list(range(first, first + count))
        elif how == "pairs":
            fast.add_values(now_ms, values, list(map(len, values)), keys)
        else:
            keys = [None] * count
            assert fast.extend_values(now_ms, values, list(map(len, values)), 1 << 30) == count
        for key, value in zip(keys, values, strict=True):
            slow.append(now_ms, key, value)
        assert fast.record_count == slow.record_count
    assert fast.build() == slow.build()
    assert fast.size_bytes >= len(fast.build())


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["append", "value", "values"]),
            st.integers(0, 3),  # milliseconds that passed
            st.integers(0, 3),  # another length
            st.integers(1, 200),  # how many
        ),
        min_size=1, max_size=12,
    )
)  # fmt: skip
def test_records_of_nothing_but_a_value_are_encoded_as_all_are(steps: list[tuple[str, int, int, int]]) -> None:
    """However runs of them come and end: the batch is the one that record by record gives."""
    fast, slow, now_ms = BatchBuilder(), BatchBuilder(), 1_700_000_000_000
    for how, passed_ms, odd, count in steps:
        now_ms += passed_ms
        values = [bytes(70 + (odd if number == 11 else 0)) for number in range(count)]
        if how == "append":
            for value in values:
                fast.append(now_ms, b"key" if odd else None, value)
                slow.append(now_ms, b"key" if odd else None, value)
            continue
        if how == "value":
            first = fast.record_count
            assert [fast.append_value(now_ms, value, 1 << 30) for value in values] == list(range(first, first + count))
        else:
            assert fast.extend_values(now_ms, values, list(map(len, values)), 1 << 30) == count
        for value in values:
            slow.append(now_ms, None, value)
    assert fast.record_count == slow.record_count
    assert fast.build() == slow.build()
    assert fast.size_bytes >= len(fast.build())


@pytest.mark.parametrize("lengths", [(5,), (5, 6), (0, 63, 64, 8191, 20_000)], ids=["one length", "two", "all widths"])
@pytest.mark.parametrize("before", [0, 1, 63, 8190])
def test_offsets_of_every_width_stand_where_they_belong(before: int, lengths: tuple[int, ...]) -> None:
    """Offsets take one to three bytes: over both borders, and from any place."""
    values = [bytes([65 + number % 26]) * lengths[number % len(lengths)] for number in range(64 + 8192 + 200)]
    if lengths[-1] == 20_000:
        values = [value if len(value) < 100 or number < 50 else b"" for number, value in enumerate(values)]
    fast, slow = BatchBuilder(), BatchBuilder()
    for _ in range(before):
        for builder in (fast, slow):
            builder.append(5, b"key", b"value", [("header", b"1")])
    fast.add_values(1000, values, list(map(len, values)))
    for value in values:
        slow.append(1000, None, value)
    assert fast.build(producer_id=3, producer_epoch=1, base_sequence=7) == slow.build(
        producer_id=3, producer_epoch=1, base_sequence=7
    )
    assert [record.value for record in decode_batch(fast.build(), read_header(fast.build()))[before:]] == values


def test_values_are_taken_until_the_batch_is_full() -> None:
    builder = BatchBuilder()
    values = [bytes(100)] * 50
    assert builder.extend_values(1, [bytes(10_000)], [10_000], 1000) == 1  # the first always
    assert builder.extend_values(1, values, [100] * 50, 1000) == 0
    builder = BatchBuilder()
    taken = builder.extend_values(1, values, [100] * 50, 2000)
    assert builder.append_value(1, bytes(100), 2000) == -1 and builder.append_value(1, b"", 1 << 20) == taken
    assert BatchBuilder().append_value(1, bytes(10_000), 1000) == 0  # the first always
    taken += 1
    assert 15 <= taken <= 18 and builder.size_bytes <= 2000 and builder.record_count == taken
