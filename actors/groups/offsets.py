"""Committed offsets, of groups with members and without: OffsetCommit, OffsetFetch, OffsetDelete, and their expiry.

Owns: `Offsets`, all offsets of the groups whose coordinator this is. Whether a member may commit is its group's to say
(`Groups.check_commit`); a group that nobody ever joined is here alone, and anybody may commit to it.
Requests come in one form, whatever the client's version (`actors/gateway/offset_commit.py`): topics by name, one group.
Invariants: an offset goes back only because a client commits a lower one, or deletes it, or its retention is over. One
that was committed in a topic is not told for another topic of the same name.
Source: Kafka OffsetMetadataManager, OffsetExpirationConditionImpl; KIP-211 (expiry), KIP-496 (OffsetDelete).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from zafka.actors.actor import Now
from zafka.actors.groups.calls import Call, Commit, Groups, Outbox, Settings, Topics
from zafka.actors.groups.group_snapshot import Committed
from zafka.actors.groups.records import OffsetCommitKey, OffsetCommitValue, encode_offset
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from zafka.transport.kafka.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestTopic,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)
from zafka.transport.kafka.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopics,
)
from zafka.transport.kafka.types import ZERO_UUID

EXPIRY_TIMER = "offsets expiry"
RETENTION_MINUTES = "10080"
CHECK_INTERVAL_MS = "600000"
METADATA_BYTES_MAX = "4096"
EXPIRED_IN_A_TURN_MAX = 10_000
EXPIRE_AGAIN_S = 0.1

GROUP_ID_NOT_FOUND_SINCE = 9  # of OffsetCommit; clients before it do not know the error
NO_WISH = -1  # of a client for another retention


class Offsets:
    """owner_of: the kind of groups that a group id belongs to, None if it has no members and never had."""

    kind = "offsets"

    def __init__(self, owner_of: Callable[[str], Groups | None], topics: Topics, settings: Settings) -> None:
        self._owner_of = owner_of
        self._topics = topics
        self._retention_ms = int(settings.get("offsets.retention.minutes", RETENTION_MINUTES)) * 60_000
        self._check_interval_s = int(settings.get("offsets.retention.check.interval.ms", CHECK_INTERVAL_MS)) / 1000
        self._metadata_max = int(settings.get("offset.metadata.max.bytes", METADATA_BYTES_MAX))
        self._by_group: dict[str, Committed] = {}
        self._handlers: dict[int, Callable[[Call, Any, Now, Outbox], None]] = {
            ApiKey.OFFSET_COMMIT: self._commit,
            ApiKey.OFFSET_FETCH: self._fetch,
            ApiKey.OFFSET_DELETE: self._delete,
        }
        self.apis = frozenset(self._handlers)

    def __repr__(self) -> str:
        return f"<Offsets groups={len(self._by_group)}>"

    def __contains__(self, group_id: object) -> bool:
        return group_id in self._by_group

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_group)

    def handle(self, call: Call, request: Any, now: Now, outbox: Outbox) -> None:
        self._handlers[call.api_key](call, request, now, outbox)

    def replay(self, key: OffsetCommitKey, value: OffsetCommitValue | None) -> None:
        if value is not None:
            self._by_group.setdefault(key.group, {}).setdefault(key.topic, {})[key.partition] = value
            return
        topics = self._by_group.get(key.group, {})
        partitions = topics.get(key.topic, {})
        partitions.pop(key.partition, None)
        if not partitions:
            topics.pop(key.topic, None)
        if not topics:
            self._by_group.pop(key.group, None)

    def pieces(self, most: int) -> Iterator[tuple[str, Committed, int]]:
        """All of it, group by group as of when each is asked for, with how much that is; what it holds may change afterwards.

        most: a group that has more comes in several pieces, all but the last with that many.
        """
        for group_id in list(self._by_group):
            committed = self._by_group.get(group_id, {})
            count = sum(map(len, committed.values()))
            if 0 < count <= most:
                yield group_id, committed, count
            elif count:
                yield from self._divided(group_id, committed, most)

    def _divided(self, group_id: str, committed: Committed, most: int) -> Iterator[tuple[str, Committed, int]]:
        piece: Committed = {}
        count = 0
        for topic in list(committed):
            partitions = committed.get(topic)
            if partitions:
                piece[topic] = partitions
                count += len(partitions)
            if count >= most:
                yield group_id, piece, count
                piece, count = {}, 0
        if piece:
            yield group_id, piece, count

    def restore(self, offsets: dict[str, Committed]) -> None:
        """Take in what `pieces` has told. Only the first group can be one of which there was a piece before."""
        first = next(iter(offsets), "")
        before = self._by_group.get(first)
        self._by_group.update(offsets)
        if before is not None:
            before.update(offsets[first])
            self._by_group[first] = before

    def _record(self, key: OffsetCommitKey, value: OffsetCommitValue | None, outbox: Outbox) -> None:
        self.replay(key, value)
        outbox.append(*encode_offset(key, value))

    # -- OffsetCommit --------------------------------------------------------------------------

    def _commit(self, call: Call, request: OffsetCommitRequest, now: Now, outbox: Outbox) -> None:
        commit = Commit(
            request.group_id, request.member_id, request.group_instance_id, request.generation_id_or_member_epoch,
            call.version)
        owner = self._owner_of(request.group_id)
        error = self._check_commit(commit, owner, now, outbox)
        if owner is not None and error in (ErrorCode.STALE_MEMBER_EPOCH, ErrorCode.ILLEGAL_GENERATION):
            stale = (
                owner.check_stale_commit(commit, self._id_of(topic.name), part.partition_index)
                for topic in request.topics for part in topic.partitions)
            error = next(filter(None, stale), 0)  # all are refused for the sake of one, as in Kafka
        expire_ms = -1 if request.retention_time_ms == NO_WISH else now.wall_ms + request.retention_time_ms
        topics = []
        for topic in request.topics:
            topic_id = self._id_of(topic.name)
            parts = []
            for part in topic.partitions:
                failed = error or self._check_metadata(part)
                if not failed:
                    value = OffsetCommitValue(
                        part.committed_offset, part.committed_leader_epoch, part.committed_metadata or "", now.wall_ms,
                        expire_ms, topic_id)
                    self._record(OffsetCommitKey(request.group_id, topic.name, part.partition_index), value, outbox)
                parts.append(OffsetCommitResponsePartition(part.partition_index, failed))
            topics.append(OffsetCommitResponseTopic(name=topic.name, partitions=parts))
        outbox.answer(call, OffsetCommitResponse(topics=topics))

    def _check_commit(self, commit: Commit, owner: Groups | None, now: Now, outbox: Outbox) -> int:
        group_id, generation = commit.group_id, commit.generation
        if owner is not None:
            return owner.check_commit(commit, now, outbox)
        if group_id not in self._by_group and generation >= 0:
            new = commit.version >= GROUP_ID_NOT_FOUND_SINCE
            return ErrorCode.GROUP_ID_NOT_FOUND if new else ErrorCode.ILLEGAL_GENERATION
        if generation >= 0:
            return ErrorCode.UNKNOWN_MEMBER_ID  # nobody is a member
        return 0

    def _check_metadata(self, part: OffsetCommitRequestPartition) -> int:
        metadata = part.committed_metadata
        too_large = metadata is not None and java_length(metadata) > self._metadata_max
        return ErrorCode.OFFSET_METADATA_TOO_LARGE if too_large else 0

    def _id_of(self, topic: str) -> bytes:
        known = self._topics.by_name.get(topic)
        return ZERO_UUID if known is None else known.topic_id

    # -- OffsetFetch ---------------------------------------------------------------------------

    def _fetch(self, call: Call, request: OffsetFetchRequest, now: Now, outbox: Outbox) -> None:
        outbox.answer(call, OffsetFetchResponse(groups=[self._fetch_group(asked) for asked in request.groups]))

    def _fetch_group(self, asked: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup:
        group_id = asked.group_id
        owner = self._owner_of(group_id)
        error = owner.check_fetch(group_id, asked.member_id, asked.member_epoch) if owner is not None else 0
        if error:
            return OffsetFetchResponseGroup(group_id, [], error)
        committed = self._by_group.get(group_id, {})
        if asked.topics is None:
            wanted: Iterable[tuple[str, Iterable[int]]] = committed.items()
        else:
            wanted = ((topic.name, topic.partition_indexes) for topic in asked.topics)
        topics = []
        for name, numbers in wanted:
            partitions, topic_id = committed.get(name, {}), self._id_of(name)
            topics.append(OffsetFetchResponseTopics(
                name=name, partitions=[_fetched(number, partitions.get(number), topic_id) for number in numbers]))
        return OffsetFetchResponseGroup(group_id, topics)

    # -- OffsetDelete, DeleteGroups ------------------------------------------------------------

    def _delete(self, call: Call, request: OffsetDeleteRequest, now: Now, outbox: Outbox) -> None:
        group_id = request.group_id
        owner = self._owner_of(group_id)
        if not group_id:
            error = int(ErrorCode.INVALID_GROUP_ID)
        elif owner is not None:
            error = owner.check_offset_delete(group_id)
        else:
            error = 0 if group_id in self._by_group else ErrorCode.GROUP_ID_NOT_FOUND
        if error:
            outbox.answer(call, OffsetDeleteResponse(error))
            return
        topics = [self._delete_topic(group_id, topic, owner, outbox) for topic in request.topics]
        outbox.answer(call, OffsetDeleteResponse(topics=topics))

    def _delete_topic(
        self, group_id: str, topic: OffsetDeleteRequestTopic, owner: Groups | None, outbox: Outbox
    ) -> OffsetDeleteResponseTopic:
        subscribed = owner is not None and owner.is_subscribed(group_id, topic.name)
        error = ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC if subscribed else 0
        parts = []
        for part in topic.partitions:
            if not error and part.partition_index in self._by_group.get(group_id, {}).get(topic.name, {}):
                self._record(OffsetCommitKey(group_id, topic.name, part.partition_index), None, outbox)
            parts.append(OffsetDeleteResponsePartition(part.partition_index, error))
        return OffsetDeleteResponseTopic(topic.name, parts)

    def delete_group(self, group_id: str, outbox: Outbox) -> None:
        """All offsets of a group, which may be deleted."""
        committed = self._by_group.get(group_id, {})
        self._delete_all([(group_id, topic, number) for topic in committed for number in committed[topic]], outbox)

    def on_topics_gone(self, names: Sequence[str], outbox: Outbox) -> None:
        """Topics were deleted: an offset in one that is created anew under its name would mean something else."""
        gone = set(names)
        self._delete_all([
            (group_id, topic, number) for group_id, committed in self._by_group.items()
            for topic in gone & committed.keys() for number in committed[topic]], outbox)

    def topics(self) -> set[str]:
        """The names of all topics in which offsets are committed."""
        return {topic for committed in self._by_group.values() for topic in committed}

    def _delete_all(self, where: list[tuple[str, str, int]], outbox: Outbox) -> None:
        for group_id, topic, number in where:
            self._record(OffsetCommitKey(group_id, topic, number), None, outbox)

    # -- expiry --------------------------------------------------------------------------------

    def on_loaded(self, now: Now, outbox: Outbox) -> None:
        outbox.set_timer(EXPIRY_TIMER, now.monotonic_s + self._check_interval_s)

    def expire(self, now: Now, outbox: Outbox) -> None:
        """`EXPIRY_TIMER` fired: drop what has been kept long enough."""
        expired: list[tuple[str, str, int]] = []
        delay_s = self._check_interval_s
        for group_id, committed in self._by_group.items():
            if len(expired) >= EXPIRED_IN_A_TURN_MAX:
                delay_s = EXPIRE_AGAIN_S
                break
            expired += self._expired(group_id, committed, now.wall_ms)
        self._delete_all(expired, outbox)
        outbox.set_timer(EXPIRY_TIMER, now.monotonic_s + delay_s)

    def _expired(self, group_id: str, committed: Committed, wall_ms: int) -> Iterator[tuple[str, str, int]]:
        owner = self._owner_of(group_id)
        for topic, partitions in committed.items():
            if owner is not None and owner.is_subscribed(group_id, topic):
                continue
            for number, value in partitions.items():
                base_ms: int | None = value.commit_timestamp
                if owner is not None:
                    base_ms = owner.expiry_base_ms(group_id, value.commit_timestamp)
                if base_ms is None:
                    return  # none of this group's
                wished = value.expire_timestamp
                if wall_ms >= wished if wished >= 0 else wall_ms - base_ms >= self._retention_ms:
                    yield group_id, topic, number


def _fetched(number: int, value: OffsetCommitValue | None, topic_id: bytes) -> OffsetFetchResponsePartitions:
    if value is None or ZERO_UUID != value.topic_id != topic_id != ZERO_UUID:
        return OffsetFetchResponsePartitions(number, -1, -1, "", 0)
    return OffsetFetchResponsePartitions(number, value.offset, value.leader_epoch, value.metadata, 0)


def java_length(text: str) -> int:
    """How long Kafka takes a text to be: in units of UTF-16."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2
