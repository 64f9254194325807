"""A broker on the bench: a real `BrokerActor` whose supervisor, coordinator, partitions and clients are the test.

Everything is mail in and effects out (`drive.py`); answers are decoded by the codec that clients use.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from tests.unit.drive import Drive, bodies
from zafka.actors import cluster_state as cs, messages
from zafka.actors.actor import Effect, Mail, Now, Peer, Send
from zafka.actors.broker import BrokerActor
from zafka.actors.gateway.effects import (
    SHELL,
    CloseConnection,
    ConnectionClosed,
    ConnectionOpened,
    FilesRead,
    FramesReceived,
    ReadFiles,
    Respond,
)
from zafka.actors.start import BrokerStart, ListenerStart
from zafka.storage.disk import PosixDisk
from zafka.storage.records import encode_batch
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import read_response_header, request_header, request_writer, response_reader

SUPERVISOR = Peer("supervisor", 1)
COORDINATOR = Peer("coordinator", 7)
BROKER_ID, INCARNATION = 1, 3

LISTENERS = [
    ListenerStart("kafka", "kafka", "127.0.0.1:9092", "127.0.0.1", 9092, -1),
    ListenerStart("outside", "kafka", "0.0.0.0:19092", "broker.example", 19092, -1),
    ListenerStart("zmq", "zmq", "127.0.0.1:9290", "127.0.0.1", 9290, -1),
]


def make_batch(*values: bytes, timestamp_ms: int = 1_000, base_offset: int = 0, **options: Any) -> bytes:
    """One batch with these record values, at `base_offset` as a leader would have stored it."""
    batch = encode_batch([(timestamp_ms, None, value, []) for value in values], **options)
    return base_offset.to_bytes(8, "big") + bytes(batch)[8:]


def topic_id(name: str) -> bytes:
    return name.encode().ljust(16, b"\1")[:16]


class Bench:
    """The broker with what surrounds it. effects: of the last turn."""

    def __init__(self, data_dir: Path, *, topics: Sequence[str] = (), defaults: dict[str, str] | None = None) -> None:
        self.data_dir = data_dir
        start = BrokerStart(BROKER_ID, "a", str(data_dir), LISTENERS, defaults or {}, list(topics))
        self.actor = BrokerActor(start, incarnation=INCARNATION, disk=PosixDisk(), now=Now(100.0, 1_700_000_000_000))
        self.gateway = self.actor.gateway
        self.drive = Drive(self.actor)
        self.effects: list[Effect] = self.drive.start()
        self.cluster_offset = 0
        self._history: list[Any] = []
        self.partitions: dict[tuple[str, int], Peer] = {}
        self._connection_ids = count(1)
        self._incarnations = count(10)

    # -- turns -----------------------------------------------------------------------------------

    def turn(self, *mails: Mail) -> list[Effect]:
        self.effects = self.drive.turn(*mails)
        return self.effects

    def tell(self, sender: Peer, *told: Any, records: bytes = b"") -> list[Effect]:
        return self.turn(*(Mail(sender, body, memoryview(records)) for body in told))

    def pass_time(self, seconds: float) -> list[Effect]:
        self.effects = self.drive.pass_time(seconds)
        return self.effects

    def sent(self, kind: type[Any]) -> list[Any]:
        return bodies(self.effects, kind)

    def sends(self, kind: type[Any]) -> list[Send]:
        return [each for each in self.effects if isinstance(each, Send) and isinstance(each.body, kind)]

    def of(self, kind: type[Any]) -> list[Any]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    # -- supervisor and coordinator --------------------------------------------------------------

    def start(self, *topics: str, running: Sequence[tuple[str, int]] = ()) -> Bench:
        """Register with the coordinator and serve one partition of each of these topics."""
        self.tell(SUPERVISOR, messages.ChildrenTold(list(running)), messages.ActorUp(*COORDINATOR, "ipc://c"))
        self.tell(COORDINATOR, messages.BrokerRegistered("cluster"))
        registered = cs.BrokerRegistered(BROKER_ID, INCARNATION, "a", self.gateway.endpoints)
        history, self._history = self._history, []
        self.commit(cs.ClusterCreated("cluster"), *history, registered)
        for name in topics:
            self.create(name)
            self.serve(name)
        return self

    def commit(self, *events: Any) -> list[Effect]:
        """The coordinator tells committed events; before `start` they are history that it will tell."""
        if self.actor.coordinator is None:
            self._history += events
            return []
        return self.turn(self.committed(*events))

    def committed(self, *events: Any) -> Mail:
        offset = self.cluster_offset
        self.cluster_offset += len(events)
        records = make_batch(*map(cs.encode_event, events), base_offset=offset)
        return Mail(COORDINATOR, messages.ClusterRecords(self.cluster_offset, self.cluster_offset), memoryview(records))

    def create(self, name: str, *, partitions: int = 1, config: dict[str, str] | None = None) -> list[Effect]:
        return self.commit(cs.TopicCreated(topic_id(name), name, [[BROKER_ID]] * partitions, config or {}))

    # -- partitions ------------------------------------------------------------------------------

    def up(self, name: str, partition: int = 0, **fields: Any) -> Peer:
        """A replica's process is recovered and links."""
        peer = self.partitions[name, partition] = Peer(f"partition {name}-{partition}", next(self._incarnations))
        told = {"topic_id": topic_id(name), "leader_epoch": -1, **fields}
        self.tell(peer, messages.ReplicaUp(name, partition, **told))
        return peer

    def lead(self, name: str, partition: int = 0, *, epoch: int = 0) -> list[Effect]:
        """The coordinator commits its claim."""
        incarnation = self.partitions[name, partition].incarnation
        return self.commit(
            cs.LeaderChanged(topic_id(name), partition, BROKER_ID, epoch, epoch, [BROKER_ID], incarnation))

    def serve(self, name: str, partition: int = 0, *, epoch: int = 0, hw: int = 0, position: int = 0) -> Peer:
        peer = self.up(name, partition)
        self.lead(name, partition, epoch=epoch)
        self.tell(peer, messages.Serving(epoch), advanced(hw, position, epoch=epoch))
        return peer

    def down(self, name: str, partition: int = 0) -> list[Effect]:
        return self.tell(SUPERVISOR, messages.ActorDown(*self.partitions[name, partition]))

    # -- clients ---------------------------------------------------------------------------------

    def client(self, listener: str = "kafka", peer: str = "test") -> Client:
        return Client(self, next(self._connection_ids), listener, peer)


