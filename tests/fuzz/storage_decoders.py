"""Decoders of record bytes and of what lies on a disk: batches, codecs, snapshots, checkpoints, indexes, whole logs."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import msgspec
from crc32c import crc32c

from tests.fuzz.engine import Decoder, Parts
from tests.unit import log_tools
from tests.unit.memory_disk import MemoryDisk
from zafka.actors import cluster_snapshot, cluster_state
from zafka.actors.groups.coordinator import make_machine
from zafka.actors.groups.group_snapshot import encode_section, sections_of
from zafka.actors.groups.records import GroupMetadataKey, GroupMetadataValue, OffsetCommitValue, encode_group
from zafka.actors.messages import Endpoint
from zafka.storage import codecs
from zafka.storage.batch import CRC_START, HEADER_BYTES, check_batch, walk
from zafka.storage.checkpoint import CHECKPOINT_NAME, decode_checkpoint, encode_checkpoint
from zafka.storage.codecs import CODEC_NAMES
from zafka.storage.directory import METADATA_NAME, format_topic_id, read_topic_id
from zafka.storage.errors import (
    BadBatch,
    CorruptBatch,
    CorruptCheckpoint,
    CorruptLog,
    CorruptSnapshot,
    ForeignTopic,
    IndexMismatch,
    OffsetOutOfRange,
)
from zafka.storage.index import OFFSET_ENTRY, TIME_ENTRY, Index
from zafka.storage.log import Log
from zafka.storage.producer_state import ProducerStates
from zafka.storage.records import NewRecord, decode_batch, encode_batch, encode_varint, find_timestamp
from zafka.storage.recovery import recover
from zafka.storage.scan import Scan, find_batch_behind
from zafka.storage.snapshot import SNAPSHOT_NAME, Point, SnapshotWriter, read_point, read_sections

BATCH_BYTES_MAX = 1 << 20
DECODED_MAX = 1 << 20
NOW_MS = log_tools.NOW_MS
DIRECTORY = Path("/disk/t-0")
BATCH_WORDS = [encode_varint(number) for number in (-1, 0, 1, 63, 64, 2**31 - 1, -(2**31), 2**40, 2**62)]


# -- batches ------------------------------------------------------------------------------------------


def _records(rng: Random) -> list[NewRecord]:
    return [
        (NOW_MS + i, rng.choice((None, b"", b"key %d" % i)), rng.choice((None, b"value" * i)),
         rng.choice(((), (("h", b"x"),), (("ü", None), ("", b"")))))
        for i in range(rng.choice((1, 2, 20, 200)))
    ]  # fmt: skip


def make_batch(codec: int, rng: Random) -> Parts:
    producer_id = rng.choice((-1, 5))
    numbers = {} if producer_id < 0 else {"producer_id": 5, "producer_epoch": 0, "base_sequence": rng.choice((0, 2**31 - 1))}
    return [bytes(encode_batch(_records(rng), codec=codec, **numbers))]


def seal_batch(parts: Parts) -> Parts:
    """The length and the CRC that fit, so that what follows them is looked at."""
    return [_sealed(part) for part in parts]


def _sealed(data: bytes) -> bytes:
    if len(data) < HEADER_BYTES:
        return data
    length = struct.pack(">i", len(data) - 12)
    return data[:8] + length + data[12:16] + b"\x02" + crc32c(data[CRC_START:]).to_bytes(4, "big") + data[CRC_START:]


def make_plain_records(rng: Random) -> Parts:
    return [bytes(encode_batch(_records(rng)))[HEADER_BYTES:], bytes([rng.randrange(5)]), struct.pack(">i", 20)]


def read_plain_records(parts: Parts) -> None:
    """What a client can do that computes its checksums: damage before compression, behind a header that fits."""
    body, codec, count = parts[0], ([*parts, b"", b""])[1][:1], ([*parts, b"", b""])[2][:4]
    number = int.from_bytes(codec, "big") % 5
    records = int.from_bytes(count, "big") % 5000
    data = encode_batch([(NOW_MS, None, b"", ())], codec=number)[:HEADER_BYTES]
    head = data[:57] + struct.pack(">i", records)
    head = head[:23] + struct.pack(">i", records - 1) + head[27:]
    read_batches([_sealed(head + codecs.compress(number, body))])


def read_batches(parts: Parts) -> None:
    """All that a partition, a timestamp lookup and a consumer do with one buffer."""
    data = parts[0] if parts else b""
    try:
        header = check_batch(memoryview(data), max_bytes=BATCH_BYTES_MAX)
        assert header.size_bytes == len(data) and header.record_count > 0
    except BadBatch as error:
        assert error.kafka_error > 0 and str(error)
    for position, header in walk(data, check_crc=False):
        assert position + header.size_bytes <= len(data)
        batch = data[position:]
        for read in (
            lambda batch=batch, header=header: decode_batch(batch, header, max_bytes=DECODED_MAX),
            lambda batch=batch, header=header: find_timestamp(batch, header, NOW_MS + 5, max_bytes=DECODED_MAX),
        ):
            try:
                found = read()
            except BadBatch:
                continue
            if isinstance(found, list):
                assert len(found) <= header.record_count
                assert all(header.base_offset <= record.offset <= header.last_offset for record in found)


def make_compressed(codec: int, rng: Random) -> Parts:
    text = b"".join(rng.choice((b"some text, ", rng.randbytes(20))) for _ in range(rng.choice((0, 1, 300))))
    return [codecs.compress(codec, text)]


def read_compressed(codec: int, parts: Parts) -> None:
    assert len(codecs.decompress(codec, parts[0], max_bytes=3000)) <= 3000


# -- files --------------------------------------------------------------------------------------------


def make_snapshot(rng: Random) -> Parts:
    states = ProducerStates()
    for producer in range(rng.randrange(6)):
        for base in range(rng.randrange(7)):
            header, _ = log_tools.make_batch([b"v"], producer_id=producer, producer_epoch=0, base_sequence=base)
            states.update(header, producer * 10 + base)
    return [states.snapshot()]


def seal_snapshot(parts: Parts) -> Parts:
    body = parts[0][6:]
    return [b"\x00\x01" + crc32c(body).to_bytes(4, "big") + body]


def read_snapshot(parts: Parts) -> None:
    states = ProducerStates()
    states.load(parts[0])
    again = ProducerStates()
    again.load(states.snapshot())
    assert len(again) == len(states)
    states.expire(NOW_MS)


def make_checkpoint(rng: Random) -> Parts:
    return [_log_files(rng)[3]]


def seal_checkpoint(parts: Parts) -> Parts:
    data = parts[0]
    return [data[:6] + crc32c(data[10:]).to_bytes(4, "big") + data[10:]]


def read_checkpoint_bytes(parts: Parts) -> None:
    checkpoint = decode_checkpoint(parts[0])
    assert encode_checkpoint(checkpoint) == parts[0]


def make_coordinator_snapshot(rng: Random) -> Parts:
    """One whose sections are a group coordinator's."""
    offsets = [
        (f"group {i}", {"topic": {part: OffsetCommitValue(rng.randrange(99), 1, "x", NOW_MS) for part in range(rng.randrange(1, 4))}}, 1)
        for i in range(rng.randrange(5))]
    records = [encode_group(GroupMetadataKey(f"g{i}"), GroupMetadataValue("consumer", i)) for i in range(rng.randrange(3))]
    sections = [encode_section(each) for each in sections_of(offsets, [(key, value or b"") for key, value in records])]
    disk = MemoryDisk()
    disk.make_directory(DIRECTORY)
    writer = SnapshotWriter(disk, DIRECTORY, iter(sections * rng.randrange(3)), lambda: Point(bytes(20), 0, 3, 5, 1))
    while writer.step():
        pass
    return [disk.read(DIRECTORY / SNAPSHOT_NAME)]


