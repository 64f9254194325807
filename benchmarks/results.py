"""The results file: what each suite measured, when, and on what. A suite that runs again replaces its own part.

Owns: `docs/bench/results.json` and the tables made from it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.figures import Row, ratios, spread, spread_text, verdict

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "bench"
SYSTEMS = {
    "zafka": "zafka",
    "zafka os": "zafka, fsync: os",
    "kafka": "Apache Kafka",
    "kafka flush": "Kafka, flush.messages=1",
    "ceiling": "client alone",
    # The suite `native` compares clients, all of them on zafka.
    (CONFLUENT := "confluent"): "confluent-kafka",
    (NATIVE_ZMQ := "native zmq"): "ours, ZeroMQ door",
    (NATIVE_KAFKA := "native kafka"): "ours, Kafka's protocol",
}


class Results:
    """Figures by suite: {"throughput": {"measured": …, "rounds": 3, "machine": {…}, "rows": […]}}."""

    def __init__(self, suites: dict[str, Any] | None = None) -> None:
        self.suites: dict[str, Any] = suites or {}

    @classmethod
    def load(cls, file: Path) -> Results:
        return cls(json.loads(file.read_text())) if file.exists() else cls()

    def put(self, suite: str, rows: Sequence[Row], *, rounds: int, seconds: float, about: dict[str, Any]) -> None:
        self.suites[suite] = {
            "measured": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "rounds": rounds,
            "seconds": round(seconds), "machine": about, "rows": [row.as_json() for row in rows],
        }

    def rows(self, suite: str) -> list[Row]:
        return [Row.from_json(row) for row in self.suites.get(suite, {"rows": []})["rows"]]

    def save(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = file.with_suffix(".new")
        whole.write_text(json.dumps(self.suites, indent=1) + "\n")
        whole.replace(file)


def machine(load_before: float) -> dict[str, Any]:
    """What the figures were measured on; the load says whether other work ran beside."""
    packages = {}
    for name in ("confluent-kafka", "pyzmq", "uvloop"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "-"
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version(),
        "commit": commit.stdout.strip() or "-", "load before": round(load_before, 1),
        "load after": round(os.getloadavg()[0], 1), **packages,
    }


def cells(row: Row) -> list[list[str]]:
    """The table's lines of a row: one for each goal, or one without."""
    values = [spread_text(spread(row.values.get(system, ()))) for system in SYSTEMS]
    lines = []
    for goal in row.goals:
        found = spread(ratios(row, goal.subject, goal.reference))
        wanted = [f"{goal.at_least:g}x", f"{goal.aim:g}x", verdict(goal, found)]
        lines.append([row.name, row.unit, *values, ratio_text(row, goal.subject, goal.reference), *wanted])
    return lines or [[row.name, row.unit, *values, ratio_text(row, "zafka", "kafka"), "", "", ""]]


def ratio_text(row: Row, subject: str, reference: str) -> str:
    found = spread(ratios(row, subject, reference))
    if found is None:
        return "-"
    who = "" if (subject, reference) == ("zafka", "kafka") else f" ({subject} / {reference})"
    return f"{found.median:.2f}x [{found.low:.2f}-{found.high:.2f}]{who}"


HEADER = ["measurement", "unit", *SYSTEMS.values(), "better by [rounds]", "at least", "aim", ""]


def table(suite: str, rows: Sequence[Row]) -> Table:
    """A suite as a terminal shows it; systems that nobody measured have no column."""
    lines = [line for row in rows for line in cells(row)]
    used = [number for number in range(len(HEADER)) if number < 2 or any(line[number] not in ("-", "") for line in lines)]
    made = Table(*(HEADER[number] for number in used), title=suite)
    for line in lines:
        made.add_row(*(line[number] for number in used))
    return made


def markdown(rows: Sequence[Row]) -> str:
    """The same for a document."""
    lines = [line for row in rows for line in cells(row)]
    used = [number for number in range(len(HEADER)) if number < 2 or any(line[number] not in ("-", "") for line in lines)]
    head = [HEADER[number] for number in used]
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    out += ["| " + " | ".join(line[number] for number in used) + " |" for line in lines]
    return "\n".join(out)
