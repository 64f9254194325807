"""Planted bugs: each is a patch in this folder; here it is applied to a copy of the tree, and the checks must find it.

Owns: `bugs.toml` (what each bug is, and who has found it), the copies, and the table of `make planted`.
A bug is looked for by the simulator, from seed 1 on, or by the tests that are named for it; or by both.
`python -m tests.planted.plant` searches all afresh; names of bugs search those; `--record` writes the seeds down that
`test_planted.py` replays.
May fail with StalePatch: the code has moved on, and the patch is to be made again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SEEDS_MAX = 500
SEARCH_S = 900
TEST_FAILED = 1  # pytest's exit code if a test failed; others mean that it could not run them
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", ".peers", "__pycache__", ".*_cache", ".hypothesis", "build", "*.egg-info", "zafka-data", "planted", "docs",
    "examples")


class StalePatch(Exception):
    """The patch does not apply to the code as it is."""


class Bug(NamedTuple):
    """tests: node ids of pytest that must fail. seed: of the simulator, that must fail; 0 if it is not for it to find."""

    name: str
    what: str
    tests: list[str]
    seed: int
    simulated: bool


class Found(NamedTuple):
    """check: what was violated, in words. seed: the first one; 0 if tests found it."""

    check: str
    seed: int
    took_s: float


def read_bugs() -> list[Bug]:
    rows = tomllib.loads((HERE / "bugs.toml").read_text())
    return [
        Bug(name, row["what"], row.get("tests", []), row.get("seed", 0), "seed" in row) for name, row in rows.items()]


@contextmanager
def planted(bug: Bug) -> Iterator[Path]:
    """A copy of the tree with the bug in it."""
    with tempfile.TemporaryDirectory(prefix="zafka-planted-") as directory:
        copy = Path(directory) / "tree"
        shutil.copytree(ROOT, copy, symlinks=True, ignore=LEFT_OUT)
        # Without a repository around it, git applies to the folder that it stands in.
        done = subprocess.run(
            ["git", "apply", "-C1", str(HERE / f"{bug.name}.patch")], check=False, cwd=copy, capture_output=True, text=True,
            env={**os.environ, "GIT_CEILING_DIRECTORIES": directory})
        if done.returncode:
            raise StalePatch(f"{bug.name}.patch does not apply any more: {done.stderr.strip()}")
        yield copy


def run_tests(copy: Path, tests: list[str]) -> str:
    """Names of the tests that failed, "" if none did."""
    done = run_python(copy, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests)
    if done.returncode not in (0, TEST_FAILED):
        raise RuntimeError(f"the tests cannot be run:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    failed = re.findall(r"^FAILED \S*?(\w+\.py::\S+)", done.stdout, re.MULTILINE)
    assert bool(failed) == bool(done.returncode), done.stdout[-3000:]
    return ", ".join(failed)


def run_seeds(copy: Path, first: int, last: int) -> tuple[int, str]:
    """The first seed from `first` to `last` that fails, and the violated check; (0, "") if none does."""
    done = run_python(copy, "-m", "tests.simulation", "--seeds", f"{first}-{last}", "--first-failure", "--json")
    try:
        told = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise RuntimeError(f"the simulator does not run:\n{done.stdout[-3000:]}{done.stderr[-3000:]}") from error
    failures = told["failed"]
    return (failures[0]["seed"], failures[0]["check"]) if failures else (0, "")


def run_python(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], check=False, cwd=copy, capture_output=True, text=True, timeout=SEARCH_S,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"})


def search(bug: Bug) -> Found | None:
    """Look for the bug afresh: by the simulator if that is for it, else by the named tests."""
    started_s = time.monotonic()
    with planted(bug) as copy:
        if bug.simulated:
            seed, check = run_seeds(copy, 1, SEEDS_MAX)
        else:
            seed, check = 0, run_tests(copy, bug.tests)
    return Found(check, seed, time.monotonic() - started_s) if check else None


def record(found: dict[str, int]) -> None:
    """Write the seeds that found bugs into `bugs.toml`."""
    path = HERE / "bugs.toml"
    text = path.read_text()
    for name, seed in found.items():
        text = re.sub(rf"(?ms)^(\[{re.escape(name)}\]$.*?^seed = )\d+", rf"\g<1>{seed}", text, count=1)
    path.write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.planted.plant")
    parser.add_argument("names", nargs="*", help="bugs to plant; all if there are none")
    parser.add_argument("--record", action="store_true", help="write the seeds that found them into bugs.toml")
    arguments = parser.parse_args()
    bugs = [bug for bug in read_bugs() if not arguments.names or bug.name in arguments.names]
    missed, seeds = 0, {}
    print("| planted bug | found by | after | seconds |\n|---|---|---|---|", flush=True)
    for bug in bugs:
        found = search(bug)
        if found is None:
            missed += 1
            print(f"| {bug.name} | **nobody** | {SEEDS_MAX if bug.simulated else len(bug.tests)} tried | |", flush=True)
            continue
        after = f"{found.seed} seeds" if found.seed else "its test"
        if found.seed:
            seeds[bug.name] = found.seed
        print(f"| {bug.name} | {found.check} | {after} | {found.took_s:.1f} |", flush=True)
    if arguments.record:
        record(seeds)
    print(f"\n{len(bugs) - missed} of {len(bugs)} found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
