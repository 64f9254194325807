"""Bytes from outside, at every reader of storage: only its own errors come out, in bounded memory.

Mutations keep the CRC right where that is what lets the bytes get further. `FUZZ_EXAMPLES` says how many are tried.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tracemalloc
import zlib

import pytest
from crc32c import crc32c
from hypothesis import given, settings, strategies as st

from zafka.storage import codecs
from zafka.storage.batch import CRC_START, HEADER, HEADER_BYTES, build_header, check_batch, read_header, walk
from zafka.storage.codecs import CODEC_NAMES
from zafka.storage.errors import BadBatch, CorruptSnapshot
from zafka.storage.producer_state import ProducerStates
from zafka.storage.records import NewRecord, decode_batch, encode_batch, find_timestamp

CODECS = range(len(CODEC_NAMES))
LIMIT = 1 << 20
DECODED_MAX = 1 << 20
NOW = 1_700_000_000_000

RECORDS: list[NewRecord] = [
    (NOW + i, b"key %d" % i if i % 3 else None, b"value" * i, [("h", b"x")] if i % 4 == 0 else ()) for i in range(20)
]
BODY = encode_batch(RECORDS)[HEADER_BYTES:]

mutations = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6)
fuzz = settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", "300")), deadline=None)


def mutate(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for position, byte in changes:
        if changed:
            changed[position % len(changed)] = byte
    return bytes(changed)


def sealed(data: bytes) -> bytes:
    """The same bytes with the CRC that fits them."""
    return data[:17] + crc32c(data[CRC_START:]).to_bytes(4, "big") + data[CRC_START:]


def read_all(data: bytes) -> None:
    """All that storage does with bytes that a client sent, or that lie on a disk."""
    try:
        header = check_batch(memoryview(data), max_bytes=LIMIT)
        assert header.size_bytes == len(data)
    except BadBatch as error:
        assert error.kafka_error > 0
    with contextlib.suppress(BadBatch):
        for position, header in walk(data, check_crc=False):
            assert position + header.size_bytes <= len(data)
            with contextlib.suppress(BadBatch):
                records = decode_batch(data[position:], header, max_bytes=DECODED_MAX)
                assert len(records) <= header.record_count
            with contextlib.suppress(BadBatch):
                find_timestamp(data[position:], header, NOW, max_bytes=DECODED_MAX)


@fuzz
@given(data=st.binary(max_size=400))
def test_random_bytes(data: bytes) -> None:
    read_all(data)


def signed(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@fuzz
@given(
    before_crc=st.tuples(signed(64), signed(32), signed(32)),
    after_crc=st.tuples(*map(signed, (16, 32, 64, 64, 64, 16, 32, 32))),
    body=st.binary(max_size=100),
)
def test_random_header_fields(before_crc: tuple[int, ...], after_crc: tuple[int, ...], body: bytes) -> None:
    base_offset, batch_length, leader_epoch = before_crc
    for length in (batch_length, HEADER_BYTES - 12 + len(body)):
        read_all(sealed(HEADER.pack(base_offset, length, leader_epoch, 2, 0, *after_crc) + body))


@fuzz
@given(codec=st.sampled_from(CODECS), changes=mutations, cut=st.integers(0, 60))
def test_mutated_batch(codec: int, changes: list[tuple[int, int]], cut: int) -> None:
    data = mutate(encode_batch(RECORDS, codec=codec), changes)
    read_all(data)
    read_all(data[: len(data) - cut])
    if len(data) > HEADER_BYTES:
        read_all(sealed(data))


@fuzz
@given(codec=st.sampled_from(CODECS), changes=mutations)
def test_mutated_records_behind_a_good_header(codec: int, changes: list[tuple[int, int]]) -> None:
    """What a client can do that computes its CRC: damage before compression."""
    body = codecs.compress(codec, mutate(BODY, changes))
    header = build_header(body, attributes=codec, base_timestamp=NOW, max_timestamp=NOW, record_count=len(RECORDS))
    check_batch(memoryview(header + body), max_bytes=LIMIT)
    read_all(header + body)


@fuzz
@given(codec=st.sampled_from(CODECS), body=st.binary(max_size=300), count=st.integers(1, 40))
def test_random_records_behind_a_good_header(codec: int, body: bytes, count: int) -> None:
    for payload in (body, codecs.compress(codec, body)):
        header = build_header(payload, attributes=codec, base_timestamp=NOW, max_timestamp=NOW, record_count=count)
        read_all(header + payload)


@fuzz
@given(codec=st.sampled_from(CODECS[1:]), changes=mutations, size=st.integers(0, 5000))
def test_mutated_compressed_bytes(codec: int, changes: list[tuple[int, int]], size: int) -> None:
    compressed = mutate(codecs.compress(codec, (b"some text, " * 500)[:size]), changes)
    with contextlib.suppress(BadBatch):
        assert len(codecs.decompress(codec, compressed, max_bytes=3000)) <= 3000


@fuzz
@given(data=st.binary(max_size=200), changes=mutations)
def test_producer_snapshot(data: bytes, changes: list[tuple[int, int]]) -> None:
    states = ProducerStates()
    for producer in range(5):
        header = read_header(encode_batch(RECORDS, producer_id=producer, producer_epoch=0, base_sequence=0))
        states.update(header, producer)
    snapshot = states.snapshot()
    for bytes_read in (data, snapshot_of(data), mutate(snapshot, changes), snapshot_of(mutate(snapshot[6:], changes))):
        with contextlib.suppress(CorruptSnapshot):
            ProducerStates().load(bytes_read)


def snapshot_of(body: bytes) -> bytes:
    return b"\x00\x01" + crc32c(body).to_bytes(4, "big") + body


@pytest.mark.parametrize("codec", CODECS)
def test_records_that_are_not_there_cost_nothing(codec: int) -> None:
    """A header that promises two thousand million records."""
    body = codecs.compress(codec, BODY)
    header = build_header(body, attributes=codec, base_timestamp=NOW, max_timestamp=NOW, record_count=2**31 - 1)
    tracemalloc.start()
    with pytest.raises(BadBatch):
        decode_batch(header + body, read_header(header))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


BOMB = """
import resource, sys
from zafka.storage import codecs
from zafka.storage.batch import build_header, check_batch
from zafka.storage.errors import BatchTooLarge
from zafka.storage.records import decode_batch, find_timestamp

