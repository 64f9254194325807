"""The topology file: from YAML, flags and environment to the settings of a process tree.

Owns: the public contract of the file: which keys there are, what they may say, what they mean by default.
Everything is refused here, before anything starts: unknown keys, wrong types, impossible values, and what is not
built yet (never ignored). Raises TopologyError with file, line, path, reason and the nearest valid key.
Precedence: flag, environment, file, default (flags and environment come in as `Changes`).
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from zafka.actors.broker_settings import BROKER_SETTINGS, check_broker_setting, kafka_setting_hint
from zafka.runtime.settings import (
    BrokerSettings,
    ListenerSettings,
    SupervisionSettings,
    TopicSettings,
    TreeSettings,
)
from zafka.runtime.yaml_file import Value, did_you_mean, read_yaml, unknown_key
from zafka.storage.config import TOPIC_CONFIG, check_topic_config
from zafka.storage.errors import InvalidConfig

if TYPE_CHECKING:
    from zafka.runtime.faults.plan import Plan

# A group of one begins at once, where Kafka's brokers wait 3 s for more members.
FOR_DEVELOPMENT = {"group.initial.rebalance.delay.ms": "0"}
KAFKA_PORT = 9092
ZMQ_PORT = 9290
PROTOCOLS = ("kafka", "zmq")
PARTITIONS_MAX = 10_000
BROKER_ID_MAX = 2**31 - 1
LOOPBACK_6 = (1).to_bytes(16, "big")

TOP_KEYS = (
    "cluster", "data_dir", "coordination", "insecure", "brokers", "defaults", "topics", "supervision", "dashboard",
    "security", "faults",
)
BROKER_KEYS = ("id", "rack", "host", "kafka", "zmq", "listeners")
LISTENER_KEYS = ("name", "protocol", "bind", "advertise", "security")
TOPIC_KEYS = ("name", "partitions", "replication_factor", "config")
SUPERVISION_KEYS = ("strategy", "intensity", "period", "backoff", "heartbeat", "hung_after", "actors_per_process")
STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one")

_CLUSTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Changes:
    """What flags and environment say, each above the file. None: not said.

    ready_file, stop_with_stdin, fault_plan: see `TreeSettings`. A plan allows faults, too."""

    data_dir: str | None = None
    kafka_port: int | None = None
    zmq_port: int | None = None
    ready_file: Path | None = None
    stop_with_stdin: bool = False
    allow_faults: bool = False
    fault_plan: Plan | None = None


def load_topology(path: Path | None, changes: Changes | None = None) -> TreeSettings:
    """Settings from a file, or without one: one broker on 127.0.0.1, for development. Raises TopologyError."""
    changes = changes or Changes()
    if path is None:
        settings = read_topology(Value({}, path="", line=0, file=""), folder=Path.cwd(), changes=changes)
        return structs.replace(settings, defaults={**settings.defaults, **FOR_DEVELOPMENT})
    return read_topology(read_yaml(path), folder=path.absolute().parent, changes=changes)


def read_topology(root: Value, *, folder: Path, changes: Changes) -> TreeSettings:
    """folder: what a relative `data_dir` of the file counts from."""
    top = root.fields(TOP_KEYS)
    _refuse_unbuilt(top)
    brokers = _read_brokers(root, top, changes)
    if "insecure" not in top or not top["insecure"].boolean():
        _refuse_open_listeners(brokers)
    defaults = _read_defaults(top, len(brokers))
    cluster = top["cluster"].text() if "cluster" in top else "zafka"
    if not _CLUSTER_NAME.fullmatch(cluster):
        top["cluster"].fail(f"{cluster!r} must be letters, digits, '.', '_' and '-', 64 at most")
    return TreeSettings(
        cluster=cluster,
        data_dir=_read_data_dir(top, folder, changes),
        brokers=tuple(broker for _, broker in brokers),
        defaults=defaults,
        topics=_read_topics(top, defaults, len(brokers)),
        supervision=_read_supervision(top.get("supervision")),
        ready_file=changes.ready_file.absolute() if changes.ready_file else None,
        stop_with_stdin=changes.stop_with_stdin,
        faults=_read_faults(top, changes),
        fault_plan=changes.fault_plan,
    )


def _read_faults(top: Mapping[str, Value], changes: Changes) -> bool:
    in_file = "faults" in top and top["faults"].boolean()
    return in_file or changes.allow_faults or changes.fault_plan is not None


def _refuse_unbuilt(top: Mapping[str, Value]) -> None:
    for key in ("dashboard", "security"):
        if key in top and top[key].mapping():
            top[key].fail("not supported yet; leave it out")
    if "coordination" in top:
        coordination = top["coordination"]
        text = coordination.text()
        if text.startswith("zookeeper://"):
            coordination.fail("zookeeper is not supported yet; use 'embedded'")
        if text != "embedded":
            coordination.fail(f"must be 'embedded' or 'zookeeper://host:port/path', not {text!r}"
                              f"{did_you_mean(text, ('embedded',))}")


def _read_data_dir(top: Mapping[str, Value], folder: Path, changes: Changes) -> Path:
    value = top.get("data_dir") or Value("zafka-data", path="data_dir", line=0, file="")
    if changes.data_dir is not None:
        value = Value(changes.data_dir, path="data_dir", line=0, file="")
    try:
        path = Path(value.text()).expanduser()
    except RuntimeError as error:  # ~somebody who does not exist
        value.fail(f"{value.plain!r} names no directory: {error}")
    return path.absolute() if changes.data_dir is not None else folder / path


# -- brokers and their listeners -----------------------------------------------------------------

Placed = list[tuple[Value, BrokerSettings]]


def _read_brokers(root: Value, top: Mapping[str, Value], changes: Changes) -> Placed:
    if "brokers" in top:
        values = top["brokers"].items()
        if not values:
            top["brokers"].fail("at least one broker is needed, such as {id: 1}")
    else:
        only = Value({"id": Value(1, path="brokers[0].id", line=0, file=root.file)},
                     path="brokers[0]", line=0, file=root.file)
        values = [only]
    if len(values) > 1 and (changes.kafka_port is not None or changes.zmq_port is not None):
        top["brokers"].fail("with several brokers, their ports belong in the file, not in flags or the environment")
    brokers: Placed = []
    ids: dict[int, str] = {}
    for value in values:
        broker = _read_broker(value, changes)
        if broker.id in ids:
            value.fields(BROKER_KEYS)["id"].fail(f"{broker.id} is {ids[broker.id]}'s already; every broker needs its own")
        ids[broker.id] = value.path
        brokers.append((value, broker))
    _refuse_shared_ports(brokers)
    return brokers


def _read_broker(value: Value, changes: Changes) -> BrokerSettings:
    fields = value.fields(BROKER_KEYS, required=("id",))
    if "listeners" in fields:
        listeners = _read_listeners(fields["listeners"])
        for key in ("host", "kafka", "zmq"):
            if key in fields:
                fields[key].fail("is the short form of listeners: use one of the two")
    else:
        listeners = _short_listeners(fields, changes)
    return BrokerSettings(
        id=fields["id"].integer(0, BROKER_ID_MAX),
        rack=fields["rack"].text() if "rack" in fields else "",
        listeners=listeners,
    )


def _short_listeners(fields: Mapping[str, Value], changes: Changes) -> tuple[ListenerSettings, ...]:
    """`host`, `kafka`, `zmq`: one listener for each protocol, bound and advertised at the same address."""
    host = fields["host"].text() if "host" in fields else "127.0.0.1"
    if "host" in fields:
        if ":" in host and not _is_address(host):
            fields["host"].fail(f"must be a host without a port, not {host!r}; ports are 'kafka' and 'zmq'")
        if _is_wildcard(host):
            fields["host"].fail(f"clients cannot connect to {host}: write 'listeners' with 'bind' and 'advertise'")
    ports = {
        "kafka": (changes.kafka_port, KAFKA_PORT),
        "zmq": (changes.zmq_port, ZMQ_PORT),
    }
    listeners = []
    for protocol, (changed, default) in ports.items():
        port = changed if changed is not None else fields[protocol].integer(0, 65535) if protocol in fields else default
        listeners.append(ListenerSettings(
            name=protocol, protocol=protocol, bind_host=host, bind_port=port, advertise_host=host, advertise_port=port))
    return tuple(listeners)


def _read_listeners(value: Value) -> tuple[ListenerSettings, ...]:
    listeners: list[ListenerSettings] = []
    for item in value.items():
        fields = item.fields(LISTENER_KEYS, required=("name", "protocol", "bind"))
        if "security" in fields and fields["security"].mapping():
            fields["security"].fail("not supported yet; leave it out")
        name = fields["name"].text()
        if any(name == other.name for other in listeners):
            fields["name"].fail(f"{name!r} is there twice; every listener of a broker needs its own name")
        bind_host, bind_port = _address(fields["bind"])
        advertise_host, advertise_port = bind_host, bind_port
        if "advertise" in fields:
            advertise_host, advertise_port = _address(fields["advertise"])
            if advertise_port == 0 and bind_port != 0:
                fields["advertise"].fail("port 0 means the port that was picked, so 'bind' must have port 0 too")
        if _is_wildcard(advertise_host):
            fields.get("advertise", fields["bind"]).fail(
                f"clients cannot connect to {advertise_host}: say in 'advertise' which address they use")
        listeners.append(ListenerSettings(
            name=name, protocol=fields["protocol"].choice(PROTOCOLS), bind_host=bind_host, bind_port=bind_port,
            advertise_host=advertise_host, advertise_port=advertise_port))
    if not listeners:
        value.fail("at least one listener is needed")
    return tuple(listeners)


def _address(value: Value) -> tuple[str, int]:
    """host:port, or [host]:port for IPv6."""
    text = value.text()
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535 or (":" in host and not bracketed):
        value.fail(f"must be host:port, such as 127.0.0.1:9092 or [::1]:9092, not {text!r}")
    return host[1:-1] if bracketed else host, int(port)


def _refuse_shared_ports(brokers: Placed) -> None:
    used: dict[tuple[str, int], str] = {}
    for value, broker in brokers:
        for listener in broker.listeners:
            address = (listener.bind_host, listener.bind_port)
            place = f"broker {broker.id}'s {listener.name}"
            if listener.bind_port != 0 and address in used:
                value.fail(f"{place} listener has port {listener.bind_port} on {listener.bind_host}, which is "
                           f"{used[address]} listener's already; 0 picks a free port")
            used[address] = place


def _refuse_open_listeners(brokers: Placed) -> None:
    for value, broker in brokers:
        for listener in broker.listeners:
            if not _is_loopback(listener.bind_host):
                value.fail(f"the {listener.name} listener on {listener.bind_host} would be open to everybody on the "
                           "network, without security; bind 127.0.0.1, or say 'insecure: true' at the top of the file")


def _is_address(host: str) -> bool:
    return _packed(host) is not None


def _is_wildcard(host: str) -> bool:
    return _packed(host) in (bytes(4), bytes(16))


def _is_loopback(host: str) -> bool:
    packed = _packed(host)
    return host == "localhost" if packed is None else packed[0] == 127 if len(packed) == 4 else packed == LOOPBACK_6


def _packed(host: str) -> bytes | None:
    """An IP address as bytes; None for a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            return socket.inet_pton(family, host)
    return None


