"""Our client in groups, alone and with others: members come, go and crash, coordinators die, every record is read once.

Each record's value is its number in its partition; who is given a partition goes on where the one before committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import confluent_kafka
import kafka
import pytest

import zafka
from tests.clients.group_members import ALL, CLASSIC, CONSUMER, PARTITIONS, RECORDS, TIMEOUT_S, TOPIC, Members, settings
from zafka.client.errors import BrokerRefused, CommitFailed, ZafkaError
from zafka.runtime.cli import main

NUMBERS = itertools.count()
BOTH = pytest.mark.parametrize("protocol", [CLASSIC, CONSUMER], ids=["classic", "consumer"])


@pytest.fixture(scope="module")
def broker() -> Iterator[zafka.Broker]:
    """Of this module's own, because it kills processes."""
    with zafka.Broker(
        topics={TOPIC: PARTITIONS}, topology={"supervision": {"intensity": 1_000_000}},
        defaults={
            "group.initial.rebalance.delay.ms": 100, "group.min.session.timeout.ms": 1000,
            "group.consumer.session.timeout.ms": 6000, "group.consumer.min.session.timeout.ms": 1000},
    ) as broker:
        with zafka.Producer(broker.bootstrap_servers) as producer:
            for partition, number in sorted(ALL):
                producer.send(TOPIC, str(number).encode(), partition=partition)
        yield broker


@pytest.fixture(params=["kafka", "zmq"])
def door(broker: zafka.Broker, request: pytest.FixtureRequest) -> str:
    return broker.bootstrap_servers if request.param == "kafka" else broker.zmq_bootstrap_servers


@pytest.fixture
def group() -> str:
    return f"ours-{next(NUMBERS)}"


@contextlib.contextmanager
def fault(broker: zafka.Broker, api: str, error: str) -> Iterator[None]:
    rule = broker.inject_error(api, error=error)
    yield
    broker.clear_faults(rule)


def session_of(broker: zafka.Broker, group: str, ms: int) -> None:
    """How long a member of this group, if it is one of KIP-848's, may be silent: the broker says it, not the member."""
    with zafka.Admin(broker.bootstrap_servers) as admin:
        admin.alter_config(group=group, config={"consumer.session.timeout.ms": ms})


@pytest.mark.parametrize("way", [
    {"partition_assignment_strategy": "range"}, {"partition_assignment_strategy": "roundrobin"},
    {"partition_assignment_strategy": "sticky"}, {"partition_assignment_strategy": "cooperative-sticky"},
    {"group_protocol": "consumer"}, {"group_protocol": "consumer", "group_remote_assignor": "range"}],
    ids=lambda way: "-".join(way.values()))
def test_two_become_three_become_one_and_every_record_is_read_once(door: str, group: str, way: dict[str, Any]) -> None:
    with Members(door, group, **way) as members:
        first = members.join()
        members.join()
        members.poll_until(members.is_shared)
        assert members.shares() == [3, 3]
        third = members.join()
        members.poll_until(members.is_shared)
        assert members.shares() == [2, 2, 2]
        members.leave(third)
        members.leave(first)
        members.poll_until(members.is_shared)
        members.poll_until(lambda: set(members.read) == ALL)
        members.check_read()


@pytest.mark.parametrize("way", [{"partition_assignment_strategy": "cooperative-sticky"}, CONSUMER], ids=["classic", "consumer"])
def test_cooperative_members_go_on_with_what_they_keep(broker: zafka.Broker, group: str, way: dict[str, Any]) -> None:
    with Members(broker.bootstrap_servers, group, **way) as members:
        first = members.join()
        members.poll_until(lambda: len(first.assignment()) == PARTITIONS)
        members.join()
        members.poll_until(members.is_shared)
        kept = first.assignment()
        paused = min(kept)
        first.pause(paused)
        members.join()
        members.poll_until(members.is_shared)
        revoked: set[zafka.TopicPartition] = set().union(*(event.revoked for event in members.events[first]))
        assert len(revoked) == 4  # of six: each once, and never what it kept
        assert not revoked & first.assignment()
        assert first.paused() == {paused} & first.assignment()


