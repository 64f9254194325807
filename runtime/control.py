"""Asking a running supervisor: which actors there are, to kill one, to stop. Both ends.

Owns: the requests below, JSON over ZeroMQ REQ/REP on `ipc` in the run directory (mode 0700); `run.json` in the data
directory says where. The root's end answers from what it knows and never waits; what takes time (memory of each
process) is looked up at the asker's end.
Raises NotRunning if nobody runs there or answers, Refused if the supervisor cannot do it.

    {"ask": "status"}                                      -> {"cluster", "actors": [...], ...}
    {"ask": "stop"}                                        -> {"pid": 71}
    {"ask": "fault", "fault": {"fault": "pause", ...}}     -> what `Desk.inject` says (`runtime/faults`)
    {"ask": "faults"}                                      -> {"rules": [...], "paused": [...]}
    anything else                                          -> {"error": "..."}
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import zmq

from zafka.runtime.data_dir import read_run
from zafka.runtime.errors import NotRunning, Refused
from zafka.runtime.supervisor import NEVER, Child, ChildSpec, Supervisor

if TYPE_CHECKING:
    from zafka.runtime.root import Root

ANSWER_S = 5.0
REQUESTS_PER_ROUND = 10
FORK_SERVER = "fork server"
SUPERVISOR = "supervisor"
FAULTS_NOT_ALLOWED = (
    "this cluster does not allow faults to be injected; start it with `zafka up --allow-faults`, or with 'faults: true' at "
    "the top of its topology file")


# -- the asker's end -----------------------------------------------------------------------------


def read_status(data_dir: Path, *, timeout_s: float = ANSWER_S) -> dict[str, Any]:
    """The state of the cluster that runs on this data directory.

    "actors": a list of {"name", "kind", "broker", "pid", "incarnation", "restarts", "state", "mailbox",
        "memory_bytes", "uptime_s", "last_exit", "last_exit_at"}; kind is supervisor, fork server, coordinator, broker or
        partition; memory is the proportional set size, so that the sum over all actors is what the cluster takes;
        last_exit is how the incarnation before ended, last_exit_at when (ISO 8601, UTC), both "" if none did.
    "supervisors": a list of {"name", "parent", "broker", "strategy", "intensity", "period_s", "crashes", "restarts",
        "last_exit", "last_exit_at"}; crashes is how much of the intensity is used up at the moment.
    """
    status = ask(data_dir, {"ask": "status"}, timeout_s=timeout_s)
    for actor in status["actors"]:
        actor["memory_bytes"] = memory_bytes(actor["pid"])
    return status


def stop(data_dir: Path) -> int:
    """Stop the cluster in order; returns the supervisor's process id, which is gone soon."""
    pid: int = ask(data_dir, {"ask": "stop"})["pid"]
    return pid


def ask(data_dir: Path, request: dict[str, Any], *, timeout_s: float = ANSWER_S) -> dict[str, Any]:
    """One request to the supervisor of this data directory, and its answer."""
    run = read_run(data_dir)
    if run is None:
        raise NotRunning(f"no zafka runs on {data_dir}; start one with `zafka up`")
    if not _is_alive(run["pid"]):
        raise NotRunning(f"no zafka runs on {data_dir}: process {run['pid']} is dead; start it again with `zafka up`")
    context: zmq.Context[Any] = zmq.Context()
    socket = context.socket(zmq.REQ)
    try:
        socket.setsockopt(zmq.LINGER, 0)
        try:
            socket.connect(run["control"])
        except zmq.ZMQError as error:
            raise NotRunning(f"{data_dir / 'run.json'} says {run['control']!r}: {error}") from None
        socket.send(msgspec.json.encode(request))
        if not socket.poll(int(timeout_s * 1000)):
            raise NotRunning(
                f"zafka on {data_dir} (process {run['pid']}) does not answer within {timeout_s:g} s; is it stopped?")
        answer: dict[str, Any] = msgspec.json.decode(socket.recv())
    finally:
        socket.close()
        context.term()
    if "error" in answer:
        raise Refused(answer["error"])
    return answer


