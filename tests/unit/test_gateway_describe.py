"""The APIs that describe: topics in pages, the cluster, directories, producers, configuration, transactions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.broker_bench import BROKER_ID, Bench, topic_id
from tests.unit.drive import only
from tests.unit.drive_partition import BROKER, Partition, numbered
from zafka.actors import cluster_state as cs, messages
from zafka.actors.broker_settings import BROKER_NAMES, BROKER_SETTINGS, TOPIC_ONLY
from zafka.actors.dynamic_config import DYNAMIC
from zafka.actors.gateway.broker_config import Layers, describe_broker, describe_topic
from zafka.actors.gateway.operations import ON_CLUSTER, ON_TOPIC
from zafka.storage.config import TOPIC_CONFIG
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import describe_producers as producers_api, describe_topic_partitions as pages


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path).start()


# -- topics in pages -----------------------------------------------------------------------------

Page = tuple[list[tuple[str | None, int, list[int]]], tuple[str, int] | None]


def page(bench: Bench, *names: str, limit: int = 2000, cursor: tuple[str, int] | None = None) -> Page:
    request = pages.DescribeTopicPartitionsRequest(
        [pages.TopicRequest(name) for name in names], limit, pages.Cursor(*cursor) if cursor else None)
    answer = bench.client().ask(ApiKey.DESCRIBE_TOPIC_PARTITIONS, 0, request)
    following = answer.next_cursor
    return (
        [(each.name, each.error_code, [part.partition_index for part in each.partitions]) for each in answer.topics],
        (following.topic_name, following.partition_index) if following else None)


@pytest.fixture
def topics(bench: Bench) -> Bench:
    for name, count in (("b", 3), ("a", 5), ("c", 1)):
        bench.create(name, partitions=count)
    return bench


def test_topics_come_in_the_order_of_their_names_each_once(topics: Bench) -> None:
    everything = [("a", 0, [0, 1, 2, 3, 4]), ("b", 0, [0, 1, 2]), ("c", 0, [0])]
    assert page(topics) == (everything, None)
    assert page(topics, "c", "a", "b", "a") == (everything, None)


def test_a_page_ends_at_its_limit_and_the_next_goes_on_there(topics: Bench) -> None:
    assert page(topics, limit=2) == ([("a", 0, [0, 1])], ("a", 2))
    assert page(topics, limit=4, cursor=("a", 2)) == ([("a", 0, [2, 3, 4]), ("b", 0, [0])], ("b", 1))
    assert page(topics, limit=2, cursor=("b", 1)) == ([("b", 0, [1, 2])], ("c", 0))
    assert page(topics, limit=2, cursor=("c", 0)) == ([("c", 0, [0])], None)
    assert page(topics, "a", "b", "nope", limit=5) == ([("a", 0, [0, 1, 2, 3, 4])], ("b", 0))


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 100])
def test_pages_of_any_size_give_each_partition_once(topics: Bench, limit: int) -> None:
    found: list[tuple[str | None, int]] = []
    cursor = None
    for _ in range(20):
        described, cursor = page(topics, limit=limit, cursor=cursor)
        found += [(name, index) for name, _, indexes in described for index in indexes]
        if cursor is None:
            break
    assert found == [*(("a", i) for i in range(5)), *(("b", i) for i in range(3)), ("c", 0)]


def test_limits_below_one_are_one_and_the_broker_has_its_own(tmp_path: Path) -> None:
    bench = Bench(tmp_path, defaults={"max.request.partition.size.limit": "3"}).start()
    bench.create("a", partitions=5)
    assert page(bench, limit=0) == page(bench, limit=-5) == ([("a", 0, [0])], ("a", 1))
    assert page(bench, limit=100) == ([("a", 0, [0, 1, 2])], ("a", 3))


def test_topics_that_are_not_there_and_cursors_that_cannot_be(topics: Bench) -> None:
    assert page(topics, "nope", "a b") == (
        [("a b", ErrorCode.INVALID_TOPIC_EXCEPTION, []), ("nope", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, [])], None)
    assert page(topics, "a", cursor=("a", 99)) == ([("a", 0, [])], None)
    for cursor in (("a", -1), ("zzz", 0)):
        assert page(topics, "a", cursor=cursor) == ([("a", ErrorCode.INVALID_REQUEST, [])], None)
    assert page(topics, cursor=("bb", 7)) == ([("c", 0, [0])], None)  # deleted meanwhile


def test_what_a_partition_looks_like(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    bench.create("waiting")
    request = pages.DescribeTopicPartitionsRequest([])
    served, waiting = bench.client().ask(ApiKey.DESCRIBE_TOPIC_PARTITIONS, 0, request).topics
    assert (served.topic_id, served.is_internal, served.topic_authorized_operations) == (topic_id("t"), False, ON_TOPIC)
    (part,) = served.partitions
    assert (part.error_code, part.leader_id, part.leader_epoch, part.replica_nodes, part.isr_nodes) == (0, 1, 0, [1], [1])
    assert part.eligible_leader_replicas == part.last_known_elr == part.offline_replicas == []
    assert (waiting.partitions[0].error_code, waiting.partitions[0].leader_id) == (ErrorCode.LEADER_NOT_AVAILABLE, -1)


# -- the cluster ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(3))
def test_the_cluster_by_the_listener_that_the_client_came_in_by(bench: Bench, version: int) -> None:
    answer = bench.client("outside").ask(ApiKey.DESCRIBE_CLUSTER, version, kafka.DescribeClusterRequest(True))
    assert (answer.error_code, answer.cluster_id, answer.controller_id) == (0, "cluster", 1)
    (broker,) = answer.brokers
    assert (broker.broker_id, broker.host, broker.port, broker.rack) == (1, "broker.example", 19092, "a")
    assert not broker.is_fenced and answer.cluster_authorized_operations == ON_CLUSTER
    answer = bench.client().ask(ApiKey.DESCRIBE_CLUSTER, version, kafka.DescribeClusterRequest())
    assert answer.cluster_authorized_operations == -2147483648


def test_other_endpoints_than_brokers_are_not_here(bench: Bench) -> None:
    for kind, error in ((2, ErrorCode.MISMATCHED_ENDPOINT_TYPE), (3, ErrorCode.UNSUPPORTED_ENDPOINT_TYPE)):
        answer = bench.client().ask(ApiKey.DESCRIBE_CLUSTER, 1, kafka.DescribeClusterRequest(False, kind))
        assert (answer.error_code, answer.brokers) == (error, []) and answer.error_message


# -- directories ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(1, 6))
def test_partitions_measure_themselves(tmp_path: Path, version: int) -> None:
    bench = Bench(tmp_path).start("t", "u")
    bench.create("starting")
    client = bench.client()
    client.send(ApiKey.DESCRIBE_LOG_DIRS, version, kafka.DescribeLogDirsRequest(None))
    first, second = bench.sent(messages.DescribeLog)
    bench.tell(bench.partitions["u", 0], messages.LogDescribed(second.request_id, 0, 70, 2))
    bench.tell(bench.partitions["t", 0], messages.LogDescribed(first.request_id, 0, 50, 0))
    (directory,) = client.answers()[0].results
    assert directory.log_dir == str(tmp_path) and not directory.error_code and not directory.is_cordoned
    assert {topic.name: [(part.partition_index, part.partition_size, part.offset_lag, part.is_future_key)
                         for part in topic.partitions] for topic in directory.topics} == {
        "t": [(0, 50, 0, False)], "u": [(0, 70, 2, False)]}
    if version >= 4:
        assert 0 < directory.usable_bytes <= directory.total_bytes
    else:
        assert directory.usable_bytes == directory.total_bytes == -1


def test_only_what_was_asked_for_is_measured_once_and_a_dead_partition_is_left_out(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t", "u")
    client = bench.client()
    none: Any = client.ask(ApiKey.DESCRIBE_LOG_DIRS, 5, kafka.DescribeLogDirsRequest([]))
    assert [directory.topics for directory in none.results] == [[]]
    wanted = [kafka.DescribableLogDirTopic(name, [0, 0, 9]) for name in ("t", "t", "nope")]
    client.send(ApiKey.DESCRIBE_LOG_DIRS, 5, kafka.DescribeLogDirsRequest(wanted))
    assert len(bench.sent(messages.DescribeLog)) == 1
    bench.down("t")
    assert client.answers()[0].results[0].topics == []


def test_a_partition_tells_its_size_and_its_producers(tmp_path: Path) -> None:
    partition = Partition(tmp_path, {})
    partition.start()
    partition.link(BROKER)
    described = only(partition.send(BROKER, messages.DescribeProducers(1)), messages.ProducersDescribed)
    assert described.error == ErrorCode.NOT_LEADER_OR_FOLLOWER
    partition.send(BROKER, messages.BecomeLeader(0, {}))
    partition.produce(numbered(0, 3), numbered(3, 2), numbered(0, 1, producer_id=9, epoch=4))
    described = only(partition.send(BROKER, messages.DescribeProducers(2)), messages.ProducersDescribed)
    assert [(each[:3], each[4:]) for each in described.producers] == [((7, 0, 4), (-1, -1)), ((9, 4, 0), (-1, -1))]
    assert all(each[3] > 1_600_000_000_000 for each in described.producers)
    measured = only(partition.send(BROKER, messages.DescribeLog(3)), messages.LogDescribed)
    size = sum(path.stat().st_size for path in (tmp_path / "orders-0").glob("*.log"))
    assert (measured.error, measured.size_bytes, measured.offset_lag) == (0, size, 0)


# -- producers and transactions ------------------------------------------------------------------


def test_producers_of_partitions_each_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    topics = [producers_api.TopicRequest("t", [0, 0, 9]), producers_api.TopicRequest("nope", [0]),
              producers_api.TopicRequest("", [0]), producers_api.TopicRequest("t", [0])]
    client.send(ApiKey.DESCRIBE_PRODUCERS, 0, kafka.DescribeProducersRequest(topics))
    (asked,) = bench.sent(messages.DescribeProducers)
    told = messages.ProducersDescribed(asked.request_id, 0, [(7, 1, 41, 1_000, -1, -1)])
    bench.tell(bench.partitions["t", 0], told)
    here, nope, nameless = client.answers()[0].topics
    served, missing = here.partitions
    (producer,) = served.active_producers
    assert (producer.producer_id, producer.producer_epoch, producer.last_sequence) == (7, 1, 41)
    assert (producer.last_timestamp, producer.coordinator_epoch, producer.current_txn_start_offset) == (1_000, -1, -1)
    assert (missing.partition_index, missing.error_code) == (9, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    assert nope.partitions[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert nope.partitions[0].error_message == "This server does not host this topic-partition."
    assert nameless.partitions[0].error_code == ErrorCode.INVALID_TOPIC_EXCEPTION


def test_a_partition_that_dies_does_not_tell_its_producers(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    request = kafka.DescribeProducersRequest([producers_api.TopicRequest("t", [0])])
    client.send(ApiKey.DESCRIBE_PRODUCERS, 0, request)
    bench.down("t")
    assert client.answers()[0].topics[0].partitions[0].error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER


def test_nobody_has_a_transaction(bench: Bench) -> None:
    client = bench.client()
    answer = client.ask(ApiKey.DESCRIBE_TRANSACTIONS, 0, kafka.DescribeTransactionsRequest(["x", ""]))
    assert [(each.transactional_id, each.error_code) for each in answer.transaction_states] == [
        ("x", ErrorCode.TRANSACTIONAL_ID_NOT_FOUND), ("", ErrorCode.INVALID_REQUEST)]


@pytest.mark.parametrize("version", range(3))
def test_transactions_are_none_and_filters_are_checked(bench: Bench, version: int) -> None:
    client = bench.client()
    request = kafka.ListTransactionsRequest(["Ongoing", "Foo"], [1], 5, "a.*" if version == 2 else None)
    answer = client.ask(ApiKey.LIST_TRANSACTIONS, version, request)
    assert (answer.error_code, answer.transaction_states, answer.unknown_state_filters) == (0, [], ["Foo"])
    if version == 2:
        for pattern in ("[", "(" * 600, "x" * 2000):
            bad = kafka.ListTransactionsRequest(transactional_id_pattern=pattern)
            assert client.ask(ApiKey.LIST_TRANSACTIONS, 2, bad).error_code == ErrorCode.INVALID_REGULAR_EXPRESSION


# -- configuration -------------------------------------------------------------------------------


def test_a_topic_s_value_hides_the_topology_s_which_hides_kafka_s() -> None:
    entries = {entry.name: entry for entry in describe_topic({"segment.bytes": "2000000"}, Layers(
        {}, {}, {"segment.bytes": "3000000", "retention.ms": "5"}))}
    assert list(entries) == list(TOPIC_CONFIG)
    segment = entries["segment.bytes"]
    assert (segment.value, segment.source, segment.read_only) == ("2000000", 1, False)
    assert segment.synonyms == (
        ("segment.bytes", "2000000", 1), ("log.segment.bytes", "3000000", 4), ("log.segment.bytes", "1073741824", 5))
    assert entries["retention.ms"].synonyms == (("log.retention.ms", "5", 4),)  # as Kafka, whose default is in hours
    assert entries["segment.ms"].synonyms == entries["remote.storage.enable"].synonyms == ()
    assert entries["compression.type"].synonyms == (("compression.type", "producer", 5),)


def test_names_of_brokers_for_topics_are_of_topics() -> None:
    assert not (BROKER_NAMES.keys() | TOPIC_ONLY) - TOPIC_CONFIG.keys()
    assert not set(BROKER_NAMES.values()) & TOPIC_CONFIG.keys()


def test_a_broker_tells_what_it_obeys_and_where_it_comes_from() -> None:
    defaults = {key: setting.default for key, setting in BROKER_SETTINGS.items()} | {
        "num.partitions": "4", "retention.ms": "1000"}
    described = describe_broker(3, rack="r1", log_dir="/d", endpoints=[
        messages.Endpoint("kafka", "kafka", "h", 1), messages.Endpoint("zmq", "zmq", "h", 2)], layers=Layers({"log.roll.ms": "7"}, {"log.roll.ms": "8"}, defaults))
    entries = {entry.name: entry for entry in described}
    assert [entry.name for entry in described] == sorted(entries)
    assert {entry.name for entry in described if not entry.read_only} == DYNAMIC
    assert entries["log.roll.ms"].synonyms == (("log.roll.ms", "7", 2), ("log.roll.ms", "8", 3))
    assert (entries["log.roll.ms"].value, entries["log.roll.ms"].source) == ("7", 2)
    assert BROKER_SETTINGS.keys() < entries.keys()
    assert entries["num.partitions"].synonyms == (("num.partitions", "4", 4), ("num.partitions", "1", 5))
    assert (entries["max.connections"].source, entries["max.connections"].type) == (5, 3)
    assert (entries["queued.max.request.bytes"].type, entries["auto.create.topics.enable"].type) == (5, 1)
    assert (entries["log.retention.ms"].value, entries["log.retention.ms"].source) == ("1000", 4)
    assert entries["advertised.listeners"].value == "kafka://h:1,zmq://h:2"
    assert (entries["node.id"].value, entries["broker.rack"].value, entries["log.dirs"].value) == ("3", "r1", "/d")


def test_what_cannot_be_described_is_refused_in_kafka_s_words(bench: Bench) -> None:
    bench.create("t")
    expected = {
        (2, "t"): (0, ""), (2, "none"): (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ""),
        (2, "__cluster"): (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ""),
        (2, "a b"): (ErrorCode.INVALID_TOPIC_EXCEPTION, "Topic name is invalid"),
        (4, "1"): (0, ""), (4, ""): (0, ""),
        (4, "2"): (ErrorCode.INVALID_REQUEST, "Unexpected broker id, expected 1 or empty string, but received 2"),
        (4, "x"): (ErrorCode.INVALID_REQUEST, "Broker id must be an integer, but it is: x"),
        (8, "1"): (0, ""), (8, "2"): (ErrorCode.INVALID_REQUEST, "expected 1 but received 2"),
        (16, "s"): (0, ""), (16, ""): (ErrorCode.INVALID_REQUEST, "subscription name must not be empty"),
        (32, "g"): (0, ""), (32, ""): (ErrorCode.INVALID_REQUEST, "Group name must not be empty"),
    }
    resources = [kafka.DescribeConfigsResource(kind, name, None) for kind, name in expected]
    answer = bench.client().ask(ApiKey.DESCRIBE_CONFIGS, 4, kafka.DescribeConfigsRequest(resources))
    for result, ((kind, name), (error, words)) in zip(answer.results, expected.items(), strict=True):
        assert (result.resource_type, result.resource_name, result.error_code) == (kind, name, error)
        assert words in result.error_message
    assert [len(result.configs) > 0 for result in answer.results[:6]] == [True, False, False, False, True, False]


def test_one_kind_of_resource_that_does_not_exist_has_all_refused(bench: Bench) -> None:
    resources = [kafka.DescribeConfigsResource(kind, name, None) for kind, name in ((2, "t"), (1, "x"))]
    answer = bench.client().ask(ApiKey.DESCRIBE_CONFIGS, 4, kafka.DescribeConfigsRequest(resources))
    assert [result.error_code for result in answer.results] == [ErrorCode.INVALID_REQUEST] * 2
    assert all("malformed by the client" in str(result.error_message) for result in answer.results)


def test_resources_that_have_a_configuration(bench: Bench) -> None:
    bench.commit(cs.BrokerRegistered(2, 1, "", []))
    bench.create("b")
    bench.create("a")
    client = bench.client()

    def listed(version: int, *kinds: int) -> list[tuple[int, str]]:
        answer = client.ask(ApiKey.LIST_CONFIG_RESOURCES, version, kafka.ListConfigResourcesRequest(list(kinds)))
        assert answer.error_code == 0
        return [(each.resource_type, each.resource_name) for each in answer.config_resources]

    assert listed(1, 2) == [(2, "b"), (2, "a")]
    assert listed(1, 4) == [(4, str(BROKER_ID)), (4, "2")]
    assert listed(1) == [(8, "1"), (8, "2"), (4, "1"), (4, "2"), (2, "b"), (2, "a")]
    assert listed(0) == listed(1, 16) == listed(1, 32) == []
    refused = client.ask(ApiKey.LIST_CONFIG_RESOURCES, 1, kafka.ListConfigResourcesRequest([2, 99]))
    assert refused.error_code == ErrorCode.UNSUPPORTED_VERSION
