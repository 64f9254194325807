"""Apache Kafka's command-line tools, but for the processes: one JVM runs them all, one after another (foreign/java/Driver.java).

Owns: what the tools that administer print, read back; TopicCommand, ConfigCommand, ConsumerGroupCommand and others.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from tests.clients.matrix.driver import Cluster, ConfigKind, Driver, Group, Refused
from tests.clients.matrix.drivers.json_lines import Java

TOPICS = "org.apache.kafka.tools.TopicCommand"
CONFIGS = "kafka.admin.ConfigCommand"
GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
OFFSETS = "org.apache.kafka.tools.GetOffsetShell"
RECORDS = "org.apache.kafka.tools.DeleteRecordsCommand"
CLUSTER = "org.apache.kafka.tools.ClusterTool"
CODES = {"already exists": 36}
FAILURE = re.compile(r"^\s*(Error|error)\b|\berror: ", re.MULTILINE)  # of tools that tell it, and end as if they had not


def run_tool(tool: str, *arguments: str) -> str:
    """What it prints. Raises Refused with that if its exit code is not 0."""
    told = Java.program.call("tool", tool=tool, arguments=arguments)
    printed: str = told["printed"]
    if told["code"] != 0:
        raise Refused(next((code for name, code in CODES.items() if name in printed), None), printed)
    return printed


class JavaTools(Driver):
    @cached_property
    def folder(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory()

    def file(self, name: str, content: str) -> str:
        path = Path(self.folder.name) / name
        path.write_text(content)
        return str(path)

    def close(self) -> None:
        self.folder.cleanup()
        Java.program.kill()

    def tool(self, tool: str, *arguments: str) -> str:
        own = self.file("client.properties", f"client.id={self.client_id}\n")
        return run_tool(tool, "--bootstrap-server", self.bootstrap, "--command-config", own, *arguments)

    def bounds(self, topic: str) -> tuple[int, int]:
        first, end = (self.tool(OFFSETS, "--topic-partitions", f"{topic}:0", "--time", time) for time in ("-2", "-1"))
        return int(first.split(":")[2]), int(end.split(":")[2])

    def offset_at(self, topic: str, timestamp_ms: int) -> int | None:
        told = self.tool(OFFSETS, "--topic-partitions", f"{topic}:0", "--time", str(timestamp_ms)).strip()
        return int(told.split(":")[2]) if told else None

    def partitions(self, topic: str) -> int:
        return self.tool(TOPICS, "--describe", "--topic", topic).count("\tPartition: ")

    def create_topic(self, topic: str, partitions: int) -> None:
        self.tool(TOPICS, "--create", "--topic", topic, "--partitions", str(partitions), "--replication-factor", "1")

    def delete_topic(self, topic: str) -> None:
        self.tool(TOPICS, "--delete", "--topic", topic)

    def topics(self) -> set[str]:
        return set(self.tool(TOPICS, "--list").split())

    def add_partitions(self, topic: str, total: int) -> None:
        self.tool(TOPICS, "--alter", "--topic", topic, "--partitions", str(total))

    def delete_records(self, topic: str, before: int) -> None:
        wanted = {"version": 1, "partitions": [{"topic": topic, "partition": 0, "offset": before}]}
        told = self.tool(RECORDS, "--offset-json-file", self.file("records.json", json.dumps(wanted)))
        if FAILURE.search(told):
            raise Refused(None, told)

    def cluster(self) -> Cluster:
        named = run_tool(CLUSTER, "cluster-id", "--bootstrap-server", self.bootstrap)
        listed = run_tool(CLUSTER, "list-endpoints", "--bootstrap-server", self.bootstrap)
        return Cluster(named.split()[-1], {int(line.split()[0]) for line in listed.splitlines()[1:]}, None)

    def config(self, kind: ConfigKind, name: str) -> Mapping[str, str | None]:
        told = self.tool(CONFIGS, "--describe", "--all", "--entity-type", f"{kind}s", "--entity-name", name)
        return dict(re.findall(r"^\s+(\S+?)=(.*?) sensitive=", told, re.MULTILINE))

    def alter_config(self, kind: ConfigKind, name: str, values: Mapping[str, str | None]) -> None:
        wanted = [part for key, value in values.items() for part in (
            ("--delete-config", key) if value is None else ("--add-config", f"{key}={value}"))]
        self.tool(CONFIGS, "--alter", "--entity-type", f"{kind}s", "--entity-name", name, *wanted)

    def groups(self) -> set[str]:
        return set(self.tool(GROUPS, "--list").split())

    def of_group(self, group: str, *arguments: str) -> str:
        told = self.tool(GROUPS, "--group", group, *arguments)
        if FAILURE.search(told):
            raise Refused(None, told)
        return told

    def group(self, group: str) -> Group:
        *_, state, members = self.of_group(group, "--describe", "--state").split()
        return Group(state.lower(), int(members))

    def group_offsets(self, topic: str, group: str) -> dict[int, int]:
        rows = [line.split() for line in self.of_group(group, "--describe", "--offsets").splitlines()]
        return {int(row[2]): int(row[3]) for row in rows if row[1:2] == [topic] and row[3] != "-"}

    def set_group_offsets(self, topic: str, group: str, offsets: Mapping[int, int]) -> None:
        for partition, offset in offsets.items():
            self.of_group(group, "--reset-offsets", "--topic", f"{topic}:{partition}", "--to-offset", str(offset), "--execute")

    def delete_group_offsets(self, topic: str, group: str, partition: int) -> None:
        self.of_group(group, "--delete-offsets", "--topic", f"{topic}:{partition}")

    def delete_group(self, group: str) -> None:
        self.of_group(group, "--delete")
