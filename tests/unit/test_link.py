"""Links under loss, repetition and late mail: what arrives is in order and once, or both ends are told.

RELIABILITY, faults 2. The wire is ours: it drops, doubles and swaps what one mailbox hands to ZeroMQ.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
import zmq
from hypothesis import given, strategies as st

from zafka.transport.envelope import Buffer
from zafka.transport.link import Arrival, Broken, Numbers
from zafka.transport.mailbox import Mailbox

WAIT_MS = 10_000
WIRE = ("send", "drop", "twice", "hold")


class Note(msgspec.Struct, array_like=True, frozen=True, tag=1):
    number: int


class FaultyWire(Mailbox):
    """plan: what becomes of the next messages, in order; then all are sent. held: leave after the next one."""

    plan: list[str]
    held: list[Any]

    def _hand_over(self, link: Any, head: bytes, records: Buffer | None) -> None:
        do = self.plan.pop(0) if self.plan else "send"
        if do == "drop":
            return
        if do == "hold":
            self.held.append((head, records))
            return
        for _ in range(2 if do == "twice" else 1):
            super()._hand_over(link, head, records)
        held, self.held = self.held, []
        for late in held:
            super()._hand_over(link, *late)


class Ends:
    """`ours` has dialled `theirs`; each hands over what it received."""

    def __init__(self, directory: Path) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        endpoint = f"ipc://{directory}/theirs"
        self.theirs = Mailbox(self.context, "theirs", 1, Note, endpoint=endpoint)
        self.ours = FaultyWire(self.context, "ours", 1, Note)
        self.ours.plan, self.ours.held = [], []
        self.ours.connect("theirs", 1, endpoint)
        self.got: dict[str, list[Any]] = {"ours": [], "theirs": []}

    def send(self, *numbers: int, plan: list[str]) -> None:
        self.ours.plan = list(plan)
        for number in numbers:
            assert self.ours.send("theirs", Note(number))

    def settle(self) -> None:
        """Heartbeats and mail until both ends have confirmed all that the other sent."""
        while not self.is_settled():
            for name, mailbox in (("ours", self.ours), ("theirs", self.theirs)):
                mailbox.pulse()
                sockets = [(socket, zmq.POLLIN) for socket in mailbox.ports()]
                if zmq.zmq_poll(sockets, 5):
                    self.got[name] += [each.body for each in mailbox.receive(1000)]

    def is_settled(self) -> bool:
        links = [*self.ours._links.values(), *self.theirs._links.values()]
        return len(links) == 2 and all(link.numbers.sent == link.numbers.seen for link in links)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()
        self.context.term()


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    made = Ends(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("plan", "theirs"),
    [
        ([], [Note(1), Note(2), Note(3)]),
        (["send", "twice"], [Note(1), Note(2), Note(3)]),
        (["send", "drop"], [Note(1), Broken(), Note(3)]),
        (["drop"], [Broken(), Note(2), Note(3)]),
        (["drop", "drop"], [Broken(), Note(3)]),
        (["send", "send", "drop"], [Note(1), Note(2), Broken()]),  # found by a pulse: nothing came behind it
        (["drop", "drop", "drop"], [Broken()]),
        (["send", "drop", "drop", "drop", "drop", "drop"], [Note(1), Broken()]),  # the first pulses are lost, too
        (["hold"], [Broken(), Note(2), Note(3)]),  # 1 comes behind 2, too late
        (["send", "hold", "twice"], [Note(1), Broken(), Note(3)]),
    ],
)
def test_mail_is_in_order_and_once_or_both_ends_are_told(ends: Ends, plan: list[str], theirs: list[Any]) -> None:
    ends.send(1, 2, 3, plan=plan)
    ends.settle()
    assert ends.got["theirs"] == theirs
    assert ends.got["ours"] == [Broken()] * theirs.count(Broken())
    assert ends.theirs.gaps == theirs.count(Broken())


@pytest.mark.parametrize("seed", range(20))
def test_any_wire(ends: Ends, seed: int) -> None:
    random = Random(seed)
    numbers = range(50)
    ends.send(*numbers, plan=random.choices(WIRE, (8, 1, 1, 1), k=60))
    ends.settle()
    got, ours = ends.got["theirs"], ends.got["ours"]
    came = [each.number for each in got if each != Broken()]
    assert came == sorted(set(came))
    assert got.count(Broken()) == ours.count(Broken())
    told = [index for index, each in enumerate(got) if each == Broken()]
    gaps = sum(later != before + 1 for before, later in zip([-1, *came], [*came, len(numbers)], strict=True))
    assert len(told) >= gaps if gaps else not told


def test_an_idle_link_that_is_confirmed_sends_nothing(ends: Ends) -> None:
    ends.send(1, plan=[])
    ends.settle()
    sockets = [(socket, zmq.POLLIN) for socket in (*ends.ours.ports(), *ends.theirs.ports())]
    while zmq.zmq_poll(sockets, 50):  # answers to pulses that crossed
        assert not ends.ours.receive(10) and not ends.theirs.receive(10)
    for _ in range(5):
        ends.ours.pulse()
        ends.theirs.pulse()
    assert not zmq.zmq_poll(sockets, 20)
    assert ends.got["theirs"] == [Note(1)]


@given(st.lists(st.integers(1, 12), max_size=40))
def test_numbers_that_come_in_any_order(arrivals: list[int]) -> None:
    numbers = Numbers()
    fresh: list[int] = []
    for number in arrivals:
        arrival = numbers.take(number)
        if arrival is Arrival.LATE:
            assert number <= fresh[-1]
            continue
        assert (arrival is Arrival.GAP) == (number != (fresh[-1] if fresh else 0) + 1)
        fresh.append(number)
    assert fresh == sorted(set(fresh))
