"""A partition's own door: the Unix socket by which clients of the same user hand it batches, past the broker.

Owns: `DirectDoor`: the listening socket, the connections, and to whom each request's answer goes.
Invariants: nothing blocks. What comes in one turn is answered at its end, so no more is ever held than a turn takes in
(`FRAMES_PER_TURN`, `BYTES_PER_TURN`), frames that are not all there (`PARTIAL_BYTES_MAX`), and answers that a client leaves
untaken: it is not read from until it takes them. Beyond `CONNECTIONS_MAX` nobody is let in. Whoever is turned away or
ended by any of this goes through the broker.
May fail with OSError from opening it.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable
from pathlib import Path

import structlog

from zafka.actors.actor import Effect, Mail
from zafka.actors.direct import DIRECT, AnswerDirect, DirectProduce
from zafka.actors.messages import ProduceAnswer, ProduceItem
from zafka.transport.direct import BadDirectFrame, Cutter, DirectAnswer, read_request, write_answer
from zafka.transport.kafka.errors import ErrorCode

CONNECTIONS_MAX = 128
BACKLOG = 64
READ_BYTES = 256 * 1024
FRAMES_PER_TURN = 1000
FRAMES_AT_ONCE = 100  # of one client, before the others have their turn
BYTES_PER_TURN = 16 << 20
PARTIAL_BYTES_MAX = 64 << 20  # of all connections
ACKS_ALL = -1

logger = structlog.get_logger(__name__)


def log_bad_peer(reason: str) -> None:
    logger.warning("direct connection ended", reason=reason)


class Connection:
    """One client. out: answers that its socket did not take. closing: as soon as they are out."""

    __slots__ = ("blocked", "closing", "cutter", "ended", "fd", "out", "socket")

    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        self.fd = accepted.fileno()
        self.cutter = Cutter()
        self.out = bytearray()
        self.blocked = self.closing = self.ended = False


class DirectDoor:
    """See the module. incarnation: ours, which a request has to name."""

    def __init__(self, path: str, incarnation: int, on_bad_peer: Callable[[str], None] = log_bad_peer) -> None:
        self.path = path
        self.incarnation = incarnation
        self.on_bad_peer = on_bad_peer
        self._connections: dict[int, Connection] = {}  # by descriptor
        self._left: dict[int, Connection] = {}  # with something that the last turn had no room for; the first is next
        self._asked: dict[int, tuple[Connection, int]] = {}  # connection and its correlation id, by request id
        self._last_id = 0
        self._kept_bytes = 0  # of frames that are not all there
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._listener.bind(path)
            self._listener.listen(BACKLOG)
            self._epoll = select.epoll()
        except OSError:
            self._listener.close()
            raise
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)

    def __repr__(self) -> str:
        return f"<DirectDoor {self.path} connections={len(self._connections)} asked={len(self._asked)}>"

    def fileno(self) -> int:
        """Readable when `read` or `perform` has something to do; stays so until it is done."""
        return self._epoll.fileno()

    @property
    def has_left(self) -> bool:
        """True if `read` gives more at once."""
        return bool(self._left)

    # -- reading -------------------------------------------------------------------------------

    def read(self) -> list[Mail]:
        """The requests that have come, up to the limits of one turn; clients take turns, whatever one of them sends."""
        ready, self._left = self._left, {}
        for fd, _ in self._epoll.poll(0):
            connection = self._connections.get(fd)
            if connection is None:
                self._accept()
            elif connection.blocked:
                self._flush(connection)
            else:
                ready[fd] = connection
        mails: list[Mail] = []
        size = 0
        unserved: dict[int, Connection] = {}
        for fd, connection in ready.items():
            if len(mails) >= FRAMES_PER_TURN or size >= BYTES_PER_TURN:
                unserved[fd] = connection
            else:
                size += self._serve(connection, mails)
        if unserved:
            self._left = unserved | self._left
        if self._kept_bytes > PARTIAL_BYTES_MAX:
            self._bound_partial()
        return mails

    def _accept(self) -> None:
        for _ in range(BACKLOG):
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return  # nobody, or gone again, or no descriptors: who waits tries again, or goes through the broker
            if len(self._connections) >= CONNECTIONS_MAX:
                accepted.close()
                continue
            accepted.setblocking(False)
            connection = Connection(accepted)
            self._connections[connection.fd] = connection
            self._epoll.register(connection.fd, select.EPOLLIN)

    def _serve(self, connection: Connection, mails: list[Mail]) -> int:
        """Take what it has for us; returns the bytes that came."""
        data = b""
        if not connection.cutter.has_frame:
            try:
                data = connection.socket.recv(READ_BYTES)
            except BlockingIOError:
                return 0
            except OSError:
                data = b""
            if not data:
                self._end(connection)
                return 0
        self._take(connection, data, mails)
        return len(data)

    def _take(self, connection: Connection, data: bytes, mails: list[Mail]) -> None:
        """Make mail of the frames that are whole. A client that does not speak our language goes."""
        cutter = connection.cutter
        self._kept_bytes -= cutter.kept_bytes
        try:
            for frame in cutter.cut(data, FRAMES_AT_ONCE):
                request = read_request(frame)
                if request.incarnation != self.incarnation:
                    raise BadDirectFrame(f"a batch for incarnation {request.incarnation}; this is {self.incarnation}")
                self._last_id -= 1
                self._asked[self._last_id] = connection, request.correlation_id
                item = ProduceItem(self._last_id, ACKS_ALL, len(request.records))
                mails.append(Mail(DIRECT, DirectProduce(item, request.leader_epoch), request.records))
        except BadDirectFrame as bad:
            self.on_bad_peer(str(bad))
            self._kept_bytes += cutter.kept_bytes
            self._end(connection)
            return
        self._kept_bytes += cutter.kept_bytes
        if cutter.has_frame:
            self._left[connection.fd] = connection

    def _bound_partial(self) -> None:
        """Who keeps most of the memory for frames that are not all there is ended, while they keep too much."""
        for connection in sorted(self._connections.values(), key=lambda each: -each.cutter.kept_bytes):
            if self._kept_bytes <= PARTIAL_BYTES_MAX:
                return
            self.on_bad_peer(f"{connection.cutter.kept_bytes} bytes of a frame that does not end")
            self._end(connection)

    # -- answering -----------------------------------------------------------------------------

    def perform(self, effect: Effect) -> None:
        """What the actor wants beside mail and timers: `AnswerDirect`."""
        assert type(effect) is AnswerDirect
        answered: dict[Connection, None] = {}
        for answer in effect.answers:
            connection, correlation_id = self._asked.pop(answer.request_id)
            if not connection.ended and not connection.closing:
                connection.out += _frame_of(answer, correlation_id)
                connection.closing = bool(answer.error) and ErrorCode(answer.error).is_retriable
                answered[connection] = None
        for connection in answered:
            self._flush(connection)

    def _flush(self, connection: Connection) -> None:
        """Write what its socket takes. While that is not all, nothing is read from it."""
        try:
            sent = connection.socket.send(connection.out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._end(connection)
            return
        del connection.out[:sent]
        if not connection.out and connection.closing:
            self._end(connection)
        elif connection.blocked != bool(connection.out):
            self._block(connection, not connection.blocked)

    def _block(self, connection: Connection, blocked: bool) -> None:
        """Read from it only while it takes its answers."""
        connection.blocked = blocked
        self._epoll.modify(connection.fd, select.EPOLLOUT if blocked else select.EPOLLIN)
        if blocked:
            self._left.pop(connection.fd, None)
        elif connection.cutter.has_frame:
            self._left[connection.fd] = connection

    # -- the end -------------------------------------------------------------------------------

    def _end(self, connection: Connection) -> None:
        """Its requests that are not answered yet still run; their answers go nowhere."""
        if not connection.ended:
            connection.ended = True
            self._kept_bytes -= connection.cutter.kept_bytes
            del self._connections[connection.fd]
            self._left.pop(connection.fd, None)
            self._epoll.unregister(connection.fd)
            connection.socket.close()

    def close(self) -> None:
        for connection in list(self._connections.values()):
            self._end(connection)
        self._epoll.close()
        self._listener.close()
        with contextlib.suppress(OSError):
            Path(self.path).unlink()


def _frame_of(answer: ProduceAnswer, correlation_id: int) -> bytes:
    return write_answer(DirectAnswer(
        correlation_id, answer.error, answer.base_offset, answer.log_append_time_ms, answer.log_start_offset,
        answer.message))
