"""Requests to whoever coordinates a group, in steps: found, asked, and found again where it moved or died.

Owns: which broker coordinates which group, as far as it was asked; the structs of committed offsets.
Raises BrokerRefused, RequestTimedOut. A request may be sent more than once: what goes through here bears that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from zafka.client.cluster import Target
from zafka.client.core import Answer, Core, check_count
from zafka.client.errors import BrokerRefused, ConfigError, ConnectionLost, RequestTimedOut, error_name, is_retriable
from zafka.client.group import COORDINATOR_ERRORS, Identity
from zafka.client.records import OffsetAndMetadata, Offsets, TopicPartition
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
)
from zafka.transport.kafka.messages.offset_commit import OffsetCommitRequestPartition, OffsetCommitRequestTopic
from zafka.transport.kafka.messages.offset_delete import OffsetDeleteRequestPartition, OffsetDeleteRequestTopic

RETRY_S = 0.05
ATTEMPT_S = 5.0  # for one answer: a coordinator that died unnoticed must not use up all the time
NO_OFFSET = -1

Errors = Callable[[Any], Iterable[int]]


class Coordinators:
    """See the module."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._known: dict[str, int] = {}
        self._asked: dict[str, Answer] = {}  # by `known`

    async def find(self, group_id: str, deadline_s: float) -> int:
        """The broker that coordinates a group."""
        while (known := self._known.get(group_id)) is None:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise RequestTimedOut(f"no coordinator of group {group_id!r} was found in time")
            attempt_s = min(left_s, ATTEMPT_S)
            try:
                answer = await self._core.ask(Target.ANY, ApiKey.FIND_COORDINATOR, _find_request(group_id), attempt_s)
            except (ConnectionLost, RequestTimedOut):
                continue
            if not self._take(group_id, answer):
                await self._core.sleep(RETRY_S)
        return known

    def known(self, group_id: str) -> int:
        """Without waiting: -1 if it has to be asked for. Then it is, so that a later call may know it."""
        if group_id not in self._known:
            asked = self._asked.get(group_id)
            if asked is None:
                request = _find_request(group_id)
                self._asked[group_id] = self._core.begin_ask(Target.ANY, ApiKey.FIND_COORDINATOR, request, ATTEMPT_S)
            elif asked.done:
                del self._asked[group_id]
                with suppress(BrokerRefused):  # another time, perhaps
                    if asked.error is None:
                        self._take(group_id, asked.message)
        return self._known.get(group_id, -1)

    def _take(self, group_id: str, answer: FindCoordinatorResponse) -> bool:
        """False if there may be a coordinator later. Raises BrokerRefused."""
        found = answer.coordinators[0] if answer.coordinators else answer
        if not found.error_code:
            self._known[group_id] = found.node_id
        elif not is_retriable(found.error_code):
            raise BrokerRefused(f"group {group_id!r}", found.error_code, found.error_message or None)
        return not found.error_code

    def forget(self, group_id: str) -> None:
        self._known.pop(group_id, None)

    async def ask(self, group_id: str, api_key: ApiKey, message: Any, errors: Errors, deadline_s: float) -> Any:
        """The first answer that is a coordinator's. errors: its codes."""
        problem = "no time is left to ask again"
        while True:
            broker = await self.find(group_id, deadline_s)
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise RequestTimedOut(f"{api_key.name} for group {group_id!r} was not done in time: {problem}")
            try:
                answer = await self._core.ask(broker, api_key, message, min(left_s, ATTEMPT_S), repeat=False)
            except (ConnectionLost, RequestTimedOut) as error:
                problem = str(error)
            else:
                lost = [code for code in errors(answer) if code in COORDINATOR_ERRORS]
                if not lost:
                    return answer
                problem = error_name(lost[0])
            self.forget(group_id)
            await self._core.sleep(RETRY_S)


def _find_request(group_id: str) -> FindCoordinatorRequest:
    return FindCoordinatorRequest(key=group_id, coordinator_keys=[group_id])


# -- committed offsets -------------------------------------------------------------------------------


def check_offsets(offsets: Offsets) -> dict[TopicPartition, OffsetAndMetadata]:
    """What a user wants to have committed, in one form. Raises ConfigError."""
    checked = {}
    for where, wanted in offsets.items():
        offset, metadata = wanted if isinstance(wanted, OffsetAndMetadata) else (wanted, "")
        if not isinstance(metadata, str):
            raise ConfigError(f"the metadata of a committed offset is a text, not {metadata!r}")
        checked[TopicPartition(*where)] = OffsetAndMetadata(check_count("offset", offset, 0), metadata)
    return checked


