"""What a tree of processes is started with: the topology, read and checked, in plain structs.

Owns: names and fields, nothing else. `runtime/topology.py` makes them, `runtime/root.py` obeys them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from zafka.runtime.faults.plan import Plan


class ListenerSettings(Struct, frozen=True, kw_only=True):
    """protocol: "kafka" or "zmq". bind_port 0 picks a free port; advertise_port 0 means the port that was picked."""

    name: str
    protocol: str
    bind_host: str
    bind_port: int
    advertise_host: str
    advertise_port: int


class BrokerSettings(Struct, frozen=True, kw_only=True):
    id: int
    rack: str = ""
    listeners: tuple[ListenerSettings, ...] = ()


class TopicSettings(Struct, frozen=True, kw_only=True):
    name: str
    partitions: int
    replication_factor: int
    config: dict[str, str]


class SupervisionSettings(Struct, frozen=True, kw_only=True):
    """strategy: one_for_one, one_for_all or rest_for_one, for the actors of a broker."""

    strategy: str = "one_for_one"
    intensity: int = 20
    period_s: float = 60.0
    backoff_initial_s: float = 0.02
    backoff_max_s: float = 5.0
    heartbeat_s: float = 0.5
    hung_after_s: float = 10.0


class TreeSettings(Struct, frozen=True, kw_only=True):
    """data_dir: absolute. defaults: Kafka's keys, broker settings and topic configuration together.

    ready_file: written atomically once everything accepts clients; None: not wanted.
    stop_with_stdin: the end of standard input stops the tree as SIGTERM does.
    faults: whether `zafka chaos` may inject them. fault_plan: to be followed from when everything accepts clients."""

    cluster: str
    data_dir: Path
    brokers: tuple[BrokerSettings, ...]
    defaults: dict[str, str]
    topics: tuple[TopicSettings, ...]
    supervision: SupervisionSettings = SupervisionSettings()
    ready_file: Path | None = None
    stop_with_stdin: bool = False
    faults: bool = False
    fault_plan: Plan | None = None
