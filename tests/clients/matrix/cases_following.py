"""What members do when what they read changes: offsets that are gone, topics that come, grow, go and come again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest

from tests.clients.matrix.cases import PATIENCE_S, Bench, Registry
from tests.clients.matrix.cases_groups import EACH, places, wait_until_shared, write_each, written
from tests.clients.matrix.driver import Ability, Driver, Joining, Protocol, Received, Refused

BEHIND_THE_END = 1000

case = Registry()


@contextmanager
def following(
    driver: Driver, topic: str, group: str, protocol: Protocol, *, is_pattern: bool = False
) -> Iterator[Callable[[int], Future[list[Received]]]]:
    """A member that reads in a thread of its own, when it is called with how many records."""
    joining = Joining(protocol, follows=True, is_pattern=is_pattern)
    with closing(driver.member(topic, group, joining)) as member, ThreadPoolExecutor(1) as pool:
        yield lambda count: pool.submit(member.read, count)


@case("goes where auto.offset.reset says if what its group committed is deleted, or is behind the end",
      Ability.GROUP, Ability.COMMIT_LESS)
def committed_out_of_range(bench: Bench, driver: Driver) -> None:
    topic, group = bench.topic(2), bench.fresh_name()
    write_each(bench, topic)
    bench.reference.set_group_offsets(topic, group, {0: 2, 1: BEHIND_THE_END})
    bench.reference.delete_records(topic, 5)  # of partition 0
    with closing(driver.member(topic, group)) as member:
        assert places(member.read(2 * EACH - 5)) == written([0], 0)[5:] + written([1], 0)
    bench.wait(lambda: bench.reference.committed(topic, group) == {0: EACH, 1: EACH}, f"{group} never committed the ends")


@case("says so, without auto.offset.reset, of what was not committed or cannot be read, and goes on after a seek",
      Ability.GROUP, Ability.NO_RESET)
def says_so(bench: Bench, driver: Driver) -> None:
    topic = bench.topic()
    write_each(bench, topic, [0])
    for committed in (None, BEHIND_THE_END):
        group = bench.fresh_name()
        if committed is not None:
            bench.reference.set_group_offsets(topic, group, {0: committed})
        with closing(driver.member(topic, group, Joining(reset="none"))) as member:
            with pytest.raises(Refused):
                member.read(1)
            member.seek(topic, 0, 5)
            assert places(member.read(EACH - 5)) == written([0], 0)[5:]


def later(bench: Bench, driver: Driver, protocol: Protocol) -> None:
    """The group is there before its topic."""
    topic, group = bench.fresh_name(), bench.fresh_name()
    with following(driver, topic, group, protocol) as read:
        told = read(2 * EACH)
        bench.reference.make_topic(topic, 2, {})
        write_each(bench, topic)
        assert places(told.result(PATIENCE_S)) == written([0, 1], 0)


def grow(bench: Bench, driver: Driver, protocol: Protocol) -> None:
    topic, group = bench.topic(2), bench.fresh_name()
    with following(driver, topic, group, protocol) as read:
        write_each(bench, topic)
        assert places(read(2 * EACH).result(PATIENCE_S)) == written([0, 1], 0)
        told = read(EACH)
        bench.reference.add_partitions(topic, 3)
        write_each(bench, topic, [2])
        assert places(told.result(PATIENCE_S)) == written([2], 0)


def match(bench: Bench, driver: Driver, protocol: Protocol) -> None:
    """Topics that are there and one that comes; another topic is none of its."""
    one, two, other = names(bench)
    for topic in (one, other):
        bench.reference.make_topic(topic, 1, {})
        write_each(bench, topic, [0])
    with following(driver, f"^{one[:-2]}-.*", bench.fresh_name(), protocol, is_pattern=True) as read:
        assert places(read(EACH).result(PATIENCE_S)) == written([0], 0)
        told = read(2 * EACH)
        bench.reference.make_topic(two, 2, {})
        write_each(bench, two)
        assert places(told.result(PATIENCE_S)) == written([0, 1], 0)


def names(bench: Bench) -> list[str]:
    """Two names that begin alike, and one that does not."""
    name = bench.fresh_name()
    made = [f"{name}-a", f"{name}-b", f"other-{name}"]
    bench.used += made
    return made


@case("reads in a group what comes into being after it has joined", Ability.GROUP, Ability.LATER, takes_seconds=True)
def reads_later(bench: Bench, driver: Driver) -> None:
    later(bench, driver, "classic")


@case("the same as a KIP-848 member", Ability.GROUP, Ability.LATER, Ability.KIP_848, takes_seconds=True)
def reads_later_by_kip_848(bench: Bench, driver: Driver) -> None:
    later(bench, driver, "consumer")


@case("is given partitions that are added to its topic", Ability.GROUP, Ability.FOLLOW, takes_seconds=True)
def grows(bench: Bench, driver: Driver) -> None:
    grow(bench, driver, "classic")


@case("is given partitions that are added in a KIP-848 group", Ability.GROUP, Ability.FOLLOW, Ability.KIP_848, takes_seconds=True)
def grows_by_kip_848(bench: Bench, driver: Driver) -> None:
    grow(bench, driver, "consumer")


@case("goes on in a KIP-848 group with a topic that is deleted and comes again, from its beginning",
      Ability.GROUP, Ability.DELETED, Ability.KIP_848, takes_seconds=True)
def comes_again(bench: Bench, driver: Driver) -> None:
    """What was committed of its namesake went with that. When classic members look is their client's affair."""
    topic, group = bench.topic(2), bench.fresh_name()
    with following(driver, topic, group, "consumer") as read:
        write_each(bench, topic)
        assert places(read(2 * EACH).result(PATIENCE_S)) == written([0, 1], 0)
        told = read(EACH)
        bench.reference.delete_topic(topic)
        wait_until_shared(bench, group, [0])
        bench.reference.make_topic(topic, 1, {})
        write_each(bench, topic, [0])
        assert places(told.result(PATIENCE_S)) == written([0], 0)
    bench.wait(lambda: bench.reference.committed(topic, group) == {0: EACH}, f"{group} never committed {EACH}")


@case("reads by a pattern the topics that are there, and those that come", Ability.GROUP, Ability.PATTERN, takes_seconds=True)
def matches(bench: Bench, driver: Driver) -> None:
    match(bench, driver, "classic")


@case("reads by a pattern that the broker matches, in a KIP-848 group", Ability.GROUP, Ability.KIP_848_PATTERN, Ability.KIP_848,
      takes_seconds=True)
def matches_by_kip_848(bench: Bench, driver: Driver) -> None:
    match(bench, driver, "consumer")
