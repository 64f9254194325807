"""The server's assignors give every partition to one reader, evenly, and move little: what Kafka's tests of them hold."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

import pytest

from zafka.actors.groups.assignors import ASSIGNORS, Assignment, Reader, assign_range, assign_uniform

Owned = Mapping[str, Iterable[int]]


def reader(topics: str, owns: Owned | None = None, instance_id: str | None = None) -> Reader:
    """Topics have names of one letter here."""
    return Reader(
        frozenset(topic.encode() for topic in topics),
        {topic.encode(): frozenset(has) for topic, has in (owns or {}).items()}, instance_id)


def sizes(**partitions: int) -> dict[bytes, int]:
    return {topic.encode(): count for topic, count in partitions.items()}


def plain(assigned: Mapping[str, Assignment]) -> dict[str, dict[str, list[int]]]:
    return {
        member: {topic.decode(): sorted(has) for topic, has in owns.items()} for member, owns in assigned.items()}


def again(readers: Mapping[str, Reader], assigned: Mapping[str, Assignment]) -> dict[str, Reader]:
    """The same members, who own by now what they were given."""
    return {member: each._replace(owns=assigned[member]) for member, each in readers.items()}


# -- range ---------------------------------------------------------------------------------------


def test_range_gives_neighbours_of_each_topic() -> None:
    assigned = assign_range({"a": reader("xy"), "b": reader("xy")}, sizes(x=3, y=2))
    assert plain(assigned) == {"a": {"x": [0, 1], "y": [0]}, "b": {"x": [2], "y": [1]}}


def test_range_with_more_members_than_partitions() -> None:
    assigned = assign_range({"a": reader("xy"), "b": reader("xy"), "c": reader("xy")}, sizes(x=3, y=2))
    assert plain(assigned) == {"a": {"x": [0], "y": [0]}, "b": {"x": [1], "y": [1]}, "c": {"x": [2]}}


def test_range_with_different_subscriptions() -> None:
    assigned = assign_range({"a": reader("xy"), "b": reader("z"), "c": reader("yz")}, sizes(x=3, y=3, z=2))
    assert plain(assigned) == {"a": {"x": [0, 1, 2], "y": [0, 1]}, "b": {"z": [0]}, "c": {"y": [2], "z": [1]}}


def test_range_goes_by_instance_ids_whatever_the_member_ids() -> None:
    before = {"m1": reader("x", None, "i2"), "m2": reader("x", None, "i1"), "a": reader("x")}
    after = {"z9": reader("x", None, "i2"), "m2": reader("x", None, "i1"), "a": reader("x")}
    assert plain(assign_range(before, sizes(x=3))) == {"m2": {"x": [0]}, "m1": {"x": [1]}, "a": {"x": [2]}}
    assert plain(assign_range(after, sizes(x=3))) == {"m2": {"x": [0]}, "z9": {"x": [1]}, "a": {"x": [2]}}


def test_range_gives_the_same_partitions_of_topics_of_the_same_size_to_one_member() -> None:
    readers = {member: reader("xy", {"x": [member == "a", 4]}) for member in "abc"}
    for owns in plain(assign_range(readers, sizes(x=7, y=7))).values():
        assert owns["x"] == owns["y"]


# -- uniform, all read the same ------------------------------------------------------------------


def test_uniform_from_nothing() -> None:
    assigned = assign_uniform({"a": reader("xy"), "b": reader("xy")}, sizes(x=3, y=2))
    assert sorted(sum(map(len, owns.values())) for owns in assigned.values()) == [2, 3]


def test_uniform_keeps_what_members_have_when_one_joins() -> None:
    readers = {"a": reader("xy", {"x": [0, 2], "y": [0]}), "b": reader("xy", {"x": [1], "y": [1, 2]}), "c": reader("xy")}
    assigned = plain(assign_uniform(readers, sizes(x=3, y=3)))
    assert assigned == {"a": {"x": [0, 2]}, "b": {"x": [1], "y": [1]}, "c": {"y": [0, 2]}}


def test_uniform_gives_what_a_member_had_that_left_to_those_with_room() -> None:
    readers = {"a": reader("xy", {"x": [0], "y": [0]}), "b": reader("xy", {"x": [1], "y": [1]})}
    assigned = plain(assign_uniform(readers, sizes(x=3, y=3)))
    assert assigned == {"a": {"x": [0, 2], "y": [0]}, "b": {"x": [1], "y": [1, 2]}}


def test_uniform_moves_nothing_when_partitions_are_added() -> None:
    readers = {"a": reader("xy", {"x": [0, 2], "y": [0]}), "b": reader("xy", {"x": [1], "y": [1, 2]})}
    assigned = plain(assign_uniform(readers, sizes(x=5, y=5)))
    assert set(assigned["a"]["x"]) >= {0, 2} and 0 in assigned["a"]["y"]
    assert 1 in assigned["b"]["x"] and set(assigned["b"]["y"]) >= {1, 2}


def test_uniform_takes_what_is_not_read_any_more() -> None:
    readers = {"a": reader("y", {"x": [0, 1], "y": [0]}), "b": reader("y", {"x": [2], "y": [1]})}
    assert plain(assign_uniform(readers, sizes(y=2))) == {"a": {"y": [0]}, "b": {"y": [1]}}


def test_a_partition_that_is_gone_from_the_cluster_is_not_given() -> None:
    assert plain(assign_uniform({"a": reader("x", {"x": [0, 7]})}, sizes(x=2))) == {"a": {"x": [0, 1]}}


# -- uniform, they read different topics -----------------------------------------------------------


def test_uniform_with_different_subscriptions() -> None:
    readers = {"a": reader("xy"), "b": reader("z"), "c": reader("yz")}
    assigned = assign_uniform(readers, sizes(x=3, y=3, z=2))
    check(readers, sizes(x=3, y=3, z=2), assigned)
    assert plain(assigned)["a"]["x"] == [0, 1, 2], "nobody else reads it"
    loads = {member: sum(map(len, owns.values())) for member, owns in assigned.items()}
    assert loads["c"] >= 2, "y goes to c before a, who has x"


def test_uniform_evens_out_by_moving_as_few_as_it_must() -> None:
    readers = {"a": reader("xy", {"x": range(6), "y": [0]}), "b": reader("x"), "c": reader("y", {"y": [1, 2]})}
    assigned = plain(assign_uniform(readers, sizes(x=6, y=3)))
    assert assigned["b"] == {"x": [3, 4, 5]}
    assert sum(map(len, assigned["a"].values())) <= 4


# -- all -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ASSIGNORS)
def test_nobody_and_nothing(name: str) -> None:
    assert ASSIGNORS[name]({}, {}) == {}
    assert plain(ASSIGNORS[name]({"a": reader(""), "b": reader("")}, {})) == {"a": {}, "b": {}}


@pytest.mark.parametrize("name", ASSIGNORS)
@pytest.mark.parametrize("seed", range(60))
def test_random_groups_are_served_evenly_and_stay_as_they_are(name: str, seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    readers: dict[str, Reader] = {}
    counts = {topic: rng.randrange(1, 13) for topic in "uvwxyz"}
    alike = rng.random() < 0.5
    mine = "".join(rng.sample("uvwxyz", rng.randrange(1, 7)))
    for step in range(25):
        act = rng.random()
        if act < 0.45 or not readers:
            topics = mine if alike else "".join(rng.sample("uvwxyz", rng.randrange(1, 7)))
            readers[f"m{step}"] = reader(topics)
        elif act < 0.7:
            del readers[rng.choice(list(readers))]
        elif act < 0.85:
            counts[rng.choice("uvwxyz")] += rng.randrange(1, 4)
        elif not alike:
            member = rng.choice(list(readers))
            readers[member] = readers[member]._replace(topics=reader(rng.choice("uvwxyz")).topics)
        if not readers:
            continue
        read = frozenset().union(*(each.topics for each in readers.values()))
        partitions = {topic: count for topic, count in sizes(**counts).items() if topic in read}
        assigned = ASSIGNORS[name](readers, partitions)
        check(readers, partitions, assigned)
        if name == "uniform":
            check_even(readers, partitions, assigned)
        readers = again(readers, assigned)
        assert ASSIGNORS[name](readers, partitions) == assigned, "nothing has changed, and something moves"


def check(readers: Mapping[str, Reader], partitions: Mapping[bytes, int], assigned: Mapping[str, Assignment]) -> None:
    """Every partition has one owner, who reads it."""
    assert assigned.keys() == readers.keys()
    given = [(topic, each) for owns in assigned.values() for topic, has in owns.items() for each in has]
    assert len(given) == len(set(given))
    assert set(given) == {(topic, each) for topic, count in partitions.items() for each in range(count)}
    for member, owns in assigned.items():
        assert owns.keys() <= readers[member].topics
        assert all(owns.values()), "a topic without partitions"


def check_even(readers: Mapping[str, Reader], partitions: Mapping[bytes, int], assigned: Mapping[str, Assignment]) -> None:
    """No partition could move to another reader of its topic and even them out: within one, among those who have any."""
    loads = {member: sum(map(len, owns.values())) for member, owns in assigned.items()}
    for topic in partitions:
        least = min(loads[member] for member, each in readers.items() if topic in each.topics)
        most = max(loads[member] for member, owns in assigned.items() if topic in owns)
        assert most - least <= 1, (topic, loads)
