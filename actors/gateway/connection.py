"""One client connection, sans-IO: requests start in the order of arrival, answers leave in the order of requests.

Owns: `Exchange`, one request and the place of its answer; `Connection`, the queue of them; `Connections`, all
of them and the bytes that they hold together.
Invariants: an answer never overtakes an earlier one. What a connection holds (requests without an answer, and
answers that have not left, or that the client leaves untaken) is bounded: beyond the bound its next frames wait here,
unread, and soon it is not read from until half is gone. A client that does not take its answers gets no new ones, and
once all together are crowded, those that took nothing for a while are ended, the one with most first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from zafka.actors.actor import Effects
from zafka.actors.gateway.effects import Buffer, CloseConnection, PauseReading, Respond, ResumeReading
from zafka.transport.arena import Slice
from zafka.transport.kafka.fetch_shape import FetchShape
from zafka.transport.kafka.produce_shape import ProduceShape

# What a request costs beside its bytes, so that many tiny ones are bounded too.
REQUEST_OVERHEAD = 1024
# How long an answer may stay untaken while there is no room: less is a client that is busy taking it.
UNTAKEN_S_MAX = 5.0

Writer = Callable[[Any], Sequence[Buffer]]


class Operation(Protocol):
    """What an exchange waits for, if that can be cut short."""

    def on_abandoned(self) -> None:
        """Nobody waits for the answer any more."""
        ...

    def on_hurry(self) -> None:
        """Answer soon with what there is."""
        ...


class Exchange:
    """One request. Exactly one of `answer`, `answer_nothing` and `refuse` ends it, at any later time."""

    __slots__ = ("client_id", "close_reason", "connection", "frame", "head", "held", "operation", "version", "writer")

    def __init__(
        self, connection: Connection, *, version: int, head: bytes = b"", writer: Writer | None = None, size: int = 0,
        client_id: str | None = None,
    ) -> None:
        self.connection = connection
        self.version = version
        self.client_id = client_id
        self.head = head  # the response header, ready to send
        self.writer = writer
        self.held = size + REQUEST_OVERHEAD
        self.frame: Sequence[Buffer] | None = None  # the answer; empty where none is due
        self.close_reason = ""
        self.operation: Operation | None = None

    def answer(self, response: Any) -> None:
        """Encode the answer; it leaves at the end of the turn if no earlier one is missing."""
        if not self.connection.closed:
            assert self.writer is not None
            self.answer_frame([self.head, *self.writer(response)])

    def answer_body(self, body: Buffer) -> None:
        """Answer with what somebody else has encoded for this version."""
        if not self.connection.closed:
            self.answer_frame([self.head, body])

    def answer_frame(self, frame: Sequence[Buffer]) -> None:
        """Answer with a frame that is encoded already."""
        assert self.frame is None
        self.frame = frame
        self.operation = None
        self.connection.on_answered(self, sum(map(len, frame)))

    def hold(self, size: int) -> None:
        """Count what is about to be read for the answer, until the answer itself is counted."""
        self.held += size
        self.connection.hold(size)

    def run_alone(self) -> None:
        """Let nothing that comes behind start before this is answered: its answer may be large."""
        self.connection.alone = self

    def answer_nothing(self) -> None:
        """The request wants no answer (acks=0)."""
        self.answer_frame(())

    def refuse(self, reason: str) -> None:
        """Close the connection in place of an answer, once the earlier answers are out."""
        self.close_reason = reason
        self.answer_frame(())


class Connection:
    """All exchanges of one client connection that have not left yet, and the frames behind them.

    held: bytes of the exchanges, and `untaken` ones, counted in `all.held` too. waiting: frames whose requests have not
        started. sent: bytes of the answers that left last. blocked_s: since when the client does not take its answers.
    """

    __slots__ = (
        "all", "alone", "asked", "blocked", "blocked_s", "closed", "closing", "exchanges", "fetch_shape", "fetched", "held", "id",
        "listener", "peer", "reading", "sent", "shape", "untaken", "waiting", "waiting_bytes")

    def __init__(self, connection_id: int, *, listener: str, peer: str, connections: Connections) -> None:
        self.id = connection_id
        self.listener = listener
        self.peer = peer
        self.all = connections
        self.exchanges: deque[Exchange] = deque()
        self.held = 0
        self.waiting: deque[tuple[memoryview, Slice | None]] = deque()
        self.waiting_bytes = 0
        self.alone: Exchange | None = None  # see `Exchange.run_alone`
        self.blocked = False  # the client does not take its answers
        self.blocked_s = 0.0
        self.sent = 0
        self.untaken = 0  # bytes of them; 0 unless it is blocked
        self.reading = True
        self.closing = False  # we asked the shell to close it
        self.closed = False
        self.asked: tuple[str | bytes, int] | None = None  # topic and partition of the last Produce that named but one
        self.shape: ProduceShape | None = None  # of its Produce requests, see `repeated_produce.py`
        self.fetched: tuple[str | bytes, int] | None = None  # the same of its Fetch requests, see `repeated_fetch.py`
        self.fetch_shape: FetchShape | None = None

    def __repr__(self) -> str:
        return f"<Connection {self.id} {self.peer} open={len(self.exchanges)} held={self.held}>"

    @property
    def takes_requests(self) -> bool:
        """True if one more request may start. Who holds nothing may, or nobody would make progress."""
        if self.alone is not None or self.blocked or self.closing:
            return False
        return not self.held or (self.held <= self.all.limit and self.all.held <= self.all.total_limit)

    def wait(self, frame: memoryview, slice_: Slice | None = None) -> None:
        self.waiting.append((frame, slice_))
        self.waiting_bytes += len(frame)
        self.all.changed[self] = None

    def next_waiting(self) -> tuple[memoryview, Slice | None]:
        frame, slice_ = self.waiting.popleft()
        self.waiting_bytes -= len(frame)
        return frame, slice_

    def drop_waiting(self) -> None:
        for _, slice_ in self.waiting:
            if slice_ is not None:
                slice_.release()
        self.waiting.clear()
        self.waiting_bytes = 0

    def begin(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self.hold(exchange.held)

    def on_answered(self, exchange: Exchange, size: int) -> None:
        """Now the answer is held in place of the request, until its turn comes."""
        if self.alone is exchange:
            self.alone = None
        if not self.closed:
            self.hold(size - exchange.held)
            exchange.held = size

    def on_blocked(self, blocked: bool, now_s: float) -> None:
        self.blocked, self.blocked_s = blocked, now_s
        self._leave_untaken(self.sent if blocked else -self.untaken)

    def _leave_untaken(self, size: int) -> None:
        if not self.closed:
            self.untaken += size
            self.hold(size)

    def hold(self, size: int) -> None:
        if not self.closed:
            self.held += size
            self.all.held += size
            self.all.changed[self] = None

    def on_closed(self) -> None:
        """The client is gone: nothing is held for it any more."""
        self.closed = self.closing = True
        self.all.held -= self.held
        self.held = 0
        for exchange in self.exchanges:
            if exchange.operation is not None:
                exchange.operation.on_abandoned()
        self.exchanges.clear()
        self.drop_waiting()

    def take_answers(self) -> Effects:
        """What leaves now: the answers up to the first that is missing."""
        effects: Effects = []
        frames: list[Sequence[Buffer]] = []
        sent = 0
        while self.exchanges and not self.closing:
            exchange = self.exchanges[0]
            if exchange.frame is None:
                break
            self.exchanges.popleft()
            self.held -= exchange.held
            self.all.held -= exchange.held
            if exchange.frame:
                frames.append(exchange.frame)
                sent += exchange.held
            if exchange.close_reason:
                self.closing = True
                effects.append(CloseConnection(self.id, exchange.close_reason))
        if frames:
            effects.insert(0, Respond(self.id, frames))
            self.sent = sent
            if self.blocked:
                self._leave_untaken(self.sent)
        return effects


class Connections:
    """All client connections. limit: bytes that one may hold; total_limit: all together."""

    def __init__(self, *, limit: int, total_limit: int) -> None:
        self.limit = limit
        self.total_limit = total_limit
        self.by_id: dict[int, Connection] = {}
        self.held = 0
        self.changed: dict[Connection, None] = {}  # in this turn
        self._paused: dict[Connection, None] = {}  # in the order in which they were stopped

    @property
    def room(self) -> int:
        """Bytes that may still be held."""
        return max(0, self.total_limit - self.held)

    def open(self, connection_id: int, *, listener: str, peer: str) -> Connection:
        assert connection_id not in self.by_id
        connection = Connection(connection_id, listener=listener, peer=peer, connections=self)
        self.by_id[connection_id] = connection
        return connection

    def close(self, connection_id: int) -> None:
        connection = self.by_id.pop(connection_id, None)
        if connection is not None:
            connection.on_closed()
            self.changed.pop(connection, None)
            self._paused.pop(connection, None)

    def take_answers(self) -> Effects:
        """Everything that can leave by now."""
        effects: Effects = []
        for connection in self.changed:
            effects += connection.take_answers()
        return effects

    def ready(self) -> list[Connection]:
        """Those whose waiting frames may go on."""
        return [connection for connection in self.changed if connection.waiting and connection.takes_requests]

    def on_turn_end(self, now_s: float) -> Effects:
        """Whose frames are taken from now on, and whose are not."""
        effects: Effects = []
        for connection in self.changed:
            crowded = connection.held > 0 and self.held > self.total_limit
            full = connection.held + connection.waiting_bytes > self.limit
            if connection.reading and not connection.closing and (full or crowded):
                connection.reading = False
                self._paused[connection] = None
                effects.append(PauseReading(connection.id))
        if self.held > self.total_limit // 2:
            effects += self._end_who_takes_nothing(now_s)
        self.changed.clear()
        if self._paused:
            self._resume(effects)
        return effects

    def _end_who_takes_nothing(self, now_s: float) -> Effects:
        """Of the clients that leave their answers untaken, end those with most, until answers need not be small."""
        effects: Effects = []
        excess = self.held - self.total_limit // 2
        blocked = [
            each for each in self.by_id.values()
            if each.blocked and each.untaken and not each.closing and now_s - each.blocked_s >= UNTAKEN_S_MAX]
        for connection in sorted(blocked, key=lambda each: -each.held):
            if excess <= 0:
                break
            excess -= connection.held
            connection.closing = True
            reason = f"{connection.untaken} bytes of answers are not taken, and there is room for no more"
            effects.append(CloseConnection(connection.id, f"{reason} (queued.max.request.bytes)", at_once=True))
        return effects

    def _resume(self, effects: Effects) -> None:
        crowded = self.held > self.total_limit // 2
        for connection in list(self._paused):
            held = connection.held + connection.waiting_bytes
            if held <= self.limit // 2 and not (crowded and held):
                connection.reading = True
                del self._paused[connection]
                effects.append(ResumeReading(connection.id))
