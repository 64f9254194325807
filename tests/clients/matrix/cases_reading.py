"""What clients read and look up: every kind of start, every codec, large things, what is not there."""

from __future__ import annotations

import threading
import time

import pytest

from tests.clients.matrix.cases import Bench, Registry, assert_same, expressible, read
from tests.clients.matrix.cases_writing import LARGER, TEN_MB, UNKNOWN_TOPIC_OR_PARTITION
from tests.clients.matrix.driver import END, LOG_APPEND_TIME, Ability, Driver, Refused, Settings, Start
from tests.clients.matrix.drivers import DRIVERS
from tests.clients.samples import CODECS, FIRST_TIMESTAMP_MS, STEP_MS, Sample, number_of, numbered

LEADER_NOT_AVAILABLE = 5
LONG_WAIT_MS = 40_000

case = Registry()


def stamped(count: int) -> list[Sample]:
    """Text, one second apart."""
    return [
        sample._replace(timestamp_ms=FIRST_TIMESTAMP_MS + number * STEP_MS)
        for number, sample in enumerate(numbered(0, count))]


def reads_what(writer: type[Driver]) -> None:
    needs = () if Ability.BYTES in writer.cannot else (Ability.BYTES,)

    @case(f"reads what {writer.name} wrote", Ability.READ, *needs)
    def run(bench: Bench, driver: Driver) -> None:
        """Byte for byte, with all that both can express."""
        if writer.missing():
            pytest.skip(f"{writer.name}: {writer.missing()}")
        source = next(one for one in bench.drivers if one.name == writer.name)
        topic, wanted = bench.samples_of(source)
        assert_same(read(driver, topic, len(wanted)), wanted)


for each in DRIVERS:
    if Ability.WRITE not in each.cannot:
        reads_what(each)


@case("reads text, keys, headers and nulls", Ability.READ)
def reads_text(bench: Bench, driver: Driver) -> None:
    wanted = [sample for sample in expressible(driver) if driver.expresses(sample)]
    topic = bench.topic()
    bench.write(topic, wanted)
    assert_same(read(driver, topic, len(wanted)), wanted)


@case("reads every codec", Ability.READ)
def reads_codecs(bench: Bench, driver: Driver) -> None:
    topic, count = bench.topic(), 40
    for place, codec in enumerate(CODECS):
        bench.write(topic, numbered(place * count, count, padding=100), Settings(codec=codec, linger_ms=20))
    assert {batch.attributes & 7 for batch in bench.batches(topic)} >= {*range(5)} or bench.broker is None
    assert_same(read(driver, topic, 5 * count), numbered(0, 5 * count, padding=100))


@case("starts at an offset", Ability.READ)
def from_offset(bench: Bench, driver: Driver) -> None:
    topic = bench.topic()
    bench.write(topic, numbered(0, 10))
    assert_same(read(driver, topic, 3, Start("offset", 7)), numbered(7, 3), first_offset=7)


@case("starts at the end, and gets what comes later only", Ability.READ, Ability.SEEK_END)
def from_end(bench: Bench, driver: Driver) -> None:
    topic = bench.topic()
    bench.write(topic, numbered(0, 10))
    reader = driver.reader(topic, END)
    bench.write(topic, numbered(10, 2))
    assert_same(reader.read(2), numbered(10, 2), first_offset=10)
    reader.close()


@case("starts at a time", Ability.READ, Ability.SEEK_TIME)
def from_time(bench: Bench, driver: Driver) -> None:
    topic, wanted = bench.topic(), stamped(10)
    bench.write(topic, wanted)
    found = read(driver, topic, 6, Start("time", FIRST_TIMESTAMP_MS + 3 * STEP_MS + 1))
    assert_same(found, wanted[4:], first_offset=4)


@case("goes where auto.offset.reset says if its offset is out of range", Ability.READ, Ability.RESET)
def out_of_range(bench: Bench, driver: Driver) -> None:
    topic = bench.topic()
    bench.write(topic, numbered(0, 10))
    assert_same(read(driver, topic, 10, Start("offset", 1000)), numbered(0, 10))


@case("is told first and end offset", Ability.LOOK_UP)
def bounds(bench: Bench, driver: Driver) -> None:
    topic = bench.topic()
    assert driver.bounds(topic) == (0, 0)
    bench.write(topic, numbered(0, 10))
    assert driver.bounds(topic) == (0, 10)


@case("is told the offset of a time", Ability.LOOK_UP)
def offset_at(bench: Bench, driver: Driver) -> None:
    topic = bench.topic()
    bench.write(topic, stamped(10))
    for number in (0, 3, 9):
        assert driver.offset_at(topic, FIRST_TIMESTAMP_MS + number * STEP_MS) == number
        assert driver.offset_at(topic, FIRST_TIMESTAMP_MS + number * STEP_MS - 1) == number
    assert driver.offset_at(topic, FIRST_TIMESTAMP_MS + 10 * STEP_MS) is None


