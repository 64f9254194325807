"""What administrators seldom send: things named twice, lists that are odd, numbers out of range, nothing at all."""

from __future__ import annotations

from tests.differential.admin_cases import (
    APPEND,
    BROKER,
    DELETE,
    GROUP,
    SEGMENT,
    SESSION,
    SET,
    SUBTRACT,
    TOPIC,
    alter,
    assigned,
    configs_of,
    cursor_at,
    delete_records,
    grow,
    increment,
    pages,
    seen,
    told,
    told_of,
)
from tests.differential.cases import Call, Case, case, create, list_offsets, topic
from tests.differential.cluster_cases import elect
from tests.differential.data_cases import UNKNOWN_ID
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.messages import alter_configs, describe_producers, incremental_alter_configs

POLICY = "cleanup.policy"


def _described(*resources: tuple[int, str, list[str] | None], **options: bool) -> kafka.DescribeConfigsRequest:
    return kafka.DescribeConfigsRequest([kafka.DescribeConfigsResource(*each) for each in resources], **options)


DESCRIBE_CONFIGS = [
    case("a key twice", configs_of(TOPIC, "read", ["retention.ms", "retention.ms"])),
    case("keys that are odd", configs_of(TOPIC, "read", ["", " ", "RETENTION.MS", "retention.ms "])),
    case("unknown keys of a broker", *(configs_of(BROKER, name, ["no.such", "retention.ms"]) for name in ("1", ""))),
    case("synonyms of a broker", *(configs_of(BROKER, "1", [key], include_synonyms=True) for key in (
        "log.segment.bytes", "log.retention.ms", "num.partitions", "log.cleanup.policy", "message.max.bytes"))),
    case("synonyms of a topic", *(configs_of(TOPIC, "read", [key], include_synonyms=True) for key in (
        "segment.bytes", "segment.ms", "max.message.bytes", POLICY, "delete.retention.ms", "compression.type"))),
    case("keys of a group", configs_of(GROUP, "g", ["no.such"]), configs_of(GROUP, "", [SESSION])),
    case("several kinds in one", _described((TOPIC, "read", ["retention.ms"]), (BROKER, "1", ["num.partitions"]), (TOPIC, "unknown", None))),
]

LISTS = ("compact,delete", "delete,compact", "delete,delete", " delete , compact ", "")
ALTER = [
    case("lists", Call(create(topic("lists-{v}")), version=7), *(alter("lists-{v}", (POLICY, value)) for value in LISTS),
         alter("lists-{v}", (POLICY, " delete , compact,delete ")), *seen("seen-{v}"), told("lists-{v}", POLICY),
         Call(kafka.DeleteTopicsRequest([], ["lists-{v}", "seen-{v}"], 30_000), version=5)),
    case("validated, and bad", alter("read", ("retention.ms", "x"), validate_only=True), alter("read", ("no.such", "x"), validate_only=True),
         alter("unknown", ("retention.ms", "1"), validate_only=True)),
    case("one that goes and one that does not", alter_configs.AlterConfigsRequest([
        *alter("unknown", ("retention.ms", "1")).resources, *alter("read", ("retention.ms", "x")).resources]), told("read", "retention.ms")),
    case("keys without names", alter("read", ("", "1")), alter("read", (" ", "1"))),
]
INCREMENT = [
    case("lists", Call(create(topic("lists-{v}")), version=7), *(increment("lists-{v}", (POLICY, kind, value)) for kind, value in (
        (APPEND, "delete"), (APPEND, "compact"), (APPEND, "compact,delete"), (SUBTRACT, "delete,compact"), (APPEND, ""), (SUBTRACT, ""),
        (APPEND, "burn"), (SUBTRACT, "burn"), (SET, "delete,delete"), (SET, " compact , delete "), (SUBTRACT, "compact"),
        (DELETE, ""), (SET, " compact , delete "), (APPEND, " compact"))), *seen("seen-{v}"), told("lists-{v}", POLICY),
         Call(kafka.DeleteTopicsRequest([], ["lists-{v}", "seen-{v}"], 30_000), version=5)),
    case("validated, and bad", increment("read", ("retention.ms", SET, "x"), validate_only=True),
         increment("read", (POLICY, APPEND, "burn"), validate_only=True), increment("unknown", ("retention.ms", SET, "1"), validate_only=True)),
    case("all brokers, validated", increment("", (SEGMENT, SET, "7000000"), kind=BROKER, validate_only=True), told_of(BROKER, "", SEGMENT),
         increment("", (SEGMENT, SET, "x"), kind=BROKER, validate_only=True)),
    case("several kinds in one", incremental_alter_configs.IncrementalAlterConfigsRequest([
        *increment("unknown", ("retention.ms", SET, "1")).resources, *increment("read", ("retention.ms", SET, "x")).resources,
        *increment("7", (SEGMENT, SET, "1"), kind=BROKER).resources, *increment("x", ("a", SET, "1"), kind=99).resources])),
    case("keys without names", increment("read", ("", SET, "1")), increment("read", ("", DELETE, None))),
    case("a value to delete a key of all", increment("", (SEGMENT, DELETE, "x"), kind=BROKER)),
]

ELECTIONS = [
    case("a partition twice", elect(("read", [0, 0])), elect(("read", [0]), ("read", [0]))),
    case("numbers and names that are odd", elect(("read", [-1]), ("", [0]), ("a b", [0])), elect(("read", []))),
    case("kinds that do not exist", *(elect(("read", [0]), kind=kind) for kind in (2, -1)), versions=range(1, 9)),
]

