"""Fetch 7 to 18: sessions at the broker, topic ids, diverging epochs, who leads, followers.

Source: KIP-227 (sessions), KIP-516 (topic ids), KIP-595 (diverging epochs), KIP-951 (leaders).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.broker_bench import BROKER_ID, Bench, advanced, make_batch, read, topic_id
from tests.unit.test_gateway_fetch import SIZE, fetch, locate, parts_of
from zafka.actors import cluster_state as cs, messages
from zafka.actors.gateway.effects import Respond
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import FetchRequest
from zafka.transport.kafka.messages.fetch import FetchTopic, ReplicaState

THREE = make_batch(b"333", base_offset=2)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Two partitions with two batches each."""
    bench = Bench(tmp_path).start()
    bench.create("t", partitions=2)
    for index in (0, 1):
        bench.serve("t", index, hw=2, position=2 * SIZE)
    return bench


def places(response: Any) -> list[int]:
    return [part.partition_index for topic in response.responses for part in topic.partitions]


def in_session(response: Any, epoch: int, **fields: Any) -> FetchRequest:
    return FetchRequest(
        session_id=response.session_id, session_epoch=epoch, max_wait_ms=500, min_bytes=1, max_bytes=1 << 20, **fields)


# -- sessions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [7, 12, 13, 18])
def test_a_session_lives_at_the_broker_and_not_in_a_connection(bench: Bench, version: int) -> None:
    first = bench.client().ask(ApiKey.FETCH, version, fetch([2, 2], session_epoch=0, max_wait_ms=0))
    assert first.session_id > 0 and places(first) == [0, 1]
    client = bench.client()
    client.send(ApiKey.FETCH, version, in_session(first, 1))
    assert not bench.of(Respond)
    bench.tell(bench.partitions["t", 1], advanced(3, 3 * SIZE))
    read(bench, THREE)
    (response,) = client.answers()
    assert response.session_id == first.session_id and parts_of(response) == [(0, THREE)] and places(response) == [1]
    # The fetcher goes on in the partition that had something; of the other nothing is said.
    client.send(ApiKey.FETCH, version, in_session(first, 2, topics=[
        FetchTopic(topic_id("t"), "t", [fetch([2, 3]).topics[0].partitions[1]])]))
    bench.pass_time(0.6)
    (response,) = client.answers()
    assert (response.error_code, response.responses) == (0, [])


def test_what_a_session_cannot_go_on_with(bench: Bench) -> None:
    client = bench.client()
    first = client.ask(ApiKey.FETCH, 12, fetch([2, 2], session_epoch=0, max_wait_ms=0))

    def ask(version: int, epoch: int, session_id: int = first.session_id) -> tuple[int, int, list[Any]]:
        answer = client.ask(ApiKey.FETCH, version, FetchRequest(session_id=session_id, session_epoch=epoch))
        return answer.error_code, answer.session_id, answer.responses

    assert ask(12, 2) == (ErrorCode.INVALID_FETCH_SESSION_EPOCH, 0, [])
    assert ask(12, 1, first.session_id ^ 1) == (ErrorCode.FETCH_SESSION_ID_NOT_FOUND, 0, [])
    assert ask(13, 1) == (ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR, 0, [])
    assert ask(12, 1) == (0, first.session_id, [])


def test_clients_that_know_no_sessions_begin_none(bench: Bench) -> None:
    for version in (4, 6):
        response = bench.client().ask(ApiKey.FETCH, version, fetch([2, 2], max_wait_ms=0))
        assert places(response) == [0, 1] and response.session_id == 0
    assert len(bench.gateway.fetch_sessions) == 0


def test_a_broker_has_as_many_sessions_as_its_settings_say(tmp_path: Path) -> None:
    bench = Bench(tmp_path, defaults={"max.incremental.fetch.session.cache.slots": "1"}).start("t")
    ids = [bench.client().ask(ApiKey.FETCH, 12, fetch(0, session_epoch=0, max_wait_ms=0)).session_id for _ in range(2)]
    assert ids[0] > 0 and ids[1] == 0


