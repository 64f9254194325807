"""What real clients do while they are recorded: make a topic, fill it, read it, look at it, delete it. Each once, and briefly."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable

import aiokafka
import aiokafka.admin
import confluent_kafka
import kafka
import kafka.admin
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic

from benchmarks.targets import KAFKA_LIB
from tests.powercut.systems import QUICK_START

RECORDS = 5
WAIT_S = 30
JAVA = ["java", *QUICK_START, "-cp", f"{KAFKA_LIB}/*"]


def confluent(bootstrap: str) -> None:
    topic = "of-confluent"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    new = NewTopic(topic, 2, 1, config={"retention.ms": "-1"})
    admin.create_topics([new])[topic].result(WAIT_S)
    for codec, idempotent in (("none", True), ("lz4", True), ("zstd", False)):
        producer = confluent_kafka.Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": idempotent, "compression.type": codec,
            "linger.ms": 100})
        for number in range(RECORDS):
            producer.produce(topic, b"v%d" % number * 20, b"k%d" % number, partition=0, headers=[("h", b"x")])
        assert producer.flush(WAIT_S) == 0
    consumer = confluent_kafka.Consumer({"bootstrap.servers": bootstrap, "group.id": "g", "enable.auto.commit": False})
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0), confluent_kafka.TopicPartition(topic, 1, 0)])
    assert len(consumer.consume(3 * RECORDS, WAIT_S)) == 3 * RECORDS
    consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, 0), WAIT_S)
    consumer.offsets_for_times([confluent_kafka.TopicPartition(topic, 0, 1)], WAIT_S)
    consumer.close()
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    admin.describe_configs([resource])[resource].result(WAIT_S)
    admin.describe_cluster().result(WAIT_S)
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result(WAIT_S)
    place = confluent_kafka.TopicPartition(topic, 0, 2)
    admin.delete_records([place])[place].result(WAIT_S)
    admin.list_topics(timeout=WAIT_S)
    admin.delete_topics([topic])[topic].result(WAIT_S)


def kafka_python(bootstrap: str) -> None:
    topic = "of-kafka-python"
    admin = kafka.admin.KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([kafka.admin.NewTopic(topic, 1, 1, topic_configs={"retention.ms": "-1"})])
    producer = kafka.KafkaProducer(bootstrap_servers=bootstrap, compression_type="gzip", linger_ms=100)
    for number in range(RECORDS):
        producer.send(topic, b"v%d" % number * 20, key=b"k%d" % number, partition=0)
    producer.flush(WAIT_S)
    producer.close()
    place = kafka.TopicPartition(topic, 0)
    consumer = kafka.KafkaConsumer(bootstrap_servers=bootstrap)
    consumer.assign([place])
    consumer.seek_to_beginning(place)
    seen = 0
    while seen < RECORDS:
        seen += sum(map(len, consumer.poll(1000).values()))
    consumer.end_offsets([place])
    consumer.offsets_for_times({place: 1})
    consumer.close()
    admin.describe_topics([topic])
    admin.describe_configs([kafka.admin.ConfigResource("TOPIC", topic)])
    admin.describe_log_dirs()
    admin.delete_topics([topic])
    admin.close()


def of_aiokafka(bootstrap: str) -> None:
    async def work() -> None:
        topic = "of-aiokafka"
        admin = aiokafka.admin.AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        await admin.create_topics([aiokafka.admin.NewTopic(topic, 1, 1, topic_configs={"retention.ms": "-1"})])
        for idempotent in (False, True):
            producer = aiokafka.AIOKafkaProducer(
                bootstrap_servers=bootstrap, enable_idempotence=idempotent, compression_type="snappy", linger_ms=100)
            await producer.start()
            for number in range(RECORDS):
                await producer.send(topic, b"v%d" % number * 20, partition=0)
            await producer.flush()
            await producer.stop()
        consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        place = aiokafka.TopicPartition(topic, 0)
        consumer.assign([place])
        for _ in range(2 * RECORDS):
            await asyncio.wait_for(consumer.getone(), WAIT_S)
        await consumer.end_offsets([place])
        await consumer.stop()
        await admin.describe_topics([topic])
        await admin.delete_topics([topic])
        await admin.close()

    asyncio.run(work())


def java_tools(bootstrap: str) -> None:
    topic = "of-java"

    def tool(name: str, *arguments: str, data: str = "") -> None:
        subprocess.run(
            [*JAVA, f"org.apache.kafka.tools.{name}", "--bootstrap-server", bootstrap, *arguments], check=True, input=data,
            capture_output=True, text=True, timeout=60)

    tool("TopicCommand", "--create", "--topic", topic, "--partitions", "2", "--config", "retention.ms=-1")
    tool("ConsoleProducer", "--topic", topic, data="one\ntwo\nthree\n")
    for partition in ("0", "1"):
        tool("consumer.ConsoleConsumer", "--topic", topic, "--partition", partition, "--offset", "earliest",
             "--max-messages", "3", "--timeout-ms", "1500")
    tool("GetOffsetShell", "--topic", topic)
    tool("TopicCommand", "--describe", "--topic", topic)
    tool("TopicCommand", "--delete", "--topic", topic)


JOBS: dict[str, Callable[[str], None]] = {
    "confluent-kafka": confluent, "kafka-python": kafka_python, "aiokafka": of_aiokafka, "Java's tools": java_tools,
}
