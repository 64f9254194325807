"""kcat: what is its own: JSON, metadata, starts that count from the end. The rest of it is in the matrix."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.clients.conftest import MakeTopic

TIMEOUT_S = 40


def run(kcat: str, bootstrap: str, *arguments: str, data: str = "") -> str:
    done = subprocess.run(
        [kcat, "-b", bootstrap, "-q", "-m", "20", *arguments], check=False, input=data, capture_output=True,
        text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_headers_and_timestamps(kcat: str, bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic()
    run(kcat, bootstrap, "-P", "-t", topic, "-H", "trace=1", "-H", "empty=", data="with headers\n")
    told = json.loads(run(kcat, bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-J"))
    assert told["headers"] == ["trace", "1", "empty", ""]
    assert told["tstype"] == "create"
    by_time = run(kcat, bootstrap, "-Q", "-t", f"{topic}:0:{told['ts']}")
    assert by_time.split() == [topic, "[0]", "offset", "0"]


@pytest.mark.parametrize(("start", "expected"), [("-2", "3 4"), ("end", "")])
def test_starts_that_count_from_the_end(kcat: str, bootstrap: str, make_topic: MakeTopic, start: str, expected: str) -> None:
    topic = make_topic()
    run(kcat, bootstrap, "-P", "-t", topic, data="0\n1\n2\n3\n4\n")
    assert run(kcat, bootstrap, "-C", "-t", topic, "-o", start, "-e", "-f", "%o ").split() == expected.split()


def test_metadata_names_the_broker_and_the_topic(kcat: str, bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic(3)
    told = json.loads(run(kcat, bootstrap, "-L", "-J", "-t", topic))
    assert [broker["name"] for broker in told["brokers"]] == [bootstrap]
    (described,) = told["topics"]
    assert [partition["partition"] for partition in described["partitions"]] == [0, 1, 2]
    assert {partition["leader"] for partition in described["partitions"]} == {told["brokers"][0]["id"]}
