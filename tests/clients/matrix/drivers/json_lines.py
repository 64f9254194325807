"""Clients of other languages: one program each, which takes a call as a line of JSON and answers with one.

Owns: the processes, one for each language, started when first used. foreign/*: the programs; they hold open writers and
readers by number, and know nothing of cases. A program that ends is started again by the next call.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from tests.clients.matrix.driver import (
    AS_USUAL,
    BEGINNING,
    DEFAULTS,
    HEARTBEAT_MS,
    REFRESH_MS,
    TIMEOUT_S,
    Ability,
    Cluster,
    ConfigKind,
    Driver,
    Group,
    Joining,
    Reader,
    Received,
    Refused,
    Settings,
    Start,
    Writer,
)
from tests.clients.samples import Sample

ROOT = Path(__file__).resolve().parents[4]
FOREIGN = Path(__file__).resolve().parent.parent / "foreign"
PEERS = ROOT / ".peers"
KAFKA_LIB = Path(os.environ.get("ZAFKA_KAFKA_LIB", PEERS / "kafka" / "lib"))
FRANZ_GO = Path(os.environ.get("ZAFKA_FRANZ_GO", PEERS / "franz-go" / "driver"))
SARAMA = Path(os.environ.get("ZAFKA_SARAMA", PEERS / "sarama" / "driver"))
KAFKAJS = Path(os.environ.get("ZAFKA_KAFKAJS", PEERS / "kafkajs" / "node_modules"))
JAVA_FLAGS = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=off")

_numbers = itertools.count()


class Program:
    """The process of one language, or none yet."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self.command = command
        self.environment = environment
        self.process: subprocess.Popen[bytes] | None = None
        self.turn = threading.Lock()

    def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """Raises Refused if the program answers with an error."""
        if self.process is None:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env={**os.environ, **self.environment})
        assert self.process.stdin is not None and self.process.stdout is not None
        with self.turn:
            self.process.stdin.write(json.dumps({"op": op, **fields}).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        assert line, f"{self.command[0]} ended with exit code {self.process.wait()} in {op}"
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"]["code"], answer["error"]["text"])
        return answer

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def packed(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def unpacked(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


class JsonWriter(Writer):
    def __init__(self, program: Program, place: dict[str, Any], settings: Settings) -> None:
        self.program = program
        self.number = next(_numbers)
        self.is_open = True
        program.call("writer", id=self.number, settings=asdict(settings), **place)

    def send(self, records: Sequence[Sample]) -> None:
        self.program.call("send", id=self.number, records=[
            {"key": packed(record.key), "value": packed(record.value), "timestamp": record.timestamp_ms,
             "headers": [[name, packed(value)] for name, value in record.headers]}
            for record in records])

    def flush(self) -> list[int]:
        offsets: list[int] = self.program.call("flush", id=self.number)["offsets"]
        return offsets

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self.program.call("close", id=self.number)

    def abandon(self) -> None:
        self.is_open = False
        self.program.kill()


class JsonReader(Reader):
    def __init__(self, program: Program, opening: dict[str, Any]) -> None:
        self.program = program
        self.number = next(_numbers)
        self.is_open = True
        program.call(id=self.number, **opening)

    def read(self, count: int) -> list[Received]:
        told = self.program.call("read", id=self.number, count=count, timeout_ms=int(TIMEOUT_S * 1000))
        return [
            Received(
                one["partition"], one["offset"],
                Sample(unpacked(one["key"]), unpacked(one["value"]),
                       [(name, unpacked(value)) for name, value in one["headers"]], one["timestamp"]),
                one["timestamp_type"])
            for one in told["records"]]

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self.program.call("close", id=self.number)


class JsonMember(JsonReader):
    """is_apart: the program is its own, and ends with it."""

    def __init__(self, program: Program, place: dict[str, Any], joining: Joining, *, is_apart: bool = False) -> None:
        self.is_apart = is_apart
        super().__init__(program, {
            "op": "member", "joining": asdict(joining), "heartbeat_ms": HEARTBEAT_MS, "refresh_ms": REFRESH_MS, **place})

    def seek(self, topic: str, partition: int, offset: int) -> None:
        self.program.call("seek", id=self.number, topic=topic, partition=partition, offset=offset)

    def commit(self) -> None:
        self.program.call("commit", id=self.number)

    def crash(self) -> None:
        assert self.is_apart
        self.is_open = False
        self.program.kill()

    def close(self) -> None:
        super().close()
        if self.is_apart:
            self.program.kill()


class JsonLines(Driver):
    """A client in another language. Its program is shared by all instances, which may be of different brokers."""

    program: ClassVar[Program]

    def place(self, topic: str, **more: Any) -> dict[str, Any]:
        return {"bootstrap": self.bootstrap, "client_id": self.client_id, "topic": topic, **more}

    def version(self) -> str:
        return str(self.program.call("version")["version"])

    def writer(self, topic: str, settings: Settings = DEFAULTS, *, partition: int | None = 0) -> Writer:
        return JsonWriter(self.program, self.place(topic, partition=partition), settings)

    def reader(
        self, topic: str, start: Start = BEGINNING, settings: Settings = DEFAULTS, *, partitions: Sequence[int] = (0,)
    ) -> Reader:
        return JsonReader(self.program, {
            "op": "reader", "settings": asdict(settings),
            **self.place(topic, partitions=list(partitions), start=start.kind, at=start.at)})

    def member(self, topic: str, group: str, joining: Joining = AS_USUAL) -> Reader:
        return JsonMember(self.program, self.place(topic, group=group), joining)

    def member_apart(self, topic: str, group: str, joining: Joining = AS_USUAL) -> Reader:
        program = Program(self.program.command, self.program.environment)
        return JsonMember(program, self.place(topic, group=group), joining, is_apart=True)

    def bounds(self, topic: str) -> tuple[int, int]:
        first, end = self.program.call("bounds", **self.place(topic))["offsets"]
        return first, end

    def offset_at(self, topic: str, timestamp_ms: int) -> int | None:
        told = self.program.call("offset_at", **self.place(topic, at=timestamp_ms))["offset"]
        return None if told is None else int(told)

    def partitions(self, topic: str) -> int:
        return int(self.program.call("partitions", **self.place(topic))["count"])

    def create_topic(self, topic: str, partitions: int) -> None:
        self.program.call("create", **self.place(topic, count=partitions))

    def delete_topic(self, topic: str) -> None:
        self.program.call("delete", **self.place(topic))

    def topics(self) -> set[str]:
        return set(self.administer("topics")["topics"])

    def administer(self, op: str, topic: str = "", **fields: Any) -> dict[str, Any]:
        return self.program.call(op, **self.place(topic, **fields))

    def add_partitions(self, topic: str, total: int) -> None:
        self.administer("add_partitions", topic, count=total)

    def delete_records(self, topic: str, before: int) -> None:
        self.administer("delete_records", topic, at=before)

    def cluster(self) -> Cluster:
        told = self.administer("cluster")
        return Cluster(told["id"], set(told["brokers"]), told["controller"])

    def config(self, kind: ConfigKind, name: str) -> Mapping[str, str | None]:
        values: dict[str, str | None] = self.administer("config", kind=kind, name=name)["values"]
        return values

    def alter_config(self, kind: ConfigKind, name: str, values: Mapping[str, str | None]) -> None:
        self.administer("alter_config", kind=kind, name=name, values=values)

    def groups(self) -> set[str]:
        return set(self.administer("groups")["groups"])

    def group(self, group: str) -> Group:
        told = self.administer("group", group=group)
        return Group(told["state"].lower().replace(" ", ""), told["members"])

    def group_offsets(self, topic: str, group: str) -> dict[int, int]:
        return dict(self.administer("group_offsets", topic, group=group)["offsets"])

    def set_group_offsets(self, topic: str, group: str, offsets: Mapping[int, int]) -> None:
        self.administer("set_group_offsets", topic, group=group, offsets=list(offsets.items()))

    def delete_group_offsets(self, topic: str, group: str, partition: int) -> None:
        self.administer("delete_group_offsets", topic, group=group, partition=partition)

    def delete_group(self, group: str) -> None:
        self.administer("delete_group", group=group)

    def close(self) -> None:
        self.program.kill()


class Java(JsonLines):
    name = "Java"
    program = Program(["java", *JAVA_FLAGS, "-cp", f"{KAFKA_LIB}/*", str(FOREIGN / "java" / "Driver.java")], {})

    @classmethod
    def missing(cls) -> str | None:
        if shutil.which("javac") is None:
            return "no JDK is installed"
        return None if any(KAFKA_LIB.glob("kafka-clients-*.jar")) else "Apache Kafka's jars are not installed"


class FranzGo(JsonLines):
    name = "franz-go"
    toolchain = "go"
    cannot: ClassVar[Mapping[Ability, str]] = {
        Ability.NO_RESET: "begins at the beginning where nothing is committed, whatever it is told",
        Ability.DELETED: "goes on where it was in the topic that is gone, with Apache Kafka too",
    }
    program = Program([str(FRANZ_GO)], {})

    @classmethod
    def missing(cls) -> str | None:
        return None if FRANZ_GO.exists() else "franz-go is not built"


class Sarama(JsonLines):
    name = "sarama"
    toolchain = "go"
    cannot: ClassVar[Mapping[Ability, str]] = {
        Ability.KIP_848: "does not know it",
        Ability.TIME_TYPE: "does not tell it",
        Ability.RESET: "tells of it, and leaves the rest to its user",
        Ability.NO_RESET: "has none: from the beginning, or from the end",
        Ability.COMMIT_LESS: "what it marks as read only goes forwards",
        Ability.LATER: "ends with an error, and leaves the rest to its user",
        Ability.PATTERN: "has none",
        Ability.PATIENCE: "gives up after three tries unless told otherwise",
    }
    program = Program([str(SARAMA)], {})

    @classmethod
    def missing(cls) -> str | None:
        return None if SARAMA.exists() else "sarama is not built"


class KafkaJs(JsonLines):
    name = "kafkajs"
    toolchain = "npm"
    cannot: ClassVar[Mapping[Ability, str]] = {
        Ability.READ: "reads in groups only, from where the group has committed",
        Ability.STATIC: "does not know it",
        Ability.KIP_848: "does not know it",
        Ability.COOPERATIVE: "has none",
        Ability.DELETE_OFFSETS: "has no call for it",
        Ability.NO_RESET: "has none: from the beginning, or from the end",
        Ability.LATER: "has it created by asking for it",
        Ability.PATTERN: "looks for what matches once, when it subscribes",
        Ability.LZ4: "in a plugin only, which is not maintained",
        Ability.ZSTD: "in a plugin only, which is not maintained",
        Ability.UNKNOWN_PARTITION: "drops such a record without a word",
        Ability.LIMITS: "has none: the broker's limit is its own",
    }
    shares_with_itself_only = True
    program = Program(["node", str(FOREIGN / "js" / "driver.js")], {"NODE_PATH": str(KAFKAJS)})

    @classmethod
    def missing(cls) -> str | None:
        if shutil.which("node") is None:
            return "node is not installed"
        return None if (KAFKAJS / "kafkajs").exists() else "kafkajs is not installed"

    def expresses(self, sample: Sample) -> bool:
        """It has headers in a map: no order between names, and none that is null."""
        names = [name for name, _ in sample.headers]
        return len(names) == len(set(names)) and all(value is not None for _, value in sample.headers)
