"""Where requests for partitions go: the replicas of this broker that serve, and what each owes an answer for.

Owns: `Route`, one replica as requests see it; `Routes`, all of them.
Invariants: a request goes to one incarnation of a partition actor and is ended once, by its answer or by the loss
of that incarnation. Bytes handed over and not answered are bounded by `credit`; what is beyond waits here, in order.
Record bytes in a slice of the arena are held until they are answered by whom they were handed to, or it is dead: an
incarnation that is only unreachable may read them yet.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from zafka.actors.actor import Effects, Peer, Send
from zafka.actors.messages import Advanced, GroupCall, GroupRequests, Message, Produce, ProduceItem
from zafka.transport.arena import Slice
from zafka.transport.kafka.errors import ErrorCode

# Records from here on travel in a mail of their own, so that no hop copies them; smaller ones are joined.
LARGE_BYTES = 32 * 1024
JOINED_BYTES_MAX = 1024 * 1024
POINTS_MAX = 1024

# Requests that one partition may owe an answer for. The mailbox takes 10,000 messages before it gives a peer up.
OWED_MAX = 8192

NOTHING_YET = Advanced(-1, 0, 0, 0, 0, 0, 0)


class Owed(Protocol):
    """A request at a partition: ended by exactly one of the two calls."""

    size: int  # bytes of records handed over with it
    done: bool  # answered to the client already: do not hand it over any more

    def on_answer(self, answer: Any) -> None: ...

    def on_lost(self, *, handed_over: bool) -> None:
        """The partition is gone. handed_over: it may have done what was asked."""
        ...


class Point(NamedTuple):
    """Where the batch with a certain base offset lies, or will lie. hot_position: as in `Located`."""

    segment_base_offset: int
    inode: int
    position: int
    hot_position: int


class Reader(Protocol):
    """A long poll that waits for this partition."""

    def on_advanced(self) -> None:
        """It is worth looking again; that itself comes later."""
        ...


def only_grew(before: Advanced, after: Advanced) -> bool:
    """Whether all that is new is more bytes of the same segment: who waits for many of them need not look yet. Pure."""
    return (
        after.segment_base_offset == before.segment_base_offset and after.inode == before.inode
        and after.leader_epoch == before.leader_epoch and after.log_start_offset == before.log_start_offset
        and after.last_stable_offset == after.high_watermark)


class Route:
    """One replica of this broker.

    refusal: Kafka error that answers every request, 0 while it serves.
    advanced: what readers may see, as its leader told last; meaningful while it serves.
    points: where sequential readers go on, by offset; verified on reading, so a stale one does no harm.
    readers: those that wait, each with the end position below which a partition that only grows has not enough for it.
    """

    def __init__(self, routes: Routes, topic: str, topic_id: bytes, partition: int, directory: Path) -> None:
        self.routes = routes
        self.directory = str(directory)
        self.topic = topic
        self.topic_id = topic_id
        self.partition = partition
        self.refusal: int = ErrorCode.NOT_LEADER_OR_FOLLOWER
        self.peer: Peer | None = None
        self.advanced = NOTHING_YET
        self.points: dict[int, Point] = {}
        self.readers: dict[Reader, int] = {}
        self._owed: dict[int, Owed] = {}
        self._owed_bytes = 0
        self._held: dict[int, Slice] = {}  # by request id, of batches here or at the partition
        self._backlog: deque[tuple[ProduceItem, memoryview, Owed]] = deque()
        self._items: list[ProduceItem] = []
        self._records: list[memoryview] = []
        self._joined_bytes = 0
        self._mail: list[Send] = []
        self._calls: list[GroupCall] = []
        self._bodies: list[bytes] = []
        self._unsent: set[int] = set()  # request ids in `_items` and `_mail`

    def __repr__(self) -> str:
        state = f"refused={self.refusal}" if self.refusal else f"epoch={self.advanced.leader_epoch}"
        return f"<Route {self.topic}-{self.partition} {state} hw={self.advanced.high_watermark} owed={len(self._owed)}>"

    # -- life ----------------------------------------------------------------------------------

    def serve(self, peer: Peer, advanced: Advanced) -> None:
        """What this incarnation may show now; requests go to it from here on."""
        grew = peer == self.peer and not self.refusal and only_grew(self.advanced, advanced)
        if peer != self.peer:
            self.lose()
            self.peer = peer
        self.refusal = 0
        self.advanced = advanced
        for reader, enough in self.readers.items():
            if not grew or advanced.end_position >= enough:
                reader.on_advanced()

    def wait(self, reader: Reader, growth: int) -> None:
        """Tell the reader when there are so many bytes more, or anything else is new."""
        self.readers[reader] = self.advanced.end_position + growth

    def lose(self, refusal: int = ErrorCode.NOT_LEADER_OR_FOLLOWER) -> None:
        """This incarnation is gone. Long polls stay: it is probably back before they end."""
        peer, self.peer = self.peer, None
        self.refusal = refusal
        self.points.clear()
        owed, unsent, backlog, held = self._owed, self._unsent, self._backlog, self._held
        self._owed, self._unsent, self._backlog, self._held = {}, set(), deque(), {}
        self._items, self._records, self._mail = [], [], []
        self._calls, self._bodies = [], []
        self._owed_bytes = self._joined_bytes = 0
        for request_id, waiting in owed.items():
            waiting.on_lost(handed_over=request_id not in unsent)
        for _, _, waiting in backlog:
            waiting.on_lost(handed_over=False)
        for request_id, slice_ in held.items():
            if request_id in owed and request_id not in unsent:
                assert peer is not None
                self.routes.in_doubt.setdefault(peer, []).append(slice_)
            else:
                slice_.release()

    def remove(self) -> None:
        """This broker has this replica no more: long polls learn it at once."""
        self.lose()
        for reader in self.readers:
            reader.on_advanced()

    # -- requests ------------------------------------------------------------------------------

    def produce(self, owed: Owed, acks: int, records: memoryview, slice_: Slice | None = None) -> None:
        """Hand one batch over, in the order of calls, at the end of the turn or when there is credit.

        slice_: what `records` are a part of, if they lie in the arena."""
        assert not self.refusal
        item = ProduceItem(self.routes.new_id(), acks, len(records))
        if slice_ is not None:
            slice_.hold()
            self._held[item.request_id] = slice_
        if self._backlog or not self._has_credit(item.size):
            self._backlog.append((item, records, owed))
        else:
            self._hand_over(item, records, owed)

    def _has_credit(self, size: int) -> bool:
        """True if one more batch may be handed over; one is always."""
        within = self._owed_bytes + size <= self.routes.credit and len(self._owed) < OWED_MAX
        return within or not self._owed_bytes

    def ask(self, question: Message, request_id: int, owed: Owed) -> bool:
        """Send a `Locate` or `ListOffset` that carries `request_id`; False if the partition owes too many answers."""
        assert not self.refusal and self.peer is not None
        if len(self._owed) >= OWED_MAX:
            return False
        self._owed[request_id] = owed
        self._unsent.add(request_id)
        self._mail.append(Send(self.peer, question))
        self.routes.changed[self] = None
        return True

    def call(self, call: GroupCall, body: bytes, owed: Owed) -> bool:
        """Send a request of a client to the coordinator that this is; False if it owes too many answers."""
        assert not self.refusal
        if len(self._owed) >= OWED_MAX:
            return False
        self._owed[call.request_id] = owed
        self._unsent.add(call.request_id)
        self._calls.append(call)
        self._bodies.append(body)
        self.routes.changed[self] = None
        return True

    def on_answer(self, answer: Any) -> None:
        """An answer that carries `request_id`; one that nobody waits for is passed over."""
        owed = self._owed.pop(answer.request_id, None)
        if owed is not None:
            self._owed_bytes -= owed.size
            owed.on_answer(answer)
            self._release(answer.request_id)

    def refill(self) -> None:
        """Hand over what waited for credit, as far as it goes now."""
        backlog = self._backlog
        while backlog and self._has_credit(backlog[0][0].size):
            item, records, owed = backlog.popleft()
            if owed.done:
                self._release(item.request_id)
            else:
                self._hand_over(item, records, owed)

    def _release(self, request_id: int) -> None:
        """Nobody reads the bytes of this batch any more."""
        slice_ = self._held.pop(request_id, None)
        if slice_ is not None:
            slice_.release()

    def take_mail(self) -> list[Send]:
        """Everything gathered in this turn."""
        self._close_joined()
        if self._calls:
            assert self.peer is not None
            self._mail.append(Send(self.peer, GroupRequests(self._calls), self._bodies))
            self._calls, self._bodies = [], []
        mail, self._mail = self._mail, []
        self._unsent.clear()
        return mail

    def _hand_over(self, item: ProduceItem, records: memoryview, owed: Owed) -> None:
        self._owed[item.request_id] = owed
        self._owed_bytes += item.size
        self._unsent.add(item.request_id)
        self.routes.changed[self] = None
        if item.size >= LARGE_BYTES:
            assert self.peer is not None
            self._close_joined()
            self._mail.append(Send(self.peer, Produce([item]), (records,)))
            return
        if self._joined_bytes + item.size > JOINED_BYTES_MAX:
            self._close_joined()
        self._items.append(item)
        self._records.append(records)
        self._joined_bytes += item.size

    def _close_joined(self) -> None:
        if self._items:
            assert self.peer is not None
            self._mail.append(Send(self.peer, Produce(self._items), self._records))
            self._items, self._records, self._joined_bytes = [], [], 0

    def remember(self, offset: int, point: Point) -> None:
        """A reader will probably go on at `offset`."""
        self.points.pop(offset, None)
        if len(self.points) >= POINTS_MAX:
            del self.points[next(iter(self.points))]
        self.points[offset] = point


class Routes:
    """All replicas of this broker. credit: bytes that one partition may owe an answer for.

    in_doubt: slices that incarnations may read, which owe us no answer any more and are not known to be dead.
    """

    def __init__(self, data_dir: Path, *, credit: int) -> None:
        self.data_dir = data_dir
        self.credit = credit
        self.by_topic: dict[str, dict[int, Route]] = {}
        self.changed: dict[Route, None] = {}  # with mail in this turn
        self.in_doubt: dict[Peer, list[Slice]] = {}
        self._last_id = 0

    def new_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def add(self, topic: str, topic_id: bytes, partition: int) -> Route:
        route = Route(self, topic, topic_id, partition, self.data_dir / f"{topic}-{partition}")
        self.by_topic.setdefault(topic, {})[partition] = route
        return route

    def find(self, topic: str, partition: int) -> Route | None:
        partitions = self.by_topic.get(topic)
        return None if partitions is None else partitions.get(partition)

    def remove(self, topic: str, partition: int) -> None:
        partitions = self.by_topic.get(topic, {})
        route = partitions.pop(partition, None)
        if not partitions:
            self.by_topic.pop(topic, None)
        if route is not None:
            self.changed.pop(route, None)
            route.remove()

    def on_dead(self, peer: Peer) -> None:
        """This incarnation is confirmed dead, and its route has lost it."""
        for slice_ in self.in_doubt.pop(peer, ()):
            slice_.release()

    def on_turn_end(self) -> Effects:
        """The mail of this turn, one message per partition as far as records are small."""
        effects: Effects = []
        for route in self.changed:
            effects += route.take_mail()
        self.changed.clear()
        return effects
