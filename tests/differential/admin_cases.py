"""What administrators ask: topics made, grown, emptied and deleted; and everything that describes.

A case that changes something does it to a topic of its own, named after the version.
"""

from __future__ import annotations

from typing import Any

from tests.differential.cases import Bytes, Call, Case, case, create, list_offsets, topic
from tests.differential.data_cases import UNKNOWN_ID
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.messages import (
    alter_configs,
    describe_producers,
    describe_topic_partitions,
    incremental_alter_configs,
)
from zafka.transport.kafka.types import ZERO_UUID

TOPIC, BROKER, BROKER_LOGGER, GROUP = 2, 4, 8, 32


def _validate(title: str, *topics: Any, **options: Any) -> Case:
    return case(title, create(*topics, validate_only=True), **options)


def assigned(name: str, *assignments: tuple[int, list[int]], partitions: int = -1, replicas: int = -1) -> Any:
    return kafka.CreatableTopic(
        name, partitions, replicas, [kafka.CreatableReplicaAssignment(*each) for each in assignments], [])


CREATE_TOPICS = [
    case("a new one, and again", create(topic("new-{v}")), create(topic("new-{v}")),
         Call(kafka.DeleteTopicsRequest([], ["new-{v}"], 30_000), version=5)),
    _validate("validated", topic("valid", 3), topic("read")),
    _validate("defaults", topic("valid", -1, -1), versions=range(4, 20)),
    _validate("defaults too early", topic("valid", -1, -1), versions=range(4)),
    _validate("no partitions", topic("valid", 0)),
    _validate("partitions -2", topic("valid", -2)),
    _validate("no replicas", topic("valid", 1, 0)),
    _validate("replicas -3", topic("valid", 1, -3)),
    _validate("too many replicas", topic("valid", 1, 2)),
    _validate("bad names", *(topic(name) for name in ("", ".", "..", "a b", "ü", "x" * 250, "a/b", "x" * 249))),
    _validate("names that collide", topic("re.ad"), topic("re_ad")),
    _validate("a name twice", topic("valid"), topic("valid", 2), topic("other")),
    _validate("an internal name", topic("__cluster_metadata"), topic("__consumer_offsets"), topic("__own")),
    _validate("configuration", topic("valid", retention_ms="1000", segment_bytes="1048576")),
    _validate("an unknown key", topic("valid", no_such_key="1")),
    _validate("no number", topic("valid", retention_ms="soon")),
    _validate("out of range", topic("valid", segment_bytes="1")),
    _validate("a null value", topic("valid", retention_ms=None)),
    _validate("an unknown policy", topic("valid", cleanup_policy="burn")),
    _validate("assigned", assigned("valid", (0, [1]), (1, [1]))),
    _validate("assigned with a gap", assigned("valid", (0, [1]), (2, [1]))),
    _validate("assigned twice to one", assigned("valid", (0, [1, 1]))),
    _validate("assigned to nobody", assigned("valid", (0, []))),
    _validate("assigned to an unknown broker", assigned("valid", (0, [9]))),
    _validate("assigned and counted", assigned("valid", (0, [1]), partitions=1, replicas=1)),
    _validate("the same partition assigned twice", assigned("valid", (0, [1]), (0, [1]))),
    case("nothing", create()),
]

DELETE_TOPICS = [
    case("by name, and again", Call(create(topic("doomed-{v}")), version=7),
         kafka.DeleteTopicsRequest([], ["doomed-{v}"], 30_000), kafka.DeleteTopicsRequest([], ["doomed-{v}"], 30_000),
         versions=range(6)),
    case("by name in topics, and again", Call(create(topic("doomed-{v}")), version=7),
         *[kafka.DeleteTopicsRequest([kafka.DeleteTopicState("doomed-{v}")], [], 30_000)] * 2, versions=range(6, 9)),
    case("unknown ones", kafka.DeleteTopicsRequest(
        [kafka.DeleteTopicState("unknown"), kafka.DeleteTopicState(None, UNKNOWN_ID)], ["unknown", "a b", ""], 30_000)),
    case("one twice", kafka.DeleteTopicsRequest(
        [kafka.DeleteTopicState("unknown"), kafka.DeleteTopicState("unknown")], ["unknown", "unknown"], 30_000)),
    case("one by name and id", kafka.DeleteTopicsRequest(
        [kafka.DeleteTopicState("unknown"), kafka.DeleteTopicState("both", UNKNOWN_ID)], [], 30_000), versions=range(6, 9)),
    case("one with neither", kafka.DeleteTopicsRequest([kafka.DeleteTopicState(None, ZERO_UUID)], [], 30_000),
         versions=range(6, 9)),
    case("an id twice", kafka.DeleteTopicsRequest([kafka.DeleteTopicState(None, UNKNOWN_ID)] * 2, [], 30_000),
         versions=range(6, 9)),
    case("nothing", kafka.DeleteTopicsRequest([], [], 30_000)),
]


