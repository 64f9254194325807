"""The command behind `make bench`: run suites, print tables, merge figures into one file, draw them."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from rich.console import Console

from benchmarks import plots, targets
from benchmarks.bench import Bench
from benchmarks.results import FOLDER, Results, machine, table
from benchmarks.suites import SUITES, Suite


def run_suite(name: str, suite: Suite, servers: list[str], arguments: argparse.Namespace, console: Console) -> Bench:
    """One suite, with a line that moves while it runs on a terminal."""
    with console.status(name) as status:
        bench = Bench(servers, rounds=arguments.rounds, quick=arguments.quick, seconds=arguments.seconds,
                      tell=lambda text: status.update(f"{name}: {text}"))
        if not suite.warm:
            suite.run(bench)
            return bench
        with bench.started():
            suite.run(bench)
        return bench


def chosen(only: str | None) -> list[str]:
    names = only.split(",") if only else [name for name in SUITES if name != "large"]
    for name in names:
        if name not in SUITES:
            sys.exit(f"there is no suite {name!r}; there are: {', '.join(SUITES)}")
    return names


def show_list(console: Console, rounds: int) -> None:
    for name, suite in SUITES.items():
        console.print(f"{name:<11} about {suite.minutes * (rounds if suite.warm else 1):>4.0f} min  {suite.about}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", metavar="SUITE,…", help="these suites; by default all but `large`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.0, help="of one turn of the suite `connections`")
    parser.add_argument("--quick", action="store_true", help="small loads: whether it works, not how fast")
    parser.add_argument("--servers", default="zafka,kafka", help="zafka, kafka or both (default)")
    parser.add_argument("--list", action="store_true", help="the suites, and how long they take")
    parser.add_argument("--folder", type=Path, default=None,
                        help="for results.json and the pictures; default docs/bench, with --quick nowhere")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 180)
    if arguments.list:
        show_list(console, arguments.rounds)
        return 0
    servers = arguments.servers.split(",")
    if "kafka" in servers and (missing := targets.kafka_missing()):
        console.print(f"[yellow]Apache Kafka is not measured: {missing}")
        servers.remove("kafka")
    folder = arguments.folder or (None if arguments.quick else FOLDER)
    results = Results.load(folder / "results.json") if folder else Results()
    for name in chosen(arguments.only):
        if name == "java" and "kafka" not in servers:
            console.print("[yellow]java: skipped, its tools are Apache Kafka's")
            continue
        load_before, started_s = os.getloadavg()[0], time.monotonic()
        bench = run_suite(name, SUITES[name], servers, arguments, console)
        rows = list(bench.rows.values())
        console.print(table(name, rows))
        results.put(name, rows, rounds=arguments.rounds, seconds=time.monotonic() - started_s,
                    about=machine(load_before))
        if folder:
            results.save(folder / "results.json")  # after each: a long run may be cut short
            plots.draw(results, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
