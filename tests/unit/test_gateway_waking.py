"""Long polls that many have open at once: who is looked at when a partition grows, how many in a turn, and one read for all."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from tests.unit.broker_bench import Bench, advanced, make_batch, read, topic_id
from zafka.actors import messages
from zafka.actors.actor import Mail, Send
from zafka.actors.gateway.effects import SHELL, FilesRead, ReadFiles, Respond
from zafka.actors.gateway.fetch import LongPoll
from zafka.actors.gateway.fetch_part import Part
from zafka.actors.gateway.repeated_fetch import RepeatedFetch
from zafka.actors.gateway.routes import only_grew
from zafka.actors.gateway.waking import LATE_S, PAUSE_S, PORTION_MAX, PORTION_MIN, PORTION_STEP, Waking
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages import FetchPartition, FetchRequest, FetchTopic
from zafka.transport.kafka.messages.api_versions import ApiVersionsRequest
from zafka.transport.kafka.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData

BATCH = make_batch(b"one", base_offset=0)
SIZE = len(BATCH)


def fetch(*offsets: int, min_bytes: int = 1, max_wait_ms: int = 500) -> FetchRequest:
    partitions = [FetchPartition(index, -1, offset, partition_max_bytes=1 << 20) for index, offset in enumerate(offsets)]
    return FetchRequest(
        max_wait_ms=max_wait_ms, min_bytes=min_bytes, max_bytes=1 << 20, session_epoch=-1,
        topics=[FetchTopic(topic_id("t"), "t", partitions)])


def produce(partition: int) -> ProduceRequest:
    data = [PartitionProduceData(index=partition, records=memoryview(BATCH))]
    return ProduceRequest(acks=-1, timeout_ms=1000, topic_data=[TopicProduceData(name="t", partition_data=data)])


def serving(tmp_path: Path, partitions: int) -> Bench:
    bench = Bench(tmp_path).start()
    bench.create("t", partitions=partitions)
    for index in range(partitions):
        bench.serve("t", index, hw=0)
    return bench


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    """Every look at a partition."""
    found: list[Part] = []
    look = Part.look

    def counted(part: Part) -> None:
        found.append(part)
        look(part)

    monkeypatch.setattr(Part, "look", counted)
    return found


def test_a_batch_that_many_wait_for_is_read_once_a_turn_and_handed_out_in_portions(tmp_path: Path) -> None:
    bench = serving(tmp_path, 1)
    clients = [bench.client() for _ in range(2 * PORTION_MAX + 5)]
    for client in clients:
        client.send(ApiKey.FETCH, 12, fetch(0))
    answered = []
    bench.tell(bench.partitions["t", 0], advanced(1, SIZE))
    read(bench, BATCH)
    answered += [effect.connection_id for effect in bench.of(Respond)]
    assert len(answered) == PORTION_MAX

    # The rest waits for a moment, and not for this turn's reads; who asks meanwhile is answered.
    late = bench.client()
    assert late.ask(ApiKey.API_VERSIONS, 0, ApiVersionsRequest()).error_code == 0
    assert not bench.of(ReadFiles)

    bench.pass_time(PAUSE_S / 2)
    assert not bench.of(ReadFiles)
    for portion in (PORTION_MAX, 5):
        bench.pass_time(PAUSE_S)
        read(bench, BATCH)
        answered += [effect.connection_id for effect in bench.of(Respond)]
        assert len(bench.of(Respond)) == portion
    assert answered == [client.id for client in clients]
    assert bytes(clients[-1].answers()[0].responses[0].partitions[0].records) == BATCH
    assert not bench.gateway.waking and len(bench.gateway.deadlines) == 0


def test_waits_that_end_together_are_answered_in_portions_too(tmp_path: Path) -> None:
    bench = serving(tmp_path, 1)
    clients = [bench.client() for _ in range(PORTION_MAX + 1)]
    for client in clients:
        client.send(ApiKey.FETCH, 12, fetch(0, max_wait_ms=500))
    bench.drive._move_clock(bench.drive.now.monotonic_s + 0.6)
    bench.turn()
    assert len(bench.of(Respond)) == PORTION_MAX
    bench.pass_time(PAUSE_S)
    assert len(bench.of(Respond)) == 1


def test_who_waits_for_many_bytes_is_not_looked_at_for_each_batch(tmp_path: Path, looks: list[Part]) -> None:
    bench = serving(tmp_path, 1)
    bench.client().send(ApiKey.FETCH, 12, fetch(0, min_bytes=100 * SIZE))
    for count in range(1, 100):
        bench.tell(bench.partitions["t", 0], advanced(count, count * SIZE))
    assert len(looks) == 1 and not bench.of(ReadFiles)
    bench.tell(bench.partitions["t", 0], advanced(100, 100 * SIZE))
    assert len(looks) == 2 and len(bench.of(ReadFiles)) == 1


@pytest.mark.parametrize("seed", range(20))
def test_whoever_waits_is_answered_as_soon_as_all_its_partitions_together_have_enough(
    tmp_path: Path, looks: list[Part], seed: int
) -> None:
    choice = random.Random(seed)
    print(f"seed {seed}")
    partitions = choice.randint(1, 6)
    bench = serving(tmp_path, partitions)
    min_bytes = choice.randint(1, 3000)
    bench.client().send(ApiKey.FETCH, 12, fetch(*[0] * partitions, min_bytes=min_bytes))
    ends = [0] * partitions
    steps = 0
    while sum(ends) < min_bytes:
        assert not bench.of(ReadFiles), (ends, min_bytes)
        index = choice.randrange(partitions)
        ends[index] += choice.randint(1, choice.choice([10, 1000]))
        bench.tell(bench.partitions["t", index], advanced(ends[index], ends[index]))
        steps += 1
    assert len(bench.of(ReadFiles)) == 1, (ends, min_bytes)
    # Each wake-up leaves at most (n - 1) / n of what was missing, so there are few of them however many batches come.
    assert len(looks) <= partitions * min(steps + 1, 2 + partitions * min_bytes.bit_length())


def test_news_while_another_partition_is_asked_are_not_missed(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start()
    bench.create("t", partitions=2)
    bench.serve("t", 0, hw=0)
    bench.serve("t", 1, hw=2, position=2 * SIZE)
    bench.client().send(ApiKey.FETCH, 12, fetch(0, 1, min_bytes=2 * SIZE))
    (asked,) = bench.sent(messages.Locate)
    bench.tell(bench.partitions["t", 0], advanced(1, SIZE))
    assert not bench.of(ReadFiles)
    located = messages.Located(asked.request_id, 0, 0, 5, SIZE, SIZE, 2, 2, 0, False)
    bench.tell(bench.partitions["t", 1], located)
    (wanted,) = bench.of(ReadFiles)
    assert len(wanted.slices) == 2


@pytest.mark.parametrize("news", [
    {"segment_base_offset": 5}, {"inode": 8}, {"leader_epoch": 2}, {"log_start_offset": 1}, {"last_stable_offset": 3}])
def test_only_more_of_the_same_may_wait(news: dict[str, int]) -> None:
    """Whatever else is new is worth a look by those who wait for many bytes, too."""
    before = messages.Advanced(1, 0, 4, 4, 0, 7, 400)
    grown = msgspec.structs.replace(before, high_watermark=9, last_stable_offset=9, end_position=900)
    assert only_grew(before, grown)
    assert not only_grew(before, msgspec.structs.replace(grown, **news))


def test_answers_leave_before_mail_to_partitions(tmp_path: Path) -> None:
    """Who is answered need not wait for a partition that takes the core as soon as it has mail."""
    bench = serving(tmp_path, 2)
    one, other = bench.client(), bench.client()
    one.send(ApiKey.FETCH, 12, fetch(0))
    bench.tell(bench.partitions["t", 0], advanced(1, SIZE))
    (wanted,) = bench.of(ReadFiles)
    bench.turn(other.mail(ApiKey.PRODUCE, 9, produce(1)), Mail(SHELL, FilesRead(wanted.token, [BATCH])))
    kinds = [type(each.body) if isinstance(each, Send) else type(each) for each in bench.effects]
    assert kinds.index(Respond) < kinds.index(messages.Produce)


class Poll:
    """Has news, and is looked at."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_woken(self) -> None:
        raise AssertionError("whoever asked calls it")


