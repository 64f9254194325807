"""Fault plans: what is refused and where it says so, and that plan, seed and names give one schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from zafka.runtime.faults.follow import follow
from zafka.runtime.faults.kinds import ApiFault, Clear, Crash, DiskError, FaultError, Kill, MailFault, Pause, Rule
from zafka.runtime.faults.plan import Action, Plan, Schedule, Step, load_plan, schedule
from zafka.runtime.yaml_file import TopologyError

NAMES = ["supervisor", "fork server", "coordinator", "broker 1", *(f"partition orders-{n}" for n in range(8))]

PLAN = """\
seed: 7
duration: 10s
steps:
  - {do: kill, every: 500ms, vary: 200ms, target: "partition *"}
  - {do: pause, every: 2s, chance: 0.5, target: "partition *", pick: 2, for: 300ms}
  - {do: drop, at: 1s, from: broker 1, to: "partition *", probability: 0.1, for: 3s}
  - {do: delay, at: 1s, from: "partition *", to: broker 1, delay: 50ms, jitter: 20ms}
  - {do: disk, at: 2s, target: "partition *", pick: 1, error: ENOSPC, path: "*.log", times: 5}
  - {do: crash, at: 3s, target: "partition orders-0", point: after-append, skip: 2}
  - {do: error, at: 4s, api: PRODUCE, topic: orders, error: NOT_LEADER_OR_FOLLOWER, times: 3}
  - {do: late, at: 4s, api: FETCH, delay: 200ms}
  - {do: close, at: 4s, api: METADATA, times: 1}
  - {do: clear, at: 9s}
