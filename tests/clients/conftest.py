"""One real broker for all tests of real clients; a missing component skips its tests, and fails them in CI.

ZAFKA_TEST_BOOTSTRAP=host:port runs the same tests against another broker, such as Apache Kafka.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from benchmarks.targets import free_port
from tests.clients.matrix.cases import Bench
from tests.clients.matrix.drivers.java_tools import run_tool
from tests.clients.matrix.drivers.json_lines import Java
from tests.clients.matrix.recorder import Recorder, listeners
from zafka.testing import Broker

ROOT = Path(__file__).resolve().parent.parent.parent
KAFKA_LIB = Path(os.environ.get("ZAFKA_KAFKA_LIB", ROOT / ".peers" / "kafka" / "lib"))

MakeTopic = Callable[..., str]
JavaTool = Callable[..., str]


def require(condition: object, missing: str) -> None:
    if not condition:
        reason = f"{missing}; scripts/install-peers installs it"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)


@pytest.fixture(scope="session")
def bootstrap() -> Iterator[str]:
    if given := os.environ.get("ZAFKA_TEST_BOOTSTRAP"):
        yield given
        return
    with Broker(allow_faults=False) as broker:
        yield broker.bootstrap_servers


@pytest.fixture(scope="session")
def make_topic(bootstrap: str) -> MakeTopic:
    """make_topic(partitions=1, **config) creates a topic with a fresh name and returns the name."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    numbers = itertools.count()
    run = os.urandom(3).hex()

    def make(partitions: int = 1, **config: str) -> str:
        name = f"t{next(numbers)}-{run}"
        new = NewTopic(name, partitions, 1, config={key.replace("_", "."): value for key, value in config.items()})
        admin.create_topics([new])[name].result(30)
        return name

    return make


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    """What the cases of the matrix work at: a broker whose processes they kill."""
    if given := os.environ.get("ZAFKA_TEST_BOOTSTRAP"):
        yield Bench(given, given, None)
        return
    with contextlib.ExitStack() as stack:
        shortest = {f"group.{kind}min.session.timeout.ms": 1000 for kind in ("", "consumer.")}
        topology: dict[str, Any] = {"supervision": {"intensity": 1_000_000}, "defaults": shortest}
        recorder = kafka = None
        if os.environ.get("ZAFKA_CLIENTS_REPORT"):
            recorder, behind, zmq = Recorder(), free_port(), free_port()
            proxy = stack.enter_context(recorder.proxy(behind))
            topology |= listeners(behind, zmq, proxy)
            kafka = f"127.0.0.1:{proxy.port}"
        broker = stack.enter_context(Broker(allow_faults=False, topology=topology, start_timeout_s=120))
        made = Bench(kafka or broker.bootstrap_servers, broker.zmq_bootstrap_servers, broker, recorder)
        yield stack.enter_context(contextlib.closing(made))


@pytest.fixture(scope="session")
def kcat() -> str:
    path = shutil.which("kcat") or shutil.which("kafkacat")
    require(path, "kcat is not installed")
    return str(path)


@pytest.fixture(scope="session")
def java_tools() -> list[str]:
    """The start of a command line that runs one of Apache Kafka's classes."""
    require(shutil.which("java"), "java is not installed")
    require(any(KAFKA_LIB.glob("kafka-tools-*.jar")), f"Apache Kafka's jars are not in {KAFKA_LIB}")
    return ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{KAFKA_LIB}/*"]


@pytest.fixture(scope="session")
def java_tool(java_tools: list[str]) -> Iterator[JavaTool]:
    """java_tool(CLASS, *arguments): what one of Apache Kafka's tools prints, in a JVM that they all share."""
    require(Java.missing() is None, Java.missing() or "")
    yield run_tool
    Java.program.kill()
