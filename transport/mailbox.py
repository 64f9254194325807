"""An actor's mailbox: one inbox for those who dial it, one port for each peer that it dials.

Owns: the ports of one process, and what waits because a peer is slow. Used by one thread. A port is a ZeroMQ socket, or
a stream (`transport/stream.py`) where the peer's endpoint says so: between a broker and its partitions.
Never blocks: what a port does not take waits in a bounded queue of ours; over the bound the peer counts as gone.
Invariants: mail between two incarnations of two actors comes once and in order, or both are told (`Broken`,
`transport/link.py`); mail from or for an older incarnation is dropped and counted; nothing queued for one
incarnation ever reaches another (its port is closed, a socket with linger 0); no object of ZeroMQ crosses a fork.
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
from zafka.transport.stream import SCHEME, Acceptor, Stream

Address = tuple[str, int]
"""Name and incarnation of an actor."""

Port = zmq.Socket[bytes] | Stream | Acceptor
"""Where mail comes and goes: its descriptor is to be polled for reading, a stream's that is `blocked` for writing, too."""

QUEUE_MESSAGES_MAX = 10_000
QUEUE_BYTES_MAX = 64 * 1024 * 1024
HIGH_WATER_MARK = 1000
GRAVES_MAX = 10_000
BACKLOG = 4096

_NO_WAIT = int(zmq.NOBLOCK)
_NO_WAIT_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_POLLIN = int(zmq.POLLIN)


class Received(NamedTuple):
    """body: what was sent, or `Broken` where mail from or to this sender was lost."""

    sender: Address
    body: Any
    records: memoryview


class Link:
    """The way to one incarnation of one peer; how it writes is its kind's.

    queue: encoded messages that the port did not take yet, oldest first; queued_bytes counts both frames.
    borrows: it has mapped our arena. memory: its arena, if we have mapped that.
    """

    __slots__ = ("borrows", "incarnation", "memory", "name", "numbers", "port", "queue", "queued_bytes")

    def __init__(self, name: str, incarnation: int, port: zmq.Socket[bytes] | Stream) -> None:
        self.name = name
        self.incarnation = incarnation
        self.numbers = Numbers()
        self.port = port
        self.queue: deque[tuple[bytes, Buffer | None]] = deque()
        self.queued_bytes = 0
        self.borrows = False
        self.memory: memoryview | None = None

    def write(self, head: bytes, records: Buffer | None) -> None:
        """Hand one message over; raises zmq.Again or zmq.ZMQError(EHOSTUNREACH), with nothing handed over."""
        raise NotImplementedError


class SocketLink(Link):
    """Over ZeroMQ. prefix: routing id to send first (the peer dialled us), or b"" (we dialled it)."""

    __slots__ = ("prefix",)
    port: zmq.Socket[bytes]

    def __init__(self, name: str, incarnation: int, port: zmq.Socket[bytes], prefix: bytes = b"") -> None:
        super().__init__(name, incarnation, port)
        self.prefix = prefix

    def write(self, head: bytes, records: Buffer | None) -> None:
        if self.prefix:
            self.port.send(self.prefix, _NO_WAIT_MORE)
        # A ROUTER decides at the routing id and a DEALER at the first frame; the frames behind are always taken.
        if records is None:
            self.port.send(head, _NO_WAIT)
        else:
            self.port.send(head, _NO_WAIT_MORE)
            self.port.send(records, _NO_WAIT, copy=False)


class StreamLink(Link):
    """Over a stream. dialled: by us; then, as with a DEALER, mail for a peer that hung up is lost without a word until
    `forget` says so."""

    __slots__ = ("dialled",)
    port: Stream

    def __init__(self, name: str, incarnation: int, port: Stream, *, dialled: bool) -> None:
        super().__init__(name, incarnation, port)
        self.dialled = dialled

    def write(self, head: bytes, records: Buffer | None) -> None:
        if not self.port.hung_up:
            if not self.port.send(head, records):
                raise zmq.Again
        elif not self.dialled:
            raise zmq.ZMQError(zmq.EHOSTUNREACH)


