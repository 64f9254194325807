"""The two systems whose power is cut: zafka and Apache Kafka, each on a directory that it shares with nobody.

Owns: a process tree. `launch` starts it and does not wait, so that the power can be cut while it starts; `wait_ready`
waits. Ports stay the same over all starts. Configuration and logs lie outside of the disk that forgets.
May fail with NotBack, which says what the system wrote last: it needs somebody to look, which is the one thing that
must not happen.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import psutil

from benchmarks.targets import KAFKA_LIB, free_port

ROOT = Path(__file__).resolve().parent.parent.parent
READY_S = 60.0
END_S = 30.0
POLL_S = 0.005
QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")  # for a Java that ends soon


class NotBack(Exception):
    """The system did not come back by itself."""


class System(Protocol):
    """bootstrap: for Kafka's clients; native: for ours. is_lossy: it may lose what it acknowledged, so it says itself."""

    bootstrap: str
    native: str
    is_lossy: bool

    def launch(self) -> None: ...

    def wait_ready(self) -> None: ...

    def kill_all(self) -> None: ...

    def stop(self) -> None: ...

    def log_tail(self) -> str: ...

    def keep(self, name: str) -> Path: ...


def _is_gone(process: psutil.Process) -> bool:
    """A zombie works no more; whose child it became may take its time."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


class _Tree:
    """A process tree with a log. data: what it writes, nothing that is not its own."""

    def __init__(self, work: Path, data: Path) -> None:
        self.work = work
        self.data = data
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, command: list[str], **environment: str) -> None:
        with (self.work / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=ROOT, start_new_session=True,
                env={**os.environ, **environment})

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def processes(self) -> list[psutil.Process]:
        """The root first; [] if it is gone."""
        try:
            assert self.process is not None
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill_all(self) -> None:
        """SIGKILL to every process. One that is being forked meanwhile goes with its parent."""
        doomed = self.processes()
        for process in doomed:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        deadline_s = time.monotonic() + END_S
        while not all(map(_is_gone, doomed[1:])) and time.monotonic() < deadline_s:
            threading.Event().wait(POLL_S)
        self._reap()

    def stop(self) -> None:
        """In order; whatever takes too long is killed."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_S)
        self.kill_all()

    def wait_for(self, condition: Any) -> None:
        deadline_s = time.monotonic() + READY_S
        while not condition():
            if not self.is_running() or time.monotonic() > deadline_s:
                raise NotBack(f"it did not start; its log ends with:\n{self.log_tail()}")
            threading.Event().wait(POLL_S)

    def log_tail(self) -> str:
        return (self.work / "log").read_text(errors="replace")[-6000:]

    def keep(self, name: str) -> Path:
        """Copy log, configuration and data to where they stay, for somebody to look at. What cannot be read is left out."""
        kept = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        for path in self.work.iterdir():
            if path.is_file():
                shutil.copy(path, kept)
        with contextlib.suppress(shutil.Error, OSError):
            shutil.copytree(self.data, kept / "data", symlinks=True, dirs_exist_ok=True)
        return kept

    def _reap(self) -> None:
        assert self.process is not None
        self.process.wait(END_S)
        if self.process.stdin is not None:
            self.process.stdin.close()


@contextlib.contextmanager
def kept_if_failed(system: System, is_failed: Callable[[], bool], name: str) -> Iterator[None]:
    """Ends the system, and keeps what it leaves behind if the run failed; with an empty name, nothing is kept."""
    failed = True
    try:
        yield
        failed = is_failed()
    finally:
        system.stop()
        if failed and name:
            print(f"kept for you to look at: {system.keep(name)}", file=sys.stderr, flush=True)


class Zafka(_Tree):
    """topics: as in a topology. is_lossy: of what is on it (`fsync: os`). faults: can be injected from outside."""

    def __init__(
        self, work: Path, data: Path, *, topics: list[dict[str, Any]], defaults: dict[str, Any] | None = None,
        is_lossy: bool = False, listeners: dict[str, Any] | None = None, faults: bool = False,
    ) -> None:
        super().__init__(work, data)
        self.is_lossy = is_lossy
        self._ready = work / "ready.json"
        self._listeners: dict[str, Any] = listeners or {"kafka": 0, "zmq": 0}
        self._topology = {
            "cluster": "powercut", "data_dir": str(data), "topics": topics, "defaults": defaults or {}, "faults": faults,
            "supervision": {"intensity": 100000, "heartbeat": "500ms", "hung_after": "5s"},
        }
        self.bootstrap = self.native = ""

    def launch(self) -> None:
        self._ready.unlink(missing_ok=True)
        topology = self.work / "topology.yaml"
        topology.write_text(json.dumps({**self._topology, "brokers": [{"id": 1, **self._listeners}]}))  # JSON is YAML
        self.start([sys.executable, "-m", "zafka", "up", str(topology), "--ready-file", str(self._ready),
                    "--stop-with-stdin"])

    def wait_ready(self) -> None:
        self.wait_for(self._ready.exists)
        told = json.loads(self._ready.read_text())["brokers"][0]
        self.bootstrap, self.native = told["kafka"], told["zmq"]
        if "listeners" not in self._listeners:
            self._listeners = {door: int(told[door].rpartition(":")[2]) for door in ("kafka", "zmq")}


class Kafka(_Tree):
    """Apache Kafka, one broker (KRaft), with its defaults unless `settings` say otherwise."""

    is_lossy = True

    def __init__(
        self, work: Path, data: Path, *, settings: dict[str, str] | None = None, java_options: tuple[str, ...] = ()
    ) -> None:
        super().__init__(work, data)
        self._java_options = java_options
        self._port, controller = free_port(), free_port()
        self.bootstrap = self.native = f"127.0.0.1:{self._port}"
        self._file = work / "server.properties"
        self._file.write_text("".join(f"{key}={value}\n" for key, value in {
            "process.roles": "broker,controller", "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self._port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self._port}", "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT", "log.dirs": str(data),
            "offsets.topic.replication.factor": "1", "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1", "group.initial.rebalance.delay.ms": "0", **(settings or {}),
        }.items()))

    def format(self) -> None:
        """Prepare the directory, once."""
        cluster_id = base64.urlsafe_b64encode(b"Z" + os.urandom(15)).decode().rstrip("=")
        tool = [*self._java(*QUICK_START), "kafka.tools.StorageTool"]
        subprocess.run([*tool, "format", "-t", cluster_id, "-c", str(self._file)], check=True, capture_output=True)

    def launch(self) -> None:
        self.start([*self._java("-Xmx512m", *self._java_options), "kafka.Kafka", str(self._file)])

    def wait_ready(self) -> None:
        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self._port)) == 0

        self.wait_for(listens)

    @staticmethod
    def _java(*options: str) -> list[str]:
        return ["java", *options, "-cp", f"{KAFKA_LIB}/*"]
