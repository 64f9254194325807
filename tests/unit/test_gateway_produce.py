"""Produce: gathering, credit, errors, what is answered when a partition dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.broker_bench import BROKER_ID, SUPERVISOR, Bench, Client, make_batch, topic_id
from zafka.actors import cluster_state as cs, messages
from zafka.actors.actor import Mail
from zafka.actors.gateway.effects import SHELL, CloseConnection, Respond, TellWay, WayAsked
from zafka.storage.codecs import ZSTD
from zafka.storage.records import encode_batch
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import PartitionProduceData, ProduceRequest, TopicProduceData

SMALL = make_batch(b"v")


def produce(
    topic: str, *batches: bytes | None, acks: int = -1, timeout_ms: int = 30_000, transactional_id: str | None = None,
    id_of: str | None = None,
) -> ProduceRequest:
    """Each batch to the partition of its place. id_of: the topic of the id, if that is to be another one."""
    data = [
        PartitionProduceData(index, None if batch is None else memoryview(batch))
        for index, batch in enumerate(batches)]
    return ProduceRequest(transactional_id, acks, timeout_ms, [
        TopicProduceData(topic_id(id_of or topic), topic, data)])


def answer(bench: Bench, *items: messages.ProduceItem, partition: int = 0, error: int = 0, offset: int = 0) -> None:
    answers = [messages.ProduceAnswer(item.request_id, error, offset + i, -1, 2) for i, item in enumerate(items)]
    bench.tell(bench.partitions["t", partition], messages.Produced(answers))


def errors(response: Any) -> list[int]:
    return [part.error_code for topic in response.responses for part in topic.partition_responses]


@pytest.mark.parametrize("version", range(3, 14))
def test_a_batch_goes_to_its_partition_as_it_came_and_is_answered(tmp_path: Path, version: int) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    client.send(ApiKey.PRODUCE, version, produce("t", SMALL))
    (send,) = bench.sends(messages.Produce)
    assert send.to == bench.partitions["t", 0]
    assert b"".join(send.records) == SMALL
    assert [(item.acks, item.size) for item in send.body.items] == [(-1, len(SMALL))]
    answer(bench, *send.body.items, offset=42)
    (response,) = client.answers()
    part = response.responses[0].partition_responses[0]
    assert (part.error_code, part.base_offset, part.log_append_time_ms) == (0, 42, -1)
    assert part.log_start_offset == (2 if version >= 5 else -1)


def test_the_small_batches_of_a_turn_are_one_message_per_partition(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    clients = [bench.client() for _ in range(3)]
    bench.turn(*(client.mail(ApiKey.PRODUCE, 9, produce("t", make_batch(bytes([i]))))
                 for i, client in enumerate(clients)))
    (send,) = bench.sends(messages.Produce)
    assert len(send.body.items) == 3
    assert b"".join(send.records) == b"".join(make_batch(bytes([i])) for i in range(3))
    answer(bench, *send.body.items)
    assert len(bench.of(Respond)) == 3
    assert [client.answers()[0].responses[0].partition_responses[0].base_offset for client in clients] == [0, 1, 2]


def test_a_large_batch_travels_alone_and_keeps_its_place(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    large = make_batch(bytes(40_000))
    bench.turn(*(client.mail(ApiKey.PRODUCE, 9, produce("t", batch)) for batch in (SMALL, large, SMALL, SMALL)))
    sends = bench.sends(messages.Produce)
    assert [len(send.body.items) for send in sends] == [1, 1, 2]
    assert [send.body.items[0].request_id for send in sends] == sorted(send.body.items[0].request_id for send in sends)
    (records,) = sends[1].records
    assert isinstance(records, memoryview) and records == large


def test_beyond_the_credit_batches_wait_in_order(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    bench.gateway.routes.credit = 2 * len(SMALL)
    client = bench.client()
    bench.turn(*(client.mail(ApiKey.PRODUCE, 9, produce("t", make_batch(bytes([i])))) for i in range(5)))
    (first,) = bench.sent(messages.Produce)
    assert len(first.items) == 2
    answer(bench, first.items[0])
    assert len(client.answers()) == 1
    (send,) = bench.sends(messages.Produce)
    assert b"".join(send.records) == make_batch(b"\2")
    answer(bench, first.items[1], *send.body.items)
    assert len(client.answers()) == 2
    (send,) = bench.sends(messages.Produce)
    assert b"".join(send.records) == make_batch(b"\3") + make_batch(b"\4")


def test_a_batch_larger_than_the_credit_still_goes(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    bench.gateway.routes.credit = 10
    bench.client().send(ApiKey.PRODUCE, 9, produce("t", SMALL))
    assert bench.sent(messages.Produce)


def test_errors_that_are_known_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    bench.create("starting")
    client = bench.client()

    def ask(request: ProduceRequest, version: int = 9) -> list[int]:
        return errors(client.ask(ApiKey.PRODUCE, version, request))

    assert ask(produce("none", SMALL)) == [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    assert ask(produce("starting", SMALL)) == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
    assert ask(produce("starting", SMALL, SMALL)) == [
        ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    assert ask(produce("t", SMALL, acks=2)) == [ErrorCode.INVALID_REQUIRED_ACKS]
    assert ask(produce("t", None)) == [ErrorCode.INVALID_RECORD]
    assert ask(produce("t", b"")) == [ErrorCode.INVALID_RECORD]
    assert ask(produce("t", SMALL, transactional_id="x")) == [ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED]
    zstd = encode_batch([(1, None, b"v" * 100, [])], codec=ZSTD)
    assert ask(produce("t", zstd), version=6) == [ErrorCode.UNSUPPORTED_COMPRESSION_TYPE]


def test_zstd_is_taken_from_version_7_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    zstd = encode_batch([(1, None, b"v" * 100, [])], codec=ZSTD)
    bench.client().send(ApiKey.PRODUCE, 7, produce("t", zstd))
    assert bench.sent(messages.Produce)


def test_a_partition_that_dies_leaves_what_it_had_in_doubt(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    bench.gateway.routes.credit = len(SMALL)
    client = bench.client()
    bench.turn(*(client.mail(ApiKey.PRODUCE, 9, produce("t", SMALL)) for _ in range(2)))
    bench.down("t")
    handed_over, kept = client.answers()
    # Perhaps written; surely not written.
    assert errors(handed_over) == [ErrorCode.REQUEST_TIMED_OUT]
    assert errors(kept) == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
    assert errors(client.ask(ApiKey.PRODUCE, 9, produce("t", SMALL))) == [ErrorCode.NOT_LEADER_OR_FOLLOWER]


def test_what_came_in_the_turn_of_the_death_was_not_handed_over(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    bench.turn(
        client.mail(ApiKey.PRODUCE, 9, produce("t", SMALL)),
        Mail(SUPERVISOR, messages.ActorDown(*bench.partitions["t", 0])))
    assert not bench.sent(messages.Produce)
    assert [errors(each) for each in client.answers()] == [[ErrorCode.NOT_LEADER_OR_FOLLOWER]]


def test_a_request_ends_with_its_timeout_and_a_late_answer_is_passed_over(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    client.send(ApiKey.PRODUCE, 9, produce("t", SMALL, timeout_ms=1_500))
    (handed,) = bench.sent(messages.Produce)
    assert not bench.of(Respond)
    bench.pass_time(1.4)
    assert not bench.of(Respond)
    bench.pass_time(0.2)
    assert [errors(each) for each in client.answers()] == [[ErrorCode.REQUEST_TIMED_OUT]]
    answer(bench, *handed.items)
    assert not bench.of(Respond)
    route = bench.gateway.routes.find("t", 0)
    assert route is not None and not route._owed and not route._owed_bytes


def test_a_batch_whose_time_is_up_before_there_was_credit_is_never_handed_over(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    bench.gateway.routes.credit = len(SMALL)
    client = bench.client()
    bench.turn(
        client.mail(ApiKey.PRODUCE, 9, produce("t", SMALL, timeout_ms=60_000)),
        client.mail(ApiKey.PRODUCE, 9, produce("t", SMALL, timeout_ms=1_000)))
    (handed,) = bench.sent(messages.Produce)
    bench.pass_time(1.5)
    answer(bench, *handed.items)
    assert not bench.sent(messages.Produce)
    assert [errors(each) for each in client.answers()] == [[0], [ErrorCode.REQUEST_TIMED_OUT]]


def test_acks_0_is_not_answered(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    client.send(ApiKey.PRODUCE, 9, produce("t", SMALL, acks=0))
    (handed,) = bench.sent(messages.Produce)
    answer(bench, *handed.items)
    assert not bench.of(Respond) and not bench.of(CloseConnection)
    assert bench.gateway.connections.held == 0


def test_a_failed_acks_0_closes_the_connection(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    client: Client = bench.client()
    client.send(ApiKey.PRODUCE, 9, produce("none", SMALL, acks=0))
    client.answers()
    assert "UNKNOWN_TOPIC_OR_PARTITION" in client.closed


def test_the_partition_s_message_reaches_the_client(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    client.send(ApiKey.PRODUCE, 9, produce("t", SMALL))
    (handed,) = bench.sent(messages.Produce)
    refusal = messages.ProduceAnswer(handed.items[0].request_id, ErrorCode.INVALID_RECORD, -1, -1, 0, "no magic")
    bench.tell(bench.partitions["t", 0], messages.Produced([refusal]))
    (response,) = client.answers()
    part = response.responses[0].partition_responses[0]
    assert (part.error_code, part.error_message) == (ErrorCode.INVALID_RECORD, "no magic")


def of_producer(sequence: int, *, epoch: int = 0) -> bytes:
    return encode_batch(
        [(1_000, None, b"v", [])], producer_id=7, producer_epoch=epoch, base_sequence=sequence)


def test_nothing_of_a_producer_overtakes_its_batch_that_was_turned_away(tmp_path: Path) -> None:
    """KIP-360 lets an unknown producer begin anywhere, so that the retry of its first batch would be out of order."""
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    bench.down("t")
    assert errors(client.ask(ApiKey.PRODUCE, 9, produce("t", of_producer(0)))) == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
    bench.serve("t", epoch=1)
    for too_early in (1, 2):
        refused = client.ask(ApiKey.PRODUCE, 9, produce("t", of_producer(too_early)))
        assert errors(refused) == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
    assert not bench.sent(messages.Produce)
    for sequence in (0, 1):
        client.send(ApiKey.PRODUCE, 9, produce("t", of_producer(sequence)))
        assert len(bench.sent(messages.Produce)) == 1


def test_a_gap_of_an_older_epoch_or_of_long_ago_holds_nobody_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    for epoch, wait_s, sequence in ((0, 0.0, 0), (1, 60.0, 3)):
        client = bench.client()
        bench.down("t")
        client.ask(ApiKey.PRODUCE, 9, produce("t", of_producer(0, epoch=epoch)))
        bench.serve("t", epoch=epoch + 1)
        bench.pass_time(wait_s)
        client.send(ApiKey.PRODUCE, 9, produce("t", of_producer(sequence, epoch=1)))
        assert len(bench.sent(messages.Produce)) == 1


def test_nothing_overtakes_a_batch_that_the_partition_refused_for_now(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    client.send(ApiKey.PRODUCE, 9, produce("t", of_producer(0)))
    (handed,) = bench.sent(messages.Produce)
    answer(bench, *handed.items, error=ErrorCode.KAFKA_STORAGE_ERROR)  # the disk was full
    client.answers()
    assert errors(client.ask(ApiKey.PRODUCE, 9, produce("t", of_producer(1)))) == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
    client.send(ApiKey.PRODUCE, 9, produce("t", of_producer(0)))
    assert bench.sent(messages.Produce)


# -- topic ids and leaders (KIP-516, KIP-951) ----------------------------------------------------------


def test_an_id_that_nobody_knows(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    response = client.ask(ApiKey.PRODUCE, 13, produce("t", SMALL, SMALL, id_of="other"))
    assert errors(response) == [ErrorCode.UNKNOWN_TOPIC_ID] * 2
    assert response.responses[0].topic_id == topic_id("other")
    client.send(ApiKey.PRODUCE, 13, produce("t", SMALL, acks=0, id_of="other"))
    assert client.answers() == [] and "UNKNOWN_TOPIC_ID" in client.closed


def test_the_replica_of_a_topic_that_had_the_name_before_takes_nothing(tmp_path: Path) -> None:
    """The topic is deleted and created again in one go; the replica of the old one is still there in that turn."""
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    route = bench.gateway.routes.find("t", 0)
    assert route is not None
    route.topic_id = b"of another topic"
    assert errors(client.ask(ApiKey.PRODUCE, 13, produce("t", SMALL))) == [ErrorCode.UNKNOWN_TOPIC_ID]


def test_a_batch_does_not_overtake_one_whose_topic_was_not_known_yet(tmp_path: Path) -> None:
    first, second = (make_batch(b"v", producer_id=7, producer_epoch=0, base_sequence=each) for each in (0, 1))
    bench = Bench(tmp_path).start()
    client = bench.client()
    assert errors(client.ask(ApiKey.PRODUCE, 13, produce("t", first))) == [ErrorCode.UNKNOWN_TOPIC_ID]
    bench.create("t")
    bench.serve("t")
    assert errors(client.ask(ApiKey.PRODUCE, 13, produce("t", second))) == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
    client.send(ApiKey.PRODUCE, 13, produce("t", first))
    client.send(ApiKey.PRODUCE, 13, produce("t", second))
    assert bench.sent(messages.Produce)


@pytest.mark.parametrize("version", [9, 10, 13])
def test_who_asks_the_wrong_broker_is_told_the_right_one(tmp_path: Path, version: int) -> None:
    bench = Bench(tmp_path).start("t")
    endpoints = [messages.Endpoint("kafka", "kafka", "other.example", 9), messages.Endpoint("zmq", "zmq", "x", 1)]
    bench.commit(
        cs.BrokerRegistered(BROKER_ID + 1, 1, "b", endpoints),
        cs.TopicCreated(topic_id("far"), "far", [[BROKER_ID + 1]], {}),
        cs.LeaderChanged(topic_id("far"), 0, BROKER_ID + 1, 6, 6, [BROKER_ID + 1], 1))
    response = bench.client().ask(ApiKey.PRODUCE, version, produce("far", SMALL))
    assert errors(response) == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
    leader = response.responses[0].partition_responses[0].current_leader
    nodes = [(node.node_id, node.host, node.port, node.rack) for node in response.node_endpoints]
    if version < 10:
        assert leader is None and nodes == []
    else:
        assert (leader.leader_id, leader.leader_epoch) == (BROKER_ID + 1, 6)
        assert nodes == [(BROKER_ID + 1, "other.example", 9, "b")]


def test_a_partition_that_died_is_led_here_all_the_same(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    bench.down("t")
    response = client.ask(ApiKey.PRODUCE, 10, produce("t", SMALL))
    part = response.responses[0].partition_responses[0]
    assert part.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert (part.current_leader.leader_id, part.current_leader.leader_epoch) == (BROKER_ID, 0)
    assert [node.port for node in response.node_endpoints] == [9092]


@pytest.mark.parametrize(("error", "start"), [
    (ErrorCode.INVALID_RECORD, -1), (ErrorCode.CORRUPT_MESSAGE, -1), (ErrorCode.MESSAGE_TOO_LARGE, -1),
    (ErrorCode.INVALID_TIMESTAMP, 2), (ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, 2)])
def test_where_the_log_begins_is_told_of_what_came_as_far_as_the_log(tmp_path: Path, error: int, start: int) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    client.send(ApiKey.PRODUCE, 9, produce("t", SMALL))
    answer(bench, *bench.sent(messages.Produce)[0].items, error=error)
    (part,) = client.answers()[0].responses[0].partition_responses
    assert (part.error_code, part.log_start_offset) == (error, start)


def test_a_topic_without_partitions_is_not_answered(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    assert bench.client().ask(ApiKey.PRODUCE, 9, produce("t")).responses == []


def test_the_timeout_does_not_cut_off_the_leader_s_own_write(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    client.send(ApiKey.PRODUCE, 9, produce("t", SMALL, timeout_ms=0))
    items = bench.sent(messages.Produce)[0].items
    bench.pass_time(4.5)
    assert client.answers() == []
    answer(bench, *items)
    assert errors(client.answers()[0]) == [0]


def test_who_asks_for_the_way_past_us_is_told_who_serves(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    bench.client("zmq")
    asked = WayAsked(1, "t", 0)

    def told() -> TellWay:
        (way,) = [effect for effect in bench.turn(Mail(SHELL, asked)) if isinstance(effect, TellWay)]
        return way

    assert told() == TellWay(asked, bench.partitions["t", 0].incarnation, 0)
    bench.down("t", 0)
    assert told() == TellWay(asked, -1, -1)
    asked = WayAsked(1, "unknown", 2**40)
    assert told() == TellWay(asked, -1, -1)
