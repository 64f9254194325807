"""CreatePartitions: what the coordinator decides, and when the broker answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.broker_bench import BROKER_ID, COORDINATOR, SUPERVISOR, Bench, topic_id
from tests.unit.disks import FullableDisk
from tests.unit.drive import only
from tests.unit.test_coordinator import Cluster, broker, topic
from zafka.actors import cluster_state as cs, messages
from zafka.actors.gateway.effects import Respond
from zafka.actors.messages import MorePartitions, TopicResult
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode

# -- the coordinator -----------------------------------------------------------------------------


def more(cluster: Cluster, *topics: MorePartitions, validate_only: bool = False) -> list[TopicResult]:
    sent = cluster.send(broker(1), messages.CreatePartitions(next(cluster.ids), list(topics), validate_only))
    return only(sent, messages.PartitionsCreated).results


def replicas(cluster: Cluster, name: str) -> list[list[int]]:
    return [partition.replicas for partition in cluster.read().topics_by_name[name].partitions]


def test_partitions_are_added_behind_those_that_are_there_and_survive_a_restart(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, brokers=[(1, ""), (2, "")]).up()
    cluster.create(topic("a", 1), topic("b", 1))
    results = more(cluster, MorePartitions("a", 4), MorePartitions("b", 2, [[1]]))
    assert [(result.name, result.error, result.partitions) for result in results] == [("a", 0, 4), ("b", 0, 2)]
    expected = replicas(cluster, "a"), replicas(cluster, "b")
    # a-0 went to broker 1 and b-0 to broker 2, so the round goes on at 1.
    assert expected == ([[1], [1], [2], [1]], [[2], [1]])
    cluster.coordinator.replica.release()  # killed
    cluster = Cluster(tmp_path, brokers=[(1, ""), (2, "")]).up()
    assert (replicas(cluster, "a"), replicas(cluster, "b")) == expected


def test_a_dry_run_adds_nothing(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).up()
    cluster.create(topic("a", 1))
    (result,) = more(cluster, MorePartitions("a", 3), validate_only=True)
    assert (result.error, result.partitions) == (0, 3)
    assert len(replicas(cluster, "a")) == 1


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        (MorePartitions("none", 3), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ""),
        (MorePartitions("a", 2), ErrorCode.INVALID_PARTITIONS, "Topic already has 2 partition(s)."),
        (MorePartitions("a", 1), ErrorCode.INVALID_PARTITIONS,
         "The topic a currently has 2 partition(s); 1 would not be an increase."),
        (MorePartitions("a", -1), ErrorCode.INVALID_PARTITIONS, "-1 would not be an increase."),
        (MorePartitions("a", 10_003), ErrorCode.POLICY_VIOLATION, "Excessively large number of partitions"),
        (MorePartitions("a", 4, [[1]]), ErrorCode.INVALID_REPLICA_ASSIGNMENT,
         "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified."),
        (MorePartitions("a", 3, []), ErrorCode.INVALID_REPLICA_ASSIGNMENT, "only 0 assignment(s)"),
        (MorePartitions("a", 3, [[]]), ErrorCode.INVALID_REPLICA_ASSIGNMENT, "an empty replica list."),
        (MorePartitions("a", 3, [[9]]), ErrorCode.INVALID_REPLICA_ASSIGNMENT, "broker 9, but no such broker"),
        (MorePartitions("a", 3, [[1, 1]]), ErrorCode.INVALID_REPLICA_ASSIGNMENT, "the broker 1 more than once."),
        (MorePartitions("a", 3, [[1, 2]]), ErrorCode.INVALID_REPLICA_ASSIGNMENT, "not consistent with previous"),
    ],
)
def test_what_cannot_be_added_is_refused_in_kafkas_words(
    tmp_path: Path, asked: MorePartitions, error: ErrorCode, words: str
) -> None:
    cluster = Cluster(tmp_path, brokers=[(1, ""), (2, "")]).up()
    cluster.create(topic("a", 2))
    end = cluster.coordinator.replica.log.end_offset
    (result,) = more(cluster, asked)
    assert result.error == error and words in result.message
    assert cluster.coordinator.replica.log.end_offset == end


def test_a_full_disk_is_answered(tmp_path: Path) -> None:
    disk = FullableDisk()
    cluster = Cluster(tmp_path, disk=disk).up()
    cluster.create(topic("a", 1))
    disk.full = True
    (result,) = more(cluster, MorePartitions("a", 2))
    assert (result.name, result.error) == ("a", ErrorCode.KAFKA_STORAGE_ERROR)
    disk.full = False
    assert len(replicas(cluster, "a")) == 1
    assert more(cluster, MorePartitions("a", 2))[0].error == 0


def test_more_than_10000_partitions_of_one_request_are_too_many_together(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).up()
    results = cluster.create(topic("a", 6_000), topic("b", 4_001))
    assert [result.error for result in results] == [ErrorCode.POLICY_VIOLATION] * 2
    assert not cluster.read().topics_by_name


# -- the broker ----------------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path).start("t")


def request(*topics: tuple[str, int], timeout_ms: int = 5_000, dry: bool = False) -> kafka.CreatePartitionsRequest:
    wanted = [kafka.CreatePartitionsTopic(name, count, None) for name, count in topics]
    return kafka.CreatePartitionsRequest(wanted, timeout_ms, dry)


def asked(bench: Bench) -> messages.CreatePartitions:
    (question,) = bench.sent(messages.CreatePartitions)
    assert isinstance(question, messages.CreatePartitions)
    return question


def tell(bench: Bench, question: messages.CreatePartitions, error: int = 0, message: str = "") -> Any:
    result = TopicResult("t", error, message, topic_id("t"), 2, 1)
    return bench.tell(COORDINATOR, messages.PartitionsCreated(question.request_id, [result], 9))


@pytest.mark.parametrize("version", range(4))
def test_it_is_answered_when_all_partitions_serve(bench: Bench, version: int) -> None:
    client = bench.client()
    client.send(ApiKey.CREATE_PARTITIONS, version, request(("t", 2)))
    question = asked(bench)
    assert (question.topics, question.validate_only) == ([MorePartitions("t", 2, None)], False)
    tell(bench, question)
    assert not bench.of(Respond)
    bench.commit(cs.PartitionsAdded(topic_id("t"), [[BROKER_ID]]))
    assert [(told.topic, told.partition) for told in bench.sent(messages.StartPartition)] == [("t", 1)]
    assert not bench.of(Respond)
    bench.serve("t", 1)
    (answer,) = client.answers()
    assert [(each.name, each.error_code, each.error_message) for each in answer.results] == [("t", 0, None)]
    assert not bench.gateway.watchers and not len(bench.gateway.deadlines)


def test_partitions_that_do_not_serve_in_time_are_answered_so(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.CREATE_PARTITIONS, 3, request(("t", 2), timeout_ms=1_000))
    tell(bench, asked(bench))
    bench.pass_time(1.1)
    assert [each.error_code for each in client.answers()[0].results] == [ErrorCode.REQUEST_TIMED_OUT]
    assert not bench.gateway.watchers


def test_a_dry_run_and_a_refusal_are_answered_at_once(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.CREATE_PARTITIONS, 3, request(("t", 2), dry=True))
    assert asked(bench).validate_only
    tell(bench, asked(bench))
    assert [each.error_code for each in client.answers()[0].results] == [0]
    client.send(ApiKey.CREATE_PARTITIONS, 3, request(("t", 1)))
    tell(bench, asked(bench), ErrorCode.INVALID_PARTITIONS, "no increase")
    assert [(each.error_code, each.error_message) for each in client.answers()[0].results] == [
        (ErrorCode.INVALID_PARTITIONS, "no increase")]


def test_a_name_that_stands_twice_is_refused_and_the_others_go_on(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.CREATE_PARTITIONS, 3, request(("u", 2), ("t", 2), ("u", 3)))
    question = asked(bench)
    assert [topic.name for topic in question.topics] == ["t"]
    tell(bench, question, ErrorCode.INVALID_PARTITIONS)
    assert [(each.name, each.error_code) for each in client.answers()[0].results] == [
        ("u", ErrorCode.INVALID_REQUEST), ("t", ErrorCode.INVALID_PARTITIONS)]
    (only_twice,) = client.ask(ApiKey.CREATE_PARTITIONS, 3, request(("u", 2), ("u", 3))).results
    assert only_twice.error_code == ErrorCode.INVALID_REQUEST


def test_a_coordinator_that_dies_with_the_question_leaves_it_in_doubt(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.CREATE_PARTITIONS, 3, request(("t", 2)))
    bench.tell(SUPERVISOR, messages.ActorDown(*COORDINATOR))
    assert [each.error_code for each in client.answers()[0].results] == [ErrorCode.REQUEST_TIMED_OUT]