"""


def load(tmp_path: Path, text: str) -> Plan:
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    return load_plan(file)


def test_a_whole_plan_is_read(tmp_path: Path) -> None:
    plan = load(tmp_path, PLAN)
    assert (plan.seed, plan.duration_s, len(plan.steps)) == (7, 10.0, 10)
    kill, pause, drop, delay, disk, crash, error, late, close, clear = plan.steps
    assert kill == Step(do="kill", fault=Kill(target="partition *"), at_s=0.5, every_s=0.5, until_s=10.0, vary_s=0.2,
                        pick=1)
    assert (pause.fault, pause.chance, pause.pick) == (Pause(target="partition *", for_s=0.3), 0.5, 2)
    assert drop.fault == MailFault(what="drop", sender="broker 1", receiver="partition *", probability=0.1, for_s=3.0)
    assert delay.fault == MailFault(what="delay", sender="partition *", receiver="broker 1", delay_ms=50, jitter_ms=20)
    assert disk.fault == DiskError(target="partition *", error="ENOSPC", path_glob="*.log", times=5)
    assert crash.fault == Crash(target="partition orders-0", point="after-append", skip=2)
    assert error.fault == ApiFault(api="PRODUCE", topic="orders", error="NOT_LEADER_OR_FOLLOWER", times=3)
    assert late.fault == ApiFault(api="FETCH", delay_ms=200)
    assert close.fault == ApiFault(api="METADATA", close=True, times=1)
    assert clear.fault == Clear()


def test_the_example_is_a_plan() -> None:
    plan = load_plan(Path(__file__).resolve().parent.parent.parent / "examples" / "fault_plan.yaml")
    actions = schedule(plan, 1, NAMES)
    assert {action.do for action in actions} >= {"kill", "pause", "drop", "delay", "disk", "crash", "error", "late", "clear"}
    assert all(action.at_s <= 30 for action in actions)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("step: []\n", ["line 1", "step: unknown key", "did you mean 'steps'?"]),
        ("steps:\n- {at: 1s}\n", ["line 2", "steps[0]", "'do' is missing"]),
        ("steps:\n- {do: kil, at: 1s, target: x}\n", ["steps[0].do", "did you mean 'kill'?"]),
        ("steps:\n- {do: kill, target: x}\n", ["steps[0]", "neither 'at' nor 'every'"]),
        ("steps:\n- {do: kill, at: 1s}\n", ["steps[0]", "'target' is missing"]),
        ("steps:\n- {do: kill, at: 1, target: x}\n", ["steps[0].at", "a time with its unit"]),
        ("steps:\n- {do: kill, at: 1s, target: x, form: y}\n", ["steps[0].form", "unknown key"]),
        ("steps:\n- {do: kill, at: 1s, target: x, for: 2s}\n", ["steps[0].for", "unknown key"]),
        ("steps:\n- {do: kill, at: 1s, target: x, signal: KILL}\n", ["steps[0].signal", "did you mean 'SIGKILL'?"]),
        ("steps:\n- {do: kill, every: 1s, target: x}\n", ["steps[0].every", "needs an end", "duration"]),
        ("steps:\n- {do: kill, at: 1s, until: 2s, target: x}\n", ["steps[0].until", "goes with 'every'"]),
        ("steps:\n- {do: kill, every: 1s, vary: 600ms, until: 9s, target: x}\n", ["steps[0].vary", "half of every"]),
        ("steps:\n- {do: kill, at: 1s, target: x, chance: 2}\n", ["steps[0].chance", "must be 0 to 1, not 2"]),
        ("steps:\n- {do: kill, at: 1s, target: x, pick: none}\n", ["steps[0].pick", "whole number"]),
        ("steps:\n- {do: disk, at: 1s, target: x, error: ENOPSC}\n", ["steps[0]", "did you mean 'ENOSPC'?"]),
        ("steps:\n- {do: disk, at: 1s, target: x, error: SLOW}\n", ["steps[0]", "SLOW needs a delay"]),
        ("steps:\n- {do: crash, at: 1s, target: x, point: after-apend}\n", ["did you mean 'after-append'?"]),
        ("steps:\n- {do: error, at: 1s, api: PRODUC, error: X}\n", ["did you mean 'PRODUCE'?"]),
        ("steps:\n- {do: error, at: 1s, api: PRODUCE, error: NOT_LEADER}\n", ["did you mean 'NOT_LEADER_OR_FOLLOWER'"]),
        ("steps:\n- {do: error, at: 1s, api: API_VERSIONS, topic: x, error: INVALID_REQUEST}\n", ["name no topic"]),
        ("steps:\n- {do: delay, at: 1s, from: a, to: b}\n", ["steps[0]", "delay needs a delay"]),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, told: list[str]) -> None:
    with pytest.raises(TopologyError) as raised:
        load(tmp_path, text)
    assert all(word in str(raised.value) for word in ["plan.yaml", *told]), str(raised.value)


def test_the_same_seed_makes_the_same_schedule_and_another_another(tmp_path: Path) -> None:
    plan = load(tmp_path, PLAN)
    assert schedule(plan, 7, NAMES) == schedule(load(tmp_path, PLAN), 7, NAMES)
    assert schedule(plan, 7, NAMES) == schedule(plan, 7, list(reversed(NAMES)))  # names are sorted
    assert schedule(plan, 7, NAMES) != schedule(plan, 8, NAMES)


def test_a_schedule_is_written_down_so_that_a_change_of_the_choices_is_noticed(tmp_path: Path) -> None:
    text = 'duration: 2s\nsteps:\n- {do: kill, every: 1s, at: 500ms, vary: 200ms, target: "partition *"}\n'
    assert schedule(load(tmp_path, text), 3, NAMES) == [
        Action(at_s=0.507551, step=0, do="kill", fault=Kill(target="partition orders-0")),
        Action(at_s=1.505954, step=0, do="kill", fault=Kill(target="partition orders-4")),
        Action(at_s=2.0, step=-1, do="clear", fault=Clear()),
    ]


def test_the_schedule_obeys_the_plan(tmp_path: Path) -> None:
    for seed in range(20):
        actions = schedule(load(tmp_path, PLAN), seed, NAMES)
        assert [action.at_s for action in actions] == sorted(action.at_s for action in actions)
        kills = [action for action in actions if action.step == 0]
        assert len(kills) in (19, 20)  # the last may fall behind the end
        for number, kill in enumerate(kills, 1):
            assert abs(kill.at_s - 0.5 * number) <= 0.2
            assert isinstance(kill.fault, Kill) and kill.fault.target in NAMES[4:]
        pauses = [action for action in actions if action.step == 1]
        assert len(pauses) % 2 == 0
        for first, second in zip(pauses[::2], pauses[1::2], strict=True):
            assert first.at_s == second.at_s and first.fault != second.fault
        (disk,) = [action.fault for action in actions if action.step == 4]
        assert isinstance(disk, DiskError) and disk.target in NAMES[4:]
        assert actions[-1] == Action(at_s=10.0, step=-1, do="clear", fault=Clear())


def test_a_change_to_one_step_leaves_the_choices_of_the_others(tmp_path: Path) -> None:
    def others(text: str) -> list[Action]:
        return [action for action in schedule(load(tmp_path, text), 7, NAMES) if action.step not in (-1, 1)]

    assert others(PLAN) == others(PLAN.replace("chance: 0.5", "chance: 0.9"))


def test_rules_get_seeds_of_their_own(tmp_path: Path) -> None:
    rules = [action.fault for action in schedule(load(tmp_path, PLAN), 7, NAMES) if isinstance(action.fault, Rule)]
    assert len({rule.seed for rule in rules}) == len(rules) > 3


def test_who_is_not_there_stays_in_the_schedule_and_is_refused_when_it_is_done(tmp_path: Path) -> None:
    plan = load(tmp_path, "steps:\n- {do: kill, at: 0s, target: 'partition x-*'}\n- {do: clear, at: 1s}\n")
    running = Schedule(schedule(plan, 1, NAMES), 1, started_s=100.0)

    def do(fault: Any) -> dict[str, Any]:
        if isinstance(fault, Kill):
            raise FaultError(f"no actor matches {fault.target!r}")
        return {"cleared": []}

    assert running.next_s == 100.0
    assert running.perform(100.5, do) == [
        {"at_s": 0.0, "do": "kill", "target": "partition x-*", "refused": "no actor matches 'partition x-*'"}]
    assert (running.ended, running.next_s) == (False, 101.0)
    assert running.perform(101.0, do) == [{"at_s": 1.0, "do": "clear", "cleared": []}]
    assert running.ended
    assert running.summary() == {"seed": 1, "done": 1, "missed": 0, "refused": 1}


def test_who_does_not_run_when_his_turn_comes_is_missed(tmp_path: Path) -> None:
    plan = load(tmp_path, "steps:\n- {do: kill, at: 0s, target: coordinator}\n")
    running = Schedule(schedule(plan, 1, NAMES), 1, started_s=100.0)
    (line,) = running.perform(100.0, lambda fault: {"targets": {}, "missed": "coordinator does not run"})
    assert line["missed"] == "coordinator does not run"
    assert running.summary() == {"seed": 1, "done": 1, "missed": 1, "refused": 0}


def test_an_interrupted_plan_clears_what_it_did(tmp_path: Path) -> None:
    plan = load(tmp_path, "seed: 4\nsteps:\n- {do: drop, at: 0s, from: broker 1, to: coordinator}\n- {do: clear, at: 9s}\n")
    clock, done = [50.0], []

    def wait(seconds: float) -> None:
        if seconds > 1:
            raise KeyboardInterrupt
        clock[0] += seconds

    def do(fault: Any) -> dict[str, Any]:
        done.append(fault)
        return {}

    with pytest.raises(KeyboardInterrupt):
        follow(plan, None, NAMES, do, lambda line: None, wait=wait, clock=lambda: clock[0])
    assert [type(fault) for fault in done] == [MailFault, Clear]
