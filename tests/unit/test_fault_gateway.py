"""Kafka errors on demand: for every API and version that is served, a client reads the error where it looks for one,
and nothing was done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.kafka_oracle import kio_class, kio_read
from tests.unit.broker_bench import SUPERVISOR, Bench, advanced, make_batch, read, topic_id
from zafka.actors import messages
from zafka.actors.gateway.effects import ReadFault, Respond
from zafka.actors.gateway.registry import APIS
from zafka.runtime.faults.api_errors import FORMS
from zafka.runtime.faults.board import Board, Watch
from zafka.runtime.faults.forms import MESSAGE
from zafka.runtime.faults.gateway import FaultyApis
from zafka.runtime.faults.kinds import ApiFault
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import read_response_header
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import (
    ApiVersionsRequest,
    CreatableTopic,
    CreateTopicsRequest,
    DeleteTopicsRequest,
    DeleteTopicState,
    DescribeConfigsRequest,
    DescribeConfigsResource,
    FetchPartition,
    FetchRequest,
    FetchTopic,
    FindCoordinatorRequest,
    InitProducerIdRequest,
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
    MetadataRequest,
    MetadataRequestTopic,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
    alter_client_quotas,
    alter_configs,
    alter_user_scram_credentials,
    delete_records,
    describe_producers,
    describe_topic_partitions,
    elect_leaders,
    incremental_alter_configs,
)

SERVED = [(ApiKey(key), version) for key, api in APIS.items() for version in api.versions]
BATCH = make_batch(b"v")
ERROR = ErrorCode.KAFKA_STORAGE_ERROR


class Faulty:
    """A broker on the bench that serves the topics t and u, with a board."""

    def __init__(self, directory: Path) -> None:
        self.board = Board(directory / "faults")
        self.watch = Watch(self.board.folder, "broker 1")
        (directory / "data").mkdir()
        self.bench = Bench(directory / "data").start("t", "u")
        self.bench.gateway.served = FaultyApis(self.bench.gateway.served, self.watch).served
        for peer in self.bench.partitions.values():
            self.bench.tell(peer, advanced(5, 500))
        self.client = self.bench.client()

    def fault(self, api: ApiKey, **fields: Any) -> None:
        self.board.post(ApiFault(api=api.name, **fields))


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[Faulty]:
    faulty = Faulty(tmp_path)
    yield faulty
    faulty.watch.close()
    faulty.board.close()


def produce(*topics: str, acks: int = -1, batch: bytes = BATCH) -> ProduceRequest:
    data = [PartitionProduceData(0, memoryview(batch))]
    return ProduceRequest(None, acks, 30_000, [TopicProduceData(topic_id(name), name, data) for name in topics])


def fetch(*topics: str, max_wait_ms: int = 500) -> FetchRequest:
    wanted = [FetchPartition(0, fetch_offset=0, partition_max_bytes=1000)]
    return FetchRequest(max_wait_ms=max_wait_ms, min_bytes=1, topics=[
        FetchTopic(topic_id(name), name, wanted) for name in topics])


REQUESTS: dict[ApiKey, Callable[[int, tuple[str, ...]], Any]] = {
    ApiKey.PRODUCE: lambda version, names: produce(*names),
    ApiKey.FETCH: lambda version, names: fetch(*names),
    ApiKey.LIST_OFFSETS: lambda version, names: ListOffsetsRequest(
        -1, 0, [ListOffsetsTopic(name, [ListOffsetsPartition(0, -1, -1)]) for name in names]),
    ApiKey.METADATA: lambda version, names: MetadataRequest([MetadataRequestTopic(name=name) for name in names]),
    ApiKey.FIND_COORDINATOR: lambda version, names: FindCoordinatorRequest("g", 0, ["g", "h"]),
    ApiKey.API_VERSIONS: lambda version, names: ApiVersionsRequest("test", "1"),
    ApiKey.CREATE_TOPICS: lambda version, names: CreateTopicsRequest(
        [CreatableTopic(name, 1, 1) for name in names], 1000),
    ApiKey.DELETE_TOPICS: lambda version, names: DeleteTopicsRequest(
        [DeleteTopicState(name) for name in names], list(names), 1000),
    ApiKey.INIT_PRODUCER_ID: lambda version, names: InitProducerIdRequest(None, 1000),
    ApiKey.OFFSET_FOR_LEADER_EPOCH: lambda version, names: OffsetForLeaderEpochRequest(
        -1, [OffsetForLeaderTopic(name, [OffsetForLeaderPartition(0, -1, 0)]) for name in names]),
    ApiKey.DESCRIBE_CONFIGS: lambda version, names: DescribeConfigsRequest(
        [DescribeConfigsResource(2, name, None) for name in names]),
    ApiKey.ALTER_CONFIGS: lambda version, names: alter_configs.AlterConfigsRequest([
        alter_configs.AlterConfigsResource(2, name, [alter_configs.AlterableConfig("retention.ms", "1")]) for name in names]),
    ApiKey.INCREMENTAL_ALTER_CONFIGS: lambda version, names: incremental_alter_configs.IncrementalAlterConfigsRequest([
        incremental_alter_configs.AlterConfigsResource(
            2, name, [incremental_alter_configs.AlterableConfig("retention.ms", 0, "1")]) for name in names]),
    ApiKey.CREATE_PARTITIONS: lambda version, names: kafka.CreatePartitionsRequest(
        [kafka.CreatePartitionsTopic(name, 2, None) for name in names], 1000),
    ApiKey.DELETE_RECORDS: lambda version, names: kafka.DeleteRecordsRequest(
        [delete_records.DeleteRecordsTopic(name, [delete_records.DeleteRecordsPartition(0, 1)]) for name in names], 1000),
    ApiKey.DESCRIBE_TOPIC_PARTITIONS: lambda version, names: kafka.DescribeTopicPartitionsRequest(
        [describe_topic_partitions.TopicRequest(name) for name in names]),
    ApiKey.DESCRIBE_PRODUCERS: lambda version, names: kafka.DescribeProducersRequest(
        [describe_producers.TopicRequest(name, [0]) for name in names]),
    ApiKey.DESCRIBE_CLUSTER: lambda version, names: kafka.DescribeClusterRequest(),
    ApiKey.DESCRIBE_LOG_DIRS: lambda version, names: kafka.DescribeLogDirsRequest(None),
    ApiKey.LIST_CONFIG_RESOURCES: lambda version, names: kafka.ListConfigResourcesRequest([]),
    ApiKey.DESCRIBE_TRANSACTIONS: lambda version, names: kafka.DescribeTransactionsRequest(["x", "y"]),
    ApiKey.LIST_TRANSACTIONS: lambda version, names: kafka.ListTransactionsRequest(),
    ApiKey.DESCRIBE_ACLS: lambda version, names: kafka.DescribeAclsRequest(1, None, 1, None, None, 1, 1),
    ApiKey.CREATE_ACLS: lambda version, names: kafka.CreateAclsRequest([kafka.AclCreation(2, "t", 3, "User:a", "*", 3, 3)]),
    ApiKey.DELETE_ACLS: lambda version, names: kafka.DeleteAclsRequest([kafka.DeleteAclsFilter(2, "t", 3, None, None, 1, 1)]),
    ApiKey.ELECT_LEADERS: lambda version, names: kafka.ElectLeadersRequest(
        0, [elect_leaders.TopicPartitions(name, [0]) for name in names]),
    ApiKey.ALTER_PARTITION_REASSIGNMENTS: lambda version, names: kafka.AlterPartitionReassignmentsRequest(
        1000, True, [kafka.ReassignableTopic(name, [kafka.ReassignablePartition(0, [1])]) for name in names]),
    ApiKey.LIST_PARTITION_REASSIGNMENTS: lambda version, names: kafka.ListPartitionReassignmentsRequest(1000, None),
    ApiKey.DESCRIBE_QUORUM: lambda version, names: kafka.DescribeQuorumRequest([]),
    ApiKey.DESCRIBE_CLIENT_QUOTAS: lambda version, names: kafka.DescribeClientQuotasRequest([]),
    ApiKey.ALTER_CLIENT_QUOTAS: lambda version, names: kafka.AlterClientQuotasRequest([alter_client_quotas.EntryData(
        [alter_client_quotas.EntityData("user", "a")], [alter_client_quotas.OpData("producer_byte_rate", 1.0)])]),
    ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS: lambda version, names: kafka.DescribeUserScramCredentialsRequest([]),
    ApiKey.ALTER_USER_SCRAM_CREDENTIALS: lambda version, names: kafka.AlterUserScramCredentialsRequest(
        [alter_user_scram_credentials.ScramCredentialDeletion("a", 1)]),
    ApiKey.OFFSET_COMMIT: lambda version, names: kafka.OffsetCommitRequest("g", topics=[
        kafka.OffsetCommitRequestTopic(topic_id(name), name, [kafka.OffsetCommitRequestPartition(0, 1)])
        for name in names]),
    ApiKey.OFFSET_FETCH: lambda version, names: kafka.OffsetFetchRequest(
        [kafka.OffsetFetchRequestGroup(group, topics=[]) for group in "gh"], "g",
        [kafka.OffsetFetchRequestTopic(name, [0]) for name in names]),
    ApiKey.OFFSET_DELETE: lambda version, names: kafka.OffsetDeleteRequest("g", []),
    ApiKey.LIST_GROUPS: lambda version, names: kafka.ListGroupsRequest([], []),
    ApiKey.DESCRIBE_GROUPS: lambda version, names: kafka.DescribeGroupsRequest(["g", "h"]),
    ApiKey.DELETE_GROUPS: lambda version, names: kafka.DeleteGroupsRequest(["g", "h"]),
    ApiKey.JOIN_GROUP: lambda version, names: kafka.JoinGroupRequest("g"),
    ApiKey.SYNC_GROUP: lambda version, names: kafka.SyncGroupRequest("g"),
    ApiKey.HEARTBEAT: lambda version, names: kafka.HeartbeatRequest("g"),
    ApiKey.LEAVE_GROUP: lambda version, names: kafka.LeaveGroupRequest("g", [], "m"),
    ApiKey.CONSUMER_GROUP_HEARTBEAT: lambda version, names: kafka.ConsumerGroupHeartbeatRequest(
        "g", "m", rebalance_timeout_ms=1000, subscribed_topic_names=names),
    ApiKey.UPDATE_FEATURES: lambda version, names: kafka.UpdateFeaturesRequest(
        60_000, [kafka.FeatureUpdateKey("group.version", 1)]),
    ApiKey.SASL_HANDSHAKE: lambda version, names: kafka.SaslHandshakeRequest("PLAIN"),
    ApiKey.SASL_AUTHENTICATE: lambda version, names: kafka.SaslAuthenticateRequest(b"who"),
    ApiKey.CONSUMER_GROUP_DESCRIBE: lambda version, names: kafka.ConsumerGroupDescribeRequest(["g", "h"]),
}


def test_every_api_that_is_served_has_its_form_and_its_request_here() -> None:
    assert set(FORMS) == set(APIS) == set(REQUESTS)


# Answered without asking anybody.
AT_ONCE = (
    ApiKey.METADATA, ApiKey.DESCRIBE_CONFIGS, ApiKey.DESCRIBE_TOPIC_PARTITIONS, ApiKey.ELECT_LEADERS,
    ApiKey.ALTER_PARTITION_REASSIGNMENTS)


def errors_in(message: Any) -> list[int]:
    """Every error code in an answer, wherever it stands."""
    found: list[int] = []
    for name in message.__struct_fields__:
        value = getattr(message, name)
        if name == "error_code":
            found.append(value)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, msgspec.Struct):
                found += errors_in(each)
    return found


def work_in(bench: Bench) -> list[Any]:
    """What the last turn asked of partitions and the coordinator."""
    kinds = (messages.Produce, messages.Locate, messages.ListOffset, messages.FindEpochEnd, messages.CreateTopics,
             messages.DeleteTopics, messages.AllocateProducerIds, messages.CreatePartitions, messages.DeleteRecords,
             messages.DescribeProducers, messages.DescribeLog, messages.AlterConfigs, messages.GroupRequests)
    return [body for kind in kinds for body in bench.sent(kind)]


def places_of(api: ApiKey, version: int) -> int:
    """How many errors an answer about two topics, or two groups, has room for."""
    if FORMS[api].topics is not None:
        # Of the whole request, of each topic, of each partition.
        return {ApiKey.FETCH: 3 if version >= 7 else 2}.get(api, 2)
    if api in (ApiKey.DESCRIBE_TRANSACTIONS, ApiKey.DESCRIBE_GROUPS, ApiKey.DELETE_GROUPS, ApiKey.OFFSET_COMMIT,
               ApiKey.CONSUMER_GROUP_DESCRIBE):
        return 2
    several = api is ApiKey.FIND_COORDINATOR and version >= 4
    return 2 if several or (api is ApiKey.OFFSET_FETCH and version not in range(2, 8)) else 1


@pytest.mark.parametrize(("api", "version"), SERVED)
def test_an_error_stands_where_clients_of_that_version_look(faulty: Faulty, api: ApiKey, version: int) -> None:
    faulty.fault(api, error=ERROR.name, times=1)
    response = faulty.client.ask(api, version, REQUESTS[api](version, ("t", "u")))
    assert work_in(faulty.bench) == []
    named = errors_in(response)
    assert named.count(ERROR) == (2 if FORMS[api].topics is not None else places_of(api, version))
    assert set(named) <= {ERROR, 0}
    if api is ApiKey.METADATA:
        assert [broker.port for broker in response.brokers] == [9092]


@pytest.mark.parametrize(("api", "version"), SERVED)
def test_kio_reads_it_too(faulty: Faulty, api: ApiKey, version: int) -> None:
    faulty.fault(api, error=ERROR.name)
    faulty.client.send(api, version, REQUESTS[api](version, ("t", "u")))
    (effect,) = faulty.bench.of(Respond)
    frame = b"".join(effect.frames[0])
    _, position = read_response_header(memoryview(frame), api, version)
    told = repr(kio_read(kio_class(api, "response", version), frame[position:]))
    assert "kafka_storage_error" in told


@pytest.mark.parametrize(("api", "version"), [each for each in SERVED if FORMS[each[0]].topics is not None])
def test_only_the_topic_that_is_meant_is_refused_and_the_rest_is_done(faulty: Faulty, api: ApiKey, version: int) -> None:
    faulty.fault(api, topic="t*", error=ERROR.name)
    faulty.client.send(api, version, REQUESTS[api](version, ("t", "u")))
    if api in AT_ONCE:
        (response,) = faulty.client.answers()
        assert errors_in(response).count(ERROR) == 1
        assert "u" in str(response)
    else:
        (asked,) = work_in(faulty.bench)
        if isinstance(asked, messages.CreateTopics | messages.CreatePartitions):
            assert [topic.name for topic in asked.topics] == ["u"]
        elif isinstance(asked, messages.AlterConfigs):
            assert [change.name for change in asked.changes] == ["u"]
        elif isinstance(asked, messages.DeleteTopics):
            assert [name for name, _ in asked.topics] == ["u"]
        else:
            (send,) = faulty.bench.sends(type(asked))
            assert send.to == faulty.bench.partitions["u", 0]
    faulty.client.send(api, version, REQUESTS[api](version, ("u",)))
    assert faulty.board.hits(faulty.board.posted[1]) == 1


def test_a_request_for_all_topics_concerns_each_of_them(faulty: Faulty) -> None:
    faulty.fault(ApiKey.DESCRIBE_TOPIC_PARTITIONS, topic="t", error=ERROR.name)
    request = kafka.DescribeTopicPartitionsRequest([])
    told = {topic.name: topic.error_code for topic in faulty.client.ask(ApiKey.DESCRIBE_TOPIC_PARTITIONS, 0, request).topics}
    assert told == {"t": ERROR, "u": 0}


def test_the_answer_of_a_split_request_has_both_parts(faulty: Faulty) -> None:
    faulty.fault(ApiKey.PRODUCE, topic="t", error=ERROR.name)
    faulty.client.send(ApiKey.PRODUCE, 9, produce("t", "u"))
    (item,) = faulty.bench.sent(messages.Produce)[0].items
    faulty.bench.tell(
        faulty.bench.partitions["u", 0], messages.Produced([messages.ProduceAnswer(item.request_id, 0, 7, -1, 0)]))
    (response,) = faulty.client.answers()
    told = {topic.name: topic.partition_responses[0] for topic in response.responses}
    assert (told["u"].error_code, told["u"].base_offset) == (0, 7)
    assert (told["t"].error_code, told["t"].base_offset, told["t"].error_message) == (ERROR, -1, MESSAGE)


def test_a_fetch_with_an_error_does_not_wait_for_its_other_topics(faulty: Faulty) -> None:
    faulty.fault(ApiKey.FETCH, topic="t", error=ERROR.name)
    faulty.client.send(ApiKey.FETCH, 12, fetch("t", "u", max_wait_ms=60_000))
    (locate,) = faulty.bench.sent(messages.Locate)
    faulty.bench.tell(
        faulty.bench.partitions["u", 0],
        messages.Located(locate.request_id, 0, 0, 5, 0, 0, high_watermark=0, last_stable_offset=0, log_start_offset=0))
    (response,) = faulty.client.answers()
    assert {topic.topic: topic.partitions[0].error_code for topic in response.responses} == {"t": ERROR, "u": 0}


def test_errors_of_sessions_are_of_the_whole_request(faulty: Faulty) -> None:
    faulty.fault(ApiKey.FETCH, error="FETCH_SESSION_ID_NOT_FOUND", times=1)
    response = faulty.client.ask(ApiKey.FETCH, 12, fetch("t"))
    assert (response.error_code, response.responses) == (ErrorCode.FETCH_SESSION_ID_NOT_FOUND, [])


def test_metadata_of_all_topics_names_each(faulty: Faulty) -> None:
    faulty.fault(ApiKey.METADATA, topic="t", error="LEADER_NOT_AVAILABLE")
    for version, request in ((0, MetadataRequest([])), (1, MetadataRequest(None)), (12, MetadataRequest(None))):
        response = faulty.client.ask(ApiKey.METADATA, version, request)
        assert {topic.name: topic.error_code for topic in response.topics} == {
            "t": ErrorCode.LEADER_NOT_AVAILABLE, "u": 0}
    response = faulty.client.ask(ApiKey.METADATA, 1, MetadataRequest([]))  # of none: brokers only
    assert response.topics == []


def test_metadata_0_of_one_refused_topic_does_not_turn_into_all(faulty: Faulty) -> None:
    faulty.fault(ApiKey.METADATA, topic="t", error="LEADER_NOT_AVAILABLE")
    response = faulty.client.ask(ApiKey.METADATA, 0, MetadataRequest([MetadataRequestTopic(name="t")]))
    assert [topic.name for topic in response.topics] == ["t"]
    assert len(response.brokers) == 1


def test_topics_by_their_ids_are_known_by_name(faulty: Faulty) -> None:
    faulty.fault(ApiKey.DELETE_TOPICS, topic="t", error="TOPIC_DELETION_DISABLED")
    request = DeleteTopicsRequest([DeleteTopicState(None, topic_id("t"))], [], 1000)
    (result,) = faulty.client.ask(ApiKey.DELETE_TOPICS, 6, request).responses
    assert (result.topic_id, result.error_code) == (topic_id("t"), ErrorCode.TOPIC_DELETION_DISABLED)


def test_an_unsupported_version_comes_in_the_layout_of_version_0(faulty: Faulty) -> None:
    faulty.fault(ApiKey.API_VERSIONS, error="UNSUPPORTED_VERSION", times=1)
    faulty.client.send(ApiKey.API_VERSIONS, 4, ApiVersionsRequest("test", "1"))
    (effect,) = faulty.bench.of(Respond)
    frame = b"".join(effect.frames[0])
    assert frame[:4] == (1).to_bytes(4, "big")  # the correlation id
    told = kio_read(kio_class(ApiKey.API_VERSIONS, "response", 0), frame[4:])
    assert told.error_code.name == "unsupported_version"


def test_a_connection_is_closed_in_place_of_the_answer(faulty: Faulty) -> None:
    faulty.fault(ApiKey.PRODUCE, close=True, times=1)
    other = faulty.bench.client()
    faulty.client.send(ApiKey.PRODUCE, 9, produce("t"))
    assert work_in(faulty.bench) == []
    assert faulty.client.answers() == []
    assert "zafka chaos" in faulty.client.closed
    other.send(ApiKey.PRODUCE, 9, produce("t"))
    assert len(work_in(faulty.bench)) == 1


def test_acks_0_has_no_answer_so_the_connection_is_closed(faulty: Faulty) -> None:
    faulty.fault(ApiKey.PRODUCE, error=ERROR.name)
    faulty.client.send(ApiKey.PRODUCE, 9, produce("t", acks=0))
    assert faulty.client.answers() == []
    assert "KAFKA_STORAGE_ERROR with acks=0" in faulty.client.closed


def test_what_the_same_producer_sent_behind_a_refused_batch_is_refused_too(faulty: Faulty) -> None:
    """Or the retry would be out of order for ever."""
    faulty.fault(ApiKey.PRODUCE, error="NOT_LEADER_OR_FOLLOWER", times=1)
    first = make_batch(b"a", producer_id=5, producer_epoch=0, base_sequence=0)
    second = make_batch(b"b", producer_id=5, producer_epoch=0, base_sequence=1)
    for batch in (first, second):
        response = faulty.client.ask(ApiKey.PRODUCE, 9, produce("t", batch=batch))
        assert errors_in(response) == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
    for batch in (first, second):
        faulty.client.send(ApiKey.PRODUCE, 9, produce("t", batch=batch))
        assert len(faulty.bench.sent(messages.Produce)) == 1


# -- late answers --------------------------------------------------------------------------------


def answer_produce(faulty: Faulty, *, offset: int) -> None:
    (asked,) = faulty.bench.sent(messages.Produce)
    answers = [messages.ProduceAnswer(item.request_id, 0, offset, -1, 0) for item in asked.items]
    faulty.bench.tell(faulty.bench.partitions["t", 0], messages.Produced(answers))


def test_a_late_answer_is_done_at_once_and_told_later(faulty: Faulty) -> None:
    faulty.fault(ApiKey.PRODUCE, delay_ms=300, times=1)
    faulty.client.send(ApiKey.PRODUCE, 9, produce("t"))
    answer_produce(faulty, offset=3)
    assert faulty.client.answers() == []
    faulty.bench.pass_time(0.29)
    assert faulty.client.answers() == []
    faulty.bench.pass_time(0.02)
    (response,) = faulty.client.answers()
    assert response.responses[0].partition_responses[0].base_offset == 3


def test_answers_keep_the_order_of_requests_behind_a_late_one(faulty: Faulty) -> None:
    faulty.fault(ApiKey.PRODUCE, delay_ms=300, times=1)
    faulty.client.send(ApiKey.PRODUCE, 9, produce("t"))
    answer_produce(faulty, offset=3)
    faulty.client.send(ApiKey.PRODUCE, 9, produce("t"))
    answer_produce(faulty, offset=4)
    assert faulty.client.answers() == []
    faulty.bench.pass_time(0.31)
    offsets = [each.responses[0].partition_responses[0].base_offset for each in faulty.client.answers()]
    assert offsets == [3, 4]


def test_what_has_to_run_alone_does_so_until_its_late_answer(faulty: Faulty) -> None:
    faulty.fault(ApiKey.FETCH, delay_ms=300, times=1)
    mails = [faulty.client.mail(ApiKey.FETCH, 12, fetch("t")), faulty.client.mail(ApiKey.PRODUCE, 9, produce("t"))]
    faulty.bench.turn(*mails)
    (locate,) = faulty.bench.sent(messages.Locate)
    assert faulty.bench.sent(messages.Produce) == []
    faulty.bench.tell(
        faulty.bench.partitions["t", 0],
        messages.Located(locate.request_id, ErrorCode.OFFSET_OUT_OF_RANGE, 0, 5, 0, 0, 0, 0, 0))
    assert faulty.bench.sent(messages.Produce) == []
    faulty.bench.pass_time(0.31)
    assert len(faulty.client.answers()) == len(faulty.bench.sent(messages.Produce)) == 1


def test_a_client_that_leaves_does_not_get_its_late_answer(faulty: Faulty) -> None:
    faulty.fault(ApiKey.PRODUCE, delay_ms=300)
    faulty.client.send(ApiKey.PRODUCE, 9, produce("t"))
    answer_produce(faulty, offset=3)
    faulty.client.close()
    assert len(faulty.bench.gateway.deadlines) == 0
    faulty.bench.pass_time(1.0)
    assert faulty.bench.of(Respond) == []
    assert faulty.bench.gateway.connections.held == 0
    assert faulty.bench.gateway.is_idle()


def test_a_broker_that_stops_does_not_wait_for_late_answers(faulty: Faulty) -> None:
    faulty.fault(ApiKey.FETCH, delay_ms=30_000)
    polling = faulty.bench.client()
    for client, error in ((faulty.client, ErrorCode.OFFSET_OUT_OF_RANGE), (polling, ErrorCode.NONE)):
        client.send(ApiKey.FETCH, 12, fetch("t", max_wait_ms=60_000))
        (locate,) = faulty.bench.sent(messages.Locate)
        faulty.bench.tell(
            faulty.bench.partitions["t", 0], messages.Located(locate.request_id, error, 0, 5, 0, 0, 0, 0, 0))
        assert client.answers() == []  # the error is there and late; the other waits for data
    faulty.bench.tell(SUPERVISOR, messages.Shutdown())
    assert errors_in(faulty.client.answers()[0]) == [0, ErrorCode.OFFSET_OUT_OF_RANGE]
    (locate,) = faulty.bench.sent(messages.Locate)  # a last look of the one that polls
    faulty.bench.tell(
        faulty.bench.partitions["t", 0], messages.Located(locate.request_id, 0, 0, 5, 0, 9, 9, 9, 0))
    read(faulty.bench, ReadFault.CORRUPT)
    assert errors_in(polling.answers()[0]) == [0, ErrorCode.CORRUPT_MESSAGE]
    assert faulty.bench.gateway.is_idle()


@pytest.mark.parametrize("version", [12, 13])
def test_a_fetch_in_a_session_is_refused_by_what_the_session_wants(faulty: Faulty, version: int) -> None:
    """The session ends with it: its fetcher goes on with a full fetch."""
    client = faulty.client

    def ask(request: FetchRequest) -> Any:
        client.send(ApiKey.FETCH, version, request)
        for locate, name in [(each.body, each.to.name) for each in faulty.bench.sends(messages.Locate)]:
            topic = name.split()[1].split("-")[0]
            faulty.bench.tell(
                faulty.bench.partitions[topic, 0], messages.Located(locate.request_id, 0, 0, 5, 0, 0, 0, 0, 0))
        (response,) = client.answers()
        return response

    request = fetch("t", "u", max_wait_ms=0)
    request.session_epoch = 0
    begun = ask(request)
    assert begun.session_id
    faulty.fault(ApiKey.FETCH, topic="t", error=ERROR.name)
    going_on = FetchRequest(session_id=begun.session_id, session_epoch=1)
    response = ask(going_on)
    told = {topic.topic or topic.topic_id: topic.partitions[0].error_code for topic in response.responses}
    assert told == ({topic_id("t"): ERROR, topic_id("u"): 0} if version == 13 else {"t": ERROR, "u": 0})
    assert response.session_id == 0 and len(faulty.bench.gateway.fetch_sessions) == 0
    assert ask(going_on).error_code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND
