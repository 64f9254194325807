"""All groups of one partition of `__consumer_offsets`, sans-IO: every kind of group, their offsets, their administration.

Owns: `GroupMachine`, which gives each request, timer and record to whom it belongs, and answers what concerns all kinds:
ListGroups, DescribeGroups, ConsumerGroupDescribe, DeleteGroups.
Invariants: a group id belongs to one kind at a time. `replay` of the records of an outbox, in order, leads to the state
that the machine was in when it filled it, but for what only its members know (`Groups`).
Source: Kafka GroupCoordinatorShard, GroupMetadataManager.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from zafka.actors.actor import Now
from zafka.actors.groups import group_snapshot, records
from zafka.actors.groups.calls import Call, Groups, Listed, Outbox, Settings, Topic, Topics
from zafka.actors.groups.group_snapshot import decode_section, encode_section, sections_of
from zafka.actors.groups.migration import Migration
from zafka.actors.groups.offsets import EXPIRY_TIMER, Offsets
from zafka.actors.groups.record_codec import VERSION_BYTES, Kind, decode_record
from zafka.storage.errors import CorruptSnapshot
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import consumer_group_describe
from zafka.transport.kafka.messages.consumer_group_describe import (
    ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse,
)
from zafka.transport.kafka.messages.delete_groups import (
    DeletableGroupResult,
    DeleteGroupsRequest,
    DeleteGroupsResponse,
)
from zafka.transport.kafka.messages.describe_groups import (
    DescribedGroup,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)
from zafka.transport.kafka.messages.list_groups import ListedGroup, ListGroupsRequest, ListGroupsResponse
from zafka.transport.kafka.types import MalformedMessage, UnsupportedVersion

CLASSIC, CONSUMER = "classic", "consumer"
EMPTY, DEAD = "Empty", "Dead"
OFFSET_PREFIXES = frozenset(number.to_bytes(VERSION_BYTES, "big") for number in records.OFFSET_KINDS)
GROUP_ID_NOT_FOUND_SINCE = 6  # of DescribeGroups; before, such a group is "Dead"


class GroupMachine:
    """groups: of each kind. kinds: of records beside those of offsets, and whose they are. migration: between the kinds."""

    def __init__(
        self, groups: Sequence[Groups], migration: Migration, kinds: Mapping[int, tuple[Kind, Groups]], topics: Topics,
        settings: Settings,
    ) -> None:
        self.offsets = Offsets(self.owner_of, topics, settings)
        self._groups = groups
        self._migration = migration
        self._topics = topics
        self._kinds = records.OFFSET_KINDS | {number: kind for number, (kind, _) in kinds.items()}
        self._replay: dict[type, Callable[[Any, Any], None]] = {records.OffsetCommitKey: self.offsets.replay}
        self._replay |= {kind.key: owner.replay for kind, owner in kinds.values()}
        # The last record of each key as it stands in the log, but for those of offsets.
        self._written: dict[bytes, bytes] = {}
        self._by_word = {each.kind: each for each in groups}
        self._handlers: dict[int, Callable[[Call, Any, Now, Outbox], None]] = {
            ApiKey.LIST_GROUPS: self._list, ApiKey.DESCRIBE_GROUPS: self._describe,
            ApiKey.CONSUMER_GROUP_DESCRIBE: self._describe_consumer, ApiKey.DELETE_GROUPS: self._delete}
        self._handlers |= dict.fromkeys(self.offsets.apis, self.offsets.handle)
        for each in groups:
            self._handlers |= dict.fromkeys(each.apis, each.handle)

    def __repr__(self) -> str:
        return f"<GroupMachine {self.offsets!r} {' '.join(map(repr, self._groups))}>"

    def owner_of(self, group_id: str) -> Groups | None:
        for each in self._groups:
            if group_id in each:
                return each
        return None

    # -- what the coordinator gives it ---------------------------------------------------------

    def handle(self, call: Call, request: Any, now: Now, outbox: Outbox) -> None:
        if not self._migration.handle(call, request, now, outbox):
            self._handlers[call.api_key](call, request, now, outbox)
        self._migration.downgrade(now, outbox)

    def on_timer(self, name: str, now: Now, outbox: Outbox) -> None:
        if name == EXPIRY_TIMER:
            self._expire(now, outbox)
        else:
            self._by_word[name.partition(" ")[0]].on_timer(name, now, outbox)
            self._migration.downgrade(now, outbox)

    def configure(self, configs: Mapping[str, Mapping[str, str]]) -> None:
        """What was altered of groups, by their ids; of "": of all. It holds from the next request on."""
        self._topics.configs = configs

    def on_topics(self, told: Mapping[str, Topic], now: Now, outbox: Outbox) -> None:
        """These are all topics of the cluster."""
        known = self._topics.by_name
        changed = [name for name, topic in told.items() if known.get(name) != topic]
        # The first time also those that were deleted while nobody was here to be told.
        gone = (known.keys() if known else self.offsets.topics()) - told.keys()
        # One that was created anew under its name is another topic.
        gone |= {name for name in changed if name in known and known[name].topic_id != told[name].topic_id}
        self._topics.by_name = dict(told)
        if gone:
            self.offsets.on_topics_gone(sorted(gone), outbox)
        if changed or gone:
            for each in self._groups:
                each.on_topics(sorted({*changed, *gone}), now, outbox)

    def replay(self, key: bytes, value: bytes | None) -> None:
        """Take in a record of the log; one of a kind that is not known is passed over, as Kafka does."""
        decoded = decode_record(self._kinds, key, value)
        if decoded is not None:
            self._replay[type(decoded[0])](*decoded)
            self.on_written(key, value)

    def on_written(self, key: bytes, value: bytes | None) -> None:
        """A record of an outbox is in the log now."""
        if key[:VERSION_BYTES] not in OFFSET_PREFIXES:
            if value is None:
                self._written.pop(key, None)
            else:
                self._written[key] = value

    def sections(self) -> Iterator[tuple[bytes, int]]:
        """What a snapshot of this is to hold, and how many records of the log that is: section by section, each as of when
        it is asked for. So it leads to the state only with all records that are written from now on."""
        sections = sections_of(self.offsets.pieces(group_snapshot.OFFSETS_PER_SECTION), list(self._written.items()))
        return ((encode_section(section), section.entries) for section in sections)

    def restore(self, data: bytes) -> int:
        """Take in a section; returns how many records that was. Raises CorruptSnapshot."""
        section = decode_section(data)
        self.offsets.restore(section.offsets)
        for key, value in section.records:
            try:
                self.replay(key, value)
            except (MalformedMessage, UnsupportedVersion) as error:
                raise CorruptSnapshot(f"a record is no coordinator's: {error}") from None
        return section.entries

    def on_loaded(self, now: Now, outbox: Outbox) -> None:
        """All of the log is replayed; clients come from now on."""
        self.offsets.on_loaded(now, outbox)
        for each in self._groups:
            each.on_loaded(now, outbox)

    def renew_sessions(self, now: Now, outbox: Outbox) -> None:
        """Nobody could be heard for a while."""
        for each in self._groups:
            each.renew_sessions(now, outbox)

    def _expire(self, now: Now, outbox: Outbox) -> None:
        """Drop offsets whose time is over, and with the last one its group, if it is empty."""
        self.offsets.expire(now, outbox)
        for each in self._groups:
            for listed in list(each.list()):
                if listed.group_id not in self.offsets:
                    each.delete(listed.group_id, outbox)

    # -- administration ------------------------------------------------------------------------

    def _list(self, call: Call, request: ListGroupsRequest, now: Now, outbox: Outbox) -> None:
        states = {state.lower() for state in request.states_filter}
        kinds = {kind.lower() for kind in request.types_filter}
        found = [
            ListedGroup(each.group_id, each.protocol_type, each.state, each.kind) for each in self._listed()
            if (not states or each.state.lower() in states) and (not kinds or each.kind in kinds)]
        outbox.answer(call, ListGroupsResponse(groups=found))

    def _listed(self) -> list[Listed]:
        with_members = [listed for each in self._groups for listed in each.list()]
        alone = [group_id for group_id in self.offsets if self.owner_of(group_id) is None]
        return with_members + [Listed(group_id, "", EMPTY, CLASSIC) for group_id in alone]

    def _describe(self, call: Call, request: DescribeGroupsRequest, now: Now, outbox: Outbox) -> None:
        outbox.answer(call, DescribeGroupsResponse(
            groups=[self._described(group_id, call.version) for group_id in request.groups]))

    def _described(self, group_id: str, version: int) -> DescribedGroup:
        owner = self.owner_of(group_id)
        if owner is not None and owner.kind == CLASSIC:
            described: DescribedGroup = owner.describe(group_id, version)
            return described
        if owner is None and group_id in self.offsets:
            return DescribedGroup(group_id=group_id, group_state=EMPTY)
        if version < GROUP_ID_NOT_FOUND_SINCE:
            return DescribedGroup(group_id=group_id, group_state=DEAD)
        return DescribedGroup(ErrorCode.GROUP_ID_NOT_FOUND, self._is_none(group_id, CLASSIC), group_id, DEAD)

    def _describe_consumer(self, call: Call, request: ConsumerGroupDescribeRequest, now: Now, outbox: Outbox) -> None:
        outbox.answer(call, ConsumerGroupDescribeResponse(
            groups=[self._described_consumer(group_id, call.version) for group_id in request.group_ids]))

    def _described_consumer(self, group_id: str, version: int) -> consumer_group_describe.DescribedGroup:
        owner = self.owner_of(group_id)
        if owner is not None and owner.kind == CONSUMER:
            described: consumer_group_describe.DescribedGroup = owner.describe(group_id, version)
            return described
        return consumer_group_describe.DescribedGroup(
            ErrorCode.GROUP_ID_NOT_FOUND, self._is_none(group_id, CONSUMER), group_id)

    def _is_none(self, group_id: str, kind: str) -> str:
        """Kafka's words for a group that is not there, or is none of this kind. One with offsets alone is a classic one."""
        there = self.owner_of(group_id) is not None or group_id in self.offsets
        return f"Group {group_id} is not a {kind} group." if there else f"Group {group_id} not found."

    def _delete(self, call: Call, request: DeleteGroupsRequest, now: Now, outbox: Outbox) -> None:
        outbox.answer(call, DeleteGroupsResponse(results=[
            DeletableGroupResult(group_id, self._delete_one(group_id, outbox)) for group_id in request.groups_names]))

    def _delete_one(self, group_id: str, outbox: Outbox) -> int:
        owner = self.owner_of(group_id)
        if owner is None and group_id not in self.offsets:
            return ErrorCode.GROUP_ID_NOT_FOUND
        error = owner.delete(group_id, outbox) if owner is not None else 0
        if not error:
            self.offsets.delete_group(group_id, outbox)
        return error
