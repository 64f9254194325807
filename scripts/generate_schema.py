"""Write the Kafka message layouts and types in transport/kafka/ from kio, which has them from Kafka's own JSON.

Usage: python scripts/generate_schema.py [FOLDER]    (default: transport/kafka beside this script's folder)
Writes `schema/<api>.json` (one field a line, every version in one tree, as in Kafka's JSON), `messages/<api>.py`
(the same as typed structs) and `messages/__init__.py`. kio is a test dependency: importing it costs more than a broker may.
Names are Kafka's in snake case: kio drops the "_ms" of durations and times, which is put back here.
`tests/unit/test_kafka_schema.py` fails when the committed files differ from what this writes.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from kio.serial._introspect import (
    EntityField,
    EntityTupleField,
    classify_field,
    get_field_tag,
    get_schema_field_type,
    is_optional,
)

APIS = (
    "produce", "fetch", "list_offsets", "metadata", "offset_commit", "offset_fetch", "find_coordinator", "join_group",
    "heartbeat", "leave_group", "sync_group", "describe_groups", "list_groups", "sasl_handshake", "api_versions",
    "create_topics", "delete_topics", "delete_records", "init_producer_id", "offset_for_leader_epoch",
    "describe_configs", "alter_configs", "sasl_authenticate", "create_partitions", "delete_groups",
    "incremental_alter_configs", "describe_cluster", "describe_topic_partitions", "describe_log_dirs",
    "list_config_resources", "describe_producers", "describe_transactions", "list_transactions", "describe_acls",
    "create_acls", "delete_acls", "elect_leaders", "alter_partition_reassignments", "list_partition_reassignments",
    "describe_quorum", "describe_client_quotas", "alter_client_quotas", "describe_user_scram_credentials",
    "alter_user_scram_credentials", "offset_delete", "consumer_group_heartbeat",
    "consumer_group_describe", "update_features",
)  # fmt: skip

# kio's types of fields, and what travels.
PRIMITIVES = {
    "error_code": "int16", "timedelta_i32": "int32", "timedelta_i64": "int64", "datetime_i64": "int64",
}  # fmt: skip
PYTHON_TYPES = {
    "int8": "int", "int16": "int", "int32": "int", "int64": "int", "bool": "bool", "string": "str", "bytes": "bytes",
    "records": "memoryview", "uuid": "bytes", "uint16": "int", "float64": "float",
}  # fmt: skip
ZEROS = {"bool": "False", "string": '""', "bytes": 'b""', "records": "None", "uuid": "ZERO_UUID", "float64": "0.0"}

Field = dict[str, Any]
Fields = list[Field]


def main(arguments: list[str]) -> None:
    folder = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent / "transport" / "kafka"
    for path, text in generate().items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def generate() -> dict[str, str]:
    """Relative path and content of every generated file."""
    files = {}
    structs: dict[str, list[str]] = {}  # API -> names of its structs
    for api in APIS:
        schema = api_schema(api)
        files[f"schema/{api}.json"] = schema_text(schema)
        files[f"messages/{api}.py"] = module_text(schema)
        structs[api] = list(dict.fromkeys(
            name for kind in ("request", "response") for name, _ in walk_structs(schema[kind])))
    files["messages/__init__.py"] = index_text(structs)
    return files


# -- kio's dataclasses, one per version -> one tree for all versions ----------------------------------


def api_schema(api: str) -> dict[str, Any]:
    package = importlib.import_module(f"kio.schema.{api}")
    versions = sorted(int(module.name[1:]) for module in pkgutil.iter_modules(package.__path__))
    assert versions == list(range(versions[0], versions[-1] + 1)), api
    name = "".join(word.capitalize() for word in api.split("_"))
    trees: dict[str, Field] = {}
    flexible: set[int] = set()
    key = -1
    for kind in ("request", "response"):
        struct = f"{name}{kind.capitalize()}"
        by_version = {}
        for version in versions:
            module = importlib.import_module(f"kio.schema.{api}.v{version}.{kind}")
            by_version[version] = getattr(module, struct)
            key = int(by_version[version].__api_key__)
            if by_version[version].__flexible__:
                flexible.add(version)
        trees[kind] = {"struct": struct, "fields": merge_struct(by_version)}
    rename_answers(trees["request"], trees["response"])
    return {
        "key": key,
        "name": name,
        "versions": [versions[0], versions[-1]],
        "flexible": min(flexible, default=versions[-1] + 1),
        **trees,
    }


def rename_answers(request: Field, response: Field) -> None:
    """Where Kafka gives two structs of one API one name, call the one of the answer "...Response"."""
    asked = dict(walk_structs(request))
    for field in response["fields"]:
        if "fields" in field:
            if asked.get(field["struct"], field["fields"]) != field["fields"]:
                field["struct"] += "Response"
            rename_answers(request, field)


def merge_struct(by_version: dict[int, type]) -> Fields:
    """The fields of one struct over all versions that have it, in the order that fits every version."""
    order: list[str] = []
    for _, struct in sorted(by_version.items(), reverse=True):
        names = [field.name for field in dataclasses.fields(struct)]
        for position, name in enumerate(names):
            if name not in order:
                later = [order.index(follower) for follower in names[position:] if follower in order]
                order.insert(min(later, default=len(order)), name)
    for struct in by_version.values():
        names = [field.name for field in dataclasses.fields(struct)]
        assert names == [name for name in order if name in names], struct
    return [merge_field(name, by_version) for name in order]


def merge_field(name: str, by_version: dict[int, type]) -> Field:
    fields = {
        version: field
        for version, struct in by_version.items()
        for field in dataclasses.fields(struct)
        if field.name == name
    }
    shapes = {version: classify_field(field) for version, field in fields.items()}
    newest = max(fields)
    nested = isinstance(shapes[newest], EntityField | EntityTupleField)
    kio_type = "struct" if nested else same(get_schema_field_type(field) for field in fields.values())
    merged: Field = {"name": name, "type": PRIMITIVES.get(kio_type, kio_type)}
    if kio_type in ("timedelta_i32", "timedelta_i64", "datetime_i64"):
        merged["name"] = f"{name}_ms"
    if same(shape.is_array for shape in shapes.values()):
        merged["array"] = True
    merged["versions"] = span(fields)
    tag = same(get_field_tag(field) for field in fields.values())
    if tag is not None:
        merged["tag"] = int(tag)
    nullable = [version for version, field in fields.items() if is_optional(field)]
    if nullable and merged["type"] not in ("uuid", "int64") and not (nested and tag is not None):
        merged["nullable"] = span(nullable)
    defaults = {json.dumps(default_of(field)) for field in fields.values() if field.default is not dataclasses.MISSING}
    if defaults and not nested and merged["type"] not in ("uuid", "records"):
        (default,) = defaults
        if json.loads(default) not in (0, "", [], False) or default == "null":
            merged["default"] = -1 if kio_type == "datetime_i64" else json.loads(default)
    if nested:
        merged["struct"] = same(shape.type_.__name__ for shape in shapes.values())
        merged["fields"] = merge_struct({version: shape.type_ for version, shape in shapes.items()})
    return merged


def default_of(field: dataclasses.Field[Any]) -> Any:
    default = field.default
    if isinstance(default, timedelta):
        return round(default.total_seconds() * 1000)
    if dataclasses.is_dataclass(default):
        return None
    return int(default) if isinstance(default, int) and not isinstance(default, bool) else default


def same(values: Iterable[Any]) -> Any:
    (value,) = set(values)
    return value


def span(versions: Iterable[int]) -> list[int]:
    numbers = sorted(versions)
    assert numbers == list(range(numbers[0], numbers[-1] + 1)), numbers
    return [numbers[0], numbers[-1]]


def walk_structs(tree: Field) -> Iterator[tuple[str, Fields]]:
    """Every struct below (and with) this one, those that others need first."""
    for field in tree["fields"]:
        if "fields" in field:
            yield from walk_structs(field)
    yield tree["struct"], tree["fields"]


# -- the files ----------------------------------------------------------------------------------------


def schema_text(schema: dict[str, Any]) -> str:
    head = ", ".join(f"{json.dumps(name)}: {json.dumps(schema[name])}" for name in schema if name not in TREES)
    trees = ",\n".join(f" {json.dumps(name)}: {tree_text(schema[name], '  ')}" for name in TREES)
    return f'{{"generated by": "scripts/generate_schema.py", {head},\n{trees}}}\n'


TREES = ("request", "response")


def tree_text(tree: Field, indent: str) -> str:
    """One field a line."""
    head = ", ".join(f"{json.dumps(name)}: {json.dumps(tree[name])}" for name in tree if name != "fields")
    if "fields" not in tree:
        return f"{{{head}}}"
    fields = ",\n".join(indent + tree_text(field, indent + "  ") for field in tree["fields"])
    return f'{{{head}, "fields": [\n{fields}]}}' if fields else f'{{{head}, "fields": []}}'


def module_text(schema: dict[str, Any]) -> str:
    first, last = schema["versions"]
    title = f"{schema['name']} (API key {schema['key']}, versions {first}-{last})."
    lines = [
        f'"""{title} Generated by scripts/generate_schema.py, not edited by hand."""',
        "",
        "from __future__ import annotations",
        "",
        "from msgspec import Struct",
    ]
    structs: dict[str, Fields] = {}
    for kind in TREES:
        for name, fields in walk_structs(schema[kind]):
            # A request may hand back what an answer gave, such as a cursor.
            assert structs.setdefault(name, fields) == fields, f"two structs {name} in {schema['name']}"
    if any(is_plain_struct(field) for fields in structs.values() for field in fields):
        lines[-1] += ", field"
    if any(field["type"] == "uuid" for fields in structs.values() for field in fields):
        lines += ["", "from zafka.transport.kafka.types import ZERO_UUID"]
    for name, fields in structs.items():
        lines += ["", "", f"class {name}(Struct, gc=False):"]
        lines += [f"    {field['name']}: {annotation(field)} = {initial(field)}" for field in fields] or ["    pass"]
    return "\n".join(lines) + "\n"


def is_plain_struct(field: Field) -> bool:
    """Never null, in no array and not tagged: always there."""
    return "fields" in field and not {"array", "nullable", "tag"} & field.keys()


def annotation(field: Field) -> str:
    plain = field["struct"] if "fields" in field else PYTHON_TYPES[field["type"]]
    if "array" in field:
        plain = f"list[{plain}]"
    return f"{plain} | None" if "nullable" in field or initial(field) == "None" else plain


def initial(field: Field) -> str:
    if "default" in field:
        return repr(field["default"])
    if "array" in field:
        return "[]"
    if is_plain_struct(field):
        return f"field(default_factory={field['struct']})"
    return "None" if "fields" in field else ZEROS.get(field["type"], "0")


def index_text(structs: dict[str, list[str]]) -> str:
    """`messages/__init__.py`: every name that only one API has, imported on first use."""
    owners: dict[str, list[str]] = {}
    for api, names in structs.items():
        for name in names:
            owners.setdefault(name, []).append(api)
    exported = {api: sorted(name for name in names if owners[name] == [api]) for api, names in structs.items()}
    shared = sorted(name for name, apis in owners.items() if len(apis) > 1)
    lines = [
        '"""The structs of all Kafka messages. Generated by scripts/generate_schema.py, not edited by hand.',
        "",
        "`from zafka.transport.kafka.messages import ProduceRequest` imports the module of that API only.",
        "One struct serves all versions of an API; a field that a version lacks keeps its default on reading and is left",
        "out on writing. Durations and times are ints, uuids 16 bytes, `records` a slice of the frame.",
        "Names that several APIs use are imported from their API's module:",
        *wrap(shared, "  "),
        '"""',
        "# ruff: noqa: I001",
        "",
        "from __future__ import annotations",
        "",
        "import importlib",
        "from typing import TYPE_CHECKING, Any",
        "",
        "if TYPE_CHECKING:",
    ]
    for api, names in sorted(exported.items()):
        lines += [f"    from zafka.transport.kafka.messages.{api} import ("]
        lines += [f"        {name} as {name}," for name in names] + ["    )"]
    lines += ["", "_MODULES = {"]
    for api, names in sorted(exported.items()):
        lines += [f'    "{api}": (', *wrap([f'"{name}"' for name in names], "        ", end=","), "    ),"]
    lines += [
        "}",
        "_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}",
        "",
        "",
        "def __getattr__(name: str) -> Any:",
        "    if name not in _MODULE_OF:",
        '        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")',
        '    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)',
        "    globals()[name] = value",
        "    return value",
    ]
    return "\n".join(lines) + "\n"


def wrap(words: list[str], indent: str, *, end: str = "") -> list[str]:
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > 105:
            lines.append("")
        lines[-1] += word + ", "
    return [indent + line.rstrip(", ") + ("," if number < len(lines) - 1 else end) for number, line in enumerate(lines)]


if __name__ == "__main__":
    main(sys.argv[1:])
