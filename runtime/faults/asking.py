"""The asker's end of `zafka chaos`: has a running supervisor inject faults.

Owns: `inject` and `read_faults`, requests on the control socket, and the one thing that a supervisor cannot do, which
is to answer after it was killed or stopped itself.
Raises NotRunning if nobody runs there, Refused with the supervisor's reason, among them that faults are not allowed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from zafka.runtime.control import SUPERVISOR, ask, process_state
from zafka.runtime.data_dir import read_run
from zafka.runtime.errors import NotRunning, Refused
from zafka.runtime.faults.kinds import AnyFault, FaultError, Kill, Pause, Resume

PATIENCE_S = 30.0  # where faults are injected, everything may be slow


def inject(data_dir: Path, fault: AnyFault) -> dict[str, Any]:
    """Have a fault injected; it is in force when this returns. Returns what `Desk.inject` says.

    Raises Refused if it hits nobody, too."""
    answer = _inject(data_dir, fault)
    if "missed" in answer:
        raise Refused(answer["missed"])
    return answer


def _inject(data_dir: Path, fault: AnyFault) -> dict[str, Any]:
    if isinstance(fault, Resume) and fnmatchcase(SUPERVISOR, fault.target):
        _continue_supervisor(data_dir)
    answer = ask(data_dir, {"ask": "fault", "fault": msgspec.to_builtins(fault)}, timeout_s=PATIENCE_S)
    pid = answer.pop("supervisor", None)
    if pid is not None:
        if isinstance(fault, Kill):
            _send(pid, fault.signal)
        elif isinstance(fault, Pause):
            _send(pid, signal.SIGSTOP)
            if fault.for_s is not None:
                threading.Timer(fault.for_s, _send, (pid, signal.SIGCONT)).start()
    return answer


def inject_or_refuse(data_dir: Path) -> Callable[[AnyFault], dict[str, Any]]:
    """For a schedule: what the supervisor cannot do, or that it is not there, is told and not the end."""
    def do(fault: AnyFault) -> dict[str, Any]:
        try:
            return _inject(data_dir, fault)
        except (NotRunning, Refused) as error:
            raise FaultError(str(error)) from None

    return do


def read_faults(data_dir: Path) -> dict[str, Any]:
    """What is in force: {"rules": [{"id", "fault", ..., "hits", "left_s"}], "paused": [{"name", "left_s"}]}."""
    return ask(data_dir, {"ask": "faults"})


def _continue_supervisor(data_dir: Path) -> None:
    run = read_run(data_dir)
    if run is not None and process_state(int(str(run["pid"]))) == "T":
        _send(int(str(run["pid"])), signal.SIGCONT)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
