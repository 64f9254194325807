"""A broker whose clients would take all the files that it may have open: it takes in as many as it can serve, and goes on."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

import zafka
from zafka.actors.broker_shell import connections_allowed
from zafka.testing import Broker
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import request_header, request_writer, with_length
from zafka.transport.kafka.messages.api_versions import ApiVersionsRequest

ROOT = Path(__file__).resolve().parent.parent.parent
OPEN_FILES = 1024
WAIT_S = 60.0
HELLO = b"".join(with_length(
    request_header(ApiKey.API_VERSIONS, 0, 7, "many"), request_writer(ApiKey.API_VERSIONS, 0)(ApiVersionsRequest())))


@pytest.mark.parametrize(
    ("wanted", "descriptors", "protocols", "allowed"),
    [(10_000, 1 << 20, 2, 10_000), (10_000, 1024, 1, 512), (10_000, 1024, 2, 256), (100, 1024, 2, 100), (10_000, 400, 1, 100)])
def test_connections_leave_descriptors_for_the_rest(wanted: int, descriptors: int, protocols: int, allowed: int) -> None:
    assert connections_allowed(wanted, descriptors, protocols) == allowed


@contextmanager
def few_files(directory: Path) -> Iterator[tuple[tuple[str, int], Path]]:
    """A cluster that may have few files open: (address of its broker, its log)."""
    topology, ready, log = directory / "topology.yaml", directory / "ready.json", directory / "log"
    topology.write_text(json.dumps({
        "cluster": "few", "data_dir": str(directory / "data"), "brokers": [{"id": 1, "kafka": 0, "zmq": 0}]}))
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["sh", "-c", f'ulimit -n {OPEN_FILES} && exec "$@"', "sh", sys.executable, "-m", "zafka", "up", str(topology),
             "--ready-file", str(ready)], stdout=out, stderr=out, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        deadline_s = time.monotonic() + WAIT_S
        while not ready.exists():
            assert process.poll() is None and time.monotonic() < deadline_s, log.read_text()
            threading.Event().wait(0.02)
        host, _, port = json.loads(ready.read_text())["brokers"][0]["kafka"].rpartition(":")
        yield (host, int(port)), log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(WAIT_S)


def is_served(client: socket.socket) -> bool:
    """Whether the broker answers; it closes a connection that it cannot take in."""
    try:
        client.sendall(HELLO)
        return bool(client.recv(4))
    except ConnectionError:
        return False


def test_at_its_limit_of_open_files_a_broker_refuses_clients_and_serves_the_others(tmp_path: Path) -> None:
    allowed = connections_allowed(10_000, OPEN_FILES, 2)
    with few_files(tmp_path) as (address, log), ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(address, WAIT_S)) for _ in range(allowed + 300)]
        served = [client for client in clients if is_served(client)]
        assert len(served) == allowed
        # The broker looks at its own descriptors twice a second: it must live on after that.
        deadline_s = time.monotonic() + 1.2
        while time.monotonic() < deadline_s:
            assert all(map(is_again_served, served[:5]))
            threading.Event().wait(0.02)
        served[0].close()
        while not is_served(stack.enter_context(socket.create_connection(address, WAIT_S))):
            assert time.monotonic() < deadline_s + WAIT_S
        told = log.read_text()
        assert "fewer connections than max.connections" in told and f"there are {allowed} connections already" in told
        assert "actor ended" not in told


def is_again_served(client: socket.socket) -> bool:
    """One whole answer more, behind what is left of earlier ones."""
    client.sendall(HELLO)
    return bool(client.recv(1 << 16))


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline_s, what
        threading.Event().wait(0.02)


def cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def test_without_a_descriptor_left_a_broker_lets_partitions_wait_and_serves_the_others() -> None:
    """Whoever dials the broker has a place in the queue of its inbox, and is taken in when somebody else has gone."""
    with Broker(topics={"old": 1}) as broker, ExitStack() as stack:
        host, _, port = broker.bootstrap_servers.rpartition(":")
        idle = [socket.create_connection((host, int(port)), WAIT_S) for _ in range(20)]
        assert all(map(is_served, idle))
        pid = broker.actor("broker 1")["pid"]
        admin = stack.enter_context(zafka.Admin(broker.zmq_bootstrap_servers))
        producer = stack.enter_context(zafka.Producer(broker.zmq_bootstrap_servers))
        producer.send("old", b"before").result(WAIT_S)
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")), hard))

        creating = threading.Thread(target=admin.create_topic, args=("new", 3))
        creating.start()
        wait_until(lambda: "no room for who dials" in broker.log, broker.log)
        with socket.create_connection((host, int(port)), WAIT_S) as stranger:
            assert not is_served(stranger)
        began_s, spent_s = time.monotonic(), cpu_s(pid)
        while time.monotonic() < began_s + 1.5:  # more than one heartbeat
            assert is_again_served(idle[0])
            producer.send("old", b"meanwhile").result(WAIT_S)
            threading.Event().wait(0.02)
        assert cpu_s(pid) - spent_s < 1.0, "the broker turns round and round"
        for each in idle:
            each.close()
        creating.join(WAIT_S)
        assert not creating.is_alive()
        wait_until(lambda: is_written(producer), "the new topic is not served")
        assert broker.actor("broker 1")["pid"] == pid
        assert broker.log.count("no room for who dials") == 1


def is_written(producer: zafka.Producer) -> bool:
    return all(producer.send("new", b"after", partition=number).result(WAIT_S).offset >= 0 for number in range(3))
