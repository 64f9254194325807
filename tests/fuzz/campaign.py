"""`make fuzz`: all decoders in turn for as long as you like, and a table of what was run and found.

Each slice of a decoder runs in a process of its own whose address space is limited, so that a crash of native code or
a flood of memory is a finding too, and the others go on. Findings are written to `build/fuzz/<decoder>/`; look at one with
`python -m tests.fuzz.campaign --replay FILE`, mend it, and move the file to `tests/fuzz/corpus/<decoder>/` under a name.

    python -m tests.fuzz.campaign [--minutes 60] [--seed N] [--slice 20] [DECODER ...]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom

import msgspec

from tests.fuzz.engine import Campaign, Decoder, Parts, attempt, load, save, shrink
from tests.fuzz.registry import BY_NAME, DECODERS

ADDRESS_SPACE_BYTES = 3 << 30
FOUND = Path("build/fuzz")
GRACE_S = 30.0  # wall-clock time that a slice may take beside its CPU time, twenty times over


@dataclass
class Total:
    """What became of one decoder. crashes: slices whose process died."""

    executions: int = 0
    taken: int = 0
    cpu_s: float = 0.0
    findings: dict[str, str] = field(default_factory=dict)  # kind and place -> what and where it was saved


# -- the child: one slice -----------------------------------------------------------------------------


def run_slice(name: str, seed: int, cpu_s: float, current: Path | None) -> None:
    """Fuzz one decoder and print the result as JSON. current: where to leave each input before it is run."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    decoder = BY_NAME[name]
    campaign = Campaign(decoder, seed)
    before_s = time.process_time()
    if current is None:
        campaign.run(cpu_s)
    else:
        while time.process_time() < before_s + 5 * cpu_s:
            parts = campaign.step()
            current.write_bytes(msgspec.msgpack.encode(parts))
            attempt(decoder, parts)
    found = []
    for finding in campaign.findings.values():
        finding = shrink(decoder, finding)
        path = save(finding, f"seed-{seed}-{finding.place.replace('/', '-').replace(':', '-')}", FOUND)
        found.append([f"{finding.kind} at {finding.place}", f"{finding.detail} ({path})"])
    print(json.dumps({
        "executions": campaign.executions, "taken": campaign.taken, "cpu_s": time.process_time() - before_s,
        "findings": found,
    }), flush=True)  # fmt: skip
    os._exit(0)  # what decoders keep over executions has no need of an orderly end


# -- the parent ---------------------------------------------------------------------------------------


def run_child(name: str, seed: int, cpu_s: float, *extra: str) -> tuple[dict[str, object] | None, str]:
    """The result of a slice, or None and how it ended."""
    command = [sys.executable, "-m", "tests.fuzz.campaign", "--child", name, "--seed", str(seed), "--slice", str(cpu_s)]
    try:
        run = subprocess.run(
            [*command, *extra], capture_output=True, text=True, timeout=20 * cpu_s + GRACE_S, check=False)
    except subprocess.TimeoutExpired:
        return None, "did not end"
    if run.returncode == 0:
        with contextlib.suppress(ValueError, IndexError):
            result: dict[str, object] = json.loads(run.stdout.splitlines()[-1])
            return result, ""
    return None, f"exit {run.returncode}: {run.stderr[-300:].strip()}"


def fuzz(decoders: Sequence[Decoder], *, minutes: float, seed: int, slice_s: float) -> dict[str, Total]:
    totals = {decoder.name: Total() for decoder in decoders}
    end_s = time.monotonic() + 60 * minutes
    # The first round is always a whole one, so that every decoder gets its turn on a busy machine, too.
    slice_s = min(slice_s, max(60 * minutes / len(decoders) / 1.5, 0.5))
    first = True
    with contextlib.suppress(KeyboardInterrupt):
        while first or time.monotonic() < end_s:
            for decoder in decoders:
                if first or time.monotonic() < end_s:
                    one_slice(decoder.name, seed, slice_s, totals[decoder.name])
            first = False
            seed += 1
    return totals


def one_slice(name: str, seed: int, slice_s: float, total: Total) -> None:
    result, ended = run_child(name, seed, slice_s)
    if result is None:
        with tempfile.TemporaryDirectory() as folder:
            current = Path(folder) / "current"
            run_child(name, seed, slice_s, "--current", str(current))
            kept = FOUND / name.replace(" ", "-") / f"seed-{seed}-crash.msgpack"
            kept.parent.mkdir(parents=True, exist_ok=True)
            if current.exists():
                kept.write_bytes(current.read_bytes())
        found = {"the process died": f"{ended} (seed {seed}, {kept})"}
    else:
        total.executions += int(str(result["executions"]))
        total.taken += int(str(result["taken"]))
        total.cpu_s += float(str(result["cpu_s"]))
        found = dict(result["findings"])  # type: ignore[call-overload]
    for place, what in found.items():
        if place not in total.findings:
            total.findings[place] = what
            print(f"FOUND {name}: {place}: {what}", flush=True)
    print(f"{name}: seed {seed}, {total.executions} executions, {len(total.findings)} findings", flush=True)


def table(totals: dict[str, Total]) -> str:
    lines = ["| decoder | executions | taken | CPU s | findings |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| {name} | {total.executions:,} | {total.taken:,} | {total.cpu_s:.0f} | {len(total.findings)} |"
        for name, total in totals.items()
    ]
    executions = sum(total.executions for total in totals.values())
    cpu_s = sum(total.cpu_s for total in totals.values())
    lines.append(f"| all | {executions:,} | | {cpu_s:.0f} | {sum(len(total.findings) for total in totals.values())} |")
    return "\n".join(lines)


def replay(path: Path) -> int:
    parts: Parts = load(path)
    decoder = BY_NAME.get(path.parent.name) or next(
        each for each in DECODERS if each.name.replace(" ", "-") == path.parent.name)
    print(f"{decoder.name}: {[part[:200] for part in parts]}")
    decoder.run(parts)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("decoders", nargs="*", help="names, or beginnings of names; all by default")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--slice", type=float, default=20.0, help="CPU seconds of one decoder at a time")
    parser.add_argument("--replay", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--current", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.replay is not None:
        return replay(chosen.replay)
    seed = SystemRandom().randrange(10**6) * 1000 if chosen.seed is None else chosen.seed
    if chosen.child is not None:
        run_slice(chosen.child, seed, chosen.slice, chosen.current)
        return 0
    decoders = [each for each in DECODERS if not chosen.decoders or each.name.startswith(tuple(chosen.decoders))]
    if not decoders:
        parser.error(f"there are: {', '.join(BY_NAME)}")
    print(f"{len(decoders)} decoders, {chosen.minutes:g} minutes, first seed {seed}", flush=True)
    totals = fuzz(decoders, minutes=chosen.minutes, seed=seed, slice_s=chosen.slice)
    print(f"\n{table(totals)}\n")
    for name, total in totals.items():
        for place, what in total.findings.items():
            print(f"- {name}: {place}: {what}")
    return 1 if any(total.findings for total in totals.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
