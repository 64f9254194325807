"""Metadata, topics, configuration, producer ids, coordinators: the APIs that are about the cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.broker_bench import COORDINATOR, SUPERVISOR, Bench, topic_id
from zafka.actors import cluster_state as cs, messages
from zafka.actors.actor import Peer
from zafka.actors.gateway.effects import Respond
from zafka.actors.gateway.registry import APIS, served
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode

RANGES = {
    ApiKey.PRODUCE: (3, 13), ApiKey.FETCH: (4, 18), ApiKey.LIST_OFFSETS: (1, 11), ApiKey.METADATA: (0, 13),
    ApiKey.FIND_COORDINATOR: (0, 6), ApiKey.API_VERSIONS: (0, 4), ApiKey.CREATE_TOPICS: (2, 7),
    ApiKey.DELETE_TOPICS: (1, 6), ApiKey.INIT_PRODUCER_ID: (0, 5), ApiKey.OFFSET_FOR_LEADER_EPOCH: (2, 4),
    ApiKey.DESCRIBE_CONFIGS: (1, 4),
    ApiKey.CREATE_PARTITIONS: (0, 3), ApiKey.DELETE_RECORDS: (0, 2),
    ApiKey.DESCRIBE_TOPIC_PARTITIONS: (0, 0), ApiKey.DESCRIBE_CLUSTER: (0, 2), ApiKey.DESCRIBE_LOG_DIRS: (1, 5),
    ApiKey.LIST_CONFIG_RESOURCES: (0, 1), ApiKey.DESCRIBE_PRODUCERS: (0, 0), ApiKey.DESCRIBE_TRANSACTIONS: (0, 0),
    ApiKey.LIST_TRANSACTIONS: (0, 2),
    ApiKey.DESCRIBE_ACLS: (1, 3), ApiKey.CREATE_ACLS: (1, 3), ApiKey.DELETE_ACLS: (1, 3), ApiKey.ALTER_CONFIGS: (0, 2),
    ApiKey.INCREMENTAL_ALTER_CONFIGS: (0, 1), ApiKey.ELECT_LEADERS: (0, 2), ApiKey.ALTER_PARTITION_REASSIGNMENTS: (0, 1),
    ApiKey.LIST_PARTITION_REASSIGNMENTS: (0, 0), ApiKey.DESCRIBE_QUORUM: (0, 2), ApiKey.DESCRIBE_CLIENT_QUOTAS: (0, 1),
    ApiKey.ALTER_CLIENT_QUOTAS: (0, 1), ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS: (0, 0),
    ApiKey.ALTER_USER_SCRAM_CREDENTIALS: (0, 0),
    ApiKey.OFFSET_COMMIT: (2, 10), ApiKey.OFFSET_FETCH: (1, 10), ApiKey.OFFSET_DELETE: (0, 0),
    ApiKey.LIST_GROUPS: (0, 5), ApiKey.DESCRIBE_GROUPS: (0, 6), ApiKey.DELETE_GROUPS: (0, 2),
    ApiKey.JOIN_GROUP: (0, 9), ApiKey.SYNC_GROUP: (0, 5), ApiKey.HEARTBEAT: (0, 4), ApiKey.LEAVE_GROUP: (0, 5),
    ApiKey.CONSUMER_GROUP_HEARTBEAT: (0, 1), ApiKey.CONSUMER_GROUP_DESCRIBE: (0, 1),
    ApiKey.UPDATE_FEATURES: (0, 2), ApiKey.SASL_HANDSHAKE: (0, 1), ApiKey.SASL_AUTHENTICATE: (0, 2),
}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path).start()


# -- versions ------------------------------------------------------------------------------------


def test_the_served_ranges_are_those_of_the_issue() -> None:
    assert {key: (api.versions.start, api.versions.stop - 1) for key, api in APIS.items()} == RANGES
    for key, (first, last) in RANGES.items():
        assert all(served(key, version) for version in range(first, last + 1))
        assert served(key, last + 1) is None and served(key, first - 1) is None


@pytest.mark.parametrize("version", range(5))
def test_api_versions_advertises_what_is_served_and_old_produce(bench: Bench, version: int) -> None:
    answer = bench.client().ask(ApiKey.API_VERSIONS, version, kafka.ApiVersionsRequest("librdkafka", "2.15.0"))
    advertised = {api.api_key: (api.min_version, api.max_version) for api in answer.api_keys}
    assert advertised == {**RANGES, ApiKey.PRODUCE: (0, 13)}
    assert answer.error_code == 0
    supported = [(each.name, each.min_version, each.max_version) for each in answer.supported_features]
    finalized = [(each.name, each.min_version_level, each.max_version_level) for each in answer.finalized_features]
    assert supported == finalized == ([("group.version", 1, 1)] if version >= 3 else [])
    assert answer.finalized_features_epoch == (0 if version >= 3 else -1)


def test_a_client_name_that_is_none_is_refused(bench: Bench) -> None:
    answer = bench.client().ask(ApiKey.API_VERSIONS, 3, kafka.ApiVersionsRequest("bad name!", "1"))
    assert answer.error_code == ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("version", range(3))
def test_a_feature_that_is_on_stays_on_and_others_do_not_come(bench: Bench, version: int) -> None:
    def update(*updates: tuple[str, int, int]) -> Any:
        return bench.client().ask(ApiKey.UPDATE_FEATURES, version, kafka.UpdateFeaturesRequest(
            60_000, [kafka.FeatureUpdateKey(*each) for each in updates]))

    answer = update(("group.version", 1, 1))
    assert (answer.error_code, answer.error_message) == (0, None)
    assert [(each.feature, each.error_code) for each in answer.results] == ([("group.version", 0)] if version < 2 else [])
    assert update().error_code == 0
    for wrong, reason in [
        (("group.version", 0, 2), "only supports versions 1-1"), (("group.version", 2, 1), "only supports versions 1-1"),
        (("group.version", -1, 1), "cannot be less than 0"), (("transaction.version", 2, 1), "does not support this feature"),
        (("no.such", 0, 2), "Feature no.such not found"),
    ]:
        answer = update(("group.version", 1, 1), wrong)
        assert (answer.error_code, answer.results) == (ErrorCode.INVALID_UPDATE_VERSION, [])
        assert reason in answer.error_message and f"version {wrong[1]} for feature {wrong[0]}" in answer.error_message
    if version >= 1:
        assert "upgrade type" in update(("group.version", 1, 9)).error_message


# -- metadata ------------------------------------------------------------------------------------


def metadata(*names: str, create: bool = True) -> kafka.MetadataRequest:
    topics = [kafka.MetadataRequestTopic(name=name) for name in names]
    return kafka.MetadataRequest(topics=topics, allow_auto_topic_creation=create)


@pytest.mark.parametrize("version", range(14))
def test_metadata_tells_brokers_and_leaders(bench: Bench, version: int) -> None:
    bench.create("t", partitions=2)
    bench.serve("t", 1, epoch=3)
    answer = bench.client().ask(ApiKey.METADATA, version, metadata("t"))
    (broker,) = answer.brokers
    assert (broker.node_id, broker.host, broker.port) == (1, "127.0.0.1", 9092)
    (topic,) = answer.topics
    assert (topic.name, topic.error_code) == ("t", 0)
    waiting, leading = topic.partitions
    assert (waiting.error_code, waiting.leader_id) == (ErrorCode.LEADER_NOT_AVAILABLE, -1)
    assert (leading.error_code, leading.leader_id, leading.isr_nodes, leading.replica_nodes) == (0, 1, [1], [1])
    if version >= 1:
        assert (answer.controller_id, broker.rack) == (1, "a")
    if version >= 2:
        assert answer.cluster_id == "cluster"
    if version >= 7:
        assert leading.leader_epoch == 3
    if version >= 10:
        assert topic.topic_id == topic_id("t")
    assert topic.topic_authorized_operations == -2147483648
    assert answer.cluster_authorized_operations == -2147483648


def test_all_topics_are_null_but_in_version_0_an_empty_list(bench: Bench) -> None:
    bench.create("a")
    bench.create("b")
    client = bench.client()

    def names(version: int, topics: Any) -> list[str]:
        answer = client.ask(ApiKey.METADATA, version, kafka.MetadataRequest(topics=topics))
        return [topic.name for topic in answer.topics]

    assert names(0, []) == ["a", "b"]
    assert names(1, None) == names(12, None) == ["a", "b"]
    assert names(1, []) == names(12, []) == []


def test_addresses_are_those_of_the_listener_that_the_client_came_by(bench: Bench) -> None:
    for listener, host, port in (("outside", "broker.example", 19092), ("zmq", "127.0.0.1", 9290)):
        (broker,) = bench.client(listener).ask(ApiKey.METADATA, 9, metadata()).brokers
        assert (broker.host, broker.port) == (host, port)


def test_a_topic_is_found_by_its_id(bench: Bench) -> None:
    bench.create("t")
    wanted = [kafka.MetadataRequestTopic(topic_id("t"), None), kafka.MetadataRequestTopic(b"?" * 16, None)]
    answer = bench.client().ask(ApiKey.METADATA, 12, kafka.MetadataRequest(topics=wanted))
    assert [(topic.error_code, topic.name) for topic in answer.topics] == [
        (0, "t"), (ErrorCode.UNKNOWN_TOPIC_ID, None)]


@pytest.mark.parametrize("version", [10, 11])
def test_ids_in_versions_that_may_not_use_them_are_refused(bench: Bench, version: int) -> None:
    bench.create("t")
    wanted = [kafka.MetadataRequestTopic(topic_id("t"), None)]
    wanted.append(kafka.MetadataRequestTopic(name="t"))
    answer = bench.client().ask(ApiKey.METADATA, version, kafka.MetadataRequest(topics=wanted))
    assert [(topic.error_code, topic.name) for topic in answer.topics] == [
        (ErrorCode.INVALID_REQUEST, ""), (ErrorCode.INVALID_REQUEST, "t")]


def test_where_an_id_is_asked_for_names_are_passed_over(bench: Bench) -> None:
    bench.create("t")
    wanted = [kafka.MetadataRequestTopic(topic_id("t"), None), kafka.MetadataRequestTopic(name="new")]
    answer = bench.client().ask(ApiKey.METADATA, 13, kafka.MetadataRequest(topics=wanted))
    assert [topic.name for topic in answer.topics] == ["t"] and answer.error_code == 0
    assert not bench.sent(messages.CreateTopics)


@pytest.mark.parametrize("version", [8, 10, 13])
def test_without_an_authorizer_every_operation_is_authorized(bench: Bench, version: int) -> None:
    """The numbers that Apache Kafka 4.3 gives."""
    bench.create("t")
    request = kafka.MetadataRequest(
        [kafka.MetadataRequestTopic(name="t"), kafka.MetadataRequestTopic(name="none")], False, include_cluster_authorized_operations=True,
        include_topic_authorized_operations=True)
    answer = bench.client().ask(ApiKey.METADATA, version, request)
    assert [topic.topic_authorized_operations for topic in answer.topics] == [3576, 3576]  # also on what may come to be
    assert answer.cluster_authorized_operations == (8096 if version <= 10 else -(2**31))


def test_a_topic_that_is_missing_is_created_once_and_then_there(bench: Bench) -> None:
    client, other = bench.client(), bench.client()
    answer = client.ask(ApiKey.METADATA, 9, metadata("new"))
    assert [topic.error_code for topic in answer.topics] == [ErrorCode.LEADER_NOT_AVAILABLE]
    (asked,) = bench.sent(messages.CreateTopics)
    assert asked.topics == [messages.NewTopic("new", -1, -1, {})]
    answer = other.ask(ApiKey.METADATA, 9, metadata("new"))
    assert [topic.error_code for topic in answer.topics] == [ErrorCode.LEADER_NOT_AVAILABLE]
    assert not bench.sent(messages.CreateTopics)
    result = messages.TopicResult("new", 0, "", topic_id("new"), 1, 1)
    bench.tell(COORDINATOR, messages.TopicsCreated(asked.request_id, [result], 9))
    bench.create("new")
    bench.serve("new")
    (topic,) = client.ask(ApiKey.METADATA, 9, metadata("new")).topics
    assert (topic.error_code, topic.partitions[0].leader_id) == (0, 1)


def test_a_topic_is_not_created_if_nobody_wants_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, defaults={"auto.create.topics.enable": "false"}).start()
    (topic,) = bench.client().ask(ApiKey.METADATA, 9, metadata("new")).topics
    assert topic.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION and not bench.sent(messages.CreateTopics)


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "x" * 250])
def test_a_name_that_no_topic_may_have_is_told_so(bench: Bench, name: str) -> None:
    (topic,) = bench.client().ask(ApiKey.METADATA, 9, metadata(name)).topics
    assert topic.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION and not bench.sent(messages.CreateTopics)


def test_without_the_wish_a_missing_topic_is_unknown(bench: Bench) -> None:
    (topic,) = bench.client().ask(ApiKey.METADATA, 9, metadata("new", create=False)).topics
    assert topic.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION and not bench.sent(messages.CreateTopics)


# -- topics --------------------------------------------------------------------------------------


def create(*topics: kafka.CreatableTopic, timeout_ms: int = 5_000, only_check: bool = False) -> Any:
    return kafka.CreateTopicsRequest(list(topics), timeout_ms, only_check)


@pytest.mark.parametrize("version", range(2, 8))
def test_a_created_topic_is_answered_when_it_serves(bench: Bench, version: int) -> None:
    client = bench.client()
    config = [kafka.CreatableTopicConfig("retention.ms", "5")]
    client.send(ApiKey.CREATE_TOPICS, version, create(kafka.CreatableTopic("t", 1, 1, [], config)))
    (asked,) = bench.sent(messages.CreateTopics)
    assert asked.topics == [messages.NewTopic("t", 1, 1, {"retention.ms": "5"}, [])]
    result = messages.TopicResult("t", 0, "", topic_id("t"), 1, 1)
    bench.tell(COORDINATOR, messages.TopicsCreated(asked.request_id, [result], 2))
    bench.create("t", config={"retention.ms": "5"})
    assert not bench.of(Respond)
    bench.serve("t")
    (answer,) = client.answers()
    (topic,) = answer.topics
    assert (topic.name, topic.error_code) == ("t", 0)
    if version >= 5:
        assert (topic.num_partitions, topic.replication_factor) == (1, 1)
        entry = next(entry for entry in topic.configs if entry.name == "retention.ms")
        assert (entry.value, entry.config_source) == ("5", 1)
    if version >= 7:
        assert topic.topic_id == topic_id("t")


def test_a_topic_that_does_not_serve_in_time_is_answered_so(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.CREATE_TOPICS, 7, create(kafka.CreatableTopic("t", 1, 1), timeout_ms=1_000))
    (asked,) = bench.sent(messages.CreateTopics)
    result = messages.TopicResult("t", 0, "", topic_id("t"), 1, 1)
    bench.tell(COORDINATOR, messages.TopicsCreated(asked.request_id, [result], 2))
    bench.pass_time(1.1)
    (answer,) = client.answers()
    assert [topic.error_code for topic in answer.topics] == [ErrorCode.REQUEST_TIMED_OUT]
    assert not bench.gateway.watchers


def test_the_coordinator_s_refusal_is_passed_on(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.CREATE_TOPICS, 7, create(kafka.CreatableTopic("t", 1, 1)))
    (asked,) = bench.sent(messages.CreateTopics)
    result = messages.TopicResult("t", ErrorCode.TOPIC_ALREADY_EXISTS, "it exists", bytes(16))
    bench.tell(COORDINATOR, messages.TopicsCreated(asked.request_id, [result], 2))
    (topic,) = client.answers()[0].topics
    assert (topic.error_code, topic.error_message) == (ErrorCode.TOPIC_ALREADY_EXISTS, "it exists")


def test_a_dry_run_is_answered_at_once(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.CREATE_TOPICS, 7, create(kafka.CreatableTopic("t", 1, 1), only_check=True))
    (asked,) = bench.sent(messages.CreateTopics)
    assert asked.validate_only
    result = messages.TopicResult("t", 0, "", bytes(16), 1, 1)
    bench.tell(COORDINATOR, messages.TopicsCreated(asked.request_id, [result], 2))
    assert [topic.error_code for topic in client.answers()[0].topics] == [0]


def test_what_is_wrong_in_a_request_for_topics_is_refused_without_a_question(bench: Bench) -> None:
    twice = [kafka.CreatableTopic("t", 1, 1), kafka.CreatableTopic("t", 1, 1)]
    gap = kafka.CreatableTopic("gap", -1, -1, [kafka.CreatableReplicaAssignment(1, [1])])
    again = kafka.CreatableTopic("again", -1, -1, [kafka.CreatableReplicaAssignment(0, [1])] * 2)
    null = kafka.CreatableTopic("null", 1, 1, [], [kafka.CreatableTopicConfig("retention.ms", None)])
    answer = bench.client().ask(ApiKey.CREATE_TOPICS, 7, create(*twice, gap, again, null))
    assert {topic.name: topic.error_code for topic in answer.topics} == {
        "t": ErrorCode.INVALID_REQUEST, "gap": ErrorCode.INVALID_REPLICA_ASSIGNMENT,
        "again": ErrorCode.INVALID_REPLICA_ASSIGNMENT,
        "null": ErrorCode.INVALID_CONFIG}
    assert not bench.sent(messages.CreateTopics)


def test_a_question_waits_for_the_coordinator_and_one_that_died_with_it_is_in_doubt(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.CREATE_TOPICS, 7, create(kafka.CreatableTopic("asked", 1, 1)))
    bench.tell(SUPERVISOR, messages.ActorDown(*COORDINATOR))
    (answer,) = client.answers()
    assert [topic.error_code for topic in answer.topics] == [ErrorCode.REQUEST_TIMED_OUT]
    client.send(ApiKey.CREATE_TOPICS, 7, create(kafka.CreatableTopic("kept", 1, 1)))
    assert not bench.sent(messages.CreateTopics) and not bench.of(Respond)
    bench.tell(SUPERVISOR, messages.ActorUp("coordinator", 8, "ipc://d"))
    bench.tell(Peer("coordinator", 8), messages.BrokerRegistered("cluster"))
    assert [topic.name for asked in bench.sent(messages.CreateTopics) for topic in asked.topics] == ["kept"]


@pytest.mark.parametrize("version", range(1, 7))
def test_a_deleted_topic_is_answered_when_nothing_of_it_is_left(tmp_path: Path, version: int) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    if version < 6:
        request = kafka.DeleteTopicsRequest(topic_names=["t"], timeout_ms=5_000)
    else:
        request = kafka.DeleteTopicsRequest([kafka.DeleteTopicState(None, topic_id("t"))], timeout_ms=5_000)
    client.send(ApiKey.DELETE_TOPICS, version, request)
    (asked,) = bench.sent(messages.DeleteTopics)
    assert asked.topics == [("t", bytes(16)) if version < 6 else ("", topic_id("t"))]
    result = messages.TopicResult("t", 0, "", topic_id("t"))
    bench.tell(COORDINATOR, messages.TopicsDeleted(asked.request_id, [result], 4))
    bench.commit(cs.TopicDeleted(topic_id("t")))
    assert not bench.of(Respond)
    bench.tell(SUPERVISOR, messages.PartitionStopped("t", 0))
    (response,) = client.answers()[0].responses
    assert (response.name, response.error_code) == ("t", 0)


def test_deleting_what_is_not_there(bench: Bench) -> None:
    client = bench.client()
    unknown = kafka.DeleteTopicState(None, b"?" * 16)
    answer = client.ask(ApiKey.DELETE_TOPICS, 6, kafka.DeleteTopicsRequest([unknown], timeout_ms=1_000))
    assert [each.error_code for each in answer.responses] == [ErrorCode.UNKNOWN_TOPIC_ID]
    for version in (3, 6):
        nobody = kafka.DeleteTopicsRequest([kafka.DeleteTopicState("")], [""], 1_000)
        (refused,) = client.ask(ApiKey.DELETE_TOPICS, version, nobody).responses
        assert refused.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    client.send(ApiKey.DELETE_TOPICS, 6, kafka.DeleteTopicsRequest([kafka.DeleteTopicState("no")], timeout_ms=1_000))
    (asked,) = bench.sent(messages.DeleteTopics)
    result = messages.TopicResult("no", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "", bytes(16))
    bench.tell(COORDINATOR, messages.TopicsDeleted(asked.request_id, [result], 4))
    assert [each.error_code for each in client.answers()[0].responses] == [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]


def test_topics_that_are_named_wrongly_are_refused_in_kafka_s_words(bench: Bench) -> None:
    bench.create("t")
    name, by_id = kafka.DeleteTopicState("t"), kafka.DeleteTopicState(None, topic_id("t"))
    neither, both = kafka.DeleteTopicState(None), kafka.DeleteTopicState("t", topic_id("t"))
    client = bench.client()

    def refused(*states: kafka.DeleteTopicState) -> tuple[str | None, bytes, int, str]:
        answer = client.ask(ApiKey.DELETE_TOPICS, 6, kafka.DeleteTopicsRequest(list(states), timeout_ms=1_000))
        (result,) = answer.responses
        return result.name, result.topic_id, result.error_code, result.error_message

    wrong = int(ErrorCode.INVALID_REQUEST)
    assert refused(neither) == (None, bytes(16), wrong, "Neither topic name nor id were specified.")
    assert refused(both) == ("t", topic_id("t"), wrong, "You may not specify both topic name and topic id.")
    assert refused(name, name) == ("t", bytes(16), wrong, "Duplicate topic name.")
    assert refused(by_id, by_id) == (None, topic_id("t"), wrong, "Duplicate topic id.")
    assert refused(name, by_id) == (
        "t", topic_id("t"), wrong, "The provided topic name maps to an ID that was already supplied.")


# -- configuration -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(1, 5))
def test_configuration_of_a_topic(bench: Bench, version: int) -> None:
    bench.create("t", config={"retention.ms": "5"})
    resources = [kafka.DescribeConfigsResource(2, "t", None), kafka.DescribeConfigsResource(2, "none", None)]
    request = kafka.DescribeConfigsRequest(resources, include_synonyms=True)
    known, unknown = bench.client().ask(ApiKey.DESCRIBE_CONFIGS, version, request).results
    entry = next(entry for entry in known.configs if entry.name == "retention.ms")
    assert (entry.value, entry.config_source, entry.synonyms[0].value) == ("5", 1, "5")
    assert unknown.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_only_the_keys_that_were_asked_for_and_all_for_an_empty_list(bench: Bench) -> None:
    bench.create("t")
    bench.create("u")
    resources = [kafka.DescribeConfigsResource(2, "t", ["retention.ms"]), kafka.DescribeConfigsResource(2, "u", [])]
    some, whole = bench.client().ask(ApiKey.DESCRIBE_CONFIGS, 4, kafka.DescribeConfigsRequest(resources)).results
    assert [entry.name for entry in some.configs] == ["retention.ms"] and len(whole.configs) > 30


def test_configuration_of_this_broker_and_of_none(bench: Bench) -> None:
    resources = [kafka.DescribeConfigsResource(4, name, None) for name in ("1", "9")]
    mine, other = bench.client().ask(ApiKey.DESCRIBE_CONFIGS, 4, kafka.DescribeConfigsRequest(resources)).results
    assert mine.configs and other.error_code == ErrorCode.INVALID_REQUEST


# -- producer ids and coordinators ---------------------------------------------------------------


@pytest.mark.parametrize("version", range(6))
def test_producer_ids_come_from_a_block(bench: Bench, version: int) -> None:
    client = bench.client()
    request = kafka.InitProducerIdRequest(None, 60_000)
    bench.turn(*(client.mail(ApiKey.INIT_PRODUCER_ID, version, request) for _ in range(2)))
    (asked,) = bench.sent(messages.AllocateProducerIds)
    bench.tell(COORDINATOR, messages.ProducerIdsAllocated(asked.request_id, 500, 3))
    assert [(answer.producer_id, answer.producer_epoch) for answer in client.answers()] == [(500, 0), (501, 0)]
    assert client.ask(ApiKey.INIT_PRODUCER_ID, version, request).producer_id == 502
    client.send(ApiKey.INIT_PRODUCER_ID, version, request)
    assert len(bench.sent(messages.AllocateProducerIds)) == 1


def test_a_producer_with_an_id_gets_its_next_epoch(bench: Bench) -> None:
    bench.commit(cs.ProducerIdsAllocated(0, 1000))
    client = bench.client()
    answer = client.ask(ApiKey.INIT_PRODUCER_ID, 4, kafka.InitProducerIdRequest(None, 0, 77, 4))
    assert (answer.error_code, answer.producer_id, answer.producer_epoch) == (0, 77, 5)
    for producer_id, epoch in ((77, -1), (-1, 3)):
        answer = client.ask(ApiKey.INIT_PRODUCER_ID, 4, kafka.InitProducerIdRequest(None, 0, producer_id, epoch))
        assert answer.error_code == ErrorCode.INVALID_REQUEST
    for producer_id, epoch in ((5000, 1), (77, 32766), (-1, -1)):
        client.send(ApiKey.INIT_PRODUCER_ID, 4, kafka.InitProducerIdRequest(None, 0, producer_id, epoch))
        assert not bench.of(Respond)  # a new id is needed


def test_without_a_coordinator_a_producer_is_told_to_try_again(bench: Bench) -> None:
    bench.tell(SUPERVISOR, messages.ActorDown(*COORDINATOR))
    client = bench.client()
    client.send(ApiKey.INIT_PRODUCER_ID, 4, kafka.InitProducerIdRequest(None, 0))
    bench.pass_time(10.5)
    (answer,) = client.answers()
    assert answer.error_code == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    bench.tell(SUPERVISOR, messages.ActorUp("coordinator", 8, "ipc://d"))
    bench.tell(Peer("coordinator", 8), messages.BrokerRegistered("cluster"))
    (asked,) = bench.sent(messages.AllocateProducerIds)
    bench.tell(Peer("coordinator", 8), messages.ProducerIdsAllocated(asked.request_id, 0, 10))
    assert client.ask(ApiKey.INIT_PRODUCER_ID, 4, kafka.InitProducerIdRequest(None, 0)).producer_id == 0


def test_transactions_are_refused_for_good(bench: Bench) -> None:
    client = bench.client()
    answer = client.ask(ApiKey.INIT_PRODUCER_ID, 4, kafka.InitProducerIdRequest("x", 60_000))
    assert answer.error_code == ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    answer = client.ask(ApiKey.INIT_PRODUCER_ID, 4, kafka.InitProducerIdRequest("", 60_000))
    assert answer.error_code == ErrorCode.INVALID_REQUEST
    answer = client.ask(ApiKey.FIND_COORDINATOR, 3, kafka.FindCoordinatorRequest("x", 1))
    assert answer.error_code == ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    assert "not supported yet" in answer.error_message
    answer = client.ask(ApiKey.FIND_COORDINATOR, 6, kafka.FindCoordinatorRequest("", 2, ["x:y:0"]))
    assert [each.error_code for each in answer.coordinators] == [ErrorCode.INVALID_REQUEST]


def test_an_internal_topic_is_internal_also_while_it_is_missing(bench: Bench) -> None:
    answer = bench.client().ask(ApiKey.METADATA, 9, metadata("__share_group_state", "none", create=False))
    assert [(topic.error_code, topic.is_internal) for topic in answer.topics] == [
        (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, True), (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, False)]
