"""Mail that is lost, late, doubled and overtaken, over real sockets: what the other end sees of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from zafka.runtime.faults.board import Board, Watch
from zafka.runtime.faults.kinds import MailFault
from zafka.runtime.faults.mail import OVERTAKEN_S, FaultyMailbox
from zafka.transport.link import Broken
from zafka.transport.mailbox import Mailbox

TIMEOUT_S = 10.0


class Count(msgspec.Struct, array_like=True, frozen=True, tag=1):
    number: int


class Other(msgspec.Struct, array_like=True, frozen=True, tag=2):
    number: int


class Edge:
    """A faulty `broker 1` that sends to a plain `partition orders-0`. now_s: the clock of what is held back."""

    def __init__(self, directory: Path) -> None:
        self.now_s = 0.0
        self.board = Board(directory / "faults")
        self.watch = Watch(self.board.folder, "broker 1")
        self.context: zmq.Context[Any] = zmq.Context()
        self.sender = FaultyMailbox(
            self.context, "broker 1", 1, Count | Other, watch=self.watch, clock=lambda: self.now_s)
        self.receiver = Mailbox(self.context, "partition orders-0", 1, Count | Other, endpoint=f"ipc://{directory}/in")
        self.sender.connect("partition orders-0", 1, f"ipc://{directory}/in")

    def close(self) -> None:
        self.sender.close()
        self.receiver.close()
        self.context.term()
        self.watch.close()
        self.board.close()

    def rule(self, what: str, **fields: Any) -> int:
        return self.board.post(MailFault(what=what, sender="broker *", receiver="partition *", **fields)).id

    def send(self, *numbers: int) -> None:
        for number in numbers:
            assert self.sender.send("partition orders-0", Count(number), [bytes([number])])

    def receive(self, until: int) -> list[Any]:
        """Numbers, and "broken", until this number has come."""
        found: list[Any] = []
        deadline_s = time.monotonic() + TIMEOUT_S
        while until not in found:
            assert time.monotonic() < deadline_s, f"only {found} came"
            zmq.zmq_poll([(socket, zmq.POLLIN) for socket in self.receiver.ports()], 100)
            for message in self.receiver.receive(1000):
                broken = isinstance(message.body, Broken)
                found.append("broken" if broken else message.body.number)
                assert broken or bytes(message.records) == bytes([message.body.number])
        return found


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    edge = Edge(tmp_path)
    yield edge
    edge.close()


def test_without_rules_nothing_happens(edge: Edge) -> None:
    edge.send(1, 2, 3)
    assert edge.receive(3) == [1, 2, 3]
    assert (edge.sender.queued, edge.sender.release_s) == (0, float("inf"))


def test_what_is_dropped_is_a_gap_for_the_other_end(edge: Edge) -> None:
    edge.send(1)
    rule = edge.rule("drop")
    edge.send(2, 3)
    edge.board.remove([rule])
    edge.send(4)
    assert edge.receive(4) == [1, "broken", 4]


def test_only_the_next_so_many(edge: Edge) -> None:
    edge.send(0)
    edge.sender.pulse()
    edge.rule("drop", times=2)
    edge.sender.pulse()  # goes out, and through: the link's own mail is not what was meant
    edge.send(1, 2, 3)
    assert edge.receive(3) == [0, "broken", 3]


def test_a_loss_at_the_end_is_found_by_the_next_pulse(edge: Edge) -> None:
    edge.send(1)
    edge.rule("drop", times=1)
    edge.send(2)
    for _ in range(3):
        edge.sender.pulse()
    assert edge.receive("broken") == [1, "broken"]  # type: ignore[arg-type]


def test_what_is_doubled_comes_once(edge: Edge) -> None:
    edge.rule("duplicate")
    edge.send(1, 2, 3)
    assert edge.receive(3) == [1, 2, 3]
    assert edge.receiver.repeated >= 2  # the last copy may be on its way


def test_what_is_overtaken_is_a_gap_and_then_late(edge: Edge) -> None:
    edge.rule("reorder", times=1)
    edge.send(1, 2, 3)
    assert edge.receive(3) == ["broken", 2, 3]
    assert edge.receiver.repeated == 1


def test_what_nothing_overtakes_leaves_after_a_while(edge: Edge) -> None:
    edge.rule("reorder", times=1)
    edge.send(1)
    assert edge.sender.queued == 1
    edge.now_s = OVERTAKEN_S
    edge.sender.release()
    assert edge.receive(1) == [1]


def test_what_is_late_keeps_its_order_and_holds_up_what_is_behind(edge: Edge) -> None:
    edge.rule("delay", delay_ms=100, times=1)
    edge.send(1, 2, 3)
    assert (edge.sender.queued, edge.sender.release_s) == (3, 0.1)
    edge.now_s = 0.099
    edge.sender.release()
    assert edge.sender.queued == 3
    edge.now_s = 0.1
    edge.sender.retry()
    assert edge.sender.queued == 0
    edge.send(4)
    assert edge.receive(4) == [1, 2, 3, 4]


def test_jitter_is_between_none_and_all_of_it(edge: Edge) -> None:
    edge.rule("delay", delay_ms=100, jitter_ms=50)
    due_s = []
    for number in range(20):
        edge.send(number)
        due_s.append(edge.sender._held[edge.sender._links["partition orders-0"]].late[-1].due_s)
    assert due_s == sorted(due_s)
    assert all(0.1 <= each <= 0.15 for each in due_s)
    assert len(set(due_s)) > 1


def test_what_is_held_for_one_incarnation_never_reaches_the_next(edge: Edge, tmp_path: Path) -> None:
    edge.rule("delay", delay_ms=100, times=1)
    edge.send(1)
    edge.sender.forget("partition orders-0", 1)
    successor = Mailbox(edge.context, "partition orders-0", 2, Count | Other, endpoint=f"ipc://{tmp_path}/in2")
    edge.receiver.close()
    edge.receiver = successor
    edge.sender.connect("partition orders-0", 2, f"ipc://{tmp_path}/in2")
    edge.now_s = 1.0
    edge.sender.release()
    assert edge.sender.queued == 0
    edge.send(2)
    assert edge.receive(2) == [2]


def test_rules_are_for_one_direction_and_the_actors_they_name(edge: Edge) -> None:
    edge.board.post(MailFault(what="drop", sender="partition *", receiver="broker *"))
    edge.board.post(MailFault(what="drop", sender="broker 1", receiver="partition other-*"))
    edge.send(1)
    assert edge.receive(1) == [1]


def test_more_than_can_be_held_is_lost(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zafka.runtime.faults.mail.HELD_MAX", 3)
    edge.rule("delay", delay_ms=100)
    edge.send(1, 2, 3, 4, 5)
    assert edge.sender.queued == 3
    edge.now_s = 0.1
    edge.sender.release()
    edge.rule("delay", delay_ms=0.001)
    assert edge.receive(3) == [1, 2, 3]