def test_another_start_of_the_broker_gives_other_ids(tmp_path: Path) -> None:
    """Or a fetcher could go on in a session that is not its own."""
    first, second = (Bench(tmp_path).start("t") for _ in range(2))
    second.gateway.fetch_sessions = type(second.gateway)(
        broker_id=1, data_dir=tmp_path, endpoints=[], settings=second.gateway.settings, defaults={},
        cluster=second.gateway.cluster, now=second.gateway.now._replace(wall_ms=1)).fetch_sessions
    ids = {each.client().ask(ApiKey.FETCH, 12, fetch(0, session_epoch=0, max_wait_ms=0)).session_id
           for each in (first, second)}
    assert len(ids) == 2


# -- topic ids -----------------------------------------------------------------------------------


def test_an_id_that_nobody_knows_keeps_nobody_from_the_rest(bench: Bench) -> None:
    client = bench.client()
    alone = fetch(0)
    alone.topics[0].topic_id = topic_id("none")
    assert parts_of(client.ask(ApiKey.FETCH, 13, alone)) == [(ErrorCode.UNKNOWN_TOPIC_ID, b"")]
    both = fetch([2, 2], max_wait_ms=300)
    both.topics += alone.topics
    client.send(ApiKey.FETCH, 13, both)
    assert not bench.of(Respond)  # as Kafka does: the others have their time
    bench.pass_time(0.35)
    (response,) = client.answers()
    assert parts_of(response) == [(0, b""), (0, b""), (ErrorCode.UNKNOWN_TOPIC_ID, b"")]
    assert response.responses[1].topic_id == topic_id("none")


def test_the_replica_of_a_topic_that_had_the_name_before(bench: Bench) -> None:
    route = bench.gateway.routes.find("t", 0)
    assert route is not None
    route.topic_id = b"of another topic"
    response = bench.client().ask(ApiKey.FETCH, 13, fetch(0))
    assert parts_of(response) == [(ErrorCode.INCONSISTENT_TOPIC_ID, b"")]


