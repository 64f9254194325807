"""What a new actor process is told by the supervisor that starts it.

Owns: names and fields, nothing else. A start travels as msgpack from the root to the forked process.
File descriptors that come along stand in the new process under the numbers INHERITED_FD, INHERITED_FD + 1, ...
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Struct

from zafka.actors.actor import Actor, Now, Peer
from zafka.actors.messages import NewTopic
from zafka.storage.disk import Disk

SUPERVISOR = "supervisor"
"""The root's name: where `Ready`, `StartPartition`, `WhichChildren`, ... are sent (`Send(SUPERVISOR, Ready())`)."""

INHERITED_FD = 64


# Exit codes that mean something to the supervisor. 0 is a normal stop, every other one a crash.
UNCAUGHT = 70
PEER_GONE = 72
"""Mail was lost, and only a new start makes both ends agree again: the weather, not a crash."""
COORDINATOR_DISK_FAULT = 74
"""`__cluster` cannot be flushed: the tree stops, and a marker refuses the next `up`."""
TOPOLOGY_REFUSED = 78
"""What the topology asks for cannot be had: the tree stops and tells why."""


class CoordinatorStart(Struct, tag="coordinator", frozen=True):
    """data_dir: the cluster's; the coordinator's own folder lies in it. cluster_id: as in meta.properties.

    brokers: (id, rack) of each broker in the topology. defaults: Kafka's keys, as in the topology.
    topics: the topology's; created if absent, extended if they grew."""

    data_dir: str
    cluster: str
    brokers: list[tuple[int, str]]
    defaults: dict[str, str]
    topics: list[NewTopic]
    cluster_id: str = ""


class ListenerStart(Struct, array_like=True, frozen=True):
    """A listening socket of a broker, bound and listening already.

    protocol: "kafka" or "zmq". bind: "address:port" with the real port, for logs and for libzmq.
    host, port: as clients are told. fd: the socket, in the broker's process."""

    name: str
    protocol: str
    bind: str
    host: str
    port: int
    fd: int


class BrokerStart(Struct, tag="broker", frozen=True):
    """data_dir: `<data_dir>/broker-<id>`. topics: names in the topology; the broker is Ready when they serve."""

    broker_id: int
    rack: str
    data_dir: str
    listeners: list[ListenerStart]
    defaults: dict[str, str]
    topics: list[str]


class PartitionStart(Struct, tag="partition", frozen=True):
    """directory: `<data_dir>/broker-<id>/<topic>-<partition>`, absolute. config: the effective topic configuration."""

    broker_id: int
    topic: str
    partition: int
    topic_id: bytes
    directory: str
    config: dict[str, str]


class CleanerStart(Struct, tag="cleaner", frozen=True):
    """What it is to do, partitions say."""

    broker_id: int


class CustomStart(Struct, tag="custom", frozen=True):
    """For actors that are not zafka's own."""

    arguments: dict[str, Any]


Arguments = CoordinatorStart | BrokerStart | PartitionStart | CleanerStart | CustomStart


class ActorStart(Struct, frozen=True):
    """One start of one actor.

    main: dotted path "module:function" of the process shell, called with this struct; returns the exit code.
    build: dotted path of the function that makes the actor (see `Build`).
    inbox: endpoint to bind, "" if nobody dials this actor.
    """

    name: str
    incarnation: int
    main: str
    build: str
    arguments: Arguments
    supervisor_incarnation: int
    supervisor_endpoint: str
    inbox: str = ""
    heartbeat_s: float = 0.5

    @property
    def me(self) -> Peer:
        return Peer(self.name, self.incarnation)


class Build(Protocol):
    """Make an actor: open and recover what it owns.

    start: the struct above of its kind. progress: to be called now and then while this takes long; it tells the
        supervisor that we are alive ("recovering").
    The actor itself says `Send(SUPERVISOR, Ready())` once it does its work, from `on_start` if that is at once.
    """

    def __call__(self, start: Any, disk: Disk, now: Now, progress: Callable[[], None], /) -> Actor: ...
