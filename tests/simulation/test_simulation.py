"""The simulator in CI: many seeds hold, and a seed is the same run everywhere.

That it finds bugs is shown by `tests/planted`. SIM_SEEDS says how many seeds, by default 2,000 in CI and 150 elsewhere; SIM_FIRST which is the first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.faults import KINDS

ROOT = Path(__file__).parents[2]
SEEDS = int(os.environ.get("SIM_SEEDS") or (2000 if os.environ.get("CI") else 150))
FIRST = int(os.environ.get("SIM_FIRST") or 1)
SECONDS = 60 + SEEDS


def simulate(*arguments: str, **environment: str) -> dict[str, Any]:
    """What a simulation in a process of its own found: log settings stay there."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--json", *arguments], cwd=ROOT, env={**os.environ, **environment},
        capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.timeout(SECONDS)
def test_no_seed_shows_anything_that_does_not_hold() -> None:
    told = simulate("--seeds", f"{FIRST}-{FIRST + SEEDS - 1}")
    print(told["seeds"], "seeds in", told["seconds"], "s:", told["counts"])
    assert told["seeds"] == SEEDS
    assert not told["failed"], [(each["seed"], each["check"], each["what"][:300]) for each in told["failed"][:5]]
    if SEEDS >= 100:
        # That nothing was found means little if little happened.
        missing = [kind for kind in KINDS if not told["counts"].get(f"fault {kind}")]
        assert not missing
        for what in ("power cut at a step", "kill at a step", "deaths in recovery", "segments rolled", "checkpoints", "segments cleaned", "snapshots", "starts from a snapshot",
                     "starts from a snapshot of the cluster"):
            assert told["counts"].get(what), what


@pytest.mark.timeout(SECONDS)
def test_no_seed_shows_anything_when_producers_write_past_the_broker() -> None:
    told = simulate("--seeds", f"{FIRST}-{FIRST + SEEDS // 4 - 1}", "--direct")
    print(told["seeds"], "seeds in", told["seconds"], "s:", told["counts"])
    assert not told["failed"], [(each["seed"], each["check"], each["what"][:300]) for each in told["failed"][:5]]
    assert told["counts"]["batches sent past the broker"] > SEEDS / 4


@pytest.mark.parametrize("way", [(), ("--direct",)])
def test_a_seed_is_the_same_run_in_every_process(way: tuple[str, ...]) -> None:
    hashes = [
        simulate("--seeds", "1-20", "--jobs", jobs, "--hash", *way, PYTHONHASHSEED=seed)["hash"]
        for jobs, seed in (("1", "1"), ("2", "77"))]
    assert hashes[0] == hashes[1]
