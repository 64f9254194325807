"""Offsets that a consumer commits and asks for, with a coordinator of one thread: what each error makes of it, in what time."""

from __future__ import annotations

from itertools import repeat
from operator import length_hint
from typing import Any

import pytest

from tests.unit.client_fake_group import FakeGroup
from tests.unit.test_client_consumer import fill
from tests.unit.test_client_membership import BOTH, T0, T1, Member, broker, soon
from zafka.client import group_requests
from zafka.client.core import Answer
from zafka.client.errors import BrokerRefused, CommitFailed, RequestTimedOut
from zafka.client.records import OffsetAndMetadata
from zafka.client.waiting import run
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import OffsetCommitResponse
from zafka.transport.kafka.messages.offset_commit import OffsetCommitResponsePartition, OffsetCommitResponseTopic

__all__ = ["broker"]  # the fixture

pytestmark = pytest.mark.timeout(30)

PASSING = [
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE, "drop", "hang"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_requests, "ATTEMPT_S", 0.03)


def chosen(broker: FakeGroup, *partitions: Any, **options: Any) -> Member:
    """A consumer that is no member, and knows its coordinator."""
    consumer = Member(broker, "consumer", **options)
    consumer.assign(partitions or [T0])
    return consumer


# -- errors that pass, and those that do not ---------------------------------------------------------


@pytest.mark.parametrize("fault", PASSING)
def test_a_coordinator_that_moved_or_died_is_looked_for(broker: FakeGroup, impatient: None, fault: int | str) -> None:
    with chosen(broker) as consumer, soon():
        broker.faults = {ApiKey.OFFSET_COMMIT: iter([fault]), ApiKey.OFFSET_FETCH: iter([fault])}
        consumer.commit({T0: OffsetAndMetadata(7, "text"), T1: OffsetAndMetadata(8)})
        assert consumer.committed([*BOTH], metadata=True) == {T0: (7, "text"), T1: (8, "")}
        assert broker.count(ApiKey.FIND_COORDINATOR) >= 3


@pytest.mark.parametrize("fault", ["drop", ErrorCode.COORDINATOR_NOT_AVAILABLE])
def test_a_coordinator_that_is_not_to_be_found_yet_is_asked_for_again(broker: FakeGroup, fault: int | str) -> None:
    broker.faults[ApiKey.FIND_COORDINATOR] = iter([fault])
    with Member(broker, "consumer") as consumer, soon():
        assert consumer.committed([T0]) == {T0: None}
        assert broker.count(ApiKey.FIND_COORDINATOR) == 2


@pytest.mark.parametrize(("api", "fault"), [
    (ApiKey.FIND_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE),
    (ApiKey.OFFSET_FETCH, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS), (ApiKey.OFFSET_FETCH, "hang")])
def test_it_is_waited_for_no_longer_than_asked(
    broker: FakeGroup, monkeypatch: pytest.MonkeyPatch, api: ApiKey, fault: int | str
) -> None:
    monkeypatch.setattr(group_requests, "ATTEMPT_S", 60.0)
    broker.faults[api] = repeat(fault)
    with Member(broker, "consumer") as consumer:
        with soon(), pytest.raises(RequestTimedOut, match="in time"):
            consumer.committed([T0], timeout=0.12)
        assert broker.count(api) <= 0.12 / group_requests.RETRY_S + 2


@pytest.mark.parametrize("api", [ApiKey.FIND_COORDINATOR, ApiKey.OFFSET_FETCH])
def test_what_trying_again_does_not_mend_is_raised_at_once(broker: FakeGroup, api: ApiKey) -> None:
    broker.faults[api] = repeat(ErrorCode.GROUP_AUTHORIZATION_FAILED)
    with Member(broker, "consumer") as consumer, pytest.raises(BrokerRefused, match="GROUP_AUTHORIZATION_FAILED"):
        consumer.committed([T0])
    assert broker.count(api) == 1


def test_one_partition_that_is_refused_is_raised_but_one_that_nobody_knows_has_no_offset(broker: FakeGroup) -> None:
    broker.committed[T0] = OffsetAndMetadata(3)
    with Member(broker, "consumer") as consumer:
        assert consumer.committed([]) == {} and not broker.count(ApiKey.OFFSET_FETCH)
        broker.refused[T1] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert consumer.committed([*BOTH])[T0] == 3
        broker.refused[T1] = ErrorCode.TOPIC_AUTHORIZATION_FAILED
        with pytest.raises(BrokerRefused, match="TOPIC_AUTHORIZATION_FAILED"):
            consumer.committed([*BOTH])


# -- commits -----------------------------------------------------------------------------------------

BEHIND = [ErrorCode.STALE_MEMBER_EPOCH, ErrorCode.ILLEGAL_GENERATION, ErrorCode.REBALANCE_IN_PROGRESS]


