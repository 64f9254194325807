"""User-written actors in real processes: asking and telling, every way to die, and that nobody waits for ever."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.counter_actor import TIMEOUT_S, Counter, cpu_is_used, parent_of, status_of, wait_until
from zafka.actor import Actor, ActorFailed, ActorStopped, AskTimeout, Context, Deadlock, MailboxFull, Ref, System


@pytest.fixture
def system() -> Iterator[System]:
    with System("test", intensity=1000) as started:
        yield started


# -- asking and telling ----------------------------------------------------------------------------


def test_ask_tell_and_order(system: System) -> None:
    counter = system.spawn(Counter, 5, name="counter")
    for number in range(100):
        counter.tell(number)
    assert counter.ask(0) == 5 + sum(range(100))
    pid, _, sender = counter.ask("who")
    assert pid != os.getpid()
    assert sender is None
    assert status_of(system, counter) | {"memory_bytes": 0, "uptime_s": 0, "incarnation": 0} == {
        "name": "counter", "kind": "user", "broker": None, "pid": pid, "incarnation": 0, "restarts": 0,
        "state": "running", "mailbox": 0, "uptime_s": 0, "last_exit": "", "memory_bytes": 0}


def test_actors_ask_and_tell_each_other_by_refs_in_messages(system: System) -> None:
    first, second = system.spawn(Counter), system.spawn(Counter)
    assert first.ask(("ask", second, 4, TIMEOUT_S)) == 4
    first.ask(("tell", second, 3))
    assert second.ask(0) == 7
    assert second.ask(("later", 5)) == 7
    assert second.ask(0) == 12
    assert first.ask(("ask", second, "who", TIMEOUT_S))[2] == first
    assert first.name == "counter-1"


def test_asks_of_many_threads_find_their_own_answers(system: System) -> None:
    echo = system.spawn(Echo, name="echo")
    wrong: list[int] = []

    def run(base: int) -> None:
        wrong.extend(n for n in range(base, base + 50) if echo.ask(n, timeout=TIMEOUT_S) != n)

    threads = [threading.Thread(target=run, args=(base * 1000,)) for base in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
    assert wrong == []


class Echo(Actor):
    def on_message(self, message: Any, context: Context) -> Any:
        return message


@pytest.mark.parametrize("size", [0, 40_000, 5_000_000])
def test_large_messages(system: System, size: int) -> None:
    assert len(system.spawn(Echo).ask(bytes(size), timeout=TIMEOUT_S)) == size


def test_too_large_a_message_is_refused_here(system: System) -> None:
    with pytest.raises(ValueError, match="more than a message may have"):
        system.spawn(Echo).tell(bytes(17 * 1024 * 1024))


# -- timers, start and stop ------------------------------------------------------------------------


class Ticker(Actor):
    """Writes down what is called, into a file that outlives it."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def write(self, word: str) -> None:
        with self.path.open("a") as file:
            file.write(word + "\n")

    def on_start(self, context: Context) -> None:
        self.write("start")
        context.set_timer("never", 0.01)
        context.set_timer("tick", 0.02)
        context.cancel_timer("never")

    def on_timer(self, name: str, context: Context) -> None:
        self.write(name)

    def on_message(self, message: Any, context: Context) -> Any:
        self.write(message)

    def on_stop(self, context: Context) -> None:
        self.write("stop")


def test_timers_and_the_order_of_a_life(system: System, tmp_path: Path) -> None:
    ticker = system.spawn(Ticker, str(tmp_path / "words"), name="ticker")
    wait_until(lambda: "tick" in (tmp_path / "words").read_text() if (tmp_path / "words").exists() else False)
    ticker.ask("message")
    system.stop(ticker)
    assert (tmp_path / "words").read_text().split() == ["start", "tick", "message", "stop"]
    with pytest.raises(ActorStopped):
        ticker.tell("late")


@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
@pytest.mark.parametrize("how", ["stop", "raise"])
def test_who_is_started_again(system: System, restart: Any, how: str) -> None:
    counter = system.spawn(Counter, name="counter", restart=restart)
    before = counter.ask("who")[1]
    if how == "stop":
        counter.ask(how)
    else:
        with pytest.raises(ActorFailed):
            counter.ask(how)
    if restart == "permanent" or (restart == "transient" and how == "raise"):
        assert counter.ask("who", timeout=TIMEOUT_S)[1] > before
    else:
        wait_until(lambda: system.status() == [])
        with pytest.raises(ActorStopped, match="no actor of this name"):
            counter.ask("who")


# -- deaths ----------------------------------------------------------------------------------------


def test_the_asker_gets_the_traceback_and_the_state_starts_afresh(system: System) -> None:
    counter = system.spawn(Counter, name="counter")
    counter.ask(4)
    with pytest.raises(ActorFailed) as failed:
        counter.ask("raise")
    assert failed.value.reason == "ValueError: ('planted', 4)"
    assert 'raise ValueError("planted", self.total)' in failed.value.traceback
    assert "user_shell" not in failed.value.traceback
    assert counter.ask(1) == 1
    status = status_of(system, counter)
    assert (status["restarts"], status["last_exit"]) == (1, "ValueError: ('planted', 4)")


