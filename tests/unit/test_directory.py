"""A partition's directory: one topic, one process at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.memory_disk import MemoryDisk
from zafka.storage.directory import METADATA_NAME, format_topic_id, open_partition_directory, read_topic_id
from zafka.storage.disk import PosixDisk
from zafka.storage.errors import DirectoryLocked, ForeignTopic

TOPIC_ID = bytes(range(16))
OTHER_ID = bytes(16)


def test_a_new_directory_is_given_to_the_topic_in_kafkas_words(tmp_path: Path) -> None:
    path = tmp_path / "orders-0"
    directory = open_partition_directory(path, TOPIC_ID)
    assert (path / METADATA_NAME).read_text() == "version: 0\ntopic_id: AAECAwQFBgcICQoLDA0ODw"
    assert read_topic_id(PosixDisk(), path) == TOPIC_ID == directory.topic_id
    assert format_topic_id(TOPIC_ID) in repr(directory)
    directory.close()
    directory.close()
    open_partition_directory(path, TOPIC_ID).close()
    assert sorted(os.listdir(path)) == [".lock", METADATA_NAME]


def test_what_kafka_wrote_is_read(tmp_path: Path) -> None:
    (tmp_path / METADATA_NAME).write_bytes(b"version: 0\ntopic_id: YAmT6YjzT5SS6r_vkI1klg")
    assert format_topic_id(read_topic_id(PosixDisk(), tmp_path) or b"") == "YAmT6YjzT5SS6r_vkI1klg"


def test_another_topics_directory_is_refused_and_let_go(tmp_path: Path) -> None:
    open_partition_directory(tmp_path, TOPIC_ID).close()
    with pytest.raises(ForeignTopic, match=format_topic_id(TOPIC_ID)):
        open_partition_directory(tmp_path, OTHER_ID)
    open_partition_directory(tmp_path, TOPIC_ID).close()


@pytest.mark.parametrize("text", ["", "version: 1\ntopic_id: AAECAwQFBgcICQoLDA0ODw", "version: 0\ntopic_id: short", "\0" * 40])
def test_nonsense_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / METADATA_NAME).write_text(text)
    with pytest.raises(ForeignTopic, match=METADATA_NAME):
        open_partition_directory(tmp_path, TOPIC_ID)


def test_segments_without_metadata_are_not_ours(tmp_path: Path) -> None:
    (tmp_path / "00000000000000000000.log").write_bytes(b"x")
    with pytest.raises(ForeignTopic, match="has segments"):
        open_partition_directory(tmp_path, TOPIC_ID)
    assert read_topic_id(PosixDisk(), tmp_path) is None


def test_two_cannot_have_it_open(tmp_path: Path) -> None:
    directory = open_partition_directory(tmp_path, TOPIC_ID)
    with pytest.raises(DirectoryLocked, match=str(tmp_path)):
        open_partition_directory(tmp_path, TOPIC_ID)
    directory.close()
    open_partition_directory(tmp_path, TOPIC_ID).close()


def test_the_lock_goes_with_the_process(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom zafka.storage.directory import open_partition_directory\n"
        f"kept = open_partition_directory(Path(sys.argv[1]), {TOPIC_ID!r})\nprint('open', flush=True)\ntime.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(DirectoryLocked):
            open_partition_directory(tmp_path, TOPIC_ID)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    open_partition_directory(tmp_path, TOPIC_ID).close()


def test_metadata_is_whole_or_not_there_after_a_power_cut(tmp_path: Path) -> None:
    for seed in range(50):
        disk = MemoryDisk(seed)
        open_partition_directory(tmp_path, TOPIC_ID, disk).close()
        disk.power_cut()
        assert read_topic_id(disk, tmp_path) == TOPIC_ID


def test_metadata_is_durable_before_there_are_segments_also_if_a_kill_came_between(tmp_path: Path) -> None:
    class KilledBeforeTheFlush(MemoryDisk):
        killed = False

        def fsync_dir(self, path: Path) -> None:
            if not self.killed:
                self.killed = True
                raise KeyboardInterrupt
            super().fsync_dir(path)

    for seed in range(400):
        disk = KilledBeforeTheFlush(seed)
        disk.make_directory(tmp_path)
        with pytest.raises(KeyboardInterrupt):
            open_partition_directory(tmp_path / "t-0", TOPIC_ID, disk)
        disk.crash()
        open_partition_directory(tmp_path / "t-0", TOPIC_ID, disk)
        disk.open(tmp_path / "t-0" / f"{0:020d}.log", create=True)
        disk.power_cut()
        open_partition_directory(tmp_path / "t-0", TOPIC_ID, disk)
