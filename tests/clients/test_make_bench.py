"""`make bench` against zafka alone, with small loads: whether every step works, not how fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_quick_suites_measure_zafka_and_write_their_figures(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1", "--servers", "zafka", "--only", "throughput,small,native",
         "--folder", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    suites = json.loads((tmp_path / "results.json").read_text())
    assert list(suites) == ["throughput", "small", "native"]
    medians = {row["name"]: row["medians"] for suite in suites.values() for row in suite["rows"]}
    for name in ("produce 100 B", "consume 1 MB", "small requests, 20 in flight"):
        assert medians[name]["zafka"] > 0 and medians[name]["zafka os"] > 0
    assert 1.0 < medians["produce 100 B: disk"]["zafka"] < 2.0  # a few bytes of Kafka's format for each record
    for name in ("send, 100 B", "send_many, 50 to 150 B", "consume, 100 B", "consume batches, 100 B: client CPU"):
        assert set(medians[name]) == {"confluent", "native zmq", "native kafka"} and min(medians[name].values()) > 0
    assert {"throughput.svg", "small.svg", "native.svg"} <= {path.name for path in tmp_path.iterdir()}


def test_an_unknown_suite_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", "latenzy"], cwd=ROOT, capture_output=True, text=True, timeout=60,
        check=False)
    assert done.returncode == 1 and "there is no suite 'latenzy'; there are: throughput" in done.stderr
