"""Whether the index files of a segment say what its batches say: for `zafka log verify`.

Owns: the entries that no batch has been found for yet. An index that lies costs nothing but the time to rebuild it,
which happens by itself, so complaints are for people. May fail with OSError from the disk.
"""

from __future__ import annotations

import struct
from pathlib import Path

from zafka.storage.batch import BatchHeader
from zafka.storage.disk import Disk
from zafka.storage.index import OFFSET_ENTRY, TIME_ENTRY


class IndexCheck:
    """Show it every batch of the segment, then ask for `complaints`.

    offset_bytes, time_bytes: how much of the files counts, -1 if that is not known.
    sealed: the files may not be longer than that.
    """

    def __init__(
        self, disk: Disk, offset_index: Path, time_index: Path, *, base_offset: int, offset_bytes: int,
        time_bytes: int, sealed: bool,
    ) -> None:
        self._base_offset = base_offset
        self._complaints: list[str] = []
        self._names = offset_index.name, time_index.name
        offsets = self._read(disk, offset_index, OFFSET_ENTRY, offset_bytes, sealed=sealed)
        times = self._read(disk, time_index, TIME_ENTRY, time_bytes, sealed=sealed)
        self._offsets = {position: relative_offset for relative_offset, position in offsets}
        self._times = {relative_offset: timestamp for timestamp, relative_offset in times}

    def _read(
        self, disk: Disk, path: Path, entry: struct.Struct, known_bytes: int, *, sealed: bool
    ) -> list[tuple[int, int]]:
        if not disk.exists(path):
            self._complaints.append(f"{path.name} is missing")
            return []
        file = disk.open(path)
        data = disk.pread(file, disk.size(file), 0)
        disk.close(file)
        size = len(data)
        if 0 <= known_bytes != size and (sealed or size < known_bytes):
            self._complaints.append(f"{path.name} has {size} bytes where the checkpoint says {known_bytes}")
        if known_bytes >= 0:
            size = min(size, known_bytes)
        return list(entry.iter_unpack(data[: size - size % entry.size]))

    def on_batch(self, position: int, header: BatchHeader) -> None:
        relative_offset = header.last_offset - self._base_offset
        if self._offsets.get(position) == relative_offset:
            del self._offsets[position]
        if self._times.get(relative_offset) == header.max_timestamp:
            del self._times[relative_offset]

    def complaints(self) -> list[str]:
        wrong = zip(self._names, (len(self._offsets), len(self._times)), strict=True)
        return self._complaints + [f"{name}: {count} entries fit no batch" for name, count in wrong if count]
