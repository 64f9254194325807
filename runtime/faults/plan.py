"""A fault plan: YAML and a seed in, a schedule of faults out. The same plan, seed and actors give the same schedule.

Owns: the file's contract, checked as the topology is (path, reason, nearest key), and the choices: when exactly, whether
at all, and whom, all drawn from the seed before anything happens. Pure but for reading the file; `Schedule` is what
both `zafka chaos plan` and `zafka up --fault-plan` follow. Raises TopologyError with file, line, path and reason.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from zafka.runtime.faults.kinds import (
    DELAY_MS_MAX,
    FOR_S_MAX,
    MAIL_FAULTS,
    TIMES_MAX,
    AnyFault,
    ApiFault,
    Clear,
    Crash,
    DiskError,
    FaultError,
    Kill,
    MailFault,
    Pause,
    Resume,
    Rule,
    check_fault,
    described,
    matching,
)
from zafka.runtime.yaml_file import Value, read_yaml

TOP_KEYS = ("seed", "duration", "steps")
TIME_KEYS = ("do", "at", "every", "vary", "until", "chance")
RULE_KEYS = ("probability", "skip", "times", "for")
STEP_KEYS = {
    "kill": ("target", "pick", "signal"),
    "pause": ("target", "pick", "for"),
    "resume": ("target",),
    **dict.fromkeys(MAIL_FAULTS, ("from", "to", *RULE_KEYS)),
    "delay": ("from", "to", "delay", "jitter", *RULE_KEYS),
    "disk": ("target", "pick", "error", "path", "delay", *RULE_KEYS),
    "crash": ("target", "pick", "point", *RULE_KEYS),
    "error": ("api", "topic", "error", "target", *RULE_KEYS),
    "late": ("api", "topic", "delay", "target", *RULE_KEYS),
    "close": ("api", "topic", "target", *RULE_KEYS),
    "clear": (),
}
REQUIRED = {
    "kill": ("target",), "pause": ("target",), "resume": ("target",), "delay": ("from", "to"),
    **dict.fromkeys(MAIL_FAULTS, ("from", "to")), "disk": ("target", "error"), "crash": ("target", "point"),
    "error": ("api", "error"), "late": ("api", "delay"), "close": ("api",), "clear": (),
}
PICKS = {"kill": 1, "pause": 1}  # of what a pattern names, if the step does not say how many
ALL = 0
ACTIONS_MAX = 100_000


class Step(Struct, frozen=True, kw_only=True):
    """One entry of `steps`. The fault happens at at_s, and then every every_s until until_s, each time vary_s earlier
    or later at most, and with this chance. pick: how many of what its target names; ALL."""

    do: str
    fault: AnyFault
    at_s: float
    every_s: float | None = None
    until_s: float = 0.0
    vary_s: float = 0.0
    chance: float = 1.0
    pick: int = ALL


class Plan(Struct, frozen=True, kw_only=True):
    """seed: of the file, if it says one. duration_s: then everything that is still in force is cleared; None: nothing is."""

    steps: tuple[Step, ...]
    seed: int | None = None
    duration_s: float | None = None


class Action(Struct, frozen=True, kw_only=True):
    """A fault at its time, in seconds since the start. step: index of its step; of the end, -1."""

    at_s: float
    step: int
    do: str
    fault: AnyFault


def load_plan(path: Path) -> Plan:
    """Raises TopologyError."""
    return read_plan(read_yaml(path))


def read_plan(root: Value) -> Plan:
    top = root.fields(TOP_KEYS, required=("steps",))
    duration_s = top["duration"].duration_s(0.001, FOR_S_MAX) if "duration" in top else None
    return Plan(
        steps=tuple(_read_step(value, duration_s) for value in top["steps"].items()),
        seed=top["seed"].integer(0, 2**63 - 1) if "seed" in top else None,
        duration_s=duration_s)


def _read_step(value: Value, duration_s: float | None) -> Step:
    known = {key for keys in STEP_KEYS.values() for key in keys}
    do = value.fields((*TIME_KEYS, *sorted(known)), required=("do",))["do"].choice(tuple(STEP_KEYS))
    fields = value.fields((*TIME_KEYS, *STEP_KEYS[do]), required=REQUIRED[do])
    every_s = _seconds(fields, "every", None, low=0.001)
    at_s = _seconds(fields, "at", every_s, low=0.0)
    if at_s is None:
        value.fail("says neither 'at' nor 'every'")
    until_s = _seconds(fields, "until", duration_s, low=0.0)
    if every_s is None:
        for key in ("until", "vary"):
            if key in fields:
                fields[key].fail("goes with 'every'")
    elif until_s is None:
        fields["every"].fail("needs an end: say 'until' here, or 'duration' at the top of the file")
    vary_s = _seconds(fields, "vary", 0.0, low=0.0) or 0.0
    if every_s is not None and vary_s > every_s / 2:
        fields["vary"].fail(f"must be at most half of every ({every_s / 2:g}s)")
    fault = _read_fault(do, fields)
    try:
        check_fault(fault)
    except FaultError as error:
        value.fail(str(error))
    return Step(
        do=do, fault=fault, at_s=at_s, every_s=every_s, until_s=until_s or 0.0, vary_s=vary_s,
        chance=fields["chance"].number(0, 1) if "chance" in fields else 1.0,
        pick=_read_pick(fields["pick"]) if "pick" in fields else PICKS.get(do, ALL))


def _read_pick(value: Value) -> int:
    return ALL if value.plain == "all" else value.integer(1, 1000)


def _read_fault(do: str, fields: Mapping[str, Value]) -> AnyFault:
    def text(key: str, otherwise: str) -> str:
        return fields[key].text() if key in fields else otherwise

    def delay_ms(key: str) -> float:
        return (_seconds(fields, key, 0.0, low=0.0, high=DELAY_MS_MAX / 1000) or 0.0) * 1000

    rule = _read_rule(fields)
    match do:
        case "kill":
            return Kill(target=text("target", ""), signal=_read_signal(fields))
        case "pause":
            return Pause(target=text("target", ""), for_s=rule.get("for_s"))
        case "resume":
            return Resume(target=text("target", ""))
        case "clear":
            return Clear()
        case "disk":
            return DiskError(
                target=text("target", ""), error=text("error", ""), path_glob=text("path", "*"),
                delay_ms=delay_ms("delay"), **rule)
        case "crash":
            return Crash(target=text("target", ""), point=text("point", ""), **rule)
        case "error" | "late" | "close":
            return ApiFault(
                api=text("api", ""), target=text("target", "broker *"),
                topic=fields["topic"].text() if "topic" in fields else None,
                error=fields["error"].text() if do == "error" else None, delay_ms=delay_ms("delay"),
                close=do == "close", **rule)
    return MailFault(
        what=do, sender=text("from", ""), receiver=text("to", ""), delay_ms=delay_ms("delay"),
        jitter_ms=delay_ms("jitter"), **rule)


def _read_rule(fields: Mapping[str, Value]) -> dict[str, Any]:
    rule: dict[str, Any] = {}
    if "probability" in fields:
        rule["probability"] = fields["probability"].number(0, 1)
    if "skip" in fields:
        rule["skip"] = fields["skip"].integer(0, TIMES_MAX)
    if "times" in fields:
        rule["times"] = fields["times"].integer(1, TIMES_MAX)
    if "for" in fields:
        rule["for_s"] = fields["for"].duration_s(0.001, FOR_S_MAX)
    return rule


def _read_signal(fields: Mapping[str, Value]) -> int:
    if "signal" not in fields:
        return int(signal.SIGKILL)
    return int(signal.Signals[fields["signal"].choice([each.name for each in signal.Signals])])


def _seconds(
    fields: Mapping[str, Value], key: str, otherwise: float | None, *, low: float, high: float = FOR_S_MAX
) -> float | None:
    return fields[key].duration_s(low, high) if key in fields else otherwise


# -- from a plan to what happens -------------------------------------------------------------------


def schedule(plan: Plan, seed: int, names: Sequence[str]) -> list[Action]:
    """Everything that will be done, in order. names: of the actors there are at the start.

    Each step draws from its own random numbers, so that a change to one leaves the others as they are.
    """
    actions: list[Action] = []
    for index, step in enumerate(plan.steps):
        choices = random.Random(f"{seed}/{index}")
        for at_s in _times(step, choices):
            if choices.random() < step.chance:
                actions += (
                    Action(at_s=round(at_s, 6), step=index, do=step.do, fault=fault)
                    for fault in _aimed(step, choices, names))
    actions.sort(key=lambda action: action.at_s)  # stable: at the same time, in the order of the file
    if plan.duration_s is not None:
        actions = [action for action in actions if action.at_s <= plan.duration_s]
        actions.append(Action(at_s=plan.duration_s, step=-1, do="clear", fault=Clear()))
    return actions


def _times(step: Step, choices: random.Random) -> list[float]:
    if step.every_s is None:
        return [step.at_s]
    count = int((step.until_s - step.at_s) / step.every_s + 1e-9) + 1 if step.until_s >= step.at_s else 0
    return [
        max(0.0, step.at_s + number * step.every_s + choices.uniform(-step.vary_s, step.vary_s))
        for number in range(min(count, ACTIONS_MAX))]


def _aimed(step: Step, choices: random.Random, names: Sequence[str]) -> list[AnyFault]:
    """The step's fault, at whom it hits this time."""
    fault = step.fault
    if isinstance(fault, Rule):
        fault = msgspec.structs.replace(fault, seed=choices.getrandbits(32))
    if step.pick == ALL:
        return [fault]
    found = matching(fault.target, names)  # type: ignore[union-attr]
    picked = sorted(choices.sample(found, min(step.pick, len(found))))
    # Nobody there: whoever performs it says so.
    return [msgspec.structs.replace(fault, target=name) for name in picked] or [fault]


