"""`make bench`: the first figures, zafka beside Apache Kafka in the same run, by the same client.

Every number is a median over alternating rounds on fresh topics; machines are noisy, so read the ratios.
zafka flushes to disk before every acknowledgement; Apache Kafka runs with its defaults (no flush).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import load
import recovery
import targets
from rich.console import Console
from rich.progress import track
from rich.table import Table

SIZES = {100: 1_000_000, 1000: 300_000}


class Results:
    """Figures by name and system; `None` where a system was not measured."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, unit: str, figures: dict[str, list[float]], *, goal: str = "") -> None:
        medians = {kind: median(values) for kind, values in figures.items() if values}
        ratio = medians["zafka"] / medians["kafka"] if medians.get("kafka") and "zafka" in medians else None
        self.rows.append({"name": name, "unit": unit, **medians, "ratio": ratio, "goal": goal, "all": figures})

    def table(self) -> Table:
        table = Table("measurement", "unit", "zafka", "Apache Kafka 4.3.1", "ratio", "goal")
        for row in self.rows:
            cells = [format_figure(row.get(kind)) for kind in ("zafka", "kafka")]
            ratio = f"{row['ratio']:.2f}x" if row["ratio"] else "-"
            table.add_row(row["name"], row["unit"], *cells, ratio, row["goal"])
        return table


def format_figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def measure_load(results: Results, kinds: list[str], rounds: int) -> None:
    """Throughput, CPU per million records and ack latency, both systems up at once, rounds alternating."""
    figures: dict[tuple[str, str], dict[str, list[float]]] = {}

    def note(name: str, unit: str, kind: str, value: float) -> None:
        figures.setdefault((name, unit), {k: [] for k in kinds})[kind].append(value)

    contexts = {kind: targets.running(kind) for kind in kinds}
    systems = {kind: context.__enter__() for kind, context in contexts.items()}
    try:
        for target in systems.values():  # warm both up, the JVM above all
            load.create_topic(target.bootstrap, "warm")
            for _ in range(2):
                load.produce(target.bootstrap, "warm", count=300_000, size_bytes=100)
            load.consume(target.bootstrap, "warm", count=300_000)
        for number in track(range(rounds), "rounds"):
            for size, count in SIZES.items():
                for kind, target in systems.items():
                    topic = f"t{size}-{number}"
                    load.create_topic(target.bootstrap, topic)
                    cpu_s = target.cpu_s()
                    note(f"produce {size} B, acks=all", "records/s", kind,
                         count / load.produce(target.bootstrap, topic, count=count, size_bytes=size))
                    note(f"broker CPU, produce {size} B", "s per million", kind,
                         (target.cpu_s() - cpu_s) / count * 1e6)
                    cpu_s = target.cpu_s()
                    note(f"consume {size} B", "records/s", kind, count / load.consume(target.bootstrap, topic, count=count))
                    note(f"broker CPU, consume {size} B", "s per million", kind,
                         (target.cpu_s() - cpu_s) / count * 1e6)
        for kind, target in systems.items():
            load.create_topic(target.bootstrap, "latency")
            for name, value in load.ack_latency_ms(target.bootstrap, "latency", rate_per_s=500, seconds=10).items():
                note(f"ack latency {name} at 500 msg/s", "ms", kind, value)
    finally:
        for context in contexts.values():
            context.__exit__(None, None, None)
    for (name, unit), values in figures.items():
        results.add(name, unit, values)


def each(kinds: list[str], measure: Callable[[str], float]) -> dict[str, list[float]]:
    return {kind: [measure(kind)] for kind in kinds}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write every figure here")
    parser.add_argument("--only", choices=["load", "start", "recovery"], help="one part of it")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    kinds = ["zafka", "kafka"]
    if missing := targets.kafka_missing():
        console.print(f"[yellow]Apache Kafka is not measured: {missing}")
        kinds = ["zafka"]
    results = Results()
    if arguments.only in (None, "load"):
        measure_load(results, kinds, arguments.rounds)
    if arguments.only in (None, "start"):
        results.add("start to first acknowledged produce", "ms",
                    {kind: list(recovery.start_to_first_ack_ms(kind)) for kind in kinds}, goal="< 1,000, aim 400")
        results.add("idle memory, 4 partitions (PSS)", "MB", each(kinds, recovery.idle_pss_mb), goal="< 150")
    if arguments.only in (None, "recovery"):
        results.add("partition killed, 1 GB log, to next ack", "ms", {"zafka": recovery.partition_restart_ms()},
                    goal="< 200")
        results.add("all killed, 2 GB log, to first ack", "ms", each(kinds, recovery.all_killed_ms), goal="< 1,500")
        results.add("read to open a clean 10 GB log", "bytes", {"zafka": [recovery.clean_open_rchar()]},
                    goal="< 1,048,576")
    console.print(results.table())
    if arguments.json:
        arguments.json.write_text(json.dumps(results.rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
