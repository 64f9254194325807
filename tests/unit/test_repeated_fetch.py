"""Long polls like the last one: the short way says, byte for byte, what the general way says, whatever happens."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.unit.broker_bench import Bench, make_batch, topic_id
from zafka.actors import messages
from zafka.actors.actor import Effect, Mail, Send, SetTimer
from zafka.actors.cluster_state import TopicCreated, TopicDeleted
from zafka.actors.gateway import repeated_fetch
from zafka.actors.gateway.effects import (
    SHELL,
    ConnectionClosed,
    ConnectionOpened,
    FileSlice,
    FilesRead,
    FramesReceived,
    PauseReading,
    ReadFault,
    ReadFiles,
    Respond,
    ResumeReading,
)
from zafka.actors.gateway.fetch import CROWDED_BYTES, VERSIONS
from zafka.actors.gateway.repeated_fetch import RepeatedFetch
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import read_request_header, request_header, request_reader, request_writer
from zafka.transport.kafka.fetch_shape import FetchShape, learn
from zafka.transport.kafka.messages import FetchPartition, FetchRequest, FetchTopic

HIDDEN = ReadFiles, Send, SetTimer, PauseReading, ResumeReading
CONNECTION = 5
CONNECTIONS = 4


def frame_of(
    version: int, offset: int, *, partition: int = 0, correlation_id: int = 1, epoch: int = -1, client: str = "test", **fields: Any
) -> bytes:
    asked = FetchPartition(partition, epoch, offset, partition_max_bytes=fields.pop("partition_max_bytes", 1 << 20))
    request = FetchRequest(**{
        "max_wait_ms": 500, "min_bytes": 1, "max_bytes": 1 << 20, "topics": [FetchTopic(topic_id("t"), "t", [asked])], **fields})
    header = request_header(ApiKey.FETCH, version, correlation_id, client)
    return b"".join([header, *request_writer(ApiKey.FETCH, version)(request)])


def shape_of(frame: bytes) -> FetchShape | None:
    view = memoryview(frame)
    header = read_request_header(view)
    return learn(view, header, request_reader(ApiKey.FETCH, header.version)(view, header.body_position))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_shape_fits_any_offset_and_says_what_the_reader_says(version: int) -> None:
    shape = shape_of(frame_of(version, 7, partition=3, min_bytes=11, max_wait_ms=1234, isolation_level=1))
    assert shape is not None
    for offset in (0, 1, -1, 255, 1 << 40, (1 << 63) - 1):
        frame = memoryview(frame_of(
            version, offset, partition=3, min_bytes=11, max_wait_ms=1234, isolation_level=1, correlation_id=offset & 0x7FFFFFFF))
        assert shape.offset_in(frame) == offset
        read = request_reader(ApiKey.FETCH, version)(frame, read_request_header(frame).body_position)
        said = shape.request(offset)
        assert said.topics == read.topics
        for field in ("max_wait_ms", "min_bytes", "max_bytes", "isolation_level", "session_id", "session_epoch"):
            assert getattr(said, field) == getattr(read, field), field


@pytest.mark.parametrize("version", VERSIONS)
def test_what_differs_in_a_byte_beside_the_offset_has_another_shape(version: int) -> None:
    offset = 0x1122334455667788
    frame = frame_of(version, offset)
    shape = shape_of(frame)
    assert shape is not None
    at = frame.index(offset.to_bytes(8, "big"))
    for position in [*range(4), *range(8, at), *range(at + 8, len(frame))]:
        other = bytearray(frame)
        other[position] ^= 1
        assert shape.offset_in(memoryview(other)) is None, position
    for cut in range(len(frame)):
        assert shape.offset_in(memoryview(frame)[:cut]) is None, cut
    assert shape.offset_in(memoryview(frame + b"\0")) is None


@pytest.mark.parametrize("other", [
    {"session_epoch": 0}, {"session_id": 5, "session_epoch": 3}, {"replica_id": 2}, {"max_wait_ms": 0}, {"min_bytes": 0},
    {"topics": []}, {"topics": [FetchTopic(topic="t", partitions=[FetchPartition(0), FetchPartition(1)])]}])
def test_what_does_not_just_wait_for_a_partition_has_no_shape(other: dict[str, Any]) -> None:
    assert shape_of(frame_of(11, 0, **other)) is None


class World:
    """One gateway with two partitions, whose logs are bytes in memory, fed by a script of a seed."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.bench = Bench(path, defaults={"queued.max.request.bytes": "40000"})
        self.bench.start()
        self.bench.create("t", partitions=2)
        self.logs = [b"", b""]
        self.ends = [0, 0]
        self.base = [0, 0]
        self.epoch = [0, 0]
        for partition in range(2):
            self.bench.serve("t", partition)
        self.said: list[Any] = []
        self.short = 0
        self.cold: list[bool] = []  # of what is read since the first short way

    def turn(self, *mails: Mail) -> None:
        self.note(self.bench.turn(*mails))

    def note(self, effects: list[Effect]) -> None:
        """What clients see; what is asked of files and partitions is answered at once, or the reads fail."""
        pending = list(effects)
        seen: list[Any] = []
        self.said.append(seen)
        self._gather(pending, seen)
        seen.sort(key=lambda each: each[0])  # each client sees its own order
        seen += [(each.id, each.held, each.reading) for each in self.bench.gateway.connections.by_id.values()]

    def _gather(self, pending: list[Effect], seen: list[Any]) -> None:
        for _ in range(20):  # a short way that fails may take a round more
            seen += [_plain(effect) for effect in pending if _plain(effect) is not None]
            for connection in self.bench.gateway.connections.by_id.values():
                self.short += sum(type(each) is RepeatedFetch and each.waits for each in connection.exchanges)
            mails = [Mail(SHELL, FilesRead(each.token, [self.read(one) for one in each.slices])) for each in pending
                     if isinstance(each, ReadFiles)]
            mails += [self.located(each) for each in pending if isinstance(each, Send) and isinstance(each.body, messages.Locate)]
            if not mails:
                return
            pending = self.bench.turn(*mails)

    def read(self, wanted: FileSlice) -> Any:
        if self.short:
            self.cold.append(wanted.cold)
        partition = int(wanted.path.split("/")[-2].rpartition("-")[2])
        if wanted.path.endswith(f"/{self.base[partition]:020d}.log") and not self.fails:
            found = self.logs[partition][wanted.position : wanted.position + wanted.length]
            return (1 << 40).to_bytes(8, "big") + found[8:] if self.lies else found
        return self.fails or ReadFault.GONE

    fails: ReadFault | None = None
    lies = False  # another batch lies where the wanted one should

    def located(self, send: Send) -> Mail:
        """The partition does not know where: for the reader there is nothing for now."""
        body, partition = send.body, int(send.to[0].rpartition("-")[2])
        end = self.ends[partition]
        return Mail(send.to, messages.Located(body.request_id, 0, self.base[partition], 5, 0, 0, end, end, 0, False))

    def append(self, partition: int, rng: random.Random) -> None:
        for _ in range(rng.randint(1, 3)):
            self.logs[partition] += make_batch(rng.randbytes(rng.choice([1, 50, 400])), base_offset=self.ends[partition])
            self.ends[partition] += 1
        self.show(partition)

    def show(self, partition: int) -> None:
        end = self.ends[partition]
        news = messages.Advanced(
            self.epoch[partition], 0, end, end, self.base[partition], 5, len(self.logs[partition]))
        self.note(self.bench.tell(self.bench.partitions["t", partition], news))

    def roll(self, partition: int) -> None:
        self.base[partition], self.logs[partition] = self.ends[partition], b""
        self.show(partition)


