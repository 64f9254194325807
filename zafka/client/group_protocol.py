"""Bytes that members of a group send each other through their coordinator: what each reads, and what each shall read.

Owns: Kafka's ConsumerProtocol, as all clients write it, and the user data of its sticky assignor. Pure.
Raises BadGroupBytes for bytes that make no sense; what stands behind the fields that we know is passed over.
Source: Kafka ConsumerProtocolSubscription.json (versions 0-3), ConsumerProtocolAssignment.json, StickyAssignor.

    Subscription: version int16, topics [string], user_data bytes, from 1: owned [topic string, partitions [int32]],
                  from 2: generation int32, from 3: rack nullable string
    Assignment:   version int16, partitions [topic string, partitions [int32]], user_data bytes
    Sticky user data: previous [topic string, partitions [int32]], generation int32
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from zafka.client.errors import ZafkaError
from zafka.client.records import TopicPartition

CONSUMER = "consumer"  # the protocol type of groups that read topics
NO_GENERATION = -1
_SUBSCRIPTION_VERSION, _WITH_RACK = 2, 3
_ASSIGNMENT_VERSION = 0
_INT16, _INT32 = struct.Struct(">h"), struct.Struct(">i")

Item = TypeVar("Item")


class BadGroupBytes(ZafkaError):
    """A member of the group sent what is no subscription or no assignment."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a member wants, and what it has. generation: in which it was given `owned`, or NO_GENERATION. rack: where it is."""

    topics: tuple[str, ...]
    owned: frozenset[TopicPartition] = frozenset()
    generation: int = NO_GENERATION
    instance_id: str | None = None  # told by the coordinator, not in the bytes
    rack: str | None = None


def encode_subscription(subscription: Subscription, *, sticky_user_data: bool = False) -> bytes:
    """sticky_user_data: say what is owned also where Kafka's `sticky` looks for it."""
    user_data = None
    owned = _encode_partitions(subscription.owned)
    generation = _INT32.pack(subscription.generation)
    if sticky_user_data:
        user_data = owned + generation
    topics = b"".join(_string(topic) for topic in sorted(subscription.topics))
    version, rack = _SUBSCRIPTION_VERSION, b""
    if subscription.rack is not None:
        version, rack = _WITH_RACK, _string(subscription.rack)
    return b"".join((
        _INT16.pack(version), _INT32.pack(len(subscription.topics)), topics, _bytes(user_data), owned, generation, rack))


def decode_subscription(data: bytes, instance_id: str | None = None, *, sticky_user_data: bool = False) -> Subscription:
    reader = _Reader(data)
    version = reader.int16()
    topics = tuple(reader.array(reader.string))
    user_data = reader.bytes()
    owned: frozenset[TopicPartition] = frozenset()
    generation = NO_GENERATION
    if version >= 1:
        owned = reader.partitions()
    if version >= 2:
        generation = reader.int32()
    rack = reader.nullable_string() if version >= _WITH_RACK else None
    if sticky_user_data and user_data:
        inner = _Reader(user_data)
        owned = inner.partitions()
        generation = inner.int32() if inner.left() else NO_GENERATION
    return Subscription(topics, owned, generation, instance_id, rack)


def encode_assignment(partitions: Iterable[TopicPartition]) -> bytes:
    return _INT16.pack(_ASSIGNMENT_VERSION) + _encode_partitions(partitions) + _bytes(None)


def decode_assignment(data: bytes) -> frozenset[TopicPartition]:
    """A member that its leader left out is sent no bytes: it reads nothing."""
    if not data:
        return frozenset()
    reader = _Reader(data)
    reader.int16()
    return reader.partitions()


# -- the parts ---------------------------------------------------------------------------------------


def _string(text: str) -> bytes:
    data = text.encode()
    return _INT16.pack(len(data)) + data


def _bytes(data: bytes | None) -> bytes:
    return _INT32.pack(-1) if data is None else _INT32.pack(len(data)) + data


def _encode_partitions(partitions: Iterable[TopicPartition]) -> bytes:
    topics: dict[str, list[int]] = {}
    for topic, partition in sorted(partitions):
        topics.setdefault(topic, []).append(partition)
    parts = [_INT32.pack(len(topics))]
    for topic, numbers in topics.items():
        parts += [_string(topic), struct.pack(f">i{len(numbers)}i", len(numbers), *numbers)]
    return b"".join(parts)


class _Reader:
    """Fields one after the other. Raises BadGroupBytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def left(self) -> int:
        return len(self._data) - self._position

    def _take(self, size: int) -> bytes:
        if not 0 <= size <= self.left():
            raise BadGroupBytes(f"{size} bytes at {self._position} of {len(self._data)}")
        self._position += size
        return self._data[self._position - size : self._position]

    def int16(self) -> int:
        return int(_INT16.unpack(self._take(2))[0])

    def int32(self) -> int:
        return int(_INT32.unpack(self._take(4))[0])

    def string(self) -> str:
        return self._text(self.int16())

    def nullable_string(self) -> str | None:
        size = self.int16()
        return None if size < 0 else self._text(size)

    def _text(self, size: int) -> str:
        try:
            return self._take(size).decode()
        except UnicodeDecodeError as error:
            raise BadGroupBytes(str(error)) from error

    def bytes(self) -> bytes | None:
        size = self.int32()
        return None if size < 0 else self._take(size)

    def array(self, read: Callable[[], Item]) -> list[Item]:
        """A count that is a lie ends with the bytes: each entry takes some."""
        return [read() for _ in range(max(0, self.int32()))]

    def partitions(self) -> frozenset[TopicPartition]:
        def topic() -> list[TopicPartition]:
            name = self.string()
            return [TopicPartition(name, partition) for partition in self.array(self.int32)]

        return frozenset(where for found in self.array(topic) for where in found)