def grow(name: str, count: int, assignments: Any = None) -> Any:
    return kafka.CreatePartitionsTopic(
        name, count, assignments and [kafka.CreatePartitionsAssignment(each) for each in assignments])


CREATE_PARTITIONS = [
    case("one more", Call(create(topic("grow-{v}")), version=7),
         kafka.CreatePartitionsRequest([grow("grow-{v}", 2)], 30_000, False),
         kafka.CreatePartitionsRequest([grow("grow-{v}", 2)], 30_000, False),
         Call(kafka.DeleteTopicsRequest([], ["grow-{v}"], 30_000), version=5)),
    *(case(title, kafka.CreatePartitionsRequest(topics, 30_000, True)) for title, topics in (
        ("validated", [grow("read", 3)]), ("the same count", [grow("read", 2)]), ("fewer", [grow("read", 1)]),
        ("0", [grow("read", 0)]), ("-1", [grow("read", -1)]), ("unknown topics", [grow("unknown", 3), grow("", 3)]),
        ("one twice", [grow("read", 3), grow("read", 4), grow("cut", 2)]), ("nothing", []),
        ("assigned", [grow("read", 3, [[1]])]), ("too few assigned", [grow("read", 4, [[1]])]),
        ("assigned to an unknown broker", [grow("read", 3, [[9]])]), ("assigned to nobody", [grow("read", 3, [[]])]),
        ("assigned twice to one", [grow("read", 3, [[1, 1]])]), ("too many assigned", [grow("read", 3, [[1], [1]])]))),
]


def delete_records(name: str, *offsets: tuple[int, int]) -> Any:
    return kafka.DeleteRecordsRequest(
        [kafka.DeleteRecordsTopic(name, [kafka.DeleteRecordsPartition(*each) for each in offsets])], 30_000)


DELETE_RECORDS = [
    case("what is gone, and beyond", delete_records("cut", (0, 2)), delete_records("cut", (0, 1)), delete_records("cut", (0, 10)),
         delete_records("cut", (0, -2)), Call(list_offsets("cut", -2), version=5)),
    case("unknown ones", delete_records("unknown", (0, 0)), delete_records("read", (7, 0), (-1, 0)), delete_records("", (0, 0))),
    case("nothing", kafka.DeleteRecordsRequest([], 30_000), delete_records("read")),
    case("of an empty partition", delete_records("read", (1, 0)), delete_records("read", (1, -1)), delete_records("read", (1, 1))),
]

DESCRIBE_CLUSTER = [
    case("brokers", kafka.DescribeClusterRequest(False, 1)),
    case("operations", kafka.DescribeClusterRequest(True, 1)),
    case("controllers", kafka.DescribeClusterRequest(False, 2), versions=range(1, 9)),
    case("endpoint type 3", kafka.DescribeClusterRequest(False, 3), versions=range(1, 9)),
    case("fenced brokers", kafka.DescribeClusterRequest(False, 1, True), versions=range(2, 9)),
]


def pages(*names: str, limit: int = 2000, cursor: Any = None) -> Any:
    return kafka.DescribeTopicPartitionsRequest(
        [describe_topic_partitions.TopicRequest(name) for name in names], limit, cursor)


def cursor_at(name: str, partition: int) -> Any:
    return describe_topic_partitions.Cursor(name, partition)


