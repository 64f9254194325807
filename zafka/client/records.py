"""What a consumer hands out.

Owns: `Record`, with the fields of Kafka's consumers, and the small types around it. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct

CREATE_TIME = 0
LOG_APPEND_TIME = 1


class TopicPartition(NamedTuple):
    """One partition of a topic. A pair such as ("orders", 0) does as well wherever one is wanted."""

    topic: str
    partition: int


Partitions = Iterable[TopicPartition | tuple[str, int]]


class OffsetAndMetadata(NamedTuple):
    """What a group commits of a partition. metadata: a text of the program's own, kept beside the offset; 4,096 bytes at most."""

    offset: int
    metadata: str = ""


Offsets = Mapping[TopicPartition, int | OffsetAndMetadata] | Mapping[tuple[str, int], int | OffsetAndMetadata]


class OffsetAndTimestamp(NamedTuple):
    """timestamp: milliseconds, of the record at `offset`."""

    offset: int
    timestamp: int


class Record(Struct, frozen=True, gc=False):
    """One record as it lies in a partition.

    timestamp: milliseconds since 1970. timestamp_type: 0 the producer's time, 1 the broker's.
    headers: pairs of name and value; a name may come more than once.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]

    def header(self, name: str) -> bytes | None:
        """The value of the last header of this name, or None."""
        for key, value in reversed(self.headers):
            if key == name:
                return value
        return None


MakeRecord = Callable[[int, int, bytes | None, bytes | None, Sequence[tuple[str, bytes | None]]], Record]


def record_maker(topic: str, partition: int, timestamp_type: int) -> MakeRecord:
    """What makes a Record of what differs between the records of one batch."""

    def make(
        offset: int, timestamp: int, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
    ) -> Record:
        return Record(topic, partition, offset, timestamp, timestamp_type, key, value, headers)

    return make
