"""Produce, Fetch, ListOffsets, Metadata, OffsetForLeaderEpoch, InitProducerId: what goes well and what does not.

The topics that `SETUP` makes are only read by the cases; Produce has a topic of its own, and each case a partition.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from tests.differential.cases import (
    FOREVER,
    Call,
    Case,
    T,
    batch,
    case,
    fetch,
    fetch_all,
    list_offsets,
    metadata,
    new_producer,
    own_batch,
    part,
    produce,
    saved,
    topic,
    topic_id,
)
from zafka.storage.codecs import GZIP, LZ4, SNAPPY, ZSTD
from zafka.storage.records import encode_batch
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.messages.fetch import ReplicaState
from zafka.transport.kafka.types import ZERO_UUID

UNKNOWN_ID = b"nobody's id here"
_partitions = count()
END_OFFSET = 16  # of partition 0 of "read"


def _produce(title: str, *bodies: Any, acks: int = -1, before: tuple[Call, ...] = (), **options: Any) -> Case:
    """A case of Produce to a partition of its own: one request for each body."""
    mine = next(_partitions)
    calls = [produce("written", body, partition=mine, acks=acks) for body in bodies]
    end = Call(list_offsets("written", -1, partition=mine), version=5)
    return case(title, *before, *calls, end, **options)


def _cut(data: memoryview, end: int) -> memoryview:
    return data[:end]


def _with_byte(data: memoryview, position: int, value: int) -> memoryview:
    changed = bytearray(data)
    changed[position] = value
    return memoryview(changed)


def _keyed(*keys: bytes | None, codec: int = 0) -> memoryview:
    return memoryview(encode_batch([(T, key, b"value", ()) for key in keys], codec=codec))


PRODUCE = [
    _produce("one batch, then another", batch(), batch(2)),
    *(_produce(f"codec {codec}", batch(codec=codec)) for codec in (GZIP, SNAPPY, LZ4)),
    _produce("codec 4", batch(codec=ZSTD)),
    _produce("acks=1", batch(), acks=1),
    _produce("acks=2", batch(), acks=2),
    _produce("acks=-2", batch(), acks=-2),
    _produce("empty records", memoryview(b"")),
    _produce("two batches in one", memoryview(bytes(batch()) + bytes(batch()))),
    _produce("a batch cut short", _cut(batch(), -5)),
    _produce("less than a header", _cut(batch(), 30)),
    _produce("a wrong CRC", _with_byte(batch(), 17, 1)),
    _produce("magic 1", _with_byte(batch(), 16, 1)),
    _produce("magic 3", _with_byte(batch(), 16, 3)),
    _produce("too large", batch(40_000)),
    _produce("a time far ahead", batch(first_ms=T * 2)),
    _produce("a time before 1970", batch(first_ms=-5)),
    _produce("transactional without an id", batch(producer_id=7, producer_epoch=0, base_sequence=0, transactional=True)),
    _produce("in order", own_batch("pid", sequence=0), own_batch("pid", sequence=3), before=(new_producer(),)),
    _produce("the same twice", own_batch("pid", sequence=0), own_batch("pid", sequence=0), before=(new_producer(),)),
    _produce(
        "a duplicate of an earlier one", *(own_batch("pid", sequence=each) for each in (0, 3, 6, 0, 3)),
        before=(new_producer(),)),
    _produce(
        "a duplicate older than five", *(own_batch("pid", sequence=each) for each in (0, 3, 6, 9, 12, 15, 0)),
        before=(new_producer(),)),
    _produce("a gap", own_batch("pid", sequence=0), own_batch("pid", sequence=9), before=(new_producer(),)),
    _produce("begins beyond 0", own_batch("pid", sequence=5), before=(new_producer(),)),
    _produce(
        "a new epoch", own_batch("pid", sequence=0), own_batch("pid", sequence=0, epoch=1), before=(new_producer(),)),
    _produce(
        "a new epoch beyond 0", own_batch("pid", sequence=0), own_batch("pid", sequence=4, epoch=1),
        before=(new_producer(),)),
    _produce(
        "an old epoch", own_batch("pid", sequence=0, epoch=3), own_batch("pid", sequence=3, epoch=2),
        before=(new_producer(),)),
    _produce("negative sequence", own_batch("pid", sequence=-2), before=(new_producer(),)),
    _produce("negative epoch", own_batch("pid", sequence=0, epoch=-1), before=(new_producer(),)),
    _produce(
        "sequences wrap", own_batch("pid", sequence=2**31 - 3, count=3), own_batch("pid", sequence=0),
        before=(new_producer(),)),
    case("no topic of this name", produce("unknown", batch())),
    case("no such partition", produce("written", batch(), partition=500)),
    case("partition -1", produce("written", batch(), partition=-1)),
    case("a transactional id", produce("apart", batch(), transactional_id="tx")),
    case("nothing", kafka.ProduceRequest(None, -1, 30_000, [])),
    case("a topic without partitions", kafka.ProduceRequest(None, -1, 30_000, [
        kafka.TopicProduceData(topic_id("written"), "written", [])])),
    case("known and unknown together", kafka.ProduceRequest(None, -1, 30_000, [
        kafka.TopicProduceData(topic_id("unknown"), "unknown", [kafka.PartitionProduceData(0, batch())]),
        kafka.TopicProduceData(topic_id("mixed"), "mixed", [
            kafka.PartitionProduceData(9, batch()), kafka.PartitionProduceData(0, batch())])])),
    case("keys in a compacted topic", produce("keyed", _keyed(b"a", b"", b"a"))),
    case("no keys in a compacted topic", produce("keyed", _keyed(None, None, None, None, None))),
    case("some keys in a compacted topic, compressed", produce("keyed", _keyed(b"a", None, b"b", codec=GZIP))),
    case("records of a compacted topic are not deleted by offset", kafka.DeleteRecordsRequest(
        [kafka.DeleteRecordsTopic("keyed", [kafka.DeleteRecordsPartition(0, 0)])], 30_000)),
    case("no acknowledgement", Call(produce("mixed", batch(), acks=0), is_answered=False)),
    case("no acknowledgement, unknown topic", Call(produce("unknown", batch(), acks=0), is_answered=False)),
    case("no timeout", kafka.ProduceRequest(None, -1, 0, [kafka.TopicProduceData(
        topic_id("mixed"), "mixed", [kafka.PartitionProduceData(1, batch())])])),
    case("an empty name", produce("", batch()), versions=range(13)),
    case("a zero id", kafka.ProduceRequest(None, -1, 30_000, [kafka.TopicProduceData(
        ZERO_UUID, "", [kafka.PartitionProduceData(0, batch())])]), versions=range(13, 20)),
    case("two topics twice", kafka.ProduceRequest(None, -1, 30_000, [
        kafka.TopicProduceData(topic_id("apart"), "apart", [kafka.PartitionProduceData(1, batch())]),
        kafka.TopicProduceData(topic_id("apart"), "apart", [kafka.PartitionProduceData(1, batch())])])),
]

FETCH = [
    case("from the start", fetch("read", part(0), part(1))),
    case("every offset", *(fetch("read", part(0, offset)) for offset in range(END_OFFSET + 1)), versions=range(11, 14)),
    case("beyond the end", fetch("read", part(0, END_OFFSET + 1), part(1, 1), part(0, 2**60))),
    case("negative offsets", fetch("read", part(0, -1), part(1, -(2**60)))),
    case("below the start", fetch("cut", part(0, 0))),
    case("at the start", fetch("cut", part(0, 2))),
    case("within what is left", fetch("cut", part(0, 4))),
    case("no such partition", fetch("read", part(7), part(-1), part(0))),
    case("no such topic", fetch("unknown", part(0))),
    case("unknown and known", fetch_all(
        kafka.FetchTopic(topic_id("unknown"), "unknown", [part(0), part(1)]),
        kafka.FetchTopic(topic_id("read"), "read", [part(0)]))),
    case("an id that nobody has", fetch_all(kafka.FetchTopic(UNKNOWN_ID, "read", [part(0)])), versions=range(13, 20)),
    case("a zero id", fetch_all(kafka.FetchTopic(ZERO_UUID, "", [part(0)])), versions=range(13, 20)),
    case("one byte", fetch("read", part(0, max_bytes=1)), fetch("read", part(0, 3), max_bytes=1)),
    case("no bytes", fetch("read", part(0, max_bytes=0)), fetch("read", part(0), max_bytes=0)),
    case("negative sizes", fetch("read", part(0, max_bytes=-1)), fetch("read", part(0), max_bytes=-1)),
    case("150 bytes a partition", fetch("read", part(0, max_bytes=150))),
    case("500 bytes in all", fetch_all(
        kafka.FetchTopic(topic_id("read"), "read", [part(0)]), kafka.FetchTopic(topic_id("cut"), "cut", [part(0, 3)]),
        max_bytes=500)),
    case("a second partition that allows less than a batch", fetch_all(
        kafka.FetchTopic(topic_id("read"), "read", [part(0, max_bytes=200)]),
        kafka.FetchTopic(topic_id("cut"), "cut", [part(0, 4, max_bytes=1)]))),
    case("the right epoch", fetch("read", part(0, current_leader_epoch=saved("epoch"))), versions=range(9, 20)),
    case("an old epoch", fetch("read", part(0, current_leader_epoch=saved("older epoch"))), versions=range(9, 20)),
    case("a future epoch", fetch("read", part(0, current_leader_epoch=FOREVER)), versions=range(9, 20)),
    case("negative epochs", fetch("read", part(0, current_leader_epoch=-2), part(1, current_leader_epoch=-1))),
    case("last fetched epoch", fetch("read", part(0, 3, last_fetched_epoch=saved("epoch"))), versions=range(12, 20)),
    case("older last fetched epoch", fetch("read", part(0, 3, last_fetched_epoch=saved("older epoch"))),
         versions=range(12, 20)),
    case("a diverging reader of what is committed", fetch(
        "read", part(0, END_OFFSET + 9, last_fetched_epoch=saved("epoch")), isolation_level=1), versions=range(12, 20)),
    case("future last fetched epoch", fetch("read", part(0, 3, last_fetched_epoch=1000)), versions=range(12, 20)),
    case("read committed", fetch("read", part(0), isolation_level=1), fetch("idem", part(0), isolation_level=1)),
    case("read committed, and no bytes left", *(fetch_all(
        kafka.FetchTopic(topic_id("read"), "read", [part(0)]), kafka.FetchTopic(topic_id("cut"), "cut", [part(0, 4)]),
        max_bytes=limit, isolation_level=1) for limit in (150, 200))),
    case("isolation level 7", fetch("read", part(0), isolation_level=7)),
    case("the idempotent's", fetch("idem", part(0), part(1))),
    case("at the end, waiting a little", fetch("read", part(0, END_OFFSET), max_wait_ms=30, min_bytes=1)),
    case("no topics", fetch_all()),
    case("a rack", fetch("read", part(0), rack_id="r1"), versions=range(11, 20)),
    case("the same partition twice", fetch("read", part(0), part(0, 3))),
    case("a session, an incremental fetch, its end",
         Call(fetch("read", part(0), part(1), session_epoch=0), save=("session", "session_id")),
         fetch_all(session_id=saved("session"), session_epoch=1),
         fetch("read", part(0, 3), session_id=saved("session"), session_epoch=2),
         fetch_all(session_id=saved("session"), session_epoch=2),
         fetch("cut", part(0, 0), session_id=saved("session"), session_epoch=3),
         fetch_all(session_id=saved("session"), session_epoch=4, forgotten_topics_data=[
             kafka.ForgottenTopic(topic_id("cut"), "cut", [0])]),
         fetch_all(session_id=saved("session"), session_epoch=-1),
         fetch_all(session_id=saved("session"), session_epoch=5), versions=range(7, 20)),
    case("a session that nobody has", fetch("read", part(0), session_id=77, session_epoch=5),
         fetch("read", part(0), session_id=77, session_epoch=0), fetch("read", part(0), session_id=-4, session_epoch=1),
         fetch("read", part(0), session_id=0, session_epoch=3), fetch("read", part(0), session_id=0, session_epoch=-7),
         versions=range(7, 20)),
    case("a session with unknown topics",
         Call(fetch_all(kafka.FetchTopic(topic_id("unknown"), "unknown", [part(0)]),
                        kafka.FetchTopic(topic_id("read"), "read", [part(1)]), session_epoch=0),
              save=("session", "session_id")),
         fetch_all(session_id=saved("session"), session_epoch=1),
         fetch_all(session_id=saved("session"), session_epoch=-1), versions=range(7, 20)),
    case("a session for nothing", fetch_all(session_epoch=0), versions=range(7, 20)),
    case("as a replica", fetch("read", part(0), replica_id=5), versions=range(15)),
    case("as an unknown replica", fetch("read", part(0), replica_state=ReplicaState(9, 3)), versions=range(15, 20)),
    case("as a debugging consumer", fetch("read", part(0), replica_id=-2), versions=range(15)),
    case("a cluster id", fetch("read", part(0), cluster_id="another"), versions=range(12, 20)),
]

LIST_OFFSETS = [
    case("every special timestamp", *(list_offsets("read", each) for each in range(-1, -8, -1))),
    case("of an empty partition", *(list_offsets("read", each, partition=1) for each in (*range(-1, -8, -1), 0, T))),
    case("after deleted records", *(list_offsets("cut", each) for each in (*range(-1, -7, -1), 0, T, T + 2500))),
    case("times", *(list_offsets("read", each) for each in (
        0, T - 1, T, T + 1, T + 999, T + 1000, T + 2000, T + 2001, T + 10_000, T + 11_000, T + 50_000, T + 60_000,
        T + 10**9, 2**62))),
    case("many at once", list_offsets("read", -1, -2, T)),
    case("one partition twice", kafka.ListOffsetsRequest(-1, 0, [kafka.ListOffsetsTopic("read", [
        kafka.ListOffsetsPartition(0, timestamp=-1), kafka.ListOffsetsPartition(0, timestamp=-2),
        kafka.ListOffsetsPartition(1, timestamp=-2)])])),
    case("no such partition", list_offsets("read", -1, partition=9), list_offsets("read", -1, partition=-1)),
    case("no such topic", list_offsets("unknown", -1), list_offsets("", -1), list_offsets("bad name", T)),
    case("no topics", list_offsets("read")),
    case("the right epoch", list_offsets("read", -1, current_leader_epoch=saved("epoch")), versions=range(4, 20)),
    case("an old epoch", list_offsets("read", -1, current_leader_epoch=saved("older epoch")), versions=range(4, 20)),
    case("a future epoch", list_offsets("read", -1, T, current_leader_epoch=FOREVER), versions=range(4, 20)),
    case("read committed", kafka.ListOffsetsRequest(-1, 1, [kafka.ListOffsetsTopic("read", [
        kafka.ListOffsetsPartition(0, timestamp=-1)])]), versions=range(2, 20)),
    case("isolation level 9", kafka.ListOffsetsRequest(-1, 9, [kafka.ListOffsetsTopic("read", [
        kafka.ListOffsetsPartition(0, timestamp=-1)])]), versions=range(2, 20)),
    case("a timeout of 0", kafka.ListOffsetsRequest(-1, 0, [kafka.ListOffsetsTopic("read", [
        kafka.ListOffsetsPartition(0, timestamp=T)])], 0), versions=range(10, 20)),
    case("as a replica", kafka.ListOffsetsRequest(3, 0, [kafka.ListOffsetsTopic("read", [
        kafka.ListOffsetsPartition(0, timestamp=-1)])])),
]

METADATA = [
    case("some topics", metadata("read", "cut", "idem")),
    case("all topics", kafka.MetadataRequest(None), versions=range(1, 20)),
    case("all topics of old", kafka.MetadataRequest([]), versions=range(1)),
    case("in another order", metadata("idem", "read")),
    case("an unknown one", metadata("unknown", "read"), versions=range(4, 20)),
    case("one twice", metadata("read", "read")),
    case("bad names", metadata("", "bad name", ".", "..", "x" * 249, "x" * 250, "ü"), versions=range(4, 20)),
    case("one that comes into being", metadata("made-{v}", allow_auto_topic_creation=True),
         Call(metadata("made-{v}"), version=12, until=0),
         Call(kafka.DeleteTopicsRequest([], ["made-{v}"], 30_000), version=5)),
    case("bad names that would come into being", metadata("a b", "", allow_auto_topic_creation=True)),
    case("no topics", metadata(), versions=range(1, 20)),
    case("an internal one by a client", metadata("__cluster", "__share_group_state"), versions=range(4, 20)),
    case("operations on what is not there", *(metadata(name, include_topic_authorized_operations=True) for name in (
        "unknown", "a b")), versions=range(8, 20)),
    case("operations on an id that nobody has", kafka.MetadataRequest(
        [kafka.MetadataRequestTopic(UNKNOWN_ID, None)], False, False, True), versions=range(12, 20)),
    case("operations", metadata("read", include_topic_authorized_operations=True), versions=range(8, 20)),
    case("operations of the cluster", metadata("read", include_cluster_authorized_operations=True), versions=range(8, 11)),
    case("by id", kafka.MetadataRequest([kafka.MetadataRequestTopic(topic_id("read"), None),
                                         kafka.MetadataRequestTopic(UNKNOWN_ID, None)], False), versions=range(10, 20)),
    case("a zero id without a name", kafka.MetadataRequest([kafka.MetadataRequestTopic(ZERO_UUID, None)], False),
         versions=range(10, 20)),
    case("an id and a name", kafka.MetadataRequest([kafka.MetadataRequestTopic(topic_id("read"), "read")], False),
         versions=range(10, 20)),
    case("ids and names mixed", kafka.MetadataRequest([
        kafka.MetadataRequestTopic(topic_id("read"), None), kafka.MetadataRequestTopic(ZERO_UUID, "cut")], False),
         versions=range(10, 20)),
]


def _epochs(*partitions: Any, topic: str = "read", replica_id: int = -1) -> Any:
    return kafka.OffsetForLeaderEpochRequest(replica_id, [kafka.OffsetForLeaderTopic(topic, [
        kafka.OffsetForLeaderPartition(*each) for each in partitions])])


OFFSET_FOR_LEADER_EPOCH = [
    case("the present epoch", _epochs((0, -1, saved("epoch")))),
    case("an older epoch", _epochs((0, -1, saved("older epoch")))),
    case("a future epoch", _epochs((0, -1, FOREVER))),
    case("epoch -1", _epochs((0, -1, -1), (1, -1, -1))),
    case("epoch -5", _epochs((0, -1, -5))),
    case("of an empty partition", _epochs((1, -1, saved("epoch")))),
    case("current epochs", _epochs((0, saved("epoch"), saved("epoch")), (1, FOREVER, 0)),
         _epochs((0, saved("older epoch"), saved("epoch")))),
    case("no such partition", _epochs((9, -1, 0), (0, -1, saved("epoch")), (-1, -1, 0))),
    case("no such topic", _epochs((0, -1, 0), topic="unknown")),
    case("no topics", kafka.OffsetForLeaderEpochRequest(-1, [])),
    case("after deleted records", _epochs((0, -1, saved("epoch")), topic="cut")),
    case("as a replica", _epochs((0, -1, saved("epoch")), replica_id=3)),
]

INIT_PRODUCER_ID = [
    case("a new id", kafka.InitProducerIdRequest(None, 60_000)),
    case("no timeout", kafka.InitProducerIdRequest(None, 0)),
    case("a negative timeout", kafka.InitProducerIdRequest(None, -1)),
    case("an empty transactional id", kafka.InitProducerIdRequest("", 60_000)),
    case("a higher epoch", new_producer("raised"), kafka.InitProducerIdRequest(None, 60_000, saved("raised"), 0),
         versions=range(3, 20)),
    case("an id without an epoch", kafka.InitProducerIdRequest(None, 60_000, 5, -1), versions=range(3, 20)),
    case("an epoch without an id", kafka.InitProducerIdRequest(None, 60_000, -1, 5), versions=range(3, 20)),
]

CASES = [*PRODUCE, *FETCH, *LIST_OFFSETS, *METADATA, *OFFSET_FOR_LEADER_EPOCH, *INIT_PRODUCER_ID]

TOPICS = [
    topic("read", 2, retention_ms="-1"), topic("idem", 2, retention_ms="-1"), topic("cut", 1, retention_ms="-1"),
    topic("mixed", 2), topic("apart", 2), topic("written", next(_partitions)),
    topic("keyed", 1, cleanup_policy="compact"),
]

FILL = [
    *(Call(produce("read", batch(codec=codec, first_ms=T + number * 10_000, step_ms=1000)), version=9)
      for number, codec in enumerate((0, GZIP, SNAPPY, LZ4))),
    Call(produce("read", batch(1, codec=ZSTD, first_ms=T + 90_000)), version=9),
    Call(produce("read", batch(3, first_ms=T + 50_000, step_ms=-1000)), version=9),
    new_producer("idempotent"),
    *(Call(produce("idem", own_batch("idempotent", sequence=sequence)), version=9)
      for sequence in (0, 3, 6)),
    *(Call(produce("cut", batch(first_ms=T + number * 10_000)), version=9) for number in range(3)),
    Call(kafka.DeleteRecordsRequest([kafka.DeleteRecordsTopic("cut", [kafka.DeleteRecordsPartition(0, 2)])], 30_000), version=2),
]
