"""The recovery checkpoint: any damage is seen, and there is always one whole one."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from crc32c import crc32c
from hypothesis import given, strategies as st

from tests.unit.memory_disk import MemoryDisk
from zafka.storage.checkpoint import (
    CHECKPOINT_NAME,
    Checkpoint,
    decode_checkpoint,
    encode_checkpoint,
    find_checkpoint,
    owner_of,
    publish,
    read_checkpoint,
    write_temporary,
)
from zafka.storage.errors import CorruptCheckpoint
from zafka.storage.producer_state import ProducerStates
from zafka.storage.segment import SegmentRow

DIRECTORY = Path("/data/orders-0")

offsets = st.integers(-1, 2**63 - 1)
counts = st.integers(0, 2**31 - 1)
entries = st.integers(0, 2**20)


@st.composite
def checkpoints(draw: st.DrawFn) -> Checkpoint:
    """Segments one behind the other, with whole index entries."""
    ends = [draw(counts)]
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        ends.append(ends[-1] + draw(counts))
        rows.append(SegmentRow(
            ends[-2], ends[-1], draw(counts), 8 * draw(entries), 12 * draw(entries), draw(offsets), draw(offsets)))
    epochs = draw(st.lists(st.tuples(counts, counts)))
    start = draw(st.integers(0, ends[-1]))
    return Checkpoint(ends[-1], start, draw(offsets), tuple(rows), tuple(epochs), draw(st.binary()),
                      draw(st.binary(min_size=20, max_size=20)), draw(st.integers(0, ends[-1])), draw(offsets))


EXAMPLE = Checkpoint(30, 10, 20, (SegmentRow(10, 30, 2000, 16, 24, 5, 29),), ((0, 10), (3, 25)), b"producers")


@given(checkpoints())
def test_what_is_written_is_read(checkpoint: Checkpoint) -> None:
    assert decode_checkpoint(encode_checkpoint(checkpoint)) == checkpoint


@pytest.mark.parametrize("change", [
    {"size_bytes": -1}, {"offset_index_bytes": 15}, {"time_index_bytes": -12}, {"end_offset": 9}, {"base_offset": -1},
])  # fmt: skip
def test_a_segment_that_cannot_be_is_seen_though_the_crc_fits(change: dict[str, int]) -> None:
    row = EXAMPLE.segments[0]._replace(**change)
    with pytest.raises(CorruptCheckpoint, match="cannot be"):
        decode_checkpoint(encode_checkpoint(EXAMPLE._replace(segments=(row,))))


@given(st.integers(0, len(encode_checkpoint(EXAMPLE)) * 8 - 1))
def test_any_flipped_bit_is_seen(bit: int) -> None:
    data = bytearray(encode_checkpoint(EXAMPLE))
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptCheckpoint):
        decode_checkpoint(bytes(data))


@given(st.integers(0, len(encode_checkpoint(EXAMPLE)) - 1))
def test_any_missing_end_is_seen(length: int) -> None:
    with pytest.raises(CorruptCheckpoint):
        decode_checkpoint(encode_checkpoint(EXAMPLE)[:length])


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(CorruptCheckpoint):
        decode_checkpoint(data)


@pytest.mark.parametrize(("version", "owner"), [(1, b""), (2, EXAMPLE.owner)])
def test_one_of_an_older_version_is_read(version: int, owner: bytes) -> None:
    """The first did not say whose it is, both nothing of compaction."""
    body = encode_checkpoint(EXAMPLE)[10:]
    body = owner + body[20 : 20 + 24] + body[20 + 24 + 16 :]
    data = struct.pack(">4shI", b"zfkc", version, crc32c(body)) + body
    assert decode_checkpoint(data) == EXAMPLE._replace(owner=owner)


SOUND = EXAMPLE._replace(producers=ProducerStates().snapshot(), owner=bytes(range(16)) + (3).to_bytes(4, "big"))


@pytest.mark.parametrize(
    ("checkpoint", "found"),
    [
        (SOUND, "ok"),
        (SOUND._replace(owner=b""), "ok"),  # of the first version
        (SOUND._replace(owner=bytes(20)), "foreign: it is of topic id AAAAAAAAAAAAAAAAAAAAAA, partition 0"),
        (SOUND._replace(owner=SOUND.owner[:16] + bytes(4)), "foreign: it is of topic id AAECAwQFBgcICQoLDA0ODw, partition 0"),
        (EXAMPLE._replace(owner=SOUND.owner), "corrupt: "),  # its producers are nonsense
    ],
)
def test_only_its_own_partition_believes_it(checkpoint: Checkpoint, found: str) -> None:
    disk = MemoryDisk()
    directory = Path("/data/orders-3")
    disk.make_directory(directory)
    disk.write(directory / "partition.metadata", b"version: 0\ntopic_id: AAECAwQFBgcICQoLDA0ODw")
    data = encode_checkpoint(checkpoint)
    if not checkpoint.owner:
        body = data[10 : 10 + 24] + data[10 + 24 + 16 :]
        data = struct.pack(">4shI", b"zfkc", 1, crc32c(body)) + body
    disk.write(directory / CHECKPOINT_NAME, data)
    believed, said = find_checkpoint(disk, directory, owner_of(disk, directory))
    assert said.startswith(found) and (believed == checkpoint) == (found == "ok")
    assert owner_of(disk, directory) == SOUND.owner


def test_a_power_cut_leaves_the_old_or_the_new_one() -> None:
    newer = EXAMPLE._replace(flushed_offset=31, producers=bytes(3000))
    found = set()
    for seed in range(100):
        disk = MemoryDisk(seed)
        disk.make_directory(DIRECTORY)
        disk.write(DIRECTORY / CHECKPOINT_NAME, encode_checkpoint(EXAMPLE))
        temporary = write_temporary(disk, DIRECTORY, newer)
        if seed % 4:
            disk.fdatasync(temporary)
            publish(disk, DIRECTORY, temporary)
        disk.power_cut()
        found.add(read_checkpoint(disk, DIRECTORY))
    assert found == {EXAMPLE, newer}


def test_none_where_there_is_none() -> None:
    disk = MemoryDisk()
    disk.make_directory(DIRECTORY)
    assert read_checkpoint(disk, DIRECTORY) is None


def test_full_disk_leaves_the_old_one() -> None:
    disk = MemoryDisk()
    disk.make_directory(DIRECTORY)
    disk.write(DIRECTORY / CHECKPOINT_NAME, encode_checkpoint(EXAMPLE))
    disk.room_bytes = 10
    with pytest.raises(OSError, match="No space"):
        write_temporary(disk, DIRECTORY, EXAMPLE)
    assert not disk.open_files
    assert read_checkpoint(disk, DIRECTORY) == EXAMPLE


def test_what_a_longer_one_left_when_it_was_given_up_is_no_part_of_the_next() -> None:
    disk = MemoryDisk()
    disk.make_directory(DIRECTORY)
    disk.close(write_temporary(disk, DIRECTORY, EXAMPLE._replace(producers=bytes(3000))))
    publish(disk, DIRECTORY, write_temporary(disk, DIRECTORY, EXAMPLE))
    assert read_checkpoint(disk, DIRECTORY) == EXAMPLE


RIGHT = Checkpoint(5, 0, 5, (SegmentRow(0, 5, 300, 0, 0, -1, -1),), ((0, 0),), ProducerStates().snapshot())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"segments": ()}, "do not fit together"),
        ({"segments": (SegmentRow(0, -1, 300, 0, 0, -1, -1),)}, "cannot be"),
        ({"leader_epochs": ((-1, 0),)}, "leader epochs"),
        ({"log_start_offset": 6}, "a log from offset 6 to 5"),
        ({"log_start_offset": -1}, "a log from offset -1 to 5"),
        ({"cleaned_offset": 6}, "a log up to 5 that is clean to 6"),
        ({"cleaned_offset": -1}, "a log up to 5 that is clean to -1"),
        ({"swapped": -2}, "cannot be"),
    ],
)
def test_what_cannot_be_is_refused_though_its_crc_fits(wrong: dict[str, object], told: str) -> None:
    assert decode_checkpoint(encode_checkpoint(RIGHT)) == RIGHT
    with pytest.raises(CorruptCheckpoint, match=told):
        decode_checkpoint(encode_checkpoint(RIGHT._replace(**wrong)))  # type: ignore[arg-type]
