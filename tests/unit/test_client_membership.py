"""The reader's side of a membership, with a coordinator of one thread: what is committed, told and read when partitions change hands."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import Any

import pytest

from tests.unit.client_fake_group import FakeGroup
from tests.unit.test_client_consumer import fill
from zafka.client.consumer import Consumer
from zafka.client.errors import BrokerRefused, CommitFailed, RequestTimedOut
from zafka.client.group import CLASSIC, CONSUMER, Phase
from zafka.client.group_protocol import decode_subscription
from zafka.client.membership import GroupMember, Rebalance
from zafka.client.records import OffsetAndMetadata, Record, TopicPartition
from zafka.client.waiting import run, until
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode

pytestmark = pytest.mark.timeout(30)

T0, T1 = BOTH = TopicPartition("t", 0), TopicPartition("t", 1)
WAYS: dict[str, dict[str, Any]] = {
    "range": {"group_protocol": CLASSIC, "heartbeat_interval": 0.01},
    "cooperative": {
        "group_protocol": CLASSIC, "heartbeat_interval": 0.01, "partition_assignment_strategy": "cooperative-sticky"},
    "consumer": {"group_protocol": CONSUMER},
    "any": {},
}
HEARTBEAT = ApiKey.CONSUMER_GROUP_HEARTBEAT
SOON_S = 10.0  # not the 30 s that requests may take by default


class Stop(Exception):
    """Raised by a program that is told of a rebalance."""


class Member(Consumer):
    """One that notes what its group tells it. stops_at: what it is to be told of to raise Stop, once."""

    def __init__(self, broker: FakeGroup, way: str, *topics: str, **options: Any) -> None:
        self.told: list[Rebalance] = []
        self.stops_at = ""
        self.committed_when_told: list[dict[TopicPartition, int]] = []
        self._broker = broker
        super().__init__(*topics, **{
            "bootstrap_servers": broker.address, "group_id": "g", "auto_offset_reset": "earliest",
            "auto_commit_interval": 1000.0, "on_rebalance": self.note, **WAYS[way], **options})

    def note(self, event: Rebalance) -> None:
        self.told.append(event)
        self.committed_when_told.append({where: offset for where, (offset, _) in self._broker.committed.items()})
        if self.stops_at and getattr(event, self.stops_at):
            self.stops_at = ""
            raise Stop

    @property
    def group(self) -> GroupMember:
        assert self._member is not None
        return self._member

    def poll_until(self, check: Callable[[], object], max_records: int = 500) -> list[Record]:
        end_s = time.monotonic() + SOON_S
        records: list[Record] = []
        while not check():
            assert time.monotonic() < end_s, (self.told, self.group.session.membership)
            records += self.poll(0.01, max_records)
        return records

    def shared(self, max_records: int = 1) -> list[Record]:
        """Do tasks until this was assigned what it is to have; what is handed out meanwhile."""
        records, told = [], len(self.told)
        while len(self.told) == told or self.told[-1].revoked or self.assignment() != self._broker.assigned:
            self.wait_for_task()
            records += self.poll(0, max_records)
        return records

    def read(self, count: int) -> list[Record]:
        records: list[Record] = []
        while len(records) < count:
            more = self.poll(SOON_S, count - len(records))
            assert more
            records += more
        return records

    def wait_for_task(self) -> None:
        """Until there is one, of which the reader was told; it is done in the next poll and not before."""
        fetcher = self._fetcher
        assert run(until(
            fetcher.ready, lambda: (fetcher.interrupted and self.group._tasks()) or None, time.monotonic() + SOON_S))

    def changes(self) -> list[tuple[set[int], set[int], set[int]]]:
        """What was assigned, revoked and lost, each time that something was told."""
        return [
            ({part for _, part in event.assigned}, {part for _, part in event.revoked}, {part for _, part in event.lost})
            for event in self.told]


@pytest.fixture
def broker() -> Iterator[FakeGroup]:
    with FakeGroup({"t": 2}) as broker:
        for partition in broker.topics["t"]:
            fill(partition, 100)
        yield broker


@contextmanager
def soon() -> Iterator[None]:
    began_s = time.monotonic()
    yield
    assert time.monotonic() - began_s < SOON_S


# -- changes of hands --------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["range", "cooperative", "consumer"])
def test_what_is_given_up_is_committed_told_and_dropped_in_this_order(broker: FakeGroup, way: str) -> None:
    """What is kept goes on where it is, and all of it where it was committed if it is all given up for a while."""
    with Member(broker, way, "t") as member:
        records = member.read(3)  # of a chunk that has more
        gone, kept = records[0].partition, 1 - records[0].partition
        broker.assigned = frozenset({TopicPartition("t", kept)})
        records += member.shared()
        at = {where.partition: offset for where, offset in member.committed_when_told[1].items()}
        later = member.read(6)
        assert {record.partition for record in later} == {kept}
        read = {part: [record.offset for record in records + later if record.partition == part] for part in (0, 1)}
        assert read == {gone: list(range(at[gone])), kept: list(range(member.positions()[TopicPartition("t", kept)]))}
    revoked = {0, 1} if way == "range" else {gone}
    assert set(at) == ({gone} if way == "consumer" else {0, 1})
    assert member.changes()[:2] == [({0, 1}, set(), set()), (set(), revoked, set())]
    assert member.changes()[2] == ({kept} if way == "range" else set(), set(), set())
    if way != "consumer":
        last_join = broker.sent(ApiKey.JOIN_GROUP)[-1].protocols[0].metadata
        owned = decode_subscription(last_join, sticky_user_data=False).owned
        assert owned == (frozenset() if way == "range" else {TopicPartition("t", kept)})
    assert member.changes()[-1] == (set(), {kept}, set())
    assert broker.committed[TopicPartition("t", kept)].offset == len(read[kept])
    assert broker.requests[-1][0] is not ApiKey.OFFSET_COMMIT, "it leaves behind its commit"


def test_a_cooperative_member_commits_before_it_joins_again_and_joins_once_more_without_what_it_gave_up(
    broker: FakeGroup
) -> None:
    with Member(broker, "cooperative", "t") as member:
        member.read(3)
        broker.assigned = frozenset({T0})
        member.shared()
        member.shared()
        kinds = [api for api, _ in broker.requests if api in (ApiKey.JOIN_GROUP, ApiKey.OFFSET_COMMIT)]
        assert kinds[:3] == [ApiKey.JOIN_GROUP, ApiKey.OFFSET_COMMIT, ApiKey.JOIN_GROUP]
        assert kinds.count(ApiKey.JOIN_GROUP) == 3
        broker.assigned = frozenset(BOTH)
        member.shared()
        beats = broker.count(ApiKey.HEARTBEAT)
        member.poll_until(lambda: broker.count(ApiKey.HEARTBEAT) > beats + 2)
        assert broker.count(ApiKey.JOIN_GROUP) == 4, "nothing was given up this time"


@pytest.mark.parametrize("way", ["cooperative", "consumer"])
def test_of_a_partition_that_stays_nothing_is_skipped_when_another_one_goes(broker: FakeGroup, way: str) -> None:
    with Member(broker, way, "t") as member:
        records = member.read(3)
        kept = records[0].partition
        broker.assigned = frozenset({TopicPartition("t", kept)})
        records += member.shared()
        records += member.read(20)
        assert [record.offset for record in records if record.partition == kept] == list(range(len(records)))


def test_a_partition_begins_where_it_was_committed_and_that_is_not_committed_again(broker: FakeGroup) -> None:
    broker.committed[T0] = OffsetAndMetadata(40, "line 7")
    with Member(broker, "consumer", "t", auto_offset_reset="latest") as member:
        member.poll_until(lambda: len(member.positions()) == 2, max_records=1)
        assert member.told[0].assigned == {*BOTH} and member.positions()[T1] == 100
        first = member.poll_until(lambda: member.positions()[T0] > 40, 1)
        assert first == [] or first[0].offset == 40
        member.seek(T0, 40)
        member.commit()
        assert broker.committed == {T0: (40, "line 7"), T1: (100, "")}
        member.seek(T1, 90)
        member.commit()
        assert broker.committed[T1].offset == 90, "who goes back commits that, too"


def test_what_is_paused_stays_so_over_a_rebalance_and_no_longer_than_that(broker: FakeGroup) -> None:
    with Member(broker, "range", "t") as member:
        member.shared()
        member.pause(T0)
        broker.assigned = frozenset({T0})
        member.shared()
        assert member.paused() == {T0}
        member.resume(T0)
        broker.assigned = frozenset(BOTH)
        member.shared()
        assert member.paused() == set()


def test_a_program_that_raises_when_it_is_told_has_given_up_nevertheless(broker: FakeGroup) -> None:
    with Member(broker, "range", "t") as member:
        member.shared()
        member.stops_at = "revoked"
        broker.assigned = frozenset({T0})
        with pytest.raises(Stop):
            member.shared()
        assert member.assignment() == set()
        member.shared()
        member.stops_at = "revoked"
        with pytest.raises(Stop):
            member.subscribe("t")
        member.poll_until(lambda: broker.count(ApiKey.LEAVE_GROUP))


def test_who_closes_waits_until_that_is_heard(broker: FakeGroup) -> None:
    heard = threading.Event()
    broker.faults[ApiKey.LEAVE_GROUP] = (None for _ in repeat(None) if heard.wait(SOON_S))
    with Member(broker, "range", "t") as member:
        member.shared()
        leaving = member.group.leave(member._reader())
        while True:
            try:
                pause = leaving.send(None)
            except StopIteration:
                break
            if broker.count(ApiKey.LEAVE_GROUP):
                heard.set()
            pause.signal.wait(pause.seen, 0.05)
        assert heard.is_set() and member.group.session.is_over


def test_what_was_handed_out_is_left_only_when_the_next_is_asked_for(broker: FakeGroup) -> None:
    """Partitions do not change hands while records are about to be handed out, and do before more of them are."""
    once = iter([True])

    def interrupt(value: bytes) -> bytes:
        if value == b"9" and next(once, False):
            session.commit_due = True
            member._fetcher.interrupt()
        return value

    with Member(broker, "consumer", "t", max_partition_fetch_bytes=1, value_deserializer=interrupt) as member:
        session = member.group.session
        assert len(member.poll(SOON_S, 15)) == 10
        assert (session.commit_due, broker.commits()) == (True, [])
        member.poll(0)
        member.commit({})  # after what was on its way
        assert broker.commits() and not session.commit_due
        broker.assigned = frozenset()
        member.read(1)
        member.wait_for_task()
        assert member.poll(0, 1) == [] and member.told[1].revoked == {*BOTH}


def test_a_reader_that_comes_when_it_is_called_is_known_to_read(broker: FakeGroup) -> None:
    with Member(broker, "consumer", "t") as member:
        member.shared()
        session, membership = member.group.session, member.group._membership
        member.poll_until(lambda: not session.reads)
        now_s = time.monotonic()
        member._fetcher.interrupt()
        member.poll_until(lambda: membership is not None and membership._polled_s > now_s)


# -- what goes wrong while they do -------------------------------------------------------------------


def test_what_was_refused_is_tried_again_by_the_next_poll(broker: FakeGroup) -> None:
    broker.faults[ApiKey.OFFSET_FETCH] = iter([ErrorCode.GROUP_AUTHORIZATION_FAILED] * 2)
    with Member(broker, "consumer", "t") as member:
        with pytest.raises(BrokerRefused, match="GROUP_AUTHORIZATION_FAILED"):
            member.shared()
        with pytest.raises(BrokerRefused, match="GROUP_AUTHORIZATION_FAILED"):
            member.poll(0)
        member.poll(0)
        assert member.changes() == [({0, 1}, set(), set())]


def test_who_is_put_out_before_it_has_begun_begins_in_its_next_life(broker: FakeGroup) -> None:
    broker.faults[HEARTBEAT] = iter([None, ErrorCode.UNKNOWN_MEMBER_ID])
    broker.faults[ApiKey.OFFSET_FETCH] = (
        ErrorCode.UNKNOWN_MEMBER_ID if broker.generation == 1 else None for _ in repeat(None))
    with Member(broker, "consumer", "t") as member, soon():
        assert member.poll(SOON_S)
        assert member.changes() == [({0, 1}, set(), set())] and member.told[0].generation == 2


def test_a_member_asks_for_offsets_in_the_epoch_that_it_has_by_then(broker: FakeGroup) -> None:
    def moved_on() -> Iterator[None]:
        broker.generation += 1
        yield None

    broker.faults[ApiKey.OFFSET_FETCH] = moved_on()
    with Member(broker, "consumer", "t") as member, soon():
        assert member.poll(SOON_S)
    assert [request.groups[0].member_epoch for request in broker.sent(ApiKey.OFFSET_FETCH)] == [1, 2]


@pytest.mark.parametrize(("heartbeat", "told"), [
    (None, "OFFSET_FETCH for group 'g' was not done in time"),
    (ErrorCode.GROUP_AUTHORIZATION_FAILED, "GROUP_AUTHORIZATION_FAILED")])
def test_who_cannot_begin_says_so_in_time_and_each_time(broker: FakeGroup, heartbeat: int | None, told: str) -> None:
    broker.faults[ApiKey.OFFSET_FETCH] = repeat(ErrorCode.STALE_MEMBER_EPOCH)
    broker.faults[HEARTBEAT] = iter([None, heartbeat])
    with Member(broker, "consumer", "t", api_timeout=0.05 if heartbeat is None else 30.0) as member, soon():
        for _ in range(2):
            with pytest.raises((BrokerRefused, RequestTimedOut), match=told):
                member.poll(SOON_S)


@pytest.mark.parametrize("way", ["range", "consumer"])
def test_who_was_put_out_has_lost_all_and_commits_only_once_it_has_begun_again(broker: FakeGroup, way: str) -> None:
    with Member(broker, way, "t") as member:
        member.shared()
        member.stops_at = "lost"
        broker.faults[HEARTBEAT if way == "consumer" else ApiKey.HEARTBEAT] = iter([ErrorCode.UNKNOWN_MEMBER_ID])
        with pytest.raises(Stop):
            member.poll_until(lambda: False)
        assert member.changes()[1:] == [(set(), set(), {0, 1})] and member.assignment() == set()
        member.wait_for_task()
        with pytest.raises(CommitFailed, match="is no member of group 'g' now: poll, so that it joins"):
            member.commit({T0: 1})
        member.shared()
        member.commit({T0: 1})
    assert broker.commits()[0] == {T0: 1}


def test_a_life_in_the_classic_protocol_is_another_one(broker: FakeGroup) -> None:
    joins = threading.Event()
    broker.faults[ApiKey.JOIN_GROUP] = (None for _ in repeat(None) if joins.wait(SOON_S))
    with Member(broker, "any", "t") as member:
        member.shared()
        member.stops_at = "lost"
        broker.faults[HEARTBEAT] = iter([ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.GROUP_ID_NOT_FOUND])
        with pytest.raises(Stop):
            member.poll_until(lambda: False)
        member.wait_for_task()
        member.poll(0)
        joins.set()
        member.wait_for_task()
        with pytest.raises(CommitFailed, match="is no member"):
            member.commit({T0: 1})
        member.shared()
        member.commit({T0: 1})


def test_who_is_refused_for_good_is_told_once_and_raises_each_time(broker: FakeGroup) -> None:
    with Member(broker, "consumer", "t") as member:
        member.shared()
        broker.faults[HEARTBEAT] = iter([ErrorCode.GROUP_AUTHORIZATION_FAILED])
        for _ in range(2):
            with pytest.raises(BrokerRefused, match="GROUP_AUTHORIZATION_FAILED"):
                member.poll_until(lambda: False)
        assert member.changes()[1:] == [(set(), set(), {0, 1})]


def test_who_has_ended_already_gives_nothing_up_when_it_closes(broker: FakeGroup) -> None:
    """After a fork, or when its thread died: it could not say so, and does not know whose all that is by now."""
    with Member(broker, "consumer", "t") as member:
        member.shared()
        assert member._core.io.stop()
    assert member.changes() == [({0, 1}, set(), set())]


# -- another subscription, chosen partitions ---------------------------------------------------------


def test_a_new_subscription_knows_nothing_of_what_was_read_before(broker: FakeGroup) -> None:
    with Member(broker, "consumer", enable_auto_commit=False) as member:
        member.assign([T0])
        member.commit({T0: 1})
        broker.committed.clear()  # somebody deleted it
        member.assign([T0])
        member.seek(T0, 1)
        member.commit()
        assert broker.committed[T0].offset == 1
        broker.committed.clear()
        member.subscribe("t")
        assert member.assignment() == set()
        member.shared()
        member.seek(T0, 1)
        member.commit()
        assert broker.committed[T0].offset == 1
        member.pause(T0)
        member.subscribe("t")
        member.wait_for_task()
        with pytest.raises(CommitFailed, match="poll, so that it joins"):
            member.commit({T0: 2})
        member.shared()
        assert member.paused() == set()


def test_what_was_committed_before_a_partition_went_away_is_not_taken_for_known(broker: FakeGroup) -> None:
    with Member(broker, "consumer", "t", enable_auto_commit=False) as member:
        member.shared()
        member.commit({T1: 5})
        broker.assigned = frozenset({T0})
        member.shared()
        broker.committed.clear()  # somebody deleted it
        broker.assigned = frozenset(BOTH)
        member.shared()
        member.seek(T1, 5)
        member.commit()
        assert broker.committed[T1].offset == 5


def test_chosen_partitions_are_read_where_the_group_is_without_being_a_member(broker: FakeGroup) -> None:
    broker.committed[T1] = OffsetAndMetadata(50)
    with Member(broker, "consumer", "t") as member:
        member.shared()
        member.assign([T0])
        assert member.changes()[-1] == (set(), {0, 1}, set())
        assert broker.sent(HEARTBEAT)[-1].member_epoch == -1
        left = broker.count(HEARTBEAT)
        began = member.position(T0)
        assert [record.offset for record in member.read(3)] == list(range(began, began + 3))
        broker.committed[T1] = OffsetAndMetadata(70)
        member.assign([T1])
        assert [(record.partition, record.offset) for record in member.read(3)] == [(1, 70), (1, 71), (1, 72)]
        assert member.group.session.membership is None or member.group.session.membership.phase is Phase.OVER
    assert broker.committed[T1].offset == 73 and broker.count(HEARTBEAT) == left
