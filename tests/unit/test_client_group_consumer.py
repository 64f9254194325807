"""A member of a KIP-848 group without sockets: what it says and when, and what each answer and each error make of it."""

from __future__ import annotations

from typing import Any

import pytest

from zafka.client.errors import BrokerRefused, ConfigError, ConnectionLost, NotSupportedYet
from zafka.client.group import Adopt, Failed, GoClassic, GroupOptions, KnownTopic, Lost, Phase, Request
from zafka.client.group_arguments import group_options
from zafka.client.group_consumer import NAME_PATIENCE_S, ConsumerMembership
from zafka.client.records import TopicPartition
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import Coordinator, FindCoordinatorResponse
from zafka.transport.kafka.messages.consumer_group_heartbeat import (
    Assignment,
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    TopicPartitions,
)

T_ID, U_ID = b"t" * 16, b"u" * 16
INTERVAL_S = 0.5
TOPICS = {"t": KnownTopic(4, T_ID)}


def parts(*numbers: int, topic: str = "t") -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(topic, number) for number in numbers)


class Driven:
    """A membership whose answers the test gives."""

    def __init__(self, *topics: str, pattern: str | None = None, **options: object) -> None:
        self.now_s = 0.0
        self.membership = ConsumerMembership(
            GroupOptions("g", max_poll_interval=30.0, **{"protocol": "consumer", **options}),  # type: ignore[arg-type]
            topics or ("t",), self.now_s, "m", pattern)
        self.membership.on_topics(TOPICS, self.now_s)

    def due(self) -> Request:
        """The next heartbeat; where the coordinator is asked for first, it is found."""
        request = self.membership.next_request(self.now_s)
        if request is not None and request.api_key is ApiKey.FIND_COORDINATOR:
            found = FindCoordinatorResponse(coordinators=[Coordinator("g", 1)])
            self.membership.on_answer(request, found, None, self.now_s)
            request = self.membership.next_request(self.now_s)
        assert request is not None and request.api_key is ApiKey.CONSUMER_GROUP_HEARTBEAT, request
        return request

    def is_quiet(self) -> bool:
        return self.membership.next_request(self.now_s) is None

    def answer(
        self, request: Request, epoch: int = 1, assigned: list[TopicPartitions] | None = None, error: int = 0,
        message: str | None = None,
    ) -> None:
        assignment = None if assigned is None else Assignment(assigned)
        self.membership.on_answer(request, ConsumerGroupHeartbeatResponse(
            0, error, message, "m", epoch, int(INTERVAL_S * 1000), assignment), None, self.now_s)

    def beat(self, epoch: int = 1, assigned: list[TopicPartitions] | None = None, error: int = 0) -> Request:
        """A heartbeat, later, and its answer."""
        self.now_s += INTERVAL_S
        request = self.due()
        self.answer(request, epoch, assigned, error)
        return request

    def adopt(self, gave_up: bool = False) -> Adopt:
        """The reader does its one task."""
        (task,) = self.membership.tasks
        assert isinstance(task, Adopt)
        self.membership.tasks.clear()
        self.membership.adopted(task, gave_up)
        return task

    def joined(self, *numbers: int) -> ConsumerMembership:
        """A member at epoch 1 that has these and has said so."""
        self.answer(self.due(), 1, [TopicPartitions(T_ID, list(numbers))])
        self.adopt()
        if numbers:
            self.answer(self.due())
        assert self.membership.phase is Phase.STABLE and self.is_quiet()
        return self.membership


def said(request: Request) -> ConsumerGroupHeartbeatRequest:
    message = request.message
    assert isinstance(message, ConsumerGroupHeartbeatRequest)
    return message


def owned(request: Request) -> dict[bytes, list[int]] | None:
    told = said(request).topic_partitions
    return None if told is None else {topic.topic_id: topic.partitions for topic in told}


# -- joining, changes of hands -----------------------------------------------------------------------


