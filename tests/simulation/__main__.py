"""`python -m tests.simulation`: run seeds, replay one, shorten it."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections import Counter
from typing import Any

from tests.simulation.engine import Violation
from tests.simulation.runner import quiet, run_scenario, run_seeds, shrink
from tests.simulation.scenario import Scenario, draw
from tests.simulation.simulation import Result

TOLD_MAX = 10


def main() -> int:
    options = _parse()
    quiet()
    if options.trace or options.shrink:
        return _replay(options)
    return _run_all(options)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Simulate zafka from seeds.")
    parser.add_argument("seeds", nargs="?", help="one seed, or first-last")
    parser.add_argument("--seeds", dest="range", metavar="A-B", help="the same")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (as many as there are CPUs)")
    parser.add_argument("--first-failure", action="store_true", help="stop at the first seed that fails")
    parser.add_argument("--json", action="store_true", help="the result as one line of JSON")
    parser.add_argument("--hash", action="store_true", help="with --json: the hash of all runs together")
    parser.add_argument("--trace", action="store_true", help="tell the story of one seed")
    parser.add_argument("--shrink", action="store_true", help="drop faults and clients while it fails in the same way")
    parser.add_argument("--direct", action="store_true", help="idempotent producers write past the broker")
    options = parser.parse_args()
    text = options.seeds or options.range
    if not text:
        parser.error("which seeds?")
    first, _, last = text.partition("-")
    options.seeds = range(int(first), int(last or first) + 1)
    return options


# -- many seeds ----------------------------------------------------------------------------------------


def _run_all(options: argparse.Namespace) -> int:
    begun_s = time.monotonic()
    counts: Counter[str] = Counter()
    failed: list[Result] = []
    ran, virtual_s, digest = 0, 0.0, hashlib.blake2b(digest_size=8)
    for result in run_seeds(options.seeds, options.jobs, direct=options.direct):
        ran += 1
        digest.update(result.trace_hash.encode())
        virtual_s += result.virtual_s
        counts += result.counts
        if result.violations:
            failed.append(result)
            if not options.json and len(failed) <= TOLD_MAX:
                _tell_failure(result)
            if options.first_failure:
                break
    took_s = time.monotonic() - begun_s
    if options.json:
        told = _as_json(ran, took_s, counts, failed)
        print(json.dumps(told | {"hash": digest.hexdigest()} if options.hash else told))
    else:
        print(f"{ran} seeds in {took_s:.1f} s ({ran / took_s:.0f} a second), {virtual_s / 3600:.1f} hours of virtual time")
        _tell_counts(counts)
        print(f"{len(failed)} failed" + (": " + " ".join(str(each.seed) for each in failed[:50]) if failed else ""))
    return 1 if failed else 0


def _as_json(ran: int, took_s: float, counts: Counter[str], failed: list[Result]) -> dict[str, Any]:
    """failed: for each seed the first check that it violated, and all of them."""
    return {
        "seeds": ran, "seconds": round(took_s, 1), "counts": dict(sorted(counts.items())),
        "failed": [{
            "seed": each.seed, "check": each.violations[0].check, "what": each.violations[0].what,
            "trace_hash": each.trace_hash, "violations": [list(violation) for violation in each.violations],
        } for each in failed],
    }


def _tell_failure(result: Result) -> None:
    print(f"seed {result.seed} failed:", flush=True)
    for violation in result.violations[:3]:
        print(_one_line(violation))
    print(f"    make sim SEED={result.seed} TRACE=1        make sim SEED={result.seed} SHRINK=1")


def _one_line(violation: Violation) -> str:
    return f"    {violation.check}: {violation.what}"


def _tell_counts(counts: Counter[str]) -> None:
    for title, names in (
        ("faults", sorted(name for name in counts if name.startswith("fault "))),
        ("seen", sorted(name for name in counts if not name.startswith("fault "))),
    ):
        print(f"{title}: " + ", ".join(f"{name.removeprefix('fault ')} {counts[name]}" for name in names))


# -- one seed ------------------------------------------------------------------------------------------


def _replay(options: argparse.Namespace) -> int:
    scenario: Scenario = draw(options.seeds[0], direct=options.direct)
    if options.shrink:
        if not run_scenario(scenario).violations:
            print(f"seed {scenario.seed} does not fail")
            return 0
        scenario, _ = shrink(scenario)
    quiet(print)
    print(scenario)
    result = run_scenario(scenario, print)
    for violation in result.violations:
        print(_one_line(violation))
    _tell_counts(result.counts)
    print(f"seed {scenario.seed}, trace hash {result.trace_hash}: {'failed' if result.violations else 'holds'}")
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
