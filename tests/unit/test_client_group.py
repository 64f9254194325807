"""Members of groups without sockets: their bytes, how they share, and several of them against the real coordinator."""

from __future__ import annotations

import random

import pytest

from zafka.client.assignors import ASSIGNORS, Members
from zafka.client.group_protocol import (
    BadGroupBytes,
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from zafka.client.records import TopicPartition

OWNED = frozenset({TopicPartition("b", 2), TopicPartition("a", 0), TopicPartition("a", 1)})


@pytest.mark.parametrize("sticky", [False, True])
def test_bytes_come_back(sticky: bool) -> None:
    told = Subscription(("a", "b"), OWNED, 7)
    assert decode_subscription(encode_subscription(told, sticky_user_data=sticky), sticky_user_data=sticky) == told
    assert decode_assignment(encode_assignment(OWNED)) == OWNED
    assert decode_assignment(b"") == frozenset()


def test_bytes_are_those_of_kafka() -> None:
    """Written by hand after ConsumerProtocolSubscription.json and ConsumerProtocolAssignment.json."""
    told = encode_subscription(Subscription(("ab",), frozenset({TopicPartition("ab", 3)}), 9))
    assert told.hex(" ", -4).replace(" ", "") == (
        "0002" "00000001" "0002" "6162" "ffffffff" "00000001" "0002" "6162" "00000001" "00000003" "00000009")
    assert encode_assignment([TopicPartition("ab", 3)]).hex() == (
        "0000" "00000001" "0002" "6162" "00000001" "00000003" "ffffffff")
    oldest = bytes.fromhex("0000" "00000001" "0002" "6162" "ffffffff")
    assert decode_subscription(oldest) == Subscription(("ab",))
    newest = bytes.fromhex("0003" "00000001" "0002" "6162" "ffffffff" "00000000" "00000005" "0001" "72" "99")
    assert decode_subscription(newest) == Subscription(("ab",), frozenset(), 5)


def test_damaged_bytes_are_refused() -> None:
    whole = encode_subscription(Subscription(("topic",), OWNED, 1))
    for size in range(len(whole)):
        with pytest.raises(BadGroupBytes):
            decode_subscription(whole[:size])
    with pytest.raises(BadGroupBytes):
        decode_assignment(bytes.fromhex("0000" "7fffffff"))


# -- how they share ----------------------------------------------------------------------------------


def some_group(choice: random.Random) -> tuple[dict[str, Subscription], dict[str, int]]:
    counts = {f"t{number}": choice.randrange(1, 9) for number in range(choice.randrange(1, 4))}
    members = {
        f"m{number}": Subscription(tuple(choice.sample(sorted(counts), choice.randrange(1, len(counts) + 1))))
        for number in range(choice.randrange(1, 6))}
    return members, counts


def with_owned(members: Members, assigned: dict[str, set[TopicPartition]], generation: int) -> dict[str, Subscription]:
    return {
        name: Subscription(member.topics, frozenset(assigned.get(name, ())), generation if name in assigned else -1)
        for name, member in members.items()}


@pytest.mark.parametrize("name", ASSIGNORS)
def test_every_partition_has_one_reader_who_wants_it(name: str) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    choice = random.Random(seed)
    for _ in range(200):
        members, counts = some_group(choice)
        assigned = ASSIGNORS[name].assign(members, counts)
        wanted = {topic for member in members.values() for topic in member.topics}
        given = [where for owned in assigned.values() for where in owned]
        assert sorted(given) == sorted(
            TopicPartition(topic, number) for topic in wanted for number in range(counts[topic]))
        assert all(where.topic in members[member].topics for member, owned in assigned.items() for where in owned)


def test_range_gives_neighbours_and_round_robin_deals() -> None:
    """As the Java classes' documentation has it; c does not read y."""
    members = {"b": Subscription(("x", "y")), "a": Subscription(("x", "y")), "c": Subscription(("x",))}
    counts = {"x": 7, "y": 3}
    assert ASSIGNORS["range"].assign(members, counts) == {
        "a": {("x", 0), ("x", 1), ("x", 2), ("y", 0), ("y", 1)}, "b": {("x", 3), ("x", 4), ("y", 2)},
        "c": {("x", 5), ("x", 6)}}
    assert ASSIGNORS["roundrobin"].assign(members, counts) == {
        "a": {("x", 0), ("x", 3), ("x", 6), ("y", 1)}, "b": {("x", 1), ("x", 4), ("y", 0), ("y", 2)},
        "c": {("x", 2), ("x", 5)}}


@pytest.mark.parametrize("name", ["sticky", "cooperative-sticky"])
def test_sticky_members_keep_what_they_have_and_end_up_even(name: str) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    choice = random.Random(seed)
    for _ in range(100):
        counts = {"t": choice.randrange(1, 20)}
        members: Members = {f"m{number}": Subscription(("t",)) for number in range(choice.randrange(1, 6))}
        before = ASSIGNORS["sticky"].assign(members, counts)
        come = {f"m{number}": Subscription(("t",)) for number in range(choice.randrange(1, 8))}
        after = ASSIGNORS[name].assign(with_owned(come, before, 1), counts)
        for member in before.keys() & come.keys():
            share = -(-counts["t"] // len(come))
            assert len(before[member] & after[member]) >= min(len(before[member]), share - 1)
        if name == "cooperative-sticky":  # who had to give something up joins anew without it
            kept = {member: owned & before.get(member, owned) | owned for member, owned in after.items()}
            given = [where for owned in after.values() for where in owned]
            assert len(given) == len(set(given))
            for taker, owned in after.items():
                assert not any(where in before[giver] for giver in before.keys() & come.keys() - {taker} for where in owned)
            after = ASSIGNORS[name].assign(with_owned(come, kept, 2), counts)
        sizes = sorted(map(len, after.values()))
        assert sizes[-1] - sizes[0] <= 1
        assert sum(sizes) == counts["t"]


def test_of_two_who_claim_a_partition_the_later_generation_has_it() -> None:
    where = TopicPartition("t", 0)
    members = {
        "old": Subscription(("t",), frozenset({where}), 3), "new": Subscription(("t",), frozenset({where}), 4)}
    assert ASSIGNORS["sticky"].assign(members, {"t": 2})["new"] == {where}
