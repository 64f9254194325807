"""Processes of the broker are killed while a client writes or reads: nothing lost, order kept, nothing twice."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from tests.clients.matrix.cases import Bench, Registry, assert_same
from tests.clients.matrix.driver import BEGINNING, Ability, Driver, Settings
from tests.clients.samples import number_of, numbered

PART = 300
COORDINATORS = 4  # partitions of __consumer_offsets, of which one has the group
VICTIMS = {"its partition": "partition {topic}-0", "the broker": "broker 1", "everything": "everything"}

case = Registry()


def write_through(bench: Bench, driver: Driver, topic: str, victim: str, settings: Settings) -> None:
    """Three parts: before the kill, in flight, after it."""
    writer = driver.writer(topic, settings)
    writer.send(numbered(0, PART))
    bench.wait_until_there(topic, 1)
    writer.send(numbered(PART, PART))
    bench.kill(victim.format(topic=topic))
    writer.send(numbered(2 * PART, PART))
    writer.flush()
    writer.close()


def writes_through(name: str, victim: str) -> None:
    @case(f"writes each record once, in order, while {name} is killed", Ability.WRITE, Ability.IDEMPOTENT, Ability.STREAM,
          needs_kills=True)
    def run(bench: Bench, driver: Driver) -> None:
        topic = bench.topic()
        write_through(bench, driver, topic, victim, Settings(idempotent=True))
        assert_same(bench.read(topic, 3 * PART), numbered(0, 3 * PART))
        assert bench.reference.bounds(topic) == (0, 3 * PART)


def reads_through(name: str, victim: str) -> None:
    @case(f"reads on while {name} is killed", Ability.READ, Ability.STREAM, needs_kills=True)
    def run(bench: Bench, driver: Driver) -> None:
        topic = bench.topic()
        bench.write(topic, numbered(0, PART))
        reader = driver.reader(topic, BEGINNING)
        found = reader.read(PART)
        bench.kill(victim.format(topic=topic))
        bench.write(topic, numbered(PART, PART), Settings(idempotent=True))
        found += reader.read(PART)
        reader.close()
        assert_same(found, numbered(0, 2 * PART))


for each, killed in VICTIMS.items():
    writes_through(each, killed)
    if killed != "everything":  # to a reader that is the broker's death, only longer
        reads_through(each, killed)


@case("reads on in a group while its coordinator is killed, and commits", Ability.GROUP, needs_kills=True)
def reads_on_in_a_group(bench: Bench, driver: Driver) -> None:
    topic, group = bench.topic(), bench.fresh_name()
    bench.write(topic, numbered(0, PART))
    with closing(driver.member(topic, group)) as member:
        found = member.read(PART)
        for number in range(COORDINATORS):
            bench.kill(f"partition __consumer_offsets-{number}")
        bench.write(topic, numbered(PART, PART))
        found += member.read(PART)
    assert_same(found, numbered(0, 2 * PART))
    bench.wait(lambda: bench.reference.committed(topic, group) == {0: 2 * PART}, f"{group} never committed {2 * PART}")


@case("loses nothing while the broker is killed, with default settings", Ability.WRITE, Ability.STREAM, Ability.PATIENCE, needs_kills=True)
def defaults(bench: Bench, driver: Driver) -> None:
    """Some clients may write twice then, and out of order: it is what they promise."""
    topic = bench.topic()
    write_through(bench, driver, topic, "broker 1", Settings())
    found = bench.read(topic, bench.reference.bounds(topic)[1])
    assert missing([number_of(one.sample.value) for one in found]) == set()


def missing(numbers: Sequence[int]) -> set[int]:
    return set(range(3 * PART)) - set(numbers)
