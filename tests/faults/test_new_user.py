"""What a new user gets wrong ends quickly, with a message that says what, where and what would be right; no traceback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.faults.loads import ConfluentLoad, Shared, places
from zafka.testing import Broker

ROOT = Path(__file__).resolve().parent.parent.parent
QUICK_S = 8.0  # of a machine that runs other tests at the same time; alone it is well under a second
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
COMMAND = [sys.executable, "-m", "zafka"]


def run(*arguments: str, data: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`zafka ...` to its end, which must come quickly."""
    return subprocess.run(
        [*COMMAND, *arguments], check=False, input=data, capture_output=True, text=True, timeout=QUICK_S, cwd=cwd,
        env=ENVIRONMENT)


def refused(*arguments: str, code: int = 1, data: str = "", cwd: Path | None = None) -> str:
    """The message with which `zafka ...` ends; nothing may stand on stdout."""
    done = run(*arguments, data=data, cwd=cwd)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("zafka: ")
    return done.stderr


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker({"orders": 2}) as running:
        yield running


@pytest.mark.parametrize(
    ("topology", "told"),
    [
        ("clustr: demo\n", ["line 1", "clustr", "did you mean 'cluster'?"]),
        ("brokers:\n  - id: 1\n    kafka: ninety\n", ["line 3", "brokers[0].kafka", "must be a whole number"]),
        ("brokers:\n  - {id: 1, kafka: 99999}\n", ["line 2", "brokers[0].kafka", "must be 0 to 65535, not 99999"]),
        ("topics: [{name: a, replication_factor: 3}]\n", ["topics[0].replication_factor", "3 replicas", "there is 1"]),
        ("brokers: [{id: 1}, {id: 1}]\n", ["brokers[1].id", "1 is brokers[0]'s already"]),
        ("topics: [{name: 'no spaces'}]\n", ["topics[0].name", "no spaces", "ASCII alphanumerics"]),
        ("topics: [{name: a, config: {retention: 1}}]\n", ["topics[0].config.retention", "did you mean 'retention.ms'?"]),
        ("brokers: [{id: 1\n", ["not valid YAML", "line 2"]),
        ("brokers: [{id: 1, host: 0.0.0.0}]\n", ["brokers[0].host", "0.0.0.0", "listeners"]),
        ("brokers: [{id: 1, host: 10.1.2.3}]\n", ["brokers[0]", "10.1.2.3", "without security", "insecure: true"]),
        ("security: {tls: {}}\n", ["security", "not supported yet"]),
    ],
)
def test_a_bad_topology(tmp_path: Path, topology: str, told: list[str]) -> None:
    (tmp_path / "t.yaml").write_text(topology)
    message = refused("up", "t.yaml", cwd=tmp_path)
    assert message.startswith("zafka: t.yaml")
    assert all(word in message for word in told), message
    assert [path.name for path in tmp_path.iterdir()] == ["t.yaml"]  # nothing was started


def test_no_such_topology(tmp_path: Path) -> None:
    assert "absent.yaml: no such file" in refused("up", "absent.yaml", cwd=tmp_path)


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = refused("up", "--kafka-port", str(port), "--zmq-port", "0", cwd=tmp_path)
    assert str(port) in message
    assert "in use" in message


def test_a_second_start_on_one_data_directory(broker: Broker) -> None:
    message = refused("up", "--data-dir", str(broker.data_dir), "--kafka-port", "0", "--zmq-port", "0")
    assert str(broker.data_dir) in message
    assert str(broker.pid) in message
    assert broker.is_running()


