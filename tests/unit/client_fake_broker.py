"""A broker of one thread for tests of the client: both doors, real bytes, and faults on demand.

It keeps batches in memory and checks idempotent producers as Kafka does (sequence, epoch, the last five batches).
`fault` is asked for each request before (`"drop"`, `"hang"`, or an error code) and after it was carried out (`"lose"`).
"""

from __future__ import annotations

import itertools
import selectors
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Self

import zmq

from zafka.storage.batch import batch_prefix, read_header
from zafka.storage.records import decode_batch
from zafka.transport.direct import Told, Where, encode, read_where
from zafka.transport.door import WHERE, Arrival, judge_arrival, read_message, set_door_options, write_message
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import (
    read_request_header,
    request_reader,
    response_header,
    response_writer,
)
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import (
    ApiVersion,
    ApiVersionsResponse,
    FetchResponse,
    InitProducerIdResponse,
    ListOffsetsResponse,
    MetadataResponse,
    ProduceResponse,
)
from zafka.transport.kafka.messages.fetch import FetchableTopicResponse, PartitionData
from zafka.transport.kafka.messages.list_offsets import ListOffsetsPartitionResponse, ListOffsetsTopicResponse
from zafka.transport.kafka.messages.metadata import (
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from zafka.transport.kafka.messages.produce import PartitionProduceResponse, TopicProduceResponse

VERSIONS = {
    ApiKey.PRODUCE: (0, 11), ApiKey.FETCH: (4, 12), ApiKey.LIST_OFFSETS: (1, 7), ApiKey.METADATA: (0, 12),
    ApiKey.API_VERSIONS: (0, 4), ApiKey.INIT_PRODUCER_ID: (0, 4),
}  # fmt: skip

Fault = Callable[[ApiKey, str], str | int | None]  # (API, "before" or "after") -> what goes wrong


class FakePartition:
    """A log of batches, and what it remembers of producers."""

    def __init__(self) -> None:
        self.batches: list[bytes] = []
        self.end_offset = 0
        self.producers: dict[int, tuple[int, deque[tuple[int, int, int]]]] = {}  # epoch, (sequence, last, base offset)

    def append(self, records: memoryview) -> tuple[int, int]:
        """(error code, base offset)."""
        header = read_header(records)
        if header.producer_id >= 0:
            epoch, recent = self.producers.get(header.producer_id, (header.producer_epoch, deque(maxlen=5)))
            first = header.base_sequence
            last = (first + header.record_count - 1) & 0x7FFFFFFF
            if header.producer_epoch < epoch:
                return ErrorCode.INVALID_PRODUCER_EPOCH, -1
            for sequence, end, offset in recent:
                if header.producer_epoch == epoch and (sequence, end) == (first, last):
                    return 0, offset
            if header.producer_epoch > epoch:
                if first != 0:
                    return ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1
                epoch, recent = header.producer_epoch, deque(maxlen=5)
            elif first != ((recent[-1][1] + 1) & 0x7FFFFFFF if recent else 0):
                return ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1
            recent.append((first, last, self.end_offset))
            self.producers[header.producer_id] = (epoch, recent)
        base = self.end_offset
        prefix = batch_prefix(base_offset=base, batch_length=header.batch_length, leader_epoch=0)
        self.batches.append(prefix + bytes(records[16:]))
        self.end_offset += header.record_count
        return 0, base

    def at(self, timestamp: int) -> tuple[int, int]:
        """The first record that is no earlier, and its time; -1 and -1 if there is none."""
        records = (record for data in self.batches for record in decode_batch(data, read_header(data)))
        return next(((record.offset, record.timestamp) for record in records if record.timestamp >= timestamp), (-1, -1))


class FakeBroker:
    """door: "kafka" or "zmq". The state survives `restart`, as a log does."""

    def __init__(
        self, topics: dict[str, int], door: str = "kafka", *, versions: dict[ApiKey, Any] | None = None
    ) -> None:
        self.door = door
        self.topics = {name: [FakePartition() for _ in range(count)] for name, count in topics.items()}
        self.versions = VERSIONS if versions is None else versions
        self.fault: Fault = lambda api, when: None
        self.requests: list[tuple[ApiKey, Any]] = []
        self.asked: list[Where] = []
        self.tell: Callable[[Where], Told] | None = None  # the way past it; None: it does not know the question
        self.incarnation = 7
        self.port = 0
        self._producer_ids = itertools.count(1000)
        self._context = zmq.Context()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._context.destroy(linger=0)

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}" if self.door == "zmq" else f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self._stop.clear()
        listen = self._listen_zmq if self.door == "zmq" else self._listen_tcp
        serve = listen()
        self._thread = threading.Thread(target=serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)
            assert not self._thread.is_alive()

    def restart(self) -> None:
        self.stop()
        self.incarnation += 1
        self.start()

    def count(self, api: ApiKey) -> int:
        return sum(key == api for key, _ in self.requests)

    # -- the two doors ---------------------------------------------------------------------------

    def _listen_tcp(self) -> Callable[[], None]:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        self.port = listener.getsockname()[1]

        def serve() -> None:
            connections: dict[socket.socket, bytearray] = {}
            with selectors.DefaultSelector() as selector:
                selector.register(listener, selectors.EVENT_READ)
                while not self._stop.is_set():
                    for key, _ in selector.select(0.01):
                        if key.fileobj is listener:
                            accepted = listener.accept()[0]
                            connections[accepted] = bytearray()
                            selector.register(accepted, selectors.EVENT_READ)
                        elif isinstance(key.fileobj, socket.socket) and not self._read_tcp(key.fileobj, connections):
                            selector.unregister(key.fileobj)
                            connections.pop(key.fileobj)
                            key.fileobj.close()
            for one in (listener, *connections):
                one.close()

        return serve

    def _read_tcp(self, connection: socket.socket, connections: dict[socket.socket, bytearray]) -> bool:
        try:
            data = connection.recv(1 << 20)
        except OSError:
            return False
        pending = connections[connection]
        pending += data
        while len(pending) >= 4:
            (length,) = struct.unpack_from(">i", pending)
            if length < 0:
                return False
            if len(pending) < 4 + length:
                break
            frame = bytes(pending[4 : 4 + length])
            del pending[: 4 + length]
            answer = self.handle(memoryview(frame))
            if answer is None:
                return False
            if answer:
                connection.sendall(struct.pack(">i", len(answer)) + answer)
        return bool(data)

    def _listen_zmq(self) -> Callable[[], None]:
        router: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        set_door_options(router)
        if self.port:
            self._bind_again(router)
        else:
            self.port = router.bind_to_random_port("tcp://127.0.0.1")

        def serve() -> None:
            while not self._stop.is_set():
                if not router.poll(10):
                    continue
                route, *frames = router.recv_multipart()
                message = read_message(frames)
                arrival = judge_arrival(message, self.incarnation)
                body: bytes | None = b""
                if arrival is Arrival.WHERE:
                    where = read_where(message.body)
                    self.asked.append(where)
                    if self.tell is not None:
                        answer = write_message(message.session, WHERE, encode(self.tell(where)))
                        router.send_multipart([route, *answer])
                    continue
                if arrival is Arrival.REQUEST:
                    body = self.handle(memoryview(message.body))
                    if body == b"":
                        continue  # it hangs
                elif arrival is Arrival.GOODBYE:
                    continue
                incarnation = self.incarnation if body is not None else -1
                router.send_multipart([route, *write_message(message.session, incarnation, body or b"")])
            router.close(linger=0)

        return serve

    def _bind_again(self, router: zmq.Socket[bytes]) -> None:
        """ZeroMQ lets go of a port some time after `close`."""
        for attempt in itertools.count():
            try:
                router.bind(f"tcp://127.0.0.1:{self.port}")
            except zmq.ZMQError:
                if attempt > 1000:
                    raise
                self._stop.wait(0.005)
            else:
                return

    # -- requests --------------------------------------------------------------------------------

    def handle(self, frame: memoryview) -> bytes | None:
        """The answer; b"" for none, None to close the connection."""
        header = read_request_header(frame)
        api = ApiKey(header.api_key)
        first, last = self.versions.get(api, (0, -1))
        if api is ApiKey.API_VERSIONS and not first <= header.version <= last:
            answer = ApiVersionsResponse(error_code=ErrorCode.UNSUPPORTED_VERSION, api_keys=self._ranges())
            return self._frame(api, 0, header.correlation_id, answer)
        assert first <= header.version <= last, f"{api.name} {header.version}"
        request = request_reader(api, header.version)(frame, header.body_position)
        self.requests.append((api, request))
        fault = self.fault(api, "before")
        if fault == "drop":
            return None
        if fault == "hang":
            return b""
        answer = getattr(self, f"_{api.name.lower()}")(request, fault)
        if self.fault(api, "after") == "lose":
            return None
        if api is ApiKey.PRODUCE and request.acks == 0:
            return b""
        return self._frame(api, header.version, header.correlation_id, answer)

    def _frame(self, api: ApiKey, version: int, correlation_id: int, answer: Any) -> bytes:
        return response_header(api, version, correlation_id) + b"".join(response_writer(api, version)(answer))

    def _ranges(self) -> list[ApiVersion]:
        return [
            ApiVersion(api_key=api, min_version=low, max_version=high) for api, (low, high) in self.versions.items()
        ]

    def _api_versions(self, request: Any, fault: Any) -> Any:
        return ApiVersionsResponse(api_keys=self._ranges())

    def _metadata(self, request: Any, fault: Any) -> Any:
        names: Sequence[str] = list(self.topics) if request.topics is None else [topic.name for topic in request.topics]
        topics = []
        for name in names:
            partitions = [
                MetadataResponsePartition(
                    partition_index=index, leader_id=1, leader_epoch=0, replica_nodes=[1], isr_nodes=[1]
                )
                for index in range(len(self.topics.get(name, ())))
            ]
            code = 0 if partitions else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            topics.append(MetadataResponseTopic(error_code=code, name=name, partitions=partitions))
        broker = MetadataResponseBroker(node_id=1, host="127.0.0.1", port=self.port)
        return MetadataResponse(brokers=[broker], cluster_id="fake", controller_id=1, topics=topics)

    def _init_producer_id(self, request: Any, fault: Any) -> Any:
        return InitProducerIdResponse(producer_id=next(self._producer_ids), producer_epoch=0)

    def _produce(self, request: Any, fault: Any) -> Any:
        responses = []
        for topic in request.topic_data:
            parts = []
            for part in topic.partition_data:
                if isinstance(fault, int):
                    parts.append(PartitionProduceResponse(index=part.index, error_code=fault, base_offset=-1))
                else:
                    code, base = self.topics[topic.name][part.index].append(part.records)
                    parts.append(PartitionProduceResponse(index=part.index, error_code=code, base_offset=base))
            responses.append(TopicProduceResponse(name=topic.name, partition_responses=parts))
        return ProduceResponse(responses=responses)

    def _fetch(self, request: Any, fault: Any) -> Any:
        """Answers at once, also when there is nothing: the client must not depend on the wait."""
        responses = []
        for topic in request.topics:
            parts = []
            for part in topic.partitions:
                log = self.topics[topic.topic][part.partition]
                data = PartitionData(
                    partition_index=part.partition, high_watermark=log.end_offset, records=memoryview(b"")
                )
                if isinstance(fault, int):
                    data.error_code = fault
                elif part.fetch_offset > log.end_offset:
                    data.error_code = ErrorCode.OFFSET_OUT_OF_RANGE
                else:
                    batches = [one for one in log.batches if read_header(one).next_offset > part.fetch_offset]
                    joined = b"".join(batches)[: max(part.partition_max_bytes, len(batches[0]))] if batches else b""
                    data.records = memoryview(joined)
                parts.append(data)
            responses.append(FetchableTopicResponse(topic=topic.topic, partitions=parts))
        return FetchResponse(responses=responses)

    def _list_offsets(self, request: Any, fault: Any) -> Any:
        topics = []
        for topic in request.topics:
            parts = []
            for part in topic.partitions:
                log = self.topics[topic.name][part.partition_index]
                offset, timestamp = log.end_offset if part.timestamp == -1 else 0, -1
                if part.timestamp >= 0:
                    offset, timestamp = log.at(part.timestamp)
                code = fault if isinstance(fault, int) else 0
                parts.append(ListOffsetsPartitionResponse(part.partition_index, code, timestamp=timestamp, offset=offset))
            topics.append(ListOffsetsTopicResponse(name=topic.name, partitions=parts))
        return ListOffsetsResponse(topics=topics)
