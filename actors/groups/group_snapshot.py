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
OffsetRow = tuple[_Name, _Name, Annotated[dict[_Partition, OffsetCommitValue], Meta(min_length=1)]]
"""Group, topic, and by partition."""


class Section(Struct, array_like=True, forbid_unknown_fields=True):
    """records: key and value. A row or a record is never divided."""

    offsets: list[OffsetRow]
    records: list[tuple[bytes, bytes]]

    @property
    def entries(self) -> int:
        """How many records of the log say the same."""
        return len(self.records) + sum(len(partitions) for _, _, partitions in self.offsets)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Section)


def sections_of(rows: Iterable[OffsetRow], records: Iterable[tuple[bytes, bytes]]) -> Iterator[Section]:
    """Cut a state into sections; rows and records are asked for as they are needed."""
    gathered: list[tuple[bytes, bytes]] = []
    size = 0
    for key, value in records:
        gathered.append((key, value))
        size += len(key) + len(value)
        if size >= BYTES_PER_SECTION:
            yield Section([], gathered)
            gathered, size = [], 0
    offsets: list[OffsetRow] = []
    count = 0
    for row in rows:
        offsets.append(row)
        count += len(row[2])
        if count >= OFFSETS_PER_SECTION:
            yield Section(offsets, gathered)
            offsets, gathered, count = [], [], 0
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