def test_nobody_at_the_address(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, not listening: nobody else gets it meanwhile
        address = f"127.0.0.1:{free.getsockname()[1]}"
        for bootstrap in (address, f"tcp://{address}"):
            for command in (["topic", "list"], ["consume", "orders"], ["produce", "orders"]):
                assert address in refused(*command, "--bootstrap-server", bootstrap)


@pytest.mark.parametrize("door", ["kafka", "zmq"])
@pytest.mark.parametrize("command", [["produce"], ["consume", "-e"], ["topic", "describe"], ["topic", "delete"]])
def test_an_unknown_topic(broker: Broker, command: list[str], door: str) -> None:
    address = broker.bootstrap_servers if door == "kafka" else broker.zmq_bootstrap_servers
    verb, *options = command
    words = [verb, *options] if verb == "topic" else [verb]
    rest = [] if verb == "topic" else options
    message = refused(*words, "ordesr", *rest, "-b", address, data="a line\n")
    assert "ordesr" in message
    assert "does not exist" in message


def test_a_topic_that_exists(broker: Broker) -> None:
    message = refused("topic", "create", "orders", "-b", broker.bootstrap_servers)
    assert "orders" in message
    assert "already exists" in message


def test_an_impossible_topic(broker: Broker) -> None:
    def create(*arguments: str) -> str:
        return refused("topic", "create", *arguments, "-b", broker.bootstrap_servers)

    assert "no spaces" in create("no spaces")
    assert "retention.ms" in create("fine", "--config", "retention.m=5")
    assert "3" in create("fine", "--replication-factor", "3")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["tpoic", "list"], ["tpoic", "did you mean 'topic'?"]),
        (["topic", "lsit"], ["topic lsit", "did you mean 'list'?"]),
        (["up", "--kafka-prot", "1"], ["--kafka-prot", "--kafka-port"]),
        (["up", "--kafka-port", "http"], ["--kafka-port", "http"]),
        (["consume"], ["Missing argument 'TOPIC'"]),
        (["group", "lst"], ["there is no `zafka group lst`; did you mean 'list'?"]),
        (["up", "--broker", "1"], ["--broker", "not supported yet"]),
    ],
)
def test_a_mistyped_command(arguments: list[str], told: list[str]) -> None:
    message = refused(*arguments, code=2)
    assert all(word in message for word in told), message


def test_ctrl_c_under_load() -> None:
    with Broker({"orders": 4}) as broker:
        load = ConfluentLoad(broker.bootstrap_servers, places("orders"), Shared())
        load.start()
        reader = subprocess.Popen(
            [*COMMAND, "consume", "orders", "-b", broker.bootstrap_servers, "-o", "beginning"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT)
        assert reader.stdout is not None
        assert reader.stdout.readline()  # records flow
        reader.send_signal(signal.SIGINT)
        _, told = reader.communicate(timeout=QUICK_S)
        assert b"Traceback" not in told

        processes = psutil.Process(broker.pid).children(recursive=True)
        started_s = time.monotonic()
        os.killpg(broker.pid, signal.SIGINT)  # as a terminal does: to every process
        assert broker.wait(QUICK_S) == 0
        assert time.monotonic() - started_s < QUICK_S
        assert "Traceback" not in broker.log
        assert [process for process in processes if process.is_running()] == []
        load.abandon()


def test_a_full_disk(tmp_path: Path) -> None:
    """On a file system of 16 MB: a message for the one who sends, reads go on, and writes too once there is room."""
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode != 0:
        reason = "no permission to make a mount of its own (unshare -rm)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    ready = tmp_path / "ready.json"
    script = f"""
        mount -t tmpfs -o size=16m none {tmp_path}/disk && dd if=/dev/zero of={tmp_path}/disk/ballast bs=1M count=8 &&
        exec {sys.executable} -m zafka up --data-dir {tmp_path}/disk/data --kafka-port 0 --zmq-port 0 --ready-file {ready}
    """
    (tmp_path / "disk").mkdir()
    up = subprocess.Popen(["unshare", "-rm", "sh", "-c", script], stderr=subprocess.PIPE, env=ENVIRONMENT)
    try:
        address = _kafka_address(ready, up)
        assert run("topic", "create", "t", "-b", address).returncode == 0
        megabyte = ("x" * 99_999 + "\n") * 10
        full = run("produce", "t", "-b", address, "--timeout", "6", data=megabyte * 20)
        assert full.returncode == 1
        assert "Traceback" not in full.stderr
        assert "takes no records for now: KAFKA_STORAGE_ERROR: the disk is full" in full.stderr
        before = run("consume", "t", "-b", address, "-e", "-f", "%o\n").stdout.split()
        assert before == [str(offset) for offset in range(len(before))]
        assert before

        (Path(f"/proc/{up.pid}/root{tmp_path}/disk/ballast")).unlink()
        assert run("produce", "t", "-b", address, data="room again\n").returncode == 0
        after = run("consume", "t", "-b", address, "-o", "-1", "-e").stdout
        assert after == "room again\n"
        up.terminate()
        _, log = up.communicate(timeout=QUICK_S)
        assert up.returncode == 0
        assert b"Traceback" not in log
    finally:
        up.kill()
        up.wait(QUICK_S)


def _kafka_address(ready: Path, up: subprocess.Popen[bytes]) -> str:
    import json

    deadline_s = time.monotonic() + QUICK_S
    while not ready.exists():
        assert up.poll() is None and time.monotonic() < deadline_s
        threading.Event().wait(0.02)
    return str(json.loads(ready.read_text())["brokers"][0]["kafka"])
