"""The broker's process shell with real sockets and files; supervisor, coordinator and partition are the test's mailboxes."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.unit.broker_bench import advanced, make_batch, topic_id
from zafka.actors import broker_shell, cluster_state as cs, messages
from zafka.actors.messages import AnyMessage
from zafka.actors.start import SUPERVISOR, ActorStart, BrokerStart, ListenerStart
from zafka.storage import disk
from zafka.transport import stream
from zafka.transport.door import read_message, write_message
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import (
    read_response_header,
    request_header,
    request_writer,
    response_reader,
    with_length,
)
from zafka.transport.mailbox import Mailbox

WAIT_MS = 30_000
BROKER = ("broker 1", 3)


class Correspondent:
    """One actor that the broker talks with."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self.got: deque[tuple[Any, memoryview]] = deque()

    def wait_for(self, kind: type[Any]) -> tuple[Any, memoryview]:
        """The next message of this kind; others before it are passed over."""
        while True:
            while self.got:
                body, records = self.got.popleft()
                if isinstance(body, kind):
                    return body, records
            poller = zmq.Poller()
            for each in self.mailbox.ports():
                poller.register(each, zmq.POLLIN)
            assert poller.poll(WAIT_MS), f"no {kind.__name__} came"
            self.got += [(body, records) for _, body, records in self.mailbox.receive(100)]

    def tell(self, *bodies: Any, records: bytes = b"") -> None:
        for body in bodies:
            assert self.mailbox.send(BROKER, body, [records] if records else ())


class Stage:
    """A broker that runs in a thread, and all it deals with."""

    def __init__(self, data_dir: Path, run_dir: str, context: zmq.Context[Any]) -> None:
        self.data_dir = data_dir
        self.kafka, self.zmq = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        self.root = Correspondent(
            Mailbox(context, SUPERVISOR, 1, AnyMessage, endpoint=f"ipc://{run_dir}/root"))
        self.coordinator = Correspondent(
            Mailbox(context, "coordinator", 2, AnyMessage, endpoint=f"ipc://{run_dir}/a0.2"))
        self.partition = Correspondent(Mailbox(context, "partition t-0", 4, AnyMessage))
        self.segment = data_dir / "t-0" / "00000000000000000000.log"
        self.segment.parent.mkdir()
        self.segment.touch()
        self.exit_code: int | None = None
        self.start = ActorStart(
            "broker 1", 3, "", "", self._arguments(), 1, f"ipc://{run_dir}/root", f"unix://{run_dir}/a1.3", 0.1)
        self.run_dir = run_dir
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _arguments(self) -> BrokerStart:
        listeners = []
        for name, listening in (("kafka", self.kafka), ("zmq", self.zmq)):
            host, port = listening.getsockname()
            listeners.append(ListenerStart(name, name, f"{host}:{port}", host, port, listening.fileno()))
        return BrokerStart(1, "", str(self.data_dir), listeners, {}, ["t"])

    def _run(self) -> None:
        self.exit_code = broker_shell.main(self.start)

    def serve(self) -> None:
        """Up to the point where clients are let in: one partition leads and has nothing yet."""
        self.thread.start()
        self.root.wait_for(messages.Started)
        self.root.wait_for(messages.WhichChildren)
        up = messages.ActorUp("coordinator", 2, f"ipc://{self.run_dir}/a0.2")
        self.root.tell(messages.ChildrenTold([("t", 0)]), up)
        register, _ = self.coordinator.wait_for(messages.RegisterBroker)
        self.coordinator.tell(messages.BrokerRegistered("c"))
        events: list[cs.AnyEvent] = [
            cs.ClusterCreated("c"), cs.TopicCreated(topic_id("t"), "t", [[1]]),
            cs.BrokerRegistered(1, 3, "", register.endpoints), cs.LeaderChanged(topic_id("t"), 0, 1, 0, 0, [1], 4)]
        records = make_batch(*map(cs.encode_event, events))
        self.coordinator.tell(messages.ClusterRecords(4, 4), records=records)
        self.partition.mailbox.connect(*BROKER, f"unix://{self.run_dir}/a1.3")
        self.partition.tell(messages.ReplicaUp("t", 0, topic_id("t"), 0))
        self.partition.wait_for(messages.BecomeLeader)
        self.partition.tell(messages.Serving(0), advanced(0, 0, inode=self.inode))
        self.root.wait_for(messages.Ready)

    @property
    def inode(self) -> int:
        return self.segment.stat().st_ino

    def stop(self) -> None:
        self.root.tell(messages.Shutdown())
        ended, _ = self.root.wait_for(messages.Exiting)
        self.thread.join(WAIT_MS / 1000)
        assert (ended.code, self.exit_code) == (0, 0)

    def close(self) -> None:
        for each in (self.root, self.coordinator, self.partition):
            each.mailbox.close()
        self.zmq.close()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    context: zmq.Context[Any] = zmq.Context()
    with tempfile.TemporaryDirectory(prefix="zafka-test") as run_dir:
        stage = Stage(tmp_path, run_dir, context)
        stage.serve()
        yield stage
        if stage.thread.is_alive():
            stage.stop()
        stage.close()
        context.destroy(linger=0)


