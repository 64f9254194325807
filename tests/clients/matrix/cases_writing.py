"""What clients write: every setting, every shape of record, and what is refused."""

from __future__ import annotations

import time

import pytest

from tests.clients.matrix.cases import Bench, Registry, assert_same, expressible, write
from tests.clients.matrix.driver import CREATE_TIME, LOG_APPEND_TIME, Ability, Driver, Refused, Settings
from tests.clients.samples import CODECS, Sample, number_of, numbered

TEN_MB = 10 * 1024 * 1024
LARGER = TEN_MB + 1024 * 1024
UNKNOWN_TOPIC_OR_PARTITION, MESSAGE_TOO_LARGE, INVALID_TOPIC, RECORD_LIST_TOO_LARGE = 3, 10, 17, 18
GAVE_UP = (7, None)  # some say only that they did not find it in time
OF_CODEC = {"none": (), "gzip": (Ability.GZIP,), "snappy": (Ability.SNAPPY,), "lz4": (Ability.LZ4,), "zstd": (Ability.ZSTD,)}

case = Registry()


def assert_written(bench: Bench, driver: Driver, settings: Settings, wanted: list[Sample]) -> str:
    """Written to a fresh topic, its offsets told if the client tells any, read by the reference as it was."""
    topic = bench.topic()
    offsets = write(driver, topic, wanted, settings)
    assert offsets in (None, list(range(len(wanted)))) or settings.acks == "0"
    assert_same(bench.read(topic, len(wanted)), wanted)
    return topic


@case("writes with default settings", Ability.WRITE)
def default_settings(bench: Bench, driver: Driver) -> None:
    assert_written(bench, driver, Settings(), expressible(driver))


@case("writes idempotently", Ability.WRITE, Ability.IDEMPOTENT)
def idempotent(bench: Bench, driver: Driver) -> None:
    topic = assert_written(bench, driver, Settings(idempotent=True), numbered(0, 100))
    assert all(batch.producer_id >= 0 for batch in bench.batches(topic))


@case("writes without idempotence", Ability.WRITE, Ability.IDEMPOTENT)
def not_idempotent(bench: Bench, driver: Driver) -> None:
    topic = assert_written(bench, driver, Settings(idempotent=False), numbered(0, 100))
    assert all(batch.producer_id < 0 for batch in bench.batches(topic))


@case("writes with acks=0", Ability.WRITE, Ability.ACKS)
def acks_0(bench: Bench, driver: Driver) -> None:
    assert_written(bench, driver, Settings(acks="0"), numbered(0, 100))


@case("writes with acks=1", Ability.WRITE, Ability.ACKS)
def acks_1(bench: Bench, driver: Driver) -> None:
    assert_written(bench, driver, Settings(acks="1"), numbered(0, 100))


@case("writes with acks=all", Ability.WRITE, Ability.ACKS)
def acks_all(bench: Bench, driver: Driver) -> None:
    assert_written(bench, driver, Settings(acks="all"), numbered(0, 100))


def writes_codec(codec: str) -> None:
    @case(f"writes {codec}" if codec != "none" else "writes uncompressed", Ability.WRITE, *OF_CODEC[codec])
    def run(bench: Bench, driver: Driver) -> None:
        """Every sample, and enough of one kind that compressing pays: some clients send the smaller of the two."""
        wanted = [*expressible(driver), *numbered(0, 50, padding=200)]
        topic = assert_written(bench, driver, Settings(codec=codec, linger_ms=20), wanted)
        assert CODECS.index(codec) in {batch.attributes & 7 for batch in bench.batches(topic)} or bench.broker is None


for each in CODECS:
    writes_codec(each)


@case("writes null and empty keys and values", Ability.WRITE, Ability.NULLS)
def nulls(bench: Bench, driver: Driver) -> None:
    wanted = [
        Sample(key, value) for key in (None, b"", b"k") for value in (None, b"", b"v")
        if driver.expresses(Sample(key, value))]
    assert len(wanted) >= 6
    assert_written(bench, driver, Settings(), wanted)