@case("is told how many partitions there are", Ability.LOOK_UP)
def partition_count(bench: Bench, driver: Driver) -> None:
    assert driver.partitions(bench.topic(7)) == 7


@case("is told LogAppendTime", Ability.READ, Ability.TIME_TYPE)
def told_log_append_time(bench: Bench, driver: Driver) -> None:
    topic = bench.topic(message_timestamp_type="LogAppendTime")
    bench.write(topic, numbered(0, 3))
    assert {one.timestamp_type for one in read(driver, topic, 3)} == {LOG_APPEND_TIME}


@case("reads 50 partitions at once", Ability.READ, Ability.PARTITIONS)
def many_partitions(bench: Bench, driver: Driver) -> None:
    """One topic for all clients: 50 processes start once."""
    topic = bench.shared("50 partitions", make_many_partitions)
    found = read(driver, topic, 1000, partitions=range(50))
    assert sorted(number_of(one.sample.value) for one in found) == list(range(1000))
    assert {one.partition for one in found} == {*range(50)}


def make_many_partitions(bench: Bench) -> str:
    topic = bench.topic(50)
    writer = bench.reference.writer(topic, partition=None)
    writer.send(numbered(0, 1000, keys=1000))
    writer.flush()
    writer.close()
    return topic


@case("reads a record of 10 MB with the limits raised", Ability.READ, Ability.LIMITS)
def ten_megabytes(bench: Bench, driver: Driver) -> None:
    topic = bench.shared("10 MB", make_ten_megabytes)
    found = read(driver, topic, 2, settings=Settings(record_bytes_max=LARGER))
    assert [len(one.sample.value or b"") for one in found] == [TEN_MB, 3]


@case("reads a record of 10 MB with the limits as they are: the first batch always comes", Ability.READ)
def ten_megabytes_anyway(bench: Bench, driver: Driver) -> None:
    found = read(driver, bench.shared("10 MB", make_ten_megabytes), 2)
    assert [len(one.sample.value or b"") for one in found] == [TEN_MB, 3]


def make_ten_megabytes(bench: Bench) -> str:
    topic = bench.topic(max_message_bytes=str(LARGER))
    wanted = [Sample(None, b"0123456789abcdef" * (TEN_MB // 16)), Sample(None, b"end")]
    bench.write(topic, wanted, Settings(record_bytes_max=LARGER, codec="none"))
    return topic


@case("reads 20 MB in large fetches", Ability.READ)
def large_fetches(bench: Bench, driver: Driver) -> None:
    topic = bench.shared("20 MB", make_twenty_megabytes)
    found = read(driver, topic, 20_000)
    assert [one.offset for one in found] == list(range(20_000))
    assert [number_of(one.sample.value) for one in found] == list(range(20_000))


def make_twenty_megabytes(bench: Bench) -> str:
    topic = bench.topic()
    bench.write(topic, numbered(0, 20_000, padding=1000))
    return topic


@case("reads with read_committed", Ability.READ, Ability.COMMITTED)
def committed(bench: Bench, driver: Driver) -> None:
    topic = bench.topic()
    bench.write(topic, numbered(0, 10))
    assert_same(read(driver, topic, 10, settings=Settings(committed=True)), numbered(0, 10))


@case("waits at the end, and is told at once of what comes", Ability.READ)
def long_poll(bench: Bench, driver: Driver) -> None:
    """Its fetch would wait for much longer than the record is allowed to take."""
    topic = bench.topic()
    bench.write(topic, numbered(0, 1))
    reader = driver.reader(topic, Start("offset", 0), Settings(wait_ms=LONG_WAIT_MS))
    assert_same(reader.read(1), numbered(0, 1))
    found: list[float] = []

    def wait() -> None:
        assert_same(reader.read(1), numbered(1, 1), first_offset=1)
        found.append(time.monotonic())

    waiting = threading.Thread(target=wait)
    waiting.start()
    bench.write(topic, numbered(1, 1))
    written_s = time.monotonic()
    waiting.join()
    reader.close()
    assert found and found[0] - written_s < LONG_WAIT_MS / 1000 / 2


@case("is told of a topic that is not there", Ability.LOOK_UP, Ability.ERRORS)
def unknown_topic(bench: Bench, driver: Driver) -> None:
    topic = bench.fresh_name()
    try:
        assert driver.partitions(topic) == 0
    except Refused as refused:
        assert refused.code in (UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE)  # or it was created by asking


@case("creates a topic by reading it, where it is told to", Ability.READ, Ability.CREATE_ON_READ)
def creates_on_read(bench: Bench, driver: Driver) -> None:
    topic = bench.fresh_name()
    reader = driver.reader(topic, Start("offset", 0), Settings(create_on_read=True))
    found: list[object] = []
    reading = threading.Thread(target=lambda: found.extend(reader.read(1)))
    reading.start()
    bench.wait_until_created(topic)
    bench.write(topic, numbered(0, 1))
    reading.join()
    reader.close()
    assert len(found) == 1
