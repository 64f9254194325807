"""Apache Kafka's performance and verifiable producers. Its client, its console and its admins are in the matrix."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from tests.clients.conftest import JavaTool, MakeTopic
from tests.clients.matrix.cases import Bench
from tests.clients.matrix.drivers.confluent import Confluent

TIMEOUT_S = 60
PERFORMANCE = "org.apache.kafka.tools.ProducerPerformance"
VERIFIABLE = "org.apache.kafka.tools.VerifiableProducer"


@pytest.fixture(scope="module")
def perform(java_tool: JavaTool, bootstrap: str) -> Callable[..., str]:
    """perform(topic, *arguments) runs ProducerPerformance."""
    return lambda *arguments: java_tool(PERFORMANCE, "--bootstrap-server", bootstrap, "--topic", *arguments)


def end_offset(bootstrap: str, topic: str) -> int:
    return Confluent(bootstrap, "").bounds(topic)[1]


def test_producer_performance(perform: Callable[..., str], bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic()
    told = perform(
        topic, "--num-records", "20000", "--record-size", "100", "--throughput", "-1",
        "--command-property", "compression.type=zstd")
    assert "20000 records sent" in told
    assert end_offset(bootstrap, topic) == 20_000


def test_producing_without_idempotence(perform: Callable[..., str], bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic()
    perform(
        topic, "--num-records", "500", "--record-size", "100", "--throughput", "-1",
        "--command-property", "enable.idempotence=false", "acks=1")
    assert end_offset(bootstrap, topic) == 500


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
