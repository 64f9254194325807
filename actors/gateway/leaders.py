"""Topics by name or id, and who leads their partitions, told beside an error so that clients go there at once (KIP-951).

Owns: `TopicKey`, what a request names a topic by. Nothing else; what the broker knows of the cluster is a copy, which may be a moment old. A client believes what it is
told here only if the leader epoch is newer than the one that it knows.
Source: KafkaApis.getCurrentLeader.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from zafka.actors.cluster_state import NO_EPOCH, NO_LEADER
from zafka.actors.gateway.connection import Connection
from zafka.actors.gateway.metadata import brokers

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway


TopicKey = str | bytes
"""A topic's name, or its id: 16 bytes."""


class Leader(NamedTuple):
    leader_id: int
    leader_epoch: int


class Node(NamedTuple):
    node_id: int
    host: str
    port: int
    rack: str | None


def name_of(gateway: Gateway, topic: TopicKey) -> str | None:
    """The name of a topic, which need not exist if it is named; None for an id that nobody knows."""
    if isinstance(topic, str):
        return topic
    known = gateway.cluster.topics_by_id.get(topic)
    return None if known is None else known.name


def leader_of(gateway: Gateway, topic: TopicKey, partition: int) -> Leader:
    """-1, -1 if there is no such partition."""
    cluster = gateway.cluster
    known = cluster.topics_by_name.get(topic) if isinstance(topic, str) else cluster.topics_by_id.get(topic)
    if known is None or not 0 <= partition < len(known.partitions):
        return Leader(NO_LEADER, NO_EPOCH)
    state = known.partitions[partition]
    return Leader(state.leader, state.leader_epoch)


def nodes(gateway: Gateway, connection: Connection, broker_ids: set[int]) -> Iterator[Node]:
    """Where these brokers are, by the listener that the client came in by; without those that are not there."""
    for broker in brokers(gateway, connection):
        if broker.node_id in broker_ids:
            yield Node(broker.node_id, broker.host, broker.port, broker.rack)
