"""Batches that clients hand a partition straight: the same rules as through the broker, in the same turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.drive_partition import (
    BROKER,
    NOW_MS,
    SUPERVISOR,
    TOPIC_ID,
    Partition,
    answers,
    batch,
    numbered,
    visible,
)
from zafka.actors.actor import Effect, Flush, Mail, Now, Send
from zafka.actors.direct import DIRECT, AnswerDirect, DirectProduce
from zafka.actors.messages import ActorDown, ActorUp, Advanced, BecomeLeader, ProduceAnswer, ProduceItem, Shutdown
from zafka.actors.offline import OfflinePartition
from zafka.actors.start import PartitionStart
from zafka.transport.kafka.errors import ErrorCode

EPOCH = 4


@pytest.fixture
def partition(tmp_path: Path) -> Partition:
    partition = Partition(tmp_path, {"fsync": "always"})
    partition.lead()
    partition.send(BROKER, BecomeLeader(EPOCH, partition.config))
    return partition


def direct(data: bytes, request_id: int = -1, *, epoch: int = EPOCH) -> Mail:
    return Mail(DIRECT, DirectProduce(ProduceItem(request_id, -1, len(data)), epoch), memoryview(data))


def told(effects: list[Effect]) -> list[ProduceAnswer]:
    return [answer for effect in effects if isinstance(effect, AnswerDirect) for answer in effect.answers]


def test_a_batch_is_answered_when_it_is_committed_and_readers_are_told_first(partition: Partition) -> None:
    partition.auto_flush = False
    assert told(partition.turn(direct(batch(b"a", b"b")))) == []
    effects = partition.flush()
    assert told(effects) == [ProduceAnswer(-1, 0, 0, -1, 0)]
    (advanced,) = visible(effects)
    assert advanced.high_watermark == 2
    kinds = [type(effect) for effect in effects]
    assert kinds.index(Send) < kinds.index(AnswerDirect)


def test_batches_of_both_ways_share_one_flush(partition: Partition) -> None:
    partition.auto_flush = False
    partition.turn(direct(batch(b"a")), partition.mail(batch(b"b")), direct(batch(b"c"), -2))
    assert len(partition.flushes) == 1 and isinstance(partition.flushes[0], Flush)
    effects = partition.flush()
    assert [(each.request_id, each.base_offset) for each in told(effects)] == [(-1, 0), (-2, 2)]
    assert [(each.request_id, each.base_offset) for each in answers(effects)] == [(0, 1)]


@pytest.mark.parametrize(
    ("epoch", "error"), [(EPOCH - 1, ErrorCode.FENCED_LEADER_EPOCH), (EPOCH + 1, ErrorCode.UNKNOWN_LEADER_EPOCH)])
def test_a_client_of_another_epoch_is_refused(partition: Partition, epoch: int, error: ErrorCode) -> None:
    (answer,) = told(partition.turn(direct(batch(), epoch=epoch)))
    assert (answer.error, answer.base_offset) == (error, -1)
    assert partition.partition.replica.log.end_offset == 0


def test_who_does_not_lead_refuses(tmp_path: Path) -> None:
    follower = Partition(tmp_path, {})
    follower.start()
    (answer,) = told(follower.turn(direct(batch())))
    assert answer.error == ErrorCode.NOT_LEADER_OR_FOLLOWER


def test_a_duplicate_of_the_other_way_is_answered_as_the_original_was(partition: Partition) -> None:
    partition.produce(numbered(0, 3))
    assert [each.base_offset for each in told(partition.turn(direct(numbered(0, 3)), direct(numbered(3), -2)))] == [0, 3]
    (again,) = answers(partition.produce(numbered(3)))
    assert (again.error, again.base_offset) == (0, 3)
    (gap,) = told(partition.turn(direct(numbered(9))))
    assert gap.error == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_bytes_that_are_no_batch_are_answered_and_not_written(partition: Partition) -> None:
    effects = partition.turn(direct(b"x"), direct(b"\xff" * 200, -2), direct(batch()[:-1], -3), direct(batch(b"good"), -4))
    codes = {each.request_id: each.error for each in told(effects)}
    assert codes[-4] == 0 and all(codes[each] for each in (-1, -2, -3))
    assert partition.partition.replica.log.end_offset == 1


def test_the_death_of_the_broker_takes_nothing_from_who_came_straight_here(partition: Partition) -> None:
    partition.auto_flush = False
    partition.turn(direct(batch(b"a")), partition.mail(batch(b"b")))
    partition.turn(
        direct(batch(b"c"), -2), partition.mail(batch(b"lost")),
        Mail(SUPERVISOR, ActorDown(BROKER.name, BROKER.incarnation)))
    effects = partition.flush() + partition.flush()
    assert [(each.request_id, each.error, each.base_offset) for each in told(effects)] == [(-1, 0, 0), (-2, 0, 2)]
    assert answers(effects) == [] and visible(effects) == []
    partition.auto_flush = True
    assert [each.base_offset for each in told(partition.turn(direct(batch(b"d"), -3)))] == [3]
    successor = BROKER._replace(incarnation=BROKER.incarnation + 1)
    partition.send(SUPERVISOR, ActorUp(successor.name, successor.incarnation, "ipc://x"))
    effects = partition.send(successor, BecomeLeader(EPOCH + 1, {}))
    assert [each.high_watermark for each in visible(effects)] == [4]
    (stale,) = told(partition.turn(direct(batch(b"e"), -4)))
    assert stale.error == ErrorCode.FENCED_LEADER_EPOCH


def test_a_stop_refuses_what_comes_with_it_and_answers_what_was_taken(partition: Partition) -> None:
    partition.auto_flush = False
    partition.turn(direct(batch(b"a")))
    effects = partition.turn(direct(batch(b"b"), -2), Mail(SUPERVISOR, Shutdown()))
    while partition.flushes:
        effects += partition.flush()
    assert {each.request_id: each.error for each in told(effects)} == {-1: 0, -2: ErrorCode.NOT_LEADER_OR_FOLLOWER}


def test_an_offline_partition_says_so() -> None:
    offline = OfflinePartition(PartitionStart(1, "orders", 0, TOPIC_ID, "/nowhere/orders-0", {}), "broken")
    (answer,) = told(offline.on_mail(direct(batch()), Now(1.0, NOW_MS)))
    assert (answer.error, answer.message) == (ErrorCode.KAFKA_STORAGE_ERROR, "broken")


def test_nothing_is_told_twice(partition: Partition) -> None:
    effects = partition.turn(direct(batch(b"a")))
    assert len(told(effects)) == 1 and len([each for each in effects if isinstance(each, Send) and isinstance(each.body, Advanced)]) == 1
    assert partition.turn() == []
