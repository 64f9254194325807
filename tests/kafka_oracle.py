"""kio as the oracle of the Kafka codec: random messages as kio has them, and the same as ours.

Only for bytes that we made ourselves: kio's native reader must not see a stranger's.
"""

from __future__ import annotations

import dataclasses
import importlib
import io
import random
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from kio.schema.errors import ErrorCode
from kio.serial import entity_reader, entity_writer
from kio.serial._introspect import EntityField, EntityTupleField, classify_field, get_field_tag, is_optional

from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.layout import FOLDER, Field, Layout, load_api
from zafka.transport.kafka.types import ZERO_UUID

APIS = [ApiKey[path.stem.upper()] for path in sorted(FOLDER.glob("*.json"))]
KINDS = ("request", "response")


def every_layout() -> Iterator[tuple[ApiKey, str, int]]:
    for key in APIS:
        first, last = load_api(key).versions
        for kind in KINDS:
            for version in range(first, last + 1):
                yield key, kind, version


def kio_class(key: ApiKey, kind: str, version: int) -> Any:
    module = importlib.import_module(f"kio.schema.{key.name.lower()}.v{version}.{kind}")
    return getattr(module, getattr(load_api(key), kind).struct)


def kio_write(message: Any) -> bytes:
    out = io.BytesIO()
    entity_writer(type(message))(out, message)
    return out.getvalue()


def kio_read(kio_type: Any, data: bytes) -> Any:
    message, end = entity_reader(kio_type)(data, 0)
    assert end == len(data)
    return message


# -- random messages of kio's -------------------------------------------------------------------------


def random_message(kio_type: Any, rng: random.Random) -> Any:
    return kio_type(**{field.name: _random_field(field, rng) for field in dataclasses.fields(kio_type)})


def _random_field(field: dataclasses.Field[Any], rng: random.Random) -> Any:
    shape = classify_field(field)
    nested = isinstance(shape, EntityField | EntityTupleField)
    tagged = get_field_tag(field) is not None
    if tagged and field.default is not dataclasses.MISSING and rng.random() < 0.4:
        return field.default
    if is_optional(field) and not tagged and rng.random() < 0.2:
        return None

    def value() -> Any:
        if nested:
            return random_message(shape.type_, rng)
        return _RANDOM[field.metadata["kafka_type"]](rng)

    if shape.is_array:
        return tuple(value() for _ in range(rng.choice((0, 1, 1, 2, 3, 3 if nested else 150))))
    return value()


def _integer(bits: int) -> Callable[[random.Random], int]:
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    return lambda rng: rng.choice((low, -1, 0, 1, high, rng.randint(low, high)))


def _text(rng: random.Random) -> str:
    return rng.choice(("", "a", "orders", "ü€𝄞", "x" * 126, "x" * 127, "y" * 128, "z" * 20_000))


def _bytes(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 126, 127, 128, 20_000)))


_RANDOM: dict[str, Callable[[random.Random], Any]] = {
    "int8": _integer(8),
    "int16": _integer(16),
    "int32": _integer(32),
    "int64": _integer(64),
    "uint16": lambda rng: rng.choice((0, 1, 0xFFFF)),
    "float64": lambda rng: rng.choice((0.0, -1.5, 1e300, rng.random())),
    "bool": lambda rng: rng.random() < 0.5,
    "string": _text,
    "bytes": _bytes,
    "records": _bytes,
    "uuid": lambda rng: rng.choice((None, uuid.UUID(bytes=rng.randbytes(16)))),
    "error_code": lambda rng: rng.choice(list(ErrorCode)),
    "timedelta_i32": lambda rng: timedelta(milliseconds=_integer(32)(rng)),
    # A datetime or timedelta does not reach as far as an int64.
    "timedelta_i64": lambda rng: timedelta(milliseconds=rng.randint(-(10**13), 10**13)),
    "datetime_i64": lambda rng: datetime.fromtimestamp(rng.randint(0, 2 * 10**9), UTC),
}


# -- kio's message -> ours ----------------------------------------------------------------------------


def ours(message: Any, layout: Layout, key: ApiKey) -> Any:
    return _our_struct(message, layout.struct, layout.fields, key)


def _our_struct(message: Any, struct: str, fields: tuple[Field, ...], key: ApiKey) -> Any:
    module = importlib.import_module(f"zafka.transport.kafka.messages.{key.name.lower()}")
    theirs = {field.name: field for field in dataclasses.fields(message)}
    values = {}
    for field in fields:
        if (name := field.name) in theirs or (name := field.name.removesuffix("_ms")) in theirs:
            values[field.name] = _our_value(getattr(message, name), theirs[name], field, key)
    return getattr(module, struct)(**values)


def _our_value(value: Any, their_field: dataclasses.Field[Any], field: Field, key: ApiKey) -> Any:
    if field.array:
        return None if value is None else [_our_element(element, field, key) for element in value]
    if field.type == "struct" and value == their_field.default:
        return None  # a tagged struct that stays away
    if value is None and their_field.metadata.get("kafka_type") == "datetime_i64":
        return -1
    return _our_element(value, field, key)


def _our_element(value: Any, field: Field, key: ApiKey) -> Any:
    if field.type == "struct":
        return _our_struct(value, field.struct, field.fields, key)
    if field.type == "uuid":
        return ZERO_UUID if value is None else value.bytes
    if field.type == "records":
        return None if value is None else memoryview(value)
    if isinstance(value, timedelta):
        return value // timedelta(milliseconds=1)
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000)
    return int(value) if isinstance(value, ErrorCode) else value
