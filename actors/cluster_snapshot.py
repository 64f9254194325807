"""What a snapshot of the cluster's state holds: msgpack of the state as it is, in sections of a millisecond or so.

Owns: `Section`, its bytes, and the cutting of a `ClusterState` into sections. All of them are made at once: unlike committed
offsets, events do not only replace (epochs rise, partitions are added), so that replay must begin exactly where the state
stands. Maps carry the names of their fields: as with events, fields are only ever added, with a default.
May fail with CorruptSnapshot when read. Source: KIP-630, whose snapshots hold records instead.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from zafka.actors.cluster_state import AlteredConfig, BrokerState, ClusterState, Entity, ScramCredential, TopicState
from zafka.storage.errors import CorruptSnapshot

ENTRIES_PER_SECTION = 5_000  # topics, their partitions, ids of topics that are gone
_ID_BYTES = 16


class Cluster(Struct, forbid_unknown_fields=True):
    """All but the topics: little."""

    cluster_id: str
    next_producer_id: int
    brokers: list[BrokerState]
    recoveries: list[str]
    quotas: list[tuple[Entity, dict[str, float]]]
    credentials: list[tuple[str, int, ScramCredential]]
    altered: list[tuple[int, str, AlteredConfig]]


class Section(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """deleted: ids of topics that are gone, one behind the other."""

    cluster: Cluster | None = None
    topics: list[TopicState] = []
    deleted: bytes = b""

    @property
    def entries(self) -> int:
        """About how many events of the log say the same."""
        cluster = self.cluster
        altered = 0 if cluster is None else 1 + sum((
            len(cluster.brokers), len(cluster.recoveries), len(cluster.quotas), len(cluster.credentials),
            len(cluster.altered)))
        return altered + sum(map(_weight, self.topics)) + len(self.deleted) // _ID_BYTES


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Section)


def sections_of(state: ClusterState) -> list[tuple[bytes, int]]:
    """The whole state as of now, with how much is in each section."""
    sections = [Section(cluster=_cluster_of(state))]
    topics: list[TopicState] = []
    weight = 0
    for topic in state.topics_by_id.values():
        topics.append(topic)
        weight += _weight(topic)
        if weight >= ENTRIES_PER_SECTION:
            sections.append(Section(topics=topics))
            topics, weight = [], 0
    if topics:
        sections.append(Section(topics=topics))
    deleted = b"".join(sorted(state.deleted))
    size = ENTRIES_PER_SECTION * _ID_BYTES
    sections += [Section(deleted=deleted[at:at + size]) for at in range(0, len(deleted), size)]
    return [(_encoder.encode(section), section.entries) for section in sections]


def restore(state: ClusterState, data: bytes) -> int:
    """Take a section into a state that was empty before the first one; returns how many events it stands for.

    Raises CorruptSnapshot.
    """
    try:
        section = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptSnapshot(f"a section cannot be read: {error}") from None
    if len(section.deleted) % _ID_BYTES:
        raise CorruptSnapshot(f"{len(section.deleted)} bytes are no ids of topics")
    if section.cluster is not None:
        _restore_cluster(state, section.cluster)
    for topic in section.topics:
        state.topics_by_id[topic.topic_id] = state.topics_by_name[topic.name] = topic
    state.deleted.update(section.deleted[at:at + _ID_BYTES] for at in range(0, len(section.deleted), _ID_BYTES))
    return section.entries


def state_from(sections: Iterable[bytes]) -> ClusterState:
    """Raises CorruptSnapshot."""
    state = ClusterState()
    for section in sections:
        restore(state, section)
    return state


def _cluster_of(state: ClusterState) -> Cluster:
    return Cluster(
        state.cluster_id, state.next_producer_id, list(state.brokers.values()), state.recoveries,
        list(state.quotas.items()),
        [(user, mechanism, credential) for (user, mechanism), credential in state.credentials.items()],
        [(kind, name, altered) for (kind, name), altered in state.altered.items()])


def _restore_cluster(state: ClusterState, cluster: Cluster) -> None:
    state.cluster_id, state.next_producer_id = cluster.cluster_id, cluster.next_producer_id
    state.brokers = {broker.broker_id: broker for broker in cluster.brokers}
    state.recoveries = cluster.recoveries
    state.quotas = dict(cluster.quotas)
    state.credentials = {(user, mechanism): credential for user, mechanism, credential in cluster.credentials}
    state.altered = {(kind, name): altered for kind, name, altered in cluster.altered}


def _weight(topic: TopicState) -> int:
    return 1 + len(topic.partitions)