# -- topics and their configuration --------------------------------------------------------------


def _read_defaults(top: Mapping[str, Value], brokers: int) -> dict[str, str]:
    """Effective broker settings, and the topic configuration that the file sets for all topics."""
    defaults = {key: setting.default for key, setting in BROKER_SETTINGS.items()}
    if "defaults" not in top:
        return defaults
    for key, value in top["defaults"].mapping().items():
        text = value.kafka_text()
        if key in BROKER_SETTINGS:
            reason = check_broker_setting(key, text)
            if reason:
                value.fail(reason)
        else:
            _check_config(value, key, text, also=BROKER_SETTINGS)
        if key == "default.replication.factor":
            _check_factor(value, int(text), brokers)
        defaults[key] = text
    return defaults


def _read_topics(top: Mapping[str, Value], defaults: Mapping[str, str], brokers: int) -> tuple[TopicSettings, ...]:
    topics: list[TopicSettings] = []
    for value in top["topics"].items() if "topics" in top else []:
        fields = value.fields(TOPIC_KEYS, required=("name",))
        _check_name(fields["name"], [topic.name for topic in topics])
        config: dict[str, str] = {}
        for key, setting in fields["config"].mapping().items() if "config" in fields else []:
            config[key] = setting.kafka_text()
            _check_config(setting, key, config[key])
        factor = int(defaults["default.replication.factor"])
        if "replication_factor" in fields:
            factor = fields["replication_factor"].integer(1, 2**15 - 1)
            _check_factor(fields["replication_factor"], factor, brokers)
        topics.append(TopicSettings(
            name=fields["name"].text(),
            partitions=fields["partitions"].integer(1, PARTITIONS_MAX) if "partitions" in fields
            else int(defaults["num.partitions"]),
            replication_factor=factor,
            config=config,
        ))
    return tuple(topics)


