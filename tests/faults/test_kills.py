"""Nothing acknowledged is lost, doubled or moved, no send fails and nobody has to help, whatever happens to processes,
disk and connections.

RELIABILITY, invariants 1 to 6, 9 and 17; faults 1, 3 and 4. By hand for longer: `make soak MINUTES=10`. SEED=n repeats
the choices of a run (not its timing).
"""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import zafka
from tests.faults.proxy import TcpProxy
from tests.faults.soak import soaked

SECONDS = float(os.environ.get("SECONDS", "15"))
SEED = int(os.environ.get("SEED", "0")) or random.randrange(1, 2**31)
ANSWER_S = 20.0


@pytest.mark.timeout(SECONDS + 240)
def test_nothing_is_lost_under_random_faults(tmp_path: Path) -> None:
    print(f"SEED={SEED} SECONDS={SECONDS:g}")
    with soaked(tmp_path, SEED) as soak:
        soak.run(SECONDS)
        print(soak.told())
        assert soak.shared.problems() == [], f"SEED={SEED}\n{soak.system.log_tail()}"
        assert soak.done.total() > SECONDS / 4
        assert all(load.acknowledged > 500 for load in soak.loads)
        assert all(reader.count >= soak.total for reader in soak.readers)


def test_a_connection_that_died_unnoticed_does_not_use_up_the_time_of_a_call(tmp_path: Path) -> None:
    with soaked(tmp_path, SEED) as soak:
        for address, proxy in zip((soak.system.bootstrap, soak.system.native), soak.proxies, strict=True):
            with zafka.Admin(address, api_timeout=ANSWER_S, request_timeout=1.0) as admin:
                admin.create_topic("before")
                proxy.half_open()
                admin.delete_topics("before")


# -- the proxy that stands for a network -------------------------------------------------------------


@pytest.fixture
def echo() -> Iterator[socket.socket]:
    """A server that answers with what it hears."""
    def serve(connection: socket.socket) -> None:
        with connection:
            while True:
                try:
                    heard = connection.recv(1000)
                except ConnectionError:
                    return
                if not heard:
                    return
                connection.sendall(heard)

    def listen() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=listen, daemon=True).start()
    yield server
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def test_what_the_proxy_does_to_connections(echo: socket.socket) -> None:
    with TcpProxy(echo.getsockname()[1]) as proxy:
        def dial() -> socket.socket:
            client = socket.create_connection(("127.0.0.1", proxy.port), timeout=ANSWER_S)
            client.sendall(b"hello")
            assert client.recv(10) == b"hello"
            return client

        with dial() as client:
            proxy.reset()
            with pytest.raises(ConnectionResetError):
                client.recv(10)
        with dial() as client:
            proxy.freeze()
            client.sendall(b"held")
            client.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.recv(10)
            proxy.thaw()
            client.settimeout(ANSWER_S)
            assert client.recv(10) == b"held"
        with dial() as client:
            proxy.half_open()
            client.sendall(b"swallowed")
            client.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.recv(10)
        with dial():
            pass
        proxy.target = 1  # nobody is there
        with pytest.raises(ConnectionResetError), socket.create_connection(
            ("127.0.0.1", proxy.port), timeout=ANSWER_S
        ) as client:
            client.recv(10)
