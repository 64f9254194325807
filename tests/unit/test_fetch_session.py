"""Fetch sessions, by themselves: epochs, what is news, whose place a new session may take, and how much they hold.

Source: KIP-227; Kafka FetchSessionTest.
"""

from __future__ import annotations

from random import Random

import pytest

from zafka.actors.gateway import fetch_session
from zafka.actors.gateway.fetch_session import (
    EPOCH_MAX,
    EVICTION_S,
    FetchSessions,
    FullFetch,
    IncrementalFetch,
    Sessionless,
    next_epoch,
)
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.fetch import (
    EpochEndOffset,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    ForgottenTopic,
    PartitionData,
)

DATA = memoryview(b"a batch")
NOTHING = memoryview(b"")
ID = b"i" * 16


def request(
    *wanted: tuple[str | bytes, int, int], session_id: int = 0, epoch: int = 0, forget: tuple[str | bytes, int] | None = None
) -> FetchRequest:
    """wanted: (topic, partition, offset)."""
    topics = [
        FetchTopic(*names(topic), [FetchPartition(partition, fetch_offset=offset)]) for topic, partition, offset in wanted]
    forgotten = [ForgottenTopic(*names(forget[0]), [forget[1]])] if forget else []
    return FetchRequest(session_id=session_id, session_epoch=epoch, topics=topics, forgotten_topics_data=forgotten)


def names(topic: str | bytes) -> tuple[bytes, str]:
    return (bytes(16), topic) if isinstance(topic, str) else (topic, "")


def told(partition: int = 0, *, hw: int = 5, start: int = 0, error: int = 0, data: memoryview = NOTHING) -> PartitionData:
    return PartitionData(partition, error, high_watermark=hw, log_start_offset=start, records=data)


def places(response: FetchResponse) -> list[tuple[str, int]]:
    return [(topic.topic, part.partition_index) for topic in response.responses for part in topic.partitions]


class Fetcher:
    """A client of these sessions."""

    def __init__(self, sessions: FetchSessions, *, by_id: bool = False, now_s: float = 0.0) -> None:
        self.sessions = sessions
        self.by_id = by_id
        self.now_s = now_s
        self.id = 0
        self.epoch = 0

    def begin(self, asked: FetchRequest) -> Sessionless | IncrementalFetch | ErrorCode:
        return self.sessions.begin(asked, by_id=self.by_id, now_s=self.now_s)

    def full(self, *wanted: tuple[str | bytes, int, int]) -> FetchResponse:
        fetch = self.begin(request(*wanted))
        assert isinstance(fetch, FullFetch)
        response = fetch.finish([told(each.asked.partition) for each in fetch.wanted], self.now_s)
        self.id, self.epoch = response.session_id, 1
        return response

    def ask(
        self, *wanted: tuple[str | bytes, int, int], forget: tuple[str | bytes, int] | None = None
    ) -> IncrementalFetch:
        fetch = self.begin(request(*wanted, session_id=self.id, epoch=self.epoch, forget=forget))
        assert isinstance(fetch, IncrementalFetch), fetch
        self.epoch += 1
        return fetch


@pytest.fixture
def sessions() -> FetchSessions:
    return FetchSessions(slots=3, random=Random(1))


@pytest.fixture
def fetcher(sessions: FetchSessions) -> Fetcher:
    """In a session about a-0, a-1 and b-0, which all were at a high watermark of 5."""
    fetcher = Fetcher(sessions)
    fetcher.full(("a", 0, 1), ("a", 1, 2), ("b", 0, 3))
    return fetcher


def test_a_full_fetch_is_answered_in_full_and_begins_a_session(sessions: FetchSessions) -> None:
    fetcher = Fetcher(sessions)
    response = fetcher.full(("a", 0, 1), ("a", 1, 2), ("b", 0, 3))
    assert places(response) == [("a", 0), ("a", 1), ("b", 0)] and len(response.responses) == 2
    assert response.session_id > 0 and len(sessions) == 1


def test_a_fetch_without_a_session_begins_none_and_ends_the_one_it_names(fetcher: Fetcher) -> None:
    fetch = fetcher.begin(request(("a", 0, 1), session_id=fetcher.id, epoch=-1))
    assert isinstance(fetch, Sessionless)
    assert fetch.finish([told()], 0.0).session_id == 0
    assert len(fetcher.sessions) == 0
    assert fetcher.begin(request(session_id=fetcher.id, epoch=1)) is ErrorCode.FETCH_SESSION_ID_NOT_FOUND


