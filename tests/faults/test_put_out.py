"""A member that is put out while it lets go of what it has: it says that it lost it, and nobody takes the two for two owners.

A KIP-848 member has the session that its group has, and others are given what it had when that ends, whatever it still tries.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer

from benchmarks.targets import KAFKA_LIB, free_port
from tests.clients.conftest import require
from tests.faults.groups.kinds import JAVA_848, LIBRDKAFKA_848, Doors, Kind
from tests.faults.groups.team import Member, Team
from tests.faults.proxy import TcpProxy
from zafka.testing import Broker

WAIT_S = 60.0
TOPIC, PARTITIONS, EACH = "orders", 4, 50
SESSION_MS = 1000
DEFAULTS = {"group.consumer.min.session.timeout.ms": SESSION_MS, "group.consumer.session.timeout.ms": SESSION_MS}
# It gives up soon what cannot be asked, so that the test need not wait for its patience.
IMPATIENT = {
    "java": {"default.api.timeout.ms": "2000", "request.timeout.ms": "2000"},
    "confluent": {"socket.timeout.ms": 2000, "reconnect.backoff.max.ms": 100}}
NOBODY = 1  # a port that nobody listens at


class Apart:
    """A group of two: one reaches the broker only by the proxy. Its end is told by the team's judge."""

    def __init__(self, broker: Broker, proxy: TcpProxy, port: int) -> None:
        self.broker = broker
        self.proxy = proxy
        self._port = port
        self._producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
        self._written = 0
        self.team = Team("apart", LIBRDKAFKA_848[0], Doors(broker.bootstrap_servers, ""), TOPIC, PARTITIONS, seed=0)

    def join(self, kind: Kind) -> Member:
        impatient = kind._replace(settings={**kind.settings, **IMPATIENT[kind.client]})
        self.team.join(impatient, may_crash=False, doors=Doors(f"127.0.0.1:{self.proxy.port}", ""))
        self.team.join(may_crash=False)
        self.wait(self.team.is_shared)
        return self.team.members[0]

    def write(self) -> None:
        """As many records to each partition."""
        for partition in list(range(PARTITIONS)) * EACH:
            self._producer.produce(TOPIC, b"x", partition=partition)
        assert self._producer.flush(WAIT_S) == 0
        self._written += EACH

    @property
    def ends(self) -> dict[int, int]:
        return dict.fromkeys(range(PARTITIONS), self._written)

    def read_without_commit(self) -> None:
        """All that is written is read, and cannot be committed yet."""
        rule = self.broker.inject_error("OFFSET_COMMIT", error="COORDINATOR_LOAD_IN_PROGRESS")
        self.write()
        self.wait(lambda: self.team.has_read(self.ends))
        self.proxy.target = NOBODY
        self.proxy.reset()
        self.broker.clear_faults(rule)

    def reconnect(self) -> None:
        self.proxy.target = self._port

    def wait(self, condition: Callable[[], bool]) -> None:
        end_s = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < end_s, self.team.explained()
            threading.Event().wait(0.02)

    def judge(self) -> list[str]:
        """Once all is read."""
        self.write()
        self.wait(lambda: self.team.has_read(self.ends))
        self.team.close()
        self.team.observed(time.time_ns() / 1e6, self.ends)
        return self.team.judge(self.ends)


@pytest.fixture
def apart() -> Iterator[Apart]:
    direct, behind = free_port(), free_port()
    with TcpProxy(behind) as proxy:
        addresses = {"kafka": (direct, direct), "proxied": (behind, proxy.port)}
        listeners = [{"name": name, "protocol": "kafka", "bind": f"127.0.0.1:{port}", "advertise": f"127.0.0.1:{told}"}
                     for name, (port, told) in addresses.items()]
        zmq = {"name": "zmq", "protocol": "zmq", "bind": f"127.0.0.1:{free_port()}"}
        topology = {"brokers": [{"id": 1, "listeners": [*listeners, zmq]}]}
        with Broker({TOPIC: PARTITIONS}, defaults=DEFAULTS, topology=topology) as broker:
            made = Apart(broker, proxy, behind)
            try:
                yield made
            finally:
                made.team.kill()


def test_java_that_finds_no_coordinator_while_it_closes_loses_what_it_has(apart: Apart) -> None:
    """It asks no more who coordinates, so that it can neither commit nor leave, nor tell that it lives."""
    require(shutil.which("javac") and any(KAFKA_LIB.glob("kafka-clients-*.jar")), "Java, or Apache Kafka's jars, are not there")
    member = apart.join(JAVA_848[0])
    apart.read_without_commit()
    apart.team.leave(member)
    apart.wait(apart.team.is_shared)
    assert apart.judge() == []
    assert apart.team.history.lost == {member.name: 1} and apart.team.history.again == 2 * EACH


def test_librdkafka_that_was_put_out_while_it_closes_says_that_it_lost_what_it_has(apart: Apart) -> None:
    """It tries its last commit until it is answered: then others have had its partitions for long."""
    member = apart.join(LIBRDKAFKA_848[0])
    apart.read_without_commit()
    member.leave()
    other = apart.team.members[1]
    apart.wait(lambda: len(other.owned) == PARTITIONS)
    apart.reconnect()
    apart.team.leave(member)
    assert apart.judge() == []
    assert apart.team.history.lost == {member.name: 1}