def test_a_topic_that_is_created_anew_is_another_one_in_a_session(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    first = client.ask(ApiKey.FETCH, 13, fetch(0, session_epoch=0, max_wait_ms=0))
    bench.commit(cs.TopicDeleted(topic_id("t")))
    gone = client.ask(ApiKey.FETCH, 13, in_session(first, 1))
    assert parts_of(gone) == [(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, b"")]
    bench.commit(cs.TopicCreated(b"the second topic", "t", [[BROKER_ID]], {}))
    bench.gateway.routes.add("t", b"the second topic", 0)
    again = client.ask(ApiKey.FETCH, 13, in_session(first, 2))
    assert parts_of(again) == [(ErrorCode.INCONSISTENT_TOPIC_ID, b"")]


def test_a_topic_that_becomes_known_is_served_in_its_session(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start()
    client = bench.client()
    first = client.ask(ApiKey.FETCH, 13, fetch(0, session_epoch=0))
    assert parts_of(first) == [(ErrorCode.UNKNOWN_TOPIC_ID, b"")] and first.session_id
    bench.create("t")
    bench.serve("t")
    client.send(ApiKey.FETCH, 13, in_session(first, 1))
    bench.pass_time(0.6)
    assert parts_of(client.answers()[0]) == [(0, b"")]


# -- diverging epochs ------------------------------------------------------------------------------


def diverges(bench: Bench, asked: messages.Locate) -> None:
    bench.tell(bench.partitions["t", 0], messages.Located(
        asked.request_id, 0, 0, 0, 0, 0, 2, 2, 0, diverging_epoch=3, diverging_end_offset=1))


def test_a_diverging_reader_is_told_of_no_transactions(bench: Bench) -> None:
    client = bench.client()
    request = fetch(1)
    request.isolation_level, request.topics[0].partitions[0].last_fetched_epoch = 1, 3
    client.send(ApiKey.FETCH, 12, request)
    diverges(bench, bench.sent(messages.Locate)[0])
    (part,) = client.answers()[0].responses[0].partitions
    assert part.diverging_epoch.epoch == 3 and part.aborted_transactions is None


def test_where_the_reader_s_log_and_ours_part_is_told_at_once(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(2, last_fetched_epoch=4))
    (asked,) = bench.sent(messages.Locate)
    assert (asked.offset, asked.last_fetched_epoch) == (2, 4)
    diverges(bench, asked)
    (response,) = client.answers()
    (part,) = response.responses[0].partitions
    assert (part.error_code, bytes(part.records), part.high_watermark) == (0, b"", 2)
    assert (part.diverging_epoch.epoch, part.diverging_epoch.end_offset) == (3, 1)


def test_a_reader_whose_log_is_ours_is_compared_once(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(2, last_fetched_epoch=0))
    locate(bench, position=2 * SIZE, length=0)
    assert not bench.of(Respond)
    bench.tell(bench.partitions["t", 0], advanced(2, 2 * SIZE, start=1))
    assert not bench.sent(messages.Locate)
    bench.tell(bench.partitions["t", 0], advanced(3, 3 * SIZE, start=1))
    read(bench, THREE)
    assert parts_of(client.answers()[0]) == [(0, THREE)]


def test_a_new_leader_compares_again(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(2, last_fetched_epoch=0, max_wait_ms=60_000))
    locate(bench, position=2 * SIZE, length=0)
    bench.down("t")
    bench.serve("t", epoch=5, hw=2, position=2 * SIZE)
    (asked,) = bench.sent(messages.Locate)
    diverges(bench, asked)
    assert client.answers()[0].responses[0].partitions[0].diverging_epoch.epoch == 3


# -- leaders, followers ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", [15, 16, 18])
def test_who_asks_the_wrong_broker_is_told_the_right_one(bench: Bench, version: int) -> None:
    bench.commit(
        cs.BrokerRegistered(BROKER_ID + 1, 1, "b", [messages.Endpoint("kafka", "kafka", "other.example", 9)]),
        cs.TopicCreated(topic_id("far"), "far", [[BROKER_ID + 1]], {}),
        cs.LeaderChanged(topic_id("far"), 0, BROKER_ID + 1, 6, 6, [BROKER_ID + 1], 1))
    response = bench.client().ask(ApiKey.FETCH, version, fetch(0, topic="far"))
    assert parts_of(response) == [(ErrorCode.NOT_LEADER_OR_FOLLOWER, b"")]
    leader = response.responses[0].partitions[0].current_leader
    nodes = [(node.node_id, node.host, node.port, node.rack) for node in response.node_endpoints]
    if version < 16:
        assert leader is None and nodes == []
    else:
        assert (leader.leader_id, leader.leader_epoch) == (BROKER_ID + 1, 6)
        assert nodes == [(BROKER_ID + 1, "other.example", 9, "b")]


def test_who_knows_an_older_leader_is_told_the_one_there_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start()
    bench.create("t")
    bench.serve("t", epoch=4)
    response = bench.client().ask(ApiKey.FETCH, 16, fetch(0, epoch=3))
    assert parts_of(response) == [(ErrorCode.FENCED_LEADER_EPOCH, b"")]
    leader = response.responses[0].partitions[0].current_leader
    assert (leader.leader_id, leader.leader_epoch) == (BROKER_ID, 4)
    assert [node.node_id for node in response.node_endpoints] == [BROKER_ID]
    # Kafka says nothing of the leader to who knows a newer one.
    response = bench.client().ask(ApiKey.FETCH, 16, fetch(0, epoch=5))
    assert parts_of(response) == [(ErrorCode.UNKNOWN_LEADER_EPOCH, b"")] and response.node_endpoints == []


@pytest.mark.parametrize("version", [12, 14, 15, 18])
@pytest.mark.parametrize(("epoch", "error"), [(-1, ErrorCode.NOT_LEADER_OR_FOLLOWER), (0, ErrorCode.UNKNOWN_LEADER_EPOCH)])
def test_a_follower_is_not_known(bench: Bench, version: int, epoch: int, error: int) -> None:
    request = fetch(0, epoch=epoch)
    request.replica_id, request.replica_state = (7, None) if version < 15 else (-1, ReplicaState(7, 1))
    assert parts_of(bench.client().ask(ApiKey.FETCH, version, request)) == [(error, b"")]


def test_any_epoch_below_0_is_none(bench: Bench) -> None:
    bench.client().send(ApiKey.FETCH, 12, fetch(0, epoch=-2))
    assert [asked.current_leader_epoch for asked in bench.sent(messages.Locate)] == [-1]
