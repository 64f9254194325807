"""Our client and the offsets of groups: with a text beside them, altered, deleted; by Kafka's protocol and by the ZeroMQ door.

ZAFKA_TEST_BOOTSTRAP=host:port runs the same against another broker, such as Apache Kafka.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os

import kafka
import pytest

import zafka
from tests.clients.matrix.cases import Bench
from zafka.client.errors import BrokerRefused, ConfigError
from zafka.client.records import OffsetAndMetadata

RUN = os.urandom(3).hex()
NUMBERS = itertools.count()


@pytest.fixture(params=["kafka", "zmq"])
def door(bench: Bench, request: pytest.FixtureRequest) -> str:
    if request.param == "zmq" and bench.broker is None:
        pytest.skip("only zafka has that door")
    return bench.reference.bootstrap if request.param == "kafka" else bench.zmq


@pytest.fixture
def topic(bench: Bench) -> str:
    return bench.topic(3)


@pytest.fixture
def group() -> str:
    return f"offsets-{next(NUMBERS)}-{RUN}"


def test_a_text_comes_back_with_the_offset_it_was_committed_with(
    bench: Bench, door: str, topic: str, group: str
) -> None:
    wanted = {(topic, 0): OffsetAndMetadata(7, "to line 3 of a.csv"), (topic, 1): 8}
    with zafka.Consumer(bootstrap_servers=door, group_id=group) as consumer:
        consumer.commit(wanted)
        consumer.commit({(topic, 2): OffsetAndMetadata(9, "")}, wait=False)
        consumer.commit({})  # after what was on its way
        where = [(topic, number) for number in range(3)]
        assert consumer.committed(where, metadata=True) == {
            (topic, 0): (7, "to line 3 of a.csv"), (topic, 1): (8, ""), (topic, 2): (9, "")}
        assert list(consumer.committed(where).values()) == [7, 8, 9]
        with pytest.raises(BrokerRefused, match="OFFSET_METADATA_TOO_LARGE"):
            consumer.commit({(topic, 0): OffsetAndMetadata(8, "x" * 4097)})
        with pytest.raises(ConfigError, match="is a text, not b'bytes'"):
            consumer.commit({(topic, 0): OffsetAndMetadata(8, b"bytes")})  # type: ignore[arg-type]
    with zafka.Admin(door) as admin:
        assert admin.list_group_offsets(group, metadata=True)[zafka.TopicPartition(topic, 0)] == wanted[(topic, 0)]
        admin.alter_group_offsets(group, {(topic, 1): OffsetAndMetadata(5, "by hand")})
        assert admin.list_group_offsets(group) == {(topic, 0): 7, (topic, 1): 5, (topic, 2): 9}
    with contextlib.closing(kafka.KafkaAdminClient(bootstrap_servers=bench.reference.bootstrap)) as theirs:
        seen = {where.partition: (found.offset, found.metadata) for where, found in theirs.list_group_offsets(group)[group].items()}
    assert seen == {0: (7, "to line 3 of a.csv"), 1: (5, "by hand"), 2: (9, "")}


def test_what_was_committed_with_a_text_is_not_committed_again_without(bench: Bench, topic: str, group: str) -> None:
    with zafka.Producer(bench.reference.bootstrap) as producer:
        producer.send(topic, b"x", partition=0).result(30)
    with zafka.Consumer(
        topic, bootstrap_servers=bench.reference.bootstrap, group_id=group, auto_offset_reset="earliest") as consumer:
        assert consumer.poll(30.0)
        consumer.commit({(topic, 0): OffsetAndMetadata(1, "done")})
    with zafka.Admin(bench.reference.bootstrap) as admin:
        assert admin.list_group_offsets(group, metadata=True)[zafka.TopicPartition(topic, 0)] == (1, "done")


def test_async_clients_commit_texts_and_delete_offsets(door: str, topic: str, group: str) -> None:
    async def work() -> None:
        async with (
            zafka.AsyncConsumer(bootstrap_servers=door, group_id=group) as consumer, zafka.AsyncAdmin(door) as admin,
        ):
            await consumer.commit({(topic, 0): OffsetAndMetadata(3, "text"), (topic, 1): 4})
            assert await consumer.committed([(topic, 0)], metadata=True) == {(topic, 0): (3, "text")}
            assert await consumer.committed([(topic, 0)]) == {(topic, 0): 3}
            await admin.delete_group_offsets(group, [(topic, 1)])
            assert await admin.list_group_offsets(group, metadata=True) == {(topic, 0): (3, "text")}
            assert await admin.list_group_offsets(group) == {(topic, 0): 3}

    asyncio.run(asyncio.wait_for(work(), 60))


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_offsets_are_deleted_but_those_of_topics_that_members_read(
    bench: Bench, topic: str, group: str, protocol: str
) -> None:
    other = bench.topic()
    with zafka.Admin(bench.reference.bootstrap) as admin:
        with pytest.raises(BrokerRefused, match=f"offsets of group '{group}' were not deleted: .*GROUP_ID_NOT_FOUND"):
            admin.delete_group_offsets(group, [(topic, 0)])
        admin.alter_group_offsets(group, {(topic, 0): 0, (topic, 1): 0, (other, 0): 0})
        with zafka.Consumer(
            topic, bootstrap_servers=bench.reference.bootstrap, group_id=group, group_protocol=protocol, enable_auto_commit=False
        ) as member:
            bench.wait(lambda: bool(member.poll(0.05)) or len(member.assignment()) == 3, "a member that has its partitions")
            with pytest.raises(BrokerRefused, match=f"{topic}-1 was not deleted: .*a member reads this topic") as refused:
                admin.delete_group_offsets(group, [(topic, 1)])
            assert refused.value.name == "GROUP_SUBSCRIBED_TO_TOPIC"
            admin.delete_group_offsets(group, [(other, 0)])
            assert admin.list_group_offsets(group) == {(topic, 0): 0, (topic, 1): 0}
        admin.delete_group_offsets(group, [zafka.TopicPartition(topic, 0), (topic, 2)])
        assert admin.list_group_offsets(group) == {(topic, 1): 0}
        admin.delete_group_offsets(group, [])


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_member_tells_its_rack(bench: Bench, topic: str, group: str, protocol: str) -> None:
    with zafka.Admin(bench.reference.bootstrap) as admin, zafka.Consumer(
        topic, bootstrap_servers=bench.reference.bootstrap, group_id=group, group_protocol=protocol, client_rack="eu-1a"
    ) as member:
        bench.wait(lambda: bool(member.poll(0.05)) or len(member.assignment()) == 3, "a member that has its partitions")
        (info,) = admin.describe_groups(group)
        assert [each.rack for each in info.members] == ["eu-1a"]