def test_members_are_told_why(broker: zafka.Broker, group: str) -> None:
    with Members(broker.bootstrap_servers, group) as members:
        first = members.join()
        members.poll_until(members.is_shared)
        second = members.join()
        members.poll_until(members.is_shared)
        members.leave(second)
        members.poll_until(members.is_shared)
        events = members.events[first]
        assigned = [event for event in events if event.assigned]
        assert assigned[0].why == "this consumer joined"
        assert assigned[1].why.startswith("joined: zafka-consumer-")
        assert assigned[-1].why.startswith("left or timed out: zafka-consumer-")
        assert not any(event.lost for event in events)


@BOTH
def test_iterating_commits_by_itself_what_was_worked_on(broker: zafka.Broker, group: str, protocol: dict[str, Any]) -> None:
    """The record whose work is not done, because nobody asked for the next, comes again."""
    config = settings(broker.bootstrap_servers, group, auto_commit_interval=0.05, **protocol)
    with zafka.Consumer(TOPIC, **config) as consumer:
        seen = Counter(record.partition for record, _ in zip(consumer, range(100), strict=False))
        positions = consumer.positions()
    with zafka.Consumer(**config) as reader:
        reader.assign(positions)
        assert reader.committed() == positions
        assert sum(seen.values()) == 100 <= sum(positions.values()) <= 101
    with zafka.Consumer(TOPIC, **config) as consumer:
        rest = list(itertools.islice(consumer.records(timeout=TIMEOUT_S), len(ALL) - sum(positions.values())))
        assert {(record.partition, record.offset) for record in rest} == {
            each for each in ALL if each[1] >= positions[zafka.TopicPartition(TOPIC, each[0])]}


def test_explicit_offsets_are_committed_and_others_begin_there(broker: zafka.Broker, group: str) -> None:
    config = settings(broker.bootstrap_servers, group, enable_auto_commit=False)
    with zafka.Consumer(**config) as consumer:
        where = zafka.TopicPartition(TOPIC, 1)
        assert consumer.committed([where]) == {where: None}
        consumer.commit({where: 42})
        consumer.commit({(TOPIC, 2): 7}, wait=False)
        consumer.commit({(TOPIC, 3): 8})  # after what was on its way
        assert set(consumer.committed([(TOPIC, number) for number in range(4)]).values()) == {None, 42, 7, 8}
        consumer.assign([where])
        assert consumer.position(where) == 42
        assert consumer.poll(5.0)[0].offset == 42
        assert consumer.lag()[where] >= 0


def test_chosen_partitions_are_committed_by_the_way_too(broker: zafka.Broker, group: str) -> None:
    config = settings(broker.bootstrap_servers, group, auto_commit_interval=0.05)
    with zafka.Consumer(**config) as consumer, zafka.Consumer(**config) as watcher:
        consumer.assign([(TOPIC, 1)])
        end_s = time.monotonic() + TIMEOUT_S
        while watcher.committed([(TOPIC, 1)]) != {(TOPIC, 1): RECORDS}:
            assert time.monotonic() < end_s
            consumer.poll(0.05)


@BOTH
def test_who_is_too_slow_loses_its_partitions_and_cannot_commit(
    broker: zafka.Broker, group: str, protocol: dict[str, Any]
) -> None:
    with Members(broker.bootstrap_servers, group, **protocol) as members:
        slow = members.join(max_poll_interval=1.0)
        members.poll_until(lambda: len(slow.assignment()) == PARTITIONS)
        members.consumers.remove(slow)  # polled no more
        other = members.join()
        members.poll_until(lambda: len(other.assignment()) == PARTITIONS)
        with pytest.raises(CommitFailed, match="poll, so that it joins"):
            slow.commit({(TOPIC, 0): 1})
        members.consumers.append(slow)
        members.poll_until(lambda: bool(slow.assignment()) and members.is_shared())
        lost = [event for event in members.events[slow] if event.lost]
        assert len(lost[0].lost) == PARTITIONS
        assert "max_poll_interval=1 s" in lost[0].why


