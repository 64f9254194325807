"""The two systems under measurement, each a fresh process tree on a fresh data directory.

Owns: starting and stopping zafka and Apache Kafka, and what can be read of them from outside (CPU, memory).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import proc

ROOT = Path(__file__).resolve().parent.parent
KAFKA_LIB = Path(os.environ.get("ZAFKA_KAFKA_LIB", ROOT / ".peers" / "kafka" / "lib"))


@dataclass
class Target:
    """A running system. `bootstrap` is its Kafka listener, `started_s` when it was launched (monotonic)."""

    name: str
    bootstrap: str
    process: subprocess.Popen[bytes]
    directory: Path
    started_s: float
    zmq: str = ""

    def cpu_s(self) -> float:
        """User and system seconds of all broker processes, those that have ended included."""
        return proc.tree_cpu_s(self.process.pid)

    def pss_bytes(self) -> int:
        return proc.tree_pss_bytes(self.process.pid)

    def disk_bytes(self) -> int:
        return proc.disk_bytes(self.directory / "data")

    def kill(self) -> None:
        """SIGKILL to every process at once."""
        processes = proc.tree(self.process.pid)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=10)
        self.process.wait(10)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_zafka(directory: Path, *, settings: dict[str, str] | None = None, port: int = 0) -> Target:
    """`zafka up` on `directory`; returns once everything accepts clients."""
    directory.mkdir(parents=True, exist_ok=True)
    topology = directory / "topology.yaml"
    defaults = {"num.partitions": 4, "group.initial.rebalance.delay.ms": 0, **(settings or {})}
    topology.write_text(
        json.dumps({
            "cluster": "bench", "data_dir": str(directory / "data"), "defaults": defaults,
            "brokers": [{"id": 1, "kafka": port, "zmq": 0}],
        })
    )  # JSON is YAML
    ready = directory / "ready.json"
    ready.unlink(missing_ok=True)
    started_s = time.monotonic()
    log = (directory / "log").open("ab")
    process = subprocess.Popen(
        [sys.executable, "-m", "zafka", "up", str(topology), "--ready-file", str(ready)],
        stdout=log, stderr=log, cwd=ROOT,
    )
    _wait(lambda: ready.exists(), process, directory / "log")
    broker = json.loads(ready.read_text())["brokers"][0]
    return Target("zafka", broker["kafka"], process, directory, started_s, zmq=broker["zmq"])


def start_kafka(directory: Path, *, settings: dict[str, str] | None = None, port: int = 0) -> Target:
    """One Apache Kafka broker (KRaft, defaults: no flush before an acknowledgement); returns once it listens."""
    directory.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    controller = free_port()
    properties = {
        "process.roles": "broker,controller", "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}", "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": str(directory / "data"), "offsets.topic.replication.factor": "1", "num.partitions": "4",
        "transaction.state.log.replication.factor": "1", "transaction.state.log.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0", **(settings or {}),
    }
    file = directory / "server.properties"
    file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    java = ["java", "-cp", f"{KAFKA_LIB}/*"]
    if not (directory / "data").exists():
        cluster_id = subprocess.check_output([*java, "kafka.tools.StorageTool", "random-uuid"], text=True,
                                             stderr=subprocess.DEVNULL).split()[-1]
        subprocess.run([*java, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(file)], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started_s = time.monotonic()
    log = (directory / "log").open("ab")
    process = subprocess.Popen([*java[:1], "-Xmx1g", "-Xms1g", *java[1:], "kafka.Kafka", str(file)],
                               stdout=log, stderr=log)

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    _wait(listens, process, directory / "log")
    return Target("kafka", f"127.0.0.1:{port}", process, directory, started_s)


def _wait(condition, process: subprocess.Popen[bytes], log: Path) -> None:  # type: ignore[no-untyped-def]
    deadline_s = time.monotonic() + 60
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError(f"did not start; its log ends with: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.005)


def kafka_missing() -> str:
    """"" if Apache Kafka can be measured here, else why not."""
    if shutil.which("java") is None:
        return "no java on this machine (scripts/install-peers installs it)"
    if not any(KAFKA_LIB.glob("kafka_2.13-*.jar")):
        return f"no Apache Kafka jars in {KAFKA_LIB} (scripts/install-peers fetches them)"
    return ""


@contextlib.contextmanager
def running(kind: str, *, settings: dict[str, str] | None = None) -> Iterator[Target]:
    """A target on a temporary directory that goes with it."""
    directory = Path(tempfile.mkdtemp(prefix=f"bench-{kind}-"))
    start = start_zafka if kind == "zafka" else start_kafka
    target: Target | None = None
    try:
        target = start(directory, settings=settings)
        yield target
    finally:
        if target is not None:
            target.stop()
        shutil.rmtree(directory, ignore_errors=True)
