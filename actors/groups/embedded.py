"""What members of the protocol type "consumer" tell each other through classic groups: subscriptions and assignments.

Owns: `Subscription`; how both are laid out. Classic groups pass these bytes on and read of them what they must; a group
that has KIP-848 members, too, reads and writes them in its classic members' stead.
May fail with MalformedEmbedded: a client of its own kind says something else under the name "consumer".
Layouts: a subscription is version int16, topics, user data; since 1 owned partitions, 2 their generation, 3 a rack. An
assignment is version int16, partitions by topic, user data. User data are nullable bytes.
Source: Kafka ConsumerProtocolSubscription.json, ConsumerProtocolAssignment.json, ConsumerProtocol.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

VERSION_MAX = 3
OWNED_SINCE, GENERATION_SINCE, RACK_SINCE = 1, 2, 3
INT16, INT32 = struct.Struct(">h"), struct.Struct(">i")
NULL = -1

Partitions = dict[str, set[int]]
"""By topic."""
T = TypeVar("T")


class MalformedEmbedded(Exception):
    """These bytes are no subscription, or no assignment."""


class Subscription(NamedTuple):
    """owned: what the member says it has; nothing if its version has no word for it."""

    version: int
    topics: list[str]
    owned: Partitions
    rack_id: str | None


def read_subscription(data: bytes) -> Subscription:
    return _read(data, _subscription)


def read_assignment(data: bytes) -> tuple[Partitions, bytes]:
    """The partitions, and the user data that an assignor of its own sent along. No bytes at all are no partitions."""
    return _read(data, _assignment) if data else ({}, b"")


def write_assignment(version: int, partitions: Mapping[str, Iterable[int]]) -> bytes:
    parts = [INT16.pack(min(version, VERSION_MAX)), INT32.pack(len(partitions))]
    for topic, numbers in partitions.items():
        name, ordered = topic.encode(), sorted(numbers)
        parts += [INT16.pack(len(name)), name, struct.pack(f">i{len(ordered)}i", len(ordered), *ordered)]
    return b"".join([*parts, INT32.pack(NULL)])


class _Cursor:
    """position: of what is read next."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def is_left(self) -> bool:
        return self._position < len(self._data)

    def number(self, kind: struct.Struct) -> int:
        (value,) = kind.unpack_from(self._data, self._position)
        self._position += kind.size
        return int(value)

    def take(self, size: int) -> bytes:
        if not 0 <= size <= len(self._data) - self._position:
            raise ValueError(f"{size} bytes are said to follow at {self._position} of {len(self._data)}")
        self._position += size
        return self._data[self._position - size:self._position]

    def text(self) -> str:
        return self.take(self.number(INT16)).decode()

    def nullable(self, kind: struct.Struct) -> bytes | None:
        size = self.number(kind)
        return None if size == NULL else self.take(size)

    def many(self, one: Callable[[], T], bytes_min: int) -> list[T]:
        """bytes_min: that one of them takes, so that a lie about their number costs nothing."""
        count = self.number(INT32)
        if not 0 <= count <= (len(self._data) - self._position) // bytes_min:
            raise ValueError(f"{count} elements are said to follow at {self._position} of {len(self._data)}")
        return [one() for _ in range(count)]

    def partitions(self) -> Partitions:
        found: Partitions = {}
        for topic, numbers in self.many(lambda: (self.text(), self.many(lambda: self.number(INT32), 4)), 6):
            found.setdefault(topic, set()).update(numbers)
        return found


def _read(data: bytes, what: Callable[[int, _Cursor], T]) -> T:
    cursor = _Cursor(data)
    try:
        version = cursor.number(INT16)
        if version < 0:
            raise ValueError(f"version {version}")
        return what(version, cursor)
    except (struct.error, ValueError) as error:  # UnicodeDecodeError is a ValueError
        raise MalformedEmbedded(str(error)) from None


def _subscription(version: int, cursor: _Cursor) -> Subscription:
    topics = cursor.many(cursor.text, 2)
    owned: Partitions = {}
    rack: bytes | None = None
    cursor.nullable(INT32)
    if version >= OWNED_SINCE and cursor.is_left:  # there are clients that say 1 and stop here
        owned = cursor.partitions()
    if version >= GENERATION_SINCE and cursor.is_left:
        cursor.number(INT32)
    if version >= RACK_SINCE and cursor.is_left:
        rack = cursor.nullable(INT16)
    return Subscription(version, topics, owned, None if rack is None else rack.decode())


def _assignment(version: int, cursor: _Cursor) -> tuple[Partitions, bytes]:
    return cursor.partitions(), cursor.nullable(INT32) or b""