def _plain(effect: Effect) -> Any:
    if isinstance(effect, Respond):
        return effect.connection_id, [b"".join(frame) for frame in effect.frames]
    return None if isinstance(effect, HIDDEN) else (getattr(effect, "connection_id", 0), effect)


def step(world: World, rng: random.Random, versions: list[int]) -> None:
    kind = rng.random()
    which = rng.randrange(CONNECTIONS)
    partition = rng.randrange(2)
    if kind < 0.55:
        partition = which % 2 if rng.random() < 0.97 else partition
        offset = world.ends[partition] + (0 if rng.random() < 0.9 else rng.choice([-1, 1]))
        frame = bytearray(frame_of(
            versions[which], offset, partition=partition, correlation_id=rng.randrange(1 << 31),
            isolation_level=which // 2, min_bytes=1 if rng.random() < 0.9 else 300, epoch=-1 if which else world.epoch[partition],
            partition_max_bytes=1 << 20 if rng.random() < 0.9 else 100))
        if rng.random() < 0.02:
            frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
        world.turn(Mail(SHELL, FramesReceived([(CONNECTION + which, memoryview(bytes(frame)), None)])))
    elif kind < 0.8:
        world.fails = None if rng.random() < 0.95 else rng.choice(list(ReadFault))
        world.lies = rng.random() < 0.05
        world.append(partition, rng)
        world.fails, world.lies = None, False
    elif kind < 0.88:
        world.note(world.bench.pass_time(rng.choice([0.0, 0.0, 0.3, 0.6])))
    elif kind < 0.92:
        world.roll(partition)
    elif kind < 0.96:
        world.epoch[partition] = world.bench.cluster_offset
        world.note(world.bench.down("t", partition))
        if rng.random() < 0.5:  # so long that waits end while nobody leads
            world.note(world.bench.pass_time(0.6))
        world.bench.serve("t", partition, epoch=world.epoch[partition])
        world.show(partition)
    else:
        world.turn(Mail(SHELL, ConnectionClosed(CONNECTION + which)))
        world.turn(Mail(SHELL, ConnectionOpened(CONNECTION + which, "kafka", "test")))


