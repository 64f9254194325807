"""Decoders of what an operator, or another program, wrote: the topology, and the small files of a data directory."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from random import Random

import msgspec

from tests.fuzz.engine import Decoder, Parts
from zafka.runtime import control
from zafka.runtime.data_dir import DataDirectory
from zafka.runtime.errors import NotRunning, RuntimeFault
from zafka.runtime.topology import load_topology
from zafka.storage.config import check_topic_config, parse_config
from zafka.storage.errors import InvalidConfig


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="zafka-fuzz-")  # goes with the process


def _path(name: str) -> Path:
    return Path(_scratch().name) / name


TOPOLOGY_WORDS = [
    b"!!int ''", b"!!float ''", b"!!bool x", b"!!timestamp x", b"!!binary x", b"!!set", b"!!null x", b"&a ", b"*a", b"<<: ",
    b"~nobody/x", b'"\\0"', b"0x" + b"f" * 5000, b"1" + b":59" * 3000, b".inf", b".nan", b"[" * 50, b"{a: " * 50, b"- ",
    b"\n", b": ", b"? ", b"9" * 4500, b"127.0.0.1:9092", b"[::1]:1", b"2001-01-01", b"10s", b"9" * 400 + b"s", b"null",
]  # fmt: skip


def make_topology(rng: Random) -> Parts:
    """Each key with a value that it may have, in YAML's block or flow form."""
    plain = {
        "cluster": "demo", "data_dir": "data", "insecure": True, "coordination": "embedded", "dashboard": {}, "security": {},
        "brokers": [
            {"id": 1, "rack": "a", "host": "127.0.0.1", "kafka": 9092, "zmq": 0},
            {"id": 2, "listeners": [{"name": "in", "protocol": "kafka", "bind": "0.0.0.0:0", "advertise": "h:0"}]},
        ][: rng.randrange(1, 3)],
        "defaults": {"num.partitions": 3, "fsync": "always", "segment.bytes": 1 << 20, "auto.create.topics.enable": False},
        "topics": [{"name": "t", "partitions": 2, "replication_factor": 1, "config": {"retention.ms": "1000"}}],
        "supervision": {"strategy": "one_for_one", "intensity": 3, "period": "5s", "backoff": {"initial": "10ms", "max": "1s"}},
    }
    kept = {key: value for key, value in plain.items() if rng.random() < 0.6}
    text = json.dumps(kept, indent=rng.choice((None, 1)))
    if rng.random() < 0.5:
        text = "\n".join(f"{key}: {json.dumps(value)}" for key, value in kept.items())
    return [text.encode()]


def read_topology(parts: Parts) -> None:
    path = _path("topology.yaml")
    path.write_bytes(parts[0])
    settings = load_topology(path)
    # What was taken can be used: paths name something, numbers can be sent, texts can be written.
    os.fsencode(settings.data_dir)
    assert "\0" not in str(settings.data_dir)
    msgspec.json.encode([settings.brokers, settings.topics, settings.defaults])


def make_config(rng: Random) -> Parts:
    values = {"retention.ms": "-1", "segment.bytes": "1048576", "cleanup.policy": "delete", "min.cleanable.dirty.ratio": "0.5",
              "message.timestamp.type": "CreateTime", "compression.type": "producer", "flush.ms": "9", "fsync": "os"}
    return [part.encode() for pair in rng.sample(sorted(values.items()), rng.randrange(1, 4)) for part in pair]


def read_config(parts: Parts) -> None:
    """As CreateTopics has them: any texts."""
    texts = [part.decode("utf-8", "replace") for part in parts]
    config = dict(zip(texts[::2], texts[1::2], strict=False))
    check_topic_config(config)
    parse_config(config)


DATA_FILES = ("meta.properties", "incarnations", "DISK_FAULT", "broker-1/meta.properties")
CLUSTER_ID = "AAAAAAAAAAAAAAAAAAAAAA"


def make_data_directory(rng: Random) -> Parts:
    properties = f"#\nversion=1\ncluster.id={CLUSTER_ID}\nformat=1\n"
    return [
        properties.encode(), b"%d\n" % rng.choice((0, 5, 10**9)), b"" if rng.random() < 0.9 else b"the disk failed",
        (properties + "node.id=1\n").encode(),
    ]


def read_data_directory(parts: Parts) -> None:
    """A start gets incarnations that go on from a number that was there, or the operator is told why there is none."""
    path = _path("data")
    (path / "broker-1").mkdir(parents=True, exist_ok=True)
    for name, data in zip(DATA_FILES, [*parts, b"", b"", b"", b""], strict=False):
        (path / name).unlink(missing_ok=True)
        if data:
            (path / name).write_bytes(data)
    directory = DataDirectory(path, broker_ids=(1,), lock_wait_s=0.0)
    try:
        first = directory.next_incarnation()
        assert 0 < first < 2**62 and directory.next_incarnation() == first + 1
        assert directory.cluster_id
    finally:
        directory.close()


def make_run(rng: Random) -> Parts:
    run = {"pid": 2**22, "run_dir": "/x", "control": "ipc:///x/control", "cluster": "c"}  # a pid that no process has
    return [json.dumps(run).encode()]


def read_run_file(parts: Parts) -> None:
    """Whoever asks a supervisor that is not there is told so."""
    path = _path("run")
    path.mkdir(exist_ok=True)
    (path / "run.json").write_bytes(parts[0])
    try:
        control.ask(path, {"ask": "status"}, timeout_s=0.001)
    except NotRunning as error:
        if "is dead" not in str(error):
            raise  # what the file says was taken for what a supervisor writes


def decoders() -> Iterator[Decoder]:
    own = (RuntimeFault,)
    make: Callable[[Random], Parts] = partial(make_topology)
    yield Decoder(
        "topology", make, read_topology, own, TOPOLOGY_WORDS, seconds_max=10.0, memory_max=48 << 20, memory_per_byte=2000)
    yield Decoder(
        "topic configuration", make_config, read_config, (InvalidConfig,), words=[b"9" * 5000, b"1e999", b"nan", b"-", b"\xd9\xa1"])
    yield Decoder(
        "data directory", make_data_directory, read_data_directory, own,
        words=[b"=", b"\n", b"format", b"cluster.id=", b"-5", b"9" * 30, b"9" * 5000, b"\xff\xfe", b"\xd9\xa1", b"1_000"])
    yield Decoder(
        "run.json", make_run, read_run_file, own,
        words=[b'"pid"', b"null", b"[" * 3000, b"[]", b'"ipc://"', b"tcp://127.0.0.1:1", b"1e999", b"-1", b"9" * 30, b'{"pid":1}'])