class Schedule:
    """A schedule while it is followed.

    done: how many of its actions were performed. missed: of those, that came when whom they name did not run.
    refused: that could not be performed.
    """

    def __init__(self, actions: Sequence[Action], seed: int, *, started_s: float) -> None:
        self.seed = seed
        self.done = self.missed = self.refused = 0
        self._left = list(reversed(actions))
        self._started_s = started_s

    def __repr__(self) -> str:
        return f"<Schedule seed={self.seed} left={len(self._left)} done={self.done} refused={self.refused}>"

    @property
    def ended(self) -> bool:
        return not self._left

    @property
    def next_s(self) -> float:
        """When the next action is due, monotonic; infinity after the last."""
        return self._started_s + self._left[-1].at_s if self._left else float("inf")

    def perform(self, now_s: float, do: Callable[[AnyFault], dict[str, Any]]) -> list[dict[str, Any]]:
        """Do what is due by now; returns what to tell of each.

        do: raises FaultError for what is refused; its answer is told.
        """
        told: list[dict[str, Any]] = []
        while self.next_s <= now_s:
            action = self._left.pop()
            line = {"at_s": action.at_s, "do": action.do, **described(action.fault)}
            try:
                line |= do(action.fault)
                self.done += 1
                self.missed += "missed" in line
            except FaultError as error:
                line["refused"] = str(error)
                self.refused += 1
            told.append(line)
        return told

    def summary(self) -> dict[str, Any]:
        return {"seed": self.seed, "done": self.done, "missed": self.missed, "refused": self.refused}
