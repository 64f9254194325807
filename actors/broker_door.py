"""The broker's side of the ZeroMQ client door: sessions behind one ROUTER socket, each a connection of the gateway.

Owns: `Door`, the ROUTER on a listening descriptor that the supervisor holds, and its sessions. What a message
means is said by `transport/door.py`.
A session is over when its client says so, is gone, takes no answers, or is silent for too long.
One socket carries them all, so a session that has too much unanswered is read on, and its requests wait here. Only when
`PENNED_BYTES_MAX` wait is the door not read; who then takes no answers, and so holds up the others, is ended.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set as AbstractSet
from typing import Any

import zmq

from zafka.actors.door_watch import DoorWatch
from zafka.transport.direct import Told, Where, encode, read_where
from zafka.transport.door import (
    GOODBYE,
    WHERE,
    Arrival,
    BadDoorMessage,
    Buffer,
    judge_arrival,
    read_message,
    set_door_options,
    write_message,
)

MESSAGES_PER_READ = 1000
IDLE_S_MAX = 600.0
WATCH_S = 0.5
QUEUED_BYTES_MAX = 64 * 1024 * 1024
PENNED_BYTES_MAX = 64 * 1024 * 1024  # requests of all sessions that wait here for their turn
UNSENT_MAX = 64  # answers to one session inside of ZeroMQ, which counts no bytes; more wait here, where they are counted
FRAMING_BYTES = 18  # of the two frames of a message, at most
LARGE_BYTES = 64 * 1024  # from here on ZeroMQ sends from our buffer, and tells when it is done with it
LARGE_UNSENT_BYTES_MAX = 4 * 1024 * 1024  # beside the one that is sent: large answers to one session inside of ZeroMQ

POLLIN = int(zmq.POLLIN)
_NO_WAIT = int(zmq.NOBLOCK)


def _ignore(*_: object) -> None:
    pass


class Session:
    """One client socket. queue: what ZeroMQ did not take yet. pen: requests that came while it is not read from.
    unsent: large answers inside of ZeroMQ, with their sizes. fd: of its TCP connection, libzmq's. taken: bytes that
    were read of it."""

    __slots__ = (
        "active_s", "connection_id", "fd", "paused", "pen", "queue", "queued_bytes", "routing_id", "session", "taken",
        "unsent")

    def __init__(self, connection_id: int, routing_id: bytes, session: int, now_s: float, fd: int) -> None:
        self.connection_id = connection_id
        self.fd = fd
        self.taken = 0
        self.routing_id = routing_id
        self.session = session
        self.active_s = now_s
        self.paused = False
        self.queue: deque[tuple[bytes, Buffer]] = deque()
        self.queued_bytes = 0
        self.pen: deque[bytes] = deque()
        self.unsent: deque[tuple[zmq.MessageTracker, int]] = deque()

    def peer(self, door: str) -> str:
        """What there is to call it by: ZeroMQ does not tell addresses."""
        return f"{door} session {self.session:x}"

    def has_room_for_large(self) -> bool:
        """Whether ZeroMQ may be given one more large answer."""
        while self.unsent and self.unsent[0][0].done:
            self.unsent.popleft()
        return sum(size for _, size in self.unsent) < LARGE_UNSENT_BYTES_MAX


class Door:
    """on_open(connection id, listener name, peer), on_frame(connection id, frame), on_blocked(connection id, blocked),
    on_close(connection id), on_bad_peer(peer, reason), as the TCP listener has them.
    on_where(connection id, question): answered by `tell`.
    incarnation: the broker's, which a request has to name."""

    def __init__(
        self, context: zmq.Context[Any], *, name: str, bind: str, fd: int, incarnation: int, frame_bytes_max: int,
        sessions_max: int, on_open: Callable[[int, str, str], None], on_frame: Callable[[int, memoryview], None],
        on_blocked: Callable[[int, bool], None], on_close: Callable[[int], None], clock: Callable[[], float],
        on_bad_peer: Callable[[str, str], None] = _ignore, on_where: Callable[[int, Where], None] = _ignore,
        connection_ids: Iterator[int] | None = None, idle_s_max: float = IDLE_S_MAX,
    ) -> None:
        self.name = name
        self.incarnation = incarnation
        self.sessions_max = sessions_max
        self.on_open = on_open
        self.on_frame = on_frame
        self.on_blocked = on_blocked
        self.on_close = on_close
        self.on_bad_peer = on_bad_peer
        self.on_where = on_where
        self.clock = clock
        self.idle_s_max = idle_s_max
        self._connection_ids = connection_ids or itertools.count(1)
        self._by_route: dict[bytes, Session] = {}
        self._by_id: dict[int, Session] = {}
        self._waiting: dict[int, Session] = {}  # with something in `queue`
        self._penned_bytes = 0
        self._closing = False
        self.sent = False  # since the owner last asked whether the socket is readable
        self.socket: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        set_door_options(self.socket, frame_bytes_max=frame_bytes_max)
        self.socket.setsockopt(zmq.SNDHWM, UNSENT_MAX)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.setsockopt(zmq.USE_FD, os.dup(fd))  # libzmq closes it
        self.socket.bind(f"tcp://{bind}")
        port = int(bind.rpartition(":")[2])
        self._watch = DoorWatch(port, connections_max=sessions_max, on_bad_peer=on_bad_peer)

    def __repr__(self) -> str:
        return f"<Door {self.name} sessions={len(self._by_id)} waiting={len(self._waiting)}>"

    @property
    def readable(self) -> bool:
        """True if `read` would find something. Sending can take the descriptor's signal away, so ask after it."""
        return self._penned_bytes < PENNED_BYTES_MAX and bool(int(self.socket.getsockopt(zmq.EVENTS)) & POLLIN)

    @property
    def queued(self) -> bool:
        return bool(self._waiting)

    # -- reading -------------------------------------------------------------------------------

    def read(self) -> None:
        """Take what has come, up to a limit, and hand it on."""
        for _ in range(MESSAGES_PER_READ):
            if self._penned_bytes >= PENNED_BYTES_MAX or self._closing:
                return
            try:
                head = self.socket.recv(_NO_WAIT, copy=False)
            except zmq.Again:
                return
            self._take(head, self.socket.recv_multipart())  # the frames of one message come together

    def _take(self, head: zmq.Frame, frames: list[bytes]) -> None:
        routing_id = head.bytes
        try:
            message = read_message(frames)
        except BadDoorMessage:
            return  # not one of ours: no session, no answer
        arrival = judge_arrival(message, self.incarnation)
        session = self._by_route.get(routing_id)
        if session is not None and session.session != message.session:
            self._end(session)
            session = None
        if arrival is Arrival.GOODBYE:
            if session is not None:
                self._end(session)
            return
        if session is None:
            if arrival in (Arrival.REQUEST, Arrival.WHERE) or len(self._by_id) >= self.sessions_max:
                self._say(routing_id, message.session, GOODBYE)
                return
            session = self._begin(routing_id, message.session, int(head.get(zmq.SRCFD)))
        session.active_s = self.clock()
        session.taken += len(frames[0]) + len(frames[1]) + FRAMING_BYTES
        if arrival is Arrival.REQUEST:
            if session.paused:
                self._pen(session, frames[1])
            else:
                self.on_frame(session.connection_id, memoryview(message.body))
        elif arrival is Arrival.WHERE:
            self._on_where(session, message.body)
        else:
            self._send(session, write_message(session.session, self.incarnation))

    def _on_where(self, session: Session, body: Buffer) -> None:
        """A question that is asked again if it gets no answer: none is due to who has to wait or takes nothing."""
        if not session.paused and not session.queue:
            with contextlib.suppress(BadDoorMessage):
                self.on_where(session.connection_id, read_where(body))

    def _pen(self, session: Session, frame: bytes) -> None:
        """Keep a request until its session may go on; the others are read meanwhile."""
        session.pen.append(frame)
        self._penned_bytes += len(frame)
        while self._penned_bytes >= PENNED_BYTES_MAX:
            guilty = [each for each in self._waiting.values() if each.pen]
            if not guilty:
                return  # they take their answers, so it will not be for long
            self.close(
                max(guilty, key=lambda each: sum(map(len, each.pen))).connection_id,
                "it sends requests and takes no answers, and holds up the others")

    def _begin(self, routing_id: bytes, number: int, fd: int) -> Session:
        session = Session(next(self._connection_ids), routing_id, number, self.clock(), fd)
        self._by_route[routing_id] = self._by_id[session.connection_id] = session
        self.on_open(session.connection_id, self.name, session.peer(self.name))
        return session

    def _end(self, session: Session) -> None:
        """Forget a session; `on_close` is the last that is heard of it."""
        if self._by_id.pop(session.connection_id, None) is None:
            return
        del self._by_route[session.routing_id]
        self._waiting.pop(session.connection_id, None)
        self._penned_bytes -= sum(map(len, session.pen))
        session.pen.clear()
        self.on_close(session.connection_id)

    # -- writing -------------------------------------------------------------------------------

    def owns(self, connection_id: int) -> bool:
        return connection_id in self._by_id

    def write(self, connection_id: int, frames: Iterable[Sequence[Buffer]]) -> None:
        """Send whole answers, each given in pieces. A session that is gone takes nothing."""
        session = self._by_id.get(connection_id)
        if session is None:
            return
        for frame in frames:
            body = b"".join(frame)
            self._send(session, write_message(session.session, self.incarnation, body))

    def tell(self, connection_id: int, told: Told) -> None:
        """Answer a question for a way."""
        session = self._by_id.get(connection_id)
        if session is not None:
            self._send(session, write_message(session.session, WHERE, encode(told)))

    def _send(self, session: Session, message: tuple[bytes, Buffer]) -> None:
        if not session.queue and self._try_send(session, message):
            return
        size = len(message[1])
        if session.queued_bytes + size > QUEUED_BYTES_MAX:
            self.on_bad_peer(session.peer(self.name), f"it leaves {session.queued_bytes} bytes of answers untaken")
            self._end(session)
            return
        if session.connection_id in self._by_id:
            if not session.queue:
                self.on_blocked(session.connection_id, True)
            session.queue.append(message)
            session.queued_bytes += size
            self._waiting[session.connection_id] = session

    def _try_send(self, session: Session, message: tuple[bytes, Buffer]) -> bool:
        """False if ZeroMQ takes no more for this client now; a client that is gone is forgotten."""
        self.sent = True
        large = len(message[1]) >= LARGE_BYTES
        if large and not session.has_room_for_large():
            return False
        try:
            tracker = self.socket.send_multipart((session.routing_id, *message), _NO_WAIT, copy=not large, track=large)
            if tracker is not None:
                session.unsent.append((tracker, len(message[1])))
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._end(session)
        return True

    def _say(self, routing_id: bytes, session: int, incarnation: int) -> None:
        """A word to a client without a session; it is no loss if it does not arrive."""
        self.sent = True
        try:
            self.socket.send_multipart((routing_id, *write_message(session, incarnation)), _NO_WAIT)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise

    def retry(self) -> None:
        """Send what waits, as far as it goes. To be called every few ms while `queued`."""
        for session in list(self._waiting.values()):
            while session.queue and self._try_send(session, session.queue[0]):
                if session.queue:
                    session.queued_bytes -= len(session.queue.popleft()[1])
            if not session.queue and self._waiting.pop(session.connection_id, None) is not None:
                self.on_blocked(session.connection_id, False)

    # -- limits and the end --------------------------------------------------------------------

    def pause(self, connection_id: int) -> None:
        session = self._by_id.get(connection_id)
        if session is not None and not session.paused:
            session.paused = True

    def resume(self, connection_id: int) -> None:
        session = self._by_id.get(connection_id)
        if session is not None and session.paused:
            session.paused = False
            while session.pen:
                frame = session.pen.popleft()
                self._penned_bytes -= len(frame)
                self.on_frame(connection_id, memoryview(frame))

    def close(self, connection_id: int, reason: str = "") -> None:
        """End a session from our side, after what was written. With a reason, its client is at fault."""
        session = self._by_id.get(connection_id)
        if session is not None:
            if reason:
                self.on_bad_peer(session.peer(self.name), reason)
            self._send(session, write_message(session.session, GOODBYE))
            self._end(session)

    def sweep(self) -> None:
        """Forget sessions that were silent for too long."""
        now_s = self.clock()
        for session in list(self._by_id.values()):
            if now_s - session.active_s > self.idle_s_max:
                self.close(
                    session.connection_id, f"nothing came within {self.idle_s_max:.0f} s (connections.max.idle.ms)")

    def watch(self, elsewhere: AbstractSet[int] = frozenset()) -> None:
        """End connections that libzmq keeps too much for; every `WATCH_S`. elsewhere: descriptors that are not libzmq's."""
        taken: dict[int, int] = {}
        for session in self._by_id.values():
            taken[session.fd] = taken.get(session.fd, 0) + session.taken
        self._watch.sweep(taken, elsewhere)

    def stop_reading(self) -> None:
        self._closing = True

    def shut(self, linger_s: float) -> None:
        self._watch.close()
        self.socket.close(linger=int(linger_s * 1000))