def test_who_joins_says_everything_and_acknowledges_when_its_reader_has_it() -> None:
    driven = Driven("t", instance_id="i", remote_assignor="range")
    join = driven.due()
    assert said(join) == ConsumerGroupHeartbeatRequest(
        "g", "m", 0, "i", None, 30_000, ["t"], None, "range", [])
    driven.answer(join, 3, [TopicPartitions(T_ID, [0, 2])])
    assert driven.membership.identity == ("m", 3, 0)
    assert driven.is_quiet()  # it has nothing yet, and said so
    assert driven.adopt() == Adopt(parts(0, 2), 3, 0, "this consumer joined")
    acknowledged = driven.due()
    assert said(acknowledged) == ConsumerGroupHeartbeatRequest(
        "g", "m", 3, "i", topic_partitions=[TopicPartitions(T_ID, [0, 2])])
    driven.answer(acknowledged, 3)
    assert driven.is_quiet()


def test_what_is_taken_is_given_up_first_and_acknowledged_then() -> None:
    driven = Driven()
    membership = driven.joined(0, 1)
    assert owned(driven.beat(1, [TopicPartitions(T_ID, [0])])) is None
    for _ in range(3):  # its reader takes its time, and heartbeats go on
        assert owned(driven.beat(1)) is None
    task = driven.adopt(gave_up=True)
    assert task.partitions == parts(0) and task.why.endswith("a member joined, came back or reads other topics")
    request = driven.due()
    assert owned(request) == {T_ID: [0]}
    driven.answer(request, 2)
    assert membership.identity.generation == 2 and driven.is_quiet()


def test_an_assignment_that_is_said_again_is_no_news() -> None:
    driven = Driven()
    membership = driven.joined(0, 1)
    driven.beat(2, [TopicPartitions(T_ID, [1, 0])])
    assert not membership.tasks and membership.identity.generation == 2


def test_two_changes_in_a_row_are_done_one_after_the_other() -> None:
    driven = Driven()
    membership = driven.joined(0, 1)
    driven.beat(1, [TopicPartitions(T_ID, [0])])
    driven.beat(2, [TopicPartitions(T_ID, [0, 1])])
    first, second = membership.tasks
    assert isinstance(first, Adopt) and isinstance(second, Adopt)
    membership.adopted(first, True)
    assert driven.is_quiet()  # it is about to begin 1 again, which must not be another's then
    driven.now_s += INTERVAL_S
    membership.on_answer(driven.due(), None, ConnectionLost("lost"), driven.now_s)
    driven.beat(2, [TopicPartitions(T_ID, [0])])
    membership.adopted(second, False)
    assert driven.is_quiet()
    third = membership.tasks[-1]
    assert isinstance(third, Adopt)
    membership.adopted(third, True)
    assert owned(driven.due()) == {T_ID: [0]}


def test_who_says_all_names_also_what_its_reader_is_about_to_begin() -> None:
    driven = Driven()
    membership = driven.joined(0)
    driven.beat(2, [TopicPartitions(T_ID, [0, 1])])
    driven.now_s += INTERVAL_S
    membership.on_answer(driven.due(), None, ConnectionLost("lost"), driven.now_s)
    driven.now_s += 1.0
    assert owned(driven.due()) == {T_ID: [0, 1]}


def test_heartbeats_come_when_the_coordinator_says() -> None:
    driven = Driven()
    membership = driven.joined(0)
    assert membership.wake_at() == driven.now_s + INTERVAL_S
    driven.now_s += INTERVAL_S * 0.9
    assert driven.is_quiet()
    driven.now_s += INTERVAL_S * 0.1
    assert said(driven.due()) == ConsumerGroupHeartbeatRequest("g", "m", 1, topic_partitions=None)


