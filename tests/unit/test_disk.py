"""The real disk: what is read without waiting for it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from zafka.storage import disk as disks
from zafka.storage.disk import File, PosixDisk

SIZE = 1 << 20


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    """A file of 1 MiB, as it was written: in the page cache."""
    disk = PosixDisk()
    file = disk.open(tmp_path / "file", create=True)
    disk.pwritev(file, [bytes(range(256)) * (SIZE // 256)], 0)
    yield file
    disk.close(file)


def in_page_cache(file: File, position: int) -> bool:
    """What the kernel says of one byte."""
    try:
        return os.preadv(file.fd, [bytearray(1)], position, os.RWF_NOWAIT) == 1
    except OSError as error:
        assert error.errno in disks.NOT_NOW
        return False


def test_what_is_in_the_page_cache_is_read_as_ever(file: File) -> None:
    disk = PosixDisk()
    if in_page_cache(file, 0):  # else this file system cannot say
        for length, position in ((SIZE, 0), (10, 300), (SIZE, SIZE - 10), (10, SIZE), (10, 2 * SIZE)):
            assert disk.pread_cached(file, length, position) == disk.pread(file, length, position)


def test_what_is_not_in_the_page_cache_is_not_waited_for(file: File) -> None:
    disk = PosixDisk()
    os.fsync(file.fd)
    os.posix_fadvise(file.fd, SIZE // 2, 0, os.POSIX_FADV_DONTNEED)
    if not in_page_cache(file, SIZE // 2):  # a file system in memory keeps it
        assert disk.pread_cached(file, 10, SIZE // 2) is None
        assert disk.pread_cached(file, SIZE, 0) is None  # half of it is there
    assert disk.pread(file, SIZE, 0)[-1] == 255
    assert in_page_cache(file, SIZE - 1) == (disk.pread_cached(file, SIZE, 0) is not None)


def test_what_is_cached_in_part_is_for_a_thread(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, position, flags: preadv(fd, [memoryview(buffers[0])[:10]], position))
    monkeypatch.setattr(disks, "READ_NOWAIT", 1)
    assert PosixDisk().pread_cached(file, SIZE, 0) is None


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EOPNOTSUPP, errno.EIO])
def test_only_an_error_of_the_disk_is_one(file: File, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def preadv(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "preadv", preadv)
    if number == errno.EIO:
        with pytest.raises(OSError, match="Input/output"):
            PosixDisk().pread_cached(file, SIZE, 0)
    else:
        assert PosixDisk().pread_cached(file, SIZE, 0) is None


def test_without_the_system_call_all_is_for_a_thread(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "READ_NOWAIT", 0)
    assert PosixDisk().pread_cached(file, 1, 0) is None