def commit_request(
    group_id: str, offsets: Mapping[TopicPartition, OffsetAndMetadata], identity: Identity | None = None, instance_id: str | None = None
) -> OffsetCommitRequest:
    """identity: of the member that commits; None: nobody's, which only a group without members takes."""
    topics: dict[str, OffsetCommitRequestTopic] = {}
    for (topic, partition), (offset, metadata) in offsets.items():
        entry = topics.setdefault(topic, OffsetCommitRequestTopic(name=topic, partitions=[]))
        entry.partitions.append(OffsetCommitRequestPartition(partition, offset, committed_metadata=metadata))
    member_id, generation, _ = identity or Identity("", -1, 0)
    return OffsetCommitRequest(group_id, generation, member_id, instance_id, topics=list(topics.values()))


def read_commit(answer: OffsetCommitResponse) -> dict[TopicPartition, int]:
    """The error code of each partition."""
    return {
        TopicPartition(topic.name, part.partition_index): part.error_code
        for topic in answer.topics for part in topic.partitions}


def commit_errors(answer: OffsetCommitResponse) -> Iterable[int]:
    return read_commit(answer).values()


def delete_offsets_request(group_id: str, partitions: Iterable[TopicPartition]) -> OffsetDeleteRequest:
    topics: dict[str, OffsetDeleteRequestTopic] = {}
    for topic, partition in partitions:
        entry = topics.setdefault(topic, OffsetDeleteRequestTopic(topic, []))
        entry.partitions.append(OffsetDeleteRequestPartition(partition))
    return OffsetDeleteRequest(group_id, list(topics.values()))


def read_deleted_offsets(answer: OffsetDeleteResponse) -> dict[TopicPartition, int]:
    """The error code of each partition."""
    return {
        TopicPartition(topic.name, part.partition_index): part.error_code
        for topic in answer.topics for part in topic.partitions}


def fetch_request(
    group_id: str, partitions: Iterable[TopicPartition] | None, identity: Identity | None = None
) -> OffsetFetchRequest:
    """partitions: None for all that have a committed offset. identity: of a KIP-848 member, whose epoch is looked at."""
    member_id, epoch, _ = identity or (None, -1, 0)
    if partitions is None:
        return OffsetFetchRequest([OffsetFetchRequestGroup(group_id, member_id, epoch, topics=None)], group_id, None)
    topics: dict[str, list[int]] = {}
    for topic, partition in partitions:
        topics.setdefault(topic, []).append(partition)
    new = [OffsetFetchRequestTopics(name=name, partition_indexes=numbers) for name, numbers in topics.items()]
    old = [OffsetFetchRequestTopic(name, numbers) for name, numbers in topics.items()]
    return OffsetFetchRequest([OffsetFetchRequestGroup(group_id, member_id, epoch, topics=new)], group_id, old)


def fetch_errors(answer: OffsetFetchResponse) -> list[int]:
    """Of the answer, of its group and of each partition."""
    topics = [topic for group in answer.groups for topic in group.topics]
    codes = [answer.error_code, *(group.error_code for group in answer.groups)]
    codes += [part.error_code for topic in topics for part in topic.partitions]
    return codes + [part.error_code for topic in answer.topics for part in topic.partitions]


def read_committed(answer: OffsetFetchResponse) -> dict[TopicPartition, OffsetAndMetadata]:
    """What is committed; partitions without a committed offset are left out."""
    found = {
        TopicPartition(topic.name, part.partition_index): OffsetAndMetadata(part.committed_offset, part.metadata or "")
        for group in answer.groups for topic in group.topics for part in topic.partitions}
    found |= {
        TopicPartition(topic.name, old.partition_index): OffsetAndMetadata(old.committed_offset, old.metadata or "")
        for topic in answer.topics for old in topic.partitions}
    return {where: committed for where, committed in found.items() if committed.offset != NO_OFFSET}


def offsets_of(committed: Mapping[TopicPartition, OffsetAndMetadata | None]) -> dict[TopicPartition, int | None]:
    return {where: None if found is None else found.offset for where, found in committed.items()}


async def fetch_committed(
    coordinators: Coordinators, group_id: str, partitions: Iterable[TopicPartition] | None, deadline_s: float,
    identity: Identity | None = None,
) -> dict[TopicPartition, OffsetAndMetadata]:
    """Committed offsets of these partitions, or of all; those that have none are left out."""
    wanted = None if partitions is None else list(partitions)
    if wanted is not None and not wanted:
        return {}
    request = fetch_request(group_id, wanted, identity)
    answer = await coordinators.ask(group_id, ApiKey.OFFSET_FETCH, request, fetch_errors, deadline_s)
    for code in fetch_errors(answer):
        if code not in (ErrorCode.NONE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION):
            raise BrokerRefused(f"no committed offsets of group {group_id!r}", code)
    return read_committed(answer)