def test_a_coordinator_that_does_not_say_when_is_told_now_and_then() -> None:
    driven = Driven(heartbeat_interval=2.0)
    membership = driven.joined(0)
    driven.now_s += INTERVAL_S
    membership.on_answer(driven.due(), ConsumerGroupHeartbeatResponse(
        member_id="m", member_epoch=1, heartbeat_interval_ms=0), None, driven.now_s)
    assert membership.wake_at() == driven.now_s + 2.0


@pytest.mark.parametrize(
    ("assigned", "why"),
    [([0, 1], "left, timed out or gave up what is free now"), ([4], "topics changed: t has 5 partitions now"),
     ([], "joined, came back or reads other topics")])
def test_the_reader_is_told_why_as_far_as_a_member_can_know(assigned: list[int], why: str) -> None:
    driven = Driven()
    driven.joined(0)
    driven.beat(2, [TopicPartitions(T_ID, assigned)])
    assert driven.adopt().why.endswith(why)


def test_who_waits_for_others_to_let_go_has_joined_when_it_gets_something() -> None:
    driven = Driven()
    driven.joined()
    driven.beat(2, [TopicPartitions(T_ID, [3])])
    assert driven.adopt().why == "this consumer joined"


def test_topics_that_are_not_known_yet_are_asked_for_and_waited_for() -> None:
    driven = Driven("t", "u")
    driven.answer(driven.due(), 1, [TopicPartitions(T_ID, [0]), TopicPartitions(U_ID, [7])])
    membership = driven.membership
    assert membership.unknown_topics == {U_ID}
    assert driven.adopt().partitions == parts(0)
    membership.on_topics({**TOPICS, "u": KnownTopic(8, U_ID)}, driven.now_s)
    assert not membership.unknown_topics
    assert driven.adopt().partitions == parts(0) | parts(7, topic="u")
    driven.now_s += INTERVAL_S
    assert owned(driven.due()) == {T_ID: [0], U_ID: [7]}


def test_what_an_expression_finds_is_named_by_ids_only() -> None:
    driven = Driven(pattern="u|v")
    join = driven.due()
    assert said(join).subscribed_topic_names is None and said(join).subscribed_topic_regex == "u|v"
    driven.answer(join, 1, [TopicPartitions(U_ID, [7])])
    membership = driven.membership
    assert driven.adopt().partitions == frozenset() and membership.unknown_topics == {U_ID}
    membership.on_names({U_ID: "u"})
    assert driven.adopt().partitions == parts(7, topic="u") and "u" in membership.wanted_topics
    assert said(driven.due()).subscribed_topic_regex is None


def test_another_topic_of_the_same_name_is_begun_anew() -> None:
    driven = Driven("t", "u")
    membership = driven.membership
    membership.on_topics({**TOPICS, "u": KnownTopic(1, U_ID)}, driven.now_s)
    driven.answer(driven.due(), 1, [TopicPartitions(T_ID, [0]), TopicPartitions(U_ID, [0])])
    driven.adopt()
    driven.answer(driven.due())
    membership.on_topics({**TOPICS, "u": KnownTopic(1, b"v" * 16)}, driven.now_s)
    driven.beat(2, [TopicPartitions(T_ID, [0]), TopicPartitions(b"v" * 16, [0])])
    given_up, begun = membership.tasks
    assert isinstance(given_up, Adopt) and given_up.partitions == parts(0)
    assert isinstance(begun, Adopt) and begun.partitions == parts(0) | parts(0, topic="u")


# -- errors ------------------------------------------------------------------------------------------

LOSE, ASK_AGAIN, LOOK, FAIL = "lose", "ask again", "look for the coordinator", "fail"


