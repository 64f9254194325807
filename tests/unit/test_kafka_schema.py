"""The committed layouts, types, error codes and API keys are what kio, and so Kafka's own JSON, says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import kio.schema.errors
from kio.schema.index import api_key_map
from kio.static.constants import EntityType

from tests.kafka_oracle import APIS, KINDS, every_layout, kio_class
from zafka.transport.kafka import messages
from zafka.transport.kafka.api_keys import ApiKey, is_flexible
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.layout import FOLDER, load_api

ROOT = Path(__file__).resolve().parents[2]


def test_committed_files_are_what_the_generator_writes() -> None:
    spec = importlib.util.spec_from_file_location("generate_schema", ROOT / "scripts" / "generate_schema.py")
    assert spec is not None and spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    folder = FOLDER.parent
    generated = generator.generate()
    assert {path: (folder / path).read_text() for path in generated} == generated
    committed = {path.relative_to(folder).as_posix() for path in (*FOLDER.glob("*"), *folder.glob("messages/*.py"))}
    assert committed == set(generated)


def test_error_codes_are_kafkas() -> None:
    theirs = {int(error): (error.name.upper(), error.retriable) for error in kio.schema.errors.ErrorCode}
    assert {int(error): (error.name, error.is_retriable) for error in ErrorCode} == theirs


def test_api_keys_are_kafkas() -> None:
    theirs = {key: name.upper() for key, name in api_key_map.items()}
    assert {int(key): key.name for key in ApiKey if key in theirs} == theirs


def test_flexible_versions_are_those_with_a_flexible_header() -> None:
    for key, kind, version in every_layout():
        kio_type = kio_class(key, kind, version)
        assert kio_type.__flexible__ == is_flexible(key, version), (key, version)
        header = kio_type.__header_schema__.__flexible__
        expected = kio_type.__flexible__ and (key, kind) != (ApiKey.API_VERSIONS, "response")
        assert kio_type.__type__ in (EntityType.request, EntityType.response) and header == expected, (key, version)


def test_every_message_is_exported_by_name() -> None:
    for key in APIS:
        for kind in KINDS:
            name = getattr(load_api(key), kind).struct
            assert getattr(messages, name).__name__ == name