def seal_coordinator_snapshot(parts: Parts) -> Parts:
    """Right CRCs and a right size, as far as lengths of sections can be followed."""
    data, at, crc = bytearray(parts[0]), 70, 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big", signed=True)
        if not 0 <= length <= len(data) - at - 8:
            break
        crc = crc32c(bytes(data[at + 8 : at + 8 + length]), crc)
        data[at + 4 : at + 8] = crc.to_bytes(4, "big")
        at += 8 + length
    if len(data) >= 70:
        data[58:70] = len(data).to_bytes(8, "big") + crc.to_bytes(4, "big")
        data[6:10] = crc32c(bytes(data[10:70])).to_bytes(4, "big")
    return [bytes(data)]


def read_coordinator_snapshot(parts: Parts) -> None:
    disk = MemoryDisk()
    disk.make_directory(DIRECTORY)
    disk.write(DIRECTORY / SNAPSHOT_NAME, parts[0])
    point = read_point(disk, DIRECTORY)
    assert point is not None and 0 <= point.log_start_offset <= point.offset <= point.end_offset
    machine = make_machine({})
    count = sum(machine.restore(section) for section in read_sections(disk, DIRECTORY))
    assert count <= len(parts[0])
    again = make_machine({})
    for section, _ in machine.sections():
        again.restore(section)
    assert repr(again) == repr(machine)


