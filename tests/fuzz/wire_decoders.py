"""Decoders of what comes over a wire: Kafka's requests and answers, TCP streams, door messages, envelopes, control requests."""

from __future__ import annotations

import asyncio
import json
import struct
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import count
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import zmq

from tests.fuzz.engine import Decoder, Parts
from tests.kafka_oracle import APIS, kio_class, kio_write, random_message
from zafka.actors import messages
from zafka.runtime.control import ControlServer
from zafka.runtime.faults.kinds import FaultError, decode_fault
from zafka.runtime.supervisor import Supervisor
from zafka.storage.records import encode_batch
from zafka.transport import direct, door, envelope
from zafka.transport.arena import Mapped, Offer
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import (
    MalformedMessage,
    UnsupportedVersion,
    read_request_header,
    read_response_header,
    request_header,
    request_reader,
    response_header,
    response_reader,
    supported_versions,
)
from zafka.transport.kafka.connection import Connection
from zafka.transport.kafka.listener import Limits, Listener

KAFKA_WORDS = [b"\x00\x01t", b"\x02t", b"\x00\x00\x00\x01", b"\x00\x00\x00\x02", b"\x01", b"\x02", b"__cluster", b"\xc3\x28"]


# -- Kafka's requests and answers ---------------------------------------------------------------------


def make_request(key: ApiKey, rng: Random) -> Parts:
    version = rng.choice(supported_versions(key))
    head = request_header(key, version, rng.randrange(2**31), rng.choice((None, "", "client")))
    return [head + kio_write(random_message(kio_class(key, "request", version), rng))]


def read_request(parts: Parts) -> None:
    """As the gateway does: the header, then the message, of any version that the codec has."""
    frame = memoryview(parts[0])
    header = read_request_header(frame)
    assert 10 <= header.body_position <= len(frame)
    try:
        read = request_reader(header.api_key, header.version)
    except UnsupportedVersion:
        return  # the gateway looks in its registry first
    read(frame, header.body_position)


def make_answer(key: ApiKey, rng: Random) -> Parts:
    version = rng.choice(supported_versions(key))
    body = kio_write(random_message(kio_class(key, "response", version), rng))
    return [struct.pack(">h", version), response_header(key, version, 7) + body]


def read_answer(key: ApiKey, parts: Parts) -> None:
    """As our client does: which layout it is comes from what was asked, never from the bytes."""
    asked = int.from_bytes(parts[0][:2], "big")
    versions = supported_versions(key)
    version = versions[asked % len(versions)]
    frame = memoryview(parts[-1])
    _correlation_id, position = read_response_header(frame, key, version)
    assert position <= len(frame)
    response_reader(key, version)(frame, position)


# -- a TCP stream -------------------------------------------------------------------------------------

FRAME_BYTES_MAX = 1 << 20


class _Wire:
    """The transport of a connection that writes to nobody."""

    def __init__(self) -> None:
        self.closed = False

    def get_extra_info(self, name: str) -> object:
        return ("127.0.0.1", 1) if name == "peername" else None

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    close = write_eof = abort

    def set_write_buffer_limits(self, high: int) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def make_stream(rng: Random) -> Parts:
    frames = b"".join(
        struct.pack(">i", size) + rng.randbytes(size)
        for size in (rng.choice((0, 1, 3, 100, 5000, 70_000, 200_000)) for _ in range(rng.randrange(1, 5))))
    cuts = sorted(rng.randrange(len(frames) + 1) for _ in range(rng.randrange(6)))
    return [frames[start:end] for start, end in zip([0, *cuts], [*cuts, len(frames)], strict=True)]


def whole_frames(data: bytes, least: int = 0) -> tuple[list[bytes], bool]:
    """What a stream says by its definition: its whole frames, and whether a length in it may not be."""
    frames, position = [], 0
    while len(data) - position >= 4:
        (size,) = struct.unpack_from(">i", data, position)
        if not least <= size <= FRAME_BYTES_MAX:
            return frames, True
        if position + 4 + size > len(data):
            break
        frames.append(data[position + 4 : position + 4 + size])
        position += 4 + size
    return frames, False


