"""One record per request: a raw generator, so that what is measured is the broker and not a client's batching.

    python -m benchmarks.small HOST:PORT TOPIC --connections 16 --in-flight 5 --seconds 5

Each connection keeps `in_flight` Produce requests (version 7, acks=all, one batch of one record of 100 bytes) on the
way: an answer is replaced by the next request at once. Every answer's error code is looked at. `null_server` answers
at once and stores nothing: what the generator reaches against it is its own ceiling, not a broker's.
Owns: the bytes of that request and of its answer. Runs as a process of its own; prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import subprocess
import sys
import time
from collections import deque
from typing import Any, cast

import uvloop

from zafka.runtime.bench import percentile
from zafka.storage.records import encode_batch
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import request_header, request_writer, with_length
from zafka.transport.kafka.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData

VERSION = 7
LENGTH = struct.Struct(">i")
ERROR = struct.Struct(">h")
CORRELATION_AT = 8  # in a request: behind length, API key and version
ANSWERED_AT = 4  # in an answer: behind its length
SETTLING_S = 1.0
ACCEPTS = "null server on port "


def produce_frame(topic: str, partition: int) -> bytearray:
    """A whole Produce request with its length; bytes 8 to 12 are the correlation id."""
    records = encode_batch([(time.time_ns() // 1_000_000, None, b"x" * 100, [])])
    request = ProduceRequest(
        acks=-1, timeout_ms=30_000,
        topic_data=[TopicProduceData(name=topic, partition_data=[PartitionProduceData(index=partition, records=records)])])
    header = request_header(ApiKey.PRODUCE, VERSION, 0, "small")
    return bytearray(b"".join(with_length(header, request_writer(ApiKey.PRODUCE, VERSION)(request))))


def error_position(topic: str) -> int:
    """Where the error code stands in an answer: length, correlation id, topics, name, partitions, index, error."""
    return 4 + 4 + 4 + 2 + len(topic.encode()) + 4 + 4


def whole_frames(data: bytes) -> tuple[list[int], int]:
    """(where each whole frame begins, where the rest begins) of a stretch of a stream."""
    starts = []
    position = 0
    while position + LENGTH.size <= len(data):
        end = position + LENGTH.size + LENGTH.unpack_from(data, position)[0]
        if end > len(data):
            break
        starts.append(position)
        position = end
    return starts, position


class Tally:
    """What all connections saw since measuring began."""

    def __init__(self) -> None:
        self.requests = 0
        self.errors: dict[int, int] = {}
        self.taken_s: list[float] = []


class Client(asyncio.Protocol):
    """One connection that keeps `in_flight` requests on the way until `stopped`."""

    def __init__(self, topic: str, partition: int, in_flight: int, tally: Tally) -> None:
        self._frame = produce_frame(topic, partition)
        self._error_at = error_position(topic)
        self._in_flight = in_flight
        self._tally = tally
        self._correlation = 0
        self._sent_s: deque[float] = deque()
        self._rest = b""
        self._transport: asyncio.Transport | None = None
        self.stopped = False
        self.lost = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._send(self._in_flight, time.perf_counter())

    def connection_lost(self, error: Exception | None) -> None:
        if not self.stopped:
            self.lost = str(error or "the broker closed the connection")

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        starts, end = whole_frames(data)
        self._rest = data[end:]
        now_s = time.perf_counter()
        for start in starts:
            error = ERROR.unpack_from(data, start + self._error_at)[0]
            if error:
                self._tally.errors[error] = self._tally.errors.get(error, 0) + 1
            self._tally.taken_s.append(now_s - self._sent_s.popleft())
        self._tally.requests += len(starts)
        if starts and not self.stopped:
            self._send(len(starts), now_s)

    def _send(self, count: int, now_s: float) -> None:
        assert self._transport is not None
        frames = bytearray()
        for _ in range(count):
            LENGTH.pack_into(self._frame, CORRELATION_AT, self._correlation)
            self._correlation = (self._correlation + 1) & 0x7FFFFFFF
            frames += self._frame
            self._sent_s.append(now_s)
        self._transport.write(frames)

    def stop(self) -> None:
        self.stopped = True
        if self._transport is not None:
            self._transport.abort()


async def generate(
    address: str, topic: str, *, connections: int, in_flight: int, seconds: float, partitions: int,
    settling_s: float = SETTLING_S,
) -> dict[str, float]:
    """Load the broker for `seconds` after a settling time; then an error or a lost connection raises RuntimeError."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    tally = Tally()
    clients = [Client(topic, number % partitions, in_flight, tally) for number in range(connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, host, int(port))  # type: ignore[misc]
    await asyncio.sleep(settling_s)
    tally.requests, tally.taken_s = 0, []
    tally.errors.clear()  # a topic that was just made may not be led yet
    started_s, cpu_s = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    elapsed_s = time.perf_counter() - started_s
    requests, taken_s = tally.requests, sorted(tally.taken_s)
    lost = [client.lost for client in clients if client.lost]
    for client in clients:
        client.stop()
    if tally.errors or lost or not requests:
        raise RuntimeError(f"{requests} requests, error codes {tally.errors}, {len(lost)} connections lost: {lost[:1]}")
    return {
        "per_s": requests / elapsed_s, "p50_ms": percentile(taken_s, 0.5) * 1e3,
        "p99_ms": percentile(taken_s, 0.99) * 1e3, "generator_cpu": (time.process_time() - cpu_s) / elapsed_s,
    }


class NullServer(asyncio.Protocol):
    """Answers each request of `produce_frame` at once, as if it were on disk."""

    def __init__(self, topic: str) -> None:
        name = topic.encode()
        body = struct.pack(f">iih{len(name)}siihqqqi", 0, 1, len(name), name, 1, 0, 0, 0, -1, 0, 0)
        self._answer = bytearray(LENGTH.pack(len(body)) + body)
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        starts, end = whole_frames(data)
        self._rest = data[end:]
        out = bytearray()
        for start in starts:
            at = start + CORRELATION_AT
            self._answer[ANSWERED_AT : ANSWERED_AT + 4] = data[at : at + 4]
            out += self._answer
        assert self._transport is not None
        self._transport.write(out)


async def serve_null(topic: str) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: NullServer(topic), "127.0.0.1", 0)
    print(f"{ACCEPTS}{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def run(address: str, topic: str, *, connections: int, in_flight: int, seconds: float, partitions: int = 4) -> Any:
    """The generator in a process of its own; what it measured."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.small", address, topic, "--connections", str(connections), "--in-flight",
         str(in_flight), "--seconds", str(seconds), "--partitions", str(partitions)],
        capture_output=True, text=True, check=False, timeout=seconds + 60)
    if done.returncode:
        raise RuntimeError(f"the generator failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def ceiling(*, connections: int, in_flight: int, seconds: float) -> Any:
    """What the generator reaches against the null server, both in processes of their own."""
    server = subprocess.Popen([sys.executable, "-m", "benchmarks.small", "--null"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = server.stdout.readline().removeprefix(ACCEPTS).strip()
        return run(f"127.0.0.1:{port}", "t", connections=connections, in_flight=in_flight, seconds=seconds)
    finally:
        server.kill()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", nargs="?")
    parser.add_argument("topic", nargs="?", default="t")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--in-flight", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--null", action="store_true", help="be the null server")
    given = parser.parse_args()
    if given.null:
        uvloop.run(serve_null("t"))
    found = uvloop.run(generate(
        given.address, given.topic, connections=given.connections, in_flight=given.in_flight, seconds=given.seconds,
        partitions=given.partitions))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
