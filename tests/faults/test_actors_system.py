"""Systems of user-written actors in real processes: how they give up, close and die, what survives, whom they trust."""

from __future__ import annotations

import ast
import os
import select
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import zafka
from tests.faults.counter_actor import TIMEOUT_S, Counter, cpu_is_used, parent_of, status_of, wait_until
from zafka.actor import Actor, ActorFailed, ActorStopped, Context, System, SystemFailed
from zafka.runtime import actor_system

ROOT = Path(__file__).resolve().parent.parent.parent


# -- the whole system ------------------------------------------------------------------------------


class BadStart(Actor):
    def on_start(self, context: Context) -> None:
        raise RuntimeError("planted start")


def test_a_crash_loop_ends_the_system_with_a_clear_word_and_nobody_waits() -> None:
    with pytest.raises(SystemFailed, match=r"bad.*planted start"), System(intensity=2, backoff=0.001) as system:
        good = system.spawn(Counter, name="good")
        bad = system.spawn(BadStart, name="bad")
        with pytest.raises(ActorStopped, match="planted start"):
            bad.ask(1, timeout=TIMEOUT_S)
        with pytest.raises(ActorStopped, match="planted start"):
            good.ask(1, timeout=TIMEOUT_S)


@pytest.mark.parametrize(
    ("strategy", "expected"), [("one_for_one", "b"), ("rest_for_one", "bc"), ("one_for_all", "abc")])
def test_strategies(strategy: Any, expected: str) -> None:
    with System(strategy=strategy) as system:
        actors = [system.spawn(Counter, name=name) for name in "abc"]
        before = {ref.name: ref.ask("who")[0] for ref in actors}
        system.kill(actors[1])
        wait_until(lambda: status_of(system, actors[1])["pid"] not in (0, before["b"]))
        after = {ref.name: ref.ask("who", timeout=TIMEOUT_S)[0] for ref in actors}
        assert "".join(name for name in "abc" if before[name] != after[name]) == expected


def test_a_fork_server_that_cannot_import_ends_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor_system, "PRELOAD", ("no_such_module",))
    with pytest.raises(SystemFailed, match="ended before it was ready"), System() as system:
        counter = system.spawn(Counter, name="counter")
        with pytest.raises(ActorStopped, match="ended before it was ready"):
            counter.ask(1, timeout=TIMEOUT_S)


def test_close_is_bounded_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    before = threading.active_count()
    system = System(stop_timeout=0.5).start()
    (directory,) = tmp_path.glob("zafka-run-*")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    deaf = system.spawn(Counter, name="deaf", stop_timeout=60.0)
    deaf.tell(("loop", str(tmp_path / "never")))
    wait_until(lambda: status_of(system, deaf)["pid"] != 0 and cpu_is_used(status_of(system, deaf)["pid"]))
    pid = status_of(system, deaf)["pid"]
    pidfds = [os.pidfd_open(each) for each in (pid, parent_of(pid))]
    system.close()
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], 0)[0], "somebody lives on"
        os.close(pidfd)
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == before
    with pytest.raises(ActorStopped, match="closed"):
        deaf.ask(1)


def test_nobody_outlives_the_program(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from zafka.actor import Actor, System\n"
        "class Mine(Actor):\n"  # of __main__: travels by value
        "    def on_message(self, message, context): return os.getpid(), os.getppid()\n"
        "system = System().start()\n"
        "print(*system.spawn(Mine).ask(0, timeout=20), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n")
    program = subprocess.run(
        [sys.executable, "-c", script], check=False, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(tmp_path)})
    assert program.returncode == -signal.SIGKILL
    pids = list(map(int, program.stdout.split()))
    assert len(pids) == 2
    for _ in range(50):
        if not any(is_alive(pid) for pid in pids):
            return
        threading.Event().wait(0.02)
    raise AssertionError("an actor is alive a second after its program's death")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_package_knows_the_module() -> None:
    names = subprocess.run(
        [sys.executable, "-c", "import zafka; print(zafka.actor.System.__module__, 'actor' in dir(zafka))"], check=True,
        stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert names.stdout.split() == ["zafka.actor", "True"]


# -- with a broker ---------------------------------------------------------------------------------


class Journal(Actor):
    """Keeps its state in a topic: what it was told is there again after any death."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.lines: list[bytes] = []

    def on_start(self, context: Context) -> None:
        self.producer = zafka.Producer(self.bootstrap)
        with zafka.Consumer("journal", bootstrap_servers=self.bootstrap, auto_offset_reset="earliest") as consumer:
            (end,) = consumer.end_offsets([("journal", 0)]).values()
            while len(self.lines) < end:
                self.lines += [record.value for record in consumer.poll(1.0) if record.value is not None]

    def on_message(self, message: Any, context: Context) -> Any:
        if message == b"crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if message:
            self.producer.send("journal", message).result(TIMEOUT_S)
            self.lines.append(message)
        return self.lines


def test_state_that_is_kept_in_a_topic_survives() -> None:
    with zafka.Broker(["journal"]) as broker, System() as system:
        journal = system.spawn(Journal, broker.zmq_bootstrap_servers)
        journal.ask(b"one", timeout=TIMEOUT_S)
        with pytest.raises(ActorFailed, match="SIGKILL"):
            journal.ask(b"crash", timeout=TIMEOUT_S)
        assert journal.ask(b"two", timeout=TIMEOUT_S) == [b"one", b"two"]


def test_the_example_runs() -> None:
    example = subprocess.run(
        [sys.executable, "examples/actors.py"], check=True, cwd=ROOT, timeout=60, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert example.stdout.splitlines() == [
        "thank you; there are 12 in the till", "till died over the message: killed by SIGKILL",
        "thank you; there are 42 in the till"]


# -- trust -----------------------------------------------------------------------------------------


def test_nothing_unpickles_but_actors_and_their_owner() -> None:
    """The processes of `zafka up`, and whatever reads a network, never do."""
    found = set()
    for folder in ("actors", "runtime", "storage", "transport", "zafka"):
        for file in (ROOT / folder).rglob("*.py"):
            names: set[str] = set()
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    names |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    names.add(node.module or "")
            if names & {"pickle", "cloudpickle", "marshal", "shelve", "dill", "multiprocessing"}:
                found.add(file.resolve().relative_to(ROOT).as_posix())
    assert found == {"actors/user_shell.py", "zafka/actor.py"}
