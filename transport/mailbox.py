"""An actor's mailbox: one inbox for those who dial it, one socket for each peer that it dials.

Owns: the ZeroMQ sockets of one process, and what waits because a peer is slow. Used by one thread.
Never blocks: what ZeroMQ does not take waits in a bounded queue of ours; over the bound the peer counts as gone.
Invariants: mail between two incarnations of two actors comes once and in order, or both are told (`Broken`,
`transport/link.py`); mail from or for an older incarnation is dropped and counted; nothing queued for one
incarnation ever reaches another (its socket is closed with linger 0); no object of ZeroMQ crosses a fork.
An owner with an arena (`transport/arena.py`) offers it to each who dials it. Record bytes that lie there do not travel to a
peer that has mapped it: it is told their place, and must be done with them when it answers.
Source: the rules of ROUTER and DEALER that were measured to bite, DESIGN section 4.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import zmq

from zafka.transport.arena import Arena, Mapped, Offer
from zafka.transport.envelope import (
    INLINE_BYTES_MAX,
    NO_RECORDS,
    Buffer,
    Envelope,
    decoder,
    encode,
    join,
    routing_id,
)
from zafka.transport.link import UNNUMBERED, Arrival, Broken, Numbers, Pulse, Seen
from zafka.transport.shared_memory import map_offered

Address = tuple[str, int]
"""Name and incarnation of an actor."""

QUEUE_MESSAGES_MAX = 10_000
QUEUE_BYTES_MAX = 64 * 1024 * 1024
HIGH_WATER_MARK = 1000
GRAVES_MAX = 10_000
BACKLOG = 4096

_NO_WAIT = int(zmq.NOBLOCK)
_NO_WAIT_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


class Received(NamedTuple):
    """body: what was sent, or `Broken` where mail from or to this sender was lost."""

    sender: Address
    body: Any
    records: memoryview


class Link:
    """The way to one incarnation of one peer.

    prefix: routing id to send first (the peer dialled us), or b"" (we dialled it).
    queue: encoded messages that ZeroMQ did not take yet, oldest first; records_bytes counts both frames.
    borrows: it has mapped our arena. memory: its arena, if we have mapped that.
    """

    __slots__ = ("borrows", "incarnation", "memory", "name", "numbers", "prefix", "queue", "queued_bytes", "socket")

    def __init__(self, name: str, incarnation: int, socket: zmq.Socket[bytes], prefix: bytes) -> None:
        self.name = name
        self.incarnation = incarnation
        self.numbers = Numbers()
        self.socket = socket
        self.prefix = prefix
        self.queue: deque[tuple[bytes, Buffer | None]] = deque()
        self.queued_bytes = 0
        self.borrows = False
        self.memory: memoryview | None = None

    def write(self, head: bytes, records: Buffer | None) -> None:
        """Hand one message to ZeroMQ; raises zmq.Again or zmq.ZMQError(EHOSTUNREACH), with nothing handed over."""
        if self.prefix:
            self.socket.send(self.prefix, _NO_WAIT_MORE)
        # A ROUTER decides at the routing id and a DEALER at the first frame; the frames behind are always taken.
        if records is None:
            self.socket.send(head, _NO_WAIT)
        else:
            self.socket.send(head, _NO_WAIT_MORE)
            self.socket.send(records, _NO_WAIT, copy=False)


class Mailbox:
    """Mail of one incarnation of one actor.

    context: the process's own, made after the fork.
    message_type: the union of structs that bodies are of.
    endpoint: where to bind the inbox; "" if nobody dials this actor.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        name: str,
        incarnation: int,
        message_type: object,
        *,
        endpoint: str = "",
    ) -> None:
        self.name = name
        self.incarnation = incarnation
        self.stale = 0  # messages dropped because an older incarnation was meant or had written
        self.repeated = 0  # dropped because they came twice or late
        self.gaps = 0  # how often mail to us was lost
        self.arena: Arena | None = None  # ours, set before anybody dials us
        self.map_arena = map_offered
        self.unmapped = ""  # why an offered arena could not be mapped, the last one
        self._context = context
        self._decode = decoder(message_type).decode
        self._links: dict[str, Link] = {}
        self._waiting: dict[str, Link] = {}  # links whose queue is not empty
        self._dead: dict[str, int] = {}  # newest incarnation known to be dead, the most recent GRAVES_MAX names
        self._inbox: zmq.Socket[bytes] | None = None
        self._sockets: list[zmq.Socket[bytes]] = []
        self.sent_on: set[zmq.Socket[bytes]] = set()  # see `receive`; the owner of an event loop clears it
        self._next = 0  # the socket that is drained first, so that a busy one starves no other
        if endpoint:
            self._inbox = self._open(zmq.ROUTER)
            self._inbox.setsockopt(zmq.ROUTER_MANDATORY, 1)
            self._inbox.setsockopt(zmq.BACKLOG, BACKLOG)
            self._inbox.bind(endpoint)

    def __repr__(self) -> str:
        return f"<Mailbox {self.name}#{self.incarnation} peers={sorted(self._links)} queued={self.queued}>"

    @property
    def queued(self) -> int:
        """Messages that wait to be sent."""
        return sum(len(link.queue) for link in self._waiting.values())

    def sockets(self) -> list[zmq.Socket[bytes]]:
        """All sockets, to be polled for reading. The list changes with `connect` and `forget`."""
        return self._sockets

    def incarnation_of(self, name: str) -> int | None:
        """The incarnation of a peer that mail can be sent to now."""
        link = self._links.get(name)
        return None if link is None else link.incarnation

    # -- links ---------------------------------------------------------------------------------

    def connect(self, name: str, incarnation: int, endpoint: str) -> None:
        """Dial an incarnation of a peer; an older one is forgotten, what was queued for it is lost with it."""
        link = self._links.get(name)
        if link is not None and link.incarnation >= incarnation:
            return
        self.forget(name, incarnation - 1)
        socket = self._open(zmq.DEALER)
        socket.setsockopt(zmq.ROUTING_ID, routing_id(self.name, self.incarnation))
        socket.connect(endpoint)
        self._links[name] = Link(name, incarnation, socket, b"")

    def forget(self, name: str, incarnation: int) -> None:
        """This incarnation of a peer, and any older one, is dead: drop its link and all mail for and from it."""
        self._dead[name] = max(incarnation, self._dead.pop(name, 0))
        if len(self._dead) > GRAVES_MAX:
            del self._dead[next(iter(self._dead))]
        link = self._links.get(name)
        if link is None or link.incarnation > incarnation:
            return
        del self._links[name]
        self._waiting.pop(name, None)
        if link.socket is not self._inbox:
            self._sockets.remove(link.socket)
            link.socket.close(linger=0)

    def close(self, linger_s: float = 0.0) -> None:
        """Close everything; what ZeroMQ still holds is given `linger_s` to leave."""
        for socket in self._sockets:
            socket.close(linger=int(linger_s * 1000))
        self._sockets.clear()
        self._links.clear()
        self._waiting.clear()

    def _open(self, kind: int) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.set_hwm(HIGH_WATER_MARK)
        socket.setsockopt(zmq.LINGER, 0)
        self._sockets.append(socket)
        return socket

    # -- sending -------------------------------------------------------------------------------

    def send(self, to: Address | str, body: Any, records: Sequence[Buffer] = ()) -> bool:
        """Send a message, at once or as soon as ZeroMQ takes it; never blocks.

        to: one incarnation, or a name: its incarnation that we dialled or last heard from.
        records: sent one behind the other, and not to be changed any more.
        Returns False if there is no such peer, it is gone, or too much waits for it already: nothing was sent.
        """
        if type(to) is str:
            link = self._links.get(to)
            if link is None:
                return False
        else:
            link = self._links.get(to[0])
            if link is None or link.incarnation != to[1]:
                return False
        numbers = link.numbers
        numbers.sent = number = numbers.sent + 1
        return self._send(link, body, records, number)

    def pulse(self) -> None:
        """To be called every heartbeat: has the other ends notice if the last mail to them was lost."""
        for link in list(self._links.values()):
            pulse = link.numbers.pulse()
            if pulse is not None and not link.queue:
                self._send(link, pulse, (), UNNUMBERED)

    def _send(self, link: Link, body: Any, records: Sequence[Buffer], number: int) -> bool:
        apart: Buffer | None = None
        inline: Buffer = b""
        lent = self._place_of(records[0]) if link.borrows and len(records) == 1 else None
        if records and lent is None:
            inline = join(records)
            if len(inline) > INLINE_BYTES_MAX:
                apart, inline = inline, b""
        head = encode(
            Envelope(link.incarnation, self.name, self.incarnation, body, inline, apart is not None, number, lent)  # type: ignore[arg-type]
        )
        if link.queue:
            return self._queue(link, head, apart)
        self.sent_on.add(link.socket)
        try:
            self._hand_over(link, head, apart)
        except zmq.Again:
            return self._queue(link, head, apart)
        except zmq.ZMQError as error:
            return self._unreachable(error)
        return True

    def _place_of(self, piece: Buffer) -> tuple[int, int] | None:
        """Position and length of record bytes in our arena, if they lie there."""
        assert self.arena is not None
        position = self.arena.place_of(piece)
        return None if position is None else (position, len(piece))

    def _hand_over(self, link: Link, head: bytes, records: Buffer | None) -> None:
        """The last step before ZeroMQ: everything that leaves passes here, in order."""
        link.write(head, records)

    def retry(self) -> None:
        """Send what waits, as far as ZeroMQ takes it now. To be called every few ms while `queued`."""
        for name, link in list(self._waiting.items()):
            self.sent_on.add(link.socket)
            try:
                while link.queue:
                    head, records = link.queue[0]
                    self._hand_over(link, head, records)
                    link.queue.popleft()
                    link.queued_bytes -= _size(head, records)
            except zmq.Again:
                continue
            except zmq.ZMQError as error:
                self._unreachable(error)
                link.queue.clear()
                link.queued_bytes = 0
            del self._waiting[name]

    def _queue(self, link: Link, head: bytes, records: Buffer | None) -> bool:
        size = _size(head, records)
        if len(link.queue) >= QUEUE_MESSAGES_MAX or link.queued_bytes + size > QUEUE_BYTES_MAX:
            return False
        link.queue.append((head, records))
        link.queued_bytes += size
        self._waiting[link.name] = link
        return True

    @staticmethod
    def _unreachable(error: zmq.ZMQError) -> bool:
        """The peer hung up; `forget` follows when the supervisor has confirmed its death."""
        if error.errno != zmq.EHOSTUNREACH:
            raise error
        return False

    # -- receiving -----------------------------------------------------------------------------

    def receive(
        self, messages_max: int, bytes_max: int = 1 << 62, *, sockets: Sequence[zmq.Socket[bytes]] | None = None
    ) -> list[Received]:
        """What has come, oldest first for each peer, until nothing is left or a limit is passed.

        sockets: those of `sockets()` that are worth a try; None means all. An event loop knows from their
            descriptors; but sending takes away the signal of mail that came, so it asks those in `sent_on` for
            events, too.
        """
        received: list[Received] = []
        candidates = self._sockets if sockets is None else sockets
        count = len(candidates)
        self._next = (self._next + 1) % count if count else 0
        size = 0
        for index in range(count):
            socket = candidates[(index + self._next) % count]
            inbox = socket is self._inbox
            try:
                while len(received) < messages_max and size < bytes_max:
                    if inbox:
                        socket.recv(_NO_WAIT)  # the routing id says no more than the envelope
                    size += self._take(socket, socket.recv(_NO_WAIT), received, inbox)
            except zmq.Again:
                continue
        return received

    def _take(self, socket: zmq.Socket[bytes], head: bytes, received: list[Received], inbox: bool) -> int:
        """Decode one message and its records; returns its size in bytes."""
        envelope = self._decode(head)
        records = socket.recv(_NO_WAIT, copy=False).buffer if envelope.apart else envelope.records
        size = len(head) + (len(records) if envelope.apart else 0)
        name, incarnation = envelope.source, envelope.source_incarnation
        link = self._links.get(name)
        newest = self._dead.get(name, 0) + 1 if link is None else link.incarnation
        if envelope.target_incarnation != self.incarnation or incarnation < newest:
            self.stale += 1
            return size
        if inbox and (link is None or incarnation > newest):
            self.forget(name, incarnation - 1)
            link = self._links[name] = Link(name, incarnation, socket, routing_id(name, incarnation))
            if self.arena is not None:
                self._send(link, self.arena.offer, (), link.numbers.next())
        assert link is not None  # whoever answers on a socket that we dialled has the link that it was dialled for
        numbers, number = link.numbers, envelope.number
        if number == numbers.received + 1:  # as nearly always: `take` for the price of a comparison
            numbers.received = number
        elif not self._is_fresh(link, number, envelope.body, received):
            return size
        lent = envelope.lent
        if lent is not None:
            assert link.memory is not None  # nobody lends before we said that we have mapped what was offered
            records = link.memory[lent[0] : lent[0] + lent[1]]
            size += lent[1]
        body = envelope.body
        if type(body) is Offer:
            self._map(link, body)
        elif type(body) is Mapped:
            link.borrows = True
        else:
            received.append(Received((name, incarnation), body, records))
        return size

    def _map(self, link: Link, offer: Offer) -> None:
        """Map a peer's arena, to be told places in it. Without, its record bytes go on coming in frames."""
        try:
            link.memory = self.map_arena(offer)
        except OSError as error:
            self.unmapped = str(error)
            return
        self._send(link, Mapped(), (), link.numbers.next())

    def _is_fresh(self, link: Link, number: int, body: Any, received: list[Received]) -> bool:
        """Whether this is mail for our owner, who is told first of mail that was lost before it."""
        if number != UNNUMBERED:
            arrival = link.numbers.take(number)
            if arrival is Arrival.GAP:
                self._break(link, received)
            elif arrival is Arrival.LATE:
                self.repeated += 1
            return arrival is not Arrival.LATE
        if type(body) is Pulse:
            if link.numbers.on_pulse(body.number):
                self._break(link, received)
            self._send(link, Seen(body.number), (), UNNUMBERED)
        elif type(body) is Seen:
            link.numbers.on_seen(body.number)
        return False

    def _break(self, link: Link, received: list[Received]) -> None:
        """Mail from this peer was lost: tell our owner, and the peer."""
        self.gaps += 1
        received.append(Received((link.name, link.incarnation), Broken(), NO_RECORDS))
        self._send(link, Broken(), (), link.numbers.next())


def _size(head: bytes, records: Buffer | None) -> int:
    return len(head) + (0 if records is None else len(records))
