"""Settings of a running broker, of all brokers and of groups, altered by clients: in effect at once, on disk, and after a restart."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    ResourceType,
)

from zafka.client.admin import Admin
from zafka.client.producer import Producer
from zafka.runtime.cli import main
from zafka.testing import Broker

WAIT_S = 60.0
SEGMENT = 1024 * 1024  # the least that Kafka allows


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(topics={"t": 1}, defaults={"group.consumer.min.session.timeout.ms": "1000"}, allow_faults=False) as running:
        yield running


def alter_all(broker: Broker, **config: str | None) -> None:
    """By our own client: confluent-kafka cannot name all brokers."""
    with Admin(broker.bootstrap_servers) as admin:
        admin.alter_config(broker="", config={key.replace("_", "."): value for key, value in config.items()})


def alter(broker: Broker, kind: ResourceType, name: str, **config: str | None) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    entries = [
        ConfigEntry(key.replace("_", "."), value, incremental_operation=(
            AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET)) for key, value in config.items()]
    for done in admin.incremental_alter_configs([ConfigResource(kind, name, incremental_configs=entries)]).values():
        done.result(WAIT_S)


def described(broker: Broker, kind: ResourceType, name: str, key: str) -> tuple[str, int]:
    """Value and source."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    (found,) = admin.describe_configs([ConfigResource(kind, name)]).values()
    entry = found.result(WAIT_S)[key]
    return entry.value, ConfigSource(entry.source).value


def wait_until(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.02)


def segments(broker: Broker) -> list[Path]:
    return sorted((broker.data_dir / "broker-1" / "t-0").glob("*.log"))


def write(broker: Broker, size: int = 400_000) -> None:
    with Producer(broker.bootstrap_servers, acks="all") as producer:
        for _ in range(2):
            producer.send("t", bytes(size)).result()


def test_a_broker_obeys_on_disk_and_at_once_and_still_after_a_restart(broker: Broker) -> None:
    write(broker)
    write(broker)
    assert len(segments(broker)) == 1
    alter(broker, ResourceType.BROKER, "1", log_segment_bytes=str(SEGMENT))
    assert described(broker, ResourceType.BROKER, "1", "log.segment.bytes") == (
        str(SEGMENT), ConfigSource.DYNAMIC_BROKER_CONFIG.value)
    assert described(broker, ResourceType.TOPIC, "t", "segment.bytes")[0] == str(SEGMENT)
    write(broker)
    assert len(segments(broker)) > 1
    broker.restart()
    assert described(broker, ResourceType.BROKER, "1", "log.segment.bytes")[0] == str(SEGMENT)
    before = len(segments(broker))
    write(broker)
    write(broker)
    assert len(segments(broker)) > before
    alter_all(broker, log_retention_bytes=str(SEGMENT))
    assert described(broker, ResourceType.BROKER, "1", "log.retention.bytes") == (
        str(SEGMENT), ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG.value)
    with Admin(broker.bootstrap_servers) as admin:
        assert [(entry.name, entry.value, entry.source) for entry in admin.describe_configs(broker="")] == [
            ("log.retention.bytes", str(SEGMENT), "broker default dynamic")]


def test_a_limit_that_is_lowered_refuses_what_is_larger_and_taken_away_takes_it_again(broker: Broker) -> None:
    alter_all(broker, message_max_bytes="1000")
    with pytest.raises(Exception, match=r"MESSAGE_TOO_LARGE|larger"):
        write(broker, 5000)
    alter_all(broker, message_max_bytes=None)
    write(broker, 5000)


def test_what_cannot_be_altered_is_refused_in_kafka_s_words(broker: Broker) -> None:
    with pytest.raises(Exception, match=r"Cannot update these configs dynamically: \[num.partitions\]"):
        alter(broker, ResourceType.BROKER, "1", num_partitions="3")


def test_a_group_s_member_that_falls_silent_is_out_after_the_group_s_own_session(broker: Broker) -> None:
    with Admin(broker.bootstrap_servers) as admin:
        admin.alter_config(group="quick", config={"consumer.session.timeout.ms": 1500})
        (entry,) = [each for each in admin.describe_configs(group="quick") if not each.is_default and each.source == "group"]
        assert (entry.name, entry.value) == ("consumer.session.timeout.ms", "1500")
        program = (
            "import sys; from confluent_kafka import Consumer\n"
            "c = Consumer({'bootstrap.servers': sys.argv[1], 'group.id': 'quick', 'group.protocol': 'consumer'})\n"
            "c.subscribe(['t'])\n"
            "while True:\n    c.poll(0.1)\n")
        member = subprocess.Popen([sys.executable, "-c", program, broker.bootstrap_servers])
        try:
            wait_until(lambda: any(each.group_id == "quick" and each.state == "Stable" for each in admin.list_groups()))
            assert admin.describe_groups("quick")[0].members
        finally:
            member.kill()
            member.wait()
        started_s = time.monotonic()
        wait_until(lambda: not admin.describe_groups("quick")[0].members)
        assert time.monotonic() - started_s < 40  # without a session of its own: 45 s


def test_the_command_line_alters_and_describes(broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    address = ["-b", broker.bootstrap_servers]
    assert main(["config", "alter", "--broker", "1", "--config", "log.roll.ms=70000", *address]) == 0
    assert "broker 1 has log.roll.ms=70000" in capsys.readouterr().err
    assert main(["config", "describe", "--broker", "1", "--format", "json", *address]) == 0
    told = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert told["log.roll.ms"] == {"name": "log.roll.ms", "value": "70000", "source": "broker dynamic", "read_only": False}
    assert told["broker.id"]["read_only"]
    assert main(["config", "alter", "--all-brokers", "--config", "num.partitions=2", *address]) == 1
    assert "Cannot update these configs dynamically: [num.partitions]" in capsys.readouterr().err
    assert main(["config", "alter", "--broker", "1", "--delete-config", "log.roll.ms", *address]) == 0
    assert main(["config", "alter", "-G", "g", "--config", "consumer.heartbeat.interval.ms=500", "--dry-run", *address]) == 0
    assert main(["config", "describe", "-G", "g", *address]) == 0
    assert "log.roll.ms" not in capsys.readouterr().out
    assert main(["config", "describe", *address]) == 2
    assert "--topic, --broker, --all-brokers or --group" in capsys.readouterr().err
