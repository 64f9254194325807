"""The kinds of groups: which client, which protocol, which assignor.

Owns: the list, and how a process of each kind is started.
"""

from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple

from benchmarks.targets import KAFKA_LIB
from zafka.testing import Broker

JAVA_ASSIGNORS = "org.apache.kafka.clients.consumer"


class Kind(NamedTuple):
    """settings: of the client, in its words; those of Java on its command line.

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
        if self.client == "java":
            return self._java(bootstrap, topic, group, session_s)
        settings = dict(self.settings)
        if session_s is not None and not self.is_kip_848:
            settings |= {"session.timeout.ms": int(session_s * 1000)} if self.client == "confluent" else {
                "session_timeout": session_s}
        task = {"kind": self.client, "bootstrap": bootstrap, "topic": topic, "group": group, "settings": settings}
        return [sys.executable, "-m", "tests.faults.groups.member", json.dumps(task)]

    def _java(self, bootstrap: str, topic: str, group: str, session_s: float | None) -> list[str]:
        session = [] if session_s is None or self.is_kip_848 else ["--session-timeout", str(int(session_s * 1000))]
        return [
            "java", "-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
            "-cp", f"{KAFKA_LIB}/*", "org.apache.kafka.tools.VerifiableConsumer", "--bootstrap-server", bootstrap,
            "--topic", topic, "--group-id", group, "--reset-policy", "earliest",
            *session, *(part for option in self.settings.items() for part in option)]


def _librdkafka(assignor: str) -> Kind:
    settings = {"partition.assignment.strategy": assignor, "heartbeat.interval.ms": 300}
    return Kind(f"confluent-kafka {assignor}", "confluent", settings)


def _ours(assignor: str, door: str) -> Kind:
    settings = {"partition_assignment_strategy": assignor, "heartbeat_interval": 0.3}
    return Kind(f"zafka {assignor} by {door}", "ours", settings, door)


def _ours_848(assignor: str, door: str) -> Kind:
    settings = {"group_protocol": "consumer", "group_remote_assignor": assignor}
    return Kind(f"zafka KIP-848 {assignor} by {door}", "ours", settings, door, is_kip_848=True)


def _java(assignor: str) -> Kind:
    return Kind(f"Java {assignor}", "java", {"--assignment-strategy": f"{JAVA_ASSIGNORS}.{assignor}"})


CLASSIC = tuple(map(_librdkafka, ("range", "roundrobin", "cooperative-sticky")))
KIP_848 = tuple(
    Kind(f"confluent-kafka KIP-848 {assignor}", "confluent",
         {"group.protocol": "consumer", "group.remote.assignor": assignor}, is_kip_848=True)
    for assignor in ("uniform", "range"))
OURS = tuple(_ours(assignor, door) for assignor, door in (
    ("range", "kafka"), ("roundrobin", "zmq"), ("sticky", "kafka"), ("cooperative-sticky", "zmq")))
OURS_848 = (_ours_848("uniform", "zmq"), _ours_848("range", "kafka"))
JAVA = (
    *map(_java, ("RangeAssignor", "StickyAssignor", "CooperativeStickyAssignor")),
    *(Kind(f"Java KIP-848 {assignor}", "java", {"--group-protocol": "consumer", "--group-remote-assignor": assignor},
           is_kip_848=True) for assignor in ("uniform", "range")),
)
KINDS = (*CLASSIC, *KIP_848, *OURS, *OURS_848, *JAVA)
