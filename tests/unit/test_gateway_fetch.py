"""Fetch: long polls, limits, where bytes are looked for, what is answered when they are not where they should be.

Source: KIP-74 (limits), KIP-320 (leader epochs). What came with versions 7 to 18: test_gateway_fetch_versions.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.broker_bench import Bench, advanced, make_batch, read, topic_id
from zafka.actors import cluster_state as cs, messages
from zafka.actors.gateway.effects import FileSlice, ReadFault, ReadFiles, Respond
from zafka.actors.gateway.fetch_part import whole_batches
from zafka.storage.location import HOT_BYTES, NEVER_HOT
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import FetchPartition, FetchRequest, FetchTopic

ONE = make_batch(b"one", base_offset=0)
TWO = make_batch(b"two", base_offset=1)
SIZE = len(ONE)


def fetch(
    offset: int | list[int], *, topic: str = "t", max_wait_ms: int = 500, min_bytes: int = 1, max_bytes: int = 1 << 20,
    partition_max_bytes: int = 1 << 20, epoch: int = -1, isolation_level: int = 0, session_epoch: int = -1,
    session_id: int = 0, last_fetched_epoch: int = -1,
) -> FetchRequest:
    offsets = [offset] if isinstance(offset, int) else offset
    partitions = [
        FetchPartition(
            index, epoch, each, last_fetched_epoch=last_fetched_epoch, partition_max_bytes=partition_max_bytes)
        for index, each in enumerate(offsets)]
    return FetchRequest(
        max_wait_ms=max_wait_ms, min_bytes=min_bytes, max_bytes=max_bytes, isolation_level=isolation_level,
        session_id=session_id, session_epoch=session_epoch, topics=[FetchTopic(topic_id(topic), topic, partitions)])


def parts_of(response: Any) -> list[tuple[int, bytes]]:
    return [(part.error_code, bytes(part.records)) for topic in response.responses for part in topic.partitions]


def locate(bench: Bench, *, position: int = 0, length: int = SIZE, error: int = 0, hot_position: int = 0,
           partition: int = 0, hw: int = 2) -> None:
    """The partition answers the `Locate` of the last turn."""
    (asked,) = bench.sent(messages.Locate)
    told = messages.Located(asked.request_id, error, 0, 5, position, length, hw, hw, 0, hot_position)
    bench.tell(bench.partitions["t", partition], told)


def slices(bench: Bench) -> list[FileSlice]:
    return [each for effect in bench.of(ReadFiles) for each in effect.slices]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """One partition with two batches."""
    bench = Bench(tmp_path).start()
    bench.create("t")
    bench.serve("t", hw=2, position=2 * SIZE)
    return bench


@pytest.mark.parametrize("version", range(4, 19))
def test_bytes_are_located_read_and_served_as_they_are(bench: Bench, version: int) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, version, fetch(0))
    (asked,) = bench.sent(messages.Locate)
    assert (asked.offset, asked.max_bytes) == (0, 1 << 20)
    locate(bench, length=2 * SIZE, hot_position=NEVER_HOT)
    path = str(bench.data_dir / "t-0" / "00000000000000000000.log")
    assert slices(bench) == [FileSlice(path, 5, 0, 2 * SIZE, True)]
    read(bench, ONE + TWO)
    (response,) = client.answers()
    assert parts_of(response) == [(0, ONE + TWO)]
    (topic,) = response.responses
    assert (topic.topic, topic.topic_id) == (("", topic_id("t")) if version >= 13 else ("t", bytes(16)))
    part = topic.partitions[0]
    assert (part.high_watermark, part.last_stable_offset, part.preferred_read_replica) == (2, 2, -1)
    assert response.session_id == 0 and part.aborted_transactions is None


def test_a_sequential_reader_asks_the_partition_once(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(0, partition_max_bytes=SIZE))
    locate(bench)
    read(bench, ONE)
    client.answers()
    client.send(ApiKey.FETCH, 12, fetch(1))
    assert not bench.sent(messages.Locate)
    assert [(each.position, each.length) for each in slices(bench)] == [(SIZE, SIZE)]
    read(bench, TWO)
    assert parts_of(client.answers()[0]) == [(0, TWO)]


def is_cold(bench: Bench) -> bool:
    (wanted,) = slices(bench)
    return wanted.cold


def test_a_reader_of_cold_bytes_comes_to_hot_ones(bench: Bench) -> None:
    """What the partition's process wrote, and lately, is not checked; what lies before that always is."""
    client = bench.client()
    for hw in (2, 2, 3):
        bench.tell(bench.partitions["t", 0], advanced(hw, hw * SIZE))
    client.send(ApiKey.FETCH, 12, fetch(0, partition_max_bytes=SIZE))
    locate(bench, hot_position=SIZE, hw=3)
    assert is_cold(bench)
    read(bench, ONE)
    client.send(ApiKey.FETCH, 12, fetch(1, partition_max_bytes=SIZE))
    assert not is_cold(bench)
    read(bench, TWO)
    bench.tell(bench.partitions["t", 0], advanced(1000, 2 * SIZE + HOT_BYTES))
    client.send(ApiKey.FETCH, 12, fetch(2, partition_max_bytes=SIZE))
    assert not is_cold(bench)
    bench.tell(bench.partitions["t", 0], advanced(1001, 3 * SIZE + HOT_BYTES))
    other = bench.client()
    other.send(ApiKey.FETCH, 12, fetch(2, partition_max_bytes=SIZE))
    assert is_cold(bench)  # the one that has fallen behind, if it was hot before


