"""Apache Kafka's performance and verifiable tools, offsets and topics. Its client and its console are in the matrix."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.clients.conftest import MakeTopic
from tests.clients.matrix.cases import Bench

TIMEOUT_S = 60
PERFORMANCE = "org.apache.kafka.tools.ProducerPerformance"
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

    def end_offset(self, topic: str) -> int:
        return int(self.run(OFFSETS, "--topic-partitions", f"{topic}:0", "--time", "-1").split(":")[2])


@pytest.fixture(scope="module")
def tools(java_tools: list[str], bootstrap: str) -> Tools:
    return Tools(java_tools, bootstrap)


def test_producer_performance(tools: Tools, make_topic: MakeTopic) -> None:
    topic = make_topic()
    told = tools.run(
        PERFORMANCE, "--topic", topic, "--num-records", "20000", "--record-size", "100", "--throughput", "-1",
        "--command-property", "compression.type=zstd")
    assert "20000 records sent" in told
    assert tools.end_offset(topic) == 20_000


def test_producing_without_idempotence(tools: Tools, make_topic: MakeTopic) -> None:
    topic = make_topic()
    tools.run(
        PERFORMANCE, "--topic", topic, "--num-records", "500", "--record-size", "100", "--throughput", "-1",
        "--command-property", "enable.idempotence=false", "acks=1")
    assert tools.end_offset(topic) == 500


def test_verifiable_producer_is_told_every_offset_while_the_broker_is_killed(java_tools: list[str], bench: Bench) -> None:
    """What it counts as acknowledged stands once in the log, at the offset that it was told; nothing stands there twice."""
    if bench.broker is None:
        pytest.skip("processes are killed in a broker of ours only")
    topic, count = bench.topic(), 2000
    with subprocess.Popen(
        [*java_tools, VERIFIABLE, "--bootstrap-server", bench.reference.bootstrap, "--topic", topic, "--max-messages",
         str(count), "--throughput", "1000"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as tool:
        try:
            assert tool.stdout is not None
            told = []
            for line in tool.stdout:
                told.append(json.loads(line))
                if len(told) in (200, 800):
                    bench.kill("broker 1")
            assert tool.wait(TIMEOUT_S) == 0
        finally:
            tool.kill()
    acknowledged = {line["offset"]: line["value"] for line in told if line["name"] == "producer_send_success"}
    failed = [line["value"] for line in told if line["name"] == "producer_send_error"]  # it tries nothing twice
    assert len(acknowledged) + len(failed) == count and acknowledged[max(acknowledged)] == str(count - 1)
    found = bench.read(topic, bench.reference.bounds(topic)[1])
    values = {one.offset: (one.sample.value or b"").decode() for one in found}
    assert {offset: values[offset] for offset in acknowledged} == acknowledged
    assert len(set(values.values())) == len(values) and set(values.values()) - set(acknowledged.values()) <= set(failed)


def test_topic_command(tools: Tools, make_topic: MakeTopic) -> None:
    topic = make_topic() + "-java"
    tools.run(TOPICS, "--create", "--topic", topic, "--partitions", "2", "--replication-factor", "1")
    assert topic in tools.run(TOPICS, "--list").split()
    described = tools.run(TOPICS, "--describe", "--topic", topic)
    assert "PartitionCount: 2" in described
    tools.run(TOPICS, "--delete", "--topic", topic)
    assert topic not in tools.run(TOPICS, "--list").split()
