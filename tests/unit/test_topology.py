"""Every bad topology is refused before anything starts, with file, line, path, reason and the nearest valid key."""

from __future__ import annotations

from pathlib import Path

import pytest

from zafka.runtime.settings import SupervisionSettings, TreeSettings
from zafka.runtime.topology import Changes, load_topology
from zafka.runtime.yaml_file import TopologyError

FULL = """\
cluster: demo
data_dir: ./data
coordination: embedded
brokers:
  - id: 1
    rack: a
    host: 127.0.0.1
    kafka: 9092
    zmq: 0
  - id: 2
    listeners:
      - {name: inside,  protocol: kafka, bind: 127.0.0.1:9094, advertise: broker2:9094}
      - {name: outside, protocol: kafka, bind: "[::1]:19094", advertise: localhost:19094}
      - {name: native,  protocol: zmq,   bind: 127.0.0.1:0}
defaults:
  num.partitions: 4
  default.replication.factor: 1
  min.insync.replicas: 1
  fsync: always
  auto.create.topics.enable: false
topics:
  - {name: orders, partitions: 8, replication_factor: 1, config: {retention.ms: 604800000}}
  - {name: plain}
supervision:
  strategy: one_for_all
  intensity: 7
  period: 2m
  backoff: {initial: 20ms, max: 5s}
  heartbeat: 500ms
  hung_after: 10s
  actors_per_process: 1
dashboard:
security: {}
"""


def load(tmp_path: Path, text: str, changes: Changes | None = None) -> TreeSettings:
    file = tmp_path / "t.yaml"
    file.write_text(text)
    return load_topology(file, changes)


def refusal(tmp_path: Path, text: str) -> str:
    """The message without the file's folder."""
    with pytest.raises(TopologyError) as raised:
        load(tmp_path, text)
    return str(raised.value).replace(f"{tmp_path}/", "")


def test_a_full_file_is_read(tmp_path: Path) -> None:
    settings = load(tmp_path, FULL)
    assert settings.cluster == "demo"
    assert settings.data_dir == tmp_path / "data"
    first, second = settings.brokers
    assert (first.id, first.rack) == (1, "a")
    assert [(one.protocol, one.bind_host, one.bind_port) for one in first.listeners] == [
        ("kafka", "127.0.0.1", 9092), ("zmq", "127.0.0.1", 0)]
    assert [(one.name, one.bind_host, one.bind_port, one.advertise_host, one.advertise_port)
            for one in second.listeners] == [
        ("inside", "127.0.0.1", 9094, "broker2", 9094),
        ("outside", "::1", 19094, "localhost", 19094),
        ("native", "127.0.0.1", 0, "127.0.0.1", 0)]
    assert settings.defaults["num.partitions"] == "4"
    assert settings.defaults["fsync"] == "always"
    assert settings.defaults["auto.create.topics.enable"] == "false"
    orders, plain = settings.topics
    assert (orders.name, orders.partitions, orders.config) == ("orders", 8, {"retention.ms": "604800000"})
    assert (plain.partitions, plain.replication_factor, plain.config) == (4, 1, {})
    assert settings.supervision == SupervisionSettings(strategy="one_for_all", intensity=7, period_s=120.0)


def test_without_a_file_there_is_one_broker_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_topology(None)
    assert settings.data_dir == tmp_path / "zafka-data"
    (broker,) = settings.brokers
    assert [(one.protocol, one.bind_host, one.bind_port) for one in broker.listeners] == [
        ("kafka", "127.0.0.1", 9092), ("zmq", "127.0.0.1", 9290)]
    assert settings.topics == () and settings.defaults["group.initial.rebalance.delay.ms"] == "0"


def test_an_empty_file_says_as_much_as_none(tmp_path: Path) -> None:
    assert load(tmp_path, "# nothing\n").brokers == load_topology(None).brokers


def test_flags_come_before_the_file(tmp_path: Path) -> None:
    changes = Changes(data_dir=str(tmp_path / "other"), kafka_port=1234, zmq_port=0)
    settings = load(tmp_path, "data_dir: ./data\nbrokers: [{id: 1, kafka: 9092, zmq: 9290}]\n", changes)
    assert settings.data_dir == tmp_path / "other"
    assert [one.bind_port for one in settings.brokers[0].listeners] == [1234, 0]
    assert [one.advertise_port for one in settings.brokers[0].listeners] == [1234, 0]


