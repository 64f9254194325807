"""What `zafka doctor` says of groups, from what an administrator is told."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from zafka.client.admin import GroupInfo, GroupMemberInfo
from zafka.client.records import TopicPartition
from zafka.runtime.doctor import told_versions
from zafka.runtime.group_doctor import judge_group


def member(name: str, *partitions: int) -> GroupMemberInfo:
    return GroupMemberInfo(name, None, f"client-{name}", "host", frozenset(TopicPartition("t", each) for each in partitions))


def told(state: str, members: Iterable[GroupMemberInfo] = (), *, committed: tuple[int, ...] = (), end: int = 10, topics: str = "t") -> list[str]:
    where = {TopicPartition("t", index): offset for index, offset in enumerate(committed)}
    ends = dict.fromkeys(where, end) if "t" in topics else {}
    found = list(judge_group(GroupInfo("g", state, "range", tuple(members)), where, ends, set(topics)))
    assert all(each.subject == "group g" for each in found)
    return [f"{each.level} {each.text}" for each in found]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (told("Stable", [member("a", 0)], committed=(8,)), "ok Stable, 1 members, lag 2"),
        (told("Stable", [member("a", 0)], committed=(12, 8)), "ok Stable, 1 members, lag 2"),
        (told("Empty", committed=(10,)), "ok Empty, 0 members, lag 0"),
        (told("Empty", committed=(7, 10, 9)), "warning nobody reads 4 records behind its offsets, in t-0, t-2"),
        (told("Empty", committed=(0, 0, 0, 0, 0)), "t-0, t-1, t-2 and 2 more"),
        (told("Empty", committed=(7,), topics="u"), "warning has committed offsets of topics that do not exist: t"),
        (told("Stable", [member("a", 0)]), "warning has members and no committed offsets"),
        (told("Stable", [member("a", 0), member("b")], committed=(10,)), "1 of 2 members have no partition: client-b"),
        (told("PreparingRebalance", [member("a")], committed=(10,)), "warning in PreparingRebalance for longer than 5 s"),
    ],
)
def test_one_thing_that_is_wrong_is_told_and_nothing_else(found: list[str], words: str) -> None:
    (text,) = found
    assert words in text


def test_of_many_three_are_named() -> None:
    assert [told("Empty", committed=(9,) * count)[0].partition(", in ")[2] for count in (3, 4)] == [
        "t-0, t-1, t-2", "t-0, t-1, t-2 and 1 more"]


def test_protocols_of_groups_are_told_by_their_apis() -> None:
    assert told_versions({"Produce": (0, 13), "Fetch": (4, 18), "JoinGroup": (0, 9)}).text == (
        "3 APIs: Produce 0 to 13, Fetch 4 to 18; groups: classic")
    assert told_versions({}).text.endswith("groups: none")
