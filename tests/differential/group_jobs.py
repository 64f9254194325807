"""What real clients do with groups while they are recorded: join, read, commit, leave, look, move offsets, delete. One member each.

The session is long and heartbeats are rare, so that what is recorded does not depend on the time it took.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
from collections.abc import Callable

import aiokafka
import confluent_kafka
import kafka
import kafka.admin
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.differential.jobs import JAVA, RECORDS, WAIT_S


def _topic(bootstrap: str, name: str) -> None:
    """With a few records; the same for every client."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, 1, 1, config={"retention.ms": "-1"})])[name].result(WAIT_S)
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "linger.ms": 100})
    for number in range(RECORDS):
        producer.produce(name, b"%d" % number, partition=0)
    assert producer.flush(WAIT_S) == 0


def _librdkafka(bootstrap: str, topic: str, group: str, **settings: object) -> None:
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
        **settings})
    consumer.subscribe([topic])
    assert len(consumer.consume(RECORDS, WAIT_S)) == RECORDS
    consumer.commit(asynchronous=False)
    consumer.committed([TopicPartition(topic, 0)], WAIT_S)
    consumer.close()


def confluent(bootstrap: str) -> None:
    topic = "grouped-confluent"
    _topic(bootstrap, topic)
    groups = {"rd-range": {}, "rd-cooperative": {"partition.assignment.strategy": "cooperative-sticky"},
              "rd-static": {"group.instance.id": "one"}, "rd-848": {"group.protocol": "consumer"}}
    for group, settings in groups.items():
        _librdkafka(bootstrap, topic, group, **settings)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.list_consumer_groups(request_timeout=WAIT_S).result(WAIT_S)
    for future in admin.describe_consumer_groups(["rd-range", "rd-848"], include_authorized_operations=True).values():
        future.result(WAIT_S)
    asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions("rd-range", [TopicPartition(topic, 0)])])
    asked["rd-range"].result(WAIT_S)
    moved = ConsumerGroupTopicPartitions("rd-range", [TopicPartition(topic, 0, 2)])
    admin.alter_consumer_group_offsets([moved])["rd-range"].result(WAIT_S)
    admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions("rd-range")])["rd-range"].result(WAIT_S)
    for deleted in admin.delete_consumer_groups(["rd-range", "rd-848"]).values():
        deleted.result(WAIT_S)


def kafka_python(bootstrap: str) -> None:
    topic, group = "grouped-kafka-python", "kafka-python"
    _topic(bootstrap, topic)
    consumer = kafka.KafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False)
    assert len(list(itertools.islice(consumer, RECORDS))) == RECORDS
    consumer.commit()
    consumer.committed(kafka.TopicPartition(topic, 0))
    consumer.close()
    admin = kafka.admin.KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.close()


def of_aiokafka(bootstrap: str) -> None:
    topic = "grouped-aiokafka"
    _topic(bootstrap, topic)

    async def work() -> None:
        consumer = aiokafka.AIOKafkaConsumer(
            topic, bootstrap_servers=bootstrap, group_id="aiokafka", auto_offset_reset="earliest", enable_auto_commit=False)
        await consumer.start()
        for _ in range(RECORDS):
            await asyncio.wait_for(consumer.getone(), WAIT_S)
        await consumer.commit()
        await consumer.committed(aiokafka.TopicPartition(topic, 0))
        await consumer.stop()

    asyncio.run(work())


def java_tools(bootstrap: str) -> None:
    topic = "grouped-java"
    _topic(bootstrap, topic)

    def tool(name: str, *arguments: str) -> None:
        subprocess.run(
            [*JAVA, f"org.apache.kafka.tools.{name}", "--bootstrap-server", bootstrap, *arguments], check=True,
            capture_output=True, text=True, timeout=60)

    for group, protocol in (("java", "classic"), ("java-848", "consumer")):
        tool("consumer.ConsoleConsumer", "--topic", topic, "--group", group, "--from-beginning", "--max-messages", str(RECORDS),
             "--command-property", f"group.protocol={protocol}")
    command = "consumer.group.ConsumerGroupCommand"
    tool(command, "--list", "--state")
    for group in ("java", "java-848"):
        tool(command, "--describe", "--group", group)
        tool(command, "--describe", "--group", group, "--members", "--verbose")
    tool(command, "--reset-offsets", "--group", "java", "--topic", topic, "--to-earliest", "--execute")
    tool(command, "--delete-offsets", "--group", "java", "--topic", topic)
    tool(command, "--delete", "--group", "java", "--group", "java-848")


GROUP_JOBS: dict[str, Callable[[str], None]] = {
    "confluent-kafka in groups": confluent, "kafka-python in groups": kafka_python, "aiokafka in groups": of_aiokafka,
    "Java's tools in groups": java_tools,
}
