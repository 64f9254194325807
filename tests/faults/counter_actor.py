"""A user-written actor that the tests of actors command, and what they look at from outside."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zafka
from zafka.actor import Actor, Context, Ref, System

TIMEOUT_S = 20.0


class Counter(Actor):
    """Adds up; and does whatever else a test asks it to."""

    def __init__(self, total: int = 0) -> None:
        self.total = total

    def on_message(self, message: Any, context: Context) -> Any:
        match message:
            case int():
                self.total += message
            case "raise":
                raise ValueError("planted", self.total)
            case "exit":
                os._exit(3)
            case "stop":
                context.stop("enough")
            case "who":
                return os.getpid(), context.incarnation, context.sender
            case ("ask", Ref() as ref, inner, float() as timeout):
                return ref.ask(inner, timeout=timeout)
            case ("try", Ref() as ref, inner):
                try:
                    return ref.ask(inner, timeout=TIMEOUT_S)
                except zafka.ZafkaError as error:
                    return type(error).__name__, str(error)
            case ("tell", Ref() as ref, inner):
                ref.tell(inner)
            case ("later", inner):
                context.me.tell(inner)
            case ("loop", str() as path):
                while not Path(path).exists():  # busy: neither heartbeats nor mail
                    pass
            case ("progress", str() as path):
                while not Path(path).exists():
                    context.progress()
            case ("thread", Ref() as ref):
                return in_thread(lambda: ref.tell(1))
        return self.total


def in_thread(function: Callable[[], Any]) -> str:
    """What it raises in another thread."""
    raised: list[str] = []

    def run() -> None:
        try:
            function()
        except RuntimeError as error:
            raised.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(TIMEOUT_S)
    return " ".join(raised)


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        threading.Event().wait(0.02)
    raise AssertionError("it does not come true")


def status_of(system: System, ref: Ref) -> dict[str, Any]:
    return next(actor for actor in system.status() if actor["name"] == ref.name)


def cpu_is_used(pid: int) -> bool:
    """Whether it is in its busy loop."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) > 10


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
