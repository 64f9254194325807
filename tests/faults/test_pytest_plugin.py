"""The pytest plugin and the stand-in for containers, used as their users do: by pytest in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import confluent_kafka
import psutil
import pytest

from zafka.pytest_plugin import read_defaults, topic_name
from zafka.testing import BrokerFailed, KafkaContainer

HOME = Path(__file__).resolve().parents[2]
USERS_TESTS = '''
import os, pytest, confluent_kafka, zafka
from confluent_kafka.admin import AdminClient

def send(bootstrap, topic, value):
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap})
    producer.produce(topic, value)
    assert producer.flush(20) == 0

names = []

def test_a_topic_of_its_own(kafka_bootstrap, zafka_topic):
    names.append(zafka_topic)
    send(kafka_bootstrap, zafka_topic, b"an order")
    with zafka.Consumer(zafka_topic, bootstrap_servers=kafka_bootstrap, auto_offset_reset="earliest") as consumer:
        assert next(iter(consumer)).value == b"an order"

@pytest.mark.zafka_topic(partitions=3, config={"retention.ms": "5000"})
@pytest.mark.parametrize("odd", ["a b/ü"])
def test_another(zafka_broker, kafka_bootstrap, zafka_topic, odd):
    assert zafka_topic not in names and kafka_bootstrap == zafka_broker.bootstrap_servers
    topics = AdminClient({"bootstrap.servers": kafka_bootstrap}).list_topics(timeout=20).topics
    assert len(topics[zafka_topic].partitions) == 3
    assert names[0] not in topics  # deleted
    with zafka.Admin(kafka_bootstrap) as admin:
        config = {entry.name: entry.value for entry in admin.describe_configs(topic=zafka_topic)}
        assert (config["retention.ms"], config["max.message.bytes"]) == ("5000", "7777")

def test_faults(zafka_broker, kafka_bootstrap, zafka_topic):
    zafka_broker.kill(f"partition {zafka_topic}-0")
    send(kafka_bootstrap, zafka_topic, b"still there")
    print("root", zafka_broker.pid)
'''
MORE_TESTS = '''
import zafka

def test_a_topic_that_its_test_deletes(zafka_broker, zafka_topic):
    with zafka.Admin(zafka_broker.bootstrap_servers) as admin:
        admin.delete_topics(zafka_topic)
    print("root", zafka_broker.pid)

def test_a_broker_that_its_test_stops(zafka_broker, zafka_topic):
    zafka_broker.stop()
'''


def run_pytest(folder: Path, tests: str, ini: str = "", *files: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_of_a_user.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\n" + ini)
    environment = {**os.environ, "PYTHONPATH": str(HOME), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "zafka.pytest_plugin", "-q", "-rA", "--strict-markers", "-p", "no:cacheprovider", *files],
        check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)


def test_the_fixtures_give_a_real_broker_and_topics_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_of_more.py").write_text(MORE_TESTS)
    done = run_pytest(
        tmp_path, USERS_TESTS, "zafka_defaults =\n    max.message.bytes=7777\n    num.partitions = 2\n", "test_of_a_user.py",
        "test_of_more.py")
    assert done.returncode == 0 and "5 passed" in done.stdout, done.stdout + done.stderr
    (told,) = {line for line in done.stdout.splitlines() if line.startswith("root ")}  # one broker for all files
    assert not psutil.pid_exists(int(told.split()[1]))


@pytest.mark.parametrize(("tests", "ini", "told"), [
    ("def test(zafka_broker): pass", "zafka_defaults =\n    num.partitions\n", "zafka_defaults takes key=value"),
    ("def test(zafka_broker): pass", "zafka_defaults =\n    num.partition=4\n", "did you mean 'num.partitions'"),
    ("import pytest\n@pytest.mark.zafka_topic(3)\ndef test(zafka_topic): pass", "", "zafka_topic(partitions=1, config=None)"),
])
def test_what_is_wrong_is_told_in_words(tmp_path: Path, tests: str, ini: str, told: str) -> None:
    done = run_pytest(tmp_path, tests, ini)
    assert done.returncode != 0 and told in done.stdout + done.stderr, done.stdout + done.stderr


def test_the_plugin_is_found_where_zafka_is_installed() -> None:
    from importlib.metadata import entry_points

    found = {each.name: each.value for each in entry_points(group="pytest11")}
    assert found["zafka"] == "zafka.pytest_plugin"


def test_importing_the_plugin_imports_nothing_of_zafka_but_its_name() -> None:
    """Every run of pytest pays for it."""
    code = "import sys, zafka.pytest_plugin; print(sorted(name for name in sys.modules if name.startswith(('zafka.', 'zmq', 'msgspec'))))"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOME, timeout=60).stdout
    assert eval(told) == ["zafka.client", "zafka.client.version", "zafka.pytest_plugin"]


def test_topics_are_named_after_their_test() -> None:
    first, second = topic_name("test_a[ü b/c]"), topic_name("test_a[ü b/c]")
    assert first.startswith("test_a-b-c-") and first != second
    assert len(topic_name("x" * 1000)) <= 249


def test_defaults_are_lines_of_key_and_value() -> None:
    assert read_defaults(["a.b = 1", "c=x=y"]) == {"a.b": "1", "c": "x=y"}
    with pytest.raises(pytest.UsageError, match="not ' = 1'"):
        read_defaults([" = 1"])


def test_a_container_is_a_broker_under_the_names_that_tests_know() -> None:
    kafka = KafkaContainer("confluentinc/cp-kafka:7.6.0").with_kraft().with_env("KAFKA_NUM_PARTITIONS", "3")
    with kafka:
        bootstrap = kafka.get_bootstrap_server()
        assert bootstrap == f"{kafka.get_container_host_ip()}:{kafka.get_exposed_port(9093)}"
        producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap})
        producer.produce("made-on-first-use", b"x")
        assert producer.flush(20) == 0
        assert len(producer.list_topics("made-on-first-use", timeout=20).topics["made-on-first-use"].partitions) == 3
    kafka.start(timeout=20)
    assert kafka.is_running()
    kafka.stop()
    with pytest.raises(ValueError, match="such as KAFKA_NUM_PARTITIONS"):
        kafka.with_env("CLUSTER_ID", "x")
    mistyped = KafkaContainer(start_timeout_s=50).with_env("KAFKA_NUM_PARTITION", "3")
    with pytest.raises(BrokerFailed, match="did you mean"):
        mistyped.start()
    assert mistyped.start_timeout_s == 50