def test_a_reader_at_the_tail_is_checked_once_its_segment_is_not_the_last(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(2, partition_max_bytes=SIZE))
    bench.tell(bench.partitions["t", 0], advanced(3, 3 * SIZE))
    assert not is_cold(bench)
    read(bench, make_batch(b"333", base_offset=2))
    bench.tell(bench.partitions["t", 0], advanced(5, SIZE, segment=4))
    client.send(ApiKey.FETCH, 12, fetch(3, partition_max_bytes=SIZE))
    assert is_cold(bench)


def test_a_reader_at_the_tail_waits_and_needs_no_question(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(2))
    assert not bench.sent(messages.Locate) and not bench.of(Respond)
    bench.tell(bench.partitions["t", 0], advanced(3, 3 * SIZE))
    assert [(each.position, each.length, each.cold) for each in slices(bench)] == [(2 * SIZE, SIZE, False)]
    three = make_batch(b"333", base_offset=2)
    read(bench, three)
    assert parts_of(client.answers()[0]) == [(0, three)]
    assert len(bench.gateway.deadlines) == 0 and not bench.gateway.routes.find("t", 0).readers  # type: ignore[union-attr]


def test_what_a_commit_shows_comes_with_its_answers(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(2))
    bench.tell(bench.partitions["t", 0], messages.Produced([], advanced(3, 3 * SIZE)))
    assert [(each.position, each.length) for each in slices(bench)] == [(2 * SIZE, SIZE)]


def test_an_empty_answer_comes_when_the_wait_is_over_with_empty_not_null_records(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(2, max_wait_ms=300))
    bench.pass_time(0.29)
    assert not bench.of(Respond)
    bench.pass_time(0.02)
    (response,) = client.answers()
    assert parts_of(response) == [(0, b"")]
    assert response.responses[0].partitions[0].high_watermark == 2


def test_no_wait_is_answered_at_once(bench: Bench) -> None:
    client = bench.client()
    assert parts_of(client.ask(ApiKey.FETCH, 12, fetch(2, max_wait_ms=0))) == [(0, b"")]
    assert parts_of(client.ask(ApiKey.FETCH, 12, fetch(2, min_bytes=0))) == [(0, b"")]


def test_min_bytes_is_over_all_partitions(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start()
    bench.create("t", partitions=2)
    for index in (0, 1):
        bench.serve("t", index, hw=0)
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch([0, 0], min_bytes=2 * SIZE))
    bench.tell(bench.partitions["t", 0], advanced(1, SIZE))
    assert not bench.of(ReadFiles)
    bench.tell(bench.partitions["t", 1], advanced(1, SIZE))
    assert len(slices(bench)) == 2
    read(bench, ONE, ONE)
    assert parts_of(client.answers()[0]) == [(0, ONE), (0, ONE)]


