"""What members of classic groups are answered, and what their requests say in every version.

Owns: the answers to JoinGroup and SyncGroup; the names of a group's timers; which sessions are allowed. Pure.
Source: Kafka JoinGroupResponse, JoinGroupRequest, GroupMetadataManager.validateSyncGroup.
"""

from __future__ import annotations

from zafka.actors.groups.calls import Call, Outbox, Settings
from zafka.actors.groups.classic_group import ClassicGroup, Member, State
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.join_group import JoinGroupRequest, JoinGroupResponse
from zafka.transport.kafka.messages.sync_group import SyncGroupRequest, SyncGroupResponse

KNOWN_ID_SINCE = 4  # of JoinGroup: a new member is given its id, and comes back with it
NULL_PROTOCOL_SINCE = 7  # of JoinGroup
SKIP_ASSIGNMENT_SINCE = 9  # of JoinGroup
SEVERAL_MEMBERS_SINCE = 3  # of LeaveGroup


class SessionLimits:
    """How long sessions may be that members ask for."""

    def __init__(self, settings: Settings) -> None:
        self._ms_min = int(settings.get("group.min.session.timeout.ms", "6000"))
        self._ms_max = int(settings.get("group.max.session.timeout.ms", "1800000"))

    def allow(self, session_timeout_ms: int) -> bool:
        return self._ms_min <= session_timeout_ms <= self._ms_max


def check_sync(group: ClassicGroup | None, request: SyncGroupRequest) -> int:
    if group is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    error = group.check_member(request.member_id, request.group_instance_id)
    if error:
        return error
    if request.generation_id != group.generation:
        return ErrorCode.ILLEGAL_GENERATION
    for said, known in ((request.protocol_type, group.protocol_type), (request.protocol_name, group.protocol)):
        if said is not None and known is not None and said != known:
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    return ErrorCode.REBALANCE_IN_PROGRESS if group.state is State.PREPARING else 0


# -- answers -----------------------------------------------------------------------------------------


def answer_join(
    call: Call, group: ClassicGroup, member_id: str, outbox: Outbox, *, tell_members: bool = False,
    skip_assignment: bool = False, leader: str | None = None,
) -> None:
    outbox.answer(call, JoinGroupResponse(
        generation_id=group.generation, protocol_type=group.protocol_type, protocol_name=_name(call, group.protocol),
        leader=leader or group.leader or "", skip_assignment=skip_assignment, member_id=member_id,
        members=group.for_leader() if tell_members else []))


def refuse_join(call: Call, error: int, member_id: str, outbox: Outbox) -> None:
    outbox.answer(call, JoinGroupResponse(error_code=error, protocol_name=_name(call, None), member_id=member_id))


def _name(call: Call, protocol: str | None) -> str | None:
    return protocol if protocol is not None or call.version >= NULL_PROTOCOL_SINCE else ""


def answer_sync(call: Call, group: ClassicGroup, member: Member, outbox: Outbox) -> None:
    outbox.answer(call, SyncGroupResponse(
        protocol_type=group.protocol_type, protocol_name=group.protocol, assignment=member.assignment))


def refuse_sync(call: Call, error: int, outbox: Outbox) -> None:
    outbox.answer(call, SyncGroupResponse(error_code=error))


# -- requests ----------------------------------------------------------------------------------------


def protocols_of(request: JoinGroupRequest) -> list[tuple[str, bytes]]:
    return [(each.name, each.metadata) for each in request.protocols]


def rebalance_timeout(call: Call, request: JoinGroupRequest) -> int:
    return request.session_timeout_ms if call.version == 0 else request.rebalance_timeout_ms


def reason_of(request: JoinGroupRequest) -> str:
    return request.reason or "not provided"


# -- names of timers ---------------------------------------------------------------------------------


def session_timer(group: ClassicGroup, member_id: str) -> str:
    return f"classic session {group.group_id!r} {member_id!r}"


def join_timer(group: ClassicGroup) -> str:
    return f"classic join {group.group_id!r}"


def sync_timer(group: ClassicGroup) -> str:
    return f"classic sync {group.group_id!r}"
