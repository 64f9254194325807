"""The fork server with real processes: births, deaths, and that nobody outlives the root."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.readiness import readable
from zafka.actors.start import INHERITED_FD, ActorStart, CustomStart
from zafka.runtime.fork_client import (
    Exited,
    ForkServerClient,
    ForkServerGone,
    Pong,
    Report,
    ServerReady,
    Spawned,
)

HERE = Path(__file__).parent
TIMEOUT_S = 20.0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServerClient]:
    monkeypatch.syspath_prepend(str(HERE))
    client = ForkServerClient(("zafka.actors.shell", "process_actors"))
    yield client
    if client.socket.fileno() >= 0:
        assert client.confirm_all_dead(TIMEOUT_S)


def start_of(main: str, incarnation: int = 1, **arguments: Any) -> bytes:
    start = ActorStart(
        name="partition orders-0", incarnation=incarnation, main=f"process_actors:{main}", build="",
        arguments=CustomStart(arguments), supervisor_incarnation=1, supervisor_endpoint="",
    )
    return msgspec.msgpack.encode(start)


def spawn(server: ForkServerClient, main: str, incarnation: int = 1, fds: tuple[int, ...] = (), **args: Any) -> None:
    server.spawn(incarnation, "partition orders-0", start_of(main, incarnation, **args), fds)


def reports(server: ForkServerClient, until: Callable[[Report], bool]) -> list[Report]:
    """Everything that it tells until there is a report of this kind."""
    told: list[Report] = []
    while not any(map(until, told)):
        assert readable(server.socket, TIMEOUT_S), f"nothing came after {told}"
        told += server.receive()
    return told


def first(server: ForkServerClient, kind: Callable[[Report], bool]) -> Report:
    return next(filter(kind, reports(server, kind)))


def spawned(report: Report) -> bool:
    return isinstance(report, Spawned)


def exited(report: Report) -> bool:
    return isinstance(report, Exited)


def test_exit_code_is_reported(server: ForkServerClient) -> None:
    spawn(server, "exit_with", 7, code=3)
    told = [report for report in reports(server, exited) if not isinstance(report, ServerReady)]
    assert [type(report) for report in told] == [Spawned, Exited]
    assert told[1] == Exited(7, 3)
    assert server.pidfds == {}


def test_what_a_process_is_born_with(server: ForkServerClient) -> None:
    read, write = os.pipe()
    spawn(server, "tell", 5, (write,))
    reports(server, exited)
    facts = json.loads(os.read(read, 4096))
    os.close(read)
    os.close(write)
    assert facts["title"] == "zafka partition orders-0"
    assert facts["incarnation"] == 5
    assert facts["parent"] == server.pid
    assert facts["ignores"] == [True, True]
    # Standard ones, the directory that is being listed, and the inherited one: nothing of the server leaks.
    assert facts["fds"] == [0, 1, 2, 3, INHERITED_FD]


def test_kill_reaches_this_incarnation_only(server: ForkServerClient) -> None:
    spawn(server, "wait", 1)
    spawn(server, "wait", 2)
    told = reports(server, lambda report: isinstance(report, Spawned) and report.incarnation == 2)
    assert [report.incarnation for report in told if isinstance(report, Spawned)] == [1, 2]
    server.kill(1)
    assert first(server, exited) == Exited(1, -signal.SIGKILL)
    server.kill(1)  # dead: nothing happens
    assert set(server.pidfds) == {2}


def test_uncaught_exception_is_exit_70_and_one_json_line(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    server = ForkServerClient(("zafka.actors.shell",))
    spawn(server, "fail", 9)
    assert first(server, exited) == Exited(9, 70)
    assert server.confirm_all_dead(TIMEOUT_S)
    (line,) = capfd.readouterr().err.splitlines()
    event = json.loads(line)
    assert event["actor"] == "partition orders-0"
    assert event["incarnation"] == 9
    assert event["error"] == "RuntimeError: planted"
    assert "process_actors.py" in event["exception"]


def test_a_root_that_goes_with_news_unread_leaves_it_without_a_word(
    server: ForkServerClient, capfd: pytest.CaptureFixture[str]
) -> None:
    """As one does whose topology is refused while its fork server says that it is ready."""
    assert readable(server.socket, TIMEOUT_S)
    server.socket.shutdown(socket.SHUT_RD)
    server.socket.close()
    assert readable(server.pidfd, TIMEOUT_S)
    server.socket = socket.socket()
    server.close()
    assert server.exit_code == 0
    assert capfd.readouterr().err == ""


def test_ping(server: ForkServerClient) -> None:
    number = server.ping()
    assert first(server, lambda report: isinstance(report, Pong)) == Pong(number)


def test_who_needs_no_more_is_forked_while_the_rest_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "slow_module.py").write_text(f"open({str(fifo)!r}).read()")
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.syspath_prepend(str(tmp_path))
    server = ForkServerClient(("process_actors", "zafka.actors.shell", "slow_module"))
    server.spawn(1, "late", start_of("exit_with", 1, code=1), modules=("slow_module",))
    server.spawn(2, "early", start_of("exit_with", 2, code=2), modules=("process_actors", "not_preloaded"))
    assert [report.incarnation for report in reports(server, spawned) if isinstance(report, Spawned)] == [2]
    fifo.write_text("go on")
    told = reports(server, lambda report: isinstance(report, ServerReady))
    assert [report.incarnation for report in told if isinstance(report, Spawned)] == [1]
    assert server.confirm_all_dead(TIMEOUT_S)


def test_start_larger_than_a_datagram(server: ForkServerClient) -> None:
    spawn(server, "exit_with", 1, code=0, ballast="x" * 5_000_000)
    assert first(server, exited) == Exited(1, 0)


def test_death_of_the_server_takes_all_children_with_it(server: ForkServerClient) -> None:
    spawn(server, "wait")
    reports(server, spawned)
    os.kill(server.pid, signal.SIGKILL)
    assert readable(server.pidfds[1], TIMEOUT_S), "the child lives on"
    with pytest.raises(ForkServerGone):
        while True:
            readable(server.socket, TIMEOUT_S)
            server.receive()
    assert server.confirm_all_dead(TIMEOUT_S)


ROOT = textwrap.dedent("""
    import select, signal, sys
    sys.path.insert(0, sys.argv[1])
    from test_forkserver import ForkServerClient, first, spawn, spawned
    server = ForkServerClient(("process_actors",), hung_after_s=0.3)
    spawn(server, "wait")
    child = first(server, spawned)
    print(server.pid, child.pid, flush=True)
    signal.pause()
""")


@pytest.fixture
def root() -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """A process with a fork server and one child: itself, their process ids."""
    process = subprocess.Popen([sys.executable, "-c", ROOT, str(HERE)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    server_pid, child_pid = map(int, process.stdout.readline().split())
    yield process, server_pid, child_pid
    process.kill()
    process.wait()
    process.stdout.close()


def test_nobody_outlives_the_root(root: tuple[subprocess.Popen[str], int, int]) -> None:
    process, *others = root
    pidfds = [os.pidfd_open(pid) for pid in others]
    process.kill()
    for pidfd in pidfds:
        assert readable(pidfd, 1.0), "a process is alive a second after the root's death"
        os.close(pidfd)


def test_stopped_root_is_continued(root: tuple[subprocess.Popen[str], int, int]) -> None:
    process, _, _ = root
    os.kill(process.pid, signal.SIGSTOP)
    assert os.waitid(os.P_PID, process.pid, os.WSTOPPED) is not None
    assert os.waitid(os.P_PID, process.pid, os.WCONTINUED) is not None
