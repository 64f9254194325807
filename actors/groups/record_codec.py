"""How keys and values of a coordinator's log are written: two bytes of version, then the fields, as Kafka lays them out.

Owns: `Kind`, one kind of record: the version of its key says which kind it is, the version of its value which fields
there are. The layouts are compiled like those of the protocol (`transport/kafka/compile_*.py`).
May fail with MalformedMessage or UnsupportedVersion: the log holds what no zafka or Kafka of ours has written.
Source: Kafka CoordinatorRecordSerde, MessageUtil.toVersionPrefixedBytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec

from zafka.transport.kafka.compile_reader import RESPONSE_ELEMENTS_MAX, compile_reader
from zafka.transport.kafka.compile_writer import compile_writer
from zafka.transport.kafka.layout import Api, Field, Layout
from zafka.transport.kafka.types import Reader, UnsupportedVersion, Writer

VERSION_BYTES = 2
NEWEST = 2**15 - 1  # of any version
NOT_OF_AN_API = -1


def field(
    name: str, kind: str, since: int = 0, until: int = NEWEST, *, array: bool = False, nullable_since: int | None = None,
    tag: int | None = None, default: Any = msgspec.UNSET, struct: str = "", fields: Sequence[Field] = (),
) -> Field:
    """A field of a key or value; as in Kafka's JSON, with our names. fields: of the struct, if `kind` is "struct"."""
    nullable = None if nullable_since is None else (nullable_since, NEWEST)
    return Field(name, kind, (since, until), array, nullable, tag, default, struct, tuple(fields))


class Kind:
    """One kind of record.

    number: the version of its keys. key, value: msgspec structs; what they refer to stands in the same module.
    versions: of its values that can be read, inclusive. flexible: the first of them with tagged fields.
    """

    def __init__(
        self, number: int, key: type[Any], key_fields: Sequence[Field], value: type[Any], value_fields: Sequence[Field],
        *, versions: tuple[int, int] = (0, 0), flexible: int = 0,
    ) -> None:
        self.number = number
        self.key = key
        self.value = value
        self.versions = versions
        self._key_layout = _layout(key, key_fields, (number, number), NEWEST)
        self._value_layout = _layout(value, value_fields, versions, flexible)
        self._prefix = number.to_bytes(VERSION_BYTES, "big")
        self._readers: dict[int, Reader] = {}
        self._writers: dict[int, Writer] = {}

    def __repr__(self) -> str:
        return f"<Kind {self.number} {self.key.__name__}>"

    @cached_property
    def _write_key(self) -> Writer:
        return compile_writer(self._key_layout, self.number, self._key_layout.request)

    @cached_property
    def _read_key(self) -> Reader:
        return compile_reader(
            self._key_layout, self.number, self._key_layout.request, elements_max=RESPONSE_ELEMENTS_MAX)

    def encode_key(self, key: Any) -> bytes:
        return self._prefix + b"".join(self._write_key(key))

    def decode_key(self, data: bytes) -> Any:
        return self._read_key(memoryview(data), VERSION_BYTES)

    def encode_value(self, value: Any, version: int) -> bytes:
        write = self._writers.get(version)
        if write is None:
            write = self._writers[version] = compile_writer(self._value_layout, version, self._value_layout.request)
        return version.to_bytes(VERSION_BYTES, "big") + b"".join(write(value))

    def decode_value(self, data: bytes) -> Any:
        version = int.from_bytes(data[:VERSION_BYTES], "big", signed=True)
        read = self._readers.get(version)
        if read is None:
            if not self.versions[0] <= version <= self.versions[1]:
                raise UnsupportedVersion(self.number, version)
            read = self._readers[version] = compile_reader(
                self._value_layout, version, self._value_layout.request, elements_max=RESPONSE_ELEMENTS_MAX)
        return read(memoryview(data), VERSION_BYTES)


def decode_record(kinds: Mapping[int, Kind], key: bytes, value: bytes | None) -> tuple[Any, Any] | None:
    """A record's key and value, None for a tombstone's value; None for a kind that is not among these."""
    kind = kinds.get(int.from_bytes(key[:VERSION_BYTES], "big", signed=True))
    if kind is None:
        return None
    return kind.decode_key(key), None if value is None else kind.decode_value(value)


def _layout(struct: type[Any], fields: Sequence[Field], versions: tuple[int, int], flexible: int) -> Api:
    layout = Layout(struct.__name__, tuple(fields))
    return Api(NOT_OF_AN_API, struct.__name__, versions, flexible, layout, layout, struct.__module__)