DESCRIBE_TOPIC_PARTITIONS = [
    case("some", pages("read", "cut", "idem")),
    case("unordered and twice", pages("read", "cut", "read")),
    case("unknown", pages("unknown", "read"), pages("", "a b")),
    case("all", pages()),
    case("a page", pages("cut", "idem", "read", limit=2), pages("cut", "idem", "read", limit=3)),
    case("limits", *(pages("read", limit=limit) for limit in (1, 0, -1, 2**31 - 1))),
    case("from a cursor", *(pages("cut", "idem", "read", cursor=cursor_at(*each)) for each in (
        ("idem", 1), ("idem", 0), ("idem", 5), ("gone", 0), ("zzz", 0), ("idem", -1), ("", 0)))),
]

DESCRIBE_LOG_DIRS = [
    case("some", kafka.DescribeLogDirsRequest([kafka.DescribableLogDirTopic("read", [0, 1])])),
    case("all", kafka.DescribeLogDirsRequest(None)),
    case("unknown", kafka.DescribeLogDirsRequest([
        kafka.DescribableLogDirTopic("read", [7]), kafka.DescribableLogDirTopic("unknown", [0])])),
    case("nothing", kafka.DescribeLogDirsRequest([])),
]


def configs_of(kind: int, name: str, keys: Any = None, **options: Any) -> Any:
    return kafka.DescribeConfigsRequest([kafka.DescribeConfigsResource(kind, name, keys)], **options)


DESCRIBE_CONFIGS = [
    case("all of a topic", configs_of(TOPIC, "mixed")),
    case("of a topic that has some set", configs_of(TOPIC, "read", ["retention.ms"], include_synonyms=True)),
    case("where a value comes from", configs_of(TOPIC, "mixed", ["min.insync.replicas"], include_synonyms=True)),
    case("with documentation", configs_of(TOPIC, "mixed", ["retention.ms", "cleanup.policy"], include_documentation=True),
         versions=range(3, 9)),
    case("some keys", configs_of(TOPIC, "read", ["cleanup.policy", "no.such"]), configs_of(TOPIC, "read", [])),
    case("unknown topics", configs_of(TOPIC, "unknown"), configs_of(TOPIC, ""), configs_of(TOPIC, "a b")),
    case("brokers", *(configs_of(BROKER, name, ["num.partitions"]) for name in ("1", "", "7", "x", "-1"))),
    case("all of a broker", configs_of(BROKER, "1")),
    case("a kind that does not exist beside one that does", kafka.DescribeConfigsRequest([
        kafka.DescribeConfigsResource(TOPIC, "read", None), kafka.DescribeConfigsResource(99, "x", None)])),
    case("all loggers", configs_of(BROKER_LOGGER, "1")),
    case("loggers", configs_of(BROKER_LOGGER, "7", []), configs_of(BROKER_LOGGER, "x", [])),
    case("other kinds", *(configs_of(kind, "x") for kind in (0, 1, 3, 5, 99, -1))),
    case("groups and metrics", configs_of(32, "g"), configs_of(16, "m")),
    case("nothing", kafka.DescribeConfigsRequest([])),
    case("one twice", kafka.DescribeConfigsRequest([kafka.DescribeConfigsResource(TOPIC, "read", ["retention.ms"])] * 2)),
]



def alter(name: str, *configs: tuple[str, str | None], kind: int = TOPIC, validate_only: bool = False) -> Any:
    return alter_configs.AlterConfigsRequest([alter_configs.AlterConfigsResource(
        kind, name, [alter_configs.AlterableConfig(*each) for each in configs])], validate_only)


def increment(name: str, *configs: tuple[str, int, str | None], kind: int = TOPIC, validate_only: bool = False) -> Any:
    return incremental_alter_configs.IncrementalAlterConfigsRequest([incremental_alter_configs.AlterConfigsResource(
        kind, name, [incremental_alter_configs.AlterableConfig(*each) for each in configs])], validate_only)


def told(name: str, *keys: str) -> Call:
    return Call(configs_of(TOPIC, name, list(keys)), version=4, is_known_later=True)


