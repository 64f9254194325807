"""Records that wait to leave: open batches that user threads fill, and the bound on the memory they take.

Owns: the lock between user threads and the I/O thread, the open batch of each partition, the count of bytes that are
not acknowledged yet. Records are encoded by the thread that sends them, as they come.
Invariants: a batch is open in at most one place; `buffered_bytes` is the sum over unfinished batches, and no record is
taken while it is at `buffer_memory` or above (so it is passed by less than one batch or one record). The slots of a lane
(lanes.py) are counted as full from its beginning to its end.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from zafka.client.batches import NO_OFFSET, Delivery, ProducerBatch
from zafka.client.cluster import NEVER
from zafka.client.errors import BufferFull, ClientClosed, ZafkaError
from zafka.client.lanes import HAS_LANES, SLOTS_FIRST, SLOTS_LEAST, Lane
from zafka.client.metrics import Histogram
from zafka.client.partitioning import STICKY, Partitioner, StickyChoice
from zafka.client.waiting import Signal, until
from zafka.storage.batch_builder import PLAIN_OVERHEAD_BYTES, BatchBuilder, NewRecord

Piece = tuple[ProducerBatch, int, int]  # a batch, the index of its first record that is meant, how many are
MayLeave = Callable[[str, int], bool]

FULL_BUT = 16  # with less than this part of it free, a batch is full: lanes for the rest would be shorter and shorter
STAYS_OPEN_S = 1.0  # beyond its linger, while it could not leave

# Keys come again and again; murmur2 in Python costs more than a look-up.
KEYS_REMEMBERED_MAX = 50_000
FAILURES_KEPT_MAX = 1000


class TopicRoute:
    """A topic as the producer sees it: where records go, and the open batch of each partition."""

    __slots__ = (
        "current", "last_ms", "led", "longest", "longest_before", "name", "of_key", "open", "partition_count", "partitioner",
        "slot_count", "sticky",
    )  # fmt: skip

    def __init__(self, name: str, batch_size: int, partitioner: Partitioner) -> None:
        self.name = name
        self.partitioner = partitioner
        self.partition_count = 0
        self.led: tuple[int, ...] = ()
        self.open: list[ProducerBatch | None] = []
        self.current: ProducerBatch | None = None  # the open batch that the sticky choice leads to, if that is known
        self.sticky = StickyChoice(batch_size)
        self.of_key: dict[bytes | None, int] = {}
        self.longest = self.longest_before = 0  # value that came alone: of the current batch, of the one before
        self.slot_count = SLOTS_FIRST  # of the next lane
        self.last_ms = -1  # the timestamp of the last record that did not come by a lane

    def update(self, partition_count: int, led: tuple[int, ...]) -> None:
        """Take new metadata. A topic only grows; one that was deleted and made again smaller keeps its open batches."""
        self.led = led
        self.current = None
        if partition_count != self.partition_count:
            self.open += [None] * (partition_count - len(self.open))
            self.partition_count = partition_count
            self.of_key = {}

    def partition_for(self, key: bytes | None) -> int:
        """Where a record with this key goes, or STICKY. Raises ConfigError from a user's partitioner."""
        if self.partitioner.function is not None:
            return self.partitioner.ask(key, self.partition_count, self.led)
        partition = self.of_key.get(key)
        if partition is None:
            partition = self.partitioner.place(key, self.partition_count)
            if len(self.of_key) >= KEYS_REMEMBERED_MAX:
                self.of_key.clear()
            self.of_key[key] = partition
        return partition


