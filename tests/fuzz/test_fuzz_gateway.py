"""Strangers at the gateway: whatever bytes come, the broker goes on, and what came is answered or ends its connection.

Valid requests with odd values, mutated frames, and answers of partitions in any order, to a broker without IO.
`FUZZ_EXAMPLES` says how many are tried.
"""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.unit.broker_bench import Bench, advanced, make_batch, topic_id
from zafka.actors import messages
from zafka.actors.actor import Mail, Send
from zafka.actors.gateway.effects import (
    SHELL,
    CloseConnection,
    ConnectionClosed,
    ConnectionOpened,
    FilesRead,
    FramesReceived,
    ReadFault,
    ReadFiles,
    Respond,
)
from zafka.actors.gateway.fetch_session import FetchSessions
from zafka.actors.gateway.registry import APIS
from zafka.storage.location import NEVER_HOT
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.codec import request_header, request_writer

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))
ROUNDS = 60

NAMES = ["t", "none", "", "t" * 300, "a b", "__cluster"]
NUMBERS = [0, 1, -1, 2, 7, 2**31 - 1, -(2**31)]
LONG_NUMBERS = [0, 1, -1, -2, -3, -9, 2**63 - 1, -(2**63)]
BATCH = make_batch(b"value")


def requests(rng: random.Random) -> list[tuple[int, Any]]:
    """One request of each API with values that no client sends, or that every client sends."""

    def number() -> int:
        return rng.choice(NUMBERS)

    def long_number() -> int:
        return rng.choice(LONG_NUMBERS)

    def name() -> str:
        return rng.choice(NAMES)

    records = memoryview(rng.choice([BATCH, b"", BATCH[:30], BATCH + BATCH]))
    small = rng.choice([0, 1, -1, 32767])
    partitions = [0, number()]
    return [
        (0, kafka.ProduceRequest(None, small, number(), [kafka.TopicProduceData(
            topic_id(name()), name(), partition_data=[kafka.PartitionProduceData(each, records) for each in partitions])])),
        (1, kafka.FetchRequest(
            max_wait_ms=number(), min_bytes=number(), max_bytes=number(), isolation_level=rng.choice([0, 1, 7]),
            session_id=rng.choice([0, 1, 2, 3, number()]), session_epoch=rng.choice([0, 0, -1, 1, 2, 3, number()]),
            replica_id=rng.choice([-1, number()]), topics=[kafka.FetchTopic(topic_id(name()), name(), partitions=[
                kafka.FetchPartition(
                    each, rng.choice([-1, number()]), long_number(), rng.choice([-1, 0, number()]),
                    partition_max_bytes=number())
                for each in partitions])],
            forgotten_topics_data=[kafka.ForgottenTopic(topic_id(name()), name(), [number()])])),
        (2, kafka.ListOffsetsRequest(number(), rng.choice([0, 1]), [kafka.ListOffsetsTopic(
            name(), [kafka.ListOffsetsPartition(each, number(), long_number()) for each in partitions])])),
        (3, kafka.MetadataRequest([kafka.MetadataRequestTopic(name=name()) for _ in range(3)])),
        (10, kafka.FindCoordinatorRequest(name(), rng.choice([0, 1, 2, 127]), [name()])),
        (18, kafka.ApiVersionsRequest(name(), name())),
        (19, kafka.CreateTopicsRequest([kafka.CreatableTopic(
            name(), number(), small, [kafka.CreatableReplicaAssignment(number(), [number()])],
            [kafka.CreatableTopicConfig(name(), None)])], number(), rng.random() < 0.5)),
        (20, kafka.DeleteTopicsRequest(
            [kafka.DeleteTopicState(rng.choice([None, name()]), rng.choice([bytes(16), topic_id("t")]))],
            [name()], number())),
        (22, kafka.InitProducerIdRequest(rng.choice([None, name()]), number(), long_number(), small)),
        (23, kafka.OffsetForLeaderEpochRequest(number(), [kafka.OffsetForLeaderTopic(name(), [
            kafka.OffsetForLeaderPartition(each, number(), number()) for each in partitions])])),
        (32, kafka.DescribeConfigsRequest(
            [kafka.DescribeConfigsResource(rng.choice([2, 4, 8]), name(), rng.choice([None, [name()]]))],
            True, True)),
    ]  # fmt: skip


def mutate(rng: random.Random, frame: bytearray) -> bytearray:
    for _ in range(rng.randrange(3)):
        if frame and rng.random() < 0.7:
            frame[rng.randrange(len(frame))] = rng.choice([0, 1, 255, 127, rng.randrange(256)])
        else:
            del frame[rng.randrange(len(frame) + 1) :]
    return frame


class FewIds(random.Random):
    """So that requests find a session now and then."""

    def randint(self, a: int, b: int) -> int:
        return self.randrange(1, 5)


