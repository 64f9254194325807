"""What a benchmark's numbers mean: medians, spreads, ratios, goals. Pure.

Owns: `Row`, one measurement of several systems over the same rounds. Invariant: the values of every system stand in
the order of the rounds, so that a ratio is always taken between two measurements of one round; what is better is
above 1, whether more is better or less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

MORE = "more"
LESS = "less"


@dataclass(frozen=True)
class Goal:
    """A wanted ratio of one system to another: what must be reached, and what is aimed at."""

    at_least: float
    aim: float
    subject: str = "zafka"
    reference: str = "kafka"


@dataclass
class Row:
    """One measurement. better: MORE or LESS. values: system to a number for each round."""

    name: str
    unit: str
    better: str = MORE
    values: dict[str, list[float]] = field(default_factory=dict)
    goals: tuple[Goal, ...] = ()

    def add(self, system: str, value: float) -> None:
        self.values.setdefault(system, []).append(value)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "unit": self.unit, "better": self.better, "values": self.values,
            "medians": {system: median(values) for system, values in self.values.items() if values},
            "goals": [vars(goal) for goal in self.goals],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Row:
        goals = tuple(Goal(**goal) for goal in data["goals"])
        return cls(data["name"], data["unit"], data["better"], data["values"], goals)


@dataclass(frozen=True)
class Spread:
    """The middle of some numbers, and the least and the largest of them."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread | None:
    return Spread(median(values), min(values), max(values)) if values else None


def ratios(row: Row, subject: str, reference: str) -> list[float]:
    """How much better the subject was, round by round. Rounds that only one of them has are left out."""
    pairs = zip(row.values.get(subject, ()), row.values.get(reference, ()), strict=False)
    if row.better == MORE:
        return [ours / theirs for ours, theirs in pairs if theirs]
    return [theirs / ours for ours, theirs in pairs if ours]


def verdict(goal: Goal, found: Spread | None) -> str:
    if found is None:
        return "not measured"
    if found.median >= goal.aim:
        return "aim"
    return "reached" if found.median >= goal.at_least else "missed"


def figure(value: float | None) -> str:
    """A number as people read it: three digits, thousands in full."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def spread_text(found: Spread | None) -> str:
    if found is None:
        return "-"
    if found.low == found.high:
        return figure(found.median)
    return f"{figure(found.median)} ({figure(found.low)}-{figure(found.high)})"
