"""The way past the broker: batches straight to partitions that run on this machine, as this user.

Owns: `DirectWay`, a connection to one incarnation of a partition; `DirectWays`, which of a producer's partitions go which
way. Lives in the I/O thread. Whatever is in the way of a direct connection, the broker is there, silently.
Invariants: only idempotent producers come here, since the partition itself checks their numbers. A partition's batches
go one way at a time: the way changes only when nothing is in flight. After any failure the broker has to acknowledge
something first: it may have turned a batch away, and holds back those behind it until that one comes again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum

from zafka.client.batches import ProducerBatch
from zafka.client.cluster import NEVER, Cluster
from zafka.client.connection import UnixConnection
from zafka.client.errors import ConnectionLost, RequestTimedOut, ZafkaError
from zafka.client.io_thread import IoThread
from zafka.client.partition_queue import PartitionQueue
from zafka.transport.direct import (
    BATCH_BYTES_MAX,
    BadDirectFrame,
    DirectAnswer,
    Told,
    is_ours,
    read_answer,
    request_head,
)

WAYS_MAX = 128  # a descriptor each, here and there
PAUSE_FIRST_S = 0.05
PAUSE_MAX_S = 60.0
ANSWER_S = 5.0  # for a question where a partition is; a broker that does not know it never answers
FAR_S = 60.0  # until a broker that is not on this machine is asked again
# A batch is only estimated before it is compressed, which may make it larger.
SIZE_MAX = BATCH_BYTES_MAX - (1 << 20)

OnDirectAnswer = Callable[[DirectAnswer | None, ZafkaError | None], None]
Key = tuple[str, int]


class Choice(Enum):
    BROKER = "through the broker"
    HOLD = "not now: the way changes, and something is in flight on the old one"


class DirectWay:
    """A connection to one incarnation of a partition. Every request ends in exactly one call of its `on_answer`."""

    def __init__(self, io: IoThread, told: Told, on_change: Callable[[], None]) -> None:
        self.ready = False
        self.closed = False
        self._told = told
        self._on_change = on_change
        self._outstanding: dict[int, tuple[float, OnDirectAnswer]] = {}  # deadline, by correlation id
        self._last_id = 0
        self._connection = UnixConnection(io, told.path, self)

    def __repr__(self) -> str:
        state = "ready" if self.ready else "closed" if self.closed else "connecting"
        told = self._told
        return f"<DirectWay {told.topic}-{told.partition}#{told.incarnation} {state} outstanding={len(self._outstanding)}>"

    @property
    def deadline_s(self) -> float:
        """When the first answer is overdue. All wait equally long, so that is the oldest one's."""
        return next(iter(self._outstanding.values()))[0] if self._outstanding else NEVER

    def send(self, records: memoryview, on_answer: OnDirectAnswer, deadline_s: float) -> None:
        self._last_id = (self._last_id + 1) & 0x7FFFFFFF
        self._outstanding[self._last_id] = deadline_s, on_answer
        head = request_head(self._last_id, self._told.incarnation, self._told.leader_epoch)
        self._connection.send([head, records])

    def close(self, reason: str) -> None:
        if not self.closed:
            self._connection.close(reason)

    # -- the connection speaks -------------------------------------------------------------------

    def on_open(self) -> None:
        self.ready = True
        self._on_change()

    def on_frame(self, frame: memoryview) -> None:
        try:
            answer = read_answer(frame)
        except BadDirectFrame as error:
            self.close(str(error))
            return
        _, on_answer = self._outstanding.pop(answer.correlation_id, (NEVER, None))
        if on_answer is None:
            self.close("the partition answered what was not asked")
            return
        on_answer(answer, None)

    def on_closed(self, reason: str) -> None:
        self.ready, self.closed = False, True
        outstanding, self._outstanding = self._outstanding, {}
        text = f"partition {self._told.topic}-{self._told.partition}: {reason}"
        timed_out = reason.startswith("no answer")
        for _, on_answer in outstanding.values():
            on_answer(None, RequestTimedOut(text) if timed_out else ConnectionLost(text))
        self._on_change()


class _Place:
    """One partition. is_direct: which way its batches go now. ask_at_s: when the broker is asked for the way, if there
    is none. leader: who was asked, and has not answered."""

    __slots__ = ("ask_at_s", "is_direct", "leader", "pause_s", "way")

    def __init__(self) -> None:
        self.way: DirectWay | None = None
        self.is_direct = False
        self.ask_at_s = 0.0
        self.pause_s = PAUSE_FIRST_S
        self.leader = -1

    def pause(self) -> None:
        """Ask again, later and later as long as nothing comes of it."""
        self.ask_at_s = time.monotonic() + self.pause_s
        self.pause_s = min(2 * self.pause_s, PAUSE_MAX_S)


class DirectWays:
    """See the module."""

    def __init__(self, io: IoThread, cluster: Cluster) -> None:
        self._io = io
        self._cluster = cluster
        self._places: dict[Key, _Place] = {}
        self._open: dict[_Place, None] = {}  # those with a way
        self._far_until_s: dict[int, float] = {}  # by id of the broker
        cluster.on_told = self.on_told

    def choose(self, queue: PartitionQueue, batch: ProducerBatch, now_s: float) -> DirectWay | Choice:
        """The way of this batch, the next one of its partition."""
        key = (queue.topic, queue.partition)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _Place()
        way = place.way
        may = not queue.failures and batch.size_bytes <= SIZE_MAX
        usable = may and way is not None and way.ready  # one that has ended is not, until it is forgotten
        if usable is not place.is_direct:
            if queue.flying:
                return Choice.HOLD
            place.is_direct = usable
        if usable:
            assert way is not None
            return way
        if way is None and may and now_s >= place.ask_at_s:
            self._ask(place, key, now_s)
        return Choice.BROKER

    def _ask(self, place: _Place, key: Key, now_s: float) -> None:
        leader = self._cluster.leader(*key)
        if len(self._open) >= WAYS_MAX or now_s < self._far_until_s.get(leader, 0.0):
            return
        channel = self._cluster.channel(leader)
        if channel is not None and channel.ask_where(*key):
            place.leader = leader
            place.pause()
            place.ask_at_s = max(place.ask_at_s, now_s + ANSWER_S)

    def on_told(self, told: Told) -> None:
        """A broker says where a partition is."""
        place = self._places.get((told.topic, told.partition))
        if place is None or place.leader < 0 or place.way is not None:
            return
        leader, place.leader = place.leader, -1
        if told.path and not is_ours(told.path):
            self._far_until_s[leader] = time.monotonic() + FAR_S
        elif told.path and len(self._open) < WAYS_MAX:
            self._open[place] = None
            place.way = DirectWay(self._io, told, self._io.wake)
        else:
            place.pause()

    def _drop(self, place: _Place) -> None:
        place.way = None
        del self._open[place]
        place.pause()

    def on_acknowledged(self, queue: PartitionQueue) -> None:
        """The way of this partition works."""
        self._places[queue.topic, queue.partition].pause_s = PAUSE_FIRST_S

    def check(self, now_s: float) -> float:
        """End the ways on which an answer is overdue, and forget those that have ended. Returns when to look again."""
        wake_s = NEVER
        for place in list(self._open):
            way = place.way
            assert way is not None
            if way.deadline_s <= now_s:
                way.close("no answer in time")
            if way.closed:
                self._drop(place)
            wake_s = min(wake_s, way.deadline_s)
        return wake_s

    def close(self, reason: str) -> None:
        for place in self._open:
            assert place.way is not None
            place.way.close(reason)