def test_what_is_there_is_served_when_the_wait_for_more_is_over(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(0, min_bytes=10_000))
    locate(bench, length=2 * SIZE)
    assert not bench.of(ReadFiles)
    bench.pass_time(0.51)
    read(bench, ONE + TWO)
    assert parts_of(client.answers()[0]) == [(0, ONE + TWO)]


def test_max_bytes_is_over_the_request_and_the_first_batch_is_always_whole(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start()
    bench.create("t", partitions=2)
    for index in (0, 1):
        bench.serve("t", index, hw=1, position=SIZE)
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch([0, 0], max_bytes=1))
    for index, asked in enumerate(bench.sent(messages.Locate)):
        assert asked.max_bytes == 1
        told = messages.Located(asked.request_id, 0, 0, 5, 0, SIZE, 1, 1, 0, 0)
        bench.tell(bench.partitions["t", index], told)
    assert [each.length for each in slices(bench)] == [SIZE]
    read(bench, ONE)
    assert parts_of(client.answers()[0]) == [(0, ONE), (0, b"")]


def test_answers_are_small_while_others_hold_all_that_may_be_held(bench: Bench) -> None:
    """What is being read counts, so that a thousand fetches at once do not bring a thousand large answers."""
    connections = bench.gateway.connections
    connections.total_limit = 1 << 20
    first, second, third = (bench.client() for _ in range(3))
    for client, wanted in ((first, 900_000), (second, 148_576), (third, 64 * 1024)):
        client.send(ApiKey.FETCH, 12, fetch(0))
        locate(bench, length=900_000)
        (asked,) = slices(bench)
        assert wanted - 5_000 < asked.length <= wanted
    read(bench, (ONE + make_batch(bytes(100_000), base_offset=1))[: asked.length])
    assert parts_of(third.answers()[0]) == [(0, ONE)]  # whole batches only
    for client in (first, second):
        client.close()
    assert connections.held == 0


def test_a_later_partition_is_cut_to_whole_batches(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start()
    bench.create("t", partitions=2)
    for index in (0, 1):
        bench.serve("t", index, hw=2, position=2 * SIZE)
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch([1, 0], max_bytes=3 * SIZE - 10))
    for index, asked in enumerate(bench.sent(messages.Locate)):
        length = SIZE if index == 0 else 2 * SIZE
        told = messages.Located(asked.request_id, 0, 0, 5, 0, length, 2, 2, 0, 0)
        bench.tell(bench.partitions["t", index], told)
    assert [each.length for each in slices(bench)] == [SIZE, 2 * SIZE - 10]
    read(bench, TWO, (ONE + TWO)[: 2 * SIZE - 10])
    assert parts_of(client.answers()[0]) == [(0, TWO), (0, ONE)]


def test_a_batch_larger_than_the_partition_s_limit_is_served_whole(bench: Bench) -> None:
    client = bench.client()
    bench.tell(bench.partitions["t", 0], advanced(2, 2 * SIZE))
    client.send(ApiKey.FETCH, 12, fetch(2))
    bench.tell(bench.partitions["t", 0], advanced(3, 9 * SIZE))
    large = make_batch(bytes(6 * SIZE), base_offset=2)
    client.bench.pass_time(1)
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(2, partition_max_bytes=70))
    locate(bench, position=2 * SIZE, length=len(large))
    read(bench, large)
    assert parts_of(client.answers()[0]) == [(0, large)]


