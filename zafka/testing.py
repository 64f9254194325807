"""`zafka.Broker`: a real zafka on this machine, for tests and notebooks; `KafkaContainer`, the same by other names.

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
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from zafka.runtime.faults.kinds import AnyFault

# A group's first members need not wait for others, as they do for 3 s by default.
FOR_TESTS = {"group.initial.rebalance.delay.ms": 0}
STOP_S = 15.0
POLL_S = 0.005
LOG_TAIL_BYTES = 4000
_IMAGES_PREFIX = "KAFKA_"  # of the environment variables of Kafka's images


class BrokerFailed(Exception):
    """The broker did not start, or an actor that was asked for is not there."""


class Paused:
    """Processes that are stopped; as a context manager, until its end."""

    def __init__(self, broker: Broker, target: str) -> None:
        self._broker = broker
        self._target = target

    def __repr__(self) -> str:
        return f"<Paused {self._target}>"

    def resume(self) -> None:
        self._broker.resume(self._target)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.resume()


class Broker:
    """One broker with everything that belongs to it; use it as a context manager, or call `start` and `stop`.

    topics: name -> partitions, or names alone (one partition each); created before `start` returns.
    defaults: settings and topic configuration for all topics, by Kafka's names ("fsync", "segment.bytes", ...). Beside
        what is given, group.initial.rebalance.delay.ms is 0.
    data_dir: kept after `stop` if given; else a temporary one that goes with the broker.
    kafka_port, zmq_port: 0 picks free ports, which stay the same over `restart`.
    topology: further keys of the topology file, such as {"supervision": {"intensity": 100}}.
    allow_faults: whether faults can be injected. Without, nothing of them stands in the way of a record.
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
        allow_faults: bool = True,
    ) -> None:
        if isinstance(topics, str):
            raise TypeError(f"topics is a mapping or a list, not one name: write topics=[{topics!r}]")
        counts = dict(topics) if isinstance(topics, Mapping) else dict.fromkeys(topics, 1)
        self.start_timeout_s = start_timeout_s
        self._flags = ["--stop-with-stdin", *(["--allow-faults"] if allow_faults else [])]
        self._directory: Path | None = None
        self._given_data_dir = Path(data_dir).absolute() if data_dir is not None else None
        self._ready: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = {"kafka": kafka_port, "zmq": zmq_port}
        given = topology or {}
        self._topology: dict[str, Any] = {
            "cluster": "test",
            **given,
            "defaults": {**FOR_TESTS, **given.get("defaults", {}), **(defaults or {})},
            "topics": [*given.get("topics", []), *({"name": name, "partitions": count} for name, count in counts.items())],
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

        # As patient as with a start: on a machine that is busy with other tests the supervisor may take its time.
        actors: list[dict[str, Any]] = read_status(self.data_dir, timeout_s=self.start_timeout_s)["actors"]
        return actors

    def actor(self, name: str) -> dict[str, Any]:
        """One actor by its name, such as "coordinator", "broker 1" or "partition orders-0"."""
        actors = self.actors()
        for actor in actors:
            if actor["name"] == name:
                return actor
        raise BrokerFailed(f"no actor {name!r}; there are: {', '.join(actor['name'] for actor in actors)}")

    # -- faults: docs/faults.md ------------------------------------------------------------------

    def kill(self, target: str, *, signal_number: int = signal.SIGKILL) -> int:
        """Send a signal to the processes that `target` names, such as "partition orders-*"; returns one's process id.

        Raises RuntimeFault with the names that there are if there is no such actor. So do all faults.
        """
        from zafka.runtime.faults.kinds import Kill

        pids: dict[str, int] = self._inject(Kill(target=target, signal=int(signal_number)))["targets"]
        return next(iter(pids.values()))

    def pause(self, target: str, *, for_s: float | None = None) -> Paused:
        """Stop processes where they are (SIGSTOP), until `resume`, or for so many seconds.

            with broker.pause("partition orders-0"): ...        # resumed at the end of the block

        One that is silent for longer than the topology's supervision.hung_after is killed and restarted.
        """
        from zafka.runtime.faults.kinds import Pause

        self._inject(Pause(target=target, for_s=for_s))
        return Paused(self, target)

    def resume(self, target: str) -> None:
        """Let paused processes go on."""
        from zafka.runtime.faults.kinds import Resume

        self._inject(Resume(target=target))

    def drop(
        self, sender: str, receiver: str, *, probability: float = 1.0, times: int | None = None,
        for_s: float | None = None, seed: int = 0,
    ) -> int:
        """Lose mail that goes from one actor to another, in this direction only; returns the rule's number.

        sender, receiver: names or patterns, such as "broker 1" and "partition orders-*".
        times: the next so many messages; None: until it is cleared, or for_s seconds are over. So with all rules.
        """
        return self._mail("drop", sender, receiver, probability, times, for_s, seed)

    def duplicate(
        self, sender: str, receiver: str, *, probability: float = 1.0, times: int | None = None,
        for_s: float | None = None, seed: int = 0,
    ) -> int:
        """Deliver mail twice."""
        return self._mail("duplicate", sender, receiver, probability, times, for_s, seed)

    def reorder(
        self, sender: str, receiver: str, *, probability: float = 1.0, times: int | None = None,
        for_s: float | None = None, seed: int = 0,
    ) -> int:
        """Let mail be overtaken by the next."""
        return self._mail("reorder", sender, receiver, probability, times, for_s, seed)

    def delay(
        self, sender: str, receiver: str, delay_s: float, *, jitter_s: float = 0.0, probability: float = 1.0,
        times: int | None = None, for_s: float | None = None, seed: int = 0,
    ) -> int:
        """Let mail be late by delay_s, and at random by up to jitter_s more; it keeps its order."""
        return self._mail("delay", sender, receiver, probability, times, for_s, seed, delay_s, jitter_s)

    def disk_error(
        self, target: str, error: str, *, path_glob: str = "*", probability: float = 1.0, skip: int = 0,
        times: int | None = None, for_s: float | None = None, delay_s: float = 0.0, seed: int = 0,
    ) -> int:
        """Let the disk fail an actor: ENOSPC, SHORT, EIO, EIO-READ, EIO-WRITE, FSYNC, FLIP, or SLOW by delay_s.

        path_glob: of the files, such as "*.log". skip: calls that pass unharmed first.
        """
        from zafka.runtime.faults.kinds import DiskError

        return self._rule(DiskError(
            target=target, error=error, path_glob=path_glob, delay_ms=delay_s * 1000, probability=probability,
            skip=skip, times=times, for_s=for_s, seed=seed))

    def crash_at(self, target: str, point: str, *, nth: int = 1, times: int = 1) -> int:
        """Let a process end, as by SIGKILL, when it passes a point of its work for the nth time, such as "after-flush".

        The points are those that `zafka chaos crash` lists.
        """
        from zafka.runtime.faults.kinds import Crash

        return self._rule(Crash(target=target, point=point, skip=nth - 1, times=times))

    def inject_error(
        self, api: str, topic: str | None = None, error: str | None = None, *, times: int | None = None,
        delay_s: float = 0.0, close: bool = False, probability: float = 1.0, skip: int = 0,
        for_s: float | None = None, seed: int = 0,
    ) -> int:
        """Answer requests for an API with an error of Kafka's, and do not do them.

            broker.inject_error("PRODUCE", "orders", "NOT_LEADER_OR_FOLLOWER", times=3)

        topic: or a pattern; only these topics are refused, the rest of the request is done. None: all.
        delay_s: instead of an error: do it, and answer late. close: instead: close the connection and do nothing.
        """
        from zafka.runtime.faults.kinds import ApiFault

        return self._rule(ApiFault(
            api=api, topic=topic, error=error, delay_ms=delay_s * 1000, close=close, probability=probability,
            skip=skip, times=times, for_s=for_s, seed=seed))

    def clear_faults(self, *rules: int) -> None:
        """Lift these rules; without any, all of them, and resume what is paused."""
        from zafka.runtime.faults.kinds import Clear

        self._inject(Clear(ids=rules or None))

    def faults(self) -> list[dict[str, Any]]:
        """The rules in force: id, fault, its fields, how often it has hit ("hits"), seconds left ("left_s")."""
        from zafka.runtime.faults.asking import read_faults

        rules: list[dict[str, Any]] = read_faults(self.data_dir)["rules"]
        return rules

    def run_plan(
        self, plan: str | os.PathLike[str] | Mapping[str, Any], *, seed: int | None = None
    ) -> list[dict[str, Any]]:
        """Follow a fault plan to its end; returns what was done, one entry for each fault.

        plan: a YAML file, or what would stand in one. seed: above the plan's; the same one makes the same choices.
        """
        from zafka.runtime.faults.asking import inject_or_refuse
        from zafka.runtime.faults.follow import follow
        from zafka.runtime.faults.plan import load_plan

        path = self._work() / "plan.yaml" if isinstance(plan, Mapping) else Path(plan)
        if isinstance(plan, Mapping):
            path.write_text(json.dumps(plan))
        told: list[dict[str, Any]] = []
        names = [actor["name"] for actor in self.actors()]
        follow(load_plan(path), seed, names, inject_or_refuse(self.data_dir), told.append, wait=time.sleep)
        return told

    def _mail(
        self, what: str, sender: str, receiver: str, probability: float, times: int | None, for_s: float | None,
        seed: int, delay_s: float = 0.0, jitter_s: float = 0.0,
    ) -> int:
        from zafka.runtime.faults.kinds import MailFault

        return self._rule(MailFault(
            what=what, sender=sender, receiver=receiver, probability=probability, times=times, for_s=for_s, seed=seed,
            delay_ms=delay_s * 1000, jitter_ms=jitter_s * 1000))

    def _rule(self, rule: AnyFault) -> int:
        rule_id: int = self._inject(rule)["id"]
        return rule_id

    def _inject(self, fault: AnyFault) -> dict[str, Any]:
        from zafka.runtime.faults.asking import inject

        self._running()
        return inject(self.data_dir, fault)

    def kill_all(self) -> None:
        """SIGKILL every process at once, as if the machine had lost them. `start` brings them back."""
        import psutil

        process = self._running()
        root = psutil.Process(process.pid)
        doomed = [root, *root.children(recursive=True)]
        for one in doomed:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        _wait_dead(doomed)
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
                [sys.executable, "-m", "zafka", "up", str(topology), "--ready-file", str(ready), *self._flags],
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


class KafkaContainer(Broker):
    """A Broker under the names of testcontainers' class of that name, without a container.

    What belongs to containers alone (images, volumes, networks) has no meaning here.
    image: taken, and of no importance. port: the port inside of a container, likewise: it is `get_bootstrap_server` that says
        where the broker is. Everything else is `zafka.Broker`'s.
    """

    def __init__(self, image: str = "", port: int = 9093, **options: Any) -> None:
        self.image = image
        self.port = port
        super().__init__(**options)

    def with_kraft(self) -> Self:
        """There is no ZooKeeper to do without."""
        return self

    def with_env(self, key: str, value: str) -> Self:
        """A setting as Kafka's images have it: KAFKA_NUM_PARTITIONS is num.partitions. Raises ValueError for another name.

        The broker refuses at its start what it does not know.
        """
        if not key.startswith(_IMAGES_PREFIX):
            raise ValueError(f"{key} is no setting of Kafka's images: they begin with {_IMAGES_PREFIX}, such as KAFKA_NUM_PARTITIONS")
        self._topology["defaults"][key.removeprefix(_IMAGES_PREFIX).lower().replace("_", ".")] = value
        return self

    def get_bootstrap_server(self) -> str:
        """host:port for any Kafka client."""
        return self.bootstrap_servers

    def get_container_host_ip(self) -> str:
        """The host of `get_bootstrap_server`."""
        return self.bootstrap_servers.rpartition(":")[0]

    def get_exposed_port(self, port: int) -> int:
        """The port of `get_bootstrap_server`, whichever port of a container is asked for."""
        return int(self.bootstrap_servers.rpartition(":")[2])

    def start(self, timeout: float | None = None) -> Self:
        """Start, and return once clients can connect; at most `timeout` seconds, by default `start_timeout_s`."""
        if timeout is not None:
            self.start_timeout_s = timeout
        return super().start()


def _wait_dead(processes: list[Any]) -> None:
    """Until all have ended. A dead one that nobody has reaped yet holds nothing any more."""
    import psutil

    end_s = time.monotonic() + STOP_S
    while processes and time.monotonic() < end_s:
        alive = []
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                    alive.append(process)
        processes = alive
        time.sleep(POLL_S if processes else 0)


def _environment() -> dict[str, str]:
    """Ours, and the way to this very package if it is not installed."""
    environment = dict(os.environ)
    home = Path(__file__).resolve().parent.parent
    if home != Path(sysconfig.get_path("purelib")).resolve():
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(home), environment.get("PYTHONPATH", "")]))
    return environment
