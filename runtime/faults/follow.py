"""Following a fault plan from outside, for `zafka chaos plan` and `zafka.Broker.run_plan`.

Owns: the loop over a schedule's times. Whatever ends it, what the plan has put in force does not stay behind.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from zafka.runtime.faults.kinds import AnyFault, Clear, FaultError
from zafka.runtime.faults.plan import Plan, Schedule, schedule

Line = dict[str, Any]


def follow(
    plan: Plan, seed: int | None, names: Sequence[str], do: Callable[[AnyFault], Line], tell: Callable[[Line], None], *,
    wait: Callable[[float], None], clock: Callable[[], float] = time.monotonic,
) -> Line:
    """Do everything that a plan says, at its times; returns the summary {"seed", "done", "missed", "refused"}.

    seed: above the plan's; without either, a random one, which the summary tells. names: of the actors there are now.
    do: injects one fault, raises FaultError. tell: hears of each. wait: for so many seconds.
    Interrupted, it lifts all rules and resumes all that is paused.
    """
    if seed is None:
        seed = plan.seed if plan.seed is not None else random.randrange(2**31)
    running = Schedule(schedule(plan, seed, names), seed, started_s=clock())
    try:
        while not running.ended:
            wait(max(0.0, running.next_s - clock()))
            for line in running.perform(clock(), do):
                tell(line)
    except BaseException:
        with contextlib.suppress(FaultError):  # nobody is there any more: nothing of it is left either
            do(Clear())
        raise
    return running.summary()
