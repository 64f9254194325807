"""Our client in KIP-848 groups: beside other clients' members, beside classic ones, and where a broker takes none.

What both protocols have in common is in `test_client_groups.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import confluent_kafka
import pytest

import zafka
from tests.clients.group_members import ALL, CLASSIC, CONSUMER, PARTITIONS, TOPIC, Members
from zafka.client.errors import BrokerRefused, CommitFailed, ConfigError
from zafka.client.group_requests import Coordinators
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.messages.offset_fetch import OffsetFetchRequestGroup

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def broker() -> Iterator[zafka.Broker]:
    with zafka.Broker(topics={TOPIC: PARTITIONS}, defaults={"group.initial.rebalance.delay.ms": 100}) as broker:
        with zafka.Producer(broker.bootstrap_servers) as producer:
            for partition, number in sorted(ALL):
                producer.send(TOPIC, str(number).encode(), partition=partition)
        yield broker


@pytest.fixture
def group() -> str:
    return f"kip-848-{next(NUMBERS)}"


def kind(broker: zafka.Broker, group: str) -> str:
    with zafka.Admin(broker.bootstrap_servers) as admin:
        (listed,) = [each for each in admin.list_groups() if each.group_id == group]
        return listed.kind


def join_plainly(members: Members) -> zafka.Consumer:
    """With nothing said of protocols or times."""
    return members.join(session_timeout=None, heartbeat_interval=None)


def test_members_are_told_why_as_far_as_they_can_know(broker: zafka.Broker, group: str) -> None:
    with Members(broker.bootstrap_servers, group, **CONSUMER) as members:
        first = members.join()
        members.poll_until(members.is_shared)
        second = members.join()
        members.poll_until(members.is_shared)
        members.leave(second)
        members.poll_until(members.is_shared)
        events = members.events[first]
        whys = [event.why for event in events if event.assigned or event.revoked]
        assert whys[0] == "this consumer joined"
        assert whys[1].endswith("a member joined, came back or reads other topics")
        assert whys[-1].endswith("a member left, timed out or gave up what is free now")
        assert not any(event.lost for event in events)
        generations = [event.generation for event in events if event.assigned]
        assert generations == sorted(set(generations))


def test_a_static_member_comes_back_without_a_rebalance_and_has_its_name_alone(broker: zafka.Broker, group: str) -> None:
    with Members(broker.bootstrap_servers, group, **CONSUMER) as members:
        first = members.join(group_instance_id="one")
        second = members.join(group_instance_id="two")
        members.poll_until(members.is_shared)
        owned, events = first.assignment(), len(members.events[second])
        members.leave(first)
        again = members.join(group_instance_id="one")
        members.poll_until(lambda: again.assignment() == owned)
        assert len(members.events[second]) == events
        waits = members.join(group_instance_id="two")
        for _ in range(20):
            members.poll()
        assert not waits.assignment() and len(second.assignment()) == 3
        owned = second.assignment()
        members.leave(second)
        members.poll_until(lambda: waits.assignment() == owned)


def test_a_consumer_is_of_the_newer_protocol_unless_it_says_what_only_the_other_has(broker: zafka.Broker, group: str) -> None:
    with Members(broker.bootstrap_servers, group) as members:
        join_plainly(members)
        members.poll_until(members.is_shared)
        assert kind(broker, group) == "consumer"
    with Members(broker.bootstrap_servers, f"{group}-classic") as members:
        members.join(session_timeout=10.0, heartbeat_interval=None)
        members.poll_until(members.is_shared)
        assert kind(broker, f"{group}-classic") == "classic"


@pytest.mark.parametrize("error", ["UNSUPPORTED_VERSION", "GROUP_ID_NOT_FOUND"])
def test_where_no_such_member_is_taken_one_goes_classic_or_says_why_not(
    broker: zafka.Broker, group: str, error: str
) -> None:
    broker.inject_error("CONSUMER_GROUP_HEARTBEAT", error=error, times=1)
    with Members(broker.bootstrap_servers, group) as members:
        join_plainly(members)
        members.poll_until(members.is_shared)
        assert kind(broker, group) == "classic"
        members.poll_until(lambda: set(members.read) == ALL)
        members.check_read()
    broker.inject_error("CONSUMER_GROUP_HEARTBEAT", error=error, times=1)
    with Members(broker.bootstrap_servers, group, **CONSUMER) as members:
        members.join()
        with pytest.raises(BrokerRefused, match=error):
            members.poll_until(lambda: False)


def test_a_broker_without_such_an_assignor_is_no_reason_to_go_on_differently(broker: zafka.Broker, group: str) -> None:
    broker.inject_error("CONSUMER_GROUP_HEARTBEAT", error="UNSUPPORTED_ASSIGNOR", times=1)
    with Members(broker.bootstrap_servers, group, group_remote_assignor="range") as members:
        with pytest.raises(ConfigError, match="session_timeout"):
            members.join(session_timeout=6.0)
        join_plainly(members)
        with pytest.raises(BrokerRefused, match="UNSUPPORTED_ASSIGNOR"):
            members.poll_until(lambda: False)


@pytest.mark.parametrize("theirs_say", [
    {"group.protocol": "consumer"},
    {"partition.assignment.strategy": "range", "heartbeat.interval.ms": 200}], ids=["consumer", "range"])
def test_confluent_kafka_and_ours_share_a_group(broker: zafka.Broker, group: str, theirs_say: dict[str, Any]) -> None:
    """Each new member of ours joins a group of theirs, of whatever protocol."""
    theirs = confluent_kafka.Consumer({
        "bootstrap.servers": broker.bootstrap_servers, "group.id": group, "auto.offset.reset": "earliest",
        "enable.auto.commit": False, **theirs_say})
    theirs.subscribe([TOPIC])
    read: list[tuple[int, int]] = []

    def poll_theirs() -> int:
        message = theirs.poll(0.02)
        if message is not None and message.error() is None:
            read.append((message.partition() or 0, int(message.value() or b"")))
            theirs.commit(message, asynchronous=False)
        return len(theirs.assignment())

    try:
        with Members(broker.bootstrap_servers, group) as members:
            members.poll_until(lambda: poll_theirs() == PARTITIONS)
            join_plainly(members)
            members.poll_until(lambda: [poll_theirs(), *members.shares()] == [3, 3])
            assert kind(broker, group) == "consumer"
            join_plainly(members)
            members.poll_until(lambda: [poll_theirs(), *members.shares()] == [2, 2, 2])
            members.poll_until(lambda: bool(poll_theirs()) and {*read, *members.read} == ALL)
            theirs.close()
            members.poll_until(members.is_shared)
    finally:
        theirs.close()


def test_members_are_rolled_to_the_other_protocol_and_back(broker: zafka.Broker, group: str) -> None:
    def roll(members: Members, way: dict[str, Any], *expected: str) -> None:
        for kind_now in expected:
            members.leave(members.consumers[0])
            members.join(**way)
            members.poll_until(members.is_shared)
            assert kind(broker, group) == kind_now

    plainly: dict[str, Any] = {"session_timeout": None, "heartbeat_interval": None}
    classic = {**CLASSIC, "partition_assignment_strategy": "cooperative-sticky", "heartbeat_interval": 0.2}
    with Members(broker.bootstrap_servers, group, session_timeout=None, heartbeat_interval=None) as members:
        for _ in range(2):
            members.join(**classic)
        members.poll_until(members.is_shared)
        roll(members, plainly, "consumer", "consumer")
        roll(members, classic, "consumer", "classic")
        members.poll_until(lambda: set(members.read) == ALL)
        members.check_read()


def test_topics_are_found_by_an_expression(broker: zafka.Broker, group: str) -> None:
    """Also such as come later. The broker looks: a client need not know them before."""
    with zafka.Admin(broker.bootstrap_servers) as admin, Members(broker.bootstrap_servers, group, **CONSUMER) as members:
        admin.create_topic(f"{group}-a", partitions=2)
        consumers = [members.join(), members.join(metadata_max_age=0.2)]
        for consumer in consumers:
            consumer.subscribe(pattern=f"{group}-.*")
        members.poll_until(lambda: members.shares() == [1, 1])
        admin.create_topic(f"{group}-b", partitions=4)
        admin.create_topic(f"other-{group}-b", partitions=1)
        members.poll_until(lambda: members.shares() == [3, 3])
        with pytest.raises(ConfigError, match="at least one topic, or a pattern"):
            consumers[0].subscribe(TOPIC, pattern="x")
        consumers[0].subscribe(pattern="(")
        with pytest.raises(BrokerRefused, match="INVALID_REGULAR_EXPRESSION"):
            members.poll_until(lambda: False)
    with Members(broker.bootstrap_servers, group) as members, pytest.raises(ConfigError, match="a pattern is for"):
        members.join().subscribe(pattern="x")


def test_topics_of_one_name_are_told_apart(broker: zafka.Broker, group: str) -> None:
    """One that is deleted and created again is another one, which is read from its beginning."""
    topic = f"{group}-again"

    def write_and_read(members: Members, number: int) -> None:
        with zafka.Producer(broker.bootstrap_servers) as producer:
            producer.send(topic, str(number).encode()).result(30.0)
        members.poll_until(lambda: (0, number) in members.read)

    with zafka.Admin(broker.bootstrap_servers) as admin, Members(broker.bootstrap_servers, group, **CONSUMER) as members:
        admin.create_topic(topic, partitions=1)
        members.join(metadata_max_age=0.2).subscribe(topic)
        write_and_read(members, 1)
        admin.delete_topics(topic)
        admin.create_topic(topic, partitions=1)
        write_and_read(members, 2)


def test_a_member_that_asks_for_offsets_says_who_it_is(
    broker: zafka.Broker, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that one that was put out, and does not know it yet, is refused, and reads nothing."""
    asked: list[OffsetFetchRequestGroup] = []
    ask = Coordinators.ask

    async def noting(self: Coordinators, group_id: str, api_key: ApiKey, request: Any, *rest: Any) -> Any:
        asked.extend(request.groups if api_key is ApiKey.OFFSET_FETCH else ())
        return await ask(self, group_id, api_key, request, *rest)

    monkeypatch.setattr(Coordinators, "ask", noting)
    with Members(broker.bootstrap_servers, group, **CONSUMER) as members:
        members.join()
        members.poll_until(members.is_shared)
        with zafka.Admin(broker.bootstrap_servers) as admin:
            (known,) = admin.describe_groups([group])[0].members
        assert {(each.member_id, each.member_epoch > 0) for each in asked} == {(known.member_id, True)}
    asked.clear()
    with Members(broker.bootstrap_servers, f"{group}-classic", **CLASSIC) as members:
        members.join()
        members.poll_until(members.is_shared)
    assert {(each.member_id, each.member_epoch) for each in asked} == {(None, -1)}


@pytest.mark.parametrize("error", ["STALE_MEMBER_EPOCH", "ILLEGAL_GENERATION", "REBALANCE_IN_PROGRESS"])
def test_who_goes_on_with_its_group_commits_in_its_next_epoch(broker: zafka.Broker, group: str, error: str) -> None:
    """Its commit came with the epoch before; it has the partitions still."""
    with Members(broker.bootstrap_servers, group, **CONSUMER) as members:
        first = members.join()
        members.poll_until(lambda: set(members.read) == ALL)
        refused = broker.inject_error("OFFSET_COMMIT", error=error, times=2)
        first.commit({(TOPIC, 0): 1})
        assert first.committed([(TOPIC, 0)]) == {(TOPIC, 0): 1}
        assert [each["hits"] for each in broker.faults() if each["id"] == refused] == [2]
        broker.inject_error("OFFSET_COMMIT", error="UNKNOWN_MEMBER_ID", times=1)
        with pytest.raises(CommitFailed):
            first.commit({(TOPIC, 0): 0})
