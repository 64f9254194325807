"""The cluster's events: their bytes on `__cluster`, and the state that follows from them."""

from __future__ import annotations

import base64
import json
from typing import get_args

import msgspec
import pytest
from hypothesis import given, strategies as st

from zafka.actors import cluster_state
from zafka.actors.cluster_state import (
    AnyEvent,
    BrokerRegistered,
    BrokerRemoved,
    ClusterCreated,
    ClusterLogRecovered,
    ClusterState,
    LeaderChanged,
    PartitionsAdded,
    ProducerIdsAllocated,
    QuotaChanged,
    ReplicaFaulted,
    ReplicaRecovered,
    ResourceConfigChanged,
    ScramCredential,
    ScramCredentialChanged,
    TopicConfigChanged,
    TopicCreated,
    TopicDeleted,
    decode_event,
    encode_event,
    events_in,
    id_text,
)
from zafka.actors.messages import Endpoint
from zafka.storage.errors import BadBatch
from zafka.storage.records import encode_batch

ORDERS = bytes(range(16))
KAFKA = Endpoint("kafka", "kafka", "127.0.0.1", 9092)

EXAMPLES: list[AnyEvent] = [
    ClusterCreated("4L6g3nShT-eMCtK--X86sw"),
    BrokerRegistered(1, 7, "a", [KAFKA]),
    BrokerRemoved(2),
    TopicCreated(ORDERS, "orders", [[1], [2]], {"retention.ms": "1"}),
    TopicDeleted(ORDERS),
    PartitionsAdded(ORDERS, [[1]]),
    TopicConfigChanged(ORDERS, {"retention.ms": "2"}),
    LeaderChanged(ORDERS, 0, 1, 3, 4, [1], 12),
    ProducerIdsAllocated(1000, 1000),
    ReplicaFaulted(ORDERS, 0, 1, 4096, "EIO"),
    ReplicaRecovered(ORDERS, 0, 1, "4f2a"),
    ClusterLogRecovered("77aa", 3, 3000),
    QuotaChanged((("client-id", None), ("user", "alice")), {"producer_byte_rate": 1024.0}),
    ResourceConfigChanged(4, "", {"log.retention.ms": "1"}, {"log.retention.ms": "2"}),
    ScramCredentialChanged("alice", 1, ScramCredential(b"salt", b"stored", b"server", 4096)),
]


def state_after(*events: AnyEvent) -> ClusterState:
    state = ClusterState()
    for event in events:
        state.apply(event)
    return state


def test_every_event_comes_back_from_its_bytes() -> None:
    assert {type(event) for event in EXAMPLES} == set(get_args(AnyEvent))
    for event in EXAMPLES:
        assert decode_event(encode_event(event)) == event


def test_events_are_json_that_a_reader_of_the_log_can_make_sense_of() -> None:
    assert json.loads(encode_event(TopicCreated(ORDERS, "orders", [[1]]))) == {
        "event": "TopicCreated", "topic_id": base64.b64encode(ORDERS).decode(), "name": "orders",
        "partitions": [[1]], "config": {}, "declared": False}


def test_an_event_of_a_later_version_is_not_passed_over() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_event(b'{"event":"BrokerMoved"}')


def test_events_of_several_batches_come_with_their_offsets() -> None:
    def batch(base_offset: int, events: list[AnyEvent]) -> bytes:
        data = encode_batch((0, None, encode_event(event), ()) for event in events)
        return base_offset.to_bytes(8, "big") + data[8:]

    records = memoryview(batch(5, EXAMPLES[:2]) + batch(7, EXAMPLES[2:]))
    assert list(events_in(records)) == list(enumerate(EXAMPLES, start=5))


def test_damaged_batches_are_noticed() -> None:
    data = bytearray(encode_batch([(0, None, encode_event(EXAMPLES[0]), ())]))
    data[-3] ^= 1
    with pytest.raises(BadBatch):
        list(events_in(memoryview(data)))


def test_topics_are_found_by_name_and_by_id_until_deleted() -> None:
    state = state_after(TopicCreated(ORDERS, "orders", [[1], [2]], {"a": "b"}))
    topic = state.topics_by_name["orders"]
    assert topic is state.topics_by_id[ORDERS]
    assert [partition.replicas for partition in topic.partitions] == [[1], [2]]
    assert topic.partitions[0].leader == cluster_state.NO_LEADER and topic.partitions[0].leader_epoch == -1
    state.apply(PartitionsAdded(ORDERS, [[1]]))
    state.apply(TopicConfigChanged(ORDERS, {}))
    assert len(topic.partitions) == 3 and topic.config == {}
    state.apply(TopicDeleted(ORDERS))
    assert not state.topics_by_name and not state.topics_by_id


