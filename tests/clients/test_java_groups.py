"""Apache Kafka's own tools for groups: ConsumerGroupCommand, and VerifiableConsumer, by which Kafka tests itself."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import JavaTool
from tests.clients.matrix.cases import Bench
from tests.clients.matrix.driver import Joining, Protocol, Refused
from tests.clients.matrix.drivers.java_tools import GROUPS
from tests.clients.samples import FIRST_TIMESTAMP_MS, STEP_MS, Sample, numbered

VERIFIABLE = "org.apache.kafka.tools.VerifiableConsumer"
TIMEOUT_S = 60.0
BOTH = pytest.mark.parametrize("protocol", ["classic", "consumer"])


class GroupCommand:
    """ConsumerGroupCommand for one group, and its rows by the words of their head."""

    def __init__(self, java_tool: JavaTool, bench: Bench, group: str) -> None:
        self.java_tool = java_tool
        self.bench = bench
        self.group = group

    def lists(self, *arguments: str) -> str:
        return self.java_tool(GROUPS, "--bootstrap-server", self.bench.reference.bootstrap, "--list", *arguments)

    def says(self, *arguments: str) -> str:
        return self.java_tool(
            GROUPS, "--bootstrap-server", self.bench.reference.bootstrap, "--group", self.group, *arguments)

    def refuses(self, *arguments: str) -> str:
        """What is said of what cannot be done, with whatever exit code."""
        try:
            return self.says(*arguments)
        except Refused as refused:
            return str(refused)

    def rows(self, *arguments: str) -> list[dict[str, str]]:
        lines = [line.split() for line in self.says(*arguments).splitlines() if line.strip()]
        head = next(number for number, line in enumerate(lines) if line[0] == "GROUP")
        return [dict(zip(lines[head], line, strict=False)) for line in lines[head + 1:]]

    def resets(self, *arguments: str) -> dict[int, int]:
        """The new offset of each partition, as it is told."""
        return {int(row["PARTITION"]): int(row["NEW-OFFSET"]) for row in self.rows("--reset-offsets", *arguments)}


@pytest.fixture
def group(java_tool: JavaTool, bench: Bench) -> Iterator[GroupCommand]:
    yield GroupCommand(java_tool, bench, bench.fresh_name())
    bench.tidy()


@BOTH
def test_a_group_with_a_member_is_described_from_each_side(group: GroupCommand, bench: Bench, protocol: Protocol) -> None:
    topic = bench.topic(2)
    bench.write(topic, numbered(0, 5))
    with closing(bench.reference.member(topic, group.group, Joining(protocol))) as member:
        member.read(3)
        bench.wait(lambda: bench.reference.shares(group.group) == [2], "nobody ever had it all")
        (state,) = group.rows("--describe", "--state")
        assert state["STATE"] == "Stable" and state["#MEMBERS"] == "1"
        (told,) = group.rows("--describe", "--members", "--verbose")
        assert told["CLIENT-ID"] == bench.reference.client_id and told["#PARTITIONS"] == "2"
        offsets = group.rows("--describe", "--offsets")
        assert {row["PARTITION"] for row in offsets} == {"0", "1"}
        assert {row["CLIENT-ID"] for row in offsets} == {bench.reference.client_id}
        assert group.group in group.lists("--state", "stable")
        kind = group.lists("--type", protocol)
        assert re.search(rf"^{group.group}\s", kind, re.MULTILINE), kind
        assert "Error" in group.refuses("--reset-offsets", "--to-earliest", "--topic", topic, "--execute")
        assert "GroupNotEmpty" in group.refuses("--delete")


def test_offsets_are_reset_to_whatever_can_be_said_once_it_is_executed(
    group: GroupCommand, bench: Bench, tmp_path: Path
) -> None:
    topic = bench.topic(2)
    bench.write(topic, [Sample(b"k", b"v", [], FIRST_TIMESTAMP_MS + number * STEP_MS) for number in range(10)])
    bench.reference.set_group_offsets(topic, group.group, {0: 4, 1: 0})
    assert group.resets("--to-latest", "--topic", topic, "--dry-run") == {0: 10, 1: 0}
    assert bench.reference.committed(topic, group.group) == {0: 4, 1: 0}
    for arguments, offset in (
        (("--to-latest",), 10), (("--shift-by", "-3"), 7), (("--to-current",), 7), (("--to-offset", "2"), 2),
        (("--to-datetime", "2023-11-14T22:13:25.000"), 5),  # of the sixth record
        (("--by-duration", "P1D"), 10), (("--to-earliest",), 0),
    ):
        assert group.resets(*arguments, "--topic", f"{topic}:0", "--execute") == {0: offset}
        assert bench.reference.committed(topic, group.group) == {0: offset, 1: 0}
    plan = tmp_path / "plan.csv"
    plan.write_text(f"{topic},0,6\n")
    assert group.resets("--from-file", str(plan), "--execute") == {0: 6}
    exported = group.says("--reset-offsets", "--to-current", "--all-topics", "--export", "--dry-run").splitlines()
    assert {f"{topic},0,6", f"{topic},1,0"} <= {line.replace('"', "") for line in exported}
    (row, *_) = [row for row in group.rows("--describe", "--offsets") if row["PARTITION"] == "0"]
    assert (row["CURRENT-OFFSET"], row["LOG-END-OFFSET"], row["LAG"]) == ("6", "10", "4")


def test_offsets_and_groups_are_deleted(group: GroupCommand, bench: Bench) -> None:
    topic = bench.topic(2)
    bench.reference.set_group_offsets(topic, group.group, {0: 0, 1: 0})
    assert "Successful" in group.says("--delete-offsets", "--topic", f"{topic}:1")
    assert bench.reference.committed(topic, group.group) == {0: 0}
    assert "successful" in group.says("--delete")
    assert group.group not in group.lists().split()
    assert "GroupIdNotFoundException" in group.refuses("--delete")


@BOTH
def test_verifiable_consumer_skips_nothing_and_reads_nothing_twice_whoever_is_killed(
    java_tools: list[str], bench: Bench, protocol: str
) -> None:
    if bench.broker is None:
        pytest.skip("processes are killed in a broker of ours only")
    topic, group, part = bench.topic(2), bench.fresh_name(), 200
    write_each(bench, topic, 0, part)
    events: list[dict[str, Any]] = []
    with subprocess.Popen(
        [*java_tools, VERIFIABLE, "--bootstrap-server", bench.reference.bootstrap, "--topic", topic, "--group-id", group,
         "--group-protocol", protocol, "--reset-policy", "earliest", "--max-messages", str(6 * part)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as tool:
        try:
            assert tool.stdout is not None
            victims = [[f"partition __consumer_offsets-{number}" for number in range(4)], ["broker 1"]]
            for line in tool.stdout:
                events.append(json.loads(line))
                done = consumed(events) // 2  # of each partition
                if victims and events[-1]["name"] == "offsets_committed" and done == part * (3 - len(victims)):
                    for victim in victims.pop(0):
                        bench.kill(victim)
                    write_each(bench, topic, done, part)
            assert tool.wait(TIMEOUT_S) == 0
        finally:
            tool.kill()
    assert not victims
    ranges: dict[int, int] = {0: 0, 1: 0}
    for event in events:
        for each in event.get("partitions", []) if event["name"] == "records_consumed" else []:
            assert each["minOffset"] == ranges[each["partition"]], "skipped, or read twice"
            ranges[each["partition"]] = each["maxOffset"] + 1
    assert ranges == {0: 3 * part, 1: 3 * part} == bench.reference.committed(topic, group)
    assert {"startup_complete", "shutdown_complete"} <= {event["name"] for event in events}


def write_each(bench: Bench, topic: str, first: int, count: int) -> None:
    for partition in (0, 1):
        writer = bench.reference.writer(topic, partition=partition)
        writer.send(numbered(first, count))
        writer.flush()


def consumed(events: list[dict[str, Any]]) -> int:
    return sum(int(event["count"]) for event in events if event["name"] == "records_consumed")
