"""Reading segment files for clients: the right file, checked if cold, fewer bytes at its end."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path

import pytest

from tests.unit.broker_bench import make_batch
from tests.unit.disks import ClosingDisk
from tests.unit.memory_disk import MemoryDisk
from zafka.actors.broker_files import COLD_AT_ONCE_BYTES_MAX, OpenFiles, read_checked, remove_directory
from zafka.actors.gateway.effects import FileSlice, ReadFault
from zafka.storage.disk import File, PosixDisk

DATA = Path("/data")
ONE, TWO = make_batch(b"one"), make_batch(b"two", base_offset=1)


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    path = tmp_path / "00000000000000000000.log"
    path.write_bytes(ONE + TWO)
    return path


def slice_of(path: Path, position: int = 0, length: int = 1 << 20, *, inode: int | None = None) -> FileSlice:
    return FileSlice(str(path), path.stat().st_ino if inode is None else inode, position, length, False)


def test_the_slice_is_read_and_the_end_of_the_file_is_the_end(segment: Path) -> None:
    files = OpenFiles(ClosingDisk())
    assert files.read(slice_of(segment, len(ONE), len(TWO))) == TWO
    assert files.read(slice_of(segment, len(ONE))) == TWO
    assert read_checked(PosixDisk(), slice_of(segment)) == memoryview(ONE + TWO)


def test_cold_bytes_in_the_page_cache_are_read_and_checked_at_once(segment: Path) -> None:
    files = OpenFiles(ClosingDisk())
    cold = slice_of(segment)._replace(cold=True)
    assert files.read_at_once([cold, slice_of(segment, len(ONE))]) == [ONE + TWO, TWO]
    assert files.read_at_once([cold._replace(inode=1)]) == [ReadFault.GONE]
    segment.write_bytes(bytes(len(ONE)))
    assert files.read_at_once([cold]) == [ReadFault.CORRUPT]
    segment.write_bytes(ONE + bytes(len(TWO)))
    assert files.read_at_once([cold]) == [ONE]
    files.close()


def test_cold_bytes_that_are_many_or_not_in_the_page_cache_are_for_a_thread(segment: Path) -> None:
    class ColdDisk(ClosingDisk):
        def pread_cached(self, file: File, length: int, position: int) -> None:
            return None

    hot = slice_of(segment)
    cold = hot._replace(cold=True)
    assert OpenFiles(ColdDisk()).read_at_once([hot, cold]) is None
    assert OpenFiles(ColdDisk()).read_at_once([hot]) == [ONE + TWO]
    files = OpenFiles(ClosingDisk())
    assert files.read_at_once([cold._replace(length=COLD_AT_ONCE_BYTES_MAX), hot]) is not None
    assert files.read_at_once([cold._replace(length=COLD_AT_ONCE_BYTES_MAX), cold._replace(length=1)]) is None
    files.close()


def test_a_directory_that_goes_never_comes_back_in_parts() -> None:
    """A power cut may undo what was not flushed, each part for itself: also the rename that moved it aside."""
    for seed in range(30):
        disk = MemoryDisk(seed)
        disk.make_directory(DATA)
        disk.make_directory(DATA / "t-0")
        for name in ("partition.metadata", "00000000000000000000.log"):
            disk.write(DATA / "t-0" / name, b"x")
        disk.fsync_dir(DATA)
        disk.rename(DATA / "t-0", DATA / "t-0.id-delete")
        remove_directory(disk, DATA / "t-0.id-delete")
        disk.power_cut()
        assert not disk.exists(DATA / "t-0")


def test_another_file_under_the_name_is_not_read(segment: Path, tmp_path: Path) -> None:
    files = OpenFiles(ClosingDisk())
    for read in (files.read, files.read_cached, partial(read_checked, PosixDisk())):
        assert read(slice_of(segment, inode=1)) is ReadFault.GONE
        assert read(slice_of(tmp_path / "no.log", inode=1)) is ReadFault.GONE


def test_a_file_that_was_replaced_is_opened_afresh(segment: Path) -> None:
    files = OpenFiles(ClosingDisk())
    old = slice_of(segment)
    assert files.read(old) == ONE + TWO
    os.rename(segment, segment.with_suffix(".deleted"))
    segment.write_bytes(TWO)
    assert files.read(old) == ONE + TWO  # the one that is open is the one that was meant
    assert files.read(slice_of(segment)) == TWO
    assert files.read(old) is ReadFault.GONE


def test_few_files_stay_open_and_unused_ones_are_closed(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    files = OpenFiles(ClosingDisk(), limit=3)
    paths = []
    for index in range(10):
        paths.append(tmp_path / f"{index}.log")
        paths[-1].write_bytes(ONE)
        assert files.read(slice_of(paths[-1])) == ONE
    assert len(os.listdir("/proc/self/fd")) == before + 3
    files.sweep()
    files.read(slice_of(paths[-1]))
    files.sweep()
    assert len(os.listdir("/proc/self/fd")) == before + 1
    files.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_bit_rot_in_cold_bytes_is_never_handed_out(segment: Path) -> None:
    rotten = bytearray(ONE + TWO)
    rotten[-1] ^= 1
    segment.write_bytes(rotten)
    assert read_checked(PosixDisk(), slice_of(segment)) == memoryview(ONE)
    assert read_checked(PosixDisk(), slice_of(segment, len(ONE))) is ReadFault.CORRUPT
    segment.write_bytes(bytes(len(ONE)))
    assert read_checked(PosixDisk(), slice_of(segment)) is ReadFault.CORRUPT


class UnreadableDisk(PosixDisk):
    def pread(self, file: File, length: int, position: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    pread_cached = pread


def test_what_the_disk_cannot_read_is_told_and_not_raised(segment: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    files = OpenFiles(UnreadableDisk())
    assert files.read(slice_of(segment)) is ReadFault.UNREADABLE
    assert files.read_cached(slice_of(segment)) is ReadFault.UNREADABLE
    assert read_checked(UnreadableDisk(), slice_of(segment)) is ReadFault.UNREADABLE
    files.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_batch_that_goes_back_is_not_handed_out_though_its_crc_fits(segment: Path) -> None:
    """The CRC does not cover the base offset."""
    segment.write_bytes(ONE + TWO + make_batch(b"three", base_offset=1))
    assert read_checked(PosixDisk(), slice_of(segment)) == memoryview(ONE + TWO)


class FewFiles(PosixDisk):
    """May have so many files open."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open_now = 0

    def open(self, path: Path, *, create: bool = False) -> File:
        if self.open_now == self.limit:
            raise OSError(errno.EMFILE, "Too many open files")
        self.open_now += 1
        return super().open(path, create=create)

    def close(self, file: File) -> None:
        self.open_now -= 1
        super().close(file)


def test_files_kept_for_later_go_where_no_more_may_be_open(tmp_path: Path) -> None:
    disk = FewFiles(2)
    files = OpenFiles(disk)
    for index in range(5):
        path = tmp_path / f"{index}.log"
        path.write_bytes(ONE)
        assert files.read(slice_of(path)) == ONE
        assert disk.open_now <= 2
    files.close()
    disk.limit = 0
    for read in (files.read, files.read_cached, partial(read_checked, disk)):
        assert read(slice_of(path)) is ReadFault.UNREADABLE
    assert disk.open_now == 0
