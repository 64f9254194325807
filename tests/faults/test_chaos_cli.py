"""`zafka chaos` and `zafka up --fault-plan` from a shell: what they do, what they print, what they refuse."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zafka
from tests import command_line
from tests.command_line import Ended
from zafka.testing import Broker

ROOT = Path(__file__).resolve().parent.parent.parent
QUICK_S = 20.0
COMMAND = [sys.executable, "-m", "zafka"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker({"orders": 2}) as running:
        yield running


def run(broker: Broker, *arguments: str) -> Ended:
    return command_line.zafka("chaos", *arguments, "--data-dir", str(broker.data_dir))


def done(broker: Broker, *arguments: str) -> str:
    """What it says on standard error."""
    result = run(broker, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stderr


def listed(broker: Broker) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(broker, "list", "--format", "json").stdout)
    return found


def test_kill_says_which_process(broker: Broker) -> None:
    pid = broker.actor("partition orders-0")["pid"]
    assert done(broker, "kill", "partition orders-0") == f"partition orders-0: process {pid}\n"
    deadline_s = time.monotonic() + QUICK_S
    while broker.actor("partition orders-0")["pid"] in (0, pid):
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.02)


def test_every_rule_is_listed_and_cleared(broker: Broker) -> None:
    for arguments in (
        ["drop", "broker 1", "partition orders-*", "--probability", "0.1", "--for", "30s", "--seed", "5"],
        ["delay", "partition orders-*", "broker 1", "--by", "5ms", "--jitter", "2ms"],
        ["duplicate", "broker 1", "coordinator", "--times", "3"],
        ["reorder", "broker 1", "coordinator", "--skip", "1000"],
        ["disk", "partition orders-0", "--error", "enospc", "--path-glob", "*.log", "--skip", "1000"],
        ["crash", "partition orders-1", "--at", "after-flush", "--nth", "1000"],
        ["error", "fetch", "--topic", "orders", "--error", "NOT_LEADER_OR_FOLLOWER", "--times", "2"],
        ["error", "produce", "--by", "10ms"],
    ):
        assert "is in force" in done(broker, *arguments)
    done(broker, "pause", "coordinator", "--for", "30s")
    rules, paused = listed(broker)["rules"], listed(broker)["paused"]
    assert [rule["fault"] for rule in rules] == ["mail"] * 4 + ["disk", "crash", "api", "api"]
    assert (rules[0]["probability"], rules[0]["seed"], rules[1]["delay_ms"]) == (0.1, 5, 5.0)
    assert 0 < rules[0]["left_s"] <= 30
    assert (rules[4]["error"], rules[5]["skip"], rules[6]["api"]) == ("ENOSPC", 999, "FETCH")
    assert [each["name"] for each in paused] == ["coordinator"]
    text = run(broker, "list").stdout
    assert text.splitlines()[0].split() == ["id", "fault", "hits", "left", "what"]
    assert "error=NOT_LEADER_OR_FOLLOWER" in text
    done(broker, "resume", "coordinator")
    assert done(broker, "clear", str(rules[0]["id"])) == "1 rule lifted\n"
    assert done(broker, "clear") == "7 rules lifted\n"
    assert listed(broker) == {"rules": [], "paused": []}


def test_the_points_to_crash_at_are_listed(broker: Broker) -> None:
    text = run(broker, "crash").stdout
    assert all(point in text for point in ("before-append", "after-flush", "during-roll", "during-recovery"))


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["kill", "partition order-0"], 1, ["no actor 'partition order-0'", "did you mean 'partition orders-0'"]),
        (["kill", "partition x*"], 1, ["no actor matches 'partition x*'", "coordinator"]),
        (["kil", "x"], 2, ["zafka chaos kil", "did you mean 'kill'"]),
        (["kill", "coordinator", "--signal", "NOPE"], 2, ["no signal NOPE"]),
        (["pause", "coordinator", "--for", "2"], 2, ["--for", "a time with its unit", "500ms"]),
        (["drop", "broker 1"], 2, ["Missing argument 'TO'"]),
        (["disk", "coordinator", "--error", "ENOPSC"], 2, ["did you mean 'ENOSPC'"]),
        (["disk", "coordinator", "--error", "SLOW"], 2, ["SLOW needs a delay"]),
        (["crash", "coordinator"], 2, ["--at POINT"]),
        (["crash", "coordinator", "--at", "after-apend"], 2, ["did you mean 'after-append'"]),
        (["error", "PRODUC", "--error", "NOT_LEADER_OR_FOLLOWER"], 2, ["did you mean 'PRODUCE'"]),
        (["error", "PRODUCE"], 2, ["say one of", "an error, a delay"]),
        (["clear", "99"], 1, ["no rule 99 is in force"]),
        (["plan", "absent.yaml"], 1, ["absent.yaml: no such file"]),
    ],
)
def test_what_is_wrong_ends_with_a_message(broker: Broker, arguments: list[str], code: int, told: list[str]) -> None:
    result = run(broker, *arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr.startswith("zafka: ")
    assert "Traceback" not in result.stderr
    assert all(word in result.stderr for word in told), result.stderr


def test_nobody_there(tmp_path: Path) -> None:
    result = command_line.zafka("chaos", "kill", "coordinator", "--data-dir", str(tmp_path))
    assert result.returncode == 1
    assert result.stderr == f"zafka: no zafka runs on {tmp_path}; start one with `zafka up`\n"


def test_a_plan_prints_what_it_does_and_the_same_again(broker: Broker, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        "duration: 400ms\n"
        "steps:\n"
        "- {do: kill, every: 100ms, vary: 50ms, target: 'partition *'}\n"
        "- {do: error, at: 50ms, api: PRODUCE, error: NOT_LEADER_OR_FOLLOWER, times: 1}\n")
    runs = []
    for _ in range(2):
        result = run(broker, "plan", str(plan), "--seed", "9")
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        summary = lines.pop()["summary"]
        assert (summary["seed"], summary["done"], summary["refused"]) == (9, len(lines), 0)
        assert result.returncode == 0
        runs.append([(line["at_s"], line["do"], line.get("target")) for line in lines])
    assert runs[0] == runs[1]
    assert {do for _, do, _ in runs[0]} == {"kill", "error", "clear"}
    plan.write_text("steps:\n- {do: kill, at: 0s, target: 'partition absent-*'}\n")
    result = run(broker, "plan", str(plan))
    assert (result.returncode, json.loads(result.stdout.splitlines()[-1])["summary"]["refused"]) == (1, 1)


def test_up_follows_a_plan_and_goes_on(tmp_path: Path) -> None:
    plan, ready = tmp_path / "plan.yaml", tmp_path / "ready.json"
    plan.write_text("steps:\n- {do: kill, at: 50ms, target: 'broker *'}\n- {do: kill, at: 60ms, target: coordinator}\n")
    up = subprocess.Popen(
        [*COMMAND, "up", "--data-dir", str(tmp_path / "data"), "--kafka-port", "0", "--zmq-port", "0",
         "--ready-file", str(ready), "--fault-plan", str(plan)],
        stderr=(tmp_path / "log").open("wb"), env=ENVIRONMENT)
    try:
        deadline_s = time.monotonic() + QUICK_S
        while "fault plan ends" not in (tmp_path / "log").read_text():
            assert up.poll() is None and time.monotonic() < deadline_s
            threading.Event().wait(0.02)
        log = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
        assert [line["target"] for line in log if line["event"] == "fault"] == ["broker 1", "coordinator"]
        address = json.loads(ready.read_text())["brokers"][0]["zmq"]
        with zafka.Admin(address) as admin:
            admin.create_topic("orders", 1, 1, {})
        up.send_signal(signal.SIGTERM)
        assert up.wait(QUICK_S) == 0
    finally:
        up.kill()
        up.wait(QUICK_S)


def test_up_refuses_a_bad_plan_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("steps:\n- {do: kil, at: 50ms, target: x}\n")
    result = subprocess.run(
        [*COMMAND, "up", "--fault-plan", "plan.yaml"], check=False, capture_output=True, text=True, timeout=QUICK_S,
        cwd=tmp_path, env=ENVIRONMENT)
    assert result.returncode == 1
    assert "plan.yaml, line 2: steps[0].do: must be one of" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["plan.yaml"]
