"""Supervision with real processes: strategies, hangs of every kind, storms, a second blow, and every way to give up.

RELIABILITY, faults 1 and 5, invariants 16 and 17. What the root does with small actors is in tests/unit/test_root.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import zafka
from tests.actor_signals import kill
from tests.unit.test_root import Up, all_run
from zafka.actor import Actor, Context, System
from zafka.runtime import control
from zafka.runtime.errors import NotRunning
from zafka.testing import Broker, BrokerFailed

ROOT = Path(__file__).resolve().parent.parent.parent
TIMEOUT_S = 30.0
IMPATIENT = {"supervision": {"heartbeat": "200ms", "hung_after": "2s"}}


def wait_until(holds: Callable[[], bool], what: str, log: Callable[[], str] = str) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline_s:
        if holds():
            return
        threading.Event().wait(0.02)
    raise AssertionError(f"not so within {TIMEOUT_S:g} s: {what}\n{log()[-5000:]}")


def pids(broker: Broker) -> dict[str, int]:
    return {actor["name"]: actor["pid"] for actor in broker.actors()}


def all_are_running(broker: Broker) -> bool:
    with contextlib.suppress(NotRunning):
        return all(actor["state"] == "running" for actor in broker.actors())
    return False


def put(broker: Broker, topic: str, value: bytes, partition: int = 0) -> int:
    with zafka.Producer(broker.zmq_bootstrap_servers) as producer:
        return producer.send(topic, value, partition=partition).result(TIMEOUT_S).offset


# -- strategies ------------------------------------------------------------------------------------


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    with contextlib.ExitStack() as closing:

        def start(**options: Any) -> Up:
            started = Up(tmp_path, **options)
            closing.callback(started.close)
            return started

        yield start


@pytest.mark.parametrize(
    ("strategy", "killed", "also"),
    [
        ("one_for_one", "partition orders-0", set()),
        ("rest_for_one", "partition orders-0", {"partition orders-1"}),
        ("rest_for_one", "broker 1", {"partition orders-0", "partition orders-1"}),
        ("one_for_all", "partition orders-1", {"broker 1", "partition orders-0"}),
    ],
)
def test_strategy_decides_who_is_restarted_too(
    up: Callable[..., Up], strategy: str, killed: str, also: set[str]
) -> None:
    tree = up(strategy=strategy)
    tree.ready()
    before = tree.wait_for(all_run)
    kill(tree.data_dir, killed)
    expected = {killed, *also}
    after = tree.wait_for(lambda actors: all_run(actors) and actors[killed]["pid"] != before[killed]["pid"])
    assert {name for name in before if after[name]["pid"] != before[name]["pid"]} == expected
    supervisors = {each["name"]: each for each in control.read_status(tree.data_dir)["supervisors"]}
    assert supervisors["supervisor of broker 1"]["strategy"] == strategy
    assert supervisors["root"]["strategy"] == "one_for_one"


@pytest.mark.parametrize("strategy", ["rest_for_one", "one_for_all"])
def test_a_broker_serves_again_after_a_restart_of_many(strategy: str) -> None:
    topology = {"supervision": {"strategy": strategy}}
    with Broker({"orders": 3}, topology=topology) as broker:
        before = pids(broker)
        for round_ in range(3):
            assert put(broker, "orders", b"x") == round_
            broker.kill("broker 1" if round_ == 1 else "partition orders-0")
        assert put(broker, "orders", b"x") == 3
        wait_until(lambda: all_are_running(broker), "all run", lambda: broker.log)
        assert before["coordinator"] == pids(broker)["coordinator"]
        assert before["partition orders-2"] != pids(broker)["partition orders-2"]


# -- hangs -----------------------------------------------------------------------------------------


def test_a_stopped_partition_is_replaced_and_holds_up_nobody_else() -> None:
    """Its inbox is read by nobody meanwhile: what others send to it waits, bounded, and is answered or refused."""
    with Broker({"orders": 2}, topology=IMPATIENT) as broker:
        put(broker, "orders", b"first")
        put(broker, "orders", b"first", 1)
        with zafka.Producer(broker.zmq_bootstrap_servers) as producer:
            broker.kill("partition orders-0", signal_number=signal.SIGSTOP)
            stuck = [producer.send("orders", bytes(100_000), partition=0) for _ in range(200)]  # 20 MB
            other = [producer.send("orders", b"y", partition=1).result(TIMEOUT_S).offset for _ in range(50)]
            assert other == list(range(1, 51))
            assert [future.result(TIMEOUT_S).offset for future in stuck] == list(range(1, 201))
        actor = broker.actor("partition orders-0")
        assert actor["restarts"] == 1
        assert actor["last_exit"].startswith("hung: no heartbeat for 2")
        assert actor["last_exit_at"]
        assert broker.actor("broker 1")["restarts"] == 0


class Blocked(Actor):
    """Has the kernel hold its process (state D), as a flush that stalls does, until somebody opens the FIFO."""

    def on_message(self, message: Any, context: Context) -> int:
        # The parent of a vfork sleeps uninterruptibly until its child has executed; the child waits for the FIFO.
        child = os.posix_spawn(
            sys.executable, [sys.executable, "-c", ""], {},
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, message, os.O_RDONLY, 0)])
        os.waitpid(child, 0)
        return os.getpid()


def test_who_waits_for_the_disk_is_not_hung(tmp_path: Path) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    with System(hung_after=1.0) as system:
        blocked = system.spawn(Blocked, name="blocked")
        answers: list[int] = []
        asking = threading.Thread(target=lambda: answers.append(blocked.ask(fifo, timeout=TIMEOUT_S)))
        asking.start()
        wait_until(lambda: system.status()[0]["state"] == "waits for the disk", "it is seen to wait for the disk")
        pid = system.status()[0]["pid"]
        pidfd = os.pidfd_open(pid)
        assert not select.select([pidfd], [], [], 2.5)[0], "killed as hung while it waits for the disk"
        os.close(pidfd)
        os.close(os.open(fifo, os.O_WRONLY))
        asking.join(TIMEOUT_S)
        assert answers == [pid]
        wait_until(lambda: system.status()[0]["state"] == "running", "it runs")
        assert system.status()[0]["restarts"] == 0


# -- storms and second blows -----------------------------------------------------------------------


def test_all_partitions_killed_at_once_serve_again() -> None:
    count = int(os.environ.get("PARTITIONS", "24"))
    with Broker({"orders": count}) as broker:
        victims = [pid for name, pid in pids(broker).items() if name.startswith("partition")]
        began_s = time.monotonic()
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        with zafka.Producer(broker.zmq_bootstrap_servers) as producer:
            futures = [producer.send("orders", b"x", partition=partition) for partition in range(count)]
            assert [future.result(TIMEOUT_S).offset for future in futures] == [0] * count
        print(f"{count} partitions killed at once serve again after {time.monotonic() - began_s:.2f} s")
        assert not set(victims) & set(pids(broker).values())
        assert broker.actor("broker 1")["restarts"] == 0


def test_a_second_blow_during_recovery() -> None:
    """Killed again as soon as there is a process to kill: each counts as a crash, and it serves in the end."""
    with Broker(["orders"], topology={"supervision": {"intensity": 100}}) as broker:
        assert put(broker, "orders", b"x") == 0
        last = broker.kill("partition orders-0")
        for _ in range(5):
            wait_until(lambda last=last: pids(broker)["partition orders-0"] not in (0, last), "a successor")  # type: ignore[misc]
            last = pids(broker)["partition orders-0"]
            with contextlib.suppress(ProcessLookupError):
                os.kill(last, signal.SIGKILL)
        assert put(broker, "orders", b"x") == 1
        assert broker.actor("partition orders-0")["restarts"] >= 6


def test_the_fork_server_killed_during_the_start_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "topology.yaml").write_text(json.dumps({
        "data_dir": str(tmp_path / "data"), "brokers": [{"id": 1, "kafka": 0, "zmq": 0}],
        "topics": [{"name": "orders", "partitions": 2}]}))
    ready = tmp_path / "ready.json"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "zafka", "up", "topology.yaml", "--ready-file", str(ready)], cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=log)
    try:
        for _ in range(3):
            killed = kill_fork_server(process.pid)
            wait_until(
                lambda killed=killed: fork_server(process.pid) not in (None, killed),  # type: ignore[misc]
                "a new fork server", (tmp_path / "log").read_text)
        wait_until(ready.exists, "the start is done", (tmp_path / "log").read_text)
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0
    finally:
        process.kill()
        process.wait()


def fork_server(root: int) -> int | None:
    children = psutil.Process(root).children()
    return children[0].pid if children else None


def kill_fork_server(root: int) -> int:
    wait_until(lambda: fork_server(root) is not None, "a fork server")
    pid = fork_server(root)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


# -- giving up -------------------------------------------------------------------------------------


def test_a_crash_in_every_recovery_ends_up_with_one_clear_word(tmp_path: Path) -> None:
    """The partition's supervisor gives up, then the root's: exit code 1, the reason last, nobody left."""
    supervision = {"intensity": 2, "backoff": {"initial": "1ms", "max": "5ms"}}
    with Broker(["orders"], data_dir=tmp_path / "data") as broker:
        put(broker, "orders", b"x")
    log = tmp_path / "data" / "broker-1" / "orders-0" / f"{0:020}.log"
    aside = log.rename(tmp_path / "aside")
    log.mkdir()  # no recovery can read this
    began_s = time.monotonic()
    with pytest.raises(BrokerFailed) as failed:
        Broker(["orders"], data_dir=tmp_path / "data", topology={"supervision": supervision}).start()
    assert time.monotonic() - began_s < TIMEOUT_S
    text = str(failed.value)
    assert "ended with exit code 1" in text
    last = text.splitlines()[-1]
    assert last.startswith("zafka: supervision gave up and stopped everything: more than 2 crashes within 60 s: "
                           "supervisor of broker 1 (3 times); the last, of supervisor of broker 1: "
                           "more than 2 crashes within 60 s: partition orders-0 (3 times); the last, of partition orders-0: ")
    assert "IsADirectoryError" in last
    assert "mend the cause, then start again" in last
    assert not (tmp_path / "data" / "run.json").exists()
    log.rmdir()
    aside.rename(log)
    with Broker(["orders"], data_dir=tmp_path / "data") as broker:  # nobody holds a lock or a port
        assert put(broker, "orders", b"x") == 1


def test_a_stop_is_bounded_when_somebody_does_not_obey() -> None:
    with Broker({"orders": 2}) as broker:
        processes = psutil.Process(broker.pid).children(recursive=True)
        broker.kill("partition orders-0", signal_number=signal.SIGSTOP)
        os.kill(broker.pid, signal.SIGTERM)
        began_s = time.monotonic()
        assert broker.wait(TIMEOUT_S) == 0
        assert time.monotonic() - began_s < 10.0  # 1.8 s on a machine that has nothing else to do
        assert not any(process.is_running() for process in processes)


def test_a_killed_root_takes_all_with_it_within_a_second() -> None:
    with Broker({"orders": 8}) as broker:
        pidfds = [os.pidfd_open(process.pid) for process in psutil.Process(broker.pid).children(recursive=True)]
        assert len(pidfds) == 11
        broker.kill("supervisor")
        deadline_s = time.monotonic() + 1.0
        for pidfd in pidfds:
            assert select.select([pidfd], [], [], max(0.0, deadline_s - time.monotonic()))[0], "somebody lives on"
            os.close(pidfd)
