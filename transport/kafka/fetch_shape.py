"""Fetch requests that differ from the one before in nothing but the offset: read at a fraction of the price.

Owns: `FetchShape`, all the bytes that such requests have in common, and what they say.
A shape is learnt from a request that the general reader has read, if the general writer gives the same bytes for what was
read. So nothing unknown is in it, and a frame with other eight bytes in the offset's place says the same of everything else.
Only of fetches for one partition, without a session, by a client that has somebody to wait for.
"""

from __future__ import annotations

from struct import Struct

import msgspec

from zafka.transport.kafka.api_keys import ApiKey, is_flexible
from zafka.transport.kafka.codec import RequestHeader, request_writer, response_writer
from zafka.transport.kafka.messages.fetch import FetchPartition, FetchRequest, FetchTopic

CORRELATION = 4  # position of the correlation id
TOPIC_IDS_SINCE = 13
NO_SESSION, FINAL_EPOCH = 0, -1
_OFFSET = Struct(">q")
_MARK = -0x123456789ABCDEF  # in nothing else of a request that is not made to have it


class FetchShape:
    """topic (its name, or id from version 13 on), asked: what all requests want. The others are as in the request.

    leader_epoch: -1 if none is told. tags: of the answer's header. answers_as: who has the same, is answered the same bytes.
    """

    __slots__ = (
        "_before", "_behind", "_offset_at", "_size", "_start", "answers_as", "asked", "isolation_level", "leader_epoch", "max_bytes", "max_wait_s",
        "min_bytes", "tags", "topic", "version", "write")

    def __init__(self, version: int, request: FetchRequest, before: bytes, behind: bytes) -> None:
        topic = request.topics[0]
        self.version = version
        self.topic: str | bytes = topic.topic_id if version >= TOPIC_IDS_SINCE else topic.topic
        self.asked = topic.partitions[0]
        self.leader_epoch = max(self.asked.current_leader_epoch, -1)
        self.max_wait_s = request.max_wait_ms / 1000
        self.min_bytes = request.min_bytes
        self.max_bytes = request.max_bytes
        self.isolation_level = request.isolation_level
        self._start = ApiKey.FETCH.to_bytes(2, "big") + version.to_bytes(2, "big")
        self._before = before  # from behind the correlation id to the offset
        self._behind = behind
        self._offset_at = CORRELATION + 4 + len(before)
        self._size = self._offset_at + _OFFSET.size + len(behind)
        self.tags = b"\0" if is_flexible(ApiKey.FETCH, version) else b""
        self.write = response_writer(ApiKey.FETCH, version)
        self.answers_as = version, self.topic, self.asked.partition, self.isolation_level

    def __repr__(self) -> str:
        return f"<FetchShape {self.topic!r}-{self.asked.partition} version={self.version}>"

    def offset_in(self, frame: memoryview) -> int | None:
        """The offset that a request of this shape asks for; None if it has another one."""
        if len(frame) != self._size:
            return None
        whole = bytes(frame)
        if not (whole.startswith(self._before, CORRELATION + 4) and whole.endswith(self._behind) and whole.startswith(self._start)):
            return None
        return int(_OFFSET.unpack_from(whole, self._offset_at)[0])

    def request(self, offset: int) -> FetchRequest:
        """What the general reader gives for a request of this shape, as far as one that is answered needs it."""
        topic = FetchTopic(partitions=[msgspec.structs.replace(self.asked, fetch_offset=offset)])
        if isinstance(self.topic, bytes):
            topic.topic_id = self.topic
        else:
            topic.topic = self.topic
        return FetchRequest(
            max_wait_ms=round(self.max_wait_s * 1000), min_bytes=self.min_bytes, max_bytes=self.max_bytes,
            isolation_level=self.isolation_level, topics=[topic])


def learn(frame: memoryview, header: RequestHeader, request: FetchRequest) -> FetchShape | None:
    """The shape of a request that was read from this frame, if it has one."""
    wanted = only_one(request)
    if (
        wanted is None or request.session_id != NO_SESSION or request.session_epoch != FINAL_EPOCH or request.replica_id >= 0
        or request.replica_state is not None or wanted.last_fetched_epoch >= 0 or request.max_wait_ms <= 0 or request.min_bytes <= 0
    ):
        return None
    topic = msgspec.structs.replace(request.topics[0], partitions=[msgspec.structs.replace(wanted, fetch_offset=_MARK)])
    written = b"".join(request_writer(ApiKey.FETCH, header.version)(msgspec.structs.replace(request, topics=[topic])))
    before, _, behind = written.partition(_OFFSET.pack(_MARK))
    start = header.body_position
    at = start + len(before)
    if frame[start:at] != before or frame[at + _OFFSET.size :] != behind:
        return None
    return FetchShape(header.version, request, bytes(frame[CORRELATION + 4 : at]), behind)


def only_one(request: FetchRequest) -> FetchPartition | None:
    """The only partition that is asked for, if it is one."""
    topics = request.topics
    if len(topics) != 1 or len(topics[0].partitions) != 1 or request.forgotten_topics_data:
        return None
    return topics[0].partitions[0]