codec = int(sys.argv[1])
import cramjam  # so that it does not count
bomb = sys.stdin.buffer.read()
header = build_header(bomb, attributes=codec, base_timestamp=0, max_timestamp=0, record_count=1)
batch = check_batch(memoryview(header + bomb), max_bytes=64 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for reader in (find_timestamp, decode_batch):
    arguments = (0,) if reader is find_timestamp else ()
    try:
        reader(header + bomb, batch, *arguments)
    except BatchTooLarge:
        continue
    sys.exit("was decompressed")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("codec", CODECS[1:])
def test_decompression_bomb_is_refused_in_bounded_memory(codec: int) -> None:
    """In a process of its own, so that native memory counts too."""
    bomb = bomb_of(codec)
    assert len(bomb) < 64 << 20
    command = [sys.executable, "-c", BOMB, str(codec)]
    run = subprocess.run(command, input=bomb, capture_output=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr.decode()
    grown_kib = int(run.stdout)
    assert grown_kib < 280 << 10  # 128 MiB are allowed; zlib needs them twice


def bomb_of(codec: int) -> bytes:
    """256 MiB of zeros. Made from compressed parts where the format allows to put them one behind the other."""
    zeros = bytes(16 << 20)
    if codec == codecs.GZIP:
        squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
        return b"".join([*(squeeze.compress(zeros) for _ in range(16)), squeeze.flush()])
    part = codecs.compress(codec, zeros)
    if codec == codecs.SNAPPY:
        return part[:16] + part[16:] * 16
    return part * 16
