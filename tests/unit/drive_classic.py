"""Classic groups without a coordinator around them: requests in, answers out, a clock that a test moves, a log that replays."""

from __future__ import annotations

from typing import Any

from zafka.actors.actor import Now, Peer
from zafka.actors.groups.calls import Call, Commit, Outbox
from zafka.actors.groups.classic import ClassicGroups
from zafka.actors.groups.record_codec import decode_record
from zafka.actors.groups.records import GROUP, GroupMetadataValue
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.codec import response_reader, response_writer
from zafka.transport.kafka.messages.describe_groups import DescribedGroup
from zafka.transport.kafka.messages.heartbeat import HeartbeatRequest
from zafka.transport.kafka.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from zafka.transport.kafka.messages.leave_group import LeaveGroupRequest, MemberIdentity
from zafka.transport.kafka.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment

BROKER = Peer("broker 1", 1)
GROUP_ID = "g"
START_MS = 1_700_000_000_000
DELAY_S, SESSION_S, REBALANCE_S = 3.0, 10.0, 60.0
RANGE = (("range", b"topics"),)


class Classic:
    """One partition's classic groups. log: what was appended. Answers come as a client reads them in its version."""

    def __init__(self, **settings: int) -> None:
        self.settings = {key.replace("_", "."): str(value) for key, value in settings.items()}
        self.log: list[tuple[bytes, bytes | None]] = []
        self.now = Now(100.0, START_MS)
        self._answers: dict[int, Any] = {}
        self._ids = 0
        self._asked = 0
        self._begin()

    def _begin(self) -> None:
        self.groups = ClassicGroups(self.settings, self._new_id)
        self.timers: dict[str, float] = {}

    def _new_id(self) -> str:
        self._ids += 1
        return str(self._ids)

    def restart(self) -> None:
        """Another coordinator takes over: it has the log, and nothing else."""
        self._begin()
        for key, value in self.log:
            decoded = decode_record({GROUP.number: GROUP}, key, value)
            assert decoded is not None
            self.groups.replay(*decoded)
        outbox = Outbox()
        self.groups.on_loaded(self.now, outbox)
        self.keep(outbox)

    def renew_sessions(self) -> None:
        outbox = Outbox()
        self.groups.renew_sessions(self.now, outbox)
        self.keep(outbox)

    def keep(self, outbox: Outbox) -> None:
        """Do what a turn wants done."""
        self.log += outbox.records
        for call, response in outbox.answers:
            assert call.request_id not in self._answers, "answered twice"
            body = b"".join(response_writer(call.api_key, call.version)(response))
            self._answers[call.request_id] = response_reader(call.api_key, call.version)(memoryview(body), 0)
        for name, at_s in outbox.timers.items():
            if at_s is None:
                self.timers.pop(name, None)
            else:
                self.timers[name] = at_s

    def pass_time(self, seconds: float) -> None:
        """All timers of this time fire, in order."""
        end_s = self.now.monotonic_s + seconds
        while self.timers and min(self.timers.values()) <= end_s:
            name, at_s = min(self.timers.items(), key=lambda timer: timer[1])
            del self.timers[name]
            self._go_to(max(at_s, self.now.monotonic_s))
            outbox = Outbox()
            self.groups.on_timer(name, self.now, outbox)
            self.keep(outbox)
        self._go_to(end_s)

    def _go_to(self, monotonic_s: float) -> None:
        self.now = Now(monotonic_s, START_MS + round((monotonic_s - 100.0) * 1000))

    # -- requests ------------------------------------------------------------------------------

    def ask(self, api: ApiKey, version: int, request: Any, client_id: str = "c") -> Call:
        self._asked += 1
        call = Call(BROKER, self._asked, api, version, client_id, "/127.0.0.1")
        outbox = Outbox()
        self.groups.handle(call, request, self.now, outbox)
        self.keep(outbox)
        return call

    def answer(self, call: Call) -> Any:
        """None as long as there is none."""
        return self._answers.get(call.request_id)

    def error(self, call: Call) -> int:
        error: int = self._answers[call.request_id].error_code
        return error

    def join(
        self, member_id: str = "", *, instance: str | None = None, version: int = 9,
        protocols: tuple[tuple[str, bytes], ...] = RANGE, protocol_type: str = "consumer", session_s: float = SESSION_S,
        rebalance_s: float = REBALANCE_S, group: str = GROUP_ID,
    ) -> Call:
        return self.ask(ApiKey.JOIN_GROUP, version, JoinGroupRequest(
            group, round(session_s * 1000), round(rebalance_s * 1000), member_id, instance, protocol_type,
            [JoinGroupRequestProtocol(name, metadata) for name, metadata in protocols]))

    def join_new(self, **fields: Any) -> tuple[str, Call]:
        """As clients do since KIP-394: ask for an id, then join with it."""
        first = self.join(**fields)
        member_id = self.answer(first).member_id
        return member_id, self.join(member_id, **fields)

    def sync(
        self, member_id: str, generation: int, assignments: dict[str, bytes] | None = None, *, version: int = 5,
        instance: str | None = None, protocol_type: str | None = "consumer", protocol: str | None = "range",
        group: str = GROUP_ID,
    ) -> Call:
        return self.ask(ApiKey.SYNC_GROUP, version, SyncGroupRequest(
            group, generation, member_id, instance, protocol_type, protocol,
            [SyncGroupRequestAssignment(*each) for each in (assignments or {}).items()]))

    def heartbeat(self, member_id: str, generation: int, *, instance: str | None = None, group: str = GROUP_ID) -> int:
        return self.error(self.ask(ApiKey.HEARTBEAT, 4, HeartbeatRequest(group, generation, member_id, instance)))

    def leave(self, *members: tuple[str, str | None], group: str = GROUP_ID) -> list[int]:
        """Each one's error; a member is its id and its instance id."""
        call = self.ask(ApiKey.LEAVE_GROUP, 5, LeaveGroupRequest(group, [MemberIdentity(*each) for each in members]))
        answer = self.answer(call)
        assert answer.error_code == 0
        assert [(each.member_id, each.group_instance_id) for each in answer.members] == list(members)
        return [each.error_code for each in answer.members]

    def commit(self, member_id: str, generation: int, *, instance: str | None = None) -> int:
        """The error of a commit of offsets."""
        outbox = Outbox()
        error = self.groups.check_commit(Commit(GROUP_ID, member_id, instance, generation, 9), self.now, outbox)
        self.keep(outbox)
        return error

    def delete(self) -> int:
        outbox = Outbox()
        error = self.groups.delete(GROUP_ID, outbox)
        self.keep(outbox)
        return error

    # -- states --------------------------------------------------------------------------------

    def describe(self) -> DescribedGroup:
        return self.groups.describe(GROUP_ID, 6)

    @property
    def state(self) -> str:
        return self.describe().group_state

    @property
    def members(self) -> list[str]:
        return [member.member_id for member in self.describe().members]

    def written(self) -> list[GroupMetadataValue | None]:
        """The log's records of the group, in order."""
        decoded = [decode_record({GROUP.number: GROUP}, key, value) for key, value in self.log]
        return [each[1] for each in decoded if each is not None and each[0].group == GROUP_ID]

    def form(self, size: int, *, synced: bool = True, **fields: Any) -> list[str]:
        """A group of generation 1 with dynamic members: their ids, the leader's first. Assignments: b"for ID"."""
        joined = [self.join_new(**fields) for _ in range(size)]
        return self.settle([call for _, call in joined], synced=synced)

    def form_static(self, *instances: str, **fields: Any) -> list[str]:
        """The same with static members; the first instance leads."""
        return self.settle([self.join(instance=instance, **fields) for instance in instances])

    def settle(self, joins: list[Call], *, synced: bool = True) -> list[str]:
        """Have these joins answered, and their members synced."""
        while any(self.answer(call) is None for call in joins):
            self.pass_time(min(self.timers.values()) - self.now.monotonic_s)
        answers = [self.answer(call) for call in joins]
        assert [answer.error_code for answer in answers] == [0] * len(joins)
        ids = [answer.member_id for answer in answers]
        (leader,) = {answer.leader for answer in answers}
        if synced:
            syncs = [self.sync(member_id, answers[0].generation_id) for member_id in ids if member_id != leader]
            syncs.append(self.sync(leader, answers[0].generation_id, {each: f"for {each}".encode() for each in ids}))
            assert [self.error(call) for call in syncs] == [0] * len(ids)
        return sorted(ids, key=lambda member_id: member_id != leader)