@pytest.mark.parametrize(("error", "outcome"), [
    (ErrorCode.UNKNOWN_MEMBER_ID, LOSE),
    (ErrorCode.FENCED_MEMBER_EPOCH, LOSE),
    (ErrorCode.GROUP_ID_NOT_FOUND, LOSE),
    (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, ASK_AGAIN),
    (ErrorCode.REQUEST_TIMED_OUT, ASK_AGAIN),
    (ErrorCode.NOT_COORDINATOR, LOOK),
    (ErrorCode.COORDINATOR_NOT_AVAILABLE, LOOK),
    (ErrorCode.UNSUPPORTED_VERSION, FAIL),
    (ErrorCode.UNSUPPORTED_ASSIGNOR, FAIL),
    (ErrorCode.INVALID_REQUEST, FAIL),
    (ErrorCode.INVALID_REGULAR_EXPRESSION, FAIL),
    (ErrorCode.FENCED_INSTANCE_ID, FAIL),
    (ErrorCode.GROUP_MAX_SIZE_REACHED, FAIL),
    (ErrorCode.GROUP_AUTHORIZATION_FAILED, FAIL),
    (ErrorCode.TOPIC_AUTHORIZATION_FAILED, FAIL),
])
def test_what_an_error_makes_of_a_member(error: ErrorCode, outcome: str) -> None:
    driven = Driven()
    membership = driven.joined(0)
    driven.beat(error=error)
    if outcome == LOSE:
        (task,) = membership.tasks
        assert isinstance(task, Lost)
        assert membership.identity == ("m", -1, 1)
        driven.now_s += 9.0
        assert driven.is_quiet()  # until its reader knows
        membership.prepared(task.round, frozenset())
        assert said(driven.due()).member_epoch == 0
    elif outcome == FAIL:
        (failed,) = membership.tasks
        assert isinstance(failed, Failed) and error.name in str(failed.error)
        driven.now_s += 100.0
        assert driven.is_quiet() and membership.phase is Phase.OVER
    else:
        assert not membership.tasks
        driven.now_s += 1.0
        if outcome == LOOK:
            assert membership.coordinator == -1
        request = driven.due()  # of which nobody knows what became: all is said again
        assert (said(request).member_epoch, owned(request)) == (1, {T_ID: [0]})
        assert said(request).subscribed_topic_names == ["t"] and said(request).rebalance_timeout_ms == 30_000


@pytest.mark.parametrize(("error", "options", "outcome"), [
    (ErrorCode.UNSUPPORTED_VERSION, {"protocol": None}, GoClassic),
    (ErrorCode.GROUP_ID_NOT_FOUND, {"protocol": None}, GoClassic),  # of classic members, and not to be moved
    (ErrorCode.UNSUPPORTED_VERSION, {}, Failed),
    (ErrorCode.GROUP_ID_NOT_FOUND, {}, Failed),
    (ErrorCode.INVALID_REQUEST, {"protocol": None}, Failed),
    (ErrorCode.UNSUPPORTED_VERSION, {"protocol": None, "pattern": "t.*"}, Failed),
])
def test_who_is_not_taken_in_goes_classic_if_it_may(error: ErrorCode, options: dict[str, object], outcome: type) -> None:
    driven = Driven(**options)  # type: ignore[arg-type]
    driven.answer(driven.due(), error=error, message="because")
    (task,) = driven.membership.tasks
    assert isinstance(task, outcome) and isinstance(task, GoClassic | Failed)
    assert isinstance(task.error, BrokerRefused) and "because" in str(task.error)
    assert driven.membership.next_request(driven.now_s + 100.0) is None


@pytest.mark.parametrize(("protocol", "outcome"), [(None, GoClassic), ("consumer", Failed)])
def test_a_broker_that_does_not_know_the_protocol(protocol: str | None, outcome: type) -> None:
    driven = Driven(protocol=protocol)
    driven.membership.on_answer(driven.due(), None, NotSupportedYet("CONSUMER_GROUP_HEARTBEAT"), driven.now_s)
    (task,) = driven.membership.tasks
    assert isinstance(task, outcome)


