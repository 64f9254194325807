"""The producer's way past the broker: a broker of one thread that tells it, and partitions with a real door of their own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.readiness import readable
from tests.unit.client_fake_broker import FakeBroker, FakePartition
from zafka.actors.direct import AnswerDirect
from zafka.actors.direct_door import DirectDoor
from zafka.actors.messages import ProduceAnswer
from zafka.client import direct
from zafka.client.aio import AsyncProducer
from zafka.client.errors import BrokerRefused, DeliveryFailed
from zafka.client.producer import Producer
from zafka.runtime.run_dir import RunDirectory
from zafka.storage.batch import read_header
from zafka.storage.records import decode_batch
from zafka.transport.direct import Told, Where, direct_path
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode

pytestmark = pytest.mark.timeout(60)
WAIT_S = 20.0
EPOCH = 0


class FakeLeader:
    """A thread that appends to a partition of the fake broker what comes by a door of its own.

    refuse: the error for the next batch. silent: it takes batches and says nothing."""

    def __init__(self, run_dir: RunDirectory, incarnation: int, log: FakePartition, *, path: str = "") -> None:
        self.log = log
        self.incarnation = incarnation
        self.path = path or direct_path(run_dir.endpoint("root"), incarnation)
        self.batches = 0
        self.refuse = 0
        self.silent = False
        self.bad: list[str] = []
        self._door = DirectDoor(self.path, incarnation, self.bad.append)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def told(self, where: Where) -> Told:
        return Told(where.topic, where.partition, self.incarnation, EPOCH, self.path)

    def stop(self) -> None:
        """As a kill: connections end, the socket is gone."""
        self._stop.set()
        self._thread.join(5)
        assert not self._thread.is_alive()
        self._door.close()

    def _serve(self) -> None:
        while not self._stop.is_set():
            if not self._door.has_left:
                readable(self._door, 0.01)
            answers = []
            for mail in self._door.read():
                self.batches += 1
                error, self.refuse = self.refuse, 0
                base = -1
                if not error:
                    error, base = self.log.append(mail.records)
                answers.append(ProduceAnswer(mail.body.item.request_id, error, base, -1, 0))
                if error:
                    break  # what lies behind it is not taken
            if not self.silent:
                self._door.perform(AnswerDirect(answers))


@pytest.fixture
def run_dir() -> Iterator[RunDirectory]:
    run_dir = RunDirectory()
    yield run_dir
    run_dir.close()


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with FakeBroker({"t": 1}, "zmq") as broker:
        yield broker


@pytest.fixture
def leader(run_dir: RunDirectory, broker: FakeBroker) -> Iterator[FakeLeader]:
    leader = FakeLeader(run_dir, 11, broker.topics["t"][0])
    broker.tell = leader.told
    yield leader
    leader.stop()


def values(broker: FakeBroker) -> list[bytes | None]:
    return [
        record.value for data in broker.topics["t"][0].batches for record in decode_batch(data, read_header(data))]


class Stream:
    """Records in order, each waited for before the next."""

    def __init__(self, producer: Producer) -> None:
        self.producer = producer
        self.sent: list[bytes] = []

    def send(self) -> None:
        self.sent.append(b"%d" % len(self.sent))
        assert self.producer.send("t", self.sent[-1]).result(WAIT_S).offset == len(self.sent) - 1

    def send_until(self, reached: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not reached():
            assert time.monotonic() < deadline_s, "it never comes to that"
            self.send()


@pytest.fixture
def stream(broker: FakeBroker) -> Iterator[Stream]:
    with Producer(broker.address, linger_ms=0) as producer:
        yield Stream(producer)


def test_the_first_batch_goes_through_the_broker_and_later_ones_past_it(
    broker: FakeBroker, leader: FakeLeader, stream: Stream
) -> None:
    stream.send_until(lambda: leader.batches > 0)
    through = broker.count(ApiKey.PRODUCE)
    for _ in range(20):
        stream.send()
    assert broker.count(ApiKey.PRODUCE) == through > 0 and broker.asked == [Where("t", 0)]
    assert values(broker) == stream.sent and leader.bad == []


def test_an_async_producer_goes_the_same_way(broker: FakeBroker, leader: FakeLeader) -> None:
    async def scenario() -> list[bytes]:
        sent: list[bytes] = []
        async with AsyncProducer(broker.address, linger_ms=0) as producer:
            deadline_s = time.monotonic() + WAIT_S
            while leader.batches < 10:
                assert time.monotonic() < deadline_s
                sent.append(b"%d" % len(sent))
                await (await producer.send("t", sent[-1]))
        return sent

    assert asyncio.run(scenario()) == values(broker)


def test_order_is_kept_over_the_change_with_many_in_flight(broker: FakeBroker, leader: FakeLeader) -> None:
    with Producer(broker.address, linger_ms=0) as producer:
        sent: list[bytes] = []
        while leader.batches < 100:
            sent.append(b"%d" % len(sent))
            producer.send("t", sent[-1])
        producer.flush(WAIT_S)
        assert producer.metrics().retries == 0
    assert values(broker) == sent


@pytest.mark.parametrize("options", [{"direct": False}, {"acks": 1}, {"acks": 0}, {"enable_idempotence": False}])
def test_who_is_not_idempotent_or_does_not_want_it_asks_for_no_way(
    broker: FakeBroker, leader: FakeLeader, options: dict[str, object]
) -> None:
    with Producer(broker.address, linger_ms=0, **options) as producer:  # type: ignore[arg-type]
        for _ in range(10):
            producer.send("t", b"v").result(WAIT_S)
    assert broker.asked == [] and leader.batches == 0


def test_a_kafka_listener_is_not_asked() -> None:
    with FakeBroker({"t": 1}, "kafka") as broker, Producer(broker.address, linger_ms=0) as producer:
        for _ in range(10):
            producer.send("t", b"v").result(WAIT_S)
        assert broker.asked == []


def test_a_broker_that_does_not_know_the_question_goes_on_as_before(broker: FakeBroker, stream: Stream) -> None:
    stream.send_until(lambda: broker.asked != [])
    for _ in range(20):
        stream.send()
    assert values(broker) == stream.sent and len(broker.asked) == 1


@pytest.mark.parametrize("path", ["/zafka-run-1-01234567/d11", "/etc/passwd", "", "\0"])
def test_a_way_that_leads_elsewhere_is_not_taken(broker: FakeBroker, stream: Stream, path: str) -> None:
    broker.tell = lambda where: Told(where.topic, where.partition, 11, EPOCH, path)
    stream.send_until(lambda: broker.asked != [])
    for _ in range(20):
        stream.send()
    assert values(broker) == stream.sent and stream.producer.metrics().errors == 0


def test_a_socket_that_is_not_of_a_run_directory_is_left_alone(
    run_dir: RunDirectory, broker: FakeBroker, stream: Stream, tmp_path: Path
) -> None:
    """A broker from anywhere may name any socket of ours."""
    other = FakeLeader(run_dir, 11, broker.topics["t"][0], path=str(tmp_path / "other"))
    broker.tell = other.told
    stream.send_until(lambda: broker.asked != [])
    for _ in range(30):
        stream.send()
    other.stop()
    assert other.batches == 0 and other.bad == []


def test_while_the_broker_turns_batches_away_none_goes_past_it(
    broker: FakeBroker, leader: FakeLeader, stream: Stream
) -> None:
    """It holds back what lies behind a batch that it turned away, until that one comes again."""
    turned_away = [ErrorCode.NOT_LEADER_OR_FOLLOWER] * 4
    broker.fault = lambda api, when: turned_away.pop() if api is ApiKey.PRODUCE and when == "before" and turned_away else None
    stream.send()
    assert broker.count(ApiKey.PRODUCE) == 5 and leader.batches == 0 and broker.asked != []
    stream.send_until(lambda: leader.batches > 0)
    assert values(broker) == stream.sent


def test_an_answer_that_nobody_asked_for_is_passed_over(broker: FakeBroker, leader: FakeLeader, stream: Stream) -> None:
    broker.tell = lambda where: leader.told(Where("other", 7))
    stream.send_until(lambda: len(broker.asked) > 0)
    for _ in range(10):
        stream.send()
    assert leader.batches == 0


def test_after_the_death_of_a_partition_the_broker_takes_over_and_then_its_successor(
    run_dir: RunDirectory, broker: FakeBroker, stream: Stream
) -> None:
    log = broker.topics["t"][0]
    for incarnation in range(11, 14):
        leader = FakeLeader(run_dir, incarnation, log)
        broker.tell = leader.told
        stream.send_until(lambda leader=leader: leader.batches > 3)  # type: ignore[misc]
        through = broker.count(ApiKey.PRODUCE)
        leader.stop()
        stream.send()
        assert broker.count(ApiKey.PRODUCE) > through
    assert values(broker) == stream.sent


@pytest.mark.parametrize("error", [ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.FENCED_LEADER_EPOCH])
def test_a_refusal_that_may_pass_sends_the_batch_through_the_broker_first(
    broker: FakeBroker, leader: FakeLeader, stream: Stream, error: ErrorCode
) -> None:
    stream.send_until(lambda: leader.batches > 0)
    through, asked = broker.count(ApiKey.PRODUCE), len(broker.asked)
    leader.refuse = error
    stream.send()
    assert broker.count(ApiKey.PRODUCE) == through + 1
    stream.send_until(lambda: len(broker.asked) > asked)
    batches = leader.batches
    stream.send_until(lambda: leader.batches > batches)
    assert values(broker) == stream.sent


def test_a_refusal_for_good_is_told_and_the_way_stays(broker: FakeBroker, leader: FakeLeader, stream: Stream) -> None:
    stream.send_until(lambda: leader.batches > 0)
    asked = len(broker.asked)
    leader.refuse = ErrorCode.MESSAGE_TOO_LARGE
    with pytest.raises(BrokerRefused, match=r"max\.message\.bytes"):
        stream.producer.send("t", b"refused").result(WAIT_S)
    stream.send()
    assert len(broker.asked) == asked and values(broker) == stream.sent


def test_a_partition_that_answers_nothing_is_left_after_the_time_for_a_request(
    broker: FakeBroker, leader: FakeLeader
) -> None:
    with Producer(broker.address, linger_ms=0, request_timeout=0.5) as producer:
        stream = Stream(producer)
        stream.send_until(lambda: leader.batches > 0)
        leader.silent = True
        stream.send()  # written by the partition, and told by the broker to be so already
        assert producer.metrics().retries >= 1
    assert values(broker) == stream.sent


def test_a_batch_that_is_too_large_for_the_way_goes_through_the_broker(
    broker: FakeBroker, leader: FakeLeader, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.send_until(lambda: leader.batches > 0)
    through = broker.count(ApiKey.PRODUCE)
    monkeypatch.setattr(direct, "SIZE_MAX", 1000)
    stream.sent.append(b"x" * 2000)
    stream.producer.send("t", stream.sent[-1]).result(WAIT_S)
    batches = leader.batches
    stream.send()
    assert (broker.count(ApiKey.PRODUCE), leader.batches) == (through + 1, batches + 1)
    assert values(broker) == stream.sent


def test_no_more_ways_than_descriptors_allow(
    run_dir: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "WAYS_MAX", 1)
    with FakeBroker({"t": 2}, "zmq") as broker:
        leaders = [FakeLeader(run_dir, 11 + index, broker.topics["t"][index]) for index in range(2)]
        broker.tell = lambda where: leaders[where.partition].told(where)
        with Producer(broker.address, linger_ms=0) as producer:
            deadline_s = time.monotonic() + WAIT_S
            while not any(leader.batches > 20 for leader in leaders):
                assert time.monotonic() < deadline_s
                for partition in range(2):
                    producer.send("t", b"v", partition=partition).result(WAIT_S)
            assert min(leader.batches for leader in leaders) == 0
        for leader in leaders:
            leader.stop()


def test_what_is_in_flight_when_the_producer_ends_is_told(broker: FakeBroker, leader: FakeLeader) -> None:
    producer = Producer(broker.address, linger_ms=0)
    stream = Stream(producer)
    stream.send_until(lambda: leader.batches > 0)
    leader.silent = True
    future = producer.send("t", b"v")
    batches = leader.batches
    deadline_s = time.monotonic() + WAIT_S
    while leader.batches == batches:
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.02)
    with pytest.raises(DeliveryFailed):
        producer.close(timeout=0.1)
    assert future.exception(WAIT_S) is not None