def read_stream(parts: Parts) -> None:
    """Frames come out as they are, however they were split, and a bad length ends the connection with one word."""
    frames: list[bytes] = []
    bad: list[str] = []
    closed: list[int] = []

    async def scenario() -> None:
        listener = Listener(
            on_open=lambda *_: None, on_frame=lambda _, frame: frames.append(bytes(frame)), on_close=closed.append,
            on_bad_peer=lambda _, reason: bad.append(reason), limits=Limits(frame_bytes_max=FRAME_BYTES_MAX))
        connection, wire = Connection(listener, "kafka"), _Wire()
        connection.connection_made(cast(asyncio.BaseTransport, wire))
        for part in parts:
            position = 0
            while position < len(part) and not wire.closed:
                room = connection.get_buffer(-1)
                piece = part[position : position + len(room)]
                room[: len(piece)] = piece
                connection.buffer_updated(len(piece))
                position += len(piece)
        connection.connection_lost(None)

    _run(scenario())
    expected, is_bad = whole_frames(b"".join(parts))
    assert frames == expected and len(bad) == is_bad and len(closed) == 1


def _run(coroutine: Any) -> None:
    _loop().run_until_complete(coroutine)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


# -- the ZeroMQ door, envelopes, control --------------------------------------------------------------


def make_door_message(rng: Random) -> Parts:
    header, body = door.write_message(rng.choice((0, 1, 2**62, 2**63 - 1)), rng.choice((-1, 0, 7)), rng.randbytes(9))
    return [header, bytes(body)]


def read_door_message(parts: Parts) -> None:
    message = door.read_message(parts)
    door.judge_arrival(message, 7)
    again = door.read_message(door.write_message(message.session, message.incarnation, message.body))
    assert again == message  # the broker repeats a session in all that it sends


def make_where(rng: Random) -> Parts:
    topic, partition = rng.choice(("t", "t" * 249)), rng.choice((0, 7, -1, 2**31 - 1))
    told = direct.Told(topic, partition, rng.choice((-1, 3, 2**62)), rng.choice((-1, 0, 5)), rng.choice(("", "/run/zafka-run-1-01234567/d3")))
    return [direct.encode(rng.choice((direct.Where(topic, partition), told)))]


def read_where(parts: Parts) -> None:
    """The broker's side and the client's."""
    body = b"".join(parts)
    try:
        direct.is_ours(direct.read_told(body).path)
    finally:
        where = direct.read_where(body)
    assert direct.read_where(direct.encode(where)) == where


def make_direct_stream(rng: Random) -> Parts:
    frames = [
        direct.request_head(rng.randrange(1 << 31), rng.choice((3, -1, 2**62)), rng.choice((-1, 0, 5))) + rng.randbytes(size)
        for size in (rng.choice((1, 61, 5000, 200_000)) for _ in range(rng.randrange(1, 5)))]
    stream = b"".join(struct.pack(">I", len(frame)) + frame for frame in frames)
    cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(6)))
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def read_direct_stream(parts: Parts) -> None:
    """Frames come out as they are, however they were split; what is kept is a part of what came."""
    expected, is_bad = whole_frames(b"".join(parts), least=1)
    cutter, frames = direct.Cutter(FRAME_BYTES_MAX), []
    try:
        for part in parts:
            frames += cutter.cut(part, 2)
            while cutter.has_frame:
                frames += cutter.cut(b"", 2)
            assert cutter.kept_bytes <= 4 + FRAME_BYTES_MAX + len(part)
    except direct.BadDirectFrame:
        assert is_bad and frames == expected[: len(frames)]
        raise
    assert not is_bad and frames == expected
    for frame in frames:
        assert len(direct.read_request(frame).records) > 0


def make_direct_answer(rng: Random) -> Parts:
    answer = direct.DirectAnswer(1, rng.choice((0, 6, -1)), rng.choice((-1, 2**62)), -1, 0, rng.choice(("", "no: \u00e9")))
    return [direct.write_answer(answer)[4:]]