@pytest.mark.parametrize("way", [{"session_timeout": 1.0}, CONSUMER], ids=["classic", "consumer"])
def test_a_slow_program_keeps_its_partitions_while_its_thread_sends_heartbeats(
    broker: zafka.Broker, group: str, way: dict[str, Any]
) -> None:
    session_of(broker, group, 1000)
    with Members(broker.bootstrap_servers, group, **way) as members:
        slow = members.join()
        members.poll_until(lambda: len(slow.assignment()) == PARTITIONS)
        end_s = time.monotonic() + 2.0
        while time.monotonic() < end_s:
            threading.Event().wait(0.02)  # works
        slow.commit(slow.positions())
        assert not any(event.lost for event in members.events[slow])


def test_a_static_member_comes_back_without_a_rebalance(broker: zafka.Broker, group: str) -> None:
    with Members(broker.bootstrap_servers, group, session_timeout=30.0) as members:
        first = members.join(group_instance_id="one")
        second = members.join(group_instance_id="two")
        members.poll_until(members.is_shared)
        owned, events = first.assignment(), len(members.events[second])
        members.leave(first)
        again = members.join(group_instance_id="one")
        members.poll_until(lambda: again.assignment() == owned)
        assert len(members.events[second]) == events
        members.join(group_instance_id="two")  # takes the place of the other one, which hears of it
        with pytest.raises(ZafkaError, match="another consumer took group_instance_id='two'"):
            members.poll_until(lambda: False)
        members.consumers.remove(second)
        second.close()


@BOTH
def test_new_partitions_are_shared(broker: zafka.Broker, group: str, protocol: dict[str, Any]) -> None:
    topic = f"{group}-grows"
    with zafka.Admin(broker.bootstrap_servers) as admin, Members(broker.bootstrap_servers, group, **protocol) as members:
        admin.create_topic(topic, partitions=2)
        members.join(metadata_max_age=0.3).subscribe(topic)
        members.join(metadata_max_age=0.3).subscribe(topic)
        members.poll_until(lambda: members.shares() == [1, 1])
        admin.create_partitions(topic, 4)
        members.poll_until(lambda: members.shares() == [2, 2])
        events = [event for events in members.events.values() for event in events]
        assert any(f"topics changed: {topic} has 4 partitions now" in event.why for event in events)


CHILD = """
import json, sys, zafka
with zafka.Consumer("orders", bootstrap_servers=sys.argv[1], group_id=sys.argv[2], auto_offset_reset="earliest",
                    enable_auto_commit=False, **json.loads(sys.argv[3])) as consumer:
    while True:
        consumer.poll(0.05, max_records=1)
        print(len(consumer.assignment()), flush=True)
"""


@pytest.mark.parametrize(
    ("child_has", "others_have"), [({"session_timeout": 1.5, "heartbeat_interval": 0.2}, {"session_timeout": 3.0}),
                                   (CONSUMER, CONSUMER)], ids=["classic", "consumer"])
