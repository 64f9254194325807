"""Requests like the last one: the short way says, byte for byte, what the general way says, whatever happens."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.unit.broker_bench import Bench, make_batch, topic_id
from zafka.actors import messages
from zafka.actors.actor import Effect, Mail, Send
from zafka.actors.gateway import repeated_produce
from zafka.actors.gateway.effects import SHELL, ConnectionClosed, ConnectionOpened, FramesReceived, Respond
from zafka.actors.gateway.repeated_produce import RepeatedProduce
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import request_header, request_reader, request_writer
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import PartitionProduceData, ProduceRequest, TopicProduceData
from zafka.transport.kafka.produce_shape import LEARNT_VERSIONS, ProduceShape, learn

CONNECTION = 5
ERRORS = [ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode.KAFKA_STORAGE_ERROR]


def frame_of(
    version: int, topic: str, partition: int, records: bytes | None, *, correlation_id: int = 1, acks: int = -1,
    timeout_ms: int = 30_000, client_id: str | None = "test", transactional_id: str | None = None,
) -> bytes:
    request = ProduceRequest(transactional_id, acks, timeout_ms, [TopicProduceData(
        topic_id(topic), topic, [PartitionProduceData(partition, None if records is None else memoryview(records))])])
    header = request_header(ApiKey.PRODUCE, version, correlation_id, client_id)
    return b"".join([header, *request_writer(ApiKey.PRODUCE, version)(request)])


def shape_of(frame: bytes, version: int, client_id: str = "test") -> ProduceShape | None:
    body = len(request_header(ApiKey.PRODUCE, version, 1, client_id))
    return learn(memoryview(frame), version, request_reader(ApiKey.PRODUCE, version)(memoryview(frame), body))


@pytest.mark.parametrize("version", LEARNT_VERSIONS)
@pytest.mark.parametrize("size", [1, 126, 127, 128, 16_382, 16_383, 16_384, 20_000])
def test_a_shape_fits_records_of_any_length(version: int, size: int) -> None:
    shape = shape_of(frame_of(version, "t", 1, b"x" * 61), version)
    assert shape is not None
    assert (shape.topic, shape.partition, shape.acks) == ("t" if version < 13 else topic_id("t"), 1, -1)
    records = shape.records_in(memoryview(frame_of(version, "t", 1, b"y" * size, correlation_id=7)))
    assert records == b"y" * size


@pytest.mark.parametrize("version", LEARNT_VERSIONS)
def test_what_differs_in_a_byte_before_or_behind_the_records_has_another_shape(version: int) -> None:
    records = b"x" * 300
    frame = frame_of(version, "t", 1, records)
    shape = shape_of(frame, version)
    assert shape is not None
    start = frame.index(records)
    for position in [*range(4), *range(8, start), *range(start + len(records), len(frame))]:
        other = bytearray(frame)
        other[position] ^= 1
        assert shape.records_in(memoryview(other)) is None, position
    for cut in range(len(frame)):
        assert shape.records_in(memoryview(frame)[:cut]) is None, cut
    assert shape.records_in(memoryview(frame + b"\0")) is None


@pytest.mark.parametrize("other", [
    {"acks": 0}, {"acks": 2}, {"transactional_id": "t"}, {"records": b""}, {"records": None}, {"records": bytes(40_000)}])
def test_what_does_not_just_go_to_its_partition_has_no_shape(other: dict[str, Any]) -> None:
    assert shape_of(frame_of(9, "t", 0, **{"records": b"x" * 61, **other}), 9) is None


class World:
    """One gateway, fed by a script of a seed."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.bench = Bench(path)
        self.bench.start()
        self.bench.create("t", partitions=2)
        for partition in range(2):
            self.bench.serve("t", partition)
        self.said: list[Any] = []
        self.open: dict[tuple[str, int], list[Any]] = {}
        self.short = 0

    def turn(self, *mails: Mail) -> None:
        self.note(self.bench.turn(*mails))

    def note(self, effects: list[Effect]) -> None:
        self.said.append([_plain(effect) for effect in effects])
        for send in self.bench.sends(messages.Produce):
            for key, peer in self.bench.partitions.items():
                if peer == send.to:
                    self.open.setdefault(key, []).extend(send.body.items)
        for connection in self.bench.gateway.connections.by_id.values():
            self.short += sum(type(exchange) is RepeatedProduce for exchange in connection.exchanges)

    def answer(self, rng: random.Random) -> None:
        partition = rng.randrange(2)
        items = self.open.get(("t", partition), [])
        count = rng.randint(0, len(items))
        answers = []
        for item in items[:count]:
            error, message = (rng.choice(ERRORS), rng.choice(["", "why"])) if rng.random() < 0.2 else (0, "")
            answers.append(messages.ProduceAnswer(
                item.request_id, error, rng.randrange(1 << 40), rng.choice([-1, 1_700_000_000_000]),
                rng.randrange(1 << 30), message))
        del items[:count]
        self.note(self.bench.tell(self.bench.partitions["t", partition], messages.Produced(answers)))