def frame_of(api: ApiKey, version: int, request: Any) -> list[bytes]:
    return [request_header(api, version, 7, "test"), *map(bytes, request_writer(api, version)(request))]


def decode(api: ApiKey, version: int, frame: bytes) -> Any:
    _, position = read_response_header(memoryview(frame), api, version)
    return response_reader(api, version)(memoryview(frame), position)


class TcpClient:
    def __init__(self, listening: socket.socket) -> None:
        self.socket = socket.create_connection(listening.getsockname(), WAIT_MS / 1000)
        self.file = self.socket.makefile("rb")

    def send(self, *requests: tuple[ApiKey, int, Any]) -> None:
        """Requests that arrive together."""
        frames = []
        for request in requests:
            header, *body = frame_of(*request)
            frames += with_length(header, body)
        self.socket.sendall(b"".join(frames))

    def answer(self, api: ApiKey, version: int) -> Any:
        return decode(api, version, self.file.read(int.from_bytes(self.file.read(4), "big")))


def produce(batch: bytes) -> kafka.ProduceRequest:
    data = [kafka.PartitionProduceData(0, memoryview(batch))]
    return kafka.ProduceRequest(None, -1, 30_000, [kafka.TopicProduceData(name="t", partition_data=data)])


FETCH = kafka.FetchRequest(
    max_wait_ms=100_000, min_bytes=1,
    topics=[kafka.FetchTopic(topic="t", partitions=[kafka.FetchPartition(0, partition_max_bytes=1 << 20)])])