def test_the_others_get_what_a_killed_member_had(
    broker: zafka.Broker, group: str, child_has: dict[str, Any], others_have: dict[str, Any]
) -> None:
    session_of(broker, group, 1500)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, broker.bootstrap_servers, group, json.dumps(child_has)], stdout=subprocess.PIPE,
        text=True)
    assert child.stdout is not None
    try:
        with Members(broker.bootstrap_servers, group, **others_have) as members:
            members.join()
            members.poll_until(lambda: members.shares() == [3])
            while child.stdout.readline() != "3\n":
                members.poll()
            os.kill(child.pid, 9)
            members.poll_until(members.is_shared)
            members.poll_until(lambda: set(members.read) == ALL)
            members.check_read()
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@BOTH
def test_members_go_on_when_their_coordinator_is_killed(
    door: str, broker: zafka.Broker, group: str, protocol: dict[str, Any]
) -> None:
    with Members(door, group, **protocol) as members:
        members.join()
        members.join()
        members.poll_until(members.is_shared)
        before = [consumer.assignment() for consumer in members.consumers]
        for _ in range(3):
            broker.kill("partition __consumer_offsets-*")
            read = len(members.read)
            members.poll_until(lambda read=read: len(members.read) >= read + 20)  # type: ignore[misc]
        assert [consumer.assignment() for consumer in members.consumers] == before  # without a rebalance
        members.poll_until(lambda: set(members.read) == ALL)
        members.check_read()


@pytest.mark.parametrize("way", [
    {"partition_assignment_strategy": "range"}, {"partition_assignment_strategy": "cooperative-sticky"}, CONSUMER],
    ids=lambda way: "-".join(way.values()))