def test_a_new_full_fetch_ends_the_session_that_it_names(fetcher: Fetcher) -> None:
    fetch = fetcher.begin(request(("a", 0, 1), session_id=fetcher.id))
    assert isinstance(fetch, FullFetch)
    assert fetch.finish([told()], 0.0).session_id not in (0, fetcher.id)
    assert len(fetcher.sessions) == 1


def test_what_is_not_named_is_remembered_and_what_did_not_change_is_not_told(fetcher: Fetcher) -> None:
    fetch = fetcher.ask(("a", 1, 22))
    assert [(each.topic, each.asked.partition, each.asked.fetch_offset) for each in fetch.wanted] == [
        ("a", 0, 1), ("a", 1, 22), ("b", 0, 3)]
    response = fetch.finish([told(0), told(1), told(0)], 0.0)
    assert (response.error_code, response.session_id, response.responses) == (0, fetcher.id, [])


@pytest.mark.parametrize("news", [
    told(1, hw=6), told(1, start=2), told(1, data=DATA), told(1, error=ErrorCode.NOT_LEADER_OR_FOLLOWER),
    PartitionData(1, high_watermark=5, log_start_offset=0, diverging_epoch=EpochEndOffset(0, 1), records=NOTHING)])
def test_what_changed_is_told(fetcher: Fetcher, news: PartitionData) -> None:
    assert places(fetcher.ask().finish([told(0), news, told(0)], 0.0)) == [("a", 1)]


def test_after_an_error_a_partition_is_told_again(fetcher: Fetcher) -> None:
    fetcher.ask().finish([told(0), told(1, error=ErrorCode.KAFKA_STORAGE_ERROR), told(0)], 0.0)
    assert places(fetcher.ask().finish([told(0), told(1), told(0)], 0.0)) == [("a", 1)]
    assert places(fetcher.ask().finish([told(0), told(1), told(0)], 0.0)) == []


def test_who_got_data_stands_behind_the_others_the_next_time(fetcher: Fetcher) -> None:
    assert places(fetcher.ask().finish([told(0, data=DATA), told(1), told(0)], 0.0)) == [("a", 0)]
    fetch = fetcher.ask()
    assert [(each.topic, each.asked.partition) for each in fetch.wanted] == [("a", 1), ("b", 0), ("a", 0)]
    # The topic's partitions do not stand together any more.
    response = fetch.finish([told(1, hw=9), told(0, hw=9), told(0, hw=9)], 0.0)
    assert places(response) == [("a", 1), ("b", 0), ("a", 0)] and len(response.responses) == 3


def test_partitions_come_and_go(fetcher: Fetcher) -> None:
    fetch = fetcher.ask(("c", 4, 0), forget=("a", 0))
    assert [(each.topic, each.asked.partition) for each in fetch.wanted] == [("a", 1), ("b", 0), ("c", 4)]
    assert places(fetch.finish([told(1), told(0), told(4)], 0.0)) == [("c", 4)]  # it was never told before


def test_a_session_without_partitions_ends(sessions: FetchSessions) -> None:
    fetcher = Fetcher(sessions)
    fetcher.full(("a", 0, 1))
    fetch = fetcher.begin(request(session_id=fetcher.id, epoch=1, forget=("a", 0)))
    assert isinstance(fetch, Sessionless) and fetch.wanted == []
    assert fetch.finish([], 0.0).session_id == 0 and len(sessions) == 0


def test_a_wrong_epoch_an_unknown_session_and_a_change_of_names(fetcher: Fetcher) -> None:
    for epoch in (2, 7, -2, EPOCH_MAX):
        assert fetcher.begin(request(session_id=fetcher.id, epoch=epoch)) is ErrorCode.INVALID_FETCH_SESSION_EPOCH
    unknown = request(session_id=fetcher.id ^ 1, epoch=1)
    assert fetcher.begin(unknown) is ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    fetcher.by_id = True
    assert fetcher.begin(request(session_id=fetcher.id, epoch=1)) is ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR
    fetcher.by_id = False
    fetcher.ask()  # none of this did it any harm


def test_a_request_that_is_overtaken_by_the_next_one_is_told_so(fetcher: Fetcher) -> None:
    first, second = fetcher.ask(), fetcher.ask()
    response = first.finish([told(0, data=DATA), told(1), told(0)], 0.0)
    assert (response.error_code, response.session_id) == (ErrorCode.INVALID_FETCH_SESSION_EPOCH, fetcher.id)
    assert response.responses == []
    assert second.finish([told(0), told(1), told(0)], 0.0).error_code == 0


def test_epochs_go_round() -> None:
    assert [next_epoch(epoch) for epoch in (0, 1, EPOCH_MAX - 1, EPOCH_MAX)] == [1, 2, EPOCH_MAX, 1]