def read_direct_answer(parts: Parts) -> None:
    answer = direct.read_answer(memoryview(b"".join(parts)))
    assert direct.read_answer(memoryview(direct.write_answer(answer))[4:])[:5] == answer[:5]


def make_envelope(rng: Random) -> Parts:
    body = rng.choice([
        messages.Ready(), messages.Heartbeat("running", 3), messages.ActorUp("broker 1", 4, "ipc:///x"),
        messages.Produce([messages.ProduceItem(1, -1, 61), messages.ProduceItem(2, 1, 9)]), messages.Shutdown(),
        messages.ReplicaUp("t", 0, topic_id=bytes(16), leader_epoch=3), messages.ChildrenTold([("t", 0)]),
        messages.OffsetListed(1, 0, 1, 2, 3), messages.BrokerRegistered("cluster"),
        Offer(1, 2, 3, 4, 5), Mapped(),
    ])  # fmt: skip
    lent = rng.choice((None, (rng.randrange(1 << 28), 61)))
    sent: envelope.Envelope[Any] = envelope.Envelope(
        1, "broker 1", 2, body, rng.randbytes(rng.choice((0, 9, 300))), lent=lent)
    return [envelope.encode(sent)]


_envelope = envelope.decoder(messages.AnyMessage)


def read_envelope(parts: Parts) -> None:
    """Between actors, in a directory that is ours alone; what does not decode ends the actor that reads it."""
    received = _envelope.decode(parts[0])
    assert isinstance(received.body, msgspec.Struct) and isinstance(received.records, memoryview)


class _Root:
    """What control requests are about: a root without processes."""

    def __init__(self) -> None:
        self.settings = SimpleNamespace(cluster="c", data_dir="/d")
        self.server = SimpleNamespace(pid=1, signal_server=lambda number: None, kill=lambda *_: None)
        supervisor = Supervisor("root", [])
        self.tree = SimpleNamespace(actors={}, running={}, supervisor=supervisor, supervisors=lambda: [supervisor])
        self.desk = None  # faults are decoded by `decode_fault`, a decoder of its own
        self.incarnation, self.started_s, self.announced = 1, 0.0, True

    def stop(self) -> None: ...


class _Control:
    """A control server and one that asks it, over a real socket."""

    def __init__(self) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.server = ControlServer(self.context, "inproc://control", cast(Any, _Root()))
        self.asker: zmq.Socket[bytes] = self.context.socket(zmq.DEALER)
        self.asker.setsockopt(zmq.LINGER, 0)
        self.asker.connect("inproc://control")


@cache
def _control() -> _Control:
    return _Control()


def make_control_request(rng: Random) -> Parts:
    asked: Any = rng.choice([
        {"ask": "status"}, {"ask": "stop"}, {"ask": "kill", "name": "nobody", "signal": 9}, {}, [], 1,
        {"ask": {"a": [1, "ü", None]}},
    ])  # fmt: skip
    return [json.dumps(asked).encode()]


def read_control_request(parts: Parts) -> None:
    """Whatever is asked, there is one answer, and the next one is asked in vain neither."""
    control = _control()
    control.asker.send_multipart([b"", *(parts or [b""])], zmq.NOBLOCK)
    control.server.answer()
    assert control.asker.poll(0), "no answer"
    assert isinstance(msgspec.json.decode(control.asker.recv_multipart()[-1]), dict)


def make_fault(rng: Random) -> Parts:
    asked: Any = rng.choice([
        {"fault": "kill", "target": "broker 1", "signal": 9}, {"fault": "pause", "target": "*", "for_s": 0.5}, {"fault": "resume"},
        {"fault": "crash", "target": "partition t-0", "point": "append", "times": 2}, {"fault": "clear", "id": 3}, {"fault": "mail"},
        {"fault": "api", "api": "PRODUCE", "topic": "t", "error": "NOT_LEADER_OR_FOLLOWER"}, {"fault": "disk", "times": 1},
    ])  # fmt: skip
    return [json.dumps(asked).encode()]


