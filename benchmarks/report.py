"""Write the figures of `docs/bench/results.json` into the documents: `python -m benchmarks.report`.

Owns: what stands between `<!-- bench SUITE -->` and `<!-- end -->` in docs/performance.md, and `<!-- bench -->` and
`<!-- end -->` in README.md. Text outside of these is written by hand.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.figures import Row, figure, ratios, spread
from benchmarks.results import FOLDER, ROOT, SYSTEMS, Results, markdown

BLOCK = re.compile(r"<!-- bench( \w+)? -->\n.*?<!-- end -->", re.DOTALL)
SHORT = ("zafka", "zafka os", "kafka")
# What the README shows, by suite.
IN_SHORT = {
    "throughput": (
        "produce 100 B", "produce 1 kB", "consume 100 B", "consume 1 kB", "produce 100 B: broker CPU", "produce 1 kB: broker CPU",
        "consume 100 B: broker CPU", "consume 1 kB: broker CPU"),
    "partitions": ("produce, 200 partitions", "consume, 200 partitions"),
    "small": ("small requests, 1 in flight", "small requests, 5 in flight", "small requests, 20 in flight"),
    "latency": ("ack at 500/s, p50", "ack at 500/s, p99", "end to end at 500/s, p99"),
    "start": ("start to the first acknowledged record", "idle, 4 partitions (PSS)"),
    "recovery": ("everything killed, 2 GB of log, to the first ack",),
}


def suite_text(results: Results, suite: str) -> str:
    """When and how a suite was measured, and its table."""
    found: dict[str, Any] = results.suites[suite]
    machine = found["machine"]
    how = (
        f"{found['measured']}, {found['rounds']} rounds, {machine['cores']} cores, load average {machine['load before']} before "
        f"and {machine.get('load after', '-')} after.")
    return f"{how}\n\n{markdown(results.rows(suite))}"


def short_text(results: Results) -> str:
    """The medians of what most people ask for."""
    lines = ["| median | unit | " + " | ".join(SYSTEMS[name] for name in SHORT) + " | better by |", "|---" * 6 + "|"]
    for suite, names in IN_SHORT.items():
        rows = {row.name: row for row in results.rows(suite)}
        lines += [_short_line(rows[name]) for name in names if name in rows]
    return "\n".join(lines)


def _short_line(row: Row) -> str:
    medians = [spread(row.values.get(name, ())) for name in SHORT]
    ratio = spread(ratios(row, "zafka", "kafka"))
    cells = [row.name, row.unit, *("-" if found is None else figure(found.median) for found in medians)]
    return "| " + " | ".join([*cells, "-" if ratio is None else f"{ratio.median:.2f}x"]) + " |"


def rewrite(document: Path, results: Results) -> None:
    """Put the figures where the document has a place for them. Exits if it has one for a suite that was not run."""

    def block(found: re.Match[str]) -> str:
        suite = (found[1] or "").strip()
        if suite and suite not in results.suites:
            sys.exit(f"{document}: no figures of {suite!r} in docs/bench/results.json; run `make bench ARGS='--only {suite}'`")
        text = suite_text(results, suite) if suite else short_text(results)
        return f"<!-- bench{found[1] or ''} -->\n{text}\n<!-- end -->"

    document.write_text(BLOCK.sub(block, document.read_text()))


def main() -> int:
    results = Results.load(FOLDER / "results.json")
    for document in (ROOT / "docs" / "performance.md", ROOT / "README.md"):
        rewrite(document, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
