"""A well-behaved client that tells how long each of its requests took: whom strangers must not disturb.

`python -m tests.fuzz.pulse HOST:PORT TOPIC` produces a record (acks=all) and fetches it back, about 50 times a second,
over one raw socket, and prints the milliseconds of each exchange. It ends when its standard input does. In a process of
its own, so that the strangers' work in the test's process is not measured. `Pulse` is the test's end.
"""

from __future__ import annotations

import math
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from zafka.storage.records import encode_batch
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import read_response_header, request_header, request_writer, response_reader

PAUSE_S = 0.02
PRODUCE_VERSION, FETCH_VERSION = 9, 11
WAIT_S = 60.0


def frame_of(key: ApiKey, version: int, request: Any, correlation_id: int = 1) -> bytes:
    """A whole frame for TCP."""
    frame = b"".join([request_header(key, version, correlation_id, "c"), *request_writer(key, version)(request)])
    return struct.pack(">i", len(frame)) + frame


def produce_frame(topic: str, batch: bytes, *, acks: int = -1) -> bytes:
    data = [kafka.TopicProduceData(name=topic, partition_data=[kafka.PartitionProduceData(0, memoryview(batch))])]
    return frame_of(ApiKey.PRODUCE, PRODUCE_VERSION, kafka.ProduceRequest(None, acks, 30_000, data))


def fetch_frame(topic: str, offset: int, *, max_bytes: int = 1 << 20) -> bytes:
    wanted = kafka.FetchPartition(0, -1, offset, partition_max_bytes=max_bytes)
    topics = [kafka.FetchTopic(topic=topic, partitions=[wanted])]
    return frame_of(ApiKey.FETCH, FETCH_VERSION, kafka.FetchRequest(
        max_wait_ms=500, min_bytes=1, max_bytes=max_bytes, isolation_level=0, session_epoch=-1, topics=topics))


def receive_frame(sock: socket.socket) -> bytes:
    """The next answer, without its length. Raises ConnectionError at the end of the stream."""
    def exactly(size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = sock.recv(size - len(data))
            if not piece:
                raise ConnectionError("the broker closed the connection")
            data += piece
        return data

    return exactly(struct.unpack(">i", exactly(4))[0])


def answer_to(key: ApiKey, version: int, frame: bytes) -> Any:
    view = memoryview(frame)
    return response_reader(key, version)(view, read_response_header(view, key, version)[1])


def beat(address: str, topic: str) -> None:
    host, _, port = address.rpartition(":")
    batch = bytes(encode_batch([(1_000, None, b"x" * 100, ())]))
    with socket.create_connection((host, int(port))) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while not select.select([sys.stdin], [], [], PAUSE_S)[0]:
            began_s = time.monotonic()
            sock.sendall(produce_frame(topic, batch))
            answer = answer_to(ApiKey.PRODUCE, PRODUCE_VERSION, receive_frame(sock))
            part = answer.responses[0].partition_responses[0]
            assert part.error_code == 0, part
            sock.sendall(fetch_frame(topic, part.base_offset))
            (fetched,) = answer_to(ApiKey.FETCH, FETCH_VERSION, receive_frame(sock)).responses[0].partitions
            assert fetched.error_code == 0, fetched
            assert bytes(fetched.records)[61:].endswith(batch[61:]), "other bytes than were written"
            print(f"{(time.monotonic() - began_s) * 1000:.2f}", flush=True)


class Pulse:
    """Starts the process and collects what it tells."""

    def __init__(self, address: str, topic: str) -> None:
        self._latencies_ms: list[float] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.pulse", address, topic], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._latencies_ms.append(float(line))

    def p99_ms(self, number: int = 60, meanwhile: Callable[[], None] = lambda: None) -> float:
        """Of the next `number` exchanges. meanwhile: called again and again until they are there."""
        begin = len(self._latencies_ms)
        deadline_s = time.monotonic() + WAIT_S
        while len(self._latencies_ms) < begin + number:
            assert self._process.poll() is None, "the well-behaved client was turned away"
            assert time.monotonic() < deadline_s, f"only {len(self._latencies_ms) - begin} exchanges in {WAIT_S} s"
            meanwhile()
            threading.Event().wait(0.01)
        latencies = sorted(self._latencies_ms[begin:])
        return latencies[math.ceil(len(latencies) * 0.99) - 1]


if __name__ == "__main__":
    beat(*sys.argv[1:])
