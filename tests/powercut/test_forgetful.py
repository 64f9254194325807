"""The file system that forgets: what is synced survives every cut; what is not, may; and both happen over the seeds.

Without this the power cut tests prove nothing. The model is tried by itself, the mount with real system calls.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.powercut.forgetful import ForgetfulDisk
from tests.powercut.mount import ForgetfulMount, missing as fuse_missing

SEEDS = range(60)
FILE = 0o100644
DIRECTORY = 0o040755


def fsync(disk: ForgetfulDisk, path: str) -> None:
    handle = disk.open(disk.lookup(path), path)
    disk.sync(handle)
    disk.release(handle)


def put(disk: ForgetfulDisk, path: str, data: bytes, position: int = 0) -> None:
    with contextlib.suppress(FileExistsError):
        disk.create(path, FILE)
    disk.write(disk.lookup(path), data, position, path)


def read(disk: ForgetfulDisk, path: str) -> bytes | None:
    try:
        return bytes(disk.lookup(path).content)
    except FileNotFoundError:
        return None


def after_cuts(prepare: Callable[[ForgetfulDisk], None], *paths: str) -> set[tuple[bytes | None, ...]]:
    """What the paths hold after a cut, over the seeds."""
    found = set()
    for seed in SEEDS:
        disk = ForgetfulDisk()
        prepare(disk)
        disk.cut()
        disk.forget(Random(seed))
        found.add(tuple(read(disk, path) for path in paths))
    return found


def then_sync(prepare: Callable[[ForgetfulDisk], None], *paths: str) -> Callable[[ForgetfulDisk], None]:
    def prepare_and_sync(disk: ForgetfulDisk) -> None:
        prepare(disk)
        for path in paths:
            fsync(disk, path)

    return prepare_and_sync


def synced_file(disk: ForgetfulDisk) -> None:
    put(disk, "/a", b"old")
    fsync(disk, "/a")
    fsync(disk, "/")


def test_what_is_synced_survives_every_cut() -> None:
    assert after_cuts(synced_file, "/a") == {(b"old",)}


def test_a_name_needs_its_directory_and_content_its_file() -> None:
    def only_the_file(disk: ForgetfulDisk) -> None:
        put(disk, "/a", b"new")
        fsync(disk, "/a")

    def only_the_directory(disk: ForgetfulDisk) -> None:
        put(disk, "/a", b"new")
        fsync(disk, "/")

    def below_a_name_that_is_not_synced(disk: ForgetfulDisk) -> None:
        disk.create("/d", DIRECTORY)
        put(disk, "/d/a", b"new")
        fsync(disk, "/d/a")
        fsync(disk, "/d")

    assert after_cuts(only_the_file, "/a") == {(None,), (b"new",)}
    assert after_cuts(only_the_directory, "/a") == {(b"",), (b"new",), (b"\0\0\0",)}
    assert after_cuts(below_a_name_that_is_not_synced, "/d/a") == {(None,), (b"new",)}


def test_a_rename_is_old_or_new() -> None:
    def rename(disk: ForgetfulDisk) -> None:
        synced_file(disk)
        put(disk, "/b", b"new")
        fsync(disk, "/b")
        disk.rename("/b", "/a")

    def and_again_under_the_old_name(disk: ForgetfulDisk) -> None:
        synced_file(disk)
        disk.rename("/a", "/b")
        disk.create("/a", FILE)

    found = after_cuts(rename, "/a", "/b")
    assert {first for first, _ in found} == {b"old", b"new"}
    assert (b"new", b"new") not in found
    assert all(b"old" in both for both in after_cuts(and_again_under_the_old_name, "/a", "/b"))


def test_a_rename_between_directories_needs_both() -> None:
    def rename(disk: ForgetfulDisk) -> None:
        disk.create("/d", DIRECTORY)
        synced_file(disk)
        disk.rename("/a", "/d/a")

    either = {(b"old", None), (None, b"old")}
    assert after_cuts(then_sync(rename, "/"), "/a", "/d/a") == either
    assert after_cuts(then_sync(rename, "/d"), "/a", "/d/a") == either
    assert after_cuts(then_sync(rename, "/d", "/"), "/a", "/d/a") == {(None, b"old")}


def test_removals_and_truncations() -> None:
    def remove(disk: ForgetfulDisk) -> None:
        synced_file(disk)
        disk.remove("/a")

    def truncate(disk: ForgetfulDisk) -> None:
        synced_file(disk)
        disk.truncate(disk.lookup("/a"), 1)

    assert after_cuts(remove, "/a") == {(None,), (b"old",)}
    assert after_cuts(then_sync(remove, "/"), "/a") == {(None,)}
    assert after_cuts(truncate, "/a") == {(b"o",), (b"old",)}
    assert after_cuts(then_sync(truncate, "/a"), "/a") == {(b"o",)}


def test_parts_of_a_write_and_zeros_for_a_tail() -> None:
    data = bytes(Random(1).randrange(1, 256) for _ in range(16384))

    def write(disk: ForgetfulDisk) -> None:
        synced_file(disk)
        put(disk, "/a", data, 3)

    found = {content for (content,) in after_cuts(write, "/a") if content is not None}
    assert all(content.startswith(b"old") for content in found)
    assert {b"old", b"old" + data} < found
    assert any(content.endswith(bytes(100)) for content in found)
    assert any(data[-100:] == content[-100:] and bytes(400) in content for content in found)  # a hole, then the end
    assert any(len(content) < len(data) and content == (b"old" + data)[: len(content)] for content in found)


def test_a_random_history_goes_back_to_what_was_synced() -> None:
    """Whatever was done after a sync, a cut that forgets all of it gives what was there."""
    for seed in SEEDS:
        random, disk = Random(seed), ForgetfulDisk()
        disk.create("/d", DIRECTORY)
        for number in range(5):
            put(disk, f"/{number}", bytes([number]) * random.randrange(2000))
        disk.sync_all()
        before = _tree(disk)
        for _ in range(40):
            _do_something(disk, random)
        disk.cut()
        now = _tree(disk)
        disk.forget(Never())
        assert _tree(disk) == before != now


def _do_something(disk: ForgetfulDisk, random: Random) -> None:
    path = random.choice(["/", "/d/"]) + str(random.randrange(8))
    with contextlib.suppress(FileNotFoundError):
        match random.choice(["write", "truncate", "rename", "remove"]):
            case "write":
                put(disk, path, bytes([random.randrange(256)]) * random.randrange(1, 3000), random.randrange(3000))
            case "truncate":
                disk.truncate(disk.lookup(path), random.randrange(4000))
            case "rename":
                disk.rename(path, random.choice(["/", "/d/"]) + str(random.randrange(8)))
            case "remove":
                disk.remove(path)


class Never(Random):
    """Keeps nothing."""

    def choice(self, seq: Any) -> Any:
        return seq[0]

    def random(self) -> float:
        return 0.5


def _tree(disk: ForgetfulDisk) -> dict[str, bytes]:
    root = disk.inodes[1]
    return {
        f"{directory}/{name}": bytes(disk.inodes[ino].content)
        for directory, inode in (("", root), ("d", disk.inodes[root.names["d"]]))
        for name, ino in inode.names.items()}


def test_a_failed_sync_lies_ever_after() -> None:
    def failed(disk: ForgetfulDisk) -> None:
        synced_file(disk)
        put(disk, "/a", b"NEW")
        disk.failing_syncs.append("/a")
        with pytest.raises(OSError, match="Input/output error"):
            fsync(disk, "/a")
        assert read(disk, "/a") == b"NEW"  # as the page cache has it
        fsync(disk, "/a")  # and nothing is told any more
        put(disk, "/a", b"+", 3)
        fsync(disk, "/a")

    assert after_cuts(failed, "/a") == {(b"old+",)}


def test_a_full_disk() -> None:
    disk = ForgetfulDisk()
    synced_file(disk)
    disk.full = "/a*"
    with pytest.raises(OSError, match="No space left"):
        put(disk, "/a", b"x" * 10)
    put(disk, "/a", b"new")  # takes no room
    put(disk, "/b", b"x" * 10)
    assert (read(disk, "/a"), read(disk, "/b")) == (b"new", b"x" * 10)


# -- the mount ---------------------------------------------------------------------------------------


@pytest.fixture
def mount() -> Iterator[ForgetfulMount]:
    reason = fuse_missing()
    if reason:
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    with ForgetfulMount(sync_s=0.0) as mount:
        yield mount


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def test_system_calls_reach_it(mount: ForgetfulMount) -> None:
    path = mount.path / "a"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.pwritev(fd, [b"x" * 300_000, b"y" * 300_000], 0)
    assert os.pread(fd, 600_000, 299_999) == b"x" + b"y" * 300_000
    os.ftruncate(fd, 5000)
    with mmap.mmap(fd, 5000) as mapped:
        mapped[:3] = b"map"
        mapped.flush()
    assert os.pread(fd, 4, 0) == b"mapx"
    inode = os.fstat(fd).st_ino
    os.rename(path, mount.path / "b")
    assert os.stat(mount.path / "b").st_ino == inode
    os.unlink(mount.path / "b")  # while it is open
    assert os.listdir(mount.path) == []
    assert (os.fstat(fd).st_size, os.pread(fd, 3, 0)) == (5000, b"map")
    os.ftruncate(fd, 2)
    assert os.fstat(fd).st_size == 2
    os.close(fd)
    with pytest.raises(FileNotFoundError):
        path.read_bytes()


def test_after_a_cut_nothing_lands_and_what_was_synced_is_there(mount: ForgetfulMount) -> None:
    lost = set()
    for seed in range(1, 13):
        synced = os.open(mount.path / f"synced-{seed}", os.O_RDWR | os.O_CREAT)
        os.pwrite(synced, b"synced", 0)
        os.fdatasync(synced)
        sync_directory(mount.path)
        os.pwrite(synced, b"SYNCED", 0)
        (mount.path / f"lost-{seed}").write_bytes(b"x")
        mount.cut()
        for attempt in (lambda fd=synced: os.pwrite(fd, b"too late", 0), lambda fd=synced: os.fdatasync(fd),
                        lambda: (mount.path / "new").write_bytes(b""), lambda: os.listdir(mount.path)):
            with pytest.raises(OSError) as told:
                attempt()
            assert told.value.errno == errno.EIO
        os.close(synced)
        mount.come_back(seed)
        assert (mount.path / f"synced-{seed}").read_bytes() in (b"synced", b"SYNCED")
        names = {f"synced-{number}" for number in range(1, seed + 1)}
        assert names <= set(os.listdir(mount.path)) <= names | {f"lost-{number}" for number in range(1, seed + 1)}
        lost.add((mount.path / f"lost-{seed}").exists())
    assert lost == {True, False}


def test_faults_of_the_mount(mount: ForgetfulMount) -> None:
    fd = os.open(mount.path / "a", os.O_RDWR | os.O_CREAT)
    mount.fail_sync("/a")
    with pytest.raises(OSError, match="Input/output error"):
        os.fdatasync(fd)
    os.fdatasync(fd)
    mount.fill("/*")
    with pytest.raises(OSError, match="No space left"):
        os.pwrite(fd, b"x", 0)
    mount.fill(None)
    os.pwrite(fd, b"x", 0)
    os.close(fd)


def test_nothing_is_left_of_a_mount() -> None:
    reason = fuse_missing()
    if reason:
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    with ForgetfulMount() as mount:
        path = mount.path
        assert path.is_mount()
        fd = os.open(path / "a", os.O_RDWR | os.O_CREAT)  # somebody still works there
    assert not path.exists()
    assert str(path) not in Path("/proc/self/mounts").read_text()
    with pytest.raises(OSError, match="not connected"):
        os.pwrite(fd, b"x", 0)
    with contextlib.suppress(OSError):
        os.close(fd)
