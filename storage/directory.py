"""A partition's directory: whose it is, and that one process at a time has it open.

Owns: `partition.metadata`, Kafka's own file that names the topic, and the lock on the file `.lock`.
Invariant: `partition.metadata` is on disk before there is any segment, so a directory with segments and without it
is not ours. The lock goes with the process that holds it, however it ends.
May fail with ForeignTopic, DirectoryLocked, FailedFlush, OSError.
Source: KIP-516; Kafka PartitionMetadataFile, PartitionMetadata.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from pathlib import Path

from zafka.storage.disk import Disk, File, PosixDisk, sync
from zafka.storage.errors import DirectoryLocked, ForeignTopic
from zafka.storage.segment import LOG_SUFFIX

METADATA_NAME = "partition.metadata"
LOCK_NAME = ".lock"
TOPIC_ID_BYTES = 16

_METADATA = re.compile(rb"version: 0\ntopic_id: ([A-Za-z0-9_-]{22})\n?")
_METADATA_BYTES_MAX = 1024


class PartitionDirectory:
    """An open, locked directory. Keep it as long as the log is open."""

    def __init__(self, path: Path, topic_id: bytes, disk: Disk, lock: File) -> None:
        self.path = path
        self.topic_id = topic_id
        self._disk = disk
        self._lock: File | None = lock

    def __repr__(self) -> str:
        return f"<PartitionDirectory {self.path} topic_id={format_topic_id(self.topic_id)}>"

    def close(self) -> None:
        """Let the next one in."""
        if self._lock is not None:
            self._disk.close(self._lock)
            self._lock = None


def open_partition_directory(path: Path, topic_id: bytes, disk: Disk | None = None) -> PartitionDirectory:
    """Lock a partition's directory for this process, and make sure that it belongs to the topic.

    A directory that does not exist, or is empty, is made and given to the topic. Its own name is made durable by
    recovery, which does it again where a kill came between.
    Raises ForeignTopic, DirectoryLocked, FailedFlush, OSError.
    """
    assert len(topic_id) == TOPIC_ID_BYTES
    disk = disk or PosixDisk()
    disk.make_directory(path)
    lock = lock_partition(disk, path)
    try:
        found = read_topic_id(disk, path)
        has_segments = any(name.endswith(LOG_SUFFIX) for name in disk.list_directory(path))
        if found is None:
            if has_segments:
                raise ForeignTopic(f"{path} has segments, but no {METADATA_NAME} says of which topic")
            _write_topic_id(disk, path, topic_id)
        elif found != topic_id:
            raise ForeignTopic(
                f"{path} belongs to topic id {format_topic_id(found)}, not to {format_topic_id(topic_id)}"
            )
        elif not has_segments:
            # A kill may have come between the name and its flush.
            sync(disk, directories=(path,))
    except BaseException:
        disk.close(lock)
        raise
    return PartitionDirectory(path, topic_id, disk, lock)


def read_topic_id(disk: Disk, path: Path) -> bytes | None:
    """The topic that a partition's directory belongs to; None if it says nothing. Raises ForeignTopic on nonsense."""
    if not disk.exists(path / METADATA_NAME):
        return None
    file = disk.open(path / METADATA_NAME)
    try:
        data = disk.pread(file, _METADATA_BYTES_MAX, 0)
    finally:
        disk.close(file)
    match = _METADATA.fullmatch(data)
    with contextlib.suppress(binascii.Error):
        if match is not None:
            return base64.urlsafe_b64decode(match[1] + b"==")
    raise ForeignTopic(f"{path / METADATA_NAME} is not what Kafka or zafka writes: it begins with {data[:60]!r}")


def format_topic_id(topic_id: bytes) -> str:
    """As Kafka prints it: URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(topic_id).decode().rstrip("=")


def _write_topic_id(disk: Disk, path: Path, topic_id: bytes) -> None:
    temporary = path / (METADATA_NAME + ".tmp")
    file = disk.open(temporary, create=True)
    try:
        disk.truncate(file, 0)
        disk.pwritev(file, (f"version: 0\ntopic_id: {format_topic_id(topic_id)}".encode(),), 0)
        sync(disk, file)
    finally:
        disk.close(file)
    disk.rename(temporary, path / METADATA_NAME)
    sync(disk, directories=(path,))


def lock_partition(disk: Disk, path: Path) -> File:
    """Lock a partition's directory until the file that is returned is closed. Raises DirectoryLocked, OSError."""
    try:
        return disk.lock(path / LOCK_NAME)
    except BlockingIOError:
        raise DirectoryLocked(f"another process has {path} open") from None
