"""Connections: the order of answers, limits on what is held, the end of a connection; deadlines."""

from __future__ import annotations

from pathlib import Path

from tests.unit.broker_bench import Bench, make_batch
from zafka.actors import messages
from zafka.actors.actor import Effect, Mail
from zafka.actors.gateway.connection import UNTAKEN_S_MAX, Connections, Exchange
from zafka.actors.gateway.deadlines import Deadlines
from zafka.actors.gateway.effects import (
    SHELL,
    AnswersBlocked,
    CloseConnection,
    FramesReceived,
    PauseReading,
    Respond,
    ResumeReading,
)
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages import (
    ApiVersionsRequest,
    FetchPartition,
    FetchRequest,
    FetchTopic,
    MetadataRequest,
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)


def produce(topic: str, records: bytes, *, acks: int = -1, partition: int = 0) -> ProduceRequest:
    data = PartitionProduceData(partition, memoryview(records))
    return ProduceRequest(None, acks, 30_000, [TopicProduceData(name=topic, partition_data=[data])])


def test_an_answer_does_not_overtake_an_earlier_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    client.send(ApiKey.PRODUCE, 9, produce("t", make_batch(b"v")))
    (handed,) = bench.sent(messages.Produce)
    client.send(ApiKey.METADATA, 9, MetadataRequest(topics=[]))
    assert not bench.of(Respond)
    answer = messages.ProduceAnswer(handed.items[0].request_id, 0, 5, -1, 0)
    bench.tell(bench.partitions["t", 0], messages.Produced([answer]))
    assert len(bench.of(Respond)) == 1
    produced, metadata = client.answers()
    assert produced.responses[0].partition_responses[0].base_offset == 5
    assert metadata.brokers


