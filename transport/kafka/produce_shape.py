"""Produce requests that differ from the one before in nothing but their records: read and answered at a fraction of the price.

Owns: `ProduceShape`, all the bytes that such requests have in common, and those that their answers have in common.
A shape is learnt from a request that the general reader has read, and what has the same shape would be read to the same
by it: the bytes before the records and behind them are the same, and the length between fits. Anything else has no shape.

Frame: API key and version, correlation id, the rest of header and request up to the records; their length; the
records; from version 9 on three empty sets of tags.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

from zafka.transport.kafka.api_keys import ApiKey, is_flexible
from zafka.transport.kafka.codec import response_writer
from zafka.transport.kafka.messages.produce import (
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceResponse,
)

LEARNT_VERSIONS = range(7, 14)
FRAME_BYTES_MAX = 32 * 1024  # of larger ones the price does not matter
CORRELATION = 4  # position of the correlation id
BODY = 8
LENGTH_BYTES_MAX = 5
_LENGTH = Struct(">i")
_OFFSETS = Struct(">qqq")  # base offset, log append time, log start offset
_MARK = (-0x123456789ABCDEF, -0x23456789ABCDEF1, -0x3456789ABCDEF12)  # in no topic's name


class ProduceShape:
    """version, acks, timeout_s, topic (its name, or id from version 13 on), partition: what all requests ask for.

    tags: of the answer's header.
    """

    __slots__ = (
        "_after", "_before", "_flexible", "_head", "_records_from", "_start", "_tail", "acks", "partition", "tags",
        "timeout_s", "topic", "topic_id", "topic_name", "version")

    def __init__(self, version: int, head: bytes, request: ProduceRequest) -> None:
        topic = request.topic_data[0]
        self.version = version
        self.acks = request.acks
        self.timeout_s = max(0, request.timeout_ms) / 1000
        self.topic_id, self.topic_name = topic.topic_id, topic.name
        self.topic: str | bytes = topic.name or topic.topic_id
        self.partition = topic.partition_data[0].index
        self._flexible = is_flexible(ApiKey.PRODUCE, version)
        self._start = ApiKey.PRODUCE.to_bytes(2, "big") + version.to_bytes(2, "big")
        self._head = head
        self._records_from = BODY + len(head)  # without their length
        self._tail = _tail(version)
        self.tags = b"\0" if self._flexible else b""
        answer = b"".join(response_writer(ApiKey.PRODUCE, version)(self.response(PartitionProduceResponse(
            self.partition, 0, *_MARK))))
        self._before, _, self._after = answer.partition(_OFFSETS.pack(*_MARK))

    def response(self, partition: PartitionProduceResponse) -> ProduceResponse:
        """The whole answer around its only part."""
        return ProduceResponse([TopicProduceResponse(self.topic_id, self.topic_name, [partition])])

    def records_in(self, frame: memoryview) -> memoryview | None:
        """The records of a request of this shape; None if it has another."""
        start = self._records_from
        begin = bytes(frame[: start + LENGTH_BYTES_MAX])
        if not (begin.startswith(self._start) and begin.startswith(self._head, BODY)):
            return None
        end = len(frame) - len(self._tail)
        length = _compact_length(end - start) if self._flexible else _plain_length(end - start)
        if length is None or not begin.startswith(length, start) or frame[end:] != self._tail:
            return None
        return frame[start + len(length) : end]

    def answer(self, base_offset: int, log_append_time_ms: int, log_start_offset: int) -> bytes:
        """What stands behind the header of the answer to a request that went well."""
        return self._before + _OFFSETS.pack(base_offset, log_append_time_ms, log_start_offset) + self._after


def learn(frame: memoryview, version: int, request: ProduceRequest) -> ProduceShape | None:
    """The shape of a request that was read from this frame, if it has one: one batch, to be answered, nothing unknown."""
    topics = request.topic_data
    if (
        version not in LEARNT_VERSIONS or len(frame) > FRAME_BYTES_MAX or request.acks not in (-1, 1)
        or request.transactional_id is not None or len(topics) != 1 or len(topics[0].partition_data) != 1
    ):
        return None
    records = topics[0].partition_data[0].records
    tail = _tail(version)
    end = len(frame) - len(tail)
    if not records or frame[end:] != tail:
        return None
    for size in range(1, LENGTH_BYTES_MAX + 1):
        start = end - len(records) - size
        flexible = is_flexible(ApiKey.PRODUCE, version)
        length = _compact_length(end - start) if flexible else _plain_length(end - start)
        if length is not None and len(length) == size and start >= BODY and frame[start : start + size] == length:
            return ProduceShape(version, bytes(frame[BODY:start]), request)
    return None


def _tail(version: int) -> bytes:
    """Behind the records: no tags of the partition, of the topic, of the request."""
    return b"\0\0\0" if is_flexible(ApiKey.PRODUCE, version) else b""


def _plain_length(size: int) -> bytes | None:
    """The length field of what takes `size` bytes together with this field; None if nothing does."""
    return _LENGTH.pack(size - _LENGTH.size) if size > _LENGTH.size else None


@lru_cache(4096)
def _compact_length(size: int) -> bytes | None:
    """The same, as a compact one: an unsigned varint of the length and one."""
    for bytes_ in range(1, LENGTH_BYTES_MAX + 1):
        value = size - bytes_ + 1
        if 1 < value < 1 << 7 * bytes_ and (bytes_ == 1 or value >= 1 << 7 * (bytes_ - 1)):
            return bytes((value >> 7 * index) & 0x7F | (0x80 if index < bytes_ - 1 else 0) for index in range(bytes_))
    return None
