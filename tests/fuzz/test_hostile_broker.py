"""Our client at a hostile broker on real sockets: it ends with an error of its own, soon, and with its memory bounded."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import zafka
from tests.fuzz.pulse import receive_frame
from zafka.client.channel import OUR_VERSIONS
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import response_header, response_writer

PATIENCE_S = 1.0
WAIT_S = 30.0


def _answer(sock: socket.socket, key: ApiKey, message: object) -> None:
    request = receive_frame(sock)
    version, correlation_id = struct.unpack_from(">hi", request, 2)
    frame = b"".join([response_header(key, version, correlation_id), *response_writer(key, version)(message)])
    sock.sendall(struct.pack(">i", len(frame)) + frame)


def _greet(sock: socket.socket) -> None:
    apis = [kafka.ApiVersion(int(key), *span) for key, span in OUR_VERSIONS.items()]
    _answer(sock, ApiKey.API_VERSIONS, kafka.ApiVersionsResponse(0, apis))


def _half_a_large_frame(sock: socket.socket) -> None:
    sock.sendall(struct.pack(">i", 100 << 20) + bytes(1000))


def _greet_then_noise(sock: socket.socket) -> None:
    _greet(sock)
    sock.sendall(struct.pack(">i", 5000) + os.urandom(5000))


def _greet_then_nothing_known(sock: socket.socket) -> None:
    _greet(sock)
    _answer(sock, ApiKey.METADATA, kafka.MetadataResponse(0, [], "c", -1, []))


def _unasked(sock: socket.socket) -> None:
    sock.sendall((struct.pack(">i", 8) + bytes(8)) * 1000)


BROKERS: list[Callable[[socket.socket], None]] = [
    lambda sock: sock.sendall(struct.pack(">i", 2**31 - 1)), lambda sock: sock.sendall(struct.pack(">i", -1)),
    lambda sock: sock.sendall(os.urandom(5000)), lambda sock: sock.sendall(b"\xff" * 100), lambda sock: None,
    _half_a_large_frame, _greet_then_noise, _greet_then_nothing_known, _unasked,
]  # fmt: skip
NAMES = ["2 GiB", "-1", "noise", "ones", "silence", "half a frame", "noise later", "nobody there", "what was not asked"]


@contextmanager
def hostile(speak: Callable[[socket.socket], None]) -> Iterator[int]:
    """A broker that says this to everybody who comes, and keeps the connection open."""
    connections: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                sock = listening.accept()[0]
            except OSError:
                return
            connections.append(sock)
            sock.settimeout(WAIT_S)
            try:
                speak(sock)
            except (OSError, struct.error):
                continue  # the client has seen enough

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        for sock in connections:
            sock.close()
        thread.join(WAIT_S)
        assert not thread.is_alive()


@pytest.mark.parametrize("door", ["kafka", "zmq"])
@pytest.mark.parametrize("speak", BROKERS, ids=NAMES)
def test_a_hostile_broker_is_given_up_with_a_word(speak: Callable[[socket.socket], None], door: str) -> None:
    with hostile(speak) as port:
        address = f"tcp://127.0.0.1:{port}" if door == "zmq" else f"127.0.0.1:{port}"
        tracemalloc.start()
        began_s = time.monotonic()
        try:
            with pytest.raises(zafka.ZafkaError) as raised, zafka.Admin(
                address, connect_timeout=PATIENCE_S, bootstrap_timeout=PATIENCE_S, api_timeout=PATIENCE_S,
                request_timeout=PATIENCE_S,
            ) as admin:
                admin.describe_topics("t")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert "died" not in str(raised.value) and raised.value.__cause__ is None
    assert time.monotonic() - began_s < WAIT_S
    assert peak < 16 << 20
