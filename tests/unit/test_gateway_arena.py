"""How long the broker keeps a slice of its arena: until everybody who may read it has answered or is confirmed dead."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.broker_bench import SUPERVISOR, Bench, Client, make_batch
from tests.unit.test_gateway_produce import answer, errors, produce
from zafka.actors import messages
from zafka.actors.actor import Mail, Peer, PeerGone
from zafka.actors.gateway.effects import SHELL, FramesReceived
from zafka.transport.arena import Arena, Offer
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import ProduceRequest

BATCH = make_batch(b"v" * 300)


class Lending:
    """A bench whose requests come in slices of an arena."""

    def __init__(self, directory: Path, partitions: int = 1) -> None:
        self.bench = Bench(directory).start()
        self.bench.create("t", partitions=partitions)
        for partition in range(partitions):
            self.bench.serve("t", partition)
        self.arena = Arena(bytearray(1 << 16), Offer(0, 0, 0, 0, 0), smallest=32)
        self.client: Client = self.bench.client()

    def mail(self, request: ProduceRequest) -> Mail:
        frame = self.client.mail(ApiKey.PRODUCE, 9, request).body.frames[0][1]
        slice_ = self.arena.take(len(frame))
        assert slice_ is not None
        slice_.view[:] = frame
        return Mail(SHELL, FramesReceived([(self.client.id, slice_.view, slice_)]))

    def send(self, request: ProduceRequest) -> list[messages.ProduceItem]:
        """What of it went to partitions, in the order of these."""
        self.bench.turn(self.mail(request))
        return [item for sent in self.bench.sent(messages.Produce) for item in sent.items]

    def lose_mail(self) -> Peer:
        peer = self.bench.partitions["t", 0]
        self.bench.tell(peer, PeerGone(peer))
        return peer


@pytest.fixture
def lending(tmp_path: Path) -> Lending:
    return Lending(tmp_path)


def test_a_slice_is_held_until_every_partition_of_the_request_has_answered(tmp_path: Path) -> None:
    lending = Lending(tmp_path, partitions=2)
    first, second = lending.send(produce("t", BATCH, BATCH))
    answer(lending.bench, first)
    assert lending.arena.used
    answer(lending.bench, second, partition=1)
    assert not lending.arena.used
    assert errors(lending.client.answers()[0]) == [0, 0]


@pytest.mark.parametrize("acks", [0, 1, -1])
def test_whatever_acks_a_request_wants_its_slice_is_held_and_freed(lending: Lending, acks: int) -> None:
    items = lending.send(produce("t", BATCH, acks=acks))
    assert lending.arena.used
    answer(lending.bench, *items)
    assert not lending.arena.used


def test_what_goes_to_no_partition_is_freed_at_once(lending: Lending) -> None:
    for request in (produce("none", BATCH), produce("t", BATCH, acks=7), produce("t", b"")):
        assert not lending.send(request)
        assert not lending.arena.used
    assert lending.arena.take(64)  # keeps its place; what follows is no request
    slice_ = lending.arena.take(100)
    assert slice_ is not None
    slice_.view[:] = b"\xff" * 100
    lending.bench.turn(Mail(SHELL, FramesReceived([(lending.client.id, slice_.view, slice_)])))
    assert lending.arena.used == 64


def test_an_answer_to_the_client_does_not_free_what_a_partition_may_still_read(lending: Lending) -> None:
    items = lending.send(produce("t", BATCH, timeout_ms=1_000))
    lending.bench.pass_time(1.5)
    assert errors(lending.client.answers()[0]) == [ErrorCode.REQUEST_TIMED_OUT]
    assert lending.arena.used
    answer(lending.bench, *items)
    assert not lending.arena.used


def test_nor_does_a_client_that_goes_away(lending: Lending) -> None:
    items = lending.send(produce("t", BATCH))
    lending.client.close()
    assert lending.arena.used
    answer(lending.bench, *items)
    assert not lending.arena.used


def test_a_death_that_is_confirmed_frees_what_the_dead_held(lending: Lending) -> None:
    lending.send(produce("t", BATCH))
    lending.bench.down("t")
    assert not lending.arena.used


def test_lost_mail_frees_nothing_before_the_death(lending: Lending) -> None:
    items = lending.send(produce("t", BATCH))
    peer = lending.lose_mail()
    assert errors(lending.client.answers()[0]) == [ErrorCode.REQUEST_TIMED_OUT]
    assert lending.arena.used
    answer(lending.bench, *items)  # it lives, and says so too late
    lending.bench.tell(SUPERVISOR, messages.ActorDown(peer.name, peer.incarnation - 1))
    lending.bench.serve("t", epoch=1)  # its successor
    assert lending.arena.used
    more = lending.send(produce("t", BATCH))
    used = lending.arena.used
    lending.bench.tell(SUPERVISOR, messages.ActorDown(*peer))
    assert 0 < lending.arena.used < used
    answer(lending.bench, *more)
    assert not lending.arena.used


def test_what_was_not_handed_over_is_freed_when_mail_is_lost(lending: Lending) -> None:
    lending.bench.gateway.routes.credit = len(BATCH)
    lending.bench.turn(lending.mail(produce("t", BATCH)), lending.mail(produce("t", BATCH)))
    used = lending.arena.used
    peer = lending.lose_mail()
    assert lending.arena.used == used // 2
    lending.bench.tell(SUPERVISOR, messages.ActorDown(*peer))
    assert not lending.arena.used


def test_what_waited_for_credit_until_its_time_was_up_is_freed(lending: Lending) -> None:
    lending.bench.gateway.routes.credit = len(BATCH)
    lending.bench.turn(
        lending.mail(produce("t", BATCH, timeout_ms=60_000)), lending.mail(produce("t", BATCH, timeout_ms=1_000)))
    (handed,) = lending.bench.sent(messages.Produce)
    lending.bench.pass_time(1.5)
    answer(lending.bench, *handed.items)
    assert not lending.arena.used


def test_frames_that_waited_are_freed_with_their_connection(lending: Lending) -> None:
    lending.bench.gateway.connections.limit = 1
    items = lending.send(produce("t", BATCH))
    used = lending.arena.used
    lending.send(produce("t", BATCH))  # waits, unread
    assert lending.arena.used == 2 * used
    lending.client.close()
    assert lending.arena.used == used
    answer(lending.bench, *items)
    mail = lending.mail(produce("t", BATCH))
    lending.bench.turn(mail)  # for a connection that is gone
    assert not lending.arena.used