def test_all_answers_of_a_turn_leave_in_one_write(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start()
    client = bench.client()
    bench.turn(*(client.mail(ApiKey.METADATA, 9, MetadataRequest(topics=[])) for _ in range(3)))
    assert len(bench.of(Respond)) == 1
    assert len(client.answers()) == 3


def test_a_request_that_is_none_closes_the_connection_after_earlier_answers(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start()
    client = bench.client()
    broken = client.mail(ApiKey.METADATA, 9, MetadataRequest(topics=[])).body.frames[0][1][:-2]
    client._asked.pop()
    bench.turn(
        client.mail(ApiKey.METADATA, 9, MetadataRequest(topics=[])), Mail(SHELL, FramesReceived([(client.id, broken, None)])),
        client.mail(ApiKey.METADATA, 9, MetadataRequest(topics=[])))
    assert len(client.answers()) == 1
    assert "malformed" in client.closed


def test_an_api_or_version_that_is_not_served_closes_the_connection(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start()
    for api, version in ((ApiKey.PRODUCE, 2), (ApiKey.END_TXN, 0), (ApiKey.METADATA, 14)):
        client = bench.client()
        frame = int(api).to_bytes(2, "big") + version.to_bytes(2, "big") + bytes(4) + b"\xff\xff" + bytes(20)
        bench.turn(Mail(SHELL, FramesReceived([(client.id, memoryview(frame), None)])))
        client.answers()
        assert client.closed.startswith("UNSUPPORTED_VERSION"), (api, client.closed)


def test_a_client_that_is_gone_gets_nothing_and_costs_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    client.send(ApiKey.PRODUCE, 9, produce("t", make_batch(b"v")))
    (handed,) = bench.sent(messages.Produce)
    client.close()
    assert bench.gateway.connections.held == 0
    answer = messages.ProduceAnswer(handed.items[0].request_id, 0, 5, -1, 0)
    bench.tell(bench.partitions["t", 0], messages.Produced([answer]))
    assert not bench.of(Respond) and len(bench.gateway.deadlines) == 0


def test_a_connection_with_too_much_unanswered_is_not_read_until_half_is_gone(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    bench.gateway.connections.limit = 10_000
    client, other = bench.client(), bench.client()
    client.send(ApiKey.PRODUCE, 9, produce("t", make_batch(bytes(4_000))))
    assert not bench.of(PauseReading)
    client.send(ApiKey.PRODUCE, 9, produce("t", make_batch(bytes(4_000))))
    assert bench.of(PauseReading) == [PauseReading(client.id)]
    other.ask(ApiKey.METADATA, 9, MetadataRequest(topics=[]))
    ids = [1, 2]
    peer = bench.partitions["t", 0]
    bench.tell(peer, messages.Produced([messages.ProduceAnswer(ids[0], 0, 0, -1, 0)]))
    assert not bench.of(ResumeReading)
    bench.tell(peer, messages.Produced([messages.ProduceAnswer(ids[1], 0, 1, -1, 0)]))
    assert bench.of(ResumeReading) == [ResumeReading(client.id)]
    assert bench.gateway.connections.held == 0


def test_all_connections_together_are_bounded_too() -> None:
    connections = Connections(limit=1_000_000, total_limit=5_000)
    greedy, modest = (connections.open(index, listener="kafka", peer="p") for index in (1, 2))
    first = Exchange(greedy, version=0, size=4_000)
    greedy.begin(first)
    second = Exchange(modest, version=0, size=100)
    modest.begin(second)
    assert end_turn(connections) == [PauseReading(1), PauseReading(2)]
    second.answer_frame([b"x"])
    # Who holds nothing may go on, or nobody could make progress.
    assert end_turn(connections) == [Respond(2, [[b"x"]]), ResumeReading(2)]
    first.answer_frame([b"y"])
    assert end_turn(connections) == [Respond(1, [[b"y"]]), ResumeReading(1)]


def end_turn(connections: Connections) -> list[Effect]:
    return connections.take_answers() + connections.on_turn_end(0.0)


def test_what_comes_behind_a_fetch_starts_after_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    poll = FetchRequest(max_wait_ms=500, min_bytes=1, topics=[FetchTopic(topic="t", partitions=[FetchPartition(0)])])
    bench.turn(
        client.mail(ApiKey.FETCH, 12, poll), client.mail(ApiKey.FETCH, 12, poll),
        client.mail(ApiKey.PRODUCE, 9, produce("t", make_batch(b"v"))))
    assert not bench.sent(messages.Produce)
    bench.pass_time(0.51)
    assert len(client.answers()) == 1
    bench.pass_time(0.51)
    assert len(client.answers()) == 1
    assert bench.sent(messages.Produce)


def test_a_client_that_does_not_take_its_answers_gets_no_more(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start()
    client = bench.client()
    bench.tell(SHELL, AnswersBlocked(client.id, True))
    client.send(ApiKey.METADATA, 9, MetadataRequest(topics=[]))
    assert not bench.of(Respond)
    bench.tell(SHELL, AnswersBlocked(client.id, False))
    assert len(client.answers()) == 1


def test_more_requests_than_a_connection_may_hold_start_one_after_the_other(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start()
    bench.gateway.connections.limit = 5_000
    client = bench.client()
    bench.turn(*(client.mail(ApiKey.METADATA, 9, MetadataRequest(topics=[])) for _ in range(50)))
    assert len(client.answers()) == 50
    assert bench.gateway.connections.held == 0


def test_answers_that_are_not_taken_count_until_they_are() -> None:
    connections = Connections(limit=10_000, total_limit=100_000)
    connection = connections.open(1, listener="kafka", peer="p")
    exchange = Exchange(connection, version=0)
    connection.begin(exchange)
    exchange.answer_frame([bytes(7_000)])
    assert end_turn(connections) == [Respond(1, [[bytes(7_000)]])] and connections.held == 0
    connection.on_blocked(True, 0.0)
    end_turn(connections)
    assert connections.held == connection.held == connection.untaken == 7_000
    connection.on_blocked(False, 0.0)
    assert connections.held == connection.held == connection.untaken == 0
    connection.on_blocked(True, 0.0)
    connections.close(1)
    assert connections.held == 0


def test_when_there_is_no_room_the_one_that_leaves_most_untaken_is_ended_at_once() -> None:
    connections = Connections(limit=10_000, total_limit=30_000)
    for number, size in enumerate((100, 6_000, 9_000, 8_000), start=1):
        connection = connections.open(number, listener="kafka", peer="p")
        exchange = Exchange(connection, version=0)
        connection.begin(exchange)
        exchange.answer_frame([bytes(size)])
        assert end_turn(connections) == [Respond(number, [[bytes(size)]])]
        if size > 100:  # the first one takes its answer
            connection.on_blocked(True, 0.0)
        if number == 2:
            assert not connections.on_turn_end(0.0)
    assert not connections.on_turn_end(UNTAKEN_S_MAX - 0.1)  # they may be busy taking theirs
    (close,) = [effect for effect in connections.on_turn_end(UNTAKEN_S_MAX) if isinstance(effect, CloseConnection)]
    assert close.connection_id == 3 and close.at_once and "9000 bytes of answers are not taken" in close.reason
    connections.close(3)
    assert connections.held == 14_000 and not connections.on_turn_end(10.0)


def test_nothing_after_a_close_is_answered() -> None:
    connections = Connections(limit=1_000, total_limit=1_000)
    connection = connections.open(1, listener="kafka", peer="p")
    exchanges = [Exchange(connection, version=0) for _ in range(3)]
    for exchange in exchanges:
        connection.begin(exchange)
    exchanges[2].answer_frame([b"c"])
    exchanges[1].refuse("why")
    exchanges[0].answer_frame([b"a"])
    assert end_turn(connections) == [Respond(1, [[b"a"]]), CloseConnection(1, "why")]
    connections.close(1)
    assert connections.held == 0


def test_api_versions_has_its_version_0_layout_for_a_version_that_nobody_knows(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start()
    client = bench.client()
    mail = client.mail(ApiKey.API_VERSIONS, 4, ApiVersionsRequest("x", "1"))
    frame = bytearray(mail.body.frames[0][1])
    frame[2:4] = (99).to_bytes(2, "big")
    client._asked[0] = (ApiKey.API_VERSIONS, 0, 1)
    bench.turn(Mail(SHELL, FramesReceived([(client.id, memoryview(frame), None)])))
    (answer,) = client.answers()
    assert answer.error_code == 35
    assert [(api.api_key, api.min_version, api.max_version) for api in answer.api_keys] == [(18, 0, 4)]


class Alarm:
    def __init__(self) -> None:
        self.bucket = 0
        self.rang = 0

    def on_deadline(self) -> None:
        self.rang += 1


def test_deadlines_are_reached_in_time_and_never_early() -> None:
    deadlines = Deadlines()
    alarms = {delay: Alarm() for delay in (0.0, 0.01, 0.5, 2.5, 30.0, 10_000.0)}
    for delay, alarm in alarms.items():
        deadlines.set(alarm, 50.0, delay)
    for now_s in (50.0, 50.009, 50.3, 50.51, 52.4, 52.8, 81.0):
        deadlines.expire(now_s)
        for delay, alarm in alarms.items():
            late = 0.26 if delay > 2 else 0.006
            assert not alarm.rang or now_s >= 50 + min(delay, 3600)
            assert alarm.rang or now_s < 50 + delay + late
    assert deadlines.next_s is not None and abs(deadlines.next_s - 3650) < 1
    deadlines.cancel(alarms[10_000.0])
    assert len(deadlines) == 0


def test_cancelled_deadlines_leave_only_their_buckets() -> None:
    deadlines = Deadlines()
    for index in range(100_000):
        alarm = Alarm()
        deadlines.set(alarm, index / 10_000, 30.0)
        deadlines.cancel(alarm)
    assert len(deadlines._buckets) < 60
    deadlines.expire(100.0)
    assert not deadlines._buckets and deadlines.next_s is None