def test_a_port_flag_needs_one_broker(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match="with several brokers"):
        load(tmp_path, FULL, Changes(kafka_port=1))


def test_faults_are_allowed_by_the_file_or_the_flag_and_else_not(tmp_path: Path) -> None:
    assert not load(tmp_path, "cluster: a\n").faults
    assert not load(tmp_path, "faults: false\n").faults
    assert load(tmp_path, "faults: true\n").faults
    assert load(tmp_path, "faults: false\n", Changes(allow_faults=True)).faults
    assert "line 1: faults: must be true or false, not the text 'yes please'" in refusal(tmp_path, "faults: yes please\n")


def test_an_absolute_data_dir_stays(tmp_path: Path) -> None:
    assert load(tmp_path, "data_dir: /var/lib/zafka").data_dir == Path("/var/lib/zafka")


def test_aliases_and_merges_are_yaml(tmp_path: Path) -> None:
    settings = load(tmp_path, "topics:\n  - &t {name: a, partitions: 3}\n  - {<<: *t, name: b}\n")
    assert [(topic.name, topic.partitions) for topic in settings.topics] == [("a", 3), ("b", 3)]


def test_an_open_listener_is_taken_if_the_file_says_insecure(tmp_path: Path) -> None:
    text = """\
insecure: true
brokers:
  - id: 1
    listeners: [{name: all, protocol: kafka, bind: 0.0.0.0:9092, advertise: example.org:9092}]
"""
    assert load(tmp_path, text).brokers[0].listeners[0].bind_host == "0.0.0.0"