@pytest.mark.parametrize("fault", BEHIND)
def test_who_is_behind_commits_in_its_next_generation_and_who_is_no_member_never(broker: FakeGroup, fault: int) -> None:
    with Member(broker, "consumer", "t") as member:
        member.shared()
        broker.faults[ApiKey.OFFSET_COMMIT] = iter([fault])
        member.commit({T0: 7})
        assert broker.committed[T0].offset == 7 and broker.count(ApiKey.OFFSET_COMMIT) == 2
        broker.faults[ApiKey.OFFSET_COMMIT] = repeat(fault)
        with soon(), pytest.raises(RequestTimedOut, match="in time"):
            member.commit({T0: 8}, timeout=0.05)
        broker.faults[ApiKey.OFFSET_COMMIT] = iter([])
        member.assign([T0])
        broker.faults[ApiKey.OFFSET_COMMIT] = repeat(fault)
        asked = broker.count(ApiKey.OFFSET_COMMIT)
        with pytest.raises(CommitFailed, match="went on without this consumer"):
            member.commit({T0: 8})
        assert broker.count(ApiKey.OFFSET_COMMIT) == asked + 1
        broker.faults.clear()


@pytest.mark.parametrize(("fault", "raised"), [
    (ErrorCode.UNKNOWN_MEMBER_ID, CommitFailed), (ErrorCode.FENCED_INSTANCE_ID, CommitFailed),
    (ErrorCode.OFFSET_METADATA_TOO_LARGE, BrokerRefused)])
def test_who_is_fenced_or_refused_does_not_commit_again(broker: FakeGroup, fault: int, raised: type) -> None:
    with Member(broker, "consumer", "t") as member:
        member.shared()
        broker.faults[ApiKey.OFFSET_COMMIT] = iter([fault])
        with pytest.raises(raised, match=ErrorCode(fault).name):
            member.commit({T0: 7})
        assert broker.count(ApiKey.OFFSET_COMMIT) == 1


def test_one_commit_is_under_way_at_a_time(broker: FakeGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    with chosen(broker, enable_auto_commit=False) as consumer:
        asked = [Answer(), Answer()]
        unasked = iter(asked)
        monkeypatch.setattr(consumer._core, "begin_ask", lambda *_, **__: next(unasked))
        consumer.commit({T0: 5}, wait=False)
        consumer.seek(T0, 6)
        consumer.group._commit_by_the_way(consumer.positions())
        later = consumer.group.commit({T0: OffsetAndMetadata(7)})
        later.send(None)
        assert length_hint(unasked) == 1
        part = OffsetCommitResponsePartition(0)
        asked[0].message = OffsetCommitResponse(topics=[OffsetCommitResponseTopic(name="t", partitions=[part])])
        asked[0].done = True
        later.send(None)
        assert length_hint(unasked) == 0 and consumer.group.uncommitted({T0: 5}) == {}
        later.close()


# -- commits by the way ------------------------------------------------------------------------------


@pytest.mark.parametrize("is_member", [True, False])
@pytest.mark.parametrize("fault", [None, "drop", ErrorCode.NOT_COORDINATOR, ErrorCode.REBALANCE_IN_PROGRESS])
def test_commits_by_the_way_go_on_whatever_became_of_the_last_one(
    broker: FakeGroup, is_member: bool, fault: int | str | None
) -> None:
    topics = ("t",) if is_member else ()
    with Member(broker, "consumer", *topics, auto_commit_interval=0.01) as consumer:
        if is_member:
            consumer.shared()
        else:
            consumer.assign(BOTH)
        broker.faults[ApiKey.OFFSET_COMMIT] = iter([fault])
        broker.faults[ApiKey.FIND_COORDINATOR] = iter(
            [ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.GROUP_AUTHORIZATION_FAILED])
        for end in (100, 110):
            consumer.poll_until(lambda end=end: all(broker.committed.get(where) == (end, "") for where in BOTH))  # type: ignore[misc]
            for partition in broker.topics["t"]:
                fill(partition, 10)
        if fault in ("drop", ErrorCode.NOT_COORDINATOR) and not is_member:
            assert broker.count(ApiKey.FIND_COORDINATOR) == 4


def test_who_is_put_out_just_then_does_not_commit_by_the_way(broker: FakeGroup) -> None:
    with Member(broker, "consumer", "t") as member:
        member.shared()
        member.poll_until(lambda: len(member.positions()) == 2)
        member.group.session.commit_due = True
        member.group.session.membership.identity = member.group._identity()._replace(generation=-1)  # type: ignore[union-attr]
        run(member.group.serve(member._reader()))
        assert not broker.commits() and member.assignment() == {*BOTH}


def test_a_call_that_comes_while_the_reader_looks_is_not_lost(broker: FakeGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    with Member(broker, "consumer", "t") as member:
        member.shared()
        monkeypatch.setattr(member.group, "_commit_by_the_way", lambda positions: member._fetcher.interrupt())
        member.group.session.commit_due = True
        run(member.group.serve(member._reader()))
        assert member._fetcher.interrupted


def test_closing_commits_what_was_handed_out_of_chosen_partitions(broker: FakeGroup) -> None:
    fill(broker.topics["t"][0], 10)
    with chosen(broker) as consumer:
        assert consumer.poll(10.0, max_records=3)
    assert broker.commits() == [{T0: 3}]
