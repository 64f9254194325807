"""Requests of groups at the gateway: which coordinator they go to, in which form, and what comes back when it is away.

The coordinators are the test, `tests/unit/test_group_coordinator.py` has the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.broker_bench import BROKER_ID, COORDINATOR, Bench, Client, advanced, make_batch, topic_id
from tests.unit.group_relay_bench import G, Groups, H, commit, committed
from zafka.actors import cluster_state as cs, messages
from zafka.actors.actor import Mail, Peer
from zafka.actors.gateway.group_relay import GROUP_TOPIC, partition_of
from zafka.actors.messages import GroupAnswer, GroupAnswers, GroupRequests, TopicsTold
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import response_writer
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import describe_groups, offset_delete, offset_fetch


@pytest.fixture
def bench(tmp_path: Path) -> Groups:
    return Groups(tmp_path)


@pytest.fixture
def client(bench: Groups) -> Client:
    return bench.client()


# -- which partition -----------------------------------------------------------------------------


@pytest.mark.parametrize(("group", "number"), [
    # By String.hashCode: a negative one counts without its sign, the least of all as 0; text is in UTF-16.
    ("", 0), ("g", 103 % 50), ("payments", 1382682413 % 50), ("consumer", 567770122 % 50),
    ("\N{GRINNING FACE}", (55357 * 31 + 56832) % 50), ("polygenelubricants", 0)])
def test_a_group_belongs_to_the_partition_that_kafka_takes(group: str, number: int) -> None:
    assert partition_of(group, 50) == number


# -- FindCoordinator -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(7))
def test_the_leader_of_its_partition_is_a_groups_coordinator(client: Client, version: int) -> None:
    answer = client.ask(ApiKey.FIND_COORDINATOR, version, kafka.FindCoordinatorRequest("g", 0, ["g", "h"]))
    if version < 4:
        assert (answer.error_code, answer.node_id, answer.host, answer.port) == (0, BROKER_ID, "127.0.0.1", 9092)
    else:
        assert [(each.key, each.error_code, each.node_id, each.port) for each in answer.coordinators] == [
            ("g", 0, BROKER_ID, 9092), ("h", 0, BROKER_ID, 9092)]


def test_who_comes_by_another_listener_is_told_its_address(bench: Groups) -> None:
    answer = bench.client("outside").ask(ApiKey.FIND_COORDINATOR, 3, kafka.FindCoordinatorRequest("g", 0))
    assert (answer.host, answer.port) == ("broker.example", 19092)


def test_the_first_that_asks_has_the_topic_created_and_waits_until_it_serves(tmp_path: Path) -> None:
    # Whether clients may create topics does not matter, as in Kafka.
    defaults = {"offsets.topic.num.partitions": "2", "auto.create.topics.enable": "false"}
    bench = Bench(tmp_path, defaults=defaults).start()
    client = bench.client()
    client.send(ApiKey.FIND_COORDINATOR, 3, kafka.FindCoordinatorRequest("g", 0))
    assert client.answers() == []
    (asked,) = bench.sent(messages.CreateTopics)
    (topic,) = asked.topics
    assert (topic.name, topic.partitions, topic.config["cleanup.policy"]) == (GROUP_TOPIC, 2, "compact")
    result = messages.TopicResult(GROUP_TOPIC, 0, "", topic_id(GROUP_TOPIC), 2, 1)
    bench.tell(COORDINATOR, messages.TopicsCreated(asked.request_id, [result], 1))
    bench.create(GROUP_TOPIC, partitions=2)
    assert client.answers() == []
    bench.serve(GROUP_TOPIC, partition_of("g", 2))
    (answer,) = client.answers()
    assert (answer.error_code, answer.node_id) == (0, BROKER_ID)
    bench.create("another")
    assert client.answers() == [], "it is told once"
    bench.commit(cs.ReplicaFaulted(topic_id(GROUP_TOPIC), partition_of("g", 2), BROKER_ID, 0, "EIO"))
    assert client.ask(ApiKey.HEARTBEAT, 4, kafka.HeartbeatRequest("g", 1, "m")).error_code == (
        ErrorCode.COORDINATOR_NOT_AVAILABLE), "its disk has failed, and it does not come back by itself"


def test_who_waits_in_vain_is_told_to_try_again(tmp_path: Path) -> None:
    """Before the 5 s after which the least patient client, kafka-go, takes the connection for dead."""
    bench = Bench(tmp_path).start()
    client = bench.client()
    client.send(ApiKey.FIND_COORDINATOR, 4, kafka.FindCoordinatorRequest("", 0, ["g"]))
    bench.pass_time(3.0)
    assert client.answers() == []
    bench.pass_time(1.5)
    (answer,) = client.answers()
    assert [each.error_code for each in answer.coordinators] == [ErrorCode.COORDINATOR_NOT_AVAILABLE]


def test_an_offline_coordinator_is_told_at_once(bench: Groups, client: Client) -> None:
    bench.commit(cs.ReplicaFaulted(topic_id(GROUP_TOPIC), G, BROKER_ID, 0, "EIO"))
    answer = client.ask(ApiKey.FIND_COORDINATOR, 3, kafka.FindCoordinatorRequest("g", 0))
    assert (answer.error_code, answer.node_id) == (ErrorCode.COORDINATOR_NOT_AVAILABLE, -1)


# -- OffsetCommit --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(2, 11))
def test_a_commit_goes_to_the_groups_coordinator_by_name(bench: Groups, client: Client, version: int) -> None:
    client.send(ApiKey.OFFSET_COMMIT, version, commit(("t", topic_id("t"), 0)))
    ((peer, call, request),) = bench.asked()
    assert peer == bench.partitions[GROUP_TOPIC, G]
    assert (call.version, call.client_id, call.client_host) == (min(version, 9), "test", "/test")
    assert [(topic.name, topic.partitions[0].committed_offset) for topic in request.topics] == [("t", 5)]
    bench.answer(peer, call, committed("t"))
    (answer,) = client.answers()
    (topic,) = answer.topics
    assert topic.partitions[0].error_code == 0
    assert (topic.topic_id, topic.name) == ((topic_id("t"), "") if version == 10 else (bytes(16), "t"))


def test_what_the_cluster_does_not_have_is_refused_and_the_rest_committed(bench: Groups, client: Client) -> None:
    client.send(ApiKey.OFFSET_COMMIT, 9, commit(("none", bytes(16), 0), ("t", bytes(16), 7), ("t", bytes(16), 0)))
    ((peer, call, request),) = bench.asked()
    assert [(topic.name, topic.partitions[0].partition_index) for topic in request.topics] == [("t", 0)]
    bench.answer(peer, call, committed("t"))
    (answer,) = client.answers()
    assert [(topic.name, part.partition_index, part.error_code) for topic in answer.topics for part in topic.partitions] == [
        ("none", 0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION), ("t", 7, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION), ("t", 0, 0)]


def test_an_unknown_id_is_refused_without_asking(bench: Groups, client: Client) -> None:
    answer = client.ask(ApiKey.OFFSET_COMMIT, 10, commit(("", b"?" * 16, 0)))
    assert [(topic.topic_id, topic.partitions[0].error_code) for topic in answer.topics] == [
        (b"?" * 16, ErrorCode.UNKNOWN_TOPIC_ID)]
    assert bench.asked() == []


@pytest.mark.parametrize("error", [ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE])
def test_a_coordinators_error_stands_at_each_partition(bench: Groups, client: Client, error: int) -> None:
    client.send(ApiKey.OFFSET_COMMIT, 10, commit(("", topic_id("t"), 0)))
    ((peer, call, _),) = bench.asked()
    bench.answer(peer, call, None, error)
    (answer,) = client.answers()
    assert [(topic.topic_id, topic.partitions[0].error_code) for topic in answer.topics] == [(topic_id("t"), error)]


def test_what_one_turn_brings_for_a_coordinator_is_one_message(bench: Groups) -> None:
    clients = [bench.client() for _ in range(5)]
    bench.turn(*(each.mail(ApiKey.OFFSET_COMMIT, 9, commit(("t", bytes(16), 0))) for each in clients))
    (send,) = bench.sends(GroupRequests)
    assert len(send.body.calls) == 5
    bodies = [b"".join(response_writer(ApiKey.OFFSET_COMMIT, 9)(committed("t"))) for _ in clients]
    bench.tell(send.to, GroupAnswers([
        GroupAnswer(call.request_id, 0, len(body)) for call, body in zip(send.body.calls, bodies, strict=True)],
        advanced(5, 500)), records=b"".join(bodies))
    assert all(len(each.answers()) == 1 for each in clients)
    assert bench.gateway.routes.by_topic[GROUP_TOPIC][G].advanced.high_watermark == 5


# -- OffsetFetch ---------------------------------------------------------------------------------


def fetched(group: str, offset: int, topic: str = "t") -> kafka.OffsetFetchResponse:
    part = offset_fetch.OffsetFetchResponsePartitions(0, offset, 3, "m", 0)
    return kafka.OffsetFetchResponse(groups=[
        offset_fetch.OffsetFetchResponseGroup(group, [offset_fetch.OffsetFetchResponseTopics(name=topic, partitions=[part])])])


@pytest.mark.parametrize("version", range(1, 8))
def test_older_clients_ask_for_one_group(bench: Groups, client: Client, version: int) -> None:
    client.send(ApiKey.OFFSET_FETCH, version, kafka.OffsetFetchRequest(
        group_id="g", topics=[offset_fetch.OffsetFetchRequestTopic("t", [0])]))
    ((peer, call, request),) = bench.asked()
    assert (call.version, request.groups[0].group_id, request.groups[0].topics[0].name) == (9, "g", "t")
    bench.answer(peer, call, fetched("g", 42))
    (answer,) = client.answers()
    (part,) = answer.topics[0].partitions
    assert (part.committed_offset, part.metadata, part.error_code, answer.error_code) == (42, "m", 0, 0)


@pytest.mark.parametrize("version", [1, 2, 7])
def test_their_error_stands_where_they_look(bench: Groups, client: Client, version: int) -> None:
    bench.down(GROUP_TOPIC, G)
    answer = client.ask(ApiKey.OFFSET_FETCH, version, kafka.OffsetFetchRequest(
        group_id="g", topics=[offset_fetch.OffsetFetchRequestTopic("t", [0])]))
    error = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    # aiokafka looks at the partitions only, in whatever version: what it does not find there is not committed to it.
    assert [part.error_code for topic in answer.topics for part in topic.partitions] == [error]
    if version > 1:
        assert answer.error_code == error


@pytest.mark.parametrize("version", [8, 9, 10])
def test_several_groups_are_answered_by_their_coordinators(bench: Groups, client: Client, version: int) -> None:
    assert G != H
    topics = [offset_fetch.OffsetFetchRequestTopics(topic_id("t"), "t", [0])]
    client.send(ApiKey.OFFSET_FETCH, version, kafka.OffsetFetchRequest([
        offset_fetch.OffsetFetchRequestGroup("g", topics=topics), offset_fetch.OffsetFetchRequestGroup("h", topics=None)]))
    asked = bench.asked()
    assert {(peer, request.groups[0].group_id) for peer, _, request in asked} == {
        (bench.partitions[GROUP_TOPIC, G], "g"), (bench.partitions[GROUP_TOPIC, H], "h")}
    for peer, call, request in reversed(asked):
        assert client.answers() == []
        bench.answer(peer, call, fetched(request.groups[0].group_id, 42))
    (answer,) = client.answers()
    assert [(group.group_id, group.error_code) for group in answer.groups] == [("g", 0), ("h", 0)]
    told = [topic for group in answer.groups for topic in group.topics]
    assert [part.committed_offset for topic in told for part in topic.partitions] == [42, 42]
    assert {(topic.topic_id, topic.name) for topic in told} == {(topic_id("t"), "") if version == 10 else (bytes(16), "t")}


def test_unknown_ids_are_answered_beside_what_was_found(bench: Groups, client: Client) -> None:
    wanted = [offset_fetch.OffsetFetchRequestTopics(each, "", [0]) for each in (b"?" * 16, topic_id("t"))]
    client.send(ApiKey.OFFSET_FETCH, 10, kafka.OffsetFetchRequest([offset_fetch.OffsetFetchRequestGroup("g", topics=wanted)]))
    ((peer, call, request),) = bench.asked()
    assert [topic.name for topic in request.groups[0].topics] == ["t"]
    bench.answer(peer, call, fetched("g", 42))
    (answer,) = client.answers()
    assert [(topic.topic_id, part.committed_offset, part.error_code) for topic in answer.groups[0].topics
            for part in topic.partitions] == [(topic_id("t"), 42, 0), (b"?" * 16, -1, ErrorCode.UNKNOWN_TOPIC_ID)]


def test_unknown_ids_are_not_told_of_a_group_that_is_refused(bench: Groups, client: Client) -> None:
    wanted = [offset_fetch.OffsetFetchRequestTopics(each, "", [0]) for each in (b"?" * 16, topic_id("t"))]
    client.send(ApiKey.OFFSET_FETCH, 10, kafka.OffsetFetchRequest([offset_fetch.OffsetFetchRequestGroup("g", topics=wanted)]))
    ((peer, call, _),) = bench.asked()
    bench.answer(peer, call, kafka.OffsetFetchResponse(groups=[
        offset_fetch.OffsetFetchResponseGroup("g", [], ErrorCode.UNKNOWN_MEMBER_ID)]))
    (answer,) = client.answers()
    (group,) = answer.groups
    assert (group.error_code, group.topics) == (ErrorCode.UNKNOWN_MEMBER_ID, [])


def test_a_topic_that_went_meanwhile_has_no_id_to_be_told_by(bench: Groups, client: Client) -> None:
    for version, told in ((10, []), (9, ["gone"])):
        client.send(ApiKey.OFFSET_FETCH, version, kafka.OffsetFetchRequest(
            [offset_fetch.OffsetFetchRequestGroup("g", topics=None)]))
        ((peer, call, _),) = bench.asked()
        part = offset_fetch.OffsetFetchResponsePartitions(0, 42, -1, "", 0)
        bench.answer(peer, call, kafka.OffsetFetchResponse(groups=[offset_fetch.OffsetFetchResponseGroup(
            "g", [offset_fetch.OffsetFetchResponseTopics(name="gone", partitions=[part])])]))
        (answer,) = client.answers()
        assert [topic.name for topic in answer.groups[0].topics] == told


def test_a_coordinator_is_told_the_clients_host_as_kafka_writes_it(bench: Groups) -> None:
    bench.client(peer="10.0.0.7:51234").send(ApiKey.OFFSET_COMMIT, 9, commit(("t", bytes(16), 0)))
    ((_, call, _),) = bench.asked()
    assert call.client_host == "/10.0.0.7"


# -- members -------------------------------------------------------------------------------------

MEMBERS: list[tuple[ApiKey, int, Any, Any]] = [
    (ApiKey.JOIN_GROUP, 9, kafka.JoinGroupRequest("g", 10_000, 10_000, "m", None, "consumer", []),
     kafka.JoinGroupResponse(generation_id=7, protocol_type="consumer", protocol_name="range", leader="m", member_id="m")),
    (ApiKey.SYNC_GROUP, 5, kafka.SyncGroupRequest("g", 7, "m", None, "consumer", "range"),
     kafka.SyncGroupResponse(assignment=b"mine")),
    (ApiKey.HEARTBEAT, 4, kafka.HeartbeatRequest("g", 7, "m"), kafka.HeartbeatResponse(error_code=27)),
    (ApiKey.LEAVE_GROUP, 5, kafka.LeaveGroupRequest("g", [kafka.MemberIdentity("m")]), kafka.LeaveGroupResponse()),
]


@pytest.mark.parametrize(("api", "version", "request_", "response"), MEMBERS)
def test_what_members_ask_is_passed_on_and_the_answer_comes_back_as_it_is(
    bench: Groups, client: Client, api: ApiKey, version: int, request_: Any, response: Any
) -> None:
    client.send(api, version, request_)
    ((peer, call, asked),) = bench.asked()
    assert (peer, call.version, asked) == (bench.partitions[GROUP_TOPIC, G], version, request_)
    bench.answer(peer, call, response)
    assert client.answers() == [response]


@pytest.mark.parametrize(("api", "version", "request_", "error"), [
    (*MEMBERS[0][:3], ErrorCode.COORDINATOR_LOAD_IN_PROGRESS),
    (*MEMBERS[1][:3], ErrorCode.REBALANCE_IN_PROGRESS),  # what was agreed on is lost
    (*MEMBERS[2][:3], 0)])  # nobody is late while the coordinator reads its log
def test_while_their_coordinator_comes_back_members_are_told_what_they_can_use(
    bench: Groups, client: Client, api: ApiKey, version: int, request_: Any, error: int
) -> None:
    client.send(api, version, request_)
    bench.down(GROUP_TOPIC, G)
    assert [answer.error_code for answer in client.answers()] == [error]
    assert client.ask(api, version, request_).error_code == error


def test_a_sync_that_does_not_say_what_was_chosen_is_refused(client: Client) -> None:
    answer = client.ask(ApiKey.SYNC_GROUP, 5, kafka.SyncGroupRequest("g", 7, "m"))
    assert answer.error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL


def test_a_broker_that_stops_does_not_wait_for_members_who_can_come_no_more(bench: Groups, client: Client) -> None:
    client.send(*MEMBERS[0][:3])
    bench.tell(Peer("supervisor", 1), messages.Shutdown())
    assert [answer.error_code for answer in client.answers()] == [ErrorCode.COORDINATOR_NOT_AVAILABLE]


def test_a_client_that_hung_up_is_not_answered(bench: Groups, client: Client) -> None:
    client.send(*MEMBERS[0][:3])
    ((peer, call, _),) = bench.asked()
    client.close()
    bench.answer(peer, call, MEMBERS[0][3])
    assert client.answers() == []


# -- administration ------------------------------------------------------------------------------


def test_groups_of_all_coordinators_are_listed(bench: Groups, client: Client) -> None:
    client.send(ApiKey.LIST_GROUPS, 5, kafka.ListGroupsRequest([], []))
    asked = bench.asked()
    assert len(asked) == 4
    for number, (peer, call, _) in enumerate(asked):
        bench.answer(peer, call, kafka.ListGroupsResponse(groups=[kafka.ListedGroup(f"g{number}", "", "Empty", "classic")]))
    (answer,) = client.answers()
    assert sorted(group.group_id for group in answer.groups) == ["g0", "g1", "g2", "g3"]


def test_one_that_leads_no_more_has_no_groups_to_list(bench: Groups, client: Client) -> None:
    client.send(ApiKey.LIST_GROUPS, 5, kafka.ListGroupsRequest([], []))
    for number, (peer, call, _) in enumerate(bench.asked()):
        listed = kafka.ListGroupsResponse(groups=[kafka.ListedGroup(f"g{number}", "", "Empty", "classic")])
        bench.answer(peer, call, listed, error=0 if number else ErrorCode.NOT_COORDINATOR)
    (answer,) = client.answers()
    assert (answer.error_code, sorted(group.group_id for group in answer.groups)) == (0, ["g1", "g2", "g3"])


def test_a_coordinator_that_is_to_come_back_is_waited_for_by_the_client(bench: Groups, client: Client) -> None:
    bench.down(GROUP_TOPIC, G)
    client.send(ApiKey.LIST_GROUPS, 5, kafka.ListGroupsRequest([], []))
    for peer, call, _ in bench.asked():
        bench.answer(peer, call, kafka.ListGroupsResponse(groups=[kafka.ListedGroup("x", "", "Empty", "classic")]))
    (answer,) = client.answers()
    assert (answer.error_code, answer.groups) == (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, [])


def test_there_are_no_groups_before_the_first(tmp_path: Path) -> None:
    answer = Bench(tmp_path).start().client().ask(ApiKey.LIST_GROUPS, 5, kafka.ListGroupsRequest([], []))
    assert (answer.error_code, answer.groups) == (0, [])


@pytest.mark.parametrize("operations", [False, True])
def test_groups_are_described_in_the_order_in_which_they_were_asked_for(
    bench: Groups, client: Client, operations: bool
) -> None:
    client.send(ApiKey.DESCRIBE_GROUPS, 5, kafka.DescribeGroupsRequest(["h", "g", "h"], operations))
    for peer, call, request in bench.asked():
        (group_id,) = request.groups
        bench.answer(peer, call, kafka.DescribeGroupsResponse(groups=[describe_groups.DescribedGroup(group_id=group_id)]))
    (answer,) = client.answers()
    assert [group.group_id for group in answer.groups] == ["h", "g", "h"]
    allowed = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11  # READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS
    assert {group.authorized_operations for group in answer.groups} == {allowed if operations else -(2**31)}
    client.send(ApiKey.DESCRIBE_GROUPS, 5, kafka.DescribeGroupsRequest(["g"], operations))
    ((peer, call, _),) = bench.asked()
    bench.answer(peer, call, None, error=ErrorCode.NOT_COORDINATOR)
    (answer,) = client.answers()
    assert (answer.groups[0].error_code, answer.groups[0].authorized_operations) == (ErrorCode.NOT_COORDINATOR, -(2**31))


def test_groups_are_deleted_each_once(bench: Groups, client: Client) -> None:
    bench.down(GROUP_TOPIC, H)
    client.send(ApiKey.DELETE_GROUPS, 2, kafka.DeleteGroupsRequest(["g", "h", "g"]))
    ((peer, call, request),) = bench.asked()
    assert request.groups_names == ["g"]
    bench.answer(peer, call, kafka.DeleteGroupsResponse(results=[kafka.DeletableGroupResult("g", ErrorCode.NON_EMPTY_GROUP)]))
    (answer,) = client.answers()
    assert {each.group_id: each.error_code for each in answer.results} == {
        "g": ErrorCode.NON_EMPTY_GROUP, "h": ErrorCode.COORDINATOR_LOAD_IN_PROGRESS}


def test_offsets_are_deleted_where_the_cluster_has_the_partition(bench: Groups, client: Client) -> None:
    topics = [
        offset_delete.OffsetDeleteRequestTopic(name, [offset_delete.OffsetDeleteRequestPartition(number) for number in (0, 9)])
        for name in ("t", "none")]
    client.send(ApiKey.OFFSET_DELETE, 0, kafka.OffsetDeleteRequest("g", topics))
    ((peer, call, request),) = bench.asked()
    assert [(topic.name, [part.partition_index for part in topic.partitions]) for topic in request.topics] == [("t", [0])]
    part = offset_delete.OffsetDeleteResponsePartition(0, 0)
    bench.answer(peer, call, kafka.OffsetDeleteResponse(topics=[offset_delete.OffsetDeleteResponseTopic("t", [part])]))
    (answer,) = client.answers()
    missing = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert [(topic.name, part.partition_index, part.error_code) for topic in answer.topics for part in topic.partitions] == [
        ("t", 9, missing), ("none", 0, missing), ("none", 9, missing), ("t", 0, 0)]


def test_a_group_that_is_refused_is_told_no_partitions_of_its_offsets(bench: Groups, client: Client) -> None:
    topics = [offset_delete.OffsetDeleteRequestTopic("t", [
        offset_delete.OffsetDeleteRequestPartition(number) for number in (0, 9)])]
    client.send(ApiKey.OFFSET_DELETE, 0, kafka.OffsetDeleteRequest("g", topics))
    ((peer, call, _),) = bench.asked()
    bench.answer(peer, call, kafka.OffsetDeleteResponse(ErrorCode.GROUP_ID_NOT_FOUND))
    (answer,) = client.answers()
    assert (answer.error_code, answer.topics) == (ErrorCode.GROUP_ID_NOT_FOUND, [])


# -- what coordinators are told ------------------------------------------------------------------


def test_coordinators_are_told_the_topics_before_any_request_that_rests_on_them(bench: Groups) -> None:
    client = bench.client()
    offset = bench.cluster_offset
    event = cs.TopicCreated(topic_id("new"), "new", [[BROKER_ID]] * 2, {})
    records = memoryview(make_batch(cs.encode_event(event), base_offset=offset))
    bench.cluster_offset += 1
    bench.turn(
        Mail(COORDINATOR, messages.ClusterRecords(offset + 1, offset + 1), records),
        client.mail(ApiKey.OFFSET_COMMIT, 9, commit(("new", bytes(16), 1))))
    mine = [send.body for send in bench.effects if getattr(send, "to", None) == bench.partitions[GROUP_TOPIC, G]]
    assert [type(body) for body in mine] == [TopicsTold, GroupRequests]
    assert ("new", topic_id("new"), 2) in mine[0].topics


def test_a_coordinator_that_comes_back_is_told_all_topics_once(bench: Groups) -> None:
    bench.down(GROUP_TOPIC, G)
    bench.up(GROUP_TOPIC, G)
    bench.lead(GROUP_TOPIC, G, epoch=1)
    peer = bench.partitions[GROUP_TOPIC, G]
    bench.tell(peer, messages.Serving(1), advanced(0, 0, epoch=1))
    assert [send.to for send in bench.sends(TopicsTold)] == [peer]
    bench.tell(peer, advanced(1, 100, epoch=1))
    assert bench.sends(TopicsTold) == []