SET, DELETE, APPEND, SUBTRACT = range(4)
ALTER_CONFIGS = [
    case("one key, then another", Call(create(topic("altered-{v}")), version=7),
         alter("altered-{v}", ("retention.ms", "7000")), told("altered-{v}", "retention.ms", "segment.ms"),
         alter("altered-{v}", ("segment.ms", "8000")), told("altered-{v}", "retention.ms", "segment.ms"),
         alter("altered-{v}"), told("altered-{v}", "retention.ms", "segment.ms"),
         Call(kafka.DeleteTopicsRequest([], ["altered-{v}"], 30_000), version=5)),
    *(case(title, *requests) for title, requests in (
        ("validated", [alter("read", ("retention.ms", "7000"), validate_only=True), told("read", "retention.ms")]),
        ("unknown topics", [alter("unknown", ("retention.ms", "7000")), alter("", ("retention.ms", "7000")), alter("a b", ("retention.ms", "7000"))]),
        ("an unknown key", [alter("read", ("no.such", "1"))]), ("a bad value", [alter("read", ("retention.ms", "x"))]),
        ("no value", [alter("read", ("retention.ms", None))]),
        ("a key twice", [alter("read", ("retention.ms", "1"), ("retention.ms", "2"))]),
        ("another broker", [alter("7", ("log.retention.ms", "1"), kind=BROKER), alter("x", ("a", "1"), kind=BROKER)]),
        ("kinds that do not exist", [alter("x", ("a", "1"), kind=kind) for kind in (0, 1, 3, 99)]),
        ("nothing", [alter_configs.AlterConfigsRequest([])]))),
]
INCREMENTAL = [
    case("set, append, subtract, delete", Call(create(topic("altered-{v}")), version=7),
         *(request for operations in (
             [("retention.ms", SET, "7000"), ("segment.ms", SET, "8000")], [("retention.ms", DELETE, None)],
             [("retention.ms", DELETE, "x")], [("cleanup.policy", SUBTRACT, "delete")], [("cleanup.policy", APPEND, "delete")],
             [("cleanup.policy", APPEND, "delete")], [("no.such", DELETE, None)], [])
           for request in (
               increment("altered-{v}", *operations), told("altered-{v}", "retention.ms", "segment.ms", "cleanup.policy"))),
         Call(kafka.DeleteTopicsRequest([], ["altered-{v}"], 30_000), version=5)),
    *(case(title, *requests) for title, requests in (
        ("validated", [increment("read", ("retention.ms", SET, "7000"), validate_only=True), told("read", "retention.ms")]),
        ("unknown topics", [increment(name, ("retention.ms", SET, "7000")) for name in ("unknown", "", "a b")]),
        ("an unknown key", [increment("read", ("no.such", SET, "1"))]),
        ("bad values", [increment("read", ("retention.ms", SET, each)) for each in ("x", "-2", "")]),
        ("no value", [increment("read", ("retention.ms", kind, None)) for kind in (SET, APPEND)]),
        ("a key twice", [increment("read", ("retention.ms", SET, "1"), ("retention.ms", DELETE, None))]),
        ("to no list", [increment("read", ("retention.ms", kind, "1")) for kind in (APPEND, SUBTRACT)]),
        ("unknown operations", [increment("read", ("retention.ms", kind, "1")) for kind in (4, -1)]),
        ("another broker", [increment("7", ("log.retention.ms", SET, "1"), kind=BROKER)]),
        ("no broker", [increment("x", ("log.retention.ms", SET, "1"), kind=BROKER)]),
        ("what no broker alters", [increment("1", ("node.id", SET, "7"), kind=BROKER)]),
        ("kinds that do not exist", [increment("x", ("a", SET, "1"), kind=kind) for kind in (0, 1, 3, 99)]),
        ("nothing", [incremental_alter_configs.IncrementalAlterConfigsRequest([])]))),
    case("one twice", incremental_alter_configs.IncrementalAlterConfigsRequest(
        increment("read", ("retention.ms", SET, "1")).resources * 2)),
]

def told_of(kind: int, name: str, *keys: str) -> Call:
    return Call(configs_of(kind, name, list(keys), include_synonyms=True), version=4)


def seen(name: str) -> list[Call]:
    """Who serves a topic that was created later knows what was altered before: Kafka answers earlier than that."""
    return [Call(create(topic(name)), version=7), Call(list_offsets(name, -1), version=5, until=0)]


def _one_by_one(name: str, kind: int, *operations: tuple[str, int, str | None]) -> list[Any]:
    return [increment(name, each, kind=kind) for each in operations]