def test_coming_and_going_while_coordinators_and_brokers_are_killed(
    broker: zafka.Broker, group: str, way: dict[str, Any]
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    choice = random.Random(seed)
    with Members(broker.bootstrap_servers, group, **way) as members:
        watcher = zafka.Consumer(**settings(broker.bootstrap_servers, group, enable_auto_commit=False))
        all_partitions = [zafka.TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
        before: dict[zafka.TopicPartition, int | None] = {}
        try:
            for _ in range(8):
                if len(members.consumers) < 3 and choice.random() < 0.7:
                    members.join()
                elif len(members.consumers) > 1:
                    members.leave(choice.choice(members.consumers))
                broker.kill(choice.choice(["partition __consumer_offsets-*", "partition __consumer_offsets-*", "broker 1"]))
                for _ in range(choice.randrange(10)):
                    members.poll()
                now = watcher.committed(all_partitions)
                assert all((now[where] or 0) >= (offset or 0) for where, offset in before.items()), (before, now)
                before = now
        finally:
            watcher.close()
        members.poll_until(members.is_shared)
        members.poll_until(lambda: set(members.read) == ALL)
        members.check_read()


def test_confluent_kafka_python_and_ours_share_a_group(broker: zafka.Broker, group: str) -> None:
    theirs = confluent_kafka.Consumer({
        "bootstrap.servers": broker.bootstrap_servers, "group.id": group, "auto.offset.reset": "earliest",
        "session.timeout.ms": 6000, "heartbeat.interval.ms": 200, "enable.auto.commit": False,
        "partition.assignment.strategy": "range"})
    python = kafka.KafkaConsumer(
        TOPIC, bootstrap_servers=broker.bootstrap_servers, group_id=group, auto_offset_reset="earliest",
        enable_auto_commit=False, session_timeout_ms=6000, heartbeat_interval_ms=200)
    theirs.subscribe([TOPIC])
    read: list[tuple[int, int]] = []

    def poll_theirs() -> None:
        message = theirs.poll(0.01)
        if message is not None and message.error() is None:
            read.append((message.partition(), int(message.value())))
            theirs.commit(message, asynchronous=False)
        for where, records in python.poll(20, max_records=5).items():
            read.extend((where.partition, int(record.value)) for record in records)
            python.commit()

    try:
        with Members(broker.bootstrap_servers, group) as members:
            ours = members.join()

            def shares() -> list[int]:
                poll_theirs()
                return [len(theirs.assignment()), len(python.assignment()), len(ours.assignment())]

            members.poll_until(lambda: shares() == [2, 2, 2])
            owned = [
                {each.partition for each in assigned}
                for assigned in (theirs.assignment(), python.assignment(), ours.assignment())]
            assert set().union(*owned) == set(range(PARTITIONS))
            members.poll_until(lambda: shares() is not None and {*read, *members.read} == ALL)
            theirs.close()
            python.close()
            members.poll_until(lambda: len(ours.assignment()) == PARTITIONS)
            assert set(ours.committed().values()) == {RECORDS}
    finally:
        theirs.close()
        python.close()


def test_confluent_and_ours_share_a_group_cooperatively(broker: zafka.Broker, group: str) -> None:
    theirs = confluent_kafka.Consumer({
        "bootstrap.servers": broker.bootstrap_servers, "group.id": group, "auto.offset.reset": "earliest",
        "session.timeout.ms": 6000, "heartbeat.interval.ms": 200, "partition.assignment.strategy": "cooperative-sticky"})
    theirs.subscribe([TOPIC])
    try:
        with Members(broker.bootstrap_servers, group, partition_assignment_strategy="cooperative-sticky") as members:
            members.join()

            def shares() -> list[int]:
                theirs.poll(0.01)
                return [len(theirs.assignment()), *members.shares()]

            members.poll_until(lambda: shares() == [3, 3])
            members.join()
            members.poll_until(lambda: shares() == [2, 2, 2])
    finally:
        theirs.close()


@pytest.mark.parametrize("way", [{"partition_assignment_strategy": "cooperative-sticky"}, CONSUMER], ids=["classic", "consumer"])
def test_async_members_share_and_commit(broker: zafka.Broker, group: str, way: dict[str, Any]) -> None:
    async def run() -> None:
        config = settings(broker.zmq_bootstrap_servers, group, **way)
        read: list[tuple[int, int]] = []
        async with zafka.AsyncConsumer(TOPIC, **config) as first, zafka.AsyncConsumer(TOPIC, **config) as second:
            async with asyncio.timeout(TIMEOUT_S):
                while set(read) != ALL or not len(first.assignment()) == len(second.assignment()) == 3:
                    for consumer in (first, second):
                        records = await consumer.poll(0.02, max_records=20)
                        read += [(record.partition, int(record.value or b"")) for record in records]
            assert len(read) == len(ALL)
            await first.commit()
            await first.commit({next(iter(first.assignment())): RECORDS}, wait=False)
            assert set((await first.committed()).values()) == {RECORDS}
        async with zafka.AsyncAdmin(broker.bootstrap_servers) as admin:
            assert (await admin.describe_groups(group))[0].state == "Empty"
            assert set((await admin.list_group_offsets(group)).values()) == {RECORDS}
            assert group in [each.group_id for each in await admin.list_groups()]
            await admin.alter_group_offsets(group, {(TOPIC, 0): 1})
            await admin.delete_groups(group)

    asyncio.run(run())


@BOTH
def test_cancelled_polls_lose_nothing_while_the_group_shares_anew(
    broker: zafka.Broker, group: str, protocol: dict[str, Any]
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    choice = random.Random(seed)

    async def run() -> None:
        read: list[tuple[int, int]] = []
        config = settings(broker.bootstrap_servers, group, **protocol)
        async with zafka.AsyncConsumer(TOPIC, **config) as first, asyncio.timeout(TIMEOUT_S):
            async with zafka.AsyncConsumer(TOPIC, **config) as second:
                while len(first.assignment()) != 3 or len(second.assignment()) != 3:
                    for consumer in (first, second):
                        poll = asyncio.ensure_future(consumer.poll(0.1, max_records=3))
                        await asyncio.wait([poll], timeout=choice.uniform(0.0, 0.01))
                        if not poll.done():
                            poll.cancel()
                            await asyncio.wait([poll])
                        if not poll.cancelled():
                            read += [(record.partition, int(record.value or b"")) for record in poll.result()]
            while len(read) < len(ALL):
                read += [(record.partition, int(record.value or b"")) for record in await first.poll(0.1)]
        assert sorted(read) == sorted(ALL)

    asyncio.run(run())


def test_groups_on_the_command_line(
    broker: zafka.Broker, group: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def says(*arguments: str) -> bytes:
        capfdbinary.readouterr()
        code = main([*arguments, "-b", broker.bootstrap_servers])
        out, err = capfdbinary.readouterr()
        assert code == 0, err
        return out

    assert len(says("consume", TOPIC, "-G", group, "-e").split()) == len(ALL)
    assert group in says("group", "list").decode()
    described = json.loads(says("group", "describe", group, "--format", "json"))[0]
    assert described["state"] == "Empty"
    assert [(each["committed"], each["lag"]) for each in described["partitions"]] == [(RECORDS, 0)] * PARTITIONS
    assert says("group", "seek", group, "--to", "10", "--dry-run").split()[-1] == b"10"
    assert says("consume", TOPIC, "-G", group, "-e") == b""
    says("group", "seek", group, "--to", "10")
    assert len(says("consume", TOPIC, "-G", group, "-e").split()) == PARTITIONS * (RECORDS - 10)
    for where, offset in (("earliest", 0), ("latest", RECORDS), ("2001-01-01T00:00", 0), ("2100-01-01T00:00+00:00", RECORDS)):
        told = json.loads(says("group", "seek", group, TOPIC, "--to", where, "--format", "json"))
        assert {each["after"] for each in told} == {offset}
    with zafka.Consumer(TOPIC, **settings(broker.bootstrap_servers, group)) as member:
        member.poll(1.0)
        while not member.assignment():
            member.poll(0.1)
        owner = json.loads(says("group", "describe", group, "--format", "json"))[0]["members"][0]
        assert (owner["client"], owner["partitions"]) == ("zafka-consumer", PARTITIONS)
        for verb in (("seek", group, "--to", "0"), ("delete", group)):
            assert main(["group", *verb, "-b", broker.bootstrap_servers]) == 1
            assert b"it has members" in capfdbinary.readouterr().err
    says("group", "delete", group, "--topic", "another")
    assert json.loads(says("group", "describe", group, "--format", "json"))[0]["partitions"]
    says("group", "delete", group, "--topic", TOPIC)
    assert json.loads(says("group", "describe", group, "--format", "json"))[0]["partitions"] == []
    says("group", "seek", group, TOPIC, "--to", "1066-10-14")
    with fault(broker, "CONSUMER_GROUP_DESCRIBE", "GROUP_ID_NOT_FOUND"), fault(broker, "DESCRIBE_GROUPS", "GROUP_ID_NOT_FOUND"):
        assert says("group", "describe") == b""  # as if all were gone since they were listed
        assert f"WARNING  group {group}: group '{group}' was not described: there is no such group" in says("doctor").decode()
    says("group", "delete", group)
    assert group not in says("group", "list").decode()


def test_a_group_of_the_newer_protocol_is_described_too(broker: zafka.Broker) -> None:
    """By a request of its own: DescribeGroups knows classic groups only."""
    topic, group = f"newer-{os.urandom(4).hex()}", f"kip-{os.urandom(4).hex()}"
    with zafka.Admin(broker.zmq_bootstrap_servers) as admin:
        admin.create_topic(topic, 3)
        member = confluent_kafka.Consumer({
            "bootstrap.servers": broker.bootstrap_servers, "group.id": group, "group.protocol": "consumer"})
        assigned: list[int] = []
        member.subscribe([topic], on_assign=lambda _, parts: assigned.extend(part.partition for part in parts))
        end_s = time.monotonic() + 60
        while len(assigned) < 3 and time.monotonic() < end_s:
            member.poll(0.1)
        (info,) = admin.describe_groups(group)
        (only,) = info.members
        assert only.assignment == {(topic, 0), (topic, 1), (topic, 2)} and info.protocol == "uniform"
        member.close()
        assert admin.describe_groups(group)[0].state == "Empty"
        with pytest.raises(BrokerRefused, match="GROUP_ID_NOT_FOUND"):
            admin.describe_groups(f"{group}-none")
