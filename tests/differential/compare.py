"""Two answers, field by field.

Owns: what is left out of the comparison, which is `OWN`, and nothing else. An answer becomes a tree of dicts and lists that
holds the fields its version has; elements of lists are matched by what names them (`NAMING`), so that one that
is missing is one difference. Pure.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tests.differential.sides import Side
from tests.differential.wire import Outcome
from zafka.storage.batch import HEADER_BYTES, walk
from zafka.storage.errors import BadBatch
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.layout import Field, load_api
from zafka.transport.kafka.types import ZERO_UUID

# Which fields tell elements of a list apart: the first of these that an element has.
NAMING = tuple(names.split() for names in (
    "resource_type resource_name", "api_key", "key", "name", "topic", "topic_name", "topic_id", "partition_index",
    "partition", "index", "batch", "broker_id", "node_id", "log_dir", "transactional_id", "producer_id", "entity_type", "user", "mechanism",
    "group_id", "member_id"))  # fmt: skip
# Elsewhere topics and partitions come as Kafka's hash maps have them, which differs from one run to the next.
ORDERED = ("DescribeTopicPartitions", "ApiVersions")
MISSING = "(missing)"
ORDER = "(order)"


class Difference(NamedTuple):
    """field: dotted, without positions. where: with the names of elements."""

    api: str
    version: int
    case: str
    field: str
    where: str
    ours: str
    kafka: str


# -- what each side has its own of: field -> how it is told instead ------------------------------------


def _known(value: Any, side: Side) -> Any:
    """An id by the name it is known by; one that was given just now by the fact that it was."""
    if value == ZERO_UUID:
        return "zero"
    if value in (None, -1, 0, ""):
        return value
    return side.names.get(value, "an id of its own")


def _producer(value: int, side: Side) -> Any:
    return "a producer" if value >= 0 else value


def _port(value: int, side: Side) -> Any:
    return "its port" if value == side.port else value


def _directory(value: str, side: Side) -> str:
    return "a directory" if value.startswith("/") else value


def _positive(value: int, side: Side) -> Any:
    return "more than 0" if value > 0 else value


OWN: dict[str, Callable[[Any, Side], Any]] = {
    "cluster_id": _known, "member_id": _known, "leader": _known, "topic_id": _known, "producer_id": _producer, "session_id": _known, "port": _port,
    "log_dir": _directory, "total_bytes": _positive, "usable_bytes": _positive, "finalized_features_epoch": _positive,
    "log_end_offset": _positive, "last_fetch_timestamp": _positive, "last_caught_up_timestamp": _positive,
}  # fmt: skip


# -- trees ------------------------------------------------------------------------------------------------


def tree(outcome: Outcome, key: int, version: int, side: Side) -> Any:
    """A struct as a dict of the fields that its version has; text stays text."""
    if isinstance(outcome, str):
        return outcome
    return _struct(outcome, load_api(key).response.fields, version, side)


def _struct(value: Any, fields: tuple[Field, ...], version: int, side: Side) -> Any:
    if value is None:
        return None
    return {
        field.name: _value(getattr(value, field.name), field, version, side)
        for field in fields if field.exists_in(version)}


def _value(value: Any, field: Field, version: int, side: Side) -> Any:
    if field.array and value is not None:
        elements = [_element(element, field, version, side) for element in value]
        return _joined(elements) if field.struct == "FetchableTopicResponse" else elements
    return _element(value, field, version, side)


def _joined(topics: list[Any]) -> list[Any]:
    """Each topic once: Kafka tells of a topic's unknown partitions apart from the others."""
    joined: dict[Any, Any] = {}
    for topic in topics:
        same = joined.setdefault(topic.get("topic", topic.get("topic_id")), {**topic, "partitions": []})
        same["partitions"] += topic["partitions"]
    return list(joined.values())


def _element(value: Any, field: Field, version: int, side: Side) -> Any:
    if field.type == "struct":
        return _struct(value, field.fields, version, side)
    if field.name in OWN:
        return OWN[field.name](value, side)
    if field.name == "error_code":
        return ErrorCode(value).name
    if field.type == "records":
        return None if value is None else _batches(value, side)
    return value.hex() if field.type in ("uuid", "bytes") and value is not None else value


def _batches(data: memoryview, side: Side) -> list[Any]:
    """Headers, a sum of what stands behind each, and how much is left behind the last whole batch.

    A batch's own CRC covers the producer id, which is a side's own; that it fits is seen here.
    """
    found: list[Any] = []
    end = 0
    try:
        for position, header in walk(data, check_crc=True):
            end = position + header.size_bytes
            found.append({
                "batch": header.base_offset, **header._asdict(), "producer_id": _producer(header.producer_id, side),
                "crc": zlib.crc32(data[position + HEADER_BYTES:end])})
    except BadBatch as error:
        found.append({"not a batch": str(error)})
    if end < len(data):
        found.append({"batch": "a part of a batch", "bytes": len(data) - end})
    return found


# -- differences --------------------------------------------------------------------------------------------


def differences(ours: Any, theirs: Any, path: str = "", where: str = "") -> Iterator[tuple[str, str, str, str]]:
    """(field, where, ours, Kafka's) wherever two trees differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in ours.keys() | theirs.keys():
            yield from differences(
                ours.get(name, MISSING), theirs.get(name, MISSING), f"{path}.{name}".lstrip("."), f"{where}.{name}".lstrip("."))
    elif isinstance(ours, list) and isinstance(theirs, list):
        yield from _list_differences(ours, theirs, path, where)
    elif ours != theirs:
        yield path or "(answer)", where, show(ours), show(theirs)


def _list_differences(ours: list[Any], theirs: list[Any], path: str, where: str) -> Iterator[tuple[str, str, str, str]]:
    named_ours, named_theirs = _by_name(ours), _by_name(theirs)
    if named_ours is None or named_theirs is None:
        named_ours, named_theirs = dict(enumerate(ours)), dict(enumerate(theirs))
    common = [name for name in named_ours if name in named_theirs]
    if common != [name for name in named_theirs if name in named_ours]:
        yield f"{path}.{ORDER}", where, show(common), show([name for name in named_theirs if name in named_ours])
    for name in list(named_ours) + [name for name in named_theirs if name not in named_ours]:
        yield from differences(
            named_ours.get(name, MISSING), named_theirs.get(name, MISSING), path, f"{where}[{name}]")


def _by_name(elements: list[Any]) -> dict[Any, Any] | None:
    """The elements by what names them; None if that does not tell one from the other."""
    named = {}
    for element in elements:
        if not isinstance(element, dict):
            return None
        values = ([element.get(name) for name in names] for names in NAMING)
        named[next((" ".join(map(str, value)) for value in values if None not in value), "")] = element
    return named if len(named) == len(elements) else None


def show(value: Any) -> str:
    text = value if isinstance(value, str) and value in (MISSING, ORDER) else repr(value)
    return text if len(text) <= 200 else text[:197] + "..."


def compare(case: str, key: int, version: int, outcomes: tuple[Outcome, Outcome], sides: tuple[Side, Side]) -> list[Difference]:
    """outcomes: ours and Kafka's."""
    api = load_api(key).name
    trees = [tree(outcome, key, version, side) for outcome, side in zip(outcomes, sides, strict=True)]
    return [
        Difference(api, version, case, *found) for found in differences(trees[0], trees[1])
        if api in ORDERED or not found[0].endswith(ORDER)]
