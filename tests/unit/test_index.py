"""The sparse indexes: what is in memory and what is stored answers alike, and stored entries are not loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from tests.unit.memory_disk import MemoryDisk
from zafka.storage.errors import IndexMismatch
from zafka.storage.index import OFFSET_ENTRY, TIME_ENTRY, Index

DIRECTORY = Path("/data/orders-0")
PATH = DIRECTORY / "00000000000000000000.index"


def new_index(disk: MemoryDisk | None = None) -> tuple[MemoryDisk, Index]:
    disk = disk or MemoryDisk()
    disk.make_directory(DIRECTORY)
    return disk, Index(disk, PATH, OFFSET_ENTRY)


@given(
    steps=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 100)), max_size=60),
    stored=st.integers(0, 60), wanted=st.integers(-1, 6500), field=st.integers(0, 1),
)  # fmt: skip
def test_floor_is_the_last_entry_not_beyond(
    steps: list[tuple[int, int]], stored: int, wanted: int, field: int
) -> None:
    _, index = new_index()
    entries: list[tuple[int, int]] = []
    offset = position = 0
    for count, (offsets, positions) in enumerate(steps):
        if count == stored:
            index.store()
        offset, position = offset + offsets, position + positions
        entries.append((offset, position))
        index.append(offset, position)
    expected = [entry for entry in entries if entry[field] <= wanted]
    assert index.floor(wanted, field=field) == (expected[-1] if expected else None)
    assert index.last() == (entries[-1] if entries else None)
    assert index.size_bytes == len(entries) * OFFSET_ENTRY.size


def test_large_stored_index_is_searched_with_small_reads() -> None:
    disk, index = new_index()
    for i in range(100_000):
        index.append(i * 2, i * 4096)
    index.store()
    disk.bytes_read = 0
    assert index.floor(77_777) == (77_776, 38_888 * 4096)
    assert index.floor(38_888 * 4096 + 5, field=1) == (77_776, 38_888 * 4096)
    assert disk.bytes_read < 10_000


def test_bytes_are_kafkas() -> None:
    disk, index = new_index()
    index.append(3, 0x1234)
    index.append(9, 0x01000000)
    index.store()
    assert disk.read(PATH) == bytes.fromhex("00000003 00001234 00000009 01000000")
    assert TIME_ENTRY.pack(1, 2) == bytes.fromhex("0000000000000001 00000002")


def test_store_writes_only_what_is_new() -> None:
    disk, index = new_index()
    index.append(1, 10)
    index.store()
    index.append(2, 20)
    file = index.store()
    assert disk.read(PATH) == OFFSET_ENTRY.pack(1, 10) + OFFSET_ENTRY.pack(2, 20)
    assert disk.size(file) == index.size_bytes == 16
    index.release()
    assert not disk.open_files
    assert index.floor(2) == (2, 20)  # opened again


def test_store_on_a_full_disk_can_be_done_again() -> None:
    disk, index = new_index()
    index.append(1, 10)
    disk.room_bytes = 5
    with pytest.raises(OSError, match="No space"):
        index.store()
    assert index.floor(1) == (1, 10)
    disk.room_bytes = None
    index.store()
    assert disk.read(PATH) == OFFSET_ENTRY.pack(1, 10)


def test_a_file_that_lost_its_end_is_a_mismatch() -> None:
    disk, index = new_index()
    for i in range(10):
        index.append(i, i)
    disk.truncate(index.store(), 12)
    with pytest.raises(IndexMismatch):
        index.floor(9)
