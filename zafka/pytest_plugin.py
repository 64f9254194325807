"""Fixtures for tests that need a Kafka broker: a real zafka, started once for all tests, gone afterwards.

    def test_orders(kafka_bootstrap, zafka_topic):
        confluent_kafka.Producer({"bootstrap.servers": kafka_bootstrap}).produce(zafka_topic, b"an order")

`zafka_broker`, `kafka_bootstrap` and `zafka_topic`; pytest finds them because zafka is installed. With pytest-xdist each worker
has a broker of its own. What is imported here is what every run of pytest pays for: nothing of zafka's.
May fail with zafka.testing.BrokerFailed, whose message ends with what the broker wrote last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from zafka.testing import Broker

NAME_LENGTH_MAX = 200  # a topic's may have 249
MARKER = (
    "zafka_topic(partitions=1, config=None): of how many partitions, and with which configuration by Kafka's names, the "
    "test's zafka_topic is")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "zafka_defaults", "settings of the broker of `zafka_broker`, one key=value a line, such as num.partitions=4",
        type="linelist", default=[])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)


@pytest.fixture(scope="session")
def zafka_broker(pytestconfig: pytest.Config) -> Iterator[Broker]:
    """A running zafka.Broker for all tests of the session: addresses, faults (`kill`, `pause`, `inject_error`, ...), `log`."""
    from zafka.testing import Broker

    with Broker(defaults=read_defaults(pytestconfig.getini("zafka_defaults"))) as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_bootstrap(zafka_broker: Broker) -> str:
    """host:port of a broker, for the bootstrap.servers of any Kafka client."""
    return zafka_broker.bootstrap_servers


@pytest.fixture
def zafka_topic(zafka_broker: Broker, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a new topic that is this test's own; it is deleted afterwards.

    One partition, unless the test says otherwise: `@pytest.mark.zafka_topic(partitions=3, config={"retention.ms": "1000"})`.
    """
    from zafka.client.admin import Admin

    partitions, config = _wanted(**_arguments(request.node))
    name = topic_name(request.node.name)
    with Admin(zafka_broker.bootstrap_servers) as admin:
        admin.create_topic(name, partitions, config=config)
    yield name
    if zafka_broker.is_running():
        with Admin(zafka_broker.bootstrap_servers) as admin:
            if name in admin.list_topics():
                admin.delete_topics(name)


def read_defaults(lines: list[str]) -> dict[str, str]:
    """Raises pytest.UsageError for a line that is no key=value."""
    defaults = {}
    for line in lines:
        key, equals, value = line.partition("=")
        if not equals or not key.strip():
            raise pytest.UsageError(f"zafka_defaults takes key=value, such as num.partitions=4, not {line!r}")
        defaults[key.strip()] = value.strip()
    return defaults


def topic_name(test: str) -> str:
    """A name that says whose topic it is, and that no other one has."""
    import uuid

    return f"{re.sub(r'[^a-zA-Z0-9._-]+', '-', test)[:NAME_LENGTH_MAX]}-{uuid.uuid4().hex[:8]}"


def _arguments(node: pytest.Item) -> dict[str, Any]:
    marker = node.get_closest_marker("zafka_topic")
    if marker is None:
        return {}
    if marker.args or not marker.kwargs.keys() <= {"partitions", "config"}:
        raise pytest.UsageError(f"@pytest.mark.{MARKER}")
    return dict(marker.kwargs)


def _wanted(partitions: int = 1, config: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    return partitions, config or {}
