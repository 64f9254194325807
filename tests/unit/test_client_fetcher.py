"""What a consumer fetches ahead, turn by turn and without sockets: what is asked of whom, and what of the answers is handed out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.unit.client_fake_broker import FakePartition
from tests.unit.test_client_consumer import fill
from zafka.client.channel import OnAnswer
from zafka.client.cluster import NEVER, Settings, Topic
from zafka.client.errors import BrokerRefused, ConnectionLost, UnknownTopic, ZafkaError
from zafka.client.fetcher import BACKOFF_FIRST_S, NOT_KNOWN, OUTDATED_PATIENCE_S, Chunk, Fetcher, FetchOptions
from zafka.client.offsets import EARLIEST, LATEST
from zafka.client.records import TopicPartition
from zafka.client.waiting import run
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import FetchResponse, ListOffsetsResponse
from zafka.transport.kafka.messages.fetch import FetchableTopicResponse, PartitionData
from zafka.transport.kafka.messages.list_offsets import ListOffsetsPartitionResponse, ListOffsetsTopicResponse

T0, T1, T2 = (TopicPartition("t", number) for number in range(3))
REQUEST_S = 30.0


@dataclass
class Net:
    """A cluster and its one broker, which leads all of topic t. sent: what waits for its answer."""

    sent: list[tuple[ApiKey, Any, OnAnswer]] = field(default_factory=list)
    metadata_count = 1
    partitions = 2
    settings = Settings(())
    topic_errors: dict[str, int] = field(default_factory=dict)

    @property
    def topics(self) -> dict[str, Topic]:
        every = tuple(range(self.partitions))
        return {} if self.topic_errors else {"t": Topic("t", b"", (1,) * self.partitions, (0,) * self.partitions, every)}

    def leader(self, topic: str, partition: int) -> int:
        return -1 if self.topic_errors else 1

    def channel(self, broker: int, purpose: str) -> Net:
        return self

    def send(self, api_key: ApiKey, message: Any, on_answer: OnAnswer, timeout_s: float) -> None:
        self.sent.append((api_key, message, on_answer))

    def drop_channel(self, broker: int, purpose: str, reason: str) -> None:
        sent, self.sent = self.sent, []
        for _, _, on_answer in sent:
            on_answer(None, ConnectionLost(reason))

    def refresh_soon(self) -> None:
        pass

    def unknown_topic(self, topic: str) -> ZafkaError:
        return UnknownTopic(topic)


class Driven:
    """A fetcher at a time that the test says, whose partitions have 100 records each."""

    def __init__(self, **options: Any) -> None:
        self.net, self.woken = Net(), 0
        self.fetcher = Fetcher(self.net, FetchOptions(**{  # type: ignore[arg-type]
            "reset_to": LATEST, "min_bytes": 1, "max_bytes": 1 << 20, "partition_bytes": 1 << 20, "max_wait": 0.5,
            "request_timeout": REQUEST_S, **options}), self.wake)
        self.now_s = time.monotonic()
        log = FakePartition()
        fill(log, 100)
        self.records = memoryview(b"".join(log.batches))

    def wake(self) -> None:
        self.woken += 1

    def turn(self, later_s: float = 0.0) -> float:
        """Returns in how many seconds the next one is wanted."""
        self.now_s += later_s
        return self.fetcher.turn(self.now_s) - self.now_s

    def asked(self, api_key: ApiKey) -> set[TopicPartition]:
        """What the one request that is under way is about."""
        ((sent_as, message, _),) = self.net.sent
        assert sent_as is api_key
        name, index = ("topic", "partition") if api_key is ApiKey.FETCH else ("name", "partition_index")
        return {
            TopicPartition(getattr(topic, name), getattr(part, index))
            for topic in message.topics for part in topic.partitions}

    def answer(self, **codes: int) -> None:
        """Answer the one request that is under way: with records, or offset 7. codes: by t0, t1, t2."""
        ((api_key, message, on_answer),) = self.net.sent
        self.net.sent.clear()
        if api_key is ApiKey.LIST_OFFSETS:
            on_answer(ListOffsetsResponse(topics=[ListOffsetsTopicResponse("t", [
                ListOffsetsPartitionResponse(part.partition_index, offset=7) for part in message.topics[0].partitions])]), None)
            return
        parts = [
            PartitionData(part.partition, codes.get(f"t{part.partition}", 0), 100, records=self.records)
            for part in message.topics[0].partitions]
        on_answer(FetchResponse(responses=[FetchableTopicResponse(topic="t", partitions=parts)]), None)

    def reads(self, *partitions: TopicPartition) -> None:
        """From offset 0 on, and what was fetched waits to be read."""
        self.fetcher.change((), dict.fromkeys(partitions, 0))
        self.turn()
        self.answer()

    def chunk(self, *, holds_some: bool = False) -> Chunk | None:
        return run(self.fetcher.next_chunk(0.0, holds_some))

    def tells(self) -> int:
        """How often those who wait were told of something."""
        return self.fetcher.ready.count


def test_of_what_is_given_up_nothing_is_handed_out_and_nothing_is_told() -> None:
    driven = Driven()
    driven.reads(T0, T1)
    fetcher = driven.fetcher
    with fetcher.ready:
        fetcher._fail(fetcher.readings[T0], BrokerRefused("t-0", ErrorCode.UNKNOWN_SERVER_ERROR))
    woken = driven.woken
    fetcher.change([T0], {T2: 3})
    assert driven.woken > woken
    chunk = driven.chunk()
    assert chunk is not None and chunk.reading.where == T1
    assert driven.chunk() is None
    assert (fetcher.readings[T2].next_fetch, fetcher.readings[T2].reset_to) == (3, None)


def test_what_is_under_way_for_a_partition_that_is_given_up_and_begun_again_does_not_count() -> None:
    driven = Driven()
    driven.fetcher.change((), {T0: 0})
    driven.turn()
    driven.fetcher.change([T0], {})
    driven.fetcher.change((), {T0: NOT_KNOWN})
    driven.answer()
    assert driven.chunk() is None and driven.fetcher.readings[T0].reset_to == LATEST


def test_new_partitions_are_read_from_their_beginning_and_none_are_added_to_what_a_group_gave() -> None:
    driven = Driven()
    driven.fetcher.assign({T0: LATEST, T1: LATEST}, ["t"])
    driven.turn()
    driven.net.partitions, driven.net.metadata_count = 3, 2
    driven.turn()
    assert driven.fetcher.readings[T2].reset_to == EARLIEST
    driven.fetcher.change([T0, T1, T2], {T0: 0})
    driven.net.metadata_count = 3
    driven.turn()
    assert set(driven.fetcher.readings) == {T0}


def test_an_error_of_what_was_assigned_before_is_nobodys() -> None:
    driven = Driven()
    driven.reads(T0)
    with driven.fetcher.ready:
        driven.fetcher._fail(driven.fetcher.readings[T0], BrokerRefused("t-0", ErrorCode.UNKNOWN_SERVER_ERROR))
    driven.fetcher.assign({T1: 0})
    assert not driven.fetcher.failed and not driven.fetcher.chunks


def test_a_call_for_the_reader_ends_its_wait_and_comes_before_what_was_fetched() -> None:
    driven = Driven()
    driven.reads(T0)
    told = driven.tells()
    driven.fetcher.interrupt()
    assert driven.tells() > told
    assert driven.chunk() is None
    driven.fetcher.interrupted = False
    woken = driven.woken
    assert driven.chunk() is not None
    assert driven.woken > woken, "there is room for more"
    assert driven.fetcher.readings[T0].buffered_bytes == 0


def test_what_is_paused_is_fetched_again_after_that_and_learns_meanwhile_where_it_begins() -> None:
    driven = Driven()
    driven.reads(T0)
    driven.fetcher.pause(T0, 4)
    assert driven.chunk() is None
    driven.turn()
    assert not driven.net.sent
    woken = driven.woken
    driven.fetcher.resume(T0)
    assert driven.woken > woken
    driven.turn()
    assert driven.asked(ApiKey.FETCH) == {T0} and driven.net.sent[0][1].topics[0].partitions[0].fetch_offset == 4
    driven.answer()
    driven.fetcher.change([T0], {T1: NOT_KNOWN})
    driven.fetcher.pause(T1, NOT_KNOWN)
    driven.turn()
    assert driven.asked(ApiKey.LIST_OFFSETS) == {T1}
    told = driven.tells()
    driven.answer()
    assert driven.tells() > told and driven.fetcher.readings[T1].next_read == 7


def test_where_to_begin_is_not_what_was_asked_before_the_reader_moved() -> None:
    driven = Driven()
    driven.fetcher.change((), {T0: NOT_KNOWN})
    driven.turn()
    driven.fetcher.move(T0, 55)
    driven.answer()
    assert driven.fetcher.readings[T0].next_read == 55


def test_a_request_for_news_is_given_up_soon_after_the_reader_moved_and_that_is_no_failure() -> None:
    driven = Driven()
    driven.fetcher.change((), {T0: 100})
    driven.turn()
    driven.fetcher.move(T0, 50)
    assert driven.turn() == pytest.approx(OUTDATED_PATIENCE_S)
    driven.turn(OUTDATED_PATIENCE_S)
    assert driven.net.sent[0][1].topics[0].partitions[0].fetch_offset == 50
    assert driven.fetcher.errors == 0


def test_while_some_wait_to_be_read_only_those_that_have_more_are_fetched() -> None:
    driven = Driven(partition_bytes=1)
    driven.reads(T0, T1)
    chunk = driven.chunk()
    assert chunk is not None
    driven.turn()
    assert not driven.net.sent, "it has no more, and would keep the other waiting for news"
    chunk.reading.high_watermark = 101
    driven.turn()
    assert driven.asked(ApiKey.FETCH) == {chunk.reading.where}


def test_errors_that_pass_are_tried_again_later_and_later_until_one_went_well() -> None:
    driven = Driven()
    driven.fetcher.change((), {T0: 0})
    for failures in (1, 2):
        driven.now_s = time.monotonic() + 1.0  # what comes later is by the clock
        driven.turn()
        driven.answer(t0=ErrorCode.NOT_LEADER_OR_FOLLOWER)
        reading = driven.fetcher.readings[T0]
        assert reading.retry_at_s - time.monotonic() == pytest.approx(BACKOFF_FIRST_S * failures, abs=0.015)
    driven.now_s = time.monotonic() + 1.0
    driven.turn()
    driven.answer()
    assert reading.failures == 0 and driven.chunk() is not None


def test_who_waits_is_told_of_an_error_and_holds_on_to_what_it_has() -> None:
    driven = Driven()
    driven.fetcher.change((), {T0: 0})
    driven.turn()
    told = driven.tells()
    driven.answer(t0=ErrorCode.TOPIC_AUTHORIZATION_FAILED)
    assert driven.tells() > told
    assert driven.chunk(holds_some=True) is None
    with pytest.raises(BrokerRefused, match="t-0 cannot be read"):
        driven.chunk()
    assert driven.turn() == NEVER and not driven.net.sent
    driven.fetcher.move(T0, 3)
    driven.turn()
    assert driven.asked(ApiKey.FETCH) == {T0}


def test_a_topic_that_stays_away_is_told_of_after_a_while() -> None:
    driven = Driven()
    driven.reads(T0)
    assert driven.chunk() is not None
    driven.net.topic_errors["t"] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert driven.turn() == pytest.approx(REQUEST_S)
    driven.turn(REQUEST_S - 1.0)
    assert driven.chunk() is None
    told = driven.tells()
    driven.turn(1.0)
    assert driven.tells() > told
    with pytest.raises(UnknownTopic):
        driven.chunk()