LIST_OFFSETS = [
    case("a partition twice", kafka.ListOffsetsRequest(-1, 0, [kafka.ListOffsetsTopic("read", [
        kafka.ListOffsetsPartition(0, timestamp=-1), kafka.ListOffsetsPartition(0, timestamp=-2),
        kafka.ListOffsetsPartition(1, timestamp=-1)])])),
    case("a partition twice, a topic twice", kafka.ListOffsetsRequest(-1, 0, [
        kafka.ListOffsetsTopic("read", [kafka.ListOffsetsPartition(0, timestamp=-1)])] * 2)),
    case("far times", *(list_offsets("read", each) for each in (-8, -100, -(2**63), 2**63 - 1))),
    case("committed only", *(kafka.ListOffsetsRequest(-1, kind, [kafka.ListOffsetsTopic("read", [
        kafka.ListOffsetsPartition(0, timestamp=each)])]) for kind in (0, 1) for each in (-1, -3, 0)), versions=range(2, 20)),
    case("a replica's", *(kafka.ListOffsetsRequest(replica, 0, [kafka.ListOffsetsTopic("read", [
        kafka.ListOffsetsPartition(0, timestamp=-1)])]) for replica in (-2, 1, 9))),
]

DELETE_RECORDS = [
    case("a partition twice", delete_records("cut", (0, 1), (0, 2))),
    case("offsets out of range", delete_records("cut", (0, -3)), delete_records("cut", (0, 2**63 - 1)), delete_records("cut", (0, -(2**63)))),
    case("an internal topic", delete_records("__consumer_offsets", (0, 0))),
]

CREATE_TOPICS = [case(title, create(*topics, validate_only=True)) for title, topics in (
    ("a negative partition assigned", [assigned("valid", (-1, [1]))]),
    ("assigned without the first", [assigned("valid", (1, [1]))]),
    ("assigned to as many as there are not", [assigned("valid", (0, [1]), (1, [1, 2]))]),
    ("assigned and partitions counted", [assigned("valid", (0, [1]), partitions=1)]),
    ("assigned and replicas counted", [assigned("valid", (0, [1]), replicas=1)]),
    ("assigned to a broker below zero", [assigned("valid", (0, [-1]))]),
    ("more than can be", [topic("valid", 2**31 - 1)]),
    ("a bad one among good ones", [topic("valid"), topic("a b"), topic("read"), topic("other", 0)]),
    ("two things wrong", [topic("a b", 0, 5), topic("read", 0), topic("valid", 0, 0, no_such="1")]),
)]
CREATE_PARTITIONS = [case(title, kafka.CreatePartitionsRequest(topics, 30_000, True)) for title, topics in (
    ("one twice, the same", [grow("read", 3), grow("read", 3)]), ("unknown, twice", [grow("unknown", 3), grow("unknown", 3)]),
    ("more than can be", [grow("read", 2**31 - 1)]), ("assigned to a broker below zero", [grow("read", 3, [[-1]])]),
    ("an empty list of places", [grow("read", 3, [])]), ("an internal name", [grow("__consumer_offsets", 1)]),
)]

DESCRIBE = [
    case("endpoint types that do not exist", *(kafka.DescribeClusterRequest(False, kind) for kind in (0, -1, 127)), versions=range(1, 9)),
    case("operations of controllers", kafka.DescribeClusterRequest(True, 2), versions=range(1, 9)),
    case("log directories, one twice", kafka.DescribeLogDirsRequest([kafka.DescribableLogDirTopic("read", [0, 0])]),
         kafka.DescribeLogDirsRequest([kafka.DescribableLogDirTopic("read", [0])] * 2)),
    case("log directories of no partitions", kafka.DescribeLogDirsRequest([kafka.DescribableLogDirTopic("read", [])]),
         kafka.DescribeLogDirsRequest([kafka.DescribableLogDirTopic("", [0])])),
    case("producers, one twice", kafka.DescribeProducersRequest([describe_producers.TopicRequest("idem", [0, 0])]),
         kafka.DescribeProducersRequest([describe_producers.TopicRequest("idem", [0])] * 2)),
    case("producers of no partitions", kafka.DescribeProducersRequest([describe_producers.TopicRequest("idem", [])])),
    case("transactions, one twice", kafka.DescribeTransactionsRequest(["t", "t", " "])),
    case("transactions, odd states", *(kafka.ListTransactionsRequest([state]) for state in ("", "ongoing", "Dead", "Empty"))),
    case("transactions, odd numbers", kafka.ListTransactionsRequest([], [-1, 0, 2**63 - 1])),
    case("pages beyond, and of none", pages("read", cursor=cursor_at("read", 2)), pages("read", cursor=cursor_at("read", 9)),
         pages("read", "read", limit=1), pages(cursor=cursor_at("read", 1), limit=1)),
    case("no topics by id", kafka.DeleteTopicsRequest([kafka.DeleteTopicState(None, UNKNOWN_ID), kafka.DeleteTopicState("", bytes(16))], [], 30_000),
         versions=range(6, 9)),
]

CASES: list[Case] = [
    *DESCRIBE_CONFIGS, *ALTER, *INCREMENT, *ELECTIONS, *LIST_OFFSETS, *DELETE_RECORDS, *CREATE_TOPICS, *CREATE_PARTITIONS, *DESCRIBE]
