"""What admins of clients do: topics, records, configuration, groups and their offsets. The reference sees what came of it."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.clients.matrix.cases import Bench, Registry
from tests.clients.matrix.driver import Ability, ConfigKind, Driver, Group, Refused
from tests.clients.matrix.drivers.confluent import ConfluentReader
from tests.clients.samples import Sample, numbered

OFFSET_OUT_OF_RANGE, MESSAGE_TOO_LARGE, INVALID_PARTITIONS, INVALID_CONFIG = 1, 10, 37, 40
NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND = 68, 69
BROKER = "1"

case = Registry()


def told(refused: pytest.ExceptionInfo[Refused], code: int) -> bool:
    """That code, or words where a client tells no codes."""
    return refused.value.code in (code, None)


def committed(bench: Bench, topic: str, offsets: dict[int, int]) -> str:
    """A group without members that has committed these."""
    group = bench.fresh_name()
    bench.reference.set_group_offsets(topic, group, offsets)
    return group


def joined(bench: Bench, topic: str, group: str) -> ConfluentReader:
    """A member of the reference that has its share."""
    member = bench.reference.member(topic, group)
    bench.wait(lambda: bench.reference.shares(group) != [], f"nobody ever was in {group}")
    return member


@case("adds partitions, which can be written at once", Ability.ADD_PARTITIONS)
def adds_partitions(bench: Bench, driver: Driver) -> None:
    topic = bench.topic(2)
    driver.add_partitions(topic, 5)
    assert bench.reference.partitions(topic) == 5
    writer = bench.reference.writer(topic, partition=4)
    writer.send(numbered(0, 3))
    assert writer.flush() == [0, 1, 2]
    with pytest.raises(Refused) as refused:
        driver.add_partitions(topic, 3)
    assert told(refused, INVALID_PARTITIONS)


@case("deletes records, and their offsets stay", Ability.DELETE_RECORDS)
def deletes_records(bench: Bench, driver: Driver) -> None:
    topic = bench.topic()
    bench.write(topic, numbered(0, 10))
    driver.delete_records(topic, 4)
    assert bench.reference.bounds(topic) == (4, 10)
    assert [one.offset for one in bench.read(topic, 6)] == list(range(4, 10))
    with pytest.raises(Refused) as refused:
        driver.delete_records(topic, 11)
    assert told(refused, OFFSET_OUT_OF_RANGE)
    assert bench.reference.bounds(topic) == (4, 10)


@case("describes the cluster", Ability.CLUSTER)
def describes_the_cluster(bench: Bench, driver: Driver) -> None:
    found, wanted = driver.cluster(), bench.reference.cluster()
    assert found._replace(controller=None) == wanted._replace(controller=None)
    assert found.controller is None or found.controller in wanted.brokers


def alter(bench: Bench, driver: Driver, kind: ConfigKind, name: str, key: str, value: str) -> None:
    """There and back again: everybody is told of each."""
    before = bench.reference.config(kind, name)[key]
    assert before != value
    driver.alter_config(kind, name, {key: value})
    assert driver.config(kind, name)[key] == bench.reference.config(kind, name)[key] == value
    driver.alter_config(kind, name, {key: None})
    assert driver.config(kind, name)[key] == bench.reference.config(kind, name)[key] == before


@case("describes and alters the configuration of a topic", Ability.CONFIG)
def alters_topics(bench: Bench, driver: Driver) -> None:
    topic = bench.topic()
    alter(bench, driver, "topic", topic, "retention.ms", "1234567")
    driver.alter_config("topic", topic, {"max.message.bytes": "1000"})
    with pytest.raises(Refused) as refused:
        bench.write(topic, [Sample(b"k", bytes(2000))])
    assert refused.value.code == MESSAGE_TOO_LARGE
    driver.alter_config("topic", topic, {"max.message.bytes": None})
    assert bench.write(topic, [Sample(b"k", bytes(2000))]) == [0]
    with pytest.raises(Refused) as refused:
        driver.alter_config("topic", topic, {"retention.ms": "long"})
    assert told(refused, INVALID_CONFIG)


@case("describes and alters the configuration of a broker", Ability.CONFIG)
def alters_brokers(bench: Bench, driver: Driver) -> None:
    alter(bench, driver, "broker", BROKER, "log.retention.ms", "7654321")
    with pytest.raises(Refused):
        driver.alter_config("broker", BROKER, {"log.retention.ms": "long"})


@case("lists and describes groups, with members and without", Ability.GROUPS)
def describes_groups(bench: Bench, driver: Driver) -> None:
    topic, group = bench.topic(), bench.fresh_name()
    assert group not in driver.groups()
    with closing(joined(bench, topic, group)):
        assert group in driver.groups()
        assert driver.group(group) == Group("stable", 1)
    bench.wait(lambda: bench.reference.group(group).state == "empty", f"{group} never was empty")
    assert driver.group(group) == Group("empty", 0)


@case("lists the offsets of a group", Ability.GROUP_OFFSETS)
def lists_offsets(bench: Bench, driver: Driver) -> None:
    topic = bench.topic(3)
    group = committed(bench, topic, {0: 3, 2: 7})
    assert driver.group_offsets(topic, group) == {0: 3, 2: 7}


@case("alters the offsets of a group that has no members", Ability.SET_OFFSETS)
def alters_offsets(bench: Bench, driver: Driver) -> None:
    topic = bench.topic(2)
    bench.write(topic, numbered(0, 10))
    group = committed(bench, topic, {0: 1, 1: 0})
    driver.set_group_offsets(topic, group, {0: 6})
    assert bench.reference.committed(topic, group) == {0: 6, 1: 0}
    with closing(joined(bench, topic, group)) as member:
        assert [one.offset for one in member.read(4)] == [6, 7, 8, 9]
        with pytest.raises(Refused):
            driver.set_group_offsets(topic, group, {0: 2})


@case("deletes an offset of a group", Ability.DELETE_OFFSETS)
def deletes_offsets(bench: Bench, driver: Driver) -> None:
    topic = bench.topic(2)
    group = committed(bench, topic, {0: 3, 1: 7})
    driver.delete_group_offsets(topic, group, 0)
    assert bench.reference.committed(topic, group) == {1: 7}


@case("deletes a group, unless it has members", Ability.DELETE_GROUPS)
def deletes_groups(bench: Bench, driver: Driver) -> None:
    topic = bench.topic()
    group = committed(bench, topic, {0: 0})
    with closing(joined(bench, topic, group)):
        with pytest.raises(Refused) as refused:
            driver.delete_group(group)
        assert told(refused, NON_EMPTY_GROUP)
    bench.wait(lambda: bench.reference.group(group).state == "empty", f"{group} never was empty")
    driver.delete_group(group)
    assert group not in bench.reference.groups() and bench.reference.committed(topic, group) == {}
    with pytest.raises(Refused) as refused:
        driver.delete_group(group)
    assert told(refused, GROUP_ID_NOT_FOUND)