def names(waking: Waking, now_s: float) -> str:
    return "".join(poll.name for poll in waking.next(now_s) if isinstance(poll, Poll))


def only(partition: int, offset: int) -> FetchRequest:
    wanted = FetchPartition(partition, -1, offset, partition_max_bytes=1 << 20)
    return FetchRequest(
        max_wait_ms=500, min_bytes=1, max_bytes=1 << 20, session_epoch=-1, topics=[FetchTopic(topic_id("t"), "t", [wanted])])


def test_each_partition_has_its_turn(tmp_path: Path) -> None:
    """Who reads one that hundreds read does not keep those waiting who read another: in general, and by the short way."""
    bench = serving(tmp_path, 2)
    crowd, alone = [bench.client() for _ in range(5 * PORTION_MAX)], bench.client()
    for offset, kind in enumerate((LongPoll, LongPoll, RepeatedFetch)):
        for client in crowd:
            client.send(ApiKey.FETCH, 12, only(0, offset))
        alone.send(ApiKey.FETCH, 12, only(1, offset))
        operations = [each.operation for client in crowd for each in bench.gateway.connections.by_id[client.id].exchanges]
        assert {type(each) for each in operations} == {kind}
        news = advanced(offset + 1, (offset + 1) * SIZE)
        bench.turn(*[Mail(bench.partitions["t", index], news) for index in range(2)])
        answered = []
        while reads := bench.of(ReadFiles):
            bench.turn(*[Mail(SHELL, FilesRead(wanted.token, [make_batch(b"one", base_offset=offset)])) for wanted in reads])
            answered.append([effect.connection_id for effect in bench.of(Respond)])
            bench.pass_time(PAUSE_S)
        assert len(answered[0]) == PORTION_MAX
        assert alone.id in answered[0] and answered[0][0] == crowd[0].id
        assert sorted(one for portion in answered for one in portion) == sorted(client.id for client in (*crowd, alone))


