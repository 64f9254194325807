"""The faults of a run: drawn from the seed before it begins, as a list, so that a shorter list is a shorter run.

Owns: `Fault` and how each kind is done to the machine. Another kind is an entry in `KINDS`: a name, how often it
comes, how its numbers are drawn, what it does.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from tests.simulation.network import Trouble
from tests.simulation.processes import Arm

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

STEPS = ("", "", "", "send", "respond", "write", "flush", "flush directory", "create", "rename", "unlink", "truncate")


class Fault(NamedTuple):
    """kind: of `KINDS`. at_s: after the beginning. target: whom it hits, by a name or a part of one.

    step, skip, part: where exactly, for what ends a process at a step; again: at which step its successor ends, in
    its recovery, or -1. seconds, amount: as the kind likes.
    """

    at_s: float
    kind: str
    target: str = ""
    step: str = ""
    skip: int = 0
    part: float = 1.0
    again: int = -1
    seconds: float = 0.0
    amount: float = 0.0


class Kind(NamedTuple):
    weight: float
    draw: Callable[[Random, Fault, list[str]], Fault]
    do: Callable[[Simulation, Fault], None]


# -- how each is drawn ---------------------------------------------------------------------------------


def _anybody(random: Random, fault: Fault, names: list[str]) -> Fault:
    return fault._replace(target=random.choice(names))


def _at_a_step(random: Random, fault: Fault, names: list[str]) -> Fault:
    """Early steps are those of a turn, later ones those of a recovery, a roll, a checkpoint."""
    skip = random.randrange(random.choice((2, 6, 25)))
    part = random.choice((0.0, 0.3, 0.7, 1.0))
    again = random.randrange(20) if random.random() < 0.3 else -1
    return fault._replace(target=random.choice(names), step=random.choice(STEPS), skip=skip, part=part, again=again)


def _between(random: Random, fault: Fault, names: list[str]) -> Fault:
    """With something written and not flushed; the power goes once a successor has recovered, or while it does."""
    return fault._replace(
        target=random.choice(names), step=random.choice(("flush", "flush directory", "send")),
        skip=random.randrange(4), seconds=0.3 * random.random() ** 2)


def _for_a_while(longest_s: float) -> Callable[[Random, Fault, list[str]], Fault]:
    def draw(random: Random, fault: Fault, names: list[str]) -> Fault:
        return fault._replace(target=random.choice(names), seconds=longest_s * random.random() ** 2)

    return draw


def _as_it_is(random: Random, fault: Fault, names: list[str]) -> Fault:
    return fault


def _amount(random: Random, fault: Fault, names: list[str]) -> Fault:
    return fault._replace(
        target=random.choice(names), seconds=1.5 * random.random(), amount=random.random())


# -- what each does ------------------------------------------------------------------------------------


def _kill(simulation: Simulation, fault: Fault) -> None:
    process = simulation.machine.named(fault.target)
    if process is not None:
        process.die(-signal.SIGKILL)


def _arm(simulation: Simulation, fault: Fault) -> None:
    arm = Arm(fault.step, fault.skip, fault.part, power=fault.kind == "cut-at")
    arms = simulation.machine.arms.setdefault(fault.target, [])
    arms.append(arm)
    if fault.again >= 0:
        arms.append(Arm("", fault.again, fault.part))


def _arm_and_cut(simulation: Simulation, fault: Fault) -> None:
    arm = Arm(fault.step, fault.skip, cut_after_s=fault.seconds)
    simulation.machine.arms.setdefault(fault.target, []).append(arm)


def _stop(simulation: Simulation, fault: Fault) -> None:
    process = simulation.machine.named(fault.target)
    if process is not None:
        process.stop(fault.seconds)


def _slow(simulation: Simulation, fault: Fault) -> None:
    until_s = simulation.engine.now_s + fault.seconds
    simulation.machine.network.troubles.append(Trouble(until_s, fault.target, delay_s=0.3 * fault.amount))


def _lose(simulation: Simulation, fault: Fault) -> None:
    until_s = simulation.engine.now_s + fault.seconds
    chance = fault.amount ** 2
    trouble = Trouble(until_s, fault.target, **{fault.kind: chance})
    simulation.machine.network.troubles.append(trouble)


def _full(simulation: Simulation, fault: Fault) -> None:
    disk = simulation.machine.disk
    disk.room_bytes = int(2000 * fault.amount)
    simulation.engine.after(fault.seconds, simulation.make_room)


def _fail_flush(simulation: Simulation, fault: Fault) -> None:
    simulation.machine.flushes_to_fail[fault.target] += 1


def _jump(simulation: Simulation, fault: Fault) -> None:
    simulation.engine.wall_ahead_ms += int((fault.amount - 0.5) * 7_200_000)


def _reset(simulation: Simulation, fault: Fault) -> None:
    for client in simulation.clients:
        client.drop_connections()


KINDS = {
    "kill": Kind(4, _anybody, _kill),
    "kill-at": Kind(8, _at_a_step, _arm),
    "cut": Kind(1.5, _as_it_is, lambda simulation, fault: simulation.machine.power_cut()),
    "cut-at": Kind(4, _at_a_step, _arm),
    "kill-cut": Kind(3, _between, _arm_and_cut),
    "stop": Kind(1, _for_a_while(6.0), _stop),
    "slow": Kind(2, _amount, _slow),
    "drop": Kind(1, _amount, _lose),
    "duplicate": Kind(1, _amount, _lose),
    "reorder": Kind(1, _amount, _lose),
    "full": Kind(1, _amount, _full),
    "flush": Kind(0.6, _anybody, _fail_flush),
    "clock": Kind(0.5, _amount, _jump),
    "reset": Kind(1, _as_it_is, _reset),
    "root": Kind(0.5, _as_it_is, lambda simulation, fault: simulation.machine.kill_root()),
    "server": Kind(0.5, _as_it_is, lambda simulation, fault: simulation.machine.kill_server()),
    "restart": Kind(0.7, _as_it_is, lambda simulation, fault: simulation.machine.restart()),
}


def draw_faults(random: Random, names: list[str], kinds: list[str], count: int, until_s: float) -> list[Fault]:
    """names: of the actors that may be hit."""
    faults = []
    weights = [KINDS[kind].weight for kind in kinds]
    for _ in range(count):
        kind = random.choices(kinds, weights)[0]
        fault = Fault(round(random.random() * until_s, 3), kind)
        faults.append(KINDS[kind].draw(random, fault, names))
    return sorted(faults)