class Chaos:
    """Plays all whom the broker deals with, badly."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.bench = Bench(Path(tempfile.mkdtemp())).start("t")
        self.bench.gateway.fetch_sessions = FetchSessions(slots=3, random=FewIds(seed))
        self.connections: dict[int, list[int]] = {}  # requests without an answer, if there is to be one
        self.owed: list[tuple[Any, Any]] = []
        self.reads: list[Any] = []
        self.ids = 0

    def turn(self) -> None:
        mails = [self.mail() for _ in range(self.rng.randrange(1, 6))]
        self.perform(self.bench.turn(*filter(None, mails)))

    def mail(self) -> Mail | None:
        rng = self.rng
        choice = rng.random()
        if choice < 0.15 or not self.connections:
            self.ids += 1
            self.connections[self.ids] = []
            return Mail(SHELL, ConnectionOpened(self.ids, rng.choice(["kafka", "zmq", "unknown"]), "p"))
        if choice < 0.2:
            gone = rng.choice(list(self.connections))
            del self.connections[gone]
            return Mail(SHELL, ConnectionClosed(gone))
        if choice < 0.3 and self.owed:
            return Mail(*self.owed.pop(rng.randrange(len(self.owed))))
        if choice < 0.4 and self.reads:
            read = self.reads.pop()
            parts: list[Any] = [rng.choice([BATCH, b"", BATCH[:20], ReadFault.GONE, ReadFault.CORRUPT]) for _ in read.slices]
            return Mail(SHELL, FilesRead(read.token, parts))
        if choice < 0.45:
            peer = self.bench.partitions["t", 0]
            return Mail(peer, advanced(rng.randrange(20), rng.randrange(2000), segment=rng.choice([0, 5])))
        return self.frame()

    def frame(self) -> Mail:
        rng = self.rng
        key, request = rng.choice(requests(rng))
        version = rng.choice(list(APIS[key].versions))
        connection_id = rng.choice(list(self.connections))
        head = request_header(key, version, 7, "c")
        frame = bytearray(b"".join([head, *request_writer(key, version)(request)]))
        self.connections[connection_id].append(key)
        return Mail(SHELL, FramesReceived([(connection_id, memoryview(bytes(mutate(rng, frame))), None)]))

    def perform(self, effects: list[Any]) -> None:
        closed = []
        for effect in effects:
            if isinstance(effect, Respond):
                waiting = self.connections.get(effect.connection_id, [])
                assert len(effect.frames) <= len(waiting)
                del waiting[: len(effect.frames)]
            elif isinstance(effect, CloseConnection):
                self.connections.pop(effect.connection_id, None)
                closed.append(Mail(SHELL, ConnectionClosed(effect.connection_id)))
            elif isinstance(effect, ReadFiles):
                self.reads.append(effect)
            elif isinstance(effect, Send):
                self.owe(effect)
        if closed:
            self.perform(self.bench.turn(*closed))

    def owe(self, sent: Send) -> None:
        rng, body = self.rng, sent.body
        if isinstance(body, messages.Produce):
            answers = [messages.ProduceAnswer(item.request_id, rng.choice([0, 3, 87]), 1, -1, 0) for item in body.items]
            self.owed.append((sent.to, messages.Produced(answers)))
        elif isinstance(body, messages.Locate):
            told = messages.Located(
                body.request_id, rng.choice([0, 0, 1]), 0, 5, 0, rng.choice([0, len(BATCH), 500]), 9, 9, 0,
                rng.choice([0, NEVER_HOT]), rng.choice([-1, -1, 3]), 1)
            self.owed.append((sent.to, told))
        elif isinstance(body, messages.ListOffset):
            self.owed.append((sent.to, messages.OffsetListed(body.request_id, 0, 1, 2, 3)))
        elif isinstance(body, messages.FindEpochEnd):
            self.owed.append((sent.to, messages.EpochEnd(body.request_id, 0, 1, 2)))


@pytest.mark.parametrize("block", range(10))
def test_the_broker_survives_strangers_and_owes_nobody_anything(block: int) -> None:
    for seed in range(block * EXAMPLES // 10, (block + 1) * EXAMPLES // 10):
        chaos = Chaos(seed)
        for _ in range(ROUNDS):
            chaos.turn()
        # An hour later every request has had its answer or its timeout, and nothing is held any more.
        for _ in range(8):
            while chaos.owed or chaos.reads:
                mails = [Mail(*chaos.owed.pop()) for _ in range(len(chaos.owed))]
                mails += [Mail(SHELL, FilesRead(read.token, [b""] * len(read.slices))) for read in chaos.reads]
                chaos.reads = []
                chaos.perform(chaos.bench.turn(*mails))
            chaos.perform(chaos.bench.pass_time(3700))
        gateway = chaos.bench.gateway
        assert len(gateway.deadlines) == 0, seed
        assert gateway.connections.held == 0, (seed, [*gateway.connections.by_id.values()])
        assert not any(connection.exchanges for connection in gateway.connections.by_id.values()), seed