class Mailbox:
    """Mail of one incarnation of one actor.

    context: the process's own, made after the fork.
    message_type: the union of structs that bodies are of.
    endpoint: where to bind the inbox, "ipc://..." for ZeroMQ, "unix://..." for streams; "" if nobody dials this actor.
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
        self._inbox: zmq.Socket[bytes] | Acceptor | None = None
        self._ports: list[Port] = []
        self.changes = 0  # how often the list of ports did
        self.sent_on: set[Port] = set()  # see `receive`; the owner of an event loop clears it
        self._next = 0  # the port that is drained first, so that a busy one starves no other
        if endpoint.startswith(SCHEME):
            self._inbox = Acceptor(endpoint)
            self._add(self._inbox)
        elif endpoint:
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

    @property
    def full(self) -> str:
        """Why who dials us over a stream has to wait until there is room; "" if nobody has to."""
        return self._inbox.full if isinstance(self._inbox, Acceptor) else ""

    def ports(self) -> list[Port]:
        """All of them, to be polled for reading. The list changes with `connect`, `forget` and `receive`; `changes` counts that."""
        return self._ports

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
        if endpoint.startswith(SCHEME):
            stream = Stream.dial(endpoint)
            self._links[name] = StreamLink(name, incarnation, stream, dialled=True)
            if not stream.closed:
                self._add(stream)
            return
        socket = self._open(zmq.DEALER)
        socket.setsockopt(zmq.ROUTING_ID, routing_id(self.name, self.incarnation))
        socket.connect(endpoint)
        self._links[name] = SocketLink(name, incarnation, socket)

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
        if link.port is not self._inbox:
            self._remove(link.port)

    def close(self, linger_s: float = 0.0) -> None:
        """Close everything; what ZeroMQ still holds is given `linger_s` to leave. What a stream took has left."""
        for port in self._ports:
            if isinstance(port, zmq.Socket):
                port.close(linger=int(linger_s * 1000))
            else:
                port.close()
        if isinstance(self._inbox, Acceptor):  # which is no port while it is full
            self._inbox.close()
        self._ports.clear()
        self._links.clear()
        self._waiting.clear()

    def _open(self, kind: int) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.set_hwm(HIGH_WATER_MARK)
        socket.setsockopt(zmq.LINGER, 0)
        self._add(socket)
        return socket

    def _add(self, port: Port) -> None:
        self._ports.append(port)
        self.changes += 1

    def _remove(self, port: Port) -> None:
        """It may be gone already: a stream goes when the other end hangs up."""
        if port in self._ports:
            self._ports.remove(port)
            self.changes += 1
            port.close()

    # -- sending -------------------------------------------------------------------------------

    def send(self, to: Address | str, body: Any, records: Sequence[Buffer] = ()) -> bool:
        """Send a message, at once or as soon as the port takes it; never blocks.

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
        """To be called every heartbeat: has the other ends notice if the last mail to them was lost, and has those be
        taken in who dialled when there was no room."""
        if self._inbox is not None and self._inbox not in self._ports:
            self._add(self._inbox)
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
        self.sent_on.add(link.port)
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
        """The last step before the port: everything that leaves passes here, in order."""
        link.write(head, records)

    def retry(self) -> None:
        """Send what waits, as far as the ports take it now. To be called every few ms while `queued`."""
        for name, link in list(self._waiting.items()):
            self.sent_on.add(link.port)
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

    def drain(self, stream: Stream) -> None:
        """A stream that was `blocked` is writable: send what waits for it."""
        if stream.flush():
            self.retry()

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
        self, messages_max: int, bytes_max: int = 1 << 62, *, ports: Sequence[Port] | None = None
    ) -> list[Received]:
        """What has come, oldest first for each peer, until nothing is left or a limit is passed.

        ports: those of `ports()` that are worth a try; None means all. An event loop knows from their descriptors; but
            sending takes away a ZeroMQ socket's signal of mail that came, so it asks those in `sent_on` with `has_mail`, too.
        """
        received: list[Received] = []
        candidates = list(self._ports if ports is None else ports)
        count = len(candidates)
        self._next = (self._next + 1) % count if count else 0
        size = 0
        for index in range(count):
            port = candidates[(index + self._next) % count]
            if len(received) >= messages_max or size >= bytes_max or port.closed:
                continue
            if isinstance(port, Stream):
                size += self._read_stream(port, messages_max - len(received), bytes_max - size, received)
            elif isinstance(port, Acceptor):
                self._accept(port)
            else:
                size += self._read_socket(port, messages_max, bytes_max - size, received)
        return received

    def _accept(self, inbox: Acceptor) -> None:
        for stream in inbox.accept():
            self._add(stream)
        if inbox.full and inbox in self._ports:  # readable as long as somebody waits: whoever polls it would spin
            self._ports.remove(inbox)
            self.changes += 1

    def _read_stream(self, stream: Stream, messages_max: int, bytes_max: int, received: list[Received]) -> int:
        size = 0
        for head, records in stream.read(messages_max, bytes_max):
            size += self._take(stream, head, received, records)
        if stream.closed:
            self._remove(stream)
        return size

    def _read_socket(
        self, socket: zmq.Socket[bytes], messages_max: int, bytes_max: int, received: list[Received]
    ) -> int:
        size = 0
        try:
            while len(received) < messages_max and size < bytes_max:
                if socket is self._inbox:
                    socket.recv(_NO_WAIT)  # the routing id says no more than the envelope
                size += self._take(socket, socket.recv(_NO_WAIT), received)
        except zmq.Again:
            pass
        return size

    def _take(
        self, port: zmq.Socket[bytes] | Stream, head: Buffer, received: list[Received], behind: memoryview | None = None
    ) -> int:
        """Decode one message and its records; returns its size in bytes. behind: what a stream has beside the head."""
        envelope = self._decode(head)
        records = envelope.records
        if envelope.apart:
            records = port.recv(_NO_WAIT, copy=False).buffer if behind is None else behind  # type: ignore[union-attr]
        size = len(head) + (len(records) if envelope.apart else 0)
        name, incarnation = envelope.source, envelope.source_incarnation
        link = self._links.get(name)
        newest = self._dead.get(name, 0) + 1 if link is None else link.incarnation
        if envelope.target_incarnation != self.incarnation or incarnation < newest:
            self.stale += 1
            return size
        if self._inbox is not None and (link is None or incarnation > newest):  # somebody has dialled us
            self.forget(name, incarnation - 1)
            link = self._links[name] = self._dialled_by(name, incarnation, port)
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

    @staticmethod
    def _dialled_by(name: str, incarnation: int, port: zmq.Socket[bytes] | Stream) -> Link:
        if isinstance(port, Stream):
            return StreamLink(name, incarnation, port, dialled=False)
        return SocketLink(name, incarnation, port, routing_id(name, incarnation))

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


def has_mail(port: Port) -> bool:
    """Whether `receive` finds something there though the port's descriptor may not say so (any more)."""
    if isinstance(port, Stream):
        return port.has_frame
    return not isinstance(port, Acceptor) and not port.closed and bool(int(port.get(zmq.EVENTS)) & _POLLIN)


def _size(head: bytes, records: Buffer | None) -> int:
    return len(head) + (0 if records is None else len(records))