def listener(**changes: str) -> str:
    fields = {"name": "a", "protocol": "kafka", "bind": "127.0.0.1:1"} | changes
    return "brokers: [{id: 1, listeners: [{" + ", ".join(f"{key}: {value}" for key, value in fields.items()) + "}]}]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # broken YAML
        ("brokers: [{id: 1}\ntopics: []\n", "t.yaml, line 2, column 1: not valid YAML: did not find expected"),
        ("brokers:\n\t- id: 1\n", "t.yaml, line 2, column 1: not valid YAML: found character that cannot start"),
        ("cluster: a\ncluster: b\n", "t.yaml, line 2: cluster: the key is there twice; first in line 1"),
        ("cluster: !!python/object:os.system x\n", "t.yaml, line 1, column 10: not valid YAML: could not determine"),
        ("- a\n- b\n", "t.yaml, line 1: must be a mapping (key: value), not a list"),
        ("a: &a [*a]\n", "too deep or too large"),
        # unknown keys
        ("clustr: x\n", "t.yaml, line 1: clustr: unknown key; did you mean 'cluster'?"),
        ("brokers:\n  - id: 1\n    kafak: 9092\n",
         "t.yaml, line 3: brokers[0].kafak: unknown key; did you mean 'kafka'?"),
        ("zzz: 1\n", "t.yaml, line 1: zzz: unknown key; known here: cluster, data_dir, "),
        ("topics: [{name: a, partition: 3}]\n",
         "t.yaml, line 1: topics[0].partition: unknown key; did you mean 'partitions'?"),
        ("supervision: {backoff: {inital: 1s}}\n",
         "t.yaml, line 1: supervision.backoff.inital: unknown key; did you mean 'initial'?"),
        ("defaults:\n  num.partition: 3\n",
         "t.yaml, line 2: defaults.num.partition: unknown key; did you mean 'num.partitions'?"),
        ("defaults: {retention.m: 3}\n", "defaults.retention.m: unknown key; did you mean 'retention.ms'?"),
        ("defaults: {log.retention.ms: 3}\n", "defaults.log.retention.ms: is written as 'retention.ms' here"),
        ("topics: [{name: a, config: {retention.m: 3}}]\n", "topics[0].config.retention.m: unknown key; did you mean 'retention.ms'?"),
        # wrong types
        ("brokers: {id: 1}\n", "t.yaml, line 1: brokers: must be a list, not a mapping"),
        ("brokers: [1]\n", "t.yaml, line 1: brokers[0]: must be a mapping (key: value), not the number 1"),
        ("brokers: [{id: one}]\n", "brokers[0].id: must be a whole number, not the text 'one'"),
        ("brokers: [{id: true}]\n", "brokers[0].id: must be a whole number, not true"),
        ("brokers: [{id: 1, rack: 3}]\n", "brokers[0].rack: must be text, not the number 3; put it in quotes"),
        ("cluster: 2024-01-01\n", "cluster: must be text, not a date (2024-01-01); put it in quotes"),
        ("insecure: 1\n", "insecure: must be true or false, not the number 1"),
        ("supervision: {period: 60}\n",
         "supervision.period: must be a time with its unit, such as 500ms, 10s or 5m, not the number 60"),
        ("topics: [orders]\n", "topics[0]: must be a mapping (key: value), not the text 'orders'"),
        ("topics: [{name: a, config: {retention.ms: [1]}}]\n",
         "topics[0].config.retention.ms: must be a number, text, true or false, not a list"),
        # missing
        ("brokers: [{rack: a}]\n", "brokers[0]: 'id' is missing"),
        ("brokers: [{id: }]\n", "brokers[0].id: must not be empty"),
        ("brokers: []\n", "brokers: at least one broker is needed"),
        ("topics: [{partitions: 3}]\n", "topics[0]: 'name' is missing"),
        # impossible values
        ("cluster: 'a b'\n", "cluster: 'a b' must be letters, digits"),
        ("brokers: [{id: -1}]\n", "brokers[0].id: must be 0 to 2147483647, not -1"),
        ("brokers: [{id: 1}, {id: 1, kafka: 0, zmq: 0}]\n",
         "brokers[1].id: 1 is brokers[0]'s already; every broker needs its own"),
        ("brokers: [{id: 1}, {id: 2}]\n",
         "brokers[1]: broker 2's kafka listener has port 9092 on 127.0.0.1, which is broker 1's kafka listener's"),
        ("brokers: [{id: 1, kafka: 70000}]\n", "brokers[0].kafka: must be 0 to 65535, not 70000"),
        ("brokers: [{id: 1, kafka: 9092, zmq: 9092}]\n", "broker 1's zmq listener has port 9092"),
        ("brokers: [{id: 1, host: 'localhost:9092'}]\n", "brokers[0].host: must be a host without a port"),
        ("brokers: [{id: 1, kafka: 1, listeners: []}]\n", "brokers[0].listeners: at least one listener is needed"),
        ("topics: [{name: a, partitions: 0}]\n", "topics[0].partitions: must be 1 to 10000, not 0"),
        ("topics: [{name: 'a b'}]\n", "topics[0].name: Topic name is invalid: 'a b' contains one or more characters"),
        ("topics: [{name: ..}]\n", "topics[0].name: Topic name is invalid: '..' is not allowed"),
        (f"topics: [{{name: {'x' * 250}}}]\n", "topics[0].name: Topic name is invalid: the length of"),
        ("topics: [{name: __cluster}]\n", "topics[0].name: Creation of internal topic __cluster is prohibited"),
        ("topics: [{name: a.b}, {name: a_b}]\n", "topics[1].name: Topic 'a_b' collides with existing topic: a.b"),
        ("topics: [{name: a}, {name: a}]\n", "topics[1].name: Topic 'a' already exists"),
        ("topics: [{name: a, config: {retention.ms: soon}}]\n", "topics[0].config.retention.ms: must be a whole number, not 'soon'"),
        ("defaults: {fsync: sometimes}\n", "defaults.fsync: must be always or interval or os, not 'sometimes'"),
        ("defaults: {num.partitions: 0}\n", "defaults.num.partitions: must be 1 to 10000, not 0"),
        ("defaults: {auto.create.topics.enable: maybe}\n",
         "defaults.auto.create.topics.enable: must be true or false, not 'maybe'"),
        ("supervision: {intensity: -1}\n", "supervision.intensity: must be 0 to"),
        ("supervision: {strategy: one_for_al}\n",
         "supervision.strategy: must be one of one_for_one, one_for_all, rest_for_one, not 'one_for_al'; did you mean"),
        ("supervision: {backoff: {initial: 10s, max: 1s}}\n",
         "supervision.backoff: initial (10s) must not be longer than max (1s)"),
        ("supervision: {heartbeat: 5s, hung_after: 6s}\n", "supervision.hung_after: must be at least twice"),
        ("coordination: raft\n", "coordination: must be 'embedded' or 'zookeeper://host:port/path', not 'raft'"),
        # replicas
        ("topics: [{name: a, replication_factor: 3}]\n",
         "topics[0].replication_factor: 3 replicas need as many brokers, and there is 1"),
        ("defaults: {default.replication.factor: 2}\n",
         "defaults.default.replication.factor: 2 replicas need as many brokers, and there is 1"),
        ("brokers: [{id: 1}, {id: 2, kafka: 0, zmq: 0}]\ntopics: [{name: a, replication_factor: 2}]\n",
         "topics[0].replication_factor: replication is not supported yet; use 1"),
        ("defaults: {min.insync.replicas: 2}\n",
         "defaults.min.insync.replicas: 2 replicas can never be in sync"),
        # listeners
        ("brokers: [{id: 1, host: 192.168.0.7}]\n",
         "the kafka listener on 192.168.0.7 would be open to everybody on the network, without security; bind "),
        (listener(bind="'0.0.0.0:9092'", advertise="'h:9092'"), "brokers[0]: the a listener on 0.0.0.0 would be open"),
        ("insecure: true\nbrokers: [{id: 1, host: 0.0.0.0}]\n",
         "brokers[0].host: clients cannot connect to 0.0.0.0: write 'listeners' with 'bind' and 'advertise'"),
        (listener(bind="'0.0.0.0:9092'"), "brokers[0].listeners[0].bind: clients cannot connect to 0.0.0.0"),
        (listener(bind="localhost"), "brokers[0].listeners[0].bind: must be host:port"),
        (listener(bind="'::1:9092'"), "brokers[0].listeners[0].bind: must be host:port"),
        (listener(protocol="http"), "brokers[0].listeners[0].protocol: must be one of kafka, zmq, not 'http'"),
        (listener(advertise="'h:0'"), "brokers[0].listeners[0].advertise: port 0 means the port that was picked"),
        ("brokers: [{id: 1, host: h, listeners: [{name: a, protocol: kafka, bind: '127.0.0.1:1'}]}]\n",
         "brokers[0].host: is the short form of listeners: use one of the two"),
        # not built yet
        ("security: {tls: {}}\n", "security: not supported yet; leave it out"),
        ("dashboard: {port: 9280}\n", "dashboard: not supported yet; leave it out"),
        ("coordination: zookeeper://127.0.0.1:2181/zafka\n", "coordination: zookeeper is not supported yet"),
        ("supervision: {actors_per_process: 4}\n",
         "supervision.actors_per_process: more than 1 is not supported yet"),
        (listener(security="{tls: 1}"), "brokers[0].listeners[0].security: not supported yet; leave it out"),
        ("defaults: {transaction.max.timeout.ms: 0}\n",
         "defaults.transaction.max.timeout.ms: not supported yet; leave it out"),
        ("defaults: {log.cleaner.threads: 2}\n", "defaults.log.cleaner.threads: not supported yet; leave it out"),
        ("defaults: {log.cleaner.min.cleanable.ratio: 0.1}\n",
         "defaults.log.cleaner.min.cleanable.ratio: is written as 'min.cleanable.dirty.ratio' here"),
        ("defaults: {log.cleaner.io.max.bytes.per.second: 7}\n",
         "defaults.log.cleaner.io.max.bytes.per.second: must be a number, at least 1024, not '7'"),
        ("topics: [{name: a, config: {cleanup.policy: compress}}]\n",
         "topics[0].config.cleanup.policy: must be delete, compact, both or neither, not 'compress'"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    told = refusal(tmp_path, text)
    assert told.startswith("t.yaml")
    assert message in told
    assert "\n" not in told


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"absent\.yaml: no such file"):
        load_topology(tmp_path / "absent.yaml")
    with pytest.raises(TopologyError, match="cannot be read: Is a directory"):
        load_topology(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    for data in (b"a: \x00", b"\x80", b"\xff\xfe\xd8"):
        file.write_bytes(data)
        with pytest.raises(TopologyError, match="not valid YAML"):
            load_topology(file)
