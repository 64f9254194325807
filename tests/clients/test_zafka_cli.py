"""`zafka topic|produce|consume|status|doctor` against a running broker, through both doors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests import command_line
from zafka.client.admin import Admin
from zafka.client.consumer import Consumer
from zafka.client.producer import Producer
from zafka.client.records import TopicPartition
from zafka.testing import Broker

ROOT = Path(__file__).resolve().parent.parent.parent
TIMEOUT_S = 60
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
COMMAND = [sys.executable, "-m", "zafka"]

Zafka = Callable[..., str]


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(allow_faults=False) as running:
        yield running


@pytest.fixture(params=["kafka", "zmq"])
def zafka(request: pytest.FixtureRequest, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Zafka:
    """zafka("topic", "list") runs the command at one of the two doors and returns what it prints; or the error, with its code."""
    address = broker.bootstrap_servers if request.param == "kafka" else broker.zmq_bootstrap_servers
    monkeypatch.setenv("ZAFKA_BOOTSTRAP", address)

    def run(*arguments: str, data: str = "", code: int = 0) -> str:
        ended = command_line.zafka(*arguments, data=data)
        assert ended.returncode == code, ended.stderr
        return ended.stderr if code else ended.stdout

    return run


@pytest.fixture
def topic(zafka: Zafka) -> str:
    name = f"cli-{os.urandom(4).hex()}"
    zafka("topic", "create", name, "--partitions", "2", "--config", "retention.ms=1234567")
    return name


def test_topics_are_created_listed_described_and_deleted(zafka: Zafka, topic: str) -> None:
    assert topic in zafka("topic", "list").splitlines()
    assert topic in json.loads(zafka("topic", "list", "--format", "json"))
    for form, parse in (("json", json.loads), ("yaml", yaml.safe_load)):
        (told,) = parse(zafka("topic", "describe", topic, "--format", form))
        assert told["name"] == topic
        assert told["config"] == {"retention.ms": "1234567"}
        assert [(one["partition"], one["leader"], one["end_offset"]) for one in told["partitions"]] == [(0, 1, 0), (1, 1, 0)]
    assert "retention.ms=1234567" in zafka("topic", "describe", topic)
    zafka("topic", "delete", topic)
    assert topic not in zafka("topic", "list").splitlines()


def test_a_topic_gets_more_partitions(zafka: Zafka, topic: str) -> None:
    zafka("topic", "alter", topic, "--partitions", "4", "--dry-run")
    (told,) = json.loads(zafka("topic", "describe", topic, "--format", "json"))
    assert len(told["partitions"]) == 2
    zafka("topic", "alter", topic, "--partitions", "4")
    (told,) = json.loads(zafka("topic", "describe", topic, "--format", "json"))
    assert [(one["partition"], one["leader"]) for one in told["partitions"]] == [(0, 1), (1, 1), (2, 1), (3, 1)]


def test_a_topic_s_configuration_is_altered_and_taken_back(zafka: Zafka, topic: str) -> None:
    def config() -> dict[str, str]:
        (told,) = json.loads(zafka("topic", "describe", topic, "--format", "json"))
        found: dict[str, str] = told["config"]
        return found

    alter = ("topic", "alter", topic, "--config", "retention.bytes=99", "--delete-config", "retention.ms")
    zafka(*alter, "--dry-run")
    assert config() == {"retention.ms": "1234567"}
    zafka(*alter)
    assert config() == {"retention.bytes": "99"}
    assert "did you mean" in zafka("topic", "alter", topic, "--config", "retention.byte=1", code=1)
    zafka("topic", "delete", topic, f"{topic}-none", code=1)
    assert topic in zafka("topic", "list").splitlines(), "all of them or none"


def test_lines_go_in_and_come_out(zafka: Zafka, topic: str) -> None:
    lines = "".join(f"line {number}\n" for number in range(5000))
    zafka("produce", topic, "-p", "1", "-z", "zstd", data=lines)
    assert zafka("consume", topic, "-e") == lines
    assert zafka("consume", topic, "-e", "-o", "-2", "-p", "1") == "line 4998\nline 4999\n"
    assert zafka("consume", topic, "-e", "-o", "4999") == "line 4999\n"
    assert zafka("consume", topic, "-o", "beginning", "-c", "2") == "line 0\nline 1\n"
    assert zafka("consume", topic, "-e", "-o", "end") == ""
    assert zafka("consume", topic, "-e", "-p", "0") == ""


def test_keys_headers_and_nulls(zafka: Zafka, topic: str) -> None:
    zafka("produce", topic, "-p", "0", "-K", ":", "-H", "trace=1", "-H", "empty=", "-Z", data="k1:v1\nonly a value\nk2:\n")
    assert zafka("consume", topic, "-e", "-f", "%o %k=%s [%h] %K %S|") == (
        "0 k1=v1 [trace=1,empty=] 2 2|1 =only a value [trace=1,empty=] -1 12|2 k2= [trace=1,empty=] 2 -1|")
    told = [json.loads(line) for line in zafka("consume", topic, "-e", "-J").splitlines()]
    assert [(one["key"], one["payload"], one["headers"]) for one in told] == [
        ("k1", "v1", ["trace", "1", "empty", ""]), (None, "only a value", ["trace", "1", "empty", ""]),
        ("k2", None, ["trace", "1", "empty", ""])]
    assert zafka("consume", topic, "-e", "-K", "=") == "k1=v1\n=only a value\nk2=\n"


def test_from_and_to_a_time(zafka: Zafka, topic: str) -> None:
    for line in "abc":
        zafka("produce", topic, "-p", "0", data=line)
    stamps = zafka("consume", topic, "-e", "-f", "%T\n").split()
    assert zafka("consume", topic, "-e", "-o", f"s@{stamps[1]}") == "b\nc\n"
    assert zafka("consume", topic, "-o", f"e@{stamps[2]}") == "a\nb\n"
    assert zafka("consume", topic, "-e", "-o", f"s@{int(stamps[2]) + 1}") == ""


def test_files_delimiters_and_one_key(zafka: Zafka, topic: str, tmp_path: Path) -> None:
    for name in ("1", "2"):
        (tmp_path / name).write_bytes(f"{name}a|{name}b".encode())
    zafka("produce", topic, str(tmp_path / "1"), str(tmp_path / "2"), "-D", "|", "-k", "same")
    assert zafka("consume", topic, "-e", "-D", ";", "-K", ":") == "same:1a;same:1b;same:2a;same:2b;"


def test_consume_waits_for_more_until_it_is_interrupted(zafka: Zafka, topic: str, broker: Broker) -> None:
    reader = subprocess.Popen(
        [*COMMAND, "consume", topic, "-b", broker.bootstrap_servers], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=ENVIRONMENT)
    assert reader.stdout is not None
    for line in ("first\n", "second\n"):
        zafka("produce", topic, data=line)
        assert reader.stdout.readline().decode() == line
    reader.send_signal(signal.SIGINT)
    _, told = reader.communicate(timeout=TIMEOUT_S)
    assert (reader.returncode, told) == (0, b"")


def test_a_reader_that_leaves_early_is_no_error(zafka: Zafka, topic: str, broker: Broker) -> None:
    zafka("produce", topic, data="x" * 100 + "\n" + "y\n" * 200_000)
    reader = subprocess.Popen(
        [*COMMAND, "consume", topic, "-b", broker.bootstrap_servers, "-e"], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=ENVIRONMENT)
    assert reader.stdout is not None and reader.stderr is not None
    reader.stdout.readline()
    reader.stdout.close()
    assert reader.stderr.read() == b""
    reader.stderr.close()
    reader.wait(TIMEOUT_S)


def test_a_member_leaves_when_it_is_told_to_end(broker: Broker) -> None:
    """SIGTERM is what `timeout`, containers and service managers send. Nobody waits for its session to be over."""
    name = f"cli-{os.urandom(4).hex()}"
    with Admin(broker.bootstrap_servers) as admin, Producer(broker.bootstrap_servers) as producer:
        admin.create_topic(name)
        producer.send(name, b"first").result(TIMEOUT_S)
        reader = subprocess.Popen(
            [*COMMAND, "consume", name, "-G", name, "-b", broker.bootstrap_servers], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=ENVIRONMENT)
        assert reader.stdout is not None and reader.stdout.readline() == b"first\n"
        reader.terminate()
        assert (reader.communicate(timeout=TIMEOUT_S), reader.returncode) == ((b"", b""), 0)
        (info,) = admin.describe_groups(name)
        assert (info.state, admin.list_group_offsets(name)) == ("Empty", {(name, 0): 1})


def test_a_member_whose_output_nobody_takes_leaves_when_it_is_told_to_end(broker: Broker) -> None:
    name = f"cli-{os.urandom(4).hex()}"
    with Admin(broker.bootstrap_servers) as admin, Producer(broker.bootstrap_servers) as producer:
        admin.create_topic(name)
        producer.send_many(name, [b"x" * 1000] * 1000).result(TIMEOUT_S)  # more than a pipe holds
        reader = subprocess.Popen(
            [*COMMAND, "consume", name, "-G", name, "-b", broker.bootstrap_servers], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=ENVIRONMENT)
        assert reader.stdout is not None and reader.stderr is not None and reader.stdout.read(1) == b"x"
        reader.terminate()
        assert (reader.wait(TIMEOUT_S), reader.stderr.read()) == (0, b"")
        reader.stdout.close()
        reader.stderr.close()
        (info,) = admin.describe_groups(name)
        assert (info.state, admin.list_group_offsets(name).get(TopicPartition(name, 0), 0)) == ("Empty", 0)


def test_what_nobody_took_is_not_committed(broker: Broker) -> None:
    name = f"cli-{os.urandom(4).hex()}"
    with Admin(broker.bootstrap_servers) as admin, Producer(broker.bootstrap_servers) as producer:
        admin.create_topic(name)
        producer.send_many(name, [b"a line"] * 1000).result(TIMEOUT_S)
        taker, end = os.pipe()
        os.close(taker)
        done = subprocess.run(
            [*COMMAND, "consume", name, "-G", name, "-b", broker.bootstrap_servers], check=False, stdout=end,
            stderr=subprocess.PIPE, timeout=TIMEOUT_S, env=ENVIRONMENT)
        os.close(end)
        assert (done.returncode, done.stderr) == (1, b"")
        assert admin.list_group_offsets(name).get(TopicPartition(name, 0), 0) == 0


def test_status_and_doctor(zafka: Zafka, topic: str, broker: Broker) -> None:
    told = json.loads(zafka("status", "--data-dir", str(broker.data_dir), "--format", "json"))
    actors = {actor["name"]: actor for actor in told["actors"]}
    assert {"supervisor", "coordinator", "broker 1", f"partition {topic}-0"} <= actors.keys()
    one = actors[f"partition {topic}-0"]
    assert (one["kind"], one["broker"], one["restarts"], one["state"]) == ("partition", 1, 0, "running")
    assert one["memory_bytes"] > 0
    assert f"└─ partition {topic}-0" in zafka("status", "--data-dir", str(broker.data_dir))
    findings = json.loads(zafka("doctor", "--format", "json"))
    assert {"cluster", "broker 1", "topics"} <= {finding["subject"] for finding in findings if finding["level"] == "ok"}


def test_doctor_tells_of_groups_and_where_their_members_are_sent(zafka: Zafka, topic: str, broker: Broker) -> None:
    zafka("produce", topic, data="1\n2\n3\n")
    group = f"g-{topic}"
    with Admin(broker.bootstrap_servers) as admin:
        admin.alter_group_offsets(group, {(topic, partition): 0 for partition in range(2)})
    text = zafka("doctor", "-G", group)
    assert f"ok       group {group}: clients are sent to broker 1 at " in text
    assert f"WARNING  group {group}: nobody reads 3 records behind its offsets" in text
    assert "groups: classic and KIP-848" in text
    assert f"WARNING  group {group}-none: there is no such group now" in (none := zafka("doctor", "-G", f"{group}-none"))
    assert f"group {group}:" not in none, "others are not told of"


def partitions_of(zafka: Zafka, group: str) -> list[tuple[int, int | None, int | None]]:
    """Partition, committed offset and lag of each, as `describe` has them."""
    (told,) = json.loads(zafka("group", "describe", group, "--format", "json"))
    return [(one["partition"], one["committed"], one["lag"]) for one in told["partitions"]]


def test_a_group_is_moved_to_what_is_there_and_nowhere_else(zafka: Zafka, topic: str, broker: Broker) -> None:
    group = f"g-{topic}"
    zafka("produce", topic, "-p", "0", data="0\n1\n2\n3\n4\n")
    assert "has committed nothing; name the topics" in zafka("group", "seek", group, "--to", "1", code=2)
    with Admin(broker.bootstrap_servers) as admin:
        admin.delete_records({(topic, 0): 3})
        admin.alter_group_offsets(group, {(topic, 0): 7})
        assert partitions_of(zafka, group) == [(0, 7, 0)], "an offset behind the end is no lag below zero"
        for to, after in (("1", 3), ("4", 4), ("99", 5)):
            (told, other) = json.loads(zafka("group", "seek", group, "--to", to, "--format", "json"))
            assert (told["topic"], told["after"], other["after"]) == (topic, after, 0)
            assert admin.list_group_offsets(group) == {(topic, 0): after, (topic, 1): 0}
    assert "--to must be earliest" in zafka("group", "seek", group, "--to", "soon", code=2)


def test_a_share_of_a_group_is_printed_up_to_a_count(zafka: Zafka, topic: str) -> None:
    group = f"g-{topic}"
    zafka("produce", topic, "-p", "0", data="0\n1\n2\n3\n4\n")
    assert zafka("consume", topic, "-G", group, "-c", "2", "-e") == "0\n1\n"
    assert partitions_of(zafka, group)[0] == (0, 2, 3)
    assert zafka("consume", topic, "-G", group, "-c", "2", "-e") == "2\n3\n"
    assert "`zafka group seek` moves it" in zafka("consume", topic, "-G", group, "-p", "0", code=2)


def test_all_groups_are_described_and_several_deleted(zafka: Zafka, topic: str, broker: Broker) -> None:
    groups = [f"g{number}-{topic}" for number in range(2)]
    with Admin(broker.bootstrap_servers) as admin:
        for group in groups:
            admin.alter_group_offsets(group, {(topic, 0): 0})
    config = {"bootstrap_servers": broker.bootstrap_servers, "group_id": f"m-{topic}", "enable_auto_commit": False}
    with Consumer(topic, **config) as member:  # type: ignore[arg-type]
        deadline_s = time.monotonic() + TIMEOUT_S
        while member.assignment() != {TopicPartition(topic, 0), TopicPartition(topic, 1)}:
            assert time.monotonic() < deadline_s
            member.poll(0.05)
        told = {each["group"]: each for each in json.loads(zafka("group", "describe", "--format", "json"))}
        assert {*groups, f"m-{topic}"} <= told.keys()
        one = told[f"m-{topic}"]
        assert [(each["committed"], each["lag"], each["member"]) for each in one["partitions"]] == [
            (None, None, one["members"][0]["member"])] * 2, "what it reads is shown also if nothing is committed"
    zafka("group", "delete", *groups)
    assert not set(groups) & set(zafka("group", "list").split())


@pytest.mark.parametrize("measurement", ["produce", "consume", "latency", "end-to-end"])
def test_bench_measures_and_leaves_no_topic(zafka: Zafka, measurement: str) -> None:
    load = ("--records", "300", "--size", "50", "--partitions", "3", "--rate", "1000", "--compression", "lz4")
    told = json.loads(zafka("bench", measurement, *load, "--config", "fsync=os", "--format", "json"))
    assert told["measurement"] == measurement
    assert told["records"] >= 300 and told["partitions"] == 3
    assert told["records_per_s"] * told["seconds"] == pytest.approx(told["records"])
    if measurement in ("latency", "end-to-end"):
        assert 0 < told["latency_ms"]["p50"] <= told["latency_ms"]["p99"] <= told["latency_ms"]["max"]
    else:
        assert told["latency_ms"] is None
    assert not [name for name in zafka("topic", "list").splitlines() if name.startswith("zafka-bench-")]


def test_bench_tells_people_and_leaves_no_topic_when_it_fails(zafka: Zafka) -> None:
    told = zafka("bench", "produce", "--records", "2000")
    assert told.startswith("produce  2,000 records of 100 B in ") and "records/s" in told
    with pytest.raises(AssertionError, match=r"MESSAGE_TOO_LARGE|larger"):
        zafka("bench", "produce", "--records", "1", "--size", "3000000")
    assert not [name for name in zafka("topic", "list").splitlines() if name.startswith("zafka-bench-")]


def test_bench_that_is_interrupted_without_its_broker_ends_and_says_what_it_leaves() -> None:
    with Broker() as broker:
        measuring = subprocess.Popen(
            [*COMMAND, "bench", "produce", "--records", "100000000", "-b", broker.bootstrap_servers],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT)
        with Admin(broker.bootstrap_servers) as admin, Consumer(bootstrap_servers=broker.bootstrap_servers) as consumer:
            deadline_s = time.monotonic() + TIMEOUT_S
            while not any(consumer.end_offsets([(name, 0)]) != {(name, 0): 0} for name in admin.list_topics()):
                assert time.monotonic() < deadline_s and measuring.poll() is None
                threading.Event().wait(0.02)
            (topic,) = admin.list_topics()
        broker.kill_all()
        measuring.send_signal(signal.SIGINT)
        out, told = measuring.communicate(timeout=TIMEOUT_S)
    assert (measuring.returncode, out) == (130, b"")
    assert told.decode().startswith(f"\nzafka: interrupted; topic {topic} may be left: ")
    assert b"Traceback" not in told and told.count(b"\n") == 2
