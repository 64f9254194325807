"""Records what real clients ask a broker for when they do their normal jobs: `recorded.jsonl`, which the test replays.

    python -m tests.differential.record     writes it anew, against Apache Kafka (scripts/install-peers)

Owns: a proxy on loopback whose address Kafka advertises, so that every request passes it. Kept of a request: client,
connection, API, version, body, and what of the answer later requests name: a producer id, a session id, a member's id, ids of topics.
"""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.differential.group_jobs import GROUP_JOBS
from tests.differential.jobs import JOBS
from tests.differential.recorded import GIVEN, RECORDED
from tests.differential.sides import KAFKA_SETTINGS
from tests.powercut.systems import QUICK_START, Kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import read_request_header, read_response_header, response_reader

# Asked again and again in the same words: once is enough.
ONCE = (
    ApiKey.API_VERSIONS, ApiKey.METADATA, ApiKey.LIST_OFFSETS, ApiKey.DESCRIBE_CLUSTER, ApiKey.FIND_COORDINATOR,
    ApiKey.HEARTBEAT, ApiKey.CONSUMER_GROUP_HEARTBEAT)


class Proxy:
    """requests: as they came. topics: id -> name, from answers."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.topics: dict[str, str] = {}
        self.client = ""
        self.target = 0
        self._lock = threading.Lock()
        self._connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            broker = socket.create_connection(("127.0.0.1", self.target))
            self._connections += 1
            waiting: dict[int, dict[str, Any]] = {}
            number = self._connections

            def on_request(frame: bytes, number: int = number, waiting: dict[int, dict[str, Any]] = waiting) -> None:
                self._request(frame, number, waiting)

            def on_answer(frame: bytes, waiting: dict[int, dict[str, Any]] = waiting) -> None:
                self._answer(frame, waiting)

            for source, sink, heard in ((client, broker, on_request), (broker, client, on_answer)):
                threading.Thread(target=_pass_on, args=(source, sink, heard), daemon=True).start()

    def _request(self, frame: bytes, connection: int, waiting: dict[int, dict[str, Any]]) -> None:
        header = read_request_header(memoryview(frame))
        kept = {
            "client": self.client, "connection": connection, "api": header.api_key, "version": header.version,
            "body": base64.b64encode(frame[header.body_position:]).decode()}
        with self._lock:
            if header.api_key in ONCE and any({**each, "connection": connection} == kept for each in self.requests):
                return
            self.requests.append(kept)
            waiting[header.correlation_id] = kept

    def _answer(self, frame: bytes, waiting: dict[int, dict[str, Any]]) -> None:
        asked = waiting.pop(int.from_bytes(frame[:4], "big", signed=True), None)
        if asked is None or asked["api"] not in (ApiKey.METADATA, *GIVEN):
            return
        view = memoryview(frame)
        _, position = read_response_header(view, asked["api"], asked["version"])
        answer = response_reader(asked["api"], asked["version"])(view, position)
        if asked["api"] == ApiKey.METADATA:
            self.topics |= {topic.topic_id.hex(): topic.name for topic in answer.topics if any(topic.topic_id)}
        else:
            asked["gave"] = getattr(answer, GIVEN[asked["api"]])


def _pass_on(source: socket.socket, sink: socket.socket, heard: Callable[[bytes], None]) -> None:
    """Whole frames, told before they go on: an answer never overtakes its request."""
    data = b""
    try:
        while chunk := source.recv(65536):
            data += chunk
            while len(data) >= 4 and len(data) >= (end := 4 + int.from_bytes(data[:4], "big")):
                heard(data[4:end])
                sink.sendall(data[:end])
                data = data[end:]
    except OSError:
        pass  # one of the two has gone
    for end_of in (source, sink):
        end_of.close()


def main() -> None:
    proxy = Proxy()
    settings = {**KAFKA_SETTINGS, "advertised.listeners": f"PLAINTEXT://127.0.0.1:{proxy.port}"}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        broker = Kafka(Path(directory), Path(directory) / "data", settings=settings, java_options=QUICK_START)
        proxy.target = int(broker.bootstrap.rpartition(":")[2])
        broker.format()
        broker.launch()
        try:
            broker.wait_ready()
            for name, job in {**JOBS, **GROUP_JOBS}.items():
                proxy.client = name
                job(f"127.0.0.1:{proxy.port}")
                print(f"{name}: {sum(each['client'] == name for each in proxy.requests)} requests")
        finally:
            broker.stop()
            proxy.close()
    known = {id_: name for id_, name in proxy.topics.items() if not name.startswith("__")}
    lines = [{"topics": known}, *proxy.requests]
    RECORDED.write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as failed:
        raise SystemExit(f"{failed}\n{failed.stderr}") from failed
