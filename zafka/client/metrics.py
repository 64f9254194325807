"""What a client counts: plain integers, written in one place each, read by `metrics()` as a snapshot.

Owns: `Histogram`, and the types that `metrics()` returns. Nothing is counted per record: batches and requests say how
many they carry. Nothing here fails.
"""

from __future__ import annotations

from typing import NamedTuple

from zafka.client.records import TopicPartition

# Buckets grow by a factor of about 1.09, so a percentile is at most that much too high.
_STEPS_PER_DOUBLING = 8
_BUCKETS = 32 * _STEPS_PER_DOUBLING  # up to 2**32 microseconds, more than an hour


class Latency(NamedTuple):
    """Milliseconds. All 0 before anything was measured."""

    p50: float
    p99: float
    p999: float
    max: float


class Histogram:
    """How long something took: counts by microseconds, on a logarithmic scale."""

    __slots__ = ("counts", "total", "us_max")

    def __init__(self) -> None:
        self.counts = [0] * _BUCKETS
        self.total = 0
        self.us_max = 0

    def add(self, seconds: float, count: int = 1) -> None:
        us = max(0, int(seconds * 1e6))
        self.us_max = max(self.us_max, us)
        self.total += count
        self.counts[min(_bucket(us), _BUCKETS - 1)] += count

    def latency(self) -> Latency:
        total = self.total
        if total == 0:
            return Latency(0.0, 0.0, 0.0, 0.0)
        wanted = [total * share // 1000 for share in (500, 990, 999)]
        found: list[float] = []
        seen = 0
        for bucket, count in enumerate(self.counts):
            seen += count
            while len(found) < len(wanted) and seen > min(wanted[len(found)], total - 1):
                found.append(min(_upper_us(bucket), self.us_max) / 1000)
        while len(found) < len(wanted):  # the other thread was adding just now
            found.append(self.us_max / 1000)
        return Latency(found[0], found[1], found[2], self.us_max / 1000)


def _bucket(us: int) -> int:
    """0 to 7 for so many microseconds; then eight for each doubling."""
    if us < _STEPS_PER_DOUBLING:
        return us
    doublings = us.bit_length() - 4
    return (doublings + 1) * _STEPS_PER_DOUBLING + (us >> doublings) - _STEPS_PER_DOUBLING


def _upper_us(bucket: int) -> int:
    """The most microseconds that fall into a bucket."""
    if bucket < _STEPS_PER_DOUBLING:
        return bucket
    doublings, step = divmod(bucket, _STEPS_PER_DOUBLING)
    return ((step + _STEPS_PER_DOUBLING + 1) << (doublings - 1)) - 1


class ProducerMetrics(NamedTuple):
    """A producer since it was made.

    records, bytes, batches: acknowledged; bytes are those of batches before compression.
    records_failed: given up. retries: batches sent once more. requests: Produce requests.
    errors: answers with an error, and connections that ended before an answer.
    connections_lost: connections that ended after they were open. buffered_bytes: not acknowledged yet, now; `buffer_memory`
    bounds them. batches_waiting: not acknowledged yet, now.
    latency: from a batch's first record to its acknowledgement, lingering included; weighed by records.
    """

    records: int
    bytes: int
    batches: int
    records_failed: int
    requests: int
    retries: int
    errors: int
    connections_lost: int
    buffered_bytes: int
    batches_waiting: int
    latency: Latency


class ConsumerMetrics(NamedTuple):
    """A consumer since it was made.

    records, bytes, batches: decoded for the user; bytes are those of batches as they travel.
    requests: Fetch requests. errors: answers with an error, and connections that ended before an answer.
    connections_lost: connections that ended after they were open. buffered_bytes: fetched and not decoded yet, now.
    fetch_latency: from a Fetch request to its answer; one that waits for news takes up to `fetch_max_wait`.
    lag: for each assigned partition, the records between what was handed out last and its end, as of the last answer;
    -1 before the first. What was decoded and waits in the consumer counts as not handed out.
    """

    records: int
    bytes: int
    batches: int
    requests: int
    errors: int
    connections_lost: int
    buffered_bytes: int
    fetch_latency: Latency
    lag: dict[TopicPartition, int]
