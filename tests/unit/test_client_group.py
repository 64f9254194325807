"""Members of groups without sockets: their bytes, how they share, and several of them against the real coordinator."""

from __future__ import annotations

import random

import pytest

from zafka.client.assignors import ASSIGNORS, Members
from zafka.client.group import (
    NEVER,
    RETRY_S,
    Adopt,
    Failed,
    GroupOptions,
    KnownTopic,
    Lost,
    Membership,
    Phase,
    Prepare,
    Request,
)
from zafka.client.group_classic import ClassicMembership
from zafka.client.group_protocol import (
    BadGroupBytes,
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from zafka.client.records import TopicPartition
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import (
    Coordinator,
    FindCoordinatorResponse,
    HeartbeatResponse,
    JoinGroupResponse,
    JoinGroupResponseMember,
    SyncGroupResponse,
)

OWNED = frozenset({TopicPartition("b", 2), TopicPartition("a", 0), TopicPartition("a", 1)})


@pytest.mark.parametrize("sticky", [False, True])
def test_bytes_come_back(sticky: bool) -> None:
    told = Subscription(("a", "b"), OWNED, 7)
    assert decode_subscription(encode_subscription(told, sticky_user_data=sticky), sticky_user_data=sticky) == told
    assert decode_assignment(encode_assignment(OWNED)) == OWNED
    assert decode_assignment(b"") == frozenset()


def test_bytes_are_those_of_kafka() -> None:
    """Written by hand after ConsumerProtocolSubscription.json and ConsumerProtocolAssignment.json."""
    told = encode_subscription(Subscription(("ab",), frozenset({TopicPartition("ab", 3)}), 9))
    assert told.hex(" ", -4).replace(" ", "") == (
        "0002" "00000001" "0002" "6162" "ffffffff" "00000001" "0002" "6162" "00000001" "00000003" "00000009")
    assert encode_assignment([TopicPartition("ab", 3)]).hex() == (
        "0000" "00000001" "0002" "6162" "00000001" "00000003" "ffffffff")
    oldest = bytes.fromhex("0000" "00000001" "0002" "6162" "ffffffff")
    assert decode_subscription(oldest) == Subscription(("ab",))
    newest = bytes.fromhex("0003" "00000001" "0002" "6162" "ffffffff" "00000000" "00000005" "0001" "72" "99")
    assert decode_subscription(newest) == Subscription(("ab",), frozenset(), 5, rack="r")
    nowhere = bytes.fromhex("0003" "00000001" "0002" "6162" "ffffffff" "00000000" "00000005" "ffff")
    assert decode_subscription(nowhere) == Subscription(("ab",), frozenset(), 5)
    with_rack = encode_subscription(Subscription(("ab",), generation=5, rack="r"))
    assert with_rack + b"\x99" == newest


def test_damaged_bytes_are_refused() -> None:
    whole = encode_subscription(Subscription(("topic",), OWNED, 1, rack="a"))
    for size in range(len(whole)):
        with pytest.raises(BadGroupBytes):
            decode_subscription(whole[:size])
    with pytest.raises(BadGroupBytes):
        decode_assignment(bytes.fromhex("0000" "7fffffff"))


# -- how they share ----------------------------------------------------------------------------------


def some_group(choice: random.Random) -> tuple[dict[str, Subscription], dict[str, int]]:
    counts = {f"t{number}": choice.randrange(1, 9) for number in range(choice.randrange(1, 4))}
    members = {
        f"m{number}": Subscription(tuple(choice.sample(sorted(counts), choice.randrange(1, len(counts) + 1))))
        for number in range(choice.randrange(1, 6))}
    return members, counts


def with_owned(members: Members, assigned: dict[str, set[TopicPartition]], generation: int) -> dict[str, Subscription]:
    return {
        name: Subscription(member.topics, frozenset(assigned.get(name, ())), generation if name in assigned else -1)
        for name, member in members.items()}


@pytest.mark.parametrize("name", ASSIGNORS)
def test_every_partition_has_one_reader_who_wants_it(name: str) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    choice = random.Random(seed)
    for _ in range(200):
        members, counts = some_group(choice)
        assigned = ASSIGNORS[name].assign(members, counts)
        wanted = {topic for member in members.values() for topic in member.topics}
        given = [where for owned in assigned.values() for where in owned]
        assert sorted(given) == sorted(
            TopicPartition(topic, number) for topic in wanted for number in range(counts[topic]))
        assert all(where.topic in members[member].topics for member, owned in assigned.items() for where in owned)


def test_range_gives_neighbours_and_round_robin_deals() -> None:
    """As the Java classes' documentation has it; c does not read y."""
    members = {"b": Subscription(("x", "y")), "a": Subscription(("x", "y")), "c": Subscription(("x",))}
    counts = {"x": 7, "y": 3}
    assert ASSIGNORS["range"].assign(members, counts) == {
        "a": {("x", 0), ("x", 1), ("x", 2), ("y", 0), ("y", 1)}, "b": {("x", 3), ("x", 4), ("y", 2)},
        "c": {("x", 5), ("x", 6)}}
    assert ASSIGNORS["roundrobin"].assign(members, counts) == {
        "a": {("x", 0), ("x", 3), ("x", 6), ("y", 1)}, "b": {("x", 1), ("x", 4), ("y", 0), ("y", 2)},
        "c": {("x", 2), ("x", 5)}}


@pytest.mark.parametrize("name", ["sticky", "cooperative-sticky"])
def test_sticky_members_keep_what_they_have_and_end_up_even(name: str) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    choice = random.Random(seed)
    for _ in range(100):
        counts = {"t": choice.randrange(1, 20)}
        members: Members = {f"m{number}": Subscription(("t",)) for number in range(choice.randrange(1, 6))}
        before = ASSIGNORS["sticky"].assign(members, counts)
        come = {f"m{number}": Subscription(("t",)) for number in range(choice.randrange(1, 8))}
        after = ASSIGNORS[name].assign(with_owned(come, before, 1), counts)
        for member in before.keys() & come.keys():
            share = -(-counts["t"] // len(come))
            assert len(before[member] & after[member]) >= min(len(before[member]), share - 1)
        if name == "cooperative-sticky":  # who had to give something up joins anew without it
            kept = {member: owned & before.get(member, owned) | owned for member, owned in after.items()}
            given = [where for owned in after.values() for where in owned]
            assert len(given) == len(set(given))
            for taker, owned in after.items():
                assert not any(where in before[giver] for giver in before.keys() & come.keys() - {taker} for where in owned)
            after = ASSIGNORS[name].assign(with_owned(come, kept, 2), counts)
        sizes = sorted(map(len, after.values()))
        assert sizes[-1] - sizes[0] <= 1
        assert sum(sizes) == counts["t"]


def test_of_two_who_claim_a_partition_the_later_generation_has_it() -> None:
    where = TopicPartition("t", 0)
    members = {
        "old": Subscription(("t",), frozenset({where}), 3), "new": Subscription(("t",), frozenset({where}), 4)}
    assert ASSIGNORS["sticky"].assign(members, {"t": 2})["new"] == {where}


def test_of_two_who_claim_a_partition_in_one_generation_nobody_has_it() -> None:
    """So it is shared afresh, and who gets it may begin at once."""
    both = frozenset({TopicPartition("t", 0), TopicPartition("t", 1)})
    members = {name: Subscription(("t",), both, 3) for name in ("a", "b")}
    assert ASSIGNORS["cooperative-sticky"].assign(members, {"t": 2}) == {"a": {("t", 0)}, "b": {("t", 1)}}


def test_what_is_not_read_any_more_is_not_kept() -> None:
    members = {
        "a": Subscription(("u",), frozenset({TopicPartition("t", 0)}), 3), "b": Subscription(("t", "u"), frozenset(), 3)}
    assert ASSIGNORS["sticky"].assign(members, {"t": 1, "u": 1}) == {"a": {("u", 0)}, "b": {("t", 0)}}


# -- the membership ----------------------------------------------------------------------------------


class Driven:
    """A membership whose answers the test gives."""

    def __init__(self, **options: object) -> None:
        self.now_s = 0.0
        self.membership = ClassicMembership(
            GroupOptions("g", session_timeout=10.0, heartbeat_interval=1.0, max_poll_interval=30.0, **options),  # type: ignore[arg-type]
            ("t",), self.now_s)
        self.membership.on_topics({"t": KnownTopic(2)}, self.now_s)

    def due(self, api_key: ApiKey) -> Request:
        """The next request, which must be of this kind; where the coordinator is asked for first, it is found."""
        request = self.membership.next_request(self.now_s)
        if request is not None and request.api_key is ApiKey.FIND_COORDINATOR and api_key is not request.api_key:
            self.answer(request, FindCoordinatorResponse(coordinators=[Coordinator("g", 1)]))
            request = self.membership.next_request(self.now_s)
        assert request is not None and request.api_key is api_key, request
        return request

    def answer(self, request: Request, answer: object) -> None:
        self.membership.on_answer(request, answer, None, self.now_s)

    def joined(self) -> Membership:
        """A member of generation 1 that leads, has all partitions, and whose reader knows."""
        join = self.due(ApiKey.JOIN_GROUP)
        self.answer(join, JoinGroupResponse(error_code=ErrorCode.MEMBER_ID_REQUIRED, member_id="m"))
        join = self.due(ApiKey.JOIN_GROUP)
        assert join.message.member_id == "m"
        leader = JoinGroupResponseMember("m", None, join.message.protocols[0].metadata)
        name = join.message.protocols[0].name
        self.answer(join, JoinGroupResponse(
            generation_id=1, protocol_name=name, leader="m", member_id="m", members=[leader]))
        sync = self.due(ApiKey.SYNC_GROUP)
        assert decode_assignment(sync.message.assignments[0].assignment) == BOTH
        self.answer(sync, SyncGroupResponse(assignment=sync.message.assignments[0].assignment))
        (task,) = self.membership.tasks
        assert isinstance(task, Adopt) and task.partitions == BOTH
        self.membership.tasks.clear()
        return self.membership

    def rejoins(self, *owned: TopicPartition) -> Request:
        """The group shares anew, and its reader keeps these: the request that says so."""
        self.beat(ErrorCode.REBALANCE_IN_PROGRESS)
        (task,) = self.membership.tasks
        assert isinstance(task, Prepare)
        self.membership.tasks.clear()
        self.membership.prepared(task.round, frozenset(owned))
        return self.due(ApiKey.JOIN_GROUP)

    def leads(self, join: Request, generation: int, others: dict[str, Subscription], **fields: object) -> None:
        """Answer a join: this member leads these others."""
        mine = join.message.protocols[0]
        members = [JoinGroupResponseMember("m", None, mine.metadata)]
        members += [JoinGroupResponseMember(name, None, encode_subscription(told)) for name, told in others.items()]
        self.answer(join, JoinGroupResponse(
            generation_id=generation, protocol_name=mine.name, leader="m", member_id="m", members=members, **fields))  # type: ignore[arg-type]

    def follows(self, join: Request, generation: int, *partitions: TopicPartition) -> None:
        """Answer a join and the sync behind it: another one leads, and gives us these."""
        name = join.message.protocols[0].name
        self.answer(join, JoinGroupResponse(generation_id=generation, protocol_name=name, leader="other", member_id="m"))
        sync = self.due(ApiKey.SYNC_GROUP)
        assert sync.message.assignments == [], "who follows assigns nothing"
        self.answer(sync, SyncGroupResponse(assignment=encode_assignment(partitions)))

    def beat(self, error: int) -> None:
        self.now_s += 1.0
        self.answer(self.due(ApiKey.HEARTBEAT), HeartbeatResponse(error_code=error))


BOTH = {TopicPartition("t", 0), TopicPartition("t", 1)}


def test_a_rebalance_waits_for_the_reader_and_heartbeats_go_on() -> None:
    driven = Driven()
    membership = driven.joined()
    driven.beat(ErrorCode.REBALANCE_IN_PROGRESS)
    driven.beat(ErrorCode.REBALANCE_IN_PROGRESS)
    (task,) = membership.tasks
    assert isinstance(task, Prepare)
    membership.prepared(task.round - 1, frozenset())  # of another time
    assert membership.phase is Phase.WAITING
    membership.prepared(task.round, frozenset())
    assert driven.due(ApiKey.JOIN_GROUP).message.member_id == "m"


@pytest.mark.parametrize(
    ("error", "member_id"), [(ErrorCode.UNKNOWN_MEMBER_ID, ""), (ErrorCode.ILLEGAL_GENERATION, "m")])
def test_who_is_not_known_any_more_has_lost_all_and_joins_when_its_reader_knows(error: int, member_id: str) -> None:
    driven = Driven()
    membership = driven.joined()
    life = membership.identity.life
    driven.beat(error)
    (task,) = membership.tasks
    assert isinstance(task, Lost)
    assert (membership.identity.generation, membership.identity.life) == (-1, life + 1)
    assert membership.next_request(driven.now_s + 9.0) is None
    assert membership.wake_at() == NEVER, "there is nothing to do before the reader comes"
    membership.prepared(task.round, frozenset())
    assert driven.due(ApiKey.JOIN_GROUP).message.member_id == member_id


@pytest.mark.parametrize("error", [
    ErrorCode.FENCED_INSTANCE_ID, ErrorCode.GROUP_AUTHORIZATION_FAILED, ErrorCode.INVALID_GROUP_ID])
def test_what_trying_again_does_not_mend_ends_the_membership(error: int) -> None:
    driven = Driven()
    membership = driven.joined()
    driven.beat(error)
    (task,) = membership.tasks
    assert isinstance(task, Failed) and error.name in str(task.error)  # type: ignore[attr-defined]
    assert membership.next_request(driven.now_s + 100.0) is None


@pytest.mark.parametrize("error", [ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE])
def test_a_coordinator_that_moved_is_looked_for_and_the_member_stays(error: int) -> None:
    driven = Driven()
    membership = driven.joined()
    driven.beat(error)
    driven.now_s += 1.0
    found = driven.due(ApiKey.FIND_COORDINATOR)
    driven.answer(found, FindCoordinatorResponse(coordinators=[Coordinator("g", 2)]))
    assert membership.coordinator == 2
    assert driven.due(ApiKey.HEARTBEAT).message.generation_id == 1
    assert not membership.tasks


def test_a_coordinator_that_loads_is_asked_again() -> None:
    driven = Driven()
    membership = driven.joined()
    driven.beat(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
    assert (membership.coordinator, membership.phase) == (1, Phase.STABLE)


def test_who_does_not_read_signs_off_and_a_static_one_only_falls_silent() -> None:
    driven = Driven()
    membership = driven.joined()
    driven.now_s = 30.0
    leave = driven.due(ApiKey.LEAVE_GROUP)
    assert leave.message.members[0].member_id == "m"
    assert isinstance(membership.tasks[0], Lost)
    driven = Driven(instance_id="i")
    driven.joined()
    driven.now_s = 30.0
    assert driven.membership.next_request(driven.now_s) is None


def test_a_reader_that_reads_stays_a_member() -> None:
    driven = Driven()
    membership = driven.joined()
    for _ in range(40):
        membership.polled(driven.now_s)
        driven.beat(ErrorCode.NONE)
    assert membership.phase is Phase.STABLE


def test_answers_that_come_too_late_change_nothing() -> None:
    driven = Driven()
    join = driven.due(ApiKey.JOIN_GROUP)
    driven.membership.leave()
    assert not driven.membership.awaits(join)
    driven.answer(join, JoinGroupResponse(generation_id=1, member_id="m"))
    assert driven.membership.phase is Phase.OVER


def test_a_leader_shares_anew_when_its_topics_change() -> None:
    driven = Driven()
    membership = driven.joined()
    membership.on_topics({"t": KnownTopic(2), "other": KnownTopic(5)}, driven.now_s)
    assert not membership.tasks
    membership.on_topics({"t": KnownTopic(3)}, driven.now_s)
    (task,) = membership.tasks
    assert isinstance(task, Prepare) and task.why == "topics changed: t has 3 partitions now"


def test_who_is_too_slow_signs_off_also_while_it_waits_for_others_to_join() -> None:
    driven = Driven()
    membership = driven.joined()
    join = driven.rejoins()
    assert membership.wake_at() == 30.0, "when nothing will have been read for too long"
    driven.now_s = 30.0
    assert driven.due(ApiKey.LEAVE_GROUP).message.members[0].member_id == "m"
    assert not membership.awaits(join)


def test_a_coordinator_that_is_not_to_be_found_yet_is_looked_for_a_little_later() -> None:
    driven = Driven()
    found = driven.due(ApiKey.FIND_COORDINATOR)
    driven.answer(found, FindCoordinatorResponse(
        coordinators=[Coordinator("g", error_code=ErrorCode.COORDINATOR_NOT_AVAILABLE)]))
    assert driven.membership.next_request(driven.now_s) is None
    assert driven.membership.wake_at() == RETRY_S
    driven.now_s = RETRY_S
    found = driven.due(ApiKey.FIND_COORDINATOR)
    driven.answer(found, FindCoordinatorResponse(coordinators=[Coordinator("g", error_code=ErrorCode.INVALID_GROUP_ID)]))
    assert isinstance(driven.membership.tasks[0], Failed)


def test_who_keeps_partitions_says_since_which_generation_it_has_them() -> None:
    driven = Driven(strategies=("cooperative-sticky",))
    driven.joined()
    join = driven.rejoins(*BOTH)
    told = decode_subscription(join.message.protocols[0].metadata)
    assert (told.owned, told.generation) == (BOTH, 1)


def test_a_heartbeat_waits_no_longer_than_a_session() -> None:
    driven = Driven(request_timeout=30.0)
    driven.joined()
    driven.now_s += 1.0
    assert driven.due(ApiKey.HEARTBEAT).timeout_s == 10.0


def test_a_leader_waits_to_hear_of_what_others_read_and_heartbeats_go_on() -> None:
    driven = Driven()
    membership = driven.membership
    join = driven.due(ApiKey.JOIN_GROUP)
    driven.leads(join, 1, {"other": Subscription(("u",))})
    assert (membership.phase, membership.wanted_topics) == (Phase.ASSIGNING, {"t", "u"})
    driven.beat(ErrorCode.NONE)
    membership.on_topics({"t": KnownTopic(2), "u": KnownTopic(1)}, driven.now_s)
    sync = driven.due(ApiKey.SYNC_GROUP)
    assert {each.member_id: decode_assignment(each.assignment) for each in sync.message.assignments} == {
        "m": BOTH, "other": {("u", 0)}}


def test_who_leads_no_more_leaves_topics_that_change_to_the_new_leader() -> None:
    driven = Driven()
    membership = driven.joined()
    driven.follows(driven.rejoins(), 2, TopicPartition("t", 0))
    membership.tasks.clear()
    membership.on_topics({"t": KnownTopic(3)}, driven.now_s)
    assert not membership.tasks


def test_a_static_leader_that_came_back_knows_with_what_was_shared() -> None:
    driven = Driven(instance_id="i")
    membership = driven.membership
    driven.leads(driven.due(ApiKey.JOIN_GROUP), 4, {}, skip_assignment=True)
    sync = driven.due(ApiKey.SYNC_GROUP)
    assert sync.message.assignments == []
    driven.answer(sync, SyncGroupResponse(assignment=encode_assignment(BOTH)))
    membership.tasks.clear()
    membership.on_topics({"t": KnownTopic(2)}, driven.now_s)
    assert not membership.tasks
    membership.on_topics({"t": KnownTopic(3)}, driven.now_s)
    assert isinstance(membership.tasks[0], Prepare)


def test_who_cannot_sync_because_the_coordinator_moved_joins_again() -> None:
    driven = Driven()
    driven.joined()
    join = driven.rejoins()
    driven.leads(join, 2, {})
    driven.answer(driven.due(ApiKey.SYNC_GROUP), SyncGroupResponse(error_code=ErrorCode.NOT_COORDINATOR))
    driven.now_s += RETRY_S
    assert driven.due(ApiKey.JOIN_GROUP).message.member_id == "m"


def test_who_was_left_behind_is_told_that_and_not_who_came_meanwhile() -> None:
    driven = Driven()
    membership = driven.joined()
    driven.beat(ErrorCode.ILLEGAL_GENERATION)
    lost = membership.tasks.popleft()
    assert isinstance(lost, Lost)
    membership.prepared(lost.round, frozenset())
    driven.leads(driven.due(ApiKey.JOIN_GROUP), 5, {"other": Subscription(("t",))})
    driven.answer(driven.due(ApiKey.SYNC_GROUP), SyncGroupResponse(assignment=encode_assignment(BOTH)))
    adopt = membership.tasks[0]
    assert isinstance(adopt, Adopt) and adopt.why == "the group went on without this member"


def test_who_may_not_sync_because_others_came_joins_again() -> None:
    driven = Driven()
    driven.joined()
    driven.leads(driven.rejoins(), 2, {})
    driven.answer(driven.due(ApiKey.SYNC_GROUP), SyncGroupResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS))
    driven.now_s += RETRY_S
    driven.due(ApiKey.JOIN_GROUP)


def test_who_gave_something_up_joins_again_but_not_before_its_reader_is_prepared() -> None:
    driven = Driven(strategies=("cooperative-sticky",))
    membership = driven.joined()
    driven.follows(driven.rejoins(*BOTH), 2, TopicPartition("t", 0))
    adopt = membership.tasks.popleft()
    assert isinstance(adopt, Adopt)
    driven.beat(ErrorCode.REBALANCE_IN_PROGRESS)
    membership.adopted(adopt, gave_up=True)
    assert membership.phase is Phase.WAITING
