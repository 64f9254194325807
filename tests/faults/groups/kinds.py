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
from random import Random
from typing import Any, NamedTuple

from benchmarks.targets import KAFKA_LIB

IMPATIENT: dict[str, dict[str, Any]] = {
    "confluent": {"socket.timeout.ms": 5000, "reconnect.backoff.max.ms": 200},
    "ours": {"request_timeout": 5.0, "bootstrap_timeout": 60.0},
}
JAVA_ASSIGNORS = "org.apache.kafka.clients.consumer"

# How each client is told after how many seconds of silence it is gone, and in which parts of one.
SESSION = {
    "confluent": ("session.timeout.ms", 1000), "java": ("session.timeout.ms", 1000),
    "kafka-python": ("session_timeout_ms", 1000), "aiokafka": ("session_timeout_ms", 1000), "ours": ("session_timeout", 1)}


class Doors(NamedTuple):
    """Addresses of a broker, one for each protocol."""

    kafka: str
    zmq: str


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

    def drawn(self, random: Random) -> Kind:
        return self

    def with_bad_network(self) -> Kind:
        """The same, for a network on which answers may not come: it gives up and asks again soon."""
        return self._replace(settings={**self.settings, **IMPATIENT[self.client]})

    def command(self, doors: Doors, topic: str, group: str, session_s: float | None) -> list[str]:
        bootstrap = doors.kafka if self.door == "kafka" else doors.zmq
        settings = dict(self.settings)
        if session_s is not None and not self.is_kip_848:
            name, unit = SESSION[self.client]
            settings[name] = int(session_s * unit)
        if self.client == "java":
            return self._java({"topic": topic, "bootstrap.servers": bootstrap, "group.id": group, **settings})
        task = {"kind": self.client, "bootstrap": bootstrap, "topic": topic, "group": group, "settings": settings}
        return [sys.executable, "-m", "tests.faults.groups.member", json.dumps(task)]

    def _java(self, settings: dict[str, Any]) -> list[str]:
        return [
            "java", "-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
            "-cp", f"{KAFKA_LIB}/*:{_compiled().name}", "Member", *(f"{name}={value}" for name, value in settings.items())]


class Mix(NamedTuple):
    """A group whose members are of several kinds, of one protocol or both; all who are classic know the same assignor."""

    name: str
    classic: tuple[Kind, ...]
    modern: tuple[Kind, ...]

    @property
    def client(self) -> str:
        return "mixed"

    def drawn(self, random: Random) -> Kind:
        return random.choice(random.choice([kinds for kinds in (self.classic, self.modern) if kinds]))

    def with_bad_network(self) -> Mix:
        """As `Kind.with_bad_network`."""
        classic, modern = (tuple(kind.with_bad_network() for kind in kinds) for kinds in (self.classic, self.modern))
        return Mix(self.name, classic, modern)


@cache
def _compiled() -> tempfile.TemporaryDirectory[str]:
    """Where Member.java is compiled to, once for all members; it goes with this process."""
    directory = tempfile.TemporaryDirectory(prefix="zafka-java-member-")
    source = Path(__file__).with_name("Member.java")
    subprocess.run(["javac", "-cp", f"{KAFKA_LIB}/*", "-d", directory.name, str(source)], check=True)
    return directory


def librdkafka(assignor: str) -> Kind:
    settings = {"partition.assignment.strategy": assignor, "heartbeat.interval.ms": 300}
    return Kind(f"confluent-kafka {assignor}", "confluent", settings)


def ours(assignor: str, door: str) -> Kind:
    settings = {"partition_assignment_strategy": assignor, "heartbeat_interval": 0.3}
    return Kind(f"zafka {assignor} by {door}", "ours", settings, door)


def _ours_848(assignor: str, door: str) -> Kind:
    settings = {"group_protocol": "consumer", "group_remote_assignor": assignor}
    return Kind(f"zafka KIP-848 {assignor} by {door}", "ours", settings, door, is_kip_848=True)


def _python(client: str, assignor: str) -> Kind:
    return Kind(f"{client} {assignor}", client, {"assignor": assignor, "heartbeat_interval_ms": 300})


def _java(name: str, assignor: str) -> Kind:
    settings = {"partition.assignment.strategy": f"{JAVA_ASSIGNORS}.{assignor}", "heartbeat.interval.ms": 300}
    return Kind(f"Java {name}", "java", settings)


# Of each client, by assignor.
LIBRDKAFKA = {name: librdkafka(name) for name in ("range", "roundrobin", "cooperative-sticky")}
JAVA = {name: _java(name, assignor) for name, assignor in (
    ("range", "RangeAssignor"), ("roundrobin", "RoundRobinAssignor"), ("sticky", "StickyAssignor"),
    ("cooperative-sticky", "CooperativeStickyAssignor"))}
KAFKA_PYTHON = {name: _python("kafka-python", name) for name in ("range", "roundrobin", "sticky", "cooperative-sticky")}
AIOKAFKA = {name: _python("aiokafka", name) for name in ("range", "roundrobin", "sticky")}
OURS = tuple(ours(assignor, door) for assignor, door in (
    ("range", "kafka"), ("roundrobin", "zmq"), ("sticky", "kafka"), ("cooperative-sticky", "zmq")))
OURS_848 = (_ours_848("uniform", "zmq"), _ours_848("range", "kafka"))
LIBRDKAFKA_848, JAVA_848 = (
    tuple(Kind(f"{name} KIP-848 {assignor}", client, {"group.protocol": "consumer", "group.remote.assignor": assignor},
               is_kip_848=True) for assignor in ("uniform", "range"))
    for name, client in (("confluent-kafka", "confluent"), ("Java", "java")))
CLASSIC = (*LIBRDKAFKA.values(), *KAFKA_PYTHON.values(), *AIOKAFKA.values())

# Groups that are rolled from one protocol to the other, or are mixed for good. Some members give all up to join, others do not.
MIXES = (
    Mix("mixed of Python's", (LIBRDKAFKA["range"], KAFKA_PYTHON["range"], AIOKAFKA["range"], OURS[0]), (*LIBRDKAFKA_848, *OURS_848)),
    Mix("mixed of cooperative Python's", (LIBRDKAFKA["cooperative-sticky"], KAFKA_PYTHON["cooperative-sticky"], OURS[3]), (*LIBRDKAFKA_848, *OURS_848)),
    Mix("mixed Java", (JAVA["range"],), JAVA_848),
    Mix("mixed cooperative Java", (JAVA["cooperative-sticky"],), JAVA_848),
)
KINDS: tuple[Kind | Mix, ...] = (*CLASSIC, *LIBRDKAFKA_848, *OURS, *OURS_848, *JAVA.values(), *JAVA_848, *MIXES)


def needs_java(kind: Kind | Mix) -> bool:
    return "Java" in kind.name
