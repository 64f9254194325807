"""A disk that fails on demand: which call fails how, what stays as it is, and where the points to crash at lie."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.unit.broker_bench import make_batch
from tests.unit.disks import ClosingDisk
from zafka.runtime.faults.board import Board, Watch
from zafka.runtime.faults.disk import FaultyDisk
from zafka.runtime.faults.kinds import DISK_ERRORS, Crash, DiskError
from zafka.runtime.faults.points import POINTS
from zafka.storage.batch import check_batch
from zafka.storage.config import parse_config
from zafka.storage.disk import File
from zafka.storage.errors import DiskFull
from zafka.storage.recovery import recover

NAME = "partition orders-0"


class Died(BaseException):
    """In place of the process's death."""


class Failing:
    """A `FaultyDisk` with its board. slept: of slow flushes."""

    def __init__(self, folder: Path) -> None:
        self.board = Board(folder)
        self.watch = Watch(folder, NAME)
        self.slept: list[float] = []
        self.disk = FaultyDisk(ClosingDisk(), self.watch, sleep=self.slept.append)

    def fail(self, error: str, **fields: object) -> None:
        self.board.post(DiskError(target="partition *", error=error, **fields))  # type: ignore[arg-type]

    def crash(self, point: str, *, skip: int = 0) -> None:
        self.board.post(Crash(target=NAME, point=point, skip=skip))


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Failing]:
    def die() -> NoReturn:
        raise Died

    for module in ("points", "disk"):
        monkeypatch.setattr(f"zafka.runtime.faults.{module}.die", die)
    failing = Failing(tmp_path / "faults")
    yield failing
    failing.watch.close()
    failing.board.close()


@pytest.fixture
def file(failing: Failing, tmp_path: Path) -> Iterator[File]:
    file = failing.disk.open(tmp_path / "0.log", create=True)
    failing.disk.pwritev(file, [b"0123", b"4567"], 0)
    yield file
    failing.disk.close(file)


def refused(call: Callable[[], object]) -> int:
    with pytest.raises(OSError) as raised:
        call()
    assert raised.value.errno is not None
    return raised.value.errno


EXPECTED = {
    "ENOSPC": {"write": errno.ENOSPC, "create": errno.ENOSPC},
    "SHORT": {"write": errno.ENOSPC},
    "EIO": {"read": errno.EIO, "write": errno.EIO, "flush": errno.EIO, "directory": errno.EIO},
    "EIO-READ": {"read": errno.EIO},
    "EIO-WRITE": {"write": errno.EIO, "create": errno.EIO},
    "FSYNC": {"flush": errno.EIO, "directory": errno.EIO},
    "FLIP": {},
    "SLOW": {},
}


@pytest.mark.parametrize("error", DISK_ERRORS)
def test_each_error_fails_its_calls_and_no_other(failing: Failing, file: File, tmp_path: Path, error: str) -> None:
    disk = failing.disk
    failing.fail(error, delay_ms=5 if error == "SLOW" else 0)
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: disk.pread(file, 8, 0),
        "flush": lambda: disk.fdatasync(file),
        "directory": lambda: disk.fsync_dir(tmp_path),
        "create": lambda: disk.close(disk.open(tmp_path / "1.log", create=True)),
        "open": lambda: disk.close(disk.open(file.path, create=True)),
        "size": lambda: disk.size(file),
        "truncate": lambda: disk.truncate(file, 8),
        "write": lambda: disk.pwritev(file, [b"xx"], 0),
    }
    for name, call in calls.items():
        if name in EXPECTED[error]:
            assert refused(call) == EXPECTED[error][name], name
        else:
            call()
    assert failing.slept == ([0.005, 0.005] if error == "SLOW" else [])


def test_a_short_write_leaves_half(failing: Failing, file: File) -> None:
    failing.fail("SHORT", times=1)
    assert refused(lambda: failing.disk.pwritev(file, [b"ab", b"cdef"], 8)) == errno.ENOSPC
    assert failing.disk.pread(file, 100, 0) == b"01234567abc"