def test_an_answer_that_was_lost_is_made_good_by_saying_all() -> None:
    driven = Driven()
    membership = driven.joined(0, 1)
    driven.now_s += INTERVAL_S
    membership.on_answer(driven.due(), None, ConnectionLost("lost"), driven.now_s)
    assert driven.is_quiet()
    driven.now_s += 1.0
    request = driven.due()
    assert (said(request).member_epoch, owned(request)) == (1, {T_ID: [0, 1]})
    driven.answer(request, 2, [TopicPartitions(T_ID, [0, 1])])
    assert not membership.tasks
    assert owned(driven.beat(2)) is None


@pytest.mark.parametrize("was_done", [True, False])
def test_what_another_life_was_assigned_is_not_acknowledged(was_done: bool) -> None:
    driven = Driven()
    driven.answer(driven.due(), 1, [TopicPartitions(T_ID, [0])])
    membership = driven.membership
    adopt = membership.tasks[0]
    assert isinstance(adopt, Adopt)
    driven.beat(error=ErrorCode.UNKNOWN_MEMBER_ID)
    lost = membership.tasks[-1]
    assert isinstance(lost, Lost)  # although nothing was acknowledged: the reader may have begun
    if was_done:  # else its reader saw first that it was lost
        membership.adopted(adopt, False)
    membership.prepared(lost.round, frozenset())
    membership.tasks.clear()
    join = driven.due()
    assert owned(join) == {}
    driven.answer(join, 5, [TopicPartitions(T_ID, [0])])
    assert driven.adopt().why.endswith("its session timed out, or it was removed")


def test_a_crashed_predecessor_is_waited_for_and_one_that_lives_is_an_error() -> None:
    driven = Driven(instance_id="i", protocol="consumer")
    membership = driven.membership
    while not membership.tasks:
        assert driven.now_s < NAME_PATIENCE_S + 10.0
        driven.answer(driven.due(), error=ErrorCode.UNRELEASED_INSTANCE_ID)
        assert driven.is_quiet()
        driven.now_s += 1.0
    assert driven.now_s >= NAME_PATIENCE_S
    (task,) = membership.tasks
    assert isinstance(task, Failed) and "UNRELEASED_INSTANCE_ID" in str(task.error)
    driven = Driven(instance_id="i")
    driven.answer(driven.due(), error=ErrorCode.UNRELEASED_INSTANCE_ID)
    driven.now_s += 1.0
    membership = driven.joined(0)
    driven.beat(error=ErrorCode.UNKNOWN_MEMBER_ID)
    lost = membership.tasks.popleft()
    assert isinstance(lost, Lost)
    driven.now_s += NAME_PATIENCE_S
    membership.prepared(lost.round, frozenset())
    driven.answer(driven.due(), error=ErrorCode.UNRELEASED_INSTANCE_ID)
    assert not membership.tasks, "the next one is waited for as long"


# -- leaving -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("instance_id", "epoch"), [(None, -1), ("i", -2)])
def test_who_leaves_says_so_behind_what_is_under_way(instance_id: str | None, epoch: int) -> None:
    driven = Driven(instance_id=instance_id)
    membership = driven.joined(0)
    driven.now_s += INTERVAL_S
    beat = driven.due()
    membership.leave()
    assert membership.awaits(beat) and driven.is_quiet()
    driven.answer(beat, 2, [TopicPartitions(T_ID, [1])])
    assert not membership.tasks
    leave = driven.due()
    assert said(leave) == ConsumerGroupHeartbeatRequest("g", "m", epoch, instance_id, topic_partitions=None)
    driven.answer(leave, epoch)
    assert membership.phase is Phase.OVER


def test_who_never_asked_to_join_has_nothing_to_say() -> None:
    membership = Driven().membership
    membership.leave()
    assert membership.phase is Phase.OVER
    driven = Driven()
    driven.due()  # the coordinator may know us, whatever becomes of the answer
    driven.membership.leave()
    assert driven.membership.phase is Phase.LEAVING


