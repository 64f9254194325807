"""What a client says of a listener that is no broker's (TLS, HTTP, the other door), and doctor of one that sends it astray."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import zafka
from tests.unit.client_fake_broker import FakeBroker
from zafka.client.errors import NoBroker
from zafka.runtime.doctor import check_address
from zafka.transport.kafka.messages.metadata import MetadataResponseBroker

GREETING = bytes.fromhex("ff00000000000000017f")  # of ZMTP 3


@contextmanager
def listener(answer: bytes) -> Iterator[str]:
    """It reads something, answers so, and hangs up."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(1024)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.getsockname()[1]}"
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(10)


@pytest.mark.parametrize(("answer", "told"), [
    (bytes.fromhex("15030300020228"), "does not speak Kafka's protocol, but TLS, which is not supported yet"),
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", r"does not speak Kafka's protocol, but HTTP\)"),
    (GREETING, r"does not speak Kafka's protocol; for its ZeroMQ door write tcp://127\.0\.0\.1:\d+"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", r"does not speak Kafka's protocol\)"),
    (b"", r"closed the connection, before it told its versions; if this is a ZeroMQ door, write tcp://.*; if it wants TLS"),
], ids=["tls", "http", "zmq", "ssh", "nothing"])
def test_it_is_told_what_answers_there(answer: bytes, told: str) -> None:
    with listener(answer) as address, pytest.raises(NoBroker, match=told):
        zafka.Admin(address, bootstrap_timeout=0.3)


class Misleading(FakeBroker):
    """It answers, and sends its clients where nobody does."""

    elsewhere = 0

    def _metadata(self, request: Any, fault: Any) -> Any:
        answer = super()._metadata(request, fault)
        answer.brokers = [MetadataResponseBroker(1, "127.0.0.1", self.elsewhere)]
        return answer


def test_doctor_says_that_clients_are_sent_where_nobody_answers() -> None:
    """And asks nothing more, which would only take its time."""
    with socket.socket() as free, Misleading({"one": 1}) as broker:
        free.bind(("127.0.0.1", 0))  # bound, not listening
        broker.elsewhere = free.getsockname()[1]
        findings = list(check_address(broker.address, asked=True))
    assert [(finding.level, finding.subject) for finding in findings] == [("ok", "cluster"), ("problem", "broker 1")]
    assert f"clients are told to connect to 127.0.0.1:{broker.elsewhere}, and that fails from here" in findings[1].text