@pytest.mark.parametrize("cached", [True, False])
def test_a_record_goes_in_and_out_over_tcp(stage: Stage, cached: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zafka.storage.disk.READ_NOWAIT", disk.READ_NOWAIT if cached else 0)
    client, reader = TcpClient(stage.kafka), TcpClient(stage.kafka)
    reader.send((ApiKey.FETCH, 12, FETCH))
    batch = make_batch(b"v" * 50_000)
    client.send((ApiKey.PRODUCE, 9, produce(batch)))
    handed, records = stage.partition.wait_for(messages.Produce)
    assert records == batch
    stage.segment.write_bytes(batch)
    stage.partition.tell(
        advanced(1, len(batch), inode=stage.inode),
        messages.Produced([messages.ProduceAnswer(handed.items[0].request_id, 0, 0, -1, 0)]))
    assert client.answer(ApiKey.PRODUCE, 9).responses[0].partition_responses[0].base_offset == 0
    assert reader.answer(ApiKey.FETCH, 12).responses[0].partitions[0].records == batch
    # A place that only the partition knows, in bytes that may be cold: checked, and in a thread if the page cache may not have them.
    late = TcpClient(stage.kafka)
    late.send((ApiKey.FETCH, 12, FETCH))
    asked, _ = stage.partition.wait_for(messages.Locate)
    stage.partition.tell(messages.Located(asked.request_id, 0, 0, stage.inode, 0, len(batch), 1, 1, 0))
    assert late.answer(ApiKey.FETCH, 12).responses[0].partitions[0].records == batch


@pytest.fixture
def nothing_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets that take little at once, and no mail but what is asked for. To be asked for before `stage`."""
    monkeypatch.setattr(stream, "BUFFER_BYTES", 4096)
    monkeypatch.setattr(Mailbox, "pulse", lambda mailbox: None)


@pytest.mark.usefixtures("nothing_helps", "stage")
def test_what_a_partition_did_not_take_at_once_follows_by_itself(stage: Stage) -> None:
    """Far more than the kernel holds, and nothing is sent behind it."""
    client = TcpClient(stage.kafka)
    batch = make_batch(bytes(4_000_000))
    client.send((ApiKey.PRODUCE, 9, produce(batch)))
    _, records = stage.partition.wait_for(messages.Produce)
    assert records == batch


def test_the_zmq_door_leads_to_the_same_gateway(stage: Stage) -> None:
    host, port = stage.zmq.getsockname()
    with zmq.Context() as context, context.socket(zmq.DEALER) as guest:
        guest.setsockopt(zmq.LINGER, 0)
        guest.connect(f"tcp://{host}:{port}")
        for body in (b"", b"".join(frame_of(ApiKey.METADATA, 9, kafka.MetadataRequest(topics=None)))):
            guest.send_multipart(write_message(5, 3, body))
        assert guest.poll(WAIT_MS) and read_message(guest.recv_multipart()).incarnation == 3
        assert guest.poll(WAIT_MS)
        answer = decode(ApiKey.METADATA, 9, bytes(read_message(guest.recv_multipart()).body))
        assert [(broker.host, broker.port) for broker in answer.brokers] == [(host, port)]
        assert [topic.name for topic in answer.topics] == ["t"]


def test_heartbeats_go_on_and_deadlines_ring_while_nothing_comes(stage: Stage) -> None:
    client = TcpClient(stage.kafka)
    client.send((ApiKey.FETCH, 12, kafka.FetchRequest(max_wait_ms=300, min_bytes=1, topics=FETCH.topics)))
    for _ in range(3):
        heartbeat, _ = stage.root.wait_for(messages.Heartbeat)
        assert heartbeat.state == "running"
    assert client.answer(ApiKey.FETCH, 12).responses[0].partitions[0].records == b""


def test_a_request_that_is_none_ends_its_connection(stage: Stage) -> None:
    client = TcpClient(stage.kafka)
    client.socket.sendall((8).to_bytes(4, "big") + b"\0\0\0\2\0\0\0\0")
    assert client.file.read() == b""


def test_shutdown_answers_what_waits_and_ends(stage: Stage) -> None:
    client = TcpClient(stage.kafka)
    client.send((ApiKey.PRODUCE, 9, produce(make_batch(b"v"))))
    handed, _ = stage.partition.wait_for(messages.Produce)
    poll = TcpClient(stage.kafka)
    poll.send((ApiKey.API_VERSIONS, 0, kafka.ApiVersionsRequest()), (ApiKey.FETCH, 12, FETCH))
    assert poll.answer(ApiKey.API_VERSIONS, 0).error_code == 0
    stage.root.tell(messages.Shutdown())
    assert poll.answer(ApiKey.FETCH, 12).responses[0].partitions[0].records == b""
    stage.partition.tell(messages.Produced([messages.ProduceAnswer(handed.items[0].request_id, 0, 0, -1, 0)]))
    assert client.answer(ApiKey.PRODUCE, 9).responses[0].partition_responses[0].error_code == 0
    ended, _ = stage.root.wait_for(messages.Exiting)
    stage.thread.join(WAIT_MS / 1000)
    assert (ended.code, stage.exit_code) == (0, 0)
