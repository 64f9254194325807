"""The requests of many raw connections, encoded once and stamped when they leave, and what stands where in the answers.

Owns: `ProduceFrame` (version 7, acks=all, one batch of one record of 100 bytes that begins with the time of its sending),
`FetchFrame` (version 11, one partition, no session), and the reading of their answers. Pure.
May fail with ValueError: an answer that is not one of theirs.
"""

from __future__ import annotations

import struct
import time

from crc32c import crc32c

from zafka.storage.records import encode_batch
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import request_header, request_writer, with_length
from zafka.transport.kafka.messages.api_versions import ApiVersionsRequest
from zafka.transport.kafka.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from zafka.transport.kafka.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData

PRODUCE_VERSION, FETCH_VERSION = 7, 11
VALUE_BYTES = 100
MARK = b"\xf1\x9c\x03stamp"  # stands in a template where a field is to be written
MARKED_OFFSET = int.from_bytes(MARK, "big", signed=True)

LENGTH = CORRELATION = struct.Struct(">i")
ERROR = struct.Struct(">h")
SENT = struct.Struct(">d")
OFFSET = struct.Struct(">q")
CRC = struct.Struct(">I")
CORRELATION_AT = 8  # in a request: behind length, API key and version
ANSWERED_AT = 4  # in an answer: behind its length
# In a record batch: base offset, length of what follows, CRC, what it covers, last offset delta.
CRC_AT, COVERED_AT, DELTA_AT, HEADER_BYTES = 17, 21, 23, 61
HELLO = b"".join(with_length(
    request_header(ApiKey.API_VERSIONS, 0, 0, "connections"), request_writer(ApiKey.API_VERSIONS, 0)(ApiVersionsRequest())))


class ProduceFrame:
    """Requests to one partition. `error_at`: where the error code stands in an answer with its length."""

    def __init__(self, topic: str, partition: int) -> None:
        value = MARK + b"x" * (VALUE_BYTES - len(MARK))
        records = encode_batch([(time.time_ns() // 1_000_000, None, value, [])])
        request = ProduceRequest(
            acks=-1, timeout_ms=30_000,
            topic_data=[TopicProduceData(name=topic, partition_data=[PartitionProduceData(index=partition, records=records)])])
        header = request_header(ApiKey.PRODUCE, PRODUCE_VERSION, 0, "producer")
        self._frame = bytearray(b"".join(with_length(header, request_writer(ApiKey.PRODUCE, PRODUCE_VERSION)(request))))
        self._batch_at = len(self._frame) - len(records)
        self._sent_at = self._frame.index(MARK)
        # Length, correlation id, topics, name, partitions, index.
        self.error_at = 4 + 4 + 4 + 2 + len(topic.encode()) + 4 + 4

    @property
    def sent_at(self) -> int:
        """Where a batch has the time of its sending."""
        return self._sent_at - self._batch_at

    def stamped(self, correlation: int, now_s: float) -> bytes:
        frame, batch_at = self._frame, self._batch_at
        CORRELATION.pack_into(frame, CORRELATION_AT, correlation)
        SENT.pack_into(frame, self._sent_at, now_s)
        CRC.pack_into(frame, batch_at + CRC_AT, crc32c(memoryview(frame)[batch_at + COVERED_AT :]))
        return bytes(frame)


class FetchFrame:
    """Long polls of one partition: at least a byte, or `max_wait_ms`."""

    def __init__(self, topic: str, partition: int, *, max_wait_ms: int) -> None:
        request = FetchRequest(
            replica_id=-1, max_wait_ms=max_wait_ms, min_bytes=1, max_bytes=1 << 20, session_id=0, session_epoch=-1,
            topics=[FetchTopic(topic=topic, partitions=[
                FetchPartition(partition=partition, fetch_offset=MARKED_OFFSET, partition_max_bytes=1 << 20)])])
        header = request_header(ApiKey.FETCH, FETCH_VERSION, 0, "reader")
        self._frame = bytearray(b"".join(with_length(header, request_writer(ApiKey.FETCH, FETCH_VERSION)(request))))
        self._offset_at = self._frame.index(MARK)
        # Length, correlation id, throttle time, error, session, topics, name, partitions, index.
        self.error_at = 4 + 4 + 4 + 2 + 4 + 4 + 2 + len(topic.encode()) + 4 + 4
        # Error, three offsets, no aborted transactions, preferred replica, length of the records.
        self.records_at = self.error_at + 2 + 24 + 4 + 4 + 4

    def stamped(self, correlation: int, offset: int) -> bytes:
        CORRELATION.pack_into(self._frame, CORRELATION_AT, correlation)
        OFFSET.pack_into(self._frame, self._offset_at, offset)
        return bytes(self._frame)


def correlation_of(answer: bytes | bytearray) -> int:
    return int(CORRELATION.unpack_from(answer, ANSWERED_AT)[0])


def error_of(answer: bytes | bytearray, position: int) -> int:
    return int(ERROR.unpack_from(answer, position)[0])


def batches(answer: bytes | bytearray, records_at: int, sent_at: int) -> tuple[int, list[float]]:
    """(offset to go on at, when each batch was sent) of a Fetch's answer; -1 if there is no batch in it."""
    position, next_offset, sent_s = records_at, -1, []
    while position + HEADER_BYTES <= len(answer):
        (size,) = LENGTH.unpack_from(answer, position + 8)
        if size < 0 or position + 12 + size > len(answer):
            raise ValueError(f"a batch of {size} bytes at {position} of an answer of {len(answer)}")
        sent_s.append(SENT.unpack_from(answer, position + sent_at)[0])
        next_offset = OFFSET.unpack_from(answer, position)[0] + LENGTH.unpack_from(answer, position + DELTA_AT)[0] + 1
        position += 12 + size
    return next_offset, sent_s
