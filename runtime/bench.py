"""What `zafka bench` measures, with our own client, at any broker: throughput and latency of one topic.

Owns: a topic of its own, which it deletes in the end however it ends; the client's errors go through, with a note of a
topic that could not be deleted then. Of a load it owns the arithmetic: rates, percentiles, when the next record is due.
Invariant: what is reported was acknowledged (with acks=0: sent) or read, to the last record; nothing is estimated.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from zafka.client.admin import Admin
from zafka.client.consumer import Consumer
from zafka.client.errors import ClientClosed, RequestTimedOut, UnknownTopic, ZafkaError
from zafka.client.producer import Producer

if TYPE_CHECKING:
    from zafka.client.batches import Delivery

CHUNK = 1000
READ_RECORDS = 5000
IDLE_S = 30.0  # a reader that gets nothing for so long gives up
LEAVE_S = 2.0  # after an error or Ctrl-C the topic is deleted within this time, or left
SETTLING_S = 1.0  # of a latency measurement: connections open, code warms up; not counted
SENT = struct.Struct(">d")
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}

Progress = Callable[[int, int], None]  # done, total


class Load(Struct, frozen=True, kw_only=True):
    """What is sent. size_bytes: of each value. rate_per_s: records; 0: as fast as it goes."""

    records: int
    size_bytes: int
    partitions: int
    rate_per_s: float = 0.0
    compression: str = "none"
    acks: str = "all"
    config: dict[str, str] = {}


class Outcome(Struct, kw_only=True):
    """What was measured. latency_ms: name of a percentile to milliseconds."""

    measurement: str
    address: str
    records: int
    size_bytes: int
    partitions: int
    acks: str
    compression: str
    seconds: float
    records_per_s: float
    mb_per_s: float
    latency_ms: dict[str, float] | None = None


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed (nearest rank)."""
    assert ordered and 0 < share <= 1
    rank = int(-(-len(ordered) * share // 1))  # rounded up
    return ordered[max(1, rank) - 1]


def percentiles(taken_s: Sequence[float]) -> dict[str, float]:
    """In milliseconds. Empty if nothing was taken."""
    ordered = sorted(taken_s)
    return {name: percentile(ordered, share) * 1e3 for name, share in PERCENTILES.items()} if ordered else {}


def value_of(size_bytes: int) -> bytes:
    """Bytes that compress about as text does: half of them random."""
    half = os.urandom((size_bytes + 1) // 2)
    return (half + b"zafka " * (size_bytes // 6 + 1))[:size_bytes]


@contextmanager
def own_topic(address: str, load: Load) -> Iterator[str]:
    name = f"zafka-bench-{os.urandom(4).hex()}"
    with Admin(address) as admin:
        try:
            admin.create_topic(name, load.partitions, config=load.config)
            yield name
        except BaseException as error:
            if (left := leave_topic(address, name)) is not None:
                error.add_note(f"topic {name} may be left: {left}")
            raise
        admin.delete_topics(name)


def leave_topic(address: str, name: str) -> str | None:
    """Delete a topic without patience: the broker may be what went wrong. Returns why it was not deleted."""
    try:
        with Admin(address, bootstrap_timeout=LEAVE_S, api_timeout=LEAVE_S) as admin:
            admin.delete_topics(name)
    except UnknownTopic:
        pass  # it was not even created
    except ZafkaError as error:
        return str(error)
    except KeyboardInterrupt:
        return "interrupted again"
    return None


def paced(count: int, rate_per_s: float) -> Iterator[int]:
    """0 to count - 1, each when it is due. What is late comes at once: a slow broker gets no smaller load."""
    started_s = time.perf_counter()
    for number in range(count):
        wait_s = started_s + number / rate_per_s - time.perf_counter()
        if wait_s > 0:
            time.sleep(wait_s)
        yield number


def send_all(address: str, topic: str, load: Load, progress: Progress) -> float:
    """Send all records; returns the seconds until the last was acknowledged."""
    value = value_of(load.size_bytes)
    chunk = CHUNK if not load.rate_per_s else max(1, min(CHUNK, int(load.rate_per_s / 100)))
    steps = -(-load.records // chunk)
    with producer_of(address, load, linger_ms=5) as producer:
        producer.partitions_for(topic)
        started_s = time.perf_counter()
        for number in paced(steps, load.rate_per_s / chunk) if load.rate_per_s else range(steps):
            producer.send_many(topic, [value] * min(chunk, load.records - number * chunk))
            progress(min(load.records, (number + 1) * chunk), load.records)
        producer.flush()
        return time.perf_counter() - started_s


@contextmanager
def producer_of(address: str, load: Load, *, linger_ms: float) -> Iterator[Producer]:
    """A producer that, if it fails or is interrupted, waits for none of what it has sent."""
    acks: Any = load.acks if load.acks == "all" else int(load.acks)
    producer = Producer(address, acks=acks, linger_ms=linger_ms, compression_type=load.compression,
                        max_request_size=max(1024 * 1024, load.size_bytes + 1000))
    try:
        yield producer
    except BaseException:
        with suppress(ZafkaError):
            producer.close(timeout=0)
        raise
    producer.close()


def outcome(measurement: str, address: str, load: Load, seconds: float, *, records: int = 0) -> Outcome:
    records = records or load.records
    return Outcome(
        measurement=measurement, address=address, records=records, size_bytes=load.size_bytes,
        partitions=load.partitions, acks=load.acks, compression=load.compression, seconds=seconds,
        records_per_s=records / seconds, mb_per_s=records * load.size_bytes / seconds / 1e6)


def produce(address: str, load: Load, progress: Progress) -> Outcome:
    """From the first `send_many` to the last acknowledgement."""
    with own_topic(address, load) as topic:
        return outcome("produce", address, load, send_all(address, topic, load, progress))


def consume(address: str, load: Load, progress: Progress) -> Outcome:
    """Records are written first, then read from the beginning: from the first that comes to the last."""
    with own_topic(address, load) as topic:
        send_all(address, topic, load, lambda done, total: None)
        with Consumer(topic, bootstrap_servers=address, auto_offset_reset="earliest") as consumer:
            started_s, seen = 0.0, 0
            for batch in consumer.batches(max_records=READ_RECORDS, timeout=IDLE_S):
                started_s = started_s or time.perf_counter()
                seen += len(batch)
                progress(seen, load.records)
                if seen >= load.records:
                    break
            seconds = time.perf_counter() - started_s
    _check_all(seen, load.records)
    return outcome("consume", address, load, seconds)


def latency(address: str, load: Load, progress: Progress) -> Outcome:
    """From `send` to the acknowledgement of each record, at a rate, without lingering."""
    value = value_of(load.size_bytes)
    taken_s: list[float] = []
    failed: list[BaseException] = []

    def acknowledged(sent_s: float, delivery: Delivery) -> None:
        error = delivery.exception()
        if error is not None:
            failed.append(error)
        taken_s.append(time.perf_counter() - sent_s)

    settling = int(load.rate_per_s * SETTLING_S)
    with own_topic(address, load) as topic, producer_of(address, load, linger_ms=0) as producer:
        producer.partitions_for(topic)
        started_s = time.perf_counter()
        for number in paced(settling + load.records, load.rate_per_s):
            sent_s = time.perf_counter()
            delivery = producer.send(topic, value, partition=number % load.partitions)
            delivery.add_done_callback(partial(acknowledged, sent_s))
            progress(number + 1, settling + load.records)
        producer.flush()
        seconds = time.perf_counter() - started_s
    if failed:
        raise failed[0]
    return with_latency(outcome("latency", address, load, seconds, records=settling + load.records), taken_s[settling:])


def end_to_end(address: str, load: Load, progress: Progress) -> Outcome:
    """From `send` to the record in the hands of a consumer at the tail, at a rate, without lingering."""
    settling = int(load.rate_per_s * SETTLING_S)
    total = settling + load.records
    filler = value_of(max(0, load.size_bytes - SENT.size))
    taken_s: list[float] = []
    with own_topic(address, load) as topic:
        consumer = Consumer(topic, bootstrap_servers=address, auto_offset_reset="earliest")
        reader = threading.Thread(target=_read_times, args=(consumer, taken_s, total), name="zafka-bench-reader")
        reader.start()
        try:
            with producer_of(address, load, linger_ms=0) as producer:
                started_s = time.perf_counter()
                for number in paced(total, load.rate_per_s):
                    producer.send(topic, SENT.pack(time.perf_counter()) + filler, partition=number % load.partitions)
                    progress(number + 1, total)
                producer.flush()
                reader.join(IDLE_S)
                seconds = time.perf_counter() - started_s
        finally:
            consumer.close()
            reader.join()
    _check_all(len(taken_s), total)
    return with_latency(outcome("end-to-end", address, load, seconds, records=total), taken_s[settling:])


def _read_times(consumer: Consumer, taken_s: list[float], total: int) -> None:
    """Note the age of each record as it comes, until all were seen or the consumer is closed."""
    try:
        while len(taken_s) < total:
            for record in consumer.poll(timeout=1.0):
                assert record.value is not None
                taken_s.append(time.perf_counter() - SENT.unpack_from(record.value)[0])
    except ClientClosed:
        pass


def with_latency(found: Outcome, taken_s: Sequence[float]) -> Outcome:
    found.latency_ms = percentiles(taken_s)
    return found


def _check_all(seen: int, wanted: int) -> None:
    if seen < wanted:
        raise RequestTimedOut(f"{seen} of {wanted} records came; nothing more for {IDLE_S:g} s")
