"""The process shell: turns, flushes, timers, heartbeats and links, with a scripted actor and a clock that tests move."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from zafka.actors import shell
from zafka.actors.actor import (
    CancelTimer,
    Effects,
    Exit,
    Flush,
    Flushed,
    FlushFailed,
    Mail,
    Now,
    Peer,
    PeerGone,
    Send,
    SetTimer,
    TimerFired,
)
from zafka.actors.direct_door import DirectDoor
from zafka.actors.messages import (
    ActorDown,
    ActorUp,
    AnyMessage,
    ChildrenTold,
    Exiting,
    Heartbeat,
    ReadCluster,
    Ready,
    Shutdown,
    Started,
    WhichChildren,
)
from zafka.actors.shell import ActorRuntime, Waiter
from zafka.actors.start import PEER_GONE, SUPERVISOR, UNCAUGHT, ActorStart, CustomStart
from zafka.storage.disk import File, PosixDisk
from zafka.transport.link import Broken
from zafka.transport.mailbox import Mailbox, Received

TIMEOUT_MS = 10_000
ME = Peer("partition orders-0", 4)
BROKER = Peer("broker 1", 2)


class Scripted:
    """An actor whose answers a test writes down. seen: what it was given, "end" for the end of each turn."""

    def __init__(self) -> None:
        self.answers: dict[Any, Effects] = {}
        self.seen: list[Any] = []

    def on_start(self, now: Now) -> Effects:
        self.seen.append("start")
        return self.answers.pop("start", [])

    def on_mail(self, mail: Mail, now: Now) -> Effects:
        self.seen.append(mail.body)
        return self.answers.pop(mail.body, [])

    def on_turn_end(self, now: Now) -> Effects:
        self.seen.append("end")
        return self.answers.pop("end", [])


class LoggedDisk(PosixDisk):
    """Says what was flushed; the file named `broken` cannot be."""

    def __init__(self, said: list[str]) -> None:
        self.said = said

    def fdatasync(self, file: File) -> None:
        self.said.append(f"fdatasync {file.path.name}")
        if file.path.name == "broken":
            raise OSError(5, "Input/output error")

    def fsync_dir(self, path: Path) -> None:
        self.said.append(f"fsync_dir {path.name}")


class World:
    """One runtime with a scripted actor, between a root and a broker that are only mailboxes."""

    def __init__(self, directory: Path) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.root_endpoint = f"ipc://{directory}/root"
        self.broker_endpoint = f"ipc://{directory}/broker"
        self.root = Mailbox(self.context, SUPERVISOR, 1, AnyMessage, endpoint=self.root_endpoint)
        self.broker = Mailbox(self.context, BROKER.name, BROKER.incarnation, AnyMessage, endpoint=self.broker_endpoint)
        self.mailbox = Mailbox(self.context, ME.name, ME.incarnation, AnyMessage)
        self.mailbox.connect(SUPERVISOR, 1, self.root_endpoint)
        self.now_s = 100.0
        self.said: list[str] = []
        self.others: list[Any] = []
        self.actor = Scripted()
        self.runtime = ActorRuntime(
            start_of("process_actors:build_echo", self.root_endpoint), self.mailbox, LoggedDisk(self.said),
            clock=lambda: Now(self.now_s, 0), perform_other=self.others.append,
        )
        self.runtime.adopt(self.actor)
        self.actor.seen.clear()

    def turn(self, *bodies: Any) -> list[Any]:
        """One turn with this mail from the broker; returns what the actor has seen in it."""
        self.actor.seen.clear()
        self.runtime.turn(self.runtime.due() + [Mail(BROKER, body) for body in bodies])
        return self.actor.seen

    def close(self) -> None:
        for mailbox in (self.root, self.broker, self.mailbox):
            mailbox.close()
        self.context.term()


def start_of(build: str, endpoint: str) -> ActorStart:
    return ActorStart(
        name=ME.name, incarnation=ME.incarnation, main="zafka.actors.shell:main", build=build,
        arguments=CustomStart({}), supervisor_incarnation=1, supervisor_endpoint=endpoint, heartbeat_s=0.5,
    )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def receive(mailbox: Mailbox, until: Callable[[Any], bool] = lambda body: True) -> list[Any]:
    """Bodies that came, up to the first that fits."""
    bodies: list[Any] = []
    while not bodies or not until(bodies[-1]):
        assert zmq.zmq_poll([(socket, zmq.POLLIN) for socket in mailbox.ports()], TIMEOUT_MS), f"only {bodies}"
        bodies += [received.body for received in mailbox.receive(1)]
    return bodies


# -- turns and flushes ---------------------------------------------------------------------------


def test_turn_is_each_mail_then_its_end(world: World) -> None:
    assert world.turn(Ready(), Shutdown()) == [Ready(), Shutdown(), "end"]


def test_flush_comes_after_what_the_turn_sends_and_its_end_in_the_same_turn(world: World, tmp_path: Path) -> None:
    file = PosixDisk().open(tmp_path / "log", create=True)
    world.actor.answers = {
        Ready(): [Flush(1, (file,), (tmp_path,))],
        "end": [Send(SUPERVISOR, Started(1))],
        Flushed(1): [Flush(2, (file,))],
    }
    assert world.turn(Ready()) == [Ready(), "end", Flushed(1), "end", Flushed(2), "end"]
    assert world.said == ["fdatasync log", f"fsync_dir {tmp_path.name}", "fdatasync log"]
    assert receive(world.root) == [Started(1)]
    os.close(file.fd)


def test_failed_flush_is_told_and_not_retried(world: World, tmp_path: Path) -> None:
    file = PosixDisk().open(tmp_path / "broken", create=True)
    world.actor.answers = {Ready(): [Flush(1, (file,))]}
    seen = world.turn(Ready())
    assert seen[2] == FlushFailed(1, "[Errno 5] Input/output error")
    assert world.said == ["fdatasync broken"]
    os.close(file.fd)


def test_nothing_is_delivered_after_exit(world: World) -> None:
    world.actor.answers = {Ready(): [Exit(3, "enough"), Send(SUPERVISOR, Started(7))]}
    assert world.turn(Ready(), Shutdown()) == [Ready()]
    assert world.runtime.exit == Exit(3, "enough")
    assert receive(world.root) == [Started(7)]


def test_effects_of_other_shells_are_handed_on(world: World) -> None:
    world.actor.answers = {Ready(): ["respond"]}
    world.turn(Ready())
    assert world.others == ["respond"]


# -- timers --------------------------------------------------------------------------------------


def test_timers_fire_once_when_due(world: World) -> None:
    world.actor.answers = {"end": [SetTimer("flush", 105.0), SetTimer("linger", 103.0), SetTimer("never", 104.0)]}
    world.turn()
    world.actor.answers = {"end": [SetTimer("flush", 106.0), CancelTimer("never")]}
    world.turn()
    world.runtime.tick()
    assert world.runtime.wakeup_s() == pytest.approx(100.5)  # the next heartbeat
    world.now_s = 103.5
    world.runtime.tick()
    assert world.turn() == [TimerFired("linger"), "end"]
    world.now_s = 105.8
    world.runtime.tick()
    assert world.turn() == ["end"]
    assert world.runtime.wakeup_s() == pytest.approx(106.0)
    world.now_s = 106.0
    assert world.turn() == [TimerFired("flush"), "end"]


def test_timer_that_moves_on_every_turn_takes_no_memory(world: World) -> None:
    for count in range(10_000):
        world.actor.answers = {"end": [SetTimer("deadline", 200.0 + count)]}
        world.turn()
    assert len(world.runtime._timer_heap) <= shell.STALE_TIMERS_MAX + 2


# -- links and heartbeats ------------------------------------------------------------------------


def test_peer_that_cannot_be_reached_is_told_once(world: World) -> None:
    world.actor.answers = {Ready(): [Send(BROKER, Ready()), Send(BROKER, Ready()), Send("broker 9", Ready())]}
    world.turn(Ready())
    assert world.runtime.wakeup_s() == 0.0
    assert world.turn() == [PeerGone(BROKER), PeerGone(Peer("broker 9", 0)), "end"]
    assert world.turn() == ["end"]


def test_lost_mail_is_told_and_that_of_the_supervisor_ends_the_process(world: World) -> None:
    broken = [Received(BROKER, Broken(), memoryview(b"")), Received((SUPERVISOR, 1), Broken(), memoryview(b""))]
    world.mailbox.receive = lambda *_, **__: [broken.pop(0)]  # type: ignore[method-assign]
    assert world.runtime.receive() == [Mail(ME, PeerGone(BROKER))]
    assert world.runtime.exit is None
    assert world.runtime.receive() == []
    assert world.runtime.exit is not None and world.runtime.exit.code == PEER_GONE


def test_links_follow_what_the_supervisor_says(world: World) -> None:
    world.mailbox.send(SUPERVISOR, Started(1))
    receive(world.root)
    up = ActorUp(BROKER.name, BROKER.incarnation, world.broker_endpoint)
    assert world.root.send(ME.name, up)
    zmq.zmq_poll([(world.mailbox.ports()[0], zmq.POLLIN)], TIMEOUT_MS)
    (mail,) = world.runtime.receive()
    assert mail == Mail(Peer(SUPERVISOR, 1), up, mail.records)
    world.actor.answers = {Ready(): [Send(BROKER.name, WhichChildren())]}
    world.turn(Ready())
    assert receive(world.broker) == [WhichChildren()]
    world.root.send(ME.name, ActorDown(*BROKER))
    zmq.zmq_poll([(world.mailbox.ports()[0], zmq.POLLIN)], TIMEOUT_MS)
    world.runtime.receive()
    assert world.mailbox.incarnation_of(BROKER.name) is None


def test_the_dead_are_not_heard_behind_the_word_of_their_death_in_the_same_turn(world: World) -> None:
    world.mailbox.connect(BROKER.name, BROKER.incarnation, world.broker_endpoint)
    world.mailbox.send(BROKER, Started(1))
    world.mailbox.send(SUPERVISOR, Started(1))
    receive(world.root)
    receive(world.broker)
    world.root.send(ME.name, ActorDown(*BROKER))
    world.broker.send(ME.name, Ready())
    for port in world.mailbox.ports():
        zmq.zmq_poll([(port, zmq.POLLIN)], TIMEOUT_MS)
    world.mailbox._next = len(world.mailbox.ports()) - 1  # the supervisor's socket is drained first
    assert [mail.body for mail in world.runtime.receive()] == [ActorDown(*BROKER)]


def test_retries_wait_longer_while_nothing_moves(world: World) -> None:
    """A peer that is stuck for minutes costs next to nothing."""
    world.mailbox.connect("broker 7", 1, f"{world.root_endpoint}.nobody")
    while not world.mailbox.queued:
        assert world.mailbox.send("broker 7", Ready())
    world.runtime.tick()
    waits = []
    for _ in range(8):
        world.now_s += 0.2
        world.runtime.tick()
        world.runtime._heartbeat_at_s = 1e9
        waits.append(round(world.runtime.wakeup_s() - world.now_s, 3))
    assert waits == [0.02, 0.04, 0.08, 0.1, 0.1, 0.1, 0.1, 0.1]


def test_heartbeats_say_recovering_until_ready(world: World) -> None:
    world.runtime.progress()
    world.runtime.progress()
    assert receive(world.root) == [Heartbeat("recovering")]
    world.actor.answers = {"end": [Send(SUPERVISOR, Ready())]}
    world.turn()
    assert receive(world.root) == [Ready()]
    world.runtime.tick()
    world.now_s += 0.5
    world.runtime.tick()
    assert receive(world.root) == [Heartbeat("running")]


@pytest.mark.parametrize(("count", "least"), [(500, 12), (10, 9)])
def test_heartbeats_go_on_within_a_turn_that_takes_long(
    world: World, monkeypatch: pytest.MonkeyPatch, count: int, least: int
) -> None:
    """Questions that take long each are no hung actor, be they hundreds or a few."""
    on_mail = world.actor.on_mail
    takes_s = 10.0 / count

    def slow(mail: Mail, now: Now) -> Effects:
        world.now_s += takes_s
        return on_mail(mail, now)

    monkeypatch.setattr(world.actor, "on_mail", slow)
    world.turn(*[Shutdown()] * count)
    world.mailbox.send(SUPERVISOR, Ready())
    beats = receive(world.root, lambda body: isinstance(body, Ready))[:-1]
    assert least <= len(beats) <= 20 and set(beats) == {Heartbeat("recovering")}


# -- a whole life --------------------------------------------------------------------------------


class Life:
    """`main` in a thread. end: exit code, or the exception that came out."""

    def __init__(self, start: ActorStart) -> None:
        self.end: int | BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(start,))
        self.thread.start()

    def _run(self, start: ActorStart) -> None:
        try:
            self.end = shell.main(start)
        except ValueError as error:
            self.end = error


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Mailbox]:
    context: zmq.Context[Any] = zmq.Context()
    mailbox = Mailbox(context, SUPERVISOR, 1, AnyMessage, endpoint=f"ipc://{tmp_path}/root")
    yield mailbox
    mailbox.close()
    context.term()


def live(root: Mailbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Life:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    life = Life(start_of("process_actors:build_echo", f"ipc://{tmp_path}/root"))
    told = receive(root, lambda body: isinstance(body, Ready))
    assert told[0] == Started(os.getpid())
    assert Heartbeat("recovering") in told
    return life


def test_life_from_start_to_shutdown(root: Mailbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    life = live(root, tmp_path, monkeypatch)
    root.send(ME.name, WhichChildren())
    assert receive(root, lambda body: isinstance(body, ChildrenTold))[-1] == ChildrenTold([])
    root.send(ME.name, Shutdown())
    assert receive(root, lambda body: isinstance(body, Exiting))[-1] == Exiting(0, "shutdown")
    life.thread.join(TIMEOUT_MS / 1000)
    assert life.end == 0


def test_crash_tells_why(root: Mailbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    life = live(root, tmp_path, monkeypatch)
    root.send(ME.name, ReadCluster(17))
    last = receive(root, lambda body: isinstance(body, Exiting))[-1]
    assert last == Exiting(UNCAUGHT, "ValueError: planted at 17")
    life.thread.join(TIMEOUT_MS / 1000)
    assert isinstance(life.end, ValueError)


def test_a_waiter_tells_of_streams_and_sends_what_they_did_not_take(tmp_path: Path) -> None:
    context: zmq.Context[Any] = zmq.Context()
    endpoint = f"unix://{tmp_path}/broker"
    broker = Mailbox(context, *BROKER, AnyMessage, endpoint=endpoint)
    ours = Mailbox(context, *ME, AnyMessage)
    waiter = Waiter(ours, None)
    ours.connect(*BROKER, endpoint)
    sent = 0
    while not ours.queued:
        assert ours.send(BROKER, Started(sent), [bytes(50_000)])
        sent += 1
    came: list[Any] = []
    while len(came) < sent:
        came += [received.body for received in broker.receive(1000)]
        waiter.wait(0.0)
    assert came == [Started(number) for number in range(sent)]
    assert waiter.wait(0.0) == [], "a stream that is not blocked any more is not polled for writing"
    broker.send(ME.name, Ready())
    (ready,) = waiter.wait(TIMEOUT_MS / 1000)
    assert [received.body for received in ours.receive(10, ports=[ready])] == [Ready()]
    ours.connect("broker 7", 1, endpoint)
    assert waiter.wait(0.0) == [], "follows new ports"
    broker.close()
    ours.close()
    context.term()


def test_a_waiter_tells_of_the_door_though_mail_never_ends(tmp_path: Path) -> None:
    context: zmq.Context[Any] = zmq.Context()
    endpoint = f"unix://{tmp_path}/broker"
    broker = Mailbox(context, *BROKER, AnyMessage, endpoint=endpoint)
    ours = Mailbox(context, *ME, AnyMessage)
    ours.connect(*BROKER, endpoint)
    ours.send(BROKER, Ready())
    assert zmq.zmq_poll([(broker.ports()[0], zmq.POLLIN)], TIMEOUT_MS)
    broker.receive(1)
    while not broker.receive(1):
        pass
    for _ in range(10):
        broker.send(ME.name, Ready())
    door = DirectDoor(str(tmp_path / "door"), ME.incarnation)
    waiter = Waiter(ours, door)
    (stream,) = waiter.wait(TIMEOUT_MS / 1000)
    assert not waiter.door_is_ready
    assert len(ours.receive(1, ports=[stream])) == 1
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(door.path)
        assert waiter.wait(TIMEOUT_MS / 1000) == [stream] and waiter.door_is_ready
    door.close()
    broker.close()
    ours.close()
    context.term()


def test_a_waiter_finds_mail_whose_signal_a_send_took_away(world: World) -> None:
    """Using a ZeroMQ socket may take its descriptor's signal: it is looked at before the wait."""
    waiter = Waiter(world.mailbox, None)
    world.mailbox.send(SUPERVISOR, Started(1))
    receive(world.root)
    for number in range(20):
        assert waiter.wait(0.0) == []
        world.root.send(ME.name, Ready())
        (port,) = world.mailbox.ports()
        assert zmq.zmq_poll([(port, zmq.POLLIN)], TIMEOUT_MS)  # takes the signal, too
        world.mailbox.send(SUPERVISOR, Started(number))
        assert waiter.wait(TIMEOUT_MS / 1000) == [port]
        assert [received.body for received in world.mailbox.receive(10, ports=[port])] == [Ready()]


def test_a_broker_that_died_under_our_words_does_not_keep_the_waiter_awake(tmp_path: Path) -> None:
    context: zmq.Context[Any] = zmq.Context()
    endpoint = f"unix://{tmp_path}/broker"
    broker = Mailbox(context, *BROKER, AnyMessage, endpoint=endpoint)
    ours = Mailbox(context, *ME, AnyMessage)
    ours.connect(*BROKER, endpoint)
    (stream,) = ours.ports()
    waiter = Waiter(ours, None)
    assert waiter.wait(0.0) == []
    broker.close()
    assert ours.send(BROKER, Ready()), "mail for a dead broker is lost until the supervisor has spoken"
    assert waiter.wait(TIMEOUT_MS / 1000) == [stream]
    assert ours.receive(10, ports=[stream]) == [] and ours.ports() == []
    assert waiter.wait(0.0) == []
    assert ours.send(BROKER, Ready())
    ours.close()
    context.term()
