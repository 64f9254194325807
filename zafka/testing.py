"""`zafka.Broker`: a real zafka on this machine, for tests and notebooks.

Owns: one process tree (`python -m zafka up`), its topology file and, unless `data_dir` is given, its data.
Everything is gone after `stop`; if this process dies without it, the tree sees its standard input close and stops.
May fail with BrokerFailed, whose message ends with what the tree wrote last.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

STOP_S = 15.0
POLL_S = 0.005
LOG_TAIL_BYTES = 4000


class BrokerFailed(Exception):
    """The broker did not start, or an actor that was asked for is not there."""


class Broker:
    """One broker with everything that belongs to it; use it as a context manager, or call `start` and `stop`.

    topics: name -> partitions, or names alone (one partition each); created before `start` returns.
    defaults: settings and topic configuration for all topics, by Kafka's names ("fsync", "segment.bytes", ...).
    data_dir: kept after `stop` if given; else a temporary one that goes with the broker.
    kafka_port, zmq_port: 0 picks free ports, which stay the same over `restart`.
    topology: further keys of the topology file, such as {"supervision": {"intensity": 100}}.
    Raises BrokerFailed if the broker is not up within `start_timeout_s` seconds.
    """

    def __init__(
        self,
        topics: Mapping[str, int] | Iterable[str] = (),
        *,
        defaults: Mapping[str, Any] | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        kafka_port: int = 0,
        zmq_port: int = 0,
        topology: Mapping[str, Any] | None = None,
        start_timeout_s: float = 30.0,
    ) -> None:
        if isinstance(topics, str):
            raise TypeError(f"topics is a mapping or a list, not one name: write topics=[{topics!r}]")
        counts = dict(topics) if isinstance(topics, Mapping) else dict.fromkeys(topics, 1)
        self.start_timeout_s = start_timeout_s
        self._directory: Path | None = None
        self._given_data_dir = Path(data_dir).absolute() if data_dir is not None else None
        self._ready: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = {"kafka": kafka_port, "zmq": zmq_port}
        self._topology: dict[str, Any] = {
            "cluster": "test",
            **(topology or {}),
            "defaults": dict(defaults or {}),
            "topics": [{"name": name, "partitions": count} for name, count in counts.items()],
        }

    def __repr__(self) -> str:
        return f"<Broker {self._ready['brokers'][0]['kafka']} pid={self.pid}>" if self._ready else "<Broker stopped>"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- what is where ---------------------------------------------------------------------------

    @property
    def bootstrap_servers(self) -> str:
        """host:port of the Kafka listener, for any Kafka client."""
        return str(self._told()["kafka"])

    @property
    def zmq_bootstrap_servers(self) -> str:
        """tcp://host:port of the ZeroMQ listener, for zafka's own client."""
        return str(self._told()["zmq"])

    @property
    def pid(self) -> int:
        """Process id of the supervisor."""
        return self._running().pid

    def is_running(self) -> bool:
        """True while the supervisor lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def data_dir(self) -> Path:
        return self._given_data_dir or self._work() / "data"

    @property
    def log(self) -> str:
        """All that the tree has written on its standard error."""
        return (self._work() / "log").read_text(errors="replace")

    def actors(self) -> list[dict[str, Any]]:
        """The actors as in `zafka status --format json`: name, kind, pid, incarnation, restarts, state, ..."""
        from zafka.runtime.control import read_status

        actors: list[dict[str, Any]] = read_status(self.data_dir)["actors"]
        return actors

    def actor(self, name: str) -> dict[str, Any]:
        """One actor by its name, such as "coordinator", "broker 1" or "partition orders-0"."""
        actors = self.actors()
        for actor in actors:
            if actor["name"] == name:
                return actor
        raise BrokerFailed(f"no actor {name!r}; there are: {', '.join(actor['name'] for actor in actors)}")

    # -- faults ----------------------------------------------------------------------------------

    def kill(self, name: str, *, signal_number: int = signal.SIGKILL) -> int:
        """Send a signal to one actor's process, or to the "supervisor"; returns its process id.

        Raises RuntimeFault with the names that there are if there is no such actor.
        """
        if name == "supervisor":
            os.kill(self.pid, signal_number)
            return self.pid
        from zafka.runtime.control import kill

        return kill(self.data_dir, name, signal_number)

    def kill_all(self) -> None:
        """SIGKILL every process at once, as if the machine had lost them. `start` brings them back."""
        import psutil

        process = self._running()
        root = psutil.Process(process.pid)
        doomed = [root, *root.children(recursive=True)]
        for one in doomed:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(doomed, timeout=STOP_S)
        self._forget()

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start, and return once every listed topic accepts clients. Durable data of an earlier start is served again."""
        if self.is_running():
            return self
        self._forget()
        work = self._directory = self._directory or Path(tempfile.mkdtemp(prefix="zafka-"))
        topology = work / "topology.yaml"
        topology.write_text(json.dumps({  # JSON is YAML
            "data_dir": str(self.data_dir), "brokers": [{"id": 1, **self._ports}], **self._topology}))
        ready = work / "ready.json"
        ready.unlink(missing_ok=True)
        with (work / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "zafka", "up", str(topology), "--ready-file", str(ready), "--stop-with-stdin"],
                stdin=subprocess.PIPE, stdout=log, stderr=log, env=_environment(), start_new_session=True)
        try:
            self._ready = self._wait_until_ready(ready)
        except BaseException:
            self.stop()
            raise
        self._ports = {door: int(self._told()[door].rpartition(":")[2]) for door in self._ports}
        return self

    def stop(self) -> None:
        """Stop in order, wait for the end, and remove what is temporary. Safe to call twice."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill_all()
        self._forget()
        self._sweep()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def restart(self) -> None:
        """Stop in order and start again on the same data and ports."""
        process = self._running()
        process.terminate()
        process.wait(STOP_S)
        self.start()

    def wait(self, timeout_s: float) -> int:
        """Wait until the supervisor has ended; returns its exit code. Raises subprocess.TimeoutExpired."""
        return self._running().wait(timeout_s)

    def _wait_until_ready(self, ready: Path) -> dict[str, Any]:
        process = self._running()
        deadline_s = time.monotonic() + self.start_timeout_s
        while not ready.exists():
            if process.poll() is not None:
                raise BrokerFailed(f"the broker ended with exit code {process.returncode}:\n{self._log_tail()}")
            if time.monotonic() > deadline_s:
                raise BrokerFailed(f"the broker was not up after {self.start_timeout_s} s:\n{self._log_tail()}")
            time.sleep(POLL_S)
        told: dict[str, Any] = json.loads(ready.read_text())
        return told

    def _log_tail(self) -> str:
        return self.log[-LOG_TAIL_BYTES:].strip()

    def _told(self) -> dict[str, Any]:
        if not self._ready:
            raise BrokerFailed("the broker is not running: call start(), or use it in a with statement")
        told: dict[str, Any] = self._ready["brokers"][0]
        return told

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise BrokerFailed("the broker is not running: call start(), or use it in a with statement")
        return self._process

    def _work(self) -> Path:
        if self._directory is None:
            raise BrokerFailed("the broker was not started, or it is stopped and its directory removed")
        return self._directory

    def _sweep(self) -> None:
        """Remove the sockets of a supervisor that was killed: it could not do that itself."""
        if self._directory is not None and (self.data_dir / "run.json").exists():
            run = json.loads((self.data_dir / "run.json").read_text())
            shutil.rmtree(run["run_dir"], ignore_errors=True)

    def _forget(self) -> None:
        """Let go of a process that has ended."""
        if self._process is not None:
            self._process.wait(STOP_S)
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._process = None
        self._ready = {}


def _environment() -> dict[str, str]:
    """Ours, and the way to this very package if it is not installed."""
    environment = dict(os.environ)
    home = Path(__file__).resolve().parent.parent
    if home != Path(sysconfig.get_path("purelib")).resolve():
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(home), environment.get("PYTHONPATH", "")]))
    return environment