def _plain(effect: Effect) -> Any:
    if isinstance(effect, Respond):
        return effect.connection_id, [b"".join(frame) for frame in effect.frames]
    if isinstance(effect, Send):
        return effect.to, effect.body, b"".join(effect.records)
    return effect


def step(world: World, rng: random.Random, versions: list[int]) -> None:
    kind = rng.random()
    connection = CONNECTION + rng.randrange(2)
    if kind < 0.65:
        frames = []
        for _ in range(rng.randint(1, 4)):
            frame = bytearray(frame_of(
                versions[connection - CONNECTION], "t" if rng.random() < 0.97 else "u", int(rng.random() < 0.1),
                make_batch(rng.randbytes(rng.choice([1, 50, 200])), **_producer(rng)),
                correlation_id=rng.randrange(1 << 31), acks=-1 if rng.random() < 0.95 else rng.choice([0, 1, 2]),
                timeout_ms=rng.choice([0, 30_000, 30_000, 30_000, 50])))
            if rng.random() < 0.02:
                frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
            frames.append((connection, memoryview(bytes(frame)), None))
        world.turn(Mail(SHELL, FramesReceived(frames)))
    elif kind < 0.9:
        world.answer(rng)
    elif kind < 0.94:
        world.note(world.bench.pass_time(rng.choice([0.01, 1.0, 40.0])))
    elif kind < 0.97:
        partition = rng.randrange(2)
        world.open.pop(("t", partition), None)
        world.note(world.bench.down("t", partition))
        if rng.random() < 0.5:  # else the next time that it goes down: meanwhile it is refused
            world.bench.serve("t", partition, epoch=world.bench.cluster_offset)
    else:
        world.turn(Mail(SHELL, ConnectionClosed(connection)))
        world.turn(Mail(SHELL, ConnectionOpened(connection, "kafka", "test")))


def _producer(rng: random.Random) -> dict[str, int]:
    return {"producer_id": 7, "producer_epoch": 0, "base_sequence": rng.randrange(20)} if rng.random() < 0.3 else {}


def test_the_third_of_a_kind_goes_the_short_way(tmp_path: Path) -> None:
    """The first shows a partition, the second that it is asked again."""
    world = World(tmp_path / "short")
    world.turn(Mail(SHELL, ConnectionOpened(CONNECTION, "kafka", "test")))
    taken = []
    for number in range(4):
        frame = frame_of(9, "t", 0, make_batch(b"%d" % number), correlation_id=number)
        world.turn(Mail(SHELL, FramesReceived([(CONNECTION, memoryview(frame), None)])))
        taken.append(type(world.bench.gateway.connections.by_id[CONNECTION].exchanges[-1]) is RepeatedProduce)
    assert taken == [False, False, True, True]


@pytest.mark.parametrize("seed", range(30))
def test_the_short_way_says_what_the_general_way_says(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    short = []
    for way in ("short", "general"):
        if way == "general":
            monkeypatch.setattr(repeated_produce, "remember", lambda *_: None)
        rng = random.Random(seed)
        world = World(tmp_path / way)
        versions = [rng.choice(LEARNT_VERSIONS), rng.choice(LEARNT_VERSIONS)]
        for number in range(2):
            world.turn(Mail(SHELL, ConnectionOpened(CONNECTION + number, "kafka", "test")))
        for _ in range(150):
            step(world, rng, versions)
        said.append(world.said)
        short.append(world.short)
    assert not short[1]
    for turn, (one, other) in enumerate(zip(*said, strict=True)):
        assert one == other, f"seed {seed}, turn {turn}"
