"""What clients do in groups: share, leave, come back, and go on where the group has committed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

from tests.clients.matrix.cases import PATIENCE_S, Bench, Registry
from tests.clients.matrix.driver import Ability, Driver, Protocol, Reader, Received
from tests.clients.samples import number_of, numbered

EACH = 10  # records that each partition gets at a time

case = Registry()


def write_each(bench: Bench, topic: str, partitions: Sequence[int] = (0, 1), *, first: int = 0) -> None:
    for partition in partitions:
        writer = bench.reference.writer(topic, partition=partition)
        writer.send(numbered(first, EACH))
        writer.flush()


def places(records: Sequence[Received]) -> list[tuple[int, int]]:
    """Partition and offset of each, in order; that each is the one that was written there is asserted."""
    assert all(number_of(one.sample.value) == one.offset for one in records)
    return sorted((one.partition, one.offset) for one in records)


def written(partitions: Sequence[int], first: int) -> list[tuple[int, int]]:
    return [(partition, first + number) for partition in partitions for number in range(EACH)]


def wait_until_shared(bench: Bench, group: str, shares: list[int]) -> None:
    bench.wait(lambda: bench.reference.shares(group) == shares, f"{group} was never shared as {shares}")


@case("reads in a group, commits, and goes on where it committed", Ability.GROUP)
def resumes(bench: Bench, driver: Driver) -> None:
    topic, group = bench.topic(), bench.fresh_name()
    for first in (0, EACH):
        write_each(bench, topic, [0], first=first)
        with closing(driver.member(topic, group)) as member:
            assert places(member.read(EACH)) == written([0], first)
        bench.wait(lambda first=first: bench.reference.committed(topic, group) == {0: first + EACH},  # type: ignore[misc]
                   f"{group} never committed {first + EACH}")


def share(bench: Bench, driver: Driver, protocol: Protocol) -> None:
    """With another member, who leaves: then it has everything. No record comes twice."""
    topic, group = bench.topic(2), bench.fresh_name()
    other_driver: Driver = driver if driver.shares_with_itself_only else bench.reference
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(2))
        one = stack.enter_context(closing(driver.member(topic, group, protocol=protocol)))
        other = stack.enter_context(closing(other_driver.member(topic, group, protocol=protocol)))
        read = [pool.submit(each.read, EACH) for each in (one, other)]
        wait_until_shared(bench, group, [1, 1])
        write_each(bench, topic)
        ours, theirs = (places(future.result(PATIENCE_S)) for future in read)
        assert sorted(ours + theirs) == written([0, 1], 0)
        assert len({partition for partition, _ in ours}) == 1
        other.close()
        rest = pool.submit(one.read, 2 * EACH)
        wait_until_shared(bench, group, [2])
        write_each(bench, topic, first=EACH)
        assert places(rest.result(PATIENCE_S)) == written([0, 1], EACH)


@case("shares a group with another member, and takes over when that leaves", Ability.GROUP)
def shares(bench: Bench, driver: Driver) -> None:
    share(bench, driver, "classic")


@case("the same in a KIP-848 group", Ability.GROUP, Ability.KIP_848)
def shares_by_kip_848(bench: Bench, driver: Driver) -> None:
    share(bench, driver, "consumer")


@case("keeps its partition while it restarts as a static member", Ability.GROUP, Ability.STATIC)
def restarts(bench: Bench, driver: Driver) -> None:
    topic, group = bench.topic(2), bench.fresh_name()

    def begin(stack: ExitStack) -> Reader:
        return stack.enter_context(closing(driver.member(topic, group, instance="one")))

    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(2))
        other = stack.enter_context(closing(bench.reference.member(topic, group)))
        theirs = pool.submit(other.read, 2 * EACH)  # of one partition, all the while
        before = begin(stack)
        ours = pool.submit(before.read, EACH)
        wait_until_shared(bench, group, [1, 1])
        write_each(bench, topic)
        [partition] = {partition for partition, _ in places(ours.result(PATIENCE_S))}
        before.close()
        assert bench.reference.shares(group) == [1, 1]
        write_each(bench, topic, first=EACH)
        assert places(begin(stack).read(EACH)) == written([partition], EACH)
        assert places(theirs.result(PATIENCE_S)) == written([1 - partition], 0) + written([1 - partition], EACH)
