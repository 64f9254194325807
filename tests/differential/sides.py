"""The two brokers that are compared, and what of theirs must differ: addresses, ids that they give.

Owns: one Apache Kafka and one zafka with the same topology (broker 1) and the same topics with the same batches.
`Side` is one of them: where it is, and by which name each id it gave is known. Requests are written once, with
`Of` where a value is a side's own.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tests.differential.wire import Outcome, Wire
from tests.powercut.systems import QUICK_START, Kafka
from zafka.testing import Broker
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.types import ZERO_UUID

# On a slow machine, too, no member is put out before all is compared.
SESSIONS = {"group.consumer.max.session.timeout.ms": "600000", "group.consumer.session.timeout.ms": "600000"}
# Kept for ever: the batches are dated, and Kafka would delete them 30 s after its start. KIP-848's assignments are made at once.
KAFKA_SETTINGS = {
    "log.retention.ms": "-1", "offsets.topic.num.partitions": "1", "log.initial.task.delay.ms": "600000",
    "transaction.state.log.num.partitions": "1", "group.initial.rebalance.delay.ms": "0",
    "group.consumer.assignment.interval.ms": "0", **SESSIONS,
}
ZAFKA_SETTINGS = {**SESSIONS, "retention.ms": "-1", "group.initial.rebalance.delay.ms": "0", "offsets.topic.num.partitions": "1"}


class NotComparable(Exception):
    """The two cannot be brought to the same state."""


@dataclass
class Side:
    """names: what ids of topics, producers and sessions are called; the same on both sides. saved: name -> value.

    wires: connections beside the first one, by name."""

    name: str
    wire: Wire
    port: int
    names: dict[Any, str] = field(default_factory=dict)
    saved: dict[str, Any] = field(default_factory=dict)
    advertised: dict[int, range] = field(default_factory=dict)
    wires: dict[str, Wire] = field(default_factory=dict)

    def on(self, connection: str) -> Wire:
        if not connection:
            return self.wire
        return self.wires.setdefault(connection, Wire(f"127.0.0.1:{self.port}"))

    def close(self) -> None:
        for wire in (self.wire, *self.wires.values()):
            wire.close()

    def save(self, name: str, value: Any) -> None:
        self.saved[name] = value
        if value not in (None, -1, ZERO_UUID):
            self.names[value] = name

    def learn_versions(self) -> None:
        answer = self.wire.ask(ApiKey.API_VERSIONS, 3, kafka.ApiVersionsRequest("differential", "1"))
        self.advertised = {each.api_key: range(each.min_version, each.max_version + 1) for each in answer.api_keys}

    def learn_topic_ids(self) -> None:
        answer = self.wire.ask(ApiKey.METADATA, 12, kafka.MetadataRequest(None))
        for topic in answer.topics:
            self.save(f"id of {topic.name}", topic.topic_id)
        self.save("cluster", answer.cluster_id)


@dataclass(frozen=True)
class Of:
    """A value in a request that each side has its own of."""

    get: Callable[[Side], Any] = field(repr=False)


def saved(name: str) -> Any:
    return Of(lambda side: side.saved[name])


def topic_id(topic: str) -> Any:
    return saved(f"id of {topic}")


def resolve(value: Any, side: Side, version: int) -> Any:
    """The request as this side gets it; "{v}" in a text is the version."""
    if isinstance(value, Of):
        return value.get(side)
    if isinstance(value, str):
        return value.replace("{v}", str(version))
    if isinstance(value, list):
        return [resolve(element, side, version) for element in value]
    if isinstance(value, msgspec.Struct):
        return type(value)(**{
            name: resolve(getattr(value, name), side, version) for name in value.__struct_fields__})
    return value


@contextlib.contextmanager
def both_running() -> Iterator[tuple[Side, Side]]:
    """(zafka, Apache Kafka), both up and empty. Nothing of them is left."""
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="differential-", ignore_cleanup_errors=True)))
        reference = Kafka(work, work / "data", settings=KAFKA_SETTINGS, java_options=QUICK_START)
        reference.format()
        reference.launch()
        stack.callback(reference.stop)
        broker = stack.enter_context(Broker(defaults=ZAFKA_SETTINGS, allow_faults=False))
        reference.wait_ready()
        sides = tuple(
            Side(name, Wire(address), int(address.rpartition(":")[2]))
            for name, address in (("zafka", broker.bootstrap_servers), ("kafka", reference.bootstrap)))
        for side in sides:
            stack.callback(side.close)
            side.learn_versions()
        yield sides[0], sides[1]


def must(outcome: Outcome) -> Any:
    """The answer to a request that prepares others."""
    if isinstance(outcome, str):
        raise NotComparable(outcome)
    return outcome
