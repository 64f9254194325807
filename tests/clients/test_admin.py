"""Administration by real clients: what is not in the matrix, because only one of them can ask for it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

import zafka
from tests.clients.conftest import JavaTool, MakeTopic
from tests.clients.matrix.driver import Refused
from zafka.client.errors import BrokerRefused, UnknownTopic
from zafka.testing import Broker

TIMEOUT_S = 60


def fill(bootstrap: str, topic: str, count: int, partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0, "enable.idempotence": True})
    for number in range(count):
        producer.produce(topic, b"v%d" % number, partition=partition)
        if number % 10 == 0:
            producer.flush(TIMEOUT_S)  # so that there is more than one batch
    assert producer.flush(TIMEOUT_S) == 0


def read(bootstrap: str, topic: str, partition: int = 0) -> list[int]:
    """Offsets of all records that are left."""
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False, "enable.partition.eof": True,
        "auto.offset.reset": "earliest"})
    try:
        consumer.assign([TopicPartition(topic, partition, 0)])
        offsets = []
        while True:
            message = consumer.poll(TIMEOUT_S)
            assert message is not None
            if message.error():
                assert message.error().name() == "_PARTITION_EOF"
                return offsets
            offsets.append(message.offset())
    finally:
        consumer.close()


# -- confluent-kafka -----------------------------------------------------------------------------


@pytest.fixture
def admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap})



def test_confluent_deletes_records(admin: AdminClient, bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic()
    fill(bootstrap, topic, 50)

    def delete(offset: int) -> int:
        (future,) = admin.delete_records([TopicPartition(topic, 0, offset)]).values()
        return int(future.result(TIMEOUT_S).low_watermark)

    assert delete(15) == 15
    assert read(bootstrap, topic) == list(range(15, 50))
    assert delete(7) == 15
    with pytest.raises(Exception, match="OFFSET_OUT_OF_RANGE"):
        delete(51)
    assert delete(-1) == 50
    assert read(bootstrap, topic) == []
    fill(bootstrap, topic, 2)
    assert read(bootstrap, topic) == [50, 51]


def test_confluent_describes_cluster_topics_and_configuration(admin: AdminClient, make_topic: MakeTopic) -> None:
    topic = make_topic(3, retention_ms="1234567")
    cluster = admin.describe_cluster().result(TIMEOUT_S)
    assert cluster.cluster_id and [node.id for node in cluster.nodes] == [cluster.controller.id]
    resources = [ConfigResource("topic", topic), ConfigResource("broker", str(cluster.controller.id))]
    by_topic, by_broker = (future.result(TIMEOUT_S) for future in admin.describe_configs(resources).values())
    retention = by_topic["retention.ms"]
    assert retention.value == "1234567" and not retention.is_default and not retention.is_read_only
    assert [(name, each.value) for name, each in retention.synonyms.items()][:1] == [("retention.ms", "1234567")]
    assert by_broker["num.partitions"].is_read_only and by_broker["log.retention.ms"].value


def test_confluent_creates_with_everything_that_can_be_said(admin: AdminClient) -> None:
    name = f"made-{os.urandom(4).hex()}"
    dry = NewTopic(name, 3, 1, config={"segment.bytes": "2000000"})
    admin.create_topics([dry], validate_only=True)[name].result(TIMEOUT_S)
    assert name not in admin.list_topics().topics
    broker_id = next(iter(admin.list_topics().brokers))
    chosen = NewTopic(name, 2, replica_assignment=[[broker_id], [broker_id]])
    admin.create_topics([chosen])[name].result(TIMEOUT_S)
    assert len(admin.list_topics(name).topics[name].partitions) == 2
    for wrong, error in (
        (NewTopic(name, 1, 1), "TOPIC_ALREADY_EXISTS"), (NewTopic("a b", 1, 1), "TOPIC_EXCEPTION"),
        (NewTopic(f"{name}-2", 1, 9), "INVALID_REPLICATION_FACTOR"),
        (NewTopic(f"{name}-2", 1, 1, config={"retention.ms": "x"}), "INVALID_CONFIG"),
        (NewTopic(f"{name}-2", 1, replica_assignment=[[99]]), "INVALID_REPLICA_ASSIGNMENT"),
    ):
        with pytest.raises(Exception, match=error):
            admin.create_topics([wrong])[wrong.topic].result(TIMEOUT_S)


# -- Java's tools --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tool(java_tool: JavaTool, bootstrap: str) -> JavaTool:
    """tool(CLASS, *arguments, first=()): for our broker."""
    return lambda tool, *arguments, first=(): java_tool(tool, *first, "--bootstrap-server", bootstrap, *arguments)


def test_java_topic_command_alters_and_describes_in_pages(tool: JavaTool, make_topic: MakeTopic) -> None:
    topic = make_topic(2)
    command = "org.apache.kafka.tools.TopicCommand"
    tool(command, "--alter", "--topic", topic, "--partitions", "6")
    told = tool(command, "--describe", "--topic", topic, "--partition-size-limit-per-response", "2")
    assert re.findall(r"Partition: (\d+)\s+Leader: 1", told) == ["0", "1", "2", "3", "4", "5"]
    assert "PartitionCount: 6" in told


def test_java_log_dirs(tool: JavaTool, bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic()
    fill(bootstrap, topic, 30)
    told = tool("org.apache.kafka.tools.LogDirsCommand", "--describe", "--topic-list", topic)
    described = json.loads(next(line for line in told.splitlines() if line.startswith("{")))
    ((partition,),) = (
        directory["partitions"] for broker in described["brokers"] for directory in broker["logDirs"])
    assert partition["partition"] == f"{topic}-0" and partition["size"] > 30 and partition["offsetLag"] == 0


def test_java_configuration_cluster_and_producers(tool: JavaTool, bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic(1, retention_ms="7654321")
    fill(bootstrap, topic, 5)
    config = "kafka.admin.ConfigCommand"
    told = tool(config, "--describe", "--entity-type", "topics", "--entity-name", topic)
    assert "retention.ms=7654321" in told and "DYNAMIC_TOPIC_CONFIG:retention.ms=7654321" in told
    told = tool(config, "--describe", "--all", "--entity-type", "brokers", "--entity-name", "1")
    assert "socket.request.max.bytes=104857600" in told
    told = tool("org.apache.kafka.tools.ClusterTool", first=("list-endpoints",))
    assert bootstrap.rsplit(":", 1)[1] in told
    told = tool(
        "org.apache.kafka.tools.TransactionsCommand", "describe-producers", "--topic", topic, "--partition", "0")
    assert re.search(r"^\d+\s+0\s+-1\s+4\s", told, re.MULTILINE), told
    assert tool("org.apache.kafka.tools.TransactionsCommand", "list").count("\n") <= 1


def test_java_quotas_and_credentials(tool: JavaTool) -> None:
    name = f"u{os.urandom(4).hex()}"
    user = ("kafka.admin.ConfigCommand", "--entity-type", "users", "--entity-name", name)
    tool(*user, "--alter", "--add-config", "producer_byte_rate=1024")
    tool(*user, "--alter", "--add-config", "SCRAM-SHA-256=[iterations=4096,password=secret]")
    told = tool(*user, "--describe")
    assert "producer_byte_rate=1024.0" in told and "SCRAM-SHA-256=iterations=4096" in told and "secret" not in told
    tool(*user, "--alter", "--delete-config", "producer_byte_rate")
    tool(*user, "--alter", "--delete-config", "SCRAM-SHA-256")
    told = tool(*user, "--describe")
    assert "producer_byte_rate" not in told and "SCRAM" not in told


def test_java_elections_places_and_the_quorum(tool: JavaTool, make_topic: MakeTopic, tmp_path: object) -> None:
    topic = make_topic()
    told = tool(
        "org.apache.kafka.tools.LeaderElectionCommand", "--election-type", "preferred", "--topic", topic, "--partition", "0")
    assert "Valid replica already elected for partitions" in told
    wanted = f"{tmp_path}/places.json"
    with open(wanted, "w") as file:
        json.dump({"version": 1, "partitions": [{"topic": topic, "partition": 0, "replicas": [1]}]}, file)
    command = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
    told = tool(command, "--reassignment-json-file", wanted, "--execute")
    assert f"Successfully started partition reassignment for {topic}-0" in told
    assert "is completed" in tool(command, "--reassignment-json-file", wanted, "--verify")
    assert "No partition reassignments found" in tool(command, "--list")
    quorum = ("org.apache.kafka.tools.MetadataQuorumCommand", "describe", "--status")
    told = tool(*quorum)
    assert re.search(r"LeaderId:\s+1\n", told) and re.search(r"HighWatermark:\s+\d+\n", told)


def test_java_versions_features_groups_and_acls(tool: JavaTool, bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic()
    group = f"g-{topic}"
    with zafka.Admin(bootstrap) as admin:
        admin.alter_group_offsets(group, {(topic, 0): 0})
    assert "\tConsumerGroupHeartbeat(68): 0 to 1 [usable: 1]" in tool("org.apache.kafka.tools.BrokerApiVersionsCommand")
    assert re.search(r"^Feature: group\.version\s", tool("org.apache.kafka.tools.FeatureCommand", "describe"), re.MULTILINE)
    assert re.search(rf"^{group}\s+Classic", tool("org.apache.kafka.tools.GroupsCommand", "--list"), re.MULTILINE)
    with pytest.raises(Refused, match="No Authorizer is configured on the broker"):
        tool("org.apache.kafka.tools.AclCommand", "--list")
    told = tool(
        "org.apache.kafka.tools.EndToEndLatency", "--topic", topic, "--num-records", "20", "--producer-acks", "all",
        "--record-size", "20")
    assert "Avg latency: " in told


# -- zafka's own ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as running:
        yield running


@pytest.fixture(params=["kafka", "zmq"])
def ours(request: pytest.FixtureRequest, broker: Broker) -> Iterator[zafka.Admin]:
    with zafka.Admin(broker.bootstrap_servers if request.param == "kafka" else broker.zmq_bootstrap_servers) as client:
        yield client


def test_our_admin_adds_partitions(ours: zafka.Admin, broker: Broker) -> None:
    topic = f"more-{os.urandom(4).hex()}"
    ours.create_topic(topic, 1)
    assert len(ours.create_partitions(topic, 3, validate_only=True).partitions) == 1
    made = ours.create_partitions(topic, 3)
    assert [part.partition for part in made.partitions] == [0, 1, 2] and all(part.leader == 1 for part in made.partitions)
    fill(broker.bootstrap_servers, topic, 2, partition=2)
    with pytest.raises(BrokerRefused, match="currently has 3 partition"):
        ours.create_partitions(topic, 2)
    with pytest.raises(UnknownTopic):
        ours.create_partitions(f"{topic}-none", 2)


def overrides(client: zafka.Admin, topic: str) -> dict[str, str | None]:
    return {entry.name: entry.value for entry in client.describe_configs(topic=topic) if entry.source == "topic"}


def test_our_admin_alters_what_holds_at_once_and_after_kills(ours: zafka.Admin, broker: Broker) -> None:
    topic = f"altered-{os.urandom(4).hex()}"
    ours.create_topic(topic, 1, config={"retention.ms": "5000"})
    ours.alter_config(topic, {"max.message.bytes": 300}, validate_only=True)
    with zafka.Producer(broker.bootstrap_servers) as producer:
        producer.send(topic, bytes(400)).result(TIMEOUT_S)
        ours.alter_config(topic, {"max.message.bytes": 300, "retention.ms": None})
        with pytest.raises(BrokerRefused, match=r"allows 300 \(max\.message\.bytes\)"):
            producer.send(topic, bytes(400)).result(TIMEOUT_S)
        for name in ("coordinator", "broker 1", f"partition {topic}-0"):
            broker.kill(name)
        with pytest.raises(BrokerRefused, match="allows 300"):
            producer.send(topic, bytes(400)).result(TIMEOUT_S)
        assert overrides(ours, topic) == {"max.message.bytes": "300"}
        ours.alter_config(topic, {"max.message.bytes": None})
        producer.send(topic, bytes(400)).result(TIMEOUT_S)
    with pytest.raises(BrokerRefused, match="no such topic configuration; did you mean"):
        ours.alter_config(topic, {"retentio.ms": 1})
    with pytest.raises(UnknownTopic):
        ours.alter_config(f"{topic}-none", {"retention.ms": 1})


@pytest.mark.parametrize("victim", ["partition", "all"])
def test_deleted_records_stay_deleted_whoever_is_killed(ours: zafka.Admin, broker: Broker, victim: str) -> None:
    topic = f"deleted-{os.urandom(4).hex()}"
    ours.create_topic(topic, 1)
    fill(broker.bootstrap_servers, topic, 40)
    assert ours.delete_records({(topic, 0): 23}) == {(topic, 0): 23}
    names = [f"partition {topic}-0"] if victim == "partition" else [f"partition {topic}-0", "broker 1", "coordinator"]
    for name in names:
        broker.kill(name)
    with zafka.Consumer(bootstrap_servers=broker.bootstrap_servers) as consumer:
        assert consumer.beginning_offsets([(topic, 0)]) == {(topic, 0): 23}
    assert read(broker.bootstrap_servers, topic) == list(range(23, 40))
    assert ours.delete_records({(topic, 0): -1}) == {(topic, 0): 40}
    with pytest.raises(UnknownTopic, match="no partition 7"):
        ours.delete_records({(topic, 7): 1})
    with pytest.raises(BrokerRefused, match="OFFSET_OUT_OF_RANGE"):
        ours.delete_records({(topic, 0): 41})