def test_the_third_of_a_kind_goes_the_short_way(tmp_path: Path) -> None:
    """The first shows a partition, the second that it is asked again."""
    world = World(tmp_path / "short")
    world.turn(Mail(SHELL, ConnectionOpened(CONNECTION, "kafka", "test")))
    taken = []
    for _ in range(4):
        frame = frame_of(11, world.ends[0])
        world.turn(Mail(SHELL, FramesReceived([(CONNECTION, memoryview(frame), None)])))
        taken.append(type(world.bench.gateway.connections.by_id[CONNECTION].exchanges[-1]) is RepeatedFetch)
        world.append(0, random.Random(1))
    assert taken == [False, False, True, True]
    assert not world.bench.gateway.same_answers and not len(world.bench.gateway.deadlines)


def test_what_is_not_hot_any_more_is_read_as_cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that its CRC is checked: it may come from the disk."""
    world = World(tmp_path / "cold")
    world.turn(Mail(SHELL, ConnectionOpened(CONNECTION, "kafka", "test")))
    for hot in (True, True, True, False):
        monkeypatch.setattr(repeated_fetch, "is_hot", lambda *_, hot=hot, **__: hot)
        world.turn(Mail(SHELL, FramesReceived([(CONNECTION, memoryview(frame_of(11, world.ends[0])), None)])))
        world.append(0, random.Random(1))
    assert world.cold == [False, True]


def ask(world: World, frame: bytes, *before: Mail, connection: int = CONNECTION) -> bool:
    """In the same turn as what comes before it. Returns whether it went the short way."""
    world.turn(*before, Mail(SHELL, FramesReceived([(connection, memoryview(frame), None)])))
    exchanges = world.bench.gateway.connections.by_id[connection].exchanges
    return bool(exchanges) and type(exchanges[-1]) is RepeatedFetch


def test_while_much_is_held_for_others_little_is_read(tmp_path: Path) -> None:
    """As the general way does: what waits for others is more than half of what all may hold."""
    world = World(tmp_path / "crowded")
    for number in range(2):
        world.turn(Mail(SHELL, ConnectionOpened(CONNECTION + number, "kafka", "test")))
    for _ in range(2):
        assert not ask(world, frame_of(11, world.ends[0]))
        world.append(0, random.Random(1))
    assert ask(world, frame_of(11, world.ends[0]))
    ask(world, frame_of(11, world.ends[1], partition=1, client="x" * 30_000), connection=CONNECTION + 1)
    for _ in range(5):
        world.logs[0] += make_batch(b"v" * 20_000, base_offset=world.ends[0])
        world.ends[0] += 1
    world.show(0)
    [(connection, [answer]), *_] = world.said[-1]
    assert connection == CONNECTION and 60_000 < len(answer) < CROWDED_BYTES + 1000


def test_a_topic_that_takes_anothers_name_does_not_take_its_partitions(tmp_path: Path) -> None:
    """It was asked for by its id before it was known here; its predecessor's partition is there a little longer."""
    new, told = b"n" * 16, []
    for way in ("short", "general"):
        world = World(tmp_path / way)
        world.turn(Mail(SHELL, ConnectionOpened(CONNECTION, "kafka", "test")))
        world.append(0, random.Random(1))
        frame = frame_of(13, world.ends[0], topics=[FetchTopic(new, "", [FetchPartition(0, -1, world.ends[0])])])
        assert not any(ask(world, frame) for _ in range(3))
        connection = world.bench.gateway.connections.by_id[CONNECTION]
        assert connection.fetch_shape is not None
        if way == "general":
            connection.fetch_shape = None
        ask(world, frame, world.bench.committed(TopicDeleted(topic_id("t")), TopicCreated(new, "t", [[1], [1]], {})))
        told.append(world.said[-1])
    assert told[0] == told[1]


def played(path: Path, seed: int) -> World:
    rng = random.Random(seed)
    world = World(path)
    versions = [rng.choice(VERSIONS) for _ in range(CONNECTIONS)]
    versions[2] = versions[0]
    for number in range(CONNECTIONS):
        world.turn(Mail(SHELL, ConnectionOpened(CONNECTION + number, "kafka", "test")))
    for _ in range(200):
        step(world, rng, versions)
    world.note(world.bench.pass_time(3.0))
    return world


@pytest.mark.parametrize("first", range(0, 30, 5))
def test_the_short_way_says_what_the_general_way_says(tmp_path: Path, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = range(first, first + 5)
    short = [played(tmp_path / f"short-{seed}", seed) for seed in seeds]
    monkeypatch.setattr(repeated_fetch, "remember", lambda *_: None)
    general = [played(tmp_path / f"general-{seed}", seed) for seed in seeds]
    assert sum(world.short for world in short) > 100 and not any(world.short for world in general)
    for seed, one, other in zip(seeds, short, general, strict=True):
        for turn, (said, expected) in enumerate(zip(one.said, other.said, strict=True)):
            assert said == expected, f"seed {seed}, turn {turn}"
