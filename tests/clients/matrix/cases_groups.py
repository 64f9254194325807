"""What clients do in groups: share, leave, crash, come back, and go on where the group has committed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

from tests.clients.matrix.cases import PATIENCE_S, Bench, Registry
from tests.clients.matrix.driver import Ability, Driver, Joining, Reader, Received
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


@case("commits when it is told to, and only then", Ability.GROUP, Ability.COMMIT)
def commits(bench: Bench, driver: Driver) -> None:
    topic, group, joining = bench.topic(), bench.fresh_name(), Joining(by_hand=True)
    write_each(bench, topic, [0])
    with closing(driver.member(topic, group, joining)) as member:
        assert places(member.read(EACH)) == written([0], 0)
        member.commit()
        assert bench.reference.committed(topic, group) == {0: EACH}
        write_each(bench, topic, [0], first=EACH)
        assert places(member.read(EACH)) == written([0], EACH)
    assert bench.reference.committed(topic, group) == {0: EACH}
    with closing(driver.member(topic, group, joining)) as member:
        assert places(member.read(EACH)) == written([0], EACH)


def companion(bench: Bench, driver: Driver) -> Driver:
    """Who shares groups with this client: the reference, where they have an assignor in common."""
    return driver if driver.shares_with_itself_only else bench.reference


def share(bench: Bench, driver: Driver, joining: Joining) -> None:
    """With another member, who leaves: then it has everything. No record comes twice.

    It begins at offsets that are committed, so that nobody has to ask where a partition begins: an answer that comes only after a
    rebalance has librdkafka (2.0.2 to 2.16) ask once more, half a second later, and go back there (rd_kafka_toppar_handle_Offset).
    """
    topic, group = bench.topic(2), bench.fresh_name()
    bench.reference.set_group_offsets(topic, group, {0: 0, 1: 0})
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(2))
        one = stack.enter_context(closing(driver.member(topic, group, joining)))
        other = stack.enter_context(closing(companion(bench, driver).member(topic, group, joining)))
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


def keep(bench: Bench, driver: Driver, joining: Joining) -> None:
    """Nothing is committed: who is interrupted begins anew, as the other one does with what it is given."""
    topic, group = bench.topic(2), bench.fresh_name()
    write_each(bench, topic)
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(2))
        one = stack.enter_context(closing(driver.member(topic, group, joining)))
        assert places(one.read(2 * EACH)) == written([0, 1], 0)
        other = stack.enter_context(closing(companion(bench, driver).member(topic, group, joining)))
        ours, theirs = (pool.submit(each.read, EACH) for each in (one, other))
        wait_until_shared(bench, group, [1, 1])
        [moved] = {partition for partition, _ in places(theirs.result(PATIENCE_S))}
        kept = 1 - moved
        write_each(bench, topic, [kept], first=EACH)
        assert places(ours.result(PATIENCE_S)) == written([kept], EACH)
        other.close()
        rest = pool.submit(one.read, 2 * EACH)
        wait_until_shared(bench, group, [2])
        write_each(bench, topic, [kept], first=2 * EACH)
        assert places(rest.result(PATIENCE_S)) == sorted(written([moved], 0) + written([kept], 2 * EACH))
    assert bench.reference.committed(topic, group) == {}


def crash(bench: Bench, driver: Driver, joining: Joining) -> None:
    """One of two is killed: the other one goes on where that had committed, and nothing else comes twice."""
    topic, group = bench.topic(2), bench.fresh_name()
    if joining.protocol == "consumer":
        bench.shorten_sessions(group)
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(2))
        killed = stack.enter_context(closing(driver.member_apart(topic, group, joining)))
        other = stack.enter_context(closing(driver.member(topic, group, Joining(joining.protocol))))
        theirs, ours = (pool.submit(each.read, EACH) for each in (killed, other))
        wait_until_shared(bench, group, [1, 1])
        write_each(bench, topic)
        [lost] = {partition for partition, _ in places(theirs.result(PATIENCE_S))}
        kept = 1 - lost
        assert places(ours.result(PATIENCE_S)) == written([kept], 0)
        if joining.by_hand:
            killed.commit()
        write_each(bench, topic, [lost], first=EACH)
        assert places(killed.read(EACH)) == written([lost], EACH)
        killed.crash()
        committed = bench.reference.committed(topic, group).get(lost, 0)
        assert committed == EACH or not joining.by_hand
        again = other.read(2 * EACH - committed)
        assert places(again) == [(lost, offset) for offset in range(committed, 2 * EACH)]
        assert bench.reference.shares(group) == [2]
        write_each(bench, topic, [lost], first=2 * EACH)
        write_each(bench, topic, [kept], first=EACH)
        assert places(other.read(2 * EACH)) == sorted(written([lost], 2 * EACH) + written([kept], EACH))


@case("shares a group with another member, and takes over when that leaves", Ability.GROUP)
def shares(bench: Bench, driver: Driver) -> None:
    share(bench, driver, Joining())


@case("the same in a KIP-848 group", Ability.GROUP, Ability.KIP_848)
def shares_by_kip_848(bench: Bench, driver: Driver) -> None:
    share(bench, driver, Joining("consumer"))


@case("goes on with what it keeps while another member comes and goes", Ability.GROUP, Ability.COOPERATIVE)
def keeps(bench: Bench, driver: Driver) -> None:
    keep(bench, driver, Joining(cooperative=True, by_hand=True))


@case("goes on with what it keeps in a KIP-848 group", Ability.GROUP, Ability.KIP_848)
def keeps_by_kip_848(bench: Bench, driver: Driver) -> None:
    keep(bench, driver, Joining("consumer", by_hand=True))


@case("takes over from a member that crashed, where that had committed", Ability.GROUP, takes_seconds=True)
def takes_over(bench: Bench, driver: Driver) -> None:
    crash(bench, driver, Joining(session_ms=bench.session_ms, by_hand=Ability.COMMIT not in driver.cannot))


@case("takes over from a member that crashed in a KIP-848 group", Ability.GROUP, Ability.KIP_848, takes_seconds=True)
def takes_over_by_kip_848(bench: Bench, driver: Driver) -> None:
    crash(bench, driver, Joining("consumer", by_hand=Ability.COMMIT not in driver.cannot))


@case("keeps its partition while it restarts as a static member", Ability.GROUP, Ability.STATIC)
def restarts(bench: Bench, driver: Driver) -> None:
    topic, group = bench.topic(2), bench.fresh_name()

    def begin(stack: ExitStack) -> Reader:
        return stack.enter_context(closing(driver.member(topic, group, Joining(instance="one"))))

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
