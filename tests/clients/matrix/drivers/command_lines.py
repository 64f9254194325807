"""kcat, and the console tools of Apache Kafka: a process for each writer and each reader, lines in and lines out.

They are made for text, so a record with a tab, a newline or no UTF-8 in it is not theirs to express.
"""

from __future__ import annotations

import contextlib
import json
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import IO, ClassVar

from tests.clients.matrix.driver import (
    AS_USUAL,
    BEGINNING,
    CREATE_TIME,
    DEFAULTS,
    HEARTBEAT_MS,
    LOG_APPEND_TIME,
    TIMEOUT_S,
    Ability,
    Driver,
    Joining,
    Reader,
    Received,
    Refused,
    Settings,
    Start,
    Writer,
)
from tests.clients.matrix.drivers.group_log import DEBUG, kept
from tests.clients.matrix.drivers.java_tools import JavaTools
from tests.clients.matrix.drivers.json_lines import JAVA_FLAGS, KAFKA_LIB, Java
from tests.clients.samples import Sample

MARK = "\x1eend of record\x1e"  # what kcat is told to print behind each one
POLL_S = 0.2
ADMINISTRATION = (
    Ability.ADMIN, Ability.ADD_PARTITIONS, Ability.DELETE_RECORDS, Ability.CLUSTER, Ability.CONFIG, Ability.GROUPS,
    Ability.GROUP_OFFSETS, Ability.SET_OFFSETS, Ability.DELETE_OFFSETS, Ability.DELETE_GROUPS)
COOPERATIVE = "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"


def is_text(data: bytes | None) -> bool:
    if data is None:
        return True
    try:
        return data.decode().isprintable()
    except UnicodeDecodeError:
        return False


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a process that gets no more input. Raises Refused with what it says if it failed."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.stdin = None
    _, told = process.communicate(timeout=2 * TIMEOUT_S)
    if process.returncode != 0:
        raise Refused(None, told.decode(errors="replace").strip())