@pytest.mark.parametrize("error", [
    ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_MEMBER_EPOCH, ErrorCode.UNRELEASED_INSTANCE_ID, ErrorCode.NOT_COORDINATOR])
def test_leaving_ends_whatever_the_answers_are(error: ErrorCode) -> None:
    driven = Driven()
    membership = driven.joined(0)
    driven.now_s += INTERVAL_S
    beat = driven.due()
    membership.leave()
    driven.answer(beat, error=error)
    driven.now_s += 2.0
    driven.answer(driven.due(), error=error)
    assert membership.phase is Phase.OVER and not membership.tasks


@pytest.mark.parametrize(("instance_id", "epoch"), [(None, -1), ("i", -2)])
def test_who_does_not_read_signs_off_and_joins_when_it_reads(instance_id: str | None, epoch: int) -> None:
    driven = Driven(instance_id=instance_id)
    membership = driven.joined(0)
    driven.now_s = 29.9
    assert membership.wake_at() <= 30.0
    driven.now_s = 30.0
    leave = driven.due()
    assert said(leave).member_epoch == epoch
    driven.answer(leave, epoch)
    (task,) = membership.tasks
    assert isinstance(task, Lost) and "max_poll_interval=30 s" in task.why
    membership.prepared(task.round, frozenset())
    assert said(driven.due()).member_epoch == 0


# -- which protocol ----------------------------------------------------------------------------------


def options_of(**given: Any) -> GroupOptions:
    """As of a consumer that says no more than this."""
    nothing: dict[str, Any] = dict.fromkeys((
        "protocol", "remote_assignor", "instance_id", "strategies", "session_timeout", "heartbeat_interval"))
    return group_options("g", **{**nothing, "max_poll_interval": 300.0, "request_timeout": 30.0, **given})


def test_who_was_too_slow_and_closes_before_that_is_said_says_it() -> None:
    driven = Driven()
    membership = driven.joined(0)
    driven.now_s = 30.0
    membership.coordinator = -1
    found = membership.next_request(driven.now_s)
    membership.leave()
    assert membership.phase is Phase.LEAVING and found is not None
    membership.on_answer(found, FindCoordinatorResponse(coordinators=[Coordinator("g", 1)]), None, driven.now_s)
    assert said(driven.due()).member_epoch == -1


@pytest.mark.parametrize(("given", "protocol"), [
    ({}, None),
    ({"protocol": "consumer"}, "consumer"),
    ({"protocol": "classic"}, "classic"),
    ({"remote_assignor": "range"}, "consumer"),
    ({"protocol": "consumer", "instance_id": "i", "remote_assignor": "uniform"}, "consumer"),
    ({"instance_id": "i"}, "classic"),
    ({"strategies": "range"}, "classic"),
    ({"session_timeout": 10.0}, "classic"),
    ({"heartbeat_interval": 1.0}, "classic"),
])
def test_the_protocol_follows_from_what_is_asked_for(given: dict[str, Any], protocol: str | None) -> None:
    assert options_of(**given).protocol == protocol


@pytest.mark.parametrize(("given", "text"), [
    ({"protocol": "newest"}, "group_protocol must be one of 'consumer', 'classic'"),
    ({"remote_assignor": "sticky"}, "group_remote_assignor must be one of 'uniform', 'range'"),
    ({"protocol": "consumer", "session_timeout": 10.0}, "session_timeout is for group_protocol='classic'"),
    ({"protocol": "consumer", "strategies": "range"}, "partition_assignment_strategy is for group_protocol='classic'"),
    ({"remote_assignor": "range", "heartbeat_interval": 1.0}, "heartbeat_interval is for 'classic'"),
    ({"remote_assignor": "range", "protocol": "classic"}, "group_protocol is for 'classic'"),
    ({"session_timeout": 2.0}, "heartbeat_interval=3 must be below session_timeout=2"),
])
def test_what_does_not_go_together_is_refused(given: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        options_of(**given)