class Accumulator:
    """See the module. `wake` has the I/O thread look at `drain` soon."""

    def __init__(
        self,
        *,
        batch_size: int,
        linger_s: float,
        delivery_timeout_s: float,
        buffer_memory: int,
        codec: int,
        level: int | None,
        partitioner: Partitioner,
        wake: Callable[[], None],
    ) -> None:
        self.batch_size = batch_size
        self.linger_s = linger_s
        self.delivery_timeout_s = delivery_timeout_s
        self.buffer_memory = buffer_memory
        self.codec = codec
        self.level = level
        self.partitioner = partitioner
        self.routes: dict[str, TopicRoute] = {}
        self.lanes: dict[str, Lane] = {}  # by topic, for records of nothing but a value
        self.records_acked = self.bytes_acked = self.batches_acked = self.records_failed = 0
        self.latency = Histogram()
        self.buffered_bytes = 0
        self.ended: ZafkaError | None = None
        self._wake = wake
        self._lock = threading.Lock()
        self.settled = Signal(self._lock)  # a batch is done, if somebody waits for that; or the end
        self._waiting_for_room = 0
        self._open: dict[ProducerBatch, TopicRoute] = {}  # oldest first
        self._closed: deque[ProducerBatch] = deque()
        self._spoiled: list[ProducerBatch] = []  # half-written when the user's thread was interrupted
        self._unfinished: set[ProducerBatch] = set()
        self._failed_unseen: list[ProducerBatch] = []
        self._flushing = 0
        self._looks_at_s = NEVER  # when the I/O thread drains again at the latest

    # -- in the user's threads -------------------------------------------------------------------

    def forget_routes(self) -> None:
        """Have every sender look for its topic again. Takes no lock: after a fork somebody may hold it for ever."""
        self.lanes.clear()
        self.routes.clear()

    def set_route(self, topic: str, partition_count: int, led: tuple[int, ...]) -> None:
        with self._lock:
            route = self.routes.get(topic)
            if route is None:
                route = self.routes[topic] = TopicRoute(topic, self.batch_size, self.partitioner)
            route.update(partition_count, led)

    # Each of these puts in what there is room for. Who is told that there is none awaits `wait_for_room` and comes again.

    def append(self, route: TopicRoute, partition: int, record: NewRecord) -> Delivery | None:
        """Add one record; partition -1 lets the sticky choice decide. Returns its future.

        None: there is no room for it. Raises ClientClosed.
        """
        timestamp_ms, key, value, headers = record
        # Records of one time are encoded together. One that has no neighbours is not worth it.
        is_of_run = timestamp_ms == route.last_ms and value is not None and not headers
        route.last_ms = timestamp_ms
        with self._lock:
            while True:
                if self.buffered_bytes >= self.buffer_memory or self.ended is not None:
                    self._check_ended()
                    return None
                batch = self._find_batch(route, partition)
                builder = batch.builder
                before = builder.size_bytes
                try:
                    if is_of_run and value is not None:
                        is_in = builder.append_value(timestamp_ms, value, self.batch_size, key) >= 0
                    else:
                        is_in = builder.extend((record,), self.batch_size) is None
                except BaseException:
                    self._spoil(route, batch)
                    raise
                if is_in:
                    self.buffered_bytes += builder.size_bytes - before
                    return Delivery(batch, builder.record_count - 1, timestamp_ms)
                self._close(route, batch, full=True)

    def append_value(self, route: TopicRoute, value: bytes) -> Delivery | None:
        """`append` for a record of nothing but a value: what most are. Opens a lane for those that come after it."""
        with self._lock:
            while True:
                if self.buffered_bytes >= self.buffer_memory or self.ended is not None:
                    self._check_ended()
                    return None
                batch = self._find_batch(route, STICKY)
                builder = batch.builder
                before = builder.size_bytes
                timestamp_ms = time.time_ns() // 1_000_000
                try:
                    index = builder.append_value(timestamp_ms, value, self.batch_size)
                except BaseException:
                    self._spoil(route, batch)
                    raise
                if index >= 0:
                    self.buffered_bytes += builder.size_bytes - before
                    self._open_lane(route, batch, timestamp_ms, len(value))
                    return Delivery(batch, index, timestamp_ms)
                self._close(route, batch, full=True)

    def _open_lane(self, route: TopicRoute, batch: ProducerBatch, timestamp_ms: int, value_bytes: int) -> None:
        """Let values that are no longer than those of late into the batch without a lock, as many as there is room for."""
        route.longest = max(route.longest, value_bytes)
        value_bytes_max = max(route.longest, route.longest_before)
        left = self.batch_size - batch.builder.size_bytes
        slot_bytes = value_bytes_max + PLAIN_OVERHEAD_BYTES
        slot_count = min(route.slot_count, min(left, self.buffer_memory - self.buffered_bytes) // slot_bytes)
        if left < self.batch_size // FULL_BUT and left < route.slot_count * slot_bytes:
            self._close(route, batch, full=True)
            return
        if HAS_LANES and slot_count >= SLOTS_LEAST:
            lane = Lane(batch, slot_count=slot_count, value_bytes_max=value_bytes_max, timestamp_ms=timestamp_ms)
            # No Ctrl-C comes between these: there are no calls.
            self.buffered_bytes += lane.reserved_bytes
            batch.lane = lane
            self.lanes[route.name] = lane

    def _end_lane(self, route: TopicRoute, batch: ProducerBatch) -> bool:
        """Have the batch's builder hold all that came by its lane. False if a record of it is not whole."""
        lane: Lane | None = batch.lane
        if lane is None:
            return True
        try:
            came = lane.end()
            if self.lanes.get(batch.topic) is lane:
                del self.lanes[batch.topic]
            if came is not None:
                route.slot_count = SLOTS_FIRST + 4 * len(came[0])
                before = batch.builder.size_bytes
                batch.builder.add_values(lane.timestamp_ms, *came)
                self.buffered_bytes += batch.builder.size_bytes - before
        except BaseException:  # Ctrl-C: what is in the builder now, nobody knows
            batch.lane = None
            self._spoil(route, batch)
            raise
        self.buffered_bytes -= lane.reserved_bytes
        batch.lane = None
        return came is not None

    def append_many(
        self, route: TopicRoute, partition: int, records: Iterable[NewRecord], pieces: list[Piece]
    ) -> Iterable[NewRecord] | None:
        """Add records to one partition, or by the sticky choice, and where they went to `pieces`, in order.

        Returns those that there is no room for, or None when all are in.
        """
        source = iter(records)
        with self._lock:
            while True:
                if self.buffered_bytes >= self.buffer_memory or self.ended is not None:
                    self._check_ended()
                    return source
                batch = self._find_batch(route, partition)
                builder = batch.builder
                before, first = builder.size_bytes, builder.record_count
                try:
                    left = builder.extend(source, self.batch_size)
                except BaseException:
                    self._spoil(route, batch)
                    raise
                self.buffered_bytes += builder.size_bytes - before
                if builder.record_count > first:
                    pieces.append((batch, first, builder.record_count - first))
                if left is None:
                    return None
                # What did not fit into this batch is the first of the next one.
                source = chain((left,), source)
                self._close(route, batch, full=True)

    def append_values(
        self, route: TopicRoute, partition: int, timestamp_ms: int, values: Sequence[bytes], lengths: Sequence[int],
        pieces: list[Piece],
    ) -> int:  # fmt: skip
        """`append_many` for records of nothing but a value. Returns how many there was room for."""
        taken = 0
        with self._lock:
            while taken < len(values):
                if self.buffered_bytes >= self.buffer_memory or self.ended is not None:
                    self._check_ended()
                    break
                batch = self._find_batch(route, partition)
                builder = batch.builder
                before, first = builder.size_bytes, builder.record_count
                try:
                    count = builder.extend_values(timestamp_ms, values[taken:], lengths[taken:], self.batch_size)
                except BaseException:
                    self._spoil(route, batch)
                    raise
                self.buffered_bytes += builder.size_bytes - before
                if count:
                    pieces.append((batch, first, count))
                    taken += count
                if taken < len(values):
                    self._close(route, batch, full=True)
        return taken

    def _find_batch(self, route: TopicRoute, partition: int) -> ProducerBatch:
        """The open batch of a partition, or of the sticky choice; if need be a new one. It has no lane."""
        is_sticky = partition < 0
        while True:
            batch = route.current if is_sticky else route.open[partition]
            if batch is None:
                if is_sticky:
                    partition = route.sticky.choose(route.led)
                batch = route.open[partition] or self._open_batch(route, partition)
                if is_sticky:
                    route.current = batch
            if batch.lane is None or self._end_lane(route, batch):
                return batch
            self._spoil(route, batch)

    def _check_ended(self) -> None:
        if self.ended is not None:
            raise ClientClosed(str(self.ended))

    def _open_batch(self, route: TopicRoute, partition: int) -> ProducerBatch:
        """A new batch. The I/O thread has to look in time to send it."""
        now_s = time.monotonic()
        batch = ProducerBatch(
            route.name,
            partition,
            BatchBuilder(),
            now_s=now_s,
            linger_s=self.linger_s,
            deadline_s=now_s + self.delivery_timeout_s,
        )
        batch.codec, batch.level = self.codec, self.level
        batch.on_done, batch.hurry = self._on_done, self._wake
        # No Ctrl-C comes between these: there are no calls.
        route.open[partition] = batch
        self._open[batch] = route
        self.buffered_bytes += batch.builder.size_bytes
        self._unfinished.add(batch)
        if batch.linger_until_s < self._looks_at_s or self._flushing or self._waiting_for_room:
            self._wake()
        return batch

    def _spoil(self, route: TopicRoute, batch: ProducerBatch) -> None:
        """Ctrl-C came while a record was written: what is half in must not be sent."""
        self._close(route, batch, full=False, whole=False)
        self.buffered_bytes = sum(map(_bytes_of, self._unfinished))

    def _close(self, route: TopicRoute, batch: ProducerBatch, *, full: bool, whole: bool = True) -> None:
        whole = self._end_lane(route, batch) and whole
        builder = batch.builder
        if batch.partition == route.sticky.choose(route.led):
            route.sticky.on_batch_closed(builder.size_bytes, full=full)
        # No Ctrl-C comes between these: there are no calls.
        batch.closed = True
        batch.count, batch.size_bytes = builder.record_count, builder.size_bytes
        route.open[batch.partition] = None
        if route.current is batch:
            route.current = None
            # Few of a batch come alone. To forget its longest at once would have each lane be too narrow for some again.
            route.longest, route.longest_before = 0, max(route.longest, route.longest_before * 7 // 8)
        del self._open[batch]
        (self._closed if whole else self._spoiled).append(batch)
        self._wake()

    async def wait_for_room(self, max_block_s: float) -> None:
        """Wait until there is room. Raises BufferFull if there is none within `max_block_s`, ClientClosed."""

        def look() -> bool | None:
            self._check_ended()
            if self.buffered_bytes < self.buffer_memory:
                return True
            self._wake()
            return None

        with self._lock:
            self._waiting_for_room += 1
        try:
            if await until(self.settled, look, time.monotonic() + max_block_s) is None:
                raise BufferFull(
                    f"{self.buffered_bytes} bytes wait to be acknowledged, buffer_memory is {self.buffer_memory}, "
                    f"and nothing became free within {max_block_s:g} s (max_block): the brokers are slower than "
                    f"the producer, or cannot be reached"
                )
        finally:
            with self._lock:
                self._waiting_for_room -= 1

    async def flush(self, timeout_s: float) -> int:
        """Send all open batches now and wait for all that is unfinished. Returns how many batches still are."""
        with self._lock:
            self._flushing += 1
            unfinished = list(self._unfinished)

        def look() -> bool | None:
            # Not `done`, which is true a moment before the batch is counted and its room is free.
            while unfinished and unfinished[-1] not in self._unfinished:
                unfinished.pop()
            return None if unfinished else True

        try:
            self._wake()
            await until(self.settled, look, time.monotonic() + timeout_s)
        finally:
            with self._lock:
                self._flushing -= 1
        return sum(batch in self._unfinished for batch in unfinished)

    def begin_flush(self) -> Callable[[], bool]:
        """Send all that waits as soon as may be, from now on; returns what tells whether all is done."""
        self._flushing += 1
        self._wake()
        return lambda: not self._unfinished

    def take_unseen_failures(self) -> list[ProducerBatch]:
        """Failed batches, each told once, whose error nobody has fetched from a future."""
        with self._lock:
            failed, self._failed_unseen = self._failed_unseen, []
        return [batch for batch in failed if not batch.error_seen]

    @property
    def batches_waiting(self) -> int:
        return len(self._unfinished)

    # -- in the I/O thread -----------------------------------------------------------------------

    def drain(self, now_s: float, may_leave: MayLeave) -> tuple[list[ProducerBatch], float]:
        """Batches that are to leave now, in order for each partition; and when the next open one is due.

        may_leave: False if a batch of this topic and partition would only wait for others. Then an open one takes more
            records meanwhile: after an outage a few large batches catch up where thousands of small ones could not.
            Not for long, because a record expires with its batch.
        """
        wake_s = NEVER
        with self._lock:
            spoiled, self._spoiled = self._spoiled, []
            for batch, route in list(self._open.items()):
                is_due = batch.linger_until_s <= now_s or self._flushing or self._waiting_for_room
                latest_s = min(batch.linger_until_s + STAYS_OPEN_S, batch.deadline_s)
                if is_due and (latest_s <= now_s or may_leave(batch.topic, batch.partition)):
                    self._close(route, batch, full=False, whole=batch.builder.record_count > 0)
                else:
                    wake_s = min(wake_s, latest_s if is_due else batch.linger_until_s)
            closed, self._closed = self._closed, deque()
            if closed and self.linger_s:
                # The next batch will hardly be long in coming. To look for it once is cheaper than to be woken by it.
                wake_s = min(wake_s, now_s + self.linger_s)
            self._looks_at_s = wake_s
        for batch in spoiled:
            if batch.count:
                batch.fail(ZafkaError("the thread that filled this batch was interrupted; none of its records was sent"))
            else:
                batch.complete(NO_OFFSET)
        return list(closed), wake_s

    def _on_done(self, batch: ProducerBatch) -> None:
        with self._lock:
            self.buffered_bytes -= batch.size_bytes
            self._unfinished.discard(batch)
            if batch.error is None:
                self.records_acked += batch.count
                self.bytes_acked += batch.size_bytes
                self.batches_acked += 1
                self.latency.add(time.monotonic() - batch.created_s, batch.count)
            else:
                self.records_failed += batch.count
                self._failed_unseen.append(batch)
                del self._failed_unseen[:-FAILURES_KEPT_MAX]
            if self._waiting_for_room or self._flushing:
                self.settled.notify_all()

    def end(self, error: ZafkaError) -> None:
        """No more records are taken, whoever waits for room is told, and batches that never left fail."""
        with self._lock:
            self.ended = error
            self.settled.notify_all()
            for batch, route in list(self._open.items()):
                self._close(route, batch, full=False)
            batches = [*self._closed, *self._spoiled]
            self._closed.clear()
            self._spoiled.clear()
        for batch in batches:
            batch.fail(error)


def _bytes_of(batch: ProducerBatch) -> int:
    """What an unfinished batch takes of `buffer_memory`."""
    if batch.closed:
        return batch.size_bytes
    lane: Lane | None = batch.lane
    size: int = batch.builder.size_bytes
    return size if lane is None else size + lane.reserved_bytes
