"""The root process with real processes and small actors: start, kills of each kind, and every way to end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.actor_signals import kill
from tests.readiness import readable
from zafka.runtime import control
from zafka.runtime.errors import NotRunning, Refused
from zafka.runtime.server_watch import ServerWatch

HERE = Path(__file__).parent
TIMEOUT_S = 20.0

UP = textwrap.dedent("""
    import json, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from zafka.runtime import root
    from zafka.runtime.errors import RuntimeFault
    from zafka.runtime.fork_client import ForkServerClient
    from zafka.runtime.settings import BrokerSettings, ListenerSettings, SupervisionSettings, TreeSettings
    from zafka.runtime.processes import Program

    directory, port, options = Path(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
    def tell(ready):
        print(json.dumps(ready), flush=True)
    def program(kind):
        return Program("zafka.actors.shell:main", f"process_actors:build_{kind}")
    server = lambda: ForkServerClient(("zafka.actors.shell", "process_actors"))
    root.launch = server
    kafka = ListenerSettings(
        name="kafka", protocol="kafka", bind_host="127.0.0.1", bind_port=port, advertise_host="127.0.0.1",
        advertise_port=port)
    settings = TreeSettings(
        cluster="test", data_dir=directory / "data", brokers=(BrokerSettings(id=1, listeners=(kafka,)),), defaults={},
        topics=(), supervision=SupervisionSettings(**options), ready_file=directory / "ready.json",
        stop_with_stdin=True)
    try:
        code = root.run(settings, tell, programs={kind: program(kind) for kind in ("coordinator", "broker", "partition")})
    except RuntimeFault as fault:
        print(f"Error: {fault}", file=sys.stderr)
        code = 1
    sys.exit(code)
""")


class Up:
    """A root in a process of its own. err: what it has written on standard error, once it has ended."""

    def __init__(self, directory: Path, *, port: int = 0, planted: str = "", **options: Any) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.err_file = directory / "err"
        environment = {**os.environ, "ZAFKA_TEST_PLANTED": planted, "XDG_RUNTIME_DIR": str(directory)}
        with self.err_file.open("ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", UP, str(HERE), str(directory), str(port), json.dumps(options)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, env=environment, text=True)

    @property
    def err(self) -> str:
        return self.err_file.read_text()

    def ready(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        assert readable(self.process.stdout, TIMEOUT_S), f"not ready: {self.err}"
        line = self.process.stdout.readline()
        assert line, f"not ready: {self.err}"
        ready: dict[str, Any] = json.loads(line)
        return ready

    def actors(self) -> dict[str, dict[str, Any]]:
        return {actor["name"]: actor for actor in control.read_status(self.data_dir)["actors"]}

    def wait_for(self, what: Callable[[dict[str, dict[str, Any]]], bool]) -> dict[str, dict[str, Any]]:
        """Ask for the status until it is as wanted."""
        for _ in range(1000):
            actors = self.actors()
            if what(actors):
                return actors
            select.select([], [], [], 0.02)
        raise AssertionError(f"not so: {actors}\n{self.err}")

    def end(self) -> int:
        return self.process.wait(TIMEOUT_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    with contextlib.ExitStack() as closing:

        def start(**options: Any) -> Up:
            started = Up(tmp_path, **options)
            closing.callback(started.close)
            return started

        yield start


def all_run(actors: dict[str, dict[str, Any]]) -> bool:
    return len(actors) == 6 and all(actor["state"] == "running" for actor in actors.values())


def pidfds(actors: dict[str, dict[str, Any]]) -> list[int]:
    return [os.pidfd_open(actor["pid"]) for actor in actors.values()]


def assert_all_dead(fds: list[int], within_s: float = 2.0) -> None:
    for fd in fds:
        assert readable(fd, within_s), "somebody lives on"
        os.close(fd)


# -- start and stop ------------------------------------------------------------------------------


def test_start_and_ordered_stop(up: Callable[..., Up], tmp_path: Path) -> None:
    tree = up()
    ready = tree.ready()
    host, _, port = ready["brokers"][0]["kafka"].rpartition(":")
    assert ready == {
        "cluster": "test", "pid": tree.process.pid, "brokers": [{"id": 1, "kafka": f"{host}:{port}", "zmq": None}],
        "dashboard": None}
    assert json.loads((tmp_path / "ready.json").read_text()) == ready
    socket.create_connection((host, int(port)), TIMEOUT_S).close()
    actors = tree.wait_for(all_run)
    assert [actor["kind"] for actor in actors.values()] == [
        "supervisor", "fork server", "coordinator", "broker", "partition", "partition"]
    assert all(actor["memory_bytes"] > 0 for actor in actors.values())
    fds = pidfds(actors)
    tree.process.terminate()
    assert tree.end() == 0
    assert_all_dead(fds)
    ended = [event["name"] for event in map(json.loads, tree.err.splitlines()) if event["event"] == "actor ended"]
    assert ended[0] == "broker 1"
    assert set(ended[1:3]) == {"partition orders-0", "partition orders-1"}
    assert ended[3] == "coordinator"
    left = {path.name for path in tmp_path.iterdir()} | {path.name for path in tree.data_dir.iterdir()}
    assert left == {"data", "err", "broker-1", "meta.properties", "incarnations", ".lock"}


@pytest.mark.parametrize("how", ["interrupt", "stdin", "control"])
def test_other_ways_to_stop(up: Callable[..., Up], how: str) -> None:
    tree = up()
    tree.ready()
    if how == "interrupt":
        tree.process.send_signal(signal.SIGINT)
    elif how == "stdin":
        assert tree.process.stdin is not None
        tree.process.stdin.close()
    else:
        assert control.stop(tree.data_dir) == tree.process.pid
    assert tree.end() == 0


def test_actor_that_does_not_stop_is_killed_in_time(up: Callable[..., Up]) -> None:
    tree = up(planted="deaf")
    tree.ready()
    fds = pidfds(tree.wait_for(all_run))
    tree.process.terminate()
    assert tree.process.wait(2.5) == 0
    assert_all_dead(fds)


def test_second_signal_stops_at_once(up: Callable[..., Up]) -> None:
    tree = up(planted="deaf")
    tree.ready()
    fds = pidfds(tree.wait_for(all_run))
    tree.process.send_signal(signal.SIGINT)
    tree.process.send_signal(signal.SIGTERM)
    assert tree.process.wait(1.0) in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    assert_all_dead(fds)


# -- kills ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["coordinator", "broker 1", "partition orders-1"])
def test_killed_actor_comes_back_as_a_new_incarnation(up: Callable[..., Up], name: str) -> None:
    tree = up()
    tree.ready()
    before = tree.wait_for(all_run)
    assert kill(tree.data_dir, name) == before[name]["pid"]
    after = tree.wait_for(lambda actors: all_run(actors) and actors[name]["pid"] != before[name]["pid"])
    assert after[name]["incarnation"] > max(actor["incarnation"] for actor in before.values())
    assert after[name]["restarts"] == 1
    assert after[name]["last_exit"] == "killed by SIGKILL"
    others = before.keys() - {name}
    assert {other: after[other]["pid"] for other in others} == {other: before[other]["pid"] for other in others}


def test_death_of_the_fork_server_restarts_everything(up: Callable[..., Up]) -> None:
    tree = up()
    tree.ready()
    before = tree.wait_for(all_run)
    fds = pidfds({name: actor for name, actor in before.items() if name != "supervisor"})
    os.kill(before["fork server"]["pid"], signal.SIGKILL)
    assert_all_dead(fds)
    after = tree.wait_for(all_run)
    assert not {actor["pid"] for actor in before.values()} & {
        actor["pid"] for name, actor in after.items() if name != "supervisor"}


def test_fork_server_killed_over_and_over_comes_back(up: Callable[..., Up]) -> None:
    """Also before it is ready: kills from outside are weather."""
    tree = up()
    tree.ready()
    tree.wait_for(all_run)
    for _ in range(3):
        pid = kill(tree.data_dir, "fork server")
        tree.wait_for(lambda actors, pid=pid: actors["fork server"]["pid"] != pid)  # type: ignore[misc]
    tree.wait_for(all_run)


def test_fork_server_that_cannot_import_ends_the_start(up: Callable[..., Up], tmp_path: Path) -> None:
    tree = up(planted="import")
    assert tree.end() == 1
    assert tree.err.splitlines()[-1] == (
        "Error: the process that forks actors ended before it was ready; its error stands above")


def test_stopped_processes_come_back(up: Callable[..., Up]) -> None:
    """SIGSTOP: the fork server is continued, an actor that hangs is replaced."""
    tree = up(heartbeat_s=0.1, hung_after_s=0.6)
    tree.ready()
    before = tree.wait_for(all_run)
    os.kill(before["fork server"]["pid"], signal.SIGSTOP)
    os.kill(before["partition orders-0"]["pid"], signal.SIGSTOP)
    after = tree.wait_for(
        lambda actors: all_run(actors) and actors["partition orders-0"]["pid"] != before["partition orders-0"]["pid"])
    assert after["partition orders-0"]["last_exit"].startswith("hung: no heartbeat for")


def test_all_stopped_at_once_come_back(up: Callable[..., Up]) -> None:
    """Nobody's heartbeat wakes the root then, and it must not take its own pauses for a time in which it did not run."""
    tree = up(heartbeat_s=0.5, hung_after_s=1.0)
    tree.ready()
    before = tree.wait_for(all_run)
    names = before.keys() - {"supervisor", "fork server"}
    for name in names:
        kill(tree.data_dir, name, signal.SIGSTOP)
    for fd in pidfds({name: before[name] for name in names}):
        assert readable(fd, TIMEOUT_S), "a stopped actor was not killed"
        os.close(fd)
    tree.wait_for(all_run)


def test_stopped_root_forgives_silence(up: Callable[..., Up]) -> None:
    tree = up(heartbeat_s=0.1, hung_after_s=0.5)
    tree.ready()
    before = tree.wait_for(all_run)
    os.kill(tree.process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, tree.process.pid, os.WSTOPPED)
    os.waitid(os.P_PID, tree.process.pid, os.WCONTINUED)  # by the fork server
    after = tree.wait_for(all_run)
    assert {name: actor["pid"] for name, actor in after.items()} == {
        name: actor["pid"] for name, actor in before.items()}


def test_killed_root_takes_all_with_it_and_starts_again(up: Callable[..., Up], tmp_path: Path) -> None:
    tree = up()
    port = int(tree.ready()["brokers"][0]["kafka"].rpartition(":")[2])
    before = tree.wait_for(all_run)
    tree.process.kill()
    again = up(port=port)  # at once: it waits for what is dying
    again.ready()
    after = again.wait_for(all_run)
    assert min(actor["incarnation"] for actor in after.values()) > max(
        actor["incarnation"] for actor in before.values())
    assert len(list(tmp_path.glob("zafka-run-*"))) == 1, "the dead one's run directory was not swept"


# -- failures ------------------------------------------------------------------------------------


def test_second_start_on_one_data_directory_is_refused(up: Callable[..., Up]) -> None:
    tree = up()
    tree.ready()
    second = up()
    assert second.end() == 1
    assert f"{tree.data_dir} is in use by process {tree.process.pid}" in tree.err
    tree.wait_for(all_run)


def test_port_in_use(up: Callable[..., Up]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        tree = up(port=port)
        assert tree.end() == 1
    assert f"broker 1's kafka listener: 127.0.0.1:{port} is in use by another process" in tree.err


def test_crash_loop_ends_the_tree_with_the_reason(up: Callable[..., Up]) -> None:
    """The partition's supervisor gives up and is restarted, until the root's own gives up too."""
    tree = up(planted="crash", intensity=1, backoff_initial_s=0.001)
    assert tree.end() == 1
    last = tree.err.splitlines()[-1]
    assert last.startswith(
        "Error: supervision gave up and stopped everything: more than 1 crashes within 60 s: supervisor of broker 1 "
        "(2 times); the last, of supervisor of broker 1: more than 1 crashes within 60 s: partition orders-1 (2 times); "
        f"the last, of partition orders-1: RuntimeError: planted crash. What was acknowledged is kept under {tree.data_dir}")
    assert len([line for line in tree.err.splitlines() if line.startswith("Error")]) == 1


def test_refused_topology_is_told_as_it_is(up: Callable[..., Up]) -> None:
    tree = up(planted="78")
    assert tree.end() == 1
    assert tree.err.splitlines()[-1] == "Error: coordinator: planted reason"


def test_disk_fault_of_the_coordinator_refuses_the_next_start(up: Callable[..., Up]) -> None:
    tree = up(planted="74")
    assert tree.end() == 1
    assert "planted reason" in tree.err.splitlines()[-1]
    again = up()
    assert again.end() == 1
    assert "then `zafka log recover __cluster-0 --data-dir" in again.err.splitlines()[-1]
    (tree.data_dir / "DISK_FAULT").unlink()
    healed = up()
    healed.ready()


def test_foreign_data_is_refused(up: Callable[..., Up], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").write_text("version=1\ncluster.id=x\nnode.id=1\n")
    tree = up()
    assert tree.end() == 1
    assert "is Apache Kafka's, not zafka's" in tree.err


# -- the fork server's health ----------------------------------------------------------------------


class Watched:
    """What a watch does to a fork server."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def ping(self) -> None:
        self.done.append("ping")

    def signal_server(self, number: signal.Signals) -> None:
        self.done.append(number.name)


def watch(answers: Callable[[float], bool], *, until_s: float, runs: Callable[[float], bool]) -> list[str]:
    server = Watched()
    watched = ServerWatch(10.0, now_s=0.0)
    now_s = 0.0
    while now_s < until_s:
        now_s += 0.5
        if runs(now_s):
            watched.tick(server, True, now_s)  # type: ignore[arg-type]
            if answers(now_s):
                watched.on_pong()
    return server.done


def test_fork_server_that_answers_is_left_alone() -> None:
    assert set(watch(lambda now_s: True, until_s=60, runs=lambda now_s: True)) == {"ping"}


def test_fork_server_that_does_not_answer_is_continued_then_killed() -> None:
    assert watch(lambda now_s: False, until_s=11, runs=lambda now_s: True) == ["ping", "SIGCONT", "SIGKILL"]


def test_silence_of_the_fork_server_is_forgiven_when_we_did_not_run() -> None:
    stopped = range(2, 60)
    done = watch(lambda now_s: now_s > 61, until_s=63, runs=lambda now_s: int(now_s) not in stopped)
    assert set(done) == {"ping"}


# -- control -------------------------------------------------------------------------------------


def test_control_refuses_what_it_cannot_do(up: Callable[..., Up], tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="no zafka runs on"):
        control.read_status(tmp_path)
    tree = up()
    tree.ready()
    with pytest.raises(Refused, match="unknown request 'tea'"):
        control.ask(tree.data_dir, {"ask": "tea"})
    tree.process.kill()
    os.waitid(os.P_PID, tree.process.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(NotRunning, match="is dead"):
        control.read_status(tree.data_dir)  # its parent has not looked after it yet
    tree.process.wait()
    with pytest.raises(NotRunning, match="is dead"):
        control.read_status(tree.data_dir)