def test_turns_of_partitions() -> None:
    waking = Waking()
    for lane, polls in (("a", "abcdefghijklmnopqrstuvwxyz"), ("b", "12"), ("c", "_")):
        for name in polls:
            waking.add(lane, Poll(name))
    assert names(waking, 0.0) == "a1_b2cdefghijklmnopq"
    assert names(waking, PAUSE_S / 2) == ""
    assert len(waking) == 9
    assert names(waking, PAUSE_S) == "rstuvwxyz"
    assert (len(waking), waking.due_s) == (0, None)


def test_who_has_news_again_is_looked_at_once() -> None:
    waking, poll = Waking(), Poll("a")
    waking.add("lane", poll)
    waking.add("lane", poll)
    assert waking.next(0.0) == [poll]
    assert waking.next(1.0) == []


def test_portions_follow_how_long_others_wait_for_a_core() -> None:
    waking, now_s, sizes = Waking(), 0.0, []
    for index in range(1000):
        waking.add("lane", Poll(str(index)))
    waking.next(now_s)
    for late_s in (LATE_S / 2, 2 * LATE_S, 2 * LATE_S, 1.0, *[0.0] * 9):
        assert waking.due_s is not None
        now_s = waking.due_s + late_s
        sizes.append(len(waking.next(now_s)))
    half = PORTION_MAX // 2
    assert sizes[:4] == [PORTION_MAX, half, max(PORTION_MIN, half // 2), max(PORTION_MIN, half // 4)]
    assert sizes[4:] == [min(PORTION_MAX, PORTION_MIN + step * PORTION_STEP) for step in range(1, 10)]


@pytest.mark.parametrize("seed", range(20))
def test_whoever_has_news_is_looked_at_in_the_order_of_its_partition(seed: int) -> None:
    print(f"seed {seed}")
    choice = random.Random(seed)
    waking, now_s = Waking(), 0.0
    added: dict[str, list[str]] = {}
    seen: dict[str, list[str]] = {}
    for index in range(choice.randint(1, 300)):
        if choice.random() < 0.8:
            lane = choice.choice("abc")
            name = f"{lane}{index}"
            waking.add(lane, Poll(name))
            added.setdefault(lane, []).append(name)
        else:
            now_s += choice.choice((0.0, PAUSE_S / 2, PAUSE_S, 10 * LATE_S))
            for poll in waking.next(now_s):
                assert isinstance(poll, Poll)
                seen.setdefault(poll.name[0], []).append(poll.name)
    while waking.due_s is not None or waking:
        now_s = waking.due_s or now_s
        for poll in waking.next(now_s):
            assert isinstance(poll, Poll)
            seen.setdefault(poll.name[0], []).append(poll.name)
    assert seen == added
