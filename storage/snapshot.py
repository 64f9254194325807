"""A coordinator's snapshot: its state as one file beside its log, so that a start replays only what came after.

Owns: the bytes of the file, its names, the steps in which it is written, and the rule of when it is believed.
What stands in its sections is the coordinator's matter. There are two kinds:
- `coordinator-snapshot`: the log stays the truth. One that is missing, damaged or not of this log means that all of the log
  is replayed, and is no error.
- `<offset>.coordinator-snapshot`: the log may begin behind what it tells of, so that two are kept (KIP-630; `actors/snapshots.py`).
Invariants: a snapshot gets its name when it and all of the log that it tells of are on disk. Together with the records
from `offset` on it leads to the state to which all of the log leads, or led.
May fail with OSError from the disk while it is written; reading raises CorruptSnapshot, and OSError.

     0  magic             4 bytes  "zfks"
     4  version           int16    1
     6  crc               uint32   CRC-32C of the rest of the header
    10  topic_id          16 bytes as in `recovery-checkpoint`
    26  partition         int32    with topic_id: whose snapshot this is
    30  log_start_offset  int64    of the log when this was written; to the first kind another start means other records
    38  offset            int64    replay goes on here; compaction has touched nothing from here on
    46  end_offset        int64    some of the state is that of records up to here, so the log must reach as far
    54  leader_epoch      int32    in which the record before end_offset was written: a log that was cut and grew again
                                   has another one there
    58  size              int64    bytes of the file
    66  sections_crc      uint32   the last section's crc
    70  sections, one after the other: length int32, crc uint32, and so many bytes. crc: CRC-32C of all sections' bytes
        up to the end of this one, so that a section of another snapshot does not fit.
All numbers are big-endian.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from crc32c import crc32c

from zafka.storage.checkpoint import TEMPORARY_SUFFIX
from zafka.storage.disk import Disk, File
from zafka.storage.errors import CorruptSnapshot
from zafka.storage.log import Log

SNAPSHOT_NAME = "coordinator-snapshot"
_REPLACING_NAME = re.compile(r"\d{20}\.coordinator-snapshot")

_MAGIC = b"zfks"
_VERSION = 1
_START = struct.Struct(">4shI")
_HEADER = struct.Struct(">20sqqqiqI")
_SECTION = struct.Struct(">iI")
_SECTIONS_AT = _START.size + _HEADER.size


class Point(NamedTuple):
    """Where in its log a snapshot stands; the fields as in the file. owner: topic_id and partition."""

    owner: bytes
    log_start_offset: int
    offset: int
    end_offset: int
    leader_epoch: int

    def unfit(self, log: Log, *, replaces: bool = False) -> str:
        """Why a snapshot with this is not one of this log, "" if it is. replaces: what it tells of need not be in the log."""
        if self.owner != log.owner:
            return "foreign: it is another log's"
        if self.log_start_offset != log.start_offset and not replaces:
            return f"the log begins at offset {log.start_offset}, not {self.log_start_offset}"
        if self.offset < log.start_offset:
            return f"it stands at offset {self.offset}, and the log begins at {log.start_offset}"
        if self.end_offset > log.end_offset:
            return f"it tells of offset {self.end_offset - 1}, and the log ends at {log.end_offset}"
        if replaces and self.end_offset == log.start_offset:
            return ""  # nobody knows any more in which epoch the record before was written
        if self.offset < log.swap.cleaned_offset:
            return f"it stands at offset {self.offset}, and compaction has been up to {log.swap.cleaned_offset}"
        epoch = log.leader_epochs.epoch_for(self.end_offset - 1)
        if self.leader_epoch != epoch:
            return f"offset {self.end_offset - 1} is of leader epoch {epoch}, not {self.leader_epoch}"
        return ""


def point_of(log: Log, offset: int) -> Point:
    """A snapshot that was begun at `offset` and holds what the log tells up to its end now."""
    end_offset = log.end_offset
    return Point(log.owner, log.start_offset, offset, end_offset, log.leader_epochs.epoch_for(end_offset - 1))


def replacing_name(offset: int) -> str:
    """The name of a snapshot behind which the log may begin."""
    return f"{offset:020d}.{SNAPSHOT_NAME}"


def find_replacing(disk: Disk, directory: Path) -> list[str]:
    """The names of all snapshots of that kind, the newest first."""
    return sorted(filter(_REPLACING_NAME.fullmatch, disk.list_directory(directory)), reverse=True)


class Step(NamedTuple):
    """What must be on disk before the next step: the content of files, the names in directories, the log up to an offset."""

    files: tuple[File, ...] = ()
    directories: tuple[Path, ...] = ()
    log_offset: int = 0


class SnapshotWriter:
    """Writes a snapshot in small steps, each of which rests on what the one before it named being on disk.

    sections: asked for one by one, one in each step. seal: called behind the last of them, in the same step.
    Raises OSError if the disk is full; then `close` it.
    """

    def __init__(
        self, disk: Disk, directory: Path, sections: Iterator[bytes], seal: Callable[[], Point], *,
        name: str = SNAPSHOT_NAME,
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._file_name = name
        self._sections = sections
        self._seal = seal
        self._file: File | None = None
        self._position, self._crc = _SECTIONS_AT, 0
        self._go_on: Callable[[], Step | None] = self._begin

    def step(self) -> Step | None:
        """The next step, or None: the snapshot is on disk."""
        return self._go_on()

    def close(self) -> None:
        """Nothing comes of it, if it is not on disk yet. The file is overwritten by the next one, or goes with the next start."""
        if self._file is not None:
            self._disk.close(self._file)

    def _begin(self) -> Step:
        self._file = self._disk.open(self._directory / (self._file_name + TEMPORARY_SUFFIX), create=True)
        self._disk.truncate(self._file, 0)
        self._go_on = partial(self._write_section, self._file)
        return self._write_section(self._file)

    def _write_section(self, file: File) -> Step:
        section = next(self._sections, None)
        if section is None:
            return self._write_header(file)
        self._crc = crc32c(section, self._crc)
        self._disk.pwritev(file, (_SECTION.pack(len(section), self._crc), section), self._position)
        self._position += _SECTION.size + len(section)
        return Step(files=(file,))

    def _write_header(self, file: File) -> Step:
        point = self._seal()
        self._disk.pwritev(file, (_encode_header(point, self._position, self._crc),), 0)
        self._go_on = partial(self._name, file)
        return Step(files=(file,), log_offset=point.end_offset)

    def _name(self, file: File) -> Step:
        self._disk.close(file)
        self._file = None
        self._disk.rename(file.path, self._directory / self._file_name)
        self._go_on = lambda: None
        return Step(directories=(self._directory,))


def read_point(disk: Disk, directory: Path, name: str = SNAPSHOT_NAME) -> Point | None:
    """Where the snapshot stands, None if there is none. Raises CorruptSnapshot."""
    if not disk.exists(directory / name):
        return None
    file = disk.open(directory / name)
    try:
        return _read_header(disk, file)[0]
    finally:
        disk.close(file)


def read_sections(disk: Disk, directory: Path, name: str = SNAPSHOT_NAME) -> Iterator[bytes]:
    """The sections of the snapshot that is there, each checked. Raises CorruptSnapshot where one is not as it was written."""
    file = disk.open(directory / name)
    try:
        _, size, sections_crc = _read_header(disk, file)
        position, crc = _SECTIONS_AT, 0
        while position < size:
            head = disk.pread(file, _SECTION.size, position)
            length, told_crc = _SECTION.unpack(head) if len(head) == _SECTION.size else (-1, 0)
            position += _SECTION.size
            if not 0 <= length <= size - position:
                raise CorruptSnapshot(f"no section stands at position {position - _SECTION.size} of {size} bytes")
            section = disk.pread(file, length, position)
            crc = crc32c(section, crc)
            if crc != told_crc:
                raise CorruptSnapshot(f"the CRC-32C does not fit the section at position {position}")
            position += length
            yield section
        if crc != sections_crc:
            raise CorruptSnapshot("the CRC-32C does not fit all sections")
    finally:
        disk.close(file)


def _encode_header(point: Point, size: int, sections_crc: int) -> bytes:
    header = _HEADER.pack(*point, size, sections_crc)
    return _START.pack(_MAGIC, _VERSION, crc32c(header)) + header


def _read_header(disk: Disk, file: File) -> tuple[Point, int, int]:
    """With the size of the file and the CRC of its sections."""
    data = disk.pread(file, _SECTIONS_AT, 0)
    if len(data) < _SECTIONS_AT:
        raise CorruptSnapshot(f"it has {len(data)} bytes, not even a header")
    magic, version, crc = _START.unpack_from(data)
    if (magic, version) != (_MAGIC, _VERSION):
        raise CorruptSnapshot(f"it begins with {data[:6]!r}")
    if crc32c(data[_START.size:]) != crc:
        raise CorruptSnapshot("the CRC-32C does not fit the header")
    *point, size, sections_crc = _HEADER.unpack_from(data, _START.size)
    found = Point(*point)
    if size != disk.size(file):
        raise CorruptSnapshot(f"it has {disk.size(file)} bytes, and says {size}")
    if not 0 <= found.log_start_offset <= found.offset <= found.end_offset:
        raise CorruptSnapshot(f"{found} cannot be")
    return found, size, sections_crc
