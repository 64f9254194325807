"""Data and run directories: whose they are, who uses them, and numbers that are never given out twice."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zafka.runtime import data_dir as data_dir_module
from zafka.runtime.data_dir import INCARNATIONS_BLOCK, DataDirectory, read_properties, read_run
from zafka.runtime.errors import CannotStart
from zafka.runtime.run_dir import RunDirectory, sweep

Open = Callable[..., DataDirectory]


@pytest.fixture
def open_dir(tmp_path: Path) -> Iterator[Open]:
    made: list[DataDirectory] = []

    def open_dir(*broker_ids: int, path: Path = tmp_path / "data") -> DataDirectory:
        made.append(DataDirectory(path, broker_ids=broker_ids or (1,), lock_wait_s=0.05))
        return made[-1]

    yield open_dir
    for directory in made:
        with contextlib.suppress(OSError):  # it was closed
            if os.readlink(f"/proc/self/fd/{directory._lock}").startswith(str(tmp_path)):
                crash(directory)


def crash(directory: DataDirectory) -> None:
    """As if the process had died: the lock is free, nothing else was done."""
    os.close(directory._lock)


def test_identity_is_kept(open_dir: Open) -> None:
    first = open_dir(1, 2)
    crash(first)
    second = open_dir(1, 2)
    assert second.cluster_id == first.cluster_id
    assert len(second.cluster_id) == 22
    assert read_properties(first.path / "broker-2" / "meta.properties") == {
        "version": "1", "cluster.id": first.cluster_id, "node.id": "2", "format": "1"}


def test_incarnations_are_never_given_out_twice(open_dir: Open) -> None:
    first = open_dir()
    given = [first.next_incarnation() for _ in range(3 * INCARNATIONS_BLOCK)]
    assert given == list(range(1, 3 * INCARNATIONS_BLOCK + 1))
    crash(first)
    second = open_dir()
    after_crash = second.next_incarnation()
    assert after_crash > given[-1]
    second.close()
    assert open_dir().next_incarnation() == after_crash + 1


def test_a_power_cut_takes_no_name_and_no_number(
    open_dir: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[Path, set[str]] = {}  # of directories, as last synced
    texts: dict[int, str] = {}  # of files, by inode
    fsync = os.fsync

    def note(fd: int) -> None:
        fsync(fd)
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if path.is_dir():
            names[path] = set(os.listdir(path))
        else:
            texts[path.stat().st_ino] = path.read_text()

    monkeypatch.setattr(os, "fsync", note)
    path = tmp_path / "a" / "data"
    directory = open_dir(1, 2, path=path)
    assert "a" in names[tmp_path]
    assert "data" in names[tmp_path / "a"]
    assert {"broker-1", "broker-2", "meta.properties", "incarnations"} <= names[path]
    directory.next_incarnation()
    directory.close()
    file = path / "incarnations"
    assert texts.get(file.stat().st_ino) == file.read_text()  # else it might be empty, and refuse the next start
    # Killed after it had made the directories and before it synced them: the next start does.
    names.clear()
    open_dir(1, 2, path=path)
    assert "data" in names[tmp_path / "a"]
    assert {"broker-1", "broker-2"} <= names[path]


def test_full_disk_leaves_numbers_for_a_while(open_dir: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = open_dir()

    def full(file: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(data_dir_module, "write_durably", full)
    for _ in range(INCARNATIONS_BLOCK):
        directory.next_incarnation()
    with pytest.raises(OSError, match="No space left"):
        directory.next_incarnation()
    crash(directory)
    with pytest.raises(CannotStart, match=r"cannot write in .*: No space left on device"):
        open_dir()


def test_second_owner_is_refused_with_the_pid_of_the_first(open_dir: Open, tmp_path: Path) -> None:
    first = open_dir()
    first.write_run(run_dir=tmp_path, control="ipc://x", cluster="test")
    assert read_run(first.path) == {
        "pid": os.getpid(), "run_dir": str(tmp_path), "control": "ipc://x", "cluster": "test"}
    with pytest.raises(CannotStart, match=f"is in use by process {os.getpid()}; stop that one first"):
        open_dir()


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"meta.properties": "version=1\ncluster.id=abc\nnode.id=1\n"}, "is Apache Kafka's, not zafka's"),
        ({"meta.properties": "version=1\ncluster.id=abc\nformat=2\n"}, "says format 2, this version of zafka writes"),
        ({"meta.properties": "version=1\nformat=1\n"}, "has no cluster.id"),
        ({"broker-1/orders-0/0.log": ""}, "holds broker-1 but no meta.properties"),
        (
            {"meta.properties": "version=1\ncluster.id=abc\nformat=1\n",
             "broker-1/meta.properties": "version=1\ncluster.id=xyz\nnode.id=1\nformat=1\n"},
            "belongs to cluster xyz, and .* to abc",
        ),
        (
            {"meta.properties": "version=1\ncluster.id=abc\nformat=1\n",
             "broker-1/meta.properties": "version=1\ncluster.id=abc\nnode.id=2\nformat=1\n"},
            "is the data of broker 2, not 1",
        ),
        ({"incarnations": "many\n"}, "incarnations holds no number"),
        ({"DISK_FAULT": "flush of __cluster failed\n"}, "flush of __cluster failed. Check the disk under"),
    ],
)
def test_foreign_or_broken_directories_are_refused(
    open_dir: Open, tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        write(tmp_path / "data" / name, text)
    with pytest.raises(CannotStart, match=message):
        open_dir()


def test_place_that_cannot_be_a_directory(open_dir: Open, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStart, match=r"cannot use .*file/data as data directory: Not a directory"):
        open_dir(path=tmp_path / "file" / "data")


# -- run directories -----------------------------------------------------------------------------


def test_run_directories_of_the_dead_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    dead = RunDirectory()
    os.close(dead._lock)
    (dead.path / "root").write_text("a socket")
    for name in ("zafka-run-7-mine", "zafka-test", "zafka-run-9-00000000.d"):
        (tmp_path / name).mkdir()  # look alike, but are nobody's run directory
    living = RunDirectory()
    assert not dead.path.exists()
    assert sweep(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 4
    assert living.path.stat().st_mode & 0o777 == 0o700
    living.close()
    assert not living.path.exists()


def test_long_runtime_directory_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    directory = RunDirectory()
    assert directory.path.parent == Path("/tmp")
    assert len(directory.endpoint("a999999999999").removeprefix("ipc://")) <= 107
    directory.close()


def test_run_json_that_is_torn_is_none(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"pid": 1})[:5])
    assert read_run(tmp_path) is None
