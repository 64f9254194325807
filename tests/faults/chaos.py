"""Random SIGKILL and SIGSTOP for the processes of a real broker, from outside, by pid, from a seed."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections import Counter

import psutil

from zafka.testing import Broker

PAUSE_S = (0.05, 0.8)
STOPPED_S = (0.1, 1.5)
ACTIONS = {"kill one": 55, "stop one": 25, "kill two": 6, "kill the supervisor": 8, "kill everything": 6}
END_S = 10.0


class Chaos:
    """Call `run`; `done` counts what was done."""

    def __init__(self, broker: Broker, seed: int) -> None:
        self.broker = broker
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self._stopped: list[tuple[float, psutil.Process]] = []

    def run(self, seconds: float, failed: threading.Event) -> None:
        """Until the time is over or `failed` is set; nothing is left stopped or dead."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s and not failed.wait(self.random.uniform(*PAUSE_S)):
            self._resume(time.monotonic())
            action = self.random.choices(list(ACTIONS), list(ACTIONS.values()))[0]
            self.done[action] += 1
            match action:
                case "kill one" | "kill two":
                    self._kill(self.random.choice(self.processes()))
                    if action == "kill two" and self.broker.is_running():
                        self._kill(self.random.choice(self.processes()))
                case "stop one":
                    self._stop(self.random.choice(self.processes()))
                case "kill the supervisor":
                    self._kill(psutil.Process(self.broker.pid))
                case "kill everything":
                    self.broker.kill_all()
            self._bring_back()
        self._resume(float("inf"))
        self._bring_back()

    def processes(self) -> list[psutil.Process]:
        """All of the tree, in an order that depends on the seed only as far as pids do."""
        root = psutil.Process(self.broker.pid)
        return [root, *root.children(recursive=True)]

    def _kill(self, process: psutil.Process) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
        if process.pid == self.broker.pid:
            self.broker.wait(END_S)

    def _stop(self, process: psutil.Process) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGSTOP)
            self._stopped.append((time.monotonic() + self.random.uniform(*STOPPED_S), process))

    def _resume(self, now_s: float) -> None:
        for due_s, process in self._stopped:
            if due_s <= now_s:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)
        self._stopped = [(due_s, process) for due_s, process in self._stopped if due_s > now_s]

    def _bring_back(self) -> None:
        """If the supervisor is gone, wait for its end and start again on the same data and ports."""
        if not self.broker.is_running():
            self.done["start again"] += 1
            self.broker.start()
