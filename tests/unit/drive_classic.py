"""Classic groups with clients' requests and a clock: the machine alone, its timers fired in order, its log in a list.

Every request and answer goes through the wire's layouts of its version, every record through the log's.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from zafka.actors.actor import Now, Peer
from zafka.actors.groups.calls import Call, Commit, Outbox
from zafka.actors.groups.classic import ClassicGroups
from zafka.actors.groups.record_codec import decode_record
from zafka.actors.groups.records import GROUP, GroupMetadataKey, GroupMetadataValue
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import request_reader, request_writer, response_reader, response_writer
from zafka.transport.kafka.messages.heartbeat import HeartbeatRequest
from zafka.transport.kafka.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from zafka.transport.kafka.messages.leave_group import LeaveGroupRequest, MemberIdentity
from zafka.transport.kafka.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment

WALL_MS = 1_700_000_000_000
BROKER = Peer("broker 1", 1)
GROUP_ID = "g"
SESSION_MS, REBALANCE_MS, INITIAL_MS = 10_000, 60_000, 3_000
RANGE = (("range", b"r"),)
Protocols = tuple[tuple[str, bytes], ...]


class Asked:
    """A request. answer: as its client reads it, None as long as there is none. at_ms: when it came."""

    def __init__(self, call: Call, at_ms: int) -> None:
        self.call = call
        self.at_ms = at_ms
        self.answer: Any = None

    @property
    def error(self) -> int:
        assert self.answer is not None, "not answered"
        error: int = self.answer.error_code
        return error


class Classic:
    """settings: the broker's, with _ for the dots of their names. log: what was appended, read back."""

    def __init__(self, **settings: int) -> None:
        self._settings: dict[str, str] = {}
        self._numbers = count(1)
        self._ids = count(1)
        self._open: dict[int, Asked] = {}
        self.ms = 0
        self.records: list[tuple[bytes, bytes | None]] = []
        self.restart(**settings)

    def restart(self, **settings: int) -> None:
        """Only the log is left; whoever waits for an answer does so in vain."""
        self._settings |= {name.replace("_", "."): str(value) for name, value in settings.items()}
        self._open.clear()
        self.timers: dict[str, float] = {}
        self.groups = ClassicGroups(self._settings, lambda: f"id{next(self._ids)}")
        for key, value in self.log:
            self.groups.replay(key, value)
        outbox = Outbox()
        self.groups.on_loaded(self.now, outbox)
        self._take(outbox)

    @property
    def now(self) -> Now:
        return Now(self.ms / 1000, WALL_MS + self.ms)

    @property
    def log(self) -> list[tuple[GroupMetadataKey, GroupMetadataValue | None]]:
        decoded = [decode_record({GROUP.number: GROUP}, key, value) for key, value in self.records]
        return [each for each in decoded if each is not None]

    @property
    def stored(self) -> GroupMetadataValue:
        """The last record."""
        value = self.log[-1][1]
        assert value is not None
        return value

    def _take(self, outbox: Outbox) -> None:
        for name, at_s in outbox.timers.items():
            if at_s is None:
                self.timers.pop(name, None)
            else:
                self.timers[name] = at_s
        self.records += outbox.records
        for call, response in outbox.answers:
            asked = self._open.pop(call.request_id)  # an answer that was given twice is not found here
            body = b"".join(response_writer(call.api_key, call.version)(response))
            asked.answer = response_reader(call.api_key, call.version)(memoryview(body), 0)

    def pass_ms(self, ms: int) -> None:
        """Let time go by, with all that falls due in it."""
        end = self.ms + ms
        while self.timers:
            name = min(self.timers, key=lambda name: self.timers[name])
            due_ms = round(self.timers[name] * 1000)
            if due_ms > end:
                break
            self.ms = max(self.ms, due_ms)
            del self.timers[name]
            outbox = Outbox()
            self.groups.on_timer(name, self.now, outbox)
            self._take(outbox)
        self.ms = end

    # -- requests ------------------------------------------------------------------------------

    def ask(self, api: ApiKey, version: int, request: Any, *, client: str = "client") -> Asked:
        body = b"".join(request_writer(api, version)(request))
        asked = Asked(Call(BROKER, next(self._numbers), api, version, client, "/127.0.0.1"), self.ms)
        self._open[asked.call.request_id] = asked
        outbox = Outbox()
        self.groups.handle(asked.call, request_reader(api, version)(memoryview(body), 0), self.now, outbox)
        self._take(outbox)
        return asked

    def join(
        self, member: str = "", *, group: str = GROUP_ID, instance: str | None = None, version: int = 9,
        protocols: Protocols = RANGE, kind: str = "consumer", session_ms: int = SESSION_MS,
        rebalance_ms: int = REBALANCE_MS, client: str = "client",
    ) -> Asked:
        offered = [JoinGroupRequestProtocol(name, metadata) for name, metadata in protocols]
        return self.ask(ApiKey.JOIN_GROUP, version, JoinGroupRequest(
            group, session_ms, rebalance_ms, member, instance, kind, offered), client=client)

    def join_new(self, **fields: Any) -> tuple[str, Asked]:
        """A dynamic member, in two steps: its id, and the JoinGroup that waits."""
        member: str = self.join(**fields).answer.member_id
        return member, self.join(member, **fields)

    def sync(
        self, member: str, generation: int, assignments: dict[str, bytes] | None = None, *, group: str = GROUP_ID,
        instance: str | None = None, version: int = 5, kind: str | None = "consumer", protocol: str | None = "range",
    ) -> Asked:
        told = [SyncGroupRequestAssignment(name, assignment) for name, assignment in (assignments or {}).items()]
        if version < 5:
            kind = protocol = None
        return self.ask(ApiKey.SYNC_GROUP, version, SyncGroupRequest(
            group, generation, member, instance, kind, protocol, told))

    def heartbeat(
        self, member: str, generation: int, *, group: str = GROUP_ID, instance: str | None = None, version: int = 4
    ) -> int:
        return self.ask(ApiKey.HEARTBEAT, version, HeartbeatRequest(group, generation, member, instance)).error

    def leave(self, *members: tuple[str, str | None], group: str = GROUP_ID, version: int = 5) -> list[int]:
        """The error of each, by member id and instance id."""
        told = [MemberIdentity(member, instance) for member, instance in members]
        answer = self.ask(ApiKey.LEAVE_GROUP, version, LeaveGroupRequest(group, told)).answer
        assert answer.error_code == 0
        return [each.error_code for each in answer.members]

    def commit(self, member: str, generation: int, *, group: str = GROUP_ID, instance: str | None = None) -> int:
        outbox = Outbox()
        error = self.groups.check_commit(Commit(group, member, instance, generation), self.now, outbox)
        self._take(outbox)
        return error

    # -- whole groups --------------------------------------------------------------------------

    def state(self, group: str = GROUP_ID) -> str:
        return next((listed.state for listed in self.groups.list() if listed.group_id == group), "Dead")

    def members(self, group: str = GROUP_ID) -> set[str]:
        return {member.member_id for member in self.groups.describe(group, 6).members}

    def stable(self, size: int = 2, *, instances: tuple[str, ...] = (), **fields: Any) -> list[str]:
        """A new group with so many members, or static ones, with an assignment each; the leader comes first."""
        joins = [self.join(instance=each, **fields) for each in instances]
        joins = joins or [self.join_new(**fields)[1] for _ in range(size)]
        self.pass_ms(2 * INITIAL_MS)
        answers = [each.answer for each in joins]
        answers.sort(key=lambda answer: answer.member_id != answer.leader)
        ids: list[str] = [answer.member_id for answer in answers]
        generation, kind = answers[0].generation_id, answers[0].protocol_type
        told = {member: b"for " + member.encode() for member in ids}
        by_id = {joined.member_id: instance for joined, instance in zip(
            [each.answer for each in joins], instances or [None] * len(joins), strict=True)}
        for member in ids:
            synced = self.sync(
                member, generation, told if member == ids[0] else None, instance=by_id[member], kind=kind,
                protocol=answers[0].protocol_name)
            assert synced.error == 0
        assert self.state() == "Stable"
        return ids