def test_a_topic_created_again_under_its_name_is_another_one() -> None:
    other = bytes(16)
    state = state_after(
        TopicCreated(ORDERS, "orders", [[1]]), LeaderChanged(ORDERS, 0, 1, 5, 5, [1], 9), TopicDeleted(ORDERS),
        TopicCreated(other, "orders", [[1]]))
    assert list(state.topics_by_id) == [other]
    assert state.topics_by_name["orders"].partitions[0].leader_epoch == -1


def test_what_speaks_of_a_deleted_topic_is_passed_over() -> None:
    state = state_after(
        LeaderChanged(ORDERS, 0, 1, 0, 1, [1], 1), ReplicaFaulted(ORDERS, 0, 1, 0, ""), TopicDeleted(ORDERS),
        PartitionsAdded(ORDERS, [[1]]), TopicConfigChanged(ORDERS, {}))
    assert not state.topics_by_id


def test_partition_numbers_that_do_not_exist_are_nobody() -> None:
    state = state_after(TopicCreated(ORDERS, "orders", [[1]]))
    assert state.partition(ORDERS, 0) is not None
    assert state.partition(ORDERS, 1) is None and state.partition(ORDERS, -1) is None
    assert state.partition(b"", 0) is None


def test_a_faulted_replica_leads_no_more_and_stays_the_only_one_that_may() -> None:
    state = state_after(
        TopicCreated(ORDERS, "orders", [[1]]), LeaderChanged(ORDERS, 0, 1, 0, 1, [1], 1),
        ReplicaFaulted(ORDERS, 0, 1, 4096, "EIO"))
    partition = state.topics_by_id[ORDERS].partitions[0]
    assert (partition.leader, partition.leader_epoch, partition.isr) == (cluster_state.NO_LEADER, 0, [1])
    assert partition.faults == {1: "EIO"} and partition.partition_epoch == 2


def test_a_recovery_by_hand_ends_the_fault_and_is_remembered() -> None:
    state = state_after(
        TopicCreated(ORDERS, "orders", [[1]]), ReplicaFaulted(ORDERS, 0, 1, 4096, "EIO"),
        ReplicaRecovered(ORDERS, 0, 1, "4f2a"))
    partition = state.topics_by_id[ORDERS].partitions[0]
    assert (partition.faults, partition.recoveries, partition.partition_epoch) == ({}, ["4f2a"], 2)
    state.apply(ReplicaFaulted(ORDERS, 0, 1, 8192, "EIO"))
    assert partition.faults == {1: "EIO"}


def test_what_only_grows_goes_on_behind_all_that_the_lost_part_can_have_held() -> None:
    state = state_after(
        TopicCreated(ORDERS, "orders", [[1]]), LeaderChanged(ORDERS, 0, 1, 5, 6, [1], 9), ProducerIdsAllocated(0, 1000),
        ClusterLogRecovered("77aa", 3, 3000))
    partition = state.topics_by_id[ORDERS].partitions[0]
    assert (partition.leader, partition.leader_epoch, partition.isr) == (cluster_state.NO_LEADER, 8, [1])
    assert partition.partition_epoch > 6 + 3
    assert (state.next_producer_id, state.recoveries) == (4000, ["77aa"])


def test_brokers_come_and_go() -> None:
    state = state_after(
        BrokerRegistered(1, 1, "", [KAFKA]), BrokerRegistered(1, 2, "a", []), BrokerRegistered(2, 1, "", []),
        TopicCreated(ORDERS, "orders", [[1], [2]]), LeaderChanged(ORDERS, 0, 1, 0, 1, [1], 1),
        LeaderChanged(ORDERS, 1, 2, 0, 1, [2], 1), BrokerRemoved(2))
    assert state.brokers == {1: cluster_state.BrokerState(1, 2, "a", [])}
    assert [partition.leader for partition in state.topics_by_id[ORDERS].partitions] == [1, cluster_state.NO_LEADER]


def test_producer_ids_go_on_behind_the_last_block() -> None:
    assert state_after(ProducerIdsAllocated(0, 1000), ProducerIdsAllocated(1000, 1000)).next_producer_id == 2000


def test_ids_are_printed_as_kafka_does() -> None:
    assert id_text(b"\xff" * 16) == "_____________________w"


def test_a_state_says_what_it_holds() -> None:
    state = state_after(ClusterCreated("abc"), TopicCreated(ORDERS, "orders", [[1]]))
    assert repr(state) == "<ClusterState abc brokers=0 topics=1>"


@given(st.lists(st.sampled_from(EXAMPLES), max_size=30))
def test_no_order_of_events_is_refused(events: list[AnyEvent]) -> None:
    state = state_after(*events)
    assert {topic.name: topic for topic in state.topics_by_id.values()} == state.topics_by_name
