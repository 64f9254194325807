"""Kafka's own DumpLogSegments reads what we wrote: no complaint, the same batches and the same records.

Needs Java and Kafka's jars, from ZAFKA_KAFKA_LIB or where scripts/install-peers puts them.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.unit.compacted_log import compact, fill_with_keys
from tests.unit.disks import ClosingDisk
from tests.unit.drive_groups import ORDERS, Coordinator
from tests.unit.log_tools import NOW_MS, append, close, flush, make_batch, read_batches, read_records, small_config
from zafka.actors.cluster_state import id_text
from zafka.storage.codecs import CODEC_NAMES
from zafka.storage.index import OFFSET_ENTRY
from zafka.storage.log import Log
from zafka.storage.recovery import recover
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages import ConsumerGroupHeartbeatRequest, DeleteGroupsRequest
from zafka.transport.kafka.messages.consumer_group_heartbeat import TopicPartitions

ROOT = Path(__file__).resolve().parent.parent.parent
KAFKA_LIB = Path(os.environ.get("ZAFKA_KAFKA_LIB", ROOT / ".peers" / "kafka" / "lib"))

BATCH = re.compile(
    r"baseOffset: (\d+) lastOffset: (\d+) count: (\d+) baseSequence: (-?\d+) lastSequence: -?\d+ producerId: (-?\d+) "
    r"producerEpoch: (-?\d+) partitionLeaderEpoch: (\d+) .*position: (\d+) CreateTime: (\d+) size: (\d+) magic: 2 "
    r"compresscodec: (\w+) crc: (\d+) isvalid: true"
)
RECORD = re.compile(r"\| offset: (\d+) CreateTime: (\d+) .*key: (.*) payload: (.*)")
# The tool says this of the first record of every segment but the first, of those that Kafka wrote as well.
NO_COMPLAINT = re.compile(r"Non-consecutive offsets in \S+\n  -1 is followed by \d+\n?")


@pytest.fixture(autouse=True, scope="module")
def tool() -> None:
    reason = ""
    if not list(KAFKA_LIB.glob("kafka-tools-*.jar")):
        reason = f"no Kafka jars in {KAFKA_LIB}: run scripts/install-peers, or set ZAFKA_KAFKA_LIB"
    elif shutil.which("java") is None:
        reason = "no java: run scripts/install-peers"
    if reason:
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)


def dump(files: list[Path], *options: str) -> str:
    """Everything that the tool says, but for what it says of Kafka's own files too."""
    names = ",".join(map(str, files))
    command = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{KAFKA_LIB}/*",
               "org.apache.kafka.tools.DumpLogSegments", *options, "--files", names]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout + NO_COMPLAINT.sub("", done.stderr)


def complaints(said: str) -> list[str]:
    """Lines that are not plain data."""
    data = re.compile(
        r"Dumping .*|Log starting offset: \d+|offset: \d+ position: \d+|timestamp: \d+ offset: \d+|\S+ is empty\.|SLF4J.*|\s*"
    )
    return [
        line for line in said.splitlines() if not (data.fullmatch(line) or BATCH.fullmatch(line) or RECORD.match(line))
    ]


def segment_files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.suffix in (".log", ".index", ".timeindex"))


def open_log(directory: Path, **config: Any) -> tuple[ClosingDisk, Log]:
    disk = ClosingDisk()
    return disk, recover(disk, directory, small_config(**config), NOW_MS)[0]


def check(disk: ClosingDisk, log: Log, directory: Path) -> None:
    """DumpLogSegments and we read the same, and it finds both indexes of each segment right."""
    files = segment_files(directory)
    said = dump(files, "--deep-iteration", "--print-data-log")
    assert complaints(said) == []
    batches = [
        tuple(map(str, (
            header.base_offset, header.last_offset, header.record_count, header.base_sequence, header.producer_id,
            header.producer_epoch, header.leader_epoch, header.max_timestamp, header.size_bytes,
            CODEC_NAMES[header.codec], header.crc,
        )))
        for header, _ in read_batches(disk, log)
    ]  # fmt: skip
    found = [BATCH.fullmatch(line) for line in said.splitlines()]
    assert [tuple(m.group(1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12)) for m in found if m] == batches
    records = [
        (str(record.offset), str(record.timestamp), "" if record.key is None else record.key.decode(),
         "" if record.value is None else record.value.decode())
        for record in read_records(disk, log)
    ]  # fmt: skip
    assert [m.groups() for m in map(RECORD.match, said.splitlines()) if m] == records
    indexes = [path for path in files if path.suffix != ".log" and path.stat().st_size]
    passed = dump(indexes, "--index-sanity-check")
    assert sorted(re.findall(r"(\S+) passed sanity check", passed)) == sorted(map(str, indexes))
    assert complaints(dump(indexes, "--verify-index-only")) == []


def test_many_segments_all_codecs_and_odd_timestamps(tmp_path: Path) -> None:
    random_ = random.Random(1)
    disk, log = open_log(tmp_path / "t-0", segment_bytes=6000)
    for i in range(150):
        values = [bytes(random_.choices(b"abcdef", k=random_.randint(0, 200))) for _ in range(random_.randint(1, 9))]
        timestamp_ms = NOW_MS + random_.randint(0, 1000) * i  # often before those that came earlier
        append(log, make_batch(values, timestamp_ms=timestamp_ms, codec=i % 5, step_ms=7), leader_epoch=i // 40)
        if i % 10 == 0:
            flush(disk, log)
    close(disk, log)
    assert len(log.segments) > 5
    check(disk, log, tmp_path / "t-0")


def test_single_record_batches_written_in_turns_and_recovered(tmp_path: Path) -> None:
    disk, log = open_log(tmp_path / "t-0", segment_bytes=20_000)
    for turn in range(30):
        append(log, *(make_batch([b"%d" % i], timestamp_ms=NOW_MS + turn) for i in range(20)))
    log.close()  # a kill: no checkpoint tells of anything
    disk, log = open_log(tmp_path / "t-0", segment_bytes=20_000)
    assert log.end_offset == 600
    append(log, make_batch([b"behind"], timestamp_ms=NOW_MS + 1000))
    close(disk, log)
    check(disk, log, tmp_path / "t-0")


def test_idempotent_batches(tmp_path: Path) -> None:
    disk, log = open_log(tmp_path / "t-0", segment_bytes=3000)
    for i in range(40):
        producer_id = 1000 + i % 3
        batch = make_batch(
            [b"a", b"b"], timestamp_ms=NOW_MS + i, producer_id=producer_id, producer_epoch=1, base_sequence=i // 3 * 2
        )
        append(log, batch)
    close(disk, log)
    check(disk, log, tmp_path / "t-0")


def test_indexes_that_were_rebuilt(tmp_path: Path) -> None:
    disk, log = open_log(tmp_path / "t-0", segment_bytes=4000)
    for i in range(60):
        append(log, make_batch([b"x" * 90], timestamp_ms=NOW_MS + i % 7))
    close(disk, log)
    before = {path: path.read_bytes() for path in segment_files(tmp_path / "t-0")}
    for path in before:
        if path.suffix != ".log":
            path.unlink()
    disk, log = open_log(tmp_path / "t-0", segment_bytes=4000)
    close(disk, log)
    assert {path: path.read_bytes() for path in segment_files(tmp_path / "t-0")} == before
    check(disk, log, tmp_path / "t-0")


def test_an_index_that_lies_is_complained_of(tmp_path: Path) -> None:
    """The check above would see it."""
    disk, log = open_log(tmp_path / "t-0", segment_bytes=1 << 20)
    for i in range(60):
        append(log, make_batch([b"x" * 90], timestamp_ms=NOW_MS + i))
    close(disk, log)
    path = log.segments[0].index_paths[0]
    relative_offset, position = OFFSET_ENTRY.unpack_from(path.read_bytes())
    path.write_bytes(OFFSET_ENTRY.pack(relative_offset + 1, position) + path.read_bytes()[OFFSET_ENTRY.size :])
    assert complaints(dump([path]))


def test_a_compacted_log(tmp_path: Path) -> None:
    """Holes, batches with fewer records than offsets, a producer's empty last batch, tombstones with a horizon."""
    config = {"segment_bytes": 1500, "cleanup_policy": ("compact",)}
    disk, log = open_log(tmp_path / "t-0", **config)
    any_disk: Any = disk
    fill_with_keys(any_disk, log, 3, batches=80)
    before = read_records(disk, log)
    compact(any_disk, log)
    assert len(read_records(disk, log)) < len(before) / 2
    log.close()
    said = dump(segment_files(tmp_path / "t-0"), "--deep-iteration", "--print-data-log")
    assert "isvalid: false" not in said and "deleteHorizonMs: OptionalLong[" in said
    offsets = [(int(first), int(last)) for first, last in re.findall(r"^baseOffset: (\d+) lastOffset: (\d+)", said, re.MULTILINE)]
    assert offsets[0][0] == 0 and all(last + 1 == first for (_, last), (first, _) in pairwise(offsets))
    found = re.findall(r"^\| offset: (\d+)", said, re.MULTILINE)
    assert found == [str(record.offset) for record in read_records(disk, log)]
def test_committed_offsets_are_decoded_by_kafka(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path).lead()
    coordinator.commit("g", 42, metadata="how far", epoch=7)
    coordinator.commit("old", 5, version=4, retention_time_ms=86_400_000, partition=1)
    coordinator.ask(ApiKey.DELETE_GROUPS, 2, DeleteGroupsRequest(["old"]))
    coordinator.coordinator.replica.release()
    said = dump([path for path in segment_files(coordinator.directory) if path.suffix == ".log"], "--offsets-decoder")
    payloads = [line.partition("key: ")[2] for line in said.splitlines() if line.startswith("| offset:")]
    told = [[json.loads(text) if text != "<DELETE>" else None for text in line.split(" payload: ")] for line in payloads]
    keys = [key["data"] for key, _ in told]
    assert keys == [
        {"group": "g", "topic": "orders", "partition": 0}, {"group": "old", "topic": "orders", "partition": 1},
        {"group": "old", "topic": "orders", "partition": 1}]
    values = [value and {"version": value["version"], **value["data"]} for _, value in told]
    assert values[2] is None
    assert values[0] == {
        "version": "4", "offset": 42, "leaderEpoch": 7, "metadata": "how far", "commitTimestamp": coordinator.now.wall_ms,
        "topicId": id_text(ORDERS[1])}
    assert (values[1]["version"], values[1]["offset"]) == ("1", 5)
    assert values[1]["expireTimestamp"] == coordinator.now.wall_ms + 86_400_000


def test_consumer_groups_are_decoded_by_kafka(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path).lead(0, ORDERS)

    def heartbeat(member: str, epoch: int, owned: list[int] | None = None, **said: Any) -> None:
        parts = None if owned is None else [TopicPartitions(ORDERS[1], owned)] if owned else []
        answer = coordinator.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, ConsumerGroupHeartbeatRequest(
            "g", member, epoch, topic_partitions=parts, **said))
        assert answer.error_code == 0, answer

    heartbeat("a", 0, [], rebalance_timeout_ms=5000, subscribed_topic_names=["orders"], instance_id="i", rack_id="r")
    heartbeat("b", 0, [], rebalance_timeout_ms=5000, subscribed_topic_regex="ord.*", server_assignor="range")
    heartbeat("a", 2, [0, 1, 2], instance_id="i")
    heartbeat("b", -1)
    coordinator.coordinator.replica.release()
    said = dump([path for path in segment_files(coordinator.directory) if path.suffix == ".log"], "--offsets-decoder")
    told: dict[tuple[str, ...], Any] = {}
    for line in said.splitlines():
        if line.startswith("| offset:"):
            key, _, value = line.partition("key: ")[2].partition(" payload: ")
            kind = json.loads(key)
            told.setdefault((kind["type"], *kind["data"].values()), []).append(
                json.loads(value)["data"] if value != "<DELETE>" else None)
    topic, now_ms = id_text(ORDERS[1]), coordinator.now.wall_ms
    assert told["3", "g"][-1].keys() == {"epoch", "metadataHash"} and told["3", "g"][-1]["epoch"] == 4
    assert told["5", "g", "a"] == [{
        "instanceId": "i", "rackId": "r", "clientId": "client", "clientHost": "/127.0.0.1", "rebalanceTimeoutMs": 5000,
        "subscribedTopicNames": ["orders"], "subscribedTopicRegex": None, "serverAssignor": None}]
    assert told["6", "g"][-1] == {"assignmentEpoch": 3, "assignmentTimestamp": now_ms}
    assert told["7", "g", "a"][-1] == {"topicPartitions": [{"topicId": topic, "partitions": [0, 1]}]}
    assert told["8", "g", "a"][-1] == {
        "memberEpoch": 2, "previousMemberEpoch": 2, "state": 1,
        "assignedPartitions": [{"topicId": topic, "partitions": [0, 1], "assignmentEpochs": [2, 2]}],
        "partitionsPendingRevocation": [{"topicId": topic, "partitions": [2], "assignmentEpochs": [2]}]}
    assert told["16", "g", "ord.*"] == [{"topics": ["orders"], "version": 0, "timestamp": now_ms}, None]
    assert [told[kind, "g", "b"][-1] for kind in ("5", "7", "8")] == [None] * 3
