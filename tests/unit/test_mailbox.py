"""Mailboxes over real sockets, ZeroMQ's and streams: order, incarnations, and peers that are slow, gone or replaced."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from zafka.transport import mailbox as mailbox_module
from zafka.transport.envelope import INLINE_BYTES_MAX
from zafka.transport.mailbox import Mailbox, Received, has_mail
from zafka.transport.stream import Acceptor, Stream

TIMEOUT_MS = 10_000
RECORDS = bytes(200)


class Note(msgspec.Struct, array_like=True, frozen=True, tag=1):
    text: str


class Count(msgspec.Struct, array_like=True, frozen=True, tag=2):
    number: int


Body = Note | Count
Make = Callable[..., Mailbox]


@pytest.fixture(params=["ipc", "unix"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(tmp_path: Path, scheme: str) -> Iterator[Make]:
    """Makes mailboxes; one with `inbox=True` binds `tmp_path/<name>.<incarnation>`."""
    context: zmq.Context[Any] = zmq.Context()
    made: list[Mailbox] = []

    def make(name: str, incarnation: int = 1, *, inbox: bool = False) -> Mailbox:
        endpoint = f"{scheme}://{tmp_path}/{name}.{incarnation}" if inbox else ""
        made.append(Mailbox(context, name, incarnation, Body, endpoint=endpoint))
        return made[-1]

    yield make
    for mailbox in made:
        mailbox.close()
    context.term()


@pytest.fixture
def dial(tmp_path: Path, scheme: str) -> Callable[..., None]:
    def dial(dialler: Mailbox, name: str, incarnation: int = 1) -> None:
        dialler.connect(name, incarnation, f"{scheme}://{tmp_path}/{name}.{incarnation}")

    return dial


def wait(mailbox: Mailbox) -> bool:
    """Until something has come."""
    return bool(zmq.zmq_poll([(port, zmq.POLLIN) for port in mailbox.ports()], TIMEOUT_MS))


def receive(mailbox: Mailbox, count: int = 1) -> list[Received]:
    received: list[Received] = []
    while len(received) < count:
        assert any(map(has_mail, mailbox.ports())) or wait(mailbox), f"only {received} came"
        received += mailbox.receive(1000)
    return received


def bodies(received: list[Received]) -> list[Any]:
    return [message.body for message in received]


def test_there_and_back(make: Make, dial: Callable[..., None]) -> None:
    broker, partition = make("broker", 3, inbox=True), make("partition", 8)
    dial(partition, "broker", 3)
    assert partition.send("broker", Note("up"))
    (message,) = receive(broker)
    assert message == Received(("partition", 8), Note("up"), memoryview(b""))
    assert broker.send(("partition", 8), Count(1))
    assert broker.send("partition", Count(2))
    assert receive(partition, 2)[1] == Received(("broker", 3), Count(2), memoryview(b""))


@pytest.mark.parametrize("sizes", [[], [0], [5], [INLINE_BYTES_MAX], [INLINE_BYTES_MAX + 1], [3, 4, 5], [40_000, 40_000]])
def test_records_arrive_as_one_piece(make: Make, dial: Callable[..., None], sizes: list[int]) -> None:
    broker, partition = make("broker", inbox=True), make("partition")
    dial(partition, "broker")
    records = [memoryview(bytes([index]) * size) for index, size in enumerate(sizes)]
    assert partition.send("broker", Note("records"), records)
    assert partition.send("broker", Note("behind"))
    first, second = receive(broker, 2)
    assert isinstance(first.records, memoryview)
    assert bytes(first.records) == b"".join(records)
    assert bytes(second.records) == b""


def test_order_and_limits(make: Make, dial: Callable[..., None]) -> None:
    broker, partition = make("broker", inbox=True), make("partition")
    dial(partition, "broker")
    for number in range(100):
        assert partition.send("broker", Count(number), [bytes(1000)])
    assert bodies(receive(broker, 100)) == [Count(number) for number in range(100)]
    for number in range(100):
        partition.send("broker", Count(number), [bytes(1000)])
    wait(broker)
    assert len(broker.receive(1)) == 1
    assert len(broker.receive(100, bytes_max=1)) == 1
    assert len(receive(broker, 98)) == 98


def test_nobody_there(make: Make, dial: Callable[..., None]) -> None:
    broker = make("broker", inbox=True)
    assert not broker.send("partition", Note("hello?"))
    assert not broker.send(("partition", 1), Note("hello?"))
    assert broker.incarnation_of("partition") is None


def test_mail_for_the_predecessor_never_reaches_the_successor(make: Make, dial: Callable[..., None]) -> None:
    """Queued for broker 1 which never answered; then broker 2 is up."""
    partition = make("partition")
    dial(partition, "broker", 1)
    assert partition.send("broker", Note("for the first"))
    second = make("broker", 2, inbox=True)
    dial(partition, "broker", 2)
    assert not partition.send(("broker", 1), Note("for the first"))
    assert partition.send("broker", Note("for the second"))
    assert bodies(receive(second)) == [Note("for the second")]


def test_wrong_incarnation_is_dropped_and_counted(make: Make, tmp_path: Path, scheme: str) -> None:
    broker, partition = make("broker", 2, inbox=True), make("partition")
    partition.connect("broker", 1, f"{scheme}://{tmp_path}/broker.2")  # a mistake that the envelope uncovers
    other = make("other")
    other.connect("broker", 2, f"{scheme}://{tmp_path}/broker.2")
    assert partition.send("broker", Note("stale"))
    assert other.send("broker", Note("good"))
    received = receive(broker)
    while broker.stale == 0:
        wait(broker)
        received += broker.receive(10)
    assert bodies(received) == [Note("good")]
    assert broker.stale == 1


def test_mail_from_the_dead_is_dropped(make: Make, dial: Callable[..., None], scheme: str) -> None:
    broker, old, new = make("broker", inbox=True), make("partition", 1), make("partition", 2)
    dial(old, "broker")
    old.send("broker", Note("in time"))
    receive(broker)
    old.send("broker", Note("last words"))
    wait(broker)
    broker.forget("partition", 1)  # its death was confirmed before the mail was read
    assert broker.receive(10) == []
    assert broker.stale == (1 if scheme == "ipc" else 0)  # a stream goes with what it brought
    assert not broker.send("partition", Note("anybody?"))
    dial(new, "broker")
    new.send("broker", Note("successor"))
    assert receive(broker) == [Received(("partition", 2), Note("successor"), memoryview(b""))]
    broker.forget("partition", 1)  # an old obituary does not concern the successor
    assert broker.send("partition", Note("welcome"))


def test_successor_heard_before_the_obituary(make: Make, dial: Callable[..., None]) -> None:
    broker, old, new = make("broker", inbox=True), make("partition", 1), make("partition", 2)
    dial(old, "broker")
    dial(new, "broker")
    old.send("broker", Note("old"))
    receive(broker)
    new.send("broker", Note("new"))
    receive(broker)
    assert not broker.send(("partition", 1), Note("too late"))
    old.send("broker", Note("ghost"))
    new.send("broker", Note("again"))
    received = receive(broker)
    assert Note("ghost") not in bodies(received)


def test_peer_that_hung_up_is_unreachable(make: Make, dial: Callable[..., None]) -> None:
    broker, partition = make("broker", inbox=True), make("partition")
    dial(partition, "broker")
    partition.send("broker", Note("up"))
    receive(broker)
    partition.close()
    while broker.send("partition", Note("there?")):
        pass  # until the socket has noticed; the queue is bounded in any case


def test_slow_peer_gets_everything_later_and_in_order(make: Make, dial: Callable[..., None]) -> None:
    """Far more than the kernel and ZeroMQ queue: the rest waits with us, nothing is dropped."""
    broker, partition = make("broker", inbox=True), make("partition")
    dial(partition, "broker")
    partition.send("broker", Note("up"))
    receive(broker)
    count = 5000
    for number in range(count):
        assert broker.send("partition", Count(number), [RECORDS])
    assert broker.queued > 0
    received: list[Received] = []
    while len(received) < count:
        broker.retry()
        received += partition.receive(1000)
    assert bodies(received) == [Count(number) for number in range(count)]
    assert broker.queued == 0


def test_stuck_peer_is_bounded(make: Make, dial: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox_module, "QUEUE_MESSAGES_MAX", 10)
    partition, _ = make("partition"), make("broker", inbox=True)  # which never reads
    dial(partition, "broker")
    sent = 0
    while partition.send("broker", Count(sent)):
        sent += 1
    assert partition.queued == 10
    partition.forget("broker", 1)
    assert partition.queued == 0


def test_stuck_peer_is_bounded_in_bytes(
    make: Make, dial: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox_module, "HIGH_WATER_MARK", 1)
    monkeypatch.setattr(mailbox_module, "QUEUE_BYTES_MAX", 1_000_000)
    partition, _ = make("partition"), make("broker", inbox=True)
    dial(partition, "broker")
    records = [bytes(400_000)]
    while partition.send("broker", Note("large"), records):
        pass
    assert partition.queued == 2


def test_graves_are_bounded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox_module, "GRAVES_MAX", 5)
    broker = make("broker", inbox=True)
    for number in range(20):
        broker.forget(f"partition {number}", 1)
    assert len(broker._dead) == 5


def test_a_stream_that_nobody_reads_takes_up_again(tmp_path: Path) -> None:
    """What the kernel did not take leaves when there is room, in order, without another `send`."""
    context: zmq.Context[Any] = zmq.Context()
    endpoint = f"unix://{tmp_path}/broker"
    broker = Mailbox(context, "broker", 1, Body, endpoint=endpoint)
    partition = Mailbox(context, "partition", 1, Body)
    partition.connect("broker", 1, endpoint)
    (stream,) = partition.ports()
    assert isinstance(stream, Stream)
    count = 0
    while not partition.queued:
        assert partition.send("broker", Count(count), [bytes(50_000)])
        count += 1
    assert stream.blocked
    received: list[Received] = []
    while len(received) < count:
        received += broker.receive(1000)
        partition.drain(stream)
    assert bodies(received) == [Count(number) for number in range(count)]
    assert not stream.blocked and not partition.queued
    broker.close()
    partition.close()
    context.term()


def test_who_dials_when_there_is_no_descriptor_left_is_taken_in_later(tmp_path: Path) -> None:
    context: zmq.Context[Any] = zmq.Context()
    endpoint = f"unix://{tmp_path}/broker"
    broker = Mailbox(context, "broker", 1, Body, endpoint=endpoint)
    known, late = (Mailbox(context, name, 1, Body) for name in ("known", "late"))
    known.connect("broker", 1, endpoint)
    assert known.send("broker", Note("here"))
    assert bodies(receive(broker)) == [Note("here")]
    late.connect("broker", 1, endpoint)
    assert late.send("broker", Note("late"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)  # whatever is opened next gets this number, or a higher one
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        assert broker.receive(10) == [] and "open files" in broker.full
        # Who is not taken in does not wake us for ever, and the others are heard.
        assert not any(isinstance(port, Acceptor) for port in broker.ports())
        assert known.send("broker", Note("still here"))
        assert bodies(receive(broker)) == [Note("still here")]
        broker.pulse()
        assert broker.receive(10) == [] and broker.full
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    broker.pulse()
    assert bodies(receive(broker)) == [Note("late")]
    assert not broker.full and any(isinstance(port, Acceptor) for port in broker.ports())
    for mailbox in (known, late, broker):
        mailbox.close()
    context.term()


def test_a_dialled_broker_that_died_is_quiet_until_its_successor(tmp_path: Path) -> None:
    """As with a DEALER: mail for it is lost, and the supervisor's word is awaited."""
    context: zmq.Context[Any] = zmq.Context()
    partition = Mailbox(context, "partition", 1, Body)
    first = Mailbox(context, "broker", 1, Body, endpoint=f"unix://{tmp_path}/1")
    partition.connect("broker", 1, f"unix://{tmp_path}/1")
    assert partition.send("broker", Note("up"))
    assert bodies(receive(first)) == [Note("up")]
    first.send("partition", Note("last words"))
    first.close()
    assert bodies(receive(partition)) == [Note("last words")]
    while partition.ports():
        wait(partition)
        partition.receive(1)
    assert partition.send("broker", Note("lost"))
    partition.forget("broker", 1)
    second = Mailbox(context, "broker", 2, Body, endpoint=f"unix://{tmp_path}/2")
    partition.connect("broker", 2, f"unix://{tmp_path}/2")
    assert partition.send("broker", Note("again"))
    assert bodies(receive(second)) == [Note("again")]
    second.close()
    partition.close()
    context.term()
