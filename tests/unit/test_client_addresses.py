"""Bootstrap addresses: what is accepted, and that a mistake is named."""

from __future__ import annotations

import pytest

from zafka.client.addresses import Address, parse_address, parse_bootstrap
from zafka.client.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:9092", Address("kafka", "localhost", 9092)),
        ("localhost", Address("kafka", "localhost", 9092)),
        (" 10.0.0.1:1 ", Address("kafka", "10.0.0.1", 1)),
        ("[::1]:9092", Address("kafka", "::1", 9092)),
        ("[::1]", Address("kafka", "::1", 9092)),
        ("tcp://localhost:9290", Address("tcp", "localhost", 9290)),
        ("tcp://[::1]:9290", Address("tcp", "::1", 9290)),
        ("ipc:///run/zafka/door", Address("ipc", "/run/zafka/door", 0)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tcp://localhost", "port"),
        ("localhost:http", "port"),
        ("localhost:0", "port"),
        ("localhost:65536", "port"),
        (":9092", "no host"),
        ("http://localhost:9092", "http://"),
        ("::1:9092", "brackets"),
        ("[::1:9092", "bracket"),
        ("ipc://", "no path"),
    ],
)
def test_mistakes_are_named(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_address(text)


def test_bootstrap_from_argument_environment_and_default() -> None:
    environment = {"ZAFKA_BOOTSTRAP": "kafka:1", "ZAFKA_BOOTSTRAP_ZMQ": "tcp://zmq:2"}
    assert parse_bootstrap("a:1, b:2", environment) == (Address("kafka", "a", 1), Address("kafka", "b", 2))
    assert parse_bootstrap(["a:1", "b:2,c:3"], environment)[-1] == Address("kafka", "c", 3)
    assert parse_bootstrap(None, environment) == (Address("tcp", "zmq", 2),)
    assert parse_bootstrap(None, {"ZAFKA_BOOTSTRAP": "kafka:1"}) == (Address("kafka", "kafka", 1),)
    assert parse_bootstrap(None, {}) == (Address("kafka", "127.0.0.1", 9092),)


def test_bootstrap_is_of_one_door_and_not_empty() -> None:
    with pytest.raises(ConfigError, match="mixes"):
        parse_bootstrap("a:1,tcp://a:2")
    with pytest.raises(ConfigError, match="empty"):
        parse_bootstrap([])
    with pytest.raises(ConfigError, match="strings"):
        parse_bootstrap([9092])  # type: ignore[list-item]