def read_fault(parts: Parts) -> None:
    """What the control socket hands on: any mapping that JSON can say."""
    try:
        data = msgspec.json.decode(parts[0], type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FaultError("not a mapping") from error
    decode_fault(data)


# -- the gateway --------------------------------------------------------------------------------------


def _own_batch(rng: Random) -> bytes:
    return encode_batch([(1_000, None, b"value", ())], codec=rng.randrange(5))


def make_gateway_frames(rng: Random) -> Parts:
    from tests.fuzz.test_fuzz_gateway import requests
    from zafka.actors.gateway.registry import APIS as SERVED
    from zafka.transport.kafka.codec import request_writer

    frames = []
    for _ in range(rng.randrange(1, 4)):
        key, request = rng.choice(requests(rng))
        version = rng.choice(list(SERVED[key].versions))
        frames.append(b"".join([request_header(key, version, 7, "c"), *request_writer(key, version)(request)]))
    return frames


class _Broker:
    """A broker without IO that lives through all executions, as a real one does."""

    def __init__(self) -> None:
        from tests.unit.broker_bench import Bench

        self.directory = tempfile.TemporaryDirectory(prefix="zafka-fuzz-")
        self.bench = Bench(Path(self.directory.name)).start("t")
        self.ids = count(1)


@cache
def _broker() -> _Broker:
    return _Broker()


def read_gateway_frames(parts: Parts) -> None:
    """A connection with these requests: answered in order or ended, and nothing is left of it afterwards."""
    from zafka.actors.actor import Mail
    from zafka.actors.gateway.effects import (
        SHELL,
        CloseConnection,
        ConnectionClosed,
        ConnectionOpened,
        FramesReceived,
        Respond,
    )

    broker = _broker()
    bench, connection_id = broker.bench, next(broker.ids)
    frames = [Mail(SHELL, FramesReceived([(connection_id, memoryview(part), None)])) for part in parts]
    effects = bench.turn(Mail(SHELL, ConnectionOpened(connection_id, "kafka", "p")), *frames)
    answers = sum(len(each.frames) for each in effects if isinstance(each, Respond))
    closes = [each for each in effects if isinstance(each, CloseConnection)]
    assert answers <= len(parts) and len(closes) <= 1 and all(each.reason for each in closes)
    bench.turn(Mail(SHELL, ConnectionClosed(connection_id)))
    if connection_id % 50 == 0:
        bench.pass_time(3700)
        gateway = bench.gateway
        assert not gateway.connections.by_id and gateway.connections.held == 0 and len(gateway.deadlines) == 0


# -- all of them --------------------------------------------------------------------------------------


def decoders() -> Iterator[Decoder]:
    for key in APIS:
        make: Callable[[Random], Parts] = partial(make_request, key)
        yield Decoder(f"request {key.name}", make, read_request, (MalformedMessage,), KAFKA_WORDS)
    for key in APIS:
        yield Decoder(
            f"answer {key.name}", partial(make_answer, key), partial(read_answer, key), (MalformedMessage,), KAFKA_WORDS)
    yield Decoder("tcp stream", make_stream, read_stream, memory_max=16 << 20)
    yield Decoder("gateway", make_gateway_frames, read_gateway_frames, words=KAFKA_WORDS, memory_max=16 << 20)
    yield Decoder("door message", make_door_message, read_door_message, (door.BadDoorMessage,))
    yield Decoder("direct question", make_where, read_where, (door.BadDoorMessage,))
    yield Decoder("direct stream", make_direct_stream, read_direct_stream, (direct.BadDirectFrame,), memory_max=16 << 20)
    yield Decoder("direct answer", make_direct_answer, read_direct_answer, (direct.BadDirectFrame,))
    yield Decoder("envelope", make_envelope, read_envelope, (msgspec.MsgspecError, UnicodeDecodeError, RecursionError))
    yield Decoder(
        "control request", make_control_request, read_control_request,
        words=[b'"ask"', b'"status"', b'"faults"', b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b"1e999", b"\\ud800", b"true"])
    yield Decoder(
        "fault request", make_fault, read_fault, (FaultError,),
        words=[b'"fault"', b'"target"', b'"times"', b'"for_s"', b"1e999", b"-1", b"null", b"[]", b"9" * 30])
