"""How a member of ours leaves its group when nobody closes it: with its program, or collected; soon, and never in the way."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import zafka

ROOT = Path(__file__).resolve().parent.parent.parent
NUMBERS = itertools.count()
TIMEOUT_S = 60.0
SESSION_S = 300.0  # nobody here waits for the end of one
PROGRAM = """
import sys, zafka
consumer = zafka.Consumer("orders", bootstrap_servers=sys.argv[1], group_id=sys.argv[2], auto_offset_reset="earliest", **{options})
while not (records := consumer.poll(0.1)): pass
print("reads", flush=True)
{end}
"""


@pytest.fixture(scope="module")
def broker() -> Iterator[zafka.Broker]:
    long = {f"group.{kind}session.timeout.ms": int(SESSION_S * 1000) for kind in ("consumer.", "consumer.max.", "max.")}
    with zafka.Broker(topics={"orders": 2}, defaults=long) as broker:
        with zafka.Producer(broker.bootstrap_servers) as producer:
            producer.send("orders", b"1", partition=0)
        yield broker


@pytest.fixture
def group() -> str:
    return f"leaving-{next(NUMBERS)}"


def start(broker: zafka.Broker, group: str, end: str, **options: object) -> subprocess.Popen[str]:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(options=options, end=end), broker.bootstrap_servers, group],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout is not None
    assert program.stdout.readline() == "reads\n", program.communicate()
    return program


def state_of(broker: zafka.Broker, group: str) -> tuple[str, int]:
    with zafka.Admin(broker.bootstrap_servers) as admin:
        (info,) = admin.describe_groups(group)
    return info.state, len(info.members)


@pytest.mark.parametrize(("protocol", "end"), [("classic", "raise SystemExit('gave up')"), ("consumer", "")])
def test_the_program_ends(broker: zafka.Broker, group: str, protocol: str, end: str) -> None:
    options: dict[str, object] = {"group_protocol": protocol, "auto_commit_interval": SESSION_S}
    if protocol == "classic":
        options["session_timeout"] = SESSION_S
    program = start(broker, group, end, **options)
    _, err = program.communicate(timeout=TIMEOUT_S)
    assert err == ("gave up\n" if end else "")
    assert state_of(broker, group) == ("Empty", 0)
    with zafka.Admin(broker.bootstrap_servers) as admin:
        assert admin.list_group_offsets(group) == {}  # what it was at comes again


def test_many_end_as_soon_as_one(broker: zafka.Broker, group: str) -> None:
    """Each may take its moment, and all take it together: here none is answered."""
    end = ("consumers = [zafka.Consumer('orders', bootstrap_servers=sys.argv[1], group_id=f'{sys.argv[2]}-{n}') for n in range(20)]\n"
           "while not all(one.poll(0.01) is not None and one.assignment() for one in consumers): pass\n"
           "print('all', flush=True); sys.stdin.readline()")
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(options={}, end=end), broker.bootstrap_servers, group], cwd=ROOT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout is not None
    assert [program.stdout.readline(), program.stdout.readline()] == ["reads\n", "all\n"]
    with broker.pause("broker 1"):
        began_s = time.monotonic()
        _, err = program.communicate("\n", timeout=TIMEOUT_S)
        took_s = time.monotonic() - began_s
    assert (program.returncode, err) == (0, "")
    assert 0.9 < took_s < 15  # alone on a machine 1.1 s; one after the other 21


@pytest.mark.parametrize(("protocol", "times"), [("classic", 1), ("consumer", 2)])
def test_a_static_member_keeps_its_place(broker: zafka.Broker, group: str, protocol: str, times: int) -> None:
    """Under KIP-848 its name is free at once for who comes back, as after `close`."""
    options: dict[str, object] = {"group_protocol": protocol, "group_instance_id": "one"}
    if protocol == "classic":
        options["session_timeout"] = SESSION_S
    for _ in range(times):
        program = start(broker, group, "", **options)
        _, err = program.communicate(timeout=TIMEOUT_S)
        assert (program.returncode, err) == (0, "")
    assert state_of(broker, group)[1] == 1


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_consumer_that_is_collected_leaves(broker: zafka.Broker, group: str, protocol: str) -> None:
    consumer: zafka.Consumer | None = zafka.Consumer(
        "orders", bootstrap_servers=broker.bootstrap_servers, group_id=group, group_protocol=protocol)
    assert consumer is not None
    end_s = time.monotonic() + TIMEOUT_S
    while not consumer.assignment():
        assert time.monotonic() < end_s
        consumer.poll(0.02)
    assert state_of(broker, group) == ("Stable", 1)
    with pytest.warns(ResourceWarning, match="<Consumer .* was never closed"):
        consumer = None
    while state_of(broker, group) != ("Empty", 0):
        assert time.monotonic() < end_s


def test_control_c_leaves_and_a_kill_does_not(broker: zafka.Broker, group: str) -> None:
    program = start(broker, group, "for record in consumer: pass")
    program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=TIMEOUT_S)
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert state_of(broker, group) == ("Empty", 0)
    program = start(broker, group, "for record in consumer: pass")
    os.kill(program.pid, signal.SIGKILL)
    program.communicate(timeout=TIMEOUT_S)
    assert state_of(broker, group) == ("Stable", 1)
