"""What a snapshot of a group coordinator holds: msgpack of two things, in sections that are made and read in a millisecond or so.

Owns: `Section`, its bytes, and the cutting of a state into sections. Committed offsets, which may be a million, stand as
the machine has them: by group, topic and partition, so that msgspec makes the dictionaries themselves. All other records
stand as they do in the log, key and value, in the order in which they were written: there are few of them.
May fail with CorruptSnapshot when read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from zafka.actors.groups.records import OffsetCommitValue
from zafka.storage.errors import CorruptSnapshot

OFFSETS_PER_SECTION = 10_000
BYTES_PER_SECTION = 256 * 1024  # of records

_Name = Annotated[str, Meta(max_length=2**15 - 1)]
_Partition = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Partitions = Annotated[dict[_Partition, OffsetCommitValue], Meta(min_length=1)]
Committed = dict[_Name, _Partitions]
"""Of one group: by topic and partition."""


class Section(Struct, array_like=True, forbid_unknown_fields=True):
    """offsets: by group; all of it, or some of its topics. records: key and value."""

    offsets: dict[_Name, Annotated[Committed, Meta(min_length=1)]]
    records: list[tuple[bytes, bytes]]

    @property
    def entries(self) -> int:
        """How many records of the log say the same."""
        return len(self.records) + sum(
            len(partitions) for committed in self.offsets.values() for partitions in committed.values())


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Section)


def sections_of(
    groups: Iterable[tuple[str, Committed, int]], records: Iterable[tuple[bytes, bytes]]
) -> Iterator[Section]:
    """Cut a state into sections; groups and records are asked for as they are needed.

    groups: as `Offsets.pieces` tells them; what is a section's own fills it, so that no group is in one twice.
    """
    gathered: list[tuple[bytes, bytes]] = []
    size = 0
    for key, value in records:
        gathered.append((key, value))
        size += len(key) + len(value)
        if size >= BYTES_PER_SECTION:
            yield Section({}, gathered)
            gathered, size = [], 0
    offsets: dict[str, Committed] = {}
    count = 0
    for group_id, committed, entries in groups:
        offsets[group_id] = committed
        count += entries
        if count >= OFFSETS_PER_SECTION:
            yield Section(offsets, gathered)
            offsets, gathered, count = {}, [], 0
    if offsets or gathered:
        yield Section(offsets, gathered)


def encode_section(section: Section) -> bytes:
    return _encoder.encode(section)


def decode_section(data: bytes) -> Section:
    """Raises CorruptSnapshot."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptSnapshot(f"a section cannot be read: {error}") from None
