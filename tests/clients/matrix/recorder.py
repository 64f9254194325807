"""Which versions of which requests clients send: a proxy before the broker's Kafka listener that reads request headers.

Owns: one TcpProxy, and what was seen through it, by client id. It changes nothing, and slows everything, so it stands
there only while docs/clients.md is generated. Requests through the ZeroMQ door do not pass.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from tests.faults.proxy import TcpProxy

HEADER = struct.Struct(">ihhih")  # frame size, API, version, correlation id, length of the client id
SIZE_BYTES = 4


class Recorder:
    """seen: client id -> API -> versions."""

    def __init__(self) -> None:
        self.seen: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))

    def proxy(self, target: int) -> TcpProxy:
        return TcpProxy(target, self.tap)

    def tap(self) -> Callable[[bytes], None]:
        """For one connection."""
        buffer = bytearray()
        skipped = 0  # bytes of a frame whose header was read

        def take(data: bytes) -> None:
            nonlocal skipped
            start = min(skipped, len(data))
            skipped -= start
            buffer.extend(data[start:])
            while len(buffer) >= HEADER.size:
                size, api, version, _, length = HEADER.unpack_from(buffer)
                if len(buffer) < HEADER.size + max(length, 0):
                    return
                client = bytes(buffer[HEADER.size:HEADER.size + max(length, 0)]).decode(errors="replace")
                self.seen[client][api].add(version)
                skipped = max(0, SIZE_BYTES + size - len(buffer))
                del buffer[:SIZE_BYTES + size]

        return take

    def told(self) -> dict[str, dict[int, list[int]]]:
        return {client: {api: sorted(found) for api, found in apis.items()} for client, apis in self.seen.items()}


def listeners(kafka: int, zmq: int, proxy: TcpProxy) -> dict[str, Any]:
    """Topology of a broker that tells clients to come by the proxy."""
    return {"brokers": [{"id": 1, "listeners": [
        {"name": "kafka", "protocol": "kafka", "bind": f"127.0.0.1:{kafka}", "advertise": f"127.0.0.1:{proxy.port}"},
        {"name": "zmq", "protocol": "zmq", "bind": f"127.0.0.1:{zmq}"}]}]}
