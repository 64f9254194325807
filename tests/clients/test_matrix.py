"""Each case of tests/clients/matrix with each client that can do it. ZAFKA_CLIENTS_REPORT=FILE writes what came of it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import require
from tests.clients.matrix import report
from tests.clients.matrix.cases import Bench, Case
from tests.clients.matrix.driver import Driver
from tests.clients.matrix.table import CASES, DRIVERS

pytestmark = pytest.mark.timeout(180)
REPORT = os.environ.get("ZAFKA_CLIENTS_REPORT")
IN_A_HURRY = {"confluent-kafka", "kafka-python", "zafka, Kafka's protocol"}  # those that do what takes seconds each time
LEFT_OUT = {"sarama"}  # those that are tried by make clients only


@pytest.fixture(scope="module")
def drivers(bench: Bench) -> Iterator[dict[str, Driver]]:
    with contextlib.ExitStack() as stack:
        made = {}
        for kind in DRIVERS:
            if kind.missing() is None:
                made[kind.name] = kind(bench.reference.bootstrap, bench.zmq)
                stack.callback(made[kind.name].close)
        bench.drivers = list(made.values())
        yield made
        if REPORT:
            Path(REPORT).write_text(json.dumps({
                "versions": {name: driver.version() for name, driver in made.items()}, "passed": bench.passed,
                "seen": bench.recorder.told() if bench.recorder is not None else {}}))


def left_to_make_clients(asked: Case, kind: type[Driver]) -> bool:
    return kind.name in LEFT_OUT or (asked.takes_seconds and kind.name not in IN_A_HURRY)


@pytest.mark.parametrize(
    ("asked", "kind"),
    [pytest.param(one, kind, id=f"{kind.name}: {one.name}")
     for kind in DRIVERS for one in CASES if one.why_not(kind) is None])
def test_client(bench: Bench, drivers: dict[str, Driver], asked: Case, kind: type[Driver]) -> None:
    if kind.toolchain is not None and kind.name not in drivers:
        pytest.skip(kind.missing() or "")
    require(kind.name in drivers, kind.missing() or "")
    if asked.needs_kills and bench.broker is None:
        pytest.skip("processes are killed in a broker of ours only")
    if not REPORT and left_to_make_clients(asked, kind):
        pytest.skip("takes seconds: make clients has each client do it")
    try:
        asked.run(bench, drivers[kind.name])
    finally:
        bench.tidy()
    bench.passed.append((kind.name, asked.name))


def test_the_document_is_in_step() -> None:
    """A case or a client that was added, taken out or renamed wants `make clients`, which writes what ran."""
    document = report.DOCUMENT.read_text()
    assert report.HEAD in document and report.matrix() in document and report.reasons() in document


def test_what_clients_cannot_do_is_something_that_cases_need() -> None:
    for kind in DRIVERS:
        assert set(kind.cannot) <= {ability for one in CASES for ability in one.needs}, kind.name