def test_errors_that_are_known_at_once(bench: Bench) -> None:
    bench.create("starting")
    client = bench.client()

    def ask(request: FetchRequest) -> list[tuple[int, bytes]]:
        return parts_of(client.ask(ApiKey.FETCH, 12, request))

    assert ask(fetch(0, topic="none")) == [(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, b"")]
    assert ask(fetch(0, topic="starting")) == [(ErrorCode.NOT_LEADER_OR_FOLLOWER, b"")]
    assert ask(fetch(-5)) == [(ErrorCode.OFFSET_OUT_OF_RANGE, b"")]
    assert ask(fetch(2, epoch=1)) == [(ErrorCode.UNKNOWN_LEADER_EPOCH, b"")]
    response = client.ask(ApiKey.FETCH, 12, fetch(0, session_epoch=3))
    assert (response.error_code, response.responses) == (ErrorCode.FETCH_SESSION_ID_NOT_FOUND, [])


def test_an_old_leader_epoch_is_fenced(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start()
    bench.create("t")
    bench.serve("t", epoch=4)
    assert parts_of(bench.client().ask(ApiKey.FETCH, 12, fetch(0, epoch=3))) == [(ErrorCode.FENCED_LEADER_EPOCH, b"")]


def test_below_the_log_start_an_offset_is_out_of_range(bench: Bench) -> None:
    bench.tell(bench.partitions["t", 0], advanced(9, 9, start=5))
    response = bench.client().ask(ApiKey.FETCH, 12, fetch(4))
    assert parts_of(response) == [(ErrorCode.OFFSET_OUT_OF_RANGE, b"")]
    assert response.responses[0].partitions[0].high_watermark == -1


def test_beyond_the_high_watermark_the_partition_decides(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(77))
    locate(bench, error=ErrorCode.OFFSET_OUT_OF_RANGE)
    assert parts_of(client.answers()[0]) == [(ErrorCode.OFFSET_OUT_OF_RANGE, b"")]


def test_what_lies_where_an_offset_is_not_yet_committed_is_not_believed_later(bench: Bench) -> None:
    """The log has five batches, two of them committed. A place that was told for offset 3 while nothing was there for
    readers is the log's end, which is not where 3 lies."""
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(3, max_wait_ms=60_000))
    locate(bench, position=5 * SIZE, length=0)
    bench.tell(bench.partitions["t", 0], advanced(7, 7 * SIZE))
    assert not bench.of(ReadFiles)
    locate(bench, position=3 * SIZE, length=SIZE, hw=7)
    assert [each.position for each in slices(bench)] == [3 * SIZE]


def test_read_committed_ends_at_the_last_stable_offset(bench: Bench) -> None:
    bench.tell(bench.partitions["t", 0], advanced(2, 2 * SIZE, lso=1))
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(1, isolation_level=1, max_wait_ms=0))
    (response,) = client.answers()
    assert parts_of(response) == [(0, b"")]
    assert response.responses[0].partitions[0].aborted_transactions == []
    client.send(ApiKey.FETCH, 12, fetch(0, isolation_level=1))
    assert bench.sent(messages.Locate)[0].isolation_level == 1


def test_a_file_that_is_another_one_by_now_is_located_again(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(0))
    locate(bench, length=2 * SIZE)
    read(bench, ReadFault.GONE)
    locate(bench, length=2 * SIZE)
    read(bench, ONE + TWO)
    assert parts_of(client.answers()[0]) == [(0, ONE + TWO)]


def test_a_file_that_stays_gone_is_a_storage_error(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(0))
    for _ in range(3):
        locate(bench)
        read(bench, ReadFault.GONE)
    assert parts_of(client.answers()[0]) == [(ErrorCode.KAFKA_STORAGE_ERROR, b"")]


def test_corrupt_bytes_are_not_served(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(0))
    locate(bench, hot_position=NEVER_HOT)
    read(bench, ReadFault.CORRUPT)
    assert parts_of(client.answers()[0]) == [(ErrorCode.CORRUPT_MESSAGE, b"")]


def test_bytes_that_the_disk_cannot_read_are_a_storage_error(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(0))
    locate(bench)
    read(bench, ReadFault.UNREADABLE)
    assert parts_of(client.answers()[0]) == [(ErrorCode.KAFKA_STORAGE_ERROR, b"")]


def test_committed_bytes_that_are_not_there_close_the_connection(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(0))
    locate(bench, length=2 * SIZE)
    read(bench, ONE[:-3])
    assert client.answers() == []
    assert "short read of t-0" in client.closed


