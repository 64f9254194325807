"""`zafka doctor` without a cluster: limits, the disk, brokers that cannot be reached, groups on their way."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from zafka.client.addresses import Address
from zafka.client.admin import BrokerInfo, ClusterInfo, GroupInfo, PartitionInfo, TopicInfo
from zafka.runtime import doctor, group_doctor
from zafka.runtime.doctor import check_address, check_broker, check_disk, check_leaders, check_machine
from zafka.runtime.group_doctor import settled, told_coordinator


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def broker(port: int) -> BrokerInfo:
    return BrokerInfo(1, Address("kafka", "127.0.0.1", port), None)


def test_a_broker_is_to_be_reached_where_it_says() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert check_broker(broker(listener.getsockname()[1])).level == "ok"
    refused = check_broker(broker(closed_port()))
    assert refused.level == "problem" and "'advertise' must be an address that clients reach" in refused.text


@pytest.mark.parametrize(("asked", "level"), [(True, "problem"), (False, "warning")])
def test_no_broker_is_a_problem_for_who_named_one(asked: bool, level: str) -> None:
    (found,) = check_address(f"127.0.0.1:{closed_port()}", asked=asked)
    assert (found.level, found.subject) == (level, "cluster")


def test_partitions_without_a_leader_are_a_problem() -> None:
    def topic(*leaders: int) -> TopicInfo:
        return TopicInfo("t", bytes(16), False, tuple(
            PartitionInfo(number, leader, 3, (1,), (1,), ()) for number, leader in enumerate(leaders)))

    assert check_leaders([topic(0, 1)]).level == "ok"
    found = check_leaders([topic(0, -1, 1)])
    assert (found.level, found.text) == ("problem", "1 of 3 partitions have no leader: t-1")


def test_slow_flushes_and_few_files_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for slow_ms, level in ((60_000.0, "ok"), (-1.0, "warning")):
        monkeypatch.setattr(doctor, "FLUSH_SLOW_MS", slow_ms)
        assert check_disk(tmp_path / "not" / "there" / "yet").level == level
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda _: (1024, 2048))
    levels = {found.subject: found.level for found in check_machine(tmp_path)}
    assert levels["open files"] == "warning"


class Asked:
    """What an administrator is told of one group, answer by answer."""

    def __init__(self, coordinator: int, *states: str) -> None:
        self._coordinator = coordinator
        self._states = list(states)

    def coordinator_of(self, group: str) -> int:
        return self._coordinator

    def describe_groups(self, name: str) -> list[GroupInfo]:
        return [GroupInfo(name, self._states.pop(0), "", ())]


def test_clients_are_sent_to_a_broker_of_the_cluster_or_that_is_a_problem() -> None:
    cluster = ClusterInfo("c", 1, (broker(9092),))
    for coordinator, level in ((1, "ok"), (7, "problem")):
        admin: Any = Asked(coordinator)
        assert told_coordinator(admin, cluster, "g").level == level


def test_a_rebalance_that_ends_soon_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_doctor, "LOOK_AGAIN_S", 0.0)
    admin: Any = Asked(1, "PreparingRebalance", "CompletingRebalance", "Stable")
    assert settled(admin, "g").state == "Stable"
