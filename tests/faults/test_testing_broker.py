"""`zafka.Broker`: what tests and notebooks rely on, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

import psutil
import pytest

import zafka
import zafka.testing
from zafka.client.admin import Admin
from zafka.runtime.errors import RuntimeFault
from zafka.runtime.faults.kinds import ApiFault, Clear, Crash, DiskError, MailFault
from zafka.testing import Broker, BrokerFailed

ROOT = Path(__file__).resolve().parent.parent.parent
END_S = 15.0


def put(broker: Broker, topic: str, value: bytes) -> int:
    with zafka.Producer(broker.zmq_bootstrap_servers) as producer:
        return producer.send(topic, value).result(END_S).offset


def test_nothing_is_left_behind() -> None:
    with Broker({"orders": 2}) as broker:
        assert put(broker, "orders", b"x") == 0
        processes = psutil.Process(broker.pid).children(recursive=True)
        assert len(processes) == 5  # fork server, coordinator, broker, two partitions
        data_dir, run = broker.data_dir, json.loads((broker.data_dir / "run.json").read_text())
        port = int(broker.bootstrap_servers.rpartition(":")[2])
    assert not data_dir.exists()
    assert not Path(run["run_dir"]).exists()
    assert [process for process in processes if process.is_running()] == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    with pytest.raises(BrokerFailed, match="not running"):
        _ = broker.bootstrap_servers


@pytest.mark.parametrize("name", ["partition orders-0", "broker 1", "coordinator", "fork server"])
def test_what_is_killed_comes_back_with_its_records(name: str) -> None:
    with Broker(["orders"]) as broker:
        assert put(broker, "orders", b"before") == 0
        assert broker.kill(name) > 0
        assert put(broker, "orders", b"after") == 1


def test_an_actor_that_is_not_there_is_told_with_those_that_are() -> None:
    with Broker(["orders"]) as broker:
        for ask in (broker.kill, broker.actor):
            with pytest.raises((RuntimeFault, BrokerFailed), match=r"partition orders-7.*partition orders-0"):
                ask("partition orders-7")  # type: ignore[operator]


def test_data_and_ports_stay_over_restarts_and_kills(tmp_path: Path) -> None:
    broker = Broker(["orders"], data_dir=tmp_path / "data", defaults={"fsync": "os", "segment.bytes": 2**20})
    with broker:
        address = broker.bootstrap_servers
        assert put(broker, "orders", b"0") == 0
        broker.restart()
        assert put(broker, "orders", b"1") == 1
        broker.kill_all()
        assert not broker.is_running()
        broker.start()
        assert put(broker, "orders", b"2") == 2
        broker.kill("supervisor")
        broker.wait(END_S)
        broker.start()
        assert put(broker, "orders", b"3") == 3
        assert broker.bootstrap_servers == address
    assert (tmp_path / "data" / "broker-1" / "orders-0").is_dir()


class Tree:
    """Stands for `zafka up`: tells where it is, and writes a line."""

    stdin = code = None
    pid = 1

    def __init__(self, command: list[str], *, stdout: BinaryIO, **options: object) -> None:
        ready = Path(command[command.index("--ready-file") + 1])
        self.topology = json.loads(Path(command[command.index("up") + 1]).read_text())
        self.was_ready = ready.exists()
        ready.write_text('{"brokers": [{"kafka": "127.0.0.1:1009", "zmq": "tcp://127.0.0.1:1010"}]}')
        stdout.write(b"up")

    def poll(self) -> int | None:
        return self.code

    def wait(self, timeout_s: float) -> None:
        self.code = 0

    terminate = poll


def test_a_restart_keeps_the_ports_and_the_log_and_not_what_the_one_before_has_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees: list[Tree] = []
    monkeypatch.setattr(zafka.testing.subprocess, "Popen", lambda *command, **options: trees.append(Tree(*command, **options)) or trees[-1])
    monkeypatch.chdir(tmp_path)
    broker = Broker(data_dir="data").start()
    monkeypatch.chdir(ROOT)
    broker.restart()
    assert broker.log == "upup" and broker.bootstrap_servers == "127.0.0.1:1009"
    broker.stop()
    assert [tree.topology["brokers"] for tree in trees] == [
        [{"id": 1, "kafka": 0, "zmq": 0}], [{"id": 1, "kafka": 1009, "zmq": 1010}]]
    assert {tree.topology["data_dir"] for tree in trees} == {str(tmp_path / "data")}
    assert not any(tree.was_ready for tree in trees)


def test_what_was_killed_leaves_nothing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    # In a place of its own: any other start on this machine would sweep it.
    with tempfile.TemporaryDirectory() as place, monkeypatch.context() as context:
        context.setenv("XDG_RUNTIME_DIR", place)
        with Broker(["orders"]) as broker:
            run_dir = Path(json.loads((broker.data_dir / "run.json").read_text())["run_dir"])
            broker.kill_all()
            assert run_dir.parent == Path(place) and run_dir.exists()
        assert not run_dir.exists()


def test_a_broker_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import os, sys, zafka\n"
        f"broker = zafka.Broker(['orders'], data_dir={str(tmp_path / 'data')!r}).start()\n"
        "print(broker.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)})
    assert owner.stdout is not None
    root = psutil.Process(int(owner.stdout.readline()))
    processes = [root, *root.children(recursive=True)]
    owner.send_signal(signal.SIGKILL)
    owner.wait(END_S)
    _, alive = psutil.wait_procs(processes, timeout=END_S)
    assert alive == []
    assert owner.stdin is not None
    owner.stdin.close()
    owner.stdout.close()


def test_faults_are_asked_for_in_their_own_units(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(Broker, "_inject", lambda self, fault: asked.append(fault) or {"id": 7})
    broker = Broker()
    assert broker.crash_at("broker 1", "after-flush", nth=3, times=2) == 7
    assert broker.disk_error("partition *", "SLOW", delay_s=0.25) == broker.inject_error("FETCH", delay_s=0.5) == 7
    assert broker.delay("broker 1", "partition *", 0.1, jitter_s=0.2) == 7
    broker.clear_faults(1, 2)
    broker.clear_faults()
    assert asked == [
        Crash(target="broker 1", point="after-flush", skip=2, times=2),
        DiskError(target="partition *", error="SLOW", path_glob="*", delay_ms=250, seed=0),
        ApiFault(api="FETCH", delay_ms=500),
        MailFault(what="delay", sender="broker 1", receiver="partition *", delay_ms=100, jitter_ms=200),
        Clear(ids=(1, 2)), Clear(ids=None)]


def test_a_start_that_fails_says_why() -> None:
    with pytest.raises(BrokerFailed, match=r"retention\.m: unknown key; did you mean 'retention\.ms'"):
        Broker(defaults={"retention.m": 5}).start()
    with pytest.raises(TypeError, match=r"topics=\['orders'\]"):
        Broker("orders")


def test_what_the_topology_says_stands_beside_what_is_given() -> None:
    topology = {"defaults": {"num.partitions": 3, "fsync": "os"}, "topics": [{"name": "a", "partitions": 2}]}
    with Broker(["b"], defaults={"fsync": "always"}, topology=topology) as broker, Admin(broker.bootstrap_servers) as admin:
        assert admin.list_topics() == ["a", "b"] and len(admin.create_topic("c").partitions) == 3
        assert {entry.value for entry in admin.describe_configs(topic="c") if entry.name == "fsync"} == {"always"}
        settings = {entry.name: entry.value for entry in admin.describe_configs(broker=1)}
        assert settings["group.initial.rebalance.delay.ms"] == "0"
