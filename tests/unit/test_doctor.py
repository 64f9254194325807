"""`zafka doctor` without a cluster: limits, the disk, brokers that cannot be reached, groups on their way."""

from __future__ import annotations

import resource
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

import pytest

from zafka.client.addresses import Address
from zafka.client.admin import BrokerInfo, ClusterInfo, GroupInfo, GroupListing, PartitionInfo, TopicInfo
from zafka.client.errors import BrokerRefused
from zafka.client.records import TopicPartition
from zafka.runtime import doctor, group_doctor
from zafka.runtime.cli import main
from zafka.runtime.doctor import check_address, check_broker, check_disk, check_leaders, check_machine
from zafka.runtime.findings import Finding, Level
from zafka.runtime.group_doctor import check_groups, settled, told_coordinator


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
    for hard, level in ((4095, "warning"), (4096, "ok"), (resource.RLIM_INFINITY, "ok")):
        monkeypatch.setattr(doctor.resource, "getrlimit", lambda _, hard=hard: (1024, hard))
        levels = {found.subject: found.level for found in check_machine(tmp_path)}
        assert levels["open files"] == level, "the soft limit is ours to raise"


@pytest.mark.parametrize(("slow", "level"), [(9, "ok"), (10, "warning")])
def test_the_usual_flush_counts_and_not_the_slowest(slow: int, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times_s = iter([at_s for number in range(20) for at_s in (0.0, 9.0 if number < slow else 0.0)])
    monkeypatch.setattr(doctor.time, "perf_counter", lambda: next(times_s))
    assert check_disk(tmp_path).level == level


def test_a_place_that_cannot_be_written_is_a_problem() -> None:
    found = check_disk(Path("/proc/zafka-data"))
    assert found.level == "problem" and "cannot write in /proc" in found.text


@pytest.mark.parametrize(("levels", "code"), [(("ok", "warning"), 0), (("warning", "problem", "ok"), 1)])
def test_the_exit_code_is_1_if_something_will_not_work(
    levels: tuple[Level, ...], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "check_machine", lambda _: [Finding(level, "disk", "it is there") for level in levels])
    asked = []
    monkeypatch.setattr(doctor, "check_address", lambda address, **more: asked.append(more) or [])
    for arguments in ([], ["-b", "127.0.0.1:9092"], ["-G", "g"]):
        assert main(["doctor", *arguments]) == code
    assert [each["asked"] for each in asked] == [False, True, True]
    assert len(capsys.readouterr().out.splitlines()) == 3 * len(levels)


class Asked:
    """What an administrator, and a consumer, is told: of one group answer by answer, or of some with the state that each has.

    A group whose state is "" is gone when it is looked at.
    """

    def __init__(self, coordinator: int = 1, *states: str, brokers: tuple[BrokerInfo, ...] = (), **groups: str) -> None:
        self._coordinator = coordinator
        self._states = list(states)
        self._brokers = brokers
        self._groups = groups
        self.ends_of: list[TopicPartition] = []

    def __call__(self, *address: str, **options: Any) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *end: object) -> None:
        pass

    def coordinator_of(self, group: str) -> int:
        return self._coordinator

    def list_groups(self) -> list[GroupListing]:
        return [GroupListing(name, state, "", "share" if state == "Shared" else "") for name, state in self._groups.items()]

    def describe_groups(self, name: str) -> list[GroupInfo]:
        if self._groups.get(name) == "":
            raise BrokerRefused(f"describing group {name}", 69)
        return [GroupInfo(name, self._groups.get(name) or self._states.pop(0), "", ())]

    def list_group_offsets(self, name: str) -> dict[TopicPartition, int]:
        return {TopicPartition("there", 0): 5, TopicPartition("gone", 0): 5}

    def topics(self) -> list[str]:
        return ["there"]

    def end_offsets(self, where: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        self.ends_of += where
        return dict.fromkeys(where, 5)

    def describe_cluster(self) -> ClusterInfo:
        return ClusterInfo("c", 1, self._brokers)

    def api_versions(self) -> dict[str, tuple[int, int]]:
        return {}

    def list_topics(self) -> list[str]:
        return []

    def describe_topics(self, names: list[str]) -> list[TopicInfo]:
        return []


@pytest.mark.parametrize(("unreachable", "goes_on"), [(1, True), (2, False)])
def test_who_can_follow_to_one_broker_is_told_the_rest(unreachable: int, goes_on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody, local = broker(closed_port()), BrokerInfo(2, Address("ipc", "/run/zafka", 0), None)
    told: Any = Asked(brokers=(nobody, nobody) if unreachable == 2 else (nobody, local))
    monkeypatch.setattr("zafka.client.admin.Admin", told)
    monkeypatch.setattr("zafka.client.consumer.Consumer", told)
    found = list(check_address("127.0.0.1:9092", asked=True))
    assert sum(each.level == "problem" for each in found) == unreachable
    assert ("topics" in [each.subject for each in found]) == goes_on


@pytest.mark.parametrize(("group", "told_of"), [
    (None, ["group a", "group b", "group c"]), ("c", ["group c", "group c"]), ("share", ["group share", "group share"])])
def test_groups_are_told_of_whatever_became_of_one(group: str | None, told_of: list[str]) -> None:
    """Not of those of other kinds, nor are ends of topics asked for that are gone: that would be an error."""
    asked: Any = Asked(a="Stable", share="Shared", b="", c="Empty")
    found = list(check_groups(asked, asked, ClusterInfo("c", 1, (broker(9092),)), group))
    assert [each.subject for each in found] == told_of
    assert {each.topic for each in asked.ends_of} <= {"there"}


def test_clients_are_sent_to_a_broker_of_the_cluster_or_that_is_a_problem() -> None:
    cluster = ClusterInfo("c", 1, (broker(9092),))
    for coordinator, level in ((1, "ok"), (7, "problem")):
        admin: Any = Asked(coordinator)
        assert told_coordinator(admin, cluster, "g").level == level


def test_a_rebalance_that_ends_soon_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_doctor, "LOOK_AGAIN_S", 0.0)
    admin: Any = Asked(1, "PreparingRebalance", "CompletingRebalance", "Stable")
    assert settled(admin, "g").state == "Stable"
    monkeypatch.setattr(group_doctor, "SETTLES_S", -1.0)
    assert settled(Asked(1, "PreparingRebalance", "Stable"), "g").state == "PreparingRebalance"  # type: ignore[arg-type]
