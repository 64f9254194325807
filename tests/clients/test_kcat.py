"""kcat: lines in, lines out, with every codec, headers, metadata and every kind of start."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.clients.conftest import MakeTopic
from tests.clients.samples import CODECS

TIMEOUT_S = 40


def run(kcat: str, bootstrap: str, *arguments: str, data: str = "") -> str:
    done = subprocess.run(
        [kcat, "-b", bootstrap, "-q", "-m", "20", *arguments], check=False, input=data, capture_output=True,
        text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("idempotent", ["false", "true"])
@pytest.mark.parametrize("codec", CODECS)
def test_lines_come_back_as_they_were_sent(
    kcat: str, bootstrap: str, make_topic: MakeTopic, codec: str, idempotent: str
) -> None:
    topic = make_topic()
    lines = [f"k{number}:value {number} {'ä' * number}" for number in range(200)]
    run(kcat, bootstrap, "-P", "-t", topic, "-p", "0", "-K", ":", "-z", codec,
        "-X", f"enable.idempotence={idempotent}", data="\n".join(lines) + "\n")
    found = run(kcat, bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-f", "%o %k:%s\n")
    assert found.splitlines() == [f"{offset} {line}" for offset, line in enumerate(lines)]


def test_headers_and_timestamps(kcat: str, bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic()
    run(kcat, bootstrap, "-P", "-t", topic, "-H", "trace=1", "-H", "empty=", data="with headers\n")
    told = json.loads(run(kcat, bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-J"))
    assert told["headers"] == ["trace", "1", "empty", ""]
    assert told["tstype"] == "create"
    by_time = run(kcat, bootstrap, "-Q", "-t", f"{topic}:0:{told['ts']}")
    assert by_time.split() == [topic, "[0]", "offset", "0"]


@pytest.mark.parametrize(("start", "expected"), [("beginning", "0 1 2 3 4"), ("3", "3 4"), ("-2", "3 4"), ("end", "")])
def test_every_kind_of_start(kcat: str, bootstrap: str, make_topic: MakeTopic, start: str, expected: str) -> None:
    topic = make_topic()
    run(kcat, bootstrap, "-P", "-t", topic, data="0\n1\n2\n3\n4\n")
    assert run(kcat, bootstrap, "-C", "-t", topic, "-o", start, "-e", "-f", "%o ").split() == expected.split()


def test_from_a_timestamp(kcat: str, bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic()
    for line in "abc":
        run(kcat, bootstrap, "-P", "-t", topic, data=line + "\n")
    stamps = run(kcat, bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-f", "%T\n").split()
    found = run(kcat, bootstrap, "-C", "-t", topic, "-o", f"s@{stamps[1]}", "-e", "-f", "%s")
    assert found == "bc"


def test_metadata_names_the_broker_and_the_topic(kcat: str, bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic(3)
    told = json.loads(run(kcat, bootstrap, "-L", "-J", "-t", topic))
    assert [broker["name"] for broker in told["brokers"]] == [bootstrap]
    (described,) = told["topics"]
    assert [partition["partition"] for partition in described["partitions"]] == [0, 1, 2]
    assert {partition["leader"] for partition in described["partitions"]} == {told["brokers"][0]["id"]}