def test_topics_by_id(sessions: FetchSessions) -> None:
    fetcher = Fetcher(sessions, by_id=True)
    response = fetcher.full((ID, 0, 1), (b"j" * 16, 0, 1))
    assert [topic.topic_id for topic in response.responses] == [ID, b"j" * 16]
    fetch = fetcher.ask((ID, 0, 9), forget=(b"j" * 16, 0))
    assert [(each.topic, each.name, each.asked.fetch_offset) for each in fetch.wanted] == [(ID, None, 9)]


def test_of_several_wishes_for_one_partition_the_last_holds(sessions: FetchSessions) -> None:
    fetch = Fetcher(sessions).begin(request(("a", 0, 1), ("b", 0, 1), ("a", 0, 7), epoch=-1))
    assert isinstance(fetch, Sessionless)
    assert [(each.topic, each.asked.fetch_offset) for each in fetch.wanted] == [("a", 7), ("b", 1)]


# -- room ----------------------------------------------------------------------------------------


def test_where_there_is_no_room_there_is_no_session(sessions: FetchSessions) -> None:
    assert all(Fetcher(sessions).full(("a", 0, 1)).session_id for _ in range(3))
    assert Fetcher(sessions, now_s=EVICTION_S).full(("a", 0, 1), ("a", 1, 1)).session_id == 0
    assert Fetcher(FetchSessions(slots=0, random=Random(1))).full(("a", 0, 1)).session_id == 0


def test_the_one_that_was_not_used_for_longest_makes_room_when_it_is_stale(sessions: FetchSessions) -> None:
    fetchers = [Fetcher(sessions, now_s=each) for each in (0.0, 1.0, 2.0)]
    for fetcher in fetchers:
        fetcher.full(("a", 0, 1))
    fetchers[0].now_s = 3.0
    fetchers[0].ask()
    assert Fetcher(sessions, now_s=EVICTION_S + 1.0).full(("a", 0, 1)).session_id == 0
    assert Fetcher(sessions, now_s=EVICTION_S + 1.5).full(("a", 0, 1)).session_id
    gone = request(session_id=fetchers[1].id, epoch=1)
    assert fetchers[1].begin(gone) is ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    fetchers[0].ask()
    fetchers[2].ask()


def test_a_larger_one_takes_the_place_of_the_smallest_that_had_its_time(sessions: FetchSessions) -> None:
    """Whoever lives for two minutes makes room for who has more partitions, so that those who need one most have one."""
    sizes = (2, 1, 3)
    fetchers = [Fetcher(sessions) for _ in sizes]
    for fetcher, size in zip(fetchers, sizes, strict=True):
        fetcher.full(*(("a", index, 0) for index in range(size)))
        fetcher.now_s = EVICTION_S + 1
    fetchers[0].ask()
    fetchers[2].ask()
    fetchers[1].now_s = EVICTION_S - 1
    fetchers[1].ask()  # the smallest, and too young when it was used last
    late = Fetcher(sessions, now_s=EVICTION_S + 1)
    assert late.full(("a", 0, 0), ("a", 1, 0)).session_id == 0  # not larger than the smallest
    assert late.full(*(("a", index, 0) for index in range(3))).session_id
    ended = fetchers[0].begin(request(session_id=fetchers[0].id, epoch=fetchers[0].epoch))
    assert ended is ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    fetchers[1].ask()
    fetchers[2].ask()


def test_all_partitions_of_all_sessions_are_bounded(monkeypatch: pytest.MonkeyPatch, sessions: FetchSessions) -> None:
    monkeypatch.setattr(fetch_session, "PARTITIONS_MAX", 5)
    fetcher = Fetcher(sessions)
    assert fetcher.full(*(("a", index, 0) for index in range(4))).session_id
    assert Fetcher(sessions).full(("a", 0, 0), ("a", 1, 0)).session_id == 0
    assert Fetcher(sessions).full(("a", 0, 0)).session_id
    # One that grows beyond the bound ends; its fetcher goes on with full fetches.
    grown = request(("b", 0, 0), session_id=fetcher.id, epoch=1)
    assert fetcher.begin(grown) is ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    assert len(sessions) == 1
    assert fetcher.full(*(("a", index, 0) for index in range(4))).session_id


def test_names_that_no_topic_can_have_are_not_remembered(fetcher: Fetcher) -> None:
    long = "x" * 250
    assert not isinstance(Fetcher(fetcher.sessions).begin(request((long, 0, 0))), FullFetch)
    ended = fetcher.begin(request((long, 0, 0), session_id=fetcher.id, epoch=1))
    assert ended is ErrorCode.FETCH_SESSION_ID_NOT_FOUND and len(fetcher.sessions) == 0
