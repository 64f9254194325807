"""ListOffsets and OffsetForLeaderEpoch: questions that each partition answers for itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.broker_bench import Bench
from zafka.actors import messages
from zafka.transport.kafka import messages as kafka
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages import offset_for_leader_epoch as epochs


def offsets(timestamp: int, topic: str = "t", epoch: int = -1) -> kafka.ListOffsetsRequest:
    partition = kafka.ListOffsetsPartition(0, epoch, timestamp)
    return kafka.ListOffsetsRequest(-1, 0, [kafka.ListOffsetsTopic(topic, [partition])])


@pytest.mark.parametrize("version", range(1, 12))
def test_offsets_are_the_partition_s_to_tell(tmp_path: Path, version: int) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    client.send(ApiKey.LIST_OFFSETS, version, offsets(1234))
    (asked,) = bench.sent(messages.ListOffset)
    assert (asked.timestamp_ms, asked.current_leader_epoch, asked.isolation_level) == (1234, -1, 0)
    bench.tell(bench.partitions["t", 0], messages.OffsetListed(asked.request_id, 0, 1240, 17, 3))
    (part,) = client.answers()[0].topics[0].partitions
    assert (part.error_code, part.timestamp, part.offset) == (0, 1240, 17)
    assert part.leader_epoch == (3 if version >= 4 else -1)


def test_offsets_that_cannot_be_asked_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    bench.create("starting")
    client = bench.client()

    def ask(version: int, request: kafka.ListOffsetsRequest) -> int:
        answer = client.ask(ApiKey.LIST_OFFSETS, version, request)
        return int(answer.topics[0].partitions[0].error_code)

    assert ask(7, offsets(-1, "none")) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert ask(7, offsets(-1, "starting")) == ErrorCode.NOT_LEADER_OR_FOLLOWER
    refused = [(6, -3), (7, -4), (8, -5), (9, -6), (10, -6), (11, -7), (11, -(2**63))]
    assert {ask(version, offsets(timestamp)) for version, timestamp in refused} == {ErrorCode.UNSUPPORTED_VERSION}
    # Kafka looks at the timestamp first.
    assert ask(7, offsets(-4, "none")) == ErrorCode.UNSUPPORTED_VERSION


def test_offsets_of_a_partition_that_dies_or_is_silent(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    client.send(ApiKey.LIST_OFFSETS, 7, offsets(-1))
    bench.down("t")
    assert client.answers()[0].topics[0].partitions[0].error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
    bench.serve("t", epoch=1)
    client.send(ApiKey.LIST_OFFSETS, 7, offsets(-1))
    bench.pass_time(31)
    assert client.answers()[0].topics[0].partitions[0].error_code == ErrorCode.REQUEST_TIMED_OUT


@pytest.mark.parametrize("version", [10, 11])
def test_the_client_says_how_long_it_waits(tmp_path: Path, version: int) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    request = offsets(-1)
    request.timeout_ms = 1_000
    client.send(ApiKey.LIST_OFFSETS, version, request)
    bench.pass_time(1.3)
    assert client.answers()[0].topics[0].partitions[0].error_code == ErrorCode.REQUEST_TIMED_OUT


@pytest.mark.parametrize(
    ("version", "error"), [(4, ErrorCode.LEADER_NOT_AVAILABLE), (5, ErrorCode.OFFSET_NOT_AVAILABLE)])
def test_old_clients_do_not_know_that_an_offset_is_not_available(tmp_path: Path, version: int, error: int) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    client.send(ApiKey.LIST_OFFSETS, version, offsets(-1))
    (asked,) = bench.sent(messages.ListOffset)
    bench.tell(
        bench.partitions["t", 0],
        messages.OffsetListed(asked.request_id, ErrorCode.OFFSET_NOT_AVAILABLE, -1, -1, -1))
    assert client.answers()[0].topics[0].partitions[0].error_code == error


def test_a_partition_that_is_asked_for_twice_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    request = offsets(-1)
    request.topics += offsets(-2).topics
    answer = bench.client().ask(ApiKey.LIST_OFFSETS, 7, request)
    assert [part.error_code for topic in answer.topics for part in topic.partitions] == [ErrorCode.INVALID_REQUEST]
    assert not bench.sent(messages.ListOffset)


# -- leader epochs -------------------------------------------------------------------------------


def epoch_request(*topics: str, epoch: int = 2, current: int = -1) -> kafka.OffsetForLeaderEpochRequest:
    partition = epochs.OffsetForLeaderPartition(0, current, epoch)
    return kafka.OffsetForLeaderEpochRequest(-1, [epochs.OffsetForLeaderTopic(name, [partition]) for name in topics])


@pytest.mark.parametrize("version", range(2, 5))
def test_the_end_of_an_epoch_is_the_partition_s_to_tell(tmp_path: Path, version: int) -> None:
    bench = Bench(tmp_path).start("t")
    bench.create("starting")
    client = bench.client()
    client.send(ApiKey.OFFSET_FOR_LEADER_EPOCH, version, epoch_request("t", "starting", "none", current=5))
    (asked,) = bench.sent(messages.FindEpochEnd)
    assert (asked.leader_epoch, asked.current_leader_epoch) == (2, 5)
    bench.tell(bench.partitions["t", 0], messages.EpochEnd(asked.request_id, 0, 1, 17))
    (answer,) = client.answers()
    told = [(part.error_code, part.partition, part.leader_epoch, part.end_offset)
            for topic in answer.topics for part in topic.partitions]
    assert told == [
        (0, 0, 1, 17), (ErrorCode.NOT_LEADER_OR_FOLLOWER, 0, -1, -1), (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, 0, -1, -1)]


def test_a_partition_that_dies_does_not_tell_an_epoch(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    client = bench.client()
    client.send(ApiKey.OFFSET_FOR_LEADER_EPOCH, 4, epoch_request("t"))
    bench.down("t")
    assert client.answers()[0].topics[0].partitions[0].error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER


def test_a_topic_without_partitions_is_not_answered(tmp_path: Path) -> None:
    bench = Bench(tmp_path).start("t")
    request = kafka.ListOffsetsRequest(-1, 0, [kafka.ListOffsetsTopic("t", [])])
    assert bench.client().ask(ApiKey.LIST_OFFSETS, 7, request).topics == []
    deletion = kafka.DeleteRecordsRequest([kafka.DeleteRecordsTopic("t", [])], 1000)
    assert bench.client().ask(ApiKey.DELETE_RECORDS, 2, deletion).topics == []
