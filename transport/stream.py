"""A way between two actors by a Unix stream socket: whole messages in, whole messages out, and nothing that waits for anybody.

Owns: `Stream`, one connection and what its socket did not take or has not given whole, and `Acceptor`, the inbox that
others dial. Used by one thread. Never blocks. Takes the place of ZeroMQ where every request passes, because a hop
costs one wake-up instead of three (docs/decisions/0026-streams-between-broker-and-partitions.md).
Invariants: a message comes whole or not at all, in the order of sending; what was sent before the other end died can still be read.
May fail with OSError from making an `Acceptor`; a broken connection is a `Stream` that has `hung_up`, and is `closed` when all
that had come is read. Only then its descriptor is free for another, so an event loop never watches somebody else's.

A message: length of the head u32, length of the record bytes u32, head, record bytes; big-endian.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from pathlib import Path
from struct import Struct as Layout

Buffer = bytes | bytearray | memoryview

SCHEME = "unix://"
READ_BYTES = 256 * 1024
BUFFER_BYTES = 1 << 20  # asked of the kernel, which gives at most net.core.wmem_max
BACKLOG = 4096
NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}  # for one connection more
_LENGTHS = Layout(">II")
_HEADER = _LENGTHS.size
_NOTHING = memoryview(b"")


def stream_endpoint(endpoint: str) -> str:
    """Where a stream listens in the place of a ZeroMQ socket at this ipc:// endpoint."""
    return SCHEME + endpoint.removeprefix("ipc://")


class Stream:
    """One end of a connection.

    hung_up: nothing goes to the other end any more; what it has said can still be read. closed: nothing comes either.
    has_frame: `read` gives more without new bytes. blocked: the socket did not take all; `flush` when it is writable.
    """

    __slots__ = ("_filled", "_kept", "_out", "_socket", "_whole", "closed", "fd", "has_frame", "hung_up")

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self._socket = connected
        self.fd = connected.fileno()
        self.closed = self.hung_up = False
        self.has_frame = False
        self._kept: bytes | bytearray = b""  # what was read and not given yet
        self._whole: bytearray | None = None  # the message that is being read by itself
        self._filled = 0  # so far
        self._out: deque[memoryview] = deque()

    def __repr__(self) -> str:
        return f"<Stream fd={self.fd} {'closed' if self.closed else 'open'} out={sum(map(len, self._out))}>"

    @classmethod
    def dial(cls, endpoint: str) -> Stream:
        """Connect; if nobody listens there any more, the stream is `closed`."""
        dialled = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream = cls(dialled)
        try:
            dialled.connect(endpoint.removeprefix(SCHEME))
        except OSError:
            stream.close()
        return stream

    def fileno(self) -> int:
        return self.fd

    @property
    def blocked(self) -> bool:
        return bool(self._out)

    # -- sending -------------------------------------------------------------------------------

    def send(self, head: bytes, records: Buffer | None) -> bool:
        """Send one message; False if what was sent before has not left yet: nothing was taken. To one who has hung up it is lost."""
        if self._out and not self.flush():
            return False
        if records is None:
            pieces: list[Buffer] = [_LENGTHS.pack(len(head), 0), head]
        else:
            pieces = [_LENGTHS.pack(len(head), len(records)), head, records]
        self._write(pieces)
        return True

    def flush(self) -> bool:
        """Send what waits, as far as the socket takes it; True if nothing is left."""
        pieces: list[Buffer] = list(self._out)
        self._out.clear()
        self._write(pieces)
        return not self._out

    def _write(self, pieces: list[Buffer]) -> None:
        try:
            sent = self._socket.sendmsg(pieces)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.hung_up = True
            return
        for piece in pieces:
            if sent < len(piece):
                self._out.append(memoryview(piece)[sent:])
                sent = 0
            else:
                sent -= len(piece)

    # -- receiving -----------------------------------------------------------------------------

    def read(self, messages_max: int, bytes_max: int) -> list[tuple[memoryview, memoryview]]:
        """Head and record bytes of the messages that have come whole, in order, until a limit is reached; one read of
        the socket at most."""
        if not self.has_frame:
            data = self._receive()
            if data is None:
                return []
            self._kept = data
        messages: list[tuple[memoryview, memoryview]] = []
        view, position = memoryview(self._kept), 0
        end = len(view)
        self.has_frame = False
        while end - position >= _HEADER:
            head, records = _LENGTHS.unpack_from(view, position)
            behind = position + _HEADER + head + records
            if behind > end:
                self._begin_whole(view[position:], behind - position)
                position = end
                break
            if len(messages) >= messages_max or position >= bytes_max:
                self.has_frame = True
                break
            start = position + _HEADER
            messages.append((view[start : start + head], view[start + head : behind] if records else _NOTHING))
            position = behind
        self._kept = bytes(view[position:]) if position < end else b""
        return messages

    def _begin_whole(self, begun: memoryview, size: int) -> None:
        """A message that is not all there is read to its end in a buffer of its own size."""
        self._whole = bytearray(size)
        self._whole[: len(begun)] = begun
        self._filled = len(begun)

    def _receive(self) -> bytes | bytearray | None:
        """Bytes that begin with a message; None if there is none that is whole."""
        try:
            if self._whole is None:
                data = self._socket.recv(READ_BYTES)
                if data:
                    return self._kept + data if self._kept else data
            else:
                count = self._socket.recv_into(memoryview(self._whole)[self._filled :])
                if count:
                    self._filled += count
                    if self._filled < len(self._whole):
                        return None
                    whole, self._whole = self._whole, None
                    return whole
        except BlockingIOError:
            return None
        except OSError:
            pass
        self.close()
        return None

    def close(self) -> None:
        if not self.closed:
            self.closed = self.hung_up = True
            self.has_frame = False
            self._out.clear()
            self._socket.close()


class Acceptor:
    """The listening end. endpoint: "unix://" and a path. Raises OSError if it cannot be bound.

    full: why those who dial wait to be taken in; what they send waits in the kernel, and nothing of it is lost.
    """

    def __init__(self, endpoint: str) -> None:
        self._path = endpoint.removeprefix(SCHEME)
        self.closed = False
        self.full = ""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.bind(self._path)
            self._socket.listen(BACKLOG)
        except OSError:
            self._socket.close()
            raise
        self.fd = self._socket.fileno()

    def __repr__(self) -> str:
        return f"<Acceptor {self._path}>"

    def fileno(self) -> int:
        return self.fd

    def accept(self) -> list[Stream]:
        """Who has dialled since, as far as there is room. While there is none (`full`), the descriptor stays readable."""
        accepted: list[Stream] = []
        self.full = ""
        try:
            while True:
                accepted.append(Stream(self._socket.accept()[0]))
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self.full = str(error)
        return accepted

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._socket.close()
            Path(self._path).unlink(missing_ok=True)