@pytest.mark.parametrize("how", ["kill", "exit", "fork server"])
def test_the_asker_of_one_that_is_killed_hears_of_it_and_the_others_wait(
    system: System, tmp_path: Path, how: str
) -> None:
    counter = system.spawn(Counter, name="counter")
    counter.ask(1)
    results: list[Any] = []

    def ask() -> None:
        try:
            results.append(counter.ask(("loop", str(tmp_path / "go")) if how != "exit" else "exit", timeout=TIMEOUT_S))
        except ActorFailed as error:
            results.append(error.reason)

    asking = threading.Thread(target=ask)
    asking.start()
    if how != "exit":
        wait_until(lambda: cpu_is_used(status_of(system, counter)["pid"]))
    for number in (10, 20):
        counter.tell(number)
    if how == "kill":
        assert system.kill(counter) > 0
    elif how == "fork server":
        os.kill(parent_of(status_of(system, counter)["pid"]), signal.SIGKILL)
    asking.join(TIMEOUT_S)
    expected = {"kill": "killed by SIGKILL", "exit": "exit code 3", "fork server": "died with the fork server"}
    assert results == [expected[how]]
    assert counter.ask(0, timeout=TIMEOUT_S) in (30, 31)  # 31: "exit" may come behind the tells
    assert status_of(system, counter)["restarts"] == 1


def test_an_asking_actor_hears_of_the_death_too(system: System) -> None:
    first, second = system.spawn(Counter), system.spawn(Counter)
    kind, text = first.ask(("try", second, "raise"))
    assert (kind, "planted" in text) == ("ActorFailed", True)
    assert first.ask(("try", Ref("nobody", first.system), 1))[0] == "ActorStopped"
    assert first.ask(("try", first, 1)) == ("Deadlock", "counter-1 waits for counter-1")
    with pytest.raises(ActorFailed) as failed:
        first.ask(("ask", second, ("ask", first, 1, TIMEOUT_S), TIMEOUT_S))
    assert Deadlock.__name__ in failed.value.traceback


def test_a_hung_actor_is_replaced_and_one_that_works_is_not(tmp_path: Path) -> None:
    with System("test", hung_after=2.0) as system:
        busy, working, stopped = (system.spawn(Counter, name=name) for name in ("busy", "working", "stopped"))
        stopped.ask(1)
        working.tell(("progress", str(tmp_path / "go")))
        system.kill(stopped, signal.SIGSTOP)
        with pytest.raises(ActorFailed, match=r"hung: no heartbeat for \d"):
            busy.ask(("loop", str(tmp_path / "go")), timeout=TIMEOUT_S)
        wait_until(lambda: status_of(system, stopped)["restarts"] == 1)
        assert stopped.ask(1, timeout=TIMEOUT_S) == 1
        assert status_of(system, stopped)["last_exit"].startswith("hung: no heartbeat")
        (tmp_path / "go").touch()
        assert working.ask(1, timeout=TIMEOUT_S) == 1
        assert status_of(system, working)["restarts"] == 0


def test_time_outs_tell_how_the_actor_is(system: System, tmp_path: Path) -> None:
    counter = system.spawn(Counter, name="counter")
    counter.ask(0)
    counter.tell(("progress", str(tmp_path / "go")))
    with pytest.raises(AskTimeout, match=r"counter: no answer within 0\.05 s; the actor is running, 1 messages wait"):
        counter.ask(1, timeout=0.05)
    (tmp_path / "go").touch()
    assert counter.ask(1, timeout=TIMEOUT_S) == 2  # the one that was given up was handled


def test_a_mailbox_is_bounded(system: System, tmp_path: Path) -> None:
    counter = system.spawn(Counter, name="counter", mailbox=3)
    counter.ask(0)
    counter.tell(("progress", str(tmp_path / "go")))
    for _ in range(3):
        counter.tell(1)
    for send in (counter.tell, counter.ask):
        with pytest.raises(MailboxFull, match="room is for 3"):
            send(1)
    (tmp_path / "go").touch()
    wait_until(lambda: status_of(system, counter)["mailbox"] == 0)
    assert counter.ask(0) == 3


# -- wrong uses -------------------------------------------------------------------------------------


def test_wrong_uses_are_told(system: System) -> None:
    counter = system.spawn(Counter, name="counter")
    with pytest.raises(ValueError, match="already"):
        system.spawn(Counter, name="counter")
    with pytest.raises(ValueError, match="no name"):
        system.spawn(Counter, name="a/b")
    with pytest.raises(ValueError, match="restart must be"):
        system.spawn(Counter, restart="sometimes")  # type: ignore[arg-type]
    with pytest.raises(ActorStopped, match="does not run in this process"):
        Ref("counter", "elsewhere").tell(1)
    assert "own thread only" in counter.ask(("thread", counter))
    pid = os.fork()
    if pid == 0:
        try:
            counter.tell(1)
        except RuntimeError:
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
