"""What a client says last, a commit or that it leaves, while its group's coordinator is away: it waits at the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.broker_bench import BROKER_ID, SUPERVISOR, Client, advanced, topic_id
from tests.unit.group_relay_bench import G, Groups, H, commit, committed
from zafka.actors import cluster_state as cs, messages
from zafka.actors.actor import Mail
from zafka.actors.gateway.group_relay import GROUP_TOPIC, WAIT_S
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode

COMMIT = ApiKey.OFFSET_COMMIT, 9, commit(("t", bytes(16), 0))
LEAVE = ApiKey.LEAVE_GROUP, 5, kafka.LeaveGroupRequest("g", [kafka.MemberIdentity("m")])
LEAVE_848 = ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, kafka.ConsumerGroupHeartbeatRequest("g", "m", -1, topic_partitions=None)
WORDS = [pytest.param(COMMIT, committed("t"), id="commit"), pytest.param(LEAVE, kafka.LeaveGroupResponse(), id="leave"),
         pytest.param(LEAVE_848, kafka.ConsumerGroupHeartbeatResponse(), id="leave of KIP-848")]
SAFE_TWICE = WORDS[1:]
LOADING = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS


@pytest.fixture
def bench(tmp_path: Path) -> Groups:
    return Groups(tmp_path)


@pytest.fixture
def client(bench: Groups) -> Client:
    return bench.client()


def error_of(answer: Any) -> int:
    code = answer.topics[0].partitions[0].error_code if isinstance(answer, kafka.OffsetCommitResponse) else answer.error_code
    return int(code)


def is_clean(bench: Groups) -> bool:
    gateway = bench.gateway
    return not (gateway.watchers or gateway.last_words or len(gateway.deadlines))


@pytest.mark.parametrize(("word", "response"), WORDS)
def test_it_waits_for_the_coordinator(bench: Groups, client: Client, word: Any, response: Any) -> None:
    bench.down(GROUP_TOPIC, G)
    client.send(*word)
    bench.pass_time(WAIT_S - 0.5)
    assert (bench.asked(), client.answers()) == ([], [])
    bench.serve(GROUP_TOPIC, G, epoch=1)
    ((peer, call, request),) = bench.asked()
    assert (peer, request) == (bench.partitions[GROUP_TOPIC, G], word[2])
    bench.answer(peer, call, response)
    assert (client.answers(), is_clean(bench)) == ([response], True)


@pytest.mark.parametrize(("word", "response"), WORDS)
def test_and_is_refused_when_that_takes_too_long(bench: Groups, client: Client, word: Any, response: Any) -> None:
    bench.down(GROUP_TOPIC, G)
    client.send(*word)
    bench.pass_time(WAIT_S + 0.3)
    assert ([error_of(answer) for answer in client.answers()], is_clean(bench)) == ([LOADING], True)
    bench.serve(GROUP_TOPIC, G, epoch=1)
    assert bench.asked() == []


@pytest.mark.parametrize(("word", "response"), SAFE_TWICE)
def test_who_leaves_does_so_though_the_coordinator_dies_with_it_in_hand(
    bench: Groups, client: Client, word: Any, response: Any
) -> None:
    client.send(*word)
    assert len(bench.asked()) == 1
    bench.down(GROUP_TOPIC, G)
    assert client.answers() == []
    bench.serve(GROUP_TOPIC, G, epoch=1)
    ((peer, call, _),) = bench.asked()
    bench.answer(peer, call, response)
    assert (client.answers(), is_clean(bench)) == ([response], True)


def test_but_not_for_ever(bench: Groups, client: Client) -> None:
    client.send(*LEAVE)
    for epoch in (1, 2):
        bench.pass_time(WAIT_S / 2 - 0.1)
        bench.down(GROUP_TOPIC, G)
        assert client.answers() == []
        bench.serve(GROUP_TOPIC, G, epoch=epoch)
        assert len(bench.asked()) == 1
    bench.pass_time(WAIT_S / 2 - 0.1)
    bench.down(GROUP_TOPIC, G)
    assert ([error_of(answer) for answer in client.answers()], is_clean(bench)) == ([LOADING], True)


def test_a_commit_that_was_perhaps_carried_out_is_not_asked_again(bench: Groups, client: Client) -> None:
    """Another one may have come between, and would be taken back."""
    client.send(*COMMIT)
    bench.down(GROUP_TOPIC, G)
    assert ([error_of(answer) for answer in client.answers()], is_clean(bench)) == ([LOADING], True)


def test_one_that_had_not_left_waits(bench: Groups, client: Client) -> None:
    down = Mail(SUPERVISOR, messages.ActorDown(*bench.partitions[GROUP_TOPIC, G]))
    bench.turn(client.mail(*COMMIT), down)
    assert (bench.asked(), client.answers()) == ([], [])
    bench.serve(GROUP_TOPIC, G, epoch=1)
    assert len(bench.asked()) == 1


def test_they_reach_the_coordinator_in_the_order_in_which_they_came(bench: Groups) -> None:
    clients = [bench.client() for _ in range(4)]
    bench.down(GROUP_TOPIC, G)
    for number, each in enumerate(clients[:3]):
        request = kafka.OffsetCommitRequest("g", number, topics=COMMIT[2].topics)
        each.send(ApiKey.OFFSET_COMMIT, 9, request)
    late = clients[3].mail(ApiKey.OFFSET_COMMIT, 9, kafka.OffsetCommitRequest("g", 3, topics=COMMIT[2].topics))
    peer = bench.up(GROUP_TOPIC, G)
    bench.lead(GROUP_TOPIC, G, epoch=1)
    bench.turn(Mail(peer, messages.Serving(1)), Mail(peer, advanced(0, 0, epoch=1)), late)
    assert [request.generation_id_or_member_epoch for _, _, request in bench.asked()] == [0, 1, 2, 3]


def test_other_coordinators_are_asked_meanwhile(bench: Groups, client: Client) -> None:
    assert G != H
    bench.down(GROUP_TOPIC, G)
    client.send(*COMMIT)
    bench.client().send(ApiKey.OFFSET_COMMIT, 9, commit(("t", bytes(16), 0), group="h"))
    assert [request.group_id for _, _, request in bench.asked()] == ["h"]


def test_a_broker_that_stops_does_not_wait(bench: Groups, client: Client) -> None:
    bench.down(GROUP_TOPIC, G)
    client.send(*LEAVE)
    bench.tell(SUPERVISOR, messages.Shutdown())
    assert [error_of(answer) for answer in client.answers()] == [ErrorCode.COORDINATOR_NOT_AVAILABLE]
    assert is_clean(bench)


def test_nor_for_one_that_dies_while_it_stops(bench: Groups, client: Client) -> None:
    client.send(*LEAVE)
    bench.gateway.stopping = True
    bench.down(GROUP_TOPIC, G)
    assert ([error_of(answer) for answer in client.answers()], is_clean(bench)) == ([LOADING], True)


def test_a_client_that_hung_up_says_nothing_more(bench: Groups, client: Client) -> None:
    bench.down(GROUP_TOPIC, G)
    client.send(*LEAVE)
    client.close()
    assert is_clean(bench)
    bench.serve(GROUP_TOPIC, G, epoch=1)
    assert bench.asked() == []


def test_nor_one_that_hung_up_when_it_was_asked(bench: Groups, client: Client) -> None:
    bench.down(GROUP_TOPIC, G)
    client.send(*LEAVE)
    bench.serve(GROUP_TOPIC, G, epoch=1)
    client.close()
    assert is_clean(bench)


def test_a_coordinator_whose_disk_has_failed_is_not_waited_for(bench: Groups, client: Client) -> None:
    bench.down(GROUP_TOPIC, G)
    client.send(*COMMIT)
    bench.up(GROUP_TOPIC, G)
    bench.commit(cs.ReplicaFaulted(topic_id(GROUP_TOPIC), G, BROKER_ID, 0, "EIO"))
    assert ([error_of(answer) for answer in client.answers()], is_clean(bench)) == ([ErrorCode.COORDINATOR_NOT_AVAILABLE], True)
