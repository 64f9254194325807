"""Requests that real clients made (`record.py`), as either side has to get them: with its own ids, and times of our choice.

Owns: reading `recorded.jsonl`. Pure.
"""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import msgspec

from tests.differential.cases import T
from tests.differential.sides import Side
from zafka.storage.batch import read_header, with_producer
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import request_reader, request_writer

RECORDED = Path(__file__).with_name("recorded.jsonl")
TIMES_POSITION = 27  # of base and largest timestamp in a batch
# What later requests name of an answer, besides the ids of topics.
GIVEN = {ApiKey.FETCH: "session_id", ApiKey.INIT_PRODUCER_ID: "producer_id", ApiKey.JOIN_GROUP: "member_id"}
WAIT_MS = 20  # where the client let its Fetch wait for longer


class Recorded(msgspec.Struct):
    """gave: the producer id, session id or member's id that the answer told then; 0, -1 or nothing if none."""

    client: str
    connection: int
    api: int
    version: int
    body: str
    gave: int | str = -1

    @property
    def frame(self) -> bytes:
        return base64.b64decode(self.body)

    @property
    def request(self) -> Any:
        return request_reader(self.api, self.version)(memoryview(self.frame), 0)


def load() -> tuple[dict[bytes, str], list[Recorded]]:
    """Names of topics by the ids they had, and all requests in the order of their coming."""
    first, *lines = RECORDED.read_text().splitlines()
    topics = {bytes.fromhex(id_): name for id_, name in json.loads(first)["topics"].items()}
    return topics, [msgspec.json.decode(line, type=Recorded) for line in lines]


def write(asked: Recorded, request: Any) -> bytes:
    return b"".join(bytes(part) for part in request_writer(asked.api, asked.version)(request))


def rest(asked: Recorded) -> bytes:
    """What stands behind a request: librdkafka 2.16 has three bytes too many in a Metadata that is for brokers only."""
    return asked.frame[len(write(asked, asked.request)):]


def translate(value: Any, side: Side, topics: dict[bytes, str]) -> Any:
    """The request with what this side has its own of."""
    if isinstance(value, list):
        return [translate(element, side, topics) for element in value]
    if isinstance(value, memoryview):
        return _batch(value, side) if value else value
    if isinstance(value, bytes) and value in topics:
        return side.saved[f"id of {topics[value]}"]
    if isinstance(value, str):
        return side.saved.get(f"recorded {ApiKey.JOIN_GROUP} {value}", value)
    if not isinstance(value, msgspec.Struct):
        return value
    fields = {name: translate(getattr(value, name), side, topics) for name in value.__struct_fields__}
    if fields.get("session_id", 0) > 0:
        fields["session_id"] = side.saved[f"recorded {ApiKey.FETCH} {fields['session_id']}"]
    if "max_wait_ms" in fields:
        fields["max_wait_ms"] = min(fields["max_wait_ms"], WAIT_MS)
    for name in ("member_epoch", "generation_id_or_member_epoch"):
        if fields.get(name, 0) > 0 and (epoch := side.saved.get(f"epoch of {fields['member_id']}")):
            fields[name] = epoch
    return type(value)(**fields)


def _batch(data: memoryview, side: Side) -> memoryview:
    header = read_header(data)
    producer_id = header.producer_id
    if producer_id >= 0:
        producer_id = side.saved[f"recorded {ApiKey.INIT_PRODUCER_ID} {producer_id}"]
    dated = bytearray(data)
    struct.pack_into(">qq", dated, TIMES_POSITION, T, T + header.max_timestamp - header.base_timestamp)
    return memoryview(with_producer(
        dated, producer_id=producer_id, producer_epoch=header.producer_epoch, base_sequence=header.base_sequence))