def advanced(hw: int, position: int, *, epoch: int = 0, start: int = 0, lso: int = -1, segment: int = 0,
             inode: int = 5) -> messages.Advanced:
    return messages.Advanced(epoch, start, hw, hw if lso < 0 else lso, segment, inode, position)


class Client:
    """One connection. Requests may be many; `answers` takes what the last turn answered, in order."""

    def __init__(self, bench: Bench, connection_id: int, listener: str, peer: str) -> None:
        self.bench = bench
        self.id = connection_id
        self.closed = ""
        self._asked: list[tuple[int, int, int]] = []
        self._answered: list[Any] = []
        self._correlation_ids = count(1)
        bench.turn(Mail(SHELL, ConnectionOpened(connection_id, listener, peer)))

    def mail(self, api: ApiKey, version: int, request: Any) -> Mail:
        """A request as the shell delivers it."""
        correlation_id = next(self._correlation_ids)
        self._asked.append((api, version, correlation_id))
        frame = b"".join([request_header(api, version, correlation_id, "test"), *request_writer(api, version)(request)])
        return Mail(SHELL, FramesReceived([(self.id, memoryview(frame), None)]))

    def send(self, api: ApiKey, version: int, request: Any) -> list[Effect]:
        return self.bench.turn(self.mail(api, version, request))

    def ask(self, api: ApiKey, version: int, request: Any) -> Any:
        """Send, and take the one answer that comes in the same turn."""
        self.send(api, version, request)
        (answer,) = self.answers()
        return answer

    def answers(self) -> list[Any]:
        """The answers of the last turn; each fits the oldest request without one."""
        found = []
        for effect in self.bench.effects:
            if isinstance(effect, Respond) and effect.connection_id == self.id:
                for frame in effect.frames:
                    found.append(self._decode(b"".join(frame)))
            if isinstance(effect, CloseConnection) and effect.connection_id == self.id:
                self.closed = effect.reason
        return found

    def close(self) -> list[Effect]:
        return self.bench.turn(Mail(SHELL, ConnectionClosed(self.id)))

    def _decode(self, frame: bytes) -> Any:
        api, version, correlation_id = self._asked.pop(0)
        got, position = read_response_header(memoryview(frame), api, version)
        assert got == correlation_id
        return response_reader(api, version)(memoryview(frame), position)


def read(bench: Bench, *parts: Any) -> list[Effect]:
    """Answer the read that the last turn asked for."""
    (wanted,) = bench.of(ReadFiles)
    assert len(wanted.slices) == len(parts)
    return bench.turn(Mail(SHELL, FilesRead(wanted.token, parts)))
