"""Where a client begins: bootstrap addresses from arguments and the environment.

Owns: `Address` and its spelling. `tcp://host:port` and `ipc://path` are ZeroMQ doors, `host:port` is Kafka over TCP.
May fail with ConfigError only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from zafka.client.errors import ConfigError

DEFAULT_BOOTSTRAP = "127.0.0.1:9092"
KAFKA_PORT = 9092


class Address(NamedTuple):
    """One listener of a broker. protocol: "kafka", "tcp" or "ipc"; an ipc path stands in `host`, its port is 0."""

    protocol: str
    host: str
    port: int

    @property
    def is_zmq(self) -> bool:
        return self.protocol != "kafka"

    def __str__(self) -> str:
        if self.protocol == "ipc":
            return f"ipc://{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.protocol == "kafka" else f"tcp://{host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read one address. Raises ConfigError with the reason and an example."""
    text = text.strip()
    if text.startswith("ipc://"):
        if len(text) == len("ipc://"):
            raise ConfigError(f"{text!r} has no path: write for example ipc:///run/zafka/door")
        return Address("ipc", text.removeprefix("ipc://"), 0)
    protocol, rest = ("tcp", text.removeprefix("tcp://")) if text.startswith("tcp://") else ("kafka", text)
    example = "tcp://127.0.0.1:9290 (ZeroMQ) or 127.0.0.1:9092 (Kafka)"
    if "://" in rest:
        scheme = rest.split("://")[0]
        raise ConfigError(f"{text!r}: {scheme}:// is not an address of a broker; write {example}")
    if rest.startswith("["):
        host, bracket, port = rest[1:].partition("]")
        port = port.removeprefix(":")
        if not bracket:
            raise ConfigError(f"{text!r}: the bracket of the IPv6 address is not closed; write for example [::1]:9092")
    elif rest.count(":") > 1:
        raise ConfigError(f"{text!r}: write an IPv6 address in brackets, for example [::1]:9092")
    else:
        host, _, port = rest.partition(":")
    if not host:
        raise ConfigError(f"{text!r} has no host; write {example}")
    if not port and protocol == "kafka":
        return Address(protocol, host, KAFKA_PORT)
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"{text!r}: the port must be a number from 1 to 65535; write {example}")
    return Address(protocol, host, int(port))


def parse_bootstrap(
    servers: str | Iterable[str] | None, environment: Mapping[str, str] | None = None
) -> tuple[Address, ...]:
    """All bootstrap addresses, from the argument or else ZAFKA_BOOTSTRAP_ZMQ, ZAFKA_BOOTSTRAP, 127.0.0.1:9092.

    servers: one string, comma-separated, or several; all of the same door, since brokers tell each door the
        addresses of that door only.
    """
    if servers is None:
        environment = os.environ if environment is None else environment
        servers = environment.get("ZAFKA_BOOTSTRAP_ZMQ") or environment.get("ZAFKA_BOOTSTRAP") or DEFAULT_BOOTSTRAP
    texts = [servers] if isinstance(servers, str) else list(servers)
    for text in texts:
        if not isinstance(text, str):
            raise ConfigError(f"bootstrap_servers must be strings such as '127.0.0.1:9092', not {text!r}")
    addresses = tuple(parse_address(part) for text in texts for part in text.split(",") if part.strip())
    if not addresses:
        raise ConfigError(f"bootstrap_servers is empty; write for example {DEFAULT_BOOTSTRAP}")
    if len({address.is_zmq for address in addresses}) > 1:
        raise ConfigError(
            f"bootstrap_servers mixes ZeroMQ (tcp://, ipc://) and Kafka (host:port) addresses: "
            f"{', '.join(map(str, addresses))}; use one of the two"
        )
    return addresses
