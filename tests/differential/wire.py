"""One request out, what comes back in: a blocking connection to a broker that hides nothing.

Owns: a socket. What came back is an `Outcome`: the answer's struct, or CLOSED, or SILENT (no answer, and the
connection goes on, as after a Produce with acks=0), or what is wrong with the answer. Raises nothing of the broker's.
Every answer that kio has a type for is read by kio, too, and has to say the same: the broker under test writes with
the layouts that we read with.
"""

from __future__ import annotations

import socket
from typing import Any

from tests.kafka_oracle import kio_class, kio_read, ours
from zafka.transport.kafka.api_keys import ApiKey, is_flexible
from zafka.transport.kafka.codec import (
    MalformedMessage,
    read_response_header,
    request_header,
    request_writer,
    response_reader,
    with_length,
)
from zafka.transport.kafka.layout import load_api

ANSWER_S = 30.0
CLIENT_ID = "differential"

CLOSED = "connection closed"
SILENT = "no answer"
Outcome = Any  # a struct of zafka.transport.kafka.messages, or text


class Wire:
    """A connection that opens itself when it is used, and again after the broker has closed it."""

    def __init__(self, bootstrap: str) -> None:
        host, port = bootstrap.rsplit(":", 1)
        self._address = (host, int(port))
        self._socket: socket.socket | None = None
        self._correlation_id = 0
        self._waiting = (0, 0)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ask(self, key: int, version: int, request: Any, *, is_answered: bool = True) -> Outcome:
        """Send a struct. is_answered: False looks for the absence of an answer."""
        body = b"".join(bytes(part) for part in request_writer(key, version)(request))
        return self.ask_bytes(key, version, body, is_answered=is_answered)

    def send(self, key: int, version: int, request: Any) -> None:
        """Have the next `answer` be the one to this."""
        body = b"".join(bytes(part) for part in request_writer(key, version)(request))
        self._correlation_id += 1
        self._waiting = key, version
        header = request_header(key, version, self._correlation_id, CLIENT_ID)
        self._connected().sendall(b"".join(with_length(header, [body])))

    def answer(self) -> Outcome:
        """To what was sent."""
        frame = self._receive()
        return frame if isinstance(frame, str) else self._read(memoryview(frame), *self._waiting)

    def ask_bytes(self, key: int, version: int, body: bytes, *, tags: bytes = b"", is_answered: bool = True) -> Outcome:
        """Send a body as it is. tags: instead of the header's empty ones, if the version is flexible."""
        frame = self._exchange(key, version, body, tags, is_answered)
        return frame if isinstance(frame, str) else self._read(memoryview(frame), key, version)

    def is_answered(self, key: int, version: int, body: bytes) -> Outcome:
        """"answered" or what happened instead, on a connection of its own."""
        self.close()
        outcome = self._exchange(key, version, body, b"", True)
        self.close()
        return outcome if isinstance(outcome, str) else "answered"

    def _exchange(self, key: int, version: int, body: bytes, tags: bytes, is_answered: bool) -> bytes | str:
        self._correlation_id += 1
        header = request_header(key, version, self._correlation_id, CLIENT_ID)
        if tags and is_flexible(key, version):
            header = header[:-1] + tags
        frames = [*with_length(header, [body])]
        if not is_answered:
            # Answers come in the order of requests: if this one is the first to be answered, the other was not.
            frames += with_length(request_header(ApiKey.API_VERSIONS, 0, -7, CLIENT_ID), [])
        frame = self._receive(b"".join(frames))
        return SILENT if not is_answered and frame[:4] == (-7).to_bytes(4, "big", signed=True) else frame

    def _receive(self, request: bytes = b"") -> bytes | str:
        """The next answer, once this is sent."""
        try:
            self._connected().sendall(request)
            return self._frame()
        except TimeoutError:
            self.close()
            return f"nothing within {ANSWER_S} s"
        except ConnectionError:
            self.close()
            return CLOSED

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, ANSWER_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._socket

    def _frame(self) -> bytes:
        return self._bytes(int.from_bytes(self._bytes(4), "big"))

    def _bytes(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            chunk = self._connected().recv(count - len(data))
            if not chunk:
                raise ConnectionResetError
            data += chunk
        return bytes(data)

    def _read(self, frame: memoryview, key: int, version: int) -> Outcome:
        correlation_id, position = read_response_header(frame, key, version)
        if correlation_id != self._correlation_id:
            return f"answer to request {correlation_id - self._correlation_id:+} from this one"
        try:
            answer = response_reader(key, version)(frame, position)
        except MalformedMessage as error:
            if key == ApiKey.API_VERSIONS and version > 0:  # refused in the layout of version 0
                return response_reader(key, 0)(frame, position)
            return f"not an answer of version {version}: {error}"
        return answer if kio_agrees(key, version, bytes(frame[position:]), answer) else "kio reads something else"


def kio_agrees(key: int, version: int, body: bytes, answer: Any) -> bool:
    layout = load_api(key).response
    theirs = kio_read(kio_class(ApiKey(key), "response", version), body)
    return bool(ours(theirs, layout, ApiKey(key)) == answer)