def test_a_remembered_place_is_believed_only_if_the_right_batch_lies_there(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(0, partition_max_bytes=SIZE))
    locate(bench)
    read(bench, ONE)
    client.answers()
    client.send(ApiKey.FETCH, 12, fetch(1))
    read(bench, make_batch(b"xxx", base_offset=7))
    locate(bench, position=SIZE)
    read(bench, TWO)
    assert parts_of(client.answers()[0]) == [(0, TWO)]


def test_a_reader_goes_on_in_an_older_segment_and_finds_its_end(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(0, partition_max_bytes=SIZE))
    locate(bench)
    read(bench, ONE)
    client.answers()
    bench.tell(bench.partitions["t", 0], advanced(3, SIZE, segment=2, inode=6))
    client.send(ApiKey.FETCH, 12, fetch(1, partition_max_bytes=10_000))
    assert [(each.position, each.length) for each in slices(bench)] == [(SIZE, 10_000)]
    read(bench, TWO)
    assert parts_of(client.answers()[0]) == [(0, TWO)]
    client.send(ApiKey.FETCH, 12, fetch(2))
    read(bench, b"")
    assert bench.sent(messages.Locate)[0].offset == 2


def test_a_restart_of_the_partition_goes_unnoticed_by_a_long_poll(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(2, max_wait_ms=5_000))
    bench.down("t")
    assert not bench.of(Respond)
    bench.serve("t", epoch=1, hw=2, position=2 * SIZE)
    assert not bench.of(Respond)
    bench.tell(bench.partitions["t", 0], advanced(3, 3 * SIZE, epoch=1))
    three = make_batch(b"333", base_offset=2)
    read(bench, three)
    assert parts_of(client.answers()[0]) == [(0, three)]


def test_a_partition_that_does_not_come_back_is_told_when_the_wait_is_over(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(2, max_wait_ms=1_000))
    bench.down("t")
    bench.pass_time(1.1)
    assert parts_of(client.answers()[0]) == [(ErrorCode.NOT_LEADER_OR_FOLLOWER, b"")]


def test_a_deleted_topic_ends_its_long_polls(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(2, max_wait_ms=60_000))
    bench.commit(cs.TopicDeleted(topic_id("t")))
    assert parts_of(client.answers()[0]) == [(ErrorCode.NOT_LEADER_OR_FOLLOWER, b"")]


def test_a_partition_that_does_not_answer_holds_nobody_up_for_long(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start()
    bench.create("t", partitions=2)
    for index in (0, 1):
        bench.serve("t", index, hw=1, position=SIZE)
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch([0, 0]))
    first = bench.sent(messages.Locate)[0]
    bench.tell(bench.partitions["t", 0], messages.Located(first.request_id, 0, 0, 5, 0, SIZE, 1, 1, 0, 0))
    bench.pass_time(1.6)
    read(bench, ONE)
    assert parts_of(client.answers()[0]) == [(0, ONE), (0, b"")]


def test_a_client_that_is_gone_leaves_no_long_poll_behind(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(2))
    client.close()
    route = bench.gateway.routes.find("t", 0)
    assert route is not None and not route.readers and len(bench.gateway.deadlines) == 0


def test_shutdown_answers_long_polls_with_what_there_is(bench: Bench) -> None:
    client = bench.client()
    client.send(ApiKey.FETCH, 12, fetch(2, max_wait_ms=60_000))
    bench.tell(bench.partitions["t", 0], messages.Shutdown())
    assert parts_of(client.answers()[0]) == [(0, b"")]


def test_whole_batches_ends_before_a_part_of_one() -> None:
    both = ONE + TWO
    assert whole_batches(both) == (2 * SIZE, 2)
    assert whole_batches(both[:-1]) == (SIZE, 1)
    assert whole_batches(both[: SIZE + 30]) == (SIZE, 1)
    assert whole_batches(ONE[:-1]) == (0, -1)
    assert whole_batches(b"") == (0, -1)
    assert whole_batches(bytes(200)) == (0, -1)
