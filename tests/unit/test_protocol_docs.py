"""docs/protocol.md is what its generator writes, and no API is told to clients in versions that Kafka does not have."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from zafka.actors.gateway.registry import APIS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_protocol", ROOT / "scripts" / "generate_protocol.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_file_is_what_the_generator_writes(generator: ModuleType) -> None:
    assert (ROOT / "docs" / "protocol.md").read_text() == generator.generate()


def test_what_is_told_to_clients_lies_within_kafka_s_ranges(generator: ModuleType) -> None:
    for key, api in APIS.items():
        first, last = generator.KAFKA[key]
        assert first <= api.advertised.start and api.advertised.stop - 1 <= last, key


def test_the_data_apis_are_told_in_kafka_s_whole_ranges(generator: ModuleType) -> None:
    for key in (0, 1, 2, 3, 18, 23):
        assert generator.told(APIS[key]) == generator.span(*generator.KAFKA[key]), key