SEGMENT, SESSION, HEARTBEAT = "log.segment.bytes", "consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"
DYNAMIC = [
    case("of one broker, of all, of none", increment("1", (SEGMENT, SET, "7000000"), kind=BROKER),
         increment("", (SEGMENT, SET, "8000000"), ("log.cleaner.backoff.ms", SET, "9000"), kind=BROKER), *seen("seen-{v}"),
         told_of(BROKER, "1", SEGMENT, "log.cleaner.backoff.ms"), told_of(BROKER, "", SEGMENT, "log.cleaner.backoff.ms"),
         told_of(TOPIC, "seen-{v}", "segment.bytes"),
         increment("1", (SEGMENT, DELETE, None), kind=BROKER), *seen("seen-again-{v}"), told_of(BROKER, "1", SEGMENT),
         told_of(TOPIC, "seen-{v}", "segment.bytes"),
         increment("", (SEGMENT, DELETE, None), ("log.cleaner.backoff.ms", DELETE, None), kind=BROKER), *seen("seen-last-{v}"),
         told_of(BROKER, "1", SEGMENT), told_of(TOPIC, "seen-{v}", "segment.bytes"),
         Call(kafka.DeleteTopicsRequest([], ["seen-{v}", "seen-again-{v}", "seen-last-{v}"], 30_000), version=5)),
    *(case(f"{title} of {whose}", *_one_by_one(name, BROKER, *operations))
      for whose, name in (("one broker", "1"), ("all brokers", "")) for title, operations in (
          ("read-only settings", [("node.id", SET, "1"), ("num.partitions", SET, "2"), ("group.max.size", SET, "2"),
                                  ("log.retention.hours", SET, "1"), ("num.partitions", DELETE, None)]),
          ("lists", [("log.cleanup.policy", APPEND, "compact"), ("log.cleanup.policy", SUBTRACT, "compact"),
                     ("log.cleanup.policy", DELETE, None)]),
          ("settings that are no list", [("log.retention.ms", APPEND, "1"), ("num.partitions", APPEND, "1"),
                                         ("no.such", SUBTRACT, "1")]),
          ("bad values", [("log.retention.ms", SET, "x"), ("log.segment.bytes", SET, "1"), ("log.roll.ms", SET, None),
                          ("log.cleaner.io.max.bytes.per.second", SET, "x"), ("producer.id.expiration.ms", SET, "0"),
                          ("log.message.timestamp.type", SET, "burn")]),
          ("settings that do not exist", [("no.such", SET, "1"), ("no.such", DELETE, None)]))),
    case("two settings, one of them read-only", increment("1", (SEGMENT, SET, "7000000"), ("num.partitions", SET, "2"), kind=BROKER),
         told_of(BROKER, "1", SEGMENT)),
    case("validated of a broker", increment("1", (SEGMENT, SET, "7000000"), kind=BROKER, validate_only=True), told_of(BROKER, "1", SEGMENT)),
    case("of a group, and back", increment("g", (SESSION, SET, "50000"), kind=GROUP), *seen("seen-{v}"),
         told_of(GROUP, "g", SESSION), Call(kafka.ListConfigResourcesRequest([GROUP]), version=1),
         increment("g", (SESSION, DELETE, None), kind=GROUP), *seen("seen-again-{v}"), told_of(GROUP, "g", SESSION),
         Call(kafka.ListConfigResourcesRequest([GROUP]), version=1),
         Call(kafka.DeleteTopicsRequest([], ["seen-{v}", "seen-again-{v}"], 30_000), version=5)),
    case("bad values of a group", *_one_by_one("g", GROUP, *(
        (key, SET, value) for key in (SESSION, HEARTBEAT, "consumer.assignment.interval.ms")
        for value in ("999999", "x", "-1", "")), (SESSION, SET, "1"), (SESSION, APPEND, "1"), ("no.such", SET, "1"),
        ("retention.ms", SET, "1"), ("no.such", DELETE, None), (SESSION, SET, None))),
    case("of no group", increment("", (SESSION, SET, "50000"), kind=GROUP)),
]
REPLACED = [
    case("of a broker", alter("1", (SEGMENT, "7000000"), kind=BROKER), alter("1", ("num.partitions", "3"), kind=BROKER),
         alter("1", kind=BROKER)),
    case("of a group", alter("g", (SESSION, "50000"), kind=GROUP), alter("g", (HEARTBEAT, "1000000"), kind=GROUP),
         alter("g", kind=GROUP), alter("", (SESSION, "50000"), kind=GROUP)),
]