def make_partition_metadata(rng: Random) -> Parts:
    return [f"version: 0\ntopic_id: {format_topic_id(rng.randbytes(16))}".encode()]


def read_partition_metadata(parts: Parts) -> None:
    disk = MemoryDisk()
    disk.make_directory(DIRECTORY)
    disk.write(DIRECTORY / METADATA_NAME, parts[0])
    topic_id = read_topic_id(disk, DIRECTORY)
    assert topic_id is not None and len(topic_id) == 16


def make_index(rng: Random) -> Parts:
    count = rng.choice((0, 1, 3, 300, 2000))
    return [
        b"".join(OFFSET_ENTRY.pack(i * 7, i * 4096) for i in range(count)),
        b"".join(TIME_ENTRY.pack(NOW_MS + i, i * 7) for i in range(count)),
    ]


def read_index(parts: Parts) -> None:
    """A hint: whatever it says, an answer comes in few reads, and it is an entry of the file."""
    for data, entry in zip(parts, (OFFSET_ENTRY, TIME_ENTRY), strict=False):
        disk = MemoryDisk()
        disk.make_directory(DIRECTORY)
        path = DIRECTORY / "0.index"
        disk.write(path, data)
        index = Index(disk, path, entry, stored_bytes=len(data) // entry.size * entry.size)
        before = disk.bytes_read
        for wanted in (-1, 0, 100, NOW_MS, 2**62):
            for field in (0, 1):
                found = index.floor(wanted, field=field)
                assert found is None or entry.pack(*found) in data
        assert disk.bytes_read - before <= 10 * (256 + 30) * entry.size
        index.last()


# -- whole logs ---------------------------------------------------------------------------------------

FILES = ("00000000000000000000.log", "00000000000000000000.index", "00000000000000000000.timeindex", CHECKPOINT_NAME)


def _log_files(rng: Random) -> Parts:
    """The files of a log with one segment, or the first ones of a log with several."""
    disk = MemoryDisk()
    config = log_tools.small_config(segment_bytes=rng.choice((2000, 1 << 20)))
    log, _ = recover(disk, DIRECTORY, config, NOW_MS)
    log_tools.fill(log, rng.randrange(1, 12))
    if rng.random() < 0.7:
        log_tools.flush(disk, log, log.checkpoint())
        log_tools.fill(log, rng.randrange(4), first=20)
    log_tools.flush(disk, log)
    names = [*FILES, *sorted(name for name in disk.list_directory(DIRECTORY) if name not in FILES and ".log" in name)]
    return [disk.read(DIRECTORY / name) if disk.exists(DIRECTORY / name) else b"" for name in names[:6]]


def seal_log(rng_free: Parts) -> Parts:
    """The checkpoint's own CRC made right: it may then say anything."""
    parts = [*rng_free, b"", b"", b"", b""][: max(len(rng_free), 4)]
    parts[3] = seal_checkpoint([parts[3]])[0] if len(parts[3]) > 10 else parts[3]
    return parts


def read_log(parts: Parts) -> None:
    """Recovery opens with a valid prefix, or says that the log is corrupt; what it opened, it opens again.

    Below a checkpoint nothing is read at the start: there damage is found by whoever reads, and not served.
    """
    disk = MemoryDisk()
    disk.make_directory(DIRECTORY)
    later = [f"{base:020d}.log" for base in (2, 4, 16, 22)]
    for name, data in zip([*FILES, *later], parts, strict=False):
        disk.write(DIRECTORY / name, data)
    config = log_tools.small_config()
    log, report = recover(disk, DIRECTORY, config, NOW_MS)
    assert 0 <= log.start_offset <= log.end_offset
    try:
        served = read_in_order(disk, log)
    except BadBatch:
        assert report.checkpoint == "ok", "recovery let a bad batch through"
        raise
    for timestamp in (0, NOW_MS + 3, 2**62):
        log.offset_for_timestamp(timestamp)
    log.max_timestamp_offset()
    for offset in (log.start_offset, log.end_offset, (log.start_offset + log.end_offset) // 2):
        log.commit_point(offset)
        log_tools.read_bytes(disk, log, offset, max_bytes=300)
    log_tools.append(log, log_tools.make_batch([b"after"]), leader_epoch=max(log.leader_epochs.latest, 0))
    log_tools.close(disk, log)
    again, report = recover(disk, DIRECTORY, config, NOW_MS)
    assert (again.start_offset, again.end_offset) == (log.start_offset, log.end_offset) and not report.cut
    assert read_in_order(disk, again)[: len(served)] == served


def read_in_order(disk: MemoryDisk, log: Log) -> list[bytes]:
    """All batches, as a reader gets them that looks at their CRCs and offsets. Raises CorruptBatch."""
    batches, offset = [], log.start_offset
    while data := log_tools.read_bytes(disk, log, offset):
        before = offset
        for position, header in walk(data, check_crc=True):
            if header.base_offset > offset or header.next_offset <= offset:
                raise CorruptBatch(f"offset {header.base_offset} where {offset} should be")
            batches.append(data[position : position + header.size_bytes])
            offset = header.next_offset
        if offset == before:
            raise CorruptBatch("no whole batch")
    return batches


def make_segment(rng: Random) -> Parts:
    return [_log_files(rng)[0]]


def read_segment(parts: Parts) -> None:
    disk = MemoryDisk()
    disk.make_directory(DIRECTORY)
    disk.write(DIRECTORY / "a.log", parts[0])
    file = disk.open(DIRECTORY / "a.log")
    scan = Scan(disk, file, position=0, end=len(parts[0]), expected_offset=0)
    offset = 0
    for position, header in scan:
        assert header.base_offset == offset and position + header.size_bytes <= len(parts[0])
        offset = header.next_offset
    assert scan.position == len(parts[0]) or scan.reason
    if scan.reason:
        find_batch_behind(disk, file, position=scan.position, end=len(parts[0]), expected_offset=offset)


# -- the cluster's log --------------------------------------------------------------------------------


def make_events(rng: Random) -> Parts:
    topic_id = bytes([rng.randrange(3)]) * 16
    events: list[cluster_state.AnyEvent] = [
        cluster_state.ClusterCreated("c"),
        cluster_state.BrokerRegistered(1, 3, "", [Endpoint("kafka", "kafka", "127.0.0.1", 9092)]),
        cluster_state.TopicCreated(topic_id, "t", [[1], [1]], {"retention.ms": "1"}),
        cluster_state.LeaderChanged(topic_id, rng.choice((0, 1, 9)), 1, 3, 3, [1], 9),
        cluster_state.PartitionsAdded(topic_id, [[1]]), cluster_state.TopicConfigChanged(topic_id, {}),
        cluster_state.ProducerIdsAllocated(0, 1000), cluster_state.ReplicaFaulted(topic_id, 0, 1, 5, "disk"),
        cluster_state.TopicDeleted(topic_id), cluster_state.BrokerRemoved(1),
    ]  # fmt: skip
    return [cluster_state.encode_event(event) for event in rng.sample(events, rng.randrange(1, len(events)))]


def read_events(parts: Parts) -> None:
    """Values of `__cluster`; its batches are read as any others are."""
    state = cluster_state.ClusterState()
    for value in parts:
        state.apply(cluster_state.decode_event(value))


def read_event_batches(parts: Parts) -> None:
    state = cluster_state.ClusterState()
    for _, event in cluster_state.events_in(memoryview(parts[0])):
        state.apply(event)


def make_event_batches(rng: Random) -> Parts:
    return [bytes(encode_batch([(NOW_MS, None, value, ()) for value in make_events(rng)]))]


def make_cluster_sections(rng: Random) -> Parts:
    state = cluster_state.ClusterState()
    for value in make_events(rng):
        state.apply(cluster_state.decode_event(value))
    state.apply(cluster_state.QuotaChanged((("user", None),), {"request_percentage": 2.5}))
    state.apply(cluster_state.ResourceConfigChanged(4, "", {"log.roll.ms": "7"}))
    return [section for section, _ in cluster_snapshot.sections_of(state)]


def read_cluster_sections(parts: Parts) -> None:
    told = cluster_snapshot.sections_of(cluster_snapshot.state_from(parts))
    assert cluster_snapshot.sections_of(cluster_snapshot.state_from(section for section, _ in told)) == told


# -- all of them --------------------------------------------------------------------------------------


def decoders() -> Iterator[Decoder]:
    for codec, name in enumerate(CODEC_NAMES):
        make: Callable[[Random], Parts] = partial(make_batch, codec)
        yield Decoder(
            f"batch {name}", make, read_batches, (BadBatch,), BATCH_WORDS, seal_batch, memory_max=24 << 20)
    yield Decoder("records", make_plain_records, read_plain_records, (BadBatch,), BATCH_WORDS, memory_max=24 << 20)
    for codec, name in list(enumerate(CODEC_NAMES))[1:]:
        yield Decoder(
            f"compressed {name}", partial(make_compressed, codec), partial(read_compressed, codec), (BadBatch,))
    yield Decoder("producer snapshot", make_snapshot, read_snapshot, (CorruptSnapshot,), seal=seal_snapshot)
    yield Decoder("checkpoint", make_checkpoint, read_checkpoint_bytes, (CorruptCheckpoint,), seal=seal_checkpoint)
    yield Decoder(
        "coordinator snapshot", make_coordinator_snapshot, read_coordinator_snapshot, (CorruptSnapshot,),
        seal=seal_coordinator_snapshot, memory_max=24 << 20)
    yield Decoder(
        "cluster snapshot", make_cluster_sections, read_cluster_sections, (CorruptSnapshot,),
        words=[b"\xc0", b"\xdf\x7f\xff\xff\xff", b"\xa6topics", b"\xa7deleted", b"\x91" * 3000], memory_max=24 << 20)
    yield Decoder(
        "partition.metadata", make_partition_metadata, read_partition_metadata, (ForeignTopic,),
        words=[b"version: ", b"topic_id: ", b"\n", b"_" * 22])
    yield Decoder("index", make_index, read_index, (IndexMismatch,))
    yield Decoder("segment", make_segment, read_segment, seal=seal_batch)
    yield Decoder(
        "log", _log_files, read_log, (CorruptLog, OffsetOutOfRange, BadBatch), seal=seal_log, memory_max=32 << 20)
    yield Decoder(
        "cluster events", make_events, read_events, (msgspec.MsgspecError,),
        words=[b'"event"', b'"TopicCreated"', b'"partition":-1', b"[" * 3000, b"9" * 30, b"null", b"1e999"])
    yield Decoder(
        "cluster log", make_event_batches, read_event_batches, (msgspec.MsgspecError, BadBatch), seal=seal_batch,
        memory_max=24 << 20)
