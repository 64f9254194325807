"""Record bytes that lie in an arena do not travel between mailboxes; what lies elsewhere does, and so without a map."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from structlog.testing import capture_logs

from tests.unit.test_mailbox import Body, Note, receive
from tests.unit.test_shell import World
from zafka.actors import broker_shell
from zafka.transport.arena import Offer, Slice
from zafka.transport.mailbox import Mailbox, Received
from zafka.transport.shared_memory import SharedArena

MIB = 1 << 20


class Pair:
    """A broker with an arena, and a partition that dials it."""

    def __init__(self, directory: Path) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.endpoint = f"ipc://{directory}/b"
        self.arena = SharedArena(4 * MIB)
        self.broker = Mailbox(self.context, "broker", 1, Body, endpoint=self.endpoint)
        self.broker.arena = self.arena
        self.partition = Mailbox(self.context, "partition", 5, Body)

    def meet(self) -> None:
        """The broker hears of the partition, which maps what it is offered before it takes anything else."""
        self.partition.connect("broker", 1, self.endpoint)
        self.partition.send("broker", Note("up"))
        receive(self.broker)
        self.broker.send("partition", Note("lead"))
        receive(self.partition)
        self.partition.send("broker", Note("leading"))
        receive(self.broker)

    def take(self, data: bytes) -> Slice:
        slice_ = self.arena.take(len(data))
        assert slice_ is not None
        slice_.view[:] = data
        return slice_

    def close(self) -> None:
        for mailbox in (self.broker, self.partition):
            mailbox.close()
        self.context.term()
        self.arena.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.close()


def sent(pair: Pair, piece: Any) -> Received:
    assert pair.broker.send("partition", Note("records"), (piece,))
    (received,) = receive(pair.partition)
    assert received.body == Note("records")
    return received


def test_a_peer_reads_records_where_they_lie(pair: Pair) -> None:
    pair.meet()
    slice_ = pair.take(bytes(range(250)) * 400)
    received = sent(pair, slice_.view[10:90_000])
    assert received.records == slice_.view[10:90_000] and received.records.readonly
    slice_.view[10] = 77
    assert received.records[0] == 77  # the same memory, which is why nobody may reuse it yet


def test_other_bytes_travel(pair: Pair) -> None:
    pair.meet()
    for piece in (bytes(100), memoryview(bytearray(b"x") * 100_000)):
        assert sent(pair, piece).records == piece
    slice_ = pair.take(b"y" * 50_000)
    assert pair.broker.send("partition", Note("joined"), (slice_.view[:40_000], slice_.view[:3]))
    (received,) = receive(pair.partition)
    assert received.records == b"y" * 40_003
    slice_.view[:] = bytes(50_000)
    assert received.records == b"y" * 40_003


def test_before_the_peer_has_mapped_it_record_bytes_travel(pair: Pair) -> None:
    pair.partition.connect("broker", 1, pair.endpoint)
    pair.partition.send("broker", Note("up"))
    receive(pair.broker)
    slice_ = pair.take(b"z" * 50_000)
    received = sent(pair, slice_.view)
    slice_.view[:] = bytes(50_000)
    assert received.records == b"z" * 50_000


def test_a_peer_that_cannot_map_it_is_sent_the_bytes_and_says_why(pair: Pair) -> None:
    def refuse(offer: Offer) -> memoryview:
        raise PermissionError("not here")

    pair.partition.map_arena = refuse
    pair.meet()
    slice_ = pair.take(b"z" * 50_000)
    received = sent(pair, slice_.view)
    slice_.view[:] = bytes(50_000)
    assert received.records == b"z" * 50_000
    assert pair.partition.unmapped == "not here"


def test_the_next_incarnation_of_either_end_agrees_anew(pair: Pair, tmp_path: Path) -> None:
    pair.meet()
    pair.broker.forget("partition", 5)
    pair.partition.close()
    pair.partition = Mailbox(pair.context, "partition", 6, Body)
    pair.meet()
    slice_ = pair.take(b"6" * 50_000)
    assert sent(pair, slice_.view).records == slice_.view
    arena, before = pair.arena, pair.broker
    pair.arena = SharedArena(4 * MIB)
    pair.endpoint = f"ipc://{tmp_path}/b2"
    pair.broker = Mailbox(pair.context, "broker", 2, Body, endpoint=pair.endpoint)
    pair.broker.arena = pair.arena
    pair.partition.connect("broker", 2, pair.endpoint)
    pair.partition.send("broker", Note("up"))
    receive(pair.broker)
    pair.broker.send("partition", Note("lead"))
    receive(pair.partition)
    pair.partition.send("broker", Note("leading"))
    receive(pair.broker)
    slice_ = pair.take(b"2" * 50_000)
    received = sent(pair, slice_.view)
    slice_.view[0] = 3
    assert bytes(received.records[:2]) == b"\x032"
    before.close()
    arena.close()


def test_lent_bytes_count_for_the_limit_of_a_turn(pair: Pair) -> None:
    pair.meet()
    slice_ = pair.take(bytes(MIB))
    for _ in range(3):
        pair.broker.send("partition", Note("large"), (slice_.view,))
    pair.broker.send("partition", Note("last"))
    received: list[Received] = []
    turns = 0
    while len(received) < 4:
        zmq.zmq_poll([(socket, zmq.POLLIN) for socket in pair.partition.ports()], 10_000)
        received += pair.partition.receive(1000, MIB)
        turns += 1
    assert turns >= 3


def test_the_shell_says_once_that_an_arena_could_not_be_mapped(tmp_path: Path) -> None:
    world = World(tmp_path)
    try:
        world.mailbox.unmapped = "no /proc here"
        with capture_logs() as logs:
            for _ in range(2):
                world.now_s += 1.0
                world.runtime.tick()
        assert [(each["log_level"], each["reason"]) for each in logs] == [("warning", "no /proc here")]
    finally:
        world.close()


def test_a_machine_without_memory_files_has_no_arena_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, flags: int) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", refuse)
    with capture_logs() as logs:
        assert broker_shell._make_arena(MIB) is None
    assert [(each["log_level"], each["bytes"]) for each in logs] == [("warning", MIB)]
    assert broker_shell._make_arena(0) is None