DESCRIBE_PRODUCERS = [
    case("some", kafka.DescribeProducersRequest([
        describe_producers.TopicRequest("idem", [0, 1]), describe_producers.TopicRequest("read", [0])])),
    case("unknown", kafka.DescribeProducersRequest([
        describe_producers.TopicRequest("read", [7, -1]), describe_producers.TopicRequest("unknown", [0]),
        describe_producers.TopicRequest("", [0])])),
    case("nothing", kafka.DescribeProducersRequest([])),
]

TRANSACTIONS = [
    case("of nobody", kafka.DescribeTransactionsRequest([])),
    case("unknown ids", kafka.DescribeTransactionsRequest(["nobody's", ""])),
    case("all", kafka.ListTransactionsRequest()),
    case("filters", kafka.ListTransactionsRequest(["Ongoing", "NoSuchState"], [5])),
    case("durations", kafka.ListTransactionsRequest(duration_filter=0), kafka.ListTransactionsRequest(duration_filter=10**12)),
    case("patterns", *(kafka.ListTransactionsRequest(transactional_id_pattern=each) for each in ("a.*", "", "[")),
         versions=range(2, 9)),
]

OTHERS = [
    case("default", kafka.ListConfigResourcesRequest()),
    case("brokers", kafka.ListConfigResourcesRequest([BROKER])),
    case("kinds", *(kafka.ListConfigResourcesRequest([each]) for each in (BROKER_LOGGER, 16, 32, 0, 99, -1)),
         versions=range(1, 9)),
    case("a client", kafka.ApiVersionsRequest("differential", "1.0")),
    case("odd clients", *(kafka.ApiVersionsRequest(*each) for each in (
        ("", ""), ("-a", "1"), ("a b", "1"), ("a", "1-"), ("ü", "1"), ("a.b-c", "1.0-x"))), versions=range(3, 9)),
    case("a group", kafka.FindCoordinatorRequest("g", 0, ["g"])),
    case("a transaction", kafka.FindCoordinatorRequest("t", 1, ["t"]), versions=range(1, 9)),
    case("kind 9", kafka.FindCoordinatorRequest("t", 9, ["t"]), versions=range(1, 9)),
    case("no keys", kafka.FindCoordinatorRequest("", 0, []), versions=range(4, 9)),
    case("an empty key", kafka.FindCoordinatorRequest("", 0, [""])),
]

STRANGE = [
    *(Bytes(f"version {version} of API {key}", key, b"\0" * 40, version)
      for key in (0, 1, 2, 3, 10, 18, 19, 20, 21, 22, 23, 32, 35, 37, 60, 61, 65, 66, 74, 75) for version in (-1, 0, 99)
      if (key, version) not in ((3, 0),)),
    *(Bytes(f"API {key}", key, b"", 0) for key in (-1, 4, 5, 6, 7, 52, 53, 58, 62, 67, 70, 93, 1000, 32767)),
    *(Bytes(f"half a request of API {key}", key, b"\xff\xff", version) for key, version in (
        (0, 9), (1, 12), (2, 7), (3, 9), (3, 1), (18, 3), (19, 7), (20, 6), (21, 2), (22, 4), (23, 4), (32, 4), (35, 4),
        (37, 3), (60, 1), (75, 0))),
    Bytes("bytes behind a request", 3, b"\0\0\0\0 and more", 1),
]

CASES: list[Case] = [
    *CREATE_TOPICS, *DELETE_TOPICS, *CREATE_PARTITIONS, *DELETE_RECORDS, *DESCRIBE_CLUSTER, *DESCRIBE_TOPIC_PARTITIONS,
    *DESCRIBE_LOG_DIRS, *DESCRIBE_CONFIGS, *ALTER_CONFIGS, *INCREMENTAL, *DYNAMIC, *REPLACED, *DESCRIBE_PRODUCERS, *TRANSACTIONS, *OTHERS]