class LineWriter(Writer):
    """A process that takes lines; for kcat, headers and nulls are options, so what differs in them needs another one."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
        self.process: subprocess.Popen[bytes] | None = None
        self.options: list[str] | None = None

    def write(self, options: list[str], lines: Sequence[bytes]) -> None:
        if self.process is None or options != self.options:
            self.flush()
            self.options = options
            self.process = subprocess.Popen(
                [*self.command, *options], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert self.process.stdin is not None
        self.process.stdin.write(b"".join(line + b"\n" for line in lines))
        self.process.stdin.flush()

    def flush(self) -> None:
        if self.process is not None:
            process, self.process = self.process, None
            finish(process)

    def close(self) -> None:
        if self.process is not None:
            self.flush()

    def abandon(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()
        self.process = None


class KcatWriter(LineWriter):
    def send(self, records: Sequence[Sample]) -> None:
        for options, group in groupby(records, self.options_of):
            self.write(options, [(record.key or b"") + b"\t" + (record.value or b"") for record in group])

    @staticmethod
    def options_of(record: Sample) -> list[str]:
        headers = [
            option for name, value in record.headers
            for option in ("-H", name if value is None else f"{name}={value.decode()}")]
        return [*headers, *(["-Z"] if record.key is None or record.value is None else [])]


class ConsoleWriter(LineWriter):
    def send(self, records: Sequence[Sample]) -> None:
        self.write([], [
            b"\t".join([
                b",".join(name.encode() + b":" + (value or b"") for name, value in record.headers) or b"\\N",
                b"\\N" if record.key is None else record.key, b"\\N" if record.value is None else record.value])
            for record in records])


class StreamReader(Reader):
    """A process that prints records, each with an end that can be found, for as long as it is read."""

    def __init__(self, command: Sequence[str], end: bytes, *, stderr: IO[bytes] | int = subprocess.PIPE) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)
        self.end = end
        self.rest = b""

    def parse(self, told: bytes) -> Received:
        raise NotImplementedError

    def read(self, count: int) -> list[Received]:
        assert self.process.stdout is not None
        found: list[Received] = []
        deadline_s = time.monotonic() + TIMEOUT_S
        while len(found) < count and time.monotonic() < deadline_s:
            told, end, rest = self.rest.partition(self.end)
            if end:
                self.rest = rest
                found.append(self.parse(told))
                continue
            if select.select([self.process.stdout], [], [], POLL_S)[0]:
                self.take(self.process.stdout)
        return found

    def take(self, stdout: IO[bytes]) -> None:
        more = stdout.read1(1 << 20)  # type: ignore[attr-defined]
        if not more:
            raise Refused(None, self.why_it_ended())
        self.rest += more

    def why_it_ended(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode(errors="replace")

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


class KcatReader(StreamReader):
    def parse(self, told: bytes) -> Received:
        numbers, _, rest = told.partition(b"\n")
        partition, offset, timestamp_ms, key_length, value_length = (int(number) for number in numbers.split())
        key = rest[:max(key_length, 0)]
        value = rest[len(key):len(key) + max(value_length, 0)]
        headers: list[tuple[str, bytes | None]] = []
        if listed := rest[len(key) + len(value):]:
            for one in listed.split(b","):
                name, _, content = one.partition(b"=")
                headers.append((name.decode(errors="replace"), content))
        sample = Sample(
            None if key_length < 0 else key, None if value_length < 0 else value, headers, timestamp_ms)
        return Received(partition, offset, sample, None)


class ConsoleReader(StreamReader):
    def parse(self, told: bytes) -> Received:
        stamp, partition, offset, headers, key, value = told.split(b"\t")
        kind, timestamp_ms = stamp.split(b":")
        named = [one.split(b":") for one in headers.split(b",")] if headers != b"NO_HEADERS" else []
        sample = Sample(
            None if key == b"\\N" else key, None if value == b"\\N" else value,
            [(name.decode(), content) for name, content in named], int(timestamp_ms))
        return Received(
            int(partition.split(b":")[1]), int(offset.split(b":")[1]), sample,
            LOG_APPEND_TIME if kind == b"LogAppendTime" else CREATE_TIME)


class Ended(StreamReader):
    """A member of a group is told to end, so that it commits and leaves."""

    def crash(self) -> None:
        super().close()

    def close(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=TIMEOUT_S)


class KcatMember(Ended, KcatReader):
    """It tells what its library logs, too (`group_log.py`), which it does not with -q."""

    def __init__(self, command: Sequence[str], end: bytes) -> None:
        self.told: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `close`)
        super().__init__([*(part for part in command if part != "-q"), "-X", f"debug={DEBUG}"], end, stderr=self.told)

    def why_it_ended(self) -> str:
        self.told.seek(0)
        return self.told.read().decode(errors="replace")

    def crash(self) -> None:
        super().crash()
        self._tell()

    def close(self) -> None:
        super().close()
        self._tell()

    def _tell(self) -> None:
        if not self.told.closed:
            print(*kept(self.why_it_ended().splitlines()), sep="\n")
            self.told.close()


class ConsoleMember(Ended, ConsoleReader):
    pass


class Kcat(Driver):
    name = "kcat"
    cannot: ClassVar[Mapping[Ability, str]] = {
        Ability.TIMESTAMPS: "takes none",
        Ability.TIME_TYPE: "tells it in JSON only",
        **dict.fromkeys(ADMINISTRATION, "does not do it"),
        Ability.ERRORS: "tells librdkafka's texts only",
        Ability.BYTES: "made for text",
        Ability.CREATE_ON_READ: "reading creates nothing",
        Ability.KIP_848: "with a librdkafka older than that",
        Ability.STATIC: "in the library: see confluent-kafka",
        Ability.COMMIT: "commits by itself, whatever it is told",
        Ability.COOPERATIVE: "commits by itself, so that nobody could tell what it keeps",
        Ability.NO_RESET: "in the library: see confluent-kafka",
        Ability.FOLLOW: "in the library: see confluent-kafka",
        Ability.LATER: "in the library: see confluent-kafka",
        Ability.PATTERN: "in the library: see confluent-kafka",
    }

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("kcat") else "kcat is not installed"

    def version(self) -> str:
        told = subprocess.run(["kcat", "-V"], capture_output=True, text=True, check=True).stdout
        return told.split("Version ")[1].split(" (")[0]

    def expresses(self, sample: Sample) -> bool:
        """One option makes what is empty null, for keys and values alike; of headers it cannot print null."""
        headers = all(value is not None and is_text(value) for _, value in sample.headers)
        both = (sample.key is None or sample.value is None) and b"" in (sample.key, sample.value)
        return headers and not both and is_text(sample.key) and is_text(sample.value)

    def command(self, *arguments: str, **properties: object) -> list[str]:
        given = [
            option for name, value in properties.items() if value is not None
            for option in ("-X", f"{name.replace('_', '.')}={str(value).lower()}")]
        return ["kcat", "-b", self.bootstrap, "-q", "-E", "-m", "60", "-X", f"client.id={self.client_id}", *arguments, *given]

    def writer(self, topic: str, settings: Settings = DEFAULTS, *, partition: int | None = 0) -> Writer:
        where = [] if partition is None else ["-p", str(partition)]
        return KcatWriter(self.command(
            "-P", "-t", topic, "-K", "\t", *where, compression_codec=settings.codec, acks=settings.acks,
            enable_idempotence=settings.idempotent, linger_ms=settings.linger_ms,
            message_max_bytes=settings.record_bytes_max, topic_metadata_propagation_max_ms=settings.give_up_ms))

    def reader(
        self, topic: str, start: Start = BEGINNING, settings: Settings = DEFAULTS, *, partitions: Sequence[int] = (0,)
    ) -> Reader:
        at = {"beginning": "beginning", "offset": str(start.at), "time": f"s@{start.at}"}.get(start.kind)
        if at is None:  # looked up now: it would do it some time later
            at = str(self.bounds(topic)[1])
        where = ["-p", str(partitions[0])] if len(partitions) == 1 else []
        size = settings.record_bytes_max
        return KcatReader(self.command(
            "-C", "-t", topic, *where, "-o", at, "-u", "-f", f"%p %o %T %K %S\n%k%s%h{MARK}",
            auto_offset_reset=settings.reset, fetch_wait_max_ms=settings.wait_ms,
            socket_timeout_ms=settings.wait_ms and settings.wait_ms + 10_000, fetch_max_bytes=size,
            max_partition_fetch_bytes=size, receive_message_max_bytes=size and 2 * size,
            isolation_level="read_committed" if settings.committed else None), MARK.encode())

    def member(self, topic: str, group: str, joining: Joining = AS_USUAL) -> Reader:
        return KcatMember(self.command(
            "-G", group, "-u", "-f", f"%p %o %T %K %S\n%k%s%h{MARK}", topic,
            auto_offset_reset="earliest", heartbeat_interval_ms=HEARTBEAT_MS, session_timeout_ms=joining.session_ms),
            MARK.encode())

    def member_apart(self, topic: str, group: str, joining: Joining = AS_USUAL) -> Reader:
        return self.member(topic, group, joining)

    def asked(self, *arguments: str) -> str:
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False, timeout=2 * TIMEOUT_S)
        if done.returncode != 0:
            raise Refused(None, done.stderr)
        return done.stdout

    def bounds(self, topic: str) -> tuple[int, int]:
        first, end = (int(self.asked("-Q", "-t", f"{topic}:0:{time}").split()[-1]) for time in (-2, -1))
        return first, end

    def offset_at(self, topic: str, timestamp_ms: int) -> int | None:
        offset = int(self.asked("-Q", "-t", f"{topic}:0:{timestamp_ms}").split()[-1])
        return None if offset < 0 else offset

    def partitions(self, topic: str) -> int:
        (told,) = json.loads(self.asked("-L", "-J", "-t", topic))["topics"]
        if "error" in told:
            raise Refused(3, told["error"])
        return len(told["partitions"])

    def create_topic(self, topic: str, partitions: int) -> None:
        raise NotImplementedError

    def delete_topic(self, topic: str) -> None:
        raise NotImplementedError

    def topics(self) -> set[str]:
        return {told["topic"] for told in json.loads(self.asked("-L", "-J"))["topics"]}


class JavaConsole(JavaTools):
    """ConsoleProducer, ConsoleConsumer, and the tools that administer. What is in their library is tried with the client itself: a JVM starts slowly."""

    name = "Java's console tools"
    library = "in the library: see Java"
    cannot: ClassVar[Mapping[Ability, str]] = {
        Ability.BYTES: "made for text",
        Ability.TIMESTAMPS: "take none",
        Ability.PARTITIONS: "of one partition, or in a group",
        Ability.RESET: library, Ability.LIMITS: library, Ability.ERRORS: library, Ability.ACKS: library,
        Ability.GZIP: library, Ability.SNAPPY: library, Ability.LZ4: library, Ability.ZSTD: library,
        Ability.STATIC: library, Ability.COMMITTED: library, Ability.CREATE_ON_READ: library, Ability.ABANDON: library, Ability.KEYED: library,
        Ability.NO_RESET: library, Ability.FOLLOW: library, Ability.DELETED: library, Ability.LATER: library, Ability.PATTERN: library,
        Ability.KIP_848_PATTERN: library,
        Ability.COMMIT: "commit by themselves, or not at all",
        Ability.PATIENCE: "the console producer gives up after three tries unless told otherwise",
        Ability.SEEK_TIME: "by offset only", Ability.SEEK_END: "resolved later, so that nobody can say what comes first",
    }

    @classmethod
    def missing(cls) -> str | None:
        return Java.missing()

    def version(self) -> str:
        (jar,) = KAFKA_LIB.glob("kafka-tools-4*.jar")
        return jar.stem.removeprefix("kafka-tools-")

    def expresses(self, sample: Sample) -> bool:
        """Key and value are text; a header's null and its empty value look the same."""
        named = all(value and is_text(value) for _, value in sample.headers)
        return named and is_text(sample.key) and is_text(sample.value)

    def command(self, tool: str, topic: str, *arguments: str) -> list[str]:
        return ["java", *JAVA_FLAGS, "-cp", f"{KAFKA_LIB}/*", f"org.apache.kafka.tools.{tool}", "--bootstrap-server",
                self.bootstrap, "--topic", topic, "--command-property", f"client.id={self.client_id}", *arguments]

    def writer(self, topic: str, settings: Settings = DEFAULTS, *, partition: int | None = 0) -> Writer:
        """To a topic of one partition: it takes no other."""
        options = ["parse.key=true", "parse.headers=true", "null.marker=\\N", "parse.timestamp=false"]
        own = [] if settings.idempotent is None else [
            "--command-property", f"enable.idempotence={str(settings.idempotent).lower()}",
            "--message-send-max-retries", "1000"]
        return ConsoleWriter(self.command(
            "ConsoleProducer", topic, *own, *[part for one in options for part in ("--reader-property", one)]))

    def reader(
        self, topic: str, start: Start = BEGINNING, settings: Settings = DEFAULTS, *, partitions: Sequence[int] = (0,)
    ) -> Reader:
        options = [f"print.{name}=true" for name in ("timestamp", "partition", "offset", "headers", "key")]
        options += ["null.literal=\\N"]
        own = [] if settings.wait_ms is None else ["--command-property", f"fetch.max.wait.ms={settings.wait_ms}"]
        return ConsoleReader(self.command(
            "consumer.ConsoleConsumer", topic, "--partition", str(partitions[0]), "--offset",
            "earliest" if start.kind == "beginning" else str(start.at), *own,
            *[part for one in options for part in ("--formatter-property", one)]), b"\n")

    def member(self, topic: str, group: str, joining: Joining = AS_USUAL) -> Reader:
        options = [f"print.{name}=true" for name in ("timestamp", "partition", "offset", "headers", "key")]
        own = {"group.protocol": joining.protocol, "enable.auto.commit": "false" if joining.by_hand else None}
        if joining.protocol == "classic":
            own |= {"heartbeat.interval.ms": str(HEARTBEAT_MS),
                    "session.timeout.ms": None if joining.session_ms is None else str(joining.session_ms),
                    "partition.assignment.strategy": COOPERATIVE if joining.cooperative else None}
        return ConsoleMember(self.command(
            "consumer.ConsoleConsumer", topic, "--group", group, "--from-beginning",
            *[part for name, value in own.items() if value for part in ("--command-property", f"{name}={value}")],
            *[part for one in options for part in ("--formatter-property", one)]), b"\n")

    def member_apart(self, topic: str, group: str, joining: Joining = AS_USUAL) -> Reader:
        return self.member(topic, group, joining)