@case("writes headers: empty, null, the same name twice", Ability.WRITE, Ability.HEADERS)
def headers(bench: Bench, driver: Driver) -> None:
    listed: list[list[tuple[str, bytes | None]]] = [
        [], [("a", b"1")], [("a", b"1"), ("b", b"2")], [("a", b"1"), ("a", b"2")], [("empty", b"")], [("null", None)]]
    wanted = [Sample(b"k", b"v", given) for given in listed if driver.expresses(Sample(b"k", b"v", given))]
    assert len(wanted) >= 3
    assert_written(bench, driver, Settings(), wanted)


@case("writes timestamps of its own", Ability.WRITE, Ability.TIMESTAMPS)
def timestamps(bench: Bench, driver: Driver) -> None:
    """Out of order, too: they are the writer's."""
    wanted = [Sample(b"k", b"v", timestamp_ms=stamp) for stamp in (1_600_000_000_123, 1_500_000_000_000, 1_700_000_000_001)]
    topic = assert_written(bench, driver, Settings(), wanted)
    assert {one.timestamp_type for one in bench.read(topic, 3)} == {CREATE_TIME}


@case("writes to a topic with LogAppendTime", Ability.WRITE)
def log_append_time(bench: Bench, driver: Driver) -> None:
    topic = bench.topic(message_timestamp_type="LogAppendTime")
    before_ms = int(time.time() * 1000)
    write(driver, topic, numbered(0, 3))
    for one in bench.read(topic, 3):
        assert one.timestamp_type == LOG_APPEND_TIME
        assert one.sample.timestamp_ms is not None and before_ms <= one.sample.timestamp_ms <= time.time() * 1000


