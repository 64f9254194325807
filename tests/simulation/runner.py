"""Runs many seeds in many processes, and says what came of them.

Owns: `run_seeds`, `shrink`, and that no log line of an actor comes between (`quiet`).
"""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
import traceback
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from functools import partial
from typing import Any, TypeVar

import structlog

from tests.simulation.engine import Violation
from tests.simulation.scenario import Scenario, draw
from tests.simulation.simulation import Result, Simulation

T = TypeVar("T")

CHUNK = 10
WORKER_CHUNKS = 20
SHRINK_RUNS_MAX = 200


def quiet(tell: Callable[[str], None] | None = None) -> None:
    """What actors log is told with the trace, or not at all."""

    def render(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        assert tell is not None
        words = " ".join(f"{key}={value}" for key, value in event.items() if key not in ("event", "exc_info"))
        tell(f"{'':10}  {'log':<22} {event['event']} {words}")
        raise structlog.DropEvent

    level = 10 if tell is not None else 50
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level), processors=[render])


def run_scenario(scenario: Scenario, tell: Callable[[str], None] | None = None) -> Result:
    """One run. What the simulator itself raises is a violation, too, so that the seed is named."""
    simulation = Simulation(scenario, tell)
    try:
        return simulation.run()
    except Exception:  # noqa: BLE001 -- of our own making: to be found with the seed
        engine = simulation.engine
        violation = Violation("simulator", traceback.format_exc())
        return Result(scenario.seed, "", [*engine.violations, violation], engine.counts, 0.0)


def run_chunk(seeds: Sequence[int], *, direct: bool = False) -> list[Result]:
    results = [run_scenario(draw(seed, direct=direct)) for seed in seeds]
    gc.collect()
    return results


def run_seeds(seeds: range, jobs: int, *, direct: bool = False) -> Iterator[Result]:
    """Their results in order, whichever process had them."""
    run = partial(run_chunk, direct=direct)
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    if jobs == 1 or len(chunks) == 1:
        for chunk in chunks:
            yield from run(chunk)
        return
    # Forked, so that they need not import and compile everything again.
    # Some runs end with greenlets that keep all they know alive; a worker that has seen many would only collect garbage.
    context = multiprocessing.get_context("fork")
    with context.Pool(min(jobs, len(chunks)), _begin_worker, maxtasksperchild=WORKER_CHUNKS) as pool:
        for results in pool.imap(run, chunks):
            yield from results


def _begin_worker() -> None:
    gc.disable()  # every run leaves cycles; once a chunk is enough


def shrink(scenario: Scenario) -> tuple[Scenario, Result]:
    """A scenario with fewer faults and clients that fails the same check."""
    result = run_scenario(scenario)
    check = result.violations[0].check
    runs = 0
    shorter = True
    while shorter and runs < SHRINK_RUNS_MAX:
        shorter = False
        for candidate in _shorter(scenario):
            runs += 1
            attempt = run_scenario(candidate)
            if attempt.violations and attempt.violations[0].check == check:
                scenario, result, shorter = candidate, attempt, True
                break
    return scenario, result


def _shorter(scenario: Scenario) -> Iterator[Scenario]:
    """Each with one thing less."""
    if scenario.admin_rounds:
        yield dataclasses.replace(scenario, admin_rounds=0)
    for index in range(len(scenario.consumers)):
        yield dataclasses.replace(scenario, consumers=_without(scenario.consumers, index))
    if scenario.samplers:
        yield dataclasses.replace(scenario, samplers=[])
    for index in range(len(scenario.producers)):
        yield dataclasses.replace(scenario, producers=_without(scenario.producers, index))
    for index in range(len(scenario.faults)):
        yield dataclasses.replace(scenario, faults=_without(scenario.faults, index))
    if scenario.batches > 1:
        yield dataclasses.replace(scenario, batches=scenario.batches // 2)


def _without(items: list[T], index: int) -> list[T]:
    return items[:index] + items[index + 1 :]
