"""The layouts of Kafka's messages, as `schema/*.json` has them: one tree for all versions of an API.

Owns: loading, once per API and process, and the question which fields a version has.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.types import UnsupportedVersion

FOLDER = Path(__file__).parent / "schema"


class Field(msgspec.Struct, frozen=True):
    """A field over all versions. `versions` and `nullable` are first and last version, inclusive.

    type: int8 … int64, bool, uuid, string, bytes, records, or struct (then `fields`). array: a list of those.
    tag: number of a tagged field; a struct has all its tagged fields behind the others.
    default: absent means the type's zero.
    """

    name: str
    type: str
    versions: tuple[int, int]
    array: bool = False
    nullable: tuple[int, int] | None = None
    tag: int | None = None
    default: Any = msgspec.UNSET
    struct: str = ""
    fields: tuple[Field, ...] = ()

    def exists_in(self, version: int) -> bool:
        return self.versions[0] <= version <= self.versions[1]

    def is_nullable_in(self, version: int) -> bool:
        return self.nullable is not None and self.nullable[0] <= version <= self.nullable[1]


class Layout(msgspec.Struct, frozen=True):
    struct: str
    fields: tuple[Field, ...]


class Api(msgspec.Struct, frozen=True):
    """versions: first and last that we have a layout for. flexible: the first flexible one.

    module: that has the structs, "" for the API's own in `messages/`.
    """

    key: int
    name: str
    versions: tuple[int, int]
    flexible: int
    request: Layout
    response: Layout
    module: str = ""


@cache
def load_api(api_key: int) -> Api:
    """Raises UnsupportedVersion if there is no layout of this API."""
    try:
        text = (FOLDER / f"{ApiKey(api_key).name.lower()}.json").read_bytes()
    except (ValueError, FileNotFoundError):
        raise UnsupportedVersion(api_key, -1) from None
    return msgspec.json.decode(text, type=Api)


def default_of(field: Field) -> str:
    """The default of a field, as Python source."""
    if field.default is not msgspec.UNSET:
        return repr(field.default)
    if field.array:
        return "[]"
    return _ZEROS.get(field.type, "0")


_ZEROS = {
    "bool": "False", "string": "''", "bytes": "b''", "records": "None", "uuid": "ZERO_UUID", "struct": "None",
}  # fmt: skip