def _check_name(value: Value, taken: Iterable[str]) -> None:
    from zafka.actors.refused import Refused
    from zafka.actors.topic_rules import check_name

    try:
        check_name(value.text(), taken)
    except Refused as refused:
        value.fail(refused.message)


def _check_factor(value: Value, factor: int, brokers: int) -> None:
    if factor > brokers:
        value.fail(f"{factor} replicas need as many brokers, and there {'is' if brokers == 1 else 'are'} {brokers}")
    if factor > 1:
        value.fail("replication is not supported yet; use 1")


def _check_config(value: Value, key: str, text: str, *, also: Collection[str] = ()) -> None:
    """One topic configuration entry. also: further keys that are valid in this place."""
    if key not in TOPIC_CONFIG:
        value.fail(kafka_setting_hint(key) or unknown_key(key, [*also, *TOPIC_CONFIG]))
    try:
        check_topic_config({key: text})
    except InvalidConfig as invalid:
        value.fail(invalid.reason)
    if key == "min.insync.replicas" and int(text) > 1:
        value.fail(f"{text} replicas can never be in sync: replication is not supported yet; use 1")


# -- supervision ---------------------------------------------------------------------------------


def _read_supervision(value: Value | None) -> SupervisionSettings:
    standard = SupervisionSettings()
    if value is None:
        return standard
    fields = value.fields(SUPERVISION_KEYS)
    backoff = fields["backoff"].fields(("initial", "max")) if "backoff" in fields else {}
    if "actors_per_process" in fields and fields["actors_per_process"].integer(1, 1000) > 1:
        fields["actors_per_process"].fail("more than 1 is not supported yet")

    def seconds(found: Mapping[str, Value], key: str, default_s: float, low_s: float, high_s: float) -> float:
        return found[key].duration_s(low_s, high_s) if key in found else default_s

    settings = SupervisionSettings(
        strategy=fields["strategy"].choice(STRATEGIES) if "strategy" in fields else standard.strategy,
        intensity=fields["intensity"].integer(0, 1_000_000) if "intensity" in fields else standard.intensity,
        period_s=seconds(fields, "period", standard.period_s, 0.001, 86400),
        backoff_initial_s=seconds(backoff, "initial", standard.backoff_initial_s, 0.001, 3600),
        backoff_max_s=seconds(backoff, "max", standard.backoff_max_s, 0.001, 3600),
        heartbeat_s=seconds(fields, "heartbeat", standard.heartbeat_s, 0.01, 60),
        hung_after_s=seconds(fields, "hung_after", standard.hung_after_s, 0.1, 3600),
    )
    if settings.backoff_initial_s > settings.backoff_max_s:
        fields.get("backoff", value).fail(
            f"initial ({settings.backoff_initial_s:g}s) must not be longer than max ({settings.backoff_max_s:g}s)")
    if settings.hung_after_s < 2 * settings.heartbeat_s:
        fields.get("hung_after", value).fail(
            f"must be at least twice the heartbeat ({settings.heartbeat_s:g}s), or live actors count as hung")
    return settings
