"""Bytes of strangers against the request readers: only MalformedMessage, in bounded time and memory.

Valid requests of every API and version, mutated (bits, lengths blown up, pieces cut, repeated, swapped between
requests), and plain noise. The readers of answers get the same: our client reads what a broker, any broker, sends.
`FUZZ_EXAMPLES` (default 300) says how many examples hypothesis tries; mutation tries 60 for each layout and more with it.
"""

from __future__ import annotations

import os
import random
import struct
import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.kafka_oracle import APIS, every_layout, kio_class, kio_write, random_message
from zafka.transport.kafka import codec
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import MalformedMessage
from zafka.transport.kafka.compile_reader import REQUEST_ELEMENTS_MAX
from zafka.transport.kafka.compile_writer import encode_uvarint

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))
MUTATIONS = max(60, EXAMPLES // 5)
LAYOUTS = list(every_layout())
# What a stranger would put where a length or a count is expected.
HOSTILE = [
    b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\x07", b"\x80\x80\x80\x80\x00", b"\xff" * 9, b"\x7f\xff\xff\xff", b"\x7f\xff",
    b"\x80\x00\x00\x00", b"\xff\xff\xff\xff", b"\xff\xff\xff\xfe", b"\xff\xff", b"\x80\x00", b"\x00", b"\xff\x01",
]  # fmt: skip


def reader_of(kind: str, key: int, version: int) -> codec.Reader:
    return (codec.request_reader if kind == "request" else codec.response_reader)(key, version)


def survives(read: codec.Reader, data: bytes) -> bool:
    """Read a stranger's bytes; True if they happened to be a message."""
    try:
        read(memoryview(data), 0)
    except MalformedMessage as malformed:
        assert str(malformed) and malformed.position >= 0
        return False
    return True


def mutate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    mutated = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        position, end = sorted(rng.randrange(len(mutated) + 1) for _ in range(2))
        match rng.randrange(7):
            case 0 if mutated:
                mutated[position % len(mutated)] ^= 1 << rng.randrange(8)
            case 1 if mutated:
                mutated[position % len(mutated)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                hostile = rng.choice(HOSTILE)
                mutated[position : position + len(hostile)] = hostile
            case 3:
                mutated[position:position] = rng.choice(HOSTILE)
            case 4:
                del mutated[position : min(end, position + 50)]
            case 5:
                mutated[position:position] = mutated[position : min(end, position + 200)]
            case _:
                mutated[position:] = other[rng.randrange(len(other) + 1) :]
    return bytes(mutated)


@pytest.mark.parametrize("key", APIS, ids=lambda key: key.name)
def test_mutated_messages_raise_nothing_but_malformed(key: ApiKey) -> None:
    seed = os.environ.get("FUZZ_SEED", "1")
    rng = random.Random(f"{seed} {key}")
    outcomes = {True: 0, False: 0}
    for _, kind, version in [layout for layout in LAYOUTS if layout[0] == key]:
        read, kio_type = reader_of(kind, key, version), kio_class(key, kind, version)
        valid = [kio_write(random_message(kio_type, rng)) for _ in range(4)]
        for _ in range(MUTATIONS):
            outcomes[survives(read, mutate(rng.choice(valid), rng.choice(valid), rng))] += 1
    assert outcomes[False], "no mutation broke a message: the mutations are too tame"


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(layout=st.sampled_from(LAYOUTS), data=st.binary(max_size=400))
def test_noise_raises_nothing_but_malformed(layout: tuple[ApiKey, str, int], data: bytes) -> None:
    key, kind, version = layout
    survives(reader_of(kind, key, version), data)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    layout=st.sampled_from(LAYOUTS),
    data=st.lists(st.one_of(st.sampled_from(HOSTILE), st.binary(max_size=8)), max_size=40).map(b"".join),
)
def test_hostile_lengths_raise_nothing_but_malformed(layout: tuple[ApiKey, str, int], data: bytes) -> None:
    key, kind, version = layout
    survives(reader_of(kind, key, version), data)


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.one_of(st.binary(max_size=60), st.builds(
    lambda key, version, length, rest: struct.pack(">hhih", key, version, 7, length) + rest,
    st.integers(-2, 95), st.integers(-2, 20), st.sampled_from((-1, -2, 0, 1, 5, 32767)), st.binary(max_size=40),
)))  # fmt: skip
def test_request_headers_raise_nothing_but_malformed(data: bytes) -> None:
    frame = memoryview(data)
    try:
        header = codec.read_request_header(frame)
    except MalformedMessage:
        return
    assert 10 <= header.body_position <= len(frame)


# -- time and memory ----------------------------------------------------------------------------------


def worst_frames(many: int) -> dict[str, tuple[ApiKey, int, bytes]]:
    """Frames with so many of what is small on the wire and large in memory, or takes time."""
    count = struct.pack(">i", many)
    compact = encode_uvarint(many + 1)
    one_topic = b"\x00\x00" + struct.pack(">i", 1)
    return {
        "empty topic names": (ApiKey.METADATA, 4, count + bytes(2 * many) + b"\x00"),
        "tagged fields": (ApiKey.METADATA, 12, b"\x01\x00\x00" + encode_uvarint(many) + b"\x09\x00" * many),
        "tags of topics": (ApiKey.METADATA, 9, compact + b"\x01\x03\x09\x00\x08\x00\x07\x00" * many + bytes(4)),
        "partitions": (ApiKey.OFFSET_FETCH, 1, b"\x00\x00" + one_topic + count + bytes(4 * many)),
        "empty topics": (ApiKey.OFFSET_FETCH, 7, b"\x01" + compact + b"\x01\x01\x00" * many + b"\x00\x00"),
        "topics without partitions": (ApiKey.PRODUCE, 9, bytes(7) + compact + b"\x01\x01\x00" * many + b"\x00"),
        "group names": (ApiKey.DESCRIBE_GROUPS, 0, count + bytes(2 * many)),
        "nested arrays": (ApiKey.OFFSET_FETCH, 1, b"\x00\x00" + count + (one_topic + bytes(4)) * many),
    }


# As many as are let through (but for the nested ones), and far more.
SLOWEST = [
    pytest.param(*frame, id=f"{what}-{many}")
    for many in (REQUEST_ELEMENTS_MAX, 3 << 20)
    for what, frame in worst_frames(many).items()
]


@pytest.mark.parametrize(("key", "version", "data"), SLOWEST)
def test_the_worst_frames_are_bounded_in_time(key: ApiKey, version: int, data: bytes) -> None:
    read = codec.request_reader(key, version)
    started_s = time.process_time()
    survives(read, data)
    assert time.process_time() - started_s < 2.0  # 0.1 s here; an unbounded reader takes many seconds


@pytest.mark.parametrize("what", worst_frames(0))
def test_an_element_takes_no_more_than_its_share_of_memory(what: str) -> None:
    many = REQUEST_ELEMENTS_MAX // 10
    key, version, data = worst_frames(many)[what]
    read = codec.request_reader(key, version)
    tracemalloc.start()
    assert survives(read, data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300 * many


def test_a_million_lengths_cost_nothing_before_they_are_checked() -> None:
    read = codec.request_reader(ApiKey.METADATA, 12)
    tracemalloc.start()
    for _ in range(1000):
        assert not survives(read, b"\xff\xff\xff\xff\x0f")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000
