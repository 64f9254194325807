"""What a member does in the I/O thread, turn by turn and without sockets: what it sends where, when it wakes, when it calls the reader."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from zafka.client.channel import OnAnswer
from zafka.client.cluster import NEVER, Ask, Topic
from zafka.client.errors import ConnectionLost
from zafka.client.group import CLASSIC, CONSUMER, Adopt, GroupOptions, Membership, Phase, Prepare
from zafka.client.group_protocol import encode_assignment
from zafka.client.group_session import CONNECT_S, NAMES_S, GroupSession
from zafka.client.membership import make_membership
from zafka.client.records import TopicPartition
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import (
    ConsumerGroupHeartbeatResponse,
    Coordinator,
    FindCoordinatorResponse,
    JoinGroupResponse,
    JoinGroupResponseMember,
    LeaveGroupResponse,
    MetadataResponse,
    SyncGroupResponse,
)
from zafka.transport.kafka.messages.consumer_group_heartbeat import Assignment, TopicPartitions
from zafka.transport.kafka.messages.metadata import MetadataResponseTopic

T_ID, U_ID = b"t" * 16, b"u" * 16
ALL = frozenset({TopicPartition("t", 0), TopicPartition("t", 1)})


@dataclass
class Line:
    """A channel. sent: what waits for its answer."""

    sent: list[tuple[ApiKey, Any, OnAnswer]] = field(default_factory=list)

    def send(self, api_key: ApiKey, message: Any, on_answer: OnAnswer, timeout_s: float) -> None:
        self.sent.append((api_key, message, on_answer))


class Net:
    """A cluster whose broker 1 coordinates, and leads topic t."""

    def __init__(self) -> None:
        self.metadata_count = 1
        self.topics = {"t": Topic("t", T_ID, (1, 1), (0, 0), (0, 1))}
        self.topic_errors: dict[str, int] = {}
        self.lines: dict[tuple[int, str], Line] = {}
        self.is_reachable = True
        self.refreshed = 0
        self.asked: list[Ask] = []

    def grow(self, partitions: int) -> None:
        self.topics["t"] = Topic("t", T_ID, (1,) * partitions, (0,) * partitions, tuple(range(partitions)))
        self.metadata_count += 1

    def wants(self, topic: str) -> bool:
        return True

    def channel(self, broker: int, purpose: str = "") -> Line | None:
        return self.lines.setdefault((broker, purpose), Line()) if self.is_reachable else None

    def any_channel(self) -> Line | None:
        return self.channel(1)

    def drop_channel(self, broker: int, purpose: str, reason: str) -> None:
        for _, _, on_answer in self.lines.pop((broker, purpose)).sent:
            on_answer(None, ConnectionLost(reason))

    def refresh_soon(self) -> None:
        self.refreshed += 1

    def ask(self, ask: Ask) -> None:
        self.asked.append(ask)


class Called:
    """A fetcher. interrupted: as the reader sees it."""

    interrupted = False

    def interrupt(self) -> None:
        self.interrupted = True

    def turn(self, now_s: float) -> float:
        return NEVER


class Driven:
    """A session and its membership, at a time that the test says. The reader is asked every half second."""

    def __init__(self, protocol: str = CLASSIC, *, commit_interval: float = NEVER, **options: Any) -> None:
        self.net, self.fetcher = Net(), Called()
        self.session = GroupSession(self.net, self.fetcher, commit_interval)  # type: ignore[arg-type]
        self.membership: Membership
        self.options = GroupOptions(
            "g", **{"protocol": protocol, "heartbeat_interval": 1.0, "max_poll_interval": 2.0, **options})
        self.join()

    def join(self) -> None:
        self.membership = make_membership(self.options, ("t",))
        self.session.join(self.membership)
        self.now_s = time.monotonic()

    def turn(self, later_s: float = 0.0) -> float:
        """Returns in how many seconds the next one is wanted."""
        self.now_s += later_s
        return self.session.turn(self.now_s) - self.now_s

    def called(self) -> bool:
        """Whether the reader was, since this was asked last."""
        called, self.fetcher.interrupted = self.fetcher.interrupted, False
        return called

    def due(self, api_key: ApiKey) -> tuple[Any, OnAnswer]:
        """What was sent, which is of this kind; where the coordinator is asked for first, it is found."""
        self.turn()
        for _ in range(2):
            ((sent_as, message, on_answer),) = [each for line in self.net.lines.values() for each in line.sent]
            for line in self.net.lines.values():
                line.sent.clear()
            if sent_as is api_key:
                return message, on_answer
            assert sent_as is ApiKey.FIND_COORDINATOR
            on_answer(FindCoordinatorResponse(coordinators=[Coordinator("g", 1)]), None)
            self.turn()
        raise AssertionError(sent_as)

    def joined(self) -> None:
        """It leads, has all, and its reader was called, and has read on."""
        message, on_answer = self.due(ApiKey.JOIN_GROUP)
        mine = message.protocols[0]
        on_answer(JoinGroupResponse(
            generation_id=1, protocol_name=mine.name, leader="m", member_id="m",
            members=[JoinGroupResponseMember("m", None, mine.metadata)]), None)
        _, on_answer = self.due(ApiKey.SYNC_GROUP)
        self.called()
        on_answer(SyncGroupResponse(assignment=encode_assignment(ALL)), None)
        assert self.called()
        assert isinstance(self.membership.tasks.popleft(), Adopt)


def test_the_reader_is_asked_now_and_then_and_has_left_once_it_does_not_come() -> None:
    driven = Driven()
    driven.joined()
    for _ in range(8):
        assert not driven.called()
        assert driven.turn(0.25) == pytest.approx(0.25)
        assert not driven.called()
        driven.turn(0.25)
        assert driven.called()
        driven.session.reads = True
    driven.turn()
    driven.turn(1.9)
    assert not driven.membership.tasks
    driven.turn(0.1)
    assert driven.membership.tasks


def test_the_reader_is_called_to_commit_every_so_often() -> None:
    driven = Driven(commit_interval=10.0, max_poll_interval=1000.0, heartbeat_interval=1000.0)
    driven.session.membership = None  # of a group without being its member
    began_s = driven.session._commit_at_s - 10.0
    driven.now_s = began_s
    for _ in range(3):
        assert driven.turn() == pytest.approx(10.0)
        assert driven.turn(9.0) == pytest.approx(1.0)
        assert (driven.called(), driven.session.commit_due) == (False, False)
        driven.turn(1.0)
        assert (driven.called(), driven.session.commit_due) == (True, True)
        driven.session.commit_due = False


def test_the_next_membership_hears_of_topics_and_its_reader_is_asked_at_once() -> None:
    driven = Driven()
    driven.joined()
    driven.session.leave()
    driven.due(ApiKey.LEAVE_GROUP)[1](LeaveGroupResponse(), None)
    driven.called()
    driven.join()
    driven.turn()
    assert driven.called()
    driven.joined()
    assert driven.membership.phase is Phase.STABLE


def test_topics_that_change_call_the_reader_and_one_that_went_counts_no_more() -> None:
    driven = Driven()
    driven.joined()
    driven.net.grow(3)
    driven.turn()
    assert driven.called()
    prepare = driven.membership.tasks.popleft()
    assert isinstance(prepare, Prepare) and prepare.why == "topics changed: t has 3 partitions now"
    driven.net.topics.clear()
    driven.net.topic_errors["t"] = ErrorCode.LEADER_NOT_AVAILABLE
    driven.net.metadata_count += 1
    driven.turn()
    assert driven.session._topics, "it is only out of reach"
    driven.net.topic_errors["t"] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    driven.net.metadata_count += 1
    driven.turn()
    assert not driven.session._topics


def test_names_of_topics_are_asked_for_now_and_then_and_call_the_reader() -> None:
    driven = Driven(CONSUMER)
    _, on_answer = driven.due(ApiKey.CONSUMER_GROUP_HEARTBEAT)
    assigned = Assignment([TopicPartitions(U_ID, [7])])
    on_answer(ConsumerGroupHeartbeatResponse(
        member_id="m", member_epoch=1, heartbeat_interval_ms=500_000, assignment=assigned), None)
    driven.membership.tasks.clear()
    driven.turn()
    assert driven.turn(NAMES_S / 2) == pytest.approx(NAMES_S / 2)
    assert len(driven.net.asked) == 1
    driven.turn(NAMES_S / 2)
    assert len(driven.net.asked) == 2
    asked = driven.net.asked[-1]
    assert [topic.topic_id for topic in asked.message.topics] == [U_ID]
    driven.called()
    asked.on_answer(MetadataResponse(topics=[MetadataResponseTopic(name="u", topic_id=U_ID)]), None)
    assert driven.called()
    task = driven.membership.tasks[-1]
    assert isinstance(task, Adopt) and task.partitions == {TopicPartition("u", 7)}


def test_who_leaves_says_so_at_once_and_is_gone_when_that_is_answered() -> None:
    """Not behind its Join, which waits for all the others; and what that one's answer would have been is nobody's matter."""
    driven = Driven()
    driven.joined()
    driven.membership.on_topics({}, driven.now_s)
    task = driven.membership.tasks.popleft()
    assert isinstance(task, Prepare)
    driven.membership.prepared(task.round, frozenset())
    driven.turn()
    (line,) = (line for line in driven.net.lines.values() if line.sent)
    assert line.sent[0][0] is ApiKey.JOIN_GROUP
    driven.session.leave()
    assert not driven.session.is_over
    _, on_answer = driven.due(ApiKey.LEAVE_GROUP)
    assert not driven.session.is_over
    driven.called()
    on_answer(LeaveGroupResponse(), None)
    assert driven.called() and driven.session.is_over
    assert driven.turn() == NEVER


def test_what_asks_for_the_coordinator_is_nobodys_to_hang_up_on() -> None:
    driven = Driven()
    driven.turn()
    driven.session.leave()
    driven.turn()
    assert driven.session.is_over and driven.net.lines[1, ""].sent


def test_an_answer_to_who_was_here_before_is_not_taken_for_that_to_who_is_here_now() -> None:
    driven = Driven()
    driven.turn()
    ((_, _, earlier),) = driven.net.lines[1, ""].sent
    driven.net.lines.clear()
    driven.join()
    driven.turn()
    ((_, _, found),) = driven.net.lines[1, ""].sent
    found(FindCoordinatorResponse(coordinators=[Coordinator("g", 1)]), None)
    driven.turn()
    earlier(None, ConnectionLost("late"))
    driven.session.leave()
    driven.turn()
    assert [purpose for _, purpose in driven.net.lines] == [""], "its Join is not waited for"


def test_a_connection_of_its_own_for_what_waits_for_others() -> None:
    driven = Driven()
    driven.due(ApiKey.JOIN_GROUP)
    assert len(driven.net.lines) == 2


def test_a_coordinator_out_of_reach_is_looked_for_after_a_while() -> None:
    driven = Driven(max_poll_interval=1000.0, heartbeat_interval=1000.0)
    _, on_answer = driven.due(ApiKey.JOIN_GROUP)
    on_answer(None, ConnectionLost("the coordinator ended"))
    driven.turn(time.monotonic() + 1.0 - driven.now_s)  # what it does next is by the clock
    driven.due(ApiKey.JOIN_GROUP)[1](None, ConnectionLost("again"))
    driven.turn(1.0)
    ((_, _, found),) = driven.net.lines[1, ""].sent
    driven.net.lines[1, ""].sent.clear()
    found(FindCoordinatorResponse(coordinators=[Coordinator("g", 1)]), None)
    driven.net.is_reachable = False
    assert driven.turn() == pytest.approx(CONNECT_S)
    assert driven.turn(CONNECT_S / 2) == pytest.approx(CONNECT_S / 2)
    assert (driven.membership.coordinator, driven.net.refreshed) == (1, 0)
    driven.turn(CONNECT_S / 2)
    assert (driven.membership.coordinator, driven.net.refreshed) == (-1, 1)


def test_who_leaves_while_its_coordinator_is_out_of_reach_says_only_that() -> None:
    driven = Driven()
    driven.joined()
    driven.net.is_reachable = False
    driven.turn(1.5)  # a heartbeat is due
    driven.session.leave()
    driven.net.is_reachable = True
    driven.due(ApiKey.LEAVE_GROUP)
