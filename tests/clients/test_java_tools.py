"""Apache Kafka's own command-line tools, which are the Java clients: produce, consume, offsets, topics."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.clients.conftest import MakeTopic
from tests.clients.samples import CODECS

TIMEOUT_S = 60
PERFORMANCE = "org.apache.kafka.tools.ProducerPerformance"
PRODUCER = "org.apache.kafka.tools.ConsoleProducer"
CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
VERIFIABLE = "org.apache.kafka.tools.VerifiableProducer"
OFFSETS = "org.apache.kafka.tools.GetOffsetShell"
TOPICS = "org.apache.kafka.tools.TopicCommand"


class Tools:
    def __init__(self, java: list[str], bootstrap: str) -> None:
        self.java = java
        self.bootstrap = bootstrap

    def run(self, tool: str, *arguments: str, data: str = "") -> str:
        done = subprocess.run(
            [*self.java, tool, "--bootstrap-server", self.bootstrap, *arguments], check=False, input=data,
            capture_output=True, text=True, timeout=TIMEOUT_S)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def consume(self, topic: str, count: int, *, start: str = "earliest", **printed: bool) -> list[str]:
        """Lines of `count` records of partition 0 from `start` on."""
        properties = [f"--formatter-property=print.{name}=true" for name, wanted in printed.items() if wanted]
        return self.run(
            CONSUMER, "--topic", topic, "--partition", "0", "--offset", start, "--max-messages", str(count),
            "--timeout-ms", "20000", *properties).splitlines()

    def end_offset(self, topic: str) -> int:
        return int(self.run(OFFSETS, "--topic-partitions", f"{topic}:0", "--time", "-1").split(":")[2])


@pytest.fixture(scope="module")
def tools(java_tools: list[str], bootstrap: str) -> Tools:
    return Tools(java_tools, bootstrap)


@pytest.mark.parametrize("codec", CODECS)
def test_producer_performance_and_console_consumer(tools: Tools, make_topic: MakeTopic, codec: str) -> None:
    topic = make_topic()
    told = tools.run(
        PERFORMANCE, "--topic", topic, "--num-records", "2000", "--record-size", "100", "--throughput", "-1",
        "--command-property", f"compression.type={codec}")
    assert "2000 records sent" in told
    found = tools.consume(topic, 2000, offset=True)
    assert [line.split("\t")[0] for line in found] == [f"Offset:{offset}" for offset in range(2000)]
    assert {len(line.split("\t")[1]) for line in found} == {100}


def test_producing_without_idempotence(tools: Tools, make_topic: MakeTopic) -> None:
    topic = make_topic()
    tools.run(
        PERFORMANCE, "--topic", topic, "--num-records", "500", "--record-size", "100", "--throughput", "-1",
        "--command-property", "enable.idempotence=false", "acks=1")
    assert tools.end_offset(topic) == 500


def test_keys_headers_and_every_kind_of_start(tools: Tools, make_topic: MakeTopic) -> None:
    topic = make_topic()
    tools.run(
        PRODUCER, "--topic", topic, "--reader-property", "parse.key=true", "--reader-property", "parse.headers=true",
        data="h1:v1,h2:v2\tk1\thello\nh1:x\tk2\twelt\nh1:y\tk3\tend\n")
    found = tools.consume(topic, 3, key=True, headers=True, timestamp=True)
    assert [line.split("\t")[1:] for line in found] == [
        ["h1:v1,h2:v2", "k1", "hello"], ["h1:x", "k2", "welt"], ["h1:y", "k3", "end"]]
    stamps = [line.split("\t")[0].split(":") for line in found]
    assert {kind for kind, _ in stamps} == {"CreateTime"}

    assert tools.consume(topic, 1, start="2") == ["end"]
    assert tools.end_offset(topic) == 3
    first_ms = stamps[0][1]
    assert tools.run(OFFSETS, "--topic-partitions", f"{topic}:0", "--time", first_ms).split(":")[2].strip() == "0"
    assert tools.run(OFFSETS, "--topic-partitions", f"{topic}:0", "--time", "-2").split(":")[2].strip() == "0"


def test_console_consumer_waits_at_the_end(tools: Tools, make_topic: MakeTopic) -> None:
    topic = make_topic()
    tools.run(PRODUCER, "--topic", topic, data="before\n")
    with subprocess.Popen(
        [*tools.java, CONSUMER, "--bootstrap-server", tools.bootstrap, "--topic", topic, "--partition", "0",
         "--offset", "latest", "--max-messages", "1", "--timeout-ms", "20000"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as reader:
        try:
            assert reader.stdout is not None
            # It may have looked up the end before or after any one of these, but it must get one that came later.
            while reader.poll() is None:
                tools.run(PRODUCER, "--topic", topic, data="after\n")
            assert reader.stdout.read().splitlines() == ["after"]
        finally:
            reader.kill()


def test_verifiable_producer_is_told_every_offset(tools: Tools, make_topic: MakeTopic) -> None:
    topic = make_topic()
    told = [json.loads(line) for line in
            tools.run(VERIFIABLE, "--topic", topic, "--max-messages", "300").splitlines()]
    acknowledged = [(line["offset"], line["value"]) for line in told if line["name"] == "producer_send_success"]
    assert sorted(acknowledged) == [(number, str(number)) for number in range(300)]


def test_topic_command(tools: Tools, make_topic: MakeTopic) -> None:
    topic = make_topic() + "-java"
    tools.run(TOPICS, "--create", "--topic", topic, "--partitions", "2", "--replication-factor", "1")
    assert topic in tools.run(TOPICS, "--list").split()
    described = tools.run(TOPICS, "--describe", "--topic", topic)
    assert "PartitionCount: 2" in described
    tools.run(TOPICS, "--delete", "--topic", topic)
    assert topic not in tools.run(TOPICS, "--list").split()