def memory_bytes(pid: int) -> int:
    """Proportional set size of a process: its own pages, and its share of those it has in common; 0 if it is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass
    return 0


def process_state(pid: int) -> str:
    """The kernel's letter for what a process does, such as "S" or "T"; "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _is_alive(pid: int) -> bool:
    """A process that is dead and that its parent has not looked after yet (a zombie) is dead."""
    return process_state(pid) not in ("", "Z", "X")


# -- the root's end ------------------------------------------------------------------------------


class ControlServer:
    """Answers requests about a root."""

    def __init__(self, context: zmq.Context[Any], endpoint: str, root: Root) -> None:
        self.socket: zmq.Socket[bytes] = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 200)
        self.socket.bind(endpoint)
        self._root = root

    def answer(self) -> None:
        """Answer what has come."""
        for _ in range(REQUESTS_PER_ROUND):
            try:
                data, *more = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            # Every request gets its answer, or REP takes no further one.
            answer = {"error": "a request is one frame"} if more else self._answer(data)
            self.socket.send(msgspec.json.encode(answer))

    def close(self) -> None:
        self.socket.close()

    def _answer(self, data: bytes) -> dict[str, Any]:
        try:
            request = msgspec.json.decode(data, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return {"error": f"not a request: {error}"}
        match request:
            case {"ask": "status"}:
                return self._status()
            case {"ask": "fault", "fault": dict() as fault}:
                return self._root.desk.take(fault) if self._root.desk is not None else {"error": FAULTS_NOT_ALLOWED}
            case {"ask": "faults"}:
                return self._root.desk.listed() if self._root.desk is not None else {"error": FAULTS_NOT_ALLOWED}
            case {"ask": "stop"}:
                self._root.stop()
                return {"pid": os.getpid()}
        return {"error": f"unknown request {request.get('ask')!r}"}

    def _status(self) -> dict[str, Any]:
        root = self._root
        now_s = time.monotonic()
        common = {"broker": None, "incarnation": root.incarnation, "restarts": 0, "state": "running", "mailbox": 0,
                  "uptime_s": round(now_s - root.started_s, 3), "last_exit": "", "last_exit_at": ""}
        actors: list[dict[str, Any]] = [
            {"name": SUPERVISOR, "kind": "supervisor", "pid": os.getpid(), **common},
            {"name": FORK_SERVER, "kind": FORK_SERVER, "pid": root.server.pid, **common},
        ]
        for actor in root.tree.actors.values():
            child, running = actor.child, root.tree.running.get(actor.key)
            actors.append({
                "name": actor.name, "kind": actor.plan.kind,
                "broker": actor.plan.broker_id if actor.plan.broker_id >= 0 else None,
                "pid": running.pid if running else 0,
                "incarnation": running.incarnation if running else 0,
                "restarts": child.restarts, "state": child.shown_state,
                "mailbox": running.mailbox if running else 0,
                "uptime_s": round(now_s - running.asked_s, 3) if running else 0.0,
                **_last_exit(child, now_s),
            })
        return {"cluster": root.settings.cluster, "data_dir": str(root.settings.data_dir), "pid": os.getpid(),
                "ready": root.announced, "actors": actors,
                "supervisors": [_supervisor(each, root.tree.supervisor, now_s) for each in root.tree.supervisors()]}


def _supervisor(supervisor: Supervisor, topmost: Supervisor, now_s: float) -> dict[str, Any]:
    under = None if supervisor is topmost else topmost
    child = Child(ChildSpec(supervisor.name)) if under is None else under.children[supervisor.name]
    return {
        "name": supervisor.name, "parent": None if under is None else under.name,
        "broker": child.spec.start, "strategy": supervisor.strategy, "intensity": supervisor.limit.intensity,
        "period_s": supervisor.limit.period_s, "crashes": supervisor.crashes(now_s), "restarts": child.restarts,
        **_last_exit(child, now_s)}


def _last_exit(child: Child, now_s: float) -> dict[str, str]:
    if child.exited_s == NEVER:
        return {"last_exit": "", "last_exit_at": ""}
    at = datetime.now(UTC) - timedelta(seconds=now_s - child.exited_s)
    return {"last_exit": child.last_exit, "last_exit_at": at.isoformat(timespec="milliseconds")}