@case("writes a record of 10 MB with the limits raised", Ability.WRITE, Ability.LIMITS)
def ten_megabytes(bench: Bench, driver: Driver) -> None:
    topic = bench.topic(max_message_bytes=str(LARGER))
    wanted = [Sample(b"large", b"0123456789abcdef" * (TEN_MB // 16)), Sample(b"small", b"behind it")]
    write(driver, topic, wanted, Settings(record_bytes_max=LARGER, codec="none"))
    assert_same(bench.read(topic, 2, Settings(record_bytes_max=LARGER)), wanted)


@case("is refused by the broker what is larger than max.message.bytes", Ability.WRITE, Ability.ERRORS)
def too_large_for_the_topic(bench: Bench, driver: Driver) -> None:
    topic = bench.topic(max_message_bytes="1000")
    with pytest.raises(Refused) as refused:
        write(driver, topic, numbered(0, 1, padding=2000), Settings(codec="none"))
    assert refused.value.code in (MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE)
    write(driver, topic, numbered(0, 1, padding=500))  # and the topic takes what is not
    assert bench.reference.bounds(topic) == (0, 1)


@case("refuses by itself what is larger than its own limit", Ability.WRITE, Ability.LIMITS, Ability.ERRORS)
def too_large_for_the_client(bench: Bench, driver: Driver) -> None:
    topic = bench.topic(max_message_bytes=str(LARGER))
    with pytest.raises(Refused, match=r"(?i)large|size"):
        write(driver, topic, [Sample(None, b"x" * TEN_MB)], Settings(codec="none"))
    assert bench.reference.bounds(topic) == (0, 0)


@case("creates a topic by writing to it", Ability.WRITE, Ability.CREATE_ON_WRITE)
def creates_on_write(bench: Bench, driver: Driver) -> None:
    topic = bench.fresh_name()
    assert write(driver, topic, numbered(0, 3)) in (None, [0, 1, 2])
    assert_same(bench.read(topic, 3), numbered(0, 3))


@case("is refused an invalid topic name", Ability.WRITE, Ability.ERRORS)
def invalid_topic(bench: Bench, driver: Driver) -> None:
    with pytest.raises(Refused) as refused:
        write(driver, "no topic:has such a name", numbered(0, 1), Settings(give_up_ms=2000))
    assert refused.value.code in (INVALID_TOPIC, UNKNOWN_TOPIC_OR_PARTITION, *GAVE_UP)


@case("is refused a topic that is not there, where nothing creates it", Ability.WRITE, Ability.ERRORS)
def unknown_topic(bench: Bench, driver: Driver) -> None:
    topic = bench.fresh_name()
    with bench.where_nothing_is_created(driver) as elsewhere:
        with pytest.raises(Refused) as refused:
            write(elsewhere, topic, numbered(0, 1), Settings(give_up_ms=1000))
        assert refused.value.code in (UNKNOWN_TOPIC_OR_PARTITION, *GAVE_UP)
        assert topic not in elsewhere.topics()


@case("is refused a partition that is not there", Ability.WRITE, Ability.ERRORS, Ability.UNKNOWN_PARTITION)
def unknown_partition(bench: Bench, driver: Driver) -> None:
    topic = bench.topic(2)
    with pytest.raises(Refused) as refused:
        writer = driver.writer(topic, Settings(give_up_ms=2000), partition=7)
        try:
            writer.send(numbered(0, 1))
            writer.flush()
        finally:
            writer.close()
    assert refused.value.code in (UNKNOWN_TOPIC_OR_PARTITION, *GAVE_UP)
    assert bench.reference.partitions(topic) == 2


@case("keeps the order of each key over partitions", Ability.WRITE, Ability.KEYED)
def order_of_keys(bench: Bench, driver: Driver) -> None:
    topic, count, keys = bench.topic(4), 2000, 50
    writer = driver.writer(topic, Settings(idempotent=True if Ability.IDEMPOTENT not in driver.cannot else None), partition=None)
    writer.send(numbered(0, count, keys=keys))
    writer.flush()
    writer.close()
    last: dict[bytes | None, int] = {}
    homes: dict[bytes | None, int] = {}
    for one in bench.read(topic, count, partitions=range(4)):
        number, key = number_of(one.sample.value), one.sample.key
        assert number == last.get(key, number % keys - keys) + keys
        assert homes.setdefault(key, one.partition) == one.partition
        last[key] = number
    assert len(last) == keys and len(set(homes.values())) == 4


@case("leaves a prefix of what it sent if it is gone in the middle", Ability.WRITE, Ability.ABANDON, Ability.STREAM)
def gone_in_the_middle(bench: Bench, driver: Driver) -> None:
    topic = bench.topic()
    writer = driver.writer(topic, Settings(linger_ms=0, idempotent=True))
    writer.send(numbered(0, 1000))
    bench.wait_until_there(topic, 1)
    writer.send(numbered(1000, 1000))
    writer.abandon()
    write(driver, topic, [Sample(b"next", b"writer")])
    left = [one.sample for one in bench.read(topic, bench.reference.bounds(topic)[1])]
    values = [sample.value for sample in left]
    values.remove(b"writer")  # what was in flight may have come after it
    assert values == [b"%d" % number for number in range(len(values))]


@case("creates, lists and deletes topics, which come back empty", Ability.ADMIN)
def topics(bench: Bench, driver: Driver) -> None:
    topic = bench.fresh_name()
    driver.create_topic(topic, 3)
    assert topic in driver.topics() and driver.partitions(topic) == 3
    with pytest.raises(Refused) as refused:
        driver.create_topic(topic, 3)
    assert refused.value.code == 36
    bench.write(topic, numbered(0, 3))
    driver.delete_topic(topic)
    with pytest.raises(Refused) as refused:
        driver.delete_topic(topic)
    assert refused.value.code in (UNKNOWN_TOPIC_OR_PARTITION, None)
    assert topic not in driver.topics()
    driver.create_topic(topic, 1)
    assert bench.write(topic, numbered(0, 1)) == [0]
