"""One member of a group in a process of its own, driven by lines of JSON: what foreign/* are for clients in Python.

    python -m tests.clients.matrix.member_process tests.clients.matrix.drivers.confluent:Confluent HOST:PORT tcp://HOST:PORT

Owns: one driver, and the member that it opens. Drivers start it where a member is to crash (drivers/apart.py).
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

from tests.clients.matrix.driver import Driver, Joining, Reader, Received, Refused
from tests.clients.matrix.drivers.json_lines import packed


def told(record: Received) -> dict[str, Any]:
    key, value, headers, timestamp_ms = record.sample
    return {
        "partition": record.partition, "offset": record.offset, "key": packed(key), "value": packed(value),
        "headers": [[name, packed(content)] for name, content in headers], "timestamp": timestamp_ms,
        "timestamp_type": record.timestamp_type}


class Process:
    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.reader: Reader | None = None

    def perform(self, call: dict[str, Any]) -> dict[str, Any]:
        if call["op"] == "member":
            self.reader = self.driver.member(call["topic"], call["group"], Joining(**call["joining"]))
            return {}
        assert self.reader is not None
        match call["op"]:
            case "read":
                return {"records": [told(record) for record in self.reader.read(call["count"])]}
            case "commit":
                self.reader.commit()
            case "close":
                self.reader.close()
        return {}


def main() -> None:
    module, _, name = sys.argv[1].partition(":")
    process = Process(getattr(importlib.import_module(module), name)(*sys.argv[2:]))
    for line in sys.stdin:
        try:
            answer = process.perform(json.loads(line))
        except Refused as refused:
            answer = {"error": {"code": refused.code, "text": str(refused)}}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