def test_a_flip_is_one_bit_chosen_by_the_seed(failing: Failing, file: File) -> None:
    failing.fail("FLIP", times=1, seed=3)
    read = failing.disk.pread(file, 8, 0)
    differing = [(one ^ other).bit_count() for one, other in zip(read, b"01234567", strict=True)]
    assert sorted(differing) == [0] * 7 + [1]
    failing.board.remove(list(failing.board.posted))
    failing.fail("FLIP", times=1, seed=3)
    assert failing.disk.pread(file, 8, 0) == read
    assert failing.disk.pread(file, 8, 0) == b"01234567"


def test_only_the_files_that_the_glob_means(failing: Failing, file: File, tmp_path: Path) -> None:
    failing.fail("EIO-WRITE", path_glob="*.index")
    failing.fail("EIO-WRITE", path_glob="elsewhere/*.log")
    failing.disk.pwritev(file, [b"x"], 0)
    failing.fail("EIO-WRITE", path_glob=f"{tmp_path.name}/*.log")
    assert refused(lambda: failing.disk.pwritev(file, [b"x"], 0)) == errno.EIO


def test_a_log_takes_a_write_back_that_had_no_room(failing: Failing, tmp_path: Path) -> None:
    log, _ = recover(failing.disk, tmp_path / "t-0", parse_config({}), 0)
    batch = memoryview(make_batch(b"value"))
    append = [(check_batch(batch, max_bytes=1000), batch)]
    log.append(append, leader_epoch=0, now_ms=0)
    size = log.size_bytes
    for error in ("ENOSPC", "SHORT"):
        failing.fail(error, times=1)
        with pytest.raises(DiskFull):
            log.append(append, leader_epoch=0, now_ms=0)
        assert (tmp_path / "t-0" / "00000000000000000000.log").stat().st_size == size
    assert log.append(append, leader_epoch=0, now_ms=0) == [1]
    log.close()


@pytest.mark.parametrize(
    ("point", "left"),
    [("before-append", b"01234567"), ("during-append", b"01234567ab"), ("after-append", b"01234567abcd")],
)
def test_a_crash_at_an_append_leaves_what_it_should(failing: Failing, file: File, point: str, left: bytes) -> None:
    failing.crash(point)
    with pytest.raises(Died):
        failing.disk.pwritev(file, [b"abcd"], 8)
    assert file.path.read_bytes() == left
    failing.disk.pwritev(file, [b"abcd"], 8)  # once


def test_a_crash_at_the_nth_pass(failing: Failing, file: File) -> None:
    failing.crash("after-append", skip=2)
    failing.disk.pwritev(file, [b"x"], 0)
    failing.disk.pwritev(file, [b"x"], 1)
    with pytest.raises(Died):
        failing.disk.pwritev(file, [b"x"], 2)


def test_renames_and_new_files_have_their_points(failing: Failing, tmp_path: Path) -> None:
    disk = failing.disk
    (tmp_path / "recovery-checkpoint.tmp").touch()
    for point, there in (("before-checkpoint-rename", False), ("after-checkpoint-rename", True)):
        failing.crash(point)
        with pytest.raises(Died):
            disk.rename(tmp_path / "recovery-checkpoint.tmp", tmp_path / "recovery-checkpoint")
        assert (tmp_path / "recovery-checkpoint").exists() == there
    failing.crash("during-roll")
    disk.close(disk.open(tmp_path / f"{0:020d}.log", create=True))  # the first segment is no roll
    with pytest.raises(Died):
        disk.open(tmp_path / f"{7:020d}.log", create=True)
    assert (tmp_path / f"{7:020d}.log").stat().st_size == 0


def test_every_point_is_told() -> None:
    assert all(point.told for point in POINTS.values())
    assert len({(point.step, point.moment, point.glob) for point in POINTS.values()}) == len(POINTS)
