"""The kinds of groups: which client, which protocol, which assignor.

Owns: the list, and how a process of each kind is started.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.targets import KAFKA_LIB
from zafka.testing import Broker

JAVA_ASSIGNORS = "org.apache.kafka.clients.consumer"


class Kind(NamedTuple):
    """settings: of the client, in its words.

    door: "kafka" or "zmq". session: how the client is told after how many seconds of silence it is gone; None where the
    broker says it (KIP-848).
    """

    name: str
    client: str
    settings: dict[str, Any]
    door: str = "kafka"
    is_kip_848: bool = False

    def command(self, broker: Broker, topic: str, group: str, session_s: float | None) -> list[str]:
        bootstrap = broker.bootstrap_servers if self.door == "kafka" else broker.zmq_bootstrap_servers
        settings = dict(self.settings)
        if session_s is not None and not self.is_kip_848:
            settings |= {"session_timeout": session_s} if self.client == "ours" else {"session.timeout.ms": int(session_s * 1000)}
        if self.client == "java":
            return self._java({"topic": topic, "bootstrap.servers": bootstrap, "group.id": group, **settings})
        task = {"kind": self.client, "bootstrap": bootstrap, "topic": topic, "group": group, "settings": settings}
        return [sys.executable, "-m", "tests.faults.groups.member", json.dumps(task)]

    def _java(self, settings: dict[str, Any]) -> list[str]:
        return [
            "java", "-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
            "-cp", f"{KAFKA_LIB}/*:{_compiled().name}", "Member", *(f"{name}={value}" for name, value in settings.items())]


@cache
def _compiled() -> tempfile.TemporaryDirectory[str]:
    """Where Member.java is compiled to, once for all members; it goes with this process."""
    directory = tempfile.TemporaryDirectory(prefix="zafka-java-member-")
    source = Path(__file__).with_name("Member.java")
    subprocess.run(["javac", "-cp", f"{KAFKA_LIB}/*", "-d", directory.name, str(source)], check=True)
    return directory


def _librdkafka(assignor: str) -> Kind:
    settings = {"partition.assignment.strategy": assignor, "heartbeat.interval.ms": 300}
    return Kind(f"confluent-kafka {assignor}", "confluent", settings)


def _ours(assignor: str, door: str) -> Kind:
    settings = {"partition_assignment_strategy": assignor, "heartbeat_interval": 0.3}
    return Kind(f"zafka {assignor} by {door}", "ours", settings, door)


def _java(assignor: str) -> Kind:
    settings = {"partition.assignment.strategy": f"{JAVA_ASSIGNORS}.{assignor}", "heartbeat.interval.ms": 300}
    return Kind(f"Java {assignor}", "java", settings)


CLASSIC = tuple(map(_librdkafka, ("range", "roundrobin", "cooperative-sticky")))
KIP_848 = tuple(
    Kind(f"confluent-kafka KIP-848 {assignor}", "confluent",
         {"group.protocol": "consumer", "group.remote.assignor": assignor}, is_kip_848=True)
    for assignor in ("uniform", "range"))
OURS = tuple(_ours(assignor, door) for assignor, door in (
    ("range", "kafka"), ("roundrobin", "zmq"), ("sticky", "kafka"), ("cooperative-sticky", "zmq")))
JAVA = (
    *map(_java, ("RangeAssignor", "RoundRobinAssignor", "StickyAssignor", "CooperativeStickyAssignor")),
    *(Kind(f"Java KIP-848 {assignor}", "java", {"group.protocol": "consumer", "group.remote.assignor": assignor},
           is_kip_848=True) for assignor in ("uniform", "range")),
)
KINDS = (*CLASSIC, *KIP_848, *OURS, *JAVA)
